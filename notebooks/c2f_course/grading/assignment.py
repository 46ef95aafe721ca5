"""What an assignment is: questions with points, public checks that teach, hidden tests that judge.

    notebooks/assignments/1_convmod_from_scratch/
        source.ipynb                    what an instructor edits; all else here is made from it
        1_convmod_from_scratch.ipynb    the student's: gaps for solutions, no hidden tests
        solution.ipynb
        hidden_tests.py

A question's public check is an exercise like those of the course (`c2f_course.tasks.assignment_1`), and the student
runs it as often as they like. Its points are earned in hidden tests: the same check on other inputs, or another one.
"""

import ast
import builtins
import functools
import hashlib
import importlib
import inspect
import json
import symtable
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import c2f
import c2f_course
from c2f_course.grading.sandbox import Limits
from c2f_course.grading.worker import as_python
from c2f_course.tasks.exercise import Difficulty, Exercise, Verdict

FOLDER = Path(__file__).resolve().parents[2] / "assignments"
CHECKS = "c2f_course.tasks"  # where what is right is worked out: no answer is to be had from there


@dataclass(frozen=True)
class Question(Exercise):
    """An exercise with points. `check` takes the answers, then keywords for other inputs than the public ones."""

    points: float = 0
    answers: tuple[str, ...] = ()
    """The names in the student's notebook that are the answer, in the order in which the check takes them."""
    without: tuple[str, ...] = ()
    """Library names that would answer the question, and that the answer must do without."""
    given: Mapping[str, str] = field(default_factory=dict)
    """Names of earlier answers -> "module:name" of the kit's own, which the grader puts in their place, so that one
    mistake is not counted twice."""
    by_a_person: bool = False
    """An answer in words, which no test judges."""

    @property
    def heading(self) -> str:
        points = f"{self.points:g} point{'s' if self.points != 1 else ''}"
        return f"### Question {self.number} · {self.title} · {points} · {self.difficulty} · {self.minutes} minutes"

    def __call__(self, *answer: Any) -> Verdict:
        verdict = super().__call__(*answer)
        if verdict.passed and (used := self.forbidden(*filter(None, map(_source_of, answer)))):
            return Verdict(self.number, "hint", self.complain(used))
        return verdict

    def forbidden(self, *sources: str) -> list[str]:
        """Which of the names that it must do without are used in these pieces of code."""
        return sorted(used_names(*sources) & {*self.without, CHECKS})

    def complain(self, used: Sequence[str]) -> str:
        return f"it uses {', '.join(used)}, and the question is how to do without: build it from simpler operations."


def question(
    number: str,
    title: str,
    difficulty: Difficulty,
    minutes: int,
    *,
    points: float,
    answers: str | tuple[str, ...],
    without: tuple[str, ...] = (),
    given: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., str]], Question]:
    """Turn a check into a Question; the check's docstring lists the mistakes that it knows."""
    names = (answers,) if isinstance(answers, str) else answers
    return lambda check: Question(number, title, difficulty, minutes, check, points, names, without, given or {})


def written(number: str, title: str, minutes: int, *, points: float) -> Question:
    """A question that is answered in words and graded by a person."""
    return Question(number, title, "medium", minutes, lambda: "", points, by_a_person=True)


@dataclass(frozen=True)
class HiddenTest:
    """A test that judges. `run` takes the answers and raises where one is wrong."""

    question: Question
    points: float
    title: str
    run: Callable[..., "Partly | None"]
    whole: bool = False
    """Whether `run` takes the Student instead of the answers: for what needs a second process."""


@dataclass(frozen=True)
class Partly:
    """What a hidden test may return: the share of its points that was earned, why, and what was measured."""

    share: float
    message: str
    measured: dict[str, float | str] = field(default_factory=dict)


