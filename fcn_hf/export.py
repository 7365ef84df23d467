"""A model as a graph for other programs: `torch.export`'s, and an ONNX file that was compared with the model."""

import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from .configuration_fcn import FCNConfig
from .datasets import DatasetError, numbered_rows
from .errors import FCNError, in_one_line
from .evaluation import evaluate_split
from .files import check_file, written_aside
from .image_inputs_fcn import open_picture
from .onnx_card import is_card_of, onnx_card

TOLERANCES = {"float32": 1e-4, "float16": 0.05, "int8": 0.5}
"""By dtype, how far a file's logits may be from the model's, as a share of the largest: a bound for what is broken.
What int8 costs is told by scores."""

CHECKED_SIZES = ((1, 1, 1), (2, 33, 47), (1, 64, 96))
"""(batch, height, width) on which a file is compared with its model."""

# The names of Optimum's exporters.
INPUT, LOGITS, LABEL_MAP = "pixel_values", "logits", "label_map"
DYNAMIC_AXES = {0: "batch_size", 2: "height", 3: "width"}

# Nearly all of the time goes into these; what makes logits of scores stays in float32.
QUANTIZED_OPERATIONS = ["Conv", "Relu", "Clip"]


@dataclass(frozen=True)
class Calibration:
    """A dataset split, of which some pictures tell the ranges of 8-bit maps, and all of them the score.

    Args:
        name: of the split, for people.
        rows: a `datasets.Dataset` with PIL pictures.
        columns: names of the image and the label column.
        pictures: how many, spread evenly over the split.
    """

    name: str
    rows: Any
    columns: tuple[str, str]
    pictures: int = 32


@dataclass(frozen=True)
class ExportReport:
    """What was measured of a file before it was put into place.

    Args:
        difference: of the logits from the model's, as a share of the largest one.
        scores: of the split by dtype, as `evaluate_split` gives them; empty but for int8.
    """

    difference: float
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)


class OnnxModel:
    """An ONNX file with the face of a model of transformers, for `predict` and `evaluate_split`.

    Args:
        path: of the file.
        config: of the model that it was made of.
    """

    device = torch.device("cpu")

    def __init__(self, path: str | Path, config: Any):
        import onnxruntime

        self.config = config
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def __call__(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        """Floats `(B, C, H, W)` -> `logits`, and whatever other outputs the file has, under their names."""
        names = [output.name for output in self.session.get_outputs()]
        values = self.session.run(names, {INPUT: pixel_values.numpy()})
        return SimpleNamespace(**{name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)})


class _NamedOutputs(nn.Module):
    """A model that answers with the tensors of `output_names`, floats in float32 whatever it computes in."""

    def __init__(self, model: Any, label_map: bool):
        super().__init__()
        self.model, self.label_map = model, label_map

    def output_names(self) -> list[str]:
        _, *others = dict(self.model.config.tasks or {LOGITS: None})
        return [LOGITS, *(f"{LOGITS}_{task}" for task in others), *([LABEL_MAP] if self.label_map else [])]

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = self.model(pixel_values)
        logits = [scores.float() for scores in (outputs.logits_by_task or {LOGITS: outputs.logits}).values()]
        if not self.label_map:
            return tuple(logits)
        classes = logits[0].argmax(dim=1)
        return (*logits, classes.to(torch.uint8) if logits[0].shape[1] <= 256 else classes)


def exported_program(model: nn.Module, num_channels: int = 3) -> torch.export.ExportedProgram:
    """The graph of a model, for any batch and any height and width from 1 on.

    `torch.export` by itself lays down, with each layout of memory that it works out, that no map has a size of 1, so
    that its graphs of an FCN hold from 33 pixels up. It has a setting that leaves this open.

    Args:
        model: in evaluation mode, on the CPU; its only input is `pixel_values`.
        num_channels: of `pixel_values`.
    """
    sizes = {axis: torch.export.Dim.DYNAMIC for axis in DYNAMIC_AXES}
    # No two sizes alike, nor any multiple of a stride: nothing that holds by chance gets into the graph.
    example = torch.zeros(2, num_channels, 65, 90)
    settings: Any = torch.fx.experimental._config
    with torch.no_grad(), settings.patch(backed_size_oblivious=True), whole_number_padding():
        return torch.export.export(model, (example,), dynamic_shapes={INPUT: sizes}, strict=False)


@contextmanager
def whole_number_padding() -> Iterator[None]:
    """Let timm's convolutions that pad by the picture's size (`Conv2dSame`) reckon in whole numbers for a while.

    Their own quotients of floats and maxima give the same, but as symbols they are nested by each convolution and
    simplified by none, so that a graph takes minutes.
    """
    timm_padding: Any = sys.modules.get("timm.layers.padding")
    if timm_padding is None:
        yield
        return
    original = timm_padding.get_same_padding
    timm_padding.get_same_padding = same_padding
    try:
        yield
    finally:
        timm_padding.get_same_padding = original


