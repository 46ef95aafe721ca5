"""Assignment 1, ConvMod from scratch: the public checks, which the hidden tests ask again of other inputs."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f.models.conv2former import Block, Conv2FormerConfig
from c2f_course.grading.assignment import question
from c2f_course.tasks import layers
from c2f_course.tasks.exercise import Expected, sentences, task

SAY = sentences(__name__)
OURS = SAY["without"]["ours"]
NORMS, CONVS = (SAY["without"][kind] + OURS for kind in ("norms", "convolutions"))
"""What an answer may not use."""

layer_norm = question("1.1", "A layer norm over channels", "easy", 10, points=3, answers="layer_norm", without=NORMS)(
    layers.layer_norm
)


def depthwise_inputs(
    shape: tuple[int, ...] = (2, 3, 6, 8), kernel: tuple[int, int] = (5, 5), seed: int = 12
) -> Iterator[list[Tensor]]:
    draw = torch.Generator().manual_seed(seed)
    yield [torch.randn(size, generator=draw) for size in (shape, (shape[1], *kernel), (shape[1],))]


@question(
    "1.2", "A depthwise convolution by shifts and sums", "medium", 25, points=6, answers="depthwise", without=CONVS
)
@task(depthwise_inputs, SAY["depthwise"])
def depthwise(x: Tensor, kernel: Tensor, bias: Tensor) -> Expected:
    x, kernel, bias = x.double(), kernel.double(), bias.double()
    height, width = kernel.shape[1:]
    pad = (width // 2, width // 2, height // 2, height // 2)

    def convolved(kernel: Tensor, bias: Tensor | None = bias) -> Tensor:
        padding = (kernel.shape[1] // 2, kernel.shape[2] // 2)
        return F.conv2d(x, kernel[:, None], bias, padding=padding, groups=x.shape[1])

    bare, shift = convolved(kernel, None), bias[:, None, None]
    inner = kernel.clone()
    inner[:, 0], inner[:, -1], inner[:, :, 0], inner[:, :, -1] = 0, 0, 0, 0
    mistakes = {
        "no bias": bare,
        "kernel turned": convolved(kernel.flip(1, 2)),
        "rows turned": convolved(kernel.flip(1)),
        "columns turned": convolved(kernel.flip(2)),
        "wraps round": lambda: F.conv2d(F.pad(x, pad, mode="circular"), kernel[:, None], bias, groups=x.shape[1]),
        "channels summed": bare.sum(1, keepdim=True) + shift,
        "first channel's kernel": convolved(kernel[:1].expand_as(kernel)),
        "a mean": bare / (height * width) + shift,
        "bias for every tap": bare + height * width * shift,
        "rows and columns exchanged": convolved(kernel.mT),
        "outermost taps left out": convolved(inner),
    }

    def has_another_size(made: Any) -> bool:
        return isinstance(made, Tensor) and made.dim() == 4 and made.shape[2:] != x.shape[2:]

    learns = {"x": "x", "kernel": "the kernel", "bias": "the bias"}
    signs = {"another size": has_another_size}
    return Expected("the convolved map", convolved(kernel), mistakes, tolerance=2e-5, signs=signs, learns=learns)


NORM = {"layer_norm": "c2f_course.tasks.assignment_1:given_norm"}


def given_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-6) -> Tensor:
    """A layer norm over channels that stands in for a student's, when later answers are asked."""
    return F.layer_norm(x.movedim(1, -1), weight.shape, weight, bias, eps).movedim(-1, 1)


convmod = question("1.3", "ConvMod", "medium", 20, points=5, answers="ConvMod", without=OURS, given=NORM)(
    layers.convmod
)


def _block(dim: int, k: int, ratio: float) -> Block:
    return Block(dim, Conv2FormerConfig(dims=(dim,) * 4, kernel_size=k, mlp_ratio=ratio), drop_path=0.0)


def block_inputs(
    dim: int = 4, kernel_size: int = 5, ratio: float = 2.0, size: tuple[int, int] = (6, 5), seed: int = 14
) -> Iterator[list]:
    """The library's block, a map, and how the student's is made."""
    with torch.random.fork_rng(devices=[]):
        m = layers.redrawn(_block(dim, kernel_size, ratio), seed, 0.6)
    yield [m, torch.randn(2, dim, *size, generator=torch.Generator().manual_seed(seed + 1)), dim, kernel_size, ratio]


