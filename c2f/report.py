"""Runs to tables and figures: what was trained, how far it came, and what it costs to compute.

A figure without its conditions cannot be compared with another, so every table here says what it was obtained on.
Accuracy is that of the last epoch, never of the best one.
"""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from c2f.bench.measure import Conditions, forward_pass, interleaved, median_and_range, say_versions, training_step
from c2f.models.cost import MultiplyAdds, count_parameters, multiply_adds
from c2f.picture import AMBER, PURPLE, SKY, TEST, TRAIN, WINDOW, Picture, new_figure, tidy
from c2f.training.recipes import RECIPES, Recipe
from c2f.training.run import Run, load_run

# Okabe and Ito's colours, told apart by every kind of eye, in an order that is also one of lightness.
COLOURS = (TRAIN, TEST, WINDOW, PURPLE, AMBER, SKY, "#000000")
SPLITS: dict[str, tuple[str, dict[str, Any]]] = {
    "train": ("training images, augmented", {"linestyle": "--", "linewidth": 1.4, "markerfacecolor": "white"}),
    "test": ("test images", {"linestyle": "-", "linewidth": 1.8}),
}


# ---- Tables


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose source is aligned too: the first column to the left, figures to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    aligned = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in aligned)


def in_millions(count: int) -> str:
    """484 M; 4.36 G from a thousand million on, 0.48 M below ten."""
    if count >= 1e9:
        return f"{count / 1e9:.2f} G"
    return f"{count / 1e6:.0f} M" if count >= 1e7 else f"{count / 1e6:.2f} M"


def percentage(part: float) -> str:
    return f"{100 * part:.1f} %"


# ---- Runs


def load_finished(path: Path | str) -> Run:
    """`load_run` for a run that has something to show; ValueError if it has no finished epoch."""
    run = load_run(path)
    if not run.summary or not len(run.history):
        raise ValueError(f"{path} has no finished epoch yet; go on with its `c2f train` command, then compare.")
    return run


def labels(runs: Sequence[Run]) -> list[str]:
    """What to call each run: its model, with the folder where several runs have the same model."""
    models = [run.recipe["model"] for run in runs]
    named = [f"{model} ({run.path.resolve().name})" for model, run in zip(models, runs, strict=True)]
    if len(set(named)) < len(runs):
        named = [f"{model} ({run.path})" for model, run in zip(models, runs, strict=True)]
    return [model if models.count(model) == 1 else name for model, name in zip(models, named, strict=True)]


def image_size(run: Run) -> tuple[int, int]:
    """Height and width of the images that a run was trained on."""
    return tuple(run.recipe["data"].get("image_size", (32, 32)))


def recipe_of(run: Run) -> Recipe:
    """A run's recipe as a value; fields that a later version dropped are left out."""
    known = {field.name for field in fields(Recipe)}
    return Recipe(**{key: value for key, value in run.recipe["recipe"].items() if key in known})


