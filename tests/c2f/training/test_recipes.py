"""Recipes: the schedule, the checks, and the published numbers."""

from dataclasses import FrozenInstanceError, replace

import pytest

from c2f.training.recipes import RECIPES, Recipe


def test_the_seed_recipe_is_the_published_one():
    recipe = RECIPES["seed"]()
    published = {
        "epochs": 50, "batch_size": 256, "optimizer": "adam", "lr": 1e-3, "weight_decay": 1e-5, "schedule": "cosine",
        "label_smoothing": 0.1, "drop_path": 0.1, "color_jitter": 0.2, "crop_scale": 0.6, "flip": 0.5, "rotation": 20,
        "seed": 42, "warmup_epochs": 0, "ema": 0, "mixup": 0, "cutmix": 0, "rand_augment": 0, "precision": "float32",
    }  # fmt: skip
    assert {name: getattr(recipe, name) for name in published} == published


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_gives_its_command(name):
    assert f"--recipe {name}" in RECIPES[name].__doc__


def test_cosine_falls_from_the_top_to_nearly_nothing():
    recipe = Recipe(epochs=50, lr=1e-3)
    rates = [recipe.learning_rate(step, 195) for step in range(50 * 195)]
    assert rates[0] == 1e-3
    assert rates[25 * 195] == pytest.approx(5e-4)
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 1e-10


def test_warmup_rises_linearly_to_the_top():
    recipe = Recipe(epochs=3, lr=1.0, warmup_epochs=0.5)
    assert [recipe.learning_rate(step, 8) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_constant_stays():
    recipe = Recipe(epochs=2, lr=0.1, schedule="constant")
    assert {recipe.learning_rate(step, 5) for step in range(10)} == {0.1}


def test_a_recipe_is_frozen():
    with pytest.raises(FrozenInstanceError):
        RECIPES["seed"]().lr = 1.0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epochs": 0}, "epochs is 0; use at least 1"),
        ({"lr": 0.0}, "lr is 0.0; use a positive"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"warmup_epochs": 50.0}, "warm-up of 50.0 epochs leaves nothing of 50"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"ema": 1.0}, "ema is 1.0"),
        ({"drop_path": -0.1}, "drop_path is -0.1"),
        ({"flip": 2.0}, "flip is 2.0; use a number from 0 to 1"),
        ({"rotation": float("inf")}, "rotation is inf; use 0"),
        ({"crop_scale": 0.0}, "crop_scale is 0.0"),
        ({"mix_share": 0.0}, "mix_share is 0.0; use a share above 0"),
        ({"rand_augment": 11}, "rand_augment is 11; use 1 to 10"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd'; use adam or adamw"),
        ({"precision": "fp8"}, "precision is 'fp8'; use float32 or tf32 or bf16 or fp16 or auto"),
    ],
)
def test_a_recipe_that_cannot_be_says_what_would_do(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(RECIPES["seed"](), **change)
