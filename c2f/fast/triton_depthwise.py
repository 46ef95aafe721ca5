"""The depthwise convolution on a GPU's tensor cores, in Triton: one more candidate for `c2f.fast.depthwise`.

A kernel that multiplies tap by tap is limited by the GPU's float32 rate. Tensor cores are faster, but they multiply
matrices. So the output is cut into *tiles* of TH x TW positions. A tile depends on a *window* of VH x VW inputs, with
TH + k_h - 1 rows, or on the whole map. From window to tile, the convolution is one matrix per channel, the *band*: it
has the tap of offset (input - output) where the filter reaches, zero elsewhere, and is a piece of the Toeplitz matrix.

    forward            outputs (tiles x TH TW) = windows (tiles x VH VW) @ band
    weight gradient    gradient of the band = windows^T @ gradients of the outputs; a tap sums its entries, a diagonal

For 11 x 11 taps on a 32 x 32 map, a tile is 4 x 32 and its window 14 x 32. So both passes multiply up to 448 times per
output (121 taps) and request each input up to 14 / 4 times, the weight gradient also each output gradient 4 times. Both
write and read a band of 448 x 128 numbers per channel. Each sum has a fixed order: the same bits every time.

The products read NCHW. Channels_last tensors are transposed first and the output back: there, neighbours in a channel
are C numbers apart, and a GPU reads 32 bytes at once. Sums are in float32; float32 inputs are multiplied as three TF32
products. Zeros of the band are multiplied too: an infinite input makes NaN of outputs that the filter does not reach.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language import constexpr

from c2f.fast.autotune import layout_of


def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (N, C, H, W), weight (C, 1, k_h, k_w), bias (C,) or None -> (N, C, H, W), in the memory format of x."""
    channels, sizes = x.shape[1], _sizes(x, *weight.shape[2:], most=32)
    tiles = len(x) * triton.cdiv(sizes["W"], sizes["TW"])
    steps, m = triton.cdiv(sizes["VH"] * sizes["VW"], sizes["K"]) + 1, _power_of_two(16, tiles, 128)
    with torch.cuda.device_of(x):
        planes, weight, rows = _relaid(x, torch.contiguous_format), weight.contiguous(), steps * sizes["K"]
        bands, out = x.new_empty(channels, rows, sizes["P"]), torch.empty_like(planes)
        _make_bands[steps, channels](weight, bands, rows, **sizes)
        _multiply[triton.cdiv(sizes["H"], sizes["TH"]), triton.cdiv(tiles, m), channels](
            planes, bands, weight if bias is None else bias.contiguous(), out, tiles, channels, rows,
            HAS_BIAS=bias is not None, M=m, **sizes, **_how(x, m * sizes["P"]),
        )  # fmt: skip
        return _relaid(out, layout_of(x))


