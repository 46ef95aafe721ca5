"""The exercises of notebook 03, which builds Conv2Former: layer scale, drop path, a stage's parameters, a block."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from c2f.models import Conv2FormerConfig
from c2f.models.conv2former import Block, LayerScale, Stage, make_downsample
from c2f_course.tasks.exercise import (
    Blank,
    Expected,
    Hint,
    exercise,
    expect_filled,
    expect_tensor,
    expect_untouched,
    hint_if,
    task,
)

# ---- Layer scale


def scale_inputs() -> Iterator[tuple]:
    """The library's layer scale, with factors that differ, and x. As many columns as channels: no wrong axis raises."""
    theirs = LayerScale(4, 0.5).requires_grad_(False)
    theirs.gamma.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    yield theirs, torch.randn(2, 4, 5, 4, generator=torch.Generator().manual_seed(7)), 4, 0.5


def _ask_scale(cls: type[nn.Module], theirs: LayerScale, x: Tensor, channels: int, init: float) -> Tensor:
    """What a student's layer gives for x with these factors. Hint unless it begins as it should."""
    hint_if(not (isinstance(cls, type) and issubclass(cls, nn.Module)), "give the class itself: "
        "checks.layer_scale(MyScale).")  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        mine = cls(channels, init)
    if any(value is ... for value in vars(mine).values()):
        raise Blank
    with torch.no_grad():
        expect_filled(mine(x))
        shapes = [tuple(parameter.shape) for parameter in mine.parameters()]
        hint_if(not shapes, "it has nothing to learn: mine.parameters() is empty. A plain tensor stays as it is; which "
            "class of torch.nn tells the optimizer about it?")  # fmt: skip
        gamma = next(mine.parameters())
        if len(shapes) > 1 or gamma.numel() not in (1, 4):
            raise Hint(f"it learns parameters of shape {' and '.join(map(str, shapes))}; one factor for each of the 4 "
                "channels is all.")  # fmt: skip
        hint_if(gamma.numel() == 1, "one factor for everything; layer scale has one for each channel.")
        begin = "the factors begin at {}; they should begin at `init`, which was 0.5 here."
        known = [(torch.full((4,), float(value)), begin.format(value)) for value in (1, 0)]
        Expected("gamma at the beginning", torch.full((4,), 0.5), known, "It should be `init` everywhere.").compare(
            gamma.flatten()
        )
        gamma.copy_(theirs.gamma.view_as(gamma))
        return mine(x)


@exercise("03.1", "Layer scale", "easy", 6)
@task(scale_inputs, "a learned factor a channel, as in the library's.", ask=_ask_scale)
def layer_scale(theirs: LayerScale, x: Tensor, channels: int, init: float) -> Expected:
    factors = theirs.gamma.flatten()
    scaled = x * factors[:, None, None]
    mistakes = [
        (x * factors, "each COLUMN has a factor of its own now: a tensor (C,) is matched with the last axis."),
        (x + scaled, "x is added; that is the block's task. Layer scale only multiplies."),
        (x + factors[:, None, None], "the factors are added; scale means multiply."),
        (x / factors[:, None, None], "that divides by the factors."),
        (init * x, "the output does not follow when gamma is learned: does forward use the parameter?"),
        (init * scaled, "`init` is multiplied in a second time; gamma already began there."),
    ]  # fmt: skip
    return Expected("the output", theirs(x), mistakes, "Each channel should be multiplied by its own factor.")


# ---- Drop path


@exercise("03.2", "Drop path", "medium", 8)
def drop_path(answer: Callable[[Tensor, float, bool], Tensor]) -> str:
    draw = torch.Generator().manual_seed(5)
    x = 1 + torch.rand(400, 3, 4, 4, generator=draw)  # nowhere zero, so that a zero in the result was dropped
    before = x.clone()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        Expected("the result at inference (training=False)", x, [
            (0.75 * x, "at inference nothing is dropped and nothing scaled: the scaling is already done in training."),
            (x / 0.75, "the scale makes up for what was dropped; at inference nothing is dropped, so nothing is "
             "scaled."),
        ], "At inference every branch passes as it is: has the code asked for "
            "`training`?").compare(answer(x, 0.25, False))  # fmt: skip
        expect_untouched(x, before, "x")
        made = expect_tensor(answer(x, 0.25, True), tuple(x.shape), "the result in training")
        expect_untouched(x, before, "x")
        _expect_whole_images(made, x)
        kept = made.flatten(1).any(1)
        _scaled(x[kept], 0.25).compare(made[kept])
        for shape in ((300, 5), (300, 2, 3)):
            other = 1 + torch.rand(shape, generator=draw)
            expect_tensor(answer(other, 0.25, True), shape, f"for x of shape {shape}, the result")
    return "whole images are dropped, and the others scaled so that the mean stays."


