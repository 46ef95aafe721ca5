"""CIFAR-10 in its published format: downloaded, copied, decoded once, and refused where it is not what it should be."""

import pickle
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torchvision.datasets import CIFAR10

from c2f.training.data import DataError, available, load_dataset
from c2f.training.sources import cifar10


def load(root: Path, name: str | Path = "cifar10", image_size: int = 32):
    return load_dataset(name, root=root, image_size=image_size, progress=False)


def test_from_a_host(tmp_path, members, archive_of, publish, serve):
    data = archive_of(members)
    hosts = serve(data)
    publish(data, hosts.url("absent"), hosts.url("cut"), members=members)
    dataset = load(tmp_path)
    assert dataset.name == "cifar10"
    assert (len(dataset.train), len(dataset.test)) == (100, 20)
    assert dataset.classes[3] == "cat"
    assert dataset.image_size == (32, 32)
    assert dataset.train.images.is_contiguous()
    assert set(dataset.provenance) == {"name", "source", "train", "test", "image_size", "classes", "sha256"}
    assert str(tmp_path) not in str(dataset.provenance)
    assert not (tmp_path / CIFAR10.base_folder).exists()


def test_two_at_once_download_once(tmp_path, members, archive_of, publish, serve, capsys):
    data = archive_of(members)
    hosts = serve(data)
    publish(data, hosts.url("busy"), members=members)
    with ThreadPoolExecutor(2) as both:
        first, second = both.map(lambda _: load(tmp_path), range(2))
    assert first.provenance == second.provenance
    assert len(hosts.asked) == 1
    assert "Another process is preparing cifar10" in capsys.readouterr().out


def test_it_is_what_torchvision_reads(tmp_path, members, publish, archive_of):
    data = archive_of(members)
    publish(data, members=members)
    (tmp_path / cifar10.ARCHIVE).write_bytes(data)
    dataset = load(tmp_path)
    shutil.unpack_archive(tmp_path / cifar10.ARCHIVE, tmp_path, filter="data")
    for split, train in ((dataset.train, True), (dataset.test, False)):
        theirs = CIFAR10(tmp_path, train=train, download=False)
        torch.testing.assert_close(split.images, torch.from_numpy(theirs.data).permute(0, 3, 1, 2))
        assert split.labels.tolist() == theirs.targets
    assert list(dataset.classes) == theirs.classes


def test_once_decoded_it_needs_neither_host_nor_archive(tmp_path, members, archive_of, publish, serve):
    data = archive_of(members)
    hosts = serve(data)
    publish(data, hosts.url("good"), members=members)
    first = load(tmp_path)
    (tmp_path / cifar10.ARCHIVE).unlink()
    again = load(tmp_path)
    assert len(hosts.asked) == 1
    assert torch.equal(first.train.images, again.train.images)
    assert first.provenance == again.provenance


@pytest.mark.parametrize("how", ["in the root", "by its path", "by its folder"])
def test_your_own_copy(tmp_path, members, archive_of, publish, how):
    data = archive_of(members)
    publish(data, members=members)
    home = tmp_path if how == "in the root" else tmp_path / "elsewhere"
    home.mkdir(exist_ok=True)
    (home / cifar10.ARCHIVE).write_bytes(data)
    dataset = load(tmp_path, {"by its path": home / cifar10.ARCHIVE, "by its folder": home}.get(how, "cifar10"))
    assert (dataset.name, len(dataset.train)) == ("cifar10", 100)


def test_without_network_it_says_what_to_do_and_gives_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "SOURCES", ("https://far.example/a", "https://farther.example/b"))
    with pytest.raises(DataError, match=r"offline.*copy cifar-10-python.tar.gz into .*your copy.*--data digits") as e:
        load(tmp_path)
    assert "\n" not in str(e.value)


class Evil:
    """A pickle that writes a file when it is opened by the ordinary pickle.load."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def evil_pickle(marker: Path) -> bytes:
    data = pickle.dumps(Evil(marker), protocol=2)
    pickle.loads(data).close()
    assert marker.exists()  # so it does work
    marker.unlink()
    return data


def test_bytes_are_checked_before_they_are_unpacked(tmp_path, members, archive_of, publish):
    publish(archive_of(members))
    marker = tmp_path / "marker"
    evil = archive_of({"../climbed": b"x", **members, "data_batch_1": evil_pickle(marker)})
    (tmp_path / cifar10.ARCHIVE).write_bytes(evil)
    with pytest.raises(DataError, match="not the published CIFAR-10"):
        load(tmp_path)
    assert not marker.exists()


def test_a_named_copy_is_checked_even_where_the_cache_would_do(tmp_path, members, archive_of, publish):
    data = archive_of(members)
    publish(data, members=members)
    good, bad = tmp_path / cifar10.ARCHIVE, tmp_path / "mine.tar.gz"
    good.write_bytes(data)
    load(tmp_path)
    bad.write_bytes(data[:-1])
    with pytest.raises(DataError, match=r"mine\.tar\.gz is not the published CIFAR-10"):
        load(tmp_path, bad)


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("../climbed", None),
        ("cifar-10-batches-py/../../climbed", None),
        (None, link("cifar-10-batches-py/climbed", "/etc/passwd")),
        (None, link("cifar-10-batches-py/climbed", "../../climbed", tarfile.LNKTYPE)),
        (None, link("cifar-10-batches-py/climbed", "", tarfile.CHRTYPE)),
    ],
)
def test_an_archive_with_a_path_that_climbs_out_is_refused(tmp_path, members, archive_of, publish, name, extra):
    data = archive_of(members | ({name: b"/"} if name else {}), *([extra] if extra else []))
    publish(data, members=members)
    (tmp_path / cifar10.ARCHIVE).write_bytes(data)
    with pytest.raises(tarfile.TarError, match="climbed"):
        load(tmp_path)


def test_another_size(tmp_path, members, publish, archive_of):
    data = archive_of(members)
    publish(data, members=members)
    (tmp_path / cifar10.ARCHIVE).write_bytes(data)
    dataset = load(tmp_path, image_size=16)
    assert dataset.train.images.shape == (100, 3, 16, 16)
    means = (split.float().mean((2, 3)) for split in (dataset.train.images, load(tmp_path).train.images))
    torch.testing.assert_close(*means, atol=3, rtol=0)


def test_what_is_available(tmp_path, members, archive_of, publish):
    def found():
        return next(row for row in available(tmp_path) if row.name == "cifar10")

    data = archive_of(members)
    publish(data, members=members)
    assert not found().present and str(tmp_path) in found().where
    archive = tmp_path / cifar10.ARCHIVE
    archive.write_bytes(data)
    assert found() == ("cifar10", True, str(archive), 60_000)
    load(tmp_path)
    archive.unlink()
    assert found().present and found().where.endswith(".safetensors")
