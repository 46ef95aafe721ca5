"""What all explorers share: panels as SVG, one drawing for several changes, and a picture where no widget can be."""

import base64
import re

import pytest
import torch

from c2f_course.widgets.base import Explorer, choice
from c2f_course.widgets.panel import Box, Panel, draw

ipywidgets = pytest.importorskip("ipywidgets", reason="widgets are of the lab extra: pip install 'c2f[lab]'")


class Counting(Explorer):
    def __init__(self) -> None:
        self.drawn = 0
        self.a, self.b = ipywidgets.IntSlider(0, 0, 9), ipywidgets.IntSlider(0, 0, 9)
        self._assemble([self.a, self.b])

    def _draw(self) -> tuple[str, str]:
        self.drawn += 1
        return draw(
            [[Panel("<a>", torch.full((2, 2), float(self.a.value)))]], self._sentence_now()
        ), self._sentence_now()

    def _sentence_now(self) -> str:
        return f"a < {self.a.value}, b = {self.b.value}"


def test_one_change_is_one_drawing_and_so_are_several_together() -> None:
    explorer = Counting()
    explorer.a.value = 3
    assert explorer.drawn == 2 and explorer.text == "a < 3, b = 0"
    with explorer._together():
        explorer.a.value, explorer.b.value = 4, 5
    assert explorer.drawn == 3 and explorer.text == "a < 4, b = 5"


def test_picture_and_sentence_are_escaped_and_spoken() -> None:
    explorer = Counting()
    assert 'aria-label="a &lt; 0, b = 0"' in explorer._picture.value
    assert "&lt;a&gt;" in explorer._picture.value
    assert 'aria-live="polite"' in explorer._sentence.value and "a &lt; 0" in explorer._sentence.value


def test_a_viewer_without_widgets_gets_the_picture(monkeypatch) -> None:
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: shown.append(bundle))
    Counting()._ipython_display_()
    (bundle,) = shown
    picture = re.search(r'<img src="data:image/svg\+xml;base64,([^"]+)" alt="a &lt; 0, b = 0">', bundle["text/html"])
    assert "<svg" in base64.b64decode(picture[1]).decode() and bundle["text/plain"] == "a < 0, b = 0"
    assert any("widget-view" in kind for kind in bundle)


def test_boxes_are_cut_off_at_the_panels_edge() -> None:
    svg = draw([[Panel("map", torch.ones(4, 4), boxes=[Box(-2, 1, 4, 9)])]], "a map")
    ((y, height, x, width),) = re.findall(
        r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)" fill="none" stroke="#009E73"', svg
    )
    frame = re.search(r'<rect x="(\d+)" y="(\d+)" width="([\d.]+)" height="([\d.]+)" fill="none" stroke="#BBBBBB"', svg)
    left, top, side = float(frame[1]), float(frame[2]), float(frame[3])
    assert (float(y), float(height), float(x), float(width)) == (left + side / 4, top, 3 * side / 4, side / 2)


@pytest.mark.parametrize("values", [torch.zeros(3, 3), torch.full((3, 3), float("nan")), torch.rand(3, 3, 3)])
def test_any_values_can_be_drawn(values: torch.Tensor) -> None:
    assert draw([[Panel("one\ntwo", values)]], "values").count("<text") >= 2


def test_few_options_are_buttons_and_many_a_slider() -> None:
    few, many = choice(["a", "b"], "few", "b"), choice(range(9), "many", 4)
    assert isinstance(few, ipywidgets.ToggleButtons) and few.value == "b"
    assert isinstance(many, ipywidgets.SelectionSlider) and many.value == 4
