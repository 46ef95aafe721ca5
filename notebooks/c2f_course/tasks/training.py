"""What notebooks 04 and 05 and assignment 2 have built of a training: the loss, the schedule, an epoch."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f_course.grading.remote import runs_remotely
from c2f_course.tasks.exercise import Expected, Hint, Says, expect_filled, expect_number, sentences

SAY = sentences(__name__)

# ---- The loss

LEAST = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12, 1e-15, 1e-16, 1e-20, 1e-30, 1e-38)
"""Below which students keep a probability from falling."""


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float) -> Expected:
    """The loss for labels (N,) or for shares (N, K), with a share of `smoothing` for all classes together."""
    images, classes = logits.shape
    kind = "shares" if targets.dim() == 2 else "labels"
    t = targets.double() if targets.dim() == 2 else F.one_hot(targets, classes).double()
    scores, s, largest = logits.double(), smoothing, logits.abs().max().item()
    log_p, p = scores.log_softmax(1), scores.softmax(1)

    def compared(wanted: Tensor, log_q: Tensor = log_p) -> Tensor:
        return -(wanted * log_q).sum(1).mean()

    smooth, hard = (1 - s) * t + s / classes, F.one_hot(t.argmax(1), classes).double()
    right = compared(smooth)
    mistakes: dict[str, Any] = {
        "sign turned round": -right,
        "sum over the images": right * images,
        "mean over the classes": right / classes,
        "softmax over the images": compared(smooth, scores.log_softmax(0)),
        "no logarithm": compared(smooth, p),
        "no softmax": compared(smooth, scores),
        "softmax twice": compared(smooth, p.log_softmax(1)),
        "not finite": torch.inf,
    }
    if kind == "shares":
        mistakes |= {
            "largest share only": compared((1 - s) * hard + s / classes),
            "target and prediction exchanged": compared(p, smooth.log()),
        }
    if s:
        mistakes |= {
            "share for the others only": compared((1 - s) * t + s * (1 - t) / max(1, classes - 1)),
            "not smoothed": compared(t),
            "share given to nobody": compared((1 - s) * t),
            "share taken from nobody": compared(t + s / classes),
            "whole share for each class": compared((1 - s) * t + s),
            "always 10 classes": compared((1 - s) * t + s / 10),
            "always 0.1": compared(0.9 * t + 0.1 / classes),
            "share by images": compared((1 - s) * t + s / images),
        }
    case = f"the loss for {kind}, {classes} classes, smoothing {s:g}"
    if largest > 100:
        case += f", logits of up to {largest:.0f}"
        kept = [q for least in LEAST for q in (p.clamp(min=least), p + least, p.clamp(least, 1 - least))]
        mistakes["kept away from 0"] = tuple(compared(smooth, q.log()) for q in kept)
    signs = {"one for each image": lambda made: isinstance(made, Tensor) and made.dim()}
    facts = {"case": case, "classes": classes, "smoothing": s, "total": 1 + s}
    return Expected(case, right, mistakes, tolerance=1e-5, signs=signs, says=SAY["cross_entropy"], facts=facts)


# ---- The schedule


def ask_rates(answer: Callable[..., Any], rate_of: Callable[[int], tuple], steps: int) -> Tensor:
    """The rates of so many steps, whose arguments `rate_of` tells."""
    rates = []
    for step in range(steps):
        try:
            rate = answer(*rate_of(step))
        except Exception as error:
            if "ZeroDivisionError" in f"{type(error).__name__} {error}":
                raise Hint(SAY["ask_rates"]["divides by zero"].format(step=step)) from None
            raise
        rates.append(expect_number(rate, f"the rate of step {step}"))
    return torch.tensor(rates, dtype=torch.float64)


def rates(per_epoch: int, epochs: int, warmup_epochs: int, peak: float, floor: float) -> Expected:
    """The rate of each step of a training: up along a line to the peak, then down along half a cosine to the floor."""
    total, warmup, height = epochs * per_epoch, warmup_epochs * per_epoch, peak - floor
    s = torch.arange(total, dtype=torch.float64)
    t = (s - warmup) / (total - warmup)
    half = (1 + torch.cos(math.pi * t)) / 2

    def down(t: Tensor, turn: float = math.pi) -> Tensor:
        return floor + height * (1 + torch.cos(turn * t)) / 2

    up, arc = peak * (s + 1) / warmup, down(t)

    def curve(rise: Tensor = up, fall: Tensor = arc, rising: int = warmup) -> Tensor:
        return torch.where(s < rising, rise, fall)

    right = curve()
    mistakes: dict[str, Any] = {
        "first rate 0": curve(peak * s / warmup),
        "peak not reached": curve(peak * (s + 1) / (warmup + 1)),
        "no warm-up": curve(torch.full_like(s, peak)),
        "no warm-up, cosine at once": down(s / total),
        "cosine from step 0": curve(fall=down(s / total)),
        "cosine over all steps": curve(fall=down((s - warmup) / total)),
        "floor one step early": curve(fall=down((s - warmup) / max(1, total - warmup - 1))),
        "cosine one step early": curve(fall=down((s + 1 - warmup) / (total - warmup))),
        "degrees": (curve(fall=down(t, 180)), curve(fall=down(t, math.pi / 180))),
        "whole period": curve(fall=down(t, 2 * math.pi)),
        "quarter of a period": curve(fall=floor + height * torch.cos(math.pi * t / 2)),
        "half-way": curve(fall=down(t, math.pi / 2)),
        "line": curve(fall=peak - height * t),
        "below zero": curve(fall=floor + height * torch.cos(math.pi * t)),
        "upside down": curve(fall=floor + height * (1 - half)),
        "no peak": right / peak,
    }
    if floor:
        mistakes |= {
            "warm-up from the floor": curve(floor + height * (s + 1) / warmup),
            "warm-up begins at the floor": curve(floor + height * s / warmup),
            "down to 0": curve(fall=peak * half),
            "floor on top": curve(fall=floor + peak * half),
            "cut off at the floor": curve(fall=(peak * half).clamp(min=floor)),
        }
    if per_epoch > 1:
        epoch, short = s // per_epoch, warmup_epochs  # the warm-up taken to be so many steps
        fall = down((epoch - warmup_epochs) / (epochs - warmup_epochs))
        mistakes |= {
            "epochs taken for steps": curve(peak * (s + 1) / short, down((s - short) / (total - short)), short),
            "by epochs": (curve(peak * (epoch + 1) / short, fall), curve(peak * epoch / short, fall), curve(fall=fall)),
        }
    facts = {"total": total, "warmup": warmup, "last": warmup - 1, "peak": peak, "floor": floor}
    return _line("the line of all rates", right, mistakes, SAY["rates"], facts)


def after_the_end(total: int, count: int, floor: float) -> Expected:
    """The rates of so many steps that are asked for after the end."""
    right = torch.full((count,), floor, dtype=torch.float64)
    return _line("the rate after the end", right, {}, SAY["after_the_end"], {"last": total - 1, "total": total}, total)


def _line(
    what: str, right: Tensor, mistakes: dict[str, Any], says: Says, facts: dict[str, Any], first: int = 0
) -> Expected:
    """Rates, whose general hint names the step that is furthest from what is right. `first` is the first one's step."""

    def otherwise(made: Tensor) -> str:
        place = int((made - right).abs().argmax())
        return says["otherwise"].format(**facts, step=first + place, made=made[place], right=right[place])

    return Expected(what, right, mistakes, otherwise, says=says, facts=facts)


