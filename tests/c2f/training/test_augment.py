"""Augmentation: the same as torchvision for given parameters, and parameters of its own for each image."""

import math
import re
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import RandAugment
from torchvision.transforms.v2 import functional as V

from c2f.training import augment as A
from c2f.training.recipes import RECIPES, Recipe

COLOR = {"brightness": A.BRIGHTNESS, "contrast": A.CONTRAST, "saturation": A.SATURATION}
EVERYTHING = {
    "color_jitter": 0.4,
    "image_mixup": 0.5,
    "crop": "resized",
    "erasing": 0.5,
    "flip": 0.5,
    "rotation": 20.0,
    "rand_augment": 9,
    "mixup": 0.8,
    "cutmix": 1.0,
}
# Of each random operation: a strength at which (nearly) every image changes, and the one at which none does.
STRENGTHS = {
    "color_jitter": (0.5, 0.0),
    "image_mixup": (1.0, 0.0),
    "random_resized_crop": (0.3, 1.0),
    "random_shift": (4, 0),
    "random_erasing": (1.0, 0.0),
    "random_flip": (0.5, 0.0),
    "random_rotation": (45.0, 0.0),
    "rand_augment": (9, None),
    "mixup": (1.0, None),
    "cutmix": (1.0, None),
}


def applied(name: str, images: torch.Tensor, strength: float | None = None) -> torch.Tensor:
    operation, strength = getattr(A, name), STRENGTHS[name][0] if strength is None else strength
    if name in ("mixup", "cutmix"):
        return operation(images, torch.eye(len(images)), strength)[0]
    return operation(images, strength)


