"""Plots of measurements: what a clock saw, what a switch is worth, and two models' races against epochs and seconds.

Each gives a `Picture`. Nothing is measured here: seconds and accuracies come in, a figure and a sentence go out. Every
measurement is drawn, not its mean alone, since the range is what tells a difference from noise.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean, median

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from c2f.maps.picture import PURPLE, SKY, SOFT, TEST, TRAIN, WINDOW, Picture, tidy
from c2f.training.run import History
from c2f_course.figures.drawing import draw_medians, name_rows, subplots

STYLES = [{"color": c, "marker": m} for c, m in zip((TRAIN, TEST, WINDOW, PURPLE), "os^D", strict=True)]
Span = tuple[str, float, float]
"""What went on ("launch", "wait", "own work" of Python, "device" of the device), from when to when, in seconds."""
SPANS = {  # what the legend says, colour, lane
    "launch": ("a launch", TRAIN, 0),
    "own work": ("Python's own work", SKY, 0),
    "wait": ("Python waits", "#D9D9D9", 0),
    "device": ("the device works", TEST, 1),
}


# ---- What a clock saw


def plot_timeline(
    rows: Mapping[str, Sequence[Span]], stops: Mapping[str, Sequence[tuple[str, float]]] | None = None, title: str = ""
) -> Picture:
    """Two lanes for each row, Python above and the device below, from the row's first span on.

    `stops`: for a row, where clocks were stopped: what each is called, and when (on the spans' clock).
    """
    figure, axes = subplots(9.5, 0.9 + 1.4 * len(rows), len(rows), 1, sharex=True, squeeze=False)
    axes = axes[:, 0]
    longest = 1e3 * max(max(s[2] for s in spans) - min(s[1] for s in spans) for spans in rows.values())
    told = []
    for ax, (name, spans) in zip(axes, rows.items(), strict=True):
        begin, end = min(s[1] for s in spans), max(s[2] for s in spans)
        for kind, start, stop in spans:
            _, colour, lane = SPANS[kind]
            left, width = 1e3 * (start - begin), 1e3 * (stop - start)
            if kind == "launch":  # it takes microseconds, and should be seen all the same
                ax.plot(left, lane - 0.44, "v", color=colour, markersize=7, zorder=4, clip_on=False)
            else:
                ax.barh(lane, width, left=left, height=0.62, color=colour, edgecolor="white", linewidth=1, zorder=2)
        busy = sum(s[2] - s[1] for s in spans if s[0] == "device")
        told.append(
            f"{name}: {sum(s[0] == 'launch' for s in spans)} launches, the device works {1e3 * busy:.0f} ms of "
            f"{1e3 * (end - begin):.0f} ms"
        )
        marks = (stops or {}).get(name, ())
        for what, when in marks:
            at = 1e3 * (when - begin)
            ax.axvline(at, color="black", linestyle="--", linewidth=1.3, zorder=3)
            before = at > 0.6 * longest
            text = f"{'' if before else '  '}{what}: {at:.1f} ms "
            ax.text(at, -0.72, text, ha="right" if before else "left", va="bottom", fontsize=9)
            told[-1] += f", {what} after {at:.1f} ms"
        ax.set_yticks([0, 1], ["Python", "device"])
        ax.set_ylim(1.45, -1.25 if marks else -0.65)
        ax.set_title(name, fontsize=10)
    tidy(*axes, grid="x")
    axes[-1].set(xlabel="milliseconds", xlim=(-0.01 * longest, 1.03 * longest))
    used = {kind for spans in rows.values() for kind, *_ in spans}
    handles = [Patch(color=c, label=words) for kind, (words, c, _) in SPANS.items() if kind in used - {"launch"}]
    launch = Line2D([], [], color=TRAIN, marker="v", linestyle="", markersize=7, label=SPANS["launch"][0])
    figure.legend(handles=[launch, *handles], loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(title, fontsize=12)
    return Picture(figure, f"{title}: {'; '.join(told)}.")


def plot_calls(seconds: Sequence[float], warm_up: int) -> Picture:
    """How long each of some equal calls took, the first `warm_up` of them in another colour, with median and mean."""
    times, numbers = [1e3 * s for s in seconds], range(1, len(seconds) + 1)  # in milliseconds
    later, mean = median(times[warm_up:]), fmean(times)
    figure, ax = subplots(8.5, 3.0)
    ax.bar(numbers, times, color=[TEST if i <= warm_up else TRAIN for i in numbers], width=0.7)
    ax.axhline(later, color="black", linewidth=1.3, label=f"median of the later ones: {later:,.0f} ms")
    ax.axhline(mean, color="black", linewidth=1.3, linestyle=":", label=f"mean of all: {mean:,.0f} ms")
    ax.set(title="The same call, again and again", xlabel="call (orange: warm-up)", ylabel="milliseconds")
    ax.set(xticks=numbers, ylim=(0, 1.3 * max(times)))
    ax.legend(frameon=False, loc="upper right", ncols=2)
    tidy(ax, grid="y")
    return Picture(
        figure,
        f"Of {len(times)} equal calls the first took {times[0]:,.0f} ms; after the first {warm_up} the median is "
        f"{later:,.0f} ms ({min(times[warm_up:]):,.0f} to {max(times[warm_up:]):,.0f}); the mean of all would have "
        f"been {mean:,.0f} ms.",
    )


def plot_orders(orders: Mapping[str, Sequence[tuple[str, float]]]) -> Picture:
    """Measurements in the order in which they were made, a panel for each order, with each contender's median.

    `orders`: a panel's title, and its measurements, each a contender's name and milliseconds.
    """
    figure, axes = subplots(8.5, 3.0, 1, len(orders), sharey=True)
    told = []
    for ax, (title, measured) in zip(axes, orders.items(), strict=True):
        medians = []
        for name, style in zip(dict.fromkeys(name for name, _ in measured), STYLES, strict=False):
            points = [(x, value) for x, (who, value) in enumerate(measured, start=1) if who == name]
            middle = median(value for _, value in points)
            medians.append(f"{name} {middle:.0f} ms")
            ax.plot(*zip(*points, strict=True), linestyle="", label=f"{name}, median {middle:.0f} ms", **style)
            ax.axhline(middle, color=style["color"], linewidth=1.2, linestyle="--")
        ax.set(title=title, xlabel="measurement", ylim=(0, None))
        ax.legend(frameon=False, loc="lower right")
        told.append(f"{title}: medians {', '.join(medians)}")
    tidy(*axes)
    axes[0].set_ylabel("milliseconds")
    return Picture(figure, f"{'; '.join(told)}.")


# ---- What a switch is worth


def plot_rates(rates: Mapping[str, Sequence[float]], title: str) -> Picture:
    """Images per second: a bar for the median, a mark per round; beside it how often the first one's median that is."""
    figure, ax = subplots(8.5, 1.1 + 0.5 * len(rates))
    first, *_ = medians = [median(values) for values in rates.values()]
    says = [f"{middle / first:.2f}×" for middle in medians]
    draw_medians(ax, rates, [SOFT] + [TRAIN] * (len(rates) - 1), says)
    ax.axvline(first, color=SOFT, linestyle="--", linewidth=1.2)
    name_rows(ax, rates)
    ax.set(title=title, xlabel="images per second (bar: median, dots: each round)")
    told = (
        f"{name} {_rate(median(values))} ({_rate(min(values))} to {_rate(max(values))})"
        for name, values in rates.items()
    )
    return Picture(figure, f"{title}, images per second, median and range: {'; '.join(told)}.")


def plot_memory(bytes_of: Mapping[str, Mapping[str, int]], title: str) -> Picture:
    """What training keeps in memory: a bar for each setting, made of the same parts, in MiB."""
    figure, ax = subplots(8.5, 1.5 + 0.55 * len(bytes_of))
    sizes = np.array([list(held.values()) for held in bytes_of.values()]) / 2**20  # (settings, parts)
    parts, totals = list(next(iter(bytes_of.values()))), sizes.sum(axis=1)
    ends, hatches = sizes.cumsum(axis=1), ("", "//", "..", "")
    for i, (part, style, hatch) in enumerate(zip(parts, STYLES, hatches, strict=False)):
        style = {"color": style["color"], "hatch": hatch, "edgecolor": "white"}
        left = ends[:, i] - sizes[:, i]
        bars = ax.barh(range(len(sizes)), sizes[:, i], left=left, height=0.55, label=part, **style)
    ax.bar_label(bars, [f" {total:,.0f} MiB" for total in totals])
    name_rows(ax, bytes_of)
    ax.set(title=title, xlabel="MiB", xlim=(0, 1.15 * totals.max()))
    figure.legend(loc="outside lower center", ncols=len(parts), frameon=False)
    tidy(ax, grid="x")
    told = (
        f"{setting}: {', '.join(f'{part} {size:,.0f} MiB' for part, size in zip(parts, held, strict=True))}, "
        f"together {held.sum():,.0f} MiB"
        for setting, held in zip(bytes_of, sizes, strict=True)
    )
    return Picture(figure, f"{title}. {'; '.join(told)}.")


def plot_amdahl(shares: Mapping[str, float], factors: Mapping[str, float]) -> Picture:
    """How much faster a whole becomes when one part of it does, for parts of several shares, with their ceilings.

    `shares` of the time, less than 1, by the part; `factors`: by how much some parts were made faster in fact (a mark).
    """
    figure, ax = subplots(8.5, 3.6)
    x = np.geomspace(1, 100, 200)
    told = []
    for (name, share), style in zip(shares.items(), STYLES, strict=False):
        colour, ceiling = style["color"], 1 / (1 - share)
        ax.plot(x, 1 / (1 - share + share / x), color=colour, label=f"{name}: {share:.0%} of the time")
        ax.axhline(ceiling, color=colour, linestyle=":", linewidth=1.2)
        ax.text(100, ceiling, f"{ceiling:.2f}× ", ha="right", va="bottom", color=colour, fontsize=9)
        told.append(f"{name}, {share:.0%} of the time, can make the whole at most {ceiling:.2f} times as fast")
        if factor := factors.get(name):
            whole = 1 / (1 - share + share / factor)
            ax.plot(factor, whole, markersize=9, markeredgecolor="black", zorder=5, **style)
            ax.annotate(f"{factor:.1f}× → {whole:.2f}×", (factor, whole), (8, -14), textcoords="offset points")
            told[-1] += f", and made {factor:.1f} times faster makes it {whole:.2f} times as fast"
    ticks = [1, 2, 5, 10, 20, 50, 100]
    ax.set_xscale("log")
    ax.set_xticks(ticks, [f"{tick}×" for tick in ticks])
    ax.minorticks_off()
    ax.set(title="Amdahl's law", xlabel="how much faster the part becomes", ylabel="how much faster the whole is")
    ax.set_ylim(1, 1 + 1.12 * max(1 / (1 - share) - 1 for share in shares.values()) + 0.01)
    ax.legend(frameon=False, loc="lower right")
    tidy(ax)
    return Picture(figure, f"{'; '.join(told)}.")


# ---- Two models


@dataclass(frozen=True)
class Race:
    """One model's training: held-out accuracy after each epoch, and how many seconds of training it had had by then."""

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
    """Held-out accuracy against epochs, and against seconds of training, with the moments when targets were reached.

    `targets`: accuracies from 0 to 1, a thin line each; `clock`: whose seconds these are, for the axis label.
    """
    figure, axes = subplots(9.5, 3.7, 1, 2, sharey=True)
    longest = max(race.seconds[-1] for race in races)
    unit, scale = ("minutes", 60) if longest > 180 else ("seconds", 1)
    told = []
    for race, style in zip(races, STYLES, strict=False):
        epochs, seconds = len(race.accuracy), [second / scale for second in race.seconds]
        for ax, xs in zip(axes, (range(1, epochs + 1), seconds), strict=True):
            ax.plot(xs, race.accuracy, markersize=5, label=race.name, **style)
        for target in targets:
            if math.isfinite(at := race.reaches(target) / scale):
                axes[1].plot([at, at], [0, target], color=style["color"], linestyle=":", linewidth=1.3)
        told.append(
            f"{race.name}: {race.accuracy[0]:.1%} after epoch 1, {race.accuracy[-1]:.1%} after epoch {epochs} and "
            f"{seconds[-1]:.1f} {unit}"
        )
    for ax in axes:
        for target in targets:
            ax.axhline(target, color=SOFT, linewidth=0.8)
    tidy(*axes, grid="x")
    axes[0].set(title="by epoch", xlabel="epoch", ylabel="held-out accuracy", ylim=(0, 1.02))
    axes[0].xaxis.get_major_locator().set_params(integer=True)
    axes[1].set(title="by the clock", xlabel=f"{unit} of training ({clock})", xlim=(0, 1.04 * longest / scale))
    axes[0].yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes[0].legend(frameon=False, loc="lower right")
    figure.suptitle(title, fontsize=12)
    return Picture(figure, f"{title}. {'; '.join(told)}.")


def plot_throughput(histories: Mapping[str, History], *, parts: Sequence[tuple[str, int]], title: str) -> Picture:
    """Images per second of every epoch: level while nothing disturbs, so a step tells of something else.

    `parts`: what the recipe does in which stretch of epochs: a word and the last epoch of the stretch.
    """
    figure, ax = subplots(8.5, 3.2)
    told, top = [], 0.0
    for (name, history), style in zip(histories.items(), STYLES, strict=False):
        rates = [record.images_per_second for record in history.records]
        ax.plot(range(1, len(rates) + 1), rates, markersize=5, label=name, **style)
        told.append(f"{name} from {_rate(min(rates))} to {_rate(max(rates))}")
        top = max(top, *rates)
    begin = 0.5
    for word, last in parts:
        ax.text((begin + last + 0.5) / 2, 0.03, word, ha="center", color=SOFT, transform=ax.get_xaxis_transform())
        begin = last + 0.5
        if last < max(map(len, histories.values())):
            ax.axvline(begin, color=SOFT, linewidth=1, linestyle="--")
    ax.set(title=title, xlabel="epoch", ylabel="images per second", ylim=(0, 1.3 * top))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(frameon=False, loc="upper right", ncols=2)
    tidy(ax)
    return Picture(figure, f"{title}: {'; '.join(told)}.")


def plot_chosen(singles: Sequence[float], bests: Sequence[float], of: int, true: float) -> Picture:
    """Two ways to report the same model: one run, or the best of some; shares of all repetitions, accuracies in %."""
    figure, ax = subplots(8.5, 3.0)
    bins = np.linspace(min(*singles, *bests), max(*singles, *bests), 60)
    told = []
    for values, colour, stroke, name in (
        (singles, TRAIN, "-", "one run"),
        (bests, TEST, "--", f"the best of {of} runs"),
    ):
        weights, said = np.full(len(values), 1 / len(values)), f"{fmean(values):.2f} % on average"
        ax.hist(values, bins, weights=weights, color=colour, alpha=0.3)
        ax.hist(values, bins, weights=weights, color=colour, histtype="step", linewidth=1.4, linestyle=stroke)
        ax.axvline(fmean(values), color=colour, linestyle=stroke, linewidth=2, label=f"{name}: {said}")
        told.append(f"{name} {said}")
    ax.set(title="The same model, reported in two ways", xlabel="reported accuracy, %", ylabel="share of repetitions")
    ax.legend(frameon=False, loc="upper left")
    tidy(ax)
    return Picture(figure, f"Of a model that is right in {true:g} % on average: {'; '.join(told)}.")


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
