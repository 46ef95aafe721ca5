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
from c2f_course.tasks.exercise import Expected, Hint, exercise, hint_if, of_shape, task


def map_inputs() -> Iterator[tuple[Tensor, Tensor, float]]:
    """A channel of U that is nowhere zero, a 5 x 5 kernel and a bias that counts."""
    draw = torch.Generator().manual_seed(6)
    yield torch.randn(8, 11, generator=draw) + 0.3, torch.randn(5, 5, generator=draw), 1.25


def _ask_map(answer: Callable, u: Tensor, *others: Any) -> Any:
    """What an answer gives, without axes of one channel and one image."""
    made = answer(u, *others)
    return made.reshape(made.shape[-2:]) if isinstance(made, Tensor) and made.numel() == u.numel() else made


@exercise("06.1", "A whole map, bias included", "medium", 8)
@task(map_inputs, "each position the sum of its terms, and one bias for the whole channel.", ask=_ask_map)
def whole_map(u: Tensor, kernel: Tensor, bias: float) -> Expected:
    def convolved(kernel: Tensor = kernel, padding: int = 2) -> Tensor:
        return F.conv2d(u[None, None], kernel[None, None], padding=padding)[0, 0] + bias

    right, wide, terms = convolved(), convolved(padding=5), kernel.numel()
    rows, columns = u.shape
    around = F.pad(u[None, None], [2] * 4, mode="circular"), F.pad(u[None, None], [2] * 4, mode="replicate")
    mistakes = [
        (of_shape(rows - 4, columns - 4), "your map has lost two rows and columns on each side: A exists at the edge, "
         "too, with zeros outside."),
        (of_shape(columns, rows), "your map has 11 rows and 8 columns, U has 8 and 11: rows come first."),
        (right - bias, "the bias is missing: 25 terms, and then one number more for the whole channel."),
        (right + (terms - 1) * bias, "the bias is in it 25 times, once a tap. It is added once, after the sum."),
        (((right - bias) / terms + bias, right / terms), "you took the mean of the terms. A is their sum."),
        (convolved(kernel.flip(0, 1)), "your kernel is turned around. A convolution in deep learning does not turn "
         "it."),
        (wide[:rows, :columns], "your windows begin as for an 11×11 kernel. This one is 5×5: the rim of zeros is half "
         "a kernel wide."),
        *((wide[r : r + rows, c : c + columns], "your windows are off by one. The kernel's middle, δ = 0, lies on the "
            "position: where do they begin?") for r in (2, 3, 4) for c in (2, 3, 4) if (r, c) != (3, 3)),
        *((F.conv2d(x, kernel[None, None])[0, 0] + bias, "the middle is right and the edge is not: what hangs over the "
            "edge counts as 0.") for x in around),
    ]  # fmt: skip
    return Expected("A", right, mistakes, "Compare one position with the sum of its window map, plus the bias.", 1e-4)


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
    said = dict(zip(PLACES, (p, q, r), strict=True))
    for name, word in said.items():
        if word not in WORDS:
            raise Hint(f"{name} is {word!r}; choose one of {', '.join(map(repr, WORDS))}.")
    for name, word in said.items():
        place, (of_a, of_product) = f"{name} (row {PLACES[name][0]}, column {PLACES[name][1]})", _readings()[name]
        for wrong, hint in (
            (of_a == "silences", "A has a sign, but look at its size: what is left of V after that product?"),
            (word == "silences", "A is far from zero: whatever V is there, it is heard. Read the scale below A."),
            (word == of_product, "you named the sign of A ⊙ V. That is V's sign and A's together; what A does is A's "
             "alone."),
            (True, "look at the map of A, not of V: which sign has it there?"),
        ):  # fmt: skip
            hint_if(word != of_a and wrong, f"at {place} {hint}")
    return "what A does is A's own sign and size; whether the product is above zero is V's matter as well."


