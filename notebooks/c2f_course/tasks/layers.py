"""The layers that a notebook and an assignment both have built: a layer norm over channels, ConvMod."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f.models import ConvMod
from c2f_course.tasks.exercise import Expected, Hint, expect_filled, hint_if, sentences, task
from c2f_course.tasks.probes import is_class, module_output, state_shapes

SAY = sentences(__name__)


def norm_inputs(shape: tuple[int, ...] = (2, 6, 4, 6), seed: int = 11, level: float = 1.0) -> Iterator[list[Tensor]]:
    """x, weight and bias. With as many columns as channels a wrong axis raises no error that would tell."""
    draw = torch.Generator().manual_seed(seed)
    x = level + 2 * torch.randn(shape, generator=draw)
    if level < 10:
        x[0, :, -1, 0] = level + 0.015 * (x[0, :, -1, 0] - level)  # channels nearly alike: eps counts
    x[-1, :, 0, -1] = level  # all channels alike: only eps keeps the quotient finite
    yield [x, 1 + torch.rand(shape[1], generator=draw), torch.randn(shape[1], generator=draw)]


@task(norm_inputs, SAY["layer_norm"])
def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Expected:
    x, weight, bias = x.double(), weight.double(), bias.double()
    mean, variance, channels = x.mean(1, keepdim=True), x.var(1, keepdim=True, correction=0), x.shape[1]

    def scaled(z: Tensor) -> Tensor:
        return z * weight[:, None, None] + bias[:, None, None]

    def over(*dims: int) -> Tensor:
        return scaled((x - x.mean(dims, keepdim=True)) / (x.var(dims, keepdim=True, correction=0) + 1e-6).sqrt())

    z = (x - mean) / (variance + 1e-6).sqrt()
    mistakes = {
        "no weight, no bias": z,
        "no bias": z * weight[:, None, None],
        "no weight": z + bias[:, None, None],
        "weight and bias along the columns": lambda: z * weight + bias,
        "bias along the columns": lambda: z * weight[:, None, None] + bias,
        "F.layer_norm as it is": lambda: F.layer_norm(x, (channels,), weight, bias, eps=1e-6),
        "variance by C − 1": scaled((x - mean) / (variance * channels / max(1, channels - 1) + 1e-6).sqrt()),
        "eps added to the root": scaled((x - mean) / (variance.sqrt() + 1e-6)),
        "by the variance": scaled((x - mean) / (variance + 1e-6)),
        "no mean": scaled(x / (x.square().mean(1, keepdim=True) + 1e-6).sqrt()),
        "only the mean": scaled(x - mean),
        "BatchNorm": over(0, 2, 3),
        "over the positions": over(2, 3),
        "over the whole image": over(1, 2, 3),
        "over the whole batch": over(0, 1, 2, 3),
        "over the columns": over(3),
        "over the images": over(0),
        "no eps": scaled((x - mean) / variance.sqrt()),
    }
    return Expected("the normalised map", scaled(z), mistakes, tolerance=1e-4 if x.mean() > 10 else 5e-5)


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
    say = SAY["ask_class"]
    hint_if(not is_class(cls), say["no class"])
    have = state_shapes(cls, list(args))
    expect_filled(have)
    expect_layers(have, m, int(args[1]))
    if isinstance(m, ConvMod):
        branch, size = module_output(cls, list(args), m.state_dict(), x, "a"), tuple(x.shape[-2:])
        if isinstance(branch, Tensor) and branch.shape[-2:] != size:
            made, which = "×".join(map(str, branch.shape[-2:])), "small" if branch.shape[-2] < size[0] else "large"
            raise Hint(say["padding"].format(k=args[1], size=f"{size[0]}×{size[1]}", made=made, which=which))
    return module_output(cls, list(args), m.state_dict(), x)


def expect_layers(have: dict[str, list[int]], m: nn.Module, kernel_size: int) -> None:
    """Hint unless a state dict of these shapes is m's."""
    want, say = {name: list(value.shape) for name, value in m.state_dict().items()}, SAY["expect_layers"]
    for part in ("norm.running_mean", "v.0.weight", "a.1.weight"):
        hint_if(any(name.endswith(part) for name in have), say[part])
    for name, shape in want.items():
        mine = have.get(name)
        if mine and len(mine) == 4 and mine[2:] != shape[2:]:
            sides = {"made": f"{mine[2]}×{mine[3]}", "right": f"{shape[2]}×{shape[3]}"}
            raise Hint(say["kernel size"].format(k=kernel_size, name=name, **sides))
        if mine and len(mine) == 4 and shape[1] == 1 and mine[1] != 1:
            raise Hint(say["not depthwise"].format(name=name, made=tuple(mine)))
    if missing := [name for name in want if name not in have]:
        sentence = say["no bias" if all(name.endswith("bias") for name in missing) else "missing"]
        raise Hint(sentence.format(missing=", ".join(missing), want=", ".join(want)))
    if extra := [name for name in have if name not in want]:
        raise Hint(say["extra"].format(extra=", ".join(extra)))
    for name, shape in want.items():
        hint_if(have[name] != shape, say["shape"].format(name=name, made=tuple(have[name]), right=tuple(shape)))


@task(convmod_inputs, SAY["convmod"], ask=ask_class)
def convmod(m: ConvMod, x: Tensor, dim: int, kernel_size: int) -> Expected:
    z = m.norm(x)
    u, a, v = m.a[:2](z), m.a(z), m.v(z)
    grouped = F.group_norm(x, 1, m.norm.weight, m.norm.bias)
    mistakes = {
        "x added": x + m.proj(a * v),
        "no proj": a * v,
        "a sum": m.proj(a + v),
        "A alone": m.proj(a),
        "V alone": m.proj(v),
        "proj of A alone": m.proj(a) * v,
        "no norm": m.proj(m.a(x) * m.v(x)),
        "GroupNorm": m.proj(m.a(grouped) * m.v(grouped)),
        "V from x": m.proj(a * m.v(x)),
        "A from x": m.proj(m.a(x) * v),
        "V from A": m.proj(a * m.v(a)),
        "x for V": m.proj(a * x),
        "LN(x) for V": m.proj(a * z),
        "GELU on V": m.proj(a * F.gelu(v)),
        "no depthwise convolution": m.proj(u * v),
        "no GELU": m.proj(m.a[2](m.a[0](z)) * v),
        "ReLU": m.proj(m.a[2](F.relu(m.a[0](z))) * v),
        "GELU by tanh": m.proj(m.a[2](F.gelu(m.a[0](z), approximate="tanh")) * v),
        "sigmoid": m.proj(a.sigmoid() * v),
        "softmax over channels": m.proj(a.softmax(1) * v),
        "softmax over positions": m.proj(a.flatten(2).softmax(2).view_as(a) * v),
    }
    return Expected("the output", m(x), mistakes, tolerance=1e-4)
