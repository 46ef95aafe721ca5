"""Notebook 05's checks: each wrong answer that students give gets its own hint, and the right one passes."""

import math
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F

from c2f.training.recipes import Recipe
from c2f_course.figures import notebook_05 as plots
from c2f_course.tasks import notebook_05 as checks
from c2f_course.tasks.bug_hunt import SUSPECTS, guilt


def targets(labels, k, smoothing):
    return (1 - smoothing) * F.one_hot(labels, k).float() + smoothing / k


def smoothed(z, y, s, make=targets):
    return -(make(y, z.shape[1], s) * z.log_softmax(1)).sum(1).mean()


def changes_logits(z, y, s):
    z.sub_(z.max())
    return smoothed(z, y, s)


SMOOTHING = {
    "plain": (lambda z, y, s: F.cross_entropy(z, y), "still all or nothing"),
    "sign": (lambda z, y, s: -smoothed(z, y, s), "sign is turned around"),
    "sum": (lambda z, y, s: smoothed(z, y, s) * len(z), "sum over the images"),
    "mean over classes": (lambda z, y, s: smoothed(z, y, s) / z.shape[1], "mean over the classes"),
    "one an image": (lambda z, y, s: -(targets(y, 10, s) * z.log_softmax(1)).sum(1), "one loss an image"),
    "only the others": (
        lambda z, y, s: smoothed(z, y, s, lambda y, k, s: (t := F.one_hot(y, k)) * (1 - s) + (1 - t) * s / (k - 1)),
        "nine other classes",
    ),
    "not taken away": (
        lambda z, y, s: smoothed(z, y, s, lambda y, k, s: F.one_hot(y, k) + s / k),
        "sum to 1.1",
    ),
    "share each": (lambda z, y, s: smoothed(z, y, s, lambda y, k, s: F.one_hot(y, k) * (1 - s) + s), "sum to 1.9"),
    "axis": (lambda z, y, s: -(targets(y, 10, s) * z.log_softmax(0)).sum(1).mean(), "over the images of the batch"),
    "no log": (lambda z, y, s: -(targets(y, 10, s) * z.softmax(1)).sum(1).mean(), "logarithm is missing"),
    "no softmax": (lambda z, y, s: -(targets(y, 10, s) * z).sum(1).mean(), "raw scores"),
    "softmax twice": (lambda z, y, s: smoothed(z.softmax(1), y, s), "softmax twice"),
    "ten written in": (lambda z, y, s: F.cross_entropy(z, y, label_smoothing=0.1 if s else 0), "five classes"),
    "log of zero": (
        lambda z, y, s: -(targets(y, z.shape[1], s) * z.softmax(1).log()).sum(1).mean(),
        "log(0)",
    ),
    "in place": (changes_logits, "changed the logits"),
    "something else": (lambda z, y, s: torch.tensor(1.234), "does it sum to 1?"),
}


def cosine(step, steps, warmup, peak):
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def after(curve):
    """A right warm-up, and then `curve` of (steps since, steps left)."""
    return lambda step, steps, warmup, peak: (
        cosine(step, steps, warmup, peak) if step < warmup else peak * curve(step - warmup, steps - warmup)
    )


