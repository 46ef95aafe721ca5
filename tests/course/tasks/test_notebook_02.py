"""Each wrong answer that students give to notebook 02's exercises gets the hint that is meant for it."""

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

from c2f.models.conv2former import LayerNorm2d
from c2f_course.tasks import notebook_02 as checks


def norm_over(*dims: int, scale: bool = True, shift: bool = True, correction: int = 0, eps: float = 1e-6):
    def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        z = (x - x.mean(dims, keepdim=True)) / (x.var(dims, keepdim=True, correction=correction) + eps).sqrt()
        z = z * weight[:, None, None] if scale else z
        return z + bias[:, None, None] if shift else z

    return layer_norm


def norm_with(function):
    """A layer norm that does `function(x, mean, variance)`, then weight and bias as they should be."""

    def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        z = function(x, x.mean(1, keepdim=True), x.var(1, keepdim=True, correction=0))
        return z * weight[:, None, None] + bias[:, None, None]

    return layer_norm


def norm_in_place(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    x -= x.mean(1, keepdim=True)
    x /= (x.square().mean(1, keepdim=True) + 1e-6).sqrt()
    return x * weight[:, None, None] + bias[:, None, None]


LAYER_NORMS = {
    "over the width": (norm_over(3), "runs along the columns"),
    "over the images": (norm_over(0), "no image should know"),
    "batch norm": (norm_over(0, 2, 3), "that is BatchNorm"),
    "instance norm": (norm_over(2, 3), "ONE position"),
    "group norm": (norm_over(1, 2, 3), "GroupNorm with one group"),
    "over everything": (norm_over(0, 1, 2, 3), "whole batch"),
    "unbiased": (norm_over(1, correction=1), "C − 1"),
    "no weight, no bias": (norm_over(1, scale=False, shift=False), "have not been used"),
    "no bias": (norm_over(1, shift=False), "bias is not added"),
    "no eps": (norm_over(1, eps=0.0), "What does eps do"),
    "weight along the columns": (
        lambda x, weight, bias: norm_over(1, scale=False, shift=False)(x, weight, bias) * weight + bias,
        "LAST axis",
    ),
    "bias along the columns": (
        lambda x, weight, bias: norm_over(1, shift=False)(x, weight, bias) + bias,
        "the bias lies along the columns",
    ),
    "torch's, on the last axis": (lambda x, w, b: F.layer_norm(x, (6,), w, b), "F.layer_norm works on the LAST axis"),
    "divided by the variance": (norm_with(lambda x, m, v: (x - m) / (v + 1e-6)), "square of the spread"),
    "mean not taken off": (norm_with(lambda x, m, v: x / (v + m.square() + 1e-6).sqrt()), "mean was not taken off"),
    "spread left": (norm_with(lambda x, m, v: x - m), "spread is what it was"),
    "in place": (norm_in_place, "changed x itself"),
    "channels left at the end": (
        lambda x, w, b: F.layer_norm(x.movedim(1, -1), (6,), w, b, 1e-6),
        "should have shape (2, 6, 4, 6)",
    ),
    "no keepdim": (lambda x, w, b: x - x.mean(1), "your code raised RuntimeError"),
    "something else": (lambda x, w, b: x * 3, "take off the mean of its channels"),
}


@pytest.mark.parametrize("name", LAYER_NORMS)
def test_layer_norm_hints(name: str) -> None:
    answer, hint = LAYER_NORMS[name]
    verdict = checks.layer_norm(answer)
    assert verdict.state == "hint" and hint in verdict.message


COUNTS = {
    "no bias": (lambda c, k: c * k * k, "also has a bias"),
    "one bias": (lambda c, k: c * k * k + 1, "Every channel has its own"),
    "a bias a pair": (lambda c, k: c * (k * k + c), "one bias a channel"),
    "ordinary convolution": (lambda c, k: c * c * k * k + c, "ordinary convolution, in which"),
    "ordinary, no bias": (lambda c, k: c * c * k * k, "ordinary convolution without"),
    "one channel": (lambda c, k: k * k + 1, "one channel's share"),
    "one kernel": (lambda c, k: k * k, "How many are there"),
    "side for area": (lambda c, k: c * (k + 1), "k is the side"),
    "k + k": (lambda c, k: c * (2 * k + 1), "k rows of k"),
    "a number for one case": (7808, "your code raised TypeError"),
    "something else": (lambda c, k: c + k, "one channel's kernel first"),
    "right for 11 only": (lambda c, k: c * 122, "16 channels and k = 3"),
}


@pytest.mark.parametrize("name", COUNTS)
def test_depthwise_parameters_hints(name: str) -> None:
    answer, hint = COUNTS[name]
    verdict = checks.depthwise_parameters(answer)
    assert verdict.state == "hint" and hint in verdict.message


def fused_in_place(a: Tensor, v: Tensor) -> Tensor:
    a /= a.abs().sum(1, keepdim=True)
    return a * v


def total(a: Tensor, *dims: int) -> Tensor:
    return a.abs().sum(dims, keepdim=True)


FUSIONS = {
    "v forgotten": (lambda a, v: a / total(a, 1), "what does it weigh"),
    "not normalised": (lambda a, v: a * v, "plain Hadamard"),
    "plain sum": (lambda a, v: a / a.sum(1, keepdim=True) * v, "1-norm take"),
    "sign lost": (lambda a, v: a.abs() / total(a, 1) * v, "keeps its sign"),
    "mean for sum": (lambda a, v: a / a.abs().mean(1, keepdim=True) * v, "mean size"),
    "two-norm": (lambda a, v: F.normalize(a, dim=1) * v, "2-norm"),
    "softmax": (lambda a, v: a.softmax(1) * v, "keeps the signs"),
    "over positions": (lambda a, v: a / total(a, 2, 3) * v, "over the positions"),
    "over columns": (lambda a, v: a / total(a, 3) * v, "last axis"),
    "over images": (lambda a, v: a / total(a, 0) * v, "over the images"),
    "one sum": (lambda a, v: a / a.abs().sum() * v, "one sum for everything"),
    "product normalised": (lambda a, v: a * v / total(a * v, 1), "the product was normalised"),
    "value normalised": (lambda a, v: a * v / total(v, 1), "Which of the two"),
    "in place": (fused_in_place, "changed a itself"),
    "something else": (lambda a, v: a - v, "signs kept"),
    "no tensor": (lambda a, v: 1.0, "should be a torch tensor"),
}


@pytest.mark.parametrize("name", FUSIONS)
def test_l1_fusion_hints(name: str) -> None:
    answer, hint = FUSIONS[name]
    verdict = checks.l1_fusion(answer)
    assert verdict.state == "hint" and hint in verdict.message


def built(forward=None, **layers) -> type[nn.Module]:
    """A ConvMod some of whose layers, each (dim, k) -> module, or whose forward, (self, x) -> y, are replaced."""

    class ConvMod(nn.Module):
        def __init__(self, dim: int, kernel_size: int = 11) -> None:
            super().__init__()
            right = {
                "norm": lambda dim, k: LayerNorm2d(dim),
                "a": lambda dim, k: nn.Sequential(
                    nn.Conv2d(dim, dim, 1), nn.GELU(), nn.Conv2d(dim, dim, k, padding=k // 2, groups=dim)
                ),
                "v": lambda dim, k: nn.Conv2d(dim, dim, 1),
                "proj": lambda dim, k: nn.Conv2d(dim, dim, 1),
            }
            for name, layer in {**right, **layers}.items():
                if layer is not None:
                    setattr(self, name, layer(dim, kernel_size))

        def forward(self, x: Tensor) -> Tensor:
            if forward:
                return forward(self, x)
            z = self.norm(x)
            return self.proj(self.a(z) * self.v(z))

    return ConvMod


def depthwise(dim: int, k: int, **change) -> nn.Conv2d:
    return nn.Conv2d(dim, dim, k, **{"padding": k // 2, "groups": dim, **change})


def branch(*layers):
    """A branch `a` of layers that are made from (dim, k)."""
    return lambda dim, k: nn.Sequential(*(layer(dim, k) for layer in layers))


def one(dim: int, k: int) -> nn.Conv2d:
    return nn.Conv2d(dim, dim, 1)


def gelu(dim: int, k: int) -> nn.GELU:
    return nn.GELU()


def halved(self, x: Tensor) -> Tensor:
    z = self.norm(x)
    return self.proj(self.a(z) * self.v(z))[:1]


BLIND = {
    "no groups": (built(a=branch(one, gelu, lambda d, k: depthwise(d, k, groups=1))), "kernel of its own"),
    "no padding": (built(a=branch(one, gelu, lambda d, k: depthwise(d, k, padding=0))), "as 3×5, too small"),
    "padding of 11": (built(a=branch(one, gelu, lambda d, k: depthwise(d, k, padding=5))), "as 13×15, too large"),
    "always 11": (built(a=branch(one, gelu, lambda d, k: depthwise(d, 11))), "is the argument used"),
    "GELU last": (built(a=branch(one, depthwise, gelu)), "stands the GELU"),
    "no bias": (built(v=lambda d, k: nn.Conv2d(d, d, 1, bias=False)), "v.bias is missing"),
    "no proj": (built(proj=None), "no proj.weight, proj.bias"),
    "another name": (built(v=None, value=one), "no v.weight, v.bias"),
    "one layer more": (built(gate=one), "more to learn than there should be: gate.weight, gate.bias"),
    "v with a 3×3": (built(v=lambda d, k: nn.Conv2d(d, d, 3, padding=1)), "v.weight has shape (6, 6, 3, 3)"),
    "residual": (built(lambda s, x: x + s.proj(s.a(s.norm(x)) * s.v(s.norm(x)))), "the block's task"),
    "proj not used": (built(lambda s, x: s.a(s.norm(x)) * s.v(s.norm(x))), "the last 1×1 convolution"),
    "added": (built(lambda s, x: s.proj(s.a(s.norm(x)) + s.v(s.norm(x)))), "are added"),
    "no norm": (built(lambda s, x: s.proj(s.a(x) * s.v(x))), "norm is not used"),
    "v of x": (built(lambda s, x: s.proj(s.a(s.norm(x)) * s.v(x))), "V is made from x itself"),
    "a of x": (built(lambda s, x: s.proj(s.a(x) * s.v(s.norm(x)))), "A is made from x itself"),
    "times x": (built(lambda s, x: s.proj(s.a(s.norm(x)) * x)), "weighs x itself"),
    "times z": (built(lambda s, x: s.proj(s.a(s.norm(x)) * s.norm(x))), "weighs the normalised map"),
    "sigmoid": (built(lambda s, x: s.proj(s.a(s.norm(x)).sigmoid() * s.v(s.norm(x)))), "transformer's habit"),
    "softmax": (built(lambda s, x: s.proj(s.a(s.norm(x)).softmax(1) * s.v(s.norm(x)))), "passes a softmax"),
    "no GELU": (built(a=branch(one, lambda d, k: nn.Identity(), depthwise)), "GELU is missing"),
    "ReLU": (built(a=branch(one, lambda d, k: nn.ReLU(), depthwise)), "that is a ReLU"),
    "tanh": (built(a=branch(one, lambda d, k: nn.GELU("tanh"), depthwise)), "approximation by tanh"),
    "only a": (built(lambda s, x: s.proj(s.a(s.norm(x)))), "A goes on by itself"),
    "only v": (built(lambda s, x: s.proj(s.v(s.norm(x)))), "V goes on by itself"),
    "in place": (built(lambda s, x: s.proj(s.a(s.norm(x)) * s.v(s.norm(x.mul_(2))))), "changed x itself"),
    "batch norm": (built(norm=lambda d, k: nn.BatchNorm2d(d)), "is a BatchNorm"),
    "group norm": (built(norm=lambda d, k: nn.GroupNorm(1, d)), "is a GroupNorm"),
    "v with a GELU": (built(v=branch(one, gelu)), "V is one 1×1 convolution"),
    "GELU of v": (built(lambda s, x: s.proj(s.a(s.norm(x)) * F.gelu(s.v(s.norm(x))))), "V passes a GELU"),
    "v of a": (built(lambda s, x: s.proj((a := s.a(s.norm(x))) * s.v(a))), "V is made from A"),
    "proj on a": (built(lambda s, x: s.proj(s.a(s.norm(x))) * s.v(s.norm(x))), "proj is applied to A alone"),
    "half the batch": (built(halved), "should have shape"),
    "an instance": (built()(6, 5), "give the class itself"),
    "something else": (built(lambda s, x: s.proj(s.v(s.norm(x)).square())), "so it is in forward"),
}  # fmt: skip


@pytest.mark.parametrize("name", BLIND)
def test_convmod_hints(name: str) -> None:
    answer, hint = BLIND[name]
    verdict = checks.convmod(answer)
    assert verdict.state == "hint" and hint in verdict.message, verdict


def test_right_answers_pass_and_gaps_are_blank() -> None:
    assert checks.layer_norm(norm_over(1)).passed
    assert checks.depthwise_parameters(lambda c, k: c * (k * k + 1)).passed
    assert checks.l1_fusion(lambda a, v: a / total(a, 1) * v).passed
    assert checks.convmod(built()).passed
    assert checks.convmod(built(lambda s, x: ...)).state == "blank"
    assert checks.convmod(built(proj=lambda d, k: ...)).state == "blank"
