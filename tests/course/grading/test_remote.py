"""Asking a student's process: values go over and come back, errors are sentences, and forged bytes are no answer."""

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from c2f_course.grading.remote import Handle, Remote, RemoteError, RemoteGone, pack, unpack

START = 60.0  # seconds, for Python and torch to be imported on a busy machine


def start(path: Path, seconds: float = 20.0) -> tuple[subprocess.Popen, Remote]:
    to_read, from_write = os.pipe()
    from_read, to_write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "c2f_course.grading.worker", str(path), str(from_read), str(from_write),
         str(4 << 30), str(1 << 28), "1", "3"],
        pass_fds=(from_read, from_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(from_read)
    os.close(from_write)
    return process, Remote(to_read, to_write, seconds)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Remote]]:
    started = []

    def run(*cells: str, seconds: float = 20.0) -> Remote:
        path = tmp_path_factory.mktemp("notebook") / "answer.ipynb"
        nbformat.write(new_notebook(cells=[new_markdown_cell("# An answer"), *map(new_code_cell, cells)]), path)
        process, remote = start(path, seconds)
        started.append((process, remote))
        return remote

    yield run
    for process, remote in started:
        remote.close()
        process.kill()
        process.wait()


STUDENT = """
import torch
def double(x): return 2 * x
def both(x, *, scale): return {"sum": x.sum(), "all": [x, (scale, None, "text", True)]}
class Layer(torch.nn.Linear):
    pass
def broken(x):
    return x.no_such_thing
def draw(): return torch.rand(3)
number = 0.5
"""


@pytest.fixture(scope="module")
def student(run) -> Remote:
    remote = run("%matplotlib inline\n!ls\n" + STUDENT, "1 / 0", "after = 'the error'")
    remote.ask("errors", seconds=START)
    return remote


def test_a_cell_that_raises_is_told_and_the_others_run(student: Remote) -> None:
    (error,) = student.ask("errors")
    assert "cell 2 raised ZeroDivisionError" in error
    assert student.get("after") == "the error" and student.get("number") == 0.5


def test_a_notebooks_conveniences_do_nothing_and_stop_nothing(run) -> None:
    remote = run("%%time\nleft = (7\n    % 4)\nfiles = !ls\n%matplotlib inline\nprint?\nget_ipython().magic('x')",
                 ">>> def double(x):\n...     return 2 * x")  # fmt: skip
    assert remote.ask("errors", seconds=START) == []
    assert remote.get("left") == 3 and remote.get("double")(4) == 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.uint8])
def test_tensors_come_back_as_they_went(student: Remote, dtype: torch.dtype) -> None:
    x = (torch.arange(6).reshape(2, 3) % 2).to(dtype)
    result = student.get("double")(x)
    assert torch.equal(result, 2 * x) and result.dtype == (2 * x).dtype


def test_nested_values_and_keywords(student: Remote) -> None:
    x = torch.ones(2, 0, 3)
    result = student.get("both")(x, scale=3)
    assert result["sum"] == 0 and torch.equal(result["all"][0], x) and result["all"][1] == (3, None, "text", True)


def test_modules_stay_there_and_are_used_from_here(student: Remote) -> None:
    layer = student.get("Layer")(3, 2)
    state = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    layer.load_state_dict(state)
    assert torch.equal(layer(torch.ones(1, 3)), torch.full((1, 2), 3.0))
    assert torch.equal(layer.state_dict()["weight"], state["weight"])


def test_what_is_drawn_follows_the_seed(student: Remote) -> None:
    student.seed(7)
    torch.manual_seed(7)
    assert torch.equal(student.get("draw")(), torch.rand(3))


def test_errors_are_sentences(student: Remote) -> None:
    with pytest.raises(RemoteError, match="defines no missing"):
        student.get("missing")
    with pytest.raises(RemoteError, match="AttributeError.*line 10 of cell 1"):
        student.get("broken")(torch.ones(1))
    assert student.get("number") == 0.5  # and it goes on


@pytest.mark.parametrize(
    ("code", "sentence"),
    [("import os; os._exit(0)", "ended"), ("import ctypes; ctypes.string_at(0)", "ended"),
     ("while True: pass", "in time")],
)  # fmt: skip
def test_a_process_that_ends_or_hangs_is_gone(run, code: str, sentence: str) -> None:
    remote = run(f"def go():\n    {code}")
    remote.ask("errors", seconds=START)
    remote.seconds = 1.0
    with pytest.raises(RemoteGone, match=sentence):
        remote.get("go")()


def test_time_for_everything_is_kept(run) -> None:
    remote = run("import time; time.sleep(60)")
    remote.until = time.monotonic() + 1
    with pytest.raises(RemoteGone, match="in time"):
        remote.ask("errors", seconds=START)


class EqualsEverything:
    def __eq__(self, other: object) -> bool:
        return True


def test_only_plain_data_is_packed() -> None:
    with pytest.raises(TypeError, match="EqualsEverything cannot be sent"):
        pack([EqualsEverything()])
    message = pack([EqualsEverything()], keep=lambda value: Handle(0, type(value).__name__))
    (length,) = struct.unpack(">I", message[:4])
    assert unpack(message[4 : 4 + length], message[4 + length :]) == [Handle(0, "EqualsEverything")]


def test_numpy_becomes_tensors_and_numbers() -> None:
    message = pack([np.ones((2, 2)), np.float64(3.0)])
    (length,) = struct.unpack(">I", message[:4])
    tensor, number = unpack(message[4 : 4 + length], message[4 + length :])
    assert torch.equal(tensor, torch.ones(2, 2, dtype=torch.float64)) and number == 3.0


def message(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack(">I", len(text)) + text + body


FORGED = {
    "no JSON": message(b"\x80\x04."),
    "no dictionary": message([1, 2]),
    "no answer": message({"value": {"dict": {"score": 100}}, "tensors": []}),
    "a negative shape": message({"value": {"tensor": 0}, "tensors": [["float32", [-1]]]}),
    "a shape of words": message({"value": {"tensor": 0}, "tensors": [["float32", ["3"]]]}),
    "an unknown type": message({"value": {"tensor": 0}, "tensors": [["object", [1]]]}, b"12345678"),
    "a tensor that is not there": message({"value": {"tensor": 5}, "tensors": []}),
    "more than memory": message({"value": {"tensor": 0}, "tensors": [["float64", [10**12]]]}),
    "a dictionary that is a list": message({"value": {"dict": [1]}, "tensors": []}),
    "deep": message(b'{"tensors": [], "value": ' + b'{"list": [' * 2000 + b"1" + b"]}" * 2000 + b"}"),
    "a long header": struct.pack(">I", 1 << 31) + b"x",
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_bytes_are_no_answer(name: str) -> None:
    read, write = os.pipe()
    other_read, other_write = os.pipe()
    remote = Remote(read, other_write, seconds=1.0)
    os.write(write, FORGED[name])
    os.close(write)
    with pytest.raises(RemoteGone):
        remote.ask("get", "x")
    remote.close()
    os.close(other_read)
