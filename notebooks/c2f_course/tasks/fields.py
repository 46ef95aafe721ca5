"""What notebook 06 and assignment 3 have built: the effective receptive field of a feature map's middle."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from c2f_course.tasks.exercise import Expected, of_shape, sentences

SAY = sentences(__name__)


def effective_field(feature_of: Callable[[Tensor], Tensor], images: Tensor, shares: bool = False) -> Expected:
    """The mean size of the gradients of a middle's feature, summed over its channels, by each pixel: (H, W).

    Args:
        feature_of: images (N, 3, H, W) to a feature map (N, C, H', W').
        shares: whether the field is divided by its sum.
    """
    x = images.clone().requires_grad_()
    feature = feature_of(x)
    (count, _, height, width), (dim, rows, columns) = images.shape, feature.shape[1:]
    middle, whole = (rows // 2, columns // 2), slice(None)

    def gradients(at: tuple = middle, channels: slice = whole) -> Tensor:
        return torch.autograd.grad(feature[:, channels, at[0], at[1]].sum(), x, retain_graph=True)[0]

    def mean(gradients: Tensor) -> Tensor:
        return gradients.mean(dim=(0, 1))

    own = gradients()
    size, squares = own.abs(), own.square()
    right = mean(size)
    counted = torch.arange(count, 0, -1)[:, None, None, None] * size
    places = {(middle[0] - i, middle[1] - j) for i in (0, 1) for j in (0, 1)} | {(0, 0), (middle[0], columns - 1)}
    places |= {(height // 2, width // 2), (columns // 2, rows // 2)}
    places = [at for at in places - {middle} if at[0] < rows and at[1] < columns]
    ends = (slice(0, 1), slice(-1, None))
    mistakes: dict[str, Any] = {
        "signed": (mean(own), own.sum(dim=(0, 1))),
        "size of the mean": (
            *(made.abs() for made in (mean(own), own.sum(dim=(0, 1)))),
            *(part.abs().mean(0) for part in (own.mean(0), own.mean(1), own.sum(1), own.sum(0))),
        ),
        "all positions": mean(gradients((whole, whole)).abs()),
        "squares": mean(squares),
        "root of the mean square": mean(squares).sqrt(),
        "the largest": size.amax(dim=(0, 1)),
        "one channel": tuple(mean(gradients(channels=one).abs()) for one in ends if dim > 1),
        "one image": tuple(size[n].mean(0) for n in (0, -1) if count > 1),
        "one colour": size[:, 0].mean(0),
        "gradients add up": (mean(counted), mean(counted) / count, mean(own.cumsum(0).abs())),
        "another position": tuple(mean(gradients(at).abs()) for at in places),
    }
    if shares:

        def divided(value: Tensor) -> tuple[Tensor, ...]:
            """By its sum, by that of its sizes, or not."""
            return value, value / value.sum(), value / value.abs().sum()

        each = {name: made if isinstance(made, tuple) else (made,) for name, made in mistakes.items()}
        mistakes = {name: sum(map(divided, made), ()) for name, made in each.items()}
        mistakes["not divided by the sum"] = right
    else:
        mistakes |= {
            "divided by the sum": right / right.sum(),
            "divided by the largest": right / right.max(),
            "a sum, not a mean": tuple(right * factor for factor in {count * 3, count, 3} - {1}),
            "divided by the images twice": right / count,
            "divided twice": right / (count * rows * columns),
            "mean of the channels": right / dim,
            "mean of the feature": right / (count * dim),
        }
    mistakes |= {
        "not averaged": (of_shape(count, 3, height, width), of_shape(3, height, width), of_shape(count, height, width)),
        "size of the feature map": of_shape(rows, columns),
    }
    signs = {"zero everywhere": lambda made: isinstance(made, Tensor) and not made.any()}
    facts = {"sum": right.sum(), "height": height, "width": width}
    right = right / right.sum() if shares else right
    return Expected("the field", right, mistakes, tolerance=1e-4, signs=signs, says=SAY["effective_field"], facts=facts)
