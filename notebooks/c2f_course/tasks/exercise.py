"""What an exercise is, and how an answer is compared with what is right.

An answer may be anything a student writes, so it is believed in nothing: its type and shape are looked at before its
values are, and what it raises becomes a sentence.
"""

import html
import math
import numbers
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from c2f_course.grading.remote import RemoteError, RemoteGone, RemoteObject

Difficulty = Literal["easy", "medium", "hard"]


class Hint(Exception):
    """Raised inside a check: the answer does not hold yet, and this sentence helps on without giving it away."""


class Blank(Exception):
    """Raised inside a check: there is no answer yet, only the gap."""


@dataclass(frozen=True)
class Verdict:
    """What a check found: `state` is "passed", "hint" or "blank", and `message` the sentence for the student."""

    exercise: str
    state: Literal["passed", "hint", "blank"]
    message: str

    @property
    def passed(self) -> bool:
        return self.state == "passed"

    def __str__(self) -> str:
        word = {"passed": "passed", "hint": "not yet", "blank": "to do"}[self.state]
        return f"Exercise {self.exercise}, {word}: {self.message}"

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        # Colour is never alone: the sign and the word say the same.
        sign, colour = {"passed": ("✔", "#009E73"), "hint": ("✘", "#D55E00"), "blank": ("○", "#6B6B6B")}[self.state]
        return (
            f'<div role="status" style="border-left: 4px solid {colour}; padding: 0.3em 0.8em; margin: 0.3em 0">'
            f"<strong>{sign}</strong> {html.escape(str(self))}</div>"
        )


@dataclass(frozen=True)
class Exercise:
    """A check with its number, title, difficulty and minutes. Call it with the answer."""

    number: str
    title: str
    difficulty: Difficulty
    minutes: int
    check: Callable[..., str]
    """Takes the answer; returns a sentence about why it is right, or raises Hint."""

    @property
    def heading(self) -> str:
        """The heading that the notebook gives it."""
        return f"### Exercise {self.number} · {self.title} · {self.difficulty} · {self.minutes} minutes"

    def __call__(self, *answer: Any) -> Verdict:
        try:
            expect_filled(*answer)
            return Verdict(self.number, "passed", self.check(*map(_watched, answer)))
        except Hint as hint:
            return Verdict(self.number, "hint", str(hint))
        except Exception as error:
            # torch raises NotImplementedError as well, with a sentence; a gap says nothing
            if isinstance(error, Blank) or (isinstance(error, NotImplementedError) and not str(error)):
                return Verdict(self.number, "blank", "fill in the gap in the cell above this line, then run it again.")
            return Verdict(self.number, "hint", _say_error(error))


def exercise(number: str, title: str, difficulty: Difficulty, minutes: int) -> Callable[[Callable[..., str]], Exercise]:
    """Turn a check function into an Exercise; the check's docstring lists the mistakes that it knows."""
    return lambda check: Exercise(number, title, difficulty, minutes, check)


def expect_tensor(value: Any, shape: tuple[int, ...], what: str) -> Tensor:
    """`value` if it is a tensor of this shape, else Hint. `what` begins the sentence, such as "the matrix"."""
    if not isinstance(value, Tensor):
        raise Hint(f"{what} should be a torch tensor of shape {shape}, and is {_a(value)}.")
    if tuple(value.shape) != tuple(shape):
        raise Hint(f"{what} should have shape {tuple(shape)}, and has {tuple(value.shape)}.")
    return value.detach()


