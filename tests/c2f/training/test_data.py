"""The public side of data: names, places, the value that comes back; and the real CIFAR-10 images where they are."""

import json
import shutil
import time
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
import torch

from c2f import files
from c2f.files import data_folder
from c2f.training.data import Dataset, Split, available, describe, digest, load_dataset

REPOSITORY = Path(__file__).resolve().parents[3]
JPEG_COPY = REPOSITORY / "data" / "cifar10-jpeg"


def split(n: int = 4, size: int = 8, classes: int = 2) -> Split:
    return Split(torch.zeros(n, 3, size, size, dtype=torch.uint8), torch.arange(n) % classes)


def test_digits_are_the_default_and_real():
    digits = load_dataset()
    assert (digits.name, len(digits.train), len(digits.test)) == ("digits", 1442, 355)
    assert digits.classes == tuple("0123456789")
    assert digits.image_size == (32, 32)
    assert digits.train.images.dtype == torch.uint8 and digits.train.images.is_contiguous()
    assert digits.train.images.min() == 0 and digits.train.images.max() == 255
    red, green, blue = digits.train.images.unbind(1)
    assert torch.equal(red, green) and torch.equal(red, blue)


def test_digits_hold_out_a_fifth_of_every_class():
    digits = load_dataset("digits")
    learned, held_out = (split.labels.bincount() for split in (digits.train, digits.test))
    assert (held_out == (learned + held_out) // 5).all()
    apart = {image.numpy().tobytes() for image in digits.train.images}
    assert not any(image.numpy().tobytes() in apart for image in digits.test.images)


def test_digits_are_the_same_everywhere():
    expected = "bf7a4177286dbdbcf58348af371b7499cf21829e2ae9e3df2ac9c7e004fd992b"
    digits = load_dataset("digits")
    assert digits.provenance["sha256"] == expected == digest(digits.train, digits.test)


def test_digits_of_another_size():
    assert load_dataset("digits", image_size=8).train.images.shape == (1442, 3, 8, 8)


def test_provenance_survives_json():
    provenance = load_dataset("digits").provenance
    assert json.loads(json.dumps(provenance)) == provenance
    assert (provenance["train"], provenance["test"], provenance["image_size"]) == (1442, 355, [32, 32])


def test_an_unknown_name_is_answered_with_those_that_exist(tmp_path):
    for name in ("flowers/train", "flowers/test"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"'cifra10': use digits, cifar10, the path .*image folders in .*flowers") as e:
        load_dataset("cifra10", root=tmp_path)
    assert "\n" not in str(e.value)


def test_a_file_that_is_no_archive_is_no_data_set(tmp_path):
    (tmp_path / "cat.png").write_bytes(b"meow")
    with pytest.raises(ValueError, match=r"cat\.png is not"):
        load_dataset(tmp_path / "cat.png", root=tmp_path)


@pytest.mark.parametrize("size", [0, -1, 32.0, True, "32"])
def test_a_size_that_is_none(size):
    with pytest.raises(ValueError, match="whole number of pixels, such as 32"):
        load_dataset("digits", image_size=size)


def test_where_data_lives(monkeypatch, tmp_path):
    monkeypatch.delenv("C2F_DATA", raising=False)
    assert data_folder() == REPOSITORY / "data"
    monkeypatch.setattr(files, "__file__", str(tmp_path / "site-packages" / "c2f" / "files.py"))
    monkeypatch.chdir(tmp_path)
    assert data_folder() == tmp_path / "data"
    monkeypatch.setenv("C2F_DATA", str(tmp_path / "mine"))
    assert data_folder() == tmp_path / "mine"


def test_what_is_available_without_anything(tmp_path, monkeypatch):
    monkeypatch.setenv("C2F_DATA", str(tmp_path / "none"))
    digits, cifar10 = available()
    assert digits == ("digits", True, "inside scikit-learn", 1797)
    assert not cifar10.present and cifar10.name == "cifar10" and str(tmp_path) in cifar10.where
    assert not (tmp_path / "none").exists()


def test_a_data_set_of_your_own():
    mine = describe("mine", split(), split(2), ("a", "b"), "zeros")
    assert mine.provenance["train"] == 4
    assert mine.image_size == (8, 8)
    with pytest.raises(FrozenInstanceError):
        mine.name = "yours"


def test_the_digest_sees_pixels_and_labels():
    one, other = split(), split()
    assert digest(one, one) == digest(other, other)
    other.images[0, 0, 0, 0] = 1
    assert digest(one, one) != digest(one, other)
    assert digest(one, one) != digest(one, Split(one.images, 1 - one.labels))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Split(torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64)), "make them torch.uint8"),
        (lambda: Split(split().images[:, :2], split().labels), "make them torch.uint8"),
        (lambda: Split(split().images, split().labels[:1]), r"make them torch.int64 \(4,\)"),
        (lambda: Split(split().images, split().labels.int()), "make them torch.int64"),
        (lambda: Dataset("x", split(), split(), ("a",), {}), "labels do not fit 1 classes: use 0 to 0"),
        (lambda: Dataset("x", split(size=8), split(size=16), ("a", "b"), {}), "resize one of them"),
    ],
)
def test_a_data_set_that_does_not_fit_together(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


needs_jpegs = pytest.mark.skipif(
    not JPEG_COPY.is_dir(), reason=f"the JPEG copy of CIFAR-10 is not in {JPEG_COPY.relative_to(REPOSITORY)}"
)


@needs_jpegs
def test_some_real_images(tmp_path):
    for source in sorted(JPEG_COPY.glob("*/*")):
        place = tmp_path / "some" / source.relative_to(JPEG_COPY)
        place.mkdir(parents=True)
        for file in sorted(source.iterdir())[:20]:
            shutil.copy(file, place)
    some = load_dataset(tmp_path / "some", root=tmp_path, progress=False)
    assert some.train.images.shape == some.test.images.shape == (200, 3, 32, 32)
    assert some.classes[0] == "airplane"
    mean = some.train.images.float().mean((0, 2, 3)) / 255
    torch.testing.assert_close(mean, torch.tensor([0.4914, 0.4822, 0.4465]), atol=0.05, rtol=0)


@needs_jpegs
@pytest.mark.slow
def test_all_real_images_reopen_in_two_seconds():
    """Decoded into the repository's own cache, so that only the first run of this test takes its half minute.

    Reopening runs on one thread; its processor time is its time on a machine that does nothing else.
    """
    whole = load_dataset(JPEG_COPY, root=REPOSITORY / "data", progress=False)
    assert whole.train.labels.bincount().tolist() == [5000] * 10
    assert whole.test.labels.bincount().tolist() == [1000] * 10
    for _ in range(3):  # until it was not disturbed
        start = time.process_time()
        again = load_dataset(JPEG_COPY, root=REPOSITORY / "data", progress=False)
        if (seconds := time.process_time() - start) < 2:
            break
    assert seconds < 2
    assert again.provenance == whole.provenance
    assert digest(again.train, again.test) == again.provenance["sha256"]
