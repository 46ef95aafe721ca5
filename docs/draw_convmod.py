"""Draw docs/convmod.svg, the README's picture: self-attention and convolutional modulation, side by side.

Both halves share one geometry, so that what differs stands out: where the weights A come from, and how far they see.
Colours are Okabe and Ito's, told apart by colour-blind eyes; every colour also has its own label.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

WEIGHTS, VALUES, INK, SOFT = "#D55E00", "#0072B2", "#222222", "#6B6B6B"
FONT = 11
LEFT, MIDDLE, RIGHT = 1.85, 3.3, 4.75  # x of the weights' branch, of the trunk, of the values' branch
GRID, KERNEL = 15, 11  # positions a side of the drawn image, and of the window


def box(ax: Axes, x: float, y: float, text: str, colour: str = INK, filled: bool = False, width: float = 2.45):
    shape = FancyBboxPatch(
        (x - width / 2, y - 0.28),
        width,
        0.56,
        boxstyle="round,pad=0,rounding_size=0.12",
        facecolor=colour if filled else "white",
        edgecolor=colour,
        linewidth=1.4,
        zorder=3,
    )
    ax.add_patch(shape)
    ink = "white" if filled else colour
    ax.text(x, y - 0.015, text, ha="center", va="center", color=ink, fontsize=FONT, zorder=4)


def operator(ax: Axes, x: float, y: float, sign: str) -> None:
    ax.plot(x, y, "o", ms=25, mfc="white", mec=INK, mew=1.4, zorder=3)
    ax.text(x, y - 0.02, sign, ha="center", va="center", fontsize=15, color=INK, zorder=4)


def arrow(ax: Axes, *points: tuple[float, float], colour: str = INK) -> None:
    """A line through the points with a head at the last one."""
    if len(points) > 2:
        ax.plot(*zip(*points[:-1], strict=True), color=colour, linewidth=1.4, zorder=1, solid_joinstyle="round")
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", xy=points[-1], xytext=points[-2], arrowprops=style, zorder=1)


def footprint(ax: Axes, weights: np.ndarray, title: str, note: str) -> None:
    """The image as a grid of positions: what the marked one draws its weights from. NaN: not looked at."""
    side, x0, y0 = 2.9, 6.75, 2.9
    cell = side / GRID
    colours, scale = mpl.colormaps["PuOr_r"], Normalize(-1, 1)
    for (row, column), weight in np.ndenumerate(weights):
        face = "white" if np.isnan(weight) else colours(scale(weight))
        corner = (x0 + column * cell, y0 + side - (row + 1) * cell)
        ax.add_patch(Rectangle(corner, cell, cell, facecolor=face, edgecolor="#D9D9D9", linewidth=0.5))
    centre = (x0 + GRID // 2 * cell, y0 + GRID // 2 * cell)
    ax.add_patch(Rectangle(centre, cell, cell, facecolor="none", edgecolor="black", linewidth=1.8, zorder=5))
    ax.add_patch(Rectangle((x0, y0), side, side, facecolor="none", edgecolor=INK, linewidth=1))
    x = x0 + side / 2
    ax.text(x, y0 + side + 0.2, title, ha="center", va="bottom", fontsize=FONT, color=WEIGHTS)
    ax.text(x, y0 - 0.2, note, ha="center", va="top", fontsize=FONT - 0.5, color=SOFT, linespacing=1.5)


def trunk(ax: Axes, title: str, formula: str, merge: str, merge_name: str) -> None:
    """What the two have in common: normalise, part into weights and values, bring together, project."""
    ax.set(xlim=(0.45, 10.15), ylim=(-0.7, 8.75), aspect="equal")
    ax.axis("off")
    ax.text(0.65, 8.45, title, fontsize=15, weight="bold", color=INK, va="center")
    ax.text(0.65, 7.9, formula, fontsize=14, color=SOFT, va="center")
    ax.text(MIDDLE, 7.3, "$x$", ha="center", va="center", fontsize=15, color=INK)
    box(ax, MIDDLE, 6.55, "LayerNorm")
    arrow(ax, (MIDDLE, 7.1), (MIDDLE, 6.82))
    ax.plot((MIDDLE, MIDDLE), (6.3, 6.0), color=INK, linewidth=1.4)
    box(ax, RIGHT, 2.35, "values $V$", VALUES, filled=True)
    box(ax, LEFT, 2.35, "weights $A$", WEIGHTS, filled=True)
    operator(ax, MIDDLE, 1.45, merge)
    arrow(ax, (LEFT, 2.1), (LEFT, 1.45), (MIDDLE - 0.3, 1.45), colour=WEIGHTS)
    arrow(ax, (RIGHT, 2.1), (RIGHT, 1.45), (MIDDLE + 0.3, 1.45), colour=VALUES)
    ax.text(MIDDLE + 0.2, 1.02, merge_name, ha="left", va="center", fontsize=FONT - 0.5, color=SOFT)
    box(ax, MIDDLE, 0.5, "1×1  $W_3$")
    arrow(ax, (MIDDLE, 1.14), (MIDDLE, 0.77))
    arrow(ax, (MIDDLE, 0.25), (MIDDLE, -0.2))
    ax.text(MIDDLE, -0.45, "$y$", ha="center", va="center", fontsize=15, color=INK)


def values_branch(ax: Axes, name: str) -> None:
    arrow(ax, (MIDDLE, 6.0), (RIGHT, 6.0), (RIGHT, 5.57), colour=VALUES)
    box(ax, RIGHT, 5.3, f"1×1  {name}", VALUES)
    arrow(ax, (RIGHT, 5.05), (RIGHT, 2.62), colour=VALUES)


def draw_attention(ax: Axes) -> None:
    trunk(ax, "Self-attention", r"$y = W_3\,(\,\mathrm{softmax}(QK^\top)\;V\,)$", "@", "matrix product")
    values_branch(ax, "$V$")
    for x, name in ((LEFT - 0.65, "$Q$"), (LEFT + 0.65, "$K$")):
        arrow(ax, (MIDDLE, 6.0), (x, 6.0), (x, 5.57), colour=WEIGHTS)
        box(ax, x, 5.3, f"1×1  {name}", WEIGHTS, width=1.15)
        arrow(ax, (x, 5.05), (x, 4.57), colour=WEIGHTS)
    box(ax, LEFT, 4.3, r"$QK^\top$", WEIGHTS, width=2.45)
    arrow(ax, (LEFT, 4.05), (LEFT, 3.57), colour=WEIGHTS)
    box(ax, LEFT, 3.3, "softmax", WEIGHTS)
    arrow(ax, (LEFT, 3.05), (LEFT, 2.62), colour=WEIGHTS)
    rows, columns = np.mgrid[:GRID, :GRID]
    weights = 0.12 + 0.75 * np.exp(-((rows - 3.5) ** 2 + (columns - 10.5) ** 2) / 9)
    weights += 0.5 * np.exp(-((rows - 10) ** 2 + (columns - 4) ** 2) / 6)
    title = "$A$ at one position: $HW$ weights"
    footprint(ax, weights, title, "every position, all positive\ncost grows with $(HW)^2$")


def draw_convmod(ax: Axes) -> None:
    trunk(ax, "ConvMod", r"$y = W_3\,(\,\mathrm{DWConv}_{11\times 11}(u)\odot V\,)$", "$\\odot$", "element by element")
    values_branch(ax, "$W_2$")
    arrow(ax, (MIDDLE, 6.0), (LEFT, 6.0), (LEFT, 5.57), colour=WEIGHTS)
    for y, text in ((5.3, "1×1  $W_1$"), (4.3, "GELU"), (3.3, "11×11 depthwise")):
        box(ax, LEFT, y, text, WEIGHTS)
        arrow(ax, (LEFT, y - 0.25), (LEFT, y - 0.68), colour=WEIGHTS)
    ax.text(LEFT - 0.1, 3.8, "$u$ ", ha="right", va="center", fontsize=11, color=WEIGHTS)
    rows, columns = np.mgrid[:GRID, :GRID] - GRID // 2
    weights = 0.95 * np.cos(0.95 * columns + 0.55 * rows) * np.exp(-(rows**2 + columns**2) / 14)
    weights[np.maximum(abs(rows), abs(columns)) > KERNEL // 2] = np.nan
    title = "$A$ at one position: 121 terms"
    footprint(ax, weights, title, "an 11×11 window, either sign\ncost grows with $11^2\\,HW$")


def main() -> None:
    mpl.rcParams.update({"svg.hashsalt": "c2f", "mathtext.fontset": "stixsans", "font.family": "DejaVu Sans"})
    figure = Figure(figsize=(12, 5.8), facecolor="white")
    left, right = figure.subplots(1, 2)
    draw_attention(left)
    draw_convmod(right)
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.01, top=0.99, wspace=0.01)
    figure.savefig(Path(__file__).with_name("convmod.svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
