"""Assignment 2, The training loop: the public checks, which the hidden tests ask again of other inputs."""

import io
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f_course.grading.assignment import question
from c2f_course.grading.remote import runs_remotely
from c2f_course.tasks.exercise import Expected, Says, expect_filled, hint_if, sentences, task
from c2f_course.tasks.training import (
    after_the_end,
    ask_epoch,
    ask_rates,
    cross_entropy,
    epoch_by_hand,
    rates,
    weights_after,
)

SAY = sentences(__name__)
OURS = SAY["without"]["ours"]
LOSSES, DROPS, MIXES, SCHEDULES = (SAY["without"][kind] + OURS for kind in ("losses", "drops", "mixes", "schedules"))
"""What an answer may not use."""


def loss_inputs(
    images: int = 6,
    classes: int = 4,
    smoothings: Sequence[float] = (0.2, 0.0),
    sizes: Sequence[float] = (3.0, 400.0),
    kinds: Sequence[str] = ("labels", "shares"),
    seed: int = 21,
) -> Iterator[tuple]:
    draw = torch.Generator().manual_seed(seed)
    for size in sizes:
        logits = size * torch.randn(images, classes, generator=draw)
        labels = torch.randint(0, classes, (images,), generator=draw)
        shares = (2 * torch.randn(images, classes, generator=draw)).softmax(1)
        for kind in kinds:
            yield from ((logits, labels if kind == "labels" else shares, smoothing) for smoothing in smoothings)


@question("2.1", "A loss for labels and for shares", "easy", 15, points=3, answers="training_loss", without=LOSSES)
@task(loss_inputs, SAY["training_loss"])
def training_loss(logits: Tensor, targets: Tensor, smoothing: float) -> Expected:
    return replace(cross_entropy(logits, targets, smoothing), learns={"logits": "the logits"})


def drop_inputs(
    shapes: Sequence[tuple[int, ...]] = ((5, 3, 2, 5), (6, 4)),
    rates: Sequence[float] = (0.25, 0.0, 1.0),
    modes: Sequence[bool] = (True, False),
    seed: int = 22,
) -> Iterator[tuple]:
    for shape, p, mode in ((shape, p, mode) for shape in shapes for p in rates for mode in modes):
        draw, count = torch.Generator().manual_seed(seed), shape[0]
        x, branch = torch.randn(shape, generator=draw), torch.randn(shape, generator=draw)
        u = ((torch.arange(count) + 0.5) / count)[torch.randperm(count, generator=draw)]  # on either side of p
        u[0] = p / 2 if p not in (0.0, 1.0) else 0.0  # the first is dropped, if there is anything to be dropped
        if p in (0.25, 0.5, 0.75) and count > 2:
            u[1] = p  # and not below it
        yield x, branch, p, u, mode


@question("2.2", "Drop path, to be repeated", "easy", 15, points=3, answers="drop_path", without=DROPS)
@task(drop_inputs, SAY["drop_path"], errors={"zerodivisionerror": "division by 0"})
def drop_path(x: Tensor, branch: Tensor, p: float, u: Tensor, training: bool) -> Expected:
    case = f"for p = {p:g}, in {'training' if training else 'evaluation'}, with x of shape {tuple(x.shape)}, the sum"
    x, branch = x.double(), branch.double()

    def column(mask: Tensor) -> Tensor:
        return mask.double().view(-1, *[1] * (x.dim() - 1))

    keep, scale = column(u >= p), 1 / (1 - p) if p < 1 else 0.0
    dropped = x + branch * keep * scale
    if not training:
        mistakes = {
            "dropped in evaluation": dropped,
            "scaled down in evaluation": x + branch * (1 - p),
            "divided in evaluation": x + branch * scale,
            "left out in evaluation": x,
            "no x": branch,
        }
        return Expected(case, x + branch, mistakes, "in evaluation")
    mistakes = {
        "not rescaled": x + branch * keep,
        "scaled down": x + branch * keep * (1 - p),
        "exchanged": x + branch * column(u < p) * scale,
        "as many, but others": x + branch * column(u < 1 - p) * scale,
        "equal to p as well": x + branch * column(u > p) * scale,
        "x dropped": ((x + branch) * keep * scale, (x + branch) * keep),
        "x rescaled": (x + branch * keep) * scale,
        "no x": branch * keep * scale,
        "nothing dropped": x + branch,
        "nothing dropped, only rescaled": x + branch * scale,
        "every branch dropped": x,
        "divided by p": lambda: x + branch * keep / p,
        "p for the share kept": lambda: x + branch * column(u < p) / p,
        "u along the last axis": lambda: x + branch * (u >= p) * scale,
        "divided by 0": x + branch * keep / torch.tensor(1 - p),
    }

    def otherwise(made: Tensor) -> str:
        added = (made.double() - x).abs() > 1e-6
        within = any(0 < int(image.sum()) < image.numel() for image in added)
        return SAY["drop_path"]["within an image" if within else "otherwise"]

    return Expected(case, dropped, mistakes, otherwise, learns={"branch": "the branch"} if 0 < p < 1 else {})


