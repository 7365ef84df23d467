"""Models and datasets on a Hub: pushed, loaded elsewhere, and what is said when that fails."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from fcn_hf import FCNConfig, FCNForSemanticSegmentation, FCNImageProcessor
from tests.helpers import run_without_the_package
from training.card import write_card
from training.recipe import read_recipe
from training.results import export_model

ROOT = Path(__file__).parents[2]
PATIENCE = 600  # seconds, for a machine that is busy with other things
KILLS = int(os.environ.get("FCN_KILLS", "1"))  # how many pushes are killed; more of them by hand
NAMES = ["sky", "road", "car"]
# An address where no server listens.
NOBODY = "http://127.0.0.1:1"
LEFT_BEHIND = (
    "checkpoint-2/model.safetensors", "checkpoint-2/optimizer.pt", ".writing-x/model.safetensors", "_scratch/a.png",
    "trainer_state.json", "training_args.bin", "ema.pt", ".gitignore",
)  # fmt: skip
# The client tries again for half a minute before it gives up, which is right everywhere but here.
IMPATIENT = "import json, sys, time; time.sleep = lambda seconds: None\n"
# Of the package, publishing needs no model; importing torch would take most of each process's time.
LIGHT = f"""
import types
package = sys.modules["fcn_hf"] = types.ModuleType("fcn_hf")
package.__path__ = [{str(ROOT / "fcn_hf")!r}]
"""
PUBLISH = """
from training.publish import PublishError, check_access, publish
try:
    print({"publish": publish, "check_access": check_access}[sys.argv[1]](**json.loads(sys.argv[2])))
except PublishError as error:
    raise SystemExit(str(error))
"""


@pytest.fixture(scope="module")
def finished_folder(tmp_path_factory):
    """What a run leaves: a model folder with a card, and checkpoints and other things beside it."""
    folder = tmp_path_factory.mktemp("run") / "fcn-8s"
    torch.manual_seed(0)
    sizes = {"hidden_sizes": (4, 4, 8, 8, 8), "depths": (1, 1, 1, 1, 1), "hidden_size": 8}
    model = FCNForSemanticSegmentation(FCNConfig(id2label=dict(enumerate(NAMES)), **sizes)).eval()
    torch.nn.init.normal_(model.heads["semantic"].score_fr.weight)
    export_model(model, FCNImageProcessor(num_labels=3), folder)
    scores = {"mean_iou": 0.5, "mean_accuracy": 0.6, "pixel_accuracy": 0.7, "frequency_weighted_iou": 0.6}
    recipe = read_recipe({"dataset_name": "org/streets", "output_dir": str(folder), "max_steps": 2}, [])
    write_card(folder, recipe, model, {**scores, "per_class_iou": dict.fromkeys(NAMES, 0.5)}, train_rows=6)
    for name in (*LEFT_BEHIND, "training_log.json", "runs/Jan01/events.out.tfevents.1", "examples/1.png"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(f"contents of {name}")
    return folder


@pytest.fixture
def folder(finished_folder, tmp_path):
    """A copy of the finished folder that a test may change."""
    return shutil.copytree(finished_folder, tmp_path / "fcn-8s")


def contents(folder):
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in files.items() if name not in LEFT_BEHIND}


def run(*arguments, environment, cwd=ROOT):
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE)


def ask(function, environment, **arguments):
    """Call a function of `training.publish` in a fresh process."""
    return run("-c", IMPATIENT + LIGHT + PUBLISH, function, json.dumps(arguments, default=str), environment=environment)


def push(environment, folder, repo_id="org/fcn-8s", **arguments):
    """The commit's URL."""
    process = ask("publish", environment, folder=folder, repo_id=repo_id, **arguments)
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def complaint(process):
    """The one sentence that a failed process ends with."""
    assert process.returncode == 1, process.stdout + process.stderr
    assert "Traceback" not in process.stderr
    return process.stderr.strip().splitlines()[-1]


def test_a_push_puts_the_folder_on_the_hub_byte_for_byte_but_nothing_that_a_run_leaves(hub, fresh_environment, folder):
    url = push(fresh_environment(), folder)
    assert hub.files("org/fcn-8s") == contents(folder)
    assert {"README.md", "config.json", "model.safetensors", "preprocessor_config.json", "modeling_fcn.py"} <= {
        *hub.files("org/fcn-8s")
    }
    first, commit = hub.commits("org/fcn-8s")
    assert not first.files and url == f"{hub.url}/org/fcn-8s/commit/{commit.oid}"


