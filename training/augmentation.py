"""Joint augmentation of pictures and label maps, on torchvision's transforms v2."""

import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from fcn_hf.datasets import DatasetError
from training.limits import check_values

# Pixels from one answer of the classifier to the next, before upsampling.
PATCH_STRIDE = 32


@dataclass
class AugmentationArguments:
    """How training examples are varied; probabilities in 0..1, 0 for never."""

    crop_size: list[int] = field(
        default_factory=lambda: [240, 320], metadata={"help": "Height and width in pixels; 0 0 for whole pictures."}
    )
    shortest_edge: int | None = field(
        default=None,
        metadata={"help": "Resize pictures to this shorter edge, here and in the finished model's processor; pixels."},
    )
    longest_edge: int | None = field(
        default=None, metadata={"help": "Upper limit of the longer edge when the finished model's processor resizes."}
    )
    scale: list[float] = field(default_factory=lambda: [0.5, 1.5], metadata={"help": "Range of the random scale."})
    rotation: float = field(default=0.0, metadata={"help": "Largest angle of a random rotation, in degrees."})
    class_balanced_crops: float = field(
        default=0.0, metadata={"help": "Probability that a crop is laid around a pixel of an evenly drawn class."}
    )
    mirror: float = field(default=0.5, metadata={"help": "Probability of a left-right flip."})
    brightness: float = field(default=0.3, metadata={"help": "As in torchvision's ColorJitter, as the next three."})
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.0
    blur: float = field(default=0.0, metadata={"help": "Probability of a Gaussian blur, sigma 0.1 to 2 pixels."})
    erasing: float = field(
        default=0.0, metadata={"help": "Probability that a rectangle is blanked in the picture but not in its labels."}
    )
    patch_sampling: float = field(
        default=1.0,
        metadata={"help": "Share of the 32x32 px patches whose labels count, drawn anew each time; 1: whole pictures."},
    )

    def __post_init__(self):
        check_values(self)
        if self.longest_edge is not None and self.longest_edge < (self.shortest_edge or 0):
            raise DatasetError(
                f"longest_edge={self.longest_edge} must not be below shortest_edge={self.shortest_edge}."
            )


def training_augmentation(arguments: AugmentationArguments, ignore_index: int = 255) -> v2.Transform:
    """
    The transform of a `tv_tensors.Image` (3, H, W) uint8 and its `tv_tensors.Mask` (H, W), drawn anew at each call from
    torch's random numbers.

    What comes out has `crop_size`, unless that is 0 and 0: smaller pictures are padded, and where nothing was pictured
    labels are ignored.
    """
    fill = {tv_tensors.Image: 127, tv_tensors.Mask: ignore_index, "others": 0}
    steps: list[v2.Transform] = [RandomScale(tuple(arguments.scale), arguments.shortest_edge)]
    if arguments.rotation:
        steps.append(v2.RandomRotation(arguments.rotation, v2.InterpolationMode.BILINEAR, fill=fill))
    if any(arguments.crop_size):
        steps.append(ClassBalancedCrop(arguments.crop_size, arguments.class_balanced_crops, ignore_index, fill))
    steps.append(v2.RandomHorizontalFlip(arguments.mirror))
    steps.append(v2.ColorJitter(arguments.brightness, arguments.contrast, arguments.saturation, arguments.hue))
    if arguments.blur:
        steps.append(v2.RandomApply([v2.GaussianBlur(kernel_size=5)], arguments.blur))
    if arguments.erasing:
        # torchvision warns at every call that it leaves masks as they are, which is what is wanted here.
        warnings.filterwarnings("ignore", r"RandomErasing\(\) is currently passing through")
        steps.append(v2.RandomErasing(arguments.erasing, value=127))
    if arguments.patch_sampling < 1:
        steps.append(PatchSampling(arguments.patch_sampling, ignore_index))
    return v2.Compose(steps)


class RandomScale(v2.Transform):
    """Resize picture and mask by one factor, drawn evenly from a range; bilinear and nearest, as torchvision does.

    Args:
        scale: range of the factor.
        shortest_edge: length of the shorter edge at a factor of 1, in pixels; the picture's own without it.
    """

    def __init__(self, scale: tuple[float, ...], shortest_edge: int | None = None):
        super().__init__()
        self.scale = scale
        self.shortest_edge = shortest_edge

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.functional.get_size(flat_inputs[0])
        base = 1 if self.shortest_edge is None else self.shortest_edge / min(height, width)
        factor = base * float(torch.empty(()).uniform_(*self.scale))
        return {"size": [max(1, round(height * factor)), max(1, round(width * factor))]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return v2.functional.resize(inpt, params["size"])


class ClassBalancedCrop(v2.RandomCrop):
    """torchvision's random crop which, sometimes, makes sure to contain a pixel of a class that was drawn evenly.

    Rare classes are seen more often that way without weighting the loss, which costs precision.

    Args:
        size: (height, width) of the crop in pixels; smaller pictures are padded.
        probability: of a crop around such a pixel, in 0..1.
        ignore_index: the label that is no class.
        fill: what padding is filled with, by type.
    """

    def __init__(self, size: list[int], probability: float, ignore_index: int, fill: Any):
        super().__init__(size, pad_if_needed=True, fill=fill)
        self.probability = probability
        self.ignore_index = ignore_index

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        params = super().make_params(flat_inputs)
        if not params["needs_crop"] or torch.rand(()) >= self.probability:
            return params
        mask = next(value for value in flat_inputs if isinstance(value, tv_tensors.Mask))
        classes = mask[mask != self.ignore_index].unique()
        if len(classes) == 0:
            return params
        pixels = (mask == classes[torch.randint(len(classes), ())]).nonzero()
        pixel = pixels[torch.randint(len(pixels), ())].tolist()
        left, top, right, bottom = params["padding"]
        axes = (("top", "height", top, bottom), ("left", "width", left, right))
        for position, length, (start, size, before, behind) in zip(pixel[-2:], mask.shape[-2:], axes, strict=True):
            first = max(0, position + before - params[size] + 1)
            last = min(position + before, length + before + behind - params[size])
            params[start] = int(torch.randint(first, last + 1, ()))
        return params


class PatchSampling(v2.Transform):
    """Ignore the labels of all patches but a share of them, drawn one by one.

    Training on patches is training on whole pictures with a part of the loss left out (CVPR, section 3.4). As in the
    paper's comparison (section 4.4, "Patch sampling") each cell of the coarse map, here 32x32 px, stays with
    probability `share`; batches 1 / `share` times as large keep the number of labelled pixels.

    Args:
        share: in (0, 1).
        ignore_index: the label that doesn't count.
    """

    def __init__(self, share: float, ignore_index: int):
        super().__init__()
        self.share = share
        self.ignore_index = ignore_index

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not isinstance(inpt, tv_tensors.Mask):
            return inpt
        height, width = inpt.shape[-2:]
        left_out = torch.rand(-(-height // PATCH_STRIDE), -(-width // PATCH_STRIDE)) >= self.share
        pixels = left_out.repeat_interleave(PATCH_STRIDE, 0).repeat_interleave(PATCH_STRIDE, 1)[:height, :width]
        return tv_tensors.wrap(inpt.masked_fill(pixels, self.ignore_index), like=inpt)
