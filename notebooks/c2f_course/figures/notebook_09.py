"""The pictures of notebook 09: what a window must see, and which differences are more than luck.

Accuracies are shares from 0 to 1; what is drawn is per cent, and differences are points (per cent less per cent).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import mean, stdev

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from c2f.maps.picture import COUNTS, SIGNED, SOFT, TEST, TRAIN, WINDOW, Picture, as_pixels, number, tidy
from c2f_course.figures.drawing import KINDS, name_rows, subplots

Z = 1.96  # standard errors to either side of a 95 % interval


# ---- The made-to-measure data


def plot_strips(images: Tensor, titles: Sequence[str], *, title: str) -> Picture:
    """Wide images (N, 3, H, W) of uint8 in two columns, a title each."""
    rows = len(images) // 2
    figure, axes = subplots(9, 1.05 * rows + 0.4, rows, 2)
    for ax, image, text in zip(axes.flat, images, titles, strict=True):
        ax.axis("off")
        ax.imshow(as_pixels(image))
        ax.set_title(text, fontsize=10)
    figure.suptitle(title, fontsize=11)
    height, width = images.shape[2:]
    return Picture(figure, f"{title}: {len(images)} strips of {height}×{width} pixels, titled {', '.join(titles)}.")


def plot_windows(strip: Tensor, kernels: Sequence[int], centres: Mapping[str, int], stride: int = 2) -> Picture:
    """How far windows of several kernels reach along a strip (3, H, W), from each of several places.

    `kernels`: their sides, in positions of `stride` pixels; `centres`: what a place is called, and the position (from
    0, along the width) at which the window has its centre.
    """
    height, width = strip.shape[1:]
    row = 2.2  # of the drawing below the strip, in pixels of the strip, for each kernel
    foot = row * len(kernels) + 0.6
    figure, axes = subplots(9, len(centres) * (0.55 + 8.6 * (height + foot) / (width + 4)), len(centres))
    told = []
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
        told.append(f"{name}, at pixel {middle:g}")
    axes[-1].set_xlabel("pixel column")
    reach = ", ".join(f"{k * stride / 2:g} with k = {k}" for k in kernels)
    return Picture(figure, f"Windows centred {'; '.join(told)}. Pixels that they reach to each side: {reach}.")


def plot_interaction(strip: Tensor, maps: Mapping[str, Tensor]) -> Picture:
    """Where a network brings two discs together: its interaction map, a row for each network, all on one scale.

    `strip`: (3, H, W), uint8, drawn on top; `maps`: (H', W') each, by what is written beside it.
    """
    limit = max(values.abs().max().item() for values in maps.values()) or 1.0
    figure, axes = subplots(9, 0.6 + 0.95 * (len(maps) + 1), len(maps) + 1, 1)
    axes[0].imshow(as_pixels(strip), aspect="auto")
    told = []
    for ax, (name, values) in zip(axes[1:], maps.items(), strict=True):
        drawn = ax.imshow(values.cpu().numpy(), cmap=SIGNED, vmin=-limit, vmax=limit, aspect="auto")
        largest, where = values.abs().max().item(), f"{int((values != 0).sum())} of {values.numel()} positions"
        if largest < limit / 50:
            said = f"at most {largest:.1g}" if largest else "0 everywhere"
            ax.text(0.5, 0.5, said, ha="center", va="center", color=SOFT, fontsize=10, transform=ax.transAxes)
        span = f"{values.min():.2f} to {values.max():.2f}".replace("-", "−")
        told.append(f"{name}: {f'{span}, other than zero at {where}' if largest else 'zero everywhere'}")
    for ax, name in zip(axes, ["strip", *maps], strict=True):
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
        ax.set(xticks=[], yticks=[])
    axes[-1].set_xlabel("along the strip: above pixels, below the network’s positions")
    figure.colorbar(drawn, ax=axes, label="interaction", fraction=0.03)
    figure.suptitle("Where the two discs are brought together", fontsize=11)
    return Picture(figure, f"Interaction of the two discs at every position. {'; '.join(told)}.")


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
        edges = np.arange(len(distances) + 1) - 0.5
        style = {"color": colour, "linestyle": stroke, "linewidth": 3.5, "label": name, "clip_on": False}
        ax.stairs(xs, edges, baseline=None, orientation="horizontal", **style)
    ax.set_xticks(range(len(kernels)), kernels)
    ax.set_yticks(range(len(distances)), distances)
    ax.set(xlabel="kernel side k, in positions of 2 pixels", ylabel="distance of the discs, pixels")
    ax.set_title("Held-out accuracy by distance and kernel side", fontsize=11)
    figure.legend(loc="outside lower center", frameon=False, fontsize=9)
    figure.colorbar(drawn, ax=ax, label="held-out accuracy, %")
    rows = (
        f"at {d} pixels {', '.join(f'k = {k} {value:.0f} %' for k, value in zip(kernels, line, strict=True))}"
        for d, line in zip(distances, means, strict=True)
    )
    return Picture(figure, f"Held-out accuracy, mean of the seeds: {'; '.join(rows)}.")


# ---- Differences and their noise


def plot_ablation(results: Mapping[str, Sequence[float]], base: str, *, title: str) -> Picture:
    """Each variant's runs as dots, its mean with two standard errors, and what the base's own noise covers.

    `results`: accuracies of two seeds or more, by variant; `base`: with which of them the others are compared.
    """
    figure, ax = subplots(8.5, 1.2 + 0.4 * len(results))
    middle, error = 100 * mean(results[base]), _error(results[base])
    ax.axvspan(middle - 2 * error, middle + 2 * error, color=TRAIN, alpha=0.12, label="base, ± 2 standard errors")
    told = []
    for row, (name, runs) in enumerate(results.items()):
        values, error = [100 * a for a in runs], 2 * _error(runs)
        below = [row + 0.27] * len(values)  # where neither the mean nor its bar hides a run
        labels = (None, None) if row else ("one run", "mean, ± 2 standard errors")
        ax.plot(values, below, "o", color=SOFT, markersize=4, alpha=0.8, label=labels[0])
        _draw_interval(ax, mean(values), row, error, TRAIN if name == base else TEST, 6, label=labels[1])
        told.append(f"{name} {mean(values):.1f} ± {error:.1f}")
    name_rows(ax, [f"{name} (base)" if name == base != "base" else name for name in results])
    ax.set(xlabel="held-out accuracy, %", title=title, ylim=(len(results) - 0.4, -0.6))
    ax.set_xlim(None, min(ax.get_xlim()[1], 101.5))
    tidy(ax)
    figure.legend(loc="outside lower center", frameon=False, ncols=3, fontsize=9)
    return Picture(figure, f"{title}. Held-out accuracy in per cent, mean ± two standard errors: {'; '.join(told)}.")


def judge(runs: Sequence[float], base: Sequence[float]) -> tuple[float, float]:
    """(difference of the means, its standard error), in points, from two runs or more of each."""
    return 100 * (mean(runs) - mean(base)), math.hypot(_error(runs), _error(base))


def plot_twins(one_experiment: Tensor, gains: Mapping[str, Tensor], spread: float) -> Picture:
    """Variants that are all the same: one experiment sorted, and how much the best seems to gain in many experiments.

    `one_experiment`: (V,) accuracies in per cent; `gains`: (R,) points by which the best is above the truth in each of
    R experiments, by how it was done; `spread`: standard deviation of the seeds, in points.
    """
    figure, (left, right) = subplots(9.5, 3.6, 1, 2)
    values = one_experiment.sort().values.tolist()
    best, count = values[-1], len(values)
    left.plot(range(1, count + 1), values, "o", color=SOFT, label="a variant, one run")
    left.plot(count, best, "D", color=TEST, markersize=9, label=f"the best: {best:.1f} %")
    left.axhline(80, color=TRAIN, label="what each of them is: 80.0 %")
    left.set(title="One experiment", xlabel="variant, sorted by its result", ylabel="accuracy, %")
    left.set(xticks=[1, *range(5, count + 1, 5)], ylim=(None, best + 0.45 * (best - values[0])))
    left.legend(frameon=False, fontsize=9, loc="upper left")
    bins = np.linspace(0, max(g.max().item() for g in gains.values()), 40)
    for (name, found), (colour, stroke) in zip(gains.items(), KINDS, strict=False):
        right.hist(found.numpy(), bins, histtype="stepfilled", facecolor=colour, alpha=0.18)
        right.hist(found.numpy(), bins, histtype="step", edgecolor=colour, linestyle=stroke, linewidth=1.8, label=name)
    right.set(title=f"{len(found):,} experiments", xlabel="gain of the best, points", ylabel="experiments")
    right.legend(frameon=False, fontsize=9)
    tidy(left, right)
    told = "; ".join(f"{name}: {g.mean():.2f} points on average" for name, g in gains.items())
    return Picture(
        figure,
        f"{count} variants that are the same, with a spread of {spread:g} points between runs: in one experiment "
        f"the best shows {best:.1f} % for 80.0. The best's gain over the truth, {told}.",
    )


def plot_habits(gains: Mapping[str, Tensor]) -> Picture:
    """What each bad habit gains where nothing is to be gained: (R,) points in each of R simulated comparisons."""
    figure, ax = subplots(8.5, 0.9 + 0.5 * len(gains))
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    ax.axvline(0, color="black", linewidth=0.8, zorder=0)
    told = []
    for row, (name, found) in enumerate(gains.items()):
        gain = found.mean().item()
        said = number(gain) if abs(gain) < 0.005 else f"{gain:+.2f}".replace("-", "−")
        ax.plot(np.quantile(found.numpy(), (0.05, 0.95)), [row, row], color=SOFT, linewidth=2)
        ax.plot(gain, row, "D", color=TEST if gain > 0.05 else TRAIN, markersize=8)
        ax.text(gain, row - 0.25, said, ha="center", fontsize=9, bbox=ground)
        told.append(f"{name} {said}")
    name_rows(ax, gains)
    ax.set(xlabel="gain over an equal rival, points: mean, and the middle 90 %", title="Gains where there is none")
    ax.set_ylim(len(gains) - 0.5, -0.7)
    tidy(ax)
    return Picture(figure, f"Gain over an equal rival, mean in points: {'; '.join(told)}.")


def plot_intervals(accuracies: Sequence[float], test_sets: Mapping[str, int]) -> Picture:
    """Half the width of a 95 % interval against the number of test images (some marked), a curve for each accuracy."""
    figure, ax = subplots(8, 3.4)
    n = np.geomspace(100, 100_000, 200)
    for p, (colour, stroke) in zip(accuracies, KINDS, strict=False):
        ax.plot(n, _half(p, n), stroke, color=colour, label=f"at an accuracy of {p:.0%}")
    for name, count in test_sets.items():
        ax.axvline(count, color=SOFT, linewidth=0.8, linestyle=(0, (2, 3)))
        ax.text(count * 1.05, 10.5, f"{name}\n{count:,}", fontsize=9, color=SOFT, va="top")
    ax.set(xscale="log", yscale="log", ylim=(0.1, 12), xlabel="test images", ylabel="± points (95 %)")
    ax.set(title="How sure an accuracy is, from the number of test images alone")
    ax.set_yticks([0.1, 0.3, 1, 3, 10], labels=["0.1", "0.3", "1", "3", "10"])
    ax.legend(framealpha=1, edgecolor="white", loc="lower left", fontsize=9)
    tidy(ax)
    told = "; ".join(f"{name}, {n:,} images, ±{_half(accuracies[0], n):.2f}" for name, n in test_sets.items())
    return Picture(figure, f"Half a 95 % interval in points at an accuracy of {accuracies[0]:.0%}: {told}.")


def plot_paired(right_a: Tensor, right_b: Tensor, names: tuple[str, str]) -> Picture:
    """Two models on the same test images: who is right where, and the difference with both its intervals.

    `right_a`, `right_b`: (N,) bool, whether each image was answered rightly.
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
    told = []
    for row, ((name, error), colour) in enumerate(zip(errors.items(), (SOFT, TRAIN), strict=True)):
        _draw_interval(ax, 100 * difference, row, 100 * Z * error, colour, 8, capsize=5)
        ax.text(100 * difference, row - 0.22, f"{name}: ± {100 * Z * error:.1f}", ha="center", fontsize=10)
        told.append(f"{name} ± {100 * Z * error:.1f}")
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set(ylim=(1.5, -0.6), title="Difference with its 95 % interval", xlabel=f"{names[1]} less {names[0]}, points")
    ax.set_yticks([])
    tidy(ax)
    both, only_a, only_b, none = counts.flat
    return Picture(
        figure,
        f"{both} images are right with both, {only_a} only with {names[0]}, {only_b} only with {names[1]}, {none} with "
        f"neither; the difference is {100 * difference:+.1f} points, {' and '.join(told)}.".replace("-", "−"),
    )


