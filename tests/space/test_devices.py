"""On ZeroGPU, on a GPU of one's own and on the CPU: where a request is computed."""

import pickle
from unittest.mock import Mock

import pytest
import torch

from space import devices, explain, inference
from space.explain_ui import Explanations
from space.handlers import Handlers
from space.inference import Segmenter
from space.kinds import Kind, load_kinds
from space.pictures import Examples


@pytest.fixture
def zero_gpu(monkeypatch):
    """ZeroGPU as its client is: arguments and results travel between processes, here as far as pickling goes."""

    def gpu(task, duration):
        return lambda *arguments: pickle.loads(pickle.dumps(task(*pickle.loads(pickle.dumps(arguments)))))

    monkeypatch.setattr(devices, "GPU", gpu)
    monkeypatch.setattr(devices, "ZERO_GPU", True)


def test_without_zero_gpu_a_handler_runs_as_it_is(monkeypatch):
    handler = len
    monkeypatch.setattr(devices, "GPU", pytest.fail)
    assert devices.on_gpu(handler) is handler
    for there, name in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert devices.device().type == name


def test_zero_gpu_is_used_within_handlers_only(zero_gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # as it is everywhere on ZeroGPU
    assert devices.on_gpu(lambda: devices.device().type)() == "cuda"
    assert devices.device().type == "cpu"


def test_what_handlers_take_and_give_can_travel(zero_gpu, monkeypatch, model_folders, noise_picture, tmp_path):
    monkeypatch.setattr(inference, "device", lambda: torch.device("cpu"))
    handlers = Handlers(load_kinds({"street": model_folders}))
    noise_picture(40, 30).save(tmp_path / "a.png")
    upload = {"path": str(tmp_path / "a.png")}
    assert "fcn-panel" in devices.on_gpu(handlers.show_upload)("street", upload, False)[1]
    assert "fcn-panel" in devices.on_gpu(handlers.choose)("street", upload, True)[1]
    overlays, label_maps, summary = devices.on_gpu(handlers.answer)(upload, "street")
    assert overlays[0][0].size == label_maps[0][0].size == (40, 30) and len(summary) == 3
    explanations = Explanations(handlers.kind)
    assert "fcn-why" in devices.on_gpu(explanations.why)("street", upload, False, 3, 4)[0]
    assert "fcn-inside" in devices.on_gpu(explanations.inside)("street", upload, True)
    pictures, answers = devices.on_gpu(explanations.explain)(upload, "street", 3, 4)
    assert pictures[0][0].size == (40, 30) and len(answers) == 3


def test_network_and_picture_meet_on_the_device(monkeypatch, model_folders, noise_picture):
    """On the one device besides the CPU that every machine has; what it computes is never there."""
    segmenter = Segmenter.from_pretrained(model_folders[0])
    monkeypatch.setattr(inference, "device", lambda: torch.device("meta"))
    places = []

    def post_process(outputs, target_sizes):
        places.append(outputs.logits.device.type)
        return [torch.zeros(target_sizes[0])]

    monkeypatch.setattr(segmenter.processor, "post_process_semantic_segmentation", post_process)
    monkeypatch.setattr(inference, "check_scores", lambda scores: places.append(scores.device.type))
    segmenter.segment(noise_picture(40, 30))
    assert places == ["meta", "meta"]


def test_networks_are_explained_on_the_device(monkeypatch, model_folders, noise_picture):
    kind = Kind("street", "Streets", (Segmenter.from_pretrained(model_folders[2]),), Examples())
    monkeypatch.setattr(inference, "device", lambda: torch.device("meta"))
    given = Mock()
    given.return_value = [Mock(receptive_field=None)]
    monkeypatch.setattr(explain, "explain_together", given)
    monkeypatch.setattr(explain, "refinement", given)
    explain.ask(kind, noise_picture(40, 30), 3, 4)
    ((model, _),) = given.call_args.args[0]
    assert model.device.type == "meta"
    kind.segmenters[0].model.to_empty(device="cpu")
    explain.look_inside(kind.segmenters[0], noise_picture(40, 30))
    assert given.call_args.args[0].device.type == "meta"
