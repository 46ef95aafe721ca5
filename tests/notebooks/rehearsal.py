"""Run notebooks cell by cell, as they are stored, on a computer that seems to have an accelerator.

    python -m tests.notebooks.rehearsal notebooks/00_start_here.ipynb notebooks/04_data_and_augmentation.ipynb

Prints one line of JSON per notebook: its name, how many operators ran on the pretend accelerator, the seconds of the
processor, and the first cell that raised, with its error. Trainings are short and no figure becomes a PNG file: what is
rehearsed is on which device each tensor is, and not what is learned.
"""

import contextlib
import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from unittest import mock

import nbformat
import torch
from IPython.core.interactiveshell import InteractiveShell

from c2f.picture import Picture
from c2f.training import loop
from c2f.training.data import Dataset, Split
from c2f.training.run import History
from tests.pretend_accelerator import NAME, PretendAccelerator

EPOCHS, STEPS, TESTED = 3, 1, 64  # of a training: at most so many epochs, steps of one, test images after it


@dataclass
class Rehearsal:
    """What became of a notebook."""

    notebook: str
    operators: int
    seconds: float
    failure: str = ""


def rehearse(path: Path) -> Rehearsal:
    """Run all cells, up to the first that raises."""
    started, failure = time.process_time(), ""
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(colors="nocolor")
    with prepared(), PretendAccelerator() as accelerator, contextlib.redirect_stdout(io.StringIO()):
        for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
            if cell.cell_type == "code":
                result = shell.run_cell(cell.source)
                if error := result.error_before_exec or result.error_in_exec:
                    failure = f"cell {number}: {type(error).__name__}: {error}"
                    break
    return Rehearsal(path.stem, accelerator.operators, time.process_time() - started, failure)


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Inside, the accelerator is the best device there is, and trainings are short."""
    with (
        mock.patch("c2f.device.available_devices", lambda: [NAME, "cpu"]),
        mock.patch.object(loop, "train", short(loop.train)),
        mock.patch("c2f_course.widgets.live_plot._in_notebook", lambda: True),
        mock.patch.object(Picture, "png", lambda picture: b""),
    ):
        yield


def short(train: Callable[..., History]) -> Callable[..., History]:
    def short_train(model, data, recipe, **options):
        recipe = replace(recipe, epochs=min(recipe.epochs, EPOCHS))
        return train(model, first_images(data, STEPS * recipe.batch_size), recipe, **options)

    return short_train


def first_images(data: Dataset, count: int) -> Dataset:
    train = Split(data.train.images[:count], data.train.labels[:count])
    test = Split(data.test.images[:TESTED], data.test.labels[:TESTED])
    return replace(data, train=train, test=test)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:]:
        print(json.dumps(asdict(rehearse(Path(name)))), flush=True)
