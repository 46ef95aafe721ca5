"""How far a depthwise kernel reaches, and how far one position of a stage sees: in theory, and in effect.

* The **energy** of a kernel is the sum of its squared taps. **Ring** r has the taps r steps from the centre, by row or
  by column, whichever is more. The share of the energy in each ring says whether a kernel looks around.
* The **theoretical** extent: every convolution on the way widens it, every stride multiplies it. It leaves out that a
  GroupNorm, between the stages of the CIFAR-10 models, makes all depend, faintly, on every pixel of the image.
* The **effective** receptive field is measured: the mean absolute gradient of one position's feature with respect to
  the input (Luo et al., arXiv 1701.04128).

Shapes: N images, C channels, H x W pixels, H' x W' positions of a stage, k x k taps, R = k // 2 + 1 rings.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from c2f.maps.modulation import Position, check_position
from c2f.models.conv2former import ODD, Conv2Former
from c2f.models.inputs import evaluating, model_device
from c2f.picture import WINDOW, Picture, new_figure, outline

if TYPE_CHECKING:
    from matplotlib.colors import Normalize

HEAT = "magma"  # dark where nothing counts; its lightness rises steadily, so it survives grey print
FAINTEST = 1e-4  # of the largest weight: what a logarithmic picture draws as zero


# ---- Kernels


def kernels_of(model: Conv2Former, stage: int, block: int = 0) -> Tensor:
    """The depthwise kernels of one ConvMod, (C, k, k), detached. Raises ValueError for a block that does not exist."""
    return model.block(stage, block).convmod.a[-1].weight.detach()[:, 0].cpu()


def rings(kernel_size: int) -> Tensor:
    """Which ring each tap is in: (k, k) int64, 0 at the centre, k // 2 at the edge.

    Raises ValueError for an even or non-positive size, which has no centre.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(ODD.format(kernel_size))
    return _distances((kernel_size, kernel_size), (kernel_size // 2, kernel_size // 2)).long()


def energy_by_radius(kernels: Tensor) -> Tensor:
    """Each ring's share of each kernel's energy: (C, k, k) -> (C, R), each row sums to 1.

    The result is on the CPU. Raises ValueError for kernels of another shape and for one that is zero everywhere.
    """
    if kernels.ndim != 3 or kernels.shape[1] != kernels.shape[2]:
        raise ValueError(f"the kernels have shape {tuple(kernels.shape)}; use (C, k, k), as `kernels_of` gives them.")
    ring, squares = rings(kernels.shape[-1]), kernels.detach().cpu().double() ** 2
    energy = squares.new_zeros(len(kernels), int(ring.max()) + 1).index_add(1, ring.flatten(), squares.flatten(1))
    if not (total := energy.sum(dim=1, keepdim=True)).all():
        raise ValueError("a kernel is zero everywhere: there is no energy to share out; leave it out.")
    return (energy / total).float()


def mean_radius(kernels: Tensor) -> Tensor:
    """The mean distance of a kernel's energy from its centre, in steps: (C, k, k) -> (C,). Errors as above."""
    energy = energy_by_radius(kernels)
    return energy @ torch.arange(energy.shape[1], dtype=energy.dtype)


def _distances(size: Sequence[int], centre: Sequence[float]) -> Tensor:
    """How many steps each element of a matrix is from the centre, by row or by column, whichever is more."""
    rows, columns = ((torch.arange(length) - middle).abs() for length, middle in zip(size, centre, strict=True))
    return torch.maximum(rows[:, None], columns)


# ---- Receptive fields


class Extent(NamedTuple):
    """A rectangle of pixels; it may reach over the image's edge."""

    top: int
    left: int
    height: int
    width: int


def theoretical_extent(model: Conv2Former, stage: int, position: Position) -> Extent:
    """The pixels that the convolutions up to a stage's last block can carry to one position of its map.

    `stage` counts from 0. Raises ValueError for one that does not exist.
    """
    model.block(stage, 0)
    layers = [layer for part in (model.stem, *model.stages[: stage + 1]) for layer in part.modules()]
    (top, left), side = position, 1
    for conv in reversed([layer for layer in layers if isinstance(layer, nn.Conv2d)]):  # all of them are square
        stride, padding = conv.stride[0], conv.padding[0]
        top, left, side = top * stride - padding, left * stride - padding, (side - 1) * stride + conv.kernel_size[0]
    return Extent(top, left, side, side)


@dataclass(frozen=True, eq=False)
class ReceptiveField:
    """What one position of one stage sees of an image, in effect and in theory."""

    weights: Tensor  # (H, W), each pixel's share; they sum to 1
    stage: int
    position: Position  # on the stage's map
    extent: Extent  # what it could see in theory

    def shares(self) -> tuple[Tensor, Tensor]:
        """For squares around the position's own centre, the smallest first: half their side, the share in each."""
        radii, square = (_distances(self.weights.shape, self._centre()) + 0.5).unique(return_inverse=True)
        weights = self.weights.double().flatten()
        return radii, torch.zeros(len(radii)).double().index_add(0, square.flatten(), weights).cumsum(0)

    def radius(self, share: float) -> float:
        """Half the side of the smallest square that holds this share, in pixels.

        Raises ValueError for a share that is not above 0 and at most 1.
        """
        if not 0 < share <= 1:
            raise ValueError(f"the share is {share}; use a number above 0, at most 1, such as 0.9.")
        radii, shares = self.shares()
        return radii[shares >= share - 1e-6][0].item()

    def box(self, share: float) -> Extent:
        """The smallest square of whole pixels that holds this share. Raises ValueError as `radius` does."""
        radius, (row, column) = self.radius(share), self._centre()
        side = round(2 * radius)
        return Extent(round(row + 0.5 - radius), round(column + 0.5 - radius), side, side)

    def _centre(self) -> tuple[float, float]:
        """(row, column) of what the position could see; half a pixel where a side is even."""
        top, left, height, width = self.extent
        return top + (height - 1) / 2, left + (width - 1) / 2


def effective_receptive_field(
    model: Conv2Former, x: Tensor, stage: int = -1, position: Position | None = None
) -> ReceptiveField:
    """Mean absolute gradient of a position's feature with respect to the input, over images and channels.

    The feature is the stage's output at that position, summed over its channels. The mean is divided by its sum over
    the pixels.

    Args:
        model: in any mode, which is restored; the gradients of its parameters are not touched.
        x: normalised images (N, 3, H, W); the more, the smoother the result.
        stage: from 0, or from the end as -1.
        position: (row, column) on the stage's map; by default its middle, (H' // 2, W' // 2).

    Raises ValueError for a stage or position that does not exist and for a gradient of zero everywhere.
    """
    stage += len(model.stages) * (-len(model.stages) <= stage < 0)
    model.block(stage, 0)
    x = x.detach().to(model_device(model), copy=True).requires_grad_()
    with evaluating(model), torch.enable_grad():
        feature = list(model.features(x).values())[stage]  # (N, C, H', W')
        row, column = position = position or (feature.shape[2] // 2, feature.shape[3] // 2)
        check_position(position, tuple(feature.shape[2:]))
        (gradient,) = torch.autograd.grad(feature[:, :, row, column].sum(), x)
    weights = gradient.abs().mean(dim=(0, 1)).cpu().double()  # in this order: Apple's GPUs have no float64
    total = weights.sum().item()
    if not (math.isfinite(total) and total > 0):
        raise ValueError(f"the gradient's sum is {total}: the feature does not depend on these images; give others.")
    return ReceptiveField((weights / total).float(), stage, position, theoretical_extent(model, stage, position))


def plot_receptive_fields(
    fields: Mapping[str, ReceptiveField], *, log: bool = True, columns: int = 3, title: str = ""
) -> Picture:
    """Effective receptive fields side by side, each relative to its own largest value.

    Dashed: the smallest square that holds 90 %; dotted: the theoretical extent, where it is on the image.

    `fields` has each by its title, at least one (else ValueError); `log`: the colours show powers of ten, so that the
    faint rim is seen, else shares as they are; `columns` pictures in a row; `title` over all of them.
    """
    if not fields:
        raise ValueError("there is no receptive field to draw; give at least one, by its name.")
    columns = min(columns, len(fields))
    rows = -(-len(fields) // columns)
    figure = new_figure(max(2.7 * columns + 0.9, 4.6), 2.8 * rows + 0.3 + 0.3 * bool(title))
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat[len(fields) :]:
        ax.axis("off")
    for ax, (name, field) in zip(axes.flat, fields.items(), strict=False):
        share = (field.weights / field.weights.max()).numpy()
        drawn = ax.imshow(share, cmap=HEAT, interpolation="nearest", norm=colour_scale(log))
        outline(ax, *field.box(0.9), WINDOW, 1.6, linestyle="--")
        outline(ax, *field.extent, "white", 1.6, linestyle=":")
        ax.set_title(f"{name}\n50 %: ±{field.radius(0.5):g}, 90 %: ±{field.radius(0.9):g} px", fontsize=9)
        ax.set(xlabel="pixel column", ylabel="pixel row")
    bar = figure.colorbar(drawn, ax=axes.flatten().tolist(), shrink=0.8, aspect=25)
    bar.set_label("share of the gradient, against the largest", fontsize=9)
    figure.suptitle(title, fontsize=11)
    return Picture(figure, describe(fields, title))


def colour_scale(log: bool) -> "Normalize":
    """How a pixel's share of the largest weight becomes a colour: by its power of ten from `FAINTEST` on, or as is."""
    from matplotlib.colors import LogNorm, Normalize

    return LogNorm(FAINTEST, 1, clip=True) if log else Normalize(0, 1)


def describe(fields: Mapping[str, ReceptiveField], title: str) -> str:
    described = [
        f"{name}: stage {field.stage}, half of the gradient lies within {field.radius(0.5):g} pixels of the centre and "
        f"90 % within {field.radius(0.9):g}, of {max(field.extent[2:]) / 2:g} that the convolutions could reach"
        for name, field in fields.items()
    ]
    return f"{title}. {'; '.join(described)}.".removeprefix(". ")