def pictures(n: int = 8, height: int = 32, width: int = 24) -> torch.Tensor:
    """Random uint8 images, smooth enough that neighbouring pixels resemble each other."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(n, 3, 8, 8, generator=generator)
    smooth = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    return (smooth.clamp(0, 1) * 255).round().to(torch.uint8)


def unit(*args) -> torch.Tensor:
    return pictures(*args).float() / 255


def same(n: int, number: float) -> torch.Tensor:
    return torch.full((n,), number)


def augmented(images: torch.Tensor, labels: torch.Tensor | None = None, seed: int = 0, classes: int = 10, **fields):
    augment = A.Augment(Recipe(epochs=1, **fields), tuple(images.shape[-2:]), classes)
    torch.manual_seed(seed)
    return augment(images, torch.arange(len(images)) % classes if labels is None else labels)


# Normalisation.


def test_normalize_is_torchvisions_and_denormalize_undoes_it():
    images = pictures()
    x = A.normalize(images)
    expected = V.normalize(images.float() / 255, list(A.IMAGENET_MEAN), list(A.IMAGENET_STD))
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-6)
    assert x.dtype == torch.float32
    torch.testing.assert_close(A.denormalize(x), images / 255, rtol=0, atol=1e-6)
    torch.testing.assert_close(A.denormalize(x[0]), images[0] / 255, rtol=0, atol=1e-6)


def test_everything_off_is_normalisation_to_the_bit():
    images, labels = pictures(), torch.arange(8)
    x, targets = augmented(images, labels)
    assert torch.equal(x, A.normalize(images))
    assert targets is labels


# What holds for every operation.


@pytest.mark.parametrize("name", STRENGTHS)
@pytest.mark.parametrize("shape", [(8, 32, 24), (1, 9, 40)], ids=str)
def test_keeps_shape_type_and_range(name, shape):
    images = unit(*shape)
    before = images.clone()
    torch.manual_seed(0)
    out = applied(name, images)
    assert out.shape == images.shape
    assert out.dtype == torch.float32
    assert out.min() >= 0
    assert out.max() <= 1 + 1e-6
    assert torch.equal(images, before), "the batch that came in was written to"


@pytest.mark.parametrize("name", STRENGTHS)
def test_draws_parameters_for_each_image(name):
    images = unit(32)
    pair = images[:1].expand(16, -1, -1, -1)  # one image sixteen times, among others to mix with
    torch.manual_seed(0)
    out = applied(name, torch.cat([pair, images[16:]]))[:16]
    different = len(torch.unique(out.flatten(1), dim=0))
    assert different >= 2 if name == "random_flip" else different >= 8


@pytest.mark.parametrize("name", STRENGTHS)
def test_the_seed_decides_every_bit(name):
    def run(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return applied(name, unit(32))

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))


@pytest.mark.parametrize("name", [name for name, (_, none) in STRENGTHS.items() if none is not None])
def test_strength_zero_changes_nothing(name):
    images = unit()
    torch.testing.assert_close(applied(name, images, STRENGTHS[name][1]), images, rtol=0, atol=2e-6)


def test_grey_images_stay_grey():
    grey = unit(64)[:, :1].expand(-1, 3, -1, -1)
    for out in (A.color_jitter(grey, 0.4), A.rand_augment(grey, 9), A.random_rotation(grey, 30)):
        torch.testing.assert_close(out, out[:, :1].expand(-1, 3, -1, -1), rtol=0, atol=1e-6)


# Given parameters, torchvision's result.


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 1.7])
@pytest.mark.parametrize("name", COLOR)
def test_color_agrees_with_torchvision(name, factor):
    images = unit()
    out = A.adjust_color(images, torch.full((8,), COLOR[name]), same(8, factor))
    torch.testing.assert_close(out, getattr(V, f"adjust_{name}")(images, factor), rtol=0, atol=1e-6)


def test_color_jitter_uses_each_factor_once_in_any_order():
    images = unit(600, 4, 4).mul(0.2).add(0.4)  # mid-tones: nothing is cut off, so the order does not show
    torch.manual_seed(3)
    out = A.color_jitter(images, 0.2)
    torch.manual_seed(3)
    brightness, contrast, saturation = A.uniform(images, 0.8, 1.2, sets=3)
    orders = A.uniform(images, sets=3).argsort(dim=0)
    expected = images
    for which, factors in ((0, brightness), (1, contrast), (2, saturation)):
        expected = A.adjust_color(expected, torch.full((600,), which), factors)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)
    assert len(torch.unique(orders, dim=1).T) == 6
    for factors in (brightness, contrast, saturation):
        assert 0.8 <= factors.min() < 0.82
        assert 1.18 < factors.max() <= 1.2


@pytest.mark.parametrize("degrees", [-20.0, 0.0, 7.5, 90.0, 180.0])
def test_rotation_agrees_with_torchvision(degrees):
    images = unit()
    nearest = A.rotate(images, same(8, degrees))
    different = nearest != V.rotate(images, degrees)
    assert different.float().mean() < 0.01  # a pixel half way between two may go either way
    bilinear = A.rotate(images, same(8, degrees), mode="bilinear")
    expected = V.rotate(images, degrees, InterpolationMode.BILINEAR)
    torch.testing.assert_close(bilinear, expected, rtol=0, atol=1e-5)


def test_rotation_stays_within_its_degrees():
    images = unit(1000, 4, 4)
    torch.manual_seed(0)
    angles = A.uniform(images, -20, 20)
    assert -20 <= angles.min() < -19
    assert 19 < angles.max() <= 20


def test_shift_is_a_reflected_pad_and_a_crop():
    images = unit(25)
    down, right = (torch.arange(-2, 3).repeat_interleave(5), torch.arange(-2, 3).repeat(5))
    out = A.shift(images, down, right, padding=2)
    for image, y, x, moved in zip(images, down.tolist(), right.tolist(), out, strict=True):
        padded = V.pad(image, [2, 2, 2, 2], padding_mode="reflect")
        assert torch.equal(moved, V.crop(padded, 2 - y, 2 - x, 32, 24))
    assert torch.equal(out[-1][:, 2:, 2:], images[-1][:, :-2, :-2])  # down and right are what they say


def test_random_shift_reaches_every_offset():
    positions = torch.arange(32 * 24).view(1, 1, 32, 24).expand(400, 3, -1, -1).float()
    torch.manual_seed(0)
    centres = A.random_shift(positions, 2)[:, 0, 16, 12]
    expected = {float((16 - y) * 24 + 12 - x) for y in range(-2, 3) for x in range(-2, 3)}
    assert set(centres.tolist()) == expected


def test_flip_mirrors_about_the_share_it_is_told():
    images = unit(400, 4, 6)
    torch.manual_seed(0)
    out = A.random_flip(images, 0.25)
    flipped = (out == V.horizontal_flip(images)).flatten(1).all(1)
    kept = (out == images).flatten(1).all(1)
    assert bool((flipped | kept).all())
    assert 0.18 < flipped.float().mean() < 0.32
    assert torch.equal(A.random_flip(images, 1.0), V.horizontal_flip(images))


def test_resized_crop_agrees_with_torchvision():
    images = unit(32)
    torch.manual_seed(0)
    boxes = A.random_boxes(images, (0.2, 1.0), (3 / 4, 4 / 3))
    out = A.resize_boxes(images, boxes)
    for image, cropped, *box in zip(images, out, *boxes, strict=True):
        expected = V.resized_crop(image, *(int(side) for side in box), [32, 24])
        torch.testing.assert_close(cropped, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (16, 48)])
def test_boxes_have_the_area_and_shape_they_were_asked_for(size):
    height, width = size
    torch.manual_seed(0)
    boxes = A.random_boxes(unit(2000, *size), area=(0.6, 1.0), ratio=(3 / 4, 4 / 3))
    for start, length, whole in ((boxes.top, boxes.height, height), (boxes.left, boxes.width, width)):
        assert torch.equal(start, start.round())
        assert torch.equal(length, length.round())
        assert bool((start >= 0).all())
        assert bool((start + length <= whole).all())
        assert bool((start == 0).any())
        assert bool((start + length == whole).any())
    area = boxes.height * boxes.width / (height * width)
    ratio = (boxes.width / width) / (boxes.height / height)
    rounding = 0.6 / height + 0.6 / width
    assert 0.6 - rounding < area.min() < 0.63
    assert area.max() > 0.95
    assert 3 / 4 - rounding < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 4 / 3 + 2 * rounding


def test_a_crop_that_never_fits_keeps_the_whole_image():
    images = unit(64, 8, 8)
    boxes = A.random_boxes(images, area=(1.0, 1.0), ratio=(2.0, 3.0))
    assert not boxes.height.any()
    assert not boxes.mask(8, 8).any()
    torch.testing.assert_close(A.random_resized_crop(images, 1.0), images, rtol=0, atol=1e-6)


def test_erasing_paints_one_black_rectangle_of_the_published_size():
    white = torch.ones(2000, 3, 32, 32)
    torch.manual_seed(0)
    erased = A.random_erasing(white, 0.5) == 0
    assert torch.equal(erased[:, :1].expand(-1, 3, -1, -1), erased)
    black = erased[:, 0]
    area = black.float().mean((1, 2))
    hit = area > 0
    assert 0.46 < hit.float().mean() < 0.54
    assert 0.012 < area[hit].min() < 0.03
    assert 0.3 < area[hit].max() < 0.35
    assert abs(area[hit].mean() - (0.02 + 0.33) / 2) < 0.01
    rows, columns = black.any(2).sum(1), black.any(1).sum(1)
    assert torch.equal(rows * columns, black.sum((1, 2)))  # a rectangle, with no holes
    assert A.random_erasing(white, 1.0).amin((1, 2, 3)).eq(0).all()


# RandAugment.


@pytest.mark.parametrize("size", [(32, 24), (32, 32), (24, 40)])
def test_rand_augment_operations_are_torchvisions(size):
    """Each is what torchvision's own RandAugment makes of the images when it draws that operation and that sign."""
    images, theirs = unit(6, *size), RandAugment(num_ops=1, magnitude=9, num_magnitude_bins=11)
    space = {**theirs._AUGMENTATION_SPACE}
    assert tuple(re.sub(r"(?<=[a-z])(?=[XY])", "_", name).lower() for name in space) == A.RAND_AUGMENT
    for number, (name, drawn) in enumerate(space.items()):
        theirs._AUGMENTATION_SPACE = {name: drawn}
        expected = theirs(images)
        ours = [A.apply_operations(images, torch.full((6,), number), same(6, sign), 0.9) for sign in (1.0, -1.0)]
        assert any(torch.allclose(changed, expected, atol=2e-6) for changed in ours), name


