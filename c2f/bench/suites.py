"""The benchmarks: the depthwise convolution, a training step, inference, augmentation.

Each measures its contenders interleaved in one process, beside the machine's own limits, and gives a table for people
and records for machines.
"""

import importlib.util
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f.bench.measure import (
    Conditions,
    bandwidth,
    forward_pass,
    interleaved,
    limits,
    peak,
    peak_memory,
    say_machine,
    say_versions,
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
# Channels and side of the seed model's four stages.
MAPS = ((512, 4), (256, 8), (128, 16), (64, 32))
KERNEL = 11


@dataclass
class Result:
    """A table, and what a program would want of it."""

    title: str
    header: Sequence[str]
    rows: list[Sequence[str]]
    records: list[dict[str, Any]]
    notes: list[str]
    limits: dict[str, float] = field(default_factory=dict)
    """Operations a second by type, and bytes a second as "copy"."""
    headlines: list[dict[str, Any]] = field(default_factory=list)
    """The best of ours against the best of the others."""

    def as_json(self, conditions: Conditions) -> dict[str, Any]:
        return {
            "title": self.title,
            "table": {"header": list(self.header), "rows": [list(row) for row in self.rows]},
            "conditions": {**asdict(conditions), "device": conditions.device.type},
            "hardware": describe_hardware(conditions.device),
            "versions": describe_versions(),
            "limits": self.limits,
            "headlines": self.headlines,
            "records": self.records,
            "notes": self.notes,
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def middle(seconds: Sequence[float]) -> float:
    return statistics.median(seconds)


def milliseconds(seconds: Sequence[float]) -> str:
    """Median (lowest–highest) in milliseconds."""
    return "{:.3g} ({:.3g}–{:.3g})".format(*(1e3 * f(seconds) for f in (statistics.median, min, max)))


def rate(seconds: Sequence[float], count: int) -> str:
    """Median (lowest–highest) of images a second."""
    return "{:.3g} ({:.3g}–{:.3g})".format(*(count / f(seconds) for f in (statistics.median, max, min)))


def times(ratio: float) -> str:
    return f"{ratio:.3g}×"


def _dtype(precision: str) -> torch.dtype:
    return torch.bfloat16 if precision == "bf16" else torch.float32


def _limits_of(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Operations a second of a matrix product, by type and of the faster way to it; bytes a second of the copy."""
    found: dict[str, float] = {}
    for way, s in seconds.items():
        if way.startswith("matrix product"):
            name = way.split(", ")[1]
            found[name] = max(peak(s), found.get(name, 0))
    return {**found, "copy": bandwidth(seconds["copy"])}


def _say_limits(seconds: dict[str, list[float]]) -> str:
    ways = [f"{way} {peak(s) / 1e9:,.0f} GFLOP/s" for way, s in seconds.items() if way.startswith("matrix product")]
    copy = f"copy {bandwidth(seconds['copy']) / 1e9:.0f} GB/s"
    return f"The machine's limits, measured in the same run: {'; '.join([*ways, copy])}. The faster product counts."


def _say_conditions(conditions: Conditions, what: str) -> str:
    return (
        f"{say_machine(conditions.device)}; {say_versions()}. {what}; the contenders interleaved, median "
        f"(lowest–highest) of {conditions.rounds} rounds."
    )


# ---- The depthwise convolution


def depthwise(conditions: Conditions) -> Result:
    """Forward and backward of the 11×11 depthwise convolution at the seed model's four stages, against `F.conv2d`."""
    clear_choices()  # what was timed on another day, on a busier machine perhaps, is timed anew
    n, dtype = conditions.batch_size, _dtype(conditions.precision)
    contenders: dict[str, Callable[[], object]] = dict(limits(conditions.device, dict.fromkeys((torch.float32, dtype))))
    for c, side in MAPS:
        for layout in (torch.contiguous_format, torch.channels_last):
            for name, function in (("conv2d", _conv2d), ("c2f", depthwise_conv2d)):
                key = _key(name, c, side, layout)
                contenders[key] = _forward_and_backward(function, (n, c, side, side), dtype, layout, conditions)
    with recorded_choices() as chosen:
        seconds = interleaved(contenders, conditions.rounds)
    rows, records = [], []
    gains: list[float] = []
    for c, side in MAPS:
        ours, theirs = (
            {layout: seconds[_key(name, c, side, layout)] for layout in (torch.contiguous_format, torch.channels_last)}
            for name in ("c2f", "conv2d")
        )
        nchw, last = torch.contiguous_format, torch.channels_last
        best = min(ours.values(), key=middle)
        gains.append(middle(theirs[last]) / middle(best))
        rows.append(
            (
                f"{c}×{side}×{side}", milliseconds(theirs[nchw]), milliseconds(theirs[last]),
                milliseconds(ours[nchw]), milliseconds(ours[last]),
                times(middle(theirs[nchw]) / middle(ours[nchw])), times(gains[-1]),
            )
        )  # fmt: skip
        for name, by_layout in (("conv2d", theirs), ("c2f", ours)):
            for layout, s in by_layout.items():
                records.append(
                    {
                        "what": name, "channels": c, "side": side, "layout": str(layout).removeprefix("torch."),
                        "seconds": s, **_work(n, c, side, dtype),
                    }
                )  # fmt: skip
    found = _limits_of(seconds)
    return Result(
        f"Depthwise convolution {KERNEL}×{KERNEL}, forward and backward, batch {n}, {conditions.precision}, in ms",
        ("map", "conv2d NCHW", "conv2d channels_last", "c2f NCHW", "c2f channels_last", "NCHW, gain", "best, gain"),
        rows,
        records,
        [
            _say_conditions(conditions, "`F.conv2d(groups=channels)` against `depthwise_conv2d`, all gradients"),
            f"The last column sets c2f's better layout against `conv2d` in channels_last; geometric mean "
            f"{times(math.prod(gains) ** (1 / len(gains)))}.",
            _say_limits(seconds),
            "Chosen: " + "; ".join(sorted(f"{_short(case)}: {choice}" for case, choice in chosen.items())) + ".",
        ],
        found,
    )


def _key(name: str, c: int, side: int, layout: torch.memory_format) -> str:
    return f"{name} {c} {side} {layout}"


def _short(case: str) -> str:
    """The case without what is the same in the whole table."""
    what, size, _, _, layout, *_ = case.split(", ")
    return f"{what}, {size}, {layout}"


def _conv2d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x, weight, bias, padding=KERNEL // 2, groups=x.shape[1])


def _forward_and_backward(
    function: Callable[[Tensor, Tensor, Tensor], Tensor],
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
    layout: torch.memory_format,
    conditions: Conditions,
) -> Callable[[], None]:
    x, grad = torch.randn(2, *shape, device=conditions.device, dtype=dtype)
    x, grad = x.contiguous(memory_format=layout).requires_grad_(), grad.contiguous(memory_format=layout)
    weight = torch.randn(shape[1], 1, KERNEL, KERNEL, device=conditions.device, dtype=dtype, requires_grad=True)
    bias = torch.randn(shape[1], device=conditions.device, dtype=dtype, requires_grad=True)

    def step() -> None:
        x.grad = weight.grad = bias.grad = None
        function(x, weight, bias).backward(grad)

    return step


def _work(n: int, c: int, side: int, dtype: torch.dtype) -> dict[str, float]:
    """Operations of the three passes, taps outside the image left out, and the bytes that must move at least."""
    offsets = sum(max(0, side - abs(d)) for d in range(-(KERNEL // 2), KERNEL // 2 + 1))
    return {
        "operations": 3 * 2 * n * c * offsets**2,
        "bytes": 6 * n * c * side**2 * dtype.itemsize,  # forward x, y; input gradient g, x'; weight gradient x, g
    }


# ---- Models

BEST_PLAIN = "best plain"
SAY_CONTENDERS = (
    "`plain` is `conv2former_n_cifar` as it is, of PyTorch's own layers, the fastest that one would write without this "
    "kit: NCHW and channels_last, eager and compiled by torch.compile. `accelerated` is the same model after "
    "`c2f.accelerate`. All run within `c2f.fast.memory.keep_memory`, as `c2f train` and `c2f evaluate` do."
)


def contenders_at_32(conditions: Conditions) -> dict[str, tuple[Callable[[], nn.Module], Conditions]]:
    """What `train` and `infer` measure, with its setting: the model plain and accelerated, torchvision's Swin-T."""
    nchw = replace(conditions, channels_last=False, compile=False, accelerate=False, precision="float32")
    last = replace(nchw, channels_last=True)
    fast = replace(last, accelerate=True)
    eager = {
        "plain, NCHW": (_seed_model, nchw),
        "plain, channels_last": (_seed_model, last),
        "accelerated, channels_last": (_seed_model, fast),
        "swin_t": (_swin, nchw),
    }
    found = dict(eager)
    if conditions.compile:
        found |= {f"{name}, compiled": (make, replace(c, compile=True)) for name, (make, c) in eager.items()}
    if conditions.precision != "float32":
        half = {
            f"{name}, {conditions.precision}": (make, replace(c, precision=conditions.precision))
            for name, (make, c) in found.items()
        }
        found |= half
    return found


def _seed_model() -> nn.Module:
    return create_model("conv2former_n_cifar")


def _swin() -> nn.Module:
    return create_model("swin_t")


def _best(prefix: str, names: Iterable[str], precision: str, seconds: dict[str, list[float]]) -> str:
    """The fastest contender of a kind in a precision."""
    return min(
        (name for name in names if name.startswith(prefix) and ("bf16" in name) == (precision == "bf16")),
        key=lambda name: middle(seconds[name]),
    )


def _headlines(
    contenders: dict[str, tuple[Callable[[], nn.Module], Conditions]], seconds: dict[str, list[float]]
) -> list[dict[str, Any]]:
    """In each precision: the best accelerated against the best plain one and the best Swin-T, eager or compiled."""
    found = []
    for precision in dict.fromkeys(c.precision for _, c in contenders.values()):
        ours, plain, swin = (_best(kind, contenders, precision, seconds) for kind in ("accel", "plain", "swin"))
        found.append(
            {
                "precision": precision,
                "accelerated": ours,
                "plain": plain,
                "swin": swin,
                "of plain": middle(seconds[plain]) / middle(seconds[ours]),
                "of swin": middle(seconds[swin]) / middle(seconds[ours]),
            }
        )
    return found


def _say_headlines(headlines: list[dict[str, Any]], what: str) -> str:
    return f"{what}: " + "; ".join(
        f"in {h['precision']} `{h['accelerated']}` has {times(h['of plain'])} the speed of the best plain one "
        f"(`{h['plain']}`) and {times(h['of swin'])} that of `{h['swin']}`"
        for h in headlines
    )


def train(conditions: Conditions) -> Result:
    """A training step of the seed model, plain and accelerated, and of Swin-T: speed, memory, the share of the peak."""
    clear_choices()
    contenders = contenders_at_32(conditions)
    steps = {name: training_step(make(), seed(), SIZE, c) for name, (make, c) in contenders.items()}
    seconds = interleaved(
        {**limits(conditions.device, dict.fromkeys((torch.float32, _dtype(conditions.precision)))), **steps},
        conditions.rounds,
    )
    found = _limits_of(seconds)
    memory = {name: _memory_of_training(make, c) for name, (make, c) in contenders.items()}
    cost = {make: multiply_adds(make(), SIZE).nominal for make, _ in contenders.values()}
    rows, records = [], []
    for name, (make, c) in contenders.items():
        floor = 6 * cost[make] * c.batch_size / found[str(_dtype(c.precision)).removeprefix("torch.")]
        best = _best("plain", contenders, c.precision, seconds)
        rows.append(
            (
                name, rate(seconds[name], c.batch_size), times(middle(seconds[best]) / middle(seconds[name])),
                f"{100 * floor / middle(seconds[name]):.0f} %",
                "not measured" if memory[name] is None else f"{memory[name] / 2**20:,.0f}",
            )
        )  # fmt: skip
        records.append(
            {
                "what": name, "setting": c.setting, "seconds": seconds[name], "batch": c.batch_size,
                "share_of_peak": floor / middle(seconds[name]), "peak_memory": memory[name],
            }
        )  # fmt: skip
    headlines = _headlines(contenders, seconds)
    return Result(
        f"Training step at 32×32, batch {conditions.batch_size}",
        ("model", "images/s", f"of the {BEST_PLAIN}", "of the product's peak", "peak memory, MiB"),
        rows,
        records,
        [
            _say_headlines(headlines, "Training"),
            _say_conditions(conditions, "Forward, loss, backward and Adam, images on the device, recipe `seed`"),
            SAY_CONTENDERS,
            "Of the best plain: of the fastest plain contender in the same precision. Of the peak: the time that 6 "
            "operations a nominal multiply-add and image would take at the speed of a large matrix product of that "
            "type, as a share of the time taken.",
            "Memory: what three steps add to a fresh process at most, model and optimizer included.",
            _say_limits(seconds),
        ],
        found,
        [{"what": "training", **headline} for headline in headlines],
    )


def _memory_of_training(make: Callable[[], nn.Module], conditions: Conditions) -> int | None:
    if conditions.device.type == "cpu" and conditions.compile:
        return None  # the compiler's own memory would be counted
    if conditions.device.type == "cpu":
        return peak_memory(_make_training_step, make, conditions)
    if conditions.device.type != "cuda":
        return None
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step = training_step(make(), seed(), SIZE, conditions)
    for _ in range(3):
        step()
    return torch.cuda.max_memory_allocated() - before


def _make_training_step(make: Callable[[], nn.Module], conditions: Conditions) -> Callable[[], None]:
    return training_step(make(), seed(), SIZE, conditions)


def infer(conditions: Conditions) -> Result:
    """Forward passes of a batch and of one image: the seed model, plain and accelerated, and Swin-T."""
    clear_choices()
    contenders = contenders_at_32(conditions)
    seconds, headlines = {}, {}
    batches = (conditions.batch_size, 1)
    for batch in batches:
        steps = {
            name: forward_pass(make(), SIZE, replace(c, batch_size=batch)) for name, (make, c) in contenders.items()
        }
        seconds[batch] = interleaved(steps, conditions.rounds)
        headlines[batch] = _headlines(contenders, seconds[batch])
    many, one = (seconds[batch] for batch in batches)
    rows = []
    for name, (_, c) in contenders.items():
        of_best = [middle(s[_best("plain", contenders, c.precision, s)]) / middle(s[name]) for s in (many, one)]
        rows.append((name, rate(many[name], batches[0]), times(of_best[0]), milliseconds(one[name]), times(of_best[1])))
    records = [
        {"what": name, "setting": c.setting, "batch": batch, "seconds": seconds[batch][name]}
        for batch in batches
        for name, (_, c) in contenders.items()
    ]
    return Result(
        "Inference at 32×32",
        (
            "model", f"batch {batches[0]}, images/s", f"of the {BEST_PLAIN}", "one image, ms", f"of the {BEST_PLAIN}",
        ),
        rows,
        records,
        [
            *(_say_headlines(headlines[batch], f"Inference, batch {batch}") for batch in batches),
            _say_conditions(conditions, "Forward pass in inference mode, images on the device"),
            SAY_CONTENDERS,
        ],
        headlines=[
            {"what": f"inference, batch {batch}", **headline} for batch in batches for headline in headlines[batch]
        ],
    )  # fmt: skip


def paper(conditions: Conditions) -> Result:
    """The paper's Conv2Former-N at 224×224: a training step, a forward pass, beside birder's where it is installed."""
    clear_choices()
    base = replace(conditions, batch_size=PAPER_BATCH, precision="float32", compile=False, accelerate=False)
    contenders = {
        "plain, NCHW": (_paper_model, base),
        "plain, channels_last": (_paper_model, replace(base, channels_last=True)),
        "accelerated, channels_last": (_paper_model, replace(base, channels_last=True, accelerate=True)),
    }
    if importlib.util.find_spec("birder"):
        contenders["birder, NCHW"] = (_birder_model, base)
        contenders["birder, channels_last"] = (_birder_model, replace(base, channels_last=True))
    training = interleaved(
        {name: training_step(make(), seed(), PAPER_SIZE, c) for name, (make, c) in contenders.items()}, base.rounds
    )
    inference = interleaved(
        {name: forward_pass(make(), PAPER_SIZE, c) for name, (make, c) in contenders.items()}, base.rounds
    )
    best = {id(s): s[_best("plain", contenders, "float32", s)] for s in (training, inference)}
    rows = []
    for name in contenders:
        row = [name]
        for seconds in (training, inference):
            gain = middle(best[id(seconds)]) / middle(seconds[name])
            row += [rate(seconds[name], PAPER_BATCH), times(gain)]
        rows.append(row)
    records = [
        {"what": name, "setting": c.setting, "batch": PAPER_BATCH, "pass": what, "seconds": seconds[name]}
        for what, seconds in (("training", training), ("inference", inference))
        for name, (_, c) in contenders.items()
    ]
    return Result(
        f"conv2former_n, 1,000 classes, at 224×224, batch {PAPER_BATCH}, float32",
        ("model", "training, images/s", f"of the {BEST_PLAIN}", "inference, images/s", f"of the {BEST_PLAIN}"),
        rows,
        records,
        [_say_conditions(base, "Training is forward, loss, backward and Adam; images on the device")],
    )


PAPER_SIZE = (224, 224)
PAPER_BATCH = 8


def _paper_model() -> nn.Module:
    return create_model("conv2former_n", num_classes=1000)


def _birder_model() -> nn.Module:
    """birder's port of the authors' code (https://gitlab.com/birder/birder), which is no dependency of this kit."""
    from birder.model_registry import registry

    return registry.net_factory("conv2former_n", 3, 1000)


# ---- Augmentation


def data(conditions: Conditions) -> Result:
    """The seed recipe's augmentation, against torchvision's transforms image by image and the mini model's step."""
    n = conditions.batch_size
    torch.manual_seed(0)
    pixels = torch.randint(256, (n, 3, *SIZE), dtype=torch.uint8, device=conditions.device)
    labels = torch.zeros(n, dtype=torch.long, device=conditions.device)
    augment = Augment(seed(), SIZE, 10)
    mini = training_step(
        create_model("conv2former_mini_cifar"), laptop(), SIZE, replace(conditions, channels_last=True)
    )
    workers = torch.get_num_threads() if conditions.device.type == "cpu" else describe_hardware()["cores"]
    with PerImage(pixels.cpu(), workers) as per_image:
        seconds = interleaved(
            {
                "c2f, in batches on the device": lambda: augment(pixels, labels),
                f"torchvision on PIL images, {workers} processes": per_image,
                "conv2former_mini_cifar, training step": mini,
            },
            conditions.rounds,
        )
    ours, theirs, step = seconds.values()
    counts = (n, per_image.count, n)
    rows = [
        (name, rate(s, count), f"{1e6 * middle(s) / count:.3g}")
        for (name, s), count in zip(seconds.items(), counts, strict=True)
    ]
    gain = middle(theirs) / per_image.count / (middle(ours) / n)
    records = [
        {"what": name, "images": count, "seconds": s} for (name, s), count in zip(seconds.items(), counts, strict=True)
    ]
    return Result(
        "Augmentation of 32×32 images, recipe `seed`",
        ("what", "images/s", "µs an image"),
        rows,
        records,
        [
            _say_conditions(conditions, f"Batches of {n}, {conditions.precision}"),
            f"In batches it is {times(gain)} as fast as image by image on as many processes, and takes "
            f"{100 * middle(ours) / middle(step):.1f} % of the mini model's training step.",
        ],
    )


class PerImage:
    """The usual way: a DataLoader whose processes run torchvision's transforms on one PIL image after another.

    A call goes through `count` images; the processes stay, as they do in a long training.
    """

    def __init__(self, pixels: Tensor, workers: int, count: int = 1024) -> None:
        from torch.utils.data import DataLoader

        self.count = count
        self.loader = DataLoader(
            _PilImages(pixels, count), batch_size=len(pixels), num_workers=workers, persistent_workers=True
        )

    def __enter__(self) -> "PerImage":
        self()  # starts the processes
        return self

    def __exit__(self, *_: object) -> None:
        self.loader._iterator = None  # ends them

    def __call__(self) -> None:
        for _ in self.loader:
            pass


class _PilImages(torch.utils.data.Dataset):
    def __init__(self, pixels: Tensor, count: int) -> None:
        from torchvision import transforms as T

        recipe, to_pil = seed(), T.ToPILImage()
        self.images = [to_pil(image) for image in pixels]
        self.count = count
        jitter = recipe.color_jitter
        self.transform = T.Compose(
            [
                T.Resize(SIZE),
                T.ColorJitter(jitter, jitter, jitter),
                T.RandomResizedCrop(SIZE, scale=(recipe.crop_scale, 1.0)),
                T.RandomHorizontalFlip(recipe.flip),
                T.RandomRotation(recipe.rotation),
                T.ToTensor(),
                T.RandomErasing(recipe.erasing),
                T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(self.images[index % len(self.images)])


SUITES: dict[str, Callable[[Conditions], Result]] = {
    "depthwise": depthwise,
    "train": train,
    "infer": infer,
    "paper": paper,
    "data": data,
}
