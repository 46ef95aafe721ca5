"""What checks say that look at more than a function's values: how a class is built, what is drawn, what is said."""

import math
import statistics
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f.models.baselines import Swin
from c2f.models.conv2former import ClassifierHead, ConvMlp, LayerNorm2d
from c2f.training.sources.photographs import load_photographs
from c2f_course.figures.notebook_04 import LETTERS, RIDDLE, riddle_images, riddle_row
from c2f_course.tasks import (
    notebook_00,
    notebook_01,
    notebook_02,
    notebook_03,
    notebook_04,
    notebook_05,
    notebook_06,
    notebook_07,
    notebook_08,
    notebook_09,
)
from c2f_course.tasks.bug_hunt import SUSPECTS, guilt

# ---- 02.4 and assignment 1: a class with the layers of ConvMod


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
    "GELU last": (built(a=branch(one, depthwise, gelu)), "the GELU is between"),
    "no bias": (built(v=lambda d, k: nn.Conv2d(d, d, 1, bias=False)), "v.bias is missing"),
    "no proj": (built(proj=None), "no proj.weight, proj.bias"),
    "another name": (built(v=None, value=one), "no v.weight, v.bias"),
    "one layer more": (built(gate=one), "more parameters than there should be: gate.weight, gate.bias"),
    "v with a 3×3": (built(v=lambda d, k: nn.Conv2d(d, d, 3, padding=1)), "v.weight holds kernels of 3×3"),
    "in place": (built(lambda s, x: s.proj(s.a(s.norm(x)) * s.v(s.norm(x.mul_(2))))), "changed x itself"),
    "batch norm": (built(norm=lambda d, k: nn.BatchNorm2d(d)), "is a BatchNorm"),
    "v with a GELU": (built(v=branch(one, gelu)), "V is one 1×1 convolution"),
    "half the batch": (built(halved), "should have shape"),
    "an instance": (built()(6, 5), "give the class itself"),
}  # fmt: skip

# ---- 03.1 and 03.2: layer scale, drop path


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
    "in place": (scale(lambda s, x: x.mul_(s.gamma[:, None, None])), "changed x itself"),
    "an instance": (scale()(4, 0.5), "give the class itself"),
}  # fmt: skip


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

# ---- 04.1: flips


def flip_right(images, probability, generator):
    coins = torch.rand(len(images), generator=generator) < probability
    return torch.where(coins.view(-1, 1, 1, 1), images.flip(-1), images)


def flip_along(dim: int) -> Callable:
    def flip(images, probability, generator):
        coins = torch.rand(len(images), generator=generator) < probability
        return torch.where(coins.view(-1, 1, 1, 1), images.flip(dim), images)

    return flip


def flip_all_or_none(images, probability, generator):
    return images.flip(-1) if torch.rand(1, generator=generator) < probability else images


def flip_turned_around(images, probability, generator):
    coins = torch.rand(len(images), generator=generator) > probability
    return torch.where(coins.view(-1, 1, 1, 1), images.flip(-1), images)


def flip_each_pixel(images, probability, generator):
    return torch.where(torch.rand(images.shape, generator=generator) < probability, images.flip(-1), images)


def flip_without_generator(images, probability, generator):
    return torch.where((torch.rand(len(images)) < probability).view(-1, 1, 1, 1), images.flip(-1), images)


def flip_first_half(images, probability, generator):
    count = round(probability * len(images))
    return torch.cat([images[:count].flip(-1), images[count:]])


def flip_in_place(images, probability, generator):
    coins = torch.rand(len(images), generator=generator) < probability
    images[coins] = images[coins].flip(-1)
    return images


def flip_always_half(images, probability, generator):
    share = probability if probability in (0, 1) else 0.5
    return flip_right(images, share, generator)


def flip_broadcast(images, probability, generator):
    coins = torch.rand(len(images), generator=generator) < probability
    return torch.where(coins, images.flip(-1), images)