def hidden(
    question: Question, *, points: float, title: str, whole: bool = False
) -> Callable[[Callable[..., "Partly | None"]], HiddenTest]:
    """Turn a function into a HiddenTest. `title` is what a student may be told of it."""
    return lambda run: HiddenTest(question, points, title, run, whole)


@dataclass(frozen=True)
class Assignment:
    name: str
    questions: tuple[Question, ...]
    tests: tuple[HiddenTest, ...]
    folder: Path
    digest: str
    """Of the hidden tests and all that judges with them: grades are made again where it differs."""
    limits: Limits
    """What a submission may use: LIMITS of the hidden tests, where they say so."""

    @property
    def points(self) -> float:
        return sum(question.points for question in self.questions)

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


def checks_of(name: str) -> Any:
    """The module of public checks: `c2f_course.tasks.assignment_1` for 1_convmod_from_scratch."""
    return importlib.import_module(f"c2f_course.tasks.assignment_{name.split('_')[0]}")


def load_assignment(name: str, folder: Path = FOLDER) -> Assignment:
    """An assignment by its name or its number, with its hidden tests.

    Raises ValueError where there is none, or where points and tests do not fit.
    """
    names = names_of_assignments(folder)
    found = [known for known in names if name in (known, known.split("_")[0])]
    if not found:
        raise ValueError(f"there is no assignment {name!r} in {folder}; there are {', '.join(names) or 'none'}.")
    name = found[0]
    checks = checks_of(name)
    path = folder / name / "hidden_tests.py"
    if not path.is_file():
        raise ValueError(f"{path} is not there; `make assignments` writes it from the source notebook.")
    space: dict[str, Any] = {"__name__": f"hidden_tests_{name}"}
    exec(compile(path.read_bytes(), str(path), "exec"), space)  # an import would leave a copy beside them
    tests = tuple(value for value in space.values() if isinstance(value, HiddenTest))
    questions = tuple(value for value in vars(checks).values() if isinstance(value, Question))
    packages = (Path(package.__file__).parent for package in (c2f, c2f_course))
    code = [path, *(file for package in packages for file in sorted(package.rglob("*.py")))]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in code)).hexdigest()
    for question in questions:
        points = sum(test.points for test in tests if test.question is question)
        if not question.by_a_person and points != question.points:
            raise ValueError(f"question {question.number} has {question.points:g} points, its hidden tests {points:g}.")
    limits = space.get("LIMITS", Limits())
    return Assignment(name, questions, tests, folder / name, digest, limits)


# ---- What code uses


