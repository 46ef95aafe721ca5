"""Checks of notebook 00, Start here."""

from collections.abc import Iterator

import torch
from torch import Tensor

from c2f.maps import window_map
from c2f.models import ConvMod
from c2f_course.tasks.exercise import Expected, exercise, of_shape, task


@exercise("00.1", "In the corner", "easy", 2)
def terms_in_the_corner(answer: object) -> str:
    counted = int((window_map(ConvMod(1), torch.ones(1, 1, 16, 16), channel=0, position=(0, 0)) != 0).sum())
    Expected("your number", counted, [
        (121, "121 holds in the middle of the map; in the corner most of the window is outside it."),
        (25, "nearly: the position's own row and column are inside, too."),
        *((half, "half would be so at an edge, if it cut the window in half; a corner cuts it "
            "twice.") for half in (60, 60.5, 61)),
    ], "Which of the window's rows −5 … 5 are on the map?").compare(answer)  # fmt: skip
    return f"{counted} of 121; the others meet the zeros around the map."


def window_inputs() -> Iterator[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(2)
    yield torch.randn(16, 16, generator=draw), torch.randn(11, 11, generator=draw)


@exercise("00.2", "Without the library", "medium", 5)
@task(window_inputs, "that is all that `window_map` does, away from the edges.")
def window_by_hand(u: Tensor, kernel: Tensor) -> Expected:
    convmod = ConvMod(1).requires_grad_(False)
    convmod.a[-1].weight[0, 0] = kernel
    around = u[3:14, 3:14]
    mistakes = [
        (of_shape(), "that is one number, the sum; the window map is the 121 terms before they are added."),
        (around, "that is the window of U: what happens to it?"),
        (around * kernel.flip(0, 1), "a convolution in deep learning does not turn its kernel around."),
        *((kernel * u[i : i + 11, j : j + 11], "that window has another middle: where does it begin if row 8 and "
            "column 8 must be in the middle?") for i in range(6) for j in range(6) if i != 3 or j != 3),
    ]  # fmt: skip
    size = (
        lambda made: isinstance(made, Tensor) and made.numel() > 1 and made.shape != (11, 11),
        "that has shape {shape}: how many rows are there from 5 above to 5 below?",
    )
    right = window_map(convmod, u[None, None], channel=0, position=(8, 8))
    return Expected("the window map", right, mistakes, "Is it the kernel times the part of U that lies under "
        "it?", signs=[size])  # fmt: skip


@exercise("00.3", "Switch the modulation off", "medium", 5)
@task([(torch.randn(2, 3, 4, 4),)], "A is 1 everywhere, so the block mixes its values unweighed. Run the next cell.")
def no_modulation(x: Tensor) -> Expected:
    mistakes = [
        (x, "that gives x itself, so x would weigh the values; they should pass as they are."),
        (torch.zeros_like(x), "zeros would silence every value; they should pass as they are: times which number?"),
    ]
    return Expected("what takes the place of A", torch.ones_like(x), mistakes, "Every value should pass as it is.")
