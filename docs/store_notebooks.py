"""Run notebooks in fresh kernels and store what they put out: `make notebooks`, or with the names of some.

    python docs/store_notebooks.py notebooks/02*.ipynb

What is stored must be shown by a site that runs nothing: so the pictures that stand in for widgets stay, and the
widgets, which such a site cannot draw, go; and of a figure that is there as HTML and as PNG the PNG stays, with its
alternative text (`jupyter nbconvert --to html --template classic` uses it). For `jupyter nbconvert --to slides` each
cell gets its place on a slide. A notebook that raises or warns is not stored. Says how long each took, and which cells
took longer than five seconds.
"""

import argparse
import os
import re
import sys
import time
from datetime import datetime
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
SLOW = 5.0  # seconds
CHECKED = "nbval-check-output"  # the tag of a cell whose text must be what is stored


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, help="by default all")
    parser.add_argument("--full", action="store_true", help="run with FULL = True and store nothing")
    parser.add_argument("--slides", action="store_true", help="run nothing: only say where each cell is on the slides")
    chosen = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # No network here either: what needs one would fail for a learner on a train.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests" / "offline"), os.environ.get("PYTHONPATH", "")])
    paths = chosen.notebooks or sorted((ROOT / "notebooks").glob("*.ipynb"))
    if chosen.slides:
        for path in paths:
            notebook = nbformat.read(path, as_version=4)
            place_on_slides(notebook)
            nbformat.write(notebook, path)
        return
    failed = [path for path in paths if not run(path, chosen.full)]
    sys.exit(1 if failed else 0)


def run(path: Path, full: bool = False) -> bool:
    """Execute one notebook and write it back. Returns whether it went well; if not, the file is as it was."""
    notebook = nbformat.read(path, as_version=4)
    if full:
        for cell in notebook.cells:
            cell.source = cell.source.replace("FULL = False", "FULL = True")
    started = time.monotonic()
    client = NotebookClient(
        notebook,
        timeout=7200 if full else 120,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute()
    except Exception as error:
        print(f"{path.name}: {error}")
        return False
    print(f"{path.name}: {time.monotonic() - started:.0f} s")
    complaints = [o.text for cell in notebook.cells for o in cell.get("outputs", []) if o.get("name") == "stderr"]
    if complaints:
        print(f"  wrote to stderr: {complaints[0][:500]}")
        return False
    for cell in notebook.cells:
        if cell.cell_type == "code":
            tell_if_slow(cell)
            cell.outputs = [kept for kept in map(as_stored, cell.outputs) if kept]
        cell.pop("attachments", None) if not cell.get("attachments") else None
    place_on_slides(notebook)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    if not full:
        nbformat.write(notebook, path)
    return True


def as_stored(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """The output without what only a running kernel can show; None where nothing else was in it."""
    data = output.get("data")
    if data is None:
        return output
    is_widget = any("widget" in kind for kind in data)
    output.data = {kind: content for kind, content in data.items() if "widget" not in kind}
    if "image/png" in data:  # a site may remove an <img> that contains its own picture
        output.data.pop("text/html", None)
    return output if not is_widget or output.data.keys() - {"text/plain"} else None


def place_on_slides(notebook: nbformat.NotebookNode) -> None:
    """Give each cell its place in `jupyter nbconvert --to slides`, and no other metadata but nbval's tag."""
    for cell in notebook.cells:
        place, checked = place_of(cell), CHECKED in cell.metadata.get("tags", [])
        cell.metadata = {"slideshow": {"slide_type": place}} if place else {}
        if checked:
            cell.metadata["tags"] = [CHECKED]


def place_of(cell: nbformat.NotebookNode) -> str:
    """A heading of level 1 or 2 begins a slide; one of level 3, or a figure, a slide below it. Other code is shown at
    the next key press, and text at once with what it follows."""
    heading = re.match(r"(#{1,3}) ", cell.source) if cell.cell_type == "markdown" else None
    if heading and heading[1] != "###":
        return "slide"
    if heading or any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
        return "subslide"
    return "fragment" if cell.cell_type == "code" else ""


def tell_if_slow(cell: nbformat.NotebookNode) -> None:
    times = cell.metadata.get("execution", {})
    if "iopub.execute_input" in times and "shell.execute_reply" in times:
        begin, end = (
            datetime.fromisoformat(times[key].replace("Z", "+00:00"))
            for key in ("iopub.execute_input", "shell.execute_reply")
        )
        if (seconds := (end - begin).total_seconds()) > SLOW:
            print(f"  {seconds:5.1f} s  cell {cell.id}: {cell.source.splitlines()[0][:80]}")


if __name__ == "__main__":
    main()
