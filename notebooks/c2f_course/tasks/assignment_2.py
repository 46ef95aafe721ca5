"""Assignment 2, The training loop: the public checks, which the hidden tests ask again of other inputs."""

import io
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f_course.grading.assignment import question
from c2f_course.grading.remote import runs_remotely
from c2f_course.tasks.exercise import Expected, Hint, expect_filled, hint_if, task
from c2f_course.tasks.training import (
    after_the_end,
    ask_epoch,
    ask_rates,
    cross_entropy,
    epoch_by_hand,
    rates,
    weights_after,
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


# ---- The loss


def loss_inputs(
    images: int = 6,
    classes: int = 4,
    smoothings: Sequence[float] = (0.2, 0.0),
    sizes: Sequence[float] = (3.0, 400.0),
    kinds: Sequence[str] = ("labels", "shares"),
    seed: int = 21,
) -> Iterator[tuple]:
    draw = torch.Generator().manual_seed(seed)
    for size in sizes:
        logits = size * torch.randn(images, classes, generator=draw)
        labels = torch.randint(0, classes, (images,), generator=draw)
        shares = (2 * torch.randn(images, classes, generator=draw)).softmax(1)
        for kind in kinds:
            yield from ((logits, labels if kind == "labels" else shares, smoothing) for smoothing in smoothings)


@question(
    "2.1", "A loss for labels and for shares", "easy", 15, points=3, answers="training_loss", without=LOSSES + OURS
)
@task(loss_inputs, "labels or shares, smoothed or not, and safe for scores of any size.")
def training_loss(logits: Tensor, targets: Tensor, smoothing: float) -> Expected:
    return replace(cross_entropy(logits, targets, smoothing), learns={"logits": "the logits"})


# ---- Drop path


def drop_inputs(
    shapes: Sequence[tuple[int, ...]] = ((5, 3, 2, 5), (6, 4)),
    rates: Sequence[float] = (0.25, 0.0, 1.0),
    modes: Sequence[bool] = (True, False),
    seed: int = 22,
) -> Iterator[tuple]:
    for shape, p, mode in ((shape, p, mode) for shape in shapes for p in rates for mode in modes):
        draw, count = torch.Generator().manual_seed(seed), shape[0]
        x, branch = torch.randn(shape, generator=draw), torch.randn(shape, generator=draw)
        u = ((torch.arange(count) + 0.5) / count)[torch.randperm(count, generator=draw)]  # on either side of p
        u[0] = p / 2 if p not in (0.0, 1.0) else 0.0  # the first is dropped, if there is anything to be dropped
        if p in (0.25, 0.5, 0.75) and count > 2:
            u[1] = p  # and not below it
        yield x, branch, p, u, mode


@question("2.2", "Drop path, to be repeated", "easy", 15, points=3, answers="drop_path", without=DROPS + OURS)
@task(
    drop_inputs,
    "whole branches, image by image, and on average what it was.",
    errors={"zerodivisionerror": "with p = 1 every branch is dropped, and 1 − p is 0: do not divide by it."},
)
def drop_path(x: Tensor, branch: Tensor, p: float, u: Tensor, training: bool) -> Expected:
    case = f"for p = {p:g}, in {'training' if training else 'evaluation'}, with x of shape {tuple(x.shape)}, the sum"
    x, branch = x.double(), branch.double()

    def column(mask: Tensor) -> Tensor:
        return mask.double().view(-1, *[1] * (x.dim() - 1))

    keep, scale = column(u >= p), 1 / (1 - p) if p < 1 else 0.0
    dropped = x + branch * keep * scale
    if not training:
        return Expected(case, x + branch, [
            (dropped, "in evaluation nothing is dropped and nothing is rescaled: is `training` used?"),
            (x + branch * (1 - p), "in evaluation the branch is scaled by 1 − p; as training divides by it already, "
             "evaluation leaves the branch as it is."),
            (x + branch * scale, "in evaluation the branch is divided by 1 − p; nothing was dropped, so there is "
             "nothing to make up for."),
            (x, "in evaluation the branch is left out; it should be there, whole."),
            (branch, "x is missing in the sum."),
        ], "In evaluation it is x + branch.")  # fmt: skip
    mistakes = [
        (x + branch * keep, "the right images are dropped, but the others are as they were: then the branch adds less "
         "on average in training than in evaluation. By what is it rescaled?"),
        (x + branch * keep * (1 - p), "the branches that are kept became smaller; to be on average what they were they "
         "must become larger."),
        (x + branch * column(u < p) * scale, "the two are exchanged: dropped is what should be kept. An image's branch "
         "is dropped where u < p."),
        (x + branch * column(u < 1 - p) * scale, "as many as should be, but not those: an image's branch is dropped "
         "where u < p, so that everybody with these u drops the same ones."),
        (x + branch * column(u > p) * scale, "nearly: an image is dropped where u < p, and not where it equals p; "
         "torch.rand can give an exact 0, and p = 0 must drop nobody."),
        (((x + branch) * keep * scale, (x + branch) * keep), "x is dropped with the branch; then the image is gone. "
         "Only the branch is."),
        ((x + branch * keep) * scale, "x is rescaled as well; only the branch is."),
        (branch * keep * scale, "x is missing in the sum."),
        (x + branch, "nothing is dropped."),
        (x + branch * scale, "nothing is dropped, only rescaled."),
        (x, "every image has lost its branch: u has one number for each image, and decides for each by itself."),
        (lambda: x + branch * keep / p, "the branches that are kept are divided by p, the share that is dropped."),
        (lambda: x + branch * column(u < p) / p, "p is taken for the share that is kept: it is the share that is "
         "dropped."),
        (lambda: x + branch * (u >= p) * scale, "u lies along the last axis: a tensor (N,) is matched with the LAST "
         "axis, and the images are along the first. Give it more axes."),
        (x + branch * keep / torch.tensor(1 - p), "the sum is not finite: with p = 1 every branch is dropped, and 1 − "
         "p is 0. What should be left?"),
    ]  # fmt: skip

    def otherwise(made: Tensor) -> str:
        added = (made.double() - x).abs() > 1e-6
        if any(0 < int(image.sum()) < image.numel() for image in added):
            return (
                "There, within one image some of the branch is dropped and some is not; drop path drops an image's "
                "whole branch, by the one number that u has for it."
            )
        return "Where u < p it is x; elsewhere x + branch / (1 − p)."

    return Expected(case, dropped, mistakes, otherwise, learns={"branch": "the branch"} if 0 < p < 1 else {})


# ---- MixUp


def mixup_inputs(
    shape: tuple[int, ...] = (5, 3, 5, 5),
    classes: int = 7,
    byte: bool = True,
    shares: Sequence[float] | None = None,
    seed: int = 23,
) -> Iterator[tuple]:
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8)
    images, count = images if byte else images / 100 - 1, shape[0]
    labels = torch.randint(0, max(1, classes - 2), (count,), generator=draw)  # the last two classes do not occur
    labels[: min(count, 3)] = torch.arange(min(count, 3)) % classes
    share = 0.1 + 0.35 * torch.rand(count, generator=draw) if shares is None else torch.tensor(shares)
    share[1::2] = 1 - share[1::2]
    yield images, labels, classes, torch.arange(count).roll(1), share  # partners: 0 with the last, 1 with 0, …


