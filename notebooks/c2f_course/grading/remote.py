"""Ask questions of code that is not trusted, in another process, and believe nothing but the data that comes back.

A grader that runs in the student's own interpreter can be told anything by it: `assert`, torch and the checks
themselves can be replaced there, and an object can claim to equal everything. So the student's code runs alone
(`worker`), and the grader calls its functions from outside: arguments go over as plain data, results come back as
plain data, and they are compared here. Nothing is unpickled; whatever bytes arrive, they become numbers,
strings, lists and tensors, or an error in a sentence.

    message := length of the header (4 bytes, big endian), header (JSON), the tensors' bytes one after another
"""

import contextlib
import functools
import json
import math
import os
import selectors
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

LARGEST_HEADER = 4 << 20  # bytes; what is longer is no answer to any question of ours
LARGEST_TENSORS = 512 << 20
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
        torch.uint8, torch.bool,
    )
}  # fmt: skip


class RemoteError(Exception):
    """The student's code raised; the message says what."""


class RemoteGone(Exception):
    """The student's process ended, ran out of time, or sent what is no message; nothing more can be asked of it."""


@dataclass(frozen=True)
class Handle:
    """Something that stays in the other process, such as a function, a class or a module."""

    number: int
    kind: str


# ---- Values as messages


def pack(value: Any, keep: "Any" = None) -> bytes:
    """A message. `keep(object)` -> Handle is asked for what is not plain data; without it that is a TypeError."""
    tensors: list[Tensor] = []
    header = {"value": _encode(value, tensors, keep)}
    header["tensors"] = [[str(t.dtype).removeprefix("torch."), list(t.shape)] for t in tensors]
    text = json.dumps(header).encode()
    blobs = [t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for t in tensors if t.numel()]
    return b"".join([struct.pack(">I", len(text)), text, *blobs])


def _encode(value: Any, tensors: list[Tensor], keep: Any) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        with contextlib.suppress(TypeError):
            value = torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, Tensor) and value.dtype in DTYPES.values() and value.layout == torch.strided:
        tensors.append(value.detach().cpu().resolve_conj().resolve_neg())
        return {"tensor": len(tensors) - 1}
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


def length_of_tensors(header: bytes) -> int:
    """How many bytes follow a message's header. Raises an error of some kind for what is no header."""
    sizes = [DTYPES[name].itemsize * math.prod(shape) for name, shape in json.loads(header)["tensors"]]
    if any(size < 0 for size in sizes) or sum(sizes) > LARGEST_TENSORS:
        raise ValueError("too large")
    return sum(sizes)


def unpack(header: bytes, body: bytes, look_up: Any = None) -> Any:
    """What a message says. `look_up(number)` gives a handle's object where it lives; elsewhere it stays a Handle.

    Raises ValueError for whatever is no message.
    """
    try:
        told = json.loads(header)
        tensors, at = [], 0
        for name, shape in told["tensors"]:
            dtype, size = DTYPES[name], math.prod(shape)
            if min([0, *shape]) < 0 or len(shape) > 16:
                raise ValueError("a tensor of no shape")
            length = size * dtype.itemsize
            blob = body[at : at + length]
            if len(blob) != length:
                raise ValueError("a tensor is cut off")
            flat = torch.frombuffer(bytearray(blob), dtype=dtype) if length else torch.empty(0, dtype=dtype)
            tensors.append(flat.reshape(shape))
            at += length
        return _decode(told["value"], tensors, look_up)
    except (KeyError, TypeError, IndexError, AttributeError, OverflowError, RuntimeError, UnicodeDecodeError) as error:
        raise ValueError(f"this is no message: {error}") from None


def _decode(value: Any, tensors: list[Tensor], look_up: Any) -> Any:
    if not isinstance(value, dict):
        if isinstance(value, list):
            raise ValueError("a bare list")
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


# ---- The asking side


class Remote:
    """The other process, as the grader sees it: two pipes, and a time by which everything must have been answered.

    Args:
        read, write: file descriptors of the pipes; they are closed with this.
        seconds: for one question, and never beyond `until`.
        until: a `time.monotonic()` after which nothing is waited for.
    """

    def __init__(self, read: int, write: int, seconds: float, until: float = math.inf) -> None:
        self.read, self.write, self.seconds, self.until = read, write, seconds, until
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        self.gone = False
        """Whether nothing more can be asked of it."""
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
            answer = self._receive(deadline)
            if not isinstance(answer, dict) or not answer.keys() & {"result", "raised"}:
                raise RemoteGone("it sent something that answers no question")
        except RemoteGone:
            self.gone = True
            raise
        if "raised" in answer:
            raise RemoteError(str(answer["raised"])[:2000])
        return answer["result"]

    def get(self, name: str) -> "Any":
        """A name of the notebook: its value if that is plain data, else something to call. RemoteError without it."""
        return self._wrap(self.ask("get", name))

    def seed(self, seed: int) -> None:
        """Seed the other process's generator, so that what it draws is known here."""
        self.ask("seed", seed)

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

    def _receive(self, deadline: float) -> Any:
        (length,) = struct.unpack(">I", self._take(4, deadline))
        if length > LARGEST_HEADER:
            raise RemoteGone("it sent more than any answer needs")
        header = self._take(length, deadline)
        try:
            length = length_of_tensors(header)
            return unpack(header, self._take(length, deadline))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise RemoteGone("it sent something that is no message") from None

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
        """The name of its type, as the other process tells it: "function", "type", …"""
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

    def __repr__(self) -> str:
        return f"<{self._handle.kind} in the other process>"


def _plain(values: Any) -> list[Any]:
    return [value._handle if isinstance(value, RemoteObject) else value for value in values]


def beside(probe: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function of this package run where its arguments live: here, or in the process of a RemoteObject.

    What a check has to do with more than plain data (build a student's module, take a gradient) goes into such a
    probe. It gives back plain data, and what comes from another process is trusted no more than any other answer.
    """

    @functools.wraps(probe)
    def run(*args: Any) -> Any:
        bare = [getattr(arg, "__wrapped__", arg) for arg in args]
        for arg in bare:
            if isinstance(arg, RemoteObject):
                return arg._remote._wrap(arg._remote.ask("probe", probe.__module__, probe.__name__, _plain(bare)))
        return probe(*args)

    return run
