"""Checks of notebook 04, on data and augmentation."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from c2f.training.sources.photographs import load_photographs
from c2f_course.figures.notebook_04 import LETTERS, RIDDLE, riddle_images, riddle_row
from c2f_course.tasks.exercise import (
    Blank,
    Hint,
    exercise,
    expect_close,
    expect_tensor,
)

SIDE = 8


def _images(count: int, seed: int = 4) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def _unchanged(before: Tensor, after: Tensor, what: str) -> None:
    if not torch.equal(before, after):
        raise Hint(f"{what} is no longer what it was before the call. Work on a copy: another line may need it still.")


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
    """Knows: a letter left out, a name that does not exist, and each augmentation taken for another one."""
    if not isinstance(answer, dict) or set(answer) != set(LETTERS):
        raise Hint(f"give a dictionary with a name for each of the letters {', '.join(LETTERS)}.")
    if all(name is ... or name is None for name in answer.values()):
        raise Blank
    photographs = load_photographs().images
    for letter, shown in riddle_images(photographs).items():
        name = answer[letter]
        if name is ... or name is None:
            raise Hint(f"{letter} has no name yet.")
        if name not in RIDDLE:
            raise Hint(f"{letter}: there is no {name!r} among them; the six are {', '.join(RIDDLE)}.")
        if not torch.equal(shown, riddle_row(name, photographs)):
            raise Hint(f"{letter} is something else: {SIGNS[name]}. Is that so in column {letter}?")
    return "each leaves its own traces: black corners, mirrored borders, straight edges, or none at all."


@exercise("04.1", "Flip half of a batch", "easy", 6)
def flip_some(answer: Callable[[Tensor, float, torch.Generator], Tensor]) -> str:
    """Knows: one coin for all, rows instead of columns, the generator left unused, a coin for each pixel,
    probability turned around or left unused, exactly the first half, and the input overwritten."""
    images = _images(256)
    before = images.clone()

    def run(probability: float, seed: int) -> Tensor:
        flipped = answer(images, probability, torch.Generator().manual_seed(seed))
        flipped = expect_tensor(flipped, tuple(images.shape), "the batch")
        _unchanged(before, images, "the batch that went in")
        return flipped

    every = run(1.0, 0)
    if _same(every, images.flip(-2)):
        raise Hint("with probability 1 every image stands on its head: which dimension of (N, 3, H, W) runs sideways?")
    if _same(every, images.flip(0)) or _same(every, images.flip(1)):
        raise Hint("images or colours changed places; it is the last dimension of (N, 3, H, W) that runs sideways.")
    if _same(every, images):
        raise Hint("with probability 1 every image should be mirrored, and none is. What is a random number < 1?")
    if not _same(run(0.0, 0), images):
        raise Hint("with probability 0 no image should change. Compare the random numbers with `probability`.")

    mirrored, kept = _which_of(run(0.5, 1), images)
    if not (mirrored | kept).all():
        raise Hint(
            "some images are neither mirrored nor as they were, but a mixture of both. One coin an image, please, not "
            "one a pixel or a row: what shape must the choice have to fit (N, 3, H, W)?"
        )
    share = mirrored.float().mean().item()
    if share in (0.0, 1.0):
        raise Hint("the whole batch shares one coin: all images or none. Draw N numbers, one for each image.")
    again, other = _which_of(run(0.5, 1), images)[0], _which_of(run(0.5, 2), images)[0]
    if torch.equal(mirrored, other) and torch.equal(mirrored, again):
        raise Hint("the same images are mirrored whatever the generator: chance should decide which ones.")
    if not torch.equal(mirrored, again):
        raise Hint(
            "two runs with generators of the same seed mirror different images: hand the generator to `torch.rand`."
        )
    few = _which_of(run(0.1, 3), images)[0].float().mean().item()
    if few > 0.3:
        raise Hint(f"with probability 0.1, {few:.0%} of the images are mirrored: about 10 % should be.")
    return f"{share:.0%} of 256 images were mirrored, each by its own coin."


def _which_of(flipped: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Which images are mirrored and which are as they were, each (N,)."""
    return (
        torch.isclose(flipped, images.flip(-1)).flatten(1).all(1),
        torch.isclose(flipped, images).flatten(1).all(1),
    )


