"""Window attention drawn: windows and shifted windows, the roll and its mask, reach, weights, padding, cost.

Everything is drawn from what a model really did (`BlockAttention` of `c2f.models.baselines`) or from counts that come
in; nothing here measures. A token is a position of the grid; a *piece* is a set of tokens that attend to each other: a
window, or the part of a rolled window that lies together on the image.

Shapes: H x W tokens of a grid, h x w pixels of the photograph (3, h, w) that lies under it, h a multiple of H and w of
W; M a window's side, T = M² its tokens. A photograph is uint8 or float from 0 to 1.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, to_rgba
from torch import Tensor

from c2f.models.baselines import BlockAttention
from c2f.models.cost import MultiplyAdds
from c2f.picture import HERE, INK, PURPLE, SIGNED, SOFT, TEST, TRAIN, WINDOW, Picture, as_pixels, number
from c2f_course.figures.drawing import draw_signed, finish, median_bars, outline, scale_below, subplots, told
from c2f_course.figures.notebook_01 import lay_over

SHARES = "Oranges"
Position = tuple[int, int]


def pieces(attention: BlockAttention) -> Tensor:
    """Which tokens attend to each other: (H, W) int64, one number per piece, counted from 0 row by row.

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


def plot_windows(photograph: Tensor, blocks: Mapping[str, BlockAttention], positions: Sequence[Position]) -> Picture:
    """The pieces of each block over the photograph, and around each of up to three tokens those that it attends to."""
    figure, axes = subplots(3.9 * len(blocks), 4.3, 1, len(blocks))
    marks = list(zip(positions, (WINDOW, TRAIN, PURPLE), strict=False))
    said = []
    for ax, (name, attention) in zip(axes, blocks.items(), strict=True):
        piece = pieces(attention)
        tint = torch.zeros(*piece.shape, 4)
        for position, colour in reversed(marks):
            tint[piece == piece[position]] = torch.tensor(to_rgba(colour, 0.5))
        _draw_tokens(ax, photograph, attention.grid, tint=tint, borders=piece, marks=marks)
        count, together = int(piece.max()) + 1, len({int(piece[position]) for position in positions})
        ax.set(title=f"{name}\n{count} pieces", xlabel="token column", ylabel="token row")
        cuts = f"{name} cuts the {piece.shape[0]}×{piece.shape[1]} tokens into {count} pieces"
        said.append(f"{cuts}, and the {len(positions)} marked tokens are in {together} of them")
    return Picture(figure, f"{'; '.join(said)}.")


