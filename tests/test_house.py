"""The house stays small, and imports in it point one way."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
C2F, COURSE = ROOT / "c2f", ROOT / "notebooks" / "c2f_course"

# What each room of c2f may import. Whatever is not named here (cli, doctor, __init__) may import all of c2f.
LEAVES = {"files", "device"}
DRAWN = LEAVES | {"models", "training", "picture"}
MAY_IMPORT = {
    "files": set(),
    "device": {"files"},
    "picture": set(),
    "models": LEAVES,
    "fast": LEAVES,
    "training": LEAVES | {"models", "fast"},
    "maps": DRAWN,
    "bench": DRAWN | {"maps", "fast", "report"},
    "report": DRAWN | {"maps", "bench", "fast"},
}


def modules_imported(path: Path) -> set[str]:
    """The dotted names of all imports in a file, those inside functions and for type checkers included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files_of(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def lines(*folders: Path) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files_of(*folders))


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_in_c2f_point_one_way(room: str) -> None:
    paths = files_of(C2F / room) or [C2F / f"{room}.py"]
    for path in paths:
        rooms = {name.split(".")[1] for name in modules_imported(path) if name.startswith("c2f.")}
        rooms &= {*MAY_IMPORT, "cli", "doctor"}  # `from c2f import create_model` is the top, which is everybody's
        assert rooms <= MAY_IMPORT[room] | {room}, path


def test_c2f_knows_nothing_of_the_course() -> None:
    for path in files_of(C2F):
        assert not any(name.split(".")[0] == "c2f_course" for name in modules_imported(path)), path


def test_the_rooms_stay_small() -> None:
    assert lines(C2F) <= 7_730
    assert lines(C2F / "models", C2F / "training", C2F / "maps") <= 4_295
    assert lines(COURSE) <= 10_625
    assert len((C2F / "models" / "conv2former.py").read_text(encoding="utf-8").splitlines()) < 330
