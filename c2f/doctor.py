"""Is this machine ready for the course? Ten findings, each with what to do where something is missing.

Nothing here may fail because something is missing: libraries are imported inside the check that needs them, and what a
check raises becomes its finding. A check returns whether it passed, what it found, and what to do where it did not.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

INSTALL = "run `make install` in the kit's folder (`python3 kit.py install` without make), or `pip install -e '.[lab]'`"
GIB = 2**30
DISK_GIB = 2  # CIFAR-10 packed and unpacked, and some runs
NOT_ESSENTIAL = ("device", "cores", "data")  # the course can begin without them

Check = tuple[bool, str, str]  # whether it passed, what was found, the next step where it did not


class Finding(NamedTuple):
    """What one check found."""

    name: str
    ok: bool
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"ok  {self.name:<8}  {self.text}" if self.ok else f"!!  {self.name:<8}  {self.text}; {self.remedy}"


def find(name: str) -> Finding:
    """Run one check."""
    try:
        return Finding(name, *CHECKS[name]())
    except Exception as error:  # what a broken installation raises is the finding
        sentence = (str(error).strip() or type(error).__name__).splitlines()[0]
        return Finding(name, False, sentence, INSTALL)


def verdict(findings: list[Finding]) -> str:
    """One sentence on all of them."""
    wanting = [finding.name for finding in findings if not finding.ok]
    if wrong := [name for name in wanting if name not in NOT_ESSENTIAL]:
        return f"Not ready: mend {', '.join(wrong)} first, then run `c2f doctor` again."
    return f"Ready to begin; for the whole course see to {', '.join(wanting)}." if wanting else "Ready."


def python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return sys.version_info >= (3, 11), f"{version} at {sys.prefix}", "the kit needs 3.11 or newer"


def packages() -> Check:
    """Every installed version against the ranges that the package itself requires, those for JupyterLab included."""
    from packaging.requirements import Requirement

    wrong, total = [], 0
    for requirement in map(Requirement, metadata.requires("c2f") or []):
        if requirement.marker and not requirement.marker.evaluate({"extra": "lab"}):
            continue
        total += 1
        try:
            version = metadata.version(requirement.name)
            if not requirement.specifier.contains(version, prereleases=True):
                wrong.append(f"{requirement.name} is {version}, not {requirement.specifier}")
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
    fine = f"c2f {metadata.version('c2f')} and all {total} that it asks for"
    return not wrong, ", ".join(wrong) or fine, INSTALL


def torch_versions() -> Check:
    import torch
    import torchvision

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    return True, f"torch {torch.__version__} ({build}), torchvision {torchvision.__version__}", ""


def device() -> Check:
    import torch

    from c2f.device import choose_device

    chosen = choose_device()
    if chosen.type == "cuda":
        card = torch.cuda.get_device_properties(chosen)
        bf16 = "with" if torch.cuda.is_bf16_supported() else "without"
        return True, f"cuda: {card.name}, {card.total_memory / GIB:.0f} GiB, {bf16} bf16", ""
    if chosen.type == "mps":
        return True, "mps: Apple's GPU; use the recipe's float32", ""
    remedy = "an NVIDIA driver is here but torch cannot use it: install a CUDA build of torch that suits the driver"
    text = "cpu: no GPU, so use conv2former_mini_cifar and small budgets"
    return shutil.which("nvidia-smi") is None, text, remedy


def cores() -> Check:
    import torch

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    fits = usable // 2 <= threads <= usable  # half as many is right too: two hyperthreads share one core's arithmetic
    return fits, f"{threads} threads of torch on {usable} cores", "unset OMP_NUM_THREADS, or give `c2f train --threads`"


def lab() -> Check:
    """JupyterLab, the widgets of the kernel, and the half of them that runs in the browser."""
    from jupyter_core.paths import jupyter_path

    versions = [f"{name} {metadata.version(name)}" for name in ("jupyterlab", "ipywidgets", "ipykernel")]
    manager = Path("@jupyter-widgets", "jupyterlab-manager", "package.json")
    found = any(Path(folder, manager).is_file() for folder in jupyter_path("labextensions"))
    text = ", ".join(versions) + (", widgets fit" if found else "; Lab does not find the widgets' browser half")
    return found, text, "run `pip install --force-reinstall jupyterlab_widgets`"


def folders() -> Check:
    """Where JupyterLab writes before it shows anything: settings, the kernels' connections, its own cookie."""
    from jupyter_core.paths import jupyter_config_dir, jupyter_data_dir, jupyter_runtime_dir

    wanted = {"CONFIG": jupyter_config_dir(), "DATA": jupyter_data_dir(), "RUNTIME": jupyter_runtime_dir()}
    refused = {name: folder for name, folder in wanted.items() if not _can_write(Path(folder))}
    places = ", ".join(dict.fromkeys((refused or wanted).values()))
    text = f"{'JupyterLab cannot write' if refused else 'Jupyter writes'} to {places}"
    variables = " and ".join(f"JUPYTER_{name}_DIR" for name in refused)
    return not refused, text, f"name a folder that you may write to in HOME, or in {variables}"


def _can_write(folder: Path) -> bool:
    """Try it in the folder, or where it would be made: permissions alone do not reveal a read-only disk."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        tempfile.TemporaryFile(dir=existing).close()
        return True
    except OSError:
        return False


def data() -> Check:
    from c2f.training.data import available, load_dataset

    digits = load_dataset("digits")
    present = [found for found in available() if found.present and found.name != "digits"]
    cifar10 = any(found.name.startswith("cifar10") for found in present)
    text = f"digits: {len(digits.train) + len(digits.test):,} images"
    text += "".join(f", {found.name} in {found.where}" for found in present) + "; CIFAR-10 is not here" * (not cifar10)
    return cifar10, text, "fetch it with `c2f data cifar10` (170 MB)"


def disk() -> Check:
    from c2f.files import data_folder

    folder = next(folder for folder in (data_folder(), *data_folder().parents) if folder.is_dir())
    free, writable = shutil.disk_usage(folder).free / GIB, _can_write(folder)
    text = f"{free:.0f} GiB free in {folder}" + ("" if writable else ", which you may not write to")
    remedy = f"name a folder of yours with {DISK_GIB} GiB in the environment variable C2F_DATA"
    return writable and free >= DISK_GIB, text, remedy


def convmod() -> Check:
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
    return finite, text + ("" if finite else ", but its gradients are not finite"), INSTALL


CHECKS: dict[str, Callable[[], Check]] = {
    "python": python, "packages": packages, "torch": torch_versions, "device": device, "cores": cores, "lab": lab,
    "folders": folders, "data": data, "disk": disk, "convmod": convmod,
}  # fmt: skip
