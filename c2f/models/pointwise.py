"""What treats every position by itself, 1×1 convolution and GELU, computed in the way that is fastest here.

Shapes: N images, C channels, H x W positions.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from c2f.models.choices import case, choose, settle, settled

# Positions of a batch, images included, up to which the ways are timed. On more, oneDNN's convolution was about as fast
# as the faster product, on both processors that were measured.
FEW_POSITIONS = 4096
# Bytes between which PyTorch hands a GELU to oneDNN's kernel with profit: in 0.5 to 0.9 of its own kernel's time, while
# a smaller map takes longer and a larger one as long. Two cores of an AMD EPYC, float32 and bf16, forward and backward.
ONEDNN_GELU = range(2**20, 2**24 + 1)


class PointwiseConv2d(nn.Conv2d):
    """The same matrix at every position. Shape: (N, C_in, H, W) -> (N, C_out, H, W).

    Its parameters and state dict are those of `nn.Conv2d(in_channels, out_channels, 1)`. For few positions on a CPU the
    ways to compute it are timed once a case, as for `depthwise_conv2d`: which wins depends on how well the libraries
    know the processor. `print(c2f.models.choices.describe())` shows what was chosen.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        # Who watches the operators, FlopCounterMode say, or computes with shapes alone, is shown the convolution.
        watched = is_compiling() or is_in_torch_dispatch_mode()
        if x.is_cpu and x.ndim == 4 and not watched:
            n, c, h, w = x.shape
            if c == self.in_channels and 0 < n * h * w <= FEW_POSITIONS:
                return WAYS[_fastest(x, self.weight, self.bias)](x, self.weight, self.bias)
        return super().forward(x)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


def _onednn_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The product as torch.compile's code has it: by oneDNN in float32 too, where F.linear is MKL's. No gradients."""
    linear = torch.ops.mkldnn._linear_pointwise
    return linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias, "none", [], "").permute(0, 3, 1, 2)


# "convolution" is first: it stays where the others are no faster.
WAYS: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "convolution": F.conv2d,
    "product": _product,
    "onednn product": _onednn_product,
}


def _fastest(x: Tensor, weight: Tensor, bias: Tensor | None) -> str:
    """The fastest of `WAYS` for such a call, which must be one that can have few positions."""
    autocast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
    tensors = (x, weight) if bias is None else (x, weight, bias)
    gradients = torch.is_grad_enabled() and tuple(t.requires_grad for t in tensors)
    kind = (x.shape, x.stride(), x.dtype, weight.shape, bias is None, autocast, gradients, torch.get_num_threads())
    if found := settled.get(kind):
        return found[0]
    way = _time([t.detach().to(autocast or t.dtype).requires_grad_(t.requires_grad) for t in tensors])
    settle(kind, (way,))
    return way


def _time(tensors: list[Tensor]) -> str:
    """The fastest for these x, weight and perhaps bias: forward and, where anything learns, backward as well."""
    x, weight, *bias = tensors
    wanted = [t for t in tensors if torch.is_grad_enabled() and t.requires_grad]

    def candidate(compute: Callable[..., Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            y = compute(x, weight, bias[0] if bias else None)
            if wanted:
                torch.autograd.grad(y, wanted, y.detach())
            return y

        return run

    ways = dict(WAYS)
    # In other types F.linear is oneDNN's already. The name begins with _: another PyTorch may do without it.
    if wanted or x.dtype != torch.float32 or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        del ways["onednn product"]
    what = f"1x1 convolution to {len(weight)} channels{', training' * bool(wanted)}"
    layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    with torch.autocast("cpu", enabled=False):
        name = case(what, x, (1, 1), layout)
        return choose(name, {way: candidate(compute) for way, compute in ways.items()}, x.device)


class GELU2d(nn.GELU):
    """The exact GELU of a map (N, C, H, W), of which PyTorch's fast kernel on a CPU must not know that it is one.

    That kernel, oneDNN's, is taken for contiguous tensors alone; a map in channels_last is one once its axes are named
    in the order that they are stored in.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cpu and x.nbytes in ONEDNN_GELU and x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return super().forward(x)
