"""Depthwise convolution, one filter a channel: the operation that stands where attention's matrix stands.

A large filter is cheap to apply and, in PyTorch, dear to learn: oneDNN has fast kernels for the forward pass, and none
for the weight gradient of a filter wider than 3. The same sums can be had in other ways, all exact:

* "native": PyTorch's own call.
* "crop": the same without the taps that can never land inside the image; a 4 x 4 map sees 7 x 7 of an 11 x 11 filter.
* "flip": the input gradient as what it is, a forward pass with the filter turned around.
* "pad": the zeros are laid around the image first; padding of 7 and more throws oneDNN off its fast path.
* "relaid": the same in the other memory format, there and back.
* "toeplitz": on a small map the convolution is a matrix. Row p of channel c's HW x HW matrix holds the filter laid
  around position p; forward and both gradients are batched matrix products. It is what sits where attention's
  HW x HW matrix sits, and it is the same for every image.
* "swap": the weight gradient is itself a depthwise convolution, of each image's channel with the output's gradient as
  the filter: tap d sums x[p + d] grad[p]. So the fast forward kernel computes it, and the images are summed.
* "rows": the weight gradient by one matrix product a row of the filter, between the rows of the output's gradient and
  the shifted rows of the input, summed along its diagonals.

"auto" times them once for each case, separately for the forward pass and the two gradients, then the best of each
together against PyTorch's own step, and remembers: which wins depends on shape, type, memory format and machine.
`print(c2f.fast.autotune.describe_choices())` shows what was chosen.

Shapes: N images, C channels, H x W positions, k_h x k_w taps.
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f.fast.autotune import case_name, choose, fast_path, is_ordinary, keep_fast_path, signature

Algorithm = Literal["auto", "native", "crop", "flip", "pad", "relaid", "toeplitz", "swap", "rows"]

ALGORITHMS = get_args(Algorithm)
TOEPLITZ_POSITIONS = 144  # larger maps have matrices so large that they need not be timed
OPERATOR = 2e-4  # seconds that autograd on a CPU adds to a step which is not one native call; measured, roughly


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, algorithm: Algorithm = "auto") -> Tensor:
    """Filter every channel by itself: stride 1, padded with zeros so that the size stays.

    Differentiable, twice too. One node to torch.compile; PyTorch's own call to torch.export, torch.jit.trace,
    torch.func, forward-mode differentiation, and wherever the operators are watched.

    Args:
        x: (N, C, H, W), in either memory format; the output comes back in the same one.
        weight: (C, 1, k_h, k_w) with k_h and k_w odd, of the type of x. Under autocast both are cast, as F.conv2d does.
        bias: (C,), or None.
        algorithm: "auto" takes what is fastest here; a name (see above) is taken for each pass that has it, and "crop"
            for the others.

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
    elif torch.compiler.is_compiling() and not _is_exporting() and x.is_floating_point() and algorithm != "native":
        arguments = _under_autocast(x, weight, bias)
        _check(*arguments, algorithm)
        return _conv2d(*arguments, algorithm)
    return _native(x, weight, bias)


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
        self,
        channels: int,
        kernel_size: int | tuple[int, int],
        bias: bool = True,
        algorithm: Algorithm = "auto",
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
        raise ValueError(f"the bias must have one number a channel, ({x.shape[1]},), not {tuple(bias.shape)}.")
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


# Three operators, closed under differentiation: each one's derivatives are the others. Registered with torch, they are
# single nodes to torch.compile, and what "auto" means is decided inside, on real tensors.


@torch.library.custom_op("c2f::depthwise_conv2d", mutates_args=())
def _conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, algorithm: str) -> Tensor:
    return _forward(x, weight, bias, algorithm)


@torch.library.custom_op("c2f::depthwise_input_gradient", mutates_args=())
def _input_gradient(grad: Tensor, weight: Tensor, algorithm: str) -> Tensor:
    if algorithm == "auto":
        algorithm = _fastest("input gradient", INPUT_GRADIENT, (grad, weight), tuple(weight.shape[2:]))
    run = INPUT_GRADIENT.get(algorithm, INPUT_GRADIENT["crop"])
    return run(grad, weight).contiguous(memory_format=_layout(grad))


@torch.library.custom_op("c2f::depthwise_weight_gradient", mutates_args=())
def _weight_gradient(x: Tensor, grad: Tensor, k_h: int, k_w: int, algorithm: str) -> Tensor:
    if algorithm == "auto":
        algorithm = _fastest("weight gradient", WEIGHT_GRADIENT, (x, grad, (k_h, k_w)), (k_h, k_w))
    run = WEIGHT_GRADIENT.get(algorithm, WEIGHT_GRADIENT["crop"])
    return run(x, grad, (k_h, k_w)).contiguous()


