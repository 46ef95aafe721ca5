"""The pictures of notebook 02: ConvMod line by line.

Shapes: N images, C channels, H x W positions.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from c2f.maps.picture import AMBER, SIGNED, SKY, SOFT, TEST, TRAIN, WINDOW, Picture, new_figure, number, tidy
from c2f.models.conv2former import fuse

if TYPE_CHECKING:
    from matplotlib.axes import Axes
from c2f_course.figures.notebook_03 import _bare

AMOUNT = "viridis"


def plot_lines(
    rows: Mapping[str, Tensor],
    columns: Sequence[str] = (),
    *,
    image: Tensor | None = None,
    title: str = "",
    one_scale: bool = False,
) -> Picture:
    """Signed maps in rows, a line of code each: a few channels side by side, each row on a scale of its own.

    A scale ends where all but one value in two hundred are inside, so that one bright spot does not pale the rest.

    Args:
        rows: name -> (K, H, W), the same K in all; H and W may differ from row to row.
        columns: K titles, such as "channel 5".
        image: (3, H, W), uint8 or float from 0 to 1, drawn at the left of the first row.
        one_scale: all rows share the largest of the scales, so that their sizes compare.

    Raises ValueError for no rows, rows that are not (K, H, W), and titles that are not K.
    """
    shapes = {name: tuple(maps.shape) for name, maps in rows.items()}
    counts = {shape[0] for shape in shapes.values() if len(shape) == 3}
    if not rows or len(counts) != 1 or any(len(shape) != 3 for shape in shapes.values()):
        raise ValueError(f"the rows have shapes {shapes}; give at least one, each (K, H, W) with the same K.")
    (count,) = counts
    if columns and len(columns) != count:
        raise ValueError(f"there are {count} maps in a row and {len(columns)} titles; give one each, or none.")
    first = image is not None
    figure = new_figure(1.0 + 1.75 * (count + first), 1.75 * len(rows) + 0.35 * bool(title) + 0.2)
    axes = figure.subplots(len(rows), count + first, squeeze=False)
    limits = [_robust_limit(maps) for maps in rows.values()]
    for i, (name, maps) in enumerate(rows.items()):
        limit = max(limits) if one_scale else limits[i]
        for ax, values in zip(axes[i, int(first) :], maps.detach().cpu(), strict=True):
            drawn = ax.imshow(values.cpu().numpy(), cmap=SIGNED, vmin=-limit, vmax=limit, interpolation="nearest")
            _bare(ax)
        axes[i, int(first)].set_ylabel(name, fontsize=11, rotation=0, ha="right", va="center", labelpad=8)
        figure.colorbar(drawn, ax=axes[i, :].tolist(), shrink=0.85, fraction=0.04, aspect=14)
    for ax, text in zip(axes[0, int(first) :], columns, strict=False):
        ax.set_title(text, fontsize=10)
    if first:
        axes[0, 0].imshow(image.permute(1, 2, 0).cpu().numpy(), vmin=0)
        axes[0, 0].set_title("photograph", fontsize=10)
        _bare(axes[0, 0])
        for ax in axes[1:, 0]:
            ax.axis("off")
    figure.suptitle(title, fontsize=12)
    ranges = "; ".join(f"{name} from {number(maps.min())} to {number(maps.max())}" for name, maps in rows.items())
    listed = f" of {', '.join(columns)}" if columns else ""
    return Picture(figure, f"{title + ': ' if title else ''}maps{listed}, in rows: {ranges}.")


NORMS = {
    "channel layer norm": "all channels of one position",
    "GroupNorm, one group": "all channels and positions of one image",
    "BatchNorm": "one channel, all positions and images",
}
"""The norms that `plot_norms` compares, and what shares one mean in each."""


def plot_norms(channels: int = 5, positions: int = 8) -> Picture:
    """Which numbers of a batch are averaged together: two images as tables, a row a channel, a column a position.

    Raises ValueError for fewer than two channels or positions, where the norms could not be told apart.
    """
    if min(channels, positions) < 2:
        raise ValueError(f"{channels} channels and {positions} positions are too few to compare; use 2 or more each.")
    figure = new_figure(9.5, 1.95)
    axes = figure.subplots(1, len(NORMS))
    for ax, (name, shared) in zip(axes, NORMS.items(), strict=True):
        for image, left in enumerate((0.0, positions + 1.2)):
            for row in range(channels):
                for column in range(positions):
                    lit = {
                        "channel layer norm": image == 0 and column == 2,
                        "GroupNorm, one group": image == 0,
                        "BatchNorm": row == 1,
                    }[name]
                    _cell(ax, left + column, row, TEST if lit else "white")
            ax.text(
                left + positions / 2, channels + 0.25, f"positions of image {image}", ha="center", va="top", fontsize=8
            )
        ax.set(xlim=(-1.6, 2 * positions + 1.5), ylim=(channels + 2.9, -0.3), aspect="equal")
        ax.set_title(name, fontsize=11)
        ax.text(positions + 0.6, channels + 1.5, shared, ha="center", va="top", fontsize=9, color=TEST)
        ax.text(-0.5, channels / 2, "channels", ha="right", va="center", rotation=90, fontsize=8)
        _bare(ax, frame=False)
    figure.suptitle("Filled: the numbers that share one mean and one spread", fontsize=12)
    told = "; ".join(f"in {name} {shared}" for name, shared in NORMS.items())
    return Picture(figure, f"Two images as tables of {channels} channels and {positions} positions. Averaged: {told}.")


def plot_profiles(before: Tensor, after: Tensor, positions: Mapping[str, tuple[int, int]], image: Tensor) -> Picture:
    """All channels at a few positions, before a normalisation and after it, and where on the image that is.

    Args:
        before, after: (C, H, W).
        positions: name -> (row, column) on the map; two to four.
        image: (3, H', W'), uint8 or float from 0 to 1; H' and W' multiples of H and W.

    Raises ValueError where the two differ in shape, or for positions that are too many or outside.
    """
    if before.ndim != 3 or before.shape != after.shape:
        raise ValueError(f"before is {tuple(before.shape)} and after {tuple(after.shape)}; both must be one (C, H, W).")
    height, width = before.shape[1:]
    inside = all(0 <= row < height and 0 <= column < width for row, column in positions.values())
    if not (2 <= len(positions) <= 4 and inside):
        raise ValueError(f"the positions are {dict(positions)}; give two to four on the {height}×{width} map.")
    figure = new_figure(9.5, 3.2)
    grid = figure.add_gridspec(1, 3, width_ratios=[0.8, 1.2, 1.2])
    axes = [figure.add_subplot(grid[i]) for i in range(3)]
    axes[2].sharey(axes[1])
    colours, markers = (TEST, TRAIN, WINDOW, AMBER), "osD^"
    axes[0].imshow(image.permute(1, 2, 0).cpu().numpy(), vmin=0)
    axes[0].set(title="the positions")
    _bare(axes[0])
    step = image.shape[1] / height
    said = []
    for i, ((name, (row, column)), colour, marker) in enumerate(zip(positions.items(), colours, markers, strict=False)):
        spot = ((column + 0.5) * step, (row + 0.5) * step)
        axes[0].plot(*spot, marker, color=colour, markersize=9, markeredgecolor="white", markeredgewidth=1.5)
        for ax, values in zip(axes[1:], (before, after), strict=True):
            profile = values[:, row, column].detach().cpu()
            ax.plot(profile, marker, color=colour, markersize=3.5, label=name, alpha=0.7)
            beside = len(before) * (1.06 + 0.06 * i)
            ax.errorbar(beside, profile.mean(), profile.std(correction=0), fmt=marker, color=colour, capsize=4)
        numbers = [(v[:, row, column].mean(), v[:, row, column].std(correction=0)) for v in (before, after)]
        (mean, deviation), (new_mean, new_deviation) = [[number(value) for value in pair] for pair in numbers]
        said.append(f"{name}: mean {mean} to {new_mean}, spread {deviation} to {new_deviation}")
    for ax, text in zip(axes[1:], ("before", "after"), strict=True):
        ax.axhline(0, color="black", linewidth=0.8)
        ax.set(title=f"{len(before)} channels, {text}", xlabel="channel", ylabel="value")
        tidy(ax, grid="")
        ax.set_xticks(range(0, len(before), max(1, len(before) // 4)))
    handles, labels = axes[1].get_legend_handles_labels()
    figure.legend(handles[: len(positions)], labels[: len(positions)], loc="outside lower left", frameon=False, ncols=4)
    return Picture(figure, f"Mean and spread (bars) of {len(before)} channels, before and after. {'; '.join(said)}.")


def plot_gelu(values: Tensor) -> Picture:
    """GELU's curve, and below it how often each input occurs among `values` (any shape, real inputs of a GELU)."""
    values = values.detach().flatten().cpu()
    if not len(values):
        raise ValueError("there are no values; give what goes into the GELU, such as convmod.a[0](x).")
    ends = values.double().quantile(torch.tensor([0.001, 0.999], dtype=torch.float64)) if len(values) < 10**6 else None
    low, high = (-4.0, 4.0) if ends is None else (min(-3.0, float(ends[0])), max(3.0, float(ends[1])))
    x = torch.linspace(low, high, 400)
    figure = new_figure(6.2, 3.6)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    top.plot(x, x.clamp(min=0), color=SOFT, linestyle="--", linewidth=1.2, label="ReLU, for comparison")
    top.plot(x, F.gelu(x), color=TEST, linewidth=2, label="GELU")
    lowest = F.gelu(x).min()
    top.axhline(0, color="black", linewidth=0.8)
    top.set(title="GELU, and what goes into it here", ylabel="what comes out")
    top.legend(frameon=False, fontsize=9)
    bottom.hist(values.cpu().numpy(), bins=80, range=(low, high), color=SKY)
    bottom.set(xlabel="what goes in", ylabel="how many", yticks=[])
    for ax in (top, bottom):
        ax.axvline(0, color="black", linewidth=0.8)
        tidy(ax, grid="")
    below = (values < 0).float().mean().item()
    return Picture(
        figure,
        f"GELU passes large positive numbers as they are, silences large negative ones and never falls below "
        f"{number(lowest)}; of the {len(values):,} numbers that go in here, {below:.0%} are below zero.",
    )


