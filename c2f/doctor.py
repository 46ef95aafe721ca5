"""Is this machine ready for the course? Ten findings, each with what to do where something is missing.

Nothing here may fail because something is missing: libraries are imported inside the check that needs them, and what a
check raises becomes its finding.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from time import perf_counter

INSTALL = "run `make install` in the kit's folder (`python3 kit.py install` without make), or `pip install -e '.[lab]'`"
GIB = 2**30
DISK_GIB = 2  # CIFAR-10 packed and unpacked, and some runs


@dataclass(frozen=True)
class Finding:
    """What one check saw."""

    name: str
    ok: bool
    text: str
    remedy: str = ""
    """The next step, where it is not ok."""
    essential: bool = True
    """Whether the course cannot begin without it."""

    def __str__(self) -> str:
        mark = "ok" if self.ok else "!!"
        return f"{mark}  {self.name:<8}  {self.text}" + ("" if self.ok or not self.remedy else f"; {self.remedy}")


def examine() -> Iterator[Finding]:
    """Run the checks one after the other, so that a slow one does not hold back what the earlier ones found."""
    for name, check in CHECKS.items():
        try:
            yield check()
        except Exception as error:  # whatever a broken installation throws is the finding
            sentence = (str(error).strip() or type(error).__name__).splitlines()[0]
            yield Finding(name, False, sentence, INSTALL)


def verdict(findings: list[Finding]) -> str:
    """One sentence on all of them."""
    if wrong := [finding.name for finding in findings if not finding.ok and finding.essential]:
        return f"Not ready: mend {', '.join(wrong)} first, then run `c2f doctor` again."
    if wanting := [finding.name for finding in findings if not finding.ok]:
        return f"Ready to begin; for the whole course see to {', '.join(wanting)}."
    return "Ready."


def python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", sys.version_info >= (3, 11), f"{version} at {sys.prefix}", "the kit needs 3.11 or newer")


def packages() -> Finding:
    """Every installed version against the ranges that the package itself asks for, those for JupyterLab included."""
    from packaging.requirements import Requirement

    wrong, total = [], 0
    for requirement in map(Requirement, metadata.requires("c2f") or []):
        if requirement.marker and not requirement.marker.evaluate({"extra": "lab"}):
            continue
        total += 1
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version}, not {requirement.specifier}")
    if wrong:
        return Finding("packages", False, ", ".join(wrong), INSTALL)
    return Finding("packages", True, f"c2f {metadata.version('c2f')} and all {total} that it asks for")


def torch_versions() -> Finding:
    import torch
    import torchvision

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    return Finding("torch", True, f"torch {torch.__version__} ({build}), torchvision {torchvision.__version__}")


def device() -> Finding:
    import torch

    from c2f.device import choose_device

    chosen = choose_device()
    if chosen.type == "cuda":
        card = torch.cuda.get_device_properties(chosen)
        bf16 = "with" if torch.cuda.is_bf16_supported() else "without"
        return Finding("device", True, f"cuda: {card.name}, {card.total_memory / GIB:.0f} GiB, {bf16} bf16")
    if chosen.type == "mps":
        return Finding("device", True, "mps: Apple's GPU; use the recipe's float32")
    text = "cpu: no GPU, so use conv2former_mini_cifar and small budgets"
    blind = shutil.which("nvidia-smi") is not None
    remedy = "an NVIDIA driver is here but torch cannot use it: install a CUDA build of torch that suits the driver"
    return Finding("device", not blind, text, remedy, essential=False)


def cores() -> Finding:
    import torch

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    # Two hyperthreads share one core's arithmetic, so half as many threads as logical cores is right.
    fits = usable // 2 <= threads <= usable
    remedy = "unset OMP_NUM_THREADS, or give `c2f train --threads`"
    return Finding("cores", fits, f"{threads} threads of torch on {usable} cores", remedy, essential=False)


def lab() -> Finding:
    """JupyterLab, the widgets of the kernel, and the half of them that runs in the browser."""
    from jupyter_core.paths import jupyter_path

    versions = [f"{name} {metadata.version(name)}" for name in ("jupyterlab", "ipywidgets", "ipykernel")]
    manager = Path("@jupyter-widgets", "jupyterlab-manager", "package.json")
    found = any(Path(folder, manager).is_file() for folder in jupyter_path("labextensions"))
    text = ", ".join(versions) + (", widgets fit" if found else "; Lab does not find the widgets' browser half")
    return Finding("lab", found, text, "run `pip install --force-reinstall jupyterlab_widgets`")


def folders() -> Finding:
    """Where JupyterLab writes before it shows anything: settings, the kernels' connections, its own cookie."""
    from jupyter_core.paths import jupyter_config_dir, jupyter_data_dir, jupyter_runtime_dir

    wanted = {"CONFIG": jupyter_config_dir(), "DATA": jupyter_data_dir(), "RUNTIME": jupyter_runtime_dir()}
    refused = {name: folder for name, folder in wanted.items() if not _can_write(Path(folder))}
    if not refused:
        return Finding("folders", True, f"Jupyter writes to {', '.join(dict.fromkeys(wanted.values()))}")
    text = f"JupyterLab cannot write to {', '.join(dict.fromkeys(refused.values()))}"
    variables = " and ".join(f"JUPYTER_{name}_DIR" for name in refused)
    return Finding("folders", False, text, f"name a folder that you may write to in HOME, or in {variables}")


