"""What several notebooks draw, and are drawn with: curves, images without ticks, boxes and arrows, reach."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import Tensor

from c2f import picture
from c2f.picture import HERE, INK, PURPLE, SIGNED, TEST, TRAIN, WINDOW, Picture, as_pixels, new_figure
from c2f.picture import outline as outline  # used by others only

KINDS = ((TRAIN, "-"), (TEST, "--"), (WINDOW, "-."), (PURPLE, ":"))  # colour and stroke: told apart in grey as well

Point = tuple[float, float]


def subplots(
    width: float, height: float, rows: int = 1, columns: int = 1, title: str = "", size: float = 11, **style: object
) -> tuple[Figure, Any]:
    """A figure of so many inches with its axes, as `pyplot.subplots` gives them, but outside of pyplot."""
    figure = new_figure(width, height)
    if title:
        figure.suptitle(title, fontsize=size)
    return figure, figure.subplots(rows, columns, **style)


def curves(ax: Axes, series: Mapping[str, Sequence[float]], x: Sequence[float] | None = None, **style: object) -> None:
    """A line for each name, at most four, in the colours and strokes of `KINDS`."""
    for (name, values), (colour, stroke) in zip(series.items(), KINDS, strict=False):
        ax.plot(range(len(values)) if x is None else x, values, stroke, color=colour, label=name, **style)


def finish(
    ax: Axes, title: str = "", x: str = "", y: str = "", legend: str | Mapping[str, object] = "", *,
    grid: str = "both", size: float = 12, rows: Iterable[str] = (), **limits: object,
) -> None:  # fmt: skip
    """Title, labels, a light grid as of `tidy`, what else `Axes.set` sets, and a legend (where, or its options).

    `rows`: names for the heights 0, 1, 2, …, the first at the top.
    """
    if rows := list(rows):
        ax.set_yticks(range(len(rows)), rows)
        ax.invert_yaxis()
    ax.set(xlabel=x, ylabel=y, **limits)
    ax.set_title(title, fontsize=size)
    picture.tidy(ax, grid=grid)
    if legend and ax.get_legend_handles_labels()[0]:
        ax.legend(**{"frameon": False, "fontsize": 9} | ({"loc": legend} if isinstance(legend, str) else legend))


def told(parts: Iterable[tuple[str, object]] | Mapping[str, object], between: str = ": ") -> str:
    """For a text alternative: "name: value; name: value"."""
    parts = parts.items() if isinstance(parts, Mapping) else parts
    return "; ".join(f"{' '.join(name.split())}{between}{value}" for name, value in parts)


def outline_histograms(ax: Axes, series: Mapping[str, np.ndarray], bins: np.ndarray, **style: object) -> None:
    """How often values occur: an outline for each name, filled pale, in the colours of `KINDS`."""
    for (name, values), (colour, stroke) in zip(series.items(), KINDS, strict=False):
        ax.hist(values, bins, histtype="stepfilled", facecolor=colour, alpha=0.18, **style)
        step = {"histtype": "step", "edgecolor": colour, "linestyle": stroke, "linewidth": 1.8}
        ax.hist(values, bins, label=name, **step, **style)


def median_bars(
    ax: Axes, rows: Mapping[str, Sequence[float]], colours: Sequence[str], labels: Sequence[str] = ()
) -> None:
    """For each row a bar as long as its median, a dot for each value, and after them its label (or the median)."""
    for y, (values, colour) in enumerate(zip(rows.values(), colours, strict=True)):
        ax.barh(y, np.median(values), height=0.6, color=colour, alpha=0.45)
        ax.plot(values, [y] * len(values), "o", color=colour, markersize=4)
        label = labels[y] if labels else f"{np.median(values):,.0f}"
        ax.text(1.03 * max(values), y, f" {label}", va="center", fontsize=9)
    ax.set_xlim(0, 1.12 * ax.get_xlim()[1])


def show_image(ax: Axes, image: Tensor, title: str = "", size: float = 10, **style: object) -> None:
    """An image (3, H, W), uint8 or float from 0 to 1, without numbers along its edges."""
    ax.imshow(as_pixels(image), vmin=0, **style)
    ax.set_title(title, fontsize=size)
    hide_ticks(ax)


def draw_signed(ax: Axes, values: Tensor, limit: float | None = None, **style: object) -> AxesImage:
    """Numbers (H, W) from orange (the limit, or the largest size) over white (zero) to purple."""
    limit = limit or picture.symmetric_limit(values)
    return ax.imshow(values.detach().cpu().numpy(), vmin=-limit, vmax=limit, **({"cmap": SIGNED} | style))


def scale_below(drawn: AxesImage, ticks: Sequence[float], **style: object) -> Colorbar:
    """A horizontal colour bar with so few numbers that they fit."""
    bar = drawn.figure.colorbar(drawn, orientation="horizontal", **({"ax": drawn.axes} | style))
    bar.set_ticks(ticks, labels=[picture.number(tick) if tick else "0" for tick in ticks])
    bar.ax.tick_params(labelsize=8)
    return bar


def hide_ticks(ax: Axes, frame: bool = True) -> None:
    """No numbers along the axes, and a pale frame or none."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(color="#BBBBBB", visible=frame)