FLIPS = {
    "upside down": (flip_along(-2), "is upside down"),
    "the batch turned around": (flip_along(0), "images or colours changed places"),
    "the colours turned around": (flip_along(1), "images or colours changed places"),
    "one coin for all": (flip_all_or_none, "uses one random number"),
    "more than instead of less": (flip_turned_around, "none is"),
    "a coin for each pixel": (flip_each_pixel, "a mixture of both"),
    "the generator is not used": (flip_without_generator, "generators of the same seed"),
    "no chance at all": (flip_first_half, "for every generator"),
    "in place": (flip_in_place, "changed the batch itself"),
    "the probability is not used": (flip_always_half, "with probability 0.1"),
    "coins that do not fit": (flip_broadcast, "your code raised RuntimeError"),
    "nothing changes": (lambda images, probability, generator: images, "none is"),
}

# ---- 05.3 and 05.4: one step, averaged weights


def step_of(*parts, result="item", last_group_only=False):
    """A training step with its parts in some order, as students shuffle them."""

    def step(model, optimizer, x, targets, lr):
        def rate():
            for group in optimizer.param_groups[: 1 if last_group_only else None]:
                group["lr"] = lr

        def attribute():
            optimizer.lr = lr

        loss = F.cross_entropy(model(x).softmax(1) if "softmax" in parts else model(x), targets)
        does = {
            "rate": rate,
            "attribute": attribute,
            "softmax": lambda: None,
            "empty": optimizer.zero_grad,
            "backward": loss.backward,
            "step": optimizer.step,
        }
        for part in parts:
            does[part]()
        if result == "after":
            return F.cross_entropy(model(x), targets).item()
        return loss.item() if result == "item" else loss

    return step


def uphill(model, optimizer, x, targets, lr):
    loss = F.cross_entropy(model(x), targets)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    with torch.no_grad():
        for p, g in zip(model.parameters(), gradients, strict=True):
            p += lr * g
    return loss.item()


def new_optimizer(model, optimizer, x, targets, lr):
    return step_of("empty", "backward", "step")(model, torch.optim.SGD(model.parameters(), lr), x, targets, lr)


STEP = {
    "never emptied": (step_of("rate", "backward", "step"), "backward() adds to"),
    "emptied too late": (step_of("rate", "backward", "empty", "step"), "emptied between"),
    "no backward": (step_of("rate", "empty", "step"), "never called"),
    "no step": (step_of("rate", "empty", "backward"), "the gradients are there"),
    "step first": (step_of("rate", "step", "backward"), "First backward(), then step()"),
    "no rate": (step_of("empty", "backward", "step"), "keeps its initial rate"),
    "rate as attribute": (step_of("attribute", "empty", "backward", "step"), 'group["lr"] that counts'),
    "rate too late": (step_of("empty", "backward", "step", "rate"), "the rate is set after the step"),
    "one group": (step_of("rate", "empty", "backward", "step", last_group_only=True), "first group"),
    "softmax": (step_of("softmax", "rate", "empty", "backward", "step"), "its own softmax"),
    "two steps": (step_of("rate", "empty", "backward", "step", "step"), "one step()"),
    "a graph": (step_of("rate", "empty", "backward", "step", result="tensor"), "with its graph"),
    "loss afterwards": (step_of("rate", "empty", "backward", "step", result="after"), "second forward pass"),
    "uphill": (uphill, "went uphill"),
    "a new optimizer": (new_optimizer, "set the rate of the given one"),
}


def ema(formula, decorate=torch.no_grad):
    def update(average, model, decay):
        for a, w in zip(average.parameters(), model.parameters(), strict=True):
            a.copy_(formula(a, w, decay))
        return average

    return decorate()(update)


@torch.no_grad()
def rebinds(average, model, decay):
    for a, w in zip(average.parameters(), model.parameters(), strict=True):
        a = decay * a + (1 - decay) * w
    return average


@torch.no_grad()
def writes_the_model(average, model, decay):
    for a, w in zip(average.parameters(), model.parameters(), strict=True):
        w.lerp_(a, decay)
    return average


def another_model(average, model, decay):
    return ema(lambda a, w, d: d * a + (1 - d) * w)(deepcopy(average), model, decay)


@torch.no_grad()
def only_matrices(average, model, decay):
    for a, w in zip(average.parameters(), model.parameters(), strict=True):
        if a.ndim > 1:
            a.lerp_(w, 1 - decay)
    return average


