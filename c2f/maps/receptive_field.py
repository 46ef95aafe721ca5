"""How far one position of a stage sees: in theory, and in effect.

The **theoretical** extent is bookkeeping: every convolution on the way widens it, every stride multiplies it. The
**effective** receptive field is measured: the mean absolute gradient of the centre position's feature with respect to
the input (Luo et al., arXiv 1701.04128). A pixel whose change would not move the feature has the weight zero, however
wide the theoretical extent is.

The extent counts convolutions only. A GroupNorm with one group, which the CIFAR-10 models have between their stages,
takes mean and variance over the whole map, so strictly every position past it depends, faintly, on every pixel.

Shapes: N images, C channels, H x W pixels, H' x W' positions of a stage.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from c2f.maps.modulation import Position, check_position
from c2f.maps.picture import WINDOW, Picture, new_figure, outline
from c2f.models import Conv2Former
from c2f.models.modes import evaluating

HEAT = "magma"  # dark where nothing counts; its lightness rises steadily, so it survives grey print
DECADES = 4  # of a logarithmic picture: a ten-thousandth of the largest weight is drawn as zero


class Extent(NamedTuple):
    """A rectangle of pixels; it may reach over the image's edge."""

    top: int
    left: int
    height: int
    width: int

    @property
    def centre(self) -> tuple[float, float]:
        """(row, column); half a pixel where a side is even."""
        return self.top + (self.height - 1) / 2, self.left + (self.width - 1) / 2


def theoretical_extent(model: Conv2Former, stage: int, position: Position) -> Extent:
    """The pixels that the convolutions up to a stage's last block can carry to one position of its map.

    `stage` counts from 0. Raises ValueError for one that does not exist.
    """
    per_block = model.config.kernel_size // 2 + 1  # ConvMod, then the MLP's 3x3
    return _back_to_pixels(model, stage, position, [depth * per_block for depth in model.config.depths])


