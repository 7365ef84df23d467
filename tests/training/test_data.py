"""Datasets of any kind: what masks mean, what is checked before training, and what training then sees."""

import io
import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from torchvision import tv_tensors
from torchvision.transforms import v2

from fcn_hf import FCNImageProcessor
from fcn_hf.datasets import DatasetError, find_columns, find_split, load_splits
from fcn_hf.evaluation import evaluate_split
from tests.helpers import Pointwise
from training import data, examples
from training.augmentation import AugmentationArguments, training_augmentation
from training.data import DataArguments, ScoredRows
from training.examples import SegmentationDataset, SegmentationStream
from training.labels import LabelIds, find_id2label
from training.resume import RunHistory
from training.scan import read_dataset, scan_dataset, scan_split
from training.streets import streets_dataset
from training.train import main, trained_model

ROOT = Path(__file__).parents[2]
COLUMNS = ("image", "label")
PALETTE = [[0, 0, 0], [128, 64, 128], [70, 130, 180]]
FEATURES = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})

TINY_RECIPE = {
    "hidden_sizes": [4, 4, 8, 8, 8], "depths": [1, 1, 1, 1, 1], "hidden_size": 8, "prediction_stride": 32,
    "crop_size": [32, 40], "max_steps": 2, "per_device_train_batch_size": 2, 
    "learning_rate": 1e-3, "eval_strategy": "steps", "eval_steps": 2, "logging_steps": 1,
    "save_strategy": "steps", "save_steps": 2, "remove_unused_columns": False, "report_to": "none",
    "disable_tqdm": True, "class_weight_power": 0.5, "use_cpu": True,
}  # fmt: skip


def drawn(count, ids=(0, 1, 2), seed=0, sizes=((40, 48), (33, 57))):
    """Pictures and maps of the given ids in blocks, in turn of each size (height, width)."""
    rng = np.random.default_rng(seed)
    for size in itertools.islice(itertools.cycle(sizes), count):
        picture = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        blocks = rng.choice(ids, (8, 8)).astype(np.int32)
        yield picture, np.kron(blocks, np.ones((8, 8), np.int32))[: size[0], : size[1]]


def as_colours(ids):
    return Image.fromarray(np.array(PALETTE, dtype=np.uint8)[ids])


def as_palette_png(ids):
    mask = Image.fromarray(ids.astype(np.uint8)).convert("P")
    mask.putdata(ids.ravel().tolist())
    mask.putpalette([200, 10, 10, 10, 200, 10] + 254 * [5, 5, 5])
    return mask


def as_16_bit(ids):
    return Image.fromarray(ids.astype(np.uint16))


def rows_of(pairs, as_mask=as_palette_png):
    rows = [{"image": Image.fromarray(picture), "label": as_mask(ids)} for picture, ids in pairs]
    return datasets.Dataset.from_list(rows, features=FEATURES)


def write_folder(folder, as_mask=as_palette_png, ids=(0, 1, 2), shards=1):
    """A dataset folder of 6 rows to train on and 3 to evaluate with."""
    folder.mkdir()
    train, validation = rows_of(drawn(6, ids), as_mask), rows_of(drawn(3, ids, seed=1), as_mask)
    for index in range(shards):
        train.shard(shards, index).to_parquet(folder / f"train-{index}.parquet")
    validation.to_parquet(folder / "validation.parquet")
    return folder


def write_recipe(path, dataset, output, **settings):
    settings = {"dataset_name": str(dataset), "output_dir": str(output), **TINY_RECIPE, **settings}
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return str(path)


def check_complete(output):
    names = {path.name for path in output.iterdir()}
    assert {"model.safetensors", "config.json", "preprocessor_config.json", "README.md"} <= names
    assert "mean IoU |" in (output / "README.md").read_text()
    return json.loads((output / "config.json").read_text())["id2label"]


CASES = {
    "colours": (
        {"as_mask": as_colours},
        {"palette": PALETTE, "id2label": ["void", "road", "sky"], "cache_decoded": True},
        {"0": "void", "1": "road", "2": "sky"},
    ),
    "palette_png_0_and_255": (
        {"ids": (0, 255)},
        {"label_map": {0: 0, 255: 1}, "id2label": {0: "other", 1: "crack"}},
        {"0": "other", "1": "crack"},
    ),
    "streaming": (
        {"shards": 2},
        {"streaming": True, "dataloader_num_workers": 2, "reduce_labels": True, "id2label": ["a", "b"]},
        {"0": "a", "1": "b"},
    ),
}


