"""What a recipe's training minimises: cross-entropy over labelled pixels, and what may be added to it."""

from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F

from training.limits import check_values


@dataclass
class LossArguments:
    """Which pixels count how much; weights of 0 leave a term out."""

    loss_reduction: str = field(
        default="mean",
        metadata={
            "help": "mean: over the labelled pixels of the optimiser's whole batch. sum: over all pixels of a picture, "
            "as in the authors' release, whose learning rates (1e-10 ... 1e-14) belong to it.",
            "choices": ["mean", "sum"],
        },
    )
    class_weight_power: float = field(
        default=0.0, metadata={"help": "Median-frequency class weights to this power: 0 none, 0.5 their root, 1 full."}
    )
    class_weight_maximum: float = 3.0
    hard_pixels: float = field(
        default=1.0, metadata={"help": "Share of the labelled pixels that count, those with the largest loss; 1: all."}
    )
    dice_loss_weight: float = field(
        default=0.0, metadata={"help": "Factor on the Dice loss, of segmentation-models-pytorch, of each forward pass."}
    )
    lovasz_loss_weight: float = field(
        default=0.0,
        metadata={"help": "Factor on the Lovasz-Softmax loss, of segmentation-models-pytorch, of each forward pass."},
    )
    auxiliary_loss_weight: float = field(default=0.0, metadata={"help": "Factor on the loss of the stride-32 scores."})
    teacher_loss_weight: float = field(
        default=1.0, metadata={"help": "Factor on the cross-entropy with the answers of `teacher_model_name_or_path`."}
    )

    def __post_init__(self):
        check_values(self)


class SegmentationLoss(nn.Module):
    """
    The sum of weighted cross-entropies over labelled pixels, and terms beside it.

    Cross-entropy is handed out as a sum, so that whoever knows the whole batch divides by its weight. Dice and
    Lovasz-Softmax (arXiv:1705.08790) are ratios over a forward pass: over accumulated passes they are averaged.

    Args:
        arguments: see `LossArguments`.
        class_weights (`torch.Tensor` of shape `(num_labels,)`): float32.
        ignore_index: label that doesn't count.

    Raises:
        `ImportError`: if Dice or Lovasz is asked for and segmentation-models-pytorch isn't installed.
    """

    class_weights: torch.Tensor

    def __init__(self, arguments: LossArguments, class_weights: torch.Tensor, ignore_index: int = 255):
        super().__init__()
        self.arguments = arguments
        self.ignore_index = ignore_index
        self.register_buffer("class_weights", class_weights)
        self.region_losses: list[tuple[float, nn.Module]] = []
        if arguments.dice_loss_weight or arguments.lovasz_loss_weight:
            from segmentation_models_pytorch.losses import DiceLoss, LovaszLoss

            for factor, kind in ((arguments.dice_loss_weight, DiceLoss), (arguments.lovasz_loss_weight, LovaszLoss)):
                if factor:
                    self.region_losses.append((factor, kind(mode="multiclass", ignore_index=ignore_index)))

    def weight_of(self, labels: torch.Tensor) -> torch.Tensor:
        """What the cross-entropies of `labels`, int64 of any shape, are divided by for a mean: a scalar."""
        labelled = labels[labels != self.ignore_index]
        counts = torch.bincount(labelled, minlength=len(self.class_weights)).to(self.class_weights)
        return counts @ self.class_weights * self.arguments.hard_pixels

    def cross_entropy(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The sum over the labelled pixels (or the hardest of them) of `(B, C, H, W)` and `(B, H, W)`: a scalar."""
        share = self.arguments.hard_pixels
        losses = F.cross_entropy(
            logits.float(),
            labels,
            weight=self.class_weights,
            ignore_index=self.ignore_index,
            reduction="sum" if share == 1 else "none",
        )
        if share == 1:
            return losses
        labelled = losses[labels != self.ignore_index]
        # Of a few pixels a small share is none, of which nothing would be learnt.
        count = min(labelled.numel(), max(1, round(share * labelled.numel())))
        return labelled.topk(count).values.sum()

    def teaching(self, logits: torch.Tensor, teacher_logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """
        The mean cross-entropy, over labelled pixels, with a teacher's probabilities in place of labels: a scalar.

        Distillation (arXiv:1503.02531) at a temperature of 1. Both logits are `(B, C, H, W)`, labels `(B, H, W)`.
        """
        losses = F.cross_entropy(logits.float(), teacher_logits.float().softmax(dim=1), reduction="none")
        labelled = labels != self.ignore_index
        return (losses * labelled).sum() / labelled.sum().clamp(min=1)

    def regions(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Dice and Lovasz-Softmax of `(B, C, H, W)` and `(B, H, W)`, each in 0..1 times its factor: a scalar."""
        # A quarter of the pixels is plenty for sums over whole regions, and takes a quarter of the time.
        logits, labels = logits[:, :, ::2, ::2].float(), labels[:, ::2, ::2]
        # Without a labelled pixel Lovasz gives an empty tensor, whose sum is 0 and no shape at all.
        terms = [factor * loss(logits, labels).sum() for factor, loss in self.region_losses]
        return torch.stack(terms).sum()
