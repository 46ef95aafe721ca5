"""How a depthwise kernel's energy is spread: by ring around the centre, and on average.

The **energy** of a kernel is the sum of its squared taps. Ring r of a k x k kernel is the taps r steps from the centre,
by row or by column, whichever is more: one tap for r = 0, then 8 r. The share of the energy in each ring says
whether a kernel passes on what is at its centre (all in ring 0) or looks around.

Shapes: C channels, k x k taps, R = k // 2 + 1 rings.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from c2f.maps.picture import SIGNED, Picture, image_grid, symmetric_limit
from c2f.models import Conv2Former


def kernels_of(model: Conv2Former, stage: int, block: int = 0) -> Tensor:
    """The depthwise kernels of one ConvMod, (C, k, k), detached. Raises ValueError for a block that does not exist."""
    return model.block(stage, block).convmod.a[-1].weight.detach()[:, 0].cpu()


def rings(kernel_size: int) -> Tensor:
    """Which ring each tap is in: (k, k) int64, 0 at the centre, k // 2 at the edge.

    Raises ValueError for an even or non-positive size, which has no centre.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size is {kernel_size}; a kernel needs a centre: use a positive odd number.")
    steps = (torch.arange(kernel_size) - kernel_size // 2).abs()
    return torch.maximum(steps[:, None], steps[None, :])


def energy_by_radius(kernels: Tensor) -> Tensor:
    """Each ring's share of each kernel's energy: (C, k, k) -> (C, R), each row sums to 1.

    Raises ValueError for kernels of another shape and for one that is zero everywhere.
    """
    if kernels.ndim != 3 or kernels.shape[1] != kernels.shape[2]:
        raise ValueError(f"the kernels have shape {tuple(kernels.shape)}; use (C, k, k), as `kernels_of` gives them.")
    ring = rings(kernels.shape[-1]).to(kernels.device)
    squares = kernels.detach().double() ** 2
    energy = torch.stack([squares[:, ring == r].sum(dim=1) for r in range(int(ring.max()) + 1)], dim=1)
    if not (total := energy.sum(dim=1, keepdim=True)).all():
        raise ValueError("a kernel is zero everywhere: there is no energy to share out; leave it out.")
    return (energy / total).float()


def mean_radius(kernels: Tensor) -> Tensor:
    """The mean distance of a kernel's energy from its centre, in steps: (C, k, k) -> (C,). Errors as above."""
    energy = energy_by_radius(kernels)
    return energy @ torch.arange(energy.shape[1], dtype=energy.dtype, device=energy.device)


def plot_kernels(kernels: Tensor, titles: Sequence[str] = (), *, columns: int = 8, title: str = "") -> Picture:
    """Kernels (C, k, k) in a grid, each on its own scale, symmetrical about zero.

    `titles` has one for each kernel (by default its mean radius), `title` is for the whole grid.
    Raises ValueError for kernels of another shape, for none, and for titles too few or too many.
    """
    if kernels.ndim != 3 or not len(kernels):
        raise ValueError(f"the kernels have shape {tuple(kernels.shape)}; give at least one, as (C, k, k).")
    radii = mean_radius(kernels).tolist()
    titles = titles or [f"mean radius {radius:.1f}" for radius in radii]
    lines = 1 + max(text.count("\n") for text in titles)
    figure, axes = image_grid(
        "kernels", len(kernels), titles, columns, title, cell=(1.15, 1.1), title_height=0.17 * lines, fontsize=9
    )
    for ax, kernel in zip(axes[0], kernels.detach().cpu(), strict=False):
        limit = symmetric_limit(kernel)
        ax.imshow(kernel.numpy(), cmap=SIGNED, vmin=-limit, vmax=limit)
    what = f"{len(kernels)} kernels of {kernels.shape[1]}×{kernels.shape[2]} taps, each on its own signed scale"
    described = f"{title}: {what}" if title else what
    return Picture(figure, f"{described}; mean radius from {min(radii):.1f} to {max(radii):.1f} steps.")