# ---- One epoch


def training(plan: dict) -> tuple[nn.Module, torch.optim.Optimizer, list[tuple[Tensor, Tensor]], Callable]:
    """A model with a BatchNorm, in evaluation mode unless the plan says "train", an optimizer at a rate to be replaced,
    batches, a schedule."""
    draw = torch.Generator().manual_seed(plan["seed"])
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, 4)).double()
    model.train(plan.get("train", False))
    parameters, batches = list(model.parameters()), []
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64))
    for size in plan["sizes"]:
        x = torch.randn(size, 3, 2, 2, generator=draw, dtype=torch.float64)
        batches.append((x, torch.randint(0, 4, (size,), generator=draw)))
    groups = [{"params": parameters[:4]}, {"params": parameters[4:]}] if plan["groups"] == 2 else parameters
    sgd = plan["optimizer"] == "sgd"
    how = {"momentum": 0.9, "weight_decay": 0.01} if sgd else {"weight_decay": 0.05}
    optimizer = (torch.optim.SGD if sgd else torch.optim.AdamW)(groups, lr=0.9, **how)
    return model, optimizer, batches, lambda step: (0.3 if sgd else 0.05) * 0.8 ** (step % 50)


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().double().flatten() for p in model.parameters()])


@runs_remotely
def after_epoch(answer: Callable, plan: dict) -> dict | None:
    """What the answer has made of the weights, and what it returned."""
    model, optimizer, batches, rate_of = training(plan)
    loader = iter(batches) if plan["once"] else batches
    made = answer(model, optimizer, loader, F.cross_entropy, rate_of, plan["step"], plan["clip"])
    if made is None and torch.equal(flat(model), flat(training(plan)[0])):
        return None  # the gap
    pair = list(made) if isinstance(made, tuple | list) else [made]
    return {
        "weights": flat(model),
        "slopes": any(p.grad is not None and bool(p.grad.any()) for p in model.parameters()),
        "returned": [item if isinstance(item, Tensor | int | float) else type(item).__name__ for item in pair],
        "attached": any(isinstance(item, Tensor) and item.requires_grad for item in pair),
    }


