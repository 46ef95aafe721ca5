"""The exercises of notebook 09: reach, intervals, how many seeds, pairs, and conclusions."""

import math
from collections.abc import Callable, Collection, Iterable
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor

from c2f_course.tasks.exercise import Hint, exercise, expect_number

RUNS_A = (81.2, 82.0, 81.6)
RUNS_B = (82.1, 81.5, 82.3)
"""The six runs of the last exercise: test accuracies in per cent, three seeds of each variant."""

Mistakes = dict[str, tuple[Callable[..., float], str]]
"""Formulas that students write, by name, each with the hint for it."""


def _explain(number: float, right: float, mistakes: Mistakes, arguments: tuple, what: str, tolerance: float) -> None:
    """Hint unless `number` is `right`: that of the first mistake whose formula gives it."""
    if abs(number - right) <= tolerance * max(abs(right), 1e-12):
        return
    for formula, hint in mistakes.values():
        try:
            wrong = float(formula(*arguments))
        except (ValueError, ZeroDivisionError):
            continue
        if abs(number - wrong) <= tolerance * max(abs(wrong), 1e-12):
            raise Hint(hint)
    raise Hint(f"{what} is {number:.6g} for {', '.join(f'{a:g}' for a in arguments)}, and that is not it.")


# ---- 1


