"""Depthwise convolution, one k x k filter a channel: the operation that stands where attention's matrix stands.

A large filter is cheap to apply and, in PyTorch, dear to learn: the weight gradient takes a slow path for filters
wider than 3. Two exact rewritings avoid it.

* On a small map the convolution is a matrix: a Toeplitz matrix T of HW x HW for each channel, whose row p holds the
  filter laid around position p. Forward and both gradients are batched matrix products. T is what sits where
  attention's HW x HW matrix sits; here it is the same for every image.
* On a larger map the weight gradient alone is rewritten: for each row offset of the filter, one matrix product between
  the rows of the output's gradient and the shifted rows of the input, summed along its diagonals.

Shapes: N images, C channels, H x W positions, k x k taps.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TOEPLITZ_POSITIONS = 64  # maps of at most so many positions are multiplied as matrices


class DepthwiseConv2d(nn.Conv2d):
    """One odd k x k filter for each channel, stride 1, zero padding that keeps the size.

    Shape: (N, C, H, W) -> (N, C, H, W). Its state dict is that of `nn.Conv2d(channels, channels, k, padding=k // 2,
    groups=channels)`.
    """

    def __init__(self, channels: int, kernel_size: int, bias: bool = True) -> None:
        super().__init__(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        # The rewritings are measured in float32 on a CPU, for wide filters; elsewhere PyTorch's own call is kept.
        rewritten = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        if rewritten and self.kernel_size[0] > 3:
            return _conv2d(x, self.weight, self.bias)
        return super().forward(x)


# Two operators that are each other's derivatives, so gradients of gradients need nothing more. Registered with torch,
# they are single nodes to torch.compile and torch.export.


@torch.library.custom_op("c2f::depthwise_conv2d", mutates_args=())
def _conv2d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    height, width = x.shape[2:]
    if height * width > TOEPLITZ_POSITIONS:
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=x.shape[1])
    y = _matmul_positions(x, toeplitz(weight, height, width).transpose(1, 2))
    if bias is not None:
        y += bias[:, None, None]
    return y.contiguous(memory_format=_layout(x))


@torch.library.custom_op("c2f::depthwise_weight_gradient", mutates_args=())
def _weight_gradient(x: Tensor, grad: Tensor, k: int) -> Tensor:
    small = x.shape[2] * x.shape[3] <= TOEPLITZ_POSITIONS
    return _weight_gradient_by_matrix(x, grad, k) if small else _weight_gradient_by_rows(x, grad, k)


@_conv2d.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.empty_like(x, memory_format=_layout(x))


@_weight_gradient.register_fake
def _(x: Tensor, grad: Tensor, k: int) -> Tensor:
    return x.new_empty(x.shape[1], 1, k, k)


def _conv2d_backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    for_x, for_weight, for_bias = ctx.needs_input_grad
    return (
        _conv2d(grad, weight.flip(2, 3), None) if for_x else None,
        _weight_gradient(x, grad, weight.shape[-1]) if for_weight else None,
        grad.sum((0, 2, 3)) if for_bias else None,
    )


def _weight_gradient_backward(ctx, towards: Tensor) -> tuple[Tensor | None, ...]:
    x, grad = ctx.saved_tensors
    for_x, for_grad, _ = ctx.needs_input_grad
    return (
        _conv2d(grad, towards.flip(2, 3), None) if for_x else None,
        _conv2d(x, towards, None) if for_grad else None,
        None,
    )


def _save_first_two(ctx, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


_conv2d.register_autograd(_conv2d_backward, setup_context=_save_first_two)
_weight_gradient.register_autograd(_weight_gradient_backward, setup_context=_save_first_two)


def _layout(x: Tensor) -> torch.memory_format:
    """channels_last for what is stored so and not the other way as well, as F.conv2d does it."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def toeplitz(weight: Tensor, height: int, width: int) -> Tensor:
    """The depthwise convolution of an H x W map as a matrix a channel: weight (C, 1, k, k) -> (C, HW, HW).

    Row p holds, at column q, the tap of offset q - p: zero where the filter does not reach.
    """
    channels, _, k, _ = weight.shape
    # All offsets that two positions can have: taps beyond them fall off, offsets beyond the filter are zero.
    reach_y, reach_x = height - 1 - k // 2, width - 1 - k // 2
    taps = F.pad(weight[:, 0], (reach_x, reach_x, reach_y, reach_y)).flatten(1)
    return taps[:, _offsets(height, width, weight.device)].view(channels, height * width, height * width)


