"""The modulation map A of a ConvMod, and the k x k terms that add up to it at one position.

For image n, channel c and position p, with u = GELU(W1 LN(x)) and the depthwise kernel W of size k x k:

    A[n, c, p] = b[c] + sum over δ of W[c, δ] · u[n, c, p + δ]        δ in the k x k window, u zero outside the map

`parts_of` gives A over the whole map, `window_map` the k² terms at one p, `modulation_at` everything about one p.
Shapes: N images, C channels, H x W positions of the map. A position is (row, column), from (0, 0) at the top left.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from c2f.models import Conv2Former, ConvMod
from c2f.models.conv2former import ConvModParts, fuse
from c2f.models.inputs import evaluating, model_device

Position = tuple[int, int]


def parts_of(model: Conv2Former, x: Tensor, stage: int, block: int) -> ConvModParts:
    """`model.parts(x, stage, block)` at inference, without gradients; the model's mode is restored afterwards."""
    with torch.no_grad(), evaluating(model):
        return model.parts(x.to(model_device(model)), stage, block)


def window_map(convmod: ConvMod, u: Tensor, channel: int, position: Position, image: int = 0) -> Tensor:
    """The terms W[c, δ] · u[n, c, p + δ] that the convolution adds up at one position, zero outside the map: (k, k).

    Their sum plus the channel's bias is A[n, c, p], to float32 rounding; the middle is the term of p itself (δ = 0).
    `u` is the kernel's input (N, C, H, W): `convmod.parts(x).u`. Raises ValueError for an image, channel or position
    that does not exist.
    """
    _check(u, image, channel, position)
    return _terms(convmod.a[-1].weight.detach()[channel, 0], u[image, channel].detach(), position)


def _terms(kernel: Tensor, u: Tensor, position: Position) -> Tensor:
    """A kernel (k, k) times what it covers of one map (H, W): (k, k)."""
    half = len(kernel) // 2
    return kernel * _cut(u, position[0] - half, position[1] - half, kernel.shape)


def implied_attention(kernel: Tensor, position: Position, size: tuple[int, int]) -> Tensor:
    """A kernel (k, k), placed around the position on a map of the size (H, W): (H, W), zero outside the kernel.

    It is the position's row of the convolution as an HW x HW matrix, which self-attention computes with a softmax.
    """
    half = len(kernel) // 2
    return _cut(kernel, half - position[0], half - position[1], size)


def _cut(values: Tensor, top: int, left: int, size: Sequence[int]) -> Tensor:
    """A rectangle of a matrix, zero where it reaches over the edge."""
    height, width = values.shape
    return F.pad(values, (-left, left + size[1] - width, -top, top + size[0] - height))


def channels_by_effect(convmod: ConvMod, parts: ConvModParts, image: int = 0) -> Tensor:
    """The channels sorted by how much each adds to the block's output for one image, the largest first: (C,) int64.

    Channel c adds the column W3[:, c] times its map of fused values; the product of the two norms is the size of that.
    """
    _check(parts.a, image, 0, (0, 0))
    with torch.no_grad():
        fused = fuse(parts.a, parts.v, convmod.fusion)[image]  # (C, H, W)
        return (fused.flatten(1).norm(dim=1) * convmod.proj.weight.flatten(1).norm(dim=0)).argsort(descending=True)


@dataclass(frozen=True, eq=False)
class Modulation:
    """One channel of one ConvMod for one image, at one position. Everything is detached and on the CPU."""

    stage: int
    block: int
    channel: int
    position: Position
    image_size: tuple[int, int]  # (H, W) of the image in pixels; the map is coarser
    kernel: Tensor  # (k, k)
    bias: float
    u: Tensor  # (H', W'), and so are a, v and fused
    a: Tensor
    v: Tensor
    fused: Tensor  # a ⊙ v, or what the ablation computes instead

    @property
    def value(self) -> float:
        """A at the position."""
        return self.a[self.position].item()

    @property
    def window(self) -> Tensor:
        """The terms at the position, (k, k), as `window_map` gives them."""
        return _terms(self.kernel, self.u, self.position)

    def box(self, steps: int) -> tuple[int, int, int, int]:
        """The positions at most `steps` rows and columns away, in pixels of the image: (top, left, height, width).

        It may reach over the edge. The window is `box(k // 2)`.
        """
        (row, column), side = self.position, 2 * steps + 1
        down, right = (pixels // positions for pixels, positions in zip(self.image_size, self.a.shape, strict=True))
        return (row - steps) * down, (column - steps) * right, side * down, side * right


def modulation_at(
    model: Conv2Former,
    x: Tensor,
    stage: int,
    block: int,
    channel: int | None = None,
    position: Position | None = None,
    image: int = 0,
    *,
    parts: ConvModParts | None = None,
) -> Modulation:
    """Run images up to one ConvMod, at inference, and keep what one channel computes at one position.

    Args:
        model: in any mode, which is restored.
        x: normalised images (N, 3, H, W), of which `image` is looked at.
        stage, block, channel: from 0; by default the channel with the largest effect on this image's output.
        position: on that stage's map; by default where that channel's A ⊙ V is largest in size, if possible at a
            position whose window is wholly on the map.
        parts: `parts_of(model, x, stage, block)`, if it is known already.

    Raises ValueError for a stage, block, image, channel or position that does not exist.
    """
    parts = parts or parts_of(model, x, stage, block)
    convmod = model.block(stage, block).convmod
    if channel is None:
        channel = int(channels_by_effect(convmod, parts, image)[0])
    _check(parts.a, image, channel, position or (0, 0))
    maps = (*parts[:3], fuse(parts.a, parts.v, convmod.fusion))
    u, a, v, fused = (each[image, channel].detach().cpu() for each in maps)
    kernel, bias = convmod.a[-1].weight.detach()[channel, 0].cpu(), convmod.a[-1].bias[channel].item()
    if position is None:
        top, left = (len(kernel) // 2 if length >= len(kernel) else 0 for length in fused.shape)
        inside = fused[top : len(fused) - top, left : fused.shape[1] - left].abs()  # without windows that are cut off
        row, column = divmod(int(inside.argmax()), inside.shape[1])
        position = row + top, column + left
    position = int(position[0]), int(position[1])
    return Modulation(stage, block, channel, position, tuple(x.shape[2:]), kernel, bias, u, a, v, fused)


def _check(maps: Tensor, image: int, channel: int, position: Position) -> None:
    if maps.ndim != 4:
        raise ValueError(f"the maps have shape {tuple(maps.shape)}; use (N, C, H, W), as ConvMod.parts gives them.")
    for name, index, count in (("image", image, len(maps)), ("channel", channel, maps.shape[1])):
        if not 0 <= index < count:
            raise ValueError(f"there is no {name} {index}; there are {count}: use 0 to {count - 1}.")
    check_position(position, tuple(maps.shape[2:]))


def check_position(position: Position, size: tuple[int, int]) -> None:
    """Raises ValueError for a position outside a stage's map of the size (H, W)."""
    (row, column), (height, width) = position, size
    if not (0 <= row < height and 0 <= column < width):
        raise ValueError(
            f"position (row {row}, column {column}) is outside this stage's {height}×{width} map; "
            f"use rows 0 to {height - 1} and columns 0 to {width - 1}."
        )
