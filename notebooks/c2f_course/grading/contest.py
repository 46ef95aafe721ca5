"""The contest of assignment 4: learn to read digits from a fixed number of images, with a fixed number of weights.

The digits are scikit-learn's, 8×8 counts of ink, drawn anew on 32×32 pixels: turned, shifted, slanted, in two colours,
over a ground of blots, with strokes across them, in noise. A drawing is a pure function of its seed. Of the 1,797
digits, 1,200 are for training, 200 for choosing, and 397 are given to nobody: their drawings decide (`hidden_split`).

An entry does not control the budget. `feed` passes one batch after another to it and stops; what has been learned
leaves as a dictionary of tensors, which is counted (`within_budget`), and only that goes into a second entry, which
predicts. `rehearse` does all this in one process, the hidden test the same across two. docs/measure_contest.py measures
the opponents.

Shapes: N images of 3 x 32 x 32, uint8.
"""

import json
import math
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from c2f.files import data_folder
from c2f.training.sources.dataset import Split
from c2f_course.tasks.exercise import Hint, expect_filled, expect_untouched

IMAGES_SEEN = 12_000
NUMBERS = 300_000  # of 32 bits, that the weights may hold
BATCH = 64
SIZE, CLASSES = 32, 10
TRAINING, VALIDATION = 1200, 200  # digits; the rest of 1,797 is hidden
DRAWINGS = 5  # of each digit
PUBLIC_SEED = 4


# ---- The images


@cache
def _digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's digits in a fixed order that mixes their writers: (1797, 8, 8) ink from 0 to 1, and labels."""
    from sklearn.datasets import load_digits  # a second of import that nobody else has to wait for

    bunch = load_digits()
    order = np.random.RandomState(0).permutation(len(bunch.target))
    return torch.from_numpy(bunch.images[order]).float() / 16, torch.from_numpy(bunch.target[order]).long()


def draw(ink: Tensor, seed: int) -> Tensor:
    """Draw each digit once: (N, 8, 8) ink from 0 to 1 -> (N, 3, 32, 32) uint8, a pure function of both arguments."""
    generator, count = torch.Generator().manual_seed(seed), len(ink)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    def with_stroke(picture: Tensor) -> Tensor:
        stroke = _stroke(uniform(-1, 1, 2, 2), uniform(0.02, 0.05))
        return torch.lerp(picture, uniform(0.15, 0.85, 3, 1, 1), stroke)

    # Where a pixel of the drawing looks in the digit: the inverse of turn, slant, scale and shift.
    angle, slant, scale = uniform(-0.4, 0.4), uniform(-0.25, 0.25), uniform(0.7, 1.05)
    cos, sin = angle.cos() / scale, angle.sin() / scale
    rows = torch.stack([torch.stack([cos + slant * sin, sin + slant * cos], 1), torch.stack([-sin, cos], 1)], 1)
    shift = uniform(-0.2, 0.2, 2, 1)
    grid = F.affine_grid(torch.cat([rows, rows @ shift], 2), [count, 1, SIZE, SIZE], align_corners=False)
    digit = F.grid_sample(ink[:, None], grid, align_corners=False)

    # A ground of blots between two colours, the ink away from both, and strokes across in other colours.
    ground = F.interpolate(uniform(0, 1, 1, 5, 5), (SIZE, SIZE), mode="bicubic").clamp(0, 1)
    dark, light = uniform(0, 0.4, 3, 1, 1), uniform(0.6, 1, 3, 1, 1)
    dark_ink = uniform(0, 1, 1, 1, 1) < 0.5
    paper = torch.where(dark_ink, light, dark)
    picture = with_stroke(with_stroke(paper + ground * uniform(-0.2, 0.2, 3, 1, 1)))
    contrast = uniform(0.6, 1, 1, 1, 1)
    colour = paper + contrast * (torch.where(dark_ink, dark, light) - paper)
    picture = with_stroke(torch.lerp(picture, colour, digit))
    noise = uniform(0.01, 0.07, 1, 1, 1) * torch.randn(count, 3, SIZE, SIZE, generator=generator)
    return ((picture + noise) * 255).round().clamp(0, 255).to(torch.uint8)


def _stroke(ends: Tensor, width: Tensor) -> Tensor:
    """How much of each pixel a stroke covers: (N, 1, SIZE, SIZE). ends: (N, 2 ends, 2) from -1 to 1; width: (N,)."""
    side = (torch.arange(SIZE) + 0.5) * 2 / SIZE - 1
    at = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).reshape(1, -1, 2)
    first, along = ends[:, :1], ends[:, 1:] - ends[:, :1]
    share = ((at - first) * along).sum(-1) / along.square().sum(-1).clamp(min=1e-6)  # along the stroke, 0 to 1
    near = first + share.clamp(0, 1)[..., None] * along
    distance = (at - near).square().sum(-1).sqrt()
    return (1 - (distance - width[:, None]) * SIZE / 2).clamp(0, 1).reshape(-1, 1, SIZE, SIZE)


