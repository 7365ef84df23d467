"""What an FCN's image processor is given, read and checked: files, URLs, PIL pictures, arrays, tensors, label maps.

Nothing here knows a backend: pictures leave as uint8 or float32 arrays or tensors with channels first, label maps as
integer arrays. Every error names the item by its place in the flattened batch and, if it has one, by its file.
"""

import base64
import math
import os
import re
import urllib.request
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageFile
import PIL.ImageOps
import torch
from transformers.image_utils import ChannelDimension, infer_channel_dimension_format
from transformers.utils import logging

CHANNEL_COUNTS = (1, 3, 4)
# What `image_mean` can count and still be for pictures; None: one number for all channels. Any other count is for
# arrays whose channels (depth, HHA, infrared) have a meaning that no colour mode and no value range tells.
PICTURE_STATISTICS = (None, 1, 3)
EXIF_ORIENTATION = 0x0112
URL_TIMEOUT = 10.0  # seconds
UNSUPPORTED = "is of the format {}, which isn't supported: save it as PNG or JPEG"
SEVERAL_FRAMES = "holds several frames or pages, of which only the first is taken"
KNOWN_TYPES = "a path, a URL, a PIL image, a numpy array or a torch tensor"
LOSSY_MAP = "is a JPEG, whose compression changes ids into others that may be in range: store label maps as PNG"
COLOURED_MAP = "but a map holds one class id per pixel, shape (height, width): convert its colours to class ids first"

# All that is decoded, by Pillow's names; HEIF and JXL where a plugin reads them. Its other readers aren't asked: EPS
# has a program run, WMF the system draw, and IPTC opens whatever lies in it.
PICTURE_FORMATS = (
    "AVIF", "BMP", "DDS", "DIB", "GIF", "HEIF", "ICNS", "ICO", "JPEG", "JPEG2000", "JXL", "MPO", "PCX", "PNG", "PPM",
    "PSD", "QOI", "SGI", "TGA", "TIFF", "WEBP",
)  # fmt: skip

# How files begin that aren't taken for pictures, or only where Pillow has a reader of that name for them.
OTHER_FORMATS = {
    "EPS": rb"%!PS|\xc5\xd0\xd3\xc6",
    "PDF": rb"\s*%PDF",
    "HTML": rb"(\xef\xbb\xbf)?\s*<(?i:!doctype\s+)?(?i:html)",
    "SVG": rb"(\xef\xbb\xbf)?\s*<(svg|[?!].*<svg)",
    "gzip": rb"\x1f\x8b",
    "AVIF": rb".{4}ftypavi[fs]",
    "HEIF": rb".{4}ftyp(hei|hev|mif|msf1)",
    "JPEG XL": rb"\xff\x0a|.{4}JXL ",
    "WMF": rb"\xd7\xcd\xc6\x9a|\x01\0\x09\0",
    "EMF": rb"\x01\0\0\0.{36} EMF",
    "FITS": rb"SIMPLE  =",
    "MP4": rb".{4}ftyp",
    "Git LFS pointer": rb"version https://git-lfs",
}

logger = logging.get_logger(__name__)


def flatten(batch: Any, single_ndim: int) -> list[Any]:
    """The single items of nested lists, in order; an array of `single_ndim` + 1 dimensions holds several items."""
    if isinstance(batch, list | tuple):
        return [item for nested in batch for item in flatten(nested, single_ndim)]
    if isinstance(batch, np.ndarray | torch.Tensor) and batch.ndim == single_ndim + 1:
        return list(batch)
    return [batch]


def describe(kind: str, index: int, item: Any) -> str:
    """What errors call an item, like "image 2 ('a.png')"."""
    return _with_file(f"{kind} {index}", item)


