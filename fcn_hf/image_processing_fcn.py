"""Pictures and label maps in, `pixel_values` and `labels` out, logits back to one class map per picture.

Two processors share every rule and differ only in what computes: [`FCNImageProcessor`] works on torch tensors (and on
a GPU, with `device="cuda"`), [`FCNImageProcessorPil`] on numpy arrays.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch.nn import functional
from transformers.image_processing_backends import PilBackend, TorchvisionBackend
from transformers.image_processing_outputs import SemanticSegmentationPostProcessorOutput
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature
from transformers.image_transforms import get_size_with_aspect_ratio
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ChannelDimension,
    PILImageResampling,
    SizeDict,
    get_image_size_for_max_height_width,
)
from transformers.processing_utils import ImagesKwargs

from .image_inputs_fcn import PICTURE_STATISTICS, check_float_pixels, describe, flatten, read_label_maps, read_picture

LONGEST_EDGE = 65536  # pixels; a picture of that size, or a typing error
AUTO_MAP = {"torchvision": "FCNImageProcessor", "pil": "FCNImageProcessorPil"}


class FCNImageProcessorKwargs(ImagesKwargs, total=False):
    """
    do_reduce_labels (`bool`): subtract 1 from every label; 0 becomes `ignore_index`, which itself stays.
    ignore_index (`int`): the label of pixels that count neither in the loss nor in a score; fills padded labels.
    num_labels (`int`): number of classes; when known, every label must lie in 0..num_labels-1 or be `ignore_index`.
    """

    do_reduce_labels: bool
    ignore_index: int
    num_labels: int | None


class _FCNImageProcessing(BaseImageProcessor):
    """All that the two backends share: reading, checking, labels, padding, sizes and post-processing."""

    valid_kwargs = FCNImageProcessorKwargs

    do_resize = False
    size = {"shortest_edge": 500}
    default_to_square = False
    resample = PILImageResampling.BILINEAR
    do_convert_rgb = True
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    do_pad = True
    do_reduce_labels = False
    ignore_index = 255
    num_labels = None

    def preprocess(self, images: Any, segmentation_maps: Any = None, **kwargs: Any) -> BatchFeature:
        """
        Prepare pictures, and the label maps that belong to them, for the model. Calling the processor does the same.

        Args:
            images:
                A picture, or a list (nested lists are flattened) of pictures. A picture is a path (`str` or `Path`), an
                http(s) or `data:image/` URL, a `PIL.Image.Image` of any mode but "F", or a numpy array or torch tensor
                of shape (H, W), (H, W, C) or (C, H, W) with C of 1, 3 or 4; (B, C, H, W) and (B, H, W, C) count as B
                pictures. Files and PIL pictures are turned upright as their EXIF orientation says. Values are 0..255;
                16-bit values (0..65535) are scaled to 8 bit. Float arrays in 0..1 want `do_rescale=False`.
                With `do_convert_rgb`, transparent pixels are composited on white and grey is repeated to three
                channels, except for arrays whose channel count is that of `image_mean`.
                If `image_mean` has 2, 4 or more values, then C is their number (colour and depth: 4, colour and HHA:
                6): such arrays hold any finite values, none of which is alpha or scaled for being 16-bit, and
                pictures from files and PIL are refused, unless `do_convert_rgb=False` keeps them as they are.
            segmentation_maps:
                As many label maps of the same (height, width), in the same order: paths, URLs, PIL pictures (mode "P"
                gives palette indices, "1" gives 0 and 1, "L", "I" and "I;16" their values) or integer arrays and
                tensors of shape (H, W), (1, H, W), (H, W, 1), or (B, H, W) for B maps.
            kwargs:
                Settings for this call alone, and `return_tensors` ("pt" or "np"), `input_data_format`
                ("channels_first" or "channels_last"; inferred when left out: the axis as long as `image_mean`, else
                one of 1, 3 or 4; channels first if both fit) and, for the torchvision backend, `device`. `None` means
                the processor's own setting.

        Returns:
            [`BatchFeature`] with `pixel_values`, float32 of shape (B, C, H, W), and, if maps were given, `labels`,
            int64 of shape (B, H, W); H and W are the batch's largest if `do_pad`. Without `return_tensors`, lists of B.

        Raises:
            ValueError: nothing to process, a missing or unreadable file, a wrong shape, size or channel count, pixels
                that are not finite, labels out of range, colours instead of labels, or not one map per picture.
            TypeError: a picture or map of an unsupported type, or a map that does not hold integers.
        """
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        return super().preprocess(images, segmentation_maps, **kwargs)

    def _standardize_kwargs(self, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        # Both __init__ and preprocess come through here.
        if kwargs.get("do_center_crop"):
            raise ValueError("do_center_crop=True is not supported: an FCN takes any size; crop before processing")
        num_labels = kwargs.get("num_labels")
        if num_labels is not None and (not isinstance(num_labels, int) or num_labels < 1):
            raise ValueError(f"num_labels is {num_labels!r}, but must be a positive integer, or None for no check")
        if not isinstance(kwargs.get("ignore_index", 255), int):
            raise ValueError(f"ignore_index is {kwargs['ignore_index']!r}, but must be an integer, such as 255")
        _check_numbers(kwargs)
        settings = super()._standardize_kwargs(**kwargs)
        for name in ("size", "pad_size"):
            edges = dict(settings.get(name) or {})
            if not all(isinstance(edge, int) and 1 <= edge <= LONGEST_EDGE for edge in edges.values()):
                raise ValueError(f"{name} is {edges}, but edges are whole numbers of pixels in 1..{LONGEST_EDGE}")
        return settings

    def _preprocess_image_like_inputs(  # type: ignore[override]
        self,
        images: Any,
        segmentation_maps: Any,
        do_convert_rgb: bool | None,
        input_data_format: str | ChannelDimension | None,
        device: "str | torch.device | None",
        do_reduce_labels: bool | None,
        ignore_index: int,
        num_labels: int | None,
        return_tensors: Any,
        **kwargs: Any,
    ) -> BatchFeature:
        items = flatten(images, single_ndim=3)
        if not items:
            raise ValueError("there are no images to process: pass at least one")
        statistics = _count_statistics(kwargs["image_mean"], kwargs["image_std"])
        is_picture = statistics in PICTURE_STATISTICS
        pictures = []
        for index, item in enumerate(items):
            name = describe("image", index, item)
            picture = read_picture(item, name, do_convert_rgb, input_data_format, statistics)
            picture = self._to_array(picture, device)
            if "float" in str(picture.dtype):
                check_float_pixels(picture, name, kwargs["do_rescale"])
            if do_convert_rgb and is_picture and picture.shape[0] != statistics:
                picture = self._to_rgb(picture)
            if (kwargs["do_normalize"] or not is_picture) and statistics not in (None, picture.shape[0]):
                remedy = "set do_convert_rgb to True for 3 channels, False to keep them"
                raise ValueError(
                    f"{name} has {picture.shape[0]} channel(s), but image_mean and image_std have {statistics} "
                    f"value(s): give one per channel, or {remedy if is_picture else f'pass {statistics} channels'}"
                )
            pictures.append(picture)
        label_maps = []
        if segmentation_maps is not None:
            sizes = [tuple(picture.shape[-2:]) for picture in pictures]
            label_maps = read_label_maps(segmentation_maps, sizes, do_reduce_labels, ignore_index, num_labels)

        # The backend's own pipeline: resize, rescale, normalize, pad.
        processed = self._preprocess(pictures, return_tensors=None, **kwargs)["pixel_values"]
        data = {"pixel_values": [self._to_float32(picture) for picture in processed]}
        if segmentation_maps is not None:
            data["labels"] = []
            for label_map, picture in zip(label_maps, processed, strict=True):
                if kwargs["do_resize"]:
                    label_map = _resize_nearest(label_map, resized_size(label_map.shape, kwargs["size"]))
                labels = np.full(tuple(picture.shape[-2:]), ignore_index, dtype=np.int64)
                labels[: label_map.shape[0], : label_map.shape[1]] = label_map
                data["labels"].append(self._to_array(labels, device))
        return BatchFeature(data=data, tensor_type=return_tensors)

    def _to_rgb(self, picture: Any) -> Any:
        """(C, H, W) with C of 1, 3 or 4 to (3, H, W): grey is repeated, transparent pixels are composited on white."""
        if picture.shape[0] == 1:
            return picture[[0, 0, 0]]
        if picture.shape[0] == 4:
            white = 1.0 if "float" in str(picture.dtype) and float(picture.max()) <= 1 else 255.0
            picture = self._to_float32(picture)
            return white + (picture[:3] - white) * (picture[3:] / white)
        return picture

    def post_process_semantic_segmentation(
        self, outputs: Any, target_sizes: Any = None, return_segmentation_scores: bool = False
    ) -> list[Any]:
        """
        Turn a model's logits into one map of class ids per picture.

        Padding is cropped away before anything is resized. It is found like this: each target size is taken for the
        size of a picture given to this processor, and its processed size is worked out from the processor's own
        settings (`do_resize`, `size`). If padding a batch of those (to `pad_size`, or to the largest height and the
        largest width) gives the logits' own height and width, then the logits are cropped to each processed size.
        Otherwise the sizes have nothing to do with padding, and the whole logits are resized. Settings that were passed
        to a single call are not known here.

        Args:
            outputs: a model output with `logits`, floats of shape (B, num_labels, H, W).
            target_sizes: B pairs (height, width), a list or a tensor of shape (B, 2): normally each picture's original
                size. If left out, maps keep the logits' size, padding included.
            return_segmentation_scores: also return the logits that belong to each map.

        Returns:
            B int64 tensors of shape (height, width) with class ids; with `return_segmentation_scores`, B
            `SemanticSegmentationPostProcessorOutput` with `segmentation` (such a tensor) and `segmentation_scores`
            (num_labels, height, width). Resizing is bilinear, `align_corners=False`.

        Raises:
            ValueError: not one target size per picture, one that is not two positive integers, or scores that aren't
                finite: NaN is larger than whatever else to `max`.
        """
        scores = list(outputs.logits)
        if target_sizes is not None:
            targets = [tuple(int(edge) for edge in target) for target in target_sizes]
            if len(targets) != len(scores):
                raise ValueError(
                    f"there are {len(targets)} target sizes for {len(scores)} pictures in the logits: pass one each"
                )
            for index, target in enumerate(targets):
                if len(target) != 2 or min(target) < 1:
                    raise ValueError(f"target size {index} is {target}, but must be (height, width), both positive")
            crops = self._unpadded_sizes(targets, tuple(outputs.logits.shape[-2:]))
            scores = [
                _resize_scores(score[:, : crop[0], : crop[1]], target)
                for score, crop, target in zip(scores, crops, targets, strict=True)
            ]
        # On CPUs torch's max along a dimension that isn't the last in memory is several times as fast as its argmax.
        highest = [score.max(dim=0) for score in scores]
        for index, (values, _) in enumerate(highest):
            if not torch.isfinite(values).all():
                raise ValueError(
                    f"the logits of picture {index} aren't finite, so that its map would mean nothing: inside the net, "
                    f"numbers exceed {values.dtype}, or its weights are damaged"
                )
        maps = [ids for _, ids in highest]
        if not return_segmentation_scores:
            return maps
        return [
            SemanticSegmentationPostProcessorOutput(data={"segmentation": class_map, "segmentation_scores": score})
            for class_map, score in zip(maps, scores, strict=True)
        ]

    def _unpadded_sizes(self, targets: list[Any], logits_size: Any) -> list[tuple[int, int]]:
        settings = self._standardize_kwargs(**{name: getattr(self, name, None) for name in self._valid_kwargs_names})
        processed = [resized_size(target, settings["size"]) if self.do_resize else target for target in targets]
        padded = tuple(max(edges) for edges in zip(*processed, strict=True))
        if settings["pad_size"] is not None:
            padded = (settings["pad_size"].height, settings["pad_size"].width)
        return processed if self.do_pad and padded == logits_size else [logits_size] * len(targets)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values; a registered processor's `auto_map` names both backends, torchvision first."""
        settings = super().to_dict()
        if "auto_map" in settings and type(self).__name__ in AUTO_MAP.values():
            module = type(self).__module__.split(".")[-1]
            classes = {backend: f"{module}.{name}" for backend, name in AUTO_MAP.items()}
            settings["auto_map"] = {**settings["auto_map"], "AutoImageProcessor": classes}
        return settings

    def _to_array(self, array: Any, device: "str | torch.device | None") -> Any:
        raise NotImplementedError

    def _to_float32(self, array: Any) -> Any:
        raise NotImplementedError