def new_diagram(width: float, height: float, x: Point, y: Point) -> tuple[Figure, Axes]:
    """An empty drawing of so many inches whose coordinates run from x[0] to x[1] and from y[0] to y[1]."""
    figure, ax = subplots(width, height)
    ax.set(xlim=x, ylim=y, aspect="equal")
    ax.axis("off")
    return figure, ax


def box(
    ax: Axes, x: float, y: float, text: str, width: float = 1.65, height: float = 1.1, *, lit: bool = False,
    colour: str = INK, edge: str | None = "-", shape: str = "round,pad=0,rounding_size=0.12", **font: object,
) -> FancyBboxPatch:  # fmt: skip
    """A box around (x, y) with a text in it, `lit` on a yellow ground; `edge` is its outline's stroke, or None."""
    corner, face = (x - width / 2, y - height / 2), HERE if lit else "white"
    style = {"linestyle": edge, "linewidth": 1.3} if edge else {"linewidth": 0}
    patch = FancyBboxPatch(corner, width, height, shape, facecolor=face, edgecolor=colour, zorder=3, **style)
    ax.text(x, y, text, ha="center", va="center", color=colour, zorder=4, **({"fontsize": 9} | font))
    return ax.add_patch(patch)


def arrow(
    ax: Axes, start: FancyBboxPatch | Point, end: FancyBboxPatch | Point, colour: str = INK, path: str = "arc3", **style
) -> None:
    """An arrow from box to box, or from and to a point; `path` is one of Matplotlib's connection styles."""
    ends = {}
    for which, at in (("A", start), ("B", end)):
        if isinstance(at, FancyBboxPatch):
            ends[f"patch{which}"] = at
            at = (at.get_x() + at.get_width() / 2, at.get_y() + at.get_height() / 2)
        ends[f"pos{which}"] = at
    style = {"linewidth": 1.3, "mutation_scale": 10, "shrinkA": 0, "shrinkB": 0, "zorder": 1} | style
    ax.add_patch(FancyArrowPatch(**ends, arrowstyle="-|>", color=colour, connectionstyle=path, **style))


def plot_reach(changes: Mapping[str, Tensor], position: tuple[int, int]) -> Picture:
    """Where the output changes (C, H, W, after minus before), by title, when the input does at (row, column)."""
    figure, axes = subplots(3.1 * len(changes) + 0.4, 3.4, 1, len(changes))
    said = []
    for ax, (title, change) in zip(axes, changes.items(), strict=True):
        size = change.detach().cpu().abs().mean(0).numpy()
        reached, largest = int(np.count_nonzero(size)), float(size.max())
        drawn = ax.imshow(np.ma.masked_equal(size, 0), cmap="viridis", norm=LogNorm(largest / 1e4, largest))
        seen = max(5, 120 / len(size))  # points: as large as the position, or large enough
        ax.plot(*position[::-1], "s", markersize=seen, markerfacecolor="none", markeredgecolor=TEST)
        ax.set(title=f"{title}\n{reached:,} position{'s' * (reached != 1)}", xlabel="column", ylabel="row")
        said.append(f"{title}: {reached:,} of {size.size:,} positions change")
    bar = figure.colorbar(drawn, ax=axes.tolist(), shrink=0.7, label="size of the change,\neach map by itself")
    bar.set_ticks([largest / 1e4, largest / 1e2, largest], labels=["1/10,000", "1/100", "largest"])
    bar.ax.minorticks_off()
    return Picture(figure, f"One position is changed, row {position[0]}, column {position[1]}. {'; '.join(said)}.")
