"""Files that people really send: each is shown as it was meant, or refused with a sentence."""

import numpy as np
import pytest
from PIL import Image

from space import pictures
from space.pictures import (
    EXAMPLES,
    Examples,
    PictureError,
    TruthError,
    browser_copy,
    has_several_frames,
    read_layers,
    read_picture,
    read_truth,
)
from tests.helpers import REFUSED_PICTURES, picture_modes

ROTATED_BY_90 = {0x0112: 6}


@pytest.fixture
def save(tmp_path):
    """Save a picture under a name and give back its path."""

    def save(picture, name, **options):
        picture.save(tmp_path / name, **options)
        return tmp_path / name

    return save


def test_plain_picture_is_read_exactly(save, noise_picture):
    picture = noise_picture(20, 10)
    assert np.array_equal(read_picture(save(picture, "a.png")), picture)


def test_a_truth_is_read_as_ids(save):
    ids = np.array([[0, 1, 2], [2, 255, 0]], np.uint8)
    picture = Image.fromarray(ids)
    assert np.array_equal(read_truth(save(picture, "a.png"), (3, 2), 3), ids)
    picture.putpalette(bytes(range(256)) * 3)
    assert np.array_equal(read_truth(save(picture, "b.png", transparency=255), (3, 2), 3), ids)


@pytest.mark.parametrize(
    ("picture", "name", "sentence"),
    [
        (Image.new("L", (3, 2), 3), "a.png", "the values 3, but these networks' classes are 0 to 2"),
        (Image.new("L", (2, 3)), "a.png", "2 x 3 pixels and the picture 3 x 2"),
        (Image.new("RGB", (3, 2)), "a.png", "pixels of mode RGB"),
        (Image.new("I;16", (3, 2)), "a.png", "pixels of mode I;16"),
        (Image.new("L", (3, 2)), "a.jpg", "is a JPEG file"),
        (Image.new("L", (3, 2)), "a.gif", "is a GIF file"),
        (Image.new("L", (9000, 9000)), "a.png", "too many pixels"),
    ],
)
def test_what_is_no_truth_is_a_sentence(save, picture, name, sentence):
    with pytest.raises(TruthError, match=f"{sentence}.*Expected is a PNG of 8 bits"):
        read_truth(save(picture, name), (3, 2), 3)


def test_one_pixel_is_a_picture(save):
    assert read_picture(save(Image.new("L", (1, 1), 7), "a.png")).getpixel((0, 0)) == (7, 7, 7)


def test_cmyk_becomes_rgb(save):
    read = read_picture(save(Image.new("CMYK", (8, 4), (255, 0, 0, 0)), "a.jpg"))
    assert read.mode == "RGB" and read.size == (8, 4)
    red, green, blue = read.getpixel((0, 0))
    assert red < 60 < min(green, blue)


def test_16_bits_are_scaled_not_clipped(save):
    values = np.array([[0, 128 * 257, 65535]], dtype=np.uint16)
    assert np.array_equal(np.asarray(read_picture(save(Image.fromarray(values), "a.png")))[0, :, 0], [0, 128, 255])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBX", "RGBA", "CMYK", "LAB", "I;16", "I"])
def test_every_mode_that_a_file_holds_is_shown_in_its_colours(save, mode):
    picture, expected = picture_modes()[mode]
    assert np.asarray(read_picture(save(picture, "a.tiff")))[0].tolist() == expected


@pytest.mark.parametrize("name", REFUSED_PICTURES)
def test_a_picture_without_a_known_range_is_refused(save, name):
    picture, message = REFUSED_PICTURES[name]
    with pytest.raises(PictureError, match=f"This picture .*{message}"):
        read_picture(save(picture, "a.tiff"))


def test_transparency_is_laid_on_white(save):
    assert read_picture(save(Image.new("RGBA", (2, 2), (200, 0, 0, 0)), "a.png")).getpixel((0, 0)) == (255, 255, 255)


def test_what_is_wholly_transparent_is_told(save):
    picture = Image.new("RGBA", (2, 1), (200, 0, 0, 0))
    picture.putpixel((1, 0), (200, 0, 0, 1))
    for name, saved in {"a.png": picture, "b.gif": picture, "c.tiff": picture.convert("LA")}.items():
        assert read_layers(save(saved, name))[1][0, 0]
    assert read_layers(save(picture, "a.png"))[1].tolist() == [[True, False]]
    assert read_layers(save(picture.convert("RGB"), "b.png"))[1] is None


def test_what_browsers_show_is_not_decoded_for_it(save, noise_picture, monkeypatch):
    monkeypatch.setattr(pictures, "read_layers", lambda path: pytest.fail("decoded"))
    assert browser_copy(save(noise_picture(20, 10), "a.jpg"), 10_000) is None


