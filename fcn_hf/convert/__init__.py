"""Published weights -> Hub model folders: Caffe's FCNs, torchfcn, torchvision, and classifiers to start from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import LFS_REMEDY, is_lfs_pointer
from .caffe import convert_caffe
from .caffe_file import CaffeFileError
from .classifiers import convert_classifier, from_classifier, load_classifier
from .model_folder import Conversion, ConversionError, write_model_folder
from .state_dicts import is_torch_file, read_state_dict
from .timm_classifiers import timm_name
from .torchfcn import convert_torchfcn
from .torchvision_fcn import convert_torchvision_fcn


def convert(
    source: str | Path,
    inputs: Sequence[str] | None = None,
    at_once: bool | None = None,
    num_labels: int | None = None,
    prediction_stride: int | None = None,
    architecture: str | None = None,
) -> Conversion:
    """Find out what `source` is and how it becomes an FCN; `write_model_folder` then writes it.

    Args:
        source: a `.caffemodel`, a `.pth` or `.safetensors` file, the name of a classifier of torchvision or timm, or a
            Hub id.
        inputs: for Caffe: what the input channels are ("color", "hha", "depth").
        at_once: for torchfcn: whether it is `FCN8sAtOnce`.
        num_labels, prediction_stride: for classifiers: of the net to be trained; 32 if left out.
        architecture: for a classifier's file: timm's name for it, where the file's own name doesn't tell.

    Raises:
        `ConversionError` or `CaffeFileError`: with one sentence that names what is wrong and what was expected.
    """
    options: dict[str, Any] = {
        "inputs": inputs,
        "at_once": at_once,
        "num_labels": num_labels,
        "prediction_stride": prediction_stride,
        "architecture": architecture,
    }

    def only(kind: str, *names: str) -> dict[str, Any]:
        wrong = [name for name, value in options.items() if value is not None and name not in names]
        if wrong:
            raise ConversionError(f"{wrong[0]} doesn't apply to {source}, which is {kind}.")
        return {name: options[name] for name in names if options[name] is not None}

    path = Path(source)
    if path.is_dir():
        raise ConversionError(f"{source} is a folder; expected a file, the name of a classifier, or a Hub id.")
    if path.is_file() and is_lfs_pointer(path):
        raise ConversionError(f"{source} {LFS_REMEDY}")
    if path.is_file() and not is_torch_file(path):
        return convert_caffe(path, **only("a Caffe file", "inputs"))
    if not path.is_file() and path.suffix in (".caffemodel", ".pth", ".pt", ".safetensors"):
        raise ConversionError(f"{source} does not exist; check the path.")
    net = ""
    if path.is_file():
        state, net = read_state_dict(path)
        name = path.name
    else:
        state, name = load_classifier(source)
    if "conv1_1.weight" in state:
        return convert_torchfcn(state, name, net, **only("a net of torchfcn", "at_once"))
    if any(key.startswith("backbone.layer4.") for key in state):
        only("a net of torchvision")
        return convert_torchvision_fcn(state, name)
    settings = only("a classifier", "num_labels", "prediction_stride", "architecture")
    return convert_classifier(state, name, **{"architecture": timm_name(str(source)), **settings})


__all__ = ["CaffeFileError", "Conversion", "ConversionError", "convert", "from_classifier", "write_model_folder"]
