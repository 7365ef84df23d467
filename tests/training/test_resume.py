"""Going on from a checkpoint: with its own recipe, from a whole one, or not at all; and after kill -9."""

import json
import multiprocessing
import os
import random
import shutil
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file

from fcn_hf.errors import FCNError
from training.train import main

# How many runs are killed; more of them by hand.
KILLS = int(os.environ.get("FCN_KILLS", "1"))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A run of two steps on six pictures of three classes, with a checkpoint after each."""
    folder = tmp_path_factory.mktemp("data")
    random_numbers = np.random.default_rng(0)
    for split, count in (("train", 6), ("validation", 2)):
        columns = {
            "image": [random_numbers.integers(0, 256, (32, 48, 3), dtype=np.uint8) for _ in range(count)],
            "label": [random_numbers.integers(0, 3, (32, 48), dtype=np.uint8) for _ in range(count)],
        }
        pictures = {name: [Image.fromarray(array) for array in arrays] for name, arrays in columns.items()}
        features = datasets.Features(dict.fromkeys(columns, datasets.Image()))
        datasets.Dataset.from_dict(pictures, features=features).to_parquet(folder / f"{split}.parquet")
    (folder / "id2label.json").write_text(json.dumps(["sky", "road", "car"]))
    settings = {
        "dataset_name": str(folder), "hidden_sizes": [4, 4, 8, 8, 8], "depths": [1, 1, 1, 1, 1], "hidden_size": 8,
        "crop_size": [32, 32], "learning_rate": 0.1, "optim": "adamw_torch", "max_steps": 2, "save_steps": 1,
        "per_device_train_batch_size": 2, "report_to": "none", "disable_tqdm": True, "use_cpu": True, "seed": 0,
        "ema_decay": 0.5, "example_pictures": 1,
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    main([str(recipe), "--output_dir", str(folder)])
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run, which a test may change."""
    return shutil.copytree(finished, tmp_path / "run")


def resume(recipe, folder, *overrides, checkpoint="true"):
    main([str(recipe), "--output_dir", str(folder), "--resume_from_checkpoint", str(checkpoint), *map(str, overrides)])


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["--learning_rate", 0.01],
            "can't change within a run: learning_rate is 0.01 and was 0.1. .*model_name_or_path",
        ),
        (["--hidden_size", 16, "--optim", "sgd"], "optim is 'sgd' and was 'adamw_torch', hidden_size is 16 and was 8"),
        (["--lr_scheduler_type", "cosine"], "lr_scheduler_type is 'cosine' and was 'linear'"),
        (["--id2label", "[a, b]"], r"id2label is \['a', 'b'\] and was None"),
        (["--dataset_name", "you/streets"], "dataset_name is 'you/streets' and was"),
        (["--per_device_train_batch_size", 1], "per_device_train_batch_size is 1 and was 2"),
        (["--learning_rat", 1], "there is no argument 'learning_rat'; did you mean learning_rate"),
        (["--max_steps", -1], "max_steps is -1 and was 2"),
        (["--max_steps", 1], "checkpoint-2 has 2 steps behind it, more than max_steps=1"),
    ],
    ids=str,
)
def test_a_resume_with_what_can_not_change_is_refused_and_nothing_is_touched(recipe, finished, overrides, message):
    before = contents(finished)
    with pytest.raises((FCNError, SystemExit), match=message) as refusal:
        resume(recipe, finished, *overrides)
    assert "\n" not in str(refusal.value) and contents(finished) == before


