"""The exercises of notebook 01: a convolution as a matrix, attention by hand, what both cost, ConvMod as a matrix."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f.fast.depthwise import toeplitz
from c2f_course.tasks.exercise import Expected, exercise, of_shape, task

# ---- Convolution

LINES = [(torch.arange(1.0, size + 1) ** 2, n) for size, n in ((3, 6), (5, 7), (1, 4), (5, 4))]  # no two numbers alike


@exercise("01.1", "One dimension", "easy", 6)
@task(LINES, "row p is the kernel laid around position p, and what hangs over the end is cut off.")
def toeplitz_1d(kernel: Tensor, n: int) -> Expected:
    size, half = len(kernel), len(kernel) // 2

    def shifted(by: int, kernel: Tensor = kernel) -> Tensor:
        """The kernel's first number `by` columns from the diagonal."""
        return sum((kernel[i] * _diagonal(n, i + by) for i in range(size)), start=torch.zeros(n, n))

    def shaped(rows: int, columns: int, hint: str) -> list[tuple[Tensor, str]]:
        hint = "your matrix is {made.shape[0]}×{made.shape[1]}: " + hint
        return [(of_shape(rows, columns), hint), (of_shape(columns, rows), hint)]

    far = int(size > 3)  # as for a kernel of 3
    mistakes = [
        *shaped(n - size + 1, n, f"without zeros around the line it gets shorter. With zero padding every one of the "
            f"{n} positions has an output, those at the ends too."),
        *shaped(n - size + 3, n, f"right for a kernel of 3, but not for one of {size}: how many zeros does it need at "
            "each end?"),
        *shaped(n + 2 * half, n, "it still has the columns of the padding. Those inputs are zero, so which columns are "
            "needed?"),
        (shifted(-half, kernel.flip(0)), "the numbers run backwards along each row: either the matrix is transposed, "
         "or the kernel was turned around. A row is an OUTPUT position, and deep learning lays the kernel down as it "
         "is."),
        (sum(kernel[i] * torch.eye(n).roll(i - half, 1) for i in range(size)), "at the ends the kernel comes in again "
         "on the other side. Zero padding: what falls off is lost."),
        (shifted(0), "the kernel begins at the diagonal; its MIDDLE belongs there."),
        (shifted(1 - size), "the kernel ends at the diagonal; its middle belongs there."),
        (shifted(far - half), "nearly: everything lies one column too far to the right."),
        (shifted(-far - half), "nearly: everything lies one column too far to the left."),
        (torch.zeros(n, n), "the matrix is all zeros: was anything written into it?"),
        (kernel[half] * torch.eye(n), "only the kernel's middle is in it; where do its neighbours go?"),
    ]  # fmt: skip
    right = toeplitz(kernel[None, None, None], 1, n)[0]
    return Expected(f"the matrix of a kernel of {size} on {n} positions", right, mistakes, "Take one row p, and write "
        "down which input position each kernel number meets.")  # fmt: skip


def _diagonal(n: int, offset: int) -> Tensor:
    return torch.diag(torch.ones(n - abs(offset)), offset) if abs(offset) < n else torch.zeros(n, n)


MAPS = [((torch.arange(1.0, k * k + 1) ** 1.5).view(k, k), h, w) for k, h, w in ((3, 4, 5), (5, 4, 6), (1, 2, 3))]


@exercise("01.2", "Two dimensions", "medium", 10)
@task(MAPS, "the same matrix as c2f.fast.depthwise.toeplitz, which the kit takes the gradient of on small maps.")
def toeplitz_2d(kernel: Tensor, height: int, width: int) -> Expected:
    k, size, half = len(kernel), height * width, len(kernel) // 2
    dots = torch.eye(size).view(-1, 1, height, width)

    def matrix(kernel: Tensor, height: int = height, width: int = width) -> Tensor:
        return toeplitz(kernel[None, None], height, width)[0]

    def shaped(outputs: int, hint: str) -> list[tuple[Tensor, str]]:
        hint = "your matrix is {made.shape[0]}×{made.shape[1]}: " + hint
        return [(of_shape(outputs, size), hint), (of_shape(size, outputs), hint)]

    steps = range(-half, half + 1)
    leaky = sum(
        (kernel[half + i, half + j] * _diagonal(size, width * i + j) for i in steps for j in steps),
        start=torch.zeros(size, size),
    )
    mistakes = [
        *shaped((height - k + 1) * (width - k + 1), "are the outputs at the map's edge left out? With zero padding "
            "there are as many outputs as inputs."),
        *shaped((height - k + 3) * (width - k + 3), f"right for a 3×3 kernel, but not for a {k}×{k} one: how many "
            "zeros does it need at each edge?"),
        (dots.view(height, width, height, width), "right before the last step: row and column of a position are still "
         "two axes; make one of them."),
        (matrix(kernel.flip(0, 1)), "the numbers run backwards along each row: either the matrix is transposed, or the "
         "kernel was turned around. Rows are OUTPUT positions."),
        (matrix(kernel.T), "rows and columns of the kernel are exchanged."),
        (matrix(kernel, width, height), "height and width are exchanged: a map is (H, W)."),
        (matrix(kernel.T, width, height), "positions are counted down the columns; count row by row: p = width · row + "
         "column."),
        (leaky, "the last position of a line meets the first of the next: on the map they are no neighbours. Check row "
         "AND column before you write."),
        (lambda: F.conv2d(F.pad(dots, [half] * 4, mode="circular"), kernel[None, None]).flatten(1).T, "at the edges "
         "the kernel comes in again on the other side. Zero padding: what falls off is lost."),
        (matrix(F.pad(kernel, (k - 1, 0, k - 1, 0))), "the kernel's top left corner lies on p; its middle belongs "
         "there."),
        (torch.zeros(size, size), "the matrix is all zeros: was anything written into it?"),
    ]  # fmt: skip
    return Expected(f"the matrix of a {k}×{k} kernel on a {height}×{width} map", matrix(kernel), mistakes, "Take one "
        "output position, and list the input positions that its window covers.")  # fmt: skip


