"""Models are loaded once and checked; masks come back at the picture's own size."""

import math
import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from fcn_hf import FCNImageProcessor
from fcn_hf.errors import FCNError
from fcn_hf.prediction import load_model, predict
from space import inference
from space.comparison import compare
from space.inference import ModelError, mean_iou, segment_together, shares
from space.kinds import KINDS, Kind, load_kinds, load_segmenters, model_ids
from space.pictures import Examples, read_picture
from tests.helpers import save_tiny


@pytest.fixture(scope="module")
def segmenters(model_folders):
    return load_segmenters(model_folders)


def test_names_and_parameters_come_from_the_model(segmenters):
    assert [segmenter.name for segmenter in segmenters] == ["FCN-32s", "FCN-16s", "FCN-8s"]
    assert all(s.parameters == sum(p.numel() for p in s.model.parameters()) > 0 for s in segmenters)
    assert not any(segmenter.model.training for segmenter in segmenters)


@pytest.mark.parametrize("size", [(1, 1), (33, 7), (64, 48), (3, 700)])
def test_mask_has_the_size_of_the_picture(segmenters, noise_picture, size):
    for segmenter in segmenters:
        result = segmenter.segment(noise_picture(*size))
        assert result.mask.shape == size[::-1] and result.mask.dtype == np.uint8
        assert result.mask.max() < len(segmenter.labels) and result.seconds > 0


def test_large_picture_is_seen_smaller_and_its_mask_brought_back(segmenters, noise_picture, monkeypatch):
    monkeypatch.setattr(inference, "LONGEST_SIDE", 64)
    seen = []
    hook = segmenters[0].model.fcn.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    result = segmenters[0].segment(noise_picture(200, 100))
    hook.remove()
    assert seen[0].shape[-2:] == (32, 64) and result.mask.shape == (100, 200)


def test_networks_run_the_trunk_that_they_share_once_and_say_what_each_says_alone(noise_picture):
    (kind,) = load_kinds({"street": model_ids({})["street"]})
    trunk = kind.segmenters[0].model.fcn
    assert all(segmenter.model.fcn is trunk for segmenter in kind.segmenters) and len(kind.segmenters) == 3
    runs = []
    hook = trunk.register_forward_hook(lambda *_: runs.append(1))
    picture, once = noise_picture(97, 61), [replace(segmenter, passes=1) for segmenter in kind.segmenters]
    together = segment_together(once, picture)
    hook.remove()
    assert len(runs) == 1
    for segmenter, result in zip(kind.segmenters, together, strict=True):
        alone, processor = load_model(segmenter.source)
        assert np.array_equal(result.mask, predict(alone, processor, picture))


def test_trunks_that_differ_stay_apart(tmp_path):
    coarse = save_tiny(tmp_path / "coarse", prediction_stride=32, geometry="same")
    for name in ("alike", "resized", "taught"):
        shutil.copytree(coarse, tmp_path / name)
    FCNImageProcessor(num_labels=5, size={"shortest_edge": 80}).save_pretrained(tmp_path / "resized")
    weights = load_file(tmp_path / "taught" / "model.safetensors")
    weights[next(name for name in weights if "conv3" in name and name.endswith("bias"))][0] += 1e-3
    save_file(weights, tmp_path / "taught" / "model.safetensors", {"format": "pt"})
    save_tiny(tmp_path / "released", prediction_stride=32, geometry="caffe")  # the same weights, padded otherwise
    names = ("coarse", "alike", "resized", "taught")
    coarse, alike, resized, taught = load_segmenters([str(tmp_path / name) for name in names])
    assert alike.model.fcn is coarse.model.fcn
    assert len({id(segmenter.model.fcn) for segmenter in (coarse, resized, taught)}) == 3
    coarse, released = load_segmenters([str(tmp_path / name) for name in ("coarse", "released")])
    assert coarse.model.fcn is not released.model.fcn