def test_a_second_push_is_one_more_commit_with_what_has_changed(hub, fresh_environment, folder):
    first = push(fresh_environment(), folder)
    large_files = len(hub.blobs)
    assert push(fresh_environment(), folder) == first and len(hub.commits("org/fcn-8s")) == 2
    (folder / "README.md").write_text("---\nlicense: mit\n---\nbetter")
    (folder / "examples" / "2.png").write_text("another")
    assert push(fresh_environment(), folder, commit_message="Better") != first
    assert hub.files("org/fcn-8s") == contents(folder)
    assert [commit.message for commit in hub.commits("org/fcn-8s")] == ["initial commit", "Upload model", "Better"]
    assert len(hub.blobs) == large_files + 1


@pytest.mark.parametrize("place", [{"lfs": 1}, {"lfs": 2}, {"commit": 1}], ids=str)
def test_a_push_that_breaks_off_leaves_the_repo_as_it_was_and_can_be_repeated(hub, fresh_environment, folder, place):
    before = {}
    for attempt in ("first", "second"):
        (folder / "model.safetensors").write_text(f"weights of the {attempt}")
        (folder / "examples" / "1.png").write_text(f"picture of the {attempt}")
        hub.breaks = dict(place)
        failed = ask("publish", fresh_environment(), folder=folder, repo_id="org/fcn-8s")
        assert "'org/fcn-8s'" in complaint(failed) and "repeat" in complaint(failed)
        assert hub.files("org/fcn-8s") == before
        hub.breaks = {}
        push(fresh_environment(), folder)
        before = hub.files("org/fcn-8s")
        assert before == contents(folder)
    assert len(hub.commits("org/fcn-8s")) == 3


def test_a_push_whose_answer_is_lost_is_not_made_twice(hub, fresh_environment, folder):
    hub.breaks = {"answer": 1}
    assert "repeat" in complaint(ask("publish", fresh_environment(), folder=folder, repo_id="org/fcn-8s"))
    hub.breaks = {}
    assert push(fresh_environment(), folder).endswith(hub.commits("org/fcn-8s")[-1].oid)
    assert len(hub.commits("org/fcn-8s")) == 2


def test_kill_9_while_pushing_leaves_the_repo_as_it_was_or_complete_and_the_repeat_ends_in_the_same_state(
    hub, fresh_environment, folder
):
    for number in range(KILLS):
        (folder / "examples" / "1.png").write_text(f"picture {number}")
        (folder / "model.safetensors").write_text(f"weights {number}")
        before, blobs = hub.files("org/fcn-8s") if number else {}, len(hub.blobs)
        arguments = json.dumps({"folder": str(folder), "repo_id": "org/fcn-8s"})
        command = [sys.executable, "-c", IMPATIENT + LIGHT + PUBLISH, "publish", arguments]
        process = subprocess.Popen(command, env=fresh_environment(), cwd=ROOT, stdout=subprocess.DEVNULL)
        # Until the first large file is there nearly all of the time goes into imports.
        while len(hub.blobs) == blobs and process.poll() is None:
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.2))
        process.kill()
        process.wait()
        if ("models", "org/fcn-8s") in hub.repos:
            assert hub.files("org/fcn-8s") in (before, contents(folder))
        push(fresh_environment(), folder)
        assert hub.files("org/fcn-8s") == contents(folder)
        assert len(hub.commits("org/fcn-8s")) == 2 + number


def test_a_push_to_a_branch_leaves_main_alone(hub, fresh_environment, folder):
    push(fresh_environment(), folder, revision="v2")
    assert hub.files("org/fcn-8s") == {} and hub.files("org/fcn-8s", branch="v2") == contents(folder)


def test_access_is_checked_without_a_commit_and_a_short_name_is_completed(hub, fresh_environment):
    asked = ask("check_access", fresh_environment(HF_TOKEN=None), repo_id="fcn-8s", private=True, token=hub.token)
    assert asked.stdout.strip() == "tester/fcn-8s", asked.stderr
    assert hub.repos["models", "tester/fcn-8s"].private and len(hub.commits("tester/fcn-8s")) == 1