def test_datasets_of_three_kinds_train_evaluate_and_save(tmp_path):
    processes = {}
    for name, (dataset, settings, _) in CASES.items():
        folder = write_folder(tmp_path / name, **dataset)
        recipe = write_recipe(tmp_path / f"{name}.yaml", folder, tmp_path / f"{name}-out", **settings)
        command = [sys.executable, str(ROOT / "training" / "train.py"), recipe]
        processes[name] = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for name, process in processes.items():
        text, _ = process.communicate(timeout=240)
        assert process.returncode == 0, text
        assert "mean IoU on validation" in text and "named by the recipe" in text and "eval_mean_iou" in text
        assert check_complete(tmp_path / f"{name}-out") == CASES[name][2]
        # Whoever repeats the card's command has to know that it reads masks as they are.
        assert "the command by itself reads plain ids" in (tmp_path / f"{name}-out" / "README.md").read_text()


def test_a_resumed_stream_ends_in_the_weights_of_an_uninterrupted_run(tmp_path):
    folder = write_folder(tmp_path / "data")
    settings = {"streaming": True, "max_steps": 8, "save_steps": 5, "eval_strategy": "no", "shuffle_buffer_size": 3}
    # Eight steps of two are more than two passes over the six rows.
    main([write_recipe(tmp_path / "straight.yaml", folder, tmp_path / "straight", **settings)])
    recipe = write_recipe(tmp_path / "resumed.yaml", folder, tmp_path / "resumed", **settings)
    main([recipe, "--resume_from_checkpoint", str(tmp_path / "straight" / "checkpoint-5")])
    expected = load_file(tmp_path / "straight" / "model.safetensors")
    resumed = load_file(tmp_path / "resumed" / "model.safetensors")
    assert all(torch.equal(resumed[name], tensor) for name, tensor in expected.items())
    assert "(an unknown number of pictures)" in (tmp_path / "straight" / "README.md").read_text()


@pytest.mark.parametrize(
    ("as_mask", "values", "settings", "expected"),
    [
        (as_palette_png, (0, 1, 255), {}, (0, 1, 255)),
        (as_16_bit, (0, 1, 300), {}, (0, 1, 300)),
        (as_colours, (0, 1, 2), {"palette": PALETTE}, (0, 1, 2)),
        (as_colours, (0, 1, 2), {"palette": {"#804080": 0, "70, 130, 180": 1, "other": 255}}, (255, 0, 1)),
        # With a palette the colours of a palette PNG count and not its indices.
        (as_palette_png, (0, 1), {"palette": [[10, 200, 10], [200, 10, 10]]}, (1, 0)),
        (as_palette_png, (7, 11, 255), {"label_map": {7: 0, 11: 1}}, (0, 1, 255)),
        (as_16_bit, (0, 7, 1000), {"label_map": {7: 0, 1000: 1, "other": 255}}, (255, 0, 1)),
        (as_palette_png, (0, 255), {"label_map": {"0": 0, "255": 1}}, (0, 1)),
        (as_palette_png, (0, 1, 9, 255), {"reduce_labels": True}, (255, 0, 8, 255)),
        (as_colours, (0, 1, 2), {"palette": PALETTE, "reduce_labels": True}, (255, 0, 1)),
        (lambda ids: Image.fromarray(ids > 0), (0, 1), {}, (0, 1)),
        (lambda ids: ids[..., None], (0, 1), {}, (0, 1)),
    ],
)
def test_masks_of_every_form_become_class_ids(as_mask, values, settings, expected):
    ids = np.array(values)[np.arange(60).reshape(6, 10) % len(values)]
    found = LabelIds(**settings)(as_mask(ids), "Row 0")
    np.testing.assert_array_equal(found, np.array(expected)[np.arange(60).reshape(6, 10) % len(values)])
    assert found.dtype == (np.int32 if max(expected) > 255 else np.uint8)


