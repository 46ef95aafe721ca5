"""Receptive fields against what can be counted on fingers, and against the gradient itself."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from c2f.maps.receptive_field import (
    Extent,
    ReceptiveField,
    effective_receptive_field,
    energy_by_radius,
    kernels_of,
    mean_radius,
    plot_receptive_fields,
    rings,
    theoretical_extent,
)
from c2f.models.conv2former import VARIANTS, Conv2Former


def tiny(seed: int = 0, **changes: object) -> Conv2Former:
    torch.manual_seed(seed)
    settings = {"dims": (4, 6), "depths": (1, 2), "kernel_size": 3, **changes}
    return Conv2Former(replace(VARIANTS["conv2former_mini_cifar"], **settings))


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


# ---- In theory


@pytest.mark.parametrize(
    ("stem", "stage", "side"),
    [
        ("pointwise", 0, 5),  # 1 + 2 for ConvMod's 3x3 + 2 for the MLP's
        ("pointwise", 1, 22),  # 9 positions of stage 1, two pixels each, and 4 more
        ("patch", 0, 10),
        ("overlap", 0, 15),  # 5, then 7 for the second 3x3, then 2 x 6 + 3 for the first
        ("conv", 0, 25),  # 5 patches of 2 are 10 wide, 12 with the second 3x3, then 2 x 11 + 3
    ],
)
def test_the_extent_counts_every_convolution_on_the_way(stem: str, stage: int, side: int) -> None:
    extent = theoretical_extent(tiny(stem=stem), stage, (4, 4))
    assert (extent.height, extent.width) == (side, side)


@pytest.mark.parametrize("stem", ["pointwise", "patch", "overlap", "conv"])
@pytest.mark.parametrize("stage", [0, 1])
def test_no_gradient_comes_from_outside_the_extent_but_what_the_norms_carry(stem: str, stage: int) -> None:
    model = tiny(stem=stem, downsample_norm="layer")  # which, unlike a GroupNorm, looks at one position only
    x = torch.randn(1, 3, 64, 64)
    field = effective_receptive_field(model, x, stage)
    top, left, height, width = field.extent
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[max(top, 0) : top + height, max(left, 0) : left + width] = True
    assert field.weights[~inside].abs().max().item() == 0 if (~inside).any() else True
    rows, columns = field.weights.sum(dim=1).nonzero(), field.weights.sum(dim=0).nonzero()
    assert (rows.min(), rows.max()) == (max(top, 0), min(top + height, 64) - 1)
    assert (columns.min(), columns.max()) == (max(left, 0), min(left + width, 64) - 1)


def test_a_group_norm_carries_a_little_from_everywhere(x: torch.Tensor) -> None:
    x = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    field = effective_receptive_field(tiny(depths=(1, 1)), x, 1)
    radii, shares = field.shares()
    outside = 1 - shares[radii <= field.extent.height / 2][-1].item()
    assert 0 < outside < 0.2


# ---- In effect


def test_the_weights_are_the_mean_absolute_gradient_of_the_middle(x: torch.Tensor) -> None:
    model = tiny().eval()
    field = effective_receptive_field(model, x, 0)
    asked = x.clone().requires_grad_()
    model.stages[0](model.stem(asked))[:, :, 8, 8].sum().backward()
    expected = asked.grad.abs().mean(dim=(0, 1))
    assert_close(field.weights, expected / expected.sum())
    assert field.position == (8, 8)
    assert_close(field.weights.sum(), torch.tensor(1.0))


def test_the_model_is_left_as_it_was(x: torch.Tensor) -> None:
    model = tiny(drop_path=0.9).train()
    with torch.no_grad():
        first, second = (effective_receptive_field(model, x, -1).weights for _ in range(2))
    assert torch.equal(first, second)  # no path was dropped
    assert model.training and all(parameter.grad is None for parameter in model.parameters())
    assert not x.requires_grad


def flat(side: int, extent: Extent) -> ReceptiveField:
    return ReceptiveField(torch.full((side, side), 1 / side**2), 0, (0, 0), extent)


def test_boxes_and_radii_of_an_even_field() -> None:
    odd = flat(9, Extent(4, 4, 1, 1))
    assert odd.box(1.0) == Extent(0, 0, 9, 9)
    assert odd.box(9 / 81) == Extent(3, 3, 3, 3)
    assert odd.radius(0.5) == 3.5  # 49 of 81 pixels; 25 would be too few
    even = flat(8, Extent(3, 3, 2, 2))  # centred between pixels
    assert even.box(0.25) == Extent(2, 2, 4, 4)
    assert even.radius(0.25) == 2
    radii, shares = even.shares()
    assert radii.tolist() == [1, 2, 3, 4]
    assert shares.tolist() == pytest.approx([4 / 64, 16 / 64, 36 / 64, 1])


def test_what_is_not_there_is_said(x: torch.Tensor) -> None:
    model = tiny()
    for call, sentence in (
        (lambda: effective_receptive_field(model, x, 2), "there is no stage 2, block 0; stages 0 to 1 have"),
        (lambda: effective_receptive_field(model, x, 1, (0, 8)), "outside this stage's 8×8 map"),
        (lambda: effective_receptive_field(model, x[:, :1], 1), "takes images of shape"),
        (lambda: flat(9, Extent(4, 4, 1, 1)).box(90), "the share is 90"),
        (lambda: theoretical_extent(model, -1, (0, 0)), "there is no stage -1"),
        (lambda: plot_receptive_fields({}), "give at least one"),
    ):
        with pytest.raises(ValueError, match=sentence):
            call()


def test_a_feature_that_depends_on_nothing_is_said(x: torch.Tensor) -> None:
    model = tiny()
    with torch.no_grad():
        model.stem[0].weight.zero_()
    with pytest.raises(ValueError, match="does not depend on these images"):
        effective_receptive_field(model, x, 0)


def test_pictures_say_their_radii(x: torch.Tensor) -> None:
    field = effective_receptive_field(tiny(), x, 0)
    for picture in (plot_receptive_fields({"mine": field}), plot_receptive_fields({"mine": field}, log=False)):
        assert f"mine: stage 0, half of the gradient lies within {field.radius(0.5):g} pixels" in picture.alt
        assert picture.png()


# ---- Kernels


def test_rings_are_squares_around_the_centre() -> None:
    assert rings(5).tolist() == [[2] * 5, [2, 1, 1, 1, 2], [2, 1, 0, 1, 2], [2, 1, 1, 1, 2], [2] * 5]
    with pytest.raises(ValueError, match="use a positive odd number"):
        rings(4)


def test_energy_is_shared_out_over_the_rings() -> None:
    tap, even = torch.zeros(5, 5), torch.ones(5, 5)
    tap[2, 2] = -3
    corner = torch.zeros(5, 5)
    corner[0, 4] = 0.1
    energy = energy_by_radius(torch.stack([tap, even, corner]))
    assert_close(energy, torch.tensor([[1, 0, 0], [1 / 25, 8 / 25, 16 / 25], [0, 0, 1]]))
    assert_close(mean_radius(torch.stack([tap, even, corner])), torch.tensor([0, 40 / 25, 2]))
    with pytest.raises(ValueError, match="zero everywhere"):
        energy_by_radius(torch.zeros(1, 3, 3))
    with pytest.raises(ValueError, match="use \\(C, k, k\\)"):
        energy_by_radius(torch.ones(3, 3))


def test_kernels_are_those_of_the_block() -> None:
    model = tiny()
    assert torch.equal(kernels_of(model, 1, 1), model.stages[1].blocks[1].convmod.a[-1].weight[:, 0])
    with pytest.raises(ValueError, match="there is no stage 0, block 1"):
        kernels_of(model, 0, 1)
