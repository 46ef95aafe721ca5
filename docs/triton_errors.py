"""The two tables of docs/depthwise_on_a_gpu.md: errors of the Triton kernels against float64, and what they count.

Run `TRITON_INTERPRET=1 python docs/triton_errors.py` for Triton's interpreter on a CPU, `--device cuda` for a GPU.
"""

import math
import random
from collections.abc import Iterator
from unittest import mock

import torch
import torch.nn.functional as F
import tyro

from c2f.fast import autotune, depthwise

PASSES = ("forward", "input gradient", "weight gradient")
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
SEED_MODEL = ((64, 32), (128, 16), (256, 8), (512, 4))  # channels, and the side of the map
BANDWIDTH, TENSOR_CORES = 3.35e12, 989e12  # an H100's bytes/s, and its bf16 operations/s: NVIDIA's data sheet


def random_cases(count: int, seed: int, tallest: int = 12) -> Iterator[tuple]:
    """Shapes (N, C, H, W), odd kernels of 1 to 15, layouts. One map in five is 40 to 80 wide, two are 4 to 9."""
    rng = random.Random(seed)
    for i in range(count):
        most = (9, 36, 20, 80, 9)[(i + seed) % 5]
        shape = (
            rng.randint(1, 5),
            rng.choice((1, 2, 3)),
            rng.randint(1, min(most, tallest)),
            rng.randint(most // 2, most),
        )
        kernel = (rng.randrange(1, 16, 2), rng.randrange(1, 16, 2))
        yield shape, kernel, rng.choice(list(LAYOUTS))


def gradients(x, weight, bias, grad) -> list[torch.Tensor]:
    """Output, input gradient and weight gradient, through autograd."""
    leaves = [t.detach().clone().requires_grad_() for t in (x, weight, bias)]
    y = depthwise.depthwise_conv2d(*leaves)
    y.backward(grad)
    return [y.detach(), leaves[0].grad, leaves[1].grad]


def errors(shape, kernel, layout: str, dtype: torch.dtype, device: str = "cpu") -> dict:
    """Relative error (norm of the difference over the norm) of each pass; whether a second run gives the same bits."""
    torch.manual_seed(0)
    x, grad = torch.randn(2, *shape)
    tensors = x, torch.randn(shape[1], 1, *kernel), torch.randn(shape[1]), grad
    x, weight, bias, grad = (t.to(device, dtype) for t in tensors)
    x, grad = (t.contiguous(memory_format=LAYOUTS[layout]) for t in (x, grad))
    autotune.fast_path.clear()
    in_triton = {"choose": lambda *_: "triton", "SMALL_KERNEL": 0}  # for small kernels too, and on a CPU
    with mock.patch.multiple(depthwise, **in_triton):
        found, again = gradients(x, weight, bias, grad), gradients(x, weight, bias, grad)
    autotune.fast_path.clear()
    wanted = [t.double().requires_grad_() for t in (x, weight, bias)]
    y = F.conv2d(*wanted, padding=(kernel[0] // 2, kernel[1] // 2), groups=shape[1])
    y.backward(grad.double())
    right = [y.detach(), wanted[0].grad, wanted[1].grad]
    return {
        "errors": [float((a.double() - b).norm() / b.norm()) for a, b in zip(found, right, strict=True)],
        "same bits": all(torch.equal(a, b) for a, b in zip(found, again, strict=True)),
        "layout": found[0].is_contiguous(memory_format=LAYOUTS[layout]) and found[0].dtype == dtype,
    }


def counts(images: int, channels: int, side: int, name: str) -> list[float]:
    """Multiply-adds of the convolution and of the products, bytes that must move and that the kernels ask for."""
    from c2f.fast import triton_depthwise as kernels

    back = name == "weight gradient"
    t = kernels._sizes(torch.empty(1, 1, side, side), 11, 11, most=128 if back else 32)
    steps = math.ceil(t["VH"] * t["VW"] / t["K"])
    tiles = images * math.ceil(side / t["TH"])
    tensor = 2 * images * channels * side**2
    if back:
        rows = steps * t["K"]
        products = channels * tiles * rows * t["P"]
        asked = channels * tiles * (rows + rows // t["K"] * t["P"]) * 2 + 2 * channels * rows * t["P"] * 4
    else:
        m, rows_of_tiles = min(128, images), range(0, side, t["TH"])
        spans = [min(t["VH"], side + t["UP"] - top) - max(0, t["UP"] - top) for top in rows_of_tiles]
        rows = sum(math.ceil(span * t["VW"] / t["K"]) * t["K"] for span in spans)
        products = channels * images * rows * t["P"]
        band = channels * (steps + 1) * t["K"] * t["P"] * 2
        asked = channels * (images + images / m * t["P"]) * rows * 2 + band + tensor
    return [images * channels * side**2 * 121, products, 2 * tensor, asked]


def main(cases: int = 15, seed: int = 0, device: str = "cpu") -> None:
    """Print the tables.

    Args:
        cases: random shapes per type.
        seed: of the shapes.
        device: cpu (with TRITON_INTERPRET=1) or cuda.
    """
    print("| type | shapes | " + " | ".join(PASSES) + " | same bits twice |\n| --- |" + " ---: |" * 4 + " --- |")
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        found = [errors(*case, dtype, device) for case in random_cases(cases, seed)]
        seed += 1
        worst = " | ".join(f"{max(case['errors'][i] for case in found):.1e}" for i in range(3))
        same = "yes" if all(case["same bits"] for case in found) else "no"
        print(f"| {str(dtype).removeprefix('torch.')} | {cases} | {worst} | {same} |")
    head = (
        "pass",
        "map",
        "N",
        "convolution, G",
        "products, G",
        "floor, MB",
        "requested, MB",
        "floor, µs",
        "products, µs",
    )
    print("\n| " + " | ".join(head) + " |\n| --- | --- |" + " ---: |" * 7)
    for name in ("forward", "weight gradient"):
        for images in (256, 1024):
            for channels, side in SEED_MODEL:
                nominal, products, least, requested = counts(images, channels, side, name)
                numbers = nominal / 1e9, products / 1e9, least / 1e6, requested / 1e6
                times = 1e6 * least / BANDWIDTH, 1e6 * 2 * products / TENSOR_CORES
                cells = " | ".join(f"{number:,.2f}" for number in (*numbers, *times))
                print(f"| {name} | {channels}×{side}² | {images} | {cells} |")


if __name__ == "__main__":
    tyro.cli(main)
