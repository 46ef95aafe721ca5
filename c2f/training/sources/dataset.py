"""What every source gives: images and labels in two splits, class names, and where they came from."""

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class DataError(ValueError):
    """A data set cannot be had as asked; the message is one sentence that says what would do."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels. `images`: (N, 3, H, W) uint8; `labels`: (N,) int64."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise DataError(f"images are {images.dtype} {tuple(images.shape)}: make them torch.uint8 (N, 3, H, W)")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise DataError(
                f"labels are {labels.dtype} {tuple(labels.shape)}: make them torch.int64 ({len(images)},), one an image"
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


def describe(name: str, train: Split, test: Split, classes: tuple[str, ...], source: str) -> Dataset:
    """A data set with its provenance written out; `source` is one sentence on what the images are."""
    provenance = {
        "name": name, "source": source, "train": len(train), "test": len(test),
        "image_size": list(train.images.shape[2:]), "classes": list(classes), "sha256": digest(train, test),
    }  # fmt: skip
    return Dataset(name, train, test, classes, provenance)
