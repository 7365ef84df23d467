"""Picture files in, RGB pictures out; and the example pictures whose true label map is known."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from fcn_hf.errors import FCNError
from fcn_hf.image_inputs_fcn import PICTURE_FORMATS, is_first_of_several, open_picture, read_rgb

EXAMPLES = Path(__file__).parent / "examples"

MAX_PIXELS = 50_000_000
"""Largest picture that is decoded: 150 MB as RGB, and about what a phone's camera gives at most."""

UNLABELLED = 255
"""Id in an 8-bit label map that is no class; so a model has at most as many classes."""

EXPECTED_TRUTH = (
    "Expected is a PNG of 8 bits a pixel, or with a palette, of the picture’s own size, whose pixel values are the ids "
    f"of the classes, or {UNLABELLED} where nothing is known."
)

BROWSER_FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "MPO", "PNG", "WEBP")
"""What browsers show, by Pillow's names."""


class PictureError(FCNError):
    """A file that can't be shown as a picture; the message is a sentence for the person who chose it."""


class TruthError(FCNError):
    """A label map that can't be the truth of a picture; the message says what was expected."""


def read_picture(path: str | os.PathLike[str]) -> Image.Image:
    """The picture of `read_layers`, whose errors it raises."""
    return read_layers(path)[0]


def read_layers(path: str | os.PathLike[str]) -> tuple[Image.Image, np.ndarray | None]:
    """Decode a file as its maker meant it to be seen: see `fcn_hf.image_inputs_fcn.read_rgb`.

    Returns:
        The picture (RGB), and where it shows nothing: bool (H, W), true where it is wholly transparent; None if the
        file has no transparency.

    Raises:
        PictureError: not a picture, damaged, or more than `MAX_PIXELS` pixels.
    """
    try:
        # A Path, so that no visitor has the server fetch an address.
        picture = open_picture(Path(path), "This picture", MAX_PIXELS)
        rgb = read_rgb(picture, "This picture")
    except ValueError as error:
        raise PictureError(f"{error}.") from error
    if not picture.has_transparency_data:
        return rgb, None
    # Pillow goes to RGBA from all modes with transparency but this one.
    picture = picture.convert("LA") if picture.mode == "La" else picture
    return rgb, np.asarray(picture.convert("RGBA").getchannel("A")) == 0


def read_truth(path: str | os.PathLike[str], size: tuple[int, int], num_labels: int) -> np.ndarray:
    """A visitor's label map of a picture.

    Args:
        path: a PNG of one channel of 8 bits, or with a palette, whose pixel values are class ids, or 255.
        size: (width, height) of the picture.
        num_labels: how many classes there are.

    Returns:
        (H, W) uint8 ids in 0..num_labels-1, 255 = unlabelled.

    Raises:
        TruthError: it is anything else; the message says what was expected.
    """
    try:
        image = open_picture(Path(path), "The truth", MAX_PIXELS)
    except ValueError as error:
        raise TruthError(f"{error}. {EXPECTED_TRUTH}") from error
    found = _peek(path)[0]
    if found != "PNG":
        raise TruthError(f"The truth is a {found} file, not a PNG. {EXPECTED_TRUTH}")
    if image.mode not in ("1", "L", "P"):
        raise TruthError(f"The truth has pixels of mode {image.mode}, which are no ids of 8 bits. {EXPECTED_TRUTH}")
    if image.size != size:
        sizes = " x ".join(map(str, image.size)), " x ".join(map(str, size))
        raise TruthError(f"The truth has {sizes[0]} pixels and the picture {sizes[1]}. {EXPECTED_TRUTH}")
    truth = np.asarray(image).astype(np.uint8)
    unknown = [value for value in np.unique(truth).tolist() if num_labels <= value < UNLABELLED]
    if unknown:
        listed = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        raise TruthError(
            f"The truth has the values {listed}, but these networks' classes are 0 to {num_labels - 1}. "
            f"{EXPECTED_TRUTH}"
        )
    return truth