def open_picture(source: Any, name: str = "the picture", max_pixels: int | None = None) -> PIL.Image.Image:
    """
    A picture, decoded in its own mode and turned upright as its EXIF orientation says.

    Of several frames or pages the first is taken, and a warning says so, once for each file. A file in none of
    `PICTURE_FORMATS` is not decoded.

    Args:
        source: a path, an http(s) or `data:image/` URL (`str`), or a `PIL.Image.Image`.
        name: what errors call it.
        max_pixels: largest size of a file that is decoded; Pillow's own bound (`MAX_IMAGE_PIXELS`) if left out.

    Raises:
        ValueError: there is no such file, it is a folder, device or pipe, no picture, of another format, damaged, or
            too large.
    """
    # Pillow opens lazily: a picture that somebody opened may still have everything before it.
    if _is_undecoded(source) and source.format not in PICTURE_FORMATS:
        raise ValueError(f"{name} {UNSUPPORTED.format(source.format)}")
    content = b""
    try:
        image = source
        if not isinstance(source, PIL.Image.Image):
            content = _read_bytes(source)
            if not content:
                raise EOFError("it is empty")
            PIL.Image.init()
            known = [format_name for format_name in PICTURE_FORMATS if format_name in PIL.Image.OPEN]
            image = PIL.Image.open(BytesIO(content), formats=known)
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise PIL.Image.DecompressionBombError(
                    f"{image.width} x {image.height}, of which {max_pixels:,} are taken"
                )
        image.load()
        several = is_first_of_several(image)
        # exif_transpose copies even what is upright already.
        upright = PIL.ImageOps.exif_transpose(image) if image.getexif().get(EXIF_ORIENTATION, 1) != 1 else image
        if several:
            logger.warning_once(f"{_with_file(name, source)} {SEVERAL_FRAMES}")
            # A copy has no other frames, of which whoever is handed it would be told once more.
            upright = upright.copy() if upright is image else upright
        # What it was stored as, of which copies know nothing; see `is_lossy`.
        upright.format = image.format
        return upright
    except FileNotFoundError:
        raise ValueError(f"{name} does not exist: check the path") from None
    except PIL.Image.DecompressionBombError as error:
        raise ValueError(f"{name} has too many pixels ({error}): make it smaller") from error
    except Exception as error:  # Pillow's decoders pass on whatever they meet, from SyntaxError to zlib.error
        format_name = _other_format(content)
        if format_name:
            raise ValueError(f"{name} {UNSUPPORTED.format(format_name)}") from error
        if isinstance(error, PIL.UnidentifiedImageError):
            raise ValueError(f"{name} is damaged, or no picture in a known format: check the file") from error
        raise ValueError(f"{name} cannot be read ({error}): check the file, it may be damaged or cut short") from error


def read_rgb(source: Any, name: str = "the picture", max_pixels: int | None = None) -> PIL.Image.Image:
    """
    A picture as people and nets see it: upright RGB, on white where it is transparent, 16-bit grey scaled to 8 bit.

    Arguments and errors are those of `open_picture`; pictures of mode "F", whose range is unknown, are an error too.
    """
    return _to_8_bit_picture(open_picture(source, name, max_pixels), name, do_convert_rgb=True).convert("RGB")


def read_picture(
    item: Any,
    name: str,
    do_convert_rgb: bool | None,
    input_data_format: str | ChannelDimension | None,
    statistics: int | None,
) -> Any:
    """
    One picture as an array or tensor (C, H, W), C of 1, 3, 4 or `statistics`, of dtype uint8 or float32.

    `statistics` is the number of values in `image_mean`, None for a single number. PIL pictures become RGB if
    `do_convert_rgb`, except that 16-bit grey keeps its one channel; arrays and tensors keep their channels. Raises
    ValueError or TypeError for what is no picture, and for a PIL picture to become RGB if `statistics` is not 1 or 3.
    """
    if isinstance(item, str | os.PathLike | PIL.Image.Image):
        image = open_picture(item, name)
        if do_convert_rgb and statistics not in PICTURE_STATISTICS:
            raise ValueError(
                f"{name} is a picture of mode {image.mode!r}, whose channels are colours or alpha, but image_mean and "
                f"image_std have {statistics} value(s): pass an array of shape (height, width, {statistics}), or "
                "do_convert_rgb=False to take the picture's own channels for them"
            )
        array: Any = np.array(_to_8_bit_picture(image, name, do_convert_rgb))
        input_data_format = ChannelDimension.LAST
    elif isinstance(item, np.ndarray | torch.Tensor):
        array = item
    else:
        raise TypeError(f"{name} is of type {type(item).__name__}, but a picture is {KNOWN_TYPES}")
    shape = tuple(array.shape)
    if array.ndim not in (2, 3):
        raise ValueError(f"{name} has shape {shape}, but a picture has shape (height, width), or 3 axes with channels")
    if 0 in shape:
        raise ValueError(f"{name} has shape {shape}, which holds no pixels: check how it was made")
    first = _channels_first(array, name, input_data_format, statistics)
    return _to_uint8_or_float32(first, name, is_picture=statistics in PICTURE_STATISTICS)


def check_float_pixels(array: Any, name: str, do_rescale: bool | None) -> None:
    """Refuse NaN and infinity; warn of pixels that `do_rescale` would scale for the second time."""
    lowest, highest = float(array.min()), float(array.max())
    if not math.isfinite(lowest + highest):
        raise ValueError(f"{name} has NaN or infinite pixels: replace them before processing")
    if do_rescale and lowest >= 0 and 0 < highest <= 1:
        logger.warning_once("Pixels in 0..1 are being rescaled once more: pass do_rescale=False if they should not be.")


