"""Models of a visitor's: side by side whatever their classes, and nothing that a stranger shouldn't have loaded."""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars

from fcn_hf.palettes import distinct_palette
from space import typed_models
from space.inference import ModelError, Segmenter, mean_iou
from space.kinds import Kind, load_segmenters, own_colours, side_by_side
from space.pictures import Examples
from space.typed_models import TypedModels, are_allowed, is_home
from tests.hub_server import Commit

ID = "org/fcn-pets"
MANY_LAYERS = {
    "model_type": "segformer",
    "backbone": None,
    "depths": [60_000, 1, 1, 1],
    "hidden_sizes": [8] * 4,
    "num_attention_heads": [1] * 4,
}


@pytest.fixture
def published(hub, pets, monkeypatch, tmp_path):
    """Publishes the network as `ID`, with some of its files changed, on a Hub that this process asks."""
    disable_progress_bars()
    address = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    settings = {"HF_HUB_OFFLINE": False, "ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": True}
    settings["HUGGINGFACE_CO_URL_TEMPLATE"] = address
    for name, value in settings.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (aside := tmp_path / "aside").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(aside))

    def publish(private=False, **changes):
        files = {path.name: path.read_bytes() for path in Path(pets).iterdir()} | changes
        repo = hub.add_repo(ID, private=private)
        repo.branches["main"].append(Commit("files", {name: data for name, data in files.items() if data is not None}))
        return aside

    return publish


def changed(folder, name, **values):
    """A JSON file of a model's folder with other values."""
    return json.dumps({**json.loads((Path(folder) / name).read_text()), **values}).encode()


def test_masks_of_different_classes_share_their_ids(model_folders, pets, labels, noise_picture):
    alone = [Segmenter.from_pretrained(folder) for folder in (model_folders[2], pets)]
    beside = side_by_side(alone)
    assert {network.classes for network in beside} == {(*labels, "cat", "dog")}
    for one, other in zip(alone, beside, strict=True):
        own, shared = one.segment(noise_picture(64, 48)), other.segment(noise_picture(64, 48))
        assert np.array_equal(np.array(one.labels)[own.mask], np.array(other.classes)[shared.mask])
        assert {name: shared.shares[name] for name in one.labels} == own.shares
        assert sum(shared.shares.values()) == pytest.approx(1)


def test_colours_are_the_first_models_if_it_has_all_classes(model_folders, pets):
    for folders, of_first in (((model_folders[2], model_folders[0]), True), ((model_folders[2], pets), False)):
        kind = Kind("a", "A", load_segmenters(folders), Examples())
        expected = own_colours(kind.segmenters[0]).tolist() if of_first else distinct_palette(len(kind.labels))
        assert kind.palette().tolist() == expected


def test_more_classes_than_a_mask_has_ids_are_refused():
    def network(name):
        return Segmenter(name, name, tuple(f"{name} {index}" for index in range(128)), None, 1, None, None)

    with pytest.raises(ModelError, match="'a', 'b' have 256 classes together; at most 255"):
        side_by_side([network("a"), network("b")])


def test_a_network_is_scored_on_the_classes_that_it_knows_and_all_pixels_count():
    truth = np.array([[0, 0, 1, 1, 2, 255]], dtype=np.uint8)
    mask = np.array([[0, 0, 1, 1, 1, 1]], dtype=np.uint8)
    assert mean_iou(mask, truth, 3, np.array([0, 1])) == pytest.approx((1 + 2 / 3) / 2)
    assert mean_iou(mask, truth, 3) == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_at_home_folders_are_models_and_two_kinds_are_kept(model_folders, pets, monkeypatch):
    typed = TypedModels(at_home=True)
    kind = typed.kind(f" {model_folders[2]} ,, {pets},")
    assert kind.name == f"{model_folders[2]},{pets}" and kind.examples.paths == ()
    assert typed.kind(kind.name) is typed.kind(f"{model_folders[2]}, {pets}") is kind is typed.ready(kind.name)
    assert typed.kind(model_folders[2]).examples.paths
    typed.kind(kind.name)
    typed.kind(pets)
    assert typed.ready(kind.name) is kind and typed.ready(model_folders[2]) is None
    monkeypatch.setattr(typed_models, "LOADING_SECONDS", 0.01)
    with typed._loading, pytest.raises(ModelError, match="ask for these in a minute"):
        typed.kind(model_folders[2])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "one to 4 models"),
        (None, "one to 4 models"),
        ([1], "one to 4 models"),
        ("a/b" * 200, "one to 4 models"),
        ("a/b,a/c,a/d,a/e,a/f", "These are 5 models"),
        ("nowhere", "no model 'nowhere': expected is owner/name"),
        ("../fcn", "no model '../fcn'"),
        ("a/b/c", "no model 'a/b/c'"),
        ("\0/a", "no model"),
        ("http://example.com/a", "no model 'http://"),
        (ID, "HF_HUB_OFFLINE"),
    ],
)
@pytest.mark.parametrize("at_home", [True, False])
def test_what_names_no_model_is_a_sentence(text, sentence, at_home):
    with pytest.raises(ModelError, match=sentence) as error:
        TypedModels(at_home).kind(text)
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