EMA = {
    "rebinds": (rebinds, "has not moved"),
    "with gradients": (ema(lambda a, w, d: d * a + (1 - d) * w, decorate=torch.enable_grad), "torch.no_grad()"),
    "writes the model": (writes_the_model, "being trained has changed"),
    "another model": (another_model, "another model"),
    "only matrices": (only_matrices, "every parameter"),
    "returns a number": (lambda average, model, decay: 3, "returns a int"),
}

# ---- 08.2: a stopwatch


def watch(warm=1, before=True, after=True, anew=True, outside=False, sign=1):
    """A stopwatch that warms up so often, waits before and after each round, or outside, and starts anew in each."""

    def seconds_of(work, synchronize, clock, rounds):
        for _ in range(warm):
            work()
        if outside or not anew:
            synchronize()
        seconds, started = [], clock()
        for _ in range(rounds):
            if before and anew:
                synchronize()
            started = clock() if anew else started
            work()
            if after:
                synchronize()
            seconds.append(sign * (clock() - started))
        return seconds

    return seconds_of


stopwatch = watch()


def never_reads(work, synchronize, clock, rounds):
    for _ in range(rounds):
        work()
    return [0.02] * rounds


# ---- What is said, and not written as a function


def named() -> dict[str, str]:
    """What happened to the images of 04.2, found by comparing."""
    photographs = load_photographs().images
    shown = riddle_images(photographs)
    rows = {name: riddle_row(name, photographs) for name in RIDDLE}
    return {a: next(n for n in RIDDLE if torch.equal(rows[n], shown[a])) for a in LETTERS}


NAMED, HUNTED = named(), {name: guilt(name) for name in "ABCD"}
HOLDING = {letter for letter, claim in notebook_08.CLAIMS.items() if claim.holds}


def other_name(wrong: str) -> tuple[Any, str]:
    return NAMED | {next(a for a in LETTERS if NAMED[a] != wrong): wrong}, notebook_04.SAY["signs"][wrong]


def of_list(seconds: list[float], batch: int, change: Any = None) -> tuple[float, ...]:
    if change:
        change(seconds)
    rates = [batch / s for s in seconds]
    return statistics.median(rates), min(rates), max(rates)


# ---- 03: what makes a module of the network


def stage_of(forward=None, keep=nn.ModuleList) -> type[nn.Module]:
    class Stage(nn.Module):
        def __init__(self, downsample: nn.Module, blocks: list[nn.Module]) -> None:
            super().__init__()
            self.downsample, self.blocks = downsample, keep(blocks)

        def forward(self, x: Tensor) -> Tensor:
            x = self.downsample(x) if forward is None else forward(self, x)
            for block in self.blocks:
                x = block(x)
            return x

    return Stage


class Unaveraged(ClassifierHead):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(x))


class DenseMlp(ConvMlp):
    def __init__(self, dim: int, ratio: int) -> None:
        super().__init__(dim, ratio)
        self.pos = nn.Conv2d(dim * ratio, dim * ratio, 3, padding=1)


