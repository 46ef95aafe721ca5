"""Measuring: contenders interleaved, the machine's own limits, peak memory.

Interleaved, because a machine that grows warm or busy half-way would otherwise favour whoever came first. Medians with
their spread, because one figure says nothing of the noise.
"""

import multiprocessing
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from c2f.device import describe_hardware, describe_versions
from c2f.fast.accelerate import accelerate
from c2f.fast.memory import keep_memory
from c2f.training.loop import make_optimizers, set_drop_path
from c2f.training.recipes import Recipe


@dataclass(frozen=True)
class Conditions:
    """How speed is measured; one and the same for all models of a table."""

    device: torch.device
    batch_size: int = 64
    precision: str = "float32"
    channels_last: bool = False
    compile: bool = False
    accelerate: bool = True
    rounds: int = 5

    @property
    def layout(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def __str__(self) -> str:
        return f"{say_machine(self.device)}, {self.setting}, batch {self.batch_size}; {say_versions()}"

    @property
    def setting(self) -> str:
        """Precision, layout, compiler, and whether the layers are as `c2f.accelerate` leaves them."""
        layout = "channels_last" if self.channels_last else "NCHW"
        return f"{self.precision}, {layout}{', compiled' * self.compile}{', accelerated' * self.accelerate}"


def say_machine(device: torch.device) -> str:
    machine = describe_hardware(device)
    return f"{machine['name']} ({machine['device']}), {say_threads(machine)} on {machine['cores']} cores"


def say_versions(versions: dict[str, str] | None = None) -> str:
    return ", ".join(f"{name} {version}" for name, version in (versions or describe_versions()).items())


def say_threads(hardware: dict[str, str | int]) -> str:
    return f"{hardware['threads']} thread{'s' * (hardware['threads'] != 1)}"


def interleaved(
    contenders: Mapping[str, Callable[[], object]], rounds: int, min_seconds: float = 0.1
) -> dict[str, list[float]]:
    """Seconds of one call of each contender, one figure per round; each is called once before it is timed.

    All run within `keep_memory`, as in this kit's loop: the baselines have it as well.
    """
    from torch.utils.benchmark import Timer  # it waits for the device, and keeps Python's garbage collector out

    timers = {
        name: Timer("step()", globals={"step": step}, num_threads=torch.get_num_threads())
        for name, step in contenders.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    with keep_memory():
        for _ in tqdm(range(rounds), desc="measuring", unit="round", leave=False):
            for name, timer in timers.items():
                contenders[name]()  # the memory that is kept must have been asked for first
                seconds[name].append(timer.blocked_autorange(min_run_time=min_seconds).median)
    return seconds


# What is measured


def training_step(
    model: nn.Module, recipe: Recipe, size: tuple[int, int], conditions: Conditions
) -> Callable[[], None]:
    """A training step on images that are on the device already: forward, loss, backward, the recipe's optimizer."""
    model = _prepared(model, conditions)
    set_drop_path(model, recipe.drop_path)
    optimizers = make_optimizers(model, recipe)
    x = images(size, conditions)
    targets = torch.zeros(len(x), dtype=torch.long, device=x.device)
    forward = _compiled(model) if conditions.compile else model

    def step() -> None:
        if not model.training:
            model.train()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=conditions.precision == "bf16"):
            logits = forward(x)
        for optimizer in optimizers:
            optimizer.zero_grad()
        F.cross_entropy(logits.float(), targets, label_smoothing=recipe.label_smoothing).backward()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=conditions.precision == "bf16"):  # as `train` has it
            for optimizer in optimizers:
                optimizer.step()

    return step


def forward_pass(model: nn.Module, size: tuple[int, int], conditions: Conditions) -> Callable[[], None]:
    """A batch of images through the model, in evaluation mode."""
    model = _prepared(model, conditions)
    x = images(size, conditions)
    forward = _compiled(model) if conditions.compile else model

    @torch.inference_mode()
    def step() -> None:
        if model.training:
            model.eval()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=conditions.precision == "bf16"):
            forward(x)

    return step


def _prepared(model: nn.Module, conditions: Conditions) -> nn.Module:
    model = model.to(conditions.device, memory_format=conditions.layout)
    return accelerate(model) if conditions.accelerate else model


def _compiled(model: nn.Module) -> nn.Module:
    """For one shape. Left to itself, torch.compile takes the layouts of other contenders for changing shapes."""
    return torch.compile(model, dynamic=False)


def images(size: tuple[int, int], conditions: Conditions) -> Tensor:
    x = torch.randn(conditions.batch_size, 3, *size, device=conditions.device)
    return x.contiguous(memory_format=conditions.layout)


# The machine's own limits


def limits(device: torch.device, dtypes: Sequence[torch.dtype]) -> dict[str, Callable[[], object]]:
    """Contenders that show what the machine can do: a large matrix product of each type, and a copy of a large tensor.

    The product is had in two ways, as `a @ a` and as a 1×1 convolution, since they are two libraries' work and one of
    them may not know the processor. `peak` and `bandwidth` turn seconds into operations and bytes a second.
    """
    found: dict[str, Callable[[], object]] = {}
    for dtype in dtypes:
        a = torch.ones(PRODUCT, PRODUCT, dtype=dtype, device=device)
        map_nchw = a.view(1, -1, 32, PRODUCT).permute(0, 3, 1, 2)  # a row a position, its columns the channels
        name = str(dtype).removeprefix("torch.")
        found[f"matrix product as a @ a, {name}"] = lambda a=a: a @ a
        found[f"matrix product as a 1×1 convolution, {name}"] = lambda x=map_nchw, a=a: F.conv2d(x, a[:, :, None, None])
    source = torch.ones(COPIED // 4, device=device)
    target = torch.empty_like(source)
    found["copy"] = lambda: target.copy_(source)
    return found


PRODUCT = 2048  # rows and columns of the matrices
COPIED = 256 * 2**20  # bytes, beyond every cache


def peak(seconds: Sequence[float]) -> float:
    """Floating-point operations a second of the matrix product."""
    return 2 * PRODUCT**3 / statistics.median(seconds)


def bandwidth(seconds: Sequence[float]) -> float:
    """Bytes read and written a second by the copy."""
    return 2 * COPIED / statistics.median(seconds)


# Memory


def peak_memory(make_step: Callable[..., Callable[[], None]], *arguments: object) -> int | None:
    """Bytes that steps need at most, beyond what the process holds before; None where the system does not tell.

    On a CPU, `make_step(*arguments)` runs in a process of its own, whose high-water mark the system keeps. All must be
    importable, as for `multiprocessing`.
    """
    if sys.platform != "linux":
        return None
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_watch_memory, args=(send, torch.get_num_threads(), make_step, arguments))
    process.start()
    send.close()
    try:
        return receive.recv()
    except EOFError:
        return None
    finally:
        process.join()


def _watch_memory(send, threads: int, make_step: Callable[..., Callable[[], None]], arguments: tuple) -> None:
    torch.set_num_threads(threads)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew: imports have left a high one
    before = _from_status("VmRSS")
    step = make_step(*arguments)
    for _ in range(3):
        step()
    send.send(_from_status("VmHWM") - before)


def _from_status(field: str) -> int:
    """Bytes that the system says this process holds (VmRSS), or held at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (found,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(found.split()[1]) * 1024
