"""The exercises of notebook 01: a convolution as a matrix, attention by hand, what both cost, ConvMod as a matrix."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from c2f.fast.depthwise import toeplitz
from c2f_course.tasks.exercise import (
    Hint,
    Known,
    exercise,
    expect,
    expect_filled,
    expect_tensor,
    expect_untouched,
    is_close,
)

# ---- Convolution


@exercise("01.1", "One dimension", "easy", 6)
def toeplitz_1d(answer: Callable[[Tensor, int], Tensor]) -> str:
    """Knows: transposed, kernel turned around, wrapped around, begun at the diagonal, ended there, no padding, int."""
    for size, n in ((3, 6), (5, 7), (1, 4), (5, 4)):
        kernel = torch.arange(1.0, size + 1) ** 2  # no two numbers alike, and no symmetry
        before, half = kernel.clone(), size // 2
        right = toeplitz(kernel[None, None, None], 1, n)[0]
        made = answer(kernel, n)
        expect_untouched(kernel, before, "the kernel")
        if isinstance(made, Tensor) and made.shape in ((n - size + 1, n), (n, n - size + 1)) and size > 1:
            raise Hint(
                f"your matrix is {made.shape[0]}×{made.shape[1]}: without zeros around the line it gets shorter. "
                f"With zero padding every one of the {n} positions has an output, those at the ends too."
            )
        if isinstance(made, Tensor) and size > 3 and made.shape in ((n - size + 3, n), (n, n - size + 3)):
            raise Hint(f"right for a kernel of 3, but one of {size} makes {made.shape[0]}×{made.shape[1]}: how many "
                       f"zeros does it need at each end?")  # fmt: skip
        if isinstance(made, Tensor) and made.shape in ((n, n + 2 * half), (n + 2 * half, n)) and half:
            raise Hint(
                f"your matrix is {made.shape[0]}×{made.shape[1]}: it still has the columns of the padding. Those "
                f"inputs are zero, so which columns are needed?"
            )

        def shifted(by: int, size: int = size, n: int = n, kernel: Tensor = kernel) -> Tensor:
            """The kernel's first number `by` columns from the diagonal."""
            return sum(
                (kernel[i] * _diagonal(n, i + by) for i in range(size)), start=torch.zeros(n, n)
            )  # fmt: skip

        wrapped = sum(
            (kernel[i] * torch.eye(n).roll(i - half, 1) for i in range(size)), start=torch.zeros(n, n)
        )  # fmt: skip
        flipped = toeplitz(kernel.flip(0)[None, None, None], 1, n)[0]
        known: Known = [
            (flipped, "the numbers run backwards along each row: either the matrix is transposed, or the kernel was "
             "turned around. A row is an OUTPUT position, and deep learning lays the kernel down as it is."),
            (wrapped, "at the ends the kernel comes in again on the other side. Zero padding: what falls off is lost."),
            (shifted(0), "the kernel begins at the diagonal; its MIDDLE belongs there."),
            (shifted(1 - size), "the kernel ends at the diagonal; its middle belongs there."),
            (shifted(1 - half), "nearly: everything lies one column too far to the right."),
            (shifted(-1 - half), "nearly: everything lies one column too far to the left."),
            (torch.zeros(n, n), "the matrix is all zeros: was anything written into it?"),
            (torch.diag(kernel[half].expand(n)), "only the kernel's middle is in it; where do its neighbours go?"),
        ]  # fmt: skip
        expect(made, right, f"the matrix of a kernel of {size} on {n} positions", known,
                "Take one row p, and write down which input position each kernel number meets.")  # fmt: skip
    return "row p is the kernel laid around position p, and what hangs over the end is cut off."


def _diagonal(n: int, offset: int) -> Tensor:
    return torch.diag(torch.ones(n - abs(offset)), offset) if abs(offset) < n else torch.zeros(n, n)


