"""The pictures of notebook 02: ConvMod line by line.

Shapes: N images, C channels, H x W positions.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from torch import Tensor

from c2f.maps.picture import SIGNED, SKY, SOFT, TEST, TRAIN, Picture, number, tidy
from c2f.models.conv2former import fuse
from c2f_course.figures.drawing import hide_ticks, show_image, subplots
from c2f_course.figures.drawing import plot_reach as plot_reach  # drawn in this notebook too


def plot_lines(
    rows: Mapping[str, Tensor], columns: Sequence[str], title: str, image: Tensor | None = None, one_scale: bool = False
) -> Picture:
    """Signed maps in rows, a line of code each: a few channels side by side, each row on a scale of its own.

    A scale ends where all but one value in two hundred are inside, so that one bright spot does not pale the rest.

    rows: name -> (K, H, W), the same K in all. columns: K titles. image: (3, H, W), drawn at the left of the first row.
    one_scale: all rows share the largest of the scales, so that their sizes compare.
    """
    first = int(image is not None)
    width, height = 1.0 + 1.75 * (len(columns) + first), 1.75 * len(rows) + 0.55
    figure, axes = subplots(width, height, len(rows), len(columns) + first, squeeze=False)
    limits = [_robust_limit(maps) for maps in rows.values()]
    for i, (line, (name, maps)) in enumerate(zip(axes, rows.items(), strict=True)):
        for ax, values in zip(line[first:], maps, strict=True):
            drawn = _draw_signed(ax, values, max(limits) if one_scale else limits[i])
            hide_ticks(ax)
        line[first].set_ylabel(name, fontsize=11, rotation=0, ha="right", va="center", labelpad=8)
        figure.colorbar(drawn, ax=line.tolist(), shrink=0.85, fraction=0.04, aspect=14)
    for ax, text in zip(axes[0, first:], columns, strict=True):
        ax.set_title(text, fontsize=10)
    if image is not None:
        show_image(axes[0, 0], image, "photograph")
        for ax in axes[1:, 0]:
            ax.axis("off")
    figure.suptitle(title, fontsize=12)
    ranges = "; ".join(f"{name} from {number(maps.min())} to {number(maps.max())}" for name, maps in rows.items())
    return Picture(figure, f"{title}: maps of {', '.join(columns)}, in rows: {ranges}.")


NORMS = {
    "channel layer norm": "all channels of one position",
    "GroupNorm, one group": "all channels and positions of one image",
    "BatchNorm": "one channel, all positions and images",
}
"""The norms that `plot_norms` compares, and what shares one mean in each."""


def plot_norms(channels: int = 5, positions: int = 8) -> Picture:
    """Which numbers of a batch are averaged together: two images as tables, a row a channel, a column a position."""
    figure, axes = subplots(9.5, 1.95, 1, len(NORMS))
    shared = np.zeros((len(NORMS), 2, channels, positions))  # 1 where a number shares the mean
    shared[0, 0, :, 2] = shared[1, 0] = shared[2, :, 1] = 1
    for ax, tables, (name, words) in zip(axes, shared, NORMS.items(), strict=True):
        for image, table in enumerate(tables):
            left = image * (positions + 1.2)
            style = {"cmap": ListedColormap(["white", TEST]), "edgecolor": "#999999", "linewidth": 0.7}
            ax.pcolormesh(np.arange(positions + 1) + left, range(channels + 1), table, vmin=0, vmax=1, **style)
            text = {"ha": "center", "va": "top", "fontsize": 8}
            ax.text(left + positions / 2, channels + 0.25, f"positions of image {image}", **text)
        ax.set(xlim=(-1.6, 2 * positions + 1.5), ylim=(channels + 2.9, -0.3), aspect="equal")
        ax.set_title(name, fontsize=11)
        ax.text(positions + 0.6, channels + 1.5, words, ha="center", va="top", fontsize=9, color=TEST)
        ax.text(-0.5, channels / 2, "channels", ha="right", va="center", rotation=90, fontsize=8)
        hide_ticks(ax, frame=False)
    figure.suptitle("Filled: the numbers that share one mean and one spread", fontsize=12)
    told = "; ".join(f"in {name} {words}" for name, words in NORMS.items())
    return Picture(figure, f"Two images as tables of {channels} channels and {positions} positions. Averaged: {told}.")


def plot_profiles(before: Tensor, after: Tensor, positions: Mapping[str, tuple[int, int]], image: Tensor) -> Picture:
    """All channels at a few positions, before a normalisation and after it, and where on the image that is.

    before, after: (C, H, W). positions: two, name -> (row, column). image: (3, H', W'), multiples of H and W.
    """
    figure, (where, *axes) = subplots(9.5, 3.2, 1, 3, width_ratios=[0.8, 1.2, 1.2])
    axes[1].sharey(axes[0])
    show_image(where, image, "the positions", 12)
    step = image.shape[1] / before.shape[1]
    said = []
    for i, (name, (row, column)) in enumerate(positions.items()):
        colour, marker = (TEST, TRAIN)[i], "os"[i]
        spot = ((column + 0.5) * step, (row + 0.5) * step)
        where.plot(*spot, marker, color=colour, markersize=9, markeredgecolor="white", markeredgewidth=1.5)
        numbers = []
        for ax, values in zip(axes, (before, after), strict=True):
            profile = values[:, row, column].detach().cpu()
            mean, deviation = profile.mean(), profile.std(correction=0)
            ax.plot(profile, marker, color=colour, markersize=3.5, label=name, alpha=0.7)
            beside = len(before) * (1.06 + 0.06 * i)
            ax.errorbar(beside, mean, deviation, fmt=marker, color=colour, capsize=4)
            numbers.append((number(mean), number(deviation)))
        means, deviations = (" to ".join(pair) for pair in zip(*numbers, strict=True))
        said.append(f"{name}: mean {means}, spread {deviations}")
    for ax, text in zip(axes, ("before", "after"), strict=True):
        ax.axhline(0, color="black", linewidth=0.8)
        ax.set(title=f"{len(before)} channels, {text}", xlabel="channel", ylabel="value")
        ax.set_xticks(range(0, len(before), max(1, len(before) // 4)))
        tidy(ax, grid="")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", frameon=False, ncols=4)
    return Picture(figure, f"Mean and spread (bars) of {len(before)} channels, before and after. {'; '.join(said)}.")


def plot_gelu(values: Tensor) -> Picture:
    """GELU's curve, and below it how often each input occurs among `values` (any shape, real inputs of a GELU)."""
    values = values.detach().flatten().cpu()
    ends = np.quantile(values.double().numpy(), (0.001, 0.999))
    low, high = min(-3.0, ends[0]), max(3.0, ends[1])
    x = torch.linspace(low, high, 400)
    figure, (top, bottom) = subplots(6.2, 3.6, 2, 1, sharex=True, height_ratios=[2, 1])
    top.plot(x, x.clamp(min=0), color=SOFT, linestyle="--", linewidth=1.2, label="ReLU, for comparison")
    top.plot(x, F.gelu(x), color=TEST, linewidth=2, label="GELU")
    top.axhline(0, color="black", linewidth=0.8)
    top.set(title="GELU, and what goes into it here", ylabel="what comes out")
    top.legend(frameon=False, fontsize=9)
    bottom.hist(values.numpy(), bins=80, range=(low, high), color=SKY)
    bottom.set(xlabel="what goes in", ylabel="how many", yticks=[])
    for ax in (top, bottom):
        ax.axvline(0, color="black", linewidth=0.8)
        tidy(ax, grid="")
    below = (values < 0).float().mean().item()
    return Picture(
        figure,
        f"GELU passes large positive numbers as they are, silences large negative ones and never falls below "
        f"{number(F.gelu(x).min())}; of the {len(values):,} numbers that go in here, {below:.0%} are below zero.",
    )


