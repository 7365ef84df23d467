"""Recipes: what their files and the command line say, and how stages follow each other."""

import json
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


def test_a_recipe_holds_what_differs_from_its_base(tmp_path):
    (tmp_path / "bases").mkdir()
    files = {
        "bases/all.yaml": {"learning_rate": 0.1, "max_steps": 7, "ema_decay": 0.9, "ddp_find_unused_parameters": True},
        "bases/data.yaml": {"base": "all.yaml", "dataset_name": "you/streets", "palette": [[0, 0, 0]], "max_steps": 8},
        "fine.yaml": {"base": "bases/data.yaml", "prediction_stride": 16, "ema_decay": None, "seed": 3},
        "staged.yaml": {"stages": ["fine.yaml", "fine.yaml"], "seed": 4},
    }
    for name, settings in files.items():
        (tmp_path / name).write_text(yaml.safe_dump(settings))
    (recipe,) = read_recipes(tmp_path / "fine.yaml", ["--learning_rate", "0.2", "--output_dir", "out"])
    assert (recipe.training.learning_rate, recipe.training.max_steps, recipe.training.seed) == (0.2, 8, 3)
    assert (recipe.data.dataset_name, recipe.data.palette) == ("you/streets", [[0, 0, 0]])
    assert recipe.model.prediction_stride == 16 and recipe.model.ema_decay is None
    # Without a word every run gets the first of these, and the recipe's word counts for the second.
    assert recipe.training.remove_unused_columns is False and recipe.training.ddp_find_unused_parameters is True
    assert recipe.given == {
        "learning_rate": 0.2, "max_steps": 8, "ema_decay": None, "ddp_find_unused_parameters": True,
        "dataset_name": "you/streets", "palette": [[0, 0, 0]], "prediction_stride": 16, "seed": 3,
    }  # fmt: skip
    assert [(run.training.max_steps, run.training.seed) for run in read_recipes(tmp_path / "staged.yaml", [])] == [
        (8, 4), (8, 4),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("bases", "message"),
    [
        (["b.yaml", "c.yaml", "a.yaml"], "'.*a.yaml' is its own base; end the circle of a.yaml -> b.yaml -> c.yaml"),
        (["a.yaml"], "'.*a.yaml' is its own base"),
        (["nowhere.yaml"], "no recipe '.*nowhere.yaml', which is a base in a.yaml -> nowhere.yaml"),
        ([["b.yaml"]], r"base of '.*a.yaml' is \['b.yaml'\]; expected one recipe file"),
    ],
    ids=str,
)
def test_a_base_that_is_missing_or_goes_in_a_circle_gets_one_sentence(tmp_path, bases, message):
    for name, base in zip("abc", bases, strict=False):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"dataset_name": "x", "base": base}))
    with pytest.raises(DatasetError, match=message):
        read_recipes(tmp_path / "a.yaml", [])


def test_a_backbone_config_is_a_mapping_in_a_file_and_on_the_command_line(tmp_path):
    backbone = {"model_type": "resnet", "depths": [1, 1, 1, 1]}
    path, settings = tmp_path / "recipe.yaml", {"dataset_name": "x", "output_dir": "out", "backbone": "auto"}
    path.write_text(yaml.safe_dump({**settings, "backbone_config": backbone}))
    (written,) = read_recipes(path, [])
    path.write_text(yaml.safe_dump(settings))
    for text in (json.dumps(backbone), "{model_type: resnet, depths: [1, 1, 1, 1]}"):
        (said,) = read_recipes(path, ["--backbone_config", text])
        assert said.model.backbone_config == written.model.backbone_config == said.given["backbone_config"] == backbone
