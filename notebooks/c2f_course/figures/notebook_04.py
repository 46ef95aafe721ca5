"""Every augmentation of the kit's recipes by name: what its strength means, what was drawn, and how it looks.

The operations themselves are in `c2f.training.augment` and keep their random numbers to themselves. Here each one is
run with a seed of its own, and a second run with the same seed tells which numbers it drew, so that a picture can say
"11° to the left" under an image. The notebook's other figures on augmentation are here as well.

Shapes: N images, C channels, H x W pixels, K classes.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from c2f.maps.picture import SOFT, TEST, TRAIN, Picture, new_figure, number
from c2f.training import augment as ops
from c2f.training.recipes import Recipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Change = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]
"""From images (N, 3, H, W) in [0, 1], soft labels (N, K) and a strength to changed images and labels."""


@dataclass(frozen=True)
class Augmentation:
    """One augmentation with its knob."""

    meaning: str
    """What the strength is, to follow the number: 20 "degrees at most, either way"."""
    usual: float
    most: float
    step: float
    change: Change
    tell: Callable[[Tensor, float], list[str]]
    """One or two lines on each image's own random numbers; draws the same ones in the same order as `change`."""
    label: str
    """What becomes of the label."""


class Drawn(NamedTuple):
    """What an augmentation made of a batch: images (N, 3, H, W) in [0, 1], labels (N, K), and a text for each."""

    images: Tensor
    targets: Tensor
    told: list[str]


def draw_augmented(name: str, images: Tensor, targets: Tensor, strength: float, seed: int = 0) -> Drawn:
    """Run one of `AUGMENTATIONS` on a batch, with random numbers that depend on `seed` alone.

    Args:
        images: (N, 3, H, W), uint8 or float from 0 to 1.
        targets: soft labels (N, K).
        strength: 0 (off) to the augmentation's `most`.

    Raises ValueError for a name or a strength that is not there.
    """
    if name not in AUGMENTATIONS:
        raise ValueError(f"there is no augmentation {name!r}; use one of {', '.join(AUGMENTATIONS)}.")
    chosen = AUGMENTATIONS[name]
    if not 0 <= strength <= chosen.most:
        raise ValueError(f"the strength of {name} is {strength}; use 0 (off) to {chosen.most:g}.")
    images = images / 255 if images.dtype == torch.uint8 else images
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        told = chosen.tell(images, strength) if strength else ["as it is"] * len(images)
        torch.manual_seed(seed)
        changed, targets = chosen.change(images, targets, strength) if strength else (images, targets)
    return Drawn(changed.clamp(0, 1), targets, told)


def steps_of(recipe: Recipe) -> list[tuple[str, Callable[[Tensor], Tensor]]]:
    """What a recipe does to images before it mixes them, in `Augment`'s order: names and functions of a batch."""
    resized, shifted = recipe.crop == "resized", recipe.crop == "shift"
    steps = [
        (recipe.color_jitter, "colour jitter", partial(ops.color_jitter, amount=recipe.color_jitter)),
        (recipe.image_mixup, "image-level mixup", partial(ops.image_mixup, probability=recipe.image_mixup)),
        (resized, "resized crop", partial(ops.random_resized_crop, smallest=recipe.crop_scale)),
        (shifted, "shift", partial(ops.random_shift, padding=recipe.crop_padding)),
        (recipe.rand_augment, "RandAugment", partial(ops.rand_augment, magnitude=recipe.rand_augment)),
        (recipe.erasing, "erasing", partial(ops.random_erasing, probability=recipe.erasing)),
        (recipe.flip, "flip", partial(ops.random_flip, probability=recipe.flip)),
        (recipe.rotation, "rotation", partial(ops.random_rotation, degrees=recipe.rotation)),
    ]
    return [(name, change) for is_on, name, change in steps if is_on]


# What each one drew: the same calls as in c2f.training.augment, in the same order. Tests hold the two together.


