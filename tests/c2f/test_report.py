"""Tables and figures from runs that are written here by hand: no training needed."""

import json
import math
import shlex
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from c2f import cli, report
from c2f.models import create_model
from c2f.training.recipes import RECIPES, laptop, seed
from c2f.training.run import EpochRecord, History

TINY = {"dims": [8, 8], "depths": [1, 1], "kernel_size": 3}
CLASSES = ["cat", "dog", "ship"]


def write_run(folder: Path, model: str, recipe=None, overrides=None, epochs: int | None = None, **data) -> Path:
    """A run's folder as training leaves it, without weights, as it is kept in data/results/."""
    recipe = recipe or replace(seed(), epochs=2)
    described = {
        "model": model,
        "overrides": {"num_classes": 10, **(overrides or {})},
        "data": {"name": "cifar10", "train": 50_000, "test": 10_000, "image_size": [32, 32], **data},
        "recipe": asdict(recipe),
    }
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text(json.dumps(described))
    done = recipe.epochs if epochs is None else epochs
    records = [
        EpochRecord(e, 1e-3, 2.0 / e, 0.3 + 0.1 * e, 1.9 / e, 0.4 + 0.1 * e, seconds=60.0, images_per_second=833.0)
        for e in range(1, done + 1)
    ]
    History(records).to_csv(folder / "history.csv")
    if records:
        summary = {
            **described,
            "hardware": {"device": "cpu", "name": "A Processor", "cores": 2, "threads": 2},
            "versions": {"python": "3.11", "torch": "2.14.1"},
        }
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture
def rivals(tmp_path: Path):
    names = ("conv2former_n_cifar", "swin_t")
    return [report.load_finished(write_run(tmp_path / name, name)) for name in names]


def test_table_is_aligned_in_source_and_complete():
    lines = report.markdown_table(("model", "n"), [("a", "1"), ("longer", "12,345")]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1] == "| ------ | -----: |"
    assert [cell.strip() for cell in lines[3].strip("|").split("|")] == ["longer", "12,345"]


@pytest.mark.parametrize(
    ("count", "text"), [(484_000_000, "484 M"), (4_361_000_000, "4.36 G"), (480_000, "0.48 M"), (15_000_000, "15 M")]
)
def test_multiply_adds_are_said_to_three_digits(count, text):
    assert report.in_millions(count) == text


def test_rates_are_said_as_median_and_range():
    assert report.median_and_range([36.04, 35.12, 40.0]) == "36.0 (35.1–40.0)"
    assert report.median_and_range([1234.4, 999.0, 2000.0]) == "1,234 (999–2,000)"
    assert report.median_and_range([0.0123]) == "0.0123 (0.0123–0.0123)"


@pytest.mark.parametrize(("seconds", "text"), [(12.3, "12 s"), (600, "10 min"), (7200, "2.0 h")])
def test_seconds_are_said_as_people_do(seconds, text):
    assert report.format_seconds(seconds) == text


def test_comparison_prints_the_published_figures(rivals):
    text = report.compare(rivals)
    ours, swin = text.splitlines()[2:4]
    for figure in ("8,847,498", "484 M", "60.0 %", "not measured"):
        assert figure in ours
    for figure in ("27,527,044", "518 M", "92 M"):
        assert figure in swin
    assert "8/4/2/1 tokens a side" in text and "swin_mini_cifar" in text
    assert "A Processor (cpu, 2 threads; python 3.11, torch 2.14.1)" in text
    assert "50,000 training and 10,000 test images" in text and "2 min of training" in text
    assert "Not like with like" not in text


def test_comparison_says_what_is_unequal_and_unfinished(tmp_path):
    one = write_run(tmp_path / "a", "conv2former_mini_cifar", replace(seed(), epochs=4), TINY, epochs=3)
    two = write_run(tmp_path / "b", "conv2former_mini_cifar", replace(seed(), epochs=2, lr=2e-3), TINY)
    runs = [report.load_finished(one), report.load_finished(two)]
    assert report.differences(runs) == ["epochs", "lr"]
    text = report.compare(runs)
    assert "**Not like with like**: these runs differ in epochs, lr" in text
    assert "stopped after 3 of 4 epochs" in text and "| 3 of 4 |" in text
    assert "conv2former_mini_cifar (a)" in text and "conv2former_mini_cifar (b)" in text
    assert "swin" not in text


def test_runs_on_images_of_different_sizes_are_not_compared(tmp_path):
    one = write_run(tmp_path / "a", "conv2former_mini_cifar")
    two = write_run(tmp_path / "b", "conv2former_mini_cifar", image_size=[64, 64])
    with pytest.raises(ValueError, match="different sizes"):
        report.compare([report.load_finished(one), report.load_finished(two)])


def test_a_run_without_an_epoch_says_what_to_do(tmp_path):
    folder = write_run(tmp_path / "a", "conv2former_mini_cifar", epochs=0)
    with pytest.raises(ValueError, match=r"no finished epoch yet; go on with its `c2f train` command"):
        report.load_finished(folder)


