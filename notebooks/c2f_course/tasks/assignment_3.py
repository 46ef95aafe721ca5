"""Assignment 3, Reading the maps: the public checks, which the hidden tests ask again of other inputs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from c2f.fast.depthwise import toeplitz
from c2f_course.grading.assignment import question, written
from c2f_course.grading.remote import beside
from c2f_course.tasks.exercise import (
    Hint,
    Known,
    expect,
    expect_filled,
    expect_number,
    expect_tensor,
    expect_untouched,
    is_close,
)

RUBRIC = {
    "3.5": [
        "For each of the three stages, says with the table's numbers whether the crop moves the answers more than "
        "all of its four controls, less than all of them, or lies among them (1 point)",
        "Says what the control of equal energy rules out, and why a control that takes away as many taps, wherever "
        "they lie, would not have ruled it out (1 point)",
        "Explains stage 2 by what its outer taps can ever meet, and does not conclude from it that such a network has "
        "no use for looking far (1 point)",
        "Names two things that this experiment cannot show, each with the reason why it cannot (1 point)",
    ]
}
"""What a person looks for in the answers in words; the notebook's text repeats it."""


# ---- 3.1: window maps


Case = tuple[tuple[int, int, int, int], int, tuple[int, int], int]
"""The shape of u, the side of the kernels, the position, a seed."""


@question(
    "3.1", "Every term, in every channel", "easy", 15, points=3, answers=("window_maps", "modulation_at"),
    without=("window_map",),
)  # fmt: skip
def window_maps(
    terms: Callable[[Tensor, Tensor, tuple[int, int]], Tensor],
    sums: Callable[[Tensor, Tensor, Tensor, tuple[int, int]], Tensor],
    cases: tuple[Case, ...] = (
        ((2, 3, 8, 8), 5, (1, 6), 31),
        ((2, 3, 8, 8), 5, (4, 3), 32),
        ((3, 2, 5, 9), 3, (4, 2), 33),
    ),
    part: str = "both",
) -> str:
    """Knows: turned, transposed, one for all; border wrapped, clamped, cut off; exchanged, off by one; bias, mean."""
    for case in cases:
        if part in ("both", "terms"):
            _check_terms(terms, *case)
        if part in ("both", "sums"):
            _check_sums(sums, *case)
    return "all the terms, zeros where the window hangs over the edge; with the bias they are A."


