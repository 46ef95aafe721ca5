"""What computes runs to its end on a computer with an accelerator, here a pretend one, and gives models back."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).parents[2]
OPERATORS = ROOT / "tests" / "golden" / "operators.txt"
MIXING_DEVICES = (
    "import torch\nfrom c2f.device import choose_device",
    "x = 2 * torch.ones(2, device=choose_device())",
    "x + torch.ones(2)",
    "y = 1",
)


@pytest.fixture(scope="module")
def outcome_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], dict]]:
    """A function that waits for what became of a notebook or of an act, by its name.

    All share one process, since most of a short rehearsal is imports.
    """
    mixing = tmp_path_factory.mktemp("notebooks") / "mixing_devices.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in MIXING_DEVICES]), mixing)
    command = [sys.executable, "-m", "tests.notebooks.rehearsal", *NAMES, str(mixing)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    found: dict[str, dict] = {}

    def outcome_of(name: str) -> dict:
        while name not in found:
            line = process.stdout.readline()
            assert line, f"the process ended before {name} did"
            outcome = json.loads(line)
            found[outcome["name"]] = outcome
        return found[name]

    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield outcome_of
        finally:
            process.kill()


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_to_its_end(name: str, outcome_of: Callable[[str], dict]) -> None:
    outcome = outcome_of(name)
    assert not outcome["failure"], f"{name}, {outcome['failure']}"
    known = OPERATORS.read_text(encoding="utf-8").split()
    assert [name for name in outcome["ran"] if name not in known] == [], "renew operators.txt: make rehearse"


def test_a_cell_that_mixes_devices_is_found(outcome_of: Callable[[str], dict]) -> None:
    outcome = outcome_of("mixing_devices")
    assert outcome["failure"].startswith("cell 2: RuntimeError: Expected all tensors to be on the same device")
    assert outcome["operators"] > 0
