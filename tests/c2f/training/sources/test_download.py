"""Downloads from hosts that are absent, slow, wrong, or cut us off; all of them on this computer."""

import random
from pathlib import Path

import pytest

from c2f.training.sources import cifar10
from c2f.training.sources.dataset import DataError

DATA = random.Random(0).randbytes(400_000)


@pytest.fixture(autouse=True)
def little_patience(monkeypatch):
    for name, value in {"SLOWEST": 100e3, "WINDOW": 0.15, "SILENCE": 1.0}.items():
        monkeypatch.setattr(cifar10, name, value)


@pytest.fixture
def hosts(serve):
    return serve(DATA)


@pytest.fixture
def get(hosts, publish, tmp_path):
    """get("absent", "good"): what comes from hosts that behave like this, in this order."""

    def download(*behaviours: str, folder: Path = tmp_path, progress: bool = False) -> bytes:
        publish(DATA, *(hosts.url(name) if name.isidentifier() else name for name in behaviours))
        return cifar10.download(folder, progress).read_bytes()

    return download


def part(folder: Path) -> Path:
    return folder / f"{cifar10.ARCHIVE}.part"


def left_behind(folder: Path) -> set[str]:
    """Names of files that hold something; a lock file is empty."""
    return {file.name for file in folder.iterdir() if file.stat().st_size}


def test_a_good_host_is_asked_once(hosts, get, tmp_path, capsys):
    folder = tmp_path / "new" / "folder"
    assert get("good", "good", folder=folder) == DATA
    assert hosts.asked == [("good", None)]
    assert left_behind(folder) == {cifar10.ARCHIVE}
    assert capsys.readouterr().out == ""


def test_a_bar_shows_progress(get, capsys):
    get("good", progress=True)
    assert cifar10.ARCHIVE in capsys.readouterr().err


def test_an_absent_file_is_asked_of_the_next_host(hosts, get, tmp_path, capsys):
    assert get("absent", "good") == DATA
    assert [name for name, _ in hosts.asked] == ["absent", "good"]
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    assert "404" in told


def test_a_slow_host_is_dropped_and_the_next_one_goes_on_from_there(hosts, get, tmp_path, capsys):
    assert get("throttled", "good") == DATA
    (_, first), (name, then) = hosts.asked
    assert first is None
    assert name == "good"
    assert then.startswith("bytes=") and then != "bytes=0-"
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    assert "kB/s" in told


def test_a_host_that_falls_silent_is_left(hosts, get, tmp_path, capsys):
    assert get("stalled", "good") == DATA
    assert [name for name, _ in hosts.asked] == ["stalled", "good"]
    assert "Read timed out" in capsys.readouterr().out


def test_where_every_host_is_slow_a_slow_one_will_do(hosts, get):
    assert get("absent", "throttled") == DATA
    assert [name for name, _ in hosts.asked] == ["absent", "throttled", "absent", "throttled"]


def test_a_slow_host_that_then_fails_is_an_error_too(get, tmp_path):
    with pytest.raises(DataError, match="Read timed out"):
        get("stalled")
    assert part(tmp_path).stat().st_size > 0


def test_a_connection_that_is_cut_is_resumed(hosts, get, tmp_path):
    assert get("cut") == DATA
    assert hosts.asked == [("cut", None), ("cut", "bytes=200000-"), ("cut", "bytes=300000-")]


def test_a_host_that_only_hangs_up_is_given_up(hosts, get, tmp_path):
    with pytest.raises(DataError, match="could not be downloaded .127.0.0.1: .*0 bytes read, 400000 more expected"):
        get("hangs_up")
    assert len(hosts.asked) == 3


def test_after_a_cut_the_next_host_goes_on(hosts, get, tmp_path):
    assert get("cut", "good") == DATA
    assert hosts.asked == [("cut", None), ("good", "bytes=200000-")]


def test_what_came_yesterday_is_not_fetched_again(hosts, get, tmp_path):
    part(tmp_path).write_bytes(DATA[:123_456])
    assert get("good") == DATA
    assert hosts.asked == [("good", "bytes=123456-")]


def test_a_complete_part_needs_no_host(hosts, get, tmp_path):
    part(tmp_path).write_bytes(DATA)
    assert get("good") == DATA
    assert hosts.asked == []


@pytest.mark.parametrize("rotten", [b"x" * 1000, b"x" * len(DATA), b"x" * (len(DATA) + 1)])
def test_a_rotten_part_is_fetched_anew(hosts, get, tmp_path, rotten):
    part(tmp_path).write_bytes(rotten)
    assert get("good") == DATA
    assert hosts.asked[-1] == ("good", None)


def test_a_host_that_ignores_the_range_starts_over(hosts, get, tmp_path):
    part(tmp_path).write_bytes(DATA[:1000])
    assert get("no_ranges") == DATA
    assert hosts.asked == [("no_ranges", "bytes=1000-")]


def test_a_wrong_checksum_never_gets_the_name(hosts, get, tmp_path):
    with pytest.raises(DataError, match="wrong checksum"):
        get("wrong")
    assert left_behind(tmp_path) == set()
    assert get("wrong", "good") == DATA


@pytest.mark.parametrize("behaviour", ["page", "other_range", "endless"])
def test_a_wrong_answer_does_not_spoil_what_we_have(get, tmp_path, behaviour):
    part(tmp_path).write_bytes(DATA[:5000])
    with pytest.raises(DataError, match="bytes"):
        get(behaviour)
    assert part(tmp_path).read_bytes() == DATA[:5000]


def test_without_a_network_it_says_so_in_one_sentence(get, capsys):
    with pytest.raises(DataError, match=r"none of its 2 hosts can be reached.*offline") as error:
        get("https://one.example/file.bin", "https://two.example/file.bin")
    assert "\n" not in str(error.value)
    assert capsys.readouterr().out == ""


def test_a_host_that_refuses_among_others_is_named(get):
    with pytest.raises(DataError, match=r"127.0.0.1: 404 .*; localhost: no connection"):
        get("absent", "http://localhost:9/file.bin")


def test_a_place_that_cannot_be_written_is_said(get, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"tar.gz cannot be saved in .*file"):
        get("good", folder=tmp_path / "file")
