"""The README promises nothing that is not there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_every_link_into_the_repository_leads_somewhere() -> None:
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", README) if not target.startswith(("https:", "#"))]
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_course_map_and_the_notebooks_agree() -> None:
    ready = set(re.findall(r"\]\((notebooks/\d\d_\w+\.ipynb)\) \|.*\| ready \|", README))
    assert ready == {path.relative_to(ROOT).as_posix() for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")}


def test_every_folder_and_module_of_the_layout_is_there() -> None:
    layout = re.search(r"## How it is laid out\n\n((?:    .+\n)+)", README)[1]
    entries = re.findall(r"^(    |      )([\w.]+/?)", layout, re.MULTILINE)
    paths = [ROOT / ("c2f" if indent == "      " else "") / name for indent, name in entries]
    assert len(paths) > 8
    assert [path for path in paths if not path.exists()] == []


def test_the_results_have_their_place() -> None:
    assert README.index("<!-- results -->") < README.index("<!-- /results -->") < README.index("## The course")
