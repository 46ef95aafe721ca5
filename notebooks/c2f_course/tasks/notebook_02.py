"""The exercises of notebook 02, which builds ConvMod: the norm, a count, a fusion, the whole of it blind."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f.models import ConvMod
from c2f_course.tasks.exercise import (
    Blank,
    Hint,
    Known,
    exercise,
    expect,
    expect_filled,
    expect_tensor,
    expect_untouched,
)


@exercise("02.1", "A layer norm over channels", "easy", 5)
def layer_norm(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> str:
    """Knows: other axes, no root, no eps, the unbiased spread, no mean taken off, weight or bias forgotten or on W."""
    draw = torch.Generator().manual_seed(2)
    # As many columns as channels, so that weight and bias on the wrong axis raise no error that would tell.
    x = 1 + 2 * torch.randn(2, 6, 4, 6, generator=draw)
    x[1, :, 0, 0] = 0  # all channels alike: the spread is 0, and only eps keeps the quotient finite
    weight, bias = 1 + torch.rand(6, generator=draw), torch.randn(6, generator=draw)
    before = x.clone()
    right = F.layer_norm(x.movedim(1, -1), (6,), weight, bias, eps=1e-6).movedim(-1, 1)
    made = expect_tensor(answer(x, weight, bias), tuple(x.shape), "the normalised map")
    expect_untouched(x, before, "x")
    if not torch.isfinite(made).all():
        raise Hint(
            "at one position of the test all channels are equal, so the spread is 0, and your result is not finite "
            "there. What does eps do under the root?"
        )

    def scaled(z: Tensor) -> Tensor:
        return z * weight[:, None, None] + bias[:, None, None]

    def over(*dims: int) -> Tensor:
        mean, variance = x.mean(dims, keepdim=True), x.var(dims, keepdim=True, correction=0)
        return scaled((x - mean) / (variance + 1e-6).sqrt())

    z = (right - bias[:, None, None]) / weight[:, None, None]
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, correction=0)
    known: list[tuple[Tensor | float, str]] = [
        (z, "the numbers are normalised, and then? weight and bias have not been used yet."),
        (z * weight[:, None, None], "the bias is not added yet."),
        (z * weight + bias, "weight and bias lie along the columns: a tensor (6,) is matched with the LAST axis. Give "
                            "them two more axes, so that they lie along the channels."),
        (z * weight[:, None, None] + bias, "the weight is right; the bias lies along the columns: it needs two more "
                                           "axes as well."),
        (F.layer_norm(x, (6,), weight, bias, eps=1e-6), "F.layer_norm works on the LAST axis, here the columns: bring "
         "the channels to the end before, and back after."),
        (scaled((x - mean) / (x.var(1, keepdim=True) + 1e-6).sqrt()), "nearly: torch divides by C − 1 when it takes a "
         "spread, unless told otherwise. A layer norm divides by C: see `correction`."),
        (scaled((x - mean) / (variance + 1e-6)), "that divides by the variance, which is the square of the spread."),
        (scaled(x / (x.square().mean(1, keepdim=True) + 1e-6).sqrt()), "the mean was not taken off."),
        (scaled(x - mean), "the mean is off, but the spread is what it was."),
        (over(0, 2, 3), "each channel has its own mean over all images and positions now: that is BatchNorm."),
        (over(2, 3), "each channel has its own mean over the positions now. Which axis of (N, C, H, W) has the "
                     "channels of ONE position?"),
        (over(1, 2, 3), "one mean for a whole image: that is GroupNorm with one group, which you meet in notebook 03."),
        (over(0, 1, 2, 3), "one mean for the whole batch: name the axis over which to average."),
        (over(3), "the mean runs along the columns: that is the last axis of (N, C, H, W)."),
        (over(0), "the mean runs over the images; no image should know of another."),
    ]  # fmt: skip
    expect(made, right, "the normalised map", known, "At each position: take off the mean of its channels, divide by "
           "their spread, then weight and bias.")  # fmt: skip
    return "and it is what torch's layer_norm gives, once the channels are brought to the end and back."


@exercise("02.2", "What a depthwise convolution learns", "easy", 4)
def depthwise_parameters(answer: Callable[[int, int], int]) -> str:
    """Knows: no bias, one bias in all, an ordinary convolution, one kernel for all channels, k for k²."""
    for channels, k in ((64, 11), (16, 3), (128, 7)):
        convolution = nn.Conv2d(channels, channels, k, groups=channels, device="meta")
        right = sum(parameter.numel() for parameter in convolution.parameters())
        each = k * k
        known = [
            (channels * each, "those are the kernels; each channel also has a bias."),
            (channels * each + 1, "a single bias for everything? Every channel has its own."),
            (channels * (each + channels), "one bias a channel, not one for each pair."),
            (channels**2 * each + channels, "that is an ordinary convolution, in which every output channel has a "
             "kernel for EVERY input channel. Depthwise: for how many of them?"),
            (channels**2 * each, "that is an ordinary convolution without a bias. Depthwise: each channel by itself."),
            (each + 1, "that is one channel's share. Does every channel have a kernel of its own?"),
            (each, "that is one kernel. How many are there?"),
            (channels * (k + 1), "k is the side of the kernel; how many numbers are in it?"),
            (channels * 2 * k + channels, "k + k? A kernel is k rows of k numbers."),
        ]  # fmt: skip
        expect(answer(channels, k), float(right), f"the count for {channels} channels and k = {k}", known,
               "Count one channel's kernel first, then its bias, then the channels.", tolerance=1e-9)  # fmt: skip
    return "the count grows with C, where an ordinary convolution's grows with C²."


@exercise("02.3", "A fusion by hand", "medium", 6)
def l1_fusion(answer: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Knows: no sizes taken, positions for channels, mean for sum, L2, softmax, V forgotten, the product normalised."""
    draw = torch.Generator().manual_seed(3)
    a, v = torch.randn(2, 5, 4, 5, generator=draw), torch.randn(2, 5, 4, 5, generator=draw)
    before = a.clone(), v.clone()
    made = expect_tensor(answer(a, v), tuple(a.shape), "the fused map")
    expect_untouched(a, before[0], "a")
    expect_untouched(v, before[1], "v")
    right = F.normalize(a, p=1.0, dim=1) * v
    known = [
        (F.normalize(a, p=1.0, dim=1), "A is normalised; and what does it weigh?"),
        (a * v, "that is the plain Hadamard product: A is not normalised yet."),
        (a / a.sum(1, keepdim=True) * v, "A has either sign, so its plain sum may be near zero or below it. Whose sum "
         "does the 1-norm take?"),
        (a.abs() / a.abs().sum(1, keepdim=True) * v, "the divisor is right; above it A keeps its sign."),
        (a / a.abs().mean(1, keepdim=True) * v, "that divides by the mean size; the 1-norm is a sum."),
        (F.normalize(a, dim=1) * v, "that is the 2-norm, the root of the sum of squares. L1 is simpler."),
        (a.softmax(1) * v, "a softmax makes every weight positive. L1 normalisation keeps the signs."),
        (a / a.abs().sum((2, 3), keepdim=True) * v, "the sum runs over the positions; here it is over the channels of "
         "one position."),
        (a / a.abs().sum(3, keepdim=True) * v, "the sum runs along the columns, the last axis; the channels are "
         "another one."),
        (a / a.abs().sum(0, keepdim=True) * v, "the sum runs over the images."),
        (a / a.abs().sum() * v, "one sum for everything: name the axis, and keep it."),
        (F.normalize(a * v, p=1.0, dim=1), "first normalise A, then let it weigh V; here the product was normalised."),
        (a * F.normalize(v, p=1.0, dim=1), "that normalises the value. Which of the two is the weight?"),
    ]  # fmt: skip
    expect(made, right, "the fused map", known, "At each position the sizes of A's channels should sum to 1, signs "
           "kept; then it weighs V.")  # fmt: skip
    return 'and it is what fusion="l1" does in this kit\'s ConvMod.'


