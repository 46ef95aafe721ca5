"""The checks of notebook 09: wrong answers about reach, intervals, seeds and pairs, each with its own hint."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from c2f_course.tasks import notebook_09 as checks

REACH = {
    "one block": (lambda d, n: 2 * d + 1, "right for one block"),
    "whole kernels": (lambda d, n: -(-d // n), "its last tap"),
    "whole kernels, odd": (lambda d, n: -(-d // n) // 2 * 2 + 1, "its last tap"),
    "even": (lambda d, n: 2 * math.ceil(d / n), "an even side"),
    "rounded down": (lambda d, n: 2 * (d // n) + 1, "round up"),
    "one too many": (lambda d, n: 2 * (d // n + 1) + 1, "a smaller one does too"),
    "not whole": (lambda d, n: 2 * d / n + 1, "a whole number of steps"),
    "rounded late": (lambda d, n: math.ceil(2 * d / n) + 1, "Round the steps of one block"),
    "another formula": (lambda d, n: 3 * d * n + 40, "is not it"),
    "no number": (lambda d, n: "11", "should be a number"),
}


@pytest.mark.parametrize("name", REACH)
def test_smallest_kernel_hints(name: str) -> None:
    answer, hint = REACH[name]
    verdict = checks.smallest_kernel(answer)
    assert verdict.state == "hint" and hint in verdict.message, verdict


def around(half, middle=lambda r, n: r / n):
    return lambda r, n: (middle(r, n) - half(r / n, n), middle(r, n) + half(r / n, n))


def error(p: float, n: int) -> float:
    return math.sqrt(p * (1 - p) / n)


INTERVALS = {
    "one standard error": (around(error), "68 times in 100"),
    "no root": (around(lambda p, n: 1.96 * p * (1 - p) / n), "is the variance"),
    "no n": (around(lambda p, n: 1.96 * math.sqrt(p * (1 - p))), "where is n"),
    "n outside": (around(lambda p, n: 1.96 * math.sqrt(p * (1 - p)) / n), "root of n, not with n"),
    "one-sided": (around(lambda p, n: 1.645 * error(p, n)), "2.5 % at each end"),
    "halved": (around(lambda p, n: 0.98 * error(p, n)), "1.96 standard errors to each"),
    "worst case": (around(lambda p, n: 0.98 / math.sqrt(n)), "accuracy of one half"),
    "n less one": (around(lambda p, n: 1.96 * math.sqrt(p * (1 - p) / (n - 1))), "divided by n − 1"),
    "per cent": (lambda r, n: (100 * (r / n - 0.01), 100 * (r / n + 0.01)), "per cent or counts"),
    "exchanged": (lambda r, n: (r / n + 0.01, r / n - 0.01), "lower end first"),
    "around zero": (lambda r, n: (-1.96 * error(r / n, n), 1.96 * error(r / n, n)), "lies around 0"),
    "off the middle": (around(error, lambda r, n: r / n + 0.01), "should be the accuracy"),
    "only the width": (lambda r, n: 1.96 * error(r / n, n), "return two numbers"),
    "another width": (around(lambda p, n: 0.001), "is not it"),
}


@pytest.mark.parametrize("name", INTERVALS)
def test_interval_hints(name: str) -> None:
    answer, hint = INTERVALS[name]
    verdict = checks.interval(answer)
    assert verdict.state == "hint" and hint in verdict.message, verdict


SEEDS = {
    "one mean varies": (lambda d, s: math.ceil(4 * s**2 / d**2), "Both do"),
    "one standard error": (lambda d, s: math.ceil(2 * s**2 / d**2), "Ask for two"),
    "no square": (lambda d, s: math.ceil(2 * math.sqrt(2) * s / d), "solve for √n"),
    "errors added": (lambda d, s: math.ceil((4 * s / d) ** 2), "add in squares"),
    "not whole": (lambda d, s: 8 * s**2 / d**2, "A run is whole".lower()),
    "rounded down": (lambda d, s: int(8 * s**2 / d**2), "just too few"),
    "exchanged": (lambda d, s: math.ceil(8 * d**2 / s**2), "the other way around"),
    "1.96": (lambda d, s: math.ceil(2 * 1.96**2 * s**2 / d**2), "two standard errors, 2"),
    "another number": (lambda d, s: 1000, "is not it"),
    "no number": (lambda d, s: None if d < 0 else [3], "should be a number"),
}


@pytest.mark.parametrize("name", SEEDS)
def test_seeds_needed_hints(name: str) -> None:
    answer, hint = SEEDS[name]
    verdict = checks.seeds_needed(answer)
    assert verdict.state == "hint" and hint in verdict.message, verdict


def delta(a: Tensor, b: Tensor) -> Tensor:
    return b.double() - a.double()


def gain(a: Tensor, b: Tensor) -> float:
    return delta(a, b).mean().item()


def unpaired(a: Tensor, b: Tensor) -> float:
    return math.sqrt(sum(p * (1 - p) / len(a) for p in (a.double().mean().item(), b.double().mean().item())))


def in_place(a: Tensor, b: Tensor) -> tuple[float, float]:
    found = gain(a, b), delta(a, b).std().item() / len(a) ** 0.5
    a ^= b
    return found


PAIRS = {
    "unpaired": (lambda a, b: (gain(a, b), unpaired(a, b)), "sets of their own"),
    "unpaired variance": (lambda a, b: (gain(a, b), unpaired(a, b) ** 2), "that is a variance"),
    "spread of images": (lambda a, b: (gain(a, b), delta(a, b).std()), "single images"),
    "over n": (lambda a, b: (gain(a, b), delta(a, b).std() / len(a)), "not with n"),
    "variance of the mean": (lambda a, b: (gain(a, b), delta(a, b).var() / len(a)), "variance of the mean"),
    "variance": (lambda a, b: (gain(a, b), delta(a, b).var()), "variance over single images"),
    "no sign": (lambda a, b: (gain(a, b), delta(a, b).abs().std() / len(a) ** 0.5), "without their sign"),
    "interval": (lambda a, b: (gain(a, b), 1.96 * delta(a, b).std() / len(a) ** 0.5), "error itself"),
    "a less b": (lambda a, b: (gain(b, a), 0.01), "wrong sign"),
    "count": (lambda a, b: (delta(a, b).sum(), 0.01), "count of images"),
    "disagreement": (lambda a, b: (delta(a, b).abs().mean(), 0.01), "Keep the sign"),
    "points": (lambda a, b: (100 * gain(a, b), 1.0), "in points"),
    "another difference": (lambda a, b: (0.5, 0.01), "mean of b less"),
    "another error": (lambda a, b: (gain(a, b), 0.2), "is not it"),
    "one number": (lambda a, b: gain(a, b), "return two numbers"),
    "booleans": (lambda a, b: ((b - a).mean(), 0.0), "a difference needs numbers"),
    "in place": (in_place, "changed the answers"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_paired_hints(name: str) -> None:
    answer, hint = PAIRS[name]
    verdict = checks.paired(answer)
    assert verdict.state == "hint" and hint in verdict.message, verdict


CONCLUSIONS = {
    "nothing": (set(), "(a), which you left out"),
    "better": ({"a", "b", "d"}, "(b), which you chose"),
    "equal": ({"a", "c", "d"}, "(c), which you chose"),
    "half a point forgotten": ({"a"}, "(d), which you left out"),
    "best against worst": ({"a", "d", "e"}, "Would the same trick"),
    "other images": ({"a", "d", "f"}, "Which part of the luck"),
    "another letter": ({"a", "x"}, "no statement 'x'"),
    "a number": (3, "a set of strings"),
    "numbers": ({1, 4}, "a set of strings"),
}


@pytest.mark.parametrize("name", CONCLUSIONS)
def test_conclusions_hints(name: str) -> None:
    answer, hint = CONCLUSIONS[name]
    verdict = checks.conclusions(answer)
    assert verdict.state == "hint" and hint in verdict.message, verdict


@pytest.mark.parametrize("answer", [{"a", "d"}, ["D", "A"], "ad", "a, d", ("(a)", "(d)")])
def test_the_right_conclusions_pass_however_they_are_written(answer: object) -> None:
    assert checks.conclusions(answer).passed


def by_trial(difference: float, spread: float) -> int:
    n = 1
    while difference < 2 * math.sqrt(spread**2 / n + spread**2 / n):
        n += 1
    return n


@pytest.mark.parametrize(
    "answer",
    [by_trial, lambda d, s: math.ceil((2 * math.sqrt(2) * s / d) ** 2), lambda d, s: math.ceil(2 / (d / (2 * s)) ** 2)],
    ids=["by trial", "a root, squared", "solved otherwise"],
)
def test_the_right_number_of_seeds_passes_however_it_is_found(answer: Callable[[float, float], int]) -> None:
    assert checks.seeds_needed(answer).passed


def test_right_answers_pass_and_gaps_are_blank() -> None:
    assert checks.smallest_kernel(lambda d, n: 2 * math.ceil(d / n) + 1).passed
    assert checks.interval(around(lambda p, n: 1.96 * error(p, n))).passed
    assert checks.seeds_needed(lambda d, s: math.ceil(8 * s**2 / d**2)).passed
    assert checks.paired(lambda a, b: (gain(a, b), delta(a, b).std() / len(a) ** 0.5)).passed
    assert checks.paired(lambda a, b: (gain(a, b), delta(a, b).std(correction=0) / torch.tensor(500.0).sqrt())).passed
    assert checks.smallest_kernel(lambda d, n: ...).state == "blank"
    assert checks.conclusions(...).state == "blank"
