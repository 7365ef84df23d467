"""The checkpoints that come with the page: small, complete, and with the package's present code."""

import math
from pathlib import Path

import pytest
from safetensors import safe_open

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["fcn-32s", "fcn-16s", "fcn-8s"])
def test_an_embedded_model_is_small_and_carries_the_present_code(name):
    folder = ROOT / "space" / "models" / name
    code = {path.name for path in folder.glob("*.py")}
    assert code >= {"configuration_fcn.py", "image_processing_fcn.py", "modeling_fcn.py"}
    for file in code:
        assert (folder / file).read_text() == (ROOT / "fcn_hf" / file).read_text(), f"{name}/{file} is out of date"
    assert (folder / "model.safetensors").stat().st_size <= 6_000_000
    with safe_open(folder / "model.safetensors", framework="np") as weights:
        numbers = sum(math.prod(weights.get_slice(key).get_shape()) for key in weights.keys())
    assert numbers <= 3_000_000
    assert "research use only" in (folder / "README.md").read_text()
