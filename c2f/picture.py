"""A figure together with the sentence that says what it shows, for readers who cannot see it.

A notebook shows the figure with the sentence as its alternative text, which screen readers read out. The figure is
output twice: as HTML, because JupyterLab and nbconvert keep the alternative text only of an <img>; and as PNG, for
formats without HTML and for sites that show notebooks without running them (docs/store_notebooks.py stores it alone).
"""

import base64
import html
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 100  # on the page; the file has twice as many, for sharp screens
VISIBLE = 0.3  # mean difference, of the 256 shades of a colour, above which photographs begin to look poorer


@dataclass(frozen=True, eq=False)
class Picture:
    """A Matplotlib figure and its text alternative: what it shows in a sentence, with its numbers."""

    figure: "Figure" = field(repr=False)
    alt: str

    def png(self) -> bytes:
        """The figure as the bytes of a PNG file: with 256 colours, unless the difference would be visible."""
        from PIL import Image

        file, smaller = io.BytesIO(), io.BytesIO()
        self.figure.savefig(file, format="png", dpi=2 * DOTS_PER_INCH)
        image = Image.open(file).convert("RGB")
        few = image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        difference = np.abs(np.asarray(image, dtype=np.int16) - np.asarray(few.convert("RGB"), dtype=np.int16))
        (few if difference.mean() < VISIBLE else image).save(smaller, "PNG", optimize=True)
        return smaller.getvalue()

    def save(self, path: Path | str) -> None:
        """Write the figure as .png, .svg or .pdf. PNG and SVG keep the sentence too, as the file's description."""
        described = {"Description": self.alt} if Path(path).suffix in (".png", ".svg") else None
        self.figure.savefig(path, dpi=2 * DOTS_PER_INCH, metadata=described)

    def html(self) -> str:
        """An <img> with the figure inside and its alternative text: for a page, or a widget that shows HTML."""
        return self._bundle()["text/html"]

    def show(self, updating: "Display | None" = None) -> "Display":
        """Show the figure in a notebook, or replace that of `updating`, which an earlier `show` returned."""
        from IPython.display import display

        metadata = {"image/png": {"width": self._width(), "alt": self.alt}}
        if updating is None:
            return display(self._bundle(), raw=True, display_id=True, metadata=metadata)
        updating.update(self._bundle(), raw=True, metadata=metadata)
        return updating

    def _ipython_display_(self) -> None:
        self.show()

    def _bundle(self) -> dict[str, str]:
        """The figure in the formats that a notebook chooses from."""
        png = base64.b64encode(self.png()).decode()
        img = f'<img src="data:image/png;base64,{png}" width="{self._width()}" alt="{html.escape(self.alt)}">'
        return {"text/html": img, "image/png": png, "text/plain": self.alt}

    def _width(self) -> int:
        return round(self.figure.get_figwidth() * DOTS_PER_INCH)


Display = Any
"""IPython's handle, with which a notebook's output is replaced."""


# ---- What all figures share: the palette, the axes, how a number is written

TRAIN, TEST, SOFT = "#0072B2", "#D55E00", "#6B6B6B"  # Okabe and Ito's blue and vermilion, and a grey
WINDOW = "#009E73"  # their bluish green: seen on black, white, orange and purple
PURPLE, SKY, AMBER = "#CC79A7", "#56B4E9", "#E69F00"  # three more of theirs
INK, HERE = "#222222", "#FFE9A8"  # lines and text of a drawing; the ground of what it is about
SIGNED = "PuOr_r"  # purple below zero, white, orange above
COUNTS = "Blues"


def new_figure(width: float, height: float) -> "Figure":
    """A figure of so many inches that belongs to no window and no notebook."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def tidy(*axes: "Axes", grid: str = "both") -> None:
    """No frame above and at the right, and a light grid along "x", "y" or "both" ("" for none)."""
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        if grid:
            ax.grid(alpha=0.25, axis=grid)
            ax.set_axisbelow(True)


def outline(
    ax: "Axes", top: float, left: float, height: float, width: float, colour: str, linewidth: float = 2, **style: object
) -> None:
    """A box around so many values of an image, whose first one is centred on (0, 0)."""
    from matplotlib.patches import Rectangle

    corner = (left - 0.5, top - 0.5)
    ax.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=linewidth, **style))


def as_pixels(image: Tensor) -> np.ndarray:
    """An image (3, H, W) as `imshow` wants it: (H, W, 3), uint8 or 0 to 1."""
    array = image.detach().permute(1, 2, 0).cpu().numpy()
    return array if array.dtype == np.uint8 else array.clip(0, 1)


def symmetric_limit(values: Tensor) -> float:
    """The colour scale's end: the largest size, or 1 for nothing but zeros, which are white on any scale."""
    return values.abs().max().item() or 1.0


def number(value: float | Tensor, digits: int = 2) -> str:
    """So many digits behind the point, with a proper minus, and never −0.00."""
    text = f"{float(value):.{digits}f}"
    return (text.removeprefix("-") if float(text) == 0 else text).replace("-", "−")
