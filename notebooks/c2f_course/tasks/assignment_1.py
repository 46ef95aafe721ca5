"""Assignment 1, ConvMod from scratch: the public checks, which the hidden tests ask again of other inputs."""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from c2f.models.conv2former import Block, Conv2FormerConfig
from c2f_course.grading.assignment import question
from c2f_course.tasks import layers
from c2f_course.tasks.exercise import Expected, task

NORMS = (
    "LayerNorm", "layer_norm", "native_layer_norm", "GroupNorm", "group_norm", "native_group_norm", "RMSNorm",
    "rms_norm", "batch_norm", "native_batch_norm", "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "LazyBatchNorm1d",
    "LazyBatchNorm2d", "LazyBatchNorm3d", "SyncBatchNorm", "instance_norm", "InstanceNorm1d", "InstanceNorm2d",
    "InstanceNorm3d", "LazyInstanceNorm1d", "LazyInstanceNorm2d", "LazyInstanceNorm3d",
)  # fmt: skip
CONVOLUTIONS = (
    "Conv1d", "Conv2d", "Conv3d", "conv1d", "conv2d", "conv3d", "LazyConv1d", "LazyConv2d", "LazyConv3d",
    "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "conv_tbc", "convolution", "_convolution", "mkldnn_convolution", "cudnn_convolution",
    "thnn_conv2d", "slow_conv3d", "conv_depthwise3d", "convolution_backward", "conv1d_input", "conv2d_input",
    "conv3d_input", "Unfold", "unfold", "unfold_copy", "im2col", "as_strided",
    "as_strided_copy", "sliding_window_view",
)  # fmt: skip
OURS = (
    "c2f.models", "c2f.models.conv2former", "c2f.fast", "c2f.fast.depthwise", "c2f.fast.pointwise", "ConvMod",
    "create_model", "LayerNorm2d",
)  # fmt: skip


layer_norm = question(
    "1.1", "A layer norm over channels", "easy", 10, points=3, answers="layer_norm", without=NORMS + OURS
)(layers.layer_norm)


def depthwise_inputs(
    shape: tuple[int, ...] = (2, 3, 6, 8), kernel: tuple[int, int] = (5, 5), seed: int = 12
) -> Iterator[list[Tensor]]:
    draw = torch.Generator().manual_seed(seed)
    yield [torch.randn(size, generator=draw) for size in (shape, (shape[1], *kernel), (shape[1],))]