def test_the_number_of_classes_follows_from_palette_or_map():
    assert LabelIds().num_labels is None
    assert LabelIds(palette=PALETTE).num_labels == 3
    assert LabelIds(palette=PALETTE, reduce_labels=True).num_labels == 2
    assert LabelIds(label_map={7: 0, 11: 4, "other": 255}).num_labels == 5


@pytest.mark.parametrize(
    ("as_mask", "values", "settings", "message"),
    [
        (as_colours, (0, 1, 2), {}, r"holds colours \(#000000, #4682b4, #804080\).*give the recipe a palette"),
        (as_colours, (0, 0, 2), {"palette": PALETTE[:2]}, r"colour #4682b4 at x=2, y=0 of the mask is not in palette"),
        (as_palette_png, (0, 3, 4), {"label_map": {0: 0}}, r"id 3 at x=1, y=0 of the mask \(and 1 others\) is not in"),
        (as_16_bit, (0, 1), {"palette": PALETTE}, "holds numbers and no colours; leave palette out"),
        (lambda ids: ids / 2, (0, 1), {}, "dtype float64, but a mask holds one whole number per pixel"),
    ],
)
def test_a_mask_that_is_not_understood_is_named_by_its_row(as_mask, values, settings, message):
    ids = np.array(values)[np.arange(60).reshape(6, 10) % len(values)]
    with pytest.raises(DatasetError, match=f"^Row 3 of 'train': the .*{message}"):
        LabelIds(**settings)(as_mask(ids), "Row 3 of 'train'")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"palette": [[0, 0, 0], [0, 0, 300]]}, r"\[0, 0, 300\] is no colour"),
        ({"palette": [[0, 0, 0], [0, 0, 0]]}, "#000000 twice"),
        ({"palette": "black"}, "palette is 'black', but must be a list"),
        ({"label_map": [0, 1]}, r"label_map is \[0, 1\], but must be a mapping"),
        ({"label_map": {"road": 1}}, "'road' is no class id"),
        ({"label_map": {0: 0.9}}, "0.9 is no class id"),
        ({"label_map": {0: True}}, "True is no class id"),
        ({"label_map": {2**40: 1}}, "1099511627776 is no class id .*up to 2147483647"),
        ({"palette": {"#000000": float("nan")}}, "nan is no class id"),
    ],
)
def test_a_palette_or_map_of_another_form_is_refused(settings, message):
    with pytest.raises(DatasetError, match=message):
        LabelIds(**settings)


def test_classes_keep_the_colours_of_their_palette():
    assert LabelIds(palette=PALETTE).colours(3) == PALETTE
    assert LabelIds(palette=PALETTE, reduce_labels=True).colours(2) == PALETTE[1:]
    mapping = {"#804080": 1, "70, 130, 180": 0, "#000000": 255}
    assert LabelIds(palette=mapping).colours(2) == [[70, 130, 180], [128, 64, 128]]
    # Not for classes that have none, and not for ids that a map changes.
    assert LabelIds(palette=PALETTE).colours(4) is None and LabelIds().colours(3) is None
    assert LabelIds(palette=PALETTE, label_map={0: 1, 1: 0, 2: 2}).colours(3) is None


def test_names_come_from_recipe_then_file_then_features_then_numbers(tmp_path):
    folder, ids = write_folder(tmp_path / "data"), LabelIds()
    feature = datasets.Sequence(datasets.Sequence(datasets.ClassLabel(names=["x", "y", "z"])))
    assert find_id2label(str(folder), None, FEATURES["label"], ids) == (None, None)
    assert find_id2label(str(folder), None, feature, ids) == ({0: "x", 1: "y", 2: "z"}, "the features")
    # Names of the features are those of the ids in the masks, which a map changes.
    assert find_id2label(str(folder), None, feature, LabelIds(label_map={1: 0})) == (None, None)
    (folder / "id2label.json").write_text(json.dumps({"1": "b", "0": "a", "255": "void"}))
    assert find_id2label(str(folder), None, feature, ids) == ({0: "a", 1: "b"}, "id2label.json")
    assert find_id2label(str(folder), ["p", "q"], feature, ids) == ({0: "p", 1: "q"}, "the recipe")
    with pytest.raises(DatasetError, match=r"id2label of the recipe has the ids \[1, 2\].*without gaps"):
        find_id2label(str(folder), {1: "a", 2: "b"}, feature, ids)
    for names, named in (("[yes, no]", "0 True"), ("{0: a, 1: null}", "1 None"), ("[[a], b]", r"0 \['a'\]")):
        with pytest.raises(DatasetError, match=f"id2label of the recipe calls {named}, which is no name.* quotes"):
            find_id2label(str(folder), yaml.safe_load(names), feature, ids)


