"""What is stored of a notebook's outputs, and what nbconvert makes of it: pages with alternative texts, and slides."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
import torch
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter, SlidesExporter
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from c2f.maps import plot_images

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def load_script() -> ModuleType:
    specification = importlib.util.spec_from_file_location("store_notebooks", ROOT / "docs" / "store_notebooks.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


store = load_script()


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> NotebookNode:
    """A notebook in which a picture has just been shown."""
    outputs: list[NotebookNode] = []

    def display(data: dict, metadata: dict | None = None, **options: object) -> None:
        outputs.append(new_output("display_data", data=data, metadata=metadata or {}))

    monkeypatch.setattr("IPython.display.display", display)
    plot_images(torch.zeros(2, 3, 4, 4), title='a "quoted" title').show()
    return new_notebook(cells=[new_code_cell("plot_images(images)", outputs=outputs, execution_count=1)])


def alternatives(page: str) -> list[str]:
    return [image["alt"] for image in BeautifulSoup(page, "html.parser").select("img")]


ALT = 'a "quoted" title: 2 images of 4×4 pixels.'


def test_a_page_made_from_a_notebook_has_the_alternative_texts(shown: NotebookNode) -> None:
    page, _ = HTMLExporter().from_notebook_node(shown)
    assert alternatives(page) == [ALT]


def test_of_a_figure_the_png_is_stored_and_its_alternative_text(shown: NotebookNode) -> None:
    (figure,) = map(store.as_stored, shown.cells[0].outputs)
    assert figure.data.keys() == {"image/png", "text/plain"} and "alt" in figure.metadata["image/png"]
    page, _ = HTMLExporter(template_name="classic").from_notebook_node(shown)
    assert alternatives(page) == [ALT]


def test_of_a_widget_its_picture_is_stored() -> None:
    widget = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "VBox()"}
    assert store.as_stored(new_output("display_data", data=widget)) is None
    pictured = store.as_stored(new_output("display_data", data={**widget, "image/png": "iVBORw0KGgo="}))
    assert pictured.data.keys() == {"image/png", "text/plain"}
    assert store.as_stored(new_output("stream", text="2")).text == "2"


def test_each_cell_has_its_place_on_the_slides(shown: NotebookNode) -> None:
    notebook = new_notebook(
        cells=[
            new_markdown_cell("# Title"),
            new_code_cell("x = 1", metadata={"tags": ["nbval-check-output", "other"]}),
            new_markdown_cell("What x is."),
            new_markdown_cell("## Part"),
            *shown.cells,
            new_markdown_cell("What to see."),
            new_markdown_cell("### Detail"),
        ]
    )
    store.place_on_slides(notebook)
    places = [cell.metadata.get("slideshow", {}).get("slide_type") for cell in notebook.cells]
    assert places == ["slide", "fragment", None, "slide", "subslide", None, "subslide"]
    assert notebook.cells[1].metadata == {"slideshow": {"slide_type": "fragment"}, "tags": ["nbval-check-output"]}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_stored_notebooks_have_their_places(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    before = [dict(cell.metadata) for cell in notebook.cells]
    store.place_on_slides(notebook)
    assert before == [cell.metadata for cell in notebook.cells], "python docs/store_notebooks.py --slides"


def test_a_notebook_becomes_slides() -> None:
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    page, _ = SlidesExporter().from_notebook_node(notebook)
    headings = [cell for cell in notebook.cells if re.match("##? ", cell.source) and cell.cell_type == "markdown"]
    assert len(re.findall(r"<section[^>]*>\s*<section", page)) == len(headings) > 5
    assert page.count('class="fragment"') > 5
