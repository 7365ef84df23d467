"""Files are replaced whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file of the same name elsewhere on the disk, and move it into place when it is done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as aside:
        write(Path(aside) / path.name)
        os.replace(Path(aside) / path.name, path)
