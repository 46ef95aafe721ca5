"""The augmentation explorer: what it tells is what was drawn, every control does something, and it is quick."""

import re
import time

import pytest
import torch
from torch import Tensor

from c2f.training import augment
from c2f.training.recipes import RECIPES
from c2f.training.sources.photographs import load_photographs
from c2f_course.figures import notebook_04 as pictures
from c2f_course.figures.notebook_04 import AUGMENTATIONS, draw_augmented, milder, steps_of
from c2f_course.widgets.augmentation import DRAWS, RECIPE, AugmentationExplorer

LONGEST = 0.150  # seconds of an update


@pytest.fixture(scope="module")
def images() -> Tensor:
    return load_photographs(32).images


@pytest.fixture
def explorer(images: Tensor) -> AugmentationExplorer:
    return AugmentationExplorer(images, load_photographs().names)


def drawn_with(name: str, images: Tensor, strength: float, seed: int = 3) -> pictures.Drawn:
    return draw_augmented(name, images, torch.eye(len(images)), strength, seed)


# What is told is what was drawn.


@pytest.mark.parametrize(
    ("name", "strength", "alone"),
    [
        ("colour jitter", 0.3, lambda x: augment.color_jitter(x, 0.3)),
        ("resized crop", 0.4, lambda x: augment.random_resized_crop(x, 0.6)),
        ("shift", 4, lambda x: augment.random_shift(x, 4)),
        ("RandAugment", 9, lambda x: augment.rand_augment(x, 9)),
        ("erasing", 0.5, lambda x: augment.random_erasing(x, 0.5)),
        ("flip", 0.5, lambda x: augment.random_flip(x, 0.5)),
        ("rotation", 20, lambda x: augment.random_rotation(x, 20)),
        ("MixUp", 0.8, lambda x: augment.mixup(x, torch.eye(len(x)), 0.8)[0]),
        ("CutMix", 1.0, lambda x: augment.cutmix(x, torch.eye(len(x)), 1.0)[0]),
        ("image-level mixup", 1.0, lambda x: augment.image_mixup(x, 1.0)),
    ],
)
def test_each_is_the_kits_own_augmentation(name: str, strength: float, alone, images: Tensor) -> None:
    torch.manual_seed(3)
    expected = alone(images / 255).clamp(0, 1)
    torch.testing.assert_close(drawn_with(name, images, strength).images, expected, rtol=0, atol=0)


def test_what_is_drawn_leaves_other_random_numbers_alone(images: Tensor) -> None:
    before = torch.random.get_rng_state()
    drawn_with("RandAugment", images, 9)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_told_shifts_flips_and_turns_make_the_same_images(images: Tensor) -> None:
    units = images / 255
    for text, image, made in zip(*_told("shift", images, 4), strict=True):
        moves = dict(re.findall(r"(\d+) (down|up|left|right)", text) and _pairs(text))
        down, right = moves.get("down", 0) - moves.get("up", 0), moves.get("right", 0) - moves.get("left", 0)
        torch.testing.assert_close(
            augment.shift(image[None], torch.tensor([down]), torch.tensor([right]), 4)[0], made, rtol=0, atol=0
        )
    for text, image, made in zip(*_told("flip", images, 0.5), strict=True):
        assert torch.equal(made, image.flip(-1) if text == "mirrored" else image)
    turned = drawn_with("rotation", images, 90)
    degrees = torch.tensor([_turn(text) for text in turned.told])
    difference = (augment.rotate(units, degrees) - turned.images).abs().mean()  # told to a degree, drawn finer
    assert difference < 0.02
    assert (augment.rotate(units, -degrees) - turned.images).abs().mean() > 5 * difference


def _told(name: str, images: Tensor, strength: float) -> tuple[list[str], Tensor, Tensor]:
    drawn = drawn_with(name, images, strength)
    return drawn.told, images / 255, drawn.images


def _pairs(text: str) -> list[tuple[str, int]]:
    return [(way, int(pixels)) for pixels, way in re.findall(r"(\d+) (\w+)", text)]


def _turn(text: str) -> float:
    size = float(text.split("°")[0])
    return -size if "right" in text else size


def test_told_shares_are_the_labels(images: Tensor) -> None:
    for name in ("MixUp", "CutMix"):
        drawn = drawn_with(name, images, 1.0)
        for i, text in enumerate(drawn.told):
            own = drawn.targets[i, i].item()
            if own < 0.995:  # who is mixed with itself keeps the whole label
                assert text == f"{own:.0%} its own"


def test_told_erasing_is_the_black_area(images: Tensor) -> None:
    white = torch.full_like(images, 255)
    drawn = drawn_with("erasing", white, 0.5)
    assert drawn.told == [
        f"{share:.0%} erased" if share else "as it is" for share in (drawn.images == 0).float().mean((1, 2, 3)).tolist()
    ]


@pytest.mark.parametrize("name", RECIPES)
def test_steps_are_the_recipes_own(name: str, images: Tensor) -> None:
    recipe = RECIPES[name]()
    torch.manual_seed(0)
    unmixed = milder(recipe, 1.0)
    now = images / 255
    for _, change in steps_of(unmixed):
        now = change(now)
    if recipe.mixup:
        now, _ = augment.mixup_or_cutmix(now, torch.eye(len(now)), recipe.mixup, recipe.cutmix)
    torch.manual_seed(0)
    whole, _ = augment.Augment(recipe, (32, 32), len(images))(images, torch.arange(len(images)))
    torch.testing.assert_close(augment.normalize(now), whole, rtol=0, atol=0)


