"""The pictures of notebook 05: the loop and its parts, and the curves that tell whether it works."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import torch
from matplotlib.axes import Axes
from torch import Tensor

from c2f.picture import INK, SOFT, TEST, TRAIN, Display, Picture
from c2f_course.figures.drawing import KINDS, arrow, box, curves, finish, new_diagram, subplots


def smooth(values: Sequence[float], decay: float = 0.8) -> list[float]:
    """An exponential moving average of a curve that does not begin too low: it divides by the weight so far.

    Values that are not finite, as of a training that blew up, end it.
    """
    total, weight, averaged = 0.0, 0.0, []
    for value in takewhile(math.isfinite, values):
        total, weight = decay * total + (1 - decay) * value, decay * weight + (1 - decay)
        averaged.append(total / weight)
    return averaged


def draw_loss(ax: Axes, x: Sequence[float], losses: Sequence[float]) -> list[float]:
    """Each step's loss, and the smoothed loss, which is returned."""
    smoothed = smooth(losses)
    ax.plot(x, losses, color=TRAIN, alpha=0.3, linewidth=1, label="each step")
    ax.plot(x[: len(smoothed)], smoothed, color=TRAIN, label="smoothed")
    return smoothed


STEP_PARTS = {
    "images": (1.6, 4.9, 1.65, "images\nand labels"),
    "augment": (5.5, 4.9, 1.5, "augment"),
    "model": (9.4, 4.9, 1.2, "model"),
    "loss": (13.3, 4.9, 0.9, "loss"),
    "schedule": (5.5, 2.5, 1.6, "schedule"),
    "step": (9.4, 2.5, 0.95, "step"),
    "backward": (13.3, 2.5, 1.65, "backward"),
    "checkpoint": (5.5, 0.6, 1.9, "checkpoint"),
    "average": (13.3, 0.6, 2.8, "averaged weights"),
}
"""The parts of a training step, by name: where each is drawn, how wide, and what stands in it."""

STEP_ARROWS = (  # from, to, what goes along, and how far its name stands from the middle of the arrow
    ("images", "augment", "a batch", 0.2, 0.32),
    ("augment", "model", "x", -0.1, 0.32),
    ("model", "loss", "logits", 0, 0.32),
    ("loss", "backward", "one number", 1.1, 0),
    ("backward", "step", "gradients", -0.1, 0.32),
    ("schedule", "step", "rate", 0.2, 0.32),
    ("step", "model", "new weights", -1.2, 0),
)


def plot_loop(*here: str) -> Picture:
    """One turn of the training loop; the parts `here`, names from `STEP_PARTS`, are on a yellow ground."""
    figure, ax = new_diagram(8.2, 3.0, (0.4, 15.6), (0, 6))
    ax.set_aspect("auto")
    outside, boxes = {"average", "checkpoint"}, {}  # of the loop
    for name, (x, y, width, text) in STEP_PARTS.items():
        style = {"edge": "--" if name in outside else "-", "lit": name in here, "fontsize": 10}
        boxes[name] = box(ax, x, y, text, width, 1.0 if "\n" in text else 0.65, **style)
    said = {"ha": "center", "va": "center", "fontsize": 8.5, "color": SOFT}
    for start, end, text, dx, dy in STEP_ARROWS:
        arrow(ax, boxes[start], boxes[end], linewidth=1)
        x, y = ((STEP_PARTS[start][i] + STEP_PARTS[end][i]) / 2 for i in (0, 1))
        ax.text(x + dx, y + dy, text, **said)
    ax.plot([9.4, 9.4], [2.0, 0.6], "--", color=SOFT, linewidth=1)
    for name in outside:
        arrow(ax, (9.4, 0.6), boxes[name], SOFT, linewidth=1, linestyle="--")
    arrow(ax, boxes["augment"], boxes["loss"], path="bar,armA=0,armB=0,fraction=-0.115", linewidth=1)
    ax.text(9.4, 5.8, "targets", backgroundcolor="white", **said)
    marked = ", ".join(STEP_PARTS[name][3].replace("\n", " ") for name in here)
    return Picture(
        figure,
        "One turn of the loop: a batch of images and labels is augmented to x and targets, the model makes logits of "
        "x, the loss one number of logits and targets, backward the gradients, and the step new weights from them, at "
        "the rate that the schedule says; beside the loop, the new weights go into an average and into a checkpoint"
        + (f". Marked: {marked}." if marked else "."),
    )


