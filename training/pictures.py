"""What a net sees while it learns: pictures beside their true and predicted masks, for cards and for trackers."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback

from fcn_hf.evaluation import label_arguments
from fcn_hf.image_inputs_fcn import read_rgb
from fcn_hf.palettes import class_colours, fitted_mask, overlay
from fcn_hf.prediction import evaluation_mode, predict
from fcn_hf.text import printable
from training.data import ScoredRows, length

WIDTH = 960  # pixels: what a model card shows without scaling
GAP = 10  # pixels between the columns, and between the rows of a sheet
# A portrait is shown at most this much taller than its column is wide.
TALLEST = 1.25
PAPER, INK = "white", "#222222"
# Share of the class colours; the rest is the picture, so that one sees what lies under a mask.
OPACITY = 0.75
CAPTIONS = ("picture", "truth", "prediction")
REPORTERS = (TensorBoardCallback, WandbCallback, TrackioCallback)


class Example(NamedTuple):
    """One picture (H x W pixels, upright) with its true and its predicted class ids, integers of shape (H, W)."""

    picture: Image.Image
    label: np.ndarray
    prediction: np.ndarray


def comparison(
    picture: Image.Image,
    label: np.ndarray,
    prediction: np.ndarray,
    colours: np.ndarray,
    ignore_index: int,
    width: int = WIDTH,
    captions: bool = True,
) -> Image.Image:
    """A picture, its true mask and its predicted one side by side, each fitted into a column of the same width.

    Class colours lie over the picture; pixels without a class are hatched in grey, which no class is.

    Args:
        picture: of any size and mode, H x W pixels, upright.
        label: class ids, integers of shape (H, W), with `ignore_index` where there is none.
        prediction: class ids, integers of shape (H, W).
        colours: RGB in 0..255, uint8 of shape (num_labels, 3).
        ignore_index: label of pixels without a class.
        width: of what is returned, an RGB picture, in pixels; smaller ones are enlarged and larger ones reduced.
        captions: whether a line above the columns says what they are.

    Raises:
        `ValueError`: if a mask has another size than the picture, or ids that have no colour.
    """
    pixels = read_rgb(picture)
    column = (width - 2 * GAP) // 3
    scale = min(column / pixels.width, TALLEST * column / pixels.height)
    size = (max(1, round(pixels.width * scale)), max(1, round(pixels.height * scale)))
    small = pixels.resize(size, Image.Resampling.BICUBIC)
    masks = [_laid_over(small, pixels.size, ids, colours, ignore_index) for ids in (label, prediction)]

    letters = max(9, width // 64)
    font, top = _font(letters), letters + 10 if captions else 0
    sheet = Image.new("RGB", (width, top + size[1]), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (caption, part) in enumerate(zip(CAPTIONS, (small, *masks), strict=True)):
        left = index * (column + GAP)
        sheet.paste(part, (left + (column - size[0]) // 2, top))
        if captions:
            draw.text((left + column / 2, top / 2), caption, INK, font, anchor="mm")
    return sheet


def legend(names: Sequence[str], colours: np.ndarray, width: int = WIDTH, unlabelled: bool = False) -> Image.Image:
    """Class names, each behind its colour, in as many lines as they take, as an RGB picture.

    Args:
        names: of the classes, one or more.
        colours: RGB in 0..255, uint8 of shape (len(names), 3).
        width: of what is returned, in pixels.
        unlabelled: whether the hatching of pixels without a class is explained too.
    """
    swatch = max(9, width // 64)
    font, line = _font(swatch), round(1.7 * swatch)
    entries = [
        (printable(name), Image.new("RGB", (swatch, swatch), tuple(map(int, colour))))
        for name, colour in zip(names, colours, strict=True)
    ]
    if unlabelled:
        entries.append(("no label", Image.fromarray(_hatching(swatch, swatch))))
    # Columns of one width are easier to read than names that follow each other.
    cell = min(width, max(swatch + 8 + round(font.getlength(name)) for name, _ in entries) + 18)
    columns = width // cell
    drawn = Image.new("RGB", (width, -(-len(entries) // columns) * line), PAPER)
    draw = ImageDraw.Draw(drawn)
    for index, (name, colour) in enumerate(entries):
        left, middle = index % columns * cell, index // columns * line + line // 2
        top = middle - swatch // 2
        drawn.paste(colour, (left, top))
        draw.rectangle((left, top, left + swatch - 1, top + swatch - 1), outline="#999999")
        draw.text((left + swatch + 8, middle), name, INK, font, anchor="lm")
    return drawn


def example_sheet(model, processor, rows: ScoredRows, count: int) -> Image.Image:
    """What a model predicts for a few rows of a split, as one picture for its card; see `sheet_of`.

    Args:
        model: a semantic segmentation model, in training or evaluation mode, which is left as it was.
        processor: its image processor.
        rows: of the split; `count` of them are shown, evenly spread, or of a stream the first ones.
        count: 1 or more.
    """
    _, ignore_index, names = label_arguments(model.config)
    examples = predicted_examples(model, processor, chosen_rows(rows, count), rows.columns)
    return sheet_of(examples, names, class_colours(model.config), ignore_index)


def sheet_of(examples: Sequence[Example], names: Sequence[str], colours: np.ndarray, ignore_index: int) -> Image.Image:
    """Comparisons below each other, and below them a legend of the classes that occur in them.

    Args:
        examples: one or more, of any sizes.
        names: of all classes, in the order of their ids.
        colours: RGB in 0..255, uint8 of shape (len(names), 3).
        ignore_index: label of pixels without a class.

    Returns:
        An RGB picture, `WIDTH` pixels wide.

    Raises:
        `ValueError`: as `comparison`.
    """
    width = WIDTH - 2 * GAP
    parts = [comparison(*example, colours, ignore_index, width, captions=not i) for i, example in enumerate(examples)]
    ids = {int(id) for example in examples for mask in (example.label, example.prediction) for id in np.unique(mask)}
    classes = sorted(ids - {ignore_index})
    parts.append(legend([names[id] for id in classes], colours[classes], width, unlabelled=ignore_index in ids))
    sheet = Image.new("RGB", (WIDTH, GAP + sum(part.height + GAP for part in parts)), PAPER)
    top = GAP
    for part in parts:
        sheet.paste(part, (GAP, top))
        top += part.height + GAP
    return sheet


def chosen_rows(rows: ScoredRows, count: int) -> list[dict[str, Any]]:
    """`count` rows, or all if there are fewer, evenly spread from the first to the last; of a stream the first ones."""
    total = length(rows.dataset)
    if total is not None:
        chosen = np.linspace(0, total - 1, min(total, count)).round().astype(int)
        rows = ScoredRows(rows.dataset.select(chosen), rows.columns, rows.label_ids, rows.name)
    return list(islice(rows, count))


def predicted_examples(model, processor, rows: Sequence[Mapping[str, Any]], columns: tuple[str, str]) -> list[Example]:
    """Rows with what a model predicts for them; the model is left in the mode that it was in.

    Args:
        model: a semantic segmentation model, in training or evaluation mode, on any device.
        processor: its image processor.
        rows: with a PIL picture under `columns[0]` and class ids, integers of shape (H, W), under `columns[1]`.
        columns: names of the image and the label column.
    """
    image, label = columns
    with evaluation_mode(model):
        return [Example(row[image], np.asarray(row[label]), predict(model, processor, row[image])) for row in rows]


class PredictionPictures(TrainerCallback):
    """After each evaluation, logs what the model predicts for a few rows to TensorBoard, Weights & Biases and trackio.

    They go where `report_to` sends the scores, as `eval/picture_1`, `eval/picture_2`, ... at the same step, predicted
    by the weights that were scored. Without one of the three nothing is read, predicted or imported. Only the main
    process logs; all of them predict, as they have to where each holds a part of the weights.

    Args:
        trainer: that it is added to: `trainer.add_callback(PredictionPictures(trainer, rows))`. Its `processing_class`
            is the model's image processor.
        rows: of the split; see `chosen_rows`.
        count: number of rows to show.
    """

    def __init__(self, trainer, rows: ScoredRows, count: int = 4):
        self.trainer = trainer
        self.rows = rows
        self.count = count
        self.chosen: list[dict[str, Any]] | None = None

    def on_evaluate(self, args, state, control, model=None, **kwargs):
        # Their own `on_log` has just had the scores, so their runs exist by now.
        callbacks = self.trainer.callback_handler.callbacks
        reporters = [callback for callback in callbacks if isinstance(callback, REPORTERS)]
        if not reporters or not self.count:
            return
        if self.chosen is None:
            self.chosen = chosen_rows(self.rows, self.count)
        ema = getattr(self.trainer, "ema", None)
        model = model if ema is None else ema.model_for(model)
        colours, (_, ignore_index, _) = class_colours(model.config), label_arguments(model.config)
        examples = predicted_examples(model, self.trainer.processing_class, self.chosen, self.rows.columns)
        if not state.is_world_process_zero:
            return
        pictures = {
            f"eval/picture_{number}": comparison(*example, colours, ignore_index)
            for number, example in enumerate(examples, start=1)
        }
        for reporter in reporters:
            _log_pictures(reporter, pictures, state.global_step)


def _log_pictures(reporter: TrainerCallback, pictures: dict[str, Image.Image], step: int) -> None:
    if isinstance(reporter, TensorBoardCallback):
        for name, picture in pictures.items():
            reporter.tb_writer.add_image(name, np.asarray(picture), step, dataformats="HWC")
        reporter.tb_writer.flush()
        return
    tracker = import_module("wandb" if isinstance(reporter, WandbCallback) else "trackio")
    # Both count calls of `log` as steps; transformers' callbacks log the step of training beside their values.
    values = {name: tracker.Image(picture) for name, picture in pictures.items()}
    tracker.log({**values, "train/global_step": step})


def _laid_over(
    small: Image.Image, full_size: tuple[int, int], ids: np.ndarray, colours: np.ndarray, ignore_index: int
) -> Image.Image:
    """A mask over its picture, which already has the size that both are shown in."""
    ids = np.asarray(ids)
    if ids.shape != full_size[::-1]:
        width, height = full_size
        raise ValueError(f"A mask has shape {ids.shape}, but its picture is {height} high and {width} wide.")
    ignored = ids == ignore_index
    known = np.where(ignored, 0, ids)
    if known.size and not 0 <= known.min() <= known.max() < len(colours):
        raise ValueError(f"A mask has ids {known.min()}..{known.max()}, but there are {len(colours)} colours.")
    blended = np.array(overlay(small, known, colours, OPACITY))
    hidden = fitted_mask(ignored, small.size)
    blended[hidden] = _hatching(*hidden.shape)[hidden]
    return Image.fromarray(blended)


def _hatching(height: int, width: int) -> np.ndarray:
    """Diagonal lines in two greys, uint8 of shape (height, width, 3): unlike any one colour of a palette."""
    rows, columns = np.indices((height, width))
    greys = np.where((rows + columns) % 8 < 3, 190, 90).astype(np.uint8)
    return np.repeat(greys[..., None], 3, axis=2)


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # matplotlib's font has letters of most languages; Pillow's own has no accents.
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