def test_each_image_gets_its_own_operation_and_sign():
    images = unit(28)
    which, signs = torch.arange(14).repeat(2), same(28, 1.0)
    signs[14:] = -1
    together = A.apply_operations(images, which, signs, 0.9)
    for i in range(28):
        alone = A.apply_operations(images[i : i + 1], which[i : i + 1], signs[i : i + 1], 0.9)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-6)


def test_rand_augment_draws_two_operations_and_signs_for_each_image(monkeypatch):
    drawn = []
    monkeypatch.setattr(A, "apply_operations", lambda images, *rest: (drawn.append(rest), images)[1])
    torch.manual_seed(0)
    A.rand_augment(torch.zeros(1400, 3, 2, 2), 5)
    for which, signs, strength in drawn:
        assert strength == 0.5
        assert torch.bincount(which, minlength=14).sub(100).abs().max() < 40
        assert abs(signs.mean()) < 0.1
        assert signs.unique().tolist() == [-1, 1]
    assert not torch.equal(drawn[0][0], drawn[1][0])


def test_images_are_scaled_down_alike_where_there_is_no_antialiasing():
    class SaysMPS:
        def __init__(self, images):
            self.shape, self.device, self.images = images.shape, SimpleNamespace(type="mps"), images

        def __rmatmul__(self, rows):
            return rows @ self.images

    images, real_to = unit(), torch.Tensor.to
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "to", lambda x, *to: x if isinstance(to[0], SimpleNamespace) else real_to(x, *to))
        shrunk = A.shrink(SaysMPS(images), (24, 16))
    torch.testing.assert_close(shrunk, A.shrink(images, (24, 16)), rtol=0, atol=1e-6)


