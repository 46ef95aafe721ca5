"""The exercises of notebook 07, on window attention and fair comparison: windows, mask, offsets, padding, flaws."""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.swin_transformer import ShiftedWindowAttention
from torchvision.ops.misc import Permute

from c2f.models.cost import multiply_adds
from c2f_course.tasks.exercise import Expected, exercise, hint_if, of_shape, sentences, task

SAY = sentences(__name__)


def cut(grid: Tensor, side: int) -> Tensor:
    """Cut a map (H, W) into windows of side × side, both counted row by row: (windows, side²)."""
    if grid.ndim != 2 or grid.shape[0] % side or grid.shape[1] % side:
        raise ValueError(f"the map has shape {tuple(grid.shape)}; give (H, W), both multiples of {side}.")
    return torch.cat([band.unfold(1, side, side).transpose(0, 1).flatten(1) for band in grid.split(side)])


@exercise("07.1", "Into windows", "easy", 6)
@task([(torch.randn(8, 12, 3, generator=torch.Generator().manual_seed(7)), 4)], SAY["into_windows"])
def into_windows(x_hwc: Tensor, side: int) -> Expected:
    x = x_hwc
    place = torch.arange(96).view(8, 12)  # each token's number, row by row
    order = cut(place, side)
    across = order.view(2, 3, 16).transpose(0, 1).reshape(6, 16)

    def at(tokens: Tensor) -> Tensor:
        return x.flatten(0, 1)[tokens]

    def turned(tokens: Tensor) -> Tensor:
        return at(tokens.view(-1, 4, 4).transpose(1, 2).reshape(-1, 16))

    mistakes = {
        "reshape alone": x.reshape(6, 16, 3),
        "axes split in the wrong order": at(place.view(2, 3, 4, 4).transpose(1, 2).reshape(6, 16)),
        "counted by columns": at(across),
        "tokens by columns": turned(order),
        "rows and columns exchanged": turned(across),
        "reversed": at(order).flip(0),
        "unfold": x.unfold(0, side, side).unfold(1, side, side).reshape(6, 16, 3),
        "windows in the channels": of_shape(2, 16, 9),
    }

    def has_more_axes(made: Any) -> bool:
        return isinstance(made, Tensor) and made.ndim in (4, 5) and made.numel() == x.numel()

    return Expected("the windows", at(order), mistakes, signs={"axes not joined": has_more_axes})


def _visible(height: int, width: int, window: int, shift: int) -> Tensor:
    """Who sees whom in the windows of the rolled map, (windows, T, T) bool.

    Asked of torchvision: its attention over values that are one-hot positions.
    """
    count = height * width
    attention = ShiftedWindowAttention(count, [window, window], [shift, shift], num_heads=1).eval()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.zero_()
        attention.qkv.weight[2 * count :] = torch.eye(count)
        attention.proj.weight.copy_(torch.eye(count))
        visible = attention(torch.eye(count).view(1, height, width, count)).view(count, count) > 1e-6
    tokens = cut(torch.arange(height * width).view(height, width).roll((-shift, -shift), dims=(0, 1)), window)
    return visible[tokens[:, :, None], tokens[:, None, :]]


@exercise("07.2", "The mask", "medium", 10)
@task([(8, 12, 4, 1), (8, 8, 4, 2)], SAY["window_mask"])  # with half the window a roll the other way would not show
def window_mask(height: int, width: int, window: int, shift: int) -> Expected:
    right = _visible(height, width, window, shift)
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

    mistakes = {
        "all see all": torch.ones_like(right),
        "turned round": ~right,
        "top alone": mask(top),
        "left alone": mask(left),
        "two numbers": mask(top | left),
        "one number for both": mask(top + left),
        "rolled the other way": mask(top + 2 * left, shift),
        "not rolled": mask(top + 2 * left, 0),
        "the other edges": mask(bottom + 2 * far),
        "one for each token": of_shape(count, window**2).bool(),
        "not cut": of_shape(tokens, tokens).bool(),
    }
    what, signs = f"the mask of a {height}×{width} map with shift {shift}", {"to add": is_added, "no mask": is_no_mask}
    return Expected(what, right, mistakes, "second map" if height == width else "otherwise", signs=signs)


