"""The picture of a run, and of several runs beside each other."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner

from fcn_hf.files import is_png_of
from training import curve
from training.curve import LOG_FILE, By, draw_curve, draw_runs, smoothed

ROOT = Path(__file__).parents[2]


@pytest.fixture
def figures(monkeypatch):
    """The figures that are written, to look at what is in them."""
    written, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **b: (written.append(figure), save(figure, *a, **b))[1])
    return written


def make_log(steps=40, every=10, seconds=2.0, loss=2.0, scores=True):
    """A log in which the loss halves every 100 steps and the mean IoU is a thousandth of the step."""
    log = []
    for step in range(every, steps * every + 1, every):
        common = {"step": step, "seconds": seconds * step, "pictures": 8 * step, "epoch": step / 100}
        log.append({**common, "loss": loss * 0.5 ** (step / 100), "learning_rate": 0.1})
        if scores and step % 100 == 0:
            log.append({**common, "eval_mean_iou": step / 1000})
    return [*log, {"step": steps * every, "train_loss": 1.0, "train_runtime": 5.0}]


def write_run(folder, log):
    folder.mkdir(parents=True)
    (folder / LOG_FILE).write_text(json.dumps(log))
    return folder


def compare(*arguments):
    app = typer.Typer()
    app.command()(curve.main)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_curve_shows_the_loss_as_it_was_and_smoothed_and_the_mean_iou_in_per_cent(tmp_path, figures):
    draw_curve(make_log(), tmp_path / "curve.png")
    (figure,) = figures
    loss, scores = figure.axes
    assert titles(figure) == ["training loss", "mean IoU of the evaluation split, %"]
    raw, smooth = loss.lines
    steps = np.arange(10, 401, 10)
    np.testing.assert_allclose(raw.get_xydata(), np.stack([steps, 2 * 0.5 ** (steps / 100)], axis=1))
    np.testing.assert_allclose(smooth.get_ydata(), smoothed(raw.get_ydata()))
    assert raw.get_linewidth() < smooth.get_linewidth()
    assert scores.lines[0].get_xydata().tolist() == [[100, 10], [200, 20], [300, 30], [400, 40]]
    assert [text.get_text() for text in scores.texts] == ["40.0"]
    assert loss.get_xlim() == scores.get_xlim() and loss.get_xlabel() == scores.get_xlabel() == "steps"
    assert not figure.legends
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.format == "PNG" and picture.size == (1800, 700)


@pytest.mark.parametrize(
    ("log", "panels"),
    [
        (make_log(scores=False), ["training loss"]),
        ([{"step": 5, "eval_mean_iou": 0.5}], ["mean IoU of the evaluation split, %"]),
        ([{"step": 5, "loss": 0.0}, {"step": 5, "eval_mean_iou": 0.0}], None),
        ([{"step": 0, "eval_mean_iou": 0.0}], ["mean IoU of the evaluation split, %"]),
        ([{"step": 5, "loss": 1.0}, {"step": 6, "loss": float("nan")}], ["training loss"]),
        ([], []),
        ([{"step": 5, "train_loss": 1.0}], []),
    ],
)
def test_a_curve_shows_what_there_is(tmp_path, figures, log, panels):
    draw_curve(log, tmp_path / "curve.png")
    assert len(figures[0].axes) == 2 if panels is None else titles(figures[0]) == panels
    assert [text.get_text() for text in figures[0].texts] == (["neither loss nor scores were logged"] * (panels == []))
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_smoothing_keeps_what_is_smooth_and_takes_away_noise_and_spikes():
    for length in (1, 2, 3, 7, 200):
        np.testing.assert_allclose(smoothed(np.full(length, 3.0)), np.full(length, 3.0))
    slope = np.linspace(5, 1, 200)
    np.testing.assert_allclose(smoothed(slope)[20:-20], slope[20:-20])
    noisy = slope + np.random.default_rng(0).normal(0, 0.3, 200)
    assert abs(smoothed(noisy) - slope)[20:-20].max() < 0.3 < abs(noisy - slope)[20:-20].max()
    spiked = slope.copy()
    spiked[100] = 1000
    assert abs(smoothed(spiked) - slope)[20:-20].max() < 0.1


def test_a_spike_does_not_press_the_curve_flat(tmp_path, figures):
    log = make_log(steps=300)
    log[150]["loss"] = 1000.0
    draw_curve(log, tmp_path / "curve.png")
    assert figures[0].axes[0].get_ylim()[1] < 3


def test_a_folder_s_dollars_are_no_formula(tmp_path):
    draw_runs({"$^$": make_log(5), "b": make_log(5)}, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_runs_are_compared_by_step_from_a_log_or_from_the_newest_complete_checkpoint(tmp_path):
    write_run(tmp_path / "whole-image", make_log())
    for step, text in [(9, {"log_history": make_log(4)}), (20, {"log_history": make_log(20)}), (30, None)]:
        checkpoint = tmp_path / "patches" / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "trainer_state.json").write_text('{"log_hist' if text is None else json.dumps(text))
    assert curve.read_log(tmp_path / "patches") == make_log(20)
    command = [sys.executable, ROOT / "training" / "curve.py", "whole-image", "patches", "--out", "new/curves.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "wrote new/curves.png\n", "")
    with Image.open(tmp_path / "new" / "curves.png") as picture:
        assert picture.size == (1800, 700)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["curves.png"]


def test_a_legend_names_each_run_and_its_best_mean_iou(tmp_path, figures):
    draw_runs({"whole": make_log(), "none": make_log(scores=False)}, tmp_path / "curves.png")
    assert labels(figures[0]) == ["whole (best 40.0 %)", "none"]
    lines = [line.get_color() for line in figures[0].legends[0].get_lines()]
    assert lines == [line.get_color() for line in figures[0].axes[0].lines[1::2]] and len(set(lines)) == 2


def test_more_runs_than_colours_can_still_be_told_apart(tmp_path, figures):
    draw_runs({f"run {number}": make_log() for number in range(20)}, tmp_path / "curves.png")
    styles = {(line.get_color(), line.get_linestyle()) for line in figures[0].legends[0].get_lines()}
    assert len(styles) == 20


@pytest.mark.parametrize(
    ("by", "seconds", "name", "last"),
    [
        (By.steps, 2, "steps", 400),
        (By.seconds, 2, "seconds", 800),
        (By.seconds, 36, "hours", 4),
        (By.pictures, 2, "pictures", 3200),
    ],
)
def test_runs_are_compared_by_what_is_asked_for(tmp_path, figures, by, seconds, name, last):
    runs = [write_run(tmp_path / folder, make_log(seconds=seconds)) for folder in ("a", "b")]
    assert compare(*runs, "--out", tmp_path / "curves.png", "--by", by.value).exit_code == 0
    for axes in figures[0].axes:
        assert axes.get_xlabel() == name
        np.testing.assert_allclose([line.get_xdata()[-1] for line in axes.lines], last)


def test_runs_in_folders_of_the_same_name_are_told_apart_by_their_paths(tmp_path, figures):
    runs = [write_run(tmp_path / parent / "8s", make_log(scores=False)) for parent in ("a", "b")]
    runs.append(write_run(tmp_path / "32s", make_log(scores=False)))
    assert compare(*runs, "--out", tmp_path / "curves.png").exit_code == 0
    assert labels(figures[0]) == [str(runs[0]), str(runs[1]), "32s"]


@pytest.mark.parametrize(
    ("log", "options", "message"),
    [
        (None, [], "There is no folder '{run}'."),
        ("", [], "'{run}' holds neither training_log.json nor a complete checkpoint"),
        ("[{", [], "is no JSON: "),
        ("5", [], "is no training's log, which is a list of entries"),
        ("[5]", [], "is no training's log"),
        ("{}", [], "is no training's log"),
        ("[]", [], "has no training loss; was it logged"),
        ('[{"step": 1, "eval_mean_iou": 0.5}]', [], "has no training loss; was it logged"),
        ('[{"step": 1, "loss": 0.5}]', ["--by", "seconds"], "The log of '{run}' doesn't count seconds"),
        ('[{"step": 1, "loss": 0.5}]', ["--by", "pictures"], "The log of '{run}' doesn't count pictures"),
    ],
)
def test_a_run_that_cannot_be_compared_is_refused_in_one_line(tmp_path, log, options, message):
    run, out = tmp_path / "run", tmp_path / "curves.png"
    if log is not None:
        run.mkdir()
    if log:
        (run / LOG_FILE).write_text(log)
    good = write_run(tmp_path / "good", make_log())
    result = compare(good, run, "--out", out, *options)
    assert result.exit_code == 1 and message.format(run=run) in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1 and not out.exists()


def test_a_picture_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    run, out = write_run(tmp_path / "run", make_log()), tmp_path / "out" / "curves.png"
    out.parent.mkdir()
    out.write_text("old")
    result = compare(run, "--out", out)
    assert result.exit_code == 1 and "is there, and not this command's own" in result.stderr

    def fail(runs, path, by):
        path.write_text("half")
        raise OSError("No space left on device")

    monkeypatch.setattr(curve, "draw_runs", fail)
    result = compare(run, "--out", out, "--overwrite")
    assert result.exit_code == 1 and result.stderr == "No space left on device\n"
    assert out.read_text() == "old" and list(out.parent.iterdir()) == [out]
    monkeypatch.undo()
    for options in (["--overwrite"], []):
        assert compare(run, "--out", out, *options).exit_code == 0 and is_png_of("fcn-hf training/curve.py", out)


def test_without_matplotlib_the_module_can_be_imported_and_says_what_is_missing(tmp_path, monkeypatch):
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.lines"):
        monkeypatch.setitem(sys.modules, name, None)
    runpy.run_path(curve.__file__)
    with pytest.raises(ImportError, match="needs matplotlib: pip install"):
        draw_curve(make_log(), tmp_path / "curve.png")
    result = compare(write_run(tmp_path / "run", make_log()), "--out", tmp_path / "curves.png")
    assert result.exit_code == 1 and "needs matplotlib" in result.stderr
