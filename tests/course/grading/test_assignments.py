"""The assignments: made from their sources, solved, left blank, and answered wrongly in the ways that students do."""

import contextlib
import importlib.util
import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

from c2f.training.sources.dataset import Split
from c2f_course.grading import contest, sandbox
from c2f_course.grading.answer_code import answer_sources, used_names
from c2f_course.grading.assignment import (
    FOLDER,
    HiddenTest,
    Question,
    load_assignment,
    names_of_assignments,
)  # fmt: skip
from c2f_course.grading.grade import Student, grade_notebook, judge
from c2f_course.grading.release import COLAB, SOLUTION, build, build_all, release, stale
from c2f_course.grading.remote import RemoteError
from c2f_course.grading.sandbox import Limits
from c2f_course.tasks.assignment_4 import contest as contest_question

NAMES = names_of_assignments()
MUTANTS = Path(__file__).parent / "mutants"
LIMITS = Limits(seconds=280, answer_seconds=120, sandboxed=False)  # of a busy machine's time


def mutants_of(name: str) -> list[tuple[str, str, tuple[str, str], float, str]]:
    path = MUTANTS / f"assignment_{name.split('_')[0]}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.MUTANTS


def code_of(path: Path) -> list[str]:
    return [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code" and c.source != COLAB]


def solutions(name: str) -> list[str]:
    """What stands between the marks of a source, one piece per gap."""
    source = nbformat.read(FOLDER / name / "source.ipynb", as_version=4)
    return [match["body"] for cell in source.cells for match in SOLUTION.finditer(cell.source)]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_committed_is_what_the_source_gives(name: str) -> None:
    assert [path.name for path in stale(name)] == [], "make assignments writes them"


@pytest.mark.parametrize("name", NAMES)
def test_a_question_says_its_points_difficulty_and_minutes(name: str) -> None:
    assignment = load_assignment(name)
    cells = nbformat.read(assignment.student_notebook, as_version=4).cells
    headings = [c.source.splitlines()[0] for c in cells if c.source.startswith("### Question")]
    assert headings == [question.heading for question in assignment.questions]
    minutes = sum(question.minutes for question in assignment.questions)
    assert 60 <= minutes <= 120
    told = f"**Time**: {minutes} minutes. **Points**: {assignment.points:g}"
    assert told in cells[0].source


@pytest.mark.parametrize("name", NAMES)
def test_a_student_is_given_no_solution_and_no_hidden_test(name: str) -> None:
    text = "\n".join(c.source for c in nbformat.read(load_assignment(name).student_notebook, as_version=4).cells)
    assert "BEGIN SOLUTION" not in text and "HIDDEN TESTS" not in text and "@hidden" not in text
    gaps = len(re.findall(r"^ *\.\.\.  # your code here|^\*Write your answer here", text, re.MULTILINE))
    assert gaps == len(solutions(name))


def without_checks(cells: list[str]) -> list[str]:
    """Without the lines that ask the public checks, which the grader asks as well."""
    return [re.sub(r"^ *\(?checks\..*", "", cell, flags=re.MULTILINE) for cell in cells]


def stripes(count: int, seed: int) -> Split:
    """Images that a few batches teach: the class is how many stripes there are, and which way they run."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 10
    waves = torch.arange(32)[None] * torch.tensor([1, 3, 5, 8, 12])[labels % 5, None] / 32
    waves = (2 * torch.pi * (waves + torch.rand(count, 1, generator=draw))).sin()
    lying = (labels < 5)[:, None, None]
    image = torch.where(lying, waves[:, :, None].expand(-1, 32, 32), waves[:, None, :].expand(-1, 32, 32))
    noise = 8 * torch.randn(count, 3, 32, 32, generator=draw)
    return Split((128 + 60 * image[:, None] + noise).clamp(0, 255).to(torch.uint8), labels)


def easily(tests: Iterable[HiddenTest]) -> list[HiddenTest]:
    """The hidden tests, the contest's with few images, of stripes: its rules are the same.

    What the solution reaches on the true images is in data/results/contest.
    """
    return [in_an_easy_contest(test) if test.question is contest_question else test for test in tests]


def in_an_easy_contest(test: HiddenTest) -> HiddenTest:
    def run(student: Student) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(contest, "practice_split", lambda: contest.Practice(stripes(800, 0), stripes(200, 1)))
            patch.setattr(contest, "hidden_split", lambda seed: stripes(200, 2))
            patch.setattr(contest, "compete", partial(contest.compete, images_seen=1600))
            return test.run(student)

    return replace(test, run=run)


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_has_all_points(name: str, tmp_path: Path) -> None:
    assignment = load_assignment(name)
    tests = tuple(easily(assignment.tests))
    limits = assignment.limits if sandbox.why_not() is None else LIMITS
    notebook = nbformat.read(assignment.folder / "solution.ipynb", as_version=4)
    for cell in notebook.cells:
        (cell.source,) = without_checks([cell.source.replace("epochs, batch = 6, 32", "epochs, batch = 4, 64")])
    nbformat.write(notebook, tmp_path / "solution.ipynb")
    result = grade_notebook(tmp_path / "solution.ipynb", replace(assignment, tests=tests, limits=limits))
    assert result.state == "graded", result.note
    points = {question.number: question.points for question in result.questions}
    assert points == {q.number: 0 if q.by_a_person else q.points for q in assignment.questions}, result
    assert result.cells == []


class Here:
    """A notebook that runs in this process: it is judged in the same way, and nothing has to start."""

    def __init__(self, cells: list[str]) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__"}
        for cell in cells:
            with contextlib.suppress(Exception):
                exec(cell, self.names)

    def answers(self, question: Question) -> list[Any]:
        if missing := [name for name in question.answers if name not in self.names]:
            raise RemoteError(f"the notebook defines no {missing[0]}")
        return [self.names[name] for name in question.answers]

    def fresh(self) -> "contextlib.AbstractContextManager[Here]":
        return contextlib.nullcontext(self)


@pytest.mark.parametrize("name", NAMES)
def test_a_blank_one_has_none(name: str) -> None:
    assignment = load_assignment(name)
    blank = Here(without_checks(code_of(assignment.student_notebook)))
    plt.close("all")
    for question in assignment.questions:
        if not question.by_a_person:
            result = judge(question, assignment.tests_of(question), blank, [])
            assert result.points == 0 and result.state != "passed", result


class Renamed:
    """The student whose answers are called otherwise: all wrong ones are asked in one process, `fresh` is one other."""

    def __init__(self, student: Student, other: Student, names: dict[str, str]) -> None:
        self.student, self.other, self.names = student, other, names

    def answers(self, question: Question) -> list[Any]:
        return self.student.answers(replace(question, answers=tuple(self.names[name] for name in question.answers)))

    @contextlib.contextmanager
    def fresh(self) -> Iterator["Renamed"]:
        yield Renamed(self.other, self.student, self.names)


# Of the network that the wrong answers to assignment 4 have around them: a smaller one shows the same mistakes.
SMALLER = {"4_beat_swin": ("dim, depth = 64, 4", "dim, depth = 24, 1")}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_wrong_answer_gets_its_points_and_its_hint(name: str) -> None:
    assignment, mutants = load_assignment(name), mutants_of(name)
    questions = {question.number: question for question in assignment.questions}
    counts = {number: sum(mutant[0] == number for mutant in mutants) for number in questions}
    assert all(count >= 5 for number, count in counts.items() if not questions[number].by_a_person), counts
    cells = without_checks(code_of(assignment.folder / "solution.ipynb"))
    mutated: list[tuple[str, dict[str, str], list[str]]] = []
    small = SMALLER.get(name, ("", ""))
    tests = {number: easily(assignment.tests_of(question)) for number, question in questions.items()}
    for number, (asked, wrong, (old, new), _, _) in enumerate(mutants):
        answers = questions[asked].answers
        defining = re.compile(rf"^(def|class) ({'|'.join(answers)})\b|^({'|'.join(answers)}) =", re.MULTILINE)
        places = [i for i, cell in enumerate(cells) if defining.search(cell) and old in cell]
        assert len(places) == 1 and cells[places[0]].count(old) == 1, f"{asked}, {wrong}: {old!r} is in {places}"
        at = places[0]
        cell = cells[at].replace(old, new)
        # an answer may lie in several cells, and what is wrong in one is seen by the others
        together = "\n".join(cell if i == at else other for i, other in enumerate(cells) if defining.search(other))
        names = {answer: f"wrong_{number}_{answer}" for answer in answers}
        bound = "".join(f"\n{renamed} = space[{answer!r}]" for answer, renamed in names.items())
        run = f"space = dict(globals())\nexec({together.replace(*small)!r}, space){bound}"
        mutated.append((run, names, questions[asked].forbidden_in([*cells[:at], cell, *cells[at + 1 :]])))
    # what else the notebook has, a training and plots, is not needed
    defines = re.compile(r"^(def|class|NAME) ", re.MULTILINE)
    cells = [cell.replace(*small) for cell in cells if cell == cells[0] or defines.search(cell)]
    failed = []
    with Student([*cells, *(run for run, _, _ in mutated)], LIMITS) as student, student.fresh() as other:
        for (asked, wrong, _, points, hint), (_, names, forbidden) in zip(mutants, mutated, strict=True):
            question = questions[asked]
            result = judge(question, tests[question.number], Renamed(student, other, names), forbidden)
            told = [result.message, *(test.message for test in result.tests)]
            if result.points != points or not any(re.search(hint, message) for message in told):
                failed.append(f"{asked}, {wrong}: {result.points:g} points and not {points:g}; {told}")
    assert failed == [], "\n".join(failed)


def test_the_students_zip_holds_the_kit_and_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "c2f-course.zip"
    members = release(path, NAMES)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        texts = {
            name: archive.read(name).decode("utf-8", "replace") for name in names if not name.endswith(".safetensors")
        }
    assert all(name.startswith("c2f-course/") for name in names) and len(names) == len(members)
    top_level = ("pyproject.toml", "Makefile", "kit.py")
    for needed in ("c2f/models/conv2former.py", "notebooks/00_start_here.ipynb", *top_level):
        assert f"c2f-course/{needed}" in names
    for name in NAMES:
        assert f"c2f-course/notebooks/assignments/{name}.ipynb" in names
    assert [n for n in names if re.search(r"source\.ipynb|solution\.ipynb|hidden_tests|/tests/|mutants", n)] == []
    plain = {name: _squeezed(_sources(name, text)) for name, text in texts.items()}
    for name in NAMES:
        secrets = [(FOLDER / name / "hidden_tests.py").read_text().split('"""', 2)[2]]
        secrets = re.findall(r"^def .*?(?=^@|\Z)", secrets[0], re.DOTALL | re.MULTILINE) + solutions(name)
        assert len(secrets) > 5
        for secret in filter(_is_telling, secrets):
            holding = [member for member, text in plain.items() if _squeezed(secret) in text]
            assert holding == [], secret


def _sources(name: str, text: str) -> str:
    """The text of a file as a reader has it; of a notebook, its cells."""
    if name.endswith(".ipynb"):
        return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    return text


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _is_telling(secret: str) -> bool:
    """Whether a piece is long enough to be an answer: `return x + self.mlp(x)` is in the library, too."""
    return len([line for line in secret.splitlines() if line.strip()]) > 2


def test_the_zip_is_the_same_for_the_same_kit_and_holds_what_was_asked_for(tmp_path: Path) -> None:
    first, second = tmp_path / "a.zip", tmp_path / "b.zip"
    members = release(first, NAMES[:1])
    assert release(second, NAMES[:1]) == members
    assert first.read_bytes() == second.read_bytes()
    assert [m for m in members if "assignments/" in m] == [f"notebooks/assignments/{NAMES[0]}.ipynb"]


# ---- Sources with mistakes


def source(folder: Path, *cells: str) -> Path:
    place = folder / "notebooks" / "assignments" / "1_try"
    place.mkdir(parents=True)
    nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells]), place / "source.ipynb")
    return place.parent


