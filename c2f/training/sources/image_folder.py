"""A folder of your own images: train/<class>/* and test/<class>/*, any size, grey or colour.

test/ may be called val/, valid/ or validation/, and all of these in capitals. A folder of classes alone, or with train/
alone, is divided when a share for testing is asked for. Every file is used, or counted in a sentence that says why not.
Links to files are followed, links to folders are not: they may lead in a circle. Nothing but regular files is opened.
"""

import contextlib
import hashlib
import itertools
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm.auto import tqdm
from tqdm.contrib.concurrent import thread_map

from c2f.training.sources.dataset import DataError, Dataset, Split, cached, describe

ENDINGS = (*IMG_EXTENSIONS, ".gif", ".jfif", ".jpe")
TEST_NAMES = ("test", "val", "valid", "validation")
LAYOUT = "an image folder holds train/<class>/* and test/<class>/* (or val/, valid/, validation/)"
LeftOut = list[tuple[str, str]]  # why, and which file or folder


def load(folder: Path, root: Path, image_size: int, progress: bool, share: float | None = None) -> Dataset:
    """All images of `folder`, decoded once and kept in `root`; decoded again when a file came, went or changed.

    `share`: of each class, the part to test with, where there is no folder for it: every so many in the order of names.
    """
    name, left_out = folder.resolve().name, []
    places = _splits(folder, share, left_out)
    classes = _classes(folder, places, left_out)
    for text in (str(folder.resolve()), *classes):
        if (shown := _shown(text)) != text:  # such a name could be neither printed nor found again
            raise DataError(f"the name {shown} is not UTF-8: rename that folder")
    files: dict[str, list[str]] = {"train": [], "test": []}
    labels: dict[str, list[int]] = {"train": [], "test": []}
    for (split, place), (label, class_name) in itertools.product(places.items(), enumerate(classes)):
        if not (found := walk(place / class_name, left_out)):
            raise DataError(
                f"{place / class_name} holds no image (a file that ends in {', '.join(ENDINGS)}): put some there, or "
                f"delete the class{' from both train/ and test/' * (len(places) > 1)}{_say_left_out(folder, left_out)}"
            )
        for kept, some in _divide(found, share, place / class_name).items() if share else ((split, found),):
            files[kept] += some
            labels[kept] += [label] * len(some)
    if progress and left_out:
        tqdm.write(f"{name}{_say_left_out(folder, left_out)}")
    if progress and len(classes) == 1:
        tqdm.write(f"{name} has one class, {classes[0]}: every answer is right, so its accuracy says nothing.")
    paths = files["train"] + files["test"]

    def decode() -> Dataset:
        images = _decode_all(paths, folder, image_size, progress).split([*map(len, labels.values())])
        splits = map(Split, images, map(torch.tensor, labels.values()))
        return describe(name, *splits, classes, f"image folder {name}", **({"split": share} if share else {}))

    # The key changes with any file's name, size or time of change, and when a file moves to another class or split.
    stats = ((path, os.stat(path)) for path in paths)
    listing = [(path[len(str(folder)) :], stat.st_size, stat.st_mtime_ns) for path, stat in stats]
    key = hashlib.sha256(repr((listing, share) if share else listing).encode()).hexdigest()
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]  # two folders may have one name
    return cached(root, f"{name}-{place}", key, image_size, decode)


def load_images(paths: Sequence[Path], image_size: int) -> tuple[list[str], Tensor]:
    """Files, and all images below folders, without labels: their paths, and uint8 (N, 3, image_size, image_size)."""
    left_out: LeftOut = []
    files = [file for path in paths for file in (walk(path, left_out) if path.is_dir() else [str(path)])]
    if left_out:
        tqdm.write(f"the folders{_say_left_out(Path(), left_out)}", file=sys.stderr)
    if not files:
        raise DataError(f"{_some([*map(str, paths)]) or 'nothing'} holds no image: name files, or folders of images")
    if absent := [file for file in files if not os.path.isfile(file)]:
        raise DataError(f"there is no file {_some(absent)}: name files, or folders of images")
    return [*map(_shown, files)], _decode_all(files, Path(), image_size, progress=False)


