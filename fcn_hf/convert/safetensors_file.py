"""Writing safetensors files whose tensors needn't be in memory."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

# Names that the safetensors format gives to NumPy's types.
FORMAT_TYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}


class StreamedTensor(Protocol):
    """A float32 tensor that can append itself to a file, such as a `CaffeBlob`."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def copy_to(self, file: BinaryIO) -> None: ...

    def read(self) -> np.ndarray: ...


def write_safetensors(path: str | Path, tensors: Mapping[str, np.ndarray | StreamedTensor]) -> None:
    """Write a safetensors file that PyTorch and transformers load.

    The library's own writer, `safetensors.numpy.save_file`, wants every tensor in memory at once; this one needs no
    more than what each tensor's `copy_to` needs. The layout is the format's: a header's length in 8 bytes, the header
    as JSON, the tensors without gaps. A file that was there before is replaced.

    Args:
        path (`str` or `Path`): the file to write.
        tensors (mapping of `str` to `np.ndarray` or `StreamedTensor`): arrays of any shape, of a floating, integer or
            boolean type; streamed tensors are written as float32.

    Raises:
        `ValueError`: if an array has another dtype, or a streamed tensor writes more or fewer numbers than its shape
            says.
    """
    dtypes = {
        name: tensor.dtype if isinstance(tensor, np.ndarray) else np.dtype("f4") for name, tensor in tensors.items()
    }
    for name, dtype in dtypes.items():
        if dtype.name not in FORMAT_TYPES:
            raise ValueError(f"tensor {name!r} has dtype {dtype.name}; expected one of {', '.join(FORMAT_TYPES)}")
    # Widest first keeps every tensor aligned, which torch's views of the file ask for.
    names = sorted(tensors, key=lambda name: -dtypes[name].itemsize)
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        start, end = end, end + math.prod(tensors[name].shape) * dtypes[name].itemsize
        header[name] = {
            "dtype": FORMAT_TYPES[dtypes[name].name],
            "shape": list(tensors[name].shape),
            "data_offsets": [start, end],
        }
    header_bytes = json.dumps(header).encode()
    header_bytes += b" " * (-len(header_bytes) % 8)
    with open(path, "wb") as file:
        file.write(len(header_bytes).to_bytes(8, "little"))
        file.write(header_bytes)
        first = file.tell()
        for name in names:
            tensor = tensors[name]
            if isinstance(tensor, np.ndarray):
                file.write(np.asarray(tensor, dtypes[name].newbyteorder("<"), order="C").data)
            else:
                tensor.copy_to(file)
            written = file.tell() - first - header[name]["data_offsets"][0]
            if written != math.prod(tensor.shape) * dtypes[name].itemsize:
                raise ValueError(f"tensor {name!r} wrote {written} bytes, but has shape {tuple(tensor.shape)}")