def plot_first_step(gradients: Tensor, moves: Tensor, lr: float) -> Picture:
    """How far each weight moved in one step (P,), against its gradient (P,), and how far by gradient descent."""
    kept = (gradients > 0) & (moves > 0)
    gradients, moves = gradients[kept].detach().cpu(), moves[kept].detach().cpu()
    some = torch.linspace(0, len(moves) - 1, min(len(moves), 4000)).long()
    ends = torch.stack([gradients.min(), gradients.max()])
    figure, ax = subplots(6.6, 3.4)
    ax.loglog(gradients[some], moves[some], ".", color=TRAIN, markersize=2.5, label="Adam, a dot for each weight")
    ax.plot(ends, lr * ends, "--", color=TEST, label="gradient descent: rate × gradient")
    ax.axhline(lr, color=INK, linestyle=":", linewidth=1, label=f"the learning rate, {lr:g}")
    ax.set_ylim(None, lr * 10_000)
    finish(ax, "The first step", "size of the gradient", "how far the weight moves", "upper left")
    low, high = gradients.float().quantile(torch.tensor([0.01, 0.99])).tolist()
    share = ((moves / lr - 1).abs() < 0.1).float().mean()
    return Picture(
        figure,
        f"The gradients of {len(moves):,} weights lie between {low:.1g} and {high:.1g} (but for 1 % at each end), and "
        f"{share:.0%} of the weights moved by the learning rate {lr:g}, give or take a tenth; gradient descent would "
        f"have moved them by between {lr * low:.1g} and {lr * high:.1g}.",
    )


def plot_smoothed_loss(smoothings: Sequence[float], classes: int = 10) -> Picture:
    """The loss against the probability p that goes to the true class, the rest being shared evenly by the others."""
    figure, ax = subplots(7.2, 3.4)
    p = torch.linspace(0.3, 0.9999, 2000, dtype=torch.float64)
    lowest = []
    for smoothing, (colour, stroke) in zip(smoothings, KINDS, strict=False):
        true = 1 - smoothing + smoothing / classes  # the smoothed target: at p = true the loss is lowest
        x = torch.cat([p, torch.tensor([true])])
        *losses, floor = (-torch.xlogy(true, x) - torch.xlogy(1 - true, (1 - x) / (classes - 1))).tolist()
        ax.plot(p, losses, stroke, color=colour, label=f"smoothing {smoothing:g}")
        ax.plot(true, floor, "o", color=colour, markersize=7, zorder=3, clip_on=False)
        lowest.append(f"with {smoothing:g} at p = {true:.2f}, where it is {abs(floor):.2f}")
    ax.set(ylim=(0, 1.7), xlim=(0.3, 1.0))
    title = "The loss against the prediction, ● where it is lowest"
    finish(ax, title, "probability p for the true class", "cross-entropy", "lower left")
    return Picture(figure, f"For {classes} classes the loss is lowest " + "; ".join(lowest) + ".")