def compare(right_a: Tensor, right_b: Tensor) -> tuple[np.ndarray, float, dict[str, float]]:
    """Counts [[both, only a], [only b, neither]]; b's accuracy less a's; its standard error, unpaired and paired."""
    a, b = (right.bool().cpu().numpy() for right in (right_a, right_b))
    counts = np.array([[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]])
    unpaired = math.sqrt((a.var() + b.var()) / len(a))
    paired = (b.astype(float) - a).std(ddof=1) / math.sqrt(len(a))
    return counts, b.mean() - a.mean(), {"as if on other images": unpaired, "paired": paired}


# ---- What the paper reports

FUSIONS = {"Hadamard": 83.2, "L1 normalisation": 82.8, "sum": 82.7, "sigmoid": 82.3, "linear to (0, 1]": 82.2}
KERNELS = {"T": (82.8, 83.4), "B": (84.1, 84.5)}
"""Conv2Former's ablations on ImageNet-1k, top-1 in per cent (arXiv 2211.11943): fusions on T; kernel 5 and 21."""
IMAGENET = 50_000  # validation images


def plot_paper() -> Picture:
    """The paper's ablations with the interval that 50,000 test images alone leave."""
    figure, (left, right) = subplots(9.5, 3.2, 1, 2, width_ratios=[1.5, 1])
    for row, value in enumerate(FUSIONS.values()):
        _draw_interval(left, value, row, _half(value / 100, IMAGENET), TEST if row else TRAIN, 7)
    name_rows(left, FUSIONS)
    left.set(ylim=(len(FUSIONS) - 0.4, -0.6), xlabel="ImageNet-1k top-1, %", title="How A meets V (Conv2Former-T)")
    for (name, values), (colour, stroke), shift in zip(KERNELS.items(), KINDS, (-0.2, 0.2), strict=False):
        errors = [_half(value / 100, IMAGENET) for value in values]
        style = {"fmt": "D" + stroke, "color": colour, "capsize": 4}
        right.errorbar([5 + shift, 21 + shift], values, yerr=errors, label=f"Conv2Former-{name}", **style)
    right.set(xlim=(2, 24), xlabel="kernel side k", ylabel="top-1, %", title="Kernel side")
    right.set(xticks=[5, 21], ylim=(82.2, 85.9))
    right.legend(frameon=False, loc="upper left", fontsize=9)
    tidy(left, right)
    fusions = ", ".join(f"{name} {value}" for name, value in FUSIONS.items())
    kernels = ", ".join(f"{name} from {low} to {high}" for name, (low, high) in KERNELS.items())
    return Picture(
        figure,
        f"Published top-1 on ImageNet-1k in per cent; fusions on T: {fusions}; kernel 5 to 21: {kernels}. The bars are "
        f"the 95 % intervals from 50,000 test images, ±{_half(0.832, IMAGENET):.2f} points.",
    )


# ---- Strokes


def _draw_interval(ax: Axes, x: float, row: int, half: float, colour: str, size: int, **style: object) -> None:
    """A diamond with a bar of ±`half` along the row."""
    ax.errorbar(x, row, xerr=half, fmt="D", color=colour, markersize=size, **({"capsize": 4} | style))


def _half(accuracy: float, images: float | np.ndarray) -> float | np.ndarray:
    """Half a 95 % interval in points, from the number of test images alone."""
    return 100 * Z * np.sqrt(accuracy * (1 - accuracy) / images)


def _error(runs: Sequence[float]) -> float:
    """The standard error of the mean, in points."""
    return 100 * stdev(runs) / math.sqrt(len(runs))