def epoch_by_hand(plan: dict, slip: str = "") -> tuple[nn.Module, list[float]]:
    """The model after the epoch and each batch's loss, as they are, or as they are after a slip."""
    model, optimizer, batches, rate_of = training(plan)
    model.train(slip != "eval")
    parameters, losses, step = list(model.parameters()), [], plan["step"]
    held = [torch.zeros_like(p) for p in parameters]  # the gradients of the batch before
    for number, (x, labels) in enumerate(batches[:-1] if slip == "last left out" else batches):
        loss = F.cross_entropy(model(x), labels)
        losses.append(loss.item())
        own = list(torch.autograd.grad(loss, parameters))
        if slip in ("added up", "one step"):
            own = [a + b for a, b in zip(own, held, strict=True)]
        used = held if slip == "late" else own
        if plan["clip"] is not None and slip != "no clip":
            used = _clipped(used, plan["clip"], slip)
        if slip == "added up":
            own = used  # clipping changes what is there, and that is added to
        now = step + number
        ats = {"from 0": number, "rate once": step, "one step": step, "rate late": now - 1, "rate ahead": now + 1}
        rate = rate_of(ats.get(slip, now))
        for place, group in enumerate(optimizer.param_groups):
            if slip != "no rate" and not (slip == "rate late" and number == 0) and not (slip == "one group" and place):
                group["lr"] = rate
        if slip == "uphill by hand":
            optimizer = torch.optim.SGD(parameters, lr=rate)
        for p, g in zip(parameters, used, strict=True):
            p.grad = None if slip == "late" and number == 0 else -g if slip.startswith("uphill") else g.clone()
        if slip == "new":
            optimizer = type(optimizer)(parameters, lr=rate)
        if slip != "one step" or number == len(batches) - 1:
            optimizer.step()
        held = own
    return model, losses


def _clipped(gradients: list[Tensor], most: float, slip: str) -> list[Tensor]:
    if slip == "by value":
        return [g.clamp(-most, most) for g in gradients]
    norms = torch.stack([g.norm() for g in gradients])
    factors = most / ((norms if slip == "one by one" else norms.norm().expand_as(norms)) + 1e-6)
    factors = factors if slip == "always" else factors.clamp(max=1.0)
    return [g * factor for g, factor in zip(gradients, factors, strict=True)]


def ask_epoch(answer: Callable, plan: dict) -> dict:
    """What `after_epoch` gives. Hint where a step spoils what backward() needs."""
    try:
        made = after_epoch(answer, plan)
    except Exception as error:
        if "modified by an inplace operation" in str(error):
            raise Hint(SAY["ask_epoch"]["step before backward"]) from None
        raise
    expect_filled(made)
    return made


def weights_after(made: dict, plan: dict, otherwise: str) -> Expected:
    """The weights after the epoch; `made` is what `ask_epoch` gave, and `otherwise` the general hint."""
    mistakes: dict[str, Any] = {"no step" if made["slopes"] else "no gradient left": flat(training(plan)[0])}
    mistakes |= {slip: lambda slip=slip: flat(epoch_by_hand(plan, slip)[0]) for slip in SAY["slips"]}
    says = {**SAY["weights_after"], **SAY["slips"], "otherwise": otherwise}
    return Expected("the vector of all weights after the epoch", flat(epoch_by_hand(plan)[0]), mistakes, says=says)
