"""Checks of notebook 06: a whole map, reading one, energy by radius, a receptive field."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from c2f.maps.kernels import energy_by_radius, rings
from c2f.maps.modulation import modulation_at
from c2f.maps.receptive_field import effective_receptive_field
from c2f.models import Conv2Former, Conv2FormerConfig, ConvMod, create_model
from c2f.training.augment import normalize
from c2f.training.sources.photographs import load_photographs
from c2f_course.tasks.exercise import Hint, exercise, expect_close, expect_tensor

CHANNEL = 1


@cache
def _convmod_and_u() -> tuple[ConvMod, Tensor]:
    """A ConvMod with a 5 x 5 kernel and biases that count, and a U (1, 3, 8, 11) that is nowhere zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        convmod = ConvMod(3, 5)
        torch.nn.init.normal_(convmod.a[-1].weight)
        torch.nn.init.normal_(convmod.a[-1].bias, mean=1.0)
        return convmod, torch.randn(1, 3, 8, 11) + 0.3


def _same(value: Tensor, other: Tensor) -> bool:
    return value.shape == other.shape and torch.allclose(value.double(), other.double(), rtol=1e-4, atol=1e-5)


@exercise("06.1", "A whole map, bias included", "medium", 8)
def whole_map(modulate: Callable[[Tensor, Tensor, float], Tensor]) -> str:
    """Mistakes: no bias, a bias a tap, the mean, no padding, a turned kernel, off by one, transposed, the edge."""
    convmod, u = _convmod_and_u()
    conv = convmod.a[-1]
    kernel, bias = conv.weight.detach()[CHANNEL, 0], conv.bias[CHANNEL].item()
    with torch.no_grad():
        right = conv(u)[0, CHANNEL]
        turned = torch.nn.functional.conv2d(u[:, CHANNEL, None], kernel.flip(0, 1)[None, None], padding=2)[0, 0]
        wide = torch.nn.functional.conv2d(u[:, CHANNEL, None], kernel[None, None], padding=5)[0, 0] + bias
    a = modulate(u[0, CHANNEL].clone(), kernel.clone(), bias)
    if isinstance(a, Tensor) and a.ndim > 2 and a.numel() == right.numel():
        a = a.reshape(a.shape[-2:])
    if isinstance(a, Tensor) and tuple(a.shape) == (4, 7):
        raise Hint(
            "your map has lost two rows and columns on each side: A exists at the edge, too, with zeros outside."
        )
    if isinstance(a, Tensor) and tuple(a.shape) == (11, 8):
        raise Hint("your map has 11 rows and 8 columns, U has 8 and 11: rows come first.")
    a = expect_tensor(a, (8, 11), "A")
    terms = kernel.numel()
    mistakes = (
        (right - bias, "the bias is missing: 25 terms, and then one number more for the whole channel."),
        (right + (terms - 1) * bias, "the bias is in it 25 times, once a tap. It is added once, after the sum."),
        ((right - bias) / terms + bias, "you took the mean of the terms. A is their sum."),
        (right / terms, "you took the mean of the terms. A is their sum."),
        (turned + bias, "your kernel is turned around. A convolution in deep learning lays it down as it is."),
    )
    for wrong, hint in mistakes:
        if _same(a, wrong):
            raise Hint(hint)
    if _same(a, wide[:8, :11]):
        raise Hint(
            "your windows begin as for an 11×11 kernel. This one is 5×5: the rim of zeros is half a kernel wide."
        )
    if any(_same(a, wide[r : r + 8, c : c + 11]) for r in (2, 3, 4) for c in (2, 3, 4) if (r, c) != (3, 3)):
        raise Hint(
            "your windows are off by one. The kernel's middle, δ = 0, lies on the position: where do they begin?"
        )
    if _same(a[2:-2, 2:-2], right[2:-2, 2:-2]) and not _same(a, right):
        raise Hint("the middle is right and the edge is not: what hangs over the edge counts as 0.")
    expect_close(a, right, "A", hint="Compare one position with the sum of its window map, plus the bias.")
    return "each position the sum of its terms, and one bias for the whole channel."


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
    """Mistakes: the sign of the product or of V read in place of A's, a small A called by its sign, other words."""
    said = dict(zip(PLACES, (p, q, r), strict=True))
    for name, word in said.items():
        if word not in WORDS:
            raise Hint(f"{name} is {word!r}; choose one of {', '.join(map(repr, WORDS))}.")
    wrong = {name: word for name, word in said.items() if word != _readings()[name][0]}
    for name, word in wrong.items():
        place = f"{name} (row {PLACES[name][0]}, column {PLACES[name][1]})"
        if _readings()[name][0] == "silences":
            raise Hint(f"at {place} A has a sign, but look at its size: what is left of V after that product?")
        if word == "silences":
            raise Hint(f"at {place} A is far from zero: whatever V is there, it is heard. Read the scale below A.")
        if word == _readings()[name][1]:
            raise Hint(
                f"at {place} you named the sign of A ⊙ V. That is V's sign and A's together; what A does is A's alone."
            )
        raise Hint(f"at {place} look at the map of A, not of V: which sign has it there?")
    return "what A does is A's own sign and size; whether the product is above zero is V's matter as well."


