"""The layers that a notebook and an assignment both have built: a layer norm over channels, ConvMod."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f.models import ConvMod
from c2f_course.tasks.exercise import Expected, Hint, expect_filled, hint_if, task
from c2f_course.tasks.probes import is_class, module_output, state_shapes


def norm_inputs(shape: tuple[int, ...] = (2, 6, 4, 6), seed: int = 11, level: float = 1.0) -> Iterator[list[Tensor]]:
    """x, weight and bias. With as many columns as channels a wrong axis raises no error that would tell."""
    draw = torch.Generator().manual_seed(seed)
    x = level + 2 * torch.randn(shape, generator=draw)
    if level < 10:
        x[0, :, -1, 0] = level + 0.015 * (x[0, :, -1, 0] - level)  # channels nearly alike: eps counts
    x[-1, :, 0, -1] = level  # all channels alike: only eps keeps the quotient finite
    yield [x, 1 + torch.rand(shape[1], generator=draw), torch.randn(shape[1], generator=draw)]


@task(norm_inputs, "each position is normalised by its own channels.")
def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Expected:
    x, weight, bias = x.double(), weight.double(), bias.double()
    mean, variance, channels = x.mean(1, keepdim=True), x.var(1, keepdim=True, correction=0), x.shape[1]

    def scaled(z: Tensor) -> Tensor:
        return z * weight[:, None, None] + bias[:, None, None]

    def over(*dims: int) -> Tensor:
        return scaled((x - x.mean(dims, keepdim=True)) / (x.var(dims, keepdim=True, correction=0) + 1e-6).sqrt())

    z = (x - mean) / (variance + 1e-6).sqrt()
    mistakes = [
        (z, "the numbers are normalised, and then? weight and bias have not been used yet."),
        (z * weight[:, None, None], "the bias is not added yet."),
        (z + bias[:, None, None], "the weight is not used yet."),
        (lambda: z * weight + bias, "weight and bias lie along the columns: a tensor (C,) is matched with the LAST "
         "axis. Give them two more axes, so that they lie along the channels."),
        (lambda: z * weight[:, None, None] + bias, "the weight is right; the bias lies along the columns: it needs two "
         "more axes as well."),
        (lambda: F.layer_norm(x, (channels,), weight, bias, eps=1e-6), "F.layer_norm works on the LAST axis, here the "
         "columns: bring the channels to the end before, and back after."),
        (scaled((x - mean) / (variance * channels / max(1, channels - 1) + 1e-6).sqrt()), "nearly: torch divides by C "
         "− 1 when it takes a variance, unless told otherwise; a layer norm divides by C. See `correction`."),
        (scaled((x - mean) / (variance.sqrt() + 1e-6)), "eps is added to the variance, under the root, not to the "
         "standard deviation."),
        (scaled((x - mean) / (variance + 1e-6)), "that divides by the variance, which is the square of the standard "
         "deviation."),
        (scaled(x / (x.square().mean(1, keepdim=True) + 1e-6).sqrt()), "the mean was not subtracted."),
        (scaled(x - mean), "the mean is subtracted, but the standard deviation is what it was."),
        (over(0, 2, 3), "each channel has its own mean over all images and positions now: that is BatchNorm."),
        (over(2, 3), "each channel has its own mean over the positions now. Which axis of (N, C, H, W) has the "
         "channels of ONE position?"),
        (over(1, 2, 3), "one mean for a whole image: that is GroupNorm with one group, which you meet in notebook 03."),
        (over(0, 1, 2, 3), "one mean for the whole batch: name the axis over which to average."),
        (over(3), "the mean runs along the columns, the last axis of (N, C, H, W); the channels are another one."),
        (over(0), "the mean runs over the images; no image should know of another."),
        (scaled((x - mean) / variance.sqrt()), "at one position of the test all channels are equal, so the variance is "
         "0, and your result is not finite there: where does eps belong, and what does it do under the root?"),
    ]  # fmt: skip
    return Expected("the normalised map", scaled(z), mistakes, "At each position: subtract the mean of its channels, "
        "divide by the root of their variance plus eps, then weight and "
        "bias.", 1e-4 if x.mean() > 10 else 5e-5)  # fmt: skip


# ---- ConvMod


def redrawn(module: nn.Module, seed: int, scale: float = 1.0) -> nn.Module:
    """The module with weights that tell mistakes apart, which zeros and small numbers would hide."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(0.5 * scale * torch.randn(parameter.shape, generator=draw) + ("norm.weight" in name))
    return module.eval().requires_grad_(False)


def convmod_inputs(
    dim: int = 6, kernel_size: int = 5, size: tuple[int, int] = (7, 9), seed: int = 13, scale: float = 1.0
) -> Iterator[list]:
    """The library's ConvMod, a map, and how the student's is made."""
    with torch.random.fork_rng(devices=[]):
        m = redrawn(ConvMod(dim, kernel_size), seed, scale)
    x = 1 + 2 * torch.randn(2, dim, *size, generator=torch.Generator().manual_seed(seed + 1))
    yield [m, x, dim, kernel_size]


