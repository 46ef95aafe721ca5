"""Assignment 3, Reading the maps: the public checks, which the hidden tests ask again of other inputs."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from c2f.fast.depthwise import toeplitz
from c2f.maps.receptive_field import rings
from c2f_course.grading.assignment import question, written
from c2f_course.grading.remote import runs_remotely
from c2f_course.tasks import fields
from c2f_course.tasks.exercise import Expected, hint_if, is_close, of_shape, sentences, task

SAY = sentences(__name__)
RUBRIC = SAY["rubric"]
"""What a person looks for in the answers in words; the notebook's text repeats it."""

NEAR = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]


def _met(p: int, k: int, size: int, border: str) -> tuple[Tensor, Tensor]:
    """Which places of a line of this size k taps around p meet, and whether the tap counts there."""
    at = p + torch.arange(k) - k // 2
    counts = {"zeros": (at >= 0) & (at < size), "negative": at < size, "overwritten": torch.arange(k) >= k - size}
    return at.clamp(0, size - 1) if border == "clamped" else at % size, counts.get(border, at == at)


# ---- 3.1: window maps

Case = tuple[tuple[int, int, int, int], int, tuple[int, int], int]
"""The shape of u, the side of the kernels, the position, a seed."""
WINDOWS: tuple[Case, ...] = (
    ((2, 3, 8, 8), 5, (1, 6), 31),
    ((2, 3, 8, 8), 5, (4, 3), 32),
    ((3, 2, 5, 9), 3, (4, 2), 33),
)


def window_inputs(cases: tuple[Case, ...] = WINDOWS) -> Iterator[tuple]:
    """u and kernels (C, k, k), nowhere near zero, biases, and the position."""
    for shape, k, p, seed in cases:
        draw, other = (torch.Generator().manual_seed(seed) for _ in range(2))
        u, kernel = 0.4 + torch.randn(shape, generator=draw), torch.randn(shape[1], k, k, generator=draw)
        yield u, kernel, 1 + torch.rand(shape[1], generator=other), p


def _window(u: Tensor, k: int, position: tuple[int, int], border: str = "zeros") -> Tensor:
    """U in the k x k window around a position: (N, C, H, W) -> (N, C, k, k)."""
    (rows, down), (columns, across) = (_met(p, k, size, border) for p, size in zip(position, u.shape[2:], strict=True))
    return u[:, :, rows[:, None], columns] * (down[:, None] & across)


@task(lambda *cases: ((u, kernel, p) for u, kernel, _, p in window_inputs(*cases)), SAY["terms"])
def terms(u: Tensor, kernel: Tensor, p: tuple[int, int]) -> Expected:
    (images, channels, *size), k, (row, column) = u.shape, kernel.shape[1], p
    u, kernel, half = u.double(), kernel.double(), k // 2
    wanted = (images, channels, k, k)

    def times(row: int = row, column: int = column, border: str = "zeros", kernel: Tensor = kernel) -> Tensor:
        return kernel * _window(u, k, (row, column), border)

    def is_cut_off(made: Any) -> bool:
        shape = tuple(made.shape) if isinstance(made, Tensor) else ()
        return len(shape) == 4 and shape[:2] == wanted[:2] and max(shape[2:]) <= k and shape != wanted

    window, right = _window(u, k, p), times()
    mistakes = {
        "kernel turned": times(kernel=kernel.flip(1, 2)),
        "window turned": kernel * window.flip(2, 3),
        "terms turned": right.flip(2, 3),
        "kernel transposed": times(kernel=kernel.mT),
        "terms transposed": right.mT,
        "wraps round": times(border="wrapped"),
        "wraps below zero": times(border="negative"),
        "edge repeated": times(border="clamped"),
        "position transposed": times(column, row),
        "begins at p": times(row + half, column + half),
        "ends at p": times(row - half, column - half),
        "U alone": window,
        "kernel alone": kernel.expand(wanted),
        "first image's U": kernel * window[:1].expand(wanted),
        "first channel's U": kernel * window[:, :1],
        "first channel's kernel": kernel[:1] * window,
        "no signs": right.abs(),
        "one position off": tuple(times(row + i, column + j) for i, j in NEAR),
        "as large as the map": of_shape(*u.shape),
        "axes missing": (of_shape(*wanted[1:]), of_shape(*wanted[2:])),
    }
    at = f"of the {k}×{k} terms at row {row}, column {column} of a {size[0]}×{size[1]} map"
    return Expected(f"the tensor {at}", right, mistakes, signs={"cut off": is_cut_off}, facts={"k": k, "at": at})