@exercise("04.3", "Shift by reflection", "medium", 8)
def shift(answer: Callable[[Tensor, int, int], Tensor]) -> str:
    """Knows: the other direction, down and right exchanged, black, repeated or wrapped-around borders, and a window
    that has the wrong size."""
    image = _images(1)[0]
    before = image.clone()

    def run(down: int, right: int) -> Tensor:
        try:
            moved = answer(image, down, right)
        except RuntimeError as error:
            if "padding" in str(error).lower():
                raise Hint(
                    "F.pad cannot reflect like that. It wants [left, right, top, bottom], each smaller than the image."
                ) from error
            raise
        if isinstance(moved, Tensor) and moved.shape[:1] == (3,) and moved.shape != image.shape:
            raise Hint(
                f"a shifted image has the size of the image, {SIDE}×{SIDE}; yours has {tuple(moved.shape[1:])}. "
                "Pad all four sides alike, and cut out a window of as many rows and columns as the image has."
            )
        return expect_tensor(moved, tuple(image.shape), "the shifted image")

    if not _same(run(0, 0), image):
        raise Hint("a shift by 0 and 0 should change nothing: where must the window begin if it has not moved?")
    moved = run(2, 1)
    _unchanged(before, image, "the image that went in")
    inside, whole = moved[:, 2:, 1:], image[:, :-2, :-1]
    for down, right, hint in (
        (-2, -1, "it moved up and left: for the picture to go down, the window must go up"),
        (1, 2, "down and right are exchanged: down is along the rows, dimension 1 of (3, H, W)"),
        (-1, -2, "down and right are exchanged, and both go the wrong way"),
        (2, -1, "down is right, but right went left: the window moves against the picture"),
        (-2, 1, "right is right, but down went up: the window moves against the picture"),
    ):
        if _same(_part(moved, down, right), _part(image, -down, -right)):
            raise Hint(f"{hint}.")
    if not _same(inside, whole):
        raise Hint(
            "where row 0, column 0 of the image was, there should now be nothing of it; find it in row 2, col. 1."
        )
    top, corner = moved[:, :2, 1:], image[:, :2, :-1]
    if _same(top, image[:, -2:, :-1]):
        raise Hint("what left at the bottom came in again at the top: that is what `roll` does. Reflect instead.")
    if (top == 0).all():
        raise Hint('what became free is black. `F.pad(…, mode="reflect")` fills it with the mirror image.')
    if _same(top, corner[:, :1].expand_as(top)):
        raise Hint("the outermost row is repeated. Reflection goes back into the image: rows 2, 1, then 0.")
    if _same(top, corner.flip(1)):
        raise Hint("the outermost row comes twice. Reflection does not repeat it: rows 2, 1, then 0.")
    right_part = F.pad(image[None], [3] * 4, mode="reflect")[0]
    for down, right in ((2, 1), (-3, 0), (0, 3), (3, -3), (-1, -2)):
        window = right_part[:, 3 - down :, 3 - right :][:, :SIDE, :SIDE]
        expect_close(run(down, right), window, f"the image moved by ({down}, {right})", hint="Try negative shifts too.")
    return "moved either way, and the borders look like a picture, not like a black frame."


def _part(image: Tensor, down: int, right: int) -> Tensor:
    """What of an image is still there, seen from where it went."""
    rows = slice(max(down, 0), SIDE + min(down, 0))
    columns = slice(max(right, 0), SIDE + min(right, 0))
    return image[:, rows, columns]


