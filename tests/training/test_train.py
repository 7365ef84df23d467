"""Training from a recipe, from the command to the finished folder: what is saved, resumed and said."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import TrainingArguments

from fcn_hf import FCNForSemanticSegmentation, FCNImageProcessor
from fcn_hf.datasets import DatasetError, load_splits
from fcn_hf.errors import FCNError
from fcn_hf.evaluation import evaluate_split
from fcn_hf.upsampling_fcn import bilinear_kernel
from tests.helpers import run_without_the_package, save_tiny
from training.augmentation import AugmentationArguments, training_augmentation
from training.examples import SegmentationDataset
from training.recipe import read_recipe
from training.results import check_output, save_trained
from training.resume import Checkpoint
from training.streets import ID2LABEL, streets_dataset
from training.train import main
from training.trainer import FCNTrainer, last_complete_checkpoint

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "training" / "recipes").glob("*.yaml"))


@pytest.fixture(scope="module")
def streets_folder(tmp_path_factory):
    """A Hub dataset folder of small drawn scenes: 6 to train on, 2 to validate with."""
    folder = tmp_path_factory.mktemp("streets")
    rows = streets_dataset(8, height=48, width=64, cache_dir=tmp_path_factory.mktemp("cache"))
    rows.select(range(6)).to_parquet(folder / "train.parquet")
    rows.select(range(6, 8)).to_parquet(folder / "validation.parquet")
    (folder / "id2label.json").write_text(json.dumps(ID2LABEL))
    return folder


def tiny_overrides(dataset, output, steps=2):
    return [
        "--dataset_name", dataset, "--output_dir", output, "--max_steps", steps, "--streets_scenes", 0,
        "--crop_size", 32, 48, "--per_device_train_batch_size", 2, "--dataloader_num_workers", 0,
        "--disable_tqdm", "true",
    ]  # fmt: skip


def train(recipe, *arguments, **options):
    command = [sys.executable, str(ROOT / "training" / "train.py"), str(recipe), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def finish(process):
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


def test_a_recipe_s_shorter_edge_is_that_of_its_processor_in_evaluation_and_afterwards(streets_folder, tmp_path):
    recipe = ROOT / "training" / "recipes" / "camvid-fcn-8s-refine.yaml"
    start = ["--model_name_or_path", ROOT / "space" / "models" / "street" / "fcn-8s"]
    edges = ["--shortest_edge", 96, "--longest_edge", 200, "--eval_strategy", "no"]
    finish(train(recipe, *tiny_overrides(streets_folder, tmp_path, steps=1), *start, *edges))
    processor = FCNImageProcessor.from_pretrained(tmp_path)
    assert processor.do_resize and dict(processor.size) == {"shortest_edge": 96, "longest_edge": 200}
    rows = streets_dataset(1, height=48, width=64, cache_dir=tmp_path / "cache")
    assert processor(rows[0]["image"], return_tensors="pt")["pixel_values"].shape[-2:] == (96, 128)
    augment = training_augmentation(AugmentationArguments([32, 48], shortest_edge=96))
    example = SegmentationDataset(rows, ("image", "label"), processor, augment)[0]
    assert example["pixel_values"].shape[-2:] == example["labels"].shape == (32, 48)


def test_kill_9_and_resume_end_in_the_weights_of_an_uninterrupted_run(streets_folder, tmp_path):
    recipe = ROOT / "training" / "recipes" / "camvid-fcn-32s.yaml"
    small = ["--hidden_sizes", 4, 4, 8, 8, 8, "--hidden_size", 8, "--save_steps", 3, "--logging_steps", 1]
    small += ["--eval_strategy", "no", "--dataloader_num_workers", 1]

    def arguments(name):
        return [*tiny_overrides(streets_folder, tmp_path / name, steps=10), *small]

    straight = train(recipe, *arguments("straight"))
    killed = train(recipe, *arguments("killed"), start_new_session=True)
    deadline = time.monotonic() + 200
    while last_complete_checkpoint(tmp_path / "killed") is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert last_complete_checkpoint(tmp_path / "killed") is not None
    assert not (tmp_path / "killed" / "model.safetensors").exists(), "it was killed too late to show anything"
    finish(train(recipe, *arguments("killed"), "--resume_from_checkpoint", "true"))
    finish(straight)
    expected = load_file(tmp_path / "straight" / "model.safetensors")
    resumed = load_file(tmp_path / "killed" / "model.safetensors")
    assert expected.keys() == resumed.keys()
    for name, tensor in expected.items():
        assert torch.equal(resumed[name], tensor), name


def test_a_finished_run_is_not_trained_further(tmp_path):
    checkpoint = Checkpoint(tmp_path, step=10, max_steps=10, parts=())
    assert checkpoint.is_last(max_steps=10) and checkpoint.is_last(max_steps=-1)
    assert not checkpoint.is_last(max_steps=12)


def test_every_stage_of_the_camvid_recipe_runs_in_one_command_and_leaves_a_complete_folder(streets_folder, tmp_path):
    staged = ROOT / "training" / "recipes" / "camvid-staged.yaml"
    stages = [Path(name).stem for name in yaml.safe_load(staged.read_text())["stages"]]
    assert set(stages) == {path.stem for path in RECIPES if path.name.startswith("camvid-fcn")}
    text = finish(train(staged, *tiny_overrides(streets_folder, tmp_path), "--example_pictures", 1))
    assert text.count("mean IoU on validation") == len(stages)
    strides, start = [], None
    for stage in stages:
        output = tmp_path / stage
        names = {path.name for path in output.iterdir()}
        assert {"model.safetensors", "config.json", "preprocessor_config.json", "README.md", "modeling_fcn.py"} <= names
        assert {"training_log.json", "curve.png", "examples.png"} <= names
        card = (output / "README.md").read_text()
        assert "research use only" in card and "fcn-hf evaluate" in card and "model-index" in card
        assert "(curve.png)" in card and "(examples.png)" in card
        assert f"weights of `{start}`" in card if start else "random weights" in card
        assert load_file(output / "model.safetensors")["fcn.trunk.classifier.fc6.weight"].dtype == torch.float16
        config = json.loads((output / "config.json").read_text())
        assert config["dtype"] == "float32"
        strides.append(config["prediction_stride"])
        start = output
    assert strides == [32, 16, 8, 8, 8, 8, 16, 32]


def test_the_modern_recipe_goes_on_from_a_classifier_with_batch_normalisation(tiny, streets_folder, tmp_path):
    FCNForSemanticSegmentation(tiny(num_labels=11, use_batch_norm=True).config).save_pretrained(tmp_path / "start")
    recipe = ROOT / "training" / "recipes" / "modern-fcn-8s.yaml"
    start = ["--model_name_or_path", tmp_path / "start"]
    overrides = tiny_overrides(streets_folder, tmp_path / "out")
    finish(train(recipe, *overrides, *start, "--warmup_steps", 0, "--eval_steps", 1))
    log = json.loads((tmp_path / "out" / "training_log.json").read_text())
    assert [entry["step"] for entry in log if "eval_mean_iou" in entry] == [1, 2]
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("start", "out"))
    first = "fcn.trunk.stages.0.conv1_1.weight"
    assert not torch.equal(before[first], after[first])


def test_a_recipe_s_teacher_is_learnt_from(tiny, streets_folder, tmp_path):
    folders = [tmp_path / name for name in ("start", "teacher")]
    for folder in folders:
        FCNForSemanticSegmentation(tiny(num_labels=11).config).save_pretrained(folder)
        FCNImageProcessor(num_labels=11).save_pretrained(folder)
    config = json.loads((folders[1] / "config.json").read_text()) | {"id2label": ID2LABEL, "label2id": None}
    (folders[1] / "config.json").write_text(json.dumps(config))
    losses = []
    for teacher in ([], ["--teacher_model_name_or_path", folders[1]]):
        overrides = [*tiny_overrides(streets_folder, tmp_path / "out", steps=1), "--model_name_or_path", folders[0]]
        overrides += ["--logging_steps", 1, "--eval_strategy", "no", *teacher]
        main([str(ROOT / "training" / "recipes" / "modern-fcn-8s.yaml"), *map(str, overrides)])
        losses.append(json.loads((tmp_path / "out" / "training_log.json").read_text())[0]["loss"])
    # The cross-entropy with what an untaught net says of 11 classes is at least its entropy, some 2.4.
    assert losses[1] > losses[0] + 1


@pytest.mark.parametrize("recipe", [path for path in RECIPES if path.name.startswith("voc-")], ids=lambda p: p.stem)
def test_the_release_s_recipes_train_whole_pictures_one_by_one(tiny, streets_folder, tmp_path, recipe):
    start = tmp_path / "start"
    FCNForSemanticSegmentation(tiny(num_labels=11).config).save_pretrained(start)
    FCNImageProcessor(image_mean=[0.5] * 3, image_std=[1 / 255] * 3).save_pretrained(start)
    overrides = ["--dataset_name", streets_folder, "--output_dir", tmp_path / "out", "--model_name_or_path", start]
    # The release's learning rates move nothing that can be seen in two steps.
    overrides += ["--max_steps", 2, "--dataloader_num_workers", 0, "--learning_rate", 1e-6]
    main([str(recipe), *map(str, overrides)])
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["geometry"] == "caffe" and config["upsampling"] == "bilinear"
    at_once = "atonce" in recipe.stem
    assert config["skip_scales"] == ([0.01, 0.0001] if at_once else [1.0, 1.0])
    # The weights that it starts from want their own mean and scale.
    assert list(FCNImageProcessor.from_pretrained(tmp_path / "out").image_mean) == [0.5] * 3
    before, after = load_file(start / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    fc6 = "fcn.trunk.classifier.fc6.weight"
    assert not torch.equal(before[fc6], after[fc6])
    stride = config["prediction_stride"]
    assert torch.equal(after[f"heads.semantic.upscore{stride}.weight"][0, 0], bilinear_kernel(stride))


def test_a_run_that_diverges_ends_with_the_step_and_leaves_no_model(streets_folder, tmp_path):
    recipe = ROOT / "training" / "recipes" / "camvid-fcn-32s.yaml"
    overrides = tiny_overrides(streets_folder, tmp_path / "out") + ["--learning_rate", 1e30, "--max_steps", 6]
    with pytest.raises(FCNError, match=r"The loss is (nan|inf) at step \d.*learning_rate \(it is 1e\+30\)"):
        main([str(recipe), *map(str, overrides)])
    assert not (tmp_path / "out" / "model.safetensors").exists() and not (tmp_path / "out" / "README.md").exists()


def test_a_run_takes_the_place_of_nothing_but_a_run_s(tmp_path):
    """Said before any work; where a run was cut off, the repeat goes on."""

    def check(folder, **settings):
        check_output(read_recipe({"dataset_name": "x", "output_dir": str(folder), **settings}, []))

    check(tmp_path / "new")
    (tmp_path / "file").touch()
    with pytest.raises(FCNError, match="file is a file, but files are to be written into a folder"):
        check(tmp_path / "file")
    start = save_tiny(tmp_path / "start")
    with pytest.raises(FCNError, match="config.json was written by no run and would be replaced"):
        check(start)
    with pytest.raises(FCNError, match="whose weights the run starts from and would replace"):
        check(start, model_name_or_path=f"{start}/.")
    for name in ("config.json", "README.md", "model.safetensors", "curve.png"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text("my own")
        with pytest.raises(FCNError, match=f"{name} was written by no run and would be replaced"):
            check(folder)
        (folder / "training_log.json").write_text("[]")
        check(folder)


def test_weights_that_are_not_finite_are_not_stored(tiny, tmp_path):
    model = tiny()
    model.heads["semantic"].score_fr.bias.data[0] = float("nan")
    trainer = FCNTrainer(model, args=TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"))
    with pytest.raises(FCNError, match="heads.semantic.score_fr.bias of the trained model aren't all finite"):
        save_trained(SimpleNamespace(folder=tmp_path / "out"), trainer, model)
    assert not (tmp_path / "out").exists()


def test_an_earlier_run_s_card_does_not_speak_for_other_weights(tiny, tmp_path):
    """Scoring, after which there is a card again, takes its time and may fail."""
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    trainer = FCNTrainer(tiny(), args=arguments, processing_class=FCNImageProcessor(num_labels=5))
    (tmp_path / "README.md").write_text("mean IoU 100")
    save_trained(SimpleNamespace(folder=tmp_path, model=SimpleNamespace(weights_dtype="float32")), trainer, tiny())
    assert (tmp_path / "model.safetensors").exists() and not (tmp_path / "README.md").exists()
    # By its log, a repeat knows whose weights these are.
    assert (tmp_path / "training_log.json").exists()


def test_pictures_that_make_no_step_are_told(streets_folder, tmp_path):
    recipe = ROOT / "training" / "recipes" / "camvid-fcn-32s.yaml"
    overrides = tiny_overrides(streets_folder, tmp_path / "out") + ["--dataloader_drop_last", "true"]
    overrides += ["--per_device_train_batch_size", 1000]
    with pytest.raises(FCNError, match=r"\d+ pictures don't fill one batch of 1000, and dataloader_drop_last"):
        main([str(recipe), *map(str, overrides)])
    assert not (tmp_path / "out" / "model.safetensors").exists()


BACKBONES = {
    "resnet": {
        "model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1],
        "layer_type": "basic", "out_features": ["stage2", "stage3", "stage4"],
    },
    "timm": {"model_type": "timm_backbone", "backbone": "test_resnet", "out_indices": [-3, -2, -1]},
}  # fmt: skip


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=list(BACKBONES))
def test_any_backbone_is_trained_from_a_recipe_or_the_command_line(streets_folder, tmp_path, backbone):
    settings = {"backbone": "auto", "crop_size": [32, 48], "max_steps": 2, "use_cpu": True, "save_strategy": "no"}
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "whole.yaml").write_text(yaml.safe_dump({"base": "plain.yaml", "backbone_config": backbone}))
    arguments = {"whole": [], "plain": ["--backbone_config", json.dumps(backbone)]}
    for name, more in arguments.items():
        data = ["--dataset_name", str(streets_folder), "--output_dir", str(tmp_path / name)]
        main([str(tmp_path / f"{name}.yaml"), *data, *more, "--seed", "0"])
    first, second = (FCNForSemanticSegmentation.from_pretrained(tmp_path / name).eval() for name in arguments)
    assert first.config.backbone_config.to_dict() == second.config.backbone_config.to_dict()
    assert first.config.backbone_config.model_type == backbone["model_type"]
    rows, processor = load_splits(str(streets_folder))["validation"], FCNImageProcessor.from_pretrained(tmp_path / name)
    scores = evaluate_split(first, processor, rows, ("image", "label"))
    assert evaluate_split(second, processor, rows, ("image", "label")) == scores
    assert f"| mean IoU | {100 * scores['mean_iou']:.2f} |" in (tmp_path / "whole" / "README.md").read_text()
    first.save_pretrained(tmp_path / "again")
    again = FCNForSemanticSegmentation.from_pretrained(tmp_path / "again").eval()
    assert evaluate_split(again, processor, rows, ("image", "label")) == scores
    pixel_values = torch.randn(1, 3, 40, 50)
    torch.save((pixel_values, first(pixel_values).logits.detach()), tmp_path / "expected.pt")
    script = """
import sys, torch
from transformers import AutoModelForSemanticSegmentation
pixel_values, logits = torch.load(sys.argv[2])
model = AutoModelForSemanticSegmentation.from_pretrained(sys.argv[1], trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules")
assert torch.equal(model(pixel_values).logits, logits)
"""
    run_without_the_package(script, tmp_path / "whole", tmp_path / "expected.pt", folder=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.yaml"], "There is no recipe 'nowhere.yaml'"),
        ([], "usage:"),
        ([str(RECIPES[0]), "--dataset_name", "nowhere"], "dataset 'nowhere' can't be loaded"),
    ],
)
def test_a_wrong_command_gets_one_sentence(monkeypatch, arguments, message):
    with pytest.raises((SystemExit, DatasetError), match=message):
        main(arguments)
