"""What is shown of a net while it learns: comparisons, their legend, and the trackers that they go to."""

import dataclasses
import io
import runpy
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Trainer, TrainingArguments
from transformers.integrations import TensorBoardCallback

from fcn_hf import FCNImageProcessor
from fcn_hf.palettes import class_colours, voc_palette
from tests.helpers import REFUSED_PICTURES, picture_modes
from training import pictures
from training.data import ScoredRows
from training.ema import EMACallback
from training.labels import LabelIds
from training.pictures import (
    GAP,
    OPACITY,
    WIDTH,
    Example,
    PredictionPictures,
    chosen_rows,
    comparison,
    example_sheet,
    legend,
    predicted_examples,
    sheet_of,
)
from training.streets import streets_dataset
from training.trainer import FCNTrainer

COLUMN = (WIDTH - 2 * GAP) // 3
COLOURS = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200], [200, 200, 0]], np.uint8)
COLUMNS = ("image", "label")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """5 drawn scenes, as training evaluates them."""
    dataset = streets_dataset(5, height=48, width=64, cache_dir=tmp_path_factory.mktemp("cache"))
    return ScoredRows(dataset, COLUMNS, LabelIds(), "validation")


def make_trainer(model, folder, cls=Trainer, eval_dataset=None, **settings):
    """A run of 2 steps on noise that evaluates after each."""
    generator = torch.Generator().manual_seed(1)
    examples = [
        {
            "pixel_values": torch.randn(3, 16, 24, generator=generator),
            "labels": torch.randint(0, 11, (16, 24), generator=generator),
        }
        for _ in range(4)
    ]
    extra = {name: settings.pop(name) for name in ("callbacks", "ema") if name in settings}
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=2, eval_strategy="steps", eval_steps=1, logging_steps=1, learning_rate=0.01,
        save_strategy="no", use_cpu=True, remove_unused_columns=False, disable_tqdm=True, **settings,
    )  # fmt: skip
    return cls(
        model=model, args=arguments, train_dataset=examples, eval_dataset=eval_dataset or examples,
        processing_class=FCNImageProcessor(num_labels=11), **extra,
    )  # fmt: skip


def written(writer):
    """Names and steps of the pictures that a mock of TensorBoard's writer was given."""
    return [(call.args[0], call.args[2]) for call in writer.add_image.call_args_list]


def column(sheet, index):
    """One of the three columns of a comparison without captions."""
    left = index * (COLUMN + GAP)
    return np.asarray(sheet)[:, left : left + COLUMN]


def noise(height, width, mode="RGB"):
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), np.uint8)).convert(mode)


def test_a_comparison_shows_the_picture_its_label_and_its_prediction_in_this_order():
    grey = np.array([100, 120, 140])
    picture = Image.new("RGB", (64, 48), tuple(grey.tolist()))
    sheet = comparison(picture, np.full((48, 64), 1), np.full((48, 64), 2), COLOURS, 255, captions=False)
    masks = [OPACITY * COLOURS[index] + (1 - OPACITY) * grey for index in (1, 2)]
    for index, colour in enumerate([grey, *masks]):
        assert abs(column(sheet, index) - colour).max() <= 1
    assert (np.asarray(sheet)[:, COLUMN : COLUMN + GAP] == 255).all()


def test_captions_stand_above_the_columns():
    mask = np.zeros((48, 64), np.uint8)
    bare, captioned = (comparison(noise(48, 64), mask, mask, COLOURS, 255, captions=on) for on in (False, True))
    top = captioned.height - bare.height
    assert captioned.crop((0, top, WIDTH, captioned.height)).tobytes() == bare.tobytes()
    assert all((column(captioned, index)[:top] < 100).any() for index in range(3))


@pytest.mark.parametrize("size", [(48, 64), (1000, 2000), (600, 400), (1, 1), (3, 3000), (3000, 3)])
def test_comparisons_of_all_sizes_have_one_width_and_a_sane_height(size):
    mask = np.zeros(size, np.uint8)
    sheet = comparison(noise(*size), mask, mask, COLOURS, 255)
    assert sheet.mode == "RGB" and sheet.width == WIDTH
    assert 10 < sheet.height <= 1.25 * COLUMN + 40
    assert comparison(noise(*size), mask, mask, COLOURS, 255, width=300).width == 300