@exercise("07.3", "Where in the table?", "medium", 8)
@task([(3,), (4,)], SAY["relative_index"])
def relative_index(side: int) -> Expected:
    count, most, row = side**2, side - 1, 2 * side - 1
    right = ShiftedWindowAttention(1, [side, side], [0, 0], 1).relative_position_index.view(count, count)
    rows, columns = torch.arange(count) // side, torch.arange(count) % side
    down, across = rows[:, None] - rows, columns[:, None] - columns
    mistakes = {
        "key minus query": right.T,
        "negative entries": down * row + across,
        "side for a row": (down + most) * side + across + most,
        "2 side for a row": (down + most) * 2 * side + across + most,
        "rows and columns exchanged": (across + most) * row + down + most,
        "no signs": down.abs() * row + across.abs(),
        "a plain sum": down + across + 2 * most,
        "one too far": (down + side) * row + across + side,
        "one line": of_shape(side**4),
    }

    def no_index(made: Any) -> bool:
        whole = isinstance(made, Tensor) and not made.is_floating_point() and made.dtype != torch.bool
        return isinstance(made, Tensor) and made.shape == right.shape and not whole

    return Expected(f"the index for side {side}", right, mistakes, signs={"no whole numbers": no_index})


@exercise("07.4", "The cost of padding", "medium", 8)
@task(
    [(8, 10, 96, 7), (4, 9, 16, 3), (16, 16, 64, 4)],
    SAY["attention_cost"],
    ask=lambda answer, *inputs: made.tolist() if isinstance(made := answer(*inputs), Tensor) else made,
)
def attention_cost(height: int, width: int, channels: int, window: int) -> dict[str, Expected]:
    attention = ShiftedWindowAttention(channels, [window, window], [0, 0], num_heads=1)
    counted = multiply_adds(nn.Sequential(Permute([0, 2, 3, 1]), attention), (height, width), channels)
    executed, useful, tokens = counted.nominal, counted.useful, height * width
    each, full = useful // tokens, executed * tokens // useful
    what = f"number for {height}×{width} tokens, {channels} channels and windows of {window}"
    down, across, square = -(-height // window), -(-width // window), window**2
    per_token = {
        "no last projection": each - channels**2,
        "keys met once": each - square * channels,
        "side for the window": 4 * channels**2 + 2 * window * channels,
        "the whole map": 4 * channels**2 + 2 * tokens * channels,
        "projection of C": 4 * channels + 2 * square * channels,
    }
    too_much = {
        "as much as useful": useful,
        **{name: wrong * full for name, wrong in per_token.items()},
        "rounded down": (height // window) * (width // window) * square * each,
        "a window too many": (height // window + 1) * (width // window + 1) * square * each,
        "padded all together": -(-tokens // square) * square * each,
        "height alone": down * window * width * each,
        "width alone": height * across * window * each,
        "windows, not tokens": down * across * each,
    }
    exchanged = {"exchanged": executed, **{name: wrong * tokens for name, wrong in per_token.items()}}
    return {
        "executed": Expected(f"the first {what}", executed, too_much),
        "useful": Expected(f"the second {what}", useful, exchanged),
    }


FLAWS = ("training", "luck", "padding", "hardware", "nothing")


@exercise("07.5", "What is wrong with these three?", "easy", 5)
def flaws(first: Any, second: Any, third: Any) -> str:
    say = SAY["flaws"]
    for name, flaw, said in zip(("first", "second", "third"), FLAWS[:3], (first, second, third), strict=True):
        known = isinstance(said, str) and said.strip().lower() in FLAWS
        hint_if(not known, say["unknown"].format(name=name, said=said, flaws=", ".join(map(repr, FLAWS))))
        hints, said = {**say, **say[name]}, said.strip().lower()
        hint_if(said != flaw, f"{name}: {hints.get(said)}")
    return say["praise"]
