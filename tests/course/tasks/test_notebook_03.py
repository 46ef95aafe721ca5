"""Each wrong answer that students give to notebook 03's exercises gets the hint that is meant for it."""

import pytest
import torch
from torch import Tensor, nn

from c2f_course.tasks import notebook_03 as checks

# ---- Layer scale


def scale(forward=None, gamma=None) -> type[nn.Module]:
    """A layer scale whose forward (self, x) -> y or gamma (dim, init) -> value is another than the right one."""

    class MyScale(nn.Module):
        def __init__(self, dim: int, init: float) -> None:
            super().__init__()
            self.init = init
            self.gamma = gamma(dim, init) if gamma else nn.Parameter(torch.full((dim,), init))

        def forward(self, x: Tensor) -> Tensor:
            return forward(self, x) if forward else x * self.gamma.view(-1, 1, 1)

    return MyScale


def parameter(*shape: int, value: float):
    return nn.Parameter(torch.full(shape, value))


SCALES = {
    "no parameter": (scale(gamma=lambda dim, init: torch.full((dim,), init)), "nothing to learn"),
    "one factor": (scale(gamma=lambda dim, init: parameter(1, value=init)), "one factor for everything"),
    "a factor a pair": (scale(gamma=lambda dim, init: parameter(dim, dim, value=init),
                              forward=lambda s, x: x * s.gamma[0, :, None, None]), "for each of the 4 channels is all"),
    "begins at 1": (scale(gamma=lambda dim, init: parameter(dim, value=1.0)), "begin at 1"),
    "begins at 0": (scale(gamma=lambda dim, init: parameter(dim, value=0.0)), "begin at 0"),
    "begins elsewhere": (scale(gamma=lambda dim, init: parameter(dim, value=init / 10)), "`init` everywhere"),
    "random beginning": (scale(gamma=lambda dim, init: nn.Parameter(torch.randn(dim))), "`init` everywhere"),
    "along the columns": (scale(lambda s, x: x * s.gamma), "each COLUMN"),
    "residual": (scale(lambda s, x: x + x * s.gamma[:, None, None]), "the block's task"),
    "added": (scale(lambda s, x: x + s.gamma[:, None, None]), "scale means multiply"),
    "divided": (scale(lambda s, x: x / s.gamma[:, None, None]), "divides by the factors"),
    "init in place of gamma": (scale(lambda s, x: x * s.init), "does forward use the parameter"),
    "init as well": (scale(lambda s, x: s.init * x * s.gamma[:, None, None]), "a second time"),
    "in place": (scale(lambda s, x: x.mul_(s.gamma[:, None, None])), "changed x itself"),
    "something else": (scale(lambda s, x: x * s.gamma[:, None, None] ** 2), "its own factor"),
    "an instance": (scale()(4, 0.5), "give the class itself"),
}  # fmt: skip


@pytest.mark.parametrize("name", SCALES)
def test_layer_scale_hints(name: str) -> None:
    answer, hint = SCALES[name]
    verdict = checks.layer_scale(answer)
    assert verdict.state == "hint" and hint in verdict.message, verdict


# ---- Drop path


def kept(x: Tensor, p: float, *shape: int) -> Tensor:
    return (torch.rand(shape or (len(x),) + (1,) * (x.ndim - 1)) >= p).to(x)


def dropping(function):
    """A drop path that is right in use, and in training what `function(x, p)` gives."""
    return lambda x, p, training: function(x, p) if training else x


def in_place(x: Tensor, p: float, training: bool) -> Tensor:
    if training:
        x *= kept(x, p) / (1 - p)
    return x


DROPS = {
    "not scaled": (dropping(lambda x, p: x * kept(x, p)), "passes unscaled"),
    "scaled down": (dropping(lambda x, p: x * kept(x, p) * (1 - p)), "should the rest shrink"),
    "divided by p": (dropping(lambda x, p: x * kept(x, p) / p), "divides by p"),
    "scaled twice": (dropping(lambda x, p: x * kept(x, p) / (1 - p) / (1 - p)), "scaled twice"),
    "1 + p": (dropping(lambda x, p: x * kept(x, p) * (1 + p)), "1 + p is close"),
    "scaled at random": (dropping(lambda x, p: x * kept(x, p) * 7), "times one number"),
    "p kept": (dropping(lambda x, p: x * kept(x, 1 - p) / p), "the chance to drop, or to keep"),
    "half for a quarter": (dropping(lambda x, p: x * kept(x, 2 * p) / (1 - 2 * p)), "a quarter should be"),
    "dropout": (dropping(lambda x, p: x * kept(x, p, *x.shape) / (1 - p)), "that is dropout"),
    "channels": (dropping(lambda x, p: x * kept(x, p, *x.shape[:2], 1, 1) / (1 - p)), "some channels of an image"),
    "positions, all images alike": (
        dropping(lambda x, p: x * kept(x, p, 1, 1, *x.shape[2:]) / (1 - p)), "all images have the same zeros"),
    "never": (lambda x, p, training: 1 * x, "none was dropped"),
    "whole batch": (dropping(lambda x, p: x * 0), "all were dropped"),
    "also in use": (lambda x, p, training: x * kept(x, p) / (1 - p), "asked for `training`"),
    "scaled down in use": (
        lambda x, p, training: x * kept(x, p) if training else x * (1 - p), "already done in training"),
    "scaled in use": (
        lambda x, p, training: x * kept(x, p) / (1 - p) if training else x / (1 - p), "so nothing is scaled"),
    "in place": (in_place, "changed x itself"),
    "four axes only": (dropping(lambda x, p: x * kept(x, p, len(x), 1, 1, 1) / (1 - p)), "for x of shape (300, 5)"),
    "axes lost": (dropping(lambda x, p: x[kept(x, p).flatten() > 0]), "should have shape (400, 3, 4, 4)"),
}  # fmt: skip


