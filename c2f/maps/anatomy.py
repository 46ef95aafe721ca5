"""ConvMod and Conv2Former taken apart: what each line does to a photograph, who reaches whom, and where the cost sits.

These are the drawings of notebooks 02 and 03. Shapes: N images, C channels, H x W positions of a map.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f.maps.picture import Picture
from c2f.maps.plots import SIGNED, SOFT, TEST, TRAIN, WINDOW
from c2f.models import VARIANTS, Conv2Former, Conv2FormerConfig
from c2f.models.conv2former import STEM_STRIDE, Block, fuse
from c2f.models.cost import MultiplyAdds, count_parameters, multiply_adds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SKY, AMBER = "#56B4E9", "#E69F00"  # two more of Okabe and Ito's
AMOUNT = "viridis"

# ---- ConvMod, line by line


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
    figure = _figure(1.0 + 1.75 * (count + first), 1.75 * len(rows) + 0.35 * bool(title) + 0.2)
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
    ranges = "; ".join(f"{name} from {_n(maps.min())} to {_n(maps.max())}" for name, maps in rows.items())
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
    figure = _figure(9.5, 1.95)
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
    figure = _figure(9.5, 3.2)
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
        said.append(f"{name}: mean {_n(numbers[0][0])} to {_n(numbers[1][0])}, spread {_n(numbers[0][1])} to "
                    f"{_n(numbers[1][1])}")  # fmt: skip
    for ax, text in zip(axes[1:], ("before", "after"), strict=True):
        ax.axhline(0, color="black", linewidth=0.8)
        ax.set(title=f"{len(before)} channels, {text}", xlabel="channel", ylabel="value")
        _open(ax)
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
    figure = _figure(6.2, 3.6)
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
        _open(ax)
    below = (values < 0).float().mean().item()
    return Picture(
        figure,
        f"GELU passes large positive numbers as they are, silences large negative ones and never falls below "
        f"{_n(lowest)}; of the {len(values):,} numbers that go in here, {below:.0%} are below zero.",
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
    figure = _figure(3.1 * len(changes) + 0.4, 3.4)
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


# ---- Fusion

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
    figure = _figure(9.6, 5.3)
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
        photo.set_xlabel(f"colours from {_n(-limit)} to {_n(limit)}", fontsize=9)
        _bare(photo)
        said.append(f"{title} runs from {_n(fused.min())} to {_n(fused.max())}")
    axes[0, 0].set_ylabel("V", rotation=0, labelpad=8)
    axes[1, 0].set_ylabel(f"channel {channel}", fontsize=10)
    figure.suptitle(
        "Above: what each fusion makes of any A and V. Below: of the photograph (each panel on its own scale)",
        fontsize=12,
    )
    return Picture(figure, f"Four fusions of the same A and V, channel {channel}: {'; '.join(said)}.")


def plot_paper_fusions() -> Picture:
    """The paper's ablation of the fusion, each number a dot."""
    figure = _figure(7.2, 2.6)
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
    _open(ax)
    told = ", ".join(f"{name} {value}" for name, value in PAPER_FUSIONS.items())
    return Picture(figure, f"ImageNet-1k top-1 of Conv2Former-T in per cent, as the paper prints it: {told}.")


# ---- Parameters of one ConvMod


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
    figure = _figure(6.8, 3.7)
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
    _open(ax)
    even = (kernel_size**2 - 2) / 3
    told = "; ".join(
        f"at {c} channels {', '.join(f'{n} {v:,}' for n, v in parts.items())}"
        for c, parts in zip(marked, counted, strict=True)
    )
    return Picture(figure, f"The two convolution lines cross near {even:.0f} channels: {told}.")


# ---- The network as a pyramid


