"""Window attention drawn: windows and shifted windows, the roll and its mask, reach, weights, padding, cost.

Everything is drawn from what a model really did (`BlockAttention` of `c2f.models.baselines`) or from counts that come
in; nothing here measures. A token is a position of the grid; a *piece* is a set of tokens that attend to each other: a
window, or the part of a rolled window that lies together on the image.

Shapes: H x W tokens of a grid, h x w pixels of the photograph that lies under it, M a window's side, T = M² its tokens.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from c2f.maps.picture import (
    HERE,
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
    symmetric_limit,
    tidy,
)
from c2f.models.baselines import BlockAttention
from c2f.models.cost import MultiplyAdds
from c2f_course.figures.notebook_01 import lay_over

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKS = (WINDOW, TRAIN, PURPLE)
STRIPS = {"top and left": PURPLE, "top": TRAIN, "left": TEST}  # what a roll takes to the other side
SHARES = "Oranges"
Position = tuple[int, int]


def pieces(attention: BlockAttention) -> Tensor:
    """Which tokens attend to each other: (H, W) int64, one number a piece, counted from 0 row by row.

    Without a shift the pieces are the windows. With one they are still pieces of the image: a window that the roll has
    filled from two or four sides of the image counts as two or four.
    """
    height, width = attention.padded
    row, column = attention.tokens // width, attention.tokens % width
    side = 2 * (row < attention.shift[0]) + (column < attention.shift[1]).long()  # rolled to another side, or not
    window = torch.arange(len(attention.tokens))[:, None].expand_as(side)
    numbers = torch.empty(height * width, dtype=torch.int64)
    numbers[attention.tokens.flatten().cpu()] = (4 * window + side.cpu()).flatten()
    numbers = numbers.view(height, width)[: attention.grid[0], : attention.grid[1]]
    first_seen = {number: i for i, number in enumerate(dict.fromkeys(numbers.flatten().tolist()))}
    return torch.tensor([first_seen[number] for number in numbers.flatten().tolist()]).view(numbers.shape)


# ---- Windows on a photograph


def plot_windows(photograph: Tensor, blocks: Mapping[str, BlockAttention], positions: Sequence[Position]) -> Picture:
    """The pieces of each block over the photograph, and around each position the tokens that it attends to.

    Args:
        photograph: (3, h, w), uint8 or float from 0 to 1.
        blocks: name -> the block's attention.
        positions: (row, column) of up to three tokens, each marked in its colour.

    Raises ValueError for no block, and for none or too many positions, or one that is not on the grid.
    """
    if not blocks or not 1 <= len(positions) <= len(MARKS):
        raise ValueError(
            f"there are {len(blocks)} blocks and {len(positions)} positions; give one or more, and 1 to 3."
        )
    figure = new_figure(3.9 * len(blocks), 4.3)
    axes = figure.subplots(1, len(blocks), squeeze=False)[0]
    told = []
    for ax, (name, attention) in zip(axes, blocks.items(), strict=True):
        _check_positions(positions, attention.grid)
        piece = pieces(attention)
        colours = torch.zeros(*piece.shape, 4)
        for position, colour in zip(positions, MARKS, strict=False):
            colours[(piece == piece[position]) & (colours[..., 3] == 0)] = _rgba(colour, 0.5)
        _draw_photograph(ax, photograph, attention.grid)
        ax.imshow(colours.cpu().numpy(), extent=_extent(attention.grid))
        _draw_borders(ax, piece)
        for position, colour in zip(positions, MARKS, strict=False):
            _mark(ax, position, colour)
        count = int(piece.max()) + 1
        ax.set(title=f"{name}\n{count} pieces", xlabel="token column", ylabel="token row")
        together = len({int(piece[position]) for position in positions})
        told.append(
            f"{name} cuts the {piece.shape[0]}×{piece.shape[1]} tokens into {count} pieces, and the "
            f"{len(positions)} marked tokens lie in {together} of them"
        )
    return Picture(figure, f"{'; '.join(told)}.")


def plot_roll(photograph: Tensor, attention: BlockAttention) -> Picture:
    """A shifted block: the pieces on the image, the rolled image cut into whole windows, and what is in each corner.

    Args:
        photograph: (3, h, w), h a multiple of H and w of W.
        attention: of a block with a shift, on a grid without padding.

    Raises ValueError for a block without a shift, or with padding.
    """
    if not all(attention.shift) or attention.grid != attention.padded:
        raise ValueError(
            f"the block has shift {attention.shift}, grid {attention.grid} and padded grid {attention.padded}; give "
            f"one that is shifted along both sides and not padded, such as stage 0, block 1 of swin_micro_cifar."
        )
    grid, (down, right) = attention.grid, attention.shift
    strips = torch.zeros(*grid, 4)
    strips[:down] = _rgba(STRIPS["top"], 0.45)
    strips[:, :right] = _rgba(STRIPS["left"], 0.45)
    strips[:down, :right] = _rgba(STRIPS["top and left"], 0.6)
    pixels = (photograph.shape[1] // grid[0], photograph.shape[2] // grid[1])
    rolled = photograph.roll((-down * pixels[0], -right * pixels[1]), dims=(1, 2))
    regular = torch.arange(len(attention.tokens)).view(grid[0] // attention.window[0], -1)
    regular = regular.repeat_interleave(attention.window[0], 0).repeat_interleave(attention.window[1], 1)

    figure = new_figure(7.8, 4.2)
    before, after = figure.subplots(1, 2)
    for ax, image, tint, piece in (
        (before, photograph, strips, pieces(attention)),
        (after, rolled, strips.roll((-down, -right), dims=(0, 1)), regular),
    ):
        _draw_photograph(ax, image, grid)
        ax.imshow(tint.cpu().numpy(), extent=_extent(grid))
        _draw_borders(ax, piece)
        ax.set(xlabel="token column", ylabel="token row")
    count = int(pieces(attention).max()) + 1
    before.set_title(f"shifted by {down}: {count} pieces,\nthose at the edges are cut")
    after.set_title(f"rolled up and left by {down}:\n{len(attention.tokens)} whole windows")
    return Picture(
        figure,
        f"Shifted by {down} rows and {right} columns, the windows leave {count} pieces on the {grid[0]}×{grid[1]} "
        f"grid; rolled up and to the left by as much, the image is {len(attention.tokens)} whole windows again, of "
        f"which those at the right and at the bottom hold what came from the opposite side.",
    )


def plot_masks(photograph: Tensor, attention: BlockAttention, windows: Mapping[str, int]) -> Picture:
    """For some windows of a shifted block: its tokens as the roll brought them together, and below who may see whom.

    Args:
        photograph: (3, h, w), h a multiple of H and w of W.
        attention: of a block without padding.
        windows: name -> number of the window, row by row.

    Raises ValueError for no window or one that is not there, and for a block with padding.
    """
    if attention.grid != attention.padded:
        raise ValueError(f"the grid {attention.grid} is padded to {attention.padded}; give a block without padding.")
    if not windows or not all(0 <= window < len(attention.tokens) for window in windows.values()):
        raise ValueError(f"the windows are {dict(windows)}; give one or more of 0 to {len(attention.tokens) - 1}.")
    from matplotlib.colors import ListedColormap

    height, width = attention.window
    piece = pieces(attention).flatten()
    figure = new_figure(2.3 * len(windows), 4.9)
    axes = figure.subplots(2, len(windows), squeeze=False)
    told = []
    for (above, below), (name, window) in zip(axes.T, windows.items(), strict=True):
        tokens = attention.tokens[window].cpu()
        _draw_photograph(above, _tokens_of(photograph, attention.grid, tokens.view(height, width)), (height, width), 12)
        _draw_borders(above, piece[tokens].view(height, width), width=3)
        above.set_title(name, fontsize=11)
        sees = piece[tokens][:, None] == piece[tokens]
        below.imshow(sees.cpu().numpy(), cmap=ListedColormap(["#444444", HERE]), vmin=0, vmax=1)
        below.set(title=f"{int(sees.sum())} of {sees.numel()} pairs", xlabel="key")
        told.append(f"{name}, {len(piece[tokens].unique())} with {int(sees.sum())} of {sees.numel()} pairs allowed")
        _no_ticks(above)
        below.set_xticks([0, len(tokens) - 1])
        below.set_yticks([0, len(tokens) - 1])
    axes[1, 0].set_ylabel("query")
    return Picture(
        figure,
        f"Pieces in a window of the rolled image: {'; '.join(told)}. Yellow pairs may see each other, dark may not.",
    )


def plot_reach(
    photograph: Tensor, rows: Mapping[str, Sequence[Tensor]], positions: Sequence[Position], titles: Sequence[str]
) -> Picture:
    """Which tokens a position knows of after one block, two, three …: those stay in colour, the others turn pale.

    Args:
        photograph: (3, h, w), h a multiple of H and w of W.
        rows: name -> reaches (H, W) bool, one a column.
        positions: (row, column) of the position in each row.
        titles: one a column.

    Raises ValueError where the numbers do not fit.
    """
    if not rows or any(len(reaches) != len(titles) for reaches in rows.values()) or len(positions) != len(rows):
        raise ValueError(f"give {len(titles)} reaches in each row, one a title, and a position for each row.")
    figure = new_figure(0.5 + 2.3 * len(titles), 0.4 + 2.4 * len(rows))
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    told = []
    for line, (name, reaches), position in zip(axes, rows.items(), positions, strict=True):
        for ax, reach in zip(line, reaches, strict=True):
            _draw_photograph(ax, _fade(_shrink(photograph, reach.shape, 6), reach), reach.shape)
            _draw_borders(ax, reach.long(), colour=WINDOW, width=2)
            _mark(ax, position, "black")
            ax.set_xlabel(f"{int(reach.sum())} of {reach.numel()} tokens", fontsize=9)
            _no_ticks(ax)
        line[0].set_ylabel(name)
        counts = ", ".join(str(int(reach.sum())) for reach in reaches)
        told.append(f"{name} from row {position[0]}, column {position[1]}: {counts}")
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=11)
    return Picture(figure, f"How many tokens reach a position after {titles[0]} to {titles[-1]}. {'; '.join(told)}.")


# ---- Weights


def plot_one_window(
    photograph: Tensor,
    attention: BlockAttention,
    window: int,
    query: int,
    scores: Tensor,
    bias: Tensor,
    weights: Tensor,
) -> Picture:
    """One head in one window: scores of content, the bias of places, the softmax of their sum, and one row of it.

    Args:
        photograph: (3, h, w), h a multiple of H and w of W.
        attention: whose window it is, in a block without padding.
        window, query: which window, and which of its tokens is looked at; from 0.
        scores, bias, weights: (T, T), [query, key].

    Raises ValueError for numbers of another shape.
    """
    tokens = attention.tokens[window].cpu()
    if any(values.shape != (len(tokens), len(tokens)) for values in (scores, bias, weights)):
        raise ValueError(f"scores, bias and weights must each be ({len(tokens)}, {len(tokens)}), [query, key].")
    side = attention.window
    crop = _tokens_of(photograph, attention.grid, tokens.view(side))
    place = divmod(query, side[1])
    figure = new_figure(9.5, 2.65)
    grid = figure.add_gridspec(2, 9, width_ratios=[1, 0.14, 1, 0.16, 1, 0.36, 1, 0.16, 1], height_ratios=[1, 0.06])
    axes = [figure.add_subplot(grid[0, i]) for i in (0, 2, 4, 6, 8)]
    bars = [figure.add_subplot(grid[1, i]) for i in (2, 4, 6)]
    for i, sign in ((3, "+"), (5, "softmax\n→"), (7, "→")):
        _sign(figure.add_subplot(grid[0, i]), sign)
    _draw_photograph(axes[0], crop, side, 12)
    axes[0].set_title(f"window {window}\n□ is token {query}", fontsize=10)
    limit, most = max(symmetric_limit(scores), symmetric_limit(bias)), weights.max().item()
    drawn = [axes[i].imshow(values.detach().cpu().numpy(), cmap=SIGNED, vmin=-limit, vmax=limit)
             for i, values in ((1, scores), (2, bias))]  # fmt: skip
    drawn.append(axes[3].imshow(weights.detach().cpu().numpy(), cmap=SHARES, vmin=0, vmax=most))
    for bar, image, ticks in zip(bars, drawn, ([-limit, 0, limit], [-limit, 0, limit], [0, most]), strict=True):
        figure.colorbar(image, cax=bar, orientation="horizontal")
        bar.set_xticks(ticks, labels=["0" if tick == 0 else number(tick) for tick in ticks], fontsize=8)
    titles = ("content\nq · k / √d", "place\nrelative bias", "weights\neach row sums to 1")
    for ax, title in zip(axes[1:4], titles, strict=True):
        ax.set_title(title, fontsize=10)
    row = weights[query].detach().view(side)
    axes[4].imshow(row.cpu().numpy(), cmap=SHARES, vmin=0, vmax=weights.max().item())
    for (y, x), value in np.ndenumerate(row.cpu().numpy()):
        ink = "white" if value > 0.6 * weights.max() else "black"
        axes[4].text(x, y, f"{100 * value:.0f}", ha="center", va="center", fontsize=9, color=ink)
    axes[4].set_title(f"its row {query},\nin per cent", fontsize=10)
    for ax in (axes[0], axes[4]):
        _mark(ax, place, WINDOW)
        _no_ticks(ax)
    for ax in axes[1:4]:
        ax.set_xticks([])
        ax.set_yticks([query])
        ax.set_xlabel("key", fontsize=9)
        ax.add_patch(_box(query, 0, 1, len(tokens), WINDOW, 1.5))
    most = int(row.argmax())
    return Picture(
        figure,
        f"In window {window} the scores of content run from {number(scores.min())} to {number(scores.max())} and the "
        f"bias of places from {number(bias.min())} to {number(bias.max())}; after the softmax, token {query} gives "
        f"{row.max():.0%} to token {most} and {row.flatten()[query]:.0%} to itself.",
    )


def plot_offsets(tables: Mapping[str, Tensor]) -> Picture:
    """Small signed tables over the offset δ, all drawn with equal squares so that their reach compares.

    Args:
        tables: name -> (2r+1, 2r+1), the entry for δ = 0 in the middle. Each has its own colour scale, full at the
            largest size beside the middle, which often stands out by far.

    Raises ValueError for no table, and for one without a middle.
    """
    if not tables or any(t.ndim != 2 or t.shape[0] != t.shape[1] or t.shape[0] % 2 == 0 for t in tables.values()):
        raise ValueError("give at least one table, each square and of an odd side, so that it has a middle.")
    figure = new_figure(0.3 + 2.3 * len(tables), 3.65)
    axes = figure.subplots(1, len(tables), squeeze=False)[0]
    widest = max(len(table) for table in tables.values()) / 2
    told = []
    for ax, (name, table) in zip(axes, tables.items(), strict=True):
        reach, limit = len(table) // 2, _limit_beside(table, (len(table) // 2, len(table) // 2))
        extent = (-reach - 0.5, reach + 0.5, reach + 0.5, -reach - 0.5)
        drawn = ax.imshow(table.detach().cpu().numpy(), cmap=SIGNED, vmin=-limit, vmax=limit, extent=extent)
        ax.add_patch(_box(-reach, -reach, len(table), len(table), SOFT, 0.8))
        ax.add_patch(_box(0, 0, 1, 1, "black", 1.5))
        ax.set(xlim=(-widest, widest), ylim=(widest, -widest), xlabel="δ column")
        ax.set_xticks([-reach, 0, reach])
        ax.set_yticks([-reach, 0, reach])
        ax.set_title(f"{name}\nδ = 0: {number(table[reach, reach])}", fontsize=10)
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
        _bar(ax, drawn, [-limit, 0, limit])
        told.append(f"{name.replace(chr(10), ' ')}: {table.numel()} entries from {number(table.min())} to "
                    f"{number(table.max())}")  # fmt: skip
    axes[0].set_ylabel("δ row")
    return Picture(figure, f"A number for each offset δ. {'; '.join(told)}.")


@dataclass(frozen=True)
class Overlay:
    """One panel: signed numbers over a pale photograph (or the photograph alone), outlines, and what stands below."""

    title: str
    photograph: Tensor
    """(3, h, w), h a multiple of H and w of W."""
    weights: Tensor | None = None
    """(H, W), or None for the photograph as it is."""
    marks: Sequence[tuple[Position, str]] = field(default=())
    """Single positions to be outlined, each with its colour."""
    boxes: Sequence[tuple[int, int, int, int, str]] = field(default=())
    """Outlines (top, left, height, width, colour) in positions; cut off at the edge."""
    below: str = ""
    limit: float | None = None
    """Where the colour is full; by default at the largest size."""


def plot_overlays(
    rows: Sequence[Sequence[Overlay]], alt: str, grid: tuple[int, int], labels: Sequence[str] = ()
) -> Picture:
    """Panels in rows, each a map over its photograph in one kind of colour: orange above zero, purple below.

    Args:
        rows: of panels; a shorter row leaves its end empty.
        alt: the sentence that says what the figure shows, with its numbers.
        grid: (H, W) of the maps.
        labels: one a row, written at its left.

    Raises ValueError for no panel, and for labels too few or too many.
    """
    if not rows or not all(rows) or (labels and len(labels) != len(rows)):
        raise ValueError(
            f"there are {len(rows)} rows and {len(labels)} labels; give one panel or more a row, one label each."
        )
    columns = max(map(len, rows))
    titles = sum(any(panel.title for panel in row) for row in rows)
    figure = new_figure(2.25 * columns, 2.2 * len(rows) + 0.25 * titles + 0.22 * len(rows))
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        for ax in line[len(row) :]:
            ax.axis("off")
        for ax, panel in zip(line, row, strict=False):
            image = _shrink(panel.photograph, grid)
            image = image if panel.weights is None else lay_over(image, panel.weights, panel.limit)
            _draw_photograph(ax, image, grid)
            for top, left, height, width, colour in panel.boxes:
                ax.add_patch(_box(*_cut(top, left, height, width, grid), colour, 2))
            for position, colour in panel.marks:
                _mark(ax, position, colour)
            ax.set_title(panel.title, fontsize=10)
            ax.set_xlabel(panel.below, fontsize=9)
            _no_ticks(ax)
    for line, label in zip(axes, labels, strict=False):
        line[0].set_ylabel(label)
    return Picture(figure, alt)


def plot_rows_beside(
    photograph: Tensor,
    position: Position,
    attention: Mapping[str, Tensor],
    modulation: Mapping[str, tuple[Tensor, Tensor]],
) -> Picture:
    """Rows of attention above, implied rows of ConvMod below with the U that they weigh, all over one photograph.

    Args:
        photograph: (3, h, w), h a multiple of H and w of W.
        position: (row, column) of the place that all rows belong to.
        attention: name -> (H, W), a head's weights from that place.
        modulation: name -> (row, U), each (H, W): the kernel laid over the map around the place, and what it weighs.

    Raises ValueError where either is missing.
    """
    if not attention or not modulation:
        raise ValueError("give at least one row of attention and one of ConvMod.")
    grid = next(iter(attention.values())).shape
    _check_positions([position], grid)
    marks = [(position, "black")]

    def over(title: str, values: Tensor, total: bool = True) -> Overlay:
        return Overlay(
            title, photograph, values, marks, below=_tell(values, total), limit=_limit_beside(values, position)
        )

    above = [over(f"Swin: {name}", weights) for name, weights in attention.items()]
    below = [
        [
            over(f"ConvMod: {name}", row),
            over("U, what it weighs", u, total=False),
            over("row × U, the window map", row * u),
        ]
        for name, (row, u) in modulation.items()
    ]
    told = [f"Swin {name} {_tell(weights)}" for name, weights in attention.items()]
    told += [f"ConvMod {name} {_tell(row)}, times U {_tell(row * u)}" for name, (row, u) in modulation.items()]
    place = f"At row {position[0]}, column {position[1]}"
    return plot_overlays([above, *below], f"{place}: {'; '.join(told)}.", grid)


def plot_same_place(
    photographs: Tensor, names: Sequence[str], position: Position, kinds: Mapping[str, Tensor]
) -> Picture:
    """Weights from one place, for several photographs: a column each, and a row for each kind of weights.

    Args:
        photographs: (N, 3, h, w), h a multiple of H and w of W.
        names: N of them.
        position: (row, column) of the place.
        kinds: name -> (N, H, W); one colour scale for each kind.

    Raises ValueError where the numbers do not fit.
    """
    if not kinds or any(len(maps) != len(photographs) for maps in kinds.values()) or len(names) != len(photographs):
        raise ValueError(f"there are {len(photographs)} photographs; give as many names, and maps of each kind.")
    marks = [(position, "black")]
    rows = [[Overlay(name, photograph, None, marks) for name, photograph in zip(names, photographs, strict=True)]]
    told = []
    for kind, maps in kinds.items():
        panels = zip(photographs, maps, strict=True)
        rows.append(
            [
                Overlay("", photo, each, marks, below=_tell(each), limit=_limit_beside(maps, position))
                for photo, each in panels
            ]
        )
        apart = max((maps[0] - other).abs().max().item() for other in maps)
        said = "the same for all" if apart == 0 else f"different by up to {number(apart)} at a token"
        told.append(f"{kind.replace(chr(10), ' ')}: {said}")
    grid = next(iter(kinds.values())).shape[1:]
    alt = f"From row {position[0]}, column {position[1]} in {len(names)} photographs ({', '.join(names)}). "
    return plot_overlays(rows, f"{alt}{'; '.join(told)}.", grid, ["photograph", *kinds])


def plot_moves(moves: Sequence[int], changes: Mapping[str, Sequence[float]], window: int) -> Picture:
    """How much an output changes, at the same tokens, when the grid is laid elsewhere on the image.

    Args:
        moves: by how many tokens.
        changes: name -> the size of the change relative to the output, one a move.
        window: the side of the windows, to be marked.

    Raises ValueError where the numbers do not fit.
    """
    if not changes or any(len(line) != len(moves) for line in changes.values()):
        raise ValueError(f"give {len(moves)} changes for each name, one a move.")
    figure = new_figure(7.6, 3.3)
    ax = figure.subplots()
    for (name, line), colour, mark in zip(changes.items(), (TRAIN, TEST, SOFT), "so^", strict=False):
        ax.plot(moves, [100 * change for change in line], f"{mark}-", color=colour, linewidth=2, label=name)
    for at in range(0, max(moves) + 1, window):
        ax.axvline(at, color=SOFT, linestyle=":", linewidth=1.2, zorder=0)
    ax.set(title="What changes when the image is moved (dotted: by whole windows)", xlabel="moved by so many tokens")
    ax.set_ylabel("change of the output (%)")
    ax.set_xticks(list(moves))
    ax.set_ylim(None, 125 * max(map(max, changes.values())))
    ax.legend(loc="upper center", ncols=len(changes), framealpha=1, edgecolor="none")
    tidy(ax, grid="y")
    told = (f"{name} by {', '.join(f'{change:.0%}' for change in line)}" for name, line in changes.items())
    return Picture(figure, f"Moved by {moves[0]} to {moves[-1]} tokens, the output changes: {'; '.join(told)}.")


# ---- Padding and cost


class Padded(NamedTuple):
    """One stage: tokens of the image a side, those after padding, and the side of a window."""

    tokens: int
    padded: int
    window: int


def plot_padding(photograph: Tensor, models: Mapping[str, Sequence[Padded]]) -> Picture:
    """What each stage of each model attends over: the image's own tokens, and the padding that fills up the windows.

    All panels of a row show the padded grid; the photograph in it shrinks where there is padding.

    Args:
        photograph: (3, h, w), square.
        models: name -> its stages.

    Raises ValueError for no stage.
    """
    if not models or not all(models.values()):
        raise ValueError("give at least one model with at least one stage.")
    columns = max(map(len, models.values()))
    figure = new_figure(0.4 + 2.3 * columns, 2.95 * len(models))
    figure.get_layout_engine().set(h_pad=0.1)
    axes = figure.subplots(len(models), columns, squeeze=False)
    told = []
    for line, (name, stages) in zip(axes, models.items(), strict=True):
        for ax in line[len(stages) :]:
            ax.axis("off")
        for i, (ax, stage) in enumerate(zip(line, stages, strict=False)):
            _draw_padded(ax, photograph, stage)
            share = stage.tokens**2 / stage.padded**2
            ax.set_title(
                f"stage {i}: {stage.tokens}×{stage.tokens} tokens\nin {stage.padded}×{stage.padded}", fontsize=10
            )
            ax.set_xlabel(f"{share:.0%} is image", fontsize=9)
        line[0].set_ylabel(name)
        shares = ", ".join(f"{s.tokens**2} of {s.padded**2}" for s in stages)
        told.append(f"{name}: {shares}")
    return Picture(figure, f"Tokens of the image among those attended over, stage by stage. {'; '.join(told)}.")


def _draw_padded(ax: "Axes", photograph: Tensor, stage: Padded) -> None:
    tokens, padded, window = stage
    photograph = _shrink(photograph, (16, 16))
    ax.set_facecolor("#E4E4E4")
    _draw_photograph(ax, photograph, (tokens, tokens), 64)
    ax.set(xlim=(-0.5, padded - 0.5), ylim=(padded - 0.5, -0.5))
    if 2 * tokens <= padded + 2:
        ax.text(padded / 2 - 0.5, 0.75 * padded, "padding", ha="center", va="center", fontsize=12, color="#555555")
    thin = {"color": "white", "linewidth": 0.4, "alpha": 0.6}
    for edge in range(1, padded):
        ax.axvline(edge - 0.5, **thin)
        ax.axhline(edge - 0.5, **thin)
    for edge in range(0, padded + 1, window):
        ax.axvline(edge - 0.5, color=TEST, linewidth=2, zorder=4, clip_on=False)
        ax.axhline(edge - 0.5, color=TEST, linewidth=2, zorder=4, clip_on=False)
    _no_ticks(ax)


def plot_multiply_adds(costs: Mapping[str, MultiplyAdds], title: str) -> Picture:
    """Multiply-adds executed, a bar each: solid what works on the image, hatched what works on padding."""
    _needed(costs)
    figure = new_figure(8.6, 1.15 + 0.46 * len(costs))
    ax = figure.subplots()
    most = max(cost.nominal for cost in costs.values()) / 1e6
    told = []
    for y, (name, cost) in enumerate(costs.items()):
        useful, executed = cost.useful / 1e6, cost.nominal / 1e6
        ax.barh(y, useful, height=0.6, color=TRAIN, label="on the image" if y == 0 else None)
        if executed > useful:
            style = {"facecolor": "white", "hatch": "///", "edgecolor": TEST, "linewidth": 0.8}
            ax.barh(y, executed - useful, left=useful, height=0.6, **style)
        ax.text(executed + 0.01 * most, y, f"{executed:,.0f} M, {useful:,.0f} M useful", va="center", fontsize=9)
        told.append(f"{name} {executed:,.1f} million, of which {useful:,.1f} million useful")
    ax.set_yticks(range(len(costs)), costs)
    ax.invert_yaxis()
    ax.set(title=title, xlabel="millions of multiply-adds for one image, forward", xlim=(0, 1.34 * most))
    ax.barh(0, 0, facecolor="white", hatch="///", edgecolor=TEST, linewidth=0.8, label="on padding")
    longest = max(range(len(costs)), key=[cost.nominal for cost in costs.values()].__getitem__)
    ax.legend(frameon=False, loc="upper right" if longest >= len(costs) / 2 else "lower right", fontsize=9)
    tidy(ax, grid="x")
    return Picture(figure, f"{title}: {'; '.join(told)}.")


def plot_speeds(costs: Mapping[str, MultiplyAdds], seconds: Mapping[str, Sequence[float]], images: int) -> Picture:
    """Images a second, and how many multiply-adds a second that is: a bar for the median, a dot for each round.

    Args:
        costs: name -> multiply-adds of one image.
        seconds: the same names -> seconds of a forward pass of `images`, one a round.

    Raises ValueError for other names, or no round.
    """
    _needed(costs)
    if costs.keys() != seconds.keys() or not all(seconds.values()):
        raise ValueError(f"give seconds for the same names, {', '.join(costs)}, one round or more each.")
    figure = new_figure(9.4, 1.3 + 0.42 * len(costs))
    left, right = figure.subplots(1, 2, sharey=True)
    told = []
    for y, (name, cost) in enumerate(costs.items()):
        rates = [images / each for each in seconds[name]]
        speeds = [rate * cost.nominal / 1e9 for rate in rates]
        colour = TRAIN if name.startswith("swin") else TEST
        for ax, values in ((left, rates), (right, speeds)):
            ax.barh(y, statistics.median(values), height=0.6, color=colour, alpha=0.45)
            ax.plot(values, [y] * len(values), "o", color=colour, markersize=4)
            ax.text(1.03 * max(values), y, f" {statistics.median(values):,.0f}", va="center", fontsize=9)
        told.append(
            f"{name} {statistics.median(rates):,.0f} images and {statistics.median(speeds):,.0f} billion executed "
            f"multiply-adds a second"
        )
    left.set_yticks(range(len(costs)), costs)
    left.invert_yaxis()
    left.set(title=f"Images per second, batch {images}", xlabel="images/s (bar: median, dots: rounds)")
    right.set(title="The same in multiply-adds executed", xlabel="billions of multiply-adds per second")
    for ax in (left, right):
        ax.set_xlim(0, 1.12 * ax.get_xlim()[1])
        tidy(ax, grid="x")
    return Picture(figure, f"Measured here, forward, batch {images}: {'; '.join(told)}.")


class Published(NamedTuple):
    """An accuracy on CIFAR-10 from scratch: what was trained, how low and how high, and under which conditions."""

    name: str
    low: float
    high: float
    said: str
    kind: str  # "compared": the two in question; "elsewhere"; "kit"


PUBLISHED_COLOURS = {"compared": TEST, "elsewhere": SOFT, "kit": TRAIN}
PUBLISHED_NAMES = {
    "compared": "the published comparison",
    "elsewhere": "what others report",
    "kit": "this kit's own weights",
}


def plot_published(results: Sequence[Published]) -> Picture:
    """Accuracies from scratch on CIFAR-10, each with its conditions beside it."""
    _needed(results)
    figure = new_figure(9.4, 1.2 + 0.42 * len(results))
    ax = figure.subplots()
    named: set[str] = set()
    for y, result in enumerate(results):
        colour = PUBLISHED_COLOURS[result.kind]
        label = None if result.kind in named else PUBLISHED_NAMES[result.kind]
        named.add(result.kind)
        ax.plot([100 * result.low, 100 * result.high], [y, y], "-", color=colour, linewidth=6, alpha=0.5)
        mark = {"compared": "D", "elsewhere": "o", "kit": "s"}[result.kind]
        ax.plot([50 * (result.low + result.high)], [y], mark, color=colour, markersize=8, label=label)
        ax.text(100 * result.high + 0.9, y, result.said, va="center", fontsize=9, color=INK)
    ax.set_yticks(range(len(results)), [result.name for result in results])
    ax.invert_yaxis()
    ax.set(
        xlim=(72, 112),
        xlabel="test accuracy on CIFAR-10 (%)",
        title="What is said of accuracies, with what is known of each",
    )
    ax.set_xticks([75, 80, 85, 90, 95])
    ax.legend(frameon=False, loc="upper right", fontsize=9)
    tidy(ax, grid="x")
    told = "; ".join(
        f"{r.name} {100 * r.low:.3g}{'' if r.low == r.high else f' to {100 * r.high:.3g}'} % ({r.said})"
        for r in results
    )
    return Picture(figure, f"Accuracy on CIFAR-10 from scratch: {told}.")


# ---- A block of each kind


def plot_two_blocks() -> Picture:
    """A Swin block above a Conv2Former block: the same frame, and what is exchanged in it on a yellow ground."""
    figure = new_figure(9.4, 2.7)
    ax = figure.subplots()
    ax.set(xlim=(0, 19), ylim=(0.5, 6.2))
    ax.axis("off")
    middle = "4×4 windows,\nevery other block shifted"
    _draw_block(ax, 4.6, "Swin", f"window attention\n{middle}", "MLP\nLinear, GELU, Linear")
    _draw_block(ax, 1.4, "Conv2Former", "ConvMod\n11×11 depthwise,\ntimes the value", "MLP with a 3×3\ndepthwise conv")
    return Picture(
        figure,
        "A Swin block and a Conv2Former block: both are norm, mixing of positions, addition, norm, MLP, addition; Swin "
        "mixes by attention in windows of 4×4, Conv2Former by ConvMod with its 11×11 depthwise convolution.",
    )


def _draw_block(ax: "Axes", y: float, name: str, mixer: str, mlp: str) -> None:
    xs = {"x": 2.6, "norm": 4.3, "mixer": 7.5, "+": 10.1, "norm ": 11.5, "mlp": 14.4, "+ ": 17.0, "next": 18.4}
    ax.text(0, y, name, ha="left", va="center", fontsize=11, weight="bold")
    line = {"color": INK, "linewidth": 1.3, "zorder": 1}
    ax.plot([xs["x"] + 0.2, xs["next"] - 0.45], [y, y], **line)
    for start, end in ((xs["x"] + 0.45, xs["+"]), (xs["+"] + 0.5, xs["+ "])):
        ax.plot([start, start, end, end], [y, y + 1.3, y + 1.3, y + 0.6], **line)
        ax.annotate("", (end, y + 0.35), (end, y + 0.9), arrowprops={"arrowstyle": "-|>", "color": INK, "shrinkB": 0})
    for at, text, lit in (
        (xs["x"], "x", False),
        (xs["norm"], "norm", False),
        (xs["mixer"], mixer, True),
        (xs["norm "], "norm", False),
        (xs["mlp"], mlp, False),
        (xs["next"], "next", False),
    ):
        edge = "none" if text in ("x", "next") else INK
        box = {"boxstyle": "round,pad=0.45", "facecolor": HERE if lit else "white", "edgecolor": edge}
        ax.text(at, y, text, ha="center", va="center", fontsize=9.5, bbox=box, zorder=3)
    for at in (xs["+"], xs["+ "]):
        ax.plot(at, y, "o", markersize=16, markerfacecolor="white", markeredgecolor=INK, zorder=3)
        ax.text(at, y, "+", ha="center", va="center", fontsize=12, zorder=4)


# ---- Strokes


def _extent(grid: Sequence[int]) -> tuple[float, float, float, float]:
    return (-0.5, grid[1] - 0.5, grid[0] - 0.5, -0.5)


def _draw_photograph(ax: "Axes", photograph: Tensor, grid: Sequence[int], pixels: int = 8) -> None:
    """The photograph with so many pixels a token, each a square (which keeps the file small)."""
    ax.imshow(as_pixels(_shrink(photograph, grid, pixels)), extent=_extent(grid), interpolation="nearest")


def _draw_borders(ax: "Axes", numbers: Tensor, colour: str = "white", width: float = 1.6) -> None:
    """Lines between tokens (H, W) of different numbers, with a dark edge so that they are seen on bright ground."""
    from matplotlib.collections import LineCollection

    lines = [
        ((x + 0.5, y - 0.5), (x + 0.5, y + 0.5)) for y, x in (numbers[:, 1:] != numbers[:, :-1]).nonzero().tolist()
    ]
    lines += [((x - 0.5, y + 0.5), (x + 0.5, y + 0.5)) for y, x in (numbers[1:] != numbers[:-1]).nonzero().tolist()]
    ax.add_collection(LineCollection(lines, colors=INK, linewidths=width + 1.2, capstyle="projecting"))
    ax.add_collection(LineCollection(lines, colors=colour, linewidths=width, capstyle="projecting"))


def _mark(ax: "Axes", position: Position, colour: str) -> None:
    """A box around one token, with a white edge."""
    ax.add_patch(_box(*position, 1, 1, "white", 4.5))
    ax.add_patch(_box(*position, 1, 1, colour, 2.5))


def _box(top: float, left: float, height: float, width: float, colour: str, line: float = 2):
    from matplotlib.patches import Rectangle

    return Rectangle((left - 0.5, top - 0.5), width, height, fill=False, edgecolor=colour, linewidth=line, zorder=3)


def _cut(top: int, left: int, height: int, width: int, grid: tuple[int, int]) -> tuple[int, int, int, int]:
    bottom, right = min(top + height, grid[0]), min(left + width, grid[1])
    top, left = max(top, 0), max(left, 0)
    return top, left, bottom - top, right - left


def _tokens_of(photograph: Tensor, grid: Sequence[int], tokens: Tensor) -> Tensor:
    """The photograph's patches of these tokens (a, b), put together: (3, a·h/H, b·w/W)."""
    pixels = photograph.shape[1] // grid[0], photograph.shape[2] // grid[1]
    patches = photograph.unflatten(1, (grid[0], pixels[0])).unflatten(3, (grid[1], pixels[1])).transpose(2, 3)
    patches = patches.flatten(1, 2)[:, tokens]  # (3, a, b, pixels, pixels)
    return patches.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _shrink(photograph: Tensor, grid: Sequence[int], pixels: int = 4) -> Tensor:
    """The photograph with so many pixels a token or a little more, by averaging: enough for a panel."""
    times = photograph.shape[1] // (pixels * grid[0])
    if times < 2 or photograph.shape[1] % (times * grid[0]) or photograph.shape[2] % (times * grid[1]):
        return photograph
    scale = 1 if photograph.is_floating_point() else 255
    return torch.nn.functional.avg_pool2d(photograph[None].float() / scale, times)[0]