def read_label_maps(
    maps: Any,
    picture_sizes: list[tuple[int, int]],
    do_reduce_labels: bool | None,
    ignore_index: int,
    num_labels: int | None,
) -> list[np.ndarray]:
    """
    One integer array (H, W) per picture, of the picture's size and with valid labels.

    `do_reduce_labels` subtracts 1, and 0 becomes `ignore_index`. Labels must then be in 0..num_labels-1 (or just not
    negative, if `num_labels` is None) or be `ignore_index`. Raises ValueError or TypeError otherwise.
    """
    items = flatten(maps, single_ndim=2)
    if len(items) != len(picture_sizes):
        # What looked like a stack of maps may be one map with a channel axis.
        items = flatten(maps, single_ndim=3)
    if len(items) != len(picture_sizes):
        raise ValueError(
            f"there are {len(items)} segmentation maps for {len(picture_sizes)} images: pass one map per image"
        )
    label_maps = []
    for index, (item, size) in enumerate(zip(items, picture_sizes, strict=True)):
        name = describe("segmentation map", index, item)
        label_map = _read_label_map(item, name)
        if label_map.shape != size:
            raise ValueError(
                f"{name} is {label_map.shape[0]}x{label_map.shape[1]} (height x width), but its image is "
                f"{size[0]}x{size[1]}: they must be equal"
            )
        if do_reduce_labels:
            label_map = reduced_labels(label_map, ignore_index)
            name = f"{name}, reduced by 1,"
        _check_labels(label_map, name, num_labels, ignore_index)
        label_maps.append(label_map)
    return label_maps


def is_first_of_several(image: PIL.Image.Image) -> bool:
    """Whether a picture that Pillow opened is the first of several frames or pages. A PSD's layers are no frames."""
    try:
        return image.format != "PSD" and getattr(image, "is_animated", False) and image.tell() == 0
    except Exception:  # what comes after the first frame may be damaged
        return False


def is_lossy(picture: Any) -> bool:
    """Whether a picture, as Pillow opened it, was compressed by JPEG, which changes values: class ids don't survive."""
    compression = getattr(picture, "info", {}).get("compression", "")
    return getattr(picture, "format", None) in ("JPEG", "MPO") or compression in ("jpeg", "tiff_jpeg")


def _is_undecoded(source: Any) -> bool:
    return isinstance(source, PIL.ImageFile.StubImageFile) or bool(getattr(source, "tile", None))


def _with_file(name: str, item: Any) -> str:
    """A name, and in brackets the file that the item is, or comes from, where one is known and not in the name yet."""
    source = str(item if isinstance(item, str | os.PathLike) else getattr(item, "filename", "") or "")
    source = f"{source[:40]}..." if source.startswith("data:") else source
    return f"{name} ({source!r})" if source and repr(source) not in name else name


def _other_format(content: bytes) -> str | None:
    """The name of a format that is known but not read here."""
    start = content[:1024]
    found = next((name for name, pattern in OTHER_FORMATS.items() if re.match(pattern, start, re.DOTALL)), None)
    return None if found in PICTURE_FORMATS and found in PIL.Image.OPEN else found


def reduced_labels(label_map: np.ndarray, ignore_index: int) -> np.ndarray:
    """Labels less 1, int64, where 0 becomes `ignore_index` and `ignore_index` stays."""
    ignored = (label_map == 0) | (label_map == ignore_index)
    return np.where(ignored, ignore_index, label_map.astype(np.int64) - 1)


def _read_bytes(source: str | os.PathLike) -> bytes:
    # A `Path` is always a file: whoever has a path from a stranger makes it one, and nothing is fetched.
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        # Some servers refuse what Python calls itself.
        request = urllib.request.Request(source, headers={"User-Agent": "fcn-hf"})
        with urllib.request.urlopen(request, timeout=URL_TIMEOUT) as response:
            return response.read()
    if isinstance(source, str) and source.startswith("data:image/"):
        return base64.b64decode(source.split(",", 1)[1])
    path = Path(source)
    if path.exists() and not path.is_file():
        # What a pipe or a device gives may never end, or never begin.
        raise OSError("it is a folder, a device or a pipe")
    return path.read_bytes()