@exercise("01.2", "Two dimensions", "medium", 10)
def toeplitz_2d(answer: Callable[[Tensor, int, int], Tensor]) -> str:
    """Knows: transposed, turned around, columns counted first, row ends that leak, a torus, begun at the corner."""
    for k, height, width in ((3, 4, 5), (5, 4, 6), (1, 2, 3)):
        kernel = (torch.arange(1.0, k * k + 1) ** 1.5).view(k, k)
        before, size = kernel.clone(), height * width
        right = toeplitz(kernel[None, None], height, width)[0]
        made = answer(kernel, height, width)
        expect_untouched(kernel, before, "the kernel")
        inside = (height - k + 1) * (width - k + 1)
        if isinstance(made, Tensor) and made.ndim == 2 and set(made.shape) == {inside, size} and k > 1:
            raise Hint(f"your matrix is {made.shape[0]}×{made.shape[1]}: are the outputs at the map's edge left out? "
                       f"With zero padding there are as many outputs as inputs.")  # fmt: skip
        as_of_3 = (height - k + 3) * (width - k + 3)
        if isinstance(made, Tensor) and made.ndim == 2 and set(made.shape) == {as_of_3, size} and k > 3:
            raise Hint(f"right for a 3×3 kernel, but a {k}×{k} one makes {made.shape[0]}×{made.shape[1]}: how many "
                       f"zeros does it need at each edge?")  # fmt: skip
        if isinstance(made, Tensor) and made.shape == (height, width, height, width):
            raise Hint("right before the last step: row and column of a position are still two axes; make one of them.")
        flipped, turned = (toeplitz(other[None, None], height, width)[0] for other in (kernel.flip(0, 1), kernel.T))
        columns_first = toeplitz(kernel.T[None, None], width, height)[0]
        from_corner = toeplitz(F.pad(kernel, (k - 1, 0, k - 1, 0))[None, None], height, width)[0]
        known: Known = [
            (flipped, "the numbers run backwards along each row: either the matrix is transposed, or the kernel was "
             "turned around. Rows are OUTPUT positions."),
            (turned, "rows and columns of the kernel are exchanged."),
            (toeplitz(kernel[None, None], width, height)[0], "height and width are exchanged: a map is (H, W)."),
            (columns_first, "positions are counted down the columns; count row by row: p = width · row + column."),
            (_leaky(kernel, height, width), "the last position of a line meets the first of the next: on the map they "
             "are no neighbours. Check row AND column before you write."),
            (_torus(kernel, height, width), "at the edges the kernel comes in again on the other side. Zero padding: "
             "what falls off is lost."),
            (from_corner, "the kernel's top left corner lies on p; its middle belongs there."),
            (torch.zeros(size, size), "the matrix is all zeros: was anything written into it?"),
        ]  # fmt: skip
        expect(made, right, f"the matrix of a {k}×{k} kernel on a {height}×{width} map", known,
                "Take one output position, and list the input positions that its window covers.")  # fmt: skip
    return "the same matrix as c2f.fast.depthwise.toeplitz, which the kit computes with on small maps."


