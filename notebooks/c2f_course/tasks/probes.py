"""What a check does with a student's code beyond calling it on plain data; it runs where that code lives (`beside`)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from c2f_course.grading.remote import RemoteObject, beside


def is_class(answer: Any) -> bool:
    """Whether the answer is a class, here or in another process."""
    return answer.kind == "type" if isinstance(answer, RemoteObject) else isinstance(answer, type)


@beside
def state_shapes(cls: type[nn.Module], args: list) -> dict[str, list[int]]:
    """The shape of everything in the state dict of `cls(*args)`."""
    return {name: list(value.shape) for name, value in cls(*args).state_dict().items()}


@beside
def module_output(
    cls: type[nn.Module], args: list, state: dict[str, Tensor], x: Tensor, part: str = ""
) -> Tensor | None:
    """What `cls(*args)` with these weights, or a part of it, gives for x, in evaluation mode and without gradients."""
    module = cls(*args)
    module.load_state_dict(state)
    with torch.no_grad():
        return module.eval().get_submodule(part)(x)


@beside
def gradients(function: Callable[..., Tensor], args: list[Tensor]) -> list[Tensor | None]:
    """The gradient of the sum of squares of `function(*args)` with respect to each of the arguments."""
    leaves = [arg.detach().clone().requires_grad_() for arg in args]
    function(*leaves).square().sum().backward()
    return [leaf.grad for leaf in leaves]
