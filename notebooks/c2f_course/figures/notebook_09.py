"""The pictures of notebook 09: what a window must see, and which differences are more than luck.

Each function gives a `Picture`, made without pyplot, and raises ValueError where what it is given cannot be drawn.
Accuracies are shares from 0 to 1; what is drawn is per cent, and differences are points (per cent less per cent).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import mean, stdev
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from c2f.maps.picture import COUNTS, PURPLE, SIGNED, SOFT, TEST, TRAIN, WINDOW, Picture, new_figure, tidy

if TYPE_CHECKING:
    pass

KINDS = ((TRAIN, "-"), (TEST, "--"), (WINDOW, "-."), (PURPLE, ":"))  # colour and stroke: told apart in grey as well
Z = 1.96  # standard errors to either side of a 95 % interval


# ---- The made-to-measure data


def plot_strips(images: Tensor, titles: Sequence[str], *, columns: int = 2, title: str = "") -> Picture:
    """Wide images in a grid.

    Args:
        images: (N, 3, H, W), uint8.
        titles: one an image.
        columns: images in a row.
        title: over the whole grid.
    """
    if images.ndim != 4 or not len(images) or len(titles) != len(images):
        raise ValueError(
            f"the images have shape {tuple(images.shape)}, with {len(titles)} titles; give (N, 3, H, W), a title each."
        )
    rows = -(-len(images) // columns)
    figure = new_figure(9, 1.05 * rows + 0.4 * bool(title))
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for ax in axes:
        ax.axis("off")
    for ax, image, text in zip(axes, images, titles, strict=False):
        ax.imshow(image.permute(1, 2, 0).cpu().numpy())
        ax.set_title(text, fontsize=10)
    figure.suptitle(title, fontsize=11)
    height, width = images.shape[2:]
    return Picture(figure, f"{title}: {len(images)} strips of {height}×{width} pixels, titled {', '.join(titles)}.")


def plot_windows(strip: Tensor, kernels: Sequence[int], centres: Mapping[str, int], stride: int = 2) -> Picture:
    """How far windows of several kernels reach along a strip, from each of several places.

    Args:
        strip: (3, H, W), uint8.
        kernels: their sides, in positions.
        centres: what a place is called, and the position (from 0, along the width) at which the window has its centre.
        stride: pixels of one position.
    """
    if not kernels or not centres:
        raise ValueError("there is nothing to draw; give at least one kernel and one place.")
    height, width = strip.shape[1:]
    row = 2.2  # of the drawing below the strip, in pixels of the strip, for each kernel
    foot = row * len(kernels) + 0.6
    figure = new_figure(9, len(centres) * (0.55 + 8.6 * (height + foot) / (width + 4)))
    axes = figure.subplots(len(centres), 1, squeeze=False)[:, 0]
    for ax, (name, centre) in zip(axes, centres.items(), strict=True):
        ax.imshow(strip.permute(1, 2, 0).cpu().numpy(), extent=(0, width, 0, height))
        middle = (centre + 0.5) * stride
        for i, (k, (colour, line)) in enumerate(zip(kernels, KINDS * len(kernels), strict=False)):
            y, half = -1.4 - row * i, k * stride / 2
            low, high = max(0, middle - half), min(width, middle + half)
            ax.plot([low, high], [y, y], line, color=colour, linewidth=2.5)
            for end in (low, high):
                ax.plot([end, end], [y - 0.7, y + 0.7], color=colour, linewidth=1.5)
            ax.text(-0.6, y, f"k = {k}", ha="right", va="center", fontsize=9)
        ax.plot([middle, middle], [-foot, height], color="black", linewidth=1, linestyle=(0, (2, 2)))
        ax.set(xlim=(-4, width), ylim=(-foot, height), aspect="equal", title=f"window centred {name}")
        ax.set_yticks([])
        ax.set_xticks(range(0, width + 1, 8))
        ax.spines[:].set_visible(False)
    axes[-1].set_xlabel("pixel column")
    told = "; ".join(f"{name}, at pixel {(centre + 0.5) * stride:g}" for name, centre in centres.items())
    reach = ", ".join(f"{k * stride / 2:g} with k = {k}" for k in kernels)
    return Picture(figure, f"Windows centred {told}. Pixels that they reach to each side: {reach}.")


def plot_interaction(strip: Tensor, maps: Mapping[str, Tensor]) -> Picture:
    """Where a network brings two discs together: its interaction map, a row for each network, all on one scale.

    Args:
        strip: (3, H, W), uint8, drawn on top.
        maps: (H', W') each, by what is written beside it.
    """
    if not maps:
        raise ValueError("there is no map to draw; give at least one, by its name.")
    limit = max(values.abs().max().item() for values in maps.values()) or 1.0
    figure = new_figure(9, 0.6 + 0.95 * (len(maps) + 1))
    axes = figure.subplots(len(maps) + 1, 1)
    axes[0].imshow(strip.permute(1, 2, 0).cpu().numpy(), aspect="auto")
    axes[0].set_ylabel("strip", rotation=0, ha="right", va="center")
    for ax, (name, values) in zip(axes[1:], maps.items(), strict=True):
        drawn = ax.imshow(values.cpu().numpy(), cmap=SIGNED, vmin=-limit, vmax=limit, aspect="auto")
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
        largest = values.abs().max().item()
        if largest < limit / 50:
            said = f"at most {largest:.1g}" if largest else "0 everywhere"
            middle = ((values.shape[1] - 1) / 2, (values.shape[0] - 1) / 2)
            ax.text(*middle, said, ha="center", va="center", color=SOFT, fontsize=10)
    for ax in axes:
        ax.set_xticks([])
        ax.set_yticks([])
    axes[-1].set_xlabel("along the strip: above pixels, below the network’s positions")
    figure.colorbar(drawn, ax=axes.tolist(), label="interaction", fraction=0.03)
    figure.suptitle("Where the two discs are brought together", fontsize=11)
    told = "; ".join(
        f"{name}: {'zero everywhere' if not v.any() else f'{v.min():.2f} to {v.max():.2f}, other than zero at '}"
        f"{'' if not v.any() else f'{int((v != 0).sum())} of {v.numel()} positions'}".replace("-", "−")
        for name, v in maps.items()
    )
    return Picture(figure, f"Interaction of the two discs at every position. {told}.")


def plot_grid(
    results: Mapping[tuple[int, int], Sequence[float]], limits: Mapping[str, Callable[[int], float]]
) -> Picture:
    """Accuracy by distance and kernel: a heat map, with the mean and every seed's own figure in each cell.

    Args:
        results: accuracies of the seeds, by (distance, kernel side); every pair of the two must be there.
        limits: lines between the cells, by name: from a distance to the smallest kernel side right of the line.
    """
    distances, kernels = (sorted({pair[i] for pair in results}) for i in (0, 1))
    if not results or any((d, k) not in results for d in distances for k in kernels):
        raise ValueError("give accuracies for every pair of a distance and a kernel, and for at least one.")
    means = np.array([[100 * mean(results[d, k]) for k in kernels] for d in distances])
    figure = new_figure(1.5 + (1.25 if len(kernels) < 7 else 0.75) * len(kernels), 2.2 + 0.8 * len(distances))
    ax = figure.subplots()
    drawn = ax.imshow(means, cmap=COUNTS, vmin=40, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(means):
        ink = "white" if value > 76 else "black"
        ax.text(column, row - 0.12, f"{value:.0f}", ha="center", va="center", color=ink, fontsize=13)
        runs = [f"{100 * a:.0f}" for a in sorted(results[distances[row], kernels[column]])]
        seeds = " ".join(runs) if len(runs) < 4 else f"{runs[0]} … {runs[-1]}"
        ax.text(column, row + 0.25, seeds, ha="center", va="center", color=ink, fontsize=8)
    for (name, limit), (colour, line) in zip(limits.items(), ((TEST, "-"), (WINDOW, "--")), strict=False):
        xs = [sum(k < limit(d) for k in kernels) - 0.5 for d in distances]
        path = [(x, y) for i, x in enumerate(xs) for y in (i - 0.5, i + 0.5)]
        ax.plot(*zip(*path, strict=True), line, color=colour, linewidth=3.5, label=name, clip_on=False)
    ax.set_xticks(range(len(kernels)), kernels)
    ax.set_yticks(range(len(distances)), distances)
    ax.set(xlabel="kernel side k, in positions of 2 pixels", ylabel="distance of the discs, pixels")
    ax.set_title("Held-out accuracy by distance and kernel side", fontsize=11)
    figure.legend(loc="outside lower center", frameon=False, fontsize=9)
    figure.colorbar(drawn, ax=ax, label="held-out accuracy, %")
    rows = "; ".join(
        f"at {d} pixels " + ", ".join(f"k = {k} {means[i, j]:.0f} %" for j, k in enumerate(kernels))
        for i, d in enumerate(distances)
    )
    return Picture(figure, f"Held-out accuracy, mean of the seeds: {rows}.")


# ---- Differences and their noise


def plot_ablation(results: Mapping[str, Sequence[float]], base: str, *, title: str = "") -> Picture:
    """Each variant's runs as dots, its mean with two standard errors, and what the base's own noise covers.

    Args:
        results: accuracies of the seeds, by variant; two seeds or more each.
        base: which of them the others are compared with.
        title: over the plot.
    """
    if base not in results or any(len(runs) < 2 for runs in results.values()):
        raise ValueError(f"give {base!r} and the others, with at least two seeds each: from one there is no spread.")
    names = list(results)
    figure = new_figure(8.5, 1.2 + 0.4 * len(names))
    ax = figure.subplots()
    middle = 100 * mean(results[base])
    error = _error(results[base])
    ax.axvspan(middle - 2 * error, middle + 2 * error, color=TRAIN, alpha=0.12, label="base, ± 2 standard errors")
    for row, name in enumerate(names):
        values = [100 * a for a in results[name]]
        colour = TRAIN if name == base else TEST
        below = [row + 0.27] * len(values)  # where neither the mean nor its bar hides a run
        ax.plot(values, below, "o", color=SOFT, markersize=4, alpha=0.8, label="one run" if not row else None)
        ax.errorbar(
            mean(values),
            row,
            xerr=2 * _error(results[name]),
            fmt="D",
            color=colour,
            markersize=6,
            capsize=4,
            label={0: "mean, ± 2 standard errors"}.get(row),
        )
    ax.set_yticks(range(len(names)), [f"{name} (base)" if name == base != "base" else name for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set(xlabel="held-out accuracy, %", title=title)
    ax.set_xlim(None, min(ax.get_xlim()[1], 101.5))
    tidy(ax)
    figure.legend(loc="outside lower center", frameon=False, ncols=3, fontsize=9)
    told = "; ".join(f"{name} {100 * mean(runs):.1f} ± {2 * _error(runs):.1f}" for name, runs in results.items())
    return Picture(figure, f"{title}. Held-out accuracy in per cent, mean ± two standard errors: {told}.".lstrip(". "))


def judge(runs: Sequence[float], base: Sequence[float]) -> tuple[float, float]:
    """(difference of the means, its standard error), in points. Raises ValueError for fewer than two runs."""
    if min(len(runs), len(base)) < 2:
        raise ValueError("one run has no spread; give two or more of each.")
    return 100 * (mean(runs) - mean(base)), math.hypot(_error(runs), _error(base))


def plot_twins(one_experiment: Tensor, gains: Mapping[str, Tensor], spread: float) -> Picture:
    """Variants that are all the same: one experiment sorted, and how much the best seems to gain in many experiments.

    Args:
        one_experiment: (V,) accuracies in per cent, of V variants.
        gains: (R,) points by which the best is above the truth in each of R experiments, by how it was done.
        spread: of the seeds, in points.
    """
    if not gains or len(one_experiment) < 2:
        raise ValueError("give two variants or more, of which one is the best, and the gains of one way or more.")
    figure = new_figure(9.5, 3.6)
    left, right = figure.subplots(1, 2)
    values = one_experiment.sort().values.tolist()
    left.plot(range(1, len(values) + 1), values, "o", color=SOFT, label="a variant, one run")
    left.plot(len(values), values[-1], "D", color=TEST, markersize=9, label=f"the best: {values[-1]:.1f} %")
    left.axhline(80, color=TRAIN, label="what each of them is: 80.0 %")
    left.set(title="One experiment", xlabel="variant, sorted by its result", ylabel="accuracy, %")
    left.legend(frameon=False, fontsize=9, loc="upper left")
    left.set_xticks([1, *range(5, len(values) + 1, 5)])
    left.set_ylim(None, values[-1] + 0.9 * (values[-1] - values[0]) / 2)
    bins = np.linspace(0, max(g.max().item() for g in gains.values()), 40)
    for (name, found), (colour, line) in zip(gains.items(), KINDS, strict=False):
        right.hist(found.cpu().numpy(), bins, histtype="stepfilled", facecolor=colour, alpha=0.18)
        right.hist(
            found.cpu().numpy(), bins, histtype="step", edgecolor=colour, linestyle=line, linewidth=1.8, label=name
        )
    right.set(title=f"{len(found):,} experiments", xlabel="gain of the best, points", ylabel="experiments")
    right.legend(frameon=False, fontsize=9)
    tidy(left, right)
    told = "; ".join(f"{name}: {g.mean():.2f} points on average" for name, g in gains.items())
    return Picture(
        figure,
        f"{len(values)} variants that are the same, with a spread of {spread:g} points between runs: in one experiment "
        f"the best shows {values[-1]:.1f} % for 80.0. The best's gain over the truth, {told}.",
    )


def plot_habits(gains: Mapping[str, Tensor]) -> Picture:
    """What each bad habit gains where nothing is to be gained.

    Args:
        gains: (R,) points in each of R simulated comparisons, by habit.
    """
    if not gains:
        raise ValueError("there is no habit to draw; give at least one, by its name.")
    figure = new_figure(8.5, 0.9 + 0.5 * len(gains))
    ax = figure.subplots()
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    ax.axvline(0, color="black", linewidth=0.8, zorder=0)
    for row, found in enumerate(gains.values()):
        low, high = (found.quantile(q).item() for q in (0.05, 0.95))
        ax.plot([low, high], [row, row], color=SOFT, linewidth=2)
        ax.plot(found.mean().item(), row, "D", color=TEST if found.mean() > 0.05 else TRAIN, markersize=8)
        ax.text(found.mean().item(), row - 0.25, _signed(found.mean().item()), ha="center", fontsize=9, bbox=ground)
    ax.set_yticks(range(len(gains)), gains)
    ax.set_ylim(len(gains) - 0.5, -0.7)
    ax.set(xlabel="gain over an equal rival, points: mean, and the middle 90 %", title="Gains where there is none")
    tidy(ax)
    told = "; ".join(f"{name} {_signed(found.mean().item())}" for name, found in gains.items())
    return Picture(figure, f"Gain over an equal rival, mean in points: {told}.")


def plot_intervals(accuracies: Sequence[float], test_sets: Mapping[str, int]) -> Picture:
    """Half the width of a 95 % interval against the number of test images.

    Args:
        accuracies: a curve each.
        test_sets: marked numbers of images, by name.
    """
    if not accuracies:
        raise ValueError("there is no accuracy to draw a curve for; give at least one.")
    figure = new_figure(8, 3.4)
    ax = figure.subplots()
    n = np.geomspace(100, 100_000, 200)
    for p, (colour, line) in zip(accuracies, KINDS, strict=False):
        ax.plot(n, 100 * Z * np.sqrt(p * (1 - p) / n), line, color=colour, label=f"at an accuracy of {p:.0%}")
    for name, count in test_sets.items():
        ax.axvline(count, color=SOFT, linewidth=0.8, linestyle=(0, (2, 3)))
        ax.text(count * 1.05, 10.5, f"{name}\n{count:,}", fontsize=9, color=SOFT, va="top")
    ax.set(xscale="log", yscale="log", ylim=(0.1, 12), xlabel="test images", ylabel="± points (95 %)")
    ax.set(title="How sure an accuracy is, from the number of test images alone")
    ax.set_yticks([0.1, 0.3, 1, 3, 10], labels=["0.1", "0.3", "1", "3", "10"])
    ax.legend(framealpha=1, edgecolor="white", loc="lower left", fontsize=9)
    tidy(ax)
    p = accuracies[0]
    told = "; ".join(
        f"{name}, {n:,} images, ±{100 * Z * math.sqrt(p * (1 - p) / n):.2f}" for name, n in test_sets.items()
    )
    return Picture(figure, f"Half a 95 % interval in points at an accuracy of {p:.0%}: {told}.")


def plot_paired(right_a: Tensor, right_b: Tensor, names: tuple[str, str]) -> Picture:
    """Two models on the same test images: who is right where, and the difference with both its intervals.

    Args:
        right_a, right_b: (N,) bool, whether each image was answered rightly.
        names: of the two.
    """
    if right_a.shape != right_b.shape or not len(right_a):
        raise ValueError("give both models' answers for the same images, at least one.")
    counts, difference, errors = compare(right_a, right_b)
    figure = new_figure(9.5, 2.7)
    table, ax = figure.subplots(1, 2, width_ratios=[1, 1.9])
    table.imshow(counts, cmap=COUNTS, vmin=0, vmax=counts.max(), aspect="auto")
    for (row, column), value in np.ndenumerate(counts):
        ink = "white" if value > counts.max() / 2 else "black"
        table.text(column, row, str(value), ha="center", va="center", color=ink, fontsize=13)
    table.set_xticks((0, 1), ["right", "wrong"])
    table.set_yticks((0, 1), ["right", "wrong"])
    table.set(title="Images", xlabel=names[1], ylabel=names[0])
    for row, ((name, error), colour) in enumerate(zip(errors.items(), (SOFT, TRAIN), strict=True)):
        ax.errorbar(100 * difference, row, xerr=100 * Z * error, fmt="D", color=colour, capsize=5, markersize=8)
        ax.text(100 * difference, row - 0.22, f"{name}: ± {100 * Z * error:.1f}", ha="center", fontsize=10)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set(ylim=(1.5, -0.6), title="Difference with its 95 % interval", xlabel=f"{names[1]} less {names[0]}, points")
    ax.set_yticks([])
    tidy(ax)
    told = " and ".join(f"{name} ± {100 * Z * error:.1f}" for name, error in errors.items())
    both, only_a, only_b, none = counts.flatten().tolist()
    return Picture(
        figure,
        f"{both} images are right with both, {only_a} only with {names[0]}, {only_b} only with {names[1]}, {none} with "
        f"neither; the difference is {100 * difference:+.1f} points, {told}.".replace("-", "−"),
    )


def compare(right_a: Tensor, right_b: Tensor) -> tuple[np.ndarray, float, dict[str, float]]:
    """Counts [[both, only a], [only b, neither]]; b's accuracy less a's; its standard error, unpaired and paired."""
    a, b = right_a.bool(), right_b.bool()
    counts = np.array([[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]])
    pa, pb = (right.double().mean().item() for right in (a, b))
    d = b.double() - a.double()
    n = len(d)
    unpaired = math.sqrt((pa * (1 - pa) + pb * (1 - pb)) / n)
    return counts, pb - pa, {"as if on other images": unpaired, "paired": d.std().item() / math.sqrt(n)}


# ---- What the paper reports

FUSIONS = {"Hadamard": 83.2, "L1 normalisation": 82.8, "sum": 82.7, "sigmoid": 82.3, "linear to (0, 1]": 82.2}
KERNELS = {"T": (82.8, 83.4), "B": (84.1, 84.5)}
"""Conv2Former's ablations on ImageNet-1k, top-1 in per cent (arXiv 2211.11943): fusions on T; kernel 5 and 21."""
IMAGENET = 50_000  # validation images


