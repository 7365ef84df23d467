"""transformers' Trainer for segmentation: weighted and auxiliary loss, streaming scores, crash-safe checkpoints."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import EvalPrediction, Trainer, TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from fcn_hf import ConfusionMatrix
from training.losses import LossArguments, SegmentationLoss


class StreamingScores:
    """`compute_metrics` for `batch_eval_metrics=True`: one confusion matrix, whatever the size of the split."""

    def __init__(self, num_labels: int, ignore_index: int, label_names: list[str]):
        self.arguments = (num_labels, ignore_index, label_names)
        self.matrix = ConfusionMatrix(*self.arguments)

    def __call__(self, prediction: EvalPrediction, compute_result: bool = False) -> dict[str, float]:
        """Count one batch; after the last one return the four scores and start anew."""
        self.matrix.update(np.asarray(prediction.predictions), np.asarray(prediction.label_ids))
        if not compute_result:
            return {}
        scores = self.matrix.compute()
        self.matrix = ConfusionMatrix(*self.arguments)
        return {name: value for name, value in scores.items() if name != "per_class_iou"}


class EpochCallback(TrainerCallback):
    """Tells the training set which epoch begins, before its workers start."""

    def __init__(self, dataset):
        self.dataset = dataset

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.dataset.set_epoch(int((state.epoch or 0) + 1e-6))


@dataclass
class OptimizerArguments:
    """What the authors' release sets and `TrainingArguments` doesn't know."""

    momentum: float = field(default=0.0, metadata={"help": "Of `optim: sgd`; 0.99 in the authors' release."})
    bias_learning_rate_factor: float = field(
        default=1.0, metadata={"help": "Factor on the learning rate of biases, which never decay; 2 in the release."}
    )


class FCNTrainer(Trainer):
    """Trainer with the losses that FCN recipes need.

    Cross-entropy is a mean over labelled pixels, each weighted by its class: the sum of weighted cross-entropies
    divided by the sum of the weights. Under gradient accumulation and over several processes both sums run over the
    whole batch of the optimiser's step, so the gradient is that of the batch as a whole.

    Args:
        segmentation_loss (`SegmentationLoss`, *optional*): what is minimised; plain cross-entropy without it.
        optimizer_arguments (`OptimizerArguments`, *optional*): momentum, and the learning rate of biases.

    Raises:
        `ValueError`: if there is a momentum for an optimiser other than SGD.
    """

    def __init__(
        self,
        *args,
        segmentation_loss: SegmentationLoss | None = None,
        optimizer_arguments: OptimizerArguments | None = None,
        **kwargs,
    ):
        self.optimizer_arguments = optimizer_arguments or OptimizerArguments()
        super().__init__(*args, **kwargs, preprocess_logits_for_metrics=self._class_ids)
        # The loss below is a share of the whole accumulated batch; Trainer must not divide it by the steps once more.
        self.model_accepts_loss_kwargs = True
        config = self.model.config
        if segmentation_loss is None:
            segmentation_loss = SegmentationLoss(
                LossArguments(), torch.ones(config.num_labels), config.semantic_loss_ignore_index
            )
        self.segmentation_loss = segmentation_loss.to(self.args.device)

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """Trainer's, with momentum, and another learning rate for its group of biases."""
        optimizer = super().create_optimizer(model)
        momentum, factor = self.optimizer_arguments.momentum, self.optimizer_arguments.bias_learning_rate_factor
        if momentum and "momentum" not in optimizer.param_groups[0]:
            raise ValueError(f"momentum={momentum} is for optim=sgd; {type(optimizer).__name__} has none.")
        # Trainer puts what decays into the first group, and biases, which don't, into the second.
        for group, group_factor in zip(optimizer.param_groups, (1.0, factor), strict=True):
            group["lr"] *= group_factor
            if momentum:
                group["momentum"] = momentum
        return optimizer

    @staticmethod
    def _class_ids(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        # A byte a pixel instead of num_labels floats: what keeps evaluation in constant memory.
        return logits.argmax(dim=1).to(torch.uint8 if logits.shape[1] <= 256 else torch.int32)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | None:
        if not batch_samples or "labels" not in batch_samples[0]:
            return None
        weight = sum(self.segmentation_loss.weight_of(batch["labels"].to(device)) for batch in batch_samples)
        # Trainer's gradients are averaged over processes, so each divides by its share of the total weight.
        return self.accelerator.gather(weight.to(device)).sum() / self.accelerator.num_processes

    def compute_loss(
        self,
        model,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ):
        labels, loss_of = inputs["labels"], self.segmentation_loss
        arguments = loss_of.arguments
        auxiliary = arguments.auxiliary_loss_weight > 0 and model.training
        outputs = model(pixel_values=inputs["pixel_values"], output_hidden_states=auxiliary)
        weight = loss_of.weight_of(labels) if num_items_in_batch is None else num_items_in_batch
        if arguments.loss_reduction == "sum":
            weight = torch.ones_like(weight)
        loss = loss_of.cross_entropy(outputs.logits, labels) / weight.clamp(min=1)
        if loss_of.dice_loss is not None and model.training:
            loss = loss + loss_of.dice(outputs.logits, labels) / self.args.gradient_accumulation_steps
        if auxiliary:
            # An eighth of the size is enough to compare scores of stride 32 with, at a 64th of the cost.
            coarse_labels = labels[:, 4::8, 4::8]
            coarse_scores = self.accelerator.unwrap_model(model).score_fr(outputs.hidden_states[-1])
            coarse_scores = F.interpolate(coarse_scores.float(), coarse_labels.shape[-2:], mode="bilinear")
            auxiliary_loss = 64 * loss_of.cross_entropy(coarse_scores, coarse_labels) / weight.clamp(min=1)
            loss = loss + arguments.auxiliary_loss_weight * auxiliary_loss
        return (loss, {"logits": outputs.logits}) if return_outputs else loss


def last_complete_checkpoint(output_dir: str | Path, *needed: str) -> str | None:
    """The newest `checkpoint-N` folder that was written to its end, or None.

    Trainer writes trainer_state.json last: without it, or with half of it, the process was killed while it saved. So it
    was without one of the files `needed`, which callbacks write after that.
    """
    checkpoints = sorted(
        Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=lambda path: int(path.name.rpartition("-")[2])
    )
    for path in reversed(checkpoints):
        try:
            json.loads((path / "trainer_state.json").read_text())
        except (OSError, json.JSONDecodeError):
            continue
        if all((path / name).is_file() for name in needed):
            return str(path)
    return None
