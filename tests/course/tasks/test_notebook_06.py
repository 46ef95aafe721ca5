"""Notebook 06's checks: each mistake that students make gets the hint that helps with it."""

import pytest
import torch
import torch.nn.functional as F

from c2f.maps.kernels import rings
from c2f_course.tasks import notebook_06 as checks


def window(u, kernel, row, column, *, mode="constant"):
    half = len(kernel) // 2
    padded = F.pad(u[None, None], [half] * 4, mode=mode)[0, 0]
    return kernel * padded[row : row + len(kernel), column : column + len(kernel)]


def modulate(u, kernel, bias, *, mode="constant", reduce=torch.sum):
    rows, columns = u.shape
    terms = [[window(u, kernel, r, c, mode=mode) for c in range(columns)] for r in range(rows)]
    return torch.stack([torch.stack([reduce(term) for term in line]) for line in terms]) + bias


MAPS = {
    "no bias": (lambda u, w, b: modulate(u, w, 0), "the bias is missing"),
    "bias a tap": (lambda u, w, b: modulate(u, w, 25 * b), "25 times"),
    "mean": (lambda u, w, b: modulate(u, w, b, reduce=torch.mean), "you took the mean"),
    "mean of all": (lambda u, w, b: modulate(u, w, b) / 25, "you took the mean"),
    "turned": (lambda u, w, b: modulate(u, w.flip(0, 1), b), "turned around"),
    "off by one": (lambda u, w, b: modulate(F.pad(u, [1, 1, 1, 1]), w, b)[:-2, :-2], "off by one"),
    "off by one down": (lambda u, w, b: modulate(F.pad(u, [1, 1, 1, 1]), w, b)[2:, 1:-1], "off by one"),
    "a rim for 11": (lambda u, w, b: modulate(F.pad(u, [3, 3, 3, 3]), w, b)[:-6, :-6], "half a kernel wide"),
    "no padding": (lambda u, w, b: F.conv2d(u[None, None], w[None, None])[0, 0] + b, "lost two rows"),
    "transposed": (lambda u, w, b: modulate(u, w, b).t(), "rows come first"),
    "edge repeated": (lambda u, w, b: modulate(u, w, b, mode="replicate"), "what hangs over the edge counts as 0"),
    "absolute": (lambda u, w, b: modulate(u, w, b).abs(), "plus the bias"),
}

READINGS = {
    "the product's signs": (
        ("passes on", "turns around", "passes on"),
        "P (row 5, column 9) you named the sign of A ⊙ V",
    ),
    "V's signs": (("turns around", "turns around", "passes on"), "Q (row 0, column 4) you named the sign of A ⊙ V"),
    "R by its sign": (("turns around", "passes on", "turns around"), "look at its size"),
    "silence where it is loud": (("silences", "passes on", "silences"), "far from zero"),
    "another word": (("flips", "passes on", "silences"), "choose one of"),
}


def energy(kernel, *, power=2, reduce=torch.sum, rings_of=rings, share=True):
    ring = rings_of(len(kernel))
    values = torch.stack([reduce(kernel[ring == r].abs() ** power) for r in range(int(ring.max()) + 1)])
    return values / values.sum() if share else values


