"""State dicts of torchfcn (wkentaro/pytorch-fcn): `FCN32s`, `FCN16s`, `FCN8s` and `FCN8sAtOnce`."""

from collections.abc import Mapping

import numpy as np
import torch

from ..label_sets import VOC, class_names
from ..palettes import voc_palette
from .model_folder import (
    RELEASE_MEAN,
    Conversion,
    ConversionError,
    caffe_processor,
    checked_config,
    describe_config,
    one_kernel_each,
)


def convert_torchfcn(
    state: Mapping[str, torch.Tensor], source: str, architecture: str = "", at_once: bool | None = None
) -> Conversion:
    """A torchfcn net with the release's geometry.

    Args:
        state: its state dict.
        source: name of the file, for messages and the card.
        architecture: class of the net as torchfcn's checkpoints name it; empty where the file doesn't say.
        at_once: whether pool4 and pool3 are scaled by 0.01 and 0.0001. No tensor tells `FCN8s` from `FCN8sAtOnce`:
            where left out, `architecture` and the file's name decide.

    Raises:
        `ConversionError`: naming a missing, surplus or misshapen tensor.
    """
    finals = {
        "upscore8.weight": (8, "upscore8"),
        "upscore16.weight": (16, "upscore16"),
        "upscore.weight": (32, "upscore"),
    }
    final = next((value for name, value in finals.items() if name in state), None)
    if final is None:
        raise ConversionError(f"{source}: none of {list(finals)} is there; expected one, as in every net of torchfcn.")
    stride, last = final
    tensors: dict[str, np.ndarray] = {}
    for name, tensor in state.items():
        array = tensor.float().numpy()
        module = name.rpartition(".")[0]
        if module == "conv1_1" and name.endswith("weight") and array.ndim == 4:
            array = np.ascontiguousarray(array[:, ::-1])
        if module in (last, "upscore2", "upscore_pool4"):
            array = one_kernel_each(array, name, source)
            name = f"upscore{stride}.weight" if module == last else name
        tensors[name] = array
    for name in (*(f"conv{stage}_1.weight" for stage in range(1, 6)), "fc6.weight", "score_fr.weight"):
        if name not in tensors:
            raise ConversionError(f"{source}: {name} is missing; expected all tensors of a net of torchfcn.")
        if tensors[name].ndim != 4:
            raise ConversionError(f"{source}: {name} has shape {tensors[name].shape}; expected four axes.")
    by_name = "atonce" in (architecture + source).lower().replace("-", "").replace("_", "")
    scaled = stride == 8 and (by_name if at_once is None else at_once)
    if at_once and stride != 8:
        raise ConversionError(f"{source}: an FCN-{stride}s can't be the at-once net, which is an FCN-8s.")
    count = len(tensors["score_fr.weight"])
    config = checked_config(
        source,
        hidden_sizes=[len(tensors[f"conv{stage}_1.weight"]) for stage in range(1, 6)],
        hidden_size=len(tensors["fc6.weight"]),
        prediction_stride=stride,
        geometry="caffe",
        upsampling="bilinear",
        skip_scales=[0.01, 0.0001] if scaled else [1.0, 1.0],
        id2label=class_names(VOC, count),
        palette=voc_palette(count),
    )
    notes = [f"Recognised from names and shapes: {describe_config(config)}, of torchfcn."]
    if stride == 8:
        notes.append(
            f"Taken for {'FCN8sAtOnce, whose skips are scaled by 0.01 and 0.0001' if scaled else 'FCN8s, not AtOnce'}: "
            f"{'as asked for' if at_once is not None else 'by the names of file and checkpoint'}. No tensor tells."
        )
    notes.append("The means 122.679, 116.669, 104.007 are in the preprocessor's config; conv1_1 takes RGB, not BGR.")
    return Conversion(
        config=config,
        # torchfcn's datasets subtract the release's mean too.
        processor=caffe_processor(RELEASE_MEAN, count),
        tensors=tensors,
        title=f"FCN-{stride}s, torchfcn",
        description='A net of torchfcn, a PyTorch version of "Fully Convolutional Networks for Semantic Segmentation" '
        "(Long, Shelhamer, Darrell), with the release's geometry.",
        source=source,
        notes=notes,
        license_note="torchfcn is under the MIT licence; its published weights were converted from the authors' "
        "release, which is for unrestricted use. ImageNet and PASCAL VOC have terms of their own.",
    )