# Mixing.


def test_image_mixup_blends_images_and_leaves_labels_alone():
    images, labels = pictures(64), torch.arange(64) % 10
    x, targets = augmented(images, labels, image_mixup=1.0)
    assert torch.equal(targets, labels)
    assert not torch.equal(x, A.normalize(images))
    torch.manual_seed(0)
    levels = torch.linspace(0, 1, 64)[:, None, None, None].expand(-1, 3, 2, 2)
    changed = (A.image_mixup(levels, 0.5) - levels).abs().amax((1, 2, 3)) > 1e-6
    assert 0.3 < changed.float().mean() < 0.65


def soft(n: int) -> torch.Tensor:
    return torch.eye(n)


def coded(n: int, height: int = 16, width: int = 12) -> torch.Tensor:
    """Image i is 1 in channel i and 0 in the others, so that a mixture tells whose each pixel is."""
    return torch.eye(n)[:, :, None, None].expand(n, n, height, width).contiguous()


@pytest.mark.parametrize("method", [A.mixup, A.cutmix, lambda x, y, alpha: A.mixup_or_cutmix(x, y, alpha, alpha)])
def test_labels_have_the_mass_of_the_pixels(method):
    torch.manual_seed(0)
    mixed, targets = method(coded(40), soft(40), 1.0)
    assert targets.dtype == torch.float32
    torch.testing.assert_close(mixed.mean((2, 3)), targets, rtol=0, atol=1e-6)
    torch.testing.assert_close(targets.sum(1), torch.ones(40), rtol=0, atol=1e-6)
    assert ((targets > 0.01).sum(1) == 2).float().mean() > 0.8
    assert targets.diagonal().std() > 0.1  # a share for each image


def test_cutmix_pastes_one_rectangle_and_mixup_averages_all_pixels():
    torch.manual_seed(0)
    cut = A.cutmix_weights(torch.zeros(500, 3, 16, 12), 1.0)[:, 0]
    pasted = cut == 0
    assert bool((pasted | (cut == 1)).all())
    rows, columns = pasted.any(2).sum(1), pasted.any(1).sum(1)
    assert torch.equal(rows * columns, pasted.sum((1, 2)))
    assert 0.05 < pasted.float().mean() < 0.5
    blend = A.mixup_weights(torch.zeros(500, 3, 16, 12), 1.0)
    assert torch.equal(blend.amin((1, 2, 3)), blend.amax((1, 2, 3)))
    assert abs(blend.mean() - 0.5) < 0.05


def test_with_both_on_each_image_gets_one_of_the_two():
    torch.manual_seed(0)
    mixed, _ = A.mixup_or_cutmix(coded(200), soft(200), 1.0, 1.0)
    whole = ((mixed == 0) | (mixed == 1)).flatten(1).all(1)  # CutMix leaves every pixel to one image
    assert 0.35 < whole.float().mean() < 0.65


