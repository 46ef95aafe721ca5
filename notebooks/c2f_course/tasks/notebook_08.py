"""The exercises of notebook 08, training on a GPU.

speed_of       median and range of images per second
seconds_of     a stopwatch for a device that works in the background
whole_speedup  Amdahl's law
time_to        seconds until an accuracy is reached, from a history
supported      which sentences a table of results supports
"""

import math
import numbers
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from c2f.training.run import EpochRecord, History
from c2f_course.tasks.exercise import Expected, Hint, exercise, expect_filled, expect_number, hint_if, task

# ---- 08.1 Median and range


def _ask_speed(answer: Callable[..., Any], seconds: list[float], batch: int) -> Any:
    given = list(seconds)
    found = answer(given, batch)
    hint_if(given != seconds, "your function changes the list that it is given; sorted(...) makes a new one, .sort() "
        "does not.")  # fmt: skip
    # for an even number of steps, which of the two medians is a matter of taste
    if isinstance(found, tuple | list) and len(found) == 3 and found[0] == batch / statistics.median(seconds):
        return statistics.median(batch / s for s in seconds), *found[1:]
    return found


@exercise("08.1", "Median and range", "easy", 4)
@task(
    [([0.5, 0.25, 4.0, 0.4, 0.32], 64), ([0.5, 0.2, 2.0, 0.25], 100)],
    "three numbers that tell what to expect and how far to trust it; one slow round moves the low end alone.",
    ask=_ask_speed,
    wants=(tuple, "return three numbers: the median, the lowest and the highest rate."),
)
def speed_of(seconds: list[float], batch: int) -> dict[str, Expected]:
    rates = [batch / s for s in seconds]
    ordered, half = sorted(rates), len(rates) // 2
    case = f"for {seconds} seconds a step of {batch} images"
    two = f"{case} there are two in the middle, since there are {len(rates)}: the median is their mean."
    otherwise = f"Expected are the median, the lowest and the highest of the rates {batch} / seconds."
    ends = f"{case} the median is right; lowest and highest are to be images per second, too."
    return {
        "middle": Expected(f"{case} the median", statistics.median(rates), [
            (statistics.median(seconds), f"{case} these are seconds; asked for are images per second. How many images "
             "does a step see?"),
            (statistics.median(rates) / batch, f"{case} these are steps per second; each step sees {batch} images."),
            ((statistics.fmean(rates), batch / statistics.fmean(seconds)), f"{case} the first number is a mean, and "
             "one slow step drags it along; take the median."),
            (rates[half], f"{case} the first number is the one in the middle of the list; sort before you look there."),
            *((ordered[i], two) for i in (half, half - 1) if len(rates) % 2 == 0),
        ], otherwise, 1e-6),
        "low": Expected(f"{case} the lowest rate", min(rates), [
            (max(rates), f"{case} lowest and highest are swapped: the step that took longest is the lowest rate."),
            *((end(seconds), ends) for end in (min, max)),
        ], otherwise, 1e-6),
        "high": Expected(f"{case} the highest rate", max(rates), [
            *((end(seconds), ends) for end in (min, max)),
        ], otherwise, 1e-6),
    }  # fmt: skip


# ---- 08.2 A stopwatch for a device that works in the background


@dataclass
class FakeDevice:
    """A device with a queue and a clock of its own, so that what a stopwatch does can be told exactly, at once."""

    backlog: float = 0.1
    """Seconds of somebody else's work in the queue at the start."""
    launching: float = 0.001
    work_seconds: float = 0.02
    warm_up_seconds: float = 0.5
    """What the first call takes on top: kernels are chosen, memory is fetched."""
    now: float = 50.0
    calls: int = 0
    synchronizations: int = 0
    readings: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._free_at = self.now + self.backlog

    def work(self) -> None:
        self.now += self.launching
        seconds = self.work_seconds + (self.warm_up_seconds if self.calls == 0 else 0.0)
        self._free_at = max(self._free_at, self.now) + seconds
        self.calls += 1

    def synchronize(self) -> None:
        self.now = max(self.now, self._free_at)
        self.synchronizations += 1

    def clock(self) -> float:
        self.readings.append(self.now)
        return self.now


