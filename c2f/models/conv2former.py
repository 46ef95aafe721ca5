"""Conv2Former, from its convolutional modulation up to the published variants.

Hou, Lu, Cheng, Feng: Conv2Former, arXiv 2211.11943. Read from top to bottom: norm, ConvMod, MLP, block, stage, head,
configuration, network. One class covers the CIFAR-10 model that this kit reproduces and the authors' released models.

Shapes: N images, C channels, H x W positions. A name like `x_nhwc` says the order of the axes; without one it is NCHW.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from c2f.models.init import INIT, Init
from c2f.models.inputs import check_images

Stem = Literal["pointwise", "patch", "overlap", "conv"]
DownsampleNorm = Literal["group", "layer"]
Head = Literal["linear", "conv"]
Fusion = Literal["hadamard", "sum", "sigmoid", "l1"]

STEM_STRIDE: dict[str, int] = {"pointwise": 1, "patch": 2, "overlap": 2, "conv": 4}
ODD = "kernel_size is {}; a kernel needs a centre: use a positive odd number."


class LayerNorm2d(nn.LayerNorm):
    """Normalise the channels of every position by themselves. Shape: (N, C, H, W) -> the same."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__(dim, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        x_nhwc = x.permute(0, 2, 3, 1)
        return super().forward(x_nhwc).permute(0, 3, 1, 2)


class ConvModParts(NamedTuple):
    """What ConvMod computes on its way, each (N, C, H, W)."""

    u: Tensor  # GELU(W1 LN(x)): what the depthwise convolution looks at
    a: Tensor  # DWConv(u): the modulation map, a weight for each value; signed, unlike a softmax
    v: Tensor  # W2 LN(x): the value
    y: Tensor  # W3 (a * v): the output


def fuse(a: Tensor, v: Tensor, fusion: Fusion) -> Tensor:
    """Let the modulation weigh the value; "hadamard" is Conv2Former, the others are the paper's ablation (table 7).

    The paper does not say which axis its L1 normalisation runs over; here it is the channels of a position.
    """
    match fusion:
        case "hadamard":
            return a * v
        case "sum":
            return a + v
        case "sigmoid":
            return a.sigmoid() * v
        case "l1":
            return F.normalize(a, p=1.0, dim=1) * v


class ConvMod(nn.Module):
    """Weigh each position's value by a k x k summary of its neighbourhood (arXiv 2211.11943, section 3.2).

    Self-attention computes a weight for each value from every pair of positions, at a cost of (HW)^2. ConvMod computes
    the weight from a depthwise convolution, at a cost of k^2 HW:

        u = GELU(W1 LN(x));   a = DWConv(u);   v = W2 LN(x);   y = W3 (a * v)

    Shape: (N, C, H, W) -> (N, C, H, W).
    """

    def __init__(self, dim: int, kernel_size: int = 11, fusion: Fusion = "hadamard") -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(ODD.format(kernel_size))
        self.norm = LayerNorm2d(dim)
        self.a = nn.Sequential(
            nn.Conv2d(dim, dim, 1),
            nn.GELU(),
            nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim),
        )
        self.v = nn.Conv2d(dim, dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)
        self.fusion: Fusion = fusion

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.proj(fuse(self.a(x), self.v(x), self.fusion))

    def parts(self, x: Tensor) -> ConvModParts:
        """The intermediates `u, a, v` and the output `y` for an input (N, C, H, W); `y` equals `forward(x)`."""
        x = self.norm(x)
        u = self.a[:2](x)
        a, v = self.a[2](u), self.v(x)
        return ConvModParts(u, a, v, self.proj(fuse(a, v, self.fusion)))


class ConvMlp(nn.Module):
    """Two 1x1 convolutions with a residual 3x3 depthwise one between them. Shape: (N, C, H, W) -> the same."""

    def __init__(self, dim: int, ratio: float) -> None:
        super().__init__()
        hidden = int(dim * ratio)
        self.norm = LayerNorm2d(dim)
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.pos = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Conv2d(hidden, dim, 1)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.fc1(self.norm(x)))
        return self.fc2(x + self.act(self.pos(x)))


class LayerScale(nn.Module):
    """Multiply each channel by a learned factor that begins small (Touvron et al., arXiv 2103.17239)."""

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma[:, None, None]


class Block(nn.Module):
    """A transformer's block with ConvMod in attention's place. Shape: (N, C, H, W) -> the same."""

    def __init__(self, dim: int, config: "Conv2FormerConfig", drop_path: float) -> None:
        super().__init__()
        self.convmod = ConvMod(dim, config.kernel_size, config.fusion)
        self.mlp = ConvMlp(dim, config.mlp_ratio)
        self.scale1, self.scale2 = (
            nn.Identity() if config.layer_scale is None else LayerScale(dim, config.layer_scale) for _ in range(2)
        )
        self.drop_path = StochasticDepth(drop_path, mode="row")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.scale1(self.convmod(x)))
        return x + self.drop_path(self.scale2(self.mlp(x)))


