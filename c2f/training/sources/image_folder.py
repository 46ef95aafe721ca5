"""A folder of your own images: train/<class>/* and test/<class>/*, any size, grey or colour."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm.auto import tqdm

from c2f.training.sources.cache import cached
from c2f.training.sources.dataset import DataError, Dataset, Split, describe

ENDINGS = (*IMG_EXTENSIONS, ".gif")
LAYOUT = "an image folder holds train/<class>/* and test/<class>/*"


class File(NamedTuple):
    """An image file as the file system knows it."""

    path: str
    size: int  # bytes
    mtime_ns: int


def load(folder: Path, root: Path, image_size: int, progress: bool) -> Dataset:
    """All images of `folder`, decoded once and kept in `root`; decoded again when a file came, went or changed."""
    name = folder.resolve().name
    classes = _classes(folder)
    train, test = ([_files_of(folder / split / c) for c in classes] for split in ("train", "test"))

    def decode() -> Dataset:
        images = _decode_all([*_flat(train), *_flat(test)], folder, image_size, progress)
        train_images, test_images = images.split([len(_flat(train)), len(_flat(test))])
        splits = Split(train_images, _labels(train)), Split(test_images, _labels(test))
        return describe(name, *splits, classes, f"image folder {name}")

    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]  # two folders may have one name
    return cached(root, f"{name}-{place}", _key(folder, train, test), image_size, decode)


def find_all(root: Path) -> list[Path]:
    """The image folders directly in `root`."""
    if not root.is_dir():
        return []
    return sorted(f for f in root.iterdir() if (f / "train").is_dir() and (f / "test").is_dir())


def walk(folder: str | Path) -> list[File]:
    """All images below `folder`, in an order that is the same everywhere; hidden files and folders are left out."""
    found = []
    with _listing(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            if entry.name.lower().endswith(ENDINGS):
                with suppress(FileNotFoundError):  # a link to nowhere
                    status = entry.stat()
                    found.append(File(entry.path, status.st_size, status.st_mtime_ns))
            elif entry.is_dir(follow_symlinks=False):  # a link could lead in a circle
                found += walk(entry.path)
    return found


def fit(image: Image.Image, image_size: int) -> Image.Image:
    """Resize the short side, then cut out the centre; an image that has the size already keeps its bits."""
    if image.size == (image_size, image_size):
        return image
    return ImageOps.fit(image, (image_size, image_size), Image.Resampling.BICUBIC)


def _flat(by_class: list[list[File]]) -> list[File]:
    return [file for of_class in by_class for file in of_class]


def _labels(by_class: list[list[File]]) -> Tensor:
    counts = torch.tensor([len(of_class) for of_class in by_class])
    return torch.arange(len(by_class)).repeat_interleave(counts)


def _key(folder: Path, train: list[list[File]], test: list[list[File]]) -> str:
    """Changes with any file's name, size or time of change, and when a file moves to another class or split."""
    start = len(str(folder))
    listing = [(file.path[start:], file.size, file.mtime_ns) for file in [*_flat(train), *_flat(test)]]
    return hashlib.sha256(repr(listing).encode()).hexdigest()


def _classes(folder: Path) -> tuple[str, ...]:
    """The class folders, the same ones in train/ and in test/."""
    for split in ("train", "test"):
        if not (folder / split).is_dir():
            raise DataError(f"{folder} has no folder {split}/: {LAYOUT}, so make it and put that split's images there")
    train, test = ({f.name for f in _visible(folder / split) if f.is_dir()} for split in ("train", "test"))
    if not train | test:
        raise DataError(f"{folder} has no class folders in train/: {LAYOUT}, so give each class its own folder")
    alone = [f"train/{c}" for c in sorted(train - test)] + [f"test/{c}" for c in sorted(test - train)]
    if alone:
        raise DataError(
            f"train/ and test/ of {folder} hold different classes ({_some(alone)} has no counterpart): give each class "
            "a folder of the same name in both"
        )
    return tuple(sorted(train))


def _visible(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]


def _files_of(class_folder: Path) -> list[File]:
    files = walk(class_folder)
    if not files:
        raise DataError(
            f"{class_folder} holds no image (a file that ends in {', '.join(ENDINGS)}): put some there, or delete the "
            "class from both train/ and test/"
        )
    return files


def _listing(folder: str | Path) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
    try:
        return os.scandir(folder)
    except OSError as error:
        raise DataError(f"{folder} cannot be listed ({error.strerror}): make it readable") from error


def _decode_all(files: Sequence[File], folder: Path, image_size: int, progress: bool) -> Tensor:
    """All images, (N, 3, image_size, image_size) uint8, on as many threads as there are cores."""
    images = np.empty((len(files), 3, image_size, image_size), np.uint8)
    broken: list[str] = []

    def decode(span: range) -> int:
        for i in span:
            try:
                images[i] = _decode(files[i].path, image_size)
            except Exception:  # what a decoder makes of a damaged file can be any exception
                broken.append(os.path.relpath(files[i].path, folder))
        return len(span)

    spans = [range(start, min(start + 64, len(files))) for start in range(0, len(files), 64)]
    bar = tqdm(total=len(files), desc=f"decoding {folder.name}", unit="image", disable=not progress)
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in pool.map(decode, spans):
            bar.update(done)
    if broken:
        raise DataError(
            f"{len(broken)} of the {len(files)} images in {folder} cannot be read ({_some(sorted(broken))}): replace "
            "or delete them and load again"
        )
    return torch.from_numpy(images)


def _some(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _decode(path: str, image_size: int) -> np.ndarray:
    """One image as (3, image_size, image_size) uint8: upright, in colour, in front of white."""
    with Image.open(path) as image:
        image.draft(None, (2 * image_size, 2 * image_size))  # a large JPEG is decoded at a fraction of its size
        ImageOps.exif_transpose(image, in_place=True)
        return np.asarray(fit(_to_rgb(image), image_size)).transpose(2, 0, 1)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # Pillow would cut 16 bits off at 255 instead of scaling them
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("32-bit pixels without a scale")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")
