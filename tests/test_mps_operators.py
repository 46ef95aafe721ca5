"""Every operator that a rehearsal ran on the pretend accelerator exists on Apple's GPUs, or has a way round.

golden/operators.txt holds their names; `python -m tests.notebooks.rehearsal --write` renews it. PyTorch's own list of
kernels, which it installs beside torch, says which operators have one for MPS. An operator that is composed of others
counts as one that does. What a kernel refuses by its arguments, no list says.
"""

from importlib.resources import files
from pathlib import Path

import pytest
import yaml

OPERATORS = (Path(__file__).parent / "golden" / "operators.txt").read_text(encoding="utf-8").split()
WAYS_ROUND: dict[str, str] = {}


@pytest.fixture(scope="module")
def functions() -> dict[str, dict]:
    text = files("torchgen").joinpath("packaged/ATen/native/native_functions.yaml").read_text(encoding="utf-8")
    found = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {f"aten::{function['func'].partition('(')[0]}": function for function in found}


def is_on_mps(function: dict, functions: dict[str, dict]) -> bool:
    if delegate := function.get("structured_delegate"):
        return is_on_mps(functions[f"aten::{delegate}"], functions)
    kinds = [kind.strip() for kinds in function.get("dispatch", {"Composite": ""}) for kind in kinds.split(",")]
    return any(kind == "MPS" or kind.startswith("Composite") for kind in kinds)


def test_every_operator_has_a_kernel_for_mps(functions):
    lacking = {name for name in OPERATORS if name in functions and not is_on_mps(functions[name], functions)}
    assert lacking == WAYS_ROUND.keys()


def test_every_operator_is_one_of_pytorchs_own(functions):
    assert [name for name in OPERATORS if name not in functions] == []


def test_a_kernel_that_is_not_there_is_noticed(functions):
    assert not is_on_mps(functions["aten::mode"], functions)