def _tell_jitter(images: Tensor, amount: float) -> list[str]:
    light, contrast, colour = ops.uniform(images, max(0.0, 1 - amount), 1 + amount, sets=3).tolist()
    drawn = zip(light, contrast, colour, strict=True)
    return [f"brightness × {b:.2f}\ncontrast {c:.2f}, colour {s:.2f}" for b, c, s in drawn]


def _tell_crop(images: Tensor, lost: float) -> list[str]:
    height, width = images.shape[-2:]
    boxes = ops.random_boxes(images, area=(1 - lost, 1.0), ratio=(3 / 4, 4 / 3))
    kept = ((h or height, w or width) for h, w in zip(boxes.height.tolist(), boxes.width.tolist(), strict=True))
    return [f"keeps {h:.0f}×{w:.0f} pixels\n({h * w / (height * width):.0%} of the area)" for h, w in kept]


def _tell_shift(images: Tensor, padding: float) -> list[str]:
    p = round(padding)
    down, right = torch.randint(-p, p + 1, (2, len(images))).tolist()
    told = (_moves(d, "down", "up") + _moves(r, "right", "left") for d, r in zip(down, right, strict=True))
    return [", ".join(moves) or "not moved" for moves in told]


def _moves(pixels: int, forward: str, back: str) -> list[str]:
    return [f"{abs(pixels)} {forward if pixels > 0 else back}"] if pixels else []


def _tell_erasing(images: Tensor, probability: float) -> list[str]:
    boxes = ops.random_boxes(images, area=(0.02, 0.33), ratio=(0.3, 1 / 0.3))
    shares = (boxes.height * boxes.width / (images.shape[-1] * images.shape[-2])).tolist()
    chosen = ops.chance(images, probability).tolist()
    return [f"{s:.0%} erased" if c else "as it is" for s, c in zip(shares, chosen, strict=True)]


def _tell_flip(images: Tensor, probability: float) -> list[str]:
    return ["mirrored" if chosen else "as it is" for chosen in ops.chance(images, probability).tolist()]


def _tell_rotation(images: Tensor, degrees: float) -> list[str]:
    drawn = ops.uniform(images, -degrees, degrees).tolist()
    return [f"{abs(d):.0f}° to the {'left' if d > 0 else 'right'}" if round(d) else "0°" for d in drawn]


def _tell_rand_augment(images: Tensor, magnitude: float) -> list[str]:
    names, lines = list(ops.RAND_AUGMENT), []
    for _ in range(2):
        drawn = torch.randint(len(names), (len(images),)).tolist()
        up = ops.chance(images, 0.5).tolist()
        lines.append([_with_sign(names[number], plus) for number, plus in zip(drawn, up, strict=True)])
    return [f"{first},\n{second}" for first, second in zip(*lines, strict=True)]


SIGNLESS = ("identity", "posterize", "solarize", "autocontrast", "equalize")


def _with_sign(name: str, plus: bool) -> str:
    return name.replace("_", " ") + ("" if name in SIGNLESS else " +" if plus else " −")


def _tell_mixup(images: Tensor, alpha: float) -> list[str]:
    return [f"{share:.0%} its own" for share in ops.mixup_weights(images, alpha)[:, 0, 0, 0].tolist()]


def _tell_cutmix(images: Tensor, alpha: float) -> list[str]:
    return [f"{share:.0%} its own" for share in ops.cutmix_weights(images, alpha).mean((1, 2, 3)).tolist()]


def _tell_image_mixup(images: Tensor, probability: float) -> list[str]:
    chosen, kept = ops.chance(images, probability), ops.beta(images, alpha=1.5)
    return [f"{share:.0%} its own" for share in torch.where(chosen, kept, 1.0).tolist()]


def _images_only(change: Callable[[Tensor, float], Tensor]) -> Change:
    return lambda images, targets, strength: (change(images, strength), targets)