FUSIONS = {"hadamard": "Hadamard: A ⊙ V", "sum": "sum: A + V", "sigmoid": "sigmoid(A) ⊙ V", "l1": "L1: A / Σ|A| ⊙ V"}

PAPER_FUSIONS = {"Hadamard": 83.2, "L1 normalised": 82.8, "sum": 82.7, "sigmoid": 82.3, "linear to (0, 1]": 82.2}
"""ImageNet-1k top-1 of Conv2Former-T in per cent, arXiv 2211.11943, the ablation of the fusion."""


def plot_fusions(a: Tensor, v: Tensor, channel: int) -> Picture:
    """Four ways for A to meet V, each (C, H, W): of any pair of numbers, and of one channel of a photograph.

    L1 divides by the sum over all channels, so for its upper panel the other channels' share is set to its median.
    """
    a, v = a.detach().cpu()[None], v.detach().cpu()[None]
    line = torch.linspace(-3, 3, 61)
    one_v, one_a = torch.meshgrid(line.flip(0), line, indexing="ij")  # v upwards, a to the right
    others = (a.abs().sum(1) - a[:, channel].abs()).median()
    pair_a = torch.stack([one_a, others.expand_as(one_a)])[None]  # a second channel stands for all the others
    pair_v = torch.stack([one_v, one_v])[None]
    figure, axes = subplots(9.6, 5.3, 2, len(FUSIONS))
    said = []
    for (kind, title), (pair, photo) in zip(FUSIONS.items(), axes.T, strict=True):
        made = fuse(pair_a, pair_v, kind)[0, 0]
        _draw_signed(pair, made, made.abs().max().item(), extent=(-3, 3, -3, 3))
        pair.axhline(0, color="black", linewidth=0.6)
        pair.axvline(0, color="black", linewidth=0.6)
        pair.set(title=title, xlabel="A", xticks=[-3, 0, 3], yticks=[-3, 0, 3])
        fused = fuse(a, v, kind)[0, channel]
        limit = _robust_limit(fused)
        _draw_signed(photo, fused, limit)
        photo.set_xlabel(f"colours from {number(-limit)} to {number(limit)}", fontsize=9)
        hide_ticks(photo)
        said.append(f"{title} runs from {number(fused.min())} to {number(fused.max())}")
    axes[0, 0].set_ylabel("V", rotation=0, labelpad=8)
    axes[1, 0].set_ylabel(f"channel {channel}", fontsize=10)
    title = "Above: what each fusion makes of any A and V. Below: of the photograph (each panel on its own scale)"
    figure.suptitle(title, fontsize=12)
    return Picture(figure, f"Four fusions of the same A and V, channel {channel}: {'; '.join(said)}.")