SCHEDULE = {
    "from zero": (
        lambda t, n, w, p: p * t / w if t < w else cosine(t, n, w, p),
        "the first step moves nothing",
    ),
    "late": (lambda t, n, w, p: p * (t + 1) / (w + 1) if t < w else cosine(t, n, w, p), "reach the peak at step 9"),
    "no warm-up": (lambda t, n, w, p: cosine(t, n, 0, p), "should rise in equal parts"),
    "below zero": (after(lambda t, n: math.cos(math.pi * t / n)), "goes uphill"),
    "no peak": (lambda t, n, w, p: cosine(t, n, w, 1.0), "multiplied by `peak`"),
    "counts from 0": (
        lambda t, n, w, p: cosine(t, n, w, p) if t < w else cosine(t, n, 0, p),
        "counts from step 0",
    ),
    "degrees": (after(lambda t, n: 0.5 * (1 + math.cos(math.pi * t / n / 180))), "radians"),
    "quarter": (after(lambda t, n: 0.5 * (1 + math.cos(math.pi / 2 * t / n))), "half a cosine"),
    "ends early": (after(lambda t, n: 0.5 * (1 + math.cos(math.pi * t / (n - 1)))), "still move a little"),
    "line": (after(lambda t, n: 1 - t / n), "falls along a line"),
    "squared": (after(lambda t, n: (0.5 * (1 + math.cos(math.pi * t / n))) ** 2), "where do they part"),
    "divides by zero": (
        lambda t, n, w, p: min(p * (t + 1) / w, p * 0.5 * (1 + math.cos(math.pi * max(0, t - w) / (n - w)))),
        "divides by zero",
    ),
}


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
    "no step": (step_of("rate", "empty", "backward"), "no weight moved"),
    "step first": (step_of("rate", "step", "backward"), "called after backward()"),
    "no rate": (step_of("empty", "backward", "step"), "the rate from before, 0.7"),
    "rate as attribute": (step_of("attribute", "empty", "backward", "step"), "param_groups"),
    "rate too late": (step_of("empty", "backward", "step", "rate"), "set before the step"),
    "one group": (step_of("rate", "empty", "backward", "step", last_group_only=True), "first group"),
    "softmax": (step_of("softmax", "rate", "empty", "backward", "step"), "its own softmax"),
    "two steps": (step_of("rate", "empty", "backward", "step", "step"), "one step()"),
    "a graph": (step_of("rate", "empty", "backward", "step", result="tensor"), "with its graph"),
    "loss afterwards": (step_of("rate", "empty", "backward", "step", result="after"), "second forward pass"),
    "uphill": (uphill, "went uphill"),
    "a new optimizer": (new_optimizer, "set the rate of the one that you have"),
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
    "swapped": (ema(lambda a, w, d: (1 - d) * a + d * w), "swapped"),
    "mean": (ema(lambda a, w, d: (a + w) / 2), "plain mean"),
    "grows": (ema(lambda a, w, d: a + (1 - d) * w), "keep all of the old average"),
    "new in full": (ema(lambda a, w, d: d * a + w), "count in full"),
    "copy": (ema(lambda a, w, d: w), "latest weights"),
    "rebinds": (rebinds, "has not moved"),
    "with gradients": (ema(lambda a, w, d: d * a + (1 - d) * w, decorate=torch.enable_grad), "torch.no_grad()"),
    "writes the model": (writes_the_model, "being trained has changed"),
    "another model": (another_model, "another model"),
    "only matrices": (only_matrices, "every parameter"),
    "returns a number": (lambda average, model, decay: 3, "returns a int"),
}

WRONG = [
    pytest.param(check, answer, hint, id=f"{check.number} {name}")
    for check, table in (
        (checks.smoothed_loss, SMOOTHING),
        (checks.schedule, SCHEDULE),
        (checks.one_step, STEP),
        (checks.ema_update, EMA),
    )
    for name, (answer, hint) in table.items()
]


@pytest.mark.parametrize(("check", "answer", "hint"), WRONG)
def test_each_wrong_answer_gets_its_own_hint(check, answer, hint) -> None:
    verdict = check(answer)
    assert verdict.state == "hint" and hint in verdict.message, verdict.message


RIGHT = [
    pytest.param(checks.smoothed_loss, lambda z, y, s: F.cross_entropy(z, y, label_smoothing=s), id="smoothing, torch"),
    pytest.param(checks.smoothed_loss, smoothed, id="smoothing, by hand"),
    pytest.param(checks.schedule, cosine, id="schedule"),
    pytest.param(checks.one_step, step_of("rate", "empty", "backward", "step"), id="step"),
    pytest.param(checks.one_step, step_of("empty", "backward", "rate", "step"), id="step, rate set later"),
    pytest.param(checks.one_step, step_of("rate", "backward", "step", "empty"), id="step, emptied at the end"),
    pytest.param(checks.ema_update, ema(lambda a, w, d: d * a + (1 - d) * w), id="average"),
]


@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_each_way_to_be_right_passes(check, answer) -> None:
    verdict = check(answer)
    assert verdict.passed, verdict.message


