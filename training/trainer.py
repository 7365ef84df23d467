"""transformers' Trainer for segmentation: its losses, its scores, crash-safe checkpoints."""

import inspect
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from fcn_hf import ConfusionMatrix, FCNForSemanticSegmentation
from fcn_hf.datasets import DatasetError
from fcn_hf.errors import FCNError
from fcn_hf.evaluation import evaluate_split, label_arguments
from fcn_hf.prediction import check_finite, evaluation_mode
from training.data import ScoredRows, length
from training.ema import EMACallback
from training.examples import SegmentationStream
from training.limits import check_values
from training.losses import LossArguments, SegmentationLoss

# Trainer writes it last into the folder of a checkpoint.
STATE_FILE = "trainer_state.json"


class EpochCallback(TrainerCallback):
    """Tells the training set which epoch begins, before its workers start."""

    def __init__(self, dataset):
        self.dataset = dataset

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.dataset.set_epoch(int((state.epoch or 0) + 1e-6))


class RunTotals(TrainerCallback):
    """Notes in each entry of the log what has gone into the run, over all its sessions: `seconds` and `pictures`."""

    def __init__(self):
        self.start = time.monotonic()

    def on_train_begin(self, args, state, control, **kwargs):
        earlier = state.log_history[-1].get("seconds", 0) if state.log_history else 0
        self.start = time.monotonic() - earlier

    def on_log(self, args, state, control, **kwargs):
        batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        entry = {"seconds": round(time.monotonic() - self.start, 1), "pictures": state.global_step * batch}
        state.log_history[-1] |= entry


@dataclass
class OptimizerArguments:
    """How fast which weights learn, as far as `TrainingArguments` doesn't say it."""

    momentum: float = field(default=0.0, metadata={"help": "Of `optim: sgd`; 0.99 in the authors' release."})
    bias_learning_rate_factor: float = field(
        default=1.0, metadata={"help": "Factor on the learning rate of biases, which never decay; 2 in the release."}
    )
    trunk_learning_rate_factor: float = field(
        default=1.0,
        metadata={
            "help": "Factor on the learning rate of the classifier's layers, which a start has taught already; 0.1 is "
            "usual, 0 freezes them and their statistics."
        },
    )
    frozen_layers: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Parts of `model.base_model` that keep their weights and statistics, by name: trunk.stages.0, or "
            "trunk.backbone._backbone.blocks.0. Early ones take most of the time and change little."
        },
    )
    freeze_batch_norm: bool = field(
        default=False,
        metadata={"help": "The trunk's batch normalisation keeps its statistics, weights and biases."},
    )

    def __post_init__(self):
        check_values(self)


def check_momentum(optimizer: type[torch.optim.Optimizer], momentum: float) -> None:
    """Raise `FCNError` if there is a momentum for an optimiser that has none."""
    if momentum and "momentum" not in inspect.signature(optimizer).parameters:
        raise FCNError(f"momentum={momentum} is for optim=sgd; {optimizer.__name__} has none.")