def _split(first: int, last: int | None, seed: int) -> Split:
    ink, labels = (x[first:last].repeat(DRAWINGS, *[1] * (x.ndim - 1)) for x in _digits())
    return Split(draw(ink, seed), labels)


class Practice(NamedTuple):
    """What students have: `train` is what the budget is spent on, `validation` what choices are made with."""

    train: Split
    validation: Split


@cache
def practice_split() -> Practice:
    """6,000 images of 1,200 digits to learn from, and 1,000 of 200 other digits to choose with."""
    end = TRAINING + VALIDATION
    return Practice(_split(0, TRAINING, PUBLIC_SEED), _split(TRAINING, end, PUBLIC_SEED + 1))


@cache
def hidden_split(seed: int) -> Split:
    """1,985 images of the 397 digits that nobody is given."""
    return _split(TRAINING + VALIDATION, None, seed)


# ---- The budget


class Refused(Hint):
    """An entry broke a rule of the contest; the sentence says which, and what was found."""


def feed(learner: Any, split: Split, images_seen: int, seed: int, show: bool = False) -> None:
    """Pass so many images to `learner.step`, batch by batch, in passes that are shuffled anew.

    In `step(images, labels, progress)`, progress is the share of the budget that was spent before this batch. The last
    batch may be smaller. The learner may be in another process.
    """
    generator = torch.Generator().manual_seed(seed)
    passes = math.ceil(images_seen / len(split))
    order = torch.cat([torch.randperm(len(split), generator=generator) for _ in range(passes)])[:images_seen]
    step = learner.step
    batches = tqdm(order.split(BATCH), desc="batches", disable=not show, leave=False)
    for number, chosen in enumerate(batches):
        step(split.images[chosen], split.labels[chosen], number * BATCH / images_seen)


