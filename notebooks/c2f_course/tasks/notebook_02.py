"""The exercises of notebook 02, which builds ConvMod: the norm, a count, a fusion, the whole of it blind."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f_course.tasks import layers
from c2f_course.tasks.exercise import Expected, exercise, task

layer_norm = exercise("02.1", "A layer norm over channels", "easy", 5)(
    replace(
        layers.layer_norm,
        praise="and it is what torch's layer_norm gives, once the channels are brought to the end and back.",
    )
)


@exercise("02.2", "What a depthwise convolution learns", "easy", 4)
@task([(64, 11), (16, 3), (128, 7)], "the count grows with C, where an ordinary convolution's grows with C².")
def depthwise_parameters(channels: int, k: int) -> Expected:
    convolution = nn.Conv2d(channels, channels, k, groups=channels, device="meta")
    each = k * k
    mistakes = [
        (channels * each, "those are the kernels; each channel also has a bias."),
        (channels * each + 1, "a single bias for everything? Every channel has its own."),
        (channels * (each + channels), "one bias a channel, not one for each pair."),
        (channels**2 * each + channels, "that is an ordinary convolution, in which every output channel has a kernel "
         "for EVERY input channel. Depthwise: for how many of them?"),
        (channels**2 * each, "that is an ordinary convolution without a bias. Depthwise: each channel by itself."),
        (each + 1, "that is one channel's share. Does every channel have a kernel of its own?"),
        (each, "that is one kernel. How many are there?"),
        (channels * (k + 1), "k is the side of the kernel; how many numbers are in it?"),
        (channels * 2 * k + channels, "k + k? A kernel is k rows of k numbers."),
    ]  # fmt: skip
    right = sum(parameter.numel() for parameter in convolution.parameters())
    return Expected(f"the count for {channels} channels and k = {k}", right, mistakes, "Count one channel's kernel "
        "first, then its bias, then the channels.")  # fmt: skip


FUSED = [tuple(torch.randn(2, 2, 5, 4, 5, generator=torch.Generator().manual_seed(3)))]


@exercise("02.3", "A fusion by hand", "medium", 6)
@task(FUSED, 'and it is what fusion="l1" does in this kit\'s ConvMod.')
def l1_fusion(a: Tensor, v: Tensor) -> Expected:
    normalised = F.normalize(a, p=1.0, dim=1)
    size = a.abs()
    mistakes = [
        (normalised, "A is normalised; and what does it weigh?"),
        (a * v, "that is the plain Hadamard product: A is not normalised yet."),
        (a / a.sum(1, keepdim=True) * v, "A has either sign, so its plain sum may be near zero or below it. Whose sum "
         "does the 1-norm take?"),
        (size / size.sum(1, keepdim=True) * v, "the divisor is right; above it A keeps its sign."),
        (a / size.mean(1, keepdim=True) * v, "that divides by the mean size; the 1-norm is a sum."),
        (F.normalize(a, dim=1) * v, "that is the 2-norm, the root of the sum of squares. L1 is simpler."),
        (a.softmax(1) * v, "a softmax makes every weight positive. L1 normalisation keeps the signs."),
        (a / size.sum((2, 3), keepdim=True) * v, "the sum runs over the positions; here it is over the channels of one "
         "position."),
        (a / size.sum(3, keepdim=True) * v, "the sum runs along the columns, the last axis; the channels are another "
         "one."),
        (a / size.sum(0, keepdim=True) * v, "the sum runs over the images."),
        (a / size.sum() * v, "one sum for everything: name the axis, and keep it."),
        (F.normalize(a * v, p=1.0, dim=1), "first normalise A, then let it weigh V; here the product was normalised."),
        (a * F.normalize(v, p=1.0, dim=1), "that normalises the value. Which of the two is the weight?"),
    ]  # fmt: skip
    return Expected("the fused map", normalised * v, mistakes, "At each position the sizes of A's channels should sum "
        "to 1, signs kept; then it weighs V.")  # fmt: skip


convmod = exercise("02.4", "ConvMod, blind", "hard", 15)(
    replace(layers.convmod, praise=f"{layers.convmod.praise} You have built it blind.")
)
