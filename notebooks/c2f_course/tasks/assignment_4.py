"""Assignment 4, Beat Swin-T: the public checks, which the hidden tests ask again of other inputs, and their probes."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f_course.grading import contest as rules
from c2f_course.grading.assignment import question
from c2f_course.grading.remote import RemoteObject, runs_remotely
from c2f_course.tasks.exercise import Blank, Hint, expect_filled, expect_tensor, expect_untouched, hint_if, is_close
from c2f_course.tasks.probes import is_class

# ---- What runs where the answer lives


def _drawn(cls: type[nn.Module], seed: int, noise: float) -> nn.Module:
    """A network whose parameters are moved a little, so that none of them is a zero that hides what follows it."""
    torch.manual_seed(seed)
    net = cls()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return net


@runs_remotely
def net_shapes(cls: type[nn.Module]) -> dict[str, dict[str, list[int]]]:
    """The shapes of the parameters, and of the buffers that are in the state dict."""
    net = cls()
    parameters = {name: list(value.shape) for name, value in net.named_parameters()}
    state = {name: list(value.shape) for name, value in net.state_dict().items()}
    return {"parameters": parameters, "buffers": {n: s for n, s in state.items() if n not in parameters}}


@runs_remotely
def net_logits(cls: type[nn.Module], seed: int, images: Tensor, chunk: int, redrawn: list[str]) -> Any:
    """Logits in evaluation mode, some images at a time; the parameters that are named are drawn anew."""
    net = _drawn(cls, seed, 0.02).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name in redrawn:
                parameter.copy_(torch.randn_like(parameter))
        torch.manual_seed(seed + chunk)  # what is drawn in evaluation mode comes out otherwise for another chunk
        told = [net(some) for some in images.split(chunk)]
    return torch.cat(told) if all(isinstance(some, Tensor) for some in told) else told[0]


@runs_remotely
def net_gradients(cls: type[nn.Module], seed: int, images: Tensor, labels: Tensor) -> dict[str, Tensor | None]:
    """The cross-entropy's gradient with respect to every parameter, in training mode."""
    net = _drawn(cls, seed, 0.02).train()
    F.cross_entropy(net(images), labels).backward()
    return {name: parameter.grad for name, parameter in net.named_parameters() if parameter.requires_grad}


@runs_remotely
def lesson(cls: Any, seed: int, batches: list, images: Tensor, planted: bool) -> dict[str, Any] | None:
    """What a learner's network is before and after these batches of [images, labels, progress].

    "start", "before" and "after" are all its weights in a row: new, ahead of the last batch, and at the end; "train"
    and "eval" its logits for `images` at the end. With `planted`, large gradients lie about ahead of the last step
    ("planted"), and "left" is what lies there after it.
    """
    learner = cls(seed)
    net = getattr(learner, "net", None)
    if not isinstance(net, nn.Module):
        return None
    moved = [parameter for parameter in net.parameters() if parameter.requires_grad]

    def row() -> Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in moved])

    told: dict[str, Any] = {"start": row()}
    torch.manual_seed(1)
    for number, (x, y, progress) in enumerate(batches):
        if number == len(batches) - 1:
            told["before"] = row()
            if planted:
                for parameter in moved:
                    parameter.grad = 1e4 * torch.randn_like(parameter)
                told["planted"] = torch.cat([parameter.grad.flatten().clone() for parameter in moved])
        learner.step(x.clone(), y.clone(), progress)
    told["after"] = row()
    if planted:
        left = [parameter.grad if parameter.grad is not None else torch.zeros_like(parameter) for parameter in moved]
        told["left"] = torch.cat([gradient.flatten() for gradient in left])
    with torch.no_grad():
        told["eval"] = net.eval()(images)
        told["train"] = net.train()(images)
    return told


# ---- The network


