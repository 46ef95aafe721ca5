"""The trainings of the GPU record: Conv2Former-N and Swin-T, for as many epochs as there is time for."""

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from c2f.bench import suites
from c2f.training.data import Dataset, Split, load_dataset
from c2f.training.loop import Callback, TrainingState, train
from c2f.training.recipes import Recipe

if TYPE_CHECKING:
    from c2f.bench.record import Record

STEPS = 8  # of an epoch that says how long a whole one takes, and as many batches of test images
STEPS_TAKE = 20.0  # seconds, with all that a training starts with: a guess
SHARE = 0.9  # of the time left that is planned with: steps are not always as fast as the first ones

MakeModel = Callable[..., nn.Module]


class Cost(NamedTuple):
    """Seconds of a training: until its second step, of each step, of an epoch with its evaluation."""

    start: float
    step: float
    epoch: float


def plan(seconds: float, costs: Mapping[str, Cost], epochs: int, fewest: int) -> dict[str, int]:
    """How many epochs each model is trained, at most `epochs`: all the same number, so that they can be compared.

    Where not even `fewest` epochs of each fit into the seconds, the last models are left out.
    """
    for names in (list(costs)[:count] for count in range(len(costs), 0, -1)):
        left = seconds - sum(costs[name].start for name in names)
        fit = min(epochs, int(left / sum(costs[name].epoch for name in names)))
        if fit >= fewest:
            return dict.fromkeys(names, fit)
    return {}


def adapted(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe for fewer epochs: its warm-up and the memory of its averaged weights shrink with them."""
    ema = 1 - (1 - recipe.ema) * recipe.epochs / epochs if recipe.ema else 0.0
    return replace(recipe, epochs=epochs, warmup_epochs=recipe.warmup_epochs * epochs / recipe.epochs, ema=ema)


def run(r: "Record", name: str, recipe: Recipe, source: str) -> None:
    """Train both models by the recipe called `name` on the data set `source`, the steps of each timed first."""
    models: dict[str, MakeModel] = {"conv2former_n_cifar": suites.SEED_MODEL, "swin_t": suites.SWINS["swin_t"]}
    if recipe.precision != "float32":
        recipe = replace(recipe, precision=r.precision)
    epochs, fewest = recipe.epochs, 5
    if r.rehearsal:
        recipe, epochs, fewest = replace(recipe, batch_size=16, compile=False, precision="float32"), 2, 1
    titles = {model: f"training of {model}, recipe {name}, {source}" for model in models}
    done = {model: result for model in models if (result := r.done("trainings", titles[model]))}
    epochs = min([epochs, *(result["epochs"] for result in done.values())])
    costs = {}
    for model in (model for model in models if model not in done):
        title, reason = f"steps of {model}, recipe {name}, {source}", f"twice {STEPS} steps say how long an epoch takes"
        time_steps = partial(_time_steps, r, models[model], recipe, source)
        if timed := r.part("trainings", title, STEPS_TAKE, reason, time_steps):
            costs[model] = Cost(*(timed[field] for field in Cost._fields))
    fewest = min(fewest, epochs)
    planned = plan(SHARE * r.left(), costs, epochs, fewest)
    for model, cost in costs.items():
        n = planned.get(model, fewest)
        seconds = cost.start + n * cost.epoch
        reason = f"{cost.step:.3f} s a step and {cost.epoch:.1f} s an epoch measured, {n} epochs"
        if model in planned:
            train_it = partial(_train, r, titles[model], models[model], adapted(recipe, n), source)
            r.part("trainings", titles[model], seconds, reason, train_it)
        else:
            r.skip("trainings", titles[model], f"{reason}, {seconds:.0f} s, {max(0, r.left()):.0f} s left")


@functools.cache
def _data(source: str, tiny: bool) -> Dataset:
    data = load_dataset(source, progress=False)
    return _first(data, 64, 64) if tiny else data


def _first(data: Dataset, train_images: int, test_images: int) -> Dataset:
    counts = {"train": train_images, "test": test_images}
    splits = {name: getattr(data, name) for name in counts}
    cut = {name: Split(split.images[: counts[name]], split.labels[: counts[name]]) for name, split in splits.items()}
    return replace(data, **cut)


class _Clock(Callback):
    """When each step and the epoch was over, waiting for the device."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.times = device, [time.monotonic()]

    def on_step(self, state: TrainingState) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.times.append(time.monotonic())

    on_epoch = on_step


def _time_steps(r: "Record", make: MakeModel, recipe: Recipe, source: str) -> dict[str, Any]:
    """What `Cost` holds, from the second of two short epochs: in the first one the layers' fastest ways are chosen."""
    data, recipe = _data(source, r.rehearsal), adapted(recipe, 2)
    part = _first(data, STEPS * recipe.batch_size, STEPS * 256)
    clock = _Clock(r.device)
    train(make(num_classes=len(data.classes)), part, recipe, device=r.device, callbacks=[clock], progress=False)
    begin, first, *_ = clock.times
    steps = len(part.train) // recipe.batch_size
    epoch, last, evaluated = (clock.times[i] for i in (-2 - steps, -2, -1))
    step, evaluation = (last - epoch) / steps, (evaluated - last) * len(data.test) / len(part.test)
    return {"start": first - begin, "step": step, "epoch": step * (len(data.train) // recipe.batch_size) + evaluation}


def _train(r: "Record", title: str, make: MakeModel, recipe: Recipe, source: str) -> dict[str, Any]:
    """A whole training: its recipe, its data, every epoch, and the test accuracy of the weights that it ends with."""
    data = _data(source, r.rehearsal)
    about = {"recipe": asdict(recipe), "data": {"name": data.name, **data.provenance}}

    class Keep(Callback):
        def on_epoch(self, state: TrainingState) -> None:
            last = state.history[-1]
            print(f"  epoch {last.epoch} of {recipe.epochs}: test accuracy {last.test_accuracy:.1%}", flush=True)
            r.keep("trainings", title, {**about, "history": state.history.as_dicts()})

    torch.manual_seed(recipe.seed)
    model = make(num_classes=len(data.classes))
    history = train(model, data, recipe, device=r.device, callbacks=[Keep()], progress=False)
    if history.interrupted:
        raise KeyboardInterrupt
    accuracy = history[-1].test_accuracy
    return {**about, "history": history.as_dicts(), "epochs": len(history), "test_accuracy": accuracy}
