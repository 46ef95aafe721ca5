"""The pictures of notebook 05: the loop and its parts, and the curves that tell whether it works.

Each function gives a `Picture`, made without pyplot, and raises ValueError where what it is given cannot be drawn.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from c2f.maps.picture import HERE, INK, PURPLE, SOFT, TEST, TRAIN, WINDOW, Display, Picture, new_figure
from c2f.training.recipes import Recipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = ((TRAIN, "-"), (TEST, "--"), (WINDOW, "-."), (PURPLE, ":"))  # colour and stroke: told apart in grey as well


def smooth(values: Sequence[float], decay: float = 0.8) -> list[float]:
    """An exponential moving average of a curve that does not begin too low: it divides by the weight so far.

    Values that are not finite, as of a training that blew up, end it.
    """
    total, weight, averaged = 0.0, 0.0, []
    for value in values:
        if not math.isfinite(value):
            break
        total, weight = decay * total + (1 - decay) * value, decay * weight + (1 - decay)
        averaged.append(total / weight)
    return averaged


# ---- The loop, drawn

STEP_PARTS = {
    "images": (1.6, 4.9, "images\nand labels"),
    "augment": (5.5, 4.9, "augment"),
    "model": (9.4, 4.9, "model"),
    "loss": (13.3, 4.9, "loss"),
    "schedule": (5.5, 2.5, "schedule"),
    "step": (9.4, 2.5, "step"),
    "backward": (13.3, 2.5, "backward"),
    "checkpoint": (5.5, 0.6, "checkpoint"),
    "average": (13.3, 0.6, "averaged weights"),
}
"""The parts of a training step, by name: where each is drawn, and what stands in it."""

STEP_ARROWS = (  # from, to, what goes along, and how far its name stands from the middle of the arrow
    ((2.9, 4.9), (4.5, 4.9), "a batch", 0, 0.32),
    ((6.5, 4.9), (8.6, 4.9), "x", 0, 0.32),
    ((10.2, 4.9), (12.6, 4.9), "logits", 0, 0.32),
    ((13.3, 4.4), (13.3, 3.0), "one number", 1.1, 0),
    ((12.3, 2.5), (10.1, 2.5), "gradients", 0, 0.32),
    ((6.6, 2.5), (8.7, 2.5), "rate", 0, 0.32),
    ((9.4, 3.0), (9.4, 4.4), "new weights", -1.2, 0),
)


def plot_loop(*here: str) -> Picture:
    """One turn of the training loop, with the parts that are the subject on a yellow ground.

    Args:
        here: names from `STEP_PARTS`.

    Raises ValueError for a part that is not there.
    """
    if unknown := [name for name in here if name not in STEP_PARTS]:
        raise ValueError(f"there is no part {unknown[0]!r} in the loop; use some of {', '.join(STEP_PARTS)}.")
    figure = new_figure(8.2, 3.0)
    ax = figure.subplots()
    ax.set(xlim=(0.4, 15.6), ylim=(0, 6))
    ax.axis("off")
    for name, (x, y, text) in STEP_PARTS.items():
        box = {"boxstyle": "round,pad=0.5", "facecolor": HERE if name in here else "white", "edgecolor": INK}
        if name in ("average", "checkpoint"):  # beside the loop, not in it
            box |= {"linestyle": "--", "edgecolor": SOFT}
        ax.text(x, y, text, ha="center", va="center", fontsize=10, bbox=box, zorder=3)
    solid = {"arrowstyle": "-|>", "color": INK, "shrinkA": 0, "shrinkB": 0}
    for start, end, said, dx, dy in STEP_ARROWS:
        ax.annotate("", end, start, arrowprops=solid)
        middle = ((start[0] + end[0]) / 2 + dx, (start[1] + end[1]) / 2 + dy)
        ax.text(*middle, said, ha="center", va="center", fontsize=8.5, color=SOFT)
    ax.plot([9.4, 9.4], [2.0, 0.6], "--", color=SOFT, linewidth=1)
    for end in ((6.55, 0.6), (11.75, 0.6)):
        ax.annotate("", end, (9.4, 0.6), arrowprops=solid | {"color": SOFT, "linestyle": "--"})
    ax.plot([5.5, 5.5, 13.3, 13.3], [5.4, 5.8, 5.8, 5.6], color=INK, linewidth=1)
    ax.annotate("", (13.3, 5.4), (13.3, 5.8), arrowprops=solid)
    ax.text(9.4, 5.8, "targets", ha="center", va="center", fontsize=8.5, color=SOFT, backgroundcolor="white")
    marked = ", ".join(STEP_PARTS[name][2].replace("\n", " ") for name in here)
    return Picture(
        figure,
        "One turn of the loop: a batch of images and labels is augmented to x and targets, the model makes logits of "
        "x, the loss one number of logits and targets, backward the gradients, and the step new weights from them, at "
        "the rate that the schedule says; beside the loop, the new weights go into an average and into a checkpoint"
        + (f". Marked: {marked}." if marked else "."),
    )


def plot_first_step(gradients: Tensor, moves: Tensor, lr: float) -> Picture:
    """How far each weight moved in one step, against its gradient, beside what gradient descent would have done.

    Args:
        gradients, moves: (P,) sizes of each weight's gradient and of its change.
        lr: the step's learning rate.
    """
    if gradients.shape != moves.shape or not len(gradients):
        raise ValueError(f"there are {gradients.numel()} gradients and {moves.numel()} moves; give one each a weight.")
    kept = (gradients > 0) & (moves > 0)
    gradients, moves = gradients[kept].detach().cpu(), moves[kept].detach().cpu()
    some = torch.linspace(0, len(moves) - 1, min(len(moves), 4000)).long()
    figure = new_figure(6.6, 3.4)
    ax = figure.subplots()
    ax.loglog(gradients[some], moves[some], ".", color=TRAIN, markersize=2.5, label="Adam, a dot for each weight")
    ends = [gradients.min().item(), gradients.max().item()]
    ax.plot(ends, [lr * end for end in ends], "--", color=TEST, label="gradient descent: rate × gradient")
    ax.axhline(lr, color=INK, linestyle=":", linewidth=1, label=f"the learning rate, {lr:g}")
    ax.set_ylim(None, lr * 10_000)
    _finish(ax, "The first step", "size of the gradient", "how far the weight moves", corner="upper left")
    low, high = gradients.float().quantile(torch.tensor([0.01, 0.99])).tolist()
    share = ((moves / lr - 1).abs() < 0.1).float().mean().item()
    return Picture(
        figure,
        f"The gradients of {len(moves):,} weights lie between {low:.1g} and {high:.1g} (but for 1 % at each end), and "
        f"{share:.0%} of the weights moved by the learning rate {lr:g}, give or take a tenth; gradient descent would "
        f"have moved them by between {lr * low:.1g} and {lr * high:.1g}.",
    )


# ---- Loss and schedule


def plot_smoothed_loss(smoothings: Sequence[float], classes: int = 10) -> Picture:
    """The loss against the probability p that goes to the true class, the rest being shared evenly by the others."""
    if not smoothings or not all(0 <= s < 1 for s in smoothings):
        raise ValueError(f"the smoothings are {list(smoothings)}; give at least one, each from 0 to below 1.")
    figure = new_figure(7.2, 3.4)
    ax = figure.subplots()
    p = torch.linspace(0.3, 0.9999, 2000, dtype=torch.float64)
    lowest = []
    for smoothing, (colour, stroke) in zip(smoothings, KINDS, strict=False):
        true = 1 - smoothing + smoothing / classes
        loss = -true * p.log() - (1 - true) * ((1 - p) / (classes - 1)).log()
        ax.plot(p, loss, stroke, color=colour, label=f"smoothing {smoothing:g}")
        floor = _entropy(true, classes)
        ax.plot(true, floor, "o", color=colour, markersize=7, zorder=3, clip_on=False)
        lowest.append(f"with {smoothing:g} at p = {true:.2f}, where it is {floor:.2f}")
    ax.set(ylim=(0, 1.7), xlim=(0.3, 1.0))
    _finish(
        ax,
        "The loss against the answer, ● where it is lowest",
        "probability p for the true class",
        "cross-entropy",
        corner="lower left",
    )
    return Picture(figure, f"For {classes} classes the loss is lowest " + "; ".join(lowest) + ".")


def _entropy(true: float, classes: int) -> float:
    """The cross-entropy of a smoothed target with itself: the lowest that the loss can get."""
    rest = (1 - true) / (classes - 1)
    return -true * math.log(true) - (classes - 1) * rest * math.log(rest) if rest > 0 else 0.0


def plot_schedules(recipes: Mapping[str, Recipe], steps_per_epoch: int) -> Picture:
    """The learning rate of every step of each recipe, before a single one is taken. At most four recipes."""
    if not 1 <= len(recipes) <= len(KINDS):
        raise ValueError(f"there are {len(recipes)} recipes; give one to {len(KINDS)}.")
    figure = new_figure(7.2, 3.2)
    ax = figure.subplots()
    said = []
    for (name, recipe), (colour, stroke) in zip(recipes.items(), KINDS, strict=False):
        rates = [recipe.learning_rate(step, steps_per_epoch) for step in range(recipe.epochs * steps_per_epoch)]
        ax.plot(rates, stroke, color=colour, label=name)
        top = max(range(len(rates)), key=rates.__getitem__)
        said.append(f"{name} begins at {rates[0]:.2g}, is highest at step {top} with {rates[top]:.2g}")
        said[-1] += f" and ends at {rates[-1]:.2g}"
    ax.set_ylim(0, 1.4 * max(recipe.lr for recipe in recipes.values()))  # room for the names
    _finish(ax, "The schedule, drawn before it is used", "training step", "learning rate", corner="")
    ax.legend(frameon=False, loc="upper right", ncols=2, fontsize=9)
    return Picture(figure, f"Over {len(rates)} steps: " + "; ".join(said) + ".")


# ---- Watching


class LiveLoss:
    """Two curves that are redrawn in place while a loop of your own runs; the last drawing stays.

    Call `step(loss)` after every step, `score(accuracy)` when the held-out images were asked, `done()` at the end.

    Args:
        steps: how many there will be.
        lines: heights to mark in the plot of the loss, with their names.
        seconds: the least time between two drawings.
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
            self._draw()

    def score(self, accuracy: float) -> None:
        """Note the share of held-out images that is right after the steps so far."""
        self.scores.append((len(self.losses), accuracy))

    def done(self) -> None:
        """Draw it all."""
        self._draw()

    def picture(self) -> Picture:
        """The curves so far. Raises ValueError before the first step."""
        if not self.losses:
            raise ValueError("there is no step to plot yet; call step(loss) first.")
        figure = new_figure(9.0, 3.2)
        left, right = figure.subplots(1, 2)
        steps = range(1, len(self.losses) + 1)
        left.plot(steps, self.losses, color=TRAIN, alpha=0.3, linewidth=1, label="each step")
        left.plot(steps, smooth(self.losses), color=TRAIN, label="smoothed")
        for (name, height), stroke in zip(self.lines.items(), ("--", ":", "-."), strict=False):
            left.axhline(height, color=SOFT, linestyle=stroke, linewidth=1.2, label=name)
        if self.scores:
            right.plot(*zip(*self.scores, strict=True), "s--", color=TEST, markersize=4, label="held-out images")
        left.set(xlim=(0, self.steps), ylim=(0, 1.5 * max([self.losses[0], *self.lines.values()])))
        right.set(xlim=(0, self.steps * 1.02), ylim=(0, 1.02))
        _finish(left, "Loss", "training step", "cross-entropy")
        _finish(right, "Accuracy", "training step", "share that is right", corner="lower right")
        said = f"After {len(self.losses)} of {self.steps} steps the smoothed loss is {smooth(self.losses)[-1]:.2f}"
        said += f" (it began at {self.losses[0]:.2f})"
        said += f" and {self.scores[-1][1]:.1%} of the held-out images are right" if self.scores else ""
        return Picture(figure, f"{said}.")

    def _draw(self) -> None:
        from IPython import get_ipython

        started = time.monotonic()
        if get_ipython() is not None:
            self._display = self.picture().show(updating=self._display)
        now = time.monotonic()
        self._next = max(started + self.seconds, now + 9 * (now - started))