AUGMENTATIONS: dict[str, Augmentation] = {
    "colour jitter": Augmentation(
        "at most, up or down, for each of brightness, contrast and colour", 0.2, 0.9, 0.1,
        _images_only(ops.color_jitter), _tell_jitter,
        "The label stays, unless colour is what tells the classes apart: a ripe tomato from a green one.",
    ),
    "resized crop": Augmentation(
        "of the area may be lost", 0.4, 0.9, 0.1,
        _images_only(lambda images, lost: ops.random_resized_crop(images, 1 - lost)), _tell_crop,
        "The label stays as long as the object is in what is left.",
    ),
    "shift": Augmentation(
        "pixels at most, along each axis", 4, 12, 1,
        _images_only(lambda images, pixels: ops.random_shift(images, round(pixels))), _tell_shift,
        "The label stays.",
    ),
    "RandAugment": Augmentation(
        "is the magnitude, of 10, of two operations", 9, 10, 1, _images_only(ops.rand_augment), _tell_rand_augment,
        "The label stays for photographs; one operation of the fourteen turns, by up to 30 degrees.",
    ),
    "erasing": Augmentation(
        "of the images lose a rectangle", 0.5, 1.0, 0.1, _images_only(ops.random_erasing), _tell_erasing,
        "The label stays as long as the rectangle does not hide what it is about.",
    ),
    "flip": Augmentation(
        "of the images are mirrored", 0.5, 1.0, 0.1, _images_only(ops.random_flip), _tell_flip,
        "The label stays for animals and things; a mirrored digit or letter is another one, or none.",
    ),
    "rotation": Augmentation(
        "degrees at most, either way", 20, 180, 10, _images_only(ops.random_rotation), _tell_rotation,
        "The label stays for small angles; at 180 degrees a 6 is a 9.",
    ),
    "MixUp": Augmentation(
        "is alpha of the Beta distribution that the share comes from", 0.8, 2.0, 0.1, ops.mixup, _tell_mixup,
        "The label is mixed in the image's proportion.",
    ),
    "CutMix": Augmentation(
        "is alpha of the Beta distribution that the area comes from", 1.0, 2.0, 0.1, ops.cutmix, _tell_cutmix,
        "The label is mixed in proportion to the area.",
    ),
    "image-level mixup": Augmentation(
        "of the images are blended with another", 1.0, 1.0, 0.1, _images_only(ops.image_mixup), _tell_image_mixup,
        "The label stays, although half of the image may be something else. The seed recipe lists this and, as it "
        "calls it, nothing is blended.",
    ),
}  # fmt: skip


def milder(recipe: Recipe, share: float) -> Recipe:
    """The recipe with every augmentation's strength times `share` (0 is off), as far as each can go."""
    return replace(
        recipe,
        color_jitter=min(1.0, recipe.color_jitter * share),
        image_mixup=min(1.0, recipe.image_mixup * share),
        crop_scale=max(0.05, 1 - (1 - recipe.crop_scale) * share),
        crop_padding=round(recipe.crop_padding * share),
        erasing=min(1.0, recipe.erasing * share),
        flip=min(1.0, recipe.flip * share),
        rotation=recipe.rotation * share,
        rand_augment=min(10, round(recipe.rand_augment * share)),
        mixup=recipe.mixup * share,
        cutmix=recipe.cutmix * share,
    )


# ---- Figures