def _offsets(kernel: Tensor, width: int) -> list[tuple[float, int]]:
    """Each number of a kernel (k, k), and how many positions further it looks if positions are one long line."""
    k = kernel.shape[0]
    steps = range(-(k // 2), k // 2 + 1)
    return list(zip(kernel.flatten().tolist(), (width * dy + dx for dy in steps for dx in steps), strict=True))


def _leaky(kernel: Tensor, height: int, width: int) -> Tensor:
    """As if positions were one long line: the end of a row of the map is followed by the next row's beginning."""
    n = height * width
    return sum((number * _diagonal(n, offset) for number, offset in _offsets(kernel, width)), start=torch.zeros(n, n))


def _torus(kernel: Tensor, height: int, width: int) -> Tensor:
    """As if the map's edges were sewn together."""
    dots = torch.eye(height * width).view(-1, 1, height, width)
    half = kernel.shape[0] // 2
    if half > min(height, width):
        return torch.full((1, 1), torch.nan)
    return F.conv2d(F.pad(dots, [half] * 4, mode="circular"), kernel[None, None]).flatten(1).T


# ---- Attention


@exercise("01.3", "Attention by hand", "medium", 6)
def attention(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> str:
    """Knows: no or another scale, softmax over the wrong axis or none, weights for the output, v first, k for v."""
    draw = torch.Generator().manual_seed(1)
    # As many positions as channels, so that a mistaken axis raises no error that would tell.
    q, k, v = (torch.randn(2, 6, 6, generator=draw) for _ in range(3))
    before = [t.clone() for t in (q, k, v)]
    right = F.scaled_dot_product_attention(q, k, v)
    made = expect_tensor(answer(q, k, v), tuple(v.shape), "the output")
    for name, tensor, old in zip("qkv", (q, k, v), before, strict=True):
        expect_untouched(tensor, old, name)
    scores = q @ k.transpose(1, 2)
    scaled = scores / 6**0.5
    weights = scaled.softmax(-1)
    known: Known = [
        (scores.softmax(-1) @ v, "the scores are not divided by √d yet, where d is the number of channels."),
        ((scores / 6).softmax(-1) @ v, "the scores are divided by d; it should be its square root."),
        ((scores * 6**0.5).softmax(-1) @ v, "the scores are multiplied by √d; dividing keeps them small."),
        (scaled.softmax(1) @ v, "the softmax runs down the columns, so that the COLUMNS of the matrix sum to 1. One "
         "query's weights are a row."),
        (scaled.softmax(0) @ v, "the softmax runs over the images of the batch. One query's weights are a row."),
        (scores.softmax(-1) / 6**0.5 @ v, "the scale comes too late: divide the scores, then take the softmax."),
        (scores.softmax(1) @ v, "two things: the scale is missing, and the softmax runs down the columns."),
        (scaled @ v, "the softmax is missing: the weights of a row should be positive and sum to 1."),
        (scores @ v, "scale and softmax are missing: these are bare scores times values."),
        (scaled.exp() @ v, "exp without its sum: the weights of a row must sum to 1."),
        (weights, "these are the weights, the matrix itself; now let them weigh the values."),
        (weights.transpose(1, 2) @ v, "the matrix is transposed: row p should hold what QUERY p asks of every key."),
        (v @ weights, "the matrix stands on the wrong side of v: it mixes positions, and those are v's rows."),
        (weights @ k, "the weights weigh the keys; the values are what goes on."),
        (weights @ q, "the weights weigh the queries; the values are what goes on."),
        ((q.transpose(1, 2) @ k / 6**0.5).softmax(-1) @ v, "that compares channels with channels; compare positions: "
         "which axis of q and k should the product sum over?"),
        ((q @ k / 6**0.5).softmax(-1) @ v, "q @ k without a transpose: it fits here only because there are as many "
         "positions as channels. A score sums over the channels of q AND of k."),
        (F.normalize(scaled, p=1.0, dim=-1) @ v, "that divides by a sum, but without the exp of a softmax."),
    ]  # fmt: skip
    expect(made, right, "the output", known, "Scores, scale, softmax along a row, times the values.")
    n, d = 5, 8  # and now another number of positions than of channels
    q, k, v = (torch.randn(3, n, d, generator=draw) for _ in range(3))
    made = expect_tensor(answer(q, k, v), (3, n, d), f"the output for {n} positions of {d} channels")
    known = [
        ((q @ k.transpose(1, 2) / n**0.5).softmax(-1) @ v, f"with {n} positions of {d} channels the scale is off: √d "
         "counts the channels, not the positions."),
        ((q @ k.transpose(1, 2) / 6**0.5).softmax(-1) @ v, "the scale is a fixed number: take it from q's shape."),
        ((q @ k.transpose(1, 2) / 3**0.5).softmax(-1) @ v, "the scale is taken from the number of images: which axis "
         "of q has the channels?"),
    ]  # fmt: skip
    expect(made, F.scaled_dot_product_attention(q, k, v), "the output", known, "It held when positions and channels "
            "were equally many: where do you use one for the other?")  # fmt: skip
    return "and it is what torch's scaled_dot_product_attention gives."


# ---- Cost


@exercise("01.4", "Count multiply-adds", "medium", 6)
def multiply_adds(answer: Callable[[int, int, int], dict[str, int]]) -> str:
    """Knows: a side for the positions, one product for two, k for k², C² where it is C and the reverse, doubles."""
    for side, channels, k in ((8, 3, 5), (16, 32, 11), (20, 7, 3)):
        made = answer(side, channels, k)
        if isinstance(made, dict):
            expect_filled(*made.values())
        wanted = {"attention", "depthwise", "dense"}
        if not isinstance(made, dict) or set(made) != wanted:
            raise Hint(f"return a dictionary with the keys {', '.join(sorted(wanted))}.")
        x = torch.empty(1, channels, side, side, device="meta")
        at = f"for side {side}, {channels} channels and k = {k}"
        n = side * side
        # One multiply-add for each number of a kernel at each position, as torch's own parameters count them.
        right = {
            name: x[0, 0].numel() * torch.nn.Conv2d(
                channels, channels, k, groups=groups, bias=False, device="meta"
            ).weight.numel()
            for name, groups in (("depthwise", channels), ("dense", 1))
        }  # fmt: skip
        c = channels
        expect(made["depthwise"], float(right["depthwise"]), f"depthwise {at}", [
            (2 * n * k * k * c, "that counts multiplications and additions apart; a multiply-add is one of each."),
            (side * k * k * c, "how many positions has a map of that side?"),
            (n * k * c, "k is the kernel's side; how many numbers are in the kernel?"),
            (n * k * k * c * c, "that is the dense one: depthwise, each output channel looks at one input channel."),
            (n * k * k, "that is one channel's share."),
            (k * k * c, "those are the kernel's numbers; each is used at every position."),
            (n * n * c, "a Toeplitz matrix has n² numbers, but most are zero and nobody multiplies by them."),
        ], "One output number takes k² multiply-adds; how many output numbers are there?")  # fmt: skip
        expect(made["dense"], float(right["dense"]), f"dense {at}", [
            (2 * n * k * k * c * c, "that counts multiplications and additions apart; a multiply-add is one of each."),
            (side * k * k * c * c, "how many positions has a map of that side?"),
            (n * k * k * c, "that is the depthwise one: in a dense convolution each output channel looks at ALL input "
             "channels."),
            (n * k * c * c, "k is the kernel's side; how many numbers are in the kernel?"),
        ], "One output number takes k² multiply-adds for EACH input channel.")  # fmt: skip
        scores = right["depthwise"] * n / (k * k)  # every position with every position, channel by channel
        expect(made["attention"], 2 * scores, f"attention {at}", [
            (scores, "that is one of two products: the scores q · k, and then the weights times the values."),
            (4 * scores, "that counts multiplications and additions apart; a multiply-add is one of each."),
            (2 * n * c, "each position asks EVERY position: that is n times n scores."),
            (2 * side * side * c, "each position asks EVERY position: that is n times n scores."),
            (2 * side * c, "n is the number of positions, not the side; and each position asks every position."),
            (2 * n * n, "a score sums over the channels: how many multiply-adds is one?"),
            (2 * n * n * c * c, "a score q · k sums over the channels once: C multiply-adds, not C²."),
            (n * n, "that is the number of scores. What does each cost, and what happens to them afterwards?"),
            (2 * scores + 3 * n * c * c, "that includes what makes q, k and v; here only what mixes positions counts."),
            (2 * scores + 4 * n * c * c, "that includes what makes q, k, v and the output; here only what mixes "
             "positions counts."),
        ], "The scores are n × n, each a sum over the channels; the weights times v costs the same again.")  # fmt: skip
    return "n² for attention, n for both convolutions: that decides what happens on large maps."


@exercise("01.5", "Where attention gets dearer", "medium", 5)
def dearer_from(answer: Callable[[int], int]) -> str:
    """Knows: one product for two, positions for the side, rounded down, k itself, k² for the positions."""
    for k in (11, 3, 7, 21):
        side = next(s for s in range(1, 100) if 2 * s**4 > k * k * s * s)  # the channels are the same in both
        one_product = next(s for s in range(1, 100) if s**4 > k * k * s * s)
        made = answer(k)
        positions = next(n for n in range(1, 10_000) if 2 * n > k * k)
        known: Known = [
            (positions, f"that is a number of POSITIONS; what is the side of a square map with that many? (k = {k})"),
            (one_product, f"for k = {k} that is where ONE product of n² gets dearer; attention has two."),
            (side - 1, f"for k = {k} attention is still cheaper at a side of {side - 1}: rounded the wrong way?"),
            (k, f"for k = {k}: the window fills the map there, but attention costs two multiply-adds for each pair."),
            (k * k, f"for k = {k} that is the number of kernel numbers: is it a side?"),
        ]  # fmt: skip
        if isinstance(made, float) and made != int(made):
            raise Hint(f"a side is a whole number of positions, and you give {made:.3g} for k = {k}: the first whole "
                       f"side at which attention takes MORE?")  # fmt: skip
        expect(made, float(side), f"the side for k = {k}", known, "Set 2 n² C against k² n C, with n = side².")
    return "on paper, for 11×11: from 8×8 on. What the machine says, the plot has shown you."


# ---- ConvMod


@exercise("01.6", "ConvMod as a matrix", "hard", 6)
def convmod_matrix(answer: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Knows: rows or columns of T weighed instead, T itself, A itself, T transposed, A on every row or column."""
    draw = torch.Generator().manual_seed(2)
    t, u, v = (torch.randn(shape, generator=draw) for shape in ((7, 7), (7,), (7,)))
    before = t.clone(), u.clone()
    made = answer(t, u)
    expect_untouched(t, before[0], "T")
    expect_untouched(u, before[1], "u")
    a = t @ u
    if isinstance(made, Tensor) and made.shape == (7,):
        raise Hint("that is A, the weights; which matrix multiplies each value by its own weight, and mixes nothing?")
    known: Known = [
        (t * u, "row p of this holds the terms T[p, q] · u[q]; times v they would mix the values of other positions. "
         "In ConvMod a value stays where it is: add up first."),
        (t * u[:, None], "this weighs the rows of T by u; times v it mixes the values of other positions."),
        (t * a[:, None], "times v this convolves the VALUES, then weighs them. In ConvMod the convolution makes the "
         "weights only."),
        (t * a, "times v this weighs the values, then convolves them. In ConvMod the convolution makes the weights."),
        (t, "that is the convolution's own matrix; ConvMod's is made from the image too."),
        (torch.diag(u), "that multiplies each value by its own u: nothing around has been asked."),
        (torch.diag(t.T @ u), "T is transposed: A = T u takes row p for position p."),
        (torch.diag(t.diagonal() * u), "that has the middle of each window only; A sums over the whole row of T."),
        (torch.diag(t.sum(1)), "those are the row sums of T: u has not been used."),
        (torch.diag(t.sum(1) * u), "the sum over q must contain u[q]: it is T's row TIMES u, then summed."),
        (a.expand(7, 7), "every row is A: then every output is the same sum over all values."),
        (a[:, None].expand(7, 7), "row p holds A[p] everywhere: then each output sums over ALL values."),
        (torch.outer(a, a), "each output should depend on the value at its own position only."),
    ]  # fmt: skip
    made = expect_tensor(made, (7, 7), "the matrix")
    for wrong, hint in known:
        if is_close(made, wrong):
            raise Hint(hint)
    # What is true of it: whatever the values are, it gives the Hadamard product.
    expect(made @ v, a * v, "your matrix times v", [], "It should give A ⊙ V, with A = T u.")
    expect(made @ torch.ones(7), a, "your matrix times a v of ones", [], "That should be A itself.")
    off = (made - torch.diag(made.diagonal())).abs().max().item()
    if off > 1e-5 * a.abs().max().item():
        raise Hint("it is right for one v by chance; a value at q should not reach any other position.")
    return "made from the image like attention's matrix, and diagonal: nothing moves, everything is weighed."