# ---- Averaged weights, precision, resuming


def plot_averaged(
    steps: Sequence[int],
    latest: Sequence[tuple[float, float]],
    averaged: Sequence[tuple[float, float]],
    weight: Sequence[tuple[float, float]],
) -> Picture:
    """Noisy against averaged: one weight after every step, and loss and accuracy on held-out images.

    Args:
        steps: after which steps the held-out images were asked, (E,).
        latest, averaged: (loss, accuracy) of the latest and of the averaged weights, (E,).
        weight: one weight and its average, after every step.
    """
    if not len(steps) == len(latest) == len(averaged) or not steps:
        raise ValueError(f"there are {len(steps)} steps, {len(latest)} and {len(averaged)} results; give as many each.")
    figure = new_figure(9.6, 3.2)
    axes = figure.subplots(1, 3)
    every = range(steps[-1] - len(weight) + 1, steps[-1] + 1)
    axes[0].plot(every, [w for w, _ in weight], color=TRAIN, linewidth=1, label="latest")
    axes[0].plot(every, [a for _, a in weight], "--", color=TEST, linewidth=2, label="averaged")
    _finish(axes[0], "One weight", "training step", "its value", corner="best")
    for ax, i, title, y in ((axes[1], 0, "Loss", "cross-entropy"), (axes[2], 1, "Accuracy", "share that is right")):
        ax.plot(steps, [pair[i] for pair in latest], "o-", color=TRAIN, markersize=3, linewidth=1, label="latest")
        ax.plot(steps, [pair[i] for pair in averaged], "s--", color=TEST, markersize=3, label="averaged")
        _finish(ax, f"{title}, held-out images", "training step", y, corner="best")
    half = len(steps) // 2
    spread = [_spread([pair[0] for pair in series[half:]]) for series in (latest, averaged)]
    return Picture(
        figure,
        f"In the second half of steps {every[0]} to {every[-1]} the held-out loss of the latest weights moves between "
        f"{spread[0][0]:.2f} and {spread[0][1]:.2f}, that of the averaged ones between {spread[1][0]:.2f} and "
        f"{spread[1][1]:.2f}; at the end {latest[-1][1]:.1%} and {averaged[-1][1]:.1%} are right.",
    )


