"""The pictures of notebook 09: what a window must see, and which differences are more than luck.

Accuracies are shares from 0 to 1; what is drawn is per cent, and differences are points (per cent less per cent).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import mean, stdev

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from c2f.picture import COUNTS, SOFT, TEST, TRAIN, WINDOW, Picture, as_pixels, number
from c2f_course.figures.drawing import KINDS, curves, draw_signed, finish, outline_histograms, subplots, told
from c2f_course.figures.notebook_02 import PAPER_FUSIONS

Z = 1.96  # standard errors to either side of a 95 % interval


def plot_windows(strip: Tensor, kernels: Sequence[int], centres: Mapping[str, int], stride: int = 2) -> Picture:
    """How far windows of several kernels reach along a strip (3, H, W), from each of several places.

    `kernels`: their sides, in positions of `stride` pixels; `centres`: what a place is called, and the position (from
    0, along the width) at which the window has its centre.
    """
    height, width = strip.shape[1:]
    row = 2.2  # of the drawing below the strip, in pixels of the strip, for each kernel
    foot = row * len(kernels) + 0.6
    figure, axes = subplots(9, len(centres) * (0.55 + 8.6 * (height + foot) / (width + 4)), len(centres))
    places = []
    for ax, (name, centre) in zip(axes, centres.items(), strict=True):
        ax.imshow(as_pixels(strip), extent=(0, width, 0, height))
        middle = (centre + 0.5) * stride
        for i, (k, (colour, stroke)) in enumerate(zip(kernels, KINDS, strict=False)):
            y, low, high = -1.4 - row * i, max(0, middle - k * stride / 2), min(width, middle + k * stride / 2)
            ax.plot([low, high], [y, y], stroke, color=colour, linewidth=2.5)
            ax.vlines([low, high], y - 0.7, y + 0.7, color=colour, linewidth=1.5)
            ax.text(-0.6, y, f"k = {k}", ha="right", va="center", fontsize=9)
        ax.plot([middle, middle], [-foot, height], color="black", linewidth=1, linestyle=(0, (2, 2)))
        ax.set(xlim=(-4, width), ylim=(-foot, height), aspect="equal", title=f"window centred {name}")
        ax.set(yticks=[], xticks=range(0, width + 1, 8))
        ax.spines[:].set_visible(False)
        places.append(f"{name}, at pixel {middle:g}")
    axes[-1].set_xlabel("pixel column")
    reach = ", ".join(f"{k * stride / 2:g} with k = {k}" for k in kernels)
    return Picture(figure, f"Windows centred {'; '.join(places)}. Pixels that they reach to each side: {reach}.")


def plot_interaction(strip: Tensor, maps: Mapping[str, Tensor]) -> Picture:
    """Where a network brings two discs together: its interaction map, a row for each network, all on one scale.

    `strip`: (3, H, W), uint8, drawn on top; `maps`: (H', W') each, by what is written beside it.
    """
    limit = max(values.abs().max().item() for values in maps.values()) or 1.0
    title = "Where the two discs are brought together"
    figure, axes = subplots(9, 0.6 + 0.95 * (len(maps) + 1), len(maps) + 1, 1, title)
    axes[0].imshow(as_pixels(strip), aspect="auto")
    said = {}
    for ax, (name, values) in zip(axes[1:], maps.items(), strict=True):
        drawn = draw_signed(ax, values, limit, aspect="auto")
        largest, where = values.abs().max().item(), f"{int((values != 0).sum())} of {values.numel()} positions"
        if largest < limit / 50:
            text = f"at most {largest:.1g}" if largest else "0 everywhere"
            ax.text(0.5, 0.5, text, ha="center", va="center", color=SOFT, fontsize=10, transform=ax.transAxes)
        span = f"{number(values.min())} to {number(values.max())}, other than zero at {where}"
        said[name] = span if largest else "zero everywhere"
    for ax, name in zip(axes, ["strip", *maps], strict=True):
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
        ax.set(xticks=[], yticks=[])
    axes[-1].set_xlabel("along the strip: above pixels, below the network’s positions")
    figure.colorbar(drawn, ax=axes, label="interaction", fraction=0.03)
    return Picture(figure, f"Interaction of the two discs at every position. {told(said)}.")


def plot_grid(
    results: Mapping[tuple[int, int], Sequence[float]], limits: Mapping[str, Callable[[int], float]]
) -> Picture:
    """Accuracy by distance and kernel: a heat map, with the mean and every seed's own figure in each cell.

    `results`: accuracies of the seeds, by every pair of a distance and a kernel side; `limits`: lines between the
    cells, by name: from a distance to the smallest kernel side right of the line.
    """
    distances, kernels = (sorted({pair[i] for pair in results}) for i in (0, 1))
    means = np.array([[100 * mean(results[d, k]) for k in kernels] for d in distances])
    figure, ax = subplots(1.5 + (1.25 if len(kernels) < 7 else 0.75) * len(kernels), 2.2 + 0.8 * len(distances))
    drawn = ax.imshow(means, cmap=COUNTS, vmin=40, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(means):
        runs = [f"{100 * a:.0f}" for a in sorted(results[distances[row], kernels[column]])]
        seeds = " ".join(runs) if len(runs) < 4 else f"{runs[0]} … {runs[-1]}"
        style = {"ha": "center", "va": "center", "color": "white" if value > 76 else "black"}
        ax.text(column, row - 0.12, f"{value:.0f}", fontsize=13, **style)
        ax.text(column, row + 0.25, seeds, fontsize=8, **style)
    for (name, limit), (colour, stroke) in zip(limits.items(), ((TEST, "-"), (WINDOW, "--")), strict=False):
        xs = [sum(k < limit(d) for k in kernels) - 0.5 for d in distances]
        style = {"color": colour, "linestyle": stroke, "linewidth": 3.5, "label": name, "clip_on": False}
        ax.stairs(xs, np.arange(len(distances) + 1) - 0.5, baseline=None, orientation="horizontal", **style)
    ax.set_xticks(range(len(kernels)), kernels)
    ax.set_yticks(range(len(distances)), distances)
    ax.set(xlabel="kernel side k, in positions of 2 pixels", ylabel="distance of the discs, pixels")
    ax.set_title("Test accuracy by distance and kernel side", fontsize=11)
    figure.legend(loc="outside lower center", frameon=False, fontsize=9)
    figure.colorbar(drawn, ax=ax, label="test accuracy, %")
    rows = (
        f"at {d} pixels {', '.join(f'k = {k} {value:.0f} %' for k, value in zip(kernels, line, strict=True))}"
        for d, line in zip(distances, means, strict=True)
    )
    return Picture(figure, f"Test accuracy, mean of the seeds: {'; '.join(rows)}.")


def plot_ablation(results: Mapping[str, Sequence[float]], base: str, *, title: str) -> Picture:
    """Each variant's runs as dots, its mean with two standard errors, and what the base's own noise covers.

    `results`: accuracies of two seeds or more, by variant; `base`: with which of them the others are compared.
    """
    figure, ax = subplots(8.5, 1.2 + 0.4 * len(results))
    middle, error = 100 * mean(results[base]), _error(results[base])
    ax.axvspan(middle - 2 * error, middle + 2 * error, color=TRAIN, alpha=0.12, label="base, ± 2 standard errors")
    said = []
    for row, (name, runs) in enumerate(results.items()):
        values, error = [100 * a for a in runs], 2 * _error(runs)
        below = [row + 0.27] * len(values)  # where neither the mean nor its bar hides a run
        labels = (None, None) if row else ("one run", "mean, ± 2 standard errors")
        ax.plot(values, below, "o", color=SOFT, markersize=4, alpha=0.8, label=labels[0])
        _draw_interval(ax, mean(values), row, error, TRAIN if name == base else TEST, 6, label=labels[1])
        said.append(f"{name} {mean(values):.1f} ± {error:.1f}")
    limits = {"ylim": (len(results) - 0.4, -0.6), "xlim": (None, min(ax.get_xlim()[1], 101.5))}
    rows = [f"{name} (base)" if name == base != "base" else name for name in results]
    finish(ax, title, "test accuracy, %", rows=rows, **limits)
    figure.legend(loc="outside lower center", frameon=False, ncols=3, fontsize=9)
    return Picture(figure, f"{title}. Test accuracy in per cent, mean ± two standard errors: {'; '.join(said)}.")


def judge(runs: Sequence[float], base: Sequence[float]) -> tuple[float, float]:
    """(difference of the means, its standard error), in points, from two runs or more of each."""
    return 100 * (mean(runs) - mean(base)), math.hypot(_error(runs), _error(base))


def plot_twins(one_experiment: Tensor, gains: Mapping[str, Tensor], deviation: float) -> Picture:
    """Variants that are all the same: one experiment sorted, and how much the best seems to gain in many experiments.

    `one_experiment`: (V,) accuracies in per cent; `gains`: (R,) points by which the best is above the truth in each of
    R experiments, by how it was done; `deviation`: standard deviation of the seeds, in points.
    """
    figure, (left, right) = subplots(9.5, 3.6, 1, 2)
    values = one_experiment.sort().values.tolist()
    best, count = values[-1], len(values)
    left.plot(range(1, count + 1), values, "o", color=SOFT, label="a variant, one run")
    left.plot(count, best, "D", color=TEST, markersize=9, label=f"the best: {best:.1f} %")
    left.axhline(80, color=TRAIN, label="true accuracy of each: 80.0 %")
    limits = {"xticks": [1, *range(5, count + 1, 5)], "ylim": (None, best + 0.45 * (best - values[0]))}
    finish(left, "One experiment", "variant, sorted by its result", "accuracy, %", "upper left", **limits)
    bins = np.linspace(0, max(gain.max().item() for gain in gains.values()), 40)
    outline_histograms(right, {name: gain.numpy() for name, gain in gains.items()}, bins)
    experiments = len(next(iter(gains.values())))
    finish(right, f"{experiments:,} experiments", "gain of the best, points", "experiments", "best")
    said = told((name, f"{gain.mean():.2f} points on average") for name, gain in gains.items())
    return Picture(
        figure,
        f"{count} variants that are the same, with a standard deviation of {deviation:g} points: in one experiment "
        f"the best shows {best:.1f} % for 80.0. The best's gain over the truth, {said}.",
    )


def plot_habits(gains: Mapping[str, Tensor]) -> Picture:
    """What each bad habit gains where nothing is to be gained: (R,) points in each of R simulated comparisons."""
    figure, ax = subplots(8.5, 0.9 + 0.5 * len(gains))
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    ax.axvline(0, color="black", linewidth=0.8, zorder=0)
    said = {}
    for row, (name, found) in enumerate(gains.items()):
        gain = found.mean().item()
        said[name] = number(gain) if abs(gain) < 0.005 else f"{gain:+.2f}".replace("-", "−")
        ax.plot(np.quantile(found.numpy(), (0.05, 0.95)), [row, row], color=SOFT, linewidth=2)
        ax.plot(gain, row, "D", color=TEST if gain > 0.05 else TRAIN, markersize=8)
        ax.text(gain, row - 0.25, said[name], ha="center", fontsize=9, bbox=ground)
    label = "gain over an equal rival, points: mean, and the middle 90 %"
    finish(ax, "Gains where there is none", label, rows=gains, ylim=(len(gains) - 0.5, -0.7))
    return Picture(figure, f"Gain over an equal rival, mean in points: {told(said, ' ')}.")


def plot_intervals(accuracies: Sequence[float], test_sets: Mapping[str, int]) -> Picture:
    """Half the width of a 95 % interval against the number of test images (some marked), a curve for each accuracy."""
    figure, ax = subplots(8, 3.4)
    n = np.geomspace(100, 100_000, 200)
    curves(ax, {f"at an accuracy of {p:.0%}": _half(p, n) for p in accuracies}, n)
    for name, count in test_sets.items():
        ax.axvline(count, color=SOFT, linewidth=0.8, linestyle=(0, (2, 3)))
        ax.text(count * 1.05, 10.5, f"{name}\n{count:,}", fontsize=9, color=SOFT, va="top")
    ax.set(xscale="log", yscale="log", ylim=(0.1, 12))
    ax.set_yticks([0.1, 0.3, 1, 3, 10], labels=["0.1", "0.3", "1", "3", "10"])
    title = "How precise an accuracy is, by the number of test images"
    legend = {"frameon": True, "framealpha": 1, "edgecolor": "white", "loc": "lower left"}
    finish(ax, title, "test images", "± points (95 %)", legend)
    said = "; ".join(f"{name}, {n:,} images, ±{_half(accuracies[0], n):.2f}" for name, n in test_sets.items())
    return Picture(figure, f"Half a 95 % interval in points at an accuracy of {accuracies[0]:.0%}: {said}.")


def plot_paired(right_a: Tensor, right_b: Tensor, names: tuple[str, str]) -> Picture:
    """Two models on the same test images: who is right where, and the difference with both its intervals.

    `right_a`, `right_b`: (N,) bool, whether each prediction is right.
    """
    counts, difference, errors = compare(right_a, right_b)
    figure, (table, ax) = subplots(9.5, 2.7, 1, 2, width_ratios=[1, 1.9])
    table.imshow(counts, cmap=COUNTS, vmin=0, vmax=counts.max(), aspect="auto")
    for (row, column), value in np.ndenumerate(counts):
        ink = "white" if value > counts.max() / 2 else "black"
        table.text(column, row, str(value), ha="center", va="center", color=ink, fontsize=13)
    table.set_xticks((0, 1), ["right", "wrong"])
    table.set_yticks((0, 1), ["right", "wrong"])
    table.set(title="Images", xlabel=names[1], ylabel=names[0])
    said = []
    for row, ((name, error), colour) in enumerate(zip(errors.items(), (SOFT, TRAIN), strict=True)):
        half = 100 * Z * error
        _draw_interval(ax, 100 * difference, row, half, colour, 8, capsize=5)
        ax.text(100 * difference, row - 0.22, f"{name}: ± {half:.1f}", ha="center", fontsize=10)
        said.append(f"{name} ± {half:.1f}")
    ax.axvline(0, color="black", linewidth=0.8)
    title, label = "Difference with its 95 % interval", f"{names[1]} minus {names[0]}, points"
    finish(ax, title, label, ylim=(1.5, -0.6), yticks=[])
    both, only_a, only_b, none = counts.flat
    alt = f"{both} images are right with both, {only_a} only with {names[0]}, {only_b} only with {names[1]}, {none}"
    points = f"{100 * difference:+.1f} points, {' and '.join(said)}".replace("-", "−")
    return Picture(figure, f"{alt} with neither; the difference is {points}.")


def compare(right_a: Tensor, right_b: Tensor) -> tuple[np.ndarray, float, dict[str, float]]:
    """Counts [[both, only a], [only b, neither]]; b's accuracy less a's; its standard error, unpaired and paired."""
    a, b = (right.bool().cpu().numpy() for right in (right_a, right_b))
    counts = np.array([[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]])
    unpaired = math.sqrt((a.var() + b.var()) / len(a))
    paired = (b.astype(float) - a).std(ddof=1) / math.sqrt(len(a))
    return counts, b.mean() - a.mean(), {"as if on other images": unpaired, "paired": paired}


KERNELS = {"T": {5: 82.8, 11: 83.2, 21: 83.4}, "B": {5: 84.1, 11: 84.4, 21: 84.5}}
"""Conv2Former-T and -B on ImageNet-1k by kernel side, top-1 in per cent (arXiv 2211.11943)."""
IMAGENET = 50_000  # validation images


def plot_paper() -> Picture:
    """The paper's ablations with the interval that 50,000 test images alone leave."""
    figure, (left, right) = subplots(9.5, 3.2, 1, 2, width_ratios=[1.5, 1])
    for row, value in enumerate(PAPER_FUSIONS.values()):
        _draw_interval(left, value, row, _half(value / 100, IMAGENET), TEST if row else TRAIN, 7)
    title, limits = "How A meets V (Conv2Former-T)", (len(PAPER_FUSIONS) - 0.4, -0.6)
    finish(left, title, "ImageNet-1k top-1, %", rows=PAPER_FUSIONS, ylim=limits)
    for (name, values), (colour, stroke), shift in zip(KERNELS.items(), KINDS, (-0.2, 0.2), strict=False):
        style = {"fmt": "D" + stroke, "color": colour, "capsize": 4, "label": f"Conv2Former-{name}"}
        errors = [_half(value / 100, IMAGENET) for value in values.values()]
        right.errorbar([k + shift for k in values], values.values(), errors, **style)
    limits = {"xlim": (2, 24), "xticks": [5, 11, 21], "ylim": (82.2, 85.9)}
    finish(right, "Kernel side", "kernel side k", "top-1, %", "upper left", **limits)
    fusions = ", ".join(f"{name} {value}" for name, value in PAPER_FUSIONS.items())
    kernels = ", ".join(f"{name} {', '.join(map(str, values.values()))}" for name, values in KERNELS.items())
    alt = f"The paper's ImageNet-1k top-1 in per cent; fusions on T: {fusions}; kernel 5, 11, 21: {kernels}. The bars"
    return Picture(
        figure, f"{alt} are the 95 % intervals from 50,000 test images, ±{_half(0.832, IMAGENET):.2f} points."
    )


def _draw_interval(ax: Axes, x: float, row: int, half: float, colour: str, size: int, **style: object) -> None:
    """A diamond with a bar of ±`half` along the row."""
    ax.errorbar(x, row, xerr=half, fmt="D", color=colour, markersize=size, **({"capsize": 4} | style))


def _half(accuracy: float, images: float | np.ndarray) -> float | np.ndarray:
    """Half a 95 % interval in points, from the number of test images alone."""
    return 100 * Z * np.sqrt(accuracy * (1 - accuracy) / images)


def _error(runs: Sequence[float]) -> float:
    """The standard error of the mean, in points."""
    return 100 * stdev(runs) / math.sqrt(len(runs))