def find_all(root: Path) -> list[Path]:
    """The image folders directly in `root`: those that need no share to be named."""
    found = []
    for folder in sorted(place for place in root.glob("*") if place.is_dir()):
        with contextlib.suppress(DataError, OSError):
            _splits(folder, None, [])
            found.append(folder)
    return found


def count(folder: Path) -> int:
    """How many images an image folder has."""
    return sum(len(walk(place, [])) for place in _splits(folder, None, []).values())


def walk(folder: Path, left_out: LeftOut) -> list[str]:
    """All images below `folder`, in an order that is the same everywhere; what is left out is noted."""
    found, folders = [], []
    for entry in _entries(folder):
        reason = _why_not(entry)
        if reason == "folder":
            folders.append(Path(entry.path))
        elif reason:
            left_out.append((reason, entry.path))
        else:
            found.append(entry.path)
    found += [path for place in folders for path in walk(place, left_out)]
    return sorted(found, key=lambda path: path.split(os.sep))


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{_shown(str(folder))} cannot be listed ({error.strerror}): make it readable") from error


def _why_not(entry: os.DirEntry) -> str:
    """Why an entry is not used; "folder" for a folder to look into, and nothing for an image. It is not opened."""
    if entry.name.startswith("."):
        return "hidden"
    if entry.is_symlink():  # os.path takes one that leads to itself, too
        if os.path.isdir(entry.path):
            return "as a link to a folder"
        if not os.path.isfile(entry.path):
            return "as a link that leads to no file"
    elif entry.is_dir():
        return "folder"
    elif not entry.is_file():
        return "as a pipe, socket or device"
    return "" if entry.name.lower().endswith(ENDINGS) else "of a kind that is not read"


def _splits(folder: Path, share: float | None, left_out: LeftOut) -> dict[str, Path]:
    """Where the classes of each split are; one place alone where a share of it is to be the test images."""
    entries = _entries(folder)
    places = {
        entry.name.lower(): entry for entry in reversed(entries) if os.path.isdir(entry.path)
    }  # train/ may be a link
    train, test = places.get("train"), next((places[name] for name in TEST_NAMES if name in places), None)
    if share is None and not (train and test):
        missing = "train" if train is None else "test"
        raise DataError(
            f"{folder} has no folder {missing}/: {LAYOUT}, so make it and put that split's images there"
            + (", or divide the images that are here with --split 0.2" if test is None else "")
        )
    if share is not None and (test or not 0 < share < 1):
        raise DataError(
            f"{folder} has {test.name}/ for testing: leave --split out" if test
            else f"--split is {share}: use a share between 0 and 1, such as 0.2"
        )  # fmt: skip
    if train is None:
        return {"all": folder}
    used = {entry.name for entry in (train, test) if entry}
    beside = (entry for entry in entries if entry.name not in used)
    left_out += [("hidden" if entry.name[0] == "." else f"beside {train.name}/", entry.path) for entry in beside]
    return {split: Path(entry.path) for split, entry in (("train", train), ("test", test)) if entry}


