"""Depthwise convolution, one k x k filter a channel: the operation that stands where attention's matrix stands."""

from torch import nn


class DepthwiseConv2d(nn.Conv2d):
    """One odd k x k filter for each channel, stride 1, zero padding that keeps the size.

    Shape: (N, C, H, W) -> (N, C, H, W). Its state dict is that of `nn.Conv2d(channels, channels, k, padding=k // 2,
    groups=channels)`.
    """

    def __init__(self, channels: int, kernel_size: int, bias: bool = True) -> None:
        super().__init__(
            channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=bias
        )