class FCNTrainer(Trainer):
    """Trainer with the losses that FCN recipes need and the scores that `fcn-hf evaluate` gives.

    Cross-entropy is a mean over labelled pixels, each weighted by its class: the sum of weighted cross-entropies
    divided by the sum of the weights. Under gradient accumulation and over several processes both sums run over the
    whole batch of the optimiser's step, so the gradient is that of the batch as a whole.

    Args:
        eval_dataset (`ScoredRows`, *optional*): what `evaluate` scores.
        segmentation_loss (`SegmentationLoss`, *optional*): what is minimised; plain cross-entropy without it.
        optimizer_arguments (`OptimizerArguments`, *optional*): momentum, and what learns more slowly or not at all.
        ema (`EMACallback`, *optional*): the moving average that `evaluate` scores in place of the weights.
        teacher (`FCNForSemanticSegmentation`, *optional*): whose answers to each batch are learnt beside its labels.
        writers (*optional*): what writes more files into the folder of a checkpoint, each called with it.

    Raises:
        `FCNError`: if there is a momentum for an optimiser other than SGD, or weights aren't finite.
    """

    def __init__(
        self,
        model: FCNForSemanticSegmentation,
        *,
        segmentation_loss: SegmentationLoss | None = None,
        optimizer_arguments: OptimizerArguments | None = None,
        ema: EMACallback | None = None,
        teacher: FCNForSemanticSegmentation | None = None,
        writers: Iterable[Callable[[Path], object]] = (),
        callbacks: list[TrainerCallback] | None = None,
        **kwargs,
    ):
        self.optimizer_arguments = optimizer_arguments or OptimizerArguments()
        self.ema = ema
        self.writers = [*([ema.save] if ema else []), *writers]
        super().__init__(model, callbacks=[RunTotals(), *([ema] if ema else []), *(callbacks or [])], **kwargs)
        self._freeze(model)
        # The loss below is a share of the whole accumulated batch; Trainer must not divide it by the steps once more.
        self.model_accepts_loss_kwargs = True
        if segmentation_loss is None:
            num_labels, ignore_index, _ = label_arguments(model.config)
            segmentation_loss = SegmentationLoss(LossArguments(), torch.ones(num_labels), ignore_index)
        self.segmentation_loss = segmentation_loss.to(self.args.device)
        self.teacher = None if teacher is None else teacher.eval().requires_grad_(False).to(self.args.device)

    def _freeze(self, model: FCNForSemanticSegmentation) -> None:
        """Exclude from training what `optimizer_arguments` say."""
        base, arguments = model.base_model, self.optimizer_arguments
        names = dict(base.named_modules())
        unknown = [name for name in arguments.frozen_layers if name not in names]
        if unknown:
            close = get_close_matches(unknown[0], names, 3) or [name for name in names if name.count(".") < 2]
            raise DatasetError(f"frozen_layers: the model has no {unknown[0]!r}; it has {', '.join(close)}.")
        parts = [names[name] for name in arguments.frozen_layers]
        parts += [base] if arguments.trunk_learning_rate_factor == 0 else []
        for part in parts:
            part.requires_grad_(False)
        parts += [base] if arguments.freeze_batch_norm else []
        # What doesn't learn doesn't follow the statistics of new pictures either.
        self.frozen_norms = [module for part in parts for module in part.modules() if isinstance(module, _BatchNorm)]
        for norm in self.frozen_norms:
            norm.requires_grad_(False)

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """Trainer's, with momentum, and with learning rates of their own for biases and for the trunk."""
        optimizer = super().create_optimizer(model)
        arguments = self.optimizer_arguments
        check_momentum(type(optimizer), arguments.momentum)
        # Trainer puts what decays into the first group, and biases, which don't, into the second.
        for group, factor in zip(optimizer.param_groups, (1.0, arguments.bias_learning_rate_factor), strict=True):
            group["lr"] *= factor
            if arguments.momentum:
                group["momentum"] = arguments.momentum
        if arguments.trunk_learning_rate_factor not in (0, 1):
            trunk = self.accelerator.unwrap_model(self.model if model is None else model).base_model
            _split_groups(optimizer, trunk.parameters(), arguments.trunk_learning_rate_factor)
        return optimizer

    def get_train_dataloader(self) -> DataLoader:
        """Trainer's; a stream is already this process's own part, and isn't dealt out once more."""
        if not isinstance(self.train_dataset, SegmentationStream):
            return super().get_train_dataloader()
        return DataLoader(
            self.train_dataset,
            batch_size=self._train_batch_size,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | None:
        if not batch_samples or "labels" not in batch_samples[0]:
            return None
        processes = self.accelerator.num_processes
        # Trainer's gradients are averaged over processes, so each divides by its share of the total weight.
        if self.segmentation_loss.arguments.loss_reduction == "sum":
            return torch.ones((), device=device) / processes
        weights = [self.segmentation_loss.weight_of(batch["labels"].to(device)) for batch in batch_samples]
        return self.accelerator.gather(torch.stack(weights).sum()).sum().clamp(min=1) / processes

    def training_step(self, *args, **kwargs) -> torch.Tensor:
        """Trainer's; a loss that isn't finite, which Trainer logs as 0, ends the run.

        Raises:
            `FCNError`: naming the step; or if pictures are too small for batch normalisation to learn of.
        """
        try:
            loss = super().training_step(*args, **kwargs)
        except ValueError as error:
            # How far a trunk reduces a picture before it normalises is known to the trunk alone.
            if "more than 1 value per channel" not in str(error):
                raise
            raise FCNError(
                "A batch becomes a single position, of which batch normalisation can't learn; use larger batches or "
                "crops, or freeze_batch_norm."
            ) from error
        if not torch.isfinite(loss):
            raise FCNError(
                f"The loss is {loss.item()} at step {self.state.global_step + 1}; nothing is stored or scored. Lower "
                f"learning_rate (it is {self.args.learning_rate:g}), or limit max_grad_norm."
            )
        return loss

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Trainer's, and whatever else a checkpoint holds, before the state that says that it is whole.

        Raises:
            `FCNError`: if weights aren't finite.
        """
        folder = Path(output_dir or str(self.args.output_dir))
        if not self.is_fsdp_enabled:
            model: Any = self.accelerator.unwrap_model(self.model)
            check_finite(model.state_dict(), f"the model at step {self.state.global_step}")
        if self.is_world_process_zero():
            # An earlier run's, with which a checkpoint that is cut off now would pass for a whole one.
            (folder / STATE_FILE).unlink(missing_ok=True)
        super().save_model(output_dir, _internal_call)
        if self.is_world_process_zero():
            for write in self.writers:
                write(folder)

    def compute_loss(
        self,
        model,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ):
        labels, loss_of = inputs["labels"], self.segmentation_loss
        arguments = loss_of.arguments
        auxiliary = arguments.auxiliary_loss_weight > 0 and model.training
        # Trainer puts the whole model in training mode before each step.
        for norm in self.frozen_norms:
            norm.eval()
        outputs = model(pixel_values=inputs["pixel_values"])
        weight = num_items_in_batch
        if weight is None:
            weight = self._get_num_items_in_batch([inputs], labels.device)
        loss = loss_of.cross_entropy(outputs.logits, labels) / weight
        if loss_of.region_losses and model.training:
            loss = loss + loss_of.regions(outputs.logits, labels) / self.args.gradient_accumulation_steps
        if self.teacher is not None and model.training:
            with torch.no_grad(), self.accelerator.autocast():
                taught = self.teacher(pixel_values=inputs["pixel_values"]).logits
            teaching = loss_of.teaching(outputs.logits, taught, labels) / self.args.gradient_accumulation_steps
            loss = loss + arguments.teacher_loss_weight * teaching
        if auxiliary:
            # An eighth of the size is enough to compare scores of stride 32 with, at a 64th of the cost.
            top, left = (min(4, edge - 1) for edge in labels.shape[-2:])
            coarse_labels = labels[:, top::8, left::8]
            coarse_scores = F.interpolate(outputs.coarse_scores.float(), coarse_labels.shape[-2:], mode="bilinear")
            auxiliary_loss = 64 * loss_of.cross_entropy(coarse_scores, coarse_labels) / weight
            loss = loss + arguments.auxiliary_loss_weight * auxiliary_loss
        return (loss, {"logits": outputs.logits}) if return_outputs else loss

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """The four scores of whole pictures at their own size, as `fcn-hf evaluate` gives them.

        Trainer's own loop would compare at the size that pictures are resized to, and would have to gather all label
        maps. Here each process counts its part of the split, and the counts are added. Processes that hold a shard of
        the model each (FSDP) only answer together, so there each counts the whole split.

        Args:
            eval_dataset: `ScoredRows`, which are scored; the trainer's own if left out.
            metric_key_prefix: goes before each name, with an underscore.

        Raises:
            `FCNError`: if weights aren't finite.
        """
        model: Any = self.accelerator.unwrap_model(self.model)
        if self.ema is not None:
            model = self.ema.model_for(model)
        if not self.is_fsdp_enabled:
            check_finite(model.state_dict(), f"the model at step {self.state.global_step}")
        rows: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        scores = self.score(model, rows, sharded=self.is_fsdp_enabled)
        metrics = {f"{metric_key_prefix}_{name}": scores[name] for name in scores if name != "per_class_iou"}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def score(self, model, rows: ScoredRows, sharded: bool = False) -> dict[str, Any]:
        """What `fcn_hf.evaluation.evaluate_split` returns of the whole split, on each process."""
        matrix = ConfusionMatrix(*label_arguments(model.config))
        part = rows if sharded else rows.part(self.args.process_index, self.args.world_size)
        quiet = self.args.disable_tqdm or not self.is_world_process_zero()
        shown = tqdm(part, "Scoring", length(part.dataset), leave=False, disable=quiet)
        with evaluation_mode(model):
            evaluate_split(model, self.processing_class, shown, rows.columns, metrics=[matrix])
        if not sharded:
            matrix.all_reduce()
        return matrix.compute()


def _split_groups(optimizer: torch.optim.Optimizer, parameters: Iterable[torch.Tensor], factor: float) -> None:
    """Move `parameters` to groups of their own, behind the others, whose learning rates are `factor` times theirs."""
    moved = {id(parameter) for parameter in parameters}
    for group in list(optimizer.param_groups):
        slower = [parameter for parameter in group["params"] if id(parameter) in moved]
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in moved]
        optimizer.add_param_group({**group, "params": slower, "lr": factor * group["lr"]})


def last_complete_checkpoint(output_dir: str | Path, *needed: str) -> str | None:
    """The newest `checkpoint-N` folder that was written to its end, or None.

    Trainer writes its state last: without it, or with half of it, the process was killed while it saved. Those that
    lack one of the files `needed` are passed over, too.
    """
    steps = {path: path.name.rpartition("-")[2] for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")}
    checkpoints = sorted((path for path in steps if steps[path].isdecimal()), key=lambda path: int(steps[path]))
    for path in reversed(checkpoints):
        try:
            json.loads((path / STATE_FILE).read_text())
        except (OSError, ValueError):
            continue
        if all((path / name).is_file() for name in needed):
            return str(path)
    return None
