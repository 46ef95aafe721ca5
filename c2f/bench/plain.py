"""The seed model in plain PyTorch, as one would port it: the baseline that `c2f bench` measures against.

Convolutions are `nn.Conv2d`, and the norm over channels is written out as the authors' code does, so that everything
stays NCHW. The names are those of `c2f.models.Conv2Former`: each takes the other's state dict.
"""

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth


class ChannelNorm(nn.Module):
    """Normalise the channels of every position by themselves. Shape: (N, C, H, W) -> the same."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class PlainConvMod(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(dim)
        self.a = nn.Sequential(nn.Conv2d(dim, dim, 1), nn.GELU(), nn.Conv2d(dim, dim, 11, padding=5, groups=dim))
        self.v = nn.Conv2d(dim, dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.proj(self.a(x) * self.v(x))


class PlainMlp(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(dim)
        self.fc1 = nn.Conv2d(dim, 2 * dim, 1)
        self.pos = nn.Conv2d(2 * dim, 2 * dim, 3, padding=1, groups=2 * dim)
        self.fc2 = nn.Conv2d(2 * dim, dim, 1)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.fc1(self.norm(x)))
        return self.fc2(x + self.act(self.pos(x)))


class PlainBlock(nn.Module):
    def __init__(self, dim: int, drop_path: float) -> None:
        super().__init__()
        self.convmod = PlainConvMod(dim)
        self.mlp = PlainMlp(dim)
        self.drop_path = StochasticDepth(drop_path, mode="row")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.convmod(x))
        return x + self.drop_path(self.mlp(x))


class PlainStage(nn.Module):
    def __init__(self, downsample: nn.Module, blocks: list[PlainBlock]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class PlainHead(nn.Module):
    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(dim)
        self.fc = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(x).mean(dim=(2, 3)))


class PlainConv2Former(nn.Module):
    """The seed model. Shape: (N, 3, H, W) -> logits (N, num_classes), H and W multiples of 8."""

    def __init__(
        self,
        dims: tuple[int, ...] = (64, 128, 256, 512),
        depths: tuple[int, ...] = (2, 2, 8, 2),
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        rates = iter(torch.linspace(0, 0.1, sum(depths)).tolist())
        self.stem = nn.Conv2d(3, dims[0], 1)
        self.stages = nn.Sequential()
        for i, (dim, depth) in enumerate(zip(dims, depths, strict=True)):
            halve = nn.Identity()
            if i:
                halve = nn.Sequential(
                    nn.GroupNorm(1, dims[i - 1]), nn.Conv2d(dims[i - 1], dim, 2, stride=2, bias=False)
                )
            self.stages.append(PlainStage(halve, [PlainBlock(dim, next(rates)) for _ in range(depth)]))
        self.head = PlainHead(dims[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)))
