"""Grade submissions: each in a process of its own that is trusted in nothing, the judging out here.

`grade_notebook` grades one, `grade_folder` a folder of them: in parallel, and where it was cut off it goes on. What
is found goes to GRADES/results, a JSON file a submission; `gradebook` makes tables and pages of these.
"""

import contextlib
import ctypes
import hashlib
import json
import multiprocessing
import os
import platform
import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from c2f.files import write_json
from c2f_course.grading.assignment import (
    FOLDER,
    Assignment,
    HiddenTest,
    Partly,
    Question,
    answer_sources,
    load_assignment,
)
from c2f_course.grading.remote import Remote, RemoteError, RemoteGone
from c2f_course.grading.sandbox import Limits, Submission
from c2f_course.tasks.exercise import Exercise, Hint, Verdict

LARGEST_NOTEBOOK = 20 << 20  # bytes; with its pictures a notebook of ours has one or two MB
ATTEMPTS = 2  # at a submission that took the grader's own process down with it
STARTS = 3  # of the student's process, where a question has ended it


@dataclass
class Judged:
    """What a hidden test gave."""

    title: str
    points: float
    of: float
    message: str


@dataclass
class QuestionResult:
    """What was found out about one question."""

    number: str
    title: str
    of: float
    state: str = "blank"
    """Of the public check: "passed", "hint" or "blank"; "words" for what a person grades."""
    message: str = ""
    tests: list[Judged] = field(default_factory=list)
    measured: dict[str, float | str] = field(default_factory=dict)

    @property
    def points(self) -> float:
        return sum(test.points for test in self.tests)


@dataclass
class Result:
    """What was found out about one submission."""

    student: str
    file: str
    assignment: str
    digest: str
    """Of the submission, of the assignment and of the limits it was graded with."""
    state: str = "graded"
    """"graded", or why not: "empty", "unreadable", "too large", "not begun", "failed"."""
    note: str = ""
    questions: list[QuestionResult] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)
    """What cells raised."""
    written: dict[str, str] = field(default_factory=dict)
    """By the number of a question in words: the answer."""
    seconds: float = 0.0

    @property
    def points(self) -> float:
        return sum(question.points for question in self.questions)

    @classmethod
    def read(cls, path: Path) -> "Result":
        told = json.loads(path.read_text(encoding="utf-8"))
        questions = [
            QuestionResult(**{**question, "tests": [Judged(**test) for test in question["tests"]]})
            for question in told.pop("questions")
        ]
        return cls(**told, questions=questions)


# ---- One submission


class SubmissionError(ValueError):
    """A file that cannot be graded; `state` is a word for the list, the message a sentence for the student."""

    def __init__(self, state: str, message: str) -> None:
        super().__init__(message)
        self.state = state


def read_cells(path: Path) -> list[tuple[str, str]]:
    """The cells of a notebook as (kind, source). Raises SubmissionError for what is none; nothing in it is run."""
    size = path.stat().st_size
    if size == 0:
        raise SubmissionError("empty", "the file is empty; hand in again what you saved.")
    if size > LARGEST_NOTEBOOK:
        raise SubmissionError(
            "too large", f"the file has {size / 2**20:.0f} MiB, and {LARGEST_NOTEBOOK >> 20} MiB are read; clear the "
            f"outputs (Edit, Clear Outputs of All Cells) and hand in again."
        )  # fmt: skip
    try:
        cells = json.loads(path.read_bytes())["cells"]
        read = [(str(cell["cell_type"]), _text(cell["source"])) for cell in cells]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise SubmissionError(
            "unreadable", "the file is no notebook (no JSON with cells); hand in the .ipynb file as Lab saved it."
        ) from None
    if not any(kind == "code" and source.strip() for kind, source in read):
        raise SubmissionError("empty", "the notebook has no code.")
    return read


def _text(source: Any) -> str:
    return source if isinstance(source, str) else "".join(source)