def mixup_inputs(
    shape: tuple[int, ...] = (5, 3, 5, 5),
    classes: int = 7,
    byte: bool = True,
    shares: Sequence[float] | None = None,
    seed: int = 23,
) -> Iterator[tuple]:
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8)
    images, count = images if byte else images / 100 - 1, shape[0]
    labels = torch.randint(0, max(1, classes - 2), (count,), generator=draw)  # the last two classes do not occur
    labels[: min(count, 3)] = torch.arange(min(count, 3)) % classes
    share = 0.1 + 0.35 * torch.rand(count, generator=draw) if shares is None else torch.tensor(shares)
    share[1::2] = 1 - share[1::2]
    yield images, labels, classes, torch.arange(count).roll(1), share  # partners: 0 with the last, 1 with 0, …


@question("2.3", "MixUp, a share for each image", "medium", 15, points=3, answers="mixup", without=MIXES)
@task(mixup_inputs, SAY["mixup"])
def mixup(images: Tensor, labels: Tensor, classes: int, partner: Tensor, share: Tensor) -> dict[str, Expected]:
    x, hard, share = images.double(), F.one_hot(labels, classes).double(), share.double()
    s, count = share[:, None], len(images)

    def mixed(what: Tensor, s: Tensor, partner: Tensor = partner) -> Tensor:
        return s * what + (1 - s) * what[partner]

    def slips(what: Tensor, s: Tensor) -> dict[str, Any]:
        return {
            "not mixed": what,
            "exchanged, not mixed": what[partner],
            "shares exchanged": mixed(what, 1 - s),
            "partner turned round": mixed(what, s, partner.argsort()),
            "no partner": s * what,
            "half and half": (what + what[partner]) / 2,
            "first share for all": mixed(what, share[0]),
            "mean share for all": mixed(what, share.mean()),
        }

    right, numbers = mixed(x, s[..., None, None]), mixed(labels[:, None].double(), s).long()
    of_images = slips(x, s[..., None, None]) | {
        "partner added whole": s[..., None, None] * x + x[partner],
        "whole numbers": right.floor(),
        "rounded": right.round(),
        "divided by 255": right / 255,
        "shares along another axis": tuple(lambda n=n: mixed(x, share.view(-1, *[1] * n)) for n in (0, 1, 2)),
    }
    of_targets = slips(hard, s) | {
        "larger share only": torch.where(s >= 0.5, hard, hard[partner]),
        "labels mixed as numbers": (numbers == torch.arange(classes)).double(),
        "both whole": hard + hard[partner],
        "shares along the classes": lambda: mixed(hard, share),
    }

    def shaped(made: Any, *shape: int | None) -> bool:
        sizes = tuple(made.shape) if isinstance(made, Tensor) else ()
        return len(sizes) == len(shape) and all(b in (a, None) for a, b in zip(sizes, shape, strict=True))

    signs = {
        "labels still": lambda made: shaped(made, count) and not made.is_floating_point(),
        "numbers between labels": lambda made: shaped(made, count),
        "other columns": lambda made: shaped(made, count, None) and made.shape[1] != classes,
    }
    integer = {"an integer type": lambda made: shaped(made, *x.shape) and not made.is_floating_point()}
    return {
        "images": Expected("the tensor of mixed images", right, of_images, signs=integer),
        "targets": Expected("the tensor of targets", mixed(hard, s), of_targets, signs=signs),
    }


