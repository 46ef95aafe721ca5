"""How a network's weights begin: as the seed model publishes it, or so that a short training begins well."""

from typing import Literal

import torch
from torch import nn

Init = Literal["truncated_normal", "orthogonal"]

GAIN = 0.7  # of the orthogonal matrices: a little below 1, since every block adds to what it was given


def truncated_normal_(model: nn.Module) -> None:
    """The published beginning: weights from a normal distribution of 0.02, cut off at 2; biases 0. Norms stay."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@torch.no_grad()
def orthogonal_(model: nn.Module) -> None:
    """A beginning that passes signals on undiminished: every matrix orthogonal, every modulation the map it looks at.

    Convolutions that mix channels are orthogonal matrices (C_out, C_in k k), Saxe et al., arXiv 1312.6120. Depthwise
    filters wider than 3 begin as the published ones plus 1 at the centre, so that A begins as U; the rest as published.
    """
    truncated_normal_(model)
    for module in model.modules():
        if not isinstance(module, nn.Conv2d):
            continue
        k_h, k_w = module.kernel_size
        if module.groups == 1:
            matrix = torch.empty_like(module.weight.flatten(1))
            module.weight.copy_(nn.init.orthogonal_(matrix, gain=GAIN).view_as(module.weight))
        elif max(k_h, k_w) > 3:
            module.weight[:, :, k_h // 2, k_w // 2] += 1


INIT = {"truncated_normal": truncated_normal_, "orthogonal": orthogonal_}
