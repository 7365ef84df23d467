"""Picture files in, RGB pictures out; and the example pictures whose true label map is known."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fcn_hf.errors import FCNError
from fcn_hf.image_inputs_fcn import read_rgb

EXAMPLES = Path(__file__).parent / "examples"

MAX_PIXELS = 50_000_000
"""Largest picture that is decoded: 150 MB as RGB, and about what a phone's camera gives at most."""


class PictureError(FCNError):
    """A file that can't be shown as a picture; the message is a sentence for the person who chose it."""


def read_picture(path: str | os.PathLike[str]) -> Image.Image:
    """Decode a file as its maker meant it to be seen: see `fcn_hf.image_inputs_fcn.read_rgb`.

    Raises:
        PictureError: not a picture, damaged, or more than `MAX_PIXELS` pixels.
    """
    try:
        # A Path, so that no visitor has the server fetch an address.
        return read_rgb(Path(path), "This picture", MAX_PIXELS)
    except ValueError as error:
        raise PictureError(f"{error}.") from error


def shrink(picture: Image.Image, longest_side: int) -> Image.Image:
    """The picture itself, or a smaller one of the same shape whose longest side is `longest_side` pixels."""
    scale = longest_side / max(picture.size)
    if scale >= 1:
        return picture
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))


@dataclass(frozen=True)
class Examples:
    """The example pictures, and how to recognise one of them in a request.

    A picture is known by its pixels, not by a click that a server would have to remember: an example that is uploaded
    by hand or sent through the API meets its ground truth too, and no request can meet another's.

    Args:
        paths: the picture files, in the order of the page.
        labels: class names in id order, of the label maps.
        label_files: digest of a picture's pixels -> its label map (8-bit ids, 255 = unlabelled).
    """

    paths: tuple[Path, ...] = ()
    labels: tuple[str, ...] = ()
    label_files: dict[str, Path] | None = None

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str] = EXAMPLES) -> Examples:
        """Read `NAME.png` with `NAME_label.png` beside it, and `id2label.json`; a folder may hold none."""
        folder = Path(folder)
        paths = tuple(p for p in sorted(folder.glob("*.png")) if p.with_name(f"{p.stem}_label.png").is_file())
        if not paths:
            return cls()
        id2label = json.loads((folder / "id2label.json").read_text(encoding="utf-8"))
        labels = tuple(id2label[key] for key in sorted(id2label, key=int))
        return cls(paths, labels, {_digest(read_picture(p)): p.with_name(f"{p.stem}_label.png") for p in paths})

    def truth(self, picture: Image.Image, labels: tuple[str, ...]) -> np.ndarray | None:
        """Label map (H, W) uint8 of an example picture; None for another picture, or for models with other classes."""
        if labels != self.labels or (path := (self.label_files or {}).get(_digest(picture))) is None:
            return None
        with Image.open(path) as label_map:
            return np.asarray(label_map, dtype=np.uint8)


def _digest(picture: Image.Image) -> str:
    return hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).hexdigest()
