"""Which processor trains, and what it is: chosen automatically, always printed, kept with every figure."""

import contextlib
import os
import platform
import re
import timeit
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


def from_torchrun(name: str, otherwise: int) -> int:
    """A number that torchrun puts into the environment of each process: RANK, LOCAL_RANK or WORLD_SIZE."""
    text = os.environ.get(name, "") or str(otherwise)
    if not text.isdecimal():
        raise ValueError(f"the environment variable {name} is {text!r}, which torchrun sets to a number; unset it.")
    return int(text)


def available_devices() -> list[str]:
    """What this machine can train on, best first."""
    found = ["cuda"] if torch.cuda.is_available() else []
    found += ["mps"] if torch.backends.mps.is_available() else []
    return [*found, "cpu"]


def choose_device(wanted: str | torch.device | None = None) -> torch.device:
    """The device to use: the best one there is, or `wanted` ("cuda", "cuda:1", "mps", "cpu").

    Under torchrun a process takes the GPU of its local rank. Raises ValueError for a device that is not there.
    """
    found = available_devices()
    try:
        device = torch.device(wanted or found[0])
    except RuntimeError:
        raise ValueError(f"{wanted!r} is no device; here, {' or '.join(found)} would do.") from None
    if device.type not in found or (device.index or 0) >= max(1, torch.cuda.device_count()):
        raise ValueError(f"this machine has no {device} that PyTorch can use; here, {' or '.join(found)} would do.")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", from_torchrun("LOCAL_RANK", 0))
    return device


def choose_precision(wanted: str, device: torch.device) -> str:
    """A recipe's precision on this device; for "auto" the fastest that trains as float32 does.

    That is bf16 where the device multiplies in it, fp16 on GPUs that only imitate bf16, float32 elsewhere. Some
    processors have instructions for bf16 and some only imitate it: on a CPU a matrix product of each is timed. "tf32"
    is float32 on a device without it.
    """
    if wanted == "tf32" and device.type != "cuda":
        return "float32"
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type != "cpu":
        return "float32"
    factors = [torch.ones(512, 512, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)]
    # Seconds of a product, the least of five, since other work on the machine can only add.
    single, half = (min(timeit.repeat("a @ a", globals={"a": a}, number=1, repeat=5)) for a in factors)
    return "bf16" if half < single / 1.3 else "float32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a forward pass runs in bf16 or fp16, and in float32 for any other precision."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


@contextlib.contextmanager
def tf32_allowed(precision: str, device: torch.device) -> Iterator[None]:
    """Inside, matrix products and convolutions alike use TF32 if the precision is "tf32", and neither does otherwise.

    By default PyTorch lets cuDNN's convolutions use it and cuBLAS's products not, so that in "float32" a network of
    convolutions would be measured with tensor cores and one of linear layers without.
    """
    switches = (torch.backends.cuda.matmul, torch.backends.cudnn) if device.type == "cuda" else ()
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = precision == "tf32"
        yield
    finally:
        for switch, allowed in zip(switches, before, strict=True):
            switch.allow_tf32 = allowed


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was passed; a CPU computes at once."""
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()


def describe_hardware(device: torch.device | str = "cpu") -> dict[str, str | int]:
    """What a figure was obtained on: {"device", "name", "cores", "threads", "system"}."""
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    return {
        "device": device.type, "name": name, "cores": os.cpu_count() or 1, "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
    }  # fmt: skip


def describe_versions() -> dict[str, str]:
    """The versions that a figure depends on."""
    versions = {"python": platform.python_version()}
    for package in ("torch", "torchvision", "c2f"):
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (named := re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)):
        return named[1].strip()
    return platform.processor() or platform.machine()
