"""The pictures of notebook 06: kernels, what they do to a map, and how much of a receptive field lies where."""

from collections.abc import Mapping

import torch
from torch import Tensor

from c2f.maps.receptive_field import ReceptiveField, describe, energy_by_radius, mean_radius, rings
from c2f.picture import COUNTS, SIGNED, SOFT, TEST, TRAIN, WINDOW, Picture
from c2f_course.figures.drawing import finish, subplots, told

COLOURS = (SOFT, TEST, TRAIN)  # of up to three things compared, the first one in grey


def plot_energy(
    places: Mapping[str, Mapping[str, Tensor]], title: str = "How far from its centre a kernel's energy lies"
) -> Picture:
    """The mean share of energy in each ring as bars, a panel per place; dots: what noise would have, all taps alike.

    `places`: by the panel's title, such as "stage 0": up to three sets of kernels (C, k, k) by their name.
    """
    figure, axes = subplots(3.2 * len(places), 3.2, 1, len(places), title, sharey=True)
    said = {}
    for ax, (place, sets) in zip(axes, places.items(), strict=True):
        width = 0.8 / len(sets)
        for i, ((name, kernels), colour) in enumerate(zip(sets.items(), COLOURS, strict=False)):
            shares = energy_by_radius(kernels).mean(dim=0)
            centres = torch.arange(len(shares)) + (i - (len(sets) - 1) / 2) * width
            ax.bar(centres.numpy(), shares.numpy(), width, color=colour, label=name)
            said[f"{place}, {name}"] = ", ".join(f"{100 * share:.0f}" for share in shares.tolist())
        noise = torch.bincount(rings(kernels.shape[-1]).flatten()) / kernels[0].numel()
        ax.plot(noise.numpy(), "o", color="black", markersize=5, label="noise: all taps alike")
        legend = "best" if ax is axes[0] else ""
        finish(ax, place, "ring: steps from the centre", "", legend, grid="", xticks=range(len(noise)))
    axes[0].set(ylabel="mean share of the energy", ylim=(0, 1))
    return Picture(figure, f"{title}, in per cent from the centre outwards. {told(said)}.")


def plot_sorted_energy(places: Mapping[str, Tensor], title: str) -> Picture:
    """Every kernel as a line of its rings, the most centred at the top: a panel for each place's kernels (C, k, k)."""
    figure, axes = subplots(2.4 * len(places) + 0.8, 4.2, 1, len(places), title)
    said = {}
    largest = max(energy_by_radius(kernels).max().item() for kernels in places.values())
    for ax, (place, kernels) in zip(axes, places.items(), strict=True):
        radii, shares = mean_radius(kernels), energy_by_radius(kernels)
        style = {"cmap": COUNTS, "vmin": 0, "vmax": largest, "aspect": "auto", "interpolation": "nearest"}
        drawn = ax.imshow(shares[radii.argsort()].numpy(), **style)
        ax.set(title=f"{place}\n{len(kernels)} kernels", xlabel="ring", xticks=range(shares.shape[1]))
        ax.set_yticks([0, len(kernels) - 1], ["centred", "wide"] if ax is axes[0] else ["", ""])
        said[place] = f"mean radius from {radii.min():.1f} to {radii.max():.1f}, median {radii.median():.1f}"
    axes[0].set_ylabel("kernels, sorted by mean radius", labelpad=-12)
    figure.colorbar(drawn, ax=axes, label="share of the kernel's energy", shrink=0.8)
    return Picture(figure, f"{title}. {told(said)} steps.")


def plot_signs(maps: Mapping[str, Mapping[str, Tensor]], title: str, limit: float = 10.0) -> Picture:
    """How the values of modulation maps lie around zero: a histogram per panel, with the share below zero.

    `maps`: by the panel's title, up to three sets of values of any shape by their name. What is beyond ±`limit` is left
    out of the picture, not of the shares.
    """
    figure, axes = subplots(3.2 * len(maps), 3.0, 1, len(maps), title)
    said = {}
    for ax, (panel, sets) in zip(axes, maps.items(), strict=True):
        for (name, values), colour in zip(sets.items(), COLOURS, strict=False):
            below = (values < 0).float().mean().item()
            counts, edges = torch.histogram(values.detach().float().flatten().cpu(), 80, range=(-limit, limit))
            label = f"{name}: {below:.0%} below 0"
            ax.stairs((counts / counts.max()).numpy(), edges.numpy(), color=colour, linewidth=1.6, label=label)
            said[f"{panel}, {name}"] = f"{below:.0%} below zero, from {values.min():.1f} to {values.max():.1f}"
        ax.axvline(0, ymax=0.72, color="black", linewidth=0.8)
        legend = {"fontsize": 8, "loc": "upper left"}
        finish(ax, panel, "A", "", legend, grid="", yticks=[], xlim=(-limit, limit), ylim=(0, 1.4175))
        ax.spines["left"].set_visible(False)
    axes[0].set_ylabel("frequency (scaled to 1)")
    return Picture(figure, f"{title}. {told(said)}.".replace("-", "−"))


def plot_products(pairs: Mapping[str, tuple[Tensor, Tensor]], title: str) -> Picture:
    """(A, V) of a channel, a dot per position and a panel per channel; in its title the share of |A ⊙ V| above zero."""
    figure, axes = subplots(3.2 * len(pairs), 3.4, 1, len(pairs), title)
    said = {}
    for ax, (name, (a, v)) in zip(axes, pairs.items(), strict=True):
        product = (a * v).flatten()
        above = product.clamp(min=0).sum() / product.abs().sum()
        style = {"c": product.sign().numpy(), "cmap": SIGNED, "vmin": -1.4, "vmax": 1.4}  # as in maps of signed values
        ax.scatter(a.flatten().numpy(), v.flatten().numpy(), s=5, alpha=0.5, linewidths=0, **style)
        ax.axhline(0, color="black", linewidth=0.8)
        ax.axvline(0, color="black", linewidth=0.8)
        finish(ax, f"{name}\nabove 0: {above:.0%} of |A ⊙ V|", "A", "V" if ax is axes[0] else "", grid="")
        said[name] = f"{above:.0%} of the size of A ⊙ V is above zero"
    return Picture(figure, f"{title}. {told(said)}.")


def plot_inside(curves: Mapping[str, ReceptiveField], title: str) -> Picture:
    """The share of an effective receptive field that lies within a radius, over the radius: a curve each.

    Of every three in turn the lines are solid, then dashed, then dotted, in the same three colours.
    """
    figure, ax = subplots(7.5, 3.6)
    styles = [(colour, line) for line in ("-", "--", ":") for colour in (TRAIN, TEST, WINDOW)]
    for (name, field), (colour, line) in zip(curves.items(), styles, strict=False):
        radii, shares = field.shares()
        ax.plot([0, *radii.tolist()], [0, *shares.tolist()], line, color=colour, label=name)
    for share in (0.5, 0.9):
        ax.axhline(share, color=SOFT, linewidth=0.8, linestyle=(0, (2, 4)))
    label, legend = "radius in pixels (half the side of a square)", {"loc": "lower right", "fontsize": 10}
    finish(ax, title, label, "share inside", legend, ylim=(0, 1.02), xlim=(0, None))
    return Picture(figure, describe(curves, title))
