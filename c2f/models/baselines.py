"""The models that Conv2Former is compared with: torchvision's Swin, ConvNeXt and ViT, without pretrained weights.

Each subclass adds a sentence for an image that does not fit and, for Swin, its attention weights. All take (N, 3, H, W)
and give logits (N, num_classes). Parameters, names and initialisation are torchvision's.

Shapes: N images, H x W pixels or tokens, T tokens of a window (its side squared).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.convnext import ConvNeXt as TorchvisionConvNeXt
from torchvision.models.swin_transformer import ShiftedWindowAttention, SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from c2f.models.inputs import check_images, model_device


class BlockAttention(NamedTuple):
    """The attention weights of one Swin block, and where its windows are on the image.

    Swin pads the token grid below and to the right to whole windows, rolls it by `shift` tokens up and to the
    left, and cuts it into windows; a token attends to the tokens of its own window. `tokens` undoes all three.
    """

    stage: int  # counted from 0
    block: int  # counted from 0 within its stage
    weights: Tensor  # (N, windows, heads, T, T): [..., query, key]; each row over the keys sums to 1
    tokens: Tensor  # (windows, T) int64: where each token is in the padded grid, counted row by row
    window: tuple[int, int]  # height and width, in tokens; so are the next three
    shift: tuple[int, int]  # 0 in every other block, and along a side that one window covers
    grid: tuple[int, int]  # of the image
    padded: tuple[int, int]  # of the image with its padding

    def row(self, y: int, x: int) -> Tensor:
        """How much the token in row y, column x attends to each token of the image: (N, heads, H, W).

        Sums to less than 1 where the window reaches into the padding, which torchvision does not mask.
        """
        height, width = self.grid
        if not (0 <= y < height and 0 <= x < width):
            raise ValueError(f"there is no token ({y}, {x}); rows are 0 to {height - 1}, columns 0 to {width - 1}.")
        window, query = (self.tokens == y * self.padded[1] + x).nonzero()[0].tolist()
        weights = self.weights[:, window, :, query]
        full = weights.new_zeros(*weights.shape[:2], self.padded[0] * self.padded[1])
        full = full.index_add(2, self.tokens[window], weights)  # MPS has no index_copy in PyTorch 2.6
        return full.unflatten(2, self.padded)[:, :, :height, :width]


def _block_attention(attn: ShiftedWindowAttention, x_nhwc: Tensor, stage: int, block: int) -> BlockAttention:
    """What torchvision's window attention computes up to its softmax, for a normed input x_nhwc."""
    _, height, width, dim = x_nhwc.shape
    window = tuple(attn.window_size)
    padded = tuple(-(-size // side) * side for size, side in zip((height, width), window, strict=True))
    shift = tuple(0 if side >= size else step for side, size, step in zip(window, padded, attn.shift_size, strict=True))
    position = torch.arange(padded[0] * padded[1], device=x_nhwc.device).reshape(padded)
    position = position.roll((-shift[0], -shift[1]), dims=(0, 1))
    windows = position.unflatten(0, (-1, window[0])).unflatten(2, (-1, window[1])).transpose(1, 2)
    tokens = windows.reshape(-1, window[0] * window[1])

    x = F.pad(x_nhwc, (0, 0, 0, padded[1] - width, 0, padded[0] - height)).flatten(1, 2)[:, tokens]
    qkv = attn.qkv(x).unflatten(-1, (3, attn.num_heads, dim // attn.num_heads))
    query, key = qkv[..., 0, :, :].transpose(2, 3), qkv[..., 1, :, :].transpose(2, 3)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2) + attn.get_relative_position_bias()

    # Rolling brings opposite edges of the image together in one window; they must not see each other.
    wrapped = 2 * (tokens // padded[1] < shift[0]) + (tokens % padded[1] < shift[1]).long()
    apart = wrapped[:, None, :, None] != wrapped[:, None, None, :]
    weights = (scores - 100.0 * apart).softmax(dim=-1)  # torchvision subtracts 100 too, rather than infinity
    return BlockAttention(stage, block, weights, tokens, window, shift, (height, width), padded)


class Swin(SwinTransformer):
    """torchvision's Swin Transformer (Liu et al., arXiv 2103.14030) that can show its attention weights.

    H and W are at least a patch; else ValueError.
    """

    def __init__(
        self, patch_size: int, embed_dim: int, depths: Sequence[int], num_heads: Sequence[int], window_size: int,
        mlp_ratio: float, drop_path: float, num_classes: int,
    ) -> None:  # fmt: skip
        if not len(depths) == len(num_heads) > 0 or min(*depths, *num_heads) < 1 or sum(depths) < 2:
            raise ValueError(
                f"depths {tuple(depths)} and num_heads {tuple(num_heads)} must be positive and of one length, with "
                f"one number per stage each and two blocks or more in all."
            )
        if min(patch_size, embed_dim, window_size) < 1 or int(embed_dim * mlp_ratio) < 1:
            raise ValueError(
                f"patch_size ({patch_size}), embed_dim ({embed_dim}), window_size ({window_size}) and "
                f"mlp_ratio ({mlp_ratio}) must be positive; swin_t has 4, 96, 7 and 4."
            )
        for stage, heads in enumerate(num_heads):
            if (dim := embed_dim * 2**stage) % heads:
                raise ValueError(f"{heads} heads cannot share the {dim} channels of stage {stage}: use a divisor.")
        super().__init__(
            [patch_size, patch_size], embed_dim, list(depths), list(num_heads), [window_size, window_size],
            mlp_ratio, stochastic_depth_prob=drop_path, num_classes=num_classes,
        )  # fmt: skip
        self.patch_size = patch_size

    def forward(self, x: Tensor) -> Tensor:
        check_images(x, 3, smallest=self.patch_size)
        return super().forward(x)

    def attention_weights(self, x: Tensor) -> list[BlockAttention]:
        """Every block's attention weights for images x (N, 3, H, W), first block first.

        Drop path between the blocks follows the model's mode, as in `forward`: `eval()` switches it off.
        """
        check_images(x, 3, smallest=self.patch_size)
        stem, *rest = self.features
        x = stem(x.to(model_device(self)))
        attentions = []
        for stage, blocks in enumerate(rest[::2]):  # torchvision alternates stages and patch merging
            x = rest[2 * stage - 1](x) if stage else x
            for index, block in enumerate(blocks):
                attentions.append(_block_attention(block.attn, block.norm1(x), stage, index))
                x = block(x)
        return attentions


class ConvNeXt(TorchvisionConvNeXt):
    """torchvision's ConvNeXt (Liu et al., arXiv 2201.03545), for images of at least 32 x 32; else ValueError."""

    def forward(self, x: Tensor) -> Tensor:
        check_images(x, 3, smallest=32)  # the stem quarters the map, three stages halve it
        return super().forward(x)


def convnext_t(layer_scale: float, drop_path: float, num_classes: int) -> ConvNeXt:
    stages = [(96, 192, 3), (192, 384, 3), (384, 768, 9), (768, None, 3)]
    return ConvNeXt([CNBlockConfig(*stage) for stage in stages], drop_path, layer_scale, num_classes)


class ViT(VisionTransformer):
    """torchvision's Vision Transformer (Dosovitskiy et al., arXiv 2010.11929), for square images of one size only."""

    def forward(self, x: Tensor) -> Tensor:
        check_images(x, 3, exactly=self.image_size)
        return super().forward(x)


def vit_b_16(image_size: int, dropout: float, attention_dropout: float, num_classes: int) -> ViT:
    if image_size < 16 or image_size % 16:
        raise ValueError(f"image_size is {image_size}; patches are 16 pixels a side: use a multiple of 16.")
    return ViT(
        image_size, patch_size=16, num_layers=12, num_heads=12, hidden_dim=768, mlp_dim=3072,
        dropout=dropout, attention_dropout=attention_dropout, num_classes=num_classes,
    )  # fmt: skip


BASELINES: dict[str, partial[nn.Module]] = {
    # As torchvision has it: 27,527,044 parameters at 10 classes. Made for 224x224: a 32x32 image is 8, 4, 2, 1 tokens a
    # side, each padded to a multiple of 7, so that most of what it computes there is padding (`c2f.models.cost`).
    "swin_t": partial(
        Swin, patch_size=4, embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), window_size=7, mlp_ratio=4.0,
        drop_path=0.2,
    ),
    # For 32x32, to compare with `conv2former_n_cifar`: similar in multiply-adds and in parameters. Patch 2 gives 16, 8
    # and 4 tokens a side, which windows of 4 divide, so nothing is padded; a fourth stage of 2x2 tokens would be three
    # quarters padding. Width and heads are Swin-T's. Most blocks are on the 8x8 map, as Conv2Former-N has them; twelve
    # bring it to the same cost (a test checks that it is within 10 %).
    "swin_mini_cifar": partial(
        Swin, patch_size=2, embed_dim=96, depths=(2, 12, 2), num_heads=(3, 6, 12), window_size=4, mlp_ratio=4.0,
        drop_path=0.1,
    ),
    # For laptops, to compare with `conv2former_mini_cifar`: its widths and stages, within 10 % of its cost. It begins
    # with patches of 2x2 pixels, as Swin does, where that Conv2Former has two small convolutions.
    "swin_micro_cifar": partial(
        Swin, patch_size=2, embed_dim=64, depths=(2, 2, 2), num_heads=(2, 4, 8), window_size=4, mlp_ratio=2.0,
        drop_path=0.0,
    ),
    # A 32x32 image is 8, 4, 2, 1 positions a side under its 7x7 kernels.
    "convnext_t": partial(convnext_t, layer_scale=1e-6, drop_path=0.1),
    # A 32x32 image is four patches. As torchvision's class, it has dropout and no drop path.
    "vit_b_16": partial(vit_b_16, image_size=32, dropout=0.0, attention_dropout=0.0),
}  # fmt: skip
"""By name: what builds it, with its settings, each of which `create_model` takes as an override."""


def build_baseline(name: str, num_classes: int, **overrides: Any) -> nn.Module:
    """One of `BASELINES`, with some settings changed."""
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}; a classifier needs at least one class.")
    for rate in {"drop_path", "dropout", "attention_dropout"} & overrides.keys():
        if not 0 <= overrides[rate] < 1:
            raise ValueError(f"{rate} is {overrides[rate]}; it is a probability: at least 0, below 1.")
    return BASELINES[name](num_classes=num_classes, **overrides)