@_conv2d.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, algorithm: str) -> Tensor:
    return torch.empty_like(x, memory_format=_layout(x))


@_input_gradient.register_fake
def _(grad: Tensor, weight: Tensor, algorithm: str) -> Tensor:
    return torch.empty_like(grad, memory_format=_layout(grad))


@_weight_gradient.register_fake
def _(x: Tensor, grad: Tensor, k_h: int, k_w: int, algorithm: str) -> Tensor:
    return x.new_empty(x.shape[1], 1, k_h, k_w)


def _save(ctx, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.algorithm = inputs[-1]


def _conv2d_backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    for_x, for_weight, for_bias, _ = ctx.needs_input_grad
    return (
        _input_gradient(grad, weight, ctx.algorithm) if for_x else None,
        _weight_gradient(x, grad, *weight.shape[2:], ctx.algorithm) if for_weight else None,
        grad.sum((0, 2, 3)) if for_bias else None,
        None,
    )


def _input_gradient_backward(ctx, towards: Tensor) -> tuple[Tensor | None, ...]:
    grad, weight = ctx.saved_tensors
    for_grad, for_weight, _ = ctx.needs_input_grad
    return (
        _conv2d(towards, weight, None, ctx.algorithm) if for_grad else None,
        _weight_gradient(towards, grad, *weight.shape[2:], ctx.algorithm) if for_weight else None,
        None,
    )


def _weight_gradient_backward(ctx, towards: Tensor) -> tuple[Tensor | None, ...]:
    x, grad = ctx.saved_tensors
    for_x, for_grad, *_ = ctx.needs_input_grad
    return (
        _input_gradient(grad, towards, ctx.algorithm) if for_x else None,
        _conv2d(x, towards, None, ctx.algorithm) if for_grad else None,
        None,
        None,
        None,
    )


_conv2d.register_autograd(_conv2d_backward, setup_context=_save)
_input_gradient.register_autograd(_input_gradient_backward, setup_context=_save)
_weight_gradient.register_autograd(_weight_gradient_backward, setup_context=_save)


# Which algorithm


def _is_native(x: Tensor, weight: Tensor, bias: Tensor | None, algorithm: str) -> bool:
    """Whether every pass that there will be is PyTorch's own, so that its call is the whole answer."""
    if algorithm == "native" or not x.numel():
        return True
    if algorithm != "auto":
        return False
    # All that will be needed is chosen before anything is computed, so that the first call rounds as the next ones do.
    kernel = tuple(weight.shape[2:])
    for_x, for_weight = (torch.is_grad_enabled() and t.requires_grad for t in (x, weight))
    chosen = {_fastest("forward", FORWARD, (x, weight, bias), kernel)}
    if for_weight:
        chosen.add(_fastest("weight gradient", WEIGHT_GRADIENT, (x, x, kernel), kernel))
    if for_x:
        chosen.add(_fastest("input gradient", INPUT_GRADIENT, (x, weight), kernel))
    if for_weight and chosen != {"native"}:
        # PyTorch finds all gradients in one call, for less than one by one: what wins each pass may not win the step.
        what = "training" if for_x else "training without input gradient"
        return _fastest(what, TRAINING, (x, weight, bias, for_x), kernel) == "native"
    return chosen == {"native"}


def _fastest(what: str, table: dict[str, Callable[..., Tensor]], arguments: tuple, kernel: tuple[int, int]) -> str:
    """The algorithm for such a case; where it is new, those of the table that make sense are timed."""
    x = arguments[0]
    kind = (what, x.shape, x.stride(), x.dtype, x.device, kernel, torch.get_num_threads())
    if found := fast_path.get(kind):
        return found
    height, width = x.shape[2:]
    pointless = set()
    if height * width > TOEPLITZ_POSITIONS:
        pointless.add("toeplitz")
    if kernel[0] < 2 * height and kernel[1] < 2 * width:
        pointless.add("crop")
    arguments = tuple(a.detach() if isinstance(a, Tensor) else a for a in arguments)
    # The way back into the memory format of the caller is timed as well.
    layout = torch.contiguous_format if table in (WEIGHT_GRADIENT, TRAINING) else _layout(x)

    def candidate(compute: Callable[..., Tensor]) -> Callable[[], Tensor]:
        return lambda: compute(*arguments).contiguous(memory_format=layout)

    candidates = {name: candidate(compute) for name, compute in table.items() if name not in pointless}
    least_gain = OPERATOR if table is TRAINING and x.is_cpu else 0.0
    choice = choose(case_name(what, x, kernel, _layout(x)), candidates, x.device, least_gain)
    return keep_fast_path(kind, choice)


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, algorithm: str) -> Tensor:
    if algorithm == "auto":
        algorithm = _fastest("forward", FORWARD, (x, weight, bias), tuple(weight.shape[2:]))
    return FORWARD.get(algorithm, FORWARD["crop"])(x, weight, bias).contiguous(memory_format=_layout(x))


