"""Measuring: contenders in turn, memory, the plain port that everything is set against."""

from collections.abc import Callable

import pytest
import torch

from c2f import create_model
from c2f.bench import measure
from c2f.bench.plain import PlainConv2Former


def test_the_plain_port_is_the_seed_model():
    torch.manual_seed(0)
    settings = {"dims": (8, 16, 32, 64), "depths": (1, 1, 2, 1)}
    ours, plain = create_model("conv2former_n_cifar", **settings), PlainConv2Former(**settings)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 32, 32)
    ours.eval(), plain.eval()
    torch.testing.assert_close(plain(x), ours(x), rtol=1e-5, atol=1e-6)
    full = PlainConv2Former()
    assert sum(p.numel() for p in full.parameters()) == 8_847_498


def test_contenders_take_turns():
    calls = []
    seconds = measure.in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, min_seconds=1e-4)
    changes = [name for i, name in enumerate(calls) if i == 0 or calls[i - 1] != name]
    assert changes == ["a", "b", "a", "b"]
    assert {name: len(s) for name, s in seconds.items()} == {"a": 2, "b": 2}


def test_the_limits_are_of_this_machine(monkeypatch):
    monkeypatch.setattr(measure, "PRODUCT", 64)
    monkeypatch.setattr(measure, "COPIED", 2**20)
    contenders = measure.limits(torch.device("cpu"), [torch.float32])
    seconds = measure.in_turn(contenders, 1, min_seconds=1e-3)
    ways = ["matrix product as a @ a, float32", "matrix product as a 1×1 convolution, float32"]
    assert list(seconds) == [*ways, "copy"]
    assert all(1e6 < measure.peak(seconds[way]) < 1e14 for way in ways)
    torch.testing.assert_close(contenders[ways[0]]()[0], contenders[ways[1]]()[0, :, 0, 0])  # one row, either way
    assert measure.peak([0.5]) == 4 * 64**3
    assert measure.bandwidth([0.5]) == 4 * 2**20


def allocate(megabytes: int) -> Callable[[], None]:
    return lambda: torch.ones(megabytes * 2**18).sum()


def test_peak_memory_is_what_the_steps_add():
    small, large = (measure.peak_memory(allocate, megabytes) for megabytes in (20, 220))
    assert 150 * 2**20 < large - small < 250 * 2**20


@pytest.mark.parametrize("what", ["train", "infer"])
def test_a_step_runs_as_the_conditions_say(what):
    conditions = measure.Conditions(torch.device("cpu"), batch_size=3, precision="bf16", channels_last=True)
    assert conditions.setting == "bf16, channels_last"
    seen = []

    class Model(torch.nn.Linear):
        def forward(self, x):
            seen.append((x.shape, x.is_contiguous(memory_format=torch.channels_last), torch.is_grad_enabled()))
            return super().forward(x.flatten(1))

    make = measure.training_step if what == "train" else measure.forward_pass
    arguments = [(create_recipe(),)] if what == "train" else [()]
    make(Model(48, 10), *arguments[0], (4, 4), conditions)()
    assert seen == [((3, 3, 4, 4), True, what == "train")]


def create_recipe():
    from c2f.training.recipes import laptop

    return laptop()
