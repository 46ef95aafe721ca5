"""`c2f course`: the instructor's commands `build`, `release`, `grade`, beside the learner's."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from c2f_course.learner import Fresh, Lab


@dataclass
class Build:
    """Make the students' notebooks, the solutions and the hidden tests from the assignments' source notebooks."""

    def run(self) -> int:
        from c2f_course.grading.release import build_all

        changed = build_all()
        print(*(f"wrote {path}" for path in changed), sep="\n") if changed else print("all is as the sources say.")
        return 0


@dataclass
class Release:
    """Write one zip for the students: the kit, the course, and assignments without solutions and hidden tests."""

    assignments: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names or numbers; by default all."""
    out: Path = Path("c2f-course.zip")
    """The zip."""

    def run(self) -> int:
        from c2f_course.grading.assignment import load_assignment, names_of_assignments
        from c2f_course.grading.release import release

        names = [load_assignment(name).name for name in self.assignments] or names_of_assignments()
        members = release(self.out, names)
        print(f"{self.out}: {self.out.stat().st_size / 2**20:.1f} MiB, {len(members)} files, with {', '.join(names)}")
        return 0


@dataclass
class Grade:
    """Grade a folder of submissions: NAME.ipynb, or NAME/anything.ipynb as learning platforms unpack them.

    Where it was cut off, the same command goes on; what has changed since is graded again.
    """

    submissions: tyro.conf.Positional[Path]
    """The folder."""
    assignment: str
    """Its name or its number, such as 1."""
    out: Path
    """Where grades.csv, summary.html and the rest go."""
    show: Literal["points", "titles", "hints"] = "titles"
    """What feedback says of hidden tests: points alone, which of them failed, or also what went wrong."""
    roster: Path | None = None
    """A CSV file whose first column has the students' names: who is missing from it, or from the folder, is listed."""
    jobs: int = 0
    """Submissions graded at the same time; 0 for one each processor."""
    sandbox: bool = True
    """--no-sandbox runs the submissions as you, with all that you may do."""

    def run(self) -> int:
        from tqdm.auto import tqdm

        from c2f_course.grading import grade, gradebook, sandbox
        from c2f_course.grading.assignment import load_assignment

        entries, misnamed = grade.find_submissions(self.submissions)
        assignment = load_assignment(self.assignment)
        assignment = replace(assignment, limits=replace(assignment.limits, sandboxed=self.sandbox))
        by_hand = gradebook.read_written(self.out / "written.csv", assignment)
        roster = gradebook.read_roster(self.roster) if self.roster else None
        if self.jobs < 0:
            raise ValueError(f"--jobs is {self.jobs}; use 0 for one each processor, or a number of them.")
        if self.out.resolve().is_relative_to(self.submissions.resolve()):
            inside = f"{self.out} is inside {self.submissions}"
            raise ValueError(f"{inside}; keep grades beside the submissions, not among them.")
        if why := sandbox.why_not(self.sandbox):
            raise ValueError(why)
        if not self.sandbox:
            print("c2f: without a sandbox each submission runs as you and may do all that you may.", file=sys.stderr)
        graded = grade.grade_folder(entries, assignment, self.out, self.jobs)
        results = list(tqdm(graded, total=len(entries), unit="submission", file=sys.stderr))
        results.sort(key=lambda result: result.student)
        same = grade.duplicates(entries, assignment)
        book = gradebook.Gradebook(assignment, results, by_hand, same, misnamed, roster)
        gradebook.write(book, self.out, self.show)
        ungraded = [result for result in results if result.state != "graded"]
        tables = f"{self.out / 'grades.csv'}, {self.out / 'summary.html'}"
        lines = [f"{len(results) - len(ungraded)} of {len(results)} submissions graded: {tables}"]
        lines += [f"  {result.file}: {result.state}, {result.note}" for result in ungraded]
        lines += [f"  {file} {why}" for file, why in misnamed.items()]
        if words := sum(len(result.waiting) for result in results):
            written = self.out / "written.csv"
            lines.append(f"{words} answers in words wait in {written}: fill in points, run this again.")
        print("\n".join(lines).encode(errors="backslashreplace").decode())  # a file's name may be no text
        return 0


@dataclass
class Course:
    """The course: open your copy of the notebooks, or make, hand out and grade assignments."""

    command: tyro.conf.OmitSubcommandPrefixes[
        Annotated[Lab, tyro.conf.subcommand("lab")]
        | Annotated[Fresh, tyro.conf.subcommand("fresh")]
        | Annotated[Build, tyro.conf.subcommand("build")]
        | Annotated[Release, tyro.conf.subcommand("release")]
        | Annotated[Grade, tyro.conf.subcommand("grade")]
    ]

    def run(self) -> int:
        return self.command.run()
