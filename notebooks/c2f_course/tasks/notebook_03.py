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
    exercise,
    expect_filled,
    expect_tensor,
    expect_untouched,
    hint_if,
    sentences,
    task,
)

SAY = sentences(__name__)

# ---- Layer scale


def scale_inputs() -> Iterator[tuple]:
    """The library's layer scale, with factors that differ, and x. As many columns as channels: no wrong axis raises."""
    theirs = LayerScale(4, 0.5).requires_grad_(False)
    theirs.gamma.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    yield theirs, torch.randn(2, 4, 5, 4, generator=torch.Generator().manual_seed(7)), 4, 0.5


@torch.no_grad()
def _ask_scale(cls: type[nn.Module], theirs: LayerScale, x: Tensor, channels: int, init: float) -> Tensor:
    """What a student's layer gives for x with these factors. Hint unless it begins as it should."""
    say = SAY["ask_scale"]
    hint_if(not (isinstance(cls, type) and issubclass(cls, nn.Module)), say["no class"])
    with torch.random.fork_rng(devices=[]):
        mine = cls(channels, init)
    if any(value is ... for value in vars(mine).values()):
        raise Blank
    expect_filled(mine(x))
    parameters = list(mine.parameters())
    hint_if(not parameters, say["nothing to learn"])
    shapes = " and ".join(str(tuple(parameter.shape)) for parameter in parameters)
    gamma = parameters[0]
    hint_if(len(parameters) > 1 or gamma.numel() not in (1, channels), say["shapes"].format(shapes=shapes))
    hint_if(gamma.numel() == 1, say["one factor"])
    mistakes = {"another beginning": (torch.ones(channels), torch.zeros(channels))}
    right = torch.full((channels,), init)
    Expected("gamma at the beginning", right, mistakes, says=say).compare(gamma.flatten())
    gamma.copy_(theirs.gamma.view_as(gamma))
    return mine(x)


@exercise("03.1", "Layer scale", "easy", 6)
@task(scale_inputs, SAY["layer_scale"], ask=_ask_scale)
def layer_scale(theirs: LayerScale, x: Tensor, channels: int, init: float) -> Expected:
    factors = theirs.gamma.flatten()
    scaled = x * factors[:, None, None]
    mistakes = {
        "factors along the columns": x * factors,
        "x added": x + scaled,
        "factors added": x + factors[:, None, None],
        "divided": x / factors[:, None, None],
        "gamma not used": init * x,
        "init twice": init * scaled,
    }
    return Expected("the output", theirs(x), mistakes)


# ---- Drop path


@exercise("03.2", "Drop path", "medium", 8)
def drop_path(answer: Callable[[Tensor, float, bool], Tensor]) -> str:
    say, draw = SAY["drop_path"], torch.Generator().manual_seed(5)
    x = 1 + torch.rand(400, 3, 4, 4, generator=draw)  # nowhere zero, so that a zero in the result was dropped
    before = x.clone()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        mistakes = {"scaled down at inference": 0.75 * x, "scaled up at inference": x / 0.75}
        what = "the result at inference (training=False)"
        Expected(what, x, mistakes, "at inference", says=say).compare(answer(x, 0.25, False))
        expect_untouched(x, before, "x")
        made = expect_tensor(answer(x, 0.25, True), tuple(x.shape), "the result in training")
        expect_untouched(x, before, "x")
        _expect_whole_images(made, x)
        kept = made.flatten(1).any(1)
        x, made = x[kept], made[kept]
        mistakes = {
            "not scaled": x,
            "scaled down": 0.75 * x,
            "divided by p": x / 0.25,
            "scaled twice": x / 0.75**2,
            "1 + p": x * 1.25,
        }
        Expected("what is kept", x / 0.75, mistakes, says=say).compare(made)
        for shape in ((300, 5), (300, 2, 3)):
            other = 1 + torch.rand(shape, generator=draw)
            expect_tensor(answer(other, 0.25, True), shape, f"for x of shape {shape}, the result")
    return say["praise"]


