"""What the image processor promises, to both backends alike."""

import base64
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from transformers import AutoImageProcessor, dynamic_module_utils
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

from fcn_hf import image_inputs_fcn
from fcn_hf.image_processing_fcn import FCNImageProcessor, FCNImageProcessorPil, resized_size
from tests.helpers import REFUSED_PICTURES, picture_modes

uint8, uint16, int32, float32 = (partial(np.array, dtype=name) for name in ("uint8", "uint16", "int32", "float32"))
BACKENDS = {"torchvision": FCNImageProcessor, "pil": FCNImageProcessorPil}
MEAN = np.array([0.485, 0.456, 0.406])[:, None, None]
STD = np.array([0.229, 0.224, 0.225])[:, None, None]
RAW = {"do_rescale": False, "do_normalize": False}
RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (12, 17, 3), dtype=np.uint8)
LABELS = RNG.integers(0, 11, (12, 17), dtype=np.uint8)


@pytest.fixture(params=[*BACKENDS.values()], ids=[*BACKENDS])
def processor_class(request):
    return request.param


def raw_pixels(processor_class, picture, **settings):
    """The one picture's pixels (C, H, W) as they are before rescaling and normalization."""
    (pixels,) = processor_class(**RAW)(picture, return_tensors="np", **settings)["pixel_values"]
    return pixels


def png(array, path, **options):
    Image.fromarray(array).save(path, **options)
    return path


# Pixels


def test_a_batch_becomes_normalized_float_pixels_and_integer_labels(processor_class):
    batch = processor_class()([PICTURE, PICTURE], [LABELS, LABELS], return_tensors="pt")
    assert (batch["pixel_values"].shape, batch["pixel_values"].dtype) == ((2, 3, 12, 17), torch.float32)
    assert (batch["labels"].shape, batch["labels"].dtype) == ((2, 12, 17), torch.int64)
    expected = (PICTURE.transpose(2, 0, 1) / 255 - MEAN) / STD
    np.testing.assert_allclose(batch["pixel_values"][1], expected, atol=1e-5)
    np.testing.assert_array_equal(batch["labels"][0], LABELS)


@pytest.mark.parametrize("settings", [{}, {"do_normalize": False}, {"do_rescale": False}, RAW])
def test_pixels_are_float32_whatever_is_switched_off(processor_class, settings):
    for picture in (PICTURE, PICTURE.astype(np.float64), torch.from_numpy(PICTURE).to(torch.bfloat16)):
        assert processor_class(**settings)(picture, return_tensors="pt")["pixel_values"].dtype == torch.float32


@pytest.mark.parametrize("picture", [PICTURE, (PICTURE / 255).astype(np.float32)], ids=["uint8", "float"])
@pytest.mark.parametrize("size", [{"height": 9, "width": 30}, {"shortest_edge": 8}, {"longest_edge": 8}, 30])
def test_both_backends_give_the_same(picture, size):
    settings = {"do_resize": True, "size": size, "do_rescale": picture.dtype == np.uint8}
    ours, theirs = (
        backend(**settings)([picture, picture[:5]], [LABELS, LABELS[:5]], return_tensors="pt")
        for backend in BACKENDS.values()
    )
    # One step of 8 bits is 1 / 255 / 0.225 = 0.017.
    torch.testing.assert_close(ours["pixel_values"], theirs["pixel_values"], atol=0.02, rtol=0)
    assert torch.equal(ours["labels"], theirs["labels"])


def test_every_way_to_give_a_picture_means_the_same(processor_class, tmp_path):
    path = png(PICTURE, tmp_path / "a.png")
    data_url = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    first = np.ascontiguousarray(PICTURE.transpose(2, 0, 1))
    ways = [path, str(path), data_url, Image.open(path), PICTURE, first, torch.from_numpy(PICTURE)]
    ways += [torch.from_numpy(first), PICTURE.astype(np.int64), PICTURE[..., ::-1].copy()[..., ::-1]]
    nested = [ways[:2], [ways[2:5]], *ways[5:], PICTURE[None], torch.from_numpy(first)[None]]
    batch = processor_class(**RAW)(nested, return_tensors="np")["pixel_values"]
    assert len(batch) == len(ways) + 2
    for pixels in batch:
        np.testing.assert_array_equal(pixels, first)


