"""Measuring: contenders interleaved, and the machine's own limits.

Interleaved, because a machine that grows warm or busy half-way would otherwise favour the first contender. Medians with
their spread, because one figure says nothing of the noise.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from c2f.device import autocast, describe_hardware, describe_versions, tf32_allowed
from c2f.fast.accelerate import accelerate
from c2f.fast.memory import keep_memory
from c2f.training.loop import make_optimizers, set_drop_path
from c2f.training.recipes import Recipe

# By precision, the type that its matrix products have: that of PyTorch's name, but for TF32, which is float32's.
PRODUCTS = {"float32": "float32", "tf32": "tf32", "bf16": "bfloat16", "fp16": "float16"}


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
    tf32: bool = False  # measure TF32 as well, in a table of several precisions
    compile_seconds: float | None = None  # how long all compiling of a table may take; None: as long as it takes

    def __post_init__(self) -> None:
        for name in ("batch_size", "rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; use at least 1.")

    @property
    def dtype(self) -> torch.dtype:
        return dtype_of(self.precision)

    def say(self, what: str) -> str:
        """The note of a table of what was measured so."""
        machine = f"{say_machine(self.device)}; {say_versions()}"
        return f"{machine}. {what}; the contenders interleaved, median (lowest–highest) of {self.rounds} rounds."

    @property
    def setting(self) -> str:
        """Precision, layout, compiler, and whether the layers are as `c2f.accelerate` leaves them."""
        layout = "channels_last" if self.channels_last else "NCHW"
        return f"{self.precision}, {layout}{', compiled' * self.compile}{', accelerated' * self.accelerate}"


def dtype_of(precision: str) -> torch.dtype:
    return torch.float32 if precision == "tf32" else getattr(torch, PRODUCTS[precision])


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
    from torch.utils.benchmark import Timer  # it keeps Python's garbage collector out, and waits for CUDA

    wait = torch.mps.synchronize if torch.backends.mps.is_available() else lambda: None
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    with keep_memory():
        for _ in tqdm(range(rounds), desc="measuring", unit="round", leave=False):
            for name, step in contenders.items():
                step()  # the memory that is kept must have been asked for first
                timer = Timer(
                    "step(); wait()", globals={"step": step, "wait": wait}, num_threads=torch.get_num_threads()
                )
                seconds[name].append(timer.blocked_autorange(min_run_time=min_seconds).median)
    return seconds


# What is measured


def in_precision(precision: str, device: torch.device, step: Callable[[], object]) -> Callable[[], object]:
    """The step with its float32 products in TF32 or exact, whatever is allowed outside."""

    def step_in_precision() -> object:
        with tf32_allowed(precision, device):
            return step()

    return step_in_precision


def training_step(
    model: nn.Module, recipe: Recipe, size: tuple[int, int], conditions: Conditions
) -> Callable[[], None]:
    """A training step on images that are on the device already: forward, loss, backward, the recipe's optimizer."""
    forward, x, in_autocast = _prepared(model, size, conditions)
    set_drop_path(model, recipe.drop_path)
    optimizers = make_optimizers(model, recipe)
    targets = torch.zeros(len(x), dtype=torch.long, device=x.device)

    def step() -> None:
        if not model.training:
            model.train()
        with in_autocast:
            logits = forward(x)
        for optimizer in optimizers:
            optimizer.zero_grad()
        F.cross_entropy(logits.float(), targets, label_smoothing=recipe.label_smoothing).backward()
        with in_autocast:  # as `train` has it
            for optimizer in optimizers:
                optimizer.step()

    return in_precision(conditions.precision, x.device, step)


def forward_pass(model: nn.Module, size: tuple[int, int], conditions: Conditions) -> Callable[[], None]:
    """A batch of images through the model, in evaluation mode."""
    forward, x, in_autocast = _prepared(model, size, conditions)

    @torch.inference_mode()
    def step() -> None:
        if model.training:
            model.eval()
        with in_autocast:
            forward(x)

    return in_precision(conditions.precision, x.device, step)


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
    if conditions.compile:  # PyTorch keeps 8 compiled versions of one class's forward, and runs any further one eagerly
        torch._dynamo.config.cache_size_limit = 64
    return forward, x.contiguous(memory_format=layout), autocast(x.device, conditions.precision)


# The machine's own limits


PRODUCT = 2048  # rows and columns of the matrices
COPIED = 256 * 2**20  # bytes, beyond every cache


def limits(device: torch.device, precisions: Iterable[str]) -> dict[str, Callable[[], object]]:
    """Contenders that show what the machine can do: a large matrix product in each precision, a copy of a large tensor.

    The product is had in two ways, as `a @ a` and as a 1×1 convolution, since they are two libraries' work and one of
    them may not know the processor.
    """
    found: dict[str, Callable[[], object]] = {}
    for precision in dict.fromkeys(precisions):
        a = torch.ones(PRODUCT, PRODUCT, dtype=dtype_of(precision), device=device)
        map_nchw = a.view(1, -1, 32, PRODUCT).permute(0, 3, 1, 2)  # one position per row, its columns the channels
        by_convolution = partial(F.conv2d, map_nchw, a[:, :, None, None])
        ways = {"a @ a": partial(torch.matmul, a, a), "a 1×1 convolution": by_convolution}
        for way, step in ways.items():
            name = f"matrix product as {way}, {PRODUCTS[precision]}"
            found[name] = in_precision(precision, device, step)
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
