"""The exercises of notebook 01: a convolution as a matrix, attention by hand, what both cost, ConvMod as a matrix."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f.fast.depthwise import toeplitz
from c2f_course.tasks.exercise import Expected, exercise, of_shape, sentences, task

SAY = sentences(__name__)

# ---- Convolution


def _diagonal(n: int, offset: int) -> Tensor:
    return torch.diag(torch.ones(n - abs(offset)), offset) if abs(offset) < n else torch.zeros(n, n)


def _either_way(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """The results of a mistake that is told by the matrix's shape, which may be transposed."""
    return of_shape(rows, columns), of_shape(columns, rows)


LINES = [(torch.arange(1.0, size + 1) ** 2, n) for size, n in ((3, 6), (5, 7), (1, 4), (5, 4))]  # no two numbers alike


@exercise("01.1", "One dimension", "easy", 6)
@task(LINES, SAY["toeplitz_1d"])
def toeplitz_1d(kernel: Tensor, n: int) -> Expected:
    size, half = len(kernel), len(kernel) // 2

    def shifted(by: int, kernel: Tensor = kernel) -> Tensor:
        """The kernel's first number `by` columns from the diagonal."""
        return sum((kernel[i] * _diagonal(n, i + by) for i in range(size)), start=torch.zeros(n, n))

    far = int(size > 3)  # as for a kernel of 3
    mistakes = {
        "no padding": _either_way(n - size + 1, n),
        "padding of 1": _either_way(n - size + 3, n),
        "padding kept": _either_way(n + 2 * half, n),
        "backwards": shifted(-half, kernel.flip(0)),
        "circular": sum(kernel[i] * torch.eye(n).roll(i - half, 1) for i in range(size)),
        "begins at the diagonal": shifted(0),
        "ends at the diagonal": shifted(1 - size),
        "too far right": shifted(far - half),
        "too far left": shifted(-far - half),
        "all zeros": torch.zeros(n, n),
        "only the middle": kernel[half] * torch.eye(n),
    }
    right = toeplitz(kernel[None, None, None], 1, n)[0]
    return Expected(f"the matrix of a kernel of {size} on {n} positions", right, mistakes, facts={"size": size})


MAPS = [((torch.arange(1.0, k * k + 1) ** 1.5).view(k, k), h, w) for k, h, w in ((3, 4, 5), (5, 4, 6), (1, 2, 3))]


@exercise("01.2", "Two dimensions", "medium", 10)
@task(MAPS, SAY["toeplitz_2d"])
def toeplitz_2d(kernel: Tensor, height: int, width: int) -> Expected:
    k, size, half = len(kernel), height * width, len(kernel) // 2
    dots = torch.eye(size).view(-1, 1, height, width)

    def matrix(kernel: Tensor, height: int = height, width: int = width) -> Tensor:
        return toeplitz(kernel[None, None], height, width)[0]

    around = [(i, j) for i in range(-half, half + 1) for j in range(-half, half + 1)]
    mistakes = {
        "no padding": _either_way((height - k + 1) * (width - k + 1), size),
        "padding of 1": _either_way((height - k + 3) * (width - k + 3), size),
        "four axes": dots.view(height, width, height, width),
        "backwards": matrix(kernel.flip(0, 1)),
        "kernel transposed": matrix(kernel.T),
        "height and width exchanged": matrix(kernel, width, height),
        "counted down the columns": matrix(kernel.T, width, height),
        "lines meet": sum(kernel[half + i, half + j] * _diagonal(size, width * i + j) for i, j in around),
        "circular": lambda: F.conv2d(F.pad(dots, [half] * 4, mode="circular"), kernel[None, None]).flatten(1).T,
        "corner on p": matrix(F.pad(kernel, (k - 1, 0, k - 1, 0))),
        "all zeros": torch.zeros(size, size),
    }
    what = f"the matrix of a {k}×{k} kernel on a {height}×{width} map"
    return Expected(what, matrix(kernel), mistakes, facts={"k": k})


# ---- Attention

# First as many positions as channels, so that a mistaken axis raises no error that would tell; then not.
DRAW = torch.Generator().manual_seed(1)
QUERIES = [tuple(torch.randn(3, *shape, generator=DRAW)) for shape in ((2, 6, 6), (3, 5, 8))]