# The controls.


@pytest.mark.parametrize("kind", [*AUGMENTATIONS, *(RECIPE + name for name in RECIPES)])
def test_every_kind_draws_at_every_end_of_its_slider(kind: str, explorer: AugmentationExplorer) -> None:
    explorer.kind.value = kind
    low, high = explorer.strength.min, explorer.strength.max
    assert low == 0 < explorer.strength.value <= high
    usual, strength_then = explorer.text, explorer.strength.value
    assert kind.removeprefix(RECIPE) in usual and f"{DRAWS} draws" in usual and "%" in usual
    for strength in (high, low):
        explorer.strength.value = strength
        assert (explorer.text != usual) == (strength != strength_then)
    assert "change by 0%" in explorer.text, "at strength 0 the images stay as they are"


def test_seed_and_image_change_the_picture(explorer: AugmentationExplorer) -> None:
    first = explorer._picture.value
    explorer.seed.value = 1
    second = explorer._picture.value
    explorer.image.value = 1
    assert len({first, second, explorer._picture.value}) == 3
    assert "The cat as it is" in explorer.text and "with seed 1" in explorer.text
    assert "cat" in explorer._picture.value and "polite" in explorer._sentence.value
    explorer.image.value, explorer.seed.value = 0, 0
    assert explorer._picture.value == first, "the same choice draws the same picture"


def test_the_sentence_names_what_was_drawn(explorer: AugmentationExplorer) -> None:
    assert explorer.text.count("° to the ") >= DRAWS - 2
    explorer.kind.value = "CutMix"
    assert re.search(r"\d+% \w+ \+ \d+% \w+", explorer.text)


def test_changing_the_kind_draws_once(explorer: AugmentationExplorer, monkeypatch: pytest.MonkeyPatch) -> None:
    drawings = []
    draw = explorer._draw
    monkeypatch.setattr(explorer, "_draw", lambda: drawings.append(1) or draw())
    explorer.kind.value = "MixUp"
    assert len(drawings) <= 2


@pytest.mark.parametrize("kind", ["RandAugment", "CutMix", "recipe: gpu", "recipe: seed"])
def test_an_update_is_quick(kind: str, explorer: AugmentationExplorer) -> None:
    explorer.kind.value = kind
    taken = []
    for seed in range(1, 8):
        started = time.process_time()  # of this process: others may be busy
        explorer.seed.value = seed
        taken.append(time.process_time() - started)
    assert sorted(taken)[3] < LONGEST


def test_the_picture_has_the_image_and_its_draws(explorer: AugmentationExplorer) -> None:
    assert explorer._picture.value.count("<image") == DRAWS + 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"images": torch.zeros(2, 3, 8, 8)}, "give torch.uint8"),
        ({"names": ["one"]}, "give one each"),
        ({"start": "zoom"}, "no augmentation 'zoom'"),
    ],
    ids=["float images", "too few names", "unknown start"],
)
def test_what_does_not_fit_is_said(change: dict, sentence: str, images: Tensor) -> None:
    with pytest.raises(ValueError, match=sentence):
        AugmentationExplorer(**({"images": images, "names": ["a", "b", "c", "d", "e"]} | change))


# The figures.


def test_draw_augmented_says_what_would_do(images: Tensor) -> None:
    with pytest.raises(ValueError, match="use one of colour jitter"):
        drawn_with("zoom", images, 1)
    with pytest.raises(ValueError, match="use 0 \\(off\\) to 180"):
        drawn_with("rotation", images, 200)


def test_table_describes_itself(images: Tensor) -> None:
    picture = pictures.plot_image_table({"one": images, "two": images}, list("abcde"), title="Two rows")
    assert picture.alt == "Two rows: 2 rows of 5 images; rows: one, two; columns: a, b, c, d, e."
    assert pictures.plot_image_table({"": images, " ": images}).alt == "2 rows of 5 images."
    riddle = pictures.plot_riddle(images, list("abcde"))
    assert riddle.alt == "Which augmentation is which?: 2 rows of 6 images; rows: a, b; columns: A, B, C, D, E, F."


def test_mixed_costs_and_turning_name_their_numbers(images: Tensor) -> None:
    targets = torch.tensor([[0.25, 0.75, 0, 0, 0]])
    assert "75% b + 25% a" in pictures.plot_mixed(images[:1], targets, "abcde", own=[0], title="Mixed").alt
    costs = pictures.plot_costs({"flip": [1e-6, 3e-6, 2e-6], "training step": [1e-3]}, images=1, title="Costs")
    assert costs.alt == "Costs, in microseconds per image, medians: flip 2, training step 1,000."
    turning = pictures.plot_turning(images[:2], [0, 90, 180], {"a 6": [0.9, 0.1, 0.0]}, "mean of two")
    assert "(mean of two) as a 6: 90% at first and 0% at last" in turning.alt
    assert "−2.12" in pictures.plot_histograms(torch.zeros_like(images), augment.normalize(images * 0)).alt
