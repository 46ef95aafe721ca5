"""Images to learn from: handwritten digits, CIFAR-10, or a folder of your own.

    load_dataset("digits")            real images that need no network (scikit-learn's), 32x32
    load_dataset("cifar10")           from data/, else downloaded
    load_dataset("path/to/folder")    train/<class>/* and test/<class>/*, any size, grey or colour

Each gives one frozen `Dataset`: all images in memory as uint8 (N, 3, H, W), labels, class names, and where they
came from. What is slow to decode is decoded once and kept in the data folder's cache/. `sources/` reads each of them.
"""

import os
from pathlib import Path
from typing import NamedTuple

from c2f.files import data_folder
from c2f.training.sources import cache, cifar10, digits, image_folder
from c2f.training.sources.dataset import DataError, Dataset, Split, describe, digest

__all__ = ["Available", "DataError", "Dataset", "Split", "available", "describe", "digest", "load_dataset"]


def load_dataset(
    name_or_path: str | Path = "digits", *, root: Path | None = None, image_size: int = 32, progress: bool = True
) -> Dataset:
    """Load a data set by its name or its place.

    `name_or_path`: "digits"; "cifar10"; an image folder, by its path or by its name in `root`; or your own copy of
    CIFAR-10 (the archive, or what it unpacks to), which the environment variable C2F_CIFAR10 can name as well.
    `root`: where to look and to keep things; by default `data_folder()`. `image_size`: images are resized to
    this many pixels a side (short side first, then the centre). Memory: N x 3 x image_size^2 bytes.

    Raises DataError, a ValueError, in one sentence: an unknown name, a folder that is not laid out so, a file that
    cannot be read, no network where one is needed. Nothing falls back to another data set.
    """
    if isinstance(image_size, bool) or not isinstance(image_size, int) or image_size < 1:
        raise DataError(f"image_size is {image_size!r}: give a whole number of pixels, such as 32")
    root = _root(root)
    if name_or_path == "digits":
        return digits.load(image_size)
    if name_or_path == "cifar10":
        return cifar10.load(root, image_size, progress, given=os.environ.get("C2F_CIFAR10"))
    path = _find(name_or_path, root)
    if cifar10.find(path):
        return cifar10.load(root, image_size, progress, given=path)
    return image_folder.load(path, root, image_size, progress)


class Available(NamedTuple):
    """A data set, and whether it can be loaded without a network."""

    name: str
    present: bool
    where: str
    images: int | None  # None where nobody can count them yet
    bytes: int  # on disk at `where`


def available(root: Path | None = None) -> list[Available]:
    """What `load_dataset` finds by name, without decoding anything."""
    root = _root(root)
    found = [Available("digits", True, "inside scikit-learn", digits.COUNT, 0), _available_cifar10(root)]
    for folder in image_folder.find_all(root):
        sizes = [os.path.getsize(image) for split in ("train", "test") for image in image_folder.walk(folder / split)]
        found.append(Available(folder.name, True, str(folder), len(sizes), sum(sizes)))
    return found


def _available_cifar10(root: Path) -> Available:
    given = os.environ.get("C2F_CIFAR10")
    place = cifar10.find(Path(given).expanduser() if given else root)
    if place is None and not given:
        place = cache.existing(root, "cifar10")
    if place is not None:
        files = [place] if place.is_file() else [place / name for name in cifar10.files()]
        size = sum(file.stat().st_size for file in files if file.is_file())
        return Available("cifar10", True, str(place), cifar10.COUNT, size)
    if given:
        return Available("cifar10", False, f"C2F_CIFAR10 names {given}, which is not there", None, 0)
    part = root / f"{cifar10.ARCHIVE.name}.part"
    if part.is_file():
        return Available("cifar10", False, f"partly downloaded: {part}", None, part.stat().st_size)
    return Available("cifar10", False, f"downloaded to {root} when first asked for", None, 0)


def _root(root: Path | None) -> Path:
    return data_folder() if root is None else Path(root).expanduser()


def _find(name_or_path: str | Path, root: Path) -> Path:
    """The file or folder meant: as a path, else by its name in `root`."""
    path = Path(name_or_path).expanduser()
    for place in (path, root / path):
        if place.exists():
            return place
    folders = ", ".join(folder.name for folder in image_folder.find_all(root)) or "none yet"
    raise DataError(
        f"no data set and no folder is called {str(name_or_path)!r}: use digits, cifar10, the path of a folder with "
        f"train/<class>/* and test/<class>/*, or one of the image folders in {root} ({folders})"
    )
