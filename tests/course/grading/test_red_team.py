"""What was tried against the grader: points without a right answer, and right answers in other styles that got none.

Each attack here once gained points, or stopped the grading; what is left open stands in docs/threat_model.md.
"""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

from c2f_course.grading import grade, gradebook
from c2f_course.grading.assignment import Question, load_assignment
from c2f_course.grading.grade import grade_notebook
from c2f_course.grading.gradebook import Gradebook
from c2f_course.grading.release import COLAB
from c2f_course.tasks import assignment_1, assignment_2, assignment_3

RIGHT: dict[str, Any] = {}
exec(Path(__file__).with_name("right_answers.py").read_text(encoding="utf-8"), RIGHT)
ASSIGNMENT_1: dict[str, dict[str, str]] = RIGHT["ASSIGNMENT_1"]

SETUP = "import math\nimport torch\nimport torch.nn.functional as F\nfrom torch import nn"

# ---- A library's answer, or the checks' own, by its plain name


def refused(question: Question, *cells: str) -> list[str]:
    module = question.check.__module__.rpartition(".")[2]
    setup = f"{SETUP}\nfrom c2f_course.tasks import {module} as checks"
    return question.forbidden_in([setup, *cells])


DEPTHWISE = "def depthwise(x, kernel, bias): return {}(x, kernel[:, None], bias, padding=1, groups=x.shape[1])"
BORROWED: dict[str, tuple[Question, list[str]]] = {
    "a star": (assignment_1.depthwise, ["from torch.nn.functional import *", DEPTHWISE.format("conv2d")]),
    "a block": (assignment_1.depthwise, ["if True:\n    " + DEPTHWISE.format("F.conv2d")]),
    "an import in a block": (
        assignment_1.depthwise,
        ["try: from torch.nn.functional import conv2d as c\nexcept ImportError: pass", DEPTHWISE.format("c")],
    ),
    "a global": (assignment_1.depthwise, ["def f():\n    global c\n    c = F.conv2d\nf()", DEPTHWISE.format("c")]),
    "an attribute": (assignment_1.depthwise, ["class T: pass", "T.c = F.conv2d", DEPTHWISE.format("T.c")]),
    "a key": (assignment_1.depthwise, ["t = {}", "t['c'] = F.conv2d", DEPTHWISE.format("t['c']")]),
    "the rest of a match": (
        assignment_1.depthwise,
        ["match vars(F):\n    case {**names}: pass", DEPTHWISE.format("names['conv2d']"), "names['c'] = F.conv2d"],
    ),
    "a question mark in the cell": (assignment_1.depthwise, [DEPTHWISE.format("F.conv2d") + "\ntorch.rand?"]),
    "a shell command in the cell": (assignment_1.depthwise, [DEPTHWISE.format("F.conv2d") + "\nfiles = !ls"]),
    "prompts": (assignment_1.depthwise, [">>> " + DEPTHWISE.format("F.conv2d")]),
    "a convolution of another name": (assignment_1.depthwise, [DEPTHWISE.format("torch._convolution")]),
    "a norm of another name": (
        assignment_1.layer_norm,
        ["def layer_norm(x, weight, bias): return F.instance_norm(x.movedim(1, -1)[None])[0].movedim(-1, 1)"],
    ),
    "the check's norm": (assignment_1.layer_norm, ["def layer_norm(*args): return checks.given_norm(*args)"]),
    "the check's block": (assignment_1.block, ["class Block(checks.Block): pass"]),
    "the kit's block by its package": (
        assignment_1.block,
        ["from c2f import models as m", "class Block(m.conv2former.Block): pass"],
    ),
    "the check's terms": (
        assignment_3.window_maps,
        ["def window_maps(u, kernel, p): return kernel * checks._window(u, kernel.shape[1], p)"],
    ),
    "the check's control": (assignment_3.experiment, ["def control_kernels(*args): return checks.control_of(*args)"]),
    "the check's probe replaced": (
        assignment_2.train_epoch,
        ["def forged(answer, plan): return {}\nchecks.after_epoch = forged", "def train_epoch(*args): return 0, 0"],
    ),
    "another module's probe replaced": (
        assignment_1.convmod,
        ["from c2f_course.tasks import probes", "probes.module_output = print", "class ConvMod: pass"],
    ),
}


@pytest.mark.parametrize("way", BORROWED)
def test_a_borrowed_answer_is_seen(way: str) -> None:
    question, cells = BORROWED[way]
    assert refused(question, *cells)


