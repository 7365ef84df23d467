"""What several heads on one trunk, and several trunks under one head, promise."""

import json

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch.nn import functional as F

from fcn_hf import FCNConfig, FCNForSemanticSegmentation
from fcn_hf.convert.names import published_names
from tests.helpers import published_state

STRIDES = (32, 16, 8)
# Not in alphabetical order, in which JSON would put them.
TASKS = {"semantic": 5, "geometric": 3, "alpha": 2}


def draw_labels(tasks: dict[str, int], size: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {task: torch.randint(0, count, size) for task, count in tasks.items()}


# Names


@pytest.mark.parametrize("settings", [{}, {"streams": (3,)}], ids=["plain", "one-stream"])
def test_one_head_and_one_stream_keep_the_names_of_the_paper(settings):
    with torch.device("meta"):
        model = FCNForSemanticSegmentation(FCNConfig(num_labels=21, **settings))
    convolutions = [
        f"conv{stage}_{layer}" for stage, depth in enumerate((2, 2, 3, 3, 3), 1) for layer in range(1, depth + 1)
    ]
    layers = [*convolutions, "fc6", "fc7", "score_fr", "score_pool4", "score_pool3"]
    upsamplings = ["upscore2", "upscore_pool4", "upscore8"]
    assert set(published_state(model)) == {
        *(f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")),
        *(f"{upsampling}.weight" for upsampling in upsamplings),
    }


def test_one_net_has_no_logits_by_task(tiny):
    outputs = tiny()(torch.randn(1, 3, 20, 30))
    assert outputs.logits_by_task is None and "logits_by_task" not in outputs


def test_names_tell_tasks_and_streams_apart(tiny):
    model = tiny(tasks={"semantic": 5, "geometric": 3}, streams=(3, 1), prediction_stride=16)
    names = set(published_names(model.state_dict()))
    assert {name.partition(".")[0] for name in names if name.startswith(("score", "upscore"))} == {
        f"{layer}_{task}"
        for layer in ("score_fr", "score_pool4", "upscore2", "upscore16")
        for task in ("semantic", "geometric")
    }
    trunk = {name for name in names if not name.startswith(("score", "upscore"))}
    first = {name for name in trunk if not name.partition(".")[0].endswith("_stream2")}
    assert trunk - first == {"_stream2.".join(name.split(".")) for name in first}
    assert [trunk.stages[0].conv1_1.in_channels for trunk in model.fcn.trunk] == [3, 1]


# Tasks


@pytest.mark.parametrize("stride", STRIDES)
def test_each_task_answers_as_a_net_of_its_own(tiny, stride):
    model, pixel_values = tiny(tasks=TASKS, prediction_stride=stride), torch.randn(2, 3, 50, 70)
    outputs = model(pixel_values)
    assert list(outputs.logits_by_task) == list(TASKS)
    assert torch.equal(outputs.logits, outputs.logits_by_task["semantic"])
    for task, count in TASKS.items():
        single = tiny(num_labels=count, prediction_stride=stride)
        weights = {name.replace(f".{task}.", ".semantic."): value for name, value in model.state_dict().items()
                   if task in name or not name.startswith("heads.")}  # fmt: skip
        single.load_state_dict({name: weights[name] for name in single.state_dict()})
        assert outputs.logits_by_task[task].shape == (2, count, 50, 70)
        assert torch.equal(outputs.logits_by_task[task], single(pixel_values).logits)


def test_losses_of_the_tasks_add_up(tiny):
    model, pixel_values = tiny(tasks=TASKS), torch.randn(2, 3, 20, 30)
    labels = draw_labels(TASKS, (2, 20, 30))
    labels["geometric"][0] = 255
    outputs = model(pixel_values, labels=labels)
    singles = {task: F.cross_entropy(outputs.logits_by_task[task], labels[task], ignore_index=255) for task in TASKS}
    torch.testing.assert_close(outputs.loss, sum(singles.values()))
    # Those without labels don't count, and neither do those whose pixels are all ignored.
    some = {"geometric": labels["geometric"], "alpha": torch.full((2, 20, 30), 255)}
    torch.testing.assert_close(model(pixel_values, labels=some).loss, singles["geometric"])
    # A tensor labels the first task.
    torch.testing.assert_close(model(pixel_values, labels=labels["semantic"]).loss, singles["semantic"])


def test_every_head_learns_from_its_own_labels_only(tiny):
    model = tiny(tasks=TASKS).train()
    labels = draw_labels(TASKS, (1, 40, 40))
    model(torch.randn(1, 3, 40, 40), labels={"geometric": labels["geometric"]}).loss.backward()
    trained = {
        name for name, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.any()
    }
    head, first = "heads.geometric", "fcn.trunk.stages.0.conv1_1.weight"
    assert {f"{head}.score_fr.weight", f"{head}.upscore8.weight", first} <= trained
    assert not any("semantic" in name or "alpha" in name for name in trained)


def test_a_net_of_one_task_takes_labels_by_no_name(tiny):
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    with pytest.raises(ValueError, match="labels are given for the tasks.*'semantic'.*a tensor"):
        tiny()(torch.randn(1, 3, 8, 8), labels={"semantic": labels})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"depth": torch.zeros(1, 8, 8).long()}, r"tasks \['depth'\].*\['semantic', 'geometric', 'alpha'\]"),
        ({}, r"tasks \[\]"),
        ({"alpha": torch.full((1, 8, 8), 2)}, r"labels hold \[2\], outside 0..1"),
        ({"alpha": torch.zeros(1, 4, 4).long()}, r"labels have shape \(1, 4, 4\)"),
    ],
    ids=["unknown", "none", "out-of-range", "shape"],
)
def test_wrong_labels_are_named(tiny, labels, message):
    with pytest.raises(ValueError, match=message):
        tiny(tasks=TASKS)(torch.randn(1, 3, 8, 8), labels=labels)


