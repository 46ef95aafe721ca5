"""What a forward pass costs: parameters and multiply-adds, in all and per stage.

* **nominal**: what the layers are defined to do, padding included; papers print it under the name of FLOPs.
* **useful**: without the part that works on padding. A convolution counts only the taps that land inside its input,
  window attention only the tokens of the image: their projections and their rows of the attention matrix. The row of a
  token counts in full, since torchvision's Swin lets it attend to the padding too.

Counted are convolutions, linear layers and attention (projections and both matrix products); as usual, norms,
activations, elementwise products and biases are not. One multiply-add is two floating-point operations.
"""

import itertools
import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torchvision.models.swin_transformer import ShiftedWindowAttention

from c2f.models.inputs import evaluating


@dataclass(frozen=True)
class MultiplyAdds:
    """Multiply-adds of one image's forward pass; see the module for what the two mean."""

    nominal: int = 0
    useful: int = 0

    def __add__(self, other: "MultiplyAdds") -> "MultiplyAdds":
        return MultiplyAdds(self.nominal + other.nominal, self.useful + other.useful)


def count_parameters(model: nn.Module) -> int:
    """How many numbers the model learns; a shared parameter counts once, a buffer not at all."""
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_adds(model: nn.Module, image_size: int | tuple[int, int] = (32, 32), in_channels: int = 3) -> MultiplyAdds:
    """The multiply-adds of one image (in_channels, H, W) in evaluation mode, nominal and useful.

    Nothing is computed: shapes alone travel through the model, so that it may be large and on any device (meta
    too). The model, its mode and the random generators stay as they were.

    Raises:
        ValueError: the image does not suit the model, or a layer with weights is none of those that are counted.
    """
    return sum(multiply_adds_by_child(model, image_size, in_channels).values(), MultiplyAdds())


def multiply_adds_by_child(
    model: nn.Module, image_size: int | tuple[int, int] = (32, 32), in_channels: int = 3
) -> dict[str, MultiplyAdds]:
    """`multiply_adds`, split by the parts of the model that have any, in the order of the network.

    A part is a child of the model, or an item of a child that is a list of stages: a Conv2Former has stem,
    stages.0 to stages.3 and head. The names are those of `model.get_submodule`.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    parts: dict[str, MultiplyAdds] = {}

    def count(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], _output: Any) -> None:
        cost = _count(name, module, next(iter((*args, *kwargs.values())), None))
        if cost.nominal:
            part = _part(model, name)
            parts[part] = parts.get(part, MultiplyAdds()) + cost

    tensors = dict(itertools.chain(model.named_parameters(), model.named_buffers()))
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    with ExitStack() as hooks, evaluating(model), torch.no_grad(), torch.compiler.set_stance("force_eager"):
        for name, module in model.named_modules():
            hooks.enter_context(module.register_forward_hook(partial(count, name), with_kwargs=True))
        functional_call(model, shapes, (torch.empty((1, in_channels, height, width), dtype=dtype, device="meta"),))
    return parts


def _part(model: nn.Module, name: str) -> str:
    """Which part of the model the module called `name` belongs to."""
    child, *rest = name.split(".")
    items = getattr(model, child, None)
    stages = isinstance(items, nn.ModuleList | nn.Sequential) and all(any(item.children()) for item in items)
    return f"{child}.{rest[0]}" if stages else child


def _count(name: str, module: nn.Module, x: Tensor) -> MultiplyAdds:
    """The multiply-adds of one call of this module, without those of its children's calls.

    An attention module multiplies by its children's weights without calling them, so nothing is counted twice.
    """
    match module:
        case nn.Conv2d():
            ones = partial(torch.ones, dtype=torch.float64, device="cpu")
            image, kernel = ones(1, 1, *x.shape[2:]), ones(1, 1, *module.kernel_size)
            taps = F.conv2d(image, kernel, None, module.stride, module.padding, module.dilation)  # inside the image
            pairs = module.out_channels * module.in_channels // module.groups
            return MultiplyAdds(pairs * taps.numel() * kernel.numel(), pairs * int(taps.sum()))
        case nn.Linear():
            tokens = useful = x.numel() // module.in_features
            per_token = module.in_features * module.out_features
        case ShiftedWindowAttention():
            _, height, width, dim = x.shape
            high, wide = module.window_size
            tokens, useful = math.ceil(height / high) * high * math.ceil(width / wide) * wide, height * width
            per_token = _count_attention(dim, keys=high * wide)
        case nn.MultiheadAttention():
            tokens = useful = x.numel() // module.embed_dim
            per_token = _count_attention(module.embed_dim, keys=tokens)
        case nn.LayerNorm():
            return MultiplyAdds()
        case _ if any(module.children()) or all(parameter.ndim < 2 for parameter in module.parameters()):
            return MultiplyAdds()
        case _:
            raise ValueError(
                f"cannot count the multiply-adds of {name}, a {type(module).__name__}; build it of Conv2d, Linear, "
                f"ShiftedWindowAttention, MultiheadAttention, or add it to c2f.models.cost."
            )
    return MultiplyAdds(tokens * per_token, useful * per_token)


def _count_attention(dim: int, keys: int) -> int:
    """For one token: query, key, value and output projections, its scores over the keys, the weighted sum."""
    return 4 * dim * dim + 2 * keys * dim
