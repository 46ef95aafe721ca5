"""The exercises of notebook 08, training on a GPU: speed, a stopwatch, Amdahl's law, time to accuracy, a table."""

import math
import numbers
import operator
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from c2f.training.run import EpochRecord, History
from c2f_course.tasks.exercise import Expected, Hint, exercise, expect_filled, expect_number, hint_if, sentences, task

SAY = sentences(__name__)


def _ask_speed(answer: Callable[..., Any], seconds: list[float], batch: int) -> Any:
    given = list(seconds)
    found = answer(given, batch)
    hint_if(given != seconds, SAY["speed_of"]["sorted in place"])
    # for an even number of steps, which of the two medians is a matter of taste
    if isinstance(found, tuple | list) and len(found) == 3 and found[0] == batch / statistics.median(seconds):
        return statistics.median(batch / s for s in seconds), *found[1:]
    return found


@exercise("08.1", "Median and range", "easy", 4)
@task([([0.5, 0.25, 4.0, 0.4, 0.32], 64), ([0.5, 0.2, 2.0, 0.25], 100)], SAY["speed_of"], ask=_ask_speed)
def speed_of(seconds: list[float], batch: int) -> dict[str, Expected]:
    rates = [batch / s for s in seconds]
    ordered, half, ends = sorted(rates), len(rates) // 2, (min(seconds), max(seconds))
    middle = {
        "seconds": statistics.median(seconds),
        "steps per second": statistics.median(rates) / batch,
        "a mean": (statistics.fmean(rates), batch / statistics.fmean(seconds)),
        "not sorted": rates[half],
        "two in the middle": (ordered[half], ordered[half - 1]) if len(rates) % 2 == 0 else (),
    }

    def part(what: str, right: float, mistakes: dict[str, Any]) -> Expected:
        what = f"for {seconds} seconds per step of {batch} images {what}"
        return Expected(what, right, mistakes, tolerance=1e-6, facts={"n": len(rates)})

    return {
        "middle": part("the median", statistics.median(rates), middle),
        "low": part("the lowest rate", min(rates), {"swapped": max(rates), "ends in seconds": ends}),
        "high": part("the highest rate", max(rates), {"ends in seconds": ends}),
    }


@dataclass
class FakeDevice:
    """A device with its own queue and clock, so that what a stopwatch measures is known exactly, and at once."""

    backlog: float = 0.1
    """Seconds of another program's work in the queue at the start."""
    launching: float = 0.001
    work_seconds: float = 0.02
    warm_up_seconds: float = 0.5
    """What the first call takes in addition: kernels are chosen, memory is requested."""
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
    device, rounds, say = FakeDevice(), 5, SAY["seconds_of"]
    found = answer(device.work, device.synchronize, device.clock, rounds)
    handed_over, warm, one = 2 * device.launching, device.warm_up_seconds, device.launching + device.work_seconds
    hint_if(isinstance(found, numbers.Real), say["one number"])
    listed = isinstance(found, list | tuple) and all(isinstance(value, numbers.Real) for value in found)
    hint_if(not listed, say["no list"].format(kind=type(found).__name__))
    hint_if(not device.readings, say["clock never read"])
    hint_if(device.calls == 0, say["no work"])
    hint_if(len(found) == rounds + 1 and found[0] > one + warm / 2, say["warm-up in the list"])
    hint_if(len(found) != rounds, say["another length"].format(rounds=rounds, length=len(found)))
    hint_if(any(value < 0 for value in found), say["below zero"])
    last, work = 1e3 * found[-1], 1e3 * device.work_seconds
    hint_if(all(value <= handed_over for value in found), say["no waiting"].format(last=last, work=work))
    if device.synchronizations and found[0] > warm / 2 and all(abs(value - one) < 1e-6 for value in found[1:]):
        raise Hint(say["no warm-up" if device.calls == rounds else "warm-up not awaited"])
    hint_if(found[0] > warm / 2, say["some not awaited"])
    hint_if(all(b > a + one / 2 for a, b in pairwise(found)), say["one start"])
    hint_if(device.synchronizations and all(value <= handed_over for value in found[1:]), say["one round awaited"])
    seconds = ", ".join(f"{value:.3f}" for value in found)
    hint_if(any(abs(value - one) > 1e-6 for value in found), say["otherwise"].format(one=one, seconds=seconds))
    hint_if(device.calls > rounds + 3, say["many warm-ups"].format(calls=device.calls, rounds=rounds))
    return say["praise"]


