"""Time the candidates once a case, and remember the fastest, as cuDNN's benchmark mode does.

A case is all that the answer may depend on, written as a person would read it: "weight gradient, 64x128x16x16, kernel
11x11, float32, channels_last, cpu with 2 threads". What was chosen is kept for the process and, by machine and version
of PyTorch, in a file of the user's cache folder: algorithms round differently, and the same seed on the same machine
must give the same bits tomorrow. A run keeps its own record as well (`choices`, `remember`).
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Hashable, Mapping
from functools import cache, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from c2f.device import describe_hardware, processor_name
from c2f.files import write_json

ROUNDS = 5
HOPELESS = 3.0  # what takes so many times the fastest is not timed again
MARGIN = 1.05  # the first candidate, PyTorch's own, stays unless it is slower by so much: noise must not decide

SETTLED = 4096  # kinds of calls that are kept

settled: dict[Hashable, tuple] = {}  # what follows from the choices for a kind of call; `settle` writes it
_timed: dict[str, dict[str, float]] = {}  # milliseconds of each candidate, of the cases timed in this process


def case(what: str, x: Tensor, kernel: tuple[int, int], layout: torch.memory_format) -> str:
    """The name of a case; `what` is the pass, x its first argument."""
    return _case(what, x.shape, kernel, x.dtype, layout, x.device, torch.get_num_threads())


@lru_cache(maxsize=4096)  # asked at every call of a convolution, and a small one takes no longer than this text
def _case(
    what: str,
    shape: torch.Size,
    kernel: tuple[int, int],
    dtype: torch.dtype,
    layout: torch.memory_format,
    device: torch.device,
    threads: int,
) -> str:
    where = f"cpu with {threads} threads" if device.type == "cpu" else describe_hardware(device)["name"]
    order = "channels_last" if layout == torch.channels_last else "NCHW"
    name = f"{what}, {'x'.join(map(str, shape))}, kernel {kernel[0]}x{kernel[1]}, {dtype}, {order}, {where}"
    return name.replace("torch.", "")


def known(name: str) -> str | None:
    """What was chosen for a case, if it was met before on this machine."""
    return _memory().get(name)


def choose(
    name: str, candidates: Mapping[str, Callable[[], Tensor]], device: torch.device, least_gain: float = 0.0
) -> str:
    """The fastest of the candidates for a case, timed now if it is new.

    The first is kept where it is about as fast, or slower by no more than least_gain, in seconds.

    A candidate that raises RuntimeError, for want of memory or of support for a type, is out of the running.
    """
    if (before := known(name)) in candidates:
        return before
    seconds = _measure(candidates, device)
    first = next(iter(candidates))
    best = min(seconds, key=seconds.__getitem__, default=first)
    least = seconds.get(best, 0)
    algorithm = first if seconds.get(first, float("inf")) <= max(MARGIN * least, least + least_gain) else best
    _timed[name] = {candidate: 1e3 * value for candidate, value in sorted(seconds.items(), key=lambda item: item[1])}
    remember({name: algorithm})
    _keep(name, algorithm)
    return algorithm


def choices() -> dict[str, str]:
    """The algorithm of every case met so far, or read from the user's cache folder."""
    return dict(_memory())


def remember(chosen: Mapping[str, str]) -> None:
    """Take these choices from now on in this process, timed here or not: those of an earlier run, or your own."""
    settled.clear()
    _memory().update(chosen)


def forget(everywhere: bool = False) -> None:
    """Time every case anew in this process; with `everywhere`, remove what the user's cache folder keeps too."""
    settled.clear()
    _memory().clear()
    _timed.clear()
    if everywhere:
        _file().unlink(missing_ok=True)


def settle(kind: Hashable, answer: tuple) -> None:
    """Keep what was found for a kind of call, whose every case is known, until a choice changes."""
    if len(settled) >= SETTLED:
        settled.clear()
    settled[kind] = answer


def describe() -> str:
    """Every case a line: what was chosen and, of those timed here, the milliseconds of each candidate."""
    lines = []
    for name, algorithm in sorted(choices().items()):
        times = ", ".join(f"{candidate} {value:.2f}" for candidate, value in _timed.get(name, {}).items())
        lines.append(f"{name}: {algorithm}" + (f" ({times} ms)" if times else ""))
    return "\n".join(lines)


def _measure(candidates: Mapping[str, Callable[[], Tensor]], device: torch.device) -> dict[str, float]:
    """Seconds of each candidate that is worth it: the least of some rounds, in turn.

    The least, and not the median, because whatever else the machine does can only add.
    """
    seconds = {}
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


def _seconds(run: Callable[[], Tensor], device: torch.device) -> float:
    wait = torch.accelerator.synchronize if device.type != "cpu" else lambda: None
    wait()
    started = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - started


# What is kept


@cache
def _memory() -> dict[str, str]:
    """The algorithm by case, for this process; it begins with what the file knows."""
    return dict(_read().get(_machine(), {}))


@cache
def _machine() -> str:
    """What a choice of yesterday holds for: this processor under this PyTorch."""
    return f"{processor_name()}, {os.cpu_count()} CPUs, torch {torch.__version__}"


def _file() -> Path:
    import pooch

    return Path(pooch.os_cache("c2f")) / "depthwise.json"


def _read() -> dict[str, dict[str, str]]:
    try:
        kept = json.loads(_file().read_text())
    except (OSError, ValueError):  # none yet, not ours to read, or spoilt: time again
        return {}
    sound = isinstance(kept, dict) and all(isinstance(of_machine, dict) for of_machine in kept.values())
    return kept if sound else {}


def _keep(name: str, algorithm: str) -> None:
    kept = _read()
    kept.setdefault(_machine(), {})[name] = algorithm
    with contextlib.suppress(OSError):  # without the file each process times for itself, and that is all
        write_json(_file(), kept)
