"""What an exercise is, and how an answer is compared with what is right.

An answer may be anything a student writes, so it is believed in nothing: its type and shape are looked at before its
values are, and what it raises becomes a sentence.
"""

import html
import inspect
import itertools
import math
import numbers
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from c2f_course.grading.remote import RemoteError, RemoteGone, RemoteObject
from c2f_course.tasks.probes import gradients

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
    """Turn a check into an Exercise: one that is a Task, or that raises Hint itself."""
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
        if not expected.is_floating_point() and (wrong := (value != expected).double().mean().item()):
            raise Hint(f"{what} differs from what is right in {wrong:.0%} of its entries. {hint}".rstrip())
        difference = (value.double() - expected.double()).abs().max().item() if expected.numel() else 0.0
        size = expected.double().abs().max().item() if expected.numel() else 0.0
        if difference > tolerance * max(size, 1e-12):
            raise Hint(f"{what} differs from what is right by up to {difference:.3g}. {hint}".rstrip())
    else:
        number = expect_number(value, what)
        if abs(number - expected) > tolerance * max(abs(expected), 1e-12):
            raise Hint(f"{what} is {number:g}, and that is not it. {hint}".rstrip())


Mistakes = Sequence[tuple[Any, str]]
"""What known mistakes lead to, each with its hint; several values with the same hint in a tuple. A value that may raise
on some inputs is given as a function without arguments; where it raises, the mistake is passed over."""


@dataclass(frozen=True)
class Expected:
    """What is right for some inputs, and what the mistakes lead to that students make.

    Where the result of a mistake has another shape than what is right, or is not finite, that alone tells it.
    """

    what: str
    """Begins a sentence, such as "the matrix"."""
    right: Any
    """A tensor or a number."""
    mistakes: Mistakes
    otherwise: str | Callable[[Any], str] = ""
    """The hint for all other mistakes, or what says it of the result."""
    tolerance: float | None = None
    """Relative; by default 1e-5 for tensors and 1e-9 for a number, which is a count more often than not."""
    signs: Sequence[tuple[Callable[[Any], Any], str]] = ()
    """What would give a mistake away whatever its value is, each with its hint; seen before the mistakes."""
    learns: Mapping[str, str] = field(default_factory=dict)
    """The inputs to which a gradient must come back, each as a sentence calls it."""

    def compare(self, made: Any) -> None:
        """Hint unless `made` is right: that of the first mistake which leads to it, if there is one."""
        expect_filled(made)
        is_tensor = isinstance(self.right, Tensor)
        tolerance = self.tolerance or (1e-5 if is_tensor else 1e-9)
        hints = (hint for holds, hint in self.signs if holds(made))
        if isinstance(made, Tensor) if is_tensor and self.right.dim() else isinstance(made, Tensor | numbers.Real):
            hints = itertools.chain(hints, self._hints(as_tensor(made), tolerance))
        for hint in hints:
            raise Hint(filled(hint, made))
        right = self.right if is_tensor and self.right.dim() else float(self.right)
        otherwise = self.otherwise if isinstance(self.otherwise, str) else _said_of(made, self.otherwise)
        expect_close(made, right, self.what, hint=otherwise, tolerance=tolerance)

    @property
    def each(self) -> list[tuple[Any, str]]:
        """The mistakes, one value at a time."""
        return [
            (one, hint) for values, hint in self.mistakes for one in (values if isinstance(values, tuple) else [values])
        ]

    def _hints(self, made: Tensor, tolerance: float) -> Iterator[str]:
        right = as_tensor(self.right)
        made = made.reshape(right.shape) if right.numel() == made.numel() == 1 else made
        if is_close(made, right, tolerance):
            return
        values = [(_value(value), hint) for value, hint in self.each]
        values = [(value, hint) for value, hint in values if value is not None]
        yield from (hint for value, hint in values if is_close(made, value, tolerance))
        for value, hint in values:
            infinite = not _is_finite(value) and not _is_finite(made) and not value.isneginf().all()
            if value.shape == made.shape and (value.shape != right.shape or infinite):
                yield hint


def _said_of(made: Any, otherwise: Callable[[Any], str]) -> str:
    """The hint for a result that may be of any type and shape."""
    try:
        return otherwise(made)
    except (RuntimeError, AttributeError, TypeError, IndexError):
        return ""


def filled(hint: str, made: Any) -> str:
    """A hint that speaks of the result itself, or of its shape: {made:.3g}, {made.dtype}, {shape}."""
    if "{made" not in hint and "{shape" not in hint:
        return hint
    return hint.format(made=made, shape=tuple(getattr(made, "shape", ())))


def of_shape(*shape: int) -> Tensor:
    """The result of a mistake that only its shape tells."""
    return torch.full([max(0, size) for size in shape], -torch.inf)


def _value(value: Any) -> Tensor | None:
    """The result of a mistake; None where it raises."""
    try:
        return as_tensor(value() if callable(value) else value)
    except (RuntimeError, IndexError, ValueError, ZeroDivisionError):
        return None


def _is_finite(value: Tensor) -> bool:
    return not value.is_complex() and bool(torch.isfinite(value.double()).all())


Inputs = Callable[..., Iterable[Sequence[Any]]]


