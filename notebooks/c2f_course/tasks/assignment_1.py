"""Assignment 1, ConvMod from scratch: the public checks, which the hidden tests ask again of other inputs."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f.models import ConvMod
from c2f.models.conv2former import Block, Conv2FormerConfig
from c2f_course.grading.assignment import question
from c2f_course.tasks.exercise import Hint, Known, expect, expect_filled, expect_tensor, expect_untouched
from c2f_course.tasks.probes import gradients, is_class, module_output, state_shapes

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


@question("1.1", "A layer norm over channels", "easy", 10, points=3, answers="layer_norm", without=NORMS + OURS)
def layer_norm(
    answer: Callable[..., Tensor], shape: tuple[int, ...] = (2, 6, 4, 6), seed: int = 11, level: float = 1.0
) -> str:
    """Knows: other axes, no root, no eps, the unbiased spread, no mean taken off, weight or bias forgotten or on W."""
    draw = torch.Generator().manual_seed(seed)
    x = level + 2 * torch.randn(shape, generator=draw)
    if level < 10:
        x[0, :, -1, 0] = level + 0.015 * (x[0, :, -1, 0] - level)  # channels nearly alike: eps counts
    x[-1, :, 0, -1] = level  # all channels alike: only eps keeps the quotient finite
    weight, bias = 1 + torch.rand(shape[1], generator=draw), torch.randn(shape[1], generator=draw)
    befores = [given.clone() for given in (x, weight, bias)]
    right = F.layer_norm(x.movedim(1, -1).double(), (shape[1],), weight.double(), bias.double(), 1e-6).movedim(-1, 1)
    made = expect_tensor(answer(x, weight, bias), shape, "the normalised map")
    for given, before, what in zip((x, weight, bias), befores, ("x", "the weight", "the bias"), strict=True):
        expect_untouched(given, before, what)
    if not torch.isfinite(made).all():
        raise Hint("at one position all channels are equal, so the spread is 0, and your result is not finite there: "
                   "where does eps belong?")  # fmt: skip

    def scaled(z: Tensor) -> Tensor:
        return z * weight[:, None, None] + bias[:, None, None]

    def over(*dims: int) -> Tensor:
        return scaled((x - x.mean(dims, keepdim=True)) / (x.var(dims, keepdim=True, correction=0) + 1e-6).sqrt())

    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, correction=0)
    unbiased = variance * shape[1] / max(1, shape[1] - 1)
    z = (x - mean) / (variance + 1e-6).sqrt()
    known: Known = [
        (z, "the numbers are normalised, and then? weight and bias have not been used yet."),
        (z * weight[:, None, None], "the bias is not added yet."),
        (z + bias[:, None, None], "the weight is not used yet."),
        (scaled((x - mean) / (unbiased + 1e-6).sqrt()), "nearly: torch divides by C − 1 when it takes a "
         "variance, unless told otherwise; a layer norm divides by C. See `correction`."),
        (scaled((x - mean) / (variance.sqrt() + 1e-6)), "eps is added to the variance, under the root, not to the "
         "spread."),
        (scaled((x - mean) / (variance + 1e-6)), "that divides by the variance, which is the square of the spread."),
        (scaled(x / (x.square().mean(1, keepdim=True) + 1e-6).sqrt()), "the mean was not taken off."),
        (scaled(x - mean), "the mean is off, but the spread is what it was."),
        (over(0, 2, 3), "each channel has its own mean over all images and positions now: that is BatchNorm."),
        (over(2, 3), "each channel has its own mean over the positions now: which axis of (N, C, H, W) has the "
                     "channels of ONE position?"),
        (over(1, 2, 3), "one mean for a whole image: that is a GroupNorm with one group."),
        (over(3), "the mean runs along the columns, the last axis of (N, C, H, W); the channels are another one."),
        (over(0), "the mean runs over the images; no image should know of another."),
    ]  # fmt: skip
    if shape[1] == shape[3]:
        known = [*known, (z * weight + bias, "weight and bias lie along the columns: a tensor (C,) is matched with the "
                  "LAST axis. Give them two more axes.")]  # fmt: skip
    tolerance = 1e-4 if level > 10 else 5e-5
    expect(made, right, "the normalised map", known, "At each position: take off the mean of its channels, divide by "
           "the root of their variance plus eps, then weight and bias.", tolerance=tolerance)  # fmt: skip
    return "each position is normalised by its own channels."


@question(
    "1.2", "A depthwise convolution by shifts and sums", "medium", 25, points=6, answers="depthwise",
    without=CONVOLUTIONS + OURS,
)  # fmt: skip
def depthwise(
    answer: Callable[[Tensor, Tensor, Tensor], Tensor],
    shape: tuple[int, ...] = (2, 3, 6, 8),
    kernel: tuple[int, int] = (5, 5),
    seed: int = 12,
) -> str:
    """Knows: turned or transposed kernel, no padding, wrapped border, summed channels, bias, one kernel for all."""
    draw = torch.Generator().manual_seed(seed)
    x, (height, width) = torch.randn(shape, generator=draw), kernel
    weight, bias = torch.randn(shape[1], *kernel, generator=draw), torch.randn(shape[1], generator=draw)
    befores = [given.clone() for given in (x, weight, bias)]
    made = answer(x, weight, bias)
    expect_filled(made)
    if isinstance(made, Tensor) and made.dim() == 4 and made.shape[-2:] != x.shape[-2:]:
        raise Hint(f"a map of {shape[2]}×{shape[3]} comes out as {'×'.join(map(str, made.shape[-2:]))}: with how many "
                   f"zeros on each side does a kernel of {height}×{width} keep the size?")  # fmt: skip
    made = expect_tensor(made, shape, "the convolved map")
    for given, before, what in zip((x, weight, bias), befores, ("x", "the kernel", "the bias"), strict=True):
        expect_untouched(given, before, what)

    def convolved(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        pad = (weight.shape[-2] // 2, weight.shape[-1] // 2)
        return F.conv2d(x, weight[:, None], bias, padding=pad, groups=x.shape[1])

    right = convolved(x.double(), weight.double(), bias.double())
    pad = (width // 2, width // 2, height // 2, height // 2)
    wrapped = F.conv2d(F.pad(x, pad, mode="circular"), weight[:, None], bias, groups=shape[1])
    known: Known = [
        (convolved(x, weight, None), "the bias is not added yet."),
        (convolved(x, weight.flip(1, 2), bias), "the kernel is turned by 180°: a convolution layer multiplies "
         "kernel[i, j] "
         "with the pixel i − k//2 rows further DOWN and j − k//2 columns further RIGHT."),
        (convolved(x, weight.flip(1), bias), "the kernel's rows run the wrong way; its columns are right."),
        (convolved(x, weight.flip(2), bias), "the kernel's columns run the wrong way; its rows are right."),
        (wrapped, "what leaves the map on one side comes in on the other: beyond the border there are zeros "
                  "(torch.roll wraps round)."),
        (convolved(x, weight, None).sum(1, keepdim=True) + bias[:, None, None], "the channels are summed; in a "
         "depthwise "
         "convolution each one stays by itself."),
        (convolved(x, weight[:1].expand_as(weight), bias), "every channel is convolved with the first channel's "
         "kernel."),
        (convolved(x, weight, None) / (height * width) + bias[:, None, None], "the taps are averaged; a convolution "
         "sums."),
        (convolved(x, weight, None) + height * width * bias[:, None, None], "the bias is added once for every tap."),
    ]  # fmt: skip
    if height == width:
        known = [*known, (convolved(x, weight.mT, bias), "rows and columns of the kernel are exchanged.")]
    if min(shape[2:]) > 2:
        inner = weight.clone()
        inner[:, 0], inner[:, -1], inner[:, :, 0], inner[:, :, -1] = 0, 0, 0, 0
        known = [*known, (convolved(x, inner, bias), "the outermost taps of the kernel are left out: how far do i and "
                                                     "j "
                          "run?")]  # fmt: skip
    expect(made, right, "the convolved map", known, "Add up, for every tap (i, j), the shifted map times that tap; "
                                                    "then "
           "the bias.", tolerance=2e-5)  # fmt: skip
    wanted = _gradients_of(convolved, [x, weight, bias])
    got = gradients(answer, [x, weight, bias], [0, 1, 2])
    for name, mine, theirs in zip(("x", "the kernel", "the bias"), got, wanted, strict=True):
        if mine is None:
            raise Hint(f"no gradient reaches {name}: the values are right, and yet nothing could be learned through "
                       f"it. "
                       f"(.data, .detach(), .item() and numpy cut the graph.)")  # fmt: skip
        expect(mine, theirs, f"the gradient for {name}", [], "Is every tap in the graph?", tolerance=1e-4)
    return "the library's numbers, and its gradients, out of shifts and sums."


def _gradients_of(function: Callable[..., Tensor], args: list[Tensor]) -> list[Tensor]:
    leaves = [arg.double().requires_grad_() for arg in args]
    function(*leaves).square().sum().backward()
    return [leaf.grad for leaf in leaves if leaf.grad is not None]


def given_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-6) -> Tensor:
    """A layer norm over channels that stands in for a student's, when later answers are asked."""
    return F.layer_norm(x.movedim(1, -1), weight.shape, weight, bias, eps).movedim(-1, 1)


