"""The maps against their definition, term by term, and against what the model itself computes."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch.testing import assert_close

from c2f.maps import channels_by_effect, implied_attention, modulation_at, parts_of, window_map
from c2f.models.conv2former import VARIANTS, Conv2Former, ConvMod, fuse


def tiny(**changes: object) -> Conv2Former:
    torch.manual_seed(0)
    config = replace(VARIANTS["conv2former_mini_cifar"], dims=(4, 6), depths=(1, 2), **changes)
    model = Conv2Former(config)
    for parameter in model.parameters():  # the init is too small to tell a forgotten bias from rounding
        torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


@pytest.fixture(scope="module")
def model() -> Conv2Former:
    return tiny()


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [(6, 9), (13, 12)], ids=["map smaller than the kernel", "map larger"])
@pytest.mark.parametrize("kernel_size", [3, 7, 11])
def test_the_terms_of_every_window_add_up_to_the_modulation_there(kernel_size: int, size: tuple[int, int]) -> None:
    torch.manual_seed(2)
    convmod = ConvMod(3, kernel_size)
    torch.nn.init.normal_(convmod.a[2].bias)
    parts = convmod.parts(torch.randn(2, 3, *size))
    for image, channel, row, column in product(range(2), range(3), range(size[0]), range(size[1])):
        terms = window_map(convmod, parts.u, channel, (row, column), image)
        assert terms.shape == (kernel_size, kernel_size)
        assert_close(terms.sum() + convmod.a[2].bias[channel], parts.a[image, channel, row, column])


def test_each_term_is_a_weight_times_what_it_lies_on_and_zero_outside() -> None:
    convmod = ConvMod(2, 5)
    u = torch.randn(1, 2, 4, 7)
    weight = convmod.a[2].weight
    terms = window_map(convmod, u, channel=1, position=(0, 5))
    for down, right in product(range(-2, 3), range(-2, 3)):
        inside = 0 <= down < 4 and 0 <= 5 + right < 7
        expected = weight[1, 0, down + 2, right + 2] * u[0, 1, down, 5 + right] if inside else torch.tensor(0.0)
        assert_close(terms[down + 2, right + 2], expected)
    assert not terms.requires_grad


def test_the_modulation_map_is_what_the_convmod_multiplies_with(model: Conv2Former, x: torch.Tensor) -> None:
    convmod = model.stages[1].blocks[1].convmod
    parts = model.parts(x, 1, 1)
    a = parts_of(model, x, 1, 1).a
    assert a.shape == (2, 6, 4, 6)
    assert not a.requires_grad
    assert_close(convmod.proj(a * parts.v), parts.y)


def test_a_model_in_training_gives_the_same_map_and_stays_as_it_was(x: torch.Tensor) -> None:
    model = tiny(drop_path=0.9)
    expected = parts_of(model, x, 1, 1).a
    model.train()
    model.head.eval()
    assert_close(parts_of(model, x, 1, 1).a, expected)
    assert model.training and model.stages.training and not model.head.training


def test_looking_at_a_position_gives_the_same_numbers_as_the_parts(model: Conv2Former, x: torch.Tensor) -> None:
    parts = parts_of(model, x, 1, 0)
    seen = modulation_at(model, x, stage=1, block=0, channel=5, position=(3, 0), image=1)
    for name in ("u", "a", "v"):
        assert_close(getattr(seen, name), getattr(parts, name)[1, 5])
    assert_close(seen.fused, parts.a[1, 5] * parts.v[1, 5])
    assert_close(seen.kernel, model.stages[1].blocks[0].convmod.a[2].weight.detach()[5, 0])
    assert seen.window.sum().item() + seen.bias == pytest.approx(seen.value, rel=1e-5)
    assert seen.value == parts.a[1, 5, 3, 0].item()


def test_by_default_the_channel_that_does_most_where_it_does_most(x: torch.Tensor) -> None:
    model = tiny(kernel_size=3)
    parts = parts_of(model, x, 0, 0)
    seen = modulation_at(model, x, 0, 0)
    assert seen.channel == channels_by_effect(model.stages[0].blocks[0].convmod, parts)[0]
    whole_windows = seen.fused[1:-1, 1:-1].abs()
    assert seen.fused[seen.position].abs() == whole_windows.max()
    assert 0 < seen.position[0] < 7 and 0 < seen.position[1] < 11


def test_where_no_window_is_whole_any_position_may_be_chosen(model: Conv2Former, x: torch.Tensor) -> None:
    seen = modulation_at(model, x, 1, 0)  # 11×11 on a map of 4×6
    assert seen.fused[seen.position].abs() == seen.fused.abs().max()


def test_channels_are_sorted_by_what_the_output_loses_without_them(model: Conv2Former, x: torch.Tensor) -> None:
    convmod = model.stages[0].blocks[0].convmod
    parts = parts_of(model, x, 0, 0)
    fused = parts.a * parts.v

    def loss(channel: int) -> float:
        without = fused.clone()
        without[:, channel] = 0
        return (convmod.proj(without) - parts.y)[1].norm().item()

    with torch.no_grad():
        losses = [loss(channel) for channel in channels_by_effect(convmod, parts, image=1).tolist()]
    assert losses == sorted(losses, reverse=True)


def test_another_fusion_is_shown_as_the_model_computes_it(x: torch.Tensor) -> None:
    model = tiny(fusion="sigmoid")
    parts = parts_of(model, x, 0, 0)
    seen = modulation_at(model, x, 0, 0, channel=2, position=(0, 0))
    assert_close(seen.fused, fuse(parts.a, parts.v, "sigmoid")[0, 2])


def test_the_window_in_pixels_holds_the_pixels_that_the_modulation_depends_on(x: torch.Tensor) -> None:
    model = tiny(kernel_size=3, stem="patch")
    pixels = x[:1].clone().requires_grad_()
    model.parts(pixels, 0, 0).a[0, 1, 4, 6].backward()  # the first block of a patch stem: nothing is blurred yet
    rows, columns = (pixels.grad[0].abs().sum(0) > 0).nonzero(as_tuple=True)
    top, left, height, width = modulation_at(model, x, 0, 0, channel=1, position=(4, 6)).box(1)
    assert (top, left) == (rows.min(), columns.min())
    assert (top + height - 1, left + width - 1) == (rows.max(), columns.max())


@pytest.mark.parametrize("size", [(9, 8), (4, 6)], ids=["larger than the kernel", "smaller"])
def test_implied_attention_is_the_row_of_the_convolution(size: tuple[int, int]) -> None:
    kernel, u = torch.randn(7, 7), torch.randn(size)
    a = torch.nn.functional.conv2d(u[None, None], kernel[None, None], padding=3)[0, 0]
    for position in product(*map(range, size)):
        assert_close((implied_attention(kernel, position, size) * u).sum(), a[position], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"channel": 4}, r"no channel 4; there are 4: use 0 to 3"),
        ({"channel": -1}, r"no channel -1"),
        (
            {"position": (8, 0)},
            r"row 8, column 0\) is outside this stage's 8×12 map; use rows 0 to 7 and columns 0 to 11",
        ),
        ({"position": (0, -1)}, r"column -1\) is outside"),
        ({"image": 2}, r"no image 2; there are 2: use 0 to 1"),
        ({"stage": 2}, r"no stage 2"),
        ({"block": 1}, r"block 1"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(
    model: Conv2Former, x: torch.Tensor, arguments: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        modulation_at(model, x, **{"stage": 0, "block": 0, **arguments})


def test_a_single_map_without_its_batch_is_refused(model: Conv2Former) -> None:
    with pytest.raises(ValueError, match=r"use \(N, C, H, W\)"):
        window_map(model.stages[0].blocks[0].convmod, torch.zeros(4, 8, 12), 0, (0, 0))
