"""Whatever a file holds, it ends in the right answer or in a sentence; a profile says how often it is tried."""

import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fcn_hf import predict
from fcn_hf.convert import convert
from fcn_hf.errors import FCNError
from fcn_hf.image_inputs_fcn import read_rgb
from fcn_hf.prediction import load_model
from tests.fcn_hf.convert.caffe_nets import net_layers, write_caffemodel
from tests.helpers import run, save_tiny

# Fixtures give folders whose files each example writes anew.
bounded = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def share(part: int) -> settings:
    """One in `part` of the profile's examples, for what takes longer than a picture."""
    return settings(bounded, max_examples=max(1, settings.default.max_examples // part))


def encoded_pictures() -> list[bytes]:
    """Small files of every common format, some with several frames."""
    picture = Image.effect_noise((24, 20), 90)
    several = {"save_all": True, "append_images": [Image.new("L", (24, 20), 9)]}
    pictures = []
    for mode, name, options in [
        ("RGB", "PNG", {}),
        ("RGBA", "PNG", several),
        ("I;16", "PNG", {}),
        ("RGB", "JPEG", {}),
        ("L", "TIFF", {"compression": "tiff_lzw", **several}),
        ("RGB", "TIFF", {}),
        ("P", "GIF", several),
        ("RGB", "WEBP", several),
        ("RGB", "BMP", {}),
    ]:
        file = io.BytesIO()
        picture.convert(mode).save(file, name, **options)
        pictures.append(file.getvalue())
    return pictures


PICTURES = encoded_pictures()


@st.composite
def damaged(draw, contents: st.SearchStrategy[bytes], head: int = 400) -> bytes:
    """A file of which some bytes, most of them among the first ones, are others, and whose end may be missing."""
    content = bytearray(draw(contents))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, min(head, len(content)) - 1) | st.integers(0, len(content) - 1))
        extremes = st.sampled_from([b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff"])
        changed = draw(st.binary(min_size=1, max_size=4) | extremes)
        content[place : place + len(changed)] = changed
    return bytes(content[: draw(st.integers(0, len(content)) | st.just(len(content)))])


@bounded
@given(damaged(st.sampled_from(PICTURES), 64))
def test_damaged_pictures_are_read_or_refused(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    try:
        assert read_rgb(tmp_path / "a.png", max_pixels=10**6).mode == "RGB"
    except ValueError as error:
        assert type(error) is ValueError and str(error).startswith("the picture ") and "\n" not in str(error)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("fuzz") / "model")


@share(20)
@given(damaged(st.sampled_from(PICTURES), 64))
def test_segment_ends_in_a_mask_or_a_line_for_each_picture(model_folder, tmp_path, content):
    (tmp_path / "a.bin").write_bytes(content)
    for mask in tmp_path.glob("out/*"):
        mask.unlink()
    result = run("segment", tmp_path / "a.bin", "--model", model_folder, "--out", tmp_path / "out")
    assert (result.exit_code == 0) == (tmp_path / "out" / "a.png").exists()
    assert result.exit_code == 0 or f"{tmp_path / 'a.bin'}: the picture " in result.stderr


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 99) | st.floats(-9, 99) | st.just(float("nan")) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text("0123a", max_size=2), inner, max_size=5),
    max_leaves=6,
)
# Whose values are part of no answer, or name code, types and devices of other libraries.
FREE = ("transformers_version", "auto_map", "architectures", "dtype", "model_type", "image_processor_type")


@share(6)
@given(st.data())
def test_other_settings_give_a_mask_or_a_sentence(model_folder, data):
    path = model_folder / data.draw(st.sampled_from(["config.json", "preprocessor_config.json"]))
    whole = path.read_text()
    names = st.sampled_from([name for name in json.loads(whole) if name not in FREE])
    path.write_text(json.dumps(json.loads(whole) | data.draw(st.dictionaries(names, ANYTHING, min_size=1, max_size=2))))
    try:
        model, processor = load_model(str(model_folder))
        mask = predict(model, processor, Image.new("RGB", (24, 20)))
        assert mask.shape == (20, 24) and mask.max() < model.config.num_labels
        assert [model.config.id2label[index] for index in range(model.config.num_labels)]
    except ValueError as error:
        assert str(error)
    finally:
        path.write_text(whole)


@share(10)
@given(st.data())
def test_damaged_weights_are_loaded_or_refused(model_folder, data):
    path = model_folder / "model.safetensors"
    whole = path.read_bytes()
    try:
        # Not in place: a reader may still have the file mapped.
        path.unlink()
        path.write_bytes(data.draw(damaged(st.just(whole), 3000)))
        load_model(str(model_folder))
    except FCNError as error:
        assert "model" in str(error) and "\n" not in str(error)
    finally:
        path.unlink()
        path.write_bytes(whole)


@pytest.fixture(scope="module")
def caffemodel(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("caffe") / "a.caffemodel"
    write_caffemodel(path, net_layers("voc-fcn8s"))
    return path.read_bytes()


@share(3)
@given(st.data())
def test_damaged_caffemodels_are_converted_or_refused(caffemodel, tmp_path, data):
    content = bytearray(caffemodel)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, 5000) | st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "a.caffemodel"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
    try:
        conversion = convert(path)
        conversion.check()
        assert conversion.config.num_labels == len(conversion.config.id2label)
    except FCNError as error:
        assert str(error) and "\n" not in str(error)
