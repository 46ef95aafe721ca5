"""Drawings that hold no data: where we are in the network, and where we are in the course."""

from itertools import pairwise
from textwrap import fill
from typing import TYPE_CHECKING, NamedTuple

from c2f.maps.picture import HERE, INK, SOFT, TEST, TRAIN, Picture
from c2f.models import Conv2Former
from c2f.models.conv2former import STEM_STRIDE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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


def plot_network(model: Conv2Former, here: str = "network", image_size: tuple[int, int] = (32, 32)) -> Picture:
    """A Conv2Former from the whole down to its ConvMod, with the part that is the subject on a yellow ground.

    Args:
        model: whose dims, depths and map sizes are written in.
        here: one of `PARTS`.
        image_size: (H, W) in pixels.

    Raises ValueError for a part that is not there.
    """
    if here not in PARTS:
        raise ValueError(f"there is no part {here!r} in the picture; use one of {', '.join(PARTS)}.")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 5.0), layout="constrained")
    ax = figure.subplots()
    ax.set(xlim=(0, 19), ylim=(-0.1, 9.9), aspect="equal")
    ax.axis("off")
    stage, convmod = _draw_stages(ax, model, here, image_size), _draw_block(ax, model, here)
    _draw_convmod(ax, model, here)
    _draw_zoom(ax, stage, (1.9, 17.6, 6.35))
    _draw_zoom(ax, convmod, (1.9, 17.6, 3.55))
    return Picture(figure, _describe_network(model, here, image_size))


STEMS = {"pointwise": "1×1 conv", "patch": "2×2 patch", "overlap": "2 convs", "conv": "3 convs"}


