"""A trained model -> a complete model folder, written aside and moved into place."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import PreTrainedModel
from transformers.image_processing_base import ImageProcessingMixin


def export_model(
    model: PreTrainedModel,
    processor: ImageProcessingMixin,
    folder: str | Path,
    dtype: torch.dtype = torch.float32,
    state_dict: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write safetensors, config, preprocessor config and the remote code into `folder`.

    With `dtype=torch.float16` the file is half as large while the config still says float32, so `from_pretrained` gives
    a float32 model, which is what CPUs compute fast in.

    Args:
        model: in float32.
        folder: existing files of the same names are replaced one by one, each whole; others stay.
        dtype: of the floating-point tensors in the file.
        state_dict: the model's, where it can't be asked for it since other processes hold shards of it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in (model.state_dict() if state_dict is None else state_dict).items()
    }
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as aside:
        model.save_pretrained(aside, state_dict=state)
        processor.save_pretrained(aside)
        for path in sorted(Path(aside).iterdir()):
            os.replace(path, folder / path.name)
