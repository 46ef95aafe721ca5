"""A recorded training, to be scrubbed through: the curves, and how one kernel and one map grew.

Nothing is trained here: the numbers were kept by a `Recorder` (c2f.maps.recording), and the picture says so.
"""

import base64
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from c2f.maps.recording import BlockFrames, Recording
from c2f.picture import TEST, TRAIN, Picture, new_figure, number, symmetric_limit, tidy
from c2f_course.widgets.base import Explorer, choice, numbered, slider
from c2f_course.widgets.panel import Box, Panel, draw, svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = (TRAIN, TEST)


class TrainingReplay(Explorer):
    """Scrub through one recorded training, or through two side by side, at the same share of their steps.

    Args:
        recording: from `Recording.load`.
        other: a second one, such as a Swin's beside a Conv2Former's.
    """

    def __init__(self, recording: Recording, other: Recording | None = None) -> None:
        import ipywidgets

        self.recordings = [recording] if other is None else [recording, other]
        stages = min(len(each.blocks) for each in self.recordings)
        if not stages or any(len(each.steps) < 2 for each in self.recordings):
            raise ValueError("a recording needs two frames or more of one block; record a longer training.")
        self._smooth = [_smoothed(each.losses) for each in self.recordings]
        self._figure = self._plot_curves()
        self._drawn = base64.b64encode(Picture(self._figure, "").png()).decode()
        last = max(len(each.steps) for each in self.recordings) - 1
        self.frame = slider("frame", last, 0, last)
        self.stage = choice(list(range(stages)), "stage")
        self.channel = slider("channel", 0, 0, self._channels() - 1)
        self.image = choice(numbered(recording.names), "image")
        self._play = ipywidgets.Play(last, 0, last, 1, interval=250, description="play")
        ipywidgets.link((self._play, "value"), (self.frame, "value"))
        self._assemble([self.frame, self.stage, self.channel, self.image], extra=[self._play])

    def _channels(self) -> int:
        return min(len(each.blocks[self.stage.value].channels) for each in self.recordings)

    def _fit(self, change: object) -> None:
        self.channel.max = self._channels() - 1

    def _at(self, recording: Recording) -> int:
        """The frame of a recording at the slider's share of the training."""
        return round(self.frame.value / self.frame.max * (len(recording.steps) - 1))

    def _draw(self) -> tuple[str, str, str]:
        alt = self._describe()
        return self._curves(alt), draw([self._panels(each) for each in self.recordings], alt), alt

    def _panels(self, recording: Recording) -> list[Panel]:
        frames, frame = recording.blocks[self.stage.value], self._at(recording)
        c, m = self.channel.value, self.image.value
        panels = [Panel(f"{recording.names[m]}\n{recording.model}", recording.images[m])]
        for name, values, limit in _kernel_and_map(recording, frames, c, m):
            is_swins_map = recording.kind == "Swin" and len(panels) > 2
            boxes = [Box(values.shape[1] // 2, values.shape[2] // 2, 1, 1)] if is_swins_map else []
            panels.append(Panel(f"{name}\nstep 1", values[0], limit, boxes))
            panels.append(Panel(f"the same\nstep {recording.steps[frame]:,}", values[frame], limit, boxes))
        return panels

    def _plot_curves(self) -> "Figure":
        """Training loss on the left, test accuracy on the right."""
        figure = new_figure(9.0, 2.4)
        left, right = figure.subplots(1, 2)
        for each, losses, colour in zip(self.recordings, self._smooth, COLOURS, strict=False):
            left.plot(range(1, len(losses) + 1), losses, color=colour, label=each.model)
            ends = [each.steps_per_epoch * record.epoch for record in each.history.records]
            right.plot(
                ends, [record.test_accuracy for record in each.history.records], "o-", color=colour, markersize=4
            )
        whole = {"xlabel": "step", "xlim": (0, 1.02 * max(map(len, self._smooth)))}
        left.set(title="Training loss (smoothed, recorded)", ylabel="cross-entropy", ylim=(0, None), **whole)
        right.set(title="Test accuracy", ylabel="accuracy", ylim=(0, 1), **whole)
        left.legend(frameon=False)
        tidy(left, right)
        return figure

    def _curves(self, alt: str) -> str:
        """The curves, drawn once, with a line at each recording's present step."""
        width, height = self._figure.canvas.get_width_height()
        lines = ""
        for ax in self._figure.axes:
            top, bottom = (height * (1 - y) for y in (ax.get_position().y1, ax.get_position().y0))
            for each, colour in zip(self.recordings, COLOURS, strict=False):
                x = ax.transData.transform((each.steps[self._at(each)], 0))[0]
                lines += f'<path d="M{x:.1f},{top:.1f} V{bottom:.1f}" stroke="{colour}" stroke-dasharray="4 3"/>'
        drawn = f'<image width="{width}" height="{height}" href="data:image/png;base64,{self._drawn}"/>'
        return svg(width, height, drawn + lines, alt)

    def _describe(self) -> str:
        told = []
        for each, losses in zip(self.recordings, self._smooth, strict=True):
            frame, frames = self._at(each), each.blocks[self.stage.value]
            step = each.steps[frame]
            done = [record for record in each.history.records if record.epoch * each.steps_per_epoch <= step]
            reached = f"test accuracy {done[-1].test_accuracy:.1%}" if done else "no epoch finished yet"
            kernel, map_ = _kernel_and_map(each, frames, self.channel.value, self.image.value)
            first, now = kernel[1][0], kernel[1][frame]
            change = (now - first).norm() / first.norm().clamp(min=1e-12)
            told.append(
                f"{each.model} at step {step:,} of {len(each.losses):,}: training loss {losses[step - 1]:.2f}, "
                f"{reached}; {kernel[0]} of stage {frames.stage} has changed by {100 * change:.0f} % of its first "
                f"size, and {map_[0]} runs from {number(map_[1][frame].min())} to {number(map_[1][frame].max())}."
            )
        return "Recorded, not trained here. " + " ".join(told)


def _kernel_and_map(
    recording: Recording, frames: BlockFrames, channel: int, image: int
) -> list[tuple[str, Tensor, float]]:
    """What kernel and map are called in this kind of model, their values in all frames, and their colour scales.

    One scale over the whole training, so that growing looks like growing. A Conv2Former's kernel is drawn on that of
    the taps around the centre: where training began with 1 there (init "orthogonal"), the centre would leave all the
    others white. It may be beyond the scale.
    """
    names = f"kernel {frames.channels[channel]}", f"map A of channel {frames.channels[channel]}"
    if recording.kind == "Swin":
        names = f"position bias, head {frames.channels[channel]}", f"attention of □, head {frames.channels[channel]}"
    kernels, maps = frames.kernels[:, channel], frames.maps[:, channel, image]
    around = kernels.clone()
    if recording.kind == "Conv2Former":
        around[:, around.shape[1] // 2, around.shape[2] // 2] = 0
    return [(names[0], kernels, symmetric_limit(around)), (names[1], maps, symmetric_limit(maps))]


def _smoothed(losses: Tensor) -> np.ndarray:
    """Each step's mean with the steps before it, up to a hundredth of all of them."""
    sums = np.concatenate([[0.0], losses.double().numpy().cumsum()])
    ends = np.arange(1, len(sums))
    starts = np.maximum(ends - max(1, len(losses) // 100), 0)
    return (sums[ends] - sums[starts]) / (ends - starts)