@question("4.1", "A network within the budget", "medium", 25, points=4, answers="Net")
def net(
    answer: type[nn.Module],
    parts: Sequence[str] = ("budget", "gradient", "kernel", "alone"),
    sizes: tuple[int, ...] = (4, 1),
    seed: int = 41,
) -> str:
    hint_if(not is_class(answer), "give the class itself, not an instance or its output: checks.net(Net).")
    shapes = net_shapes(answer)
    images = rules.practice_split().train.images[seed : seed + 24]
    for size in sizes:
        before = images[:size].clone()
        logits = net_logits(answer, seed, before, size, [])
        expect_filled(logits)
        logits = expect_tensor(logits, (size, rules.CLASSES), f"what Net gives for {size} image{'s'[: size > 1]}")
        hint_if(not torch.isfinite(logits.double()).all(), "Net gives a number that is not finite for the images of "
            "the contest.")  # fmt: skip
    told = expect_tensor(net_logits(answer, seed, images, 24, []), (24, rules.CLASSES), "what Net gives for 24 images")
    spread = (told - told[:1]).abs().max()
    hint_if(spread <= 1e-6 * max(1.0, float(told.abs().max())), "Net gives the same for every image: does it look at "
        "its input?")  # fmt: skip
    hint_if(told.min() >= 0 and is_close(told.sum(1), torch.ones(24), 1e-4), "Net gives probabilities already; give "
        "the logits, since the cross-entropy takes the softmax itself.")  # fmt: skip
    if "budget" in parts:
        numbers = sum(torch.Size(shape).numel() for kind in shapes.values() for shape in kind.values())
        hint_if(not shapes["parameters"], "Net has no parameters: layers that are kept in a plain list are not found; "
            "see nn.ModuleList.")  # fmt: skip
        hint_if(numbers > rules.NUMBERS, f"Net holds {numbers:,} numbers, and the budget allows {rules.NUMBERS:,}. "
            "Where are most?")  # fmt: skip
    if "gradient" in parts:
        labels = rules.practice_split().train.labels[seed : seed + 24]
        lost = [name for name, gradient in net_gradients(answer, seed, images, labels).items() if gradient is None]
        if lost:
            raise Hint(f"no gradient reaches {', '.join(lost[:4])}: unused in forward, or cut off (.data, .detach(), "
                ".item() and numpy cut the graph).")  # fmt: skip
    if "kernel" in parts:
        large = [name for name, shape in shapes["parameters"].items() if _is_large_depthwise(shape)]
        if not large:
            kernels = [shape[2:] for shape in shapes["parameters"].values() if len(shape) == 4 and shape[1] == 1]
            raise Hint(
                "Net has no depthwise convolution of 7×7 or more: a weight of shape (C, 1, k, k), which groups=C "
                "gives." + (f" Its depthwise kernels: {_sides(kernels)}." if kernels else "")
            )
        if is_close(net_logits(answer, seed, images, 24, large), told, 1e-5):
            raise Hint(f"{', '.join(large[:3])} could be anything: the logits stay what they are. Is it in forward, "
                "and does its result go on?")  # fmt: skip
    if "alone" in parts:
        alone = net_logits(answer, seed, images, 1, [])
        hint_if(not is_close(expect_tensor(alone, tuple(told.shape), "what Net gives"), told, 1e-2), "in evaluation "
            "mode an image's logits are others when it comes alone: something takes a mean over the batch, or is "
            "random even after eval().")  # fmt: skip
    return "a network that fits, with a large kernel that counts, and gradients everywhere."


def _is_large_depthwise(shape: list[int]) -> bool:
    """(C, 1, k, k), or (C, k, k) as in assignment 1, of 7×7 or more."""
    return min(shape[-2:], default=0) >= 7 and (len(shape) == 3 or (len(shape) == 4 and shape[1] == 1)) and shape[0] > 1


def _sides(kernels: list[list[int]]) -> str:
    return ", ".join(sorted({f"{height}×{width}" for height, width in kernels}))


# ---- The step


