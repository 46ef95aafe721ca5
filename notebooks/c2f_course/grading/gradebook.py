"""From results to what is read: a table for the registry, a page for each student, a summary, a leaderboard.

GRADES/
    grades.csv         one row per student: points, and points of each question
    written.csv        answers in words, with a column of points for a person to fill in; the next run adds them
    feedback/NAME.html one page per student
    summary.html       how it went: histogram, the hardest questions, what could not be graded
    leaderboard.html   where something was measured, such as an accuracy
    results/NAME.json  all results; the files above are made from these
"""

import csv
import io
import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from c2f.files import write_atomically
from c2f_course.grading.assignment import Assignment
from c2f_course.grading.grade import Result, result_path

Show = Literal["points", "titles", "hints"]  # of hidden tests: points, which of them failed, or also what went wrong


@dataclass
class Gradebook:
    """All results of an assignment, and what a person has graded."""

    assignment: Assignment
    results: Sequence[Result]
    by_hand: Mapping[tuple[str, str], float] = field(default_factory=dict)  # (student, question) -> points
    duplicates: Sequence[Sequence[str]] = ()
    misnamed: Mapping[str, str] = field(default_factory=dict)
    roster: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for result in self.results:
            for question in result.questions:
                question.by_hand = self.by_hand.get((result.student, question.number))

    @property
    def missing(self) -> list[str]:
        """Students of the roster who handed nothing in."""
        students = {result.student for result in self.results}
        return [name for name in self.roster or () if name not in students]

    @property
    def strangers(self) -> list[str]:
        """Submissions of nobody on the roster."""
        return sorted({result.student for result in self.results} - set(self.roster)) if self.roster is not None else []


def write(book: Gradebook, grades: Path, show: Show = "titles") -> None:
    """Write all files but the results, each of them whole or not at all."""
    files = {"grades.csv": _grades(book), "summary.html": _summary(book)}
    if any(question.by_a_person for question in book.assignment.questions):
        files["written.csv"] = _written(book)
    for result in book.results:
        name = result_path(grades, result.student).stem
        files[f"feedback/{name}.html"] = _page("feedback.html", book=book, result=result, show=show)
    if board := leaderboard(book):
        files["leaderboard.html"] = _page("leaderboard.html", book=book, board=board)
        files["leaderboard.csv"] = _table([list(board[0]), *(row.values() for row in board)])
    for name, text in files.items():
        # What students write, and the names of their files, may hold halves of surrogate pairs, which no file can.
        write_atomically(grades / name, text.encode(errors="backslashreplace"))


# ---- Tables


def _grades(book: Gradebook) -> str:
    of = f"{book.assignment.points:g}"
    numbers = [question.number for question in book.assignment.questions]
    rows = [["student", "points", "of", *numbers, "state", "note", "file"]]
    for result in book.results:
        points = [f"{question.points:g}" for question in result.questions]
        remarks = [result.note] if result.note else []
        remarks += [f"waits for a person: {', '.join(result.waiting)}"] if result.waiting else []
        same = [group for group in book.duplicates if result.student in group]
        remarks += [f"the same code as {', '.join(set(group) - {result.student})}" for group in same]
        rows.append([result.student, f"{result.points:g}", of, *points, result.state, "; ".join(remarks), result.file])
    return _table([*rows, *([student, "0", of, *"0" * len(numbers), "missing", "", ""] for student in book.missing)])


def _written(book: Gradebook) -> str:
    left = {place: f"{points:g}" for place, points in book.by_hand.items()}
    rows = [["student", "question", "of", "points", "answer"]]
    for question in book.assignment.questions:
        for result in book.results if question.by_a_person else ():
            (found,) = (found for found in result.questions if found.number == question.number)
            if found.answer:
                points = left.pop((result.student, question.number), "")
                rows.append([result.student, question.number, f"{question.points:g}", points, found.answer])
    of = {question.number: f"{question.points:g}" for question in book.assignment.questions}
    return _table([*rows, *([student, number, of[number], points, ""] for (student, number), points in left.items())])


