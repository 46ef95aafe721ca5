"""What an assignment is: questions with points, public checks that teach, hidden tests that judge.

    notebooks/assignments/1_convmod_from_scratch/
        source.ipynb                    what an instructor edits; all else here is made from it
        1_convmod_from_scratch.ipynb    the student's: gaps for solutions, no hidden tests
        solution.ipynb
        hidden_tests.py

A question's public check is an exercise like those of the course (`c2f_course.tasks.assignment_1`), and the student
runs it as often as they like. Its points are earned in hidden tests: the same check on other inputs, or another one.
"""

import hashlib
import importlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import c2f
import c2f_course
from c2f_course.grading.answer_code import CHECKS, answer_sources, source_of, used_names
from c2f_course.grading.sandbox import Limits
from c2f_course.tasks.exercise import Difficulty, Exercise, Verdict

FOLDER = Path(__file__).resolve().parents[2] / "assignments"


@dataclass(frozen=True)
class Question(Exercise):
    """An exercise with points. `check` takes the answers, then keywords for other inputs than the public ones."""

    points: float = 0
    answers: tuple[str, ...] = ()  # names in the student's notebook, in the order in which the check takes them
    without: tuple[str, ...] = ()  # library names that would answer the question: the answer must do without them
    given: Mapping[str, str] = field(default_factory=dict)
    """Names of earlier answers -> "module:name" of the kit's own, which the grader puts in their place, so that one
    mistake is not counted twice."""
    by_a_person: bool = False  # an answer in words, which no test judges

    @property
    def heading(self) -> str:
        points = f"{self.points:g} point{'s' if self.points != 1 else ''}"
        return f"### Question {self.number} · {self.title} · {points} · {self.difficulty} · {self.minutes} minutes"

    def __call__(self, *answer: Any) -> Verdict:
        verdict = super().__call__(*answer)
        if verdict.passed and (used := self.forbidden(*map(source_of, answer))):
            return Verdict(self.number, "hint", self.complain(used))
        return verdict

    def forbidden_in(self, cells: Iterable[str]) -> list[str]:
        """Which of the names that it must do without the answer in these cells uses. Raises RecursionError."""
        return self.forbidden(*answer_sources(cells, self.answers, self.given))

    def forbidden(self, *sources: str) -> list[str]:
        return sorted(used_names(*sources) & {*self.without, CHECKS})

    def complain(self, used: Sequence[str]) -> str:
        return f"it uses {', '.join(used)}, and the question is how to do without: build it from simpler operations."


def question(
    number: str, title: str, difficulty: Difficulty, minutes: int, *, answers: str | tuple[str, ...], **settings: Any
) -> Callable[[Callable[..., str]], Question]:
    """Turn a check (a Task, or a function that raises Hint) into a Question. `settings`: the other fields of it."""
    names = (answers,) if isinstance(answers, str) else answers
    return lambda check: Question(number, title, difficulty, minutes, check, answers=names, **settings)


def written(number: str, title: str, minutes: int, *, points: float) -> Question:
    """A question that is answered in words and graded by a person."""
    return Question(number, title, "medium", minutes, lambda: "", points=points, by_a_person=True)


@dataclass(frozen=True)
class Partly:
    """What a hidden test may return: the share of its points that was earned, why, and what was measured."""

    share: float
    message: str
    measured: dict[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class HiddenTest:
    """A test that judges. `run` takes the answers and raises where one is wrong."""

    question: Question
    points: float
    title: str
    run: Callable[..., Partly | str | None]
    whole: bool = False  # whether `run` takes the grade.Student, not the answers: for what needs a second process


def hidden(
    question: Question, *, points: float, title: str, whole: bool = False
) -> Callable[[Callable[..., Partly | str | None]], HiddenTest]:
    """Turn a function into a HiddenTest. `title` is what a student may be told of it."""
    return lambda run: HiddenTest(question, points, title, run, whole)


@dataclass(frozen=True)
class Assignment:
    name: str
    questions: tuple[Question, ...]
    tests: tuple[HiddenTest, ...]
    folder: Path
    digest: str  # of the hidden tests and all that judges with them: grades are made again where it differs
    limits: Limits  # what a submission may use: LIMITS of the hidden tests, if they define it

    @property
    def points(self) -> float:
        return sum(question.points for question in self.questions)

    @property
    def checks(self) -> str:
        """The module of its public checks."""
        return f"{CHECKS}.assignment_{self.name.split('_')[0]}"

    @property
    def title(self) -> str:
        """The heading of the notebook."""
        first = json.loads(self.student_notebook.read_text(encoding="utf-8"))["cells"][0]["source"]
        return "".join(first).splitlines()[0].lstrip("# ")

    @property
    def student_notebook(self) -> Path:
        return self.folder / f"{self.name}.ipynb"

    def tests_of(self, question: Question) -> list[HiddenTest]:
        return [test for test in self.tests if test.question is question]


def names_of_assignments(folder: Path = FOLDER) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("*/source.ipynb"))


def load_assignment(name: str, folder: Path = FOLDER) -> Assignment:
    """An assignment by its name or its number, with its hidden tests.

    Raises ValueError where there is none, or where points and tests do not fit.
    """
    names = names_of_assignments(folder)
    found = [known for known in names if name in (known, known.split("_")[0])]
    if not found:
        raise ValueError(f"there is no assignment {name!r} in {folder}; there are {', '.join(names) or 'none'}.")
    path = folder / found[0] / "hidden_tests.py"
    if not path.is_file():
        raise ValueError(f"{path} is not there; `make assignments` writes it from the source notebook.")
    space: dict[str, Any] = {"__name__": f"hidden_tests_{found[0]}"}
    exec(compile(path.read_bytes(), str(path), "exec"), space)  # an import would leave a copy beside them
    packages = (Path(package.__file__).parent for package in (c2f, c2f_course))
    files = [p for package in packages for p in sorted(package.rglob("*")) if p.suffix in (".py", ".toml")]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in (path, *files))).hexdigest()
    tests = tuple(value for value in space.values() if isinstance(value, HiddenTest))
    assignment = Assignment(found[0], (), tests, path.parent, digest, space.get("LIMITS", Limits()))
    checks = vars(importlib.import_module(assignment.checks)).values()
    assignment = replace(assignment, questions=tuple(value for value in checks if isinstance(value, Question)))
    for question in assignment.questions:
        points = sum(test.points for test in assignment.tests_of(question))
        if not question.by_a_person and points != question.points:
            raise ValueError(f"question {question.number} has {question.points:g} points, its hidden tests {points:g}.")
    return assignment
