"""A finished model folder -> a model on the Hub, in one commit or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import filter_repo_objects

from fcn_hf.errors import UNREACHABLE, FCNError, hub_reason

# Names, of files or of folders above them, that a run leaves behind and a model doesn't need.
LEFT_OUT = (
    "checkpoint-*",
    ".*",
    "_*",
    "optimizer*",
    "scheduler*",
    "scaler*",
    "rng_state*",
    "ema.pt",
    "trainer_state.json",
    "training_args.bin",
)
LOG_IN = "log in with `hf auth login`, set HF_TOKEN, or pass --hub_token"


class PublishError(FCNError):
    """A model can't be published; the message is one sentence for the person who asked."""


def check_access(repo_id: str, *, private: bool | None = None, token: str | None = None) -> str:
    """Make sure that `publish` will be let in, which is better known before hours of training than after.

    A repo that doesn't exist yet is created, empty.

    Args:
        repo_id: "namespace/name", or "name" for the namespace of the token's owner.
        private: whether a new repo is private; None for what the namespace's owner has set, which is public by default.
        token: of the Hub; the one of HF_TOKEN or of `hf auth login` if left out.

    Returns:
        The full repo id, "namespace/name".

    Raises:
        `PublishError`: if there is no token, or the Hub doesn't accept it; if it may not write to the repo; if the repo
            is public but was to be private; if the Hub can't be reached.
    """
    api = HfApi(token=token)
    with _explained(repo_id, token):
        user = api.whoami()["name"]
        full_id = repo_id if "/" in repo_id else f"{user}/{repo_id}"
        api.create_repo(full_id, private=private, exist_ok=True)
        # Creating what exists already is no error for those who may only read it; announcing a file is.
        api.preupload_lfs_files(full_id, [CommitOperationAdd("README.md", b"")])
        is_public = private and not api.model_info(full_id).private
    if is_public:
        raise PublishError(
            f"Can't publish to {full_id!r}: it was to be private, but exists and is public; make it private in its "
            "settings on the Hub, name another repo, or don't ask for a private one."
        )
    return full_id


def publish(
    folder: str | Path,
    repo_id: str,
    *,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str = "Upload model",
) -> str:
    """Upload a finished model folder in one commit, so that nobody ever finds half a model.

    Files that are there already and haven't changed are not uploaded again; files that only the repo has stay. What a
    run leaves in its folder besides the model, such as checkpoints, isn't uploaded; TensorBoard logs are.

    Args:
        folder: what `training/results.py` makes.
        repo_id, token: as for `check_access`; the repo is created where it doesn't exist.
        revision: branch to upload to, created where it doesn't exist; the main one if left out.
        commit_message: what the Hub shows in the list of commits.

    Returns:
        URL of the commit, or of the last one if nothing has changed.

    Raises:
        `PublishError`: if `folder` holds no model; for the reasons of `check_access`; or if the connection breaks off,
            after which the same call may be repeated.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise PublishError(f"Can't publish {str(folder)!r}: it has no config.json, so it's no finished model folder.")
    api = HfApi(token=token)
    repo_id = check_access(repo_id, token=token)
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    published = filter_repo_objects(names, ignore_patterns=[*LEFT_OUT, *(f"*/{pattern}" for pattern in LEFT_OUT)])
    with _explained(repo_id, token):
        if revision not in (None, constants.DEFAULT_REVISION):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        additions = [CommitOperationAdd(name, folder / name) for name in published]
        # Not upload_folder, which makes several commits of a folder with many files.
        commit = api.create_commit(repo_id, additions, commit_message=commit_message, revision=revision)
    return commit.commit_url


@contextmanager
def _explained(repo_id: str, token: str | None) -> Iterator[None]:
    """Any error of the Hub's client inside becomes a `PublishError`."""
    try:
        yield
    except (*UNREACHABLE, OSError, ValueError, RuntimeError) as error:
        raise PublishError(f"Can't publish to {repo_id!r}: {_reason(error, token)}") from error


def _reason(error: BaseException, token: str | None) -> str:
    """What went wrong and the way out, without a line break."""
    # A failed upload of a large file comes as a RuntimeError that names the file and has the true one for its cause.
    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so that nothing may go to the Hub; unset it, or train without pushing."
    if isinstance(error, LocalTokenNotFoundError):
        return f"there is no token; {LOG_IN}."
    if isinstance(error, HfHubHTTPError):
        said = " ".join((error.server_message or str(error)).split())
        match error.response.status_code:
            case 401:
                stored = "HF_TOKEN" if os.environ.get("HF_TOKEN") else "`hf auth login`"
                source = stored if token is None else "--hub_token"
                return f"{constants.ENDPOINT} doesn't accept the token of {source}; for another one, {LOG_IN}."
            case 403:
                return f"the token may not write there ({said}); take one that may, or a namespace of your own."
            case status:
                return f"{constants.ENDPOINT} answered {status} ({said})."
    if isinstance(error, UNREACHABLE):
        return f"{hub_reason(error)} A push lands whole or not at all."
    return " ".join(str(error).split()) or type(error).__name__
