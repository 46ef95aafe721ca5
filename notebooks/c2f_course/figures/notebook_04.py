"""Every augmentation of the kit's recipes by name: what its strength means, what was drawn, and how it looks.

The operations themselves are in `c2f.training.augment` and keep their random numbers to themselves. Here each one is
run with a seed of its own, and a second run with the same seed tells which numbers it drew, so that a picture can say
"11° to the left" under an image. The notebook's other figures on augmentation are here as well.

Shapes: N images, C channels, H x W pixels, K classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from c2f.picture import SOFT, TEST, TRAIN, WINDOW, Picture, new_figure, number
from c2f.training import augment as ops
from c2f.training.recipes import Recipe
from c2f_course.figures.drawing import finish, show_image, subplots, told


@dataclass(frozen=True)
class Augmentation:
    """One augmentation with its knob, from 0 (off) to `most`."""

    meaning: str
    """What the strength is, to follow the number: 20 "degrees at most, either way"."""
    usual: float
    most: float
    step: float
    change: Callable[..., Tensor | tuple[Tensor, Tensor]]
    """From images (N, 3, H, W) in [0, 1] and a strength to images; with `mixes` from images, labels (N, K), strength to
    images and labels."""
    tell: Callable[[Tensor, float], list[str]]
    """One or two lines on each image's own random numbers; draws the same ones in the same order as `change`."""
    label: str
    """What becomes of the label."""
    mixes: bool = False


class Drawn(NamedTuple):
    """What an augmentation made of a batch: images (N, 3, H, W) in [0, 1], labels (N, K), and a text for each."""

    images: Tensor
    targets: Tensor
    told: list[str]


def draw_augmented(name: str, images: Tensor, targets: Tensor, strength: float, seed: int = 0) -> Drawn:
    """Run one of `AUGMENTATIONS` on a batch, with random numbers that depend on `seed` alone.

    images: (N, 3, H, W), uint8 or float from 0 to 1. targets: soft labels (N, K). strength: 0 (off) to the
    augmentation's `most`. Raises ValueError for a name or a strength that is not there.
    """
    if name not in AUGMENTATIONS:
        raise ValueError(f"there is no augmentation {name!r}; use one of {', '.join(AUGMENTATIONS)}.")
    chosen = AUGMENTATIONS[name]
    if not 0 <= strength <= chosen.most:
        raise ValueError(f"the strength of {name} is {strength}; use 0 (off) to {chosen.most:g}.")
    images = images / 255 if images.dtype == torch.uint8 else images
    if strength == 0:
        return Drawn(images, targets, ["as it is"] * len(images))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        texts = chosen.tell(images, strength)
        torch.manual_seed(seed)
        if chosen.mixes:
            images, targets = chosen.change(images, targets, strength)
        else:
            images = chosen.change(images, strength)
    return Drawn(images.clamp(0, 1), targets, texts)


def steps_of(recipe: Recipe) -> list[tuple[str, Callable[[Tensor], Tensor]]]:
    """What a recipe does to images before it mixes them, in `Augment`'s order: names and functions of a batch."""
    steps = (
        ("colour jitter", ops.color_jitter, recipe.color_jitter),
        ("image-level mixup", ops.image_mixup, recipe.image_mixup),
        ("resized crop", ops.random_resized_crop, recipe.crop == "resized" and recipe.crop_scale),
        ("shift", ops.random_shift, recipe.crop == "shift" and recipe.crop_padding),
        ("RandAugment", ops.rand_augment, recipe.rand_augment),
        ("erasing", ops.random_erasing, recipe.erasing),
        ("flip", ops.random_flip, recipe.flip),
        ("rotation", ops.random_rotation, recipe.rotation),
    )
    return [(name, lambda images, f=f, s=strength: f(images, s)) for name, f, strength in steps if strength]