def test_tasks_keep_their_order_and_names_in_a_file(tiny, tmp_path):
    labels = {"semantic": dict(enumerate("abcde")), "geometric": {0: "sky", 1: "vertical", 2: "horizontal"}}
    model = tiny(tasks=TASKS, id2label_by_task=labels)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["tasks"] == [list(item) for item in TASKS.items()]
    loaded, pixel_values = FCNForSemanticSegmentation.from_pretrained(tmp_path), torch.randn(1, 3, 33, 40)
    assert list(loaded.config.tasks.items()) == list(TASKS.items())
    assert loaded.config.id2label_by_task == labels
    assert loaded.config.id2label == labels["semantic"] and loaded.config.num_labels == 5
    assert FCNConfig(tasks=TASKS, id2label_by_task=labels).id2label == labels["semantic"]
    assert loaded.config.label2id == {label: index for index, label in labels["semantic"].items()}
    expected = model(pixel_values).logits_by_task
    for task, logits in loaded(pixel_values).logits_by_task.items():
        assert torch.equal(logits, expected[task])


def test_tasks_without_names_have_numbered_classes():
    config = FCNConfig(tasks={"semantic": 3})
    assert config.num_labels == 3 and config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert FCNConfig(tasks=TASKS, num_labels=5).num_labels == 5
    assert FCNConfig(tasks=TASKS, id2label=dict(enumerate("abcde"))).id2label[4] == "e"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": TASKS, "num_labels": 4}, "num_labels=4.*'semantic', has 5"),
        ({"tasks": TASKS, "id2label": {0: "a"}}, "num_labels=1.*'semantic', has 5"),
        ({"tasks": {}}, "tasks=.*at least one task"),
        ({"tasks": {"semantic": 5, "geometric": 0}}, "tasks=.*'geometric': 0"),
        ({"tasks": {"a.b": 2}}, "tasks=.*a.b"),
        ({"tasks": {"items": 2}}, "tasks=.*'items'.*ModuleDict"),
        ({"tasks": TASKS, "id2label_by_task": {"depth": {0: "near"}}}, "id2label_by_task.*'depth'"),
        (
            {"tasks": TASKS, "id2label_by_task": {"alpha": {0: "no", 2: "yes"}}},
            "id2label_by_task.*'alpha'.*without gaps",
        ),
        ({"id2label_by_task": {"alpha": {0: "no"}}}, "id2label_by_task.*'alpha'"),
        ({"streams": (3, 1), "num_channels": 3}, r"streams=\(3, 1\).*num_channels=3"),
        ({"streams": (3, 0)}, r"streams=\(3, 0\).*positive"),
    ],
)
def test_wrong_tasks_and_streams_are_named(settings, message):
    with pytest.raises((StrictDataclassError, ValueError), match=f"(?s){message}"):
        FCNConfig(**settings)


