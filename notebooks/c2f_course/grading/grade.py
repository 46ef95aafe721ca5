"""Grade submissions: the code of each runs in a process of its own and is not trusted; the judging is done here.

`grade_notebook` turns one notebook into a Result in one pass: read it, start it, and send it each question's public
check and hidden tests. `grade_folder` does that for a folder, in parallel, and goes on where it was cut off. Results
are kept in GRADES/results, one JSON file per submission; `gradebook` makes tables and pages of these.
"""

import contextlib
import hashlib
import json
import multiprocessing
import os
import re
import signal
import threading
import time
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple

from c2f.files import write_json
from c2f_course.grading.assignment import Assignment, HiddenTest, Partly, Question, load_assignment
from c2f_course.grading.remote import Remote, RemoteError, RemoteGone
from c2f_course.grading.sandbox import Limits, run_submission
from c2f_course.tasks.exercise import Exercise, Verdict

LARGEST_NOTEBOOK = 20 << 20  # bytes; with its pictures a notebook of ours has one or two MB
LARGEST_CODE = 200_000  # characters; a solution of ours has some 20,000
STARTS = 3  # of the student's process, where a question has ended it


@dataclass
class HiddenResult:
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
    state: str = "blank"  # of the public check: "passed", "hint" or "blank"; "words" for what a person grades
    message: str = ""
    tests: list[HiddenResult] = field(default_factory=list)
    measured: dict[str, float | str] = field(default_factory=dict)
    answer: str = ""  # in words
    by_hand: float | None = None  # points that a person gave for it: from written.csv, not from the result's file

    @property
    def points(self) -> float:
        return round(sum(test.points for test in self.tests) + (self.by_hand or 0), 2)

    @property
    def waits(self) -> bool:
        """Whether it is an answer in words that nobody has graded yet."""
        return bool(self.answer) and self.by_hand is None


@dataclass
class Result:
    """What was found out about one submission."""

    student: str
    file: str
    digest: str  # of the submission, of the assignment and of the limits it was graded with
    state: str = "graded"  # or: "empty", "unreadable", "too large", "other assignment", "not begun", "failed"
    note: str = ""  # why it was not graded
    questions: list[QuestionResult] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)  # what they raised
    seconds: float = 0.0

    @property
    def points(self) -> float:
        return round(sum(question.points for question in self.questions), 2)

    @property
    def waiting(self) -> list[str]:
        """The numbers of the questions that wait for a person."""
        return [question.number for question in self.questions if question.waits]

    @classmethod
    def read(cls, path: Path) -> "Result":
        stored = json.loads(path.read_text(encoding="utf-8"))
        questions = [
            QuestionResult(**{**question, "tests": [HiddenResult(**test) for test in question["tests"]]})
            for question in stored.pop("questions")
        ]
        return cls(**stored, questions=questions)


# ---- One submission


class SubmissionError(ValueError):
    """A file that cannot be graded; its two arguments are a word for the list, and a sentence for the student."""