def same_padding(size: int, kernel_size: int, stride: int, dilation: int) -> int:
    """How many rows or columns TensorFlow's SAME padding adds, at both ends together."""
    reach = (kernel_size - 1) * dilation + 1
    missing = ((size + stride - 1) // stride - 1) * stride + reach - size
    return missing if reach >= stride else max(missing, 0)


def export_onnx(
    model: Any,
    processor: Any,
    path: Path,
    dtype: str = "float32",
    label_map: bool = False,
    calibration: Calibration | None = None,
    model_id: str = "FCN",
    progress: Callable[[Iterable[Any], str], Iterable[Any]] = lambda rows, what: rows,
) -> ExportReport:
    """Write an ONNX file, and a card beside it (`path` with ".md" behind), once the file gave the model's answers.

    It takes `pixel_values`, float32 `(batch_size, num_channels, height, width)`, any sizes from 1 on, and gives
    `logits`, float32 `(batch_size, num_labels, height, width)`; of each further task `logits_TASK`.

    Args:
        model: an FCN and
        processor: its image processor, as `load_model` gives them.
        path: ends in ".onnx"; what is there is replaced.
        dtype: what it computes in, float32, float16 or int8 (convolutions alone, with a scale for each channel).
        label_map: whether there is an output `label_map`, too, the class ids of the first task: uint8, or int64 where
            there are more than 256 classes, `(batch_size, height, width)`.
        calibration: of int8.
        model_id: what the card calls the model.
        progress: shows how far a loop over rows is.

    Raises:
        `FCNError`: if the arguments don't fit together, the model can't be exported, or the file's answers aren't the
            model's; then nothing was written.
        `ImportError`: if ONNX's libraries aren't installed.
    """
    check_export(path, dtype, calibration is not None, overwrite=True)
    if model.config.model_type != FCNConfig.model_type:
        raise FCNError(f"{model_id} is a {model.config.model_type}; fcn-hf exports FCNs, optimum-cli other models.")
    channels = model.config.num_channels
    net = _NamedOutputs(deepcopy(model).half() if dtype == "float16" else model, label_map)
    with written_aside(path.parent) as aside:
        file = aside / path.name
        if calibration is None:
            picture = noise_picture(channels, processor)
            write_onnx(net, channels, file)
        else:
            picture = torch.from_numpy(next(calibration_pictures(calibration, processor)))
            pictures = progress(calibration_pictures(calibration, processor), "Calibrating")
            with tempfile.TemporaryDirectory() as folder:
                write_onnx(net, channels, Path(folder) / "float32.onnx")
                quantize(Path(folder) / "float32.onnx", file, pictures)
        exported = OnnxModel(file, model.config)
        difference = largest_difference(exported, model, cut_to_sizes(picture), dtype)
        scores = {}
        if calibration is not None:
            for name, scored in (("float32", model), (dtype, exported)):
                rows = progress(calibration.rows.select_columns(list(calibration.columns)), f"Scoring {name}")
                scores[name] = evaluate_split(scored, processor, rows, calibration.columns)
        report = ExportReport(difference, scores)
        card = onnx_card(path.name, model_id, model.config, processor, dtype, net.output_names(), report, calibration)
        card_path(file).write_text(card)
    return report


def card_path(path: Path) -> Path:
    """Where the card of an ONNX file lies."""
    return path.with_name(f"{path.name}.md")


def check_export(path: Path, dtype: str, calibrated: bool, overwrite: bool) -> None:
    """See, before any work, that a file can be exported as it is asked for; arguments are those of the command.

    Raises:
        `FCNError`: if it can't.
        `ImportError`: if ONNX's libraries aren't installed.
    """
    if dtype not in TOLERANCES:
        raise FCNError(f"dtype is {dtype!r}; expected one of {', '.join(TOLERANCES)}.")
    if path.suffix != ".onnx":
        raise FCNError(f"The file is to be {str(path)!r}; expected a name that ends in .onnx.")
    if (dtype == "int8") is not calibrated:
        raise FCNError("int8, and no other dtype, is calibrated on a dataset: pass --dataset with --dtype int8.")
    for file in (path, card_path(path)):
        check_file(file, lambda _: is_card_of(path.name, card_path(path)), overwrite)
    if not all(map(find_spec, ("onnx", "onnxruntime", "onnxscript"))):
        raise ImportError("Exports need onnx, onnxruntime and onnxscript: pip install 'fcn-hf[onnx]'.")


def write_onnx(net: _NamedOutputs, num_channels: int, path: Path) -> None:
    """Write a net's graph and weights; `FCNError` if it isn't one that can be had for all sizes."""
    try:
        program = torch.onnx.export(
            exported_program(net, num_channels),
            dynamo=True,
            dynamic_shapes={INPUT: DYNAMIC_AXES},
            input_names=[INPUT],
            output_names=net.output_names(),
            verbose=False,
        )
        assert program is not None
        for output in program.model.graph.outputs:
            # The graph has them as sums and products of the picture's.
            shape: Any = output.shape
            output.shape = type(shape)([DYNAMIC_AXES[0], *shape[1:-2], DYNAMIC_AXES[2], DYNAMIC_AXES[3]])
        program.save(path, external_data=False)
    except Exception as error:  # the exporters pass on whatever a backbone's code meets in them
        reason = in_one_line(error)[:300]
        raise FCNError(
            f"The model can't be exported for pictures of all sizes ({reason}); choose another backbone."
        ) from error


def calibration_pictures(calibration: Calibration, processor: Any) -> Iterator[np.ndarray]:
    """The `pixel_values` of each picture that calibrates, float32 `(1, C, H, W)`.

    Raises:
        `DatasetError`: naming the row that can't be read, or if there is none.
    """
    count = len(calibration.rows)
    if not count:
        raise DatasetError(f"{calibration.name} has no row to calibrate with; choose another split.")
    numbers = np.linspace(0, count - 1, min(calibration.pictures, count)).astype(int).tolist()
    column = calibration.columns[0]
    for where, row in numbered_rows(calibration.rows.select(numbers).select_columns([column]), numbers=numbers):
        try:
            yield processor(open_picture(row[column]), return_tensors="np")["pixel_values"]
        except Exception as error:  # a processor of another kind passes on whatever it meets
            raise DatasetError(f"{where}: {in_one_line(error)}") from error


def quantize(source: Path, target: Path, pictures: Iterable[np.ndarray]) -> None:
    """Write an ONNX file anew with 8-bit convolutions, whose maps have the ranges that they have in some pictures."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        inputs: Iterator[Mapping[str, np.ndarray]] = ({INPUT: picture} for picture in pictures)

        def get_next(self) -> Any:
            return next(self.inputs, None)

    quantization.quantize_static(
        source,
        target,
        Reader(),
        op_types_to_quantize=QUANTIZED_OPERATIONS,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        # Weights of 7 bits: processors without VNNI sum two products in 16 bits, which those of 8 bits overflow.
        reduce_range=True,
    )


def noise_picture(num_channels: int, processor: Any) -> torch.Tensor:
    """`pixel_values` `(1, C, H, W)` of the range that the processor gives those of pictures.

    Raises:
        `FCNError`: if it doesn't take them.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, num_channels), dtype=np.uint8)
    try:
        return processor(pixels, return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    except Exception as error:  # a processor of another kind passes on whatever it meets
        raise FCNError(f"The model's image processor takes no pictures: {in_one_line(error)}") from error


def cut_to_sizes(picture: torch.Tensor) -> list[torch.Tensor]:
    """`(1, C, H, W)` -> its upper left corner in each of the `CHECKED_SIZES`, smaller where the picture is."""
    return [picture[..., :height, :width].repeat(batch, 1, 1, 1) for batch, height, width in CHECKED_SIZES]


@torch.no_grad()
def largest_difference(exported: OnnxModel, model: Any, batches: Iterable[torch.Tensor], dtype: str) -> float:
    """How far a file's logits are from the model's, as a share of the largest.

    Raises:
        `FCNError`: if that is more than the dtype's tolerance, or there are no answers to be compared.
    """
    largest, named = 0.0, _NamedOutputs(model, label_map=False)
    for pixel_values in batches:
        batch, _, height, width = pixel_values.shape
        what = f"In {dtype}, for {batch} x {height}x{width} pixels, the exported file's"
        try:
            answers = vars(exported(pixel_values))
        except Exception as error:  # ONNX Runtime's own kinds, which have no common base
            raise FCNError(f"{what} logits can't be computed: {in_one_line(error)}") from error
        for name, expected in zip(named.output_names(), named(pixel_values), strict=True):
            logits = answers[name]
            if logits.shape != expected.shape:
                raise FCNError(f"{what} {name} have shape {tuple(logits.shape)} instead of {tuple(expected.shape)}.")
            if not logits.isfinite().all():
                raise FCNError(
                    f"{what} {name} aren't finite: its maps exceed what the dtype holds. Export it in float32."
                )
            difference = float((logits - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
            if difference > TOLERANCES[dtype]:
                raise FCNError(
                    f"{what} {name} differ from the model's by {difference:.2g} of the largest, more than "
                    f"{TOLERANCES[dtype]}; nothing was written. Export it in float32, or calibrate it with more "
                    "pictures."
                )
            largest = max(largest, difference)
    return largest
