"""Images to learn from: handwritten digits, CIFAR-10, or a folder of your own.

    load_dataset("digits")            real images that need no network (scikit-learn's), 32x32
    load_dataset("cifar10")           from data/, else downloaded
    load_dataset("path/to/folder")    train/<class>/* and test/<class>/*, any size, grey or colour

Each gives one frozen `Dataset`: all images in memory as uint8 (N, 3, H, W), or grey (N, 1, H, W), labels, class
names, and where they came from. What is slow to decode is decoded once and kept in the data folder's cache/.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from c2f.files import data_folder
from c2f.training.sources import cifar10, image_folder
from c2f.training.sources.dataset import DataError, Dataset, Split, cache_file, describe, digest, to_grey

__all__ = ["Available", "DataError", "Dataset", "Split", "available", "describe", "digest", "load_dataset"]


def load_dataset(
    name_or_path: str | Path = "digits", *, root: Path | None = None, image_size: int = 32, progress: bool = True,
    split: float | None = None, channels: int = 3,
) -> Dataset:  # fmt: skip
    """Load a data set by its name or its place.

    `name_or_path`: "digits"; "cifar10"; an image folder, by its path or by its name in `root`; or your own copy of
    CIFAR-10's archive. `root`: where to look and to keep things; by default `data_folder()`. `image_size`: images are
    resized to this many pixels a side (short side first, then the centre). Memory: N x 3 x image_size^2 bytes.
    `split`: for an image folder without test/, the share of each class that is kept for testing, in the order of names.
    `channels`: 3, or 1 for grey. `progress`: a bar, and a sentence on the files that were left out.

    Raises DataError, a ValueError, in one sentence: an unknown name, a folder that is not laid out so, a file that
    cannot be read, no network where one is needed. Nothing falls back to another data set.
    """
    if isinstance(image_size, bool) or not isinstance(image_size, int) or image_size < 1:
        raise DataError(f"image_size is {image_size!r}: give a whole number of pixels, such as 32")
    if channels not in (1, 3):
        raise DataError(f"channels is {channels!r}: use 3 for colour or 1 for grey")
    found = _load(name_or_path, _root(root), image_size, progress, split)
    if channels == 3:
        return found
    train, test = (Split(to_grey(part.images), part.labels) for part in (found.train, found.test))
    asked = {"split": split} if split else {}
    grey = describe(found.name, train, test, found.classes, found.provenance["source"], **asked, channels=1)
    return replace(grey, path=found.path)


def _load(name_or_path: str | Path, root: Path, image_size: int, progress: bool, split: float | None) -> Dataset:
    path = Path(name_or_path).expanduser()
    if split is not None and name_or_path in ("digits", "cifar10"):
        raise DataError(f"{name_or_path} has test images of its own: leave --split out")
    if name_or_path == "digits":
        return _load_digits(image_size)
    if name_or_path == "cifar10":
        return cifar10.load(root, image_size, progress)
    path = next((place for place in (path, root / path) if place.exists()), None)
    if path is None:
        folders = ", ".join(folder.name for folder in image_folder.find_all(root)) or "none yet"
        raise DataError(
            f"no data set and no folder is called {str(name_or_path)!r}: use digits, cifar10, the path of a folder "
            f"with train/<class>/* and test/<class>/*, or one of the image folders in {root} ({folders})"
        )
    if copy := cifar10.find(path):
        found = cifar10.load(root, image_size, progress, copy)
    else:
        found = image_folder.load(path, root, image_size, progress, split)
    return replace(found, path=str(path.resolve()))


def load_data_of(trained_on: dict[str, Any], image_size: int, progress: bool = True) -> Dataset:
    """The images of a run, by what its recipe.json says of them, from any working directory.

    Raises DataError where they are no longer there, or are not the same any more.
    """
    place = trained_on.get("path") or trained_on["name"]
    if trained_on.get("path") and not Path(place).exists():
        raise DataError(f"the run's images were in {place}, where nothing is now: name their place with --data")
    asked = {key: trained_on[key] for key in ("split", "channels") if key in trained_on}
    data = load_dataset(place, image_size=image_size, progress=progress, **asked)
    if data.provenance["sha256"] != trained_on["sha256"]:
        raise DataError(
            f"the images in {place} are not those of the run any more (another digest): put them back, or name other "
            f"images with --data"
        )
    return data


class Available(NamedTuple):
    """A data set, and whether it can be loaded without a network."""

    name: str
    present: bool
    where: str
    images: int | None = None  # None where nobody can count them yet


def available(root: Path | None = None) -> list[Available]:
    """What `load_dataset` finds by name, without decoding anything."""
    root = _root(root)
    kept = cache_file(root, "cifar10", 32)
    cifar = Available("cifar10", False, f"downloaded to {root} when first asked for")
    if place := cifar10.find(root) or (kept if kept.is_file() else None):
        cifar = Available("cifar10", True, str(place), cifar10.COUNT)
    found = [Available("digits", True, "inside scikit-learn", 1797), cifar]
    for folder in image_folder.find_all(root):
        found.append(Available(folder.name, True, str(folder), image_folder.count(folder)))
    return found


def _root(root: Path | None) -> Path:
    return data_folder() if root is None else Path(root).expanduser()


def _load_digits(image_size: int) -> Dataset:
    """8x8 counts of ink from 0 to 16, here as grey images with three equal channels.

    Every fifth image of each class is a test image: no seed, the same share of every class, 1442 and 355 images.
    """
    from sklearn.datasets import load_digits  # a second of import that nobody else has to wait for

    bunch = load_digits()
    small = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    grey = np.stack([np.asarray(image_folder.fit(Image.fromarray(image), image_size)) for image in small])
    images = torch.from_numpy(grey)[:, None].repeat(1, 3, 1, 1)
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(10):
        is_test[torch.nonzero(labels == label).flatten()[4::5]] = True
    splits = (Split(images[chosen], labels[chosen]) for chosen in (~is_test, is_test))
    about = "scikit-learn load_digits (UCI, Optical Recognition of Handwritten Digits), test: every fifth of a class"
    return describe("digits", *splits, tuple("0123456789"), about)
