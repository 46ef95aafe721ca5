"""Fetch one large file that several hosts serve, byte for byte the same.

A host may be absent, slow, or cut us off half-way. What has arrived is kept in NAME.part, so that the next
attempt, the next host or the next day goes on from there; the checksum is compared before the file gets its name.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tqdm.auto import tqdm

from c2f.training.sources.dataset import DataError

if TYPE_CHECKING:
    import requests

CHUNK = 4096  # bytes; small, so that a host that drips is noticed soon


@dataclass(frozen=True)
class RemoteFile:
    """A file, how to know it, and where to get it, in the order to try."""

    name: str
    size: int  # bytes
    md5: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Patience:
    """How long a host may keep us waiting."""

    bytes_per_second: float = 150e3  # slower than this over `seconds`, and the next host is asked
    seconds: float = 8.0
    silence: float = 15.0  # seconds without a single byte, or without a connection
    resumptions: int = 3  # of a connection that broke after it brought something


class SourceError(Exception):
    """One host failed. The message is a phrase that fits after its name."""


class NoConnection(SourceError):
    """The host cannot be reached at all."""


class TooSlow(SourceError):
    """The host answers, below the floor."""

    def __init__(self, bytes_per_second: float) -> None:
        super().__init__(f"only {bytes_per_second / 1e3:.0f} kB/s")
        self.bytes_per_second = bytes_per_second


def tell(sentence: str) -> None:
    """Say something without tearing a progress bar apart."""
    tqdm.write(sentence, file=sys.stdout)


@contextmanager
def only_one_process(file: Path) -> Iterator[None]:
    """Hold the lock beside `file`; say so where another process has it. Released by the system if we die."""
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


def fetch(remote: RemoteFile, folder: Path, *, patience: Patience | None = None, progress: bool = True) -> Path:
    """Download `remote` into `folder` unless it is there, and return its path.

    Raises DataError with what each source did, where none gave the file.
    """
    patience = patience or Patience()
    file = folder / remote.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with only_one_process(file):
            if not file.exists():
                _from_any_source(remote, file, patience, progress)
    except OSError as error:
        raise DataError(f"{remote.name} cannot be saved in {folder} ({error.strerror or error})") from error
    return file


def _from_any_source(remote: RemoteFile, file: Path, patience: Patience, progress: bool) -> None:
    """Try every source above the floor, then those that were merely slow, fastest first, without a floor."""
    failures: dict[str, SourceError] = {}
    for url in remote.sources:
        tried, reason = next(reversed(failures.items()), ("", None))
        if reason and not isinstance(reason, NoConnection):  # an offline machine is told once, at the end
            tell(f"{_host(tried)}: {reason}; asking {_host(url)} for {remote.name}.")
        try:
            return _from_source(url, remote, file, patience, progress)
        except SourceError as error:
            failures[url] = error
    slow = {url: error.bytes_per_second for url, error in failures.items() if isinstance(error, TooSlow)}
    for url in sorted(slow, key=lambda url: -slow[url]):
        tell(f"No source is fast: going on with {_host(url)} at about {slow[url] / 1e3:.0f} kB/s.")
        try:
            return _from_source(url, remote, file, replace(patience, bytes_per_second=0), progress)
        except SourceError as error:
            failures[url] = error
    if all(isinstance(error, NoConnection) for error in failures.values()):
        raise DataError(
            f"none of the {len(remote.sources)} hosts of {remote.name} can be reached (this machine looks offline)"
        )
    reasons = "; ".join(f"{_host(url)}: {error}" for url, error in failures.items())
    raise DataError(f"{remote.name} could not be downloaded ({reasons})")


def _host(url: str) -> str:
    return urlsplit(url).hostname or url


def _from_source(url: str, remote: RemoteFile, file: Path, patience: Patience, progress: bool) -> None:
    """Download beside `file`, then let pooch check the hash and move it into place."""
    import pooch

    pooch.get_logger().setLevel("WARNING")  # the progress bar says the rest
    part = file.with_name(f"{file.name}.part")

    def hand_over(url: str, output_file: str, pooch: object) -> None:
        os.replace(part, output_file)

    was_resumed = part.exists()
    while True:
        _complete(url, part, remote, patience, progress)
        try:
            pooch.retrieve(url, f"md5:{remote.md5}", fname=file.name, path=file.parent, downloader=hand_over)
            return
        except ValueError as error:
            # The beginning may have come from a host with other bytes: ask this one for all of it, once.
            if not was_resumed:
                raise SourceError("a file with the wrong checksum") from error
            was_resumed = False


def _complete(url: str, part: Path, remote: RemoteFile, patience: Patience, progress: bool) -> None:
    """Append to `part` until it has all bytes, resuming where the connection breaks."""
    import requests
    import urllib3

    if _size(part) > remote.size:
        part.unlink()
    for attempts_left in reversed(range(patience.resumptions + 1)):
        have = _size(part)
        try:
            if have < remote.size:
                _append(url, part, remote, patience, progress)
            if _size(part) == remote.size:
                return
            broken: Exception = SourceError(f"stopped after {_size(part):,} of {remote.size:,} bytes")
        except requests.ConnectionError as error:
            broken = NoConnection("no connection")
            broken.__cause__ = error
        except requests.HTTPError as error:
            raise SourceError(f"HTTP {error.response.status_code}") from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            broken = SourceError(f"the connection broke ({type(error).__name__})")
        if _size(part) == have or not attempts_left:
            raise broken


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _append(url: str, part: Path, remote: RemoteFile, patience: Patience, progress: bool) -> None:
    """Ask for the bytes that are missing and write what comes."""
    import requests
    import urllib3

    have = _size(part)
    # identity: a host that compresses on the way would make byte ranges mean something else
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=patience.silence) as response:
        response.raise_for_status()
        start = _check_offer(response, have, remote)
        bar = tqdm(total=remote.size, initial=start, desc=remote.name, unit="B", unit_scale=True, disable=not progress)
        with bar, part.open("r+b" if start else "wb") as out:
            out.seek(start)
            speed = _Speedometer(patience)
            try:
                for chunk in response.raw.stream(CHUNK, decode_content=False):
                    if out.tell() + len(chunk) > remote.size:
                        raise SourceError(f"more than the {remote.size:,} bytes that belong")
                    out.write(chunk)
                    bar.update(len(chunk))
                    speed.count(len(chunk))
            except urllib3.exceptions.ReadTimeoutError as error:
                raise TooSlow(0) from error


def _check_offer(response: "requests.Response", have: int, remote: RemoteFile) -> int:
    """Where the answer's bytes belong in the file. Refuses a log-in page before it overwrites what we have."""
    if response.status_code == 206:
        span, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        if not span.startswith(f"{have}-"):
            raise SourceError(f"bytes {span or 'unknown'} where {have}- were asked for")
        start, said = have, total not in ("", "*")
    else:
        total = response.headers.get("Content-Length", "")
        start, said = 0, total != "" or have > 0  # with something to lose, a length is asked for
    if said and total != str(remote.size):
        raise SourceError(f"another file, of {total or 'unknown'} bytes instead of {remote.size:,}")
    return start


class _Speedometer:
    """Raise TooSlow once the last `patience.seconds` were below the floor."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self.start, self.bytes = time.monotonic(), 0

    def count(self, n: int) -> None:
        self.bytes += n
        elapsed = time.monotonic() - self.start
        if elapsed < self.patience.seconds:
            return
        speed = self.bytes / elapsed
        if speed < self.patience.bytes_per_second:
            raise TooSlow(speed)
        self.start, self.bytes = time.monotonic(), 0