def test_the_scan_says_what_it_understood(tmp_path, capsys):
    folder = write_folder(tmp_path / "data", ids=(0, 1, 2, 255))
    splits = load_splits(str(folder))
    arguments = DataArguments(str(folder))
    id2label, counts = scan_dataset(arguments, splits, COLUMNS, LabelIds())
    text = capsys.readouterr().out
    assert id2label == {0: "class 0", 1: "class 1", 2: "class 2"} and "3 classes named by their ids" in text
    assert "6 of 6" in text and "3 of 3" in text and "48x33 to 57x40" in text and "Warning" not in text
    masks = [np.asarray(row["label"]) for row in splits["train"]]
    assert counts.tolist() == [sum(int((mask == i).sum()) for mask in masks) for i in range(3)]
    share = sum(int((mask == 255).sum()) for mask in masks) / sum(mask.size for mask in masks)
    assert f"{share:.2%}" in text
    scan_dataset(arguments, {"train": rows_of(drawn(2, (0, 255)))}, COLUMNS, LabelIds())
    assert "shows one class only, 'class 0'" in " ".join(capsys.readouterr().out.split())


def test_a_dataset_of_one_class_is_refused(tmp_path):
    folder = write_folder(tmp_path / "data", ids=(0, 255))
    with pytest.raises(DatasetError, match="has one class, .class 0.; there is nothing to tell apart"):
        read_dataset(DataArguments(str(folder)), 255, quiet=True)


def test_the_scan_reads_rows_from_the_whole_of_a_split_and_names_them_rightly():
    pairs = list(drawn(9))
    pairs[8][1][0, 0] = 77
    scan = scan_split(rows_of(pairs), "train", COLUMNS, LabelIds(), limit=5)
    assert scan.rows == 5 and scan.total == 9 and scan.pixels[77] == 1
    with pytest.raises(DatasetError, match="Row 8 of 'train': label ids .77. are outside 0..2"):
        scan_split(rows_of(pairs), "train", COLUMNS, LabelIds(), num_labels=3, limit=5)
    stream = rows_of(pairs).to_iterable_dataset()
    assert scan_split(stream, "train", COLUMNS, LabelIds(), 3, limit=5).rows == 5


def spoil_size(pairs):
    pairs[4] = (pairs[4][0], pairs[4][1][:, :-1])


def spoil_ids(pairs):
    pairs[4][1][5:] = 9


def ignore_all(pairs):
    for _, ids in pairs:
        ids[:] = 255


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_size, "Row 4 of 'train': the picture is 48x40 and its mask 47x40"),
        (spoil_ids, r"Row 4 of 'train': label ids \[9\] are outside 0..2.*label_map"),
        (ignore_all, "Rows 0 to 5 of 'train': every pixel that was read is ignored"),
        (list.clear, "'train' has no rows"),
    ],
)
def test_what_would_fail_later_is_refused_by_row(spoil, message, streaming):
    pairs = list(drawn(6))
    spoil(pairs)
    rows = rows_of(pairs or drawn(1))
    rows = rows.to_iterable_dataset() if streaming else rows
    rows = rows if pairs else rows.take(0)
    with pytest.raises(DatasetError, match=message):
        scan_split(rows, "train", COLUMNS, LabelIds(), num_labels=3)


def test_a_row_that_cannot_be_read_is_named():
    good = [{"image": Image.fromarray(picture), "label": as_palette_png(ids)} for picture, ids in drawn(3)]
    file = io.BytesIO()
    good[1]["image"].save(file, "PNG")
    for broken, message in (({"bytes": file.getvalue()[:99]}, "can't be read"), (None, "has nothing in")):
        rows = datasets.Dataset.from_list([good[0], {**good[1], "image": broken}, good[2]], features=FEATURES)
        with pytest.raises(DatasetError, match=f"^Row 1 of 'train' {message}"):
            scan_split(rows, "train", COLUMNS, LabelIds())
        with pytest.raises(DatasetError, match="^Row 1"):
            SegmentationDataset(rows, COLUMNS, FCNImageProcessor(num_labels=3), v2.Identity())[1]


