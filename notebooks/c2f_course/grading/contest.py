"""The contest of assignment 4: learn to read digits from a fixed number of images, with a fixed number of weights.

The digits are scikit-learn's, 8×8 counts of ink, drawn anew on 32×32 pixels: turned, shifted, slanted, in two colours,
over a ground of blots, with strokes across them, in noise. A drawing is a pure function of its seed. Of the 1,797
digits, 1,200 are learned from, 200 are for choosing, and 397 are given to nobody: the drawings of those are what
decides (`hidden_split`).

Whoever competes does not hold the budget. `feed` hands over one batch after another and stops; what has been learned
leaves as a dictionary of tensors, which is counted (`numbers_in`), and only that goes into a second entry, which
answers. `rehearse` does all this in one process, the hidden test the same across two.

    python -m c2f_course.grading.contest            measures the opponents (data/results/contest/opponents.json)

Shapes: N images of 3 x 32 x 32, uint8.
"""

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from c2f.device import choose_precision, describe_hardware, describe_versions
from c2f.files import data_folder, write_json
from c2f.models import create_model
from c2f.training.sources.dataset import Split
from c2f_course.tasks.exercise import Blank, Hint

IMAGES_SEEN = 12_000
NUMBERS = 300_000
"""How many numbers of 32 bits the weights may hold."""
BATCH = 64
SIZE, CLASSES = 32, 10
LEARNED_FROM, CHOSEN_WITH = 1200, 200  # digits; what is left of 1,797 is hidden
DRAWINGS = 5  # of each digit that is learned from, and of each that is hidden
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
    picture = paper + ground * uniform(-0.2, 0.2, 3, 1, 1)
    for _ in range(2):
        line = _stroke(uniform(-1, 1, 2, 2), uniform(0.02, 0.05))
        picture = torch.lerp(picture, uniform(0.15, 0.85, 3, 1, 1), line)
    contrast = uniform(0.6, 1, 1, 1, 1)
    colour = paper + contrast * (torch.where(dark_ink, dark, light) - paper)
    picture = torch.lerp(picture, colour, digit)
    line = _stroke(uniform(-1, 1, 2, 2), uniform(0.02, 0.05))
    picture = torch.lerp(picture, uniform(0.15, 0.85, 3, 1, 1), line)
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


def _split(first: int, last: int | None, drawings: int, seed: int) -> Split:
    ink, labels = (x[first:last].repeat(drawings, *[1] * (x.ndim - 1)) for x in _digits())
    return Split(draw(ink, seed), labels)


@dataclass(frozen=True)
class Practice:
    """What students are given: `train` is what the budget is spent on, `validation` what choices are made with."""

    train: Split
    validation: Split


@cache
def practice_split() -> Practice:
    """6,000 images of 1,200 digits to learn from, and 1,000 of 200 other digits to choose with."""
    end = LEARNED_FROM + CHOSEN_WITH
    return Practice(
        _split(0, LEARNED_FROM, DRAWINGS, PUBLIC_SEED), _split(LEARNED_FROM, end, DRAWINGS, PUBLIC_SEED + 1)
    )


def hidden_split(seed: int) -> Split:
    """1,985 images of the 397 digits that nobody is given."""
    return _split(LEARNED_FROM + CHOSEN_WITH, None, DRAWINGS, seed)


# ---- The budget


class Refused(Hint):
    """An entry broke a rule of the contest; the sentence says which, and what was found."""


def feed(learner: Any, split: Split, images_seen: int, seed: int, show: bool = False) -> None:
    """Hand so many images to `learner.step`, batch by batch, in passes that are shuffled anew.

    `step(images, labels, progress)` is told the share of the budget that has been spent before this batch. The last
    batch may be smaller. The learner may live in another process.
    """
    generator = torch.Generator().manual_seed(seed)
    passes = math.ceil(images_seen / len(split))
    order = torch.cat([torch.randperm(len(split), generator=generator) for _ in range(passes)])[:images_seen]
    step = learner.step
    batches = tqdm(order.split(BATCH), desc="batches", disable=not show, leave=False)
    for number, chosen in enumerate(batches):
        step(split.images[chosen], split.labels[chosen], number * BATCH / images_seen)


