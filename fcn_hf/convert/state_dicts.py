"""PyTorch weights from a file, by name."""

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from .model_folder import ConversionError

# Where training scripts keep the weights in a checkpoint: torchfcn, torchvision, Lightning.
NESTED = ("model_state_dict", "model", "state_dict")
# What the numbers of NumPy in a checkpoint, such as the best score so far, are made of: nothing that runs code. The
# function is in another module from NumPy 2 on.
NUMPY_NUMBERS: list[Any] = [
    np.dtype,
    *(type(np.dtype(code)) for code in "?bhilqBHILQefd"),
    *((np.float64(0).__reduce__()[0], f"numpy.{module}.multiarray.scalar") for module in ("core", "_core")),
]


def read_state_dict(path: str | Path) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors of a `.pth` or `.safetensors` file, and the name of the net's class where a checkpoint has one.

    Nothing in the file is executed (`weights_only=True`), and tensors stay on disk until they are read. Numbers of
    NumPy beside them are let through.

    Raises:
        `ConversionError`: if the file isn't there, isn't whole, or holds no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise ConversionError(f"{path} is not a file; expected weights, such as a .pth or .safetensors file.")
    architecture = ""
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            # Files of the time before zip archives can't be mapped into memory.
            mmap = zipfile.is_zipfile(path)
            with warnings.catch_warnings(), torch.serialization.safe_globals(NUMPY_NUMBERS):
                # Of a pickle that torch didn't write; what matters about it is said below.
                warnings.simplefilter("ignore")
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise ConversionError(
            f"{path.name} holds more than tensors or isn't a PyTorch file, and is not unpickled, since that would run "
            "its code; save the net's state_dict() alone."
        ) from error
    except Exception as error:  # on damaged files the unpickler passes on whatever it meets, with or without a message
        reason = next(iter(str(error).splitlines()), "it ends too early")
        raise ConversionError(
            f"{path.name} can't be read ({type(error).__name__}: {reason}); expected a whole .pth or .safetensors file."
        ) from error
    if isinstance(content, dict):
        architecture = content["arch"] if isinstance(content.get("arch"), str) else ""
        content = next((content[name] for name in NESTED if isinstance(content.get(name), dict)), content)
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(name, str) and torch.is_tensor(value) for name, value in content.items())
    ):
        raise ConversionError(f"{path.name} holds no state dict; expected tensors by name, as state_dict() gives them.")
    # What was saved from inside DataParallel has its prefix; parameters are tensors that ask for gradients.
    return {name.removeprefix("module."): tensor.detach() for name, tensor in content.items()}, architecture


def is_torch_file(path: Path) -> bool:
    """Whether a file is PyTorch's or safetensors', by its first bytes rather than its name alone."""
    with open(path, "rb") as file:
        start = file.read(16)
    return start[:4] == b"PK\x03\x04" or start[:1] == b"\x80" or path.suffix in (".safetensors", ".pth", ".pt", ".bin")