NORM = {"layer_norm": "c2f_course.tasks.assignment_1:given_norm"}


@question("1.3", "ConvMod", "medium", 20, points=5, answers="ConvMod", without=OURS, given=NORM)
def convmod(
    answer: type[nn.Module],
    dim: int = 6,
    kernel_size: int = 5,
    size: tuple[int, int] = (7, 9),
    seed: int = 13,
    scale: float = 1.0,
) -> str:
    """Knows: no groups, no bias, no padding, kernel size fixed, product forgotten, branches exchanged, softmax, …"""
    if not is_class(answer):
        raise Hint("give the class itself, not an instance or its output: checks.convmod(ConvMod).")
    theirs = _drawn(ConvMod(dim, kernel_size), seed, scale)
    _expect_state(state_shapes(answer, [dim, kernel_size]), theirs, kernel_size)
    x = 1 + 2 * torch.randn(2, dim, *size, generator=torch.Generator().manual_seed(seed + 1))
    branch = module_output(answer, [dim, kernel_size], theirs.state_dict(), x, "a")
    if isinstance(branch, Tensor) and branch.shape[-2:] != x.shape[-2:]:
        raise Hint(f"with kernel_size={kernel_size} a map of {size[0]}×{size[1]} comes out of a as "
                   f"{'×'.join(map(str, branch.shape[-2:]))}, and cannot meet V: how much padding does a kernel of "
                   f"side k need?")  # fmt: skip
    made = module_output(answer, [dim, kernel_size], theirs.state_dict(), x)
    expect_filled(made)
    made = expect_tensor(made, tuple(x.shape), "the output")
    with torch.no_grad():
        expect(made, theirs(x), "the output", _slips(theirs, x), "The layers are right, so it is in forward: norm "
         "once; "
               "a and v both from the normalised map; their product; proj.", tolerance=1e-4)  # fmt: skip
    return "the same numbers as the library's ConvMod on the same weights."