def expect_number(value: Any, what: str) -> float:
    """`value` as a float if it is one finite number (a tensor of one element will do), else Hint."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise Hint(f"{what} should be a number, and is {_a(value)}.")
    if not math.isfinite(value):
        raise Hint(f"{what} is {value}; something was divided by zero, or grew without bound.")
    return float(value)


def expect_close(value: Any, expected: Tensor | float, what: str, *, hint: str = "", tolerance: float = 1e-5) -> None:
    """Hint unless `value` is `expected`, in type and shape first and then to a relative `tolerance` in its values.

    `hint` is added to the sentence: what usually leads to such a difference.
    """
    if isinstance(expected, Tensor):
        value = expect_tensor(value, tuple(expected.shape), what)
        if value.is_complex() or not torch.isfinite(value.double()).all():
            raise Hint(f"{what} holds a number that is not finite. {hint}".rstrip())
        difference = (value.double() - expected.double()).abs().max().item() if expected.numel() else 0.0
        size = expected.double().abs().max().item() if expected.numel() else 0.0
        if difference > tolerance * max(size, 1e-12):
            raise Hint(f"{what} differs from what is right by up to {difference:.3g}. {hint}".rstrip())
    else:
        number = expect_number(value, what)
        if abs(number - expected) > tolerance * max(abs(expected), 1e-12):
            raise Hint(f"{what} is {number:g}, and that is not it. {hint}".rstrip())


Known = Sequence[tuple[Tensor | float, str]]
"""Values that a known mistake leads to, each with the hint for it."""


def expect(
    value: Any, right: Tensor | float, what: str, known: Known, otherwise: str, tolerance: float | None = None
) -> None:
    """Hint unless `value` is `right`: where it is what a known mistake gives, the hint for that, else `otherwise`.

    The tolerance is relative; by default 1e-5 for tensors and 1e-9 for a number, which is a count more often than not.
    """
    is_tensor = isinstance(right, Tensor)
    tolerance = tolerance or (1e-5 if is_tensor else 1e-9)
    value = expect_tensor(value, tuple(right.shape), what) if is_tensor else expect_number(value, what)
    if not is_close(value, right, tolerance):
        for wrong, hint in known:
            if is_close(value, wrong, tolerance):
                raise Hint(hint)
    expect_close(value, right, what, hint=otherwise, tolerance=tolerance)


def expect_untouched(x: Tensor, before: Tensor, what: str) -> None:
    """Hint where an answer has changed its own input."""
    if not torch.equal(x, before):
        raise Hint(
            f"your code changed {what} itself (an operator such as -= or *=, or a method that ends in _); the caller "
            f"still needs it as it was, so make a new tensor."
        )


def is_close(value: Tensor | float, other: Tensor | float, tolerance: float = 1e-5) -> bool:
    """Whether a value is another one, in shape and to a relative tolerance; for a value whose type was looked at."""
    value, other = (torch.as_tensor(number).detach() for number in (value, other))
    if value.shape != other.shape or value.is_complex():
        return False
    value, other = value.double(), other.double()
    return bool((value - other).abs().max() <= tolerance * other.abs().max().clamp(min=1e-12))


def expect_filled(*values: Any) -> None:
    """Blank where one of the values is still the gap, `...`, or nothing."""
    if any(value is None or value is Ellipsis for value in values):
        raise Blank


def _watched(answer: Any) -> Any:
    """A student's function, but for one thing: where it returns nothing (a gap left open), the check ends as blank."""
    if not callable(answer) or isinstance(answer, (type, torch.nn.Module)):
        return answer
    if isinstance(answer, RemoteObject) and answer.kind != "function":
        return answer

    def call(*args: Any, **kwargs: Any) -> Any:
        result = answer(*args, **kwargs)
        expect_filled(result)
        return result

    call.__wrapped__ = answer  # where `beside` finds out in which process it lives
    return call


def _a(value: Any) -> str:
    return f"a {type(value).__name__}" if value is not None else "None"


def _say_error(error: Exception) -> str:
    """What was raised, and in which line of the student's own code, as far as that can be told."""
    if isinstance(error, RemoteError):
        return f"your code raised {error}"
    if isinstance(error, RemoteGone):
        return f"your code gave no answer: {error}."
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_students(frame.filename)]
    where = f" in your line “{frames[-1].line}”" if frames and frames[-1].line else ""
    text = str(error).strip().splitlines()
    return f"your code raised {type(error).__name__}{where}{': ' + text[0] if text else ''}"


def _is_students(filename: str) -> bool:
    return "ipykernel" in filename or filename.startswith("<")
