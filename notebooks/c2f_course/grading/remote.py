"""Call code that is not trusted, in another process, and take nothing but plain data from it.

A grader that runs in the student's own interpreter can be deceived there: `assert`, torch and the checks themselves
can be replaced, and an object can claim to equal everything. So the student's code runs alone (`worker`); the grader
calls its functions from outside, and compares here what comes back. Nothing is unpickled: all bytes that arrive become
numbers, strings, lists and tensors, or an error.

    message := two lengths (4 bytes each, big endian), JSON, tensors in the safetensors format
"""

import contextlib
import functools
import json
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

LARGEST_JSON = 4 << 20  # bytes; no answer to a question of ours is longer
LARGEST_TENSORS = 512 << 20
DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool,
)  # fmt: skip


class RemoteError(Exception):
    """The student's code raised; the message says what."""


class RemoteGone(Exception):
    """The student's process ended, ran out of time, or sent no valid message; no more questions can be sent to it."""


class Handle(NamedTuple):
    """Something that stays in the other process, such as a function, a class or a module."""

    number: int
    kind: str


# ---- Values as messages


def pack(value: Any, keep: Callable[[Any], Handle] | None = None) -> bytes:
    """A message. `keep` gives the handle of what is not plain data; without it that is a TypeError."""
    tensors: dict[str, Tensor] = {}

    def encode(value: Any) -> Any:
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, np.ndarray):
            with contextlib.suppress(TypeError):
                value = torch.from_numpy(np.ascontiguousarray(value))
        if isinstance(value, Tensor) and value.dtype in DTYPES and value.layout == torch.strided:
            plain = value.detach().cpu().resolve_conj().resolve_neg()
            tensors[str(len(tensors))] = plain.clone(memory_format=torch.contiguous_format)
            return {"tensor": str(len(tensors) - 1)}
        if isinstance(value, tuple | list):
            return {"tuple" if isinstance(value, tuple) else "list": [encode(item) for item in value]}
        if isinstance(value, dict) and all(type(key) is str for key in value):
            return {"dict": {key: encode(item) for key, item in value.items()}}
        return {"handle": list((keep or _handle_of)(value))}

    text = json.dumps(encode(value)).encode()
    blob = safetensors.torch.save(tensors) if tensors else b""
    return struct.pack(">II", len(text), len(blob)) + text + blob


def read_message(read: Callable[[int], bytes], look_up: Callable[[int, str], Any] = Handle) -> Any:
    """The value of the next message. `read(n)` gives n bytes, and `look_up(number, kind)` what a handle stands for.

    Raises EOFError where there are fewer bytes, and ValueError for what is no message.
    """

    def take(count: int) -> bytes:
        if len(taken := read(count)) < count:
            raise EOFError
        return taken

    def decode(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        ((kind, inside),) = value.items()
        match kind:
            case "tensor":
                return tensors[inside]
            case "handle":
                return look_up(int(inside[0]), str(inside[1]))
            case "dict":
                return {str(key): decode(item) for key, item in inside.items()}
            case "tuple":
                return tuple(decode(item) for item in inside)
            case "list":
                return [decode(item) for item in inside]
        raise ValueError("a value of no kind")

    length, size = struct.unpack(">II", take(8))
    if length > LARGEST_JSON or size > LARGEST_TENSORS:
        raise ValueError("more than any answer needs")
    text, blob = take(length), take(size)
    try:
        tensors = safetensors.torch.load(blob) if blob else {}
        return decode(json.loads(text))
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError, SafetensorError):
        raise ValueError("something that is no message") from None


# ---- The grader's side