def rate_inputs(
    steps_per_epoch: int = 6,
    epochs: int = 7,
    warmup_epochs: int = 2,
    peak: float = 0.02,
    floor: float = 0.001,
    after: bool = True,
) -> Iterator[tuple]:
    """A training, and whether more steps are asked for after its end; where they are, one without a warm-up as well."""
    for warmup in {warmup_epochs: 0, 0: 0} if after else (warmup_epochs,):
        yield steps_per_epoch, epochs, warmup, peak, floor, after


def _ask_rates(answer: Callable, *inputs: Any) -> list[Tensor]:
    *arguments, after = inputs
    total = arguments[0] * arguments[1]
    made = ask_rates(answer, lambda step: (step, *arguments), 2 * total + 1 if after else total)
    return [made[:total], made[total:]]


@question("2.4", "Warm-up and cosine, down to a floor", "medium", 15, points=3, answers="rate_at", without=SCHEDULES)
@task(rate_inputs, SAY["rate_at"], ask=_ask_rates)
def rate_at(
    per_epoch: int, epochs: int, warmup_epochs: int, peak: float, floor: float, after: bool
) -> dict[str, Expected]:
    total = epochs * per_epoch
    return {
        "training": rates(per_epoch, epochs, warmup_epochs, peak, floor),
        "after": after_the_end(total, total + 1 if after else 0, floor),
    }


@question("2.5", "One epoch", "medium", 25, points=4, answers="train_epoch", without=OURS)
def train_epoch(
    answer: Callable[..., tuple[float, int]],
    sizes: Sequence[int] = (6, 6, 6, 3),
    step: int = 4,
    clip: float | None = 0.25,
    optimizer: str = "sgd",
    groups: int = 2,
    once: bool = False,
    parts: Sequence[str] = ("weights", "report"),
    seed: int = 25,
) -> str:
    plan = dict(sizes=list(sizes), step=step, clip=clip, optimizer=optimizer, groups=groups, once=once, seed=seed)
    made, say = ask_epoch(answer, plan), SAY["train_epoch"]
    if "weights" in parts:
        weights_after(made, plan, say["otherwise"]).compare(made["weights"])
    if "report" in parts:
        _expect_report(made, epoch_by_hand(plan)[1], plan)
    if len(parts) == 2 and not once:  # and with batches that come only once
        train_epoch.check(answer, sizes, step, clip, optimizer, groups, True, parts, seed)
    return say["praise"]


def _expect_report(made: dict, losses: list[float], plan: dict) -> None:
    hint_if(len(made["returned"]) != 2, SAY["train_epoch"]["not two"])
    loss, after = made["returned"]
    sizes, steps, step = plan["sizes"], len(losses), plan["step"]
    weighted = sum(n * one for n, one in zip(sizes, losses, strict=True))
    means = {
        "mean over batches": sum(losses) / steps,
        "sum over batches": sum(losses),
        "sum over images": weighted,
        "sum over images by batches": weighted / steps,
        "sum of means by images": sum(losses) / sum(sizes),
        "last batch": losses[-1],
        "first batch": losses[0],
        "batches all of one size": weighted / (steps * sizes[0]),
    }
    right = weighted / sum(sizes)
    Expected("the mean loss", right, means, tolerance=1e-5, says=SAY["mean_loss"]).compare(loss)
    hint_if(made["attached"], SAY["mean_loss"]["with its graph"])
    nexts = {"from this epoch": steps, "last step": step + steps - 1, "first step": step, "one for all": step + 1}
    Expected("the number of the next step", step + steps, nexts, says=SAY["next_step"]).compare(after)


