"""The pictures of notebook 01: layers that mix positions, as matrices and maps; and how they are timed.

A layer that makes every output position a weighted sum of input positions is a matrix M with a row for each output
position and a column for each input position:

    y[p] = sum over q of M[p, q] · x[q]           positions are counted row by row: p = W · row + column

Shapes: H x W positions, h x w pixels of the photograph below them (multiples of H and W).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from timeit import Timer
from types import MappingProxyType
from typing import TypeVar

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from torch import Tensor

from c2f.picture import INK, PURPLE, SIGNED, SOFT, TEST, TRAIN, WINDOW, Picture, as_pixels, new_figure, number
from c2f_course.figures.drawing import draw_signed, finish, outline, scale_below, subplots
from c2f_course.figures.drawing import plot_reach as plot_reach  # drawn in this notebook too
from c2f_course.widgets.panel import Box, Panel

Key = TypeVar("Key")


def unit_tokens(images: Tensor, score: float = 3.0) -> Tensor:
    """Colours of positions as tokens for a first look at attention: alike colours give a large product, unlike a small.

    Each image's three colours are standardised over its positions, and then each position's are stretched to one
    length, so that with queries and keys equal to them the logits q · k / √3 run from -score to score.

    Shape: uint8 or float (N, 3, H, W), unchanged.
    """
    x = images.float()
    x = (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True).clamp(min=1e-6)
    return x / x.norm(dim=1, keepdim=True).clamp(min=1e-6) * (score * 3**0.5) ** 0.5


def lay_over(photograph: Tensor, weights: Tensor, limit: float | None = None) -> Tensor:
    """Signed weights (H, W) in colour over a pale grey photograph: the larger one is, the less one sees through it.

    limit: the weight at which the colour is full; by default the largest size. Shape: uint8 or float from 0 to 1
    (3, h, w) -> float from 0 to 1 (3, h, w).
    """
    zoom = torch.ones(photograph.shape[-2] // weights.shape[0], photograph.shape[-1] // weights.shape[1])
    share = torch.kron(weights.detach().cpu().float() / (limit or weights.abs().max().item() or 1.0), zoom).clamp(-1, 1)
    colours = torch.from_numpy(colormaps[SIGNED](((share.sign() + 1) / 2 * 0.86 + 0.07).numpy())[..., :3])
    grey = 0.45 + 0.55 * photograph.cpu().float().mean(0, keepdim=True) / (1 if photograph.is_floating_point() else 255)
    return torch.lerp(grey, colours.float().permute(2, 0, 1), 0.85 * share.abs())


def plot_positions(photograph: Tensor, small: Tensor) -> Picture:
    """A photograph (3, h, w) beside the positions (3, H, W) left of it, each with its number p = W · row + column."""
    _, height, width = small.shape
    figure, (left, right) = subplots(8.4, 4.0, 1, 2)
    pixels = f"{photograph.shape[1]}×{photograph.shape[2]} pixels"
    left.imshow(as_pixels(photograph), vmin=0, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    right.imshow(as_pixels(small), vmin=0)
    bright = small.float().mean(0) >= (0.5 if small.is_floating_point() else 127.5)
    for p, ink in enumerate("black" if light else "white" for light in bright.flatten()):
        right.text(p % width, p // width, str(p), ha="center", va="center", fontsize=8, color=ink)
    left.set(title=f"{pixels}, for you", xlabel="column", ylabel="row")
    right.set(title=f"{height}×{width} positions, for the layers", xlabel="column", ylabel="row")
    alt = f"A photograph of {pixels}, and the {height}×{width} positions left of it, counted row by row from 0 at the "
    return Picture(figure, f"{alt}top left to {height * width - 1} at the bottom right.")


def plot_matrices(matrices: Mapping[str, Tensor], photograph: Tensor, positions: Sequence[tuple[int, int]]) -> Picture:
    """Matrices (HW, HW) of a square map, and of each some rows laid back over the photograph (3, h, w).

    Each matrix and each row has its own colour scale; zero is white. positions: (row, column) of at most three rows.
    """
    mosaic = [list(matrices), *([f"{name} {position}" for name in matrices] for position in positions)]
    if len(matrices) == 1:  # its rows beside it, and not below
        (name,) = matrices
        mosaic = [[name, f"{name} {position}"] for position in positions]
        figure = new_figure(8.6, 5.2)
        axes = figure.subplot_mosaic(mosaic, width_ratios=[2.1, 1])
    else:
        figure = new_figure(4.75 * len(matrices), 8.2)
        axes = figure.subplot_mosaic(mosaic, height_ratios=[1.35] + [1] * len(positions))
    told = []
    for name, matrix in matrices.items():
        side, ax = round(len(matrix) ** 0.5), axes[name]
        ticks = range(0, len(matrix), side)
        figure.colorbar(draw_signed(ax, matrix), ax=ax, shrink=0.7)
        ax.set(title=name, xticks=ticks, yticks=ticks, xlabel="input position q", ylabel="output position p")
        told.append(f"{name}: {int((matrix != 0).sum()):,} of {matrix.numel():,} numbers are not zero")
        for (row, column), colour in zip(positions, (WINDOW, TRAIN, PURPLE), strict=False):
            p, over = side * row + column, axes[f"{name} {(row, column)}"]
            weights = matrix[p].view(side, side)
            count, ends = int((weights != 0).sum()), f"from {number(weights.min())} to {number(weights.max())}"
            outline(ax, p - 0.3, -0.2, 1.6, len(matrix) + 0.4, colour, linewidth=1.5, clip_on=False)
            over.imshow(as_pixels(lay_over(photograph, weights)), extent=(-0.5, side - 0.5, side - 0.5, -0.5))
            outline(over, row, column, 1, 1, colour, clip_on=False)
            over.set(xlabel="column", ylabel="row")
            over.set_title(f"row p = {p} over the image (□ is p)\n{count} of {side**2} are not zero", fontsize=10)
            told[-1] += f"; row {p} (row {row}, column {column} of the map) has {count} weights, {ends}"
    return Picture(figure, f"{'. '.join(told)}.")


def plot_table(
    rows: Mapping[str, Mapping[str, Tensor]], alt: str, title: str = "", *,
    position: tuple[int, int] | None = None, signs: Mapping[str, str] = MappingProxyType({}),
) -> Picture:  # fmt: skip
    """Maps and images as a table; the maps of a column share one colour scale, so that rows compare.

    rows: name of the row -> title of the column -> (H, W) numbers, or an image (3, h, w); the same columns in each.
    alt: the sentence that says what the figure shows. position: (row, column) to be outlined on all maps.
    signs: title of a column -> what stands before it, such as ⊙ or =.
    """

    def panel(name: str, values: Tensor) -> Panel:
        if values.ndim > 2:
            return Panel(name, values)
        limit = max(row[name].abs().max().item() for row in rows.values())
        return Panel(name, values, limit, [Box(*position, 1, 1, INK)] if position else (), sign=signs.get(name, ""))

    return plot_panels([[panel(*item) for item in row.items()] for row in rows.values()], alt, title, labels=list(rows))


def median_seconds(
    steps: Mapping[Key, Callable[[], object]], rounds: int = 15, least_seconds: float = 2e-3
) -> dict[Key, float]:
    """The median processor seconds of one call of each step, on one thread, the steps measured in alternation.

    In alternation, so that a busy moment slows all of them. One thread, since several wait for each other, and on a
    computer that does something else as well that wait may be longer than a small layer takes.

    rounds: how often each is measured. least_seconds: a measurement repeats a fast step for so long.
    """
    # The thread's own time leaves out what the computer does in between; where it is coarse, the wall clock must do.
    clock = time.thread_time if time.get_clock_info("thread_time").resolution < 1e-5 else time.perf_counter
    timers = {name: Timer(step, timer=clock) for name, step in steps.items()}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        first = {name: min(timer.repeat(3, 1)[1:]) for name, timer in timers.items()}  # one call prepares the others
        calls = {name: max(1, round(least_seconds / max(first[name], 1e-7))) for name in steps}
        turns = [{name: timers[name].timeit(calls[name]) / calls[name] for name in steps} for _ in range(rounds)]
    finally:
        torch.set_num_threads(threads)
    return {name: median(turn[name] for turn in turns) for name in steps}


def plot_panels(
    rows: Sequence[Sequence[Panel]], alt: str, title: str = "", *, lead: Panel | None = None, labels: Sequence[str] = ()
) -> Picture:
    """Rows of panels (`c2f_course.widgets.Panel`) as a figure: numbers in signed colours with their scale, or images.

    alt: the sentence that says what the figure shows. lead: one large panel at the left of all rows. labels: of rows.
    """
    first = int(lead is not None)
    widths = [float(len(rows))] * first + [1.0] * max(map(len, rows))
    each = min(2.3, 9.5 / sum(widths))
    figure = new_figure(each * sum(widths), (each + 0.55) * len(rows) + 0.3 * bool(title))
    grid = figure.add_gridspec(len(rows), len(widths), width_ratios=widths)
    if lead is not None:
        _draw_panel(figure.add_subplot(grid[:, 0]), lead)
    for i, panels in enumerate(rows):
        for j, panel in enumerate(panels):
            ax = figure.add_subplot(grid[i, j + first])
            _draw_panel(ax, panel)
            if labels and j == 0:
                ax.set_ylabel(labels[i], fontsize=11)
    figure.suptitle(title, fontsize=12)
    return Picture(figure, alt)


def plot_costs(
    sides: Sequence[int], paper: Mapping[str, Sequence[float]], measured: Mapping[str, Sequence[float]], title: str
) -> Picture:
    """Multiply-adds on paper (dashed, right axis) and seconds measured (marks, left axis) against a map's side.

    The axes are logarithmic and laid so that both meet for the layer that does most multiply-adds a second at the
    largest side: where a mark lies above its dashed line, that layer reaches less of the machine's speed.

    sides: of the square map, rising. paper, measured: name -> multiply-adds, and seconds, for each side; at most three.
    """
    rate = max(paper[name][-1] / measured[name][-1] for name in paper) / 1e3  # multiply-adds a millisecond
    figure, ax = subplots(8.8, 5.4)
    said = []
    for name, colour, mark in zip(paper, (TEST, TRAIN, SOFT), "osD", strict=False):
        ms = [1e3 * seconds for seconds in measured[name]]
        ax.loglog(sides, [count / rate for count in paper[name]], "--", color=colour, linewidth=1.4)
        ax.loglog(sides, ms, f"{mark}-", color=colour, linewidth=2, label=name)
        first, last = (_short(paper[name][i]) for i in (0, -1))
        begin, end = (f"{ms[i]:.0f}" if ms[i] >= 10 else f"{ms[i]:.2g}" for i in (0, -1))
        said.append(f"{name} from {first} to {last} multiply-adds on paper and from {begin} to {end} ms measured")
    ax.plot([], [], "k--", linewidth=1.4, label="dashed: on paper")
    finish(ax, title, "side of the map (positions)", "measured: processor milliseconds per call", "upper left")
    ax.set_xticks(sides, [str(side) for side in sides])
    ax.set_xticks([], minor=True)
    ax.spines["right"].set_visible(True)
    count = ax.secondary_yaxis("right", functions=(lambda ms: ms * rate, lambda count: count / rate))
    count.set_ylabel("on paper: multiply-adds")
    return Picture(figure, f"From a side of {sides[0]} to one of {sides[-1]}: {'; '.join(said)}.")


def _draw_panel(ax: Axes, panel: Panel) -> None:
    (height, width), is_map = panel.values.shape[-2:], panel.values.ndim == 2
    drawn = draw_signed(ax, panel.values, panel.limit) if is_map else ax.imshow(as_pixels(panel.values), vmin=0)
    bar = scale_below(drawn, drawn.get_clim(), shrink=0.8, aspect=14, pad=0.04)
    if not is_map:  # an image has no scale, but takes the room of one, so that the maps beside it stand at its height
        bar.ax.tick_params(color="none", labelcolor="none")
        bar.outline.set_visible(False)
        bar.solids.set_visible(False)
    for box in panel.boxes:
        top, left = max(box.top, 0), max(box.left, 0)
        bottom, right = min(box.top + box.height, height), min(box.left + box.width, width)
        outline(ax, top, left, bottom - top, right - left, box.colour, clip_on=False)
    if panel.sign:
        ax.text(-0.13, 0.5, panel.sign, ha="center", va="center", fontsize=14, transform=ax.transAxes)
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    ax.set_title(panel.title, fontsize=10)


def _short(count: float) -> str:
    for size, word in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if count >= size:
            return f"{count / size:.3g} {word}"
    return f"{count:g}"
