"""Files and folders are replaced whole or not at all."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_aside(folder: str | Path) -> Iterator[Path]:
    """An empty folder to write in, whose contents move into `folder` when all of them are written.

    Each takes the place of a file of the same name, or of an empty folder, in one step; whatever else is in `folder`
    stays. After an exception nothing moves.

    Args:
        folder: on whose disk it lies; made where it doesn't exist.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as aside:
        yield Path(aside)
        for path in sorted(Path(aside).iterdir()):
            os.replace(path, folder / path.name)


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file or a folder aside, at a path of the same name, and move it to `path`."""
    with written_aside(path.parent) as aside:
        write(aside / path.name)