def plot_image_table(
    rows: Mapping[str, Tensor],
    columns: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    *,
    title: str = "",
    side: float = 1.0,
) -> Picture:
    """Images in a table: a name before every row, a name over every column, a caption under every image.

    Args:
        rows: (M, 3, H, W) images for each row's name, uint8 or float from 0 to 1; the same M in each.
        columns: M names, or none.
        captions: M texts for each row, or none at all.
        side: inches of one image.

    Raises ValueError for rows that differ in length and for names that do not fit them.
    """
    lengths = {len(images) for images in rows.values()}
    if len(lengths) != 1:
        raise ValueError(f"the rows hold {sorted(lengths)} images; give at least one row, and as many in each.")
    (count,) = lengths
    if columns and len(columns) != count:
        raise ValueError(f"there are {len(columns)} column names for {count} columns; give one each, or none.")
    if captions and [len(row) for row in captions] != [count] * len(rows):
        raise ValueError(f"the captions do not fit {len(rows)} rows of {count}; give one an image, or none.")
    lines = max((text.count("\n") + 1 for row in captions for text in row), default=0)
    margin = 0.085 * max(map(len, rows)) if any(rows) else 0
    height = len(rows) * (side + 0.17 * lines + 0.05) + 0.25 * bool(columns) + 0.35 * bool(title)
    figure = new_figure(count * (side + 0.08) + margin + 0.1, height)
    axes = figure.subplots(len(rows), count, squeeze=False)
    for r, (name, images) in enumerate(rows.items()):
        for c, image in enumerate(images):
            _show(axes[r, c], image)
            axes[r, c].set_xlabel(captions[r][c] if captions else "", fontsize=8, labelpad=2)
        axes[r, 0].set_ylabel(name, fontsize=10, rotation=0, ha="right", va="center")
    for ax, name in zip(axes[0], columns, strict=False):
        ax.set_title(name, fontsize=9)
    figure.suptitle(title, fontsize=11)
    named = f"{len(rows)} row{'s' * (len(rows) > 1)} of {count} images"
    said = [
        ("rows", [name for name in rows if name.strip()]),
        ("columns", columns),
        ("captions", [text for row in captions for text in row]),
    ]
    listed = "; ".join(f"{what}: {', '.join(' '.join(t.split()) for t in texts)}" for what, texts in said if texts)
    return Picture(figure, f"{title + ': ' if title else ''}{named}{'; ' + listed if listed else ''}.")


def plot_histograms(before: Tensor, after: Tensor) -> Picture:
    """How often each value occurs before and after normalisation, red, green and blue on top of each other.

    Args:
        before: (N, 3, H, W) uint8.
        after: the same images, normalised float.
    """
    figure = new_figure(8.5, 2.8)
    axes = figure.subplots(1, 2)
    colours, styles = ("#D55E00", "#009E73", "#0072B2"), ("-", "--", ":")
    for ax, values, name in zip(axes, (before.float(), after), ("as stored: 0 to 255", "normalised"), strict=True):
        for channel, (colour, style) in enumerate(zip(colours, styles, strict=True)):
            one = values[:, channel].flatten().cpu()  # from its own least to its own greatest: the same bins in both
            counts, edges = torch.histogram(one, 30, range=(one.min().item(), one.max().item()), density=True)
            label = ("red", "green", "blue")[channel]
            ax.stairs(counts.numpy(), edges.numpy(), color=colour, linestyle=style, linewidth=1.8, label=label)
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set(title=name, xlabel="value of a pixel", ylabel="how often", yticks=[])
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    return Picture(
        figure,
        f"Pixel values as stored run from {before.min():.0f} to {before.max():.0f} with mean "
        f"{before.float().mean():.0f}; normalised from {number(after.min())} to {number(after.max())}, with mean "
        f"{number(after.mean())} and standard deviation {number(after.std())}.",
    )