TABLES: dict[Any, dict[str, tuple[Any, str]]] = {
    notebook_00.window_by_hand: {"too small": (lambda u, k: u[3:13, 3:13], "has shape (10, 10)")},
    notebook_01.multiply_adds: {"a tuple": (lambda side, c, k: (1, 2, 3), "a dictionary with the keys")},
    notebook_02.u: {"a matrix product": (lambda x, w, b: F.gelu(x @ w + b), "could not match the shapes")},
    notebook_02.a: {"no groups": (lambda u, k, b: F.conv2d(u, k, b, padding=2), "Into how many groups")},
    notebook_02.convmod: BLIND,
    notebook_03.stem: {"no layer": (lambda dim, stride: dim, "a layer of torch.nn should come back")},
    notebook_03.mlp: {"not depthwise": (DenseMlp, "Which argument of Conv2d")},
    notebook_03.downsampling: {
        "a bias": (lambda c, d: nn.Sequential(nn.GroupNorm(1, c), nn.Conv2d(c, d, 2, 2)), "more to learn"),
        "a wide norm": (lambda c, d: nn.Sequential(nn.GroupNorm(1, d), nn.Conv2d(c, d, 2, 2, bias=False)), "has shape"),
    },
    notebook_03.stage: {
        "a plain list": (stage_of(keep=list), "nn.ModuleList"),
        "no downsampling": (stage_of(lambda stage, x: x), "the downsampling comes first"),
    },
    notebook_03.head: {"not averaged": (Unaveraged, "must be averaged")},
    notebook_03.layer_scale: SCALES,
    notebook_03.drop_path: DROPS,
    notebook_04.flip_some: FLIPS,
    notebook_04.which: {
        **{wrong: other_name(wrong) for wrong in RIDDLE},
        "one left": (NAMED | {"A": ...}, "A has no name yet"),
        "no such name": (NAMED | {"A": "zoom"}, "there is no 'zoom' among them"),
        "a seventh letter": (NAMED | {"G": "flip"}, "give a dictionary"),
    },
    notebook_04.shift: {
        "reflects too far": (lambda x, d, r: F.pad(x[None], [9] * 4, mode="reflect"), "F.pad cannot reflect like that"),
        "all of the pad": (lambda x, d, r: F.pad(x[None], [3] * 4, mode="reflect")[0], "as many rows and columns"),
    },
    notebook_04.cutmix: {"the image": (lambda image, *others: image, "return two things")},
    notebook_05.smoothed_loss: {"each": (lambda z, y, s: F.cross_entropy(z, y, reduction="none"), "one number")},
    notebook_05.schedule: {"by zero": (lambda t, n, w, p: p * t / w if w == 0 else p * min(1, (t + 1) / w)
                                       if t < w else p * 0.5 * (1 + math.cos(math.pi * (t - w) / (n - w))), "by zero")},
    notebook_05.one_step: STEP,
    notebook_05.ema_update: EMA,
    notebook_05.bug_hunt: {
        **{f"{name} {suspect}": ({**HUNTED, name: suspect}, notebook_05.SAY["signs"][suspect])
           for name in "ABCD" for suspect in SUSPECTS if suspect != HUNTED[name]},
        "one": ({"A": HUNTED["A"]}, "1 of 4 right, and all that you named"),
        "no such curve": ({"E": SUSPECTS[0]}, "no curve 'E'"),
        "no such suspect": ({"A": "the optimizer"}, "not on the list"),
        "a list": (["zero_grad forgotten"], "is a list"),
    },
    notebook_06.read_a_map: {
        "the product's signs": (("passes on", "turns around", "passes on"), "named the sign of A ⊙ V"),
        "R by its sign": (("turns around", "passes on", "turns around"), "look at its size"),
        "silence where it is not": (("silences", "passes on", "silences"), "far from zero"),
        "another word": (("flips", "passes on", "silences"), "choose one of"),
    },
    notebook_06.energy_of_rings: {"city blocks": (lambda w: torch.ones(7) / 7, "by row *or* by column"),
                                  "percent": (lambda w: torch.full((4,), 25.0), "sum to 100")},
    notebook_06.receptive_field_by_autograd: {
        "zero": (lambda m, x, s: torch.zeros(24, 40), "zero everywhere"),
        "changes x": (lambda m, x, s: x.requires_grad_().mean(dim=(0, 1)), "changes its input images"),
    },
    notebook_07.into_windows: {"square": (lambda x, side: x.view(2, 3, 16, 3), "in ONE axis")},
    notebook_07.window_mask: {
        "hundreds": (lambda h, w, m, s: -100.0 * torch.ones(6, 16, 16), "return True and False here"),
        "integers": (lambda h, w, m, s: torch.ones(6, 16, 16).long(), "torch.bool"),
    },
    notebook_07.relative_index: {"floats": (lambda side: torch.zeros(side**2, side**2), "whole numbers")},
    notebook_07.attention_cost: {"one number": (lambda *sizes: 3, "give two numbers")},
    notebook_07.flaws: {
        " ".join(map(str, said)): (said, sentence) for said, sentence in {
            ("luck", "luck", "padding"): "first: single runs",
            ("padding", "luck", "padding"): "first: sizes and tokens are not mentioned",
            ("nothing", "luck", "padding"): "three times as long",
            ("hardware", "luck", "padding"): "does not depend on the machine",
            ("training", "training", "padding"): "second: both had 100 epochs",
            ("training", "padding", "padding"): "which epoch was taken",
            ("training", "nothing", "padding"): "on which images was the epoch chosen",
            ("training", "luck", "training"): "third: same recipe",
            ("training", "luck", "luck"): "this is not luck",
            ("training", "luck", "nothing"): "spent on",
            ("training", "luck", "paddding"): "third is 'paddding'; use one of",
            (1, "luck", "padding"): "first is 1; use one of",
        }.items()
    },
    notebook_08.speed_of: {
        "sorts in place": (lambda s, b: of_list(s, b, list.sort), "changes the list"),
        "median alone": (lambda s, b: of_list(s, b)[0], "return three numbers"),
    },
    notebook_08.seconds_of: {
        "never waits": (watch(before=False, after=False), "time to hand the work over"),
        "waits outside the loop": (watch(before=False, after=False, outside=True), "time to hand the work over"),
        "waits before the start alone": (watch(after=False), "time to hand the work over"),
        "no warm-up": (watch(warm=0), "Call work() once before the rounds"),
        "end only": (watch(before=False), "in the queue before it"),
        "warm-up counted": (lambda w, s, c, r: watch(warm=0)(w, s, c, r + 1), "the first figure is the warm-up's"),
        "one start": (watch(anew=False), "start the clock anew"),
        "upside down": (watch(sign=-1), "subtract the earlier reading"),
        "mean": (lambda *a: statistics.fmean(stopwatch(*a)), "return a list"),
        "no list": (lambda *a: "fast", "return a list of numbers"),
        "too few": (lambda *a: stopwatch(*a)[1:], "should have 5 numbers, and has 4"),
        "warms up for ever": (watch(warm=51), "a call or two of warm-up"),
        "never reads": (never_reads, "never read"),
        "never works": (lambda w, s, c, r: [c() - c() for _ in range(r)], "never done"),
    },
    notebook_08.time_to: {
        "nothing where never": (lambda h, t: time_to(h, t) if t < 0.8 else None, "returns nothing"),
        "an error where never": (lambda h, t: time_to(h, t) if t < 0.8 else 1 / 0, "stops with an error"),
        "minus one where never": (lambda h, t: time_to(h, t) if t < 0.8 else -1.0, "Return math.inf"),
    },
    notebook_08.supported: {
        "a letter that is none": ({"z"}, "there is no sentence z"),
        "no letters": (3, "give a set of letters"),
        **{f"believes {one}": (HOLDING | {one}, f"({one}) “") for one in sorted(notebook_08.CLAIMS.keys() - HOLDING)},
        **{f"doubts {one}": (HOLDING - {one}, f"({one}) “") for one in sorted(HOLDING)},
    },
    notebook_09.interval: {
        "per cent": (lambda r, n: (100 * (r / n - 0.01), 100 * (r / n + 0.01)), "per cent or counts"),
        "exchanged": (lambda r, n: (r / n + 0.01, r / n - 0.01), "lower end first"),
        "only the width": (lambda r, n: 0.1, "return two numbers"),
    },
    notebook_09.paired: {
        "one number": (lambda a, b: 0.1, "return two numbers"),
        "booleans": (lambda a, b: ((b - a).mean(), 0.0), "a difference needs numbers"),
    },
    notebook_09.conclusions: {
        "nothing": (set(), "(a), which you left out"),
        "better": ({"a", "b", "d"}, "(b), which you chose"),
        "equal": ({"a", "c", "d"}, "(c), which you chose"),
        "half a point forgotten": ({"a"}, "(d), which you left out"),
        "best against worst": ({"a", "d", "e"}, "Would the same comparison"),
        "other images": ({"a", "d", "f"}, "What did the three seeds vary"),
        "another letter": ({"a", "x"}, "no statement 'x'"),
        "a number": (3, "a set of strings"),
        "numbers": ({1, 4}, "a set of strings"),
    },
}  # fmt: skip


