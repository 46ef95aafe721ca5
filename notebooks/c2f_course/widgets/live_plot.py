"""Loss and accuracy, redrawn while a notebook trains."""

import sys
import time

from c2f.picture import TEST, TRAIN, Display, Picture, new_figure, tidy
from c2f.training.loop import Callback, TrainingState

LINES = (("train", "training images", TRAIN, "o-"), ("test", "test images", TEST, "s--"))


class LivePlot(Callback):
    """Loss and accuracy, redrawn in place while a notebook trains; the last drawing stays as the cell's output.

    Outside a notebook it draws nothing. `picture()` gives the curves so far anywhere.

    Args:
        seconds: the least time between two drawings; the last one is always made. On a slow computer they come more
            rarely, so that drawing takes at most a tenth of the time.
    """

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds = seconds
        self._forget()

    def _forget(self) -> None:
        self._losses: list[tuple[int, float]] = []  # (steps done, the step's loss; a tensor until it is drawn)
        self._state: TrainingState | None = None
        self._steps_per_epoch = 0  # not known before an epoch's end
        self._display: Display | None = None
        self._next = float("-inf")  # when it may be drawn again

    def on_step(self, state: TrainingState) -> None:
        if self._losses and state.step <= self._losses[-1][0]:  # the same plot, handed to another training
            self._forget()
        self._state = state
        self._losses.append((state.step, state.loss_tensor))  # reading it now would keep a GPU waiting
        if time.monotonic() >= self._next:
            self._draw()

    def on_epoch(self, state: TrainingState) -> None:
        self._state = state
        self._steps_per_epoch = state.step // (state.epoch + 1)
        if state.step >= state.steps or time.monotonic() >= self._next:
            self._draw()

    def picture(self) -> Picture:
        """The curves so far. Raises ValueError before the first step."""
        if self._state is None:
            raise ValueError("there is no step to plot yet; hand this to train(…, callbacks=[plot]) first.")
        state = self._state
        figure = new_figure(8.5, 3.2)
        axes = figure.subplots(1, 2)
        self._losses = [(step, float(loss)) for step, loss in self._losses]
        axes[0].plot(*zip(*self._losses, strict=True), color=TRAIN, alpha=0.3, linewidth=1, label="each step")
        records = state.history.records if self._steps_per_epoch else []
        for ax, quantity, corner in zip(axes, ("loss", "accuracy"), ("upper right", "lower right"), strict=True):
            for split, name, colour, style in LINES if records else ():
                ends = [record.epoch * self._steps_per_epoch for record in records]
                values = [getattr(record, f"{split}_{quantity}") for record in records]
                ax.plot(ends, values, style, color=colour, markersize=4, linewidth=1.6, label=name)
            ax.set(title=quantity.capitalize(), xlabel=f"training step (of {state.steps:,})")
            ax.set_xlim(0, 1.02 * state.steps)
            tidy(ax)
            if ax.lines:
                ax.legend(frameon=False, loc=corner)
        axes[0].set(ylabel="cross-entropy", ylim=(0, None))
        axes[1].set(ylabel="accuracy", ylim=(0, 1.02))
        if not len(state.history):
            alt = f"At step {state.step:,} of {state.steps:,} the training loss is {state.loss:.2f}."
            return Picture(figure, alt)
        first, last = state.history[0], state.history[-1]
        alt = (
            f"Over {len(state.history)} epoch{'s' * (len(state.history) > 1)} the loss on test images went from "
            f"{first.test_loss:.2f} to {last.test_loss:.2f} and their accuracy from {first.test_accuracy:.1%} to "
            f"{last.test_accuracy:.1%}; on training images the loss ended at {last.train_loss:.2f} and the accuracy at "
            f"{last.train_accuracy:.1%}."
        )
        return Picture(figure, alt)

    def _draw(self) -> None:
        started = time.monotonic()
        if _in_notebook():
            self._display = self.picture().show(updating=self._display)
        now = time.monotonic()
        self._next = max(started + self.seconds, now + 9 * (now - started))


def _in_notebook() -> bool:
    """Whether there is a kernel to show pictures to; IPython is asked only if somebody else has imported it."""
    ipython = sys.modules.get("IPython")
    return getattr(ipython and ipython.get_ipython(), "kernel", None) is not None