def test_what_only_looks_borrowed_is_not_refused() -> None:
    own = "def depthwise(x, kernel, bias):\n    '''Unlike F.conv2d.'''\n    return convolve(shift(x), kernel) + bias"
    helpers = "def shift(x): return F.pad(x, (1, 1))\ndef convolve(x, kernel): return (x * kernel).sum(-1)"
    compared = "right = F.conv2d(x, kernel)\nassert torch.equal(depthwise(x, kernel[0], bias), right)"
    asked = "verdict = checks.depthwise(depthwise)\ntorch.backends.mkldnn.enabled = False\nlayer = nn.Conv2d(1, 1, 1)"
    assert refused(assignment_1.depthwise, helpers, own, compared, asked, "from math import *") == []


def test_code_too_deep_to_be_read_is_not_graded(tmp_path: Path) -> None:
    deep = DEPTHWISE.format("F.conv2d") + "\nx = 1\ny = " + "+".join(["x"] * 4000)
    cells = [new_code_cell("import sys\nsys.setrecursionlimit(10**6)"), new_code_cell(deep)]
    nbformat.write(new_notebook(cells=cells), tmp_path / "deep.ipynb")
    result = grade_notebook(tmp_path / "deep.ipynb", load_assignment("1"))
    assert (result.state, result.points) == ("unreadable", 0) and "nested too deeply" in result.note


# ---- Changing the question


def _emptied(answer: Callable[..., Any], which: int) -> Callable[..., Any]:
    """The right answer to another question: a tensor that it was asked about is zero, for the caller as well."""

    def call(*args: Any) -> Any:
        tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
        if which >= len(tensors):
            raise LookupError("nothing to empty")
        tensors[which].data.zero_()
        return answer(*args)

    return call


@pytest.mark.parametrize("name", ["1", "2", "3"])
def test_an_answer_that_empties_its_inputs_gains_nothing(name: str) -> None:
    assignment = load_assignment(name)
    space: dict[str, Any] = {}
    emptied = 0
    for cell in nbformat.read(assignment.folder / "solution.ipynb", as_version=4).cells:
        defines = [answer for q in assignment.questions for answer in q.answers if f"def {answer}(" in cell.source]
        if cell.cell_type == "code" and cell.source != COLAB and (defines or "checks" in cell.source[:700]):
            source = "\n".join(line for line in cell.source.splitlines() if not line.startswith("checks."))
            if defines or not space:
                exec(source, space)
    for question in assignment.questions:
        for at, answer in enumerate(question.answers):
            if not callable(space.get(answer)) or isinstance(space[answer], type):
                continue
            for which in range(4):
                answers = [space[other] for other in question.answers]
                answers[at] = _emptied(space[answer], which)
                verdict = question(*answers)
                if "nothing to empty" not in verdict.message:
                    emptied += 1
                    assert not verdict.passed, f"{question.number}, {answer}, tensor {which}"
    assert emptied >= 6


# ---- Text that no file can hold


def test_halves_of_characters_stop_no_grading(tmp_path: Path, monkeypatch) -> None:
    half, assignment = "\ud800", load_assignment("3")

    def in_parallel(waiting, assignment, jobs):
        for entry in waiting:
            result = grade._without_points(entry, assignment)
            result.cells = [half]
            result.questions[-1].answer = half
            yield entry, result

    monkeypatch.setattr(grade, "_in_parallel", in_parallel)
    entries = []
    for name in ("anna", "b\udcff"):
        path = tmp_path / "anna.ipynb"
        nbformat.write(new_notebook(cells=[new_code_cell("x = 1")]), path)
        entries.append(grade.Entry(name, path))
    for _ in range(2):  # and what was written is read again
        results = list(grade.grade_folder(entries, assignment, tmp_path / "out"))
        assert [result.student for result in results] == ["anna", "b\udcff"] and results[0].cells == [half]
        monkeypatch.setattr(grade, "_in_parallel", lambda waiting, *_: iter(()) if not waiting else pytest.fail())
    gradebook.write(Gradebook(assignment, results), tmp_path / "out")
    with open(tmp_path / "out" / "grades.csv", encoding="utf-8") as file:
        assert [row["student"] for row in csv.DictReader(file)] == ["anna", "b\\udcff"]


# ---- Right answers in other styles


@pytest.mark.parametrize(("number", "style"), [(n, style) for n, styles in ASSIGNMENT_1.items() for style in styles])
def test_a_right_answer_in_another_style_has_all_points(number: str, style: str) -> None:
    assignment = load_assignment("1")
    (question,) = [q for q in assignment.questions if q.number == number]
    own = ASSIGNMENT_1[number][style]
    cells = [SETUP, *(next(iter(ASSIGNMENT_1[n].values())) for n in ASSIGNMENT_1 if n < number), own]
    space: dict[str, Any] = {}
    for cell in cells:
        exec(cell, space)
    answers = [space[name] for name in question.answers]
    assert question.forbidden_in([SETUP, own]) == []
    assert question(*answers).passed, question(*answers)
    for test in assignment.tests_of(question):
        test.run(*answers)