def plot_reach(changes: Mapping[str, Tensor], position: tuple[int, int]) -> Picture:
    """Where the output changes when one position of the input does, and at how many positions.

    Args:
        changes: title -> (C, H, W), output after minus output before.
        position: (row, column) of what was changed.

    Raises ValueError for no changes, and for a map that is not (C, H, W) or has no change in it.
    """
    from matplotlib.colors import LogNorm

    if not changes or any(change.ndim != 3 or not change.any() for change in changes.values()):
        raise ValueError("give at least one change of shape (C, H, W) that is not zero everywhere.")
    figure = new_figure(3.1 * len(changes) + 0.4, 3.4)
    axes = figure.subplots(1, len(changes), squeeze=False)[0]
    said = []
    for ax, (title, change) in zip(axes, changes.items(), strict=True):
        size = change.detach().cpu().abs().mean(0)
        reached = int((size > 0).sum())
        largest = size.max().item()
        shown = np.ma.masked_equal(size.cpu().numpy(), 0)
        drawn = ax.imshow(shown, cmap=AMOUNT, norm=LogNorm(largest / 1e4, largest))
        ax.plot(position[1], position[0], "s", markersize=5, markerfacecolor="none", markeredgecolor="#D55E00")
        ax.set(title=f"{title}\n{reached:,} position{'s' * (reached != 1)}", xlabel="column", ylabel="row")
        said.append(f"{title}: {reached:,} of {size.numel():,} positions change")
    bar = figure.colorbar(drawn, ax=axes.tolist(), shrink=0.7, ticks=[largest / 1e4, largest / 1e2, largest])
    bar.ax.set_yticklabels(["1/10,000", "1/100", "largest"])
    bar.ax.minorticks_off()
    bar.set_label("size of the change,\neach map by itself")
    return Picture(figure, f"One position is changed, row {position[0]}, column {position[1]}. {'; '.join(said)}.")


