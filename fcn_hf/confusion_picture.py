"""A picture of a confusion matrix: which classes are taken for which. It needs matplotlib, an extra."""

from pathlib import Path

import numpy as np

try:
    from matplotlib import rc_context
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError("A picture of the confusion matrix needs matplotlib: pip install 'fcn-hf[evaluate]'.") from error

from .errors import FCNError
from .metrics import ConfusionMatrix
from .text import printable

# From paper white to a blue that white text can be read on; grey for the rows of classes without a pixel.
COLOURS = LinearSegmentedColormap.from_list("share", ["#ffffff", "#c6dbef", "#6baed6", "#2171b5", "#08306b"])
NO_PIXELS = "#e4e4e4"
# Darker than in proportion, so that a confusion of a few per cent can be seen.
SCALE = PowerNorm(0.6, vmin=0, vmax=1)
TEXT_COLOUR = "#222222"
# Up to here each cell has room for its number.
MOST_NUMBERED = 30
# matplotlib draws 65,536 pixels a side at most.
MOST_CLASSES = 2000
LONGEST_NAME = 60
SOFTWARE = "fcn-hf evaluate"
"""What each picture says of itself, so that it may be written anew."""


def check_drawable(num_labels: int) -> None:
    """Raise `FCNError` if there are more classes than a picture has room for."""
    if num_labels > MOST_CLASSES:
        raise FCNError(f"There are {num_labels} classes; a picture of their confusion shows at most {MOST_CLASSES}.")


# Names and titles are anybody's text: what lies between two dollars is no formula.
@rc_context({"text.parse_math": False})
def draw_confusion(matrix: ConfusionMatrix, path: Path, title: str) -> None:
    """Write a PNG of the matrix, each row divided by its sum: the share of a class's pixels that went where.

    Args:
        matrix: counted; of up to `MOST_CLASSES` classes. Rows without a pixel are grey.
        path: of the file.
        title: one line above the picture.
    """
    true = matrix.counts.sum(axis=1, keepdims=True)
    shares = np.divide(matrix.counts, true, out=np.full(matrix.counts.shape, np.nan), where=true > 0)
    classes = matrix.num_labels
    names = [
        name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."
        for name in map(printable, matrix.label_names)
    ]
    numbered = classes <= MOST_NUMBERED
    cell = 0.52 if numbered else 0.19  # inches
    text_size = 9 if numbered else 7.5
    # Inches for the longest name, by the width of an average letter.
    margin = 0.3 + max(map(len, names)) * text_size * 0.55 / 72
    side = max(classes * cell, 2)
    # One inch at the right for the colour bar; title and axis names at the top, and beside them the class names.
    width, height = margin + 0.5 + side + 1, margin + 0.85 + side + 0.25
    figure = Figure(figsize=(width, height), dpi=150)
    axes = figure.add_axes(((margin + 0.5) / width, 0.25 / height, side / width, side / height))
    colours = COLOURS.with_extremes(bad=NO_PIXELS)
    image = axes.imshow(shares, cmap=colours, norm=SCALE, aspect="equal", interpolation="nearest")

    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xticks(range(classes), names, rotation=90, fontsize=text_size, color=TEXT_COLOUR)
    axes.set_yticks(range(classes), names, fontsize=text_size, color=TEXT_COLOUR)
    axes.set_xlabel("predicted class", fontsize=10, color=TEXT_COLOUR, labelpad=8)
    axes.set_ylabel("true class", fontsize=10, color=TEXT_COLOUR, labelpad=8)
    axes.tick_params(length=0)
    # Thin lines between the cells: at minor ticks, as the major ones carry the names.
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#d8d8d8", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_color("#d8d8d8")
    if numbered:
        for row, column in np.argwhere(shares >= 0.005):
            share = shares[row, column]
            weight = "bold" if row == column else "normal"
            colour = "white" if SCALE(share) > 0.6 else TEXT_COLOUR
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, size=9, weight=weight)

    bar_axes = figure.add_axes(((margin + 0.5 + side + 0.2) / width, 0.25 / height, 0.14 / width, side / height))
    bar = figure.colorbar(image, cax=bar_axes, ticks=[0, 0.05, 0.25, 0.5, 0.75, 1])
    bar.ax.minorticks_off()
    bar.ax.set_yticklabels(["0 %", "5 %", "25 %", "50 %", "75 %", "100 %"], fontsize=8, color=TEXT_COLOUR)
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)  # type: ignore[operator]
    figure.text(0.15 / width, 1 - 0.15 / height, title, va="top", fontsize=11, weight="bold", color=TEXT_COLOUR)
    note = "% of each true class's pixels" + ("; grey: no pixels of the class" if np.isnan(shares).any() else "")
    figure.text(0.15 / width, 1 - 0.4 / height, note, va="top", fontsize=9, color=TEXT_COLOUR)
    # Tight: a title longer than the matrix is wide widens the picture.
    software = {"Software": SOFTWARE}
    figure.savefig(path, format="png", bbox_inches="tight", pad_inches=0.15, metadata=software)