@question(
    "1.2", "A depthwise convolution by shifts and sums", "medium", 25, points=6, answers="depthwise",
    without=CONVOLUTIONS + OURS,
)  # fmt: skip
@task(depthwise_inputs, "the library's numbers, and its gradients, out of shifts and sums.")
def depthwise(x: Tensor, kernel: Tensor, bias: Tensor) -> Expected:
    x, kernel, bias = x.double(), kernel.double(), bias.double()
    (height, width), size = kernel.shape[1:], x.shape[2:]
    pad = (width // 2, width // 2, height // 2, height // 2)

    def convolved(kernel: Tensor, bias: Tensor | None = bias) -> Tensor:
        padding = (kernel.shape[1] // 2, kernel.shape[2] // 2)
        return F.conv2d(x, kernel[:, None], bias, padding=padding, groups=x.shape[1])

    bare, shift = convolved(kernel, None), bias[:, None, None]
    inner = kernel.clone()
    inner[:, 0], inner[:, -1], inner[:, :, 0], inner[:, :, -1] = 0, 0, 0, 0
    mistakes = [
        (bare, "the bias is not added yet."),
        (convolved(kernel.flip(1, 2)), "the kernel is turned by 180°: a convolution layer multiplies kernel[i, j] with "
         "the pixel i − k//2 rows further DOWN and j − k//2 columns further RIGHT."),
        (convolved(kernel.flip(1)), "the kernel's rows run the wrong way; its columns are right."),
        (convolved(kernel.flip(2)), "the kernel's columns run the wrong way; its rows are right."),
        (lambda: F.conv2d(F.pad(x, pad, mode="circular"), kernel[:, None], bias, groups=x.shape[1]), "what leaves the "
         "map on one side comes in on the other: beyond the border there are zeros (torch.roll wraps round)."),
        (bare.sum(1, keepdim=True) + shift, "the channels are summed; in a depthwise convolution each one stays by "
         "itself."),
        (convolved(kernel[:1].expand_as(kernel)), "every channel is convolved with the first channel's kernel."),
        (bare / (height * width) + shift, "the taps are averaged; a convolution sums."),
        (bare + height * width * shift, "the bias is added once for every tap."),
        (convolved(kernel.mT), "rows and columns of the kernel are exchanged."),
        (convolved(inner), "the outermost taps of the kernel are left out: how far do i and j run?"),
    ]  # fmt: skip
    hint = (
        f"a map of {size[0]}×{size[1]} comes out as {{made.shape[2]}}×{{made.shape[3]}}: with how many zeros on each "
        f"side does a kernel of {height}×{width} keep the size?"
    )
    other_size = (lambda made: isinstance(made, Tensor) and made.dim() == 4 and made.shape[2:] != size, hint)
    return Expected("the convolved map", convolved(kernel), mistakes, "Add up, for every tap (i, j), the shifted map "
        "times that tap; then the bias.", 2e-5, [other_size], {"x": "x", "kernel": "the kernel", "bias": "the "
        "bias"})  # fmt: skip


NORM = {"layer_norm": "c2f_course.tasks.assignment_1:given_norm"}


def given_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-6) -> Tensor:
    """A layer norm over channels that stands in for a student's, when later answers are asked."""
    return F.layer_norm(x.movedim(1, -1), weight.shape, weight, bias, eps).movedim(-1, 1)


convmod = question("1.3", "ConvMod", "medium", 20, points=5, answers="ConvMod", without=OURS, given=NORM)(
    layers.convmod
)


def block_inputs(
    dim: int = 4, kernel_size: int = 5, ratio: float = 2.0, size: tuple[int, int] = (6, 5), seed: int = 14
) -> Iterator[list]:
    """The library's block, a map, and how the student's is made."""
    config = Conv2FormerConfig(dims=(dim,) * 4, kernel_size=kernel_size, mlp_ratio=ratio)
    with torch.random.fork_rng(devices=[]):
        m = layers.redrawn(Block(dim, config, drop_path=0.0), seed, 0.6)
    yield [m, torch.randn(2, dim, *size, generator=torch.Generator().manual_seed(seed + 1)), dim, kernel_size, ratio]


@question(
    "1.4", "The block", "hard", 25, points=4, answers="Block", without=OURS,
    given={**NORM, "ConvMod": "c2f.models:ConvMod"},
)  # fmt: skip
@task(
    block_inputs,
    "the library's block, on the same weights: a transformer's block with ConvMod in attention's place.",
    ask=layers.ask_class,
)
def block(m: Block, x: Tensor, dim: int, kernel_size: int, ratio: float) -> Expected:
    def same(x: Tensor) -> Tensor:
        return x

    def mlp(x: Tensor, first=F.gelu, second=F.gelu, residual: bool = True, norm: bool = True) -> Tensor:
        h = first(m.mlp.fc1(m.mlp.norm(x) if norm else x))
        return m.mlp.fc2(second(m.mlp.pos(h)) + (h if residual else 0))

    once = x + m.convmod(x)
    h = F.gelu(m.mlp.fc1(m.mlp.norm(once)))
    mistakes = [
        (once + mlp(once, residual=False), "inside the MLP a residual is missing: the 3×3 convolution's result is "
         "ADDED to what went into it."),
        (m.convmod(x) + mlp(m.convmod(x)), "the first residual is missing: x plus ConvMod of x."),
        (mlp(once), "the second residual is missing: the MLP's result is added to its input."),
        (m.mlp(m.convmod(x)), "both residuals are missing; a block adds to what comes in."),
        (x + m.convmod(x) + mlp(x), "both branches start from x: the MLP takes what ConvMod has left."),
        (x + mlp(once), "the second sum begins at the block's input instead of at the first sum."),
        (once, "the MLP is not used."),
        (x + mlp(x) + m.convmod(x + mlp(x)), "the MLP comes first; ConvMod, then the MLP."),
        (once + mlp(once, first=same), "in the MLP a GELU is missing after fc1."),
        (once + mlp(once, second=same), "in the MLP a GELU is missing after the 3×3 convolution."),
        (once + mlp(once, norm=False), "the MLP has a norm of its own, at its beginning."),
        (once + m.mlp.fc2(F.gelu(m.mlp.pos(h) + h)), "the GELU is taken of the sum; it is the convolution's result "
         "alone that passes it."),
        (once + m.mlp.fc2(h), "the 3×3 convolution in the MLP is not used."),
    ]  # fmt: skip
    return Expected("the output", m(x), mistakes, "The layers are right, so it is in a forward: x plus ConvMod of x; "
        "that plus its MLP.", 1e-4)  # fmt: skip


Case = tuple[int, int, float]
"""Channels, the kernel's side, the MLP's ratio."""
CASES: Sequence[Case] = ((64, 11, 2.0), (16, 7, 4.0))


def _block(dim: int, k: int, ratio: float) -> Block:
    return Block(dim, Conv2FormerConfig(dims=(dim,) * 4, kernel_size=k, mlp_ratio=ratio), drop_path=0.0)


@task(CASES)
def count(dim: int, k: int, ratio: float) -> Expected:
    real, kernel, hidden = _block(dim, k, ratio), dim * k * k, int(dim * ratio)
    right = sum(p.numel() for p in real.parameters())
    biases = sum(p.numel() for name, p in real.named_parameters() if name.endswith("bias") and "norm" not in name)
    mistakes = [
        (right - 4 * dim, "the norms have parameters, too: a weight and a bias a channel each."),
        (right - 2 * dim, "that counts one norm; ConvMod and the MLP have one each."),
        (right - biases, "the convolutions have biases."),
        (right - biases - 4 * dim, "those are the convolutions' weights; biases and norms come on top."),
        (right - 10 * hidden, "in the MLP there is a 3×3 depthwise convolution as well."),
        (right + 9 * hidden * (hidden - 1), "the MLP's 3×3 convolution is depthwise: one kernel a channel."),
        (right + kernel * (dim - 1), "the large convolution is depthwise: one kernel a channel."),
        (right - kernel + dim * k, "k is the side of the kernel; how many numbers are in it?"),
        (right - dim * dim - dim, "ConvMod has three 1×1 convolutions: for A, for V, and proj."),
        (right - biases + 3 * dim, "three biases of ConvMod are counted; every convolution has some."),
    ]  # fmt: skip
    return Expected(f"the count for {dim} channels, k = {k}, ratio {ratio:g}", right, mistakes, "Write down the layers "
        "one by one: norm, a.0, a.2, v, proj; norm, fc1, pos, fc2.")  # fmt: skip


@task(CASES)
def share(dim: int, k: int, ratio: float) -> Expected:
    part, whole = dim * k * k + dim, sum(p.numel() for p in _block(dim, k, ratio).parameters())
    mistakes = [
        (100 * part / whole, "a share lies between 0 and 1; that is in per cent."),
        (whole / part, "that is how often the part is in the whole; the other way round."),
        ((part - dim) / whole, "the large convolution's bias belongs to it."),
        ((part + 10 * int(dim * ratio)) / whole, "the MLP's 3×3 convolution is counted as well; only the large one is "
         "asked for."),
        (part / (whole - part), "that is the part against the REST; the share is of the whole."),
    ]  # fmt: skip
    return Expected(f"the share for {dim} channels, k = {k}", part / whole, mistakes, "The large depthwise "
        "convolution, weights and bias, by all of the block's parameters.")  # fmt: skip


@question("1.5", "Parameters by formula", "easy", 15, points=2, answers=("block_parameters", "share_of_depthwise"))
def parameters(
    block_parameters: Callable[..., int], share_of_depthwise: Callable[..., float], cases: Sequence[Case] = CASES
) -> str:
    count(block_parameters, cases)
    share(share_of_depthwise, cases)
    return "for 64 channels the 11×11 kernels are a fifth of the block; they grow with C, the 1×1 ones with C²."