PARTS = [(0.6, 10.0), (0.25, 2.0), (0.9, 3.0), (0.0, 10.0), (1.0, 4.0), (0.5, 1.0)]


@exercise("08.3", "What the whole gains", "medium", 6)
@task(PARTS, SAY["whole_speedup"])
def whole_speedup(share: float, factor: float) -> Expected:
    rest, right = 1 - share, 1 / (1 - share + share / factor)
    mistakes = {
        "time left": 1 / right,
        "the part alone": share * factor,
        "speeds averaged": rest + share * factor,
        "time saved": 1 - 1 / right,
        "no rest": lambda: factor / share,
        "the limit": lambda: 1 / rest,
        "the other part faster": 1 / (share + rest / factor),
    }
    what = f"the speed-up for a part with {share:.0%} of the time, made {factor:g} times faster"
    otherwise = {0.0: "no time", 1.0: "everything", 0.5: "as fast as it was"}.get(share, "otherwise")
    return Expected(what, right, mistakes, otherwise, 1e-6, facts={"right": right})


# ---- 08.4 Time to accuracy

ACCURACIES, SECONDS = [0.40, 0.65, 0.70, 0.62, 0.74], [10.0, 11.0, 20.0, 23.0, 40.0]
# Training accuracies above the test accuracies, so that the one cannot be mistaken for the other.
HISTORY = History(
    [
        EpochRecord(epoch, 0.1, 1.0, min(1.0, test + 0.15), 1.0, test, seconds, 100.0)
        for epoch, (test, seconds) in enumerate(zip(ACCURACIES, SECONDS, strict=True), start=1)
    ]
)
NEVER = 1e9  # in place of infinity, which is no number to compare with


def _ask_times(answer: Callable[..., Any], history: History, targets: Sequence[float]) -> Tensor:
    def seconds_to(target: float) -> float:
        found = answer(history, target)
        expect_filled(found)
        return NEVER if found == math.inf else expect_number(found, f"the time to {target:.0%}")

    return torch.tensor([seconds_to(target) for target in targets])


@task([(HISTORY, (0.4, 0.6, 0.7, 0.74))], SAY["reached"], ask=_ask_times)
def reached(history: History, targets: Sequence[float]) -> Expected:
    test, train = ([getattr(record, f"{of}_accuracy") for record in history.records] for of in ("test", "train"))
    seconds = [record.seconds for record in history.records]

    def got(target: float, accuracies: list[float] = test, reaches: Callable = operator.ge) -> int | None:
        return next((i for i, accuracy in enumerate(accuracies) if reaches(accuracy, target)), None)

    def up_to(index: int | None) -> float:
        return NEVER if index is None else sum(seconds[: index + 1])

    def last_below(target: float) -> int:
        return max((i for i, accuracy in enumerate(test) if accuracy < target), default=-1)

    def times(way: Callable[[float], float]) -> Tensor:
        return torch.tensor([way(target) for target in targets])

    mistakes = {
        "one epoch's seconds": times(lambda t: seconds[got(t)]),
        "number of the epoch": times(lambda t: got(t) + 1),
        "index of the epoch": times(got),
        "one epoch too few": times(lambda t: sum(seconds[: got(t)])),
        "training accuracy": times(lambda t: up_to(got(t, train))),
        "above only": times(lambda t: up_to(got(t, reaches=operator.gt))),
        "equal only": times(lambda t: up_to(got(t, reaches=operator.eq))),
        "last time it got there": times(lambda t: up_to(last_below(t) + 1)),
        "all epochs": times(lambda t: up_to(len(seconds))),
    }
    given = f"with test accuracies {test} and {seconds} s, the times to {', '.join(f'{t:.0%}' for t in targets)}"
    right = times(lambda t: up_to(got(t)))
    return Expected(given, right, mistakes, tolerance=1e-6, facts={"given": given})


