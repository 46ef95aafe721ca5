"""Pictures that are drawn anew at every key press: arrays as pixels of one SVG, in a few milliseconds.

Matplotlib needs a third of a second for eight maps. Here an array becomes a tiny PNG, one pixel per value, which the
browser enlarges without smoothing; titles, outlines and the colour scale are SVG around it (templates/panels.svg).
"""

import base64
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from c2f.picture import INK, SIGNED, WINDOW

if TYPE_CHECKING:
    from jinja2 import Template

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
    boxes: Sequence[Box] = ()
    colours: str = SIGNED
    """A Matplotlib colour map. A signed one runs from -limit to limit, any other from 0 to limit."""
    sign: str = ""
    """What stands before the panel, such as ⊙ or =."""

    @property
    def limits(self) -> tuple[float, float]:
        """The ends of the colour scale."""
        largest = self.values.abs().max().item()
        high = self.limit or (largest if largest and math.isfinite(largest) else 1.0)
        return (-high if self.colours == SIGNED else 0.0), high

    def png(self) -> str:
        """The values as pixels: the address of a PNG file."""
        values = self.values.detach().cpu()
        if values.dtype == torch.uint8:
            return png_address(values.permute(1, 2, 0).numpy())
        low, high = self.limits if values.ndim == 2 else (0.0, 1.0)
        share = (np.nan_to_num(values.float().numpy()) - low) / (high - low)
        shades = (share.clip(0, 1) * 255).round().astype(np.uint8)
        return png_address(shades.transpose(1, 2, 0) if values.ndim == 3 else _colour_table(self.colours)[shades])

    def scale_png(self) -> str:
        """The colour scale as one row of pixels: the address of a PNG file."""
        return png_address(_colour_table(self.colours)[None])


def draw(rows: Sequence[Sequence[Panel]], alt: str, lead: Panel | None = None) -> str:
    """Rows of panels as one <svg> with its text alternative; `lead` is one large panel at the left of all rows."""
    each, placed, left = TITLE + SIDE + BAR, [], 0
    if lead is not None:
        side = len(rows) * each - TITLE - BAR
        left, placed = side + 2 * GAP, [(lead, GAP, TITLE, side)]
    for i, row in enumerate(rows):
        placed += [(panel, left + GAP + j * (SIDE + GAP), TITLE + i * each, SIDE) for j, panel in enumerate(row)]
    inside = _template().render(placed=placed, gap=GAP, short=lambda value: f"{value:.2g}".replace("-", "−"))
    return svg(left + max(map(len, rows)) * (SIDE + GAP) + GAP, len(rows) * each + 4, inside, alt)


def svg(width: float, height: float, inside: str, alt: str) -> str:
    """An <svg> of so many pixels, or as wide as there is room, with its text alternative."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{html.escape(alt)}" width="{width}" '
        f'height="{height}" viewBox="0 0 {width} {height}" style="max-width: 100%; height: auto; background: white" '
        f'font-family="sans-serif" font-size="12" fill="{INK}">{inside}</svg>'
    )


def png_address(pixels: np.ndarray) -> str:
    """(H, W, 3) uint8 as a PNG file that an <image> may refer to."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


@cache
def _template() -> "Template":
    from jinja2 import Environment, PackageLoader

    pages = Environment(loader=PackageLoader("c2f_course.widgets"), autoescape=True, trim_blocks=True)
    return pages.get_template("panels.svg")


@cache
def _colour_table(colours: str) -> np.ndarray:
    """A colour map as 256 colours (256, 3) uint8."""
    from matplotlib import colormaps

    return (colormaps[colours](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)