def browser_copy(path: str | os.PathLike[str], max_bytes: int) -> Path | None:
    """A PNG beside a picture that browsers can't show, such as a TIFF; None for others, or if it had more bytes.

    Raises:
        PictureError: as `read_layers`.
    """
    if _peek(path)[0] in BROWSER_FORMATS:
        return None
    picture, nothing = read_layers(path)
    if nothing is not None:
        picture.putalpha(Image.fromarray(np.uint8(255) * ~nothing))
    copy = Path(path).with_suffix(".shown.png")
    picture.save(copy)
    if copy.stat().st_size <= max_bytes:
        return copy
    copy.unlink()
    return None


def has_several_frames(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an animation, or holds several pages."""
    return _peek(path)[1]


def _peek(path: str | os.PathLike[str]) -> tuple[str | None, bool]:
    """A file's format by Pillow's name, None if it can't be told, and whether it has several frames; nearly nothing is
    decoded for it."""
    Image.init()
    try:
        with Image.open(path, formats=[name for name in PICTURE_FORMATS if name in Image.OPEN]) as image:
            # Phones add a picture of brightness or depth to a photo and call it an MPO.
            return image.format, image.format != "MPO" and is_first_of_several(image)
    except Exception:  # Pillow's readers pass on whatever they meet; `read_layers` says what is wrong
        return None, False


def shrink(picture: Image.Image, longest_side: int) -> Image.Image:
    """The picture itself, or a smaller one of the same shape whose longest side is `longest_side` pixels."""
    scale = longest_side / max(picture.size)
    if scale >= 1:
        return picture
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))


Key = tuple[tuple[int, int], str]
"""By which an example is known: its size (width, height), and a digest of its pixels."""


@dataclass(frozen=True)
class Examples:
    """The example pictures of one kind, and how to recognise one of them in a request.

    A picture is known by its pixels, not by a click that a server would have to remember: an example that is uploaded
    by hand or sent through the API meets its ground truth too, and no request can meet another's.

    Args:
        paths: the picture files, in the order of the page.
        labels: class names in id order, of the label maps; empty where there are none.
        label_files: by which a picture is known -> its label map (8-bit ids, 255 = unlabelled), or None without one.
    """

    paths: tuple[Path, ...] = ()
    labels: tuple[str, ...] = ()
    label_files: dict[Key, Path | None] = field(default_factory=dict)

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str]) -> Examples:
        """Read `NAME.png` or `.jpg`, with `NAME_label.png` beside it where the truth is known, and then
        `id2label.json`; a folder may hold none, or not be there."""
        pictures = [path for path in sorted(Path(folder).glob("*")) if path.suffix in (".png", ".jpg")]
        paths = tuple(path for path in pictures if not path.stem.endswith("_label"))
        files: dict[Key, Path | None] = {}
        for path in paths:
            label_file = path.with_name(f"{path.stem}_label.png")
            picture = read_picture(path)
            files[picture.size, _digest(picture)] = label_file if label_file.is_file() else None
        if not any(files.values()):
            return cls(paths, (), files)
        id2label = json.loads((Path(folder) / "id2label.json").read_text(encoding="utf-8"))
        return cls(paths, tuple(id2label[key] for key in sorted(id2label, key=int)), files)

    def __contains__(self, picture: Image.Image) -> bool:
        return self._key(picture) is not None

    def number(self, picture: Image.Image) -> int | None:
        """Which of the examples a picture is, counted from 1; None for any other."""
        key = self._key(picture)
        return None if key is None else list(self.label_files).index(key) + 1

    def truth(self, picture: Image.Image, labels: tuple[str, ...]) -> np.ndarray | None:
        """Label map (H, W) uint8 of an example picture; None for another picture, or for models with other classes."""
        key = self._key(picture) if labels == self.labels else None
        path = None if key is None else self.label_files[key]
        if path is None:
            return None
        with Image.open(path) as label_map:
            return np.asarray(label_map, dtype=np.uint8)

    def _key(self, picture: Image.Image) -> Key | None:
        """By which one of the examples is known; of a picture of another size, such as a phone's, no digest is made."""
        if all(picture.size != size for size, _ in self.label_files):
            return None
        key = (picture.size, _digest(picture))
        return key if key in self.label_files else None


def _digest(picture: Image.Image) -> str:
    return hashlib.sha256(picture.tobytes()).hexdigest()
