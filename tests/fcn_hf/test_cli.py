"""`fcn-hf` as people type it."""

import contextlib
import json
import os
import re
import sys
import threading

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from fcn_hf import FCNForSemanticSegmentation, FCNImageProcessor, predict
from fcn_hf.prediction import InferenceMode
from tests.helpers import REFUSED_PICTURES, picture_modes, run, save_dataset, save_tiny


@pytest.fixture
def model_folder(tmp_path):
    return save_tiny(tmp_path / "model")


@pytest.fixture
def dataset_folder(tmp_path):
    """A dataset with five classes."""
    return save_dataset(tmp_path / "data")


def test_segment_writes_class_ids_with_a_palette(model_folder, tmp_path):
    Image.effect_noise((41, 29), 90).convert("RGB").save(tmp_path / "street.jpg")
    result = run("segment", tmp_path / "street.jpg", "--model", model_folder, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    mask = Image.open(tmp_path / "out" / "street.png")
    assert mask.size == (41, 29) and mask.mode == "P" and np.asarray(mask).max() < 5
    # The VOC development kit's first colours.
    assert mask.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]


def test_segment_shows_a_model_s_own_colours(tmp_path):
    save_tiny(tmp_path / "model", palette=[[10, 20, 30]] * 5)
    Image.new("RGB", (20, 20)).save(tmp_path / "street.png")
    run("segment", tmp_path / "street.png", "--model", tmp_path / "model", "--out", tmp_path / "out")
    assert Image.open(tmp_path / "out" / "street.png").getpalette()[:15] == [10, 20, 30] * 5


def test_segment_takes_pictures_of_every_mode_and_says_which_it_refuses(model_folder, tmp_path):
    saved = {}
    for number, (name, (picture, _)) in enumerate({**picture_modes(), **REFUSED_PICTURES}.items()):
        if picture.mode in ("La", "RGBa", "HSV", "YCbCr"):
            continue  # TIFF doesn't hold these, or not a single pixel of them
        saved[name] = tmp_path / f"{number}.tif"
        picture.save(saved[name])
    result = run("segment", *saved.values(), "--model", model_folder, "--out", tmp_path / "out")
    assert result.exit_code == 1
    masks = {path.name for path in (tmp_path / "out").iterdir()}
    assert masks == {f"{path.stem}.png" for name, path in saved.items() if name not in REFUSED_PICTURES}
    for name, (_, message) in REFUSED_PICTURES.items():
        assert re.search(f"^{saved[name]}: .*{message}", result.stderr, re.MULTILINE)