class Student:
    """A submission under questioning. Where a question has ended its process, the next one gets a new one."""

    def __init__(self, notebook: Path, limits: Limits, sandboxed: bool = True) -> None:
        self.notebook, self.limits, self.sandboxed = notebook, limits, sandboxed
        self.cells: list[str] = []
        self._starts, self._stack = 0, contextlib.ExitStack()
        self._remote: Remote | None = None

    def __enter__(self) -> "Student":
        return self

    def __exit__(self, *raised: Any) -> None:
        self._stack.close()

    def remote(self) -> Remote:
        """The running process. Raises RemoteGone where the notebook itself did not come to its end."""
        if self._remote is None or self._remote.gone:
            if self._starts == STARTS:
                raise RemoteGone("it ended too often")
            self._starts += 1
            self._stack.close()
            self._remote = self._stack.enter_context(Submission(self.notebook, self.limits, self.sandboxed))
            try:
                errors = self._remote.ask("errors", seconds=self.limits.seconds)
                self.cells = [str(error)[:500] for error in errors[:50]] if isinstance(errors, list) else []
            except RemoteGone as gone:
                self._starts = STARTS
                raise RemoteGone(f"{gone}, while its cells ran") from None
        return self._remote

    def answers(self, question: Question) -> list[Any]:
        """What the notebook defines under the answer's names. Raises RemoteError where it does not."""
        remote = self.remote()
        remote.seed(0)
        remote.ask("put", dict(question.given))
        return [remote.get(name) for name in question.answers]

    def fresh(self) -> "Student":
        """The same notebook, for a process that knows nothing of this one; to be used with `with`."""
        return Student(self.notebook, self.limits, self.sandboxed)


def judge(question: Question, tests: Sequence[HiddenTest], student: Student, sources: Sequence[str]) -> QuestionResult:
    """A question's public verdict and its points. `sources`: the pieces of code that the answer consists of."""
    result = QuestionResult(question.number, question.title, question.points)
    if question.by_a_person:
        result.state = "words"
        return result
    used = question.forbidden(*sources)
    verdict = _ask(question, used, question.check, lambda: student.answers(question))
    result.state, result.message = verdict.state, verdict.message
    for test in tests:
        result.tests.append(_judge_hidden(question, test, student, used, result.measured))
    return result


def _judge_hidden(
    question: Question, test: HiddenTest, student: Student, used: list[str], measured: dict[str, float | str]
) -> Judged:
    earned = Partly(1.0, "passed")

    def run(*answers: Any) -> str:
        nonlocal earned
        earned = test.run(*answers) or earned
        return earned.message

    verdict = _ask(question, used, run, lambda: [student] if test.whole else student.answers(question))
    measured.update(earned.measured)
    share = min(1.0, max(0.0, earned.share)) if verdict.passed else 0.0
    return Judged(test.title, round(share * test.points, 2), test.points, verdict.message)


def _ask(question: Question, used: list[str], check: Callable[..., str], answers: Callable[[], list[Any]]) -> Verdict:
    """A verdict on answers that are yet to be fetched, which may fail as well. `used`: forbidden names in them."""

    def asked(*answers: Any) -> str:
        if used:
            raise Hint(question.complain(used))
        return check(*answers)

    try:
        got = answers()
    except (RemoteError, RemoteGone) as error:
        return Verdict(question.number, "hint", f"there is no answer to ask: {error}.")
    return Exercise(question.number, question.title, question.difficulty, question.minutes, asked)(*got)


def grade_notebook(
    path: Path, assignment: Assignment, *, student: str = "", limits: Limits | None = None, sandboxed: bool = True
) -> Result:
    """Grade one submission. Whatever the file is, there is a Result."""
    limits = limits or assignment.limits
    started = time.monotonic()
    result = _without_points(student or path.stem, path, assignment, limits, sandboxed)
    try:
        cells = read_cells(path)
        handed_out = read_cells(assignment.student_notebook)
        result.written = {
            question.number: answer
            for question in assignment.questions
            if question.by_a_person and (answer := written_answer(cells, handed_out, question))
        }
        if [cell for cell in cells if cell not in handed_out] == []:
            raise SubmissionError("not begun", "the notebook is as it was handed out.")
        code = [source for kind, source in cells if kind == "code"]
        sources = [_sources(code, question) for question in assignment.questions]
    except SubmissionError as error:
        result.state, result.note = error.state, str(error)
        return result
    with tempfile.TemporaryDirectory(prefix="c2f-") as folder:
        stripped = Path(folder, "answer.ipynb")  # its outputs are nobody's business, and may be large
        stripped.write_text(json.dumps({"cells": [{"cell_type": "code", "source": source} for source in code]}))
        with Student(stripped, limits, sandboxed) as asked:
            result.questions = [
                judge(question, assignment.tests_of(question), asked, pieces)
                for question, pieces in zip(assignment.questions, sources, strict=True)
            ]
            result.cells = asked.cells
    result.seconds = round(time.monotonic() - started, 2)
    return result