def nearest_recipe(recipe: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The named recipe that a recipe is closest to, and the fields with other values."""
    changes = {
        name: {key: recipe[key] for key, value in asdict(make()).items() if recipe.get(key, value) != value}
        for name, make in RECIPES.items()
    }
    return min(changes.items(), key=lambda item: len(item[1]))


def training_command(run: Run) -> str:
    """The command that trains this again."""
    name, changes = nearest_recipe(run.recipe["recipe"])
    words = ["c2f", "train", "--model", run.recipe["model"], "--data", run.recipe["data"]["name"], "--recipe", name]
    for field, value in changes.items():  # --channels-last, --no-compile, --lr 0.001
        flag = field.replace("_", "-")
        words += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    for field, value in run.recipe["overrides"].items():
        if field != "num_classes":  # follows from the data set
            text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            words += ["--set", f"{field}={text}"]
    if image_size(run) != (32, 32):
        words += ["--image-size", str(image_size(run)[0])]
    for asked in ("split", "channels"):
        words += [f"--{asked}", str(run.recipe["data"][asked])] if asked in run.recipe["data"] else []
    return shlex.join([*words, "--out", f"runs/{run.path.resolve().name}"])


def describe_machine(run: Run) -> str:
    """What a run was trained on: processor, threads, versions."""
    hardware, versions = run.summary["hardware"], say_versions(run.summary["versions"])
    threads = f"{hardware['threads']} thread{'s' * (hardware['threads'] != 1)}"
    return f"{hardware['name']} ({hardware['device']}, {threads}; {versions})"


def training_seconds(run: Run) -> float:
    """Wall-clock seconds of training, without evaluation."""
    return sum(record.seconds for record in run.history.records)


def format_seconds(seconds: float) -> str:
    """To two or three digits, in the unit that a person would use."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


# ---- Comparison


def compare(runs: Sequence[Run], conditions: Conditions | None = None) -> str:
    """A table of the runs as Markdown, with everything that qualifies its figures.

    `conditions` say how to measure speed; None leaves it unmeasured.
    """
    size, *others = sorted({image_size(run) for run in runs})
    if others:
        raise ValueError(f"these runs saw images of different sizes ({[size, *others]}); compare those of one size.")
    with torch.device("cpu" if conditions else "meta"):  # to count, shapes without numbers are enough
        models = [run.build_model() for run in runs]
    costs = [multiply_adds(m, size, run.recipe["data"].get("channels", 3)) for m, run in zip(models, runs, strict=True)]
    notes = [
        "Multiply-adds are those of one image's forward pass as the layers are defined, padding included; "
        "useful are those that touch the image. Accuracy is the last epoch's, over all test images."
    ]
    speeds = [("not measured", "not measured")] * len(runs)
    if conditions:
        rates = measure_speed(models, [recipe_of(run) for run in runs], size, conditions)
        speeds = [(median_and_range(train), median_and_range(inference)) for train, inference in rates]
        what = (
            "Training is forward, loss, backward and optimizer step, inference forward alone, without loading and "
            f"augmentation, in {conditions.setting}, batch {conditions.batch_size}"
        )
        notes.append(f"Speed: {conditions.say(what)}")
    header = (
        "model", "parameters", f"multiply-adds at {size[0]}×{size[1]}", "of these useful",
        "training, images/s", "inference, images/s", "test accuracy", "epochs",
    )  # fmt: skip
    names, rows = labels(runs), []
    for name, run, model, cost, speed in zip(names, runs, models, costs, speeds, strict=True):
        done, wanted = len(run.history), run.recipe["recipe"]["epochs"]
        rows.append([
            name, f"{count_parameters(model):,}", in_millions(cost.nominal), in_millions(cost.useful), *speed,
            percentage(run.history[-1].test_accuracy), str(done) if done == wanted else f"{done} of {wanted}",
        ])  # fmt: skip
        notes.append(_describe_run(name, run))
    notes += _warnings(runs, costs, size)
    return "\n".join([markdown_table(header, rows), "", *(f"* {note}" for note in notes)])


def measure_speed(
    models: Sequence[nn.Module], recipes: Sequence[Recipe], size: tuple[int, int], conditions: Conditions
) -> list[tuple[list[float], list[float]]]:
    """Images per second of training and of inference for each model, one figure per round."""
    train = [training_step(model, recipe, size, conditions) for model, recipe in zip(models, recipes, strict=True)]
    infer = [forward_pass(model, size, conditions) for model in models]
    rates = (
        [[conditions.batch_size / second for second in seconds] for seconds in taken.values()]
        for taken in (interleaved(dict(enumerate(steps)), conditions.rounds) for steps in (train, infer))
    )
    return list(zip(*rates, strict=True))


def _describe_run(name: str, run: Run) -> str:
    data = run.recipe["data"]
    base, changes = nearest_recipe(run.recipe["recipe"])
    setting = f"recipe `{base}`" + (" with " if changes else "") + ", ".join(f"{k}={v}" for k, v in changes.items())
    done, wanted = len(run.history), run.recipe["recipe"]["epochs"]
    return (
        f"**{name}**: {data['name']} ({data['train']:,} training and {data['test']:,} test images), {setting}; "
        f"{format_seconds(training_seconds(run))} of training on {describe_machine(run)}. "
        + (f"It was stopped after {done} of {wanted} epochs. " if done < wanted else "")
        + f"Again: `{training_command(run)}`"
    )


def _warnings(runs: Sequence[Run], costs: Sequence[MultiplyAdds], size: tuple[int, int]) -> list[str]:
    """What a reader of the table must know before they conclude anything."""
    found = []
    if unequal := differences(runs):
        found.append(f"**Not like with like**: these runs differ in {', '.join(unequal)}.")
    for run, cost in zip(runs, costs, strict=True):
        if run.recipe["model"] == "swin_t" and cost.useful < cost.nominal:
            tokens = "/".join(str(-(-min(size) // stride)) for stride in (4, 8, 16, 32))
            found.append(
                f"`swin_t` sees {size[0]}×{size[1]} pixels as {tokens} tokens a side and pads each map to "
                f"a multiple of its window's 7: of the {in_millions(cost.nominal)} multiply-adds that it executes, "
                f"{in_millions(cost.useful)} are useful. `swin_mini_cifar` is the Swin that is sized for such images."
            )
    return list(dict.fromkeys(found))


def differences(runs: Sequence[Run]) -> list[str]:
    """What differs between the runs, besides the model: data, recipe fields, epochs done, device."""
    views = [
        {"data": run.recipe["data"]["name"], **run.recipe["recipe"]}
        | {"epochs": len(run.history), "device": run.summary["hardware"]["name"]}
        for run in runs
    ]
    return [key for key in views[0] if len({str(view.get(key)) for view in views}) > 1]


def curves(runs: Sequence[Run]) -> Picture:
    """Loss and accuracy of both splits over epochs and over training time."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(10, 7)
    axes = figure.subplots(2, 2, sharex="col", sharey="row")
    longest = max(map(training_seconds, runs))
    unit, seconds = ("hours", 3600) if longest > 2 * 3600 else ("minutes", 60) if longest > 120 else ("seconds", 1)
    handles = []
    for i, (name, run) in enumerate(zip(labels(runs), runs, strict=True)):
        records, colour = run.history.records, COLOURS[i % len(COLOURS)]
        handles.append(Line2D([], [], color=colour, label=name))
        times = np.cumsum([record.seconds for record in records]) / seconds
        marker = "o" if len(records) <= 20 else ""  # without one, a run of a single epoch would not show
        for row, quantity in enumerate(("loss", "accuracy")):
            for split, (_, style) in SPLITS.items():
                y = [getattr(record, f"{split}_{quantity}") for record in records]
                for ax, x in zip(axes[row], ([record.epoch for record in records], times), strict=True):
                    ax.plot(x, y, color=colour, marker=marker, markersize=5, **style)
    handles += [
        Line2D([], [], color="0.3", marker="o", markersize=5, label=name, **style) for name, style in SPLITS.values()
    ]
    axes[0, 0].set(title="over epochs", ylabel="loss", xlim=(0.5, max(len(run.history) for run in runs) + 0.5))
    axes[0, 1].set(title="over training time", xlim=(0, 1.05 * longest / seconds))
    axes[1, 0].set(xlabel="epoch", ylabel="accuracy")
    axes[1, 1].set(xlabel=f"{unit} of training, each on its run's machine")
    axes[1, 0].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes[1, 0].yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
    tidy(*axes.flat)
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), frameon=False)
    figure.suptitle(f"Training on {', '.join(dict.fromkeys(run.recipe['data']['name'] for run in runs))}")
    said = (
        f"{name}: test accuracy {percentage(run.history[0].test_accuracy)} after epoch 1, "
        f"{percentage(run.history[-1].test_accuracy)} after epoch {run.history[-1].epoch}, "
        f"test loss {run.history[-1].test_loss:.3f}, {format_seconds(training_seconds(run))}"
        for name, run in zip(labels(runs), runs, strict=True)
    )
    return Picture(figure, f"{'; '.join(said)}.")


# ---- One model's predictions


def per_class(matrix: np.ndarray, classes: Sequence[str]) -> str:
    """Each class's accuracy and its likeliest mistake, as Markdown; `matrix[i, j]` counts class i taken for j."""
    rows, wrong = [], matrix * (1 - np.eye(len(classes), dtype=int))
    for i, name in enumerate(classes):
        total, right, worst = int(matrix[i].sum()), int(matrix[i, i]), int(wrong[i].argmax())
        mistake = f"{classes[worst]} ({wrong[i, worst]})" if wrong[i].any() else "–"
        rows.append((name, str(total), str(right), percentage(right / total) if total else "–", mistake))
    return markdown_table(("class", "images", "right", "accuracy", "most often taken for"), rows)