@exercise("08.4", "Time to accuracy", "medium", 8)
def time_to(answer: Callable[..., Any]) -> str:
    reached(answer)
    say = SAY["time_to"]
    try:
        never = answer(HISTORY, 0.9)
        expect_filled(never)
    except Exception as error:  # the answers for other targets are right, so it is neither a gap nor a general mistake
        raise Hint(say["nothing"]) from error
    if never != math.inf:
        raise Hint(say["a number"].format(never=expect_number(never, "the time to 90%")))
    return say["praise"]


# ---- 08.5 What a table supports


def expect_statements(answer: Any, holds: Mapping[str, bool], say: Mapping[str, Any]) -> None:
    """Hint unless an answer is the letters of the statements that hold, as a set, or another collection, or a text."""
    letters = [letter for letter in answer if letter.isalnum()] if isinstance(answer, str) else answer
    listed = isinstance(letters, Collection) and all(isinstance(letter, str) for letter in letters)
    hint_if(not listed, say["no letters"].format(kind=type(answer).__name__))
    chosen = {letter.strip().strip("()").lower() for letter in letters}
    unknown = ", ".join(sorted(chosen - holds.keys()))
    hint_if(unknown, say["unknown"].format(unknown=unknown, letters=", ".join(holds)))
    for letter, right in holds.items():
        statement, look = say.get("statements", {}).get(letter), say["look"][letter]
        hint = say["left out" if right else "chosen"].format(letter=letter, statement=statement, look=look)
        hint_if((letter in chosen) != right, hint)


_ROWS: dict[str, tuple[Any, Any]] = {
    "parameters": (8_800_000, 27_500_000),
    "accuracy": (84.2, 83.6),
    "accuracy of": ("best epoch", "last epoch"),
    "epochs": (50, 50),
    "runs": (1, 3),
    "standard deviation": (None, 0.4),
    "images/s": (1900, 1000),
    "batch": (512, 64),
    "precision": ("bf16", "float32"),
    "peak memory": (None, None),
    "hardware": ("GPU X", "GPU X"),
    "minutes": (22.0, 42.0),
}
_A, _B = (dict(zip(_ROWS, column, strict=True)) for column in zip(*_ROWS.values(), strict=True))
TABLE: dict[str, dict[str, Any]] = {"network A": _A, "network B": _B}
"""An invented report, with what is missing as None."""


def _alike(*fields: str) -> bool:
    return all(_A[name] == _B[name] and _A[name] is not None for name in fields)


class Claim(NamedTuple):
    """A sentence about TABLE, and whether its figures bear it out."""

    sentence: str
    holds: bool


_HOLDS = {
    "a": _A["parameters"] < _B["parameters"] / 3,
    "b": _alike("accuracy of") and _A["runs"] > 1 and _A["accuracy"] - _B["accuracy"] > _B["standard deviation"],
    "c": _alike("hardware", "batch", "precision"),
    "d": _A["accuracy of"] == "best epoch",
    "e": _B["runs"] > 1 and _B["standard deviation"] >= 0.4,
    "f": _alike("batch", "peak memory"),
    "g": "time to 80 %" in _A,
}
CLAIMS = {letter: Claim(SAY["supported"]["statements"][letter], holds) for letter, holds in _HOLDS.items()}


@exercise("08.5", "What does this table say?", "hard", 8)
def supported(answer: Any) -> str:
    expect_statements(answer, _HOLDS, SAY["supported"])
    return SAY["supported"]["praise"]