@pytest.mark.parametrize(
    ("changes", "arguments", "words"),
    [
        ({"HF_TOKEN": "hf_wrong"}, {}, ["the token of HF_TOKEN", "hf auth login", "--hub_token"]),
        ({"HF_TOKEN": None}, {"token": "hf_wrong"}, ["the token of --hub_token", "hf auth login", "HF_TOKEN"]),
        ({"HF_TOKEN": None}, {}, ["no token", "hf auth login", "HF_TOKEN", "--hub_token"]),
        ({"HF_ENDPOINT": NOBODY}, {}, ["refused", "HF_ENDPOINT"]),
        ({"HF_HUB_OFFLINE": "1"}, {}, ["HF_HUB_OFFLINE"]),
        ({}, {"repo_id": "strangers/fcn-8s"}, ["'strangers/fcn-8s'", "may not write", "namespace"]),
        ({}, {"repo_id": "strangers/fcn-32s"}, ["'strangers/fcn-32s'", "may not write", "namespace"]),
        ({}, {"repo_id": "a b"}, ["'a b'", "alphanumeric"]),
        ({}, {"repo_id": "org/public", "private": True}, ["'org/public'", "is public", "settings"]),
    ],
    ids=str,
)
def test_who_is_not_let_in_learns_why_and_what_to_do(hub, fresh_environment, changes, arguments, words):
    for repo_id in ("strangers/fcn-32s", "org/public"):
        hub.add_repo(repo_id)
    sentence = complaint(ask("check_access", fresh_environment(**changes), **{"repo_id": "org/fcn-8s", **arguments}))
    assert all(word in sentence for word in words), sentence
    assert not any(len(repo.branches["main"]) > 1 for repo in hub.repos.values())


def test_a_folder_without_a_model_is_not_published(hub, fresh_environment, tmp_path):
    failed = ask("publish", fresh_environment(), folder=tmp_path, repo_id="org/fcn-8s")
    assert f"{str(tmp_path)!r}: it has no config.json" in complaint(failed) and not hub.repos


def test_training_that_could_not_be_pushed_does_not_begin(fresh_environment, tmp_path):
    recipe = ROOT / "training" / "recipes" / "camvid-fcn-32s.yaml"
    arguments = ["--dataset_name", "org/nowhere", "--output_dir", tmp_path / "out", "--push_to_hub", "true"]
    failed = run(ROOT / "training" / "train.py", recipe, *arguments, environment=fresh_environment(HF_TOKEN=None))
    assert "Can't publish to 'out': there is no token" in complaint(failed)


ELSEWHERE = """
import sys, torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, pipeline
model = AutoModelForSemanticSegmentation.from_pretrained("org/fcn-8s", trust_remote_code=True)
processor = AutoImageProcessor.from_pretrained("org/fcn-8s", trust_remote_code=True)
picture = Image.open(sys.argv[1])
with torch.inference_mode():
    assert torch.equal(model(**processor(picture, return_tensors="pt")).logits, torch.load(sys.argv[2]))
segments = pipeline("image-segmentation", model="org/fcn-8s", trust_remote_code=True)(picture)
print(*(segment["label"] for segment in segments))
"""


def test_a_pushed_model_answers_the_same_elsewhere_without_the_package(hub, fresh_environment, folder, tmp_path):
    push(fresh_environment(), folder)
    picture = Image.effect_noise((61, 45), 90).convert("RGB")
    picture.save(tmp_path / "street.png")
    inputs = FCNImageProcessor.from_pretrained(folder)(picture, return_tensors="pt")
    with torch.inference_mode():
        logits = FCNForSemanticSegmentation.from_pretrained(folder).eval()(**inputs).logits
    torch.save(logits, tmp_path / "logits.pt")
    # Whoever takes a public model needs no token.
    environment = fresh_environment(HF_TOKEN=None)
    said = run_without_the_package(
        ELSEWHERE, tmp_path / "street.png", tmp_path / "logits.pt", folder=tmp_path, environment=environment
    )
    assert set(said.split()) == {NAMES[index] for index in logits.argmax(1).unique()}