def milder(recipe: Recipe, share: float) -> Recipe:
    """The recipe with every augmentation's strength times `share` (0 is off), as far as each can go."""
    most = {"color_jitter": 1, "image_mixup": 1, "erasing": 1, "flip": 1, "rotation": inf, "mixup": inf, "cutmix": inf}
    return replace(
        recipe,
        crop_scale=max(0.05, 1 - (1 - recipe.crop_scale) * share),
        crop_padding=round(recipe.crop_padding * share),
        rand_augment=min(10, round(recipe.rand_augment * share)),
        **{name: min(float(top), getattr(recipe, name) * share) for name, top in most.items()},
    )


# What each one drew: the same calls as in c2f.training.augment, in the same order. Tests hold the two together.


def _tell_crop(images: Tensor, lost: float) -> list[str]:
    height, width = images.shape[-2:]
    boxes = ops.random_boxes(images, area=(1 - lost, 1.0), ratio=(3 / 4, 4 / 3))
    kept = ((h or height, w or width) for h, w in zip(boxes.height.tolist(), boxes.width.tolist(), strict=True))
    return [f"keeps {h:.0f}×{w:.0f} pixels\n({h * w / (height * width):.0%} of the area)" for h, w in kept]


def _tell_each(form: Callable[..., str], draw: Callable[[Tensor, float], Tensor]) -> Callable[..., list[str]]:
    """From images and a strength to what `form` says of the numbers (N, ...) that `draw` drew for each image."""
    return lambda images, strength: [form(drawn) for drawn in draw(images, strength).tolist()]


def _own(share: float) -> str:
    return f"{share:.0%} its own"


def _erased_share(images: Tensor, probability: float) -> Tensor:
    boxes = ops.random_boxes(images, area=(0.02, 0.33), ratio=(0.3, 1 / 0.3))
    return boxes.height * boxes.width / images[0, 0].numel() * ops.chance(images, probability)


def _blended_share(images: Tensor, probability: float) -> Tensor:
    chosen, kept = ops.chance(images, probability), ops.beta(images, alpha=1.5)
    return torch.where(chosen, kept, 1.0)


def _tell_shift(images: Tensor, padding: float) -> list[str]:
    told = []
    for down, right in torch.randint(-round(padding), round(padding) + 1, (2, len(images))).T.tolist():
        moves = ((down, "down" if down > 0 else "up"), (right, "right" if right > 0 else "left"))
        told.append(", ".join(f"{abs(pixels)} {way}" for pixels, way in moves if pixels) or "not moved")
    return told


def _tell_rand_augment(images: Tensor, magnitude: float) -> list[str]:
    names, signless = list(ops.RAND_AUGMENT), ("identity", "posterize", "solarize", "autocontrast", "equalize")
    told = [[] for _ in images]
    for _ in range(2):
        drawn, up = torch.randint(len(names), (len(images),)).tolist(), ops.chance(images, 0.5).tolist()
        for text, name, plus in zip(told, (names[i] for i in drawn), up, strict=True):
            text.append(name.replace("_", " ") + ("" if name in signless else " +" if plus else " −"))
    return [",\n".join(text) for text in told]


