"""A figure together with the sentence that says what it shows.

Whoever cannot see a figure should get its numbers all the same. A notebook shows the figure with the sentence as its
alternative text, and the sentence again below it. The figure is there twice: as HTML, because JupyterLab and nbconvert
keep the alternative text only of an <img>; and as PNG, for what cannot show HTML, such as a PDF, and for sites that
show notebooks without running them (docs/store_notebooks.py stores the PNG alone).
"""

import base64
import html
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 100  # on the page; the file has twice as many, for sharp screens
SEEN = 0.3  # mean difference of the 256 shades of a colour above which photographs begin to look poorer


@dataclass(frozen=True, eq=False)
class Picture:
    """A Matplotlib figure and its text alternative: what it shows in a sentence, with its numbers."""

    figure: "Figure"
    alt: str

    def __repr__(self) -> str:
        return f"Picture({self.alt!r})"

    def __str__(self) -> str:
        return self.alt

    def png(self) -> bytes:
        """The figure as the bytes of a PNG file."""
        file = io.BytesIO()
        self.figure.savefig(file, format="png", dpi=2 * DOTS_PER_INCH)
        return smaller_png(file.getvalue())

    def save(self, path: Path | str) -> None:
        """Write the figure; the ending of the name (.png, .svg, .pdf) says in which format."""
        self.figure.savefig(path, dpi=2 * DOTS_PER_INCH)

    def html(self) -> str:
        """An <img> with the figure inside and its alternative text: for a page, or a widget that shows HTML."""
        return self._image(base64.b64encode(self.png()).decode())

    def show(self, updating: "Display | None" = None) -> "Display":
        """Show figure and sentence in a notebook, or replace what `updating` (an earlier `show`) stands for."""
        from IPython.display import display

        png = base64.b64encode(self.png()).decode()
        figure = {"text/html": self._image(png), "image/png": png, "text/plain": self.alt}
        metadata = {"image/png": {"width": self._width(), "alt": self.alt}}
        sentence = {"text/html": f"<small>In words: {html.escape(self.alt)}</small>", "text/plain": self.alt}
        if updating is None:
            return [
                display(figure, metadata=metadata, raw=True, display_id=True),
                display(sentence, raw=True, display_id=True),
            ]
        updating[0].update(figure, metadata=metadata, raw=True)
        updating[1].update(sentence, raw=True)
        return updating

    def _ipython_display_(self) -> None:
        self.show()

    def _image(self, png: str) -> str:
        return f'<img src="data:image/png;base64,{png}" width="{self._width()}" alt="{html.escape(self.alt)}">'

    def _width(self) -> int:
        return round(self.figure.get_figwidth() * DOTS_PER_INCH)


def smaller_png(png: bytes) -> bytes:
    """The same picture in fewer bytes: with 256 colours where nobody would see it, which most figures can do with."""
    import numpy as np
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")
    few = image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    difference = np.abs(np.asarray(image, dtype=np.int16) - np.asarray(few.convert("RGB"), dtype=np.int16))
    file = io.BytesIO()
    (few if difference.mean() < SEEN else image).save(file, "PNG", optimize=True)
    return file.getvalue()


Display = list[Any]
"""Where a picture stands in a notebook: two handles of IPython, for the figure and for its sentence."""