def _drawn(module: nn.Module, seed: int, scale: float = 1.0) -> nn.Module:
    """The module with weights that tell mistakes apart, which zeros and small numbers would hide."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(0.5 * scale * torch.randn(parameter.shape, generator=draw) + ("norm.weight" in name))
    return module.eval()


def _expect_state(have: dict[str, list[int]], theirs: nn.Module, kernel_size: int) -> None:
    """Hint unless the state dicts fit."""
    want = {name: list(value.shape) for name, value in theirs.state_dict().items()}
    if any("running_mean" in name for name in have):
        raise Hint(
            "there is a BatchNorm, which averages over the images; ConvMod's norm takes one position's channels."
        )
    for name, shape in want.items():
        mine = have.get(name)
        if mine and len(mine) == 4 and mine[2:] != shape[2:]:
            raise Hint(f"asked for kernel_size={kernel_size}, {name} holds kernels of {mine[2]}×{mine[3]} and not "
                       f"{shape[2]}×{shape[3]}: is the argument used, and in the right layer?")  # fmt: skip
        if mine and len(mine) == 4 and shape[1] == 1 and mine[1] != 1:
            raise Hint(f"{name} has shape {tuple(mine)}: every channel looks at all the others. Which argument of "
                       f"Conv2d "
                       f"gives each channel a kernel of its own?")  # fmt: skip
    if missing := [name for name in want if name not in have]:
        if all(name.endswith("bias") for name in missing):
            raise Hint(f"{', '.join(missing)} is missing: every layer here has a bias.")
        raise Hint(f"the state dict has no {', '.join(missing)}; it should have {', '.join(want)}.")
    if extra := [name for name in have if name not in want]:
        raise Hint(f"there is more to learn than there should be: {', '.join(extra)}.")
    for name, shape in want.items():
        if have[name] != shape:
            raise Hint(f"{name} has shape {tuple(have[name])}, and should have {tuple(shape)}.")


def _slips(m: ConvMod, x: Tensor) -> Known:
    """What ConvMod's forward gives after each mistake that is known."""
    z = m.norm(x)
    u, a, v = m.a[:2](z), m.a(z), m.v(z)
    return [
        (x + m.proj(a * v), "x is added already: that is the block's task; ConvMod gives only the branch."),
        (a * v, "the product is there; the last 1×1 convolution, proj, is not."),
        (m.proj(a + v), "A and V are added. How does a weight act on a value?"),
        (m.proj(a), "the product is forgotten: A goes on by itself. What does it weigh?"),
        (m.proj(v), "V goes on by itself. What weighs it?"),
        (m.proj(m.a(x) * m.v(x)), "the norm is not used."),
        (m.proj(a * m.v(x)), "V is made from x itself; both branches begin at the normalised map."),
        (m.proj(m.a(x) * v), "A is made from x itself; both branches begin at the normalised map."),
        (m.proj(a * x), "A weighs x itself; the value V = W2 LN(x) is not used."),
        (m.proj(a * F.gelu(v)), "V passes a GELU; the GELU is in A's branch alone."),
        (m.proj(a * m.v(a)), "V is made from A; both branches begin at the normalised map."),
        (m.proj(u * v), "the depthwise convolution is not used."),
        (m.proj(m.a[2](m.a[0](z)) * v), "the GELU is missing between the two convolutions of a."),
        (m.proj(m.a[2](F.relu(m.a[0](z))) * v), "that is a ReLU; ConvMod has a GELU."),
        (m.proj(m.a[2](F.gelu(m.a[0](z), approximate="tanh")) * v), "that is the GELU's approximation by tanh; the "
         "exact "
         "one is what nn.GELU() gives by itself."),
        (m.proj(a.sigmoid() * v), "A passes a sigmoid: a transformer's habit. Here it keeps its sign."),
        (m.proj(a.softmax(1) * v), "A passes a softmax: that is attention. Here nothing normalises A."),
        (m.proj(a.flatten(2).softmax(2).view_as(a) * v), "A passes a softmax over the positions: that is attention. "
         "Here "
         "nothing normalises A."),
    ]  # fmt: skip