def test_a_url_is_fetched(processor_class, tmp_path):
    content = png(PICTURE, tmp_path / "a.png").read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/a.png" else 404)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        np.testing.assert_array_equal(raw_pixels(processor_class, f"{url}a.png"), PICTURE.transpose(2, 0, 1))
        with pytest.raises(ValueError, match="404"):
            processor_class()(f"{url}b.png")
        server.shutdown()


ANY_MODE = {
    **picture_modes(),
    "uint16 array": (uint16([[65535, 257 * 9]]), [[255] * 3, [9] * 3]),
    "bool array": (np.array([[True, False]]), [[255] * 3, [0] * 3]),
    "grey array": (uint8([[3, 4]]), [[3] * 3, [4] * 3]),
    "grey array with channel": (uint8([[[3], [4]]]), [[3] * 3, [4] * 3]),
    "RGBA array": (uint8([[[1, 2, 3, 0], [1, 2, 3, 255]]]), [[255] * 3, [1, 2, 3]]),
    "RGBA float array": (float32([[[0.5, 0.5, 0.5, 0.5], [0, 0, 0, 1]]]), [[0.75] * 3, [0] * 3]),
}


@pytest.mark.parametrize(
    "picture, expected",
    ANY_MODE.values(),
    ids=ANY_MODE,
)
def test_pictures_of_any_mode_become_rgb(processor_class, picture, expected):
    layout = "channels_last" if isinstance(picture, np.ndarray) and picture.ndim == 3 else None
    pixels = raw_pixels(processor_class, picture, input_data_format=layout)
    np.testing.assert_allclose(pixels[:, 0].T, expected, atol=1e-5)


def test_channels_are_kept_without_conversion_or_if_the_statistics_are_for_them(processor_class):
    picture = np.dstack([PICTURE, PICTURE[..., :1]])
    four = {"image_mean": [0.0] * 4, "image_std": [1.0] * 4}
    assert processor_class(**four)(picture, return_tensors="pt")["pixel_values"].shape == (1, 4, 12, 17)
    assert raw_pixels(processor_class, picture, do_convert_rgb=False).shape == (4, 12, 17)
    assert raw_pixels(processor_class, Image.fromarray(LABELS), do_convert_rgb=False).shape == (1, 12, 17)


def test_an_ambiguous_channel_order_is_first_unless_the_caller_says_otherwise(processor_class):
    picture = RNG.integers(0, 256, (3, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(raw_pixels(processor_class, picture), picture)
    last = raw_pixels(processor_class, picture, input_data_format="channels_last")
    np.testing.assert_array_equal(last, picture.transpose(2, 0, 1))


def test_pictures_and_label_files_are_turned_upright(processor_class, tmp_path):
    exif = Image.Exif()
    exif[image_inputs_fcn.EXIF_ORIENTATION] = 6
    picture, labels = (png(array, tmp_path / f"{array.ndim}.png", exif=exif) for array in (PICTURE, LABELS))
    batch = processor_class(**RAW)(picture, labels, return_tensors="np")
    np.testing.assert_array_equal(batch["pixel_values"][0], np.rot90(PICTURE, -1).transpose(2, 0, 1))
    np.testing.assert_array_equal(batch["labels"][0], np.rot90(LABELS, -1))


def test_what_it_is_given_stays_as_it_was(processor_class):
    picture, labels = PICTURE / np.float32(255), LABELS.copy()
    processor_class(do_reduce_labels=True, **RAW)(picture, labels, return_tensors="pt")["pixel_values"].zero_()
    processor_class()(picture, labels, return_tensors="pt")
    assert np.array_equal(picture, PICTURE / np.float32(255)) and np.array_equal(labels, LABELS)


def test_float_pixels_in_0_to_1_are_rescaled_with_a_warning(processor_class, monkeypatch):
    warnings = []
    monkeypatch.setattr(image_inputs_fcn.logger, "warning_once", warnings.append)
    processor_class()([PICTURE, PICTURE * 1.0])
    processor_class()(PICTURE / 255, do_rescale=False)
    assert warnings == []
    processor_class()(PICTURE / 255)
    assert "do_rescale=False" in warnings[0]


# Channels that pictures do not have


def statistics(count, **settings):
    """Settings for `count` channels of log depth and the like: no rescaling, other values for each channel."""
    mean, std = ([start + step * i for i in range(count)] for start, step in ((7.8, 20.0), (1.0, 0.5)))
    return {"image_mean": mean, "image_std": std, "do_rescale": False, **settings}


def planes(count, dtype="float32", height=12, width=17):
    """`count` channels last, negative values and values beyond 255 among the floats."""
    values = RNG.integers(0, 256, (height, width, count))
    return (values * 3.7 - 100).astype(dtype) if dtype.startswith("float") else values.astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "uint16", "int64"])
