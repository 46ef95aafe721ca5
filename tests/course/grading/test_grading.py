"""Grading a folder: honest and hostile submissions, a kill in the middle, tables and pages."""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from c2f.cli import main
from c2f_course.grading import grade, gradebook, sandbox
from c2f_course.grading.assignment import Assignment, HiddenTest, Partly, load_assignment, question, written
from c2f_course.grading.grade import Entry, HiddenResult, QuestionResult, Result
from c2f_course.grading.gradebook import Gradebook
from c2f_course.grading.release import COLAB
from c2f_course.grading.sandbox import Limits
from c2f_course.tasks.exercise import Hint

HERE = Path(__file__).parent
needs_sandbox = pytest.mark.skipif(sandbox.why_not() is not None, reason=str(sandbox.why_not()))
ASSIGNMENT = "1_convmod_from_scratch"


def _load(path: Path) -> dict:
    space: dict = {}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), space)
    return space


def solution() -> list[str]:
    notebook = nbformat.read(load_assignment(ASSIGNMENT).folder / "solution.ipynb", as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "code" and cell.source != COLAB]


def save(path: Path, cells: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells]), path)
    return path


def quick(cells: list[str]) -> list[str]:
    """Without the public checks, whose import takes seconds: what is graded is the same."""
    return [re.sub(r"^(checks\.|from c2f_course).*", "", cell, flags=re.MULTILINE) for cell in cells[:-1]]


# ---- Honest and hostile, side by side


@needs_sandbox
@pytest.mark.slow
def test_hostile_submissions_gain_nothing_and_harm_nobody(tmp_path: Path, monkeypatch) -> None:
    submissions, grades, assignment = tmp_path / "submissions", tmp_path / "grades", load_assignment(ASSIGNMENT)
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # so that a sandbox of ours has this path on its command line
    right, whole = quick(solution()), {question.number: question.points for question in assignment.questions}
    save(submissions / "anna.ipynb", right)
    wrong = [cell.replace("self.a(x) * self.v(x)", "self.a(x) + self.v(x)") for cell in right]
    save(submissions / "bert.ipynb", [cell.replace("(variance + eps)", "(variance - 7)") for cell in wrong])
    # one mistake is not counted twice: ConvMod is judged with a right norm, the block with a right ConvMod
    expected = {"anna": whole, "bert": {**whole, "1.1": 0, "1.3": 0}}
    hostile = _load(HERE / "hostile.py")
    heard, listener = [], socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=lambda: heard.append(listener.accept()), daemon=True).start()
    first = [right[0], right[1], "Block = None"]  # they have answered one question out of five
    places = {"tests": assignment.folder, "siblings": submissions, "grades": grades}
    for name, kinds in hostile["TOGETHER"].items():
        cells = [hostile["cell"](kind, port=listener.getsockname()[1], **places) for kind in kinds]
        save(submissions / f"{name}.ipynb", [*first, *cells])
    (submissions / "malformed.ipynb").write_text('{"cells": [{"cell_type": "code", "source": "x = 1"')
    with open(submissions / "large.ipynb", "wb") as file:
        file.write(b'{"cells": [')
        file.truncate(100 << 20)
    outside = {
        path: path.read_bytes()
        for path in [*submissions.iterdir(), *places["tests"].iterdir()]
        if path.is_file() and path.name != "large.ipynb"
    }
    assignment = replace(assignment, limits=Limits(seconds=90, cell_seconds=3, answer_seconds=30))
    results = list(grade.grade_folder(grade.find_submissions(submissions)[0], assignment, grades))
    points = {result.student: {q.number: q.points for q in result.questions} for result in results}
    assert {name: points[name] for name in expected} == expected
    for result in results:
        if result.student not in expected:
            assert result.points <= 3, result  # what the first question is worth, and they have answered it
    assert points["attempts"]["1.1"] == 3  # the process went on, and nothing of the attempts was there
    states = {result.student: result.state for result in results}
    assert states["malformed"] == "unreadable" and states["large"] == "too large"
    assert outside == {path: path.read_bytes() for path in outside}
    assert sorted(grades.iterdir()) == [grades / "results"]
    assert len(list((grades / "results").iterdir())) == len(results)
    assert heard == []
    assert _processes(str(tmp_path)) == _processes("sleep 4321") == ""
    listener.close()


