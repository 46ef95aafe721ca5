"""Depthwise convolution, one filter per channel: the operation that stands where attention's matrix stands.

A large filter is fast to apply and, in PyTorch, slow to learn: oneDNN has fast kernels for the forward pass, and for
the weight gradient of filters at most 3 wide. So small filters are left to PyTorch, and for large ones the same sums
are also computed in other ways, all exact. The input gradient is a forward pass with the filter turned around.

* "native": PyTorch's own call.
* "crop": the same without the taps that can never land inside the image; a 4 x 4 map sees 7 x 7 of an 11 x 11 filter.
* "pad": the zeros are put around the image first; much padding throws oneDNN off its fast path.
* "relaid": the forward pass in the other memory format, there and back.
* "swap": the weight gradient is itself a depthwise convolution, of each image's channel with the output's gradient as
  the filter: tap d sums x[p + d] grad[p]. So the fast forward kernel computes it, and the images are summed.
* "toeplitz": on a small map the convolution is a matrix. Row p of channel c's HW x HW matrix holds the filter placed
  around position p, the same for every image, where attention has another matrix for each one. The gradient of this
  matrix is one product; its entries are summed tap by tap.

"auto" times them once for each case, separately for the forward pass and the weight gradient, and remembers: which one
is the fastest depends on shape, type, memory format and machine. `print(c2f.fast.autotune.describe_choices())` shows
what was chosen.

Shapes: N images, C channels, H x W positions, k_h x k_w taps.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f.fast.autotune import case_name, choose, fast_path, is_ordinary, keep_fast_path, layout_of, signature

Algorithm = Literal["auto", "native", "crop", "pad", "relaid", "swap", "toeplitz"]

ALGORITHMS = get_args(Algorithm)
SMALL_KERNEL = 3  # up to this width PyTorch's own training step was the fastest on every map that was measured
OPERATOR = 2e-4  # seconds that a training step on a CPU takes longer where it is not one native call; roughly
TOEPLITZ_POSITIONS = 144  # larger maps have matrices so large that they need not be timed


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, algorithm: Algorithm = "auto") -> Tensor:
    """Filter every channel by itself: stride 1, padded with zeros so that the size stays.

    Differentiable, twice too. One node to torch.compile; PyTorch's own call to torch.export, torch.jit.trace,
    torch.func, forward-mode differentiation, and wherever the operators are watched.

    Args:
        x: (N, C, H, W), in either memory format; the output comes back in the same one.
        weight: (C, 1, k_h, k_w) with k_h and k_w odd, of the type of x. Under autocast both are cast, as F.conv2d does.
        bias: (C,), or None.
        algorithm: "auto" takes what is fastest here; a name (see above) is taken for each pass that has it, and
            "native" for the others.

    Raises ValueError for other shapes, even kernels, mixed types and unknown names.
    """
    if is_ordinary(x, weight):
        kind = ("depthwise", algorithm, *signature(x, weight, bias))
        native = fast_path.get(kind)
        if native is None:
            arguments = _under_autocast(x, weight, bias)
            _check(*arguments, algorithm)
            native = keep_fast_path(kind, _is_native(*arguments, algorithm))
        if not native:
            x, weight, bias = _under_autocast(x, weight, bias)
            # The operator's dispatch costs as much as a small map.
            return (_conv2d if torch.is_grad_enabled() else _forward)(x, weight, bias, algorithm)
    elif torch.compiler.is_compiling() and not _is_exporting() and x.is_floating_point():
        arguments = _under_autocast(x, weight, bias)
        _check(*arguments, algorithm)
        if not _is_left_to_pytorch(weight, algorithm):
            return _conv2d(*arguments, algorithm)
    return _native(x, weight, bias)


def _is_native(x: Tensor, weight: Tensor, bias: Tensor | None, algorithm: str) -> bool:
    """Whether PyTorch's own call is the whole answer."""
    if not x.numel() or _is_left_to_pytorch(weight, algorithm):
        return True
    if algorithm != "auto":
        return False
    # All that will be needed is chosen before anything is computed, so that the first call rounds as the next ones do.
    kernel = tuple(weight.shape[2:])
    chosen = {_fastest("forward", FORWARD, kernel, x, weight, bias)}
    if torch.is_grad_enabled() and weight.requires_grad:
        chosen.add(_fastest("weight gradient", WEIGHT_GRADIENT, kernel, x, x, kernel))
    return chosen == {"native"}


