"""The roofline: what the machine can do at most, and how near the depthwise convolution comes to it.

Williams, Waterman, Patterson 2009, doi.org/10.1145/1498765.1498785. A computation that does few operations a byte is
held back by the memory, one that does many by the arithmetic: the roof is the lower of the two.
"""

import statistics
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from c2f.report import COLOURS

WAYS = {
    ("conv2d", "contiguous_format"): ("F.conv2d, NCHW", COLOURS[1], "o"),
    ("conv2d", "channels_last"): ("F.conv2d, channels_last", COLOURS[4], "s"),
    ("c2f", "contiguous_format"): ("c2f, NCHW", COLOURS[0], "o"),
    ("c2f", "channels_last"): ("c2f, channels_last", COLOURS[5], "s"),
}


def roofline(bench: dict[str, Any]) -> Figure:
    """Draw what `c2f bench depthwise` wrote; `figure.describe` says it in words."""
    precision = bench["conditions"]["precision"]
    arithmetic, memory = bench["limits"]["bfloat16" if precision == "bf16" else "float32"], bench["limits"]["copy"]
    figure = Figure(figsize=(8, 5), layout="constrained")
    ax = figure.subplots()
    intensity = np.geomspace(1, 400, 100)
    ax.plot(intensity, np.minimum(arithmetic, memory * intensity) / 1e9, color="0.2", linewidth=2)
    ax.text(92, arithmetic / 1e9 * 1.08, f"matrix product: {arithmetic / 1e9:,.0f} GFLOP/s", ha="right", color="0.2")
    ax.text(1.6, memory / 1e9 * 1.05, f"copy: {memory / 1e9:,.0f} GB/s", color="0.2")
    points: dict[tuple[str, str], list[tuple[float, float, str]]] = {way: [] for way in WAYS}
    for r in bench["records"]:
        speed = r["operations"] / statistics.median(r["seconds"]) / 1e9
        points[r["what"], r["layout"]].append((r["operations"] / r["bytes"], speed, f"{r['side']}×{r['side']}"))
        ax.axvline(r["operations"] / r["bytes"], color="0.85", linewidth=0.8, zorder=0)
        if r["what"] == "c2f" and r["layout"] == "channels_last":
            ax.annotate(
                f"{r['channels']}×{r['side']}×{r['side']}", (r["operations"] / r["bytes"], 1), (0, 3),
                xycoords=("data", "axes fraction"), textcoords="offset points", rotation=30, fontsize=9, color="0.35",
            )  # fmt: skip
    said = []
    for way, (label, colour, marker) in WAYS.items():
        x, y, sides = zip(*points[way], strict=True)
        ax.plot(x, y, marker, color=colour, label=label, markersize=8, markeredgecolor="white")
        said.append(f"{label}: " + ", ".join(f"{side} {speed:.3g}" for side, speed in zip(sides, y, strict=True)))
    ax.set(xscale="log", yscale="log", xlim=(1, 100), xlabel="operations a byte that must move", ylabel="GFLOP/s")
    ax.set_title("Depthwise convolution 11×11, forward and backward: under the machine's roof", pad=48)
    ax.legend(loc="lower right", frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    figure.describe = (
        f"A roofline of {bench['hardware']['name']} in {precision}: {arithmetic / 1e9:,.0f} GFLOP/s and "
        f"{memory / 1e9:,.0f} GB/s. GFLOP/s of the depthwise convolution: {'; '.join(said)}"
    )
    return figure
