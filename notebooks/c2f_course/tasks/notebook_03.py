"""The exercises of notebook 03, which builds Conv2Former: its parts from stem to head, a stage's parameters."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import stochastic_depth

from c2f.models import Conv2FormerConfig
from c2f.models.conv2former import Block, ClassifierHead, ConvMlp, LayerScale, Stage, make_downsample, make_stem
from c2f_course.tasks.exercise import (
    Blank,
    Expected,
    exercise,
    expect_filled,
    expect_tensor,
    expect_untouched,
    hint_if,
    of_shape,
    sentences,
    task,
)
from c2f_course.tasks.layers import redrawn

SAY = sentences(__name__)

# ---- What makes a module: a class, or a function


def _ask_module(make: Callable[..., nn.Module], theirs: nn.Module, x: Tensor, *args: Any) -> Tensor | None:
    """What the student's module with the weights of `theirs` gives for x. Hint unless it has the same layers."""
    say, want = SAY["ask_module"], {name: tuple(value.shape) for name, value in theirs.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        mine = make(*args)
    expect_filled(mine)
    hint_if(not isinstance(mine, nn.Module), say["no module"].format(made=type(mine).__name__))
    expect_filled(*(value for layer in mine.modules() for value in vars(layer).values() if value is ...))
    have = {name: tuple(value.shape) for name, value in mine.state_dict().items()}
    missing, extra = ([name for name in one if name not in other] for one, other in ((want, have), (have, want)))
    hint_if(missing, say["missing"].format(missing=", ".join(missing), have=", ".join(have) or "nothing"))
    hint_if(extra, say["extra"].format(extra=", ".join(extra)))
    for name, shape in want.items():
        depthwise = len(shape) == 4 and shape[1] == 1 and have[name][1] != 1
        sentence = say["not depthwise" if depthwise else "shape"]
        hint_if(have[name] != shape, sentence.format(name=name, made=have[name], right=shape))
    mine.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        return mine.eval()(x)


def _modules(make: Callable[..., nn.Module], cases: list[tuple], *shape: int) -> list[tuple]:
    """For each case the kit's module with weights that tell mistakes apart, x of the shape, and the case."""
    with torch.random.fork_rng(devices=[]):
        modules = [redrawn(make(*case), seed=21) for case in cases]
    return [
        (m, torch.randn(shape, generator=torch.Generator().manual_seed(22)), *case)
        for m, case in zip(modules, cases, strict=True)
    ]


# ---- The stem


def kit_stem(dim: int, stride: int) -> nn.Module:
    return make_stem("pointwise" if stride == 1 else "overlap", 3, dim)


@exercise("03.1", "The stem", "easy", 5, kit_stem)
@task(_modules(kit_stem, [(6, 1), (6, 2)], 2, 3, 12, 16), SAY["stem"], ask=_ask_module)
def stem(m: nn.Module, x: Tensor, dim: int, stride: int) -> Expected:
    right = m(x)
    mistakes = {"GELU at the end": F.gelu(right)}
    if stride == 2:
        one, _, two = m
        mistakes |= {
            "no GELU": two(one(x)),
            "ReLU": two(F.relu(one(x))),
            "not halved": of_shape(2, dim, 12, 16),
            "halved twice": of_shape(2, dim, 3, 4),
            "halved by the second": F.conv2d(
                F.gelu(F.conv2d(x, one.weight, one.bias, padding=1)), two.weight, two.bias, stride=2, padding=1
            ),
            "no padding": (of_shape(2, dim, 3, 5), of_shape(2, dim, 4, 6), of_shape(2, dim, 5, 7)),
        }
    return Expected(f"the stem's output for stride {stride}", right, mistakes, tolerance=1e-4)


# ---- The MLP


@exercise("03.2", "The MLP", "medium", 8, ConvMlp)
@task(_modules(ConvMlp, [(4, 2)], 2, 4, 5, 6), SAY["mlp"], ask=_ask_module)
def mlp(m: ConvMlp, x: Tensor, dim: int, ratio: int) -> Expected:
    wide = F.gelu(m.fc1(m.norm(x)))
    near = F.gelu(m.pos(wide))
    right = m.fc2(wide + near)
    plain, unnormalised = m.fc1(m.norm(x)), F.gelu(m.fc1(x))
    mistakes = {
        "no norm": m.fc2(unnormalised + F.gelu(m.pos(unnormalised))),
        "no first GELU": m.fc2(plain + F.gelu(m.pos(plain))),
        "no second GELU": m.fc2(wide + m.pos(wide)),
        "no residual": m.fc2(near),
        "no 3×3": m.fc2(wide),
        "GELU on the sum": m.fc2(F.gelu(wide + m.pos(wide))),
        "GELU at the end": F.gelu(right),
        "x added": x + right,
    }
    return Expected("the output", right, mistakes, tolerance=1e-4)


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


@exercise("03.3", "Layer scale", "easy", 6, LayerScale)
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


def kit_drop_path(x: Tensor, p: float, training: bool) -> Tensor:
    return stochastic_depth(x, p, "row", training)


@exercise("03.4", "Drop path", "medium", 8, kit_drop_path)
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


def kit_block(
    x: Tensor, convmod: nn.Module, mlp: nn.Module, scale1: nn.Module, scale2: nn.Module, drop: nn.Module
) -> Tensor:
    return _step(_step(x, convmod, scale1, drop), mlp, scale2, drop)


@exercise("03.5", "The block", "medium", 8, kit_block)
@task(block_inputs, SAY["block"], ask=_ask_block)
def block(x: Tensor, c: nn.Module, m: nn.Module, s: nn.Module, t: nn.Module, d: nn.Module) -> Expected:
    one, two = _step(x, c, s), _step(x, m, t)  # after one step only, ConvMod's or the MLP's
    right = _ask_block(kit_block, x, c, m, s, t, d)
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


# ---- Downsampling, stage, head

kit_downsampling = partial(make_downsample, "group")


@exercise("03.6", "Downsampling", "easy", 4, kit_downsampling)
@task(_modules(kit_downsampling, [(4, 6)], 2, 4, 6, 8), SAY["downsampling"], ask=_ask_module)
def downsampling(m: nn.Module, x: Tensor, dim: int, out_dim: int) -> Expected:
    norm, conv = m
    weight, bias = norm.weight, norm.bias
    mistakes = {
        "layer norm": conv(F.layer_norm(x.permute(0, 2, 3, 1), (dim,), weight, bias).permute(0, 3, 1, 2)),
        "a group for each channel": conv(F.group_norm(x, dim, weight, bias)),
        "two groups": conv(F.group_norm(x, 2, weight, bias)),
        "not halved": (of_shape(2, out_dim, 5, 7), of_shape(2, out_dim, 6, 8)),
    }
    return Expected("the output", m(x), mistakes, tolerance=1e-4)


def _stage_parts() -> tuple[nn.Module, list[nn.Module]]:
    config = Conv2FormerConfig(kernel_size=3)
    return kit_downsampling(4, 6), [Block(6, config, 0.0), Block(6, config, 0.0)]


with torch.random.fork_rng(devices=[]):
    STAGE = _stage_parts()


@exercise("03.7", "A stage", "easy", 5, Stage)
@task(_modules(Stage, [STAGE], 2, 4, 6, 8), SAY["stage"], ask=_ask_module, errors={"shape": "no downsampling"})
def stage(m: Stage, x: Tensor, downsample: nn.Module, blocks: list) -> Expected:
    one, two = m.blocks
    halved = m.downsample(x)
    right = m(x)
    mistakes = {
        "downsampling alone": halved,
        "one block": (one(halved), two(halved)),
        "backwards": one(two(halved)),
        "side by side": (one(halved) + two(halved), one(halved) + two(halved) - halved),
        "halved added": halved + right,
    }
    return Expected("the output", right, mistakes, tolerance=1e-4)


@exercise("03.8", "The head", "easy", 5, ClassifierHead)
@task(_modules(ClassifierHead, [(6, 5)], 3, 6, 4, 4), SAY["head"], ask=_ask_module, errors={"mat1": "not averaged"})
def head(m: ClassifierHead, x: Tensor, dim: int, classes: int) -> Expected:
    z, right = m.norm(x), m(x)
    averaged = x.mean(dim=(2, 3))
    mistakes = {
        "averaged first": m.fc(F.layer_norm(averaged, (dim,), m.norm.weight, m.norm.bias, 1e-6)),
        "no norm": m.fc(averaged),
        "a maximum": m.fc(z.amax(dim=(2, 3))),
        "a sum": m.fc(z.sum(dim=(2, 3))),
        "one position": m.fc(z[:, :, 0, 0]),
        "softmax": right.softmax(1),
    }
    return Expected("the logits", right, mistakes, tolerance=1e-4)


# ---- A stage's parameters


@exercise("03.9", "The parameters of a stage", "medium", 10)
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