def _expect_whole_images(made: Tensor, x: Tensor) -> None:
    """Hint unless in each image all is zero or nothing is, in some and not in all."""
    zero = made == 0
    dropped = zero.flatten(1).all(1)
    whole, share = dropped | ~zero.flatten(1).any(1), dropped.float().mean().item()
    for wrong, hint in (
        (not whole.all() and torch.equal(zero, zero[:, :, :1, :1].expand_as(zero)), "some channels of an image are "
         "zero, others are not. Drop path drops a whole image's branch."),
        (not whole.all() and torch.equal(zero, zero[:1].expand_as(zero)), "all images have the same zeros. Draw a "
         "number for each image, not for each element of one."),
        (not whole.all(), "within one image some numbers are zero and others are not: that is dropout. How many random "
         "numbers does an image need?"),
        (not zero.any(), "400 images with p = 0.25, and none was dropped. Is one random number drawn for the whole "
         "batch, or none?"),
        (zero.all(), "400 images with p = 0.25, and all were dropped: draw a number for each image by itself."),
        (0.65 < share < 0.85, f"{share:.0%} of the images were dropped for p = 0.25. Is p the chance to drop, or to "
         "keep?"),
        (not 0.15 < share < 0.35, f"{share:.0%} of the images were dropped for p = 0.25; a quarter should be."),
    ):  # fmt: skip
        hint_if(wrong, hint)


def _scaled(x: Tensor, p: float) -> Expected:
    return Expected("what is kept", x / (1 - p), [
        (x, f"what is kept passes unscaled, so in training the mean is smaller than at inference. By which factor does "
         f"a branch come through, on average, if {p:.0%} are dropped?"),
        (x * (1 - p), "what is kept is made smaller. Something is missing from the mean: should the rest shrink or "
         "grow?"),
        (x / p, "that divides by p. For p near 0, when next to nothing is dropped, what should the scale be?"),
        (x / (1 - p) ** 2, "it is scaled twice."),
        (x * (1 + p), "1 + p is close for a small p; what exactly brings the mean back?"),
    ], "Each kept image is x, times one number.")  # fmt: skip


# ---- A stage's parameters


