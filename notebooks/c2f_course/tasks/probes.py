"""What a check does with a student's code beyond calling it on plain data; it runs where that code is."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from c2f_course.grading.remote import RemoteObject, runs_remotely


def is_class(answer: Any) -> bool:
    """Whether the answer is a class, here or in another process."""
    return answer.kind == "type" if isinstance(answer, RemoteObject) else isinstance(answer, type)


@runs_remotely
def state_shapes(cls: type[nn.Module], args: list) -> dict[str, list[int]] | None:
    """The shape of everything in the state dict of `cls(*args)`; None where a layer is still a gap."""
    with torch.random.fork_rng(devices=[]):
        module = cls(*args)
    if any(value is ... for value in vars(module).values()):
        return None
    return {name: list(value.shape) for name, value in module.state_dict().items()}


@runs_remotely
def module_output(
    cls: type[nn.Module], args: list, state: dict[str, Tensor], x: Tensor, part: str = ""
) -> Tensor | None:
    """What `cls(*args)` with these weights, or a part of it, gives for x, in evaluation mode and without gradients."""
    with torch.random.fork_rng(devices=[]):
        module = cls(*args)
    module.load_state_dict(state)
    with torch.no_grad():
        return module.eval().get_submodule(part)(x)


@runs_remotely
def gradients(function: Callable[..., Tensor], args: list, places: list[int]) -> list[Tensor | None]:
    """The gradient of the sum of squares of `function(*args)` with respect to each of the arguments at these places."""
    args = [arg.detach().clone() if isinstance(arg, Tensor) else arg for arg in args]
    for place in places:
        args[place].requires_grad_()
    made = function(*args)
    if isinstance(made, Tensor) and made.requires_grad:
        made.square().sum().backward()
    return [args[place].grad for place in places]