@pytest.mark.parametrize("count", [2, 4, 6])
def test_channels_beyond_colour_are_taken_as_they_are(processor_class, count, dtype):
    array = planes(count, dtype)
    settings = statistics(count)
    mean, std = (np.array(settings[name])[:, None, None] for name in ("image_mean", "image_std"))
    first = np.ascontiguousarray(array.transpose(2, 0, 1))
    ways = [array, first, torch.from_numpy(array), torch.from_numpy(first), array[None], torch.from_numpy(first)[None]]
    batch = processor_class(**settings)([*ways, np.stack([array] * 2)], LABELS[None].repeat(8, 0), return_tensors="pt")
    assert batch["pixel_values"].dtype == torch.float32 and batch["labels"].shape == (8, 12, 17)
    for pixels in batch["pixel_values"]:
        np.testing.assert_allclose(pixels, (first.astype(float) - mean) / std, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("count", [4, 6])
def test_channels_beyond_colour_are_rescaled_resized_and_padded_like_colours(processor_class, count, dtype):
    array = planes(count, dtype)
    size = {"do_resize": True, "size": {"longest_edge": 11}, "do_rescale": True}
    batch = processor_class(**statistics(count, **size))([array, array[:5]], return_tensors="pt")["pixel_values"]
    assert batch.shape == (2, count, 7, 11) and not batch[1, :, 3:].any()
    for channel in range(count):
        one = {"image_mean": statistics(count)["image_mean"][channel], "image_std": 1 + channel / 2}
        grey = processor_class(**size, **one)([array[..., channel], array[:5, :, channel]], return_tensors="pt")
        torch.testing.assert_close(batch[:, channel], grey["pixel_values"][:, 0])


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("count", [4, 6])
def test_both_backends_resize_channels_beyond_colour_alike(count, dtype):
    settings = statistics(count, do_resize=True, size={"height": 9, "width": 30}, do_normalize=False)
    array = planes(count, dtype)
    ours, theirs = (backend(**settings)(array, return_tensors="pt")["pixel_values"] for backend in BACKENDS.values())
    torch.testing.assert_close(ours, theirs, atol=1.001, rtol=0)


def test_the_axis_of_the_statistics_is_the_channels(processor_class):
    array = planes(6, height=3, width=4)
    for way in (array, array.transpose(2, 0, 1)):
        pixels = processor_class(**statistics(6, do_normalize=False))(way, return_tensors="np")["pixel_values"][0]
        np.testing.assert_array_equal(pixels, array.transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_a_file_holds_no_channels_beyond_colour(processor_class, mode, tmp_path):
    Image.new(mode, (17, 12)).save(tmp_path / "a.png")
    for picture in (Image.new(mode, (17, 12)), tmp_path / "a.png"):
        with pytest.raises(ValueError, match=rf"mode '{mode}'.* 4 value.*array of shape \(height, width, 4\)"):
            processor_class(**statistics(4))(picture)


def test_a_picture_in_rgba_has_four_channels_without_conversion(processor_class):
    picture = np.dstack([PICTURE, LABELS])
    processor = processor_class(**statistics(4, do_convert_rgb=False, do_normalize=False))
    pixels = processor(Image.fromarray(picture), return_tensors="np")["pixel_values"][0]
    np.testing.assert_array_equal(pixels, picture.transpose(2, 0, 1))


@pytest.mark.parametrize("settings", [{}, {"do_normalize": False}, {"do_convert_rgb": False}])
@pytest.mark.parametrize(
    "array, message",
    [
        (planes(3), "image 0 has 3 channel.* 6 value.*pass 6 channels"),
        (planes(4), "image 0 has 4 channel.* 6 value"),
        (planes(1)[..., 0], "image 0 has 1 channel.* 6 value"),
        (planes(5), r"image 0 has shape \(12, 17, 5\).* for 6 channels"),
        (planes(6) * np.inf, "image 0 has NaN or infinite"),
    ],
    ids=["3", "4", "no axis", "5", "infinite"],
)
def test_another_number_of_channels_than_of_statistics_is_refused(processor_class, array, message, settings):
    with pytest.raises(ValueError, match=message):
        processor_class(**statistics(6, **settings))(array)


# Label maps


def test_every_way_to_give_a_label_map_means_the_same(processor_class, tmp_path):
    palette = Image.fromarray(LABELS).convert("P")
    palette.putpalette(list(range(255, -1, -1)) * 3)
    palette.save(tmp_path / "p.png")
    ways = [LABELS, torch.from_numpy(LABELS), LABELS.astype(np.int64), LABELS[None], LABELS[..., None]]
    ways += [Image.fromarray(LABELS), palette, Image.fromarray(LABELS.astype(np.uint16)), tmp_path / "p.png"]
    ways += [str(tmp_path / "p.png")]
    labels = processor_class()([PICTURE] * len(ways), ways, return_tensors="np")["labels"]
    for label_map in labels:
        np.testing.assert_array_equal(label_map, LABELS)
    stacked = processor_class()([PICTURE] * 2, np.stack([LABELS, LABELS]), return_tensors="np")["labels"]
    np.testing.assert_array_equal(stacked, labels[:2])


def test_a_one_bit_label_map_holds_0_and_1(processor_class):
    mask = LABELS > 5
    for way in (mask, Image.fromarray(mask), torch.from_numpy(mask)):
        labels = processor_class(num_labels=2)(PICTURE, way, return_tensors="np")["labels"][0]
        np.testing.assert_array_equal(labels, mask.astype(int))


@pytest.mark.parametrize("height, width", [(5, 40), (24, 8), (12, 17)])
def test_labels_are_resized_to_the_nearest_pixel_exactly(processor_class, height, width):
    processor = processor_class(do_resize=True, size={"height": height, "width": width})
    expected = functional.interpolate(
        torch.from_numpy(LABELS)[None, None].float(), (height, width), mode="nearest-exact"
    )
    assert torch.equal(processor(PICTURE, LABELS, return_tensors="pt")["labels"].float(), expected[0])


@pytest.mark.parametrize("ignore_index", [255, -100])
def test_reduced_labels_lose_one_and_0_is_ignored(processor_class, ignore_index):
    processor = processor_class(do_reduce_labels=True, ignore_index=ignore_index, num_labels=2)
    labels = processor(PICTURE[:2, :2], np.array([[0, 1], [2, ignore_index]]), return_tensors="np")["labels"]
    assert labels.tolist() == [[[ignore_index, 0], [1, ignore_index]]]


@pytest.mark.parametrize("ignore_index", [255, 7])
def test_unequal_pictures_are_padded_right_and_bottom_and_their_labels_are_ignored(processor_class, ignore_index):
    processor = processor_class(ignore_index=ignore_index)
    batch = processor([PICTURE, PICTURE[:7, :9]], [LABELS, LABELS[:7, :9]], return_tensors="pt")
    alone = processor(PICTURE[:7, :9], return_tensors="pt")["pixel_values"]
    padded = functional.pad(alone, (0, 17 - 9, 0, 12 - 7))
    assert torch.equal(batch["pixel_values"][1:], padded)
    expected = np.full((12, 17), ignore_index)
    expected[:7, :9] = LABELS[:7, :9]
    np.testing.assert_array_equal(batch["labels"][1], expected)


def test_labels_are_padded_to_pad_size_and_unpadded_batches_stay_lists(processor_class):
    size = {"height": 20, "width": 30}
    batch = processor_class(pad_size=size)(PICTURE, LABELS, return_tensors="pt")
    assert batch["pixel_values"].shape[-2:] == batch["labels"].shape[-2:] == (20, 30)
    batch = processor_class(do_pad=False)([PICTURE, PICTURE[:7]], [LABELS, LABELS[:7]])
    assert [labels.shape for labels in batch["labels"]] == [(12, 17), (7, 17)]


# Errors

EMPTY = np.zeros((0, 5, 3), np.uint8)
WRONG_PICTURES = {
    "none": ([], ValueError, "no images"),
    "none, nested": ([[], []], ValueError, "no images"),
    "dict": ([PICTURE, {"bytes": b""}], TypeError, "image 1 is of type dict"),
    "missing file": ("nowhere.png", ValueError, r"image 0 \('nowhere.png'\) does not exist"),
    "empty file": ("empty.png", ValueError, r"image 0 \('empty.png'\) .*empty"),
    "truncated file": ([PICTURE, "cut.png"], ValueError, r"image 1 \('cut.png'\)"),
    "text file": ("text.png", ValueError, r"image 0 \('text.png'\) .*no picture"),
    "folder": (".", ValueError, r"image 0 \('.'\) cannot be read"),
    "no pixels": (EMPTY, ValueError, r"\(0, 5, 3\).*no pixels"),
    "NaN": (np.full((4, 4, 3), np.nan), ValueError, "image 0 has NaN"),
    "infinite": (torch.full((3, 4, 4), torch.inf), ValueError, "infinite"),
    "1 axis": (np.zeros(5), ValueError, r"shape \(5,\)"),
    "5 axes": (np.zeros((1, 1, 3, 5, 5)), ValueError, r"shape \(1, 1, 3, 5, 5\)"),
    "2 channels": (np.zeros((8, 8, 2)), ValueError, r"\(8, 8, 2\).*1, 3 or 4 channels"),
    "5 channels": (np.zeros((5, 8, 8)), ValueError, r"\(5, 8, 8\).*1, 3 or 4 channels"),
    "complex": (np.zeros((8, 8, 3), complex), TypeError, "complex128"),
    **{name: (picture, ValueError, message) for name, (picture, message) in REFUSED_PICTURES.items()},
}
WRONG_MAPS = {
    "colours": (np.zeros((12, 17, 3), np.uint8), ValueError, r"\(12, 17, 3\).*colours to class ids"),
    "colours, first": ([np.zeros((3, 12, 17), np.uint8)], ValueError, r"\(3, 12, 17\).*colours to class ids"),
    "RGB picture": (Image.new("RGB", (17, 12)), ValueError, "mode 'RGB'.*colours to class ids"),
    "floats": (LABELS.astype(np.float32), TypeError, "float32.*cast"),
    "float tensor": (torch.zeros(12, 17, dtype=torch.bfloat16), TypeError, "float.*cast"),
    "label too large": ("37.png", ValueError, r"label 37 in segmentation map 0 \('37.png'\) is outside 0..10"),
    "labels too large": (LABELS + np.uint8(9), ValueError, "labels 11, 12, 13, 14, 15 and 4 more in .* 0 are outside"),
    "negative": (np.full((12, 17), -1), ValueError, "label -1 in segmentation map 0"),
    "two maps": ([LABELS, LABELS], ValueError, "2 segmentation maps for 1 images"),
    "no maps": ([], ValueError, "0 segmentation maps for 1 images"),
    "other size": (LABELS[:5], ValueError, "5x17 .*12x17"),
    "missing file": ("nowhere.png", ValueError, r"segmentation map 0 \('nowhere.png'\) does not exist"),
    "dict": ({}, TypeError, "segmentation map 0 is of type dict"),
    "1 axis": (np.zeros(5, int), ValueError, r"shape \(5,\)"),
}


@pytest.fixture
def bad_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty.png").touch()
    Path("text.png").write_text("no picture")
    png(PICTURE, Path("whole.png"))
    Path("cut.png").write_bytes(Path("whole.png").read_bytes()[:300])
    png(np.full((12, 17), 37, np.uint8), Path("37.png"))


@pytest.mark.parametrize("images, error, message", WRONG_PICTURES.values(), ids=WRONG_PICTURES.keys())
def test_a_wrong_picture_is_refused_with_a_reason(processor_class, bad_files, images, error, message):
    with pytest.raises(error, match=message):
        processor_class()(images)


@pytest.mark.parametrize("maps, error, message", WRONG_MAPS.values(), ids=WRONG_MAPS.keys())
def test_a_wrong_label_map_is_refused_with_a_reason(processor_class, bad_files, maps, error, message):
    with pytest.raises(error, match=message):
        processor_class(num_labels=11)(PICTURE, maps)


def test_negative_labels_are_refused_without_num_labels_and_after_reduction(processor_class):
    with pytest.raises(ValueError, match="label -3 in segmentation map 1 is negative"):
        processor_class()([PICTURE] * 2, [LABELS, np.full((12, 17), -3)])
    with pytest.raises(ValueError, match="label 10 in segmentation map 0, reduced by 1, is outside 0..9"):
        processor_class(num_labels=10, do_reduce_labels=True)(PICTURE, np.full((12, 17), 11))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"num_labels": 0}, "num_labels is 0"),
        ({"ignore_index": "255"}, "ignore_index"),
        ({"do_center_crop": True}, "do_center_crop"),
        ({"do_resize": True, "size": {"min_pixels": 4, "max_pixels": 9}}, "size is"),
        ({"image_mean": [0.5]}, "image_mean is .0.5,."),
        ({"image_mean": [0.5], "image_std": [0.5]}, "3 channel"),
    ],
)
def test_wrong_settings_are_refused(processor_class, settings, message):
    with pytest.raises(ValueError, match=message):
        processor_class(**settings)(PICTURE)


