"""This page as a Space of the Hub, created or brought up to date: `python -m space.deploy org/fcn-demo`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import cast

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, SpaceCard, SpaceHardware

from fcn_hf.errors import UNREACHABLE, FCNError, hub_reason
from fcn_hf.files import LFS_REMEDY, is_lfs_pointer
from fcn_hf.hub_access import explained, open_repo
from space.kinds import model_ids

ROOT = Path(__file__).parents[1]

SENT = ("LICENSE", "app.py", "fcn_hf", "space")
"""What a Space has of the repository. Whatever else lies in the Space stays as it is."""

CARD, REQUIREMENTS = "space/README.md", "space/requirements.txt"
AT_THE_TOP = {CARD: "README.md", REQUIREMENTS: "requirements.txt"}
"""Files that the Hub wants to have elsewhere than the repository does."""

DEFAULT_HARDWARE = "cpu-basic"

CPU_WHEELS = """# Without CUDA, as this Space has no GPU: of one version, pip takes the build with a suffix, "+cpu".
--extra-index-url https://download.pytorch.org/whl/cpu
"""


class DeployError(FCNError):
    """The Space can't be put together as it was asked for; the message is one sentence for the person who asked."""


@dataclass(frozen=True)
class Wanted:
    """How the Space is to be.

    Args:
        repo_id: "namespace/name", or "name" for the namespace of the token's owner.
        models: Hub ids of the models to compare; none for those of `space/models`.
        hardware: such as "cpu-basic", "zero-a10g" or "t4-small"; None for what the Space has, or `DEFAULT_HARDWARE`.
        variables: public variables of its environment.
        secrets: secret ones.
        private: whether only its owners may see it.
    """

    repo_id: str
    models: tuple[str, ...] = ()
    hardware: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    private: bool = False

    @property
    def environment(self) -> dict[str, str]:
        """The variables, with the one that tells the page its models."""
        return {**self.variables, **({"FCN_MODELS": ",".join(self.models)} if self.models else {})}


def space_files(models: Sequence[str], hardware: str, root: Path = ROOT) -> dict[str, Path | bytes]:
    """What the Space consists of: path in it -> a file of the repository, or the content of one that was adapted.

    Nothing that git ignores is in it.

    Args:
        models, hardware: as for `Wanted`.
        root: the repository.

    Raises:
        DeployError: `root` isn't a clone, or a file in it is only a pointer of Git LFS.
    """
    names = [name for name in _not_ignored(root) if (root / name).is_file()]
    for name in names:
        if is_lfs_pointer(root / name):
            raise DeployError(f"{name} {LFS_REMEDY}")
    files: dict[str, Path | bytes] = {AT_THE_TOP.get(name, name): root / name for name in names}
    files["README.md"] = _card(root / CARD, models).encode()
    requirements = (root / REQUIREMENTS).read_text(encoding="utf-8")
    files["requirements.txt"] = f"{CPU_WHEELS if hardware.startswith('cpu-') else ''}{requirements}".encode()
    return dict(sorted(files.items()))


def _not_ignored(root: Path) -> list[str]:
    listing = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *SENT]
    try:
        done = subprocess.run(listing, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = " ".join(str(getattr(error, "stderr", None) or error).split())
        raise DeployError(f"git can't tell which files of {root} to send ({said}); deploy from a clone.") from error
    return sorted(set(filter(None, done.stdout.split("\0"))))


def _card(path: Path, models: Sequence[str]) -> str:
    """The Space's card, with the gradio that the page runs with here, and its models."""
    card = SpaceCard(path.read_text(encoding="utf-8"))
    with suppress(metadata.PackageNotFoundError):
        card.data["sdk_version"] = metadata.version("gradio")
    if models:
        card.data["models"], card.data["preload_from_hub"] = list(models), list(models)
    return str(card)


def deploy(wanted: Wanted) -> str:
    """Create the Space, or bring it up to date, its files in one commit; files of the page that went go there too.

    Its settings come first: where one of them is refused, such as hardware that isn't paid for, no file has changed.

    Returns:
        URL of the Space.

    Raises:
        DeployError: a model can't be had from the Hub, or as `space_files`.
        PublishError: there is no token, or it may not write there; the Hub refuses something, or can't be reached. The
            same call may be repeated.
    """
    # What is wrong here is better known before anything is changed there.
    space_files(wanted.models, wanted.hardware or DEFAULT_HARDWARE)
    api = HfApi()
    for model in wanted.models:
        try:
            api.model_info(model)
        except (*UNREACHABLE, OSError, ValueError) as error:
            raise DeployError(f"The model {model!r} can't be had from the Hub: {hub_reason(error)}") from error
    settings = {"space_sdk": "gradio", "space_hardware": wanted.hardware}
    repo_id = open_repo(api, wanted.repo_id, "space", private=wanted.private or None, **settings)
    with explained(api, repo_id):
        hardware = _set_up(api, repo_id, wanted)
        files = space_files(wanted.models, hardware)
        there = api.list_repo_files(repo_id, repo_type="space")
        gone = [name for name in there if name.partition("/")[0] in SENT and name not in files]
        changes: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationAdd(name, content) for name, content in files.items()),
            *(CommitOperationDelete(name) for name in gone),
        ]
        api.create_commit(repo_id, changes, commit_message="Update the page", repo_type="space")
    return f"{api.endpoint}/spaces/{repo_id}"


