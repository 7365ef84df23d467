"""What a `.caffemodel` holds, read without Caffe and without its prototxt.

A `.caffemodel` is a serialised NetParameter of caffe.proto (field numbers below are from there). The protobuf library
would bring all of its numbers into memory, 540 MB for a VGG16. Hence only names, types and shapes go through protobuf;
a walk over the file's tags and lengths notes where each blob's numbers lie and skips them.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from ..errors import FCNError

PIECE = 16 * 2**20
# Names, types and shapes take some bytes each. A longer one means a damaged file and is never read.
LONGEST_TEXT = 2**20
# kMaxBlobAxes of Caffe's blob.hpp.
MOST_AXES = 32

NET_V1_LAYERS, NET_LAYERS = 2, 100
BLOB_DATA = {5: "<f4", 8: "<f8"}

# V1LayerParameter.LayerType from 1 on, as the names that LayerParameter uses.
V1_TYPES = (
    "Accuracy BNLL Concat Convolution Data Dropout EuclideanLoss Flatten HDF5Data HDF5Output Im2col ImageData "
    "InfogainLoss InnerProduct LRN MultinomialLogisticLoss Pooling ReLU Sigmoid Softmax SoftmaxWithLoss Split TanH "
    "WindowData Eltwise Power SigmoidCrossEntropyLoss HingeLoss MemoryData ArgMax Threshold DummyData Slice MVN AbsVal "
    "Silence ContrastiveLoss Exp Deconvolution"
).split()


class CaffeFileError(FCNError):
    """A file that is no whole `.caffemodel`."""


def _message_classes() -> dict[str, type]:
    """The parts of caffe.proto that are read, as protobuf message classes by name."""
    kinds = descriptor_pb2.FieldDescriptorProto
    # Texts are bytes here, as protobuf's implementations disagree about what to do with text that isn't UTF-8.
    messages: dict[str, list[tuple[str, int, int | str]]] = {
        "BlobShape": [("dim", 1, kinds.TYPE_INT64)],
        "Blob": [
            ("num", 1, kinds.TYPE_INT32),
            ("channels", 2, kinds.TYPE_INT32),
            ("height", 3, kinds.TYPE_INT32),
            ("width", 4, kinds.TYPE_INT32),
            ("shape", 7, "BlobShape"),
        ],
        "PythonParameter": [
            ("module", 1, kinds.TYPE_BYTES),
            ("layer", 2, kinds.TYPE_BYTES),
            ("param_str", 3, kinds.TYPE_BYTES),
        ],
        "Layer": [
            ("name", 1, kinds.TYPE_BYTES),
            ("type", 2, kinds.TYPE_BYTES),
            ("python_param", 130, "PythonParameter"),
        ],
        "V1Layer": [("name", 4, kinds.TYPE_BYTES), ("type", 5, kinds.TYPE_INT32)],
    }
    # proto2 is what Caffe uses: it tells a field that isn't there from one that is zero.
    file = descriptor_pb2.FileDescriptorProto(name="fcn_hf/caffe.proto", package="fcn_hf.caffe", syntax="proto2")
    for message_name, fields in messages.items():
        message = file.message_type.add(name=message_name)
        for name, number, kind in fields:
            field = message.field.add(name=name, number=number, label=kinds.LABEL_OPTIONAL)
            if isinstance(kind, str):
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".fcn_hf.caffe.{kind}"
            else:
                field.type = kind
            if name == "dim":
                field.label = kinds.LABEL_REPEATED
    # A pool of its own: the process may hold the real caffe.proto too.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"fcn_hf.caffe.{name}")) for name in messages
    }


MESSAGES = _message_classes()


def is_finite(array: np.ndarray) -> bool:
    """Whether there is neither NaN nor infinity in an array, seen without another array of its size."""
    return not array.size or bool(np.isfinite(array.min()) and np.isfinite(array.max()))


@dataclass(frozen=True)
class CaffeBlob:
    """An array of a `.caffemodel` that still lies in its file.

    Caffe's memory order is C order, so `dataclasses.replace(blob, shape=...)` reshapes.

    Attributes:
        path (`Path`): the file.
        offset (`int`): the byte at which the numbers start.
        shape (`tuple[int, ...]`): as written: 4 axes in older files, even for biases, which are `(1, 1, 1, N)` there.
        dtype (`str`): `"<f4"` or `"<f8"`, little-endian float32 or float64.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: str

    def _pieces(self, numbers_a_piece: int) -> Iterator[np.ndarray]:
        """The numbers as flat float32 arrays, each of which is only good until the next is asked for."""
        missing = math.prod(self.shape)
        buffer = np.empty(min(missing, numbers_a_piece), self.dtype)
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            while missing:
                piece = buffer[:missing]
                if file.readinto(piece.data) < piece.nbytes:
                    raise CaffeFileError(f"{self.path} has become shorter while it was read: put the file back")
                missing -= piece.size
                # A float64 beyond float32 becomes infinite.
                with np.errstate(over="ignore"):
                    numbers = piece.astype("<f4", copy=False)
                if not is_finite(numbers):
                    raise CaffeFileError(
                        f"{self.path} has numbers behind byte {self.offset} that aren't finite in float32: its "
                        "training has diverged, or it is damaged"
                    )
                yield numbers

    def read(self) -> np.ndarray:
        """The whole array in memory, float32 of shape `shape`; errors as those of `copy_to`."""
        (numbers,) = self._pieces(math.prod(self.shape))
        return numbers.reshape(self.shape)

    def copy_to(self, file: BinaryIO) -> None:
        """Append the numbers as little-endian float32 to an open binary file, at most 16 MiB of them in memory.

        Raises:
            `CaffeFileError`: if the file has become shorter since it was read, or a number isn't finite.
        """
        for piece in self._pieces(PIECE // np.dtype(self.dtype).itemsize):
            file.write(piece.data)


@dataclass(frozen=True)
class CaffeLayer:
    """A layer of a `.caffemodel`.

    Attributes:
        name (`str`): its name, unique in the file among layers with blobs.
        type (`str`): such as `"Convolution"`; for older files the modern name, or `"V1 type 99"` where none is known.
        blobs (`tuple[CaffeBlob, ...]`): its weights: kernel and, for most layers, bias. Empty for many layers.
        python_module (`str`): the module of a Python layer, such as `"voc_layers"`; else empty.
        python_parameters (`str`): the `param_str` of a Python layer; else empty.
    """

    name: str
    type: str
    blobs: tuple[CaffeBlob, ...]
    python_module: str = ""
    python_parameters: str = ""


class _Field(NamedTuple):
    """A field of a serialised message: bytes `tag` to `end` of the file, its value from `start` on."""

    number: int
    tag: int
    start: int
    end: int
    length_delimited: bool


class _Reader:
    """A `.caffemodel` opened for reading. `where` says in errors which part of it is being read."""

    def __init__(self, path: Path, file: BinaryIO):
        self.path = path
        self.file = file
        self.where = "at its start"

    def error(self, problem: str) -> CaffeFileError:
        return CaffeFileError(
            f"{self.path} is no whole .caffemodel: {self.where}, {problem}; expected the weights that Caffe saved "
            "(a serialised NetParameter): check which file it is, or fetch it again"
        )

    def varint(self, end: int) -> int:
        """The variable-length integer at the file's position: 7 bits a byte, the lowest first, 64 bits at most."""
        value = 0
        for shift in range(0, 70, 7):
            position = self.file.tell()
            byte = self.file.read(1)
            if position >= end or not byte:
                raise self.error(f"the data end inside a number at byte {position}")
            value |= (byte[0] & 0x7F) << shift
            if byte[0] < 0x80:
                return value
        raise self.error(f"the number before byte {position} has more than 64 bits")

    def fields(self, start: int, end: int) -> Iterator[_Field]:
        """The fields of the message that fills bytes `start` to `end`, found without reading their values."""
        position = start
        while position < end:
            self.file.seek(position)
            number, wire_type = divmod(self.varint(end), 8)
            if number == 0 or wire_type not in (0, 1, 2, 5):
                raise self.error(f"byte {position} starts no field (number {number}, wire type {wire_type})")
            value = self.file.tell()
            if wire_type == 0:
                self.varint(end)
                length = self.file.tell() - value
            elif wire_type == 2:
                length = self.varint(end)
                value = self.file.tell()
            else:
                length = 8 if wire_type == 1 else 4
            if value + length > end:
                raise self.error(f"{length} bytes should follow byte {value}, but {end - value} do")
            yield _Field(number, position, value, value + length, wire_type == 2)
            position = value + length

    def parse(self, message_name: str, fields: Iterable[_Field]):
        """The protobuf message that these of its fields make up; unknown ones among them are left unread."""
        message = MESSAGES[message_name]()
        known = message.DESCRIPTOR.fields_by_number
        serialised = b""
        for field in fields:
            if field.number in known:
                if field.end - field.tag > LONGEST_TEXT:
                    raise self.error(f"a field that should be short takes {field.end - field.tag} bytes")
                self.file.seek(field.tag)
                serialised += self.file.read(field.end - field.tag)
        try:
            message.ParseFromString(serialised)
        except DecodeError as error:
            raise self.error(f"protobuf can't read a {message_name} message ({error})") from error
        return message

    def shape(self, fields: list[_Field]) -> tuple[int, ...]:
        blob = self.parse("Blob", fields)
        legacy = ("num", "channels", "height", "width")
        # Caffe itself prefers the older fields where a file has both (Blob::FromProto).
        if any(blob.HasField(axis) for axis in legacy):
            shape = tuple(getattr(blob, axis) for axis in legacy)
        else:
            shape = tuple(blob.shape.dim)
        if len(shape) > MOST_AXES or any(size < 1 for size in shape):
            raise self.error(f"the shape is {shape[: MOST_AXES + 1]}; expected at most {MOST_AXES} positive sizes")
        return shape

    def blob(self, field: _Field) -> CaffeBlob:
        if not field.length_delimited:
            raise self.error(f"byte {field.tag} should start a blob but starts a single number")
        fields = []
        for part in self.fields(field.start, field.end):
            # Legal in protobuf, but never written by Caffe, and a walk over millions of fields would take hours.
            if part.number in BLOB_DATA and not part.length_delimited:
                raise self.error("each number is a field of its own (unpacked); save the file with Caffe again")
            fields.append(part)
        shape = self.shape(fields)
        data = [part for part in fields if part.number in BLOB_DATA and part.start < part.end]
        if len(data) > 1:
            raise self.error(f"the numbers are in {len(data)} parts instead of one; save the file with Caffe again")
        dtype = BLOB_DATA[data[0].number] if data else "<f4"
        stored = data[0].end - data[0].start if data else 0
        if stored != math.prod(shape) * np.dtype(dtype).itemsize:
            raise self.error(
                f"the shape {shape} asks for {math.prod(shape)} numbers, but {stored} bytes of them follow"
            )
        return CaffeBlob(self.path, data[0].start, shape, dtype)

    def text(self, value: bytes) -> str:
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise self.error(f"the name {value[:80]!r} is no UTF-8 text") from error

    def layer(self, field: _Field) -> CaffeLayer:
        if not field.length_delimited:
            raise self.error(f"byte {field.tag} should start a layer but starts a single number")
        is_v1 = field.number == NET_V1_LAYERS
        fields = list(self.fields(field.start, field.end))
        message = self.parse("V1Layer" if is_v1 else "Layer", fields)
        name = self.text(message.name)
        if not name:
            raise self.error("a layer has no name; a file from before 2014 needs Caffe's upgrade_net_proto_binary")
        self.where = f"in layer {name!r}"
        if is_v1:
            kind = V1_TYPES[message.type - 1] if 1 <= message.type <= len(V1_TYPES) else f"V1 type {message.type}"
            python = ("", "")
        else:
            kind = self.text(message.type)
            python = (self.text(message.python_param.module), self.text(message.python_param.param_str))
        blobs: list[CaffeBlob] = []
        for part in fields:
            if part.number == (6 if is_v1 else 7):
                self.where = f"in blob {len(blobs)} of layer {name!r}"
                blobs.append(self.blob(part))
        return CaffeLayer(name, kind, tuple(blobs), *python)

    def layers(self) -> list[CaffeLayer]:
        size = self.file.seek(0, 2)
        if not size:
            raise self.error("it is empty")
        layers: list[CaffeLayer] = []
        forms = set()
        for field in self.fields(0, size):
            if field.number in (NET_V1_LAYERS, NET_LAYERS):
                forms.add(field.number)
                layers.append(self.layer(field))
                self.where = f"after layer {layers[-1].name!r}"
        if len(forms) > 1:
            raise self.error("it has layers in the old form and in the new; save the file with Caffe again")
        return layers


def read_caffemodel(path: str | Path) -> list[CaffeLayer]:
    """The layers of a `.caffemodel` in the order of the file, their numbers left where they are.

    Both forms are read: `layer` (field 100, LayerParameter) and the older `layers` (field 2, V1LayerParameter). A file
    that was cut between two layers looks whole; whoever knows the net has to look for missing layers.

    Args:
        path (`str` or `Path`): the file.

    Returns:
        `list[CaffeLayer]`, at least one of them with blobs.

    Raises:
        `CaffeFileError`: if there is no such file, or if it isn't a whole `.caffemodel`: another kind of file, one cut
            off, a blob whose shape doesn't fit its numbers, two layers of one name of which any has blobs, no blobs.
        `OSError`: if the file can't be read.
    """
    path = Path(path)
    if path.is_dir():
        raise CaffeFileError(f"{path} is a folder: give the .caffemodel file in it")
    try:
        file = open(path, "rb")
    except FileNotFoundError:
        raise CaffeFileError(f"{path} does not exist: check the path") from None
    with file:
        reader = _Reader(path, file)
        layers = reader.layers()
        if not any(layer.blobs for layer in layers):
            raise reader.error("no layer with weights was found (a .prototxt has none)")
    by_name: dict[str, CaffeLayer] = {}
    for layer in layers:
        other = by_name.setdefault(layer.name, layer)
        if other is not layer and (other.blobs or layer.blobs):
            raise CaffeFileError(
                f"{path} has two layers called {layer.name!r}; expected one, to know which weights count: rename one"
            )
    return layers