def time_to(history: Any, target: float) -> float:
    reached = [i for i, record in enumerate(history.records) if record.test_accuracy >= target]
    return sum(record.seconds for record in history.records[: reached[0] + 1]) if reached else math.inf


def answers(check: Any, answer: Any) -> tuple:
    """What the notebook passes to a check: most take one answer."""
    return answer if check in (notebook_06.read_a_map, notebook_07.flaws) else (answer,)


SAID = [pytest.param(check, *case, id=f"{check.number} {name}") for check, cases in TABLES.items()
        for name, case in cases.items()]  # fmt: skip


@pytest.mark.parametrize(("check", "answer", "sentence"), SAID)
def test_each_wrong_answer_gets_its_hint(check: Any, answer: Any, sentence: str) -> None:
    verdict = check(*answers(check, answer))
    assert verdict.state == "hint" and sentence in verdict.message, verdict.message


def average(average: nn.Module, model: nn.Module, decay: float) -> nn.Module:
    return ema(lambda a, w, d: d * a + (1 - d) * w)(average, model, decay)


def in_one_tensor(a: Tensor, b: Tensor) -> Tensor:
    d = b.double() - a.double()
    return torch.stack([d.mean(), d.std(correction=0) / len(d) ** 0.5])


RIGHT = [
    (notebook_00.terms_in_the_corner, 36),
    (notebook_02.convmod, built()),
    *((notebook_03.stage, stage_of(keep=keep)) for keep in (nn.ModuleList, lambda blocks: nn.Sequential(*blocks))),
    (notebook_03.layer_scale, scale()),
    (notebook_04.flip_some, flip_right),
    (notebook_04.which, NAMED),
    (notebook_05.one_step, step_of("rate", "empty", "backward", "step")),
    (notebook_05.one_step, step_of("empty", "backward", "rate", "step")),
    (notebook_05.one_step, step_of("rate", "backward", "step", "empty")),
    (notebook_05.ema_update, average),
    (notebook_05.bug_hunt, HUNTED),
    (notebook_06.read_a_map, ("turns around", "passes on", "silences")),
    (notebook_07.flaws, ("Training", " luck", "padding")),
    (notebook_08.speed_of, lambda s, b: [b / statistics.median(s), b / max(s), b / min(s)]),
    (notebook_08.seconds_of, stopwatch),
    (notebook_08.seconds_of, lambda w, s, c, r: [w(), w(), stopwatch(w, s, c, r)][-1]),
    (notebook_08.time_to, time_to),
    (notebook_08.supported, " ".join(letter.upper() for letter in sorted(HOLDING))),
    (notebook_09.paired, in_one_tensor),
    *((notebook_09.conclusions, said) for said in ({"a", "d"}, ["D", "A"], "ad", "a, d", ("(a)", "(d)"))),
]  # fmt: skip


