"""The exercises of notebook 09: reach, intervals, how many seeds, pairs, and conclusions."""

import math
from collections.abc import Callable
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor

from c2f_course.tasks.exercise import Expected, exercise, expect_number, hint_if, sentences, task
from c2f_course.tasks.notebook_08 import expect_statements

SAY = sentences(__name__)


@exercise("09.1", "Which kernel sees that far", "easy", 5)
@task([(5, 1), (8, 2), (7, 3), (10, 4), (12, 5), (1, 4), (9, 4)], SAY["smallest_kernel"])
def smallest_kernel(distance: int, blocks: int) -> Expected:
    d, n = distance, blocks
    right = next(k for k in range(1, 2 * d + 2, 2) if n * (k // 2) >= d)
    mistakes = {
        "one block": 2 * d + 1,
        "k positions a block": (math.ceil(d / n), math.ceil(d / n) // 2 * 2 + 1),
        "rounded down": 2 * (d // n) + 1,
        "a step too many": 2 * (d // n + 1) + 1,
        "the side rounded": math.ceil(2 * d / n) + 1,
        "a fraction": 2 * d / n + 1,
        "even side": 2 * math.ceil(d / n),
        "as wide as the distance": math.ceil(d / n / 2) * 2 + 1,
    }
    return Expected(f"the kernel's side for {d:g}, {n:g}", right, mistakes)


def _two(check: str, made: Any) -> list | tuple:
    """A result of two numbers, in a tensor or not."""
    made = made.tolist() if isinstance(made, Tensor) else made
    hint_if(not isinstance(made, list | tuple) or len(made) != 2, SAY[check]["wants"])
    return made


def _ask_interval(answer: Callable[..., Any], right: int, n: int) -> tuple[float, float]:
    """The middle of an interval and half its width."""
    low, high = map(expect_number, _two("interval", answer(right, n)), ("low", "high"))
    hint_if(low > high, SAY["interval"]["exchanged"])
    hint_if(high > 1.5, SAY["interval"]["per cent"])
    return (low + high) / 2, (high - low) / 2


@exercise("09.3", "How sure an accuracy is", "easy", 6)
@task([(340, 355), (50, 80), (9100, 10000)], SAY["interval"], ask=_ask_interval)
def interval(right: int, n: int) -> dict[str, Expected]:
    p, z = right / n, 1.96
    error = math.sqrt(p * (1 - p) / n)
    mistakes = {
        "one standard error": error,
        "a variance": z * error**2,
        "a single answer": z * error * math.sqrt(n),
        "n for its root": z * error / math.sqrt(n),
        "90 per cent": 1.645 * error,
        "half as wide": z / 2 * error,
        "p of one half": z * 0.5 / math.sqrt(n),
        "n minus 1": z * error * math.sqrt(n / (n - 1)),
    }
    middle, half = (f"{part} for {right} of {n}" for part in ("the interval's middle", "half the interval's width"))
    return {
        "middle": Expected(middle, p, {"around zero": 0}, tolerance=1e-6, facts={"p": p}),
        "half": Expected(half, z * error, mistakes, tolerance=1e-4),
    }


# Where the formula gives a whole number, some ways to write it are a hair above that; not at (0.4, 0.6), 18.
GAINS = [(0.3, 0.7), (0.5, 0.6), (0.4, 0.6), (0.1, 0.3)]


@exercise("09.2", "How many seeds", "medium", 8)
@task(GAINS, SAY["seeds_needed"])
def seeds_needed(d: float, s: float) -> Expected:
    mistakes = {
        "one mean varies": (math.ceil(4 * s**2 / d**2), 4 * s**2 / d**2),
        "one standard error": math.ceil(2 * s**2 / d**2),
        "not squared": math.ceil(2 * math.sqrt(2) * s / d),
        "errors added": math.ceil((4 * s / d) ** 2),
        "not rounded": 8 * s**2 / d**2,
        "rounded down": math.floor(8 * s**2 / d**2),
        "upside down": math.ceil(8 * d**2 / s**2),
        "1.96": math.ceil(2 * 1.96**2 * s**2 / d**2),
    }
    return Expected(f"the number of seeds for {d:g}, {s:g}", math.ceil(8 * s**2 / d**2 - 1e-9), mistakes)


def _right_or_wrong(n: int = 500) -> list[Tensor]:
    """Which images two networks get right; some images are hard for both."""
    draw = torch.Generator().manual_seed(9)
    hard = torch.rand(n, generator=draw)
    return [(hard + 0.12 * torch.randn(n, generator=draw)) < limit for limit in (0.82, 0.86)]


@exercise("09.4", "The same images for both", "medium", 6)
@task(
    [_right_or_wrong()],
    SAY["paired"],
    ask=lambda answer, a, b: _two("paired", answer(a, b)),
    errors={"bool": "booleans"},
)
def paired(a: Tensor, b: Tensor) -> dict[str, Expected]:
    n, a, b = len(a), a.double(), b.double()
    d = b - a
    right, unpaired = d.std() / n**0.5, ((a.mean() * (1 - a.mean()) + b.mean() * (1 - b.mean())) / n).sqrt()
    differences = {
        "wrong sign": -d.mean(),
        "a count": d.sum(),
        "no signs": d.abs().mean(),
        "in points": 100 * d.mean(),
    }
    errors = {
        "two test sets": unpaired,
        "variance of two test sets": unpaired**2,
        "no n": right * n**0.5,
        "n for its root": right / n**0.5,
        "variance of the mean": right**2,
        "variance": right**2 * n,
        "sizes vary less": d.abs().std() / n**0.5,
        "1.96": 1.96 * right,
    }
    return {
        "difference": Expected("the difference", d.mean(), differences, tolerance=1e-4),
        "error": Expected("the standard error", right, errors, tolerance=2e-3),
    }


RUNS_A, RUNS_B = (81.2, 82.0, 81.6), (82.1, 81.5, 82.3)
"""Test accuracies in per cent, three seeds of each variant."""


@exercise("09.5", "What six runs allow you to say", "hard", 8)
def conclusions(answer: Any) -> str:
    gain, error = mean(RUNS_B) - mean(RUNS_A), math.sqrt((stdev(RUNS_A) ** 2 + stdev(RUNS_B) ** 2) / 3)
    holds = {
        "a": gain > 0,
        "b": gain >= 2 * error,
        "c": False,  # not to find a difference is not to find that there is none
        "d": gain - 2 * error < 0.5 < gain + 2 * error,
        "e": False,  # the best of one against the worst of the other
        "f": False,  # the seeds vary, and the test images are the same in every run
    }
    expect_statements(answer, holds, SAY["conclusions"])
    return SAY["conclusions"]["praise"]
