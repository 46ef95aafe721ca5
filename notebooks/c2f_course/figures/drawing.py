"""What several notebooks draw, and are drawn with: curves, images without ticks, boxes and arrows, who reaches whom."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import Tensor

from c2f.maps.picture import HERE, INK, PURPLE, TEST, TRAIN, WINDOW, Picture, as_pixels, new_figure, tidy

KINDS = ((TRAIN, "-"), (TEST, "--"), (WINDOW, "-."), (PURPLE, ":"))  # colour and stroke: told apart in grey as well

Point = tuple[float, float]


def subplots(width: float, height: float, rows: int = 1, columns: int = 1, **style: object) -> tuple[Figure, Any]:
    """A figure of so many inches with its axes, as `pyplot.subplots` gives them, but outside of pyplot."""
    figure = new_figure(width, height)
    return figure, figure.subplots(rows, columns, **style)


def curves(ax: Axes, series: Mapping[str, Sequence[float]], x: Sequence[float] | None = None, **style: object) -> None:
    """A line for each name, at most four, in the colours and strokes of `KINDS`."""
    for (name, values), (colour, stroke) in zip(series.items(), KINDS, strict=False):
        ax.plot(range(len(values)) if x is None else x, values, stroke, color=colour, label=name, **style)


def finish(ax: Axes, title: str, x: str, y: str, legend: str = "upper right") -> None:
    """Title, labels, a light grid, and a legend where there is something to name ("" for none)."""
    ax.set(title=title, xlabel=x, ylabel=y)
    tidy(ax)
    if legend and ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, loc=legend, fontsize=9)


def name_rows(ax: Axes, names: Iterable[str]) -> None:
    """A name for each row at the heights 0, 1, 2, …, the first row at the top."""
    names = list(names)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()


def draw_medians(
    ax: Axes, rows: Mapping[str, Sequence[float]], colours: Sequence[str], says: Sequence[str] = ()
) -> None:
    """For each row a bar as long as its median, a dot for each value, and after them what `says` (or the median)."""
    for y, (values, colour) in enumerate(zip(rows.values(), colours, strict=True)):
        ax.barh(y, np.median(values), height=0.6, color=colour, alpha=0.45)
        ax.plot(values, [y] * len(values), "o", color=colour, markersize=4)
        said = says[y] if says else f"{np.median(values):,.0f}"
        ax.text(1.03 * max(values), y, f" {said}", va="center", fontsize=9)
    ax.set_xlim(0, 1.12 * ax.get_xlim()[1])
    tidy(ax, grid="x")


def show_image(ax: Axes, image: Tensor, title: str = "", size: float = 10) -> None:
    """An image (3, H, W), uint8 or float from 0 to 1, without numbers along its edges."""
    ax.imshow(as_pixels(image), vmin=0)
    ax.set_title(title, fontsize=size)
    hide_ticks(ax)


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
    """Where the output changes when one position of the input does, and at how many positions.

    Args:
        changes: title -> (C, H, W), output after minus output before.
        position: (row, column) of what was changed.
    """
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
