"""Each wrong answer that students give to notebook 04's exercises gets a hint of its own."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from c2f.training.sources.photographs import load_photographs
from c2f_course.figures.notebook_04 import LETTERS, RIDDLE, riddle_images, riddle_row
from c2f_course.tasks import notebook_04 as checks

# 04.1


def flip_right(images, probability, generator):
    coins = torch.rand(len(images), generator=generator) < probability
    return torch.where(coins.view(-1, 1, 1, 1), images.flip(-1), images)


def flip_along(dim: int) -> Callable:
    def flip(images, probability, generator):
        coins = torch.rand(len(images), generator=generator) < probability
        return torch.where(coins.view(-1, 1, 1, 1), images.flip(dim), images)

    return flip


def flip_all_or_none(images, probability, generator):
    return images.flip(-1) if torch.rand(1, generator=generator) < probability else images


def flip_turned_around(images, probability, generator):
    coins = torch.rand(len(images), generator=generator) > probability
    return torch.where(coins.view(-1, 1, 1, 1), images.flip(-1), images)


def flip_each_pixel(images, probability, generator):
    return torch.where(torch.rand(images.shape, generator=generator) < probability, images.flip(-1), images)


def flip_without_generator(images, probability, generator):
    return torch.where((torch.rand(len(images)) < probability).view(-1, 1, 1, 1), images.flip(-1), images)


def flip_first_half(images, probability, generator):
    count = round(probability * len(images))
    return torch.cat([images[:count].flip(-1), images[count:]])


def flip_in_place(images, probability, generator):
    coins = torch.rand(len(images), generator=generator) < probability
    images[coins] = images[coins].flip(-1)
    return images


def flip_always_half(images, probability, generator):
    share = probability if probability in (0, 1) else 0.5
    return flip_right(images, share, generator)


def flip_broadcast(images, probability, generator):
    coins = torch.rand(len(images), generator=generator) < probability
    return torch.where(coins, images.flip(-1), images)


FLIPS = {
    "as it should be": (flip_right, None),
    "upside down": (flip_along(-2), "stands on its head"),
    "the batch turned around": (flip_along(0), "images or colours changed places"),
    "the colours turned around": (flip_along(1), "images or colours changed places"),
    "one coin for all": (flip_all_or_none, "shares one coin"),
    "more than instead of less": (flip_turned_around, "none is"),
    "a coin for each pixel": (flip_each_pixel, "a mixture of both"),
    "the generator is not used": (flip_without_generator, "generators of the same seed"),
    "no chance at all": (flip_first_half, "whatever the generator"),
    "in place": (flip_in_place, "no longer what it was"),
    "the probability is not used": (flip_always_half, "with probability 0.1"),
    "coins that do not fit": (flip_broadcast, "your code raised RuntimeError"),
    "nothing changes": (lambda images, probability, generator: images, "none is"),
}

# 04.2


@pytest.fixture(scope="module")
def named() -> dict[str, str]:
    """The right names, found by comparing."""
    photographs = load_photographs().images
    shown = riddle_images(photographs)
    rows = {name: riddle_row(name, photographs) for name in RIDDLE}
    return {a: next(n for n in RIDDLE if torch.equal(rows[n], shown[a])) for a in LETTERS}


def test_the_right_names_pass_and_no_two_rows_are_alike(named: dict[str, str]) -> None:
    assert sorted(named.values()) == sorted(RIDDLE)
    assert checks.which(named).passed


@pytest.mark.parametrize("wrong", RIDDLE)
def test_a_wrong_name_is_told_by_its_traces(wrong: str, named: dict[str, str]) -> None:
    letter = next(a for a in LETTERS if named[a] != wrong)
    verdict = checks.which(named | {letter: wrong})
    assert verdict.state == "hint" and verdict.message.startswith(f"{letter} is something else")
    assert checks.SIGNS[wrong] in verdict.message


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"A": ...}, "A has no name yet"),
        ({"A": "zoom"}, "there is no 'zoom' among them"),
        ({"G": "flip"}, "give a dictionary"),
    ],
    ids=["one left", "no such name", "a seventh letter"],
)
def test_names_that_are_missing(change: dict, sentence: str, named: dict[str, str]) -> None:
    verdict = checks.which(named | change)
    assert verdict.state == "hint" and sentence in verdict.message


def test_no_names_at_all_are_blank() -> None:
    assert checks.which(dict.fromkeys(LETTERS, ...)).state == "blank"


# 04.3


def window_of(mode: str, padding: int = 3) -> Callable:
    def shift(image, down, right):
        height, width = image.shape[1:]
        padded = F.pad(image, [padding] * 4, mode=mode)
        return padded[:, padding - down :, padding - right :][:, :height, :width]

    return shift


reflect = window_of("reflect")


def shift_symmetric(image, down, right):
    wide = torch.cat([image[:, :3].flip(1), image, image[:, -3:].flip(1)], dim=1)
    wide = torch.cat([wide[:, :, :3].flip(2), wide, wide[:, :, -3:].flip(2)], dim=2)
    return wide[:, 3 - down :, 3 - right :][:, : image.shape[1], : image.shape[2]]


def shift_only_positive(image, down, right):
    return reflect(image, abs(down), abs(right))


def shift_in_place(image, down, right):
    image.copy_(reflect(image, down, right))
    return image


SHIFTS = {
    "as it should be": (reflect, None),
    "black": (window_of("constant"), "is black"),
    "repeated": (window_of("replicate"), "outermost row is repeated"),
    "the border twice": (shift_symmetric, "comes twice"),
    "rolled": (lambda image, down, right: image.roll((down, right), (1, 2)), "what `roll` does"),
    "the other way": (lambda image, down, right: reflect(image, -down, -right), "moved up and left"),
    "right is left": (lambda image, down, right: reflect(image, down, -right), "right went left"),
    "down is up": (lambda image, down, right: reflect(image, -down, right), "down went up"),
    "exchanged": (lambda image, down, right: reflect(image, right, down), "down and right are exchanged: down"),
    "exchanged, and the other way": (lambda image, down, right: reflect(image, -right, -down), "both go the wrong way"),
    "not cut out": (lambda image, down, right: F.pad(image, [3] * 4, mode="reflect"), "has the size of the image"),
    "starts at 0": (lambda image, down, right: F.pad(image, [3] * 4, mode="reflect")[:, :8, :8], "if it has not moved"),
    "never moved": (lambda image, down, right: image, "nothing of it"),
    "in place": (shift_in_place, "no longer what it was"),
    "never negative": (shift_only_positive, "Try negative shifts too"),
    "too much padding": (window_of("reflect", 9), "each smaller than the image"),
}

# 04.4


def soft(scores, targets):
    return -(targets * scores.log_softmax(dim=1)).sum(dim=1).mean()


LOSSES = {
    "as it should be": (soft, None),
    "the hard label": (lambda s, t: F.cross_entropy(s, t.argmax(1)), "only each label's largest share"),
    "no minus": (lambda s, t: -soft(s, t), "sign is the other way"),
    "sum over images": (lambda s, t: soft(s, t) * len(s), "the sum over the images"),
    "mean over everything": (lambda s, t: -(t * s.log_softmax(1)).mean(), "images and classes"),
    "softmax over the batch": (lambda s, t: -(t * s.log_softmax(0)).sum(1).mean(), "went over the batch"),
    "no softmax": (lambda s, t: -(t * s).sum(1).mean(), "not probabilities yet"),
    "no logarithm": (lambda s, t: -(t * s.softmax(1)).sum(1).mean(), "logarithm is missing"),
    "softmax twice": (lambda s, t: soft(s.softmax(1), t), "taken twice"),
    "exchanged": (lambda s, t: -(s.softmax(1) * t.log()).sum(1).mean(), "exchanged"),
    "one number an image": (lambda s, t: -(t * s.log_softmax(1)).sum(1), "one number for the batch"),
    "underflow": (lambda s, t: -(t * s.softmax(1).log()).sum(1).mean(), "log_softmax"),
    "a Python number": (lambda s, t: soft(s, t).item(), "should be a torch tensor"),
}

# 04.5


def cut(image, other, label, other_label, box, *, nominal=False, inside_out=False, on_its_side=False, clamp=True):
    top, left, height, width = box
    if on_its_side:
        top, left, height, width = left, top, width, height
    inside = torch.zeros(image.shape[1:], dtype=torch.bool)
    low = (lambda n: max(n, 0)) if clamp else (lambda n: n)
    inside[low(top) : low(top + height), low(left) : low(left + width)] = True
    share = height * width / inside.numel() if nominal else inside.float().mean()
    mixed = torch.where(inside, image, other) if inside_out else torch.where(inside, other, image)
    return mixed, (1 - share) * label + share * other_label


def cut_only_the_starts(image, other, label, other_label, box):
    """Cuts the starts off at 0 and forgets that a stop may be negative as well."""
    top, left, height, width = box
    inside = torch.zeros(image.shape[1:], dtype=torch.bool)
    inside[max(top, 0) : top + height, max(left, 0) : left + width] = True
    share = inside.float().mean()
    return torch.where(inside, other, image), (1 - share) * label + share * other_label


def cut_in_place(image, other, label, other_label, box):
    mixed, soft_label = cut(image, other, label, other_label, box)
    image.copy_(mixed)
    return image, soft_label


CUTS = {
    "as it should be": (cut, None),
    "the box as drawn": (lambda *a: cut(*a, nominal=True), "only 6 of them lie on the image"),
    "inside out": (lambda *a: cut(*a, inside_out=True), "the box shows the image itself"),
    "on its side": (lambda *a: cut(*a, on_its_side=True), "lies on its side"),
    "negative starts": (lambda *a: cut(*a, clamp=False), "counts from the end"),
    "a negative stop": (cut_only_the_starts, "start or stop counts from the end"),
    "shares exchanged": (lambda i, o, y, z, box: (cut(i, o, y, z, box)[0], cut(i, o, z, y, box)[1]), "are exchanged"),
    "the label stays": (lambda i, o, y, z, box: (cut(i, o, y, z, box)[0], y), "still the image's own"),
    "half and half": (lambda i, o, y, z, box: (cut(i, o, y, z, box)[0], (y + z) / 2), "18 of 64 pixels"),
    "the image stays": (lambda i, o, y, z, box: (i.clone(), y), "has not changed"),
    "MixUp": (lambda i, o, y, z, box: ((i + o) / 2, (y + z) / 2), "not where it should be"),
    "in place": (cut_in_place, "no longer what it was"),
    "the image alone": (lambda *a: cut(*a)[0], "give back two things"),
}

ALL = [
    pytest.param(check, *case, id=f"{check.number} {name}")
    for check, cases in (
        (checks.flip_some, FLIPS),
        (checks.shift, SHIFTS),
        (checks.soft_cross_entropy, LOSSES),
        (checks.cutmix, CUTS),
    )
    for name, case in cases.items()
]


@pytest.mark.parametrize(("check", "answer", "sentence"), ALL)
def test_each_answer_gets_its_verdict(check, answer: Callable, sentence: str | None) -> None:
    verdict = check(answer)
    assert verdict.state == ("passed" if sentence is None else "hint"), verdict.message
    assert sentence is None or sentence in verdict.message