# ---- Resume


@question("2.6", "Stop, and go on", "hard", 25, points=4, answers=("snapshot", "restore"), without=OURS)
def resume(
    snapshot: Callable[..., dict],
    restore: Callable[..., int],
    optimizer: str = "sgd",
    draws: bool = True,
    stop: int = 7,
    total: int = 13,
    ways: Sequence[str] = ("file", "kept", "twice"),
    seed: int = 26,
) -> str:
    plan = {"optimizer": optimizer, "draws": draws, "stop": stop, "total": total, "seed": seed}
    for way in ways:
        if way == "file":
            expect_resumed(snapshot, restore, plan)
        else:
            _expect_same(gone_back(snapshot, restore, plan, way), plan, [SAY[name] for name in WAYS[way]])
    return SAY["resume"]["praise"]


WAYS = {"kept": ("kept",), "twice": ("first of two", "second of two")}
"""Ways to go back to a snapshot, each with the tables of the states that it ends in."""


def expect_resumed(snapshot: Callable, restore: Callable, plan: dict) -> None:
    """Hint unless a file that one process wrote lets another one go on. The two answers may live in different ones."""
    file = stopped(snapshot, plan)
    expect_filled(file)
    hint_if(not isinstance(file, Tensor), SAY["resume"]["no file"].format(error=str(file)[:150]))
    _expect_same(resumed(restore, plan, file), plan, [SAY["file"]])


def _expect_same(made: Any, plan: dict, says: list[Says]) -> None:
    """Hint unless each state is that of a training which was never stopped.

    says: for each state "when" it is, and what may not have come back as it was, with its hint.
    """
    expect_filled(made)
    stop = plan["stop"]
    hint_if(made["step"] == "NoneType", SAY["step"]["nothing"])
    steps = {"from the start": 0, "one too many": stop + 1, "one too few": stop - 1}
    facts = {"stop": stop}
    Expected("the step that restore returns", stop, steps, says=SAY["step"], facts=facts).compare(made["step"])
    for state, own in zip(made["states"], says, strict=True):
        when, slips = own["when"], {**own, **SAY["forgotten"]}
        mistakes = {lost: lambda lost=lost: _whole(plan, *lost.split(", ")) for lost in slips if lost != "when"}
        what, says_all = f"the state of the model {when}", {**slips, **SAY["state"]}
        Expected(what, _whole(plan), mistakes, tolerance=1e-10, says=says_all, facts={"when": when}).compare(state)


def _model(plan: dict, seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model and an optimizer, new, from this seed; with `draws` it has a dropout and a BatchNorm."""
    torch.manual_seed(seed)
    middle = [nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(0.3)] if plan["draws"] else [nn.GELU()]
    model = nn.Sequential(nn.Linear(6, 8), *middle, nn.Linear(8, 3)).double()
    if plan["optimizer"] == "sgd":
        return model, torch.optim.SGD(model.parameters(), lr=0.9, momentum=0.9)
    return model, torch.optim.AdamW(model.parameters(), lr=0.9, weight_decay=0.05)


def _advance(model: nn.Module, optimizer: torch.optim.Optimizer, plan: dict, start: Any, end: int) -> None:
    """Train from step to step. Which images, and with `draws` much else, is decided by torch's generator."""
    draw = torch.Generator().manual_seed(plan["seed"])
    x = torch.randn(24, 6, generator=draw, dtype=torch.float64)
    labels = torch.randint(0, 3, (24,), generator=draw)
    first = 0.2 if plan["optimizer"] == "sgd" else 0.05
    if isinstance(start, Tensor) and start.numel() == 1:
        start = start.item()
    if not isinstance(start, int | float) or not 0 <= start <= end:
        return
    parameters = list(model.parameters())
    for step in range(int(start), end):
        chosen = torch.randperm(24)[:8] if plan["draws"] else (torch.arange(8) + 5 * step) % 24
        loss = F.cross_entropy(model(x[chosen]), labels[chosen])
        for group in optimizer.param_groups:
            group["lr"] = first * 0.9**step
        for parameter, slope in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = slope
        optimizer.step()


def _stopped_at(plan: dict) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A training up to where it is stopped."""
    model, optimizer = _model(plan, plan["seed"])
    _advance(model, optimizer, plan, 0, plan["stop"])
    return model, optimizer


def _state(model: nn.Module) -> Tensor:
    """All of a model's numbers, its buffers too."""
    return torch.cat([value.detach().double().flatten() for value in model.state_dict().values()])


def _gone_on(restore: Callable, plan: dict, made: Any, models: Iterator[tuple]) -> dict:
    """The states at the end of trainings that go on from one snapshot, one after the other, and the step returned."""
    states, step = [], None
    for model, optimizer in models:
        step = restore(made, model, optimizer)
        _advance(model, optimizer, plan, step, plan["total"])
        states.append(_state(model))
    return {"states": states, "step": step if isinstance(step, Tensor | int | float) else type(step).__name__}


@runs_remotely
def stopped(snapshot: Callable, plan: dict) -> Tensor | str | None:
    """Train, stop, and write: the bytes of the file, or a sentence about why there is none."""
    with torch.random.fork_rng(devices=[]):
        model, optimizer = _stopped_at(plan)
        made = snapshot(model, optimizer, plan["stop"])
        if made is None:
            return None
        file = io.BytesIO()
        try:
            torch.save(made, file)
            torch.load(io.BytesIO(file.getvalue()), weights_only=True)
        except Exception as error:
            return f"{type(error).__name__}: {error}".split("\n")[0]
        return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)