def test_an_unknown_option_is_refused(processor_class):
    with pytest.raises(TypeError, match="do_resice"):
        processor_class()(PICTURE, do_resice=True)


# Settings


def test_none_in_a_call_means_the_processors_own_setting(processor_class):
    processor = processor_class(do_resize=True, size=6)
    options = {"do_resize": None, "size": None, "do_normalize": None, "input_data_format": None, "num_labels": None}
    same = processor(PICTURE, return_tensors="pt", **options)["pixel_values"]
    assert torch.equal(same, processor(PICTURE, return_tensors="pt")["pixel_values"])


@pytest.mark.parametrize("loader", BACKENDS.values(), ids=BACKENDS.keys())
def test_settings_survive_saving_and_a_change_of_backend(processor_class, loader, tmp_path):
    processor = processor_class(num_labels=11, ignore_index=-100, do_resize=True, size={"height": 6, "width": 7})
    processor.save_pretrained(tmp_path)
    loaded = loader.from_pretrained(tmp_path)
    assert type(loaded) is loader and loaded.to_dict() == processor.to_dict()
    assert (loaded.num_labels, loaded.ignore_index, dict(loaded.size)) == (11, -100, {"height": 6, "width": 7})


@pytest.mark.parametrize(
    "shape, size, expected",
    [
        ((20, 40), {"height": 9, "width": 5}, (9, 5)),
        ((20, 40), {"shortest_edge": 5}, (5, 10)),
        ((20, 40), {"shortest_edge": 5, "longest_edge": 8}, (4, 8)),
        ((20, 40), {"longest_edge": 10}, (5, 10)),
        ((40, 20), {"max_height": 10, "max_width": 50}, (10, 5)),
        ((2, 40), {"longest_edge": 10}, (1, 10)),
    ],
)
def test_size_says_how_a_picture_is_resized(processor_class, shape, size, expected):
    processor = processor_class(do_resize=True, size=size)
    assert resized_size(shape, processor.size) == expected
    assert processor(np.zeros(shape, np.uint8), return_tensors="np")["pixel_values"].shape[-2:] == expected


