"""Run notebooks 02, 03 and 05 one after the other in one folder, as one learner does, with short trainings.

    python -m tests.notebooks.in_a_row FOLDER filled        every gap has its folded solution
    python -m tests.notebooks.in_a_row FOLDER blank         as the notebooks are stored

Prints one line of JSON per notebook: its name, the first cell that raised with its error, and all that was printed.
"""

import contextlib
import io
import json
import os
import re
import sys
from pathlib import Path
from unittest import mock

import nbformat
import torch
from IPython.core.interactiveshell import InteractiveShell

from c2f.picture import Picture
from c2f.training import data
from tests.notebooks.rehearsal import few

NOTEBOOKS = [
    Path(__file__).parents[2] / "notebooks" / f"{name}.ipynb"
    for name in ("02_building_convmod", "03_building_conv2former", "05_the_training_loop")
]
CODE_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
IMAGES = 160  # of a training: five steps per epoch
SHORTER = {
    "stop = 50": "stop = 7",
    "count = 110": "count = 30",
    "in range(15)]  # in turn": "in range(1)] * 15",
    "loop(fresh_model(), data": "loop(fresh_model(), data, steps=15",
}


def sources(path: Path, filled: bool) -> list[str]:
    """The code of each cell; for a gap that is to be filled, the solution and the call of its check."""
    cells = nbformat.read(path, as_version=4).cells
    by_id = {cell.id: cell.source for cell in cells}
    found = []
    for cell in cells:
        source = cell.source
        if filled and (solution := by_id.get(cell.id.removesuffix("answer") + "solution")) and "answer" in cell.id:
            source = "\n".join([*CODE_BLOCK.findall(solution), source.splitlines()[-1]])
        for long, less in SHORTER.items() if path.stem.startswith("05") else ():
            source = source.replace(long, less)
        found += [source] if cell.cell_type == "code" else []
    return found


def run(path: Path, filled: bool) -> dict[str, str]:
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(colors="nocolor")
    printed, failure = io.StringIO(), ""
    with contextlib.redirect_stdout(printed):
        for source in sources(path, filled):
            result = shell.run_cell(source, store_history=True)
            if error := result.error_before_exec or result.error_in_exec:
                failure = f"{type(error).__name__}: {error}, in {source[:80]!r}"
                break
    return {"notebook": path.stem, "failure": failure, "printed": printed.getvalue()}


def main(folder: str, how: str) -> None:
    load = data.load_dataset
    os.chdir(folder)
    with (
        mock.patch.object(data, "load_dataset", lambda *args, **options: few(load(*args, **options), IMAGES)),
        mock.patch.object(Picture, "png", lambda picture: b""),
    ):
        for path in NOTEBOOKS:
            print(json.dumps(run(path, filled=how == "filled")), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