# ---- A kill, and going on


def _grade(submissions: Path, grades: Path) -> list[str]:
    command = [sys.executable, "-m", "c2f", "course", "grade", str(submissions), "--assignment", "1"]
    command += ["--out", str(grades), "--jobs", "1"]
    return [*command, *([] if sandbox.why_not() is None else ["--no-sandbox"])]


@pytest.mark.slow
def test_after_a_kill_it_goes_on_where_it_was_and_leaves_no_process(tmp_path: Path, monkeypatch) -> None:
    submissions, grades = tmp_path / "submissions", tmp_path / "grades"
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (submissions / "anna.ipynb").parent.mkdir()
    (submissions / "anna.ipynb").write_text("no notebook: its result is there at once")
    save(submissions / "bert.ipynb", ["import time\ntime.sleep(1)\nname = 'bert'"])
    process = subprocess.Popen(_grade(submissions, grades), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # bert's process is there, and anna's result
    _wait_for(lambda: "answer.json" in _processes(str(tmp_path)) and any(grades.glob("results/*.json")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    _wait_for(lambda: not _processes(str(tmp_path)))
    kept = {path: path.stat().st_mtime_ns for path in grades.glob("results/*.json")}
    assert [path.stem for path in kept] == ["anna"] and not (grades / "grades.csv").exists()
    assert main(_grade(submissions, grades)[3:]) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert [row["student"] for row in _rows(grades / "grades.csv")] == ["anna", "bert"]


def _wait_for(condition, seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def _processes(with_text: str) -> str:
    lines = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True).stdout.splitlines()
    return "\n".join(line for line in lines if with_text in line)


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_what_has_changed_is_graded_again_and_nothing_else(tmp_path: Path, monkeypatch) -> None:
    asked = []

    def in_parallel(waiting, assignment, jobs):
        asked.append([entry.student for entry in waiting])
        yield from ((entry, None) for entry in waiting)

    def grade_all(assignment: Assignment) -> list[str]:
        entries, _ = grade.find_submissions(tmp_path / "in")
        return [result.state for result in grade.grade_folder(entries, assignment, tmp_path / "out")]

    monkeypatch.setattr(grade, "_in_parallel", in_parallel)
    for name in ("anna", "bert"):
        save(tmp_path / "in" / f"{name}.ipynb", [f"x = {name!r}"])
    assignment = load_assignment("1")
    for _ in range(2):
        assert grade_all(assignment) == ["failed", "failed"]  # a grader that died leaves a row
    save(tmp_path / "in" / "bert.ipynb", ["x = 2"])
    grade_all(assignment)
    grade_all(replace(assignment, limits=Limits(seconds=9)))
    assert asked == [["anna", "bert"], [], ["bert"], ["anna", "bert"]]


class Fatal:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple:
        return os._exit, (1,)


def test_a_submission_that_takes_the_grader_with_it_does_not_stop_the_rest(tmp_path: Path) -> None:
    entries = [Entry(name, Fatal() if name == "bert" else tmp_path) for name in ("anna", "bert", "carl", "dora")]
    results = dict(grade._in_parallel(entries, load_assignment("1"), jobs=2))
    assert {entry.student: result and result.state for entry, result in results.items()} == {
        "anna": "unreadable", "bert": None, "carl": "unreadable", "dora": "unreadable"
    }  # fmt: skip


# ---- Which file is whose


def test_files_and_folders_are_submissions_and_the_rest_is_listed(tmp_path: Path) -> None:
    for name in ("anna.ipynb", "bert/homework.ipynb", "carl/a.ipynb", "carl/b.ipynb", "dora.ipynb", "dora/x.ipynb",
                 "bert/.ipynb_checkpoints/homework-checkpoint.ipynb", ".hidden.ipynb", "gwen/hw-Copy1.ipynb",
                 "gwen/hw.ipynb", "hugo/.ipynb_checkpoints/hw-checkpoint.ipynb",
                 "Ida Lee_12345_assignsubmission_file_/hw.ipynb",
                 "jim_LATE_98765_43210_hw (1).ipynb", "jim_98765_43211_hw.ipynb", "kim_111_1111_hw.ipynb",
                 "kim_222_2222_hw.ipynb", "Le\u0301a.ipynb"):  # fmt: skip
        save(tmp_path / name, ["x = 1"])
    (tmp_path / "emil.py").write_text("x = 1")
    (tmp_path / "fred.ipynb").symlink_to("/etc/passwd")
    (tmp_path / "folder").symlink_to("/etc")
    entries, misnamed = grade.find_submissions(tmp_path)
    assert [(e.student, e.path.name) for e in entries] == [
        ("Ida Lee", "hw.ipynb"), ("L\u00e9a", "Le\u0301a.ipynb"), ("anna", "anna.ipynb"), ("bert", "homework.ipynb"),
        ("carl", "a.ipynb"), ("dora", "x.ipynb"), ("gwen", "hw.ipynb"), ("jim", "jim_98765_43211_hw.ipynb"),
        ("kim_111", "kim_111_1111_hw.ipynb"), ("kim_222", "kim_222_2222_hw.ipynb"),
    ]  # fmt: skip
    assert misnamed == {
        "carl/b.ipynb": "is one more notebook of the same student; a.ipynb is graded",
        "dora.ipynb": "has the name of the folder dora, which is graded",
        "emil.py": "is not called NAME.ipynb",
        "folder": "is no plain file",
        "fred.ipynb": "is no plain file",
        "gwen/hw-Copy1.ipynb": "is one more notebook of the same student; hw.ipynb is graded",
        "hugo": "holds no notebook",
        "jim_LATE_98765_43210_hw (1).ipynb": "is one more notebook of the same student; jim_98765_43211_hw.ipynb is "
        "graded",
    }


@pytest.mark.parametrize(("name", "sentence"), [("nothing", "no folder"), (".", "no notebook in")])
def test_a_folder_without_submissions(tmp_path: Path, name: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        grade.find_submissions(tmp_path / name)


def test_the_same_code_is_found_whatever_the_outputs(tmp_path: Path) -> None:
    assignment = load_assignment("1")
    blank = nbformat.read(assignment.student_notebook, as_version=4)
    for name, own in (("anna", "y = 1"), ("bert", "y = 1  "), ("carl", "y = 2"), ("dora", None), ("emil", None)):
        copy = nbformat.from_dict(json.loads(json.dumps(blank)))
        if own:
            copy.cells[2].source = own
            copy.cells[2].outputs = [nbformat.v4.new_output("stream", text=name)]
        nbformat.write(copy, tmp_path / f"{name}.ipynb")
    (tmp_path / "fred.ipynb").write_text("no notebook")
    assert grade.duplicates(grade.find_submissions(tmp_path)[0], assignment) == [["anna", "bert"]]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"cells": 3}', '{"cells": [{}]}', "[" * 100_000, '{"cells": []}', "\x00"]
)
def test_a_file_that_is_no_notebook_gets_a_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "anna.ipynb").write_text(content)
    result = grade.grade_notebook(tmp_path / "anna.ipynb", load_assignment("1"))
    assert result.state in ("empty", "unreadable") and result.note.endswith(".")
    assert result.points == 0 and len(result.questions) == 5


def test_what_cannot_be_graded_says_why(tmp_path: Path) -> None:
    assignment = load_assignment("1")
    result = grade.grade_notebook(tmp_path / "gone.ipynb", assignment)  # as one that may not be read
    assert (result.state, result.note) == ("unreadable", "the file cannot be read: No such file or directory.")
    result = grade.grade_notebook(load_assignment("2").student_notebook, assignment)
    assert result.state == "other assignment" and "2_training_loop; hand in that of 1_convmod" in result.note
    result = grade.grade_notebook(save(tmp_path / "long.ipynb", ["x = !ls\n" * 30_000]), assignment)
    assert result.state == "too large" and "240,000 characters, and 200,000 are read" in result.note


def test_a_notebook_as_it_was_handed_out(tmp_path: Path) -> None:
    assignment = load_assignment("1")
    (tmp_path / "anna.ipynb").write_bytes(assignment.student_notebook.read_bytes())
    assert grade.grade_notebook(tmp_path / "anna.ipynb", assignment).state == "not begun"


def test_no_two_students_share_a_file(tmp_path: Path) -> None:
    names = ["anna", "../anna", "a/b", "a_b", "..", "", "Ann\u00e4", "x" * 300, "x" * 301, "anna;rm"]
    paths = [grade.result_path(tmp_path, name) for name in names]
    assert len(set(paths)) == len(names)
    assert all(path.parent == tmp_path / "results" and len(path.name) < 110 for path in paths)


# ---- Tables and pages


@question("9.1", "Doubling", "easy", 5, points=3, answers="double", without=("add",))
def double(answer) -> str:
    if answer(2) != 4:
        raise Hint("twice two is four.")
    return "right."


IN_WORDS = written("9.2", "Why", 10, points=2)


def book(tmp_path: Path, **settings) -> Gradebook:
    tests = (HiddenTest(double, 2, "of negative numbers", double.check), HiddenTest(double, 1, "of zero", double.check))
    (tmp_path / "9_doubling.ipynb").write_text('{"cells": [{"source": "# Assignment 9: Doubling"}]}')
    assignment = Assignment("9_doubling", (double, IN_WORDS), tests, tmp_path, "digest", Limits())

    def result(student: str, *points: float, note: str = "", **more) -> Result:
        state = "passed" if sum(points) == 3 else "hint"
        tests = [
            HiddenResult(test.title, p, test.points, "passed" if p else "<b>minus</b> two")
            for test, p in zip(assignment.tests, points, strict=False)
        ]
        questions = [
            QuestionResult("9.1", "Doubling", 3, state, "<script>alert(1)</script>", tests, more.pop("measured", {})),
            QuestionResult("9.2", "Why", 2, "words", answer=more.pop("answer", "")),
        ]
        return Result(student, f"{student}.ipynb", "d", "unreadable" if note else "graded", note, questions, **more)

    results = [
        result("anna", 2, 1, answer="=SUM(A1)<i>because</i>", measured={"accuracy": 0.8, "name": "<u>A</u>"}),
        result("bert", 0, 1, measured={"accuracy": 0.9, "parameters": 1000}),
        result("<carl>", note="no notebook."),
    ]
    return Gradebook(
        assignment, results, duplicates=[["anna", "bert"]], misnamed={"x.py": "is not called NAME.ipynb"}, **settings
    )


def test_the_table_has_a_row_a_student(tmp_path: Path) -> None:
    gradebook.write(book(tmp_path, roster=["anna", "dora"]), tmp_path)
    rows = _rows(tmp_path / "grades.csv")
    assert [(row["student"], row["points"], row["9.1"], row["9.2"], row["state"]) for row in rows] == [
        ("anna", "3", "3", "0", "graded"), ("bert", "1", "1", "0", "graded"), ("<carl>", "0", "0", "0", "unreadable"),
        ("dora", "0", "0", "0", "missing"),
    ]  # fmt: skip
    assert rows[0]["note"] == "waits for a person: 9.2; the same code as bert"


def test_a_persons_points_are_added_and_kept(tmp_path: Path) -> None:
    first = book(tmp_path)
    gradebook.write(first, tmp_path)
    (row,) = _rows(tmp_path / "written.csv")
    assert row["answer"] == "'=SUM(A1)<i>because</i>" and row["points"] == ""  # no formula for a spreadsheet
    (tmp_path / "written.csv").write_text('student,question,of,points,answer\nanna,9.2,2,"1,5",x\n')
    given = gradebook.read_written(tmp_path / "written.csv", first.assignment)
    gradebook.write(book(tmp_path, by_hand=given), tmp_path)
    assert _rows(tmp_path / "grades.csv")[0]["points"] == "4.5"
    assert _rows(tmp_path / "written.csv")[0]["points"] == "1.5"


AS_SAVED = [
    "Student;Question;Of;Points;Answer\nanna;9.2;2;1,5;x\nL\u00e9a;9.2;2;2;x\n'-zoe;9.2;2;1;x\n".encode("cp1252"),
    "\ufeffSTUDENT,question,of,Points,answer\nanna,9.2,2,1.5,{}\nLe\u0301a,9.2,2,2,x\n'-zoe,9.2,2,1,x\n"
    .format("x" * 200_000).encode(),
]  # fmt: skip


@pytest.mark.parametrize("table", AS_SAVED)
def test_points_are_read_as_spreadsheets_save_them_and_stay(tmp_path: Path, table: bytes) -> None:
    (tmp_path / "written.csv").write_bytes(table)
    for _ in range(2):  # what is written is read again, also of students who are not among these submissions
        given = gradebook.read_written(tmp_path / "written.csv", book(tmp_path).assignment)
        assert given == {("anna", "9.2"): 1.5, ("L\u00e9a", "9.2"): 2, ("-zoe", "9.2"): 1}
        gradebook.write(book(tmp_path, by_hand=given), tmp_path)
    assert "'-zoe" in (tmp_path / "written.csv").read_text()


@pytest.mark.parametrize(("line", "sentence"), [("anna,9.2,2,3,x", "from 0 to 2"), ("anna,9.2,2,good,x", "'good' is "
 "no"),
                                                ("anna,9.1,2,1,x", "no question '9.1' in words")])  # fmt: skip
def test_points_that_cannot_be(tmp_path: Path, line: str, sentence: str) -> None:
    (tmp_path / "written.csv").write_text(f"student,question,of,points,answer\n{line}\n")
    with pytest.raises(ValueError, match=f"line 2: .*{sentence}"):
        gradebook.read_written(tmp_path / "written.csv", book(tmp_path).assignment)


@pytest.mark.parametrize(
    ("show", "title", "hint"), [("points", False, False), ("titles", True, False), ("hints", True, True)]
)
def test_feedback_shows_of_hidden_tests_what_the_instructor_chose(
    tmp_path: Path, show, title: bool, hint: bool
) -> None:
    gradebook.write(book(tmp_path), tmp_path, show)
    page = (tmp_path / "feedback" / "bert.html").read_text()
    assert ("of negative numbers" in page) == title and ("&lt;b&gt;minus" in page) == hint
    assert "<script>" not in page and "&lt;script&gt;" in page  # what others wrote is text
    assert "1 of 5 points" in page and "Assignment 9: Doubling" in page
    carl = next((tmp_path / "feedback").glob("_carl_*.html")).read_text()
    assert "no notebook." in carl and "Question" not in carl


def test_the_summary_tells_how_it_went(tmp_path: Path) -> None:
    gradebook.write(book(tmp_path, roster=["anna", "<carl>", "dora"]), tmp_path)
    page = (tmp_path / "summary.html").read_text()
    for told in (
        "2 of 3 submissions graded",
        "Median 2",
        "of negative numbers (1)",
        "67 %",
        "x.py",
        "anna, bert",
        "dora",
        "Not on the roster",
    ):
        assert told in page, told
    assert page.count("<rect") == 6 and "&lt;carl&gt;" in page and "<carl>" not in page


def test_the_leaderboard_is_in_order_of_accuracy(tmp_path: Path) -> None:
    gradebook.write(book(tmp_path), tmp_path)
    rows = _rows(tmp_path / "leaderboard.csv")
    assert [(row["rank"], row["student"], row["accuracy"]) for row in rows] == [
        ("1", "bert", "0.9"),
        ("2", "anna", "0.8"),
    ]
    page = (tmp_path / "leaderboard.html").read_text()
    assert "90.0 %" in page and "1000" in page and "&lt;u&gt;A" in page and "anna" not in page


def test_a_roster_is_a_table_or_a_list(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\ufeffStudent,Mail\nanna,a@b\n\nbert,b@b\n")
    (tmp_path / "b.csv").write_text("anna\nbert\n")
    (tmp_path / "c.csv").write_text("Username;Last name\nanna;A\nbert;B\n")
    (tmp_path / "d.csv").write_bytes("L\u00e9a\n".encode("cp1252"))
    for name in "abc":
        assert gradebook.read_roster(tmp_path / f"{name}.csv") == ["anna", "bert"]
    assert gradebook.read_roster(tmp_path / "d.csv") == ["L\u00e9a"]


def test_answers_in_words_are_found_below_their_heading() -> None:
    heading, gap = ("markdown", IN_WORDS.heading + "\n\nSay why."), ("markdown", "*Write here.*")
    handed_out = [("markdown", "# Title"), heading, gap, ("markdown", "## The end")]
    cells = [
        handed_out[0],
        heading,
        ("markdown", "Since it is."),
        ("code", "x = 1"),
        ("markdown", "## And so\n\nit is."),
        handed_out[3],
    ]
    assert grade.written_answer(cells, handed_out, IN_WORDS) == "Since it is.\n\n## And so\n\nit is."
    assert grade.written_answer(handed_out, handed_out, IN_WORDS) == ""
    own = [handed_out[0], ("markdown", heading[1] + "\n\nSince it is."), *handed_out[2:]]
    assert grade.written_answer(own, handed_out, IN_WORDS) == "Since it is."


def test_points_in_part_and_what_was_measured(tmp_path: Path) -> None:
    class Local:
        def answers(self, asked):
            return [lambda x: 2 * x]

    def measure(answer) -> Partly:
        return Partly(0.5, "half way.", {"accuracy": answer(0.4)})

    result = grade.judge(double, [HiddenTest(double, 2, "measured", measure)], Local(), [])
    assert (result.points, result.measured, result.tests[0].message) == (1.0, {"accuracy": 0.8}, "half way.")
    refused = grade.judge(double, [HiddenTest(double, 2, "measured", measure)], Local(), ["add"])
    assert refused.points == 0 and "it uses add" in refused.message


# ---- The commands


def test_grade_says_what_is_wrong_before_it_begins(tmp_path: Path, capsys) -> None:
    save(tmp_path / "in" / "anna.ipynb", ["x = 1"])
    for arguments, sentence in [
        ([str(tmp_path / "nothing"), "--assignment", "1", "--out", str(tmp_path / "out")], "there is no folder"),
        ([str(tmp_path / "in"), "--assignment", "12", "--out", str(tmp_path / "out")], "there is no assignment '12'"),
        ([str(tmp_path / "in"), "--assignment", "1", "--out", str(tmp_path / "in" / "out")], "keep grades beside"),
        ([str(tmp_path / "in"), "--assignment", "1", "--out", str(tmp_path / "out"), "--jobs", "-1"], "use 0 for one"),
    ]:
        assert main(["course", "grade", *arguments]) == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_a_sandbox_it_is_refused_unless_the_instructor_says_so(tmp_path: Path, capsys, monkeypatch) -> None:
    save(tmp_path / "in" / "anna.ipynb", ["x = 1"])
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    monkeypatch.setattr(grade, "_in_parallel", lambda waiting, *_: ((entry, None) for entry in waiting))
    arguments = ["course", "grade", str(tmp_path / "in"), "--assignment", "1", "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert "apt install bubblewrap" in capsys.readouterr().err
    assert main([*arguments, "--no-sandbox"]) == 0
    told = capsys.readouterr()
    assert "may do all that you may" in told.err and "anna.ipynb: failed" in told.out


def test_on_windows_grading_says_at_once_that_it_needs_linux(tmp_path: Path, capsys, monkeypatch) -> None:
    save(tmp_path / "in" / "anna.ipynb", ["x = 1"])
    monkeypatch.setattr(sandbox.platform, "system", lambda: "Windows")
    arguments = ["course", "grade", str(tmp_path / "in"), "--assignment", "1", "--out", str(tmp_path / "out")]
    for also in ([], ["--no-sandbox"]):
        assert main([*arguments, *also]) == 2
        assert "grading needs Linux: install WSL" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_release_and_build_say_what_they_wrote(tmp_path: Path, capsys) -> None:
    assert main(["course", "build"]) == 0
    assert main(["course", "release", "1", "--out", str(tmp_path / "kit.zip")]) == 0
    assert f"with {ASSIGNMENT}" in capsys.readouterr().out
    assert main(["course", "release", "seven", "--out", str(tmp_path / "kit.zip")]) == 2
