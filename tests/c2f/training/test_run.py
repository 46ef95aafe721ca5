"""Checkpoints: what goes in comes out, and what should not be opened is not."""

import hashlib
import io
import json
import os
import pickle
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

import c2f
from c2f.files import load_tensors, write_atomically
from c2f.training.recipes import Recipe
from c2f.training.run import (
    DIGEST_BYTES,
    MAGIC,
    CheckpointError,
    RunFolder,
    load_checkpoint,
    load_into,
    load_run,
    load_weights,
    save_checkpoint,
    save_weights,
)

ROOT = Path(__file__).parents[3]


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"step": 7, "model": {"w": torch.arange(6.0).view(2, 3)}, "history": [{"loss": 0.5}]})
    return path


def with_checksum(payload: bytes) -> bytes:
    return MAGIC + hashlib.sha256(payload).digest() + payload


def test_what_goes_in_comes_out(checkpoint):
    state = load_checkpoint(checkpoint)
    assert state["step"] == 7
    assert state["history"] == [{"loss": 0.5}]
    assert torch.equal(state["model"]["w"], torch.arange(6.0).view(2, 3))


@pytest.mark.parametrize("keep", [0, 5, len(MAGIC) + 3, len(MAGIC) + DIGEST_BYTES, -1])
def test_a_truncated_checkpoint_is_refused(checkpoint, keep):
    checkpoint.write_bytes(checkpoint.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="last.ckpt is (damaged|not a checkpoint)"):
        load_checkpoint(checkpoint)


@pytest.mark.parametrize("where", [len(MAGIC) + 1, 200, -10])
def test_a_flipped_bit_is_refused(checkpoint, where):
    content = bytearray(checkpoint.read_bytes())
    content[where] ^= 1
    checkpoint.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(checkpoint)


class Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_malicious_pickle_is_refused_and_not_run(checkpoint, tmp_path):
    buffer = io.BytesIO()
    torch.save({"step": 0, "model": Attack(tmp_path / "owned")}, buffer)
    for payload in (buffer.getvalue(), pickle.dumps(Attack(tmp_path / "owned"))):
        checkpoint.write_bytes(with_checksum(payload))
        with pytest.raises(CheckpointError, match="was not opened"):
            load_checkpoint(checkpoint)
    assert not (tmp_path / "owned").exists()


def test_a_missing_checkpoint_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_checkpoint(tmp_path / "last.ckpt")


def test_weights_of_another_model_are_refused_in_one_sentence():
    small, large = (c2f.create_model("conv2former_mini_cifar", dims=(8,), depths=(1,), kernel_size=k) for k in (3, 5))
    with pytest.raises(CheckpointError, match=r"another model: stages.0.*\(8, 1, 3, 3\) there and \(8, 1, 5, 5\) here"):
        load_into(large, small.state_dict(), Path("small.ckpt"))
    with pytest.raises(CheckpointError, match=r"stem.0.weight is \(4, 3, 3, 3\) there and missing here"):
        load_into(torch.nn.Linear(2, 2), small.state_dict(), Path("small.ckpt"))


def test_weights_travel_as_safetensors_with_their_provenance(tmp_path):
    model = c2f.create_model("conv2former_mini_cifar", dims=(8,), depths=(1,))
    model.to(memory_format=torch.channels_last)
    save_weights(tmp_path / "final.safetensors", model, {"data": "digits"})
    loaded = load_weights(tmp_path / "final.safetensors")
    assert all(torch.equal(value, loaded[name]) for name, value in model.state_dict().items())
    assert b"digits" in (tmp_path / "final.safetensors").read_bytes()[:4000]


