"""Training from a recipe: what is drawn, weighed, saved, resumed and said."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.nn import functional as F
from torchvision import tv_tensors
from transformers import TrainingArguments

from fcn_hf import FCNForSemanticSegmentation, FCNImageProcessor
from fcn_hf.datasets import DatasetError, load_splits
from fcn_hf.evaluation import evaluate_split
from fcn_hf.upsampling_fcn import bilinear_kernel
from tests.helpers import layers
from training.augmentation import (
    AugmentationArguments,
    ClassBalancedCrop,
    PatchSampling,
    RandomScale,
    training_augmentation,
)
from training.data import ScoredRows, median_frequency_weights
from training.ema import EMACallback
from training.examples import Collator, SegmentationDataset
from training.labels import LabelIds
from training.losses import LossArguments, SegmentationLoss
from training.model import ModelArguments, build_model
from training.scan import scan_split
from training.streets import ID2LABEL, streets_dataset
from training.train import is_finished, main
from training.trainer import FCNTrainer, OptimizerArguments, last_complete_checkpoint

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


def test_augmentation_moves_picture_and_mask_together():
    # The red channel holds the class id, so wherever the two part company it shows.
    label = torch.arange(6).repeat_interleave(10)[None, :].repeat(40, 1)
    picture = torch.stack([label * 40] * 3).to(torch.uint8)
    augment = training_augmentation(
        AugmentationArguments([32, 48], scale=[0.7, 1.4], brightness=0, contrast=0, saturation=0)
    )
    padded = mirrored = 0
    for seed in range(20):
        torch.manual_seed(seed)
        image, mask = augment(tv_tensors.Image(picture), tv_tensors.Mask(label))
        assert image.shape == (3, 32, 48) and mask.shape == (32, 48)
        inside = mask != 255
        difference = (image[0].float() / 40 - mask)[inside].abs()
        # Bilinear and nearest may differ by one class on the seam between two, nowhere else.
        assert difference.max() <= 1 and (difference < 0.5).float().mean() > 0.9
        assert (image[:, ~inside] == 127).all()
        padded += bool((~inside).any())
        mirrored += bool(mask[inside][0] > mask[inside][-1])
    assert padded and 0 < mirrored < 20


def test_a_scale_of_one_gives_the_shorter_edge_that_the_recipe_asks_for():
    picture, mask = tv_tensors.Image(torch.zeros(3, 40, 60, dtype=torch.uint8)), tv_tensors.Mask(torch.zeros(40, 60))
    image, mask = RandomScale((1.0, 1.0), shortest_edge=80)(picture, mask)
    assert image.shape == (3, 80, 120) and mask.shape == (80, 120)


def test_balanced_crops_contain_the_rare_class():
    label = torch.zeros(60, 90, dtype=torch.uint8)
    label[57, 3] = 7
    for size, probability, least in (([20, 30], 1.0, 30), ([20, 30], 0.0, 0), ([70, 30], 1.0, 30)):
        crop = ClassBalancedCrop(size, probability, ignore_index=255, fill={tv_tensors.Mask: 255, "others": 0})
        torch.manual_seed(0)
        crops = [crop(tv_tensors.Mask(label)) for _ in range(100)]
        assert all(list(mask.shape) == size for mask in crops)
        found = sum(bool((mask == 7).any()) for mask in crops)
        # One of the two classes is drawn, so about every other crop is laid around the pixel.
        assert least <= found < 90, (size, probability)


def test_every_augmentation_leaves_ids_that_were_there_and_the_asked_for_size():
    arguments = AugmentationArguments(
        [40, 56], rotation=20, class_balanced_crops=0.5, hue=0.2, blur=1.0, erasing=1.0, scale=[0.4, 2.0]
    )
    augment, label = training_augmentation(arguments), torch.randint(0, 5, (50, 70))
    picture = torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8)
    for seed in range(10):
        torch.manual_seed(seed)
        image, mask = augment(tv_tensors.Image(picture), tv_tensors.Mask(label))
        assert image.shape == (3, 40, 56) and image.dtype == torch.uint8 and mask.shape == (40, 56)
        assert set(mask.unique().tolist()) <= {0, 1, 2, 3, 4, 255}


def test_patch_sampling_keeps_labels_in_its_share_of_whole_patches_and_leaves_pictures_alone():
    sample = PatchSampling(0.25, ignore_index=255)
    picture, label = tv_tensors.Image(torch.ones(3, 100, 330)), tv_tensors.Mask(torch.ones(100, 330, dtype=torch.uint8))
    torch.manual_seed(0)
    shares = []
    for _ in range(40):
        image, mask = sample(picture, label)
        assert torch.equal(image, picture)
        for y in range(0, 100, 32):
            for x in range(0, 330, 32):
                assert len(mask[y : y + 32, x : x + 32].unique()) == 1
        shares.append(float((mask == 1).float().mean()))
    assert abs(np.mean(shares) - 0.25) < 0.03 and len(set(shares)) > 30
    steps = [type(step) for step in training_augmentation(AugmentationArguments(patch_sampling=0.25)).transforms]
    assert steps[-1] is PatchSampling and PatchSampling not in map(
        type, training_augmentation(AugmentationArguments()).transforms
    )
    with pytest.raises(DatasetError, match="patch_sampling=1.5 must be a share"):
        AugmentationArguments(patch_sampling=1.5)


def test_a_recipe_s_shorter_edge_is_that_of_its_processor_in_evaluation_and_afterwards(streets_folder, tmp_path):
    recipe = ROOT / "training" / "recipes" / "camvid-fcn-8s-refine.yaml"
    start = ["--model_name_or_path", ROOT / "space" / "models" / "fcn-8s"]
    edges = ["--shortest_edge", 96, "--longest_edge", 200, "--eval_strategy", "no"]
    finish(train(recipe, *tiny_overrides(streets_folder, tmp_path, steps=1), *start, *edges))
    processor = FCNImageProcessor.from_pretrained(tmp_path)
    assert processor.do_resize and dict(processor.size) == {"shortest_edge": 96, "longest_edge": 200}
    rows = streets_dataset(1, height=48, width=64, cache_dir=tmp_path / "cache")
    assert processor(rows[0]["image"], return_tensors="pt")["pixel_values"].shape[-2:] == (96, 128)
    augment = training_augmentation(AugmentationArguments([32, 48], shortest_edge=96))
    example = SegmentationDataset(rows, ("image", "label"), processor, augment)[0]
    assert example["pixel_values"].shape[-2:] == example["labels"].shape == (32, 48)


def test_examples_depend_on_seed_epoch_and_index_alone(streets_folder):
    rows = load_splits(str(streets_folder))["train"]
    augment, processor = training_augmentation(AugmentationArguments([32, 48])), FCNImageProcessor(num_labels=11)

    def example(seed, epoch, index):
        dataset = SegmentationDataset(rows, ("image", "label"), processor, augment, seed)
        dataset.set_epoch(epoch)
        return dataset[index]["pixel_values"]

    first = example(0, 0, 1)
    torch.manual_seed(99)
    assert torch.equal(example(0, 0, 1), first)
    assert not torch.equal(example(0, 1, 1), first) and not torch.equal(example(1, 0, 1), first)


def test_class_weights_are_the_root_of_median_frequency_clipped():
    counts = np.array([800, 100, 50, 50, 0])
    weights = median_frequency_weights(counts, power=0.5, maximum=1.2)
    # Frequencies 0.8, 0.1, 0.05, 0.05; their median is 0.075.
    torch.testing.assert_close(weights, torch.tensor([(0.075 / 0.8) ** 0.5, (0.075 / 0.1) ** 0.5, 1.2, 1.2, 1.0]))


def test_labels_out_of_range_are_named_by_row(streets_folder):
    rows = load_splits(str(streets_folder))["train"]
    with pytest.raises(DatasetError, match=r"Row 0 of 'train': label ids \[.*\] and 3 more are outside 0\.\.2"):
        scan_split(rows, "train", ("image", "label"), LabelIds(), num_labels=3)


def test_collator_pads_pictures_with_zero_and_labels_with_the_ignored_id():
    examples = [
        {"pixel_values": torch.ones(3, h, w), "labels": torch.ones(h, w, dtype=torch.long)} for h, w in [(4, 6), (5, 3)]
    ]
    batch = Collator(ignore_index=255)(examples)
    assert batch["pixel_values"].shape == (2, 3, 5, 6) and batch["labels"].shape == (2, 5, 6)
    assert (batch["labels"][1, :, 3:] == 255).all() and batch["pixel_values"][1, :, :, 3:].sum() == 0


def test_gradient_accumulation_gives_the_gradient_of_the_whole_batch(tiny, tmp_path):
    """Two micro-batches of 384 and 2 labelled pixels: a mean of means would weigh the two 192 times too much."""
    torch.manual_seed(0)
    pixel_values, labels = torch.randn(2, 3, 16, 24), torch.randint(0, 5, (2, 16, 24))
    labels[1] = 255
    labels[1, 0, :2] = torch.tensor([3, 4])
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5])
    model = tiny(hidden_dropout_prob=0.0).train()
    F.cross_entropy(model(pixel_values).logits, labels, weight=weights, ignore_index=255).backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    examples = [{"pixel_values": pixel_values[i], "labels": labels[i]} for i in range(2)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=1, gradient_accumulation_steps=2, max_steps=1,
        learning_rate=1.0, optim="sgd", lr_scheduler_type="constant", max_grad_norm=0, weight_decay=0, use_cpu=True,
        remove_unused_columns=False, report_to="none", save_strategy="no", disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    loss = SegmentationLoss(LossArguments(), weights)
    trainer = FCNTrainer(
        model=model, args=arguments, train_dataset=examples, data_collator=Collator(), segmentation_loss=loss
    )
    model.zero_grad()
    trainer.train()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(before[name] - parameter.detach(), expected[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("decay", [None, 0.5])
def test_evaluation_gives_the_scores_of_fcn_hf_evaluate_of_the_weights_that_will_be_kept(tiny, tmp_path, decay):
    rows = streets_dataset(3, height=48, width=64, cache_dir=tmp_path / "cache")
    scored = ScoredRows(rows, ("image", "label"), LabelIds(), "validation")
    # Resized to less than the masks' size: scores at the processor's size would differ.
    processor = FCNImageProcessor(num_labels=11, do_resize=True, size={"shortest_edge": 32})
    model = tiny(num_labels=11, hidden_dropout_prob=0.5)
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=3, eval_strategy="steps", eval_steps=1, learning_rate=0.3, optim="sgd",
        lr_scheduler_type="constant", per_device_train_batch_size=2, use_cpu=True, remove_unused_columns=False,
        report_to="none", save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    augment = training_augmentation(AugmentationArguments([32, 48]))
    trainer = FCNTrainer(
        model=model, args=arguments, train_dataset=SegmentationDataset(rows, scored.columns, processor, augment),
        eval_dataset=scored, processing_class=processor, data_collator=Collator(),
        ema=None if decay is None else EMACallback(decay),
    )  # fmt: skip
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "eval_mean_iou" in entry]
    assert [entry["step"] for entry in entries] == [1, 2, 3]
    expected = evaluate_split(model.eval(), processor, rows, scored.columns)
    for name in ("mean_iou", "mean_accuracy", "pixel_accuracy", "frequency_weighted_iou"):
        assert entries[-1][f"eval_{name}"] == expected[name]
    assert len({entry["eval_pixel_accuracy"] for entry in entries}) > 1
    seconds = [entry["seconds"] for entry in trainer.state.log_history]
    assert seconds == sorted(seconds) and seconds[-1] > 0
    assert [entry["pictures"] for entry in entries] == [2, 4, 6]


def test_a_checkpoint_cut_off_while_it_was_written_is_passed_over(tmp_path):
    for step, state in [(9, "{}"), (10, "{}"), (11, '{"global_st'), (12, None)]:
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state is not None:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert last_complete_checkpoint(tmp_path / "checkpoint-9") is None
    (tmp_path / "checkpoint-9" / "ema.pt").touch()
    assert last_complete_checkpoint(tmp_path, "ema.pt") == str(tmp_path / "checkpoint-9")


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
    (tmp_path / "trainer_state.json").write_text(json.dumps({"global_step": 10, "max_steps": 10}))
    assert is_finished(str(tmp_path), max_steps=10) and is_finished(str(tmp_path), max_steps=-1)
    assert not is_finished(str(tmp_path), max_steps=12)


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
        assert load_file(output / "model.safetensors")["fc6.weight"].dtype == torch.float16
        config = json.loads((output / "config.json").read_text())
        assert config["dtype"] == "float32"
        strides.append(config["prediction_stride"])
        start = output
    assert strides == [32, 16, 8, 8, 8, 8, 16, 32]


def test_a_start_with_other_classes_gives_its_trunk_and_says_that_scores_begin_anew(tiny, tmp_path, capsys):
    start = tiny(num_labels=5)
    start.save_pretrained(tmp_path)
    arguments = ModelArguments(str(tmp_path), prediction_stride=8)
    for count, said in ((5, ""), (3, "knows 5 classes and the dataset 3")):
        model = build_model(arguments, {index: f"class {index}" for index in range(count)})
        assert said in capsys.readouterr().out
        assert torch.equal(layers(model)["fc6"].weight, layers(start)["fc6"].weight)
        head, start_head = model.heads["semantic"], start.heads["semantic"]
        assert head.score_fr.weight.shape[0] == count and model.config.num_labels == count
        assert count != 5 or torch.equal(head.score_fr.weight, start_head.score_fr.weight)
    assert (head.score_pool3.weight == 0).all() and torch.equal(head.upscore8.weight[2, 0], bilinear_kernel(8))
    with pytest.raises(SystemExit, match="No weights to start from at 'nowhere'"):
        build_model(ModelArguments("nowhere"), {0: "a"})


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


def test_biases_learn_twice_as_fast_and_do_not_decay(tiny, tmp_path):
    arguments = TrainingArguments(
        output_dir=str(tmp_path), optim="sgd", learning_rate=0.5, weight_decay=0.1, use_cpu=True, report_to="none"
    )
    settings = OptimizerArguments(momentum=0.9, bias_learning_rate_factor=2)
    weights, biases = (
        FCNTrainer(model=tiny(), args=arguments, optimizer_arguments=settings).create_optimizer().param_groups
    )
    assert (weights["lr"], weights["weight_decay"], weights["momentum"]) == (0.5, 0.1, 0.9)
    assert (biases["lr"], biases["weight_decay"], biases["momentum"]) == (1.0, 0.0, 0.9)
    assert {parameter.ndim for parameter in biases["params"]} == {1}
    arguments.optim = "adamw_torch"
    with pytest.raises(ValueError, match="momentum=0.9 is for optim=sgd"):
        FCNTrainer(model=tiny(), args=arguments, optimizer_arguments=settings).create_optimizer()


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
