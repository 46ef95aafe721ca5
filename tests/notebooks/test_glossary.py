"""The glossary's terms are in alphabetical order, and each is in the notebook that it names."""

import json
import re
from functools import cache
from pathlib import Path

import pytest

GLOSSARY = Path(__file__).parents[2] / "docs" / "glossary.md"
LINES = re.findall(
    r"^\| \*\*(.+?)\*\* \| .+ \| \[\d\d\]\((.+?)\) \|$", GLOSSARY.read_text(encoding="utf-8"), re.MULTILINE
)


@cache
def text_of(notebook: Path) -> str:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return " ".join(" ".join("".join(cell["source"]) for cell in cells).lower().split())


def test_the_terms_are_in_order() -> None:
    terms = [term.lower() for term, _ in LINES]
    assert len(terms) > 70 and terms == sorted(set(terms))


@pytest.mark.parametrize(("term", "path"), LINES, ids=lambda value: value)
def test_the_notebook_has_the_term(term: str, path: str) -> None:
    assert term.lower() in text_of(GLOSSARY.parent / path)