@pytest.mark.parametrize("fields", [{"mixup": 0.2}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}], ids=str)
def test_augment_gives_soft_targets_that_the_loss_takes(fields):
    x, targets = augmented(pictures(16), classes=7, **fields)
    assert x.shape == (16, 3, 32, 24)
    assert targets.shape == (16, 7)
    torch.testing.assert_close(targets.sum(1), torch.ones(16), rtol=0, atol=1e-6)
    loss = torch.nn.CrossEntropyLoss(label_smoothing=0.1)(torch.zeros(16, 7), targets)
    assert float(loss) == pytest.approx(math.log(7), abs=1e-5)


def test_a_batch_of_one_is_mixed_with_itself():
    images = pictures(1)
    x, targets = augmented(images, torch.tensor([3]), image_mixup=1.0, mixup=1.0, cutmix=1.0)
    torch.testing.assert_close(x, A.normalize(images), rtol=0, atol=1e-5)
    torch.testing.assert_close(targets, F.one_hot(torch.tensor([3]), 10).float(), rtol=0, atol=1e-6)


# Augment as a whole.


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("shape", [(8, 32, 32), (1, 24, 40)], ids=str)
def test_every_recipe_runs(name, shape):
    images = pictures(*shape)
    x, targets = A.Augment(RECIPES[name](), shape[1:], 10)(images, torch.zeros(shape[0], dtype=torch.int64))
    assert x.shape == images.shape
    assert x.dtype == torch.float32
    assert bool(x.isfinite().all())
    assert len(targets) == shape[0]


@pytest.mark.parametrize("crop", ["resized", "shift"])
def test_augment_is_a_function_of_images_labels_and_seed(crop):
    images, fields = pictures(16), EVERYTHING | {"crop": crop}
    (x, targets), (x_again, targets_again) = (augmented(images, **fields) for _ in range(2))
    assert torch.equal(x, x_again)
    assert torch.equal(targets, targets_again)
    assert not torch.equal(x, augmented(images, seed=1, **fields)[0])
    assert not x.requires_grad


def test_augment_calls_the_operations_in_the_published_order(monkeypatch):
    called = []

    def note(name):
        def operation(images, *args):
            called.append(name)
            return images

        return operation

    names = ["color_jitter", "image_mixup", "random_resized_crop", "random_erasing", "random_flip", "random_rotation"]
    for name in names:
        monkeypatch.setattr(A, name, note(name))
    augmented(pictures(), color_jitter=0.2, image_mixup=0.5, crop="resized", erasing=0.5, flip=0.5, rotation=20.0)
    assert called == names


@pytest.mark.parametrize("crop", ["resized", "shift"])
def test_augment_stays_on_the_device_and_never_waits_for_it(crop, monkeypatch):
    # A fake tensor has a device and a shape but no values: mixing devices, or asking for a value, is an error.
    monkeypatch.setattr(A, "beta", lambda images, alpha: A.uniform(images))  # PyTorch has no fake Beta distribution
    recipe = Recipe(epochs=1, **EVERYTHING | {"crop": crop})
    with FakeTensorMode():
        images = torch.empty(16, 3, 32, 24, dtype=torch.uint8, device="cuda")
        x, targets = A.Augment(recipe, (32, 24), 10)(images, torch.zeros(16, dtype=torch.int64, device="cuda"))
    assert (x.device.type, x.shape, x.dtype) == ("cuda", (16, 3, 32, 24), torch.float32)
    assert (targets.device.type, targets.shape) == ("cuda", (16, 10))


def test_augment_takes_any_object_with_the_fields():
    off = dict.fromkeys(("color_jitter", "image_mixup", "erasing", "rotation", "rand_augment", "mixup", "cutmix"), 0)
    recipe = SimpleNamespace(**off, crop="none", flip=1.0)
    images = pictures()
    x, _ = A.Augment(recipe, (32, 24), 10)(images, torch.arange(8))
    assert torch.equal(x, A.normalize(images.flip(-1)))


def test_misuse_is_told_what_would_do():
    with pytest.raises(ValueError, match=r"crop_padding is 8.*up to 7"):
        A.Augment(Recipe(epochs=1, crop="shift", crop_padding=8), (8, 16), 10)
    augment = A.Augment(Recipe(epochs=1), (32, 24), 10)
    for wrong in (pictures().float(), pictures(8, 32, 32), pictures()[0]):
        with pytest.raises(ValueError, match=r"torch\.uint8, shape \(N, 3, 32, 24\)"):
            augment(wrong, torch.arange(8))
