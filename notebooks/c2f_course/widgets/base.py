"""What all explorers share: controls that the keyboard reaches, a picture, and its numbers in a sentence.

An explorer is shown by naming it at the end of a cell. Where a kernel runs it is widgets; where none does (a stored
notebook on a site) the picture of its first state stands there, with its sentence.
"""

import html
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from c2f.maps.picture import Picture

if TYPE_CHECKING:
    import ipywidgets


class Explorer(ABC):
    """Controls above, picture below, and the sentence under it, which a screen reader is told when it changes.

    Keyboard: Tab goes from control to control, Space presses a button, the arrow keys move a slider.

    A subclass makes its controls, gives them to `_assemble`, and says in `_draw` what the picture and the sentence
    are for the controls' present values. `_static` is the same as a figure for viewers without widgets.
    """

    widget: "ipywidgets.VBox"
    """All of it, to be put into other widgets."""

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
    def _draw(self) -> tuple[str, str]:
        """(HTML of the picture, its sentence) for the controls' present values."""

    @abstractmethod
    def _static(self) -> Picture:
        """The present state as a figure."""

    @property
    def text(self) -> str:
        """What the picture now shows, in a sentence with its numbers."""
        return self._text

    def update(self) -> None:
        """Draw the present state."""
        picture, self._text = self._draw()
        self._picture.value = picture
        # Not smaller than the notebook's own text: it is what some readers have in place of the picture.
        self._sentence.value = f'<p aria-live="polite">In words: {html.escape(self._text)}</p>'

    def _changed(self, _change: Any) -> None:
        if not self._holding:
            self.update()

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

        static = self._static()
        bundle = {"text/plain": self.text, "text/html": f"{static.html()}<p>In words: {html.escape(self.text)}</p>"}
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


def offer(control: "ipywidgets.Widget", options: Sequence[Any], value: Any) -> None:
    """Let a control choose among `options` from now on, set to `value`, unless it does already."""
    if list(control.options) != list(options):
        control.options, control.value = options, value
