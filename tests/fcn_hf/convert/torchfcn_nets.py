"""torchfcn's nets (wkentaro/pytorch-fcn) as plain PyTorch, narrow, to compare converted ones with.

Written from its description: VGG16 with 100 px of padding, names of layers as attributes, ceil-mode pooling, dense
bilinear kernels, and crops by the numbers of the Caffe release.
"""

import torch
from torch import nn
from torch.nn import functional as F

DEPTHS = (2, 2, 3, 3, 3)
STRIDES = {"FCN32s": 32, "FCN16s": 16, "FCN8s": 8, "FCN8sAtOnce": 8}


class TorchFCN(nn.Module):
    """One of `STRIDES`.

    Args:
        name: torchfcn's name of the class.
        n_class, widths, hidden: sizes, small where the real ones are 21, (64, 128, 256, 512, 512) and 4096.
    """

    def __init__(self, name: str, n_class: int = 21, widths: tuple[int, ...] = (8, 8, 12, 16, 16), hidden: int = 24):
        super().__init__()
        self.stride = STRIDES[name]
        self.scales = (0.01, 0.0001) if name == "FCN8sAtOnce" else (1, 1)
        channels = 3
        for stage, (depth, width) in enumerate(zip(DEPTHS, widths, strict=True), start=1):
            for layer in range(1, depth + 1):
                padding = 100 if stage == layer == 1 else 1
                setattr(self, f"conv{stage}_{layer}", nn.Conv2d(channels, width, 3, padding=padding))
                channels = width
        self.pool = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.drop = nn.Dropout2d()
        self.fc6 = nn.Conv2d(channels, hidden, 7)
        self.fc7 = nn.Conv2d(hidden, hidden, 1)
        self.score_fr = nn.Conv2d(hidden, n_class, 1)
        if self.stride < 32:
            self.score_pool4 = nn.Conv2d(widths[3], n_class, 1)
            self.upscore2 = nn.ConvTranspose2d(n_class, n_class, 4, stride=2, bias=False)
        if self.stride == 8:
            self.score_pool3 = nn.Conv2d(widths[2], n_class, 1)
            self.upscore_pool4 = nn.ConvTranspose2d(n_class, n_class, 4, stride=2, bias=False)
        last = nn.ConvTranspose2d(n_class, n_class, 2 * self.stride, stride=self.stride, bias=False)
        setattr(self, self.last, last)
        self.reset()
        self.eval()

    @property
    def last(self) -> str:
        """The name of the last upsampling."""
        return {32: "upscore", 16: "upscore16", 8: "upscore8"}[self.stride]

    @torch.no_grad()
    def reset(self) -> None:
        """Weights that keep activations around 1 and make every skip matter; biases that are large enough to miss."""
        generator = torch.Generator().manual_seed(0)
        for name, layer in self.named_children():
            if isinstance(layer, nn.ConvTranspose2d):
                size = layer.kernel_size[0]
                tent = 1 - (torch.arange(size) - (size - 1) / 2).abs() / (size / 2)
                layer.weight.zero_()
                for label in range(len(layer.weight)):
                    layer.weight[label, label] = torch.outer(tent, tent)
            elif isinstance(layer, nn.Conv2d):
                scale = {"conv1_1": 1 / 64, "score_pool4": 1 / self.scales[0], "score_pool3": 1 / self.scales[1]}
                deviation = scale.get(name, 1) * (2 / layer.weight[0].numel()) ** 0.5
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * deviation)
                layer.bias.copy_(torch.randn(layer.bias.shape, generator=generator) * 0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """BGR minus the mean, `(B, 3, H, W)` -> scores `(B, n_class, H, W)`."""
        hidden, pools = x, {}
        for stage, depth in enumerate(DEPTHS, start=1):
            for layer in range(1, depth + 1):
                hidden = F.relu(getattr(self, f"conv{stage}_{layer}")(hidden))
            hidden = pools[stage] = self.pool(hidden)
        hidden = self.drop(F.relu(self.fc6(hidden)))
        scores = self.score_fr(self.drop(F.relu(self.fc7(hidden))))
        if self.stride < 32:
            scores = self.upscore2(scores)
            scores = scores + self.crop(self.score_pool4(pools[4] * self.scales[0]), 5, scores)
        if self.stride == 8:
            scores = self.upscore_pool4(scores)
            scores = scores + self.crop(self.score_pool3(pools[3] * self.scales[1]), 9, scores)
        offset = {32: 19, 16: 27, 8: 31}[self.stride]
        return self.crop(getattr(self, self.last)(scores), offset, x)

    @staticmethod
    def crop(x: torch.Tensor, offset: int, like: torch.Tensor) -> torch.Tensor:
        return x[:, :, offset : offset + like.shape[2], offset : offset + like.shape[3]]