# ---- Attention

# First as many positions as channels, so that a mistaken axis raises no error that would tell; then not.
DRAW = torch.Generator().manual_seed(1)
QUERIES = [tuple(torch.randn(3, *shape, generator=DRAW)) for shape in ((2, 6, 6), (3, 5, 8))]


@exercise("01.3", "Attention by hand", "medium", 6)
@task(QUERIES, "and it is what torch's scaled_dot_product_attention gives.")
def attention(q: Tensor, k: Tensor, v: Tensor) -> Expected:
    images, n, d = q.shape
    scores = q @ k.mT
    scaled = scores / d**0.5
    weights = scaled.softmax(-1)
    mistakes = [
        (scores.softmax(-1) @ v, "the scores are not divided by √d yet, where d is the number of channels."),
        ((scores / d).softmax(-1) @ v, "the scores are divided by d; it should be its square root."),
        ((scores * d**0.5).softmax(-1) @ v, "the scores are multiplied by √d; dividing keeps them small."),
        (scaled.softmax(1) @ v, "the softmax runs down the columns, so that the COLUMNS of the matrix sum to 1. One "
         "query's weights are a row."),
        (scaled.softmax(0) @ v, "the softmax runs over the images of the batch. One query's weights are a row."),
        (scores.softmax(-1) / d**0.5 @ v, "the scale comes too late: divide the scores, then take the softmax."),
        (scores.softmax(1) @ v, "two things: the scale is missing, and the softmax runs down the columns."),
        (scaled @ v, "the softmax is missing: the weights of a row should be positive and sum to 1."),
        (scores @ v, "scale and softmax are missing: these are bare scores times values."),
        (scaled.exp() @ v, "exp without its sum: the weights of a row must sum to 1."),
        (weights, "these are the weights, the matrix itself; now let them weigh the values."),
        (weights.mT @ v, "the matrix is transposed: row p should hold what QUERY p asks of every key."),
        (lambda: v @ weights, "the matrix stands on the wrong side of v: it mixes positions, and those are v's rows."),
        (weights @ k, "the weights weigh the keys; the values are what goes on."),
        (weights @ q, "the weights weigh the queries; the values are what goes on."),
        (lambda: (q.mT @ k / d**0.5).softmax(-1) @ v, "that compares channels with channels; compare positions: which "
         "axis of q and k should the product sum over?"),
        (lambda: (q @ k / d**0.5).softmax(-1) @ v, "q @ k without a transpose: it fits here only because there are as "
         "many positions as channels. A score sums over the channels of q AND of k."),
        (F.normalize(scaled, p=1.0, dim=-1) @ v, "that divides by a sum, but without the exp of a softmax."),
        ((scores / n**0.5).softmax(-1) @ v, f"with {n} positions of {d} channels the scale is off: √d counts the "
         "channels, not the positions."),
        ((scores / 6**0.5).softmax(-1) @ v, "the scale is a fixed number: take it from q's shape."),
        ((scores / images**0.5).softmax(-1) @ v, "the scale is taken from the number of images: which axis of q has "
         "the channels?"),
    ]  # fmt: skip
    right = F.scaled_dot_product_attention(q, k, v)
    if n == d:
        return Expected("the output", right, mistakes, "Scores, scale, softmax along a row, times the values.")
    return Expected(f"the output for {n} positions of {d} channels", right, mistakes, "It held when positions and "
        "channels were equally many: where do you use one for the other?")  # fmt: skip


# ---- Cost


