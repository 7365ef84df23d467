"""Which net a recipe gives: a new one, one that goes on from another, or a sentence on why there is none."""

import copy
import json

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import ResNetConfig, TimmBackboneConfig

from fcn_hf import FCNConfig, FCNForSemanticSegmentation, FCNImageProcessor
from fcn_hf.datasets import DatasetError
from fcn_hf.errors import FCNError
from fcn_hf.upsampling_fcn import bilinear_kernel
from tests.helpers import layers, save_tiny
from training.augmentation import AugmentationArguments
from training.average import average, main
from training.model import ModelArguments, build_model, build_processor, build_teacher, synchronised


def test_a_start_with_other_classes_gives_its_trunk_and_says_that_scores_begin_anew(tiny, tmp_path, capsys):
    start = tiny(num_labels=5)
    start.save_pretrained(tmp_path)
    arguments = ModelArguments(str(tmp_path), prediction_stride=8)
    for count, said in ((5, ""), (3, "knows 5 classes and the dataset 3")):
        model = build_model(arguments, {index: f"class {index}" for index in range(count)})
        assert said in capsys.readouterr().out
        assert torch.equal(layers(model)["fc6"].weight, layers(start)["fc6"].weight)
        head, start_head = model.heads["semantic"], start.heads["semantic"]
        assert head.score_fr.weight.shape[0] == count and model.config.num_labels == count
        assert model.config.label2id == {f"class {index}": index for index in range(count)}
        assert count != 5 or torch.equal(head.score_fr.weight, start_head.score_fr.weight)
    assert (head.score_pool3.weight == 0).all() and torch.equal(head.upscore8.weight[2, 0], bilinear_kernel(8))
    with pytest.raises(SystemExit, match="No weights to start from at 'nowhere'"):
        build_model(ModelArguments("nowhere"), {0: "a"})
    five = {index: f"class {index}" for index in range(5)}
    for size, said in ((8, ""), (16, f"hidden_size is 16 in the recipe, but 8 in '{tmp_path}', whose net is taken.\n")):
        model = build_model(ModelArguments(str(tmp_path), depths=[1] * 5, hidden_size=size), five)
        assert model.config.hidden_size == 8 and capsys.readouterr().out == said


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prediction_stride": 12}, "prediction_stride=12 is not known; expected one of"),
        ({"backbone": "auto"}, "backbone='auto' needs a backbone_config"),
        ({"backbone": "auto", "backbone_config": "{model_type: rocket}"}, "model_type='rocket'; expected one"),
        ({"backbone": "auto", "backbone_config": "[1, 2]"}, "backbone_config"),
    ],
    ids=str,
)
def test_a_net_that_there_is_not_gets_one_sentence(settings, message):
    with pytest.raises(SystemExit, match=message) as refusal:
        build_model(ModelArguments(**settings), {0: "a", 1: "b"})
    assert "\n" not in str(refusal.value)


