"""Conv2Former taken apart: what a position stands for in each stage, how large its branches are, where its cost sits.

These are the drawings of notebook 03. Shapes: N images, C channels, H x W positions of a map.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from c2f.models import VARIANTS, Conv2Former, Conv2FormerConfig
from c2f.models.conv2former import STEM_STRIDE, Block
from c2f.models.cost import MultiplyAdds, count_parameters, multiply_adds
from c2f.picture import AMBER, SKY, SOFT, TEST, TRAIN, WINDOW, Picture
from c2f_course.figures.drawing import finish, hide_ticks, show_image, subplots, told
from c2f_course.figures.drawing import plot_reach as plot_reach  # drawn in this notebook too
from c2f_course.figures.notebook_01 import median_seconds
from c2f_course.figures.notebook_02 import plot_lines as plot_lines


def plot_stages(image: Tensor, config: Conv2FormerConfig, image_size: tuple[int, int] = (32, 32)) -> Picture:
    """What one position stands for in each stage, and how much of the image its ConvMod's window covers.

    image: (3, H, W) in any resolution: it is only the ground. image_size: (H, W) of what the network would be given.
    """
    (height, width), k, last = image_size, config.kernel_size, config.stride
    outside = max(0, k // 2 * last - min(height, width) // 2) + 0.06 * max(height, width)
    title = f"One position (filled) and its {k}×{k} window, on an image of {height}×{width} pixels"
    figure, axes = subplots(2.45 * len(config.dims) + 0.2, 3.3, 1, len(config.dims), title, 12)
    said = []
    for i, (ax, dim) in enumerate(zip(axes, config.dims, strict=True)):
        stride = STEM_STRIDE[config.stem] * 2**i
        rows, columns, reach, side = height // stride, width // stride, k // 2 * stride, k * stride
        show_image(ax, image, f"stage {i}: {rows}×{columns}\n{dim} channels", extent=(0, width, height, 0), alpha=0.75)
        if stride > 1:
            ax.hlines(range(0, height + 1, stride), 0, width, color="white", linewidth=0.35)
            ax.vlines(range(0, width + 1, stride), 0, height, color="white", linewidth=0.35)
        top, left = rows // 2 * stride, columns // 2 * stride
        ax.add_patch(Rectangle((left, top), stride, stride, color=TEST, linewidth=1.5, zorder=3))
        corner = (left - reach, top - reach)
        ax.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=WINDOW, linewidth=2.5))
        ax.set(xlim=(-outside, width + outside + last), ylim=(height + outside + last, -outside))
        ax.set_xlabel(f"window: {side}×{side} pixels", fontsize=9)
        hide_ticks(ax, frame=False)
        positions = f"{rows}×{columns} positions of {stride}×{stride} pixels"
        said.append(f"stage {i} has {positions}, and its window covers {side}×{side} pixels")
    return Picture(figure, f"{'; '.join(said)}.".capitalize())


def plot_drop_path(dropped: Tensor, rates: Sequence[float]) -> Picture:
    """Which branches were dropped for which image, and how often each was, beside how often it should be.

    dropped: (images, branches) bool, two branches a block, from first to last. rates: the drop rate of each block.
    """
    figure, (left, right) = subplots(9.5, 3.7, 1, 2)
    count, share, x = len(dropped), dropped.float().mean(0), "branch, from stem to head"
    left.imshow(dropped[:40].cpu().numpy(), cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    left.set(title="Dropped (black): one row per image", xlabel=x, ylabel="image")
    right.plot(share, "o", color=TEST, markersize=4, label=f"measured, {count:,} images")
    right.plot(np.repeat(rates, 2), color=TRAIN, drawstyle="steps-mid", label="rate")
    right.set_ylim(0, None)
    finish(right, "How often each branch is dropped", x, "share of images", "best", grid="")
    alt = f"Of {dropped.shape[1]} branches an image passes {(1 - share).sum():.1f} on average; the first are dropped"
    first, last = (f"{each.mean():.1%}" for each in (share[:2], share[-2:]))
    return Picture(figure, f"{alt} for {first} of {count:,} images and the last for {last}.")


@torch.no_grad()
def branch_sizes(model: Conv2Former, x: Tensor) -> list[float]:
    """How large each branch is relative to what it is added to, as a ratio of norms: ConvMod, MLP, ConvMod, MLP, …

    x: normalised images (N, 3, H, W). Nothing is dropped.
    """
    sizes = []
    x = model.stem(x)
    for stage in model.stages:
        x = stage.downsample(x)
        for block in stage.blocks:
            for scale, branch in ((block.scale1, block.convmod), (block.scale2, block.mlp)):
                y = scale(branch(x))
                sizes.append((y.norm() / x.norm()).item())
                x = x + y
    return sizes


def plot_branches(
    sizes: Mapping[str, Sequence[float]], title: str = "How large each branch is before any training"
) -> Picture:
    """`branch_sizes` of at most four networks on one logarithmic axis; ConvMods are dots, MLPs are squares."""
    figure, ax = subplots(8.6, 3.9)
    said = {}
    for (name, values), colour in zip(sizes.items(), (TRAIN, TEST, WINDOW, AMBER), strict=False):
        x = range(len(values))
        ax.semilogy(x, values, color=colour, linewidth=0.8, alpha=0.5)
        ax.plot(x[::2], values[::2], "o", color=colour, markersize=5, label=name)
        ax.plot(x[1::2], values[1::2], "s", color=colour, markersize=4, markerfacecolor="white")
        said[name] = f"ConvMod {median(values[::2]):.1g}, MLP {median(values[1::2]):.1g}"
    ax.axhline(1, color="black", linewidth=0.8, linestyle="--")
    beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "fontsize": 10}
    y = "size of the branch, relative\nto what it is added to"
    finish(ax, title, "branch, from stem to head (● ConvMod, □ MLP)", y, beside)
    return Picture(figure, f"Size of a branch relative to what it is added to, the median. {told(said)}.")


PARTS = {
    "ConvMod, 1×1": TRAIN,
    "ConvMod, depthwise": TEST,
    "MLP, 1×1": SKY,
    "MLP, 3×3 depthwise": AMBER,
    "downsampling": WINDOW,
    "norms and the rest": SOFT,
}
"""The parts that a network's cost is split into, and their colours."""

