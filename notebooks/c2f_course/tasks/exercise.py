"""What an exercise is, and how an answer is compared with what is right.

An answer may be anything a student writes, so it is believed in nothing: its type and shape are looked at before its
values are, and what it raises becomes a sentence.
"""

import html
import inspect
import itertools
import math
import numbers
import tomllib
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
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
    kit: Any = None
    """The kit's own answer, where a notebook goes on with what was answered."""

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


def exercise(
    number: str, title: str, difficulty: Difficulty, minutes: int, kit: Any = None
) -> Callable[[Callable[..., str]], Exercise]:
    """Turn a check into an Exercise: one that is a Task, or that raises Hint itself."""
    return lambda check: Exercise(number, title, difficulty, minutes, check, kit)


def mine_or_kit(mine: Any, check: Exercise) -> Any:
    """The student's answer if it passes its check, else the kit's. Says in one line which of the two."""
    verdict = check(... if mine is check.kit else mine)
    which = {
        "passed": "your own answer is used from here on.",
        "hint": "your answer does not pass its check yet, so the kit's is used.",
        "blank": "the gap is still empty, so the kit's answer is used.",
    }
    print(f"Exercise {check.number}: {which[verdict.state]}")
    return mine if verdict.passed else check.kit


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


Says = Mapping[str, Any]
"""Sentences by name, or tables of them."""