def test_a_checkpoint_that_is_missing_or_not_whole_gets_one_sentence(recipe, run):
    def refused(name):
        with pytest.raises(FCNError) as refusal:
            resume(recipe, run, checkpoint=run / name)
        assert "\n" not in str(refusal.value)
        return str(refusal.value)

    assert "checkpoint-99; there are checkpoint-1, checkpoint-2" in refused("checkpoint-99")
    assert "it lacks its state and its schedule and its optimiser" in refused("")
    for name in ("model.safetensors", "optimizer.pt", "trainer_state.json", "recipe.json"):
        whole = (run / "checkpoint-1" / name).read_bytes()
        (run / "checkpoint-1" / name).write_bytes(whole[: len(whole) // 2])
        assert f"checkpoint-1 is no complete checkpoint: {name} is damaged" in refused("checkpoint-1")
        (run / "checkpoint-1" / name).write_bytes(whole)
    (run / "checkpoint-1" / "optimizer.pt").unlink()
    assert "it lacks its optimiser. " in refused("checkpoint-1")


def test_a_finished_run_is_said_to_have_nothing_left(recipe, run, capsys):
    before = contents(run)
    resume(recipe, run, "--example_pictures", 0)
    said = capsys.readouterr().out
    assert "Nothing is left to train: " in said and "end of this run of 2 steps" in said
    assert (
        "Changed from here on: example_pictures 0 (was 1)." in said
        and "Up to step" not in (run / "README.md").read_text()
    )
    after = contents(run)
    assert before[Path("model.safetensors")] == after[Path("model.safetensors")]


def test_what_may_change_midway_is_said_and_the_card_tells_each_part(recipe, run, capsys):
    (run / "checkpoint-best").mkdir()
    resume(recipe, run, "--max_steps", 3, "--logging_steps", 1)
    said = capsys.readouterr().out
    assert "Going on from " in said and "checkpoint-2, after 2 of 3 steps. Changed from here on: " in said
    assert "max_steps 3 (was 2)" in said and "logging_steps 1.0 (was 500)" in said and "schedule" in said
    assert "Up to step 2 it was trained with max_steps: 2." in (run / "README.md").read_text()
    parts = json.loads((run / "checkpoint-3" / "recipe.json").read_text())
    assert [(part["first_step"], part["settings"]["max_steps"]) for part in parts] == [(0, 2), (2, 3)]
    assert "hub_token" not in parts[0]["settings"]


def test_a_checkpoint_without_a_recipe_goes_on_with_a_sentence_but_not_with_another_net(recipe, run, capsys):
    (run / "checkpoint-2" / "recipe.json").unlink()
    with pytest.raises(FCNError, match="checkpoint-2 holds another net than the recipe describes: .*fc6"):
        resume(recipe, run, "--hidden_size", 16)
    data = Path(yaml.safe_load(recipe.read_text())["dataset_name"])
    resume(recipe, run, "--max_steps", 3)
    assert "It doesn't tell which recipe it was made by" in capsys.readouterr().out
    assert (
        "Up to step 2 it was trained by a recipe that the checkpoint doesn't tell." in (run / "README.md").read_text()
    )
    # From here on it is kept, with the names of the classes, which the data decide.
    names = (data / "id2label.json").read_text()
    (data / "id2label.json").write_text(json.dumps(["sky", "road", "cat"]))
    try:
        with pytest.raises(FCNError, match=r"classes is \['sky', 'road', 'cat'\] and was"):
            resume(recipe, run, "--max_steps", 3)
    finally:
        (data / "id2label.json").write_text(names)


def test_kill_9_at_any_moment_leaves_nothing_half_written_and_the_repeat_ends_in_the_same_state(
    recipe, finished, tmp_path, monkeypatch
):
    # Its processes have imported everything before they begin, so that the moments are those of the run.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["training.train"])

    def start(folder):
        arguments = [str(recipe), "--output_dir", str(folder), "--resume_from_checkpoint", "true"]
        process = processes.Process(target=main, args=(arguments,))
        process.start()
        return process

    begin = time.monotonic()
    straight = start(tmp_path / "straight" / "run")
    straight.join(240)
    duration = time.monotonic() - begin
    assert straight.exitcode == 0
    names = set(contents(finished))
    for number in range(KILLS):
        folder = tmp_path / str(number) / "run"
        killed = start(folder)
        killed.join(random.uniform(0, duration))
        killed.kill()
        killed.join()
        for path in folder.glob("*.*"):
            if path.suffix == ".safetensors":
                load_file(path)
            elif path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".png":
                Image.open(path).load()
        again = start(folder)
        again.join(240)
        assert again.exitcode == 0 and set(contents(folder)) == names
        for name in ("model.safetensors", "README.md", "config.json", "examples.png"):
            assert (folder / name).read_bytes() == (finished / name).read_bytes(), name
