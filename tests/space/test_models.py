"""The checkpoints that come with the page: small, without code, and in colours of their own."""

import json
import math
from pathlib import Path

import pytest
from safetensors import safe_open

from fcn_hf import FCNConfig, FCNForSemanticSegmentation, FCNImageProcessor

ROOT = Path(__file__).parents[2]
FOLDERS = sorted((ROOT / "space" / "models").glob("*/*"))
CLASSES = {"everyday": 21, "street": 11, "indoor": 39}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_an_embedded_model_is_small_and_holds_no_code(folder):
    assert not list(folder.rglob("*.py"))
    for file in ("config.json", "preprocessor_config.json"):
        assert "auto_map" not in json.loads((folder / file).read_text())
    config = FCNConfig.from_pretrained(folder)
    assert len(set(map(tuple, config.palette))) == config.num_labels, "a colour for each class"
    assert config.num_labels == CLASSES[folder.parent.name] and folder.name == f"fcn-{config.prediction_stride}s"
    assert config.label2id == {label: index for index, label in config.id2label.items()}
    assert (folder / "model.safetensors").stat().st_size <= 6_200_000
    with safe_open(folder / "model.safetensors", framework="np") as weights:
        numbers = sum(math.prod(weights.get_slice(key).get_shape()) for key in weights.keys())
    assert numbers <= 3_100_000
    assert "research use" in (folder / "README.md").read_text()


def test_saving_an_embedded_model_writes_its_code(tmp_path):
    folder = ROOT / "space" / "models" / "street" / "fcn-8s"
    FCNForSemanticSegmentation.from_pretrained(folder).save_pretrained(tmp_path)
    FCNImageProcessor.from_pretrained(folder).save_pretrained(tmp_path)
    code = {path.name for path in tmp_path.glob("*.py")}
    assert code == {path.name for path in (ROOT / "fcn_hf").glob("*_fcn.py")}
    for file in ("config.json", "preprocessor_config.json"):
        assert "auto_map" in json.loads((tmp_path / file).read_text())