@exercise("01.3", "Attention by hand", "medium", 6)
@task(QUERIES, SAY["attention"])
def attention(q: Tensor, k: Tensor, v: Tensor) -> Expected:
    images, n, d = q.shape
    scores = q @ k.mT
    scaled = scores / d**0.5
    weights = scaled.softmax(-1)
    mistakes = {
        "not scaled": scores.softmax(-1) @ v,
        "divided by d": (scores / d).softmax(-1) @ v,
        "multiplied by √d": (scores * d**0.5).softmax(-1) @ v,
        "softmax down the columns": scaled.softmax(1) @ v,
        "softmax over the images": scaled.softmax(0) @ v,
        "scaled too late": scores.softmax(-1) / d**0.5 @ v,
        "not scaled, softmax down the columns": scores.softmax(1) @ v,
        "no softmax": scaled @ v,
        "no scale, no softmax": scores @ v,
        "exp alone": scaled.exp() @ v,
        "weights alone": weights,
        "transposed": weights.mT @ v,
        "v on the left": lambda: v @ weights,
        "keys weighed": weights @ k,
        "queries weighed": weights @ q,
        "channels compared": lambda: (q.mT @ k / d**0.5).softmax(-1) @ v,
        "k not transposed": lambda: (q @ k / d**0.5).softmax(-1) @ v,
        "no exp": F.normalize(scaled, p=1.0, dim=-1) @ v,
        "scaled by positions": (scores / n**0.5).softmax(-1) @ v,
        "fixed scale": (scores / 6**0.5).softmax(-1) @ v,
        "scaled by images": (scores / images**0.5).softmax(-1) @ v,
    }
    right, facts = F.scaled_dot_product_attention(q, k, v), {"n": n, "d": d}
    if n == d:
        return Expected("the output", right, mistakes, facts=facts)
    return Expected(f"the output for {n} positions of {d} channels", right, mistakes, "unequally many", facts=facts)


# ---- Cost


@exercise("01.4", "Count multiply-adds", "medium", 6)
@task([(8, 3, 5), (16, 32, 11), (20, 7, 3)], SAY["multiply_adds"], wants=dict)
def multiply_adds(side: int, channels: int, k: int) -> dict[str, Expected]:
    n, c = side * side, channels
    # One multiply-add for each number of a kernel at each position, as torch's own parameters count them.
    depthwise, dense = (
        n * nn.Conv2d(c, c, k, groups=groups, bias=False, device="meta").weight.numel() for groups in (c, 1)
    )
    scores = n * n * c  # every position with every position, channel by channel
    mistakes = {
        "depthwise": {
            "multiplications and additions": 2 * depthwise,
            "side for positions": side * k * k * c,
            "k for the kernel": n * k * c,
            "dense": dense,
            "one channel": n * k * k,
            "kernels' numbers": k * k * c,
            "matrix's numbers": n * n * c,
        },
        "dense": {
            "multiplications and additions": 2 * dense,
            "side for positions": side * k * k * c * c,
            "depthwise": depthwise,
            "k for the kernel": n * k * c * c,
        },
        "attention": {
            "one product": scores,
            "multiplications and additions": 4 * scores,
            "n scores": 2 * n * c,
            "side for positions": 2 * side * c,
            "no channels": 2 * n * n,
            "channels squared": 2 * n * n * c * c,
            "number of scores": n * n,
            "with q, k, v": 2 * scores + 3 * n * c * c,
            "with q, k, v and the output": 2 * scores + 4 * n * c * c,
        },
    }
    right, at = (depthwise, dense, 2 * scores), f"for side {side}, {channels} channels and k = {k}"
    return {name: Expected(f"{name} {at}", of, mistakes[name]) for name, of in zip(mistakes, right, strict=True)}


@exercise("01.5", "Where attention gets more expensive", "medium", 5)
@task([(11,), (3,), (7,), (21,)], SAY["crossover_side"])
def crossover_side(k: int) -> Expected:
    side = next(s for s in range(1, 100) if 2 * s**4 > k * k * s * s)  # the channels are the same in both
    mistakes = {
        "positions": next(n for n in range(1, 10_000) if 2 * n > k * k),
        "one product": k + 1,
        "rounded down": side - 1,
        "side of the window": k,
        "numbers of the window": k * k,
        "not rounded": k / 2**0.5,
    }
    return Expected(f"the side for k = {k}", side, mistakes)


# ---- ConvMod

DRAW = torch.Generator().manual_seed(2)
MATRIX_AND_U = [(torch.randn(7, 7, generator=DRAW), torch.randn(7, generator=DRAW))]


@exercise("01.6", "ConvMod as a matrix", "hard", 6)
@task(MATRIX_AND_U, SAY["convmod_matrix"])
def convmod_matrix(t: Tensor, u: Tensor) -> Expected:
    a = t @ u
    mistakes = {
        "A itself": a,
        "terms of A": t * u,
        "rows weighed by u": t * u[:, None],
        "weighed after the convolution": t * a[:, None],
        "weighed before the convolution": t * a,
        "T itself": t,
        "u on the diagonal": torch.diag(u),
        "T transposed": torch.diag(t.T @ u),
        "middle of the window": torch.diag(t.diagonal() * u),
        "row sums of T": torch.diag(t.sum(1)),
        "row sums times u": torch.diag(t.sum(1) * u),
        "A in every row": a.expand(7, 7),
        "A in every column": a[:, None].expand(7, 7),
        "outer product": torch.outer(a, a),
    }
    return Expected("the matrix", torch.diag(a), mistakes)
