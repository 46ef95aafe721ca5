"""Plots of data: images, maps and kernels, the confusion matrix, and one modulation map with all its parts.

Each function gives a `Picture`: a Matplotlib figure and the sentence that says what it shows. Figures are made
without pyplot, so nothing is drawn twice, and nothing has to be closed. Signed values are drawn in one diverging
colour map that survives colour-blindness: orange above zero, purple below, white at zero.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from c2f.maps.modulation import Modulation
from c2f.picture import COUNTS, SIGNED, WINDOW, Picture, as_pixels, new_figure, number, outline, symmetric_limit

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_images(images: Tensor, titles: Sequence[str] = (), *, columns: int = 8, title: str = "") -> Picture:
    """Images (N, 3, H, W), uint8 or float from 0 to 1, in a grid, each with its own title if there are `titles`.

    `columns` are the images in a row, `title` is for the whole grid. Raises ValueError for images of another shape, for
    none, and where titles are too few or too many.
    """
    if images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise ValueError(f"the images have shape {tuple(images.shape)}; give at least one, as (N, 3, H, W).")
    height, width = images.shape[2:]
    axes, alt = _grid(f"images of {height}×{width} pixels", len(images), titles, columns, title)
    for image, ax in zip(images, axes[0], strict=False):
        ax.imshow(as_pixels(image), vmin=0)
    return Picture(axes[0, 0].figure, f"{alt}.")


def plot_maps(
    maps: Tensor,
    titles: Sequence[str] = (),
    *,
    images: Tensor | None = None,
    one_scale: bool = True,
    columns: int = 8,
    title: str = "",
) -> Picture:
    """Signed maps or kernels (N, H, W) in a grid, on scales that are symmetrical about zero.

    Each is drawn below its image if there are `images`, as `plot_images` takes them. All have one scale, so that their
    sizes compare, or each its own. Raises ValueError for maps of another shape, for none, and where titles or images
    are too few or too many.
    """
    if maps.ndim != 3 or not len(maps):
        raise ValueError(f"the maps have shape {tuple(maps.shape)}; give at least one, as (N, H, W).")
    if images is not None and len(images) != len(maps):
        raise ValueError(f"there are {len(maps)} maps and {len(images)} images; give one each, or no images.")
    maps, (height, width) = maps.detach().cpu(), maps.shape[1:]
    what, layers = f"maps of {height}×{width} positions", 1 if images is None else 2
    what += ", each below its image" * (layers - 1) + ", each on its own scale" * (not one_scale)
    axes, alt = _grid(what, len(maps), titles, columns, title, layers)
    for ax, image in zip(axes[0], images if layers == 2 else (), strict=False):
        ax.imshow(as_pixels(image), vmin=0)
    for ax, values in zip(axes[-1], maps, strict=False):
        limit = symmetric_limit(maps if one_scale else values)
        drawn = ax.imshow(values.numpy(), cmap=SIGNED, vmin=-limit, vmax=limit)
    figure = axes[0, 0].figure
    if one_scale:
        figure.colorbar(drawn, ax=axes.flatten().tolist(), shrink=0.8, fraction=0.05)
    return Picture(figure, f"{alt}, with values from {number(maps.min(), 3)} to {number(maps.max(), 3)}.")


def _grid(
    what: str, count: int, titles: Sequence[str], columns: int, title: str, layers: int = 1
) -> tuple[np.ndarray, str]:
    """Axes without frames for so many images, (layers, at least count), a layer below the last; and a description."""
    kind, *more = what.split(" ", 1)
    if titles and len(titles) != count:
        raise ValueError(f"there are {count} {kind} and {len(titles)} titles; give one each, or none.")
    columns = min(columns, count)
    bands = -(-count // columns)
    figure = new_figure(1.05 * columns, bands * (1.05 * layers + 0.2 * bool(titles)) + 0.3 * bool(title))
    axes = figure.subplots(bands * layers, columns, squeeze=False)
    axes = axes.reshape(bands, layers, columns).swapaxes(0, 1).reshape(layers, -1)
    for ax in axes.flat:
        ax.axis("off")
    for ax, text in zip(axes[0], titles, strict=False):
        ax.set_title(text, fontsize=10)
    figure.suptitle(title, fontsize=11)
    alt = " ".join([str(count), kind if count > 1 else kind.removesuffix("s"), *more])
    titled = ", titled " + ", ".join(" ".join(text.split()) for text in titles) if titles else ""
    return axes, f"{title + ': ' if title else ''}{alt}{titled}"


def plot_confusion(labels: Tensor, predictions: Tensor, classes: Sequence[str]) -> Picture:
    """How often images of each class were predicted as each other class: scikit-learn's confusion matrix, drawn.

    `labels` and `predictions` are (N,) integers that index the names of the classes; each class has a row (the true
    one) and a column (the prediction). Raises ValueError where labels and predictions differ in number.
    """
    from sklearn.metrics import ConfusionMatrixDisplay

    if labels.shape != predictions.shape or not len(labels):
        raise ValueError(
            f"there are {labels.numel()} labels and {predictions.numel()} predictions; give one of each per image."
        )
    ax = new_figure(5.6, 5.0).subplots()
    counts = ConfusionMatrixDisplay.from_predictions(
        labels.cpu(), predictions.cpu(), labels=range(len(classes)), display_labels=classes, ax=ax, cmap=COUNTS,
        include_values=len(classes) <= 20, xticks_rotation=90 * (max(map(len, classes)) > 3), text_kw={"fontsize": 9},
    ).confusion_matrix  # fmt: skip
    ax.set(title="What was taken for what", xlabel="predicted class", ylabel="true class")
    right, total = int(np.trace(counts)), int(counts.sum())
    alt = f"{right} of {total} images ({right / total:.1%}) are on the diagonal, which counts right predictions"
    wrong = counts - np.diag(np.diag(counts))
    if not wrong.any():
        return Picture(ax.figure, f"{alt}; nothing is confused.")
    true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
    times = {1: "once", 2: "twice"}.get(int(wrong.max()), f"{wrong.max()} times")
    alt += f"; the most frequent confusion takes {classes[true]} for {classes[predicted]}, {times}."
    return Picture(ax.figure, alt)


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
    pixels, u, kernel, window, terms, a, v, fused = axes = figure.subplots(2, 4).flatten()
    for ax, sign in zip(axes, "→×= →⊙=", strict=False):
        ax.set_anchor("N")
        ax.text(1.12, 0.5, sign, ha="center", va="center", fontsize=16, transform=ax.transAxes)
    k, (row, column), total = len(m.kernel), m.position, number(m.window.sum(), 3)
    half = k // 2
    pixels.imshow(as_pixels(image), vmin=0)
    for box in (m.box(half), m.box(0)):
        outline(pixels, *box, colour=WINDOW)
    pixels.set(title=f"image\nand the {k}×{k} window", xlabel="pixel column", ylabel="pixel row")
    steps = {"extent": (-half - 0.5, half + 0.5, half + 0.5, -half - 0.5)}  # from the centre
    for ax, title, values in (
        (kernel, "kernel W\n(in every window)", m.kernel),
        (window, f"window map W · U\nsums to {total}", m.window),
    ):
        _draw_signed(ax, values, symmetric_limit(values), **steps)
        outline(ax, 0, 0, 1, 1, colour="black")
        ax.set(title=title, xlabel="δ column", ylabel="δ row", xticks=(-half, 0, half), yticks=(-half, 0, half))
        ax.spines[:].set(color=WINDOW, linewidth=2)
    _draw_sum(terms, m)
    maps = (u, "U", m.u), (a, "modulation map A", m.a), (v, "value V", m.v), (fused, "A ⊙ V", m.fused)
    largest = max(symmetric_limit(values) for *_, values in maps)
    outline(u, row - half, column - half, k, k, colour=WINDOW)
    for ax, name, values in maps:
        _draw_signed(ax, values, largest if one_scale else symmetric_limit(values))
        outline(ax, row, column, 1, 1, colour="black")
        ax.set(title=f"{name}\n{number(values[m.position], 3)} at □", xlabel="column", ylabel="row")
    where = f"stage {m.stage}, block {m.block}, channel {m.channel}"
    figure.suptitle(f"{where.capitalize()}, at row {row}, column {column} (□)", fontsize=12)
    bias, value, v_here, fused_here = (number(x, 3) for x in (m.bias, m.value, m.v[row, column], m.fused[row, column]))
    return Picture(
        figure,
        f"In {where}, the {k * k} terms of the {k}×{k} window map at row {row}, column {column} sum to {total}, "
        f"which with the bias {bias} makes the modulation A = {value}; it weighs the value V = {v_here} to "
        f"{fused_here}, and over the whole map A runs from {number(m.a.min(), 3)} to {number(m.a.max(), 3)}.",
    )


def _draw_signed(ax: "Axes", values: Tensor, limit: float, **style: object) -> None:
    drawn = ax.imshow(values.numpy(), cmap=SIGNED, vmin=-limit, vmax=limit, **style)
    bar = ax.figure.colorbar(drawn, ax=ax, location="bottom", fraction=0.06)
    bar.set_ticks([-limit, 0, limit], labels=[number(-limit), "0", number(limit)])


def _draw_sum(ax: "Axes", m: Modulation) -> None:
    """How the window's terms and the bias add up to A at the position: a bar for each part of the sum."""
    positive, negative = m.window.clamp(min=0).sum().item(), m.window.clamp(max=0).sum().item()
    parts = {"terms above 0": positive, "terms below 0": negative, "bias b": m.bias, "A at □": m.value}
    starts, colours = [0, positive, positive + negative, 0], ["#E08214", "#8073AC", "dimgray", "black"]
    ax.barh(range(4), parts.values(), left=starts, color=colours, height=0.4)
    ax.axvline(0, color="black", linewidth=0.8)
    for i, (name, value) in enumerate(parts.items()):
        text = ax.text(0.02, i - 0.32, f"{name}: {number(value, 3)}", fontsize=9, transform=ax.get_yaxis_transform())
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})
    ax.set(title=f"the {m.window.numel()} terms\nadd up to A", xlabel="running sum", ylim=(3.4, -0.75), yticks=[])
    ax.margins(x=0.05)
    ax.spines[["top", "right", "left"]].set_visible(False)