@question("4.2", "The step", "medium", 25, points=5, answers="Learner")
def learner(
    answer: Any,
    parts: Sequence[str] = ("seed", "batch", "learns", "rate"),
    small: int = 5,
    seed: int = 42,
    side: int = 16,
) -> str:
    hint_if(not is_class(answer), "give the class itself, not an instance: checks.learner(Learner).")
    draw = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(rules.practice_split().train), generator=draw)
    images = rules.practice_split().train.images[chosen[:side]]
    # Labels by chance: only who looks at them can learn them.
    labels = torch.randint(rules.CLASSES, (side,), generator=draw)
    last = _lesson(answer, seed, [[images, labels, 0.4]], images)
    _expect_moved(last)
    if "seed" in parts:
        again, other = (
            _lesson(answer, seed, [[images, labels, 0.4]], images),
            _lesson(answer, seed + 1, [[images, labels, 0.4]], images),
        )
        hint_if(not is_close(again["start"], last["start"], 1e-7), "two learners with the same seed begin with "
            "different weights: call torch.manual_seed(seed) before the network is made.")  # fmt: skip
        hint_if(is_close(other["start"], last["start"], 1e-7), "learners with different seeds begin with the same "
            "weights: is it `seed` that the generator is given?")  # fmt: skip
    if "batch" in parts:
        x, y = images[:small].clone(), labels[:small].clone()
        asked = answer(seed)
        asked.step(x, y, 0.4)
        expect_untouched(x, images[:small], "the images")
        expect_untouched(y, labels[:small], "the labels")
        _expect_moved(_lesson(answer, seed, [[x, y, 0.4]], images))
        left = _lesson(answer, seed, [[images, labels, 0.4]] * 2, images, planted=True)
        hint_if(float(F.cosine_similarity(left["left"].double(), left["planted"].double(), dim=0)) > 0.5, "gradients "
            "that lay there before the step are still there after it: backward ADDS to what it finds. Where are they "
            "cleared?")  # fmt: skip
    if "learns" in parts:
        told = _lesson(answer, seed, [[images, labels, 0.3]] * 24, images)
        losses = [float(F.cross_entropy(told[mode].double(), labels)) for mode in ("train", "eval")]
        if not min(losses) < 1.9:
            raise Hint(f"after 24 steps on the same {side} images at progress 0.3 the cross-entropy is "
                f"{min(losses):.2f}; guessing has {torch.tensor(rules.CLASSES).log():.2f}. Too small a rate, too large "
                "a one, another sign, or another target than the labels?")  # fmt: skip
    if "rate" in parts:
        sizes = {}
        for progress in (0.4, 1.0):
            told = _lesson(answer, seed, [*[[images, labels, 0.4]] * 2, [images, labels, progress]], images)
            sizes[progress] = float((told["after"] - told["before"]).double().norm())
        hint_if(sizes[1.0] > 0.9 * sizes[0.4], "the same step at progress 0.4 and at progress 1 moves the weights as "
            "far: the learning rate should follow `progress`, and be written into the optimizer before it "
            "steps.")  # fmt: skip
        if sizes[1.0] > 0.25 * sizes[0.4]:
            raise Hint(f"at progress 1 a step is {sizes[1.0] / sizes[0.4]:.2f} of what it is at 0.4; let it end at a "
                "quarter or less.")  # fmt: skip
    return "it learns from what it is handed, and its steps shrink towards the end."


def _lesson(answer: Any, seed: int, batches: list, images: Tensor, planted: bool = False) -> dict[str, Tensor]:
    told = lesson(answer, seed, batches, images, planted)
    hint_if(told is None, "Learner(seed).net is no network: keep a Net() under this name.")
    size = told["start"].numel() if isinstance(told, dict) and isinstance(told.get("start"), Tensor) else 0
    hint_if(not size, "Learner(seed).net has no parameters that could learn.")
    for name in ("start", "before", "after", *(("planted", "left") if planted else ())):
        hint_if(not torch.isfinite(expect_tensor(told[name], (size,), "the weights in a row").double()).all(), "after "
            "a step some weights or gradients are not finite: the rate is far too large, or something was divided by "
            "zero.")  # fmt: skip
    for mode in ("train", "eval"):
        expect_tensor(told[mode], (len(images), rules.CLASSES), "the network's logits")
    return told


