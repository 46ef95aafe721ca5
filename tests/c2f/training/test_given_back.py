"""`train` and `evaluate` give a model back where and as they found it, whatever happened to it inside."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

import c2f
from c2f import device as devices
from c2f.training.data import Dataset, Split, load_dataset
from c2f.training.loop import Callback, TrainingError, evaluate, train
from c2f.training.recipes import Recipe

sys.path.insert(0, str(Path(__file__).parents[2]))
from pretend_accelerator import NAME, PretendAccelerator

RECIPE = Recipe(epochs=1, batch_size=20, lr=3e-3, drop_path=0.3, ema=0.5, channels_last=True)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    data = load_dataset("digits", image_size=16)
    return replace(data, train=Split(data.train.images[:60], data.train.labels[:60]),
                   test=Split(data.test.images[:20], data.test.labels[:20]))  # fmt: skip


@pytest.fixture
def accelerator(monkeypatch):
    monkeypatch.setattr(devices, "available_devices", lambda: [NAME, "cpu"])
    with PretendAccelerator():
        yield NAME


def small_model(**overrides) -> nn.Module:
    torch.manual_seed(0)
    return c2f.create_model("conv2former_mini_cifar", dims=(8, 16), depths=(1, 1), kernel_size=5, **overrides)


def state_of(model: nn.Module) -> dict:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "tensors": {
            name: (type(t), t.device, t.stride(), t.requires_grad, t.is_inference()) for name, t in tensors.items()
        },
        "modes": {name: module.training for name, module in model.named_modules()},
        "drop paths": [module.p for module in model.modules() if isinstance(module, StochasticDepth)],
        "classes": [type(module) for module in model.modules()],
    }


class StopsAt(Callback):
    def on_step(self, state):
        if state.step == 2:
            raise TrainingError("stopped by the test")


def test_evaluate_leaves_a_model_that_can_learn(digits, accelerator):
    model = small_model()
    before = state_of(model)
    evaluate(model, digits.test)
    assert state_of(model) == before
    model(torch.randn(2, 3, 16, 16)).sum().backward()
    assert model.stem[0].weight.grad.device.type == "cpu"


def test_train_takes_the_model_to_the_accelerator_and_back(digits, accelerator):
    model, seen = small_model(), []
    before = state_of(model)
    watch = Callback()
    watch.on_step = lambda state: seen.append(next(state.model.parameters()).device.type)
    train(model, digits, RECIPE, callbacks=[watch], progress=False)
    assert set(seen) == {accelerator}
    assert state_of(model) == before
    assert model(digits.test.images[:1].float()).shape == (1, 10)


def test_a_model_that_was_on_the_accelerator_stays_there(digits, accelerator):
    model = small_model().to(accelerator)
    train(model, digits, RECIPE, progress=False)
    evaluate(model, digits.test)
    assert {p.device.type for p in model.parameters()} == {accelerator}


@pytest.mark.parametrize("device", ["cpu", NAME])
def test_a_training_that_fails_gives_the_model_back_too(device, digits, accelerator):
    model = small_model()
    before = state_of(model)
    with pytest.raises(TrainingError, match="stopped by the test"):
        train(model, digits, RECIPE, device=device, callbacks=[StopsAt()], progress=False)
    assert state_of(model) == before


def test_modules_in_eval_mode_stay_frozen_through_training_and_evaluation(digits):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 10))
    model[1].eval()
    model[1].running_mean.fill_(3.0)
    train(model, digits, replace(RECIPE, ema=0.0), device="cpu", progress=False)
    evaluate(model, digits.test, device="cpu")
    assert [module.training for module in model.modules()] == [True, True, False, True, True]
    assert torch.equal(model[1].running_mean, torch.full((4,), 3.0))


def test_a_tensor_that_a_model_keeps_during_evaluation_is_an_ordinary_one(digits):
    class Keeps(nn.Linear):
        def forward(self, x):
            if not hasattr(self, "grid"):
                self.grid = torch.ones_like(x[:1].flatten(1))
            return super().forward(x.flatten(1) * self.grid)

    model = Keeps(3 * 16 * 16, 10)
    evaluate(model, digits.test, device="cpu")
    model(torch.randn(2, 3, 16, 16)).sum().backward()


def test_a_model_on_two_devices_is_refused(digits, accelerator):
    model = small_model()
    model.head.to(accelerator)
    with pytest.raises(ValueError, match=f"the model is on cpu and {accelerator}.*one device first"):
        evaluate(model, digits.test)
