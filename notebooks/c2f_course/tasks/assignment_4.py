"""Assignment 4, Beat Swin-T: the public checks, which the hidden tests ask again of other inputs, and their probes."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f_course.grading import contest as rules
from c2f_course.grading.assignment import question
from c2f_course.grading.remote import RemoteObject, runs_remotely
from c2f_course.tasks.exercise import Hint, expect_filled, expect_tensor, expect_untouched, hint_if, is_close, sentences
from c2f_course.tasks.probes import is_class

SAY = sentences(__name__)

# ---- What runs where the answer lives


def _drawn(cls: type[nn.Module], seed: int) -> nn.Module:
    """A network whose parameters are moved a little, so that none of them is a zero that hides what follows it."""
    torch.manual_seed(seed)
    net = cls()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
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
    net = _drawn(cls, seed).eval()
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
    net = _drawn(cls, seed).train()
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

    def row(values: list[Tensor] = moved) -> Tensor:
        return torch.cat([value.detach().flatten() for value in values])

    told: dict[str, Any] = {"start": row()}
    torch.manual_seed(1)
    for number, (x, y, progress) in enumerate(batches):
        if number == len(batches) - 1:
            told["before"] = row()
            if planted:
                for parameter in moved:
                    parameter.grad = 1e4 * torch.randn_like(parameter)
                told["planted"] = row([parameter.grad for parameter in moved])
        learner.step(x.clone(), y.clone(), progress)
    told["after"] = row()
    if planted:
        told["left"] = row([p.grad if p.grad is not None else torch.zeros_like(p) for p in moved])
    with torch.no_grad():
        told["eval"] = net.eval()(images)
        told["train"] = net.train()(images)
    return told


@question("4.1", "A network within the budget", "medium", 25, points=4, answers="Net")
def net(
    answer: type[nn.Module],
    parts: Sequence[str] = ("budget", "gradient", "kernel", "alone"),
    sizes: tuple[int, ...] = (4, 1),
    seed: int = 41,
) -> str:
    say, train = SAY["net"], rules.practice_split().train
    hint_if(not is_class(answer), say["no class"])
    shapes, images, labels = net_shapes(answer), train.images[seed : seed + 24], train.labels[seed : seed + 24]
    for size in sizes:
        logits = net_logits(answer, seed, images[:size].clone(), size, [])
        expect_filled(logits)
        logits = expect_tensor(logits, (size, rules.CLASSES), f"what Net gives for {size} image{'s'[: size > 1]}")
        hint_if(not torch.isfinite(logits.double()).all(), say["not finite"])
    told = expect_tensor(net_logits(answer, seed, images, 24, []), (24, rules.CLASSES), "what Net gives for 24 images")
    hint_if((told - told[:1]).abs().max() <= 1e-6 * max(1.0, float(told.abs().max())), say["all the same"])
    hint_if(told.min() >= 0 and is_close(told.sum(1), torch.ones(24), 1e-4), say["probabilities"])
    if "budget" in parts:
        numbers = sum(torch.Size(shape).numel() for kind in shapes.values() for shape in kind.values())
        hint_if(not shapes["parameters"], say["no parameters"])
        hint_if(numbers > rules.NUMBERS, say["over the budget"].format(numbers=numbers, budget=rules.NUMBERS))
    if "gradient" in parts:
        lost = [name for name, gradient in net_gradients(answer, seed, images, labels).items() if gradient is None]
        hint_if(lost, say["no gradient"].format(lost=", ".join(lost[:4])))
    if "kernel" in parts:
        large = [name for name, shape in shapes["parameters"].items() if _is_large_depthwise(shape)]
        kernels = [shape[2:] for shape in shapes["parameters"].values() if len(shape) == 4 and shape[1] == 1]
        sides = ", ".join(sorted({f"{height}×{width}" for height, width in kernels}))
        hint_if(not large, say["no large kernel"] + (say["its kernels"].format(sides=sides) if kernels else ""))
        redrawn = net_logits(answer, seed, images, 24, large)
        hint_if(is_close(redrawn, told, 1e-5), say["kernel unused"].format(large=", ".join(large[:3])))
    if "alone" in parts:
        alone = expect_tensor(net_logits(answer, seed, images, 1, []), tuple(told.shape), "what Net gives")
        hint_if(not is_close(alone, told, 1e-2), say["not alone"])
    return say["praise"]


def _is_large_depthwise(shape: list[int]) -> bool:
    """(C, 1, k, k), or (C, k, k) as in assignment 1, of 7×7 or more."""
    return min(shape[-2:], default=0) >= 7 and (len(shape) == 3 or (len(shape) == 4 and shape[1] == 1)) and shape[0] > 1


@question("4.2", "The step", "medium", 25, points=5, answers="Learner")
def learner(
    answer: Any,
    parts: Sequence[str] = ("seed", "batch", "learns", "rate"),
    small: int = 5,
    seed: int = 42,
    side: int = 16,
) -> str:
    say, train = SAY["learner"], rules.practice_split().train
    hint_if(not is_class(answer), say["no class"])
    draw = torch.Generator().manual_seed(seed)
    images = train.images[torch.randperm(len(train), generator=draw)[:side]]
    # Labels by chance: only who looks at them can learn them.
    labels = torch.randint(rules.CLASSES, (side,), generator=draw)
    batch = [images, labels, 0.4]

    def taught(*batches: list, own: int = seed, planted: bool = False) -> dict[str, Tensor]:
        return _lesson(answer, own, list(batches), images, planted)

    last = taught(batch)
    hint_if(torch.equal(last["before"], last["after"]), say["no step"])
    if "seed" in parts:
        again, other = taught(batch), taught(batch, own=seed + 1)
        hint_if(not is_close(again["start"], last["start"], 1e-7), say["same seed, other weights"])
        hint_if(is_close(other["start"], last["start"], 1e-7), say["other seed, same weights"])
    if "batch" in parts:
        x, y = images[:small].clone(), labels[:small].clone()
        answer(seed).step(x, y, 0.4)
        expect_untouched(x, images[:small], "the images")
        expect_untouched(y, labels[:small], "the labels")
        told = taught([x, y, 0.4])
        hint_if(torch.equal(told["before"], told["after"]), say["no step"])
        told = taught(batch, batch, planted=True)
        kept = F.cosine_similarity(told["left"].double(), told["planted"].double(), dim=0)
        hint_if(float(kept) > 0.5, say["gradients kept"])
    if "learns" in parts:
        told = taught(*[[images, labels, 0.3]] * 24)
        loss = min(float(F.cross_entropy(told[mode].double(), labels)) for mode in ("train", "eval"))
        hint_if(not loss < 1.9, say["not learned"].format(side=side, loss=loss, guessing=math.log(rules.CLASSES)))
    if "rate" in parts:
        ends = [taught(batch, batch, [images, labels, progress]) for progress in (0.4, 1.0)]
        early, late = (float((told["after"] - told["before"]).double().norm()) for told in ends)
        hint_if(late > 0.9 * early, say["same rate"])
        if late > 0.25 * early:
            raise Hint(say["rate too large"].format(share=late / early))
    return say["praise"]


def _lesson(answer: Any, seed: int, batches: list, images: Tensor, planted: bool) -> dict[str, Tensor]:
    told, say = lesson(answer, seed, batches, images, planted), SAY["learner"]
    hint_if(told is None, say["no net"])
    size = told["start"].numel() if isinstance(told, dict) and isinstance(told.get("start"), Tensor) else 0
    hint_if(not size, say["no parameters"])
    for name in ("start", "before", "after", *(("planted", "left") if planted else ())):
        weights = expect_tensor(told[name], (size,), "the weights in a row")
        hint_if(not torch.isfinite(weights.double()).all(), say["not finite"])
    for mode in ("train", "eval"):
        expect_tensor(told[mode], (len(images), rules.CLASSES), "the network's logits")
    return told


@question("4.3", "What is handed on", "medium", 20, points=5, answers="Entry")
def entry(
    answer: Any,
    parts: Sequence[str] = ("carries", "alone", "goes on"),
    seed: int = 43,
    steps: int = 4,
    batch: int = 24,
) -> str:
    say = SAY["entry"]
    hint_if(not is_class(answer), say["no class"])
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
    hint_if((scores - scores[:1]).abs().max() <= 1e-6 * max(1e-6, float(scores.abs().max())), say["all the same"])
    if "carries" in parts:
        second = answer(seed + 1)
        other = rules.ask(second, asked, len(asked))
        second.load({name: value.clone() for name, value in weights.items()})
        again = rules.ask(second, asked, len(asked))
        if not is_close(again, scores, 1e-3):
            raise Hint(say["not loaded" if is_close(again, other, 1e-3) else "not all handed on"])
    if "alone" in parts:
        try:
            rules.expect_alone(first, asked, scores)
        except rules.Refused as refused:
            raise Hint(str(refused)) from None
        learn(first, 1)  # a network that trains again must be back in evaluation mode when it is asked
        rules.expect_alone(first, asked, rules.ask(first, asked, 13))
    if "goes on" in parts:
        now = {name: value.detach().clone() for name, value in first.weights().items()}
        before = asked.clone()
        rules.ask(first, before, 7)
        expect_untouched(before, asked, "the images")
        then = first.weights()
        moved = then.keys() != now.keys() or any(not torch.equal(then[name], value) for name, value in now.items())
        hint_if(moved, say["predict teaches"])
        learn(first, 1)
        still = all(torch.equal(value, now[name]) for name, value in first.weights().items())
        hint_if(still, say["learns no more"])
    return say["praise"]


@question("4.4", "The contest", "hard", 50, points=6, answers=("Entry", "NAME"))
def contest(answer: Any, name: Any) -> str:
    hint_if(not is_class(answer), SAY["contest"]["no class"])
    expect_filled(None if isinstance(name, RemoteObject) else name)
    rules.expect_ignorance(answer, answer, rules.practice_split().validation)
    hint_if(rules.name_for_the_board(name) != name, SAY["contest"]["no name"])
    return SAY["contest"]["praise"]
