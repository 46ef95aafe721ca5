"""Let a model's layers be computed in the way that is fastest here, and take it back.

    c2f.accelerate(model)      # any torch.nn.Module: ours, torchvision's, your own
    restore(model)             # PyTorch's own layers again

A layer that can be computed sooner gets another class, and that is all: its parameters, its name, its hooks, its state
dict and what it computes (to rounding) stay. `train` and `evaluate` do this for as long as they run.
"""

import contextlib
from collections.abc import Iterator, Mapping

from torch import nn

from c2f.fast.autotune import recorded_choices, use_choices
from c2f.fast.depthwise import DepthwiseConv2d
from c2f.fast.pointwise import FastGELU, FastPointwiseConv2d

FAST = (DepthwiseConv2d, FastPointwiseConv2d, FastGELU)  # the base of each is PyTorch's own


def accelerate(model: nn.Module) -> nn.Module:
    """Give every layer of `model` that can be computed sooner its fast class; returns the same model.

    Subclasses of PyTorch's layers are left alone, since they may compute something else. For the same reason, tools
    that count operations by a layer's class (thop, ptflops) overlook accelerated layers: `restore` the model first.
    """
    for module in model.modules():
        if fast := _fast_class(module):
            module.__class__ = fast
    return model


def restore(model: nn.Module) -> nn.Module:
    """Give every layer of a fast class PyTorch's own class again; returns the same model."""
    for module in model.modules():
        if type(module) in FAST:  # and was not parametrized meanwhile
            module.__class__ = type(module).__base__
    return model


@contextlib.contextmanager
def accelerated(
    model: nn.Module, wanted: bool = True, choices: Mapping[str, str] | None = None
) -> Iterator[dict[str, str]]:
    """Inside, the model is accelerated (if it is `wanted`); afterwards each layer has the class that it had before.

    Yields the choices that are used inside, for a checkpoint. `choices` are those of an earlier process of the same
    run: they hold again, whether or not they are the fastest now, so that the resumed run rounds as it did before.
    """
    changed = [module for module in model.modules() if wanted and _fast_class(module)]
    use_choices(choices or {})
    with recorded_choices() as used:
        used.update(choices or {})
        try:
            for module in changed:
                accelerate(module)
            yield used
        finally:
            for module in changed:
                restore(module)


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
    return DepthwiseConv2d if depthwise and keeps_size and plain else None