def _to_8_bit_picture(image: PIL.Image.Image, name: str, do_convert_rgb: bool | None) -> PIL.Image.Image:
    """A picture of whole numbers in 0..255, in RGB if wanted; 16-bit grey keeps its one channel."""
    if image.mode == "F":
        raise ValueError(f"{name} has mode 'F', whose range is unknown: convert it to mode 'L', or pass a float array")
    if image.mode.startswith("I"):
        return PIL.Image.fromarray(_to_8_bit(np.array(image), name))
    if not do_convert_rgb:
        return image
    if image.has_transparency_data:
        # Pillow goes to RGBA from all modes with transparency but this one.
        image = image.convert("LA") if image.mode == "La" else image
        white = PIL.Image.new("RGBA", image.size, "white")
        image = PIL.Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def _to_8_bit(array: np.ndarray, name: str) -> np.ndarray:
    """0..65535 to 0..255, rounded: 65535 is 257 * 255."""
    lowest, highest = array.min(), array.max()
    if lowest < 0 or highest > 65535:
        raise ValueError(f"{name} has values {lowest}..{highest}, but 16-bit pixels are 0..65535: scale them to that")
    return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _channels_first(
    array: Any, name: str, input_data_format: str | ChannelDimension | None, statistics: int | None
) -> Any:
    """A view of shape (C, H, W)."""
    if array.ndim == 2:
        return array[None]
    ends = (array.shape[0], array.shape[-1])
    # The wanted count goes first: a crop of six channels that is three pixels high is not ambiguous.
    counts = CHANNEL_COUNTS if statistics is None or statistics not in ends else (statistics,)
    if input_data_format is not None:
        layout = ChannelDimension(input_data_format)
    elif ends[0] in counts or ends[1] in counts:
        layout = infer_channel_dimension_format(array, counts)
    else:
        layout = ChannelDimension.FIRST
    first = array.swapaxes(0, 2).swapaxes(1, 2) if layout == ChannelDimension.LAST else array
    if first.shape[0] not in (*CHANNEL_COUNTS, statistics):
        if statistics in PICTURE_STATISTICS:
            expected = "a picture has 1, 3 or 4 channels"
        else:
            expected = f"image_mean and image_std are for {statistics} channels"
        raise ValueError(
            f"{name} has shape {tuple(array.shape)}, but {expected}, first or last: select the channels, correct "
            "input_data_format, or give image_mean and image_std one value per channel"
        )
    return first


def _to_uint8_or_float32(array: Any, name: str, is_picture: bool) -> Any:
    """Leave uint8 and float32 alone; scale bool, and 16-bit pictures, to uint8; hold other numbers in float32."""
    if isinstance(array, torch.Tensor):
        array = array.detach()
        if array.dtype == torch.uint8:
            return array
        if array.is_floating_point():
            return array.to(torch.float32)
        array = array.cpu().numpy()
    if array.dtype == np.bool_:
        return array * np.uint8(255)
    if is_picture and array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return _to_8_bit(array, name)
    if array.dtype.kind not in "uif":
        raise TypeError(f"{name} has dtype {array.dtype}, but pixels are real numbers: convert it, as to uint8")
    return array if array.dtype == np.uint8 else array.astype(np.float32, copy=False)


def _read_label_map(item: Any, name: str) -> np.ndarray:
    if isinstance(item, str | os.PathLike | PIL.Image.Image):
        image = open_picture(item, name)
        if is_lossy(image):
            raise ValueError(f"{name} {LOSSY_MAP}")
        if len(image.getbands()) > 1:
            raise ValueError(f"{name} has mode {image.mode!r}, {COLOURED_MAP}")
        array = np.asarray(image)
    elif isinstance(item, torch.Tensor):
        tensor = item.detach().cpu()
        # numpy has no bfloat16; the dtype check below refuses floats of any width.
        array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    elif isinstance(item, np.ndarray):
        array = item
    else:
        raise TypeError(f"{name} is of type {type(item).__name__}, but a segmentation map is {KNOWN_TYPES}")
    if array.dtype.kind not in "uib":
        raise TypeError(f"{name} has dtype {array.dtype}, but labels are integers: cast it, for example to uint8")
    if array.ndim == 3:
        if {array.shape[0], array.shape[-1]} & {3, 4}:
            raise ValueError(f"{name} has shape {array.shape}, {COLOURED_MAP}")
        if 1 in (array.shape[0], array.shape[-1]):
            array = array[..., 0] if array.shape[-1] == 1 else array[0]
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}, but a map has shape (height, width), with pixels in it")
    return array.astype(np.uint8) if array.dtype == np.bool_ else array


def _check_labels(label_map: np.ndarray, name: str, num_labels: int | None, ignore_index: int) -> None:
    highest = math.inf if num_labels is None else num_labels - 1
    if label_map.min() >= 0 and label_map.max() <= highest:
        return
    outside = label_map[(label_map != ignore_index) & ((label_map < 0) | (label_map > highest))]
    if outside.size == 0:
        return
    values = np.unique(outside).tolist()
    listed = ", ".join(map(str, values[:5])) + (f" and {len(values) - 5} more" if len(values) > 5 else "")
    verb = f"label {listed} in {name} is" if len(values) == 1 else f"labels {listed} in {name} are"
    expected = "negative" if num_labels is None else f"outside 0..{highest}"
    raise ValueError(
        f"{verb} {expected}: correct the map, set num_labels to the number of classes, or mark such pixels with "
        f"ignore_index ({ignore_index})"
    )