def test_an_imagefolder_of_pictures_and_masks_has_both_columns(tmp_path):
    for split, count in (("train", 3), ("validation", 2)):
        folder = tmp_path / "data" / split
        (folder / "masks").mkdir(parents=True)
        lines = []
        for index, (picture, ids) in enumerate(drawn(count)):
            Image.fromarray(picture).save(folder / f"{index}.png")
            as_palette_png(ids).save(folder / "masks" / f"{index}.png")
            lines.append(json.dumps({"file_name": f"{index}.png", "mask_file_name": f"masks/{index}.png"}))
        (folder / "metadata.jsonl").write_text("\n".join(lines))
    for streaming in (False, True):
        splits = load_splits(str(tmp_path / "data"), streaming=streaming)
        columns = find_columns(splits["train"].features)
        assert columns == ("image", "mask")
        scan = scan_split(splits["train"], "train", columns, LabelIds(), num_labels=3)
        assert scan.rows == 3 and set(scan.pixels) == {0, 1, 2}


def test_decoding_once_changes_nothing_but_time():
    augment, processor = training_augmentation(AugmentationArguments([32, 40])), FCNImageProcessor(num_labels=3)
    rows = rows_of(drawn(4), as_colours)

    def dataset():
        return SegmentationDataset(rows, COLUMNS, processor, augment, 5, LabelIds(palette=PALETTE))

    plain, cached = dataset(), dataset()
    assert cached.keep_decoded() == sum(4 * ids.size for _, ids in drawn(4))
    # Twice, so that an augmentation that changed what is kept would show.
    for epoch, index in itertools.product((0, 1, 0), range(4)):
        plain.set_epoch(epoch)
        cached.set_epoch(epoch)
        for key in ("pixel_values", "labels"):
            assert torch.equal(plain[index][key], cached[index][key])


@pytest.mark.parametrize("palette", [None, PALETTE], ids=["ids", "colours"])
@pytest.mark.parametrize("form", [{"format": "JPEG"}, {"format": "TIFF", "compression": "jpeg"}], ids=str)
def test_masks_saved_as_jpeg_are_refused_whatever_their_ids(palette, form, tmp_path):
    path = tmp_path / "mask"
    make = as_colours if palette else lambda ids: Image.fromarray(ids.astype(np.uint8))
    make(next(drawn(1))[1]).save(path, **form)
    mask = Image.open(path)
    with pytest.raises(DatasetError, match="Row 3: the mask is a JPEG, whose compression changes ids.*PNG"):
        LabelIds(palette)(mask, "Row 3")
    picture = Image.new("RGB", mask.size)
    for given in (mask, path, str(path)):
        with pytest.raises(ValueError, match="segmentation map.* is a JPEG.*PNG"):
            FCNImageProcessor(num_labels=3)(picture, segmentation_maps=given)
    with pytest.raises(DatasetError, match="Row 0: its label map is a JPEG.*PNG"):
        evaluate_split(Pointwise(), FCNImageProcessor(), [{"image": picture, "label": mask}], ("image", "label"))


def test_rows_of_rare_classes_can_be_drawn_as_often_as_others():
    # Class 2 is in one row of nine, class 1 in all.
    rows = rows_of([*drawn(8, ids=(0, 1)), *drawn(1, ids=(1, 2))])

    def labels(probability, epoch=0):
        dataset = SegmentationDataset(rows, COLUMNS, FCNImageProcessor(num_labels=3), v2.Identity(), seed=3)
        dataset.set_epoch(epoch)
        if probability:
            dataset.balance_classes(probability, ignore_index=255)
        return [dataset[index % 9]["labels"] for index in range(9)]

    def share(probability):
        found = [2 in map_ for epoch in range(20) for map_ in labels(probability, epoch)]
        return sum(found) / len(found)

    assert share(0) == pytest.approx(1 / 9)
    # A third of the draws is through class 2 and a third through class 1, of which the row is one of nine.
    assert 0.3 < share(1) < 0.45
    assert 0.18 < share(0.5) < 0.32
    assert all(torch.equal(a, b) for a, b in zip(labels(0.5), labels(0.5), strict=True))
    with pytest.raises(DatasetError, match="class_balanced_rows=2.*0..1"):
        DataArguments("x", class_balanced_rows=2).check(max_steps=1)
    with pytest.raises(DatasetError, match="class_balanced_rows draws from the whole split"):
        DataArguments("x", class_balanced_rows=0.5, streaming=True).check(max_steps=1)


