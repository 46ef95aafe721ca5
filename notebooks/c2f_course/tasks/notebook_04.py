"""The exercises of notebook 04, on data: flips, shifts, what happened to images, soft labels, CutMix."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from c2f.training.sources.photographs import load_photographs
from c2f_course.figures.notebook_04 import LETTERS, RIDDLE, riddle_images, riddle_row
from c2f_course.tasks.exercise import (
    Blank,
    Expected,
    exercise,
    expect_tensor,
    expect_untouched,
    hint_if,
    sentences,
    task,
)
from c2f_course.tasks.training import cross_entropy

SAY = sentences(__name__)
SIDE = 8


def _images(count: int, seed: int = 4) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


# ---- Flips


@exercise("04.1", "Flip half of a batch", "easy", 6)
def flip_some(answer: Callable[[Tensor, float, torch.Generator], Tensor]) -> str:
    say, images = SAY["flip_some"], _images(256)
    before, right = images.clone(), images.flip(-1)

    def run(probability: float, seed: int = 0) -> Tensor:
        flipped = answer(images, probability, torch.Generator().manual_seed(seed))
        flipped = expect_tensor(flipped, tuple(images.shape), "the batch")
        expect_untouched(images, before, "the batch")
        return flipped

    def same(a: Tensor, b: Tensor) -> Tensor:
        """Of each image, whether it is that of another batch: (N,)."""
        return torch.isclose(a, b).flatten(1).all(1)

    mistakes = {"upside down": images.flip(-2), "another axis": (images.flip(0), images.flip(1)), "none": images}
    Expected("the batch with probability 1", right, mistakes, says=say).compare(run(1.0))
    hint_if(not same(run(0.0), images).all(), say["probability 0"])
    made, again, other, few = run(0.5, 1), run(0.5, 1), run(0.5, 2), same(run(0.1, 3), right).float().mean().item()
    flipped, repeated = same(made, right), torch.equal(same(made, right), same(again, right))
    share = flipped.float().mean().item()
    for name, wrong in {
        "mixture": not (flipped | same(made, images)).all() and repeated,
        "one coin": share in (0.0, 1.0),
        "no chance": repeated and torch.equal(flipped, same(other, right)),
        "generator not used": not repeated,
        "probability not used": few > 0.3,
    }.items():
        hint_if(wrong, say[name].format(few=few))
    return say["praise"].format(share=share)


# ---- A riddle


@exercise("04.2", "What happened to these images?", "easy", 4)
def which(answer: dict[str, str]) -> str:
    say = SAY["which"]
    hint_if(not isinstance(answer, dict) or set(answer) != set(LETTERS), say["no dictionary"])
    if all(name is ... or name is None for name in answer.values()):
        raise Blank
    photographs = load_photographs().images
    for letter, shown in riddle_images(photographs).items():
        name = answer[letter]
        hint_if(name is ... or name is None, say["no name"].format(letter=letter))
        hint_if(name not in RIDDLE, say["unknown name"].format(letter=letter, name=name, names=", ".join(RIDDLE)))
        wrong = not torch.equal(shown, riddle_row(name, photographs))
        hint_if(wrong, say["something else"].format(letter=letter, sign=SAY["signs"][name]))
    return say["praise"]


# ---- Shifts

FILLS = ("reflect", "symmetric", "replicate", "constant", "circular")
"""What may be in the places that become free."""


def _moved(image: Tensor, down: int, right: int, fill: str = "reflect") -> Tensor:
    if fill == "symmetric":
        around = torch.arange(-3, SIDE + 3)
        around = torch.where(around < 0, -1 - around, torch.where(around >= SIDE, 2 * SIDE - 1 - around, around))
        padded = image[:, around][:, :, around]
    else:
        padded = F.pad(image[None], [3] * 4, mode=fill)[0]
    return padded[:, 3 - down :, 3 - right :][:, :SIDE, :SIDE]


SHIFTS = [(_images(1)[0], *by) for by in ((0, 0), (2, 1), (-3, 0), (0, 3), (3, -3), (-1, -2))]


@exercise("04.3", "Shift by reflection", "medium", 8)
@task(SHIFTS, SAY["shift"], errors={"padding": "reflected too far"})
def shift(image: Tensor, down: int, right: int) -> Expected:
    ways = {
        "up and left": (-down, -right),
        "exchanged": (right, down),
        "exchanged, the wrong way": (-right, -down),
        "left": (down, -right),
        "up": (-down, right),
    }
    moved = {name: tuple(_moved(image, *by, fill) for fill in FILLS) for name, by in ways.items()}
    mistakes = moved if (down, right) == (2, 1) else {"another way": sum(moved.values(), ())}
    mistakes |= {fill: _moved(image, down, right, fill) for fill in FILLS[1:]}
    smaller = {"size": lambda made: isinstance(made, Tensor) and made.shape[:1] == (3,) and made.shape != image.shape}
    facts = {"rows": abs(down), "columns": abs(right), "side": SIDE}
    facts |= {"vertically": "down" if down >= 0 else "up", "horizontally": "right" if right >= 0 else "left"}
    otherwise = "otherwise" if down or right else "not moved"
    what = f"the image moved by ({down}, {right})"
    return Expected(what, _moved(image, down, right), mistakes, otherwise, signs=smaller, facts=facts)


# ---- Soft labels


def soft_inputs() -> Iterator[tuple[Tensor, Tensor]]:
    """Logits and shares of each class; then logits whose probabilities are stored as 0."""
    generator = torch.Generator().manual_seed(5)
    logits, targets = 3 * torch.randn(6, 4, generator=generator), torch.rand(6, 4, generator=generator)
    yield logits, targets / targets.sum(dim=1, keepdim=True)
    yield torch.tensor([[200.0, 0.0, -200.0]]), torch.tensor([[0.5, 0.5, 0.0]])


@exercise("04.4", "Cross-entropy with soft labels", "medium", 6)
@task(soft_inputs, SAY["soft_cross_entropy"])
def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Expected:
    return replace(cross_entropy(logits, targets, 0.0), learns={"logits": "the logits"})


# ---- CutMix

BOXES = ((2, 1, 3, 6), (-2, 5, 4, 6), (6, -3, 5, 5), (-4, 2, 3, 3))
"""Top, left, height, width; all but the first hang over the edge."""
LABELS = (torch.tensor([0.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, 1.0]))


@exercise("04.5", "CutMix, with the label from the true area", "hard", 10)
@task([(*_images(2, seed=6), *LABELS, box) for box in BOXES], SAY["cutmix"])
def cutmix(
    image: Tensor, other: Tensor, one: Tensor, two: Tensor, box: tuple[int, int, int, int]
) -> dict[str, Expected]:
    top, left, height, width = box
    inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    inside[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)] = True
    counted, nominal = int(inside.sum()), height * width
    beyond, right = counted < nominal, torch.where(inside, other, image)

    def label(share: float) -> Tensor:
        return (1 - share) * one + share * two

    images = {
        "inside out": torch.where(inside, image, other),
        "on its side": torch.where(inside.T, other, image),
        "beyond the image" if beyond else "unchanged": image,
    }
    labels = {
        "the image's own": one,
        "shares exchanged": label(1 - counted / SIDE**2),
        "whole box": label(nominal / SIDE**2),
    }
    facts = {"counted": counted, "nominal": nominal}
    return {
        "image": Expected("the mixed image", right, images, "beyond the image" if beyond else "otherwise"),
        "label": Expected("the label", label(counted / SIDE**2), labels, facts=facts),
    }
