"""The exercises of notebook 07, on window attention and fair comparison: windows, mask, offsets, padding, flaws."""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.swin_transformer import ShiftedWindowAttention

from c2f.models.cost import multiply_adds
from c2f_course.tasks.exercise import Expected, Hint, exercise, hint_if, of_shape, task


def cut(grid: Tensor, side: int) -> Tensor:
    """Cut a map (H, W) into windows of side × side, both counted row by row: (windows, side²)."""
    if grid.ndim != 2 or grid.shape[0] % side or grid.shape[1] % side:
        raise ValueError(f"the map has shape {tuple(grid.shape)}; give (H, W), both multiples of {side}.")
    return torch.cat([band.unfold(1, side, side).transpose(0, 1).flatten(1) for band in grid.split(side)])


# ---- 1


@exercise("07.1", "Into windows", "easy", 6)
@task(
    [(torch.randn(8, 12, 3, generator=torch.Generator().manual_seed(7)), 4)],
    "that is what Swin does before every attention, and undoes after it.",
)
def into_windows(x_hwc: Tensor, side: int) -> Expected:
    x = x_hwc
    place = torch.arange(96).view(8, 12)  # each token's number, row by row
    order = cut(place, side)
    across = order.view(2, 3, 16).transpose(0, 1).reshape(6, 16)

    def at(tokens: Tensor) -> Tensor:
        return x.flatten(0, 1)[tokens]

    def turned(tokens: Tensor) -> Tensor:
        return at(tokens.view(-1, 4, 4).transpose(1, 2).reshape(-1, 16))

    mistakes = [
        (x.reshape(6, 16, 3), "a reshape alone: each “window” is 16 tokens of one row after another, a strip. Split H "
         "and W first, each in two axes, and bring the two that count windows to the front."),
        (at(place.view(2, 3, 4, 4).transpose(1, 2).reshape(6, 16)), "the axes are split in the wrong order: H becomes "
         "(windows down, side), W becomes (windows across, side)."),
        (at(across), "the windows are right, but counted column by column; count them row by row."),
        (turned(order), "the windows are right, but inside each one the tokens are counted column by column."),
        (turned(across), "rows and columns have changed places: transpose only the two axes in the middle."),
        (at(order).flip(0), "the windows come in reversed order."),
        (x.unfold(0, side, side).unfold(1, side, side).reshape(6, 16, 3), "unfold puts the two axes of a window LAST, "
         "behind the channels; bring C to the end before you join."),
        (of_shape(2, 16, 9), "the columns of windows have got into the channels: C stays the last axis, and keeps its "
         "size."),
    ]  # fmt: skip
    axes = (
        lambda made: isinstance(made, Tensor) and made.ndim in (4, 5) and made.numel() == x.numel(),
        "the result has shape {shape}: the tokens of a window belong in ONE axis, and so do the windows: (windows, "
        "side², C). Join the axes.",
    )
    return Expected("the windows", at(order), mistakes, "Split H into (H / side, side) and W into (W / side, side). "
        "Which of the four count windows?", signs=[axes])  # fmt: skip


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


def _in_windows(visible: Tensor, height: int, width: int, window: int, shift: int) -> Tensor:
    """(HW, HW) -> (windows, T, T), for the windows of the rolled map."""
    tokens = cut(torch.arange(height * width).view(height, width).roll((-shift, -shift), dims=(0, 1)), window)
    return visible[tokens[:, :, None], tokens[:, None, :]]


