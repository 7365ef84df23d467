"""Fully Convolutional Networks: FCN-32s, FCN-16s and FCN-8s.

The whole idea in the order of `FCNForSemanticSegmentation.forward`: a classifier's convolutions, its fully connected
layers read as convolutions (fc6, fc7), a score for every class at every coarse position, and upsampling by transposed
convolutions that meet the scores of shallower layers on the way. CVPR = arXiv:1411.4038, PAMI = arXiv:1605.06211.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.utils import can_return_tuple

from .backbones_fcn import ADD_TRUNK, FCNStage, Trunk
from .configuration_fcn import FCNConfig
from .upsampling_fcn import CoordinateMap, FCNUpsampling, bilinear_kernel


@dataclass
class FCNSemanticSegmenterOutput(SemanticSegmenterOutput):
    """What an FCN returns; `logits_by_task` holds the logits of every task where the model has several.

    Args:
        logits_by_task (`dict[str, torch.Tensor]`, *optional*): `(B, classes of the task, H, W)` for each task.
    """

    logits_by_task: dict[str, torch.Tensor] | None = None


class Skip(NamedTuple):
    """Where a coarse score map meets a finer one.

    Args:
        upsampling, scorer: names of the layers that bring the coarse map to the finer stride and score the finer one.
        stride: of the finer map.
        scale: factor on the finer map before it is scored.
        offset: positions of the finer score map before the coarse one starts; negative if the coarse one starts first.
    """

    upsampling: str
    scorer: str
    stride: int
    scale: float
    offset: int


class FCNScorer(nn.Conv2d):
    """1x1 convolution from features to class scores.

    Args:
        initial_deviation (`float`): of the initial weights. Skips start from zeros, which leave the coarser net's
            answer as it was: they only ever add to it (CVPR, section 4.2).
    """

    def __init__(self, channels: int, num_labels: int, initial_deviation: float):
        super().__init__(channels, num_labels, kernel_size=1)
        self.initial_deviation = initial_deviation


class FCNPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation."""

    config_class = FCNConfig
    base_model_prefix = ""
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


