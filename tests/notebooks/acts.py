"""What is rehearsed on a pretend accelerator besides notebooks: trainings, commands, explorers, maps.

Each function of `ACTS` takes an empty folder and the name of the device. Models stay small, and data few: what is
rehearsed is on which device each tensor is. So a model is on the device where a learner might have moved it, its images
are on the CPU, and the other way round.
"""

import contextlib
import io
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from PIL import Image
from torch import nn

import c2f
from c2f import cli, maps
from c2f.bench import measure, suites
from c2f.fast.autotune import choose, clear_choices
from c2f.fast.depthwise import FORWARD, WEIGHT_GRADIENT
from c2f.maps import receptive_field
from c2f.maps.recording import Recorder, Recording
from c2f.models.inputs import model_device
from c2f.training import loop
from c2f.training.data import Dataset
from c2f.training.loop import Callback
from c2f.training.recipes import RECIPES, Recipe
from c2f.training.sources.photographs import load_photographs
from c2f_course.figures import notebook_07 as windows
from c2f_course.widgets import (
    AugmentationExplorer,
    KernelSizeExplorer,
    LivePlot,
    ModulationExplorer,
    ReceptiveFieldExplorer,
    TrainingReplay,
)
from c2f_course.widgets.base import Explorer

NAMES = ("one", "other")
SMALL = {"dims": (8, 16), "depths": (1, 1), "kernel_size": 5}
SMALL_SWIN = {"embed_dim": 16, "depths": (2, 2), "num_heads": (2, 2)}


def conv2former(**overrides: Any) -> nn.Module:
    return c2f.create_model("conv2former_mini_cifar", **{**SMALL, **overrides})


def swin() -> nn.Module:
    return c2f.create_model("swin_micro_cifar", **SMALL_SWIN).eval()


def digits() -> Dataset:
    return c2f.load_dataset("digits", image_size=16)


class PressesCtrlC(Callback):
    def on_step(self, state: loop.TrainingState) -> None:
        if state.step == 3:
            signal.raise_signal(signal.SIGINT)


# ---- Trainings


def recipes(folder: Path, device: str) -> None:
    """`train` by every named recipe, at two sizes of images where the recipe has them, and `evaluate`."""
    for make in RECIPES.values():
        model = conv2former()
        c2f.train(model, digits(), replace(make(), compile=False), device=device, progress=False)
        assert model_device(model).type == "cpu", "the model was not given back where it was"


def interrupted(folder: Path, device: str) -> None:
    """A training with moving average, Muon, bf16, recorder and live plot: interrupted, resumed, watched again."""
    recipe = Recipe(epochs=2, batch_size=8, ema=0.5, precision="bf16", optimizer="muon", clip_grad=1.0)
    for make in (conv2former, swin):
        out = folder / make.__name__
        recorder = Recorder(digits().test.images[:2], NAMES, out / "recording.safetensors", frames=3)
        watch = {"out": out, "progress": False, "device": device}
        plot = LivePlot()
        history = c2f.train(make(), digits(), recipe, callbacks=[recorder, plot, PressesCtrlC()], **watch)
        assert history.interrupted
        model = make().to(device)
        history = c2f.train(model, digits(), recipe, callbacks=[recorder, plot], **watch)
        assert len(history) == 2 and model_device(model).type == device
        Recording.load(recorder.path)
        plot.picture()


def fp16(folder: Path, device: str) -> None:
    """A training at the precision that suits a GPU which only imitates bf16, as the T4 of Google Colab does."""
    recipe = Recipe(epochs=1, batch_size=8, precision="auto", clip_grad=1.0)
    with mock.patch("torch.cuda.is_bf16_supported", lambda **options: False):
        c2f.train(conv2former(), digits(), recipe, device=device, progress=False)


def depthwise(folder: Path, device: str) -> None:
    """Every way to a depthwise convolution and to its weight gradient, but for Triton's, and their choice by time."""
    weight, bias, ways = torch.rand(4, 1, 5, 5, device=device), torch.rand(4, device=device), {}
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.rand(2, 4, 8, 8, device=device).contiguous(memory_format=layout)
        for name, compute in FORWARD.items():
            ways[f"forward, {name}, {layout}"] = partial(compute, x, weight, bias)
        for name, compute in WEIGHT_GRADIENT.items():
            ways[f"weight gradient, {name}, {layout}"] = partial(compute, x, x, (5, 5))
    ways = {name: way for name, way in ways.items() if "triton" not in name}
    for way in ways.values():
        way()
    clear_choices()
    assert choose(f"rehearsal on {device}", ways, x.device) in ways


# ---- Commands


def commands(folder: Path, device: str) -> None:
    """`c2f train`, `evaluate`, `predict`, `compare`, `export` and `doctor`."""
    sizes = [
        f"--set={name}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, value in SMALL.items()
    ]
    run = str(folder / "run")
    command(
        "train",
        "--batch-size",
        "8",
        "--epochs",
        "1",
        "--ema",
        "0.5",
        "--image-size",
        "16",
        "--record",
        "--out",
        run,
        *sizes,
    )
    command("evaluate", run)
    Image.new("RGB", (40, 40)).save(folder / "mine.png")
    command("predict", run, str(folder / "mine.png"))
    command("compare", run, "--rounds", "1", "--batch-size", "2", "--figure", str(folder / "compare.png"))
    with mock.patch.dict("os.environ", {"C2F_DATA": str(folder)}):
        command("export", run)
    command("doctor", codes=(0, 1))


