"""The pictures of notebook 02: ConvMod line by line.

Shapes: N images, C channels, H x W positions.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.colors import ListedColormap
from torch import Tensor

from c2f.models.conv2former import fuse
from c2f.picture import SOFT, TEST, TRAIN, Picture, number
from c2f_course.figures.drawing import draw_signed, finish, hide_ticks, show_image, subplots, told
from c2f_course.figures.drawing import plot_reach as plot_reach  # drawn in this notebook too


def plot_lines(
    rows: Mapping[str, Tensor], columns: Sequence[str], title: str, image: Tensor | None = None, one_scale: bool = False
) -> Picture:
    """Signed maps in rows, one line of code each: a few channels side by side, each row on a scale of its own.

    A scale ends where all but one value in two hundred are inside, so that one large value does not make the rest pale.

    rows: name -> (K, H, W), the same K in all. columns: K titles. image: (3, H, W), drawn at the left of the first row.
    one_scale: all rows share the largest of the scales, so that their sizes compare.
    """
    first = int(image is not None)
    width, height = 1.0 + 1.75 * (len(columns) + first), 1.75 * len(rows) + 0.55
    figure, axes = subplots(width, height, len(rows), len(columns) + first, title, 12, squeeze=False)
    limits = [_robust_limit(maps) for maps in rows.values()]
    for line, limit, (name, maps) in zip(axes, limits, rows.items(), strict=True):
        for ax, values in zip(line[first:], maps, strict=True):
            drawn = draw_signed(ax, values, max(limits) if one_scale else limit, interpolation="nearest")
            hide_ticks(ax)
        line[first].set_ylabel(name, fontsize=11, rotation=0, ha="right", va="center", labelpad=8)
        figure.colorbar(drawn, ax=line.tolist(), shrink=0.85, fraction=0.04, aspect=14)
    for ax, text in zip(axes[0, first:], columns, strict=True):
        ax.set_title(text, fontsize=10)
    for ax in axes[:, 0] if first else ():
        ax.axis("off")
    if image is not None:
        axes[0, 0].axis("on")
        show_image(axes[0, 0], image, "image")
    ranges = "; ".join(f"{name} from {number(maps.min())} to {number(maps.max())}" for name, maps in rows.items())
    return Picture(figure, f"{title}: maps of {', '.join(columns)}, in rows: {ranges}.")


NORMS = {
    "channel layer norm": "all channels of one position",
    "GroupNorm, one group": "all channels and positions of one image",
    "BatchNorm": "one channel, all positions and images",
}
"""The norms that `plot_norms` compares, and what shares one mean in each."""


def plot_norms(channels: int = 5, positions: int = 8) -> Picture:
    """Which numbers of a batch are averaged together: two images as tables, one row per channel."""
    title = "Filled: the numbers that share one mean and one standard deviation"
    figure, axes = subplots(9.5, 1.95, 1, len(NORMS), title, 12)
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
    said = "; ".join(f"in {name} {words}" for name, words in NORMS.items())
    return Picture(figure, f"Two images as tables of {channels} channels and {positions} positions. Averaged: {said}.")


def plot_profiles(before: Tensor, after: Tensor, positions: Mapping[str, tuple[int, int]], image: Tensor) -> Picture:
    """All channels at two positions, by name, before a normalisation and after it (C, H, W), and where they are.

    image: (3, H', W'), multiples of H and W.
    """
    figure, (where, *axes) = subplots(9.5, 3.2, 1, 3, width_ratios=[0.8, 1.2, 1.2])
    axes[1].sharey(axes[0])
    show_image(where, image, "the positions", 12)
    step, count, said = image.shape[1] / before.shape[1], len(before), []
    for i, (name, (row, column)) in enumerate(positions.items()):
        style = {"color": (TEST, TRAIN)[i], "fmt": "os"[i]}
        spot = {"color": style["color"], "markersize": 9, "markeredgecolor": "white", "markeredgewidth": 1.5}
        where.plot((column + 0.5) * step, (row + 0.5) * step, style["fmt"], **spot)
        numbers = []
        for ax, values in zip(axes, (before, after), strict=True):
            profile = values[:, row, column].detach().cpu()
            mean, deviation = profile.mean(), profile.std(correction=0)
            ax.plot(profile, style["fmt"], color=style["color"], markersize=3.5, label=name, alpha=0.7)
            ax.errorbar(count * (1.06 + 0.06 * i), mean, deviation, capsize=4, **style)
            numbers.append((number(mean), number(deviation)))
        means, deviations = (" to ".join(pair) for pair in zip(*numbers, strict=True))
        said.append((name, f"mean {means}, standard deviation {deviations}"))
    for ax, text in zip(axes, ("before", "after"), strict=True):
        ax.axhline(0, color="black", linewidth=0.8)
        finish(ax, f"{count} channels, {text}", "channel", "value", grid="")
        ax.set_xticks(range(0, count, max(1, count // 4)))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", frameon=False, ncols=4)
    return Picture(figure, f"Mean and standard deviation (bars) of {count} channels, before and after. {told(said)}.")


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
    title = "Above: what each fusion makes of any A and V. Below: of the photograph (each panel on its own scale)"
    figure, axes = subplots(9.6, 5.3, 2, len(FUSIONS), title, 12)
    said = []
    for (kind, name), (pair, photo) in zip(FUSIONS.items(), axes.T, strict=True):
        draw_signed(pair, fuse(pair_a, pair_v, kind)[0, 0], extent=(-3, 3, -3, 3), interpolation="nearest")
        pair.axhline(0, color="black", linewidth=0.6)
        pair.axvline(0, color="black", linewidth=0.6)
        pair.set(title=name, xlabel="A", xticks=[-3, 0, 3], yticks=[-3, 0, 3])
        fused = fuse(a, v, kind)[0, channel]
        limit = _robust_limit(fused)
        draw_signed(photo, fused, limit, interpolation="nearest")
        photo.set_xlabel(f"colours from {number(-limit)} to {number(limit)}", fontsize=9)
        hide_ticks(photo)
        said.append(f"{name} runs from {number(fused.min())} to {number(fused.max())}")
    axes[0, 0].set_ylabel("V", rotation=0, labelpad=8)
    axes[1, 0].set_ylabel(f"channel {channel}", fontsize=10)
    return Picture(figure, f"Four fusions of the same A and V, channel {channel}: {'; '.join(said)}.")


def plot_convmod_parameters(kernel_size: int = 11, marked: Sequence[int] = (64, 128, 256, 512)) -> Picture:
    """How many numbers the parts of a ConvMod learn, over the channels, the widths `marked` on the lines."""
    widths, marks = np.unique(np.geomspace(16, 1024, 80).round().astype(int)), np.array(marked)
    parts = {
        "norm": lambda c: 2 * c,
        "three 1×1 convolutions": lambda c: 3 * (c * c + c),
        f"{kernel_size}×{kernel_size} depthwise": lambda c: c * (kernel_size**2 + 1),
    }
    figure, ax = subplots(6.8, 3.7)
    for (name, count), (colour, stroke) in zip(parts.items(), ((SOFT, ":"), (TRAIN, "-"), (TEST, "--")), strict=True):
        ax.loglog(widths, count(widths), stroke, color=colour, linewidth=2)
        ax.plot(marks, count(marks), "o", color=colour, markersize=6)
        ax.text(1060, count(1024), name, color=colour, va="center")
    title = f"Where a ConvMod's parameters sit, k = {kernel_size}"
    finish(ax, title, "channels C", "numbers to learn", xlim=(16, 1024))
    ax.set_xticks([16, *marked, 1024], [16, *marked, 1024])
    ax.minorticks_off()
    said = (f"at {c} channels {', '.join(f'{name} {count(c):,}' for name, count in parts.items())}" for c in marked)
    crossing = f"The two convolution lines cross near {(kernel_size**2 - 2) / 3:.0f} channels"
    return Picture(figure, f"{crossing}: {'; '.join(said)}.")


def _robust_limit(values: Tensor) -> float:
    """A size that all but one value in two hundred stay below, or the largest where that would be 0."""
    sizes = values.detach().float().abs().flatten().cpu().numpy()
    return float(np.quantile(sizes, 0.995)) or float(sizes.max()) or 1.0
