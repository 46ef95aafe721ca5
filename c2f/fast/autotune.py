"""Time the candidates for a case once and remember the fastest, as cuDNN's benchmark mode does.

A *case* is everything that the answer may depend on, written as a person would read it: "weight gradient,
64x128x16x16, kernel 11x11, float32, channels_last, cpu with 2 threads". A *candidate* is one way to compute it, and the
*choice* for a case is the name of its fastest candidate.

Choices are kept for the process and, per machine and version of PyTorch, in a file of the user's cache folder:
candidates round differently, and the same seed on the same machine must give the same bits tomorrow. A run keeps those
that it used in its checkpoint (`recorded_choices`, `use_choices`). A choice that was timed while the machine did other
work is kept as well, but timed again by a process that meets it an hour or more later. The processes of a distributed
run share theirs.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import filelock
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from c2f.device import describe_hardware, processor_name

ROUNDS = 5
HOPELESS = 3.0  # a candidate that takes so many times the fastest is not timed again
MARGIN = 1.05  # the first candidate, PyTorch's own, stays unless it is slower by so much: noise must not decide
BUSY = 1.3  # a machine is busy where a matrix product takes so many times the least that it ever took there
RETRY_AFTER = 3600.0  # seconds after which what was timed on a busy machine is timed again
FAST_PATHS = 4096  # kinds of calls that are kept

Answer = TypeVar("Answer")
fast_path: dict[Hashable, Any] = {}  # what was found for a kind of call, so that the next one need not look it up


@dataclass
class Timing:
    """What is known of a case: the choice, the least seconds of each candidate, and how far they can be trusted."""

    choice: str
    seconds: dict[str, float]
    busy: bool
    time: float

    @property
    def stale(self) -> bool:
        return self.busy and time.time() - self.time > RETRY_AFTER


_timings: dict[str, Timing] = {}  # of the cases that this process has met
_cleared = 0.0  # when `clear_choices` was called: what the file has from before does not count
_recorders: list[dict[str, str]] = []


def is_ordinary(x: Tensor, weight: Tensor | None = None) -> bool:
    """Whether x and weight hold numbers that can be timed, and nobody watches or transforms what is done with them.

    False for complex, fake and meta tensors, for subclasses, and inside torch.compile, torch.export, torch.jit.trace,
    torch.func, forward-mode differentiation and every mode that sees the operators, such as FlopCounterMode.
    """
    return (
        type(x) in (Tensor, nn.Parameter)
        and not x.is_meta
        and x.is_floating_point()
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not is_in_torch_dispatch_mode()
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
        and (weight is None or (type(weight) in (Tensor, nn.Parameter) and weight.device == x.device))
    )


def signature(*tensors: Tensor | None) -> tuple[Hashable, ...]:
    """What a call with these tensors depends on, to look it up in `fast_path`."""
    first = tensors[0]
    device = "cpu" if first.is_cpu else first.device.type  # reading the text takes microseconds
    return (
        first.device,
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None,
        *(t if t is None else (t.shape, t.stride(), t.dtype, t.requires_grad) for t in tensors),
    )


def keep_fast_path(kind: Hashable, answer: Answer) -> Answer:
    """Keep what follows from the choices for a kind of call, until a choice changes; returns it."""
    if len(fast_path) >= FAST_PATHS:
        fast_path.clear()
    fast_path[kind] = answer
    return answer


def case_name(what: str, x: Tensor, kernel: tuple[int, int], layout: torch.memory_format) -> str:
    """The text of a case; `what` is the pass, x its first argument."""
    device = x.device
    where = f"cpu with {torch.get_num_threads()} threads" if device.type == "cpu" else describe_hardware(device)["name"]
    order = "channels_last" if layout == torch.channels_last else "NCHW"
    size = "x".join(map(str, x.shape))
    return f"{what}, {size}, kernel {kernel[0]}x{kernel[1]}, {x.dtype}, {order}, {where}".replace("torch.", "")


def choose(
    case: str, candidates: Mapping[str, Callable[[], Tensor]], device: torch.device, least_gain: float = 0.0
) -> str:
    """The fastest of the candidates for a case, timed now if it is new.

    The first is kept where it is about as fast, or slower by no more than `least_gain` seconds. A candidate that raises
    RuntimeError, for want of memory or of support for a type, is out of the running.
    """
    if case not in _timings or _timings[case].choice not in candidates:
        _timings[case] = _find(case, candidates, device, least_gain)
    choice = _timings[case].choice
    for recorder in _recorders:
        recorder[case] = choice
    return choice


@contextlib.contextmanager
def recorded_choices() -> Iterator[dict[str, str]]:
    """The choices that are used inside, by case, in a dictionary that grows as they are used."""
    used: dict[str, str] = {}
    fast_path.clear()  # so that each case is looked up at least once
    _recorders.append(used)
    try:
        yield used
    finally:
        _recorders[:] = [recorder for recorder in _recorders if recorder is not used]


def use_choices(chosen: Mapping[str, str]) -> None:
    """Take these from now on in this process, whether or not they are the fastest: an earlier run's, or your own."""
    fast_path.clear()
    _timings.update({case: Timing(choice, {}, busy=False, time=time.time()) for case, choice in chosen.items()})