def _can_write(folder: Path) -> bool:
    """Try it in the folder, or where it would be made: permissions alone do not tell of a read-only disk."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        tempfile.TemporaryFile(dir=existing).close()
        return True
    except OSError:
        return False


def data() -> Finding:
    from c2f.training.data import available, load_dataset

    digits = load_dataset("digits")
    text = f"digits: {len(digits.train) + len(digits.test):,} images"
    others = [found for found in available() if found.name != "digits"]
    present = [f"{found.name} in {found.where}" for found in others if found.present]
    cifar10 = any(found.present and found.name.startswith("cifar10") for found in others)
    text = ", ".join([text, *present]) + ("" if cifar10 else "; CIFAR-10 is not here")
    return Finding("data", cifar10, text, "fetch it with `c2f data cifar10` (170 MB)", essential=False)


def disk() -> Finding:
    from c2f.files import data_folder

    folder = next(folder for folder in (data_folder(), *data_folder().parents) if folder.is_dir())
    free = shutil.disk_usage(folder).free / GIB
    writable = _can_write(folder)
    text = f"{free:.0f} GiB free in {folder}" + ("" if writable else ", which you may not write to")
    remedy = f"name a folder of yours with {DISK_GIB} GiB in the environment variable C2F_DATA"
    return Finding("disk", writable and free >= DISK_GIB, text, remedy)


def convmod() -> Finding:
    """One block, forward and backward, where training would run."""
    import torch

    from c2f.device import choose_device
    from c2f.models import ConvMod

    on = choose_device()
    block, x = ConvMod(64).to(on), torch.randn(16, 64, 16, 16, device=on)
    for _ in range(2):  # the first round also pays for starting threads and loading kernels
        start = perf_counter()
        block(x).square().mean().backward()
        finite = all(p.grad.isfinite().all().item() for p in block.parameters())  # .item() waits for the device
        seconds = perf_counter() - start
    text = f"forward and backward of 16 maps of 64×16×16 in {1000 * seconds:.0f} ms"
    return Finding("convmod", finite, text + ("" if finite else ", but its gradients are not finite"), INSTALL)


CHECKS: dict[str, Callable[[], Finding]] = {
    "python": python,
    "packages": packages,
    "torch": torch_versions,
    "device": device,
    "cores": cores,
    "lab": lab,
    "folders": folders,
    "data": data,
    "disk": disk,
    "convmod": convmod,
}