@exercise("02.4", "ConvMod, blind", "hard", 15)
def convmod(answer: type[nn.Module]) -> str:
    """Knows: no groups, no bias, no padding, kernel size ignored, layers out of order, and what forward may forget."""
    if not (isinstance(answer, type) and issubclass(answer, nn.Module)):
        raise Hint("give the class itself, not an instance or its output: checks.convmod(ConvMod).")
    with torch.random.fork_rng(devices=[]):
        theirs, mine = ConvMod(6, 5), answer(6, 5)
    if any(getattr(mine, name, None) is ... for name in ("norm", "a", "v", "proj")):
        raise Blank
    draw = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=draw))
        theirs.norm.weight += 1
    _expect_layers(mine, theirs)
    mine.load_state_dict(theirs.state_dict())
    x = 1 + 2 * torch.randn(2, 6, 7, 9, generator=draw)
    before = x.clone()
    with torch.no_grad():
        if isinstance(mine.a, nn.Sequential) and (size := mine.a(x).shape[-2:]) != x.shape[-2:]:
            raise Hint(
                f"with kernel_size=5 a map of 7×9 comes out of a as {'×'.join(map(str, size))}, too "
                f"{'small' if size[0] < 7 else 'large'} to meet V: how much padding does a kernel of side k need on "
                f"each side to keep the size?"
            )
        made = mine(x)
        expect_filled(made)
        made = expect_tensor(made, tuple(x.shape), "the output")
        expect_untouched(x, before, "x")
        expect(made, theirs(x), "the output", _slips(theirs, x), "All layers are right, so it is in forward: norm "
               "once; a and v both from the normalised map; their product; proj.", tolerance=1e-4)  # fmt: skip
    return "the same numbers as c2f.models.ConvMod on the same weights. You have built it blind."