def test_a_teacher_knows_the_same_classes_and_wants_the_same_values(tiny, tmp_path):
    processor = FCNImageProcessor(num_labels=3)
    tiny(num_labels=3).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    arguments = ModelArguments(teacher_model_name_or_path=str(tmp_path))
    classes = {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert build_teacher(arguments, classes, processor).num_parameters() == tiny(num_labels=3).num_parameters()
    assert build_teacher(ModelArguments(), classes, processor) is None
    with pytest.raises(SystemExit, match=r"knows the classes .*LABEL_2.*; what is learnt here is \['sky'"):
        build_teacher(arguments, {0: "sky"}, processor)
    with pytest.raises(FCNError, match=r"wants pictures with image_mean=.* and the net here has \(0.5"):
        build_teacher(arguments, classes, FCNImageProcessor(num_labels=3, image_mean=[0.5] * 3))
    with pytest.raises(SystemExit, match="No teacher at 'nowhere'"):
        build_teacher(ModelArguments(teacher_model_name_or_path="nowhere"), classes, processor)


def test_nets_that_aren_t_whole_are_neither_started_from_nor_learnt_from_nor_averaged(tmp_path):
    """What transformers only logs, or ends in a stack trace for."""
    weights, config = "model.safetensors", "config.json"
    first = "fcn.trunk.stages.0.conv1_1.weight"

    def changed(name, change, **settings):
        folder = save_tiny(tmp_path / name, **settings)
        change(folder)
        return folder

    def store(folder, values):
        save_file({**load_file(folder / weights), **values}, folder / weights, {"format": "pt"})

    def claim(folder, **settings):
        (folder / config).write_text(json.dumps(json.loads((folder / config).read_text()) | settings))

    def drop(folder):
        tensors = load_file(folder / weights)
        save_file({name: tensors[name] for name in tensors if name != first}, folder / weights, {"format": "pt"})

    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    broken = {
        "lacks": (lambda folder: drop(folder), f"weights lack {first}"),
        "more": (lambda folder: claim(folder, depths=[1] * 5), "weights hold .*conv1_2.bias, for which its config has"),
        "nan": (lambda folder: store(folder, {first: torch.full((4, 3, 3, 3), torch.nan)}), f"{first} .* finite"),
        "other": (lambda folder: claim(folder, hidden_size=16), "aren't of the shape"),
        "pointer": (lambda folder: (folder / weights).write_text(pointer), "is a Git LFS pointer"),
        "type": (lambda folder: claim(folder, model_type="segformer"), "the type 'segformer'; expected 'fcn'"),
        "channels": (lambda folder: None, "takes 4 channels, and pictures have 3"),
    }
    five, processor = {index: f"LABEL_{index}" for index in range(5)}, FCNImageProcessor(num_labels=5)
    for name, (change, message) in broken.items():
        settings = {"depths": (2, 1, 1, 1, 1)} if name == "more" else {"num_channels": 4} if name == "channels" else {}
        folder = str(changed(name, change, **settings))
        for classes in (five, {0: "a", 1: "b"}):
            with pytest.raises(SystemExit, match=f"^No weights to start from at '{folder}': .*{message}"):
                build_model(ModelArguments(folder), classes)
        with pytest.raises(SystemExit, match=f"^No teacher at '{folder}': .*{message}"):
            build_teacher(ModelArguments(teacher_model_name_or_path=folder), five, processor)
        if name != "channels":
            with pytest.raises(SystemExit, match=f"^No average of .*'{folder}': .*{message}"):
                main([folder], tmp_path / "average")
    assert not (tmp_path / "average").exists()


def test_of_a_start_with_several_tasks_one_is_learnt(tmp_path, capsys):
    start = save_tiny(tmp_path, tasks={"semantic": 5, "geometric": 3})
    for count in (5, 2):
        model = build_model(ModelArguments(str(start)), {index: f"class {index}" for index in range(count)})
        assert list(model.heads) == ["semantic"] and model.config.tasks == {"semantic": count}
        assert model(torch.zeros(1, 3, 8, 8)).logits.shape[1] == count
        assert "'semantic' is learnt, without 'geometric'" in capsys.readouterr().out


def test_a_start_s_processor_is_taken_over_but_not_how_it_read_ids_nor_where_it_is_damaged(tmp_path, capsys):
    FCNImageProcessor(image_mean=[0.1] * 3, do_reduce_labels=True).save_pretrained(tmp_path)
    processor = build_processor(AugmentationArguments(), 3, 255, str(tmp_path))
    assert processor.image_mean == (0.1, 0.1, 0.1) and processor.do_reduce_labels is False
    path = tmp_path / "preprocessor_config.json"
    for text, message in (("{", "not a valid JSON"), ('{"image_std": [0, 0, 0]}', "image_std is")):
        path.write_text(text)
        with pytest.raises(SystemExit, match=f"^No weights to start from at .*{message}"):
            build_processor(AugmentationArguments(), 3, 255, str(tmp_path))
    path.unlink()
    assert build_processor(AugmentationArguments(), 3, 255, str(tmp_path)).image_mean == FCNImageProcessor().image_mean
    assert "has no preprocessor_config.json: its pictures are taken to have ImageNet's mean" in capsys.readouterr().out
    with pytest.raises(DatasetError, match="shortest_edge=100000 must be whole pixels in 1..65536"):
        AugmentationArguments(shortest_edge=100000)


def test_an_average_of_nets_is_that_of_their_weights_and_statistics(tiny, tmp_path):
    folders = [tmp_path / name for name in ("a", "b", "out")]
    for folder in folders[:2]:
        net = tiny(use_batch_norm=True)
        for value in net.state_dict().values():
            value += torch.rand(value.shape).to(value)
        net.save_pretrained(folder)
        FCNImageProcessor(num_labels=5).save_pretrained(folder)
    main([str(folder) for folder in folders[:2]], folders[2], [3, 1])
    first, second, mean = (FCNForSemanticSegmentation.from_pretrained(folder).state_dict() for folder in folders)
    for name, value in mean.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.75 * first[name] + 0.25 * second[name], msg=name)
    assert FCNImageProcessor.from_pretrained(folders[2]).num_labels == 5
    main([str(folders[0])], tmp_path / "half", weights_dtype="float16")
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tmp_path / "half", folders[0])]
    assert sizes[0] < 0.7 * sizes[1]
    before = (folders[0] / "model.safetensors").read_bytes()
    with pytest.raises(FCNError, match="a already exists and is left as it is"):
        main([str(folder) for folder in folders[:2]], folders[0])
    assert (folders[0] / "model.safetensors").read_bytes() == before
    net = tiny()
    net.heads["semantic"].score_fr.bias.data[0] = 1e5
    net.save_pretrained(tmp_path / "large")
    FCNImageProcessor(num_labels=5).save_pretrained(tmp_path / "large")
    with pytest.raises(FCNError, match="score_fr.bias has values beyond 65504, the largest of torch.float16"):
        main([str(tmp_path / "large")], tmp_path / "small", weights_dtype="float16")
    with pytest.raises(FCNError, match="weights_dtype=half must be float32, float16"):
        main([str(folders[0])], folders[2], weights_dtype="half")
    FCNImageProcessor(num_labels=5, image_mean=[0.5] * 3).save_pretrained(folders[1])
    with pytest.raises(FCNError, match="b' wants pictures with image_mean"):
        main([str(folder) for folder in folders[:2]], tmp_path / "none")
    # Before any net is looked for.
    with pytest.raises(FCNError, match="config.json already exists and is left as it is"):
        main(["nowhere"], folders[0] / "config.json")
    with pytest.raises(FCNError, match="config.json is a file"):
        main(["nowhere"], folders[0] / "config.json" / "none")
    with pytest.raises(SystemExit, match="No average of nowhere"):
        main(["nowhere"], tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("settings", "weights", "message"),
    [
        ({}, [1.0], "The weights are .*one above 0 for each of the 2 models"),
        ({}, [1.0, -1.0], "one above 0"),
        ({}, [1.0, float("nan")], "one above 0"),
        ({"hidden_size": 7}, [1.0, 1.0], "is another net than '': see 'fcn"),
        ({"prediction_stride": 16}, [1.0, 1.0], "is another net"),
        ({"id2label": dict(enumerate("abcde"))}, [1.0, 1.0], "has id2label=.*'a'.* instead of"),
        ({"upsampling": "bilinear"}, [1.0, 1.0], "has upsampling=bilinear instead of learned"),
        ({"skip_scales": [0.5, 1.0]}, [1.0, 1.0], "has skip_scales="),
        ({"tasks": {"a": 5, "b": 5}}, [1.0, 1.0], r"has tasks=\[\['a', 5\], \['b', 5\]\] instead of"),
    ],
    ids=str,
)
def test_nets_that_have_no_average_are_refused(tiny, settings, weights, message):
    other = {"tasks": dict(reversed(settings["tasks"].items()))} if "tasks" in settings else {}
    with pytest.raises(FCNError, match=message):
        average([tiny(**other), tiny(**settings)], weights)


