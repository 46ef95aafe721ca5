"""From an assignment's source notebook: the student's notebook, the solution, the hidden tests; and the students' zip.

In the source, code between `# BEGIN SOLUTION` and `# END SOLUTION` is a gap for the student (in Markdown the same in
HTML comments), and a code cell that begins with `# HIDDEN TESTS` goes into hidden_tests.py alone. The first two are
otter-grader's marks, so that a source reads as its users expect.
"""

import json
import re
import zipfile
from collections.abc import Iterator
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


class SourceError(ValueError):
    """A source notebook has a mark without its other half, or no hidden tests; the message says where."""


def build(name: str, folder: Path = FOLDER) -> dict[Path, bytes]:
    """What belongs beside an assignment's source, and does not have to be there: path -> content."""
    path = folder / name / "source.ipynb"
    source = nbformat.read(path, as_version=4)
    tests = [cell.source for cell in source.cells if cell.source.startswith(HIDDEN)]
    if not tests:
        raise SourceError(f"{path} has no cell that begins with {HIDDEN!r}.")
    for cell in source.cells:
        rest = SOLUTION.sub("", cell.source)
        if re.search(f"{BEGIN}|{END}", rest):
            raise SourceError(f"{path}, cell {cell.id}: a BEGIN SOLUTION without its END SOLUTION, or the other way.")
    parts = [f'"""The hidden tests of {name}. Made from source.ipynb by `make assignments`: edit that one."""']
    parts += [test.removeprefix(HIDDEN).strip() for test in tests]
    return {
        path.with_name(f"{name}.ipynb"): _notebook(name, source, student=True),
        path.with_name("solution.ipynb"): _notebook(name, source, student=False),
        path.with_name("hidden_tests.py"): ("\n\n\n".join(parts) + "\n").encode(),
    }


def build_all(folder: Path = FOLDER) -> list[Path]:
    """Write all that is made from sources; returns what has changed."""
    changed = []
    for name in names_of_assignments(folder):
        for path, content in build(name, folder).items():
            if not path.is_file() or path.read_bytes() != content:
                write_atomically(path, content)
                changed.append(path)
    return changed


def _notebook(name: str, source: NotebookNode, student: bool) -> bytes:
    made = new_notebook()
    made.metadata = {
        "c2f": {"assignment": name},
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    kept = [cell for cell in source.cells if not cell.source.startswith(HIDDEN)]
    for cell in kept:
        cell = deepcopy(cell)
        gap = GAP[cell.cell_type]
        cell.source = SOLUTION.sub(
            (lambda m, gap=gap: m["indent"] + gap) if student else (lambda m: m["body"].rstrip("\n")), cell.source
        )
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        made.cells.append(cell)
    made.cells.insert(1, new_code_cell(COLAB, id="colab"))
    nbformat.validate(made)
    return (json.dumps(made, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()


def solutions(name: str, folder: Path = FOLDER) -> list[str]:
    """What stands between the marks of a source, one piece a gap."""
    source = nbformat.read(folder / name / "source.ipynb", as_version=4)
    return [match["body"] for cell in source.cells for match in SOLUTION.finditer(cell.source)]


# ---- What students are given

INCLUDED = (
    "c2f", "data/weights", "data/results", "notebooks", "LICENSE", "Makefile", "README.md", "constraints.txt",
    "environment.yml", "kit.py", "pyproject.toml",
)  # fmt: skip


def release(path: Path, assignments: list[str], folder: Path = FOLDER) -> list[str]:
    """Write the students' zip: the kit, its course, and these assignments without their answers. Returns its members.

    What goes in is listed, not what stays out: a file that is new somewhere else cannot slip in.
    """
    for name in assignments:
        for made, content in build(name, folder).items():
            if not made.is_file() or made.read_bytes() != content:
                raise SourceError(f"{made} is not what its source gives; run `make assignments` first.")
    root, members = folder.parents[1], {}
    for file in _files(root):
        if folder not in file.parents:
            members[file.relative_to(root).as_posix()] = file.read_bytes()
    for name in assignments:
        student = folder / name / f"{name}.ipynb"
        members[f"notebooks/assignments/{name}.ipynb"] = student.read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".tmp")
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in sorted(members.items()):
            # one time for all files, so that the same kit gives the same zip
            entry = zipfile.ZipInfo(f"{ARCHIVE}/{member}", (2020, 1, 1, 0, 0, 0))
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    unfinished.replace(path)
    return sorted(members)


def _files(root: Path) -> Iterator[Path]:
    for name in INCLUDED:
        path = root / name
        if path.is_file():
            yield path
        for file in sorted(path.rglob("*")) if path.is_dir() else []:
            hidden = any(part.startswith(".") or part == "__pycache__" for part in file.relative_to(root).parts)
            if file.is_file() and not hidden:
                yield file
