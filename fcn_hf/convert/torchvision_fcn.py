"""State dicts of torchvision's `fcn_resnet50` and `fcn_resnet101`: FCN heads on dilated ResNets, without skips."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers import TimmBackboneConfig
from transformers.utils import is_timm_available

from ..image_processing_fcn import FCNImageProcessor
from ..label_sets import VOC, class_names
from ..palettes import voc_palette
from .model_folder import Conversion, ConversionError, checked_config, describe_config


def convert_torchvision_fcn(state: Mapping[str, torch.Tensor], source: str) -> Conversion:
    """A net of `torchvision.models.segmentation.fcn`, with logits equal to torchvision's.

    Its ResNet is timm's, whose names are the same. The batch normalisation of the head is folded into fc6. The
    auxiliary classifier, which torchvision only trains with, is left out.

    Raises:
        `ConversionError`: naming what is missing or surplus, or if timm isn't installed.
    """
    if not is_timm_available():
        raise ConversionError("A dilated ResNet needs timm: pip install 'fcn-hf[timm]'.")
    state = dict(state)
    blocks = {name.split(".")[2] for name in state if name.startswith("backbone.layer3.")}
    names = {6: "resnet50", 23: "resnet101"}
    if len(blocks) not in names:
        raise ConversionError(f"{source}: layer3 has {len(blocks)} blocks; expected 6 (ResNet-50) or 23 (ResNet-101).")
    auxiliary = [name for name in state if name.startswith("aux_classifier.")]
    for name in auxiliary:
        del state[name]

    def take(name: str) -> np.ndarray:
        if name not in state:
            raise ConversionError(f"{source}: {name} is missing; expected torchvision's fcn_{names[len(blocks)]}.")
        return state.pop(name).float().numpy()

    fc6, score_fr = take("classifier.0.weight"), take("classifier.4.weight")
    normalisation = {kind: take(f"classifier.1.{kind}") for kind in ("weight", "bias", "running_mean", "running_var")}
    state.pop("classifier.1.num_batches_tracked", None)
    for kind, numbers in normalisation.items():
        if fc6.ndim != 4 or numbers.shape != fc6.shape[:1]:
            raise ConversionError(
                f"{source}: classifier.1.{kind} has shape {numbers.shape} and classifier.0.weight {fc6.shape}; "
                "expected (channels,) and (channels, features, 3, 3)."
            )
    if score_fr.ndim != 4:
        raise ConversionError(f"{source}: classifier.4.weight has shape {score_fr.shape}; expected four axes.")
    factor = normalisation["weight"] / np.sqrt(normalisation["running_var"] + 1e-5)
    tensors = {
        "fc6.weight": fc6 * factor[:, None, None, None],
        "fc6.bias": normalisation["bias"] - normalisation["running_mean"] * factor,
        "score_fr.weight": score_fr,
        "score_fr.bias": take("classifier.4.bias"),
    }
    tensors |= {
        name.replace("backbone.", "backbone._backbone.", 1) if name.startswith("backbone.") else name: (
            tensor.float() if tensor.is_floating_point() else tensor
        ).numpy()
        for name, tensor in state.items()
    }
    count = len(tensors["score_fr.weight"])
    backbone: dict[str, Any] = {"backbone": names[len(blocks)], "output_stride": 8, "out_indices": [2, 3, 4]}
    config = checked_config(
        source,
        backbone="auto",
        backbone_config=TimmBackboneConfig(**backbone),
        hidden_size=len(tensors["fc6.weight"]),
        prediction_stride=8,
        upsampling="interpolate",
        hidden_dropout_prob=0.1,
        id2label=class_names(VOC, count),
        palette=voc_palette(count),
    )
    notes = [f"Recognised from names and shapes: {describe_config(config)}: torchvision's fcn_{names[len(blocks)]}."]
    if auxiliary:
        notes.append("Its auxiliary classifier serves training only and was left out.")
    notes.append("The batch normalisation of its head was folded into fc6; its ResNet is timm's, so it needs timm.")
    settings: dict[str, Any] = {"num_labels": count, "do_resize": True, "size": {"shortest_edge": 520}}
    return Conversion(
        config=config,
        processor=FCNImageProcessor(**settings),
        tensors=tensors,
        title=f"FCN on {names[len(blocks)].replace('resnet', 'ResNet-')}, torchvision",
        description="torchvision's fully convolutional net on a dilated ResNet: its scores have stride 8 without "
        "skips, and are resized to the picture's size.",
        source=source,
        notes=notes,
        license_note="torchvision's code is under BSD-3-Clause; its weights were trained on COCO and ImageNet, which "
        "have terms of their own.",
        license="bsd-3-clause",
    )
