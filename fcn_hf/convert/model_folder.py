"""Converted weights -> a complete model folder, written aside and moved into place."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.numpy import save_file
from transformers.dynamic_module_utils import custom_object_save

from ..configuration_fcn import FCNConfig
from ..errors import FCNError, config_reason
from ..files import check_folder, written_aside
from ..image_processing_fcn import FCNImageProcessor
from ..model_card import model_card
from ..modeling_fcn import FCNForSemanticSegmentation
from .caffe_file import CaffeBlob, is_finite
from .names import published_names

SECTIONS = """## Where it comes from

The weights were read from `{{ source }}` by `fcn-hf convert`; they were not trained or scored anew.
{% for note in notes %}
- {{ note }}
{%- endfor %}

Licence of the weights: {{ license_note }}
"""

# Of colour pictures, red, green, blue in 0..255: infer.py of the release, where they stand as BGR.
RELEASE_MEAN = (122.67891434, 116.66876762, 104.00698793)


class ConversionError(FCNError):
    """Weights that can't become an FCN; the message names the layer and what was expected of it."""


@dataclass
class Conversion:
    """All that a model folder is made of.

    Args:
        config: of the net.
        processor: what turns ordinary pictures into the input that these weights want.
        tensors: every parameter and buffer of the net but those in `fresh`, by the names of `published_names`.
        title: of the card, such as "FCN-8s, PASCAL VOC".
        description: a sentence or two about the net, for the card.
        source: file or model the weights came from.
        notes: what was recognised, assumed or left out; sentences.
        license_note: who allows what with the weights.
        license: SPDX name for the card's front matter, where there is one.
        fresh: names of tensors that the source doesn't have and that start as in a new net.
    """

    config: FCNConfig
    processor: FCNImageProcessor
    tensors: Mapping[str, np.ndarray | CaffeBlob]
    title: str
    description: str
    source: str
    notes: list[str] = field(default_factory=list)
    license_note: str = "not known; ask those who published them."
    license: str | None = None
    fresh: tuple[str, ...] = ()

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor of the net by its name in the release, without building it."""
        with torch.device("meta"):
            state = FCNForSemanticSegmentation(self.config).state_dict()
        return {name: tuple(state[place].shape) for name, place in published_names(state).items()}

    def build(self) -> FCNForSemanticSegmentation:
        """The net in memory, in evaluation mode.

        Raises:
            `ConversionError`: if the tensors aren't those of the net.
        """
        self.check()
        model = FCNForSemanticSegmentation(self.config)
        places = published_names(model.state_dict())
        tensors = {
            places[name]: torch.from_numpy(tensor if isinstance(tensor, np.ndarray) else tensor.read())
            for name, tensor in self.tensors.items()
        }
        model.load_state_dict(tensors, strict=False)
        return model.eval()

    def check(self) -> None:
        """Compare the tensors with what the net wants.

        Raises:
            `ConversionError`: naming the first missing or surplus tensor, or one of another shape, or not all finite.
        """
        expected = self.expected_shapes()
        for name, shape in expected.items():
            if name in self.fresh:
                continue
            if name not in self.tensors:
                raise ConversionError(f"{self.source}: {name} is missing; expected numbers of shape {shape}.")
            if tuple(self.tensors[name].shape) != shape:
                raise ConversionError(
                    f"{self.source}: {name} has shape {tuple(self.tensors[name].shape)}; expected {shape}."
                )
        surplus = [name for name in self.tensors if name not in expected]
        if surplus:
            raise ConversionError(f"{self.source}: {surplus[0]} is not part of {self.title}; is it another net?")
        for name, tensor in self.tensors.items():
            if isinstance(tensor, np.ndarray) and not is_finite(tensor):
                raise ConversionError(
                    f"{self.source}: {name} has numbers that aren't finite; its training has diverged or it is damaged."
                )


def check_destination(folder: str | Path) -> Path:
    """A path that a model folder can be moved to: nothing is there, or an empty folder.

    Raises:
        `ConversionError`: if something is there.
        `FCNError`: if a folder can't be made there.
    """
    folder = Path(os.path.abspath(folder))
    if folder.is_file() or folder.is_symlink() or (folder.is_dir() and any(folder.iterdir())):
        raise ConversionError(f"{folder} already exists and is left as it is; name a new folder, or remove it first.")
    check_folder(folder.parent)
    return folder


def write_model_folder(conversion: Conversion, folder: str | Path) -> None:
    """Write weights, config, preprocessor config, remote code and card; `folder` appears whole or not at all.

    Raises:
        `ConversionError`: if `folder` holds something already, or if the tensors aren't those of the net.
    """
    folder = check_destination(folder)
    conversion.check()
    with torch.device("cpu" if conversion.fresh else "meta"):
        model = FCNForSemanticSegmentation(conversion.config)
    start = model.state_dict()
    places = published_names(start)
    tensors = {places[name]: tensor for name, tensor in conversion.tensors.items()}
    tensors |= {places[name]: start[places[name]].numpy() for name in conversion.fresh}
    blobs = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, CaffeBlob)}
    # Zeros of NumPy take no memory until they are written to: a blob, of up to 400 MB, only gets its place in the file.
    arrays = {
        name: np.zeros(tensor.shape, np.float32) if isinstance(tensor, CaffeBlob) else np.asarray(tensor, order="C")
        for name, tensor in tensors.items()
    }
    with written_aside(folder.parent) as parent:
        aside = parent / folder.name
        aside.mkdir()
        save_file(arrays, aside / "model.safetensors", {"format": "pt"})
        copy_blobs(blobs, aside / "model.safetensors")
        model.config.architectures = [type(model).__name__]
        model.config.dtype = "float32"
        custom_object_save(model, aside, config=model.config)  # type: ignore[arg-type]
        model.config.save_pretrained(aside)
        conversion.processor.save_pretrained(aside)
        (aside / "README.md").write_text(card_text(conversion, folder.name), encoding="utf-8")


def copy_blobs(blobs: Mapping[str, CaffeBlob], path: Path) -> None:
    """Put the numbers of blobs into their places in a safetensors file that holds others there.

    The format: the header's length in 8 bytes, the header as JSON, then the tensors.
    """
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        for name, blob in blobs.items():
            file.seek(8 + length + header[name]["data_offsets"][0])
            blob.copy_to(file)


def card_text(conversion: Conversion, model_id: str) -> str:
    """The model card of a converted net."""
    return model_card(
        conversion.config,
        model_id,
        conversion.title,
        conversion.description,
        SECTIONS,
        front_matter={"license": conversion.license},
        source=conversion.source,
        notes=conversion.notes,
        license_note=conversion.license_note,
    )


def checked_config(source: str, **settings: Any) -> FCNConfig:
    """A config, with a `ConversionError` of one line in place of what `FCNConfig` raises."""
    try:
        return FCNConfig(**settings)
    except (StrictDataclassError, ValueError) as error:
        raise ConversionError(f"{source}: {config_reason(error)}") from error


def caffe_processor(means: Sequence[float], num_labels: int, ignore_index: int = 255) -> FCNImageProcessor:
    """Ordinary RGB pictures -> 0..255 minus a mean, the input of nets that Caffe trained.

    Args:
        means: of each channel, in 0..255, in the order of the pictures' channels (RGB).
        num_labels, ignore_index: as `FCNImageProcessor`'s.
    """
    settings: dict[str, Any] = {"num_labels": num_labels, "ignore_index": ignore_index}
    return FCNImageProcessor(image_mean=[mean / 255 for mean in means], image_std=[1 / 255] * len(means), **settings)


def one_kernel_each(weight: np.ndarray, name: str, source: str) -> np.ndarray:
    """The diagonal (classes, 1, k, k) of a kernel (classes, classes, k, k).

    Raises:
        `ConversionError`: if there is anything but zeros off the diagonal, or the shape is another.
    """
    if weight.ndim != 4 or weight.shape[1] not in (1, weight.shape[0]):
        raise ConversionError(f"{source}: {name} has shape {weight.shape}; expected (classes, classes, size, size).")
    if weight.shape[1] == 1:
        return weight
    diagonal = weight[np.arange(len(weight)), np.arange(len(weight))]
    mixed = np.count_nonzero(weight) - np.count_nonzero(diagonal)
    if mixed:
        raise ConversionError(
            f"{source}: {name} mixes classes: {mixed} weights off its diagonal aren't 0. An FCN upsamples each class "
            "by itself."
        )
    return np.ascontiguousarray(diagonal[:, None])


def describe_config(config: FCNConfig) -> str:
    """What was recognised, in one line, such as "FCN-8s on VGG16, 21 classes"."""
    names = {"vgg": "VGG", "alexnet": "AlexNet", "googlenet": "GoogLeNet"}
    auto = config.backbone_config
    backbone = names.get(config.backbone) or str(getattr(auto, "backbone", None) or getattr(auto, "model_type", ""))
    if config.backbone == "vgg":
        backbone += str(sum(config.depths) + 3) + ("-BN" if config.use_batch_norm else "")
    classes = (
        " and ".join(f"{count} {task}" for task, count in dict(config.tasks).items())
        if config.tasks
        else str(config.num_labels)
    )
    streams = f", streams of {' and '.join(map(str, config.streams))} channels" if config.streams else ""
    return (
        f"FCN-{config.prediction_stride}s on {backbone}, {classes} classes, {config.num_channels} input channels"
        + streams
    )


__all__ = ["Conversion", "ConversionError", "write_model_folder"]