def _expect_layers(mine: nn.Module, theirs: nn.Module) -> None:
    """Hint unless the state dicts fit."""
    have, want = ({name: tuple(value.shape) for name, value in m.state_dict().items()} for m in (mine, theirs))
    if "norm.running_mean" in have:
        raise Hint("your norm is a BatchNorm, which averages over the images; ConvMod's takes one position's channels.")
    if "v.0.weight" in have:
        raise Hint("v is a Sequential; V is one 1×1 convolution, with no GELU after it.")
    if "a.1.weight" in have:
        raise Hint("in your a the second layer has weights; between the two convolutions stands the GELU.")
    if have.get("a.2.weight", ())[1:2] == (6,):
        raise Hint(
            f"the large kernel has shape {have['a.2.weight']}: every channel looks at all the others. Which argument "
            f"of Conv2d gives each channel a kernel of its own?"
        )
    if have.get("a.2.weight", want["a.2.weight"])[2:] != (5, 5):
        raise Hint(
            f"asked for kernel_size=5 it has a kernel of {'×'.join(map(str, have['a.2.weight'][2:]))}: is the argument "
            f"used?"
        )
    if missing := [name for name in want if name not in have]:
        if all(name.endswith("bias") for name in missing):
            raise Hint(f"{', '.join(missing)} is missing: every layer of ConvMod has a bias.")
        raise Hint(
            f"the state dict has no {', '.join(missing)}; it should have {', '.join(want)}. (a is a Sequential of "
            f"three layers.)"
        )
    if extra := [name for name in have if name not in want]:
        raise Hint(f"there is more to learn than there should be: {', '.join(extra)}.")
    for name, shape in want.items():
        if have[name] != shape:
            raise Hint(f"{name} has shape {have[name]}, and should have {shape} for 6 channels and k = 5.")


def _slips(m: ConvMod, x: Tensor) -> Known:
    """What forward gives after each mistake that is known."""
    z = m.norm(x)
    a, v = m.a(z), m.v(z)
    grouped = F.group_norm(x, 1, m.norm.weight, m.norm.bias)
    return [
        (x + m.proj(a * v), "x is added already: that is the block's task; ConvMod gives only the branch."),
        (a * v, "the product is there; the last 1×1 convolution, proj, is not."),
        (m.proj(a + v), "A and V are added. How does a weight act on a value?"),
        (m.proj(m.a(x) * m.v(x)), "the norm is not used."),
        (m.proj(m.a(grouped) * m.v(grouped)), "your norm is a GroupNorm of one group: one mean for a whole image. "
         "ConvMod's takes the channels of one position."),
        (m.proj(a * F.gelu(v)), "V passes a GELU; the GELU is in A's branch alone."),
        (m.proj(a * m.v(a)), "V is made from A; both branches begin at the normalised map."),
        (m.proj(a) * v, "proj is applied to A alone; it comes last, after the product."),
        (m.proj(m.a(z) * m.v(x)), "V is made from x itself; both branches begin at the normalised map."),
        (m.proj(m.a(x) * m.v(z)), "A is made from x itself; both branches begin at the normalised map."),
        (m.proj(a * x), "A weighs x itself; the value V = W2 x is not used."),
        (m.proj(a * z), "A weighs the normalised map itself; the value V = W2 x is not used."),
        (m.proj(a.sigmoid() * v), "A passes a sigmoid: a transformer's habit. Here it keeps its sign."),
        (m.proj(a.softmax(1) * v), "A passes a softmax: that is attention. Here nothing normalises A."),
        (m.proj(a.flatten(2).softmax(2).view_as(a) * v), "A passes a softmax over the positions: that is attention. "
         "Here nothing normalises A."),
        (m.proj(m.a[2](m.a[0](z)) * v), "the GELU is missing between the two convolutions of a."),
        (m.proj(m.a[2](F.gelu(m.a[0](z), approximate="tanh")) * v), "that is the GELU's approximation by tanh; the "
         "exact one is what nn.GELU() gives by itself."),
        (m.proj(m.a[2](F.relu(m.a[0](z))) * v), "that is a ReLU; ConvMod has a GELU."),
        (m.proj(a), "A goes on by itself; what does it weigh?"),
        (m.proj(v), "V goes on by itself; what weighs it?"),
    ]  # fmt: skip
