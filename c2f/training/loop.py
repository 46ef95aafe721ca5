"""The training loop: explicit enough to be read in one sitting, safe enough to be killed.

Everything random is a function of the recipe's seed and the step's number: the order of the images by epoch, the
augmentation and the dropped paths by step. So a run that was killed and resumed needs no state of any generator to
end with the same bits as one that was left alone.

Shapes: B images of a batch, C channels, H x W pixels, K classes.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.ops import StochasticDepth
from tqdm.auto import tqdm

from c2f.device import (
    autocast,
    choose_device,
    choose_precision,
    describe_hardware,
    synchronize,
    tf32_allowed,
)
from c2f.fast.accelerate import accelerated
from c2f.fast.memory import keep_memory
from c2f.models.inputs import evaluating
from c2f.training.augment import Augment, normalize, shrink
from c2f.training.data import Dataset, Split
from c2f.training.muon import Muon
from c2f.training.process import forked_rng, interruptible, over_processes, placed_on, processes
from c2f.training.recipes import Recipe
from c2f.training.run import EpochRecord, History, load_into, model_name, run_folder

READ_EVERY = 50  # steps that a GPU is passed before the loop waits for their losses
TOO_FAST = "so training stopped; lower the learning rate or set clip_grad to 1."


class TrainingError(ValueError):
    """Training cannot go on; the message says at which step, why, and what would do."""


@dataclass(frozen=True)
class Evaluation:
    """A model's results on one split: mean loss, accuracy (0 to 1), and the predicted class of each image (N,)."""

    loss: float
    accuracy: float
    predictions: Tensor


@dataclass
class TrainingState:
    """What a callback sees. `epoch` counts from 0; `step` is how many steps are done, of `steps` in all.

    `loss_tensor`, a tensor without dimensions, is the last step's loss where it was computed. On a GPU `float` of it,
    as `loss` gives, waits until that step is done, and the queue runs dry: keep the tensors and read many at once.
    """

    model: nn.Module
    steps: int
    history: History
    epoch: int = 0
    step: int = 0
    loss_tensor: Tensor = field(default_factory=lambda: torch.tensor(math.nan))
    lr: float = 0.0

    @property
    def loss(self) -> float:
        return float(self.loss_tensor)


