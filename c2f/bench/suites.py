"""The benchmarks: the depthwise convolution, a training step, inference, augmentation.

Each measures its contenders interleaved in one process, beside the machine's own limits, and gives a table for people
and records for machines.
"""

import contextlib
import importlib.util
import itertools
import math
import multiprocessing
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f.bench import measure
from c2f.bench.measure import (
    PRODUCTS,
    Conditions,
    forward_pass,
    in_precision,
    limits,
    limits_of,
    median_and_range,
    training_step,
)
from c2f.device import describe_hardware, describe_versions
from c2f.fast.autotune import clear_choices, recorded_choices
from c2f.fast.depthwise import depthwise_conv2d
from c2f.models import create_model
from c2f.models.cost import multiply_adds
from c2f.training.augment import Augment
from c2f.training.recipes import laptop, seed

SIZE = (32, 32)
MAPS = ((512, 4), (256, 8), (128, 16), (64, 32))  # channels and side of the seed model's four stages
KERNEL = 11
PAPER_SIZE, PAPER_BATCH = (224, 224), 8
PICTURES = 1024  # that go through a DataLoader in one call


Result = dict[str, Any]
"""Of a suite: its title, the header and the rows of its table, records for programs, notes; for some also the machine's
limits, and headlines, the best of ours against the best of the others."""


def run(what: str, conditions: Conditions) -> dict[str, Any]:
    """What `c2f bench` writes of a suite."""
    clear_choices()  # what was timed on another day, on a busier machine perhaps, is timed anew
    result = SUITES[what](conditions)
    return {
        "title": result.pop("title"),
        "table": {"header": result.pop("header"), "rows": result.pop("rows")},
        "conditions": {**asdict(conditions), "device": conditions.device.type},
        "hardware": describe_hardware(conditions.device),
        "versions": describe_versions(),
        **{"limits": {}, "headlines": [], **result},
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }


# ---- The depthwise convolution

