"""Downloads from hosts that are absent, slow, wrong, or cut us off; all of them on this computer."""

import hashlib
import random
import threading
from pathlib import Path

import pytest

from c2f.training.sources import download
from c2f.training.sources.dataset import DataError
from c2f.training.sources.download import RemoteFile, fetch

DATA = random.Random(0).randbytes(400_000)


@pytest.fixture(autouse=True)
def little_patience(monkeypatch):
    for name, value in {"SLOWEST": 100e3, "WINDOW": 0.15, "SILENCE": 1.0}.items():
        monkeypatch.setattr(download, name, value)


@pytest.fixture
def hosts(serve):
    return serve(DATA)


@pytest.fixture
def remote(hosts):
    """remote("absent", "good"): the file, with sources that behave like this, in this order."""

    def make(*behaviours: str) -> RemoteFile:
        md5 = hashlib.md5(DATA, usedforsecurity=False).hexdigest()
        return RemoteFile("file.bin", len(DATA), md5, tuple(hosts.url(behaviour) for behaviour in behaviours))

    return make


def get(remote: RemoteFile, folder: Path) -> bytes:
    return fetch(remote, folder, progress=False).read_bytes()


def part(folder: Path) -> Path:
    return folder / "file.bin.part"


def left_behind(folder: Path) -> set[str]:
    """Names of files that hold something; a lock file is empty."""
    return {file.name for file in folder.iterdir() if file.stat().st_size}


def test_a_good_host_is_asked_once(hosts, remote, tmp_path, capsys):
    folder = tmp_path / "new" / "folder"
    assert get(remote("good", "good"), folder) == DATA
    assert get(remote("good", "good"), folder) == DATA
    assert hosts.asked == [("good", None)]
    assert left_behind(folder) == {"file.bin"}
    assert capsys.readouterr().out == ""


def test_a_bar_shows_progress(remote, tmp_path, capsys):
    fetch(remote("good"), tmp_path, progress=True)
    assert "file.bin" in capsys.readouterr().err


def test_an_absent_file_is_asked_of_the_next_host(hosts, remote, tmp_path, capsys):
    assert get(remote("absent", "good"), tmp_path) == DATA
    assert [name for name, _ in hosts.asked] == ["absent", "good"]
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    assert "HTTP 404" in told


def test_a_slow_host_is_dropped_and_the_next_one_goes_on_from_there(hosts, remote, tmp_path, capsys):
    assert get(remote("throttled", "good"), tmp_path) == DATA
    (_, first), (name, then) = hosts.asked
    assert first is None
    assert name == "good"
    assert then.startswith("bytes=") and then != "bytes=0-"
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    assert "kB/s" in told


def test_a_host_that_falls_silent_is_slow(hosts, remote, tmp_path, capsys):
    assert get(remote("stalled", "good"), tmp_path) == DATA
    assert [name for name, _ in hosts.asked] == ["stalled", "good"]
    assert "only 0 kB/s" in capsys.readouterr().out


def test_where_every_host_is_slow_a_slow_one_will_do(hosts, remote, tmp_path, capsys):
    assert get(remote("absent", "throttled"), tmp_path) == DATA
    assert [name for name, _ in hosts.asked] == ["absent", "throttled", "throttled"]
    assert "No source is fast" in capsys.readouterr().out


def test_a_slow_host_that_then_fails_is_an_error_too(remote, tmp_path):
    with pytest.raises(DataError, match="only 0 kB/s"):
        get(remote("stalled"), tmp_path)
    assert part(tmp_path).stat().st_size > 0


def test_a_connection_that_is_cut_is_resumed(hosts, remote, tmp_path):
    assert get(remote("cut"), tmp_path) == DATA
    assert hosts.asked == [("cut", None), ("cut", "bytes=200000-"), ("cut", "bytes=300000-")]


def test_a_host_that_only_hangs_up_is_given_up(hosts, remote, tmp_path):
    with pytest.raises(DataError, match=r"file.bin could not be downloaded"):
        get(remote("hangs_up"), tmp_path)
    assert len(hosts.asked) == 1


