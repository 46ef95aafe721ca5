"""What notebooks 04 and 05 and assignment 2 have built of a training: the loss, the schedule, an epoch."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f_course.grading.remote import runs_remotely
from c2f_course.tasks.exercise import Expected, Hint, expect_filled, expect_number

# ---- The loss

LEAST = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12, 1e-15, 1e-16, 1e-20, 1e-30, 1e-38)
"""Below which students keep a probability from falling."""


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float) -> Expected:
    """The loss for labels (N,) or for shares (N, K), with a share of `smoothing` for all classes together."""
    images, classes = logits.shape
    kind = "shares" if targets.dim() == 2 else "labels"
    t = targets.double() if targets.dim() == 2 else F.one_hot(targets, classes).double()
    scores, s, largest = logits.double(), smoothing, logits.abs().max().item()
    log_p, p = scores.log_softmax(1), scores.softmax(1)

    def compared(wanted: Tensor, log_q: Tensor = log_p) -> Tensor:
        return -(wanted * log_q).sum(1).mean()

    smooth, hard = (1 - s) * t + s / classes, F.one_hot(t.argmax(1), classes).double()
    right = compared(smooth)
    mistakes = [
        (-right, "the sign is turned round: logarithms of probabilities are negative, and a loss is not."),
        (right * images, "that is the sum over the images; the loss is their mean, which does not change with the size "
         "of the batch."),
        (right / classes, "that is a mean over the classes, too; over the classes the products are summed."),
        (compared(smooth, scores.log_softmax(0)), "the softmax runs over the images: the probabilities of ONE image "
         "sum to 1, along dim=1."),
        (compared(smooth, p), "the logarithm is missing: cross-entropy is −Σ target · log(probability)."),
        (compared(smooth, scores), "those are raw scores; make log-probabilities of them first."),
        (compared(smooth, p.log_softmax(1)), "the softmax is taken twice: log_softmax wants the raw scores, not "
         "probabilities."),
        (torch.inf, "{made} is not finite: softmax rounds a small probability to 0 and log(0) is −∞, or exp has "
         "overflowed. log_softmax does both in one step, safely."),
    ]  # fmt: skip
    if kind == "shares":
        mistakes += [
            (compared((1 - s) * hard + s / classes), "of the shares only the largest is used, as if it were a label. "
             "Use them all."),
            (compared(p, smooth.log()), "target and prediction are exchanged: the logarithm is of what the network "
             "says."),
        ]  # fmt: skip
    if s:
        mistakes += [
            (compared((1 - s) * t + s * (1 - t) / max(1, classes - 1)), "the share went to the other K − 1 classes. It "
             "is spread over all K of them, so that the true one gets its part back."),
            (compared(t), "nothing is smoothed, that is the plain cross-entropy: is `smoothing` used? A share of it "
             "goes to the classes before you compare."),
            (compared((1 - s) * t), "the share is taken from the targets, and given to nobody: each row of the targets "
             "should still sum to 1."),
            (compared(t + s / classes), f"the share is given to all classes, and taken from nobody: your targets sum "
             f"to {1 + s:g}, and each row should still sum to 1."),
            (compared((1 - s) * t + s), "every class gets the whole share: it is one share for all K together, so how "
             "much is it for each?"),
            (compared((1 - s) * t + s / 10), f"is a 10 written in? Here are {classes} classes."),
            (compared(0.9 * t + 0.1 / classes), f"is a 0.1 written in? Here `smoothing` is {s:g}."),
            (compared((1 - s) * t + s / images), "the share is divided by the number of images, not of classes."),
        ]  # fmt: skip
    for least in LEAST if largest > 100 else ():
        hint = (
            f"right for small scores; for large ones a probability is kept away from 0, at {least:g}, so that its "
            "logarithm stays finite. That hides the loss (and stops the gradient) just where the model is most wrong."
        )
        kept = (p.clamp(min=least), p + least, p.clamp(least, 1 - least))
        mistakes += [(compared(smooth, q.log()), hint) for q in kept]
    case = f"the loss for {kind}, {classes} classes, smoothing {s:g}" + (
        f", scores of up to {largest:.0f}" if largest > 100 else ""
    )
    shaped = f"{case} has shape {{shape}}; it should be one number, the mean over the images."
    many = (lambda made: isinstance(made, Tensor) and made.dim(), shaped)
    return Expected(case, right, mistakes, "It is −Σ target · log(probability), summed over the classes, then the mean "
        "over the images; the target is (1 − s) · what was asked for, plus s/K. Does each row of your targets sum to "
        "1?", 1e-5, [many])  # fmt: skip


# ---- The schedule


def ask_rates(answer: Callable[..., Any], rate_of: Callable[[int], tuple], steps: int) -> Tensor:
    """The rates of so many steps, whose arguments `rate_of` tells."""
    rates = []
    for step in range(steps):
        try:
            rate = answer(*rate_of(step))
        except Exception as error:
            if "ZeroDivisionError" in f"{type(error).__name__} {error}":
                raise Hint(
                    f"at step {step} your function divides by zero; is there a case without a warm-up?"
                ) from None
            raise
        rates.append(expect_number(rate, f"the rate of step {step}"))
    return torch.tensor(rates, dtype=torch.float64)


def rates(per_epoch: int, epochs: int, warmup_epochs: int, peak: float, floor: float) -> Expected:
    """The rate of each step of a training: up along a line to the peak, then down along half a cosine to the floor."""
    total, warmup, half = epochs * per_epoch, warmup_epochs * per_epoch, (peak - floor) / 2

    def curve(
        rise: Callable[[int], float] = lambda s: peak * (s + 1) / warmup,
        fall: Callable[[float], float] = lambda t: floor + half * (1 + math.cos(math.pi * t)),
        time: Callable[[int], float] = lambda s: (s - warmup) / (total - warmup),
        rising: int = warmup,
    ) -> Tensor:
        """A schedule with one part of it another one."""
        values = [rise(s) if s < rising else fall(time(s)) for s in range(total)]
        return torch.tensor(values, dtype=torch.float64)

    def cosine(turn: float) -> Callable[[float], float]:
        return lambda t: floor + half * (1 + math.cos(turn * t))

    def by_epoch(s: int) -> float:
        return (s // per_epoch - warmup_epochs) / (epochs - warmup_epochs)

    short = warmup_epochs  # the warm-up taken to be so many steps
    in_steps = curve(lambda s: peak * (s + 1) / short, time=lambda s: (s - short) / (total - short), rising=short)
    first = "here it is peak · (s + 1) / W, whatever the floor is."
    mistakes = [
        (curve(lambda s: peak * s / warmup), "the rate of step 0 is 0, so that the first step learns nothing: it moves "
         "no weight. Step 0 is the first of W steps: it gets a W-th of the peak."),
        (curve(lambda s: peak * (s + 1) / (warmup + 1)), f"the warm-up should rise in equal parts and reach the peak "
         f"at step {warmup - 1}, its last."),
        (curve(lambda s: peak), "there is no warm-up: the first steps have the whole rate."),
        (curve(time=lambda s: s / total, rising=0), "there is no warm-up: the cosine begins at once. The rate should "
         "rise in equal parts first."),
        (curve(time=lambda s: s / total), "the cosine counts from step 0, so that it is well under way when the "
         "warm-up ends, and the rate drops at once. Count the steps since the warm-up, of those that are left."),
        (curve(time=lambda s: (s - warmup) / total), "the cosine is divided by all steps, and so does not come to its "
         "end: after the warm-up fewer are left."),
        (curve(time=lambda s: (s - warmup) / max(1, total - warmup - 1)), "off by one: your last step has the floor "
         "already, and should still move a little. Here the cosine reaches it one step later, at step T, the first "
         "after the training."),
        (curve(time=lambda s: (s + 1 - warmup) / (total - warmup)), "off by one: the first step after the warm-up has "
         "the whole peak, t = 0."),
        *((curve(fall=cosine(turn)), "Python's cosine wants radians: half a turn is π, not "
            "180.") for turn in (180, math.pi / 180)),
        (curve(fall=cosine(2 * math.pi)), "the rate falls and rises again: that is a whole period of the cosine. Half "
         "a one leads from 1 to −1."),
        (curve(fall=lambda t: floor + (peak - floor) * math.cos(math.pi * t / 2)), "that is a quarter of a period, "
         "which falls fastest at the end; half a one, (1 + cos πt)/2, begins and ends gently."),
        (curve(fall=cosine(math.pi / 2)), "the rate ends half-way; half a cosine (from 0 to π) would bring it down to "
         "the end."),
        (curve(fall=lambda t: peak - (peak - floor) * t), "that falls along a line, a good schedule too (`linear`); "
         "but here half a cosine is asked for."),
        (curve(fall=lambda t: floor + (peak - floor) * math.cos(math.pi * t)), "a cosine runs from 1 to −1, so that "
         "the rate goes below zero, where a step goes uphill: how do you make of it something from 1 to 0?"),
        (curve(fall=lambda t: floor + half * (1 - math.cos(math.pi * t))), "the cosine is upside down: it rises after "
         "the warm-up."),
        (curve() / peak, f"the largest rate is 1: is everything multiplied by `peak`, {peak:g}?"),
    ]  # fmt: skip
    if floor:
        mistakes += [
            (curve(lambda s: floor + (peak - floor) * (s + 1) / warmup), f"the warm-up climbs from the floor; {first}"),
            (curve(lambda s: floor + (peak - floor) * s / warmup), f"the warm-up begins at the floor; {first}"),
            (curve(fall=lambda t: peak * (1 + math.cos(math.pi * t)) / 2), "the rate falls to 0 instead of to the "
             "floor."),
            (curve(fall=lambda t: floor + peak * (1 + math.cos(math.pi * t)) / 2), "the floor is added on top of the "
             "whole peak: the cosine should lead from peak to floor."),
            (curve(fall=lambda t: max(floor, peak * (1 + math.cos(math.pi * t)) / 2)), "the curve is cut off at the "
             "floor: it should come down to it as a cosine does, gently."),
        ]  # fmt: skip
    if per_epoch > 1:
        rises = (lambda s: peak * (s // per_epoch + 1) / short, lambda s: peak * (s // per_epoch) / short)
        in_epochs = (*(curve(rise, time=by_epoch) for rise in rises), curve(time=by_epoch))
        mistakes += [
            (in_steps, "the warm-up takes `warmup_epochs` steps; it should take that many epochs."),
            (in_epochs, "the rate changes only from epoch to epoch: the schedule goes by steps, each has its own "
             "rate."),
        ]  # fmt: skip

    def otherwise(made: Tensor) -> str:
        place = int((made - curve()).abs().argmax())
        return (
            f"With {total} steps, of which {warmup} are warm-up, peak {peak:g} and floor {floor:g}, step {place} gets "
            f"{made[place]:.4g}, and should get {curve()[place]:.4g}."
        )

    return Expected("the line of all rates", curve(), mistakes, otherwise)


def after_the_end(total: int, count: int, floor: float) -> Expected:
    """The rates of so many steps that are asked for after the end."""

    def rises(made: Tensor) -> str:
        place = int((made - floor).abs().argmax())
        return (
            f"Right up to the last step, {total - 1}; at step {total + place}, after the end, the rate is "
            f"{made[place]:.4g}. From step {total} on it stays at the floor: a training may be asked for a few steps "
            "more."
        )

    return Expected("the rate after the end", torch.full((count,), floor, dtype=torch.float64), [], rises)


# ---- One epoch


def training(plan: dict) -> tuple[nn.Module, torch.optim.Optimizer, list[tuple[Tensor, Tensor]], Callable]:
    """A model with a BatchNorm, in evaluation mode unless the plan says "train", an optimizer at a rate to be replaced,
    batches, a schedule."""
    draw = torch.Generator().manual_seed(plan["seed"])
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, 4)).double()
    model.train(plan.get("train", False))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64))
    batches = []
    for size in plan["sizes"]:
        x = torch.randn(size, 3, 2, 2, generator=draw, dtype=torch.float64)
        batches.append((x, torch.randint(0, 4, (size,), generator=draw)))
    parameters = list(model.parameters())
    cut = 4 if plan["groups"] == 2 else len(parameters)
    groups = [{"params": part} for part in (parameters[:cut], parameters[cut:]) if part]
    if plan["optimizer"] == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(groups, lr=0.9, momentum=0.9, weight_decay=0.01)
    else:
        optimizer = torch.optim.AdamW(groups, lr=0.9, weight_decay=0.05)
    first = 0.3 if plan["optimizer"] == "sgd" else 0.05
    return model, optimizer, batches, lambda step: first * 0.8 ** (step % 50)


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().double().flatten() for p in model.parameters()])


@runs_remotely
def after_epoch(answer: Callable, plan: dict) -> dict | None:
    """What the answer has made of the weights, and what it returned."""
    model, optimizer, batches, rate_of = training(plan)
    made = answer(
        model, optimizer, iter(batches) if plan["once"] else batches, F.cross_entropy, rate_of, plan["step"],
        plan["clip"],
    )  # fmt: skip
    if made is None and torch.equal(flat(model), flat(training(plan)[0])):
        return None  # the gap
    pair = list(made) if isinstance(made, tuple | list) else [made]
    return {
        "weights": flat(model),
        "slopes": any(p.grad is not None and bool(p.grad.any()) for p in model.parameters()),
        "returned": [item if isinstance(item, Tensor | int | float) else type(item).__name__ for item in pair],
        "attached": any(isinstance(item, Tensor) and item.requires_grad for item in pair),
    }


def epoch_by_hand(plan: dict, slip: str = "") -> tuple[nn.Module, list[float]]:
    """The model after the epoch and each batch's loss, as they are, or as they are after a slip."""
    model, optimizer, batches, rate_of = training(plan)
    model.train(slip != "eval")
    parameters, losses = list(model.parameters()), []
    held = [torch.zeros_like(p) for p in parameters]  # the gradients of the batch before
    if slip == "last left out":
        batches = batches[:-1]
    for number, (x, labels) in enumerate(batches):
        loss = F.cross_entropy(model(x), labels)
        losses.append(loss.item())
        own = list(torch.autograd.grad(loss, parameters))
        if slip in ("added up", "one step"):
            own = [a + b for a, b in zip(own, held, strict=True)]
        used = own
        if slip == "late":
            used = held
        if plan["clip"] is not None and slip != "no clip":
            used = _clipped(used, plan["clip"], slip)
        if slip == "added up" and plan["clip"] is not None:
            own = used  # clipping changes what is there, and that is added to
        at = {
            "rate late": plan["step"] + number - 1, "rate once": plan["step"], "from 0": number,
            "rate ahead": plan["step"] + number + 1, "one step": plan["step"],
        }.get(slip, plan["step"] + number)  # fmt: skip
        for place, group in enumerate(optimizer.param_groups):
            if slip != "no rate" and not (slip == "rate late" and number == 0) and not (slip == "one group" and place):
                group["lr"] = rate_of(at)
        if slip == "uphill by hand":
            optimizer = torch.optim.SGD(parameters, lr=rate_of(at))
        for p, g in zip(parameters, used, strict=True):
            p.grad = None if slip == "late" and number == 0 else -g if slip.startswith("uphill") else g.clone()
        if slip == "new":
            optimizer = type(optimizer)(parameters, lr=rate_of(at))
        if slip != "one step" or number == len(batches) - 1:
            optimizer.step()
        held = own
    return model, losses


