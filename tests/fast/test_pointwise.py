"""1×1 convolution and GELU: drop-ins for PyTorch's own, exact whichever way they are computed."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from c2f.models import choices, pointwise
from c2f.fast.pointwise import WAYS, GELU2d, PointwiseConv2d

LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


@pytest.fixture(autouse=True)
def no_choices():
    before = choices.choices()
    choices.forget()
    yield
    choices.forget()
    choices.remember(before)


def chosen():
    """The ways chosen so far, by case."""
    return {case: way for case, way in choices.choices().items() if case.startswith("1x1")}


def force(monkeypatch, way):
    monkeypatch.setattr(pointwise, "_time", lambda *_: way)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_each_way_is_the_convolution(way, bias, layout, monkeypatch):
    if way == "onednn product" and not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this PyTorch has no such product")
    force(monkeypatch, way)
    torch.manual_seed(0)
    layer = PointwiseConv2d(5, 7, bias=bias)
    x = torch.randn(2, 5, 4, 3).contiguous(memory_format=LAYOUTS[layout])
    expected = F.conv2d(x.double(), layer.weight.double(), layer.bias.double() if bias else None)
    with torch.no_grad():
        y = layer(x)
    assert y.shape == expected.shape
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-6)
    if layout == "channels_last":
        assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("way", ["convolution", "product"])
def test_gradients_are_the_convolutions(way, monkeypatch):
    force(monkeypatch, way)
    torch.manual_seed(0)
    layer = PointwiseConv2d(5, 7)
    plain = copy.deepcopy(layer).double()
    x, grad = torch.randn(2, 5, 4, 3, requires_grad=True), torch.randn(2, 7, 4, 3)
    layer(x).backward(grad)
    x64 = x.detach().double().requires_grad_()
    F.conv2d(x64, plain.weight, plain.bias).backward(grad.double())
    for found, expected in (
        (x.grad, x64.grad),
        (layer.weight.grad, plain.weight.grad),
        (layer.bias.grad, plain.bias.grad),
    ):
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_a_case_is_timed_once_and_can_be_fixed():
    layer, x = PointwiseConv2d(4, 6), torch.randn(1, 4, 3, 3)
    with torch.inference_mode():
        layer(x)
    ((case, way),) = chosen().items()
    assert case.startswith("1x1 convolution to 6 channels, 1x4x3x3, kernel 1x1, float32, NCHW, cpu with 1 thread")
    assert way in WAYS
    choices.remember({case: "product"})
    with torch.inference_mode():
        layer(x)
    assert chosen() == {case: "product"}


def test_training_is_a_case_of_its_own_without_ways_that_have_no_gradient(monkeypatch):
    seen = []
    real = pointwise.choose
    monkeypatch.setattr(
        pointwise, "choose", lambda name, ways, device: seen.append(list(ways)) or real(name, ways, device)
    )
    layer, x = PointwiseConv2d(4, 6), torch.randn(1, 4, 3, 3)
    layer(x)
    layer(x)
    with torch.no_grad():
        layer(x)
    assert seen[0] == ["convolution", "product"]
    assert len(seen) == 2 and len(chosen()) == 2


@pytest.mark.parametrize("learns", ["weight", "bias", "x"])
def test_whatever_alone_learns_gets_its_gradient(learns, monkeypatch):
    """A way without gradients is the fastest where nothing learns, and must not be taken where anything does."""
    monkeypatch.setattr(pointwise, "choose", lambda name, ways, device: list(ways)[-1])
    layer, x = PointwiseConv2d(4, 6), torch.randn(1, 4, 3, 3)
    layer.requires_grad_(False)
    leaf = x if learns == "x" else getattr(layer, learns)
    leaf.requires_grad_()
    layer(x).sum().backward()
    assert leaf.grad is not None and leaf.grad.any()


def test_many_positions_and_other_devices_are_not_timed():
    side = int((pointwise.FEW_POSITIONS + 1) ** 0.5) + 1
    PointwiseConv2d(1, 1)(torch.randn(1, 1, side, side))
    PointwiseConv2d(2, 1).to("meta")(torch.empty(1, 2, 3, 3, device="meta"))
    assert PointwiseConv2d(2, 3)(torch.randn(0, 2, 3, 3)).shape == (0, 3, 3, 3)
    assert not chosen()


def test_who_counts_operations_sees_a_convolution():
    layer, x = PointwiseConv2d(5, 7), torch.randn(2, 5, 4, 3)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        layer(x)
    assert counter.get_total_flops() == 2 * 2 * 5 * 7 * 12
    assert not chosen()


def test_input_that_does_not_fit_is_told_by_pytorch():
    with pytest.raises(RuntimeError, match="channels"):
        PointwiseConv2d(3, 4)(torch.randn(1, 2, 2, 2))
    assert PointwiseConv2d(3, 4)(torch.randn(3, 2, 2)).shape == (4, 2, 2)  # one image without a batch axis


def test_under_autocast_it_computes_in_half_precision():
    layer, x = PointwiseConv2d(8, 8), torch.randn(1, 8, 4, 4)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        y = layer(x)
        expected = F.conv2d(x, layer.weight, layer.bias)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected, rtol=2e-2, atol=2e-2)
    assert all("bfloat16" in case for case in chosen())


def test_it_exchanges_weights_with_a_convolution():
    layer, plain = PointwiseConv2d(3, 5), nn.Conv2d(3, 5, 1)
    plain.load_state_dict(layer.state_dict())
    layer.load_state_dict(plain.state_dict())
    assert list(layer.state_dict()) == ["weight", "bias"]


# One shape within the bytes that go to oneDNN, one below them.
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("side", [64, 4])
def test_gelu_is_the_exact_one_in_either_layout(side, dtype):
    torch.manual_seed(0)
    x = (3 * torch.randn(2, 64, side, side)).to(dtype)
    grad = torch.randn_like(x)
    assert (x.nbytes in pointwise.ONEDNN_GELU) == (side == 64)
    exact = x.double().requires_grad_()
    F.gelu(exact).backward(grad.double())
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2  # of the norm
    for layout in LAYOUTS.values():
        leaf = x.clone(memory_format=layout).requires_grad_()
        y = GELU2d()(leaf)
        y.backward(grad)
        assert y.is_contiguous(memory_format=layout) and leaf.grad.is_contiguous(memory_format=layout)
        for found, expected in ((y, F.gelu(exact)), (leaf.grad, exact.grad)):
            assert (found.double() - expected).norm() <= tolerance * expected.norm()