def _map_sizes(model: Conv2Former, image_size: tuple[int, int]) -> list[tuple[int, int]]:
    strides = [STEM_STRIDE[model.config.stem] * 2**i for i in range(len(model.config.dims))]
    return [(image_size[0] // stride, image_size[1] // stride) for stride in strides]


def _draw_stages(ax: "Axes", model: Conv2Former, here: str, image_size: tuple[int, int]) -> tuple[float, float, float]:
    """The top row. Returns the first stage's left and right edge and its foot."""
    y, config = 8.55, model.config
    _say(ax, 0, 9.7, "the network", weight="bold", ha="left")
    xs = _spread(len(config.dims) + 4, 1.3, 17.7)
    for i, (left, right) in enumerate(pairwise(xs)):
        _arrow(ax, (left, y), (right - (0.96 if 1 <= i <= len(config.dims) else 0.83), y))
    everything = here == "network"
    _box(ax, xs[0], y, f"image\n3×{image_size[0]}×{image_size[1]}", lit=everything)
    _box(ax, xs[1], y, f"stem\n{STEMS[config.stem]}", lit=everything or here == "stem")
    sizes = _map_sizes(model, image_size)
    for i, (dim, depth, (height, width)) in enumerate(zip(config.dims, config.depths, sizes, strict=True)):
        text = f"stage {i}\n{dim}×{height}×{width}\n{depth} block{'s' * (depth > 1)}"
        _box(ax, xs[2 + i], y, text, lit=everything or here == "stages", width=1.9, height=1.75)
    _box(ax, xs[-2], y, "head\naverage,\nLinear", lit=everything or here == "head", height=1.75)
    _box(ax, xs[-1], y, f"{config.num_classes}\nscores", lit=everything)
    return xs[2] - 0.95, xs[2] + 0.95, y - 0.9


def _draw_block(ax: "Axes", model: Conv2Former, here: str) -> tuple[float, float, float]:
    """The middle row. Returns ConvMod's left and right edge and its foot."""
    y = 5.3
    _say(ax, 0, 6.35, "a block", weight="bold", ha="left")
    xs = _spread(6, 2.4, 17.1)
    for (left, right), half in zip(pairwise(xs), (1.1, 0.26, 1.1, 0.26, 0.26), strict=True):
        _arrow(ax, (left, y), (right - half, y))
    lit = here == "block"
    for x, plus in ((xs[0] + 0.9, xs[2]), (xs[2] + 0.9, xs[4])):  # what passes by: the residual connections
        _arrow(ax, (x, y), (x, y + 0.85), (plus, y + 0.85), (plus, y + 0.26))
    _say(ax, xs[0], y, "x", size=12, ground=True)
    _box(ax, xs[1], y, "ConvMod", lit=lit or here == "convmod", width=2.2)
    _sign(ax, xs[2], y, "+")
    _box(ax, xs[3], y, "MLP", lit=lit or here == "mlp", width=2.2)
    _sign(ax, xs[4], y, "+")
    _say(ax, xs[5] + 0.1, y, "next", ground=True)
    return xs[1] - 1.1, xs[1] + 1.1, y - 0.55


def _draw_convmod(ax: "Axes", model: Conv2Former, here: str) -> None:
    """The lower row: two branches that meet in a product."""
    high, y, low = 2.6, 1.65, 0.7
    k = model.config.kernel_size
    _say(ax, 0, 3.55, "its ConvMod", weight="bold", ha="left")
    start, norm, one, gelu, wide, a, product, last, end = 1.5, 3.3, 6.0, 8.2, 10.4, 12.3, 13.7, 15.5, 17.4
    lit = here == "convmod"
    _arrow(ax, (start, y), (norm - 0.95, y))
    fork = norm + 1.4
    ax.plot((norm, fork), (y, y), color=INK, linewidth=1.3, zorder=1)
    _arrow(ax, (fork, y), (fork, high), (one - 0.83, high), colour=WEIGHTS)
    _arrow(ax, (fork, y), (fork, low), (gelu - 0.83, low), colour=VALUES)
    for left, right in ((one, gelu - 0.83), (gelu, wide - 0.9), (wide, a - 0.35)):
        _arrow(ax, (left, high), (right, high), colour=WEIGHTS)
    _arrow(ax, (gelu, low), (a - 0.35, low), colour=VALUES)
    _arrow(ax, (a, high), (product, high), (product, y + 0.3), colour=WEIGHTS)
    _arrow(ax, (a, low), (product, low), (product, y - 0.3), colour=VALUES)
    _arrow(ax, (product, y), (last - 0.83, y))
    _arrow(ax, (last, y), (end - 0.25, y))
    _say(ax, start, y, "x", size=12, ground=True)
    _box(ax, norm, y, "LayerNorm", lit=lit, width=1.9)
    weights, values = lit or here == "modulation", lit or here == "value"
    _box(ax, one, high, "1×1 conv", lit=weights, colour=WEIGHTS)
    _box(ax, gelu, high, "GELU", lit=weights, colour=WEIGHTS)
    _box(ax, wide, high, f"{k}×{k}\ndepthwise", lit=weights, colour=WEIGHTS, width=1.8)
    _say(ax, a, high, "A", size=13, colour=WEIGHTS, weight="bold", ground=True)
    _box(ax, gelu, low, "1×1 conv", lit=values, colour=VALUES)
    _say(ax, a, low, "V", size=13, colour=VALUES, weight="bold", ground=True)
    _sign(ax, product, y, "⊙")
    _box(ax, last, y, "1×1 conv", lit=lit)
    _say(ax, end, y, "y", size=12, ground=True)


def _describe_network(model: Conv2Former, here: str, image_size: tuple[int, int]) -> str:
    config = model.config
    stages = ", ".join(
        f"{depth} block{'s' * (depth > 1)} at {dim}×{height}×{width}"
        for dim, depth, (height, width) in zip(config.dims, config.depths, _map_sizes(model, image_size), strict=True)
    )
    k = config.kernel_size
    return (
        f"An image of 3×{image_size[0]}×{image_size[1]} passes the stem, {len(config.dims)} stages ({stages}) and the "
        f"head, which gives {config.num_classes} scores; a block is ConvMod then MLP, each added to what it was given; "
        f"in ConvMod a 1×1 convolution, GELU and a depthwise convolution of {k}×{k} make A, a 1×1 convolution makes V, "
        f"and their product passes a last 1×1 convolution. Marked: {PARTS[here]}."
    )


# ---- The course


class Chapter(NamedTuple):
    """A notebook of the course: its title, and what a learner can do after it."""

    title: str
    afterwards: str


COURSE = (
    Chapter("Start here", "say in one sentence what ConvMod does"),
    Chapter("Convolution and attention", "write both as matrices"),
    Chapter("Building ConvMod", "build it blind"),
    Chapter("Building Conv2Former", "assemble stem, blocks, stages and head"),
    Chapter("Data and augmentation", "choose augmentations knowingly"),
    Chapter("The training loop", "write the loop yourself"),
    Chapter("Modulation maps", "read the maps"),
    Chapter("The Swin baseline", "compare it fairly with window attention"),
    Chapter("Training on a GPU", "train both models and report honestly"),
    Chapter("Kernel size and other ablations", "test an idea without fooling yourself"),
    Chapter("Beyond classification", "take the network to other tasks"),
)

ACTS = (
    ("start", (0,)),
    ("build", (1, 2, 3)),
    ("train", (4, 5)),
    ("look", (6,)),
    ("compare", (7, 8, 9)),
    ("go on", (10,)),
)


def plot_course(here: int = 0) -> Picture:
    """The course as a path through its notebooks, the present one on a yellow ground.

    Raises ValueError for a number that no notebook has.
    """
    if not 0 <= here < len(COURSE):
        raise ValueError(f"there is no notebook {here}; use 0 to {len(COURSE) - 1}.")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 3.9), layout="constrained")
    ax = figure.subplots()
    ax.set(xlim=(0, 19), ylim=(0, 7.8), aspect="equal")
    ax.axis("off")
    middle, xs = 3.5, _spread(len(ACTS), 1.5, 17.5)
    for left, right in pairwise(xs):
        _arrow(ax, (left + 1.3, middle), (right - 1.32, middle), colour=SOFT)
    for x, (act, numbers) in zip(xs, ACTS, strict=True):
        _say(ax, x, 7.4, act, weight="bold")
        top = middle + 2.2 * (len(numbers) - 1) / 2
        for i, number in enumerate(numbers):
            text = f"{number:02d}\n{fill(COURSE[number].title, 16)}"
            _box(ax, x, top - 2.2 * i, text, lit=number == here, width=2.6, height=1.9)
    return Picture(figure, _describe_course(here))