FUSIONS = {"hadamard": "Hadamard: A ⊙ V", "sum": "sum: A + V", "sigmoid": "sigmoid(A) ⊙ V", "l1": "L1: A / Σ|A| ⊙ V"}


PAPER_FUSIONS = {
    "Hadamard": 83.2,
    "L1 normalised": 82.8,
    "sum": 82.7,
    "sigmoid": 82.3,
    "linear to (0, 1]": 82.2,
}
"""ImageNet-1k top-1 of Conv2Former-T in per cent, arXiv 2211.11943, the ablation of the fusion."""


def plot_fusions(a: Tensor, v: Tensor, channel: int) -> Picture:
    """Four ways for A to meet V: what each makes of any pair of numbers, and of one channel of a photograph.

    L1 divides by the sum over all channels, so for its upper panel the other channels' share is set to its median.

    Args:
        a, v: (C, H, W), of one image.
        channel: which one is drawn.

    Raises ValueError for other shapes, or a channel that is not there.
    """
    if a.ndim != 3 or a.shape != v.shape or not 0 <= channel < len(a):
        raise ValueError(f"a is {tuple(a.shape)}, v {tuple(v.shape)}, channel {channel}; use one (C, H, W), 0 ≤ c < C.")
    a, v = a.detach().cpu()[None], v.detach().cpu()[None]
    reach = 3.0
    line = torch.linspace(-reach, reach, 61)
    one_v, one_a = torch.meshgrid(line.flip(0), line, indexing="ij")  # v upwards, a to the right
    others = (a.abs().sum(1) - a[:, channel].abs()).median()
    figure = new_figure(9.6, 5.3)
    axes = figure.subplots(2, len(FUSIONS))
    said = []
    for (kind, title), (pair, photo) in zip(FUSIONS.items(), axes.T, strict=True):
        stacked = torch.stack([one_a, others.expand_as(one_a)])[None]  # a second channel stands for all the others
        made = fuse(stacked, torch.stack([one_v, one_v])[None], kind)[0, 0]
        _signed(pair, made, made.abs().max().item(), extent=(-reach, reach, -reach, reach))
        pair.axhline(0, color="black", linewidth=0.6)
        pair.axvline(0, color="black", linewidth=0.6)
        pair.set(title=title, xlabel="A")
        pair.set_xticks([-3, 0, 3])
        pair.set_yticks([-3, 0, 3])
        fused = fuse(a, v, kind)[0, channel]
        limit = _robust_limit(fused)
        _signed(photo, fused, limit)
        photo.set_xlabel(f"colours from {number(-limit)} to {number(limit)}", fontsize=9)
        _bare(photo)
        said.append(f"{title} runs from {number(fused.min())} to {number(fused.max())}")
    axes[0, 0].set_ylabel("V", rotation=0, labelpad=8)
    axes[1, 0].set_ylabel(f"channel {channel}", fontsize=10)
    figure.suptitle(
        "Above: what each fusion makes of any A and V. Below: of the photograph (each panel on its own scale)",
        fontsize=12,
    )
    return Picture(figure, f"Four fusions of the same A and V, channel {channel}: {'; '.join(said)}.")


