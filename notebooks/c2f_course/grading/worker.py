"""The other process: runs a student's notebook, then answers the grader's questions about it (`remote`).

    python -m c2f_course.grading.worker CODE READ WRITE MEMORY DISK THREADS SECONDS

It is started inside the sandbox, and nothing in it is trusted. A cell that raises, or takes too long, does not stop the
cells below it. CODE is a JSON file with the source of each code cell; READ and WRITE are file descriptors of pipes. The
notebook's output goes where the sandbox sends it.
"""

import __future__

import importlib
import json
import linecache
import os
import re
import signal
import sys
import traceback
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


def serve(names: dict[str, Any], wrong: list[str], read: int, write: int) -> None:
    """Answer questions until the grader closes its end."""
    import torch

    objects: list[Any] = []
    replaced: dict[str, Any] = {}  # earlier answers, while the kit's own stand in for them

    def keep(value: Any) -> Handle:
        objects.append(value)
        # A class is a class, also where its own type is ABCMeta.
        return Handle(len(objects) - 1, "type" if isinstance(value, type) else type(value).__name__)

    def answer(what: str, args: list[Any]) -> Any:
        match what:
            case "errors":
                return wrong
            case "answers":
                wanted, given = args
                torch.manual_seed(0)
                names.update(replaced)
                replaced.clear()
                replaced.update({name: names[name] for name in given if name in names})
                for name, (module, attribute) in given.items():
                    names[name] = getattr(importlib.import_module(module), attribute)
                if missing := [name for name in wanted if name not in names]:
                    raise NameError(f"the notebook defines no {missing[0]}")
                return [names[name] for name in wanted]
            case "call":
                return _call(*args)
            case "probe":
                return getattr(importlib.import_module(args[0]), args[1])(*args[2])
            case "attribute":
                return getattr(args[0], args[1])
        raise ValueError(what)

    def take(count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            if not (some := os.read(read, count - len(parts))):
                raise EOFError
            parts += some
        return bytes(parts)

    while True:
        try:
            question = read_message(take, objects.__getitem__)
        except EOFError:
            return
        try:
            reply = pack({"result": answer(question["ask"], question["args"])}, keep)
        except Exception as error:
            reply = pack({"raised": _describe(error)})
        while reply:
            reply = reply[os.write(write, reply) :]


def _call(function: Any, args: list[Any], named: dict[str, Any]) -> list[Any]:
    """The result, and which of the arguments the function has changed in place."""
    import torch

    before = {str(number): arg.clone() for number, arg in enumerate(args) if isinstance(arg, torch.Tensor)}
    result = function(*args, **named)
    changed = {number: args[int(number)] for number, was in before.items() if not torch.equal(args[int(number)], was)}
    return [result, changed]


def _describe(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith("<cell")]
    where = f" (line {frames[-1].lineno} of {frames[-1].filename[1:-1]})" if frames else ""
    return f"{type(error).__name__}: {error}"[:1000] + where


def main() -> None:
    path, (read, write, memory, disk, threads, seconds) = sys.argv[1], map(int, sys.argv[2:])
    import torch

    torch.set_num_threads(threads)
    Limits(memory=memory, disk=disk).apply()  # after torch, which maps much
    signal.signal(signal.SIGALRM, _too_long)
    # A notebook's conveniences (`%matplotlib inline`, `torch.rand?`, `files = !ls`, `display(x)`) do nothing here.
    names: dict[str, Any] = {"__name__": "__main__", "get_ipython": MagicMock(), "display": MagicMock()}
    with open(path, encoding="utf-8") as file:
        cells = json.load(file)
    serve(names, run_cells(cells, names, seconds), read, write)


if __name__ == "__main__":
    main()