def test_segment_goes_on_after_a_bad_picture_and_says_so(model_folder, tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("no picture")
    paths = (tmp_path / "bad.png", tmp_path / "missing.png", tmp_path / "good.png")
    result = run("segment", *paths, "--model", model_folder, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "bad.png: the picture is damaged, or no picture" in result.stderr
    assert "missing.png: the picture does not exist" in result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.png"]


def test_segment_never_overwrites_its_input_or_its_own_output(model_folder, tmp_path):
    (tmp_path / "sub").mkdir()
    for path in (tmp_path / "a.png", tmp_path / "sub" / "a.jpg"):
        Image.new("RGB", (20, 20)).save(path)
    before = (tmp_path / "a.png").read_bytes()
    result = run("segment", tmp_path / "a.png", "--model", model_folder, "--out", tmp_path)
    assert result.exit_code == 1 and "overwrite" in result.stderr
    assert (tmp_path / "a.png").read_bytes() == before
    result = run(
        "segment", tmp_path / "a.png", tmp_path / "sub" / "a.jpg", "--model", model_folder, "--out", tmp_path / "o"
    )
    assert result.exit_code == 1 and "would both become" in result.stderr


def test_segment_overwrites_only_what_it_wrote_unless_told_to(model_folder, tmp_path):
    Image.new("RGB", (20, 20), "red").save(tmp_path / "cat.jpg")
    Image.new("RGB", (9, 9), "blue").save(tmp_path / "cat.png")
    before = (tmp_path / "cat.png").read_bytes()
    arguments = ("segment", tmp_path / "cat.jpg", "--model", model_folder, "--out", tmp_path)
    result = run(*arguments)
    assert result.exit_code == 1 and "cat.png is there, and not this command's own" in result.stderr
    assert "--overwrite" in result.stderr and (tmp_path / "cat.png").read_bytes() == before
    assert run(*arguments, "--overwrite").exit_code == 0 and Image.open(tmp_path / "cat.png").size == (20, 20)
    assert run(*arguments).exit_code == 0, "a mask of its own is written anew"
    (tmp_path / "cat.png").write_text("no picture")
    assert run(*arguments).exit_code == 1 and (tmp_path / "cat.png").read_text() == "no picture"


def test_segment_tries_each_picture_whatever_a_processor_or_model_makes_of_it(model_folder, tmp_path, monkeypatch):
    errors = {"a": TypeError("no 4-band\npictures"), "b": torch.OutOfMemoryError("out of memory"), "c": KeyError("x")}

    def predict_but_some(model, processor, path, mode):
        if path.stem in errors:
            raise errors[path.stem]
        return np.zeros((20, 20), dtype=np.int64)

    monkeypatch.setattr("fcn_hf.segment_command.predict", predict_but_some)
    result = run("segment", *(f"{name}.jpg" for name in "abcd"), "--model", model_folder, "--out", tmp_path / "out")
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert [line for line in result.stderr.splitlines() if line.strip()][-4:] == [
        "a.jpg: TypeError: no 4-band pictures",
        "b.jpg: OutOfMemoryError: out of memory",
        "c.jpg: KeyError: 'x'",
        "3 of 4 pictures have no mask.",
    ]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["d.png"]


def test_segment_looks_at_pictures_as_it_is_told(model_folder, tmp_path):
    Image.effect_noise((40, 56), 90).convert("RGB").save(tmp_path / "street.png")
    options = ("--window", "30x36", "--overlap", "0.25", "--scales", "0.75,1", "--mirror")
    run("segment", tmp_path / "street.png", "--model", model_folder, "--out", tmp_path / "out", *options)
    model = FCNForSemanticSegmentation.from_pretrained(model_folder).eval()
    mode = InferenceMode((30, 36), 0.25, (0.75, 1.0), True)
    expected = predict(model, FCNImageProcessor(num_labels=5), tmp_path / "street.png", mode)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "street.png")), expected)
    result = run("segment", tmp_path / "street.png", "--model", model_folder, "--out", tmp_path / "no", "--scales", "0")
    assert result.exit_code == 1 and "scales are (0.0,)" in result.stderr


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_masks_and_scores_are_computed_in_the_dtype_asked_for(
    model_folder, dataset_folder, tmp_path, monkeypatch, dtype
):
    computed, forward = set(), FCNForSemanticSegmentation.forward

    def watched(self, *args, **kwargs):
        outputs = forward(self, *args, **kwargs)
        computed.add(outputs.logits.dtype)
        return outputs

    monkeypatch.setattr(FCNForSemanticSegmentation, "forward", watched)
    Image.new("RGB", (20, 20)).save(tmp_path / "street.png")
    rows = ["--dataset", dataset_folder, "--split", "validation"]
    for command in (
        ["segment", tmp_path / "street.png", "--out", tmp_path / "masks"],
        ["segment", tmp_path / "street.png", "--out", tmp_path / "tiled", "--tile"],
        ["segment", *rows, "--out", tmp_path / "shards"],
        ["evaluate", *rows],
    ):
        computed.clear()
        result = run(*command, "--model", model_folder, "--dtype", dtype)
        assert result.exit_code == 0, result.output
        assert computed == {getattr(torch, dtype)}


def test_places_that_cannot_be_written_to_are_found_before_any_work(tmp_path):
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder").mkdir()
    for arguments, message in [
        (("segment", "a.jpg", "--model", "m", "--out", tmp_path / "file"), "file is a file"),
        (("segment", "a.jpg", "--model", "m", "--out", tmp_path / "file" / "below"), "file is a file"),
        (("evaluate", "--model", "m", "--dataset", "d", "--json", tmp_path / "file" / "a.json"), "file is a file"),
        (("evaluate", "--model", "m", "--dataset", "d", "--per-image", tmp_path / "folder"), "folder is a folder"),
        (("evaluate", "--model", "m", "--dataset", "d", "--json", "s", "--per-image", "s"), "name one file more than"),
        (("convert", "vgg16", tmp_path / "file" / "model"), "file is a file"),
    ]:
        result = run(*arguments)
        assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
        assert message in result.stderr and result.stderr.count("\n") == 1


