"""Loss and accuracy, redrawn while a notebook trains."""

import sys
import time

from c2f.maps.picture import TRAIN, Display, Picture, new_figure
from c2f.maps.plots import describe_history, draw_history
from c2f.training.loop import Callback, TrainingState


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
        self._losses: list[tuple[int, float]] = []  # (steps done, the step's loss)
        self._state: TrainingState | None = None
        self._steps_per_epoch = 0  # not known before an epoch's end
        self._display: Display | None = None
        self._next = float("-inf")  # when it may be drawn again

    def on_step(self, state: TrainingState) -> None:
        if self._losses and state.step <= self._losses[-1][0]:  # the same plot, handed to another training
            self._forget()
        self._state = state
        self._losses.append((state.step, state.loss))
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
        axes[0].plot(*zip(*self._losses, strict=True), color=TRAIN, alpha=0.3, linewidth=1, label="each step")
        draw_history(axes, state.history, f"training step (of {state.steps:,})", self._steps_per_epoch)
        for ax in axes:
            ax.set_xlim(0, 1.02 * state.steps)
        if len(state.history):
            return Picture(figure, describe_history(state.history))
        return Picture(figure, f"At step {state.step:,} of {state.steps:,} the training loss is {state.loss:.2f}.")

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