def _without_points(student: str, path: Path, assignment: Assignment, limits: Limits, sandboxed: bool) -> Result:
    digest = digest_of(path, assignment, limits, sandboxed)
    questions = [QuestionResult(q.number, q.title, q.points) for q in assignment.questions]
    return Result(student, path.name, assignment.name, digest, questions=questions)


def _sources(code: Sequence[str], question: Question) -> list[str]:
    """The pieces of code that an answer consists of. Raises SubmissionError where they cannot be read."""
    try:
        return answer_sources(code, question)
    except RecursionError:
        raise SubmissionError(
            "unreadable", "a cell is nested too deeply, such as by a sum of hundreds of terms in a row; write a loop."
        ) from None


def written_answer(cells: Sequence[tuple[str, str]], handed_out: Sequence[tuple[str, str]], question: Question) -> str:
    """What a student has written below a question's heading, up to the next heading that was handed out."""
    answer, inside = [], False
    for kind, source in cells:
        if (kind, source) in handed_out and re.match(r"#{1,3} ", source):
            inside = source.startswith(f"### Question {question.number} ")
        if inside and kind == "markdown" and (kind, source) not in handed_out:
            answer.append(source)
    return "\n\n".join(answer)


def digest_of(path: Path, assignment: Assignment, limits: Limits, sandboxed: bool) -> str:
    digest = hashlib.sha256(f"{assignment.digest} {asdict(limits)} {sandboxed}".encode())
    with open(path, "rb") as file:
        while some := file.read(1 << 20):
            digest.update(some)
    return digest.hexdigest()


# ---- A folder of submissions


@dataclass(frozen=True)
class Entry:
    """A file to grade, and whose it is."""

    student: str
    path: Path


@dataclass
class Found:
    """What is in a folder of submissions."""

    entries: list[Entry] = field(default_factory=list)
    misnamed: dict[str, str] = field(default_factory=dict)
    """File -> why it is not graded."""


def find_submissions(folder: Path) -> Found:
    """NAME.ipynb, or NAME/anything.ipynb as learning platforms unpack them; everything else is listed as misnamed."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; name the one that the submissions are in.")
    found = Found()
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "__MACOSX")):
            continue
        inside = [path]
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and not _is_hidden(p.relative_to(path)))
        notebooks = [file for file in inside if file.suffix == ".ipynb"]
        for file in inside:
            name = file.relative_to(folder).as_posix()
            if file.is_symlink() or not file.is_file():
                found.misnamed[name] = "is no plain file"
            elif file.suffix != ".ipynb":
                found.misnamed[name] = "is not called NAME.ipynb"
            elif path.is_dir() and len(notebooks) > 1 and file != notebooks[0]:
                found.misnamed[name] = f"is one more notebook of the same student; {notebooks[0].name} is graded"
            else:
                found.entries.append(Entry(path.name if path.is_dir() else file.stem, file))
    names = [entry.student for entry in found.entries]
    for entry in [entry for entry in found.entries if names.count(entry.student) > 1 and entry.path.parent == folder]:
        found.entries.remove(entry)  # anna.ipynb beside anna/…
        found.misnamed[entry.path.name] = f"has the name of the folder {entry.student}, which is graded"
    if not found.entries:
        raise ValueError(f"there is no notebook in {folder}; a submission is called NAME.ipynb or NAME/….ipynb.")
    return found


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def duplicates(entries: Sequence[Entry], assignment: Assignment) -> list[list[str]]:
    """Students whose own code is the same, letter for letter; those who have changed nothing are left out."""
    handed_out = {source for _, source in read_cells(assignment.student_notebook)}
    groups: dict[str, list[str]] = {}
    for entry in entries:
        with contextlib.suppress(SubmissionError, OSError):
            own = "\0".join(s.strip() for kind, s in read_cells(entry.path) if kind == "code" and s not in handed_out)
            if own:
                groups.setdefault(own, []).append(entry.student)
    return [group for group in groups.values() if len(group) > 1]


def result_path(grades: Path, student: str) -> Path:
    """Where a student's result is kept, whatever the student is called; two students never share one."""
    safe = re.sub(r"[^\w.@+-]", "_", student).strip(".")[:80] or "_"
    if safe != student:
        safe += "-" + hashlib.sha256(student.encode(errors="surrogateescape")).hexdigest()[:8]
    return grades / "results" / f"{safe}.json"