def _is_left_to_pytorch(weight: Tensor, algorithm: str) -> bool:
    return algorithm == "native" or (algorithm == "auto" and max(weight.shape[2:]) <= SMALL_KERNEL)


def _under_autocast(*tensors: Tensor | None) -> list[Tensor | None]:
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return list(tensors)
    return [t if t is None else t.to(torch.get_autocast_dtype(device)) for t in tensors]


def _is_exporting() -> bool:
    exporting = getattr(torch.compiler, "is_exporting", None)  # since PyTorch 2.7
    return exporting is not None and exporting()


class DepthwiseConv2d(nn.Conv2d):
    """One odd filter for each channel, stride 1, zero padding that keeps the size; see `depthwise_conv2d`.

    Shape: (N, C, H, W) -> (N, C, H, W). Its parameters and state dict are those of `nn.Conv2d(channels, channels,
    kernel_size, padding="same", groups=channels)`. Raises ValueError for even kernels.
    """

    def __init__(
        self, channels: int, kernel_size: int | tuple[int, int], bias: bool = True, algorithm: Algorithm = "auto"
    ) -> None:
        k_h, k_w = kernel_size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
        _check_kernel(k_h, k_w)
        _check_algorithm(algorithm)
        super().__init__(channels, channels, kernel_size, padding=(k_h // 2, k_w // 2), groups=channels, bias=bias)
        self.algorithm: Algorithm = algorithm

    def forward(self, x: Tensor) -> Tensor:
        return depthwise_conv2d(x, self.weight, self.bias, self.algorithm)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, kernel_size={self.kernel_size}, bias={self.bias is not None}, {self.algorithm}"


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, algorithm: str) -> None:
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
    _check_algorithm(algorithm)


def _check_kernel(k_h: int, k_w: int) -> None:
    if not (k_h % 2 and k_w % 2 and k_h > 0 and k_w > 0):
        raise ValueError(
            f"the kernel is {k_h} x {k_w}; a depthwise convolution that keeps the size needs a centre: use odd numbers."
        )


def _check_algorithm(algorithm: str) -> None:
    if algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm is {algorithm!r}; use {', '.join(ALGORITHMS)}.")


# Two operators, closed under differentiation: the derivatives of each are made of both. Registered with torch, they are
# single nodes to torch.compile, and what "auto" means is decided inside, on real tensors.


@torch.library.custom_op("c2f::depthwise_conv2d", mutates_args=())
def _conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, algorithm: str) -> Tensor:
    return _forward(x, weight, bias, algorithm)


@torch.library.custom_op("c2f::depthwise_weight_gradient", mutates_args=())
def _weight_gradient(x: Tensor, grad: Tensor, k_h: int, k_w: int, algorithm: str) -> Tensor:
    if algorithm == "auto":
        algorithm = _fastest("weight gradient", WEIGHT_GRADIENT, (k_h, k_w), x, grad, (k_h, k_w))
    compute = WEIGHT_GRADIENT.get(algorithm, _native_weight_gradient)
    return compute(x, grad, (k_h, k_w)).contiguous()


_conv2d.register_fake(lambda x, weight, bias, algorithm: torch.empty_like(x, memory_format=layout_of(x)))
_weight_gradient.register_fake(lambda x, grad, k_h, k_w, algorithm: x.new_empty(x.shape[1], 1, k_h, k_w))


