"""What notebook 06 and assignment 3 have built: the effective receptive field of a feature map's middle."""

from collections.abc import Callable

import torch
from torch import Tensor

from c2f_course.tasks.exercise import Expected, of_shape


def effective_field(feature_of: Callable[[Tensor], Tensor], images: Tensor, shares: bool = False) -> Expected:
    """The mean size of the gradients of a middle's feature, summed over its channels, by each pixel: (H, W).

    Args:
        feature_of: images (N, 3, H, W) to a feature map (N, C, H', W').
        shares: whether the field is divided by its sum.
    """
    x = images.clone().requires_grad_()
    feature = feature_of(x)
    (count, _, height, width), (dim, rows, columns) = images.shape, feature.shape[1:]

    def gradients(at: tuple = (rows // 2, columns // 2), channels: slice = slice(None)) -> Tensor:
        return torch.autograd.grad(feature[:, channels, at[0], at[1]].sum(), x, retain_graph=True)[0]

    def mean(gradients: Tensor) -> Tensor:
        return gradients.mean(dim=(0, 1))

    whole = slice(None)
    own = gradients()
    size = own.abs()
    right = mean(size)
    late = "you averaged first and took the size afterwards, so signs cancel. Size first, then the mean."
    squares = own.square()
    counted = torch.arange(count, 0, -1)[:, None, None, None] * size
    places = {(rows // 2 - i, columns // 2 - j) for i in (0, 1) for j in (0, 1)} | {(0, 0), (rows // 2, columns - 1)}
    places |= {(height // 2, width // 2), (columns // 2, rows // 2)}
    places = {at for at in places if at != (rows // 2, columns // 2) and at[0] < rows and at[1] < columns}
    mistakes = [
        (mean(own), "the sizes are missing: a gradient has a sign, and pixels that push the feature down count as "
         "well."),
        (own.sum(dim=(0, 1)), "the sizes are missing: a gradient has a sign, and pixels that push the feature down "
         "count as well."),
        ((mean(own).abs(), own.sum(dim=(0, 1)).abs()), late),
        *((part.abs().mean(0), late) for part in (own.mean(0), own.mean(1), own.sum(1), own.sum(0))),
        (mean(gradients((whole, whole)).abs()), "that is the gradient of all positions together; take the feature at "
         "the middle position only."),
        (mean(squares), "these are squares; it is the mean of the absolute values."),
        (mean(squares).sqrt(), "that is the root of the mean square; it is the mean of the absolute values."),
        (size.amax(dim=(0, 1)), "the largest of the sizes; the mean is asked for."),
        *((mean(gradients(channels=one).abs()), "that is one channel of the feature; the sum over all of them is asked "
            "for.") for one in (slice(0, 1), slice(-1, None)) if dim > 1),
        *((size[n].mean(0), "that is one image's field; the mean over all of them is asked "
            "for.") for n in (0, -1) if count > 1),
        (size[:, 0].mean(0), "that is one colour; the mean over all three is asked for."),
        ((mean(counted), mean(counted) / count, mean(own.cumsum(0).abs())), "gradients of one image are still there "
         "when the next one comes: .grad adds up until it is cleared."),
        *((mean(gradients(at).abs()), f"that is the field of another position, {at}. The middle of the map is at (H' "
            "// 2, W' // 2).") for at in sorted(places)),
    ]  # fmt: skip
    if shares:
        each = Expected("the field", right, mistakes).each  # divided by its sum, by that of its sizes, or not
        mistakes = [((value, value / value.sum(), value / value.abs().sum()), hint) for value, hint in each]
        mistakes.append((right, f"right up to a factor: yours sums to {right.sum():.3g}. Divide by the sum, to compare "
            "models."))  # fmt: skip
    else:
        mistakes += [
            (right / right.sum(), "divided by its sum: right for a picture, but asked for is the mean size itself."),
            (right / right.max(), "divided by its largest value; asked for is the mean size itself."),
            *((right * factor, f"right up to the factor {factor}: a mean over images AND colours, not a "
                "sum.") for factor in sorted({count * 3, count, 3} - {1})),
            (right / count, "divided by the number of images twice: does your loss take a mean already?"),
            (right / (count * rows * columns), "divided twice: does your loss take a mean already?"),
            (right / dim, "the mean of the feature's channels; their sum is asked for."),
            (right / (count * dim), "the mean of the feature, where the sum over its channels is asked for."),
        ]  # fmt: skip
    mistakes += [
        *((of_shape(*shape), f"your field has shape {shape}: average over images and colours, so that ({height}, "
            f"{width}) is left.") for shape in ((count, 3, height, width), (3, height, width), (count, height, width))),
        (of_shape(rows, columns), "your field has the size of the feature map; it should say something of every "
         "PIXEL."),
    ]  # fmt: skip
    signs = [
        (
            lambda made: isinstance(made, Tensor) and not made.any(),
            "the field is zero everywhere: does the feature depend on the tensor that you differentiate by?",
        )
    ]
    return Expected("the field", right / right.sum() if shares else right, mistakes, "Which feature is it the gradient "
        "of, by what, and what is averaged?", 1e-4, signs)  # fmt: skip
