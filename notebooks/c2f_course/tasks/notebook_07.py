"""The exercises of notebook 07, on window attention and fair comparison: windows, mask, offsets, padding, flaws."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.swin_transformer import ShiftedWindowAttention

from c2f.models.cost import multiply_adds
from c2f_course.tasks.exercise import Hint, exercise, expect_close, expect_number, expect_tensor

Known = Sequence[tuple[Tensor, str]]
"""Values that a known mistake leads to, each with the hint for it."""


def cut(grid: Tensor, side: int) -> Tensor:
    """Cut a map (H, W) into windows of side × side, both counted row by row: (windows, side²)."""
    if grid.ndim != 2 or grid.shape[0] % side or grid.shape[1] % side:
        raise ValueError(f"the map has shape {tuple(grid.shape)}; give (H, W), both multiples of {side}.")
    return torch.cat([band.unfold(1, side, side).transpose(0, 1).flatten(1) for band in grid.split(side)])


def expect_one_of(value: Tensor, right: Tensor, known: Known, what: str, otherwise: str) -> None:
    """Hint unless `value` equals `right`; where it equals what a known mistake gives, the hint for that mistake."""
    if torch.equal(value, right):
        return
    for wrong, hint in known:
        if wrong.shape == value.shape and torch.equal(value, wrong.to(value.dtype)):
            raise Hint(hint)
    differ = (value != right).float().mean().item()
    raise Hint(f"{what} differs from what is right in {differ:.0%} of its entries. {otherwise}")


# ---- 1


@exercise("07.1", "Into windows", "easy", 6)
def into_windows(answer: Callable[[Tensor, int], Tensor]) -> str:
    """Knows: strips for windows, a plain view, columns first (outside, inside, both), unfold, a map not square."""
    draw = torch.Generator().manual_seed(7)
    x, side = torch.randn(8, 12, 3, generator=draw), 4
    before = x.clone()
    made = answer(x, side)
    if isinstance(made, Tensor) and made.ndim in (4, 5) and made.numel() == x.numel():
        raise Hint(
            f"the result has shape {tuple(made.shape)}: the tokens of a window belong in ONE axis, and so do the "
            f"windows: (windows, side², C). Join the axes."
        )
    if isinstance(made, Tensor) and made.shape == (2, 16, 9):
        raise Hint("the columns of windows have got into the channels: C stays the last axis, and keeps its size.")
    made = expect_tensor(made, (6, 16, 3), "the windows")
    if not torch.equal(x, before):
        raise Hint("your code changed x_hwc itself; make a new tensor.")
    place = torch.arange(96).view(8, 12)  # each token's number, row by row
    order = cut(place, side)
    across = order.view(2, 3, 16).transpose(0, 1).reshape(6, 16)

    def turned(tokens: Tensor) -> Tensor:
        return tokens.view(-1, 4, 4).transpose(1, 2).reshape(-1, 16)

    def at(tokens: Tensor) -> Tensor:
        return x.flatten(0, 1)[tokens]

    known = [
        (x.reshape(6, 16, 3), "a reshape alone: each “window” is 16 tokens of one row after another, a strip. Split H "
         "and W first, each in two axes, and bring the two that count windows to the front."),
        (at(place.view(2, 3, 4, 4).transpose(1, 2).reshape(6, 16)), "the axes are split in the wrong order: H becomes "
         "(windows down, side), W becomes (windows across, side)."),
        (at(across), "the windows are right, but counted column by column; count them row by row."),
        (at(turned(order)), "the windows are right, but inside each one the tokens are counted column by column."),
        (at(turned(across)), "rows and columns have changed places: transpose only the two axes in the middle."),
        (at(order).flip(0), "the windows come in reversed order."),
        (x.unfold(0, side, side).unfold(1, side, side).reshape(6, 16, 3), "unfold puts the two axes of a window LAST, "
         "behind the channels; bring C to the end before you join."),
    ]  # fmt: skip
    otherwise = "Split H into (H / side, side) and W into (W / side, side). Which of the four count windows?"
    expect_one_of(made, at(order), known, "the result", otherwise)
    return "that is what Swin does before every attention, and undoes after it."


# ---- 2


def _visible(height: int, width: int, window: int, shift: int) -> Tensor:
    """Who sees whom, (HW, HW) bool, asked of torchvision: its attention over values that are one-hot positions."""
    count = height * width
    attention = ShiftedWindowAttention(count, [window, window], [shift, shift], num_heads=1).eval()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.zero_()
        attention.qkv.weight[2 * count :] = torch.eye(count)
        attention.proj.weight.copy_(torch.eye(count))
        return attention(torch.eye(count).view(1, height, width, count)).view(count, count) > 1e-6


@exercise("07.2", "The mask", "medium", 10)
def window_mask(answer: Callable[[int, int, int, int], Tensor]) -> str:
    """Knows: no mask, turned round, one axis only, rolled the other way, not rolled, two numbers, 100s for bools."""
    height, width, window, shift = 8, 12, 4, 1  # not half the window: with 2 a roll the other way would not show
    made = answer(height, width, window, shift)
    if isinstance(made, Tensor) and made.dtype != torch.bool:
        if made.is_floating_point() and made.numel() and set(made.unique().tolist()) <= {0.0, -100.0}:
            raise Hint("those are the numbers that torchvision adds to the scores; here True and False are asked for.")
        raise Hint(f"the mask should hold True and False (torch.bool), and is {made.dtype}.")
    if isinstance(made, Tensor) and made.shape == (6, 16):
        raise Hint("that is one truth a token; the mask has one for each pair of query and key: (windows, T, T).")
    if isinstance(made, Tensor) and made.shape == (96, 96):
        raise Hint("that is for the whole map at once; cut it into windows first: (windows, T, T).")
    made = expect_tensor(made, (6, 16, 16), "the mask")
    right = _in_windows(_visible(height, width, window, shift), height, width, window, shift)
    down, across = (torch.arange(n) for n in (height, width))
    top, left = (down < shift)[:, None].expand(height, width), (across < shift).expand(height, width)
    bottom, far = (
        (down >= height - shift)[:, None].expand(height, width),
        (across >= width - shift).expand(height, width),
    )

    def mask(numbers: Tensor, roll: int = -shift) -> Tensor:
        piece = cut(numbers.roll((roll, roll), dims=(0, 1)), window)
        return piece[:, :, None] == piece[:, None, :]

    both = top + 2 * left.long()
    known = [
        (torch.ones_like(right), "everybody sees everybody: then the top of the image sees its bottom, in the windows "
         "that the roll has filled from both."),
        (~right, "exactly the wrong way round: True is for those who MAY see each other."),
        (mask(top.long()), "top and bottom are kept apart; left and right are not yet."),
        (mask(left.long()), "left and right are kept apart; top and bottom are not yet."),
        (mask((top | left).long()), "two numbers are not enough: what comes from the left and what comes from the top "
         "meet in the last window, and are strangers too."),
        (mask(top.long() + left.long()), "what comes from the top and what comes from the left have the same number, "
         "and in the last window they meet. Give them different ones."),
        (mask(both, shift), "rolled the other way: the map moves up and to the left, so shifts are negative."),
        (mask(both, 0), "the numbers are not rolled: they must travel as the tokens do."),
        (mask(bottom + 2 * far.long()), "which rows does the roll take to the other side? It moves up and to the left, "
         "so it is those at the top, and the columns at the left."),
    ]  # fmt: skip
    expect_one_of(
        made, right, known, "the mask", "Number the pieces of the image, roll them as the map is rolled, cut."
    )
    expect_one_of(
        expect_tensor(answer(8, 8, 4, 2), (4, 16, 16), "the mask of an 8×8 map"),
        _in_windows(_visible(8, 8, 4, 2), 8, 8, 4, 2), [], "the mask of an 8×8 map with shift 2",
        "Is a number written into the code that belongs to the other map?",
    )  # fmt: skip
    return "and torchvision's attention lets through exactly those pairs."


def _in_windows(visible: Tensor, height: int, width: int, window: int, shift: int) -> Tensor:
    """(HW, HW) -> (windows, T, T), for the windows of the rolled map."""
    tokens = cut(torch.arange(height * width).view(height, width).roll((-shift, -shift), dims=(0, 1)), window)
    return visible[tokens[:, :, None], tokens[:, None, :]]


# ---- 3


@exercise("07.3", "Where in the table?", "medium", 8)
def relative_index(answer: Callable[[int], Tensor]) -> str:
    """Knows: key − query, no offset, a wrong row length, rows and columns exchanged, sizes for signs, floats."""
    for side in (3, 4):
        right = ShiftedWindowAttention(1, [side, side], [0, 0], 1).relative_position_index.view(side**2, side**2)
        made = answer(side)
        if isinstance(made, Tensor) and made.shape == (side**4,):
            raise Hint("the numbers lie in one line; give them the two axes [query, key].")
        made = expect_tensor(made, (side**2, side**2), f"the index for side {side}")
        if made.is_floating_point() or made.dtype == torch.bool:
            raise Hint(f"an index is made of whole numbers, and this is {made.dtype}; / makes fractions, // does not.")
        row, column = torch.arange(side**2) // side, torch.arange(side**2) % side
        down, right_by = row[:, None] - row, column[:, None] - column
        known = [
            (right.T, "exactly turned round: that is key − query. torchvision counts query − key."),
            (down * (2 * side - 1) + right_by, "the smallest offset, −(side − 1), should be entry 0; here there are "
             "negative entries. A negative index silently counts from the end!"),
            ((down + side - 1) * side + right_by + side - 1, "one row of the table is not `side` long: how many column "
             "offsets are there?"),
            ((down + side - 1) * 2 * side + right_by + side - 1, "nearly: from −(side − 1) to side − 1 there are not "
             "2 · side numbers."),
            ((right_by + side - 1) * (2 * side - 1) + down + side - 1, "rows and columns are exchanged: one row down "
             "is worth a whole row of the table, one column to the right is worth 1."),
            (down.abs() * (2 * side - 1) + right_by.abs(), "up and down are different offsets, and have entries of "
             "their own: keep the sign, and shift it so that the smallest is 0."),
            (down + right_by + 2 * (side - 1), "many offsets share an entry now: (0, 1) and (1, 0), for one. What is "
             "one row down worth in a table whose rows come one after the other?"),
            ((down + side) * (2 * side - 1) + right_by + side, "one too far: the smallest offset is −(side − 1), not "
             "−side."),
        ]  # fmt: skip
        expect_one_of(made, right, known, f"the index for side {side}",
                      "Take row and column of every token, their differences, shift both to begin at 0.")  # fmt: skip
    return "so a head's 49 numbers fill a matrix of 256."


# ---- 4


class _Alone(nn.Module):
    """A window attention by itself, for c2f.models.cost, which counts on (N, C, H, W)."""

    def __init__(self, channels: int, window: int) -> None:
        super().__init__()
        self.attn = ShiftedWindowAttention(channels, [window, window], [0, 0], num_heads=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(x.permute(0, 2, 3, 1))


@exercise("07.4", "The cost of padding", "medium", 8)
def attention_cost(answer: Callable[[int, int, int, int], Sequence[float]]) -> str:
    """Knows: no padding, a window too many, rounding down, one side for both, all keys, forgotten factors, order."""
    for height, width, channels, window in ((8, 10, 96, 7), (4, 9, 16, 3), (16, 16, 64, 4)):
        made = answer(height, width, channels, window)
        if not isinstance(made, Sequence | Tensor) or isinstance(made, str) or len(made) != 2:
            raise Hint("give two numbers, executed and useful: return executed, useful.")
        what = f"for {height}×{width} tokens, {channels} channels and windows of {window}"
        executed, useful = (
            expect_number(m, f"the {n} number {what}") for m, n in zip(made, ("first", "second"), strict=True)
        )
        right = multiply_adds(_Alone(channels, window), (height, width), channels)
        _expect_cost(executed, useful, right.nominal, right.useful, (height, width, channels, window), what)
    return "it is what c2f.models.cost counts: for 8×8 tokens in windows of 7, three times what is useful."


def _expect_cost(
    executed: float, useful: float, nominal: int, needed: int, case: tuple[int, int, int, int], what: str
) -> None:
    height, width, channels, window = case
    tokens = height * width
    each, full = needed // tokens, nominal * tokens // needed
    if executed == needed and useful == nominal != needed:
        raise Hint("the two numbers have changed places: executed comes first.")
    known_each = [
        (each - channels**2, "three projections make query, key and value; what comes after the heads are joined?"),
        (each - window**2 * channels, "the T keys are met twice: for the scores, and for the weighted sum of values."),
        (4 * channels**2 + 2 * window * channels, "a window has T = window² tokens, not `window`."),
        (
            4 * channels**2 + 2 * tokens * channels,
            "a token meets the T keys of its window, not those of the whole map.",
        ),
        (4 * channels + 2 * window**2 * channels, "a projection from C to C channels costs C² a token."),
    ]
    for wrong, hint in known_each:
        if useful == wrong * tokens or useful == wrong * full:
            raise Hint(hint)
    expect_close(useful, float(needed), f"the useful number {what}", tolerance=1e-9,
                 hint="It is the cost of one token times the tokens of the map itself.")  # fmt: skip
    windows = height // window * (width // window)
    known = [
        (needed, "executed is no more than useful: where is the padding?"),
        (windows * window**2 * each, "that rounds down: the tokens that fill no whole window would be lost. Swin adds "
         "padding, so it rounds up."),
        ((height // window + 1) * (width // window + 1) * window**2 * each, "where `window` divides a side already, "
         "nothing is added; here a whole window too many was."),
        (-(-tokens // window**2) * window**2 * each, "the tokens were filled up to whole windows all together; but "
         "height and width are padded each by itself."),
        (-(-height // window) * window * width * each, "only the height is padded; the width needs it too."),
        (height * -(-width // window) * window * each, "only the width is padded; the height needs it too."),
        (-(-height // window) * -(-width // window) * each, "that counts windows; how many tokens are in one?"),
    ]  # fmt: skip
    for wrong, hint in known:
        if wrong != nominal and abs(executed - wrong) <= 1e-9 * wrong:
            raise Hint(hint)
    expect_close(executed, float(nominal), f"the executed number {what}", tolerance=1e-9,
                 hint="Round each side up to a multiple of `window`.")  # fmt: skip


# ---- 5

FLAWS = ("training", "luck", "padding", "hardware", "nothing")

_FLAW_HINTS = {
    ("first", "luck"): "single runs may well be compared here, but look at the numbers in the sentence first: what did "
    "each network get, and how much of it?",
    ("first", "padding"): "nothing is said of sizes or tokens. Compare what each network was given.",
    ("first", "nothing"): "would you bet on X if Y were trained three times as long as well?",
    ("second", "training"): "both had 100 epochs from the same people: the budget is equal. How sure is a fifth of a "
    "point?",
    ("second", "padding"): "nothing is said of sizes or tokens. How many runs were there, and which epoch was taken?",
    (
        "second",
        "nothing",
    ): "train P twice with different seeds: will both runs end within 0.2 points of each other? And who "
    "chose the epoch?",
    (
        "third",
        "training",
    ): "same recipe for both: that is in order (as far as one recipe can suit both). Equal in what?",
    ("third", "luck"): "five seeds and seven points: that is no luck. Equal in what, and for which image size?",
    ("third", "nothing"): "recipe and seeds are in order. But swin_t at 32×32: what are its multiply-adds spent on?",
}


@exercise("07.5", "What is wrong with these three?", "easy", 5)
def flaws(first: Any, second: Any, third: Any) -> str:
    """Knows each wrong name for each of the three comparisons."""
    right = dict(zip(("first", "second", "third"), FLAWS, strict=False))
    for (name, flaw), said in zip(right.items(), (first, second, third), strict=True):
        if not isinstance(said, str) or said.strip().lower() not in FLAWS:
            raise Hint(f"{name} is {said!r}; use one of {', '.join(map(repr, FLAWS))}.")
        said = said.strip().lower()
        if said == "hardware":
            raise Hint(f"{name}: no time and no speed is claimed, and an accuracy does not depend on the machine.")
        if said != flaw:
            raise Hint(f"{name}: {_FLAW_HINTS[name, said]}")
    return "each reads well at first sight, and each leaves out what the checklist asks for."