def plot_paper() -> Picture:
    """The paper's ablations with the interval that 50,000 test images alone leave."""
    figure = new_figure(9.5, 3.2)
    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
    for row, value in enumerate(FUSIONS.values()):
        colour = TRAIN if not row else TEST
        left.errorbar(value, row, xerr=_half(value), fmt="D", color=colour, capsize=4, markersize=7)
    left.set_yticks(range(len(FUSIONS)), FUSIONS)
    left.set(ylim=(len(FUSIONS) - 0.4, -0.6), xlabel="ImageNet-1k top-1, %", title="How A meets V (Conv2Former-T)")
    for (name, values), (colour, line), shift in zip(KERNELS.items(), KINDS, (-0.2, 0.2), strict=False):
        errors = [_half(value) for value in values]
        xs = [5 + shift, 21 + shift]
        right.errorbar(xs, values, yerr=errors, fmt="D" + line, color=colour, capsize=4, label=f"Conv2Former-{name}")
    right.set_xticks([5, 21])
    right.set(xlim=(2, 24), xlabel="kernel side k", ylabel="top-1, %", title="Kernel side")
    right.set_ylim(82.2, 85.9)
    right.legend(frameon=False, loc="upper left", fontsize=9, ncols=1)
    tidy(left, right)
    fusions = ", ".join(f"{name} {value}" for name, value in FUSIONS.items())
    kernels = ", ".join(f"{name} from {low} to {high}" for name, (low, high) in KERNELS.items())
    return Picture(
        figure,
        f"Published top-1 on ImageNet-1k in per cent; fusions on T: {fusions}; kernel 5 to 21: {kernels}. The bars are "
        f"the 95 % intervals from 50,000 test images, ±{_half(83.2):.2f} points.",
    )


def _half(percent: float) -> float:
    p = percent / 100
    return 100 * Z * math.sqrt(p * (1 - p) / IMAGENET)


# ---- Strokes


def _error(runs: Sequence[float]) -> float:
    """The standard error of the mean, in points."""
    return 100 * stdev(runs) / math.sqrt(len(runs))


def _signed(points: float) -> str:
    """A difference with its sign and a proper minus; 0 has none."""
    return "0.00" if abs(points) < 0.005 else f"{points:+.2f}".replace("-", "−")
