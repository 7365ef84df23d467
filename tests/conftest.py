"""Shared by all tests: no network, no traces, and a net small enough to be built in milliseconds."""

import atexit
import json
import os
import shutil
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
# Caches of data sets and remote code, which would otherwise pile up in the user's own.
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="fcn-hf-tests-")
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)
# One thread is faster for narrow nets, by far where the cores are busy.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.helpers import build_tiny
from tests.hub_server import HubServer

# The same few examples in every run; FCN_FUZZ_EXAMPLES=5000 looks for new ones for some minutes.
examples = int(os.environ.get("FCN_FUZZ_EXAMPLES", "0"))
settings.register_profile(
    "ci",
    derandomize=not examples,
    deadline=None,
    max_examples=examples or 20,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("ci")


@pytest.fixture
def tiny():
    """The builder of tiny nets: `tiny(prediction_stride=16)`."""
    return build_tiny


@pytest.fixture
def hub():
    """A Hub of the test's own, on the loopback interface."""
    with HubServer() as hub:
        yield hub
        assert not hub.unknown, "the loopback Hub lacks an answer"


@pytest.fixture
def figures(tmp_path, monkeypatch):
    """Runs a benchmark's `main` with arguments, and gives the rows of its JSON file."""
    # It is for the process as a whole.
    for place in ("benchmarks.dense", "benchmarks.exact", "benchmarks.training", "fcn_hf.prediction"):
        monkeypatch.setattr(f"{place}.keep_freed_memory", lambda: None)

    def rows(main, *arguments):
        path = tmp_path / "figures.json"
        main([*map(str, arguments), "--json", str(path)])
        content = json.loads(path.read_text())
        assert content["machine"]["threads"] == torch.get_num_threads()
        return content["rows"]

    return rows
