"""Every task of every notebook and assignment: what is right passes, each mistake gets its hint, and a gap is blank."""

import contextlib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import c2f_course.tasks
from c2f.models import Conv2FormerConfig, ConvMod
from c2f.models.conv2former import Block, LayerScale
from c2f_course.tasks import (
    assignment_1,
    assignment_2,
    assignment_3,
    layers,
    notebook_03,
    notebook_05,
    notebook_08,
    notebook_09,
)
from c2f_course.tasks.exercise import Exercise, Expected, Hint, Task, as_tensor, filled

MODULES = [
    importlib.import_module(f"c2f_course.tasks.{path.stem}")
    for path in sorted(Path(c2f_course.tasks.__file__).parent.glob("[a-z]*.py"))
]


TASKS: dict[str, Task] = {}
for module in MODULES:
    for name, value in vars(module).items():
        value = getattr(value, "check", value)
        if isinstance(value, Task) and value not in TASKS.values():
            TASKS[f"{module.__name__.rpartition('.')[2]}.{name}"] = value


class PlainBlock(Block):
    def __init__(self, dim: int, kernel_size: int, ratio: float) -> None:
        super().__init__(dim, Conv2FormerConfig(kernel_size=kernel_size, mlp_ratio=ratio), drop_path=0.0)


def class_of(base: type[nn.Module]) -> Callable[[Callable], type[nn.Module]]:
    """The answer is a class, whose forward is the function of the right module, x, and how the module is made."""

    def of(result: Callable[..., Any]) -> type[nn.Module]:
        class Answer(base):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                self.arguments = args

            def forward(self, x: Any) -> Any:
                model = base(*self.arguments).eval().requires_grad_(False)
                model.load_state_dict(self.state_dict())
                return result(model, x, *self.arguments)

        return Answer

    return of


def rate_of(result: Callable[..., Any], *more: Any) -> Callable[..., Any]:
    """The answer gives the rate of one step; the function gives all of them, those after the end apart."""

    def answer(step: int, *training: Any) -> Any:
        made = result(*training, *more)
        made = torch.cat(made) if isinstance(made, tuple) else made
        return made[step] if isinstance(made, torch.Tensor) else made

    return answer


def seconds_to(result: Callable[..., Any]) -> Callable[..., Any]:
    """The answer gives the seconds to one target; the function gives those to all."""
    ((_, targets),) = notebook_08.reached.inputs()

    def answer(history: Any, target: float) -> Any:
        made = result(history, targets)
        return made[targets.index(target)] if isinstance(made, torch.Tensor) else made

    return answer


def interval(result: Callable[..., Any]) -> Callable[..., Any]:
    """The answer gives two ends; the function gives the middle and half the width."""

    def answer(*inputs: Any) -> Any:
        made = result(*inputs)
        return (made[0] - made[1], made[0] + made[1]) if isinstance(made, tuple) else made

    return answer


# How an answer comes of a function of the task's inputs, where it is asked otherwise.
ANSWERS = {
    layers.convmod: class_of(ConvMod),
    assignment_1.block.check: class_of(PlainBlock),
    assignment_2.rate_at.check: lambda result: rate_of(result, True),
    notebook_05.schedule.check: rate_of,
    notebook_08.reached: seconds_to,
    notebook_09.interval.check: interval,
    notebook_03.layer_scale.check: class_of(LayerScale),
}


# Inputs on which mistakes show that do not show on those of the public check.
MORE = [
    (assignment_2.mixup.check, ((3, 3, 6, 2),)),
    (assignment_2.mixup.check, ((6, 3, 4, 4), 6)),
    (assignment_3.crop, (((5, 11, 3, 360),),)),
]


def parts_of(expected: Expected | dict[str, Expected]) -> dict[str, Expected]:
    return {"": expected} if isinstance(expected, Expected) else expected


def answer_of(name: str, result: Callable[..., Any]) -> Any:
    """The answer that gives `result` of the inputs."""
    return ANSWERS.get(TASKS[name], lambda result: result)(result)


def result_of(task: Task, parts: dict[str, Any]) -> Any:
    """A result with these parts, as the task wants it."""
    return parts[""] if "" in parts else parts if task.wants[0] is dict else tuple(parts.values())


def right(name: str, change: Callable[[Any], Any] = lambda value: value) -> Callable[..., Any]:
    """What is right, but for a change in its first part."""

    def answer(*inputs: Any) -> Any:
        parts = {part: expected.right for part, expected in parts_of(TASKS[name].expected(*inputs)).items()}
        first = next(iter(parts))
        return result_of(TASKS[name], {**parts, first: change(parts[first])})

    return answer


def mistaken(name: str, part: str, place: int) -> tuple[Callable[..., Any], set[str]]:
    """The function with a mistake of the first case, and the hints that it has for the inputs seen so far."""
    hints, first = set(), first_case(TASKS[name])[part].each[place][1]

    def answer(*inputs: Any) -> Any:
        expected = parts_of(TASKS[name].expected(*inputs))
        made = {part: expected.right for part, expected in expected.items()}
        # elsewhere it may be at another place of the list, or be no mistake at all
        same = [i for i, (_, hint) in enumerate(expected[part].each) if hint == first]
        with contextlib.suppress(RuntimeError, IndexError, ZeroDivisionError):
            value, hint = expected[part].each[place if place in same or not same else same[0]]
            value = as_tensor(value() if callable(value) else value)
            if value.shape != as_tensor(made[part]).shape or not value.isneginf().all():
                made[part] = value
                hints.add(filled(hint, value))
        return result_of(TASKS[name], made)

    return answer, hints


def other(value: Any) -> Any:
    """Another result of the same type and shape, that no mistake leads to."""
    value = as_tensor(value)
    return torch.zeros_like(value) if value.dim() and not value.is_floating_point() else value * 1.37 + 0.0123


def first_case(task: Task) -> dict[str, Expected]:
    return parts_of(task.expected(*next(iter(task.inputs()))))


MISTAKES = [(name, part, place) for name, task in TASKS.items() for part, expected in first_case(task).items()
            for place in range(len(expected.each))]  # fmt: skip


def label(value: tuple[str, str, int]) -> str:
    name, part, place = value
    return f"{name}-{part}{place}"


@pytest.mark.parametrize("mistake", MISTAKES, ids=label)
def test_each_mistake_gets_its_hint(mistake: tuple[str, str, int]) -> None:
    """Some may lead to the same as others for some of the inputs, and have their own hint for others."""
    answer, hints = mistaken(*mistake)
    task, told = TASKS[mistake[0]], set()
    for arguments in ((), *(more for other, more in MORE if other is task)):
        for inputs in task.inputs(*arguments):
            try:
                task.compare(answer_of(mistake[0], answer), inputs)
            except Hint as hint:
                told.add(str(hint))
    assert told & hints


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
    otherwise = next(iter(first_case(TASKS[name]).values())).otherwise
    with pytest.raises(Hint) as told:
        TASKS[name](answer_of(name, right(name, other)))
    assert not isinstance(otherwise, str) or otherwise in str(told.value)


def test_the_tasks_are_found() -> None:
    assert len(TASKS) >= 4 
