"""What a model takes and how it is run: images normalised for it, where they must be, evaluation mode."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def transforms(image_size: int = 32) -> Callable[[Any], Tensor]:
    """What the kit's weights expect to have been done with an image, as torchvision's `weights.transforms()`.

    For a PIL image of any mode, or uint8 ([N,] 3, H, W): its short side to image_size, cut to the middle square, to
    [0, 1], per channel less ImageNet's mean, by its standard deviation; float32 ([N,] 3, image_size, image_size).
    """
    from torchvision.transforms import v2  # half a second that only this needs

    square = [v2.RGB(), v2.ToImage(), v2.Resize(image_size), v2.CenterCrop(image_size)]
    scaled = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    return v2.Compose([*square, *scaled, v2.ToPureTensor()])


def model_device(model: nn.Module) -> torch.device:
    """Where the model is, and where its images must be. Functions that take both move the images, never the model."""
    return next(model.parameters()).device


def check_images(x: Tensor, channels: int, smallest: int = 1, stride: int = 1, exactly: int | None = None) -> None:
    """ValueError unless x is (N, channels, H, W), H and W at least `smallest`, multiples of `stride`, or `exactly` so.

    Silent while a tool looks at the model with something else than images: torch.fx traces with proxies, and in
    torch.compile, torch.export and torch.jit.trace a size that is asked about would be fixed for good.
    """
    if not isinstance(x, Tensor) or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(
            f"this model takes images of shape (N, {channels}, H, W), not {tuple(x.shape)}; add the batch axis, turn a "
            f"grey image into three channels with x.expand(-1, 3, -1, -1), or create a Conv2Former with in_channels=…"
        )
    height, width = x.shape[2:]
    if exactly and (height, width) != (exactly, exactly):
        raise ValueError(
            f"this model learns a vector for each position of a {exactly}×{exactly} image and got {height}×{width}; "
            f"resize the images, or create the model with image_size=…"
        )
    if min(height, width) < smallest:
        raise ValueError(
            f"a {height}×{width} image is too small for this model, which needs {smallest} pixels a side or more; "
            f"enlarge it, or take a model with smaller patches."
        )
    if height % stride or width % stride:
        near = "×".join(str(max(1, round(size / stride)) * stride) for size in (height, width))
        raise ValueError(
            f"a {height}×{width} image cannot be halved down to whole positions: height and width must be "
            f"multiples of {stride} for this model; resize or crop it, for instance to {near}."
        )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode inside, and afterwards each in the mode that it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
