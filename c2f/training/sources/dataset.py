"""What every source gives: images and labels in two splits, class names, and where they came from; decoded once."""

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm.auto import tqdm

from c2f.files import write_atomically

FORMAT = 1  # of the files in cache/; raise it when decoding changes, and old files are decoded again
PARTS = ("images", "labels")


class DataError(ValueError):
    """A data set cannot be had as asked; the message is one sentence that says what would do."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels. `images`: (N, 3, H, W) uint8, or grey (N, 1, H, W); `labels`: (N,) int64."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise DataError(
                f"images are {images.dtype} {tuple(images.shape)}: make them torch.uint8 (N, 3, H, W) or (N, 1, H, W)"
            )
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise DataError(
                f"labels are {labels.dtype} {tuple(labels.shape)}: make them torch.int64 ({len(images)},), one per "
                f"image"
            )

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """What a model learns from and what it is measured on.

    `classes[label]` is a label's name. `provenance` says what the images are, how many, and their digest; it holds
    nothing but JSON's types and no path, so that it can be stored with a run and compared on another machine.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    provenance: dict[str, Any]
    path: str = ""  # where the images were found on this machine; none for those that have a name of their own

    def __post_init__(self) -> None:
        for split in (self.train, self.test):
            if len(split) and not 0 <= int(split.labels.min()) <= int(split.labels.max()) < len(self.classes):
                raise DataError(f"labels do not fit {len(self.classes)} classes: use 0 to {len(self.classes) - 1}")
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise DataError("training and test images differ in size: resize one of them")

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return tuple(self.train.images.shape[2:])


def digest(train: Split, test: Split) -> str:
    """SHA-256 of the bytes: training images, training labels, test images, test labels."""
    sha = hashlib.sha256()
    for split in (train, test):
        sha.update(split.images.contiguous().numpy())
        sha.update(split.labels.numpy().astype("<i8"))
    return sha.hexdigest()


def describe(name: str, train: Split, test: Split, classes: tuple[str, ...], source: str, **asked: float) -> Dataset:
    """A data set with its provenance written out: `source`, a sentence on what the images are, and what was `asked`."""
    provenance = {
        "name": name, "source": source, "train": len(train), "test": len(test),
        "image_size": list(train.images.shape[2:]), "classes": list(classes), "sha256": digest(train, test),
        **asked,
    }  # fmt: skip
    return Dataset(name, train, test, classes, provenance)


def to_grey(images: Tensor) -> Tensor:
    """Luma as Pillow computes it; grey images keep their bits. Shape: uint8 (N, 3, H, W) -> uint8 (N, 1, H, W)."""
    weights = torch.tensor([19595, 38470, 7471], dtype=torch.int32)[:, None, None]  # ITU-R 601-2, of 65536
    some = ((part.int() * weights).sum(1, keepdim=True) for part in images.split(1024))
    return torch.cat([((luma + 0x8000) >> 16).to(torch.uint8) for luma in some])


def cache_file(root: Path, name: str, image_size: int) -> Path:
    return root / "cache" / f"{name}-{image_size}.safetensors"


def cached(root: Path, name: str, key: str, image_size: int, decode: Callable[[], Dataset]) -> Dataset:
    """What `decode` gave when `key` was the same; else decode now, and keep it. One file per data set and size.

    Of several processes one decodes (or downloads), and the others wait for it.
    """
    file = cache_file(root, name, image_size)
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # where nothing can be written there is nothing to lock
            file.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(file.with_name(f".{name}.lock"), mode=0o666)  # people may share the folder
            try:
                held.enter_context(lock.acquire(timeout=0.2))
            except Timeout:
                tqdm.write(f"Another process is preparing {name}: waiting for it.")
                held.enter_context(lock)
        if dataset := _read(file, key):
            return dataset
        dataset = decode()
        splits = {"train": dataset.train, "test": dataset.test}
        tensors = {f"{of}/{part}": getattr(splits[of], part).contiguous() for of in splits for part in PARTS}
        about = {"format": FORMAT, "key": key}
        about |= {"name": dataset.name, "classes": dataset.classes, "provenance": dataset.provenance}
        try:
            write_atomically(file, save(tensors, {"c2f": json.dumps(about)}))
        except OSError as error:
            tqdm.write(f"{name} could not be kept in {file.parent} ({error}): it will be decoded again next time.")
        return dataset


def _read(file: Path, key: str) -> Dataset | None:
    """The data set in `file`; None where it is absent, damaged, or of another key.

    Its digest is computed anew and compared, for which the images are read.
    """
    try:
        with safe_open(file, framework="pt") as stored:
            about = json.loads(stored.metadata()["c2f"])
            if (about["format"], about["key"]) != (FORMAT, key):
                return None
            splits = [Split(*(stored.get_tensor(f"{of}/{part}") for part in PARTS)) for of in ("train", "test")]
        found = Dataset(about["name"], *splits, tuple(about["classes"]), about["provenance"])
        return found if digest(*splits) == about["provenance"]["sha256"] else None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
