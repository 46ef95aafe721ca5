"""The pictures of notebook 06: kernels, what they do to a map, and how much of a receptive field lies where."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from c2f.maps.picture import COUNTS, SOFT, TEST, TRAIN, WINDOW, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
from c2f.maps.kernels import energy_by_radius, mean_radius, rings
from c2f.maps.receptive_field import ReceptiveField, describe

COLOURS = (SOFT, TEST, TRAIN)  # of up to three things compared, the first one the quiet one


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


def plot_inside(curves: Mapping[str, ReceptiveField], title: str = "") -> Picture:
    """The share of an effective receptive field that lies within a radius, over the radius: a curve each.

    Of every three in turn the lines are solid, then dashed, then dotted, in the same three colours.

    Raises ValueError for none.
    """
    if not curves:
        raise ValueError("there is no receptive field to draw; give at least one, by its name.")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 3.6), layout="constrained")
    ax = figure.subplots()
    styles = [(colour, line) for line in ("-", "--", ":") for colour in (TRAIN, TEST, WINDOW)]
    for (name, field), (colour, line) in zip(curves.items(), styles, strict=False):
        radii = [0.0, *(field._distances().unique() + 0.5).tolist()]
        ax.plot(radii, [field.inside(r) for r in radii], line, color=colour, label=name)
    for share in (0.5, 0.9):
        ax.axhline(share, color=SOFT, linewidth=0.8, linestyle=(0, (2, 4)))
    ax.set(title=title, xlabel="radius in pixels (half the side of a square)", ylabel="share inside", ylim=(0, 1.02))
    ax.set_xlim(0, None)
    ax.legend(frameon=False, loc="lower right")
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    return Picture(figure, describe(curves, title))
