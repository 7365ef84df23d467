"""Picture files in, RGB pictures out; and the example pictures whose true label map is known."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fcn_hf.errors import FCNError

EXAMPLES = Path(__file__).parent / "examples"

MAX_PIXELS = 50_000_000
"""Largest picture that is decoded: 150 MB as RGB, and about what a phone's camera gives at most."""


class PictureError(FCNError):
    """A file that can't be shown as a picture; the message is a sentence for the person who chose it."""


def read_picture(path: str | os.PathLike[str]) -> Image.Image:
    """Decode a file as its maker meant it to be seen.

    EXIF rotation is applied, transparency is laid on white, CMYK and 16-bit values become 8-bit RGB, and an animation
    gives its first frame.

    Args:
        path: a file in any format Pillow reads.

    Returns:
        An RGB picture, at least 1x1.

    Raises:
        PictureError: not a picture, damaged, or more than `MAX_PIXELS` pixels.
    """
    try:
        with Image.open(path) as file:
            width, height = file.size
            if width * height > MAX_PIXELS:
                raise PictureError(_too_large(f"{width} x {height} pixels"))
            file.load()
            return _to_rgb(ImageOps.exif_transpose(file))
    except Image.DecompressionBombError as error:
        raise PictureError(_too_large("far too many pixels")) from error
    except UnidentifiedImageError as error:
        raise PictureError(
            "This file is not a picture that can be read here. Please choose a JPEG, PNG, WebP, GIF, BMP or TIFF file."
        ) from error
    except PictureError:
        raise
    except Exception as error:  # Pillow's decoders pass on whatever they meet, from SyntaxError to zlib.error
        raise PictureError(
            "This picture is damaged or incomplete and can't be decoded. Please save or download it again."
        ) from error


def _too_large(size: str) -> str:
    return (
        f"This picture has {size}; at most {MAX_PIXELS // 1_000_000} million can be taken here. Please make it smaller."
    )


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "F" or picture.mode.startswith("I"):
        # Pillow would clip deep greys at 255. Sixteen bits have a range; floats are scaled by the one they use.
        values = np.nan_to_num(np.asarray(picture, dtype=np.float64))
        top = max(float(values.max()), 1e-9) if picture.mode == "F" else 65535
        return Image.fromarray((values * (255 / top)).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


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