def _drawn(shape: tuple[int, ...], k: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """u, kernels (C, k, k) and biases, nowhere near zero."""
    draw = torch.Generator().manual_seed(seed)
    u, kernel = 0.4 + torch.randn(shape, generator=draw), torch.randn(shape[1], k, k, generator=draw)
    return u, kernel, 1 + torch.rand(shape[1], generator=draw)


def _check_terms(answer: Callable[..., Tensor], shape: tuple[int, ...], k: int, p: tuple[int, int], seed: int) -> None:
    u, kernel, _ = _drawn(shape, k, seed)
    before = u.clone(), kernel.clone()
    made = answer(u, kernel, p)
    expect_filled(made)
    wanted = (*shape[:2], k, k)
    at = f"of the {k}×{k} terms at row {p[0]}, column {p[1]} of a {shape[2]}×{shape[3]} map"
    if isinstance(made, Tensor) and tuple(made.shape) != wanted:
        if made.dim() == 4 and tuple(made.shape[:2]) == wanted[:2] and max(made.shape[2:]) <= k:
            raise Hint(f"{at} you give {made.shape[2]}×{made.shape[3]}: the window hangs over the edge there. Those "
                       f"terms are 0, and they stay in it. (A slice ends at the edge without a word.)")  # fmt: skip
        if tuple(made.shape) == tuple(shape):
            raise Hint(f"your result is as large as the map; at ONE position there are {k}×{k} terms in each channel.")
        if tuple(made.shape) in (wanted[1:], wanted[2:]):
            raise Hint(f"your result has shape {tuple(made.shape)}: every image and every channel has its own terms.")
    made = expect_tensor(made, wanted, "the tensor of terms")
    expect_untouched(u, before[0], "u")
    expect_untouched(kernel, before[1], "the kernel")

    def around(row: int, column: int, border: str = "zeros") -> Tensor:
        return _window(u, k, (row, column), border)

    row, column = p
    right = kernel.double() * around(row, column).double()
    half = k // 2
    known: Known = [
        (kernel.flip(1, 2) * around(row, column), "the kernel is turned by 180°: W[δ] meets U at p + δ, so its first "
         "row meets what lies ABOVE p."),
        ((kernel.flip(1, 2) * around(row, column)).flip(2, 3), "the window of U is turned by 180° against the kernel: "
         "W[δ] meets U at p + δ."),
        (right.flip(2, 3), "these are the right terms, turned by 180°: M[0, 0] is the one up and to the left of p."),
        (kernel.mT * around(row, column), "rows and columns of the kernel are exchanged."),
        (right.mT, "these are the right terms with rows and columns exchanged."),
        (kernel * around(row, column, "wrapped"), "where the window hangs over the edge, the other side of the map "
         "comes in. Beyond the edge U is 0."),
        (kernel * around(row, column, "negative"), "beyond the upper and the left edge the other side of the map comes "
         "in: an index below 0 counts from the end. Beyond every edge U is 0."),
        (kernel * around(row, column, "clamped"), "where the window hangs over the edge, the map's last row or column "
         "is repeated. Beyond the edge U is 0."),
        (kernel * around(column, row), "row and column of the position are exchanged."),
        (kernel * around(row + half, column + half), "the window begins at p; its middle, δ = 0, belongs there."),
        (kernel * around(row - half, column - half), "the window ends at p; its middle, δ = 0, belongs there."),
        (around(row, column), "that is U in the window. Each of its values is still to be multiplied by its tap."),
        (kernel.expand(wanted), "that is the kernel alone. What of U does each tap meet?"),
        (kernel * around(row, column)[:1], "every image has the first image's U."),
        (kernel * around(row, column)[:, :1], "every channel has the first channel's U."),
        (kernel[:1] * around(row, column), "every channel has the first channel's kernel."),
        (right.abs(), "a term has a sign: that of the tap times that of U."),
        *((kernel * around(row + i, column + j), "nearly: the window lies one position off. Its middle belongs on p.")
          for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j),
    ]  # fmt: skip
    expect(made, right, f"the tensor {at}", known, "M[δ] = W[c, δ] · U[n, c, p + δ]; take one corner of the window and "
           "work it out by hand.")  # fmt: skip


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


def _check_sums(answer: Callable[..., Tensor], shape: tuple[int, ...], k: int, p: tuple[int, int], seed: int) -> None:
    u, kernel, bias = _drawn(shape, k, seed)
    befores = [given.clone() for given in (u, kernel, bias)]
    made = answer(u, kernel, bias, p)
    expect_filled(made)
    for given, before, what in zip((u, kernel, bias), befores, ("u", "the kernel", "the bias"), strict=True):
        expect_untouched(given, before, what)
    if isinstance(made, Tensor) and tuple(made.shape) == shape[:1]:
        raise Hint("you summed over the channels as well: each channel has an A of its own.")
    if isinstance(made, Tensor) and tuple(made.shape) == (*shape[:2], k, k):
        raise Hint("these are k×k numbers for each channel; A is one, their sum with the bias.")
    made = expect_tensor(made, shape[:2], "A at the position")
    total = (kernel * _window(u, k, p)).double().sum(dim=(2, 3))
    right = total + bias
    known: Known = [
        (total, "the bias is missing: the terms, and then one number more for each channel."),
        (total + k * k * bias, f"the bias is added {k * k} times, once a term. It comes once, after the sum."),
        (total / k**2 + bias, "you took the mean of the terms. A is their sum."),
        (right / k**2, "you took the mean of the terms. A is their sum."),
        (total - bias, "the bias is taken off; it is added."),
        (total * bias, "the bias is multiplied; it is added."),
    ]
    expect(made, right, f"A at row {p[0]}, column {p[1]}", known, "Sum your terms over both axes of the window, then "
           "add the channel's bias.", tolerance=5e-5)  # fmt: skip


# ---- 3.2: the implied attention


Laid = tuple[tuple[int, int, int], tuple[int, int], int]
"""Channels, height and width of the map; the position; a seed."""


@question(
    "3.2", "The row and the column of a convolution", "medium", 20, points=4,
    answers=("implied_row", "implied_column"), without=("toeplitz", "implied_attention"),
)  # fmt: skip
def implied_attention(
    rows: Callable[[Tensor, tuple[int, int], tuple[int, int]], Tensor],
    columns: Callable[[Tensor, tuple[int, int], tuple[int, int]], Tensor],
    cases: tuple[tuple[Laid, int], ...] = (
        (((2, 8, 8), (1, 6), 41), 5),
        (((3, 9, 7), (4, 3), 42), 3),
        (((2, 4, 4), (2, 1), 43), 7),
    ),
    part: str = "both",
) -> str:
    """Knows: row for column, wrapped, clamped, from the corner, exchanged, softmax, shares, sizes, one for all."""
    for ((channels, *size), p, seed), k in cases:
        draw = torch.Generator().manual_seed(seed)
        kernel = torch.randn(channels, k, k, generator=draw)
        if part in ("both", "rows"):
            _check_laid(rows, kernel, p, (size[0], size[1]), "row")
        if part in ("both", "columns"):
            _check_laid(columns, kernel, p, (size[0], size[1]), "column")
    return "the row gathers, the column scatters: the one is the other with the kernel turned."


def _check_laid(
    answer: Callable[..., Tensor], kernel: Tensor, p: tuple[int, int], size: tuple[int, int], kind: str
) -> None:
    channels, k, (height, width) = kernel.shape[0], kernel.shape[1], size
    before = kernel.clone()
    made = answer(kernel, p, size)
    expect_filled(made)
    what = f"the implied {kind} of a {k}×{k} kernel at row {p[0]}, column {p[1]} of a {height}×{width} map"
    if isinstance(made, Tensor) and tuple(made.shape) != (channels, *size):
        if made.numel() == channels * height * width and made.shape[-1] == height * width:
            raise Hint(f"your {kind} is one long line of {height * width} numbers; lay it out as a map, (C, H, W).")
        if made.dim() == 3 and tuple(made.shape[1:]) == (height + k - 1, width + k - 1):
            raise Hint(f"your {kind} has {height + k - 1}×{width + k - 1} numbers: the rim where the kernel hangs over "
                       f"the edge is still there. No position of the map belongs to it.")  # fmt: skip
        if tuple(made.shape) == (channels, k, k) or (made.dim() == 3 and made.shape[1] <= k >= made.shape[2]):
            raise Hint(f"your {kind} is as large as the kernel, or what is left of it at the edge; it should have a "
                       f"number for each of the map's {height}×{width} positions, zero where the kernel does not "
                       f"reach.")  # fmt: skip
        if tuple(made.shape) == (channels, width, height):
            raise Hint("height and width are exchanged: a map is (C, H, W).")
    made = expect_tensor(made, (channels, *size), what)
    expect_untouched(kernel, before, "the kernel")
    matrix = toeplitz(kernel.double()[:, None], height, width)
    q = width * p[0] + p[1]
    rights = {"row": matrix[:, q], "column": matrix[:, :, q]}
    right = rights[kind].reshape(channels, height, width)
    other = rights["column" if kind == "row" else "row"].reshape(channels, height, width)
    used = kernel if kind == "row" else kernel.flip(1, 2)  # what is laid around the position

    def laid(border: str = "zeros", shift: tuple[int, int] = (0, 0), taps: Tensor = used) -> Tensor:
        return _lay(taps, (p[0] + shift[0], p[1] + shift[1]), size, border)

    flat = right.flatten(1)
    reached = laid(taps=torch.ones_like(used))
    told = {
        "row": "that is the COLUMN at p, whom p's value of U reaches. The row says whom A at p looks at, and the "
               "kernel lies in it as it is.",
        "column": "that is the ROW at q, whom A at q looks at. The column says which values of A know of U at q: the "
                  "neighbour BELOW q has q above itself, so which tap does it use?",
    }  # fmt: skip
    known: Known = [
        (other, told[kind]),
        (laid(taps=used.mT), "rows and columns of the kernel are exchanged."),
        (laid(taps=kernel.mT), "the kernel is transposed: that is what exchanges ITS rows and columns, not those "
         "of the large matrix."),
        (laid(taps=used.flip(1)), "the kernel's rows run the wrong way; its columns are right."),
        (laid(taps=used.flip(2)), "the kernel's columns run the wrong way; its rows are right."),
        (laid("wrapped"), "what hangs over one edge of the map comes in at the other. It is lost: there U is 0."),
        (laid("overwritten"), "what hangs over one edge of the map comes in at the other. It is lost: there U is 0."),
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
        (reached, "that says where the kernel reaches; what does it weigh there?"),
        *((laid(shift=(i, j)), "nearly: the kernel lies one position off. Its middle belongs on the position.")
          for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j),
    ]  # fmt: skip
    otherwise = {
        "row": "Take A at p, and write down which position of U each tap meets.",
        "column": "Take U at q, and write down for a position of A beside it which tap meets q.",
    }
    expect(made, right, what, known, otherwise[kind])


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


@beside
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
    """Knows: no size, size too late, squares, all positions, another, sums, shares, accumulated; training mode, …"""
    for case in cases:
        _check_field(field, *case)
    for values, share in areas:
        _check_area(area, values, share)
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
    model, (count, height, width) = _net(dim, k, seed), shape
    images = torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed + 1))
    before = images.clone()
    told = field_of(answer, [dim, k], dict(model.state_dict()), images.clone(), training)
    if not isinstance(told, dict):
        raise Hint("your function gave nothing that could be read; it should return a tensor (H, W).")
    made = told.get("field")
    expect_filled(made)
    if isinstance(made, Tensor) and tuple(made.shape) in (
        (count, 3, height, width),
        (3, height, width),
        (count, height, width),
    ):
        raise Hint(f"your field has shape {tuple(made.shape)}: average over images and colours, so that "
                   f"({height}, {width}) is left.")  # fmt: skip
    if isinstance(made, Tensor) and tuple(made.shape) == (height // 2, width // 2):
        raise Hint("your field has the size of the feature map; it should say something of every PIXEL.")
    made = expect_tensor(made, (height, width), "the field")
    gradients = _gradients(model, before)
    right = gradients.abs().mean(dim=(0, 1))
    if not torch.isfinite(made).all():
        raise Hint("the field holds a number that is not finite.")
    if not made.any():
        raise Hint("the field is zero everywhere: does the feature depend on the tensor that you differentiate by?")
    known = _field_slips(model, before, gradients)
    otherwise = "Which feature is it the gradient of, by what, and what is averaged?"
    if training:
        otherwise = ("The model came in training mode, with dropout at work and a batch norm that mixes the images: "
                     "ask it as it evaluates.")  # fmt: skip
    expect(made, right, "the field", known, otherwise, tolerance=1e-4)
    if not looked_at:
        return
    if told.get("modes") != [training] * len(list(model.modules())):
        came = "training" if training else "evaluation"
        raise Hint(f"the field is right, but the model came in {came} mode and should be in it again afterwards: "
                   f"whoever gave it to you goes on with it.")  # fmt: skip
    if any(gradient is not None for gradient in told.get("gradients", ())):
        raise Hint("the field is right, but your call has left gradients in the model's parameters, and the next "
                   "optimizer step would use them: torch.autograd.grad asks for the images' alone.")  # fmt: skip
    if any(told.get("frozen", ())):
        raise Hint("the field is right, but you have switched off the gradients of the model's parameters for good.")
    if told.get("asks") or not is_close(told.get("images", torch.empty(0)), before):
        raise Hint("the field is right, but the images that you were given are not as they were (requires_grad counts "
                   "as well): work on a copy.")  # fmt: skip
    state = told.get("state") or {}
    if any(not is_close(state.get(name, torch.empty(0)), value) for name, value in model.state_dict().items()):
        raise Hint("the field is right, but something in the model's state dict has changed.")


def _gradients(
    model: SmallNet, images: Tensor, position: tuple[int, int] | None = None, channel: int | None = None
) -> Tensor:
    """Of the middle's feature, by each pixel of each image, in double precision: (N, 3, H, W)."""
    with torch.random.fork_rng(devices=[]):
        twin = SmallNet(model.stem.out_channels, model.a.kernel_size[0])
    twin.load_state_dict(model.state_dict())
    x = images.double().requires_grad_()
    feature = twin.double().eval()(x)
    row, column = position or (feature.shape[2] // 2, feature.shape[3] // 2)
    chosen = feature if position == (-1, -1) else feature[:, :, row, column]
    chosen = chosen if channel is None else chosen[:, channel]
    return torch.autograd.grad(chosen.sum(), x)[0]


def _field_slips(model: SmallNet, images: Tensor, gradients: Tensor) -> Known:
    """What the field is after each mistake that is known."""
    size, (count, _, height, width), dim = gradients.abs(), images.shape, model.stem.out_channels
    right, signed = size.mean(dim=(0, 1)), gradients.mean(dim=(0, 1))
    everywhere = _gradients(model, images, (-1, -1))
    rows, columns = -(-height // 2), -(-width // 2)
    late = "you averaged first and took the size afterwards, so signs cancel. Size first, then the mean."
    place = "that is the field of another position. The middle of the map is at (H' // 2, W' // 2)."
    again = "gradients of one image are still there when the next one comes: .grad adds up until it is cleared."
    counted = torch.arange(count, 0, -1)[:, None, None, None] * size
    other = {(rows // 2 - i, columns // 2 - j) for i in (0, 1) for j in (0, 1)} | {(0, 0), (rows // 2, columns - 1)}
    other |= {(height // 2, width // 2), (columns // 2, rows // 2)}
    return [
        (signed, "the sizes are missing: a gradient has a sign, and pixels that push the feature down count as well."),
        (signed.abs(), late),
        (gradients.mean(0).abs().mean(0), late),
        (gradients.mean(1).abs().mean(0), late),
        (gradients.sum(dim=(0, 1)), "the sizes are missing: a gradient has a sign."),
        (gradients.sum(dim=(0, 1)).abs(), late),
        (gradients.sum(1).abs().mean(0), late),
        (gradients.sum(0).abs().mean(0), late),
        (everywhere.abs().mean(dim=(0, 1)), "that is the gradient of all positions together; take the feature at the "
         "middle position only."),
        (gradients.square().mean(dim=(0, 1)), "these are squares; it is the mean of the absolute values."),
        (gradients.square().mean(dim=(0, 1)).sqrt(), "that is the root of the mean square; it is the mean of the "
         "absolute values."),
        (right / right.sum(), "divided by its sum: right for a picture, but asked for is the mean size itself."),
        (right / right.max(), "divided by its largest value; asked for is the mean size itself."),
        *((right * factor, f"right up to the factor {factor}: a mean over images AND colours, not a sum.")
          for factor in sorted({count * 3, count, 3} - {1})),
        (right / count, "divided by the number of images twice: does your loss take a mean already?"),
        (right / (count * rows * columns), "divided twice: does your loss take a mean already?"),
        (right / dim, "the mean of the feature's channels; their sum is asked for."),
        (right / (count * dim), "the mean of the feature, where the sum over its channels is asked for."),
        (size.amax(dim=(0, 1)), "the largest of the sizes; the mean is asked for."),
        *((_gradients(model, images, None, c).abs().mean(dim=(0, 1)), "that is one channel of the feature; the sum "
           "over all of them is asked for.") for c in (0, dim - 1) if dim > 1),
        *((size[n].mean(0), "that is one image's field; the mean over all of them is asked for.") for n in (0, -1)
          if count > 1),
        (size[:, 0].mean(0), "that is one colour; the mean over all three is asked for."),
        (counted.mean(dim=(0, 1)), again), (counted.mean(dim=(0, 1)) / count, again),
        (gradients.cumsum(0).abs().mean(dim=(0, 1)), again),
        *((_gradients(model, images, at).abs().mean(dim=(0, 1)), place) for at in sorted(other)
          if at != (rows // 2, columns // 2) and at[0] < rows and at[1] < columns),
    ]  # fmt: skip


def _check_area(answer: Callable[..., Any], values: tuple[float, ...] | int, share: float) -> None:
    if isinstance(values, int):
        field = 3 * torch.rand(7, 9, generator=torch.Generator().manual_seed(values)) ** 4
    else:
        field = torch.tensor(values, dtype=torch.float32).reshape(2, -1)
    before = field.clone()
    made = answer(field, share)
    expect_filled(made)
    made = expect_number(made, "the number of pixels")
    expect_untouched(field, before, "the field")
    sizes = field.double().flatten().sort(descending=True).values
    inside, total, n = sizes.cumsum(0), sizes.sum(), len(sizes)
    right = int((inside < share * total).sum()) + 1
    rising, reading = sizes.flip(0).cumsum(0), field.double().flatten().cumsum(0)
    known: Known = [
        (right - 1, "that is one pixel too few: together they should hold AT LEAST the share."),
        (right / n, "that is a share of the area; asked for is the number of pixels."),
        (100 * right / n, "that is a share of the area in per cent; asked for is the number of pixels."),
        (int((rising < share * total).sum()) + 1, "it counts from the faintest pixel; the fewest pixels that do are "
         "the brightest ones."),
        (int((reading < share * total).sum()) + 1, "it takes the pixels in the order in which they lie; the fewest "
         "pixels that do are the brightest ones."),
        (int((sizes >= share * sizes[0]).sum()), "that counts the pixels above a share of the largest VALUE; asked for "
         "is a share of the SUM."),
        (int((sizes > share * sizes[0]).sum()), "that counts the pixels above a share of the largest VALUE; asked for "
         "is a share of the SUM."),
        (int((inside <= share * total).sum()) + 1, "one too many where the pixels hold the share exactly: AT LEAST "
         "the share is enough."),
        (int((inside < share).sum()) + 1, "the field does not sum to 1: its sum counts."),
        (round(share * n), "that is the share of the pixels, whatever they hold."),
        (n, "those are all pixels; fewer hold that share."),
    ]  # fmt: skip
    expect(made, float(right), f"for a share of {share:g}, the number of pixels", known, "Sort the pixels, the "
           "brightest first, and add them up until the share is reached.")  # fmt: skip


# ---- 3.4: a hypothesis and its control


Kernels = tuple[int, int, int, int]
"""Channels, side, radius, seed."""


@question(
    "3.4", "A crop and its control", "hard", 30, points=5,
    answers=("crop_kernels", "energy_removed", "control_kernels", "effect"),
)  # fmt: skip
def experiment(
    crop: Callable[[Tensor, int], Tensor],
    removed: Callable[[Tensor, Tensor], Tensor],
    control: Callable[[Tensor, int, Tensor], Tensor],
    effect: Callable[[Tensor, Tensor], float],
    cases: tuple[Kernels, ...] = ((3, 7, 1, 61), (4, 5, 1, 62), (2, 5, 2, 63)),
    answers: tuple[tuple[int, int, int], ...] = ((6, 4, 64), (1, 3, 65), (5, 5, 66)),
    parts: tuple[str, ...] = ("crop", "removed", "control", "effect"),
) -> str:
    """Knows: inside for outside, round, one ring off; sizes, kept, pooled; counts, centre, order; logits, no half."""
    for channels, k, radius, seed in cases:
        draw = torch.Generator().manual_seed(seed)
        kernels = torch.randn(channels, k, k, generator=draw)
        kernels[:, k // 2, k // 2] = 1.5 + torch.rand(channels, generator=draw)  # as in a trained one
        scores = torch.rand(channels, k, k, generator=draw)
        if "crop" in parts:
            _check_crop(crop, kernels, radius)
        if "removed" in parts:
            _check_removed(removed, kernels, scores)
        if "control" in parts:
            _check_control(control, kernels, radius, scores)
    for images, classes, seed in answers if "effect" in parts else ():
        _check_effect(effect, images, classes, seed)
    return "a crop, what it takes away, as much taken away elsewhere, and one number for what that does."


def _rings(k: int) -> Tensor:
    steps = (torch.arange(k) - k // 2).abs()
    return torch.maximum(steps[:, None], steps)


def _check_crop(answer: Callable[..., Tensor], kernels: Tensor, radius: int) -> None:
    k, before = kernels.shape[1], kernels.clone()
    made = answer(kernels, radius)
    expect_filled(made)
    if (
        isinstance(made, Tensor)
        and tuple(made.shape) == (len(kernels), 2 * radius + 1, 2 * radius + 1) != kernels.shape
    ):
        raise Hint("crop_kernels gives smaller kernels; they should keep their size, with zeros outside the radius.")
    made = expect_tensor(made, tuple(kernels.shape), f"crop_kernels of {k}×{k} kernels")
    expect_untouched(kernels, before, "the kernels")
    ring, steps = _rings(k), torch.arange(k) - k // 2
    city, round_ = steps[:, None].abs() + steps.abs(), (steps[:, None] ** 2 + steps**2).double().sqrt()
    known: Known = [
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
    expect(made, kernels * (ring <= radius), f"crop_kernels with radius {radius}", known, "A tap stays where neither "
           "its row nor its column is more than the radius from the middle.", tolerance=1e-6)  # fmt: skip


def _check_removed(answer: Callable[..., Tensor], kernels: Tensor, scores: Tensor) -> None:
    left = kernels * (scores > 0.4)
    before = kernels.clone(), left.clone()
    made = answer(kernels, left)
    expect_filled(made)
    if isinstance(made, Tensor) and made.numel() == 1 and len(kernels) > 1:
        raise Hint("energy_removed gives one number; every kernel has a share of its own.")
    made = expect_tensor(made, (len(kernels),), "what energy_removed gives")
    expect_untouched(kernels, before[0], "the kernels")
    expect_untouched(left, before[1], "the changed kernels")
    whole, rest = kernels.double().square().sum(dim=(1, 2)), left.double().square().sum(dim=(1, 2))
    by_size = 1 - left.abs().sum(dim=(1, 2)) / kernels.abs().sum(dim=(1, 2))
    taps = kernels[0].numel()
    known: Known = [
        (rest / whole, "energy_removed tells what is LEFT; asked for is what has gone."),
        (whole - rest, "energy_removed gives energies; as shares of the kernel's whole they lie between 0 and 1."),
        (100 * (whole - rest) / whole, "energy_removed gives per cent; a share lies between 0 and 1."),
        (by_size, "energy_removed adds sizes; energy is the sum of SQUARES."),
        ((left == 0).sum(dim=(1, 2)) / taps, "energy_removed counts taps; what counts is their energy."),
        ((whole - rest) / whole.sum(), "energy_removed divides by the energy of all kernels together; each has its "
         "own."),
        ((whole - rest) / rest, "energy_removed divides by what is left; the share is of the whole."),
        (1 - (rest / whole).sqrt(), "energy_removed takes a root; energy is the sum of squares itself."),
        (((kernels - left).double().square().sum(dim=(1, 2)) / whole).sqrt(), "energy_removed takes a root; energy is "
         "the sum of squares itself."),
        (1 - left.sum(dim=(1, 2)) / kernels.sum(dim=(1, 2)), "energy_removed adds the taps with their signs; energy is "
         "the sum of their squares."),
    ]  # fmt: skip
    expect(made, (whole - rest) / whole, "energy_removed", known, "The sum of squares that has gone, by the sum of "
           "squares that there was, kernel by kernel.", tolerance=2e-5)  # fmt: skip


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


def _check_control(answer: Callable[..., Tensor], kernels: Tensor, radius: int, scores: Tensor) -> None:
    k, before = kernels.shape[1], (kernels.clone(), scores.clone())
    made = answer(kernels, radius, scores)
    expect_filled(made)
    made = expect_tensor(made, tuple(kernels.shape), f"control_kernels of {k}×{k} kernels")
    expect_untouched(kernels, before[0], "the kernels")
    expect_untouched(scores, before[1], "the scores")

    def slip(**how: Any) -> Tensor:
        return control_of(kernels, radius, scores, **how)

    energy = kernels.square()
    stopped = "control_kernels stops one tap too early: it goes on until AT LEAST as much energy is gone."
    known: Known = [
        (slip(spare=False), "control_kernels takes the middle tap as well; it stays in the crop, so it stays here."),
        (slip(least=True), "control_kernels begins with the lowest score; the highest goes first."),
        (slip(least=True, spare=False), "control_kernels begins with the lowest score; the highest goes first."),
        (slip(early=True), stopped),
        (slip(early=True, spare=False), stopped),
        (slip(count=True), "control_kernels takes away as many TAPS as the crop does; it should be as much ENERGY."),
        (slip(count=True, spare=False), "control_kernels takes away as many TAPS as the crop does, and the middle may "
         "be one of them; it should be as much ENERGY, without the middle."),
        (slip(power=1), "control_kernels adds sizes; energy is the sum of squares."),
        (slip(one_order=True), "control_kernels takes every kernel's taps in the first one's order; each has scores of "
         "its own."),
        (slip(pooled=True), "control_kernels takes away the same energy from every kernel; each one's own crop says "
         "how much."),
        (kernels * (_rings(k) <= radius), "control_kernels gives the crop itself; the control takes as much away "
         "ELSEWHERE, by the scores."),
        (kernels - slip(), "control_kernels gives what is taken away; asked for is what is left."),
        (kernels, "control_kernels has taken nothing away."),
        (control_of(kernels, radius, energy), "control_kernels goes by the size of the taps; the scores say the "
         "order."),
    ]  # fmt: skip
    otherwise = ("For each kernel: one tap after the other, the highest score first, never the middle one, until at "
                 "least the crop's energy is gone.")  # fmt: skip
    if radius >= k // 2:
        otherwise = "With this radius the crop takes nothing away, so the control takes nothing away."
    expect(made, slip(), f"control_kernels with radius {radius}", known, otherwise, tolerance=1e-6)


def _check_effect(answer: Callable[..., float], images: int, classes: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(images, classes, generator=draw)
    changed = logits + 1.5 * torch.randn(images, classes, generator=draw)
    before = logits.clone(), changed.clone()
    made = answer(logits, changed)
    expect_filled(made)
    if isinstance(made, Tensor) and made.numel() > 1 and tuple(made.shape) == (images,):
        raise Hint("effect gives a number for each image; their mean is asked for.")
    made = expect_number(made, "the effect")
    expect_untouched(logits, before[0], "the logits")
    expect_untouched(changed, before[1], "the changed logits")
    p, q = logits.double().softmax(1), changed.double().softmax(1)
    apart = (p - q).abs().sum(1)
    over_images = (logits.double().softmax(0) - changed.double().softmax(0)).abs().sum(1)
    right, raw = apart.mean().item() / 2, (logits - changed).double().abs()
    known: Known = [
        (2 * right, "effect lacks the half: every probability that one class loses another one gains, and it should be "
         "counted once."),
        (apart.sum() / 2, "effect sums over the images; the mean is asked for."),
        (apart.sum(), "effect sums over the images, and the half is missing."),
        (apart.mean() / classes, "effect takes the mean over the classes; over them it is a sum, and its half."),
        (apart.mean() / classes / 2, "effect takes the mean over the classes; over them it is a sum."),
        (raw.sum(1).mean() / 2, "effect compares the logits; make them probabilities first."),
        (raw.sum(1).mean(), "effect compares the logits; make them probabilities first."),
        (raw.mean(), "effect compares the logits; make them probabilities first."),
        (over_images.mean() / 2, "effect's softmax runs over the images; the probabilities of ONE image sum to 1."),
        (apart.amax() / 2, "effect takes the worst image; the mean is asked for."),
        ((p - q).sum(1).mean() / 2, "effect adds differences with their signs, which cancel: what one class loses, "
         "another gains."),
        ((p.argmax(1) != q.argmax(1)).double().mean(), "effect counts the images whose answer changes; asked for is "
         "how far the probabilities move."),
        (((p - q) ** 2).sum(1).mean(), "effect takes squares; absolute values are asked for."),
        (((p - q) ** 2).sum(1).mean() / 2, "effect takes squares; absolute values are asked for."),
        (((p - q) ** 2).sum(1).sqrt().mean(), "effect takes the root of squares; absolute values are asked for."),
        ((p - q).abs().amax(1).mean(), "effect looks at the class that moves most; the sum over all of them counts."),
    ]  # fmt: skip
    # a known 0, as where signs cancel, is rounding and not a number to compare with
    if abs(made) < 1e-6:
        raise Hint("effect is 0 for answers that differ: do differences of opposite sign cancel in it?")
    expect(made, right, "effect", known, "Probabilities, the sizes of their differences summed over the classes, half "
           "of it, the mean over the images.", tolerance=2e-5)  # fmt: skip


conclusions = written("3.5", "What it shows, and what it cannot", 15, points=4)
