"""Plots of data: images, learning curves, what is confused with what, and one modulation map taken apart.

Each function gives a `Picture`: a Matplotlib figure and the sentence that says what it shows. Figures are made
without pyplot, so nothing is drawn twice, and nothing has to be closed. Signed values are drawn in one diverging
colour map, orange above zero and purple below, white at zero: told apart by every kind of eye.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from c2f.maps.modulation import Modulation
from c2f.maps.picture import (
    COUNTS,
    SIGNED,
    SOFT,
    TEST,
    TRAIN,
    WINDOW,
    Picture,
    new_figure,
    number,
    outline,
    symmetric_limit,
)
from c2f.training.run import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_images(
    images: Tensor,
    titles: Sequence[str] = (),
    *,
    columns: int = 8,
    title: str = "",
) -> Picture:
    """Images in a grid, each with its own title.

    Args:
        images: (N, 3, H, W), uint8 or float from 0 to 1.
        titles: one an image, or none at all.
        columns: images in a row.
        title: over the whole grid.

    Raises ValueError for images of another shape, for none, and where titles are too few or too many.
    """
    if images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise ValueError(f"the images have shape {tuple(images.shape)}; give at least one, as (N, 3, H, W).")
    figure, axes = _grid(len(images), titles, columns, title)
    for image, ax in zip(images, axes[0], strict=False):
        ax.imshow(image.permute(1, 2, 0).cpu().numpy(), vmin=0)
    height, width = images.shape[2:]
    what = f"{len(images)} image{'s' * (len(images) > 1)} of {height}×{width} pixels"
    return Picture(figure, f"{_describe_grid(what, titles, title)}.")


def plot_maps(
    maps: Tensor,
    titles: Sequence[str] = (),
    *,
    images: Tensor | None = None,
    columns: int = 8,
    title: str = "",
) -> Picture:
    """Signed maps in a grid, on one scale that is symmetrical about zero, each below its image where images are given.

    Args:
        maps: (N, H, W).
        images: (N, 3, H', W'), uint8 or float from 0 to 1.
        titles, columns, title: as for `plot_images`.

    Raises ValueError for maps of another shape, for none, and where titles or images are too few or too many.
    """
    if maps.ndim != 3 or not len(maps):
        raise ValueError(f"the maps have shape {tuple(maps.shape)}; give at least one, as (N, H, W).")
    if images is not None and len(images) != len(maps):
        raise ValueError(f"there are {len(maps)} maps and {len(images)} images; give one each, or no images.")
    maps, limit = maps.detach().cpu(), symmetric_limit(maps)
    figure, axes = _grid(len(maps), titles, columns, title, rows_each=1 if images is None else 2)
    for ax, image in zip(axes[0], images if images is not None else (), strict=False):
        ax.imshow(image.permute(1, 2, 0).cpu().numpy(), vmin=0)
    for ax, values in zip(axes[-1], maps, strict=False):
        drawn = ax.imshow(values.numpy(), cmap=SIGNED, vmin=-limit, vmax=limit)
    figure.colorbar(drawn, ax=axes.flatten().tolist(), shrink=0.8, fraction=0.05)
    height, width = maps.shape[1:]
    what = f"{len(maps)} map{'s' * (len(maps) > 1)} of {height}×{width} positions"
    what += "" if images is None else ", each below its image"
    values = f"with values from {number(maps.min(), 3)} to {number(maps.max(), 3)}"
    return Picture(figure, f"{_describe_grid(what, titles, title)}, {values}.")


def plot_history(history: History) -> Picture:
    """Loss and accuracy of both splits after every epoch. Raises ValueError for a history without an epoch."""
    if not len(history):
        raise ValueError("the history has no epoch yet; train for at least one, then plot it.")
    figure = new_figure(8.5, 3.2)
    axes = figure.subplots(1, 2)
    _draw_epochs(axes, history, steps_per_epoch=1)
    _label_curves(axes, "epoch")
    for ax in axes:
        ax.xaxis.get_major_locator().set_params(integer=True)
    return Picture(figure, _describe_history(history))


def plot_confusion(labels: Tensor, predictions: Tensor, classes: Sequence[str]) -> Picture:
    """How often each class was taken for each: scikit-learn's confusion matrix, drawn.

    Args:
        labels, predictions: (N,) integers that index `classes`.
        classes: names; every one gets a row (what it is) and a column (what was answered).

    Raises ValueError where labels and predictions differ in number.
    """
    from sklearn.metrics import confusion_matrix

    if labels.shape != predictions.shape or not len(labels):
        raise ValueError(
            f"there are {labels.numel()} labels and {predictions.numel()} predictions; give one of each an image."
        )
    counts = confusion_matrix(labels.cpu().numpy(), predictions.cpu().numpy(), labels=range(len(classes)))
    figure = new_figure(5.6, 5.0)
    ax = figure.subplots()
    image = ax.imshow(counts, cmap=COUNTS, vmin=0)
    ticks = range(len(classes))
    slanted = {"rotation": 45, "ha": "right"} if max(map(len, classes)) > 3 else {}
    ax.set_xticks(ticks, classes, **slanted)
    ax.set_yticks(ticks, classes)
    ax.set(title="What was taken for what", xlabel="predicted class", ylabel="true class")
    for (row, column), count in np.ndenumerate(counts):
        if count and len(classes) <= 20:
            ink = "white" if count > counts.max() / 2 else "black"
            ax.text(column, row, str(count), ha="center", va="center", color=ink, fontsize=9)
    figure.colorbar(image, ax=ax, label="images", shrink=0.8)
    return Picture(figure, _describe_confusion(counts, classes))


def plot_modulation(image: Tensor, modulation: Modulation, *, one_scale: bool = True) -> Picture:
    """One channel's modulation, step by step: window, U, kernel, the terms and their sum, then A, V and A ⊙ V.

    Args:
        image: (3, H, W), uint8 or float from 0 to 1: what `modulation` was computed for, before normalisation.
        modulation: from `look_at`.
        one_scale: U, A, V and A ⊙ V share one colour scale, so that their sizes compare; else each has its own. The
            kernel and the terms, which are far smaller, have their own in any case. Zero is white in all.

    Raises ValueError for an image of another size than the maps are of.
    """
    m = modulation
    if image.shape != (3, *m.image_size):
        raise ValueError(
            f"the image has shape {tuple(image.shape)}, and the maps are of one of shape {(3, *m.image_size)}; "
            f"give the image that they were computed for."
        )
    figure = new_figure(9.5, 6.1)
    figure.get_layout_engine().set(h_pad=0.06)
    sign = 0.14
    grid = figure.add_gridspec(
        4, 7, width_ratios=[1, sign, 1, sign, 1, sign, 1], height_ratios=[1, 0.06, 1, 0.06], hspace=0.02
    )
    panels = [[figure.add_subplot(grid[row, column]) for column in (0, 2, 4, 6)] for row in (0, 2)]
    bars = [[figure.add_subplot(grid[row, column]) for column in (0, 2, 4, 6)] for row in (1, 3)]
    for row, signs in ((0, "→×="), (2, "→⊙=")):
        for column, text in zip((1, 3, 5), signs, strict=True):
            _draw_sign(figure.add_subplot(grid[row, column]), text)

    limit = max(symmetric_limit(values) for values in (m.u, m.a, m.v, m.fused)) if one_scale else None
    _draw_image(panels[0][0], image, m)
    _draw_map(panels[0][1], bars[0][1], m.u, "U", m, limit, window=True)
    _draw_kernel(panels[0][2], bars[0][2], m.kernel, "kernel W\n(in every window)")
    _draw_kernel(panels[0][3], bars[0][3], m.window, f"window map W · U\nsums to {number(m.window.sum(), 3)}")
    _draw_sum(panels[1][0], m)
    _draw_map(panels[1][1], bars[1][1], m.a, "modulation map A", m, limit)
    _draw_map(panels[1][2], bars[1][2], m.v, "value V", m, limit)
    _draw_map(panels[1][3], bars[1][3], m.fused, "A ⊙ V", m, limit)
    for row in bars:
        row[0].axis("off")
    figure.suptitle(
        f"Stage {m.stage}, block {m.block}, channel {m.channel}, at row {m.position[0]}, column {m.position[1]} (□)",
        fontsize=12,
    )
    return Picture(figure, _describe_modulation(m))


def _grid(
    count: int, titles: Sequence[str], columns: int, title: str, rows_each: int = 1
) -> tuple["Figure", np.ndarray]:
    """Axes without frames, (rows_each, at least count): those of one column belong together, one below the other."""
    if titles and len(titles) != count:
        raise ValueError(f"there are {count} images and {len(titles)} titles; give one each, or none.")
    columns = min(columns, count)
    bands = -(-count // columns)
    height = bands * (1.05 * rows_each + 0.2 * bool(titles)) + 0.3 * bool(title)
    figure = new_figure(columns * 1.05, height)
    axes = figure.subplots(bands * rows_each, columns, squeeze=False)
    axes = axes.reshape(bands, rows_each, columns).swapaxes(0, 1).reshape(rows_each, -1)
    for ax in axes.flatten():
        ax.axis("off")
    for ax, text in zip(axes[0], titles, strict=False):
        ax.set_title(text, fontsize=10)
    figure.suptitle(title, fontsize=11)
    return figure, axes


def _describe_grid(what: str, titles: Sequence[str], title: str) -> str:
    listed = ", ".join(" ".join(title.split()) for title in titles)
    return f"{title + ': ' if title else ''}{what}{', titled ' + listed if titles else ''}"


# ---- Curves


def _draw_epochs(axes: Sequence["Axes"], history: History, steps_per_epoch: int) -> None:
    """Loss on the first axes and accuracy on the second, a mark at the end of every epoch."""
    ends = [record.epoch * steps_per_epoch for record in history.records]
    for ax, quantity in zip(axes, ("loss", "accuracy"), strict=True):
        for split, colour, style in (("train", TRAIN, "o-"), ("test", TEST, "s--")):
            values = [getattr(record, f"{split}_{quantity}") for record in history.records]
            name = {"train": "training images", "test": "held-out images"}[split]
            ax.plot(ends, values, style, color=colour, markersize=4, linewidth=1.6, label=name)


def _label_curves(axes: Sequence["Axes"], x: str) -> None:
    axes[0].set(title="Loss", xlabel=x, ylabel="cross-entropy", ylim=(0, None))
    axes[1].set(title="Accuracy", xlabel=x, ylabel="share that is right", ylim=(0, 1.02))
    for ax, free_corner in zip(axes, ("upper right", "lower right"), strict=True):
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
        if ax.lines:
            ax.legend(frameon=False, loc=free_corner)


def _describe_history(history: History) -> str:
    first, last = history[0], history[-1]
    return (
        f"Over {len(history)} epoch{'s' * (len(history) > 1)} the loss on held-out images went from "
        f"{first.test_loss:.2f} to {last.test_loss:.2f} and their accuracy from {first.test_accuracy:.1%} to "
        f"{last.test_accuracy:.1%}; on training images the loss ended at {last.train_loss:.2f} and the accuracy at "
        f"{last.train_accuracy:.1%}."
    )


# ---- Confusion


def _describe_confusion(counts: np.ndarray, classes: Sequence[str]) -> str:
    right, total = int(np.trace(counts)), int(counts.sum())
    text = f"{right} of {total} images ({right / total:.1%}) are on the diagonal, which is where a right answer counts"
    wrong = counts - np.diag(np.diag(counts))
    if not wrong.any():
        return f"{text}; nothing is confused."
    true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
    times = {1: "once", 2: "twice"}.get(int(wrong.max()), f"{wrong.max()} times")
    return f"{text}; the most frequent confusion takes {classes[true]} for {classes[predicted]}, {times}."


# ---- Modulation


def _draw_image(ax: "Axes", image: Tensor, m: Modulation) -> None:
    ax.imshow(image.permute(1, 2, 0).cpu().numpy(), vmin=0)
    outline(ax, *m.window_box, colour=WINDOW)
    top, left = (
        p * pixels // positions for p, pixels, positions in zip(m.position, m.image_size, m.a.shape, strict=True)
    )
    outline(ax, top, left, m.image_size[0] // m.a.shape[0], m.image_size[1] // m.a.shape[1], colour=WINDOW)
    sides = "×".join(map(str, m.kernel.shape))
    ax.set(title=f"image\nand the {sides} window", xlabel="pixel column", ylabel="pixel row")


def _draw_map(
    ax: "Axes", bar: "Axes", values: Tensor, title: str, m: Modulation, limit: float | None, window: bool = False
) -> None:
    """A map over all positions, the position (and the window) outlined, the value there in the title."""
    _draw_signed(ax, bar, values, limit)
    row, column = m.position
    height, width = m.kernel.shape
    if window:
        outline(ax, row - height // 2, column - width // 2, height, width, colour=WINDOW)
    outline(ax, row, column, 1, 1, colour="black")
    ax.set(title=f"{title}\n{number(values[m.position], 3)} at □", xlabel="column", ylabel="row")


def _draw_kernel(ax: "Axes", bar: "Axes", values: Tensor, title: str) -> None:
    """Something over the window, in steps from its centre."""
    half_height, half_width = (size // 2 for size in values.shape)
    edges = (-half_width - 0.5, half_width + 0.5, half_height + 0.5, -half_height - 0.5)
    _draw_signed(ax, bar, values, limit=None, extent=edges)
    outline(ax, 0, 0, 1, 1, colour="black")
    ax.set(title=title, xlabel="δ column", ylabel="δ row")
    ax.set_xticks([-half_width, 0, half_width])
    ax.set_yticks([-half_height, 0, half_height])
    ax.spines[:].set(color=WINDOW, linewidth=2)


def _draw_signed(
    ax: "Axes",
    bar: "Axes",
    values: Tensor,
    limit: float | None,
    extent: tuple[float, float, float, float] | None = None,
) -> None:
    limit = limit or symmetric_limit(values)
    drawn = ax.imshow(values.numpy(), cmap=SIGNED, vmin=-limit, vmax=limit, extent=extent)
    ax.figure.colorbar(drawn, cax=bar, orientation="horizontal")
    bar.set_xticks([-limit, 0, limit], labels=[number(-limit, 2), "0", number(limit, 2)])


def _draw_sum(ax: "Axes", m: Modulation) -> None:
    """How the window's terms and the bias add up to A at the position: a bar for each share of the sum."""
    positive, negative = m.window.clamp(min=0).sum().item(), m.window.clamp(max=0).sum().item()
    names = ["terms above 0", "terms below 0", "bias b", "A at □"]
    values = [positive, negative, m.bias, m.value]
    starts = [0, positive, positive + negative, 0]
    ax.barh(range(4), values, left=starts, color=["#E08214", "#8073AC", SOFT, "black"], height=0.4)
    ax.axvline(0, color="black", linewidth=0.8)
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        text = ax.text(0.02, i - 0.32, f"{name}: {number(value, 3)}", fontsize=9, transform=ax.get_yaxis_transform())
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})
    ax.set_ylim(3.4, -0.75)
    ax.set_yticks([])
    ax.margins(x=0.05)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.set(title=f"the {m.window.numel()} terms\nadd up to A", xlabel="running sum")


def _draw_sign(ax: "Axes", sign: str) -> None:
    ax.axis("off")
    ax.text(0.5, 0.5, sign, ha="center", va="center", fontsize=16, transform=ax.transAxes)


def _describe_modulation(m: Modulation) -> str:
    row, column = m.position
    sides = "×".join(map(str, m.kernel.shape))
    total, bias, value = number(m.window.sum(), 3), number(m.bias, 3), number(m.value, 3)
    v, fused = (number(values[m.position], 3) for values in (m.v, m.fused))
    return (
        f"In stage {m.stage}, block {m.block}, channel {m.channel}, the {m.window.numel()} terms of the {sides} window "
        f"map at row {row}, column {column} sum to {total}, which with the bias {bias} makes the modulation A = "
        f"{value}; it weighs the value V = {v} to {fused}, and over the whole map A runs from {number(m.a.min(), 3)} "
        f"to {number(m.a.max(), 3)}."
    )
