"""Plots of data: images, learning curves, the confusion matrix, and one modulation map with all its parts.

Each function gives a `Picture`: a Matplotlib figure and the sentence that says what it shows. Figures are made
without pyplot, so nothing is drawn twice, and nothing has to be closed. Signed values are drawn in one diverging
colour map that survives colour-blindness: orange above zero, purple below, white at zero.
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
    as_pixels,
    image_grid,
    new_figure,
    number,
    outline,
    symmetric_limit,
    tidy,
)
from c2f.training.run import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_images(images: Tensor, titles: Sequence[str] = (), *, columns: int = 8, title: str = "") -> Picture:
    """Images in a grid, each with its own title.

    Args:
        images: (N, 3, H, W), uint8 or float from 0 to 1.
        titles: one per image, or none at all.
        columns: images in a row.
        title: over the whole grid.

    Raises ValueError for images of another shape, for none, and where titles are too few or too many.
    """
    if images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise ValueError(f"the images have shape {tuple(images.shape)}; give at least one, as (N, 3, H, W).")
    figure, axes = image_grid("images", len(images), titles, columns, title)
    for image, ax in zip(images, axes[0], strict=False):
        ax.imshow(as_pixels(image), vmin=0)
    height, width = images.shape[2:]
    what = f"{len(images)} image{'s' * (len(images) > 1)} of {height}×{width} pixels"
    return Picture(figure, f"{_describe_grid(what, titles, title)}.")


def plot_maps(
    maps: Tensor, titles: Sequence[str] = (), *, images: Tensor | None = None, columns: int = 8, title: str = ""
) -> Picture:
    """Signed maps in a grid, on one scale that is symmetrical about zero, each below its image if `images` are given.

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
    figure, axes = image_grid("maps", len(maps), titles, columns, title, layers=1 if images is None else 2)
    for ax, image in zip(axes[0], images if images is not None else (), strict=False):
        ax.imshow(as_pixels(image), vmin=0)
    for ax, values in zip(axes[-1], maps, strict=False):
        drawn = ax.imshow(values.numpy(), cmap=SIGNED, vmin=-limit, vmax=limit)
    figure.colorbar(drawn, ax=axes.flatten().tolist(), shrink=0.8, fraction=0.05)
    height, width = maps.shape[1:]
    what = f"{len(maps)} map{'s' * (len(maps) > 1)} of {height}×{width} positions"
    what += "" if images is None else ", each below its image"
    values = f"with values from {number(maps.min(), 3)} to {number(maps.max(), 3)}"
    return Picture(figure, f"{_describe_grid(what, titles, title)}, {values}.")


def _describe_grid(what: str, titles: Sequence[str], title: str) -> str:
    listed = ", ".join(" ".join(title.split()) for title in titles)
    return f"{title + ': ' if title else ''}{what}{', titled ' + listed if titles else ''}"


# ---- Curves


def plot_history(history: History) -> Picture:
    """Loss and accuracy of both splits after every epoch. Raises ValueError for a history without an epoch."""
    if not len(history):
        raise ValueError("the history has no epoch yet; train for at least one, then plot it.")
    figure = new_figure(8.5, 3.2)
    axes = figure.subplots(1, 2)
    draw_history(axes, history)
    for ax in axes:
        ax.xaxis.get_major_locator().set_params(integer=True)
    return Picture(figure, describe_history(history))


def draw_history(axes: Sequence["Axes"], history: History, x: str = "epoch", steps_per_epoch: int = 1) -> None:
    """Loss on the first axes and accuracy on the second, a mark at the end of every epoch; `x` names their x-axis."""
    lines = (("train", "training images", TRAIN, "o-"), ("test", "test images", TEST, "s--"))
    records = history.records if steps_per_epoch else []  # 0: the length of an epoch is not known yet
    for ax, quantity, corner in zip(axes, ("loss", "accuracy"), ("upper right", "lower right"), strict=True):
        for split, name, colour, style in lines if records else ():
            ends = [record.epoch * steps_per_epoch for record in records]
            values = [getattr(record, f"{split}_{quantity}") for record in records]
            ax.plot(ends, values, style, color=colour, markersize=4, linewidth=1.6, label=name)
        ax.set(title=quantity.capitalize(), xlabel=x)
        tidy(ax)
        if ax.lines:
            ax.legend(frameon=False, loc=corner)
    axes[0].set(ylabel="cross-entropy", ylim=(0, None))
    axes[1].set(ylabel="accuracy", ylim=(0, 1.02))


