"""The checks of notebook 05: label smoothing, the schedule, one step, the averaged weights, the bug hunt."""

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from c2f.training.recipes import Recipe
from c2f_course.tasks import (
    Blank,
    Hint,
    exercise,
    expect_close,
    expect_number,
    expect_tensor,
)
from c2f_course.tasks.bug_hunt import SUSPECTS, guilt

# ---- Label smoothing


@exercise("05.1", "Label smoothing by hand", "easy", 5)
def smoothed_loss(answer: Callable[[Tensor, Tensor, float], Tensor]) -> str:
    """Knows: no logarithm, a logarithm of zero, the wrong axis, a sum, no mean, no minus, a share that leaves out the
    true class or is counted twice, no smoothing at all."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(6, 10, generator=generator)
    labels = torch.randint(0, 10, (6,), generator=generator)
    logits_before = logits.clone()
    loss = answer(logits, labels, 0.1)
    if not torch.equal(logits, logits_before):
        raise Hint("your function changed the logits it was given; make new tensors instead of writing into those.")
    if isinstance(loss, Tensor) and tuple(loss.shape) == (6,):
        raise Hint("that is one loss an image; a training step wants one number, their mean.")
    loss = expect_number(loss, "the loss")

    right = F.cross_entropy(logits, labels, label_smoothing=0.1).item()
    true, every = F.one_hot(labels, 10).float(), torch.full((6, 10), 1 / 10)
    log_p, p = logits.log_softmax(1), logits.softmax(1)
    target = 0.9 * true + 0.1 * every
    others = 0.9 * true + (0.1 / 9) * (1 - true)

    def cross_entropy(wanted: Tensor, log_q: Tensor) -> float:
        return -(wanted * log_q).sum(1).mean().item()

    mistakes = {
        -right: "the sign is turned around: logarithms of probabilities are negative, and a loss should fall to 0.",
        6 * right: "that is the sum over the images; take their mean, or the loss depends on the batch's size.",
        right / 10: "that is a mean over the classes as well; over the classes, the products are summed.",
        cross_entropy(true, log_p): "that is the plain cross-entropy: the target is still all or nothing. Spread a "
        "share of `smoothing` over the classes before you compare.",
        cross_entropy(others, log_p): "the share went to the nine other classes. torch spreads it evenly over all "
        "ten, so the true class gets a tenth of it too.",
        cross_entropy(true + 0.1 * every, log_p): "your targets sum to 1.1: what is spread over all classes must "
        "first be taken from the true one.",
        cross_entropy(0.9 * true + 0.1, log_p): "your targets sum to 1.9: the share of 0.1 is for all classes "
        "together, so how much is it for each?",
        cross_entropy(
            target, logits.log_softmax(0)
        ): "the softmax runs over the images of the batch; the probabilities of one image are along dim=1.",
        -(target * p).sum(1).mean().item(): "the logarithm is missing: cross-entropy is −Σ target · log(probability).",
        cross_entropy(target, logits): "those are raw scores; make log-probabilities of them first.",
        cross_entropy(target, p.log_softmax(1)): "softmax twice: log_softmax wants the raw scores, not probabilities.",
    }
    _recognise(loss, right, mistakes, "the loss")
    zero = expect_number(answer(logits, labels, 0.0), "the loss without smoothing")
    expect_close(zero, F.cross_entropy(logits, labels).item(), "the loss with smoothing=0", tolerance=1e-4)
    five = answer(logits[:, :5], labels % 5, 0.2)
    expected = F.cross_entropy(logits[:, :5], labels % 5, label_smoothing=0.2).item()
    expect_close(five, expected, "the loss for five classes", tolerance=1e-4, hint="Is a 10 (or 0.1) written in?")
    sure = answer(100 * logits, labels, 0.1)
    if not torch.isfinite(torch.as_tensor(sure)).all():
        raise Hint(
            "right for ordinary scores, but not finite for large ones: softmax rounds a small probability to 0, and "
            "log(0) is −∞. log_softmax does both at once, safely."
        )
    return "equal to CrossEntropyLoss(label_smoothing=…), for large scores too."


# ---- The schedule


@exercise("05.2", "Warm-up and cosine", "medium", 8)
def schedule(answer: Callable[[int, int, int, float], float]) -> str:
    """Knows: a first step at rate 0, a cosine that forgets the warm-up, goes below zero, ends early, or is in degrees,
    a peak forgotten, and a warm-up of no steps."""
    steps, warmup, peak = 100, 10, 0.01
    rates = [expect_number(answer(step, steps, warmup, peak), f"the rate of step {step}") for step in range(steps)]
    recipe = Recipe(epochs=1, lr=peak, warmup_epochs=warmup / steps)
    right = [recipe.learning_rate(step, steps) for step in range(steps)]

    if rates[0] == 0:
        raise Hint(
            "the rate of step 0 is 0, so the first step moves nothing. Steps count from 0: after how many tenths of "
            "the warm-up should step 0 stand if step 9 is to reach the peak?"
        )
    if min(rates) < -1e-12:
        raise Hint(
            f"the rate falls to {min(rates):.3g}; below zero a step goes uphill. A cosine runs from 1 to −1: how do "
            f"you make of it something that runs from 1 to 0?"
        )
    if max(rates) > 10 * peak:
        raise Hint(f"the largest rate is {max(rates):.3g}: is everything multiplied by `peak`, {peak}?")
    if not _near(rates[:warmup], right[:warmup], peak):
        raise Hint(
            f"the warm-up should rise in equal parts and reach the peak at step {warmup - 1}, its last; yours gives "
            f"{_list(rates[:3])} … {rates[warmup - 1]:.4g}, for a peak of {peak}."
        )
    after = rates[warmup:]
    whole = [peak * 0.5 * (1 + math.cos(math.pi * step / steps)) for step in range(warmup, steps)]
    if _near(after, whole, peak):
        raise Hint(
            f"the cosine counts from step 0, so the rate drops at once from {peak} to {after[0]:.4g} when the warm-up "
            f"ends. Count the steps since the warm-up, of those that are left."
        )
    if after[-1] > 0.9 * peak:
        raise Hint("the rate hardly falls after the warm-up. Python's cosine wants radians: half a turn is π, not 180.")
    if after[-1] > 0.3 * peak or (max(after) - min(after) < 0.6 * peak):
        raise Hint(f"the rate ends at {after[-1]:.4g}; half a cosine (from 0 to π) would bring it down near 0.")
    if abs(after[-1]) < 1e-12 or after[len(after) * 9 // 10] > after[len(after) // 2]:
        raise Hint(
            f"the rate of step {steps - 1} is {after[-1]:.3g}: the last step should still move a little, as step "
            f"{steps} would be the first at 0."
        )
    straight = [peak * (1 - i / len(after)) for i in range(len(after))]
    if _near(after, straight, peak):
        raise Hint("that falls along a line; a good schedule too (`linear`), but here half a cosine is asked for.")
    if not _near(after, right[warmup:], peak):
        place = max(range(len(after)), key=lambda i: abs(after[i] - right[warmup + i]))
        raise Hint(
            f"the warm-up is right; after it, step {warmup + place} gets {after[place]:.4g}. Draw yours beside the "
            f"recipe's: where do they part?"
        )
    try:
        at_once = expect_number(answer(0, steps, 0, peak), "the rate without warm-up")
    except ZeroDivisionError:
        raise Hint(
            "with a warm-up of 0 steps your function divides by zero; ask for the warm-up only inside it."
        ) from None
    expect_close(at_once, peak, "step 0 without a warm-up", hint="It should begin at the peak.")
    return "the same rate at every step as Recipe.learning_rate, and a pure function of the step."


def _near(values: list[float], others: list[float], scale: float) -> bool:
    return max(abs(a - b) for a, b in zip(values, others, strict=True)) <= 1e-6 * scale


def _list(values: list[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


# ---- One step


@exercise("05.3", "One step of the loop", "medium", 8)
def one_step(answer: Callable[..., float]) -> str:
    """Knows: gradients that add up, are emptied too late, or used a step late, no step, a rate that is not set, set
    for one group only, set after the step, or given to a new optimizer, a loss measured after it, a tensor that
    keeps its graph."""
    model, optimizer, batches = _small_training()
    (x, targets), (x2, targets2) = batches
    first = _gradients(model, x, targets)
    before = [p.detach().clone() for p in model.parameters()]
    loss_before = F.cross_entropy(model(x), targets).item()

    loss = answer(model, optimizer, x, targets, 0.1)
    after = [p.detach().clone() for p in model.parameters()]
    loss_after = F.cross_entropy(model(x), targets).item()
    _explain_no_movement(model, before, after)
    moved = [old - new for old, new in zip(before, after, strict=True)]
    _explain_rate(moved, first, "the first call")
    if any(group["lr"] != 0.1 for group in optimizer.param_groups):
        raise Hint(
            "the weights moved as they should, but the optimizer that you were given still has its old rate. A new one "
            "at every step would have forgotten Adam's running means: set the rate of the one that you have."
        )

    if isinstance(loss, Tensor) and loss.requires_grad:
        raise Hint(
            "the weights move as they should, but you return the loss with its graph; kept in a list, it keeps "
            "every step's graph in memory too. .item() gives the bare number."
        )
    number = expect_number(loss, "the loss that you return")
    if abs(number - loss_before) > 1e-5 and abs(number - loss_after) <= 1e-5:
        raise Hint("you return the loss after the step: that costs a second forward pass. Return the one at hand.")
    expect_close(number, loss_before, "the loss that you return", hint="It is the cross-entropy of the logits.")

    second = _gradients(model, x2, targets2)
    answer(model, optimizer, x2, targets2, 0.05)
    again = [old - p.detach() for old, p in zip(after, model.parameters(), strict=True)]
    both = [a + b for a, b in zip(first, second, strict=True)]
    if _all_close(again, [0.05 * g for g in both]) or _all_close(again, [0.1 * g for g in both]):
        raise Hint(
            "the first call is right; in the second one the first one's gradient is still there: backward() adds to "
            "what .grad holds. Empty it before."
        )
    if _all_close(again, [0.05 * g for g in first]):
        raise Hint("the second call moved by the first one's gradient: the step comes before its backward().")
    _explain_rate(again, second, "the second call", rate=0.05, old_rate=0.1)
    return "rate, forward, empty, backward, step: each call moves by its own gradient at its own rate."


Gradients = list[Tensor]


def _small_training() -> tuple[nn.Module, torch.optim.Optimizer, list[tuple[Tensor, Tensor]]]:
    """A model of two layers, plain SGD in two groups at a rate that is to be replaced, and two batches."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.GELU(), nn.Linear(8, 4))
        batches = [(torch.randn(5, 3, 2, 2), torch.randint(0, 4, (5,))) for _ in range(2)]
    groups = [{"params": model[1].parameters()}, {"params": model[3].parameters()}]
    return model, torch.optim.SGD(groups, lr=0.7), batches


