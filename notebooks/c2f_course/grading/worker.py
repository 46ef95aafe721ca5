"""The other process: runs a student's notebook, then answers the grader's questions about it (`remote`).

    python -m c2f_course.grading.worker TASK <questions >answers

It is started inside the sandbox, and nothing in it is trusted. A cell that raises, or takes too long, does not stop the
cells below it. TASK is a JSON file with the source of each code cell and the limits. What the notebook prints is lost.
"""

import __future__

import json
import linecache
import os
import pkgutil
import re
import signal
import sys
import traceback
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

from c2f_course.grading.remote import Handle, pack, read_message
from c2f_course.grading.sandbox import Limits


def as_python(source: str) -> str:
    """A cell as plain Python, which is what is run here and what the grader reads. Raises SyntaxError.

    Magics and shell commands become calls of get_ipython(), which do nothing here; what is below a `%%time` is run.
    """
    from IPython.core.inputtransformer2 import TransformerManager

    return TransformerManager().transform_cell(re.sub(r"\A(\s*)%%.*", r"\1pass", source))


def run_cells(cells: list[str], names: dict[str, Any], seconds: int) -> list[str]:
    """Run code cells in `names`, each for so many seconds. Returns a sentence for each that raised, counted from 1."""
    wrong, future = [], 0
    for number, cell in enumerate(cells, 1):
        name = f"<cell {number}>"
        # Honest code is helped by this alarm; code that wants to can catch it. The guard is the sandbox's wall clock.
        signal.alarm(seconds)
        try:
            source = as_python(cell)
            linecache.cache[name] = (len(source), None, source.splitlines(True), name)  # torch.jit.script reads it
            code = compile(source, name, "exec", future, dont_inherit=True)
            future |= code.co_flags & __future__.annotations.compiler_flag  # it holds for the cells below, as in Lab
            exec(code, names)
        except Exception as error:
            wrong.append(f"cell {number} raised {_describe(error)}")
        except SystemExit:
            wrong.append(f"cell {number} called exit")
        finally:
            signal.alarm(0)
    return wrong


def _too_long(*_: Any) -> None:
    raise TimeoutError("the cell took too long and was stopped")


class Answers:
    """What the grader may ask for: each of these methods, by its name."""

    def __init__(self, names: dict[str, Any], wrong: list[str]) -> None:
        self._names, self._wrong = names, wrong
        self._replaced: dict[str, Any] = {}  # earlier answers, while the kit's own stand in for them

    def errors(self) -> list[str]:
        return self._wrong

    def answers(self, wanted: list[str], given: dict[str, str]) -> list[Any]:
        import torch

        torch.manual_seed(0)
        self._names.update(self._replaced)
        self._replaced = {name: self._names[name] for name in given if name in self._names}
        self._names.update({name: pkgutil.resolve_name(place) for name, place in given.items()})
        if missing := [name for name in wanted if name not in self._names]:
            raise NameError(f"the notebook defines no {missing[0]}")
        return [self._names[name] for name in wanted]

    def call(self, function: Any, args: list[Any], named: dict[str, Any]) -> list[Any]:
        """The result, and which of the arguments the function has changed in place."""
        import torch

        function = pkgutil.resolve_name(function) if isinstance(function, str) else function
        before = {str(number): arg.clone() for number, arg in enumerate(args) if isinstance(arg, torch.Tensor)}
        result = function(*args, **named)
        return [result, {at: args[int(at)] for at, was in before.items() if not torch.equal(args[int(at)], was)}]


def serve(answers: Answers, read: int, write: int) -> None:
    """Answer questions until the grader closes its end."""
    objects: list[Any] = []

    def keep(value: Any) -> Handle:
        objects.append(value)
        # A class is a class, also where its own type is ABCMeta.
        return Handle(len(objects) - 1, "type" if isinstance(value, type) else type(value).__name__)

    with open(read, "rb") as questions, open(write, "wb") as replies:
        while True:
            try:
                question = read_message(questions.read, lambda number, kind: objects[number])
            except EOFError:
                return
            try:
                reply = pack({"result": getattr(answers, question["ask"])(*question["args"])}, keep)
            except Exception as error:
                reply = pack({"raised": _describe(error)})
            replies.write(reply)
            replies.flush()


def _describe(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith("<cell")]
    where = f" (line {frames[-1].lineno} of {frames[-1].filename[1:-1]})" if frames else ""
    return f"{type(error).__name__}: {error}"[:1000] + where


def main() -> None:
    questions, replies = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    import torch

    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    limits = Limits(**task["limits"])
    torch.set_num_threads(limits.threads)
    limits.apply()  # after torch, which maps much
    signal.signal(signal.SIGALRM, _too_long)
    # A notebook's conveniences (`%matplotlib inline`, `torch.rand?`, `files = !ls`, `display(x)`) do nothing here.
    names: dict[str, Any] = {"__name__": "__main__", "get_ipython": MagicMock(), "display": MagicMock()}
    serve(Answers(names, run_cells(task["code"], names, limits.cell_seconds)), questions, replies)


if __name__ == "__main__":
    main()
