"""`c2f bench`: each suite runs, says what it measured on what, and leaves figures that a program can read."""

import functools
import json
import statistics
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from c2f import cli
from c2f.bench import measure, suites
from c2f.models import create_model

peak_memory = suites.peak_memory


def tiny_seed_model():
    return create_model("conv2former_n_cifar", dims=(8, 16), depths=(1, 1))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(measure, "PRODUCT", 64)
    monkeypatch.setattr(measure, "COPIED", 2**20)
    monkeypatch.setattr(suites, "MAPS", ((4, 4), (2, 8)))
    monkeypatch.setattr(suites, "PICTURES", 8)
    monkeypatch.setattr(suites, "peak_memory", lambda make, conditions: 3 * 2**20)
    monkeypatch.setattr(suites, "PAPER_SIZE", (32, 32))
    monkeypatch.setattr(suites, "_paper_model", tiny_seed_model)
    monkeypatch.setattr(measure, "interleaved", functools.partial(measure.interleaved, min_seconds=1e-3))
    real = suites.contenders_at_32
    monkeypatch.setattr(
        suites,
        "contenders_at_32",
        lambda c: {name: (tiny_seed_model, setting) for name, (_, setting) in real(c).items()},
    )


def bench(tmp_path, capsys, what, *flags):
    command = ["bench", what, "--device", "cpu", "--batch-size", "2", "--rounds", "2", "--no-compile", "--out"]
    command += [str(tmp_path), *flags]
    assert cli.main(command) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("what", ["train", "infer", "paper", "data"])