def _save(ctx, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.algorithm = inputs[-1]


def _conv2d_backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    for_x, for_weight, for_bias, _ = ctx.needs_input_grad
    grad_x = _conv2d(grad, weight.flip(2, 3), None, ctx.algorithm) if for_x else None
    grad_weight = _weight_gradient(x, grad, *weight.shape[2:], ctx.algorithm) if for_weight else None
    return grad_x, grad_weight, grad.sum((0, 2, 3)) if for_bias else None, None


def _weight_gradient_backward(ctx, towards: Tensor) -> tuple[Tensor | None, ...]:
    x, grad = ctx.saved_tensors
    for_x, for_grad, *_ = ctx.needs_input_grad
    grad_x = _conv2d(grad, towards.flip(2, 3), None, ctx.algorithm) if for_x else None
    grad_grad = _conv2d(x, towards, None, ctx.algorithm) if for_grad else None
    return grad_x, grad_grad, None, None, None


_conv2d.register_autograd(_conv2d_backward, setup_context=_save)
_weight_gradient.register_autograd(_weight_gradient_backward, setup_context=_save)


# Which algorithm


def _fastest(
    what: str, table: dict[str, Callable[..., Tensor]], kernel: tuple[int, int], x: Tensor, *others: object
) -> str:
    """The algorithm for such a case; where it is new, those of the table that make sense are timed on x and others."""
    pointless = set()
    if x.shape[2] * x.shape[3] > TOEPLITZ_POSITIONS:
        pointless.add("toeplitz")
    if not any(_cuts(kernel, x)):
        pointless.add("crop")
    arguments = [a.detach() if isinstance(a, Tensor) else a for a in (x, *others)]
    # The way back into the memory format of the caller is timed as well.
    layout = layout_of(x) if table is FORWARD else torch.contiguous_format
    candidates = {
        name: lambda compute=compute: compute(*arguments).contiguous(memory_format=layout)
        for name, compute in table.items()
        if name not in pointless
    }
    least_gain = OPERATOR if table is WEIGHT_GRADIENT and x.is_cpu else 0.0
    return choose(case_name(what, x, kernel), candidates, x.device, least_gain)


# Forward: x (N, C, H, W), weight (C, 1, k_h, k_w), bias (C,) or None -> (N, C, H, W)


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, algorithm: str) -> Tensor:
    if algorithm == "auto":
        algorithm = _fastest("forward", FORWARD, tuple(weight.shape[2:]), x, weight, bias)
    return FORWARD.get(algorithm, _native)(x, weight, bias).contiguous(memory_format=layout_of(x))