def plot_mixed(mixed: Tensor, targets: Tensor, names: Sequence[str], own: Sequence[int], *, title: str = "") -> Picture:
    """Each mixed image, and below it its soft label, drawn as bars.

    Args:
        mixed: (M, 3, H, W).
        targets: (M, K), each sums to 1.
        own: for each mixed image, the class that it began as.

    Raises ValueError where the targets do not fit.
    """
    if targets.shape != (len(mixed), len(names)):
        raise ValueError(f"the targets have shape {tuple(targets.shape)}; give {(len(mixed), len(names))}.")
    figure = new_figure(2.15 * len(mixed), 4.0)
    axes = figure.subplots(2, len(mixed), squeeze=False, height_ratios=[1.15, 1])
    for m, (image, target, first) in enumerate(zip(mixed, targets.tolist(), own, strict=True)):
        _show(axes[0, m], image)
        axes[0, m].set_title(f"began as: {names[first]}", fontsize=10)
        ax = axes[1, m]
        ax.barh(range(len(names)), target, color=[TRAIN if k == first else TEST for k in range(len(names))], height=0.6)
        for k, share in enumerate(target):
            if share >= 0.005:
                inside = {"x": share - 0.03, "ha": "right", "color": "white"}
                beside = {"x": share + 0.03, "ha": "left", "color": "black"}
                ax.text(y=k, s=f"{share:.0%}", va="center", fontsize=9, **(inside if share > 0.7 else beside))
        ax.set(xlim=(0, 1), ylim=(len(names) - 0.5, -0.5), xlabel="share of the label")
        ax.set_yticks(range(len(names)), names if m == 0 else [""] * len(names), fontsize=9)
        ax.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=11)
    told = "; ".join(_describe_target(target, names) for target in targets.tolist())
    return Picture(figure, f"{title + ': ' if title else ''}{len(mixed)} mixed images with the labels {told}.")


