"""What is imported when: help waits for nothing heavy, a model brings no training, maps bring no plotting library."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, runpy, sys

found = {}
def keep(name):
    found[name] = sorted(set(sys.modules) - {module for kept in found.values() for module in kept})

sys.argv = ["c2f", "--help"]
try:
    runpy.run_module("c2f", run_name="__main__")
except SystemExit as end:
    assert end.code == 0
keep("help")
import c2f
c2f.create_model("conv2former_n_cifar", dims=(8,), depths=(1,))
keep("model")
import c2f.maps
keep("maps")
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def imported() -> dict[str, list[str]]:
    """Modules that each step of the script added, in one process since importing torch takes seconds."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    *printed, modules = done.stdout.splitlines()
    assert any("doctor" in line for line in printed)
    return json.loads(modules)


def test_help_as_a_module_does_not_wait_for_torch(imported):
    assert "c2f.cli" in imported["help"]
    assert not set(imported["help"]) & {"torch", "torchvision", "matplotlib", "sklearn"}


def test_the_models_know_nothing_of_what_computes_them_sooner(imported):
    assert "c2f.models.conv2former" in imported["model"]
    assert not [name for name in imported["model"] if name.startswith(("c2f.fast", "c2f.training"))]


def test_matplotlib_is_imported_with_the_first_picture_only(imported):
    assert "c2f.maps.plots" in imported["maps"]
    assert not {"matplotlib", "IPython", "sklearn"} & {name for names in imported.values() for name in names}
