"""Which processor trains, and what it is: chosen by itself, always said, kept with every figure."""

import contextlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


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
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return device


def describe_hardware(device: torch.device | str = "cpu") -> dict[str, str | int]:
    """What a figure was obtained on: {"device", "name", "cores", "threads", "system"}."""
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor_name()
    return {
        "device": device.type,
        "name": name,
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def describe_versions() -> dict[str, str]:
    """The versions that a figure depends on."""
    versions = {"python": platform.python_version()}
    for package in ("torch", "torchvision", "c2f"):
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
