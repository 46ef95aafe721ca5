"""Wrong answers that students give in notebook 00, and the hint that each gets."""

import pytest
import torch

from c2f_course.tasks import notebook_00 as checks


@pytest.mark.parametrize(
    ("answer", "hint"),
    [(121, "in the middle"), (25, "own row and column"), (61, "a corner cuts it twice"), (30, "Which of the window"),
     ("36", "should be a number")],
)  # fmt: skip
def test_terms_in_the_corner(answer: object, hint: str) -> None:
    verdict = checks.terms_in_the_corner(answer)
    assert verdict.state == "hint" and hint in verdict.message
    assert checks.terms_in_the_corner(36).passed


WINDOWS = {
    "only U": (lambda u, k: u[3:14, 3:14], "that is the window of U"),
    "turned": (lambda u, k: k.flip(0, 1) * u[3:14, 3:14], "does not turn its kernel"),
    "begins at 8": (lambda u, k: k * torch.nn.functional.pad(u, (0, 5, 0, 5))[8:19, 8:19], "under it?"),
    "one too early": (lambda u, k: k * u[2:13, 2:13], "another middle"),
    "too small": (lambda u, k: u[3:13, 3:13], "has shape (10, 10)"),
    "the sum": (lambda u, k: (k * u[3:14, 3:14]).sum(), "before they are added"),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_window_by_hand(name: str) -> None:
    answer, hint = WINDOWS[name]
    verdict = checks.window_by_hand(answer)
    assert verdict.state == "hint" and hint in verdict.message


class Gives(torch.nn.Module):
    def __init__(self, what) -> None:
        super().__init__()
        self.what = what

    def forward(self, x):
        return self.what(x)


REPLACEMENTS = {
    "zeros": (torch.zeros_like, "zeros would silence"),
    "x": (lambda x: x, "gives x itself"),
    "a number": (lambda x: 1.0, "should be a torch tensor"),
    "one one": (lambda x: torch.ones(1), "should have shape (2, 3, 4, 4)"),
    "twos": (lambda x: 2 * torch.ones_like(x), "pass as it is"),
}


@pytest.mark.parametrize("name", REPLACEMENTS)
def test_no_modulation(name: str) -> None:
    what, hint = REPLACEMENTS[name]
    verdict = checks.no_modulation(Gives(what))
    assert verdict.state == "hint" and hint in verdict.message
    assert checks.no_modulation(Gives(lambda x: None)).state == "blank"