def benchmarks(folder: Path, device: str) -> None:
    """`c2f bench` with all its suites, at tiny sizes and one round."""
    small_suites = {
        "MAPS": ((4, 4), (2, 8)), "PAPER_SIZE": (32, 32), "PICTURES": 8,
        "_paper_model": partial(c2f.create_model, "conv2former_n_cifar", dims=(8, 16), depths=(1, 1)),
        "create_model": lambda name: conv2former(), "SIZE": (16, 16),
    }  # fmt: skip
    with (
        mock.patch.multiple(suites, **small_suites),
        mock.patch.multiple(
            measure, PRODUCT=64, COPIED=2**20, interleaved=partial(measure.interleaved, min_seconds=1e-6)
        ),
    ):
        for what in suites.SUITES:
            flags = ["--batch-size", "2", "--rounds", "1", "--compile", "False", "--out", str(folder)]
            command("bench", what, *flags)


def command(*words: str, codes: tuple[int, ...] = (0,)) -> None:
    with mock.patch.dict("os.environ", {"C2F_TRACEBACK": "1"}), contextlib.redirect_stdout(io.StringIO()):
        code = cli.main(words)
    assert code in codes, f"c2f {' '.join(words)} ended with {code}"


# ---- Maps and explorers


def seen(folder: Path, device: str) -> None:
    """The functions of c2f.maps, and the figures of attention, for a model there and images here."""
    model, x, photograph = conv2former().to(device), torch.rand(2, 3, 16, 16), torch.rand(3, 16, 16)
    parts = maps.parts_of(model, x, 0, 0)
    convmod = model.block(0, 0).convmod
    maps.channels_by_effect(convmod, parts)
    maps.plot_maps(maps.window_map(convmod, parts.u, 0, (4, 4))[None])
    maps.plot_maps(parts.a[0], images=photograph.expand(8, 3, 16, 16).to(device))
    modulation = maps.modulation_at(model, x, 0, 0, parts=parts)
    maps.plot_modulation(photograph.to(device), modulation)
    maps.implied_attention(convmod.a[-1].weight[0, 0], (4, 4), (8, 8))
    field = maps.effective_receptive_field(model, x)
    receptive_field.plot_receptive_fields({"field": field})
    for kernels in (receptive_field.kernels_of(model, 0), convmod.a[-1].weight[:, 0]):
        receptive_field.mean_radius(kernels)
    labels = torch.arange(10)
    maps.plot_confusion(labels, labels.to(device), list("0123456789"))
    regular, shifted = swin().to(device).attention_weights(torch.rand(1, 3, 32, 32))[:2]
    photograph, head = torch.zeros(3, 32, 32, dtype=torch.uint8), regular.weights[0, 0, 0]
    windows.plot_windows(photograph, {"regular": regular, "shifted": shifted}, [(7, 7)])
    windows.plot_masks(photograph, shifted, {"top left": 0})
    windows.plot_one_window(photograph, regular, 0, 0, head, head, head)
    windows.plot_offsets({"head 0": head, "head 1": head})


def explorers(folder: Path, device: str) -> None:
    """Every explorer made, with models there and images here and there, and every control moved once."""
    here = load_photographs(32).images[:2]
    model = conv2former().to(device)
    replay = Recorder(here, NAMES, folder / "recording.safetensors", frames=2)
    recipe = Recipe(epochs=2, batch_size=8)
    c2f.train(conv2former(), c2f.load_dataset("digits"), recipe, device=device, progress=False, callbacks=[replay])
    move_controls(TrainingReplay(Recording.load(replay.path)))
    for images in (here, here.to(device)):
        move_controls(AugmentationExplorer(images, NAMES, start="recipe: gpu"))
        move_controls(KernelSizeExplorer(images, NAMES))
        move_controls(ReceptiveFieldExplorer({"there": model, "here": conv2former()}, images))
        explorer = ModulationExplorer(model, images, NAMES, conv2former(), swin().to(device), upload=True)
        move_controls(explorer)
        file = io.BytesIO()
        Image.new("RGB", (40, 40)).save(file, "PNG")
        about = {"name": "mine.png", "type": "image/png", "size": file.tell(), "last_modified": datetime.now(UTC)}
        explorer.upload.value = ({**about, "content": file.getvalue()},)
        assert explorer.names[-1] == "mine.png", explorer.message.value


def move_controls(explorer: Explorer) -> None:
    for control in explorer.widget.children[0].children:
        if hasattr(control, "options"):
            control.index = (control.index + 1) % len(control.options)
        elif hasattr(control, "max"):
            control.value = control.max if control.value < control.max else control.min


ACTS: dict[str, Callable[[Path, str], None]] = {
    "train, every recipe": recipes,
    "train, interrupted and resumed": interrupted,
    "train, on a GPU without bf16": fp16,
    "c2f.fast.depthwise": depthwise,
    "c2f train, evaluate, predict, compare, export, doctor": commands,
    "c2f bench": benchmarks,
    "c2f.maps": seen,
    "explorers": explorers,
}
