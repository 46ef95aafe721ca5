"""From results to what is read: a table for the registry, a page for each student, a summary, a leaderboard.

GRADES/
    grades.csv         a row a student: points, and points of each question
    written.csv        answers in words, with a column of points for a person to fill in; the next run adds them
    feedback/NAME.html one page a student
    summary.html       how it went: histogram, the hardest questions, what could not be graded
    leaderboard.html   where something was measured, such as an accuracy
    results/NAME.json  all that is known; the files above are made from these
"""

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from c2f.files import write_atomically
from c2f_course.grading.assignment import Assignment
from c2f_course.grading.grade import Result, result_path

Show = Literal["points", "titles", "hints"]
"""What a student is told of hidden tests: their points, which of them failed, or also what went wrong."""


@dataclass
class Gradebook:
    """All results of an assignment, and what a person has graded."""

    assignment: Assignment
    results: Sequence[Result]
    written: dict[tuple[str, str], float] = field(default_factory=dict)
    """(student, question) -> points given by a person."""
    duplicates: Sequence[Sequence[str]] = ()
    misnamed: dict[str, str] = field(default_factory=dict)
    missing: Sequence[str] = ()
    """Students of the roster who handed nothing in."""
    strangers: Sequence[str] = ()
    """Submissions of nobody on the roster."""

    def points(self, result: Result) -> float:
        by_hand = sum(self.written.get((result.student, number), 0.0) for number in result.written)
        return round(result.points + by_hand, 2)

    def points_of(self, result: Result, number: str) -> float:
        tested = sum(question.points for question in result.questions if question.number == number)
        return round(tested + self.written.get((result.student, number), 0.0), 2)

    def waiting(self, result: Result) -> list[str]:
        """Questions in words that nobody has graded yet."""
        return [number for number in result.written if (result.student, number) not in self.written]

    @property
    def title(self) -> str:
        return self.assignment.title


def write(book: Gradebook, grades: Path, show: Show = "titles") -> None:
    """Write all files but the results, each of them whole or not at all."""
    _write(grades / "grades.csv", _grades(book))
    if any(question.by_a_person for question in book.assignment.questions):
        _write(grades / "written.csv", _written(book))
    for result in book.results:
        name = result_path(grades, result.student).stem
        page = _page("feedback.html", book=book, result=result, show=show)
        _write(grades / "feedback" / f"{name}.html", page)
    _write(grades / "summary.html", _summary(book))
    if board := leaderboard(book):
        _write(grades / "leaderboard.html", _page("leaderboard.html", book=book, board=board))
        _write(grades / "leaderboard.csv", _table(list(board[0]), [list(row.values()) for row in board]))


def _write(path: Path, text: str) -> None:
    """What students write, and the names of their files, may hold halves of surrogate pairs, which no file can."""
    write_atomically(path, text.encode(errors="backslashreplace"))


# ---- Tables


def _grades(book: Gradebook) -> str:
    numbers = [question.number for question in book.assignment.questions]
    rows = [
        [
            result.student, f"{book.points(result):g}", f"{book.assignment.points:g}",
            *(f"{book.points_of(result, number):g}" for number in numbers),
            result.state, _remarks(book, result), result.file,
        ]
        for result in book.results
    ]  # fmt: skip
    rows += [
        [student, "0", f"{book.assignment.points:g}", *("0" for _ in numbers), "missing", "", ""]
        for student in book.missing
    ]
    return _table(["student", "points", "of", *numbers, "state", "note", "file"], rows)


def _remarks(book: Gradebook, result: Result) -> str:
    remarks = [result.note] if result.note else []
    remarks += [f"waits for a person: {', '.join(waiting)}"] if (waiting := book.waiting(result)) else []
    remarks += [
        f"the same code as {', '.join(set(group) - {result.student})}"
        for group in book.duplicates
        if result.student in group
    ]
    return "; ".join(remarks)


def _written(book: Gradebook) -> str:
    given = {place: f"{points:g}" for place, points in book.written.items()}
    rows = [
        [result.student, q.number, f"{q.points:g}", given.get((result.student, q.number), ""), result.written[q.number]]
        for q in book.assignment.questions if q.by_a_person
        for result in book.results if q.number in result.written
    ]  # fmt: skip
    return _table(["student", "question", "of", "points", "answer"], rows)


