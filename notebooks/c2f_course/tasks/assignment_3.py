"""Assignment 3, Reading the maps: the public checks, which the hidden tests ask again of other inputs."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from c2f.fast.depthwise import toeplitz
from c2f_course.grading.assignment import question, written
from c2f_course.grading.remote import runs_remotely
from c2f_course.tasks import fields
from c2f_course.tasks.exercise import Expected, hint_if, is_close, of_shape, task

RUBRIC = {
    "3.5": [
        "For each of the three stages, says with the table's numbers whether the crop moves the answers more than all "
        "of its four controls, less than all of them, or lies among them (1 point)",
        "Says what the control of equal energy rules out, and why a control that takes away as many taps, wherever "
        "they lie, would not have ruled it out (1 point)",
        "Explains stage 2 by what its outer taps can ever meet, and does not conclude from it that such a network has "
        "no use for looking far (1 point)",
        "Names two things that this experiment cannot show, each with the reason why it cannot (1 point)",
    ]
}
"""What a person looks for in the answers in words; the notebook's text repeats it."""


NEAR = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]

# ---- 3.1: window maps

Case = tuple[tuple[int, int, int, int], int, tuple[int, int], int]
"""The shape of u, the side of the kernels, the position, a seed."""
WINDOWS: tuple[Case, ...] = (
    ((2, 3, 8, 8), 5, (1, 6), 31),
    ((2, 3, 8, 8), 5, (4, 3), 32),
    ((3, 2, 5, 9), 3, (4, 2), 33),
)


def window_inputs(cases: tuple[Case, ...] = WINDOWS) -> Iterator[tuple]:
    """u and kernels (C, k, k), nowhere near zero, and the position."""
    for shape, k, p, seed in cases:
        draw = torch.Generator().manual_seed(seed)
        yield 0.4 + torch.randn(shape, generator=draw), torch.randn(shape[1], k, k, generator=draw), p


def sum_inputs(cases: tuple[Case, ...] = WINDOWS) -> Iterator[tuple]:
    """The same with biases."""
    for (u, kernel, p), (*_, seed) in zip(window_inputs(cases), cases, strict=True):
        yield u, kernel, 1 + torch.rand(len(kernel), generator=torch.Generator().manual_seed(seed)), p


def _window(u: Tensor, k: int, position: tuple[int, int], border: str = "zeros") -> Tensor:
    """U in the k x k window around a position: (N, C, H, W) -> (N, C, k, k)."""
    masks, indices = [], []
    for p, size in zip(position, u.shape[2:], strict=True):
        at = p + torch.arange(k) - k // 2
        inside = (at >= 0) & (at < size)
        if border in ("wrapped", "clamped"):
            inside = torch.ones_like(inside)
        if border == "negative":
            inside = at < size
        masks.append(inside)
        indices.append(at.clamp(0, size - 1) if border in ("zeros", "clamped") else at % size)
    return u[:, :, indices[0]][:, :, :, indices[1]] * (masks[0][:, None] & masks[1])


