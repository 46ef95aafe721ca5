"""Assignment 3's own promises: the rubric is the one students read, rounding decides nothing, other right answers."""

import re

import nbformat
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f.fast.depthwise import toeplitz
from c2f.maps.receptive_field import rings
from c2f_course.grading.assignment import load_assignment
from c2f_course.tasks import assignment_3 as checks

ASSIGNMENT = load_assignment("3_reading_the_maps")


def test_the_rubric_that_students_read_is_the_one_that_graders_use() -> None:
    by_hand = {question.number: question for question in ASSIGNMENT.questions if question.by_a_person}
    assert by_hand.keys() == checks.RUBRIC.keys()
    cells = nbformat.read(ASSIGNMENT.student_notebook, as_version=4).cells
    for number, question in by_hand.items():
        (text,) = [cell.source for cell in cells if cell.source.startswith(question.heading)]
        assert re.findall(r"^\* (.*)$", text, re.MULTILINE) == checks.RUBRIC[number]
        points = [int(re.search(r"\((\d) points?\)$", criterion)[1]) for criterion in checks.RUBRIC[number]]
        assert sum(points) == question.points


def asked(of: str) -> list[tuple]:
    """The cases that a check is asked of, publicly and in the hidden tests."""
    found: list[tuple] = []
    question = getattr(checks, of)
    defaults = question.check.__defaults__
    found.append(defaults)

    def note(*args, **kwargs) -> str:
        rest = args[len(question.answers) :]
        found.append((*rest, *defaults[len(rest) :]))
        return ""

    kept = question.check
    object.__setattr__(question, "check", note)
    try:
        for test in ASSIGNMENT.tests_of(question):
            test.run(*question.answers)
    finally:
        object.__setattr__(question, "check", kept)
    return found


def test_rounding_decides_no_area() -> None:
    tried = [area for _, areas in asked("effective_field") for area in areas]
    assert len(tried) > 6
    for values, share in tried:
        if isinstance(values, int):
            field = 3 * torch.rand(7, 9, generator=torch.Generator().manual_seed(values)) ** 4
            held = field.double().flatten().sort(descending=True).values.cumsum(0)
            assert ((held / held[-1] - share).abs() > 1e-4).all(), (values, share)
        else:
            assert sum(values) in (4, 8, 16, 64), "shares of these are exact in binary"


