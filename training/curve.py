"""How training went: its loss and its mean IoU, as a picture for the card or to compare runs with each other.

As a script it compares: `python training/curve.py RUN [RUN ...] --out curves.png`, where each RUN is the folder of a
training that has ended or is still going on.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fcn_hf.files import check_file, is_png_of, write_aside
from training.trainer import last_complete_checkpoint

LOG_FILE = "training_log.json"
SOFTWARE = "fcn-hf training/curve.py"
"""What each picture says of itself, so that it may be drawn anew."""
# Okabe and Ito's colours, which colour-blind people tell apart too, in an order that suits thin lines on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")
INK, GRID = "#222222", "#e0e0e0"


class By(StrEnum):
    """What runs are compared by."""

    steps = "steps"
    seconds = "seconds"
    pictures = "pictures"


def draw_curve(log_history: Sequence[Mapping[str, Any]], path: Path | str) -> None:
    """Write a PNG of a run, made to be shown 900 pixels wide: its training loss and, if it was measured, its mean IoU.

    Args:
        log_history: that of Trainer's trainer_state.json: entries with `step`, and `loss` or `eval_mean_iou` (0..1).
            Without any of the two the picture says so.
        path: of the file.

    Raises:
        `ImportError`: if matplotlib isn't installed.
    """
    draw_runs({"": log_history}, path)


def draw_runs(runs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path | str, by: By = By.steps) -> None:
    """Write a PNG of several runs in the same axes.

    Args:
        runs: the log history of each, as for `draw_curve`, under the name that the legend gives it.
        path: of the file.
        by: what goes along the horizontal axes; entries without it are left out.

    Raises:
        `ImportError`: if matplotlib isn't installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
    except ImportError as error:
        raise ImportError("A picture of the training needs matplotlib: pip install 'fcn-hf[train]'.") from error

    panels = []
    for draw, title, value in (
        (_draw_losses, "training loss", "loss"),
        (_draw_scores, "mean IoU of the evaluation split, %", "eval_mean_iou"),
    ):
        curves = [points(log, value, by) for log in runs.values()]
        if any(len(values) for _, values in curves):
            panels.append((draw, title, curves))
    furthest = max((max(along, default=0) for _, _, curves in panels for along, _ in curves), default=0)
    hours = by is By.seconds and furthest > 2 * 3600

    figure = Figure(figsize=(9, 3.5), dpi=200, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    if not panels:
        figure.text(0.5, 0.5, "neither loss nor scores were logged", ha="center", va="center", color=INK)
    for index, (draw, title, curves) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), index)
        draw(axes, [(along / 3600 if hours else along, values) for along, values in curves])
        axes.set_xlim(0, 1.03 * furthest / (3600 if hours else 1) or 1)
        axes.set_title(title, loc="left", fontsize=10, color=INK)
        axes.set_xlabel("hours" if hours else by.value, fontsize=9, color=INK)
        axes.tick_params(length=0, labelsize=8.5, labelcolor=INK)
        axes.grid(color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[:].set_visible(False)
    if panels and any(runs):
        labels = []
        for name, log in runs.items():
            _, scores = points(log, "eval_mean_iou", By.steps)
            labels.append(f"{name} (best {100 * scores.max():.1f} %)" if len(scores) else name)
        lines = [Line2D([], [], linewidth=1.8, **_style(index)) for index in range(len(labels))]
        # Letters that fit into a line, with a line's sample and a gap for each name.
        columns = max(1, 130 // (max(map(len, labels)) + 8))
        where = "outside upper left"
        shown = figure.legend(lines, labels, loc=where, ncols=columns, frameon=False, fontsize=9, labelcolor=INK)
        for text in shown.get_texts():
            # Folders may have dollars in their names, which are no formulas.
            text.set_parse_math(False)
    figure.savefig(path, format="png", metadata={"Software": SOFTWARE})


def points(log_history: Sequence[Mapping[str, Any]], value: str, by: By) -> tuple[np.ndarray, np.ndarray]:
    """Where a value was logged, and what it was: two float64 arrays of the same length, without NaN and infinity."""
    key = "step" if by is By.steps else by.value
    found = [(entry[key], entry[value]) for entry in log_history if value in entry and key in entry]
    along, values = np.array(found, dtype=np.float64).reshape(-1, 2).T
    return along[np.isfinite(values)], values[np.isfinite(values)]


def smoothed(values: np.ndarray) -> np.ndarray:
    """Each value averaged with its neighbours, a twentieth of the run to each side and nearer ones more.

    Medians of five come first, so that a single spike leaves no hill.
    """
    medians = np.median(np.lib.stride_tricks.sliding_window_view(np.pad(values, 2, mode="reflect"), 5), axis=1)
    weights = np.hanning(2 * (len(values) // 20) + 3)[1:-1]
    # The second sum makes up for the neighbours that are missing at both ends.
    return np.convolve(medians, weights, "same") / np.convolve(np.ones(len(values)), weights, "same")


def _style(index: int) -> dict[str, str]:
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": ("-", "--", ":")[index // len(COLOURS) % 3]}


def _draw_losses(axes, curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    shown = []
    for index, (along, values) in enumerate(curves):
        if len(values):
            smooth = smoothed(values)
            axes.plot(along, values, color=_style(index)["color"], linewidth=0.7, alpha=0.35)
            # A line of one point can't be seen.
            axes.plot(along, smooth, **_style(index), linewidth=1.8, marker="o" if len(values) == 1 else "")
            shown += [*smooth, *np.percentile(values, [1, 99])]
    # Neither must a spike press all curves flat.
    margin = 0.05 * (max(shown) - min(shown)) or 0.05 * abs(max(shown)) or 1
    axes.set_ylim(min(shown) - margin, max(shown) + margin)


def _draw_scores(axes, curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    for index, (along, values) in enumerate(curves):
        axes.plot(along, 100 * values, **_style(index), linewidth=1.8, marker="o", markersize=3.5)
    if len(curves) == 1:
        best = values.argmax()
        axes.annotate(
            f"{100 * values[best]:.1f}", (along[best], 100 * values[best]), (0, 6), textcoords="offset points",
            ha="center", fontsize=9, weight="bold", color=COLOURS[0],
        )  # fmt: skip
    axes.margins(y=0.15)


def read_log(run: Path) -> list[dict[str, Any]]:
    """The log history of a run: that of its folder when it has ended, else of its newest complete checkpoint.

    Raises:
        `ValueError`: with a sentence, if there is none or it can't be read, or there is no training loss in it.
    """
    if not run.is_dir():
        raise ValueError(f"There is no folder {str(run)!r}.")
    path = run / LOG_FILE
    if not path.is_file():
        checkpoint = last_complete_checkpoint(run)
        if checkpoint is None:
            raise ValueError(
                f"{str(run)!r} holds neither {LOG_FILE} nor a complete checkpoint; is it a training's folder?"
            )
        path = Path(checkpoint) / "trainer_state.json"
    try:
        log = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is no JSON: {error}") from error
    log = log.get("log_history") if isinstance(log, dict) else log
    if not isinstance(log, list) or not all(isinstance(entry, dict) for entry in log):
        raise ValueError(f"{str(path)!r} is no training's log, which is a list of entries.")
    if not any("loss" in entry for entry in log):
        raise ValueError(f"{str(path)!r} has no training loss; was it logged (logging_strategy, logging_steps)?")
    return log


def main(
    runs: Annotated[list[Path], typer.Argument(help="Folders of trainings, as output_dir named them.")],
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    by: Annotated[By, typer.Option(help="What the horizontal axes count.")] = By.steps,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace any file, too.")] = False,
) -> None:
    """Draw the training loss and the mean IoU of several runs in one picture."""
    names = [run.resolve().name for run in runs]
    logs = {}
    try:
        check_file(out, partial(is_png_of, SOFTWARE), overwrite)
        for run, name in zip(runs, names, strict=True):
            log = read_log(run)
            if not len(points(log, "loss", by)[0]):
                raise ValueError(
                    f"The log of {str(run)!r} doesn't count {by.value}; compare by another of {', '.join(By)}."
                )
            logs[str(run) if names.count(name) > 1 else name] = log
        write_aside(out, lambda path: draw_runs(logs, path, by))
    except (ValueError, ImportError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    typer.echo(f"wrote {out}")


if __name__ == "__main__":
    typer.run(main)
