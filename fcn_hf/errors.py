"""What goes wrong outside the code, each in one sentence with the way out that command lines print as it is."""

from collections.abc import Iterator

from huggingface_hub import constants
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    # Its base class is httpx's or, from huggingface_hub 2 on, httpx2's; this is whichever it is.
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    StrictDataclassError,
)


class FCNError(ValueError):
    """Something can't be done as it was asked for; the message is one sentence for the person who asked."""


UNREACHABLE = (HTTPError, ConnectionError, TimeoutError)
"""What a broken connection is, where a library passes it on as it came."""


def in_one_line(error: BaseException) -> str:
    """What an error says; behind its type where nobody wrote the text for the person who asked."""
    said = " ".join(str(error).split())
    return said if said and isinstance(error, ValueError) else f"{type(error).__name__}: {said}".removesuffix(": ")


def config_reason(error: BaseException) -> str:
    """What is wrong with a config, without where the check of it stands."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
    return said.removeprefix("ValueError: ").removeprefix("TypeError: ")


def hub_reason(error: BaseException) -> str:
    """One line on why loading failed: what the Hub or the network said, or else the first line of `error`.

    Args:
        error: of transformers, datasets or huggingface_hub. The first two often leave out what the third said.
    """
    for cause in _causes(error):
        if isinstance(cause, StrictDataclassError):
            return f"its config can't be right: {config_reason(cause)}"
        if isinstance(cause, OfflineModeIsEnabled):
            return "there is no such folder, and HF_HUB_OFFLINE is set, so that the Hub isn't asked; unset it."
        if isinstance(cause, HFValidationError):
            return "there is no such folder, and a repo of the Hub is named OWNER/NAME; check the path."
        if isinstance(cause, RepositoryNotFoundError):
            return (
                f"there is no such folder, and no such repo at {constants.ENDPOINT}; check its name, or, for a private "
                "one, log in with `hf auth login`."
            )
        if isinstance(cause, HfHubHTTPError) and cause.response.status_code == 401:
            return f"{constants.ENDPOINT} doesn't accept the token; log in with `hf auth login`, or correct HF_TOKEN."
        if isinstance(cause, UNREACHABLE) and not isinstance(cause, HfHubHTTPError):
            said = " ".join(str(cause).split()).rstrip(".") or type(cause).__name__
            return (
                f"the connection to {constants.ENDPOINT} failed ({said}); see to the network and the address "
                "(HF_ENDPOINT), and repeat it."
            )
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
