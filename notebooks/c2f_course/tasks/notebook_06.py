"""Checks of notebook 06: a whole map, reading one, energy by radius, a receptive field."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from c2f.maps.modulation import modulation_at
from c2f.maps.receptive_field import energy_by_radius, rings
from c2f.models import Conv2Former, Conv2FormerConfig, create_model
from c2f.training.augment import normalize
from c2f.training.sources.photographs import load_photographs
from c2f_course.tasks import fields
from c2f_course.tasks.exercise import Expected, Hint, exercise, hint_if, of_shape, sentences, task

SAY = sentences(__name__)


def map_inputs() -> Iterator[tuple[Tensor, Tensor, float]]:
    """A channel of U that is nowhere zero, a 5 x 5 kernel and a bias that counts."""
    draw = torch.Generator().manual_seed(6)
    yield torch.randn(8, 11, generator=draw) + 0.3, torch.randn(5, 5, generator=draw), 1.25


def _ask_map(answer: Callable, u: Tensor, *others: Any) -> Any:
    """What an answer gives, without axes of one channel and one image."""
    made = answer(u, *others)
    return made.reshape(made.shape[-2:]) if isinstance(made, Tensor) and made.numel() == u.numel() else made


@exercise("06.1", "A whole map, bias included", "medium", 8)
@task(map_inputs, SAY["whole_map"], ask=_ask_map)
def whole_map(u: Tensor, kernel: Tensor, bias: float) -> Expected:
    def convolved(kernel: Tensor = kernel, mode: str = "constant", rim: int = 2) -> Tensor:
        return F.conv2d(F.pad(u[None, None], [rim] * 4, mode=mode), kernel[None, None])[0, 0] + bias

    right, wide, terms = convolved(), convolved(rim=5), kernel.numel()
    rows, columns = u.shape
    near = [(r, c) for r in (2, 3, 4) for c in (2, 3, 4) if (r, c) != (3, 3)]
    mistakes = {
        "edge lost": of_shape(rows - 4, columns - 4),
        "rows and columns exchanged": of_shape(columns, rows),
        "no bias": right - bias,
        "bias for every tap": right + (terms - 1) * bias,
        "a mean": ((right - bias) / terms + bias, right / terms),
        "kernel turned": convolved(kernel.flip(0, 1)),
        "window of 11×11": wide[:rows, :columns],
        "one position off": tuple(wide[r : r + rows, c : c + columns] for r, c in near),
        "edge not zero": (convolved(mode="circular"), convolved(mode="replicate")),
    }
    return Expected("A", right, mistakes, tolerance=1e-4)


PLACES = {"P": (5, 9), "Q": (0, 4), "R": (12, 1)}
WORDS = ("passes on", "silences", "turns around")
SILENT = 0.1


@cache
def _readings() -> dict[str, tuple[str, str]]:
    """For each place what A does there, and what would be said of the product's sign in its place."""
    model = create_model("conv2former_mini_cifar", weights="cifar10")
    photographs = load_photographs(32)
    x = normalize(photographs.images)
    seen = modulation_at(model, x, stage=0, block=0, channel=15, image=photographs.names.index("cat"))
    return {name: (_word(seen.a[place].item()), _word(seen.fused[place].item())) for name, place in PLACES.items()}


def _word(value: float) -> str:
    return WORDS[1] if abs(value) < SILENT else WORDS[0] if value > 0 else WORDS[2]


@exercise("06.2", "Read a map", "easy", 6)
def read_a_map(p: str, q: str, r: str) -> str:
    say, said = SAY["read_a_map"], dict(zip(PLACES, (p, q, r), strict=True))
    for name, word in said.items():
        known = say["another word"].format(name=name, word=word, words=", ".join(map(repr, WORDS)))
        hint_if(word not in WORDS, known)
    for name, word in said.items():
        of_a, of_product = _readings()[name]
        if word != of_a:
            slips = {"A is small": of_a == "silences", "A is large": word == "silences", "product": word == of_product}
            slip = next((slip for slip, made in slips.items() if made), "otherwise")
            raise Hint(say["before"].format(name=name, place=PLACES[name]) + say[slip])
    return say["praise"]


def kernel_inputs() -> Iterator[list[Tensor]]:
    """A kernel of large and small taps, and one of a single tap."""
    kernel = torch.randn(7, 7, generator=torch.Generator().manual_seed(3))
    yield [kernel * torch.tensor([1.0, 2, 3, 4, 3, 2, 1])]
    yield [F.pad(torch.full((1, 1), 2.0), [5] * 4)]


@exercise("06.3", "Energy by radius", "medium", 8)
@task(kernel_inputs, SAY["energy_of_rings"])
def energy_of_rings(kernel: Tensor) -> Expected:
    k, ring, squares = len(kernel), rings(len(kernel)), kernel.square()
    right, count, steps = energy_by_radius(kernel[None])[0], k // 2 + 1, torch.arange(k) - k // 2

    def by(ring: Tensor, taps: Tensor) -> Tensor:
        return torch.stack([taps[ring == r].sum() for r in range(count)])

    def too_many(made: Any) -> bool:
        return isinstance(made, Tensor) and made.ndim == 1 and len(made) > count

    def otherwise(made: Tensor) -> str:
        return SAY["energy_of_rings"]["otherwise"].format(total=made.sum().item())

    per_tap, sizes = right / torch.bincount(ring.flatten()), by(ring, kernel.abs())
    circle = by((steps[:, None] ** 2 + steps**2).double().sqrt().round().clamp(max=count - 1), squares)
    mistakes = {
        "one ring missing": of_shape(count - 1),
        "energies": right * squares.sum(),
        "sizes": (sizes / sizes.sum(), sizes),
        "mean of a ring": (per_tap, per_tap * squares.sum(), per_tap / per_tap.sum()),
        "cumulative": right.cumsum(0),
        "from the edge": right.flip(0),
        "round rings": circle / circle.sum(),
    }
    facts = {"k": k, "count": count, "last": count - 1}
    return Expected("the energy by ring", right, mistakes, otherwise, 1e-4, {"too many rings": too_many}, facts=facts)


def field_inputs() -> Iterator[tuple[Conv2Former, Tensor, int]]:
    config = Conv2FormerConfig((4, 6), (1, 1), 3, stem="patch", init="orthogonal")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model, x = Conv2Former(config).eval(), torch.randn(4, 3, 24, 40)
    yield from ((model, x, 0), (model, x, 1))


def _ask_field(answer: Callable, model: Conv2Former, x: Tensor, stage: int) -> Tensor:
    made = answer(model, x, stage)
    hint_if(x.requires_grad, SAY["receptive_field_by_autograd"]["changes x"])
    return made


@exercise("06.4", "An effective receptive field by autograd", "hard", 15)
@task(field_inputs, SAY["receptive_field_by_autograd"], ask=_ask_field)
def receptive_field_by_autograd(model: Conv2Former, x: Tensor, stage: int) -> Expected:
    def field(of: int) -> Expected:
        return fields.effective_field(lambda x: list(model.features(x).values())[of].double(), x.float(), shares=True)

    expected = field(stage)
    mistakes = {**expected.mistakes, "other stage": field(1 - stage).right}
    says = {**expected.says, **SAY["receptive_field_by_autograd"]}
    return replace(expected, what=f"the field of stage {stage}", mistakes=mistakes, says=says, tolerance=1e-3)
