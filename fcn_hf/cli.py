"""Masks of pictures, scores of a dataset split, and files for other programs, from any FCN."""

import logging
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.highlighter import NullHighlighter
from rich.logging import RichHandler
from rich.progress import track
from rich.table import Table
from typer.core import TyperGroup

from .errors import FCNError
from .files import check_file, is_png_of, write_aside
from .films import is_film
from .prediction import WHOLE_PICTURE, InferenceMode, load_model
from .prediction import load_on_device as load
from .segment_command import write_film, write_masks, write_rows
from .terminal import complain, console, stderr, warn
from .text import printable

# What the package has to say besides, such as that only the first page of a file was taken.
logging.getLogger(__package__).addHandler(
    RichHandler(console=stderr, show_time=False, show_level=False, show_path=False, highlighter=NullHighlighter())
)


class Commands(TyperGroup):
    """The commands, of which none ends in a stack trace where one sentence says what is wrong."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (FCNError, OSError, ImportError) as error:
            complain(str(error))
            raise typer.Exit(code=1) from error


app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False, help=__doc__)

ModelOption = Annotated[str, typer.Option("--model", help="Model folder or Hub id.")]
MORE_SCORES, LOOKS = "More scores", "How pictures are looked at (once and whole)"
ROWS = "Masks of a dataset"
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu, cuda, ...; the accelerator, if there is one.")]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that this command didn't write, too.")
]


class ComputeDtype(StrEnum):
    """What `--dtype` takes where masks are made."""

    float32 = "float32"
    bfloat16 = "bfloat16"


DtypeOption = Annotated[
    ComputeDtype | None,
    typer.Option(
        "--dtype",
        help="What the net computes in; that of its weights, if left out. bfloat16 is several times as fast on CPUs "
        "with AMX for nets on VGG.",
    ),
]
WindowOption = Annotated[
    str | None, typer.Option(metavar="HxW", help="Slide a window of this size over the picture.", rich_help_panel=LOOKS)
]
OverlapOption = Annotated[
    float, typer.Option(help="Share by which neighbouring windows overlap.", rich_help_panel=LOOKS)
]
ScalesOption = Annotated[
    str, typer.Option(metavar="S,S,...", help="Average over sizes, such as 0.75,1,1.25.", rich_help_panel=LOOKS)
]
MirrorOption = Annotated[
    bool, typer.Option("--mirror", help="Average with the mirrored picture.", rich_help_panel=LOOKS)
]


def read_window(text: str) -> tuple[int, int]:
    """(height, width) from HEIGHTxWIDTH."""
    height, separator, width = text.lower().partition("x")
    if not (separator and height.isdecimal() and width.isdecimal()):
        raise FCNError(f"--window is {text!r}; expected HEIGHTxWIDTH in pixels, such as 321x481.")
    return int(height), int(width)


def read_scales(text: str) -> tuple[float, ...]:
    """Factors from numbers with commas between them."""
    try:
        return tuple(float(scale) for scale in text.split(","))
    except ValueError as error:
        raise FCNError(f"--scales is {text!r}; expected factors with commas between, such as 0.75,1,1.25.") from error


def inference_mode(window: str | None, overlap: float, scales: str, mirror: bool) -> InferenceMode:
    """How pictures are looked at, from the four options."""
    return InferenceMode(None if window is None else read_window(window), overlap, read_scales(scales), mirror)


class Engine(StrEnum):
    """What `--engine` takes."""

    ray = "ray"


@app.command()
def segment(
    images: Annotated[
        list[Path] | None,
        typer.Argument(help="Pictures, of any size and format that Pillow reads; or one film; or see --dataset."),
    ] = None,
    *,
    model: ModelOption,
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="Folder for the masks, NAME.png for each picture NAME; for a film, the masks' file."
        ),
    ],
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    overwrite: OverwriteOption = False,
    window: WindowOption = None,
    overlap: OverlapOption = 0.5,
    scales: ScalesOption = "1",
    mirror: MirrorOption = False,
    tile: Annotated[
        bool,
        typer.Option(
            "--tile",
            help="See huge pictures at their own size, tile by tile; interrupted, a repeat goes on.",
            rich_help_panel=LOOKS,
        ),
    ] = False,
    opacity: Annotated[
        float, typer.Option(min=0, max=1, help="Film: how much the classes' colours cover it; 1 shows them alone.")
    ] = 1.0,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", help="Dataset folder or Hub id, in place of pictures.", rich_help_panel=ROWS),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Split of it.", rich_help_panel=ROWS)] = "train",
    image_column_name: Annotated[
        str | None, typer.Option(help="Column of the pictures, if not recognised.", rich_help_panel=ROWS)
    ] = None,
    shard_rows: Annotated[int, typer.Option(min=1, help="Rows of one parquet file.", rich_help_panel=ROWS)] = 512,
    engine: Annotated[
        Engine | None,
        typer.Option(
            "--engine", help="ray: on all machines of a Ray cluster, or all cores of this one.", rich_help_panel=ROWS
        ),
    ] = None,
) -> None:
    """Write a mask for each picture: a PNG of class ids, with a palette so that it can be looked at.

    Of a film, a film in the colours of the classes, without its sound. Of a dataset's split, parquet files with the
    masks of its rows; interrupted, a repeat goes on.
    """
    mode = inference_mode(window, overlap, scales, mirror)
    images = images or []
    if bool(images) == (dataset is not None):
        raise FCNError("Pass pictures, or a film, or --dataset; one of them.")
    is_of_film = any(map(is_film, images))
    for given, option, belongs, kind in (
        (tile, "--tile", dataset is None and not is_of_film, "pictures"),
        (opacity < 1, "--opacity", is_of_film, "films"),
        (engine is not None, "--engine", dataset is not None, "--dataset"),
    ):
        if given and not belongs:
            raise FCNError(f"{option} is for {kind}; leave it out.")
    if dataset is not None:
        write_rows(dataset, split, image_column_name, model, out, device, dtype, mode, shard_rows, engine)
        return
    if is_of_film:
        if len(images) > 1:
            raise FCNError("A film is segmented alone; pass it without other files.")
        write_film(images[0], model, out, device, dtype, overwrite, mode, opacity)
        return
    if tile and mode != WHOLE_PICTURE:
        raise FCNError("--tile looks at each part of a picture once; leave out --window, --scales and --mirror.")
    write_masks(images, model, out, device, dtype, overwrite, mode, tile)


class MetricName(StrEnum):
    """What `--metric` takes."""

    mean_iou = "mean_iou"


@app.command()
def evaluate(
    model: ModelOption,
    dataset: Annotated[str, typer.Option("--dataset", help="Dataset folder or Hub id.")],
    split: Annotated[str, typer.Option("--split", help="Split to score.")] = "validation",
    json: Annotated[Path | None, typer.Option("--json", help="File for the scores, all in 0..1.")] = None,
    image_column_name: Annotated[str | None, typer.Option(help="Column of the pictures, if not recognised.")] = None,
    label_column_name: Annotated[str | None, typer.Option(help="Column of the label maps, if not recognised.")] = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    boundary: Annotated[
        bool, typer.Option("--boundary", help="Boundary F1 as well; takes its time.", rich_help_panel=MORE_SCORES)
    ] = False,
    metric: Annotated[
        MetricName | None,
        typer.Option(
            help="evaluate's own module, from the Hub, instead of ours; it keeps all maps.", rich_help_panel=MORE_SCORES
        ),
    ] = None,
    per_image: Annotated[
        Path | None,
        typer.Option(help="CSV file for each picture's scores, worst first.", rich_help_panel=MORE_SCORES),
    ] = None,
    confusion: Annotated[
        Path | None, typer.Option(help="PNG file for the confusion matrix.", rich_help_panel=MORE_SCORES)
    ] = None,
    overwrite: OverwriteOption = False,
    window: WindowOption = None,
    overlap: OverlapOption = 0.5,
    scales: ScalesOption = "1",
    mirror: MirrorOption = False,
) -> None:
    """Score a model on a split: mean IoU and its sisters, whole pictures at their own size.

    Under torchrun each process scores a part of the rows, and the first one writes what all of them counted.
    """
    # Commands import what they alone need: the `datasets` library takes a second and 90 MB.
    from .datasets import find_columns, find_split, load_splits
    from .evaluation import (
        HubMeanIoU,
        Metric,
        PictureScores,
        computed,
        evaluate_split,
        is_json_of_scores,
        label_arguments,
        write_json,
    )
    from .metrics import BoundaryF1, ConfusionMatrix
    from .processes import join_processes

    mode = inference_mode(window, overlap, scales, mirror)
    is_own: dict[Path | None, Callable[[Path], bool]] = {json: is_json_of_scores, per_image: PictureScores.wrote}
    if confusion is not None:
        from .confusion_picture import SOFTWARE, check_drawable, draw_confusion

        is_own[confusion] = partial(is_png_of, SOFTWARE)
    files = [path for path in (json, per_image, confusion) if path is not None]
    if len({path.resolve() for path in files}) < len(files):
        raise FCNError("--json, --per-image and --confusion name one file more than once; give each a name of its own.")
    for path in files:
        check_file(path, is_own[path], overwrite)
    process, processes = join_processes()
    if processes > 1 and (metric is not None or per_image is not None):
        raise FCNError("--metric and --per-image want all rows in one process; leave them out, or torchrun.")
    rows = find_split(load_splits(dataset), split)
    columns = find_columns(rows.features, image_column_name, label_column_name)
    net, processor = load(model, device, dtype)
    if confusion is not None:
        check_drawable(net.config.num_labels)
    arguments = label_arguments(net.config)
    matrix, pictures = ConfusionMatrix(*arguments), PictureScores(*arguments)
    metrics: list[Metric] = [matrix]
    if metric is not None:
        # Its scores take the place of the matrix's.
        metrics.append(HubMeanIoU(*arguments))
    if boundary:
        metrics.append(BoundaryF1(*arguments))
    if per_image is not None:
        metrics.append(pictures)
    numbers = range(process, len(rows), processes)
    part = rows.select_columns(list(columns)).select(numbers)
    progress = track(part, "Scoring", console=stderr, transient=True, disable=process > 0)
    scores = evaluate_split(net, processor, progress, columns, mode, metrics, numbers)
    if processes > 1:
        for counts in metrics:
            if isinstance(counts, ConfusionMatrix | BoundaryF1):
                counts.all_reduce()
        scores = computed(metrics)
    if process > 0:
        return
    title = f"{model} on {dataset}, {split}"
    table = Table(title=title, title_justify="left")
    table.add_column("score")
    table.add_column("%", justify="right")
    for name in ("mean_iou", "mean_accuracy", "pixel_accuracy", "frequency_weighted_iou", "boundary_f1"):
        if name in scores:
            table.add_row(name.replace("_", " "), f"{100 * scores[name]:.2f}", style="bold")
    for name, value in scores["per_class_iou"].items():
        table.add_row(f"IoU of {printable(name)}", f"{100 * value:.2f}")
    for name, value in scores.get("per_class_boundary_f1", {}).items():
        table.add_row(f"boundary F1 of {printable(name)}", f"{100 * value:.2f}")
    console.print(table, soft_wrap=False)
    if np.count_nonzero(matrix.counts.sum(axis=1)) < 2:
        warn(
            f"Warning: the labels of {split!r} show one class or none, so that the scores say little. If the ignored "
            f"id {arguments[1]} is a class in these masks, give it another id."
        )
    if json is not None:
        write_aside(json, partial(write_json, scores))
    if per_image is not None:
        write_aside(per_image, pictures.write_csv)
    if confusion is not None:
        write_aside(confusion, lambda path: draw_confusion(matrix, path, title))


@app.command()
def convert(
    source: Annotated[
        str,
        typer.Argument(help=".caffemodel, .pth or .safetensors file; or a classifier of torchvision or timm by name."),
    ],
    dest: Annotated[Path, typer.Argument(help="Model folder to be made; it must not exist yet, or be empty.")],
    inputs: Annotated[
        str | None, typer.Option(help="Caffe: what the input channels are, of color, hha and depth, with commas.")
    ] = None,
    at_once: Annotated[
        bool | None, typer.Option("--at-once/--stepwise", help="torchfcn: FCN8sAtOnce or FCN8s; else by its name.")
    ] = None,
    num_labels: Annotated[int | None, typer.Option(min=1, help="Classifier: classes of a new scorer.")] = None,
    prediction_stride: Annotated[int | None, typer.Option(help="Classifier: 32, 16 or 8; 32 if left out.")] = None,
    architecture: Annotated[
        str | None, typer.Option(help="Classifier's file: timm's name, if its own doesn't tell.")
    ] = None,
) -> None:
    """Make a model folder of published weights: Caffe, torchfcn, torchvision, or a classifier to start from."""
    from .convert import convert as read_source
    from .convert import write_model_folder
    from .convert.model_folder import check_destination

    kinds = None if inputs is None else [kind.strip() for kind in inputs.split(",")]
    # Before anything is downloaded or read.
    check_destination(dest)
    conversion = read_source(source, kinds, at_once, num_labels, prediction_stride, architecture)
    write_model_folder(conversion, dest)
    for note in conversion.notes:
        console.print(note)
    console.print(f"{dest} is ready: from_pretrained({str(dest)!r}), or hf upload.")


def public_name(name: str) -> str:
    """What a card calls a folder or Hub id: cards go to others, who have no use for this machine's paths."""
    return Path(name).resolve().name if Path(name).exists() else name