class Callback:
    """Observes a training: override what you need. It may draw random numbers; the loop seeds every step anew."""

    def on_step(self, state: TrainingState) -> None:
        """After every optimizer step."""

    def on_epoch(self, state: TrainingState) -> None:
        """After every epoch, with its record at `state.history[-1]`."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of it (tensors, numbers, strings), for `load_state_dict` of a resumed run's."""
        return {}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from there."""


def train(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    out: Path | str | None = None,
    device: str | torch.device | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    checkpoint_seconds: float = 60.0,
    accelerate: bool = True,
) -> History:
    """Train `model` on `data.train` and evaluate it on `data.test` after every epoch.

    Args:
        model: any module (B, C, H, W) float -> logits (B, K); it is trained in place. With `recipe.ema` on it ends
            with the averaged weights, those that were evaluated. It comes back as it was given: on its device, each
            module in its mode. Modules in eval mode inside a model in train mode stay so, as a frozen BatchNorm must.
        out: the run's folder. One that holds an unfinished run of the same model, data and recipe is resumed.
        device: "cuda", "mps" or "cpu"; by default the best one there is.
        callbacks: called after every step and every epoch.
        progress: a bar, and one line per epoch.
        checkpoint_seconds: how much work a kill may cost; the end of an epoch is always saved.
        accelerate: compute the model's layers in the way that is fastest here (`c2f.accelerate`) while it trains.

    Returns the history. Ctrl-C ends training after the step at hand, with a checkpoint where `out` is given; the
    history so far has `interrupted` set.

    Raises TrainingError where the loss or the weights are no longer finite (on a GPU some steps later; no checkpoint
    holds such weights), or where model and data do not fit, and CheckpointError where `out` holds something that cannot
    be resumed.
    """
    device = choose_device(device)
    memory_format = torch.channels_last if recipe.channels_last else torch.contiguous_format
    frozen = {module for module in model.modules() if model.training and not module.training}
    with (
        processes(device) as (rank, world),
        forked_rng(device),
        keep_memory(device),
        evaluating(model),
        placed_on(model, device, memory_format),
        interruptible() as interrupted,
        tf32_allowed(recipe.precision, device),
        run_folder(out, model, data, recipe, rank, world) as (run, saved),
        accelerated(model, accelerate, saved["choices"] if saved else {}) as choices,
    ):
        say = tqdm.write if progress and rank == 0 else lambda _: None

        # 1. What learns, from what, and how.
        if recipe.batch_size > (count := len(data.train)):
            fitted = max(1, count // world) * world
            say(f"a batch of {recipe.batch_size} is more than the {count} images of {data.name}: a step is on {fitted}")
            recipe = replace(recipe, batch_size=fitted)
        images, labels = data.train.images.to(device), data.train.labels.to(device)
        small_size = reduced_size(data.image_size, recipe.small_scale, model)
        _check_fit(model, data, recipe, world, device, small_size)
        set_drop_path(model, recipe.drop_path)
        augment = Augment(recipe, data.image_size, len(data.classes))
        weight = class_weights(labels, len(data.classes)) if recipe.class_weights else None
        criterion = nn.CrossEntropyLoss(weight, label_smoothing=recipe.label_smoothing)
        optimizers = make_optimizers(model, recipe)
        precision = choose_precision(recipe.precision, device)
        scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")  # small gradients are 0 in fp16
        average = averaged(model, recipe.ema) if recipe.ema else None
        evaluated = average.module if average else model
        forward = DistributedDataParallel(model) if world > 1 else model
        # For each size by itself: with sizes left open, Inductor fails on norms like ours and torchvision's ConvNeXt's.
        if recipe.compile:  # the augmentation too, whose hundreds of small operators become a few kernels
            augment(images[:1], labels[:1])  # its constants are on the device from now on: it is compiled once
            forward, augment = (torch.compile(f, dynamic=False) for f in (forward, augment.__call__))

        # 2. Where to begin: at the start, or where an earlier process stopped.
        steps_per_epoch = len(data.train) // recipe.batch_size
        seen = steps_per_epoch * recipe.batch_size  # images of an epoch
        state = TrainingState(model, steps=recipe.epochs * steps_per_epoch, history=History())
        totals = [0.0, 0.0]  # this epoch's sums over images: loss, right predictions
        spent = [0.0, 0.0, 0.0]  # this epoch's seconds of training; of these warm-up's, and the steps of warm-up
        unread: list[Tensor] = []  # [loss, right predictions] of each step whose figures are still on the device only
        warm = set()  # sizes of images for which everything has been compiled and chosen
        if saved:
            load_into(model, saved["model"], out)
            for optimizer, before in zip(optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(before)
            if average:
                load_into(average, saved["average"], out)
            scaler.load_state_dict(saved["scaler"])
            for callback in callbacks:
                if before := saved["callbacks"].get(type(callback).__name__):
                    callback.load_state_dict(before)
            precision, state.step, totals, spent = (saved[key] for key in ("precision", "step", "totals", "spent"))
            state.history.records = [EpochRecord(**record) for record in saved["history"]]
            say(f"resuming {out} after step {state.step:,} of {state.steps:,}")
            if run and state.step == len(state.history) * steps_per_epoch > 0 and run.is_damaged():
                run.write_epoch(state.history, evaluated, precision=precision, hardware=describe_hardware(device))
                say(f"history.csv, summary.json and the last epoch's weights in {out} are written again")

        def read(stop: bool) -> bool:
            """Wait for the steps that are not read yet; raises where a loss is not finite. Is training to stop?"""
            results, stop = over_processes(torch.stack(unread), stop, world)
            for earlier, (loss, right) in enumerate(results, start=step + 1 - len(unread)):
                if not math.isfinite(loss):  # and the last checkpoint stays: these weights may be spoilt
                    raise TrainingError(f"the loss is {loss} at step {earlier:,} (epoch {epoch + 1}), {TOO_FAST}")
                totals[0] += loss * recipe.batch_size
                totals[1] += right
            unread.clear()
            bar.set_postfix_str(f"epoch {epoch + 1}, loss {loss:.3f}", refresh=False)
            return stop

        def save() -> None:
            check_weights(evaluated, state)
            if run:
                run.save(
                    model=model.state_dict(), optimizers=[optimizer.state_dict() for optimizer in optimizers],
                    average=average.state_dict() if average else None, scaler=scaler.state_dict(), choices=choices,
                    precision=precision, step=state.step, totals=totals, spent=spent,
                    callbacks={type(callback).__name__: callback.state_dict() for callback in callbacks},
                    history=state.history.as_dicts(),
                )  # fmt: skip

        if state.step == 0:
            save()  # so that a kill before the first minute is over keeps these very weights
        hardware = describe_hardware(device)
        say(
            f"training {model_name(model)} ({sum(p.numel() for p in model.parameters()):,} parameters) on "
            f"{len(images):,} images of {data.name} on {hardware['device']} ({hardware['name']}), {precision}"
        )

        # 3. Learn.
        last_save = time.monotonic()
        bar = tqdm(total=state.steps, initial=state.step, unit="step", disable=not progress or rank > 0)
        for epoch in range(len(state.history), recipe.epochs):
            state.epoch = epoch
            order = epoch_order(len(images), recipe, epoch, steps_per_epoch, data.train.labels)
            order = order[:, rank::world].to(device)
            forward.train()
            for module in frozen:  # such as a BatchNorm whose statistics are to stay
                module.training = False
            for batch in range(state.step - epoch * steps_per_epoch, steps_per_epoch):
                step = epoch * steps_per_epoch + batch
                small = step < recipe.small_share * state.steps
                if small not in warm:
                    synchronize(device)  # so that warm-up is timed by itself
                started = time.monotonic()
                torch.manual_seed((recipe.seed * 1_000_003 + step) * world + rank)
                state.lr = recipe.learning_rate(step, steps_per_epoch)
                for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                    group["lr"] = group["initial_lr"] * state.lr / recipe.lr

                mix = step < recipe.mix_share * state.steps
                x, targets = augment(images[order[batch]], labels[order[batch]], mix)
                if small:
                    x = shrink(x, small_size)
                x = x.contiguous(memory_format=memory_format)
                with autocast(device, precision):
                    logits = forward(x)
                loss = criterion(logits.float(), targets)
                right = (logits.argmax(1) == (targets if targets.ndim == 1 else targets.argmax(1))).sum()
                state.loss_tensor = loss.detach()
                unread.append(torch.stack([state.loss_tensor, right]))
                # A CPU has the loss now; to wait for a GPU in every step would leave it with nothing to do.
                stop = world == 1 and interrupted.is_set()
                if stop or device.type == "cpu" or step % READ_EVERY == 0 or batch == steps_per_epoch - 1:
                    stop = read(interrupted.is_set())
                for optimizer in optimizers:
                    optimizer.zero_grad()
                scaler.scale(loss).backward()
                if recipe.clip_grad:
                    for optimizer in optimizers:
                        scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_grad)
                with autocast(device, precision):  # for Muon's products
                    for optimizer in optimizers:
                        scaler.step(optimizer)
                scaler.update()
                if average:
                    average.update_parameters(model)

                state.step = step + 1
                if small not in warm:
                    synchronize(device)
                    warm.add(small)
                    spent[1:] = spent[1] + time.monotonic() - started, spent[2] + 1
                done = time.monotonic()
                bar.update()
                for callback in callbacks:
                    callback.on_step(state)
                spent[0] += (done if device.type == "cpu" else time.monotonic()) - started  # a GPU goes on meanwhile
                if stop or (not unread and time.monotonic() - last_save > checkpoint_seconds):
                    save()
                    last_save = time.monotonic()
                if stop:
                    state.history.interrupted = True
                    bar.close()
                    kept = f"; {out}/last.ckpt holds it, and the same command goes on from there" if out else ""
                    say(f"interrupted after step {state.step:,} of {state.steps:,}{kept}")
                    return state.history
            started = time.monotonic()
            synchronize(device)
            spent[0] += time.monotonic() - started

            # 4. Evaluate, and keep the epoch.
            check_weights(evaluated, state)
            result = evaluate(
                evaluated, data.test, device=device, label_smoothing=recipe.label_smoothing,
                precision=precision, channels_last=recipe.channels_last, accelerate=accelerate,
            )  # fmt: skip
            if not math.isfinite(result.loss):
                raise TrainingError(f"the test loss is {result.loss} after epoch {epoch + 1}, {TOO_FAST}")
            seconds, warm_up, warm_steps = spent
            steady = steps_per_epoch - warm_steps or steps_per_epoch  # where all were warm-up, it counts
            record = EpochRecord(
                epoch=epoch + 1, lr=recipe.learning_rate((epoch + 1) * steps_per_epoch - 1, steps_per_epoch),
                train_loss=totals[0] / seen, train_accuracy=totals[1] / seen, test_loss=result.loss,
                test_accuracy=result.accuracy, seconds=seconds, warm_up_seconds=warm_up,
                images_per_second=steady * recipe.batch_size / (seconds - warm_up * (steady < steps_per_epoch)),
            )  # fmt: skip
            state.history.records.append(record)
            totals, spent = [0.0, 0.0], [0.0, 0.0, 0.0]
            if run:
                run.write_epoch(state.history, evaluated, precision=precision, hardware=hardware)
            save()
            say(
                f"epoch {record.epoch}/{recipe.epochs}: train loss {record.train_loss:.3f}, accuracy "
                f"{record.train_accuracy:.1%}; test loss {record.test_loss:.3f}, accuracy {record.test_accuracy:.1%}; "
                f"{record.images_per_second:,.0f} images/s"
            )
            for callback in callbacks:
                callback.on_epoch(state)
        bar.close()
        if average:
            model.load_state_dict(average.module.state_dict())
        return state.history


@keep_memory()
@torch.no_grad()  # and not inference_mode: a tensor that a model keeps for later must be an ordinary one
def evaluate(
    model: nn.Module,
    split: Split,
    *,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    label_smoothing: float = 0.0,
    precision: str = "float32",
    channels_last: bool = False,
    progress: bool = False,
    accelerate: bool = True,
) -> Evaluation:
    """Run the model on every image of a split, without augmentation; it comes back as `train` gives it back."""
    device = choose_device(device)
    batch_size = batch_size or (64 if device.type == "cpu" else 256)  # on a CPU larger batches leave the cache
    precision = choose_precision(precision, device)
    losses, predictions = [], []  # on the device, so that it need not be waited for after each batch
    for logits, labels in zip(
        logits_of(model, split.images, device, batch_size, precision, channels_last, progress, accelerate),
        split.labels.split(batch_size), strict=True,
    ):  # fmt: skip
        targets = labels.to(device)
        losses.append(F.cross_entropy(logits, targets, label_smoothing=label_smoothing, reduction="sum"))
        predictions.append(logits.argmax(1))
    predicted, loss = torch.cat(predictions).cpu(), sum(torch.stack(losses).tolist())
    right = (predicted == split.labels).sum().item()
    return Evaluation(loss / len(split), right / len(split), predicted)


@keep_memory()
@torch.no_grad()
def predict(
    model: nn.Module, images: Tensor, *, device: str | torch.device | None = None, batch_size: int | None = None
) -> Tensor:
    """The probability of each class for images without labels; the model comes back as `train` gives it back.

    Shape: uint8, or float in [0, 1], (N, 3, H, W) -> float32 (N, K) on the CPU.
    """
    device = choose_device(device)
    batches = logits_of(model, images, device, batch_size or 64, "float32", channels_last=False)
    return torch.cat([logits.softmax(1) for logits in batches]).cpu()


def logits_of(
    model: nn.Module, images: Tensor, device: torch.device, batch_size: int, precision: str, channels_last: bool,
    progress: bool = False, accelerate: bool = True,
) -> Iterator[Tensor]:  # fmt: skip
    """The model's logits, float32 (batch, K) on the device, of one batch after the other, in eval mode."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    with (
        evaluating(model), placed_on(model, device, memory_format), accelerated(model, accelerate),
        tf32_allowed(precision, device),
    ):  # fmt: skip
        for some in tqdm(images.split(batch_size), disable=not progress):
            x = normalize(some.to(device)).contiguous(memory_format=memory_format)
            with autocast(device, precision):
                logits = model(x)
            yield logits.float()


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A moving average of the model's weights. Its decay warms up: at first an average has few weights to hold."""

    def update(averages: list[Tensor], values: list[Tensor], _: Tensor) -> None:
        done = int(average.n_averaged)  # which is on the CPU
        get_ema_multi_avg_fn(min(decay, (1 + done) / (10 + done)))(averages, values, done)

    average = AveragedModel(model, multi_avg_fn=update, use_buffers=True)
    return average


