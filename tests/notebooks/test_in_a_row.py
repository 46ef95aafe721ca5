"""Notebooks 02, 03 and 05 in a row: a learner's own network goes from one to the next, or the kit's does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(folder: Path, how: str) -> dict[str, str]:
    """What the notebooks printed, by their numbers; they ran to their last cells."""
    command = [sys.executable, "-m", "tests.notebooks.in_a_row", folder, how]
    paths = [str(ROOT), str(ROOT / "notebooks"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert [outcome["failure"] for outcome in outcomes] == ["", "", ""]
    return {outcome["notebook"][:2]: outcome["printed"] for outcome in outcomes}


@pytest.mark.slow
def test_with_all_gaps_filled_the_learners_network_is_used(tmp_path: Path) -> None:
    printed = run(tmp_path, "filled")
    assert printed["02"].count("your own answer is used") == 8
    assert printed["03"].count("your own answer is used") == 8
    assert "kit's" not in printed["02"] + printed["03"]
    assert "my_conv2former.py was written" in printed["03"]
    assert "Your own network is used, from my_conv2former.py." in printed["05"]
    assert "same bits as if never stopped: True" in printed["05"]


@pytest.mark.slow
def test_with_all_gaps_blank_the_kits_network_is_used(tmp_path: Path) -> None:
    printed = run(tmp_path, "blank")
    assert printed["02"].count("the kit's answer is used") == printed["03"].count("the kit's answer is used") == 8
    assert "my_conv2former.py was not written: my_stem, MyMlp, " in printed["03"]
    assert "There is no my_conv2former.py here" in printed["05"]
    assert not list(tmp_path.iterdir())
