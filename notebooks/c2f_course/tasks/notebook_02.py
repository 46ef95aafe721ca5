"""The exercises of notebook 02, which builds ConvMod: the norm, a count, a fusion, the whole of it blind."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f_course.tasks import layers
from c2f_course.tasks.exercise import Expected, exercise, sentences, task

SAY = sentences(__name__)

layer_norm = exercise("02.1", "A layer norm over channels", "easy", 5)(
    replace(layers.layer_norm, says=layers.layer_norm.says | SAY["layer_norm"])
)


@exercise("02.2", "What a depthwise convolution learns", "easy", 4)
@task([(64, 11), (16, 3), (128, 7)], SAY["depthwise_parameters"])
def depthwise_parameters(channels: int, k: int) -> Expected:
    convolution = nn.Conv2d(channels, channels, k, groups=channels, device="meta")
    each = k * k
    mistakes = {
        "no biases": channels * each,
        "one bias for everything": channels * each + 1,
        "a bias for each pair": channels * (each + channels),
        "an ordinary convolution": channels**2 * each + channels,
        "an ordinary convolution without biases": channels**2 * each,
        "one channel": each + 1,
        "one kernel": each,
        "k for the kernel": channels * (k + 1),
        "k + k for the kernel": channels * 2 * k + channels,
    }
    right = sum(parameter.numel() for parameter in convolution.parameters())
    return Expected(f"the count for {channels} channels and k = {k}", right, mistakes)


FUSED = [tuple(torch.randn(2, 2, 5, 4, 5, generator=torch.Generator().manual_seed(3)))]


@exercise("02.3", "A fusion by hand", "medium", 6)
@task(FUSED, SAY["l1_fusion"])
def l1_fusion(a: Tensor, v: Tensor) -> Expected:
    normalised = F.normalize(a, p=1.0, dim=1)
    size = a.abs()
    mistakes = {
        "no product": normalised,
        "not normalised": a * v,
        "a plain sum": a / a.sum(1, keepdim=True) * v,
        "sizes above the line too": size / size.sum(1, keepdim=True) * v,
        "a mean": a / size.mean(1, keepdim=True) * v,
        "the 2-norm": F.normalize(a, dim=1) * v,
        "a softmax": a.softmax(1) * v,
        "over the positions": a / size.sum((2, 3), keepdim=True) * v,
        "over the columns": a / size.sum(3, keepdim=True) * v,
        "over the images": a / size.sum(0, keepdim=True) * v,
        "over everything": a / size.sum() * v,
        "the product normalised": F.normalize(a * v, p=1.0, dim=1),
        "the value normalised": a * F.normalize(v, p=1.0, dim=1),
    }
    return Expected("the fused map", normalised * v, mistakes)


convmod = exercise("02.4", "ConvMod, blind", "hard", 15)(
    replace(layers.convmod, says=layers.convmod.says | SAY["convmod"])
)
