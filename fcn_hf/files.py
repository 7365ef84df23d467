"""Files and folders are replaced whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from PIL import Image

from .errors import FCNError

try:
    import fcntl
except ImportError:  # Windows: what a killed process left aside stays there
    fcntl = None  # type: ignore[assignment]

ASIDE = ".writing-"
"""How the names of folders begin in which files are written until they are whole."""
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""How the text begins that Git leaves in place of a large file, as long as Git LFS hasn't fetched it."""
LFS_REMEDY = "is a Git LFS pointer and not the file itself; fetch it with `git lfs pull`."


def check_folder(folder: str | Path) -> None:
    """See, before any work, that a folder is there or can be made, and written in.

    Raises:
        `FCNError`: if it or one above it is a file, or the nearest one that exists can't be written in.
    """
    nearest = next(path for path in (Path(folder), *Path(os.path.abspath(folder)).parents) if path.exists())
    if not nearest.is_dir():
        raise FCNError(f"{nearest} is a file, but files are to be written into a folder of that name; name another.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise FCNError(f"{nearest} can't be written in; change its permissions, or name another folder.")


def check_file(path: Path, is_own: Callable[[Path], bool], overwrite: bool = False) -> None:
    """See, before any work, that a file can be written at `path`, and takes the place of nothing that is to stay.

    Args:
        is_own: whether a file is one that the command has written before, and may write anew.
        overwrite: replace any file.

    Raises:
        `FCNError`: if there is a folder, a device or a pipe; if there is a file that isn't empty nor to be replaced; or
            if `check_folder` refuses the folder that it is to be in.
    """
    if path.is_dir():
        raise FCNError(f"{path} is a folder, but a file is to be written there; name a file in it.")
    if path.exists() and not path.is_file():
        raise FCNError(f"{path} is a device or a pipe, but a file is to be written there; name another.")
    check_folder(path.parent)
    if overwrite or not os.path.lexists(path):
        return
    if not path.exists() or (path.stat().st_size > 0 and not is_own(path)):
        raise FCNError(f"{path} is there, and not this command's own; name another, or pass --overwrite to replace it.")


def is_png_of(software: str, path: Path) -> bool:
    """Whether a file is a PNG that says of itself that `software`, such as "fcn-hf segment", wrote it."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return picture.info.get("Software") == software
    except Exception:  # whatever Pillow meets in a file that is no picture
        return False


def is_lfs_pointer(path: Path) -> bool:
    """Whether there is a Git LFS pointer where a file ought to be."""
    with open(path, "rb") as file:
        return file.read(len(LFS_POINTER)) == LFS_POINTER


def find_lfs_pointer(folder: str | Path, pattern: str) -> Path | None:
    """The first Git LFS pointer among the files in a folder whose paths match; None, too, if it is no folder."""
    if not os.path.isdir(folder):
        return None
    return next((path for path in Path(folder).glob(pattern) if path.is_file() and is_lfs_pointer(path)), None)


@contextmanager
def written_aside(folder: str | Path) -> Iterator[Path]:
    """An empty folder to write in, whose contents move into `folder` when all of them are written.

    Each takes the place of a file of the same name, or of an empty folder, in one step; whatever else is in `folder`
    stays. After an exception nothing moves. What processes that were killed have left aside is removed.

    Args:
        folder: on whose disk it lies; made where it doesn't exist.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder, wait=True):
        remove_left_aside(folder)
        aside = Path(tempfile.mkdtemp(dir=folder, prefix=ASIDE))
        in_use = ExitStack()
        in_use.enter_context(_lock(aside))
    with in_use:
        try:
            yield aside
            for path in sorted(aside.iterdir()):
                os.replace(path, folder / path.name)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def remove_left_aside(folder: Path) -> None:
    """Remove what processes that were killed while they wrote into `folder` have left aside; what is in use stays."""
    for left in folder.glob(f"{ASIDE}*"):
        with _lock(left) as is_free:
            if is_free:
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _lock(folder: Path, wait: bool = False) -> Iterator[bool]:
    """Lock a folder among processes until the end, theirs or that of the context; gives whether it could be."""
    if fcntl is None:
        yield False
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:  # whoever used it has removed it meanwhile
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            locked = True
        except OSError:  # held by another, or a disk without locks
            locked = False
        yield locked
    finally:
        os.close(descriptor)


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file or a folder aside, at a path of the same name, and move it to `path`."""
    with written_aside(path.parent) as aside:
        write(aside / path.name)