NAMES = ["road [/paved]", "[red]sky", "road", ":car:", "road"]


def test_names_of_classes_are_text_and_each_class_keeps_its_scores(dataset_folder, tmp_path):
    save_tiny(tmp_path / "[bold]m[/x]", id2label=dict(enumerate(NAMES)))
    model = ("--model", tmp_path / "[bold]m[/x]")
    result = run("evaluate", *model, "--dataset", dataset_folder, "--json", tmp_path / "s.json", "--boundary")
    assert result.exit_code == 0, result.output
    scores = json.loads((tmp_path / "s.json").read_text())
    expected = [*NAMES[:2], "road (2)", NAMES[3], "road (4)"]
    assert list(scores["per_class_iou"]) == list(scores["per_class_boundary_f1"]) == expected
    assert all(f"IoU of {name} " in result.stdout for name in expected)
    Image.effect_noise((41, 29), 90).convert("RGB").save(tmp_path / "[u]a.jpg")
    result = run("segment", tmp_path / "[u]a.jpg", *model, "--out", tmp_path / "out")
    shares = result.stdout.partition("[u]a.png: ")[2]
    assert result.exit_code == 0 and {part.rpartition(" ")[0] for part in shares.strip().split(", ")} <= set(expected)
    result = run("segment", tmp_path / "[/none].jpg", *model, "--out", tmp_path / "out")
    assert result.exit_code == 1 and "[/none].jpg: the picture does not exist" in result.stderr


def test_evaluate_writes_scores_in_0_to_1(model_folder, dataset_folder, tmp_path):
    result = run("evaluate", "--model", model_folder, "--dataset", dataset_folder, "--json", tmp_path / "scores.json")
    assert result.exit_code == 0, result.output
    scores = json.loads((tmp_path / "scores.json").read_text())
    names = ["mean_iou", "mean_accuracy", "pixel_accuracy", "frequency_weighted_iou", "per_class_iou"]
    assert list(scores) == names and len(scores["per_class_iou"]) == 5
    assert all(0 <= scores[name] <= 1 for name in names[:4])
    assert f"{100 * scores['mean_iou']:.2f}" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "test"], "no split 'test'; it has validation"),
        (["--label-column-name", "mask"], "no column 'mask'"),
        (["--dataset", "nowhere"], "dataset 'nowhere' can't be loaded"),
        (["--model", "nowhere"], "No model could be loaded from 'nowhere'"),
        (["--device", "abacus"], "device 'abacus'"),
    ],
)
def test_evaluate_says_what_is_wrong_in_one_line(model_folder, dataset_folder, arguments, message):
    result = run("evaluate", "--model", model_folder, "--dataset", dataset_folder, *arguments)
    assert result.exit_code == 1
    assert message in result.stderr.strip().splitlines()[-1] and "Traceback" not in result.output


def test_a_class_that_never_occurs_is_null_in_the_json(tiny, dataset_folder, tmp_path):
    model = tiny(num_labels=6, upsampling="bilinear")
    with torch.no_grad():
        model.heads["semantic"].score_fr.bias[5] = -1e4
    model.save_pretrained(tmp_path / "six")
    FCNImageProcessor(num_labels=6).save_pretrained(tmp_path / "six")
    result = run(
        "evaluate", "--model", tmp_path / "six", "--dataset", dataset_folder, "--json", tmp_path / "scores.json"
    )
    assert result.exit_code == 0, result.output
    text = (tmp_path / "scores.json").read_text()
    assert json.loads(text)["per_class_iou"]["LABEL_5"] is None and "NaN" not in text


