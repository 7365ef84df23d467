"""The trainer: its gradients, its scores, its checkpoints, and what learns how fast."""

import pytest
import torch
from torch.nn import functional as F
from transformers import TrainerCallback, TrainingArguments

from fcn_hf import FCNImageProcessor
from fcn_hf.datasets import DatasetError
from fcn_hf.errors import FCNError
from fcn_hf.evaluation import evaluate_split
from training.augmentation import AugmentationArguments, training_augmentation
from training.data import ScoredRows
from training.ema import EMACallback
from training.examples import Collator, SegmentationDataset
from training.labels import LabelIds
from training.losses import LossArguments, SegmentationLoss
from training.streets import streets_dataset
from training.trainer import FCNTrainer, OptimizerArguments, last_complete_checkpoint


def test_gradient_accumulation_gives_the_gradient_of_the_whole_batch(tiny, tmp_path):
    """Two micro-batches of 384 and 2 labelled pixels: a mean of means would weigh the two 192 times too much."""
    torch.manual_seed(0)
    pixel_values, labels = torch.randn(2, 3, 16, 24), torch.randint(0, 5, (2, 16, 24))
    labels[1] = 255
    labels[1, 0, :2] = torch.tensor([3, 4])
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5])
    model = tiny(hidden_dropout_prob=0.0).train()
    F.cross_entropy(model(pixel_values).logits, labels, weight=weights, ignore_index=255).backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    examples = [{"pixel_values": pixel_values[i], "labels": labels[i]} for i in range(2)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=1, gradient_accumulation_steps=2, max_steps=1,
        learning_rate=1.0, optim="sgd", lr_scheduler_type="constant", max_grad_norm=0, weight_decay=0, use_cpu=True,
        remove_unused_columns=False, report_to="none", save_strategy="no", disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    loss = SegmentationLoss(LossArguments(), weights)
    trainer = FCNTrainer(
        model=model, args=arguments, train_dataset=examples, data_collator=Collator(), segmentation_loss=loss
    )
    model.zero_grad()
    trainer.train()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(before[name] - parameter.detach(), expected[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("decay", [None, 0.5])
def test_evaluation_gives_the_scores_of_fcn_hf_evaluate_of_the_weights_that_will_be_kept(tiny, tmp_path, decay):
    rows = streets_dataset(3, height=48, width=64, cache_dir=tmp_path / "cache")
    scored = ScoredRows(rows, ("image", "label"), LabelIds(), "validation")
    # Resized to less than the masks' size: scores at the processor's size would differ.
    processor = FCNImageProcessor(num_labels=11, do_resize=True, size={"shortest_edge": 32})
    model = tiny(num_labels=11, hidden_dropout_prob=0.5)
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=3, eval_strategy="steps", eval_steps=1, learning_rate=0.3, optim="sgd",
        lr_scheduler_type="constant", per_device_train_batch_size=2, use_cpu=True, remove_unused_columns=False,
        report_to="none", save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    augment = training_augmentation(AugmentationArguments([32, 48]))
    trainer = FCNTrainer(
        model=model, args=arguments, train_dataset=SegmentationDataset(rows, scored.columns, processor, augment),
        eval_dataset=scored, processing_class=processor, data_collator=Collator(),
        ema=None if decay is None else EMACallback(decay),
    )  # fmt: skip
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "eval_mean_iou" in entry]
    assert [entry["step"] for entry in entries] == [1, 2, 3]
    expected = evaluate_split(model.eval(), processor, rows, scored.columns)
    for name in ("mean_iou", "mean_accuracy", "pixel_accuracy", "frequency_weighted_iou"):
        assert entries[-1][f"eval_{name}"] == expected[name]
    assert len({entry["eval_pixel_accuracy"] for entry in entries}) > 1
    seconds = [entry["seconds"] for entry in trainer.state.log_history]
    assert seconds == sorted(seconds) and seconds[-1] > 0
    assert [entry["pictures"] for entry in entries] == [2, 4, 6]


def test_a_checkpoint_cut_off_while_it_was_written_is_passed_over(tmp_path):
    for step, state in [(9, "{}"), (10, "{}"), (11, '{"global_st'), (12, None)]:
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state is not None:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert last_complete_checkpoint(tmp_path / "checkpoint-9") is None
    (tmp_path / "checkpoint-9" / "ema.pt").touch()
    assert last_complete_checkpoint(tmp_path, "ema.pt") == str(tmp_path / "checkpoint-9")


def test_biases_learn_twice_as_fast_and_do_not_decay(tiny, tmp_path):
    arguments = TrainingArguments(
        output_dir=str(tmp_path), optim="sgd", learning_rate=0.5, weight_decay=0.1, use_cpu=True, report_to="none"
    )
    settings = OptimizerArguments(momentum=0.9, bias_learning_rate_factor=2)
    weights, biases = (
        FCNTrainer(model=tiny(), args=arguments, optimizer_arguments=settings).create_optimizer().param_groups
    )
    assert (weights["lr"], weights["weight_decay"], weights["momentum"]) == (0.5, 0.1, 0.9)
    assert (biases["lr"], biases["weight_decay"], biases["momentum"]) == (1.0, 0.0, 0.9)
    assert {parameter.ndim for parameter in biases["params"]} == {1}
    arguments.optim = "adamw_torch"
    with pytest.raises(ValueError, match="momentum=0.9 is for optim=sgd"):
        FCNTrainer(model=tiny(), args=arguments, optimizer_arguments=settings).create_optimizer()


def tiny_trainer(model, folder, ema=None, optimizer_arguments=None, **settings):
    torch.manual_seed(1)
    examples = [{"pixel_values": torch.randn(3, 16, 24), "labels": torch.randint(0, 5, (16, 24))} for _ in range(4)]
    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=2, learning_rate=0.1, optim="adamw_torch", use_cpu=True,
        lr_scheduler_type="cosine", weight_decay=0.1, disable_tqdm=True, logging_strategy="no", **settings,
    )  # fmt: skip
    return FCNTrainer(
        model=model, args=arguments, train_dataset=examples, data_collator=Collator(), ema=ema,
        optimizer_arguments=optimizer_arguments,
    )  # fmt: skip


def test_trunk_and_biases_have_learning_rates_of_their_own(tiny, tmp_path):
    model = tiny()
    arguments = OptimizerArguments(bias_learning_rate_factor=2, trunk_learning_rate_factor=0.1)
    optimizer = tiny_trainer(model, tmp_path, optimizer_arguments=arguments).create_optimizer()
    found = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    trunk = {id(parameter) for parameter in model.base_model.parameters()}
    assert 0 < len(trunk) < len(found) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        rate = 0.1 * (2 if parameter.ndim == 1 else 1) * (0.1 if id(parameter) in trunk else 1)
        assert found[id(parameter)] == (pytest.approx(rate), 0.0 if parameter.ndim == 1 else 0.1), name
    with pytest.raises(DatasetError, match="trunk_learning_rate_factor=-1 must be 0 or more"):
        OptimizerArguments(trunk_learning_rate_factor=-1)


def test_a_factor_of_0_freezes_the_trunk_and_nothing_else(tiny, tmp_path):
    model = tiny(use_batch_norm=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    arguments = OptimizerArguments(trunk_learning_rate_factor=0)
    tiny_trainer(model, tmp_path, optimizer_arguments=arguments, max_steps=2, save_strategy="no").train()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith("fcn."), name


def test_parts_of_the_trunk_are_frozen_by_name(tiny, tmp_path):
    model = tiny(use_batch_norm=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    arguments = OptimizerArguments(frozen_layers=["trunk.stages.0", "trunk.stages.1"])
    tiny_trainer(model, tmp_path, optimizer_arguments=arguments, max_steps=2, save_strategy="no").train()
    for name, tensor in model.state_dict().items():
        frozen = name.startswith(("fcn.trunk.stages.0.", "fcn.trunk.stages.1."))
        assert torch.equal(tensor, before[name]) == frozen, name
    with pytest.raises(DatasetError, match="frozen_layers: the model has no 'trunk.stages.9'; it has trunk.stages."):
        tiny_trainer(model, tmp_path, optimizer_arguments=OptimizerArguments(frozen_layers=["trunk.stages.9"]))


@pytest.mark.parametrize("decay", [None, 0.5])
def test_frozen_batch_norm_keeps_its_statistics_and_weights_while_the_rest_learns(tiny, tmp_path, decay):
    model = tiny(use_batch_norm=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ema = None if decay is None else EMACallback(decay)
    arguments = OptimizerArguments(freeze_batch_norm=True)
    tiny_trainer(model, tmp_path, ema, arguments, max_steps=3, save_strategy="no").train()
    norms = {
        f"{name}.{key}"
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d)
        for key in module.state_dict()
    }
    assert norms
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name in norms), name


def test_learning_rates_of_their_own_follow_the_schedule_and_are_resumed(tiny, tmp_path):
    arguments = OptimizerArguments(bias_learning_rate_factor=2, trunk_learning_rate_factor=0.1, freeze_batch_norm=True)

    def trainer(name):
        settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
        model = tiny(use_batch_norm=True, hidden_dropout_prob=0.0)
        return tiny_trainer(model, tmp_path / name, optimizer_arguments=arguments, **settings)

    rates = []

    class Rates(TrainerCallback):
        def on_step_begin(self, args, state, control, lr_scheduler=None, **kwargs):
            rates.append(lr_scheduler.get_last_lr())

    straight, resumed = trainer("straight"), trainer("resumed")
    straight.add_callback(Rates())
    straight.train()
    assert len(rates) == 4 and rates[3][0] < rates[1][0] < rates[0][0] == pytest.approx(0.1)
    for weights, biases, trunk_weights, trunk_biases in rates:
        assert [biases, trunk_weights, trunk_biases] == pytest.approx([2 * weights, 0.1 * weights, 0.2 * weights])
    resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-2"))
    expected = straight.model.state_dict()
    for name, tensor in resumed.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_a_single_position_is_too_little_for_batch_normalisation_to_learn_of(tiny, tmp_path):
    trainer = tiny_trainer(tiny(use_batch_norm=True), tmp_path, max_steps=1, save_strategy="no")
    trainer.train_dataset = [{name: values[..., :16, :16] for name, values in trainer.train_dataset[0].items()}]
    with pytest.raises(FCNError, match="A batch becomes a single position.*larger batches or crops"):
        trainer.train()
    frozen = OptimizerArguments(freeze_batch_norm=True)
    again = tiny_trainer(tiny(use_batch_norm=True), tmp_path, None, frozen, max_steps=1, save_strategy="no")
    again.train_dataset = trainer.train_dataset
    again.train()