def round_rings(k):
    steps = torch.arange(k) - k // 2
    return (steps[:, None] ** 2 + steps[None, :] ** 2).double().sqrt().round().clamp(max=k // 2)


def city_rings(k):
    steps = (torch.arange(k) - k // 2).abs()
    return steps[:, None] + steps[None, :]


ENERGIES = {
    "not shares": (lambda w: energy(w, share=False), "energies themselves"),
    "sizes": (lambda w: energy(w, power=1), "you added sizes"),
    "sizes, not shares": (lambda w: energy(w, power=1, share=False), "you added sizes"),
    "mean": (lambda w: energy(w, reduce=torch.mean), "a mean over each ring"),
    "mean, not shares": (lambda w: energy(w, reduce=torch.mean, share=False), "a mean over each ring"),
    "cumulated": (lambda w: energy(w).cumsum(0), "all that is inside"),
    "from the edge": (lambda w: energy(w).flip(0), "begins at the edge"),
    "round": (lambda w: energy(w, rings_of=round_rings), "your rings are round"),
    "city blocks": (lambda w: energy(w, rings_of=city_rings), "by row *or* by column"),
    "one short": (lambda w: energy(w)[1:], "one is missing"),
    "percent": (lambda w: 100 * energy(w), "sum to 100"),
}


def field(
    model, x, stage, *, at=None, size=lambda g: g.abs().mean(dim=(0, 1)), share=True, copy=True, everywhere=False
):
    x = x.clone() if copy else x
    x.requires_grad_()
    feature = list(model.features(x).values())[stage]
    row, column = at or (feature.shape[2] // 2, feature.shape[3] // 2)
    asked = feature if everywhere else feature[:, :, row, column]
    weights = size(torch.autograd.grad(asked.sum(), x)[0])
    return weights / weights.sum() if share else weights


FIELDS = {
    "all positions": (lambda m, x, s: field(m, x, s, everywhere=True), "all positions together"),
    "signs cancel": (lambda m, x, s: field(m, x, s, size=lambda g: g.mean(dim=(0, 1)).abs()), "signs cancel"),
    "no size": (lambda m, x, s: field(m, x, s, size=lambda g: g.mean(dim=(0, 1)), share=False), "signs cancel"),
    "squares": (lambda m, x, s: field(m, x, s, size=lambda g: (g**2).mean(dim=(0, 1))), "averaged squares"),
    "not shares": (lambda m, x, s: field(m, x, s, share=False), "up to a factor"),
    "images kept": (lambda m, x, s: field(m, x, s, size=lambda g: g.abs().mean(dim=1)), "average over images"),
    "corner": (lambda m, x, s: field(m, x, s, at=(0, 0)), "the corner's field"),
    "off by one": (lambda m, x, s: field(m, x, s, at=(5, 9)), "nearly"),
    "the other stage": (lambda m, x, s: field(m, x, 1 - s), "the other stage"),
    "changes x": (lambda m, x, s: field(m, x, s, copy=False), "changes the images"),
    "always stage 0": (lambda m, x, s: field(m, x, 0), "Its middle is another position"),
    "zero": (lambda m, x, s: torch.zeros(24, 40), "zero or not finite"),
}

TABLES = {
    "whole_map": MAPS,
    "energy_of_rings": ENERGIES,
    "receptive_field_by_autograd": FIELDS,
}
CASES = [(check, name) for check, table in TABLES.items() for name in table]


@pytest.mark.parametrize(("check", "name"), CASES, ids=lambda value: value)
def test_each_mistake_gets_its_hint(check: str, name: str) -> None:
    answer, fragment = TABLES[check][name]
    verdict = getattr(checks, check)(answer)
    assert verdict.state == "hint", verdict
    assert fragment in verdict.message


@pytest.mark.parametrize("name", READINGS)
def test_each_misreading_gets_its_hint(name: str) -> None:
    answers, fragment = READINGS[name]
    verdict = checks.read_a_map(*answers)
    assert verdict.state == "hint" and fragment in verdict.message, verdict


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        ("whole_map", modulate),
        ("whole_map", lambda u, w, b: F.conv2d(u[None, None], w[None, None], padding=2) + b),
        ("energy_of_rings", energy),
        ("receptive_field_by_autograd", field),
    ],
)
def test_right_answers_pass(check: str, answer: object) -> None:
    verdict = getattr(checks, check)(answer)
    assert verdict.passed, verdict
    assert getattr(checks, check)(...).state == "blank"


def test_a_right_reading_passes() -> None:
    assert checks.read_a_map("turns around", "passes on", "silences").passed
    assert checks.read_a_map("turns around", ..., "silences").state == "blank"
