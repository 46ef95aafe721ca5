"""A depthwise convolution as kernel, as matrix, as one row over the image, and as output, for kernels of 1 to 15.

On the 8×8 map that the notebook uses, a side of 15 = 2 · 8 − 1 is where the matrix is full: from every corner the
kernel reaches the opposite one, as attention does, and still it is one kernel for all images.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from c2f.fast.depthwise import toeplitz
from c2f.maps.picture import INK, Picture, number
from c2f_course.widgets.base import Explorer, choice
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
        names: one an image.
        side: of the map that the convolution works on: the image's brightness, averaged down to side × side.
    """

    def __init__(self, images: Tensor, names: Sequence[str], side: int = 8) -> None:
        if images.ndim != 4 or len(images) != len(names) or images.shape[2] % side or images.shape[3] % side:
            raise ValueError(
                f"the images have shape {tuple(images.shape)} and there are {len(names)} names; give (N, 3, h, w) with "
                f"N names, h and w multiples of {side}."
            )
        import ipywidgets

        self.images, self.names, self.side = images, tuple(names), side
        grey = images.float().mean(1) / (1 if images.is_floating_point() else 255)
        self.maps = F.adaptive_avg_pool2d(grey, side)  # (N, side, side)
        self.maps = self.maps - self.maps.mean((1, 2), keepdim=True)
        wide = {"layout": {"width": "330px"}, "style": {"description_width": "80px"}}
        self.size = ipywidgets.IntSlider(5, 1, LARGEST, 2, description="kernel size", **wide)
        self.row = ipywidgets.IntSlider(side // 2 - 1, 0, side - 1, description="row", **wide)
        self.column = ipywidgets.IntSlider(side // 2, 0, side - 1, description="column", **wide)
        self.kernel = choice(KERNELS, "kernel")
        self.image = choice([(name, i) for i, name in enumerate(names)], "image")
        self._assemble([self.size, self.row, self.column, self.kernel, self.image])

    def _compute(self) -> tuple[Tensor, Tensor, Tensor, int]:
        """(kernel, matrix (HW, HW), output (H, W), p) for the controls' present values."""
        kernel = make_kernel(self.kernel.value, self.size.value)
        matrix = toeplitz(kernel[None, None], self.side, self.side)[0]
        output = (matrix @ self.maps[self.image.value].flatten()).view(self.side, self.side)
        return kernel, matrix, output, self.side * self.row.value + self.column.value

    def _panels(self) -> tuple[Panel, list[list[Panel]]]:
        """The matrix, and the four smaller panels beside it."""
        from c2f_course.figures.notebook_01 import lay_over

        kernel, matrix, output, p = self._compute()
        row, column, k, size = self.row.value, self.column.value, self.size.value, self.side**2
        photograph = self.images[self.image.value]
        zoom = photograph.shape[1] // self.side
        weights = matrix[p].view(self.side, self.side)
        here = Box(zoom * row, zoom * column, zoom, zoom, INK)
        window = Box(zoom * (row - k // 2), zoom * (column - k // 2), zoom * k, zoom * k)
        whole = Panel(f"as a {size}×{size} matrix,\nrow p = {p} outlined", matrix, boxes=[Box(p - 0.5, 0, 2, size)])
        photo = Panel(f"{self.names[self.image.value]}\nwith the {k}×{k} window", photograph, boxes=[window, here])
        learned = Panel(f"kernel: {k * k} number{'s' * (k > 1)}\nto learn", kernel)
        title = f"row p over the image:\nit sees {int((weights != 0).sum())} of {size}"
        seen = Panel(title, lay_over(photograph, weights), boxes=[here])
        title = f"output, {number(output[row, column])} at □"
        return whole, [[photo, learned], [seen, Panel(title, output, boxes=[Box(row, column, 1, 1, INK)])]]

    def _draw(self) -> tuple[str, str]:
        alt = self._describe()
        whole, others = self._panels()
        return draw(others, alt, lead=whole), alt

    def _describe(self) -> str:
        _, matrix, output, p = self._compute()
        k, size = self.size.value, self.side**2
        seen = int((matrix[p] != 0).sum())
        return (
            f"{self.names[self.image.value]}, {self.kernel.value} kernel of {k}×{k}: position p = {p} (row "
            f"{self.row.value}, column {self.column.value}) sees {seen} of the {size} positions; {k * k} "
            f"number{'s are' if k > 1 else ' is'} learned, and {int((matrix != 0).sum()):,} of the matrix's "
            f"{size * size:,} are not zero; the output at p is {number(output[self.row.value, self.column.value])}."
        )

    def _static(self) -> Picture:
        from c2f_course.figures.notebook_01 import plot_panels  # which imports Panel from here

        whole, others = self._panels()
        return plot_panels(others, self.text, lead=whole)
