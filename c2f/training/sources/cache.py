"""Decode once: keep a data set as one file that opens in milliseconds.

The file is a safetensors file in the data folder's cache/, or, where that cannot be written, in the user's own cache
folder. It is used as long as its key (what was decoded) is the same.
"""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from c2f.training.sources.dataset import Dataset, Split
from c2f.training.sources.download import only_one_process, tell

FORMAT = 1  # raise it when decoding changes, and old files are decoded again


def cached(root: Path, name: str, key: str, image_size: int, decode: Callable[[], Dataset]) -> Dataset:
    """What `decode` gave when `key` was the same; else decode now, and keep it. One file per data set and size."""
    places = _files(root, name, image_size)
    for file in places:
        if dataset := _read(file, key):
            return dataset
    file = next((file for file in places if _is_writable(file.parent)), None)
    if file is None:
        tell(f"Neither {root} nor your cache folder can be written: {name} will be decoded again next time.")
        return decode()
    with only_one_process(file):
        dataset = _read(file, key)  # another process may have decoded it while we waited
        if dataset is None:
            dataset = decode()
            _write(file, key, dataset)
    return dataset


def existing(root: Path, name: str, image_size: int = 32) -> Path | None:
    """The file that a data set was kept in, if it was."""
    return next((file for file in _files(root, name, image_size) if file.is_file()), None)


def _files(root: Path, name: str, image_size: int) -> list[Path]:
    import pooch

    folders = (root / "cache", Path(pooch.os_cache("c2f")))
    return [folder / f"{name}-{image_size}.safetensors" for folder in folders]


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _read(file: Path, key: str) -> Dataset | None:
    """The data set in `file`; None where it is absent, damaged, or of another key.

    The images are mapped into memory and read when they are used, so this takes milliseconds.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as stored:
            about = json.loads(stored.metadata()["c2f"])
            if (about["format"], about["key"]) != (FORMAT, key):
                return None
            train, test = (
                Split(stored.get_tensor(f"{split}/images"), stored.get_tensor(f"{split}/labels"))
                for split in ("train", "test")
            )
        return Dataset(about["name"], train, test, tuple(about["classes"]), about["provenance"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


def _write(file: Path, key: str, dataset: Dataset) -> None:
    """Write beside, then rename: a reader finds the old file or the new one, never half of it."""
    from safetensors.torch import save_file

    splits = {"train": dataset.train, "test": dataset.test}
    tensors = {f"{name}/images": split.images.contiguous() for name, split in splits.items()}
    tensors |= {f"{name}/labels": split.labels.contiguous() for name, split in splits.items()}
    about = {"format": FORMAT, "key": key}
    about |= {"name": dataset.name, "classes": dataset.classes, "provenance": dataset.provenance}
    unfinished = file.with_suffix(".unfinished")
    try:
        save_file(tensors, unfinished, metadata={"c2f": json.dumps(about)})
        unfinished.chmod(0o644)  # safetensors keeps it to the owner, but a class may share the data folder
        os.replace(unfinished, file)
    except Exception as error:  # safetensors has its own for a full disk; on Windows the old file may be open
        tell(f"{dataset.name} could not be kept in {file.parent} ({error}): it will be decoded again next time.")
    finally:
        unfinished.unlink(missing_ok=True)
