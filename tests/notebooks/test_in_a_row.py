"""Notebooks 02, 03 and 05 in a row: a learner's own network goes from one to the next, or the kit's does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests.notebooks.in_a_row import NOTEBOOKS

ROOT = Path(__file__).parents[2]


def run(folder: Path) -> dict[str, str]:
    """What the notebooks printed with all gaps filled, by their numbers; they ran to their last cells."""
    command = [sys.executable, "-m", "tests.notebooks.in_a_row", folder, "filled"]
    paths = [str(ROOT), str(ROOT / "notebooks"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert [outcome["failure"] for outcome in outcomes] == ["", "", ""]
    return {outcome["notebook"][:2]: outcome["printed"] for outcome in outcomes}


@pytest.mark.slow
def test_with_all_gaps_filled_the_learners_network_is_used(tmp_path: Path) -> None:
    printed = run(tmp_path)
    assert printed["02"].count("your own answer is used") == 8
    assert printed["03"].count("your own answer is used") == 8
    assert "kit's answer" not in printed["02"] + printed["03"]
    assert "my_conv2former.py was written" in printed["03"]
    assert "Your own network is used, from my_conv2former.py." in printed["05"]
    assert "same bits as if never stopped: True" in printed["05"]


def test_with_all_gaps_blank_the_kits_network_is_used() -> None:
    """That they run so, one beside the other and without a file, is nbval's to see; here is what they say then."""
    said = {}
    for path in NOTEBOOKS:
        outputs = (output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", []))
        said[path.stem[:2]] = "".join(output.get("text", "") for output in outputs)
    assert said["02"].count("the kit's answer is used") == said["03"].count("the kit's answer is used") == 8
    assert "my_conv2former.py was not written: my_stem, MyMlp, " in said["03"]
    assert "There is no my_conv2former.py here" in said["05"]
    assert "my_conv2former.py" in (ROOT / ".gitignore").read_text().splitlines()