def plot_costs(seconds: Mapping[str, Sequence[float]], images: int, *, title: str) -> Picture:
    """Microseconds an image of each measured thing: the median as a dot, all measurements as a line; log scale.

    Args:
        seconds: for each name the measured times of one batch; "training step…" is drawn in another colour.
        images: images of a batch.

    Raises ValueError where something was not measured.
    """
    if not seconds or not all(seconds.values()):
        raise ValueError("there is nothing measured for at least one name; give one time or more for each.")
    micro = {name: [1e6 * t / images for t in times] for name, times in seconds.items()}
    medians = {name: statistics.median(times) for name, times in micro.items()}
    names = sorted(medians, key=medians.__getitem__)
    figure = new_figure(8.5, 0.9 + 0.29 * len(names))
    ax = figure.subplots()
    for row, name in enumerate(names):
        colour = TEST if name.startswith("training step") else TRAIN
        ax.plot([min(micro[name]), max(micro[name])], [row, row], color=colour, alpha=0.5, linewidth=3)
        ax.plot(medians[name], row, "s" if colour == TEST else "o", color=colour, markersize=7)
        ax.text(1.25 * max(micro[name]), row, _three_digits(medians[name]), va="center", fontsize=9)
    ax.set_yticks(range(len(names)), names)
    low, high = min(map(min, micro.values())), max(map(max, micro.values()))
    ax.set(xscale="log", xlim=(low / 1.5, 4 * high), ylim=(-0.7, len(names) - 0.3))
    ax.set(xlabel="microseconds an image (from one grid line to the next: ten times as long)", title=title)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    ax.xaxis.set_tick_params(which="minor", bottom=False)
    ax.grid(axis="x", alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    listed = ", ".join(f"{name} {_three_digits(medians[name])}" for name in names)
    return Picture(figure, f"{title}, in microseconds an image, medians: {listed}.")


def plot_turning(
    images: Tensor, angles: Sequence[float], shares: Mapping[str, Sequence[float]], over: str = ""
) -> Picture:
    """What a network reads while one image turns: a line for each answer, and above it the image at some angles.

    Args:
        images: (M, 3, H, W), the image at M angles from the first to the last of `angles`, evenly spaced.
        angles: degrees.
        shares: probability of each answer, one for each angle.
        over: what the probabilities are a mean of.
    """
    figure = new_figure(8.5, 4.0)
    above, below = figure.subfigures(2, 1, height_ratios=[1, 3])
    shown = torch.linspace(0, len(angles) - 1, len(images)).round().int().tolist()
    for ax, image, at in zip(above.subplots(1, len(images)), images, shown, strict=True):
        _show(ax, image)
        ax.set_title(f"{angles[at]:.0f}°", fontsize=9)
    ax = below.subplots()
    styles = ((TRAIN, "-"), (TEST, "--"), (SOFT, ":"))
    for (name, values), (colour, style) in zip(shares.items(), styles, strict=False):
        ax.plot(angles, values, color=colour, linestyle=style, linewidth=2, label=name)
    ax.set(xlabel="turned by, in degrees", ylabel="probability", ylim=(-0.02, 1.02), xlim=(angles[0], angles[-1]))
    ax.set_title("What the network reads while the image turns" + (f", {over}" if over else ""), fontsize=11)
    ax.legend(frameon=False)
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    over = f" ({over})" if over else ""
    listed = "; ".join(f"{name}: {v[0]:.0%} at first and {v[-1]:.0%} at last" for name, v in shares.items())
    return Picture(
        figure,
        f"An image turned from {angles[0]:.0f} to {angles[-1]:.0f} degrees is read{over} as {listed}.",
    )


def plot_accuracies(accuracies: Mapping[str, Sequence[float]], *, title: str) -> Picture:
    """One dot a training, one line for their mean, for each way to train."""
    figure = new_figure(8.5, 0.95 + 0.45 * len(accuracies))
    ax = figure.subplots()
    means = {name: statistics.fmean(values) for name, values in accuracies.items()}
    for row, (name, values) in enumerate(accuracies.items()):
        ax.plot(values, [row] * len(values), "o", color=TRAIN, alpha=0.6, markersize=8)
        ax.plot([means[name]] * 2, [row - 0.3, row + 0.3], color=TEST, linewidth=3)
        ax.text(means[name], row - 0.36, f"{means[name]:.0%}", ha="center", va="bottom", fontsize=9)
    ax.set_yticks(range(len(means)), list(means))
    ax.set(ylim=(len(means) - 0.5, -0.8), xlabel="share of held-out images that is right", title=title)
    ax.margins(x=0.08)
    ax.grid(axis="x", alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    listed = "; ".join(
        f"{name}: {means[name]:.1%} (from {min(v):.1%} to {max(v):.1%})" for name, v in accuracies.items()
    )
    return Picture(figure, f"{title}, mean of {len(next(iter(accuracies.values())))} trainings: {listed}.")


# ---- The riddle of exercise 04.2

RIDDLE = ("flip", "rotation", "shift", "erasing", "MixUp", "CutMix")
LETTERS = "ABCDEF"


def riddle_images(images: Tensor) -> dict[str, Tensor]:
    """Two images (2, 3, H, W) a letter; each letter stands for one of `RIDDLE`, which one is drawn from a seed."""
    order = torch.randperm(len(RIDDLE), generator=torch.Generator().manual_seed(4)).tolist()
    return {letter: riddle_row(RIDDLE[number], images) for letter, number in zip(LETTERS, order, strict=True)}


def riddle_row(name: str, images: Tensor) -> Tensor:
    """The first two images (2, 3, H, W) in [0, 1] under one augmentation, strong enough to be told."""
    strength, seed = {
        "flip": (1.0, 0), "rotation": (40, 5), "shift": (10, 6),
        "erasing": (1.0, 2), "MixUp": (2.0, 14), "CutMix": (2.0, 45),
    }[name]  # fmt: skip
    return draw_augmented(name, images, torch.eye(len(images)), strength, seed).images[:2]


def plot_riddle(images: Tensor, names: Sequence[str]) -> Picture:
    """The riddle as a table: a column for each letter, a row for each of the first two of `images` (N, 3, H, W)."""
    shown = torch.stack(list(riddle_images(images).values()), dim=1)  # (2, letters, 3, H, W)
    rows = dict(zip(names[:2], shown, strict=True))
    return plot_image_table(rows, list(LETTERS), title="Which augmentation is which?", side=1.4)


# ---- Strokes


def _show(ax: "Axes", image: Tensor) -> None:
    ax.imshow(image.permute(1, 2, 0).cpu().numpy(), vmin=0)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set(color="#BBBBBB", linewidth=0.6)


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _describe_target(target: Sequence[float], names: Sequence[str]) -> str:
    parts = sorted(((share, name) for share, name in zip(target, names, strict=True) if share >= 0.005), reverse=True)
    return " + ".join(f"{share:.0%} {name}" for share, name in parts)