def numbers_in(weights: Any) -> int:
    """How many numbers of 32 bits the weights are; a number of 64 bits is two. Raises Refused for what is no weights.

    Whatever a tensor is for, a parameter or a running mean, it counts: it is what a second entry is told.
    """
    if weights is None or weights is Ellipsis:
        raise Blank
    if not isinstance(weights, dict) or not weights:
        raise Refused("weights() should return a dictionary, name → tensor, that is not empty.")
    for name, value in weights.items():
        if not isinstance(name, str) or len(name) > 200 or not isinstance(value, Tensor):
            raise Refused(
                f"weights() should hold tensors alone, under names of at most 200 letters; under {str(name)[:40]!r} "
                f"there is a {type(value).__name__}."
            )
    return sum(value.numel() * max(1, value.element_size() // 4) for value in weights.values())


def within_budget(weights: Any) -> int:
    """The same number. Raises Refused where it is more than the budget allows."""
    numbers = numbers_in(weights)
    if numbers > NUMBERS:
        raise Refused(f"weights() holds {numbers:,} numbers, and the budget allows {NUMBERS:,}.")
    return numbers


def ask(entry: Any, images: Tensor, chunk: int = 100) -> Tensor:
    """`entry.predict` for all images, some at a time: (N, 10) scores. Raises Refused for another shape or NaN."""
    predict, scores = entry.predict, []
    for some in images.split(chunk):
        told = predict(some)
        if told is None or told is Ellipsis:
            raise Blank
        if not isinstance(told, Tensor) or told.shape != (len(some), CLASSES):
            what = f"of shape {tuple(told.shape)}" if isinstance(told, Tensor) else f"a {type(told).__name__}"
            raise Refused(f"predict should give scores of shape ({len(some)}, {CLASSES}), and gave {what}.")
        if told.is_complex() or not torch.isfinite(told.double()).all():
            raise Refused("predict gave scores that are not finite.")
        scores.append(told.detach().double())
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


@dataclass(frozen=True)
class Outcome:
    """What an entry reached, with what it used."""

    accuracy: float
    images_seen: int
    numbers: int
    """Of its weights."""
    seconds: float
    """Of training."""

    def __str__(self) -> str:
        return (
            f"accuracy {self.accuracy:.1%}; {self.images_seen:,} images seen in {self.seconds:.0f} s; "
            f"{self.numbers:,} numbers in the weights"
        )


def compete(
    learner_class: Any, answering_class: Any, judged: Split, images_seen: int = IMAGES_SEEN, seed: int = 0,
    show: bool = False,
) -> Outcome:  # fmt: skip
    """Let one entry learn and another one, that has nothing but its weights, answer.

    The two classes are the same one, or the same one in two processes. Raises Refused where a rule is broken.
    """
    learner, started = learner_class(seed), time.perf_counter()
    feed(learner, practice_split().train, images_seen, seed, show)
    seconds = time.perf_counter() - started
    weights = learner.weights()
    numbers = within_budget(weights)
    answering = answering_class(seed + 1)
    answering.load(weights)
    # In an order of its own, so that neighbours in a chunk say nothing about one another.
    order = torch.randperm(len(judged), generator=torch.Generator().manual_seed(seed))
    images, labels = judged.images[order], judged.labels[order]
    scores = ask(answering, images)
    expect_alone(answering, images, scores)
    return Outcome(accuracy_of(scores, labels), images_seen, numbers, seconds)


def rehearse(entry: Any, images_seen: int = IMAGES_SEEN, seed: int = 0, show: bool = True) -> Outcome:
    """Grade your own entry as the hidden test does, but on the validation split.

    While a submission is being graded this does nothing: the notebook's cells are run there, too, and time is short.
    """
    if getattr(sys.modules["__main__"].__spec__, "name", "") == "c2f_course.grading.worker":
        return Outcome(math.nan, 0, 0, 0.0)
    return compete(entry, entry, practice_split().validation, images_seen, seed, show)


# ---- What nobody can know


def expect_drawn(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    """Refused where two entries of different seeds begin with the same numbers, that is, with trained ones.

    A tensor that holds one value throughout, a bias of zeros, may be the same; and so may a tenth of all.
    """
    same = sum(
        value.numel()
        for name, value in first.items()
        if name in second
        and torch.equal(value, second[name])
        and value.numel() > 1
        and (value != value.ravel()[0]).any()
    )
    if same > 0.1 * sum(value.numel() for value in first.values()):
        raise Refused(
            "entries of two different seeds begin with the same weights: draw them from the seed that __init__ is "
            "given (torch.manual_seed(seed) before the network is made)."
        )


def expect_ignorance(learner_class: Any, answering_class: Any, judged: Split, batches: int = 3, seed: int = 0) -> None:
    """Refused where an entry that was told wrong labels only nevertheless knows the right ones.

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
    weights = first.weights()
    within_budget(weights)
    answering = answering_class(seed + 2)
    answering.load(weights)
    few = torch.randperm(len(judged), generator=generator)[:200]
    scores = ask(answering, judged.images[few])
    expect_alone(answering, judged.images[few], scores)
    accuracy = accuracy_of(scores, judged.labels[few])
    if accuracy > 0.4:
        raise Refused(
            f"after {batches} batches with wrong labels it knows {accuracy:.0%} of the right ones: it has learned from "
            f"something that was not handed to step."
        )


# ---- From accuracy to points

FLOOR, MARGIN = 0.2, 0.05
"""Where points begin, twice what guessing reaches; and how far above Swin-T all of them are earned."""


def share_of_points(accuracy: float, swin_t: float) -> float:
    """0 up to `FLOOR`, then along a straight line to 1 at Swin-T's accuracy and `MARGIN` more."""
    return min(1.0, max(0.0, (accuracy - FLOOR) / (swin_t + MARGIN - FLOOR)))


def name_for_the_board(name: Any) -> str:
    """A nickname as it is shown: a line of at most 40 letters, or "no name" for what is none."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in name).split()) if isinstance(name, str) else ""
    return plain if 0 < len(plain) <= 40 else "no name"


# ---- The opponents


class Opponent:
    """A model of the kit's as an entry: AdamW with warm-up and a cosine, no augmentation."""

    def __init__(self, seed: int, name: str, lr: float) -> None:
        torch.manual_seed(seed)
        self.model: nn.Module = create_model(name, drop_path=0.0)  # in so few steps nothing is overlearned
        self.lr, self.precision = lr, choose_precision("auto", torch.device("cpu"))
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        rest = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices}, {"params": rest, "weight_decay": 0.0}], lr, weight_decay=0.05
        )

    def logits(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            return self.model((images.float() / 255 - 0.5) / 0.25).float()

    def step(self, images: Tensor, labels: Tensor, progress: float) -> None:
        self.model.train()
        rising, falling = min(1.0, (progress + 0.01) / 0.1), max(0.0, progress - 0.1) / 0.9
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * rising * 0.5 * (1 + math.cos(math.pi * falling))
        self.optimizer.zero_grad()
        F.cross_entropy(self.logits(images), labels, label_smoothing=0.1).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        self.model.eval()
        return self.logits(images)


def results_path() -> Path:
    return data_folder() / "results" / "contest" / "opponents.json"


def opponents() -> dict[str, Any]:
    """What was measured of the opponents, by name; empty where there is no such file, as in the grader's sandbox."""
    path = results_path()
    return json.loads(path.read_text(encoding="utf-8"))["opponents"] if path.is_file() else {}


def name_of_seed(seed: int) -> str:
    """What tells whether figures belong to a hidden split, and does not tell its seed."""
    return hashlib.sha256(str(seed).encode()).hexdigest()[:16]


def measure(name: str, rates: list[float], hidden_seed: int, say: Callable[[str], None] = print) -> None:
    """Train an opponent once for each rate, and keep what the best one on the validation split reaches on the hidden.

    Written after each training, so that what is cut off still says what was measured.
    """
    path, hidden, validation = results_path(), hidden_split(hidden_seed), practice_split().validation
    told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    budget = {"images_seen": IMAGES_SEEN, "batch": BATCH, "hidden_seed_sha256": name_of_seed(hidden_seed)}
    if told.get("budget") != budget:
        told = {"budget": budget, "opponents": {}}
    kept = told["opponents"].get(name, {}).get("tried", [])
    for rate in rates:
        opponent, started = Opponent(0, name, rate), time.perf_counter()
        feed(opponent, practice_split().train, IMAGES_SEEN, 0, show=True)
        seconds = round(time.perf_counter() - started, 1)
        on = [round(accuracy_of(ask(opponent, split.images), split.labels), 4) for split in (validation, hidden)]
        kept = [tried for tried in kept if tried["lr"] != rate]
        kept.append({"lr": rate, "validation": on[0], "hidden": on[1], "seconds": seconds})
        best = max(kept, key=lambda tried: tried["validation"])
        told["opponents"][name] = {
            "accuracy": best["hidden"],
            "parameters": sum(p.numel() for p in opponent.model.parameters()),
            "recipe": f"AdamW, lr {best['lr']:g} (the best of {len(kept)} on the validation split), weight decay 0.05, "
            f"warm-up over a tenth, cosine, label smoothing 0.1, clipping at 1; no augmentation, no drop path",
            "precision": opponent.precision,
            "tried": sorted(kept, key=lambda tried: tried["lr"]),
            "hardware": describe_hardware(),
            "versions": describe_versions(),
        }  # fmt: skip
        write_json(path, told)
        say(f"{name}, lr {rate:g}: validation {on[0]:.1%}, hidden {on[1]:.1%}, {seconds:.0f} s")


AUTHOR = "the author's entry"


def measure_author(hidden_seed: int, seeds: Sequence[int] = (0, 1, 2), say: Callable[[str], None] = print) -> None:
    """Let the assignment's solution compete as a submission does, from several seeds, and keep what it reaches."""
    from c2f_course.grading.assignment import load_assignment
    from c2f_course.grading.grade import Student

    assignment, hidden, reached = load_assignment("4"), hidden_split(hidden_seed), []
    for seed in seeds:
        with Student(assignment.folder / "solution.ipynb", assignment.limits) as student, student.fresh() as other:
            classes = [some.remote().get("Entry") for some in (student, other)]
            reached.append(compete(*classes, hidden, seed=seed))
        say(f"{AUTHOR}, seed {seed}: {reached[-1]}")
    told = json.loads(results_path().read_text(encoding="utf-8"))
    told["opponents"][AUTHOR] = {
        "accuracy": round(sum(one.accuracy for one in reached) / len(reached), 4),
        "parameters": reached[0].numbers,
        "recipe": f"as a submission, seeds {', '.join(map(str, seeds))}: "
        + ", ".join(f"{one.accuracy:.1%}" for one in reached),
        "seconds": [round(one.seconds, 1) for one in reached],
        "hardware": describe_hardware(),
        "versions": describe_versions(),
    }
    write_json(results_path(), told)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the opponents of assignment 4 on its hidden split.")
    parser.add_argument("--opponent", nargs="+", default=["swin_t", "swin_micro_cifar", "author"])
    parser.add_argument("--lr", nargs="+", type=float, default=[1.5e-4, 3e-4, 6e-4])
    parser.add_argument("--seed", type=int, help="of the hidden split; by default, that of the hidden tests")
    args = parser.parse_args()
    seed = args.seed
    if seed is None:
        from c2f_course.grading.assignment import load_assignment  # where there are hidden tests at all

        seed = load_assignment("4").tests[0].run.__globals__["SEED"]
    for name in args.opponent:
        if name == "author":
            measure_author(seed)
        else:
            measure(name, args.lr, seed)


if __name__ == "__main__":
    main()
