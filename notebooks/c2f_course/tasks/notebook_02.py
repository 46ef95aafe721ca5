"""The exercises of notebook 02, which builds ConvMod: its six lines, the whole of it from memory, a count, a fusion."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f.models import ConvMod
from c2f_course.tasks import layers
from c2f_course.tasks.exercise import Expected, exercise, sentences, task

SAY = sentences(__name__)

# ---- The six lines. M is a ConvMod with weights that tell mistakes apart, X_HAT a normalised map.

((M, X, *_),) = layers.convmod_inputs()
X_HAT = M.norm(X)
U, V = M.a[:2](X_HAT), M.v(X_HAT)
A = M.a[2](U)


def kit_layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, bias, 1e-6).permute(0, 3, 1, 2)


layer_norm = exercise("02.1", "Line 1: normalise each position", "easy", 5, kit_layer_norm)(
    replace(layers.layer_norm, says=layers.layer_norm.says | SAY["layer_norm"])
)


def kit_u(x_hat: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.gelu(F.conv2d(x_hat, weight, bias))


@exercise("02.2", "Line 2: what the kernel looks at, U", "easy", 3, kit_u)
@task([(X_HAT, M.a[0].weight, M.a[0].bias)], SAY["u"], errors={"size": "not a 1×1 convolution"})
def u(x_hat: Tensor, weight: Tensor, bias: Tensor) -> Expected:
    mixed = F.conv2d(x_hat, weight, bias)
    mistakes = {
        "no GELU": mixed,
        "ReLU": F.relu(mixed),
        "GELU by tanh": F.gelu(mixed, approximate="tanh"),
        "GELU first": F.conv2d(F.gelu(x_hat), weight, bias),
        "no bias": F.gelu(F.conv2d(x_hat, weight)),
        "bias after the GELU": F.gelu(F.conv2d(x_hat, weight)) + bias[:, None, None],
        "matrix transposed": F.gelu(F.conv2d(x_hat, weight.transpose(0, 1), bias)),
    }
    return Expected("U", kit_u(x_hat, weight, bias), mistakes)


def kit_a(u: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(u, kernel, bias, padding=kernel.shape[-1] // 2, groups=len(kernel))


WIDE = M.a[2].weight, torch.ones(6, 1, 3, 3).cumsum(3)  # kernels of two sizes


@exercise("02.3", "Line 3: the modulation, A", "medium", 6, kit_a)
@task(
    [(U, kernel, M.a[2].bias) for kernel in WIDE], SAY["a"], errors={"given groups": "no groups", "divis": "no groups"}
)
def a(u: Tensor, kernel: Tensor, bias: Tensor) -> Expected:
    k, channels = kernel.shape[-1], len(kernel)

    def convolved(kernel: Tensor = kernel, bias: Tensor | None = bias, padding: int = k // 2) -> Tensor:
        return F.conv2d(u, kernel, bias, padding=padding, groups=channels)

    mistakes = {
        "no padding": convolved(padding=0),
        "padding of 5": convolved(padding=5),
        "padding of k": convolved(padding=k),
        "no bias": convolved(bias=None),
        "kernel turned": convolved(kernel.flip(2, 3)),
        "kernel transposed": convolved(kernel.mT),
        "all channels": F.conv2d(u, kernel.expand(channels, channels, k, k), bias, padding=k // 2),
        "a second GELU": F.gelu(convolved()),
        "times U": u * convolved(),
    }
    return Expected(f"A for {k}×{k} kernels", kit_a(u, kernel, bias), mistakes, facts={"k": k})


@exercise("02.4", "Line 4: the value, V", "easy", 2, F.conv2d)
@task([(X_HAT, M.v.weight, M.v.bias)], SAY["v"])
def v(x_hat: Tensor, weight: Tensor, bias: Tensor) -> Expected:
    right = F.conv2d(x_hat, weight, bias)
    mistakes = {
        "GELU on V": F.gelu(right),
        "no bias": F.conv2d(x_hat, weight),
        "matrix transposed": F.conv2d(x_hat, weight.transpose(0, 1), bias),
        "LN(x) for V": x_hat,
    }
    return Expected("V", right, mistakes)


@exercise("02.5", "Line 5: the product", "easy", 2, torch.mul)
@task([(A, V)], SAY["weighed"])
def weighed(a: Tensor, v: Tensor) -> Expected:
    mistakes = {
        "a sum": a + v,
        "A alone": a,
        "V alone": v,
        "a matrix product": lambda: a @ v.mT,
        "sigmoid": a.sigmoid() * v,
        "softmax over channels": a.softmax(1) * v,
        "softmax over positions": a.flatten(2).softmax(2).view_as(a) * v,
        "summed over channels": (a * v).sum(1, keepdim=True).expand_as(a),
    }
    return Expected("the weighed value", a * v, mistakes)


@exercise("02.6", "Line 6: mix the channels", "easy", 2, F.conv2d)
@task([(A * V, M.proj.weight, M.proj.bias)], SAY["y"])
def y(weighed: Tensor, weight: Tensor, bias: Tensor) -> Expected:
    right = F.conv2d(weighed, weight, bias)
    mistakes = {
        "no proj": weighed,
        "no bias": F.conv2d(weighed, weight),
        "matrix transposed": F.conv2d(weighed, weight.transpose(0, 1), bias),
        "weighed added": weighed + right,
        "GELU on y": F.gelu(right),
    }
    return Expected("y", right, mistakes)


convmod = exercise("02.7", "ConvMod from memory", "hard", 12, ConvMod)(
    replace(layers.convmod, says=layers.convmod.says | SAY["convmod"])
)

# ---- A count, and a fusion


@exercise("02.8", "What a depthwise convolution learns", "easy", 4, lambda channels, k: channels * (k * k + 1))
@task([(64, 11), (16, 3), (128, 7)], SAY["depthwise_parameters"])
def depthwise_parameters(channels: int, k: int) -> Expected:
    convolution = nn.Conv2d(channels, channels, k, groups=channels, device="meta")
    each = k * k
    mistakes = {
        "no biases": channels * each,
        "one bias for everything": channels * each + 1,
        "a bias for each pair": channels * (each + channels),
        "an ordinary convolution": channels**2 * each + channels,
        "an ordinary convolution without biases": channels**2 * each,
        "one channel": each + 1,
        "one kernel": each,
        "k for the kernel": channels * (k + 1),
        "k + k for the kernel": channels * 2 * k + channels,
    }
    right = sum(parameter.numel() for parameter in convolution.parameters())
    return Expected(f"the count for {channels} channels and k = {k}", right, mistakes)


FUSED = [tuple(torch.randn(2, 2, 5, 4, 5, generator=torch.Generator().manual_seed(3)))]


@exercise("02.9", "A fusion by hand", "medium", 6)
@task(FUSED, SAY["l1_fusion"])
def l1_fusion(a: Tensor, v: Tensor) -> Expected:
    normalised = F.normalize(a, p=1.0, dim=1)
    size = a.abs()
    mistakes = {
        "no product": normalised,
        "not normalised": a * v,
        "a plain sum": a / a.sum(1, keepdim=True) * v,
        "sizes above the line too": size / size.sum(1, keepdim=True) * v,
        "a mean": a / size.mean(1, keepdim=True) * v,
        "the 2-norm": F.normalize(a, dim=1) * v,
        "a softmax": a.softmax(1) * v,
        "over the positions": a / size.sum((2, 3), keepdim=True) * v,
        "over the columns": a / size.sum(3, keepdim=True) * v,
        "over the images": a / size.sum(0, keepdim=True) * v,
        "over everything": a / size.sum() * v,
        "the product normalised": F.normalize(a * v, p=1.0, dim=1),
        "the value normalised": a * F.normalize(v, p=1.0, dim=1),
    }
    return Expected("the fused map", normalised * v, mistakes)