def sentences(module: str) -> dict[str, Says]:
    """What a module's checks say, one table per check: hints/<module>.toml. {braces} in them are filled in."""
    path = Path(__file__).parent / "hints" / f"{module.rpartition('.')[2]}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Expected:
    """What is right for some inputs, and what the mistakes lead to that students make.

    Where the result of a mistake has another shape than what is right, or is not finite, that alone tells it.
    """

    what: str
    """Begins a sentence, such as "the matrix"."""
    right: Any
    """A tensor or a number."""
    mistakes: Mapping[str, Any]
    """Name of a mistake, and so of its hint -> what it leads to, or a tuple where that may be one of several things. A
    value that may raise on some inputs is a function without arguments; where it raises, the mistake is passed over."""
    otherwise: str | Callable[[Any], str] = "otherwise"
    """The name of the hint for all other mistakes, or what makes a sentence of the result."""
    tolerance: float | None = None
    """Relative; by default 1e-5 for tensors and 1e-9 for a number, which is a count more often than not."""
    signs: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    """What would give a mistake away whatever its value is, by the name of its hint; seen before the mistakes."""
    learns: Mapping[str, str] = field(default_factory=dict)
    """The inputs to which a gradient must come back, each as a sentence calls it."""
    says: Says = field(default_factory=dict)
    """The hints by their names; a task has its own."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What {braces} in the hints stand for, beside the task's inputs, {made} (the result) and {shape} (its shape)."""

    def say(self, name: str, made: Any = None) -> str:
        """The hint of this name for a result; "before" begins every mistake's, where there is one."""
        before = self.says.get("before", "") if name in self.mistakes else ""
        shape = tuple(getattr(made, "shape", ()))
        return (before + self.says[name]).format(**{**self.facts, "made": made, "shape": shape})

    def compare(self, made: Any) -> None:
        """Hint unless `made` is right: that of the first mistake which leads to it, if there is one."""
        expect_filled(made)
        is_tensor = isinstance(self.right, Tensor)
        tolerance = self.tolerance or (1e-5 if is_tensor else 1e-9)
        names = (name for name, holds in self.signs.items() if holds(made))
        if isinstance(made, Tensor) if is_tensor and self.right.dim() else isinstance(made, Tensor | numbers.Real):
            names = itertools.chain(names, self._mistaken(as_tensor(made), tolerance))
        for name in names:
            raise Hint(self.say(name, made))
        right = self.right if is_tensor and self.right.dim() else float(self.right)
        expect_close(made, right, self.what, hint=self._otherwise(made), tolerance=tolerance)

    @property
    def each(self) -> list[tuple[Any, str]]:
        """The mistakes, one value at a time, each with its name."""
        found = ((v if isinstance(v, tuple) else (v,), name) for name, v in self.mistakes.items())
        return [(one, name) for values, name in found for one in values]

    def _otherwise(self, made: Any) -> str:
        """The hint for a result that may be of any type and shape."""
        try:
            if callable(self.otherwise):
                return self.otherwise(made)
            return self.say(self.otherwise, made) if self.otherwise in self.says else ""
        except (RuntimeError, AttributeError, TypeError, IndexError):
            return ""

    def _mistaken(self, made: Tensor, tolerance: float) -> Iterator[str]:
        right = as_tensor(self.right)
        made = made.reshape(right.shape) if right.numel() == made.numel() == 1 else made
        if is_close(made, right, tolerance):
            return
        values = [(_value(value), name) for value, name in self.each]
        values = [(value, name) for value, name in values if value is not None]
        yield from (name for value, name in values if is_close(made, value, tolerance))
        for value, name in values:
            infinite = not _is_finite(value) and not _is_finite(made) and not value.isneginf().all()
            if value.shape == made.shape and (value.shape != right.shape or infinite):
                yield name


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
    says: Says
    """The hints by the names of the mistakes, and as "praise" why the answer is right. A part of the result may have a
    table of its own, of its name."""
    wants: type = tuple
    """Of a result with several parts: a dictionary with their names, or a tuple ("wants" is the hint for the rest)."""
    errors: Mapping[str, str] = field(default_factory=dict)
    """A part of an error's sentence, in small letters, after a known mistake -> the name of the hint."""
    ask: Callable[..., Any] = lambda answer, *inputs: answer(*inputs)
    """How an answer is asked, where it is no function."""

    def __call__(self, answer: Any, *args: Any, parts: Sequence[str] = (), **kwargs: Any) -> str:
        for inputs in self.inputs(*args, **kwargs):
            self.compare(answer, inputs, parts)
        return self.says.get("praise", "")

    def explained(self, inputs: Sequence[Any]) -> Expected | dict[str, Expected]:
        """What is expected for these inputs, with its hints."""
        expected, names = self.expected(*inputs), inspect.signature(self.expected).parameters
        given = dict(zip(names, inputs, strict=True))

        def explained(one: Expected, part: str = "") -> Expected:
            says = one.says or {**self.says, **self.says.get(part, {})}
            return replace(one, says=says, facts={**given, **one.facts})

        if isinstance(expected, Expected):
            return explained(expected)
        return {part: explained(one, part) for part, one in expected.items()}

    def compare(self, answer: Any, inputs: Sequence[Any], parts: Sequence[str] = ()) -> None:
        """Hint unless an answer is right for these inputs (of its result, these parts), and leaves them as they are."""
        given = [value.clone() if isinstance(value, Tensor) else value for value in inputs]
        try:
            made = self.ask(answer, *given)
        except Exception as error:
            for part, name in self.errors.items():
                if part in f"{type(error).__name__} {error}".lower():
                    raise Hint(self.says[name]) from None
            raise
        expect_filled(made)
        for name, value, before in zip(inspect.signature(self.expected).parameters, given, inputs, strict=True):
            if isinstance(value, Tensor):
                expect_untouched(value, before, name)
        expected = self.explained(inputs)
        if isinstance(expected, Expected):
            expected.compare(made)
            self._expect_gradients(answer, made, inputs, expected.learns)
        else:
            for name, value in self._parts(made, list(expected)).items():
                if not parts or name in parts:
                    expected[name].compare(value)

    def _parts(self, made: Any, names: list[str]) -> dict[str, Any]:
        whole = isinstance(made, dict if self.wants is dict else tuple | list) and len(made) == len(names)
        if not whole or (isinstance(made, dict) and set(made) != set(names)):
            raise Hint(self.says["wants"])
        made = made if isinstance(made, dict) else dict(zip(names, made, strict=True))
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


def task(inputs: Inputs | Sequence[Sequence[Any]], says: Says, **how: Any) -> Callable[[Callable], Task]:
    """Turn a function of the inputs that gives an Expected into a Task. `inputs` are cases, or what gives them."""
    cases = inputs if callable(inputs) else lambda cases=inputs: cases
    return lambda expected: Task(expected, cases, says, **how)


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
