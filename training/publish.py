"""A finished model folder -> a model on the Hub, in one commit or not at all."""

from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub.utils import filter_repo_objects

from fcn_hf.hub_access import PublishError, explained, open_repo

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
TOKEN_OPTION = "--hub_token"


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
    return open_repo(HfApi(token=token), repo_id, private=private, token_option=TOKEN_OPTION)


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
    with explained(api, repo_id, TOKEN_OPTION):
        if revision not in (None, constants.DEFAULT_REVISION):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        additions = [CommitOperationAdd(name, folder / name) for name in published]
        # Not upload_folder, which makes several commits of a folder with many files.
        commit = api.create_commit(repo_id, additions, commit_message=commit_message, revision=revision)
    return commit.commit_url