POINTWISE, DEPTHWISE, MLP, MLP_DEPTHWISE, DOWNSAMPLING, REST = PARTS
LAYERS = {
    "convmod.a.0": POINTWISE, "convmod.v": POINTWISE, "convmod.proj": POINTWISE, "convmod.a.2": DEPTHWISE,
    "mlp.fc1": MLP, "mlp.fc2": MLP, "mlp.pos": MLP_DEPTHWISE,
}  # fmt: skip
"""The part of each layer of a block; all others are of the rest."""


def cost_by_part(model: Conv2Former, image_size: tuple[int, int] = (32, 32)) -> dict[str, dict[str, np.ndarray]]:
    """Stem, stages and head in the order of the network, and within each the `PARTS` it has.

    Of a part: its parameters, and its multiply-adds for one image, nominal and useful, as three numbers.
    """

    def cost(layer: nn.Module, channels: int) -> np.ndarray:
        counts = any(isinstance(module, nn.Conv2d | nn.Linear) for module in layer.modules())
        work = multiply_adds(layer, size, channels) if counts else MultiplyAdds()
        return np.array([count_parameters(layer), work.nominal, work.useful])

    config, size = model.config, image_size
    costs = {"stem": {REST: cost(model.stem, config.in_channels)}}
    size = tuple(side // STEM_STRIDE[config.stem] for side in size)
    for i, (stage, dim) in enumerate(zip(model.stages, config.dims, strict=True)):
        parts = costs[f"stage {i}"] = {}
        if i:
            parts[DOWNSAMPLING] = cost(stage.downsample, config.dims[i - 1])
            size = tuple(side // 2 for side in size)
        for name, layer in stage.blocks[0].named_modules():  # the others cost as much
            if not any(layer.children()):
                part, one = LAYERS.get(name, REST), cost(layer, getattr(layer, "in_channels", dim))
                parts[part] = parts.get(part, 0) + len(stage.blocks) * one
    costs["head"] = {REST: cost(model.head, config.dims[-1])}
    return costs


def plot_cost(costs: Mapping[str, Mapping[str, np.ndarray]]) -> Picture:
    """Parameters and multiply-adds as stacked bars, one a stage, from `cost_by_part`; hatched is work on padding."""
    figure, (left, right) = subplots(9.6, 4.0, 1, 2)
    names, feet = list(costs), np.zeros((2, len(costs)))  # in millions; above, the next part begins
    for part, colour in PARTS.items():
        parameters, nominal, useful = np.array([costs[name].get(part, np.zeros(3)) for name in names]).T / 1e6
        left.bar(names, parameters, bottom=feet[0], color=colour, width=0.7, label=part)
        right.bar(names, nominal, bottom=feet[1], color=colour, width=0.7)
        right.bar(names, nominal - useful, bottom=feet[1] + useful, width=0.7, fill=False, hatch="////", linewidth=0)
        feet += (parameters, nominal)
    said = {}
    for ax, what, of, tops in zip(
        (left, right), ("parameters", "multiply-adds"), ("", " per image"), feet, strict=True
    ):
        for name, top in zip(names, tops, strict=True):
            ax.text(name, top, f" {top:.1f}" if top >= 0.05 else f"{top:.3f}", ha="center", va="bottom", fontsize=9)
        title, y = f"{what}: {tops.sum():,.1f} million", f"million {what}{of}"
        finish(ax, title, "", y, grid="", ylim=(0, 1.1 * tops.max()))
        ax.tick_params(axis="x", labelsize=9)
        said[f"{what} in millions"] = ", ".join(f"{n} {v:.2f}" for n, v in zip(names, tops, strict=True))
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return Picture(figure, f"Per stage, {told(said)}.")


@torch.no_grad()
def time_by_part(block: Block, x: Tensor, repeats: int = 9) -> dict[str, tuple[float, float]]:
    """Seconds (on one thread) and nominal multiply-adds of each part of a block for a batch x (N, C, H, W), forward."""
    convmod, mlp = block.convmod, block.mlp
    wide = torch.randn(len(x), mlp.fc1.out_channels, *x.shape[2:])
    calls = {
        POINTWISE: [(convmod.a[0], x), (convmod.v, x), (convmod.proj, x)],
        DEPTHWISE: [(convmod.a[2], x)],
        MLP: [(mlp.fc1, x), (mlp.fc2, wide)],
        MLP_DEPTHWISE: [(mlp.pos, wide)],
        REST: [
            (convmod.norm, x), (mlp.norm, x), (F.gelu, x), (F.gelu, wide), (F.gelu, wide),
            (torch.mul, x, x), (torch.add, x, x), (torch.add, x, x), (torch.add, wide, wide),
        ],
    }  # fmt: skip
    steps = {part: lambda each=each: [call(*inputs) for call, *inputs in each] for part, each in calls.items()}
    seconds, measured = median_seconds(steps, repeats, 0), {}
    for part, each in calls.items():
        convolutions = [call for call, *_ in each if isinstance(call, nn.Conv2d)]
        work = sum(multiply_adds(conv, x.shape[2:], conv.in_channels).nominal for conv in convolutions)
        measured[part] = (seconds[part], float(len(x) * work))
    return measured


def plot_time(measured: Mapping[str, tuple[float, float]], title: str) -> Picture:
    """Each part's share of the multiply-adds and of the time, side by side, from `time_by_part`."""
    values = np.array(list(measured.values()))  # (parts, 2)
    (seconds, work), shares, left = values.sum(0), values / values.sum(0), np.zeros(2)
    figure, ax = subplots(8.6, 2.4)
    for part, share in zip(measured, shares, strict=True):
        ink = "white" if PARTS[part] in (TRAIN, TEST, SOFT) else "black"
        bars = ax.barh([0, 1], share, left=left, color=PARTS[part], label=part, edgecolor="white")
        labels = [f"{value:.0%}" if value > 0.05 else "" for value in share]
        ax.bar_label(bars, labels, label_type="center", fontsize=9, color=ink)
        left += share
    ax.set_yticks([0, 1], [f"time ({seconds * 1e3:.0f} ms)", f"multiply-adds ({work / 1e6:,.0f} M)"])
    ax.set(title=title, xticks=[])
    ax.spines[:].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    said = (
        f"of the {name} {', '.join(f'{part} {value:.0%}' for part, value in zip(measured, share, strict=True))}"
        for name, share in zip(("time", "multiply-adds"), shares.T, strict=True)
    )
    return Picture(figure, f"{title}: {'; '.join(said)}.")


def plot_variants(configs: Mapping[str, Conv2FormerConfig], parameters: Mapping[str, int]) -> Picture:
    """Each network as a row of boxes, one a stage: as wide as it has blocks, as high as the channels' root."""
    title = "A strip is a block, higher with more channels; at the right the parameters in millions"
    figure, ax = subplots(9.6, 0.62 * len(configs) + 0.7, title=title, size=12)
    most = max(max(config.dims) for config in configs.values())
    colours, widest, said = {11: TRAIN, 7: AMBER}, 0.0, {}
    for row, (name, config) in enumerate(configs.items()):
        x, foot = 0.0, -float(row)
        strip = {"width": 1, "bottom": foot, "align": "edge", "edgecolor": "white", "linewidth": 0.5}
        for dim, depth in zip(config.dims, config.depths, strict=True):
            ax.bar(x + np.arange(depth), 0.68 * (dim / most) ** 0.5, color=colours[config.kernel_size], **strip)
            ax.text(x + depth / 2, foot - 0.04, f"{dim}", ha="center", va="top", fontsize=7)
            x += depth + 1.2
        ax.text(x, foot + 0.2, f"{parameters[name] / 1e6:.1f} M", va="center", fontsize=10)
        widest = max(widest, x)
        dims, depths = ("-".join(map(str, counts)) for counts in (config.dims, config.depths))
        said[name] = f"channels {dims}, blocks {depths}, kernel {config.kernel_size}, {parameters[name]:,} parameters"
    for k, colour in colours.items():
        ax.bar(0, 0, color=colour, label=f"{k}×{k} kernels")
    ax.set(xlim=(-0.5, widest + 8), ylim=(-len(configs) + 0.7, 1.0), xticks=[])
    ax.set_yticks([-row + 0.2 for row in range(len(configs))], configs)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    figure.legend(loc="outside lower right", ncols=2, frameon=False)
    return Picture(figure, f"{told(said)}.")


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


def plot_steps() -> Picture:
    """From the seed model to the paper's N, one change at a time: how many parameters each adds or takes away."""
    configs, paper = [VARIANTS["conv2former_n_cifar"]], replace(VARIANTS["conv2former_n"], num_classes=1000)
    for name in SEED_TO_PAPER:
        configs.append(replace(configs[-1], **{name: getattr(paper, name)}))
    with torch.device("meta"):  # shapes without numbers: nothing is stored
        counts = np.array([count_parameters(Conv2Former(config)) for config in configs])
    changes, millions, last = np.diff(counts), counts / 1e6, len(counts)
    signed = [f"{change:+,}".replace("-", "−") for change in changes]
    figure, ax = subplots(9.6, 3.9)
    ax.bar([0, last], millions[[0, -1]], color=SOFT, width=0.65)
    colours = [TEST if change > 0 else TRAIN for change in changes]
    ax.bar(range(1, last), changes / 1e6, bottom=millions[:-1], color=colours, width=0.65)
    ax.hlines(millions, np.arange(last) - 0.33, np.arange(last) + 1.33, color="#999999", linewidth=0.8)
    tops = [millions[0], *np.maximum(millions[:-1], millions[1:]), millions[-1]]
    for x, (top, text) in enumerate(zip(tops, [f"{counts[0]:,}", *signed, f"{counts[-1]:,}"], strict=True)):
        ax.text(x, top + 0.15, text, ha="center", va="bottom", fontsize=9)
    names = ["ours\nN, CIFAR-10", *SEED_TO_PAPER.values(), "paper\nN, ImageNet"]
    ax.set_xticks(range(len(names)), names, fontsize=8.5)
    title = "From our model to the paper's N, one change at a time"
    finish(ax, title, "", "million parameters", grid="", ylim=(0, 17))
    said = ", ".join(f"{' '.join(k.split())}: {v}" for k, v in zip(SEED_TO_PAPER.values(), signed, strict=True))
    return Picture(figure, f"From {counts[0]:,} parameters to {counts[-1]:,}. {said}.")