def _layout(x: Tensor) -> torch.memory_format:
    """channels_last for what is stored so and not the other way as well, as F.conv2d does it."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def _relaid(x: Tensor) -> Tensor:
    """The same numbers in the other memory format."""
    other = torch.contiguous_format if _layout(x) == torch.channels_last else torch.channels_last
    return x.contiguous(memory_format=other)


# The filter, cut to what can reach the image, and the gradient of one that was cut


def _cropped(weight: Tensor, height: int, width: int) -> Tensor:
    cut_y, cut_x = _cuts(weight.shape[2:], height, width)
    k_h, k_w = weight.shape[2:]
    return weight[:, :, cut_y : k_h - cut_y, cut_x : k_w - cut_x] if cut_y or cut_x else weight


def _cuts(kernel: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    return max(0, kernel[0] // 2 - height + 1), max(0, kernel[1] // 2 - width + 1)


def _for_cropped(compute: Callable[[Tensor, Tensor, tuple[int, int]], Tensor]) -> Callable[..., Tensor]:
    """A weight gradient that is computed where the filter reaches the image, and 0 elsewhere."""

    def weight_gradient(x: Tensor, grad: Tensor, kernel: tuple[int, int]) -> Tensor:
        cut_y, cut_x = _cuts(kernel, *x.shape[2:])
        inner = compute(x, grad, (kernel[0] - 2 * cut_y, kernel[1] - 2 * cut_x))
        return F.pad(inner, (cut_x, cut_x, cut_y, cut_y)) if cut_y or cut_x else inner

    return weight_gradient


# Forward: x (N, C, H, W), weight (C, 1, k_h, k_w), bias (C,) -> (N, C, H, W)


def _native(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.conv2d(x, weight, bias, *_native_arguments(x, weight))


def _native_arguments(x: Tensor, weight: Tensor) -> tuple:
    """What F.conv2d takes besides: stride, padding, dilation, groups."""
    return 1, (weight.shape[2] // 2, weight.shape[3] // 2), 1, x.shape[1]


def _crop(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return _native(x, _cropped(weight, *x.shape[2:]), bias)


def _pad(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    weight = _cropped(weight, *x.shape[2:])
    return F.conv2d(_with_border(x, weight.shape[2:]), weight, bias, groups=x.shape[1])


def _with_border(x: Tensor, kernel: tuple[int, int]) -> Tensor:
    half_h, half_w = kernel[0] // 2, kernel[1] // 2
    return F.pad(x, (half_w, half_w, half_h, half_h))


def _relay(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return _crop(_relaid(x), weight, bias)


def _toeplitz_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    y = _matmul_positions(x, toeplitz(weight, *x.shape[2:]).transpose(1, 2))
    return y if bias is None else y.add_(bias[:, None, None])


FORWARD: dict[str, Callable[..., Tensor]] = {
    "native": _native,
    "crop": _crop,
    "relaid": _relay,
    "pad": _pad,
    "toeplitz": _toeplitz_product,
}


# Input gradient: grad (N, C, H, W), weight (C, 1, k_h, k_w) -> (N, C, H, W); the filter is turned around


def _native_input_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    return _convolution_backward(grad, grad, weight, (True, False, False))[0]  # of x only its shape is read


INPUT_GRADIENT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "native": _native_input_gradient,
    "crop": lambda grad, weight: _native_input_gradient(grad, _cropped(weight, *grad.shape[2:])),
    "flip": lambda grad, weight: _crop(grad, weight.flip(2, 3)),
    "pad": lambda grad, weight: _pad(grad, weight.flip(2, 3)),
    "relaid": lambda grad, weight: _native_input_gradient(_relaid(grad), _cropped(weight, *grad.shape[2:])),
    "toeplitz": lambda grad, weight: _toeplitz_product(grad, weight.flip(2, 3)),
}


def _convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool, bool]) -> list[Tensor]:
    padding = [weight.shape[2] // 2, weight.shape[3] // 2]
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, [1, 1], padding, [1, 1], False, [0, 0], x.shape[1], wanted
    )


# Weight gradient: x and grad (N, C, H, W), kernel (k_h, k_w) -> (C, 1, k_h, k_w)


def _native_weight_gradient(x: Tensor, grad: Tensor, kernel: tuple[int, int]) -> Tensor:
    weight = x.new_empty(x.shape[1], 1, *kernel)  # of which only the shape is read
    return _convolution_backward(grad, x, weight, (False, True, False))[1]


def _swap(x: Tensor, grad: Tensor, kernel: tuple[int, int]) -> Tensor:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return _sum_images(x, F.conv2d(*_as_filters(x, grad), padding=padding, groups=x.shape[0] * x.shape[1]))


def _swap_padded(x: Tensor, grad: Tensor, kernel: tuple[int, int]) -> Tensor:
    border = _with_border(x.contiguous(), kernel)
    return _sum_images(x, F.conv2d(*_as_filters(border, grad), groups=x.shape[0] * x.shape[1]))


def _as_filters(x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Every channel of every image as a channel of one image, and its gradient as that channel's filter."""
    return x.contiguous().flatten(0, 1)[None], grad.contiguous().flatten(0, 1)[:, None]