@task(window_inputs)
def terms(u: Tensor, kernel: Tensor, p: tuple[int, int]) -> Expected:
    (images, channels, *size), k, (row, column) = u.shape, kernel.shape[1], p
    u, kernel, half = u.double(), kernel.double(), k // 2
    wanted = (images, channels, k, k)

    def times(row: int = row, column: int = column, border: str = "zeros", kernel: Tensor = kernel) -> Tensor:
        return kernel * _window(u, k, (row, column), border)

    def hangs_over(made: Any) -> bool:
        shape = tuple(made.shape) if isinstance(made, Tensor) else ()
        return len(shape) == 4 and shape[:2] == wanted[:2] and max(shape[2:]) <= k and shape != wanted

    window, right = _window(u, k, p), times()
    mistakes = [
        (times(kernel=kernel.flip(1, 2)), "the kernel is turned by 180°: W[δ] meets U at p + δ, so its first row meets "
         "what lies ABOVE p."),
        (kernel * window.flip(2, 3), "the window of U is turned by 180° against the kernel: W[δ] meets U at p + δ."),
        (right.flip(2, 3), "these are the right terms, turned by 180°: M[0, 0] is the one up and to the left of p."),
        (times(kernel=kernel.mT), "rows and columns of the kernel are exchanged."),
        (right.mT, "these are the right terms with rows and columns exchanged."),
        (times(border="wrapped"), "where the window hangs over the edge, the other side of the map comes in. Beyond "
         "the edge U is 0."),
        (times(border="negative"), "beyond the upper and the left edge the other side of the map comes in: an index "
         "below 0 counts from the end. Beyond every edge U is 0."),
        (times(border="clamped"), "where the window hangs over the edge, the map's last row or column is repeated. "
         "Beyond the edge U is 0."),
        (times(column, row), "row and column of the position are exchanged."),
        (times(row + half, column + half), "the window begins at p; its middle, δ = 0, belongs there."),
        (times(row - half, column - half), "the window ends at p; its middle, δ = 0, belongs there."),
        (window, "that is U in the window. Each of its values is still to be multiplied by its tap."),
        (kernel.expand(wanted), "that is the kernel alone. What of U does each tap meet?"),
        (kernel * window[:1].expand(wanted), "every image has the first image's U."),
        (kernel * window[:, :1], "every channel has the first channel's U."),
        (kernel[:1] * window, "every channel has the first channel's kernel."),
        (right.abs(), "a term has a sign: that of the tap times that of U."),
        *((times(row + i, column + j), "nearly: the window lies one position off. Its middle belongs on "
            "p.") for i, j in NEAR),
        (of_shape(*u.shape), f"your result is as large as the map; at ONE position there are {k}×{k} terms in each "
         "channel."),
        ((of_shape(*wanted[1:]), of_shape(*wanted[2:])), "your result has shape {shape}: every image and every channel "
         "has its own terms."),
    ]  # fmt: skip
    at = f"of the {k}×{k} terms at row {row}, column {column} of a {size[0]}×{size[1]} map"
    cut_off = (
        hangs_over,
        f"{at} you give {{made.shape[2]}}×{{made.shape[3]}}: the window hangs over the edge there. Those terms are 0, "
        "and they stay in it. (A slice ends at the edge without a word.)",
    )
    return Expected(f"the tensor {at}", right, mistakes, "M[δ] = W[c, δ] · U[n, c, p + δ]; take one corner of the "
        "window and work it out by hand.", signs=[cut_off])  # fmt: skip


@task(sum_inputs)
def sums(u: Tensor, kernel: Tensor, bias: Tensor, p: tuple[int, int]) -> Expected:
    k, bias = kernel.shape[1], bias.double()
    total = (kernel * _window(u, k, p)).double().sum(dim=(2, 3))
    mistakes = [
        (of_shape(len(u)), "you summed over the channels as well: each channel has an A of its own."),
        (of_shape(*u.shape[:2], k, k), "these are k×k numbers for each channel; A is one, their sum with the bias."),
        (total, "the bias is missing: the terms, and then one number more for each channel."),
        (total + k * k * bias, f"the bias is added {k * k} times, once a term. It comes once, after the sum."),
        ((total / k**2 + bias, (total + bias) / k**2), "you took the mean of the terms. A is their sum."),
        (total - bias, "the bias is subtracted; it is added."),
        (total * bias, "the bias is multiplied; it is added."),
    ]  # fmt: skip
    return Expected(f"A at row {p[0]}, column {p[1]}", total + bias, mistakes, "Sum your terms over both axes of the "
        "window, then add the channel's bias.", 5e-5)  # fmt: skip


@question(
    "3.1", "Every term, in every channel", "easy", 15, points=3, answers=("window_maps", "modulation_at"),
    without=("window_map",),
)  # fmt: skip
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
    return "all the terms, zeros where the window hangs over the edge; with the bias they are A."


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