def test_runs_are_told_apart_by_model_then_folder_then_path(tmp_path):
    def load(*places: str):
        paths = [tmp_path / place for place in places]
        return [report.load_finished(p if p.exists() else write_run(p, "swin_t")) for p in paths]

    assert report.labels(load("a")) == ["swin_t"]
    assert report.labels(load("a", "b")) == ["swin_t (a)", "swin_t (b)"]
    assert report.labels(load("x/a", "y/a")) == [f"swin_t ({tmp_path / 'x/a'})", f"swin_t ({tmp_path / 'y/a'})"]


@pytest.mark.parametrize("name", RECIPES)
def test_training_command_brings_back_the_run(tmp_path, name):
    recipe = replace(
        RECIPES[name](), epochs=7, lr=3.5e-4, compile=not RECIPES[name]().compile, drop_path=None, crop="none"
    )
    folder = write_run(
        tmp_path / "a run", "conv2former_n_cifar", recipe, {**TINY, "layer_scale": None, "fusion": "sum"},
        image_size=[64, 64],
    )  # fmt: skip
    program, *arguments = shlex.split(report.training_command(report.load_finished(folder)))
    parsed = cli.parse(arguments)
    assert program == "c2f"
    assert parsed.settings == recipe
    assert (parsed.model, parsed.data, parsed.recipe, parsed.image_size) == ("conv2former_n_cifar", "cifar10", name, 64)
    expected = {"dims": (8, 8), "depths": (1, 1), "kernel_size": 3, "layer_scale": None, "fusion": "sum"}
    assert cli.parse_overrides(parsed.set) == expected


def test_a_recipe_field_that_no_longer_exists_is_left_out(tmp_path):
    folder = write_run(tmp_path / "a", "swin_t")
    described = json.loads((folder / "recipe.json").read_text())
    described["recipe"]["a_field_of_the_past"] = 3
    (folder / "recipe.json").write_text(json.dumps(described))
    run = report.load_finished(folder)
    assert report.recipe_of(run) == replace(seed(), epochs=2)
    assert report.nearest_recipe(run.recipe["recipe"]) == ("seed", {"epochs": 2})


def test_speed_is_measured_for_each_model_in_each_round():
    conditions = report.Conditions(torch.device("cpu"), batch_size=2, rounds=2, precision="bf16", channels_last=True)
    models = [create_model("conv2former_mini_cifar", **TINY) for _ in range(2)]
    before = models[0].head.fc.weight.detach().clone()
    speeds = report.measure_speed(models, [laptop(), seed()], (16, 16), conditions)
    assert [[len(rates) for rates in speed] for speed in speeds] == [[2, 2], [2, 2]]
    assert all(rate > 0 and math.isfinite(rate) for training, inference in speeds for rate in training + inference)
    assert not torch.equal(models[0].head.fc.weight, before)  # the optimizer's step is part of what is timed
    for said in ("of two models", "2 rounds", f"{torch.get_num_threads()} thread", "torch 2."):
        assert said in conditions.say("of two models")


def test_curves_show_both_splits_over_epochs_and_time(rivals, tmp_path):
    picture = report.curves(rivals)
    picture.save(tmp_path / "curves.png")
    content = (tmp_path / "curves.png").read_bytes()
    assert content.startswith(b"\x89PNG") and picture.alt.encode("latin-1") in content
    figure = picture.figure
    loss_by_epoch, loss_by_time, accuracy_by_epoch, accuracy_by_time = figure.axes
    assert all(len(ax.lines) == 4 for ax in figure.axes)  # two runs, two splits
    assert (loss_by_epoch.get_ylabel(), accuracy_by_epoch.get_ylabel()) == ("loss", "accuracy")
    assert accuracy_by_epoch.get_xlabel() == "epoch" and "seconds of training" in accuracy_by_time.get_xlabel()
    assert loss_by_epoch.get_title() == "over epochs" and loss_by_time.get_title() == "over training time"
    np.testing.assert_allclose(accuracy_by_time.lines[1].get_xydata(), [[60, 0.5], [120, 0.6]])
    colours = [line.get_color() for line in loss_by_epoch.lines]
    assert colours[0] == colours[1] != colours[2] == colours[3]
    assert picture.alt.startswith(
        "conv2former_n_cifar: test accuracy 50.0 % after epoch 1, 60.0 % after epoch 2, test loss 0.950, 2 min; swin_t:"
    )


def test_long_runs_are_drawn_in_hours(tmp_path):
    run = report.load_finished(write_run(tmp_path / "a", "swin_t", replace(seed(), epochs=200)))
    figure = report.curves([run]).figure
    assert "hours of training" in figure.axes[3].get_xlabel()
    assert figure.axes[2].yaxis.get_major_formatter()(0.575) == "57.5 %"
    assert figure.axes[0].lines[0].get_marker() == ""


def test_each_class_with_its_likeliest_mistake():
    matrix = np.array([[6, 3, 1], [0, 5, 0], [0, 0, 0]])
    table = report.per_class(matrix, CLASSES).splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in table[2:]]
    assert cells[0] == ["cat", "10", "6", "60.0 %", "dog (3)"]
    assert cells[1] == ["dog", "5", "5", "100.0 %", "–"]
    assert cells[2] == ["ship", "0", "0", "–", "–"]