def _expect_moved(told: dict[str, Tensor]) -> None:
    hint_if(torch.equal(told["before"], told["after"]), "after a step at progress 0.4 all weights are what they were: "
        "loss, backward, and then the optimizer's step, with a rate above 0, over the parameters of this very "
        "network.")  # fmt: skip


# ---- Weights and answers


@question("4.3", "What is handed on", "medium", 20, points=5, answers="Entry")
def entry(
    answer: Any,
    parts: Sequence[str] = ("carries", "alone", "goes on"),
    seed: int = 43,
    steps: int = 4,
    batch: int = 24,
) -> str:
    hint_if(not is_class(answer), "give the class itself, not an instance: checks.entry(Entry).")
    train, asked = rules.practice_split().train, rules.practice_split().validation.images[seed : seed + 40]
    draw = torch.Generator().manual_seed(seed)

    def learn(pupil: Any, count: int) -> None:
        for _ in range(count):
            chosen = torch.randperm(len(train), generator=draw)[:batch]
            pupil.step(train.images[chosen], train.labels[chosen], 0.3)

    first = answer(seed)
    learn(first, steps)
    weights = first.weights()
    rules.within_budget(weights)
    weights = {name: value.detach().clone() for name, value in weights.items()}
    scores = rules.ask(first, asked, len(asked))
    hint_if((scores - scores[:1]).abs().max() <= 1e-6 * max(1e-6, float(scores.abs().max())), "predict gives the same "
        "scores for every image: does it ask the network?")  # fmt: skip
    if "carries" in parts:
        second = answer(seed + 1)
        other = rules.ask(second, asked, len(asked))
        second.load({name: value.clone() for name, value in weights.items()})
        again = rules.ask(second, asked, len(asked))
        if not is_close(again, scores, 1e-3):
            hint_if(is_close(again, other, 1e-3), "after load the other entry answers as before it: the weights did "
                "not get into its network.")  # fmt: skip
            raise Hint("the other entry has loaded the weights and answers otherwise: something that predict needs was "
                "not handed on. A parameter? A running mean, which is a buffer? Is the network in evaluation "
                "mode?")  # fmt: skip
    if "alone" in parts:
        try:
            rules.expect_alone(first, asked, scores)
        except rules.Refused as refused:
            raise Hint(str(refused)) from None
        learn(first, 1)  # whoever trains again must be back in evaluation mode when it is asked
        rules.expect_alone(first, asked, rules.ask(first, asked, 13))
    if "goes on" in parts:
        now = {name: value.detach().clone() for name, value in first.weights().items()}
        before = asked.clone()
        rules.ask(first, before, 7)
        expect_untouched(before, asked, "the images")
        then = first.weights()
        moved = then.keys() != now.keys() or any(not torch.equal(then[name], value) for name, value in now.items())
        hint_if(moved, "predict has changed what weights() gives: answering must not teach. Buffers move in training "
            "mode, and parameters when something steps.")  # fmt: skip
        learn(first, 1)
        hint_if(all(torch.equal(value, now[name]) for name, value in first.weights().items()), "after predict a step "
            "changes nothing any more in what weights() gives.")  # fmt: skip
    return "what was learned is all in the weights, and an image's answer is its own."


# ---- The contest


@question("4.4", "The contest", "hard", 50, points=6, answers=("Entry", "NAME"))
def contest(answer: Any, name: Any) -> str:
    hint_if(not is_class(answer), "give the class itself, not an instance: checks.contest(Entry, NAME).")
    if isinstance(name, RemoteObject):
        raise Blank
    rules.expect_ignorance(answer, answer, rules.practice_split().validation)
    hint_if(rules.name_for_the_board(name) != name, "NAME should be one line of text, of 1 to 40 letters; on the "
        "leaderboard yours would be “no name”.")  # fmt: skip
    return "your entry keeps the rules; what it is worth, contest.rehearse(Entry) tells you."