def plot_stages(image: Tensor, config: Conv2FormerConfig, image_size: tuple[int, int] = (32, 32)) -> Picture:
    """What one position stands for in each stage, and how much of the image its ConvMod's window covers.

    Args:
        image: (3, H, W), uint8 or float from 0 to 1, in any resolution: it is only the ground.
        config: whose strides, channels and kernel are drawn.
        image_size: (H, W) in pixels of what the network would be given.

    Raises ValueError for an image size that is no multiple of the config's stride.
    """
    height, width = image_size
    if height % config.stride or width % config.stride or min(height, width) < 1:
        raise ValueError(f"a {height}×{width} image cannot be halved: use multiples of {config.stride}.")
    from matplotlib.patches import Rectangle

    figure = _figure(2.45 * len(config.dims) + 0.2, 3.3)
    axes = figure.subplots(1, len(config.dims), squeeze=False)[0]
    k, said = config.kernel_size, []
    last = STEM_STRIDE[config.stem] * 2 ** (len(config.dims) - 1)
    outside = max(0, k // 2 * last - min(height, width) // 2) + 0.06 * max(height, width)
    for i, (ax, dim) in enumerate(zip(axes, config.dims, strict=True)):
        stride = STEM_STRIDE[config.stem] * 2**i
        rows, columns = height // stride, width // stride
        ax.imshow(image.permute(1, 2, 0).cpu().numpy(), vmin=0, extent=(0, width, height, 0), alpha=0.75)
        if stride > 1:
            ax.hlines(range(0, height + 1, stride), 0, width, color="white", linewidth=0.35)
            ax.vlines(range(0, width + 1, stride), 0, height, color="white", linewidth=0.35)
        top, left = rows // 2 * stride, columns // 2 * stride
        ax.add_patch(Rectangle((left, top), stride, stride, facecolor=TEST, edgecolor=TEST, linewidth=1.5, zorder=3))
        reach = k // 2 * stride
        corner = (left - reach, top - reach)
        ax.add_patch(Rectangle(corner, k * stride, k * stride, fill=False, edgecolor=WINDOW, linewidth=2.5))
        ax.set(xlim=(-outside, width + outside + last), ylim=(height + outside + last, -outside), aspect="equal")
        ax.set_title(f"stage {i}: {rows}×{columns}\n{dim} channels", fontsize=10)
        ax.set_xlabel(f"window: {k * stride}×{k * stride} pixels", fontsize=9)
        _bare(ax, frame=False)
        said.append(f"stage {i} has {rows}×{columns} positions of {stride}×{stride} pixels, and its window covers "
                    f"{k * stride}×{k * stride} pixels")  # fmt: skip
    figure.suptitle(
        f"One position (filled) and its {k}×{k} window, on an image of {height}×{width} pixels", fontsize=12
    )
    return Picture(figure, f"{'; '.join(said)}.".capitalize())


# ---- Drop path and layer scale


def plot_drop_path(dropped: Tensor, rates: Sequence[float]) -> Picture:
    """Which branches were dropped for which image, and how often each was, beside how often it should be.

    Args:
        dropped: (images, branches) bool; two branches a block, in the order of the network.
        rates: the drop rate of each block, from the first to the last.

    Raises ValueError where the branches are not two for each rate.
    """
    if dropped.ndim != 2 or dropped.shape[1] != 2 * len(rates):
        raise ValueError(f"dropped is {tuple(dropped.shape)} with {len(rates)} rates; use (images, two for each rate).")
    shown = dropped[:40].cpu()
    figure = _figure(9.5, 3.7)
    left, right = figure.subplots(1, 2)
    left.imshow(shown.cpu().numpy(), cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    left.set(title="Dropped (black): a row an image", xlabel="branch, from stem to head", ylabel="image")
    share = dropped.float().mean(0)
    branches = range(dropped.shape[1])
    right.plot(branches, share, "o", color=TEST, markersize=4, label=f"measured, {len(dropped):,} images")
    right.plot(branches, [rate for rate in rates for _ in range(2)], color=TRAIN, drawstyle="steps-mid", label="rate")
    right.set(title="How often each branch is dropped", xlabel="branch, from stem to head", ylabel="share of images")
    right.set_ylim(0, None)
    right.legend(frameon=False)
    _open(right)
    passed = dropped.shape[1] - dropped.sum(1).float().mean()
    return Picture(
        figure,
        f"Of {dropped.shape[1]} branches an image passes {passed:.1f} on average; the first are dropped for "
        f"{share[:2].mean():.1%} of {len(dropped):,} images and the last for {share[-2:].mean():.1%}.",
    )


def branch_sizes(model: Conv2Former, x: Tensor) -> list[float]:
    """How large each branch is beside what it is added to, as a ratio of norms: ConvMod, MLP, ConvMod, MLP, …

    x: normalised images (N, 3, H, W). Nothing is dropped. Two numbers a block.
    """
    sizes = []

    def add(x: Tensor, y: Tensor) -> Tensor:
        sizes.append((y.norm() / x.norm()).item())
        return x + y

    with torch.no_grad():
        x = model.stem(x)
        for stage in model.stages:
            x = stage.downsample(x)
            for block in stage.blocks:
                x = add(x, block.scale1(block.convmod(x)))
                x = add(x, block.scale2(block.mlp(x)))
    return sizes


def plot_branches(sizes: Mapping[str, Sequence[float]], title: str = "How loud each branch begins") -> Picture:
    """`branch_sizes` of several networks on one logarithmic axis; ConvMods are dots, MLPs are squares."""
    if not sizes or any(len(values) < 2 or len(values) % 2 for values in sizes.values()):
        raise ValueError("give at least one network, and two sizes for each of its blocks (ConvMod, MLP).")
    figure = _figure(8.6, 3.9)
    ax = figure.subplots()
    said = []
    for (name, values), colour in zip(sizes.items(), (TRAIN, TEST, WINDOW, AMBER), strict=False):
        ax.plot(range(len(values)), values, color=colour, linewidth=0.8, alpha=0.5)
        ax.plot(range(0, len(values), 2), values[::2], "o", color=colour, markersize=5, label=name)
        ax.plot(range(1, len(values), 2), values[1::2], "s", color=colour, markersize=4, markerfacecolor="white")
        said.append(f"{name}: ConvMod {median(values[::2]):.1g}, MLP {median(values[1::2]):.1g}")
    ax.axhline(1, color="black", linewidth=0.8, linestyle="--")
    ax.set(yscale="log", title=title, xlabel="branch, from stem to head (● ConvMod, □ MLP)")
    ax.set_ylabel("size of the branch\nbeside what it is added to")
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    ax.grid(alpha=0.25)
    _open(ax)
    return Picture(figure, f"Size of a branch beside what it is added to, the median. {'; '.join(said)}.")


# ---- Where the cost sits

PARTS = {
    "ConvMod, 1×1": TRAIN,
    "ConvMod, depthwise": TEST,
    "MLP, 1×1": SKY,
    "MLP, 3×3 depthwise": AMBER,
    "downsampling": WINDOW,
    "norms and the rest": SOFT,
}
"""The parts that a network's cost is split into, and their colours."""


@dataclass(frozen=True)
class Cost:
    """What a part learns, and its multiply-adds for one image."""

    parameters: int = 0
    multiply_adds: MultiplyAdds = field(default_factory=MultiplyAdds)

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.parameters + other.parameters, self.multiply_adds + other.multiply_adds)


def cost_by_part(model: Conv2Former, image_size: tuple[int, int] = (32, 32)) -> dict[str, dict[str, Cost]]:
    """Stem, stages and head, and within each the `PARTS` it has, in the order of the network.

    Raises ValueError for an image size that the model does not take.
    """
    config = model.config
    model._check(torch.empty(1, config.in_channels, *image_size, device="meta"))
    stride = STEM_STRIDE[config.stem]
    costs = {"stem": {"norms and the rest": _cost(model.stem, image_size, config.in_channels)}}
    height, width = image_size[0] // stride, image_size[1] // stride
    previous = config.dims[0]
    for i, (stage, dim) in enumerate(zip(model.stages, config.dims, strict=True)):
        parts: dict[str, Cost] = {}
        if i:
            parts["downsampling"] = _cost(stage.downsample, (height, width), previous)
            height, width = height // 2, width // 2
        for block in stage.blocks:
            for part, layers in _layers(block).items():
                for layer in layers:
                    channels = layer.in_channels if isinstance(layer, nn.Conv2d) else dim
                    parts[part] = parts.get(part, Cost()) + _cost(layer, (height, width), channels)
        costs[f"stage {i}"], previous = parts, dim
    costs["head"] = {"norms and the rest": _cost(model.head, (height, width), previous)}
    return costs


def _layers(block: Block) -> dict[str, list[nn.Module]]:
    """A block's layers by part; together they are all that learn."""
    convmod, mlp = block.convmod, block.mlp
    return {
        "ConvMod, 1×1": [convmod.a[0], convmod.v, convmod.proj],
        "ConvMod, depthwise": [convmod.a[2]],
        "MLP, 1×1": [mlp.fc1, mlp.fc2],
        "MLP, 3×3 depthwise": [mlp.pos],
        "norms and the rest": [convmod.norm, mlp.norm, block.scale1, block.scale2],
    }


def _cost(layer: nn.Module, size: tuple[int, int], channels: int) -> Cost:
    counts = any(isinstance(module, nn.Conv2d | nn.Linear) for module in layer.modules())
    return Cost(count_parameters(layer), multiply_adds(layer, size, channels) if counts else MultiplyAdds())


def plot_cost(costs: Mapping[str, Mapping[str, Cost]]) -> Picture:
    """Parameters and multiply-adds as stacked bars, one a stage, from `cost_by_part`; hatched is work on padding."""
    if not costs:
        raise ValueError("there is nothing to draw; give what cost_by_part(model) gives.")
    figure = _figure(9.6, 4.0)
    axes = figure.subplots(1, 2)
    names = list(costs)
    said = []
    quantities = (
        ("parameters", "million parameters", lambda cost: cost.parameters),
        ("multiply-adds", "million multiply-adds an image", lambda cost: cost.multiply_adds.nominal),
    )
    for ax, (what, label, count) in zip(axes, quantities, strict=True):
        feet = np.zeros(len(names))
        for part, colour in PARTS.items():
            values = np.array([count(costs[name].get(part, Cost())) for name in names]) / 1e6
            if not values.any():
                continue
            ax.bar(names, values, bottom=feet, color=colour, width=0.7, label=part)
            if what == "multiply-adds":
                waste = [
                    cost.nominal - cost.useful for cost in (costs[n].get(part, Cost()).multiply_adds for n in names)
                ]
                tops = feet + values - np.array(waste) / 1e6
                ax.bar(names, np.array(waste) / 1e6, bottom=tops, width=0.7, fill=False, hatch="////", linewidth=0)
            feet += values
        for x, foot in enumerate(feet):
            ax.text(x, foot, f" {foot:.1f}" if foot >= 0.05 else f"{foot:.3f}", ha="center", va="bottom", fontsize=9)
        ax.set(title=f"{what}: {feet.sum():,.1f} million", ylabel=label, ylim=(0, 1.1 * feet.max()))
        ax.tick_params(axis="x", labelsize=9)
        _open(ax)
        said.append(f"{what} in millions: {', '.join(f'{n} {v:.2f}' for n, v in zip(names, feet, strict=True))}")
    handles, labels = axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return Picture(figure, f"Per stage, {'; '.join(said)}.")


def time_by_part(block: Block, x: Tensor, repeats: int = 9) -> dict[str, tuple[float, float]]:
    """Seconds and nominal multiply-adds of each part of a block for a batch x (N, C, H, W), forward, without gradients.

    The parts are measured in turn, so that whatever else the computer does falls on all alike; the median counts.
    """
    images, _, height, width = x.shape
    hidden = block.mlp.fc1.out_channels
    wide = torch.randn(images, hidden, height, width, device=x.device, dtype=x.dtype)
    convmod, mlp = block.convmod, block.mlp
    calls: dict[str, list[tuple[Callable[..., Tensor], tuple[Tensor, ...]]]] = {
        "ConvMod, 1×1": [(convmod.a[0], (x,)), (convmod.v, (x,)), (convmod.proj, (x,))],
        "ConvMod, depthwise": [(convmod.a[2], (x,))],
        "MLP, 1×1": [(mlp.fc1, (x,)), (mlp.fc2, (wide,))],
        "MLP, 3×3 depthwise": [(mlp.pos, (wide,))],
        "norms and the rest": [
            (convmod.norm, (x,)), (mlp.norm, (x,)), (F.gelu, (x,)), (F.gelu, (wide,)), (F.gelu, (wide,)),
            (torch.mul, (x, x)), (torch.add, (x, x)), (torch.add, (x, x)), (torch.add, (wide, wide)),
        ],
    }  # fmt: skip
    seconds: dict[str, list[float]] = {part: [] for part in calls}
    with torch.no_grad():
        for turn in range(repeats + 2):
            for part, parts in calls.items():
                began = time.perf_counter()
                for call, arguments in parts:
                    call(*arguments)
                if turn > 1:  # the first two are for warming up, and for choosing how the depthwise one is computed
                    seconds[part].append(time.perf_counter() - began)
    work = {
        part: images * sum((_cost(layer, (height, width), layer.in_channels) for layer in layers
                            if isinstance(layer, nn.Conv2d)), Cost()).multiply_adds.nominal
        for part, layers in _layers(block).items()
    }  # fmt: skip
    return {part: (median(times), float(work[part])) for part, times in seconds.items()}


def plot_time(measured: Mapping[str, tuple[float, float]], title: str = "") -> Picture:
    """Each part's share of the multiply-adds and of the time, side by side, from `time_by_part`."""
    seconds, work = (np.array(values) for values in zip(*measured.values(), strict=True))
    if min(seconds.sum(), work.sum()) <= 0:
        raise ValueError("no time was measured, or there are no multiply-adds; give what time_by_part gives.")
    figure = _figure(8.6, 2.4)
    ax = figure.subplots()
    said = []
    for y, (name, values) in enumerate((("time", seconds), ("multiply-adds", work))):
        share, left = values / values.sum(), 0.0
        for part, value in zip(measured, share, strict=True):
            ax.barh(y, value, left=left, color=PARTS[part], label=part if y == 0 else None, edgecolor="white")
            if value > 0.05:
                ink = "white" if PARTS[part] in (TRAIN, TEST, SOFT) else "black"
                ax.text(left + value / 2, y, f"{value:.0%}", ha="center", va="center", fontsize=9, color=ink)
            left += value
        said.append(f"of the {name} {', '.join(f'{p} {v:.0%}' for p, v in zip(measured, share, strict=True))}")
    ax.set_yticks([0, 1], [f"time ({seconds.sum() * 1e3:.0f} ms)", f"multiply-adds ({work.sum() / 1e6:,.0f} M)"])
    ax.set_xticks([])
    ax.set_title(title)
    ax.spines[:].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return Picture(figure, f"{title + ': ' if title else ''}{'; '.join(said)}.")


# ---- The variants


def plot_variants(configs: Mapping[str, Conv2FormerConfig], parameters: Mapping[str, int]) -> Picture:
    """Each network as a row of boxes, one a stage: as wide as it has blocks, higher with more channels (by the root).

    Raises ValueError for none, and where the parameters are not of the same networks.
    """
    if not configs or set(configs) != set(parameters):
        raise ValueError(f"configs are of {', '.join(configs) or 'none'}, parameters of {', '.join(parameters)}.")
    from matplotlib.patches import Rectangle

    figure = _figure(9.6, 0.62 * len(configs) + 0.7)
    ax = figure.subplots()
    most = max(max(config.dims) for config in configs.values())
    gap, widest = 1.2, 0.0
    for row, config in enumerate(configs.values()):
        x, foot = 0.0, -float(row)
        for dim, depth in zip(config.dims, config.depths, strict=True):
            height = 0.68 * (dim / most) ** 0.5
            face = TRAIN if config.kernel_size == 11 else AMBER
            ax.add_patch(Rectangle((x, foot), depth, height, facecolor=face, edgecolor="white"))
            ax.vlines([x + i for i in range(1, depth)], foot, foot + height, color="white", linewidth=0.5)
            ax.text(x + depth / 2, foot - 0.04, f"{dim}", ha="center", va="top", fontsize=7)
            x += depth + gap
        ax.text(x, foot + 0.2, f"{parameters[list(configs)[row]] / 1e6:.1f} M", va="center", fontsize=10)
        widest = max(widest, x)
    ax.set(xlim=(-0.5, widest + 8), ylim=(-len(configs) + 0.7, 1.0))
    ax.set_yticks([-row + 0.2 for row in range(len(configs))], configs)
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    from matplotlib.patches import Patch

    used = sorted({config.kernel_size for config in configs.values()}, reverse=True)
    keys = [Patch(color=TRAIN if k == 11 else AMBER, label=f"{k}×{k} kernels") for k in used]
    figure.legend(handles=keys, loc="outside lower right", ncols=len(keys), frameon=False)
    figure.suptitle(
        "A strip is a block, higher with more channels; at the right the parameters in millions", fontsize=12
    )
    told = "; ".join(
        f"{name}: channels {'-'.join(map(str, config.dims))}, blocks {'-'.join(map(str, config.depths))}, kernel "
        f"{config.kernel_size}, {parameters[name]:,} parameters"
        for name, config in configs.items()
    )
    return Picture(figure, f"{told}.")


SEED_TO_PAPER = {
    "kernel_size": "kernel\n11 → 7",
    "mlp_ratio": "MLP ratio\n2 → 4",
    "stem": "stem\n1×1 → 3 convs",
    "downsample_norm": "downsampling\nwith bias",
    "layer_scale": "layer scale\nnone → 1e-6",
    "head": "head\nwidened",
    "num_classes": "classes\n10 → 1,000",
}
"""The fields in which the seed model and the paper's N differ (but for the recipe's drop path), in words."""


def steps_to_paper() -> dict[str, int]:
    """Parameters after each change that leads from the seed model to the paper's N, the seed model's first."""
    seed, paper = VARIANTS["conv2former_n_cifar"], replace(VARIANTS["conv2former_n"], num_classes=1000)
    counts = {"seed": _parameters(seed)}
    config = seed
    for name in SEED_TO_PAPER:
        config = replace(config, **{name: getattr(paper, name)})
        counts[name] = _parameters(config)
    return counts


def _parameters(config: Conv2FormerConfig) -> int:
    with torch.device("meta"):  # shapes without numbers: nothing is stored
        return count_parameters(Conv2Former(config))


def plot_steps() -> Picture:
    """From the seed model to the paper's N, one change at a time: how many parameters each adds or takes away."""
    counts = steps_to_paper()
    values = list(counts.values())
    figure = _figure(9.6, 3.9)
    ax = figure.subplots()
    names = ["ours\nN, CIFAR-10", *SEED_TO_PAPER.values(), "paper\nN, ImageNet"]
    changes = np.diff(values)
    ax.bar([0, len(names) - 1], [values[0] / 1e6, values[-1] / 1e6], color=SOFT, width=0.65)
    for x, (before, change) in enumerate(zip(values, changes, strict=False), start=1):
        ax.bar(x, change / 1e6, bottom=before / 1e6, color=TEST if change > 0 else TRAIN, width=0.65)
        ax.hlines(before / 1e6, x - 1.33, x + 0.33, color="#999999", linewidth=0.8)
        top = max(before, before + change) / 1e6
        ax.text(x, top + 0.15, f"{change:+,}".replace("-", "−"), ha="center", va="bottom", fontsize=9)
    ax.hlines(values[-1] / 1e6, len(names) - 2.33, len(names) - 0.67, color="#999999", linewidth=0.8)
    for x, value in ((0, values[0]), (len(names) - 1, values[-1])):
        ax.text(x, value / 1e6 + 0.15, f"{value:,}", ha="center", va="bottom", fontsize=9)
    ax.set_xticks(range(len(names)), names, fontsize=8.5)
    ax.set(ylabel="million parameters", title="From our model to the paper's N, one change at a time", ylim=(0, 17))
    _open(ax)
    words = [" ".join(text.split()) for text in SEED_TO_PAPER.values()]
    told = ", ".join(f"{text}: {change:+,}" for text, change in zip(words, changes, strict=True)).replace(" -", " −")
    return Picture(figure, f"From {values[0]:,} parameters to {values[-1]:,}. {told}.")


# ---- Strokes


def _figure(width: float, height: float) -> "Figure":
    """A figure of so many inches that belongs to no window and no notebook."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _bare(ax: "Axes", frame: bool = True) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(frame)
    ax.spines[:].set(color="#BBBBBB")


def _open(ax: "Axes") -> None:
    ax.spines[["top", "right"]].set_visible(False)


def _cell(ax: "Axes", x: float, y: float, colour: str) -> None:
    from matplotlib.patches import Rectangle

    ax.add_patch(Rectangle((x, y), 1, 1, facecolor=colour, edgecolor="#999999", linewidth=0.7))


def _signed(ax: "Axes", values: Tensor, limit: float, extent: tuple[float, float, float, float] | None = None) -> None:
    ax.imshow(values.cpu().numpy(), cmap=SIGNED, vmin=-limit, vmax=limit, extent=extent, interpolation="nearest")


def _robust_limit(values: Tensor) -> float:
    """A size that all but one value in two hundred stay below, or the largest where that would be 0."""
    sizes = values.detach().float().abs().flatten().cpu().numpy()
    return float(np.quantile(sizes, 0.995)) or float(sizes.max()) or 1.0


def _n(value: float | Tensor, digits: int = 2) -> str:
    """A number of about so many digits behind the point, with a proper minus, and never −0.00."""
    text = f"{float(value):.{digits}f}"
    return (text.removeprefix("-") if float(text) == 0 else text).replace("-", "−")