@question("2.3", "MixUp, a share for each image", "medium", 15, points=3, answers="mixup", without=MIXES + OURS)
@task(
    mixup_inputs,
    "each image and its label are mixed with the same partner, in the same proportion.",
    wants=(tuple, "give back two things: the mixed images, and their targets."),
)
def mixup(images: Tensor, labels: Tensor, classes: int, partner: Tensor, share: Tensor) -> dict[str, Expected]:
    hard = F.one_hot(labels, classes).double()
    return {
        "images": _mixed_images(images.double(), partner, share.double()),
        "targets": _mixed_targets(hard, labels, partner, share.double()),
    }


def _mixed_images(x: Tensor, partner: Tensor, share: Tensor) -> Expected:
    def mixed(s: Tensor = share[:, None, None, None], partner: Tensor = partner) -> Tensor:
        return s * x + (1 - s) * x[partner]

    right, s = mixed(), share[:, None, None, None]
    axis = "the shares lie along another axis than the images: (N,) is matched with the LAST axis of (N, C, H, W)."
    mistakes = [
        (x, "the images come back as they were."),
        (x[partner], "the images come back exchanged, not mixed."),
        (mixed(1 - s), "the shares are exchanged: share[i] is the part of image i itself."),
        (mixed(partner=partner.argsort()), "the partner of image i is images[partner[i]]; you take the image whose "
         "partner is i."),
        (s * x, "the partner is missing."),
        (s * x + x[partner], "the partner is added whole; its part is 1 − share."),
        (right.floor(), "the values are right but for their fractions: somewhere the images are bytes."),
        (right.round(), "the values are right but for their fractions: somewhere they are rounded."),
        (right / 255, "the images are divided by 255; keep the range that they came in."),
        ((x + x[partner]) / 2, "every image is mixed half and half: `share` is not used."),
        (mixed(share[0]), "all images are mixed with the first one's share."),
        (mixed(share.mean()), "all images are mixed with the mean of the shares; each has its own."),
        *((lambda place=place: mixed(share.view(-1, *[1] * place)), axis) for place in (0, 1, 2)),
    ]  # fmt: skip
    whole = (
        lambda made: isinstance(made, Tensor) and made.shape == x.shape and not made.is_floating_point(),
        "the mixed images come back as {made.dtype}: whole numbers are too coarse for a mixture. Leave them floating.",
    )
    return Expected("the tensor of mixed images", right, mistakes, "share[i] · images[i] + (1 − share[i]) · "
        "images[partner[i]].", signs=[whole])  # fmt: skip


