"""Recipes: what their files and the command line say, and how stages follow each other."""

from pathlib import Path

import pytest
import yaml

from fcn_hf.datasets import DatasetError
from training.recipe import read_recipes

RECIPES = sorted((Path(__file__).parents[2] / "training" / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_holds_known_arguments_only(path):
    for recipe in read_recipes(path, ["--dataset_name", "you/streets"]):
        assert recipe.data.dataset_name == "you/streets" and recipe.training.max_steps > 0


def test_stages_share_overrides_and_each_starts_where_the_one_before_ended(tmp_path):
    for name, stride in (("coarse", 32), ("fine", 8)):
        settings = {"dataset_name": "x", "output_dir": "elsewhere", "prediction_stride": stride, "seed": stride}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(settings))
    staged = tmp_path / "staged.yaml"
    staged.write_text(yaml.safe_dump({"stages": ["coarse.yaml", "fine.yaml"], "output_dir": "runs", "max_steps": 7}))
    overrides = ["--dataset-name", "you/streets", "--hub_model_id", "you/fcn-{stride}s", "--hub_token", "secret"]
    coarse, fine = read_recipes(staged, [*overrides, "--model_name_or_path=start"])
    assert (coarse.training.output_dir, fine.training.output_dir) == ("runs/coarse", "runs/fine")
    assert (coarse.model.model_name_or_path, fine.model.model_name_or_path) == ("start", "runs/coarse")
    assert (coarse.training.hub_model_id, fine.training.hub_model_id) == ("you/fcn-32s", "you/fcn-8s")
    assert [recipe.training.seed for recipe in (coarse, fine)] == [32, 8]
    for recipe in (coarse, fine):
        assert recipe.data.dataset_name == "you/streets" and recipe.training.max_steps == 7
        # The card shows what was given, but no secrets.
        assert recipe.given["dataset_name"] == "you/streets" and "secret" not in recipe.given.values()
    first, _ = read_recipes(staged, ["--output_dir", str(tmp_path)])
    assert first.training.output_dir == str(tmp_path / "coarse") and first.model.model_name_or_path is None
    (tmp_path / "fine.yaml").unlink()
    with pytest.raises(DatasetError, match="There is no recipe '.*fine.yaml'"):
        read_recipes(staged, [])
    staged.write_text("stages: coarse.yaml")
    with pytest.raises(DatasetError, match="stages of .* are 'coarse.yaml'; expected a list"):
        read_recipes(staged, [])
