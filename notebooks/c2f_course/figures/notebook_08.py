"""Plots of measurements: a queue, limits, switches, memory, and two models by epochs and by seconds.

Each returns a `Picture`. Nothing is measured here. Every measurement is drawn, not its mean alone, since the range is
what tells a difference from noise.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean, median
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from c2f.picture import PURPLE, SKY, SOFT, TEST, TRAIN, WINDOW, Picture
from c2f.training.run import History
from c2f_course.figures.drawing import KINDS, finish, median_bars, outline_histograms, subplots, told

STYLES = [{"color": c, "marker": m} for c, m in zip((TRAIN, TEST, WINDOW, PURPLE), "os^D", strict=True)]
Span = tuple[str, float, float]
"""What happened ("launch", "wait" and "own work" of Python, "device"), its start and its end, in seconds."""
SPANS = {  # what the legend says, colour, lane
    "launch": ("a launch", TRAIN, 0),
    "own work": ("Python's own work", SKY, 0),
    "wait": ("Python waits", "#D9D9D9", 0),
    "device": ("the device works", TEST, 1),
}


def plot_timeline(
    rows: Mapping[str, Sequence[Span]], stops: Mapping[str, Sequence[tuple[str, float]]] = MappingProxyType({}),
    title: str = "",
) -> Picture:  # fmt: skip
    """Two lanes for each row, Python above and the device below, from the row's first span on.

    `stops`: for a row, where clocks were stopped: what each is called, and when (on the spans' clock).
    """
    figure, axes = subplots(9.5, 0.9 + 1.4 * len(rows), len(rows), 1, title, 12, sharex=True, squeeze=False)
    axes = axes[:, 0]
    longest = 1e3 * max(max(s[2] for s in spans) - min(s[1] for s in spans) for spans in rows.values())
    said = {}
    for ax, (name, spans) in zip(axes, rows.items(), strict=True):
        begin, end = min(s[1] for s in spans), max(s[2] for s in spans)
        for kind, start, stop in spans:
            _, colour, lane = SPANS[kind]
            left, width = 1e3 * (start - begin), 1e3 * (stop - start)
            if kind == "launch":  # it takes microseconds, and should be seen all the same
                ax.plot(left, lane - 0.44, "v", color=colour, markersize=7, zorder=4, clip_on=False)
            else:
                ax.barh(lane, width, left=left, height=0.62, color=colour, edgecolor="white", linewidth=1, zorder=2)
        launches, busy = sum(s[0] == "launch" for s in spans), sum(s[2] - s[1] for s in spans if s[0] == "device")
        said[name] = f"{launches} launches, the device works {1e3 * busy:.0f} ms of {1e3 * (end - begin):.0f} ms"
        marks = stops.get(name, ())
        for what, when in marks:
            at = 1e3 * (when - begin)
            ax.axvline(at, color="black", linestyle="--", linewidth=1.3, zorder=3)
            side, gap = ("right", "") if at > 0.6 * longest else ("left", "  ")
            ax.text(at, -0.72, f"{gap}{what}: {at:.1f} ms ", ha=side, va="bottom", fontsize=9)
            said[name] += f", {what} after {at:.1f} ms"
        finish(ax, name, size=10, grid="x", ylim=(1.45, -1.25 if marks else -0.65))
        ax.set_yticks([0, 1], ["Python", "device"])
    axes[-1].set(xlabel="milliseconds", xlim=(-0.01 * longest, 1.03 * longest))
    used = {kind for spans in rows.values() for kind, *_ in spans}
    handles = [Patch(color=c, label=words) for kind, (words, c, _) in SPANS.items() if kind in used - {"launch"}]
    launch = Line2D([], [], color=TRAIN, marker="v", linestyle="", markersize=7, label=SPANS["launch"][0])
    figure.legend(handles=[launch, *handles], loc="outside lower center", ncols=4, frameon=False)
    return Picture(figure, f"{title}: {told(said)}.")


def plot_orders(orders: Mapping[str, Sequence[tuple[str, float]]]) -> Picture:
    """Measurements in the order in which they were made, a panel for each order, with each contender's median.

    `orders`: a panel's title, and its measurements, each a contender's name and milliseconds.
    """
    figure, axes = subplots(8.5, 3.0, 1, len(orders), sharey=True)
    said = {}
    for ax, (title, measured) in zip(axes, orders.items(), strict=True):
        medians = []
        for name, style in zip(dict.fromkeys(name for name, _ in measured), STYLES, strict=False):
            points = [(x, value) for x, (who, value) in enumerate(measured, start=1) if who == name]
            middle = median(value for _, value in points)
            medians.append(f"{name} {middle:.0f} ms")
            ax.plot(*zip(*points, strict=True), linestyle="", label=f"{name}, median {middle:.0f} ms", **style)
            ax.axhline(middle, color=style["color"], linewidth=1.2, linestyle="--")
        finish(ax, title, "measurement", "milliseconds" if ax is axes[0] else "", "lower right", ylim=(0, None))
        said[title] = f"medians {', '.join(medians)}"
    return Picture(figure, f"{told(said)}.")


def plot_rates(rates: Mapping[str, Sequence[float]], title: str) -> Picture:
    """Images per second: a bar for the median, a dot per round, and the median as a multiple of the first one's."""
    figure, ax = subplots(8.5, 1.1 + 0.5 * len(rates))
    first, *_ = medians = [median(values) for values in rates.values()]
    colours = [SOFT] + [TRAIN] * (len(rates) - 1)
    median_bars(ax, rates, colours, [f"{middle / first:.2f}×" for middle in medians])
    ax.axvline(first, color=SOFT, linestyle="--", linewidth=1.2)
    finish(ax, title, "images per second (bar: median, dots: each round)", grid="x", rows=rates)
    said = (f"{name} {_rate(median(v))} ({_rate(min(v))} to {_rate(max(v))})" for name, v in rates.items())
    return Picture(figure, f"{title}, images per second, median and range: {'; '.join(said)}.")


class Work(NamedTuple):
    """What a kernel does: its operations, the bytes that it must read and write at least, and the seconds it took."""

    name: str
    operations: float
    bytes: float
    seconds: float


def plot_limits(sizes: Mapping[int, float], works: Sequence[Work], bandwidth: float, peak: float) -> Picture:
    """Left, seconds of a call by the size of its tensor; right, the roofline, each work in the colour of its limit.

    `sizes`: seconds by elements. `bandwidth` in bytes, `peak` in operations per second. The limit is the largest of
    three times: the launch, which is the shortest time of all, the bytes' and the operations'.
    """
    figure, (left, right) = subplots(9.5, 4.0, 1, 2)
    launch = min(*sizes.values(), *(work.seconds for work in works))
    left.plot(list(sizes), [1e6 * s for s in sizes.values()], label="x + 1", **STYLES[0])
    left.axhline(1e6 * launch, color=SOFT, linestyle="--", label=f"launch: {1e6 * launch:.1f} µs")
    left.set(xscale="log", yscale="log")
    finish(left, "Small tensors: the launch", "elements of x", "microseconds per call", "upper left")
    x = np.geomspace(0.05, 5000, 200)
    right.plot(x, np.minimum(peak, bandwidth * x) / 1e9, color="0.2", linewidth=2)
    said = []
    for work in works:
        times = {"launch": launch, "memory": work.bytes / bandwidth, "compute": work.operations / peak}
        (limit, least), style = max(times.items(), key=lambda item: item[1]), dict(zip(times, STYLES, strict=False))
        at = work.operations / work.bytes, work.operations / work.seconds / 1e9
        right.plot(*at, markersize=9, linestyle="", label=f"{limit}-bound", **style[limit])
        offset, side = ((0, -16), "center") if at[0] > 100 else ((-6, -16) if limit == "launch" else (9, -4), "left")
        right.annotate(work.name, at, offset, textcoords="offset points", fontsize=9, ha=side)
        said.append(f"{work.name} {limit}-bound, {work.seconds / least:.1f} times the least time")
    roof = f"{bandwidth / 1e9:,.0f} GB/s and {peak / 1e9:,.0f} GFLOP/s"
    right.set(xscale="log", yscale="log", ylim=(min(work.operations / work.seconds for work in works) / 4e9, None))
    finish(right, f"Roofline: {roof}", "operations per byte", "GFLOP/s")
    handles = {label: handle for handle, label in zip(*right.get_legend_handles_labels(), strict=True)}
    right.legend(handles.values(), handles, loc="lower right", frameon=False, fontsize=9)
    return Picture(figure, f"A launch takes {1e6 * launch:.1f} µs. The roofline: {roof}. {'; '.join(said)}.")


def plot_memory(bytes_of: Mapping[str, Mapping[str, int]], title: str) -> Picture:
    """What training keeps in memory: one bar per setting, made of the same parts, in MiB."""
    figure, ax = subplots(8.5, 1.5 + 0.55 * len(bytes_of))
    sizes = np.array([list(held.values()) for held in bytes_of.values()]) / 2**20  # (settings, parts)
    parts, totals, ends = list(next(iter(bytes_of.values()))), sizes.sum(axis=1), sizes.cumsum(axis=1)
    for i, (part, style, hatch) in enumerate(zip(parts, STYLES, ("", "//", "..", ""), strict=False)):
        style = {"color": style["color"], "hatch": hatch, "edgecolor": "white", "height": 0.55}
        bars = ax.barh(range(len(sizes)), sizes[:, i], left=ends[:, i] - sizes[:, i], label=part, **style)
    ax.bar_label(bars, [f" {total:,.0f} MiB" for total in totals])
    finish(ax, title, "MiB", grid="x", rows=bytes_of, xlim=(0, 1.15 * totals.max()))
    figure.legend(loc="outside lower center", ncols=len(parts), frameon=False)
    said = {}
    for setting, held in zip(bytes_of, sizes, strict=True):
        each = ", ".join(f"{part} {size:,.0f} MiB" for part, size in zip(parts, held, strict=True))
        said[setting] = f"{each}, together {held.sum():,.0f} MiB"
    return Picture(figure, f"{title}. {told(said)}.")


def plot_amdahl(shares: Mapping[str, float], factors: Mapping[str, float]) -> Picture:
    """How much faster a whole becomes when one part of it does, for parts of several shares, with their ceilings.

    `shares` of the time, less than 1, by the part; `factors`: by how much some parts were made faster in fact (a mark).
    """
    figure, ax = subplots(8.5, 3.6)
    x = np.geomspace(1, 100, 200)
    said = []
    for (name, share), style in zip(shares.items(), STYLES, strict=False):
        colour, ceiling = style["color"], 1 / (1 - share)
        ax.plot(x, 1 / (1 - share + share / x), color=colour, label=f"{name}: {share:.0%} of the time")
        ax.axhline(ceiling, color=colour, linestyle=":", linewidth=1.2)
        ax.text(100, ceiling, f"{ceiling:.2f}× ", ha="right", va="bottom", color=colour, fontsize=9)
        said.append(f"{name}, {share:.0%} of the time, can make the whole at most {ceiling:.2f} times as fast")
        if factor := factors.get(name):
            whole = 1 / (1 - share + share / factor)
            ax.plot(factor, whole, markersize=9, markeredgecolor="black", zorder=5, **style)
            ax.annotate(f"{factor:.1f}× → {whole:.2f}×", (factor, whole), (8, -14), textcoords="offset points")
            said[-1] += f", and made {factor:.1f} times faster makes it {whole:.2f} times as fast"
    ticks = [1, 2, 5, 10, 20, 50, 100]
    ax.set_xscale("log")
    ax.set_xticks(ticks, [f"{tick}×" for tick in ticks])
    ax.minorticks_off()
    ax.set_ylim(1, 1 + 1.12 * max(1 / (1 - share) - 1 for share in shares.values()) + 0.01)
    labels = "how much faster the part becomes", "how much faster the whole is"
    finish(ax, "Amdahl's law", *labels, {"loc": "lower right", "fontsize": 10})
    return Picture(figure, f"{'; '.join(said)}.")


@dataclass(frozen=True)
class Race:
    """One model's training: test accuracy after each epoch, and the seconds of training until then."""

    name: str
    accuracy: tuple[float, ...]  # shares from 0 to 1
    seconds: tuple[float, ...]  # from the beginning of training, without evaluation

    @classmethod
    def of(cls, name: str, history: History, seconds: Iterable[float] | None = None) -> "Race":
        """From a history; `seconds` of each epoch, in place of those that the history has."""
        each = [record.seconds for record in history.records] if seconds is None else seconds
        return cls(name, tuple(record.test_accuracy for record in history.records), tuple(accumulate(each)))

    def reaches(self, target: float) -> float:
        """Seconds until an epoch first ended at this accuracy; infinite where none did."""
        return next((s for a, s in zip(self.accuracy, self.seconds, strict=True) if a >= target), math.inf)


def plot_race(races: Sequence[Race], *, targets: Sequence[float], clock: str, title: str) -> Picture:
    """Test accuracy against epochs, and against seconds of training, with the moments when targets were reached.

    `targets`: accuracies from 0 to 1, one thin line per target; `clock`: which clock it is, for the axis label.
    """
    figure, axes = subplots(9.5, 3.7, 1, 2, title, 12, sharey=True)
    longest = max(race.seconds[-1] for race in races)
    unit, scale = ("minutes", 60) if longest > 180 else ("seconds", 1)
    said = {}
    for race, style in zip(races, STYLES, strict=False):
        epochs, seconds, accuracy = len(race.accuracy), [second / scale for second in race.seconds], race.accuracy
        for ax, xs in zip(axes, (range(1, epochs + 1), seconds), strict=True):
            ax.plot(xs, accuracy, markersize=5, label=race.name, **style)
        for target in targets:
            if math.isfinite(at := race.reaches(target) / scale):
                axes[1].plot([at, at], [0, target], color=style["color"], linestyle=":", linewidth=1.3)
        said[race.name] = f"{accuracy[0]:.1%} after epoch 1, {accuracy[-1]:.1%} after epoch {epochs} and "
        said[race.name] += f"{seconds[-1]:.1f} {unit}"
    for target in targets:
        for ax in axes:
            ax.axhline(target, color=SOFT, linewidth=0.8)
    finish(axes[0], "by epoch", "epoch", "test accuracy", "lower right", grid="x", ylim=(0, 1.02))
    clocked = f"{unit} of training ({clock})"
    finish(axes[1], "by the clock", clocked, grid="x", xlim=(0, 1.04 * longest / scale))
    axes[0].xaxis.get_major_locator().set_params(integer=True)
    axes[0].yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    return Picture(figure, f"{title}. {told(said)}.")


def plot_chosen(singles: Sequence[float], bests: Sequence[float], of: int, true: float) -> Picture:
    """Two ways to report one model: a run, or the best of several; shares of all repetitions, accuracies in %."""
    figure, ax = subplots(8.5, 3.0)
    ways = {"one run": singles, f"the best of {of} runs": bests}
    said = {name: f"{fmean(values):.2f} % on average" for name, values in ways.items()}
    bins, share = np.linspace(min(*singles, *bests), max(*singles, *bests), 60), np.full(len(singles), 1 / len(singles))
    outline_histograms(ax, {f"{name}: {said[name]}": values for name, values in ways.items()}, bins, weights=share)
    for values, (colour, stroke) in zip(ways.values(), KINDS, strict=False):
        ax.axvline(fmean(values), color=colour, linestyle=stroke, linewidth=2)
    title = "The same model, reported in two ways"
    finish(ax, title, "reported accuracy, %", "share of repetitions", "upper left")
    return Picture(figure, f"A model with an accuracy of {true:g} % on average: {told(said, ' ')}.")


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
