"""Folders of images as people have them: many sizes and modes, stray files, damaged ones, missing halves."""

import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from c2f.training.data import DataError, available, load_dataset
from c2f.training.sources import dataset, image_folder

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def picture(seed: int, size: tuple[int, int] = (32, 32)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes, three images each to learn from and one to test."""
    seed = 0
    for split, count in (("train", 3), ("test", 1)):
        for name in ("dog", "cat"):
            place = tmp_path / "pets" / split / name
            place.mkdir(parents=True)
            for i in range(count):
                picture(seed).save(place / f"{i}.png")
                seed += 1
    return tmp_path / "pets"


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def load(folder, root):
    return lambda: load_dataset(folder, root=root, progress=False)


def refuse(sentence: str, load) -> None:
    with pytest.raises(DataError, match=sentence) as error:
        load()
    assert "\n" not in str(error.value)


def decoded(image: Image.Image, tmp_path: Path, name: str = "image.png", size: int = 32, **options) -> np.ndarray:
    image.save(tmp_path / name, **options)
    return image_folder._decode(str(tmp_path / name), size)[0]


def test_images_labels_and_names(load):
    dataset = load()
    assert dataset.name == "pets"
    assert dataset.classes == ("cat", "dog")
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.test.labels.tolist() == [0, 1]
    assert dataset.train.images.is_contiguous()
    # the fixture drew dogs first; an image that has the size keeps every bit
    for split, seeds in ((dataset.train, (3, 4, 5, 0, 1, 2)), (dataset.test, (7, 6))):
        expected = np.stack([np.asarray(picture(seed)).transpose(2, 0, 1) for seed in seeds])
        assert np.array_equal(split.images.numpy(), expected)


def test_provenance_is_the_same_for_a_copy_elsewhere(load, folder, root, tmp_path):
    copy = tmp_path / "elsewhere" / "pets"
    shutil.copytree(folder, copy)
    mine, theirs = load(), load_dataset(copy, root=root, progress=False)
    assert mine.provenance == theirs.provenance
    assert (mine.provenance["train"], mine.provenance["test"]) == (6, 2)
    assert str(tmp_path) not in str(mine.provenance)
    assert len(list((root / "cache").glob("pets-*.safetensors"))) == 2


def test_by_its_name_in_the_data_folder(folder, tmp_path):
    assert load_dataset("pets", root=tmp_path, progress=False).name == "pets"
    row = available(tmp_path)[-1]
    assert (row.name, row.present, row.images) == ("pets", True, 8)


def test_progress_is_shown_when_asked_for(folder, root, capsys):
    load_dataset(folder, root=root)
    assert "decoding pets" in capsys.readouterr().err
    load_dataset(folder, root=root)
    assert capsys.readouterr().err == ""


# --- all kinds of images ----------------------------------------------------------------------------------------------


def test_the_short_side_is_fitted_and_the_centre_kept(tmp_path):
    wide = Image.new("RGB", (96, 32), RED)
    wide.paste(GREEN, (32, 0, 64, 32))
    for image in (wide, wide.rotate(90, expand=True), wide.resize((300, 100), Image.Resampling.NEAREST)):
        centre = decoded(image, tmp_path)[:, 4:28, 4:28].reshape(3, -1)
        assert (centre == np.array(GREEN)[:, None]).all()


def test_small_images_are_enlarged(tmp_path):
    assert decoded(Image.new("RGB", (3, 2), BLUE), tmp_path)[2].tolist() == [[255] * 32] * 32


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_grey_becomes_three_equal_channels(tmp_path, mode):
    assert decoded(Image.new("L", (40, 40), 255).convert(mode), tmp_path)[:, 16, 16].tolist() == [255, 255, 255]


@pytest.mark.parametrize(("mode", "name"), [("P", "a.png"), ("RGBA", "a.png"), ("CMYK", "a.tif"), ("YCbCr", "a.tif")])
def test_colour_of_every_kind(tmp_path, mode, name):
    pixel = decoded(Image.new("RGB", (40, 40), RED).convert(mode), tmp_path, name)[:, 16, 16]
    np.testing.assert_allclose(pixel, RED, atol=3)


def test_sixteen_bits_are_scaled(tmp_path):
    grey = Image.fromarray(np.full((32, 32), 128 * 256, np.uint16))
    assert np.unique(decoded(grey, tmp_path)).tolist() == [128]


def test_transparency_is_in_front_of_white(tmp_path):
    hidden = Image.new("RGBA", (32, 32), (*RED, 0))
    half = Image.new("RGBA", (32, 32), (*BLUE, 128))
    palette = Image.new("P", (32, 32), 0)
    palette.putpalette([*GREEN, *RED])
    assert decoded(hidden, tmp_path)[:, 0, 0].tolist() == [255, 255, 255]
    assert decoded(half, tmp_path)[:, 0, 0].tolist() == [127, 127, 255]
    assert decoded(palette, tmp_path, transparency=0)[:, 0, 0].tolist() == [255, 255, 255]
    assert decoded(palette, tmp_path, transparency=1)[:, 0, 0].tolist() == list(GREEN)


def test_a_photograph_on_its_side_is_turned_upright(tmp_path):
    image = Image.new("RGB", (64, 64), RED)
    image.paste(BLUE, (0, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # what a telephone writes: turn me a quarter clockwise
    turned = decoded(image, tmp_path, "image.jpg", exif=exif, quality=95)
    assert turned[2, 16, 24] > 200 and turned[0, 16, 8] > 200


def test_a_moving_picture_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (32, 32), colour) for colour in (GREEN, RED)]
    first = decoded(frames[0], tmp_path, "image.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(first[:, 0, 0], GREEN, atol=2)


def test_a_large_jpeg_is_close_to_its_slow_self(tmp_path):
    smooth = picture(0, (16, 12)).resize((1600, 1200), Image.Resampling.BICUBIC)
    quick = decoded(smooth, tmp_path, "image.jpg", quality=95)
    slow = np.asarray(image_folder.fit(smooth, 32)).transpose(2, 0, 1)
    assert np.abs(quick.astype(int) - slow).mean() < 3


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]),
    size=st.sampled_from([1, 7, 32]),
)
def test_any_size_and_mode_gives_the_asked_for_shape(tmp_path, width, height, mode, size):
    image = decoded(Image.new(mode, (width, height)), tmp_path, size=size)
    assert image.shape == (3, size, size)
    assert image.dtype == np.uint8


# --- what is not an image ---------------------------------------------------------------------------------------------


def test_every_file_is_used_or_counted_and_nothing_but_files_is_opened(folder, root, capsys):
    cat = folder / "train" / "cat"
    (cat / "notes.txt").write_text("a cat")
    (cat / "Thumbs.db").write_bytes(b"x")
    (cat / "._0.png").write_bytes(b"what a Mac leaves behind")
    (cat / ".ipynb_checkpoints").mkdir()
    shutil.copy(cat / "0.png", cat / ".ipynb_checkpoints" / "0.png")
    (folder / "train" / ".cache").mkdir()
    (folder / "README.md").write_text("pets")
    (folder / "val").mkdir()
    (cat / "photo.HEIC").write_bytes(b"x")
    (cat / "linked.png").symlink_to(cat / "0.png")  # used
    picture(5).save(cat / "from_a_browser.jfif", format="jpeg")  # used
    picture(5).save(folder / "train" / "stray.png")
    (cat / "gone.png").symlink_to(folder / "nowhere.png")
    (cat / "itself.png").symlink_to(cat / "itself.png")
    (folder / "train" / "parent").symlink_to(folder)
    os.mkfifo(cat / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        place = os.getcwd()
        os.chdir(cat)  # the path of a socket has 107 bytes at most
        listening.bind("socket.png")
        os.chdir(place)
        assert len(load_dataset(folder, root=root).train) == 8
    said = " ".join(capsys.readouterr().out.split())
    assert "pets: 14 entries were left out: 2 beside train/ (README.md, val), 3 hidden (train/.cache, " in said
    for part in (
        "1 as a link to a folder (train/parent)", "1 directly in train/ (train/stray.png)",
        "3 of a kind that is not read (.db, .heic, .txt)", "2 as a link that leads to no file",
        "2 as a pipe, socket or device (train/cat/pipe.png, train/cat/socket.png)",
    ):  # fmt: skip
        assert part in said, said


@pytest.mark.parametrize(("train", "test"), [("Train", "VAL"), ("train", "valid"), ("TRAIN", "Validation")])
def test_the_splits_may_have_other_names(load, folder, train, test):
    expected = load().provenance
    (folder / "train").rename(folder / train)
    (folder / "test").rename(folder / test)
    assert load().provenance == expected
    assert [place.name for place in image_folder.find_all(folder.parent)] == ["pets"]


@pytest.mark.parametrize("below", ["", "train"])
def test_a_share_of_each_class_is_kept_for_testing(folder, root, below):
    for name in ("cat", "dog"):
        picture(50).save(folder / "train" / name / "9.png")
    shutil.rmtree(folder / "test")
    place = folder if below else folder / "train"
    refuse("or divide the images that are here with --split 0.2", lambda: load_dataset(place, root=root))
    refuse("use a share between 0 and 1", lambda: load_dataset(place, root=root, split=1.5))
    data = load_dataset(place, root=root, progress=False, split=0.25)
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 0, 0, 1, 1, 1], [0, 1])
    assert data.provenance["split"] == 0.25
    assert np.array_equal(data.test.images[0].numpy(), np.asarray(picture(50)).transpose(2, 0, 1))
    assert load_dataset(place, root=root, progress=False, split=0.5).provenance["test"] == 4
    for i in ("1", "2", "9"):
        (folder / "train" / "dog" / f"{i}.png").unlink()
    refuse("dog holds one image, which cannot be divided", lambda: load_dataset(place, root=root, split=0.5))


def test_a_share_is_refused_where_there_are_test_images(folder, root):
    refuse("pets has test/ for testing: leave --split out", lambda: load_dataset(folder, root=root, split=0.2))
    refuse("digits has test images of its own", lambda: load_dataset("digits", split=0.2))


def test_grey_images_have_one_channel(folder, root):
    grey = load_dataset(folder, root=root, channels=1, progress=False)
    assert grey.train.images.shape == (6, 1, 32, 32)
    assert grey.provenance["channels"] == 1
    assert np.array_equal(grey.train.images[0, 0].numpy(), np.asarray(picture(3).convert("L")))
    refuse("use 3 for colour or 1 for grey", lambda: load_dataset(folder, root=root, channels=4))


def test_one_class_is_said_to_say_nothing(folder, root, capsys):
    for split in ("train", "test"):
        shutil.rmtree(folder / split / "dog")
    load_dataset(folder, root=root)
    assert "has one class, cat: every answer is right, so its accuracy says nothing" in capsys.readouterr().out


@pytest.mark.skipif(os.name != "posix", reason="names of bytes are POSIX's")
def test_names_that_are_not_utf_8(folder, root, load):
    cat = os.fsencode(folder / "train" / "cat")
    os.rename(os.path.join(cat, b"0.png"), os.path.join(cat, b"caf\xe9.png"))
    assert len(load().train) == 6
    names, _ = image_folder.load_images([folder / "train" / "cat"], 8)
    assert names[-1].endswith("caf\\xe9.png")
    for split in ("train", "test"):
        parent = os.fsencode(folder / split)
        os.rename(os.path.join(parent, b"cat"), os.path.join(parent, b"ch\xe2t"))
    refuse(r"the name ch.xe2t is not UTF-8: rename", load)


def test_a_huge_image_is_refused_by_its_size(load, folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
    Image.new("L", (3000, 1000)).save(folder / "train" / "cat" / "huge.png")
    refuse("train/cat/huge.png of more than 2 million pixels", load)


def test_frames_that_are_not_used_are_said(load, folder, capsys):
    picture(1).save(folder / "train" / "cat" / "a.gif", save_all=True, append_images=[picture(2)])
    assert len(load().train) == 7
    assert "of 1 files with several frames the first one is used (train/cat/a.gif)" in capsys.readouterr().err


def test_folders_within_a_class_belong_to_it_and_endings_may_be_capitals(load, folder):
    deeper = folder / "train" / "cat" / "indoors"
    deeper.mkdir()
    picture(9).save(deeper / "a.PNG")
    assert load().train.labels.tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_damaged_files_are_named_together(load, folder):
    whole = (folder / "train" / "cat" / "0.png").read_bytes()
    (folder / "train" / "cat" / "1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "test" / "dog" / "0.png").write_bytes(b"")
    (folder / "train" / "dog" / "5.jpg").write_text("no image")
    (folder / "train" / "dog" / "6.tif").write_bytes(b"")
    Image.fromarray(np.ones((4, 4), np.float32)).save(folder / "train" / "dog" / "6.tif")
    named = "test/dog/0.png, train/cat/1.png, train/dog/5.jpg, train/dog/6.tif"
    refuse(f"4 of the 10 images in .*pets cannot be read .{named}.: replace them, or move them away", load)


def test_many_damaged_files_are_counted(load, folder):
    for i in range(20):
        (folder / "train" / "dog" / f"x{i:02}.png").write_bytes(b"")
    refuse("train/dog/x07.png and 12 more", load)


# --- a layout that does not fit ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_is_missing(load, folder, split):
    shutil.rmtree(folder / split)
    refuse(f"pets has no folder {split}/: an image folder holds train/<class>", load)


def test_no_classes(load, folder):
    for split in ("train", "test"):
        for c in ("cat", "dog"):
            (folder / split / c / "0.png").rename(folder / split / f"{c}.png")
            shutil.rmtree(folder / split / c)
    refuse("pets has no class folders in train/", load)


def test_classes_differ(load, folder):
    (folder / "test" / "dog").rename(folder / "test" / "wolf")
    refuse("different classes .train/dog, test/wolf has no counterpart.: give each class", load)


def test_an_empty_class(load, folder):
    (folder / "test" / "dog" / "0.png").rename(folder / "test" / "dog" / "0.heic")
    refuse("test/dog holds no image .a file that ends in .jpg", load)


def test_a_folder_that_may_not_be_read(load, folder, monkeypatch):
    def scandir(place):
        raise PermissionError(13, "Permission denied", str(place))

    monkeypatch.setattr(os, "scandir", scandir)
    refuse("cannot be listed .Permission denied.: make it readable", load)


# --- decoded once -----------------------------------------------------------------------------------------------------


@pytest.fixture
def decodings(monkeypatch) -> list[str]:
    """The files decoded from here on."""
    paths = []
    decode = image_folder._decode
    monkeypatch.setattr(image_folder, "_decode", lambda path, size: paths.append(path) or decode(path, size))
    return paths


def test_a_second_time_nothing_is_decoded(load, decodings):
    first = load()
    assert len(decodings) == 8
    second = load()
    assert len(decodings) == 8
    for split in ("train", "test"):
        assert torch.equal(getattr(first, split).images, getattr(second, split).images)
        assert torch.equal(getattr(first, split).labels, getattr(second, split).labels)
    assert (first.name, first.classes, first.provenance) == (second.name, second.classes, second.provenance)


def test_a_class_can_share_the_cache(load, root):
    load()
    (file,) = (root / "cache").glob("*.safetensors")
    assert file.stat().st_mode & 0o444 == 0o444


def test_a_reopened_image_can_be_drawn_on_without_harm_to_the_cache(load):
    load()
    load().train.images.zero_()
    assert load().train.images.any()


def changed(file: Path) -> None:
    picture(99).save(file)


def touched(file: Path) -> None:
    os.utime(file, ns=(0, 0))


def renamed(file: Path) -> None:
    file.rename(file.with_name("z.png"))


def added(file: Path) -> None:
    picture(98).save(file.with_name("new.png"))


def removed(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("change", [changed, touched, renamed, added, removed])
def test_a_change_is_seen(load, folder, root, decodings, change):
    before = load().provenance["sha256"]
    decodings.clear()
    change(folder / "train" / "dog" / "1.png")
    after = load().provenance["sha256"]
    assert decodings
    assert (before == after) == (change is touched)
    assert len(list((root / "cache").glob("*.safetensors"))) == 1


def test_each_size_is_kept_by_itself(folder, root, decodings):
    for _ in range(2):
        for size in (8, 16):
            dataset = load_dataset(folder, root=root, image_size=size, progress=False)
            assert dataset.image_size == (size, size)
    assert len(decodings) == 16


@pytest.mark.parametrize("keep", [0, 7, 200, -1])
def test_a_damaged_cache_is_made_again(load, root, decodings, keep):
    whole = load()
    (file,) = (root / "cache").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:keep])
    decodings.clear()
    assert load().provenance == whole.provenance
    assert decodings
    decodings.clear()
    load()
    assert not decodings


def test_a_cache_of_an_older_format_is_made_again(load, decodings, monkeypatch):
    load()
    monkeypatch.setattr(dataset, "FORMAT", dataset.FORMAT + 1)
    load()
    assert len(decodings) == 16


def test_nothing_half_written_stays(load, root, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    assert len(load().train) == 6
    assert "No space left on device): it will be decoded again next time" in " ".join(capsys.readouterr().out.split())
    assert not [file for file in (root / "cache").iterdir() if file.stat().st_size]


@pytest.fixture
def read_only(monkeypatch):
    """From now on no file can be opened for writing, as on a disk that is read-only: neither the lock nor the data."""

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    def start():
        monkeypatch.setattr(dataset, "write_atomically", refuse)
        monkeypatch.setattr(dataset.FileLock, "acquire", refuse)

    return start


def test_what_was_decoded_in_a_folder_now_read_only_is_used(load, decodings, read_only):
    load()
    read_only()
    load()
    assert len(decodings) == 8


def test_where_nothing_can_be_kept_it_is_decoded_each_time_and_said(load, read_only, capsys):
    read_only()
    assert len(load().train) == 6
    assert "will be decoded again next time" in capsys.readouterr().out


def test_a_file_in_place_of_the_data_folder(folder, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert len(load_dataset(folder, root=tmp_path / "file", progress=False).train) == 6


def test_the_images_folder_itself_is_never_written(load, folder):
    before = sorted(folder.rglob("*"))
    load()
    assert sorted(folder.rglob("*")) == before
