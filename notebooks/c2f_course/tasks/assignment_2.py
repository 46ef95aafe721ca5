"""Assignment 2, The training loop: the public checks, which the hidden tests ask again of other inputs."""

import io
import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f_course.grading.assignment import question
from c2f_course.grading.remote import beside
from c2f_course.tasks.exercise import (
    Hint,
    Known,
    expect,
    expect_close,
    expect_filled,
    expect_number,
    expect_tensor,
    expect_untouched,
    is_close,
)

LOSSES = (
    "CrossEntropyLoss", "cross_entropy", "NLLLoss", "NLLLoss2d", "nll_loss", "nll_loss2d", "nll_loss_nd",
    "nll_loss_forward", "linear_cross_entropy", "KLDivLoss", "kl_div", "cross_entropy_loss",
    "binary_cross_entropy", "BCELoss", "binary_cross_entropy_with_logits", "BCEWithLogitsLoss",
)  # fmt: skip
DROPS = (
    "StochasticDepth", "stochastic_depth", "DropPath", "dropout", "Dropout", "dropout1d", "Dropout1d", "dropout2d",
    "Dropout2d", "torchvision.ops",
)  # fmt: skip
MIXES = ("MixUp", "mixup", "mix", "mixup_or_cutmix", "torchvision.transforms", "torchvision.transforms.v2")
SCHEDULES = (
    "LambdaLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "SequentialLR", "LinearLR", "OneCycleLR",
    "lr_scheduler", "torch.optim.lr_scheduler", "learning_rate", "Recipe", "c2f.training.recipes",
)  # fmt: skip
OURS = (
    "c2f.training", "c2f.training.loop", "c2f.training.augment", "c2f.training.run", "c2f_course.tasks.bug_hunt",
    "c2f_course.tasks", "c2f_course.tasks.assignment_2", "assignment_2", "c2f_course.tasks.notebook_05",
    "notebook_05", "save_checkpoint", "load_checkpoint", "sound_loop",
)  # fmt: skip


@beside
def gradient(function: Callable[..., Tensor], args: list, which: int) -> Tensor | None:
    """The gradient of the sum of squares of `function(*args)` with respect to one of the arguments."""
    args = [arg.detach().clone() if isinstance(arg, Tensor) else arg for arg in args]
    args[which].requires_grad_()
    made = function(*args)
    if isinstance(made, Tensor) and made.requires_grad:
        made.square().sum().backward()
    return args[which].grad


def _expect_gradient(answer: Callable, right: Callable, args: list, which: int, what: str) -> None:
    wanted = gradient(right, [arg.double() if isinstance(arg, Tensor) and arg.is_floating_point() else arg
                              for arg in args], which)  # fmt: skip
    got = gradient(answer, args, which)
    if got is None:
        raise Hint(f"no gradient reaches {what}: the values are right, and yet nothing could be learned through it. "
                   f"(.item(), .detach(), .data and numpy cut the graph.)")  # fmt: skip
    expect(got, wanted, f"the gradient for {what}", [], "Stay with torch's operations.", tolerance=1e-4)


# ---- The loss


@question(
    "2.1", "A loss for labels and for shares", "easy", 15, points=3, answers="training_loss", without=LOSSES + OURS
)
def training_loss(
    answer: Callable[[Tensor, Tensor, float], Tensor],
    images: int = 6,
    classes: int = 4,
    smoothings: Sequence[float] = (0.2, 0.0),
    sizes: Sequence[float] = (3.0, 400.0),
    kinds: Sequence[str] = ("labels", "shares"),
    seed: int = 21,
) -> str:
    """Knows: K − 1 classes, a class count written in, a share only taken or only added, no log, clipped logarithms,
    scores that overflow, the sum, the wrong axis, soft targets made hard."""
    for size in sizes:
        for kind in kinds:
            for smoothing in smoothings:
                _expect_loss(answer, images, classes, smoothing, size, kind, seed)
    return "labels or shares, smoothed or not, and safe for scores of any size."


