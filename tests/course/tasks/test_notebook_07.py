"""Each wrong answer that students give to notebook 07's exercises gets the hint that is meant for it."""

import pytest
import torch
from torch import Tensor

from c2f.models.baselines import Swin
from c2f_course.tasks import notebook_07 as checks


def cut_with(*order: int, join: tuple[int, ...] = (-1, 16, 3)):
    """Split (H, W, C) into (rows of windows, row, columns of windows, column, C), bring the axes in order, join."""

    def into_windows(x: Tensor, side: int) -> Tensor:
        x = x.reshape(x.shape[0] // side, side, x.shape[1] // side, side, -1)
        return x.permute(*order).reshape(*join)

    return into_windows


def in_place(x: Tensor, side: int) -> Tensor:
    x *= 1.5
    return cut_with(0, 2, 1, 3, 4)(x, side)


CUTS = {
    "a reshape alone": (lambda x, side: x.reshape(-1, side * side, x.shape[2]), "a strip"),
    "no transpose": (cut_with(0, 1, 2, 3, 4), "a strip"),
    "split the wrong way": (
        lambda x, s: x.reshape(x.shape[0] // s, x.shape[1] // s, s, s, -1).transpose(1, 2).reshape(-1, s * s, 3),
        "split in the wrong order",
    ),
    "windows by columns": (cut_with(2, 0, 1, 3, 4), "counted column by column; count them"),
    "tokens by columns": (cut_with(0, 2, 3, 1, 4), "inside each one"),
    "both by columns": (cut_with(2, 0, 3, 1, 4), "changed places"),
    "square windows left": (cut_with(0, 2, 1, 3, 4, join=(-1, 4, 4, 3)), "in ONE axis"),
    "windows in a grid": (cut_with(0, 2, 1, 3, 4, join=(2, 3, 16, 3)), "in ONE axis"),
    "channels swallowed": (cut_with(0, 1, 3, 2, 4, join=(2, 16, 9)), "into the channels"),
    "square maps only": (lambda x, s: x.reshape(2, s, 2, s, 3), "your code raised RuntimeError"),
    "unfold": (lambda x, s: x.unfold(0, s, s).unfold(1, s, s).reshape(6, 16, 3), "behind the channels"),
    "in place": (in_place, "changed x_hwc itself"),
    "something else": (lambda x, s: torch.zeros(6, 16, 3), "Which of the four"),
    "a list": (lambda x, s: [x], "should be a torch tensor"),
}


@pytest.mark.parametrize("name", CUTS)
def test_into_windows(name: str) -> None:
    answer, fragment = CUTS[name]
    verdict = checks.into_windows(answer)
    assert verdict.state == "hint"
    assert fragment in verdict.message


def numbered(number, roll: int = -1, same=lambda a, b: a == b):
    """A mask from the numbers that `number(rows (H, 1), columns (W), height, width, shift)` gives, rolled."""

    def window_mask(height: int, width: int, window: int, shift: int) -> Tensor:
        numbers = number(torch.arange(height)[:, None], torch.arange(width), height, width, shift)
        numbers = torch.as_tensor(numbers).expand(height, width)
        piece = checks.cut(numbers.roll((roll * shift, roll * shift), dims=(0, 1)), window)
        return same(piece[:, :, None], piece[:, None, :])

    return window_mask


def four(rows: Tensor, columns: Tensor, height: int, width: int, shift: int) -> Tensor:
    return (rows < shift) + 2 * (columns < shift).long()


def far_side(rows: Tensor, columns: Tensor, height: int, width: int, shift: int) -> Tensor:
    return (rows >= height - shift) + 2 * (columns >= width - shift).long()


MASKS = {
    "none": (numbered(lambda r, c, h, w, s: torch.zeros(1, 1)), "everybody sees everybody"),
    "turned round": (numbered(four, same=lambda a, b: a != b), "wrong way round"),
    "rows only": (numbered(lambda r, c, h, w, s: (r < s).long()), "left and right are not yet"),
    "columns only": (numbered(lambda r, c, h, w, s: (c < s).long()), "top and bottom are not yet"),
    "two numbers": (numbered(lambda r, c, h, w, s: ((r < s) | (c < s)).long()), "two numbers are not enough"),
    "added up": (numbered(lambda r, c, h, w, s: (r < s) + (c < s).long()), "have the same number"),
    "the other way": (numbered(four, roll=1), "rolled the other way"),
    "not rolled": (numbered(four, roll=0), "not rolled"),
    "the far side": (numbered(far_side), "which rows does the roll take"),
    "hundreds": (numbered(four, same=lambda a, b: -100.0 * (a != b)), "True and False are asked for"),
    "integers": (numbered(four, same=lambda a, b: (a == b).long()), "torch.bool"),
    "a truth a token": (lambda h, w, m, s: torch.ones(6, 16, dtype=torch.bool), "one truth a token"),
    "the whole map": (lambda h, w, m, s: torch.ones(96, 96, dtype=torch.bool), "cut it into windows"),
    "a fixed shift": (lambda h, w, m, s: numbered(four)(h, w, m, 1), "belongs to the other map"),
    "itself only": (lambda h, w, m, s: torch.eye(16, dtype=torch.bool).expand(6, 16, 16), "Number the pieces"),
}


@pytest.mark.parametrize("name", MASKS)
def test_window_mask(name: str) -> None:
    answer, fragment = MASKS[name]
    verdict = checks.window_mask(answer)
    assert verdict.state == "hint"
    assert fragment in verdict.message


def test_torchvisions_own_way_to_number_the_pieces_passes() -> None:
    def nine(height: int, width: int, window: int, shift: int) -> Tensor:
        numbers = torch.zeros(height, width)
        cuts = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
        for i, rows in enumerate(cuts):
            for j, columns in enumerate(cuts):
                numbers[rows, columns] = 3 * i + j
        piece = checks.cut(numbers, window)
        return piece[:, :, None] == piece[:, None, :]

    assert checks.window_mask(nine).passed
    assert checks.window_mask(numbered(four)).passed


def index_with(formula):
    """An index from `formula(row of the query, its column, row of the key, its column, side)`."""

    def relative_index(side: int) -> Tensor:
        row, column = torch.arange(side**2) // side, torch.arange(side**2) % side
        return formula(row[:, None], column[:, None], row, column, side)

    return relative_index


INDICES = {
    "key − query": (index_with(lambda r, c, y, x, s: (y - r + s - 1) * (2 * s - 1) + x - c + s - 1), "turned round"),
    "negative": (index_with(lambda r, c, y, x, s: (r - y) * (2 * s - 1) + c - x), "negative entries"),
    "rows of side": (index_with(lambda r, c, y, x, s: (r - y + s - 1) * s + c - x + s - 1), "is not `side` long"),
    "rows of 2 side": (index_with(lambda r, c, y, x, s: (r - y + s - 1) * 2 * s + c - x + s - 1), "2 · side numbers"),
    "exchanged": (
        index_with(lambda r, c, y, x, s: (c - x + s - 1) * (2 * s - 1) + r - y + s - 1),
        "rows and columns are exchanged",
    ),
    "sizes": (index_with(lambda r, c, y, x, s: (r - y).abs() * (2 * s - 1) + (c - x).abs()), "keep the sign"),
    "added": (index_with(lambda r, c, y, x, s: r - y + c - x + 2 * (s - 1)), "share an entry"),
    "one too far": (index_with(lambda r, c, y, x, s: (r - y + s) * (2 * s - 1) + c - x + s), "one too far"),
    "floats": (index_with(lambda r, c, y, x, s: (r - y + s - 1) * (2 * s - 1.0) + c - x + s - 1), "whole numbers"),
    "in one line": (lambda side: torch.zeros(side**4).long(), "in one line"),
    "tokens for windows": (lambda side: torch.zeros(side, side).long(), "should have shape (9, 9)"),
    "side fixed": (lambda side: INDICES["key − query"][0](3).T, "should have shape (16, 16)"),
    "something else": (lambda side: torch.zeros(side**2, side**2).long(), "row and column of every token"),
}


@pytest.mark.parametrize("name", INDICES)
def test_relative_index(name: str) -> None:
    answer, fragment = INDICES[name]
    verdict = checks.relative_index(answer)
    assert verdict.state == "hint"
    assert fragment in verdict.message


def up(size: int, window: int) -> int:
    return -(-size // window) * window


def cost_with(executed, each=lambda c, t: 4 * c * c + 2 * t * c):
    def attention_cost(height: int, width: int, channels: int, window: int) -> tuple[float, float]:
        a_token = each(channels, window**2)
        return executed(height, width, window) * a_token, height * width * a_token

    return attention_cost


def padded(h: int, w: int, m: int) -> int:
    return up(h, m) * up(w, m)


COSTS = {
    "no padding": (cost_with(lambda h, w, m: h * w), "where is the padding"),
    "rounded down": (cost_with(lambda h, w, m: h // m * (w // m) * m * m), "rounds down"),
    "always one more": (cost_with(lambda h, w, m: (h // m + 1) * (w // m + 1) * m * m), "a whole window too many"),
    "all together": (cost_with(lambda h, w, m: up(h * w, m * m)), "each by itself"),
    "height only": (cost_with(lambda h, w, m: up(h, m) * w), "only the height"),
    "width only": (cost_with(lambda h, w, m: h * up(w, m)), "only the width"),
    "one window": (cost_with(lambda h, w, m: max(h, m) * max(w, m)), "where is the padding"),
    "windows, not tokens": (cost_with(lambda h, w, m: padded(h, w, m) // m**2), "how many tokens are in one"),
    "no last layer": (cost_with(padded, lambda c, t: 3 * c * c + 2 * t * c), "after the heads are joined"),
    "scores only": (cost_with(padded, lambda c, t: 4 * c * c + t * c), "met twice"),
    "T is a side": (cost_with(padded, lambda c, t: 4 * c * c + 2 * t**0.5 * c), "T = window²"),
    "C for C²": (cost_with(padded, lambda c, t: 4 * c + 2 * t * c), "costs C² a token"),
    "all keys": (
        lambda h, w, c, m: (padded(h, w, m) * (4 * c * c + 2 * h * w * c), h * w * (4 * c * c + 2 * h * w * c)),
        "not those of the whole map",
    ),
    "exchanged": (lambda h, w, c, m: cost_with(padded)(h, w, c, m)[::-1], "changed places"),
    "one number": (lambda h, w, c, m: padded(h, w, m), "give two numbers"),
    "divided with /": (cost_with(lambda h, w, m: h / m * w / m * m * m), "where is the padding"),
    "something else": (lambda h, w, c, m: (1, 2), "the cost of one token"),
}


@pytest.mark.parametrize("name", COSTS)
def test_attention_cost(name: str) -> None:
    answer, fragment = COSTS[name]
    verdict = checks.attention_cost(answer)
    assert verdict.state == "hint"
    assert fragment in verdict.message


FLAWS = {
    ("luck", "luck", "padding"): "first: single runs",
    ("padding", "luck", "padding"): "first: nothing is said of sizes",
    ("nothing", "luck", "padding"): "three times as long",
    ("hardware", "luck", "padding"): "does not depend on the machine",
    ("training", "training", "padding"): "second: both had 100 epochs",
    ("training", "padding", "padding"): "which epoch was taken",
    ("training", "nothing", "padding"): "who chose the epoch",
    ("training", "luck", "training"): "third: same recipe",
    ("training", "luck", "luck"): "that is no luck",
    ("training", "luck", "nothing"): "spent on",
    ("training", "luck", "paddding"): "third is 'paddding'; use one of",
    (1, "luck", "padding"): "first is 1; use one of",
}


@pytest.mark.parametrize("answer", FLAWS, ids=str)
def test_flaws(answer: tuple) -> None:
    verdict = checks.flaws(*answer)
    assert verdict.state == "hint"
    assert FLAWS[answer] in verdict.message


def test_flaws_are_found_in_any_case_and_a_gap_is_blank() -> None:
    assert checks.flaws("Training", " luck", "padding").passed
    assert checks.flaws("training", ..., "padding").state == "blank"


def test_cut_is_torchvisions_partition() -> None:
    torch.manual_seed(0)
    swin = Swin(2, 16, (2,), (2,), 4, 2.0, 0.0, 10).eval()
    (block, _) = swin.attention_weights(torch.randn(1, 3, 16, 24))
    assert torch.equal(checks.cut(torch.arange(96).view(8, 12), 4), block.tokens)
    with pytest.raises(ValueError, match="multiples of 4"):
        checks.cut(torch.zeros(6, 8), 4)
