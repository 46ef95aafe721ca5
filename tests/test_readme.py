"""The README promises nothing that is not there."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", [ROOT / "README.md", *(ROOT / "docs").glob("*.md")], ids=lambda page: page.name)
def test_every_link_into_the_repository_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    inside = [target.partition("#")[0] for target in targets if not target.startswith(("https:", "#"))]
    assert [target for target in inside if not (page.parent / target).exists()] == []


def test_the_speed_page_is_what_the_measurements_say() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "speed_tables.py"))
    occasions = [script["load"](folder) for folder in sorted((ROOT / "data" / "results" / "bench").glob("[0-9]"))]
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    assert ("**not measured yet**" in page) == (not occasions)
    if occasions:
        assert script["headlines"](occasions) in page
        assert all(script["table"](bench) in page for bench in script["first_of_each"](occasions).values())


def test_the_course_map_and_the_notebooks_agree() -> None:
    ready = set(re.findall(r"\]\((notebooks/\d\d_\w+\.ipynb)\) \|.*\| ready \|", README))
    assert ready == {path.relative_to(ROOT).as_posix() for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")}


def test_every_folder_and_module_of_the_layout_is_there() -> None:
    layout = re.search(r"## How it is laid out\n\n((?:    .+\n)+)", README)[1]
    folders, found = [ROOT], []  # the folder that each depth of the indentation is in
    for indent, name in re.findall(r"^ {4}( {0,4})([\w.]+/?) ", layout, re.MULTILINE):
        del folders[len(indent) // 2 + 1 :]
        found.append(folders[-1] / name)
        folders.append(found[-1])
    assert len(found) > 15
    assert [path for path in found if not path.exists()] == []


def test_the_results_have_their_place() -> None:
    assert README.index("<!-- results -->") < README.index("<!-- /results -->") < README.index("## The course")