def _clipped(gradients: list[Tensor], most: float, slip: str) -> list[Tensor]:
    norms = [g.norm() for g in gradients]
    if slip == "by value":
        return [g.clamp(-most, most) for g in gradients]
    if slip == "one by one":
        return [g * min(1.0, most / (n.item() + 1e-6)) for g, n in zip(gradients, norms, strict=True)]
    whole = torch.stack(norms).norm().item()
    factor = most / (whole + 1e-6)
    return [g * (factor if slip == "always" else min(1.0, factor)) for g in gradients]


SLIPS = {
    "added up": "the first batch is right, then the gradients add up: backward() adds to what .grad holds. Empty it "
    "for every batch.",
    "late": "each step moves by the gradient of the batch before: the step comes before its backward().",
    "eval": "the model is in evaluation mode, as it was handed over: its BatchNorm uses its running numbers instead of "
    "the batch's. (Dropout would be off as well.) Which call makes a model train?",
    "rate late": "each step has the rate of the one before, and the first one whatever the optimizer came with: the "
    "rate is set after the step.",
    "no rate": "the optimizer works at the rate that it came with: `rate_of` says another one for each step. It is "
               'each group\'s group["lr"] that counts.',
    "rate once": "the whole epoch has the rate of its first step: the schedule goes by steps.",
    "from 0": "the rates are those of a training's first steps; this epoch begins at step `step`.",
    "rate ahead": "each step has the rate of the next one: the step is counted before the rate is asked for.",
    "one group": "only the first group of weights has the rate of the schedule; optimizer.param_groups may hold "
    "several.",
    "no clip": "the gradients are not clipped, or at a moment when it changes nothing: between which two calls do they "
    "stand complete and not yet used?",
    "by value": "each number of the gradient is cut off by itself; it is the norm of all of them together that is kept "
    "to `clip`, so that the direction stays.",
    "one by one": "each parameter's gradient is clipped by itself; it is the norm of all of them together that counts.",
    "always": "a gradient that is short enough already is made longer; clipping only shortens.",
    "last left out": "the last batch, which is smaller, is left out.",
    "uphill": "the weights went uphill: a step goes against the gradient. optimizer.step() knows that by itself.",
    "uphill by hand": "the weights went uphill: a step goes against the gradient. optimizer.step() does that by "
    "itself.",
    "new": "a new optimizer at every step has forgotten the running means of the one that you were given: set the rate "
    "of the one that you have.",
    "one step": "there is one step for the whole epoch; there should be one for every batch.",
}  # fmt: skip


def ask_epoch(answer: Callable, plan: dict) -> dict:
    """What `after_epoch` gives. Hint where a step spoils what backward() needs."""
    try:
        made = after_epoch(answer, plan)
    except Exception as error:
        if "modified by an inplace operation" in str(error):
            raise Hint(
                "a step comes between the forward pass and its backward(): it changes the weights that backward() "
                "still needs. First backward(), then step()."
            ) from None
        raise
    expect_filled(made)
    return made


def weights_after(made: dict, plan: dict, otherwise: str) -> Expected:
    """The weights after the epoch; `made` is what `ask_epoch` gave."""
    backward = (
        "no gradient is left: either backward() was never called, or the gradients were emptied between backward() and "
        "step()."
    )
    if made["slopes"]:
        backward = "the gradients are there: is optimizer.step() called for every batch, and after its backward()?"
    mistakes: list[tuple] = [(flat(training(plan)[0]), f"no weight has moved, and {backward}")]
    mistakes += [(lambda slip=slip: flat(epoch_by_hand(plan, slip)[0]), hint) for slip, hint in SLIPS.items()]
    return Expected("the vector of all weights after the epoch", flat(epoch_by_hand(plan)[0]), mistakes, otherwise)
