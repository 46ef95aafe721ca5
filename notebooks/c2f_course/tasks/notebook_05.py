"""The exercises of notebook 05: label smoothing, the schedule, one step, the averaged weights, the bug hunt."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f_course.tasks import training
from c2f_course.tasks.bug_hunt import SUSPECTS, guilt
from c2f_course.tasks.exercise import Blank, Expected, exercise, expect_filled, hint_if, sentences, task

SAY = sentences(__name__)

# ---- Label smoothing


def label_inputs() -> Iterator[tuple[Tensor, Tensor, float]]:
    """Logits, labels, smoothing: some of it and none, fewer classes, large logits."""
    generator = torch.Generator().manual_seed(0)
    logits, labels = 3 * torch.randn(6, 10, generator=generator), torch.randint(0, 10, (6,), generator=generator)
    yield from ((logits, labels, 0.1), (logits, labels, 0.0))
    yield from ((logits[:, :5], labels % 5, 0.2), (100 * logits, labels, 0.1))


smoothed_loss = exercise("05.1", "Label smoothing by hand", "easy", 5)(
    task(label_inputs, SAY["smoothed_loss"])(training.cross_entropy)
)

# ---- The schedule


def _ask_schedule(answer: Callable, steps: int, warmup: int, peak: float) -> Tensor:
    return training.ask_rates(answer, lambda step: (step, steps, warmup, peak), steps)


@exercise("05.2", "Warm-up and cosine", "medium", 8)
@task([(100, 10, 0.01), (20, 0, 0.01)], SAY["schedule"], ask=_ask_schedule)
def schedule(steps: int, warmup: int, peak: float) -> Expected:
    return training.rates(1, steps, warmup, peak, 0.0)


# ---- One step


@exercise("05.3", "One step of the loop", "medium", 8)
def one_step(answer: Callable[..., float]) -> str:
    def epoch(model: Any, optimizer: Any, batches: Any, _: Any, rate_of: Callable, step: int, clip: None) -> tuple:
        losses = [answer(model, optimizer, x, labels, rate_of(step + n)) for n, (x, labels) in enumerate(batches)]
        expect_filled(*losses)
        return losses[0], step

    say = SAY["one_step"]
    plan = dict(sizes=[5, 5], step=3, clip=None, optimizer="sgd", groups=2, once=False, seed=0, train=True)
    made = training.ask_epoch(epoch, plan)
    training.weights_after(made, plan, say["the weights"]).compare(made["weights"])
    hint_if(made["attached"], say["loss with its graph"])
    (x, labels), first = training.training(plan)[2][0], {**plan, "sizes": [5]}
    model, (loss,) = training.epoch_by_hand(first)
    after = {"loss after the step": F.cross_entropy(model(x), labels)}
    Expected("the loss that you return", loss, after, tolerance=1e-5, says=say).compare(made["returned"][0])
    return say["praise"]


# ---- The averaged weights


def models() -> Iterator[tuple[nn.Module, nn.Module, float]]:
    """An average, the model as it is later, the decay."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        average, model = (nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)) for _ in range(2))
    yield average, model, 0.9


def _ask_average(answer: Callable, average: nn.Module, model: nn.Module, decay: float) -> Tensor:
    """The average's numbers after an update. Hint where another model is changed, or made."""
    say, average, now = SAY["ema_update"], deepcopy(average), training.flat(model)
    result = answer(average, model, decay)
    expect_filled(result)
    hint_if(not isinstance(result, nn.Module), say["no model"].format(kind=type(result).__name__))
    hint_if(not torch.equal(training.flat(model), now), say["model changed"])
    hint_if(result is not average, say["another model"])
    hint_if(any(p.grad_fn is not None for p in result.parameters()), say["with its graph"])
    return training.flat(result)


@exercise("05.4", "Averaged weights", "medium", 5)
@task(models, SAY["ema_update"], ask=_ask_average, errors={"leaf": "gradients on"})
def ema_update(average: nn.Module, model: nn.Module, decay: float) -> Expected:
    start, now = training.flat(average), training.flat(model)
    mistakes = {
        "not moved": start,
        "latest weights": now,
        "decay swapped": (1 - decay) * start + decay * now,
        "plain mean": 0.5 * start + 0.5 * now,
        "old in full": (start + (1 - decay) * now, start + decay * now),
        "new in full": decay * start + now,
    }
    return Expected("the average", decay * start + (1 - decay) * now, mistakes)


# ---- The bug hunt


@exercise("05.5", "The bug hunt", "hard", 15)
def bug_hunt(answer: Any) -> str:
    say = SAY["bug_hunt"]
    hint_if(not isinstance(answer, dict), say["no dictionary"].format(kind=type(answer).__name__))
    named = {name: suspect for name, suspect in answer.items() if suspect is not None and suspect is not ...}
    if not named:
        raise Blank
    for name, suspect in named.items():
        hint_if(name not in tuple("ABCD"), say["no such curve"].format(name=name))
        hint_if(suspect not in SUSPECTS, say["no such suspect"].format(suspect=suspect))
    right = sum(suspect == guilt(name) for name, suspect in named.items())
    for name, suspect in named.items():
        facts = {"right": right, "name": name, "suspect": suspect, "sign": SAY["signs"][suspect]}
        hint_if(suspect != guilt(name), say["wrong"].format(**facts))
    hint_if(right < 4, say["more"].format(right=right))
    return say["praise"]
