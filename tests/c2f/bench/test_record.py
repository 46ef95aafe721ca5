"""The GPU record: what fits into the time, what is kept of a part that fails or is cut off, a rehearsal of it all."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from c2f.bench import record_page
from c2f.bench.record import Record, record
from c2f.bench.record_trainings import Cost, adapted, plan
from c2f.training.recipes import gpu, seed

ROOT = Path(__file__).parents[3]
FILES = ["depthwise.json", "infer.json", "record.md", "tests.json", "train.json", "trainings.json"]


def new_record(folder, seconds=100.0):
    return Record(folder, torch.device("cpu"), seconds, rehearsal=True)


# ---- What fits


@pytest.mark.parametrize(
    ("seconds", "planned"),
    [
        (500, {"a": 50, "b": 50}),  # 10 + 50 · (2 + 3) = 260: no more than asked for
        (210, {"a": 40, "b": 40}),  # 10 + 40 · 5
        (209, {"a": 39, "b": 39}),  # and never a part of an epoch
        (35, {"a": 5, "b": 5}),
        (34, {"a": 15}),  # 4 of both are too few; 4 + 15 · 2 of the first one
        (14, {"a": 5}),
        (13, {}),
        (-1, {}),
    ],
)
def test_as_many_epochs_are_planned_as_fit_and_the_same_for_both_models(seconds, planned):
    costs = {"a": Cost(start=4, step=0.1, epoch=2), "b": Cost(start=6, step=0.1, epoch=3)}
    assert plan(seconds, costs, epochs=50, fewest=5) == planned


def test_a_recipe_for_fewer_epochs_keeps_its_proportions():
    recipe = adapted(gpu(), 10)
    assert (recipe.epochs, recipe.warmup_epochs, round(recipe.ema, 6)) == (10, 3 / 5, 0.995)
    assert adapted(gpu(), 1).ema == pytest.approx(0.95)
    assert adapted(seed(), 7).ema == 0  # no average is no average
    assert adapted(gpu(), 50) == gpu()


# ---- A part


def test_a_part_that_fails_is_written_down_and_the_next_one_goes_on(tmp_path, capsys):
    r = new_record(tmp_path)
    assert r.part("tests", "one", 1, "a guess", lambda: {"said": str(1 / 0)}) is None
    assert r.part("infer", "two", 1, "a guess", lambda: {"said": "fine"})["said"] == "fine"
    assert r.failed and "ZeroDivisionError" in capsys.readouterr().err
    assert json.loads((tmp_path / "tests.json").read_text())["one"]["error"] == "ZeroDivisionError: division by zero"
    assert "failed: ZeroDivisionError: division by zero" in (tmp_path / "record.md").read_text()
    again = new_record(tmp_path)  # what failed is tried again, what was done is not
    assert again.part("tests", "one", 1, "a guess", lambda: {"said": "better"})["said"] == "better"
    assert again.part("infer", "two", 1, "a guess", lambda: {"said": "other"})["said"] == "fine"
    assert "two: done already" in capsys.readouterr().out
    assert not again.failed
    assert "error" not in json.loads((tmp_path / "tests.json").read_text())["one"]


def test_a_part_for_which_there_is_no_time_is_left_out_and_says_why(tmp_path, capsys):
    r = new_record(tmp_path, seconds=5)
    assert r.part("train", "steps", 9, "3 rounds", lambda: pytest.fail("ran")) is None
    assert "steps: 3 rounds: 9 s, of 5 s that are left" in capsys.readouterr().out
    assert "not run: 9 s estimated (3 rounds), 5 s left" in (tmp_path / "record.md").read_text()
    assert new_record(tmp_path).part("train", "steps", 9, "3 rounds", lambda: {"said": "ran"})["said"] == "ran"


def test_a_training_that_was_cut_off_keeps_its_epochs_until_it_is_begun_anew(tmp_path):
    epoch = {"test_accuracy": 0.5, "train_accuracy": 0.25, "images_per_second": 100.0, "seconds": 2.0}
    part = {"recipe": {"epochs": 4}, "history": [epoch, epoch]}
    new_record(tmp_path).keep("trainings", "training of swin_t", part)
    page = (tmp_path / "record.md").read_text()
    assert "cut off after epoch 2 of 4" in page and "2 of 4 |        50.0 % " in page
    again = new_record(tmp_path, seconds=1)
    assert again.done("trainings", "training of swin_t") is None
    again.part("trainings", "training of swin_t", 9, "4 epochs", lambda: pytest.fail("ran"))
    assert json.loads((tmp_path / "trainings.json").read_text())["training of swin_t"]["history"] == [epoch, epoch]


def test_the_record_of_another_machine_is_not_written_over(tmp_path):
    new_record(tmp_path).part("tests", "one", 1, "a guess", lambda: {"said": "fine"})
    with pytest.raises(ValueError, match=r"holds a rehearsal; name another folder with --out, or delete this one\.$"):
        Record(tmp_path, torch.device("cpu"), 1, rehearsal=False)
    with pytest.raises(ValueError, match="this is a record of a GPU; use --device cuda .* or --rehearse"):
        record("cpu", tmp_path)


# ---- All of it


def test_a_rehearsal_that_is_killed_goes_on_and_does_everything(tmp_path):
    command = [sys.executable, "-m", "c2f", "bench", "record", "--rehearse", "--no-compile", "--device", "cpu"]
    command += ["--threads", "1", "--out", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
        lines = iter(killed.stdout.readline, "")
        assert any(line.startswith("inference: 30 contenders, 1 rounds: 12 s, of ") for line in lines)
        killed.kill()
    before = record_page.load(tmp_path)
    assert len(before["depthwise"]) == 3 and before["train"] and not before["infer"]

    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    kept = record_page.load(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == FILES
    assert done.stdout.count("done already") == 5 and "training step: done already" in done.stdout
    assert {name: kept[name] for name in ("tests", "depthwise", "train")} == {
        name: before[name] for name in ("tests", "depthwise", "train")
    }
    for parts in kept.values():
        for part in parts.values():
            assert part["rehearsal"] and part["hardware"]["threads"] == 1 and "torch" in part["versions"]
            assert "error" not in part and "skipped" not in part and part["seconds"] > 0
    settings = {record["setting"] for record in kept["train"]["training step"]["records"]}
    assert {"float32, NCHW", "tf32, NCHW", "bf16, channels_last, accelerated"} <= settings
    trained = {name: part for name, part in kept["trainings"].items() if name.startswith("training of")}
    assert len(trained) == 4
    for name, part in trained.items():
        assert len(part["history"]) == part["epochs"] == part["recipe"]["epochs"] == 2
        assert part["test_accuracy"] == part["history"][-1]["test_accuracy"]
        assert f"{name}: " in done.stdout and "s an epoch measured, 2 epochs: " in done.stdout
    page = (tmp_path / "record.md").read_text()
    assert "A rehearsal at tiny sizes" in page and "not measured |" not in record_page.summary(kept)
    assert all(f"## {title}" in page for title in record_page.FILES.values())


def test_the_readme_has_the_figures_of_the_record():
    kept = record_page.load(ROOT / "data" / "results" / "gpu")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"<!-- gpu -->\n{record_page.summary(kept, ['bf16'])}\n<!-- /gpu -->" in text