@exercise("08.2", "A stopwatch that waits", "medium", 10)
def seconds_of(answer: Callable[..., Any]) -> str:
    device, rounds = FakeDevice(), 5
    found = answer(device.work, device.synchronize, device.clock, rounds)
    one = device.launching + device.work_seconds
    hint_if(isinstance(found, numbers.Real), "return a list with the seconds of each round: from one number nobody can "
        "tell the spread.")  # fmt: skip
    if not isinstance(found, list | tuple) or not all(isinstance(value, numbers.Real) for value in found):
        raise Hint(f"return a list of numbers, the seconds of each round; this is a {type(found).__name__}.")
    hint_if(not device.readings, "the clock was never read: call clock() before the work and after it, and subtract.")
    hint_if(device.calls == 0, "the work was never done: call work() in every round.")
    hint_if(len(found) == rounds + 1 and found[0] > one + device.warm_up_seconds / 2, "the first figure is the "
        "warm-up's: do that call before you begin to measure, and leave it out.")  # fmt: skip
    if len(found) != rounds:
        raise Hint(f"for {rounds} rounds the list should have {rounds} numbers, and has {len(found)}.")
    _check_rounds(found, device, one)
    if any(abs(value - one) > 1e-6 for value in found):
        raise Hint(
            f"each round takes this device {one:.3f} s, and your list says {', '.join(f'{v:.3f}' for v in found)}: "
            "what else lies between two readings of the clock?"
        )
    hint_if(device.calls > rounds + 3, f"work() ran {device.calls} times for {rounds} rounds; a call or two of warm-up "
        "will do.")  # fmt: skip
    return "it waits before it starts and before it stops, and the first call is not in the list."


def _check_rounds(found: list[float] | tuple[float, ...], device: FakeDevice, one: float) -> None:
    """What is wrong with some rounds, by its trace in their seconds."""
    hint_if(any(value < 0 for value in found), "some rounds take less than no time: subtract the earlier reading from "
        "the later one.")  # fmt: skip
    if all(value <= 2 * device.launching for value in found):
        raise Hint(
            f"your rounds take {1e3 * found[-1]:.0f} ms, and the device needs {1e3 * device.work_seconds:.0f} for the "
            "work alone: that is the time to hand the work over. Wait for the device before you read the clock."
        )
    warm = device.warm_up_seconds
    if device.synchronizations and found[0] > warm / 2 and all(abs(value - one) < 1e-6 for value in found[1:]):
        hint_if(device.calls == len(found), "the first round is much longer than the others: the first call chooses "
            "kernels and fetches memory. Call work() once before the rounds.")  # fmt: skip
        raise Hint(
            "the first round also counts what was in the queue before it: the warm-up was handed over, and not waited "
            "for. Wait before you start the clock, too."
        )
    hint_if(found[0] > warm / 2, "the first round is far too long, and others are off: wait for the device before "
        "every reading of the clock, the one at the start as well as the one at the end.")  # fmt: skip
    hint_if(len(found) > 1 and all(b > a + one / 2 for a, b in pairwise(found)), "every round is longer than the one "
        "before: start the clock anew in each round.")  # fmt: skip
    hint_if(device.synchronizations and all(value <= 2 * device.launching for value in found[1:]), "only one round "
        "waits for the device: synchronize inside the loop, in every round.")  # fmt: skip


# ---- 08.3 Amdahl's law


@exercise("08.3", "What the whole gains", "medium", 6)
@task(
    [(0.6, 10.0), (0.25, 2.0), (0.9, 3.0), (0.0, 10.0), (1.0, 4.0), (0.5, 1.0)],
    "times add up, speeds do not: the rest, which nobody made faster, decides.",
)
def whole_speedup(share: float, factor: float) -> Expected:
    rest, right = 1 - share, 1 / (1 - share + share / factor)
    case = f"a part with {share:.0%} of the time, made {factor:g} times faster"
    mistakes = [
        (1 / right, "that is the time that is left, as a share of the old one: how much faster is it then?"),
        (share * factor, "that would leave the part alone, and the rest would take no time."),
        (rest + share * factor, "speed-ups were averaged. Add up times instead, the rest's and the part's."),
        (1 - 1 / right, "that is the share of the time that is saved; asked for is old time over new time."),
        (lambda: factor / share, "the new time is not that of the part alone: the rest still takes as long as before."),
        (lambda: 1 / rest, "that is the limit, for a part that takes no time at all."),
        (1 / (share + rest / factor), "here the rest became faster, and the part stayed as it was."),
    ]  # fmt: skip
    why = {
        0.0: "A part that takes no time",
        1.0: "A part that is everything",
        0.5: "A part that stayed as fast as it was",
    }
    otherwise = "Call the old time 1; what does each of the two parts take?"
    if share in why:
        otherwise = f"{why[share]} makes the whole {right:g} times as fast."
    told = [(wrong, f"{case}: {{made:.3g}} times. But {hint}") for wrong, hint in mistakes]
    return Expected(f"the speed-up for {case}", right, told, otherwise, 1e-6)


