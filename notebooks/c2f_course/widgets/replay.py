"""A recorded training, to be scrubbed through: the curves, and how one kernel and one map grew.

Nothing is trained here: the numbers were kept by a `Recorder` (c2f.maps.recording), and the picture says so.
"""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from c2f.maps.picture import DOTS_PER_INCH, SIGNED, TEST, TRAIN, Picture, new_figure, number, symmetric_limit, tidy
from c2f.maps.recording import BlockFrames, Recording
from c2f_course.widgets.base import Explorer, choice
from c2f_course.widgets.panel import Box, Panel, address, draw, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
        self._figure = new_figure(9.0, 2.4)
        axes = self._figure.subplots(1, 2)
        _draw_curves(axes, self.recordings)
        for ax in axes:
            ax.set_xlim(0, 1.02 * max(len(each.losses) for each in self.recordings))
        file = io.BytesIO()
        self._figure.savefig(file, dpi=2 * DOTS_PER_INCH)
        self._drawn = address(file.getvalue())
        wide = {"layout": {"width": "430px"}, "style": {"description_width": "70px"}}
        last = max(len(each.steps) for each in self.recordings) - 1
        self.frame = ipywidgets.IntSlider(last, 0, last, description="frame", **wide)
        self.stage = choice(list(range(stages)), "stage")
        self.channel = ipywidgets.IntSlider(0, 0, self._channels() - 1, description="channel")
        self.image = choice([(name, i) for i, name in enumerate(recording.names)], "image")
        self._play = ipywidgets.Play(last, 0, last, 1, interval=250, description="play")
        self._link = ipywidgets.link((self._play, "value"), (self.frame, "value"))
        self.stage.observe(self._fit_channels, names="value")  # before `_assemble`'s: it must find a channel there
        self._assemble([self.frame, self.stage, self.channel, self.image], extra=[self._play])

    def _channels(self) -> int:
        return min(len(each.blocks[self.stage.value].channels) for each in self.recordings)

    def _fit_channels(self, _change: object) -> None:
        with self._together():
            self.channel.max = self._channels() - 1

    def _at(self, recording: Recording) -> int:
        """The frame of a recording at the slider's share of the training."""
        return round(self.frame.value / self.frame.max * (len(recording.steps) - 1))

    def _draw(self) -> tuple[str, str]:
        alt = self._describe()
        return f"{self._curves(alt)}<br>{draw([self._panels(each) for each in self.recordings], alt)}", alt

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

    def _curves(self, alt: str) -> str:
        """The curves, drawn once, with a line at each recording's present step."""
        width, height = self._figure.canvas.get_width_height()
        lines = ""
        for ax in self._figure.axes:
            top, bottom = (height * (1 - y) for y in (ax.get_position().y1, ax.get_position().y0))
            for each, colour in zip(self.recordings, COLOURS, strict=False):
                x = ax.transData.transform((each.steps[self._at(each)], 0))[0]
                lines += f'<path d="M{x:.1f},{top:.1f} V{bottom:.1f}" stroke="{colour}" stroke-dasharray="4 3"/>'
        return svg(width, height, f'<image width="{width}" height="{height}" href="{self._drawn}"/>{lines}', alt)

    def _describe(self) -> str:
        told = []
        for each, losses in zip(self.recordings, self._smooth, strict=True):
            frame, frames = self._at(each), each.blocks[self.stage.value]
            step = each.steps[frame]
            done = [record for record in each.history.records if record.epoch * each.steps_per_epoch <= step]
            reached = f"{done[-1].test_accuracy:.1%} right on held-out images" if done else "no epoch finished yet"
            kernel, map_ = _kernel_and_map(each, frames, self.channel.value, self.image.value)
            first, now = kernel[1][0], kernel[1][frame]
            change = (now - first).norm() / first.norm().clamp(min=1e-12)
            told.append(
                f"{each.model} at step {step:,} of {len(each.losses):,}: training loss {losses[step - 1]:.2f}, "
                f"{reached}; {kernel[0]} of stage {frames.stage} has changed by {100 * change:.0f} % of its first "
                f"size, and {map_[0]} runs from {number(map_[1][frame].min())} to {number(map_[1][frame].max())}."
            )
        return "Recorded, not trained here. " + " ".join(told)

    def _static(self) -> Picture:
        """The curves, and kernel and map at five moments of the first recording."""
        return plot_recording(self.recordings, self.stage.value, self.channel.value, self.image.value, self.text)


def plot_recording(recordings: Sequence[Recording], stage: int, channel: int, image: int, alt: str) -> Picture:
    """Curves above; below, for each recording, one kernel and one map at five moments, as a figure."""
    moments = 5
    figure = new_figure(9.5, 2.6 + 3.3 * len(recordings))
    above, below = figure.subfigures(2, 1, height_ratios=[2.6, 3.3 * len(recordings)])
    _draw_curves(above.subplots(1, 2), recordings)
    lines = iter(below.subplots(2 * len(recordings), moments))
    for each in recordings:
        frames = np.linspace(0, len(each.steps) - 1, moments).round().astype(int)
        for i, (name, values, limit) in enumerate(_kernel_and_map(each, each.blocks[stage], channel, image)):
            line = next(lines)
            for ax, frame in zip(line, frames, strict=True):
                ax.imshow(values[frame].numpy(), cmap=SIGNED, vmin=-limit, vmax=limit)
                ax.set(xticks=[], yticks=[])
                if i == 0:
                    ax.set_title(f"step {each.steps[frame]:,}", fontsize=10)
            line[0].set_ylabel(f"{each.kind}\n{name}", fontsize=9)
    return Picture(figure, alt)


def _draw_curves(axes: Sequence["Axes"], recordings: Sequence[Recording]) -> None:
    """Training loss on the left, accuracy on held-out images on the right."""
    for each, colour in zip(recordings, COLOURS, strict=False):
        axes[0].plot(range(1, len(each.losses) + 1), _smoothed(each.losses), color=colour, label=each.model)
        ends = [each.steps_per_epoch * record.epoch for record in each.history.records]
        axes[1].plot(ends, [record.test_accuracy for record in each.history.records], "o-", color=colour, markersize=4)
    axes[0].set(title="Training loss (smoothed, recorded)", xlabel="step", ylabel="cross-entropy", ylim=(0, None))
    axes[1].set(title="Accuracy on held-out images", xlabel="step", ylabel="share that is right", ylim=(0, 1))
    axes[0].legend(frameon=False)
    tidy(*axes)


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
    values = losses.double().numpy()
    width = max(1, len(values) // 100)
    sums = np.concatenate([[0.0], values.cumsum()])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)
