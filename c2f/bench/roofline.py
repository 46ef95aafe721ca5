"""The roofline: what the machine can do at most, and how near the depthwise convolution comes to it.

Williams, Waterman, Patterson 2009, doi.org/10.1145/1498765.1498785. A computation that does few operations a byte is
held back by the memory, one that does many by the arithmetic: the roof is the lower of the two.
"""

import statistics
from typing import Any

import numpy as np

from c2f.picture import AMBER, SKY, TEST, TRAIN, Picture, new_figure, tidy

WAYS = {
    ("conv2d", "contiguous_format"): ("F.conv2d, NCHW", TEST, "o"),
    ("conv2d", "channels_last"): ("F.conv2d, channels_last", AMBER, "s"),
    ("c2f", "contiguous_format"): ("c2f, NCHW", TRAIN, "o"),
    ("c2f", "channels_last"): ("c2f, channels_last", SKY, "s"),
}


def roofline(bench: dict[str, Any]) -> Picture:
    """Draw what `c2f bench depthwise` wrote."""
    precision = bench["conditions"]["precision"]
    arithmetic, memory = bench["limits"]["bfloat16" if precision == "bf16" else "float32"], bench["limits"]["copy"]
    figure = new_figure(8, 5)
    ax = figure.subplots()
    intensity = np.geomspace(1, 400, 100)
    ax.plot(intensity, np.minimum(arithmetic, memory * intensity) / 1e9, color="0.2", linewidth=2)
    ax.text(92, arithmetic / 1e9 * 1.08, f"matrix product: {arithmetic / 1e9:,.0f} GFLOP/s", ha="right", color="0.2")
    ax.text(1.6, memory / 1e9 * 1.05, f"copy: {memory / 1e9:,.0f} GB/s", color="0.2")
    said = []
    for way, (label, colour, marker) in WAYS.items():
        records = [r for r in bench["records"] if (r["what"], r["layout"]) == way]
        x = [r["operations"] / r["bytes"] for r in records]
        y = [r["operations"] / statistics.median(r["seconds"]) / 1e9 for r in records]
        ax.plot(x, y, marker, color=colour, label=label, markersize=8, markeredgecolor="white")
        speeds = (f"{r['side']}×{r['side']} {speed:.3g}" for r, speed in zip(records, y, strict=True))
        said.append(f"{label}: {', '.join(speeds)}")
    for r, position in zip(records, x, strict=True):  # the maps are the same in each way
        ax.axvline(position, color="0.85", linewidth=0.8, zorder=0)
        ax.annotate(
            f"{r['channels']}×{r['side']}×{r['side']}", (position, 1), (0, 3), xycoords=("data", "axes fraction"),
            textcoords="offset points", rotation=30, fontsize=9, color="0.35",
        )  # fmt: skip
    ax.set(xscale="log", yscale="log", xlim=(1, 100), xlabel="operations a byte that must move", ylabel="GFLOP/s")
    ax.set_title("Depthwise convolution 11×11, forward and backward: under the machine's roof", pad=48)
    ax.legend(loc="lower right", frameon=False)
    tidy(ax, grid="")
    return Picture(
        figure,
        f"A roofline of {bench['hardware']['name']} in {precision}: {arithmetic / 1e9:,.0f} GFLOP/s and "
        f"{memory / 1e9:,.0f} GB/s. GFLOP/s of the depthwise convolution: {'; '.join(said)}",
    )
