"""A training step passes work to an accelerator and waits for nothing."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import c2f
from c2f.training import loop
from c2f.training.data import Dataset, Split, load_dataset
from c2f.training.loop import Callback, TrainingError, train
from c2f.training.recipes import RECIPES
from c2f.training.run import load_checkpoint

sys.path.insert(0, str(Path(__file__).parents[2]))
from pretend_accelerator import NAME, PretendAccelerator

STEPS = 7


@pytest.fixture
def accelerator(monkeypatch):
    monkeypatch.setattr("c2f.device.available_devices", lambda: [NAME, "cpu"])
    with PretendAccelerator() as accelerator:
        yield accelerator


@pytest.fixture
def data() -> Dataset:
    digits = load_dataset("digits")
    train_images, test_images = 8 * STEPS, 4
    splits = {"train": (digits.train, train_images), "test": (digits.test, test_images)}
    return replace(digits, **{name: Split(s.images[:n], s.labels[:n]) for name, (s, n) in splits.items()})


def tiny() -> torch.nn.Module:
    return c2f.create_model("conv2former_mini_cifar", dims=(8, 16), depths=(1, 1), kernel_size=5)


class Counts(Callback):
    def __init__(self, accelerator):
        self.accelerator, self.seen = accelerator, []

    def on_step(self, state):
        self.seen.append((self.accelerator.copies, self.accelerator.waits, self.accelerator.operators))


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_copies_nothing_and_waits_for_nothing(name, data, accelerator):
    recipe = replace(RECIPES[name](), epochs=1, batch_size=8, warmup_epochs=0.0, precision="bf16", compile=False)
    counts = Counts(accelerator)
    train(tiny(), data, recipe, callbacks=[counts], progress=False)
    for before, after in list(zip(counts.seen, counts.seen[1:], strict=False))[1:-1]:  # the first and last are read
        copies, waits, operators = (b - a for a, b in zip(before, after, strict=True))
        assert copies <= bool(recipe.ema), "AveragedModel copies its number of steps, and nothing else is copied"
        assert waits == 0
        assert operators < 1500


def test_a_loss_that_is_not_finite_is_found_later_and_named_by_its_step(data, accelerator, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "READ_EVERY", 5)
    recipe = replace(RECIPES["digits"](), epochs=1, batch_size=8, warmup_epochs=0.0, channels_last=False)

    class Poison(Callback):
        def on_step(self, state):
            if state.step == 2:
                with torch.no_grad():
                    state.model.head.fc.bias.fill_(float("nan"))

    with pytest.raises(TrainingError, match=r"the loss is nan at step 2 \(epoch 1\)"):
        train(tiny(), data, recipe, out=tmp_path, callbacks=[Poison()], progress=False, checkpoint_seconds=0)
    saved = load_checkpoint(tmp_path / "last.ckpt")
    assert saved["step"] == 1
    assert all(weight.isfinite().all() for weight in saved["model"].values())