def _offsets(height: int, width: int, device: torch.device) -> Tensor:
    """For each pair of positions p, q the index of offset q - p among the (2H-1)(2W-1) there are. Shape: (HW * HW,)."""
    y, x = (torch.arange(size, device=device) for size in (height, width))
    down = (y[None, :] - y[:, None] + height - 1)[:, None, :, None]
    right = (x[None, :] - x[:, None] + width - 1)[None, :, None, :]
    return (down * (2 * width - 1) + right).flatten()


def _matmul_positions(x: Tensor, matrix: Tensor) -> Tensor:
    """Multiply every channel's positions by its matrix: (N, C, H, W), (C, HW, HW) -> (N, C, H, W)."""
    n, c, h, w = x.shape
    x_cnp = x.contiguous().view(n, c, h * w).transpose(0, 1)
    y = torch.empty(n, c, h * w, dtype=x.dtype, device=x.device)
    torch.bmm(x_cnp, matrix, out=y.transpose(0, 1))
    return y.view(n, c, h, w)


def _weight_gradient_by_matrix(x: Tensor, grad: Tensor, k: int) -> Tensor:
    """The gradient of the Toeplitz matrix, gathered tap by tap. Shape: (N, C, H, W) twice -> (C, 1, k, k)."""
    n, c, h, w = x.shape
    x_cnp, grad_cnp = (t.contiguous().view(n, c, h * w).transpose(0, 1) for t in (x, grad))
    pairs = torch.bmm(grad_cnp.transpose(1, 2), x_cnp).view(c, h, w, h, w)
    rows = _sum_diagonals(pairs.permute(0, 1, 3, 2, 4), w)  # (C, H, H, 2W - 1)
    taps = _sum_diagonals(rows.permute(0, 3, 1, 2), h)  # (C, 2W - 1, 2H - 1)
    return F.pad(taps.transpose(1, 2), [k // 2 - size + 1 for size in (w, w, h, h)])[:, None]


def _weight_gradient_by_rows(x: Tensor, grad: Tensor, k: int) -> Tensor:
    """One product a row offset of the filter, over images and rows. Shape: (N, C, H, W) twice -> (C, 1, k, k)."""
    n, c, h, w = x.shape
    half = k // 2
    # Rows of all images under one another, with enough zeros between images that a shift by a row offset is a mere
    # shift of the start.
    below = F.pad(x.contiguous().transpose(0, 1), (0, 0, half, half)).reshape(c, n * (h + 2 * half), w)
    grads = F.pad(grad.contiguous().transpose(0, 1), (0, 0, 0, 2 * half)).reshape(c, n * (h + 2 * half), w)
    rows = n * (h + 2 * half) - 2 * half
    grads_t = grads[:, :rows].transpose(1, 2)
    pairs = torch.stack([torch.bmm(grads_t, below[:, dy : dy + rows]) for dy in range(k)], dim=1)  # (C, k, W, W)
    taps = _sum_diagonals(pairs, w)  # (C, k, 2W - 1)
    return F.pad(taps, (half - w + 1, half - w + 1))[:, None]


def _sum_diagonals(pairs: Tensor, size: int) -> Tensor:
    """Sum over i of pairs[..., i, i + d] for every d: (..., size, size) -> (..., 2 size - 1), d from -(size - 1)."""
    # Rows of pitch 2 size - 1, read again at a pitch of 2 size, slide one further each: diagonals become columns.
    padded = F.pad(F.pad(pairs, (size - 1, 0)).flatten(-2), (0, size))
    return padded.unflatten(-1, (size, 2 * size)).sum(-2)[..., :-1]