def test_segment_takes_a_hub_id_and_says_what_is_wrong_with_one(hub, fresh_environment, folder, tmp_path):
    push(fresh_environment(), folder)
    Image.effect_noise((61, 45), 90).convert("RGB").save(tmp_path / "street.png")
    cases = {
        "org/fcn-8s": {},
        "org/nowhere": {},
        "org/fcn-16s": {"HF_TOKEN": "hf_wrong"},
        "org/fcn-32s": {"HF_ENDPOINT": NOBODY},
    }
    reasons = {
        "org/nowhere": f"no such repo at {hub.url}; check its name",
        "org/fcn-16s": "doesn't accept the token; log in with `hf auth login`",
        "org/fcn-32s": f"the connection to {NOBODY} failed",
    }
    segment = "from fcn_hf.cli import app; app(['segment', *sys.argv[1:]])"
    processes = {
        model: subprocess.Popen(
            [sys.executable, "-c", IMPATIENT + segment, "street.png", "--model", model, "--out", model],
            cwd=tmp_path, env=fresh_environment(**changes), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for model, changes in cases.items()
    }  # fmt: skip
    said = {model: process.communicate(timeout=PATIENCE) for model, process in processes.items()}
    assert processes.pop("org/fcn-8s").returncode == 0, said["org/fcn-8s"]
    assert Image.open(tmp_path / "org" / "fcn-8s" / "street.png").size == (61, 45)
    for model, process in processes.items():
        errors = said[model][1]
        assert process.returncode == 1 and "Traceback" not in errors
        assert f"No model could be loaded from '{model}': " in errors.strip().splitlines()[-1]
        assert reasons[model] in errors.strip().splitlines()[-1]


PUSH_STREETS = """
import sys
from datasets import DatasetDict
from huggingface_hub import HfApi
streets = DatasetDict.load_from_disk(sys.argv[1])
streets.push_to_hub("org/streets")
HfApi().upload_file(
    path_or_fileobj=sys.argv[2], path_in_repo="id2label.json", repo_id="org/streets", repo_type="dataset"
)
streets["train"].push_to_hub("org/one-split", private=True)
"""
LOAD_STREETS = """
import sys
import numpy as np
from datasets import DatasetDict, load_dataset
expected = DatasetDict.load_from_disk(sys.argv[1])
for streaming in (False, True):
    streets = load_dataset("org/streets", streaming=streaming)
    streets["one"] = load_dataset("org/one-split", split="train", streaming=streaming)
    for split, same in {"train": "train", "validation": "validation", "one": "train"}.items():
        for row, wanted in zip(streets[split], expected[same], strict=True):
            assert row.keys() == wanted.keys()
            assert all(np.array_equal(row[name], wanted[name]) for name in wanted)
"""


@pytest.fixture
def streets(tmp_path):
    """A folder with a dataset of 6 and 3 small pictures and maps of three classes, as `save_to_disk` makes it."""
    rng = np.random.default_rng(0)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})

    def rows(count):
        pictures = [Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)) for _ in range(count)]
        labels = [
            Image.fromarray(np.kron(rng.integers(0, 3, (5, 6)), np.ones((8, 8))).astype(np.uint8)) for _ in pictures
        ]
        return datasets.Dataset.from_dict({"image": pictures, "label": labels}, features=features)

    datasets.DatasetDict({"train": rows(6), "validation": rows(3)}).save_to_disk(tmp_path / "streets")
    (tmp_path / "id2label.json").write_text(json.dumps(dict(enumerate(NAMES))))
    return tmp_path / "streets"


def test_a_pushed_dataset_is_read_and_trained_on_whole_and_streaming_up_to_a_pushed_model(
    hub, fresh_environment, streets, tmp_path
):
    for script in (PUSH_STREETS, LOAD_STREETS):
        done = run("-c", script, streets, tmp_path / "id2label.json", environment=fresh_environment())
        assert done.returncode == 0, done.stderr
    assert hub.repos["datasets", "org/one-split"].private
    recipe = {
        "dataset_name": "org/streets", "hidden_sizes": [4, 4, 8, 8, 8], "depths": [1, 1, 1, 1, 1], "hidden_size": 8,
        "crop_size": [32, 40], "max_steps": 2, "per_device_train_batch_size": 2, "save_strategy": "no",
        "remove_unused_columns": False, "report_to": "none", "disable_tqdm": True, "use_cpu": True,
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    processes = {
        streaming: subprocess.Popen(
            [sys.executable, ROOT / "training" / "train.py", tmp_path / "recipe.yaml",
             "--streaming", streaming, "--output_dir", tmp_path / streaming,
             "--push_to_hub", "true", "--hub_model_id", f"org/streaming-{streaming}"],
            env=fresh_environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for streaming in ("false", "true")
    }  # fmt: skip
    for streaming, process in processes.items():
        text, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, text
        assert "named by id2label.json" in " ".join(text.split())
        assert FCNConfig.from_pretrained(tmp_path / streaming).id2label == dict(enumerate(NAMES))
        pushed = hub.files(f"org/streaming-{streaming}")
        assert pushed == contents(tmp_path / streaming) and b"org/streets" in pushed["README.md"]