def test_backbones_are_alike_in_what_no_weight_tells(tiny):
    def net(activation):
        sizes = {"embedding_size": 4, "hidden_sizes": [4] * 4, "depths": [1] * 4, "layer_type": "basic"}
        backbone = ResNetConfig(hidden_act=activation, **sizes)
        return FCNForSemanticSegmentation(FCNConfig(backbone="auto", backbone_config=backbone, num_labels=3))

    with pytest.raises(FCNError, match="has backbone_config=.*'gelu'.* instead of .*'relu'"):
        average([net("relu"), net("gelu")], [1.0, 1.0])
    heavy = average([tiny(), tiny()], [1e308, 1e308])
    assert torch.equal(heavy.heads["semantic"].score_fr.weight, tiny().heads["semantic"].score_fr.weight)


@pytest.mark.parametrize("backbone", ["vgg", "timm"])
@torch.no_grad()
def test_synchronised_batch_normalisation_answers_as_before(tiny, backbone):
    model = tiny(use_batch_norm=True)
    if backbone == "timm":
        config = FCNConfig(
            backbone="auto", backbone_config=TimmBackboneConfig(backbone="test_efficientnet"), num_labels=3
        )
        model = FCNForSemanticSegmentation(config).eval()
        assert any(isinstance(module, timm.layers.BatchNormAct2d) for module in model.modules())
    pixel_values = torch.randn(2, 3, 40, 50)
    expected, names = model(pixel_values).logits, list(model.state_dict())
    together = synchronised(copy.deepcopy(model)).eval()
    norms = [module for module in together.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms and all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    assert list(together.state_dict()) == names
    assert torch.equal(together(pixel_values).logits, expected)