def describe_history(history: History) -> str:
    first, last = history[0], history[-1]
    return (
        f"Over {len(history)} epoch{'s' * (len(history) > 1)} the loss on test images went from "
        f"{first.test_loss:.2f} to {last.test_loss:.2f} and their accuracy from {first.test_accuracy:.1%} to "
        f"{last.test_accuracy:.1%}; on training images the loss ended at {last.train_loss:.2f} and the accuracy at "
        f"{last.train_accuracy:.1%}."
    )


# ---- Confusion


def plot_confusion(labels: Tensor, predictions: Tensor, classes: Sequence[str]) -> Picture:
    """How often images of each class were predicted as each other class: scikit-learn's confusion matrix, drawn.

    Args:
        labels, predictions: (N,) integers that index `classes`.
        classes: names; each has a row (the true class) and a column (the prediction).

    Raises ValueError where labels and predictions differ in number.
    """
    from sklearn.metrics import confusion_matrix

    if labels.shape != predictions.shape or not len(labels):
        raise ValueError(
            f"there are {labels.numel()} labels and {predictions.numel()} predictions; give one of each per image."
        )
    counts = confusion_matrix(labels.cpu().numpy(), predictions.cpu().numpy(), labels=range(len(classes)))
    figure = new_figure(5.6, 5.0)
    ax = figure.subplots()
    image = ax.imshow(counts, cmap=COUNTS, vmin=0)
    slanted = {"rotation": 45, "ha": "right"} if max(map(len, classes)) > 3 else {}
    ax.set_xticks(range(len(classes)), classes, **slanted)
    ax.set_yticks(range(len(classes)), classes)
    ax.set(title="What was taken for what", xlabel="predicted class", ylabel="true class")
    for (row, column), count in np.ndenumerate(counts):
        if count and len(classes) <= 20:
            ink = "white" if count > counts.max() / 2 else "black"
            ax.text(column, row, str(count), ha="center", va="center", color=ink, fontsize=9)
    figure.colorbar(image, ax=ax, label="images", shrink=0.8)
    return Picture(figure, _describe_confusion(counts, classes))


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