@dataclass(frozen=True, eq=False)
class Task:
    """A function to be written, which is asked for some inputs. It is a check: call it with an answer."""

    expected: Callable[..., Expected | dict[str, Expected]]
    """Of the inputs: what is right and what mistakes lead to; by name where a result has several parts."""
    inputs: Inputs
    """The cases, each a sequence of arguments; its own arguments ask for others."""
    praise: str = ""
    """Why the answer is right."""
    wants: tuple[type, str] = (tuple, "")
    """Where a result has several parts: a dictionary with their names or a tuple, and the hint for anything else."""
    errors: Mapping[str, str] = field(default_factory=dict)
    """What a raised error's sentence, in small letters, holds after a mistake that is known -> the hint for it."""
    ask: Callable[..., Any] = lambda answer, *inputs: answer(*inputs)
    """How an answer is asked, where it is no function."""

    def __call__(self, answer: Any, *args: Any, parts: Sequence[str] = (), **kwargs: Any) -> str:
        for inputs in self.inputs(*args, **kwargs):
            self.compare(answer, inputs, parts)
        return self.praise

    def compare(self, answer: Any, inputs: Sequence[Any], parts: Sequence[str] = ()) -> None:
        """Hint unless an answer is right for these inputs (of its result, these parts), and leaves them as they are."""
        given = [value.clone() if isinstance(value, Tensor) else value for value in inputs]
        try:
            made = self.ask(answer, *given)
        except Exception as error:
            for part, hint in self.errors.items():
                if part in f"{type(error).__name__} {error}".lower():
                    raise Hint(hint) from None
            raise
        expect_filled(made)
        for name, value, before in zip(inspect.signature(self.expected).parameters, given, inputs, strict=True):
            if isinstance(value, Tensor):
                expect_untouched(value, before, name)
        expected = self.expected(*inputs)
        if isinstance(expected, Expected):
            expected.compare(made)
            self._expect_gradients(answer, made, inputs, expected.learns)
        else:
            for name, value in self._parts(made, list(expected)).items():
                if not parts or name in parts:
                    expected[name].compare(value)

    def _parts(self, made: Any, names: list[str]) -> dict[str, Any]:
        kind, hint = self.wants
        if not isinstance(made, dict if kind is dict else tuple | list) or len(made) != len(names):
            raise Hint(hint)
        made = made if isinstance(made, dict) else dict(zip(names, made, strict=True))
        if set(made) != set(names):
            raise Hint(hint)
        expect_filled(*made.values())
        return {name: made[name] for name in names}

    def _expect_gradients(self, answer: Any, made: Any, inputs: Sequence[Any], learns: Mapping[str, str]) -> None:
        if learns and not isinstance(made, Tensor):
            raise Hint("the number is right, but it is a plain one: nothing can be learned from it. Return the tensor.")
        names = list(inspect.signature(self.expected).parameters)
        places = [names.index(name) for name in learns]
        precise = [v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for v in inputs]
        wanted = gradients(lambda *inputs: self.expected(*inputs).right, precise, places) if learns else []
        given = gradients(answer, list(inputs), places) if learns else []
        for mine, right, what in zip(given, wanted, learns.values(), strict=True):
            if mine is None:
                raise Hint(f"no gradient reaches {what}: the values are right, and yet nothing could be learned "
                    "through it. (.data, .detach(), .item() and numpy cut the graph.)")  # fmt: skip
            expect_close(mine, right, f"the gradient for {what}", tolerance=1e-4, hint="Is everything in the graph? "
                "Stay with torch's operations.")  # fmt: skip


def task(inputs: Inputs | Sequence[Sequence[Any]], praise: str = "", **how: Any) -> Callable[[Callable], Task]:
    """Turn a function of the inputs that gives an Expected into a Task. `inputs` are cases, or what gives them."""
    cases = inputs if callable(inputs) else lambda cases=inputs: cases
    return lambda expected: Task(expected, cases, praise, **how)


def hint_if(wrong: Any, hint: str) -> None:
    """Hint where something is wrong."""
    if wrong:
        raise Hint(hint)


def expect_untouched(x: Tensor, before: Tensor, what: str) -> None:
    """Hint where an answer has changed its own input."""
    if not torch.equal(x, before):
        raise Hint(
            f"your code changed {what} itself (an operator such as -= or *=, or a method that ends in _); the caller "
            "still needs it as it was, so make a new tensor."
        )


def as_tensor(value: Any) -> Tensor:
    """A tensor or a number as a tensor, without its graph; a number keeps its precision."""
    return torch.as_tensor(value, dtype=torch.float64 if isinstance(value, float) else None).detach()


def is_close(value: Tensor | float, other: Tensor | float, tolerance: float = 1e-5) -> bool:
    """Whether a value is another one, in shape and to a relative tolerance; for a value whose type was looked at."""
    value, other = as_tensor(value), as_tensor(other)
    if value.shape != other.shape or value.is_complex() or not value.numel():
        return False
    value, other = value.double(), other.double()
    size = other.abs().max()
    return bool(torch.isfinite(size) and (value - other).abs().max() <= tolerance * size.clamp(min=1e-12))


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

    call.__wrapped__ = answer  # where `runs_remotely` finds out in which process it lives
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
