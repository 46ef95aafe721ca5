"""The command line through `main`, as a user types it; digits, tiny models, a handful of steps."""

import importlib.util
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import fields
from importlib import metadata
from pathlib import Path

import pytest
import torch
from PIL import Image

from c2f import cli, doctor
from c2f.models import create_model
from c2f.models.weights import provenance
from c2f.training import loop
from c2f.training.recipes import RECIPES, Recipe
from c2f.training.run import load_run

TINY = shlex.split("--set dims=8,8 --set depths=1,1 --set kernel_size=3 --image-size 16")
OVERRIDES = {"dims": [8, 8], "depths": [1, 1], "kernel_size": 3}
PHOTOGRAPHS = importlib.util.find_spec("skimage") is not None
TRAIN = ["train", "--data", "digits", "--epochs", "1", "--batch-size", "512", "--no-channels-last", *TINY]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert cli.main([*TRAIN, "--ema", "0.5", "--out", str(folder), *["--record"] * PHOTOGRAPHS]) == 0
    return folder


def fails(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    """The one sentence that a mistake gets."""
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    *bars, sentence = err.splitlines()  # a progress bar may have been on the screen before
    assert sentence.startswith("c2f: ") and not any("c2f:" in bar for bar in bars)
    return sentence


# ---- What there is


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_lists_the_commands(capsys, arguments):
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in ("train", "evaluate", "compare", "list", "data", "doctor"))


def test_every_field_of_the_recipe_is_a_flag_with_its_help(capsys):
    assert cli.main(["train", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"--{field.name.replace('_', '-')}" in out for field in fields(Recipe))
    assert "Share of the target spread" in out  # the sentence under Recipe.label_smoothing


@pytest.mark.parametrize("name", RECIPES)
def test_the_named_recipe_gives_the_defaults(name):
    assert cli.parse(["train", "--recipe", name]).settings == RECIPES[name]()
    changed = cli.parse(["train", "--lr", "0.5", f"--recipe={name}", "--seed", "7"]).settings
    assert (changed.lr, changed.seed, changed.batch_size) == (0.5, 7, RECIPES[name]().batch_size)


def test_overrides_are_read_as_python_would():
    settings = ["dims=8,16", "kernel_size=7", "drop_path=0.2", "fusion=sum", "layer_scale=none", "x=true", "y=(1, 2)"]
    assert cli.parse_overrides(settings) == {
        "dims": (8, 16), "kernel_size": 7, "drop_path": 0.2, "fusion": "sum", "layer_scale": None,
        "x": True, "y": (1, 2),
    }  # fmt: skip


def test_list_shows_models_recipes_and_data(capsys, monkeypatch):
    models = ["conv2former_n_cifar", "swin_t"]
    monkeypatch.setattr("c2f.models.list_models", lambda: models)  # all of them take seconds to build
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in [*models, *RECIPES, "digits", "cifar10"])
    assert "8,847,498" in out and "27,527,044" in out


