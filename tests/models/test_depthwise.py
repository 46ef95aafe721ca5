"""The depthwise convolution: exact, whichever way it is computed, and a drop-in for nn.Conv2d."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from c2f.models.depthwise import DepthwiseConv2d, toeplitz

# (N, C, H, W), k: maps that are multiplied as matrices and maps that are not, square and not, kernels that reach
# beyond the map and kernels that do not, a map of one position, a batch of one.
CASES = [
    ((2, 3, 4, 4), 11),
    ((2, 3, 8, 6), 5),
    ((1, 2, 1, 1), 7),
    ((3, 2, 1, 9), 5),
    ((2, 3, 16, 16), 11),
    ((3, 2, 20, 9), 7),
    ((1, 2, 9, 33), 31),
    ((2, 4, 12, 12), 3),
    ((2, 4, 5, 5), 1),
]


def pair(channels: int, k: int, bias: bool = True) -> tuple[DepthwiseConv2d, nn.Conv2d]:
    ours = DepthwiseConv2d(channels, k, bias=bias)
    theirs = nn.Conv2d(channels, channels, k, padding=k // 2, groups=channels, bias=bias).double()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def answers(module: nn.Module, x: torch.Tensor, seed: torch.Tensor) -> list[torch.Tensor]:
    """The output and every gradient."""
    x = x.detach().clone().requires_grad_()
    y = module(x)
    y.backward(seed)
    return [y.detach(), x.grad, *(p.grad for p in module.parameters())]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("shape", "k"), CASES)
def test_output_and_gradients_are_those_of_conv2d_in_float64(shape, k, layout):
    torch.manual_seed(0)
    ours, theirs = pair(shape[1], k)
    x, seed = torch.randn(2, *shape)
    found = answers(ours, x.contiguous(memory_format=layout), seed.contiguous(memory_format=layout))
    expected = answers(theirs, x.double(), seed.double())
    for a, b in zip(found, expected, strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm()


def test_without_bias_and_from_a_view():
    torch.manual_seed(0)
    ours, theirs = pair(3, 11, bias=False)
    x, seed = torch.randn(2, 2, 3, 8, 16)
    x, seed = x[..., ::2], seed.flip(-1)[..., ::2]  # neither is contiguous
    for a, b in zip(answers(ours, x, seed), answers(theirs, x.double(), seed.double()), strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm()


def test_frozen_weights_get_no_gradient_and_the_input_still_does():
    ours, _ = pair(2, 11)
    ours.requires_grad_(False)
    x = torch.randn(1, 2, 8, 8, requires_grad=True)
    ours(x).sum().backward()
    assert ours.weight.grad is None
    assert x.grad is not None


def test_the_toeplitz_matrix_is_the_convolution():
    torch.manual_seed(0)
    x, weight = torch.randn(1, 2, 5, 4), torch.randn(2, 1, 7, 7)
    y = torch.einsum("cpq,ncq->ncp", toeplitz(weight, 5, 4), x.flatten(2)).view_as(x)
    torch.testing.assert_close(y, F.conv2d(x, weight, padding=3, groups=2))


def test_a_row_of_the_toeplitz_matrix_is_the_kernel_laid_around_the_position():
    weight = torch.arange(1.0, 10).view(1, 1, 3, 3)
    row = toeplitz(weight, 3, 3)[0, 0].view(3, 3)  # around the top left corner only the lower right taps are inside
    assert row.tolist() == [[5, 6, 0], [8, 9, 0], [0, 0, 0]]


def test_it_is_copied_pickled_and_loaded_like_conv2d():
    ours, theirs = pair(4, 11)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = torch.randn(1, 4, 8, 8)
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        torch.testing.assert_close(twin(x), ours(x))


def test_autocast_computes_in_bfloat16_as_conv2d_does():
    torch.manual_seed(0)
    ours, theirs = pair(3, 11)
    x = torch.randn(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = ours(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), theirs(x.double()), rtol=0.02, atol=0.02)


@pytest.mark.parametrize(("shape", "k"), [((2, 2, 3, 4), 5), ((1, 2, 3, 23), 7)])
def test_gradients_of_gradients(shape, k):
    from c2f.models.depthwise import _conv2d

    torch.manual_seed(0)
    arguments = [torch.randn(size, dtype=torch.double, requires_grad=True) for size in (shape, (2, 1, k, k), (2,))]
    assert torch.autograd.gradcheck(_conv2d, arguments)
    assert torch.autograd.gradgradcheck(_conv2d, arguments)


@pytest.mark.parametrize("size", [8, 12])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_one_node_to_the_compiler_and_to_export(size, layout):
    torch.manual_seed(0)
    model = nn.Sequential(nn.GELU(), DepthwiseConv2d(3, 11), nn.Flatten())
    x = torch.randn(2, 3, size, size).contiguous(memory_format=layout)
    expected = answers(model, x, torch.ones(2, 3 * size * size))
    model.zero_grad()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for a, b in zip(answers(compiled, x, torch.ones(2, 3 * size * size)), expected, strict=True):
        torch.testing.assert_close(a, b)
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), model(x))
