"""What the depthwise kernels hold, and what they put out: energy by radius, kernels sorted by it, signs of A.

The **energy** of a kernel is the sum of its squared taps. Ring r of a k x k kernel is the taps r steps from the centre,
by row or by column, whichever is more: one tap for r = 0, then 8 r. Which share of the energy lies in which ring says
whether a kernel passes on what is at its centre (all in ring 0) or looks around.

Shapes: C channels, k x k taps, R = k // 2 + 1 rings.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from c2f.maps.picture import Picture
from c2f.maps.plots import COUNTS, SIGNED, SOFT, TEST, TRAIN
from c2f.models import Conv2Former

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (SOFT, TEST, TRAIN)  # of up to three things compared, the first one the quiet one


def kernels_of(model: Conv2Former, stage: int, block: int = 0) -> Tensor:
    """The depthwise kernels of one ConvMod, (C, k, k), detached. Raises ValueError for a block that is not there."""
    depths = model.config.depths
    if not (0 <= stage < len(depths) and 0 <= block < depths[stage]):
        raise ValueError(
            f"there is no stage {stage}, block {block}; stages 0 to {len(depths) - 1} have {depths} blocks, from 0."
        )
    return model.stages[stage].blocks[block].convmod.a[-1].weight.detach()[:, 0].cpu()


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
    """How far from its centre a kernel's energy lies on average, in steps: (C, k, k) -> (C,). Errors as above."""
    energy = energy_by_radius(kernels)
    return energy @ torch.arange(energy.shape[1], dtype=energy.dtype, device=energy.device)


def plot_kernels(kernels: Tensor, titles: Sequence[str] = (), *, columns: int = 8, title: str = "") -> Picture:
    """Kernels in a grid, each on its own scale, symmetrical about zero.

    Args:
        kernels: (C, k, k).
        titles: one a kernel, or none at all; by default the mean radius.
        columns: kernels in a row.
        title: over the whole grid.

    Raises ValueError for kernels of another shape, for none, and for titles too few or too many.
    """
    if kernels.ndim != 3 or not len(kernels):
        raise ValueError(f"the kernels have shape {tuple(kernels.shape)}; give at least one, as (C, k, k).")
    if titles and len(titles) != len(kernels):
        raise ValueError(f"there are {len(kernels)} kernels and {len(titles)} titles; give one each, or none.")
    from matplotlib.figure import Figure

    radii = mean_radius(kernels).tolist()
    titles = titles or [f"mean radius {radius:.1f}" for radius in radii]
    columns = min(columns, len(kernels))
    rows, lines = -(-len(kernels) // columns), 1 + max(text.count("\n") for text in titles)
    figure = Figure(figsize=(1.15 * columns, rows * (1.1 + 0.17 * lines) + 0.3 * bool(title)), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for ax in axes:
        ax.axis("off")
    for ax, kernel, text in zip(axes, kernels.detach().cpu(), titles, strict=False):
        limit = kernel.abs().max().item() or 1.0
        ax.imshow(kernel.numpy(), cmap=SIGNED, vmin=-limit, vmax=limit)
        ax.set_title(text, fontsize=9)
    figure.suptitle(title, fontsize=11)
    what = f"{len(kernels)} kernels of {kernels.shape[1]}×{kernels.shape[2]} taps, each on its own signed scale"
    told = f"{title}: {what}" if title else what
    return Picture(figure, f"{told}; mean radius from {min(radii):.1f} to {max(radii):.1f} steps.")


def plot_energy(
    places: Mapping[str, Mapping[str, Tensor]], title: str = "How far from its centre a kernel's energy lies"
) -> Picture:
    """The mean share of energy in each ring as bars, a panel a place; dots: what noise would have, all taps alike.

    Args:
        places: by the panel's title, such as "stage 0": up to three sets of kernels (C, k, k) by their name.
        title: over all of them.

    Raises ValueError for no place, and as `energy_by_radius`.
    """
    if not places:
        raise ValueError("there are no kernels to draw; give at least one place with its kernels.")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(3.2 * len(places), 5.0), 3.2), layout="constrained")
    axes = figure.subplots(1, len(places), sharey=True, squeeze=False)[0]
    told = []
    for ax, (place, sets) in zip(axes, places.items(), strict=True):
        width = 0.8 / len(sets)
        for i, ((name, kernels), colour) in enumerate(zip(sets.items(), COLOURS, strict=False)):
            shares = energy_by_radius(kernels).mean(dim=0)
            centres = torch.arange(len(shares)) + (i - (len(sets) - 1) / 2) * width
            ax.bar(centres.tolist(), shares.tolist(), width, color=colour, label=name)
            told.append(f"{place}, {name}: {', '.join(f'{100 * share:.0f}' for share in shares.tolist())}")
        noise = torch.bincount(rings(kernels.shape[-1]).flatten()) / kernels[0].numel()
        ax.plot(range(len(noise)), noise.tolist(), "o", color="black", markersize=5, label="noise: all taps alike")
        ax.set(title=place, xlabel="ring: steps from the centre", xticks=range(len(noise)))
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set(ylabel="mean share of the energy", ylim=(0, 1))
    axes[0].legend(frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11)
    return Picture(figure, f"{title}, in per cent from the centre outwards. {'; '.join(told)}.")


