"""What treats every position by itself, 1×1 convolution and GELU, computed in the way that is fastest here.

On a CPU PyTorch gives one sum to one of several libraries, depending on how it is written, and which of them is faster
depends on how well each knows the processor. So the ways are timed once per case, as for `depthwise_conv2d`; on other
devices, and where `is_ordinary` says no, these are PyTorch's own calls.

Shapes: N images, C channels, H x W positions.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from c2f.fast.autotune import case_name, choose, fast_path, is_ordinary, keep_fast_path, signature

# Positions of a batch, images included, up to which the ways of a 1×1 convolution are timed. On more, oneDNN's
# convolution was about as fast as the faster product, on both processors that were measured.
FEW_POSITIONS = 4096

# PyTorch's own call is first: it stays where the other is no faster.
CONVOLUTIONS: dict[str, Callable[..., Tensor]] = {
    "convolution": F.conv2d,
    "product": lambda x, weight, bias: F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2),
}
GELUS: dict[str, Callable[..., Tensor]] = {
    "channels_last": F.gelu,
    "contiguous": lambda x: F.gelu(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
}


def pointwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The same matrix at every position: x (N, C_in, H, W), weight (C_out, C_in, 1, 1) -> (N, C_out, H, W)."""
    if not (is_ordinary(x, weight) and x.is_cpu and x.ndim == 4 and x.shape[1] == weight.shape[1]):
        return F.conv2d(x, weight, bias)
    if not 0 < x.numel() // x.shape[1] <= FEW_POSITIONS:
        return F.conv2d(x, weight, bias)
    way = _fastest(f"1x1 convolution to {len(weight)} channels", CONVOLUTIONS, x, weight, bias)
    return CONVOLUTIONS[way](x, weight, bias)


def gelu(x: Tensor) -> Tensor:
    """The exact GELU, x Φ(x), of a tensor of any shape.

    PyTorch's fast kernel on a CPU, oneDNN's, is taken for contiguous tensors alone; a map in channels_last is one once
    its axes are named in the order that they are stored in.
    """
    if not (is_ordinary(x) and x.is_cpu and x.ndim == 4):
        return F.gelu(x)
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        return F.gelu(x)
    return GELUS[_fastest("gelu", GELUS, x)](x)


def _fastest(what: str, table: dict[str, Callable[..., Tensor]], *tensors: Tensor | None) -> str:
    """The fastest of a table's ways for such a call: forward and, where anything learns, backward as well."""
    kind = (what, *signature(*tensors))
    if found := fast_path.get(kind):
        return found
    autocast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") and table is CONVOLUTIONS else None
    learns = [torch.is_grad_enabled() and t is not None and t.requires_grad for t in tensors]
    copies = [
        t if t is None else t.detach().to(autocast or t.dtype).requires_grad_(learn)
        for t, learn in zip(tensors, learns, strict=True)
    ]
    wanted = [t for t, learn in zip(copies, learns, strict=True) if learn]

    def run(compute: Callable[..., Tensor]) -> Tensor:
        y = compute(*copies)
        if wanted:
            torch.autograd.grad(y, wanted, y.detach())
        return y

    case = case_name(f"{what}{', training' * bool(wanted)}", copies[0], (1, 1))
    with torch.autocast("cpu", enabled=False):
        way = choose(case, {way: partial(run, compute) for way, compute in table.items()}, copies[0].device)
    return keep_fast_path(kind, way)