def test_damaged_weights_are_refused(tmp_path):
    (tmp_path / "final.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_weights(tmp_path / "final.safetensors")
    with pytest.raises(CheckpointError, match="there are no weights"):
        load_weights(tmp_path / "best.safetensors")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    write_atomically(path, b"old")

    def broken(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_folder_that_is_no_run_says_so(tmp_path):
    with pytest.raises(CheckpointError, match=r"not the folder of a run: it has no recipe.json"):
        load_run(tmp_path)


RUN = {"model": "conv2former_n", "overrides": {}, "data": {}, "recipe": asdict(Recipe(epochs=1))}


@pytest.mark.parametrize("content", [b'{"model": ', b"null", b"{}", b"[]", b'"a"', b"\xff\x00", b""])
@pytest.mark.parametrize("name", ["recipe.json", "summary.json", "history.csv"])
def test_a_damaged_run_says_so(tmp_path, name, content):
    (tmp_path / "recipe.json").write_text(json.dumps(RUN))
    (tmp_path / name).write_bytes(content)
    what = "train into a new folder" if name == "recipe.json" else "the `c2f train` command .* writes it again"
    with pytest.raises(CheckpointError, match=rf"{name} is damaged \(.*\); {what}"):
        load_run(tmp_path)
    if name == "recipe.json":
        with pytest.raises(CheckpointError, match="is damaged"):
            RunFolder(tmp_path, RUN).resume()


def test_a_run_of_an_earlier_version_goes_on(tmp_path):
    (tmp_path / "recipe.json").write_text(json.dumps({**RUN, "recipe": {"epochs": 1}}))
    assert RunFolder(tmp_path, RUN).resume() is None


def test_a_damaged_checkpoint_is_replaced_by_the_one_before(checkpoint, capsys):
    folder = RunFolder(checkpoint.parent, RUN)
    for step in (8, 9):
        folder.save(step=step)
    assert folder.resume()["step"] == 9
    content = bytearray((checkpoint.parent / "last.ckpt").read_bytes())
    content[-1] ^= 1
    for spoilt in (bytes(content), b""):
        (checkpoint.parent / "last.ckpt").write_bytes(spoilt)
        assert folder.resume()["step"] == 8
        assert "previous.ckpt holds the step before, 8: going on there" in capsys.readouterr().out
    (checkpoint.parent / "last.ckpt").unlink()  # killed between the two writes
    assert folder.resume()["step"] == 8


def test_any_flipped_bit_in_weights_is_found(tmp_path):
    path = tmp_path / "final.safetensors"
    save_weights(path, torch.nn.Linear(3, 2), {"data": "digits"})
    content = path.read_bytes()
    for where in range(0, len(content), 7):
        path.write_bytes(content[:where] + bytes([content[where] ^ 4]) + content[where + 1 :])
        try:
            found = load_weights(path)
        except CheckpointError:
            continue
        path.write_bytes(content)
        same = load_weights(path)  # where the bit was in what is said of the weights, they themselves are unharmed
        assert found.keys() == same.keys()
        assert all(torch.equal(found[name], same[name]) for name in same)


def test_files_without_a_digest_of_their_own_are_in_a_list_beside_them(tmp_path):
    content = save({"w": torch.ones(3)})
    (tmp_path / "kit.safetensors").write_bytes(content)
    (tmp_path / "SHA256SUMS").write_text(f"{hashlib.sha256(content).hexdigest()}  kit.safetensors\n")
    assert load_tensors(tmp_path / "kit.safetensors")[0]["w"].tolist() == [1, 1, 1]
    (tmp_path / "kit.safetensors").write_bytes(content[:-1] + b"\x3e")
    with pytest.raises(ValueError, match="checksum does not match"):
        load_tensors(tmp_path / "kit.safetensors")


def test_the_kits_own_weights_and_recordings_are_whole():
    for folder in ("weights", "results/replay"):
        files = sorted((ROOT / "data" / folder).glob("*.safetensors"))
        listed = (ROOT / "data" / folder / "SHA256SUMS").read_text().split()[1::2]
        assert listed == [file.name for file in files]
        for file in files:
            load_tensors(file)
