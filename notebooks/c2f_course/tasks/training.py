"""What notebooks 04 and 05 and assignment 2 have built of a training: the loss, and the schedule."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from c2f_course.tasks.exercise import Expected, Hint, expect_number

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
        (compared((1 - s) * t + s * (1 - t) / max(1, classes - 1)), "the share went to the other K − 1 classes. It is "
         "spread over all K of them, so that the true one gets its part back."),
        (compared(t), "nothing is smoothed, that is the plain cross-entropy: is `smoothing` used? A share of it goes "
         "to the classes before you compare."),
        (compared((1 - s) * t), "the share is taken from the targets, and given to nobody: each row of the targets "
         "should still sum to 1."),
        (compared(t + s / classes), f"the share is given to all classes, and taken from nobody: your targets sum to "
         f"{1 + s:g}, and each row should still sum to 1."),
        (compared((1 - s) * t + s), "every class gets the whole share: it is one share for all K together, so how much "
         "is it for each?"),
        (compared((1 - s) * t + s / 10), f"is a 10 written in? Here are {classes} classes."),
        (compared(0.9 * t + 0.1 / classes), f"is a 0.1 written in? Here `smoothing` is {s:g}."),
        (compared((1 - s) * t + s / images), "the share is divided by the number of images, not of classes."),
        (compared(smooth, scores.log_softmax(0)), "the softmax runs over the images: the probabilities of ONE image "
         "sum to 1, along dim=1."),
        (compared(smooth, p), "the logarithm is missing: cross-entropy is −Σ target · log(probability)."),
        (compared(smooth, scores), "those are raw scores; make log-probabilities of them first."),
        (compared(smooth, p.log_softmax(1)), "the softmax is taken twice: log_softmax wants the raw scores, not "
         "probabilities."),
        (compared((1 - s) * hard + s / classes), "of the shares only the largest is used, as if it were a label. Use "
         "them all."),
        (torch.inf, "{made} is not finite: softmax rounds a small probability to 0 and log(0) is −∞, or exp has "
         "overflowed. log_softmax does both in one step, safely."),
    ]  # fmt: skip
    if kind == "shares":
        mistakes.append((compared(p, smooth.log()), "target and prediction are exchanged: the logarithm is of what the "
            "network says."))  # fmt: skip
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
    shaped = f"{case} has shape {{made.shape}}; it should be one number, the mean over the images."
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
    by_epochs = "the rate changes only from epoch to epoch: the schedule goes by steps, each has its own rate."
    first = "here it is peak · (s + 1) / W, whatever the floor is."
    mistakes = [
        (curve(lambda s: peak * (s // per_epoch + 1) / warmup_epochs, time=by_epoch), by_epochs),
        (curve(lambda s: peak * (s // per_epoch) / warmup_epochs, time=by_epoch), by_epochs),
        (curve(time=by_epoch), by_epochs),
        (curve(lambda s: peak * s / warmup), "the rate of step 0 is 0, so that the first step learns nothing: it moves "
         "no weight. Step 0 is the first of W steps: it gets a W-th of the peak."),
        (curve(lambda s: peak * (s + 1) / (warmup + 1)), f"the warm-up should rise in equal parts and reach the peak "
         f"at step {warmup - 1}, its last."),
        (curve(lambda s: floor + (peak - floor) * (s + 1) / warmup), f"the warm-up climbs from the floor; {first}"),
        (curve(lambda s: floor + (peak - floor) * s / warmup), f"the warm-up begins at the floor; {first}"),
        (curve(lambda s: peak), "there is no warm-up: the first steps have the whole rate."),
        (curve(time=lambda s: s / total, rising=0), "there is no warm-up: the cosine begins at once. The rate should "
         "rise in equal parts first."),
        (curve(time=lambda s: s / total), "the cosine counts from step 0, so that it is well under way when the "
         "warm-up ends, and the rate drops at once. Count the steps since the warm-up, of those that are left."),
        (in_steps, "the warm-up takes `warmup_epochs` steps; it should take that many epochs."),
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
        (curve(fall=lambda t: peak * (1 + math.cos(math.pi * t)) / 2), "the rate falls to 0 instead of to the floor."),
        (curve(fall=lambda t: floor + peak * (1 + math.cos(math.pi * t)) / 2), "the floor is added on top of the whole "
         "peak: the cosine should lead from peak to floor."),
        (curve(fall=lambda t: max(floor, peak * (1 + math.cos(math.pi * t)) / 2)), "the curve is cut off at the floor: "
         "it should come down to it as a cosine does, gently."),
        (curve(fall=lambda t: peak - (peak - floor) * t), "that falls along a line, a good schedule too (`linear`); "
         "but here half a cosine is asked for."),
        (curve(fall=lambda t: floor + (peak - floor) * math.cos(math.pi * t)), "a cosine runs from 1 to −1, so that "
         "the rate goes below zero, where a step goes uphill: how do you make of it something from 1 to 0?"),
        (curve(fall=lambda t: floor + half * (1 - math.cos(math.pi * t))), "the cosine is upside down: it rises after "
         "the warm-up."),
        (curve() / peak, f"the largest rate is 1: is everything multiplied by `peak`, {peak:g}?"),
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
