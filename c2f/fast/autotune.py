"""Time the candidates for a case once and remember the fastest, as cuDNN's benchmark mode does.

A *case* is everything that the answer may depend on, written as a person would read it: "weight gradient,
64x128x16x16, kernel 11x11, float32, channels_last, cpu with 2 threads". A *candidate* is one way to compute it, and the
*choice* for a case is the name of its fastest candidate.

Choices are kept for the process and, per machine and version of PyTorch, in the user's cache folder: candidates round
differently, and the same seed on the same machine must give the same bits tomorrow. A run keeps those that it used in
its checkpoint (`recorded_choices`, `use_choices`). A choice that was timed while the machine did other work is kept as
well, but timed again by a process that meets it an hour or more later. The processes of a distributed run share theirs.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from c2f.device import describe_hardware, processor_name
from c2f.files import write_json

ROUNDS = 5
HOPELESS = 3.0  # a candidate that takes so many times the fastest is not timed again
MARGIN = 1.05  # the first candidate, PyTorch's own, stays unless it is slower by so much: noise must not decide
BUSY = 1.3  # a machine is busy where a matrix product takes so many times the least that it ever took there
RETRY_AFTER = 3600.0  # seconds after which what was timed on a busy machine is timed again
FAST_PATHS = 4096  # kinds of calls that are kept

fast_path: dict[Hashable, Any] = {}  # what was found for a kind of call, so that the next one need not look it up


class Timing(NamedTuple):
    """What is kept of a case: the choice, the least seconds of each candidate, whether the machine was busy, when."""

    choice: str
    seconds: dict[str, float]
    busy: bool
    time: float


Candidates = Mapping[str, Callable[[], Tensor]]
_choices: dict[str, str] = {}  # of the cases that this process has met
_cleared = 0.0  # when `clear_choices` was called: what was kept before then does not count
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
        torch.get_num_threads() if first.is_cpu else torch.backends.cudnn.allow_tf32,
        torch.is_grad_enabled(),
        torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None,
        *(t if t is None else (t.shape, t.stride(), t.dtype, t.requires_grad) for t in tensors),
    )


def keep_fast_path(kind: Hashable, answer: Any) -> Any:
    """Keep what follows from the choices for a kind of call, until a choice changes; returns it."""
    if len(fast_path) >= FAST_PATHS:
        fast_path.clear()
    fast_path[kind] = answer
    return answer


def case_name(what: str, x: Tensor, kernel: tuple[int, int]) -> str:
    """The text of a case; `what` is what is computed, x its first argument."""
    place = f"cpu with {torch.get_num_threads()} threads" if x.is_cpu else describe_hardware(x.device)["name"]
    order = "channels_last" if layout_of(x) == torch.channels_last else "NCHW"
    size = "x".join(map(str, x.shape))
    dtype = "tf32" if x.is_cuda and x.dtype == torch.float32 and torch.backends.cudnn.allow_tf32 else x.dtype
    return f"{what}, {size}, kernel {kernel[0]}x{kernel[1]}, {dtype}, {order}, {place}".replace("torch.", "")


def layout_of(x: Tensor) -> torch.memory_format:
    """channels_last for what is stored so and not the other way as well, as F.conv2d does it."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def choose(case: str, candidates: Candidates, device: torch.device, least_gain: float = 0.0) -> str:
    """The fastest of the candidates for a case, timed now if it is new.

    The first is kept where it is about as fast, or slower by no more than `least_gain` seconds. A candidate that raises
    RuntimeError, for want of memory or of support for a type, is not chosen.
    """
    if _choices.get(case) not in candidates:
        find = partial(_kept_or_timed, case, candidates, device, least_gain)
        several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        _choices[case] = _shared(case, find) if several else find()
    for recorder in _recorders:
        recorder[case] = _choices[case]
    return _choices[case]


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
    _choices.update(chosen)


def clear_choices() -> None:
    """Time every case anew in this process."""
    global _cleared
    fast_path.clear()
    _choices.clear()
    _cleared = time.time()


# Timing