def forget_remote_modules():
    for name in [name for name in sys.modules if name.split(".")[0] == "transformers_modules"]:
        del sys.modules[name]


@pytest.fixture
def without_the_package(tmp_path, monkeypatch):
    """Auto classes as they are where fcn_hf is not installed, with a cache of remote code that starts empty."""
    monkeypatch.setattr(IMAGE_PROCESSOR_MAPPING, "_extra_content", {})
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    forget_remote_modules()
    yield
    forget_remote_modules()


@pytest.mark.usefixtures("without_the_package")
def test_a_saved_folder_carries_its_code_and_both_backends(tmp_path, monkeypatch):
    monkeypatch.setattr(FCNImageProcessor, "_auto_class", "AutoImageProcessor")
    folder = tmp_path / "saved"
    FCNImageProcessor(num_labels=11).save_pretrained(folder)
    for backend, name in ((None, "FCNImageProcessor"), *((name, BACKENDS[name].__name__) for name in BACKENDS)):
        files = {path.name: path.read_text() for path in folder.glob("*.py")}
        assert set(files) == {"image_processing_fcn.py", "image_inputs_fcn.py"}
        assert not any("fcn_hf" in text for text in files.values())
        remote = AutoImageProcessor.from_pretrained(folder, backend=backend, trust_remote_code=True)
        assert type(remote).__name__ == name and type(remote).__module__.startswith("transformers_modules.")
        assert remote.num_labels == 11
        # What was loaded as remote code can be saved and loaded again.
        folder = tmp_path / f"saved by {name}"
        remote.save_pretrained(folder)


