"""Layers as matrices: how those that mix positions are drawn, compared, and timed.

A layer that makes every output position a weighted sum of input positions is a matrix M with a row for each output
position and a column for each input position:

    y[p] = sum over q of M[p, q] · x[q]           positions are counted row by row: p = W · row + column

For a convolution M is its Toeplitz matrix, for self-attention the softmax of the scores. Row p, cut into H rows of W
again, is a map: what p takes from where. Here is what draws such matrices and maps, and what measures and plots costs.

Shapes: H x W positions, h x w pixels of the photograph that they lie over.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from statistics import median
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from c2f.maps.picture import (
    INK,
    PURPLE,
    SIGNED,
    SOFT,
    TEST,
    TRAIN,
    WINDOW,
    Picture,
    as_pixels,
    new_figure,
    number,
    outline,
    symmetric_limit,
)
from c2f_course.widgets.panel import Box, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKS = (WINDOW, TRAIN, PURPLE)

Key = TypeVar("Key")


def unit_tokens(images: Tensor, score: float = 3.0) -> Tensor:
    """Colours of positions as tokens for a first look at attention: alike colours give a large product, unlike a small.

    Each image's three colours are standardised over its positions, and then each position's are stretched to one
    length, so that with queries and keys equal to them the scores q · k / √3 run from -score to score.

    Args:
        images: (N, 3, H, W), uint8 or float.
        score: the largest score that there can be.

    Returns: (N, 3, H, W). Raises ValueError for images of another shape.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"the images have shape {tuple(images.shape)}; give them as (N, 3, H, W).")
    x = images.float()
    x = (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True).clamp(min=1e-6)
    return x / x.norm(dim=1, keepdim=True).clamp(min=1e-6) * (score * 3**0.5) ** 0.5