def _fade(photograph: Tensor, kept: Tensor) -> Tensor:
    """The photograph, grey and pale where `kept` (H, W) is False."""
    scale = 1 if photograph.is_floating_point() else 255
    image = photograph.float() / scale
    pale = 0.72 + 0.25 * image.mean(0, keepdim=True)
    pixels = image.shape[1] // kept.shape[0], image.shape[2] // kept.shape[1]
    kept = kept.repeat_interleave(pixels[0], 0).repeat_interleave(pixels[1], 1)
    return torch.where(kept, image, pale.expand_as(image))


def _rgba(colour: str, alpha: float) -> Tensor:
    from matplotlib.colors import to_rgba

    return torch.tensor(to_rgba(colour, alpha))


def _bar(ax: "Axes", drawn: object, ticks: Sequence[float]) -> None:
    bar = ax.figure.colorbar(drawn, ax=ax, orientation="horizontal", shrink=0.85, aspect=14, pad=0.03)
    bar.set_ticks(ticks, labels=["0" if tick == 0 else number(tick) for tick in ticks])
    bar.ax.tick_params(labelsize=8)


def _sign(ax: "Axes", text: str) -> None:
    ax.axis("off")
    ax.text(0.5, 0.5, text, ha="center", va="center", fontsize=11, transform=ax.transAxes)


def _no_ticks(ax: "Axes") -> None:
    ax.set_xticks([])
    ax.set_yticks([])


def _check_positions(positions: Sequence[Position], grid: Sequence[int]) -> None:
    for row, column in positions:
        if not (0 <= row < grid[0] and 0 <= column < grid[1]):
            raise ValueError(
                f"there is no token ({row}, {column}); rows are 0 to {grid[0] - 1}, columns 0 to {grid[1] - 1}."
            )


def _needed(values: Sequence[object] | Mapping[str, object]) -> None:
    if not len(values):
        raise ValueError("there is nothing to draw; give at least one.")


def _tell(values: Tensor, total: bool = True) -> str:
    """The range of a map's numbers other than zero, and their sum."""
    there = values[values != 0] if (values != 0).any() else values.flatten()
    span = f"{number(there.min())} to {number(there.max())}"
    return f"{span}, sum {number(values.sum())}" if total else span


def _limit_beside(values: Tensor, position: Position) -> float:
    """The largest size other than at `position`, which may stand out so far that the rest would be white."""
    rest = values.detach().abs().clone()
    rest[..., position[0], position[1]] = 0
    return symmetric_limit(rest)
