"""Huge pictures in tiles."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import fcn_hf.tiles
from fcn_hf import FCNImageProcessor, predict
from fcn_hf.errors import FCNError
from fcn_hf.tiles import Tiling, is_huge, predict_in_tiles, seen_around, tiling_for
from tests.helpers import Pointwise, run, save_tiny

TILING = Tiling(size=576, margin=160)


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """A picture that no tile's edge divides, whose every pixel differs from its neighbours."""
    path = tmp_path_factory.mktemp("pictures") / "field.png"
    pixels = np.random.default_rng(0).integers(0, 256, (610, 835, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("edge", [1, 576, 577, 900, 2000])
def test_each_pixel_is_one_tile_s_own_with_a_margin_around_it(edge):
    seen = np.zeros((edge, edge + 7), dtype=int)
    for rows, columns, (left, top, right, bottom) in TILING.tiles(*seen.shape):
        seen[rows.start : rows.stop, columns.start : columns.stop] += 1
        assert left % 32 == top % 32 == 0 and max(right - left, bottom - top) <= 576
        for part, first, last, whole in [(rows, top, bottom, edge), (columns, left, right, edge + 7)]:
            assert first == max(0, part.start - 160) and (last == whole or last == part.stop + 160)
    assert (seen == 1).all()
    assert edge > 576 or len(TILING.tiles(edge, edge)) == 1


@pytest.mark.parametrize(("geometry", "margin"), [("same", 160), ("caffe", 192)])
def test_tiles_give_the_label_map_of_the_whole_picture(tiny, noise, tmp_path, geometry, margin):
    model, processor = tiny(geometry=geometry), FCNImageProcessor(num_labels=5)
    assert tiling_for(model) == Tiling(1024, margin)
    expected = predict(model, processor, noise)
    ids = predict_in_tiles(model, processor, noise, Tiling(576, margin), tmp_path / "kept")
    assert ids.dtype == np.uint8 and len(np.unique(ids)) > 1
    np.testing.assert_array_equal(ids, expected)
    narrow = predict_in_tiles(model, processor, noise, Tiling(576, 32), tmp_path / "kept")
    assert (narrow != expected).any(), "with a narrow margin seams are seen, so the margin is needed"


def test_a_net_that_sees_the_whole_picture_is_told_of(tmp_path):
    class Average(Pointwise):
        dtype = torch.float32

        def forward(self, pixel_values):
            return SimpleNamespace(logits=pixel_values + pixel_values.mean(dim=(2, 3), keepdim=True))

    assert seen_around(Average()) is None and tiling_for(Average()) == Tiling(1024, 256, is_seamless=False)

    class Windows(Average):
        def forward(self, pixel_values):
            # Windows of 7 strides, as Swin's, each of which is seen whole.
            windows = [
                part.mean(dim=(2, 3), keepdim=True).expand_as(part) for part in pixel_values.split(7 * 32, dim=3)
            ]
            return SimpleNamespace(logits=pixel_values + torch.cat(windows, dim=3))

    assert seen_around(Windows()) is not None and not tiling_for(Windows()).is_seamless
    for size, margin in [(64, 32), (100, 32), (96, 40)]:
        with pytest.raises(FCNError, match="more than two margins"):
            Tiling(size, margin)


def test_a_repeat_goes_on_where_it_was_stopped_and_only_with_the_same_things(noise, tmp_path):
    model, processor, kept = Pointwise(), FCNImageProcessor(), tmp_path / "kept"
    model.dtype, model.config.to_dict = torch.float32, dict
    tiling = Tiling(320, 32)
    picture = tmp_path / "field.png"
    shutil.copy(noise, picture)

    def stop_in_the_second_band(tiles):
        for tile in tiles:
            if tile.rows.start and tile.columns.start:
                raise KeyboardInterrupt
            yield tile

    def seen_of(stop=False):
        model.sizes.clear()
        ids = predict_in_tiles(model, processor, picture, tiling, kept, stop_in_the_second_band if stop else iter)
        np.testing.assert_array_equal(ids, predict(model, processor, picture))
        return len(model.sizes) - 1

    every, a_band = len(tiling.tiles(610, 835)), len({tile.columns for tile in tiling.tiles(610, 835)})
    with pytest.raises(KeyboardInterrupt):
        seen_of(stop=True)
    assert seen_of() == every - a_band
    assert seen_of() == 0
    Image.open(noise).rotate(180).save(picture)
    assert seen_of() == every
    processor.image_mean = [0.0, 0.0, 0.0]
    assert seen_of() == every


def test_segment_looks_at_huge_pictures_in_tiles_and_leaves_nothing_behind(noise, tmp_path, monkeypatch):
    model = save_tiny(tmp_path / "model")
    arguments = ("segment", noise, "--model", model, "--out")
    assert run(*arguments, tmp_path / "whole").exit_code == 0
    looks = []

    def look(*arguments):
        looks.append(arguments[3])
        return predict_in_tiles(*arguments)

    monkeypatch.setattr("fcn_hf.segment_command.predict_in_tiles", look)
    monkeypatch.setattr("fcn_hf.segment_command.tiling_for", lambda net: TILING)
    # A processor that makes pictures small makes them so unless they are looked at in tiles.
    FCNImageProcessor(do_resize=True, size={"shortest_edge": 50}).save_pretrained(tmp_path / "small")
    settings = json.loads((tmp_path / "small" / "preprocessor_config.json").read_text())
    (model / "preprocessor_config.json").write_text(json.dumps(settings))
    monkeypatch.setattr(fcn_hf.tiles, "PIXELS_AT_ONCE", 610 * 835 - 1)
    assert run(*arguments, tmp_path / "shrunk").exit_code == 0 and not looks
    assert run(*arguments, tmp_path / "tiled", "--tile").exit_code == 0 and len(looks) == 1
    assert [path.name for path in (tmp_path / "tiled").iterdir()] == ["field.png"]
    masks = {name: np.asarray(Image.open(tmp_path / name / "field.png")) for name in ("whole", "shrunk", "tiled")}
    np.testing.assert_array_equal(masks["tiled"], masks["whole"])
    assert (masks["shrunk"] != masks["whole"]).any()
    assert is_huge(noise, FCNImageProcessor()) and not is_huge(noise, FCNImageProcessor(do_resize=True))
    result = run(*arguments, tmp_path / "no", "--tile", "--mirror")
    assert result.exit_code == 1 and "leave out --window, --scales and --mirror" in result.stderr
