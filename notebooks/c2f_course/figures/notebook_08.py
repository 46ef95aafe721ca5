"""Plots of measurements: what a clock saw, what a switch is worth, and two models' races against epochs and seconds.

Each gives a `Picture`. Nothing is measured here: seconds and accuracies come in, a figure and a sentence go out. Every
measurement is drawn, not its mean alone, since the spread is what tells a difference from noise.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from c2f.maps.picture import PURPLE, SOFT, TEST, TRAIN, WINDOW, Picture, new_figure, tidy
from c2f.training.run import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = (TRAIN, TEST, WINDOW, PURPLE)  # Okabe and Ito's; with a marker each, so that no colour stands alone
MARKERS = ("o", "s", "^", "D")
Span = tuple[str, float, float]
"""What went on ("launch", "wait", "own work" of Python, "device" of the device), from when to when, in seconds."""


def _needed(values: Sequence[object], what: str) -> None:
    if not len(values):
        raise ValueError(f"there are no {what} to draw; give at least one.")


# ---- What a clock saw


def plot_timeline(
    rows: Mapping[str, Sequence[Span]], stops: Mapping[str, Sequence[tuple[str, float]]] | None = None, title: str = ""
) -> Picture:
    """Two lanes for each row, Python above and the device below, from the row's first span on.

    Args:
        rows: a name for each row, and its spans.
        stops: for a row, where clocks were stopped: what each is called, and when (on the spans' clock).

    Raises ValueError for a row without a span, or a kind of span that is not known.
    """
    _needed(rows, "rows")
    kinds = {"launch": (TRAIN, 0.0), "own work": ("#56B4E9", 0.0), "wait": ("#D9D9D9", 0.0), "device": (TEST, 1.0)}
    for name, spans in rows.items():
        if not spans or {kind for kind, *_ in spans} - set(kinds):
            raise ValueError(f"row {name!r} needs spans, each of {', '.join(kinds)}.")
    figure = new_figure(9.5, 0.9 + 1.4 * len(rows))
    axes = figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
    longest = 1e3 * max(max(s[2] for s in spans) - min(s[1] for s in spans) for spans in rows.values())
    told = []
    for ax, (name, spans) in zip(axes, rows.items(), strict=True):
        begin, end = min(s[1] for s in spans), max(s[2] for s in spans)
        for kind, start, stop in spans:
            colour, lane = kinds[kind]
            left = 1e3 * (start - begin)
            if kind == "launch":  # it takes microseconds, and should be seen all the same
                ax.plot(left, lane - 0.44, "v", color=colour, markersize=7, zorder=4, clip_on=False)
                continue
            width = 1e3 * (stop - start)
            ax.barh(lane, width, left=left, height=0.62, color=colour, edgecolor="white", linewidth=1, zorder=2)
        marks = []
        for what, when in (stops or {}).get(name, ()):
            at = 1e3 * (when - begin)
            late = at > 0.6 * longest
            ax.axvline(at, color="black", linestyle="--", linewidth=1.3, zorder=3)
            text = f"{what}: {at:.1f} ms "
            ax.text(at, -0.72, text if late else f"  {text}", ha="right" if late else "left", va="bottom", fontsize=9)
            marks.append(f"{what} after {at:.1f} ms")
        busy = sum(s[2] - s[1] for s in spans if s[0] == "device")
        told.append(
            f"{name}: {sum(s[0] == 'launch' for s in spans)} launches, the device works {1e3 * busy:.0f} ms of "
            f"{1e3 * (end - begin):.0f} ms{''.join(f', {mark}' for mark in marks)}"
        )
        ax.set_yticks([0, 1], ["Python", "device"])
        ax.set(ylim=(1.45, -1.25 if marks else -0.65), title=name)
        ax.title.set_fontsize(10)
        tidy(ax, grid="x")
    axes[-1].set(xlabel="milliseconds", xlim=(-0.01 * longest, 1.03 * longest))
    _legend_of_spans(figure, {kind for spans in rows.values() for kind, *_ in spans}, kinds)
    if title:
        figure.suptitle(title, fontsize=12)
    return Picture(figure, f"{title + ': ' if title else ''}{'; '.join(told)}.")


def _legend_of_spans(figure: "Figure", used: set[str], kinds: Mapping[str, tuple[str, float]]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    words = {
        "launch": "a launch",
        "own work": "Python's own work",
        "wait": "Python waits",
        "device": "the device works",
    }
    handles = [
        Line2D([], [], color=kinds[kind][0], marker="v", linestyle="", markersize=7, label=words[kind])
        if kind == "launch"
        else Patch(color=kinds[kind][0], label=words[kind])
        for kind in words
        if kind in used
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)


def plot_calls(seconds: Sequence[float], warm_up: int) -> Picture:
    """How long each of some equal calls took, the first `warm_up` of them in another colour, with median and mean."""
    if not 0 < warm_up < len(seconds):
        raise ValueError(f"warm_up is {warm_up} of {len(seconds)} calls; leave at least one on either side.")
    milliseconds = [1e3 * s for s in seconds]
    later, mean = statistics.median(milliseconds[warm_up:]), statistics.fmean(milliseconds)
    figure = new_figure(8.5, 3.0)
    ax = figure.subplots()
    numbers = range(1, len(seconds) + 1)
    ax.bar(numbers, milliseconds, color=[TEST if i <= warm_up else TRAIN for i in numbers], width=0.7)
    ax.axhline(later, color="black", linewidth=1.3, label=f"median of the later ones: {later:,.0f} ms")
    ax.axhline(mean, color="black", linewidth=1.3, linestyle=":", label=f"mean of all: {mean:,.0f} ms")
    ax.set(title="The same call, again and again", xlabel="call (orange: warm-up)", ylabel="milliseconds")
    ax.set_xticks(list(numbers))
    ax.set_ylim(0, 1.3 * max(milliseconds))
    ax.legend(frameon=False, loc="upper right", ncols=2)
    tidy(ax, grid="y")
    first = milliseconds[0]
    return Picture(
        figure,
        f"Of {len(seconds)} equal calls the first took {first:,.0f} ms; after the first {warm_up} the median is "
        f"{later:,.0f} ms ({min(milliseconds[warm_up:]):,.0f} to {max(milliseconds[warm_up:]):,.0f}); the mean of all "
        f"would have been {mean:,.0f} ms.",
    )


def plot_orders(orders: Mapping[str, Sequence[tuple[str, float]]]) -> Picture:
    """Measurements in the order in which they were made, a panel for each order, with each contender's median.

    `orders`: a panel's title, and its measurements, each a contender's name and milliseconds.
    """
    _needed(orders, "orders")
    figure = new_figure(8.5, 3.0)
    axes = figure.subplots(1, len(orders), sharey=True, squeeze=False)[0]
    told = []
    for ax, (title, measured) in zip(axes, orders.items(), strict=True):
        medians = []
        for i, name in enumerate(dict.fromkeys(name for name, _ in measured)):
            xs = [x for x, (who, _) in enumerate(measured, start=1) if who == name]
            ys = [value for who, value in measured if who == name]
            middle = statistics.median(ys)
            ax.plot(xs, ys, MARKERS[i], color=COLOURS[i], label=f"{name}, median {middle:.0f} ms")
            ax.axhline(middle, color=COLOURS[i], linewidth=1.2, linestyle="--")
            medians.append(f"{name} {middle:.0f} ms")
        ax.set(title=title, xlabel="measurement", ylim=(0, None))
        ax.legend(frameon=False, loc="lower right")
        tidy(ax)
        told.append(f"{title}: medians {', '.join(medians)}")
    axes[0].set_ylabel("milliseconds")
    return Picture(figure, f"{'; '.join(told)}.")


# ---- What a switch is worth


def plot_rates(rates: Mapping[str, Sequence[float]], title: str) -> Picture:
    """Images per second of each contender, a mark a round and a bar for the median; the first is what they are set
    against."""
    _needed(rates, "contenders")
    names, medians = list(rates), [statistics.median(values) for values in rates.values()]
    figure = new_figure(8.5, 1.1 + 0.5 * len(names))
    ax = figure.subplots()
    for y, (values, middle) in enumerate(zip(rates.values(), medians, strict=True)):
        ax.barh(y, middle, height=0.55, color=SOFT if y == 0 else TRAIN, alpha=0.35)
        ax.plot(values, [y] * len(values), "o", color="black", markersize=4, alpha=0.7)
        ax.text(1.02 * max(values), y, f" {middle / medians[0]:.2f}×", va="center", fontsize=10)
    ax.axvline(medians[0], color=SOFT, linestyle="--", linewidth=1.2)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set(title=title, xlabel="images per second (bar: median, dots: each round)")
    ax.set_xlim(0, 1.15 * max(max(values) for values in rates.values()))
    tidy(ax, grid="x")
    told = (
        f"{name} {_rate(middle)} ({_rate(min(values))} to {_rate(max(values))})"
        for (name, values), middle in zip(rates.items(), medians, strict=True)
    )
    return Picture(figure, f"{title}, images per second, median and range: {'; '.join(told)}.")


def plot_memory(bytes_of: Mapping[str, Mapping[str, int]], title: str) -> Picture:
    """What training keeps in memory: a bar for each setting, made of its parts, in MiB."""
    _needed(bytes_of, "settings")
    figure = new_figure(8.5, 1.5 + 0.55 * len(bytes_of))
    ax = figure.subplots()
    parts = list(dict.fromkeys(part for held in bytes_of.values() for part in held))
    hatches = ("", "//", "..", "")
    told = []
    for y, (setting, held) in enumerate(bytes_of.items()):
        left, total = 0.0, sum(held.values()) / 2**20
        for part in parts:
            i, width = parts.index(part), held.get(part, 0) / 2**20
            style = {"color": COLOURS[i % 4], "hatch": hatches[i % 4], "edgecolor": "white"}
            ax.barh(y, width, left=left, height=0.55, label=part if y == 0 else None, **style)
            left += width
        ax.text(left, y, f" {total:,.0f} MiB", va="center", fontsize=10)
        told.append(
            f"{setting}: {', '.join(f'{part} {size / 2**20:,.0f} MiB' for part, size in held.items())}, together "
            f"{total:,.0f} MiB"
        )
    ax.set_yticks(range(len(bytes_of)), list(bytes_of))
    ax.invert_yaxis()
    ax.set(title=title, xlabel="MiB")
    ax.set_xlim(0, 1.15 * max(sum(held.values()) for held in bytes_of.values()) / 2**20)
    figure.legend(loc="outside lower center", ncols=len(parts), frameon=False)
    tidy(ax, grid="x")
    return Picture(figure, f"{title}. {'; '.join(told)}.")


def plot_amdahl(shares: Mapping[str, float], factors: Mapping[str, float] | None = None) -> Picture:
    """How much faster a whole becomes when one part of it does, for parts of several shares, with their ceilings.

    Args:
        shares: what each part is called, and its share of the time, from 0 to 1.
        factors: for some of the parts, by how much they were made faster in fact: a mark on their line.

    Raises ValueError for a share that is none, or a part in `factors` that is not in `shares`.
    """
    if not shares or any(not 0 <= share < 1 for share in shares.values()):
        raise ValueError(f"the shares are {dict(shares)}; give at least one, each at least 0 and less than 1.")
    if unknown := set(factors or {}) - set(shares):
        raise ValueError(f"there is no share of {', '.join(sorted(unknown))}; name parts of {', '.join(shares)}.")
    figure = new_figure(8.5, 3.6)
    ax = figure.subplots()
    x = np.geomspace(1, 100, 200)
    told = []
    for i, (name, share) in enumerate(shares.items()):
        colour, ceiling = COLOURS[i % len(COLOURS)], 1 / (1 - share)
        ax.plot(x, 1 / (1 - share + share / x), color=colour, label=f"{name}: {share:.0%} of the time")
        ax.axhline(ceiling, color=colour, linestyle=":", linewidth=1.2)
        ax.text(100, ceiling, f"{ceiling:.2f}× ", ha="right", va="bottom", color=colour, fontsize=9)
        told.append(f"{name}, {share:.0%} of the time, can make the whole at most {ceiling:.2f} times as fast")
        if name in (factors or {}):
            factor = factors[name]
            whole = 1 / (1 - share + share / factor)
            ax.plot(factor, whole, MARKERS[i % 4], color=colour, markersize=9, markeredgecolor="black", zorder=5)
            ax.annotate(f"{factor:.1f}× → {whole:.2f}×", (factor, whole), (8, -14), textcoords="offset points")
            told[-1] += f", and made {factor:.1f} times faster makes it {whole:.2f} times as fast"
    ax.set_xscale("log")
    ax.set_xticks([1, 2, 5, 10, 20, 50, 100], ["1×", "2×", "5×", "10×", "20×", "50×", "100×"])
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

    def __post_init__(self) -> None:
        if len(self.accuracy) != len(self.seconds) or not self.accuracy:
            raise ValueError(
                f"{self.name} has {len(self.accuracy)} accuracies and {len(self.seconds)} times; give one of each an "
                f"epoch, and at least one epoch."
            )

    @classmethod
    def of(cls, name: str, history: History, seconds: Iterable[float] | None = None) -> "Race":
        """From a history; `seconds` of each epoch, in place of those that the history has."""
        each = [record.seconds for record in history.records] if seconds is None else seconds
        return cls(name, tuple(record.test_accuracy for record in history.records), tuple(accumulate(each)))

    def reaches(self, target: float) -> float:
        """Seconds until an epoch first ended at this accuracy; infinite where none did."""
        return next((s for a, s in zip(self.accuracy, self.seconds, strict=True) if a >= target), math.inf)


def plot_race(races: Sequence[Race], *, targets: Sequence[float] = (), clock: str, title: str) -> Picture:
    """Held-out accuracy against epochs, and against seconds of training, with the moments when targets were reached.

    Args:
        targets: accuracies from 0 to 1, a thin line each.
        clock: whose seconds these are; it stands at the axis.
    """
    _needed(races, "races")
    figure = new_figure(9.5, 3.7)
    axes = figure.subplots(1, 2, sharey=True)
    longest = max(race.seconds[-1] for race in races)
    unit, scale = ("minutes", 60) if longest > 180 else ("seconds", 1)
    told = []
    for i, race in enumerate(races):
        style = {"color": COLOURS[i % 4], "marker": MARKERS[i % 4], "markersize": 5, "label": race.name}
        axes[0].plot(range(1, len(race.accuracy) + 1), race.accuracy, **style)
        axes[1].plot([second / scale for second in race.seconds], race.accuracy, **style)
        for target in targets:
            if math.isfinite(at := race.reaches(target) / scale):
                axes[1].plot([at, at], [0, target], color=style["color"], linestyle=":", linewidth=1.3)
        told.append(
            f"{race.name}: {race.accuracy[0]:.1%} after epoch 1, {race.accuracy[-1]:.1%} after epoch "
            f"{len(race.accuracy)} and {race.seconds[-1] / scale:.1f} {unit}"
        )
    for ax in axes:
        for target in targets:
            ax.axhline(target, color=SOFT, linewidth=0.8)
        tidy(ax, "x" if targets else "both")
    axes[0].set(title="by epoch", xlabel="epoch", ylabel="held-out accuracy", ylim=(0, 1.02))
    axes[0].xaxis.get_major_locator().set_params(integer=True)
    axes[1].set(title="by the clock", xlabel=f"{unit} of training ({clock})", xlim=(0, 1.04 * longest / scale))
    axes[0].yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes[0].legend(frameon=False, loc="lower right")
    figure.suptitle(title, fontsize=12)
    return Picture(figure, f"{title}. {'; '.join(told)}.")


def plot_throughput(histories: Mapping[str, History], *, parts: Sequence[tuple[str, int]] = (), title: str) -> Picture:
    """Images per second of every epoch: level while nothing disturbs, so a step tells of something else.

    `parts`: what the recipe does in which stretch of epochs: a word and the last epoch of the stretch.
    """
    _needed(histories, "histories")
    figure = new_figure(8.5, 3.2)
    ax = figure.subplots()
    told = []
    for i, (name, history) in enumerate(histories.items()):
        rates = [record.images_per_second for record in history.records]
        epochs = range(1, len(rates) + 1)
        ax.plot(epochs, rates, color=COLOURS[i % 4], marker=MARKERS[i % 4], markersize=5, label=name)
        told.append(f"{name} from {_rate(min(rates))} to {_rate(max(rates))}")
    begin = 0.5
    for word, last in parts:
        ax.text((begin + last + 0.5) / 2, 0.03, word, ha="center", color=SOFT, transform=ax.get_xaxis_transform())
        begin = last + 0.5
        if last < max(map(len, histories.values())):
            ax.axvline(begin, color=SOFT, linewidth=1, linestyle="--")
    top = max(record.images_per_second for history in histories.values() for record in history.records)
    ax.set(title=title, xlabel="epoch", ylabel="images per second", ylim=(0, 1.3 * top))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(frameon=False, loc="upper right", ncols=2)
    tidy(ax)
    return Picture(figure, f"{title}: {'; '.join(told)}.")


def plot_chosen(singles: Sequence[float], bests: Sequence[float], of: int, true: float) -> Picture:
    """Two ways to report the same model: one run, or the best of some; shares of all repetitions, accuracies in %."""
    _needed(singles, "single runs")
    _needed(bests, "best runs")
    figure = new_figure(8.5, 3.0)
    ax = figure.subplots()
    low, high = min(*singles, *bests), max(*singles, *bests)
    bins = np.linspace(low, high, 60)
    told = []
    for values, colour, style, name in (
        (singles, TRAIN, "-", "one run"),
        (bests, TEST, "--", f"the best of {of} runs"),
    ):
        weights = np.full(len(values), 1 / len(values))
        middle = float(np.mean(values))
        ax.hist(values, bins, weights=weights, color=colour, alpha=0.3)
        ax.hist(values, bins, weights=weights, color=colour, histtype="step", linewidth=1.4, linestyle=style)
        ax.axvline(middle, color=colour, linestyle=style, linewidth=2, label=f"{name}: {middle:.2f} % on average")
        told.append(f"{name} {middle:.2f} % on average")
    ax.set(title="The same model, reported in two ways", xlabel="reported accuracy, %", ylabel="share of repetitions")
    ax.legend(frameon=False, loc="upper left")
    tidy(ax)
    return Picture(figure, f"Of a model that is right in {true:g} % on average: {'; '.join(told)}.")


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