@exercise("07.2", "The mask", "medium", 10)
@task(
    [(8, 12, 4, 1), (8, 8, 4, 2)],  # with half the window a roll the other way would not show
    "and torchvision's attention lets through exactly those pairs.",
)
def window_mask(height: int, width: int, window: int, shift: int) -> Expected:
    right = _in_windows(_visible(height, width, window, shift), height, width, window, shift)
    tokens, count = height * width, len(right)
    down, across = torch.arange(height)[:, None].expand(height, width), torch.arange(width).expand(height, width)
    top, left = (down < shift).long(), (across < shift).long()
    bottom, far = (down >= height - shift).long(), (across >= width - shift).long()

    def mask(numbers: Tensor, roll: int = -shift) -> Tensor:
        piece = cut(numbers.roll((roll, roll), dims=(0, 1)), window)
        return piece[:, :, None] == piece[:, None, :]

    def is_no_mask(made: Any) -> bool:
        return isinstance(made, Tensor) and made.dtype != torch.bool

    def is_added(made: Any) -> bool:
        return is_no_mask(made) and made.is_floating_point() and set(made.unique().tolist()) <= {0.0, -100.0}

    mistakes = [
        (torch.ones_like(right), "everybody sees everybody: then the top of the image sees its bottom, in the windows "
         "that the roll has filled from both."),
        (~right, "exactly the wrong way round: True is for those who MAY see each other."),
        (mask(top), "top and bottom are kept apart; left and right are not yet."),
        (mask(left), "left and right are kept apart; top and bottom are not yet."),
        (mask(top | left), "two numbers are not enough: what comes from the left and what comes from the top meet in "
         "the last window, and are strangers too."),
        (mask(top + left), "what comes from the top and what comes from the left have the same number, and in the last "
         "window they meet. Give them different ones."),
        (mask(top + 2 * left, shift), "rolled the other way: the map moves up and to the left, so shifts are "
         "negative."),
        (mask(top + 2 * left, 0), "the numbers are not rolled: they must travel as the tokens do."),
        (mask(bottom + 2 * far), "which rows does the roll take to the other side? It moves up and to the left, so it "
         "is those at the top, and the columns at the left."),
        (of_shape(count, window**2).bool(), "that is one truth a token; the mask has one for each pair of query and "
         "key: (windows, T, T)."),
        (of_shape(tokens, tokens).bool(), "that is for the whole map at once; cut it into windows first: (windows, T, "
         "T)."),
    ]  # fmt: skip
    signs = [
        (is_added, "those are the numbers that torchvision adds to the scores; here True and False are asked for."),
        (is_no_mask, "the mask should hold True and False (torch.bool), and is {made.dtype}."),
    ]
    otherwise = "Number the pieces of the image, roll them as the map is rolled, cut."
    if height == width:
        otherwise = "Is a number written into the code that belongs to the other map?"
    return Expected(f"the mask of a {height}×{width} map with shift {shift}", right, mistakes, otherwise, signs=signs)


# ---- 3


@exercise("07.3", "Where in the table?", "medium", 8)
@task([(3,), (4,)], "so a head's 49 numbers fill a matrix of 256.")
def relative_index(side: int) -> Expected:
    count, most, row = side**2, side - 1, 2 * side - 1
    right = ShiftedWindowAttention(1, [side, side], [0, 0], 1).relative_position_index.view(count, count)
    rows, columns = torch.arange(count) // side, torch.arange(count) % side
    down, across = rows[:, None] - rows, columns[:, None] - columns
    mistakes = [
        (right.T, "exactly turned round: that is key − query. torchvision counts query − key."),
        (down * row + across, "the smallest offset, −(side − 1), should be entry 0; here there are negative entries. A "
         "negative index silently counts from the end!"),
        ((down + most) * side + across + most, "one row of the table is not `side` long: how many column offsets are "
         "there?"),
        ((down + most) * 2 * side + across + most, "nearly: from −(side − 1) to side − 1 there are not 2 · side "
         "numbers."),
        ((across + most) * row + down + most, "rows and columns are exchanged: one row down is worth a whole row of "
         "the table, one column to the right is worth 1."),
        (down.abs() * row + across.abs(), "up and down are different offsets, and have entries of their own: keep the "
         "sign, and shift it so that the smallest is 0."),
        (down + across + 2 * most, "many offsets share an entry now: (0, 1) and (1, 0), for one. What is one row down "
         "worth in a table whose rows come one after the other?"),
        ((down + side) * row + across + side, "one too far: the smallest offset is −(side − 1), not −side."),
        (of_shape(side**4), "the numbers are in one line; give them the two axes [query, key]."),
    ]  # fmt: skip

    def no_index(made: Any) -> bool:
        whole = isinstance(made, Tensor) and not made.is_floating_point() and made.dtype != torch.bool
        return isinstance(made, Tensor) and made.shape == right.shape and not whole

    numbers = (no_index, "an index is made of whole numbers, and this is {made.dtype}; / makes fractions, // does not.")
    return Expected(f"the index for side {side}", right, mistakes, "Take row and column of every token, their "
        "differences, shift both to begin at 0.", signs=[numbers])  # fmt: skip


# ---- 4