def _spread(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def plot_small_steps(sums: Mapping[str, Sequence[float]], addend: float) -> Picture:
    """A number that grows by the same small addend again and again, in several precisions, and the gaps behind it.

    Args:
        sums: by the precision's name, the sum after every addition; at most four.
        addend: what was added each time.
    """
    if not 1 <= len(sums) <= len(KINDS):
        raise ValueError(f"there are {len(sums)} sums; give one to {len(KINDS)}.")
    figure = new_figure(9.0, 3.2)
    left, right = figure.subplots(1, 2)
    for (name, values), (colour, stroke) in zip(sums.items(), KINDS, strict=False):
        left.plot(values, stroke, color=colour, linewidth=2, label=name)
    _finish(left, f"Add {addend:g} again and again", "additions", "the sum", corner="upper left")
    sizes = torch.logspace(-4, 3, 400, dtype=torch.float64)
    for (name, bits), (colour, stroke) in zip({"float32": 23, "bf16": 7}.items(), KINDS, strict=False):
        right.loglog(sizes, 2.0 ** (sizes.log2().floor() - bits), stroke, color=colour, label=name)
    right.axhline(addend, color=SOFT, linestyle=":", label=f"{addend:g}")
    _finish(right, "From one number to the next one", "size of the number", "distance to its neighbour", corner="best")
    ends = " and ".join(f"{values[-1]:.4g} in {name}" for name, values in sums.items())
    count = len(next(iter(sums.values()))) - 1
    return Picture(
        figure,
        f"{count} additions of {addend:g} end at {ends}; next to 1 the numbers of float32 are {2.0**-23:.1g} apart "
        f"and those of bf16 {2.0**-7:.1g}, and the gaps double with every doubling of the number.",
    )


def plot_resumed(whole: Sequence[float], resumed: Mapping[str, Sequence[float]], stop: int) -> Picture:
    """The loss of a training that was left alone, and of some that were resumed after `stop` steps.

    Args:
        whole: the loss of each step.
        resumed: by how it was resumed, the losses of the steps from `stop` on; at most three.
        stop: after how many steps it was stopped.
    """
    if not 0 < stop < len(whole) or any(len(losses) != len(whole) - stop for losses in resumed.values()):
        raise ValueError(f"stop is {stop} of {len(whole)} steps, and each resumed curve must have the steps after it.")
    figure = new_figure(9.0, 3.3)
    left, right = figure.subplots(1, 2)
    left.plot(whole, color=SOFT, linewidth=4, alpha=0.4, label="left alone")
    said = []
    for (name, losses), (colour, stroke) in zip(resumed.items(), KINDS, strict=False):
        steps = range(stop, len(whole))
        left.plot(steps, losses, stroke, color=colour, linewidth=1.4, label=name)
        apart = [abs(a - b) for a, b in zip(losses, whole[stop:], strict=True)]
        right.plot(steps, apart, stroke, color=colour, label=name)
        said.append(f"{name} it is at most {max(apart):.2g} from the training left alone")
    for ax in (left, right):
        ax.axvline(stop, color=INK, linewidth=0.8)
        ax.set_xlim(max(0, stop - 25), len(whole))
    top = max(max(losses) for losses in [*resumed.values(), whole[max(0, stop - 25) :]])
    left.set_ylim(0, 1.1 * top)
    _finish(left, "Loss before and after the stop (│)", "training step", "cross-entropy", corner="best")
    _finish(right, "Distance from the training left alone", "training step", "difference of the loss", corner="best")
    return Picture(figure, f"Stopped after {stop} of {len(whole)} steps, the loss goes on: " + "; ".join(said) + ".")


# ---- Range test and bug hunt


def plot_range_test(rates: Sequence[float], losses: Sequence[float], chosen: float) -> Picture:
    """The loss against the learning rate that rises from step to step, and a rate that was chosen.

    Args:
        rates, losses: of each step; the losses may end in numbers that are not finite.
        chosen: drawn as a line.
    """
    if len(rates) != len(losses) or len(rates) < 3:
        raise ValueError(
            f"there are {len(rates)} rates and {len(losses)} losses; give one of each a step, three steps or more."
        )
    averaged = smooth(losses)
    lowest = min(range(len(averaged)), key=averaged.__getitem__)
    figure = new_figure(7.6, 3.4)
    ax = figure.subplots()
    ax.semilogx(rates, losses, color=TRAIN, alpha=0.3, linewidth=1, label="each step")
    ax.semilogx(rates[: len(averaged)], averaged, color=TRAIN, label="smoothed")
    ax.plot(rates[lowest], averaged[lowest], "v", color=INK, markersize=8, label=f"lowest, at {rates[lowest]:.2g}")
    ax.axvline(chosen, color=TEST, linestyle="--", label=f"chosen: {chosen:.2g}")
    ax.set_ylim(0, 1.6 * averaged[0])
    _finish(ax, "Learning-rate range test", "learning rate of the step", "cross-entropy", corner="lower left")
    after = max(averaged[lowest:])
    return Picture(
        figure,
        f"While the rate rises from {rates[0]:.1g} to {rates[-1]:.1g} the smoothed loss falls from {averaged[0]:.2f} "
        f"to {averaged[lowest]:.2f} at the rate {rates[lowest]:.2g} and then rises to {after:.2g}; chosen is "
        f"{chosen:.2g}.",
    )


@dataclass
class Curves:
    """What a training leaves: the loss of each step, and the share of held-out images right, at equal distances."""

    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)