# Streams


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("geometry", ["same", "caffe"])
@pytest.mark.parametrize("streams", [(3, 3), (3, 1)], ids=str)
@torch.no_grad()
def test_scoring_all_streams_together_averages_their_scores(tiny, streams, geometry, stride):
    settings = {"prediction_stride": stride, "geometry": geometry, "skip_scales": (0.5, 0.25)}
    model = tiny(streams=streams, **settings)
    assert model.config.num_channels == sum(streams)
    pixel_values = torch.randn(2, sum(streams), 50, 41)
    logits = []
    for number, part in enumerate(pixel_values.split(streams, dim=1)):
        single = tiny(num_channels=part.shape[1], **settings)
        weights = model.state_dict()
        for name, value in single.state_dict().items():
            if name.startswith("fcn."):
                value.copy_(weights[name.replace("fcn.trunk", f"fcn.trunk.{number}")])
            elif ".score_" in name and name.endswith("weight"):
                # The one scorer of all streams: its share of the channels, times as many as there are streams.
                value.copy_(2 * weights[name].chunk(2, dim=1)[number])
            else:
                value.copy_(weights[name])
        logits.append(single(part).logits)
    assert not torch.allclose(*logits)
    torch.testing.assert_close(model(pixel_values).logits, torch.stack(logits).mean(dim=0), atol=1e-5, rtol=1e-4)


def test_streams_and_tasks_go_together(tiny, tmp_path):
    tasks = {"semantic": 5, "geometric": 3}
    model = tiny(streams=(3, 3), tasks=tasks, use_batch_norm=True)
    model.save_pretrained(tmp_path)
    loaded, pixel_values = FCNForSemanticSegmentation.from_pretrained(tmp_path), torch.randn(1, 6, 33, 40)
    assert list(loaded.config.streams) == [3, 3]
    outputs, expected = loaded(pixel_values, output_hidden_states=True), model(pixel_values)
    assert all(torch.equal(outputs.logits_by_task[task], expected.logits_by_task[task]) for task in tasks)
    assert len(outputs.hidden_states) == 6 and outputs.hidden_states[-1].shape[1] == 2 * 8
    model.train()(pixel_values, labels=draw_labels(tasks, (1, 33, 40))).loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    assert model.fcn.trunk[1].stages[0].conv1_1.weight.grad.any()
    assert model.heads["geometric"].score_fr.weight.grad[:, 8:].any()


def test_pictures_without_the_channels_of_all_streams_are_refused(tiny):
    with pytest.raises(ValueError, match=r"\(1, 3, 8, 8\).*expected \(batch, 6"):
        tiny(streams=(3, 3))(torch.randn(1, 3, 8, 8))


def test_tasks_and_streams_compile_as_one_graph(tiny):
    model, pixel_values = tiny(streams=(3, 1), tasks=TASKS, prediction_stride=32), torch.randn(1, 4, 33, 47)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(pixel_values)
    for task, logits in model(pixel_values).logits_by_task.items():
        torch.testing.assert_close(compiled.logits_by_task[task], logits)


def test_gradient_checkpointing_covers_every_stream(tiny):
    model = tiny(streams=(3, 1), tasks=TASKS, hidden_dropout_prob=0.0).train()
    pixel_values, labels = torch.randn(1, 4, 40, 40), draw_labels(TASKS, (1, 40, 40))
    model(pixel_values, labels=labels).loss.backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model(pixel_values, labels=labels).loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], msg=name)