def _classes(folder: Path, places: dict[str, Path], left_out: LeftOut) -> tuple[str, ...]:
    """The class folders, the same ones in each split."""
    classes: dict[str, set[str]] = {}
    for split, place in places.items():
        reasons = {entry.name: (_why_not(entry), entry.path) for entry in _entries(place)}
        classes[split] = {name for name, (reason, _) in reasons.items() if reason == "folder"}
        directly = f"directly in {place.name}/"
        left_out += [(why or directly, path) for why, path in reasons.values() if why != "folder"]
    train, test = [*classes.values()] * (2 // len(classes))
    if not train | test:
        raise DataError(
            f"{folder} has no class folders in {next(iter(places.values())).name}/: {LAYOUT}, so give each class its "
            f"own folder{_say_left_out(folder, left_out)}"
        )
    differing = ((split, name) for split in classes for name in sorted(classes[split] & (train ^ test)))
    if alone := [f"{places[split].name}/{name}" for split, name in differing]:
        raise DataError(
            f"train/ and test/ of {folder} hold different classes ({_some(alone)} has no counterpart): give each class "
            "a folder of the same name in both"
        )
    return tuple(sorted(train))


def _divide(files: list[str], share: float, place: Path) -> dict[str, list[str]]:
    """Training and test images of one class: test images are spread evenly over the order of names."""
    if len(files) < 2:
        raise DataError(f"{place} holds one image, which cannot be divided: add another one")
    tests = min(max(1, round(len(files) * share)), len(files) - 1)
    chosen = [(i + 1) * tests // len(files) > i * tests // len(files) for i in range(len(files))]
    parts = {"train": False, "test": True}
    return {split: [*itertools.compress(files, (c == is_test for c in chosen))] for split, is_test in parts.items()}


def _say_left_out(folder: Path, left_out: LeftOut) -> str:
    """As ": 3 entries were left out: 2 of a kind that is not read (.heic), 1 hidden (train/.x)"; or nothing."""
    if not left_out:
        return ""
    said = []
    for reason, number in Counter(reason for reason, _ in left_out).items():
        paths = [path for why, path in left_out if why == reason]
        names = sorted(os.path.relpath(path, folder) for path in paths)
        if reason == "of a kind that is not read":
            names = sorted({os.path.splitext(path)[1].lower() or os.path.basename(path) for path in paths})
        said.append(f"{number} {reason} ({_some(names, 3)})")
    return f": {len(left_out)} {'entries were' if len(left_out) > 1 else 'entry was'} left out: {', '.join(said)}"


def fit(image: Image.Image, image_size: int) -> Image.Image:
    """Resize the short side, then cut out the centre; an image that has the size already keeps its bits."""
    if image.size == (image_size, image_size):
        return image
    return ImageOps.fit(image, (image_size, image_size), Image.Resampling.BICUBIC)


def _decode_all(files: Sequence[str], folder: Path, image_size: int, progress: bool) -> Tensor:
    """All images, (N, 3, image_size, image_size) uint8, on as many threads as there are cores."""
    images, frames = np.empty((len(files), 3, image_size, image_size), np.uint8), [1] * len(files)

    def failed(i: int) -> str:
        """Why an image is not there; nothing if it is."""
        try:
            images[i], frames[i] = _decode(files[i], image_size)
            return ""
        except Image.DecompressionBombError:
            return f" of more than {2 * Image.MAX_IMAGE_PIXELS // 10**6} million pixels"
        except PermissionError:
            return " without the right to read it"
        except Exception:  # what a decoder makes of a damaged file can be any exception
            return " "

    bar = {"desc": f"decoding {folder.name}", "unit": "image", "disable": not progress}
    fails = thread_map(failed, range(len(files)), max_workers=os.cpu_count(), **bar)
    if broken := sorted(f"{os.path.relpath(files[i], folder)}{why}".rstrip() for i, why in enumerate(fails) if why):
        raise DataError(
            f"{len(broken)} of the {len(files)} images in {folder} cannot be read ({_some(broken)}): replace them, or "
            "move them away, and load again"
        )
    if moving := [os.path.relpath(file, folder) for file, count in zip(files, frames, strict=True) if count > 1]:
        tqdm.write(f"of {len(moving)} files with several frames the first one is used ({_some(moving, 3)})", sys.stderr)
    return torch.from_numpy(images)


def _some(names: Sequence[str], most: int = 8) -> str:
    return _shown(", ".join(names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


def _shown(name: str) -> str:
    """A name as it can be printed: bytes that are not UTF-8 as \\xe9."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _decode(path: str, image_size: int) -> tuple[np.ndarray, int]:
    """One image as (3, image_size, image_size) uint8: upright, in colour, in front of white; and its frames' number."""
    with Image.open(path) as image:
        frames = getattr(image, "n_frames", 1)
        image.draft(None, (2 * image_size, 2 * image_size))  # a large JPEG is decoded at a fraction of its size
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I;16"):  # Pillow would cut 16 bits off at 255 instead of scaling them
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.mode in ("I", "F"):
            raise ValueError("32-bit pixels without a scale")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.asarray(fit(image.convert("RGB"), image_size)).transpose(2, 0, 1), frames
