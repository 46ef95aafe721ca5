"""The exercises of notebook 00, Start here: a window in the corner, a window map by hand, no modulation."""

from collections.abc import Iterator

import torch
from torch import Tensor

from c2f.maps import window_map
from c2f.models import ConvMod
from c2f_course.tasks.exercise import Expected, exercise, of_shape, sentences, task

SAY = sentences(__name__)


@exercise("00.1", "In the corner", "easy", 2)
@task([()], SAY["terms_in_the_corner"], ask=lambda number: number)
def terms_in_the_corner() -> Expected:
    corner = window_map(ConvMod(1), torch.ones(1, 1, 16, 16), channel=0, position=(0, 0))
    mistakes = {"middle of the map": 121, "own row and column forgotten": 25, "half": (60, 60.5, 61)}
    return Expected("your number", int((corner != 0).sum()), mistakes)


def window_inputs() -> Iterator[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(2)
    yield torch.randn(16, 16, generator=draw), torch.randn(11, 11, generator=draw)


@exercise("00.2", "Without the library", "medium", 5)
@task(window_inputs, SAY["window_by_hand"])
def window_by_hand(u: Tensor, kernel: Tensor) -> Expected:
    convmod = ConvMod(1).requires_grad_(False)
    convmod.a[-1].weight[0, 0] = kernel
    around, others = u[3:14, 3:14], [(i, j) for i in range(6) for j in range(6) if (i, j) != (3, 3)]
    mistakes = {
        "summed": of_shape(),
        "window of U": around,
        "kernel turned around": around * kernel.flip(0, 1),
        "another middle": tuple(kernel * u[i : i + 11, j : j + 11] for i, j in others),
    }
    signs = {"size": lambda made: isinstance(made, Tensor) and made.numel() > 1 and made.shape != (11, 11)}
    right = window_map(convmod, u[None, None], channel=0, position=(8, 8))
    return Expected("the window map", right, mistakes, signs=signs)


@exercise("00.3", "Switch the modulation off", "medium", 5)
@task([(torch.randn(2, 3, 4, 4),)], SAY["no_modulation"])
def no_modulation(x: Tensor) -> Expected:
    return Expected("what takes the place of A", torch.ones_like(x), {"x itself": x, "zeros": torch.zeros_like(x)})
