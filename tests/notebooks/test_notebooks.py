"""How a notebook of ours is kept. nbval runs the cells (`make test`); here stands what nbval would let pass."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count, repeat
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ASSIGNMENTS = sorted((ROOT / "notebooks" / "assignments").glob("*/[0-9]_*.ipynb"))  # as students get them

CHECKED = "nbval-check-output"  # the tag of a cell whose text must be what is stored
LONGEST_CELL = 30  # lines; the style asks for about 25
LARGEST_NOTEBOOK = 3_000_000  # bytes; hosting sites give up on drawing much larger ones
OWN_PATHS = re.compile(r"/home/|/root/|/Users/|/tmp/|[A-Z]:\\\\|site-packages")
PICTURE_FROM_THE_NETWORK = re.compile(r"!\[[^\]]*\]\(https?:|<img[^>]+src=[\"']?https?:")


def text_of(output: NotebookNode) -> str:
    """The text that nbval compares: what was printed or shown as text, but not a picture's or a widget's stand-in."""
    if output.output_type == "stream":
        return output.text
    data = output.get("data", {})
    stands_in = any(kind.startswith(("image/", "application/vnd.jupyter.widget")) for kind in data)
    return "" if stands_in else "".join(data.get("text/plain", ""))


def code_cell_problems(cell: NotebookNode, expected_count: int | None) -> Iterator[str]:
    lines = len(cell.source.splitlines())
    if lines > LONGEST_CELL:
        yield f"has {lines} lines: a cell shows one thing, in at most {LONGEST_CELL}"
    if cell.outputs and cell.execution_count is None:
        yield "has outputs and no execution count: nbval fails it"
    elif cell.execution_count != expected_count:
        yield f"has execution count {cell.execution_count}, not {expected_count}: run all in a fresh kernel, and save"
    tags = cell.metadata.get("tags", [])
    is_checked = CHECKED in tags or "NBVAL_CHECK_OUTPUT" in cell.source
    if is_checked and not any(text_of(output).strip() for output in cell.outputs):
        yield "is a checked cell without stored text, so nothing is checked (pictures are never compared)"
    if re.search(r"NBVAL_(SKIP|RAISES_EXCEPTION)", cell.source) or set(tags) - {CHECKED}:
        yield "is switched off for nbval, or tagged: a learner will run it, so it must run here"
    for output in cell.outputs:
        if output.output_type == "error":
            yield f"has a stored error: {output.ename}"
        if output.get("name") == "stderr":
            yield f"has stored output on stderr: {output.text.strip()[:80]}"
        if found := OWN_PATHS.search(output.get("text", "") + str(output.get("data", {}).get("text/plain", ""))):
            yield f"shows a path of the computer it was run on: {found[0]}"


def problems(notebook: NotebookNode, has_been_run: bool = True) -> list[str]:
    """What is wrong with a notebook, each in a sentence that begins with the cell; none for a good one."""
    found = []
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown" or not re.match(r"# \S", first.source):
        found.append("cell 0: does not begin with the title, '# …' in a text cell")
    if "widgets" in notebook.metadata:
        found.append("metadata.widgets is there: hosting sites may refuse to draw the notebook, so delete the key")
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("metadata.kernelspec.name is not python3, the kernel that every environment has")
    counts = count(1) if has_been_run else repeat(None)
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and cell.source.strip():
            found += [f"cell {i}: {problem}" for problem in code_cell_problems(cell, next(counts))]
        if cell.cell_type == "markdown" and PICTURE_FROM_THE_NETWORK.search(cell.source):
            found.append(f"cell {i}: shows a picture from the network: a learner may be offline")
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_kept_as_it_should_be(path: Path) -> None:
    assert path.stat().st_size < LARGEST_NOTEBOOK
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert problems(notebook) == []


@pytest.mark.parametrize("path", ASSIGNMENTS, ids=lambda path: path.stem)
def test_an_assignment_is_kept_as_it_should_be(path: Path) -> None:
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert problems(notebook, has_been_run=False) == []
    assert not any(cell.get("outputs") for cell in notebook.cells)


# The rules themselves: a good notebook has no problem, and each way to break it is found.


def stored(text: str = "2\n", name: str = "stdout") -> list[NotebookNode]:
    return [new_output("stream", name=name, text=text)]


def checked_cell(source: str, **options: object) -> NotebookNode:
    return new_code_cell(source, metadata={"tags": [CHECKED]}, **options)


def good_notebook() -> NotebookNode:
    cells = [
        new_markdown_cell("# A title\n\nand a sentence"),
        checked_cell("print(1 + 1)", execution_count=1, outputs=stored()),
        new_code_cell("x = 1", execution_count=2),
    ]
    return new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})


def change_cell(**change: object) -> Callable[[NotebookNode], None]:
    return lambda notebook: notebook.cells[1].update(change)


def only_a_picture(notebook: NotebookNode) -> None:
    data = {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure size 640x480 with 1 Axes>"}
    notebook.cells[1].outputs = [new_output("display_data", data=data)]


def stored_error(notebook: NotebookNode) -> None:
    notebook.cells[2].outputs = [new_output("error", ename="KeyError", evalue="'x'", traceback=[])]


def picture_from_the_network(notebook: NotebookNode) -> None:
    notebook.cells[0].source += "\n![a cat](https://example.com/cat.png)"


def no_title(notebook: NotebookNode) -> None:
    del notebook.cells[0]


def widget_state(notebook: NotebookNode) -> None:
    notebook.metadata["widgets"] = {}


def another_kernel(notebook: NotebookNode) -> None:
    notebook.metadata.kernelspec.name = "my-venv"


BREAKS = {
    "without stored text": change_cell(outputs=[]),
    "pictures are never compared": only_a_picture,
    "no execution count": change_cell(execution_count=None),
    "not 1: run all in": change_cell(execution_count=7),
    "has 40 lines": change_cell(source="x = 1\n" * 40),
    "switched off": change_cell(source="# NBVAL_SKIP\nprint(2)"),
    "or tagged": change_cell(metadata={"tags": ["skip-execution"]}),
    "stored output on stderr": change_cell(outputs=[*stored(), *stored("UserWarning: no", "stderr")]),
    "path of the computer": change_cell(outputs=stored("/home/ada/c2f/runs")),
    "stored error: KeyError": stored_error,
    "picture from the network": picture_from_the_network,
    "title": no_title,
    "metadata.widgets": widget_state,
    "kernelspec": another_kernel,
}


def test_a_good_notebook_has_no_problem() -> None:
    assert problems(good_notebook()) == []


@pytest.mark.parametrize("sentence", BREAKS)
def test_each_break_is_found(sentence: str) -> None:
    notebook = good_notebook()
    BREAKS[sentence](notebook)
    assert any(sentence in problem for problem in problems(notebook)), problems(notebook)


def test_nbval_compares_the_marked_cells_blocks_the_network_and_refuses_warnings(tmp_path: Path) -> None:
    network = "import urllib.request\nurllib.request.urlopen('https://example.com')"
    cells = {
        "marked, same": checked_cell("print(2)", execution_count=1, outputs=stored()),
        "marked, other": checked_cell("print(3)", execution_count=2, outputs=stored()),
        "unmarked, other": new_code_cell("print(3)", execution_count=3, outputs=stored()),
        "warning": new_code_cell("import warnings\nwarnings.warn('look')", execution_count=4),
        "network": new_code_cell(network, execution_count=5),
    }
    nbformat.write(new_notebook(cells=list(cells.values())), tmp_path / "cells.ipynb")
    command = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "-p", "conftest", "--color=no", "-rA"]
    done = subprocess.run([*command, tmp_path / "cells.ipynb"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    outcomes = re.findall(r"^(PASSED|FAILED) \S*::Cell (\d)", done.stdout, re.MULTILINE)
    outcome = {int(cell): result for result, cell in outcomes}
    passed = {name: outcome.get(i) == "PASSED" for i, name in enumerate(cells)}
    assert passed == {name: name in ("marked, same", "unmarked, other") for name in cells}, done.stdout
    assert "the tests have no network" in done.stdout
    assert "the cell wrote to stderr" in done.stdout