def ask_class(cls: type[nn.Module], m: nn.Module, x: Tensor, *args: float) -> Tensor | None:
    """What a student's module with m's weights gives for x. Hint unless it has the same layers as m."""
    hint_if(not is_class(cls), "give the class itself, not an instance or its output, as in checks.convmod(ConvMod).")
    have = state_shapes(cls, list(args))
    expect_filled(have)
    expect_layers(have, m, int(args[1]))
    if isinstance(m, ConvMod):
        branch, size = module_output(cls, list(args), m.state_dict(), x, "a"), tuple(x.shape[-2:])
        if isinstance(branch, Tensor) and branch.shape[-2:] != size:
            raise Hint(f"with kernel_size={args[1]} a map of {size[0]}×{size[1]} comes out of a as "
                f"{'×'.join(map(str, branch.shape[-2:]))}, too {'small' if branch.shape[-2] < size[0] else 'large'} to "
                "meet V: how much padding does a kernel of side k need on each side to keep the size?")  # fmt: skip
    return module_output(cls, list(args), m.state_dict(), x)


def expect_layers(have: dict[str, list[int]], m: nn.Module, kernel_size: int) -> None:
    """Hint unless a state dict of these shapes is m's."""
    want = {name: list(value.shape) for name, value in m.state_dict().items()}
    for part, hint in (
        ("norm.running_mean", "there is a BatchNorm, which averages over the images; ConvMod's norm takes one "
         "position's channels."),
        ("v.0.weight", "v is a Sequential; V is one 1×1 convolution, with no GELU after it."),
        ("a.1.weight", "in your a the second layer has weights; between the two convolutions stands the GELU."),
    ):  # fmt: skip
        hint_if(any(name.endswith(part) for name in have), hint)
    for name, shape in want.items():
        mine = have.get(name)
        if mine and len(mine) == 4 and mine[2:] != shape[2:]:
            raise Hint(f"asked for kernel_size={kernel_size}, {name} holds kernels of {mine[2]}×{mine[3]} and not "
                f"{shape[2]}×{shape[3]}: is the argument used, and in the right layer?")  # fmt: skip
        if mine and len(mine) == 4 and shape[1] == 1 and mine[1] != 1:
            raise Hint(f"{name} has shape {tuple(mine)}: every channel looks at all the others. Which argument of "
                "Conv2d gives each channel a kernel of its own?")  # fmt: skip
    if missing := [name for name in want if name not in have]:
        if all(name.endswith("bias") for name in missing):
            raise Hint(f"{', '.join(missing)} is missing: every layer here has a bias.")
        raise Hint(f"the state dict has no {', '.join(missing)}; it should have {', '.join(want)}. (a is a Sequential "
            "of three layers.)")  # fmt: skip
    if extra := [name for name in have if name not in want]:
        raise Hint(f"there is more to learn than there should be: {', '.join(extra)}.")
    for name, shape in want.items():
        if have[name] != shape:
            raise Hint(f"{name} has shape {tuple(have[name])}, and should have {tuple(shape)}.")


@task(convmod_inputs, "the same numbers as c2f.models.ConvMod on the same weights.", ask=ask_class)
def convmod(m: ConvMod, x: Tensor, dim: int, kernel_size: int) -> Expected:
    z = m.norm(x)
    u, a, v = m.a[:2](z), m.a(z), m.v(z)
    grouped = F.group_norm(x, 1, m.norm.weight, m.norm.bias)
    both = "both branches begin at the normalised map."
    attention = "that is attention. Here nothing normalises A."
    mistakes = [
        (x + m.proj(a * v), "x is added already: that is the block's task; ConvMod gives only the branch."),
        (a * v, "the product is there; the last 1×1 convolution, proj, is not."),
        (m.proj(a + v), "A and V are added. How does a weight act on a value?"),
        (m.proj(a), "the product is forgotten: A goes on by itself. What does it weigh?"),
        (m.proj(v), "V goes on by itself. What weighs it?"),
        (m.proj(a) * v, "proj is applied to A alone; it comes last, after the product."),
        (m.proj(m.a(x) * m.v(x)), "the norm is not used."),
        (m.proj(m.a(grouped) * m.v(grouped)), "your norm is a GroupNorm of one group: one mean for a whole image. "
         "ConvMod's takes the channels of one position."),
        (m.proj(a * m.v(x)), f"V is made from x itself; {both}"),
        (m.proj(m.a(x) * v), f"A is made from x itself; {both}"),
        (m.proj(a * m.v(a)), f"V is made from A; {both}"),
        (m.proj(a * x), "A weighs x itself; the value V = W2 LN(x) is not used."),
        (m.proj(a * z), "A weighs the normalised map itself; the value V = W2 LN(x) is not used."),
        (m.proj(a * F.gelu(v)), "V passes a GELU; the GELU is in A's branch alone."),
        (m.proj(u * v), "the depthwise convolution is not used."),
        (m.proj(m.a[2](m.a[0](z)) * v), "the GELU is missing between the two convolutions of a."),
        (m.proj(m.a[2](F.relu(m.a[0](z))) * v), "that is a ReLU; ConvMod has a GELU."),
        (m.proj(m.a[2](F.gelu(m.a[0](z), approximate="tanh")) * v), "that is the GELU's approximation by tanh; the "
         "exact one is what nn.GELU() gives by itself."),
        (m.proj(a.sigmoid() * v), "A passes a sigmoid: a transformer's habit. Here it keeps its sign."),
        (m.proj(a.softmax(1) * v), f"A passes a softmax: {attention}"),
        (m.proj(a.flatten(2).softmax(2).view_as(a) * v), f"A passes a softmax over the positions: {attention}"),
    ]  # fmt: skip
    return Expected("the output", m(x), mistakes, "All layers are right, so it is in forward: norm once; a and v both "
        "from the normalised map; their product; proj.", tolerance=1e-4)  # fmt: skip