def kernel_inputs() -> Iterator[list[Tensor]]:
    """A kernel of large and small taps, and one of a single tap."""
    kernel = torch.randn(7, 7, generator=torch.Generator().manual_seed(3))
    yield [kernel * torch.tensor([1.0, 2, 3, 4, 3, 2, 1])]
    yield [F.pad(torch.full((1, 1), 2.0), [5] * 4)]


@exercise("06.3", "Energy by radius", "medium", 8)
@task(kernel_inputs, "squares, summed ring by ring, as shares of the whole.")
def energy_of_rings(kernel: Tensor) -> Expected:
    right, ring, count = energy_by_radius(kernel[None])[0], rings(len(kernel)), len(kernel) // 2 + 1

    def by(ring: Tensor, taps: Tensor) -> Tensor:
        return torch.stack([taps[ring == r].sum() for r in range(count)])

    steps = torch.arange(len(kernel)) - len(kernel) // 2
    squares, per_tap = kernel.square(), right / torch.bincount(ring.flatten())
    circle = by((steps[:, None] ** 2 + steps**2).double().sqrt().round().clamp(max=count - 1), squares)
    mistakes = [
        (of_shape(count - 1), f"{count - 1} rings of a {len(kernel)}×{len(kernel)} kernel: one is missing. Count from "
         f"the centre, ring 0, to the edge, ring {count - 1}."),
        (right * squares.sum(), "you give the energies themselves. As shares of the whole they sum to 1."),
        ((by(ring, kernel.abs()) / kernel.abs().sum(), by(ring, kernel.abs())), "you added sizes. Energy is the sum of "
         "squares, as a share of the whole: a tap twice as large counts four times."),
        ((per_tap, per_tap * squares.sum(), per_tap / per_tap.sum()), "you took a mean over each ring's taps. The "
         "energy of a ring is their sum, however many they are."),
        (right.cumsum(0), "you give all that is inside each radius. A ring holds only what is exactly so far out."),
        (right.flip(0), "your list begins at the edge. Ring 0 is the centre."),
        (circle / circle.sum(), "your rings are round. Ours are squares: the larger of the two distances."),
    ]  # fmt: skip

    def too_many(made: Any) -> bool:
        return isinstance(made, Tensor) and made.ndim == 1 and len(made) > count

    def otherwise(made: Tensor) -> str:
        return (
            f"Your shares sum to {made.sum().item():.3g}; shares of the kernel's whole energy sum to 1. Ring 0 is one "
            "tap, ring r has 8 r; which taps are in ring 1?"
        )

    return Expected("the energy by ring", right, mistakes, otherwise, 1e-4, [(too_many, f"you have {{made.shape[0]}} "
        f"rings, the kernel {count}: a tap's ring is how far it is by row *or* by column, whichever is more, not the "
        "two together.")])  # fmt: skip


def field_inputs() -> Iterator[tuple[Conv2Former, Tensor, int]]:
    config = Conv2FormerConfig((4, 6), (1, 1), 3, stem="patch", init="orthogonal")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model, x = Conv2Former(config).eval(), torch.randn(4, 3, 24, 40)
    yield from ((model, x, 0), (model, x, 1))


def _ask_field(answer: Callable, model: Conv2Former, x: Tensor, stage: int) -> Tensor:
    made = answer(model, x, stage)
    hint_if(x.requires_grad, "your function changes the images that it was given. Work on a copy: x.clone() before "
        "requires_grad_().")  # fmt: skip
    return made


@exercise("06.4", "An effective receptive field by autograd", "hard", 15)
@task(field_inputs, "one gradient of the middle's feature, its size averaged over images and colours.", ask=_ask_field)
def receptive_field_by_autograd(model: Conv2Former, x: Tensor, stage: int) -> Expected:
    def field(of: int, shares: bool = True) -> Expected:
        return fields.effective_field(lambda x: list(model.features(x).values())[of].double(), x.float(), shares)

    expected = field(stage)
    other = (field(1 - stage).right, f"that is the other stage's field. Which output is stage {stage}'s?")
    return replace(expected, what=f"the field of stage {stage}", mistakes=[*expected.mistakes, other], tolerance=1e-3)
