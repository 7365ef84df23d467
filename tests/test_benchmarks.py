"""Every benchmark runs to its end on nets and pictures that are tiny, and says what README quotes of it."""

import time
from functools import partial

import pytest
import torch
from torch import nn

from benchmarks import dense, exact, gpu, tiles, training
from benchmarks.timing import draw_bars, machine, medians
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


def test_nets_on_a_gpu_beside_torchvisions(figures, monkeypatch, tmp_path, capsys):
    compiled = []
    monkeypatch.setattr(gpu, "fcn_resnet50", lambda **options: nn.Conv2d(3, 21, 3))
    monkeypatch.setattr(gpu, "FCNConfig", lambda **settings: FCNConfig(**settings | TINY))
    monkeypatch.setattr(gpu, "EMBEDDED", str(save_tiny(tmp_path / "model")))
    # That nets compile is tested with them; here it would take most of the time.
    monkeypatch.setattr(torch, "compile", lambda net, **options: compiled.append(net) or net)
    arguments = ("--device", "cpu", "--size", 40, "--repeats", 1, "--plot", tmp_path / "gpu.png")
    rows = figures(gpu.main, *arguments, "--batch", 1, 2)
    nets = ["fcn_resnet50", "FCN-8s as published", "FCN-8s, geometry same", "embedded FCN-8s"]
    ways = [f"bfloat16, batch {batch}, {way}" for batch in (1, 2) for way in ("eager", "compiled")]
    own = [f"{net}, {way}" for way in ["float32, batch 1, eager", *ways] for net in nets]
    assert list(rows) == [*gpu.QUOTED, *own] and len(compiled) == 2 * len(nets)
    paper = {"images/s": 5.7, "ms an image": 175.0, "fcn_resnet50 / this": None}
    assert rows["FCN-8s on a K40c, as the paper has it"] == paper
    assert {rows[f"fcn_resnet50, {way}"]["fcn_resnet50 / this"] for way in ways} == {1.0}

    monkeypatch.setattr(gpu, "EMBEDDED", str(tmp_path))
    assert list(gpu.load_nets()) == nets[:-1]
    assert "The embedded FCN-8s is left out" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_missing_gpu_is_said_before_nets_are_built():
    with pytest.raises(SystemExit, match="no GPU here; --device cpu"):
        gpu.main([])


def test_a_pass_lasts_until_the_gpu_is_done_and_figures_name_it(monkeypatch, tmp_path):
    done = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: time.sleep(0.05) or done.append("synchronize"))
    assert medians({"pass": lambda: done.append("pass")}, 1)["pass"] >= 0.05
    assert done == ["pass", "synchronize"] * 2
    assert machine()["gpu"] == "Some GPU" and {"cuda", "driver"} < set(machine())
    draw_bars({"net": 2.5}, "images/s", str(tmp_path / "gpu.svg"))
    # An SVG has its texts in comments, beside the outlines of their letters.
    assert "<!-- Some GPU, CUDA" in (tmp_path / "gpu.svg").read_text()


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