# ---- 08.4 Time to accuracy

ACCURACIES, SECONDS = [0.40, 0.65, 0.70, 0.62, 0.74], [10.0, 11.0, 20.0, 23.0, 40.0]
# Training accuracies that run ahead of the test accuracies, so that the one is not taken for the other.
HISTORY = History(
    [
        EpochRecord(epoch, 0.1, 1.0, min(1.0, test + 0.15), 1.0, test, seconds, 100.0)
        for epoch, (test, seconds) in enumerate(zip(ACCURACIES, SECONDS, strict=True), start=1)
    ]
)
NEVER = 1e9  # in place of infinity, which is no number to compare with


def _ask_times(answer: Callable[..., Any], history: History, targets: Sequence[float]) -> Tensor:
    found = [answer(history, target) for target in targets]
    expect_filled(*found)
    return torch.tensor([
        NEVER if value == math.inf else expect_number(value, f"the time to {target:.0%}")
        for value, target in zip(found, targets, strict=True)
    ])  # fmt: skip


@task([(HISTORY, (0.4, 0.6, 0.7, 0.74))], ask=_ask_times)
def reached(history: History, targets: Sequence[float]) -> Expected:
    test, train = ([getattr(record, f"{of}_accuracy") for record in history.records] for of in ("test", "train"))
    seconds = [record.seconds for record in history.records]

    def first(holds: Callable[[float], bool], accuracies: list[float] = test) -> int | None:
        return next((i for i, accuracy in enumerate(accuracies) if holds(accuracy)), None)

    def up_to(index: int | None) -> float:
        return NEVER if index is None else sum(seconds[: index + 1])

    def times(way: Callable[[float], float]) -> Tensor:
        return torch.tensor([way(target) for target in targets])

    def got(target: float, accuracies: list[float] = test) -> int:
        return first(lambda accuracy: accuracy >= target, accuracies)

    def last_below(target: float) -> int:
        return max((i for i, accuracy in enumerate(test) if accuracy < target), default=-1)

    mistakes = [
        (times(lambda t: seconds[got(t)]), "That is the epoch that got there; those before it took time as well."),
        (times(lambda t: got(t) + 1), "That is the number of the epoch; asked for are seconds."),
        (times(got), "That is the index of the epoch; asked for are seconds."),
        (times(lambda t: sum(seconds[: got(t)])), "The epoch that gets there is missing: its accuracy was measured at "
         "its end."),
        (times(lambda t: up_to(got(t, train))), "Is that the training accuracy? Asked for is the test accuracy."),
        (times(lambda t: up_to(first(lambda accuracy: accuracy > t))), "A test accuracy that equals the target has "
         "reached it."),
        (times(lambda t: up_to(first(lambda accuracy: accuracy == t))), "A test accuracy above the target has reached "
         "it, too."),
        (times(lambda t: up_to(last_below(t) + 1)), "From then on it stayed there; asked for is the first time it was "
         "there."),
        (times(lambda t: up_to(len(seconds))), "That is the whole training; stop at the first epoch that reaches it."),
    ]  # fmt: skip
    given = (
        f"with test accuracies {test} and {seconds} s, the times to {', '.join(f'{target:.0%}' for target in targets)}"
    )
    told = [(wrong, f"{given} are others. {hint}") for wrong, hint in mistakes]
    return Expected(given, times(lambda t: up_to(got(t))), told, "The seconds of which epochs are to be added "
        "up?", 1e-6)  # fmt: skip


