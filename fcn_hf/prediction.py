"""One picture and a model -> one label map: whole, in windows, at several scales, mirrored."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

from .configuration_fcn import FCNConfig, check_id2label
from .errors import FCNError, hub_reason
from .files import LFS_REMEDY, find_lfs_pointer
from .image_inputs_fcn import open_picture
from .memory import keep_freed_memory
from .optimization import optimize


@dataclass(frozen=True)
class InferenceMode:
    """How a picture is looked at. The default is once and whole.

    All sizes are in pixels of what the network sees: the picture's own, unless its image processor resizes.

    Args:
        window: (height, width) of a window that slides over the picture, for pictures that don't fit into memory or
            nets that know one size. Where windows overlap, their logits are averaged. A picture smaller than the window
            is one window.
        overlap: share of the window, 0 to below 1, by which two neighbours overlap at least.
        scales: factors by which the picture is resized (bilinear, antialiased) before the network sees it. The scores
            of each are resized back, and their probabilities averaged: logits of different scales differ in range.
        mirror: average with the probabilities of the picture mirrored left to right, at each scale.

    Raises:
        `FCNError`: if a value is out of range.
    """

    window: tuple[int, int] | None = None
    overlap: float = 0.5
    scales: tuple[float, ...] = (1.0,)
    mirror: bool = False

    def __post_init__(self) -> None:
        if self.window is not None and (len(self.window) != 2 or min(self.window) < 1):
            raise FCNError(f"window is {self.window}; expected (height, width), both positive.")
        if not 0 <= self.overlap < 1:
            raise FCNError(f"overlap is {self.overlap}; expected a share of the window from 0 to below 1.")
        if not self.scales or not all(0 < scale < float("inf") for scale in self.scales):
            raise FCNError(f"scales are {self.scales}; expected one or more positive factors, such as 0.75, 1, 1.25.")


WHOLE_PICTURE = InferenceMode()


def load_model(name: str, dtype: torch.dtype | None = None) -> tuple[Any, Any]:
    """A semantic segmentation model, made fast by `optimize`, and its image processor.

    Args:
        name: model folder or Hub id.
        dtype: of all that is computed; that of the weights if left out.

    Raises:
        `FCNError`: if there is no such model, it isn't one for semantic segmentation, its files can't be read or
            contradict each other, or its weights aren't there or aren't all finite.
        `ImportError`: if it needs a library that isn't installed.
    """
    with loading(name):
        model = read_net(name, AutoModelForSemanticSegmentation)
        check_id2label(model.config.id2label)
        # Outputs are asked for by name.
        model.config.return_dict = True
        processor = AutoImageProcessor.from_pretrained(name)
    return optimize(model, dtype), processor


@contextmanager
def loading(name: str, failed: str = "No model could be loaded from") -> Iterator[None]:
    """Make whatever goes wrong with the files of a model an `FCNError` that begins with `failed` and its name.

    Raises:
        `ImportError`: as it came.
    """
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # transformers passes on whatever the readers of its files meet
        pointer = find_lfs_pointer(name, "*.*")
        reason = hub_reason(error) if pointer is None else f"{pointer.name} {LFS_REMEDY}"
        if "ignore_mismatched_sizes" in reason:
            reason = "its weights aren't of the shapes that its config asks for, as the report above says."
        raise FCNError(f"{failed} {name!r}: {reason}") from error


def read_net(name: str, kind: Any, learnt_anew: str | tuple[str, ...] = (), **settings: Any) -> Any:
    """A model whose weights are those of its files, all of them, and finite; transformers only logs where they aren't.

    Args:
        name: model folder or Hub id.
        kind: the class whose `from_pretrained` builds it.
        learnt_anew: how the names of those weights begin that may be missing, surplus or of other shapes.
        settings: further ones of `from_pretrained`.

    Raises:
        `FCNError`: naming weights that are missing, of another shape or not finite or, of an FCN, that it has no place
            for.
        Whatever `from_pretrained` raises; see `loading`.
    """
    model, report = kind.from_pretrained(name, output_loading_info=True, **settings)
    # Other models' files hold more than what segments, such as the heads of their pretraining.
    surplus = report["unexpected_keys"] if model.config.model_type == FCNConfig.model_type else ()
    for found, said in (
        (report["missing_keys"], "its weights lack {}, which its config asks for."),
        (surplus, "its weights hold {}, for which its config has no place."),
        (
            [key for key, *_ in report["mismatched_keys"]],
            "its weights {} aren't of the shape that its config asks for.",
        ),
    ):
        wrong = [key for key in found if not key.startswith(learnt_anew)]
        if wrong:
            raise FCNError(said.format(min(wrong)))
    check_finite(model.state_dict(), repr(name))
    return model


def load_on_device(name: str, device: str | None = None, dtype: str | None = None) -> tuple[Any, Any]:
    """What `load_model` gives, the model on a device: the accelerator, if there is one and no other is named.

    `dtype` is named as in torch, such as "bfloat16".

    It is for commands: from here on the process keeps the memory that it frees (`keep_freed_memory`).

    Raises:
        As `load_model`, and `FCNError` if the model can't go to the device.
    """
    keep_freed_memory()
    model, processor = load_model(name, None if dtype is None else getattr(torch, dtype))
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    try:
        return model.to(device or accelerator or "cpu"), processor
    except (RuntimeError, AssertionError) as error:  # torch built without a device asserts that it has it
        raise FCNError(f"The model can't go to the device {device!r}: {str(error).splitlines()[0]}") from error


def check_finite(state_dict: Mapping[str, torch.Tensor], name: str) -> None:
    """Raise `FCNError`, with the name of the first one, if there is a tensor with NaN or infinity in it."""
    for tensor_name, tensor in state_dict.items():
        if not torch.isfinite(tensor).all():
            raise FCNError(
                f"The weights {tensor_name} of {name} aren't all finite, so that its masks would mean nothing; its "
                "training has diverged or its file is damaged."
            )


@contextmanager
def evaluation_mode(model) -> Iterator[None]:
    """Put a model in evaluation mode for a while; each of its modules has its own mode again afterwards."""
    # Module by module: parts of a model in training may be frozen in evaluation mode.
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


# Not inference_mode: what a sharded model (FSDP) gathers in it can't be trained with afterwards.
@torch.no_grad()
def predict(model, processor, picture: str | PathLike | Image.Image, mode: InferenceMode = WHOLE_PICTURE) -> np.ndarray:
    """The label map of one picture.

    Args:
        model: a semantic segmentation model, in evaluation mode, on the device that shall compute.
        processor: its image processor.
        picture: a path, a URL or a PIL picture, of any size; it is turned upright.
        mode: window, scales and mirroring.

    Returns:
        `np.ndarray` of int64 class ids, shape (height, width) as the upright picture's.

    Raises:
        `ValueError`: if the picture can't be read, or isn't one for this model, or scores aren't finite.
    """
    (label_map,) = predict_batch(model, processor, [open_picture(picture)], mode)
    return label_map


@torch.no_grad()
def predict_batch(
    model, processor, pictures: Sequence[Image.Image], mode: InferenceMode = WHOLE_PICTURE
) -> list[np.ndarray]:
    """The label maps of pictures of one size that go through the net together, each as `predict` gives it.

    Args:
        pictures: upright ones. (Of several sizes they'd be padded, and the net would see the padding.)

    Raises:
        `ValueError`: if they aren't for this model, or its scores of them aren't finite.
    """
    pixel_values = processor(list(pictures), return_tensors="pt").to(model.device)["pixel_values"]
    scores = averaged_scores(model, pixel_values, mode)
    check_scores(scores)
    outputs = _Scores(scores)
    sizes = [(picture.height, picture.width) for picture in pictures]
    return [ids.cpu().numpy() for ids in processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)]


def check_scores(scores: torch.Tensor) -> None:
    """Raise `FCNError` if there is NaN, or more than all numbers, among a net's scores: they'd still have a largest."""
    # NaN is larger than whatever else to `max`.
    if not torch.isfinite(scores.max()):
        raise FCNError(
            "its scores aren't finite, so that its mask would mean nothing: inside the net, numbers exceed "
            f"{scores.dtype}, or its weights are damaged."
        )


def averaged_scores(model, pixel_values: torch.Tensor, mode: InferenceMode) -> torch.Tensor:
    """The scores of a batch, averaged over scales and mirrored pictures; one sum is kept, however many they are.

    Args:
        model: a semantic segmentation model, in evaluation mode.
        pixel_values: floats, shape (B, channels, H, W), as an image processor makes them.
        mode: window, scales and mirroring.

    Returns:
        Probabilities, shape (B, num_labels, H, W). With the one scale 1 and no mirroring, what `windowed_logits` gives.
    """
    if mode.scales == (1.0,) and not mode.mirror:
        return windowed_logits(model, pixel_values, mode.window, mode.overlap)
    size = pixel_values.shape[-2:]
    views = [(scale, mirrored) for scale in mode.scales for mirrored in ((False, True) if mode.mirror else (False,))]
    total = torch.zeros((), device=pixel_values.device)
    for scale, mirrored in views:
        scaled = pixel_values
        if scale != 1:
            scaled_size = [max(1, round(edge * scale)) for edge in size]
            scaled = functional.interpolate(pixel_values, scaled_size, mode="bilinear", antialias=True)
        logits = windowed_logits(model, scaled.flip(-1) if mirrored else scaled, mode.window, mode.overlap)
        logits = _resized(logits.flip(-1) if mirrored else logits, size)
        total = total + logits.float().softmax(dim=1)
    return total / len(views)


def windowed_logits(
    model, pixel_values: torch.Tensor, window: tuple[int, int] | None = None, overlap: float = 0.5
) -> torch.Tensor:
    """The logits of a batch, from one window at a time.

    Args:
        model: a semantic segmentation model, in evaluation mode.
        pixel_values: floats, shape (B, channels, H, W).
        window: (height, width); without it the whole picture at once.
        overlap: share of the window, 0 to below 1, by which two neighbours overlap at least.

    Returns:
        Logits, shape (B, num_labels, H, W); without a window in the model's own output size and dtype, else float32.
    """
    # FCNs make pixels of their own dtype; other models take no others.
    pixel_values = pixel_values.to(getattr(model, "dtype", pixel_values.dtype))
    if window is None:
        return model(pixel_values=pixel_values).logits
    size = pixel_values.shape[-2:]
    height, width = (min(edge, whole) for edge, whole in zip(window, size, strict=True))
    total = torch.zeros(len(pixel_values), model.config.num_labels, *size, device=pixel_values.device)
    seen = torch.zeros(size, device=pixel_values.device)
    for top in _starts(size[0], height, overlap):
        for left in _starts(size[1], width, overlap):
            place = (..., slice(top, top + height), slice(left, left + width))
            total[place] += _resized(model(pixel_values=pixel_values[place]).logits, (height, width))
            seen[place] += 1
    return total / seen


def _starts(whole: int, window: int, overlap: float) -> list[int]:
    """Where windows begin along one axis: evenly spread, the first at the start and the last at the end."""
    step = max(1, int(window * (1 - overlap)))
    count = -(-(whole - window) // step) + 1
    return [index * (whole - window) // max(1, count - 1) for index in range(count)]


def _resized(logits: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits
    return functional.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class _Scores:
    """What post-processing wants to have: a model output with `logits`."""

    logits: torch.Tensor
