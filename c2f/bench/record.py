"""The GPU record: what this kit shows on a GPU, in the few minutes for which one can be borrowed.

    c2f bench record --device cuda       # without tyro: python -c "from c2f.bench.record import record; record('cuda')"

Part after part, the most telling first, and each only if its estimate fits into the time that is left. Every part is
written as soon as it is done, a training after every epoch. So a record that is killed keeps what it has, and the same
command goes on after the last finished part.
"""

import contextlib
import importlib.util
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from c2f.bench import record_page, record_trainings, suites
from c2f.bench.measure import Conditions
from c2f.device import choose_device, choose_precision, describe_hardware, describe_versions
from c2f.files import write_atomically, write_json
from c2f.training.recipes import RECIPES

ROOT = Path(__file__).parents[2]
ROUND = 0.4  # seconds that a contender takes in each round of a table, building it included: a guess
COMPILING = 60.0  # seconds for one model on a GPU, a guess
WORTH_COMPILING = 20 * 60.0  # seconds: in a shorter record compiling costs a training more than it saves


class Record:
    """A folder with a record: five JSON files, each {part: result}, and record.md. Takes the time, too."""

    def __init__(self, out: Path, device: torch.device, seconds: float, rehearsal: bool) -> None:
        self.out, self.device, self.rehearsal, self.until = out, device, rehearsal, time.monotonic() + seconds
        self.about = {"hardware": describe_hardware(device), "versions": describe_versions(), "rehearsal": rehearsal}
        self.precision = "bf16" if rehearsal else choose_precision("auto", device)
        self.failed = False
        self.kept = record_page.load(out)
        for result in (result for parts in self.kept.values() for result in parts.values()):
            there, here = ((about["hardware"]["name"], about["rehearsal"]) for about in (result, self.about))
            if there != here:
                what = "a rehearsal" if there[1] else f"the record of {there[0]}"
                raise ValueError(f"{out} holds {what}; name another folder with --out, or delete this one.")

    def left(self) -> float:
        return self.until - time.monotonic()

    def done(self, file: str, name: str) -> dict[str, Any] | None:
        """A part's result, if it was finished without an error by an earlier call."""
        result = self.kept[file].get(name, {})
        if "seconds" not in result or "error" in result:
            return None
        print(f"{name}: done already ({result['written']})", flush=True)
        return result

    def keep(self, file: str, name: str, result: dict[str, Any]) -> None:
        written = datetime.now(UTC).isoformat(timespec="seconds")
        self.kept[file][name] = {**self.about, **result, "written": written}
        write_json(self.out / f"{file}.json", self.kept[file])
        write_atomically(self.out / "record.md", record_page.page(self.kept).encode())

    def skip(self, file: str, name: str, why: str) -> None:
        """Write down why a part is not run, except over what a training that was cut off has."""
        if "history" not in self.kept[file].get(name, {}):
            self.keep(file, name, {"skipped": why})

    def part(self, file: str, name: str, seconds: float, reason: str, run: Callable[[], dict[str, Any]]) -> Any:
        """The part's result: of an earlier process, or run now if there is time. None where there is none."""
        if result := self.done(file, name):
            return result
        left = self.left()
        print(f"{name}: {reason}: {seconds:.0f} s, of {max(0, left):.0f} s that are left", flush=True)
        if seconds > left:
            self.skip(file, name, f"{seconds:.0f} s estimated ({reason}), {max(0, left):.0f} s left")
            return None
        started = time.monotonic()
        try:
            result = run()
        except Exception as error:
            traceback.print_exc()
            self.failed = True
            result = {**self.kept[file].get(name, {}), "error": f"{type(error).__name__}: {error}"}
        self.keep(file, name, {**result, "estimate": seconds, "seconds": time.monotonic() - started})
        return None if "error" in result else result


