"""One reader of pictures: the same colours of every mode, and the same sentence for the same fault, everywhere."""

import numpy as np
import pytest
from PIL import Image

from fcn_hf import FCNImageProcessor, predict
from fcn_hf.image_inputs_fcn import open_picture, read_rgb
from tests.helpers import REFUSED_PICTURES, Pointwise, picture_modes

MODES = picture_modes()


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_read_in_its_colours(mode):
    picture, expected = MODES[mode]
    read = read_rgb(picture)
    assert read.mode == "RGB" and np.asarray(read)[0].tolist() == expected


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_predicted_by_its_colours(mode):
    picture, expected = MODES[mode]
    colours = Image.fromarray(np.array([expected], dtype=np.uint8))
    model, processor = Pointwise(), FCNImageProcessor()
    np.testing.assert_array_equal(predict(model, processor, picture), predict(model, processor, colours))


@pytest.mark.parametrize("name", REFUSED_PICTURES)
def test_a_picture_without_a_known_range_is_refused(name):
    picture, message = REFUSED_PICTURES[name]
    for read in (read_rgb, lambda picture: predict(Pointwise(), FCNImageProcessor(), picture)):
        with pytest.raises(ValueError, match=message):
            read(picture)


def test_a_file_is_predicted_as_it_is_meant_to_be_seen(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    model, processor = Pointwise(), FCNImageProcessor()
    upright = predict(model, processor, Image.fromarray(np.rot90(pixels, -1).copy()))
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.open(tmp_path / "a.png")):
        np.testing.assert_array_equal(predict(model, processor, source), upright)


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    Image.new("RGB", (10, 10)).save(tmp_path / "a.png")
    assert open_picture(tmp_path / "a.png", max_pixels=100).size == (10, 10)
    with pytest.raises(ValueError, match=r"has too many pixels \(10 x 10, of which 99 are taken\)"):
        open_picture(tmp_path / "a.png", max_pixels=99)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 49)
    with pytest.raises(ValueError, match="image 0 .* has too many pixels"):
        FCNImageProcessor()(tmp_path / "a.png")


def test_a_path_object_is_always_a_file(tmp_path, monkeypatch):
    """Text from a stranger, made a path, has nothing fetched."""
    monkeypatch.setattr("urllib.request.urlopen", None)
    for address in ("http://127.0.0.1:1/a.png", "data:image/png;base64,AAAA"):
        with pytest.raises(ValueError, match="does not exist"):
            open_picture(tmp_path.joinpath(address))


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "EPS"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF"),
        (b"\0\0\0\x1cftypheic\0\0\0\0", "HEIF"),
        (b"\xff\x0a\xfa\x7f", "JPEG XL"),
        (b'<?xml version="1.0"?>\n<svg width="9" height="9"></svg>', "SVG"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ],
)
def test_a_format_that_is_not_read_is_called_by_its_name(tmp_path, monkeypatch, content, name):
    Image.init()
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", False)
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=f"the picture is of the format {name}, which isn't supported"):
        open_picture(tmp_path / "a.png")
    with pytest.raises(ValueError, match="damaged"):
        (tmp_path / "a.png").write_bytes(b"\x89PNG" + content)
        open_picture(tmp_path / "a.png")
