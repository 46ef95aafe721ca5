"""From an assignment's source notebook: the student's notebook, the solution, the hidden tests; and the students' zip.

In the source, code between `# BEGIN SOLUTION` and `# END SOLUTION` is a gap for the student (in Markdown the same in
HTML comments), and a code cell that begins with `# HIDDEN TESTS` goes into hidden_tests.py alone. The first two are
otter-grader's marks, so that a source reads as its users expect.
"""

import io
import json
import re
import zipfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from c2f.files import write_atomically
from c2f_course.grading.assignment import FOLDER, names_of_assignments

BEGIN, END = r"(?:#|<!--) BEGIN SOLUTION(?: -->)?", r"(?:#|<!--) END SOLUTION(?: -->)?"
SOLUTION = re.compile(rf"^(?P<indent>[ \t]*){BEGIN}[ \t]*\n(?P<body>.*?)^[ \t]*{END}[ \t]*$", re.DOTALL | re.MULTILINE)
HIDDEN = "# HIDDEN TESTS"
GAP = {"code": "...  # your code here", "markdown": "*Write your answer here, in place of this line.*"}
ARCHIVE = "c2f-course"

COLAB = f"""\
# On Colab only: brings the kit. Upload {ARCHIVE}.zip, which you were given, to the files panel at the left first.
import sys

if "google.colab" in sys.modules:
    !unzip -qn {ARCHIVE}.zip
    %pip install --quiet --editable {ARCHIVE}
    sys.path.insert(0, "{ARCHIVE}")"""


def build(name: str, folder: Path = FOLDER) -> dict[Path, bytes]:
    """What belongs beside an assignment's source, and may be missing there: path -> content.

    Raises ValueError where a mark is without its other half, and where there are no hidden tests.
    """
    path = folder / name / "source.ipynb"
    cells = nbformat.read(path, as_version=4).cells
    tests = [cell.source.removeprefix(HIDDEN).strip() for cell in cells if cell.source.startswith(HIDDEN)]
    if not tests:
        raise ValueError(f"{path} has no cell that begins with {HIDDEN!r}.")
    for cell in cells:
        if re.search(f"{BEGIN}|{END}", SOLUTION.sub("", cell.source)):
            raise ValueError(f"{path}, cell {cell.id}: a BEGIN SOLUTION without its END SOLUTION, or the other way.")
    cells = [cell for cell in cells if not cell.source.startswith(HIDDEN)]
    heading = f'"""The hidden tests of {name}. Made from source.ipynb by `make assignments`: edit that one."""'
    return {
        path.with_name(f"{name}.ipynb"): _notebook(name, cells, lambda gap, kind: gap["indent"] + GAP[kind]),
        path.with_name("solution.ipynb"): _notebook(name, cells, lambda gap, kind: gap["body"].rstrip("\n")),
        path.with_name("hidden_tests.py"): ("\n\n\n".join([heading, *tests]) + "\n").encode(),
    }


def stale(name: str, folder: Path = FOLDER) -> dict[Path, bytes]:
    """What is not there as the source gives it."""
    made = build(name, folder).items()
    return {path: content for path, content in made if not path.is_file() or path.read_bytes() != content}


def build_all(folder: Path = FOLDER) -> list[Path]:
    """Write all that is made from sources; returns what has changed."""
    changed = {path: content for name in names_of_assignments(folder) for path, content in stale(name, folder).items()}
    for path, content in changed.items():
        write_atomically(path, content)
    return list(changed)


def _notebook(name: str, cells: list[NotebookNode], fill: Callable[[re.Match, str], str]) -> bytes:
    """The notebook of these cells; `fill` gives what stands in a gap in a cell of this kind."""
    made = new_notebook()
    made.metadata = {
        "c2f": {"assignment": name},
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in deepcopy(cells):
        kind = cell.cell_type
        cell.source, cell.metadata = SOLUTION.sub(lambda gap, kind=kind: fill(gap, kind), cell.source), {}
        if kind == "code":
            cell.outputs, cell.execution_count = [], None
        made.cells.append(cell)
    made.cells.insert(1, new_code_cell(COLAB, id="colab"))
    nbformat.validate(made)
    return (json.dumps(made, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()


# ---- What students are given

INCLUDED = (
    "c2f", "data/weights", "data/results", "notebooks", "LICENSE", "Makefile", "README.md", "constraints.txt",
    "docs/glossary.md", "environment.yml", "kit.py", "pyproject.toml",
)  # fmt: skip


def release(path: Path, assignments: list[str], folder: Path = FOLDER) -> list[str]:
    """Write the students' zip: the kit, its course, and these assignments without their answers. Returns its members.

    What goes in is listed, not what stays out: a file that is new somewhere else cannot slip in.
    """
    root, members = folder.parents[1], {}
    for name in assignments:
        for made in stale(name, folder):
            raise ValueError(f"{made} is not what its source gives; run `make assignments` first.")
        members[f"notebooks/assignments/{name}.ipynb"] = folder / name / f"{name}.ipynb"
    for included in INCLUDED:
        for file in sorted((root / included).rglob("*")) or [root / included]:
            inside = file.relative_to(root)
            hidden = any(part.startswith(".") or part == "__pycache__" for part in inside.parts)
            if file.is_file() and not hidden and folder not in file.parents:
                members[inside.as_posix()] = file
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for member, file in sorted(members.items()):
            # one time for all files, so that the same kit gives the same zip
            entry = zipfile.ZipInfo(f"{ARCHIVE}/{member}", (2020, 1, 1, 0, 0, 0))
            archive.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED)
    write_atomically(path, content.getvalue())
    return sorted(members)
