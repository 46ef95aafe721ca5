"""The benchmarks: the depthwise convolution, a training step, inference, augmentation.

Each measures its contenders interleaved in one process, beside the machine's own limits, and gives a table for people
and records for machines.
"""

import importlib.util
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f.bench.measure import Conditions, forward_pass, interleaved, limits, limits_of, peak_memory, training_step
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
PAPER_SIZE = (224, 224)
PAPER_BATCH = 8
PICTURES = 1024  # that go through a DataLoader in one call


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
        content = asdict(self)
        return {
            "title": content.pop("title"),
            "table": {"header": content.pop("header"), "rows": content.pop("rows")},
            "conditions": {**asdict(conditions), "device": conditions.device.type},
            "hardware": describe_hardware(conditions.device),
            "versions": describe_versions(),
            **content,
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def spread(figures: Iterable[float]) -> str:
    """Median (lowest–highest)."""
    figures = list(figures)
    return f"{median(figures):.3g} ({min(figures):.3g}–{max(figures):.3g})"


def milliseconds(seconds: Sequence[float]) -> str:
    return spread(1e3 * s for s in seconds)


def rate(seconds: Sequence[float], count: int) -> str:
    """Images a second."""
    return spread(count / s for s in seconds)


def times(ratio: float) -> str:
    return f"{ratio:.3g}×"


# ---- The depthwise convolution


def depthwise(conditions: Conditions) -> Result:
    """Forward and backward of the 11×11 depthwise convolution at the seed model's four stages, against `F.conv2d`."""
    clear_choices()  # what was timed on another day, on a busier machine perhaps, is timed anew
    n, dtype = conditions.batch_size, conditions.dtype
    layouts = {"contiguous_format": torch.contiguous_format, "channels_last": torch.channels_last}
    functions = {"conv2d": _conv2d, "c2f": depthwise_conv2d}
    ways = list(itertools.product(functions, layouts))  # in the order of the table's columns
    contenders = limits(conditions.device, (torch.float32, dtype))
    new = partial(torch.randn, device=conditions.device, dtype=dtype)
    for (c, side), (name, layout) in itertools.product(MAPS, ways):
        x, grad = (t.contiguous(memory_format=layouts[layout]) for t in new(2, n, c, side, side))
        leaves = [t.requires_grad_() for t in (x, new(c, 1, KERNEL, KERNEL), new(c))]
        contenders[f"{name} {c} {side} {layout}"] = partial(_forward_and_backward, functions[name], leaves, grad)
    with recorded_choices() as chosen:
        seconds = interleaved(contenders, conditions.rounds)
    rows, records, gains = [], [], []
    for c, side in MAPS:
        of_map = {(name, layout): seconds[f"{name} {c} {side} {layout}"] for name, layout in ways}
        theirs, theirs_last, ours, ours_last = map(median, of_map.values())
        gains.append(theirs_last / min(ours, ours_last))
        rows.append((f"{c}×{side}×{side}", *map(milliseconds, of_map.values()), times(theirs / ours), times(gains[-1])))
        for (name, layout), s in of_map.items():
            place = {"channels": c, "side": side, "layout": layout}
            records.append({"what": name, **place, "seconds": s, **_work(n, c, side, dtype)})
    found, say_limits = limits_of(seconds)
    return Result(
        f"Depthwise convolution {KERNEL}×{KERNEL}, forward and backward, batch {n}, {conditions.precision}, in ms",
        ["map", "conv2d NCHW", "conv2d channels_last", "c2f NCHW", "c2f channels_last", "NCHW, gain", "best, gain"],
        rows,
        records,
        [
            conditions.say("`F.conv2d(groups=channels)` against `depthwise_conv2d`, all gradients"),
            f"The last column sets c2f's better layout against `conv2d` in channels_last; geometric mean "
            f"{times(math.prod(gains) ** (1 / len(gains)))}.",
            say_limits,
            "Chosen: " + "; ".join(sorted(f"{_short(case)}: {choice}" for case, choice in chosen.items())) + ".",
        ],
        found,
    )


def _short(case: str) -> str:
    """The case without what is the same in the whole table."""
    what, size, _, _, layout, *_ = case.split(", ")
    return f"{what}, {size}, {layout}"


def _conv2d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x, weight, bias, padding=KERNEL // 2, groups=x.shape[1])


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

Contenders = dict[str, tuple[Callable[[], nn.Module], Conditions]]
SAY_CONTENDERS = (
    "`plain` is `conv2former_n_cifar` as it is, of PyTorch's own layers, the fastest that one would write without this "
    "kit: NCHW and channels_last, eager and compiled by torch.compile. `accelerated` is the same model after "
    "`c2f.accelerate`. All run within `c2f.fast.memory.keep_memory`, as `c2f train` and `c2f evaluate` do."
)


def contenders_at_32(conditions: Conditions) -> Contenders:
    """What `train` and `infer` measure, with its setting: the model plain and accelerated, torchvision's Swin-T."""
    nchw = replace(conditions, channels_last=False, compile=False, accelerate=False, precision="float32")
    last = replace(nchw, channels_last=True)
    model, swin = partial(create_model, "conv2former_n_cifar"), partial(create_model, "swin_t")
    found = {
        "plain, NCHW": (model, nchw),
        "plain, channels_last": (model, last),
        "accelerated, channels_last": (model, replace(last, accelerate=True)),
        "swin_t": (swin, nchw),
    }
    if conditions.compile:
        found |= {f"{name}, compiled": (make, replace(c, compile=True)) for name, (make, c) in found.items()}
    if (p := conditions.precision) != "float32":
        found |= {f"{name}, {p}": (make, replace(c, precision=p)) for name, (make, c) in found.items()}
    return found


def _training(make: Callable[[], nn.Module], conditions: Conditions, size: tuple[int, int]) -> Callable[[], None]:
    return training_step(make(), seed(), size, conditions)


def _inference(make: Callable[[], nn.Module], conditions: Conditions, size: tuple[int, int]) -> Callable[[], None]:
    return forward_pass(make(), size, conditions)


@dataclass
class Pass:
    """What was measured of all contenders: training, or inference with a batch."""

    what: str
    contenders: Contenders
    seconds: dict[str, list[float]]
    heading: str
    say: Callable[[Sequence[float]], str]

    def best(self, kind: str, precision: str) -> str:
        """The fastest contender of a kind in a precision."""
        names = [name for name, (_, c) in self.contenders.items() if name.startswith(kind) and c.precision == precision]
        return min(names, key=lambda name: median(self.seconds[name]))

    def cells(self, name: str) -> tuple[str, str]:
        """A contender's speed, and as a multiple of the best plain one's in the same precision."""
        best = self.seconds[self.best("plain", self.contenders[name][1].precision)]
        return self.say(self.seconds[name]), times(median(best) / median(self.seconds[name]))

    def headline(self, precision: str) -> dict[str, Any]:
        """The best accelerated contender against the best plain one and the best Swin-T, eager or compiled."""
        names = {kind: self.best(kind, precision) for kind in ("accelerated", "plain", "swin")}
        ours, plain, swin = (median(self.seconds[name]) for name in names.values())
        return {"what": self.what, "precision": precision, **names, "of plain": plain / ours, "of swin": swin / ours}


def _compare(title: str, passes: list[Pass], notes: list[str], against_swin: bool = True) -> Result:
    """One row per contender, two columns per pass."""
    contenders = passes[0].contenders
    precisions = dict.fromkeys(c.precision for _, c in contenders.values())
    headlines = [[one.headline(precision) for precision in precisions] for one in passes if against_swin]
    records = [
        {"what": name, "pass": one.what, "setting": c.setting, "batch": c.batch_size, "seconds": one.seconds[name]}
        for one in passes
        for name, (_, c) in one.contenders.items()
    ]
    return Result(
        title,
        ["model", *itertools.chain(*((one.heading, "of the best plain") for one in passes))],
        [[name, *itertools.chain(*(one.cells(name) for one in passes))] for name in contenders],
        records,
        [*map(_say_headlines, headlines), *notes],
        headlines=list(itertools.chain(*headlines)),
    )


def _say_headlines(headlines: list[dict[str, Any]]) -> str:
    return f"{headlines[0]['what'].capitalize()}: " + "; ".join(
        f"in {h['precision']} `{h['accelerated']}` has {times(h['of plain'])} the speed of the best plain one "
        f"(`{h['plain']}`) and {times(h['of swin'])} that of `{h['swin']}`"
        for h in headlines
    )


def train(conditions: Conditions) -> Result:
    """A training step of the seed model, plain and accelerated, and of Swin-T: speed, memory, the share of the peak."""
    clear_choices()
    contenders = contenders_at_32(conditions)
    steps = {name: _training(make, c, SIZE) for name, (make, c) in contenders.items()}
    dtypes = (torch.float32, conditions.dtype)
    seconds = interleaved({**limits(conditions.device, dtypes), **steps}, conditions.rounds)
    found, say_limits = limits_of(seconds)
    result = _compare(
        f"Training step at 32×32, batch {conditions.batch_size}",
        [Pass("training", contenders, seconds, "images/s", partial(rate, count=conditions.batch_size))],
        [
            conditions.say("Forward, loss, backward and Adam, images on the device, recipe `seed`"),
            SAY_CONTENDERS,
            "Of the best plain: of the fastest plain contender in the same precision. Of the peak: the time that 6 "
            "operations a nominal multiply-add and image would take at the speed of a large matrix product of that "
            "type, as a share of the time taken.",
            "Memory: what three steps add to a fresh process at most, model and optimizer included.",
            say_limits,
        ],
    )
    result.limits = found
    result.header += ["of the product's peak", "peak memory, MiB"]
    cost = {make: multiply_adds(make(), SIZE).nominal for make, _ in contenders.values()}
    for row, record, (make, c) in zip(result.rows, result.records, contenders.values(), strict=True):
        least = 6 * cost[make] * c.batch_size / found[str(c.dtype).removeprefix("torch.")]
        share, memory = least / median(record["seconds"]), _memory_of_training(make, c)
        row += [f"{100 * share:.0f} %", "not measured" if memory is None else f"{memory / 2**20:,.0f}"]
        record |= {"share_of_peak": share, "peak_memory": memory}
    return result


def _memory_of_training(make: Callable[[], nn.Module], conditions: Conditions) -> int | None:
    if conditions.device.type == "cpu" and conditions.compile:
        return None  # the compiler's own memory would be counted
    return peak_memory(_training, make, conditions, SIZE, device=conditions.device)


def infer(conditions: Conditions) -> Result:
    """Forward passes of a batch and of one image: the seed model, plain and accelerated, and Swin-T."""
    clear_choices()
    n, passes = conditions.batch_size, []
    for batch, heading, say in (n, f"batch {n}, images/s", partial(rate, count=n)), (1, "one image, ms", milliseconds):
        contenders = contenders_at_32(replace(conditions, batch_size=batch))
        steps = {name: _inference(make, c, SIZE) for name, (make, c) in contenders.items()}
        seconds = interleaved(steps, conditions.rounds)
        passes.append(Pass(f"inference, batch {batch}", contenders, seconds, heading, say))
    note = conditions.say("Forward pass in inference mode, images on the device")
    return _compare("Inference at 32×32", passes, [note, SAY_CONTENDERS])


def paper(conditions: Conditions) -> Result:
    """The paper's Conv2Former-N at 224×224: a training step, a forward pass, beside birder's where it is installed."""
    clear_choices()
    base = replace(conditions, batch_size=PAPER_BATCH, precision="float32", compile=False, accelerate=False)
    last = replace(base, channels_last=True)
    contenders: Contenders = {
        "plain, NCHW": (_paper_model, base),
        "plain, channels_last": (_paper_model, last),
        "accelerated, channels_last": (_paper_model, replace(last, accelerate=True)),
    }
    if importlib.util.find_spec("birder"):
        contenders |= {"birder, NCHW": (_birder_model, base), "birder, channels_last": (_birder_model, last)}
    passes = []
    for what, make_step in (("training", _training), ("inference", _inference)):
        steps = {name: make_step(make, c, PAPER_SIZE) for name, (make, c) in contenders.items()}
        seconds = interleaved(steps, base.rounds)
        passes.append(Pass(what, contenders, seconds, f"{what}, images/s", partial(rate, count=PAPER_BATCH)))
    title = f"conv2former_n, 1,000 classes, at 224×224, batch {PAPER_BATCH}, float32"
    note = base.say("Training is forward, loss, backward and Adam; images on the device")
    return _compare(title, passes, [note], against_swin=False)


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
    contenders: dict[str, tuple[Callable[[], None], int]] = {
        "c2f, in batches on the device": (lambda: augment(pixels, labels), n),
        f"torchvision on PIL images, {workers} processes": (_image_by_image(pixels.cpu(), workers), PICTURES),
        "conv2former_mini_cifar, training step": (training_step(mini, laptop(), SIZE, last), n),
    }
    seconds = interleaved({name: step for name, (step, _) in contenders.items()}, conditions.rounds)
    counts = {name: count for name, (_, count) in contenders.items()}
    of_an_image = {name: median(s) / counts[name] for name, s in seconds.items()}
    ours, theirs, step = of_an_image.values()
    return Result(
        "Augmentation of 32×32 images, recipe `seed`",
        ["what", "images/s", "µs per image"],
        [(name, rate(s, counts[name]), f"{1e6 * of_an_image[name]:.3g}") for name, s in seconds.items()],
        [{"what": name, "images": counts[name], "seconds": s} for name, s in seconds.items()],
        [
            conditions.say(f"Batches of {n}, {conditions.precision}"),
            f"In batches it is {times(theirs / ours)} as fast as image by image on as many processes, and takes "
            f"{100 * ours / step:.1f} % of the mini model's training step.",
        ],
    )


def _image_by_image(pixels: Tensor, workers: int) -> Callable[[], None]:
    """The usual way: a DataLoader whose processes run torchvision's transforms on one PIL image after another.

    A call goes through `PICTURES` images; the processes stay, as they do in a long training.
    """
    from torch.utils.data import DataLoader
    from torchvision import transforms as T

    recipe = seed()
    jitter = recipe.color_jitter
    transform = T.Compose(
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
    pictures = itertools.islice(itertools.cycle(map(T.ToPILImage(), pixels)), PICTURES)
    loader = DataLoader(
        list(pictures), len(pixels), num_workers=workers, persistent_workers=True,
        collate_fn=partial(_transform_each, transform),
    )  # fmt: skip

    def run() -> None:
        for _ in loader:
            pass

    return run


def _transform_each(transform: Callable[[object], Tensor], pictures: list[object]) -> Tensor:
    return torch.stack([transform(picture) for picture in pictures])


SUITES = {suite.__name__: suite for suite in (depthwise, train, infer, paper, data)}