def _expect_whole_images(made: Tensor, x: Tensor) -> None:
    """Hint unless in each image all is zero or nothing is, in some and not in all."""
    zero = made == 0
    dropped = zero.flatten(1).all(1)
    in_part, share = not (dropped | ~zero.flatten(1).any(1)).all(), dropped.float().mean().item()
    for name, wrong in {
        "channels": in_part and torch.equal(zero, zero[:, :, :1, :1].expand_as(zero)),
        "all images alike": in_part and torch.equal(zero, zero[:1].expand_as(zero)),
        "dropout": in_part,
        "none dropped": not zero.any(),
        "all dropped": zero.all(),
        "p kept": 0.65 < share < 0.85,
        "another share": not 0.15 < share < 0.35,
    }.items():
        hint_if(wrong, SAY["drop_path"][name].format(share=share))


# ---- A stage's parameters


@exercise("03.3", "The parameters of a stage", "medium", 10)
@task([(128, 3, 11), (64, 2, 5), (32, 1, 7)], SAY["stage_parameters"])  # depth 2 first: two mistakes would look alike
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

    mistakes = {
        "blocks alone": depth * block,
        "one block": block + down,
        "a downsampling for each block": depth * (block + down),
        "no norm in the downsampling": total - down + conv,
        "dim too many": total + dim,
        "2 dim too many": total + 2 * dim,
        "downsampling of all channels": tuple(total + more for more in (conv, 3 * conv, down, 3 * conv + dim)),
        "1×1 downsampling": total - conv + conv // 4,
        "no layer norms": without(norms),
        "one layer norm": without(_count(mlp.norm)),
        "no MLP": without(_count(mlp)),
        "no ConvMod": without(_count(convmod)),
        "no 3×3": without(_count(mlp.pos)),
        "3 for 3×3": without(6 * 2 * dim),
        "3×3 not widened": without(_count(mlp.pos) // 2),
        "no k×k": without(_count(convmod.a[2])),
        "two 1×1": without(_count(convmod.a[0])),
        "no biases": without(sum(biases)),
        "no biases of norms": without(sum(biases) + norms // 2),
    }
    return Expected(f"the count for {dim} channels, {depth} block{'s' * (depth > 1)} and k = {k}", total, mistakes)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# ---- A block


def block_inputs() -> Iterator[list]:
    """x, ConvMod, MLP, their scales and drop path; first at inference, then in training, where branches drop."""
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


def _step(x: Tensor, *branch: Callable[[Tensor], Tensor]) -> Tensor:
    """x plus a branch of x, whose layers are these."""
    made = x
    for layer in branch:
        made = layer(made)
    return x + made


@exercise("03.4", "Assemble a block", "medium", 8)
@task(block_inputs, SAY["block"], ask=_ask_block)
def block(x: Tensor, c: nn.Module, m: nn.Module, s: nn.Module, t: nn.Module, d: nn.Module) -> Expected:
    one, two = _step(x, c, s), _step(x, m, t)  # after one step only, ConvMod's or the MLP's
    right = _ask_block(lambda: _step(_step(x, c, s, d), m, t, d))
    if d.training:
        mistakes = {
            "nothing dropped": _step(one, m, t),
            "sums dropped": _ask_block(lambda: d(_step(d(one), m, t))),
            "MLP never dropped": _ask_block(lambda: _step(_step(x, c, s, d), m, t)),
            "ConvMod never dropped": _ask_block(lambda: _step(one, m, t, d)),
            "block dropped": _ask_block(lambda: d(_step(one, m, t))),
            "dropped before the branch": _ask_block(lambda: _step(_step(x, d, c, s), d, m, t)),
        }
        return Expected("the output in training, where branches drop,", right, mistakes, "in training")
    mistakes = {
        "side by side": one + two - x,
        "no first residual": _step(s(c(x)), m, t),
        "no second residual": t(m(one)),
        "no residual": t(m(s(c(x)))),
        "one residual": _step(x, c, s, m, t),
        "second sum from x": x + t(m(one)),
        "MLP first": _step(two, c, s),
        "scales exchanged": _step(_step(x, c, t), m, s),
        "no scales": _step(_step(x, c), m),
        "scale1 twice": _step(one, m, s),
        "sums scaled": t(_step(s(_step(x, c)), m)),
        "scaled before the branch": _step(_step(x, s, c), t, m),
        "no MLP": one,
        "no ConvMod": two,
    }
    return Expected("the output at inference", right, mistakes)
