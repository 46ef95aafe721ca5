"""Every task of every notebook and assignment: what is right passes, each mistake gets its hint, and a gap is blank."""

import functools
import importlib
import tomllib
from collections.abc import Callable
from dataclasses import replace
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
    notebook_00,
    notebook_03,
    notebook_05,
    notebook_08,
    notebook_09,
)
from c2f_course.tasks.exercise import Exercise, Expected, Hint, Task, as_tensor

HINTS = Path(c2f_course.tasks.__file__).parent / "hints"
MODULES = [
    importlib.import_module(f"c2f_course.tasks.{path.stem}")
    for path in sorted(Path(c2f_course.tasks.__file__).parent.glob("[a-z]*.py"))
]


TASKS: dict[str, Task] = {}
for module in MODULES:
    for name, value in vars(module).items():
        value = getattr(value, "check", value)
        if isinstance(value, Task) and all(value.expected is not task.expected for task in TASKS.values()):
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


def made_by(make: Callable[..., nn.Module]) -> Callable[[Callable], Callable[..., nn.Module]]:
    """The answer makes a module, whose forward is the function of the right module, x, and how the module is made."""

    def of(result: Callable[..., Any]) -> Callable[..., nn.Module]:
        def answer(*args: Any) -> nn.Module:
            module, right = make(*args), make(*args).eval().requires_grad_(False)

            class Answer(type(module)):
                def forward(self, x: Any) -> Any:
                    right.load_state_dict(self.state_dict())
                    return result(right, x, *args)

            module.__class__ = Answer
            return module

        return answer

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


def averaged(result: Callable[..., Any]) -> Callable[..., Any]:
    """The answer updates a model in place; the function gives its numbers."""

    def answer(average: nn.Module, model: nn.Module, decay: float) -> Any:
        made = result(average, model, decay)
        if not isinstance(made, torch.Tensor):
            return made
        nn.utils.vector_to_parameters(made.float(), average.parameters())
        return average

    return answer


# How an answer comes of a function of the task's inputs, where it is asked otherwise.
ANSWERS = {
    layers.convmod.expected: class_of(ConvMod),
    assignment_1.block.check.expected: class_of(PlainBlock),
    assignment_2.rate_at.check.expected: lambda result: rate_of(result, True),
    notebook_05.schedule.check.expected: rate_of,
    notebook_05.ema_update.check.expected: averaged,
    notebook_08.reached.expected: seconds_to,
    notebook_09.interval.check.expected: interval,
    notebook_03.layer_scale.check.expected: class_of(LayerScale),
    **{check.check.expected: made_by(check.kit) for check in (
        notebook_03.stem, notebook_03.mlp, notebook_03.downsampling, notebook_03.stage, notebook_03.head,
    )},
    notebook_00.terms_in_the_corner.check.expected: lambda result: result(),
}  # fmt: skip


# Inputs on which mistakes show that do not show on those of the public check.
MORE = {
    assignment_2.mixup.check.expected: [((3, 3, 6, 2),), ((6, 3, 4, 4), 6)],
    assignment_3.crop.expected: [(((5, 11, 3, 360),),)],
}


def parts_of(expected: Expected | dict[str, Expected]) -> dict[str, Expected]:
    return {"": expected} if isinstance(expected, Expected) else expected


def answer_of(task: Task, result: Callable[..., Any]) -> Any:
    """The answer that gives `result` of the inputs."""
    return ANSWERS.get(task.expected, lambda result: result)(result)


def result_of(task: Task, parts: dict[str, Any]) -> Any:
    """A result with these parts, as the task wants it."""
    return parts[""] if "" in parts else parts if task.wants is dict else tuple(parts.values())


def right(task: Task, change: Callable[[Any], Any] = lambda value: value) -> Callable[..., Any]:
    """What is right, but for a change in its first part."""

    def answer(*inputs: Any) -> Any:
        parts = {part: expected.right for part, expected in parts_of(task.explained(inputs)).items()}
        first = next(iter(parts))
        return result_of(task, {**parts, first: change(parts[first])})

    return answer