def _shared(case: str, find: Callable[[], str]) -> str:
    """The process of a run that meets a case first decides for all of them: two choices would round in two ways."""
    store = dist.distributed_c10d._get_default_store()
    if store.add(f"c2f meets {case}", 1) == 1:
        store.set(f"c2f chooses {case}", find())
    return store.get(f"c2f chooses {case}").decode()  # waits for it


def _kept_or_timed(case: str, candidates: Candidates, device: torch.device, least_gain: float) -> str:
    first = next(iter(candidates))
    if len(candidates) == 1 or (device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
        return first  # nothing to compare, or no moment to wait for the device
    before = _read(case, since=_cleared)
    if before and before.choice in candidates and not (before.busy and time.time() - before.time > RETRY_AFTER):
        return before.choice
    product = _product_seconds(device)
    seconds = _measure(candidates, device)
    if not seconds:  # none of them can run, for instance in mixed types: PyTorch's own call is to say so
        return first
    if before:  # other work can only add to a time, so the least of both counts
        seconds = {name: min(value, before.seconds.get(name, value)) for name, value in seconds.items()}
    best = min(seconds, key=seconds.__getitem__)
    enough = max(MARGIN * seconds[best], seconds[best] + least_gain)
    choice = first if seconds.get(first, float("inf")) <= enough else best
    _write(case, Timing(choice, seconds, _is_busy(device, product, _product_seconds(device)), time.time()))
    return choice


def _measure(candidates: Candidates, device: torch.device) -> dict[str, float]:
    """Seconds of each candidate that is worth it: the least of some rounds, interleaved.

    The least, and not the median, because other work on the machine can only add.
    """
    seconds: dict[str, float] = {}
    for name, run in reversed(candidates.items()):  # PyTorch's own, often the slowest, last
        with contextlib.suppress(RuntimeError):
            warm_up = _seconds(run, device)
            # On an accelerator it says little: the first call loads or compiles the code, which can take seconds.
            if device.type != "cpu" or warm_up < 10 * HOPELESS * min(seconds.values(), default=float("inf")):
                seconds[name] = _seconds(run, device)
    for _ in range(ROUNDS - 1):
        limit = HOPELESS * min(seconds.values(), default=0)
        for name in [name for name, least in seconds.items() if least <= limit]:
            seconds[name] = min(seconds[name], _seconds(candidates[name], device))
    return seconds


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    wait = torch.accelerator.synchronize if device.type != "cpu" else lambda: None
    wait()
    started = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - started


def _product_seconds(device: torch.device) -> float:
    """Seconds of a small matrix product, by which a busy machine is told: the least of some."""
    a = torch.ones(320, 320, device=device)
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        return min(_seconds(lambda: a @ a, device) for _ in range(ROUNDS))


def _is_busy(device: torch.device, *products: float) -> bool:
    """Whether one of these times of the matrix product is far above the least that was ever found here."""
    case = f"matrix product, {device.type} with {torch.get_num_threads()} threads"
    before = _read(case)
    least = min(*products, (before.seconds if before else {}).get("product", float("inf")))
    if least in products:
        _write(case, Timing("product", {"product": least}, busy=False, time=time.time()))
    return max(products) > BUSY * least


# What is kept, a file per case: processes that write at once do not meet


@cache
def _machine() -> str:
    """What a choice of yesterday holds for: this processor under this PyTorch."""
    return f"{processor_name()}, {os.cpu_count()} CPUs, torch {torch.__version__}"


def _file(case: str) -> Path:
    import pooch

    name = hashlib.sha256(f"{_machine()}: {case}".encode()).hexdigest()[:32]
    return Path(pooch.os_cache("c2f"), "choices", f"{name}.json")


def _read(case: str, since: float = 0.0) -> Timing | None:
    """What was kept of a case since a time; None where there is nothing, or nothing that can be read."""
    try:
        kept = json.loads(_file(case).read_bytes())
        seconds = {str(name): float(value) for name, value in kept["seconds"].items()}
        timing = Timing(str(kept["choice"]), seconds, bool(kept["busy"]), float(kept["time"]))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return timing if timing.time >= since else None


def _write(case: str, timing: Timing) -> None:
    """Keep a case for other processes. Where the folder cannot be written to, each process times for itself."""
    with contextlib.suppress(OSError):
        write_json(_file(case), {"machine": _machine(), "case": case, **timing._asdict()})