def plot_modulation(image: Tensor, modulation: Modulation, *, one_scale: bool = True) -> Picture:
    """One channel's modulation, step by step: window, U, kernel, the terms and their sum, then A, V and A ⊙ V.

    Args:
        image: (3, H, W), uint8 or float from 0 to 1: what `modulation` was computed for, before normalisation.
        modulation: from `modulation_at`.
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
    grid = figure.add_gridspec(
        4, 7, width_ratios=[1, 0.14, 1, 0.14, 1, 0.14, 1], height_ratios=[1, 0.06, 1, 0.06], hspace=0.02
    )
    axes = [[figure.add_subplot(grid[row, column]) for column in range(0, 7, 2)] for row in range(4)]  # maps, bars
    for row, signs in ((0, "→×="), (2, "→⊙=")):
        for column, sign in zip((1, 3, 5), signs, strict=True):
            ax = figure.add_subplot(grid[row, column])
            ax.axis("off")
            ax.text(0.5, 0.5, sign, ha="center", va="center", fontsize=16, transform=ax.transAxes)
        axes[row + 1][0].axis("off")

    k, (row, column) = len(m.kernel), m.position
    axes[0][0].imshow(as_pixels(image), vmin=0)
    for box in (m.window_box, m.box(0)):
        outline(axes[0][0], *box, colour=WINDOW)
    axes[0][0].set(title=f"image\nand the {k}×{k} window", xlabel="pixel column", ylabel="pixel row")
    _draw_kernel(axes[0][2], axes[1][2], m.kernel, "kernel W\n(in every window)")
    _draw_kernel(axes[0][3], axes[1][3], m.window, f"window map W · U\nsums to {number(m.window.sum(), 3)}")
    _draw_sum(axes[2][0], m)
    maps = (0, 1, "U", m.u), (2, 1, "modulation map A", m.a), (2, 2, "value V", m.v), (2, 3, "A ⊙ V", m.fused)
    limit = max(symmetric_limit(values) for *_, values in maps) if one_scale else None
    outline(axes[0][1], row - k // 2, column - k // 2, k, k, colour=WINDOW)
    for y, x, name, values in maps:
        ax, bar = axes[y][x], axes[y + 1][x]
        _draw_signed(ax, bar, values, limit)
        outline(ax, row, column, 1, 1, colour="black")
        ax.set(title=f"{name}\n{number(values[m.position], 3)} at □", xlabel="column", ylabel="row")
    figure.suptitle(
        f"Stage {m.stage}, block {m.block}, channel {m.channel}, at row {row}, column {column} (□)", fontsize=12
    )
    return Picture(figure, _describe_modulation(m))


def _draw_kernel(ax: "Axes", bar: "Axes", values: Tensor, title: str) -> None:
    """A kernel or its terms (k, k), the axes in steps from the centre."""
    half = len(values) // 2
    _draw_signed(ax, bar, values, None)
    outline(ax, half, half, 1, 1, colour="black")
    ax.set(title=title, xlabel="δ column", ylabel="δ row")
    steps = [number(-half, 0), "0", str(half)]
    ax.set_xticks([0, half, 2 * half], steps)
    ax.set_yticks([0, half, 2 * half], steps)
    ax.spines[:].set(color=WINDOW, linewidth=2)


def _draw_signed(ax: "Axes", bar: "Axes", values: Tensor, limit: float | None) -> None:
    limit = limit or symmetric_limit(values)
    drawn = ax.imshow(values.numpy(), cmap=SIGNED, vmin=-limit, vmax=limit)
    ax.figure.colorbar(drawn, cax=bar, orientation="horizontal")
    bar.set_xticks([-limit, 0, limit], labels=[number(-limit), "0", number(limit)])


def _draw_sum(ax: "Axes", m: Modulation) -> None:
    """How the window's terms and the bias add up to A at the position: a bar for each part of the sum."""
    positive, negative = m.window.clamp(min=0).sum().item(), m.window.clamp(max=0).sum().item()
    names = ["terms above 0", "terms below 0", "bias b", "A at □"]
    values = [positive, negative, m.bias, m.value]
    starts = [0, positive, positive + negative, 0]
    ax.barh(range(4), values, left=starts, color=["#E08214", "#8073AC", SOFT, "black"], height=0.4)
    ax.axvline(0, color="black", linewidth=0.8)
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        text = ax.text(0.02, i - 0.32, f"{name}: {number(value, 3)}", fontsize=9, transform=ax.get_yaxis_transform())
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})
    ax.set(title=f"the {m.window.numel()} terms\nadd up to A", xlabel="running sum", ylim=(3.4, -0.75), yticks=[])
    ax.margins(x=0.05)
    ax.spines[["top", "right", "left"]].set_visible(False)


def _describe_modulation(m: Modulation) -> str:
    k, (row, column) = len(m.kernel), m.position
    total, bias, value = number(m.window.sum(), 3), number(m.bias, 3), number(m.value, 3)
    v, fused = number(m.v[m.position], 3), number(m.fused[m.position], 3)
    return (
        f"In stage {m.stage}, block {m.block}, channel {m.channel}, the {k * k} terms of the {k}×{k} window "
        f"map at row {row}, column {column} sum to {total}, which with the bias {bias} makes the modulation A = "
        f"{value}; it weighs the value V = {v} to {fused}, and over the whole map A runs from {number(m.a.min(), 3)} "
        f"to {number(m.a.max(), 3)}."
    )
