"""The page as a Space: what is sent, what is said when it can't be, and that what was sent starts."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import httpx
import pytest
import yaml
from gradio_client import Client, handle_file
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars

from space.deploy import main, space_files
from tests.helpers import free_port

ROOT = Path(__file__).resolve().parents[2]
SPACE = "org/fcn-demo"
PATIENCE = 300  # seconds, for a machine that is busy with other things
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
FRONT_MATTER = {
    "title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version", "app_file", "pinned", "license",
    "short_description", "models", "tags", "preload_from_hub",
}  # fmt: skip


@pytest.fixture
def at_home(hub, monkeypatch):
    """This process as a client of the loopback Hub."""
    disable_progress_bars()
    for name, value in {"HF_HUB_OFFLINE": False, "ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": True}.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # The client waits before it tries again, which is right everywhere but here.
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    return monkeypatch


def deploy(*arguments):
    main([SPACE, *arguments])


def refusal(*arguments):
    """The one sentence that a deployment ends with."""
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    assert str(ended.value).startswith("error: ") and "\n" not in str(ended.value)
    return str(ended.value)


def sent(hub):
    return hub.files(SPACE, "spaces")


def front_matter(files):
    return yaml.safe_load(files["README.md"].decode().split("---\n")[1])


def test_a_space_is_created_in_one_commit_and_a_second_time_nothing_changes(hub, at_home, capsys):
    deploy("--private")
    assert capsys.readouterr().out == f"Published: {hub.url}/spaces/{SPACE}\n"
    assert len(hub.commits(SPACE, "spaces")) == 2 and hub.repos["spaces", SPACE].private
    files = sent(hub)
    for name in ("app.py", "LICENSE", "fcn_hf/__init__.py", "space/ui.py", "space/models/street/fcn-8s/config.json"):
        assert files[name] == (ROOT / name).read_bytes()
    weights = (ROOT / "space" / "models" / "street" / "fcn-8s" / "model.safetensors").read_bytes()
    assert files["space/models/street/fcn-8s/model.safetensors"] == weights and weights in hub.blobs.values()
    assert not [name for name in files if "__pycache__" in name or name.startswith(("tests", "training", "."))]
    assert not {"space/README.md", "space/requirements.txt"} & files.keys()
    deploy("--private")
    assert len(hub.commits(SPACE, "spaces")) == 2


def test_an_update_removes_files_of_the_page_that_went_and_leaves_others(hub, at_home):
    deploy()
    (first,) = hub.commits(SPACE, "spaces")[1:]
    first.files.update({"space/old.py": b"old", "app.py": b"old", ".gitattributes": b"theirs"})
    deploy()
    files = sent(hub)
    assert "space/old.py" not in files and files[".gitattributes"] == b"theirs"
    assert files["app.py"] == (ROOT / "app.py").read_bytes() and len(hub.commits(SPACE, "spaces")) == 3


def test_settings_are_those_that_were_asked_for(hub, at_home):
    at_home.setenv("API_KEY", "hush-42")
    for model in ("org/a", "org/b"):
        hub.add_repo(model)
    deploy("--models", "org/a", "org/b", "--hardware", "t4-small", "--secret", "API_KEY", "--variable", "A=b=c")
    space = hub.repos["spaces", SPACE]
    assert space.settings["variables"] == {"A": "b=c", "FCN_MODELS": "org/a,org/b"}
    assert space.settings["secrets"] == {"API_KEY": "hush-42"} and space.hardware == "t4-small"
    assert b"hush-42" not in b"".join(sent(hub).values())
    assert front_matter(sent(hub))["preload_from_hub"] == ["org/a", "org/b"]
    assert b"whl/cpu" not in sent(hub)["requirements.txt"]

    deploy()  # what it isn't asked about stays, but for the models, which are those of the page again
    assert space.settings["variables"] == {"A": "b=c"} and space.hardware == "t4-small"
    assert "preload_from_hub" not in front_matter(sent(hub)) and b"whl/cpu" not in sent(hub)["requirements.txt"]

    deploy("--hardware", "cpu-upgrade")
    assert space.hardware == "cpu-upgrade" and b"--extra-index-url" in sent(hub)["requirements.txt"]


@pytest.mark.parametrize(
    ("changes", "arguments", "words"),
    [
        ({"HF_TOKEN": None}, [SPACE], ["there is no token", "hf auth login", "HF_TOKEN"]),
        ({"HF_TOKEN": "hf_wrong"}, [SPACE], ["doesn't accept the token of HF_TOKEN"]),
        ({}, ["strangers/fcn"], ["'strangers/fcn'", "may not write"]),
        ({}, ["a b"], ["'a b'", "alphanumeric"]),
        ({}, [SPACE, "--models", "org/nowhere"], ["'org/nowhere'", "no such repo"]),
        ({}, [SPACE, "--models", *"abcde"], ["names 5 models"]),
        ({}, [SPACE, "--hardware", "toaster"], ["answered 400", "toaster"]),
        ({}, [SPACE, "--secret", "NOWHERE=hush"], ["--secret", "'NOWHERE'"]),
        ({}, [SPACE, "--variable", "A"], ["NAME=VALUE", "'A'"]),
        ({}, ["org/public", "--private"], ["'org/public'", "is public"]),
        ({"ENDPOINT": "http://127.0.0.1:1"}, [SPACE], ["refused", "HF_ENDPOINT"]),
    ],
    ids=str,
)
def test_who_is_not_let_in_learns_why_and_nothing_is_sent(hub, at_home, changes, arguments, words):
    hub.add_repo(SPACE, "spaces")
    hub.add_repo("org/public", "spaces")
    if endpoint := changes.pop("ENDPOINT", None):
        at_home.setattr(constants, "ENDPOINT", endpoint)
    for name, value in changes.items():
        at_home.setenv(name, value) if value else at_home.delenv(name)
    sentence = refusal(*arguments)
    assert all(word in sentence for word in words) and "hush" not in sentence, sentence
    assert not any(len(repo.branches["main"]) > 1 for repo in hub.repos.values())


@pytest.mark.parametrize("place", [{"lfs": 2}, {"commit": 1}], ids=str)
def test_a_broken_connection_leaves_the_space_as_it_was(hub, at_home, place):
    hub.breaks = place
    assert "repeat" in refusal(SPACE) and sent(hub) == {}


def test_a_dry_run_asks_no_hub_and_lists_all(hub, at_home, capsys):
    at_home.setenv("HF_TOKEN", "hush")
    deploy("--dry-run", "--models", "org/a", "--secret", "HF_TOKEN")
    said = capsys.readouterr().out
    assert not hub.repos and "hush" not in said
    for line in ("secret HF_TOKEN", "variable FCN_MODELS=org/a", "sdk: gradio", "--extra-index-url https://download"):
        assert line in said
    size = (ROOT / "space" / "models" / "street" / "fcn-8s" / "model.safetensors").stat().st_size
    assert f"{size:>12,}  space/models/street/fcn-8s/model.safetensors" in said


def test_what_git_ignores_is_not_sent_and_a_pointer_is_refused(tmp_path, at_home):
    for name in ("app.py", "space/runs/a.pt", "space/new.py", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    for name in ("space/README.md", "space/requirements.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    assert "deploy from a clone" in refused_files(tmp_path)
    (tmp_path / ".gitignore").write_text("runs/\n")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    assert list(space_files([], "cpu-basic", tmp_path)) == ["README.md", "app.py", "requirements.txt", "space/new.py"]
    (tmp_path / "space" / "new.py").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "git lfs pull" in refused_files(tmp_path)


def refused_files(root):
    with pytest.raises(ValueError) as refused:
        space_files([], "cpu-basic", root)
    return str(refused.value)


def test_front_matter_and_requirements_are_as_the_hub_and_the_package_want_them():
    files = space_files(["org/a"], "cpu-basic")
    card = front_matter(files)
    assert set(card) <= FRONT_MATTER and {card["colorFrom"], card["colorTo"]} <= COLOURS and card["sdk"] == "gradio"
    assert re.fullmatch(r"3\.\d+(\.\d+)?", card["python_version"]) and card["app_file"] in files
    assert len(card["short_description"]) <= 60
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    allowed = {*project["dependencies"], *project["optional-dependencies"]["space"]}
    lines = files["requirements.txt"].decode().splitlines()
    assert {line for line in lines if not line.startswith(("#", "--"))} <= allowed


def imported(module, seen):
    """The libraries that importing a module of the Space imports, be it through others of its modules."""
    place = ROOT / Path(*module.split("."))
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if not file.is_file():
        return {module.partition(".")[0]}
    if module in seen:
        return set()
    seen.add(module)
    package = module if place.is_dir() else module.rpartition(".")[0]
    libraries = imported(package, seen) if package else set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            libraries.update(*(imported(name.name, seen) for name in node.names))
        elif isinstance(node, ast.ImportFrom):
            near = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            libraries |= imported(near, seen)
    return libraries


def test_the_requirements_have_all_that_the_page_imports():
    names = {"protobuf": "google", "pillow": "PIL", "huggingface-hub": "huggingface_hub"}
    lines = (ROOT / "space" / "requirements.txt").read_text().splitlines()
    required = {re.split("[<>=]", line)[0] for line in lines if not line.startswith("#")}
    # Gradio brings the other two.
    there = {names.get(name, name) for name in required} | set(sys.stdlib_module_names) | {"anyio", "starlette"}
    assert imported("app", set()) - there == set()


def test_what_was_published_starts_and_answers(hub, at_home, tmp_path):
    deploy()
    at_home.undo()
    for name, content in sent(hub).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    url = f"http://127.0.0.1:{(port := free_port())}"
    outside = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "FCN_MODELS")}
    environment = {**outside, "PORT": str(port), "GRADIO_TEMP_DIR": str(tmp_path / "uploads")}
    with subprocess.Popen([sys.executable, "app.py"], cwd=tmp_path, env=environment) as process:
        try:
            client = client_of(process, url, tmp_path / "answers")
            picture = handle_file(tmp_path / "space" / "examples" / "street" / "street-1.png")
            summary = client.predict(picture, "street", api_name="/compare")[2]
        finally:
            process.terminate()
    assert [network["name"] for network in summary] == ["FCN-32s", "FCN-16s", "FCN-8s"]
    assert all(network["mean_iou"] > 0.3 for network in summary)


def client_of(process, url, folder):
    """A client of the page that the process serves, as soon as it does."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, "app.py ended before it served"
        try:
            return Client(url, verbose=False, download_files=folder)
        except httpx.TransportError:
            time.sleep(0.2)
    raise TimeoutError(f"{url} did not answer within {PATIENCE} s")