@task(window_inputs, SAY["sums"])
def sums(u: Tensor, kernel: Tensor, bias: Tensor, p: tuple[int, int]) -> Expected:
    k, bias = kernel.shape[1], bias.double()
    total = (kernel * _window(u, k, p)).double().sum(dim=(2, 3))
    mistakes = {
        "channels summed": of_shape(len(u)),
        "not summed": of_shape(*u.shape[:2], k, k),
        "no bias": total,
        "bias for every term": total + k * k * bias,
        "a mean": (total / k**2 + bias, (total + bias) / k**2),
        "bias subtracted": total - bias,
        "bias multiplied": total * bias,
    }
    what = f"A at row {p[0]}, column {p[1]}"
    return Expected(what, total + bias, mistakes, tolerance=5e-5, facts={"terms": k * k})


MAPS = ("window_maps", "modulation_at")


@question("3.1", "Every term, in every channel", "easy", 15, points=3, answers=MAPS, without=("window_map",))
def window_maps(
    window_maps: Callable[..., Tensor],
    modulation_at: Callable[..., Tensor],
    cases: tuple[Case, ...] = WINDOWS,
    part: str = "both",
) -> str:
    if part != "sums":
        terms(window_maps, cases)
    if part != "terms":
        sums(modulation_at, cases)
    return SAY["window_maps"]["praise"]


# ---- 3.2: the implied attention

Laid = tuple[tuple[int, int, int], tuple[int, int], int]
"""Channels, height and width of the map; the position; a seed."""
LAID: tuple[tuple[Laid, int], ...] = (
    (((2, 8, 8), (1, 6), 41), 5),
    (((3, 9, 7), (4, 3), 42), 3),
    (((2, 4, 4), (2, 1), 43), 7),
)


def laid_inputs(cases: tuple[tuple[Laid, int], ...] = LAID) -> Iterator[tuple]:
    """Kernels (C, k, k), the position, the size of the map."""
    for ((channels, *size), p, seed), k in cases:
        yield torch.randn(channels, k, k, generator=torch.Generator().manual_seed(seed)), p, tuple(size)


@task(laid_inputs, SAY["laid"] | SAY["row"])
def row(kernel: Tensor, p: tuple[int, int], size: tuple[int, int]) -> Expected:
    return _laid(kernel.double(), p, size, "row")


@task(laid_inputs, SAY["laid"] | SAY["column"])
def column(kernel: Tensor, p: tuple[int, int], size: tuple[int, int]) -> Expected:
    return _laid(kernel.double(), p, size, "column")


