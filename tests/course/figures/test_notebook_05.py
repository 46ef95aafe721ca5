"""Notebook 05's pictures: each says its numbers."""

import math

import pytest
import torch

from c2f_course.figures import notebook_05 as plots

CURVES = plots.Curves([2.3, 1.0, 0.5, 0.2], [0.5, 0.9])
RESULTS = [(0.5, 0.8), (0.4, 0.9)]

PICTURES = {
    "loop": (lambda: plots.plot_loop("loss", "step"), "Marked: loss, step."),
    "first step": (
        lambda: plots.plot_first_step(torch.tensor([1e-5, 1e-3]), torch.tensor([0.01, 0.01]), 0.01),
        "100% of the weights moved by the learning rate 0.01",
    ),
    "smoothed loss": (lambda: plots.plot_smoothed_loss([0.0, 0.1]), "with 0.1 at p = 0.91, where it is 0.50"),
    "averaged": (
        lambda: plots.plot_averaged([1, 2], RESULTS, RESULTS, [(0.1, 0.1), (0.2, 0.1)]),
        "at the end their accuracies are 90.0% and 90.0%",
    ),
    "resumed": (lambda: plots.plot_resumed([3.0, 2.0, 1.0], {"so": [2.0, 1.5]}, 1), "so it is at most 0.5 from"),
    "range test": (
        lambda: plots.plot_range_test([0.1, 1, 10, 100], [2.0, 1.0, 9.0, math.nan], 0.3),
        "at the rate 1 and then rises to",
    ),
    "hunt": (lambda: plots.plot_hunt({"A": CURVES}, CURVES), "A ends at a loss of"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_each_picture_says_its_numbers(name: str) -> None:
    draw, sentence = PICTURES[name]
    assert sentence in draw().alt


def test_a_loop_of_ones_own_can_be_watched() -> None:
    live = plots.LiveLoss(4, {"floor": 0.5})
    with pytest.raises(ValueError, match="no step to plot yet"):
        live.picture()
    for loss in (2.0, 1.0):
        live.step(loss)
    live.score(0.75)
    assert "After 2 of 4 steps" in live.picture().alt and "75.0%" in live.picture().alt


def test_a_smoothed_curve_begins_where_the_curve_does_and_ends_where_it_blew_up() -> None:
    assert plots.smooth([3.0, 3.0, math.inf, 1.0]) == pytest.approx([3.0, 3.0])