@exercise("03.3", "The parameters of a stage", "medium", 10)
@task(
    [(128, 3, 11), (64, 2, 5), (32, 1, 7)],  # with depth 2 first, two mistakes would look alike
    "for all stages that were tried. Add stem and head, and you have the network's.",
)
def stage_parameters(dim: int, depth: int, k: int) -> Expected:
    config = Conv2FormerConfig(kernel_size=k)
    with torch.device("meta"):
        stage = Stage(make_downsample("group", dim // 2, dim), [Block(dim, config, 0.0) for _ in range(depth)])
    total, block, down, conv = map(_count, (stage, stage.blocks[0], stage.downsample, stage.downsample[1]))
    convmod, mlp = stage.blocks[0].convmod, stage.blocks[0].mlp
    biases = [p.numel() for n, p in stage.blocks[0].named_parameters() if n.endswith("bias") and "norm" not in n]
    norms = _count(convmod.norm) + _count(mlp.norm)

    def without(less: int) -> int:
        return total - depth * less

    mistakes = [
        (depth * block, "the blocks are right; a stage after the first also begins with a downsampling."),
        (block + down, f"that is a stage of one block, with its downsampling; this one has {depth}."),
        (depth * (block + down), "the downsampling is counted once a block; it stands before the first."),
        (total - down + conv, "nearly: the downsampling's GroupNorm learns, too."),
        (total + dim, f"nearly: {dim} too many. Either the downsampling's convolution was given a bias, which it has "
         "not, or its norm has too many channels: it stands BEFORE the convolution."),
        (total + 2 * dim, "nearly: the downsampling's convolution has no bias, and its norm stands BEFORE it, where "
         "there are half as many channels."),
        *((total + more, "the downsampling begins with half as many channels: so does its norm, and its convolution "
            "leads from dim // 2 to dim.") for more in (conv, 3 * conv, down, 3 * conv + dim)),
        (total - conv + conv // 4, "a 2×2 convolution has four matrices, one for each of its positions."),
        (without(norms), "the two layer norms of each block are missing."),
        (without(_count(mlp.norm)), "one layer norm a block is missing: ConvMod has one and the MLP has one."),
        (without(_count(mlp)), "that is ConvMod and the downsampling; each block has an MLP as well."),
        (without(_count(convmod)), "that is the MLP and the downsampling; each block has a ConvMod as well."),
        (without(_count(mlp.pos)), "the 3×3 depthwise convolution in the MLP is missing."),
        (without(6 * 2 * dim), "a 3×3 kernel has nine numbers, not three."),
        (without(_count(mlp.pos) // 2), "the MLP's 3×3 convolution works on the widened map, of 2·dim channels."),
        (without(_count(convmod.a[2])), f"the {k}×{k} depthwise convolution is missing."),
        (without(_count(convmod.a[0])), "one 1×1 convolution of ConvMod is missing: there are three."),
        (without(sum(biases)), "the biases of the convolutions are missing."),
        (without(sum(biases) + norms // 2), "the biases are missing, of convolutions and norms."),
    ]  # fmt: skip
    what = f"the count for {dim} channels, {depth} block{'s' * (depth > 1)} and k = {k}"
    return Expected(what, total, mistakes, "Count one ConvMod, then one MLP (with its 3×3), times the blocks, then the "
        "downsampling.")  # fmt: skip


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# ---- A block


def block_inputs() -> Iterator[list]:
    """x and the parts of a block; first at inference, then in training, where branches drop."""
    with torch.random.fork_rng(devices=[]):
        theirs = Block(6, Conv2FormerConfig(kernel_size=3, layer_scale=0.5), drop_path=0.5).requires_grad_(False)
    draw = torch.Generator().manual_seed(8)
    for parameter in theirs.parameters():
        parameter.copy_(0.5 * torch.randn(parameter.shape, generator=draw))
    x = torch.randn(6, 6, 4, 5, generator=draw)
    for training in (False, True):
        theirs.train(training)
        yield [x, theirs.convmod, theirs.mlp, theirs.scale1, theirs.scale2, theirs.drop_path]


def _ask_block(answer: Callable[..., Any], *inputs: Any) -> Any:
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        return answer(*inputs)


@exercise("03.4", "Assemble a block", "medium", 8)
@task(block_inputs, "the same as the library's block, in use and in training.", ask=_ask_block)
def block(
    x: Tensor, convmod: nn.Module, mlp: nn.Module, scale1: nn.Module, scale2: nn.Module, drop: nn.Module
) -> Expected:
    c, m, s, t, d = convmod, mlp, scale1, scale2, drop
    one, two = x + s(c(x)), x + t(m(x))  # after one step only, ConvMod's or the MLP's

    def drawn(once: Callable[[], Tensor]) -> Tensor:
        return _ask_block(lambda *parts: once())

    def then(x: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        return x + branch(x)

    right = drawn(lambda: then(then(x, lambda z: d(s(c(z)))), lambda z: d(t(m(z)))))
    if not drop.training:
        return Expected("the output at inference", right, [
            (one + two - x, "the two branches stand side by side, both fed with x. The MLP works on what ConvMod's "
             "step has made."),
            (then(s(c(x)), lambda z: t(m(z))), "x does not pass ConvMod by: the first residual connection is missing."),
            (t(m(one)), "the second residual connection is missing."),
            (t(m(s(c(x)))), "there is no residual connection: each step ADDS to what it was given."),
            (x + t(m(s(c(x)))), "one residual connection around both; each branch has its own."),
            (x + t(m(one)), "the second sum begins with the x from before ConvMod's step."),
            (two + s(c(two)), "the MLP comes first here; a block begins with ConvMod."),
            (then(x + t(c(x)), lambda z: s(m(z))), "the two scales are exchanged."),
            (then(x + c(x), m), "the layer scales are not used."),
            (one + s(m(one)), "scale1 is used twice, scale2 never."),
            (t(then(s(x + c(x)), m)), "the scale takes hold of the sum; it belongs on the branch alone, or x itself is "
             "scaled."),
            (then(x + c(s(x)), lambda z: m(t(z))), "the scale stands before the branch, where the norm undoes much of "
             "it; it belongs after."),
            (one, "the MLP's step is missing."),
            (two, "ConvMod's step is missing."),
        ], "Two steps of one form: x becomes x plus a branch of x.")  # fmt: skip
    return Expected("the output in training, where branches drop,", right, [
        (one + t(m(one)), "nothing is ever dropped: drop is not used."),
        (drawn(lambda: d(then(d(one), lambda z: t(m(z))))), "drop takes hold of the sum, so a dropped image loses x as "
         "well: nothing is left of it. Only the branch may drop."),
        (drawn(lambda: then(x + d(s(c(x))), lambda z: t(m(z)))), "the MLP's branch never drops."),
        (drawn(lambda: one + d(t(m(one)))), "ConvMod's branch never drops."),
        (drawn(lambda: d(one + t(m(one)))), "drop takes hold of the whole block, x included. Only a branch may drop."),
        (drawn(lambda: then(x + s(c(d(x))), lambda z: t(m(d(z))))), "drop stands before the branch; a ConvMod of zeros "
         "is not zero (think of the biases). Drop what comes out."),
    ], "At inference it is right. Where does drop stand? It should see each scaled branch once, ConvMod's "
        "first.")  # fmt: skip
