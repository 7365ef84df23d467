"""Fully Convolutional Networks: FCN-32s, FCN-16s and FCN-8s.

The whole idea in the order of `FCNForSemanticSegmentation.forward`: a classifier's convolutions, its fully connected
layers read as convolutions (fc6, fc7), a score for every class at every coarse position, and upsampling by transposed
convolutions that meet the scores of shallower layers on the way. CVPR = arXiv:1411.4038, PAMI = arXiv:1605.06211.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.utils import can_return_tuple

from .configuration_fcn import FCNConfig


class CoordinateMap(NamedTuple):
    """Where the positions of a feature map lie in the input: position `i` is centred on pixel `scale * i + offset`."""

    scale: float = 1.0
    offset: float = 0.0

    def convolution(self, kernel_size: int, padding: int = 0, stride: int = 1) -> "CoordinateMap":
        """The map after a convolution or pooling applied to a feature map with this one."""
        shift = (kernel_size - 1) / 2 - padding
        return CoordinateMap(self.scale * stride, self.offset + self.scale * shift)

    def transposed_convolution(self, kernel_size: int, stride: int) -> "CoordinateMap":
        """The map after a transposed convolution without padding."""
        scale = self.scale / stride
        return CoordinateMap(scale, self.offset - scale * (kernel_size - 1) / 2)

    def crop_offset(self, other: "CoordinateMap") -> int:
        """How many positions of `other` come before position 0 of this map; negative if this one starts first."""
        return round((self.offset - other.offset) / self.scale)


def bilinear_kernel(factor: int) -> torch.Tensor:
    """The `(2 * factor, 2 * factor)` float32 kernel with which a transposed convolution interpolates bilinearly.

    It is `upsample_filt` of the release's surgery.py: a tent of height 1 that falls to 0 at `factor` from the centre.
    """
    positions = torch.arange(2 * factor, dtype=torch.float32)
    tent = 1 - (positions - (factor - 0.5)).abs() / factor
    return tent[:, None] * tent[None, :]


class FCNUpsampling(nn.Module):
    """Transposed convolution with one kernel per class, which starts bilinear and may learn.

    Args:
        num_labels (`int`): channels in and out; classes don't mix.
        factor (`int`): stride; the kernel is `2 * factor` wide (4/2, 16/8, 32/16, 64/32 in the release).
        learned (`bool`): whether the kernels are trained or stay bilinear (then they are a buffer).
    """

    def __init__(self, num_labels: int, factor: int, learned: bool):
        super().__init__()
        self.factor = factor
        weight = bilinear_kernel(factor).expand(num_labels, 1, -1, -1).clone()
        if learned:
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight)

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        """`(B, num_labels, H, W)` -> `(B, num_labels, (H + 1) * factor, (W + 1) * factor)`, uncropped.

        Equal to `F.conv_transpose2d(scores, weight, stride=factor, groups=num_labels)`. Since the kernel is two strides
        wide, every 2x2 neighbourhood of coarse scores makes one `factor x factor` block of fine ones: a product of
        `(.., 4)` with `(4, factor * factor)`, several times faster than a grouped transposed convolution on CPUs.
        """
        batch, num_labels, height, width = scores.shape
        factor = self.factor
        quarters = self.weight.reshape(num_labels, 2, factor, 2, factor).flip(1, 3).permute(0, 1, 3, 2, 4)
        padded = F.pad(scores, (1, 1, 1, 1))
        corners = [padded[:, :, y : y + height + 1, x : x + width + 1] for y in (0, 1) for x in (0, 1)]
        neighbourhoods = torch.stack(corners, dim=-1).reshape(batch, num_labels, (height + 1) * (width + 1), 4)
        blocks = neighbourhoods @ quarters.reshape(num_labels, 4, factor * factor)
        blocks = blocks.reshape(batch, num_labels, height + 1, width + 1, factor, factor).permute(0, 1, 2, 4, 3, 5)
        return blocks.reshape(batch, num_labels, (height + 1) * factor, (width + 1) * factor)


def crop(feature_map: torch.Tensor, offset: int, height: int, width: int) -> torch.Tensor:
    """`(B, C, height, width)` of a feature map, from `offset` on in both directions."""
    return feature_map[:, :, offset : offset + height, offset : offset + width]


class FCNStage(GradientCheckpointingLayer):
    """One stage of convolutions, ended by a 2x2 max pooling; the unit of gradient checkpointing.

    A stage owns no weights. Its layers are the model's own, under the paper's names, and are handed over at each call.
    Under gradient checkpointing batch normalisation updates its running statistics twice a step, as a stage runs twice.
    """

    def forward(self, hidden_state: torch.Tensor, *layers: nn.Module) -> torch.Tensor:
        """`(B, C, H, W)` -> `(B, C', ceil(H / 2), ceil(W / 2))`."""
        for layer in layers:
            hidden_state = layer(hidden_state)
        # Caffe rounds pooled sizes up. After ReLU a border of zeros changes no maximum, and unlike `ceil_mode=True` it
        # puts no guard on even or odd sizes into `torch.export`.
        return F.max_pool2d(F.pad(hidden_state, (0, 1, 0, 1)), kernel_size=2, stride=2)


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

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, FCNUpsampling):
            init.copy_(module.weight, bilinear_kernel(module.factor).expand_as(module.weight))
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            if module in (getattr(self, "score_pool4", None), getattr(self, "score_pool3", None)):
                # Zeros leave the coarser net's answer as it was: a skip only ever adds to it (CVPR, section 4.2).
                init.zeros_(module.weight)
            elif module is getattr(self, "score_fr", None):
                init.normal_(module.weight, std=0.01)
            else:
                init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            init.zeros_(module.bias)
        else:
            super()._init_weights(module)


class FCNForSemanticSegmentation(FCNPreTrainedModel):
    """FCN-32s, FCN-16s or FCN-8s, as `config.prediction_stride` says.

    Layers carry the names of the paper and of the release: `conv1_1` ... `conv5_3`, `fc6`, `fc7`, `score_fr`,
    `score_pool4`, `score_pool3`, `upscore2`, `upscore_pool4` and `upscore32`, `upscore16` or `upscore8`. A finer net
    therefore takes the weights of a coarser one by name.
    """

    def __init__(self, config: FCNConfig):
        super().__init__(config)
        same = config.geometry == "same"
        num_labels, stride = int(config.num_labels or 0), config.prediction_stride

        position = CoordinateMap()
        pool_positions = []
        self.relu = nn.ReLU()
        self.stages = nn.ModuleList(FCNStage() for _ in config.depths)
        self.stage_layers: list[list[str]] = []
        channels = config.num_channels
        for stage, (hidden_size, depth) in enumerate(zip(config.hidden_sizes, config.depths, strict=True), start=1):
            names = []
            for layer in range(1, depth + 1):
                # The release pads its first convolution by 100 px so that fc6, unpadded, has an answer for every pixel.
                padding = 100 if not same and stage == layer == 1 else 1
                self.add_module(f"conv{stage}_{layer}", nn.Conv2d(channels, hidden_size, 3, padding=padding))
                names.append(f"conv{stage}_{layer}")
                if config.use_batch_norm:
                    self.add_module(f"bn{stage}_{layer}", nn.BatchNorm2d(hidden_size))
                    names.append(f"bn{stage}_{layer}")
                names.append("relu")
                position = position.convolution(3, padding)
                channels = hidden_size
            self.stage_layers.append(names)
            position = position.convolution(2, stride=2)
            pool_positions.append(position)

        # Fully connected layers are convolutions: VGG16's fc6 reads 7x7x512 and answers with 4096 (CVPR, section 3.1).
        self.fc6 = nn.Conv2d(channels, config.hidden_size, 7, padding=3 if same else 0)
        self.fc7 = nn.Conv2d(config.hidden_size, config.hidden_size, 1)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.score_fr = nn.Conv2d(config.hidden_size, num_labels, 1)
        position = position.convolution(7, padding=3 if same else 0)

        # (upsampling, scorer, stage, scale, crop offset) for each meeting of a coarse score map with a finer one.
        self.skips: list[tuple[str, str, int, float, int]] = []
        learned = config.upsampling in ("learned", "inner")
        meetings = (("upscore2", "score_pool4", 4), ("upscore_pool4", "score_pool3", 3))
        for (upsampling, scorer, stage), scale in zip(meetings, config.skip_scales, strict=True):
            if stride >= 2 ** (stage + 1):
                break
            self.add_module(scorer, nn.Conv2d(config.hidden_sizes[stage - 1], num_labels, 1))
            self.add_module(upsampling, FCNUpsampling(num_labels, 2, learned))
            position = position.transposed_convolution(kernel_size=4, stride=2)
            offset = position.crop_offset(pool_positions[stage - 1])
            self.skips.append((upsampling, scorer, stage, scale, offset))
            # Whichever map starts first is cropped, so the sum starts where the later of the two does.
            position = max(position, pool_positions[stage - 1], key=lambda map: map.offset)

        self.final_upsampling = f"upscore{stride}"
        self.add_module(self.final_upsampling, FCNUpsampling(num_labels, stride, config.upsampling == "learned"))
        position = position.transposed_convolution(kernel_size=2 * stride, stride=stride)
        self.crop_offset: int = CoordinateMap().crop_offset(position)

        self.post_init()

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

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs,
    ) -> SemanticSegmenterOutput:
        r"""
        Args:
            pixel_values (`torch.Tensor` of shape `(B, num_channels, H, W)`): normalised pictures, any H and W from 1.
            labels (`torch.LongTensor` of shape `(B, H, W)`, *optional*): class ids in 0..num_labels-1, or
                `config.semantic_loss_ignore_index` where a pixel has no label.
            output_hidden_states (`bool`, *optional*): whether to return pool1 ... pool5 and fc7 as `hidden_states`.

        Returns:
            `SemanticSegmenterOutput`: `logits` of shape `(B, num_labels, H, W)`, in the model's dtype; `loss`, the mean
            cross-entropy over the labelled pixels (0 where there are none), if `labels` were given.

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
        pools = []
        hidden_state = pixel_values.to(self.dtype)
        if self.training and self.stages[0].gradient_checkpointing and not hidden_state.requires_grad:
            # Reentrant checkpointing leaves layers without gradients whose input asks for none.
            hidden_state = hidden_state.detach().requires_grad_()
        for run_stage, names in zip(self.stages, self.stage_layers, strict=True):
            hidden_state = run_stage(hidden_state, *[getattr(self, name) for name in names])
            pools.append(hidden_state)

        hidden_state = self.dropout(self.relu(self.fc6(hidden_state)))
        hidden_state = self.dropout(self.relu(self.fc7(hidden_state)))
        scores = self.score_fr(hidden_state)

        for upsampling, scorer, stage, scale, offset in self.skips:
            scores = getattr(self, upsampling)(scores)
            pool_scores = getattr(self, scorer)(pools[stage - 1] * scale)
            if offset >= 0:
                pool_scores = crop(pool_scores, offset, scores.shape[-2], scores.shape[-1])
            else:
                scores = crop(scores, -offset, pool_scores.shape[-2], pool_scores.shape[-1])
            scores = scores + pool_scores

        scores = getattr(self, self.final_upsampling)(scores)
        logits = crop(scores, self.crop_offset, height, width)

        if output_hidden_states is None:
            output_hidden_states = config.output_hidden_states
        return SemanticSegmenterOutput(
            loss=None if labels is None else self.segmentation_loss(logits, labels),
            logits=logits,
            hidden_states=(*pools, hidden_state) if output_hidden_states else None,
        )


__all__ = ["FCNForSemanticSegmentation", "FCNPreTrainedModel"]
