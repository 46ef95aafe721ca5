"""What a forward pass costs: parameters and multiply-adds, in all and per stage.

Two counts, because they differ where a network meets the edge of the image:

* **nominal**: what the layers are defined to do, padding included; papers print it under the name of FLOPs. A
  depthwise convolution counts its whole kernel at each position, however cleverly it is computed.
* **useful**: without the part that works on padding. A convolution counts only the taps that land inside its
  input. Window attention counts only the tokens of the image, not those that fill up a window: their projections
  and their rows of the attention matrix. The row of a token counts in full, since torchvision's Swin lets it
  attend to the padding too.

Counted are convolutions, linear layers and attention (projections and both matrix products); as usual, norms,
activations, elementwise products and biases are not. One multiply-add is two floating-point operations.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torchvision.models.swin_transformer import ShiftedWindowAttention

from c2f.models.modes import evaluating


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


def parameters_by_child(model: nn.Module) -> dict[str, int]:
    """`count_parameters`, split by `multiply_adds_by_child`'s parts."""
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    parts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = _part(model, name)
        parts[part] = parts.get(part, 0) + parameter.numel()
    return parts


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
    """`multiply_adds`, split by the parts of the model that have parameters, in the order of the network.

    A part is a child of the model, or an item of a child that is a list of stages: a Conv2Former has stem,
    stages.0 to stages.3 and head. The names are those of `model.get_submodule`.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    parts = dict.fromkeys(parameters_by_child(model), MultiplyAdds())

    def add(name: str, module: nn.Module, x: Tensor) -> None:
        cost = _count(name, module, x)
        if cost.nominal:
            part = _part(model, name)
            parts[part] = parts.get(part, MultiplyAdds()) + cost

    _visit(model, (1, in_channels, height, width), add)
    return parts


def _part(model: nn.Module, name: str) -> str:
    """Which part of the model the module or parameter called `name` belongs to."""
    child, *rest = name.split(".")
    items = getattr(model, child, None)
    stages = isinstance(items, nn.ModuleList | nn.Sequential) and all(any(item.children()) for item in items)
    return f"{child}.{rest[0]}" if stages else child


def _visit(model: nn.Module, shape: tuple[int, ...], visit: Callable[[str, nn.Module, Tensor], None]) -> None:
    """Send shapes alone through the model; visit(name, module, its first input) at each call of a module."""

    def hook(name: str) -> Callable[..., None]:
        return lambda module, args, kwargs, _: visit(name, module, next(iter((*args, *kwargs.values())), None))

    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    with ExitStack() as hooks, evaluating(model), torch.no_grad(), torch.compiler.set_stance("force_eager"):
        for name, module in model.named_modules():
            hooks.enter_context(module.register_forward_hook(hook(name), with_kwargs=True))
        functional_call(model, shapes, (torch.empty(shape, dtype=dtype, device="meta"),))


def _count(name: str, module: nn.Module, x: Tensor) -> MultiplyAdds:
    """The multiply-adds of one call of this module, without those that its children are called for."""
    for kind, count in _COUNTS.items():
        if isinstance(module, kind):
            return count(module, x)
    weights = any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))
    if weights and not any(module.children()) and not isinstance(module, nn.LayerNorm):
        raise ValueError(
            f"cannot count the multiply-adds of {name}, a {type(module).__name__}; build it of "
            f"{', '.join(kind.__name__ for kind in _COUNTS)}, or add it to c2f.models.cost."
        )
    return MultiplyAdds()


def _count_conv2d(conv: nn.Conv2d, x: Tensor) -> MultiplyAdds:
    nominal = useful = conv.out_channels * conv.in_channels // conv.groups
    for axis, size in enumerate(x.shape[2:]):
        kernel, stride, dilation = conv.kernel_size[axis], conv.stride[axis], conv.dilation[axis]
        reach = dilation * (kernel - 1)
        if isinstance(conv.padding, str):
            before, both = (reach // 2, reach) if conv.padding == "same" else (0, 0)
        else:
            before, both = conv.padding[axis], 2 * conv.padding[axis]
        outputs = torch.arange((size + both - reach - 1) // stride + 1, device="cpu")
        taps = torch.arange(kernel, device="cpu")
        positions = outputs[:, None] * stride + taps * dilation - before
        nominal *= positions.numel()
        useful *= int(((positions >= 0) & (positions < size)).sum())
    return MultiplyAdds(nominal, useful)


def _count_linear(linear: nn.Linear, x: Tensor) -> MultiplyAdds:
    count = x.numel() * linear.out_features
    return MultiplyAdds(count, count)


def _count_attention(dim: int, keys: int) -> int:
    """For one token: query, key, value and output projections, its scores over the keys, the weighted sum."""
    return 4 * dim * dim + 2 * keys * dim


def _count_window_attention(attn: ShiftedWindowAttention, x_nhwc: Tensor) -> MultiplyAdds:
    _, height, width, dim = x_nhwc.shape
    high, wide = attn.window_size
    padded = -(-height // high) * high * -(-width // wide) * wide
    a_token = _count_attention(dim, keys=high * wide)
    return MultiplyAdds(padded * a_token, height * width * a_token)


def _count_self_attention(attn: nn.MultiheadAttention, x: Tensor) -> MultiplyAdds:
    tokens = x.numel() // attn.embed_dim
    count = tokens * _count_attention(attn.embed_dim, keys=tokens)
    return MultiplyAdds(count, count)


# An attention module multiplies by its children's weights without calling them, so nothing is counted twice.
_COUNTS: dict[type[nn.Module], Callable[[Any, Tensor], MultiplyAdds]] = {
    nn.Conv2d: _count_conv2d,
    nn.Linear: _count_linear,
    ShiftedWindowAttention: _count_window_attention,
    nn.MultiheadAttention: _count_self_attention,
}