def check_weights(model: nn.Module, state: TrainingState) -> None:
    """Raise TrainingError where a weight is not finite; the norm of each tensor tells, in one wait for the device."""
    weights = [tensor.detach() for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]
    if not torch.stack(torch._foreach_norm(weights)).isfinite().all():
        where = f"after step {state.step:,} (epoch {state.epoch + 1})"
        raise TrainingError(f"the weights are not finite {where}, though the loss was, {TOO_FAST}")


def epoch_order(count: int, recipe: Recipe, epoch: int, steps: int, labels: Tensor | None = None) -> Tensor:
    """Which images each step of an epoch sees: indices (steps, batch_size), the same for every process.

    With `recipe.balanced`, whose classes are in `labels` (count,), an image may come several times, or not at all.
    """
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
    shuffled, total = torch.randperm(count, generator=generator), steps * recipe.batch_size
    if recipe.balanced:
        classes = labels.cpu()[shuffled].unique(return_inverse=True)[1]
        each = -(-total // (int(classes.max()) + 1))  # of each class; what is too much is cut off after shuffling
        chosen = [shuffled[classes == label].repeat(-(-each // n))[:each] for label, n in enumerate(classes.bincount())]
        shuffled = torch.cat(chosen)[torch.randperm(len(chosen) * each, generator=generator)]
    return shuffled[:total].view(steps, recipe.batch_size)


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """Inversely proportional to how often each class occurs, 1 on average over the images. Shape: (N,) -> (K,)."""
    counts = labels.bincount(minlength=classes)
    return len(labels) / counts.clamp(min=1) / (counts > 0).sum()


def make_optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Adam with its L2 penalty on everything, or AdamW that decays only what multiplies: kernels and matrices.

    With Muon there are two: it takes the matrices between hidden channels, AdamW the rest, which is the norms, the
    biases, the depthwise filters, and what touches pixels or classes. Each group keeps its rate at the top of the
    schedule as "initial_lr".
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    fused = parameters[0].device.type in ("cpu", "cuda")  # one kernel over all tensors, same arithmetic
    settings = {"lr": recipe.lr, "betas": (0.9, recipe.beta2), "fused": fused}
    if recipe.optimizer == "adam":
        optimizers = [torch.optim.Adam(parameters, weight_decay=recipe.weight_decay, **settings)]
    else:
        matrices = _hidden_matrices(model) if recipe.optimizer == "muon" else []
        optimizers = [Muon(matrices, lr=recipe.muon_lr, weight_decay=recipe.weight_decay)] if matrices else []
        taken = {id(p) for p in matrices}
        rest = [p for p in parameters if id(p) not in taken]
        groups = [
            {"params": [p for p in rest if p.ndim >= 2], "weight_decay": recipe.weight_decay},
            {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizers.append(torch.optim.AdamW(groups, **settings))
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["initial_lr"] = group["lr"]
    return optimizers


def _hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The weights of linear layers and of ungrouped convolutions, but for the first and the last of them."""
    kinds = (nn.Linear, nn.Conv2d)
    layers = [layer for layer in model.modules() if isinstance(layer, kinds) and getattr(layer, "groups", 1) == 1]
    return [layer.weight for layer in layers[1:-1] if layer.weight.requires_grad]


def set_drop_path(model: nn.Module, rate: float | None) -> None:
    """Let stochastic depth rise linearly from 0 at the first block to `rate` at the last; None leaves it as it is."""
    layers = [module for module in model.modules() if isinstance(module, StochasticDepth)]
    if rate is not None:
        for layer, p in zip(layers, torch.linspace(0, rate, len(layers), device="cpu").tolist(), strict=True):
            layer.p = p


def reduced_size(size: tuple[int, int], scale: float, model: nn.Module) -> tuple[int, int]:
    """Height and width scaled, to the nearest multiples of the model's stride: (32, 64) at 0.75 is (24, 48)."""
    stride = getattr(getattr(model, "config", None), "stride", 1)
    return tuple(max(1, round(side * scale / stride)) * stride for side in size)


def _check_fit(
    model: nn.Module, data: Dataset, recipe: Recipe, world: int, device: torch.device, small_size: tuple[int, int]
) -> None:
    """Raise TrainingError where model, data, recipe and processes do not fit together."""
    if not any(p.requires_grad for p in model.parameters()):
        raise TrainingError(
            f"{model_name(model)} has nothing to learn: all its parameters are frozen (requires_grad is False); free "
            f"some, for instance its last layer's with .requires_grad_()."
        )
    batch, count = recipe.batch_size, len(data.train)
    if batch > count:
        raise TrainingError(f"{data.name} has {count} training images for {world} processes; add some.")
    if batch % world:
        raise TrainingError(f"a batch of {batch} cannot be shared evenly by {world} processes; use a multiple.")
    image = normalize(data.test.images[:1].to(device))
    with torch.no_grad():
        logits = model(image)
        if recipe.small_share:
            model(F.interpolate(image, size=small_size))  # raises where that size does not suit the model
    if logits.shape[-1] != len(data.classes):
        raise TrainingError(
            f"{model_name(model)} answers with {logits.shape[-1]} classes and {data.name} has {len(data.classes)}; "
            f"create the model with num_classes={len(data.classes)}."
        )