def plot_sorted_energy(places: Mapping[str, Tensor], title: str = "") -> Picture:
    """Every kernel as a line of its rings, the most centred at the top: a panel a place.

    Args:
        places: kernels (C, k, k) by the panel's title.
        title: over all of them.

    Raises ValueError for no place, and as `energy_by_radius`.
    """
    if not places:
        raise ValueError("there are no kernels to draw; give at least one place with its kernels.")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(2.4 * len(places) + 0.8, 5.0), 4.2), layout="constrained")
    axes = figure.subplots(1, len(places), squeeze=False)[0]
    told = []
    largest = max(energy_by_radius(kernels).max().item() for kernels in places.values())
    for ax, (place, kernels) in zip(axes, places.items(), strict=True):
        radii, shares = mean_radius(kernels), energy_by_radius(kernels)
        lines = shares[radii.argsort()].numpy()
        drawn = ax.imshow(lines, cmap=COUNTS, vmin=0, vmax=largest, aspect="auto", interpolation="nearest")
        ax.set(title=f"{place}\n{len(kernels)} kernels", xlabel="ring", xticks=range(shares.shape[1]))
        ax.set_yticks([0, len(kernels) - 1], ["centred", "wide"] if ax is axes[0] else ["", ""])
        told.append(f"{place}: mean radius from {radii.min():.1f} to {radii.max():.1f}, median {radii.median():.1f}")
    axes[0].set_ylabel("kernels, sorted by mean radius", labelpad=-12)
    figure.colorbar(drawn, ax=axes.tolist(), label="share of the kernel's energy", shrink=0.8)
    figure.suptitle(title, fontsize=11)
    return Picture(figure, f"{title}. {'; '.join(told)} steps.".removeprefix(". "))


def plot_signs(maps: Mapping[str, Mapping[str, Tensor]], title: str = "", limit: float = 10.0) -> Picture:
    """How the values of modulation maps spread about zero: a histogram a panel, with the share below zero.

    Args:
        maps: by the panel's title: up to three sets of values of any shape by their name.
        title: over all of them.
        limit: the axis runs from -limit to limit; what is beyond is left out of the picture, not of the shares.

    Raises ValueError for no maps.
    """
    if not maps:
        raise ValueError("there are no maps to draw; give at least one panel with its values.")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(3.2 * len(maps), 5.0), 3.0), layout="constrained")
    axes = figure.subplots(1, len(maps), squeeze=False)[0]
    told = []
    for ax, (panel, sets) in zip(axes, maps.items(), strict=True):
        for (name, values), colour in zip(sets.items(), COLOURS, strict=False):
            below = (values < 0).float().mean().item()
            _draw_histogram(ax, values, f"{name}: {below:.0%} below 0", colour, limit)
            told.append(f"{panel}, {name}: {below:.0%} below zero, from {values.min():.1f} to {values.max():.1f}")
        ax.axvline(0, ymax=0.72, color="black", linewidth=0.8)
        ax.set(title=panel, xlabel="A", yticks=[], xlim=(-limit, limit))
        ax.legend(frameon=False, fontsize=8, loc="upper left")
        ax.set_ylim(0, ax.get_ylim()[1] * 1.35)
        ax.spines[["top", "right", "left"]].set_visible(False)
    axes[0].set_ylabel("how often (each to its top)")
    figure.suptitle(title, fontsize=11)
    return Picture(figure, f"{title}. {'; '.join(told)}.".replace("-", "−").removeprefix(". "))


def plot_products(pairs: Mapping[str, tuple[Tensor, Tensor]], title: str = "") -> Picture:
    """A against V, a dot a position and a panel a channel; below the title, the share of |A ⊙ V| that is above zero.

    Args:
        pairs: (A, V) by the panel's title, two tensors of one shape.
        title: over all of them.

    Raises ValueError for no pair, and for two tensors of different shapes.
    """
    if not pairs:
        raise ValueError("there is no pair to draw; give at least one (A, V) by its name.")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(3.2 * len(pairs), 5.0), 3.4), layout="constrained")
    axes = figure.subplots(1, len(pairs), squeeze=False)[0]
    told = []
    for ax, (name, (a, v)) in zip(axes, pairs.items(), strict=True):
        if a.shape != v.shape:
            raise ValueError(f"{name}: A has shape {tuple(a.shape)} and V {tuple(v.shape)}; give them for one channel.")
        product = a * v
        above = (product.clamp(min=0).sum() / product.abs().sum()).item()
        colours = [TEST if value > 0 else TRAIN for value in product.flatten().tolist()]
        ax.scatter(a.flatten().tolist(), v.flatten().tolist(), s=5, c=colours, alpha=0.5, linewidths=0)
        ax.axhline(0, color="black", linewidth=0.8)
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set(title=f"{name}\nabove 0: {above:.0%} of |A ⊙ V|", xlabel="A", ylabel="V" if ax is axes[0] else "")
        ax.spines[["top", "right"]].set_visible(False)
        told.append(f"{name}: {above:.0%} of the size of A ⊙ V is above zero")
    figure.suptitle(title, fontsize=11)
    return Picture(figure, f"{title}. {'; '.join(told)}.".removeprefix(". "))


def _draw_histogram(ax: "Axes", values: Tensor, label: str, colour: str, limit: float) -> None:
    counts = torch.histc(values.detach().float().flatten().cpu(), bins=80, min=-limit, max=limit)
    edges = torch.linspace(-limit, limit, 81)
    ax.stairs((counts / counts.max()).tolist(), edges.tolist(), color=colour, linewidth=1.6, label=label)
