"""The exercises as a student meets them: the stored gap is blank, the folded solution passes, the headings agree.

How an exercise stands in a notebook, with N from 1:

    text  id exercise-N            the check's heading, then what to do
    code  id exercise-N-answer     a gap, and in its last line the call of the check
    text  id exercise-N-solution   <details> with one ```python block that goes in place of the gap; where the notebook
                                   goes on with what was answered, before it another <details> with a second hint

Answer and solution use only names of the notebook's first code cell, so that a student may come back to them any time.
"""

import contextlib
import io
import re
from functools import cache
from pathlib import Path

import nbformat
import pytest

import c2f_course.tasks as all_checks
from c2f_course.tasks import Exercise, Verdict

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("0[0-9]_*.ipynb"))
CODE_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
FEWEST = 3


@cache
def cells_of(path: Path) -> dict[str, nbformat.NotebookNode]:
    return {cell.id: cell for cell in nbformat.read(path, as_version=4).cells}


def exercises_of(path: Path) -> list[str]:
    return [id_ for id_ in cells_of(path) if re.fullmatch(r"exercise-\d+", id_)]


EXERCISES = [(path, id_) for path in NOTEBOOKS for id_ in exercises_of(path)]


@cache
def first_cell(path: Path) -> dict:
    source = next(cell.source for cell in cells_of(path).values() if cell.cell_type == "code")
    namespace: dict = {}
    exec(compile(source, f"<{path.stem}>", "exec"), namespace)
    return namespace


def run(path: Path, source: str) -> Verdict:
    """Run the source in the first cell's names, and give the value of its last line."""
    *lines, last = source.strip().splitlines()
    namespace = dict(first_cell(path))
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile("\n".join(lines), "<exercise>", "exec"), namespace)
        return eval(compile(last, "<exercise>", "eval"), namespace)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_exercises_enough(path: Path) -> None:
    assert len(exercises_of(path)) >= FEWEST


@pytest.mark.parametrize(("path", "name"), EXERCISES, ids=lambda value: getattr(value, "stem", value))
def test_the_gap_is_blank_and_the_solution_passes(path: Path, name: str) -> None:
    cells = cells_of(path)
    answer, solution = cells[f"{name}-answer"].source, cells[f"{name}-solution"].source
    assert solution.startswith("<details>"), "the solution is not folded"
    assert run(path, answer).state == "blank"
    code = "\n".join(CODE_BLOCK.findall(solution))
    verdict = run(path, f"{code}\n{answer.strip().splitlines()[-1]}")
    assert verdict.passed, verdict.message


BUILD_THEN_SEE = [(path, name) for path, name in EXERCISES if path.stem[:2] in ("02", "03")]


@pytest.mark.parametrize(("path", "name"), BUILD_THEN_SEE, ids=lambda value: getattr(value, "stem", value))
def test_no_line_of_a_solution_is_shown_before_its_gap(path: Path, name: str) -> None:
    cells = cells_of(path)
    answer, solution = cells[f"{name}-answer"].source, cells[f"{name}-solution"].source
    assert solution.startswith("<details><summary>A second hint</summary>")
    earlier = list(cells)[: list(cells).index(f"{name}-answer")]
    before = str([cells[id_] for id_ in earlier if not id_.endswith("-solution")])  # these are folded
    (code,) = CODE_BLOCK.findall(solution)
    lines = [line.strip().removeprefix("return ") for line in code.splitlines() if line.strip() not in answer]
    assert lines and not [line for line in lines if len(line) > 5 and line in before]


@pytest.mark.parametrize(("path", "name"), EXERCISES, ids=lambda value: getattr(value, "stem", value))
def test_the_heading_is_the_checks_own(path: Path, name: str) -> None:
    headings = {check.heading for check in vars(first_cell(path)["checks"]).values() if isinstance(check, Exercise)}
    assert cells_of(path)[name].source.splitlines()[0] in headings


def test_each_module_of_checks_belongs_to_a_notebook() -> None:
    folder = Path(all_checks.__file__).parent
    numbers = {path.stem.removeprefix("notebook_") for path in folder.glob("notebook_*.py")}
    assert numbers == {path.stem[:2] for path in NOTEBOOKS}