def _laid(kernel: Tensor, p: tuple[int, int], size: tuple[int, int], kind: str) -> Expected:
    (channels, k, _), (height, width) = kernel.shape, size
    matrix, q = toeplitz(kernel[:, None], height, width), width * p[0] + p[1]
    right, other = (part.reshape(channels, height, width) for part in (matrix[:, q], matrix[:, :, q]))
    used = kernel  # what is laid around the position
    if kind == "column":
        right, other, used = other, right, kernel.flip(1, 2)

    def laid(border: str = "zeros", i: int = 0, j: int = 0, taps: Tensor = used) -> Tensor:
        return _lay(taps, (p[0] + i, p[1] + j), size, border)

    def is_a_kernel(made: Any) -> bool:
        shape = tuple(made.shape) if isinstance(made, Tensor) else ()
        return len(shape) == 3 and shape[1] <= k >= shape[2] and shape != (channels, *size)

    flat, rim, half = right.flatten(1), (height + k - 1, width + k - 1), k // 2
    lines = ((height * width,), (channels, height * width), (channels, 1, height * width))
    mistakes = {
        "the other": other,
        "kernel transposed": laid(taps=used.mT),
        "rows turned": laid(taps=used.flip(1)),
        "columns turned": laid(taps=used.flip(2)),
        "wraps round": (laid("wrapped"), laid("overwritten")),
        "wraps below zero": laid("negative"),
        "edge piled up": laid("clamped"),
        "first tap": laid(i=half, j=half),
        "last tap": laid(i=-half, j=-half),
        "position transposed": _lay(used, (p[1], p[0]), size),
        "softmax": flat.softmax(1).view_as(right),
        "softmax of the kernel": laid(taps=used.flatten(1).softmax(1).view_as(used)),
        "divided by its sum": right / flat.sum(1)[:, None, None],
        "divided by its sizes": right / flat.abs().sum(1)[:, None, None],
        "no signs": right.abs(),
        "first channel's kernel": laid(taps=used[:1].expand_as(used)),
        "all ones": laid(taps=torch.ones_like(used)),
        "one position off": tuple(laid(i=i, j=j) for i, j in NEAR),
        "one line": tuple(of_shape(*shape) for shape in lines),
        "with the rim": of_shape(channels, *rim),
        "size transposed": of_shape(channels, width, height),
    }
    if kind == "column":
        mistakes["transposed, not turned"] = laid(taps=kernel.mT)
    what = f"the implied {kind} of a {k}×{k} kernel at row {p[0]}, column {p[1]} of a {height}×{width} map"
    facts = {"kind": kind, "length": height * width, "rim": rim}
    return Expected(what, right, mistakes, signs={"as large as the kernel": is_a_kernel}, facts=facts)


def _lay(kernel: Tensor, position: tuple[int, int], size: tuple[int, int], border: str = "zeros") -> Tensor:
    """Kernels (C, k, k) laid over a map of this size with their middle on a position: (C, H, W)."""
    k, (height, width) = kernel.shape[1], size
    (rows, down), (columns, across) = (_met(p, k, n, border) for p, n in zip(position, size, strict=True))
    taps, places = kernel * (down[:, None] & across), width * rows[:, None] + columns
    laid = kernel.new_zeros(len(kernel), height * width).index_add(1, places.flatten(), taps.flatten(1))
    return laid.view(-1, height, width)


MATRIX, WITHOUT = ("implied_row", "implied_column"), ("toeplitz", "implied_attention")


@question("3.2", "The row and the column of a convolution", "medium", 20, points=4, answers=MATRIX, without=WITHOUT)
def implied_attention(
    implied_row: Callable[..., Tensor],
    implied_column: Callable[..., Tensor],
    cases: tuple[tuple[Laid, int], ...] = LAID,
    part: str = "both",
) -> str:
    if part != "columns":
        row(implied_row, cases)
    if part != "rows":
        column(implied_column, cases)
    return SAY["implied_attention"]["praise"]


# ---- 3.3: the effective receptive field


class SmallNet(nn.Module):
    """Images to a map of half their size: a stem, a batch norm, dropout, one modulation with its residual.

    Of torch's own layers alone, through which every way to take a gradient leads (`torch.func` among them).
    """

    def __init__(self, dim: int, kernel_size: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, dim, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(dim)
        self.drop = nn.Dropout(0.5)
        self.u, self.v = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 1)
        self.a = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.norm(self.stem(x)))
        return x + self.a(nn.functional.gelu(self.u(x))) * self.v(x)


@runs_remotely
def field_of(answer: Callable, sizes: list[int], state: dict[str, Tensor], images: Tensor, training: bool) -> dict:
    """What an answer gives for a SmallNet and images, and what has become of both."""
    model = SmallNet(*sizes)
    model.load_state_dict(state)
    model.train(training)
    field = answer(model, images)
    parameters = list(model.parameters())
    return {
        "field": field,
        "modes": [module.training for module in model.modules()],
        "gradients": [parameter.grad for parameter in parameters],
        "frozen": [not parameter.requires_grad for parameter in parameters],
        "state": dict(model.state_dict()),
        "images": images.detach(),
        "asks": images.requires_grad,
    }


Field = tuple[int, int, tuple[int, int, int], bool, bool, int]
"""Channels and kernel of the network; number, height and width of the images; whether it is in training; whether it is
looked at afterwards; a seed."""
FIELDS: tuple[Field, ...] = (
    (4, 5, (3, 12, 16), False, False, 51),
    (4, 5, (3, 12, 16), True, True, 52),
    (4, 5, (3, 12, 16), False, True, 53),
)
Area = tuple[tuple[float, ...] | int, float]
"""A field's values, or a seed for some; a share."""
AREAS: tuple[Area, ...] = ((60, 0.5), ((1, 8, 1, 4, 2, 0), 0.75), (70, 0.6))