class Remote:
    """Questions to the other process: `write` is the grader's end of a pipe to it, `read` that of one from it.

    An answer is waited for no longer than `seconds`, and never beyond `until`, a `time.monotonic()`. Then `end` is
    called, which must close the other ends: it kills the process.
    """

    def __init__(
        self, read: BinaryIO, write: BinaryIO, end: Callable[[], Any], seconds: float, until: float = float("inf")
    ) -> None:
        self.read, self.write, self.end, self.seconds, self.until = read, write, end, seconds, until
        self.gone = False  # whether the process can answer no more questions

    def ask(self, what: str, *args: Any, seconds: float | None = None) -> Any:
        """One question and its answer, waited for no longer than so many seconds. Raises RemoteError or RemoteGone."""
        if self.gone:
            raise RemoteGone("it has ended")
        question = pack({"ask": what, "args": list(args)})
        late = threading.Event()
        seconds = min(seconds or self.seconds, self.until - time.monotonic())
        timer = threading.Timer(max(0.0, seconds), lambda: (late.set(), self.end()))
        timer.start()
        try:
            self.write.write(question)
            self.write.flush()
            answer = read_message(self.read.read, functools.partial(RemoteObject, self))
            if not isinstance(answer, dict) or not answer.keys() & {"result", "raised"}:
                raise ValueError("something that answers no question")
        except (OSError, EOFError, ValueError) as error:
            self.gone = True
            why = f"it sent {error}" if isinstance(error, ValueError) else "it has ended"
            raise RemoteGone("it did not answer in time" if late.is_set() else why) from None
        finally:
            timer.cancel()
        if "raised" in answer:
            raise RemoteError(str(answer["raised"])[:2000])
        return answer["result"]

    def answers(self, names: Sequence[str], given: Mapping[str, str] | None = None) -> list[Any]:
        """What the notebook defines under these names: plain data, or a RemoteObject. RemoteError without one of them.

        Until the next call `given`, name -> "module:attribute", stands there in place of the notebook's own. The other
        process's generator is seeded with 0, so that what it draws is known here.
        """
        values = self.ask("answers", list(names), dict(given or {}))
        if not isinstance(values, list) or len(values) != len(names):
            raise RemoteError("its answers are none")
        return values

    def get(self, name: str) -> Any:
        return self.answers([name])[0]

    def call(self, function: "RemoteObject | str", /, *args: Any, **named: Any) -> tuple[Any, dict[str, Any]]:
        """What a function there ("module:name" for one of the kit's own) returns, and what it changed in place."""
        answer = self.ask("call", function, list(args), named)
        if not isinstance(answer, list) or len(answer) != 2 or not isinstance(answer[1], dict):
            raise RemoteError("its answer to a call is none")
        return answer[0], answer[1]


class RemoteObject:
    """A function, class or module of the other process. Calls and attributes go over; plain data comes back."""

    def __init__(self, remote: Remote, number: int, kind: str) -> None:
        self._remote, self._handle = remote, Handle(number, kind)
        self.kind = kind  # the name of its type, as the other process gives it: "function"; "type" for every class; …

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result, changed = self._remote.call(self, *args, **kwargs)
        for number, value in changed.items():  # what was changed in place there is changed here, too
            arg = args[int(number)] if number.isdecimal() and int(number) < len(args) else None
            if isinstance(arg, Tensor) and isinstance(value, Tensor) and arg.shape == value.shape:
                arg.copy_(value)
        return result

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._remote.call("builtins:getattr", self, name)[0]


def _handle_of(value: Any) -> Handle:
    if not isinstance(value, RemoteObject):
        raise TypeError(f"a {type(value).__name__} cannot be sent; send numbers, strings, lists, dicts and tensors.")
    return value._handle


def runs_remotely(probe: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function of this package run in the process of its arguments: here, or that of a RemoteObject.

    What a check needs beyond plain data (a student's module, a gradient) goes into such a probe. It returns plain data,
    and what comes from another process is trusted no more than any other answer.
    """

    @functools.wraps(probe)
    def run(*args: Any) -> Any:
        bare = [getattr(arg, "__wrapped__", arg) for arg in args]
        for arg in bare:
            if isinstance(arg, RemoteObject):
                return arg._remote.call(f"{probe.__module__}:{probe.__name__}", *bare)[0]
        return probe(*args)

    return run
