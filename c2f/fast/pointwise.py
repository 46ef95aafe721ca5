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
from torch import Tensor, nn

from c2f.fast.autotune import case_name, choose, fast_path, is_ordinary, keep_fast_path, layout_of, signature

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


class FastPointwiseConv2d(nn.Conv2d):
    """A 1×1 convolution, the same matrix at every position: (N, C_in, H, W) -> (N, C_out, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        fits = is_ordinary(x, self.weight) and x.is_cpu and x.ndim == 4 and x.shape[1] == self.in_channels
        if fits and 0 < x.numel() // x.shape[1] <= FEW_POSITIONS:
            way = _fastest(f"1x1 convolution to {self.out_channels} channels", CONVOLUTIONS, x, self.weight, self.bias)
            return CONVOLUTIONS[way](x, self.weight, self.bias)
        return super().forward(x)


class FastGELU(nn.GELU):
    """The exact GELU, x Φ(x), of a tensor of any shape.

    PyTorch's fast kernel on a CPU, oneDNN's, is taken for contiguous tensors alone; a map in channels_last is one once
    its axes are named in the order that they are stored in.
    """

    def forward(self, x: Tensor) -> Tensor:
        if is_ordinary(x) and x.is_cpu and x.ndim == 4 and layout_of(x) == torch.channels_last:
            return GELUS[_fastest("gelu", GELUS, x)](x)
        return super().forward(x)


def _fastest(what: str, table: dict[str, Callable[..., Tensor]], *tensors: Tensor | None) -> str:
    """The fastest of a table's ways for such a call: forward and, where anything learns, backward as well."""
    kind = (what, *signature(*tensors))
    if found := fast_path.get(kind):
        return found
    autocast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") and table is CONVOLUTIONS else None
    copies = [t if t is None else t.detach().to(autocast or t.dtype).requires_grad_(t.requires_grad) for t in tensors]
    wanted = [t for t in copies if torch.is_grad_enabled() and t is not None and t.requires_grad]

    def run(compute: Callable[..., Tensor]) -> Tensor:
        y = compute(*copies)
        if wanted:
            torch.autograd.grad(y, wanted, y.detach())
        return y

    case = case_name(f"{what}{', training' * bool(wanted)}", copies[0], (1, 1))
    with torch.autocast("cpu", enabled=False):
        way = choose(case, {way: partial(run, compute) for way, compute in table.items()}, copies[0].device)
    return keep_fast_path(kind, way)
