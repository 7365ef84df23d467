"""ImageNet classifiers made fully convolutional: the weights that an FCN's training starts from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from torch import nn

from ..image_processing_fcn import FCNImageProcessor
from ..label_sets import class_names
from ..modeling_fcn import FCNForSemanticSegmentation
from .model_folder import Conversion, ConversionError, checked_config, describe_config
from .state_dicts import read_state_dict
from .timm_classifiers import alike, array, convert_timm, load_timm, timm_name

# Fully connected layers by name: torchvision's VGG, torchvision's AlexNet, timm's VGG (which has convolutions already).
FULLY_CONNECTED = {
    "vgg": ("classifier.0", "classifier.3", "classifier.6"),
    "alexnet": ("classifier.1", "classifier.4", "classifier.6"),
    "timm": ("pre_logits.fc1", "pre_logits.fc2", "head.fc"),
}


def from_classifier(
    classifier: nn.Module | str | Path, num_labels: int | None = None, prediction_stride: int = 32, **settings: Any
) -> tuple[FCNForSemanticSegmentation, FCNImageProcessor]:
    """
    An FCN that starts from a classifier's weights, its fully connected layers made convolutions (CVPR, section 3.1),
    and the image processor that these weights want.

    Args:
        classifier (`nn.Module`, `str` or `Path`): torchvision's VGG, AlexNet or GoogLeNet or any classifier of timm as
            a module, as a file of its state dict, or by name ("vgg16", "alexnet", "googlenet", "resnet18": downloaded;
            "efficientnet_lite0": from its package), or the id of a model on the Hub with timm's or torchvision's names
            ("timm/vgg16.tv_in1k").
        num_labels (`int`, *optional*): classes of a new scorer. Where left out, VGG, AlexNet and GoogLeNet keep their
            own; others have none that an FCN could use.
        prediction_stride (`int`): 32, 16 or 8.
        settings: further ones of `FCNConfig`, such as `id2label` or `upsampling`; and `architecture`, timm's name of
            the classifier, where neither the name of the file nor the module tells.

    Raises:
        `ConversionError`: if the classifier isn't one of these or can't be had.

    Example:

    ```python
    >>> from fcn_hf.convert import from_classifier

    >>> model, image_processor = from_classifier("vgg16", num_labels=21)
    >>> model.fc6
    Conv2d(512, 4096, kernel_size=(7, 7), stride=(1, 1), padding=(3, 3))
    ```
    """
    if isinstance(classifier, nn.Module):
        state, source = classifier.state_dict(), type(classifier).__name__
        settings = {"architecture": getattr(classifier, "pretrained_cfg", {}).get("architecture")} | settings
        if isinstance(classifier, torchvision.models.GoogLeNet) and not classifier.transform_input:
            settings = {"transform_input": False} | settings
    else:
        state, source = load_classifier(classifier)
        settings = {"architecture": timm_name(str(classifier))} | settings
    conversion = convert_classifier(state, source, num_labels, prediction_stride, **settings)
    return conversion.build(), conversion.processor


def load_classifier(name: str | Path) -> tuple[dict[str, torch.Tensor], str]:
    """The state dict of a file, of a classifier by its name, or of a model on the Hub, and what to call it.

    Raises:
        `ConversionError`: if there is no such file or model, or no way to it.
    """
    if Path(name).is_file():
        return read_state_dict(name)[0], Path(name).name
    name = str(name)
    try:
        if name.startswith(("vgg", "alexnet", "googlenet")) and name in torchvision.models.list_models():
            weights = torchvision.models.get_model_weights(name).DEFAULT
            return weights.get_state_dict(progress=True, check_hash=True), f"torchvision's {name}, {weights}"
        if name.count("/") == 0 and (known := timm_name(name)) is not None:
            return load_timm(known)
        if name.count("/") == 1 and not Path(name).exists():
            return read_state_dict(hf_hub_download(name, "model.safetensors"))[0], name
    except (OSError, RuntimeError, HfHubHTTPError, HFValidationError) as error:
        raise ConversionError(f"{name!r} can't be downloaded: {str(error).splitlines()[0]}") from error
    raise ConversionError(
        f"{name!r} is no file, none of the classifiers of torchvision (such as 'vgg16') or timm (such as 'resnet18'), "
        f"and no Hub id (such as 'timm/vgg16.tv_in1k'); {alike(name)}."
    )


def convert_classifier(
    state: Mapping[str, torch.Tensor],
    source: str,
    num_labels: int | None = None,
    prediction_stride: int = 32,
    transform_input: bool = True,
    architecture: str | None = None,
    **settings: Any,
) -> Conversion:
    """A classifier's state dict as an FCN's, with new skips, and a new scorer if `num_labels` is given.

    Args:
        state, source: the state dict, and what to call it.
        num_labels, prediction_stride, architecture, settings: as in `from_classifier`.
        transform_input: whether a GoogLeNet expects what torchvision's does, whose published weights are TensorFlow's.

    Raises:
        `ConversionError`: if it is no classifier that is known, naming what is missing or surplus.
    """
    arrays = {name: array(tensor) for name, tensor in state.items()}
    if "features.0.weight" in arrays:
        backbone, tensors, found = take_features(arrays, source)
    elif "inception3a.branch1.conv.weight" in arrays:
        backbone, tensors, found = take_googlenet(arrays, source)
    elif architecture is not None:
        return convert_timm(state, architecture, source, num_labels, prediction_stride, **settings)
    else:
        names = ", ".join(list(arrays)[:4])
        raise ConversionError(
            f"{source}: not VGG, AlexNet or GoogLeNet, by the names of its tensors ({names}, ...); for another "
            "classifier give timm's name for it (--architecture)."
        )
    if num_labels is not None:
        if len(settings.get("id2label") or range(num_labels)) != num_labels:
            raise ConversionError(f"id2label names {len(settings['id2label'])} classes, but num_labels={num_labels}.")
        tensors = {name: array for name, array in tensors.items() if not name.startswith("score_fr.")}
    elif "id2label" not in settings:
        settings["id2label"] = classifier_labels(len(tensors["score_fr.weight"]))
    elif len(settings["id2label"]) != len(tensors["score_fr.weight"]):
        raise ConversionError(
            f"id2label names {len(settings['id2label'])} classes, but {source} scores "
            f"{len(tensors['score_fr.weight'])}; give num_labels for a new scorer."
        )
    if num_labels is not None and "id2label" not in settings:
        settings["id2label"] = class_names(None, num_labels)
    config = checked_config(source, backbone=backbone, prediction_stride=prediction_stride, **found, **settings)
    scale: dict[str, Any] = {"num_labels": config.num_labels}
    if backbone == "googlenet" and transform_input:
        scale |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    conversion = Conversion(
        config=config,
        processor=FCNImageProcessor(**scale),
        tensors=tensors,
        title=f"FCN-{prediction_stride}s from an ImageNet classifier",
        description="An ImageNet classifier with its fully connected layers made convolutions: the start of an FCN's "
        "training, not a trained segmentation net.",
        source=source,
        notes=[
            f"Recognised from names and shapes: {describe_config(config)}.",
            "Its scorer is the classifier's own: a heat map for each class."
            if num_labels is None
            else "Its scorers are new: fine-tune it.",
        ],
        license_note="torchvision's code is under BSD-3-Clause; ImageNet has terms of its own.",
    )
    fresh = [name for name in conversion.expected_shapes() if name.startswith(("score_", "upscore"))]
    conversion.fresh = tuple(name for name in fresh if name not in tensors)
    return conversion


def take_features(arrays: dict[str, np.ndarray], source: str) -> tuple[str, dict[str, np.ndarray], dict[str, Any]]:
    """VGG and AlexNet: convolutions numbered by their places in `features`, then three fully connected layers."""
    arrays = dict(arrays)
    named = [name.split(".")[1] for name in arrays if name.startswith("features.") and arrays[name].ndim == 4]
    places = sorted(int(place) for place in named if place.isdecimal())
    if not places or places[0] != 0:
        shape = arrays["features.0.weight"].shape
        raise ConversionError(f"{source}: features.0.weight has shape {shape}; expected four axes.")
    backbone = "alexnet" if arrays["features.0.weight"].shape[-1] == 11 else "vgg"
    batch_norm = "features.1.running_mean" in arrays
    tensors: dict[str, np.ndarray] = {}

    def take(theirs: str, ours: str, kinds: tuple[str, ...] = ("weight", "bias")) -> np.ndarray:
        for kind in kinds:
            if f"{theirs}.{kind}" not in arrays:
                raise ConversionError(f"{source}: {theirs}.{kind} is missing; expected it for {ours}.")
            tensors[f"{ours}.{kind}"] = arrays.pop(f"{theirs}.{kind}")
        return tensors[f"{ours}.{kinds[0]}"]

    # A pooling takes a place of its own, so the next convolution comes one place later than within a stage.
    step = 3 if batch_norm else 2
    sizes, depths = [], []
    for index, place in enumerate(places):
        if backbone == "alexnet" or index == 0 or place - places[index - 1] > step:
            sizes.append(0)
            depths.append(0)
        depths[-1] += 1
        name = f"{len(sizes)}_{depths[-1]}" if backbone == "vgg" else str(len(sizes))
        sizes[-1] = len(take(f"features.{place}", f"conv{name}"))
        if batch_norm:
            kinds = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
            take(f"features.{place + 1}", f"bn{name}", kinds)
    if len(sizes) != 5:
        raise ConversionError(
            f"{source}: it has {len(sizes)} stages of convolutions; expected five, as VGG and AlexNet."
        )
    layers = FULLY_CONNECTED["timm" if "pre_logits.fc1.weight" in arrays else backbone]
    kernel = 7 if backbone == "vgg" else 6
    for theirs, ours, size in zip(layers, ("fc6", "fc7", "score_fr"), (kernel, 1, 1), strict=True):
        weight = take(theirs, ours)
        if weight.ndim not in (2, 4):
            raise ConversionError(f"{source}: {theirs}.weight has shape {weight.shape}; expected two axes, or four.")
        # What a fully connected layer reads in one row is a channels x kernel x kernel window of the map before it.
        if weight.size != len(weight) * (weight.shape[1] // (1 if weight.ndim == 4 else size * size)) * size * size:
            raise ConversionError(
                f"{source}: {theirs} reads {weight.shape[1]} values; expected multiples of {size * size}."
            )
        tensors[f"{ours}.weight"] = weight.reshape(len(weight), -1, size, size)
    if arrays:
        raise ConversionError(f"{source}: {next(iter(arrays))} isn't part of a {backbone.upper()} classifier.")
    found: dict[str, Any] = {"hidden_sizes": sizes, "hidden_size": len(tensors["fc6.weight"])}
    if backbone == "vgg":
        return backbone, tensors, found | {"depths": depths, "use_batch_norm": batch_norm}
    return backbone, tensors, found | {"conv_groups": 1, "use_local_response_norm": False}


def take_googlenet(arrays: dict[str, np.ndarray], source: str) -> tuple[str, dict[str, np.ndarray], dict[str, Any]]:
    """GoogLeNet: names are torchvision's already; its auxiliary classifiers are left out."""
    tensors = {name: array for name, array in arrays.items() if not name.startswith(("aux1.", "aux2.", "fc."))}
    for kind in ("weight", "bias"):
        if f"fc.{kind}" not in arrays:
            raise ConversionError(f"{source}: fc.{kind} is missing; expected it for score_fr.")
        tensors[f"score_fr.{kind}"] = arrays[f"fc.{kind}"]
    weight = tensors["score_fr.weight"]
    if weight.ndim != 2:
        raise ConversionError(f"{source}: fc.weight has shape {weight.shape}; expected two axes.")
    tensors["score_fr.weight"] = weight[:, :, None, None]
    return "googlenet", tensors, {"use_batch_norm": True}


def classifier_labels(count: int) -> dict[int, str]:
    """ImageNet's class names where there are a thousand classes, numbers otherwise."""
    if count == 1000:
        return dict(enumerate(torchvision.models.VGG16_Weights.DEFAULT.meta["categories"]))
    return class_names(None, count)
