"""Depthwise convolution, one filter per channel: the operation that stands where attention's matrix stands.

A large filter is fast to apply and, in PyTorch, slow to learn: oneDNN has fast kernels for the forward pass, and for
the weight gradient of filters at most 3 wide. So small filters are left to PyTorch, and for large ones the same sums
are also computed in other ways, all exact. The input gradient is a forward pass with the filter turned around.

* "native": PyTorch's own call.
* "crop": the same without the taps that can never land inside the image; a 4 x 4 map sees 7 x 7 of an 11 x 11 filter.
* "pad": the zeros are put around the image first; much padding throws oneDNN off its fast path.
* "relaid": the same in the other memory format, there and back. On a GPU, PyTorch calls cuDNN for channels_last only.
* "swap": the weight gradient is itself a depthwise convolution, of each image's channel with the output's gradient as
  the filter: tap d sums x[p + d] grad[p]. So the fast forward kernel computes it, and the images are summed.
* "toeplitz": on a small map the convolution is a matrix. Row p of channel c's HW x HW matrix holds the filter placed
  around position p, the same for every image, where attention has another matrix for each one. The gradient of this
  matrix is one product; its entries are summed tap by tap.
* "triton": products with pieces of this matrix on a GPU's tensor cores; see `c2f.fast.triton_depthwise`.

They are timed once for each case, separately for the forward pass and the weight gradient, and the fastest is
remembered: which one it is depends on shape, type, memory format and machine.

Shapes: N images, C channels, H x W positions, k_h x k_w taps.
"""

from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from c2f.fast.autotune import case_name, choose, fast_path, is_ordinary, keep_fast_path, layout_of, signature

SMALL_KERNEL = 3  # up to this width PyTorch's own training step was the fastest on every map that was measured
OPERATOR = 2e-4  # seconds that a training step on a CPU takes longer where it is not one native call; roughly
TOEPLITZ_POSITIONS = 144  # larger maps have matrices so large that they need not be timed
TRITON_TYPES = (torch.bfloat16, torch.float16, torch.float32)
is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # since PyTorch 2.7


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Filter every channel by itself: stride 1, padded with zeros so that the size stays.

    Differentiable, twice too. One node to torch.compile; PyTorch's own call to torch.export, torch.jit.trace,
    torch.func, forward-mode differentiation, and where the operators are watched.

    Args:
        x: (N, C, H, W), in either memory format; the output comes back in the same one.
        weight: (C, 1, k_h, k_w) with k_h and k_w odd, of the type of x. Under autocast both are cast, as F.conv2d does.
        bias: (C,), or None.

    Raises ValueError for other shapes, even kernels and mixed types.
    """
    if is_ordinary(x, weight):
        kind = ("depthwise", *signature(x, weight, bias))
        native = fast_path.get(kind)
        if native is None:
            arguments = _under_autocast(x, weight, bias)
            _check(*arguments)
            native = keep_fast_path(kind, _is_native(*arguments))
        if not native:
            # The operator's dispatch costs as much as a small map.
            return (_conv2d if torch.is_grad_enabled() else _forward)(*_under_autocast(x, weight, bias))
    elif torch.compiler.is_compiling() and not is_exporting() and x.is_floating_point():
        arguments = _under_autocast(x, weight, bias)
        _check(*arguments)
        if max(weight.shape[2:]) > SMALL_KERNEL:
            return _conv2d(*arguments)
    return _native(x, weight, bias)


def _is_native(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether PyTorch's own call is the whole answer."""
    if not x.numel() or max(weight.shape[2:]) <= SMALL_KERNEL:
        return True
    # All that will be needed is chosen before anything is computed, so that the first call rounds as the next ones do.
    chosen = {_fastest_forward(x, weight, bias)}
    if torch.is_grad_enabled() and weight.requires_grad:
        chosen.add(_fastest_weight_gradient(x, x, tuple(weight.shape[2:])))
    return chosen == {"native"}


def _under_autocast(*tensors: Tensor | None) -> list[Tensor | None]:
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return list(tensors)
    return [t if t is None else t.to(torch.get_autocast_dtype(device)) for t in tensors]