def test_evaluate_names_the_row_with_an_unknown_label(dataset_folder, tmp_path):
    save_tiny(tmp_path / "four", num_labels=4)
    result = run("evaluate", "--model", tmp_path / "four", "--dataset", dataset_folder)
    assert result.exit_code == 1 and "Row 0: label 4 is outside 0..3" in result.stderr


def test_evaluate_names_the_row_that_cannot_be_read(model_folder, dataset_folder):
    file = dataset_folder / "validation.parquet"
    rows = datasets.Dataset.from_parquet(str(file)).cast_column("image", datasets.Image(decode=False)).to_list()
    rows[1]["image"]["bytes"] = rows[1]["image"]["bytes"][:900]
    datasets.Dataset.from_list(
        rows, features=datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
    ).to_parquet(file)
    result = run("evaluate", "--model", model_folder, "--dataset", dataset_folder)
    assert result.exit_code == 1 and "Row 1 can't be read (OSError: " in result.stderr.splitlines()[-1]


def test_evaluate_heeds_a_processor_that_reduces_labels(model_folder, tmp_path):
    plain, counted_from_1 = (save_dataset(tmp_path / name, ids) for name, ids in (("0", range(4)), ("1", range(1, 5))))
    run("evaluate", "--model", model_folder, "--dataset", plain, "--json", tmp_path / "plain.json")
    FCNImageProcessor(num_labels=5, do_reduce_labels=True).save_pretrained(model_folder)
    run("evaluate", "--model", model_folder, "--dataset", counted_from_1, "--json", tmp_path / "reduced.json")
    assert (tmp_path / "reduced.json").read_text() == (tmp_path / "plain.json").read_text()


def test_names_of_classes_are_nothing_but_names(tmp_path):
    """No line break, no order to the terminal, no formula, and no name that leaves no room."""
    names = ["road [/paved]", "a\x1b[31m\nb :car:", "$^$", "x" * 5000, "="]
    model = save_tiny(tmp_path / "model", id2label=dict(enumerate(names)))
    options = ("--json", tmp_path / "scores.json", "--confusion", tmp_path / "confusion.png")
    result = run("evaluate", "--model", model, "--dataset", save_dataset(tmp_path / "data"), *options)
    assert result.exit_code == 0, result.output
    assert "IoU of a [31m b :car:" in result.stdout and "\x1b" not in result.stdout
    assert list(json.loads((tmp_path / "scores.json").read_text())["per_class_iou"]) == names
    with Image.open(tmp_path / "confusion.png") as picture:
        assert max(picture.size) < 5000
    Image.effect_noise((20, 20), 90).save(tmp_path / "a.png")
    shown = run("segment", tmp_path / "a.png", "--model", model, "--out", tmp_path / "out").stdout
    assert shown.count("\n") == 1 and "\x1b" not in shown


def test_evaluate_warns_where_an_ignored_id_may_be_a_class(tmp_path):
    for count in (1, 2):
        save_tiny(tmp_path / f"model {count}", num_labels=count)
    for name, count, ids, warns in [("0", 2, (0, 255), True), ("1", 2, (0, 1), False), ("2", 1, (0,), True)]:
        data = save_dataset(tmp_path / name, ids)
        result = run("evaluate", "--model", tmp_path / f"model {count}", "--dataset", data)
        assert result.exit_code == 0 and ("show one class or none" in result.stderr) is warns


@pytest.mark.parametrize("command", ["segment", "evaluate"])
def test_weights_that_are_not_there_or_not_finite_are_refused(command, tiny, dataset_folder, tmp_path):
    model = tiny()
    FCNImageProcessor(num_labels=5).save_pretrained(tmp_path / "model")
    with torch.no_grad():
        model.heads["semantic"].score_fr.bias[1] = float("nan")
    model.save_pretrained(tmp_path / "model")
    Image.new("RGB", (20, 20)).save(tmp_path / "a.jpg")
    rest = {"segment": (tmp_path / "a.jpg", "--out", tmp_path / "out"), "evaluate": ("--dataset", dataset_folder)}
    result = run(command, "--model", tmp_path / "model", *rest[command])
    assert result.exit_code == 1 and "heads.semantic.score_fr.bias" in result.stderr and "finite" in result.stderr
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    for content, message in [(pointer, "model.safetensors is a Git LFS pointer"), ("x" * 99, "No model could be load")]:
        (tmp_path / "model" / "model.safetensors").write_text(content)
        result = run(command, "--model", tmp_path / "model", *rest[command])
        assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
        assert message in result.stderr.splitlines()[-1]


