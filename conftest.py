"""What holds for every test and every notebook cell: no network, and nothing on the error stream of a cell."""

import os
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

OFFLINE = Path(__file__).parent / "tests" / "offline"


def pytest_configure(config: pytest.Config) -> None:
    # On a busy machine, threads that spin while they wait take the time that the others need.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Notebooks and commands that run side by side share the cores, a part each: more threads would wait for each other.
    if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(OFFLINE), os.environ.get("PYTHONPATH")]))
    runpy.run_path(str(OFFLINE / "sitecustomize.py"))


# The files that take a minute or more, the longest first: begun last, one of them would keep a single processor busy.
LONG = ("test_assignments", "test_lab", "08_", "test_tools", "09_", "05_", "test_grading", "test_on_an", "00_", "04_")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        return next((i for i, name in enumerate(LONG) if item.path.name.startswith(name)), len(LONG))

    items.sort(key=rank)  # what is alike stays in order: a notebook's cells


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """nbval lets a cell warn; a learner who sees red stops reading. So a cell that writes to stderr has failed."""
    result = yield
    for output in getattr(item, "test_outputs", None) or []:
        if output.get("name") == "stderr":
            item.raise_cell_error("the cell wrote to stderr", output.text)
    return result