HIDDEN = "# HIDDEN TESTS\nfrom c2f_course.grading.assignment import hidden"


def test_a_source_is_split_at_its_marks(tmp_path: Path) -> None:
    folder = source(
        tmp_path,
        "title = 1",
        "def f(x):\n    y = 1\n    # BEGIN SOLUTION\n    y += x\n    return y\n    # END SOLUTION",
        HIDDEN,
    )
    made = {path.name: content.decode() for path, content in build("1_try", folder).items()}
    student, solution = (
        [c["source"] for c in json.loads(made[name])["cells"]] for name in ("1_try.ipynb", "solution.ipynb")
    )
    assert student == ["title = 1", COLAB, "def f(x):\n    y = 1\n    ...  # your code here"]
    assert solution[-1] == "def f(x):\n    y = 1\n    y += x\n    return y"
    assert made["hidden_tests.py"].endswith("import hidden\n")
    assert [path.name for path in build_all(folder)] == ["1_try.ipynb", "solution.ipynb", "hidden_tests.py"]
    assert build_all(folder) == []


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [(["# BEGIN SOLUTION\nx = 1", HIDDEN], "without its END"), (["x = 1\n# END SOLUTION", HIDDEN], "the other way"),
     (["x = 1"], "no cell that begins with '# HIDDEN TESTS'")],
)  # fmt: skip
def test_a_source_with_a_mistake_is_refused(tmp_path: Path, cells: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build("1_try", source(tmp_path, *cells))


def test_an_assignment_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no assignment 'nine' in .*; there are 1_"):
        load_assignment("nine")


def test_a_release_of_what_is_stale_is_refused(tmp_path: Path) -> None:
    folder = source(tmp_path, "x = 1\n# BEGIN SOLUTION\ny = 1\n# END SOLUTION", HIDDEN)
    with pytest.raises(ValueError, match="make assignments"):
        release(tmp_path / "out.zip", ["1_try"], folder)
    assert not (tmp_path / "out.zip").exists()


# ---- What an answer uses


def test_the_names_that_code_uses() -> None:
    assert used_names("import a.b\nfrom c import d as e\nf(x).g.h") == {"a", "a.b", "b", "c", "d", "c.d", "g", "h"}
    assert used_names("from c import d as e\n%magic", "e.g") >= {"c", "c.d", "c.d.g", "g"}
    assert used_names("import a.b", "a.b.c") == {"a", "a.b", "a.b.c", "b", "c"}
    assert used_names("this is no Python") == set()


def test_an_answer_is_its_definition_and_what_that_uses() -> None:
    cells = ["from torch.nn import functional as G\nimport os", "def helper(x): return G.relu(x)", "def other(): "
     "return os.name",
             "!ls\ndef answer(x):\n    return helper(x)", "def answer(x):\n    return helper(x) + 1"]  # fmt: skip
    pieces = "\n".join(answer_sources(cells, ["answer"]))
    assert "functional as G" in pieces and "def helper" in pieces and pieces.count("def answer") == 2
    assert "other" not in pieces and "os" not in pieces
    assert "def helper" not in "\n".join(answer_sources(cells, ["answer"], ["helper"]))


def test_a_name_that_a_function_has_for_itself_is_not_the_notebooks() -> None:
    cells = ["loss = F.cross_entropy(x, y)\nscale = G.layer_norm",
             "def answer(x):\n    loss = x.mean()\n    return [scale(z) for z in x] + [loss]"]  # fmt: skip
    pieces = "\n".join(answer_sources(cells, ["answer"]))
    assert "cross_entropy" not in pieces and "layer_norm" in pieces
