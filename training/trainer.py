"""transformers' Trainer for segmentation: weighted and auxiliary loss, streaming scores, crash-safe checkpoints."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import EvalPrediction, Trainer, TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from fcn_hf import ConfusionMatrix


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


class FCNTrainer(Trainer):
    """Trainer with the losses that FCN recipes need.

    The loss is a mean over labelled pixels, each weighted by its class: the sum of weighted cross-entropies divided by
    the sum of the weights. Under gradient accumulation and over several processes both sums run over the whole batch
    of the optimiser's step, so the gradient is that of the batch as a whole.

    Args:
        class_weights (`torch.Tensor` of shape `(num_labels,)`, *optional*): ones without it.
        auxiliary_loss_weight (`float`): factor on the same loss of the coarse scores (stride 32), in training only.
    """

    def __init__(self, *args, class_weights: torch.Tensor | None = None, auxiliary_loss_weight: float = 0.0, **kwargs):
        super().__init__(*args, **kwargs, preprocess_logits_for_metrics=self._class_ids)
        # The loss below is a share of the whole accumulated batch; Trainer must not divide it by the steps once more.
        self.model_accepts_loss_kwargs = True
        num_labels = self.model.config.num_labels
        self.class_weights = torch.ones(num_labels) if class_weights is None else class_weights
        self.class_weights = self.class_weights.to(self.args.device)
        self.auxiliary_loss_weight = auxiliary_loss_weight
        self.ignore_index = self.model.config.semantic_loss_ignore_index

    @staticmethod
    def _class_ids(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        # A byte a pixel instead of num_labels floats: what keeps evaluation in constant memory.
        return logits.argmax(dim=1).to(torch.uint8 if logits.shape[1] <= 256 else torch.int32)

    def _weight_of(self, labels: torch.Tensor) -> torch.Tensor:
        labelled = labels[labels != self.ignore_index]
        return torch.bincount(labelled, minlength=len(self.class_weights)).to(self.class_weights) @ self.class_weights

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | None:
        if not batch_samples or "labels" not in batch_samples[0]:
            return None
        weight = sum(self._weight_of(batch["labels"].to(self.class_weights.device)) for batch in batch_samples)
        # Trainer's gradients are averaged over processes, so each divides by its share of the total weight.
        return self.accelerator.gather(weight.to(device)).sum() / self.accelerator.num_processes

    def compute_loss(
        self,
        model,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ):
        labels = inputs["labels"]
        auxiliary = self.auxiliary_loss_weight > 0 and model.training
        outputs = model(pixel_values=inputs["pixel_values"], output_hidden_states=auxiliary)
        weight = self._weight_of(labels) if num_items_in_batch is None else num_items_in_batch
        loss = self._cross_entropy(outputs.logits, labels) / weight.clamp(min=1)
        if auxiliary:
            # An eighth of the size is enough to compare scores of stride 32 with, at a 64th of the cost.
            coarse_labels = labels[:, 4::8, 4::8]
            coarse_scores = self.accelerator.unwrap_model(model).score_fr(outputs.hidden_states[-1])
            coarse_scores = F.interpolate(coarse_scores.float(), coarse_labels.shape[-2:], mode="bilinear")
            auxiliary_loss = 64 * self._cross_entropy(coarse_scores, coarse_labels) / weight.clamp(min=1)
            loss = loss + self.auxiliary_loss_weight * auxiliary_loss
        return (loss, {"logits": outputs.logits}) if return_outputs else loss

    def _cross_entropy(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(
            logits.float(), labels, weight=self.class_weights, ignore_index=self.ignore_index, reduction="sum"
        )


def last_complete_checkpoint(output_dir: str | Path) -> str | None:
    """The newest `checkpoint-N` folder that was written to its end, or None.

    Trainer writes trainer_state.json last: without it, or with half of it, the process was killed while it saved.
    """
    checkpoints = sorted(
        Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=lambda path: int(path.name.rpartition("-")[2])
    )
    for path in reversed(checkpoints):
        try:
            json.loads((path / "trainer_state.json").read_text())
        except (OSError, json.JSONDecodeError):
            continue
        return str(path)
    return None