def record(
    device: str | torch.device | None = None, out: Path | str | None = None, minutes: float = 8.0,
    data: str | None = None, rehearse: bool = False, compile: bool | None = None,
) -> int:  # fmt: skip
    """Make the record, or go on with it; returns 1 if a part of this call failed, else 0.

    `rehearse`: everything at tiny sizes, on any device. `data`: CIFAR-10 by default, in a rehearsal digits. `compile`:
    measure torch.compile too, as far as there is time; by default yes, in a rehearsal no.
    Raises ValueError without a GPU, unless it is a rehearsal, and where the folder holds another machine's record.
    """
    device = choose_device(device)
    if device.type == "cpu" and not rehearse:
        raise ValueError("this is a record of a GPU; use --device cuda on a machine that has one, or --rehearse.")
    compile = not rehearse if compile is None else compile
    default = Path("runs", "rehearsal") if rehearse else Path("data", "results", "gpu")
    r = Record(Path(out or default), device, 60 * minutes, rehearse)
    with suites.tiny() if rehearse else contextlib.nullcontext():
        tests = partial(_tests, 10 * minutes, rehearse)
        r.part("tests", "GPU tests", 10 * minutes, "the most that they may take", tests)
        _tables(r, 30 * minutes, compile)
        for name in ("gpu", "seed"):
            recipe = RECIPES[name]()
            recipe = replace(recipe, compile=recipe.compile and compile and 60 * minutes >= WORTH_COMPILING)
            record_trainings.run(r, name, recipe, data or ("digits" if rehearse else "cifar10"))
    print(f"The record is in {r.out}: record.md, and the figures as JSON.")
    return int(r.failed)


def _tests(seconds: float, rehearse: bool) -> dict[str, Any]:
    """The outcome of the tests marked `gpu`, in a process of their own; a rehearsal only collects them.

    Raises RuntimeError where one fails, and subprocess.TimeoutExpired.
    """
    marked = [file for file in sorted(ROOT.glob("tests/**/test_*.py")) if "mark.gpu" in file.read_text("utf-8")]
    if not marked:
        return {"said": "There is no test that is marked `gpu`."}
    if not importlib.util.find_spec("pytest"):
        return {"said": "pytest is not installed, so no test was run."}
    # Without pyproject.toml: its options need plugins that may be missing, and would make warnings errors.
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-c", os.devnull, f"--rootdir={ROOT}"]
    command += ["--import-mode=importlib", *["--collect-only"] * rehearse, *map(str, marked)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
    output = [line.replace(str(ROOT), ".") for line in done.stdout.splitlines() if line.strip()] or [done.stderr]
    if done.returncode not in (0, 5):  # 5: nothing collected
        raise RuntimeError("\n".join(output[-60:]))
    return {"said": output[-1], "output": output[-60:]}


def _tables(r: Record, reserve: float, compile: bool) -> None:
    """The speed tables. Compiling may go on as long as `reserve` seconds are left for the trainings."""
    rounds, sizes, batch = (1, (2, 4), 2) if r.rehearsal else (3, (256, 1024), 256)
    base = Conditions(r.device, batch, r.precision, rounds=rounds, tf32=True)
    models, limits = len(suites.contenders_at_32(base)), 7
    for n, precision in ((sizes[0], r.precision), (sizes[1], r.precision), (sizes[0], "float32")):
        count = 4 * len(suites.MAPS) + limits
        conditions = replace(base, batch_size=n, precision=precision)
        reason = f"{count} contenders, {rounds} rounds"
        run = partial(suites.run, "depthwise", conditions)
        r.part("depthwise", f"depthwise convolution, N = {n}, {precision}", ROUND * count * rounds, reason, run)
    for what, name, count, later in (
        ("train", "training step", models + limits, 2 * models), ("infer", "inference", 2 * models, 0)
    ):  # fmt: skip
        seconds = ROUND * count * rounds
        spare = r.left() - seconds - ROUND * later * rounds - reserve
        conditions = base
        if compile and spare >= COMPILING:
            conditions = replace(base, compile=True, compile_seconds=spare)
        reason = f"{count} contenders, {rounds} rounds" + f", {spare:.0f} s to compile" * conditions.compile
        r.part(what, name, seconds + spare * conditions.compile, reason, partial(suites.run, what, conditions))