def _sum_images(x: Tensor, taps: Tensor) -> Tensor:
    """(1, N * C, k_h, k_w) -> (C, 1, k_h, k_w). In float32, for the sake of half precision."""
    return taps.unflatten(1, x.shape[:2]).sum((0, 1), dtype=torch.float32 if taps.itemsize < 4 else None)[:, None]


def _rows(x: Tensor, grad: Tensor, kernel: tuple[int, int]) -> Tensor:
    n, c, h, w = x.shape
    k_h, k_w = kernel
    half = k_h // 2
    # Rows of all images under one another, with enough zeros between images that a shift by a row offset is a mere
    # shift of the start.
    below = F.pad(x.contiguous().transpose(0, 1), (0, 0, half, half)).reshape(c, n * (h + 2 * half), w)
    grads = F.pad(grad.contiguous().transpose(0, 1), (0, 0, 0, 2 * half)).reshape(c, n * (h + 2 * half), w)
    rows = n * (h + 2 * half) - 2 * half
    grads_t = grads[:, :rows].transpose(1, 2)
    pairs = torch.stack([torch.bmm(grads_t, below[:, dy : dy + rows]) for dy in range(k_h)], dim=1)  # (C, k_h, W, W)
    taps = _sum_diagonals(pairs, w)  # (C, k_h, 2W - 1)
    return F.pad(taps, (k_w // 2 - w + 1, k_w // 2 - w + 1))[:, None]


def _toeplitz_weight_gradient(x: Tensor, grad: Tensor, kernel: tuple[int, int]) -> Tensor:
    """The gradient of the Toeplitz matrix, gathered tap by tap."""
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
    "crop": _for_cropped(_native_weight_gradient),
    "relaid": _for_cropped(lambda x, grad, kernel: _native_weight_gradient(_relaid(x), _relaid(grad), kernel)),
    "rows": _for_cropped(_rows),
    "pad": _for_cropped(_swap_padded),
    "swap": _for_cropped(_swap),
    "toeplitz": _toeplitz_weight_gradient,
}


# A step: forward, and all gradients from an output's gradient as large as the output -> (C, 1, k_h, k_w), the weight's


def _native_step(x: Tensor, weight: Tensor, bias: Tensor | None, for_x: bool) -> Tensor:
    y = _native(x, weight, bias)
    return _convolution_backward(y, x, weight, (for_x, True, bias is not None))[1]


def _step_by_passes(x: Tensor, weight: Tensor, bias: Tensor | None, for_x: bool) -> Tensor:
    y = _forward(x, weight, bias, "auto")
    if for_x:
        _input_gradient(y, weight, "auto")
    if bias is not None:
        y.sum((0, 2, 3))
    return _weight_gradient(x, y, *weight.shape[2:], "auto")


TRAINING: dict[str, Callable[..., Tensor]] = {"native": _native_step, "by passes": _step_by_passes}


# The convolution as a matrix


def toeplitz(weight: Tensor, height: int, width: int) -> Tensor:
    """The depthwise convolution of an H x W map as a matrix a channel: weight (C, 1, k_h, k_w) -> (C, HW, HW).

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


def _matmul_positions(x: Tensor, matrix: Tensor) -> Tensor:
    """Multiply every channel's positions by its matrix: (N, C, H, W), (C, HW, HW) -> (N, C, H, W)."""
    n, c, h, w = x.shape
    x_cnp = x.contiguous().view(n, c, h * w).transpose(0, 1)
    y = torch.empty(n, c, h * w, dtype=x.dtype, device=x.device)
    torch.bmm(x_cnp, matrix, out=y.transpose(0, 1))
    return y.view(n, c, h, w)
