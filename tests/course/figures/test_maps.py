"""The pictures of notebook 06 draw what the kernels and maps hold, and say its numbers."""

import pytest
import torch

from c2f.maps.receptive_field import Extent, ReceptiveField, energy_by_radius
from c2f_course.figures import notebook_06 as draw

CENTRED, WIDE = torch.zeros(5, 5), torch.ones(5, 5)
CENTRED[2, 2] = -3
KERNELS = torch.stack([WIDE, CENTRED])


def test_energy_is_drawn_ring_by_ring_beside_that_of_noise() -> None:
    picture = draw.plot_energy({place: {"untrained": KERNELS, "trained": KERNELS[1:]} for place in ("one", "two")})
    assert picture.alt.endswith("two, untrained: 52, 16, 32; two, trained: 100, 0, 0.")
    ax = picture.figure.axes[1]
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([0.52, 0.16, 0.32, 1, 0, 0])
    assert ax.lines[0].get_ydata() == pytest.approx([1 / 25, 8 / 25, 16 / 25])


def test_kernels_are_sorted_the_most_centred_first() -> None:
    picture = draw.plot_sorted_energy({"one": KERNELS, "two": KERNELS}, "Sorted")
    assert picture.alt.endswith("two: mean radius from 0.0 to 1.6, median 0.0 steps.")
    drawn = torch.tensor(picture.figure.axes[0].images[0].get_array())
    torch.testing.assert_close(drawn, energy_by_radius(KERNELS.flip(0)))


def test_signs_and_products_say_their_shares() -> None:
    values = torch.tensor([-1.0, 1.0, 1.0, 3.0, 30.0])
    signs = draw.plot_signs({"one": {"A": values}, "two": {"A": -values}}, "Signs")
    assert signs.alt == "Signs. one, A: 20% below zero, from −1.0 to 30.0; two, A: 80% below zero, from −30.0 to 1.0."
    assert signs.figure.axes[0].patches[0].get_data().values.sum() == 2  # 1, 0.5 twice; 30 is beyond the axis
    pair = torch.tensor([1.0, -3.0]), torch.tensor([1.0, 1.0])
    products = draw.plot_products({"one": pair, "two": pair}, "Products")
    assert products.alt.startswith("Products. one: 25% of the size of A ⊙ V is above zero; two: 25%")


def test_the_share_inside_a_radius_is_a_curve() -> None:
    field = ReceptiveField(torch.full((9, 9), 1 / 81), 0, (4, 4), Extent(4, 4, 1, 1))
    picture = draw.plot_inside({"mine": field}, "How far")
    assert picture.alt.startswith("How far. mine: stage 0, half of the gradient lies within 3.5 pixels")
    radii, shares = picture.figure.axes[0].lines[0].get_data()
    assert list(radii) == [0, 0.5, 1.5, 2.5, 3.5, 4.5]
    assert shares == pytest.approx([0, 1 / 81, 9 / 81, 25 / 81, 49 / 81, 1])
