"""Small stand-ins for what is large or far away: CIFAR-10 in its published format, and the hosts that serve it."""

import hashlib
import io
import struct
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from c2f.training.sources import cifar10

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NAMES_OF_FILES = (*dict(CIFAR10.train_list), *dict(CIFAR10.test_list), CIFAR10.meta["filename"])
Members = dict[str, bytes]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


# --- CIFAR-10, as Python 2 wrote it -----------------------------------------------------------------------------------


def pickled_by_python2(value: object) -> bytes:
    """A protocol-2 pickle as cPickle wrote it in 2009: byte strings, and arrays by numpy.core.multiarray."""
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value: object) -> bytes:
    match value:
        case dict():
            return b"}(" + b"".join(_opcodes(key) + _opcodes(of) for key, of in value.items()) + b"u"
        case list():
            return b"](" + b"".join(map(_opcodes, value)) + b"e"
        case int():
            return b"J" + struct.pack("<i", value)
        case str():
            return b"U" + bytes([len(value)]) + value.encode()
        case np.ndarray():
            build = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
            dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            shape = _opcodes(value.shape[0]) + _opcodes(value.shape[1]) + b"\x86"
            raw = value.tobytes()
            return build + b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
    raise TypeError(type(value))


@pytest.fixture(scope="session")
def members() -> Members:
    """The seven pickles, with 20 images each."""
    random = np.random.default_rng(0)
    meta = {"num_cases_per_batch": 20, "label_names": list(NAMES), "num_vis": 3072}
    batches = {
        name: {
            "batch_label": name,
            "labels": [int(label) for label in random.integers(0, 10, 20)],
            "data": random.integers(0, 256, (20, 3072), dtype=np.uint8),
            "filenames": [f"{i}.png" for i in range(20)],
        }
        for name in NAMES_OF_FILES
        if name != "batches.meta"
    }
    return {name: pickled_by_python2(content) for name, content in {**batches, "batches.meta": meta}.items()}


@pytest.fixture
def archive_of() -> Callable[..., bytes]:
    """archive_of(members, *extra): a .tar.gz of these files, then of extra members that are no plain files."""

    def build(members: Members, *extra: tarfile.TarInfo) -> bytes:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            for name, data in members.items():
                info = tarfile.TarInfo(name if "/" in name else f"{CIFAR10.base_folder}/{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            for info in extra:
                tar.addfile(info)
        return packed.getvalue()

    return build


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """publish(data, *urls, members=None): from now on these bytes are what CIFAR-10 is known to be."""

    def set_published(data: bytes, *urls: str, members: Members | None = None) -> None:
        for name, value in {"SIZE": len(data), "MD5": md5(data), "SOURCES": urls}.items():
            monkeypatch.setattr(cifar10, name, value)
        if members:
            known = {name: [name, md5(members[name])] for name in NAMES_OF_FILES}
            monkeypatch.setattr(CIFAR10, "train_list", [known[f"data_batch_{i}"] for i in range(1, 6)])
            monkeypatch.setattr(CIFAR10, "test_list", [known["test_batch"]])
            monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": known["batches.meta"][1]})

    return set_published


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


# --- hosts ------------------------------------------------------------------------------------------------------------


class Hosts(ThreadingHTTPServer):
    """One server that plays many hosts: the first part of the path says how it behaves.

    `asked` lists (behaviour, Range header) of every request.
    """

    daemon_threads = True

    def __init__(self, data: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data = data
        self.asked: list[tuple[str, str | None]] = []

    def url(self, behaviour: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{behaviour}/cifar-10-python.tar.gz"

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that hangs up on us is what these tests are about


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hosts

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        behaviour = self.path.split("/")[1]
        wanted = self.headers.get("Range")
        self.server.asked.append((behaviour, wanted))
        self.close_connection = True
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        getattr(self, behaviour)(self.server.data, start)

    def head(self, status: int, start: int, size: int, with_length: bool = True) -> None:
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        if with_length:
            self.send_header("Content-Length", str(size - start))
        self.send_header("Connection", "close")
        self.end_headers()

    def good(self, data: bytes, start: int) -> None:
        self.head(206 if start else 200, start, len(data))
        self.wfile.write(data[start:])

    def wrong(self, data: bytes, start: int) -> None:
        self.good(data[::-1], start)

    def absent(self, data: bytes, start: int) -> None:
        self.send_error(404)

    def throttled(self, data: bytes, start: int) -> None:
        """10 kB/s, then the rest at once after half a second, so that a patient client is served too."""
        self.head(206 if start else 200, start, len(data))
        for at in range(start, start + 5_000, 500):
            self.wfile.write(data[at : at + 500])
            time.sleep(0.05)
        self.wfile.write(data[start + 5_000 :])

    def stalled(self, data: bytes, start: int) -> None:
        self.head(206 if start else 200, start, len(data))
        self.wfile.write(data[start : start + 5_000])
        time.sleep(5)

    def cut(self, data: bytes, start: int) -> None:
        """Half of what is missing, then silence and a closed connection; all of it when little is missing."""
        self.head(206 if start else 200, start, len(data))
        half = (len(data) - start) // 2
        self.wfile.write(data[start : start + half] if half > 50_000 else data[start:])

    def hangs_up(self, data: bytes, start: int) -> None:
        self.head(206 if start else 200, start, len(data))

    def page(self, data: bytes, start: int) -> None:
        """What a hotel's network answers to everything."""
        self.head(200, 0, 30)
        self.wfile.write(b"<html>please log in</html>....")

    def no_ranges(self, data: bytes, start: int) -> None:
        self.head(200, 0, len(data))
        self.wfile.write(data)

    def other_range(self, data: bytes, start: int) -> None:
        self.head(206, max(start - 10, 0), len(data))
        self.wfile.write(data[max(start - 10, 0) :])

    def endless(self, data: bytes, start: int) -> None:
        self.head(200, 0, 0, with_length=False)
        self.wfile.write(data + data)

    def busy(self, data: bytes, start: int) -> None:
        """Serves everything, after a while."""
        time.sleep(0.4)
        self.good(data, start)


@pytest.fixture
def serve() -> Iterator[Callable[[bytes], Hosts]]:
    running: list[Hosts] = []

    def start(data: bytes) -> Hosts:
        hosts = Hosts(data)
        running.append(hosts)
        threading.Thread(target=hosts.serve_forever, args=(0.02,), daemon=True).start()
        return hosts

    yield start
    for hosts in running:
        hosts.shutdown()
        hosts.server_close()