def _expect_loss(
    answer: Callable, images: int, classes: int, smoothing: float, size: float, kind: str, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    logits = size * torch.randn(images, classes, generator=draw)
    labels = torch.randint(0, classes, (images,), generator=draw)
    shares = (2 * torch.randn(images, classes, generator=draw)).softmax(1)
    targets, t = (labels, F.one_hot(labels, classes).double()) if kind == "labels" else (shares, shares.double())
    case = f"the loss for {kind}, {classes} classes, smoothing {smoothing:g}"
    if size > 100:
        case += f", scores of up to {logits.abs().max():.0f}"
    befores = logits.clone(), targets.clone()
    made = answer(logits, targets, smoothing)
    expect_untouched(logits, befores[0], "the logits")
    expect_untouched(targets, befores[1], "the targets")
    if isinstance(made, Tensor) and made.dim():
        raise Hint(f"{case} has shape {tuple(made.shape)}; it should be one number, the mean over the images.")
    if not isinstance(made, Tensor):
        made = expect_number(made, case)
    elif not torch.isfinite(made):
        raise Hint(f"{case} is {made.item()}: softmax rounds a small probability to 0 and log(0) is −∞, or exp has "
                   f"overflowed. log_softmax does both in one step, safely.")  # fmt: skip
    scores = logits.double()
    log_p, p, s = scores.log_softmax(1), scores.softmax(1), smoothing

    def compared(wanted: Tensor, log_q: Tensor = log_p) -> Tensor:
        return -(wanted * log_q).sum(1).mean()

    smooth = (1 - s) * t + s / classes
    right = compared(smooth)
    hard = F.one_hot(t.argmax(1), classes).double()
    known: Known = [
        (-right, "the sign is turned round: logarithms of probabilities are negative, and a loss is not."),
        (right * images, "that is the sum over the images; the loss is their mean."),
        (right / classes, "that is a mean over the classes, too; over the classes the products are summed."),
        (compared((1 - s) * t + s * (1 - t) / max(1, classes - 1)), "the share went to the other K − 1 classes. It is "
         "spread over all K of them, so that the true one gets its part back."),
        (compared(t), "nothing is smoothed: is `smoothing` used?"),
        (compared((1 - s) * t), "the share is taken from the targets, and given to nobody: each row of the targets "
         "should still sum to 1."),
        (compared(t + s / classes), "the share is given to all classes, and taken from nobody: each row of the targets "
         "should still sum to 1."),
        (compared((1 - s) * t + s), "every class gets the whole share: it is one share for all K together."),
        (compared((1 - s) * t + s / 10), f"is a 10 written in? Here are {classes} classes."),
        (compared((1 - s) * t + s / images), "the share is divided by the number of images, not of classes."),
        (compared(smooth, scores.log_softmax(0)), "the softmax runs over the images: the probabilities of ONE image "
         "sum to 1."),
        (compared(smooth, p), "the logarithm is missing."),
        (compared(smooth, scores), "those are raw scores; make log-probabilities of them first."),
        (compared(smooth, p.log_softmax(1)), "the softmax is taken twice."),
    ]  # fmt: skip
    if kind == "shares":
        known = [*known, (compared((1 - s) * hard + s / classes), "of the shares only the largest is used, as if it "
                  "were a label. Use them all.")]  # fmt: skip
    if size > 100:
        for least in (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12, 1e-15, 1e-16, 1e-20, 1e-30, 1e-38):
            hint = (f"right for small scores; for large ones a probability is kept away from 0, at {least:g}, so that "
                    f"its logarithm stays finite. That hides the loss (and stops the gradient) just where the model "
                    f"is most wrong.")  # fmt: skip
            known = [*known, (compared(smooth, p.clamp(min=least).log()), hint),
                     (compared(smooth, (p + least).log()), hint),
                     (compared(smooth, p.clamp(least, 1 - least).log()), hint)]  # fmt: skip
    told = torch.as_tensor(made, dtype=torch.float64)
    expect(told, right, case, known, "It is −Σ target · log(probability), summed over the classes, then the mean over "
           "the images; the target is (1 − s) · what was asked for, plus s/K.")  # fmt: skip
    if not isinstance(made, Tensor):
        raise Hint("the number is right, but it is a plain one: nothing can be learned from it. Return the tensor.")
    args = [logits, targets, smoothing]
    _expect_gradient(answer, lambda z, *_: compared(smooth, z.log_softmax(1)), args, 0, "the logits")


# ---- Drop path


@question("2.2", "Drop path, to be repeated", "easy", 15, points=3, answers="drop_path", without=DROPS + OURS)
def drop_path(
    answer: Callable[[Tensor, Tensor, float, Tensor, bool], Tensor],
    shapes: Sequence[tuple[int, ...]] = ((5, 3, 2, 5), (6, 4)),
    rates: Sequence[float] = (0.25, 0.0, 1.0),
    modes: Sequence[bool] = (True, False),
    seed: int = 22,
) -> str:
    """Knows: not rescaled, rescaled wrongly, each element by itself, the whole batch, p for 1 − p, x dropped or
    rescaled as well, active in evaluation, a wrong axis, a division by zero."""
    for shape in shapes:
        for rate in rates:
            for training in modes:
                _expect_dropped(answer, shape, rate, training, seed)
    return "whole branches, image by image, and on average what it was."


def _expect_dropped(answer: Callable, shape: tuple[int, ...], p: float, training: bool, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    x, branch = torch.randn(shape, generator=draw), torch.randn(shape, generator=draw)
    count = shape[0]
    u = (torch.arange(count) + 0.5) / count  # some below p and some above, whatever p is
    u = u[torch.randperm(count, generator=draw)]
    u[0] = p / 2 if p not in (0.0, 1.0) else 0.0  # the first is dropped, if there is anything to be dropped
    if p in (0.25, 0.5, 0.75) and count > 2:
        u[1] = p  # and not below it
    befores = [given.clone() for given in (x, branch, u)]
    case = f"for p = {p:g}, in {'training' if training else 'evaluation'}, with x of shape {tuple(shape)}, the sum"
    try:
        made = answer(x, branch, p, u, training)
    except ZeroDivisionError:
        raise Hint("with p = 1 every branch is dropped, and 1 − p is 0: do not divide by it.") from None
    except Exception as error:
        if "ZeroDivisionError" in str(error):
            raise Hint("with p = 1 every branch is dropped, and 1 − p is 0: do not divide by it.") from None
        raise
    made = expect_tensor(made, tuple(shape), case)
    for given, before, what in zip((x, branch, u), befores, ("x", "branch", "u"), strict=True):
        expect_untouched(given, before, what)
    if not torch.isfinite(made).all():
        raise Hint(f"{case} is not finite: with p = 1 every branch is dropped, and 1 − p is 0. What should be left?")

    def column(mask: Tensor) -> Tensor:
        return mask.double().view(-1, *[1] * (len(shape) - 1))

    x, branch = x.double(), branch.double()
    keep, mirrored = column(u >= p), column(u < 1 - p)
    scale = 1 / (1 - p) if p < 1 else 0.0
    dropped = x + branch * keep * scale
    if not training:
        known: Known = [
            (dropped, "in evaluation nothing is dropped and nothing is rescaled: is `training` used?"),
            (x + branch * (1 - p), "in evaluation the branch is scaled by 1 − p; as training divides by it already, "
             "evaluation leaves the branch as it is."),
            (x + branch * scale, "in evaluation the branch is divided by 1 − p; nothing was dropped, so there is "
             "nothing to make up for."),
            (x, "in evaluation the branch is left out; it should be there, whole."),
            (branch, "x is missing in the sum."),
        ]  # fmt: skip
        expect(made, x + branch, case, known, "In evaluation it is x + branch.")
        return
    known = [
        (x + branch * keep, "the right images are dropped, but the others are as they were: then the branch adds less "
         "on average in training than in evaluation. By what is it rescaled?"),
        (x + branch * keep * (1 - p), "the branches that are kept became smaller; to be on average what they were they "
         "must become larger."),
        (x + branch * column(u < p) * scale, "the two are exchanged: dropped is what should be kept. An image's branch "
         "is dropped where u < p."),
        (x + branch * mirrored * scale, "as many as should be, but not those: an image's branch is dropped where "
         "u < p, so that everybody with these u drops the same ones."),
        (x + branch * column(u > p) * scale, "nearly: an image is dropped where u < p, and not where it equals p; "
         "torch.rand can give an exact 0, and p = 0 must drop nobody."),
        ((x + branch) * keep * scale, "x is dropped with the branch; then the image is gone. Only the branch is."),
        ((x + branch) * keep, "x is dropped with the branch; then the image is gone. Only the branch is."),
        ((x + branch * keep) * scale, "x is rescaled as well; only the branch is."),
        (branch * keep * scale, "x is missing in the sum."),
        (x + branch, "nothing is dropped."),
        (x + branch * scale, "nothing is dropped, only rescaled."),
        (x, "every image has lost its branch: u has one number for each image, and decides for each by itself."),
    ]  # fmt: skip
    if p:
        known = [*known, (x + branch * keep / p, "the branches that are kept are divided by p, the share that is "
                  "dropped."),
                 (x + branch * column(u < p) / p, "p is taken for the share that is kept: it is the share that is "
                  "dropped.")]  # fmt: skip
    if shape[-1] == count:
        known = [*known, (x + branch * (u >= p) * scale, "u lies along the last axis: a tensor (N,) is matched with "
                  "the LAST axis, and the images are along the first. Give it more axes.")]  # fmt: skip
    if not any(is_close(made, value) for value in (dropped, *(wrong for wrong, _ in known))):
        added = (made.double() - x).abs() > 1e-6
        if any(0 < int(image.sum()) < image.numel() for image in added):
            raise Hint("within one image some of the branch is dropped and some is not; drop path drops an image's "
                       "whole branch, by the one number that u has for it.")  # fmt: skip
    expect(made, dropped, case, known, "Where u < p it is x; elsewhere x + branch / (1 − p).")
    if 0 < p < 1:
        args = [*befores[:2], p, befores[2], True]
        _expect_gradient(answer, lambda x, b, p, u, _: x + b * keep * scale, args, 1, "the branch")


# ---- MixUp


@question("2.3", "MixUp, a share for each image", "medium", 15, points=3, answers="mixup", without=MIXES + OURS)
def mixup(
    answer: Callable[[Tensor, Tensor, int, Tensor, Tensor], tuple[Tensor, Tensor]],
    shape: tuple[int, ...] = (5, 3, 5, 5),
    classes: int = 7,
    byte: bool = True,
    shares: Sequence[float] | None = None,
    parts: Sequence[str] = ("images", "targets"),
    seed: int = 23,
) -> str:
    """Knows: labels not mixed, the other share, the inverse permutation, in place, wrong class count, wrong axis,
    one share for all, bytes, a label of the larger share."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8)
    if not byte:
        images = images / 100 - 1
    count = shape[0]
    labels = torch.randint(0, max(1, classes - 2), (count,), generator=draw)  # the last two classes do not occur
    labels[: min(count, 3)] = torch.arange(min(count, 3)) % classes
    partner = torch.arange(count).roll(1)  # 0 with the last, 1 with 0, …
    share = 0.1 + 0.35 * torch.rand(count, generator=draw) if shares is None else torch.tensor(shares)
    share[1::2] = 1 - share[1::2]
    befores = [given.clone() for given in (images, labels, partner, share)]
    made = answer(images, labels, classes, partner, share)
    expect_filled(made)
    for given, before, what in zip(
        (images, labels, partner, share), befores, ("the images", "the labels", "partner", "share"), strict=True
    ):
        expect_untouched(given, before, what)
    if not isinstance(made, tuple | list) or len(made) != 2:
        raise Hint("give back two things: the mixed images, and their targets.")
    expect_filled(*made)
    x, hard = images.double(), F.one_hot(labels, classes).double()
    if "images" in parts:
        _expect_mixed_images(made[0], x, partner, share.double())
    if "targets" in parts:
        _expect_mixed_targets(made[1], hard, labels, partner, share.double())
    return "each image and its label are mixed with the same partner, in the same proportion."


def _expect_mixed_images(made: Any, x: Tensor, partner: Tensor, share: Tensor) -> None:
    made = expect_tensor(made, tuple(x.shape), "the tensor of mixed images")
    if not made.is_floating_point():
        raise Hint(f"the mixed images come back as {str(made.dtype).removeprefix('torch.')}: whole numbers are too "
                   f"coarse for a mixture. Leave them floating.")  # fmt: skip
    s = share[:, None, None, None]
    right = s * x + (1 - s) * x[partner]
    inverse = partner.argsort()
    known: Known = [
        (x, "the images come back as they were."),
        (x[partner], "the images come back exchanged, not mixed."),
        ((1 - s) * x + s * x[partner], "the shares are exchanged: share[i] is the part of image i itself."),
        (s * x + (1 - s) * x[inverse], "the partner of image i is images[partner[i]]; you take the image whose partner "
         "is i."),
        (s * x, "the partner is missing."),
        (s * x + x[partner], "the partner is added whole; its part is 1 − share."),
        (right.floor(), "the values are right but for their fractions: somewhere the images are bytes."),
        (right.round(), "the values are right but for their fractions: somewhere they are rounded."),
        (right / 255, "the images are divided by 255; keep the range that they came in."),
        ((x + x[partner]) / 2, "every image is mixed half and half: `share` is not used."),
        (share[0] * x + (1 - share[0]) * x[partner], "all images are mixed with the first one's share."),
        (share.mean() * x + (1 - share.mean()) * x[partner], "all images are mixed with the mean of the shares; each "
         "has its own."),
    ]  # fmt: skip
    wrong_axis = (
        "the shares lie along another axis than the images: (N,) is matched with the LAST axis of (N, C, H, W)."
    )
    for place, size in enumerate(x.shape[1:], 1):
        if size == len(x):
            along = share.view(*[-1 if i == place else 1 for i in range(x.dim())])
            known = [*known, (along * x + (1 - along) * x[partner], wrong_axis)]
    expect(made, right, "the tensor of mixed images", known, "share[i] · images[i] + (1 − share[i]) · "
           "images[partner[i]].")  # fmt: skip


def _expect_mixed_targets(made: Any, hard: Tensor, labels: Tensor, partner: Tensor, share: Tensor) -> None:
    count, classes = hard.shape
    if isinstance(made, Tensor) and tuple(made.shape) == (count,):
        if not made.is_floating_point():
            raise Hint("the targets are labels still; a mixed image has shares of classes: (N, K).")
        raise Hint("the targets are numbers between labels: half of class 2 and half of class 6 is not class 4. Make "
                   "each label a row of K numbers first.")  # fmt: skip
    if isinstance(made, Tensor) and made.dim() == 2 and made.shape[0] == count and made.shape[1] != classes:
        raise Hint(f"the targets have {made.shape[1]} columns, and there are {classes} classes: the largest label of a "
                   f"batch need not be the last class.")  # fmt: skip
    made = expect_tensor(made, (count, classes), "the tensor of targets")
    s = share[:, None]
    right = s * hard + (1 - s) * hard[partner]
    inverse = partner.argsort()
    main = torch.where(s >= 0.5, hard, hard[partner])
    known: Known = [
        (hard, "the images are mixed, and the targets are not: each is still one class."),
        (hard[partner], "the targets are the partners'; mix the two."),
        ((1 - s) * hard + s * hard[partner], "the shares of the targets are exchanged: what the image has more of, its "
         "target should have more of."),
        (s * hard + (1 - s) * hard[inverse], "the labels are mixed with another partner than the images: "
         "labels[partner[i]] belongs to images[partner[i]]."),
        (main, "the targets say only which image has the larger share; they should say how large it is."),
        (((s * labels[:, None] + (1 - s) * labels[partner][:, None]).long() == torch.arange(classes)).double(),
         "the labels are mixed as numbers first: half of class 2 and half of class 6 is not class 4."),
        (s * hard, "the partners' labels are missing: each row should sum to 1."),
        ((hard + hard[partner]) / 2, "every target is half and half: `share` is not used."),
        (hard + hard[partner], "each row of the targets should sum to 1."),
        (share[0] * hard + (1 - share[0]) * hard[partner], "all targets are mixed with the first one's share."),
        (share.mean() * hard + (1 - share.mean()) * hard[partner], "all targets are mixed with the mean of the "
         "shares."),
    ]  # fmt: skip
    if count == classes:
        known = [*known, (share * hard + (1 - share) * hard[partner], "the shares lie along the classes: (N,) is "
                  "matched with the LAST axis of (N, K).")]  # fmt: skip
    expect(made, right, "the tensor of targets", known, "Make one-hot rows of the labels, and mix those as the images "
           "are.")  # fmt: skip


# ---- The schedule


@question(
    "2.4", "Warm-up and cosine, down to a floor", "medium", 15, points=3, answers="rate_at", without=SCHEDULES + OURS
)
def rate_at(
    answer: Callable[[int, int, int, int, float, float], float],
    steps_per_epoch: int = 6,
    epochs: int = 7,
    warmup_epochs: int = 2,
    peak: float = 0.02,
    floor: float = 0.001,
    after: bool = True,
) -> str:
    """Knows: per epoch, a first step at 0, warm-up in steps, the phase from step 0, off by one, degrees, whole or
    quarter period, no floor, floor added or cut off, rising again after the end, a division by zero."""
    total, warmup = epochs * steps_per_epoch, warmup_epochs * steps_per_epoch
    steps = range(2 * total + 1 if after else total)
    rates = []
    for step in steps:
        try:
            rate = answer(step, steps_per_epoch, epochs, warmup_epochs, peak, floor)
        except Exception as error:
            if "ZeroDivisionError" in f"{type(error).__name__} {error}":
                raise Hint(f"at step {step}, with a warm-up of {warmup} steps of {total}, your function divides by "
                           f"zero.") from None  # fmt: skip
            raise
        rates.append(expect_number(rate, f"the rate of step {step}"))
    made = torch.tensor(rates, dtype=torch.float64)
    half = (peak - floor) / 2

    def curve(
        rise: Callable[[int], float] = lambda s: peak * (s + 1) / warmup,
        fall: Callable[[float], float] = lambda t: floor + half * (1 + math.cos(math.pi * t)),
        time: Callable[[int], float] = lambda s: (s - warmup) / (total - warmup),
        rising: int = warmup,
        end: float = floor,
    ) -> Tensor:
        """A schedule with one part of it another one."""
        values = [rise(s) if s < rising else end if s >= total else fall(time(s)) for s in steps]
        return torch.tensor(values, dtype=torch.float64)

    def cosine(turn: float) -> Callable[[float], float]:
        return lambda t: floor + half * (1 + math.cos(turn * t))

    def epoch(s: int) -> int:
        return s // steps_per_epoch

    def by_epoch(s: int) -> float:
        return (epoch(s) - warmup_epochs) / (epochs - warmup_epochs)

    last = max(1, total - warmup - 1)
    by_epochs = "the rate changes only from epoch to epoch: the schedule goes by steps, each has its own rate."
    phase = ("the cosine counts from step 0, so that it is well under way when the warm-up ends, and the rate drops at "
             "once. Count the steps since the warm-up, of those that are left.")  # fmt: skip
    known: Known = [
        (curve(lambda s: peak * (epoch(s) + 1) / warmup_epochs, time=by_epoch), by_epochs),
        (curve(lambda s: peak * epoch(s) / warmup_epochs, time=by_epoch), by_epochs),
        (curve(time=by_epoch), by_epochs),
        (curve(lambda s: peak * s / warmup), "the rate of step 0 is 0, so that the first step learns nothing. Step 0 "
         "is the first of W steps: it gets a W-th of the peak."),
        (curve(lambda s: floor + (peak - floor) * (s + 1) / warmup), "the warm-up climbs from the floor; here it is "
         "peak · (s + 1) / W, whatever the floor is."),
        (curve(lambda s: floor + (peak - floor) * s / warmup), "the warm-up begins at the floor; here it is "
         "peak · (s + 1) / W, whatever the floor is."),
        (curve(lambda s: peak), "there is no warm-up: the first steps have the whole rate."),
        (curve(time=lambda s: s / total), phase),
        (curve(rising=warmup_epochs, rise=lambda s: peak * (s + 1) / warmup_epochs,
               time=lambda s: (s - warmup_epochs) / (total - warmup_epochs)),
         "the warm-up takes `warmup_epochs` steps; it should take that many epochs."),
        (curve(time=lambda s: (s - warmup) / total), "the cosine is divided by all steps, and so does not come to its "
         "end: after the warm-up fewer are left."),
        (curve(time=lambda s: (s - warmup) / last), "off by one: your last step has the floor already. Here the cosine "
         "reaches it one step later, at step T, the first after the training."),
        (curve(time=lambda s: (s + 1 - warmup) / (total - warmup)), "off by one: the first step after the warm-up has "
         "the whole peak, t = 0."),
        (curve(fall=cosine(180)), "Python's cosine wants radians: half a turn is π, not 180."),
        (curve(fall=cosine(2 * math.pi)), "the rate falls and rises again: that is a whole period of the cosine. Half "
         "a one leads from 1 to −1."),
        (curve(fall=lambda t: floor + (peak - floor) * math.cos(math.pi * t / 2)), "that is a quarter of a period, "
         "which falls fastest at the end; half a one, (1 + cos πt)/2, begins and ends gently."),
        (curve(fall=lambda t: peak * (1 + math.cos(math.pi * t)) / 2), "the rate falls to 0 instead of to the floor."),
        (curve(fall=lambda t: floor + peak * (1 + math.cos(math.pi * t)) / 2), "the floor is added on top of the whole "
         "peak: the cosine should lead from peak to floor."),
        (curve(fall=lambda t: max(floor, peak * (1 + math.cos(math.pi * t)) / 2)), "the curve is cut off at the floor: "
         "it should come down to it as a cosine does, gently."),
        (curve(fall=lambda t: peak - (peak - floor) * t), "that falls along a line; half a cosine is asked for."),
        (curve(fall=lambda t: floor + (peak - floor) * math.cos(math.pi * t)), "a cosine runs from 1 to −1, so that "
         "the rate goes below zero: how do you make of it something from 1 to 0?"),
        (curve(fall=lambda t: floor + half * (1 - math.cos(math.pi * t))), "the cosine is upside down: it rises after "
         "the warm-up."),
    ]  # fmt: skip
    right = curve()
    if not is_close(made, right):
        for wrong, hint in known:  # before the end only: what comes after it may be another mistake
            if is_close(made[:total], wrong[:total]) and not is_close(wrong[:total], right[:total]):
                raise Hint(hint)
        place = int((made - right).abs().argmax())
        if is_close(made[:total], right[:total]):
            raise Hint(f"right up to the last step, {total - 1}; at step {place}, after the end, the rate is "
                       f"{made[place]:.4g}. From step {total} on it stays at the floor: a training may be asked for a "
                       f"few steps more.")  # fmt: skip
        raise Hint(f"with {total} steps, of which {warmup} are warm-up, peak {peak:g} and floor {floor:g}, step "
                   f"{place} gets {made[place]:.4g}, and should get {right[place]:.4g}.")  # fmt: skip
    if warmup_epochs and after:  # and without a warm-up
        rate_at.check(answer, steps_per_epoch, epochs, 0, peak, floor, after)
    return "up along a line, down along half a cosine, and at rest on the floor."


# ---- One epoch


@question("2.5", "One epoch", "medium", 25, points=4, answers="train_epoch", without=OURS)
def train_epoch(
    answer: Callable[..., tuple[float, int]],
    sizes: Sequence[int] = (6, 6, 6, 3),
    step: int = 4,
    clip: float | None = 0.25,
    optimizer: str = "sgd",
    groups: int = 2,
    once: bool = False,
    parts: Sequence[str] = ("weights", "report"),
    seed: int = 25,
) -> str:
    """Knows: gradients that add up, eval mode, step before backward, a rate that is set late, once, for one group, by
    the wrong step, clipping that does nothing, a batch left out, a mean of means, a loss that keeps its graph."""
    plan = {"sizes": list(sizes), "step": step, "clip": clip, "optimizer": optimizer, "groups": groups, "once": once,
            "seed": seed}  # fmt: skip
    try:
        made = after_epoch(answer, plan)
    except Exception as error:
        if "modified by an inplace operation" in str(error):
            raise Hint("a step comes between the forward pass and its backward(): it changes the weights that "
                       "backward() still needs. First backward(), then step().") from None  # fmt: skip
        raise
    expect_filled(made)
    right, losses = _by_hand(plan)
    if "weights" in parts:
        _expect_weights(made["weights"], right, plan)
    if "report" in parts:
        _expect_report(made, losses, plan)
    if len(parts) == 2 and not once:  # and with batches that come only once
        train_epoch.check(answer, sizes, step, clip, optimizer, groups, True, parts, seed)
    return "each batch moves the weights by its own gradient at its own rate, and the loss is the images' mean."


def _training(plan: dict) -> tuple[nn.Module, torch.optim.Optimizer, list[tuple[Tensor, Tensor]], Callable]:
    """A model with a BatchNorm, in evaluation mode, an optimizer at a rate to be replaced, batches, a schedule."""
    draw = torch.Generator().manual_seed(plan["seed"])
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, 4)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64))
    batches = []
    for size in plan["sizes"]:
        x = torch.randn(size, 3, 2, 2, generator=draw, dtype=torch.float64)
        batches.append((x, torch.randint(0, 4, (size,), generator=draw)))
    parameters = list(model.parameters())
    cut = 4 if plan["groups"] == 2 else len(parameters)
    groups = [{"params": part} for part in (parameters[:cut], parameters[cut:]) if part]
    if plan["optimizer"] == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(groups, lr=0.9, momentum=0.9, weight_decay=0.01)
    else:
        optimizer = torch.optim.AdamW(groups, lr=0.9, weight_decay=0.05)
    first = 0.3 if plan["optimizer"] == "sgd" else 0.05
    return model, optimizer, batches, lambda step: first * 0.8 ** (step % 50)


def _flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().double().flatten() for p in model.parameters()])


@beside
def after_epoch(answer: Callable, plan: dict) -> dict | None:
    """What the answer has made of the weights, and what it returned."""
    model, optimizer, batches, rate_of = _training(plan)
    made = answer(
        model, optimizer, iter(batches) if plan["once"] else batches, F.cross_entropy, rate_of, plan["step"],
        plan["clip"],
    )  # fmt: skip
    if made is None and torch.equal(_flat(model), _flat(_training(plan)[0])):
        return None  # the gap
    pair = list(made) if isinstance(made, tuple | list) else [made]
    return {
        "weights": _flat(model),
        "returned": [item if isinstance(item, Tensor | int | float) else type(item).__name__ for item in pair],
        "attached": any(isinstance(item, Tensor) and item.requires_grad for item in pair),
    }


def _by_hand(plan: dict, slip: str = "") -> tuple[Tensor, list[float]]:
    """The weights after the epoch and each batch's loss, as they are, or as they are after a slip."""
    model, optimizer, batches, rate_of = _training(plan)
    model.train(slip != "eval")
    parameters, losses = list(model.parameters()), []
    held = [torch.zeros_like(p) for p in parameters]  # the gradients of the batch before
    if slip == "last left out":
        batches = batches[:-1]
    for number, (x, labels) in enumerate(batches):
        loss = F.cross_entropy(model(x), labels)
        losses.append(loss.item())
        own = list(torch.autograd.grad(loss, parameters))
        if slip in ("added up", "one step"):
            own = [a + b for a, b in zip(own, held, strict=True)]
        used = own
        if slip == "late":
            used = held
        if plan["clip"] is not None and slip != "no clip":
            used = _clipped(used, plan["clip"], slip)
        if slip == "added up" and plan["clip"] is not None:
            own = used  # clipping changes what is there, and that is added to
        at = {
            "rate late": plan["step"] + number - 1, "rate once": plan["step"], "from 0": number,
            "rate ahead": plan["step"] + number + 1, "one step": plan["step"],
        }.get(slip, plan["step"] + number)  # fmt: skip
        for place, group in enumerate(optimizer.param_groups):
            if slip != "no rate" and not (slip == "rate late" and number == 0) and not (slip == "one group" and place):
                group["lr"] = rate_of(at)
        for p, g in zip(parameters, used, strict=True):
            p.grad = None if slip == "late" and number == 0 else g.clone()
        if slip not in ("one step", "no step") or (slip == "one step" and number == len(batches) - 1):
            optimizer.step()
        held = own
    return _flat(model), losses


def _clipped(gradients: list[Tensor], most: float, slip: str) -> list[Tensor]:
    norms = [g.norm() for g in gradients]
    if slip == "by value":
        return [g.clamp(-most, most) for g in gradients]
    if slip == "one by one":
        return [g * min(1.0, most / (n.item() + 1e-6)) for g, n in zip(gradients, norms, strict=True)]
    whole = torch.stack(norms).norm().item()
    factor = most / (whole + 1e-6)
    return [g * (factor if slip == "always" else min(1.0, factor)) for g in gradients]


SLIPS = {
    "no step": "no weight has moved: is there a backward() and, after it, a step() for every batch, with nothing that "
               "empties the gradients in between?",
    "added up": "the first batch is right, then the gradients add up: backward() adds to what .grad holds. Empty it "
                "for every batch.",
    "late": "each step moves by the gradient of the batch before: the step comes before its backward().",
    "eval": "the model is in evaluation mode, as it was handed over: its BatchNorm uses its running numbers instead of "
            "the batch's. (Dropout would be off as well.) Which call makes a model train?",
    "rate late": "each step has the rate of the one before, and the first one whatever the optimizer came with: the "
                 "rate is set after the step.",
    "no rate": "the optimizer works at the rate that it came with: `rate_of` says another one for each step. It is "
               'each group\'s group["lr"] that counts.',
    "rate once": "the whole epoch has the rate of its first step: the schedule goes by steps.",
    "from 0": "the rates are those of a training's first steps; this epoch begins at step `step`.",
    "rate ahead": "each step has the rate of the next one: the step is counted before the rate is asked for.",
    "one group": "only the first group of weights has the rate of the schedule; optimizer.param_groups may hold "
                 "several.",
    "no clip": "the gradients are not clipped, or at a moment when it changes nothing: between which two calls do they "
               "stand complete and not yet used?",
    "by value": "each number of the gradient is cut off by itself; it is the norm of all of them together that is kept "
                "to `clip`, so that the direction stays.",
    "one by one": "each parameter's gradient is clipped by itself; it is the norm of all of them together that counts.",
    "always": "a gradient that is short enough already is made longer; clipping only shortens.",
    "last left out": "the last batch, which is smaller, is left out.",
    "one step": "there is one step for the whole epoch; there should be one for every batch.",
}  # fmt: skip


def _expect_weights(made: Any, right: Tensor, plan: dict) -> None:
    made = expect_tensor(made, tuple(right.shape), "the vector of all weights after the epoch")
    if is_close(made, right):
        return
    for slip, hint in SLIPS.items():
        wrong, _ = _by_hand(plan, slip)
        if not is_close(wrong, right) and is_close(made, wrong):
            raise Hint(hint)
    expect_close(made, right, "the vector of all weights after the epoch", hint="For each batch: rate, forward, empty, "
                 "backward, clip, step. Which one is another one, or elsewhere?")  # fmt: skip


def _expect_report(made: dict, losses: list[float], plan: dict) -> None:
    returned = made["returned"]
    if len(returned) != 2:
        raise Hint("return two things: the mean loss and the number of the next step.")
    loss = expect_number(returned[0], "the mean loss")
    sizes, steps = plan["sizes"], len(losses)
    weighted = sum(n * one for n, one in zip(sizes, losses, strict=True))
    known: Known = [
        (sum(losses) / steps, "that is the mean over the batches; the last one is smaller, and its images count more "
         "than the others' in it. Take the mean over the images."),
        (sum(losses), "that is the sum over the batches."),
        (weighted, "that is the sum over the images; divide by how many there are."),
        (weighted / steps, "the losses are summed over images, and then divided by the number of batches."),
        (sum(losses) / sum(sizes), "each batch's loss is a mean already: weigh it by its images before you divide by "
         "their number."),
        (losses[-1], "that is the last batch's loss; all images count."),
        (losses[0], "that is the first batch's loss; all images count."),
        (weighted / (steps * sizes[0]), "you divide by the number of batches times the first one's size; the last one "
         "is smaller."),
    ]  # fmt: skip
    expect(loss, weighted / sum(sizes), "the mean loss", known, "Each batch's loss before its step, weighed by its "
           "images.", tolerance=1e-5)  # fmt: skip
    if made["attached"]:
        raise Hint("the mean loss is right, but it is a tensor with its graph: as long as somebody keeps it, every "
                   "batch's activations stay in memory. .item() gives the bare number.")  # fmt: skip
    after = expect_number(returned[1], "the number of the next step")
    known_steps: Known = [
        (steps, "the number of the next step counts from this epoch's beginning; the training goes on from `step`."),
        (plan["step"] + steps - 1, "that is the last step that was done; return the next one."),
        (plan["step"], "that is the step at which the epoch began; return the next one after it."),
        (plan["step"] + 1, "it went up by one for the whole epoch; every batch is a step."),
    ]  # fmt: skip
    expect(after, plan["step"] + steps, "the number of the next step", known_steps, "step plus one for each batch.")


# ---- Resume


@question("2.6", "Stop, and go on", "hard", 25, points=4, answers=("snapshot", "restore"), without=OURS)
def resume(
    snapshot: Callable[..., dict],
    restore: Callable[..., int],
    optimizer: str = "sgd",
    draws: bool = True,
    stop: int = 7,
    total: int = 13,
    ways: Sequence[str] = ("file", "kept", "twice"),
    seed: int = 26,
) -> str:
    """Knows: optimizer, generator, step, buffers or weights forgotten, a seed in place of the state, evaluation mode,
    what cannot be read back, a snapshot that changes as training goes on, or after it was restored."""
    plan = {"optimizer": optimizer, "draws": draws, "stop": stop, "total": total, "seed": seed}
    for way in ways:
        {"file": expect_resumed, "kept": _expect_kept, "twice": _expect_twice}[way](snapshot, restore, plan)
    return "stopped anywhere, read back anywhere, and not a bit is another one."


def expect_resumed(snapshot: Callable, restore: Callable, plan: dict) -> None:
    """Hint unless a file that one process wrote lets another one go on. The two answers may live in different ones."""
    file = stopped(snapshot, plan)
    expect_filled(file)
    if not isinstance(file, Tensor):
        raise Hint(f"your snapshot cannot be written by torch.save and read back by torch.load(…, weights_only=True): "
                   f"{str(file)[:150]}. It may hold tensors, numbers, strings, and dictionaries and lists of these: so "
                   f"state dicts, not the things themselves.")  # fmt: skip
    made = resumed(restore, plan, file)
    _expect_step(made["step"], plan)
    _expect_same(made["state"], plan, "after a stop and a new start")


def _expect_kept(snapshot: Callable, restore: Callable, plan: dict) -> None:
    made = gone_back(snapshot, restore, plan)
    expect_filled(made)
    _expect_step(made["step"], plan)
    _expect_same(made["state"], plan, "back at a snapshot that was kept while the training went on", KEPT)


def _expect_twice(snapshot: Callable, restore: Callable, plan: dict) -> None:
    made = restored_twice(snapshot, restore, plan)
    expect_filled(made)
    _expect_step(made["step"], plan)
    _expect_same(made["first"], plan, "after the first of two restores from one snapshot")
    _expect_same(made["second"], plan, "after the second of two restores from one snapshot", SPOILT)


def _expect_step(step: Any, plan: dict) -> None:
    stop = plan["stop"]
    if step == "NoneType":
        raise Hint("restore returns nothing; it should say how many steps were done when the snapshot was taken.")
    known: Known = [
        (0, "restore says that 0 steps are done: the schedule would start over, with its warm-up. Where did the "
         "training stop?"),
        (stop + 1, "one step too many: `step` says how many steps are done, and so it is the number of the next one."),
        (stop - 1, "one step too few: `step` says how many steps are done, and so it is the number of the next one."),
    ]  # fmt: skip
    expect(step, float(stop), "the step that restore returns", known, f"The snapshot was taken at step {stop}.")


def _expect_same(made: Any, plan: dict, when: str, more: "Slips" = ()) -> None:
    """Hint unless the state is that of a training which was never stopped."""
    right = _whole(plan)
    made = expect_tensor(made, tuple(right.shape), f"the state of the model {when}")
    if is_close(made, right, 1e-10):
        return
    for slips, hint in (*more, *FORGOTTEN):
        wrong = _whole(plan, *slips)
        if not is_close(wrong, right, 1e-10) and is_close(made, wrong, 1e-10):
            raise Hint(f"{when}: {hint}")
    expect_close(made, right, f"the state of the model {when}", tolerance=1e-10, hint="It should be, to the last bit, "
                 "that of a training that was never stopped. What else does a step depend on: weights, buffers, the "
                 "optimizer's memory, random numbers?")  # fmt: skip


Slips = Sequence[tuple[tuple[str, ...], str]]
"""What did not come back as it was, each with its hint."""

FORGOTTEN: Slips = (
    (("weights", "buffers", "memory", "generator"), "nothing of the snapshot has come back. (model = … only gives the "
     "name to another thing; load into the model and the optimizer that you were given.)"),
    (("weights", "buffers"), "the model has the weights that it was made with, and not those of the snapshot."),
    (("memory",), "the weights are there, and the optimizer's memory is not: it begins anew with no running means."),
    (("generator",), "weights and optimizer are there, but the training now draws other random numbers (its batches, "
     "its dropout): where does torch keep the state of its generator?"),
    (("memory", "generator"), "the weights are there, but neither the optimizer's memory nor the state of the random "
     "generator."),
    (("seed",), "the generator is seeded anew, so that it repeats the random numbers of the training's beginning. Its "
     "state says how far it has come; the seed does not."),
    (("buffers",), "the parameters are there, but not the buffers: a BatchNorm has running numbers that no gradient "
     "reaches."),
    (("buffers", "generator"), "the parameters are there, but neither the buffers, such as a BatchNorm's running "
     "numbers, nor the state of the random generator."),
    (("mode",), "the model goes on in evaluation mode: leave its mode as it is."),
)  # fmt: skip
KEPT: Slips = (
    (("later weights", "later memory"), "the snapshot changes as the training goes on: a state dict holds the tensors "
     "themselves, not copies, and every step writes into them. What you keep must be yours alone."),
    (("later weights",), "the weights in the snapshot change as the training goes on: the model's state dict holds the "
     "tensors themselves, not copies."),
    (("later memory",), "what the snapshot holds of the optimizer changes as the training goes on: its state dict "
     "holds the tensors themselves, not copies."),
)  # fmt: skip
SPOILT: Slips = (
    (("later memory",), "the first one was right, but the training after it has changed the snapshot: "
     "optimizer.load_state_dict takes the very tensors that it is given, and every step writes into them."),
)  # fmt: skip


def _model(plan: dict, seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model and an optimizer, new, from this seed; with `draws` it has a dropout and a BatchNorm."""
    torch.manual_seed(seed)
    middle = [nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(0.3)] if plan["draws"] else [nn.GELU()]
    model = nn.Sequential(nn.Linear(6, 8), *middle, nn.Linear(8, 3)).double()
    if plan["optimizer"] == "sgd":
        return model, torch.optim.SGD(model.parameters(), lr=0.9, momentum=0.9)
    return model, torch.optim.AdamW(model.parameters(), lr=0.9, weight_decay=0.05)


def _advance(model: nn.Module, optimizer: torch.optim.Optimizer, plan: dict, start: Any, end: int) -> None:
    """Train from step to step. Which images, and with `draws` much else, is decided by torch's generator."""
    draw = torch.Generator().manual_seed(plan["seed"])
    x = torch.randn(24, 6, generator=draw, dtype=torch.float64)
    labels = torch.randint(0, 3, (24,), generator=draw)
    first = 0.2 if plan["optimizer"] == "sgd" else 0.05
    if isinstance(start, Tensor) and start.numel() == 1:
        start = start.item()
    if not isinstance(start, int | float) or not 0 <= start <= end:
        return
    for step in range(int(start), end):
        chosen = torch.randperm(24)[:8] if plan["draws"] else (torch.arange(8) + 5 * step) % 24
        loss = F.cross_entropy(model(x[chosen]), labels[chosen])
        for group in optimizer.param_groups:
            group["lr"] = first * 0.9**step
        for parameter, slope in zip(
            model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
        ):
            parameter.grad = slope
        optimizer.step()


def _stopped_at(plan: dict) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A training up to where it is stopped."""
    model, optimizer = _model(plan, plan["seed"])
    _advance(model, optimizer, plan, 0, plan["stop"])
    return model, optimizer


def _state(model: nn.Module) -> Tensor:
    """All of a model's numbers, its buffers too."""
    return torch.cat([value.detach().double().flatten() for value in model.state_dict().values()])


def _as_plain(step: Any) -> Any:
    return step if isinstance(step, Tensor | int | float) else type(step).__name__


@beside
def stopped(snapshot: Callable, plan: dict) -> Tensor | str | None:
    """Train, stop, and write: the bytes of the file, or a sentence about why there is none."""
    with torch.random.fork_rng(devices=[]):
        model, optimizer = _stopped_at(plan)
        made = snapshot(model, optimizer, plan["stop"])
        if made is None:
            return None
        file = io.BytesIO()
        try:
            torch.save(made, file)
            torch.load(io.BytesIO(file.getvalue()), weights_only=True)
        except Exception as error:
            return f"{type(error).__name__}: {error}".split("\n")[0]
        return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)


@beside
def resumed(restore: Callable, plan: dict, file: Tensor) -> dict:
    """Another model with other weights, another optimizer, other random numbers; then restore, and train to the end."""
    with torch.random.fork_rng(devices=[]):
        model, optimizer = _model(plan, plan["seed"] + 1000)
        step = restore(torch.load(io.BytesIO(file.numpy().tobytes()), weights_only=True), model, optimizer)
        _advance(model, optimizer, plan, step, plan["total"])
        return {"state": _state(model), "step": _as_plain(step)}


@beside
def gone_back(snapshot: Callable, restore: Callable, plan: dict) -> dict | None:
    """Train to the end, and then go back to a snapshot that was taken on the way, and train to the end again."""
    with torch.random.fork_rng(devices=[]):
        model, optimizer = _stopped_at(plan)
        made = snapshot(model, optimizer, plan["stop"])
        if made is None:
            return None
        _advance(model, optimizer, plan, plan["stop"], plan["total"])
        step = restore(made, model, optimizer)
        _advance(model, optimizer, plan, step, plan["total"])
        return {"state": _state(model), "step": _as_plain(step)}


@beside
def restored_twice(snapshot: Callable, restore: Callable, plan: dict) -> dict | None:
    """Two trainings that go on from one snapshot, one after the other."""
    with torch.random.fork_rng(devices=[]):
        model, optimizer = _stopped_at(plan)
        made = snapshot(model, optimizer, plan["stop"])
        if made is None:
            return None
        made, states, step = deepcopy(made), [], None
        for number in (1000, 2000):
            model, optimizer = _model(plan, plan["seed"] + number)
            step = restore(made, model, optimizer)
            _advance(model, optimizer, plan, step, plan["total"])
            states.append(_state(model))
        return {"first": states[0], "second": states[1], "step": _as_plain(step)}


def _whole(plan: dict, *slips: str) -> Tensor:
    """The state at the end of a training that was never stopped, or of one that was and lost something by that."""
    with torch.random.fork_rng(devices=[]):
        model, optimizer = _stopped_at(plan)
        if slips:
            kept = {"model": deepcopy(model.state_dict()), "memory": deepcopy(optimizer.state_dict())}
            drawn = torch.get_rng_state()
            if any("later" in slip for slip in slips):
                _advance(model, optimizer, plan, plan["stop"], plan["total"])
                kept["model" if "later weights" in slips else ""] = deepcopy(model.state_dict())
                kept["memory" if "later memory" in slips else ""] = deepcopy(optimizer.state_dict())
            model, optimizer = _model(plan, plan["seed"] + 1000)
            trained = dict(model.named_parameters())
            for name, value in model.state_dict().items():
                if ("weights" if name in trained else "buffers") not in slips:
                    value.copy_(kept["model"][name])
            if "memory" not in slips:
                optimizer.load_state_dict(kept["memory"])
            if "seed" in slips:
                torch.manual_seed(plan["seed"])
            elif "generator" not in slips:
                torch.set_rng_state(drawn)
            model.train("mode" not in slips)
        _advance(model, optimizer, plan, plan["stop"], plan["total"])
        return _state(model)
