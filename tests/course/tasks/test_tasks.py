"""Every task of every notebook and assignment: what is right passes, each mistake gets its hint, and a gap is blank."""

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import c2f_course.tasks
from c2f.models import ConvMod
from c2f_course.tasks import layers
from c2f_course.tasks.exercise import Exercise, Expected, Hint, Task

MODULES = [
    importlib.import_module(f"c2f_course.tasks.{path.stem}")
    for path in sorted(Path(c2f_course.tasks.__file__).parent.glob("[a-z]*.py"))
]


def tasks_of(module: Any) -> dict[str, Task]:
    """Those that are written in a module, by their names there."""
    values = {name: getattr(value, "check", value) for name, value in vars(module).items() if name.islower()}
    return {f"{module.__name__.rpartition('.')[2]}.{name}": value for name, value in values.items()
            if isinstance(value, Task) and value.expected.__module__ == module.__name__}  # fmt: skip


TASKS = {name: task for module in MODULES for name, task in tasks_of(module).items()}

# Answers that are no functions: the class whose forward is a function of the module, x, and how the module is made.
CLASSES = {"layers.convmod": ConvMod}


def parts_of(expected: Expected | dict[str, Expected]) -> dict[str, Expected]:
    return {"": expected} if isinstance(expected, Expected) else expected


def answer_of(name: str, result: Callable[..., Any]) -> Any:
    """The answer that gives `result` of the inputs."""
    if name not in CLASSES:
        return lambda *inputs: result(*inputs)
    base = CLASSES[name]

    class Answer(base):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.arguments = args

        def forward(self, x: Any) -> Any:
            model = base(*self.arguments).eval().requires_grad_(False)
            model.load_state_dict(self.state_dict())
            return result(model, x, *self.arguments)

    return Answer


def right(name: str) -> Callable[..., Any]:
    def answer(*inputs: Any) -> Any:
        parts = {part: expected.right for part, expected in parts_of(TASKS[name].expected(*inputs)).items()}
        return parts.get("", parts)

    return answer


def mistaken(name: str, part: str, place: int) -> tuple[Callable[..., Any], set[str]]:
    """The function with a mistake, and the hints that the mistake has for the inputs seen so far."""
    hints: set[str] = set()

    def answer(*inputs: Any) -> Any:
        parts = parts_of(TASKS[name].expected(*inputs))
        made = {part: expected.right for part, expected in parts.items()}
        value, hint = parts[part].mistakes[place]
        value = torch.as_tensor(value() if callable(value) else value)
        if value.shape != torch.as_tensor(made[part]).shape or not value.isnan().all():
            made[part] = value
        hints.add(hint.format(made=made[part]) if "{made" in hint else hint)
        return made.get("", made)

    return answer, hints


def first_case(task: Task) -> dict[str, Expected]:
    return parts_of(task.expected(*next(iter(task.inputs()))))


MISTAKES = [(name, part, place) for name, task in TASKS.items() for part, expected in first_case(task).items()
            for place in range(len(expected.mistakes))]  # fmt: skip


def label(value: tuple[str, str, int]) -> str:
    name, part, place = value
    return f"{name}-{part}{place}"


@pytest.mark.parametrize("mistake", MISTAKES, ids=label)
def test_each_mistake_gets_its_hint(mistake: tuple[str, str, int]) -> None:
    answer, hints = mistaken(*mistake)
    with pytest.raises(Hint) as told:
        TASKS[mistake[0]](answer_of(mistake[0], answer))
    assert str(told.value) in hints


@pytest.mark.parametrize("name", TASKS)
def test_what_is_right_passes(name: str) -> None:
    assert TASKS[name](answer_of(name, right(name))) == TASKS[name].praise


@pytest.mark.parametrize("name", TASKS)
def test_a_gap_is_blank_and_what_is_no_result_gets_a_hint(name: str) -> None:
    check = Exercise("0", "", "easy", 1, TASKS[name])
    assert check(answer_of(name, lambda *inputs: ...)).state == "blank"
    assert check(answer_of(name, lambda *inputs: "a string")).state == "hint"


@pytest.mark.parametrize("name", TASKS)
def test_a_result_like_no_known_mistakes_gets_the_general_hint(name: str) -> None:
    first = first_case(TASKS[name])
    part, expected = next(iter(first.items()))

    def other(*inputs: Any) -> Any:
        made = {part: expected.right for part, expected in parts_of(TASKS[name].expected(*inputs)).items()}
        made[part] = made[part] * 1.37 + 0.0123
        return made.get("", made)

    with pytest.raises(Hint) as told:
        TASKS[name](answer_of(name, other))
    assert expected.otherwise in str(told.value)


def test_the_tasks_are_found() -> None:
    assert len(TASKS) >= 4 and all(inspect.getmodule(task.expected) in MODULES for task in TASKS.values())
