"""One reader of pictures: the same colours of every mode, and the same sentence for the same fault, everywhere."""

import logging

import numpy as np
import pytest
from PIL import Image

from fcn_hf import FCNImageProcessor, predict
from fcn_hf.image_inputs_fcn import open_picture, read_rgb
from tests.helpers import REFUSED_PICTURES, Pointwise, picture_modes

MODES = picture_modes()
ROTATED = Image.Exif()
ROTATED[0x0112] = 6


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
        (b"\xef\xbb\xbf<!-- drawn --><!DOCTYPE svg [<!ENTITY a '<b>'>]>\n<svg width='9'></svg>", "SVG"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"\n<!doctype html>\n<html><svg></svg></html>", "HTML"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\xd7\xcd\xc6\x9a" + bytes(18), "WMF"),
        (b"\x01\0\0\0" + bytes(36) + b" EMF" + bytes(80), "EMF"),
        (b"\0\0\0\x1cftypisom\0\0\0\0", "MP4"),
        (b"SIMPLE  =                    T", "FITS"),
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


def test_no_picture_has_a_program_run_or_opens_another(tmp_path, monkeypatch):
    def run(*arguments, **settings):
        raise AssertionError("a picture had something else opened")

    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", "gs")
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", run)
    monkeypatch.setattr("PIL.IptcImagePlugin.IptcImageFile.load", run)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    fields = {60: b"\x01\0", 20: b"\0\x01", 30: b"\0\x01", 120: b"\x01"}
    iptc = b"".join(bytes([0x1C, 3, tag, 0, len(value)]) + value for tag, value in fields.items()) + b"\x1c\x08\x0a\0\0"
    for content in (eps, iptc):
        (tmp_path / "a.png").write_bytes(content)
        for source in (tmp_path / "a.png", Image.open(tmp_path / "a.png")):
            with pytest.raises(ValueError, match="which isn't supported|no picture in a known format"):
                open_picture(source)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif", "a.mpo"])
def test_of_several_frames_or_pages_the_first_is_taken_and_said_once(tmp_path, caplog, name):
    colours = [Image.new("RGB", (32, 24), colour) for colour in ("red", "green", "blue")]
    colours[0].save(tmp_path / name, save_all=True, append_images=colours[1:], exif=ROTATED if "mpo" in name else b"")
    colours[0].save(tmp_path / "alone.gif")
    with caplog.at_level(logging.WARNING):
        for source in (tmp_path / name, str(tmp_path / name), Image.open(tmp_path / name)):
            assert read_rgb(open_picture(source)).getpixel((1, 1))[0] > 250
        mask = predict(Pointwise(), FCNImageProcessor(), tmp_path / name)
        assert mask.shape == ((32, 24) if "mpo" in name else (24, 32))
        open_picture(tmp_path / "alone.gif")
        second = Image.open(tmp_path / name)
        second.seek(1)
        assert read_rgb(second).getpixel((1, 1))[0] < 10, "whoever chose a frame gets that one, without a word"
    (said,) = caplog.messages
    assert f"{tmp_path / name}') holds several frames or pages, of which only the first is taken" in said


def test_what_follows_a_first_frame_may_be_damaged(tmp_path):
    frames = [Image.effect_noise((32, 24), 90) for _ in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    content = (tmp_path / "a.gif").read_bytes()
    first = content.index(b"\0\x2c", content.index(b"\0\x2c") + 1)
    (tmp_path / "a.gif").write_bytes(content[: first + 2])
    assert read_rgb(tmp_path / "a.gif").size == (32, 24)