AUGMENTATIONS: dict[str, Augmentation] = {
    "colour jitter": Augmentation(
        "at most, up or down, for each of brightness, contrast and colour", 0.2, 0.9, 0.1, ops.color_jitter,
        _tell_each(lambda drawn: "brightness × {:.2f}\ncontrast {:.2f}, colour {:.2f}".format(*drawn),
                   lambda images, amount: ops.uniform(images, max(0.0, 1 - amount), 1 + amount, sets=3).T),
        "The label stays, unless the classes differ by colour: a ripe tomato and a green one.",
    ),
    "resized crop": Augmentation(
        "of the area may be lost", 0.4, 0.9, 0.1, lambda images, lost: ops.random_resized_crop(images, 1 - lost),
        _tell_crop, "The label stays as long as the object is in what is left.",
    ),
    "shift": Augmentation(
        "pixels at most, along each axis", 4, 12, 1, lambda images, pixels: ops.random_shift(images, round(pixels)),
        _tell_shift, "The label stays.",
    ),
    "RandAugment": Augmentation(
        "is the magnitude, of 10, of two operations", 9, 10, 1, ops.rand_augment, _tell_rand_augment,
        "The label stays for photographs; one operation of the fourteen turns, by up to 30 degrees.",
    ),
    "erasing": Augmentation(
        "of the images lose a rectangle", 0.5, 1.0, 0.1, ops.random_erasing,
        _tell_each(lambda share: f"{share:.0%} erased" if share else "as it is", _erased_share),
        "The label stays as long as the rectangle does not hide what it is about.",
    ),
    "flip": Augmentation(
        "of the images are mirrored", 0.5, 1.0, 0.1, ops.random_flip,
        _tell_each(lambda chosen: "mirrored" if chosen else "as it is", ops.chance),
        "The label stays for animals and things; a mirrored digit or letter is another one, or none.",
    ),
    "rotation": Augmentation(
        "degrees at most, either way", 20, 180, 10, ops.random_rotation,
        _tell_each(lambda d: f"{abs(d):.0f}° to the {'left' if d > 0 else 'right'}" if round(d) else "0°",
                   lambda images, degrees: ops.uniform(images, -degrees, degrees)),
        "The label stays for small angles; at 180 degrees a 6 is a 9.",
    ),
    "MixUp": Augmentation(
        "is alpha of the Beta distribution that the share comes from", 0.8, 2.0, 0.1, ops.mixup,
        _tell_each(_own, lambda images, alpha: ops.mixup_weights(images, alpha).flatten(1).mean(1)),
        "The label is mixed in the image's proportion.", mixes=True,
    ),
    "CutMix": Augmentation(
        "is alpha of the Beta distribution that the area comes from", 1.0, 2.0, 0.1, ops.cutmix,
        _tell_each(_own, lambda images, alpha: ops.cutmix_weights(images, alpha).flatten(1).mean(1)),
        "The label is mixed in proportion to the area.", mixes=True,
    ),
    "image-level mixup": Augmentation(
        "of the images are blended with another", 1.0, 1.0, 0.1, ops.image_mixup,
        _tell_each(_own, _blended_share),
        "The label stays, although half of the image may be something else. The seed recipe lists this and, as it "
        "calls it, nothing is blended.",
    ),
}  # fmt: skip


def plot_image_table(
    rows: Mapping[str, Tensor], columns: Sequence[str] = (), captions: Sequence[Sequence[str]] = (), *,
    title: str = "", side: float = 1.0,
) -> Picture:  # fmt: skip
    """Images in a table: a name before every row, a name over every column, a caption under every image.

    rows: (M, 3, H, W) images for each row's name, uint8 or float from 0 to 1. side: inches of one image.
    """
    count, words = len(next(iter(rows.values()))), [text for row in captions for text in row]
    lines = max((text.count("\n") + 1 for text in words), default=0)
    width = count * (side + 0.08) + 0.085 * max(map(len, rows)) + 0.1
    height = len(rows) * (side + 0.17 * lines + 0.05) + 0.25 * bool(columns) + 0.35 * bool(title)
    figure, axes = subplots(width, height, len(rows), count, title, squeeze=False)
    for r, (name, images) in enumerate(rows.items()):
        for c, (ax, image) in enumerate(zip(axes[r], images, strict=True)):
            show_image(ax, image, columns[c] if columns and r == 0 else "", 9)
            ax.set_xlabel(captions[r][c] if captions else "", fontsize=8, labelpad=2)
        axes[r, 0].set_ylabel(name, fontsize=10, rotation=0, ha="right", va="center")
    named = {"rows": [name for name in rows if name.strip()], "columns": columns, "captions": words}
    said = told((what, ", ".join(" ".join(text.split()) for text in texts)) for what, texts in named.items() if texts)
    size = f"{title + ': ' * bool(title)}{len(rows)} row{'s' * (len(rows) > 1)} of {count} images"
    return Picture(figure, f"{size}{'; ' * bool(said)}{said}.")