@exercise("08.4", "Time to accuracy", "medium", 8)
def time_to(answer: Callable[..., Any]) -> str:
    reached(answer)
    try:
        never = answer(HISTORY, 0.9)
        expect_filled(never)
    except Exception as error:  # it did well for the other targets, so it is neither a gap nor a slip in general
        raise Hint(
            "no epoch reaches 90 %, and there your function returns nothing, or stops with an error: what did the "
            "exercise want for never?"
        ) from error
    if never != math.inf:
        raise Hint(f"no epoch reaches 90 %, and you say {expect_number(never, 'the time to 90%'):g} s. Return "
            "math.inf, which is more than any time: whoever never gets there is not quicker than somebody who "
            "does.")  # fmt: skip
    return "the seconds of every epoch up to the first that reaches it, and infinity for whoever never does."


# ---- 08.5 What a table supports

TABLE: dict[str, dict[str, Any]] = {
    "network A": {
        "parameters": 8_800_000, "accuracy": 84.2, "accuracy of": "best epoch", "epochs": 50, "runs": 1,
        "spread over runs": None, "images/s": 1900, "batch": 512, "precision": "bf16", "peak memory": None,
        "hardware": "GPU X", "minutes": 22.0,
    },
    "network B": {
        "parameters": 27_500_000, "accuracy": 83.6, "accuracy of": "last epoch", "epochs": 50, "runs": 3,
        "spread over runs": 0.4, "images/s": 1000, "batch": 64, "precision": "float32", "peak memory": None,
        "hardware": "GPU X", "minutes": 42.0,
    },
}  # fmt: skip
"""An invented report, with what is missing as None."""

_A, _B = TABLE.values()


def _alike(*fields: str) -> bool:
    return all(_A[name] == _B[name] and _A[name] is not None for name in fields)


class Claim(NamedTuple):
    """A sentence about TABLE, whether its figures bear it out, and where to look when that was misjudged."""

    sentence: str
    holds: bool
    look: str


CLAIMS = {
    "a": Claim("A has less than a third of B's parameters.", _A["parameters"] < _B["parameters"] / 3, "parameters are "
    "counted, not measured: no seed, no clock and no choice is in them. Divide."),
    "b": Claim("A is more accurate than B.", _alike("accuracy "
    "of") and _A["runs"] > 1 and _A["accuracy"] - _B["accuracy"] > _B["spread over runs"], "compare how each accuracy "
    "was chosen, from how many runs, and the gap with the spread."),
    "c": Claim("On GPU X, A's architecture is 1.9 times as fast as "
    "B's.", _alike("hardware", "batch", "precision"), "what beside the architecture is not the same in the two "
    "measurements of images/s?"),
    "d": Claim("Had A's last epoch been reported, its figure would be 84.2 or lower.", _A["accuracy of"] == "best "
    "epoch", "the last epoch is one of those among which the best was chosen."),
    "e": Claim("Another seed may well move B's accuracy by 0.4.", _B["runs"] > 1 and _B["spread over "
    "runs"] >= 0.4, "for one of the two networks the table says how far runs are apart."),
    "f": Claim("A needs less memory than B.", _alike("batch", "peak memory"), "fewer parameters are not less memory: "
    "look for the column that would say it."),
    "g": Claim("A reaches 80 % sooner than B.", "time to 80 %" in _A, "a whole training's minutes do not say when 80 % "
    "was reached: which column would?"),
}  # fmt: skip


@exercise("08.5", "What does this table say?", "hard", 8)
def supported(answer: Any) -> str:
    if isinstance(answer, str):
        answer = set(answer.replace(",", " ").split()) if " " in answer or "," in answer else set(answer)
    if not isinstance(answer, set | list | tuple) or not all(isinstance(letter, str) for letter in answer):
        raise Hint(f'give a set of letters, such as {{"x", "y"}}; this is a {type(answer).__name__}.')
    letters = {letter.strip().lower() for letter in answer}
    if strange := letters - set(CLAIMS):
        raise Hint(f"there is no sentence {', '.join(sorted(strange))}; they are {', '.join(CLAIMS)}.")
    for letter, claim in CLAIMS.items():
        hint_if((letter in letters) and not claim.holds, f"({letter}) “{claim.sentence}” may be true, but this table "
            f"does not show it: {claim.look}")  # fmt: skip
    for letter, claim in CLAIMS.items():
        hint_if(letter not in letters and claim.holds, f"({letter}) “{claim.sentence}” does follow from this table: "
            f"{claim.look}")  # fmt: skip
    return "and whoever wanted to claim more would have to measure more."