def _gradients(model: nn.Module, x: Tensor, targets: Tensor) -> Gradients:
    return list(torch.autograd.grad(F.cross_entropy(model(x), targets), list(model.parameters())))


def _all_close(values: Gradients, others: Gradients) -> bool:
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-6) for a, b in zip(values, others, strict=True))


def _explain_no_movement(model: nn.Module, before: Gradients, after: Gradients) -> None:
    if any(not torch.equal(old, new) for old, new in zip(before, after, strict=True)):
        return
    gradients = [p.grad for p in model.parameters()]
    if all(g is None or not g.any() for g in gradients):
        raise Hint(
            "no weight moved, and no gradient is left: either backward() was never called, or the gradients were "
            "emptied between backward() and step()."
        )
    raise Hint("the gradients are there, but no weight moved: is optimizer.step() called, and called after backward()?")


def _explain_rate(moved: Gradients, gradients: Gradients, where: str, rate: float = 0.1, old_rate: float = 0.7) -> None:
    """Hint unless every weight moved by rate × gradient."""
    if _all_close(moved, [rate * g for g in gradients]):
        return
    if _all_close(moved, [-rate * g for g in gradients]):
        raise Hint("the weights went uphill: a step goes against the gradient. optimizer.step() knows that by itself.")
    if _all_close(moved, [old_rate * g for g in gradients]):
        raise Hint(
            f"in {where} the weights moved at the rate from before, {old_rate}, not at lr={rate}. The rate that counts "
            f'is each group\'s: group["lr"] in optimizer.param_groups, set before the step.'
        )
    part = len(gradients) // 2
    if _all_close(moved[:part], [rate * g for g in gradients[:part]]):
        raise Hint("only the first group of weights moved at the new rate: optimizer.param_groups may hold several.")
    raise Hint(
        f"in {where} the weights did not move by lr × gradient of the cross-entropy. Does the loss get the raw logits "
        f"(it has its own softmax), and is there one backward() and one step()?"
    )