REACH, LIBRARY = ("effective_field", "area_holding"), ("effective_receptive_field",)


@question("3.3", "How far it sees, and how much of it", "hard", 25, points=4, answers=REACH, without=LIBRARY)
def effective_field(
    field: Callable[[nn.Module, Tensor], Tensor],
    area: Callable[[Tensor, float], int],
    cases: tuple[Field, ...] = FIELDS,
    areas: tuple[Area, ...] = AREAS,
) -> str:
    for case in cases:
        _check_field(field, *case)
    pixels(area, areas)
    return SAY["effective_field"]["praise"]


def _net(dim: int, k: int, seed: int) -> SmallNet:
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        model = SmallNet(dim, k)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                value.copy_(0.6 * torch.randn(value.shape, generator=draw) + ("norm.weight" in name))
        model.norm.running_var.copy_(0.5 + torch.rand(dim, generator=draw))
    return model.eval()


def _check_field(
    answer: Callable, dim: int, k: int, shape: tuple[int, int, int], training: bool, looked_at: bool, seed: int
) -> None:
    model, (count, *size), say = _net(dim, k, seed), shape, SAY["effective_field"]
    images = torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed + 1))
    state = dict(model.state_dict())
    told = field_of(answer, [dim, k], state, images.clone(), training)
    hint_if(not isinstance(told, dict), say["nothing"])
    expected = fields.effective_field(_net(dim, k, seed).double(), images.double())
    if training:
        expected = replace(expected, says={**expected.says, "otherwise": say["in training mode"]})
    expected.compare(told.get("field"))
    kept, same = told.get("state") or {}, is_close(told.get("images", torch.empty(0)), images)
    changed = {
        "mode": told.get("modes") != [training] * len(list(model.modules())),
        "gradients": any(gradient is not None for gradient in told.get("gradients", ())),
        "frozen": any(told.get("frozen", ())),
        "images": told.get("asks") or not same,
        "state": any(not is_close(kept.get(name, torch.empty(0)), value) for name, value in state.items()),
    }
    for name, wrong in changed.items():
        hint_if(looked_at and wrong, say["before"] + say[name].format(mode="training" if training else "evaluation"))


def area_inputs(areas: tuple[Area, ...] = AREAS) -> Iterator[tuple]:
    for values, share in areas:
        if isinstance(values, int):
            yield 3 * torch.rand(7, 9, generator=torch.Generator().manual_seed(values)) ** 4, share
        else:
            yield torch.tensor(values, dtype=torch.float32).reshape(2, -1), share


@task(area_inputs, SAY["pixels"])
def pixels(field: Tensor, share: float) -> Expected:
    given = field.double().flatten()
    sizes = given.sort(descending=True).values
    inside, wanted, n = sizes.cumsum(0), share * sizes.sum(), len(sizes)

    def reached(inside: Tensor, wanted: Tensor | float = wanted) -> int:
        return int((inside < wanted).sum()) + 1

    right = reached(inside)
    mistakes = {
        "one too few": right - 1,
        "a share of the area": right / n,
        "per cent of the area": 100 * right / n,
        "faintest first": reached(sizes.flip(0).cumsum(0)),
        "as they lie": reached(given.cumsum(0)),
        "above a share of the largest": tuple(
            int(above(sizes, share * sizes[0]).sum()) for above in (torch.ge, torch.gt)
        ),
        "more than the share": int((inside <= wanted).sum()) + 1,
        "sum not counted": reached(inside, share),
        "share of the pixels": round(share * n),
        "all pixels": n,
    }
    return Expected(f"for a share of {share:g}, the number of pixels", right, mistakes)


# ---- 3.4: a hypothesis and its control