def _side(distance: int, blocks: int) -> int:
    return next(k for k in range(1, 2 * distance + 2, 2) if blocks * (k // 2) >= distance)


REACH: Mistakes = {
    "as if one block": (
        lambda d, n: 2 * d + 1,
        "that is right for one block. Each further block carries on what the one before has collected: the steps add.",
    ),
    "whole kernels": (
        lambda d, n: math.ceil(d / n),
        "you let each block reach k positions. A kernel lies around its centre: how far from there is its last tap?",
    ),
    "whole kernels, made odd": (
        lambda d, n: math.ceil(d / n) // 2 * 2 + 1,
        "you let each block reach k positions. A kernel lies around its centre: how far from there is its last tap?",
    ),
    "rounded down": (
        lambda d, n: 2 * (d // n) + 1,
        "where the distance is no multiple of the blocks you stop a step short of the other disc: round up.",
    ),
    "not the smallest": (
        lambda d, n: 2 * (d // n + 1) + 1,
        "that kernel sees it, and where the distance is a multiple of the blocks a smaller one does too.",
    ),
    "rounded late": (
        lambda d, n: math.ceil(2 * d / n) + 1,
        "that is an even side for some distances. Round the steps of one block, which are whole, and not the side.",
    ),
    "not whole": (
        lambda d, n: 2 * d / n + 1,
        "a block goes a whole number of steps. If it takes 2.3 of them, how many must it go?",
    ),
    "even": (
        lambda d, n: 2 * math.ceil(d / n),
        "this kernel has an even side, so it has no centre. What is missing beside the taps on its left and right?",
    ),
    "window": (
        lambda d, n: math.ceil(d / n / 2) * 2 + 1,
        "a window that is as wide as the distance holds both ends only if its centre lies between them. Here the "
        "centre is on one of the two.",
    ),
}


@exercise("09.1", "Which kernel sees that far", "easy", 5)
def smallest_kernel(answer: Callable[[int, int], int]) -> str:
    """Knows: one block only, k for k // 2, even sides, rounding down or twice, the window between the two."""
    for case in ((5, 1), (8, 2), (7, 3), (10, 4), (12, 5), (1, 4), (9, 4)):
        number = expect_number(answer(*case), "the kernel's side")
        _explain(number, _side(*case), REACH, case, "the side", 1e-9)
    return (
        "each block goes k // 2 positions further. To see 10 positions far takes k = 21 in one block, or k = 5 in "
        "five: depth and width are two ways to the same place."
    )


# ---- 2

Z = 1.96


def _error(right: int, n: int) -> float:
    p = right / n
    return math.sqrt(p * (1 - p) / n)


HALF_WIDTH: Mistakes = {
    "one standard error": (
        lambda r, n: _error(r, n),
        "this interval is one standard error to each side, which holds the truth about 68 times in 100. For 95 "
        "it takes 1.96 of them.",
    ),
    "no root": (
        lambda r, n: Z * _error(r, n) ** 2,
        "p (1 − p) / n is the variance of the accuracy. The standard error has the unit of p: its root.",
    ),
    "spread of one image": (
        lambda r, n: Z * math.sqrt(r / n * (1 - r / n)),
        "that is the spread of a single answer, right or wrong. The mean of n answers varies far less: where is n?",
    ),
    "n outside the root": (
        lambda r, n: Z * math.sqrt(r / n * (1 - r / n)) / n,
        "the spread of a mean falls with the root of n, not with n: four times the images halve it.",
    ),
    "one-sided": (
        lambda r, n: 1.645 * _error(r, n),
        "1.645 leaves 5 % at each end, 10 in all. A 95 % interval leaves 2.5 % at each end: 1.96.",
    ),
    "halved": (
        lambda r, n: Z / 2 * _error(r, n),
        "the whole interval is as wide as it should be to one side: it reaches 1.96 standard errors to each.",
    ),
    "worst case": (
        lambda r, n: Z * 0.5 / math.sqrt(n),
        "that is the interval at an accuracy of one half, the widest there is. Use this accuracy's own p (1 − p).",
    ),
    "n less one": (
        lambda r, n: Z * math.sqrt(r / n * (1 - r / n) / (n - 1)),
        "you divided by n − 1. For a count of right answers the variance is p (1 − p) / n; the difference is small "
        "here, but this formula has no − 1.",
    ),
}


@exercise("09.3", "How sure an accuracy is", "easy", 6)
def interval(answer: Callable[[int, int], tuple[float, float]]) -> str:
    """Knows: no root, n at the wrong place, 1 or 1.645 for 1.96, per cent, half the width, ends exchanged."""
    for right, n in ((340, 355), (50, 80), (9100, 10000)):
        p, half = right / n, Z * _error(right, n)
        found = answer(right, n)
        if isinstance(found, Tensor):
            found = found.tolist()
        if not isinstance(found, list | tuple) or len(found) != 2:
            raise Hint("return two numbers, (low, high): the interval's ends.")
        low, high = (expect_number(end, name) for end, name in zip(found, ("low", "high"), strict=True))
        if low > high:
            raise Hint("low is above high: give the lower end first.")
        if high > 1.5:
            raise Hint("these are per cent or counts; the accuracy here is a share from 0 to 1, and so are both ends.")
        if abs(low + high) < 1e-9:
            raise Hint("the interval lies around 0. It should lie around the accuracy, right / n.")
        if abs((low + high) / 2 - p) > 1e-6:
            raise Hint(f"the interval's middle is {(low + high) / 2:.4g}; it should be the accuracy, {p:.4g}.")
        _explain((high - low) / 2, half, HALF_WIDTH, (right, n), "half the interval's width", 1e-4)
    return "340 of 355 is 95.8 %, and the truth may be anywhere from 93.7 to 97.9: a range of four points."


# ---- 3


SEEDS: Mistakes = {
    "one side only": (
        lambda d, s: math.ceil(4 * s**2 / d**2),
        "that is right where only one of the two means varies. Both do: the variances of the two means add.",
    ),
    "one side only, not whole": (
        lambda d, s: 4 * s**2 / d**2,
        "that is right where only one of the two means varies. Both do: the variances of the two means add.",
    ),
    "one standard error": (
        lambda d, s: math.ceil(2 * s**2 / d**2),
        "with so few the difference is one standard error. Ask for two.",
    ),
    "no square": (
        lambda d, s: math.ceil(2 * math.sqrt(2) * s / d),
        "solve for √n, and then square it: half the difference takes four times the seeds.",
    ),
    "errors added": (
        lambda d, s: math.ceil((4 * s / d) ** 2),
        "you added the two standard errors. Independent errors add in squares: √(s²/n + s²/n).",
    ),
    "not whole": (
        lambda d, s: 8 * s**2 / d**2,
        "a run is whole. Round up.",
    ),
    "rounded down": (
        lambda d, s: math.floor(8 * s**2 / d**2),
        "rounded down, they are just too few. Round up.",
    ),
    "exchanged": (
        lambda d, s: math.ceil(8 * d**2 / s**2),
        "with this formula a larger difference takes more seeds. It should be the other way around.",
    ),
    "1.96": (
        lambda d, s: math.ceil(2 * 1.96**2 * s**2 / d**2),
        "1.96 would be the finer number; the task says two standard errors, 2.",
    ),
}


@exercise("09.2", "How many seeds", "medium", 8)
def seeds_needed(answer: Callable[[float, float], int]) -> str:
    """Knows: one mean's error only, one standard error, no square, errors added, rounding, difference for spread."""
    # Where the formula gives a whole number, some ways to write it are a hair above that; not at (0.4, 0.6), 18.
    for case in ((0.3, 0.7), (0.5, 0.6), (0.4, 0.6), (0.1, 0.3)):
        right = math.ceil(8 * case[1] ** 2 / case[0] ** 2 - 1e-9)
        number = expect_number(answer(*case), "the number of seeds")
        _explain(number, right, SEEDS, case, "the number of seeds", 1e-9)
    return (
        "with a spread of 0.6 points, half a point takes 12 seeds of each variant, a tenth of a point 288. Small gains "
        "are dear to prove."
    )


# ---- 4


@exercise("09.4", "The same images for both", "medium", 6)
def paired(answer: Callable[[Tensor, Tensor], tuple[float, float]]) -> str:
    """Knows: the unpaired error, no root of n, variance for spread, the sign, counts, absolute differences."""
    draw = torch.Generator().manual_seed(9)
    n = 500
    hard = torch.rand(n, generator=draw)
    a, b = ((hard + 0.12 * torch.randn(n, generator=draw)) < limit for limit in (0.82, 0.86))
    before = a.clone(), b.clone()
    try:
        found = answer(a, b)
    except RuntimeError as error:
        if not str(error):  # a gap: `raise NotImplementedError`
            raise
        raise Hint(
            f"torch refuses: {str(error).strip().splitlines()[0]} Right and wrong are booleans; a "
            "difference needs numbers."
        ) from error
    if not (torch.equal(a, before[0]) and torch.equal(b, before[1])):
        raise Hint("your code changed the answers themselves; make new tensors.")
    if isinstance(found, Tensor):
        found = found.tolist()
    if not isinstance(found, list | tuple) or len(found) != 2:
        raise Hint("return two numbers: the difference of the accuracies, and its standard error.")
    difference, error = (expect_number(v, w) for v, w in zip(found, ("the difference", "the error"), strict=True))
    d = b.double() - a.double()
    right, spread = d.mean().item(), d.std().item()
    if abs(difference - right) > 1e-6:
        if abs(difference + right) < 1e-6:
            raise Hint("the difference has the wrong sign: it is b's accuracy less a's, above 0 where b is better.")
        if abs(difference - d.sum().item()) < 1e-6:
            raise Hint("that is a count of images. Divide by their number: a difference of accuracies.")
        if abs(difference - d.abs().mean().item()) < 1e-6:
            raise Hint("you counted every image on which they disagree, whoever was right. Keep the sign: +1 and −1.")
        if abs(difference - 100 * right) < 1e-4:
            raise Hint("that is in points; give shares, from −1 to 1.")
        raise Hint(f"the difference is {difference:.4g}, and that is not it: the mean of b less the mean of a.")
    pa, pb = a.double().mean().item(), b.double().mean().item()
    unpaired = math.sqrt((pa * (1 - pa) + pb * (1 - pb)) / n)
    wrong: Iterable[tuple[float, str]] = (
        (
            unpaired,
            "that is the error for two test sets of their own: it lets a hard image be hard for one of them only. Here "
            "both saw the same images. Take the difference on each image first, then the spread of these.",
        ),
        (
            unpaired**2,
            "that is a variance, and for two test sets of their own. Take the difference on each image first.",
        ),
        (spread, "that is the spread over single images. The mean of n of them varies less, by the root of n."),
        (spread / n, "the spread of a mean falls with the root of n, not with n."),
        (spread**2 / n, "that is the variance of the mean; its root has the unit of the difference."),
        (spread**2, "that is the variance over single images. Root, and then the root of n."),
        (
            d.abs().double().std().item() / math.sqrt(n),
            "without their sign the differences spread less. Keep +1 and −1.",
        ),
        (1.96 * spread / math.sqrt(n), "the standard error itself is asked for; 1.96 of them make the interval."),
    )
    if abs(error - spread / math.sqrt(n)) > 2e-3 * spread / math.sqrt(n):
        for value, hint in wrong:
            if abs(error - value) <= 2e-3 * value:
                raise Hint(hint)
        raise Hint(f"the standard error is {error:.4g}, and that is not it.")
    return (
        f"on these {n} images the paired error is {spread / math.sqrt(n):.4f}, the unpaired one {unpaired:.4f}: the "
        "same answers, and a sharper look, since what is hard for both cancels."
    )


# ---- 5


def _truths() -> dict[str, bool]:
    """Which statement of the exercise holds, from the runs themselves."""
    gain = mean(RUNS_B) - mean(RUNS_A)
    error = math.sqrt((stdev(RUNS_A) ** 2 + stdev(RUNS_B) ** 2) / 3)
    return {
        "a": gain > 0,
        "b": gain >= 2 * error,
        "c": False,  # not to find a difference is not to find that there is none
        "d": gain - 2 * error < 0.5 < gain + 2 * error,
        "e": False,  # the best of one against the worst of the other
        "f": False,  # the spread is over seeds, and the test images are the same in every run
    }


WHY = {
    "a": "is about these six runs and no others. Take the two means.",
    "b": "asks for a difference of two standard errors. Work it out: √(s_A²/3 + s_B²/3), and compare.",
    "c": "says that there is no difference. Does a test that could not have found half a point say so?",
    "d": "asks what cannot be excluded. Where do two standard errors to either side of the difference reach?",
    "e": "takes the worst run of one and the best of the other. Would the same trick not make A better than B?",
    "f": "speaks of other test images. Which part of the luck did the three seeds vary, and which was the same in all?",
}


@exercise("09.5", "What six runs allow you to say", "hard", 8)
def conclusions(answer: Collection[str]) -> str:
    """Knows, for each statement, why it is chosen or left out; and answers that are no set of letters."""
    chosen = _letters(answer)
    truths = _truths()
    if unknown := sorted(chosen - truths.keys()):
        raise Hint(f"there is no statement {unknown[0]!r}; the statements are {', '.join(truths)}.")
    for letter, holds in truths.items():
        if (letter in chosen) != holds:
            did = "left out" if holds else "chose"
            raise Hint(f"look again at ({letter}), which you {did}: it {WHY[letter]}")
    return "the description is safe, and so is what cannot be excluded. Everything else claims more than six runs know."


def _letters(answer: Any) -> set[str]:
    if isinstance(answer, str):
        answer = [letter for letter in answer if letter.isalnum()]
    if not isinstance(answer, Collection) or not all(isinstance(letter, str) for letter in answer):
        raise Hint("give the letters of the statements as a set of strings, such as {'x', 'y'}.")
    return {letter.strip().strip("()").lower() for letter in answer}
