"""Fetch one large file that several hosts serve, byte for byte the same.

A host may be absent, slow, or break off half-way. What has arrived is kept in NAME.part, and the next attempt, the
next host or the next day continues from there. pooch and torchvision start again from zero, so only the comparison of
checksums is theirs; it comes before the file gets its name.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from torchvision.datasets.utils import check_md5
from tqdm.auto import tqdm

from c2f.training.sources.dataset import DataError

CHUNK = 4096  # bytes; small, so that a slow host is noticed soon
SLOWEST, WINDOW = 150e3, 8.0  # a host that brings fewer bytes per second over so many seconds is left for the next one
SILENCE = 15.0  # seconds without a connection, or without a single byte
RESUMPTIONS = 3  # of a connection that broke after it brought something
OFFLINE = "no connection"


@dataclass(frozen=True)
class RemoteFile:
    """A file, its checksum, and the addresses to download it from, in the order to try."""

    name: str
    size: int  # bytes
    md5: str
    sources: tuple[str, ...]


class SourceError(Exception):
    """One host failed. The message is a phrase that fits after its name."""


class TooSlow(SourceError):
    """The host brings fewer bytes per second than it must."""

    def __init__(self, speed: float) -> None:
        super().__init__(f"only {speed / 1e3:.0f} kB/s")
        self.speed = speed


def tell(sentence: str) -> None:
    """Print without tearing a progress bar apart."""
    tqdm.write(sentence, file=sys.stdout)


@contextmanager
def only_one_process(file: Path) -> Iterator[None]:
    """Hold the lock beside `file`, and print that another process has it. The system releases it if we are killed."""
    from filelock import FileLock, Timeout

    lock = FileLock(file.with_name(f".{file.name}.lock"), mode=0o666)  # people may share the folder
    try:
        lock.acquire(timeout=0.2)
    except Timeout:
        tell(f"Another process is preparing {file.name}: waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def fetch(remote: RemoteFile, folder: Path, progress: bool = True) -> Path:
    """Download `remote` into `folder` unless it is there, and return its path.

    Raises DataError with what each source did, where none gave the file.
    """
    file, part = folder / remote.name, folder / f"{remote.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with only_one_process(file):
            if not file.exists():
                _from_any_source(remote, part, progress)
                os.replace(part, file)
    except OSError as error:
        raise DataError(f"{remote.name} cannot be saved in {folder} ({error.strerror or error})") from error
    return file


def _from_any_source(remote: RemoteFile, part: Path, progress: bool) -> None:
    """Try every source, then once more those that were merely slow, the fastest first, at whatever speed."""
    failures: dict[str, SourceError] = {}
    for url in remote.sources:
        try:
            return _from_source(url, remote, part, SLOWEST, progress)
        except SourceError as error:
            failures[url] = error
            if str(error) != OFFLINE:  # a machine without a network is told once, at the end
                tell(f"{urlsplit(url).hostname} failed for {remote.name}: {error}.")
    slow = {url: error.speed for url, error in failures.items() if isinstance(error, TooSlow)}
    for url in sorted(slow, key=slow.get, reverse=True):
        tell(f"No source is fast: going on with {urlsplit(url).hostname} at about {slow[url] / 1e3:.0f} kB/s.")
        try:
            return _from_source(url, remote, part, 0, progress)
        except SourceError as error:
            failures[url] = error
    if {str(error) for error in failures.values()} == {OFFLINE}:
        raise DataError(
            f"none of the {len(remote.sources)} hosts of {remote.name} can be reached (this machine looks offline)"
        )
    reasons = "; ".join(f"{urlsplit(url).hostname}: {error}" for url, error in failures.items())
    raise DataError(f"{remote.name} could not be downloaded ({reasons})")


def _from_source(url: str, remote: RemoteFile, part: Path, slowest: float, progress: bool) -> None:
    """Append to `part` until it is complete, resuming where the connection breaks, and compare its checksum."""
    import requests
    import urllib3

    was_resumed, resumptions = _size(part) > 0, 0
    while not (_size(part) == remote.size and check_md5(part, remote.md5)):
        if _size(part) >= remote.size:
            part.unlink()
            if not was_resumed:
                raise SourceError("a file with the wrong checksum")
            was_resumed = False  # its beginning may be another host's: download all of it here, once
        have = _size(part)
        try:
            _append(url, part, remote, slowest, progress)
            broken = f"stopped after {_size(part):,} of {remote.size:,} bytes"
        except requests.ConnectionError:
            broken = OFFLINE
        except requests.HTTPError as error:
            raise SourceError(f"HTTP {error.response.status_code}") from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            broken = f"the connection broke ({type(error).__name__})"
        if _size(part) == have or (_size(part) < remote.size and resumptions == RESUMPTIONS):
            raise SourceError(broken)
        resumptions += 1


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _append(url: str, part: Path, remote: RemoteFile, slowest: float, progress: bool) -> None:
    """Request the bytes that are missing and write what comes. Refuses a log-in page before it overwrites anything."""
    import requests
    import urllib3

    have = _size(part)
    # identity: a host that compresses on the way would make byte ranges mean something else
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=SILENCE) as response:
        response.raise_for_status()
        if response.status_code == 206:
            fits = response.headers.get("Content-Range") == f"bytes {have}-{remote.size - 1}/{remote.size}"
        else:  # the whole file; with something to lose, a length is required
            length = response.headers.get("Content-Length", "" if have else remote.size)
            fits, have = str(length) == str(remote.size), 0
        if not fits:
            raise SourceError(f"bytes of another file than the one of {remote.size:,} bytes")
        bar = tqdm(total=remote.size, initial=have, desc=remote.name, unit="B", unit_scale=True, disable=not progress)
        with bar, part.open("ab" if have else "wb") as out:
            since, arrived = time.monotonic(), 0
            try:
                for chunk in response.raw.stream(CHUNK, decode_content=False):
                    if out.tell() + len(chunk) > remote.size:
                        raise SourceError(f"more than the {remote.size:,} bytes that belong")
                    out.write(chunk)
                    bar.update(len(chunk))
                    arrived += len(chunk)
                    if (seconds := time.monotonic() - since) >= WINDOW:
                        if arrived / seconds < slowest:
                            raise TooSlow(arrived / seconds)
                        since, arrived = time.monotonic(), 0
            except urllib3.exceptions.ReadTimeoutError as error:
                raise TooSlow(0) from error
