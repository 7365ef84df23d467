"""Every benchmark runs to its end on nets and pictures that are tiny, and says what README quotes of it."""

from functools import partial

from torch import nn

from benchmarks import dense, exact, tiles, training
from fcn_hf import FCNConfig
from tests.helpers import TINY, run, save_tiny


def test_the_exact_net_beside_its_peers_and_the_papers_times(figures, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(exact, "torchfcn_fcn8s", lambda: nn.Conv2d(3, 21, 3, padding=1).eval())
    monkeypatch.setattr(exact, "FCNConfig", partial(FCNConfig, **TINY))
    plot = tmp_path / "exact.svg"
    rows = figures(exact.main, "--repeats", 1, "--size", 33, 40, "--plot", plot)
    own = ["torchfcn", "torchfcn in ONNX Runtime", "as loaded", "optimize, float32", "optimize, bfloat16"]
    assert list(rows) == [*exact.QUOTED, *own, *(f"{name}, memory kept" for name in own)]
    assert rows["FCN-8s on a K40c, as the paper has it"] == {"ms": 175, "torchfcn / this": None}
    assert rows["torchfcn"]["torchfcn / this"] == 1.0
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 2 + len(rows) and table[2] == "| SDS, as the paper has it | 50000 |  |"
    assert "as the paper has it" in plot.read_text() or plot.stat().st_size > 10_000


def test_dense_answers_beside_sliding_crops(figures):
    rows = figures(dense.main, "--repeats", 1, "--classifier", "test_resnet", "--size", 96, 128, "--crop", 64)
    crops, net = rows.items()
    assert crops[0] == "6 crops, 16 at once" and net[0] == "convolutionalized, 2x3 answers"
    assert crops[1]["crops / this"] == 1.0


def test_trainer_beside_a_bare_loop(figures, tmp_path):
    model = save_tiny(tmp_path / "model", num_labels=11)
    sizes = ("--size", 48, 64, "--crop", 32, 32, "--batch", 1, "--steps", 2)
    rows = figures(training.main, "--repeats", 1, "--model", model, *sizes)
    assert rows["bare loop"]["this / bare loop"] == 1.0 and rows["FCNTrainer"]["ms a step"] > 0
    for workers in range(3):
        assert {f"data alone, num_workers={workers}", f"FCNTrainer on them, num_workers={workers}"} < set(rows)


def test_tiles_beside_one_pass(figures, tmp_path, monkeypatch):
    def segment(picture, model, out, options):
        result = run("segment", picture, "--model", model, "--out", out, *options)
        assert result.exit_code == 0, result.stderr
        return 1.0, 100.0

    # Each process of its own would take seconds for its imports.
    monkeypatch.setattr(tiles, "segment", segment)
    model = save_tiny(tmp_path / "model")
    rows = figures(tiles.main, "--model", model, "--whole", 64, "--tiled", 96)
    assert list(rows) == ["one pass, 64x64", "--tile, 64x64", "--tile, 96x96"]
    assert rows["--tile, 64x64"]["pixels unlike one pass"] == 0
    assert {row["s"] for row in rows.values()} == {1.0} and {row["peak MB"] for row in rows.values()} == {100}