@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_each_way_to_be_right_passes(check: Any, answer: Any) -> None:
    verdict = check(*answers(check, answer))
    assert verdict.passed, verdict.message


BLANK = [
    (notebook_02.convmod, built(lambda s, x: ...)),
    (notebook_02.convmod, built(proj=lambda d, k: ...)),
    (notebook_03.layer_scale, scale(gamma=lambda dim, init: ...)),
    (notebook_04.which, dict.fromkeys(LETTERS, ...)),
    (notebook_05.bug_hunt, dict.fromkeys("ABCD", ...)),
    (notebook_06.read_a_map, ("turns around", ..., "silences")),
    (notebook_07.flaws, ("training", ..., "padding")),
    (notebook_09.conclusions, ...),
    *((check, lambda *given: ...) for check in (
        notebook_03.drop_path, notebook_04.flip_some, notebook_05.one_step, notebook_05.ema_update,
        notebook_08.seconds_of, notebook_08.time_to,
    )),
]  # fmt: skip


@pytest.mark.parametrize(("check", "answer"), BLANK)
def test_a_gap_is_blank(check: Any, answer: Any) -> None:
    assert check(*answers(check, answer)).state == "blank"


def test_the_students_generator_is_left_as_it_was() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    notebook_02.convmod(built())
    notebook_03.layer_scale(scale())
    notebook_03.drop_path(lambda x, p, training: x * kept(x, p))
    assert torch.equal(torch.get_rng_state(), before)


def test_cut_is_torchvisions_partition() -> None:
    torch.manual_seed(0)
    swin = Swin(2, 16, (2,), (2,), 4, 2.0, 0.0, 10).eval()
    (block, _) = swin.attention_weights(torch.randn(1, 3, 16, 24))
    assert torch.equal(notebook_07.cut(torch.arange(96).view(8, 12), 4), block.tokens)
    with pytest.raises(ValueError, match="multiples of 4"):
        notebook_07.cut(torch.zeros(6, 8), 4)


def test_the_tables_sentences_are_of_both_kinds() -> None:
    """A table that supports all or nothing would ask for no judgement."""
    assert 2 <= len(HOLDING) <= len(notebook_08.CLAIMS) - 2