class FCNForSemanticSegmentation(FCNPreTrainedModel):
    """FCN-32s, FCN-16s or FCN-8s, as `config.prediction_stride` says.

    Layers carry the names of the paper and of the release: `conv1_1` ... `conv5_3`, `fc6`, `fc7`, `score_fr`,
    `score_pool4`, `score_pool3`, `upscore2`, `upscore_pool4` and `upscore32`, `upscore16` or `upscore8`. A finer net
    therefore takes the weights of a coarser one by name. `score_pool4` and `score_pool3` score the maps of stride 16
    and 8 of whatever backbone. With several `tasks` the names of scores and upsamplings end in `_TASK`; layers of the
    second and later `streams` in `_stream2` and so on.
    """

    def __init__(self, config: FCNConfig):
        super().__init__(config)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        streams = config.streams or (int(config.num_channels or 3),)
        add_trunk = ADD_TRUNK[config.backbone]
        self.trunks: list[Trunk] = [
            add_trunk(self, config, channels, f"_stream{number}" if number > 1 else "")
            for number, channels in enumerate(streams, start=1)
        ]
        self.run_stage = FCNStage()

        self.skips: list[Skip] = []
        self.final_upsampling: str | None = None
        self.crop_offset = 0
        if config.tasks:
            for task, num_labels in dict(config.tasks).items():
                self._add_head(config, f"_{task}", num_labels)
        else:
            self._add_head(config, "", int(config.num_labels or 0))
        self.post_init()

    def _add_head(self, config: FCNConfig, suffix: str, num_labels: int) -> None:
        """Register one task's scorers and upsamplings; where they meet is the same for every task."""
        stride, trunk = config.prediction_stride, self.trunks[0]
        self._add_scorers("score_fr" + suffix, num_labels, [trunk.channels for trunk in self.trunks], 0.01)
        position = trunk.position
        skips = []
        learned = config.upsampling in ("learned", "inner")
        meetings = (("upscore2", "score_pool4", 16), ("upscore_pool4", "score_pool3", 8))
        for (upsampling, scorer, finer), scale in zip(meetings, config.skip_scales, strict=True):
            if finer < stride or finer >= position.scale:
                continue
            maps = [trunk.maps[finer] for trunk in self.trunks]
            self._add_scorers(scorer + suffix, num_labels, [feature_map.channels for feature_map in maps], 0.0)
            kernel_size, position = position.upsampling_onto(maps[0].position, 2)
            self.add_module(upsampling + suffix, FCNUpsampling(num_labels, 2, learned, kernel_size))
            offset = position.crop_offset(maps[0].position)
            skips.append(Skip(upsampling, scorer, finer, scale, int(offset)))
            # The sum starts where the later of the two does.
            position = max(position, maps[0].position, key=lambda map: map.offset)
        self.skips = skips

        if config.upsampling != "interpolate":
            self.final_upsampling = f"upscore{stride}"
            kernel_size, position = position.upsampling_onto(CoordinateMap(), stride)
            final = FCNUpsampling(num_labels, stride, config.upsampling == "learned", kernel_size)
            self.add_module(self.final_upsampling + suffix, final)
            self.crop_offset = int(CoordinateMap().crop_offset(position))

    def _add_scorers(self, name: str, num_labels: int, channels: list[int], initial_deviation: float) -> None:
        for trunk, width in zip(self.trunks, channels, strict=True):
            self.add_module(name + trunk.suffix, FCNScorer(width, num_labels, initial_deviation))

    def _features(self, pixel_values: torch.Tensor, trunk: Trunk) -> tuple[list[torch.Tensor], torch.Tensor]:
        """`(B, C, H, W)` of one stream -> its feature maps, one per stage, and the answer of its head (fc6, fc7)."""
        if trunk.pad_to > 1:
            height, width = pixel_values.shape[-2:]
            pixel_values = F.pad(pixel_values, (0, -width % trunk.pad_to, 0, -height % trunk.pad_to))
        if not trunk.stages:
            feature_maps = list(getattr(self, "backbone" + trunk.suffix)(pixel_values).feature_maps)
        else:
            feature_maps = []
            hidden_state = pixel_values
            for names in trunk.stages:
                hidden_state = self.run_stage(hidden_state, *[getattr(self, name) for name in names])
                feature_maps.append(hidden_state)
        hidden_state = feature_maps[-1]
        for name in trunk.head:
            hidden_state = getattr(self, name)(hidden_state)
        return feature_maps, hidden_state

    def _score(self, name: str, features: list[torch.Tensor]) -> torch.Tensor:
        """Class scores of one feature map per stream: `(B, num_labels, h, w)`, averaged over the streams."""
        scores = [getattr(self, name + t.suffix)(feature) for t, feature in zip(self.trunks, features, strict=True)]
        return scores[0] if len(scores) == 1 else torch.stack(scores).mean(dim=0)

    def _logits(self, features: list[tuple], suffix: str, height: int, width: int) -> torch.Tensor:
        """The way back up, for one task: coarse scores, their meetings with finer ones, and the picture's size."""
        scores = self._score("score_fr" + suffix, [hidden_state for _, hidden_state in features])
        for skip in self.skips:
            scores = getattr(self, skip.upsampling + suffix)(scores)
            maps = [
                feature_maps[trunk.maps[skip.stride].stage] * skip.scale
                for (feature_maps, _), trunk in zip(features, self.trunks, strict=True)
            ]
            pool_scores = self._score(skip.scorer + suffix, maps)
            # Whichever map starts first is cropped at its start. At the end the scores reach half a coarse position
            # further than the finer map, unless an unpadded fc6 has cost them more than that.
            scores = scores[:, :, max(-skip.offset, 0) :, max(-skip.offset, 0) :]
            pool_scores = pool_scores[:, :, max(skip.offset, 0) :, max(skip.offset, 0) :]
            if self.trunks[0].fc6_is_padded:
                scores = scores[:, :, : pool_scores.shape[-2], : pool_scores.shape[-1]]
            else:
                pool_scores = pool_scores[:, :, : scores.shape[-2], : scores.shape[-1]]
            scores = scores + pool_scores
        if self.final_upsampling is None:
            return F.interpolate(scores, (height, width), mode="bilinear", align_corners=False)
        scores = getattr(self, self.final_upsampling + suffix)(scores)
        offset = self.crop_offset
        return scores[:, :, offset : offset + height, offset : offset + width]

    def segmentation_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy over the labelled pixels; 0, not NaN, where a batch has none."""
        config = self.config
        if labels.shape != (logits.shape[0], *logits.shape[-2:]):
            raise ValueError(
                f"labels have shape {tuple(labels.shape)}; expected (batch, height, width) = "
                f"{(logits.shape[0], *logits.shape[-2:])}, one class id for each pixel of pixel_values."
            )
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
        self, logits: dict[str, torch.Tensor], labels: "torch.Tensor | Mapping[str, torch.Tensor]"
    ) -> torch.Tensor:
        """The sum of the losses of those tasks that have labels; a tensor labels the first task."""
        if not isinstance(labels, Mapping):
            return self.segmentation_loss(next(iter(logits.values())), labels)
        unknown = [task for task in labels if task not in logits]
        if unknown or not labels:
            raise ValueError(f"labels are given for the tasks {list(labels)}; expected some of {list(logits)}.")
        losses = [self.segmentation_loss(logits[task], task_labels) for task, task_labels in labels.items()]
        return torch.stack(losses).sum()

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
            labels (`torch.LongTensor` of shape `(B, H, W)`, or a dict of them by task, *optional*): class ids in
                0..num_labels-1, or `config.semantic_loss_ignore_index` where a pixel has no label.
            output_hidden_states (`bool`, *optional*): whether to return the feature maps (pool1 ... pool5 of VGG) and
                fc7 as `hidden_states`, of one stream after the other.

        Returns:
            `FCNSemanticSegmenterOutput`: `logits` of shape `(B, num_labels, H, W)`, in the model's dtype, of the first
            task; `logits_by_task` if the config has `tasks`; `loss`, the mean cross-entropy over the labelled pixels
            (0 where there are none), summed over the tasks, if `labels` were given.

        Raises:
            `ValueError`: if `pixel_values` or `labels` have another shape, or a label is out of range.
        """
        config = self.config
        if pixel_values.ndim != 4 or pixel_values.shape[1] != config.num_channels:
            raise ValueError(
                f"pixel_values have shape {tuple(pixel_values.shape)}; expected (batch, {config.num_channels}, height, "
                "width), as FCNImageProcessor makes them."
            )
        height, width = pixel_values.shape[-2:]
        pixel_values = pixel_values.to(self.dtype)
        if self.training and self.run_stage.gradient_checkpointing and not pixel_values.requires_grad:
            # Reentrant checkpointing leaves layers without gradients whose input asks for none.
            pixel_values = pixel_values.detach().requires_grad_()

        parts = pixel_values.split(list(config.streams), dim=1) if config.streams else [pixel_values]
        features = [self._features(part, trunk) for part, trunk in zip(parts, self.trunks, strict=True)]
        tasks = {task: f"_{task}" for task in config.tasks} if config.tasks else {"": ""}
        logits = {task: self._logits(features, suffix, height, width) for task, suffix in tasks.items()}

        if output_hidden_states is None:
            output_hidden_states = config.output_hidden_states
        hidden_states = tuple(map for feature_maps, last in features for map in (*feature_maps, last))
        return FCNSemanticSegmenterOutput(
            loss=None if labels is None else self._loss(logits, labels),
            logits=next(iter(logits.values())),
            hidden_states=hidden_states if output_hidden_states else None,
            logits_by_task=logits if config.tasks else None,
        )


__all__ = ["FCNForSemanticSegmentation", "FCNPreTrainedModel", "FCNSemanticSegmenterOutput"]
