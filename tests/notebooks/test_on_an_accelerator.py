"""What computes runs to its end on a computer with an accelerator, here a pretend one.

Left out are notebooks that do not touch a device by docs/on_an_accelerator.md, which `make rehearse` renews.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).parents[2]
OPERATORS = ROOT / "tests" / "golden" / "operators.txt"
UNTOUCHED = re.findall(
    r"^\| (\d\d_\w+) +\| +0 \|", (ROOT / "docs" / "on_an_accelerator.md").read_text("utf-8"), re.MULTILINE
)
NOTEBOOKS = sorted({path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")} - set(UNTOUCHED))
MIXING_DEVICES = (
    "import torch\nfrom c2f.device import choose_device",
    "x = 2 * torch.ones(2, device=choose_device())",
    "x + torch.ones(2)",
    "y = 1",
)


@pytest.fixture(scope="module")
def rehearsals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Iterator[dict]]]:
    """What becomes of the notebooks and the acts as on an Apple GPU, and of the acts as on CUDA, one after the other.

    A process for each: most of a short rehearsal is imports.
    """
    mixing = tmp_path_factory.mktemp("notebooks") / "mixing_devices.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in MIXING_DEVICES]), mixing)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    words = {"mps": [*NOTEBOOKS, str(mixing), "--acts", "--like", "mps"], "cuda": ["--acts", "--like", "cuda"]}
    with ExitStack() as stack:
        found = {}
        for like, its in words.items():
            command = [sys.executable, "-m", "tests.notebooks.rehearsal", *its]
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            found[like] = map(json.loads, process.stdout)
        yield found


@pytest.fixture(scope="module")
def outcome_of(rehearsals: dict[str, Iterator[dict]]) -> Callable[[str], dict]:
    """A function that waits for what became of a notebook, by its name."""
    found: dict[str, dict] = {}

    def outcome_of(name: str) -> dict:
        while name not in found:
            outcome = next(rehearsals["mps"], None)
            assert outcome, f"the process ended before {name} did"
            found[outcome["name"]] = outcome
        return found[name]

    return outcome_of


def check(outcome: dict) -> None:
    assert not outcome["failure"], f"{outcome['name']}, {outcome['failure']}"
    assert outcome["operators"], "nothing ran on the device; `make rehearse` notes that, and then it is left out here"
    known = OPERATORS.read_text(encoding="utf-8").split()
    assert [name for name in outcome["ran"] if name not in known] == [], "renew operators.txt with `make rehearse`"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_to_its_last_cell(name: str, outcome_of: Callable[[str], dict]) -> None:
    check(outcome_of(name))


def test_a_cell_that_mixes_devices_is_found(outcome_of: Callable[[str], dict]) -> None:
    outcome = outcome_of("mixing_devices")
    assert outcome["failure"].startswith("cell 2: RuntimeError: Expected all tensors to be on the same device")
    assert outcome["operators"] > 0


@pytest.mark.parametrize("like", ["mps", "cuda"])
def test_what_else_computes_runs_to_its_end(
    like: str, outcome_of: Callable[[str], dict], rehearsals: dict[str, Iterator[dict]]
) -> None:
    outcome_of("mixing_devices")  # the last notebook
    acts = list(rehearsals[like])
    assert len(acts) > 5, "the process ended early"
    for outcome in acts:
        check(outcome)