@exercise("01.4", "Count multiply-adds", "medium", 6)
@task(
    [(8, 3, 5), (16, 32, 11), (20, 7, 3)],
    "n² for attention, n for both convolutions: that decides what happens on large maps.",
    wants=(dict, "return a dictionary with the keys attention, dense, depthwise."),
)
def multiply_adds(side: int, channels: int, k: int) -> dict[str, Expected]:
    n, c, at = side * side, channels, f"for side {side}, {channels} channels and k = {k}"
    # One multiply-add for each number of a kernel at each position, as torch's own parameters count them.
    depthwise, dense = (
        n * nn.Conv2d(c, c, k, groups=groups, bias=False, device="meta").weight.numel() for groups in (c, 1)
    )
    scores = n * n * c  # every position with every position, channel by channel
    apart = "that counts multiplications and additions apart; a multiply-add is one of each."
    positions = "how many positions has a map of that side?"
    numbers = "k is the kernel's side; how many numbers are in the kernel?"
    return {
        "depthwise": Expected(f"depthwise {at}", depthwise, [
            (2 * n * k * k * c, apart),
            (side * k * k * c, positions),
            (n * k * c, numbers),
            (n * k * k * c * c, "that is the dense one: depthwise, each output channel looks at one input channel."),
            (n * k * k, "that is one channel's share."),
            (k * k * c, "those are the kernel's numbers; each is used at every position."),
            (n * n * c, "a Toeplitz matrix has n² numbers, but most are zero and nobody multiplies by them."),
        ], "One output number takes k² multiply-adds; how many output numbers are there?"),
        "dense": Expected(f"dense {at}", dense, [
            (2 * n * k * k * c * c, apart),
            (side * k * k * c * c, positions),
            (n * k * k * c, "that is the depthwise one: in a dense convolution each output channel looks at ALL input "
             "channels."),
            (n * k * c * c, numbers),
        ], "One output number takes k² multiply-adds for EACH input channel."),
        "attention": Expected(f"attention {at}", 2 * scores, [
            (scores, "that is one of two products: the scores q · k, and then the weights times the values."),
            (4 * scores, apart),
            (2 * n * c, "each position asks EVERY position: that is n times n scores."),
            (2 * side * c, "n is the number of positions, not the side; and each position asks every position."),
            (2 * n * n, "a score sums over the channels: how many multiply-adds is one?"),
            (2 * n * n * c * c, "a score q · k sums over the channels once: C multiply-adds, not C²."),
            (n * n, "that is the number of scores. What does each cost, and what happens to them afterwards?"),
            (2 * scores + 3 * n * c * c, "that includes what makes q, k and v; here only what mixes positions counts."),
            (2 * scores + 4 * n * c * c, "that includes what makes q, k, v and the output; here only what mixes "
             "positions counts."),
        ], "The scores are n × n, each a sum over the channels; the weights times v costs the same again."),
    }  # fmt: skip


@exercise("01.5", "Where attention gets dearer", "medium", 5)
@task([(11,), (3,), (7,), (21,)], "on paper, for 11×11: from 8×8 on. What the machine says, the plot has shown you.")
def dearer_from(k: int) -> Expected:
    side = next(s for s in range(1, 100) if 2 * s**4 > k * k * s * s)  # the channels are the same in both
    mistakes = [
        (next(n for n in range(1, 10_000) if 2 * n > k * k), f"that is a number of POSITIONS; what is the side of a "
         f"square map with that many? (k = {k})"),
        (k + 1, f"for k = {k} that is where ONE product of n² gets dearer; attention has two."),
        (side - 1, f"for k = {k} attention is still cheaper at a side of {side - 1}: rounded the wrong way?"),
        (k, f"for k = {k}: the window fills the map there, but attention costs two multiply-adds for each pair."),
        (k * k, f"for k = {k} that is the number of kernel numbers: is it a side?"),
        (k / 2**0.5, f"a side is a whole number of positions, and you give {k / 2**0.5:.3g} for k = {k}: the first "
         "whole side at which attention takes MORE?"),
    ]  # fmt: skip
    return Expected(f"the side for k = {k}", side, mistakes, "Set 2 n² C against k² n C, with n = side².")


# ---- ConvMod

DRAW = torch.Generator().manual_seed(2)
MATRIX_AND_U = [(torch.randn(7, 7, generator=DRAW), torch.randn(7, generator=DRAW))]


@exercise("01.6", "ConvMod as a matrix", "hard", 6)
@task(MATRIX_AND_U, "made from the image like attention's matrix, and diagonal: nothing moves, everything is weighed.")
def convmod_matrix(t: Tensor, u: Tensor) -> Expected:
    a = t @ u
    mistakes = [
        (a, "that is A, the weights; which matrix multiplies each value by its own weight, and mixes nothing?"),
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
    return Expected("the matrix", torch.diag(a), mistakes, "Times v it should give A ⊙ V, with A = T u, and times a v "
        "of ones A itself; a value at q should not reach any other position.")  # fmt: skip