def test_rounding_decides_no_control() -> None:
    tried = [case for cases, _, parts in asked("experiment") if "control" in parts for case in cases]
    assert len(tried) > 5
    for channels, k, radius, seed in tried:
        draw = torch.Generator().manual_seed(seed)
        kernels = torch.randn(channels, k, k, generator=draw)
        kernels[:, k // 2, k // 2] = 1.5 + torch.rand(channels, generator=draw)
        scores = torch.rand(channels, k, k, generator=draw)
        energy = kernels.double().square()
        target = (energy * (rings(k) > radius)).sum(dim=(1, 2))
        scores[:, k // 2, k // 2] = -1
        gone = energy.flatten(1).gather(1, scores.flatten(1).argsort(1, descending=True))[:, :-1].cumsum(1)
        assert ((gone - target[:, None]).abs() > 1e-4 * energy.sum(dim=(1, 2))[:, None]).all() or radius >= k // 2
        assert all(len(row.unique()) == k * k for row in scores.flatten(1))


# ---- Right answers in other words


def terms_by_loops(u: Tensor, kernel: Tensor, position: tuple[int, int]) -> Tensor:
    k, made = kernel.shape[1], torch.zeros(*u.shape[:2], kernel.shape[1], kernel.shape[1])
    for i in range(k):
        for j in range(k):
            row, column = position[0] + i - k // 2, position[1] + j - k // 2
            if 0 <= row < u.shape[2] and 0 <= column < u.shape[3]:
                made[:, :, i, j] = kernel[:, i, j] * u[:, :, row, column]
    return made


def terms_by_unfold(u: Tensor, kernel: Tensor, position: tuple[int, int]) -> Tensor:
    (n, c, _, width), k = u.shape, kernel.shape[1]
    windows = F.unfold(u.double(), k, padding=k // 2).view(n, c, k, k, -1)
    return kernel * windows[..., position[0] * width + position[1]]


def terms_by_row(u: Tensor, kernel: Tensor, position: tuple[int, int]) -> Tensor:
    half = kernel.shape[1] // 2
    padded = F.pad(u * row_by_matrix(kernel, position, tuple(u.shape[2:])), [half] * 4)
    return padded[:, :, position[0] : position[0] + 2 * half + 1, position[1] : position[1] + 2 * half + 1]


def sums_by_convolution(u: Tensor, kernel: Tensor, bias: Tensor, position: tuple[int, int]) -> Tensor:
    made = F.conv2d(u, kernel[:, None], bias, padding=kernel.shape[1] // 2, groups=len(kernel))
    return made[:, :, position[0], position[1]]


def sums_of_terms(u: Tensor, kernel: Tensor, bias: Tensor, position: tuple[int, int]) -> Tensor:
    return bias + terms_by_loops(u, kernel, position).flatten(2).sum(-1)


def sums_by_einsum(u: Tensor, kernel: Tensor, bias: Tensor, position: tuple[int, int]) -> Tensor:
    row = row_by_matrix(kernel, position, tuple(u.shape[2:]))
    return torch.einsum("nchw,chw->nc", u, row) + bias[None]


@pytest.mark.parametrize("terms", [terms_by_loops, terms_by_unfold, terms_by_row])
@pytest.mark.parametrize("sums", [sums_by_convolution, sums_of_terms, sums_by_einsum])
def test_other_right_window_maps(terms, sums) -> None:
    everything_passes("window_maps", terms, sums)


def row_by_matrix(kernel: Tensor, position: tuple[int, int], size: tuple[int, int]) -> Tensor:
    at = size[1] * position[0] + position[1]
    return toeplitz(kernel[:, None], *size)[:, at].view(len(kernel), *size)


def row_by_loops(kernel: Tensor, position: tuple[int, int], size: tuple[int, int]) -> Tensor:
    made, half = torch.zeros(len(kernel), *size), kernel.shape[1] // 2
    for row in range(size[0]):
        for column in range(size[1]):
            i, j = row - position[0] + half, column - position[1] + half
            if 0 <= i < kernel.shape[1] and 0 <= j < kernel.shape[1]:
                made[:, row, column] = kernel[:, i, j]
    return made


def row_by_gradient(kernel: Tensor, position: tuple[int, int], size: tuple[int, int]) -> Tensor:
    u = torch.zeros(1, len(kernel), *size, requires_grad=True)
    a = F.conv2d(u, kernel[:, None], padding=kernel.shape[1] // 2, groups=len(kernel))
    return torch.autograd.grad(a[0, :, position[0], position[1]].sum(), u)[0][0]


def column_by_impulse(kernel: Tensor, position: tuple[int, int], size: tuple[int, int]) -> Tensor:
    u = torch.zeros(len(kernel), *size)
    u[:, position[0], position[1]] = 1
    return F.conv2d(u, kernel[:, None], padding=kernel.shape[1] // 2, groups=len(kernel))


def column_by_loops(kernel: Tensor, position: tuple[int, int], size: tuple[int, int]) -> Tensor:
    made, half = torch.zeros(len(kernel), *size, dtype=torch.float64), kernel.shape[1] // 2
    for i in range(kernel.shape[1]):
        for j in range(kernel.shape[1]):
            row, column = position[0] + half - i, position[1] + half - j
            if 0 <= row < size[0] and 0 <= column < size[1]:
                made[:, row, column] = kernel[:, i, j]
    return made


def column_by_rows(kernel: Tensor, position: tuple[int, int], size: tuple[int, int]) -> Tensor:
    every = [[row_by_loops(kernel, (row, column), size) for column in range(size[1])] for row in range(size[0])]
    return torch.stack([torch.stack([row[:, position[0], position[1]] for row in line], -1) for line in every], -2)


@pytest.mark.parametrize("row", [row_by_matrix, row_by_loops, row_by_gradient])
@pytest.mark.parametrize("column", [column_by_impulse, column_by_loops, column_by_rows])
def test_other_right_rows_and_columns(row, column) -> None:
    everything_passes("implied_attention", row, column)


def field_by_images(model: nn.Module, images: Tensor) -> Tensor:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    total = torch.zeros(images.shape[2:], dtype=torch.float64)
    for image in images:
        x = image[None].clone().requires_grad_(True)
        f = model(x)
        total += torch.autograd.grad(f[0, :, f.shape[-2] // 2, f.shape[-1] // 2].sum(), x)[0].abs().double().sum((0, 1))
    for module, mode in modes.items():
        module.training = mode
    return total / (3 * len(images))


def field_by_backward(model: nn.Module, images: Tensor) -> Tensor:
    mode = model.training
    model.eval()
    x = images.clone().requires_grad_()
    f = model(x)
    f[:, :, f.shape[2] // 2, f.shape[3] // 2].sum().backward(inputs=[x])
    model.train(mode)
    return x.grad.abs().mean(0).mean(0)


def field_by_a_copy(model: nn.Module, images: Tensor) -> Tensor:
    from copy import deepcopy

    twin = deepcopy(model).eval().double()
    pixels = images.double().requires_grad_()
    feature = twin(pixels)
    middle = [size // 2 for size in feature.shape[2:]]
    feature.sum(1)[:, middle[0], middle[1]].sum().backward()
    return pixels.grad.abs().mean(dim=(0, 1)).float()


def field_by_func(model: nn.Module, images: Tensor) -> Tensor:
    was = model.training
    model.train(False)

    def middle(x: Tensor) -> Tensor:
        f = model(x[None])[0]
        return f[:, f.shape[1] // 2, f.shape[2] // 2].sum()

    gradients = torch.stack([torch.func.grad(middle)(image) for image in images])
    model.train(was)
    return gradients.abs().mean((0, 1))


def area_by_a_loop(field: Tensor, share: float) -> int:
    held, wanted = 0.0, share * field.sum().item()
    for count, value in enumerate(sorted(field.flatten().tolist(), reverse=True), 1):
        held += value
        if held >= wanted:
            return count
    return field.numel()


def area_by_shares(field: Tensor, share: float) -> Tensor:
    shares = (field / field.sum()).flatten().sort(descending=True)[0].cumsum(0)
    return (shares >= share).nonzero()[0] + 1


def area_by_search(field: Tensor, share: float) -> int:
    held = torch.sort(field.reshape(-1), descending=True).values.cumsum(0)
    return torch.searchsorted(held, share * held[-1]).item() + 1


@pytest.mark.parametrize("field", [field_by_images, field_by_backward, field_by_a_copy, field_by_func])
@pytest.mark.parametrize("area", [area_by_a_loop, area_by_shares, area_by_search])
def test_other_right_fields(field, area) -> None:
    everything_passes("effective_field", field, area)


def crop_by_slices(kernels: Tensor, radius: int) -> Tensor:
    made, middle = torch.zeros_like(kernels), kernels.shape[-1] // 2
    inside = slice(max(0, middle - radius), middle + radius + 1)
    made[:, inside, inside] = kernels[:, inside, inside]
    return made


def crop_by_loops(kernels: Tensor, radius: int) -> Tensor:
    made, middle = kernels.clone(), kernels.shape[-1] // 2
    for i in range(kernels.shape[1]):
        for j in range(kernels.shape[2]):
            if max(abs(i - middle), abs(j - middle)) > radius:
                made[:, i, j] = 0
    return made


def removed_by_difference(kernels: Tensor, changed: Tensor) -> Tensor:
    return ((kernels - changed) ** 2).flatten(1).sum(1) / (kernels**2).flatten(1).sum(1)


def removed_by_norms(kernels: Tensor, changed: Tensor) -> Tensor:
    return 1 - (changed.double().flatten(1).norm(dim=1) / kernels.double().flatten(1).norm(dim=1)) ** 2


def control_by_cumsum(kernels: Tensor, radius: int, scores: Tensor) -> Tensor:
    flat, scores = kernels.flatten(1), scores.flatten(1).clone()
    scores[:, flat.shape[1] // 2] = -1
    order = scores.argsort(1, descending=True)
    energy = flat.square().gather(1, order)
    wanted = flat.square().sum(1) - crop_by_slices(kernels, radius).square().sum(dim=(1, 2))
    before = torch.cat([torch.zeros(len(flat), 1), energy.cumsum(1)[:, :-1]], dim=1)
    kept = torch.ones_like(flat).scatter(1, order, (before >= wanted[:, None]).float())
    return (flat * kept).view_as(kernels)


def control_by_while(kernels: Tensor, radius: int, scores: Tensor) -> Tensor:
    made, k = kernels.clone(), kernels.shape[1]
    for c, kernel in enumerate(made):
        wanted = removed_by_difference(kernels, crop_by_loops(kernels, radius))[c]
        left = scores[c].clone()
        left[k // 2, k // 2] = -torch.inf
        while removed_by_difference(kernels[c][None], kernel[None])[0] < wanted:
            at = divmod(int(left.argmax()), k)
            kernel[at], left[at] = 0, -torch.inf
    return made


def effect_by_overlap(logits: Tensor, changed: Tensor) -> Tensor:
    return 1 - torch.minimum(F.softmax(logits, -1), F.softmax(changed, -1)).sum(-1).mean()


def effect_by_loops(logits: Tensor, changed: Tensor) -> float:
    total = 0.0
    for a, b in zip(logits.double().exp(), changed.double().exp(), strict=True):
        total += 0.5 * float((a / a.sum() - b / b.sum()).abs().sum())
    return total / len(logits)


def effect_by_norm(logits: Tensor, changed: Tensor) -> Tensor:
    return torch.cdist(logits.softmax(1)[:, None], changed.softmax(1)[:, None], p=1).mean() / 2


@pytest.mark.parametrize("crop", [crop_by_slices, crop_by_loops])
@pytest.mark.parametrize("removed", [removed_by_difference, removed_by_norms])
@pytest.mark.parametrize("control", [control_by_cumsum, control_by_while])
@pytest.mark.parametrize("effect", [effect_by_overlap, effect_by_loops, effect_by_norm])
def test_other_right_experiments(crop, removed, control, effect) -> None:
    everything_passes("experiment", crop, removed, control, effect)


def everything_passes(name: str, *answers) -> None:
    question = getattr(checks, name)
    question.check(*answers)
    for test in ASSIGNMENT.tests_of(question):
        test.run(*answers)