@pytest.mark.parametrize("check", [checks.smoothed_loss, checks.schedule, checks.one_step, checks.ema_update])
def test_a_gap_is_blank(check) -> None:
    assert check(lambda *given: ...).state == "blank"


TRUTH = {name: guilt(name) for name in "ABCD"}


def test_the_hunt_passes_with_the_truth_and_is_blank_without_a_name() -> None:
    assert checks.bug_hunt(TRUTH).passed
    assert checks.bug_hunt(dict.fromkeys("ABCD", ...)).state == "blank"


@pytest.mark.parametrize("suspect", SUSPECTS)
@pytest.mark.parametrize("name", "ABCD")
def test_a_wrong_suspect_is_told_its_own_sign(name: str, suspect: str) -> None:
    verdict = checks.bug_hunt({**TRUTH, name: suspect})
    if suspect == guilt(name):
        assert verdict.passed
    else:
        assert checks.SIGNS[suspect] in verdict.message and "3 of 4" in verdict.message
        assert guilt(name) not in verdict.message


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        ({"A": TRUTH["A"]}, "1 of 4 right, and all that you named"),
        ({"E": SUSPECTS[0]}, "no curve 'E'"),
        ({"A": "the optimizer"}, "not on the list"),
        (["zero_grad forgotten"], "is a list"),
    ],
    ids=["one", "no such curve", "no such suspect", "a list"],
)
def test_the_hunt_says_what_is_missing(answer, hint: str) -> None:
    assert hint in checks.bug_hunt(answer).message


def test_every_suspect_has_a_sign() -> None:
    assert set(checks.SIGNS) == set(SUSPECTS)


# The pictures: each says its numbers.

CURVES = plots.Curves([2.3, 1.0, 0.5, 0.2], [0.5, 0.9])
RESULTS = [(0.5, 0.8), (0.4, 0.9)]

PICTURES = {
    "loop": (lambda: plots.plot_loop("loss", "step"), "Marked: loss, step."),
    "first step": (
        lambda: plots.plot_first_step(torch.tensor([1e-5, 1e-3]), torch.tensor([0.01, 0.01]), 0.01),
        "100% of the weights moved by the learning rate 0.01",
    ),
    "smoothed loss": (lambda: plots.plot_smoothed_loss([0.0, 0.1]), "with 0.1 at p = 0.91, where it is 0.50"),
    "schedules": (
        lambda: plots.plot_schedules({"mine": Recipe(epochs=2, lr=0.01, warmup_epochs=1)}, 10),
        "mine begins at 0.001, is highest at step 9 with 0.01",
    ),
    "averaged": (
        lambda: plots.plot_averaged([1, 2], RESULTS, RESULTS, [(0.1, 0.1), (0.2, 0.1)]),
        "at the end 90.0% and 90.0% are right",
    ),
    "small steps": (lambda: plots.plot_small_steps({"bf16": [1.0, 1.0]}, 0.001), "end at 1 in bf16"),
    "resumed": (lambda: plots.plot_resumed([3.0, 2.0, 1.0], {"so": [2.0, 1.5]}, 1), "so it is at most 0.5 from"),
    "range test": (
        lambda: plots.plot_range_test([0.1, 1, 10, 100], [2.0, 1.0, 9.0, math.nan], 0.3),
        "at the rate 1 and then rises to",
    ),
    "hunt": (lambda: plots.plot_hunt({"A": CURVES}, CURVES), "A ends at a loss of"),
}

@pytest.mark.parametrize("name", PICTURES)
def test_each_picture_says_its_numbers(name: str) -> None:
    draw, sentence = PICTURES[name]
    assert sentence in draw().alt


def test_a_loop_of_ones_own_can_be_watched() -> None:
    live = plots.LiveLoss(4, {"floor": 0.5})
    with pytest.raises(ValueError, match="no step to plot yet"):
        live.picture()
    for loss in (2.0, 1.0):
        live.step(loss)
    live.score(0.75)
    assert "After 2 of 4 steps" in live.picture().alt and "75.0%" in live.picture().alt


def test_a_smoothed_curve_begins_where_the_curve_does_and_ends_where_it_blew_up() -> None:
    assert plots.smooth([3.0, 3.0, math.inf, 1.0]) == pytest.approx([3.0, 3.0])