def grade_folder(
    found: Found,
    name: str,
    grades: Path,
    *,
    folder: Path = FOLDER,
    jobs: int = 0,
    sandboxed: bool = True,
    limits: Limits | None = None,
    progress: Callable[[Result, int, int], None] = lambda result, done, of: None,
) -> list[Result]:
    """Grade all of them, `jobs` at a time (0: one for each processor); those that have a result are not run again.

    `progress(result, done, of)` is called after each one.
    """
    assignment = load_assignment(name, folder)
    limits = limits or assignment.limits
    results: dict[str, Result] = {}
    waiting: list[Entry] = []
    for entry in found.entries:
        path = result_path(grades, entry.student)
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            result = Result.read(path)
            if result.digest == digest_of(entry.path, assignment, limits, sandboxed):
                results[entry.student] = result
                continue
        waiting.append(entry)
    for number, result in enumerate(results.values(), 1):
        progress(result, number, len(found.entries))
    task = (assignment.name, folder, limits, sandboxed)
    for entry, result in _in_parallel(waiting, task, jobs or _processors()):
        if result is None:
            result = _without_points(entry.student, entry.path, assignment, limits, sandboxed)
            result.state, result.note = "failed", "the grader ended with it."
        write_json(result_path(grades, entry.student), asdict(result))
        results[entry.student] = result
        progress(result, len(results), len(found.entries))
    return [results[entry.student] for entry in found.entries]


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_parallel(waiting: list[Entry], task: tuple, jobs: int) -> Iterator[tuple[Entry, Result | None]]:
    """Each entry with its result, in the order in which they end; None where it took the grader's process with it."""
    attempts = {entry: 0 for entry in waiting}
    left = list(waiting)
    while left:
        # After a process was lost with several at work nobody knows whose fault it was: one by one, then.
        careful = any(attempts[entry] for entry in left)
        batch = [entry for entry in left if attempts[entry]][:1] if careful else left
        pool = ProcessPoolExecutor(
            min(jobs, len(batch)), multiprocessing.get_context("spawn"), initializer=_prepare, initargs=(os.getpid(),)
        )
        try:
            tasks: dict[Future, Entry] = {pool.submit(_grade, entry, *task): entry for entry in batch}
            pending = set(tasks)
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    entry = tasks[future]
                    try:
                        result = future.result()
                    except BrokenProcessPool:
                        attempts[entry] += 1
                        if attempts[entry] < ATTEMPTS:
                            continue
                        result = None
                    left.remove(entry)
                    yield entry, result
        finally:
            pool.shutdown(cancel_futures=True)


def _prepare(parent: int) -> None:
    """In a grader's process: one thread, no Ctrl-C of its own, and an end with the command that started it."""
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if platform.system() == "Linux":  # at once, and not after half a second
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _grade(entry: Entry, name: str, folder: Path, limits: Limits, sandboxed: bool) -> Result:
    assignment = load_assignment(name, folder)
    try:
        return grade_notebook(entry.path, assignment, student=entry.student, limits=limits, sandboxed=sandboxed)
    except Exception as error:  # of the grader itself: it is told, and the others are graded
        result = _without_points(entry.student, entry.path, assignment, limits, sandboxed)
        return replace(result, state="failed", note=f"the grader failed at it, {type(error).__name__}: {error}")