def weight_gradient(x: Tensor, grad: Tensor, kernel: tuple[int, int]) -> Tensor:
    """x and grad (N, C, H, W), kernel (k_h, k_w) -> (C, 1, k_h, k_w)."""
    channels, sizes = x.shape[1], _sizes(x, *kernel, most=128)
    tiles = len(x) * triton.cdiv(sizes["H"], sizes["TH"]) * triton.cdiv(sizes["W"], sizes["TW"])
    steps, positions = triton.cdiv(sizes["VH"] * sizes["VW"], sizes["K"]), sizes["P"]
    share = 32 * triton.cdiv(tiles, 32 * _power_of_two(1, 256 // (steps * channels), 64))  # for 256 programs at once
    shares, rows, taps = triton.cdiv(tiles, share), steps * sizes["K"], triton.next_power_of_2(kernel[1])
    with torch.cuda.device_of(x):
        planes, grad = (_relaid(t, torch.contiguous_format) for t in (x, grad))
        bands = x.new_empty(shares, channels, rows, positions, dtype=torch.float32)
        how, out = _how(x, sizes["K"] * positions), x.new_empty(channels, 1, *kernel)
        _multiply_back[steps, shares, channels](planes, grad, bands, tiles, channels, share, M=32, **sizes, **how)
        _sum_taps[kernel[0], channels](bands, out, shares, channels * rows * positions, rows, TAPS=taps, **sizes)
        return out


def _sizes(x: Tensor, k_h: int, k_w: int, most: int) -> dict[str, int]:
    """Of tile and window; how far a window begins above (UP) and left of its tile; the positions P of a tile, and the
    positions K of a window that a program multiplies at once: whole rows, as many as `most` allows."""
    height, width = x.shape[2:]
    tile_w = triton.next_power_of_2(width) if width <= 64 else 32
    tile_h = _power_of_two(-(-16 // tile_w), height, 128 // tile_w)  # a product needs 16 columns
    window_h, up = (height, 0) if tile_h >= height else (tile_h + k_h - 1, k_h // 2)
    window_w, left = (tile_w, 0) if tile_w >= width else (triton.next_power_of_2(tile_w + k_w - 1), k_w // 2)
    return {
        "H": height, "W": width, "KH": k_h, "KW": k_w, "TH": tile_h, "TW": tile_w, "VH": window_h, "VW": window_w,
        "UP": up, "LEFT": left, "P": tile_h * tile_w, "K": max(window_w, _power_of_two(16, window_h * window_w, most)),
    }  # fmt: skip


def _power_of_two(least: int, size: int, most: int) -> int:
    return max(least, min(triton.next_power_of_2(max(size, 1)), most))


def _how(x: Tensor, outputs: int) -> dict[str, object]:
    """How to compile a product; of float32, half as many stages fit on the chip."""
    precision, stages = ("tf32x3", 2) if x.dtype == torch.float32 else ("ieee", 4)
    how = {"PRECISION": precision, "INTERPRETED": not isinstance(_multiply, triton.JITFunction)}
    return {**how, "num_warps": 8 if outputs >= 128 * 128 else 4, "num_stages": stages}


def _relaid(x: Tensor, layout: torch.memory_format) -> Tensor:
    if layout_of(x) == layout:
        return x.contiguous(memory_format=layout)
    out, c, hw = torch.empty_like(x, memory_format=layout), x.shape[1], x.shape[2] * x.shape[3]
    rows, columns = (c, hw) if layout == torch.channels_last else (hw, c)
    _transpose[len(x), triton.cdiv(rows, 64), triton.cdiv(columns, 64)](x, out, rows, columns, BLOCK=64)
    return out


@triton.jit
def _transpose(x, out, rows, columns, BLOCK: constexpr):
    """(N, rows, columns) -> (N, columns, rows), a square block per program."""
    n = tl.program_id(0).to(tl.int64) * rows * columns
    row = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[:, None]
    column = (tl.program_id(2) * BLOCK + tl.arange(0, BLOCK))[None, :]
    inside = (row < rows) & (column < columns)
    tl.store(out + n + column * rows + row, tl.load(x + n + row * columns + column, mask=inside), mask=inside)


@triton.jit
def _make_bands(
    weight, bands, rows, H: constexpr, W: constexpr, KH: constexpr, KW: constexpr, TH: constexpr, TW: constexpr,
    VH: constexpr, VW: constexpr, UP: constexpr, LEFT: constexpr, P: constexpr, K: constexpr,
):  # fmt: skip
    """weight (C, k_h, k_w) -> bands (C, rows, P)."""
    c, p = tl.program_id(1), tl.arange(0, P)[None, :]
    row = (tl.program_id(0) * K + tl.arange(0, K))[:, None]
    ky, kx = row // VW - p // TW + KH // 2 - UP, row % VW - p % TW + KW // 2 - LEFT
    reached = (ky >= 0) & (ky < KH) & (kx >= 0) & (kx < KW)
    taps = tl.load(weight + (c * KH + ky) * KW + kx, mask=reached, other=0.0)
    tl.store(bands + (c.to(tl.int64) * rows + row) * P + p, taps)


@triton.jit
def _read(image, y, column, inside, H: constexpr, W: constexpr, INTERPRETED: constexpr):
    """Numbers of a channel's image, zero outside. Triton's interpreter cannot multiply matrices of bfloat16."""
    inside = inside & (y >= 0) & (y < H) & (column >= 0) & (column < W)
    numbers = tl.load(image + y * W + column, mask=inside, other=0.0)
    return numbers.to(tl.float32) if INTERPRETED else numbers


@triton.jit
def _multiply(
    x, bands, bias, out, tiles, channels, rows, HAS_BIAS: constexpr, M: constexpr, PRECISION: constexpr,
    INTERPRETED: constexpr, H: constexpr, W: constexpr, KH: constexpr, KW: constexpr, TH: constexpr, TW: constexpr,
    VH: constexpr, VW: constexpr, UP: constexpr, LEFT: constexpr, P: constexpr, K: constexpr,
):  # fmt: skip
    """M tiles of one channel in one row of tiles, K positions of their windows at a time."""
    top, c, across = tl.program_id(0) * TH, tl.program_id(2), (W + TW - 1) // TW
    m = (tl.program_id(1) * M + tl.arange(0, M))[:, None]
    k, p = tl.arange(0, K), tl.arange(0, P)
    plane, left = ((m // across).to(tl.int64) * channels + c) * (H * W), m % across * TW
    band = bands + c.to(tl.int64) * rows * P + k[:, None] * P + p[None, :]
    sums = tl.zeros((M, P), dtype=tl.float32)
    for i in range(tl.maximum(0, UP - top), tl.minimum(VH, H + UP - top), K // VW):  # rows that are in the image
        y, column = (top - UP + i + k // VW)[None, :], left - LEFT + (k % VW)[None, :]
        windows = _read(x + plane, y, column, m < tiles, H, W, INTERPRETED)
        taps = tl.load(band + i * (VW * P)).to(windows.dtype)
        sums = tl.dot(windows, taps, sums, input_precision=PRECISION)
    sums += tl.load(bias + c).to(tl.float32) if HAS_BIAS else 0.0
    y, column = (top + p // TW)[None, :], left + (p % TW)[None, :]
    inside = (m < tiles) & (y < H) & (column < W)
    tl.store(out + plane + y * W + column, sums.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _multiply_back(
    x, grad, bands, tiles, channels, share, M: constexpr, PRECISION: constexpr, INTERPRETED: constexpr, H: constexpr,
    W: constexpr, KH: constexpr, KW: constexpr, TH: constexpr, TW: constexpr, VH: constexpr, VW: constexpr,
    UP: constexpr, LEFT: constexpr, P: constexpr, K: constexpr,
):  # fmt: skip
    """K rows of the gradient of one channel's band, summed over a share of the tiles, M at a time."""
    block, part, c = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    across, down = (W + TW - 1) // TW, (H + TH - 1) // TH
    k, p = tl.arange(0, K), tl.arange(0, P)
    sums = tl.zeros((K, P), dtype=tl.float32)
    for start in range(part * share, tl.minimum(part * share + share, tiles), M):
        m = (start + tl.arange(0, M))[:, None]
        top, left = m // across % down * TH, m % across * TW
        plane = ((m // (across * down)).to(tl.int64) * channels + c) * (H * W)
        y, column = top - UP + block * (K // VW) + (k // VW)[None, :], left - LEFT + (k % VW)[None, :]
        windows = _read(x + plane, y, column, m < tiles, H, W, INTERPRETED)
        y, column = top + (p // TW)[None, :], left + (p % TW)[None, :]
        gradients = _read(grad + plane, y, column, m < tiles, H, W, INTERPRETED)
        sums = tl.dot(tl.trans(windows), gradients, sums, input_precision=PRECISION)
    row = ((part.to(tl.int64) * channels + c) * tl.num_programs(0) + block) * K + k
    tl.store(bands + row[:, None] * P + p[None, :], sums)


@triton.jit
def _sum_taps(
    bands, out, shares, size, rows, TAPS: constexpr, H: constexpr, W: constexpr, KH: constexpr, KW: constexpr,
    TH: constexpr, TW: constexpr, VH: constexpr, VW: constexpr, UP: constexpr, LEFT: constexpr, P: constexpr,
    K: constexpr,
):  # fmt: skip
    """The gradient of a row of taps, from bands (shares, C, rows, P)."""
    ky, c, kx, p = tl.program_id(0), tl.program_id(1), tl.arange(0, TAPS), tl.arange(0, P)[None, :]
    i, column = ky - KH // 2 + UP + p // TW, kx[:, None] - KW // 2 + LEFT + p % TW
    inside = (i >= 0) & (i < VH) & (column >= 0) & (column < VW) & (kx < KW)[:, None]
    entries = bands + (c.to(tl.int64) * rows + i * VW + column) * P + p
    sums = tl.zeros((TAPS, P), dtype=tl.float32)
    for _ in range(shares):
        sums += tl.load(entries, mask=inside, other=0.0)
        entries += size
    tl.store(out + (c * KH + ky) * KW + kx, tl.sum(sums, 1).to(out.dtype.element_ty), mask=kx < KW)
