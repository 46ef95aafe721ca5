"""Pictures that are drawn anew at every key press: arrays as pixels of one SVG, in a few milliseconds.

Matplotlib needs a third of a second for eight maps. Here an array becomes a tiny PNG, one pixel a value, which the
browser enlarges without smoothing; titles, outlines and the colour scale are SVG around it.
"""

import base64
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from c2f.maps.picture import INK, SIGNED, WINDOW

SIDE, GAP, TITLE, BAR = 150, 26, 34, 26  # pixels: a panel's side, between panels, above and below one


class Box(NamedTuple):
    """An outline around so many values of a panel; it is cut off at the panel's edge."""

    top: float
    left: float
    height: float
    width: float
    colour: str = WINDOW


@dataclass(frozen=True)
class Panel:
    """One array with a title of one or two lines, outlines, and below it its scale."""

    title: str
    values: Tensor
    """(H, W) numbers, or an image (3, H, W) of uint8 or floats from 0 to 1."""
    limit: float | None = None
    """The end of the colour scale of numbers, symmetrical about zero; None takes the largest size."""
    boxes: Sequence[Box] = field(default=())
    colours: str = SIGNED
    """A Matplotlib colour map. A signed one runs from -limit to limit, any other from 0 to limit."""
    sign: str = ""
    """What stands before the panel, such as ⊙ or =."""


def draw(rows: Sequence[Sequence[Panel]], alt: str, lead: Panel | None = None) -> str:
    """Rows of panels as one <svg> with its text alternative; `lead` is one large panel at the left of all rows."""
    columns, each = max(map(len, rows)), TITLE + SIDE + BAR
    left, inside = 0, ""
    if lead is not None:
        side = len(rows) * each - TITLE - BAR
        left, inside = side + 2 * GAP, _draw_panel(lead, GAP, TITLE, side)
    for i, row in enumerate(rows):
        inside += "".join(
            _draw_panel(panel, left + GAP + j * (SIDE + GAP), TITLE + i * each) for j, panel in enumerate(row)
        )
    return svg(left + columns * (SIDE + GAP) + GAP, len(rows) * each + 4, inside, alt)


def svg(width: float, height: float, inside: str, alt: str) -> str:
    """An <svg> of so many pixels, or as wide as there is room, with its text alternative."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{html.escape(alt)}" width="{width}" '
        f'height="{height}" viewBox="0 0 {width} {height}" style="max-width: 100%; height: auto; background: white" '
        f'font-family="sans-serif" font-size="12" fill="{INK}">{inside}</svg>'
    )


def address(png: bytes) -> str:
    """A PNG file as what an <image> refers to."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _draw_panel(panel: Panel, x: float, y: float, side: float = SIDE) -> str:
    rows, columns = panel.values.shape[-2:]
    scale = side / max(rows, columns)
    width, height = columns * scale, rows * scale
    frame = f'x="{x}" y="{y}" width="{width:.1f}" height="{height:.1f}"'
    low, high = _limits(panel)
    lines = panel.title.split("\n")
    top = y - 6 - 14 * (len(lines) - 1)
    parts = [
        f'<text x="{x + width / 2:.1f}" y="{top + 14 * i}" text-anchor="middle">{html.escape(line)}</text>'
        for i, line in enumerate(lines)
    ]
    if panel.sign:
        middle = f'x="{x - GAP / 2}" y="{y + height / 2 + 6:.1f}"'
        parts.append(f'<text {middle} text-anchor="middle" font-size="18">{html.escape(panel.sign)}</text>')
    parts.append(
        f'<image {frame} preserveAspectRatio="none" style="image-rendering: pixelated" '
        f'href="{address(_png(_pixels(panel, low, high)))}"/><rect {frame} fill="none" stroke="#BBBBBB"/>'
    )
    for box in panel.boxes:
        top, left = max(box.top, 0), max(box.left, 0)
        bottom, right = min(box.top + box.height, rows), min(box.left + box.width, columns)
        parts.append(
            f'<rect x="{x + left * scale:.1f}" y="{y + top * scale:.1f}" width="{(right - left) * scale:.1f}" '
            f'height="{(bottom - top) * scale:.1f}" fill="none" stroke="{box.colour}" stroke-width="2"/>'
        )
    if panel.values.ndim == 2:  # its scale
        y += height + 4
        parts.append(
            f'<image x="{x}" y="{y:.1f}" width="{width:.1f}" height="6" preserveAspectRatio="none" '
            f'href="{address(_png(_table(panel.colours)[None]))}"/><g font-size="10">'
            f'<text x="{x}" y="{y + 16:.1f}">{_short(low)}</text>'
            f'<text x="{x + width:.1f}" y="{y + 16:.1f}" text-anchor="end">{_short(high)}</text></g>'
        )
    return "".join(parts)


def _limits(panel: Panel) -> tuple[float, float]:
    """The ends of the colour scale."""
    largest = panel.values.abs().max().item() if panel.values.ndim == 2 else 1.0
    high = panel.limit or (largest if largest and math.isfinite(largest) else 1.0)
    return (-high if panel.colours == SIGNED else 0.0), high


def _pixels(panel: Panel, low: float, high: float) -> np.ndarray:
    values = panel.values.detach().cpu()
    if values.dtype == torch.uint8:
        return values.permute(1, 2, 0).numpy()
    share = np.nan_to_num(values.float().numpy())
    share = share if values.ndim == 3 else (share - low) / (high - low)
    shades = (share.clip(0, 1) * 255).round().astype(np.uint8)
    return shades.transpose(1, 2, 0) if values.ndim == 3 else _table(panel.colours)[shades]


@cache
def _table(colours: str) -> np.ndarray:
    """A colour map as 256 colours (256, 3) uint8."""
    from matplotlib import colormaps

    return (colormaps[colours](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)


def _png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _short(value: float) -> str:
    return f"{value:.2g}".replace("-", "−")