class _Alone(nn.Module):
    """A window attention by itself, for c2f.models.cost, which counts on (N, C, H, W)."""

    def __init__(self, channels: int, window: int) -> None:
        super().__init__()
        self.attn = ShiftedWindowAttention(channels, [window, window], [0, 0], num_heads=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(x.permute(0, 2, 3, 1))


@exercise("07.4", "The cost of padding", "medium", 8)
@task(
    [(8, 10, 96, 7), (4, 9, 16, 3), (16, 16, 64, 4)],
    "it is what c2f.models.cost counts: for 8×8 tokens in windows of 7, three times what is useful.",
    wants=(tuple, "give two numbers, executed and useful: return executed, useful."),
    ask=lambda answer, *inputs: made.tolist() if isinstance(made := answer(*inputs), Tensor) else made,
)
def attention_cost(height: int, width: int, channels: int, window: int) -> dict[str, Expected]:
    counted = multiply_adds(_Alone(channels, window), (height, width), channels)
    executed, useful, tokens = counted.nominal, counted.useful, height * width
    each, full = useful // tokens, executed * tokens // useful
    what = f"number for {height}×{width} tokens, {channels} channels and windows of {window}"
    down, across, square = -(-height // window), -(-width // window), window**2
    per_token = [
        (each - channels**2, "three projections make query, key and value; what comes after the heads are joined?"),
        (each - square * channels, "the T keys are met twice: for the scores, and for the weighted sum of values."),
        (4 * channels**2 + 2 * window * channels, "a window has T = window² tokens, not `window`."),
        (4 * channels**2 + 2 * tokens * channels, "a token meets the T keys of its window, not those of the whole "
         "map."),
        (4 * channels + 2 * square * channels, "a projection from C to C channels costs C² a token."),
    ]  # fmt: skip
    return {
        "executed": Expected(f"the first {what}", executed, [
            (useful, "executed is no more than useful: where is the padding? (Or have the two numbers changed places? "
             "executed comes first.)"),
            *((wrong * full, hint) for wrong, hint in per_token),
            ((height // window) * (width // window) * square * each, "that rounds down: the tokens that fill no whole "
             "window would be lost. Swin adds padding, so it rounds up."),
            ((height // window + 1) * (width // window + 1) * square * each, "where `window` divides a side already, "
             "nothing is added; here a whole window too many was."),
            (-(-tokens // square) * square * each, "the tokens were filled up to whole windows all together; but "
             "height and width are padded each by itself."),
            (down * window * width * each, "only the height is padded; the width needs it too."),
            (height * across * window * each, "only the width is padded; the height needs it too."),
            (down * across * each, "that counts windows; how many tokens are in one?"),
        ], "Round each side up to a multiple of `window`."),
        "useful": Expected(f"the second {what}", useful, [
            (executed, "the two numbers have changed places: executed comes first."),
            *((wrong * tokens, hint) for wrong, hint in per_token),
        ], "It is the cost of one token times the tokens of the map itself."),
    }  # fmt: skip


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
    ("second", "nothing"): "train P twice with different seeds: will both runs end within 0.2 points of each other? "
     "And who chose the epoch?",
    ("third", "training"): "same recipe for both: that is in order (as far as one recipe can suit both). Equal in "
     "what?",
    ("third", "luck"): "five seeds and seven points: that is no luck. Equal in what, and for which image size?",
    ("third", "nothing"): "recipe and seeds are in order. But swin_t at 32×32: what are its multiply-adds spent on?",
}  # fmt: skip


@exercise("07.5", "What is wrong with these three?", "easy", 5)
def flaws(first: Any, second: Any, third: Any) -> str:
    right = dict(zip(("first", "second", "third"), FLAWS, strict=False))
    for (name, flaw), said in zip(right.items(), (first, second, third), strict=True):
        if not isinstance(said, str) or said.strip().lower() not in FLAWS:
            raise Hint(f"{name} is {said!r}; use one of {', '.join(map(repr, FLAWS))}.")
        said = said.strip().lower()
        hint_if(said == "hardware", f"{name}: no time and no speed is claimed, and an accuracy does not depend on the "
            "machine.")  # fmt: skip
        if said != flaw:
            raise Hint(f"{name}: {_FLAW_HINTS[name, said]}")
    return "each reads well at first sight, and each leaves out what the checklist asks for."