def _describe_course(here: int) -> str:
    acts = "; ".join(f"{act}: {', '.join(f'{i:02d} {COURSE[i].title}' for i in numbers)}" for act, numbers in ACTS)
    return f"The course in {len(ACTS)} steps. {acts}. You are at {here:02d}."


# ---- Strokes


def _spread(count: int, first: float, last: float) -> list[float]:
    return [first + i * (last - first) / (count - 1) for i in range(count)]


def _box(
    ax: "Axes", x: float, y: float, text: str, *, lit: bool, colour: str = INK, width: float = 1.65, height: float = 1.1
) -> None:
    from matplotlib.patches import FancyBboxPatch

    style = "round,pad=0,rounding_size=0.12"
    face = HERE if lit else "white"
    corner = (x - width / 2, y - height / 2)
    ax.add_patch(
        FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=face, edgecolor=colour, linewidth=1.3, zorder=3)
    )
    _say(ax, x, y, text, colour=colour)


def _say(
    ax: "Axes", x: float, y: float, text: str, *, size: float = 9, colour: str = INK, ground: bool = False, **style: str
) -> None:
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 2} if ground else None
    style = {"ha": "center", "va": "center", **style}
    ax.text(x, y, text, fontsize=size, color=colour, zorder=4, bbox=behind, **style)


def _sign(ax: "Axes", x: float, y: float, sign: str) -> None:
    ax.plot(x, y, "o", markersize=18, markerfacecolor="white", markeredgecolor=INK, markeredgewidth=1.3, zorder=3)
    _say(ax, x, y, sign, size=12)


def _arrow(ax: "Axes", *points: tuple[float, float], colour: str = INK) -> None:
    """A line through the points with a head at the last one."""
    if len(points) > 2:
        ax.plot(*zip(*points[:-1], strict=True), color=colour, linewidth=1.3, zorder=1, solid_joinstyle="round")
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.3, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", xy=points[-1], xytext=points[-2], arrowprops=style, zorder=1)


def _draw_zoom(ax: "Axes", part: tuple[float, float, float], detail: tuple[float, float, float]) -> None:
    """A pale fan from a part down to the row that shows it larger; each is (left, right, y)."""
    left, right, y = part
    low_left, low_right, low = detail
    ax.fill((left, right, low_right, low_left), (y, y, low, low), color="#F0F0F0", zorder=0)
