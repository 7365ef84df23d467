"""Fully Convolutional Networks: FCN-32s, FCN-16s and FCN-8s.

The whole idea in the order of `FCNForSemanticSegmentation.forward`: a classifier's convolutions, its fully connected
layers read as convolutions (fc6, fc7), a score for every class at every coarse position, and upsampling by transposed
convolutions that meet the scores of shallower layers on the way. CVPR = arXiv:1411.4038, PAMI = arXiv:1605.06211.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithNoAttention, SemanticSegmenterOutput
from transformers.utils import can_return_tuple

from .configuration_fcn import FCNConfig
from .trunks_fcn import FCNBackboneTrunk, FCNStreams, FCNTrunk, build_trunk
from .upsampling_fcn import CoordinateMap, FCNUpsampling, bilinear_kernel


@dataclass
class FCNSemanticSegmenterOutput(SemanticSegmenterOutput):
    """What an FCN returns beside loss, logits and hidden states.

    Args:
        coarse_scores (`torch.Tensor`): `(B, num_labels, h, w)` of the first task at the trunk's own stride, 32 of VGG.
        logits_by_task (`dict[str, torch.Tensor]`, *optional*): `(B, classes of the task, H, W)` for each task.
    """

    coarse_scores: torch.Tensor | None = None
    logits_by_task: dict[str, torch.Tensor] | None = None


class FCNScorer(nn.Conv2d):
    """1x1 convolution from features to class scores.

    Args:
        initial_deviation (`float`): of the initial weights. Skips start from zeros, which leave the coarser net's
            answer as it was: they only ever add to it (CVPR, section 4.2).
        scale (`float`): factor on the features before they are scored (scale_pool4 of the at-once FCN-8s).
    """

    def __init__(self, channels: int, num_labels: int, initial_deviation: float, scale: float = 1.0):
        super().__init__(channels, num_labels, kernel_size=1)
        self.initial_deviation, self.scale = initial_deviation, scale

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`(B, C, H, W)` -> `(B, num_labels, H, W)`."""
        return super().forward(features if self.scale == 1 else features * self.scale)

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.scale == 1 else f", scale={self.scale}")


class FCNPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation."""

    config_class = FCNConfig
    base_model_prefix = "fcn"
    main_input_name = "pixel_values"
    input_modalities = ["image"]
    supports_gradient_checkpointing = True
    # Trainer would count labels different from -100 and so count the ignored 255; a mean over each batch is right.
    accepts_loss_kwargs = False
    _no_split_modules: list[str] = []

    def get_input_embeddings(self) -> Any:
        """None, as pictures need none; accelerate asks before it shards a model (FSDP)."""
        return None

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, FCNUpsampling):
            kernel = bilinear_kernel(module.factor, module.weight.shape[-1])
            init.copy_(module.weight, kernel.expand_as(module.weight))
        elif isinstance(module, FCNScorer):
            init.normal_(module.weight, std=module.initial_deviation)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                init.zeros_(module.bias)
        else:
            super()._init_weights(module)


class FCNModel(FCNPreTrainedModel):
    """The classifier made fully convolutional, without scores: features of a picture of any size.

    `fcn.trunk` runs conv1_1 ... fc7, or several trunks side by side with `config.streams`.
    """

    def __init__(self, config: FCNConfig):
        super().__init__(config)
        self.trunk: FCNTrunk | FCNBackboneTrunk | FCNStreams = (
            FCNStreams(config, config.streams) if config.streams else build_trunk(config, int(config.num_channels or 3))
        )
        self.post_init()

    @can_return_tuple
    def forward(
        self, pixel_values: torch.Tensor, output_hidden_states: bool | None = None, **kwargs
    ) -> BaseModelOutputWithNoAttention:
        r"""
        Args:
            pixel_values (`torch.Tensor` of shape `(B, num_channels, H, W)`): normalised pictures, any H and W from 1.
            output_hidden_states (`bool`, *optional*): whether to return all maps.

        Returns:
            `BaseModelOutputWithNoAttention`: `last_hidden_state`, fc7 or, of backbones without it, the deepest map,
            `(B, C, h, w)` in the model's dtype; `hidden_states`, if asked for, the feature map of each stage (pool1 ...
            pool5 of VGG) and the `last_hidden_state`. Several streams have their channels behind one another.

        Raises:
            `ValueError`: if `pixel_values` have another shape.
        """
        channels = self.config.num_channels
        if pixel_values.ndim != 4 or pixel_values.shape[1] != channels:
            raise ValueError(
                f"pixel_values have shape {tuple(pixel_values.shape)}; expected (batch, {channels}, height, width), as "
                "FCNImageProcessor makes them."
            )
        pixel_values = pixel_values.to(self.dtype)
        checkpointing = self.training and any(getattr(m, "gradient_checkpointing", False) for m in self.modules())
        if checkpointing and not pixel_values.requires_grad:
            # Reentrant checkpointing leaves layers without gradients whose input asks for none.
            pixel_values = pixel_values.detach().requires_grad_()
        maps = self.trunk(pixel_values)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        return BaseModelOutputWithNoAttention(
            last_hidden_state=maps[-1], hidden_states=tuple(maps) if output_hidden_states else None
        )


class FCNHead(nn.Module):
    """Scores of the coarse map, joined by those of pool4 (16s and 8s) and of pool3 (8s), at the picture's size.

    A dilated backbone, whose coarse map is as fine as a pooled one would be, has no skip there.
    """

    upscore32: FCNUpsampling
    upscore16: FCNUpsampling
    upscore8: FCNUpsampling

    def __init__(self, config: FCNConfig, num_labels: int, trunk: FCNTrunk | FCNBackboneTrunk | FCNStreams):
        super().__init__()
        self.prediction_stride, self.interpolates = config.prediction_stride, config.upsampling == "interpolate"
        self.keeps_size, self.pad_to = trunk.keeps_size, trunk.pad_to
        learned = config.upsampling in ("learned", "inner")
        scale4, scale3 = config.skip_scales
        position = trunk.answer.position
        strides = [stride for stride in (16, 8) if config.prediction_stride <= stride < position.scale]
        self.pool4, self.pool3 = (trunk.maps[stride].place if stride in strides else None for stride in (16, 8))

        self.score_fr = FCNScorer(trunk.answer.channels, num_labels, 0.01)
        if self.pool4 is not None:
            finer = trunk.maps[16]
            self.score_pool4 = FCNScorer(finer.channels, num_labels, 0.0, scale4)
            kernel_size, position = position.upsampling_onto(finer.position, 2)
            self.upscore2 = FCNUpsampling(num_labels, 2, learned, kernel_size)
            self.offset4, position = position.meet(finer.position)
        if self.pool3 is not None:
            finer = trunk.maps[8]
            self.score_pool3 = FCNScorer(finer.channels, num_labels, 0.0, scale3)
            kernel_size, position = position.upsampling_onto(finer.position, 2)
            self.upscore_pool4 = FCNUpsampling(num_labels, 2, learned, kernel_size)
            self.offset3, position = position.meet(finer.position)
        if not self.interpolates:
            kernel_size, position = position.upsampling_onto(CoordinateMap(), self.prediction_stride)
            upsampling = FCNUpsampling(num_labels, self.prediction_stride, config.upsampling == "learned", kernel_size)
            self.add_module(f"upscore{self.prediction_stride}", upsampling)
            self.crop_offset = int(CoordinateMap().crop_offset(position))

    def forward(self, maps: Sequence[torch.Tensor], size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """A trunk's maps -> logits `(B, num_labels, *size)`, and the coarse scores that they began with."""
        scores = self.scores(maps)
        return self.upsample(scores, size), scores["score_fr"]

    def scores(self, maps: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """A trunk's maps -> `(B, num_labels, h, w)` of each scorer by its name, from coarse to fine."""
        scores = {"score_fr": self.score_fr(maps[-1])}
        if self.pool4 is not None:
            scores["score_pool4"] = self.score_pool4(maps[self.pool4])
        if self.pool3 is not None:
            scores["score_pool3"] = self.score_pool3(maps[self.pool3])
        return scores

    def upsample(self, all_scores: dict[str, torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """The scores of `scores`, added on their way up -> logits `(B, num_labels, *size)`."""
        scores = all_scores["score_fr"]
        if self.pool4 is not None:
            scores = self.add(self.upscore2(scores), all_scores["score_pool4"], self.offset4)
        if self.pool3 is not None:
            scores = self.add(self.upscore_pool4(scores), all_scores["score_pool3"], self.offset3)
        if self.interpolates:
            padded = [-(-edge // self.pad_to) * self.pad_to for edge in size]
            height, width = size
            scores = F.interpolate(scores, padded, mode="bilinear", align_corners=False)
            return scores[..., :height, :width]
        if self.prediction_stride == 32:
            scores = self.upscore32(scores)
        elif self.prediction_stride == 16:
            scores = self.upscore16(scores)
        else:
            scores = self.upscore8(scores)
        start, (height, width) = self.crop_offset, size
        return scores[..., start : start + height, start : start + width]

    def add(self, scores: torch.Tensor, finer: torch.Tensor, offset: int) -> torch.Tensor:
        """The sum where both are; `offset` positions of `finer` come before the first of `scores`."""
        start, finer_start = max(-offset, 0), max(offset, 0)
        scores, finer = scores[..., start:, start:], finer[..., finer_start:, finer_start:]
        # At the end the scores reach half a coarse position further, unless an unpadded fc6 has cost more than that.
        height, width = (finer if self.keeps_size else scores).shape[-2:]
        return scores[..., :height, :width] + finer[..., :height, :width]


class FCNHeads(nn.ModuleDict):
    """One head a task. It has a forward of its own, as models in shards (FSDP) want of all containers."""

    def forward(
        self, maps: Sequence[torch.Tensor], size: tuple[int, int]
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """A trunk's maps -> the answer of each task's head."""
        return {task: head(maps, size) for task, head in self.items()}


class FCNForSemanticSegmentation(FCNPreTrainedModel):
    """FCN-32s, FCN-16s or FCN-8s, as `config.prediction_stride` says.

    Layers carry the names of the paper and of the release: `conv1_1` ... `conv5_3`, `fc6`, `fc7` in `fcn.trunk`, and in
    each of the `heads` (one for each of the `tasks`, "semantic" where there is only one) `score_fr`, `score_pool4`,
    `score_pool3`, `upscore2`, `upscore_pool4` and `upscore32`, `upscore16` or `upscore8`. A finer net therefore takes
    the weights of a coarser one by name. `score_pool4` and `score_pool3` score the maps of stride 16 and 8 of whatever
    backbone.
    """

    def __init__(self, config: FCNConfig):
        super().__init__(config)
        self.fcn = FCNModel(config)
        tasks = dict(config.tasks) if config.tasks else {"semantic": int(config.num_labels or 0)}
        self.heads = FCNHeads({task: FCNHead(config, count, self.fcn.trunk) for task, count in tasks.items()})
        self.post_init()

    def segmentation_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy over the labelled pixels; 0, not NaN, where a batch has none."""
        config = self.config
        if labels.shape != (logits.shape[0], *logits.shape[-2:]):
            raise ValueError(
                f"labels have shape {tuple(labels.shape)}; expected (batch, height, width) = "
                f"{(logits.shape[0], *logits.shape[-2:])}, one class id for each pixel of pixel_values."
            )
        if logits.shape[1] < 2:
            raise ValueError("num_labels is 1, whose only class is always right; name two or more, as in id2label.")
        if labels.is_floating_point():
            raise ValueError(f"labels have dtype {labels.dtype}; expected integers, one class id for each pixel.")
        labels = labels.long()
        labelled = labels != config.semantic_loss_ignore_index
        # On a GPU a label out of range ends in a device assertion that names nothing, hence the look beforehand.
        if not torch.compiler.is_compiling() and not torch.jit.is_tracing():
            wrong = labels[labelled & ((labels < 0) | (labels >= logits.shape[1]))]
            if wrong.numel():
                raise ValueError(
                    f"labels hold {wrong.unique().tolist()}, outside 0..{logits.shape[1] - 1} and not the ignored "
                    f"{config.semantic_loss_ignore_index}; map them to class ids or set num_labels."
                )
        loss = F.cross_entropy(logits.float(), labels, ignore_index=config.semantic_loss_ignore_index, reduction="sum")
        return loss / labelled.sum().clamp(min=1)

    def _loss(
        self, scored: FCNSemanticSegmenterOutput, labels: "torch.Tensor | Mapping[str, torch.Tensor]"
    ) -> torch.Tensor:
        """The sum of the losses of those tasks that have labels; a tensor labels the first task."""
        logits: dict[str, Any] = scored.logits_by_task or {"semantic": scored.logits}
        if not isinstance(labels, Mapping):
            return self.segmentation_loss(next(iter(logits.values())), labels)
        if not labels or any(task not in (self.config.tasks or ()) for task in labels):
            expected = f"some of {list(logits)}" if self.config.tasks else "a tensor, as the net has one task"
            raise ValueError(f"labels are given for the tasks {list(labels)}; expected {expected}.")
        losses = [self.segmentation_loss(logits[task], task_labels) for task, task_labels in labels.items()]
        return torch.stack(losses).sum()

    def score(self, maps: Sequence[torch.Tensor], size: Sequence[int]) -> FCNSemanticSegmenterOutput:
        """The trunk's maps -> the answer: `forward` without the trunk, which nets of several strides can share.

        Args:
            maps (sequence of `torch.Tensor`): `hidden_states` of `self.fcn`, all of them.
            size (sequence of `int`): height and width of the `pixel_values`.

        Returns:
            `FCNSemanticSegmenterOutput`: as `forward` gives it, without loss and hidden states.
        """
        answers = self.heads(maps, size)
        logits = {task: task_logits for task, (task_logits, _) in answers.items()}
        first_logits, coarse_scores = next(iter(answers.values()))
        return FCNSemanticSegmenterOutput(
            logits=first_logits, coarse_scores=coarse_scores, logits_by_task=logits if self.config.tasks else None
        )

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | dict[str, torch.Tensor] | None = None,
        output_hidden_states: bool | None = None,
        **kwargs,
    ) -> FCNSemanticSegmenterOutput:
        r"""
        Args:
            pixel_values (`torch.Tensor` of shape `(B, num_channels, H, W)`): normalised pictures, any H and W from 1.
            labels (integer `torch.Tensor` of shape `(B, H, W)`, or a dict of them by task, *optional*): class ids in
                0..num_labels-1, or `config.semantic_loss_ignore_index` where a pixel has no label.
            output_hidden_states (`bool`, *optional*): whether to return the feature maps and fc7 as `hidden_states`,
                as `FCNModel` does.

        Returns:
            `FCNSemanticSegmenterOutput`: `logits` of shape `(B, num_labels, H, W)`, in the model's dtype, of the first
            task; `coarse_scores`, what they began with, `(B, num_labels, h, w)` at the trunk's own stride;
            `logits_by_task` if the config has `tasks`; `loss`, the mean cross-entropy over the labelled pixels (0 where
            there are none), summed over the tasks, if `labels` were given.

        Raises:
            `ValueError`: if `pixel_values` or `labels` have another shape, labels aren't integers or out of range, or
                there is only one class to be learned.
        """
        maps = self.fcn(pixel_values, output_hidden_states=True).hidden_states
        scored = self.score(maps, pixel_values.shape[-2:])
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        return FCNSemanticSegmenterOutput(
            loss=None if labels is None else self._loss(scored, labels),
            logits=scored.logits,
            hidden_states=maps if output_hidden_states else None,
            coarse_scores=scored.coarse_scores,
            logits_by_task=scored.logits_by_task,
        )


__all__ = ["FCNForSemanticSegmentation", "FCNModel", "FCNPreTrainedModel", "FCNSemanticSegmenterOutput"]
