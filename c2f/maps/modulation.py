"""The modulation map A of a ConvMod, and the k x k terms that add up to it at one position.

For image n, channel c and position p, with u = GELU(W1 LN(x)) and the depthwise kernel W of size k x k:

    A[n, c, p] = b[c] + sum over δ of W[c, δ] · u[n, c, p + δ]        δ in the k x k window, u zero outside the map

`modulation_map` is A over the whole map, `window_map` the k² terms at one p, `look_at` everything a picture needs.
All work on `Conv2Former.parts` and `ConvMod.parts`. Shapes: N images, C channels, H x W positions of the map.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f.models import Conv2Former, ConvMod
from c2f.models.conv2former import ConvModParts, fuse


def modulation_map(model: Conv2Former, x: Tensor, stage: int, block: int) -> Tensor:
    """A of one block's ConvMod for normalised images x (N, 3, H, W), dropping no path: (N, C, H', W'), signed.

    Stage and block count from 0. Raises ValueError for one that is not there.
    """
    return parts_of(model, x, stage, block).a


def parts_of(model: Conv2Former, x: Tensor, stage: int, block: int) -> ConvModParts:
    """`model.parts(x, stage, block)` as the model evaluates, without gradients; its training mode is left as it was."""
    with torch.no_grad(), _evaluating(model):
        return model.parts(x, stage, block)


def window_map(convmod: ConvMod, u: Tensor, channel: int, position: tuple[int, int], image: int = 0) -> Tensor:
    """The terms W[c, δ] · u[n, c, p + δ] that the convolution adds up at one position, zero outside the map.

    Their sum and the channel's bias make A[n, c, p], to float32 rounding.

    Args:
        convmod: whose depthwise kernel W is meant.
        u: what that kernel looks at, (N, C, H, W): `convmod.parts(x).u`.
        channel: c, from 0.
        position: p = (row, column) on the map, from (0, 0) at the top left.
        image: n, from 0.

    Returns:
        (k, k); the middle is the term of p itself (δ = 0).

    Raises:
        ValueError: an image, channel or position that is not there.
    """
    _check(u, image, channel, position)
    kernel = _depthwise(convmod).weight.detach()[channel, 0]  # (k, k)
    rows, columns = kernel.shape
    top, left = rows // 2, columns // 2
    padded = F.pad(u[image, channel].detach(), (left, left, top, top))
    row, column = position
    return kernel * padded[row : row + rows, column : column + columns]


def channels_by_effect(convmod: ConvMod, parts: ConvModParts, image: int = 0) -> Tensor:
    """The channels sorted by how much each adds to the block's output for one image, the most first: (C,) int64.

    Channel c adds the column W3[:, c] times its map of fused values; the product of the two norms is how much.
    """
    _check(parts.a, image, 0, (0, 0))
    with torch.no_grad():
        fused = fuse(parts.a, parts.v, convmod.fusion)[image]  # (C, H, W)
        return (fused.flatten(1).norm(dim=1) * convmod.proj.weight.flatten(1).norm(dim=0)).argsort(descending=True)


@dataclass(frozen=True, eq=False)
class Modulation:
    """One channel of one ConvMod for one image, seen from one position. Everything is detached and on the CPU."""

    stage: int
    block: int
    channel: int
    position: tuple[int, int]
    """(row, column) on the map."""
    image_size: tuple[int, int]
    """(H, W) of the image in pixels, of which the map is a coarser one."""
    kernel: Tensor  # (k, k)
    bias: float
    u: Tensor  # (H', W'), and so are a, v and fused
    window: Tensor  # (k, k): the terms at `position`
    a: Tensor
    v: Tensor
    fused: Tensor  # a ⊙ v, or what the ablation does in its place

    @property
    def value(self) -> float:
        """A at the position."""
        return self.a[self.position].item()

    @property
    def window_box(self) -> tuple[int, int, int, int]:
        """The window in pixels of the image: (top, left, height, width), possibly reaching over the edge."""
        stride = [pixels // positions for pixels, positions in zip(self.image_size, self.a.shape, strict=True)]
        top, left = (
            step * (p - size // 2) for step, p, size in zip(stride, self.position, self.kernel.shape, strict=True)
        )
        height, width = (step * size for step, size in zip(stride, self.kernel.shape, strict=True))
        return top, left, height, width


def look_at(
    model: Conv2Former,
    x: Tensor,
    stage: int,
    block: int,
    channel: int | None = None,
    position: tuple[int, int] | None = None,
    image: int = 0,
    parts: ConvModParts | None = None,
) -> Modulation:
    """Run images up to one ConvMod and keep what one channel does at one position.

    Args:
        model: in any mode; it is asked as it evaluates.
        x: normalised images (N, 3, H, W).
        stage, block: which ConvMod, from 0.
        channel: from 0; by default the one that does most for this image.
        position: (row, column) on that stage's map; by default where that channel's A ⊙ V is largest in size, of the
            positions whose window is wholly on the map, if any is.
        image: which of the N.
        parts: what `parts_of` returned for these images and this ConvMod, where it has been computed already.

    Raises:
        ValueError: a stage, block, image, channel or position that is not there.
    """
    parts = parts_of(model, x, stage, block) if parts is None else parts
    convmod = model.stages[stage].blocks[block].convmod
    if channel is None:
        channel = int(channels_by_effect(convmod, parts, image)[0])
    _check(parts.a, image, channel, position or (0, 0))
    conv = _depthwise(convmod)
    u, a, v, fused = (
        part[image, channel].detach().cpu() for part in (*parts[:3], fuse(parts.a, parts.v, convmod.fusion))
    )
    if position is None:
        position = _most_telling(fused, conv.kernel_size)
    return Modulation(
        stage=stage,
        block=block,
        channel=channel,
        position=(int(position[0]), int(position[1])),
        image_size=(x.shape[2], x.shape[3]),
        kernel=conv.weight.detach()[channel, 0].cpu(),
        bias=0.0 if conv.bias is None else conv.bias[channel].item(),
        u=u,
        window=window_map(convmod, parts.u, channel, position, image).cpu(),
        a=a,
        v=v,
        fused=fused,
    )


def _most_telling(fused: Tensor, kernel_size: tuple[int, int]) -> tuple[int, int]:
    """Where a map (H, W) is largest in size, the edge left out if anything remains: a window cut off tells less."""
    sizes = fused.abs()
    top, left = (
        edge if 2 * edge < length else 0
        for edge, length in zip((k // 2 for k in kernel_size), sizes.shape, strict=True)
    )
    inside = sizes[top : sizes.shape[0] - top, left : sizes.shape[1] - left]
    row, column = divmod(int(inside.argmax()), inside.shape[1])
    return row + top, column + left


def _depthwise(convmod: ConvMod) -> nn.Conv2d:
    return convmod.a[-1]


def _check(maps: Tensor, image: int, channel: int, position: tuple[int, int]) -> None:
    if maps.ndim != 4:
        raise ValueError(f"the maps have shape {tuple(maps.shape)}; use (N, C, H, W), as ConvMod.parts gives them.")
    images, channels, height, width = maps.shape
    if not 0 <= image < images:
        raise ValueError(f"there is no image {image}; there are {images}: use 0 to {images - 1}.")
    if not 0 <= channel < channels:
        raise ValueError(f"there is no channel {channel}; this stage has {channels}: use 0 to {channels - 1}.")
    row, column = position
    if not (0 <= row < height and 0 <= column < width):
        raise ValueError(
            f"position (row {row}, column {column}) is outside this stage's {height}×{width} map; "
            f"use rows 0 to {height - 1} and columns 0 to {width - 1}."
        )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode, and afterwards each in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