@pytest.mark.parametrize("name", DROPS)
def test_drop_path_hints(name: str) -> None:
    answer, hint = DROPS[name]
    verdict = checks.drop_path(answer)
    assert verdict.state == "hint" and hint in verdict.message, verdict


# ---- A stage's parameters


def count(
    dim: int, depth: int, k: int, *, norms: int = 2, convmod: int = 3, wide: bool = True, pos: bool = True,
    big: bool = True, mlp: bool = True, bias: bool = True, down: bool = True, group: int = 1, down_bias: bool = False,
    taps: int = 4,
) -> int:  # fmt: skip
    """A stage's parameters, with whatever somebody might forget or take for something else."""
    hidden = 2 * dim
    block = norms * 2 * dim + convmod * (dim * dim + bias * dim) + big * dim * (k * k + bias)
    if mlp:
        block += 2 * dim * hidden + bias * (hidden + dim) + pos * (hidden if wide else dim) * (9 + bias)
    between = 2 * group * (dim // 2) + taps * (dim // 2) * dim + down_bias * dim
    return depth * block + down * between


COUNTS = {
    "no downsampling": (lambda d, n, k: count(d, n, k, down=False), "also begins with a downsampling"),
    "one block": (lambda d, n, k: count(d, 1, k), "a stage of one block"),
    "downsampling in each block": (lambda d, n, k: n * count(d, 1, k), "counted once a block"),
    "no group norm": (lambda d, n, k: count(d, n, k, group=0), "GroupNorm learns, too"),
    "group norm after": (lambda d, n, k: count(d, n, k, group=2), "stands BEFORE"),
    "group norm after, and a bias": (lambda d, n, k: count(d, n, k, group=2, down_bias=True), "has no bias, and its"),
    "bias in the downsampling": (lambda d, n, k: count(d, n, k, down_bias=True), "was given a bias"),
    "1×1 downsampling": (lambda d, n, k: count(d, n, k, taps=1), "four matrices"),
    "wide downsampling": (lambda d, n, k: count(d, n, k, group=2, taps=8), "begins with half as many"),
    "wide convolution": (lambda d, n, k: count(d, n, k, taps=8), "begins with half as many"),
    "next downsampling": (lambda d, n, k: count(d, n, k, group=2, taps=16), "begins with half as many"),
    "three for nine": (lambda d, n, k: count(d, n, k) - n * 2 * d * 6, "nine numbers, not three"),
    "no norms": (lambda d, n, k: count(d, n, k, norms=0), "two layer norms of each block"),
    "one norm": (lambda d, n, k: count(d, n, k, norms=1), "one layer norm a block"),
    "no MLP": (lambda d, n, k: count(d, n, k, mlp=False, norms=1), "has an MLP as well"),
    "no 3×3": (lambda d, n, k: count(d, n, k, pos=False), "3×3 depthwise convolution in the MLP is missing"),
    "narrow 3×3": (lambda d, n, k: count(d, n, k, wide=False), "the widened map"),
    "no large kernel": (lambda d, n, k: count(d, n, k, big=False), "11×11 depthwise convolution is missing"),
    "two 1×1": (lambda d, n, k: count(d, n, k, convmod=2), "there are three"),
    "no biases": (lambda d, n, k: count(d, n, k, bias=False), "biases of the convolutions"),
    "right for 11 only": (lambda d, n, k: count(d, n, 11), "64 channels, 2 blocks and k = 5"),
    "a number": (301184, "your code raised TypeError"),
    "something else": (lambda d, n, k: d * n * k, "Count one ConvMod"),
}


@pytest.mark.parametrize("name", COUNTS)
def test_stage_parameters_hints(name: str) -> None:
    answer, hint = COUNTS[name]
    verdict = checks.stage_parameters(answer)
    assert verdict.state == "hint" and hint in verdict.message, verdict


# ---- A block


def block_in_place(x, convmod, mlp, scale1, scale2, drop):
    x += drop(scale1(convmod(x)))
    return x + drop(scale2(mlp(x)))


def dropped_after(x, convmod, mlp, scale1, scale2, drop):
    x = drop(x + scale1(convmod(x)))
    return drop(x + scale2(mlp(x)))


def dropped_once(x, convmod, mlp, scale1, scale2, drop):
    x = x + drop(scale1(convmod(x)))
    return x + scale2(mlp(x))


def dropped_before(x, convmod, mlp, scale1, scale2, drop):
    x = x + scale1(convmod(drop(x)))
    return x + scale2(mlp(drop(x)))


def never_dropped(x, convmod, mlp, scale1, scale2, drop):
    x = x + scale1(convmod(x))
    return x + scale2(mlp(x))


def unscaled(x, convmod, mlp, scale1, scale2, drop):
    x = x + drop(convmod(x))
    return x + drop(mlp(x))


BLOCKS = {
    "side by side": (lambda x, c, m, s, t, d: x + d(s(c(x))) + d(t(m(x))), "stand side by side"),
    "no residual": (lambda x, c, m, s, t, d: d(t(m(d(s(c(x)))))), "no residual connection"),
    "no first residual": (lambda x, c, m, s, t, d: (y := d(s(c(x)))) + d(t(m(y))), "the first residual"),
    "no second residual": (lambda x, c, m, s, t, d: d(t(m(x + d(s(c(x)))))), "the second residual"),
    "one around both": (lambda x, c, m, s, t, d: x + d(t(m(d(s(c(x)))))), "around both"),
    "second from the old x": (lambda x, c, m, s, t, d: x + d(t(m(x + d(s(c(x)))))), "from before ConvMod's step"),
    "MLP first": (lambda x, c, m, s, t, d: (y := x + d(t(m(x)))) + d(s(c(y))), "begins with ConvMod"),
    "scales exchanged": (lambda x, c, m, s, t, d: (y := x + d(t(c(x)))) + d(s(m(y))), "two scales are exchanged"),
    "scale1 twice": (lambda x, c, m, s, t, d: (y := x + d(s(c(x)))) + d(s(m(y))), "scale1 is used twice"),
    "scaled after the sum": (lambda x, c, m, s, t, d: t((y := s(x + d(c(x)))) + d(m(y))), "takes hold of the sum"),
    "scaled before": (lambda x, c, m, s, t, d: (y := x + d(c(s(x)))) + d(m(t(y))), "stands before the branch"),
    "not scaled": (unscaled, "layer scales are not used"),
    "only ConvMod": (lambda x, c, m, s, t, d: x + d(s(c(x))), "the MLP's step is missing"),
    "only the MLP": (lambda x, c, m, s, t, d: x + d(t(m(x))), "ConvMod's step is missing"),
    "never dropped": (never_dropped, "drop is not used"),
    "dropped after the sum": (dropped_after, "loses x as well"),
    "dropped at the end": (lambda x, *parts: parts[-1](never_dropped(x, *parts)), "whole block, x included"),
    "MLP never drops": (dropped_once, "MLP's branch never drops"),
    "ConvMod never drops": (lambda x, c, m, s, t, d: (y := x + s(c(x))) + d(t(m(y))), "ConvMod's branch never drops"),
    "dropped before": (dropped_before, "stands before the branch; a ConvMod of zeros"),
    "in place": (block_in_place, "changed x itself"),
    "something else": (lambda x, *parts: 2 * x, "Two steps of one form"),
    "another shape": (lambda x, *parts: x[:1], "should have shape"),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_block_hints(name: str) -> None:
    answer, hint = BLOCKS[name]
    verdict = checks.block(answer)
    assert verdict.state == "hint" and hint in verdict.message, verdict


def test_right_answers_pass_and_gaps_are_blank() -> None:
    assert checks.layer_scale(scale()).passed
    assert checks.layer_scale(scale(gamma=lambda dim, init: parameter(1, dim, 1, 1, value=init),
                                    forward=lambda s, x: x * s.gamma)).passed  # fmt: skip
    assert checks.drop_path(dropping(lambda x, p: x * kept(x, p) / (1 - p))).passed
    assert checks.stage_parameters(count).passed
    assert checks.block(lambda x, c, m, s, t, d: (y := x + d(s(c(x)))) + d(t(m(y)))).passed
    assert checks.layer_scale(scale(gamma=lambda dim, init: ...)).state == "blank"
    assert checks.layer_scale(scale(forward=lambda s, x: ...)).state == "blank"


def test_the_generator_is_left_as_it_was() -> None:
    before = torch.get_rng_state()
    checks.drop_path(lambda x, p, training: x)
    checks.block(never_dropped)
    checks.layer_scale(scale())
    assert torch.equal(torch.get_rng_state(), before)
