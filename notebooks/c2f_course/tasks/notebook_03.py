"""The exercises of notebook 03, which builds Conv2Former: layer scale, drop path, a stage's parameters, a block."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from c2f.models import Conv2FormerConfig
from c2f.models.conv2former import Block, LayerScale, Stage, make_downsample
from c2f_course.tasks.exercise import (
    Blank,
    Hint,
    Known,
    exercise,
    expect,
    expect_filled,
    expect_tensor,
    expect_untouched,
)

# ---- Layer scale


@exercise("03.1", "Layer scale", "easy", 6)
def layer_scale(answer: type[nn.Module]) -> str:
    """Knows: nothing learned, one number for all, another beginning, the columns' axis, x added, in place."""
    if not (isinstance(answer, type) and issubclass(answer, nn.Module)):
        raise Hint("give the class itself: checks.layer_scale(MyScale).")
    draw = torch.Generator().manual_seed(7)
    x = torch.randn(2, 4, 5, 4, generator=draw)  # as many columns as channels, so that the wrong axis raises no error
    before = x.clone()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        mine = answer(4, 0.5)
        if any(value is ... for value in vars(mine).values()):
            raise Blank
        first = mine(x)
        expect_filled(first)
        parameters = list(mine.parameters())
        if not parameters:
            raise Hint(
                "it has nothing to learn: mine.parameters() is empty. A plain tensor stays as it is; which class of "
                "torch.nn tells the optimizer about it?"
            )
        if len(parameters) > 1 or parameters[0].numel() not in (1, 4):
            counts = " and ".join(str(tuple(parameter.shape)) for parameter in parameters)
            raise Hint(f"it learns parameters of shape {counts}; one factor for each of the 4 channels is all.")
        (gamma,) = parameters
        if gamma.numel() == 1:
            raise Hint("one factor for everything; layer scale has one for each channel.")
        first = expect_tensor(first, tuple(x.shape), "the output")
        expect_untouched(x, before, "x")
        if torch.allclose(gamma, torch.ones_like(gamma)):
            raise Hint("the factors begin at 1; they should begin at `init`, which was 0.5 here.")
        if torch.allclose(gamma, torch.zeros_like(gamma)):
            raise Hint("the factors begin at 0; they should begin at `init`, which was 0.5 here.")
        expect(gamma.flatten(), torch.full((4,), 0.5), "gamma at the beginning", [], "It should be `init` everywhere.")
        gamma.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]).view_as(gamma))
        factors = torch.tensor([1.0, 2.0, 3.0, 4.0])
        theirs = LayerScale(4, 0.5)
        theirs.gamma.copy_(factors)
        expect(mine(x), theirs(x), "the output", [
            (x * factors, "each COLUMN has a factor of its own now: a tensor (C,) is matched with the last axis."),
            (x + theirs(x), "x is added; that is the block's task. Layer scale only multiplies."),
            (x + factors[:, None, None], "the factors are added; scale means multiply."),
            (x / factors[:, None, None], "that divides by the factors."),
            (0.5 * x, "the output does not follow when gamma is learned: does forward use the parameter?"),
            (0.5 * theirs(x), "`init` is multiplied in a second time; gamma already began there."),
        ], "Each channel should be multiplied by its own factor.")  # fmt: skip
    return "a learned factor a channel, as in the library's."


# ---- Drop path


