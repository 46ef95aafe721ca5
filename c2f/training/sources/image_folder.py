"""A folder of your own images: train/<class>/* and test/<class>/*, any size, grey or colour."""

import hashlib
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm.contrib.concurrent import thread_map

from c2f.training.sources.dataset import DataError, Dataset, Split, cached, describe

ENDINGS = (*IMG_EXTENSIONS, ".gif")
LAYOUT = "an image folder holds train/<class>/* and test/<class>/*"


def load(folder: Path, root: Path, image_size: int, progress: bool) -> Dataset:
    """All images of `folder`, decoded once and kept in `root`; decoded again when a file came, went or changed."""
    name, classes = folder.resolve().name, _classes(folder)
    files: list[str] = []
    labels: dict[str, list[int]] = {"train": [], "test": []}
    for split, (label, class_name) in itertools.product(labels, enumerate(classes)):
        found = walk(folder / split / class_name)
        if not found:
            raise DataError(
                f"{folder / split / class_name} holds no image (a file that ends in {', '.join(ENDINGS)}): put some "
                f"there, or delete the class from both train/ and test/"
            )
        files += found
        labels[split] += [label] * len(found)

    def decode() -> Dataset:
        images = _decode_all(files, folder, image_size, progress).split([*map(len, labels.values())])
        splits = map(Split, images, map(torch.tensor, labels.values()))
        return describe(name, *splits, classes, f"image folder {name}")

    # The key changes with any file's name, size or time of change, and when a file moves to another class or split.
    stats = ((path, os.stat(path)) for path in files)
    listing = [(path[len(str(folder)) :], stat.st_size, stat.st_mtime_ns) for path, stat in stats]
    key = hashlib.sha256(repr(listing).encode()).hexdigest()
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]  # two folders may have one name
    return cached(root, f"{name}-{place}", key, image_size, decode)


def load_images(paths: Sequence[Path], image_size: int) -> tuple[list[str], Tensor]:
    """Files, and all images below folders, without labels: their paths, and uint8 (N, 3, image_size, image_size)."""
    files = [file for path in paths for file in (walk(path) if path.is_dir() else [str(path)])]
    if not files:
        raise DataError(f"{_some([*map(str, paths)]) or 'nothing'} holds no image: name files, or folders of images")
    if absent := [file for file in files if not os.path.isfile(file)]:
        raise DataError(f"there is no file {_some(absent)}: name files, or folders of images")
    return files, _decode_all(files, Path(), image_size, progress=False)


def find_all(root: Path) -> list[Path]:
    """The image folders directly in `root`."""
    return sorted(place.parent for place in root.glob("*/train") if place.is_dir() and (place.parent / "test").is_dir())


def walk(folder: Path) -> list[str]:
    """All images below `folder`, in an order that is the same everywhere; hidden files and folders are left out."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be listed ({error.strerror}): make it readable") from error

    found = []
    for place, folders, names in os.walk(folder, onerror=refuse):  # which follows no links: they may lead in a circle
        folders[:] = [name for name in folders if not name.startswith(".")]
        images = [name for name in names if name.lower().endswith(ENDINGS) and not name.startswith(".")]
        found += [path for name in images if os.path.isfile(path := os.path.join(place, name))]
    return sorted(found, key=lambda path: path.split(os.sep))


def fit(image: Image.Image, image_size: int) -> Image.Image:
    """Resize the short side, then cut out the centre; an image that has the size already keeps its bits."""
    if image.size == (image_size, image_size):
        return image
    return ImageOps.fit(image, (image_size, image_size), Image.Resampling.BICUBIC)


def _classes(folder: Path) -> tuple[str, ...]:
    """The class folders, the same ones in train/ and in test/."""
    classes: dict[str, set[str]] = {}
    for split in ("train", "test"):
        if not (folder / split).is_dir():
            raise DataError(f"{folder} has no folder {split}/: {LAYOUT}, so make it and put that split's images there")
        entries = (folder / split).iterdir()
        classes[split] = {entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")}
    train, test = classes.values()
    if not train | test:
        raise DataError(f"{folder} has no class folders in train/: {LAYOUT}, so give each class its own folder")
    if alone := [f"{split}/{name}" for split in classes for name in sorted(classes[split] & (train ^ test))]:
        raise DataError(
            f"train/ and test/ of {folder} hold different classes ({_some(alone)} has no counterpart): give each class "
            "a folder of the same name in both"
        )
    return tuple(sorted(train))


def _decode_all(files: Sequence[str], folder: Path, image_size: int, progress: bool) -> Tensor:
    """All images, (N, 3, image_size, image_size) uint8, on as many threads as there are cores."""
    images = np.empty((len(files), 3, image_size, image_size), np.uint8)

    def failed(i: int) -> bool:
        try:
            images[i] = _decode(files[i], image_size)
            return False
        except Exception:  # what a decoder makes of a damaged file can be any exception
            return True

    bar = {"desc": f"decoding {folder.name}", "unit": "image", "disable": not progress}
    fails = thread_map(failed, range(len(files)), max_workers=os.cpu_count(), **bar)
    if broken := sorted(os.path.relpath(files[i], folder) for i, fail in enumerate(fails) if fail):
        raise DataError(
            f"{len(broken)} of the {len(files)} images in {folder} cannot be read ({_some(broken)}): replace them, or "
            "move them away, and load again"
        )
    return torch.from_numpy(images)


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _decode(path: str, image_size: int) -> np.ndarray:
    """One image as (3, image_size, image_size) uint8: upright, in colour, in front of white."""
    with Image.open(path) as image:
        image.draft(None, (2 * image_size, 2 * image_size))  # a large JPEG is decoded at a fraction of its size
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I;16"):  # Pillow would cut 16 bits off at 255 instead of scaling them
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.mode in ("I", "F"):
            raise ValueError("32-bit pixels without a scale")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.asarray(fit(image.convert("RGB"), image_size)).transpose(2, 0, 1)