def window_extent(model: Conv2Former, stage: int, position: Position) -> Extent:
    """The pixels under the ConvMod window of a stage, as far as stem and downsampling alone carry them there.

    With a stem of patches that is the window times the stride. Where neighbours share pixels, as in the "overlap" stem
    of two 3x3 convolutions, it is a few pixels more. What earlier blocks mixed in comes from farther still.
    Errors as for `theoretical_extent`.
    """
    return _back_to_pixels(model, stage, position, [0] * stage + [model.config.kernel_size // 2])


def _back_to_pixels(model: Conv2Former, stage: int, position: Position, reaches: Sequence[int]) -> Extent:
    """From a position of a stage back to the image; `reaches` are the positions that each stage's blocks add a side."""
    _check_stage(model, stage)
    (top, left), (bottom, right) = position, position
    for earlier in range(stage, -1, -1):
        reach = reaches[earlier]
        top, bottom, left, right = top - reach, bottom + reach, left - reach, right + reach
        if earlier:  # the 2x2 convolution of stride 2 that began this stage
            top, bottom, left, right = 2 * top, 2 * bottom + 1, 2 * left, 2 * right + 1
    for conv in reversed([module for module in model.stem.modules() if isinstance(module, nn.Conv2d)]):
        kernel, stride, padding = conv.kernel_size[0], conv.stride[0], conv.padding[0]  # all of them are square
        top, left = (low * stride - padding for low in (top, left))
        bottom, right = (high * stride - padding + kernel - 1 for high in (bottom, right))
    return Extent(top, left, bottom - top + 1, right - left + 1)


def _check_stage(model: Conv2Former, stage: int) -> None:
    stages = len(model.stages)
    if not 0 <= stage < stages:
        raise ValueError(f"there is no stage {stage}; this model has {stages}: use 0 to {stages - 1}.")


@dataclass(frozen=True, eq=False)
class ReceptiveField:
    """What one position of one stage sees of an image, in effect and in theory."""

    weights: Tensor
    """(H, W), each pixel's share; they sum to 1."""
    stage: int
    position: tuple[int, int]
    """(row, column) on the stage's map."""
    extent: Extent
    """What it could see in theory."""

    def box(self, share: float) -> Extent:
        """The smallest square of whole pixels around the position's own centre that holds this share.

        Raises ValueError for a share that is not above 0 and at most 1.
        """
        if not 0 < share <= 1:
            raise ValueError(f"the share is {share}; use a number above 0, at most 1, such as 0.9.")
        distances = self._distances()
        for distance in distances.unique().tolist():
            if self.weights[distances <= distance].sum().item() >= share - 1e-6:
                break
        row, column = self.extent.centre
        side = round(2 * distance + 1)
        return Extent(round(row - distance), round(column - distance), side, side)

    def radius(self, share: float) -> float:
        """Half the side of that square, in pixels. Raises ValueError as `box` does."""
        return self.box(share).height / 2

    def inside(self, radius: float) -> float:
        """The share within so many pixels of the centre, up and down, left and right: 0 to 1."""
        return self.weights[self._distances() <= radius - 0.5 + 1e-6].sum().item()

    def _distances(self) -> Tensor:
        """How many pixels each pixel is from the centre, by row or by column, whichever is more: (H, W)."""
        row, column = self.extent.centre
        height, width = self.weights.shape
        rows, columns = torch.arange(height) - row, torch.arange(width) - column
        return torch.maximum(rows[:, None].abs(), columns[None].abs())


def effective_receptive_field(
    model: Conv2Former, x: Tensor, stage: int = -1, position: Position | None = None
) -> ReceptiveField:
    """Mean absolute gradient of a position's feature with respect to the input, over images and channels.

    The feature is the stage's output at that position, summed over its channels. The mean is over the N images and the
    input's channels; it is divided by its sum over the pixels.

    Args:
        model: in any mode, which is restored; the gradients of its parameters are not touched.
        x: normalised images (N, 3, H, W); the more, the smoother the result.
        stage: from 0, or from the end as -1.
        position: (row, column) on the stage's map; by default its middle, (H' // 2, W' // 2).

    Raises:
        ValueError: a stage or position that does not exist; images of another shape; a gradient of zero everywhere.
    """
    stages = len(model.stages)
    stage = stage + stages if -stages <= stage < 0 else stage
    _check_stage(model, stage)
    x = x.detach().clone().requires_grad_()
    with evaluating(model), torch.enable_grad():
        feature = list(model.features(x).values())[stage]  # (N, C, H', W')
        row, column = position = position or (feature.shape[2] // 2, feature.shape[3] // 2)
        check_position(position, tuple(feature.shape[2:]))
        (gradient,) = torch.autograd.grad(feature[:, :, row, column].sum(), x)
    weights = gradient.abs().mean(dim=(0, 1)).double().cpu()
    total = weights.sum().item()
    if not (math.isfinite(total) and total > 0):
        raise ValueError(f"the gradient's sum is {total}: the feature does not depend on these images; give others.")
    return ReceptiveField((weights / total).float(), stage, position, theoretical_extent(model, stage, position))


def plot_receptive_fields(
    fields: Mapping[str, ReceptiveField], *, log: bool = True, columns: int = 3, title: str = ""
) -> Picture:
    """Effective receptive fields side by side, each relative to its own largest value.

    Dashed: the smallest square that holds 90 %; dotted: the theoretical extent, where it is on the image.

    Args:
        fields: by the title of each.
        log: the colours show powers of ten, so that the faint rim is seen; else shares as they are.
        columns: pictures in a row.
        title: over all of them.

    Raises ValueError for none.
    """
    if not fields:
        raise ValueError("there is no receptive field to draw; give at least one, by its name.")
    columns = min(columns, len(fields))
    rows = -(-len(fields) // columns)
    figure = new_figure(max(2.7 * columns + 0.9, 4.6), 2.8 * rows + 0.3 + 0.3 * bool(title))
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat[len(fields) :]:
        ax.axis("off")
    low, high = (-DECADES, 0) if log else (0, 1)
    for ax, (name, field) in zip(axes.flat, fields.items(), strict=False):
        shown = shown_weights(field, log).numpy()
        drawn = ax.imshow(shown, cmap=HEAT, interpolation="nearest", vmin=low, vmax=high)
        outline(ax, *field.box(0.9), WINDOW, 1.6, linestyle="--")
        outline(ax, *field.extent, "white", 1.6, linestyle=":")
        ax.set_title(f"{name}\n50 %: ±{field.radius(0.5):g}, 90 %: ±{field.radius(0.9):g} px", fontsize=9)
    for ax in axes[:, 0]:
        ax.set_ylabel("pixel row")
    for ax in axes[-1]:
        ax.set_xlabel("pixel column")
    bar = figure.colorbar(drawn, ax=axes.flatten().tolist(), shrink=0.8, aspect=25)
    bar.set_label("share of the gradient, against the largest", fontsize=9)
    if log:
        bar.set_ticks(range(-DECADES, 1), labels=[f"1/{10**-d:,}" if d else "1" for d in range(-DECADES, 1)])
    figure.suptitle(title, fontsize=11)
    return Picture(figure, describe(fields, title))


def shown_weights(field: ReceptiveField, log: bool) -> Tensor:
    """What is drawn of a field, (H, W): its share of the largest weight, 0 to 1, or the power of ten, -4 to 0."""
    share = field.weights / field.weights.max()
    return share.clamp(min=10.0**-DECADES).log10() if log else share


def describe(fields: Mapping[str, ReceptiveField], title: str) -> str:
    described = [
        f"{name}: stage {field.stage}, half of the gradient lies within {field.radius(0.5):g} pixels of the centre and "
        f"90 % within {field.radius(0.9):g}, of {max(field.extent[2:]) / 2:g} that the convolutions could reach"
        for name, field in fields.items()
    ]
    return f"{title}. {'; '.join(described)}.".removeprefix(". ")