# ---- The averaged weights


@exercise("05.4", "Averaged weights", "medium", 5)
def ema_update(answer: Callable[[nn.Module, nn.Module, float], nn.Module]) -> str:
    """Knows: decay and its rest swapped, a plain mean, a sum that grows, a copy, nothing moved for want of in-place,
    the model changed instead."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2))
        later = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2))
    average, start = deepcopy(model), _flat(model)
    model.load_state_dict(later.state_dict())
    now = _flat(model)

    try:
        result = answer(average, model, 0.9)
    except RuntimeError as error:
        if "leaf" not in str(error):
            raise
        raise Hint(
            "a parameter that requires gradients may not be written into while torch keeps track: put "
            "@torch.no_grad() above the function, or `with torch.no_grad():` around the loop."
        ) from None
    if not isinstance(result, nn.Module):
        raise Hint(f"return the averaged model at the end; yours returns a {type(result).__name__}.")
    if not torch.equal(_flat(model), now):
        raise Hint("the model that is being trained has changed: only the average may be written to.")
    value = _flat(result)
    expect_tensor(value, tuple(start.shape), "all averaged weights together")

    def close(other: Tensor) -> bool:
        return torch.allclose(value, other, rtol=1e-5, atol=1e-7)

    if torch.equal(value, start):
        raise Hint(
            "the average has not moved: `a = …` gives the name to a new tensor and leaves the parameter as it was. "
            "Write into it: a.copy_(…), a.mul_(…).add_(…) or a.lerp_(…)."
        )
    if close(now):
        raise Hint("the average is now the model's latest weights: 9 of its 10 parts should be what it was before.")
    if close(0.1 * start + 0.9 * now):
        raise Hint("decay and 1 − decay are swapped: with decay=0.9 the average keeps nine tenths of what it was.")
    if close(0.5 * start + 0.5 * now):
        raise Hint("that is the plain mean of the two; the shares are decay and 1 − decay.")
    if close(start + 0.1 * now) or close(start + 0.9 * now):
        raise Hint("you add the new weights, but keep all of the old average: both shares together must be 1.")
    if close(0.9 * start + now):
        raise Hint("the new weights count in full: both shares together must be 1.")
    if result is not average:
        raise Hint("your function made another model; the average should be updated in place, step after step.")

    reference = AveragedModel(later, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    reference.module.load_state_dict(_weights(model, start))
    reference.n_averaged += 1
    reference.update_parameters(model)
    expect_close(value, _flat(reference.module), "the average", hint="Is every parameter updated, and once?")
    if any(p.grad_fn is not None for p in result.parameters()):
        raise Hint("the average remembers how it was computed; wrap the update in torch.no_grad().")
    return "equal to AveragedModel's own update."


@torch.no_grad()
def _flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def _weights(model: nn.Module, flat: Tensor) -> dict[str, Tensor]:
    parts = flat.split([p.numel() for p in model.parameters()])
    return {name: part.view_as(p) for (name, p), part in zip(model.named_parameters(), parts, strict=True)}


# ---- The bug hunt

SIGNS = {
    "zero_grad forgotten": "old gradients would add up without end, so the steps would keep going where they once "
    "went: a loss that wanders about, also far above ln 10, and does not settle.",
    "labels shuffled apart from the images": "there would be nothing to learn: the best answer is one tenth for each "
    "digit, so the loss would settle quietly at ln 10 = 2.30.",
    "softmax before cross-entropy": "the loss would see probabilities from 0 to 1 as if they were scores. Put a "
    "perfect answer in: the score 1 against nine zeros gives ln(e + 9) − 1 = 1.46, and it can get no lower.",
    "held-out images not normalised": "the training itself would be sound, so its loss would be that of the sound "
    "loop, step by step; only the held-out images would seem hard.",
    "learning rate 100 times too high": "the first steps would throw the weights far away: a loss of 20 and more "
    "at the beginning.",
    "learning rate 100 times too low": "the loss would fall, smoothly and much too slowly, and the accuracy would "
    "creep up all the while.",
    "optimizer made before the model was replaced": "no weight would ever change, so the held-out accuracy would be "
    "the same to the last digit each time.",
}


@exercise("05.5", "The bug hunt", "hard", 15)
def bug_hunt(answer: Any) -> str:
    """Knows each suspect's sign, and says it where a curve is blamed on the wrong one."""
    if not isinstance(answer, dict):
        raise Hint(f"give a dictionary from curve to suspect; yours is a {type(answer).__name__}.")
    named = {name: suspect for name, suspect in answer.items() if suspect is not None and suspect is not ...}
    if not named:
        raise Blank
    for name, suspect in named.items():
        if name not in tuple("ABCD"):
            raise Hint(f"there is no curve {name!r}; they are A, B, C and D.")
        if suspect not in SUSPECTS:
            raise Hint(f"{suspect!r} is not on the list of suspects; copy one from it, word by word.")
    right = [name for name, suspect in named.items() if suspect == guilt(name)]
    wrong = [name for name in named if name not in right]
    count = f"{len(right)} of 4 right"
    if wrong:
        suspect = named[wrong[0]]
        raise Hint(f"{count}. Curve {wrong[0]} is not “{suspect}”: {SIGNS[suspect]} Is that what {wrong[0]} does?")
    if len(right) < 4:
        raise Hint(f"{count}, and all that you named so far. Which suspects are left for the others?")
    return "all four. Now unfold the code and find the line."


# ---- Helpers


def _recognise(value: float, right: float, mistakes: dict[float, str], what: str) -> None:
    """Hint unless `value` is `right`: with the mistake whose result it is, if it is one of them."""
    if math.isclose(value, right, rel_tol=1e-5):
        return
    for result, hint in mistakes.items():
        if math.isclose(value, result, rel_tol=1e-5):
            raise Hint(hint)
    raise Hint(
        f"{what} is {value:.4f}, and that is not it. Build the targets first, look at one row: does it sum to 1?"
    )