def plot_paper_fusions() -> Picture:
    """The paper's ablation of the fusion, each number a dot."""
    figure = new_figure(7.2, 2.6)
    ax = figure.subplots()
    names, values = list(PAPER_FUSIONS), list(PAPER_FUSIONS.values())
    heights = range(len(names))[::-1]
    best = max(values)
    ax.hlines(heights, values, best, color="#BBBBBB", linewidth=1.5)
    ax.plot(values, heights, "o", color=TRAIN, markersize=8)
    for value, y in zip(values, heights, strict=True):
        ax.text(value - 0.06, y, f"{value:.1f}", ha="right", va="center", fontsize=10)
    ax.axvline(best, color=SOFT, linestyle="--", linewidth=1)
    ax.set_yticks(heights, names)
    ax.set(
        xlim=(81.8, 83.4),
        ylim=(-0.6, len(names) - 0.4),
        xlabel="ImageNet-1k top-1 in % (the axis does not begin at 0)",
        title="Conv2Former-T, one fusion changed (arXiv 2211.11943)",
    )
    tidy(ax, grid="")
    told = ", ".join(f"{name} {value}" for name, value in PAPER_FUSIONS.items())
    return Picture(figure, f"ImageNet-1k top-1 of Conv2Former-T in per cent, as the paper prints it: {told}.")