def plot_histograms(before: Tensor, after: Tensor) -> Picture:
    """How often each value occurs before (uint8) and after normalisation of images (N, 3, H, W), colour by colour."""
    figure, axes = subplots(8.5, 2.8, 1, 2)
    styles = {"red": (TEST, "-"), "green": (WINDOW, "--"), "blue": (TRAIN, ":")}
    before = before.float()
    for ax, values, name in zip(axes, (before, after), ("as stored: 0 to 255", "normalised"), strict=True):
        for one, (colour, (ink, stroke)) in zip(values.transpose(0, 1).cpu(), styles.items(), strict=True):
            # From its own least to its own greatest: the same bins in both.
            counts, edges = torch.histogram(one, 30, range=(one.min().item(), one.max().item()), density=True)
            ax.stairs(counts.numpy(), edges.numpy(), color=ink, linestyle=stroke, linewidth=1.8, label=colour)
        ax.axvline(0, color="black", linewidth=0.8)
        legend = "best" if ax is axes[0] else ""
        finish(ax, name, "value of a pixel", "how often", legend, grid="", yticks=[])
    return Picture(
        figure,
        f"Pixel values as stored run from {before.min():.0f} to {before.max():.0f} with mean {before.mean():.0f}; "
        f"normalised from {number(after.min())} to {number(after.max())}, with mean {number(after.mean())} and "
        f"standard deviation {number(after.std())}.",
    )


def plot_mixed(mixed: Tensor, targets: Tensor, names: Sequence[str], own: Sequence[int], *, title: str) -> Picture:
    """Each mixed image (M, 3, H, W), and below it its soft label (M, K) as bars; `own` is the class it began as."""
    style = {"squeeze": False, "height_ratios": [1.15, 1]}
    figure, axes = subplots(2.15 * len(mixed), 4.0, 2, len(mixed), title, **style)
    classes, said = range(len(names)), []
    for (above, below), image, target, first in zip(axes.T, mixed, targets.tolist(), own, strict=True):
        show_image(above, image, f"began as: {names[first]}")
        below.barh(classes, target, color=[TRAIN if k == first else TEST for k in classes], height=0.6)
        shares = [(share, k) for k, share in enumerate(target) if share >= 0.005]
        for share, k in shares:
            inside = {"x": share - 0.03, "ha": "right", "color": "white"}
            beside = {"x": share + 0.03, "ha": "left", "color": "black"}
            below.text(y=k, s=f"{share:.0%}", va="center", fontsize=9, **(inside if share > 0.7 else beside))
        finish(below, "", "share of the label", grid="", xlim=(0, 1), ylim=(len(names) - 0.5, -0.5))
        below.set_yticks(classes, names if below is axes[1, 0] else [""] * len(names), fontsize=9)
        parts = sorted(((share, names[k]) for share, k in shares), reverse=True)
        said.append(" + ".join(f"{share:.0%} {name}" for share, name in parts))
    return Picture(figure, f"{title}: {len(mixed)} mixed images with the labels {'; '.join(said)}.")


