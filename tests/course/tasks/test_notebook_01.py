"""What students answer in notebook 01, and the hint that each answer gets."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from c2f_course.tasks import notebook_01 as checks

# ---- 01.1


def line(kernel: Tensor, n: int, first: int | None = None, wrap: bool = False) -> Tensor:
    """The right matrix, or one with a known slip."""
    first = -(len(kernel) // 2) if first is None else first
    matrix = torch.zeros(n, n)
    for p in range(n):
        for i, number in enumerate(kernel):
            q = p + i + first
            if wrap:
                matrix[p, q % n] += number
            elif 0 <= q < n:
                matrix[p, q] = number
    return matrix


def unpadded(kernel: Tensor, n: int) -> Tensor:
    rows = line(kernel, n, first=0)
    return rows[: n - len(kernel) + 1]


def with_padding(kernel: Tensor, n: int) -> Tensor:
    half = len(kernel) // 2
    return line(kernel, n + 2 * half, first=0)[:n]


def kernel_doubled(kernel: Tensor, n: int) -> Tensor:
    kernel *= 2
    return line(kernel / 2, n)


LINES = {
    "transposed": (lambda k, n: line(k, n).T, "either the matrix is transposed"),
    "turned around": (lambda k, n: line(k.flip(0), n), "the kernel was turned around"),
    "wrapped around": (lambda k, n: line(k, n, wrap=True), "what falls off is lost"),
    "begins at the diagonal": (lambda k, n: line(k, n, first=0), "begins at the diagonal"),
    "ends at the diagonal": (lambda k, n: line(k, n, first=1 - len(k)), "ends at the diagonal"),
    "one too far right": (lambda k, n: line(k, n, first=1 - len(k) // 2), "begins at the diagonal"),
    "one too far left": (lambda k, n: line(k, n, first=-1 - len(k) // 2), "ends at the diagonal"),
    "no padding": (unpadded, "without zeros around the line"),
    "padding for three": (
        lambda k, n: F.conv1d(torch.eye(n)[:, None], k[None, None], padding=1)[:, 0].T,
        "how many zeros does it need at each end",
    ),
    "padding kept": (with_padding, "still has the columns of the padding"),
    "nothing written": (lambda k, n: torch.zeros(n, n), "all zeros"),
    "only the diagonal": (lambda k, n: k[len(k) // 2] * torch.eye(n), "where do its neighbours go"),
    "a list": (lambda k, n: line(k, n).tolist(), "should be a torch tensor"),
    "changes the kernel": (kernel_doubled, "changed the kernel itself"),
    "only for three": (lambda k, n: line(k, n, first=-1), "nearly: everything lies one column too far to the right"),
}


@pytest.mark.parametrize("name", LINES)
def test_one_dimension(name: str) -> None:
    answer, fragment = LINES[name]
    verdict = checks.toeplitz_1d(answer)
    assert verdict.state == "hint" and fragment in verdict.message


def test_one_dimension_right() -> None:
    assert checks.toeplitz_1d(line).passed


# ---- 01.2


def plane(kernel: Tensor, height: int, width: int) -> Tensor:
    dots = torch.eye(height * width).view(-1, 1, height, width)
    return F.conv2d(dots, kernel[None, None], padding=kernel.shape[0] // 2).flatten(1).T


def columns_first(kernel: Tensor, height: int, width: int) -> Tensor:
    order = torch.arange(height * width).view(height, width).T.flatten()
    return plane(kernel, height, width)[order][:, order]


def leaking(kernel: Tensor, height: int, width: int) -> Tensor:
    k, n = kernel.shape[0], height * width
    matrix = torch.zeros(n, n)
    for p in range(n):
        for dy in range(k):
            for dx in range(k):
                q = p + (dy - k // 2) * width + dx - k // 2
                if 0 <= q < n:
                    matrix[p, q] += kernel[dy, dx]
    return matrix


def torus(kernel: Tensor, height: int, width: int) -> Tensor:
    k, n = kernel.shape[0], height * width
    matrix = torch.zeros(n, n)
    for p in range(n):
        for dy in range(k):
            for dx in range(k):
                y, x = p // width + dy - k // 2, p % width + dx - k // 2
                matrix[p, y % height * width + x % width] += kernel[dy, dx]
    return matrix


def from_the_corner(kernel: Tensor, height: int, width: int) -> Tensor:
    dots = torch.eye(height * width).view(-1, 1, height, width)
    edge = kernel.shape[0] - 1
    return F.conv2d(F.pad(dots, (0, edge, 0, edge)), kernel[None, None]).flatten(1).T


def without_edges(kernel: Tensor, height: int, width: int) -> Tensor:
    dots = torch.eye(height * width).view(-1, 1, height, width)
    return F.conv2d(dots, kernel[None, None]).flatten(1).T if kernel.shape[0] <= min(height, width) else dots


PLANES = {
    "transposed": (lambda k, h, w: plane(k, h, w).T, "either the matrix is transposed"),
    "turned around": (lambda k, h, w: plane(k.flip(0, 1), h, w), "the kernel was turned around"),
    "kernel transposed": (lambda k, h, w: plane(k.T, h, w), "rows and columns of the kernel are exchanged"),
    "columns first": (columns_first, "count row by row"),
    "row ends leak": (leaking, "the last position of a line meets the first of the next"),
    "torus": (torus, "the kernel comes in again on the other side"),
    "from the corner": (from_the_corner, "top left corner lies on p"),
    "no padding": (without_edges, "outputs at the map's edge left out"),
    "padding for three": (
        lambda k, h, w: F.conv2d(torch.eye(h * w).view(-1, 1, h, w), k[None, None], padding=1).flatten(1).T,
        "how many zeros does it need at each edge",
    ),
    "height and width exchanged": (lambda k, h, w: plane(k, w, h), "height and width are exchanged"),
    "four axes": (lambda k, h, w: plane(k, h, w).view(h, w, h, w), "right before the last step"),
    "nothing written": (lambda k, h, w: torch.zeros(h * w, h * w), "all zeros"),
    "one-dimensional": (lambda k, h, w: line(k.flatten(), h * w), "list the input positions that its window covers"),
}


@pytest.mark.parametrize("name", PLANES)
def test_two_dimensions(name: str) -> None:
    answer, fragment = PLANES[name]
    verdict = checks.toeplitz_2d(answer)
    assert verdict.state == "hint" and fragment in verdict.message


def test_two_dimensions_right() -> None:
    assert checks.toeplitz_2d(plane).passed


# ---- 01.3


def scores(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.transpose(1, 2)


def root(q: Tensor) -> float:
    return q.shape[-1] ** 0.5


def in_place(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q /= root(q)
    return scores(q, k).softmax(-1) @ v


ATTENTIONS = {
    "no scale": (lambda q, k, v: scores(q, k).softmax(-1) @ v, "not divided by √d yet"),
    "d for √d": (lambda q, k, v: (scores(q, k) / q.shape[-1]).softmax(-1) @ v, "should be its square root"),
    "times √d": (lambda q, k, v: (scores(q, k) * root(q)).softmax(-1) @ v, "dividing keeps them small"),
    "√n for √d": (lambda q, k, v: (scores(q, k) / q.shape[1] ** 0.5).softmax(-1) @ v, "√d counts the channels"),
    "a fixed number": (lambda q, k, v: (scores(q, k) / 6**0.5).softmax(-1) @ v, "take it from q's shape"),
    "down the columns": (lambda q, k, v: (scores(q, k) / root(q)).softmax(1) @ v, "runs down the columns"),
    "over the batch": (lambda q, k, v: (scores(q, k) / root(q)).softmax(0) @ v, "over the images"),
    "scale after softmax": (lambda q, k, v: scores(q, k).softmax(-1) / root(q) @ v, "the scale comes too late"),
    "neither scale nor row": (lambda q, k, v: scores(q, k).softmax(1) @ v, "two things"),
    "no softmax": (lambda q, k, v: scores(q, k) / root(q) @ v, "the softmax is missing"),
    "bare scores": (lambda q, k, v: scores(q, k) @ v, "scale and softmax are missing"),
    "exp alone": (lambda q, k, v: (scores(q, k) / root(q)).exp() @ v, "exp without its sum"),
    "weights alone": (lambda q, k, v: (scores(q, k) / root(q)).softmax(-1), "these are the weights"),
    "weights transposed": (lambda q, k, v: (scores(q, k) / root(q)).softmax(-1).mT @ v, "the matrix is transposed"),
    "v first": (lambda q, k, v: v @ (scores(q, k) / root(q)).softmax(-1), "the wrong side of v"),
    "k for v": (lambda q, k, v: (scores(q, k) / root(q)).softmax(-1) @ k, "weigh the keys"),
    "q for v": (lambda q, k, v: (scores(q, k) / root(q)).softmax(-1) @ q, "weigh the queries"),
    "channels compared": (lambda q, k, v: (q.mT @ k / root(q)).softmax(-1) @ v, "compares channels with channels"),
    "k not transposed": (lambda q, k, v: (q @ k / root(q)).softmax(-1) @ v, "without a transpose"),
    "sum for softmax": (
        lambda q, k, v: F.normalize(scores(q, k) / root(q), p=1.0, dim=-1) @ v, "without the exp of a softmax",
    ),
    "in place": (in_place, "changed q itself"),
    "one image": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v)[0], "should have shape (2, 6, 6)"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention(name: str) -> None:
    answer, fragment = ATTENTIONS[name]
    verdict = checks.attention(answer)
    assert verdict.state == "hint" and fragment in verdict.message


def test_attention_right() -> None:
    assert checks.attention(lambda q, k, v: (scores(q, k) / root(q)).softmax(-1) @ v).passed


# ---- 01.4


def costs(**wrong):
    """The right counts with some replaced: each takes n, c, k and gives a number."""

    def answer(side: int, c: int, k: int) -> dict:
        n = side * side
        right = {"attention": 2 * n * n * c, "depthwise": n * k * k * c, "dense": n * k * k * c * c}
        return {**right, **{name: count(n, c, k) for name, count in wrong.items()}}

    return answer


COSTS = {
    "one product": (costs(attention=lambda n, c, k: n * n * c), "one of two products"),
    "n for n²": (costs(attention=lambda n, c, k: 2 * n * c), "each position asks EVERY position"),
    "side for n": (costs(attention=lambda n, c, k: 2 * n**0.5 * c), "not the side"),
    "attention, no C": (costs(attention=lambda n, c, k: 2 * n * n), "a score sums over the channels"),
    "attention, C²": (costs(attention=lambda n, c, k: 2 * n * n * c * c), "not C²"),
    "scores counted": (costs(attention=lambda n, c, k: n * n), "the number of scores"),
    "with q, k and v": (costs(attention=lambda n, c, k: 2 * n * n * c + 3 * n * c * c), "what makes q, k and v;"),
    "with all four": (costs(attention=lambda n, c, k: 2 * n * n * c + 4 * n * c * c), "and the output"),
    "attention doubled": (costs(attention=lambda n, c, k: 4 * n * n * c), "apart"),
    "depthwise doubled": (costs(depthwise=lambda n, c, k: 2 * n * k * k * c), "apart"),
    "depthwise, side": (costs(depthwise=lambda n, c, k: n**0.5 * k * k * c), "how many positions"),
    "depthwise, k": (costs(depthwise=lambda n, c, k: n * k * c), "how many numbers are in the kernel"),
    "depthwise, C²": (costs(depthwise=lambda n, c, k: n * k * k * c * c), "that is the dense one"),
    "depthwise, no C": (costs(depthwise=lambda n, c, k: n * k * k), "one channel's share"),
    "depthwise, parameters": (costs(depthwise=lambda n, c, k: k * k * c), "used at every position"),
    "depthwise, whole matrix": (costs(depthwise=lambda n, c, k: n * n * c), "most are zero"),
    "dense, C": (costs(dense=lambda n, c, k: n * k * k * c), "ALL input channels"),
    "dense, k": (costs(dense=lambda n, c, k: n * k * c * c), "how many numbers are in the kernel"),
    "dense doubled": (costs(dense=lambda n, c, k: 2 * n * k * k * c * c), "apart"),
    "dense, side": (costs(dense=lambda n, c, k: n**0.5 * k * k * c * c), "how many positions"),
    "a tuple": (lambda side, c, k: (1, 2, 3), "a dictionary with the keys"),
    "something else": (costs(attention=lambda n, c, k: 17), "each a sum over the channels"),
}


@pytest.mark.parametrize("name", COSTS)
def test_multiply_adds(name: str) -> None:
    answer, fragment = COSTS[name]
    verdict = checks.multiply_adds(answer)
    assert verdict.state == "hint" and fragment in verdict.message


def test_multiply_adds_right_and_blank() -> None:
    assert checks.multiply_adds(costs()).passed
    assert checks.multiply_adds(lambda side, c, k: {"attention": ..., "depthwise": ..., "dense": ...}).state == "blank"


# ---- 01.5

SIDES = {
    "rounded down": (lambda k: int(k / 2**0.5), "rounded the wrong way"),
    "not rounded": (lambda k: k / 2**0.5, "a whole number of positions"),
    "positions": (lambda k: k * k // 2 + 1, "a number of POSITIONS"),
    "one product": (lambda k: k + 1, "attention has two"),
    "k": (lambda k: k, "the window fills the map"),
    "k²": (lambda k: k * k, "is it a side?"),
    "right for 11 only": (lambda k: 8, "the side for k = 3 is 8"),
}


@pytest.mark.parametrize("name", SIDES)
def test_dearer_from(name: str) -> None:
    answer, fragment = SIDES[name]
    verdict = checks.dearer_from(answer)
    assert verdict.state == "hint" and fragment in verdict.message


def test_dearer_from_right() -> None:
    assert checks.dearer_from(lambda k: int(k / 2**0.5) + 1).passed


# ---- 01.6

MATRICES = {
    "terms": (lambda t, u: t * u, "add up first"),
    "rows weighed": (lambda t, u: t * u[:, None], "weighs the rows of T by u"),
    "values convolved": (lambda t, u: torch.diag(t @ u) @ t, "convolves the VALUES, then weighs"),
    "values convolved after": (lambda t, u: t @ torch.diag(t @ u), "weighs the values, then convolves"),
    "T": (lambda t, u: t, "the convolution's own matrix"),
    "u": (lambda t, u: torch.diag(u), "nothing around has been asked"),
    "A": (lambda t, u: t @ u, "that is A, the weights"),
    "T transposed": (lambda t, u: torch.diag(u @ t), "T is transposed"),
    "the middle only": (lambda t, u: torch.diag((t @ torch.diag(u)).diagonal()), "the middle of each window"),
    "row sums": (lambda t, u: torch.diag(t.sum(1)), "u has not been used"),
    "row sums times u": (lambda t, u: torch.diag(t.sum(1) * u), "TIMES u, then summed"),
    "A in every row": (lambda t, u: (t @ u).expand(7, 7), "every row is A"),
    "A in every column": (lambda t, u: (t @ u)[:, None] * torch.ones(7, 7), "each output sums over ALL values"),
    "outer product": (lambda t, u: torch.outer(t @ u, t @ u), "at its own position only"),
    "twice": (lambda t, u: 2 * torch.diag(t @ u), "your matrix times v differs"),
}


@pytest.mark.parametrize("name", MATRICES)
def test_convmod_matrix(name: str) -> None:
    answer, fragment = MATRICES[name]
    verdict = checks.convmod_matrix(answer)
    assert verdict.state == "hint" and fragment in verdict.message


def test_convmod_matrix_right() -> None:
    assert checks.convmod_matrix(lambda t, u: torch.diag(t @ u)).passed