def test_evaluate_gives_every_further_score_and_file_when_asked(model_folder, dataset_folder, tmp_path):
    pytest.importorskip("matplotlib")
    plain, more = tmp_path / "plain.json", tmp_path / "more.json"
    arguments = ("evaluate", "--model", model_folder, "--dataset", dataset_folder, "--json")
    assert run(*arguments, plain).exit_code == 0
    files = {"--per-image": tmp_path / "out" / "pictures.csv", "--confusion": tmp_path / "out" / "confusion.png"}
    result = run(*arguments, more, "--boundary", *(part for option in files.items() for part in option))
    assert result.exit_code == 0, result.output
    expected, scores = json.loads(plain.read_text()), json.loads(more.read_text())
    assert {name: scores[name] for name in expected} == expected
    assert list(scores)[len(expected) :] == ["boundary_f1", "per_class_boundary_f1"]
    assert "boundary f1" in result.stdout and "boundary F1 of LABEL_4" in result.stdout
    header, *lines = files["--per-image"].read_text().splitlines()
    assert header == "row,mean_iou,pixel_accuracy" and sorted(line[0] for line in lines) == ["0", "1", "2"]
    values = [float(line.split(",")[1]) for line in lines]
    assert values == sorted(values)
    with Image.open(files["--confusion"]) as picture:
        assert picture.format == "PNG" and min(picture.size) > 300
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["confusion.png", "pictures.csv"]


def test_evaluate_takes_the_place_of_nothing_but_its_own_files_unless_told_to(model_folder, dataset_folder, tmp_path):
    """Found before any work; what is empty loses nothing."""
    pytest.importorskip("matplotlib")
    places = {"--json": tmp_path / "a.json", "--per-image": tmp_path / "a.csv", "--confusion": tmp_path / "a.png"}
    arguments = ("evaluate", "--model", model_folder, "--dataset", dataset_folder)
    options = [part for option in places.items() for part in option]
    (tmp_path / "a.json").touch()
    for _ in range(2):
        assert run(*arguments, *options).exit_code == 0
    foreign = {"--json": '{"my": "own"}', "--per-image": "name,price\n", "--confusion": "no picture"}
    for option, content in foreign.items():
        places[option].write_text(content)
        result = run("evaluate", "--model", "none", "--dataset", "none", option, places[option])
        assert result.exit_code == 1 and result.stderr.count("\n") == 1
        assert f"{places[option].name} is there, and not this command's own; name another, or pass" in result.stderr
        assert places[option].read_text() == content
    assert run(*arguments, *options, "--overwrite").exit_code == 0
    assert all(places[option].read_bytes() != content.encode() for option, content in foreign.items())


