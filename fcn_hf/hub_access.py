"""Who may write to a repo of the Hub, and what is said to those who may not."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from .errors import UNREACHABLE, FCNError, hub_reason


class PublishError(FCNError):
    """Something can't be published; the message is one sentence for the person who asked."""


def open_repo(
    api: HfApi,
    repo_id: str,
    repo_type: str = "model",
    *,
    private: bool | None = None,
    token_option: str | None = None,
    **settings: Any,
) -> str:
    """Make sure that a commit to a repo will be let in; a repo that doesn't exist yet is created, empty.

    Args:
        repo_id: "namespace/name", or "name" for the namespace of the token's owner.
        repo_type: "model", "dataset" or "space".
        private: whether a new repo is private; None for what the namespace's owner has set, which is public by default.
        token_option: as for `explained`.
        settings: what `HfApi.create_repo` has for a new repo besides.

    Returns:
        The full repo id, "namespace/name".

    Raises:
        `PublishError`: if there is no token, or the Hub doesn't accept it; if it may not write to the repo; if the repo
            is public but was to be private; if the Hub can't be reached.
    """
    with explained(api, repo_id, token_option):
        user = api.whoami()["name"]
        full_id = repo_id if "/" in repo_id else f"{user}/{repo_id}"
        api.create_repo(full_id, repo_type=repo_type, private=private, exist_ok=True, **settings)
        # Creating what exists already is no error for those who may only read it; announcing a file is.
        api.preupload_lfs_files(full_id, [CommitOperationAdd("README.md", b"")], repo_type=repo_type)
        is_public = private and not api.repo_info(full_id, repo_type=repo_type).private
    if is_public:
        raise PublishError(
            f"Can't publish to {full_id!r}: it was to be private, but exists and is public; make it private in its "
            "settings on the Hub, name another repo, or don't ask for a private one."
        )
    return full_id


@contextmanager
def explained(api: HfApi, repo_id: str, token_option: str | None = None) -> Iterator[None]:
    """Any error of the Hub's client inside becomes a `PublishError`.

    Args:
        token_option: option of the command line by which the token can be given, if there is one.
    """
    try:
        yield
    except (*UNREACHABLE, OSError, ValueError, RuntimeError) as error:
        raise PublishError(f"Can't publish to {repo_id!r}: {_reason(error, api.token, token_option)}") from error


def _reason(error: BaseException, token: str | bool | None, token_option: str | None) -> str:
    """What went wrong and the way out, without a line break."""
    # A failed upload of a large file comes as a RuntimeError that names the file and has the true one for its cause.
    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    log_in = "log in with `hf auth login`, " + (
        f"set HF_TOKEN, or pass {token_option}" if token_option else "or set HF_TOKEN"
    )
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so that nothing may go to the Hub; unset it, or do without publishing."
    if isinstance(error, LocalTokenNotFoundError):
        return f"there is no token; {log_in}."
    if isinstance(error, HfHubHTTPError):
        said = " ".join((error.server_message or str(error)).split())
        match error.response.status_code:
            case 401:
                stored = "HF_TOKEN" if os.environ.get("HF_TOKEN") else "`hf auth login`"
                source = stored if token is None else token_option
                return f"{constants.ENDPOINT} doesn't accept the token of {source}; for another one, {log_in}."
            case 403:
                return f"the token may not write there ({said}); take one that may, or a namespace of your own."
            case status:
                return f"{constants.ENDPOINT} answered {status} ({said})."
    if isinstance(error, UNREACHABLE):
        return f"{hub_reason(error)} A push lands whole or not at all."
    return " ".join(str(error).split()) or type(error).__name__
