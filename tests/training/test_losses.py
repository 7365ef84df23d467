"""What training minimises, and the average of weights that it may leave behind."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import TrainingArguments

from training.data import median_frequency_weights
from training.ema import EMACallback, averaged_weights
from training.examples import Collator
from training.losses import LossArguments, SegmentationLoss
from training.trainer import FCNTrainer


@pytest.fixture
def batch():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 16, 24), torch.randint(0, 5, (2, 16, 24))
    labels[:, :3] = 255
    return logits, labels


def make_trainer(model, folder, loss=None, ema=None, teacher=None, **settings):
    torch.manual_seed(1)
    examples = [{"pixel_values": torch.randn(3, 16, 24), "labels": torch.randint(0, 5, (16, 24))} for _ in range(4)]
    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=2, learning_rate=0.01, use_cpu=True, report_to="none",
        remove_unused_columns=False, disable_tqdm=True, logging_strategy="no", **settings,
    )  # fmt: skip
    return FCNTrainer(
        model=model, args=arguments, train_dataset=examples, data_collator=Collator(), segmentation_loss=loss,
        ema=ema, teacher=teacher,
    )  # fmt: skip


def test_cross_entropy_over_its_weight_is_pytorch_s_weighted_mean(batch):
    logits, labels = batch
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5])
    loss = SegmentationLoss(LossArguments(), weights)
    mean = loss.cross_entropy(logits, labels) / loss.weight_of(labels)
    torch.testing.assert_close(mean, F.cross_entropy(logits, labels, weight=weights, ignore_index=255))


def test_hard_pixels_are_those_with_the_largest_loss(batch):
    logits, labels = batch
    loss = SegmentationLoss(LossArguments(hard_pixels=0.25), torch.ones(5))
    each = F.cross_entropy(logits, labels, ignore_index=255, reduction="none")[labels != 255].sort().values
    quarter = each[-each.numel() // 4 :]
    torch.testing.assert_close(loss.cross_entropy(logits, labels) / loss.weight_of(labels), quarter.mean())


@pytest.mark.parametrize("share", [0, -0.1, 1.1])
def test_a_wrong_share_of_hard_pixels_is_refused(share):
    with pytest.raises(ValueError, match=f"hard_pixels={share}"):
        SegmentationLoss(LossArguments(hard_pixels=share), torch.ones(5))


def test_the_smallest_share_of_hard_pixels_is_one_pixel(batch):
    """With none the loss would be 0 for ever."""
    logits, labels = batch
    loss = SegmentationLoss(LossArguments(hard_pixels=1e-9), torch.ones(5))
    each = F.cross_entropy(logits, labels, ignore_index=255, reduction="none")
    torch.testing.assert_close(loss.cross_entropy(logits, labels), each.max())
    assert loss.cross_entropy(logits, torch.full_like(labels, 255)) == 0


@pytest.mark.parametrize("term", ["dice_loss_weight", "lovasz_loss_weight"])
def test_region_losses_are_zero_for_a_perfect_answer_and_ignore_what_is_unlabelled(batch, term):
    logits, labels = batch
    loss = SegmentationLoss(LossArguments(**{term: 2.0}), torch.ones(5))
    perfect = 50 * F.one_hot(labels.clamp(max=4), 5).permute(0, 3, 1, 2).float()
    assert loss.regions(perfect, labels) < 1e-3 < 0.5 < loss.regions(logits, labels) < 2
    changed = logits.clone()
    changed[:, :, :3] = torch.randn(2, 5, 3, 24)
    torch.testing.assert_close(loss.regions(changed, labels), loss.regions(logits, labels))
    unlabelled = loss.regions(logits.requires_grad_(), torch.full_like(labels, 255))
    unlabelled.backward()
    assert unlabelled == 0 and logits.grad.abs().sum() == 0


def test_region_losses_add_up(batch):
    losses = {
        terms: SegmentationLoss(LossArguments(**dict.fromkeys(terms, 0.5)), torch.ones(5)).regions(*batch)
        for terms in (("dice_loss_weight",), ("lovasz_loss_weight",), ("dice_loss_weight", "lovasz_loss_weight"))
    }
    dice, lovasz, both = losses.values()
    assert abs(dice - lovasz) > 1e-3
    torch.testing.assert_close(dice + lovasz, both)


@pytest.mark.parametrize("term", ["dice_loss_weight", "lovasz_loss_weight", "auxiliary_loss_weight"])
def test_further_terms_are_part_of_training_but_not_of_evaluation(tiny, tmp_path, batch, term):
    inputs = {"pixel_values": torch.randn(2, 3, 16, 24), "labels": batch[1]}
    model = tiny(hidden_dropout_prob=0.0)
    plain, more = (
        make_trainer(model, tmp_path, SegmentationLoss(LossArguments(**settings), torch.ones(5)))
        for settings in ({}, {term: 0.7})
    )
    assert more.compute_loss(model.train(), inputs) > plain.compute_loss(model.train(), inputs) + 0.01
    torch.testing.assert_close(more.compute_loss(model.eval(), inputs), plain.compute_loss(model.eval(), inputs))
    pixel = {"pixel_values": torch.randn(1, 3, 1, 1), "labels": torch.zeros(1, 1, 1, dtype=torch.int64)}
    assert more.compute_loss(model.train(), pixel).isfinite()


def test_a_teacher_s_answers_are_learnt_where_something_is_labelled(tiny, tmp_path, batch):
    logits, labels = batch
    taught = torch.randn(2, 5, 16, 24)
    loss = SegmentationLoss(LossArguments(), torch.ones(5))
    each = -(taught.softmax(1) * logits.log_softmax(1)).sum(1)
    torch.testing.assert_close(loss.teaching(logits, taught, labels), each[labels != 255].mean())
    assert loss.teaching(logits, taught, torch.full_like(labels, 255)) == 0

    inputs = {"pixel_values": torch.randn(2, 3, 16, 24), "labels": labels}
    model, teacher = tiny(hidden_dropout_prob=0.0), tiny(hidden_dropout_prob=0.0).train()
    plain = make_trainer(model, tmp_path)
    doubled = SegmentationLoss(LossArguments(teacher_loss_weight=2), torch.ones(5))
    trainer = make_trainer(model, tmp_path, doubled, teacher=teacher)
    assert not teacher.training
    with torch.no_grad():
        answers = [net(inputs["pixel_values"]).logits for net in (model.train(), teacher)]
    expected = plain.compute_loss(model, inputs) + 2 * loss.teaching(*answers, labels)
    torch.testing.assert_close(trainer.compute_loss(model, inputs), expected)
    trainer.compute_loss(model, inputs).backward()
    assert all(weight.grad is None for weight in teacher.parameters())
    torch.testing.assert_close(trainer.compute_loss(model.eval(), inputs), plain.compute_loss(model, inputs))


def test_a_summed_loss_is_the_mean_times_the_labelled_pixels(tiny, tmp_path, batch):
    inputs = {"pixel_values": torch.randn(2, 3, 16, 24), "labels": batch[1]}
    model = tiny(hidden_dropout_prob=0.0)
    mean, summed = (
        make_trainer(model, tmp_path, SegmentationLoss(LossArguments(loss_reduction=kind), torch.ones(5)))
        for kind in ("mean", "sum")
    )
    labelled = (batch[1] != 255).sum()
    torch.testing.assert_close(summed.compute_loss(model, inputs), mean.compute_loss(model, inputs) * labelled)


def test_the_average_follows_the_weights_and_takes_their_place_in_the_end(tiny, tmp_path):
    model = tiny(hidden_dropout_prob=0.0)
    start = copy.deepcopy(model.state_dict())
    make_trainer(model, tmp_path, max_steps=1, save_strategy="no").train()
    raw = copy.deepcopy(model.state_dict())
    again = tiny(hidden_dropout_prob=0.0)
    # torch's AveragedModel takes over the weights as they are at its first update; the second step is averaged.
    make_trainer(again, tmp_path, ema=EMACallback(0.75), max_steps=1, save_strategy="no").train()
    assert any(not torch.equal(raw[name], start[name]) for name in raw)
    for name, value in again.state_dict().items():
        torch.testing.assert_close(value, raw[name], msg=name)
    two = tiny(hidden_dropout_prob=0.0)
    make_trainer(two, tmp_path / "raw", max_steps=2, save_strategy="no", lr_scheduler_type="constant").train()
    averaged = tiny(hidden_dropout_prob=0.0)
    settings = {"max_steps": 2, "save_strategy": "no", "lr_scheduler_type": "constant"}
    make_trainer(averaged, tmp_path / "ema", ema=EMACallback(0.75), **settings).train()
    one = tiny(hidden_dropout_prob=0.0)
    make_trainer(one, tmp_path / "one", max_steps=1, save_strategy="no", lr_scheduler_type="constant").train()
    for name, value in averaged.state_dict().items():
        if value.is_floating_point():
            expected = 0.75 * one.state_dict()[name] + 0.25 * two.state_dict()[name]
            torch.testing.assert_close(value, expected, msg=name)


def test_a_resumed_average_is_that_of_an_uninterrupted_run(tiny, tmp_path):
    settings = {"max_steps": 4, "save_steps": 2}
    whole = tiny(hidden_dropout_prob=0.0)
    make_trainer(whole, tmp_path / "whole", ema=EMACallback(0.9), **settings).train()
    checkpoint = str(tmp_path / "whole" / "checkpoint-2")
    resumed = tiny(hidden_dropout_prob=0.0)
    trainer = make_trainer(resumed, tmp_path / "resumed", ema=EMACallback(0.9, checkpoint), **settings)
    trainer.train(resume_from_checkpoint=checkpoint)
    stored = averaged_weights(str(tmp_path / "whole" / "checkpoint-4"))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]) and torch.equal(value, stored[name]), name


def test_a_checkpoint_without_an_average_is_refused(tiny, tmp_path):
    (tmp_path / "checkpoint-1").mkdir()
    trainer = make_trainer(tiny(), tmp_path, ema=EMACallback(0.9, str(tmp_path / "checkpoint-1")), max_steps=1)
    with pytest.raises(ValueError, match="without ema_decay"):
        trainer.train()


@pytest.mark.parametrize("decay", [0.0, 1.0, 7])
def test_a_wrong_decay_is_refused(decay):
    with pytest.raises(ValueError, match=f"ema_decay={decay}"):
        EMACallback(decay)


def test_class_weights_are_the_root_of_median_frequency_clipped():
    counts = np.array([800, 100, 50, 50, 0])
    weights = median_frequency_weights(counts, power=0.5, maximum=1.2)
    # Frequencies 0.8, 0.1, 0.05, 0.05; their median is 0.075.
    torch.testing.assert_close(weights, torch.tensor([(0.075 / 0.8) ** 0.5, (0.075 / 0.1) ** 0.5, 1.2, 1.2, 1.0]))