# Post-processing


def padded_logits(masks, height, width):
    """Logits of two classes that are sure of each mask, and sure of class 1 in the padding around it."""
    classes = torch.ones(len(masks), height, width, dtype=torch.int64)
    for row, mask in zip(classes, masks, strict=True):
        row[: mask.shape[0], : mask.shape[1]] = mask
    return SimpleNamespace(logits=functional.one_hot(classes, 2).permute(0, 3, 1, 2).float())


def test_post_processing_crops_the_padding_away(processor_class):
    masks = [torch.zeros(4, 8, dtype=torch.int64), torch.zeros(6, 3, dtype=torch.int64)]
    outputs = padded_logits(masks, 6, 8)
    maps = processor_class().post_process_semantic_segmentation(outputs, [(4, 8), (6, 3)])
    for class_map, mask in zip(maps, masks, strict=True):
        assert class_map.dtype == torch.int64 and torch.equal(class_map, mask)


def test_post_processing_crops_before_it_resizes_back(processor_class):
    processor = processor_class(do_resize=True, size={"longest_edge": 8})
    pictures = [np.zeros((8, 16), np.uint8), np.zeros((32, 16), np.uint8)]
    assert processor(pictures, return_tensors="pt")["pixel_values"].shape[-2:] == (8, 8)
    masks = [torch.zeros(4, 8, dtype=torch.int64), torch.zeros(8, 4, dtype=torch.int64)]
    maps = processor.post_process_semantic_segmentation(padded_logits(masks, 8, 8), [(8, 16), (32, 16)])
    assert [tuple(class_map.shape) for class_map in maps] == [(8, 16), (32, 16)]
    assert not any(class_map.any() for class_map in maps)