def test_folders_are_not_opened_for_strangers(pets, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pets, tmp_path / ID)
    assert TypedModels(at_home=True).kind(ID).labels
    for text in (pets, f"./{ID}", str(tmp_path / "nowhere")):
        with pytest.raises(ModelError, match=r"expected is owner/name, as on the Hub\.$"):
            TypedModels(at_home=False).kind(text)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE"):
        TypedModels(at_home=False).kind(ID)


def test_an_id_is_the_hubs_even_where_a_folder_has_its_name(published, model_folders, labels, monkeypatch, tmp_path):
    aside = published(**{"pytorch_model.bin": b"code", "adapter_config.json": b"{", "evil.py": b"1 / 0"})
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model_folders[0], tmp_path / ID)
    (network,) = TypedModels(at_home=False).kind(ID).segmenters
    assert network.labels == ("cat", labels[3], "dog") and network.source == ID
    assert list(aside.iterdir()) == [], "what strangers name isn't left on the disk"


def test_a_private_repo_is_for_this_machine_alone(published):
    published(private=True)
    assert TypedModels(at_home=True).kind(ID).labels
    with pytest.raises(ModelError, match="no such model at"):
        TypedModels(at_home=False).kind(ID)


@pytest.mark.parametrize(
    ("name", "values", "sentence"),
    [
        ("model.safetensors", None, "no weights in safetensors"),
        ("preprocessor_config.json", None, "has no preprocessor_config.json"),
        ("config.json", b" " * 2**21, "configuration of .* is larger than 1 MB"),
        ("config.json", b"[" * 99_999, "can't be read"),
        ("config.json", {"model_type": "bert"}, "isn't a semantic segmentation model"),
        ("config.json", {"backbone": "other/repo"}, "refers to 'other/repo'"),
        ("config.json", {"model_type": "upernet", "backbone": "fcn_hf"}, "takes a backbone from elsewhere"),
        ("config.json", {"backbone_config": {"backbone": "local-dir:x"}}, "refers to 'local-dir:x'"),
        ("config.json", {"hidden_size": 10**9}, "'hidden_size' = 1000000000, more than 65536"),
        ("config.json", {"hidden_size": 60_000}, "larger network than its weights are for"),
        ("config.json", MANY_LAYERS, "larger network than its weights are for"),
        ("preprocessor_config.json", {"size": {"height": 9_999, "width": 8}}, "'height' = 9999, more than 2560"),
        ("model.safetensors", b"x" * 64, "the weights of .* can't be read"),
        (
            "model.safetensors.index.json",
            b'{"weight_map": {"a": "../../a.safetensors"}}',
            "in files that it doesn't have",
        ),
    ],
)
def test_what_a_repo_must_not_ask_for(published, pets, name, values, sentence):
    aside = published(**{name: changed(pets, name, **values) if isinstance(values, dict) else values})
    with pytest.raises(ModelError, match=sentence) as error:
        TypedModels(at_home=False).kind(ID)
    assert "\n" not in str(error.value) and str(aside) not in str(error.value) and list(aside.iterdir()) == []


def test_models_that_are_too_large_together_are_not_downloaded(published, monkeypatch):
    published()
    monkeypatch.setattr(typed_models, "MAX_WEIGHT_BYTES", 100)
    monkeypatch.setattr(typed_models, "download", pytest.fail)
    with pytest.raises(ModelError, match=f"weights of '{ID}' have .* GB; at most"):
        TypedModels(at_home=False).kind(ID)


def test_home_is_this_machine_alone():
    assert [is_home(host, {}) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "", "192.168.0.7")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip
    assert not is_home("127.0.0.1", {"SPACE_ID": "you/fcn-demo"})
    assert are_allowed({}) and are_allowed({"FCN_TYPED_MODELS": "1"}) and not are_allowed({"FCN_TYPED_MODELS": "0"})
