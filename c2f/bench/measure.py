"""Measuring: contenders interleaved, and the machine's own limits.

Interleaved, because a machine that grows warm or busy half-way would otherwise favour the first contender. Medians with
their spread, because one figure says nothing of the noise.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median

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
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    def say(self, what: str) -> str:
        """The note of a table of what was measured so."""
        machine = f"{say_machine(self.device)}; {say_versions()}"
        return f"{machine}. {what}; the contenders interleaved, median (lowest–highest) of {self.rounds} rounds."

    @property
    def setting(self) -> str:
        """Precision, layout, compiler, and whether the layers are as `c2f.accelerate` leaves them."""
        layout = "channels_last" if self.channels_last else "NCHW"
        return f"{self.precision}, {layout}{', compiled' * self.compile}{', accelerated' * self.accelerate}"


def say_machine(device: torch.device) -> str:
    machine = describe_hardware(device)
    threads = f"{machine['threads']} thread{'s' * (machine['threads'] != 1)}"
    return f"{machine['name']} ({machine['device']}), {threads} on {machine['cores']} cores"


def say_versions(versions: dict[str, str] | None = None) -> str:
    return ", ".join(f"{name} {version}" for name, version in (versions or describe_versions()).items())


def median_and_range(figures: Iterable[float]) -> str:
    """Median (lowest–highest), to three digits of the median."""
    figures = list(figures)
    decimals = max(0, 2 - math.floor(math.log10(median(figures))))
    middle, low, high = (f"{figure:,.{decimals}f}" for figure in (median(figures), min(figures), max(figures)))
    return f"{middle} ({low}–{high})"


def interleaved(
    contenders: Mapping[str, Callable[[], object]], rounds: int, min_seconds: float = 0.1
) -> dict[str, list[float]]:
    """Seconds of one call of each contender, one figure per round; each is called once before it is timed.

    All run within `keep_memory`, as in this kit's loop: the baselines have it as well.
    """
    from torch.utils.benchmark import Timer  # it waits for the device, and keeps Python's garbage collector out

    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    with keep_memory():
        for _ in tqdm(range(rounds), desc="measuring", unit="round", leave=False):
            for name, step in contenders.items():
                step()  # the memory that is kept must have been asked for first
                timer = Timer("step()", globals={"step": step}, num_threads=torch.get_num_threads())
                seconds[name].append(timer.blocked_autorange(min_run_time=min_seconds).median)
    return seconds


# What is measured


def training_step(
    model: nn.Module, recipe: Recipe, size: tuple[int, int], conditions: Conditions
) -> Callable[[], None]:
    """A training step on images that are on the device already: forward, loss, backward, the recipe's optimizer."""
    forward, x, autocast = _prepared(model, size, conditions)
    set_drop_path(model, recipe.drop_path)
    optimizers = make_optimizers(model, recipe)
    targets = torch.zeros(len(x), dtype=torch.long, device=x.device)

    def step() -> None:
        if not model.training:
            model.train()
        with autocast:
            logits = forward(x)
        for optimizer in optimizers:
            optimizer.zero_grad()
        F.cross_entropy(logits.float(), targets, label_smoothing=recipe.label_smoothing).backward()
        with autocast:  # as `train` has it
            for optimizer in optimizers:
                optimizer.step()

    return step


def forward_pass(model: nn.Module, size: tuple[int, int], conditions: Conditions) -> Callable[[], None]:
    """A batch of images through the model, in evaluation mode."""
    forward, x, autocast = _prepared(model, size, conditions)

    @torch.inference_mode()
    def step() -> None:
        if model.training:
            model.eval()
        with autocast:
            forward(x)

    return step


def _prepared(
    model: nn.Module, size: tuple[int, int], conditions: Conditions
) -> tuple[Callable[[Tensor], Tensor], Tensor, torch.autocast]:
    """The model as the conditions want it, images for it, and the precision to run it in."""
    layout = torch.channels_last if conditions.channels_last else torch.contiguous_format
    model.to(conditions.device, memory_format=layout)
    if conditions.accelerate:
        accelerate(model)
    channels = getattr(getattr(model, "config", None), "in_channels", 3)
    x = torch.randn(conditions.batch_size, channels, *size, device=conditions.device)
    # Compiled for one shape: left to itself, torch.compile takes the layouts of other contenders for changing shapes.
    forward = torch.compile(model, dynamic=False) if conditions.compile else model
    autocast = torch.autocast(x.device.type, torch.bfloat16, enabled=conditions.dtype == torch.bfloat16)
    return forward, x.contiguous(memory_format=layout), autocast


# The machine's own limits


PRODUCT = 2048  # rows and columns of the matrices
COPIED = 256 * 2**20  # bytes, beyond every cache


def limits(device: torch.device, dtypes: Iterable[torch.dtype]) -> dict[str, Callable[[], object]]:
    """Contenders that show what the machine can do: a large matrix product of each type, and a copy of a large tensor.

    The product is had in two ways, as `a @ a` and as a 1×1 convolution, since they are two libraries' work and one of
    them may not know the processor.
    """
    found: dict[str, Callable[[], object]] = {}
    for dtype in dict.fromkeys(dtypes):
        a = torch.ones(PRODUCT, PRODUCT, dtype=dtype, device=device)
        map_nchw = a.view(1, -1, 32, PRODUCT).permute(0, 3, 1, 2)  # one position per row, its columns the channels
        name = str(dtype).removeprefix("torch.")
        found[f"matrix product as a @ a, {name}"] = lambda a=a: a @ a
        found[f"matrix product as a 1×1 convolution, {name}"] = lambda x=map_nchw, a=a: F.conv2d(x, a[:, :, None, None])
    source = torch.ones(COPIED // 4, device=device)
    target = torch.empty_like(source)
    found["copy"] = lambda: target.copy_(source)
    return found


def limits_of(seconds: Mapping[str, list[float]]) -> tuple[dict[str, float], str]:
    """What the contenders of `limits` showed, and a sentence that says it.

    Operations a second by type, of the faster way to the product, and as "copy" the bytes read and written a second.
    """
    ways = {way: 2 * PRODUCT**3 / median(s) for way, s in seconds.items() if way.startswith("matrix product")}
    found = {"copy": 2 * COPIED / median(seconds["copy"])}
    for way, speed in ways.items():
        dtype = way.split(", ")[1]
        found[dtype] = max(speed, found.get(dtype, 0.0))
    speeds = [f"{way} {speed / 1e9:,.0f} GFLOP/s" for way, speed in ways.items()]
    said = "; ".join([*speeds, f"copy {found['copy'] / 1e9:.0f} GB/s"])
    return found, f"The machine's limits, measured in the same run: {said}. The faster product counts."