def _mixed_targets(hard: Tensor, labels: Tensor, partner: Tensor, share: Tensor) -> Expected:
    count, classes = hard.shape

    def mixed(s: Tensor = share[:, None], partner: Tensor = partner, what: Tensor = hard) -> Tensor:
        return s * what + (1 - s) * what[partner]

    def shaped(made: Any, *shape: int | None) -> bool:
        sizes = tuple(made.shape) if isinstance(made, Tensor) else ()
        return len(sizes) == len(shape) and all(b in (a, None) for a, b in zip(sizes, shape, strict=True))

    s, numbers = share[:, None], mixed(what=labels[:, None].double()).long()
    mistakes = [
        (hard, "the images are mixed, and the targets are not: each is still one class."),
        (hard[partner], "the targets are the partners'; mix the two."),
        (mixed(1 - s), "the shares of the targets are exchanged: what the image has more of, its target should have "
         "more of."),
        (mixed(partner=partner.argsort()), "the labels are mixed with another partner than the images: "
         "labels[partner[i]] belongs to images[partner[i]]."),
        (torch.where(s >= 0.5, hard, hard[partner]), "the targets say only which image has the larger share; they "
         "should say how large it is."),
        ((numbers == torch.arange(classes)).double(), "the labels are mixed as numbers first: half of class 2 and half "
         "of class 6 is not class 4."),
        (s * hard, "the partners' labels are missing: each row should sum to 1."),
        ((hard + hard[partner]) / 2, "every target is half and half: `share` is not used."),
        (hard + hard[partner], "each row of the targets should sum to 1."),
        (mixed(share[0]), "all targets are mixed with the first one's share."),
        (mixed(share.mean()), "all targets are mixed with the mean of the shares."),
        (lambda: mixed(share), "the shares lie along the classes: (N,) is matched with the LAST axis of (N, K)."),
    ]  # fmt: skip
    signs = [
        (lambda made: shaped(made, count) and not made.is_floating_point(), "the targets are labels still; a mixed "
         "image has shares of classes: (N, K)."),
        (lambda made: shaped(made, count), "the targets are numbers between labels: half of class 2 and half of class "
         "6 is not class 4. Make each label a row of K numbers first."),
        (lambda made: shaped(made, count, None) and made.shape[1] != classes, f"the targets have {{made.shape[1]}} "
         f"columns, and there are {classes} classes: the largest label of a batch need not be the last class."),
    ]  # fmt: skip
    return Expected("the tensor of targets", mixed(), mistakes, "Make one-hot rows of the labels, and mix those as the "
        "images are.", signs=signs)  # fmt: skip


# ---- The schedule


def rate_inputs(
    steps_per_epoch: int = 6,
    epochs: int = 7,
    warmup_epochs: int = 2,
    peak: float = 0.02,
    floor: float = 0.001,
    after: bool = True,
) -> Iterator[tuple]:
    """A training, and whether more steps are asked for after its end; where they are, one without a warm-up as well."""
    for warmup in {warmup_epochs: 0, 0: 0} if after else (warmup_epochs,):
        yield steps_per_epoch, epochs, warmup, peak, floor, after


def _ask_rates(answer: Callable, *inputs: Any) -> list[Tensor]:
    *arguments, after = inputs
    total = arguments[0] * arguments[1]
    made = ask_rates(answer, lambda step: (step, *arguments), 2 * total + 1 if after else total)
    return [made[:total], made[total:]]


@question(
    "2.4", "Warm-up and cosine, down to a floor", "medium", 15, points=3, answers="rate_at", without=SCHEDULES + OURS
)
@task(rate_inputs, "up along a line, down along half a cosine, and at rest on the floor.", ask=_ask_rates)
def rate_at(
    per_epoch: int, epochs: int, warmup_epochs: int, peak: float, floor: float, after: bool
) -> dict[str, Expected]:
    total = epochs * per_epoch
    return {
        "training": rates(per_epoch, epochs, warmup_epochs, peak, floor),
        "after": after_the_end(total, total + 1 if after else 0, floor),
    }


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
    plan = {"sizes": list(sizes), "step": step, "clip": clip, "optimizer": optimizer, "groups": groups, "once": once,
            "seed": seed}  # fmt: skip
    made = ask_epoch(answer, plan)
    if "weights" in parts:
        weights_after(
            made,
            plan,
            "For each batch: rate, forward, empty, backward, clip, step. Which one is another one, or elsewhere?",
        ).compare(made["weights"])
    if "report" in parts:
        _expect_report(made, epoch_by_hand(plan)[1], plan)
    if len(parts) == 2 and not once:  # and with batches that come only once
        train_epoch.check(answer, sizes, step, clip, optimizer, groups, True, parts, seed)
    return "each batch moves the weights by its own gradient at its own rate, and the loss is the images' mean."