def convmod_parameters(channels: int, kernel_size: int) -> dict[str, int]:
    """How many numbers each part of one ConvMod learns: the norm, the three 1x1 convolutions, the depthwise one."""
    if channels < 1 or kernel_size < 1:
        raise ValueError(f"{channels} channels and a kernel of {kernel_size}: use 1 or more of each.")
    return {
        "norm": 2 * channels,
        "three 1×1 convolutions": 3 * (channels * channels + channels),
        f"{kernel_size}×{kernel_size} depthwise": channels * (kernel_size * kernel_size + 1),
    }


def plot_convmod_parameters(kernel_size: int = 11, marked: Sequence[int] = (64, 128, 256, 512)) -> Picture:
    """How the parts of a ConvMod grow with the channels, the widths `marked` on the lines."""
    if not marked:
        raise ValueError("there is no width to mark; give the channels of some stages, such as (64, 128).")
    widths = np.unique(np.geomspace(16, 1024, 80).round().astype(int))
    figure = new_figure(6.8, 3.7)
    ax = figure.subplots()
    styles = {0: (SOFT, ":"), 1: (TRAIN, "-"), 2: (TEST, "--")}
    counted = [convmod_parameters(int(width), kernel_size) for width in marked]
    for i, name in enumerate(counted[0]):
        colour, style = styles[i]
        ax.plot(widths, [list(convmod_parameters(int(w), kernel_size).values())[i] for w in widths], style,
                color=colour, linewidth=2)  # fmt: skip
        ax.plot(marked, [parts[name] for parts in counted], "o", color=colour, markersize=6)
        ax.text(1060, list(convmod_parameters(1024, kernel_size).values())[i], name, color=colour, va="center")
    ax.set(
        xscale="log", yscale="log", xlim=(16, 1024), xlabel="channels C", ylabel="numbers to learn",
        title=f"Where a ConvMod's parameters sit, k = {kernel_size}",
    )  # fmt: skip
    ax.set_xticks([16, *marked, 1024], [str(width) for width in (16, *marked, 1024)])
    ax.minorticks_off()
    ax.grid(alpha=0.25)
    tidy(ax, grid="")
    even = (kernel_size**2 - 2) / 3
    told = "; ".join(
        f"at {c} channels {', '.join(f'{n} {v:,}' for n, v in parts.items())}"
        for c, parts in zip(marked, counted, strict=True)
    )
    return Picture(figure, f"The two convolution lines cross near {even:.0f} channels: {told}.")


def _cell(ax: "Axes", x: float, y: float, colour: str) -> None:
    from matplotlib.patches import Rectangle

    ax.add_patch(Rectangle((x, y), 1, 1, facecolor=colour, edgecolor="#999999", linewidth=0.7))


def _signed(ax: "Axes", values: Tensor, limit: float, extent: tuple[float, float, float, float] | None = None) -> None:
    ax.imshow(values.cpu().numpy(), cmap=SIGNED, vmin=-limit, vmax=limit, extent=extent, interpolation="nearest")


def _robust_limit(values: Tensor) -> float:
    """A size that all but one value in two hundred stay below, or the largest where that would be 0."""
    sizes = values.detach().float().abs().flatten().cpu().numpy()
    return float(np.quantile(sizes, 0.995)) or float(sizes.max()) or 1.0
