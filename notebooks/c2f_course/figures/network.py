"""Drawings that hold no data: where we are in the network, and where we are in the course."""

from itertools import pairwise
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from c2f.models import Conv2Former
from c2f.models.conv2former import STEM_STRIDE
from c2f.picture import INK, SOFT, TEST, TRAIN, Picture
from c2f_course.figures.drawing import arrow, box, new_diagram

WEIGHTS, VALUES = TEST, TRAIN

PARTS = {
    "network": "the whole network",
    "stem": "the stem",
    "stages": "the stages",
    "head": "the head",
    "block": "the block",
    "mlp": "the MLP",
    "convmod": "ConvMod",
    "modulation": "the branch that makes A",
    "value": "the branch that makes V",
}
"""What `plot_network` can point at, and how it says so."""

STEMS = {"pointwise": "1×1 conv", "patch": "2×2 patch", "overlap": "2 convs", "conv": "3 convs"}


def plot_network(model: Conv2Former, here: str = "network", image_size: tuple[int, int] = (32, 32)) -> Picture:
    """A Conv2Former, with its dims, depths and map sizes, from the whole down to its ConvMod.

    here: one of `PARTS`, the subject, on a yellow ground. image_size: (H, W) in pixels.
    """
    config, image, k = model.config, "×".join(map(str, (3, *image_size))), model.config.kernel_size
    stages = []  # number of blocks, and size of the map
    for i, (dim, depth) in enumerate(zip(config.dims, config.depths, strict=True)):
        height, width = (side // (STEM_STRIDE[config.stem] * 2**i) for side in image_size)
        stages.append((f"{depth} block{'s' * (depth > 1)}", f"{dim}×{height}×{width}"))
    figure, ax = new_diagram(9.5, 5.0, (0, 19), (-0.1, 9.9))
    for y, text in ((9.7, "the network"), (6.35, "a block"), (3.55, "its ConvMod")):
        ax.text(0, y, text, fontsize=9, weight="bold", va="center", color=INK)

    # The network.
    y, columns = 8.55, np.linspace(1.3, 17.7, len(stages) + 4)
    parts = [(f"image\n{image}", "", 1.65, 1.1), (f"stem\n{STEMS[config.stem]}", "stem", 1.65, 1.1)]
    parts += [(f"stage {i}\n{size}\n{blocks}", "stages", 1.9, 1.75) for i, (blocks, size) in enumerate(stages)]
    parts += [("head\naverage,\nLinear", "head", 1.65, 1.75), (f"{config.num_classes}\nlogits", "", 1.65, 1.1)]
    row = [
        box(ax, x, y, text, width, height, lit=here in ("network", part))
        for x, (text, part, width, height) in zip(columns, parts, strict=True)
    ]
    _draw_zoom(ax, columns[2], 0.95, y - 0.9, 6.35)

    # A block.
    y, columns = 5.3, np.linspace(2.4, 17.1, 6)
    block = [_bare(ax, columns[0], y, "x")]
    for i, (text, part) in enumerate((("ConvMod", "convmod"), ("MLP", "mlp"))):
        block.append(box(ax, columns[1 + 2 * i], y, text, 2.2, lit=here in ("block", part)))
        block.append(_sign(ax, columns[2 + 2 * i], y, "+"))
        start = (columns[2 * i] + 0.9, y)  # the residual connection, which passes by
        up = f"bar,armA=0,armB=0,fraction={-0.85 / (columns[2 + 2 * i] - start[0])}"
        arrow(ax, start, block[-1], path=up)
    block.append(_bare(ax, columns[5] + 0.1, y, "next", fontsize=9, width=0.9))
    _draw_zoom(ax, columns[1], 1.1, y - 0.55, 3.55)

    # Its ConvMod.
    high, y, low = 2.6, 1.65, 0.7
    lit = here == "convmod"
    weights = {"lit": lit or here == "modulation", "colour": WEIGHTS}
    start, norm = _bare(ax, 1.5, y, "x"), box(ax, 3.3, y, "LayerNorm", 1.9, lit=lit)
    fork, product = (4.7, y), _sign(ax, 13.7, y, "⊙")
    make_a = [box(ax, 6.0, high, "1×1 conv", **weights), box(ax, 8.2, high, "GELU", **weights)]
    make_a.append(box(ax, 10.4, high, f"{k}×{k}\ndepthwise", 1.8, **weights))
    make_a.append(_bare(ax, 12.3, high, "A", WEIGHTS, fontsize=13, weight="bold"))
    make_v = [box(ax, 8.2, low, "1×1 conv", lit=lit or here == "value", colour=VALUES)]
    make_v.append(_bare(ax, 12.3, low, "V", VALUES, fontsize=13, weight="bold"))
    ax.plot((3.3, 4.7), (y, y), color=INK, linewidth=1.3, zorder=1)
    end = [product, box(ax, 15.5, y, "1×1 conv", lit=lit), _bare(ax, 17.4, y, "y")]
    for boxes, colour in ((make_a, WEIGHTS), (make_v, VALUES)):
        arrow(ax, fork, boxes[0], colour, "angle,angleA=90,angleB=0")
        arrow(ax, boxes[-1], product, colour, "angle,angleA=0,angleB=90")

    lines = ((row, INK), (block, INK), ([start, norm], INK), (make_a, WEIGHTS), (make_v, VALUES), (end, INK))
    for boxes, colour in lines:
        for left, right in pairwise(boxes):
            arrow(ax, left, right, colour)
    return Picture(
        figure,
        f"An image of {image} passes the stem, {len(stages)} stages ({', '.join(map(' at '.join, stages))}) and the "
        f"head, which gives {config.num_classes} logits; a block is ConvMod then MLP, each added to what it was given; "
        f"in ConvMod a 1×1 convolution, GELU and a depthwise convolution of {k}×{k} make A, a 1×1 convolution makes V, "
        f"and their product passes a last 1×1 convolution. Marked: {PARTS[here]}.",
    )


def _bare(ax: Axes, x: float, y: float, text: str, colour: str = INK, width: float = 0.5, **font) -> FancyBboxPatch:
    return box(ax, x, y, text, width, 0.5, edge=None, colour=colour, **({"fontsize": 12} | font))


def _sign(ax: Axes, x: float, y: float, text: str) -> FancyBboxPatch:
    return box(ax, x, y, text, 0.5, 0.5, shape="circle,pad=0", fontsize=12)


def _draw_zoom(ax: Axes, x: float, half: float, top: float, foot: float) -> None:
    """A pale fan from a part down to the row that shows it larger."""
    ax.fill((x - half, x + half, 17.6, 1.9), (top, top, foot, foot), color="#F0F0F0", zorder=0)


ACTS = {
    "start": ("Start here",),
    "build": ("Convolution and attention", "Building ConvMod", "Building Conv2Former"),
    "train": ("Data and augmentation", "The training loop"),
    "look": ("Modulation maps",),
    "compare": ("The Swin baseline", "Training on a GPU", "Kernel size and other ablations"),
    "go on": ("Beyond classification",),
}
"""The steps of the course, and the notebooks of each, which are numbered from 0."""

COURSE = [title for titles in ACTS.values() for title in titles]


def plot_course(here: int = 0) -> Picture:
    """The course as a path through its notebooks, the one of number `here` on a yellow ground."""
    figure, ax = new_diagram(9.5, 3.9, (0, 19), (0, 7.8))
    middle, columns, told = 3.5, np.linspace(1.5, 17.5, len(ACTS)), []
    for left, right in pairwise(columns):
        arrow(ax, (left + 1.3, middle), (right - 1.32, middle), SOFT)
    for x, (act, titles) in zip(columns, ACTS.items(), strict=True):
        ax.text(x, 7.4, act, fontsize=9, weight="bold", ha="center", va="center", color=INK)
        numbered = [(COURSE.index(title), title) for title in titles]
        for i, (number, title) in enumerate(numbered):
            y = middle + 2.2 * ((len(titles) - 1) / 2 - i)
            box(ax, x, y, f"{number:02d}\n{fill(title, 16)}", 2.6, 1.9, lit=number == here)
        told.append(f"{act}: {', '.join(f'{number:02d} {title}' for number, title in numbered)}")
    return Picture(figure, f"The course in {len(ACTS)} steps. {'; '.join(told)}. You are at {here:02d}.")
