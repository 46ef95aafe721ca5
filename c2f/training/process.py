"""What surrounds the loop: the model's device, several processes, forked random generators, and Ctrl-C."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from c2f.device import from_torchrun


@contextlib.contextmanager
def placed_on(model: nn.Module, device: torch.device, memory_format: torch.memory_format) -> Iterator[None]:
    """Inside, the model is on `device` with its kernels in `memory_format`; afterwards it is as it was.

    That is: on the device and in the memory format where it was, with its own rate of stochastic depth, its parameters
    ordinary tensors. Raises ValueError for a model on several devices.
    """
    homes = {tensor.device for tensor in (*model.parameters(), *model.buffers())} or {device}
    if len(homes) > 1:
        raise ValueError(f"the model is on {' and '.join(sorted(map(str, homes)))}; move it to one device first.")
    (home,) = homes
    rates = [(module, module.p) for module in model.modules() if isinstance(module, StochasticDepth)]
    strides = [parameter.stride() for parameter in model.parameters()]
    try:
        model.to(device, memory_format=memory_format)
        yield
    finally:
        model.to(home)
        for parameter, stride in zip(model.parameters(), strides, strict=True):
            if parameter.stride() != stride:
                empty = torch.empty_strided(parameter.shape, stride, dtype=parameter.dtype, device=home)
                parameter.data = empty.copy_(parameter.data)
        for module, rate in rates:
            module.p = rate


@contextlib.contextmanager
def processes(device: torch.device) -> Iterator[tuple[int, int]]:
    """(rank, world size) under torchrun, with the process group up; (0, 1) otherwise."""
    world = from_torchrun("WORLD_SIZE", 1)
    if world == 1:
        yield 0, 1
        return
    ours = not dist.is_initialized()  # else the caller's own script has done it, and goes on with it
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if ours:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield dist.get_rank(), world
    finally:
        if ours:
            dist.destroy_process_group()


def from_first_process(value: Any, world: int) -> Any:
    """The first process's `value`, in every process."""
    holder = [value]
    if world > 1:
        dist.broadcast_object_list(holder, src=0)
    return holder[0]


def over_processes(results: Tensor, stop: bool, world: int) -> tuple[list[list[float]], bool]:
    """[mean loss, right predictions] of each step, and whether any process was interrupted: the same in all of them.

    `results` is (steps, 2), each process's own; to read them is to wait for the device.
    """
    if world > 1:
        results = torch.cat([results, results.new_full((1, 2), float(stop))])
        dist.all_reduce(results)
        stop, results = bool(results[-1, 1] > 0), results[:-1]
        results[:, 0] /= world
    return results.tolist(), stop


@contextlib.contextmanager
def forked_rng(device: torch.device) -> Iterator[None]:
    """Seed freely inside; leave the caller's generators, and cuDNN's choice of kernels, as they were."""
    before = torch.backends.cudnn.deterministic
    of_mps = torch.mps.get_rng_state() if device.type == "mps" else None  # fork_rng cannot do it
    torch.backends.cudnn.deterministic = True  # the same bits again are worth more here than the last percent
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        torch.backends.cudnn.deterministic = before
        if of_mps is not None:
            torch.mps.set_rng_state(of_mps)


@contextlib.contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Let the first Ctrl-C (or a notebook's stop button) finish the step at hand; a second one stops at once."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted  # Python delivers signals to the main thread only
        return

    def interrupt(signum: int, frame: Any) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