@exercise("03.2", "Drop path", "medium", 8)
def drop_path(answer: Callable[[Tensor, float, bool], Tensor]) -> str:
    """Knows: the scale forgotten or turned over, p for 1 − p, dropout, channels, whole batches, use as in training."""
    draw = torch.Generator().manual_seed(5)
    x = 1 + torch.rand(400, 3, 4, 4, generator=draw)  # nowhere zero, so that a zero in the result was dropped
    before = x.clone()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        in_use = expect_tensor(answer(x, 0.25, False), tuple(x.shape), "the result in use (training=False)")
        expect_untouched(x, before, "x")
        expect(in_use, x, "the result in use (training=False)", [
            (0.75 * x, "in use nothing is dropped and nothing scaled: the scaling is already done in training."),
            (x / 0.75, "the scale makes up for what was dropped; in use nothing is dropped, so nothing is scaled."),
        ], "In use every branch passes as it is: has the code asked for `training`?")  # fmt: skip
        made = expect_tensor(answer(x, 0.25, True), tuple(x.shape), "the result in training")
        expect_untouched(x, before, "x")
        _expect_whole_images(made, x)
        _expect_scale(made, x, 0.25)
        for shape in ((300, 5), (300, 2, 3)):
            other = 1 + torch.rand(shape, generator=draw)
            expect_tensor(answer(other, 0.25, True), shape, f"for x of shape {shape}, the result")
    return "whole images are dropped, and the others scaled so that the mean stays."


def _expect_whole_images(made: Tensor, x: Tensor) -> None:
    """Hint unless in each image all is zero or nothing is, in some and not in all."""
    zero = made == 0
    whole = zero.flatten(1).all(1) | ~zero.flatten(1).any(1)
    if not whole.all():
        if torch.equal(zero, zero[:, :, :1, :1].expand_as(zero)):
            raise Hint("some channels of an image are zero, others are not. Drop path drops a whole image's branch.")
        if torch.equal(zero, zero[:1].expand_as(zero)):
            raise Hint("all images have the same zeros. Draw a number for each image, not for each element of one.")
        raise Hint(
            "within one image some numbers are zero and others are not: that is dropout. How many random numbers does "
            "an image need?"
        )
    if not zero.any():
        raise Hint(
            "400 images with p = 0.25, and none was dropped. Is one random number drawn for the whole batch, or none?"
        )
    if zero.all():
        raise Hint("400 images with p = 0.25, and all were dropped: draw a number for each image by itself.")
    share = zero.flatten(1).all(1).float().mean().item()
    if 0.65 < share < 0.85:
        raise Hint(f"{share:.0%} of the images were dropped for p = 0.25. Is p the chance to drop, or to keep?")
    if not 0.15 < share < 0.35:
        raise Hint(f"{share:.0%} of the images were dropped for p = 0.25; a quarter should be.")


def _expect_scale(made: Tensor, x: Tensor, p: float) -> None:
    kept = made.flatten(1).any(1)
    expect(made[kept], x[kept] / (1 - p), "what is kept", [
        (x[kept], f"what is kept passes unscaled, so in training the mean is smaller than in use. By which factor does "
         f"a branch come through, on average, if {p:.0%} are dropped?"),
        (x[kept] * (1 - p), "what is kept is made smaller. Something is missing from the mean: should the rest shrink "
         "or grow?"),
        (x[kept] / p, "that divides by p. For p near 0, when next to nothing is dropped, what should the scale be?"),
        (x[kept] / (1 - p) ** 2, "it is scaled twice."),
        (x[kept] * (1 + p), "1 + p is close for a small p; what exactly brings the mean back?"),
    ], "Each kept image is x, times one number.")  # fmt: skip


# ---- A stage's parameters