def other(value: Any) -> Any:
    """Another result of the same type and shape, that no mistake leads to."""
    value = as_tensor(value)
    return torch.zeros_like(value) if value.dim() and not value.is_floating_point() else value * 1.37 + 0.0123


def told(task: Task, inputs: Any, expected: Any, part: str, name: str, place: int) -> tuple[str, str] | None:
    """What a mistake's own hint is for these inputs, and what the check says; None where nothing is wrong with it.

    place: which of the things that the mistake may lead to.
    """
    parts = parts_of(expected)
    made = {name: expected.right for name, expected in parts.items()}
    leads = [value for value, of in parts[part].each if of == name]
    try:
        value = leads[place]
        value = as_tensor(value() if callable(value) else value)
    except (RuntimeError, IndexError, ZeroDivisionError):
        return None
    if value.shape == as_tensor(made[part]).shape and value.isneginf().all():
        return None
    result = result_of(task, {**made, part: value})
    known = replace(task, expected=functools.wraps(task.expected)(lambda *inputs: expected))
    try:
        known.compare(answer_of(task, lambda *inputs: result), inputs)
    except Hint as raised:
        return parts[part].say(name, value), str(raised)
    return None


@pytest.mark.parametrize("name", TASKS)
def test_each_mistake_gets_its_hint(name: str) -> None:
    """Some lead to the same as others for some of the inputs, and have their own hint for others."""
    task = TASKS[name]
    more = (inputs for arguments in ((), *MORE.get(task.expected, ())) for inputs in task.inputs(*arguments))
    cases = [(inputs, task.explained(inputs)) for inputs in more]
    mistakes = {
        (part, name, place)
        for _, expected in cases
        for part, one in parts_of(expected).items()
        for name, leads in one.mistakes.items()
        for place in range(len(leads) if isinstance(leads, tuple) else 1)
    }
    for part, name, place in sorted(mistakes):
        seen = [told(task, *case, part, name, place) for case in cases]
        assert any(own == said for own, said in filter(None, seen)), f"{part} {name} {place}"


@pytest.mark.parametrize("name", TASKS)
def test_what_is_right_passes_and_a_gap_is_blank(name: str) -> None:
    task = TASKS[name]
    assert task(answer_of(task, right(task))) == task.says.get("praise", "")
    check = Exercise("0", "", "easy", 1, task)
    assert check(answer_of(task, lambda *inputs: ...)).state == "blank"
    assert check(answer_of(task, lambda *inputs: "a string")).state == "hint"


@pytest.mark.parametrize("name", TASKS)
def test_a_result_like_no_known_mistakes_gets_the_general_hint(name: str) -> None:
    task = TASKS[name]
    first = next(iter(parts_of(task.explained(next(iter(task.inputs())))).values()))
    with pytest.raises(Hint) as raised:
        task(answer_of(task, right(task, other)))
    if first.otherwise in first.says:
        assert first.say(first.otherwise) in str(raised.value)


def test_the_tasks_are_found() -> None:
    assert len(TASKS) >= 50


@pytest.mark.parametrize("path", sorted(HINTS.glob("*.toml")), ids=lambda path: path.stem)
def test_each_sentence_is_one_that_a_check_says(path: Path) -> None:
    """A hint whose mistake has gone, or has another name, would never be seen."""
    code = "".join(module.read_text(encoding="utf-8") for module in HINTS.parents[1].rglob("*.py"))

    def names(table: dict[str, Any]) -> set[str]:
        return {*table, *(name for value in table.values() if isinstance(value, dict) for name in names(value))}

    def is_in_code(name: str) -> bool:
        """Itself, or all the slips that it joins by commas."""
        return f'"{name}"' in code or all(f'"{slip}"' in code for slip in name.split(", "))

    own = {"praise", "otherwise", "before", "wants"}
    assert not [name for name in names(tomllib.loads(path.read_text())) - own if not is_in_code(name)]
