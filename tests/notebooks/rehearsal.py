"""Run notebooks and what else computes, as they are, on a computer that seems to have an accelerator.

    python -m tests.notebooks.rehearsal                     all: notebooks, solutions of assignments, `ACTS`
    python -m tests.notebooks.rehearsal 04_ "c2f bench"     those whose name contains one of these
    python -m tests.notebooks.rehearsal --acts              `ACTS`, besides what is named
    python -m tests.notebooks.rehearsal --like mps          on a device called "mps", and as strict as it
    python -m tests.notebooks.rehearsal --write             on both, for docs/on_an_accelerator.md and operators.txt

Prints one line of JSON for each: its name, how many operators ran on the pretend accelerator, the copies to it, the
waits for it, the seconds of the processor, and the first cell that raised, with its error. Trainings are short, data
few, and no figure becomes a PNG file: what is rehearsed is on which device each tensor is, and not what is learned.
"""

import argparse
import contextlib
import io
import json
import re
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from unittest import mock

import nbformat
import torch
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.figure import Figure

from c2f.bench import measure
from c2f.picture import Picture
from c2f.report import markdown_table
from c2f.training import data, loop
from c2f.training.data import Dataset, Split
from c2f.training.run import History
from c2f_course.tasks import bug_hunt
from tests.notebooks.acts import ACTS
from tests.pretend_accelerator import NAME, PretendAccelerator

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "on_an_accelerator.md"
OPERATORS = ROOT / "tests" / "golden" / "operators.txt"
NOTEBOOKS = [
    *sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")),
    *sorted((ROOT / "notebooks" / "assignments").glob("*/solution.ipynb")),
]
EPOCHS, STEPS, BATCH = 2, 2, 8  # of a training: at most so many epochs, steps of an epoch, images of a step
TRAINING, TEST = 640, 100  # images of a data set


@dataclass
class Rehearsal:
    """What became of a notebook, or of an act."""

    name: str
    operators: int
    copies: int
    waits: int
    seconds: float
    failure: str
    ran: list[str] = field(repr=False)


def rehearse(name: str, run: Callable[[], str], like: str) -> Rehearsal:
    """Run something on the pretend accelerator; it returns what failed, or raises."""
    started = time.process_time()
    with prepared(), PretendAccelerator(like) as there, contextlib.redirect_stdout(io.StringIO()):
        try:
            failure = run()
        except Exception as error:
            failure = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
    seconds = time.process_time() - started
    return Rehearsal(name, there.operators, there.copies, there.waits, seconds, failure, sorted(there.ran))


def run_cells(path: Path) -> str:
    """Run all cells of a notebook, up to the first that raises: its number and its error, or nothing."""
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(colors="nocolor")
    for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
        if cell.cell_type == "code":
            with mock.patch("c2f_course.widgets.live_plot._in_notebook", lambda: True):
                result = shell.run_cell(cell.source)
            if error := result.error_before_exec or result.error_in_exec:
                return f"cell {number}: {type(error).__name__}: {error}"
    return ""


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Inside, trainings are short, data few, and nothing is drawn or compiled."""
    with contextlib.ExitStack() as stack:
        for owner, name, replacement in (
            (loop, "train", short(loop.train)),
            (data, "load_dataset", lambda *args, load=data.load_dataset, **kwargs: few(load(*args, **kwargs))),
            (measure, "_prepared", on_two_images(measure._prepared)),
            (torch, "compile", lambda model, **options: model),
            (Picture, "png", lambda picture: b""),
            (Figure, "savefig", lambda figure, file, **options: None),
        ):
            stack.enter_context(mock.patch.object(owner, name, replacement))
        for loop_by_hand in bug_hunt.LOOPS.values():
            stack.enter_context(mock.patch.object(loop_by_hand, "__defaults__", (bug_hunt.RATE, bug_hunt.EVERY)))
        yield


def on_two_images(prepare: Callable[..., tuple]) -> Callable[..., tuple]:
    """Steps that are timed run on two images."""
    return lambda model, size, conditions: prepare(model, size, replace(conditions, batch_size=2))


def short(train: Callable[..., History]) -> Callable[..., History]:
    def short_train(model, data, recipe, **options):
        size = min(recipe.batch_size, BATCH)
        epochs = min(recipe.epochs, EPOCHS)
        warmup = min(recipe.warmup_epochs, epochs / 2)
        recipe = replace(recipe, epochs=epochs, batch_size=size, warmup_epochs=warmup)
        return train(model, few(data, STEPS * size, STEPS * size), recipe, **options)

    return short_train


def few(data: Dataset, training: int = TRAINING, test: int = TEST) -> Dataset:
    """The first images of a data set."""
    splits = (Split(split.images[:n], split.labels[:n]) for split, n in ((data.train, training), (data.test, test)))
    return replace(data, **dict(zip(("train", "test"), splits, strict=True)))


def chosen(words: Sequence[str], acts: bool, like: str) -> Iterator[tuple[str, Callable[[], str]]]:
    """The names of what is rehearsed, and what runs it: all, or what is asked for by a word of its name or its path."""
    everything = not words and not acts
    paths = [Path(word) for word in words if word.endswith(".ipynb")]
    for path in [*NOTEBOOKS, *paths]:
        name = path.parent.name + ", solution" if path.stem == "solution" else path.stem
        if everything or path in paths or any(word in name for word in words):
            yield name, lambda path=path: run_cells(path)
    for name, act in ACTS.items():
        if everything or acts or any(word in name for word in words):
            yield name, lambda act=act: in_a_folder(act, like)


def in_a_folder(act: Callable[[Path, str], None], like: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        act(Path(folder), like)
    return ""


def table(found: Sequence[Rehearsal]) -> str:
    """A row for each that was rehearsed."""
    rows = [
        [each.name, *(f"{count:,}" for count in (each.operators, each.copies, each.waits)), f"{each.seconds:.0f}"]
        for each in found
    ]
    return markdown_table(["what", "operators", "copies to the device", "waits for it", "seconds"], rows)


def write(found: Mapping[str, Sequence[Rehearsal]]) -> None:
    """Renew the page's tables, one for each device, and the list of all operators that ran."""
    page = PAGE.read_text(encoding="utf-8")
    for like, its in found.items():
        inside = re.compile(rf"(<!-- {like} -->\n).*?(<!-- /{like} -->)", re.DOTALL)
        text = table(its)
        page = inside.sub(lambda match, text=text: f"{match[1]}{text}\n{match[2]}", page)
    PAGE.write_text(page, encoding="utf-8")
    names = {name for its in found.values() for each in its for name in each.ran}
    OPERATORS.write_text("\n".join(sorted(names)) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*")
    parser.add_argument("--like", choices=("cuda", "mps"), default=NAME)
    parser.add_argument("--acts", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    found: dict[str, list[Rehearsal]] = {}
    untouched = set()  # what did not touch the first device need not be run on the second
    for like in ("cuda", "mps") if options.write else (options.like,):
        found[like] = []
        for name, run in chosen(options.words, options.acts, like):
            if name not in untouched:
                outcome = rehearse(name, run, like)
                untouched |= set() if outcome.operators else {name}
                found[like].append(outcome)
                print(json.dumps(asdict(outcome)), flush=True)
    if options.write:
        write(found)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
