"""Asking a student's process: values go over and come back, errors are sentences, and forged bytes are no answer."""

import io
import json
import os
import struct
import time
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pytest
import safetensors.torch
import torch

from c2f_course.grading.remote import Handle, Remote, RemoteError, RemoteGone, pack, read_message
from c2f_course.grading.sandbox import Limits, run_submission

START = 90.0  # seconds, for Python and torch to be imported on a busy machine

CONVENIENCES = """%%time
left = (7
    % 4)
files = !ls
%matplotlib inline
print?
get_ipython().magic('x')
display(left)"""
STYLES = """from abc import ABC
class Abstract(torch.nn.Module, ABC): pass
def later(x: Undefined) -> Undefined: return x
@torch.jit.script
def scripted(x: torch.Tensor): return 2 * x"""

STUDENT = """
import torch
def double(x): return 2 * x
def both(x, *, scale): return {"sum": x.sum(), "all": [x, (scale, None, "text", True)]}
class Layer(torch.nn.Linear):
    pass
def broken(x):
    return x.no_such_thing
def draw(): return torch.rand(3)
def nested(x): return double(x)
number = 0.5
"""


@pytest.fixture(scope="module")
def student() -> Iterator[Remote]:
    cells = ["%matplotlib inline\n!ls\n" + STUDENT, "1 / 0", "from __future__ import annotations", CONVENIENCES,
             ">>> def doubled(x):\n...     return 2 * x", STYLES, "import os\ndef leave(): os._exit(0)"]  # fmt: skip
    with run_submission(cells, Limits(sandboxed=False)) as remote:
        remote.ask("errors", seconds=START)
        yield remote


def test_a_cell_that_raises_is_told_and_the_others_run(student: Remote) -> None:
    (error,) = student.ask("errors")
    assert "cell 2 raised ZeroDivisionError" in error
    assert student.get("number") == 0.5


def test_what_works_in_lab_works_here(student: Remote) -> None:
    assert student.get("left") == 3 and student.get("doubled")(4) == 8
    assert torch.equal(student.get("scripted")(torch.ones(2)), torch.full((2,), 2.0))
    assert student.get("later")(1) == 1  # a __future__ of an earlier cell
    assert student.get("Abstract").kind == "type"


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


def test_what_is_drawn_is_known_here(student: Remote) -> None:
    torch.manual_seed(0)
    assert torch.equal(student.get("draw")(), torch.rand(3))


def test_an_earlier_answer_is_replaced_and_comes_back(student: Remote) -> None:
    (nested,) = student.answers(["nested"], {"double": "operator:neg"})
    assert nested(3) == -3
    assert student.get("nested")(3) == 6


def test_errors_are_sentences(student: Remote) -> None:
    with pytest.raises(RemoteError, match="defines no missing"):
        student.get("missing")
    with pytest.raises(RemoteError, match="AttributeError.*line 10 of cell 1"):
        student.get("broken")(torch.ones(1))
    assert student.get("number") == 0.5  # and it goes on


def pipes(seconds: float = 0.2, until: float = float("inf")) -> tuple[Remote, BinaryIO]:
    """A Remote, and the end to write to of another process, which reads nothing."""
    (read, write), (_, other_write) = os.pipe(), os.pipe()
    other = os.fdopen(write, "wb")
    return Remote(os.fdopen(read, "rb"), os.fdopen(other_write, "wb"), other.close, seconds, until), other


def test_an_answer_that_does_not_come_is_not_waited_for() -> None:
    for seconds, until in ((0.2, float("inf")), (60.0, time.monotonic() + 0.2)):
        remote, other = pipes(seconds, until)
        with remote.read, remote.write, pytest.raises(RemoteGone, match="in time"):
            remote.ask("get", "x")
        assert remote.gone and other.closed


class EqualsEverything:
    def __eq__(self, other: object) -> bool:
        return True


def test_only_plain_data_is_packed() -> None:
    with pytest.raises(TypeError, match="EqualsEverything cannot be sent"):
        pack([EqualsEverything()])
    message = pack([EqualsEverything()], keep=lambda value: Handle(0, type(value).__name__))
    assert read_message(io.BytesIO(message).read) == [Handle(0, "EqualsEverything")]


def test_numpy_becomes_tensors_and_numbers() -> None:
    tensor, number = read_message(io.BytesIO(pack([np.ones((2, 2)), np.float64(3.0)])).read)
    assert torch.equal(tensor, torch.ones(2, 2, dtype=torch.float64)) and number == 3.0


def message(value: object, tensors: bytes | dict = b"") -> bytes:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    if isinstance(tensors, dict):
        header = json.dumps(tensors).encode()
        tensors = struct.pack("<Q", len(header)) + header + b"12345678"
    return struct.pack(">II", len(text), len(tensors)) + text + tensors


def tensor(dtype: str = "F32", shape: object = (2,), offsets: tuple[int, int] = (0, 8)) -> dict:
    return {"0": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


FORGED = {
    "no JSON": message(b"\x80\x04."),
    "no dictionary": message([1, 2]),
    "no answer": message({"dict": {"score": 100}}),
    "a negative shape": message({"tensor": "0"}, tensor(shape=(-1,))),
    "a shape of words": message({"tensor": "0"}, tensor(shape=("2",))),
    "a shape of shapes": message({"tensor": "0"}, tensor(shape=([0], 10**8))),
    "an unknown type": message({"tensor": "0"}, tensor("object")),
    "a tensor that is not there": message({"tensor": "5"}, tensor()),
    "more than memory": message({"tensor": "0"}, tensor(shape=(10**12,), offsets=(0, 4 * 10**12))),
    "a name that is no text": message({"tensor": [1]}, tensor()),
    "a dictionary that is a list": message({"dict": [1]}),
    "deep": message(b'{"list": [' * 2000 + b"1" + b"]}" * 2000),
    "a long text": struct.pack(">II", 1 << 31, 0) + b"x",
    "many bytes": struct.pack(">II", 1, 1 << 31) + b"x",
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_bytes_are_no_answer(name: str) -> None:
    remote, other = pipes()
    other.write(FORGED[name])
    other.close()
    with remote.read, remote.write, pytest.raises(RemoteGone):
        remote.ask("get", "x")


def test_the_forged_ones_are_wrong_in_nothing_else() -> None:
    blob = safetensors.torch.save({"0": torch.ones(2)})
    assert torch.equal(read_message(io.BytesIO(message({"tensor": "0"}, blob)).read), torch.ones(2))
    assert read_message(io.BytesIO(message({"tensor": "0"}, tensor())).read).shape == (2,)


def test_a_process_that_ends_is_gone(student: Remote) -> None:
    with pytest.raises(RemoteGone, match="ended"):
        student.get("leave")()