@exercise("04.4", "Cross-entropy with soft labels", "medium", 6)
def soft_cross_entropy(answer: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Knows: the hard label instead, softmax over the batch, no softmax, no logarithm, the sign, sum or mean over
    everything in place of the mean over images, and large scores that overflow."""
    generator = torch.Generator().manual_seed(5)
    scores = 3 * torch.randn(6, 4, generator=generator)
    targets = torch.rand(6, 4, generator=generator)
    targets = targets / targets.sum(dim=1, keepdim=True)
    right = F.cross_entropy(scores, targets)
    value = answer(scores.clone(), targets.clone())
    if isinstance(value, Tensor) and value.numel() > 1:
        raise Hint(f"that has shape {tuple(value.shape)}: one number for the batch, the mean over its images.")
    value = expect_tensor(value, (), "the loss")
    log = scores.log_softmax(dim=1)
    each = -(targets * log).sum(dim=1)
    mistakes = (
        (F.cross_entropy(scores, targets.argmax(dim=1)), "that uses only each label's largest share. Use them all."),
        (-right, "the sign is the other way around: a loss is above zero, and logarithms of probabilities are below."),
        (each.sum(), "that is the sum over the images; the mean does not change with the size of the batch."),
        (each.mean() / 4, "that is the mean over images and classes. Sum over classes, then average over images."),
        (-(targets * scores.log_softmax(dim=0)).sum(1).mean(), "softmax went over the batch: over which dimension do "
         "one image's probabilities sum to 1?"),
        (-(targets * scores).sum(1).mean(), "the scores are not probabilities yet: log_softmax comes first."),
        (-(targets * scores.softmax(dim=1)).sum(1).mean(), "the logarithm is missing."),
        (-(targets * scores.softmax(1).log_softmax(1)).sum(1).mean(), "softmax is taken twice."),
        (-(log.exp() * targets.log()).sum(1).mean(), "target and prediction are exchanged: the logarithm is of what "
         "the network says."),
    )  # fmt: skip
    for wrong, hint in mistakes:
        if torch.isclose(value.double(), wrong.double(), rtol=1e-4):
            raise Hint(hint)
    expect_close(value, right, "the loss", tolerance=1e-4)
    large = torch.tensor([[200.0, 0.0, -200.0]])
    expect_close(
        answer(large, torch.tensor([[0.5, 0.5, 0.0]])), torch.tensor(100.0), "the loss for scores of ±200",
        hint="A probability of e^−200 is stored as 0, and its logarithm is −∞: take both in one step, `log_softmax`.",
    )  # fmt: skip
    return f"{right:.3f}, and F.cross_entropy says the same. A hard label is the case where one share is 1."


@exercise("04.5", "CutMix, with the label from the true area", "hard", 10)
def cutmix(answer: Callable[[Tensor, Tensor, Tensor, Tensor, tuple[int, int, int, int]], tuple[Tensor, Tensor]]) -> str:
    """Knows: the label from the box as it was drawn, shares exchanged, the label left alone, inside and outside
    exchanged, rows and columns exchanged, negative starts that count from the end, and inputs overwritten."""
    image, other = _images(2, seed=6)
    one, two = torch.tensor([0.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, 1.0])

    def run(box: tuple[int, int, int, int]) -> tuple[Tensor, Tensor]:
        given = [t.clone() for t in (image, other, one, two)]
        result = answer(*given, box)
        for was, now in zip((image, other, one, two), given, strict=True):
            _unchanged(was, now, "something that went in")
        if not isinstance(result, tuple) or len(result) != 2:
            raise Hint("give back two things: the mixed image and its label.")
        return expect_tensor(result[0], tuple(image.shape), "the mixed image"), expect_tensor(
            result[1], (3,), "the label"
        )

    inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    inside[2:5, 1:7] = True  # top 2, left 1, height 3, width 6: 18 of 64 pixels
    mixed, label = run((2, 1, 3, 6))
    share = inside.float().mean()
    for wrong, hint in (
        (torch.where(inside, image, other), "the box shows the image itself and all around is the other one: the box "
         "is what comes from the other image."),
        (torch.where(inside.T, other, image), "the box lies on its side: top and height go with rows, dimension 1."),
        (image, "the image has not changed: where is the other image's rectangle?"),
    ):  # fmt: skip
        if _same(mixed, wrong):
            raise Hint(hint)
    if not _same(mixed, torch.where(inside, other, image)):
        raise Hint(
            "the rectangle is not where it should be. With top 2, left 1, height 3, width 6, rows 2 to 4 and columns "
            "1 to 6 are the other image's, at the same place."
        )
    if _same(label, one):
        raise Hint("the label is still the image's own, although part of the image is now something else.")
    if _same(label, share * one + (1 - share) * two):
        raise Hint("the shares are exchanged: the box is the other image's part.")
    expect_close(label, (1 - share) * one + share * two, "the label", hint="The box has 18 of 64 pixels.")

    for box, rows, columns, nominal in (
        ((-2, 5, 4, 6), slice(0, 2), slice(5, SIDE), 24),
        ((6, -3, 5, 5), slice(6, SIDE), slice(0, 2), 25),
        ((-4, 2, 3, 3), slice(0, 0), slice(2, 5), 9),
    ):
        mixed, label = run(box)
        inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        inside[rows, columns] = True
        share, counted = inside.float().mean(), int(inside.sum())
        if not _same(mixed, torch.where(inside, other, image)):
            raise Hint(
                f"the box {box} reaches beyond the image, and what is pasted is not the part that lies on it. A "
                "negative start or stop counts from the end in Python: cut both off at 0 and at the image's size first."
            )
        if _same(label, (1 - nominal / SIDE**2) * one + nominal / SIDE**2 * two):
            raise Hint(
                f"the box {box} has {nominal} pixels, but only {counted} of them lie on the image. The label should "
                "say what is to be seen: count those."
            )
        expect_close(label, (1 - share) * one + share * two, "the label of a box beyond the edge")
    return "the label says what is to be seen, even where the box hangs over the edge."