@exercise("06.3", "Energy by radius", "medium", 8)
def energy_of_rings(energy: Callable[[Tensor], Tensor]) -> str:
    """Mistakes: not shares, sizes not squares, mean a tap, everything inside, round rings, from outside, one short."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        kernel = torch.randn(7, 7) * torch.tensor([1.0, 2, 3, 4, 3, 2, 1])
    right = energy_by_radius(kernel[None])[0]
    ring = rings(7)
    shares = energy(kernel.clone())
    if isinstance(shares, Tensor) and tuple(shares.shape) == (3,):
        raise Hint("three rings of a 7×7 kernel: one is missing. Count from the centre, ring 0, to the edge, ring 3.")
    if isinstance(shares, Tensor) and shares.ndim == 1 and len(shares) > 4:
        raise Hint(
            f"you have {len(shares)} rings, the kernel 4: a tap's ring is how far it is by row *or* by column, "
            f"whichever is more, not the two together."
        )
    shares = expect_tensor(shares, (4,), "the energy of a 7×7 kernel by ring")
    counts = torch.bincount(ring.flatten())
    squares, sizes = kernel**2, kernel.abs()
    by_size = torch.stack([sizes[ring == r].sum() for r in range(4)])
    per_tap = right / counts
    steps = torch.arange(7) - 3
    circle = (steps[:, None] ** 2 + steps[None, :] ** 2).double().sqrt().round().clamp(max=3)
    round_rings = torch.stack([squares[circle == r].sum() for r in range(4)])
    mistakes = (
        (right * squares.sum(), "you give the energies themselves. As shares of the whole they sum to 1."),
        (
            by_size / by_size.sum(),
            "you added sizes. Energy is the sum of squares: a tap twice as large counts four times.",
        ),
        (by_size, "you added sizes. Energy is the sum of squares, as a share of the whole."),
        (per_tap, "you took a mean over each ring's taps. The energy of a ring is their sum, however many they are."),
        (per_tap * squares.sum(), "you took a mean over each ring's taps. The energy of a ring is their sum."),
        (per_tap / per_tap.sum(), "you took a mean over each ring's taps. The energy of a ring is their sum."),
        (right.cumsum(0), "you give all that is inside each radius. A ring holds only what is exactly so far out."),
        (right.flip(0), "your list begins at the edge. Ring 0 is the centre."),
        (round_rings / round_rings.sum(), "your rings are round. Ours are squares: the larger of the two distances."),
    )
    for wrong, hint in mistakes:
        if _same(shares, wrong):
            raise Hint(hint)
    if abs(shares.sum().item() - 1) > 1e-3:
        raise Hint(f"your shares sum to {shares.sum().item():.3g}. Shares of the kernel's whole energy sum to 1.")
    expect_close(
        shares, right, "the energy by ring", hint="Ring 0 is one tap, ring r has 8 r; which taps are in ring 1?"
    )
    tap = torch.zeros(11, 11)
    tap[5, 5] = 2.0
    expect_close(energy(tap), torch.tensor([1.0, 0, 0, 0, 0, 0]), "the energy of an 11×11 kernel with one tap")
    return "squares, summed ring by ring, as shares of the whole."


@cache
def _small_model() -> tuple[Conv2Former, Tensor]:
    config = Conv2FormerConfig((4, 6), (1, 1), 3, stem="patch", init="orthogonal")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Conv2Former(config).eval(), torch.randn(4, 3, 24, 40)


@exercise("06.4", "An effective receptive field by autograd", "hard", 15)
def receptive_field_by_autograd(field: Callable[[Conv2Former, Tensor, int], Tensor]) -> str:
    """Mistakes: all positions, another place or stage, signs cancelled, squares, not shares, axes kept, x changed."""
    model, x = _small_model()
    given = x.clone()
    mine = field(model, given, 0)
    if given.requires_grad or not torch.equal(given.detach(), x):
        raise Hint(
            "your function changes the images that it was given. Work on a copy: x.clone() before requires_grad_()."
        )
    if isinstance(mine, Tensor) and mine.ndim > 2:
        raise Hint(
            f"your result has shape {tuple(mine.shape)}: average over images and colours, so that (24, 40) is left."
        )
    mine = expect_tensor(mine, (24, 40), "the field")
    right = effective_receptive_field(model, x, 0).weights
    asked = x.clone().requires_grad_()
    feature = next(iter(model.features(asked).values()))
    (everywhere,) = torch.autograd.grad(feature.sum(), asked, retain_graph=True)
    (middle,) = torch.autograd.grad(feature[:, :, 6, 10].sum(), asked)
    if not torch.isfinite(mine).all() or mine.sum() == 0:
        raise Hint(
            "your field is zero or not finite everywhere: does the feature depend on the tensor you differentiate by?"
        )
    share = mine / mine.sum()
    sizes = everywhere.abs().mean(dim=(0, 1))
    squares = (middle**2).mean(dim=(0, 1))
    cancelled = middle.mean(dim=(0, 1))
    places = {
        (r, c): effective_receptive_field(model, x, 0, (r, c)).weights for r, c in ((5, 9), (0, 0), (5, 10), (6, 9))
    }
    mistakes = [
        (sizes / sizes.sum(), "you asked for all positions together. Take the feature at the middle position only."),
        (squares / squares.sum(), "you averaged squares. It is the mean of the absolute values."),
        (effective_receptive_field(model, x, 1).weights, "that is the other stage's field. Which output is stage 0's?"),
        (places[0, 0], "that is the corner's field. The middle of the map is at (H' // 2, W' // 2)."),
        *((places[p], "nearly: take (H' // 2, W' // 2) as the middle.") for p in ((5, 9), (5, 10), (6, 9))),
    ]
    for wrong, hint in mistakes:
        if _same(share * 1e3, wrong * 1e3):
            raise Hint(hint)
    if any(
        _same(mine / mine.abs().sum() * 1e3, other / other.abs().sum() * 1e3) for other in (cancelled, cancelled.abs())
    ):
        raise Hint("you averaged first and took the size afterwards, so signs cancel. Size first, then the mean.")
    if _same(share * 1e3, right * 1e3) and abs(mine.sum().item() - 1) > 1e-3:
        raise Hint(
            f"right up to a factor: yours sums to {mine.sum().item():.3g}. Divide by the sum, to compare models."
        )
    expect_close(
        mine, right, "the field of stage 0", tolerance=1e-3, hint="Which feature is it the gradient of, and by what?"
    )
    expect_close(
        field(model, x.clone(), 1),
        effective_receptive_field(model, x, 1).weights,
        "the field of stage 1",
        tolerance=1e-3,
        hint="Its middle is another position: the map is smaller.",
    )
    return "one gradient of the middle's feature, its size averaged over images and colours."
