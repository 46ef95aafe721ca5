"""Let a model's layers be computed in the way that is fastest here, and take it back.

    c2f.accelerate(model)      # any torch.nn.Module: ours, torchvision's, your own
    restore(model)             # PyTorch's own layers again

A layer that can be computed sooner gets another class, and that is all: its parameters, its name, its hooks, its state
dict and what it computes (to rounding) stay. `train` and `evaluate` do this for as long as they run.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor, nn

from c2f.fast.autotune import recorded_choices, use_choices
from c2f.fast.depthwise import depthwise_conv2d
from c2f.fast.pointwise import gelu, pointwise_conv2d


class FastDepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution that keeps the size, by `depthwise_conv2d`."""

    def forward(self, x: Tensor) -> Tensor:
        return depthwise_conv2d(x, self.weight, self.bias) if _is_batch(x) else super().forward(x)


class FastPointwiseConv2d(nn.Conv2d):
    """A 1×1 convolution, by `pointwise_conv2d`."""

    def forward(self, x: Tensor) -> Tensor:
        return pointwise_conv2d(x, self.weight, self.bias) if _is_batch(x) else super().forward(x)


class FastGELU(nn.GELU):
    """An exact GELU, by `gelu`."""

    def forward(self, x: Tensor) -> Tensor:
        return gelu(x)


FAST = (FastDepthwiseConv2d, FastPointwiseConv2d, FastGELU)  # the base of each is PyTorch's own


def accelerate(model: nn.Module) -> nn.Module:
    """Give every layer of `model` that can be computed sooner its fast class; returns the same model.

    Subclasses of PyTorch's layers are left alone, since they may compute something else.
    """
    _accelerate_layers(model)
    return model


def restore(model: nn.Module) -> nn.Module:
    """Give the layers that `accelerate` changed PyTorch's own classes again; returns the same model."""
    _restore_layers(model.modules())
    return model


@contextlib.contextmanager
def accelerated(model: nn.Module, wanted: bool = True) -> Iterator[nn.Module]:
    """Inside, the model is accelerated (if it is `wanted`); afterwards each layer has the class that it had before."""
    changed = _accelerate_layers(model) if wanted else []
    try:
        yield model
    finally:
        _restore_layers(changed)


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


def _accelerate_layers(model: nn.Module) -> list[nn.Module]:
    changed = [module for module in model.modules() if _fast_class(module)]
    for module in changed:
        module.__class__ = _fast_class(module)
    return changed


def _restore_layers(layers: Iterable[nn.Module]) -> None:
    for module in layers:
        if type(module) in FAST:  # else it was parametrized meanwhile
            module.__class__ = type(module).__base__


def _fast_class(module: nn.Module) -> type[nn.Module] | None:
    """The class that computes the same as a layer of PyTorch's own, sooner; None where there is none."""
    if type(module) is nn.GELU:
        return FastGELU if module.approximate == "none" else None
    if type(module) is not nn.Conv2d or module.stride != (1, 1):
        return None
    kernel, groups, padding = module.kernel_size, module.groups, module.padding
    if kernel == (1, 1) and groups == 1 and padding in ((0, 0), "valid"):
        return FastPointwiseConv2d
    depthwise = groups == module.in_channels == module.out_channels and max(kernel) > 1
    keeps_size = all(k % 2 for k in kernel) and padding in ("same", tuple(k // 2 for k in kernel))
    plain = module.dilation == (1, 1) and module.padding_mode == "zeros"
    return FastDepthwiseConv2d if depthwise and keeps_size and plain else None


def _is_batch(x: Tensor) -> bool:
    """Whether x is (N, C, H, W); torch.fx traces with proxies, which have no size."""
    return isinstance(x, Tensor) and x.ndim == 4
