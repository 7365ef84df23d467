"""What torch has no layer for: the poolings, normalisation and blocks of the classifiers in `trunks_fcn.py`."""

import torch
from torch import nn
from torch.nn import functional as F


class FCNPooling(nn.Module):
    """Max pooling with stride 2 of maps that are nowhere negative, with sizes rounded up as Caffe does.

    After ReLU a border of zeros changes no maximum, and unlike `ceil_mode=True` it puts no guard on even or odd sizes
    into `torch.export`; but it copies the map, so it is for graphs alone.

    Args:
        kernel_size (`int`): 2 (VGG) or 3 (AlexNet, GoogLeNet).
        centred (`bool`): pad a kernel of 3 by 1 on both sides, so that any size from 1 on can be pooled; the release
            pads only where its rounding up demands it.
    """

    def __init__(self, kernel_size: int = 2, centred: bool = False):
        super().__init__()
        self.kernel_size, self.stride = kernel_size, 2
        self.padding = 1 if centred and kernel_size == 3 else 0

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """`(B, C, H, W)` -> `(B, C, H', W')`, half as large."""
        if torch.compiler.is_compiling():
            padded = F.pad(hidden_state, (self.padding, 1, self.padding, 1))
            return F.max_pool2d(padded, self.kernel_size, self.stride)
        return F.max_pool2d(hidden_state, self.kernel_size, self.stride, self.padding, ceil_mode=not self.padding)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class FCNLocalResponseNorm(nn.LocalResponseNorm):
    """Half precisions are normalised in float32: float16 can't hold squares from 256 on, and CPUs lack the pooling."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """`(B, C, H, W)` -> the same, in the same dtype."""
        half = input.dtype in (torch.float16, torch.bfloat16)
        return super().forward(input.float() if half else input).to(input.dtype)


class FCNInception(nn.Module):
    """GoogLeNet's block: 1x1, 3x3, 5x5 and pooled branches side by side, their channels behind one another.

    Names are torchvision's. With batch normalisation it is torchvision's block, whose third branch is 3x3; without, it
    is that of the paper (arXiv:1409.4842, table 1).

    Args:
        channels (`int`): coming in.
        widths (`tuple[int, ...]`): of 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; and of the projection after the pooling.
        batch_norm (`bool`): see above.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], batch_norm: bool):
        super().__init__()
        one, reduce3, three, reduce5, five, projection = widths
        kernel = 3 if batch_norm else 5
        self.out_channels = one + three + five + projection
        self.branch1 = FCNConvolution(channels, one, 1, batch_norm=batch_norm)
        self.branch2 = nn.Sequential(
            FCNConvolution(channels, reduce3, 1, batch_norm=batch_norm),
            FCNConvolution(reduce3, three, 3, padding=1, batch_norm=batch_norm),
        )
        self.branch3 = nn.Sequential(
            FCNConvolution(channels, reduce5, 1, batch_norm=batch_norm),
            FCNConvolution(reduce5, five, kernel, padding=kernel // 2, batch_norm=batch_norm),
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), FCNConvolution(channels, projection, 1, batch_norm=batch_norm)
        )

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """`(B, C, H, W)` -> `(B, C', H, W)`."""
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return torch.cat([branch(hidden_state) for branch in branches], dim=1)


class FCNConvolution(nn.Module):
    """Convolution, batch normalisation if wanted, and ReLU: torchvision's `BasicConv2d`, with its names."""

    def __init__(self, channels: int, width: int, kernel_size: int, batch_norm: bool, **kwargs):
        super().__init__()
        self.out_channels = width
        self.conv = nn.Conv2d(channels, width, kernel_size, bias=not batch_norm, **kwargs)
        self.bn = nn.BatchNorm2d(width, eps=0.001) if batch_norm else nn.Identity()

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """`(B, C, H, W)` -> `(B, C', H', W')`."""
        return F.relu(self.bn(self.conv(hidden_state)))


__all__ = ["FCNConvolution", "FCNInception", "FCNLocalResponseNorm", "FCNPooling"]