@runs_remotely
def resumed(restore: Callable, plan: dict, file: Tensor) -> dict:
    """Another model with other weights, another optimizer, other random numbers; then restore, and train to the end."""
    with torch.random.fork_rng(devices=[]):
        new = iter([_model(plan, plan["seed"] + 1000)])
        return _gone_on(restore, plan, torch.load(io.BytesIO(file.numpy().tobytes()), weights_only=True), new)


@runs_remotely
def gone_back(snapshot: Callable, restore: Callable, plan: dict, way: str) -> dict | None:
    """Train, take a snapshot, and go back to it: "kept", when the same training has come to its end, or "twice", with
    two new ones."""
    with torch.random.fork_rng(devices=[]):
        model, optimizer = _stopped_at(plan)
        made = snapshot(model, optimizer, plan["stop"])
        if made is None:
            return None
        if way == "kept":
            _advance(model, optimizer, plan, plan["stop"], plan["total"])
            return _gone_on(restore, plan, made, iter([(model, optimizer)]))
        new = (_model(plan, plan["seed"] + number) for number in (1000, 2000))
        return _gone_on(restore, plan, deepcopy(made), new)


def _whole(plan: dict, *slips: str) -> Tensor:
    """The state at the end of a training that was never stopped, or of one that was and lost something by that."""
    with torch.random.fork_rng(devices=[]):
        model, optimizer = _stopped_at(plan)
        if slips:
            kept = {"model": deepcopy(model.state_dict()), "memory": deepcopy(optimizer.state_dict())}
            drawn = torch.get_rng_state()
            if any("later" in slip for slip in slips):
                _advance(model, optimizer, plan, plan["stop"], plan["total"])
                kept["model" if "later weights" in slips else ""] = deepcopy(model.state_dict())
                kept["memory" if "later memory" in slips else ""] = deepcopy(optimizer.state_dict())
            model, optimizer = _model(plan, plan["seed"] + 1000)
            trained = dict(model.named_parameters())
            for name, value in model.state_dict().items():
                if ("weights" if name in trained else "buffers") not in slips:
                    value.copy_(kept["model"][name])
            if "memory" not in slips:
                optimizer.load_state_dict(kept["memory"])
            if "seed" in slips:
                torch.manual_seed(plan["seed"])
            elif "generator" not in slips:
                torch.set_rng_state(drawn)
            model.train("mode" not in slips)
        _advance(model, optimizer, plan, plan["stop"], plan["total"])
        return _state(model)
