"""Let a model's layers be computed in the way that is fastest here, and take it back.

    c2f.accelerate(model)      # any torch.nn.Module: ours, torchvision's, your own
    restore(model)             # PyTorch's own layers again

A layer that can be computed sooner gets another class, and that is all: its parameters, its name, its hooks, its state
dict and what it computes (to rounding) stay. `train` and `evaluate` do this for as long as they run.
"""

import contextlib
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from c2f.fast.autotune import recorded_choices, use_choices
from c2f.fast.depthwise import depthwise_conv2d
from c2f.fast.pointwise import gelu, pointwise_conv2d


def _is_batch(x: Tensor) -> bool:
    """Whether x is (N, C, H, W); torch.fx traces with proxies, which have no size."""
    return isinstance(x, Tensor) and x.ndim == 4


class FastDepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution that keeps the size, by `depthwise_conv2d`."""

    original = nn.Conv2d

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        same = conv.padding == "same" or conv.padding == tuple(k // 2 for k in conv.kernel_size)
        odd = all(k % 2 for k in conv.kernel_size) and max(conv.kernel_size) > 1
        plain = conv.stride == conv.dilation == (1, 1) and conv.padding_mode == "zeros"
        return conv.groups == conv.in_channels == conv.out_channels and same and odd and plain

    def forward(self, x: Tensor) -> Tensor:
        return depthwise_conv2d(x, self.weight, self.bias) if _is_batch(x) else super().forward(x)


class FastPointwiseConv2d(nn.Conv2d):
    """A 1×1 convolution, by `pointwise_conv2d`."""

    original = nn.Conv2d

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        return conv.kernel_size == conv.stride == (1, 1) and conv.groups == 1 and conv.padding in ((0, 0), "valid")

    def forward(self, x: Tensor) -> Tensor:
        return pointwise_conv2d(x, self.weight, self.bias) if _is_batch(x) else super().forward(x)


class FastGELU(nn.GELU):
    """An exact GELU, by `gelu`."""

    original = nn.GELU

    @staticmethod
    def fits(module: nn.GELU) -> bool:
        return module.approximate == "none"

    def forward(self, x: Tensor) -> Tensor:
        return gelu(x)


FAST = (FastDepthwiseConv2d, FastPointwiseConv2d, FastGELU)


def accelerate(model: nn.Module) -> nn.Module:
    """Give every layer of `model` that can be computed sooner its fast class; returns the same model.

    Subclasses of PyTorch's layers are left alone, since they may compute something else.
    """
    _swap(model)
    return model


def restore(model: nn.Module) -> nn.Module:
    """Give the layers that `accelerate` changed PyTorch's own classes again; returns the same model."""
    for module in model.modules():
        if type(module) in FAST:
            module.__class__ = module.original
    return model


@contextlib.contextmanager
def accelerated(model: nn.Module, wanted: bool = True) -> Iterator[nn.Module]:
    """Inside, the model is accelerated (if it is `wanted`); afterwards each layer has the class that it had before."""
    swapped = _swap(model) if wanted else []
    try:
        yield model
    finally:
        for module in swapped:
            if type(module) in FAST:  # else it was parametrized meanwhile
                module.__class__ = module.original


@contextlib.contextmanager
def accelerated_run(model: nn.Module, wanted: bool, before: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """`accelerated` for a training that may be resumed: yields the choices that it uses, for its checkpoint.

    `before`: the choices in the checkpoint of an earlier process of the same run. They hold again, so that the resumed
    run rounds as it did before.
    """
    use_choices(before)  # whether or not they are the fastest now
    with accelerated(model, wanted), recorded_choices() as choices:
        choices.update(before)
        yield choices


def _swap(model: nn.Module) -> list[nn.Module]:
    swapped = []
    for module in model.modules():
        for fast in FAST:
            if type(module) is fast.original and fast.fits(module):
                module.__class__ = fast
                swapped.append(module)
                break
    return swapped
