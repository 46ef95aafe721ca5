"""Conv2Former taken apart: what a position stands for in each stage, how large its branches are, where its cost sits.

These are the drawings of notebook 03. Shapes: N images, C channels, H x W positions of a map.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from c2f.maps.picture import AMBER, SKY, SOFT, TEST, TRAIN, WINDOW, Picture, as_pixels, tidy
from c2f.models import VARIANTS, Conv2Former, Conv2FormerConfig
from c2f.models.conv2former import STEM_STRIDE, Block
from c2f.models.cost import MultiplyAdds, count_parameters, multiply_adds
from c2f_course.figures.drawing import finish, hide_ticks, subplots
from c2f_course.figures.drawing import plot_reach as plot_reach  # drawn in this notebook too
from c2f_course.figures.notebook_01 import measure_in_turn


def plot_stages(image: Tensor, config: Conv2FormerConfig, image_size: tuple[int, int] = (32, 32)) -> Picture:
    """What one position stands for in each stage, and how much of the image its ConvMod's window covers.

    image: (3, H, W) in any resolution: it is only the ground. image_size: (H, W) of what the network would be given.
    """
    (height, width), k, last = image_size, config.kernel_size, config.stride
    outside = max(0, k // 2 * last - min(height, width) // 2) + 0.06 * max(height, width)
    figure, axes = subplots(2.45 * len(config.dims) + 0.2, 3.3, 1, len(config.dims))
    said = []
    for i, (ax, dim) in enumerate(zip(axes, config.dims, strict=True)):
        stride = STEM_STRIDE[config.stem] * 2**i
        rows, columns, reach = height // stride, width // stride, k // 2 * stride
        ax.imshow(as_pixels(image), vmin=0, extent=(0, width, height, 0), alpha=0.75)
        if stride > 1:
            ax.hlines(range(0, height + 1, stride), 0, width, color="white", linewidth=0.35)
            ax.vlines(range(0, width + 1, stride), 0, height, color="white", linewidth=0.35)
        top, left = rows // 2 * stride, columns // 2 * stride
        ax.add_patch(Rectangle((left, top), stride, stride, color=TEST, linewidth=1.5, zorder=3))
        corner, side = (left - reach, top - reach), k * stride
        ax.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=WINDOW, linewidth=2.5))
        ax.set(xlim=(-outside, width + outside + last), ylim=(height + outside + last, -outside))
        ax.set_title(f"stage {i}: {rows}×{columns}\n{dim} channels", fontsize=10)
        ax.set_xlabel(f"window: {side}×{side} pixels", fontsize=9)
        hide_ticks(ax, frame=False)
        said.append(f"stage {i} has {rows}×{columns} positions of {stride}×{stride} pixels, and its window covers "
                    f"{side}×{side} pixels")  # fmt: skip
    title = f"One position (filled) and its {k}×{k} window, on an image of {height}×{width} pixels"
    figure.suptitle(title, fontsize=12)
    return Picture(figure, f"{'; '.join(said)}.".capitalize())


def plot_drop_path(dropped: Tensor, rates: Sequence[float]) -> Picture:
    """Which branches were dropped for which image, and how often each was, beside how often it should be.

    dropped: (images, branches) bool, two branches a block, from first to last. rates: the drop rate of each block.
    """
    figure, (left, right) = subplots(9.5, 3.7, 1, 2)
    left.imshow(dropped[:40].cpu().numpy(), cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    left.set(title="Dropped (black): a row an image", xlabel="branch, from stem to head", ylabel="image")
    share = dropped.float().mean(0)
    right.plot(share, "o", color=TEST, markersize=4, label=f"measured, {len(dropped):,} images")
    right.plot(np.repeat(rates, 2), color=TRAIN, drawstyle="steps-mid", label="rate")
    right.set(title="How often each branch is dropped", xlabel="branch, from stem to head", ylabel="share of images")
    right.set_ylim(0, None)
    right.legend(frameon=False)
    tidy(right, grid="")
    passed = dropped.shape[1] - dropped.sum(1).float().mean()
    return Picture(
        figure,
        f"Of {dropped.shape[1]} branches an image passes {passed:.1f} on average; the first are dropped for "
        f"{share[:2].mean():.1%} of {len(dropped):,} images and the last for {share[-2:].mean():.1%}.",
    )


@torch.no_grad()
def branch_sizes(model: Conv2Former, x: Tensor) -> list[float]:
    """How large each branch is beside what it is added to, as a ratio of norms: ConvMod, MLP, ConvMod, MLP, …

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


def plot_branches(sizes: Mapping[str, Sequence[float]], title: str = "How loud each branch begins") -> Picture:
    """`branch_sizes` of at most four networks on one logarithmic axis; ConvMods are dots, MLPs are squares."""
    figure, ax = subplots(8.6, 3.9)
    said = []
    for (name, values), colour in zip(sizes.items(), (TRAIN, TEST, WINDOW, AMBER), strict=False):
        x = range(len(values))
        ax.semilogy(x, values, color=colour, linewidth=0.8, alpha=0.5)
        ax.plot(x[::2], values[::2], "o", color=colour, markersize=5, label=name)
        ax.plot(x[1::2], values[1::2], "s", color=colour, markersize=4, markerfacecolor="white")
        said.append(f"{name}: ConvMod {median(values[::2]):.1g}, MLP {median(values[1::2]):.1g}")
    ax.axhline(1, color="black", linewidth=0.8, linestyle="--")
    finish(
        ax, title, "branch, from stem to head (● ConvMod, □ MLP)", "size of the branch\nbeside what it is added to", ""
    )
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
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

