"""Measuring: contenders interleaved, the machine's limits."""

import pytest
import torch

from c2f.bench import measure


def test_contenders_take_turns():
    calls = []
    seconds = measure.interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, min_seconds=1e-4)
    changes = [name for i, name in enumerate(calls) if i == 0 or calls[i - 1] != name]
    assert changes == ["a", "b", "a", "b"]
    assert {name: len(s) for name, s in seconds.items()} == {"a": 2, "b": 2}


def test_the_limits_are_of_this_machine(monkeypatch):
    monkeypatch.setattr(measure, "PRODUCT", 64)
    monkeypatch.setattr(measure, "COPIED", 2**20)
    contenders = measure.limits(torch.device("cpu"), ["float32"])
    seconds = measure.interleaved(contenders, 1, min_seconds=1e-3)
    ways = ["matrix product as a @ a, float32", "matrix product as a 1×1 convolution, float32"]
    assert list(seconds) == [*ways, "copy"]
    torch.testing.assert_close(contenders[ways[0]]()[0], contenders[ways[1]]()[0, :, 0, 0])  # one row, either way
    speeds, _ = measure.limits_of(seconds)
    assert all(1e6 < speeds[what] < 1e14 for what in ("float32", "copy"))
    speeds, said = measure.limits_of({ways[0]: [4e-6], ways[1]: [2e-6], "copy": [0.5]})
    assert speeds == {"float32": 64**3 / 1e-6, "copy": 4 * 2**20}  # the faster product's
    assert f"{ways[0]} 131 GFLOP/s; {ways[1]} 262 GFLOP/s" in said


@pytest.mark.parametrize("what", ["train", "infer"])
def test_a_step_runs_as_the_conditions_say(what):
    conditions = measure.Conditions(torch.device("cpu"), batch_size=3, precision="bf16", channels_last=True)
    assert conditions.setting == "bf16, channels_last, accelerated"
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


@pytest.mark.parametrize("wanted", [True, False])
def test_a_model_is_accelerated_where_the_conditions_say_so(wanted):
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 3, 5, padding=2, groups=3), torch.nn.Flatten(), torch.nn.Linear(48, 10)
    )
    measure.forward_pass(model, (4, 4), measure.Conditions(torch.device("cpu"), batch_size=2, accelerate=wanted))()
    assert (type(model[0]) is torch.nn.Conv2d) != wanted