class LiveLoss:
    """Two curves that are redrawn in place while a loop of your own runs; the last drawing stays.

    Call `step(loss)` after every step, `score(accuracy)` after an evaluation on the test images, `done()` at the end.

    steps: how many there will be. lines: heights to mark in the plot of the loss, by name. seconds: the least time
    between two drawings.
    """

    def __init__(self, steps: int, lines: Mapping[str, float] | None = None, seconds: float = 1.0) -> None:
        self.steps, self.lines, self.seconds = steps, dict(lines or {}), seconds
        self.losses: list[float] = []
        self.scores: list[tuple[int, float]] = []
        self._display: Display | None = None
        self._next = time.monotonic() + seconds

    def step(self, loss: float) -> None:
        """Note the loss of one more step."""
        self.losses.append(loss)
        if time.monotonic() >= self._next:
            self.done()

    def score(self, accuracy: float) -> None:
        """Note the accuracy on the test images after the steps so far."""
        self.scores.append((len(self.losses), accuracy))

    def done(self) -> None:
        """Draw it all."""
        from IPython import get_ipython

        started = time.monotonic()
        if get_ipython() is not None:
            self._display = self.picture().show(updating=self._display)
        now = time.monotonic()
        self._next = max(started + self.seconds, now + 9 * (now - started))

    def picture(self) -> Picture:
        """The curves so far. Raises ValueError before the first step."""
        if not self.losses:
            raise ValueError("there is no step to plot yet; call step(loss) first.")
        figure, (left, right) = subplots(9.0, 3.2, 1, 2)
        now = draw_loss(left, range(1, len(self.losses) + 1), self.losses)[-1]
        for (name, height), stroke in zip(self.lines.items(), ("--", ":", "-."), strict=False):
            left.axhline(height, color=SOFT, linestyle=stroke, linewidth=1.2, label=name)
        left.set(xlim=(0, self.steps), ylim=(0, 1.5 * max([self.losses[0], *self.lines.values()])))
        right.set(xlim=(0, self.steps * 1.02), ylim=(0, 1.02))
        said = f"After {len(self.losses)} of {self.steps} steps the smoothed loss is {now:.2f}"
        said += f" (it began at {self.losses[0]:.2f})"
        if self.scores:
            right.plot(*zip(*self.scores, strict=True), "s--", color=TEST, markersize=4, label="test images")
            said += f" and the test accuracy is {self.scores[-1][1]:.1%}"
        finish(left, "Loss", "training step", "cross-entropy", "upper right")
        finish(right, "Accuracy", "training step", "accuracy", "lower right")
        return Picture(figure, f"{said}.")


