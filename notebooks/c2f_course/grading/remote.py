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
import os
import selectors
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Handle:
    """Something that stays in the other process, such as a function, a class or a module."""

    number: int
    kind: str


# ---- Values as messages


def pack(value: Any, keep: Callable[[Any], Handle] | None = None) -> bytes:
    """A message. `keep` gives the handle of what is not plain data; without it that is a TypeError."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_encode(value, tensors, keep)).encode()
    blob = safetensors.torch.save(tensors) if tensors else b""
    return struct.pack(">II", len(text), len(blob)) + text + blob


def _encode(value: Any, tensors: dict[str, Tensor], keep: Callable[[Any], Handle] | None) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        with contextlib.suppress(TypeError):
            value = torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, Tensor) and value.dtype in DTYPES and value.layout == torch.strided:
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, Handle):
        return {"handle": value.number, "kind": value.kind}
    if isinstance(value, tuple | list):
        name = "tuple" if isinstance(value, tuple) else "list"
        return {name: [_encode(item, tensors, keep) for item in value]}
    if isinstance(value, dict) and all(type(key) is str for key in value):
        return {"dict": {key: _encode(item, tensors, keep) for key, item in value.items()}}
    if keep is None:
        raise TypeError(f"a {type(value).__name__} cannot be sent; send numbers, strings, lists, dicts and tensors.")
    return _encode(keep(value), tensors, None)


def read_message(take: Callable[[int], bytes], look_up: Callable[[int], Any] | None = None) -> Any:
    """The value of the next message; ValueError for what is none. `take(n)` gives the next n bytes.

    `look_up(number)` gives a handle's object in the process where it is; elsewhere it stays a Handle.
    """
    length, size = struct.unpack(">II", take(8))
    if length > LARGEST_JSON or size > LARGEST_TENSORS:
        raise ValueError("more than any answer needs")
    text, blob = take(length), take(size)
    try:
        return _decode(json.loads(text), safetensors.torch.load(blob) if blob else {}, look_up)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, SafetensorError):
        raise ValueError("something that is no message") from None


def _decode(value: Any, tensors: dict[str, Tensor], look_up: Callable[[int], Any] | None) -> Any:
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "handle" in value:
        handle = Handle(int(value["handle"]), str(value["kind"]))
        return look_up(handle.number) if look_up else handle
    if "dict" in value:
        return {str(key): _decode(item, tensors, look_up) for key, item in value["dict"].items()}
    for name, build in (("tuple", tuple), ("list", list)):
        if name in value:
            return build(_decode(item, tensors, look_up) for item in value[name])
    raise ValueError("a value of no kind")


# ---- The grader's side


class Remote:
    """The grader's ends of two pipes to the other process: the file descriptors `read` and `write`, closed by `close`.

    An answer is waited for no longer than `seconds`, and never beyond `until`, a `time.monotonic()`.
    """

    def __init__(self, read: int, write: int, seconds: float, until: float = float("inf")) -> None:
        self.read, self.write, self.seconds, self.until = read, write, seconds, until
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        self.gone = False  # whether the process can answer no more questions
        self._buffer = bytearray()
        self._selector = selectors.DefaultSelector()

    def close(self) -> None:
        self._selector.close()
        for pipe in (self.read, self.write):
            with contextlib.suppress(OSError):
                os.close(pipe)

    def ask(self, what: str, *args: Any, seconds: float | None = None) -> Any:
        """One question and its answer, waited for no longer than so many seconds. Raises RemoteError or RemoteGone."""
        deadline = min(time.monotonic() + (seconds or self.seconds), self.until)
        try:
            self._send(pack({"ask": what, "args": list(args)}), deadline)
            answer = read_message(functools.partial(self._take, deadline=deadline))
            if not isinstance(answer, dict) or not answer.keys() & {"result", "raised"}:
                raise ValueError("something that answers no question")
        except (RemoteGone, ValueError) as error:
            self.gone = True
            raise (error if isinstance(error, RemoteGone) else RemoteGone(f"it sent {error}")) from None
        if "raised" in answer:
            raise RemoteError(str(answer["raised"])[:2000])
        return answer["result"]

    def answers(self, names: Sequence[str], given: Mapping[str, str] | None = None) -> list[Any]:
        """What the notebook defines under these names: plain data, or a RemoteObject. RemoteError without one of them.

        Until the next call `given`, name -> "module:attribute", stands there in place of the notebook's own. The other
        process's generator is seeded with 0, so that what it draws is known here.
        """
        values = self.ask("answers", list(names), {name: place.split(":") for name, place in (given or {}).items()})
        if not isinstance(values, list) or len(values) != len(names):
            raise RemoteError("its answers are none")
        return [self._wrap(value) for value in values]

    def get(self, name: str) -> Any:
        return self.answers([name])[0]

    def _wrap(self, value: Any) -> Any:
        return RemoteObject(self, value) if isinstance(value, Handle) else value

    def _send(self, message: bytes, deadline: float) -> None:
        view = memoryview(message)
        while view:
            self._wait(self.write, selectors.EVENT_WRITE, deadline)
            try:
                view = view[os.write(self.write, view) :]
            except BlockingIOError:
                continue
            except OSError:
                raise RemoteGone("it has ended") from None

    def _take(self, count: int, deadline: float) -> bytes:
        while len(self._buffer) < count:
            self._wait(self.read, selectors.EVENT_READ, deadline)
            try:
                some = os.read(self.read, 1 << 20)
            except BlockingIOError:
                continue
            if not some:
                raise RemoteGone("it has ended")
            self._buffer += some
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _wait(self, pipe: int, event: int, deadline: float) -> None:
        self._selector.register(pipe, event)
        ready = self._selector.select(max(0.0, deadline - time.monotonic()))
        self._selector.unregister(pipe)
        if not ready:
            raise RemoteGone("it did not answer in time")


class RemoteObject:
    """A function, class or module of the other process. Calls and attributes go over; plain data comes back."""

    def __init__(self, remote: Remote, handle: Handle) -> None:
        self._remote, self._handle = remote, handle

    @property
    def kind(self) -> str:
        """The name of its type, as the other process gives it: "function"; "type" for every class; …"""
        return self._handle.kind

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        named = dict(zip(kwargs, _plain(kwargs.values()), strict=True))
        answer = self._remote.ask("call", self._handle, _plain(args), named)
        if not isinstance(answer, list) or len(answer) != 2 or not isinstance(answer[1], dict):
            raise RemoteError("its answer to a call is none")
        result, changed = answer
        for number, value in changed.items():  # what was changed in place there is changed here, too
            arg = args[int(number)] if number.isdecimal() and int(number) < len(args) else None
            if isinstance(arg, Tensor) and isinstance(value, Tensor) and arg.shape == value.shape:
                arg.copy_(value)
        return self._remote._wrap(result)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._remote._wrap(self._remote.ask("attribute", self._handle, name))


def _plain(values: Any) -> list[Any]:
    return [value._handle if isinstance(value, RemoteObject) else value for value in values]


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
                return arg._remote._wrap(arg._remote.ask("probe", probe.__module__, probe.__name__, _plain(bare)))
        return probe(*args)

    return run