def test_decoded_pictures_never_fill_the_memory(monkeypatch):
    monkeypatch.setattr(examples.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 40_000}))
    dataset = SegmentationDataset(rows_of(drawn(4)), COLUMNS, FCNImageProcessor(num_labels=3), v2.Identity())
    with pytest.raises(DatasetError, match="cache_decoded: the first 3 of 4 pictures"):
        dataset.keep_decoded()


def test_a_stream_gives_each_row_once_a_pass_whatever_the_workers(tmp_path):
    folder = write_folder(tmp_path / "data", shards=2)
    stream = load_splits(str(folder), streaming=True)["train"]
    augment, processor = training_augmentation(AugmentationArguments([32, 40])), FCNImageProcessor(num_labels=3)

    def take(count, workers, augmentation=augment):
        dataset = SegmentationStream(stream, COLUMNS, processor, augmentation, seed=1, shuffle_buffer_size=4)
        loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=workers)
        return [example["pixel_values"] for example in itertools.islice(loader, count)]

    # A third worker has no file of its own and must end, not wait.
    for workers in (0, 3):
        first, again = take(12, workers), take(12, workers)
        assert len(first) == 12 and all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    # Other draws in the second pass.
    first = take(12, 0)
    assert not any(torch.equal(a, b) for a in first[:6] for b in first[6:])
    whole = take(6, 0, augmentation=v2.Identity())
    plain = SegmentationDataset(rows_of(drawn(6)), COLUMNS, processor, v2.Identity())
    assert all(any(torch.equal(plain[i]["pixel_values"], b) for b in whole) for i in range(6))