def _native(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(x, weight, bias, 1, (weight.shape[2] // 2, weight.shape[3] // 2), 1, x.shape[1])


def _crop(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _native(x, _cropped(weight, x), bias)


def _pad(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    weight = _cropped(weight, x)
    half_h, half_w = weight.shape[2] // 2, weight.shape[3] // 2
    return F.conv2d(F.pad(x, (half_w, half_w, half_h, half_h)), weight, bias, groups=x.shape[1])


def _relaid(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    other = torch.contiguous_format if layout_of(x) == torch.channels_last else torch.channels_last
    return _crop(x.contiguous(memory_format=other), weight, bias)


FORWARD: dict[str, Callable[..., Tensor]] = {"native": _native, "crop": _crop, "pad": _pad, "relaid": _relaid}


def _cropped(weight: Tensor, x: Tensor) -> Tensor:
    k_h, k_w = weight.shape[2:]
    cut_y, cut_x = _cuts((k_h, k_w), x)
    return weight[:, :, cut_y : k_h - cut_y, cut_x : k_w - cut_x]


def _cuts(kernel: tuple[int, int], x: Tensor) -> tuple[int, int]:
    """How many taps at either end can never land inside the image, vertically and horizontally."""
    return max(0, kernel[0] // 2 - x.shape[2] + 1), max(0, kernel[1] // 2 - x.shape[3] + 1)


# Weight gradient: x and grad (N, C, H, W), kernel (k_h, k_w) -> (C, 1, k_h, k_w)


def _native_weight_gradient(x: Tensor, grad: Tensor, kernel: tuple[int, int]) -> Tensor:
    weight = x.new_empty(x.shape[1], 1, *kernel)  # of which only the shape is read
    padding, wanted = [kernel[0] // 2, kernel[1] // 2], (False, True, False)
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, [1, 1], padding, [1, 1], False, [0, 0], x.shape[1], wanted
    )[1]


def _swap(x: Tensor, grad: Tensor, kernel: tuple[int, int], pad_first: bool = False) -> Tensor:
    cut_y, cut_x = _cuts(kernel, x)
    half_h, half_w = padding = (kernel[0] // 2 - cut_y, kernel[1] // 2 - cut_x)
    x = x.contiguous()
    if pad_first:
        x, padding = F.pad(x, (half_w, half_w, half_h, half_h)), 0
    # Every channel of every image is a channel of one image, and its gradient is that channel's filter.
    filters = grad.contiguous().flatten(0, 1)[:, None]
    taps = F.conv2d(x.flatten(0, 1)[None], filters, padding=padding, groups=len(filters)).unflatten(1, x.shape[:2])
    # In float32 for the sake of half precision.
    taps = taps.sum((0, 1), dtype=torch.float32 if taps.itemsize < 4 else None).to(x.dtype)
    return F.pad(taps, (cut_x, cut_x, cut_y, cut_y))[:, None]


def _toeplitz_gradient(x: Tensor, grad: Tensor, kernel: tuple[int, int]) -> Tensor:
    n, c, h, w = x.shape
    x_cnp, grad_cnp = (t.contiguous().view(n, c, h * w).transpose(0, 1) for t in (x, grad))
    pairs = torch.bmm(grad_cnp.transpose(1, 2), x_cnp).view(c, h, w, h, w)
    rows = _sum_diagonals(pairs.permute(0, 1, 3, 2, 4), w)  # (C, H, H, 2W - 1)
    taps = _sum_diagonals(rows.permute(0, 3, 1, 2), h)  # (C, 2W - 1, 2H - 1)
    reach_y, reach_x = kernel[0] // 2 - h + 1, kernel[1] // 2 - w + 1
    return F.pad(taps.transpose(1, 2), (reach_x, reach_x, reach_y, reach_y))[:, None]


def _sum_diagonals(pairs: Tensor, size: int) -> Tensor:
    """Sum over i of pairs[..., i, i + d] for every d: (..., size, size) -> (..., 2 size - 1), d from -(size - 1)."""
    # Rows of pitch 2 size - 1, read again at a pitch of 2 size, slide one further each: diagonals become columns.
    padded = F.pad(F.pad(pairs, (size - 1, 0)).flatten(-2), (0, size))
    return padded.unflatten(-1, (size, 2 * size)).sum(-2)[..., :-1]


WEIGHT_GRADIENT: dict[str, Callable[[Tensor, Tensor, tuple[int, int]], Tensor]] = {
    "native": _native_weight_gradient,
    "pad": partial(_swap, pad_first=True),
    "swap": _swap,
    "toeplitz": _toeplitz_gradient,
}


def toeplitz(weight: Tensor, height: int, width: int) -> Tensor:
    """The depthwise convolution of an H x W map as one matrix per channel: weight (C, 1, k_h, k_w) -> (C, HW, HW).

    Row p holds, at column q, the tap of offset q - p: zero where the filter does not reach.
    """
    channels, _, k_h, k_w = weight.shape
    # All offsets that two positions can have: taps beyond them fall off, offsets beyond the filter are zero.
    reach_y, reach_x = height - 1 - k_h // 2, width - 1 - k_w // 2
    taps = F.pad(weight[:, 0], (reach_x, reach_x, reach_y, reach_y)).flatten(1)
    y, x = (torch.arange(size, device=weight.device) for size in (height, width))
    down = (y[None, :] - y[:, None] + height - 1)[:, None, :, None]
    right = (x[None, :] - x[:, None] + width - 1)[None, :, None, :]
    return taps[:, (down * (2 * width - 1) + right).flatten()].view(channels, height * width, height * width)
