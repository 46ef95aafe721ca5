"""Checks of notebook 00, Start here."""

import torch

from c2f.maps import window_map
from c2f.models import ConvMod
from c2f_course.tasks import Hint, exercise, expect_close, expect_filled, expect_number, expect_tensor


@exercise("00.1", "In the corner", "easy", 2)
def terms_in_the_corner(answer: object) -> str:
    """121 (the edge forgotten), 25 (the position's own row and column forgotten), 60 and 61 (half of them)."""
    number = expect_number(answer, "your number")
    if number == 121:
        raise Hint("121 holds in the middle of the map; in the corner most of the window lies outside it.")
    if number == 25:
        raise Hint("nearly: the position's own row and column are inside, too.")
    if number in (60, 60.5, 61):
        raise Hint("half would be so at an edge, if it cut the window in half; a corner cuts it twice.")
    counted = (window_map(ConvMod(1), torch.ones(1, 1, 16, 16), channel=0, position=(0, 0)) != 0).sum().item()
    expect_close(number, float(counted), "your number", hint="Which of the window's rows −5 … 5 are on the map?")
    return f"{counted} of 121; the others meet the zeros around the map."


@exercise("00.2", "Without the library", "medium", 5)
def window_by_hand(answer) -> str:
    """The window of U alone, a kernel turned around, a window that is shifted or of another size, a sum."""
    torch.manual_seed(2)
    convmod, u = ConvMod(1), torch.randn(1, 1, 16, 16)
    kernel = convmod.a[-1].weight[0, 0].detach()
    right = window_map(convmod, u, channel=0, position=(8, 8))
    mine = answer(u[0, 0], kernel)
    if isinstance(mine, torch.Tensor) and mine.numel() == 1:
        raise Hint("that is one number, the sum; the window map is the 121 terms before they are added.")
    if isinstance(mine, torch.Tensor) and tuple(mine.shape) != (11, 11):
        raise Hint(f"that has shape {tuple(mine.shape)}: how many rows are there from 5 above to 5 below?")
    mine = expect_tensor(mine, (11, 11), "the window map")
    if torch.allclose(mine, right / kernel, atol=1e-5):
        raise Hint("that is the window of U: what happens to it?")
    if torch.allclose(mine, right / kernel * kernel.flip(0, 1), atol=1e-5):
        raise Hint("a convolution in deep learning does not turn its kernel around.")
    if any(
        torch.allclose(mine, kernel * u[0, 0, i : i + 11, j : j + 11])
        for i in range(6)
        for j in range(6)
        if i != 3 or j != 3
    ):
        raise Hint("that window has another middle: where does it begin if row 8 and column 8 must be in the middle?")
    expect_close(mine, right, "the window map", hint="Is it the kernel times the part of U that lies under it?")
    return "that is all that `window_map` does, away from the edges."


@exercise("00.3", "Switch the modulation off", "medium", 5)
def no_modulation(answer) -> str:
    """Zeros, x itself, a single 1, ones of a wrong shape."""
    x = torch.randn(2, 3, 4, 4)
    ones = answer(x)
    expect_filled(ones)
    if isinstance(ones, torch.Tensor) and torch.equal(ones, x):
        raise Hint("that gives x itself, so x would weigh the values; they should pass as they are.")
    ones = expect_tensor(ones, (2, 3, 4, 4), "what takes the place of A")
    if (ones == 0).all():
        raise Hint("zeros would silence every value; they should pass as they are: times which number?")
    expect_close(ones, torch.ones_like(x), "what takes the place of A", hint="Every value should pass as it is.")
    return "A is 1 everywhere, so the block mixes its values unweighed. Run the next cell."