@pytest.mark.parametrize("shards", [2, 1])
def test_processes_share_out_a_stream_and_draw_differently(tmp_path, shards):
    folder = write_folder(tmp_path / "data", shards=shards)
    stream = load_splits(str(folder), streaming=True)["train"]
    processor = FCNImageProcessor(num_labels=3)

    def take(process, augmentation):
        dataset = SegmentationStream(stream, COLUMNS, processor, augmentation, seed=1, part=(process, 2))
        return [example["pixel_values"] for example in itertools.islice(dataset, 3)]

    found = [take(process, v2.Identity()) for process in (0, 1)]
    plain = SegmentationDataset(rows_of(drawn(6)), COLUMNS, processor, v2.Identity())
    for i in range(6):
        assert sum(torch.equal(plain[i]["pixel_values"], b) for part in found for b in part) == 1
    noise = v2.Lambda(lambda image: torch.randint(0, 256, image.shape, dtype=torch.uint8), tv_tensors.Image)
    first, second = (take(process, noise)[0].flatten()[:100] for process in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_for_the_scores_hold_class_ids_and_the_picture_as_it_is_and_are_split_between_processes(streaming):
    rows = rows_of(drawn(3), as_colours)
    rows = rows.to_iterable_dataset() if streaming else rows
    scored = ScoredRows(rows, COLUMNS, LabelIds(palette=PALETTE), "validation")
    for row, (picture, ids) in zip(scored, drawn(3), strict=True):
        np.testing.assert_array_equal(np.asarray(row["image"]), picture)
        np.testing.assert_array_equal(row["label"], ids)
    parts = [[np.asarray(row["image"]).tobytes() for row in scored.part(index, 2)] for index in (0, 1)]
    assert sorted(map(len, parts)) == [1, 2]
    assert {key for part in parts for key in part} == {picture.tobytes() for picture, _ in drawn(3)}
    with pytest.raises(DatasetError, match="^Row 0 of 'validation': the mask holds colours"):
        next(iter(ScoredRows(rows, COLUMNS, LabelIds(), "validation")))


def test_splits_can_be_joined():
    splits = datasets.DatasetDict({"train": rows_of(drawn(3)), "validation": rows_of(drawn(2, seed=1))})
    streams = {name: rows.to_iterable_dataset() for name, rows in splits.items()}
    for kind in (splits, streams):
        found = [np.asarray(row["image"]).tobytes() for row in find_split(kind, "train+validation")]
        assert found == [picture.tobytes() for picture, _ in (*drawn(3), *drawn(2, seed=1))]
        with pytest.raises(DatasetError, match="no split 'test'; it has train, validation"):
            find_split(kind, "train+test")


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16"])
def test_pictures_of_other_modes_become_rgb_before_they_are_augmented(mode):
    picture, ids = next(drawn(1))
    image = Image.fromarray(picture[..., 0].astype(np.uint16) * 257) if mode == "I;16" else None
    image = image or Image.fromarray(picture).convert(mode)
    found, _ = data.read_row({"image": image, "label": as_palette_png(ids)}, COLUMNS, LabelIds(), "Row 0")
    assert found.shape == (3, *ids.shape) and found.dtype == np.uint8
    if mode == "I;16":
        np.testing.assert_array_equal(found[0], picture[..., 0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"streaming": True, "max_steps": -1}, "max_steps must say when to end"),
        ({"streaming": True, "cache_decoded": True}, "set one of the two"),
        ({"streets_scenes": 3, "label_map": {0: 0}}, "streets_scenes are added to a split whose masks hold class ids"),
        ({"palette": "[[0, 0"}, "palette is .*, but must be a list or a mapping in YAML or JSON"),
    ],
)
def test_contradicting_arguments_get_one_sentence(tmp_path, settings, message):
    recipe = write_recipe(tmp_path / "recipe.yaml", tmp_path, tmp_path / "out", **settings)
    if "palette" in settings:
        with pytest.raises(DatasetError, match=message):
            DataArguments("x", **settings)
        return
    with pytest.raises(DatasetError, match=message):
        main([recipe])


@pytest.mark.parametrize("ignore_index", [-100, 300])
def test_an_ignored_id_beyond_8_bits_fills_what_is_padded_and_left_out(ignore_index):
    augmentation = training_augmentation(
        AugmentationArguments(crop_size=[64, 64], scale=[1, 1], rotation=10, patch_sampling=0.5), ignore_index
    )
    processor = FCNImageProcessor(num_labels=3, ignore_index=ignore_index)
    rows = [{"image": Image.new("RGB", (40, 40)), "label": Image.new("L", (40, 40), 2)}]
    examples = SegmentationDataset(
        rows, ("image", "label"), processor, augmentation, label_ids=LabelIds(ignore_index=ignore_index)
    )
    labels = torch.cat([examples[0]["labels"] for _ in range(3)])
    assert labels.unique().tolist() == sorted([2, ignore_index])


def test_what_an_augmentation_or_a_worker_can_t_do_is_said_in_one_sentence_by_row():
    augmentation = training_augmentation(AugmentationArguments(scale=[1e9, 1e9]))
    rows = [{"image": Image.new("RGB", (40, 40)), "label": Image.new("L", (40, 40), 2)}]
    examples = SegmentationDataset(rows, ("image", "label"), FCNImageProcessor(num_labels=3), augmentation)
    workers = torch.utils.data.DataLoader(examples, num_workers=1)
    arguments = SimpleNamespace(max_steps=1, train_batch_size=1, world_size=1, dataloader_drop_last=False)
    trainer = SimpleNamespace(args=arguments, train_dataset=examples, train=lambda **settings: list(workers))
    with pytest.raises(DatasetError, match=r"^Row 0: RuntimeError: Storage size calculation overflowed [^\n]*$"):
        trained_model(trainer, RunHistory({}))


def test_labels_out_of_range_are_named_by_row(tmp_path):
    rows = streets_dataset(2, height=48, width=64, cache_dir=tmp_path)
    with pytest.raises(DatasetError, match=r"Row 0 of 'train': label ids \[.*\] and \d more are outside 0\.\.2"):
        scan_split(rows, "train", ("image", "label"), LabelIds(), num_labels=3)