Kernels = tuple[int, int, int, int]
"""Channels, side, radius, seed."""
KERNELS: tuple[Kernels, ...] = ((3, 7, 1, 61), (4, 5, 1, 62), (2, 5, 2, 63))
LOGITS = ((6, 4, 64), (1, 3, 65), (5, 5, 66))
"""Images, classes, seed."""
EXPERIMENT = ("crop_kernels", "energy_removed", "control_kernels", "effect")


@question("3.4", "A crop and its control", "hard", 30, points=5, answers=EXPERIMENT)
def experiment(
    crop_kernels: Callable[[Tensor, int], Tensor],
    energy_removed: Callable[[Tensor, Tensor], Tensor],
    control_kernels: Callable[[Tensor, int, Tensor], Tensor],
    effect: Callable[[Tensor, Tensor], float],
    cases: tuple[Kernels, ...] = KERNELS,
    answers: tuple[tuple[int, int, int], ...] = LOGITS,
    parts: tuple[str, ...] = ("crop", "removed", "control", "effect"),
) -> str:
    checks = {
        "crop": (crop, crop_kernels, cases),
        "removed": (removed, energy_removed, cases),
        "control": (control, control_kernels, cases),
        "effect": (effect_of, effect, answers),
    }
    for part, (check, *asked) in checks.items():
        if part in parts:
            check(*asked)
    return SAY["experiment"]["praise"]


