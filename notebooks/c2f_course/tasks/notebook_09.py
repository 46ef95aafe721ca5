"""The exercises of notebook 09: reach, intervals, how many seeds, pairs, and conclusions."""

import math
from collections.abc import Callable, Collection
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor

from c2f_course.tasks.exercise import Expected, Hint, exercise, expect_number, hint_if, task

RUNS_A = (81.2, 82.0, 81.6)
RUNS_B = (82.1, 81.5, 82.3)
"""The six runs of the last exercise: test accuracies in per cent, three seeds of each variant."""

# ---- 1


@exercise("09.1", "Which kernel sees that far", "easy", 5)
@task(
    [(5, 1), (8, 2), (7, 3), (10, 4), (12, 5), (1, 4), (9, 4)],
    "each block goes k // 2 positions further. To see 10 positions far takes k = 21 in one block, or k = 5 in five: "
    "depth and width are two ways to the same place.",
)
def smallest_kernel(distance: int, blocks: int) -> Expected:
    d, n = distance, blocks
    right = next(k for k in range(1, 2 * d + 2, 2) if n * (k // 2) >= d)
    return Expected(f"the kernel's side for {d:g}, {n:g}", right, [
        (2 * d + 1, "that is right for one block. Each further block carries on what the one before has collected: the "
         "steps add."),
        ((math.ceil(d / n), math.ceil(d / n) // 2 * 2 + 1), "you let each block reach k positions. A kernel lies "
         "around its centre: how far from there is its last tap?"),
        (2 * (d // n) + 1, "where the distance is no multiple of the blocks you stop a step short of the other disc: "
         "round up."),
        (2 * (d // n + 1) + 1, "that kernel sees it, and where the distance is a multiple of the blocks a smaller one "
         "does too."),
        (math.ceil(2 * d / n) + 1, "that is an even side for some distances. Round the steps of one block, which are "
         "whole, and not the side."),
        (2 * d / n + 1, "a block goes a whole number of steps. If it takes 2.3 of them, how many must it go?"),
        (2 * math.ceil(d / n), "this kernel has an even side, so it has no centre. What is missing beside the taps on "
         "its left and right?"),
        (math.ceil(d / n / 2) * 2 + 1, "a window that is as wide as the distance holds both ends only if its centre "
         "lies between them. Here the centre is on one of the two."),
    ])  # fmt: skip


# ---- 2


def _ask_interval(answer: Callable[..., Any], right: int, n: int) -> tuple[float, float]:
    """The middle of an interval and half its width."""
    found = _two(answer(right, n), "return two numbers, (low, high): the interval's ends.")
    low, high = (expect_number(end, name) for end, name in zip(found, ("low", "high"), strict=True))
    hint_if(low > high, "low is above high: give the lower end first.")
    hint_if(high > 1.5, "these are per cent or counts; the accuracy here is a share from 0 to 1, and so are both ends.")
    return (low + high) / 2, (high - low) / 2


def _two(found: Any, hint: str) -> Any:
    found = found.tolist() if isinstance(found, Tensor) else found
    hint_if(found is not None and found is not ... and (not isinstance(found, list | tuple) or len(found) != 2), hint)
    return found


@exercise("09.3", "How sure an accuracy is", "easy", 6)
@task(
    [(340, 355), (50, 80), (9100, 10000)],
    "340 of 355 is 95.8 %, and the truth may be anywhere from 93.7 to 97.9: a range of four points.",
    ask=_ask_interval,
)
def interval(right: int, n: int) -> dict[str, Expected]:
    p = right / n
    error, z = math.sqrt(p * (1 - p) / n), 1.96
    at = f"for {right} of {n}"
    return {
        "middle": Expected(f"the interval's middle {at}", p, [
            (0, "the interval lies around 0. It should lie around the accuracy, right / n."),
        ], f"It should be the accuracy, {p:.4g}.", 1e-6),
        "half": Expected(f"half the interval's width {at}", z * error, [
            (error, "this interval is one standard error to each side, which holds the truth about 68 times in 100. "
             "For 95 it takes 1.96 of them."),
            (z * error**2, "p (1 − p) / n is the variance of the accuracy. The standard error has the unit of p: its "
             "root."),
            (z * error * math.sqrt(n), "that is the standard deviation of a single answer, right or wrong. The mean of "
             "n answers varies far less: where is n?"),
            (z * error / math.sqrt(n), "the standard deviation of a mean falls with the root of n, not with n: four "
             "times the images halve it."),
            (1.645 * error, "1.645 leaves 5 % at each end, 10 in all. A 95 % interval leaves 2.5 % at each end: 1.96."),
            (z / 2 * error, "the whole interval is as wide as it should be to one side: it reaches 1.96 standard "
             "errors to each."),
            (z * 0.5 / math.sqrt(n), "that is the interval at an accuracy of one half, the widest there is. Use this "
             "accuracy's own p (1 − p)."),
            (z * error * math.sqrt(n / (n - 1)), "you divided by n − 1. For a count of right answers the variance is p "
             "(1 − p) / n; the difference is small here, but this formula has no − 1."),
        ], tolerance=1e-4),
    }  # fmt: skip


# ---- 3


@exercise("09.2", "How many seeds", "medium", 8)
@task(
    # Where the formula gives a whole number, some ways to write it are a hair above that; not at (0.4, 0.6), 18.
    [(0.3, 0.7), (0.5, 0.6), (0.4, 0.6), (0.1, 0.3)],
    "with a standard deviation of 0.6 points, half a point takes 12 seeds of each variant, a tenth of a point 288. "
    "Small gains are expensive to prove.",
)
def seeds_needed(d: float, s: float) -> Expected:
    return Expected(f"the number of seeds for {d:g}, {s:g}", math.ceil(8 * s**2 / d**2 - 1e-9), [
        ((math.ceil(4 * s**2 / d**2), 4 * s**2 / d**2), "that is right where only one of the two means varies. Both "
         "do: the variances of the two means add."),
        (math.ceil(2 * s**2 / d**2), "with so few the difference is one standard error. Ask for two."),
        (math.ceil(2 * math.sqrt(2) * s / d), "solve for √n, and then square it: half the difference takes four times "
         "the seeds."),
        (math.ceil((4 * s / d) ** 2), "you added the two standard errors. Independent errors add in squares: √(s²/n + "
         "s²/n)."),
        (8 * s**2 / d**2, "a run is whole. Round up."),
        (math.floor(8 * s**2 / d**2), "rounded down, they are just too few. Round up."),
        (math.ceil(8 * d**2 / s**2), "with this formula a larger difference takes more seeds. It should be the other "
         "way around."),
        (math.ceil(2 * 1.96**2 * s**2 / d**2), "1.96 would be the finer number; the task says two standard errors, 2."),
    ])  # fmt: skip


# ---- 4


def _right_or_wrong(n: int = 500) -> list[Tensor]:
    """Which images two networks get right; some images are hard for both."""
    draw = torch.Generator().manual_seed(9)
    hard = torch.rand(n, generator=draw)
    return [(hard + 0.12 * torch.randn(n, generator=draw)) < limit for limit in (0.82, 0.86)]


def _errors(a: Tensor, b: Tensor) -> tuple[float, float]:
    """The standard error of the difference of two accuracies: on the same images, and on two sets of images."""
    shares = [answers.double().mean().item() for answers in (a, b)]
    return (b.double() - a.double()).std().item() / len(a) ** 0.5, math.sqrt(sum(p * (1 - p) for p in shares) / len(a))


SAME = (
    "on these {} images the paired error is {:.4f}, the unpaired one {:.4f}: the same answers, and a sharper look, "
    "since what is hard for both cancels."
)


@exercise("09.4", "The same images for both", "medium", 6)
@task(
    [_right_or_wrong()],
    SAME.format(500, *_errors(*_right_or_wrong())),
    ask=lambda answer, a, b: _two(
        answer(a, b), "return two numbers: the difference of the accuracies, and its standard error."
    ),
    errors={"bool": "torch refuses: right and wrong are booleans; a difference needs numbers."},
)
def paired(a: Tensor, b: Tensor) -> dict[str, Expected]:
    d, (right, unpaired), n = b.double() - a.double(), _errors(a, b), len(a)
    own = (
        "Here both saw the same images. Take the difference on each image first, then the standard deviation of these."
    )
    return {
        "difference": Expected("the difference", d.mean(), [
            (-d.mean(), "the difference has the wrong sign: it is b's accuracy less a's, above 0 where b is better."),
            (d.sum(), "that is a count of images. Divide by their number: a difference of accuracies."),
            (d.abs().mean(), "you counted every image on which they disagree, whoever was right. Keep the sign: +1 and "
             "−1."),
            (100 * d.mean(), "that is in points; give shares, from −1 to 1."),
        ], "It is the mean of b less the mean of a.", 1e-4),
        "error": Expected("the standard error", right, [
            (unpaired, f"that is the error for two test sets of their own: it lets a hard image be hard for one of "
             f"them only. {own}"),
            (unpaired**2, f"that is a variance, and for two test sets of their own. {own}"),
            (right * n**0.5, "that is the standard deviation over single images. The mean of n of them varies less, by "
             "the root of n."),
            (right / n**0.5, "the standard deviation of a mean falls with the root of n, not with n."),
            (right**2, "that is the variance of the mean; its root has the unit of the difference."),
            (right**2 * n, "that is the variance over single images. Root, and then the root of n."),
            (d.abs().std() / n**0.5, "without their sign the differences vary less. Keep +1 and −1."),
            (1.96 * right, "the standard error itself is asked for; 1.96 of them make the interval."),
        ], tolerance=2e-3),
    }  # fmt: skip


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
    hint_if(not isinstance(answer, Collection) or not all(isinstance(letter, str) for letter in answer), "give the "
        "letters of the statements as a set of strings, such as {'x', 'y'}.")  # fmt: skip
    return {letter.strip().strip("()").lower() for letter in answer}
