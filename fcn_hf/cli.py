"""Masks of pictures, and scores of a dataset split, from any FCN."""

import json as json_format
import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

from .evaluation import DatasetError, evaluate_split, find_columns, find_split, load_splits, predict
from .files import write_aside

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
console = Console()

ModelOption = Annotated[str, typer.Option("--model", help="Model folder or Hub id.")]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu, cuda, ...; the accelerator, if there is one.")]


def fail(message: str) -> typer.Exit:
    """Print one line to stderr; the caller raises what comes back."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(message, style="red", markup=False)
    return typer.Exit(code=1)


def load(name: str, device: str | None) -> tuple[Any, Any]:
    """A model in evaluation mode, and its image processor."""
    try:
        model = AutoModelForSemanticSegmentation.from_pretrained(name)
        processor = AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise fail(f"No model could be loaded from {name!r}: {str(error).splitlines()[0]}") from error
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    try:
        return model.eval().to(device or accelerator or "cpu"), processor
    except RuntimeError as error:
        raise fail(f"The model can't go to the device {device!r}: {str(error).splitlines()[0]}") from error


def voc_palette() -> list[int]:
    """256 RGB colours, flat, that tell neighbouring ids apart: the colour map of the PASCAL VOC development kit."""
    ids = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        # Each id's bits, three at a time, fill the three channels from the highest bit down.
        for channel in range(3):
            colours[:, channel] |= (((ids >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours.flatten().tolist()


def nan_to_null(scores: dict[str, Any]) -> dict[str, Any]:
    """Scores for a JSON file, which knows no NaN: a class that never occurs has `null` for its IoU."""
    return {
        name: nan_to_null(value) if isinstance(value, dict) else None if math.isnan(value) else value
        for name, value in scores.items()
    }


@app.command()
def segment(
    images: Annotated[list[Path], typer.Argument(help="Pictures, of any size and format that Pillow reads.")],
    model: ModelOption,
    out: Annotated[Path, typer.Option("--out", help="Folder for the masks, NAME.png for each picture NAME.")],
    device: DeviceOption = None,
) -> None:
    """Write a mask for each picture: a PNG of class ids, with a palette so that it can be looked at."""
    targets: dict[Path, Path] = {}
    for path in images:
        target = out / f"{path.stem}.png"
        if target in targets:
            raise fail(f"{targets[target]} and {path} would both become {target}; rename one, or use two folders.")
        if target.resolve() == path.resolve():
            raise fail(f"The mask of {path} would overwrite it; choose another folder for --out.")
        targets[target] = path
    net, processor = load(model, device)
    if net.config.num_labels > 256:
        raise fail(f"{model!r} has {net.config.num_labels} classes; a PNG of class ids holds at most 256.")

    failed = False
    for target, path in track(targets.items(), "Segmenting", console=Console(stderr=True), transient=True):
        try:
            with Image.open(path) as file:
                picture = ImageOps.exif_transpose(file)
            mask = predict(net, processor, picture)
        except UnidentifiedImageError:
            fail(f"{path} is not a picture that Pillow can read.")
            failed = True
            continue
        except (OSError, ValueError) as error:
            fail(f"{path}: {error}")
            failed = True
            continue
        label_map = Image.fromarray(mask.astype(np.uint8), mode="L")
        label_map.putpalette(voc_palette())
        write_aside(target, label_map.save)
        ids, pixels = np.unique(mask, return_counts=True)
        order = np.argsort(-pixels)
        shares = ", ".join(f"{net.config.id2label[int(ids[i])]} {pixels[i] / mask.size:.1%}" for i in order)
        console.print(f"{target}: {shares}", soft_wrap=True, highlight=False)
    if failed:
        raise typer.Exit(code=1)


@app.command()
def evaluate(
    model: ModelOption,
    dataset: Annotated[str, typer.Option("--dataset", help="Dataset folder or Hub id.")],
    split: Annotated[str, typer.Option("--split", help="Split to score.")] = "validation",
    json: Annotated[Path | None, typer.Option("--json", help="File for the scores, all in 0..1.")] = None,
    image_column_name: Annotated[str | None, typer.Option(help="Column of the pictures, if not recognised.")] = None,
    label_column_name: Annotated[str | None, typer.Option(help="Column of the label maps, if not recognised.")] = None,
    device: DeviceOption = None,
) -> None:
    """Score a model on a split: mean IoU and its sisters, whole pictures at their own size."""
    try:
        rows = find_split(load_splits(dataset), split)
        columns = find_columns(rows.features, image_column_name, label_column_name)
        net, processor = load(model, device)
        progress = track(rows.select_columns(list(columns)), "Scoring", console=Console(stderr=True), transient=True)
        scores = evaluate_split(net, processor, progress, columns)
    except DatasetError as error:
        raise fail(str(error)) from error
    table = Table(title=f"{model} on {dataset}, {split}", title_justify="left")
    table.add_column("score")
    table.add_column("%", justify="right")
    for name in ("mean_iou", "mean_accuracy", "pixel_accuracy", "frequency_weighted_iou"):
        table.add_row(name.replace("_", " "), f"{100 * scores[name]:.2f}", style="bold")
    for name, value in scores["per_class_iou"].items():
        table.add_row(f"IoU of {name}", f"{100 * value:.2f}")
    console.print(table)
    if json is not None:
        write_aside(json, lambda path: path.write_text(json_format.dumps(nan_to_null(scores), indent=2) + "\n"))


if __name__ == "__main__":
    app()