def test_resumptions_are_counted(hosts, remote, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "RESUMPTIONS", 0)
    assert get(remote("cut", "good"), tmp_path) == DATA
    assert hosts.asked == [("cut", None), ("good", "bytes=200000-")]


def test_what_came_yesterday_is_not_fetched_again(hosts, remote, tmp_path):
    part(tmp_path).write_bytes(DATA[:123_456])
    assert get(remote("good"), tmp_path) == DATA
    assert hosts.asked == [("good", "bytes=123456-")]


def test_a_complete_part_needs_no_host(hosts, remote, tmp_path):
    part(tmp_path).write_bytes(DATA)
    assert get(remote("good"), tmp_path) == DATA
    assert hosts.asked == []


@pytest.mark.parametrize("rotten", [b"x" * 1000, b"x" * len(DATA), b"x" * (len(DATA) + 1)])
def test_a_rotten_part_is_fetched_anew(hosts, remote, tmp_path, rotten):
    part(tmp_path).write_bytes(rotten)
    assert get(remote("good"), tmp_path) == DATA
    assert hosts.asked[-1] == ("good", None)


def test_a_host_that_ignores_the_range_starts_over(hosts, remote, tmp_path):
    part(tmp_path).write_bytes(DATA[:1000])
    assert get(remote("no_ranges"), tmp_path) == DATA
    assert hosts.asked == [("no_ranges", "bytes=1000-")]


def test_a_wrong_checksum_never_gets_the_name(hosts, remote, tmp_path):
    with pytest.raises(DataError, match="wrong checksum"):
        get(remote("wrong"), tmp_path)
    assert left_behind(tmp_path) == set()
    assert get(remote("wrong", "good"), tmp_path) == DATA


@pytest.mark.parametrize("behaviour", ["page", "other_range"])
def test_a_wrong_answer_does_not_spoil_what_we_have(remote, tmp_path, behaviour):
    part(tmp_path).write_bytes(DATA[:5000])
    with pytest.raises(DataError, match="bytes"):
        get(remote(behaviour), tmp_path)
    assert part(tmp_path).read_bytes() == DATA[:5000]


def test_a_host_that_never_ends_is_stopped(remote, tmp_path):
    with pytest.raises(DataError, match="more than the 400,000 bytes"):
        get(remote("endless"), tmp_path)
    assert part(tmp_path).stat().st_size <= len(DATA)


def test_a_host_that_says_no_length_and_stops_early_is_resumed(hosts, remote, tmp_path):
    assert get(remote("short"), tmp_path) == DATA
    assert hosts.asked == [("short", None), ("short", "bytes=300000-")]


def test_without_a_network_it_says_so_in_one_sentence(tmp_path, capsys):
    remote = RemoteFile("file.bin", 1, "0" * 32, ("https://one.example/file.bin", "https://two.example/file.bin"))
    with pytest.raises(DataError, match=r"none of the 2 hosts of file.bin can be reached .*offline") as error:
        get(remote, tmp_path)
    assert "\n" not in str(error.value)
    assert capsys.readouterr().out == ""


def test_a_host_that_refuses_among_others_is_named(remote, hosts, tmp_path):
    remote = remote("absent")
    remote = RemoteFile(remote.name, remote.size, remote.md5, (*remote.sources, "http://127.0.0.1:9/file.bin"))
    with pytest.raises(DataError, match=r"HTTP 404; 127.0.0.1: no connection"):
        get(remote, tmp_path)


def test_two_at_once_download_once(hosts, remote, tmp_path, capsys):
    remote = remote("busy")
    results = []
    threads = [threading.Thread(target=lambda: results.append(get(remote, tmp_path))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [DATA, DATA]
    assert len(hosts.asked) == 1
    assert "Another process is preparing file.bin" in capsys.readouterr().out


def test_a_place_that_cannot_be_written_is_said(remote, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"file\.bin cannot be saved in .*file"):
        get(remote("good"), tmp_path / "file")
