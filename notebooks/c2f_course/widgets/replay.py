"""A recorded training, to be scrubbed through: the curves, and how one kernel and one map grew.

Nothing is trained here: the numbers were kept by a `Recorder` (c2f.maps.recording), and the picture says so.
"""

import html
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from c2f.maps.picture import INK, SIGNED, TEST, TRAIN, Picture, number, symmetric_limit
from c2f.maps.recording import BlockFrames, Recording
from c2f_course.widgets.base import Explorer, choice
from c2f_course.widgets.panel import GAP, SIDE, Box, Panel, draw

CURVE_HEIGHT = 150
COLOURS = (TRAIN, TEST)


class TrainingReplay(Explorer):
    """Scrub through one recorded training, or through two side by side, at the same share of their steps.

    Args:
        recording: from `Recording.load`.
        other: a second one, such as a Swin's beside a Conv2Former's.

    Keyboard: Tab goes from control to control, the arrow keys change it.
    """

    def __init__(self, recording: Recording, other: Recording | None = None) -> None:
        import ipywidgets

        self.recordings = [recording] if other is None else [recording, other]
        stages = min(len(each.blocks) for each in self.recordings)
        if not stages or any(len(each.steps) < 2 for each in self.recordings):
            raise ValueError("a recording needs two frames or more of one block; record a longer training.")
        self._smooth = [_smoothed(each.losses) for each in self.recordings]
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
        rows = [self._panels(each) for each in self.recordings]
        alt = self._describe()
        return f"{self._curves(alt)}<br>{draw(rows, alt)}", alt

    def _panels(self, recording: Recording) -> list[Panel]:
        seen, frame = recording.blocks[self.stage.value], self._at(recording)
        c, m = self.channel.value, self.image.value
        what = _words(recording, seen, c)
        map_, height, width = seen.maps[frame, c, m], *seen.maps.shape[-2:]
        boxes = [Box(height // 2, width // 2, 1, 1)] if recording.kind == "Swin" else []
        # One scale over the whole training, so that growing looks like growing.
        return [
            Panel(f"{recording.names[m]}\n{recording.model}", recording.images[m]),
            Panel(f"{what[0]}\nstep 1", seen.kernels[0, c], _kernel_limit(recording, seen, c)),
            Panel(
                f"the same\nstep {recording.steps[frame]:,}", seen.kernels[frame, c], _kernel_limit(recording, seen, c)
            ),
            Panel(f"{what[1]}\nstep 1", seen.maps[0, c, m], symmetric_limit(seen.maps[:, c, m]), boxes),
            Panel(f"the same\nstep {recording.steps[frame]:,}", map_, symmetric_limit(seen.maps[:, c, m]), boxes),
        ]

    def _curves(self, alt: str) -> str:
        """Training loss on the left, accuracy on held-out images on the right, with a line at the present step."""
        width = 2.5 * (SIDE + GAP) - 2 * GAP
        left = [(list(range(1, len(s) + 1)), s.tolist()) for s in self._smooth]
        right = [
            (
                [each.steps_per_epoch * r.epoch for r in each.history.records],
                [r.test_accuracy for r in each.history.records],
            )
            for each in self.recordings
        ]
        ends = [len(each.losses) for each in self.recordings]
        now = [each.steps[self._at(each)] / end for each, end in zip(self.recordings, ends, strict=True)]
        parts = [
            _plot("training loss (smoothed)", left, ends, now, GAP + 20, width, top=max(max(y) for _, y in left)),
            _plot("accuracy on held-out images", right, ends, now, 2 * GAP + 60 + width, width, top=1.0, marks=True),
        ]
        names = "".join(
            f'<text x="{GAP + 20 + i * 260}" y="{CURVE_HEIGHT + 44}" fill="{COLOURS[i]}">'
            f"━ {html.escape(each.model)}</text>"
            for i, each in enumerate(self.recordings)
        )
        whole = 5 * (SIDE + GAP) + GAP
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{html.escape(alt)}" width="{whole}" '
            f'height="{CURVE_HEIGHT + 50}" viewBox="0 0 {whole} {CURVE_HEIGHT + 50}" style="max-width: 100%; '
            f'height: auto; background: white" font-family="sans-serif" font-size="12" fill="{INK}">'
            f"{''.join(parts)}{names}</svg>"
        )

    def _describe(self) -> str:
        told = []
        for each, losses in zip(self.recordings, self._smooth, strict=True):
            frame, seen = self._at(each), each.blocks[self.stage.value]
            step = each.steps[frame]
            done = [record for record in each.history.records if record.epoch * each.steps_per_epoch <= step]
            reached = f"{done[-1].test_accuracy:.1%} right on held-out images" if done else "no epoch finished yet"
            c = self.channel.value
            kernel, first = seen.kernels[frame, c], seen.kernels[0, c]
            what = _words(each, seen, c)
            told.append(
                f"{each.model} at step {step:,} of {len(each.losses):,}: training loss {losses[step - 1]:.2f}, "
                f"{reached}; {what[0]} of stage {seen.stage} has changed by {100 * _change(kernel, first):.0f} % of "
                f"its first size, and {what[1]} runs from {number(seen.maps[frame, c, self.image.value].min())} to "
                f"{number(seen.maps[frame, c, self.image.value].max())}."
            )
        return "Recorded, not trained here. " + " ".join(told)

    def _static(self) -> Picture:
        """The curves, and kernel and map at five moments of the first recording."""
        return plot_recording(self.recordings, self.stage.value, self.channel.value, self.image.value, self.text)


def plot_recording(recordings: Sequence[Recording], stage: int, channel: int, image: int, alt: str) -> Picture:
    """Curves above; below, for each recording, one kernel and one map at five moments, as a figure."""
    from matplotlib.figure import Figure

    moments = 5
    figure = Figure(figsize=(9.5, 2.6 + 3.3 * len(recordings)), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[2.6, 3.3 * len(recordings)])
    axes = above.subplots(1, 2)
    for each, colour in zip(recordings, COLOURS, strict=False):
        axes[0].plot(_smoothed(each.losses), color=colour, label=each.model)
        ends = [each.steps_per_epoch * record.epoch for record in each.history.records]
        axes[1].plot(ends, [record.test_accuracy for record in each.history.records], "o-", color=colour, markersize=4)
    axes[0].set(title="Training loss (smoothed, recorded)", xlabel="step", ylabel="cross-entropy", ylim=(0, None))
    axes[1].set(title="Accuracy on held-out images", xlabel="step", ylabel="share that is right", ylim=(0, 1))
    axes[0].legend(frameon=False)
    for ax in axes:
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    panels = below.subplots(2 * len(recordings), moments, squeeze=False)
    for row, each in enumerate(recordings):
        seen = each.blocks[stage]
        kernels, maps = seen.kernels[:, channel], seen.maps[:, channel, image]
        what = _words(each, seen, channel)
        for column, frame in enumerate(np.linspace(0, len(each.steps) - 1, moments).round().astype(int)):
            for line, (values, limit) in enumerate(
                ((kernels, _kernel_limit(each, seen, channel)), (maps, symmetric_limit(maps)))
            ):
                ax = panels[2 * row + line, column]
                ax.imshow(values[frame].numpy(), cmap=SIGNED, vmin=-limit, vmax=limit)
                ax.set_xticks([])
                ax.set_yticks([])
            panels[2 * row, column].set_title(f"step {each.steps[frame]:,}", fontsize=10)
        for line in (0, 1):
            panels[2 * row + line, 0].set_ylabel(f"{each.kind}\n{what[line]}", fontsize=9)
    return Picture(figure, alt)


def _words(recording: Recording, seen: BlockFrames, channel: int) -> tuple[str, str]:
    """What kernel and map are called in this kind of model."""
    number = seen.channels[channel]
    if recording.kind == "Swin":
        return f"position bias, head {number}", f"attention of □, head {number}"
    return f"kernel {number}", f"map A of channel {number}"


def _smoothed(losses: Tensor) -> np.ndarray:
    """Each step's mean with the steps before it, up to a hundredth of all of them."""
    values = losses.double().numpy()
    width = max(1, len(values) // 100)
    sums = np.concatenate([[0.0], values.cumsum()])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _plot(
    title: str,
    lines: Sequence[tuple[list[float], list[float]]],
    ends: Sequence[int],
    now: Sequence[float],
    x: float,
    width: float,
    top: float,
    marks: bool = False,
) -> str:
    """One small plot from 0 to `top`; each line runs over its own share of steps, `now` is where each stands."""
    y, height = 28, CURVE_HEIGHT - 10

    def place(share: float, value: float) -> str:
        return f"{x + share * width:.1f},{y + height * (1 - value / top):.1f}"

    parts = [
        f'<text x="{x}" y="{y - 10}">{html.escape(title)}</text>'
        f'<path d="M{x},{y} V{y + height} H{x + width:.1f}" fill="none" stroke="{INK}"/>'
        f'<g font-size="10" text-anchor="end"><text x="{x - 4}" y="{y + 8}">{top:.2g}</text>'
        f'<text x="{x - 4}" y="{y + height}">0</text></g>'
        f'<text x="{x + width:.1f}" y="{y + height + 14}" font-size="10" text-anchor="end">step {max(ends):,}</text>'
    ]
    for (steps, values), end, share, colour in zip(lines, ends, now, COLOURS, strict=False):
        thin = max(1, len(steps) // 300)
        points = " ".join(place(s / end, v) for s, v in zip(steps[::thin], values[::thin], strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        if marks:
            centres = (place(s / end, v).split(",") for s, v in zip(steps, values, strict=True))
            parts += [f'<circle cx="{cx}" cy="{cy}" r="3" fill="{colour}"/>' for cx, cy in centres]
        parts.append(f'<path d="M{x + share * width:.1f},{y} V{y + height}" stroke="{colour}" stroke-dasharray="4 3"/>')
    return "".join(parts)


def _kernel_limit(recording: Recording, seen: BlockFrames, channel: int) -> float:
    """The colour scale of a kernel, over the whole training.

    A Conv2Former's is that of the taps around the centre: where training began with 1 there (init "orthogonal"), the
    centre would leave all the others white. It may lie beyond the scale.
    """
    kernels = seen.kernels[:, channel].clone()
    if recording.kind == "Conv2Former":
        kernels[:, kernels.shape[1] // 2, kernels.shape[2] // 2] = 0
    return symmetric_limit(kernels)


def _change(now: Tensor, first: Tensor) -> float:
    return ((now - first).norm() / first.norm().clamp(min=1e-12)).item()
