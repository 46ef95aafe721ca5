"""What all explorers share: controls that the keyboard reaches, a picture, and its numbers in a sentence.

An explorer is shown by naming it at the end of a cell. Where a kernel runs it is widgets; where none does (a stored
notebook on a site) the picture of its first state stands there, with its sentence.
"""

import base64
import html
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    import ipywidgets


class Explorer(ABC):
    """Controls above, picture below, and the sentence under it, which a screen reader reads out when it changes.

    Keyboard: Tab goes from control to control, Space presses a button, the arrow keys move a slider.

    A subclass makes its controls, passes them to `_assemble`, and returns picture and sentence in `_draw`.
    """

    widget: "ipywidgets.VBox"
    """All of it, to be put into other widgets."""
    text: str
    """What the picture now shows, in a sentence with its numbers."""

    def _assemble(self, controls: Sequence["ipywidgets.Widget"], extra: Sequence["ipywidgets.Widget"] = ()) -> None:
        """Put controls, picture and sentence together, draw once, and draw again whenever one of `controls` changes.

        `extra` stands among the controls without causing a drawing (buttons with callbacks of their own, labels).
        """
        import ipywidgets

        self._picture = ipywidgets.HTML()
        self._sentence = ipywidgets.HTML()
        self._picture.add_class("c2f-picture")
        self._sentence.add_class("c2f-sentence")
        self._holding = 0
        bar = ipywidgets.Box([*controls, *extra], layout={"flex_flow": "row wrap", "align_items": "center"})
        self.widget = ipywidgets.VBox([bar, self._picture, self._sentence])
        for control in controls:
            control.observe(self._changed, names="value")
        self.update()

    @abstractmethod
    def _draw(self) -> tuple[str, ...]:
        """The picture, in one <svg> or several, and last the sentence, for the controls' present values."""

    def _fit(self, change: Any) -> None:  # noqa: B027 (most explorers have none)
        """Give controls that depend on the changed one the range that they have now."""

    def update(self) -> None:
        """Draw the present state."""
        *self._drawings, self.text = self._draw()
        self._picture.value = "<br>".join(self._drawings)
        # Not smaller than the notebook's own text: some readers have it in place of the picture.
        self._sentence.value = f'<p aria-live="polite">In words: {html.escape(self.text)}</p>'

    def _changed(self, change: Any) -> None:
        if not self._holding:
            with self._together():
                self._fit(change)

    @contextmanager
    def _together(self) -> Iterator[None]:
        """`with self._together():` several controls may be set, and the picture is drawn once afterwards."""
        self._holding += 1
        try:
            yield
        finally:
            self._holding -= 1
        if not self._holding:
            self.update()

    def _ipython_display_(self) -> None:
        from IPython.display import display

        # As an <img>: an <svg> in HTML is removed from notebooks that are not trusted.
        addresses = [base64.b64encode(drawing.encode()).decode() for drawing in self._drawings]
        alt = html.escape(self.text)
        images = "<br>".join(f'<img src="data:image/svg+xml;base64,{each}" alt="{alt}">' for each in addresses)
        bundle = {"text/plain": self.text, "text/html": f"{images}<p>In words: {alt}</p>"}
        view = self.widget._repr_mimebundle_()
        bundle.update({kind: content for kind, content in view.items() if "widget" in kind})
        display(bundle, raw=True)

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self.text}"


def choice(options: Sequence[Any], description: str, value: Any = None) -> "ipywidgets.Widget":
    """A control to choose one of few: buttons; or of more than six: a slider. `options` as ipywidgets takes them.

    Not a drop-down list and not radio buttons: in JupyterLab the arrow keys that these need go from cell to cell.
    """
    import ipywidgets

    given = {"options": options, "description": description} | ({} if value is None else {"value": value})
    if len(options) > 6:
        return ipywidgets.SelectionSlider(**given, layout={"width": "420px"}, style={"description_width": "70px"})
    style = {"button_width": "auto", "description_width": "70px"}
    return ipywidgets.ToggleButtons(**given, style=style, layout={"margin": "2px 16px 2px 2px"})


def numbered(names: Sequence[str]) -> list[tuple[str, int]]:
    """The options of a control that shows names and has their places as values."""
    return [(name, i) for i, name in enumerate(names)]


def slider(description: str, value: int, low: int, high: int, step: int = 1) -> "ipywidgets.IntSlider":
    import ipywidgets

    style = {"description_width": "80px"}
    return ipywidgets.IntSlider(value, low, high, step, description=description, layout={"width": "330px"}, style=style)


def offer(control: "ipywidgets.Widget", options: Sequence[Any], value: Any) -> None:
    """Let a control choose among `options` from now on, set to `value`, unless it does already."""
    if list(control.options) != list(options):
        control.options, control.value = options, value


def check_images(images: Tensor, names: Sequence[str] | None = None) -> None:
    """Raises ValueError unless the images are (N, 3, H, W) with N of at least 1, and the names, if any, are N."""
    if images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise ValueError(f"the images have shape {tuple(images.shape)}; give at least one, as (N, 3, H, W).")
    if names is not None and len(names) != len(images):
        raise ValueError(f"there are {len(images)} images and {len(names)} names; give one each.")