class FCNImageProcessor(_FCNImageProcessing, TorchvisionBackend):
    """
    Image processor of the FCNs; this one, the default, works with torchvision.

    Args:
        do_resize (`bool`, defaults to `False`): resize pictures and maps to `size`; an FCN needs no particular size.
        size (`dict` or `int`, defaults to `{"shortest_edge": 500}`): see `resized_size`; an integer is a shortest edge.
        resample (defaults to bilinear): PIL filter for pictures; label maps always take the nearest pixel.
        do_convert_rgb (`bool`, defaults to `True`): make every picture RGB, unless `image_mean` is for other channels.
        do_rescale, rescale_factor (default to `True` and 1/255): multiply the pixels by the factor.
        do_normalize, image_mean, image_std (default to `True` and ImageNet's values): subtract and divide per channel;
            2, 4 or more values are for arrays of as many channels, which are kept as they are (see `preprocess`).
        do_pad (`bool`, defaults to `True`): pad at the right and bottom to the batch's largest height and width (or to
            `pad_size`): pictures with 0 after normalization, which is the mean colour, labels with `ignore_index`.
        do_reduce_labels (`bool`, defaults to `False`): subtract 1 from every label; 0 becomes `ignore_index`.
        ignore_index (`int`, defaults to 255): label of the pixels that do not count; fills padding.
        num_labels (`int`, *optional*): number of classes; when given, label ids are checked.
    """

    def resize(self, image: torch.Tensor, size: SizeDict, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Resize pictures, (C, H, W) or (B, C, H, W), to their `resized_size`; further arguments as the backend's."""
        height, width = resized_size(image.shape, size)
        return super().resize(image, SizeDict(height=height, width=width), *args, **kwargs)

    def _to_array(self, array: Any, device: "str | torch.device | None") -> torch.Tensor:
        if isinstance(array, np.ndarray):
            # torch takes no negative strides (`image[..., ::-1]`) and warns of read-only memory.
            array = torch.from_numpy(np.require(array, requirements=["C", "W"]))
        return array.contiguous() if device is None else array.to(device).contiguous()

    def _to_float32(self, array: torch.Tensor) -> torch.Tensor:
        return array.to(torch.float32)


class FCNImageProcessorPil(_FCNImageProcessing, PilBackend):
    """The image processor of [`FCNImageProcessor`], same arguments and results, on PIL and numpy: `backend="pil"`."""

    def resize(
        self,
        image: np.ndarray,
        size: SizeDict,
        resample: PILImageResampling | None = PILImageResampling.BILINEAR,
        *args: Any,
        **kwargs: Any,
    ) -> np.ndarray:
        """Resize one picture (C, H, W), uint8 or float32, to its `resized_size`."""
        height, width = resized_size(image.shape, size)
        # The inherited method would squeeze floats through 8 bits, and take a fourth channel for alpha.
        channels = [PIL.Image.fromarray(channel).resize((width, height), resample) for channel in image]
        return np.stack([np.asarray(channel) for channel in channels])

    def _to_array(self, array: Any, device: "str | torch.device | None") -> np.ndarray:
        return array.cpu().numpy() if isinstance(array, torch.Tensor) else array

    def _to_float32(self, array: np.ndarray) -> np.ndarray:
        return array.astype(np.float32, copy=False)


def resized_size(shape: Sequence[int], size: SizeDict) -> tuple[int, int]:
    """
    The (height, width) to which a picture of shape (..., height, width) is resized.

    `size` has `height` and `width` (exactly that), `shortest_edge` (aspect ratio kept; with `longest_edge` as an upper
    limit), `longest_edge` alone, or `max_height` and `max_width` (aspect ratio kept, the largest that fits).

    Raises:
        ValueError: `size` has none of these.
    """
    height, width = shape[-2:]
    if size.height and size.width:
        return size.height, size.width
    if size.shortest_edge:
        new = get_size_with_aspect_ratio((height, width), size.shortest_edge, size.longest_edge)
    elif size.longest_edge:
        new = get_image_size_for_max_height_width((height, width), size.longest_edge, size.longest_edge)
    elif size.max_height and size.max_width:
        new = get_image_size_for_max_height_width((height, width), size.max_height, size.max_width)
    else:
        raise ValueError(
            f"size is {dict(size)}, but needs positive 'height' and 'width', 'shortest_edge' (and 'longest_edge'), "
            "'longest_edge', or 'max_height' and 'max_width'"
        )
    return max(1, new[0]), max(1, new[1])


def _resize_scores(scores: torch.Tensor, size: Any) -> torch.Tensor:
    if tuple(scores.shape[-2:]) == size:
        return scores
    return functional.interpolate(scores[None], size=size, mode="bilinear", align_corners=False)[0]


def _resize_nearest(label_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest-exact: each target pixel takes the source pixel that holds its centre, in integers to be exact."""
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(label_map.shape, size, strict=True)
    )
    return label_map[rows[:, None], columns]


def _check_numbers(settings: dict[str, Any]) -> None:
    """Refuse factors, means and deviations that leave nothing of a picture, and filters and switches that are none."""
    for name in ("rescale_factor", "image_mean", "image_std"):
        given = settings.get(name)
        if given is None:
            continue
        by_channel = name != "rescale_factor" and isinstance(given, list | tuple)
        values = given if by_channel else [given]
        numbers = [value for value in values if isinstance(value, int | float) and math.isfinite(value)]
        if not values or len(numbers) < len(values) or (name != "image_mean" and min(numbers) <= 0):
            expected = "a finite number" if name == "image_mean" else "a finite positive number"
            each = "" if name == "rescale_factor" else ", or one for each channel"
            raise ValueError(f"{name} is {given!r}, but must be {expected}{each}")
    resample = settings.get("resample")
    if isinstance(resample, int | float | list | dict) and resample not in list(PILImageResampling):
        raise ValueError(f"resample is {resample}, but must be one of PIL's filters, such as 2 for bilinear")
    for name, value in settings.items():
        if name.startswith("do_") and value not in (True, False, None):
            raise ValueError(f"{name} is {value!r}, but must be True or False")


def _count_statistics(image_mean: Any, image_std: Any) -> int | None:
    """The number of channels that mean and standard deviation are for; None if they are single numbers or none."""
    counts = {len(values) for values in (image_mean, image_std) if not isinstance(values, int | float | None)}
    if len(counts) > 1:
        raise ValueError(f"image_mean is {image_mean} and image_std is {image_std}: give both one value per channel")
    return counts.pop() if counts else None


__all__ = ["FCNImageProcessor", "FCNImageProcessorPil"]