@exercise("03.3", "The parameters of a stage", "medium", 10)
def stage_parameters(answer: Callable[[int, int, int], int]) -> str:
    """Knows: parts that are forgotten, one by one, and the widths that are mixed up."""
    for dim, depth, k in ((128, 3, 11), (64, 2, 5), (32, 1, 7)):  # with depth 2 first, two mistakes would look alike
        config = Conv2FormerConfig(kernel_size=k)
        with torch.device("meta"):
            stage = Stage(make_downsample("group", dim // 2, dim), [Block(dim, config, 0.0) for _ in range(depth)])
        total = _count(stage)
        block, down = _count(stage.blocks[0]), _count(stage.downsample)
        convmod, mlp = stage.blocks[0].convmod, stage.blocks[0].mlp
        conv = _count(stage.downsample[1])

        def without(less: int, total: int = total, depth: int = depth) -> float:
            return float(total - depth * less)

        known: Known = [
            (float(depth * block), "the blocks are right; a stage after the first also begins with a downsampling."),
            (float(block + down), f"that is a stage of one block, with its downsampling; this one has {depth}."),
            (float(depth * (block + down)), "the downsampling is counted once a block; it stands before the first."),
            (float(total - down + conv), "nearly: the downsampling's GroupNorm learns, too."),
            (float(total + dim), f"nearly: {dim} too many. Either the downsampling's convolution was given a bias, "
             "which it has not, or its norm has too many channels: it stands BEFORE the convolution."),
            (float(total + 2 * dim), "nearly: the downsampling's convolution has no bias, and its norm stands BEFORE "
             "it, where there are half as many channels."),
            *((float(total + more), "the downsampling begins with half as many channels: so does its norm, and its "
               "convolution leads from dim // 2 to dim.") for more in (conv, 3 * conv, down, 3 * conv + dim)),
            (float(total - conv + conv // 4), "a 2×2 convolution has four matrices, one for each of its positions."),
            (without(_count(convmod.norm) + _count(mlp.norm)), "the two layer norms of each block are missing."),
            (without(_count(mlp.norm)), "one layer norm a block is missing: ConvMod has one and the MLP has one."),
            (without(_count(mlp)), "that is ConvMod and the downsampling; each block has an MLP as well."),
            (without(_count(convmod)), "that is the MLP and the downsampling; each block has a ConvMod as well."),
            (without(_count(mlp.pos)), "the 3×3 depthwise convolution in the MLP is missing."),
            (without(6 * 2 * dim), "a 3×3 kernel has nine numbers, not three."),
            (without(_count(mlp.pos) // 2), "the MLP's 3×3 convolution works on the widened map, of 2·dim channels."),
            (without(_count(convmod.a[2])), f"the {k}×{k} depthwise convolution is missing."),
            (without(_count(convmod.a[0])), "one 1×1 convolution of ConvMod is missing: there are three."),
            (without(sum(p.numel() for n, p in stage.blocks[0].named_parameters() if n.endswith("bias")
                         and "norm" not in n)), "the biases of the convolutions are missing."),
            (without(sum(p.numel() for n, p in stage.blocks[0].named_parameters() if n.endswith("bias"))), "the biases "
             "are missing, of convolutions and norms."),
        ]  # fmt: skip
        what = f"the count for {dim} channels, {depth} block{'s' * (depth > 1)} and k = {k}"
        expect(answer(dim, depth, k), float(total), what, known, "Count one ConvMod, then one MLP (with its 3×3), "
               "times the blocks, then the downsampling.", tolerance=1e-9)  # fmt: skip
    return "for all stages that were tried. Add stem and head, and you have the network's."


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# ---- A block


@exercise("03.4", "Assemble a block", "medium", 8)
def block(answer: Callable[..., Tensor]) -> str:
    """Knows: residuals missing or dropped, branches side by side or exchanged, scale or drop left out or misplaced."""
    with torch.random.fork_rng(devices=[]):
        theirs = Block(6, Conv2FormerConfig(kernel_size=3, layer_scale=0.5), drop_path=0.5)
    draw = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=draw))
    x = torch.randn(6, 6, 4, 5, generator=draw)
    before = x.clone()
    parts = (theirs.convmod, theirs.mlp, theirs.scale1, theirs.scale2, theirs.drop_path)

    def run(function: Callable[..., Any], training: bool) -> Any:
        theirs.train(training)
        torch.manual_seed(9)
        return function(x, *parts)

    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        made = expect_tensor(run(answer, False), tuple(x.shape), "the output")
        expect_untouched(x, before, "x")
        right = run(lambda x, *_: theirs(x), False)
        slips = [(run(wrong, False), hint) for wrong, hint in _BLOCKS]
        expect(made, right, "the output in use", slips, "Two steps of one form: x becomes x plus a branch of x.")
        made, right = run(answer, True), run(lambda x, *_: theirs(x), True)
        slips = [(run(wrong, True), hint) for wrong, hint in _DROPS]
        expect(made, right, "the output in training, where branches drop,", slips, "In use it is right. Where does "
               "drop stand? It should see each scaled branch once, ConvMod's first.")  # fmt: skip
    return "the same as the library's block, in use and in training."


def _same(x: Tensor) -> Tensor:
    return x


def _then(x: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
    return x + branch(x)


# How a block is assembled wrongly (x, convmod, mlp, scale1, scale2, drop): seen in use, or only where branches drop.
_BLOCKS: list[tuple[Callable[..., Tensor], str]] = [
    (lambda x, c, m, s, t, d: x + s(c(x)) + t(m(x)), "the two branches stand side by side, both fed with x. The MLP "
     "works on what ConvMod's step has made."),
    (lambda x, c, m, s, t, d: _then(s(c(x)), lambda z: t(m(z))), "x does not pass ConvMod by: the first residual "
     "connection is missing."),
    (lambda x, c, m, s, t, d: t(m(_then(x, lambda z: s(c(z))))), "the second residual connection is missing."),
    (lambda x, c, m, s, t, d: t(m(s(c(x)))), "there is no residual connection: each step ADDS to what it was given."),
    (lambda x, c, m, s, t, d: x + t(m(s(c(x)))), "one residual connection around both; each branch has its own."),
    (lambda x, c, m, s, t, d: x + t(m(x + s(c(x)))), "the second sum begins with the x from before ConvMod's step."),
    (lambda x, c, m, s, t, d: _then(_then(x, lambda z: t(m(z))), lambda z: s(c(z))), "the MLP comes first here; a "
     "block begins with ConvMod."),
    (lambda x, c, m, s, t, d: _then(_then(x, lambda z: t(c(z))), lambda z: s(m(z))), "the two scales are exchanged."),
    (lambda x, c, m, s, t, d: _then(_then(x, c), m), "the layer scales are not used."),
    (lambda x, c, m, s, t, d: _then(_then(x, lambda z: s(c(z))), lambda z: s(m(z))), "scale1 is used twice, scale2 "
     "never."),
    (lambda x, c, m, s, t, d: t(_then(s(_then(x, c)), m)), "the scale takes hold of the sum; it belongs on the branch "
     "alone, or x itself is scaled."),
    (lambda x, c, m, s, t, d: _then(_then(x, lambda z: c(s(z))), lambda z: m(t(z))), "the scale stands before the "
     "branch, where the norm undoes much of it; it belongs after."),
    (lambda x, c, m, s, t, d: _then(x, lambda z: s(c(z))), "the MLP's step is missing."),
    (lambda x, c, m, s, t, d: _then(x, lambda z: t(m(z))), "ConvMod's step is missing."),
]  # fmt: skip
_DROPS: list[tuple[Callable[..., Tensor], str]] = [
    (lambda x, c, m, s, t, d: _then(_then(x, lambda z: s(c(z))), lambda z: t(m(z))), "nothing is ever dropped: drop "
     "is not used."),
    (lambda x, c, m, s, t, d: d(_then(d(_then(x, lambda z: s(c(z)))), lambda z: t(m(z)))), "drop takes hold of the "
     "sum, so a dropped image loses x as well: nothing is left of it. Only the branch may drop."),
    (lambda x, c, m, s, t, d: _then(_then(x, lambda z: d(s(c(z)))), lambda z: t(m(z))), "the MLP's branch never "
     "drops."),
    (lambda x, c, m, s, t, d: _then(_then(x, lambda z: s(c(z))), lambda z: d(t(m(z)))), "ConvMod's branch never "
     "drops."),
    (lambda x, c, m, s, t, d: d(_then(_then(x, lambda z: s(c(z))), lambda z: t(m(z)))), "drop takes hold of the whole "
     "block, x included. Only a branch may drop."),
    (lambda x, c, m, s, t, d: _then(_then(x, lambda z: s(c(d(z)))), lambda z: t(m(d(z)))), "drop stands before the "
     "branch; a ConvMod of zeros is not zero (think of the biases). Drop what comes out."),
]  # fmt: skip