def read_cells(path: Path, assignment: str = "") -> list[tuple[str, str]]:
    """The cells of a notebook as (kind, source); nothing in it is run.

    Raises SubmissionError for what is no notebook, and for the notebook of another assignment than the one named.
    """
    try:
        size = path.stat().st_size
        if size == 0:
            raise SubmissionError("empty", "the file is empty; hand in again what you saved.")
        if size > LARGEST_NOTEBOOK:
            size, limit = (f"{count / 2**20:.0f} MiB" for count in (size, LARGEST_NOTEBOOK))
            clear = "clear the outputs (Edit, Clear Outputs of All Cells) and hand in again."
            raise SubmissionError("too large", f"the file has {size}, and {limit} are read; {clear}")
        content = path.read_bytes()
    except OSError as error:
        raise SubmissionError("unreadable", f"the file cannot be read: {error.strerror}.") from None
    try:
        notebook = json.loads(content)
        cells = [(str(c["cell_type"]), "".join(c["source"]).replace("\r\n", "\n")) for c in notebook["cells"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        note = "the file is no notebook (no JSON with cells); hand in the .ipynb file as Lab saved it."
        raise SubmissionError("unreadable", note) from None
    with contextlib.suppress(KeyError, TypeError):
        if assignment and (other := str(notebook["metadata"]["c2f"]["assignment"])) != assignment:
            raise SubmissionError("other assignment", f"this is the notebook of {other}; hand in that of {assignment}.")
    if not any(kind == "code" and source.strip() for kind, source in cells):
        raise SubmissionError("empty", "the notebook has no code.")
    if (length := sum(len(source) for kind, source in cells if kind == "code")) > LARGEST_CODE:
        raise SubmissionError("too large", f"its code has {length:,} characters, and {LARGEST_CODE:,} are read.")
    return cells


def written_answer(cells: Sequence[tuple[str, str]], handed_out: Sequence[tuple[str, str]], question: Question) -> str:
    """What a student has written in a question's own cell and below it, up to the next heading that was handed out."""
    answer, inside, printed = [], False, {line for _, source in handed_out for line in source.splitlines()}
    for kind, source in cells:
        if kind != "markdown":
            continue
        if heading := re.match(r"### Question (\S+) ", source):
            inside = heading[1] == question.number
            source = "\n".join(line for line in source.splitlines() if line not in printed).strip()
        elif (kind, source) in handed_out:
            inside = inside and not re.match(r"#{1,3} ", source)
            continue
        if inside and source:
            answer.append(source)
    return "\n\n".join(answer)


class Student(contextlib.ExitStack):
    """A submission as its questions need it: a process that is started again where a question has ended it."""

    def __init__(self, code: Sequence[str], limits: Limits) -> None:
        super().__init__()
        self.code, self.limits = code, limits
        self.cells: list[str] = []  # what they raised
        self._starts = 0
        self._remote: Remote | None = None

    def remote(self) -> Remote:
        """The running process. Raises RemoteGone where the notebook itself did not come to its end."""
        if self._remote is None or self._remote.gone:
            if self._starts == STARTS:
                raise RemoteGone("it ended too often")
            self._starts += 1
            self.close()
            self._remote = self.enter_context(run_submission(self.code, self.limits))
            try:
                errors = self._remote.ask("errors", seconds=self.limits.seconds)
                self.cells = [str(error)[:500] for error in errors[:50]] if isinstance(errors, list) else []
            except RemoteGone as gone:
                self._starts = STARTS
                raise RemoteGone(f"{gone}, while its cells ran") from None
        return self._remote

    def answers(self, question: Question) -> list[Any]:
        """What the notebook defines under the answer's names. Raises RemoteError where it does not."""
        return self.remote().answers(question.answers, question.given)

    def fresh(self) -> "Student":
        """The same code, for a process that has nothing of this one; to be used with `with`."""
        return Student(self.code, self.limits)


def judge(
    question: Question, tests: Sequence[HiddenTest], student: Student, forbidden: Sequence[str]
) -> QuestionResult:
    """The public check's verdict and the hidden tests' points. `forbidden`: names in the answer that may not be."""

    def run(check: Callable[..., Any], whole: bool = False) -> Verdict:
        if forbidden:
            return Verdict(question.number, "hint", question.complain(forbidden))
        try:
            answers = [student] if whole else student.answers(question)
        except (RemoteError, RemoteGone) as error:
            return Verdict(question.number, "hint", f"there is no answer to ask: {error}.")
        return Exercise.__call__(replace(question, check=check), *answers)

    public = run(question.check)
    result = QuestionResult(question.number, question.title, question.points, public.state, public.message)
    for test in tests:
        verdict = run(test.run, test.whole)
        earned = verdict.message  # what the test returned, where it has passed
        if not isinstance(earned, Partly):
            earned = Partly(float(verdict.passed), earned or "passed")
        points = round(min(1.0, max(0.0, earned.share)) * test.points, 2)
        result.tests.append(HiddenResult(test.title, points, test.points, earned.message))
        result.measured.update(earned.measured)
    return result


def grade_notebook(path: Path, assignment: Assignment, student: str = "") -> Result:
    """Grade one submission. There is a Result for every file."""
    started = time.monotonic()
    result = _without_points(Entry(student or path.stem, path), assignment)
    try:
        cells, handed_out = read_cells(path, assignment.name), read_cells(assignment.student_notebook)
        for question, found in zip(assignment.questions, result.questions, strict=True):
            if question.by_a_person:
                found.state, found.answer = "words", written_answer(cells, handed_out, question)
        if set(cells) <= set(handed_out):
            raise SubmissionError("not begun", "the notebook is as it was handed out.")
        code = [source for kind, source in cells if kind == "code"]
        forbidden = [question.forbidden_in(code) for question in assignment.questions]
    except SubmissionError as error:
        result.state, result.note = error.args
        return result
    except RecursionError:
        note = "a cell is nested too deeply, such as by a sum of hundreds of terms in a row; write a loop."
        return replace(result, state="unreadable", note=note)
    with Student(code, assignment.limits) as process:
        for number, question in enumerate(assignment.questions):
            if not question.by_a_person:
                tests = assignment.tests_of(question)
                result.questions[number] = judge(question, tests, process, forbidden[number])
        result.cells = process.cells
    result.seconds = round(time.monotonic() - started, 2)
    return result


def _without_points(entry: "Entry", assignment: Assignment, **why: str) -> Result:
    questions = [QuestionResult(q.number, q.title, q.points) for q in assignment.questions]
    digest = digest_of(entry.path, assignment)
    return Result(entry.student, entry.path.name, digest, questions=questions, **why)


def digest_of(path: Path, assignment: Assignment) -> str:
    """Of all that a grade depends on; of a file that cannot be read, without its content."""
    digest = hashlib.sha256(f"{assignment.digest} {asdict(assignment.limits)}".encode())
    with contextlib.suppress(OSError), open(path, "rb") as file:
        hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


# ---- A folder of submissions


class Entry(NamedTuple):
    """A file to grade, and whose it is."""

    student: str
    path: Path


# Moodle's `Ann Lee_123456_assignsubmission_file_` and Canvas's `leeann_98765_43210_homework`: a name and a number
PLATFORMS = re.compile(r"(.+?)(?:_LATE)?_(\d{3,})_(?:assignsubmission_|\d{3,}_).*")
COPY = re.compile(r"-Copy\d*|\(\d+\)")


def find_submissions(folder: Path) -> tuple[list[Entry], dict[str, str]]:
    """NAME.ipynb, or NAME/anything.ipynb as learning platforms unpack them; and of every other file why it is none."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; name the one that the submissions are in.")
    owned: defaultdict[tuple[str, str], list[Path]] = defaultdict(list)  # name and number -> notebooks
    misnamed: dict[str, str] = {}
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder)
        if any(part.startswith((".", "__MACOSX")) for part in inside.parts):
            continue
        if file.is_dir() and not file.is_symlink():
            if file.parent == folder and all("/." in f"{each.relative_to(folder)}" for each in file.rglob("*.ipynb")):
                misnamed[file.name] = "holds no notebook"
        elif file.is_symlink() or not file.is_file():
            misnamed[inside.as_posix()] = "is no plain file"
        elif file.suffix != ".ipynb":
            misnamed[inside.as_posix()] = "is not called NAME.ipynb"
        else:
            name = unicodedata.normalize("NFC", inside.parts[0] if len(inside.parts) > 1 else file.stem)
            platform_name = PLATFORMS.fullmatch(name)
            owned[platform_name.groups() if platform_name else (name, "")].append(file)
    entries, namesakes = [], Counter(name for name, _ in owned)
    for (name, number), files in owned.items():
        files.sort(key=lambda file: (file.parent == folder, bool(COPY.search(file.stem)), file))
        student = name if namesakes[name] == 1 or not number else f"{name}_{number}"
        entries.append(Entry(student, files[0]))
        for file in files[1:]:
            why = f"is one more notebook of the same student; {files[0].name} is graded"
            if file.parent == folder != files[0].parent:  # anna.ipynb beside anna/…
                why = f"has the name of the folder {student}, which is graded"
            misnamed[file.relative_to(folder).as_posix()] = why
    if not entries:
        raise ValueError(f"there is no notebook in {folder}; a submission is called NAME.ipynb or NAME/….ipynb.")
    return entries, misnamed


def duplicates(entries: Sequence[Entry], assignment: Assignment) -> list[list[str]]:
    """Students whose own code is the same, letter for letter; those who have changed nothing are left out."""
    handed_out = {source for _, source in read_cells(assignment.student_notebook)}
    groups: dict[str, list[str]] = {}
    for entry in entries:
        with contextlib.suppress(SubmissionError):
            own = "\0".join(s.strip() for kind, s in read_cells(entry.path) if kind == "code" and s not in handed_out)
            if own:
                groups.setdefault(own, []).append(entry.student)
    return [group for group in groups.values() if len(group) > 1]


def result_path(grades: Path, student: str) -> Path:
    """Where a student's result is kept, with any name that a student may have; no two students share one."""
    safe = re.sub(r"[^\w.@+-]", "_", student).strip(".")[:80] or "_"
    if safe != student:
        safe += "-" + hashlib.sha256(student.encode(errors="surrogateescape")).hexdigest()[:8]
    return grades / "results" / f"{safe}.json"


def grade_folder(entries: Sequence[Entry], assignment: Assignment, grades: Path, jobs: int = 0) -> Iterator[Result]:
    """Grade all of them, `jobs` at a time (0: one per processor), and yield the results as they come.

    A submission that has a result in GRADES is not run again, unless something has changed since.
    """
    waiting: list[Entry] = []
    for entry in entries:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            result = Result.read(result_path(grades, entry.student))
            if result.digest == digest_of(entry.path, assignment):
                yield result
                continue
        waiting.append(entry)
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for entry, result in _in_parallel(waiting, assignment, jobs or processors):
        result = result or _without_points(entry, assignment, state="failed", note="the grader ended with it.")
        write_json(result_path(grades, entry.student), asdict(result))
        yield result


def _in_parallel(waiting: Sequence[Entry], assignment: Assignment, jobs: int) -> Iterator[tuple[Entry, Result | None]]:
    """Each entry with its result, as they end; None where it took the grader's process with it.

    Each has a grader's process of its own, forked from one that has imported torch and the checks.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, assignment.checks])
    task = assignment.name, assignment.folder.parent, assignment.limits

    def grade(entry: Entry) -> tuple[Entry, Result | None]:
        with ProcessPoolExecutor(1, context) as process:
            try:
                return entry, process.submit(_grade, entry, *task).result()
            except BrokenProcessPool:
                return entry, None

    with ThreadPool(max(1, min(jobs, len(waiting)))) as threads:
        yield from threads.imap_unordered(grade, waiting)


def _grade(entry: Entry, name: str, folder: Path, limits: Limits) -> Result:
    """In a process of its own: one thread, no Ctrl-C, and an end with the command that started it."""
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=lambda: os._exit(multiprocessing.parent_process().join() or 1), daemon=True).start()
    assignment = replace(load_assignment(name, folder), limits=limits)
    try:
        return grade_notebook(entry.path, assignment, entry.student)
    except Exception as error:  # of the grader itself: it is reported, and the others are graded
        note = f"the grader failed at it, {type(error).__name__}: {error}"
        return _without_points(entry, assignment, state="failed", note=note)