@question(
    "1.4", "The block", "hard", 25, points=4, answers="Block", without=OURS,
    given={**NORM, "ConvMod": "c2f.models:ConvMod"},
)  # fmt: skip
def block(
    answer: type[nn.Module],
    dim: int = 4,
    kernel_size: int = 5,
    ratio: float = 2.0,
    size: tuple[int, int] = (6, 5),
    seed: int = 14,
) -> str:
    """Knows: a residual forgotten, in the block or in the MLP, branches in parallel, GELUs, kernel sizes, the ratio."""
    if not is_class(answer):
        raise Hint("give the class itself, not an instance or its output: checks.block(Block).")
    config = Conv2FormerConfig(dims=(dim,) * 4, kernel_size=kernel_size, mlp_ratio=ratio)
    theirs = _drawn(Block(dim, config, drop_path=0.0), seed, 0.6)
    _expect_state(state_shapes(answer, [dim, kernel_size, ratio]), theirs, kernel_size)
    x = torch.randn(2, dim, *size, generator=torch.Generator().manual_seed(seed + 1))
    before = x.clone()
    made = module_output(answer, [dim, kernel_size, ratio], theirs.state_dict(), x)
    expect_filled(made)
    made = expect_tensor(made, tuple(x.shape), "the output")
    expect_untouched(x, before, "x")
    with torch.no_grad():
        expect(made, theirs(x), "the output", _block_slips(theirs, x), "The layers are right, so it is in a forward: x "
               "plus ConvMod of x; that plus its MLP.", tolerance=1e-4)  # fmt: skip
    return "the library's block, on the same weights: a transformer's block with ConvMod in attention's place."