class Stage(nn.Module):
    """Halve the map if it is not the first stage, then blocks. Shape: (N, C, H, W) -> (N, C', H/2 or H, W/2 or W)."""

    def __init__(self, downsample: nn.Module, blocks: list[Block]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class ClassifierHead(nn.Module):
    """Normalise, average over positions, classify; widen to `expand` channels first. (N, C, H, W) -> (N, classes)."""

    def __init__(self, dim: int, num_classes: int, expand: int | None = None) -> None:
        super().__init__()
        self.expand = nn.Identity() if expand is None else nn.Sequential(nn.Conv2d(dim, expand, 1), nn.GELU())
        self.norm = LayerNorm2d(expand or dim)
        self.fc = nn.Linear(expand or dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.expand(x)).mean(dim=(2, 3)))


def make_stem(kind: Stem, in_channels: int, dim: int) -> nn.Module:
    """(N, in_channels, H, W) -> (N, dim, H/s, W/s), s = 1 (pointwise), 2 (patch, overlap) or 4 (conv, the paper's)."""
    half = max(1, dim // 2)
    match kind:
        case "pointwise":
            return nn.Conv2d(in_channels, dim, 1)
        case "patch":
            return nn.Conv2d(in_channels, dim, 2, stride=2)
        case "overlap":
            return nn.Sequential(
                nn.Conv2d(in_channels, half, 3, stride=2, padding=1),
                nn.GELU(),
                nn.Conv2d(half, dim, 3, padding=1),
            )
        case "conv":
            return nn.Sequential(
                nn.Conv2d(in_channels, half, 3, stride=2, padding=1, bias=False),
                nn.GELU(),
                nn.BatchNorm2d(half),
                nn.Conv2d(half, half, 3, padding=1, bias=False),
                nn.GELU(),
                nn.BatchNorm2d(half),
                nn.Conv2d(half, dim, 2, stride=2, bias=False),
            )


def make_downsample(norm: DownsampleNorm, dim: int, out_dim: int) -> nn.Module:
    """(N, dim, H, W) -> (N, out_dim, H/2, W/2). "group" is the CIFAR-10 model's, "layer" the paper's."""
    if norm == "group":
        return nn.Sequential(nn.GroupNorm(1, dim), nn.Conv2d(dim, out_dim, 2, stride=2, bias=False))
    return nn.Sequential(LayerNorm2d(dim), nn.Conv2d(dim, out_dim, 2, stride=2))


@dataclass(frozen=True)
class Conv2FormerConfig:
    """How one Conv2Former differs from another. The defaults are the CIFAR-10 model's."""

    dims: tuple[int, ...] = (64, 128, 256, 512)
    """Channels of each stage."""
    depths: tuple[int, ...] = (2, 2, 8, 2)
    """Blocks of each stage."""
    kernel_size: int = 11
    """Side of ConvMod's depthwise kernel: odd, so that it has a centre."""
    mlp_ratio: float = 2.0
    """Hidden channels of the MLP, as a multiple of the stage's."""
    num_classes: int = 10
    in_channels: int = 3
    stem: Stem = "pointwise"
    """"pointwise" keeps the resolution, "patch" and "overlap" (two 3×3 convolutions) halve it, "conv" quarters it."""
    downsample_norm: DownsampleNorm = "group"
    head: Head = "linear"
    """"conv" widens to 1,280 channels before it averages, as the paper's does."""
    layer_scale: float | None = None
    """Where the learned factor on each branch begins; None leaves it out."""
    drop_path: float = 0.1
    """Stochastic depth of the last block; it rises to this from 0 over the blocks."""
    fusion: Fusion = "hadamard"
    """How the modulation meets the value; all but "hadamard" are for ablations."""
    init: Init = "truncated_normal"
    """How the weights begin: "truncated_normal" as published, "orthogonal" for short trainings (`c2f.models.init`)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "dims", tuple(self.dims))
        object.__setattr__(self, "depths", tuple(self.depths))
        if len(self.dims) != len(self.depths) or min(self.dims + self.depths, default=0) < 1:
            raise ValueError(
                f"dims {self.dims} and depths {self.depths} must be positive and equally many, one per stage."
            )
        if min(self.num_classes, self.in_channels, min(self.dims) * self.mlp_ratio) < 1:
            raise ValueError(
                f"num_classes ({self.num_classes}), in_channels ({self.in_channels}) and the MLP's hidden channels "
                f"(mlp_ratio {self.mlp_ratio} × dims) must be at least 1."
            )
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path is {self.drop_path}; use a probability of at least 0, below 1.")
        choices = {"stem": Stem, "downsample_norm": DownsampleNorm, "head": Head, "fusion": Fusion, "init": Init}
        for name, kind in choices.items():
            if (value := getattr(self, name)) not in get_args(kind):
                raise ValueError(f"{name} is {value!r}; use {' or '.join(get_args(kind))}.")

    @property
    def stride(self) -> int:
        """Pixels of the image along one side of a position of the last stage: sizes must be multiples of it."""
        return STEM_STRIDE[self.stem] * 2 ** (len(self.dims) - 1)


class Conv2Former(nn.Module):
    """A hierarchy of stages of ConvMod blocks. Shape: (N, in_channels, H, W) -> logits (N, num_classes).

    H and W must be multiples of `config.stride`, since every stage after the first halves the map; else ValueError.
    """

    def __init__(self, config: Conv2FormerConfig) -> None:
        super().__init__()
        self.config = config
        drop_paths = iter(torch.linspace(0, config.drop_path, sum(config.depths), device="cpu").tolist())
        self.stem = make_stem(config.stem, config.in_channels, config.dims[0])
        self.stages = nn.Sequential()
        previous = None
        for dim, depth in zip(config.dims, config.depths, strict=True):
            downsample = make_downsample(config.downsample_norm, previous, dim) if previous else nn.Identity()
            self.stages.append(Stage(downsample, [Block(dim, config, next(drop_paths)) for _ in range(depth)]))
            previous = dim
        self.head = ClassifierHead(previous, config.num_classes, expand=1280 if config.head == "conv" else None)
        INIT[config.init](self)

    def _check(self, x: Tensor) -> None:
        check_images(x, self.config.in_channels, stride=self.config.stride)

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        return self.head(self.stages(self.stem(x)))

    def features(self, x: Tensor) -> dict[int, Tensor]:
        """Each stage's output, by its stride: {stride: (N, dims[i], H/stride, W/stride)}, finest first."""
        self._check(x)
        x, outputs = self.stem(x), {}
        for i, stage in enumerate(self.stages):
            outputs[STEM_STRIDE[self.config.stem] * 2**i] = x = stage(x)
        return outputs

    def block(self, stage: int, block: int) -> Block:
        """One block; stage and block count from 0. Raises ValueError for one that does not exist."""
        depths = self.config.depths
        if not (0 <= stage < len(depths) and 0 <= block < depths[stage]):
            raise ValueError(
                f"there is no stage {stage}, block {block}; stages 0 to {len(depths) - 1} have {depths} blocks, from 0."
            )
        return self.stages[stage].blocks[block]

    def parts(self, x: Tensor, stage: int, block: int) -> ConvModParts:
        """The intermediates of one block's ConvMod for images x; stage and block count from 0."""
        convmod = self.block(stage, block).convmod
        self._check(x)
        x = self.stages[stage].downsample(self.stages[:stage](self.stem(x)))
        return convmod.parts(self.stages[stage].blocks[:block](x))


def _paper(dims: tuple[int, ...], depths: tuple[int, ...], kernel_size: int = 11) -> Conv2FormerConfig:
    """The authors' released design; the rate of stochastic depth belongs to their recipe, so it is 0 here."""
    return Conv2FormerConfig(
        dims, depths, kernel_size, mlp_ratio=4.0, stem="conv", downsample_norm="layer", head="conv",
        layer_scale=1e-6, drop_path=0.0,
    )  # fmt: skip


VARIANTS: dict[str, Conv2FormerConfig] = {
    "conv2former_n_cifar": Conv2FormerConfig((64, 128, 256, 512), (2, 2, 8, 2)),
    "conv2former_mini_cifar": Conv2FormerConfig((64, 128, 256), (1, 2, 2), stem="overlap", init="orthogonal"),
    "conv2former_n": _paper((64, 128, 256, 512), (2, 2, 8, 2), kernel_size=7),
    "conv2former_t": _paper((72, 144, 288, 576), (3, 3, 12, 3)),
    "conv2former_s": _paper((72, 144, 288, 576), (4, 4, 32, 4)),
    "conv2former_b": _paper((96, 192, 384, 768), (4, 4, 34, 4)),
    "conv2former_b_22k": _paper((96, 192, 384, 768), (4, 4, 34, 4), kernel_size=7),
    "conv2former_l": _paper((128, 256, 512, 1024), (4, 4, 48, 4)),
}
