"""Recipes: what their files and the command line say, and how stages follow each other."""

import json
import os
from pathlib import Path
from unittest import mock

import hypothesis
import pytest
import yaml
from hypothesis import strategies as st

from fcn_hf.datasets import DatasetError
from fcn_hf.errors import FCNError
from training.recipe import KNOWN, Recipe, read_recipe, read_recipes

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


def test_an_empty_list_takes_back_that_of_the_base_but_is_no_value_where_there_must_be_some(tmp_path):
    base = {"dataset_name": "you/streets", "max_steps": 7, "output_dir": "runs", "frozen_layers": ["trunk.stages.0"]}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    (tmp_path / "free.yaml").write_text(yaml.safe_dump({"base": "base.yaml", "frozen_layers": []}))
    (recipe,) = read_recipes(tmp_path / "free.yaml", [])
    assert recipe.optimizer.frozen_layers == []
    (tmp_path / "flat.yaml").write_text(yaml.safe_dump({"base": "base.yaml", "depths": []}))
    with pytest.raises(SystemExit, match="depths.*expected at least one argument"):
        read_recipes(tmp_path / "flat.yaml", [])


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


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ema_decay": 1}, "ema_decay=1.0 must be above 0 and below 1"),
        ({"ema_decay": float("nan")}, "ema_decay=nan must be"),
        ({"learning_rate": float("inf")}, "learning_rate=inf must be above 0"),
        ({"max_steps": 0}, "max_steps=0 must be 1 or more, or -1"),
        ({"num_train_epochs": 0}, "num_train_epochs=0.0 must be above 0"),
        ({"per_device_train_batch_size": -2}, "per_device_train_batch_size=-2 must be 1 or more"),
        ({"scale": [0, 0]}, "scale=0.0 0.0 must be two factors above 0"),
        ({"crop_size": [0, 32]}, "crop_size=0 32 must be height and width"),
        ({"shortest_edge": 90, "longest_edge": 80}, "longest_edge=80 must not be below shortest_edge=90"),
        ({"mirror": 1.5}, "mirror=1.5 must be a probability"),
        ({"weights_dtype": "int8"}, "weights_dtype=int8 must be float32"),
        ({"optim": "adamw_torch", "momentum": 0.9}, "momentum=0.9 is for optim=sgd"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "lr_scheduler_type=cosine_with_min_lr"),
        ({"report_to": "nobody"}, "report_to=.*nobody"),
        ({"streaming": True}, "streaming: .*max_steps"),
        ({"hidden_size": 0}, "hidden_size=0 must be at least 1"),
        ({"prediction_stride": 7, "model_name_or_path": "x"}, "prediction_stride=7 is not known"),
        ({"label_map": {"a": 1}}, "'a' is no class id in palette, label_map"),
        ({"id2label": {1: "a", 3: "b"}}, "id2label of the recipe has the ids"),
        ({"max_steps": [1, 2]}, "--max_steps.*invalid int value"),
        ({"max_step": 1}, "there is no argument 'max_step'; did you mean max_steps"),
    ],
    ids=str,
)
def test_a_value_that_can_not_be_is_told_by_its_name_when_the_recipe_is_read(values, message):
    with pytest.raises((FCNError, SystemExit), match=message) as refusal:
        read_recipe({"dataset_name": "nowhere", "output_dir": "nowhere", **values}, [])
    assert "\n" not in str(refusal.value)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 1, 2, 0.5, 1e30])
    | st.floats()
    | st.text(max_size=8)
    | st.dates()
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=2), max_leaves=4
)
MORE = hypothesis.settings(max_examples=5 * hypothesis.settings.default.max_examples)


def assert_a_recipe_or_a_sentence(read):
    """Arguments of some kinds are handed on by variables of the environment, which mustn't outlive the test."""
    with mock.patch.dict(os.environ):
        try:
            assert all(isinstance(recipe, Recipe) for recipe in read())
        except (FCNError, SystemExit) as refusal:
            assert str(refusal).strip()


@MORE
@hypothesis.given(st.dictionaries(st.sampled_from(sorted(KNOWN)), VALUES, max_size=3))
def test_any_value_of_any_argument_gives_a_recipe_or_a_sentence(values):
    assert_a_recipe_or_a_sentence(lambda: [read_recipe({"dataset_name": "x", "output_dir": "out", **values}, [])])


YAML = st.text(max_size=40) | st.text(alphabet="base: stages-[]{}&*a!?|>'\"#\n\t0.:,", max_size=40)


@MORE
@hypothesis.given(YAML | st.dictionaries(st.sampled_from(["base", "stages", "seed"]), VALUES).map(yaml.safe_dump))
def test_any_text_as_a_recipe_gives_a_recipe_or_a_sentence(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert_a_recipe_or_a_sentence(lambda: read_recipes(path, ["--dataset_name", "x", "--output_dir", "out"]))


def test_what_is_given_twice_is_refused(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("dataset_name: x\nlearning_rate: 0.1\nlearning_rate: 0.2\n")
    with pytest.raises(DatasetError, match="recipe.yaml' learning_rate is given twice"):
        read_recipes(path, [])
    with pytest.raises(DatasetError, match="label_map: 3 is given twice"):
        read_recipe({"dataset_name": "x", "output_dir": "out"}, ["--label_map", "{3: 1, 3: 2}"])
    path.write_text("dataset_name: x\noutput_dir: &out o\nid2label: &names {0: a, 1: b}\n")
    assert read_recipes(path, [])[0].data.id2label == {"0": "a", "1": "b"}