def test_data_shows_what_is_here_and_where_it_is_from(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("C2F_DATA", str(tmp_path))
    assert cli.main(["data"]) == 0
    digits, cifar10 = capsys.readouterr().out.splitlines()
    assert "here" in digits and "1,797 images" in digits and "absent" in cifar10
    assert cli.main(["data", "digits"]) == 0
    out = capsys.readouterr().out
    assert "scikit-learn" in out and "sha256" in out and "0, 1, 2" in out


# ---- Images of one's own


@pytest.fixture(scope="module")
def own_images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of images called pics, and a run that was trained on it."""
    place = tmp_path_factory.mktemp("photos")
    for (split, count), (label, level) in itertools.product(
        (("train", 8), ("test", 3)), (("dark", 20), ("light", 230))
    ):
        (place / "pics" / split / label).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (16, 16), (level, level, 5 * i)).save(place / "pics" / split / label / f"{i}.png")
    settings = ["--epochs", "1", "--batch-size", "4", "--warmup-epochs", "0", "--no-channels-last", *TINY]
    run = place / "runs" / "mine"
    assert cli.main(["train", "--data", str(place / "pics"), *settings, "--out", str(run)]) == 0
    return place / "pics", run


def test_a_run_finds_its_images_from_any_folder(own_images, tmp_path, monkeypatch, capsys):
    pics, run = own_images
    monkeypatch.chdir(tmp_path)
    decoy = tmp_path / "pics"
    shutil.copytree(pics, decoy)
    shutil.rmtree(decoy / "test" / "dark")
    shutil.copytree(decoy / "test" / "light", decoy / "test" / "dark")
    assert cli.main(["evaluate", str(run)]) == 0
    theirs = capsys.readouterr().out
    assert cli.main(["evaluate", str(run), "--data", str(pics)]) == 0
    assert capsys.readouterr().out == theirs
    assert cli.main(["evaluate", str(run), "--data", str(decoy)]) == 0
    assert capsys.readouterr().out != theirs


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_images_that_changed_or_went_are_never_replaced_in_silence(command, own_images, tmp_path, monkeypatch, capsys):
    pics, run = own_images
    monkeypatch.setenv("C2F_DATA", str(tmp_path / "data"))
    kept = tmp_path / "kept"
    shutil.copytree(pics, kept)
    try:
        Image.new("RGB", (16, 16), (0, 255, 0)).save(pics / "test" / "dark" / "0.png")
        assert "are not those of the run any more" in fails(capsys, command, str(run))
        shutil.rmtree(pics)
        assert f"the run's images were in {pics}, where nothing is now" in fails(capsys, command, str(run))
    finally:
        shutil.rmtree(pics, ignore_errors=True)
        shutil.copytree(kept, pics)


def test_predict_takes_files_and_folders_without_labels(own_images, tmp_path, capsys):
    pics, run = own_images
    one, folder = pics / "test" / "dark" / "0.png", pics / "test" / "light"
    assert cli.main(["predict", str(run), str(one), str(folder)]) == 0
    table = capsys.readouterr().out
    assert str(one) in table and str(folder / "2.png") in table and "dark" in table and "light" in table
    assert cli.main(["predict", str(run), str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 3
    assert sum(found[str(folder / "2.png")].values()) == pytest.approx(1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no image")
    assert "holds no image" in fails(capsys, "predict", str(run), str(tmp_path / "empty"))
    assert "--top is 0; use at least 1" in fails(capsys, "predict", str(run), str(one), "--top", "0")
    assert "there is no file" in fails(capsys, "predict", str(run), str(tmp_path / "absent.png"))
    assert "cannot be read (" in fails(capsys, "predict", str(run), str(tmp_path / "text.png"))


def test_how_images_were_loaded_is_kept_with_the_run(own_images, tmp_path, capsys):
    pics, run = own_images[0] / "train", tmp_path / "run"
    settings = ["--epochs", "1", "--batch-size", "4", "--warmup-epochs", "0", "--no-channels-last", *TINY]
    command = ["train", "--data", str(pics), "--split", "0.25", "--channels", "1", *settings, "--out", str(run)]
    assert cli.main(command) == 0
    assert load_run(run).recipe["data"]["split"] == 0.25
    assert load_run(run).recipe["overrides"]["in_channels"] == 1
    capsys.readouterr()
    assert cli.main(["evaluate", str(run)]) == 0
    assert "on the 4 test images of train" in capsys.readouterr().out
    assert cli.main(["predict", str(run), str(pics / "dark")]) == 0
    figure = str(tmp_path / "figure.png")
    assert cli.main(["compare", str(run), "--rounds", "1", "--batch-size", "2", "--figure", figure]) == 0
    assert cli.main(["evaluate", str(run), "--data", str(own_images[0])]) == 0
    assert re.search("swin_t has no .*in_channels", fails(capsys, *command, "--model", "swin_t"))


# ---- Train, resume, evaluate


def test_training_leaves_a_run_and_says_how_to_go_on(run):
    summary = json.loads((run / "summary.json").read_text())
    assert summary["model"] == "conv2former_mini_cifar" and summary["complete"]
    assert summary["overrides"] == {"num_classes": 10, **OVERRIDES}
    assert summary["recipe"]["ema"] == 0.5 and not summary["recipe"]["channels_last"]
    assert summary["precision"] == "float32"


def test_exported_weights_are_loaded_by_name_and_say_where_they_are_from(run, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("C2F_DATA", str(tmp_path))
    assert cli.main(["export", str(run), "--weights", "mine"]) == 0
    trained, kept = re.findall(r"[\d.]+(?=%)", capsys.readouterr().out)
    assert abs(float(trained) - float(kept)) < 1
    loaded = create_model("conv2former_mini_cifar", weights="mine", **OVERRIDES)
    for name, value in load_run(run).load_model("final").state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=1e-3, atol=1e-6)
    about = provenance("conv2former_mini_cifar", "mine")
    assert about["data"]["name"] == "digits" and about["command"].startswith("c2f train --model conv2former_mini_cifar")


def test_a_finished_run_is_left_alone_and_another_recipe_is_refused(run, capsys):
    before = (run / "final.safetensors").read_bytes()
    assert cli.main([*TRAIN, "--ema", "0.5", "--out", str(run)]) == 0
    out = capsys.readouterr().out
    assert "resuming" in out and f"c2f evaluate {run}" in out
    assert (run / "final.safetensors").read_bytes() == before
    assert "recipe.ema was 0.5 and is 0.9 now" in fails(capsys, *TRAIN, "--ema", "0.9", "--out", str(run))


def test_ctrl_c_keeps_a_checkpoint_and_the_same_command_goes_on(run, tmp_path, capsys, monkeypatch):
    class Interrupt(loop.Callback):
        def on_step(self, state: loop.TrainingState) -> None:
            if state.step == 1:
                signal.raise_signal(signal.SIGINT)

    train = loop.train
    monkeypatch.setattr(loop, "train", lambda *a, **k: train(*a, **{**k, "callbacks": [Interrupt()]}))
    command = [*TRAIN, "--ema", "0.5", "--out", str(tmp_path / "run")]
    assert cli.main(command) == 130
    out = capsys.readouterr().out
    assert "interrupted after step" in out and "last.ckpt" in out and "the same command goes on" in out
    assert "no finished epoch" in fails(capsys, "compare", str(tmp_path / "run"))

    monkeypatch.setattr(loop, "train", train)
    assert cli.main(command) == 0
    assert "resuming" in capsys.readouterr().out
    assert (tmp_path / "run/final.safetensors").read_bytes() == (run / "final.safetensors").read_bytes()


def test_out_has_a_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "train", lambda *a, out, **k: pytest.fail(str(out)))
    with pytest.raises(pytest.fail.Exception, match="conv2former_mini_cifar-digits"):
        cli.main(TRAIN)


@pytest.mark.parametrize("file", ["", "final.safetensors", "best.safetensors", "last.ckpt"])
def test_evaluation_agrees_with_training(run, capsys, file):
    record = load_run(run).history[-1]
    assert cli.main(["evaluate", str(run / file), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert f"loss {record.test_loss:.4f}" in out and f"accuracy {record.test_accuracy:.2%}" in out
    rows = [line for line in out.splitlines() if line.startswith("|")]
    assert len(rows) == 12 and "most often taken for" in rows[0]  # header, rule, ten digits


def test_a_run_without_final_weights_is_evaluated_at_its_checkpoint(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run/final.safetensors").unlink()
    assert cli.main(["evaluate", str(tmp_path / "run")]) == 0
    assert "last.ckpt" in capsys.readouterr().out


# ---- Compare


def test_compare_works_without_weights(run, tmp_path, capsys):
    kept = tmp_path / "kept"
    kept.mkdir()
    for name in ("recipe.json", "summary.json", "history.csv"):
        shutil.copy(run / name, kept)
    figure = tmp_path / "figures/curves.png"
    command = ["compare", str(run), str(kept), "--rounds", "1", "--batch-size", "2", "--figure", str(figure)]
    assert cli.main(command) == 0
    out, err = capsys.readouterr()
    assert "conv2former_mini_cifar (tiny)" in out and "conv2former_mini_cifar (kept)" in out
    assert "batch 2" in out and "(lowest–highest) of 1 rounds." in out and "not measured" not in out
    assert f"* This table again: `c2f {shlex.join(command)}`" in out
    assert figure.read_bytes().startswith(b"\x89PNG") and "test accuracy" in err

    assert cli.main(["compare", str(kept), "--no-measure", "--figure", str(figure)]) == 0
    assert "not measured" in capsys.readouterr().out


# ---- What goes wrong


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("train --recipe slow", "there is no recipe 'slow'; the recipes are seed, digits, laptop, hour, gpu"),
        ("train --epochs 0", "epochs is 0; use at least 1"),
        ("train --model resnet --image-size 16", "there is no model 'resnet'; the models are"),
        ("train --set kernel_size", "--set takes name=value"),
        ("train --set kernel_size=4", "positive odd number"),
        ("train --set size=4", "has no size; it can be changed in"),
        ("train --device tpu", "here, cpu"),
        ("train --threads 0", "use at least 1"),
        ("train --data nowhere", "no data set and no folder"),
        ("data nowhere", "no data set and no folder"),
        ("evaluate nowhere", "nowhere is not the folder of a run"),
        ("compare", "name the folders of one run or more"),
        ("compare nowhere", "nowhere is not the folder of a run"),
        ("compare .", "not the folder of a run"),
        ("evaluate .", "not the folder of a run"),
    ],
)
def test_a_mistake_gets_one_sentence(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if "device" in arguments:
        monkeypatch.setattr("c2f.device.available_devices", lambda: ["cpu"])
    assert sentence in fails(capsys, *arguments.split())


def test_weights_are_asked_only_about_their_own_classes(run, capsys, tmp_path):
    from PIL import Image

    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (16, 16)).save(tmp_path / split / name / "1.png")
    assert "has the classes cat, dog" in fails(capsys, "evaluate", str(run), "--data", str(tmp_path))
    assert "holds no weights" in fails(capsys, "evaluate", str(run / "history.csv"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("bogus", "bogus"),
        ("train --lrr 3", "Perhaps you meant"),
        ("train --epochs many", "--epochs"),
        ("train --precision float16", "bf16"),
        ("train --recipe", "--recipe"),
    ],
)
def test_what_the_parser_does_not_know_it_says(arguments, said, capsys):
    assert cli.main(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert said in err and not out


def test_a_traceback_can_be_had(monkeypatch):
    monkeypatch.setenv("C2F_TRACEBACK", "1")
    with pytest.raises(ValueError, match="no recipe"):
        cli.main(["train", "--recipe", "slow"])


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (KeyboardInterrupt(), 130, "c2f: interrupted."),
        (PermissionError(13, "Permission denied", "a file"), 2, "c2f: Permission denied: a file"),
        (OSError(28, "No space left on device"), 2, "c2f: No space left on device"),
        (ModuleNotFoundError("No module named 'kornia'"), 2, "c2f: No module named 'kornia'; `c2f doctor` says"),
        (MemoryError(), 2, "c2f: MemoryError"),
    ],
)
def test_trouble_outside_is_said_in_one_sentence(error, code, sentence, monkeypatch, capsys):
    def run(self: cli.Data) -> int:
        raise error

    monkeypatch.setattr(cli.Data, "run", run)
    assert cli.main(["data"]) == code
    assert capsys.readouterr().err.startswith(sentence)


def test_only_the_first_of_several_processes_talks(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    assert cli.main(["data"]) == 0
    assert cli.main(["train", "--help"]) == 0
    assert capsys.readouterr() == ("", "")
    assert cli.main(["compare"]) == 2
    assert capsys.readouterr().err.startswith("c2f, process 1: ")


# ---- Doctor


def test_doctor_finds_this_machine_ready(capsys):
    assert cli.main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11
    assert all(line[:2] in ("ok", "!!") for line in lines[:-1]) and lines[-1].startswith("Ready")


def test_doctor_says_what_is_missing_and_what_to_do(monkeypatch):
    found = metadata.version

    def version(name: str) -> str:
        if name == "tqdm":
            raise metadata.PackageNotFoundError(name)
        return "0.1" if name == "tyro" else found(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr("jupyter_core.paths.jupyter_path", lambda *_: [])
    monkeypatch.setattr("torch.get_num_threads", lambda: 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    monkeypatch.setitem(doctor.CHECKS, "convmod", lambda: 1 / 0)
    findings = {name: doctor.find(name) for name in doctor.CHECKS}
    assert "tqdm is missing, tyro is 0.1, not" in str(findings["packages"]) and "make" in str(findings["packages"])
    assert str(findings["lab"]).startswith("!!") and "jupyterlab_widgets" in str(findings["lab"])
    assert "OMP_NUM_THREADS" in str(findings["cores"])
    assert "C2F_DATA" in str(findings["disk"])
    assert "division by zero" in str(findings["convmod"])
    sentence = doctor.verdict(list(findings.values()))
    assert sentence.startswith("Not ready: mend packages, lab, disk, convmod first")


def test_doctor_finds_a_folder_that_lab_cannot_write_to(monkeypatch, tmp_path):
    (tmp_path / "home").write_text("a file where the folder would be is as good as a disk that is read-only")
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    for name in ("DATA", "RUNTIME"):
        monkeypatch.setenv(f"JUPYTER_{name}_DIR", str(tmp_path / "home" / name.lower()))
    finding = doctor.find("folders")
    assert not finding.ok
    assert str(tmp_path / "home" / "runtime") in str(finding)
    assert "in HOME, or in JUPYTER_DATA_DIR and JUPYTER_RUNTIME_DIR" in str(finding)
    assert doctor.verdict([finding]).startswith("Not ready: mend folders first")


def test_doctor_knows_a_gpu_that_torch_cannot_use(monkeypatch):
    monkeypatch.setattr("c2f.device.available_devices", lambda: ["cpu"])
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    finding = doctor.find("device")
    assert not finding.ok and "CUDA build" in str(finding)
    assert doctor.verdict([finding]) == "Ready to begin; for the whole course see to device."


def python(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "100"}, timeout=240)


def test_the_package_offers_its_models_with_their_first_use():
    import c2f
    import c2f.models

    assert c2f.create_model is c2f.models.create_model and c2f.__getattr__("models") is c2f.models
    assert all(hasattr(c2f, name) for name in c2f.__all__)
    with pytest.raises(AttributeError, match="'nothing'"):
        c2f.nothing  # noqa: B018


def test_doctor_speaks_where_torch_and_lab_are_missing():
    program = """
import sys
from c2f.cli import main

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "torchvision", "jupyter_core", "packaging"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
sys.exit(main(["doctor"]))
"""
    done = python("-c", program)
    lines = done.stdout.splitlines()
    assert done.returncode == 1 and not done.stderr
    assert len(lines) == 11 and lines[-1].startswith("Not ready: mend packages, torch")
    assert sum("torch" in line and line.startswith("!!") for line in lines) >= 3


def test_digits_have_a_recipe_that_does_not_mirror_them():
    from c2f.cli import parse

    assert parse(["train"]).settings.flip == 0
    assert parse(["train", "--data", "digits", "--epochs", "2"]).settings.epochs == 2
    assert parse(["train", "--data", "cifar10"]).settings.flip == 0.5
    assert parse(["train", "--recipe", "laptop"]).recipe == "laptop"


@pytest.mark.skipif(not PHOTOGRAPHS, reason="the photographs are scikit-image's: pip install 'c2f[lab]'")
def test_record_keeps_what_the_blocks_see(run):
    from c2f.maps.recording import Recording

    recording = Recording.load(run / "recording.safetensors")
    assert recording.names == ["cat", "coffee"] and recording.kind == "Conv2Former"
    assert recording.about["data"] == "digits" and recording.about["seed"] == 42