def _block_slips(m: Block, x: Tensor) -> Known:
    """What a block gives after each mistake that is known, in itself or in its MLP."""
    once = x + m.convmod(x)

    def mlp(x: Tensor, first=F.gelu, second=F.gelu, residual: bool = True, norm: bool = True) -> Tensor:
        h = first(m.mlp.fc1(m.mlp.norm(x) if norm else x))
        return m.mlp.fc2(second(m.mlp.pos(h)) + (h if residual else 0))

    def same(x: Tensor) -> Tensor:
        return x

    h = F.gelu(m.mlp.fc1(m.mlp.norm(once)))
    return [
        (once + mlp(once, residual=False), "inside the MLP a residual is missing: the 3×3 convolution's result is "
         "ADDED to "
         "what went into it."),
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
         "alone "
         "that passes it."),
        (once + m.mlp.fc2(h), "the 3×3 convolution in the MLP is not used."),
    ]  # fmt: skip


@question("1.5", "Parameters by formula", "easy", 15, points=2, answers=("block_parameters", "share_of_depthwise"))
def parameters(
    count: Callable[[int, int, float], int],
    part: Callable[[int, int, float], float],
    cases: tuple[tuple[int, int, float], ...] = ((64, 11, 2.0), (16, 7, 4.0)),
) -> str:
    """Knows: one norm, no biases, the MLP's 3×3 forgotten or full, full 11×11, k for k², the ratio unused."""
    for dim, k, ratio in cases:
        config = Conv2FormerConfig(dims=(dim,) * 4, kernel_size=k, mlp_ratio=ratio)
        real = Block(dim, config, drop_path=0.0)
        right, kernel = sum(p.numel() for p in real.parameters()), dim * k * k
        hidden = int(dim * ratio)
        biases = sum(p.numel() for name, p in real.named_parameters() if name.endswith("bias") and "norm" not in name)
        known: Known = [
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
        expect(count(dim, k, ratio), float(right), f"the count for {dim} channels, k = {k}, ratio {ratio:g}", known,
               "Write down the layers one by one: norm, a.0, a.2, v, proj; norm, fc1, pos, fc2.")  # fmt: skip
        known_parts: Known = [
            (100 * (kernel + dim) / right, "a share lies between 0 and 1; that is in per cent."),
            (right / (kernel + dim), "that is how often the part is in the whole; the other way round."),
            (kernel / right, "the large convolution's bias belongs to it."),
            ((kernel + dim + 10 * hidden) / right, "the MLP's 3×3 convolution is counted as well; only the large one "
             "is "
             "asked for."),
            ((kernel + dim) / (right - kernel - dim), "that is the part against the REST; the share is of the whole."),
        ]  # fmt: skip
        expect(part(dim, k, ratio), (kernel + dim) / right, f"the share for {dim} channels, k = {k}", known_parts,
               "The large depthwise convolution, weights and bias, by all of the block's parameters.")  # fmt: skip
    return "for 64 channels the 11×11 kernels are a fifth of the block; they grow with C, the 1×1 ones with C²."