def used_names(*sources: str) -> set[str]:
    """The attributes and imported names in pieces of code: `F.layer_norm` gives "layer_norm", `from a.b import c` gives
    c, a, a.b and a.b.c, as does `b.c` beside a `from a import b`.

    It sees what is written there. Who hides a name from it (getattr, exec) means to, and a reader sees that.
    """
    nodes = [node for source in sources for node in ast.walk(_parse(source))]
    names: set[str] = set()
    paths: set[str] = set()
    places: dict[str, set[str]] = {}  # a name in the code -> what is imported under it
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) and node.module else ""
            for alias in node.names:
                path = module + alias.name
                names.add(alias.name)
                paths.add(path)
                short = alias.asname or (alias.name if module else alias.name.split(".")[0])
                places.setdefault(short, set()).add(path if module or alias.asname else short)
    for node in nodes:
        if isinstance(node, ast.Attribute):
            names.add(node.attr)
            base, *rest = _dotted(node) or [""]
            paths |= {".".join([place, *rest]) for place in places.get(base, ())}
    for path in paths:
        parts = path.split(".")
        names |= {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
    return names


def _dotted(node: ast.expr) -> list[str]:
    """`a.b.c` as its names; nothing for what is no such chain."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if isinstance(node, ast.Name) else []


def answer_sources(cells: Iterable[str], question: Question) -> list[str]:
    """The pieces of a notebook that an answer consists of: its definition, and what of the notebook that one uses.

    Imports that bind a name which is used count as its definition; earlier answers that the grader replaces do not. A
    name that the notebook does not define is taken to come from its `from … import *`, where it has any. Where the
    notebook writes into the checks (`checks.probe = …`), that is a piece of every answer.

    Raises RecursionError where the code is nested too deeply to be read.
    """
    defined: dict[str, list[str]] = {}
    changed: set[str] = set()
    for cell in cells:
        for node in _parse(cell).body:
            changed |= _changed(node)
            for name in {*_bound(node), *_changed(node)}:
                defined.setdefault(name, []).append(ast.unparse(node))
    stars = [node.module for piece in defined.get("*", ()) for node in ast.walk(_parse(piece))
             if isinstance(node, ast.ImportFrom) and node.names[0].name == "*" and node.module]  # fmt: skip
    wanted, seen, pieces = list(question.answers), set(question.given), []
    wanted += [name for name in changed if CHECKS in used_names(*defined[name])]
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        if name not in defined and not hasattr(builtins, name):
            pieces += [f"from {module} import {name}" for module in stars]
        for piece in defined.get(name, ()):
            pieces.append(piece)
            wanted += _read_from_outside(piece)
    return pieces


def _read_from_outside(piece: str) -> list[str]:
    """The names that a piece of code takes from the notebook: not those that a function has for itself."""
    try:
        scopes = [symtable.symtable(piece, "cell", "exec")]
    except (SyntaxError, ValueError, RecursionError):  # then rather too many
        return [node.id for node in ast.walk(_parse(piece)) if isinstance(node, ast.Name)]
    names = set()
    while scopes:
        scope = scopes.pop()
        scopes += scope.get_children()
        top = scope.get_type() == "module"
        names |= {s.get_name() for s in scope.get_symbols() if (s.is_referenced() if top else s.is_global())}
    return sorted(names)


@functools.lru_cache(maxsize=4096)
def _parse(source: str) -> ast.Module:
    """Code as the tree of what the worker would run; what is no Python is an empty tree.

    Raises RecursionError for code that is nested too deeply: Python might run it all the same, where it is asked to.
    """
    try:
        return ast.parse(as_python(source))
    except (SyntaxError, ValueError):
        return ast.Module([], [])
    except MemoryError:  # which is what the parser raises before its own stack is full
        raise RecursionError("the code is nested too deeply") from None


def _bound(node: ast.AST) -> set[str]:
    """The names that a statement gives a value, its blocks included: what `if True: def f` binds is f."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):  # and what it declares to be global
        return {node.name}.union(*(inner.names for inner in ast.walk(node) if isinstance(inner, ast.Global)))
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    own = {node.id} if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else set()
    if isinstance(node, ast.MatchAs | ast.MatchStar | ast.ExceptHandler) and node.name:
        own.add(node.name)
    return own.union(*map(_bound, ast.iter_child_nodes(node)))


def _changed(node: ast.stmt) -> set[str]:
    """The names into whose objects a statement writes: f for `f.attribute = …` and for `f[key] = …`."""
    found = set()
    for target in ast.walk(node):
        if isinstance(target, ast.Attribute | ast.Subscript) and isinstance(target.ctx, ast.Store):
            base: ast.expr = target
            while isinstance(base, ast.Attribute | ast.Subscript):
                base = base.value
            found |= {base.id} if isinstance(base, ast.Name) else set()
    return found


def _source_of(answer: Any) -> str | None:
    """The code of a function or a class of this process, where Python can tell it."""
    if isinstance(answer, type):  # of a class that a notebook defines, Python finds the methods, not the whole
        methods = [_source_of(method) for method in vars(answer).values() if inspect.isfunction(method)]
        return "\n".join(filter(None, methods))
    if not inspect.isfunction(answer):
        return None
    try:
        return textwrap.dedent(inspect.getsource(answer))
    except (OSError, TypeError):
        return None