def plot_hunt(curves: Mapping[str, Curves], sound: Curves) -> Picture:
    """The loss (above) and the held-out accuracy (below) of each training, beside the sound one's in grey."""
    if not curves or not sound.accuracies:
        raise ValueError("there is no curve to draw; give one or more by name, and a sound one that was evaluated.")
    every = len(sound.losses) // len(sound.accuracies)
    figure = new_figure(2.4 * len(curves), 4.4)
    axes = figure.subplots(2, len(curves), squeeze=False, sharey="row", sharex=True)
    said = []
    for (name, curve), (above, below) in zip(curves.items(), axes.T, strict=True):
        for ax, theirs, ours, steps in (
            (above, smooth(sound.losses), smooth(curve.losses), range(1, len(curve.losses) + 1)),
            (below, sound.accuracies, curve.accuracies, range(every, len(curve.losses) + 1, every)),
        ):
            mark = "." if ax is below else ""
            ax.plot(steps, theirs[: len(steps)], color=SOFT, alpha=0.5, linewidth=4, label="sound")
            ax.plot(list(steps)[: len(ours)], ours, color=TEST, marker=mark, markersize=5, label=name)
        above.axhline(math.log(10), color=INK, linestyle=":", linewidth=1)
        above.set_ylim(0, 4.2)
        below.set_ylim(0, 1.02)
        first = below is axes[1, 0]
        _finish(above, f"curve {name}" if len(name) == 1 else name, "", "loss" if first else "", corner="")
        _finish(below, "", "training step", "held-out accuracy" if first else "", corner="")
        last = smooth(curve.losses)[-1] if curve.losses else math.nan
        said.append(f"{name} ends at a loss of {last:.2f} and an accuracy of {curve.accuracies[-1]:.0%}")
    right = axes[0, -1].get_yaxis_transform()
    axes[0, -1].text(1.03, math.log(10), "ln 10", va="center", fontsize=9, transform=right)
    axes[0, 0].legend(["sound", "this one"], frameon=False, loc=(0.4, 0.2), fontsize=8.5)
    return Picture(
        figure,
        f"After {len(sound.losses)} steps the sound loop is at a loss of {smooth(sound.losses)[-1]:.2f} and an "
        f"accuracy of {sound.accuracies[-1]:.0%}; " + "; ".join(said) + ".",
    )


# ---- Strokes


def _finish(ax: "Axes", title: str, x: str, y: str, corner: str = "upper right") -> None:
    """Title, labels, a light grid, and a legend where there is something to name."""
    ax.set(title=title, xlabel=x, ylabel=y)
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    if corner and ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, loc=corner, fontsize=9)
