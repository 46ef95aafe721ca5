"""A depthwise convolution as kernel, as matrix, as one row over the image, and as output, for kernels of 1 to 15.

On the 8×8 map that the notebook uses, a side of 15 = 2 · 8 − 1 is where the matrix is full: from every corner the
kernel reaches the opposite one, as attention does, and still it is one kernel for all images.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from c2f.fast.depthwise import toeplitz
from c2f.picture import INK, number
from c2f_course.widgets.base import Explorer, choice, numbered, slider
from c2f_course.widgets.panel import Box, Panel, draw

LARGEST = 15
KERNELS = ("bell", "mean", "random")


def make_kernel(kind: str, size: int) -> Tensor:
    """A kernel (size, size), size odd: "bell" and "mean" sum to 1; "random" grows around a middle that stays the same.

    Raises ValueError for another kind, or a size that is not odd or not from 1 to 15.
    """
    if not (1 <= size <= LARGEST and size % 2):
        raise ValueError(f"the kernel size is {size}; use an odd number from 1 to {LARGEST}, so that it has a middle.")
    if kind == "mean":
        return torch.full((size, size), 1 / size**2)
    if kind == "bell":
        side = torch.exp(-((torch.arange(size) - size // 2) ** 2) / (2 * (size / 4) ** 2))
        return side.outer(side) / side.sum() ** 2
    if kind == "random":
        whole, edge = torch.randn(LARGEST, LARGEST, generator=torch.Generator().manual_seed(5)), (LARGEST - size) // 2
        return whole[edge : edge + size, edge : edge + size].clone()
    raise ValueError(f"there is no kernel {kind!r}; use {', '.join(KERNELS)}.")


class KernelSizeExplorer(Explorer):
    """Choose a kernel's size and a position: what does the position see, and what has to be learned for it?

    Args:
        images: (N, 3, h, w), uint8 or float from 0 to 1, h and w multiples of `side`.
        names: one per image.
        side: of the map that the convolution works on: the image's brightness, averaged down to side × side.
    """

    def __init__(self, images: Tensor, names: Sequence[str], side: int = 8) -> None:
        if images.ndim != 4 or len(images) != len(names) or images.shape[2] % side or images.shape[3] % side:
            raise ValueError(
                f"the images have shape {tuple(images.shape)} and there are {len(names)} names; give (N, 3, h, w) with "
                f"N names, h and w multiples of {side}."
            )
        self.images, self.names, self.side = images.cpu(), tuple(names), side
        grey = self.images.float().mean(1) / (1 if images.is_floating_point() else 255)
        self.maps = F.adaptive_avg_pool2d(grey, side)  # (N, side, side)
        self.maps = self.maps - self.maps.mean((1, 2), keepdim=True)
        self.size = slider("kernel size", 5, 1, LARGEST, 2)
        self.row = slider("row", side // 2 - 1, 0, side - 1)
        self.column = slider("column", side // 2, 0, side - 1)
        self.kernel = choice(KERNELS, "kernel")
        self.image = choice(numbered(names), "image")
        self._assemble([self.size, self.row, self.column, self.kernel, self.image])

    def _compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """(kernel, matrix (HW, HW), output (H, W)) for the controls' present values."""
        kernel = make_kernel(self.kernel.value, self.size.value)
        matrix = toeplitz(kernel[None, None], self.side, self.side)[0]
        return kernel, matrix, (matrix @ self.maps[self.image.value].flatten()).view(self.side, self.side)

    def _draw(self) -> tuple[str, str]:
        from c2f_course.figures.notebook_01 import lay_over  # which imports Panel from here

        kernel, matrix, output = self._compute()
        row, column, k, size = self.row.value, self.column.value, self.size.value, self.side**2
        p, name, photograph = self.side * row + column, self.names[self.image.value], self.images[self.image.value]
        weights = matrix[p].view(self.side, self.side)
        seen, result = int((weights != 0).sum()), number(output[row, column])
        sentence = (
            f"{name}, {self.kernel.value} kernel of {k}×{k}: position p = {p} (row {row}, column {column}) sees {seen} "
            f"of the {size} positions; {k * k} number{'s are' if k > 1 else ' is'} learned, and "
            f"{int((matrix != 0).sum()):,} of the matrix's {size * size:,} are not zero; the output at p is {result}."
        )
        zoom = photograph.shape[1] // self.side
        here = Box(zoom * row, zoom * column, zoom, zoom, INK)
        window = Box(zoom * (row - k // 2), zoom * (column - k // 2), zoom * k, zoom * k)
        over = lay_over(photograph, weights)
        panels = [
            [
                Panel(f"{name}\nwith the {k}×{k} window", photograph, boxes=[window, here]),
                Panel(f"kernel: {k * k} number{'s' * (k > 1)}\nto learn", kernel),
            ],
            [
                Panel(f"row p over the image:\nit sees {seen} of {size}", over, boxes=[here]),
                Panel(f"output, {result} at □", output, boxes=[Box(row, column, 1, 1, INK)]),
            ],
        ]
        outlined = [Box(p - 0.5, 0, 2, size)]
        whole = Panel(f"as a {size}×{size} matrix,\nrow p = {p} outlined", matrix, boxes=outlined)
        return draw(panels, sentence, lead=whole), sentence
