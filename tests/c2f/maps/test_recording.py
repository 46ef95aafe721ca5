"""A training to watch again: what is kept, that a resumed one goes on, and what is said of other files."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from c2f import create_model
from c2f.maps import parts_of
from c2f.maps.recording import KEPT_CHANNELS, Recorder, Recording
from c2f.training.augment import normalize
from c2f.training.data import Dataset, load_dataset
from c2f.training.loop import Callback, train
from c2f.training.recipes import digits
from c2f.training.sources.dataset import Split

SMALL = {"dims": (8, 16), "depths": (1, 1), "kernel_size": 5}
SMALL_SWIN = {"embed_dim": 8, "depths": (1, 1), "num_heads": (2, 4)}


@pytest.fixture(scope="module")
def data() -> Dataset:
    whole = load_dataset("digits")
    return replace(
        whole, train=Split(whole.train.images[:64], whole.train.labels[:64]),
        test=Split(whole.test.images[:16], whole.test.labels[:16]),
    )  # fmt: skip


RECIPE = replace(digits(), epochs=2, batch_size=16, warmup_epochs=0.0)


def model_of(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    name, changes = {"Conv2Former": ("conv2former_mini_cifar", SMALL), "Swin": ("swin_micro_cifar", SMALL_SWIN)}[kind]
    return create_model(name, **changes)


@pytest.mark.parametrize("kind", ["Conv2Former", "Swin"])
def test_a_recording_holds_the_last_state_of_the_model(kind: str, data: Dataset, tmp_path: Path) -> None:
    model, path = model_of(kind), tmp_path / "a.safetensors"
    images = data.test.images[:2]
    train(model, data, RECIPE, callbacks=[Recorder(images, ["a", "b"], path, frames=4)], progress=False)
    recording = Recording.load(path)
    assert recording.kind == kind
    assert recording.steps == [1, 2, 4, 8] and len(recording.losses) == 8 and recording.steps_per_epoch == 4
    assert [record.epoch for record in recording.history.records] == [1, 2]
    assert torch.equal(recording.images, images) and recording.names == ["a", "b"]
    first = recording.blocks[0]
    if kind == "Conv2Former":
        expected = parts_of(model, normalize(images), 0, 0).a[:, list(first.channels)].transpose(0, 1)
        kernel = model.stages[0].blocks[0].convmod.a[-1].weight[first.channels[0], 0]
        assert len(first.channels) == KEPT_CHANNELS
        torch.testing.assert_close(first.kernels[-1, 0], kernel.detach(), rtol=1e-3, atol=1e-3)
    else:
        expected = model.eval().attention_weights(normalize(images))[0].row(8, 8).transpose(0, 1).detach()
        assert first.kernels.shape == (4, 2, 7, 7)  # two heads; tokens of a window are at most three apart
    torch.testing.assert_close(first.maps[-1], expected, rtol=1e-2, atol=1e-3)


def test_recording_changes_nothing_in_the_training(data: Dataset, tmp_path: Path) -> None:
    alone, watched = model_of("Conv2Former"), model_of("Conv2Former")
    train(alone, data, RECIPE, progress=False)
    train(watched, data, RECIPE, callbacks=[Recorder(data.test.images[:1], ["a"], tmp_path / "a")], progress=False)
    for before, after in zip(alone.parameters(), watched.parameters(), strict=True):
        assert torch.equal(before, after)


class StopAfter(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, state) -> None:
        if state.step == self.step:
            raise RuntimeError("killed")


@pytest.mark.parametrize(("step", "seconds"), [(6, 60), (6, 0), (2, 0), (4, 0), (7, 0)])
def test_a_resumed_run_goes_on_with_its_recording(step: int, seconds: int, data: Dataset, tmp_path: Path) -> None:
    images, names = data.test.images[:1], ["a"]
    whole = tmp_path / "whole.safetensors"
    train(model_of("Conv2Former"), data, RECIPE, callbacks=[Recorder(images, names, whole, frames=5)], progress=False)

    path = tmp_path / "run" / "recording.safetensors"
    with pytest.raises(RuntimeError, match="killed"):
        cut = [Recorder(images, names, path, frames=5), StopAfter(step)]
        train(
            model_of("Conv2Former"), data, RECIPE, out=tmp_path / "run",
            callbacks=cut, progress=False, checkpoint_seconds=seconds,
        )  # fmt: skip
    train(
        model_of("Conv2Former"), data, RECIPE, out=tmp_path / "run",
        callbacks=[Recorder(images, names, path, frames=5)], progress=False,
    )  # fmt: skip
    once, twice = Recording.load(whole), Recording.load(path)
    assert once.steps == twice.steps
    assert torch.equal(once.losses, twice.losses)
    assert torch.equal(once.blocks[0].maps, twice.blocks[0].maps)


def test_what_cannot_be_recorded_or_read_is_said(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a name each"):
        Recorder(data.test.images[:2], ["only one"], tmp_path / "a")
    with pytest.raises(ValueError, match="at least 2"):
        Recorder(data.test.images[:1], ["a"], tmp_path / "a", frames=1)
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))
    with pytest.raises(ValueError, match="neither ConvMod nor window attention"):
        train(linear, data, RECIPE, callbacks=[Recorder(data.test.images[:1], ["a"], tmp_path / "a")], progress=False)
    with pytest.raises(ValueError, match="there is no recording"):
        Recording.load(tmp_path / "none.safetensors")
    (tmp_path / "else.safetensors").write_bytes(b"something else")
    with pytest.raises(ValueError, match="is not a readable safetensors file"):
        Recording.load(tmp_path / "else.safetensors")
