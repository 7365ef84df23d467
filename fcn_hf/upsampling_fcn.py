"""Where feature maps lie in the picture, and the transposed convolutions that bring them back to its size."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F


class CoordinateMap(NamedTuple):
    """Where the positions of a feature map lie in the input: position `i` is centred on pixel `scale * i + offset`."""

    scale: float = 1.0
    offset: float = 0.0

    def convolution(self, kernel_size: int, padding: float = 0, stride: int = 1) -> "CoordinateMap":
        """The map after a convolution or pooling applied to a feature map with this one."""
        shift = (kernel_size - 1) / 2 - padding
        return CoordinateMap(self.scale * stride, self.offset + self.scale * shift)

    def transposed_convolution(self, kernel_size: int, stride: int) -> "CoordinateMap":
        """The map after a transposed convolution without padding."""
        scale = self.scale / stride
        return CoordinateMap(scale, self.offset - scale * (kernel_size - 1) / 2)

    def crop_offset(self, other: "CoordinateMap") -> float:
        """How many positions of `other` come before position 0 of this map; negative if this one starts first."""
        return (self.offset - other.offset) / self.scale

    def meet(self, finer: "CoordinateMap") -> tuple[int, "CoordinateMap"]:
        """How many positions of `finer`, of the same scale, come before position 0 of this map, and where their sum
        lies, which starts where the later of the two does."""
        return int(self.crop_offset(finer)), max(self, finer, key=lambda map: map.offset)

    def upsampling_onto(self, other: "CoordinateMap", factor: int) -> tuple[int, "CoordinateMap"]:
        """
        The kernel size of an upsampling by `factor` whose positions fall onto those of `other`, and the map after it.

        It is even (64 for a factor of 32, VGG in the release) or odd (63, AlexNet in the release), as the half pixels
        of the poolings before it demand.

        Raises:
            `ValueError`: if neither meets.
        """
        for kernel_size in (2 * factor, 2 * factor - 1):
            position = self.transposed_convolution(kernel_size, factor)
            if position.crop_offset(other).is_integer():
                return kernel_size, position
        raise ValueError(
            f"Positions {self}, upsampled by {factor}, fall between those of {other}; no crop aligns them."
        )


def bilinear_kernel(factor: int, kernel_size: int | None = None) -> torch.Tensor:
    """The `(kernel_size, kernel_size)` float32 kernel with which a transposed convolution interpolates bilinearly.

    It is `upsample_filt` of the release's surgery.py: a tent of height 1 that falls to 0 at `factor` from the centre.
    `kernel_size` is `2 * factor` (the default) or `2 * factor - 1`.
    """
    kernel_size = kernel_size or 2 * factor
    positions = torch.arange(kernel_size, dtype=torch.float32)
    tent = 1 - (positions - (kernel_size - 1) / 2).abs() / factor
    return tent[:, None] * tent[None, :]


class FCNUpsampling(nn.Module):
    """Transposed convolution with one kernel per class, which starts bilinear and may learn.

    Args:
        num_labels (`int`): channels in and out; classes don't mix.
        factor (`int`): stride.
        learned (`bool`): whether the kernels are trained or stay bilinear (then they are a buffer).
        kernel_size (`int`, *optional*): `2 * factor` (4, 16, 32, 64 in the release) or one less (63); the former
            if left out.
    """

    def __init__(self, num_labels: int, factor: int, learned: bool, kernel_size: int | None = None):
        super().__init__()
        self.factor = factor
        # In the default dtype, as layers of torch are: `from_pretrained(..., dtype=...)` sets it.
        weight = bilinear_kernel(factor, kernel_size).to(torch.get_default_dtype())
        weight = weight.expand(num_labels, 1, -1, -1).clone()
        if learned:
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight)

    def extra_repr(self) -> str:
        num_labels, kernel_size = self.weight.shape[0], self.weight.shape[-1]
        learned = isinstance(self.weight, nn.Parameter)
        return f"{num_labels}, factor={self.factor}, kernel_size={kernel_size}, learned={learned}"

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        """`(B, num_labels, H, W)` -> `(B, num_labels, (H + 1) * factor, (W + 1) * factor)`, uncropped.

        Equal to `F.conv_transpose2d(scores, weight, stride=factor, groups=num_labels)`, with a border of zeros behind
        it if the kernel is odd. Since the kernel is two strides wide, every 2x2 neighbourhood of coarse scores makes
        one `factor x factor` block of fine ones: a product of `(.., 4)` with `(4, factor * factor)`, several times
        faster than a grouped transposed convolution on CPUs.
        """
        batch, num_labels, height, width = scores.shape
        factor = self.factor
        missing = 2 * factor - self.weight.shape[-1]
        weight = F.pad(self.weight, (0, missing, 0, missing)) if missing else self.weight
        quarters = weight.reshape(num_labels, 2, factor, 2, factor).flip(1, 3).permute(0, 1, 3, 2, 4)
        # Classes first, which is the batch of one plain batched product: broadcasting would ask whether B is 1, and so
        # make exported graphs refuse it.
        padded = F.pad(scores.transpose(0, 1), (1, 1, 1, 1))
        corners = [padded[:, :, y : y + height + 1, x : x + width + 1] for y in (0, 1) for x in (0, 1)]
        neighbourhoods = torch.stack(corners, dim=-1).reshape(num_labels, batch * (height + 1) * (width + 1), 4)
        blocks = torch.bmm(neighbourhoods, quarters.reshape(num_labels, 4, factor * factor))
        blocks = blocks.reshape(num_labels, batch, height + 1, width + 1, factor, factor).permute(1, 0, 2, 4, 3, 5)
        return blocks.reshape(batch, num_labels, (height + 1) * factor, (width + 1) * factor)


__all__ = ["CoordinateMap", "FCNUpsampling", "bilinear_kernel"]