def _expect_report(made: dict, losses: list[float], plan: dict) -> None:
    hint_if(len(made["returned"]) != 2, "return two things: the mean loss and the number of the next step.")
    loss, after = made["returned"]
    sizes, steps, step = plan["sizes"], len(losses), plan["step"]
    weighted = sum(n * one for n, one in zip(sizes, losses, strict=True))
    Expected("the mean loss", weighted / sum(sizes), [
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
    ], "Each batch's loss before its step, weighed by its images.", 1e-5).compare(loss)  # fmt: skip
    hint_if(made["attached"], "the mean loss is right, but it is a tensor with its graph: as long as somebody keeps "
        "it, every batch's activations stay in memory. .item() gives the bare number.")  # fmt: skip
    Expected("the number of the next step", step + steps, [
        (steps, "the number of the next step counts from this epoch's beginning; the training goes on from `step`."),
        (step + steps - 1, "that is the last step that was done; return the next one."),
        (step, "that is the step at which the epoch began; return the next one after it."),
        (step + 1, "it went up by one for the whole epoch; every batch is a step."),
    ], "step plus one for each batch.").compare(after)  # fmt: skip


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
    plan = {"optimizer": optimizer, "draws": draws, "stop": stop, "total": total, "seed": seed}
    if "file" in ways:
        expect_resumed(snapshot, restore, plan)
    if "kept" in ways:
        made = gone_back(snapshot, restore, plan)
        _expect_same(made, plan, {"state": ("back at a snapshot that was kept while the training went on", KEPT)})
    if "twice" in ways:
        made = restored_twice(snapshot, restore, plan)
        first, second = (f"after the {place} of two restores from one snapshot" for place in ("first", "second"))
        _expect_same(made, plan, {"first": (first, ()), "second": (second, SPOILT)})
    return "stopped anywhere, read back anywhere, and not a bit is another one."


def expect_resumed(snapshot: Callable, restore: Callable, plan: dict) -> None:
    """Hint unless a file that one process wrote lets another one go on. The two answers may live in different ones."""
    file = stopped(snapshot, plan)
    expect_filled(file)
    if not isinstance(file, Tensor):
        raise Hint(f"your snapshot cannot be written by torch.save and read back by torch.load(…, weights_only=True): "
            f"{str(file)[:150]}. It may hold tensors, numbers, strings, and dictionaries and lists of these: so state "
            "dicts, not the things themselves.")  # fmt: skip
    _expect_same(resumed(restore, plan, file), plan, {"state": ("after a stop and a new start", ())})


Slips = Sequence[tuple[tuple[str, ...], str]]
"""What did not come back as it was, each with its hint."""


def _expect_same(made: Any, plan: dict, states: dict[str, tuple[str, Slips]]) -> None:
    """Hint unless the states are those of a training which was never stopped; each with when it is, and its slips."""
    expect_filled(made)
    stop = plan["stop"]
    hint_if(made["step"] == "NoneType", "restore returns nothing; it should say how many steps were done when the "
        "snapshot was taken.")  # fmt: skip
    done = "`step` says how many steps are done, and so it is the number of the next one."
    Expected("the step that restore returns", stop, [
        (0, "restore says that 0 steps are done: the schedule would start over, with its warm-up. Where did the "
         "training stop?"),
        (stop + 1, f"one step too many: {done}"),
        (stop - 1, f"one step too few: {done}"),
    ], f"The snapshot was taken at step {stop}.").compare(made["step"])  # fmt: skip
    for name, (when, slips) in states.items():
        mistakes = [(lambda lost=lost: _whole(plan, *lost), f"{when}: {hint}") for lost, hint in (*slips, *FORGOTTEN)]
        Expected(
            f"the state of the model {when}",
            _whole(plan),
            mistakes,
            "It should be, to the last bit, that of a training that was never stopped. What else does a step depend "
            "on: weights, buffers, the optimizer's memory, random numbers?",
            1e-10,
        ).compare(made[name])


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


@runs_remotely
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


@runs_remotely
def resumed(restore: Callable, plan: dict, file: Tensor) -> dict:
    """Another model with other weights, another optimizer, other random numbers; then restore, and train to the end."""
    with torch.random.fork_rng(devices=[]):
        model, optimizer = _model(plan, plan["seed"] + 1000)
        step = restore(torch.load(io.BytesIO(file.numpy().tobytes()), weights_only=True), model, optimizer)
        _advance(model, optimizer, plan, step, plan["total"])
        return {"state": _state(model), "step": _as_plain(step)}


@runs_remotely
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


@runs_remotely
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
