"""Each wrong answer that students give to notebook 08 gets the hint that helps, and right ones of any style pass."""

import math
import statistics
from collections.abc import Callable
from typing import Any

import pytest

from c2f_course.tasks import notebook_08 as checks
from c2f_course.tasks.exercise import Exercise

# ---- 08.1


def rates(seconds: list[float], batch: int) -> list[float]:
    return [batch / s for s in seconds]


def speed(seconds, batch):
    r = rates(seconds, batch)
    return statistics.median(r), min(r), max(r)


def speed_of_sorted(seconds, batch):
    seconds.sort()
    return speed(seconds, batch)


def upper_of_two(seconds, batch):
    r = sorted(rates(seconds, batch))
    return r[len(r) // 2], r[0], r[-1]


def middle_of_unsorted(seconds, batch):
    r = rates(seconds, batch)
    return r[len(r) // 2], min(r), max(r)


# ---- 08.2


def stopwatch(work, synchronize, clock, rounds):
    work()
    seconds = []
    for _ in range(rounds):
        synchronize()
        started = clock()
        work()
        synchronize()
        seconds.append(clock() - started)
    return seconds


def never_waits(work, synchronize, clock, rounds):
    work()
    seconds = []
    for _ in range(rounds):
        started = clock()
        work()
        seconds.append(clock() - started)
    return seconds


def no_warm_up(work, synchronize, clock, rounds):
    seconds = []
    for _ in range(rounds):
        synchronize()
        started = clock()
        work()
        synchronize()
        seconds.append(clock() - started)
    return seconds


def waits_at_the_end_only(work, synchronize, clock, rounds):
    work()
    seconds = []
    for _ in range(rounds):
        started = clock()
        work()
        synchronize()
        seconds.append(clock() - started)
    return seconds


def waits_before_start_only(work, synchronize, clock, rounds):
    work()
    seconds = []
    for _ in range(rounds):
        synchronize()
        started = clock()
        work()
        seconds.append(clock() - started)
    return seconds


def waits_after_the_loop(work, synchronize, clock, rounds):
    work()
    synchronize()
    seconds = []
    for _ in range(rounds):
        started = clock()
        work()
        seconds.append(clock() - started)
    synchronize()
    return seconds


def counts_the_warm_up(work, synchronize, clock, rounds):
    return no_warm_up(work, synchronize, clock, rounds + 1)


def one_start(work, synchronize, clock, rounds):
    work()
    synchronize()
    started = clock()
    seconds = []
    for _ in range(rounds):
        work()
        synchronize()
        seconds.append(clock() - started)
    return seconds


def upside_down(work, synchronize, clock, rounds):
    return [-value for value in stopwatch(work, synchronize, clock, rounds)]


def warms_up_for_ever(work, synchronize, clock, rounds):
    for _ in range(50):
        work()
    return stopwatch(work, synchronize, clock, rounds)


def never_reads(work, synchronize, clock, rounds):
    for _ in range(rounds):
        work()
    return [0.02] * rounds


def never_works(work, synchronize, clock, rounds):
    return [clock() - clock() for _ in range(rounds)]


# ---- 08.4


def time_to(history, target):
    total = 0.0
    for record in history.records:
        total += record.seconds
        if record.test_accuracy >= target:
            return total
    return math.inf


def first(history, target, accuracy="test_accuracy", strictly=False) -> int:
    for i, record in enumerate(history.records):
        value = getattr(record, accuracy)
        if value > target or (value == target and not strictly):
            return i
    return -1


def total_to(history, index):
    return sum(record.seconds for record in history.records[: index + 1]) if index >= 0 else math.inf


def just_the_target(history, target):
    return total_to(history, next((i for i, r in enumerate(history.records) if r.test_accuracy == target), -1))


def for_good(history, target):
    below = [i for i, record in enumerate(history.records) if record.test_accuracy < target]
    return total_to(history, max(below, default=-1) + 1)


def total_where_never(history, target):
    return min(time_to(history, target), sum(record.seconds for record in history.records))


RIGHT: dict[str, tuple[Exercise, Any]] = {
    "speed": (checks.speed_of, speed),
    "speed, rate of the median second": (
        checks.speed_of,
        lambda s, b: [b / statistics.median(s), b / max(s), b / min(s)],
    ),
    "stopwatch": (checks.seconds_of, stopwatch),
    "stopwatch that warms up twice": (
        checks.seconds_of,
        lambda w, s, c, r: [w(), w(), stopwatch(w, s, c, r)][-1],
    ),
    "amdahl": (checks.whole_speedup, lambda share, factor: 1 / (1 - share + share / factor)),
    "time to": (checks.time_to, time_to),
    "claims": (checks.supported, {letter for letter, claim in checks.CLAIMS.items() if claim.holds()}),
    "claims in words": (checks.supported, " ".join(k.upper() for k, claim in checks.CLAIMS.items() if claim.holds())),
}

HOLDING = {letter for letter, claim in checks.CLAIMS.items() if claim.holds()}

WRONG: dict[str, tuple[Exercise, Any, str]] = {
    "mean of rates": (checks.speed_of, lambda s, b: (statistics.fmean(rates(s, b)), *speed(s, b)[1:]), "is a mean"),
    "rate of the mean": (checks.speed_of, lambda s, b: (b / statistics.fmean(s), *speed(s, b)[1:]), "is a mean"),
    "seconds": (checks.speed_of, lambda s, b: (statistics.median(s), min(s), max(s)), "these are seconds"),
    "steps": (checks.speed_of, lambda s, b: speed(s, 1), "steps per second"),
    "rate among seconds": (checks.speed_of, lambda s, b: (speed(s, b)[0], min(s), max(s)), "the median is right"),
    "swapped": (checks.speed_of, lambda s, b: (speed(s, b)[0], b / min(s), b / max(s)), "swapped"),
    "unsorted middle": (checks.speed_of, middle_of_unsorted, "sort before you look"),
    "upper of two": (checks.speed_of, upper_of_two, "two in the middle"),
    "sorts in place": (checks.speed_of, speed_of_sorted, "changes the list"),
    "median alone": (checks.speed_of, lambda s, b: speed(s, b)[0], "return three numbers"),
    "something else": (checks.speed_of, lambda s, b: (1.0, 2.0, 3.0), "expected are the median"),
    "never waits": (checks.seconds_of, never_waits, "time to hand the work over"),
    "waits after the loop": (checks.seconds_of, waits_after_the_loop, "time to hand the work over"),
    "waits before the start alone": (checks.seconds_of, waits_before_start_only, "time to hand the work over"),
    "no warm-up": (checks.seconds_of, no_warm_up, "Call work() once before the rounds"),
    "end only": (checks.seconds_of, waits_at_the_end_only, "in the queue before it"),
    "warm-up counted": (checks.seconds_of, counts_the_warm_up, "the first figure is the warm-up's"),
    "one start": (checks.seconds_of, one_start, "start the clock anew"),
    "upside down": (checks.seconds_of, upside_down, "subtract the earlier reading"),
    "mean": (checks.seconds_of, lambda *a: statistics.fmean(stopwatch(*a)), "return a list"),
    "total": (checks.seconds_of, lambda *a: sum(stopwatch(*a)), "return a list"),
    "no list": (checks.seconds_of, lambda *a: "fast", "return a list of numbers"),
    "too few": (checks.seconds_of, lambda *a: stopwatch(*a)[1:], "should have 5 numbers, and has 4"),
    "warms up for ever": (checks.seconds_of, warms_up_for_ever, "a call or two of warm-up"),
    "never reads": (checks.seconds_of, never_reads, "never read"),
    "never works": (checks.seconds_of, never_works, "never done"),
    "time left": (checks.whole_speedup, lambda s, f: 1 - s + s / f, "the time that is left"),
    "rest free": (checks.whole_speedup, lambda s, f: s * f, "the rest would take no time"),
    "averaged": (checks.whole_speedup, lambda s, f: 1 - s + s * f, "speed-ups were averaged"),
    "saved": (checks.whole_speedup, lambda s, f: s - s / f, "share of the time that is saved"),
    "part alone": (checks.whole_speedup, lambda s, f: f / s, "not that of the part alone"),
    "limit": (checks.whole_speedup, lambda s, f: 1 / (1 - s), "that is the limit"),
    "wrong part": (checks.whole_speedup, lambda s, f: 1 / (s + (1 - s) / f), "here the rest became faster"),
    "factor": (checks.whole_speedup, lambda s, f: f, "Call the old time 1"),
    "one epoch": (checks.time_to, lambda h, t: h[first(h, t)].seconds, "That is the epoch that got there"),
    "epoch number": (checks.time_to, lambda h, t: first(h, t) + 1, "number of the epoch"),
    "epoch too few": (checks.time_to, lambda h, t: time_to(h, t) - h[first(h, t)].seconds, "there is missing"),
    "training accuracy": (checks.time_to, lambda h, t: total_to(h, first(h, t, "train_accuracy")), "training accuracy"),
    "strictly above": (checks.time_to, lambda h, t: total_to(h, first(h, t, strictly=True)), "equals the target"),
    "just the target": (checks.time_to, just_the_target, "above the target has reached it"),
    "nothing where never": (checks.time_to, lambda h, t: time_to(h, t) if t < 0.8 else None, "returns nothing"),
    "an error where never": (
        checks.time_to,
        lambda h, t: total_to(h, next(i for i, r in enumerate(h.records) if r.test_accuracy >= t)),
        "stops with an error",
    ),
    "for good": (checks.time_to, for_good, "first time it was there"),
    "whole training": (checks.time_to, lambda h, t: sum(r.seconds for r in h.records), "the whole training"),
    "total where never": (checks.time_to, total_where_never, "Return math.inf"),
    "minus one where never": (checks.time_to, lambda h, t: time_to(h, t) if t < 0.8 else -1.0, "Return math.inf"),
    "a letter that is none": (checks.supported, {"z"}, "there is no sentence z"),
    "no letters": (checks.supported, 3, "give a set of letters"),
    "believes nothing": (checks.supported, set(), "does follow"),
    **{
        f"believes {letter}": (checks.supported, HOLDING | {letter}, f"({letter}) “")
        for letter in sorted(set(checks.CLAIMS) - HOLDING)
    },
    **{f"doubts {letter}": (checks.supported, HOLDING - {letter}, f"({letter}) “") for letter in sorted(HOLDING)},
}  # fmt: skip


@pytest.mark.parametrize(("check", "answer"), RIGHT.values(), ids=RIGHT)
def test_right_answers_pass(check: Exercise, answer: Callable[..., Any]) -> None:
    verdict = check(answer)
    assert verdict.passed, verdict.message


@pytest.mark.parametrize(("check", "answer", "hint"), WRONG.values(), ids=WRONG)
def test_each_wrong_answer_gets_its_own_hint(check: Exercise, answer: Callable[..., Any], hint: str) -> None:
    verdict = check(answer)
    assert verdict.state == "hint"
    assert hint in verdict.message, verdict.message


def test_the_tables_sentences_are_of_both_kinds() -> None:
    """A table that supports all or nothing would ask for no judgement."""
    assert 2 <= len(HOLDING) <= len(checks.CLAIMS) - 2