def kernel_inputs(cases: tuple[Kernels, ...] = KERNELS) -> Iterator[tuple[Tensor, int, Tensor]]:
    """Kernels whose middle counts, as in a trained network; a radius; a score for each tap."""
    for channels, k, radius, seed in cases:
        draw = torch.Generator().manual_seed(seed)
        kernels = torch.randn(channels, k, k, generator=draw)
        kernels[:, k // 2, k // 2] = 1.5 + torch.rand(channels, generator=draw)
        yield kernels, radius, torch.rand(channels, k, k, generator=draw)


@task(lambda *cases: ((kernels, radius) for kernels, radius, _ in kernel_inputs(*cases)), SAY["crop"])
def crop(kernels: Tensor, radius: int) -> Expected:
    k, side = kernels.shape[1], 2 * radius + 1
    ring, steps = rings(k), torch.arange(k) - k // 2
    city, circle = steps[:, None].abs() + steps.abs(), (steps[:, None] ** 2 + steps**2).double().sqrt()
    mistakes = {
        "smaller kernels": of_shape(len(kernels), side, side),
        "the outside": kernels * (ring > radius),
        "without the ring at the radius": kernels * (ring < radius),
        "a ring too many": kernels * (ring <= radius + 1),
        "steps added": kernels * (city <= radius),
        "round": kernels * (circle <= radius),
        "columns alone": kernels * (steps.abs() <= radius),
        "rows alone": kernels * (steps.abs() <= radius)[:, None],
        "nothing taken": kernels,
    }
    what = f"crop_kernels with radius {radius}, of {k}×{k} kernels,"
    return Expected(what, kernels * (ring <= radius), mistakes, tolerance=1e-6)


@task(
    lambda *cases: ((kernels, kernels * (scores > 0.4)) for kernels, _, scores in kernel_inputs(*cases)), SAY["removed"]
)
def removed(kernels: Tensor, changed: Tensor) -> Expected:
    kernels, left, taps = kernels.double(), changed.double(), kernels[0].numel()
    whole, rest = kernels.square().sum(dim=(1, 2)), left.square().sum(dim=(1, 2))
    mistakes = {
        "one number": (of_shape(), of_shape(1)),
        "what is left": rest / whole,
        "energies": whole - rest,
        "per cent": 100 * (whole - rest) / whole,
        "sizes": 1 - left.abs().sum(dim=(1, 2)) / kernels.abs().sum(dim=(1, 2)),
        "taps": (left == 0).sum(dim=(1, 2)) / taps,
        "of all kernels": (whole - rest) / whole.sum(),
        "by what is left": (whole - rest) / rest,
        "a root": (1 - (rest / whole).sqrt(), ((kernels - left).square().sum(dim=(1, 2)) / whole).sqrt()),
        "with signs": 1 - left.sum(dim=(1, 2)) / kernels.sum(dim=(1, 2)),
    }
    return Expected("energy_removed", (whole - rest) / whole, mistakes, tolerance=2e-5)


def control_of(kernels: Tensor, radius: int, scores: Tensor, *slips: str) -> Tensor:
    """The control, or what comes of it after slips."""
    c, k, _ = kernels.shape
    middle, outside, least = k * k // 2, (rings(k) > radius).flatten(), "least" in slips
    ranks = scores.double().flatten(1)
    ranks = (ranks[:1].expand(c, -1) if "one order" in slips else ranks).clone()
    if "middle" not in slips:
        ranks[:, middle] = torch.inf if least else -torch.inf
    order = ranks.argsort(1, descending=not least)
    energy = kernels.double().flatten(1).abs() ** (1 if "sizes" in slips else 2)
    target = (energy * outside).sum(1, keepdim=True)
    target = target.mean().expand_as(target) if "pooled" in slips else target
    sorted_ = energy.gather(1, order)
    gone = sorted_.cumsum(1)
    takes = gone <= target if "early" in slips else gone - sorted_ < target * (1 - 1e-9)
    if "taps" in slips:
        takes = torch.arange(k * k).expand(c, -1) < outside.sum()
    if "middle" not in slips:
        takes = takes & (order != middle)
    return kernels.flatten(1).masked_fill(torch.zeros_like(takes).scatter(1, order, takes), 0).view_as(kernels)


@task(kernel_inputs, SAY["control"])
def control(kernels: Tensor, radius: int, scores: Tensor) -> Expected:
    def after(*slips: str) -> Tensor:
        return control_of(kernels, radius, scores, *slips)

    right, k = after(), kernels.shape[1]
    mistakes = {
        "middle as well": after("middle"),
        "lowest first": (after("least"), after("least", "middle")),
        "stops early": (after("early"), after("early", "middle")),
        "taps for energy": after("taps"),
        "taps for energy, and the middle": after("taps", "middle"),
        "sizes": after("sizes"),
        "one order for all": after("one order"),
        "same energy for all": after("pooled"),
        "the crop": kernels * (rings(k) <= radius),
        "what is taken": kernels - right,
        "nothing taken": kernels,
        "by size": control_of(kernels, radius, kernels.square()),
    }
    otherwise = "nothing to take" if radius >= k // 2 else "otherwise"
    return Expected(f"control_kernels with radius {radius}", right, mistakes, otherwise, 1e-6)


def logit_inputs(cases: tuple[tuple[int, int, int], ...] = LOGITS) -> Iterator[tuple[Tensor, Tensor]]:
    for images, classes, seed in cases:
        draw = torch.Generator().manual_seed(seed)
        logits = 2 * torch.randn(images, classes, generator=draw)
        yield logits, logits + 1.5 * torch.randn(images, classes, generator=draw)


@task(logit_inputs, SAY["effect_of"])
def effect_of(logits: Tensor, changed: Tensor) -> Expected:
    logits, changed, classes = logits.double(), changed.double(), logits.shape[1]
    p, q, raw = logits.softmax(1), changed.softmax(1), (logits - changed).abs()
    apart, squares = (p - q).abs().sum(1), ((p - q) ** 2).sum(1)
    over_images = (logits.softmax(0) - changed.softmax(0)).abs().sum(1)
    mistakes = {
        "no half": apart.mean(),
        "summed over images": apart.sum() / 2,
        "summed over images, no half": apart.sum(),
        "mean over classes, no half": apart.mean() / classes,
        "mean over classes": apart.mean() / classes / 2,
        "logits": (raw.sum(1).mean() / 2, raw.sum(1).mean(), raw.mean()),
        "softmax over images": over_images.mean() / 2,
        "worst image": apart.amax() / 2,
        "answers that change": (p.argmax(1) != q.argmax(1)).double().mean(),
        "squares": (squares.mean(), squares.mean() / 2),
        "root of squares": squares.sqrt().mean(),
        "largest class": (p - q).abs().amax(1).mean(),
        "one for each image": of_shape(len(logits)),
    }

    def is_zero(made: Any) -> bool:
        return isinstance(made, Tensor | float) and torch.as_tensor(made).numel() == 1 and abs(float(made)) < 1e-6

    return Expected("effect", apart.mean() / 2, mistakes, tolerance=2e-5, signs={"zero": is_zero})


conclusions = written("3.5", "What it shows, and what it cannot", 15, points=4)
