"""The data set of notebook 09: what it promises about labels, places and seeds is so."""

import pytest
import torch
from torch import Tensor

from c2f_course.tasks.far_apart import HEIGHT, LARGEST_DISTANCE, SIDE, WIDTH, draw_strips, load_far_apart


def two(left: int, right: int) -> tuple[Tensor, Tensor]:
    return torch.tensor([left]), torch.tensor([right])


def is_orange(strip: Tensor, column: int) -> bool:
    """Whether a strip (3, H, W) is more red than blue in the middle of a disc, somewhere in that column."""
    contrast = strip[0, :, column].int() - strip[2, :, column].int()
    return bool(contrast[contrast.abs().argmax()] > 0)


def test_it_is_a_pure_function_of_its_arguments() -> None:
    first, again, other = (load_far_apart(20, 64, 32, seed=seed) for seed in (3, 3, 4))
    assert first.provenance == again.provenance
    assert first.provenance["sha256"] != other.provenance["sha256"]
    assert (len(first.train), len(first.test)) == (64, 32)
    assert first.train.images.shape == (64, 3, HEIGHT, WIDTH)
    assert first.classes == ("different", "same")
    state = torch.get_rng_state()
    load_far_apart(20, 8, 8)
    assert torch.equal(state, torch.get_rng_state())


def test_splits_share_no_strip() -> None:
    data = load_far_apart(20, 64, 64)
    assert not (data.train.images[:, None] == data.test.images[None]).flatten(2).all(-1).any()


@pytest.mark.parametrize("distance", [SIDE, 20, LARGEST_DISTANCE])
@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize("right", [0, 1])
def test_the_discs_lie_where_they_should(distance: int, left: int, right: int) -> None:
    strip = draw_strips(*two(left, right), distance, start=0, row=2)[0]
    assert is_orange(strip, SIDE // 2) == (left == 0)
    assert is_orange(strip, SIDE // 2 + distance) == (right == 0)


def test_the_label_is_whether_the_colours_are_the_same() -> None:
    data = load_far_apart(LARGEST_DISTANCE, 200, 1)  # the distance that leaves the discs one place only
    for strip, label in zip(data.train.images, data.train.labels, strict=True):
        same = is_orange(strip, SIDE // 2) == is_orange(strip, SIDE // 2 + LARGEST_DISTANCE)
        assert same == bool(label)


def test_one_disc_alone_says_nothing() -> None:
    data = load_far_apart(LARGEST_DISTANCE, 4000, 1)
    orange = torch.tensor([is_orange(strip, SIDE // 2) for strip in data.train.images])
    for colour in (True, False):
        assert abs(data.train.labels[orange == colour].float().mean() - 0.5) < 0.04


@pytest.mark.parametrize("seed", [0, 1])
def test_the_place_says_nothing_either(seed: int) -> None:
    images, labels = (
        getattr(load_far_apart(SIDE + 15, 4000, 1, seed=seed).train, name) for name in ("images", "labels")
    )
    saturation = (images[:, 0].int() - images[:, 2].int()).abs().float()  # (N, H, W): discs are coloured, the rest grey
    columns, rows = (saturation.mean(dim).cumsum(-1) for dim in (1, 2))
    start = (columns < 0.25 * columns[:, -1:]).sum(-1)
    row = (rows < 0.5 * rows[:, -1:]).sum(-1)
    for place in (start, row):
        for value in place.unique():
            here = labels[place == value].float()
            assert len(here) < 100 or abs(here.mean() - 0.5) < 3.5 * 0.5 / len(here) ** 0.5


def test_another_colour_changes_that_disc_and_nothing_else() -> None:
    before, after = (draw_strips(*two(0, right), 20, seed=5, start=10, row=1)[0] for right in (0, 1))
    changed = (before != after).any(0)
    rows, columns = changed.nonzero(as_tuple=True)
    assert changed.sum() == 21  # a disc's pixels
    assert (rows.min(), rows.max()) == (1, SIDE) and (columns.min(), columns.max()) == (30, 30 + SIDE - 1)


WRONG = {
    "too near": (lambda: load_far_apart(SIDE - 1), "from 5, where the discs touch"),
    "too far": (lambda: load_far_apart(LARGEST_DISTANCE + 1), "to 43"),
    "no strips": (lambda: load_far_apart(20, 0), "at least one strip"),
    "another colour": (lambda: draw_strips(*two(0, 2), 20), "0 (orange) or 1 (blue)"),
    "no integers": (lambda: draw_strips(torch.zeros(1), torch.zeros(1), 20), "int64"),
    "unequally many": (lambda: draw_strips(torch.tensor([0, 1]), torch.tensor([0]), 20), "one a strip"),
    "over the edge": (lambda: draw_strips(*two(0, 1), 20, start=24), "from 0 to 23"),
    "below the edge": (lambda: draw_strips(*two(0, 1), 20, row=-1), "from 0 to 3"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_said(name: str) -> None:
    make, sentence = WRONG[name]
    with pytest.raises(ValueError) as raised:
        make()
    assert sentence in str(raised.value)