def plot_averaged(steps: Sequence[int], latest: Sequence, averaged: Sequence, weight: Sequence) -> Picture:
    """Noisy against averaged: one weight and its average (pairs, after every step), and results on test images.

    After each of `steps`: (loss, accuracy) of the latest and of the averaged weights.
    """
    figure, (first, *axes) = subplots(9.6, 3.2, 1, 3)
    every = range(steps[-1] - len(weight) + 1, steps[-1] + 1)
    curves(first, dict(zip(("latest", "averaged"), zip(*weight, strict=True), strict=True)), every)
    ranges = []
    for name, series, mark, colour in (("latest", latest, "o-", TRAIN), ("averaged", averaged, "s--", TEST)):
        for ax, values in zip(axes, zip(*series, strict=True), strict=True):
            ax.plot(steps, values, mark, color=colour, markersize=3, linewidth=1, label=name)
        half = [loss for loss, _ in series[len(steps) // 2 :]]
        ranges.append(f"between {min(half):.2f} and {max(half):.2f}")
    finish(first, "One weight", "training step", "its value", "best")
    finish(axes[0], "Loss, test images", "training step", "cross-entropy", "best")
    finish(axes[1], "Accuracy, test images", "training step", "accuracy", "best")
    return Picture(
        figure,
        f"In the second half of steps {every[0]} to {every[-1]} the test loss of the latest weights moves "
        f"{ranges[0]}, that of the averaged ones {ranges[1]}; at the end their accuracies "
        f"are {latest[-1][1]:.1%} and {averaged[-1][1]:.1%}.",
    )


def plot_resumed(whole: Sequence[float], resumed: Mapping[str, Sequence[float]], stop: int) -> Picture:
    """The loss of each step of a training left alone, and of up to four that were resumed after `stop` steps.

    resumed: by how it was resumed, the losses of the steps from `stop` on.
    """
    apart = {name: [abs(a - b) for a, b in zip(losses, whole[stop:], strict=True)] for name, losses in resumed.items()}
    figure, (left, right) = subplots(9.0, 3.3, 1, 2)
    left.plot(whole, color=SOFT, linewidth=4, alpha=0.4, label="left alone")
    curves(left, resumed, range(stop, len(whole)), linewidth=1.4)
    curves(right, apart, range(stop, len(whole)))
    begin = max(0, stop - 25)
    for ax in (left, right):
        ax.axvline(stop, color=INK, linewidth=0.8)
        ax.set_xlim(begin, len(whole))
    left.set_ylim(0, 1.1 * max(map(max, [whole[begin:], *resumed.values()])))
    finish(left, "Loss before and after the stop (│)", "training step", "cross-entropy", "best")
    finish(right, "Distance from the training left alone", "training step", "difference of the loss", "best")
    said = (f"{name} it is at most {max(each):.2g} from the training left alone" for name, each in apart.items())
    return Picture(figure, f"Stopped after {stop} of {len(whole)} steps, the loss goes on: {'; '.join(said)}.")


def plot_range_test(rates: Sequence[float], losses: Sequence[float], chosen: float) -> Picture:
    """The loss of each step, perhaps not finite at last, against its rising rate, and the rate that was chosen."""
    figure, ax = subplots(7.6, 3.4)
    ax.set_xscale("log")
    averaged = draw_loss(ax, rates, losses)
    lowest = averaged.index(min(averaged))
    ax.plot(rates[lowest], averaged[lowest], "v", color=INK, markersize=8, label=f"lowest, at {rates[lowest]:.2g}")
    ax.axvline(chosen, color=TEST, linestyle="--", label=f"chosen: {chosen:.2g}")
    ax.set_ylim(0, 1.6 * averaged[0])
    finish(ax, "Learning-rate range test", "learning rate of the step", "cross-entropy", "lower left")
    return Picture(
        figure,
        f"While the rate rises from {rates[0]:.1g} to {rates[-1]:.1g} the smoothed loss falls from {averaged[0]:.2f} "
        f"to {averaged[lowest]:.2f} at the rate {rates[lowest]:.2g} and then rises to {max(averaged[lowest:]):.2g}; "
        f"chosen is {chosen:.2g}.",
    )


@dataclass
class Curves:
    """What a training leaves: the loss of each step, and the test accuracy, at equal distances."""

    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)


def plot_hunt(curves: Mapping[str, Curves], correct: Curves) -> Picture:
    """The loss (above) and the test accuracy (below) of each training, with the correct loop's in grey."""
    every = len(correct.losses) // len(correct.accuracies)
    figure, axes = subplots(2.4 * len(curves), 4.4, 2, len(curves), squeeze=False, sharey="row", sharex=True)
    said = []
    for (name, curve), (above, below) in zip(curves.items(), axes.T, strict=True):
        steps = range(1, len(curve.losses) + 1)
        for each, style in ((correct, {"color": SOFT, "alpha": 0.5, "linewidth": 4}), (curve, {"color": TEST})):
            losses, accuracies = smooth(each.losses)[: len(steps)], each.accuracies[: len(steps) // every]
            above.plot(steps[: len(losses)], losses, **style)
            evaluated = steps[every - 1 :: every][: len(accuracies)]
            below.plot(evaluated, accuracies, marker="." if each is curve else "", **style)
        above.axhline(math.log(10), color=INK, linestyle=":", linewidth=1)
        finish(above, f"curve {name}" if len(name) == 1 else name, ylim=(0, 4.2))
        finish(below, "", "training step", ylim=(0, 1.02))
        end = losses[-1] if losses else math.nan
        said.append(f"{name} ends at a loss of {end:.2f} and an accuracy of {curve.accuracies[-1]:.0%}")
    axes[0, 0].set_ylabel("loss")
    axes[1, 0].set_ylabel("test accuracy")
    axes[0, -1].text(1.03, math.log(10), "ln 10", va="center", fontsize=9, transform=above.get_yaxis_transform())
    axes[0, 0].legend(["correct loop", "this loop"], frameon=False, loc=(0.4, 0.2), fontsize=8.5)
    alt = f"After {len(correct.losses)} steps the correct loop is at a loss of {smooth(correct.losses)[-1]:.2f} and an"
    return Picture(figure, f"{alt} accuracy of {correct.accuracies[-1]:.0%}; {'; '.join(said)}.")
