"""Benchmarks that start the page or workers of Ray; a file of its own, so that the others run beside it."""

import json
import shutil

import pytest
from torch import nn

from benchmarks import page, shards
from space.pictures import EXAMPLES
from tests.helpers import save_tiny


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
def test_what_a_visitor_of_the_page_waits_for(figures, monkeypatch, tmp_path):
    pytest.importorskip("playwright", reason="playwright is not installed")
    monkeypatch.setattr(page, "torchfcn_fcn8s", lambda: nn.Conv2d(3, 21, 3, padding=1).eval())
    monkeypatch.setattr(page, "SIZES", {"60x40": (60, 40)})
    monkeypatch.setattr(page, "SETTLING", 500)
    monkeypatch.setattr(page, "importing", lambda: 1.0)  # which would be 10 seconds of this test
    classes = json.loads((EXAMPLES / "street" / "id2label.json").read_text())
    monkeypatch.setenv("FCN_MODELS", str(save_tiny(tmp_path / "model", id2label=classes)))
    rows = figures(page.main, "--repeats", 1)
    assert {"start of `python app.py`", "masks of models, 60x40", "a pixel explained by models, 480x360"} < set(rows)
    assert rows["torchfcn FCN-8s, one pass"]["torchfcn / this"] == 1.0 and all(row["ms"] > 0 for row in rows.values())


def test_label_maps_a_second_by_one_worker_of_ray(figures, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed")
    rows = figures(shards.main, "--model", save_tiny(tmp_path / "model"), "--rows", 24, "--workers", 1)
    (row,) = rows.values()
    assert list(rows) == ["Ray, machines with one core: 1"] and row["rows/s"] > 0 and row["MB a worker"] > 100
