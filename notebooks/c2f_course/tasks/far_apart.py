"""A data set made to measure: two discs on a strip, and a label that only both of them together decide.

Each disc is orange or blue, by the toss of a coin of its own; the class is whether the two colours are the same. Either
disc alone says nothing about it, and neither does any sum of what the discs say one by one: for that the four pairs

    orange orange: same    orange blue: different    blue orange: different    blue blue: same

are an exclusive or. So a network that tells the classes apart needs one place in the network at which both discs are
seen, and how far such a place must see is the distance, which is given. Where the discs lie, how bright they are and
the noise over everything mean nothing.

A strip instead of a square image keeps the training of many small networks short. Shapes: N images of H x W pixels.
"""

import torch
from torch import Tensor

from c2f.training.sources.dataset import Dataset, Split, describe

HEIGHT, WIDTH = 8, 48  # pixels of a strip
CLASSES = ("different", "same")
GREY, NOISE = 110.0, 12.0  # of the ground, and the noise's standard deviation, of 255
COLOURS = ((230.0, 120.0, 20.0), (20.0, 110.0, 220.0))  # orange and blue: told apart by every kind of eye
DISC = torch.tensor([[0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 0]]).bool()
SIDE = len(DISC)  # pixels
LARGEST_DISTANCE = WIDTH - SIDE


def draw_strips(
    left: Tensor, right: Tensor, distance: int, seed: int = 0, *, start: int | None = None, row: int | None = None
) -> Tensor:
    """Strips with two discs of given colours, from centre to centre `distance` pixels apart.

    Places, brightness and noise are drawn from the seed before a colour is looked at: with the same seed and other
    colours come the same strips with nothing else changed.

    Args:
        left, right: (N,) integers, the colours: 0 is orange, 1 is blue.
        distance: pixels, `SIDE` (the discs touch) to `LARGEST_DISTANCE`.
        seed: of places, brightness and noise.
        start, row: the pixel column and row at which the left disc begins, for all; by default drawn.

    Returns: (N, 3, HEIGHT, WIDTH), uint8.

    Raises ValueError for another distance or place, and where colours are not 0 or 1, or not equally many.
    """
    last, bottom = WIDTH - distance - SIDE, HEIGHT - SIDE
    if not SIDE <= distance <= LARGEST_DISTANCE:
        raise ValueError(
            f"the distance is {distance}; use one from {SIDE}, where the discs touch, to {LARGEST_DISTANCE}."
        )
    if left.ndim != 1 or left.shape != right.shape:
        shapes = f"{tuple(left.shape)} and {tuple(right.shape)}"
        raise ValueError(f"the colours have shapes {shapes}; give (N,) for both, one a strip.")
    both = torch.cat([left, right])
    if both.dtype != torch.int64 or not ((both == 0) | (both == 1)).all():
        raise ValueError("a colour is 0 (orange) or 1 (blue), as an int64 tensor; there is another one.")
    for name, value, most in (("start", start, last), ("row", row, bottom)):
        if value is not None and not 0 <= value <= most:
            raise ValueError(f"{name} is {value}; the discs stay on the strip from 0 to {most}.")

    generator, count = torch.Generator().manual_seed(seed), len(left)
    starts = torch.randint(last + 1, (count,), generator=generator)
    rows = torch.randint(bottom + 1, (count,), generator=generator)
    brightness = 0.7 + 0.3 * torch.rand(2, count, generator=generator)
    noise = NOISE * torch.randn(count, 3, HEIGHT, WIDTH, generator=generator)
    starts = starts if start is None else torch.full_like(starts, start)
    rows = rows if row is None else torch.full_like(rows, row)

    images = torch.full((count, 3, HEIGHT, WIDTH), GREY)
    each, (down, along) = torch.arange(count)[:, None], DISC.nonzero(as_tuple=True)  # a disc's pixels, from its corner
    for colours, columns, bright in ((left, starts, brightness[0]), (right, starts + distance, brightness[1])):
        paint = torch.tensor(COLOURS)[colours] * bright[:, None]  # (N, 3)
        images[each, :, rows[:, None] + down, columns[:, None] + along] = paint[:, None]
    return (images + noise).round().clamp(0, 255).to(torch.uint8)


def load_far_apart(distance: int, train: int = 2048, test: int = 1000, seed: int = 0) -> Dataset:
    """Training strips and test strips, a pure function of its arguments.

    Args:
        distance: pixels from centre to centre, `SIDE` to `LARGEST_DISTANCE`.
        train, test: how many of each.
        seed: of everything drawn.

    Raises ValueError for another distance, and for none to learn from or to hold out.
    """
    if min(train, test) < 1:
        raise ValueError(f"train is {train} and test {test}; ask for at least one strip of each.")
    generator = torch.Generator().manual_seed(seed)
    splits = []
    for count in (train, test):
        left, right = torch.randint(2, (2, count), generator=generator)
        # A seed of its own: from one seed twice come the same numbers, and then the places betray the colours.
        places = int(torch.randint(2**62, (), generator=generator))
        splits.append(Split(draw_strips(left, right, distance, places), (left == right).long()))
    source = f"two discs {distance} pixels apart on a strip, each orange or blue; drawn from seed {seed}"
    return describe("far_apart", *splits, CLASSES, source)