def plot_costs(seconds: Mapping[str, Sequence[float]], images: int, *, title: str) -> Picture:
    """Microseconds an image of each measured thing: the median as a dot, all measurements as a line; log scale.

    seconds: for each name the times of one batch of so many images; "training step…" is drawn in another colour.
    """
    figure, ax = subplots(8.5, 0.9 + 0.29 * len(seconds))
    micro = {name: [1e6 * t / images for t in times] for name, times in seconds.items()}
    said = {}
    for row, name in enumerate(sorted(micro, key=lambda name: median(micro[name]))):
        colour, mark = (TEST, "s") if name.startswith("training step") else (TRAIN, "o")
        low, middle, high = min(micro[name]), median(micro[name]), max(micro[name])
        said[name] = f"{middle:,.0f}" if middle >= 100 else f"{middle:.3g}"
        ax.semilogx([low, high], [row, row], color=colour, alpha=0.5, linewidth=3)
        ax.plot(middle, row, mark, color=colour, markersize=7)
        ax.text(1.25 * high, row, said[name], va="center", fontsize=9)
    ax.set_yticks(range(len(said)), said)
    limits = {"xlim": (min(map(min, micro.values())) / 1.5, 4 * max(map(max, micro.values())))}
    label = "microseconds per image (from one grid line to the next: ten times as long)"
    finish(ax, title, label, grid="x", ylim=(-0.7, len(said) - 0.3), **limits)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    ax.xaxis.set_tick_params(which="minor", bottom=False)
    return Picture(figure, f"{title}, in microseconds per image, medians: {', '.join(map(' '.join, said.items()))}.")


def plot_turning(images: Tensor, angles: Sequence[float], shares: Mapping[str, Sequence[float]], over: str) -> Picture:
    """What a network reads while an image turns: each class's probability at all `angles` (degrees), a mean `over` …

    images: (M, 3, H, W), the image at M angles from the first to the last of `angles`, evenly spaced.
    """
    figure = new_figure(8.5, 4.0)
    above, below = figure.subfigures(2, 1, height_ratios=[1, 3])
    shown = torch.linspace(0, len(angles) - 1, len(images)).round().int().tolist()
    for ax, image, at in zip(above.subplots(1, len(images)), images, shown, strict=True):
        show_image(ax, image, f"{angles[at]:.0f}°", 9)
    ax, styles = below.subplots(), ((TRAIN, "-"), (TEST, "--"), (SOFT, ":"))
    for (name, values), (colour, stroke) in zip(shares.items(), styles, strict=False):
        ax.plot(angles, values, stroke, color=colour, linewidth=2, label=name)
    ax.set(ylim=(-0.02, 1.02), xlim=(angles[0], angles[-1]))
    title = f"What the network reads while the image turns, {over}"
    finish(ax, title, "turned by, in degrees", "probability", "best", size=11)
    listed = told((name, f"{v[0]:.0%} at first and {v[-1]:.0%} at last") for name, v in shares.items())
    turned = f"An image turned from {angles[0]:.0f} to {angles[-1]:.0f} degrees"
    return Picture(figure, f"{turned} is read ({over}) as {listed}.")


RIDDLE = {
    "flip": (1.0, 0), "rotation": (40, 5), "shift": (10, 6),
    "erasing": (1.0, 2), "MixUp": (2.0, 14), "CutMix": (2.0, 45),
}  # fmt: skip
"""What the letters stand for: augmentations, each with its strength and its seed."""
LETTERS = "ABCDEF"


def riddle_images(images: Tensor) -> dict[str, Tensor]:
    """Two images (2, 3, H, W) a letter; each letter stands for one of `RIDDLE`, which one is drawn from a seed."""
    names, order = list(RIDDLE), torch.randperm(len(RIDDLE), generator=torch.Generator().manual_seed(4)).tolist()
    return {letter: riddle_row(names[i], images) for letter, i in zip(LETTERS, order, strict=True)}


def riddle_row(name: str, images: Tensor) -> Tensor:
    """The first two images (2, 3, H, W) in [0, 1] under one augmentation, strong enough to be told."""
    return draw_augmented(name, images, torch.eye(len(images)), *RIDDLE[name]).images[:2]


def plot_riddle(images: Tensor, names: Sequence[str]) -> Picture:
    """The riddle as a table: a column for each letter, a row for each of the first two of `images` (N, 3, H, W)."""
    shown = torch.stack(list(riddle_images(images).values()), dim=1)  # (2, letters, 3, H, W)
    rows = dict(zip(names[:2], shown, strict=True))
    return plot_image_table(rows, list(LETTERS), title="Which augmentation is which?", side=1.4)
