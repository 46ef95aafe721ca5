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


def draw(panels: Sequence[Sequence[Panel]], alt: str) -> str:
    """Rows of panels as one <svg> with its text alternative."""
    columns = max(map(len, panels))
    width, height = columns * (SIDE + GAP) + GAP, len(panels) * (TITLE + SIDE + BAR) + 4
    inside = "".join(
        _draw_panel(panel, GAP + column * (SIDE + GAP), TITLE + row * (TITLE + SIDE + BAR))
        for row, line in enumerate(panels)
        for column, panel in enumerate(line)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{html.escape(alt)}" width="{width}" '
        f'height="{height}" viewBox="0 0 {width} {height}" style="max-width: 100%; height: auto; background: white" '
        f'font-family="sans-serif" font-size="12" fill="{INK}">{inside}</svg>'
    )


def _draw_panel(panel: Panel, x: float, y: float) -> str:
    rows, columns = panel.values.shape[-2:]
    scale = SIDE / max(rows, columns)
    width, height = columns * scale, rows * scale
    limit = panel.limit or _limit(panel.values)
    parts = [
        f'<text x="{x + width / 2:.1f}" y="{y - 6 - 14 * (1 - line)}" text-anchor="middle">{html.escape(text)}</text>'
        for line, text in enumerate(_two_lines(panel.title))
    ]
    if panel.sign:
        middle = f'x="{x - GAP / 2}" y="{y + height / 2 + 6:.1f}"'
        parts.append(f'<text {middle} text-anchor="middle" font-size="18">{html.escape(panel.sign)}</text>')
    parts.append(
        f'<image x="{x}" y="{y}" width="{width:.1f}" height="{height:.1f}" preserveAspectRatio="none" '
        f'style="image-rendering: pixelated" href="{_pixels(panel, limit)}"/>'
        f'<rect x="{x}" y="{y}" width="{width:.1f}" height="{height:.1f}" fill="none" stroke="#BBBBBB"/>'
    )
    for box in panel.boxes:
        top, left = max(box.top, 0), max(box.left, 0)
        bottom, right = min(box.top + box.height, rows), min(box.left + box.width, columns)
        parts.append(
            f'<rect x="{x + left * scale:.1f}" y="{y + top * scale:.1f}" width="{(right - left) * scale:.1f}" '
            f'height="{(bottom - top) * scale:.1f}" fill="none" stroke="{box.colour}" stroke-width="2"/>'
        )
    if panel.values.ndim == 2:
        parts.append(_draw_bar(panel, limit, x, y + height + 4, width))
    return "".join(parts)


def _draw_bar(panel: Panel, limit: float, x: float, y: float, width: float) -> str:
    low = -limit if _is_signed(panel.colours) else 0.0
    ends = f"{_short(low)}", f"{_short(limit)}"
    return (
        f'<image x="{x}" y="{y:.1f}" width="{width:.1f}" height="6" preserveAspectRatio="none" '
        f'href="{_bar(panel.colours)}"/><g font-size="10"><text x="{x}" y="{y + 16:.1f}">{ends[0]}</text>'
        f'<text x="{x + width:.1f}" y="{y + 16:.1f}" text-anchor="end">{ends[1]}</text></g>'
    )


def _pixels(panel: Panel, limit: float) -> str:
    values = panel.values.detach().cpu()
    if values.ndim == 3:
        array = values.permute(1, 2, 0).numpy()
        array = array if array.dtype == np.uint8 else (array.clip(0, 1) * 255).round().astype(np.uint8)
    else:
        share = np.nan_to_num(values.float().numpy()) / limit
        share = (share + 1) / 2 if _is_signed(panel.colours) else share
        array = _table(panel.colours)[(share.clip(0, 1) * 255).round().astype(np.uint8)]
    return _png(array)


@cache
def _bar(colours: str) -> str:
    return _png(_table(colours)[None])


@cache
def _table(colours: str) -> np.ndarray:
    """A colour map as 256 colours (256, 3) uint8."""
    from matplotlib import colormaps

    return (colormaps[colours](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)


def _png(array: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _is_signed(colours: str) -> bool:
    return colours == SIGNED


def _limit(values: Tensor) -> float:
    largest = values.abs().max().item() if values.ndim == 2 else 1.0
    return largest if largest and math.isfinite(largest) else 1.0


def _short(value: float) -> str:
    return "0" if value == 0 else f"{value:.2g}".replace("-", "−")


def _two_lines(title: str) -> list[str]:
    first, _, second = title.partition("\n")
    return [first, second] if second else ["", first]
