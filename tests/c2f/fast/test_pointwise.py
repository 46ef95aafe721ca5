"""1×1 convolution and GELU: PyTorch's own numbers, whichever way they are computed."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from c2f.fast import autotune, pointwise
from c2f.fast.pointwise import CONVOLUTIONS, GELUS, FastGELU, FastPointwiseConv2d

LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


@pytest.fixture(autouse=True)
def used():
    """Nothing chosen yet, and what is chosen as it is used."""
    autotune.clear_choices()
    with autotune.recorded_choices() as used:
        yield used
    autotune.clear_choices()


gelu = FastGELU()


def pointwise_conv2d(x, weight, bias=None):
    layer = FastPointwiseConv2d(weight.shape[1], len(weight), 1, bias=bias is not None)
    return functional_call(layer, {"weight": weight, "bias": bias} if layer.bias is not None else {"weight": weight}, x)


def force(monkeypatch, choice):
    monkeypatch.setattr(pointwise, "choose", lambda case, candidates, device: choice)


def layer(c_in=5, c_out=7, bias=True, dtype=torch.float32):
    torch.manual_seed(0)
    return torch.randn(c_out, c_in, 1, 1, dtype=dtype), torch.randn(c_out, dtype=dtype) if bias else None


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("way", CONVOLUTIONS)
def test_each_way_is_the_convolution(way, bias, layout, monkeypatch):
    force(monkeypatch, way)
    weight, bias = layer(bias=bias)
    x = torch.randn(2, 5, 4, 3).contiguous(memory_format=LAYOUTS[layout])
    y = pointwise_conv2d(x, weight, bias)
    expected = F.conv2d(x.double(), weight.double(), None if bias is None else bias.double())
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-6)
    if layout == "channels_last":
        assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("way", CONVOLUTIONS)
def test_gradients_are_the_convolutions(way, monkeypatch):
    force(monkeypatch, way)
    x, (weight, bias), grad = torch.randn(2, 5, 4, 3), layer(), torch.randn(2, 7, 4, 3)
    ours = [t.clone().requires_grad_() for t in (x, weight, bias)]
    exact = [t.double().requires_grad_() for t in (x, weight, bias)]
    pointwise_conv2d(*ours).backward(grad)
    F.conv2d(*exact).backward(grad.double())
    for found, expected in zip(ours, exact, strict=True):
        torch.testing.assert_close(found.grad.double(), expected.grad, rtol=1e-5, atol=1e-5)


def test_a_case_is_timed_once_and_can_be_fixed(used):
    x, (weight, bias) = torch.randn(1, 4, 3, 3), layer(4, 6)
    pointwise_conv2d(x, weight, bias)
    ((case, way),) = used.items()
    assert case.startswith("1x1 convolution to 6 channels, 1x4x3x3, kernel 1x1, float32, NCHW, cpu with 1 thread")
    assert way in CONVOLUTIONS
    autotune.use_choices({case: "product"})
    pointwise_conv2d(x, weight, bias)
    assert used == {case: "product"}


@pytest.mark.parametrize("learns", ["x", "weight", "bias"])
def test_training_is_a_case_of_its_own(learns, used):
    tensors = dict(zip(("x", "weight", "bias"), (torch.randn(1, 4, 3, 3), *layer(4, 6)), strict=True))
    tensors[learns].requires_grad_()
    for _ in range(2):
        pointwise_conv2d(**tensors).sum().backward()
    (case,) = used
    assert "training" in case
    assert tensors[learns].grad.any()
    with torch.no_grad():
        pointwise_conv2d(**tensors)
    assert len(used) == 2


def test_many_positions_and_empty_batches_are_not_timed(used):
    side = int((pointwise.FEW_POSITIONS + 1) ** 0.5) + 1
    pointwise_conv2d(torch.randn(1, 1, side, side), *layer(1, 1))
    assert pointwise_conv2d(torch.randn(0, 5, 3, 3), *layer()).shape == (0, 7, 3, 3)
    assert not used


def test_input_that_does_not_fit_is_told_by_pytorch():
    with pytest.raises(RuntimeError, match="channels"):
        pointwise_conv2d(torch.randn(1, 2, 2, 2), *layer())
    assert pointwise_conv2d(torch.randn(5, 2, 2), *layer()).shape == (7, 2, 2)  # one image without a batch axis


def test_under_autocast_it_computes_in_half_precision(used):
    x, (weight, bias) = torch.randn(1, 8, 4, 4), layer(8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y, expected = pointwise_conv2d(x, weight, bias), F.conv2d(x, weight, bias)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected, rtol=2e-2, atol=2e-2)
    assert all("bfloat16" in case for case in used)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("way", GELUS)
def test_gelu_is_the_exact_one_in_either_layout(way, dtype, monkeypatch):
    force(monkeypatch, way)
    torch.manual_seed(0)
    x = (3 * torch.randn(2, 16, 8, 4)).to(dtype)
    grad = torch.randn_like(x)
    exact = x.double().requires_grad_()
    F.gelu(exact).backward(grad.double())
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2  # of the norm
    for layout in LAYOUTS.values():
        leaf = x.clone(memory_format=layout).requires_grad_()
        y = gelu(leaf)
        y.backward(grad)
        assert y.is_contiguous(memory_format=layout) and leaf.grad.is_contiguous(memory_format=layout)
        for found, expected in ((y, F.gelu(exact)), (leaf.grad, exact.grad)):
            assert (found.double() - expected).norm() <= tolerance * expected.norm()


def test_a_gelu_that_is_stored_one_way_only_is_not_timed(used):
    for x in (torch.randn(3), torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 6)[..., ::2]):
        torch.testing.assert_close(gelu(x), F.gelu(x))
    assert not used
    gelu(torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last))
    assert len(used) == 1