def test_same_picture_gives_the_same_mask(segmenters, noise_picture):
    first, other, again = (segmenters[2].segment(noise_picture(64, 48, seed)).mask for seed in (1, 2, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_shares_add_up_to_1(segmenters, noise_picture):
    result = segmenters[0].segment(noise_picture(64, 48))
    assert list(result.shares) == list(segmenters[0].labels)
    assert math.isclose(sum(result.shares.values()), 1)


def test_unlabelled_pixels_have_no_share():
    assert shares(np.array([[0, 0, 1, 255]], dtype=np.uint8), ("a", "b", "c")) == {"a": 2 / 3, "b": 1 / 3, "c": 0}
    assert shares(np.full((2, 2), 255, dtype=np.uint8), ("a",)) == {"a": 0}


def test_mean_iou_of_a_known_case():
    truth = np.array([[0, 0, 1, 255]], dtype=np.uint8)
    assert mean_iou(np.array([[0, 1, 1, 0]], dtype=np.uint8), truth, 3) == pytest.approx(0.5)
    assert mean_iou(truth % 255, truth, 3) == 1


def test_an_example_is_scored_and_another_picture_is_not(segmenters, example_folder, noise_picture, tmp_path):
    examples = Examples.from_folder(example_folder)
    kind = Kind("street", "Streets", segmenters, examples)
    known = compare(kind, examples.paths[0])
    assert known.truth is not None and all(0 <= score <= 1 for score in known.scores)
    noise_picture(64, 48, seed=9).save(tmp_path / "other.png")
    other = compare(kind, tmp_path / "other.png")
    assert other.truth is None and other.scores == (None, None, None)


def test_where_a_picture_is_transparent_nothing_is_named(segmenters, noise_picture, tmp_path):
    picture = noise_picture(64, 48)
    picture.putalpha(Image.fromarray(np.repeat(np.uint8([[0] * 32 + [255] * 32]), 48, axis=0)))
    picture.save(tmp_path / "half.png")
    for result in compare(Kind("street", "Streets", segmenters, Examples()), tmp_path / "half.png").results:
        assert (result.mask[:, :32] == 255).all() and (result.mask[:, 32:] < 255).all()
        assert math.isclose(sum(result.shares.values()), 1)


def test_a_large_pictures_masks_are_enlarged_for_those_who_ask(segmenters, noise_picture, tmp_path):
    """What the page shows is made without, and is the same where it is seen."""
    picture = noise_picture(1500, 900)
    picture.putalpha(Image.fromarray(np.repeat(np.uint8([[0] * 700 + [255] * 800]), 900, axis=0)))
    picture.save(tmp_path / "large.png")
    result = compare(Kind("street", "Streets", segmenters[:1], Examples()), tmp_path / "large.png")
    (seen,) = result.seen_results
    assert seen.mask.shape == (614, 1024) and "results" not in vars(result)
    (whole,) = result.results
    named = segmenters[0].segment(read_picture(tmp_path / "large.png"))
    assert (whole.mask[:, :700] == 255).all() and np.array_equal(whole.mask[:, 700:], named.mask[:, 700:])
    assert whole.shares == shares(whole.mask, segmenters[0].labels)
    reduced = Image.fromarray(whole.mask).resize((1024, 614), Image.Resampling.NEAREST)
    assert np.array_equal(seen.mask, reduced)


@pytest.mark.parametrize("text", [None, "", " , "])
def test_without_fcn_models_those_of_the_page_are_taken_from_coarse_to_fine(text):
    found = model_ids({} if text is None else {"FCN_MODELS": text})
    assert list(found) == [kind for kind in KINDS if kind in found] and "street" in found
    for kind, folders in found.items():
        strides = [int(Path(folder).name.removeprefix("fcn-").removesuffix("s")) for folder in folders]
        assert strides == sorted(strides, reverse=True) and strides[-1] == 8
        assert all(Path(folder).parent.name == kind for folder in folders)


def test_models_of_ones_own_meet_the_examples_of_their_classes(model_folders, tmp_path):
    (kind,) = load_kinds({"models": model_folders})
    assert kind.examples.paths and all(kind.examples.truth(read_picture(p), kind.examples.labels) is not None
                                       for p in kind.examples.paths)  # fmt: skip
    pets = str(save_tiny(tmp_path / "pets", id2label={0: "cat", 1: "dog"}))
    (kind,) = load_kinds({"models": [pets]})
    assert kind.examples.paths == ()


def test_fcn_models_is_a_list_with_commas():
    assert model_ids({"FCN_MODELS": "me/fcn, /a/folder ,"}) == {"models": ("me/fcn", "/a/folder")}


def test_more_than_four_models_are_refused():
    with pytest.raises(ModelError, match="5 models"):
        model_ids({"FCN_MODELS": "a,b,c,d,e"})


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"fcn-nowhere'.*no such folder"):
        load_segmenters([str(tmp_path / "fcn-nowhere")])


def test_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(ModelError, match=str(tmp_path)) as error:
        load_segmenters([str(tmp_path)])
    assert "\n" not in str(error.value)


def test_two_models_of_one_stride_are_told_apart(model_folders, labels, tmp_path):
    other = str(save_tiny(tmp_path / "run" / "mine", id2label=dict(enumerate(labels))))
    names = [segmenter.name for segmenter in load_segmenters([*model_folders, other])]
    assert names[:2] == ["FCN-32s", "FCN-16s"] and names[3] == "FCN-8s (run/mine)" and len(set(names)) == 4
    namesake = shutil.copytree(other, tmp_path / "other" / "run" / "mine")
    names = [segmenter.name for segmenter in load_segmenters([other, str(namesake)])]
    assert names == [f"FCN-8s ({other})", f"FCN-8s ({namesake})"]


def test_classes_of_one_name_are_refused(tmp_path):
    folder = str(save_tiny(tmp_path / "pets", id2label={0: "cat", 1: "dog", 2: "cat"}))
    with pytest.raises(ModelError, match="pets' has 2 classes 'cat'"):
        load_segmenters([folder])


def test_scores_that_are_not_finite_are_no_answer(tmp_path, noise_picture):
    folder = save_tiny(tmp_path / "huge")
    weights = load_file(folder / "model.safetensors")
    save_file({name: 1e12 * value for name, value in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(FCNError, match="its scores aren't finite"):
        load_segmenters([str(folder)])[0].segment(noise_picture(20, 30))


def test_a_missing_library_is_named(monkeypatch):
    def load_model(source):
        raise ImportError("\nSome model requires timm.\n")

    monkeypatch.setattr(inference, "load_model", load_model)
    with pytest.raises(ModelError, match="'me/fcn' needs what isn't installed: .*Some model requires timm"):
        load_segmenters(["me/fcn"])


def test_a_strip_is_not_made_ever_longer(segmenters):
    """Processors of other models ask for a shorter side alone."""
    processor = deepcopy(segmenters[0].processor)
    processor.size = {"shortest_edge": 500}
    inference.bound_longest_edge(processor)
    pixels = processor(images=Image.new("RGB", (3, 700)), return_tensors="pt")["pixel_values"]
    assert max(pixels.shape[-2:]) <= 8 * 500
    processor.size = {"shortest_edge": 500, "longest_edge": 700}
    inference.bound_longest_edge(processor)
    assert dict(processor.size)["longest_edge"] == 700