def read_written(path: Path, assignment: Assignment) -> dict[tuple[str, str], float]:
    """The points that a person has given. Raises ValueError for what is no number of points, with the line."""
    of = {question.number: question.points for question in assignment.questions if question.by_a_person}
    (_, heading), *rows = [*_rows(path)] if path.exists() and path.stat().st_size else [(0, [])]
    by_hand = {}
    for line, cells in rows:
        row = dict(zip([cell.strip().lower() for cell in heading], cells, strict=False))
        text, number = row.get("points", "").strip(), row.get("question", "").strip()
        if not text:
            continue
        if number not in of:
            there = f"there is no question {number!r} in words; there is {', '.join(of)}"
            raise ValueError(f"{path}, line {line}: {there}.")
        points = float(text.replace(",", ".")) if re.fullmatch(r"\d+([.,]\d*)?", text) else -1.0
        if not 0 <= points <= of[number]:
            raise ValueError(f"{path}, line {line}: {text!r} is no number of points from 0 to {of[number]:g}.")
        by_hand[row.get("student", ""), number] = points
    return by_hand


def read_roster(path: Path) -> list[str]:
    """The students' names: the first column of a CSV file, or one name per line. A heading is left out."""
    names = [cells[0].strip() for _, cells in _rows(path) if cells and cells[0].strip()]
    heading = names and re.fullmatch(r"(student|user|last|first|full|sur)?[ _]?(name|id|student)", names[0].lower())
    return names[1:] if heading else names


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file as spreadsheets save it (commas or semicolons, UTF-8 or not), each with its line."""
    csv.field_size_limit(1 << 30)  # an answer may hold a picture
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
    first = text.partition("\n")[0]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=";" if first.count(";") > first.count(",") else ",")
    for cells in rows:
        plain = [cell[1:] if cell[:1] == "'" and cell[1:2] in FORMULA else cell for cell in cells]
        yield rows.line_num, [unicodedata.normalize("NFC", cell) for cell in plain]


FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with which a formula begins; a student may have written one


def _table(rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    plain = (
        [f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell for cell in row] for row in rows
    )
    csv.writer(text, lineterminator="\n").writerows(plain)
    return text.getvalue()


# ---- Pages


def _page(name: str, **values: Any) -> str:
    from jinja2 import Environment, PackageLoader

    # What students wrote goes through autoescape: none of it becomes a tag.
    loader = PackageLoader("c2f_course.grading")
    pages = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return pages.get_template(name).render(**values)


def hardest(book: Gradebook) -> list[dict[str, Any]]:
    """The questions, hardest first: the share of points that was earned, and the hidden test that failed most."""
    rows = []
    for number, question in enumerate(book.assignment.questions):
        graded = [result.questions[number] for result in book.results if result.state == "graded"]
        points = [result.points for result in graded if not result.waits]
        failed = Counter(test.title for result in graded for test in result.tests if test.points < test.of)
        if points:
            share, full = statistics.mean(points) / question.points, points.count(question.points)
            worst = next(iter(failed.most_common(1)), None)
            rows.append({"question": question, "share": share, "full": full, "asked": len(points), "worst": worst})
    return sorted(rows, key=lambda row: row["share"])


def _summary(book: Gradebook) -> str:
    points = [result.points for result in book.results if result.state == "graded"]
    width = max(1, round(book.assignment.points / 20))  # of a bar: whole points, at most twenty-odd bars
    counts = Counter(int(value // width) for value in points)
    last = int(book.assignment.points) // width
    return _page(
        "summary.html", book=book, points=points, hardest=hardest(book),
        median=statistics.median(points or [0]), mean=statistics.mean(points or [0]),
        bars=[(number * width, counts[number]) for number in range(last + 1)] if points else [], width=width,
    )  # fmt: skip


def leaderboard(book: Gradebook) -> list[dict[str, Any]]:
    """Who has an accuracy, best first, with all else that was measured; empty where nothing was."""
    rows = []
    for result in book.results:
        measured = {key: value for question in result.questions for key, value in question.measured.items()}
        if isinstance(measured.get("accuracy"), float):
            rows.append({"rank": 0, "student": result.student, **measured})
    rows.sort(key=lambda row: -row["accuracy"])
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return [{**dict.fromkeys(keys, ""), **row, "rank": number} for number, row in enumerate(rows, 1)]