def read_written(path: Path, assignment: Assignment) -> dict[tuple[str, str], float]:
    """The points that a person has given. Raises ValueError for what is no number of points, with the line."""
    if not path.exists():
        return {}
    of = {question.number: question.points for question in assignment.questions if question.by_a_person}
    given = {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        for row in rows:
            if not (text := (row.get("points") or "").strip()):
                continue
            where, number = f"{path}, line {rows.line_num}", row.get("question", "")
            if number not in of:
                raise ValueError(f"{where}: there is no question {number!r} in words; there is {', '.join(of)}.")
            try:
                points = float(text.replace(",", "."))
            except ValueError:
                points = -1.0
            if not 0 <= points <= of[number]:
                raise ValueError(f"{where}: {text!r} is no number of points from 0 to {of[number]:g}.")
            given[str(row.get("student")), number] = points
    return given


def read_roster(path: Path) -> list[str]:
    """The students' names: the first column of a CSV file, or a name a line. A heading "student" is left out."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        names = [row[0].strip() for row in csv.reader(file) if row and row[0].strip()]
    return [name for number, name in enumerate(names) if number or name.lower() not in ("student", "name", "id")]


def _table(heading: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows([[_harmless(cell) for cell in row] for row in rows])
    return text.getvalue()


def _harmless(cell: Any) -> Any:
    """A spreadsheet takes a text that begins with = for a formula; a student may have written one."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


# ---- Pages


def _page(name: str, **values: Any) -> str:
    from jinja2 import Environment, PackageLoader

    # What students wrote goes through autoescape: none of it becomes a tag.
    pages = Environment(
        loader=PackageLoader("c2f_course.grading"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return pages.get_template(name).render(**values)


def hardest(book: Gradebook) -> list[dict[str, Any]]:
    """The questions, hardest first: the share of points that was earned, and the hidden test that failed most."""
    graded = [result for result in book.results if result.state == "graded"]
    rows = []
    for question in book.assignment.questions:
        asked = [r for r in graded if not (question.by_a_person and question.number in book.waiting(r))]
        if not asked:
            continue
        share = statistics.mean(book.points_of(result, question.number) for result in asked) / question.points
        full = sum(book.points_of(result, question.number) == question.points for result in asked)
        found = [q for result in asked for q in result.questions if q.number == question.number]
        failed: dict[str, int] = {}
        for test in [test for one in found for test in one.tests if test.points < test.of]:
            failed[test.title] = failed.get(test.title, 0) + 1
        worst = max(failed.items(), key=lambda item: item[1], default=None)
        rows.append({"question": question, "share": share, "full": full, "asked": len(asked), "worst": worst})
    return sorted(rows, key=lambda row: row["share"])


def _summary(book: Gradebook) -> str:
    graded = [book.points(result) for result in book.results if result.state == "graded"]
    numbers = {"graded": len(graded), "points": book.assignment.points}
    if graded:
        numbers |= {
            "median": statistics.median(graded),
            "mean": statistics.mean(graded),
            "low": min(graded),
            "high": max(graded),
        }
    ungraded = [result for result in book.results if result.state != "graded"]
    return _page(
        "summary.html", book=book, numbers=numbers, hardest=hardest(book), ungraded=ungraded,
        histogram=_histogram(graded, book.assignment.points) if graded else None,
        slowest=sorted(book.results, key=lambda result: -result.seconds)[:3],
    )  # fmt: skip


def _histogram(points: Sequence[float], of: float) -> dict[str, Any]:
    """Bars of whole points (at most twenty-odd), for the page to draw: (from, to, students)."""
    width = max(1, round(of / 20))
    bars = [[low, low + width, 0] for low in range(0, int(of) + 1, width)]
    for value in points:
        bars[min(int(value // width), len(bars) - 1)][2] += 1
    return {"bars": bars, "most": max(bar[2] for bar in bars), "width": width}


def leaderboard(book: Gradebook) -> list[dict[str, Any]]:
    """Who has an accuracy, best first, with whatever else was measured; empty where nothing was."""
    rows = []
    for result in book.results:
        measured = {key: value for question in result.questions for key, value in question.measured.items()}
        if isinstance(measured.get("accuracy"), float):
            rows.append({"rank": 0, "student": result.student, **measured})
    rows.sort(key=lambda row: -row["accuracy"])
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return [{**dict.fromkeys(keys, ""), **row, "rank": number} for number, row in enumerate(rows, 1)]