GIVEN = {**NORM, "ConvMod": "c2f.models:ConvMod"}


@question("1.4", "The block", "hard", 25, points=4, answers="Block", without=OURS, given=GIVEN)
@task(block_inputs, SAY["block"], ask=layers.ask_class)
def block(m: Block, x: Tensor, dim: int, kernel_size: int, ratio: float) -> Expected:
    def mlp(x: Tensor, first=F.gelu, second=F.gelu, residual: bool = True, norm: bool = True) -> Tensor:
        h = first(m.mlp.fc1(m.mlp.norm(x) if norm else x))
        return m.mlp.fc2(second(m.mlp.pos(h)) + (h if residual else 0))

    once = x + m.convmod(x)
    h = F.gelu(m.mlp.fc1(m.mlp.norm(once)))
    mistakes = {
        "no residual in the MLP": once + mlp(once, residual=False),
        "no first residual": m.convmod(x) + mlp(m.convmod(x)),
        "no second residual": mlp(once),
        "no residuals": m.mlp(m.convmod(x)),
        "MLP starts from x": x + m.convmod(x) + mlp(x),
        "second sum from x": x + mlp(once),
        "no MLP": once,
        "MLP first": x + mlp(x) + m.convmod(x + mlp(x)),
        "no GELU after fc1": once + mlp(once, first=nn.Identity()),
        "no GELU after pos": once + mlp(once, second=nn.Identity()),
        "no norm in the MLP": once + mlp(once, norm=False),
        "GELU of the sum": once + m.mlp.fc2(F.gelu(m.mlp.pos(h) + h)),
        "no pos": once + m.mlp.fc2(h),
    }
    return Expected("the output", m(x), mistakes, tolerance=1e-4)


Case = tuple[int, int, float]
"""Channels, the kernel's side, the MLP's ratio."""
CASES: Sequence[Case] = ((64, 11, 2.0), (16, 7, 4.0))


@task(CASES, SAY["count"])
def count(dim: int, k: int, ratio: float) -> Expected:
    real, kernel, hidden = _block(dim, k, ratio), dim * k * k, int(dim * ratio)
    right = sum(p.numel() for p in real.parameters())
    biases = sum(p.numel() for name, p in real.named_parameters() if name.endswith("bias") and "norm" not in name)
    mistakes = {
        "no norms": right - 4 * dim,
        "one norm": right - 2 * dim,
        "no biases": right - biases,
        "no biases, no norms": right - biases - 4 * dim,
        "no pos": right - 10 * hidden,
        "pos not depthwise": right + 9 * hidden * (hidden - 1),
        "a not depthwise": right + kernel * (dim - 1),
        "k for the kernel": right - kernel + dim * k,
        "two 1×1 convolutions": right - dim * dim - dim,
        "three biases": right - biases + 3 * dim,
    }
    return Expected(f"the count for {dim} channels, k = {k}, ratio {ratio:g}", right, mistakes)


@task(CASES, SAY["share"])
def share(dim: int, k: int, ratio: float) -> Expected:
    part, whole = dim * k * k + dim, sum(p.numel() for p in _block(dim, k, ratio).parameters())
    mistakes = {
        "per cent": 100 * part / whole,
        "upside down": whole / part,
        "no bias": (part - dim) / whole,
        "pos as well": (part + 10 * int(dim * ratio)) / whole,
        "of the rest": part / (whole - part),
    }
    return Expected(f"the share for {dim} channels, k = {k}", part / whole, mistakes)


@question("1.5", "Parameters by formula", "easy", 15, points=2, answers=("block_parameters", "share_of_depthwise"))
def parameters(
    block_parameters: Callable[..., int], share_of_depthwise: Callable[..., float], cases: Sequence[Case] = CASES
) -> str:
    count(block_parameters, cases)
    share(share_of_depthwise, cases)
    return SAY["parameters"]["praise"]
