"""Checks of notebook 04, on data and augmentation."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from c2f.training.sources.photographs import load_photographs
from c2f_course.figures.notebook_04 import LETTERS, RIDDLE, riddle_images, riddle_row
from c2f_course.tasks.exercise import Blank, Expected, Hint, exercise, expect_tensor, expect_untouched, hint_if, task
from c2f_course.tasks.training import cross_entropy

SIDE = 8


def _images(count: int, seed: int = 4) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.float(), b.float(), atol=1e-6)


SIGNS = {
    "flip": "a flip moves every pixel to the other side of the same row, and nothing is lost or black",
    "rotation": "a rotation leaves slanted black corners with jagged edges",
    "shift": "a shift keeps everything upright, and the border repeats what is beside it as in a mirror",
    "erasing": "erasing leaves one upright black rectangle, and everything else in its place",
    "MixUp": "MixUp shows two images through each other, everywhere",
    "CutMix": "CutMix shows two images side by side: an upright rectangle of one of them, with sharp edges",
}


@exercise("04.2", "What happened to these images?", "easy", 4)
def which(answer: dict[str, str]) -> str:
    if not isinstance(answer, dict) or set(answer) != set(LETTERS):
        raise Hint(f"give a dictionary with a name for each of the letters {', '.join(LETTERS)}.")
    if all(name is ... or name is None for name in answer.values()):
        raise Blank
    photographs = load_photographs().images
    for letter, shown in riddle_images(photographs).items():
        name = answer[letter]
        hint_if(name is ... or name is None, f"{letter} has no name yet.")
        if name not in RIDDLE:
            raise Hint(f"{letter}: there is no {name!r} among them; the six are {', '.join(RIDDLE)}.")
        if not torch.equal(shown, riddle_row(name, photographs)):
            raise Hint(f"{letter} is something else: {SIGNS[name]}. Is that so in column {letter}?")
    return "each leaves its own traces: black corners, mirrored borders, straight edges, or none at all."


@exercise("04.1", "Flip half of a batch", "easy", 6)
def flip_some(answer: Callable[[Tensor, float, torch.Generator], Tensor]) -> str:
    images = _images(256)
    before = images.clone()

    def run(probability: float, seed: int = 0) -> Tensor:
        flipped = answer(images, probability, torch.Generator().manual_seed(seed))
        flipped = expect_tensor(flipped, tuple(images.shape), "the batch")
        expect_untouched(images, before, "the batch")
        return flipped

    def mirrored(probability: float, seed: int) -> Tensor:
        return torch.isclose(run(probability, seed), images.flip(-1)).flatten(1).all(1)

    sideways = "it is the last dimension of (N, 3, H, W) that runs sideways."
    Expected("the batch with probability 1", images.flip(-1), [
        (images.flip(-2), "with probability 1 every image stands on its head: which dimension of (N, 3, H, W) runs "
         "sideways?"),
        *((images.flip(axis), f"images or colours changed places; {sideways}") for axis in (0, 1)),
        (images, "with probability 1 every image should be mirrored, and none is. What is a random number < 1?"),
    ], sideways).compare(run(1.0))  # fmt: skip
    hint_if(not _same(run(0.0), images), "with probability 0 no image should change. Compare the random numbers with "
        "`probability`.")  # fmt: skip
    flipped = mirrored(0.5, 1)
    kept, share = torch.isclose(run(0.5, 1), images).flatten(1).all(1), flipped.float().mean().item()
    again, other, few = mirrored(0.5, 1), mirrored(0.5, 2), mirrored(0.1, 3).float().mean().item()
    for wrong, hint in (
        (not (flipped | kept).all() and torch.equal(flipped, again), "some images are neither mirrored nor as they "
         "were, but a mixture of both. One coin an image, please, not one a pixel or a row: what shape must the choice "
         "have to fit (N, 3, H, W)?"),
        (share in (0.0, 1.0), "the whole batch shares one coin: all images or none. Draw N numbers, one for each "
         "image."),
        (torch.equal(flipped, other) and torch.equal(flipped, again), "the same images are mirrored whatever the "
         "generator: chance should decide which ones."),
        (not torch.equal(flipped, again), "two runs with generators of the same seed mirror different images: hand the "
         "generator to `torch.rand`."),
        (few > 0.3, f"with probability 0.1, {few:.0%} of the images are mirrored: about 10 % should be."),
    ):  # fmt: skip
        hint_if(wrong, hint)
    return f"{share:.0%} of 256 images were mirrored, each by its own coin."


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


@exercise("04.3", "Shift by reflection", "medium", 8)
@task(
    [(_images(1)[0], *by) for by in ((0, 0), (2, 1), (-3, 0), (0, 3), (3, -3), (-1, -2))],
    "moved either way, and the borders look like a picture, not like a black frame.",
    errors={
        "padding": "F.pad cannot reflect like that. It wants [left, right, top, bottom], each smaller than the image."
    },
)
def shift(image: Tensor, down: int, right: int) -> Expected:
    ways = [
        (-down, -right, "it moved up and left: for the picture to go down, the window must go up."),
        (right, down, "down and right are exchanged: down is along the rows, dimension 1 of (3, H, W)."),
        (-right, -down, "down and right are exchanged, and both go the wrong way."),
        (down, -right, "down is right, but right went left: the window moves against the picture."),
        (-down, right, "right is right, but down went up: the window moves against the picture."),
    ]
    if (down, right) != (2, 1):
        ways = [(a, b, f"moved by ({down}, {right}) it went another way. Try negative shifts too.") for a, b, _ in ways]
    borders = {
        "circular": "what left at the bottom came in again at the top: that is what `roll` does. Reflect instead.",
        "constant": 'what became free is black. `F.pad(…, mode="reflect")` fills it with the mirror image.',
        "replicate": "the outermost row is repeated. Reflection goes back into the image: rows 2, 1, then 0.",
        "symmetric": "the outermost row comes twice. Reflection does not repeat it: rows 2, 1, then 0.",
    }
    mistakes = [
        *((_moved(image, a, b, fill), hint) for a, b, hint in ways for fill in FILLS),
        *((_moved(image, down, right, fill), hint) for fill, hint in borders.items()),
    ]
    size = (
        lambda made: isinstance(made, Tensor) and made.shape[:1] == (3,) and made.shape != image.shape,
        f"a shifted image has the size of the image, {SIDE}×{SIDE}; yours has {{shape}}. Pad all four sides alike, and "
        "cut out a window of as many rows and columns as the image has.",
    )
    otherwise = (
        f"What was in row 0, column 0 should be {abs(down)} further {'down' if down >= 0 else 'up'} and {abs(right)} "
        f"further {'right' if right >= 0 else 'left'}, and nothing of it where it was."
    )
    if down == right == 0:
        otherwise = "A shift by 0 and 0 should change nothing: where must the window begin if it has not moved?"
    return Expected(f"the image moved by ({down}, "
        f"{right})", _moved(image, down, right), mistakes, otherwise, signs=[size])  # fmt: skip


# ---- Soft labels


def soft_inputs() -> Iterator[tuple[Tensor, Tensor]]:
    """Scores and shares of each class; then scores whose probabilities are stored as 0."""
    generator = torch.Generator().manual_seed(5)
    scores, targets = 3 * torch.randn(6, 4, generator=generator), torch.rand(6, 4, generator=generator)
    yield scores, targets / targets.sum(dim=1, keepdim=True)
    yield torch.tensor([[200.0, 0.0, -200.0]]), torch.tensor([[0.5, 0.5, 0.0]])


@exercise("04.4", "Cross-entropy with soft labels", "medium", 6)
@task(soft_inputs, "F.cross_entropy says the same. A hard label is the case where one share is 1.")
def soft_cross_entropy(scores: Tensor, targets: Tensor) -> Expected:
    return replace(cross_entropy(scores, targets, 0.0), learns={"scores": "the scores"})


# ---- CutMix

BOXES = ((2, 1, 3, 6), (-2, 5, 4, 6), (6, -3, 5, 5), (-4, 2, 3, 3))
"""Top, left, height, width; all but the first hang over the edge."""
LABELS = (torch.tensor([0.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, 1.0]))


@exercise("04.5", "CutMix, with the label from the true area", "hard", 10)
@task(
    [(*_images(2, seed=6), *LABELS, box) for box in BOXES],
    "the label says what is to be seen, even where the box hangs over the edge.",
    wants=(tuple, "give back two things: the mixed image and its label."),
)
def cutmix(
    image: Tensor, other: Tensor, one: Tensor, two: Tensor, box: tuple[int, int, int, int]
) -> dict[str, Expected]:
    top, left, height, width = box
    inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    inside[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)] = True
    counted, nominal = int(inside.sum()), height * width

    def label(share: float) -> Tensor:
        return (1 - share) * one + share * two

    places = (
        "The rectangle is not where it should be. With top 2, left 1, height 3, width 6, rows 2 to 4 and columns 1 to "
        "6 are the other image's, at the same place."
    )
    nothing = "the image has not changed: where is the other image's rectangle?"
    if counted < nominal:
        places = nothing = (
            f"The box {box} reaches beyond the image, and what is pasted is not the part that lies on it. A negative "
            "start or stop counts from the end in Python: cut both off at 0 and at the image's size first."
        )
    return {
        "image": Expected("the mixed image", torch.where(inside, other, image), [
            (torch.where(inside, image, other), "the box shows the image itself and all around is the other one: the "
             "box is what comes from the other image."),
            (torch.where(inside.T, other, image), "the box lies on its side: top and height go with rows, dimension "
             "1."),
            (image, nothing),
        ], places),
        "label": Expected("the label", label(counted / SIDE**2), [
            (one, "the label is still the image's own, although part of the image is now something else."),
            (label(1 - counted / SIDE**2), "the shares are exchanged: the box is the other image's part."),
            (label(nominal / SIDE**2), f"the box {box} has {nominal} pixels, but only {counted} of them lie on the "
             "image. The label should say what is to be seen: count those."),
        ], f"The box has {counted} of {SIDE**2} pixels."),
    }  # fmt: skip
