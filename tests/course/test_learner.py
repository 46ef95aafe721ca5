"""A learner's copy of the notebooks: made once, never written over, cleared, and told of newer versions."""

import json
import re
import shutil
import subprocess
from datetime import datetime
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from c2f import cli
from c2f_course import learner

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 28, 12, 34)
WINDOWS_REFUSES = re.compile(r'[<>:"|?*\\/\x00-\x1f]|[ .]$')  # in a file's name


def write(path: Path, text: str, count: int | None = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    outputs = [new_output("stream", text="the answer\n")]
    cells = [new_markdown_cell(text, id="a"), new_code_cell("print(1)", id="b", outputs=outputs, execution_count=count)]
    nbformat.write(new_notebook(cells=cells), path)


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with notebooks/, which is the working folder of an installed kit."""
    for name in ("00_start_here", "02_building_convmod", "assignments/1_from_scratch/1_from_scratch"):
        write(tmp_path / "notebooks" / f"{name}.ipynb", f"# {name}")
    for name in ("assignments/1_from_scratch/solution", "assignments/1_from_scratch/source", "Untitled"):
        write(tmp_path / "notebooks" / f"{name}.ipynb", "not for learners")
    write(tmp_path / "notebooks" / ".ipynb_checkpoints" / "00_start_here-checkpoint.ipynb", "of JupyterLab")
    monkeypatch.setattr(learner.c2f_course, "__file__", str(tmp_path / "site-packages" / "c2f_course" / "__init__.py"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options with which JupyterLab was started, were it started."""
    labapp, options = pytest.importorskip("jupyterlab.labapp"), []
    monkeypatch.setattr(labapp, "main", options.extend)
    monkeypatch.setenv("PATH", "")
    return options


def files(clone: Path) -> list[str]:
    copy = clone / "my_notebooks"
    return sorted(path.relative_to(copy).as_posix() for path in copy.rglob("*.ipynb"))


THREE = ["00_start_here.ipynb", "02_building_convmod.ipynb", "assignments/1_from_scratch.ipynb"]


def test_lab_makes_the_copy_without_outputs_and_opens_its_first_notebook(
    clone: Path, opened: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["course", "lab", "--", "--no-browser", "--ServerApp.port_retries=0"]) == 0
    assert files(clone) == THREE
    for name in THREE:
        notebook = nbformat.read(clone / "my_notebooks" / name, as_version=nbformat.NO_CONVERT)
        nbformat.validate(notebook)
        assert notebook.cells[0].source == "# " + {THREE[2]: "assignments/1_from_scratch/1_from_scratch"}.get(
            name, name[:-6]
        )
        assert (notebook.cells[1].outputs, notebook.cells[1].execution_count) == ([], None)
    assert capsys.readouterr().out == f"c2f: your copy of the notebooks is in {clone / 'my_notebooks'}\n"
    first = "--LabApp.default_url=/lab/tree/my_notebooks/00_start_here.ipynb"
    assert opened == [f"--notebook-dir={clone}", first, "--allow-root", "--no-browser", "--ServerApp.port_retries=0"]


def test_the_copy_is_never_written_over_and_gets_what_it_lacks(clone: Path) -> None:
    assert learner.update(clone / "notebooks") == []
    mine, lost = clone / "my_notebooks" / THREE[0], clone / "my_notebooks" / THREE[2]
    write(mine, "my own answer")
    before = mine.read_bytes()
    lost.unlink()
    write(clone / "notebooks" / "10_new.ipynb", "# new in an update")
    assert learner.update(clone / "notebooks") == []
    assert mine.read_bytes() == before and files(clone) == sorted([*THREE, "10_new.ipynb"])


def test_a_notebook_of_an_older_version_is_left_alone_and_named(
    clone: Path, opened: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    learner.update(clone / "notebooks")
    write(clone / "notebooks" / THREE[0], "# 00_start_here", count=7)  # the same notebook, run again
    assert learner.update(clone / "notebooks") == []
    mine = clone / "my_notebooks" / THREE[1]
    before = mine.read_bytes()
    for name in ("02_building_convmod", "assignments/1_from_scratch/1_from_scratch"):
        write(clone / "notebooks" / f"{name}.ipynb", "# better")
    for _ in range(2):  # it is said until there is a fresh copy
        assert cli.main(["course", "lab"]) == 0
        *_, line = capsys.readouterr().out.splitlines()
        assert line == (
            "c2f: the kit has newer versions of 02, assignments/1; `c2f course fresh 02` adds it and keeps yours"
        )
    assert mine.read_bytes() == before
    learner.refresh(clone / "notebooks", "02", NOW)
    assert learner.update(clone / "notebooks") == [THREE[2]]


def test_in_the_students_zip_assignments_have_no_folders(clone: Path) -> None:
    write(clone / "notebooks" / "assignments" / "2_training_loop.ipynb", "# 2")
    assert list(learner.originals(clone / "notebooks")) == [*THREE, "assignments/2_training_loop.ipynb"]


@pytest.mark.parametrize("content", ["", "{", "[1]", "3", '{"00_start_here.ipynb": 3}', None])
def test_damaged_digests_stop_nothing(clone: Path, content: str | None) -> None:
    learner.update(clone / "notebooks")
    digests = clone / "my_notebooks" / ".digests.json"
    digests.unlink() if content is None else digests.write_text(content)
    assert learner.update(clone / "notebooks") in ([], [THREE[0]])
    assert files(clone) == THREE


def test_after_a_power_cut_the_next_call_adds_the_rest(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(path: Path, content: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(learner, "write_atomically", cut)
        learner.update(clone / "notebooks")
    write(clone / "notebooks" / THREE[0], "# and then came an update")
    assert learner.update(clone / "notebooks") == [] and files(clone) == THREE


@pytest.mark.parametrize("wanted", ["02", "2", "02_building_convmod", "my_notebooks/02_building_convmod.ipynb"])
def test_fresh_keeps_the_learners_own_under_names_that_windows_takes(clone: Path, wanted: str) -> None:
    learner.update(clone / "notebooks")
    mine = clone / "my_notebooks" / THREE[1]
    fresh, own = mine.read_bytes(), []
    for i in range(3):  # within a minute
        write(mine, f"my own answer {i}")
        own.append(mine.read_bytes())
        path, kept = learner.refresh(clone / "notebooks", wanted, NOW)
        assert path == mine and mine.read_bytes() == fresh
        assert kept.read_bytes() == own[i] and not WINDOWS_REFUSES.search(kept.name)
    names = [f"02_building_convmod (before 2026-11-28 12.34{end}).ipynb" for end in ("", ", 2", ", 3")]
    assert [(clone / "my_notebooks" / name).read_bytes() for name in names] == own


def test_fresh_makes_what_is_not_there(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["course", "fresh", "assignments/1"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"{clone / 'my_notebooks' / THREE[2]} is fresh."
    assert files(clone) == THREE
    assert cli.main(["course", "fresh", "assignments/1"]) == 0
    assert re.search(
        r"is fresh, and yours is now '1_from_scratch \(before .*\)\.ipynb'\.$", capsys.readouterr().out, re.M
    )


@pytest.mark.parametrize("wanted", ["12", "", "assignments/7", "two"])
def test_a_wrong_number_gets_one_sentence(clone: Path, wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["course", "fresh", wanted]) == 2
    sentence = f"c2f: there is no notebook {wanted!r}; the notebooks are 00, 02, assignments/1.\n"
    assert capsys.readouterr().err == sentence
    assert not (clone / "my_notebooks").exists()


@pytest.mark.parametrize("command", [["lab"], ["fresh", "02"]])
def test_packages_without_notebooks_say_so(clone: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(clone / "notebooks")
    assert cli.main(["course", *command]) == 2
    assert capsys.readouterr().err == (
        "c2f: the installed packages have no notebooks; run this in a clone of the kit, which has them.\n"
    )


# The kit's own notebooks


def test_the_kits_notebooks_are_copied_whole_and_their_links_lead_somewhere(tmp_path: Path) -> None:
    kit = learner.originals(ROOT / "notebooks")
    sources = [*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "notebooks" / "assignments").glob("*/[0-9]_*.ipynb")]
    assert [Path(place).name for place in kit] == [path.name for path in sorted(sources)]
    for place, content in kit.items():
        cells = json.loads(content)["cells"]
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells), place
        text = "".join(line for cell in cells if cell["cell_type"] == "markdown" for line in cell["source"])
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            target = (ROOT / "my_notebooks" / place).parent / link
            assert Path(re.sub(r"/my_notebooks/(assignments/)?\.\./", "/", target.as_posix())).exists(), (place, link)


def test_git_does_not_know_the_copy() -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    command = ["git", "check-ignore", "--quiet", "my_notebooks/00_start_here.ipynb"]
    assert subprocess.run(command, cwd=ROOT).returncode == 0