def plot_paper_fusions() -> Picture:
    """The paper's ablation of the fusion, each number a dot."""
    names, values = list(PAPER_FUSIONS), list(PAPER_FUSIONS.values())
    figure, ax = subplots(7.2, 2.6)
    ax.hlines(names, values, max(values), color="#BBBBBB", linewidth=1.5)
    ax.plot(values, names, "o", color=TRAIN, markersize=8)
    for name, value in PAPER_FUSIONS.items():
        ax.text(value - 0.06, name, f"{value:.1f}", ha="right", va="center", fontsize=10)
    ax.axvline(max(values), color=SOFT, linestyle="--", linewidth=1)
    ax.set(
        xlim=(81.8, 83.4),
        ylim=(len(names) - 0.4, -0.6),
        xlabel="ImageNet-1k top-1 in % (the axis does not begin at 0)",
        title="Conv2Former-T, one fusion changed (arXiv 2211.11943)",
    )
    tidy(ax, grid="")
    told = ", ".join(f"{name} {value}" for name, value in PAPER_FUSIONS.items())
    return Picture(figure, f"ImageNet-1k top-1 of Conv2Former-T in per cent, as the paper prints it: {told}.")


def convmod_parameters(channels: int, kernel_size: int) -> dict[str, int]:
    """How many numbers each part of one ConvMod learns: the norm, the three 1x1 convolutions, the depthwise one."""
    return {
        "norm": 2 * channels,
        "three 1×1 convolutions": 3 * (channels * channels + channels),
        f"{kernel_size}×{kernel_size} depthwise": channels * (kernel_size * kernel_size + 1),
    }


def plot_convmod_parameters(kernel_size: int = 11, marked: Sequence[int] = (64, 128, 256, 512)) -> Picture:
    """How the parts of a ConvMod grow with the channels, the widths `marked` on the lines."""
    widths = np.unique(np.geomspace(16, 1024, 80).round().astype(int))
    figure, ax = subplots(6.8, 3.7)
    grown, counted = convmod_parameters(widths, kernel_size), convmod_parameters(np.array(marked), kernel_size)
    for (name, values), (colour, stroke) in zip(grown.items(), ((SOFT, ":"), (TRAIN, "-"), (TEST, "--")), strict=True):
        ax.loglog(widths, values, stroke, color=colour, linewidth=2)
        ax.plot(marked, counted[name], "o", color=colour, markersize=6)
        ax.text(1060, values[-1], name, color=colour, va="center")
    ax.set(
        xlim=(16, 1024),
        xlabel="channels C",
        ylabel="numbers to learn",
        title=f"Where a ConvMod's parameters sit, k = {kernel_size}",
    )
    ax.set_xticks([16, *marked, 1024], [16, *marked, 1024])
    ax.minorticks_off()
    tidy(ax)
    told = "; ".join(
        f"at {c} channels {', '.join(f'{name} {values[i]:,}' for name, values in counted.items())}"
        for i, c in enumerate(marked)
    )
    return Picture(figure, f"The two convolution lines cross near {(kernel_size**2 - 2) / 3:.0f} channels: {told}.")


def _draw_signed(ax: Axes, values: Tensor, limit: float, **style: object):
    style = {"cmap": SIGNED, "vmin": -limit, "vmax": limit, "interpolation": "nearest"} | style
    return ax.imshow(values.detach().cpu().numpy(), **style)


def _robust_limit(values: Tensor) -> float:
    """A size that all but one value in two hundred stay below, or the largest where that would be 0."""
    sizes = values.detach().float().abs().flatten().cpu().numpy()
    return float(np.quantile(sizes, 0.995)) or float(sizes.max()) or 1.0
