"""Each picture of an ablation says its numbers."""

import math
from collections.abc import Callable

import pytest
import torch

from c2f.picture import Picture
from c2f_course.figures import notebook_09 as ablations
from c2f_course.tasks.far_apart import draw_strips

STRIPS = draw_strips(torch.tensor([0, 1]), torch.tensor([1, 1]), 20)
MAP = torch.tensor([[0.0, 2.0, -1.5], [0.0, 0.0, 0.0]])
GRID = {(10, 3): [0.5, 0.4], (10, 11): [1.0, 0.98], (20, 3): [0.5, 0.52], (20, 11): [0.45, 0.55]}
LIMITS: dict[str, Callable[[int], float]] = {"reached": lambda d: d + 1}
RUNS = {"base": [0.8, 0.82, 0.84], "sum": [0.7, 0.7, 0.7]}
A, B = torch.tensor([1, 1, 1, 0, 0, 0, 1, 1]).bool(), torch.tensor([1, 1, 0, 1, 1, 0, 1, 1]).bool()

PICTURES: dict[str, tuple[Callable[[], Picture], tuple[str, ...]]] = {
    "windows": (
        lambda: ablations.plot_windows(STRIPS[0], (3, 21), {"on the left": 7, "on the disc": 7}),
        ("on the left, at pixel 15; on the disc, at pixel 15", "3 with k = 3, 21 with k = 21"),
    ),
    "interaction": (
        lambda: ablations.plot_interaction(STRIPS[0], {"k = 3": 0 * MAP, "k = 21": MAP}),
        ("k = 3: zero everywhere", "k = 21: −1.50 to 2.00, other than zero at 2 of 6 positions"),
    ),
    "grid": (
        lambda: ablations.plot_grid(GRID, LIMITS),
        ("at 10 pixels k = 3 45 %, k = 11 99 %", "at 20 pixels k = 3 51 %, k = 11 50 %"),
    ),
    "ablation": (
        lambda: ablations.plot_ablation(RUNS, "base", title="Digits"),
        ("Digits. Test accuracy", "base 82.0 ± 2.3; sum 70.0 ± 0.0"),
    ),
    "twins": (
        lambda: ablations.plot_twins(torch.tensor([79.5, 80.7, 80.1]), {"one": torch.tensor([0.5, 0.7])}, 0.6),
        ("3 variants", "standard deviation of 0.6 points", "shows 80.7 % for 80.0", "one: 0.60 points on average"),
    ),
    "habits": (
        lambda: ablations.plot_habits({"bad": torch.tensor([1.0, 1.5]), "good": torch.tensor([-0.5, 0.4])}),
        ("bad +1.25", "good −0.05"),
    ),
    "intervals": (
        lambda: ablations.plot_intervals((0.8, 0.9), {"digits": 355, "ImageNet": 50_000}),
        ("accuracy of 80%", "digits, 355 images, ±4.16", "ImageNet, 50,000 images, ±0.35"),
    ),
    "paired": (
        lambda: ablations.plot_paired(A, B, ("base", "stem")),
        ("4 images are right with both, 1 only with base, 2 only with stem, 1 with neither", "is +12.5 points"),
    ),
    "paired, a loss": (lambda: ablations.plot_paired(B, A, ("stem", "base")), ("is −12.5 points",)),
    "paper": (ablations.plot_paper, ("Hadamard 83.2", "sum 82.7", "T 82.8, 83.2, 83.4", "±0.33 points")),
}


@pytest.mark.parametrize(("draw", "numbers"), PICTURES.values(), ids=PICTURES)
def test_a_picture_is_drawn_and_says_its_numbers(draw: Callable[[], Picture], numbers: tuple[str, ...]) -> None:
    picture = draw()
    picture.figure.draw_without_rendering()
    for number in numbers:
        assert number in picture.alt, picture.alt


def test_judging_gives_the_difference_in_points_with_the_noise_of_both() -> None:
    difference, error = ablations.judge([0.70, 0.72, 0.74], [0.80, 0.82, 0.84])
    assert difference == pytest.approx(-10)
    assert error == pytest.approx(math.sqrt(2**2 / 3 + 2**2 / 3))


def test_what_is_hard_for_both_cancels_in_pairs() -> None:
    counts, difference, errors = ablations.compare(A, B)
    assert counts.tolist() == [[4, 1], [2, 1]]
    assert difference == pytest.approx(1 / 8)
    same = ablations.compare(A, A)[2]
    assert same["paired"] == 0 < same["as if on other images"]
    assert set(errors) == set(same)