@task(laid_inputs)
def row(kernel: Tensor, p: tuple[int, int], size: tuple[int, int]) -> Expected:
    other = (
        "that is the COLUMN at p, whom p's value of U reaches. The row says whom A at p looks at, and the kernel lies "
        "in it as it is."
    )
    return _laid(kernel, p, size, "row", other, "Take A at p, and write down which position of U each tap meets.")


@task(laid_inputs)
def column(kernel: Tensor, p: tuple[int, int], size: tuple[int, int]) -> Expected:
    other = (
        "that is the ROW at q, whom A at q looks at. The column says which values of A know of U at q: the neighbour "
        "BELOW q has q above itself, so which tap does it use?"
    )
    return _laid(kernel, p, size, "column", other, "Take U at q, and write down for a position of A beside it which "
        "tap meets q.")  # fmt: skip


def _laid(kernel: Tensor, p: tuple[int, int], size: tuple[int, int], kind: str, told: str, otherwise: str) -> Expected:
    kernel = kernel.double()
    (channels, k, _), (height, width) = kernel.shape, size
    matrix, q = toeplitz(kernel[:, None], height, width), width * p[0] + p[1]
    right, other = (part.reshape(channels, height, width) for part in (matrix[:, q], matrix[:, :, q]))
    used = kernel  # what is laid around the position
    if kind == "column":
        right, other, used = other, right, kernel.flip(1, 2)

    def laid(border: str = "zeros", shift: tuple[int, int] = (0, 0), taps: Tensor = used) -> Tensor:
        return _lay(taps, (p[0] + shift[0], p[1] + shift[1]), size, border)

    def small(made: Any) -> bool:
        shape = tuple(made.shape) if isinstance(made, Tensor) else ()
        return len(shape) == 3 and shape[1] <= k >= shape[2] and shape != (channels, *size)

    flat = right.flatten(1)
    lines = ((height * width,), (channels, height * width), (channels, 1, height * width))
    one_line = tuple(of_shape(*shape) for shape in lines)
    mistakes = [
        (other, told),
        (laid(taps=used.mT), "rows and columns of the kernel are exchanged."),
        (laid(taps=used.flip(1)), "the kernel's rows run the wrong way; its columns are right."),
        (laid(taps=used.flip(2)), "the kernel's columns run the wrong way; its rows are right."),
        ((laid("wrapped"), laid("overwritten")), "what hangs over one edge of the map comes in at the other. It is "
         "lost: there U is 0."),
        (laid("negative"), "what hangs over the upper or the left edge comes in at the other: an index below 0 counts "
         "from the end. It is lost."),
        (laid("clamped"), "what hangs over the edge piles up in the map's last row or column. It is lost."),
        (laid(shift=(k // 2, k // 2)), "the kernel's first tap lies on the position; its middle belongs there."),
        (laid(shift=(-(k // 2), -(k // 2))), "the kernel's last tap lies on the position; its middle belongs there."),
        (_lay(used, (p[1], p[0]), size), "row and column of the position are exchanged."),
        (flat.softmax(1).view_as(right), "a softmax runs over it: that is attention. Nothing normalises a convolution; "
         "its weights keep their signs and any sum."),
        (laid(taps=used.flatten(1).softmax(1).view_as(used)), "the kernel passes a softmax: that is attention's way. "
         "Its taps are the weights as they are."),
        (right / flat.sum(1)[:, None, None], "divided by its sum: attention's weights sum to 1, a convolution's to "
         "anything."),
        (right / flat.abs().sum(1)[:, None, None], "divided by the sum of its sizes; the taps are the weights as they "
         "are."),
        (right.abs(), "the signs are lost; unlike attention, a convolution has weights below zero."),
        (laid(taps=used[:1].expand_as(used)), "every channel has the first channel's kernel."),
        (laid(taps=torch.ones_like(used)), "that says where the kernel reaches; what does it weigh there?"),
        *((laid(shift=at), "nearly: the kernel lies one position off. Its middle belongs on the "
            "position.") for at in NEAR),
        (one_line, f"your {kind} is one long line of {height * width} numbers; make it a map, (C, H, W)."),
        (of_shape(channels, height + k - 1, width + k - 1), f"your {kind} has {height + k - 1}×{width + k - 1} "
         "numbers: the rim where the kernel hangs over the edge is still there. No position of the map belongs to it."),
        (of_shape(channels, width, height), "height and width are exchanged: a map is (C, H, W)."),
    ]  # fmt: skip
    what = f"the implied {kind} of a {k}×{k} kernel at row {p[0]}, column {p[1]} of a {height}×{width} map"
    as_kernel = (
        small,
        f"your {kind} is as large as the kernel, or what is left of it at the edge; it should have a number for each "
        f"of the map's {height}×{width} positions, zero where the kernel does not reach.",
    )
    if kind == "column":
        mistakes.append((laid(taps=kernel.mT), "the kernel is transposed: that is what exchanges ITS rows and columns, "
            "not those of the large matrix."))  # fmt: skip
    return Expected(what, right, mistakes, otherwise, signs=[as_kernel])


def _lay(kernel: Tensor, p: tuple[int, int], size: tuple[int, int], border: str = "zeros") -> Tensor:
    """Kernels (C, k, k) laid over a map of this size with their middle on p: (C, H, W)."""
    laid, k = kernel.new_zeros(len(kernel), *size), kernel.shape[1]
    for i in range(k):
        for j in range(k):
            at = [p[0] + i - k // 2, p[1] + j - k // 2]
            if border in ("wrapped", "overwritten"):
                at = [a % n for a, n in zip(at, size, strict=True)]
            if border == "negative":
                at = [a % n if a < 0 else a for a, n in zip(at, size, strict=True)]
            if border == "clamped":
                at = [min(max(a, 0), n - 1) for a, n in zip(at, size, strict=True)]
            if all(0 <= a < n for a, n in zip(at, size, strict=True)):
                laid[:, at[0], at[1]] = kernel[:, i, j] + (0 if border == "overwritten" else laid[:, at[0], at[1]])
    return laid


@question(
    "3.2", "The row and the column of a convolution", "medium", 20, points=4,
    answers=("implied_row", "implied_column"), without=("toeplitz", "implied_attention"),
)  # fmt: skip
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
    return "the row gathers, the column scatters: the one is the other with the kernel turned."


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
def field_of(
    answer: Callable[[nn.Module, Tensor], Tensor], sizes: list[int], state: dict[str, Tensor], images: Tensor,
    training: bool,
) -> dict[str, Any]:  # fmt: skip
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
Area = tuple[tuple[float, ...] | int, float]
"""A field's values, or a seed for some; a share."""


@question(
    "3.3", "How far it sees, and how much of it", "hard", 25, points=4,
    answers=("effective_field", "area_holding"), without=("effective_receptive_field",),
)  # fmt: skip
def effective_field(
    field: Callable[[nn.Module, Tensor], Tensor],
    area: Callable[[Tensor, float], int],
    cases: tuple[Field, ...] = (
        (4, 5, (3, 12, 16), False, False, 51),
        (4, 5, (3, 12, 16), True, True, 52),
        (4, 5, (3, 12, 16), False, True, 53),
    ),
    areas: tuple[Area, ...] = ((60, 0.5), ((1, 8, 1, 4, 2, 0), 0.75), (70, 0.6)),
) -> str:
    for case in cases:
        _check_field(field, *case)
    pixels(area, areas)
    return "sizes of gradients, averaged over images and colours; and half of them on so many pixels."


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
    answer: Callable[..., Tensor],
    dim: int,
    k: int,
    shape: tuple[int, int, int],
    training: bool,
    looked_at: bool,
    seed: int,
) -> None:
    model, (count, *size) = _net(dim, k, seed), shape
    images = torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed + 1))
    state = dict(model.state_dict())
    told = field_of(answer, [dim, k], state, images.clone(), training)
    hint_if(not isinstance(told, dict), "your function gave nothing that could be read; it should return a tensor (H, "
        "W).")  # fmt: skip
    expected = fields.effective_field(_net(dim, k, seed).double(), images.double())
    if training:
        expected = replace(expected, otherwise="The model came in training mode, with dropout at work and a batch norm "
            "that mixes the images: ask it as it evaluates.")  # fmt: skip
    expected.compare(told.get("field"))
    came, kept = "training" if training else "evaluation", told.get("state") or {}
    for changed, hint in (
        (told.get("modes") != [training] * len(list(model.modules())), f"the model came in {came} mode and should be "
         "in it again afterwards: whoever gave it to you goes on with it."),
        (any(gradient is not None for gradient in told.get("gradients", ())), "your call has left gradients in the "
         "model's parameters, and the next optimizer step would use them: torch.autograd.grad asks for the images' "
         "alone."),
        (any(told.get("frozen", ())), "you have switched off the gradients of the model's parameters for good."),
        (told.get("asks") or not is_close(told.get("images", torch.empty(0)), images), "the images that you were given "
         "are not as they were (requires_grad counts as well): work on a copy."),
        (any(not is_close(kept.get(name, torch.empty(0)), value) for name, value in state.items()), "something in the "
         "model's state dict has changed."),
    ):  # fmt: skip
        hint_if(looked_at and changed, f"the field is right, but {hint}")


def area_inputs(areas: tuple[Area, ...] = ((60, 0.5), ((1, 8, 1, 4, 2, 0), 0.75), (70, 0.6))) -> Iterator[tuple]:
    for values, share in areas:
        if isinstance(values, int):
            yield 3 * torch.rand(7, 9, generator=torch.Generator().manual_seed(values)) ** 4, share
        else:
            yield torch.tensor(values, dtype=torch.float32).reshape(2, -1), share


@task(area_inputs)
def pixels(field: Tensor, share: float) -> Expected:
    sizes = field.double().flatten().sort(descending=True).values
    inside, wanted, n = sizes.cumsum(0), share * sizes.sum(), len(sizes)
    right = int((inside < wanted).sum()) + 1
    mistakes = [
        (right - 1, "that is one pixel too few: together they should hold AT LEAST the share."),
        (right / n, "that is a share of the area; asked for is the number of pixels."),
        (100 * right / n, "that is a share of the area in per cent; asked for is the number of pixels."),
        (int((sizes.flip(0).cumsum(0) < wanted).sum()) + 1, "it counts from the faintest pixel; the fewest pixels that "
         "do are the brightest ones."),
        (int((field.double().flatten().cumsum(0) < wanted).sum()) + 1, "it takes the pixels in the order in which they "
         "lie; the fewest pixels that do are the brightest ones."),
        ((int((sizes >= share * sizes[0]).sum()), int((sizes > share * sizes[0]).sum())), "that counts the pixels "
         "above a share of the largest VALUE; asked for is a share of the SUM."),
        (int((inside <= wanted).sum()) + 1, "one too many where the pixels hold the share exactly: AT LEAST the share "
         "is enough."),
        (int((inside < share).sum()) + 1, "the field does not sum to 1: its sum counts."),
        (round(share * n), "that is the share of the pixels, whatever they hold."),
        (n, "those are all pixels; fewer hold that share."),
    ]  # fmt: skip
    return Expected(f"for a share of {share:g}, the number of pixels", right, mistakes, "Sort the pixels, the "
        "brightest first, and add them up until the share is reached.")  # fmt: skip


# ---- 3.4: a hypothesis and its control

Kernels = tuple[int, int, int, int]
"""Channels, side, radius, seed."""
KERNELS: tuple[Kernels, ...] = ((3, 7, 1, 61), (4, 5, 1, 62), (2, 5, 2, 63))
LOGITS = ((6, 4, 64), (1, 3, 65), (5, 5, 66))
"""Images, classes, seed."""


@question(
    "3.4", "A crop and its control", "hard", 30, points=5,
    answers=("crop_kernels", "energy_removed", "control_kernels", "effect"),
)  # fmt: skip
def experiment(
    crop_kernels: Callable[[Tensor, int], Tensor],
    energy_removed: Callable[[Tensor, Tensor], Tensor],
    control_kernels: Callable[[Tensor, int, Tensor], Tensor],
    effect: Callable[[Tensor, Tensor], float],
    cases: tuple[Kernels, ...] = KERNELS,
    answers: tuple[tuple[int, int, int], ...] = LOGITS,
    parts: tuple[str, ...] = ("crop", "removed", "control", "effect"),
) -> str:
    checks = {"crop": (crop, crop_kernels), "removed": (removed, energy_removed), "control": (control, control_kernels)}
    for part, (check, answer) in checks.items():
        if part in parts:
            check(answer, cases)
    if "effect" in parts:
        effect_of(effect, answers)
    return "a crop, what it takes away, as much taken away elsewhere, and one number for what that does."


def kernel_inputs(cases: tuple[Kernels, ...] = KERNELS) -> Iterator[tuple[Tensor, int, Tensor]]:
    """Kernels whose middle counts, as in a trained network; a radius; a score for each tap."""
    for channels, k, radius, seed in cases:
        draw = torch.Generator().manual_seed(seed)
        kernels = torch.randn(channels, k, k, generator=draw)
        kernels[:, k // 2, k // 2] = 1.5 + torch.rand(channels, generator=draw)
        yield kernels, radius, torch.rand(channels, k, k, generator=draw)


def _rings(k: int) -> Tensor:
    steps = (torch.arange(k) - k // 2).abs()
    return torch.maximum(steps[:, None], steps)


@task(lambda *cases: ((kernels, radius) for kernels, radius, _ in kernel_inputs(*cases)))
def crop(kernels: Tensor, radius: int) -> Expected:
    k, side = kernels.shape[1], 2 * radius + 1
    ring, steps = _rings(k), torch.arange(k) - k // 2
    city, round_ = steps[:, None].abs() + steps.abs(), (steps[:, None] ** 2 + steps**2).double().sqrt()
    mistakes = [
        (of_shape(len(kernels), side, side), "crop_kernels gives smaller kernels; they should keep their size, with "
         "zeros outside the radius."),
        (kernels * (ring > radius), "crop_kernels keeps what is outside the radius and takes away the inside."),
        (kernels * (ring < radius), "crop_kernels takes away the ring AT the radius as well; that one stays."),
        (kernels * (ring <= radius + 1), "crop_kernels keeps one ring too many."),
        (kernels * (city <= radius), "crop_kernels adds the steps by row and by column; the larger of the two counts."),
        (kernels * (round_ <= radius), "crop_kernels keeps a round piece; the larger of the steps by row and by column "
         "counts, so what stays is a square."),
        (kernels * (steps.abs() <= radius), "crop_kernels looks at the columns only; rows count as well."),
        (kernels * (steps.abs() <= radius)[:, None], "crop_kernels looks at the rows only; columns count as well."),
        (kernels, "crop_kernels has taken nothing away."),
    ]  # fmt: skip
    return Expected(f"crop_kernels with radius {radius}, of {k}×{k} "
        "kernels,", kernels * (ring <= radius), mistakes, "A tap stays where neither its row nor its column is more "
        "than the radius from the middle.", 1e-6)  # fmt: skip


@task(lambda *cases: ((kernels, kernels * (scores > 0.4)) for kernels, _, scores in kernel_inputs(*cases)))
def removed(kernels: Tensor, changed: Tensor) -> Expected:
    kernels, left, taps = kernels.double(), changed.double(), kernels[0].numel()
    whole, rest = kernels.square().sum(dim=(1, 2)), left.square().sum(dim=(1, 2))
    mistakes = [
        (of_shape(), "energy_removed gives one number; every kernel has a share of its own."),
        (of_shape(1), "energy_removed gives one number; every kernel has a share of its own."),
        (rest / whole, "energy_removed tells what is LEFT; asked for is what has gone."),
        (whole - rest, "energy_removed gives energies; as shares of the kernel's whole they lie between 0 and 1."),
        (100 * (whole - rest) / whole, "energy_removed gives per cent; a share lies between 0 and 1."),
        (1 - left.abs().sum(dim=(1, 2)) / kernels.abs().sum(dim=(1, 2)), "energy_removed adds sizes; energy is the sum "
         "of SQUARES."),
        ((left == 0).sum(dim=(1, 2)) / taps, "energy_removed counts taps; what counts is their energy."),
        ((whole - rest) / whole.sum(), "energy_removed divides by the energy of all kernels together; each has its "
         "own."),
        ((whole - rest) / rest, "energy_removed divides by what is left; the share is of the whole."),
        ((1 - (rest / whole).sqrt(), ((kernels - left).square().sum(dim=(1, 2)) / whole).sqrt()), "energy_removed "
         "takes a root; energy is the sum of squares itself."),
        (1 - left.sum(dim=(1, 2)) / kernels.sum(dim=(1, 2)), "energy_removed adds the taps with their signs; energy is "
         "the sum of their squares."),
    ]  # fmt: skip
    return Expected("energy_removed", (whole - rest) / whole, mistakes, "The sum of squares that has gone, by the sum "
        "of squares that there was, kernel by kernel.", 2e-5)  # fmt: skip


def control_of(
    kernels: Tensor, radius: int, scores: Tensor, *, power: float = 2, spare: bool = True, least: bool = False,
    early: bool = False, count: bool = False, one_order: bool = False, pooled: bool = False,
) -> Tensor:  # fmt: skip
    """The control, or what comes of it after a mistake: each keyword is one."""
    c, k, _ = kernels.shape
    outside = (_rings(k) > radius).flatten()
    ranks = scores.double().flatten(1)
    ranks = ranks[:1].expand(c, -1) if one_order else ranks
    ranks = ranks.clone()
    if spare:
        ranks[:, k * k // 2] = torch.inf if least else -torch.inf
    order = ranks.argsort(1, descending=not least)
    energy = kernels.double().flatten(1).abs() ** power
    target = (energy * outside).sum(1, keepdim=True)
    target = target.mean().expand_as(target) if pooled else target
    sorted_ = energy.gather(1, order)
    gone_before = sorted_.cumsum(1) - sorted_
    takes = sorted_.cumsum(1) <= target if early else gone_before < target * (1 - 1e-9)
    if count:
        takes = torch.arange(k * k).expand(c, -1) < outside.sum()
    if spare:
        takes = takes & (order != k * k // 2)
    return kernels.flatten(1).masked_fill(torch.zeros_like(takes).scatter(1, order, takes), 0).view_as(kernels)


@task(kernel_inputs)
def control(kernels: Tensor, radius: int, scores: Tensor) -> Expected:
    def slip(**how: Any) -> Tensor:
        return control_of(kernels, radius, scores, **how)

    mistakes = [
        (slip(spare=False), "control_kernels takes the middle tap as well; it stays in the crop, so it stays here."),
        ((slip(least=True), slip(least=True, spare=False)), "control_kernels begins with the lowest score; the highest "
         "goes first."),
        ((slip(early=True), slip(early=True, spare=False)), "control_kernels stops one tap too early: it goes on until "
         "AT LEAST as much energy is gone."),
        (slip(count=True), "control_kernels takes away as many TAPS as the crop does; it should be as much ENERGY."),
        (slip(count=True, spare=False), "control_kernels takes away as many TAPS as the crop does, and the middle may "
         "be one of them; it should be as much ENERGY, without the middle."),
        (slip(power=1), "control_kernels adds sizes; energy is the sum of squares."),
        (slip(one_order=True), "control_kernels takes every kernel's taps in the first one's order; each has scores of "
         "its own."),
        (slip(pooled=True), "control_kernels takes away the same energy from every kernel; each one's own crop says "
         "how much."),
        (kernels * (_rings(kernels.shape[1]) <= radius), "control_kernels gives the crop itself; the control takes as "
         "much away ELSEWHERE, by the scores."),
        (kernels - slip(), "control_kernels gives what is taken away; asked for is what is left."),
        (kernels, "control_kernels has taken nothing away."),
        (control_of(kernels, radius, kernels.square()), "control_kernels goes by the size of the taps; the scores say "
         "the order."),
    ]  # fmt: skip
    otherwise = (
        "For each kernel: one tap after the other, the highest score first, never the middle one, until at least the "
        "crop's energy is gone."
    )
    if radius >= kernels.shape[1] // 2:
        otherwise = "With this radius the crop takes nothing away, so the control takes nothing away."
    return Expected(f"control_kernels with radius {radius}", slip(), mistakes, otherwise, 1e-6)


def logit_inputs(cases: tuple[tuple[int, int, int], ...] = LOGITS) -> Iterator[tuple[Tensor, Tensor]]:
    for images, classes, seed in cases:
        draw = torch.Generator().manual_seed(seed)
        logits = 2 * torch.randn(images, classes, generator=draw)
        yield logits, logits + 1.5 * torch.randn(images, classes, generator=draw)


@task(logit_inputs)
def effect_of(logits: Tensor, changed: Tensor) -> Expected:
    logits, changed, classes = logits.double(), changed.double(), logits.shape[1]
    p, q, raw = logits.softmax(1), changed.softmax(1), (logits - changed).abs()
    apart, squares = (p - q).abs().sum(1), ((p - q) ** 2).sum(1)
    over_images = (logits.softmax(0) - changed.softmax(0)).abs().sum(1)
    mistakes = [
        (apart.mean(), "effect lacks the half: every probability that one class loses another one gains, and it should "
         "be counted once."),
        (apart.sum() / 2, "effect sums over the images; the mean is asked for."),
        (apart.sum(), "effect sums over the images, and the half is missing."),
        (apart.mean() / classes, "effect takes the mean over the classes; over them it is a sum, and its half."),
        (apart.mean() / classes / 2, "effect takes the mean over the classes; over them it is a sum."),
        ((raw.sum(1).mean() / 2, raw.sum(1).mean(), raw.mean()), "effect compares the logits; make them probabilities "
         "first."),
        (over_images.mean() / 2, "effect's softmax runs over the images; the probabilities of ONE image sum to 1."),
        (apart.amax() / 2, "effect takes the worst image; the mean is asked for."),
        ((p.argmax(1) != q.argmax(1)).double().mean(), "effect counts the images whose answer changes; asked for is "
         "how far the probabilities move."),
        ((squares.mean(), squares.mean() / 2), "effect takes squares; absolute values are asked for."),
        (squares.sqrt().mean(), "effect takes the root of squares; absolute values are asked for."),
        ((p - q).abs().amax(1).mean(), "effect looks at the class that moves most; the sum over all of them counts."),
        (of_shape(len(logits)), "effect gives a number for each image; their mean is asked for."),
    ]  # fmt: skip
    nothing = (
        _is_zero,
        "effect is 0 for answers that differ: what one class loses, another gains, so do differences of opposite sign "
        "cancel in it?",
    )
    return Expected("effect", apart.mean() / 2, mistakes, "Probabilities, the sizes of their differences summed over "
        "the classes, half of it, the mean over the images.", 2e-5, [nothing])  # fmt: skip


def _is_zero(made: Any) -> bool:
    return isinstance(made, Tensor | float) and torch.as_tensor(made).numel() == 1 and abs(float(made)) < 1e-6


conclusions = written("3.5", "What it shows, and what it cannot", 15, points=4)
