"""The checks of notebook 05: label smoothing, the schedule, one step, the averaged weights, the bug hunt."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f_course.tasks.bug_hunt import SUSPECTS, guilt
from c2f_course.tasks.exercise import Blank, Expected, Hint, exercise, expect_filled, hint_if, task
from c2f_course.tasks.training import (
    ask_epoch,
    ask_rates,
    cross_entropy,
    epoch_by_hand,
    flat,
    rates,
    training,
    weights_after,
)

# ---- Label smoothing


def label_inputs() -> Iterator[tuple[Tensor, Tensor, float]]:
    """Logits, labels, smoothing: some of it and none, fewer classes, large logits."""
    generator = torch.Generator().manual_seed(0)
    logits, labels = 3 * torch.randn(6, 10, generator=generator), torch.randint(0, 10, (6,), generator=generator)
    yield from (
        (logits, labels, 0.1),
        (logits, labels, 0.0),
        (logits[:, :5], labels % 5, 0.2),
        (100 * logits, labels, 0.1),
    )


smoothed_loss = exercise("05.1", "Label smoothing by hand", "easy", 5)(
    task(label_inputs, "equal to CrossEntropyLoss(label_smoothing=…), for large scores too.")(cross_entropy)
)

# ---- The schedule


def _ask_schedule(answer: Callable, steps: int, warmup: int, peak: float) -> Tensor:
    return ask_rates(answer, lambda step: (step, steps, warmup, peak), steps)


@exercise("05.2", "Warm-up and cosine", "medium", 8)
@task(
    [(100, 10, 0.01), (20, 0, 0.01)],
    "the same rate at every step as Recipe.learning_rate, and a pure function of the step.",
    ask=_ask_schedule,
)
def schedule(steps: int, warmup: int, peak: float) -> Expected:
    return rates(1, steps, warmup, peak, 0.0)


# ---- One step


@exercise("05.3", "One step of the loop", "medium", 8)
def one_step(answer: Callable[..., float]) -> str:
    def epoch(
        model: nn.Module, optimizer: Any, batches: Any, loss_of: Any, rate_of: Callable, step: int, clip: None
    ) -> Any:
        losses = [answer(model, optimizer, x, labels, rate_of(step + n)) for n, (x, labels) in enumerate(batches)]
        expect_filled(*losses)
        return losses[0], step

    plan = {
        "sizes": [5, 5],
        "step": 3,
        "clip": None,
        "optimizer": "sgd",
        "groups": 2,
        "once": False,
        "seed": 0,
        "train": True,
    }
    made = ask_epoch(epoch, plan)
    weights_after(
        made,
        plan,
        "After two calls the weights did not move by lr × gradient of the cross-entropy. Does the loss get the raw "
        "logits (it has its own softmax), and is there one backward() and one step()?",
    ).compare(made["weights"])
    hint_if(made["attached"], "the weights move as they should, but you return the loss with its graph; kept in a "
        "list, it keeps every step's graph in memory too. .item() gives the bare number.")  # fmt: skip
    (x, labels), first = training(plan)[2][0], {**plan, "sizes": [5]}
    model, (loss,) = epoch_by_hand(first)
    Expected("the loss that you return", loss, [
        (F.cross_entropy(model(x), labels), "you return the loss after the step: that costs a second forward pass. "
         "Return the one at hand."),
    ], "It is the cross-entropy of the logits.", 1e-5).compare(made["returned"][0])  # fmt: skip
    return "rate, forward, empty, backward, step: each call moves by its own gradient at its own rate."


# ---- The averaged weights


@exercise("05.4", "Averaged weights", "medium", 5)
def ema_update(answer: Callable[[nn.Module, nn.Module, float], nn.Module]) -> str:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, later = (nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)) for _ in range(2))
    average, start = deepcopy(model), flat(model)
    model.load_state_dict(later.state_dict())
    now = flat(model)
    try:
        result = answer(average, model, 0.9)
    except RuntimeError as error:
        if "leaf" not in str(error):
            raise
        raise Hint(
            "a parameter that requires gradients may not be written into while torch keeps track: put @torch.no_grad() "
            "above the function, or `with torch.no_grad():` around the loop."
        ) from None
    expect_filled(result)
    if not isinstance(result, nn.Module):
        raise Hint(f"return the averaged model at the end; yours returns a {type(result).__name__}.")
    hint_if(not torch.equal(flat(model), now), "the model that is being trained has changed: only the average may be "
        "written to.")  # fmt: skip
    both = "both shares together must be 1."
    Expected("the average", 0.9 * start + 0.1 * now, [
        (start, "the average has not moved: `a = …` gives the name to a new tensor and leaves the parameter as it was. "
         "Write into it: a.copy_(…), a.mul_(…).add_(…) or a.lerp_(…)."),
        (now, "the average is now the model's latest weights: 9 of its 10 parts should be what it was before."),
        (0.1 * start + 0.9 * now, "decay and 1 − decay are swapped: with decay=0.9 the average keeps nine tenths of "
         "what it was."),
        (0.5 * start + 0.5 * now, "that is the plain mean of the two; the shares are decay and 1 − decay."),
        *((start + share * now, f"you add the new weights, but keep all of the old average: "
            f"{both}") for share in (0.1, 0.9)),
        (0.9 * start + now, f"the new weights count in full: {both}"),
    ], "Is every parameter updated, and once?").compare(flat(result))  # fmt: skip
    hint_if(result is not average, "your function made another model; the average should be updated in place, step "
        "after step.")  # fmt: skip
    hint_if(any(p.grad_fn is not None for p in result.parameters()), "the average remembers how it was computed; wrap "
        "the update in torch.no_grad().")  # fmt: skip
    return "equal to AveragedModel's own update."


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
    "learning rate 100 times too high": "the first steps would throw the weights far away: a loss of 20 and more at "
    "the beginning.",
    "learning rate 100 times too low": "the loss would fall, smoothly and much too slowly, and the accuracy would "
    "creep up all the while.",
    "optimizer made before the model was replaced": "no weight would ever change, so the held-out accuracy would be "
    "the same to the last digit each time.",
}


@exercise("05.5", "The bug hunt", "hard", 15)
def bug_hunt(answer: Any) -> str:
    if not isinstance(answer, dict):
        raise Hint(f"give a dictionary from curve to suspect; yours is a {type(answer).__name__}.")
    named = {name: suspect for name, suspect in answer.items() if suspect is not None and suspect is not ...}
    if not named:
        raise Blank
    for name, suspect in named.items():
        hint_if(name not in tuple("ABCD"), f"there is no curve {name!r}; they are A, B, C and D.")
        hint_if(suspect not in SUSPECTS, f"{suspect!r} is not on the list of suspects; copy one from it, word by word.")
    right = [name for name, suspect in named.items() if suspect == guilt(name)]
    wrong = [name for name in named if name not in right]
    count = f"{len(right)} of 4 right"
    if wrong:
        suspect = named[wrong[0]]
        raise Hint(f"{count}. Curve {wrong[0]} is not “{suspect}”: {SIGNS[suspect]} Is that what {wrong[0]} does?")
    hint_if(len(right) < 4, f"{count}, and all that you named so far. Which suspects are left for the others?")
    return "all four. Now unfold the code and find the line."
