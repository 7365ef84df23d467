"""Training with several processes: the same recipe gives the same losses and scores as with one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file

from fcn_hf import FCNForSemanticSegmentation, FCNImageProcessor
from fcn_hf.datasets import load_splits
from fcn_hf.evaluation import evaluate_split
from training.streets import streets_dataset

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "training" / "recipes" / "camvid-fcn-32s.yaml"


@pytest.fixture(scope="module")
def streets_folder(tmp_path_factory):
    """8 drawn scenes to train on in two files, 3 to evaluate with: one process gets two of them, the other one."""
    folder = tmp_path_factory.mktemp("streets")
    rows = streets_dataset(11, height=48, width=64, cache_dir=tmp_path_factory.mktemp("cache"))
    rows.select(range(4)).to_parquet(folder / "train-0.parquet")
    rows.select(range(4, 8)).to_parquet(folder / "train-1.parquet")
    rows.select(range(8, 11)).to_parquet(folder / "validation.parquet")
    return folder


def torchrun(port):
    return [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}"]


def fsdp_variables():
    """What `accelerate launch --config_file training/fsdp.yaml` sets, with units small enough for a tiny net."""
    config = yaml.safe_load((ROOT / "training" / "fsdp.yaml").read_text())["fsdp_config"]
    variables = {name.upper(): str(value) for name, value in config.items()}
    return {**variables, "ACCELERATE_USE_FSDP": "true", "FSDP_MIN_NUM_PARAMS": "100"}


def start(launcher, recipe, *arguments, script=ROOT / "training" / "train.py", **variables):
    # Two processes with as many threads each as there are cores would wait for one another.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    command = [*launcher, str(script), str(recipe), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def settings(folder, output):
    return [
        "--dataset_name", folder, "--output_dir", output, "--streets_scenes", 0, "--crop_size", 32, 48,
        "--hidden_sizes", 4, 4, 8, 8, 8, "--hidden_size", 8, "--use_batch_norm", "false", "--hidden_dropout_prob", 0,
        "--max_steps", 4, "--eval_steps", 2, "--save_steps", 4, "--logging_steps", 1, "--dataloader_num_workers", 0,
        "--warmup_steps", 0, "--bf16", "false", "--weights_dtype", "float32", "--disable_tqdm", "true",
        "--report_to", "tensorboard", "--example_pictures", 1,
    ]  # fmt: skip


def test_two_processes_give_the_losses_weights_and_scores_of_one(streets_folder, tmp_path):
    # The same batches of 4: whole, in two halves, in two halves of two accumulated parts, and by a model in two shards.
    kinds = {
        "one": ([sys.executable], 4, 1, {}),
        "two": (torchrun(29611), 2, 1, {}),
        "parts": (torchrun(29612), 1, 2, {}),
        "shards": (torchrun(29613), 2, 1, {"script": Path(__file__).with_name("fsdp_on_cpu.py"), **fsdp_variables()}),
    }
    runs = {}
    for name, (launcher, batch, parts, options) in kinds.items():
        sizes = ["--per_device_train_batch_size", batch, "--gradient_accumulation_steps", parts]
        runs[name] = start(launcher, RECIPE, *settings(streets_folder, tmp_path / name), *sizes, **options)
    outputs = {name: finish(process) for name, process in runs.items()}
    logs = {name: json.loads((tmp_path / name / "training_log.json").read_text()) for name in runs}
    losses = {name: [entry["loss"] for entry in log if "loss" in entry] for name, log in logs.items()}
    assert len(losses["one"]) == 4 and len(set(losses["one"])) == 4
    weights = {name: load_file(tmp_path / name / "model.safetensors") for name in runs}
    validation = load_splits(str(streets_folder))["validation"]
    for name in ("two", "parts", "shards"):
        np.testing.assert_allclose(losses[name], losses["one"], rtol=1e-4)
        for key, tensor in weights["one"].items():
            np.testing.assert_allclose(weights[name][key], tensor, atol=2e-4, err_msg=key)
        # Counts of three pictures in parts of two and one are those of one process that sees all three.
        model = FCNForSemanticSegmentation.from_pretrained(tmp_path / name).eval()
        expected = evaluate_split(
            model, FCNImageProcessor.from_pretrained(tmp_path / name), validation, ("image", "label")
        )
        last = [entry for entry in logs[name] if "eval_mean_iou" in entry][-1]
        assert last["eval_mean_iou"] == expected["mean_iou"]
        assert last["eval_pixel_accuracy"] == expected["pixel_accuracy"]
        assert outputs[name].count("mean IoU on validation") == 1
        assert f"{expected['mean_iou']:.4f}" in outputs[name]


def test_two_processes_read_a_stream_in_parts_and_resume(streets_folder, tmp_path):
    arguments = [*settings(streets_folder, tmp_path), "--streaming", "true", "--per_device_train_batch_size", 2]
    finish(start(torchrun(29614), RECIPE, *arguments, "--dataloader_num_workers", 1))
    before = load_file(tmp_path / "model.safetensors")
    more = ["--max_steps", 6, "--resume_from_checkpoint", "true"]
    finish(start(torchrun(29614), RECIPE, *arguments, "--dataloader_num_workers", 1, *more))
    log = json.loads((tmp_path / "training_log.json").read_text())
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2, 3, 4, 5, 6]
    assert any(
        not np.array_equal(tensor, before[name]) for name, tensor in load_file(tmp_path / "model.safetensors").items()
    )