def _set_up(api: HfApi, repo_id: str, wanted: Wanted) -> str:
    """Hardware, variables and secrets of a Space, as they are wanted; returns its hardware."""
    runtime = api.get_space_runtime(repo_id)
    has = runtime.requested_hardware or runtime.hardware or DEFAULT_HARDWARE
    if wanted.hardware is not None and wanted.hardware != has:
        # The Hub knows more kinds of hardware than this client's list of them.
        api.request_space_hardware(repo_id, cast(SpaceHardware, wanted.hardware))
    for name, value in wanted.secrets.items():
        api.add_space_secret(repo_id, name, value)
    there = {name: variable.value for name, variable in api.get_space_variables(repo_id).items()}
    # Each change restarts the Space.
    for name, value in wanted.environment.items():
        if there.get(name) != value:
            api.add_space_variable(repo_id, name, value)
    if "FCN_MODELS" in there and "FCN_MODELS" not in wanted.environment:
        api.delete_space_variable(repo_id, "FCN_MODELS")
    return wanted.hardware or has


def listing(wanted: Wanted) -> str:
    """What `deploy` would send, for people: the settings, the card's front matter, the requirements, and every file."""
    hardware = wanted.hardware or DEFAULT_HARDWARE
    files = space_files(wanted.models, hardware)
    sizes = {name: len(file) if isinstance(file, bytes) else file.stat().st_size for name, file in files.items()}
    settings = [
        f"Space {wanted.repo_id}, {'private' if wanted.private else 'public where it is new'}",
        f"hardware {hardware}{'' if wanted.hardware else ', or what it has'}",
        *(f"variable {name}={value}" for name, value in wanted.environment.items()),
        *(f"secret {name}" for name in wanted.secrets),
    ]
    contents = [f"{size:>12,}  {name}" for name, size in sizes.items()]
    total = f"{sum(sizes.values()):>12,}  bytes in {len(files)} files"
    front_matter = _text(files["README.md"]).split("---\n")[1]
    requirements = _text(files["requirements.txt"])
    parts = [*settings, "", "README.md:", front_matter, "requirements.txt:", requirements, *contents, total]
    return "\n".join(parts)


def _text(content: Path | bytes) -> str:
    return content.decode() if isinstance(content, bytes) else content.read_text(encoding="utf-8")


def read_arguments(arguments: Sequence[str] | None, environment: Mapping[str, str]) -> tuple[Wanted, bool]:
    """What the command line asks for, and whether it is only to be listed.

    Raises:
        FCNError: a secret that the environment doesn't have, a variable without a value, or too many models.
    """
    parser = argparse.ArgumentParser(prog="python -m space.deploy", description=__doc__)
    parser.add_argument("repo_id", help="the Space: NAMESPACE/NAME, or NAME for a namespace of your own")
    parser.add_argument("--models", nargs="+", default=[], metavar="ID", help="models of the Hub to compare")
    parser.add_argument("--hardware", help="such as cpu-basic, zero-a10g or t4-small; else what the Space has")
    parser.add_argument("--secret", action="append", default=[], metavar="NAME", help="taken from your environment")
    parser.add_argument("--variable", action="append", default=[], metavar="NAME=VALUE", help="for all to see")
    parser.add_argument("--private", action="store_true", help="a new Space is for its owners only")
    parser.add_argument("--dry-run", action="store_true", help="list what would be sent, and send nothing")
    asked = parser.parse_args(arguments)
    model_ids({"FCN_MODELS": ",".join(asked.models)})
    for name in asked.secret:
        if name not in environment:
            raise DeployError(
                f"--secret takes the name of a variable of your environment, which has none of this name: "
                f"{name.partition('=')[0]!r}; set it there, not on the command line."
            )
    for variable in asked.variable:
        if "=" not in variable:
            raise DeployError(f"--variable takes NAME=VALUE, not {variable!r}.")
    wanted = Wanted(
        asked.repo_id,
        models=tuple(asked.models),
        hardware=asked.hardware,
        variables=dict(variable.split("=", 1) for variable in asked.variable),
        secrets={name: environment[name] for name in asked.secret},
        private=asked.private,
    )
    return wanted, asked.dry_run


def main(arguments: Sequence[str] | None = None) -> None:
    try:
        wanted, dry_run = read_arguments(arguments, os.environ)
        print(listing(wanted) if dry_run else f"Published: {deploy(wanted)}")
    except FCNError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