def lay_over(photograph: Tensor, weights: Tensor, limit: float | None = None) -> Tensor:
    """A map of weights in colour over a pale grey photograph: the larger a weight, the less one sees through it.

    Args:
        photograph: (3, h, w), uint8 or float from 0 to 1; h and w are multiples of H and W.
        weights: (H, W), signed.
        limit: the weight at which the colour is full; by default the largest size.

    Returns: (3, h, w), floats from 0 to 1. Raises ValueError for sizes that do not fit.
    """
    height, width = weights.shape
    h, w = photograph.shape[-2:]
    if photograph.ndim != 3 or h % height or w % width:
        raise ValueError(
            f"the photograph has shape {tuple(photograph.shape)}, the map {height}×{width}; give (3, h, w) with h a "
            f"multiple of {height} and w of {width}."
        )
    from matplotlib import colormaps

    limit = limit or symmetric_limit(weights)
    share = (weights.detach().float() / limit).clamp(-1, 1)
    colours = torch.from_numpy(colormaps[SIGNED](((share.sign() + 1) / 2 * 0.86 + 0.07).cpu().numpy())[..., :3]).float()
    share, colours = share.abs()[None], colours.permute(2, 0, 1)
    share, colours = (t.repeat_interleave(h // height, 1).repeat_interleave(w // width, 2) for t in (share, colours))
    scale = 1 if photograph.is_floating_point() else 255
    grey = 0.45 + 0.55 * photograph.float().mean(0, keepdim=True) / scale
    return (1 - 0.85 * share) * grey + 0.85 * share * colours


def plot_positions(photograph: Tensor, small: Tensor) -> Picture:
    """A photograph beside the H×W positions that are left of it, each with its number p = W · row + column.

    Args:
        photograph: (3, h, w), for the eye.
        small: (3, H, W), what the layers get.

    Raises ValueError for a second image of another shape, or of more than 400 positions (the numbers would not fit).
    """
    if small.ndim != 3 or small.shape[1] * small.shape[2] > 400:
        raise ValueError(f"the small image has shape {tuple(small.shape)}; give (3, H, W) with at most 400 positions.")
    _, height, width = small.shape
    figure = new_figure(8.4, 4.0)
    left, right = figure.subplots(1, 2)
    left.imshow(as_pixels(photograph), vmin=0, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    left.set_title(f"{photograph.shape[1]}×{photograph.shape[2]} pixels, for you")
    right.imshow(as_pixels(small), vmin=0)
    right.set_title(f"{height}×{width} positions, for the layers")
    scale = 1 if small.is_floating_point() else 255
    for row in range(height):
        for column in range(width):
            ink = "white" if small[:, row, column].float().mean() / scale < 0.5 else "black"
            right.text(column, row, str(width * row + column), ha="center", va="center", fontsize=8, color=ink)
    for ax in (left, right):
        ax.set(xlabel="column", ylabel="row")
    return Picture(
        figure,
        f"A photograph of {photograph.shape[1]}×{photograph.shape[2]} pixels, and the {height}×{width} positions left "
        f"of it, counted row by row from 0 at the top left to {height * width - 1} at the bottom right.",
    )


def plot_matrix(
    matrix: Tensor,
    photograph: Tensor,
    positions: Sequence[tuple[int, int]],
    title: str = "",
) -> Picture:
    """A matrix of positions, and some of its rows laid back over the photograph.

    Args:
        matrix: (HW, HW), for a square map: H = W.
        photograph: (3, h, w), h and w multiples of H.
        positions: (row, column) of up to three positions p.
        title: over all.

    Raises ValueError for a matrix that is not that of a square map, and for none or too many positions.
    """
    side = _side(matrix)
    if not 1 <= len(positions) <= len(MARKS):
        raise ValueError(f"there are {len(positions)} positions; give one to {len(MARKS)}.")
    figure = new_figure(8.6, 5.2)
    grid = figure.add_gridspec(len(positions), 2, width_ratios=[2.1, 1])
    ax = figure.add_subplot(grid[:, 0])
    drawn = _draw_matrix(ax, matrix)
    figure.colorbar(drawn, ax=ax, shrink=0.7, label="weight")
    told = []
    for i, ((row, column), colour) in enumerate(zip(positions, MARKS, strict=False)):
        p = side * row + column
        _mark_row(ax, p, colour)
        over = figure.add_subplot(grid[i, 1])
        _draw_over(over, photograph, matrix[p].view(side, side), (row, column), colour, symmetric_limit(matrix))
        count = int((matrix[p] != 0).sum())
        over.set_title(f"row p = {p} over the image:\n{count} of {side * side} are not zero", fontsize=10)
        told.append(f"row {p} (row {row}, column {column} of the map) has {count}")
    figure.suptitle(title, fontsize=12)
    nonzero = int((matrix != 0).sum())
    return Picture(
        figure,
        f"{title + ': ' if title else ''}a {side**2}×{side**2} matrix in which {nonzero:,} of {side**4:,} numbers are "
        f"not zero; of its rows, {'; '.join(told)} that are not zero.",
    )


def plot_beside(
    matrices: Mapping[str, Tensor],
    photograph: Tensor,
    position: tuple[int, int],
) -> Picture:
    """Matrices side by side, and below each the same row p laid over the photograph.

    Args:
        matrices: name -> (HW, HW), for a square map; each has its own colour scale, zero is white.
        photograph: (3, h, w), h and w multiples of H.
        position: (row, column) of p.

    Raises ValueError for a matrix that is not that of a square map.
    """
    figure = new_figure(4.75 * len(matrices), 8.2)
    axes = figure.subplots(2, len(matrices), height_ratios=[1.35, 1], squeeze=False)
    told = []
    for (name, matrix), (above, below) in zip(matrices.items(), axes.T, strict=True):
        side = _side(matrix)
        p = side * position[0] + position[1]
        drawn = _draw_matrix(above, matrix)
        figure.colorbar(drawn, ax=above, shrink=0.75)
        _mark_row(above, p, WINDOW)
        above.set_title(name)
        weights = matrix[p].view(side, side)
        _draw_over(below, photograph, weights, position, WINDOW, symmetric_limit(weights))
        count = int((weights != 0).sum())
        below.set_title(f"its row p = {p} over the image (□ is p)\n{count} of {side**2} weights are not zero")
        told.append(
            f"{name}: {int((matrix != 0).sum()):,} of {side**4:,} numbers are not zero, and row {p} has {count} "
            f"weights, from {number(weights.min())} to {number(weights.max())}"
        )
    return Picture(figure, f"Two kinds of matrix. {'; '.join(told)}." if len(told) == 2 else f"{'; '.join(told)}.")


def plot_per_image(
    photographs: Tensor,
    matrices: Mapping[str, Tensor],
    names: Sequence[str],
) -> Picture:
    """For each photograph, in a column, the matrices that the layers use for it.

    Args:
        photographs: (N, 3, h, w).
        matrices: name -> (N, HW, HW), for a square map; one colour scale for each name.
        names: N names of the photographs.

    Raises ValueError where the numbers do not fit.
    """
    n = len(photographs)
    if len(names) != n or any(len(each) != n for each in matrices.values()):
        raise ValueError(f"there are {n} photographs; give {n} names and {n} matrices of each kind.")
    figure = new_figure(0.4 + 2.35 * n, 0.6 + 2.2 * (1 + len(matrices)))
    axes = figure.subplots(1 + len(matrices), n, squeeze=False)
    for ax, photograph, name in zip(axes[0], photographs, names, strict=True):
        ax.imshow(as_pixels(photograph), vmin=0)
        ax.set_title(name)
    told = []
    for line, (name, stack) in zip(axes[1:], matrices.items(), strict=True):
        for ax, matrix in zip(line, stack, strict=True):
            ax.imshow(
                matrix.detach().cpu().numpy(), cmap=SIGNED, vmin=-symmetric_limit(stack), vmax=symmetric_limit(stack)
            )
        line[0].set_ylabel(name)
        apart = max((stack[0] - other).abs().max().item() for other in stack)
        told.append(f"{name}: " + ("the same for all" if apart == 0 else f"they differ by up to {apart:.2f}"))
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    return Picture(figure, f"The matrices for {n} photographs ({', '.join(names)}). {'; '.join(told)}.")


def plot_changes(photograph: Tensor, position: tuple[int, int], changes: Mapping[str, Tensor]) -> Picture:
    """Where the outputs change when the input changes at one position only.

    Args:
        photograph: (3, h, w), h and w multiples of H and W.
        position: (row, column) of what was changed.
        changes: name -> (H, W), the size of each output's change; logarithmic colours, 0 is white.

    Raises ValueError for no change at all, or a map that is not (H, W).
    """
    from matplotlib.colors import LogNorm

    if not changes or any(change.ndim != 2 for change in changes.values()):
        raise ValueError("give at least one map of changes, each (H, W).")
    figure = new_figure(3.2 * (1 + len(changes)), 3.5)
    axes = figure.subplots(1, 1 + len(changes))
    height, width = next(iter(changes.values())).shape
    _draw_over(axes[0], photograph, torch.zeros(height, width), position, WINDOW, 1.0)
    axes[0].set_title("changed here (□), nowhere else")
    most = max(change.abs().max().item() for change in changes.values()) or 1.0
    told = []
    for ax, (name, change) in zip(axes[1:], changes.items(), strict=True):
        seen = change.abs().detach().double()
        seen[seen < most * 1e-7] = 0
        count = int((seen > 0).sum())
        shown = np.ma.masked_less_equal(seen.cpu().numpy(), 0)
        drawn = ax.imshow(shown, cmap="Oranges", norm=LogNorm(most * 1e-4, most, clip=True))
        outline(ax, *position, 1, 1, WINDOW)
        ax.set(title=f"{name}:\n{count} of {height * width} outputs change", xlabel="column", ylabel="row")
        told.append(f"{name}: {count} of {height * width} outputs change")
    figure.colorbar(drawn, ax=axes[1:].tolist(), label="size of the change", shrink=0.8)
    return Picture(figure, f"The input is changed at row {position[0]}, column {position[1]} only. {'; '.join(told)}.")


def plot_table(
    rows: Mapping[str, Mapping[str, Tensor]],
    alt: str,
    title: str = "",
    *,
    position: tuple[int, int] | None = None,
    signs: Mapping[str, str] | None = None,
) -> Picture:
    """Maps and images as a table; the maps of a column share one colour scale, so that rows compare.

    Args:
        rows: name of the row -> title of the column -> (H, W) numbers, or an image (3, h, w).
        alt: the sentence that says what the figure shows, with its numbers.
        title: over all.
        position: (row, column) to be outlined on all maps.
        signs: title of a column -> what stands before it, such as ⊙ or =.

    Raises ValueError where rows have different columns.
    """
    if not rows or any(row.keys() != next(iter(rows.values())).keys() for row in rows.values()):
        raise ValueError(f"the rows {list(rows)} must have the same columns, and there must be one at least.")
    columns = next(iter(rows.values()))
    limits = {
        name: max(symmetric_limit(row[name]) for row in rows.values()) for name in columns if columns[name].ndim == 2
    }
    boxes = () if position is None else (Box(*position, 1, 1, INK),)
    panels = [
        [
            Panel(name, values, limits.get(name), boxes if values.ndim == 2 else (), sign=(signs or {}).get(name, ""))
            for name, values in row.items()
        ]
        for row in rows.values()
    ]
    return plot_panels(panels, alt, title, labels=list(rows))


def plot_panels(
    rows: Sequence[Sequence[Panel]],
    alt: str,
    title: str = "",
    *,
    lead: Panel | None = None,
    labels: Sequence[str] = (),
) -> Picture:
    """Rows of panels (`c2f_course.widgets.Panel`) as a figure: numbers in signed colours with their scale, or images.

    Args:
        rows: of panels; a shorter row leaves its end empty.
        alt: the sentence that says what the figure shows, with its numbers.
        title: over all.
        lead: one large panel at the left of all rows.
        labels: what stands before each row, or nothing.

    Raises ValueError for no panel.
    """
    if not rows or not any(rows):
        raise ValueError("there is no panel; give at least one row of at least one.")
    columns, large = max(map(len, rows)), len(rows) * (lead is not None)
    widths = [float(large)] * (lead is not None) + [1.0] * columns
    each = min(2.3, 9.5 / sum(widths))
    figure = new_figure(each * sum(widths), (each + 0.55) * len(rows) + 0.3 * bool(title))
    grid = figure.add_gridspec(len(rows), len(widths), width_ratios=widths)
    if lead is not None:
        _draw_panel(figure.add_subplot(grid[:, 0]), lead)
    for i, panels in enumerate(rows):
        for j, panel in enumerate(panels):
            ax = figure.add_subplot(grid[i, j + (lead is not None)])
            _draw_panel(ax, panel)
            if labels and j == 0:
                ax.set_ylabel(labels[i], fontsize=11)
    figure.suptitle(title, fontsize=12)
    return Picture(figure, alt)


def measure_in_turn(
    steps: Mapping[Key, Callable[[], object]], rounds: int = 15, least_seconds: float = 2e-3
) -> dict[Key, float]:
    """The median processor seconds of one call of each step, on one thread, measured in turn.

    In turn, so that a busy moment hits all alike. One thread, since several wait for each other, and on a computer that
    does something else as well that wait may be longer than a small layer takes.

    Args:
        steps: name -> what to call.
        rounds: how often each is measured.
        least_seconds: a measurement calls a quick step as often as fills this time.

    Raises ValueError for fewer than one round.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; measure at least once.")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        calls = {}
        for name, step in steps.items():
            step()  # the first call prepares what later ones find ready
            calls[name] = max(1, round(least_seconds / min(_seconds(step, 1) for _ in range(3))))
        taken: dict[Key, list[float]] = {name: [] for name in steps}
        for _ in range(rounds):
            for name, step in steps.items():
                taken[name].append(_seconds(step, calls[name]))
    finally:
        torch.set_num_threads(threads)
    return {name: median(each) for name, each in taken.items()}


def plot_costs(
    sides: Sequence[int],
    paper: Mapping[str, Sequence[float]],
    measured: Mapping[str, Sequence[float]],
    title: str = "",
) -> Picture:
    """Multiply-adds on paper (dashed, right axis) and seconds measured (marks, left axis) against a map's side.

    The axes are logarithmic and laid so that both meet for the layer that does most multiply-adds a second at the
    largest side: where a mark lies above its dashed line, that layer reaches less of the machine's speed.

    Args:
        sides: sides of the square map, rising.
        paper: name -> multiply-adds for each side.
        measured: name -> seconds for each side; the same names.
        title: over the plot.

    Raises ValueError where names or lengths do not fit.
    """
    if paper.keys() != measured.keys() or any(
        len(line) != len(sides) for line in (*paper.values(), *measured.values())
    ):
        raise ValueError(f"give the same names on paper and measured, and {len(sides)} numbers each, one for a side.")
    rate = max(counts[-1] / seconds[-1] for counts, seconds in zip(paper.values(), measured.values(), strict=True))
    figure = new_figure(8.8, 5.4)
    ax = figure.subplots()
    for name, colour, mark in zip(paper, cycle((TEST, TRAIN, SOFT)), cycle("osD")):
        ax.plot(sides, [1e3 * count / rate for count in paper[name]], "--", color=colour, linewidth=1.4)
        ax.plot(sides, [1e3 * t for t in measured[name]], f"{mark}-", color=colour, linewidth=2, label=name)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="side of the map (positions)",
        ylabel="measured: processor milliseconds a call",
    )
    ax.set_xticks(sides, [str(side) for side in sides], minor=False)
    ax.set_xticks([], minor=True)
    ax.plot([], [], "k--", linewidth=1.4, label="dashed: on paper")
    ax.grid(alpha=0.25, which="major")
    ax.spines[["top"]].set_visible(False)
    ax.legend(frameon=False, loc="upper left")
    count = ax.secondary_yaxis("right", functions=(lambda ms: ms * rate / 1e3, lambda n: n * 1e3 / rate))
    count.set_ylabel("on paper: multiply-adds")
    ax.set_title(title or "Cost against the size of the map")
    told = "; ".join(
        f"{name} from {_short(paper[name][0])} to {_short(paper[name][-1])} multiply-adds on paper and from "
        f"{_milliseconds(measured[name][0])} to {_milliseconds(measured[name][-1])} ms measured"
        for name in paper
    )
    return Picture(figure, f"From a side of {sides[0]} to one of {sides[-1]}: {told}.")


# ---- Strokes


def _draw_matrix(ax: "Axes", matrix: Tensor):
    limit, side = symmetric_limit(matrix), _side(matrix)
    drawn = ax.imshow(matrix.detach().cpu().numpy(), cmap=SIGNED, vmin=-limit, vmax=limit)
    ticks = range(0, side * side, side)
    ax.set_xticks(ticks)
    ax.set_yticks(ticks)
    ax.set(xlabel="input position q", ylabel="output position p")
    return drawn


def _mark_row(ax: "Axes", p: int, colour: str) -> None:
    """An outline around row p that leaves the row itself to be seen."""
    size = ax.images[0].get_array().shape[1]
    outline(ax, p - 0.3, -0.2, 1.6, size + 0.4, colour, line=1.5)


def _draw_over(
    ax: "Axes", photograph: Tensor, weights: Tensor, position: tuple[int, int], colour: str, limit: float
) -> None:
    height, width = weights.shape
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    ax.imshow(lay_over(photograph, weights, limit).permute(1, 2, 0).cpu().numpy(), vmin=0, vmax=1, extent=extent)
    outline(ax, *position, 1, 1, colour)
    ax.set(xlabel="column", ylabel="row")


def _draw_panel(ax: "Axes", panel: Panel) -> None:
    if panel.values.ndim == 3:
        drawn = ax.imshow(as_pixels(panel.values), vmin=0)
        bar = ax.figure.colorbar(drawn, ax=ax, orientation="horizontal", shrink=0.8, aspect=14, pad=0.04)
        # An image has no scale, but takes the room of one, so that the maps beside it stand at its height.
        bar.set_ticks([0], labels=["0"])
        bar.ax.tick_params(labelsize=8, color="none", labelcolor="none")
        bar.outline.set_visible(False)
        bar.solids.set_visible(False)
    else:
        limit = panel.limit or symmetric_limit(panel.values)
        low = -limit if panel.colours == SIGNED else 0
        drawn = ax.imshow(panel.values.detach().cpu().numpy(), cmap=panel.colours, vmin=low, vmax=limit)
        bar = ax.figure.colorbar(drawn, ax=ax, orientation="horizontal", shrink=0.8, aspect=14, pad=0.04)
        bar.set_ticks([low, limit], labels=[number(low), number(limit)])
        bar.ax.tick_params(labelsize=8)
    height, width = panel.values.shape[-2:]
    for box in panel.boxes:
        top, left = max(box.top, 0), max(box.left, 0)
        bottom, right = min(box.top + box.height, height), min(box.left + box.width, width)
        outline(ax, top, left, bottom - top, right - left, box.colour)
    if panel.sign:
        ax.text(-0.13, 0.5, panel.sign, ha="center", va="center", fontsize=14, transform=ax.transAxes)
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(panel.title, fontsize=10)


def _seconds(step: Callable[[], object], calls: int) -> float:
    # The thread's own time leaves out what the computer does in between; where it is coarse, the wall clock must do.
    clock = time.thread_time if time.get_clock_info("thread_time").resolution < 1e-5 else time.perf_counter
    started = clock()
    for _ in range(calls):
        step()
    return max(clock() - started, 1e-7) / calls


def _side(matrix: Tensor) -> int:
    """H of the H×H map whose positions the matrix mixes."""
    side = round(matrix.shape[-1] ** 0.5)
    if matrix.ndim != 2 or matrix.shape != (side**2, side**2):
        raise ValueError(
            f"the matrix has shape {tuple(matrix.shape)}; give (HH, HH) for a square map, such as (64, 64)."
        )
    return side


def _short(count: float) -> str:
    for size, word in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if count >= size:
            return f"{count / size:.3g} {word}"
    return f"{count:g}"


def _milliseconds(seconds: float) -> str:
    ms = 1e3 * seconds
    return f"{ms:.0f}" if ms >= 10 else f"{ms:.2g}"