def plot_roll(photograph: Tensor, attention: BlockAttention) -> Picture:
    """A shifted block without padding: the pieces on the image, and the rolled image cut into whole windows."""
    grid, (down, right), piece = attention.grid, attention.shift, pieces(attention)
    tint = torch.zeros(*grid, 4)  # what the roll takes to the other side
    blue, vermilion, purple = (torch.tensor(to_rgba(*c)) for c in ((TRAIN, 0.45), (TEST, 0.45), (PURPLE, 0.6)))
    tint[:down], tint[:, :right], tint[:down, :right] = blue, vermilion, purple
    pixels = (photograph.shape[1] // grid[0], photograph.shape[2] // grid[1])
    rolled = photograph.roll((-down * pixels[0], -right * pixels[1]), dims=(1, 2))
    windows, count = torch.arange(len(attention.tokens)).view(grid[0] // attention.window[0], -1), int(piece.max()) + 1
    windows = windows.repeat_interleave(attention.window[0], 0).repeat_interleave(attention.window[1], 1)
    figure, (left, right_ax) = subplots(7.8, 4.2, 1, 2)
    _draw_tokens(left, photograph, grid, tint=tint, borders=piece)
    _draw_tokens(right_ax, rolled, grid, tint=tint.roll((-down, -right), dims=(0, 1)), borders=windows)
    title = f"shifted by {down}: {count} pieces,\nthose at the edges are cut"
    left.set(title=title, xlabel="token column", ylabel="token row")
    title = f"rolled up and left by {down}:\n{len(attention.tokens)} whole windows"
    right_ax.set(title=title, xlabel="token column", ylabel="token row")
    return Picture(
        figure,
        f"Shifted by {down} rows and {right} columns, the windows leave {count} pieces on the {grid[0]}×{grid[1]} "
        f"grid; rolled up and to the left by as much, the image is {len(attention.tokens)} whole windows again, of "
        f"which those at the right and at the bottom hold what came from the opposite side.",
    )


def plot_masks(photograph: Tensor, attention: BlockAttention, windows: Mapping[str, int]) -> Picture:
    """Some windows of a shifted block: the tokens after the roll, and below the pairs that may attend to each other.

    `attention`: of a block without padding; `windows`: name -> number of the window, row by row.
    """
    piece = pieces(attention).flatten()
    figure, axes = subplots(2.3 * len(windows), 4.9, 2, len(windows), squeeze=False)
    said = []
    for (above, below), (name, window) in zip(axes.T, windows.items(), strict=True):
        tokens = attention.tokens[window].cpu()
        crop = _tokens_of(photograph, attention.grid, tokens.view(attention.window))
        _draw_tokens(above, crop, attention.window, 12, borders=piece[tokens].view(attention.window), linewidth=3)
        above.set(xticks=[], yticks=[])
        above.set_title(name, fontsize=11)
        sees = piece[tokens][:, None] == piece[tokens]
        below.imshow(sees.numpy(), cmap=ListedColormap(["#444444", HERE]), vmin=0, vmax=1)
        pairs, ends = f"{int(sees.sum())} of {sees.numel()} pairs", [0, len(tokens) - 1]
        below.set(title=pairs, xlabel="key", xticks=ends, yticks=ends)
        said.append(f"{name}, {len(piece[tokens].unique())} with {pairs} allowed")
    axes[1, 0].set_ylabel("query")
    alt = f"Pieces in a window of the rolled image: {'; '.join(said)}."
    return Picture(figure, f"{alt} Yellow pairs may see each other, dark may not.")


class _Tokens(NamedTuple):
    """One panel: a photograph of so many tokens with its title, what stands below, and how it is drawn."""

    title: str
    photograph: Tensor
    below: str
    style: Mapping[str, Any]  # of `_draw_tokens`


def _plot_tokens(rows: Sequence[Sequence[_Tokens]], alt: str, grid: Sequence[int], labels: Sequence[str]) -> Picture:
    """Photographs of as many tokens in rows, each row with a label."""
    columns, titles = max(map(len, rows)), sum(any(panel.title for panel in row) for row in rows)
    height = 2.42 * len(rows) + 0.25 * titles
    figure, axes = subplots(2.25 * columns, height, len(rows), columns, squeeze=False)
    for line, row, label in zip(axes, rows, labels, strict=True):
        line[0].set_ylabel(label)
        for ax in line[len(row) :]:
            ax.axis("off")
        for ax, panel in zip(line, row, strict=False):
            _draw_tokens(ax, panel.photograph, grid, **panel.style)
            ax.set_title(panel.title, fontsize=10)
            ax.set_xlabel(panel.below, fontsize=9)
            ax.set(xticks=[], yticks=[])
    return Picture(figure, alt)


def plot_reach(
    photograph: Tensor, rows: Mapping[str, Sequence[Tensor]], positions: Sequence[Position], titles: Sequence[str]
) -> Picture:
    """Which tokens a position reaches after one block, two, three …: those stay in colour, the others turn pale.

    `rows`: name -> reaches (H, W) bool, one per title; `positions`: one per row.
    """
    panels, said = [], {}
    for (name, reaches), (row, column) in zip(rows.items(), positions, strict=True):
        counts = [int(reach.sum()) for reach in reaches]
        said[f"{name} from row {row}, column {column}"] = ", ".join(map(str, counts))
        panels.append([])
        for title, reach, count in zip(titles, reaches, counts, strict=True):
            style = {"borders": reach.long(), "marks": [((row, column), "black")], "colour": WINDOW, "linewidth": 2}
            image = _fade(_shrink(photograph, reach.shape, 6), reach)
            below = f"{count} of {reach.numel()} tokens"
            panels[-1].append(_Tokens(title if len(panels) == 1 else "", image, below, style))
    alt = f"How many tokens reach a position after {titles[0]} to {titles[-1]}. {told(said)}."
    return _plot_tokens(panels, alt, reach.shape, list(rows))


def plot_one_window(
    photograph: Tensor, attention: BlockAttention, window: int, query: int, scores: Tensor, bias: Tensor,
    weights: Tensor,
) -> Picture:  # fmt: skip
    """One head in one window: scores of content, the bias of places, the softmax of their sum, and one row of it.

    `window` and `query` are counted from 0, in a block without padding; scores, bias, weights: (T, T), [query, key].
    """
    side, place = attention.window, divmod(query, attention.window[1])
    scores, bias, weights = (values.detach().cpu() for values in (scores, bias, weights))
    row, most = weights[query].view(side), weights.max().item()
    widths = [1, 0.14, 1, 0.16, 1, 0.36, 1, 0.16, 1]
    figure, (axes, bars) = subplots(9.5, 2.65, 2, 9, width_ratios=widths, height_ratios=[1, 0.06])
    for ax in (*axes[1::2], bars[0], *bars[1::2], bars[8]):
        ax.axis("off")
    for ax, sign in zip(axes[3::2], ("+", "softmax\n→", "→"), strict=True):
        ax.text(0.5, 0.5, sign, ha="center", va="center", fontsize=11)
    crop = _tokens_of(photograph, attention.grid, attention.tokens[window].cpu().view(side))
    _draw_tokens(axes[0], crop, side, 12, marks=[(place, WINDOW)])
    axes[0].set_title(f"window {window}\n□ is token {query}", fontsize=10)
    limit = max(scores.abs().max(), bias.abs().max()).item() or 1.0
    for i, title, values, colours, ticks in (
        (2, "content\nq · k / √d", scores, SIGNED, [-limit, 0, limit]),
        (4, "place\nrelative bias", bias, SIGNED, [-limit, 0, limit]),
        (6, "weights\neach row sums to 1", weights, SHARES, [0, most]),
    ):
        drawn = axes[i].imshow(values.numpy(), cmap=colours, vmin=ticks[0], vmax=ticks[-1])
        scale_below(drawn, ticks, ax=None, cax=bars[i])
        axes[i].set_title(title, fontsize=10)
        axes[i].set(xticks=[], yticks=[query])
        axes[i].set_xlabel("key", fontsize=9)
        outline(axes[i], query, 0, 1, len(values), WINDOW, 1.5, zorder=3)
    axes[8].imshow(row.numpy(), cmap=SHARES, vmin=0, vmax=most)
    for (y, x), value in np.ndenumerate(row.numpy()):
        ink = "white" if value > 0.6 * most else "black"
        axes[8].text(x, y, f"{100 * value:.0f}", ha="center", va="center", fontsize=9, color=ink)
    axes[8].set_title(f"its row {query},\nin per cent", fontsize=10)
    _mark(axes[8], place, WINDOW)
    for ax in (axes[0], axes[8]):
        ax.set(xticks=[], yticks=[])
    return Picture(
        figure,
        f"In window {window} the scores of content run from {number(scores.min())} to {number(scores.max())} and the "
        f"bias of places from {number(bias.min())} to {number(bias.max())}; after the softmax, token {query} gives "
        f"{row.max():.0%} to token {int(row.argmax())} and {row.flatten()[query]:.0%} to itself.",
    )


def plot_offsets(tables: Mapping[str, Tensor]) -> Picture:
    """Small signed tables over the offset δ, all drawn with equal squares so that their reach compares.

    `tables`: name -> (2r+1, 2r+1), the entry for δ = 0 in the middle. Each has its own colour scale, full at the
    largest size beside the middle, which often stands out by far.
    """
    figure, axes = subplots(0.3 + 2.3 * len(tables), 3.65, 1, len(tables))
    widest = max(len(table) for table in tables.values()) / 2
    said = {}
    for ax, (name, table) in zip(axes, tables.items(), strict=True):
        reach = len(table) // 2
        end, limit, ticks = reach + 0.5, _limit_beside(table, (reach, reach)), [-reach, 0, reach]
        drawn = draw_signed(ax, table, limit, extent=(-end, end, end, -end))
        outline(ax, -reach, -reach, len(table), len(table), SOFT, 0.8, zorder=3)
        outline(ax, 0, 0, 1, 1, "black", 1.5, zorder=3)
        ax.set(xlim=(-widest, widest), ylim=(widest, -widest), xlabel="δ column", xticks=ticks, yticks=ticks)
        ax.set_title(f"{name}\nδ = 0: {number(table[reach, reach])}", fontsize=10)
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
        scale_below(drawn, [-limit, 0, limit], shrink=0.85, aspect=14, pad=0.03)
        said[name] = f"{table.numel()} entries from {number(table.min())} to {number(table.max())}"
    axes[0].set_ylabel("δ row")
    return Picture(figure, f"A number for each offset δ. {told(said)}.")


def plot_rows_beside(
    photograph: Tensor, position: Position, attention: Mapping[str, Tensor],
    modulation: Mapping[str, tuple[Tensor, Tensor]],
) -> Picture:  # fmt: skip
    """Rows of attention above, implied rows of ConvMod below with the U that they weigh, all over one photograph.

    All belong to the place at `position`. `attention`: name -> (H, W), a head's weights; `modulation`: name -> (row,
    U), each (H, W): the kernel laid over the map around the place, and what it weighs.
    """

    def over(title: str, values: Tensor, total: bool = True) -> _Tokens:
        return _over(photograph, values, position, title, _tell(values, total))

    rows = [[over(f"Swin: {name}", weights) for name, weights in attention.items()]]
    said = [f"Swin {name} {_tell(weights)}" for name, weights in attention.items()]
    for name, (row, u) in modulation.items():
        weighed = over("U, what it weighs", u, total=False)
        rows.append([over(f"ConvMod: {name}", row), weighed, over("row × U, the window map", row * u)])
        said.append(f"ConvMod {name} {_tell(row)}, times U {_tell(row * u)}")
    alt = f"At row {position[0]}, column {position[1]}: {'; '.join(said)}."
    return _plot_tokens(rows, alt, row.shape, [""] * len(rows))


def plot_same_place(
    photographs: Tensor, names: Sequence[str], position: Position, kinds: Mapping[str, Tensor]
) -> Picture:
    """Weights from one place, for N photographs (N, 3, h, w): a column each, and a row for each kind of weights.

    `kinds`: name -> (N, H, W); each kind has one colour scale.
    """
    grid, said = next(iter(kinds.values())).shape[1:], {}
    marks = {"marks": [(position, "black")]}
    rows = [[_Tokens(name, _shrink(photo, grid), "", marks) for name, photo in zip(names, photographs, strict=True)]]
    for kind, maps in kinds.items():
        limit = _limit_beside(maps, position)
        rows.append([_over(p, m, position, "", _tell(m), limit) for p, m in zip(photographs, maps, strict=True)])
        apart = (maps - maps[0]).abs().max().item()
        said[kind] = "the same for all" if apart == 0 else f"different by up to {number(apart)} at a token"
    alt = f"From row {position[0]}, column {position[1]} in {len(names)} photographs ({', '.join(names)})."
    return _plot_tokens(rows, f"{alt} {told(said)}.", grid, ["photograph", *kinds])


def _over(
    photograph: Tensor, values: Tensor, position: Position, title: str, below: str, limit: float | None = None
) -> _Tokens:
    """Signed numbers (H, W) over the pale photograph, orange above zero, purple below; and a mark at `position`."""
    limit = limit or _limit_beside(values, position)
    image = lay_over(_shrink(photograph, values.shape), values, limit)
    return _Tokens(title, image, below, {"marks": [(position, "black")]})


def plot_moves(moves: Sequence[int], changes: Mapping[str, Sequence[float]], window: int) -> Picture:
    """How much an output changes, at the same tokens, when the grid is moved on the image by so many tokens.

    `changes`: name -> change over output, one per move; whole windows of side `window` are marked.
    """
    figure, ax = subplots(7.6, 3.3)
    for (name, line), colour, mark in zip(changes.items(), (TRAIN, TEST, SOFT), "so^", strict=False):
        ax.plot(moves, [100 * change for change in line], f"{mark}-", color=colour, linewidth=2, label=name)
    for at in range(0, max(moves) + 1, window):
        ax.axvline(at, color=SOFT, linestyle=":", linewidth=1.2, zorder=0)
    title = "What changes when the image is moved (dotted: by whole windows)"
    legend = {"loc": "upper center", "ncols": len(changes), "frameon": True, "framealpha": 1, "edgecolor": "none"}
    limits = {"xticks": list(moves), "ylim": (None, 125 * max(map(max, changes.values())))}
    finish(ax, title, "moved by so many tokens", "change of the output (%)", legend, grid="y", **limits)
    said = (f"{name} by {', '.join(f'{change:.0%}' for change in line)}" for name, line in changes.items())
    return Picture(figure, f"Moved by {moves[0]} to {moves[-1]} tokens, the output changes: {'; '.join(said)}.")


def plot_padding(photograph: Tensor, models: Mapping[str, Sequence[tuple[int, int, int]]]) -> Picture:
    """What each stage of each model attends over: the image's own tokens, and the padding that fills up the windows.

    A stage is three sides: of the image in tokens, of the same with padding, and of a window. All panels of a row show
    the padded grid; the square photograph in it shrinks where there is padding.
    """
    columns, photograph = max(map(len, models.values())), _shrink(photograph, (16, 16))
    figure, axes = subplots(0.4 + 2.3 * columns, 2.95 * len(models), len(models), columns)
    figure.get_layout_engine().set(h_pad=0.1)
    said = {}
    for line, (name, stages) in zip(axes, models.items(), strict=True):
        line[0].set_ylabel(name)
        for ax in line[len(stages) :]:
            ax.axis("off")
        for i, (ax, (tokens, padded, window)) in enumerate(zip(line, stages, strict=False)):
            start, end = -0.5, padded - 0.5
            ax.set_facecolor("#E4E4E4")
            _draw_tokens(ax, photograph, (tokens, tokens), 64)
            ax.set(xlim=(start, end), ylim=(end, start), xticks=[], yticks=[])
            if 2 * tokens <= padded + 2:
                text = {"ha": "center", "va": "center", "fontsize": 12, "color": "#555555"}
                ax.text(padded / 2 - 0.5, 0.75 * padded, "padding", **text)
            for lines in (ax.vlines, ax.hlines):
                lines(np.arange(1, padded) - 0.5, start, end, color="white", linewidth=0.4, alpha=0.6)
                lines(np.arange(0, padded + 1, window) - 0.5, start, end, TEST, linewidth=2, zorder=4, clip_on=False)
            ax.set_title(f"stage {i}: {tokens}×{tokens} tokens\nin {padded}×{padded}", fontsize=10)
            ax.set_xlabel(f"{tokens**2 / padded**2:.0%} is image", fontsize=9)
        said[name] = ", ".join(f"{tokens**2} of {padded**2}" for tokens, padded, _ in stages)
    return Picture(figure, f"Tokens of the image among those attended over, stage by stage. {told(said)}.")


def plot_multiply_adds(costs: Mapping[str, MultiplyAdds], title: str) -> Picture:
    """Multiply-adds executed, a bar each: solid what works on the image, hatched what works on padding."""
    figure, ax = subplots(8.6, 1.15 + 0.46 * len(costs))
    useful, executed = (np.array([getattr(c, kind) for c in costs.values()]) / 1e6 for kind in ("useful", "nominal"))
    rows, padded, most = range(len(costs)), np.flatnonzero(executed > useful), executed.max()
    ax.barh(rows, useful, height=0.6, color=TRAIN, label="on the image")
    hatched = {"facecolor": "white", "hatch": "///", "edgecolor": TEST, "linewidth": 0.8}
    ax.barh(padded, (executed - useful)[padded], left=useful[padded], height=0.6, label="on padding", **hatched)
    for y in rows:
        text = f"{executed[y]:,.0f} M, {useful[y]:,.0f} M useful"
        ax.text(executed[y] + 0.01 * most, y, text, va="center", fontsize=9)
    label = "millions of multiply-adds for one image, forward"
    corner = "upper right" if executed.argmax() >= len(costs) / 2 else "lower right"
    finish(ax, title, label, "", corner, grid="x", rows=costs, xlim=(0, 1.34 * most))
    counts = zip(costs, executed, useful, strict=True)
    said = (f"{name} {all_:,.1f} million, of which {of_use:,.1f} million useful" for name, all_, of_use in counts)
    return Picture(figure, f"{title}: {'; '.join(said)}.")


def plot_speeds(costs: Mapping[str, MultiplyAdds], seconds: Mapping[str, Sequence[float]], images: int) -> Picture:
    """Images a second, and how many multiply-adds a second that is: a bar for the median, a dot for each round.

    `seconds`: of a forward pass of `images`, one per round; `costs`: multiply-adds of one image.
    """
    figure, axes = subplots(9.4, 1.3 + 0.42 * len(costs), 1, 2, sharey=True)
    rates = {name: images / np.array(each) for name, each in seconds.items()}
    speeds = {name: rates[name] * cost.nominal / 1e9 for name, cost in costs.items()}
    for ax, each in zip(axes, (rates, speeds), strict=True):
        median_bars(ax, each, [TRAIN if name.startswith("swin") else TEST for name in costs])
    title, label = f"Images per second, batch {images}", "images/s (bar: median, dots: rounds)"
    finish(axes[0], title, label, grid="x", rows=costs)
    finish(axes[1], "The same in multiply-adds executed", "billions of multiply-adds per second", grid="x")
    medians = ((name, np.median(rates[name]), np.median(speeds[name])) for name in costs)
    said = (f"{n} {r:,.0f} images and {s:,.0f} billion executed multiply-adds per second" for n, r, s in medians)
    return Picture(figure, f"Measured here, forward, batch {images}: {'; '.join(said)}.")


PUBLISHED = {
    "compared": ("quoted in the PaddlePaddle notebook", TEST, "D"),
    "elsewhere": ("what others report", SOFT, "o"),
    "kit": ("this kit's own weights", TRAIN, "s"),
}


def plot_published(results: Sequence[tuple[str, float, float, str, str]]) -> Picture:
    """Accuracies on CIFAR-10 from scratch: what was trained, lowest, highest, conditions, a kind of `PUBLISHED`."""
    figure, ax = subplots(9.4, 1.2 + 0.42 * len(results))
    said, kinds = [], dict(PUBLISHED)
    for y, (name, low, high, conditions, kind) in enumerate(results):
        label, colour, mark = PUBLISHED[kind]
        low, high = 100 * low, 100 * high
        ax.plot([low, high], [y, y], "-", color=colour, linewidth=6, alpha=0.5)
        ax.plot((low + high) / 2, y, mark, color=colour, markersize=8, label=label if kinds.pop(kind, None) else None)
        ax.text(high + 0.9, y, conditions, va="center", fontsize=9, color=INK)
        said.append(f"{name} {low:.3g}{'' if low == high else f' to {high:.3g}'} % ({conditions})")
    title, label = "Reported accuracies and their known conditions", "test accuracy on CIFAR-10 (%)"
    style = {"grid": "x", "rows": [name for name, *_ in results], "xlim": (72, 112), "xticks": range(75, 100, 5)}
    finish(ax, title, label, "", "upper right", **style)
    return Picture(figure, f"Accuracy on CIFAR-10 from scratch: {'; '.join(said)}.")


def plot_two_blocks() -> Picture:
    """A Swin block above a Conv2Former block: the same frame, and what is exchanged in it on a yellow ground."""
    figure, ax = subplots(9.4, 2.7)
    ax.set(xlim=(0, 19), ylim=(0.5, 6.2))
    ax.axis("off")
    attention = "window attention\n4×4 windows,\nevery other block shifted"
    _draw_block(ax, 4.6, "Swin", attention, "MLP\nLinear, GELU, Linear")
    _draw_block(ax, 1.4, "Conv2Former", "ConvMod\n11×11 depthwise,\ntimes the value", "MLP with a 3×3\ndepthwise conv")
    return Picture(
        figure,
        "A Swin block and a Conv2Former block: both are norm, mixing of positions, addition, norm, MLP, addition; Swin "
        "mixes by attention in windows of 4×4, Conv2Former by ConvMod with its 11×11 depthwise convolution.",
    )


def _draw_block(ax: Axes, y: float, name: str, mixer: str, mlp: str) -> None:
    ax.text(0, y, name, ha="left", va="center", fontsize=11, weight="bold")
    line = {"color": INK, "linewidth": 1.3, "zorder": 1}
    ax.plot([2.8, 17.95], [y, y], **line)
    for start, plus in ((3.05, 10.1), (10.6, 17.0)):  # around the mixer, around the MLP
        ax.plot([start, start, plus, plus], [y, y + 1.3, y + 1.3, y + 0.6], **line)
        ax.annotate("", (plus, y + 0.35), (plus, y + 0.9), arrowprops={"arrowstyle": "-|>", "color": INK, "shrinkB": 0})
        ax.plot(plus, y, "o", markersize=16, markerfacecolor="white", markeredgecolor=INK, zorder=3)
        ax.text(plus, y, "+", ha="center", va="center", fontsize=12, zorder=4)
    for x, text in ((2.6, "x"), (4.3, "norm"), (7.5, mixer), (11.5, "norm"), (14.4, mlp), (18.4, "next")):
        box = {"boxstyle": "round,pad=0.45", "facecolor": HERE if text is mixer else "white"}
        box["edgecolor"] = "none" if text in ("x", "next") else INK
        ax.text(x, y, text, ha="center", va="center", fontsize=9.5, bbox=box, zorder=3)


def _draw_tokens(
    ax: Axes, photograph: Tensor, grid: Sequence[int], pixels: int = 8, *, tint: Tensor | None = None,
    borders: Tensor | None = None, marks: Sequence[tuple[Position, str]] = (), colour: str = "white",
    linewidth: float = 1.6,
) -> None:  # fmt: skip
    """The photograph with so many pixels per token (which keeps the file small), each token a square.

    Over it: `tint` (H, W, 4); lines in `colour` between tokens of different numbers in `borders` (H, W); `marks`, each
    a token and its colour.
    """
    extent = (-0.5, grid[1] - 0.5, grid[0] - 0.5, -0.5)
    ax.imshow(as_pixels(_shrink(photograph, grid, pixels)), extent=extent, interpolation="nearest")
    if tint is not None:
        ax.imshow(tint.numpy(), extent=extent)
    if borders is not None:
        right, down = ((borders.diff(dim=dim) != 0).nonzero().tolist() for dim in (1, 0))
        lines = [((x + 0.5, y - 0.5), (x + 0.5, y + 0.5)) for y, x in right]
        lines += [((x - 0.5, y + 0.5), (x + 0.5, y + 0.5)) for y, x in down]
        for ink, width in ((INK, linewidth + 1.2), (colour, linewidth)):  # a dark edge, to be seen on bright ground
            ax.add_collection(LineCollection(lines, colors=ink, linewidths=width, capstyle="projecting"))
    for position, mark in marks:
        _mark(ax, position, mark)


def _mark(ax: Axes, position: Position, colour: str) -> None:
    """A box around one token, with a white edge."""
    outline(ax, *position, 1, 1, "white", 4.5, zorder=3)
    outline(ax, *position, 1, 1, colour, 2.5, zorder=3)


def _tokens_of(photograph: Tensor, grid: Sequence[int], tokens: Tensor) -> Tensor:
    """The photograph's patches of these tokens (a, b), put together: (3, a·h/H, b·w/W)."""
    pixels = photograph.shape[1] // grid[0], photograph.shape[2] // grid[1]
    patches = photograph.unflatten(1, (grid[0], pixels[0])).unflatten(3, (grid[1], pixels[1])).transpose(2, 3)
    patches = patches.flatten(1, 2)[:, tokens]  # (3, a, b, pixels, pixels)
    return patches.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _shrink(photograph: Tensor, grid: Sequence[int], pixels: int = 4) -> Tensor:
    """The photograph in floats with so many pixels per token or a little more, by averaging: enough for a panel."""
    image = photograph.float() / (1 if photograph.is_floating_point() else 255)
    times = max(1, image.shape[1] // (pixels * grid[0]))
    return torch.nn.functional.avg_pool2d(image[None], times)[0]


def _fade(image: Tensor, kept: Tensor) -> Tensor:
    """The image of floats, grey and pale where `kept` (H, W) is False."""
    pale = 0.72 + 0.25 * image.mean(0, keepdim=True)
    kept = torch.nn.functional.interpolate(kept[None, None].float(), image.shape[1:])[0] > 0  # nearest
    return torch.where(kept, image, pale)


def _tell(values: Tensor, total: bool = True) -> str:
    """The range of a map's numbers other than zero, and their sum."""
    there = values[values != 0] if (values != 0).any() else values.flatten()
    span = f"{number(there.min())} to {number(there.max())}"
    return f"{span}, sum {number(values.sum())}" if total else span


def _limit_beside(values: Tensor, position: Position) -> float:
    """The largest size other than at `position`, which may stand out so far that the rest would be white."""
    rest = values.detach().abs().clone()
    rest[..., position[0], position[1]] = 0
    return rest.max().item() or 1.0