POINTWISE, DEPTHWISE, MLP, MLP_DEPTHWISE, DOWNSAMPLING, REST = PARTS
LAYERS = {
    "convmod.a.0": POINTWISE, "convmod.v": POINTWISE, "convmod.proj": POINTWISE, "convmod.a.2": DEPTHWISE,
    "mlp.fc1": MLP, "mlp.fc2": MLP, "mlp.pos": MLP_DEPTHWISE,
}  # fmt: skip
"""The part of each layer of a block; all others are of the rest."""


@dataclass(frozen=True)
class Cost:
    """What a part learns, and its multiply-adds for one image."""

    parameters: int = 0
    multiply_adds: MultiplyAdds = field(default_factory=MultiplyAdds)

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.parameters + other.parameters, self.multiply_adds + other.multiply_adds)


def cost_by_part(model: Conv2Former, image_size: tuple[int, int] = (32, 32)) -> dict[str, dict[str, Cost]]:
    """Stem, stages and head in the order of the network, and within each the `PARTS` it has."""
    config = model.config
    costs = {"stem": {REST: _cost(model.stem, image_size, config.in_channels)}}
    size = tuple(side // STEM_STRIDE[config.stem] for side in image_size)
    for i, (stage, dim) in enumerate(zip(model.stages, config.dims, strict=True)):
        parts = costs[f"stage {i}"] = {}
        if i:
            parts[DOWNSAMPLING] = _cost(stage.downsample, size, config.dims[i - 1])
            size = tuple(side // 2 for side in size)
        for name, layer in stage.blocks[0].named_modules():  # the others cost as much
            if not any(layer.children()):
                part, cost = LAYERS.get(name, REST), _cost(layer, size, getattr(layer, "in_channels", dim))
                parts[part] = sum([cost] * len(stage.blocks), parts.get(part, Cost()))
    costs["head"] = {REST: _cost(model.head, size, config.dims[-1])}
    return costs


def _cost(layer: nn.Module, size: tuple[int, int], channels: int) -> Cost:
    counts = any(isinstance(module, nn.Conv2d | nn.Linear) for module in layer.modules())
    return Cost(count_parameters(layer), multiply_adds(layer, size, channels) if counts else MultiplyAdds())


def plot_cost(costs: Mapping[str, Mapping[str, Cost]]) -> Picture:
    """Parameters and multiply-adds as stacked bars, one a stage, from `cost_by_part`; hatched is work on padding."""
    figure, (left, right) = subplots(9.6, 4.0, 1, 2)
    names, feet = list(costs), np.zeros((2, len(costs)))  # in millions; above, the next part begins
    for part, colour in PARTS.items():
        of_part = [costs[name].get(part, Cost()) for name in names]
        parameters = np.array([cost.parameters for cost in of_part]) / 1e6
        nominal, useful = (
            np.array([(cost.multiply_adds.nominal, cost.multiply_adds.useful) for cost in of_part]).T / 1e6
        )
        left.bar(names, parameters, bottom=feet[0], color=colour, width=0.7, label=part)
        right.bar(names, nominal, bottom=feet[1], color=colour, width=0.7)
        right.bar(names, nominal - useful, bottom=feet[1] + useful, width=0.7, fill=False, hatch="////", linewidth=0)
        feet += (parameters, nominal)
    said = []
    labels = ("million parameters", "million multiply-adds an image")
    for ax, what, label, tops in zip((left, right), ("parameters", "multiply-adds"), labels, feet, strict=True):
        for name, top in zip(names, tops, strict=True):
            ax.text(name, top, f" {top:.1f}" if top >= 0.05 else f"{top:.3f}", ha="center", va="bottom", fontsize=9)
        ax.set(title=f"{what}: {tops.sum():,.1f} million", ylabel=label, ylim=(0, 1.1 * tops.max()))
        ax.tick_params(axis="x", labelsize=9)
        tidy(ax, grid="")
        said.append(f"{what} in millions: {', '.join(f'{n} {v:.2f}' for n, v in zip(names, tops, strict=True))}")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return Picture(figure, f"Per stage, {'; '.join(said)}.")


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
    seconds = measure_in_turn({part: partial(_call_all, each) for part, each in calls.items()}, repeats, 0)
    measured = {}
    for part, each in calls.items():
        convolutions = [call for call, *_ in each if isinstance(call, nn.Conv2d)]
        work = sum(multiply_adds(conv, x.shape[2:], conv.in_channels).nominal for conv in convolutions)
        measured[part] = (seconds[part], float(len(x) * work))
    return measured


def _call_all(calls: Sequence[tuple]) -> None:
    for call, *arguments in calls:
        call(*arguments)


def plot_time(measured: Mapping[str, tuple[float, float]], title: str) -> Picture:
    """Each part's share of the multiply-adds and of the time, side by side, from `time_by_part`."""
    values = np.array(list(measured.values()))  # (parts, 2)
    (seconds, work), shares = values.sum(0), values / values.sum(0)
    figure, ax = subplots(8.6, 2.4)
    left = np.zeros(2)
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
    said = "; ".join(
        f"of the {name} {', '.join(f'{part} {value:.0%}' for part, value in zip(measured, share, strict=True))}"
        for name, share in zip(("time", "multiply-adds"), shares.T, strict=True)
    )
    return Picture(figure, f"{title}: {said}.")


# ---- The variants


def plot_variants(configs: Mapping[str, Conv2FormerConfig], parameters: Mapping[str, int]) -> Picture:
    """Each network as a row of boxes, one a stage: as wide as it has blocks, as high as the channels' root."""
    figure, ax = subplots(9.6, 0.62 * len(configs) + 0.7)
    most = max(max(config.dims) for config in configs.values())
    colours, widest, told = {11: TRAIN, 7: AMBER}, 0.0, []
    for row, (name, config) in enumerate(configs.items()):
        x, foot = 0.0, -float(row)
        for dim, depth in zip(config.dims, config.depths, strict=True):
            strip = {"width": 1, "bottom": foot, "align": "edge", "edgecolor": "white", "linewidth": 0.5}
            ax.bar(x + np.arange(depth), 0.68 * (dim / most) ** 0.5, color=colours[config.kernel_size], **strip)
            ax.text(x + depth / 2, foot - 0.04, f"{dim}", ha="center", va="top", fontsize=7)
            x += depth + 1.2
        ax.text(x, foot + 0.2, f"{parameters[name] / 1e6:.1f} M", va="center", fontsize=10)
        widest = max(widest, x)
        dims, depths = ("-".join(map(str, counts)) for counts in (config.dims, config.depths))
        told.append(f"{name}: channels {dims}, blocks {depths}, kernel {config.kernel_size}, {parameters[name]:,} "
                    "parameters")  # fmt: skip
    for k, colour in colours.items():
        ax.bar(0, 0, color=colour, label=f"{k}×{k} kernels")
    ax.set(xlim=(-0.5, widest + 8), ylim=(-len(configs) + 0.7, 1.0), xticks=[])
    ax.set_yticks([-row + 0.2 for row in range(len(configs))], configs)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    figure.legend(loc="outside lower right", ncols=2, frameon=False)
    title = "A strip is a block, higher with more channels; at the right the parameters in millions"
    figure.suptitle(title, fontsize=12)
    return Picture(figure, f"{'; '.join(told)}.")


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


def steps_to_paper() -> list[int]:
    """Parameters of the seed model, and after each change of `SEED_TO_PAPER` that leads to the paper's N."""
    config, paper = VARIANTS["conv2former_n_cifar"], replace(VARIANTS["conv2former_n"], num_classes=1000)
    counts = []
    with torch.device("meta"):  # shapes without numbers: nothing is stored
        for name in (None, *SEED_TO_PAPER):
            config = replace(config, **{name: getattr(paper, name)}) if name else config
            counts.append(count_parameters(Conv2Former(config)))
    return counts


def plot_steps() -> Picture:
    """From the seed model to the paper's N, one change at a time: how many parameters each adds or takes away."""
    counts = np.array(steps_to_paper())
    changes, millions = np.diff(counts), counts / 1e6
    names = ["ours\nN, CIFAR-10", *SEED_TO_PAPER.values(), "paper\nN, ImageNet"]
    last = len(names) - 1
    signed = [f"{change:+,}".replace("-", "−") for change in changes]
    figure, ax = subplots(9.6, 3.9)
    ax.bar([0, last], millions[[0, -1]], color=SOFT, width=0.65)
    colours = [TEST if change > 0 else TRAIN for change in changes]
    ax.bar(range(1, last), changes / 1e6, bottom=millions[:-1], color=colours, width=0.65)
    ax.hlines(millions, np.arange(last) - 0.33, np.arange(last) + 1.33, color="#999999", linewidth=0.8)
    tops = [millions[0], *np.maximum(millions[:-1], millions[1:]), millions[-1]]
    for x, (top, text) in enumerate(zip(tops, [f"{counts[0]:,}", *signed, f"{counts[-1]:,}"], strict=True)):
        ax.text(x, top + 0.15, text, ha="center", va="bottom", fontsize=9)
    ax.set_xticks(range(len(names)), names, fontsize=8.5)
    ax.set(ylabel="million parameters", title="From our model to the paper's N, one change at a time", ylim=(0, 17))
    tidy(ax, grid="")
    words = (" ".join(text.split()) for text in SEED_TO_PAPER.values())
    told = ", ".join(map(": ".join, zip(words, signed, strict=True)))
    return Picture(figure, f"From {counts[0]:,} parameters to {counts[-1]:,}. {told}.")
