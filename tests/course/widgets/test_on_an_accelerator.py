"""Networks on an accelerator are watched and drawn as those on the CPU are."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import c2f
from c2f.maps.recording import Recorder, Recording
from c2f.training.data import Split, load_dataset
from c2f.training.loop import Callback, TrainingError, train
from c2f.training.recipes import Recipe
from c2f_course.figures import notebook_07 as windows
from c2f_course.widgets import LivePlot

sys.path.insert(0, str(Path(__file__).parents[2]))
from pretend_accelerator import NAME, PretendAccelerator


@pytest.fixture(autouse=True)
def accelerator(monkeypatch):
    monkeypatch.setattr("c2f.device.available_devices", lambda: [NAME, "cpu"])
    with PretendAccelerator():
        yield


class Stops(Callback):
    def on_step(self, state):
        if state.step == 4:
            raise TrainingError("stopped by the test")


def test_a_training_there_is_recorded_and_resumed(tmp_path):
    data = load_dataset("digits", image_size=16)
    data = replace(data, train=Split(data.train.images[:60], data.train.labels[:60]),
                   test=Split(data.test.images[:20], data.test.labels[:20]))  # fmt: skip
    recipe = Recipe(epochs=2, batch_size=20, ema=0.5, precision="bf16", optimizer="muon")
    model = c2f.create_model("conv2former_mini_cifar", dims=(8, 16), depths=(1, 1), kernel_size=5)
    recorder = Recorder(data.test.images[:2], ["one", "other"], tmp_path / "recording.safetensors", frames=3)
    watch = {"out": tmp_path / "run", "progress": False}
    with pytest.raises(TrainingError, match="stopped by the test"):
        train(model, data, recipe, callbacks=[recorder, LivePlot(), Stops()], **watch)
    history = train(model, data, recipe, callbacks=[recorder, LivePlot()], **watch)
    assert len(history) == 2
    assert Recording.load(recorder.path).about["hardware"]["device"] == NAME


def test_attention_there_is_drawn():
    swin = c2f.create_model("swin_micro_cifar").eval().requires_grad_(False).to(NAME)
    photograph = torch.zeros(3, 32, 32, dtype=torch.uint8)
    regular, shifted = swin.attention_weights(torch.randn(1, 3, 32, 32, device=NAME))[:2]
    table = swin.features[1][0].attn.relative_position_bias_table
    head = regular.weights[0, 0, 0]
    windows.plot_windows(photograph, {"regular": regular, "shifted": shifted}, [(7, 7)])
    windows.plot_masks(photograph, shifted, {"top left": 0})
    windows.plot_one_window(photograph, regular, 0, 0, head, head, head)
    windows.plot_offsets({f"head {head}": table[:, head].view(7, 7) for head in (0, 1)})
