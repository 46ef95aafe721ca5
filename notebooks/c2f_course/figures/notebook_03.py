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

from c2f.maps.picture import AMBER, SKY, SOFT, TEST, TRAIN, WINDOW, Picture, new_figure, tidy
from c2f.models import VARIANTS, Conv2Former, Conv2FormerConfig
from c2f.models.conv2former import STEM_STRIDE, Block
from c2f.models.cost import MultiplyAdds, count_parameters, multiply_adds

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# ---- ConvMod, line by line


# ---- Fusion


# ---- Parameters of one ConvMod


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

    figure = new_figure(2.45 * len(config.dims) + 0.2, 3.3)
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
    figure = new_figure(9.5, 3.7)
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
    tidy(right, grid="")
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
    figure = new_figure(8.6, 3.9)
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
    tidy(ax, grid="")
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
    figure = new_figure(9.6, 4.0)
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
        tidy(ax, grid="")
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
    figure = new_figure(8.6, 2.4)
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

    figure = new_figure(9.6, 0.62 * len(configs) + 0.7)
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
    figure = new_figure(9.6, 3.9)
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
    tidy(ax, grid="")
    words = [" ".join(text.split()) for text in SEED_TO_PAPER.values()]
    told = ", ".join(f"{text}: {change:+,}" for text, change in zip(words, changes, strict=True)).replace(" -", " −")
    return Picture(figure, f"From {values[0]:,} parameters to {values[-1]:,}. {told}.")


# ---- Strokes


def _bare(ax: "Axes", frame: bool = True) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(frame)
    ax.spines[:].set(color="#BBBBBB")