class DepthwiseConv2d(nn.Conv2d):
    """One odd filter for each channel, stride 1, zero padding that keeps the size; see `depthwise_conv2d`.

    Shape: (N, C, H, W) -> (N, C, H, W). Its parameters and state dict are those of `nn.Conv2d(channels, channels,
    kernel_size, padding="same", groups=channels)`. Raises ValueError for even kernels.
    """

    def __init__(self, channels: int, kernel_size: int | tuple[int, int], bias: bool = True) -> None:
        k_h, k_w = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        _check_kernel(k_h, k_w)
        super().__init__(channels, channels, (k_h, k_w), padding=(k_h // 2, k_w // 2), groups=channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        is_batch = isinstance(x, Tensor) and x.ndim == 4  # torch.fx traces with proxies, which are no tensors
        return depthwise_conv2d(x, self.weight, self.bias) if is_batch else super().forward(x)


def _check(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if x.ndim != 4 or weight.ndim != 4 or weight.shape[:2] != (x.shape[1], 1):
        raise ValueError(
            f"a depthwise convolution takes x (N, C, H, W) and weight (C, 1, k_h, k_w), not {tuple(x.shape)} and "
            f"{tuple(weight.shape)}; for other groups use torch.nn.functional.conv2d."
        )
    _check_kernel(*weight.shape[2:])
    if bias is not None and bias.shape != x.shape[1:2]:
        raise ValueError(f"the bias must have one number per channel, ({x.shape[1]},), not {tuple(bias.shape)}.")
    if x.dtype != weight.dtype or (bias is not None and bias.dtype != x.dtype):
        raise ValueError(
            f"x is {x.dtype} and weight {weight.dtype}{'' if bias is None else f', bias {bias.dtype}'}; bring them to "
            f"one type, for instance with module.to(x.dtype) or under torch.autocast."
        )


def _check_kernel(k_h: int, k_w: int) -> None:
    if not (k_h % 2 and k_w % 2 and k_h > 0 and k_w > 0):
        raise ValueError(
            f"the kernel is {k_h} x {k_w}; a depthwise convolution that keeps the size needs a centre: use odd numbers."
        )


# Two operators, closed under differentiation: the derivatives of each are made of both. Registered with torch, they are
# single nodes to torch.compile, and the way is chosen inside, on real tensors.


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    compute = FORWARD[_fastest_forward(x, weight, bias)]
    return compute(x, weight, bias).contiguous(memory_format=layout_of(x))


@torch.library.custom_op("c2f::depthwise_conv2d", mutates_args=())
def _conv2d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _forward(x, weight, bias)


@torch.library.custom_op("c2f::depthwise_weight_gradient", mutates_args=())
def _weight_gradient(x: Tensor, grad: Tensor, k_h: int, k_w: int) -> Tensor:
    compute = WEIGHT_GRADIENT[_fastest_weight_gradient(x, grad, (k_h, k_w))]
    return compute(x, grad, (k_h, k_w)).contiguous()


def _conv2d_backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    for_x, for_weight, for_bias = ctx.needs_input_grad
    grad_x = _conv2d(grad, weight.flip(2, 3), None) if for_x else None
    grad_weight = _weight_gradient(x, grad, *weight.shape[2:]) if for_weight else None
    return grad_x, grad_weight, grad.sum((0, 2, 3)) if for_bias else None


def _weight_gradient_backward(ctx, towards: Tensor) -> tuple[Tensor | None, ...]:
    x, grad = ctx.saved_tensors
    for_x, for_grad, *_ = ctx.needs_input_grad
    grad_x = _conv2d(grad, towards.flip(2, 3), None) if for_x else None
    grad_grad = _conv2d(x, towards, None) if for_grad else None
    return grad_x, grad_grad, None, None


def _save(ctx, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


_conv2d.register_fake(lambda x, weight, bias: torch.empty_like(x, memory_format=layout_of(x)))
_conv2d.register_autograd(_conv2d_backward, setup_context=_save)
_weight_gradient.register_fake(lambda x, grad, k_h, k_w: x.new_empty(x.shape[1], 1, k_h, k_w))
_weight_gradient.register_autograd(_weight_gradient_backward, setup_context=_save)


# Forward: x (N, C, H, W), weight (C, 1, k_h, k_w), bias (C,) or None -> (N, C, H, W)


def _fastest_forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> str:
    x, weight, bias = (t if t is None else t.detach() for t in (x, weight, bias))
    kernel, layout = tuple(weight.shape[2:]), layout_of(x)
    candidates = {  # the way back into the memory format of the caller is timed as well
        name: lambda compute=compute: compute(x, weight, bias).contiguous(memory_format=layout)
        for name, compute in FORWARD.items()
        if _is_candidate(name, x) and (name != "crop" or any(_cuts(kernel, x))) and (name != "toeplitz" or not x.is_cpu)
    }
    return choose(case_name("forward", x, kernel), candidates, x.device)


def _native(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(x, weight, bias, 1, (weight.shape[2] // 2, weight.shape[3] // 2), 1, x.shape[1])


def _crop(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _native(x, _cropped(weight, x), bias)


def _pad(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    weight = _cropped(weight, x)
    half_h, half_w = weight.shape[2] // 2, weight.shape[3] // 2
    return F.conv2d(F.pad(x, (half_w, half_w, half_h, half_h)), weight, bias, groups=x.shape[1])


def _relaid(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _crop(x.contiguous(memory_format=_other_layout(x)), weight, bias)


def _other_layout(x: Tensor) -> torch.memory_format:
    return torch.contiguous_format if layout_of(x) == torch.channels_last else torch.channels_last


def _toeplitz(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    matrices, x_cnp = toeplitz(weight, *x.shape[2:]).transpose(1, 2), x.contiguous().flatten(2).transpose(0, 1)
    y = torch.bmm(x_cnp, matrices) if bias is None else torch.baddbmm(bias[:, None, None], x_cnp, matrices)
    return y.transpose(0, 1).unflatten(2, x.shape[2:])


def _in_triton(function: str, *arguments: Any) -> Tensor:
    """Raises RuntimeError for whatever goes wrong: Triton's own errors and its C compiler's have no common type."""
    try:
        from c2f.fast import triton_depthwise

        return getattr(triton_depthwise, function)(*arguments)
    except RuntimeError:
        raise
    except Exception as error:
        raise RuntimeError(f"Triton cannot compute this: {error!r}; use_choices can name another way.") from error


@cache
def _has_triton(device: torch.device) -> bool:
    """Whether Triton and the C compiler that it calls are installed and compile a small case for the GPU."""
    if find_spec("triton") is None or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    x = torch.ones(1, 1, 1, 1, device=device)
    try:
        _in_triton("forward", x, x, None)
    except RuntimeError:
        return False
    return True


FORWARD: dict[str, Callable[..., Tensor]] = {
    "native": _native,
    "crop": _crop,
    "pad": _pad,
    "relaid": _relaid,
    "toeplitz": _toeplitz,
    "triton": partial(_in_triton, "forward"),
}


def _is_candidate(name: str, x: Tensor) -> bool:
    """Whether a way can compute either pass for x on its device."""
    if name == "triton":
        return x.is_cuda and x.dtype in TRITON_TYPES and _has_triton(x.device)
    return name != "toeplitz" or x.shape[2] * x.shape[3] <= TOEPLITZ_POSITIONS


def _cropped(weight: Tensor, x: Tensor) -> Tensor:
    k_h, k_w = weight.shape[2:]
    cut_y, cut_x = _cuts((k_h, k_w), x)
    return weight[:, :, cut_y : k_h - cut_y, cut_x : k_w - cut_x]


def _cuts(kernel: tuple[int, int], x: Tensor) -> tuple[int, int]:
    """How many taps at either end can never land inside the image, vertically and horizontally."""
    return max(0, kernel[0] // 2 - x.shape[2] + 1), max(0, kernel[1] // 2 - x.shape[3] + 1)


# Weight gradient: x and grad (N, C, H, W), kernel (k_h, k_w) -> (C, 1, k_h, k_w)


def _fastest_weight_gradient(x: Tensor, grad: Tensor, kernel: tuple[int, int]) -> str:
    x, grad = x.detach(), grad.detach()
    candidates = {
        name: lambda compute=compute: compute(x, grad, kernel).contiguous()
        for name, compute in WEIGHT_GRADIENT.items()
        if _is_candidate(name, x) and (name != "relaid" or not x.is_cpu)
    }
    return choose(case_name("weight gradient", x, kernel), candidates, x.device, OPERATOR if x.is_cpu else 0.0)


def _native_weight_gradient(x: Tensor, grad: Tensor, kernel: tuple[int, int]) -> Tensor:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return conv2d_weight(x, (x.shape[1], 1, *kernel), grad, padding=padding, groups=x.shape[1])


def _relaid_weight_gradient(x: Tensor, grad: Tensor, kernel: tuple[int, int]) -> Tensor:
    layout = _other_layout(x)
    return _native_weight_gradient(x.contiguous(memory_format=layout), grad.contiguous(memory_format=layout), kernel)


def _swap(x: Tensor, grad: Tensor, kernel: tuple[int, int], pad_first: bool = False) -> Tensor:
    cut_y, cut_x = _cuts(kernel, x)
    half_h, half_w = padding = (kernel[0] // 2 - cut_y, kernel[1] // 2 - cut_x)
    x = x.contiguous()
    if pad_first:
        x, padding = F.pad(x, (half_w, half_w, half_h, half_h)), 0
    # Every channel of every image is a channel of one image, and its gradient is that channel's filter.
    filters = grad.contiguous().flatten(0, 1)[:, None]
    taps = F.conv2d(x.flatten(0, 1)[None], filters, padding=padding, groups=len(filters)).unflatten(1, x.shape[:2])
    taps = taps.sum((0, 1), dtype=torch.promote_types(x.dtype, torch.float32)).to(x.dtype)
    return F.pad(taps, (cut_x, cut_x, cut_y, cut_y))[:, None]


def _toeplitz_gradient(x: Tensor, grad: Tensor, kernel: tuple[int, int]) -> Tensor:
    _, channels, height, width = x.shape
    x_cnp, grad_cnp = (t.contiguous().flatten(2).transpose(0, 1) for t in (x, grad))
    pairs = torch.bmm(grad_cnp.transpose(1, 2), x_cnp).flatten(1)  # the gradient of the matrix, (C, HW HW)
    wide = torch.promote_types(x.dtype, torch.float32)
    taps = torch.zeros(channels, (2 * height - 1) * (2 * width - 1), dtype=wide, device=x.device)
    taps = taps.index_add_(1, _offsets(height, width, x.device), pairs.to(wide)).to(x.dtype)
    reach_y, reach_x = kernel[0] // 2 - height + 1, kernel[1] // 2 - width + 1
    return F.pad(taps.unflatten(1, (2 * height - 1, -1)), (reach_x, reach_x, reach_y, reach_y))[:, None]


WEIGHT_GRADIENT: dict[str, Callable[[Tensor, Tensor, tuple[int, int]], Tensor]] = {
    "native": _native_weight_gradient,
    "pad": partial(_swap, pad_first=True),
    "swap": _swap,
    "relaid": _relaid_weight_gradient,
    "toeplitz": _toeplitz_gradient,
    "triton": partial(_in_triton, "weight_gradient"),
}


def toeplitz(weight: Tensor, height: int, width: int) -> Tensor:
    """The depthwise convolution of an H x W map as one matrix per channel: weight (C, 1, k_h, k_w) -> (C, HW, HW).

    Row p holds, at column q, the tap of offset q - p: zero where the filter does not reach.
    """
    # All offsets that two positions can have: taps beyond them fall off, offsets beyond the filter are zero.
    reach_y, reach_x = height - 1 - weight.shape[2] // 2, width - 1 - weight.shape[3] // 2
    taps = F.pad(weight[:, 0], (reach_x, reach_x, reach_y, reach_y)).flatten(1)
    return taps[:, _offsets(height, width, weight.device)].unflatten(1, (height * width, -1))


def _offsets(height: int, width: int, device: torch.device) -> Tensor:
    """For every two positions p and q which of the (2 H - 1)(2 W - 1) offsets q - p is theirs: (HW HW,)."""
    y, x = (torch.arange(size, device=device) for size in (height, width))
    down = (y[None, :] - y[:, None] + height - 1)[:, None, :, None]
    right = (x[None, :] - x[:, None] + width - 1)[None, :, None, :]
    return (down * (2 * width - 1) + right).flatten()