def within_budget(weights: Any) -> int:
    """How many numbers of 32 bits the weights are; a number of 64 bits is two.

    Every tensor counts, a parameter or a running mean: a second entry is given all of them. Raises Refused for what is
    no weights, and where there are more than the budget allows.
    """
    expect_filled(weights)
    if not isinstance(weights, dict) or not weights:
        raise Refused("weights() should return a dictionary, name → tensor, that is not empty.")
    for name, value in weights.items():
        if not isinstance(name, str) or len(name) > 200 or not isinstance(value, Tensor):
            raise Refused(
                f"weights() should hold tensors alone, under names of at most 200 letters; under {str(name)[:40]!r} "
                f"there is a {type(value).__name__}."
            )
    numbers = sum(value.numel() * max(1, value.element_size() // 4) for value in weights.values())
    if numbers > NUMBERS:
        raise Refused(f"weights() holds {numbers:,} numbers, and the budget allows {NUMBERS:,}.")
    return numbers


def ask(entry: Any, images: Tensor, chunk: int = 100) -> Tensor:
    """`entry.predict` for all images, some at a time: (N, 10) scores.

    Raises Refused for another shape or NaN, and Hint where predict writes into the images.
    """
    predict, scores = entry.predict, []
    for some in images.split(chunk):
        given = some.clone()  # other students' images are the same tensor
        logits = predict(given)
        expect_untouched(given, some, "the images")
        expect_filled(logits)
        if not isinstance(logits, Tensor) or logits.shape != (len(some), CLASSES):
            what = f"of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            raise Refused(f"predict should give scores of shape ({len(some)}, {CLASSES}), and gave {what}.")
        if logits.is_complex() or not torch.isfinite(logits.double()).all():
            raise Refused("predict gave scores that are not finite.")
        scores.append(logits.detach().double())
    return torch.cat(scores)


def expect_alone(entry: Any, images: Tensor, scores: Tensor) -> None:
    """Refused where an image's scores depend on which others are asked with it, beyond what rounding does."""
    few = torch.arange(0, len(images), max(1, len(images) // 6))[:6]
    for chunk in (1, 3):
        again = ask(entry, images[few], chunk)
        reach = float(scores.max() - scores.min())
        if (again - scores[few]).abs().max() > 0.05 * max(reach, 1e-9):
            raise Refused(
                "the same image has other scores when it is asked alone than among others: something in predict looks "
                "at the whole chunk, or draws at random. Is the network in evaluation mode?"
            )


def accuracy_of(scores: Tensor, labels: Tensor) -> float:
    return (scores.argmax(1) == labels).double().mean().item()


def _hand_on(learner: Any, answering_class: Any, seed: int, judged: Split) -> tuple[float, int]:
    """The accuracy of a second entry that has nothing but the learner's weights, and how many numbers these are."""
    weights = learner.weights()
    numbers = within_budget(weights)
    answering = answering_class(seed)
    answering.load(weights)
    # In an order that nobody can know: whoever knew it could count the images instead of looking at them.
    shuffled = torch.Generator()
    shuffled.seed()
    order = torch.randperm(len(judged), generator=shuffled)
    scores = ask(answering, judged.images[order])
    expect_alone(answering, judged.images[order], scores)
    return accuracy_of(scores, judged.labels[order]), numbers


@dataclass(frozen=True)
class Outcome:
    """What an entry reached, with what it used."""

    accuracy: float
    images_seen: int
    numbers: int  # of its weights
    seconds: float  # of training

    def __str__(self) -> str:
        return (
            f"accuracy {self.accuracy:.1%}; {self.images_seen:,} images seen in {self.seconds:.0f} s; "
            f"{self.numbers:,} numbers in the weights"
        )


def compete(
    learner_class: Any, answering_class: Any, judged: Split, images_seen: int = IMAGES_SEEN, seed: int = 0,
    show: bool = False,
) -> Outcome:  # fmt: skip
    """Let one entry learn and another one, which has nothing but its weights, predict.

    The two classes are the same one, or the same one in two processes. Raises Refused where a rule is broken.
    """
    learner, started = learner_class(seed), time.perf_counter()
    feed(learner, practice_split().train, images_seen, seed, show)
    seconds = time.perf_counter() - started
    accuracy, numbers = _hand_on(learner, answering_class, seed + 1, judged)
    return Outcome(accuracy, images_seen, numbers, seconds)


def rehearse(entry: Any, images_seen: int = IMAGES_SEEN, seed: int = 0, show: bool = True) -> Outcome:
    """Grade your own entry as the hidden test does, but on the validation split.

    While a submission is graded this does nothing: the notebook's cells are run there, too, and time is short.
    """
    if getattr(sys.modules["__main__"].__spec__, "name", "") == "c2f_course.grading.worker":
        return Outcome(math.nan, 0, 0, 0.0)
    return compete(entry, entry, practice_split().validation, images_seen, seed, show)


# ---- What nobody can know


def expect_drawn(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    """Refused where two entries of different seeds begin with the same numbers, that is, with trained ones.

    A tensor that holds one value throughout, a bias of zeros, may be the same; and so may a tenth of all.
    """
    shared = [value for name, value in first.items() if name in second and torch.equal(value, second[name])]
    same = sum(value.numel() for value in shared if value.numel() > 1 and (value != value.ravel()[0]).any())
    if same > 0.1 * sum(value.numel() for value in first.values()):
        raise Refused(
            "entries of two different seeds begin with the same weights: draw them from the seed that __init__ is "
            "given (torch.manual_seed(seed) before the network is made)."
        )


def expect_ignorance(learner_class: Any, answering_class: Any, judged: Split, batches: int = 3, seed: int = 0) -> None:
    """Refused where an entry that was given only wrong labels knows the right ones all the same.

    Each label is replaced by another digit, so what is learned from these batches leads away from the truth.
    Known ways round it remain (an entry can count its batches), and then a reader of the code is needed.
    """
    generator = torch.Generator().manual_seed(seed)
    split = practice_split().train
    first, second = learner_class(seed), learner_class(seed + 1)
    within_budget(first.weights())
    expect_drawn(first.weights(), second.weights())
    step = first.step
    for number in range(batches):
        chosen = torch.randperm(len(split), generator=generator)[:BATCH]
        wrong = (split.labels[chosen] + torch.randint(1, CLASSES, (BATCH,), generator=generator)) % CLASSES
        step(split.images[chosen], wrong, number / (batches - 1))
    few = torch.randperm(len(judged), generator=generator)[:200]
    accuracy, _ = _hand_on(first, answering_class, seed + 2, Split(judged.images[few], judged.labels[few]))
    if accuracy > 0.4:
        raise Refused(
            f"after {batches} batches with wrong labels it knows {accuracy:.0%} of the right ones: it has learned from "
            f"something that was not handed to step."
        )


# ---- From accuracy to points

FLOOR, MARGIN = 0.2, 0.05  # where points begin, twice what guessing reaches; how far above Swin-T one has them all


def share_of_points(accuracy: float, swin_t: float) -> float:
    """0 up to `FLOOR`, then along a straight line to 1 at Swin-T's accuracy and `MARGIN` more."""
    return min(1.0, max(0.0, (accuracy - FLOOR) / (swin_t + MARGIN - FLOOR)))


def name_for_the_board(name: Any) -> str:
    """A nickname as it is shown: a line of at most 40 letters, or "no name" for what is none."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in name).split()) if isinstance(name, str) else ""
    return plain if 0 < len(plain) <= 40 else "no name"


# ---- The opponents' figures


def results_path() -> Path:
    return data_folder() / "results" / "contest" / "opponents.json"


def opponents() -> dict[str, Any]:
    """What was measured of the opponents, by name; empty where there is no such file, as in the grader's sandbox."""
    path = results_path()
    return json.loads(path.read_text(encoding="utf-8"))["opponents"] if path.is_file() else {}