def test_files_are_written_over_no_device_or_pipe(model_folder, tmp_path):
    """A pipe keeps whoever opens it waiting; a device such as /dev/null is to stay what it is."""
    os.mkfifo(tmp_path / "cat.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "cat.jpg")
    for arguments in (
        ("segment", tmp_path / "cat.jpg", "--model", model_folder, "--out", tmp_path, "--overwrite"),
        ("evaluate", "--model", "none", "--dataset", "none", "--json", tmp_path / "cat.png"),
        ("evaluate", "--model", "none", "--dataset", "none", "--per-image", tmp_path / "cat.png", "--overwrite"),
    ):
        result = run(*arguments)
        assert result.exit_code == 1 and "is a device or a pipe" in result.stderr
    (tmp_path / "link.json").symlink_to(tmp_path / "nowhere")
    result = run("evaluate", "--model", "none", "--dataset", "none", "--json", tmp_path / "link.json")
    assert result.exit_code == 1 and "link.json is there" in result.stderr


@pytest.mark.parametrize(
    ("name", "out", "options"),
    [("a.jpg", "out", ()), ("a.jpg", "out", ("--tile",)), ("a.jpg", "out", ("--mirror",)), ("a.mp4", "b.mp4", ())],
    ids=str,
)
def test_nobody_waits_for_what_a_pipe_may_give(model_folder, tmp_path, name, out, options):
    os.mkfifo(tmp_path / name)
    done = threading.Event()

    def end_what_is_read():
        """Whoever opens the pipe finds it empty, or this test would wait instead of failing."""
        while not done.wait(0.05):
            with contextlib.suppress(OSError):  # nobody reads
                os.close(os.open(tmp_path / name, os.O_WRONLY | os.O_NONBLOCK))

    thread = threading.Thread(target=end_what_is_read)
    thread.start()
    result = run("segment", tmp_path / name, "--model", model_folder, "--out", tmp_path / out, *options)
    done.set()
    thread.join()
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert name in result.stderr and "a folder, a device or a pipe" in result.stderr


def test_evaluate_looks_at_pictures_as_it_is_told(model_folder, dataset_folder, tmp_path):
    from fcn_hf.datasets import load_splits
    from fcn_hf.evaluation import evaluate_split

    options = ("--window", "30x36", "--overlap", "0.25", "--scales", "0.75,1", "--mirror")
    run("evaluate", "--model", model_folder, "--dataset", dataset_folder, "--json", tmp_path / "s.json", *options)
    model = FCNForSemanticSegmentation.from_pretrained(model_folder).eval()
    mode = InferenceMode((30, 36), 0.25, (0.75, 1.0), True)
    rows = load_splits(str(dataset_folder))["validation"]
    scores = evaluate_split(model, FCNImageProcessor(num_labels=5), rows, ("image", "label"), mode)
    assert json.loads((tmp_path / "s.json").read_text()) == scores


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--window", "300"], "--window is '300'; expected HEIGHTxWIDTH"),
        (["--window", "0x5"], "window is (0, 5)"),
        (["--scales", "1;2"], "--scales is '1;2'; expected factors"),
        (["--overlap", "1"], "overlap is 1.0"),
        (["--metric", "mean_iou"], "mean_iou can't be fetched from the Hub"),
    ],
)
def test_evaluate_refuses_impossible_options_in_one_line(model_folder, dataset_folder, arguments, message):
    if "--metric" in arguments:
        pytest.importorskip("evaluate")
    result = run("evaluate", "--model", model_folder, "--dataset", dataset_folder, *arguments)
    assert result.exit_code == 1
    assert message in result.stderr.strip().splitlines()[-1] and "Traceback" not in result.output


@pytest.mark.parametrize(
    ("library", "arguments"),
    [
        ("evaluate", ["--metric", "mean_iou"]),
        ("scipy.spatial", ["--boundary"]),
        ("matplotlib.figure", ["--confusion", "c.png"]),
    ],
)
def test_evaluate_says_which_extra_is_missing(model_folder, dataset_folder, monkeypatch, library, arguments):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, "fcn_hf.confusion_picture", raising=False)
    result = run("evaluate", "--model", model_folder, "--dataset", dataset_folder, *arguments)
    assert result.exit_code == 1 and "pip install 'fcn-hf[evaluate]'" in result.stderr.strip().splitlines()[-1]


def test_evaluate_takes_the_hub_s_metric_in_place_of_its_own(model_folder, dataset_folder, tmp_path, monkeypatch):
    library = pytest.importorskip("evaluate")

    class Module:
        def add_batch(self, *, predictions, references):
            pass

        def compute(self, **arguments):
            names = ("mean_iou", "mean_accuracy", "overall_accuracy")
            return {**dict.fromkeys(names, 0.25), "per_category_iou": np.full(arguments["num_labels"], 0.25)}

    monkeypatch.setattr(library, "load", {"mean_iou": Module()}.__getitem__)
    arguments = ("--model", model_folder, "--dataset", dataset_folder, "--metric", "mean_iou")
    result = run("evaluate", *arguments, "--json", tmp_path / "scores.json")
    assert result.exit_code == 0 and "25.00" in result.stdout
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["mean_iou"] == 0.25 and scores["frequency_weighted_iou"] is None