class ExportDtype(StrEnum):
    """What `--dtype` takes."""

    float32 = "float32"
    float16 = "float16"
    int8 = "int8"


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Model folder or Hub id.")],
    out: Annotated[Path, typer.Argument(help="ONNX file to be written, NAME.onnx; its card is NAME.onnx.md.")],
    dtype: Annotated[ExportDtype, typer.Option(help="What it computes in.")] = ExportDtype.float32,
    label_map: Annotated[bool, typer.Option("--label-map", help="An output of class ids beside the logits.")] = False,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="int8: dataset folder or Hub id, to calibrate and score with.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="int8: split of it.")] = "validation",
    calibration_pictures: Annotated[int, typer.Option(min=1, help="int8: how many of its pictures calibrate.")] = 32,
    image_column_name: Annotated[str | None, typer.Option(help="Column of the pictures, if not recognised.")] = None,
    label_column_name: Annotated[str | None, typer.Option(help="Column of the label maps, if not recognised.")] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a model as an ONNX file, compared with the model before it is put into place."""
    from .datasets import find_columns, find_split, load_splits
    from .export import Calibration, check_export, export_onnx
    from .onnx_card import score_rows

    check_export(out, dtype, dataset is not None, overwrite)
    calibration = None
    if dataset is not None:
        rows = find_split(load_splits(dataset), split)
        columns = find_columns(rows.features, image_column_name, label_column_name)
        calibration = Calibration(f"{public_name(dataset)}, {split}", rows, columns, calibration_pictures)
    # What is compared computes alike: in float16 weights, the model alone would round.
    net, processor = load_model(model, torch.float32)
    progress = partial(track, console=stderr, transient=True)
    report = export_onnx(net, processor, out, dtype, label_map, calibration, public_name(model), progress)
    console.print(f"{out}: logits differ from the model's by at most {report.difference:.1e} of the largest.")
    for name, values in score_rows(report.scores):
        shares = ", ".join(f"{value} in {kind}" for kind, value in zip(report.scores, values, strict=True))
        console.print(f"{name} on {dataset}, {split}: {shares}")


if __name__ == "__main__":
    app()