def test_each_suite_prints_a_table_and_writes_its_figures(what, tmp_path, capsys):
    out = bench(tmp_path, capsys, what, "--precision", "float32")
    assert "median (lowest–highest) of 2 rounds" in out and "torch" in out and "thread" in out
    again = f"c2f bench {what} --device cpu --precision float32 --batch-size 2 --rounds 2 --compile False"
    assert f"This table again: `{again}`" in out
    assert "eager and compiled" not in out
    written = json.loads((tmp_path / f"{what}-cpu.json").read_text())
    assert written["conditions"]["batch_size"] == 2
    assert written["hardware"]["threads"] == torch.get_num_threads()
    assert all(len(record["seconds"]) == 2 for record in written["records"])
    table = [line for line in out.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len({record["what"] for record in written["records"]})


def test_peak_memory_is_what_training_adds():
    make = functools.partial(create_model, "conv2former_mini_cifar")
    found = peak_memory(make, measure.Conditions(torch.device("cpu"), batch_size=8))
    weights = 4 * sum(parameter.numel() for parameter in make().parameters())
    assert 4 * weights < found < 4 * weights + 500 * 2**20  # weights, gradients, Adam's two; activations


def test_the_depthwise_suite_draws_its_roofline(tmp_path, capsys):
    out = bench(tmp_path, capsys, "depthwise", "--precision", "float32")
    written = json.loads((tmp_path / "depthwise-cpu.json").read_text())
    assert len(written["records"]) == 8  # two maps, two layouts, theirs and ours
    assert set(written["limits"]) == {"float32", "copy"}
    assert "matrix product as a @ a, float32" in out and "geometric mean" in out and "weight gradient, 2x4x4x4" in out
    with Image.open(tmp_path / "depthwise-cpu.png") as picture:
        assert "c2f, channels_last: 4×4" in picture.text["Description"]


def test_bf16_is_measured_beside_float32_and_each_against_the_best_plain_one(tmp_path, capsys):
    out = bench(tmp_path, capsys, "train", "--precision", "bf16")
    rows = [line.split("|")[1].strip() for line in out.splitlines() if line.startswith("|")][2:]
    ours = ["plain, NCHW", "plain, channels_last", "accelerated, channels_last"]
    assert rows[:5] == [*ours, "swin_t", "swin_mini_cifar"]
    assert rows[5:] == [f"{name}, bf16" for name in rows[:5]]
    written = json.loads((tmp_path / "train-cpu-bf16.json").read_text())
    assert set(written["limits"]) == {"float32", "bfloat16", "copy"}
    settings = {record["what"]: record["setting"] for record in written["records"]}
    assert settings["plain, NCHW"] == "float32, NCHW"
    assert settings["accelerated, channels_last, bf16"] == "bf16, channels_last, accelerated"
    middle = {record["what"]: statistics.median(record["seconds"]) for record in written["records"]}
    for headline, suffix in zip(written["headlines"], ("", ", bf16"), strict=True):
        best = min(middle[f"plain, NCHW{suffix}"], middle[f"plain, channels_last{suffix}"])
        assert middle[headline["plain"]] == best
        assert headline["of plain"] == best / middle[f"accelerated, channels_last{suffix}"]
        assert f"{headline['of plain']:.3g}×" in out


def test_compiled_contenders_are_added_where_asked_for():
    conditions = measure.Conditions(torch.device("cpu"), precision="bf16", compile=True)
    settings = {name: setting.setting for name, (_, setting) in suites.contenders_at_32(conditions).items()}
    assert settings["accelerated, channels_last, compiled, bf16"] == "bf16, channels_last, compiled, accelerated"
    assert settings["plain, NCHW, compiled"] == "float32, NCHW, compiled"
    assert sum("compiled" in name for name in settings) == len(settings) / 2


@pytest.mark.parametrize(("flags", "compile"), [(["--no-compile"], False), (["--compile", "False"], False), ([], None)])
def test_compiling_is_left_out_by_either_flag(flags, compile):
    command = cli.parse(["bench", "train", *flags])
    assert (False if command.no_compile else command.compile) is compile


def test_compiling_stops_when_its_seconds_are_spent_and_the_table_says_what_is_missing(monkeypatch):
    made, seconds = [], [0]

    def forward_pass(model, size, c):
        made.append(c.setting)
        return lambda: seconds.append(10 if c.compile else 0)

    monkeypatch.setattr(suites, "forward_pass", forward_pass)
    monkeypatch.setattr(suites, "time", SimpleNamespace(monotonic=lambda: sum(seconds)))
    monkeypatch.setattr(measure, "interleaved", lambda steps, rounds: {name: [0.1] for name in steps})
    base = measure.Conditions(torch.device("cpu"), 2, "bf16", compile=True, tf32=True, compile_seconds=48)
    result = suites.infer(base)
    compiled = [record["what"] for record in result["records"] if "compiled" in record["what"]]
    assert compiled == ["plain, channels_last, compiled, bf16", "accelerated, channels_last, compiled, bf16"] * 2
    assert len([name for name in made if "compiled" not in name]) == 2 * 3 * 5
    assert all(len(row) == len(result["header"]) for row in result["rows"])
    missing = result["notes"][-1].partition("Not compiled, for want of time: ")[2]
    assert missing.startswith("plain, NCHW, compiled; ") and "accelerated, channels_last, compiled, tf32; " in missing
    assert not any(name in missing.split("; ") for name in compiled)


def test_tf32_is_a_row_of_its_own_with_a_product_of_its_own():
    conditions = measure.Conditions(torch.device("cpu"), 2, "bf16", rounds=1, tf32=True)
    result = suites.train(conditions)
    assert set(result["limits"]) == {"float32", "tf32", "bfloat16", "copy"}
    settings = [record["setting"] for record in result["records"]]
    assert [settings[i].split(",")[0] for i in (0, 5, 10)] == ["float32", "tf32", "bf16"] and len(settings) == 15


# By hand: a 3-wide map sees of an 11-wide kernel offsets -2 to 2, which meet 1, 2, 3, 2, 1 positions.
def test_operations_count_only_the_taps_that_meet_the_image():
    work = suites._work(n=2, c=5, side=3, dtype=torch.float32)
    assert work["operations"] == 3 * 2 * 2 * 5 * 9**2
    assert work["bytes"] == 6 * 2 * 5 * 9 * 4