def test_a_comparison_keeps_the_picture_s_proportions():
    mask = np.zeros((100, 200), np.uint8)
    assert comparison(noise(100, 200), mask, mask, COLOURS, 255, captions=False).height == round(COLUMN / 2)


@pytest.mark.parametrize("size", [(48, 64), (960, 1280)])
@pytest.mark.parametrize("ignore_index", [255, -100, 0])
def test_ignored_pixels_are_hatched_in_greys_that_no_class_has(ignore_index, size):
    label = np.full(size, 1)
    label[:, : size[1] // 2] = ignore_index
    sheet = comparison(noise(*size), label, np.full(size, 1), COLOURS, ignore_index, captions=False)
    truth, prediction = column(sheet, 1), column(sheet, 2)
    hidden, shown = truth[:, : COLUMN // 2 - 5], truth[:, COLUMN // 2 + 5 :]
    assert {tuple(pixel) for pixel in hidden.reshape(-1, 3)} == {(90, 90, 90), (190, 190, 190)}
    assert (shown[..., 1] > shown[..., 0]).all() and (prediction[..., 1] > prediction[..., 0]).all()


@pytest.mark.parametrize("name", picture_modes())
def test_pictures_of_every_mode_are_shown_in_their_colours(name):
    picture, expected = picture_modes()[name]
    mask = np.zeros((1, len(expected)), np.uint8)
    colours = Image.fromarray(np.array([expected], np.uint8))
    shown, wanted = (comparison(source, mask, mask, COLOURS, 255) for source in (picture, colours))
    assert shown.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("name", REFUSED_PICTURES)
def test_pictures_without_a_known_range_are_refused(name):
    picture, message = REFUSED_PICTURES[name]
    with pytest.raises(ValueError, match=message):
        comparison(picture, np.zeros((1, 1), int), np.zeros((1, 1), int), COLOURS, 255)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA", "CMYK"])
def test_pictures_of_any_mode_are_shown(mode):
    mask = np.zeros((48, 64), np.uint8)
    sheet = comparison(noise(48, 64, mode), mask, mask, COLOURS, 255, captions=False)
    assert column(sheet, 0).std() > 10


def test_a_mask_of_another_size_or_without_colours_is_refused():
    mask = np.zeros((48, 64), np.uint8)
    with pytest.raises(ValueError, match=r"shape \(64, 48\), but its picture is 48 high and 64 wide"):
        comparison(noise(48, 64), mask, mask.T, COLOURS, 255)
    with pytest.raises(ValueError, match=r"ids 0\.\.4, but there are 4 colours"):
        mask[0, 0] = 4
        comparison(noise(48, 64), mask, mask, COLOURS, 255)


def test_a_legend_wraps_and_shows_every_colour():
    colours = np.array(voc_palette(60), np.uint8)
    few, many = legend(["sky"] * 3, colours[:3]), legend([f"class {index}" for index in range(60)], colours)
    assert few.width == many.width == WIDTH
    assert few.height < 40 and 5 * few.height < many.height < 500
    found = {tuple(pixel) for pixel in np.asarray(many).reshape(-1, 3).tolist()}
    assert found >= {tuple(colour) for colour in colours.tolist()}
    # A name that is wider than the picture has a line of its own.
    assert legend(["a" * 300, "b"], colours[:2]).height == 2 * few.height
    assert legend(["a\nb\tc"], colours[:1]).tobytes() == legend(["a b c"], colours[:1]).tobytes()


def test_names_in_other_languages_are_legible():
    drawn = {legend([letter], COLOURS[:1]).tobytes() for letter in "äöüéñßжд"}
    assert len(drawn) == 8, "letters without a glyph all look the same"


def test_a_sheet_s_legend_names_the_classes_that_occur_and_no_other():
    label, prediction = np.full((48, 64), 3), np.full((48, 64), 1)
    sheet = sheet_of([Example(noise(48, 64), label, prediction)], ["a", "b", "c", "d"], COLOURS, 255)
    expected = legend(["b", "d"], COLOURS[[1, 3]], WIDTH - 2 * GAP)
    box = (GAP, sheet.height - GAP - expected.height, WIDTH - GAP, sheet.height - GAP)
    assert sheet.crop(box).tobytes() == expected.tobytes()
    label[0, 0] = 255
    sheet = sheet_of([Example(noise(48, 64), label, prediction)], ["a", "b", "c", "d"], COLOURS, 255)
    expected = legend(["b", "d"], COLOURS[[1, 3]], WIDTH - 2 * GAP, unlabelled=True)
    assert sheet.crop(box).tobytes() == expected.tobytes()


def test_a_sheet_holds_every_example(tiny, rows):
    model, processor = tiny(num_labels=11), FCNImageProcessor(num_labels=11)
    sheet = example_sheet(model, processor, rows, 3)
    examples = predicted_examples(model, processor, chosen_rows(rows, 3), COLUMNS)
    names, colours = list(model.config.id2label.values()), class_colours(model.config)
    assert sheet.tobytes() == sheet_of(examples, names, colours, 255).tobytes()
    assert sheet.size[0] == WIDTH and sheet.height > 3 * 48 / 64 * (COLUMN - GAP)
    assert example_sheet(model, processor, rows, 1).height < sheet.height / 2


def test_rows_are_evenly_spread_and_of_a_stream_the_first_ones(rows):
    every = list(rows)

    def numbers(chosen):
        return [
            next(index for index, row in enumerate(every) if np.array_equal(row["label"], other["label"]))
            for other in chosen
        ]

    assert numbers(chosen_rows(rows, 3)) == [0, 2, 4]
    assert numbers(chosen_rows(rows, 1)) == [0]
    assert numbers(chosen_rows(rows, 100)) == [0, 1, 2, 3, 4]
    assert chosen_rows(rows, 0) == []
    stream = ScoredRows(rows.dataset.to_iterable_dataset(), COLUMNS, rows.label_ids, "validation")
    assert numbers(chosen_rows(stream, 2)) == [0, 1]


def test_a_model_is_left_in_the_mode_that_it_was_in_part_by_part(tiny, rows):
    model = tiny(num_labels=11).train()
    model.fcn.trunk.stages[0].conv1_1.eval()
    before = [module.training for module in model.modules()]
    processor = FCNImageProcessor(num_labels=11)
    shown = predicted_examples(model, processor, chosen_rows(rows, 1), COLUMNS)
    assert [module.training for module in model.modules()] == before
    again = predicted_examples(model.eval(), processor, chosen_rows(rows, 1), COLUMNS)
    assert np.array_equal(shown[0].prediction, again[0].prediction), "dropout was on"
    model.train()
    with pytest.raises(KeyError):
        predicted_examples(model, processor, [{}], COLUMNS)
    assert model.training


def read_tensorboard(folder, run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(next(Path(folder).glob("runs/*"))), size_guidance={"images": 0}).Reload()
    images = {
        (name, event.step): Image.open(io.BytesIO(event.encoded_image_string))
        for name in events.Tags()["images"]
        for event in events.Images(name)
    }
    return images, [event.step for event in events.Scalars("eval/loss")]


def read_wandb(folder, run):
    import wandb

    wandb.finish()
    wandb.teardown()
    images, steps = {}, []
    # Wandb's own steps, which are part of the names of files, count the calls of `log`.
    for call, values in enumerate(run):
        steps += [values["train/global_step"]] * ("eval/loss" in values)
        for name in [name for name in values if "picture" in name]:
            (path,) = Path(folder).glob(f"wandb/offline-run-*/files/media/images/{name}_{call}_*.png")
            images[name, values["train/global_step"]] = Image.open(path)
    return images, steps


def read_trackio(folder, run):
    from trackio.sqlite_storage import SQLiteStorage
    from trackio.utils import MEDIA_DIR

    images, steps = {}, []
    for values in SQLiteStorage.get_logs(folder.name, "tiny"):
        steps += [values["train/global_step"]] * ("eval/loss" in values)
        for name in [name for name in values if "picture" in name]:
            images[name, values["train/global_step"]] = Image.open(MEDIA_DIR / values[name]["file_path"])
    return images, steps


@pytest.mark.parametrize(
    ("report_to", "read"), [("tensorboard", read_tensorboard), ("wandb", read_wandb), ("trackio", read_trackio)]
)
def test_each_tracker_has_the_pictures_at_the_steps_of_its_scores(tiny, rows, tmp_path, monkeypatch, report_to, read):
    for name in ("DIR", "CACHE_DIR", "CONFIG_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path))
    for name, value in {"MODE": "offline", "SILENT": "true", "CONSOLE": "off", "ERROR_REPORTING": "false"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    calls = []
    if report_to == "wandb":
        import wandb

        log = wandb.Run.log
        monkeypatch.setattr(wandb.Run, "log", lambda run, data, *args: (calls.append(data), log(run, data, *args))[1])

    model = tiny(num_labels=11)
    trainer = make_trainer(model, tmp_path, report_to=report_to, project=tmp_path.name, run_name="tiny")
    trainer.add_callback(PredictionPictures(trainer, rows, count=2))
    trainer.train()
    images, steps = read(tmp_path, calls)
    assert steps == [1, 2]
    assert sorted(images) == [(f"eval/picture_{number}", step) for number in (1, 2) for step in (1, 2)]
    examples = predicted_examples(model, trainer.processing_class, chosen_rows(rows, 2), COLUMNS)
    for number, example in enumerate(examples, start=1):
        expected = comparison(*example, class_colours(model.config), 255)
        assert images[f"eval/picture_{number}", 2].convert("RGB").tobytes() == expected.tobytes()


def test_two_trackers_at_a_time_both_have_the_pictures(tiny, rows, tmp_path):
    class OtherTensorBoard(TensorBoardCallback):
        pass

    trackers = [TensorBoardCallback(Mock()), OtherTensorBoard(Mock())]
    trainer = make_trainer(tiny(num_labels=11), tmp_path, report_to="none", callbacks=trackers)
    callback = PredictionPictures(trainer, rows, count=1)
    callback.on_evaluate(trainer.args, trainer.state, trainer.control, model=trainer.model)
    assert [written(tracker.tb_writer) for tracker in trackers] == 2 * [[("eval/picture_1", 0)]]


def test_only_the_main_process_logs(tiny, rows, tmp_path):
    writer = Mock()
    trainer = make_trainer(tiny(num_labels=11), tmp_path, report_to="none", callbacks=[TensorBoardCallback(writer)])
    callback = PredictionPictures(trainer, rows, count=2)
    for main in (False, True):
        state = dataclasses.replace(trainer.state, is_world_process_zero=main, global_step=7)
        callback.on_evaluate(trainer.args, state, trainer.control, model=trainer.model)
        assert written(writer) == ([("eval/picture_1", 7), ("eval/picture_2", 7)] if main else [])


def test_without_a_tracker_nothing_is_imported_read_or_predicted(tiny, tmp_path, monkeypatch):
    tracker = TensorBoardCallback(Mock())
    for name in ("wandb", "trackio", "tensorboard", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    runpy.run_path(pictures.__file__)
    trainer = make_trainer(tiny(num_labels=11), tmp_path, report_to="none")
    trainer.add_callback(PredictionPictures(trainer, rows=None))
    trainer.train()
    trainer.add_callback(tracker)
    with pytest.raises(AttributeError):
        trainer.evaluate()


def test_a_count_of_zero_shows_nothing(tiny, rows, tmp_path):
    writer = Mock()
    trainer = make_trainer(tiny(num_labels=11), tmp_path, report_to="none", callbacks=[TensorBoardCallback(writer)])
    PredictionPictures(trainer, rows, 0).on_evaluate(trainer.args, trainer.state, trainer.control, model=trainer.model)
    assert written(writer) == []


def test_pictures_are_predicted_by_the_average_where_the_average_is_scored(tiny, rows, tmp_path, monkeypatch):
    models = []

    def recorded(model, processor, picture):
        models.append(model is trainer.ema.average.module)
        return np.zeros((picture.height, picture.width), int)

    monkeypatch.setattr(pictures, "predict", recorded)
    trainer = make_trainer(
        tiny(num_labels=11), tmp_path, FCNTrainer, rows, report_to="none", ema=EMACallback(0.5),
        callbacks=[TensorBoardCallback(Mock())],
    )  # fmt: skip
    trainer.add_callback(PredictionPictures(trainer, rows, 1))
    trainer.train()
    assert models == [True, True]