def test_post_processing_crops_to_pad_size_but_never_without_padding(processor_class):
    outputs = padded_logits([torch.zeros(4, 8, dtype=torch.int64)], 10, 10)
    padding = processor_class(pad_size={"height": 10, "width": 10})
    assert not padding.post_process_semantic_segmentation(outputs, [(4, 8)])[0].any()
    for unpadded in (processor_class(), processor_class(pad_size={"height": 10, "width": 10}, do_pad=False)):
        assert unpadded.post_process_semantic_segmentation(outputs, [(4, 8)])[0].any()


def test_post_processing_stretches_logits_whose_size_has_nothing_to_do_with_padding(processor_class):
    logits = torch.randn(2, 5, 6, 7)
    targets = torch.tensor([[9, 4], [3, 20]])
    processed = processor_class().post_process_semantic_segmentation(
        SimpleNamespace(logits=logits), targets, return_segmentation_scores=True
    )
    for score, target, result in zip(logits, targets.tolist(), processed, strict=True):
        expected = functional.interpolate(score[None], target, mode="bilinear", align_corners=False)[0]
        assert torch.equal(result.segmentation_scores, expected)
        assert torch.equal(result.segmentation, expected.argmax(0))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("targets", [None, [(6, 7), (9, 4)]])
def test_post_processing_refuses_scores_that_are_not_finite(processor_class, wrong, targets):
    logits = torch.zeros(2, 5, 6, 7)
    logits[1, :, 2, 3] = wrong
    with pytest.raises(ValueError, match="the logits of picture 1 aren't finite"):
        processor_class().post_process_semantic_segmentation(SimpleNamespace(logits=logits), targets)


def test_post_processing_without_target_sizes_keeps_the_logits_size(processor_class):
    logits = torch.randn(2, 5, 6, 7)
    maps = processor_class().post_process_semantic_segmentation(SimpleNamespace(logits=logits))
    assert torch.equal(torch.stack(maps), logits.argmax(1))


@pytest.mark.parametrize("targets, message", [([(4, 4)], "1 target sizes for 2"), ([(4, 4), (0, 4)], r"\(0, 4\)")])
def test_post_processing_refuses_wrong_target_sizes(processor_class, targets, message):
    with pytest.raises(ValueError, match=message):
        processor_class().post_process_semantic_segmentation(SimpleNamespace(logits=torch.zeros(2, 1, 4, 4)), targets)