FUNCTIONS = {"conv2d": lambda *args: F.conv2d(*args, padding=KERNEL // 2, groups=len(args[1])), "c2f": depthwise_conv2d}
LAYOUTS = {"contiguous_format": torch.contiguous_format, "channels_last": torch.channels_last}


def depthwise(conditions: Conditions) -> Result:
    """Forward and backward of the 11×11 depthwise convolution at the seed model's four stages, against `F.conv2d`."""
    n, dtype = conditions.batch_size, conditions.dtype
    contenders = limits(conditions.device, ("float32", conditions.precision))
    new = partial(torch.randn, device=conditions.device, dtype=dtype)
    records = {}
    for (c, side), name, layout in itertools.product(MAPS, FUNCTIONS, LAYOUTS):  # the table's rows and columns
        x, grad = (t.contiguous(memory_format=LAYOUTS[layout]) for t in new(2, n, c, side, side))
        leaves = [t.requires_grad_() for t in (x, new(c, 1, KERNEL, KERNEL), new(c))]
        key = f"{name} {c} {side} {layout}"
        step = partial(_forward_and_backward, FUNCTIONS[name], leaves, grad)
        contenders[key] = in_precision(conditions.precision, conditions.device, step)
        records[key] = {"what": name, "channels": c, "side": side, "layout": layout, **_work(n, c, side, dtype)}
    with recorded_choices() as chosen:
        seconds = measure.interleaved(contenders, conditions.rounds)
    rows, gains = [], []
    for i, (c, side) in enumerate(MAPS):
        taken = [seconds[key] for key in list(records)[4 * i : 4 * i + 4]]
        theirs, theirs_last, ours, ours_last = map(median, taken)
        gains.append(theirs_last / min(ours, ours_last))
        rows.append([f"{c}×{side}×{side}", *map(_milliseconds, taken), f"{theirs / ours:.3g}×", f"{gains[-1]:.3g}×"])
    found, say_limits = limits_of(seconds)
    cases = ((case.split(", "), choice) for case, choice in chosen.items())
    said = [f"{what}, {size}, {layout}: {choice}" for (what, size, _, _, layout, *_), choice in cases]
    title = f"Depthwise convolution {KERNEL}×{KERNEL}, forward and backward, batch {n}, {conditions.precision}, in ms"
    ways = ["conv2d NCHW", "conv2d channels_last", "c2f NCHW", "c2f channels_last"]
    return {
        "title": title,
        "header": ["map", *ways, "NCHW, gain", "best, gain"],
        "rows": rows,
        "records": [{**record, "seconds": seconds[key]} for key, record in records.items()],
        "limits": found,
        "notes": [
            conditions.say("`F.conv2d(groups=channels)` against `depthwise_conv2d`, all gradients"),
            f"The last column sets c2f's better layout against `conv2d` in channels_last; geometric mean "
            f"{math.prod(gains) ** (1 / len(gains)):.3g}×.",
            say_limits,
            f"Chosen: {'; '.join(sorted(said))}.",
        ],
    }


def _milliseconds(seconds: Sequence[float]) -> str:
    return median_and_range(1e3 * s for s in seconds)


def _forward_and_backward(function: Callable[..., Tensor], leaves: list[Tensor], grad: Tensor) -> None:
    for leaf in leaves:
        leaf.grad = None
    function(*leaves).backward(grad)


def _work(n: int, c: int, side: int, dtype: torch.dtype) -> dict[str, float]:
    """Operations of the three passes, taps outside the image left out, and the bytes that must move at least."""
    offsets = sum(max(0, side - abs(d)) for d in range(-(KERNEL // 2), KERNEL // 2 + 1))
    return {
        "operations": 3 * 2 * n * c * offsets**2,
        "bytes": 6 * n * c * side**2 * dtype.itemsize,  # forward x, y; input gradient g, x'; weight gradient x, g
    }


# ---- Models

MakeModel = Callable[[], nn.Module]
Contenders = dict[str, tuple[MakeModel, Conditions]]
SEED_MODEL: MakeModel = partial(create_model, "conv2former_n_cifar")
SWINS: dict[str, MakeModel] = {name: partial(create_model, name) for name in ("swin_t", "swin_mini_cifar")}


def _say_contenders(contenders: Contenders, measured: Iterable[dict[str, Any]]) -> str:
    """What the rows of a table are, and which ones there was no time to compile."""
    done = {record["what"] for record in measured}
    how = "eager and compiled by torch.compile" if any("compiled" in name for name in done) else "eager"
    left_out = [name for name in contenders if name not in done]
    return (
        "`plain` is `conv2former_n_cifar` as it is, of PyTorch's own layers, the fastest that one would write without "
        f"this kit: NCHW and channels_last, {how}. `accelerated` is the same model after `c2f.accelerate`. All run "
        "within `c2f.fast.memory.keep_memory`, as `c2f train` and `c2f evaluate` do. `swin_mini_cifar` is the Swin "
        "that is sized for such images." + f" Not compiled, for want of time: {'; '.join(left_out)}." * bool(left_out)
    )


def _plain_and_accelerated(make: MakeModel, nchw: Conditions) -> Contenders:
    last = replace(nchw, channels_last=True)
    return {
        "plain, NCHW": (make, nchw),
        "plain, channels_last": (make, last),
        "accelerated, channels_last": (make, replace(last, accelerate=True)),
    }


def contenders_at_32(conditions: Conditions) -> Contenders:
    """What `train` and `infer` measure, with its setting: the model plain and accelerated, and two Swins."""
    nchw = replace(conditions, channels_last=False, compile=False, accelerate=False, precision="float32")
    found = _plain_and_accelerated(SEED_MODEL, nchw) | {name: (make, nchw) for name, make in SWINS.items()}
    if conditions.compile:
        found |= {f"{name}, compiled": (make, replace(c, compile=True)) for name, (make, c) in found.items()}
    measured = dict(found)
    for p in dict.fromkeys(["tf32"] * conditions.tf32 + [conditions.precision]):
        if p != "float32":
            measured |= {f"{name}, {p}": (make, replace(c, precision=p)) for name, (make, c) in found.items()}
    return measured


def _measure(
    what: str, contenders: Contenders, size: tuple[int, int], machine: Mapping[str, Callable[[], object]] | None = None
) -> tuple[list[dict[str, Any]], dict[str, list[float]]]:
    """A record of each contender, and the seconds of all, with those of the machine's `limits` where they are given.

    `what` is "training", or any other name for forward passes. Where `compile_seconds` do not suffice for all, those
    in bf16 and channels_last are compiled first, and the others are left out.
    """
    steps, spent, longest = {}, 0.0, 0.0
    order = sorted(contenders.items(), key=lambda item: _telling(item[1][1]))
    for name, (make, c) in order:
        if c.compile and c.compile_seconds is not None and spent + longest > c.compile_seconds:
            continue
        started = time.monotonic()
        training = what == "training"
        steps[name] = training_step(make(), seed(), size, c) if training else forward_pass(make(), size, c)
        if c.compile:
            steps[name]()  # the first call compiles
            took = time.monotonic() - started
            spent, longest = spent + took, max(longest, took)
    seconds = measure.interleaved({**(machine or {}), **steps}, c.rounds)
    records = []
    for name, (_, c) in ((name, contender) for name, contender in contenders.items() if name in steps):
        about = {"precision": c.precision, "setting": c.setting, "batch": c.batch_size}
        records.append({"what": name, "pass": what, **about, "seconds": seconds[name]})
    return records, seconds


def _telling(c: Conditions) -> tuple[bool, int, bool]:
    """Sorts the most telling conditions to the front: eager ones, narrow types, channels_last."""
    return c.compile, c.dtype.itemsize, not c.channels_last


def _best(records: list[dict[str, Any]], kind: str, precision: str) -> dict[str, Any]:
    """The fastest contender of a kind in a precision."""
    alike = [r for r in records if r["what"].startswith(kind) and r["precision"] == precision]
    return min(alike, key=lambda r: median(r["seconds"]))


def _compare(title: str, passes: list[list[dict[str, Any]]], notes: list[str]) -> Result:
    """A row for each contender; for each pass its speed, and as a multiple of the best plain one's in its precision.

    The headlines set the best accelerated contender against the best plain one and the best Swin-T, eager or compiled.
    """
    header, headlines = ["model"], []
    rows = {r["what"]: [r["what"]] for r in itertools.chain(*passes)}
    for records in passes:
        what, n = records[0]["pass"], records[0]["batch"]
        header += [f"{what}, {'ms' if n == 1 else 'images/s'}", "of the best plain"]
        for r in records:
            best, seconds = _best(records, "plain", r["precision"])["seconds"], r["seconds"]
            speed = _milliseconds(seconds) if n == 1 else median_and_range(n / s for s in seconds)
            rows[r["what"]] += [speed, f"{median(best) / median(seconds):.3g}×"]
        for row in rows.values():  # what was compiled for another pass only
            row += ["not measured"] * (len(header) - len(row))
        for precision in dict.fromkeys(r["precision"] for r in records if r["what"].startswith("swin")):
            kinds = {"accelerated": "accelerated", "plain": "plain", "swin": "swin_t"}
            best = {name: _best(records, kind, precision) for name, kind in kinds.items()}
            ours, plain, swin = (median(r["seconds"]) for r in best.values())
            names = {kind: r["what"] for kind, r in best.items()}
            ratios = {"of plain": plain / ours, "of swin": swin / ours}
            headlines.append({"what": what, "precision": precision, **names, **ratios})
    said = [
        f"{h['what'].capitalize()} in {h['precision']}: `{h['accelerated']}` has {h['of plain']:.3g}× the speed of the "
        f"best plain one (`{h['plain']}`) and {h['of swin']:.3g}× that of `{h['swin']}`."
        for h in headlines
    ]
    records = list(itertools.chain(*passes))
    return {
        "title": title,
        "header": header,
        "rows": list(rows.values()),
        "records": records,
        "headlines": headlines,
        "notes": [*said, *notes],
    }


def train(conditions: Conditions) -> Result:
    """A training step of the seed model, plain and accelerated, and of Swin-T: speed, memory, the share of the peak."""
    contenders = contenders_at_32(conditions)
    machine = limits(conditions.device, [c.precision for _, c in contenders.values()])
    records, seconds = _measure("training", contenders, SIZE, machine)
    found, say_limits = limits_of(seconds)
    result = _compare(
        f"Training step at 32×32, batch {conditions.batch_size}",
        [records],
        [
            conditions.say("Forward, loss, backward and Adam, images on the device, recipe `seed`"),
            _say_contenders(contenders, records),
            "Of the best plain: of the fastest plain contender in the same precision. Of the peak: the time that 6 "
            "operations a nominal multiply-add and image would take at the speed of a large matrix product of that "
            "type, as a share of the time taken.",
            "Memory: what three steps add to a fresh process at most, model and optimizer included.",
            say_limits,
        ],
    )
    result["limits"] = found
    result["header"] += ["of the product's peak", "peak memory, MiB"]
    cost = {make: multiply_adds(make(), SIZE).nominal for make, _ in contenders.values()}
    for row, record in zip(result["rows"], records, strict=True):
        make, c = contenders[record["what"]]
        least = 6 * cost[make] * c.batch_size / found[PRODUCTS[c.precision]]
        memory = None if c.compile else peak_memory(make, c)  # compiled, the compiler's own would be counted
        record |= {"share_of_peak": least / median(record["seconds"]), "peak_memory": memory}
        share = f"{100 * record['share_of_peak']:.0f} %"
        row += [share, "not measured" if memory is None else f"{memory / 2**20:,.0f}"]
    return result


def peak_memory(make: MakeModel, conditions: Conditions) -> int | None:
    """Bytes that three training steps need at most, beyond what is held before; None if unknown.

    On a CPU they run in a process of their own, whose high-water mark Linux keeps.
    """
    if conditions.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        _three_steps(make, conditions)
        return torch.cuda.max_memory_allocated() - before
    if conditions.device.type != "cpu" or sys.platform != "linux":
        return None
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_memory_here, torch.get_num_threads(), make, conditions).result()
        except BrokenProcessPool:  # for want of memory, for instance
            return None


def _three_steps(make: MakeModel, conditions: Conditions) -> None:
    step = training_step(make(), seed(), SIZE, conditions)
    for _ in range(3):
        step()


def _memory_here(threads: int, make: MakeModel, conditions: Conditions) -> int:
    torch.set_num_threads(threads)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew: imports have left a high one
    before = _from_status("VmRSS")
    _three_steps(make, conditions)
    return _from_status("VmHWM") - before


def _from_status(field: str) -> int:
    """Bytes that the system says this process holds (VmRSS), or held at most (VmHWM)."""
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) * 1024


def infer(conditions: Conditions) -> Result:
    """Forward passes of a batch and of one image: the seed model, plain and accelerated, and two Swins."""
    half = conditions.compile_seconds and conditions.compile_seconds / 2
    passes = []
    for n in (conditions.batch_size, 1):
        contenders = contenders_at_32(replace(conditions, batch_size=n, compile_seconds=half))
        passes.append(_measure(f"inference, batch {n}", contenders, SIZE)[0])
    note = conditions.say("Forward pass in inference mode, images on the device")
    return _compare("Inference at 32×32", passes, [note, _say_contenders(contenders, itertools.chain(*passes))])


def paper(conditions: Conditions) -> Result:
    """The paper's Conv2Former-N at 224×224: a training step, a forward pass, beside birder's where it is installed."""
    base = replace(conditions, batch_size=PAPER_BATCH, precision="float32", compile=False, accelerate=False)
    contenders = _plain_and_accelerated(_paper_model, base)
    if importlib.util.find_spec("birder"):
        last = replace(base, channels_last=True)
        contenders |= {"birder, NCHW": (_birder_model, base), "birder, channels_last": (_birder_model, last)}
    passes = [_measure(what, contenders, PAPER_SIZE)[0] for what in ("training", "inference")]
    title = f"conv2former_n, 1,000 classes, at 224×224, batch {PAPER_BATCH}, float32"
    note = base.say("Training is forward, loss, backward and Adam; images on the device")
    return _compare(title, passes, [note])


def _paper_model() -> nn.Module:
    return create_model("conv2former_n", num_classes=1000)


def _birder_model() -> nn.Module:
    """birder's port of the authors' code (https://gitlab.com/birder/birder), which is no dependency of this kit."""
    from birder.model_registry import registry

    return registry.net_factory("conv2former_n", num_classes=1000)


# ---- Augmentation


def data(conditions: Conditions) -> Result:
    """The seed recipe's augmentation, against torchvision's transforms image by image and the mini model's step."""
    n = conditions.batch_size
    torch.manual_seed(0)
    pixels = torch.randint(256, (n, 3, *SIZE), dtype=torch.uint8, device=conditions.device)
    labels = torch.zeros(n, dtype=torch.long, device=conditions.device)
    augment = Augment(seed(), SIZE, 10)
    mini, last = create_model("conv2former_mini_cifar"), replace(conditions, channels_last=True)
    workers = torch.get_num_threads() if conditions.device.type == "cpu" else describe_hardware()["cores"]
    contenders: dict[str, tuple[Callable[[], object], int]] = {
        "c2f, in batches on the device": (lambda: augment(pixels, labels), n),
        f"torchvision on PIL images, {workers} processes": (_image_by_image(pixels.cpu(), workers), PICTURES),
        "conv2former_mini_cifar, training step": (training_step(mini, laptop(), SIZE, last), n),
    }
    seconds = measure.interleaved({name: step for name, (step, _) in contenders.items()}, conditions.rounds)
    rows, records, of_an_image = [], [], []
    for name, (_, count) in contenders.items():
        of_an_image.append(median(seconds[name]) / count)
        rows.append([name, median_and_range(count / s for s in seconds[name]), f"{1e6 * of_an_image[-1]:.3g}"])
        records.append({"what": name, "images": count, "seconds": seconds[name]})
    ours, theirs, step = of_an_image
    return {
        "title": "Augmentation of 32×32 images, recipe `seed`",
        "header": ["what", "images/s", "µs per image"],
        "rows": rows,
        "records": records,
        "notes": [
            conditions.say(f"Batches of {n}, {conditions.precision}"),
            f"In batches it is {theirs / ours:.3g}× as fast as image by image on as many processes, and takes "
            f"{100 * ours / step:.1f} % of the mini model's training step.",
        ],
    }


def _image_by_image(pixels: Tensor, workers: int) -> Callable[[], object]:
    """The usual way: a DataLoader whose processes run torchvision's transforms on one PIL image after another.

    A call goes through `PICTURES` images; the processes stay, as they do in a long training.
    """
    from torch.utils.data import DataLoader
    from torchvision import transforms as T

    recipe = seed()
    transform = T.Compose([
        T.Resize(SIZE), T.ColorJitter(recipe.color_jitter, recipe.color_jitter, recipe.color_jitter),
        T.RandomResizedCrop(SIZE, scale=(recipe.crop_scale, 1.0)), T.RandomHorizontalFlip(recipe.flip),
        T.RandomRotation(recipe.rotation), T.ToTensor(), T.RandomErasing(recipe.erasing),
        T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])  # fmt: skip
    pictures = list(itertools.islice(itertools.cycle(map(T.ToPILImage(), pixels)), PICTURES))
    collate = partial(_transform_each, transform)
    loader = DataLoader(pictures, len(pixels), num_workers=workers, persistent_workers=True, collate_fn=collate)
    return lambda: deque(loader, maxlen=0)  # goes through all, keeps none


def _transform_each(transform: Callable[[object], Tensor], pictures: list[object]) -> Tensor:
    return torch.stack([transform(picture) for picture in pictures])


SUITES = {suite.__name__: suite for suite in (depthwise, train, infer, paper, data)}


@contextlib.contextmanager
def tiny() -> Iterator[None]:
    """Within it the suites measure the same contenders, at sizes that take a processor no time."""
    swin = partial(create_model, "swin_mini_cifar", embed_dim=8, depths=(1, 1), num_heads=(1, 2))
    tiny = {
        "MAPS": ((4, 4), (2, 8)),
        "SEED_MODEL": partial(create_model, "conv2former_n_cifar", dims=(8, 16), depths=(1, 1)),
        "SWINS": dict.fromkeys(SWINS, swin),
        "peak_memory": lambda make, conditions: None,  # it would start a process for each
    }
    interleaved = partial(measure.interleaved, min_seconds=1e-3)
    with (
        mock.patch.multiple(__name__, **tiny),
        mock.patch.multiple(measure, PRODUCT=64, COPIED=2**20, interleaved=interleaved),
    ):
        yield