def clear_choices(everywhere: bool = False) -> None:
    """Time every case anew in this process; with `everywhere`, remove the file in the user's cache folder too."""
    global _cleared
    fast_path.clear()
    _timings.clear()
    _cleared = time.time()
    if everywhere:
        _file_of_choices.path().unlink(missing_ok=True)


def describe_choices() -> str:
    """One line per case that this process has met: the choice, and the milliseconds of each candidate."""
    lines = []
    for case, timing in sorted(_timings.items()):
        ordered = sorted(timing.seconds.items(), key=lambda item: item[1])
        times = ", ".join(f"{candidate} {1e3 * seconds:.2f}" for candidate, seconds in ordered)
        lines.append(f"{case}: {timing.choice}" + f" ({times} ms)" * bool(times) + ", machine busy" * timing.busy)
    return "\n".join(lines)


# Timing


def _find(case: str, candidates: Mapping[str, Callable[[], Tensor]], device: torch.device, least_gain: float) -> Timing:
    """A case that this process has not met: from the file, from another process of this run, or timed."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return _kept_or_timed(case, candidates, device, least_gain)
    # Whichever process meets a case first decides for all of them, since two choices would round in two ways.
    store = dist.distributed_c10d._get_default_store()
    if store.add(f"c2f meets {case}", 1) == 1:
        store.set(f"c2f chooses {case}", json.dumps(asdict(_kept_or_timed(case, candidates, device, least_gain))))
    return Timing(**json.loads(store.get(f"c2f chooses {case}")))  # waits for it


def _kept_or_timed(
    case: str, candidates: Mapping[str, Callable[[], Tensor]], device: torch.device, least_gain: float
) -> Timing:
    first = next(iter(candidates))
    if len(candidates) == 1 or (device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
        return Timing(first, {}, busy=False, time=0.0)  # nothing to compare, or no moment to wait for the device
    _file_of_choices.read()
    before = _file_of_choices.cases.get(case)
    if before and before.time < _cleared:
        before = None
    if before and before.choice in candidates and not before.stale:
        return before
    product = _product_seconds(device)
    seconds = _measure(candidates, device)
    if not seconds:  # none of them can run, for instance in mixed types: PyTorch's own call is to say so
        return Timing(first, {}, busy=False, time=0.0)
    if before:  # other work can only add to a time, so the least of both counts
        seconds = {name: min(value, before.seconds.get(name, value)) for name, value in seconds.items()}
    best = min(seconds, key=seconds.__getitem__)
    least = seconds[best]
    choice = first if seconds.get(first, float("inf")) <= max(MARGIN * least, least + least_gain) else best
    products = (product, _product_seconds(device))
    where = f"{device.type} with {torch.get_num_threads()} threads"
    quickest = min(*products, _file_of_choices.products.get(where, product))
    found = Timing(choice, seconds, busy=max(products) > BUSY * quickest, time=time.time())
    _file_of_choices.add(case, found, where, quickest)
    return found


def _measure(candidates: Mapping[str, Callable[[], Tensor]], device: torch.device) -> dict[str, float]:
    """Seconds of each candidate that is worth it: the least of some rounds, interleaved.

    The least, and not the median, because whatever else the machine does can only add.
    """
    seconds: dict[str, float] = {}
    for name, run in reversed(candidates.items()):  # PyTorch's own, often the slowest, last
        try:
            warm = _seconds(run, device)
            if warm < 10 * HOPELESS * min(seconds.values(), default=float("inf")):
                seconds[name] = _seconds(run, device)
        except RuntimeError:
            continue
    for _ in range(ROUNDS - 1):
        limit = HOPELESS * min(seconds.values(), default=0)
        for name, before in seconds.items():
            if before <= limit:
                seconds[name] = min(before, _seconds(candidates[name], device))
    return seconds


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    wait = torch.accelerator.synchronize if device.type != "cpu" else lambda: None
    wait()
    started = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - started


def _product_seconds(device: torch.device, size: int = 320, tries: int = 5) -> float:
    """Seconds of a small matrix product, by which a busy machine is told: the least of some."""
    a = torch.ones(size, size, device=device)
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        return min(_seconds(lambda: a @ a, device) for _ in range(tries))


# The file


@cache
def _machine() -> str:
    """What a choice of yesterday holds for: this processor under this PyTorch."""
    return f"{processor_name()}, {os.cpu_count()} CPUs, torch {torch.__version__}"


class _ChoicesFile:
    """What the processes of this user found, one line of JSON per case: it is only ever added to, and read on."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self.cases: dict[str, Timing] = {}
        self.products: dict[str, float] = {}  # seconds of the quickest matrix product, by device and threads
        self.place: tuple[Path | None, int] = (None, 0)  # the file, and how much of it has been read

    def path(self) -> Path:
        import pooch

        return Path(pooch.os_cache("c2f")) / "choices.jsonl"

    def read(self) -> None:
        """Read what was added since the last time."""
        path, done = self.path(), self.place[1]
        try:
            size = path.stat().st_size
            if path != self.place[0] or size < done:  # another file, or one that was begun anew
                self._forget()
                done = 0
            if size > done:
                with open(path, "rb") as file:
                    file.seek(done)
                    new = file.read()
                whole = new[: new.rfind(b"\n") + 1]  # another process may be writing the rest
                for line in whole.splitlines():
                    self._take(line)
                done += len(whole)
            self.place = (path, done)
        except OSError:  # none yet, or not ours to read
            self._forget()

    def _take(self, line: bytes) -> None:
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):  # a spoilt line does not count
            found = json.loads(line)
            if found["machine"] == _machine():
                seconds = {str(name): float(value) for name, value in found["seconds"].items()}
                timing = Timing(str(found["choice"]), seconds, bool(found["busy"]), float(found["time"]))
                product = float(found["product"])
                self.products[found["where"]] = min(product, self.products.get(found["where"], product))
                self.cases[found["case"]] = timing

    def add(self, case: str, timing: Timing, where: str, product: float) -> None:
        """Add a line, which other processes do too. Without the file each process times for itself."""
        line = {"machine": _machine(), "case": case, **asdict(timing), "where": where, "product": product}
        path = self.path()
        with contextlib.suppress(OSError, filelock.Timeout):
            path.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(path.with_suffix(".lock"), timeout=10), open(path, "ab") as file:
                # A killed writer may have left half a line.
                file.write(b"\n" * (file.tell() > 0) + json.dumps(line).encode() + b"\n")


_file_of_choices = _ChoicesFile()