@pytest.mark.parametrize("name", ["a.gif", "a.tiff", "a.png"])
def test_a_file_of_several_frames_is_told(save, noise_picture, name):
    frames = [noise_picture(20, 10, seed) for seed in (1, 2)]
    assert has_several_frames(save(frames[0], name, save_all=True, append_images=frames[1:]))
    assert not has_several_frames(save(frames[0], name))


@pytest.mark.parametrize("name", ["a.tiff", "a.jp2", "a.ppm"])
def test_browsers_get_a_copy_of_what_they_cannot_show(save, noise_picture, name):
    path = save(noise_picture(20, 10), name)
    copy = browser_copy(path, 10_000)
    assert Image.open(copy).format == "PNG" and np.array_equal(read_picture(copy), read_picture(path))
    assert browser_copy(path, 10) is None and browser_copy(save(noise_picture(20, 10), "b.jpg"), 10_000) is None


def test_exif_rotation_is_applied_with_transparency(save):
    exif = Image.Exif()
    exif.update(ROTATED_BY_90)
    picture = Image.new("RGBA", (6, 2), "red")
    picture.putpixel((0, 0), (0, 0, 255, 255))
    read = read_picture(save(picture, "a.png", exif=exif))
    assert read.size == (2, 6) and read.getpixel((1, 0)) == (0, 0, 255)


def test_an_animation_gives_its_first_frame(save):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    read = read_picture(save(frames[0], "a.gif", save_all=True, append_images=frames[1:]))
    assert read.getpixel((0, 0)) == (255, 0, 0)


def test_text_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("not a picture")
    with pytest.raises(PictureError, match="no picture in a known format"):
        read_picture(tmp_path / "a.png")


def test_empty_file_is_refused(tmp_path):
    (tmp_path / "a.jpg").touch()
    with pytest.raises(PictureError, match="it is empty"):
        read_picture(tmp_path / "a.jpg")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_truncated_picture_is_refused(save, noise_picture, name):
    path = save(noise_picture(200, 200), name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(PictureError, match="damaged"):
        read_picture(path)


def test_too_many_pixels_are_refused_before_they_are_decoded(save, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 99)
    with pytest.raises(PictureError, match="This picture has too many pixels .10 x 10"):
        read_picture(save(Image.new("RGB", (10, 10)), "a.png"))


def test_decompression_bomb_is_refused(save):
    with pytest.raises(PictureError, match="too many pixels"):
        read_picture(save(Image.new("1", (20_000, 20_000)), "a.png"))


def test_example_meets_its_truth_by_its_pixels(example_folder, save, labels):
    examples = Examples.from_folder(example_folder)
    assert [path.name for path in examples.paths] == ["a.png", "b.png"]
    copy = save(Image.open(example_folder / "b.png"), "uploaded by hand.bmp")
    truth = examples.truth(read_picture(copy), labels)
    assert np.array_equal(truth, Image.open(example_folder / "b_label.png"))


def test_other_pictures_and_other_classes_have_no_truth(example_folder, noise_picture, labels):
    examples = Examples.from_folder(example_folder)
    assert examples.truth(noise_picture(64, 48, seed=5), labels) is None
    assert examples.truth(read_picture(examples.paths[0]), ("cat", "dog")) is None


def test_a_folder_without_examples_is_fine(tmp_path):
    assert Examples.from_folder(tmp_path).paths == ()


def test_photographs_need_no_labels(example_folder, noise_picture, labels, tmp_path):
    noise_picture(60, 40).save(tmp_path / "photo.jpg")
    examples = Examples.from_folder(tmp_path)
    assert [path.name for path in examples.paths] == ["photo.jpg"] and examples.labels == ()
    picture = read_picture(examples.paths[0])
    assert picture in examples and examples.truth(picture, labels) is None
    assert picture not in Examples.from_folder(example_folder)


def test_the_street_examples_of_the_page_are_labelled(labels):
    examples = Examples.from_folder(EXAMPLES / "street")
    assert examples.labels == labels and len(examples.paths) >= 4
    for path in examples.paths:
        picture = read_picture(path)
        truth = examples.truth(picture, labels)
        assert truth.shape == (picture.height, picture.width) and set(np.unique(truth)) <= {*range(11), 255}


def test_a_picture_of_another_size_is_no_example_without_a_look_at_its_pixels(example_folder, monkeypatch):
    examples = Examples.from_folder(example_folder)
    monkeypatch.setattr(pictures, "_digest", None)
    picture = Image.new("RGB", (640, 480))
    assert picture not in examples and examples.number(picture) is None
    assert examples.truth(picture, examples.labels) is None
