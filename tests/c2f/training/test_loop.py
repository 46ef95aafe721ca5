"""The loop: it learns, it leaves what it says, and no kill changes its bits."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from dataclasses import replace
from functools import partial
from pathlib import Path

import filelock
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import c2f
from c2f.device import choose_device
from c2f.fast import autotune
from c2f.training.augment import normalize
from c2f.training.data import Dataset, Split, load_dataset
from c2f.training.loop import (
    Callback,
    History,
    TrainingError,
    class_weights,
    epoch_order,
    evaluate,
    make_optimizers,
    reduced_size,
    set_drop_path,
    train,
)
from c2f.training.muon import Muon
from c2f.training.recipes import Recipe
from c2f.training.run import CheckpointError, load_checkpoint, load_run, load_weights

# Everything that draws random numbers or keeps state between steps is on.
RECIPE = Recipe(
    epochs=3, batch_size=32, lr=3e-3, weight_decay=0.05, warmup_epochs=0.5, drop_path=0.2, ema=0.9, clip_grad=1.0,
    color_jitter=0.2, crop="shift", crop_padding=2, erasing=0.3, mixup=0.2, cutmix=0.5, rotation=10, seed=7,
)  # fmt: skip
STEPS_PER_EPOCH = 5
TWO_PROCESSES = Recipe(epochs=2, batch_size=32, lr=3e-3, weight_decay=0.05, drop_path=0.0, ema=0.9)


def small(data: Dataset, train_images: int = 160, test_images: int = 50) -> Dataset:
    splits = {"train": (data.train, train_images), "test": (data.test, test_images)}
    return replace(
        data, **{name: Split(split.images[:count], split.labels[:count]) for name, (split, count) in splits.items()}
    )


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return small(load_dataset("digits", image_size=16))


def tiny(**overrides) -> nn.Module:
    torch.manual_seed(0)
    return c2f.create_model("conv2former_mini_cifar", dims=(8, 16), depths=(1, 2), kernel_size=5, **overrides)


class At(Callback):
    """Do something after a step, or after an epoch (both counted from 1)."""

    def __init__(self, action, step=None, epoch=None):
        self.action, self.step, self.epoch = action, step, epoch

    def on_step(self, state):
        if state.step == self.step:
            self.action(state)

    def on_epoch(self, state):
        if len(state.history) == self.epoch:
            self.action(state)


def press_ctrl_c(state=None):
    os.kill(os.getpid(), signal.SIGINT)


def run(digits, out=None, recipe=RECIPE, model=None, **arguments) -> tuple[nn.Module, History]:
    model = model or tiny()
    return model, train(model, digits, recipe, out=out, device="cpu", progress=False, **arguments)


@pytest.fixture(scope="module")
def undisturbed(digits, tmp_path_factory):
    """A run that was left alone, to compare the others with."""
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    model, history = run(digits, out)
    return out, model, history


def assert_same_bits(out, undisturbed):
    expected = load_weights(undisturbed[0] / "final.safetensors")
    found = load_weights(out / "final.safetensors")
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert losses(load_run(out).history) == losses(undisturbed[2])


def losses(history):
    return [(r.lr, r.train_loss, r.train_accuracy, r.test_loss, r.test_accuracy) for r in history.records]


def test_it_learns_the_digits():
    data = small(load_dataset("digits", image_size=16), 800, 300)
    recipe = Recipe(epochs=5, batch_size=32, lr=1e-2, warmup_epochs=0.5, label_smoothing=0.0)
    _, history = run(data, recipe=recipe, model=tiny(), accelerate=False)
    assert history[-1].test_accuracy > 0.83
    assert history[-1].train_loss < history[0].train_loss


def test_a_run_leaves_its_folder(undisturbed, digits):
    out, _, history = undisturbed
    read = load_run(out)
    assert losses(read.history) == losses(history)
    assert read.recipe["model"] == "conv2former_mini_cifar"
    assert read.recipe["recipe"]["cutmix"] == 0.5
    assert read.summary["epochs"] == 3
    assert read.summary["complete"]
    assert read.summary["test_accuracy"] == history[-1].test_accuracy
    assert read.summary["best_test_accuracy"] == max(record.test_accuracy for record in history.records)
    assert read.summary["hardware"]["device"] == "cpu"
    assert read.summary["versions"]["torch"].startswith("2.")
    again = evaluate(read.load_model(), digits.test, device="cpu", label_smoothing=RECIPE.label_smoothing)
    assert again.accuracy == history[-1].test_accuracy
    assert again.loss == pytest.approx(history[-1].test_loss)
    assert evaluate(read.load_model("best"), digits.test).accuracy == read.summary["best_test_accuracy"]


def test_same_seed_same_bits_and_another_seed_others(undisturbed, digits, tmp_path):
    run(digits, tmp_path / "again")
    assert_same_bits(tmp_path / "again", undisturbed)
    _, other = run(digits, recipe=replace(RECIPE, seed=8))
    assert losses(other) != losses(undisturbed[2])


def die(state=None):
    os.kill(os.getpid(), signal.SIGKILL)


def die_while_the_checkpoint_is_written():
    written, replace_file = [], os.replace

    def cut_off(source, target):
        written.append(target)
        if str(target).endswith("last.ckpt") and len(written) > 10:
            os.truncate(source, 1000)
            die()
        replace_file(source, target)

    os.replace = cut_off


# When a training is killed: callbacks, how often it saves, what is done beforehand.
MOMENTS = {
    "in the middle of an epoch, just saved": ([At(die, step=8)], 0, None),
    "in the middle of an epoch, saved steps ago": ([At(die, step=13)], 1000, None),
    "after an epoch": ([At(die, epoch=2)], 1000, None),
    "while the checkpoint is being written": ([], 0, die_while_the_checkpoint_is_written),
}


def train_in_processes_of_their_own(folder: Path) -> None:
    """Killed at every moment, then two at a time; prints how each ended.

    They are forked from a process that has trained nothing, since autograd's threads forbid it later.
    """
    data = small(load_dataset("digits", image_size=16))
    for moment, (callbacks, seconds, prepare) in MOMENTS.items():
        train_it = partial(run, data, folder / moment, callbacks=callbacks, checkpoint_seconds=seconds)
        print(exit_code(forked(train_it, prepare)))

    for callbacks in ([At(press_ctrl_c, step=7)], []):  # interrupted, and resumed
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        torchrun = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # its environment
        out = folder / "two"
        half = partial(run, data, out, TWO_PROCESSES, callbacks=callbacks)
        both = [forked(half, RANK=str(rank), **torchrun) for rank in range(2)]
        print(*map(exit_code, both), load_run(out).summary["complete"])


def forked(action, prepare=None, **environment: str) -> int:
    """The id of a process that does this alone."""
    if child := os.fork():
        return child
    signal.alarm(120)  # a process that waits for ever must not outlive the tests
    os.environ.update(environment)
    try:
        if prepare:
            prepare()
        action()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture(scope="module")
def own_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    script = (
        f"import pathlib, sys, torch; torch.set_num_threads({torch.get_num_threads()}); "
        f"sys.path.insert(0, {os.path.dirname(__file__)!r}); import test_loop; "
        f"test_loop.train_in_processes_of_their_own(pathlib.Path({str(folder)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    expected = [str(-signal.SIGKILL)] * len(MOMENTS) + ["0 0 False", "0 0 True"]
    assert done.stdout.splitlines() == expected, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_resumed_it_ends_with_the_same_bits(moment, own_processes, undisturbed, digits):
    out = own_processes / moment
    assert not (out / "final.safetensors").exists()
    torch.manual_seed(1)  # a resumed run takes its weights from the checkpoint, not from the new model
    model = c2f.create_model("conv2former_mini_cifar", dims=(8, 16), depths=(1, 2), kernel_size=5)
    run(digits, out, model=model)
    assert_same_bits(out, undisturbed)


def test_two_processes_agree_with_one_and_resume(own_processes, digits):
    """Of the same batches: each process learns from half of every one."""
    _, one = run(digits, recipe=TWO_PROCESSES)
    two = load_run(own_processes / "two")
    assert two.summary["complete"]
    for a, b in zip(losses(one), losses(two.history), strict=True):
        assert b == pytest.approx(a, rel=1e-4)


def test_ctrl_c_returns_the_history_and_leaves_a_checkpoint(undisturbed, digits, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    _, history = run(digits, tmp_path / "run", callbacks=[At(press_ctrl_c, step=7)])
    assert history.interrupted
    assert len(history) == 1
    assert signal.getsignal(signal.SIGINT) is before
    _, resumed = run(digits, tmp_path / "run")
    assert not resumed.interrupted
    assert_same_bits(tmp_path / "run", undisturbed)


def test_a_second_ctrl_c_stops_at_once(digits):
    with pytest.raises(KeyboardInterrupt):
        run(digits, callbacks=[At(press_ctrl_c, step=2), At(press_ctrl_c, step=2)])


def test_a_finished_run_is_not_trained_again(undisturbed, digits):
    steps = []
    model, history = run(digits, undisturbed[0], callbacks=[At(steps.append, step=1)])
    assert steps == []
    assert losses(history) == losses(undisturbed[2])
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), undisturbed[1].parameters(), strict=True))


def test_a_finished_run_can_be_extended(digits, tmp_path, capsys):
    recipe = replace(RECIPE, epochs=2)
    run(digits, tmp_path, recipe=recipe, callbacks=[At(press_ctrl_c, step=7)])
    with pytest.raises(CheckpointError, match="epochs was 2 and is 3 now.; go on with it as it was, then for more"):
        run(digits, tmp_path, recipe=RECIPE)
    _, before = run(digits, tmp_path, recipe=recipe)
    capsys.readouterr()
    run(digits, tmp_path, callbacks=[At(press_ctrl_c, step=12)])
    assert "reached the end of its schedule, 3.3e-09, and begins again at 0.0" in capsys.readouterr().out
    assert not load_run(tmp_path).summary["complete"]
    assert not (tmp_path / "final.safetensors").exists()
    _, history = run(digits, tmp_path)
    assert losses(history)[:2] == losses(before)
    assert history[-1].epoch == 3 and load_run(tmp_path).summary["complete"]
    assert (tmp_path / "final-2.safetensors").exists()


@pytest.mark.parametrize("name", ["history.csv", "summary.json", "final.safetensors"])
def test_what_is_damaged_in_a_finished_run_is_written_again(name, undisturbed, digits, tmp_path):
    shutil.copytree(undisturbed[0], tmp_path / "run")
    (tmp_path / "run" / name).write_bytes((undisturbed[0] / name).read_bytes()[:-9])
    run(digits, tmp_path / "run")
    assert_same_bits(tmp_path / "run", undisturbed)


def test_a_batch_larger_than_the_data_is_made_to_fit_and_said(digits, tmp_path, capsys):
    recipe, out = replace(RECIPE, batch_size=1000, epochs=2), tmp_path / "run"
    train(tiny(), digits, recipe, out=out, device="cpu", callbacks=[At(press_ctrl_c, step=1)])
    assert "a batch of 1000 is more than the 160 images of digits: a step is on 160" in capsys.readouterr().out
    _, resumed = run(digits, out, recipe=recipe)
    _, fitting = run(digits, recipe=replace(recipe, batch_size=160))
    assert losses(resumed) == losses(fitting)
    assert load_run(out).recipe["recipe"]["batch_size"] == 1000


def unbalanced(digits: Dataset) -> Dataset:
    """Ones and sevens, of which there are ten times as many; as many of each to test."""
    splits = {}
    for name, count in (("train", 12), ("test", 30)):
        split = getattr(digits, name)
        ones, sevens = (torch.nonzero(split.labels == label).flatten() for label in (1, 7))
        chosen = torch.cat([ones[:count], sevens[: 120 if name == "train" else 30]])
        splits[name] = Split(split.images[chosen], (split.labels[chosen] == 7).long())
    return replace(digits, classes=("one", "seven"), **splits)


@pytest.mark.parametrize("change", [{"balanced": True}, {"class_weights": True}, {"balanced": True, "cutmix": 0.3}])
def test_a_rare_class_is_learned(change):
    data = unbalanced(load_dataset("digits", image_size=16))
    recipe = Recipe(epochs=10, batch_size=32, lr=5e-3, label_smoothing=0.0)
    found = []  # the accuracy on the rare class, without and with the change
    for one in (recipe, replace(recipe, **change)):
        model, _ = run(data, recipe=one, model=tiny(num_classes=2), accelerate=False)
        right = evaluate(model, data.test, device="cpu").predictions == data.test.labels
        found.append(right[data.test.labels == 0].float().mean().item())
    assert found[1] > found[0] + 0.3


def test_a_balanced_epoch_shows_each_class_equally_often():
    labels = torch.tensor([0] * 3 + [2] * 40 + [5] * 17)
    recipe = Recipe(epochs=2, batch_size=7, balanced=True)
    order = epoch_order(60, recipe, 1, 8, labels)
    assert torch.equal(order, epoch_order(60, recipe, 1, 8, labels))
    assert not torch.equal(order, epoch_order(60, recipe, 0, 8, labels))
    counts = labels[order].flatten().bincount()
    assert counts.sum() == 56 and counts[[0, 2, 5]].min() >= 17 and counts[[0, 2, 5]].max() <= 19
    assert labels.bincount()[2] >= order[labels[order] == 2].unique().numel() >= 17  # none of a large class twice


def test_class_weights_are_one_on_average():
    labels = torch.tensor([0, 0, 0, 2])
    weights = class_weights(labels, 3)
    assert weights[[0, 2]].tolist() == pytest.approx([2 / 3, 2])
    assert weights[labels].mean() == 1


def test_grey_images_train_a_model_for_grey_images(tmp_path):
    data = small(load_dataset("digits", image_size=16, channels=1))
    recipe = replace(RECIPE, epochs=1, rand_augment=5)
    run(data, tmp_path, recipe=recipe, model=tiny(in_channels=1))
    assert evaluate(load_run(tmp_path).load_model(), data.test).accuracy == load_run(tmp_path).summary["test_accuracy"]


def test_a_loss_that_is_not_finite_stops_before_the_step(digits, tmp_path):
    kept = {}

    def poison(state):
        with torch.no_grad():
            state.model.head.fc.bias[0] = float("nan")
        kept.update({name: value.clone() for name, value in state.model.state_dict().items()})

    model = tiny()
    with pytest.raises(TrainingError, match=r"the loss is nan at step 6 \(epoch 2\).*lower the learning rate"):
        run(digits, tmp_path / "run", model=model, callbacks=[At(poison, step=6)])
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items() if "fc.bias" not in name)
    saved = load_checkpoint(tmp_path / "run" / "last.ckpt")["model"]
    assert all(value.isfinite().all() for value in saved.values())


def test_weights_that_are_not_finite_reach_no_file(digits, tmp_path):
    """The loss of a step may be finite and its gradient not; then the weights are spoilt before any loss shows it."""

    def poison(state):
        with torch.no_grad():
            state.model.head.fc.bias[0] = float("inf")

    with pytest.raises(TrainingError, match=r"weights are not finite after step 15 \(epoch 3\).*clip_grad"):
        run(digits, tmp_path / "run", recipe=replace(RECIPE, ema=0.0), callbacks=[At(poison, step=15)])
    assert not (tmp_path / "run" / "final.safetensors").exists()
    saved = load_checkpoint(tmp_path / "run" / "last.ckpt")
    assert saved["step"] == 10
    assert all(value.isfinite().all() for value in saved["model"].values())


def test_another_recipe_model_or_data_is_refused(undisturbed, digits):
    out = undisturbed[0]
    with pytest.raises(CheckpointError, match=r"another run \(recipe.lr was 0.003 and is 0.1 now\)"):
        run(digits, out, recipe=replace(RECIPE, lr=0.1))
    with pytest.raises(CheckpointError, match=r"overrides.fusion was None and is sum now"):
        run(digits, out, model=tiny(fusion="sum"))
    with pytest.raises(CheckpointError, match=r"another run \(data.name was digits and is other now"):
        run(replace(digits, name="other"), out)


def test_a_folder_in_use_is_left_alone(digits, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"in use, not by a run \(it holds thesis.txt\)"):
        run(digits, tmp_path)
    with pytest.raises(CheckpointError, match="is not a folder"):
        run(digits, tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["thesis.txt"]


def test_a_folder_that_was_removed_meanwhile_is_written_again(digits, tmp_path):
    remove = At(lambda state: shutil.rmtree(tmp_path / "run"), step=2)
    run(digits, tmp_path / "run", recipe=replace(RECIPE, epochs=1), callbacks=[remove])
    assert load_run(tmp_path / "run").summary["complete"]


def test_two_trainings_into_one_folder_are_refused(undisturbed, digits):
    with filelock.FileLock(undisturbed[0] / ".lock"), pytest.raises(CheckpointError, match="another process"):
        run(digits, undisturbed[0])


def test_the_callers_random_numbers_are_left_alone(digits):
    model = tiny()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    run(digits, model=model, recipe=replace(RECIPE, epochs=1))
    assert torch.equal(torch.rand(4), expected)


def test_one_step_is_what_the_definition_says(digits):
    """No augmentation, one step of Adam with L2: the weights move by the gradient of the smoothed loss."""
    recipe = Recipe(
        epochs=1, batch_size=160, optimizer="adam", lr=0.01, weight_decay=0.1, drop_path=0.0, schedule="constant"
    )
    model, reference = tiny(), tiny(drop_path=0.0)
    order = epoch_order(160, recipe, 0, 1)[0]
    logits = reference(normalize(digits.train.images[order]))
    loss = F.cross_entropy(logits, digits.train.labels[order], label_smoothing=0.1)
    loss.backward()
    _, history = run(digits, model=model, recipe=recipe)
    assert history[0].train_loss == pytest.approx(loss.item(), rel=1e-5)
    p, q = model.head.fc.weight, reference.head.fc.weight
    gradient = q.grad + 0.1 * q.detach()
    torch.testing.assert_close(p.detach(), q.detach() - 0.01 * gradient / (gradient.abs() + 1e-8))


def test_the_average_of_the_weights_is_what_is_kept(digits):
    seen = []
    watch = Callback()
    watch.on_step = lambda state: seen.append(state.model.head.fc.weight.detach().clone())
    model, _ = run(digits, callbacks=[watch])
    average = seen[0]
    for done, weight in enumerate(seen[1:], start=1):
        decay = min(0.9, (1 + done) / (10 + done))
        average = decay * average + (1 - decay) * weight
    torch.testing.assert_close(model.head.fc.weight.detach(), average)


def test_a_short_training_does_not_end_with_the_averages_first_weights(digits):
    seen = []
    watch = At(lambda state: seen.append(state.model.head.fc.weight.detach().clone()), step=1)
    model, _ = run(digits, recipe=replace(RECIPE, ema=0.9999), callbacks=[watch])
    moved = tiny(drop_path=0.2)
    train(moved, digits, replace(RECIPE, ema=0.0), device="cpu", progress=False)
    first, last, average = (weights.detach() for weights in (seen[0], moved.head.fc.weight, model.head.fc.weight))
    assert (average - last).norm() < 0.5 * (first - last).norm()


def test_fp16_trains_with_a_scaled_loss_as_float32_does_and_resumes(digits, undisturbed, tmp_path):
    recipe = replace(RECIPE, precision="fp16", epochs=1)
    _, history = run(digits, recipe=recipe)
    assert history[0].train_loss == pytest.approx(undisturbed[2][0].train_loss, rel=0.05)
    run(digits, tmp_path, recipe=recipe, callbacks=[At(press_ctrl_c, step=3)])
    assert load_checkpoint(tmp_path / "last.ckpt")["scaler"]["scale"] > 1
    _, resumed = run(digits, tmp_path, recipe=recipe)
    assert losses(resumed) == losses(history)


def test_warm_up_is_told_apart_from_the_speed_of_the_other_steps(digits):
    slow_at_first = Watched(lambda x: time.sleep(0.3) if not slow_at_first.seen else None)
    _, history = run(digits, model=slow_at_first, recipe=Recipe(epochs=2, batch_size=32))
    first, second = history.records
    assert 0.3 < first.warm_up_seconds < first.seconds
    assert second.warm_up_seconds == 0
    assert first.images_per_second == pytest.approx(4 * 32 / (first.seconds - first.warm_up_seconds))


class Watched(nn.Module):
    """Looks at every batch that it is trained on, and keeps what it saw."""

    def __init__(self, look):
        super().__init__()
        self.fc, self.look, self.seen = nn.Linear(3, 10), look, []

    def forward(self, x):
        if self.training:
            self.seen.append(self.look(x))
        return self.fc(x.mean((2, 3)))


def test_the_first_steps_may_be_on_smaller_images(digits):
    model = Watched(lambda x: tuple(x.shape[2:]))
    run(digits, model=model, recipe=replace(RECIPE, epochs=2, ema=0.0, small_share=0.5, small_scale=0.5))
    half = len(model.seen) // 2
    assert model.seen == [(8, 8)] * half + [(16, 16)] * half


def test_the_last_steps_may_see_images_that_are_not_mixed(digits):
    grey = digits.train.labels[:, None, None, None].to(torch.uint8).mul(20).expand(-1, 3, 16, 16)  # one level a class
    plain = replace(digits, train=Split(grey.contiguous(), digits.train.labels))
    model = Watched(lambda x: bool((x != x[:, :, :1, :1]).any()))
    run(plain, model=model, recipe=Recipe(epochs=4, batch_size=32, cutmix=1.0, mix_share=0.75))
    assert model.seen == [True] * 3 * STEPS_PER_EPOCH + [False] * STEPS_PER_EPOCH


@pytest.mark.parametrize(
    ("size", "smaller"),
    [((32, 32), (24, 24)), ((96, 96), (72, 72)), ((32, 64), (24, 48)), ((16, 16), (16, 16)), ((8, 8), (8, 8))],
)
def test_smaller_images_keep_their_shape_and_suit_the_model(size, smaller):
    model = c2f.create_model("conv2former_mini_cifar", dims=(8, 16, 32), depths=(1, 1, 1))  # of stride 8
    assert reduced_size(size, 0.75, model) == smaller
    model(torch.zeros(1, 3, *smaller))
    assert reduced_size((15, 30), 0.5, nn.Identity()) == (8, 15)


def test_a_small_size_that_does_not_suit_the_model_is_refused_before_the_first_step():
    data = small(load_dataset("digits"))
    with pytest.raises(ValueError, match="a 24×24 image is too small for this model, which needs 32 pixels"):
        run(data, model=c2f.create_model("convnext_t"), recipe=replace(RECIPE, small_share=0.5))


def test_a_resumed_run_computes_as_it_did_before(digits, tmp_path):
    """By the choices that were the fastest then, though others may be now; and it keeps its own alone."""
    autotune.use_choices({"a case of another training": "swap"})
    case = "weight gradient, 32x8x8x8, kernel 5x5"
    run(digits, out=tmp_path, callbacks=[At(press_ctrl_c, step=2)])
    kept = load_checkpoint(tmp_path / "last.ckpt")["choices"]
    assert "a case of another training" not in kept
    (name,) = (name for name in kept if name.startswith(case))
    autotune.use_choices({name: "rows" if kept[name] != "rows" else "native"})
    run(digits, out=tmp_path)
    candidates = dict.fromkeys(["rows", "native", kept[name]])
    assert autotune.choose(name, candidates, torch.device("cpu")) == kept[name]


def test_a_run_without_acceleration_computes_with_pytorchs_layers_alone(digits, tmp_path):
    model, _ = run(digits, out=tmp_path, recipe=replace(RECIPE, epochs=1), accelerate=False)
    assert load_checkpoint(tmp_path / "last.ckpt")["choices"] == {}
    assert {type(layer) for layer in model.stages[0].blocks[0].convmod.a} == {nn.Conv2d, nn.GELU}


def test_adamw_decays_only_what_multiplies():
    (optimizer,) = make_optimizers(tiny(layer_scale=0.1), replace(RECIPE, optimizer="adamw"))
    decayed, free = (group["params"] for group in optimizer.param_groups)
    assert {p.ndim for p in decayed} == {2, 4}
    assert {p.ndim for p in free} == {1}
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0.0]


def test_muon_takes_the_hidden_matrices_and_adamw_the_rest():
    model = tiny()
    muon, adamw = make_optimizers(model, replace(RECIPE, optimizer="muon", lr=1e-3, muon_lr=0.03))
    names = {id(p): name for name, p in model.named_parameters()}
    taken = {names[id(p)] for p in muon.param_groups[0]["params"]}
    assert {"stages.0.blocks.0.convmod.proj.weight", "stages.1.downsample.1.weight"} <= taken
    assert not {"stem.weight", "head.fc.weight", "stages.0.blocks.0.convmod.a.2.weight"} & taken
    rest = {names[id(p)] for group in adamw.param_groups for p in group["params"]}
    assert taken | rest == set(names.values())
    assert not taken & rest
    assert (muon.param_groups[0]["lr"], adamw.param_groups[0]["lr"]) == (0.03, 1e-3)


def test_every_group_follows_the_schedule(digits):
    rates = []
    with_muon = replace(RECIPE, epochs=1, optimizer="muon", lr=1e-3, muon_lr=0.02, schedule="linear")
    real = Muon.step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Muon, "step", lambda self: (rates.append(self.param_groups[0]["lr"]), real(self))[1])
        run(digits, recipe=with_muon)
    steps = len(rates)
    assert rates == pytest.approx([20 * with_muon.learning_rate(step, steps) for step in range(steps)])


def test_drop_path_is_the_recipes_or_the_models():
    model = tiny(drop_path=0.1)
    set_drop_path(model, None)
    rates = [block.drop_path.p for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0, 0.05, 0.1])
    set_drop_path(model, 0.4)
    assert [block.drop_path.p for stage in model.stages for block in stage.blocks] == pytest.approx([0, 0.2, 0.4])


def test_an_epoch_shows_each_image_once_and_leaves_the_rest():
    recipe = Recipe(epochs=2, batch_size=4)
    first, second = (epoch_order(10, recipe, epoch, 2) for epoch in range(2))
    assert first.shape == (2, 4)
    assert first.unique().numel() == 8
    assert not torch.equal(first, second)


def test_evaluate_knows_the_answers(digits):
    class Oracle(nn.Module):
        def forward(self, x):
            known = normalize(digits.test.images)
            index = torch.stack([(known - image).abs().flatten(1).sum(1).argmin() for image in x])
            return F.one_hot(digits.test.labels[index], 10) * 50.0

    oracle = Oracle().train()
    result = evaluate(oracle, digits.test, device="cpu", batch_size=16)
    assert result.accuracy == 1
    assert result.loss < 1e-6
    assert torch.equal(result.predictions, digits.test.labels)
    assert oracle.training
    smoothed = evaluate(oracle, digits.test, device="cpu", label_smoothing=0.1)
    assert smoothed.loss == pytest.approx(0.1 * 50 * 9 / 10)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_channels_last_and_bf16_train_alike(digits, precision, undisturbed):
    recipe = replace(RECIPE, channels_last=True, precision=precision)
    _, history = run(digits, recipe=recipe, callbacks=[At(press_ctrl_c, epoch=1)])
    tolerance = 1e-3 if precision == "float32" else 0.1
    assert history[0].train_loss == pytest.approx(undisturbed[2][0].train_loss, rel=tolerance)


def test_compiled_it_trains_alike(digits, monkeypatch):
    """Through torch.compile's front end; the code generator behind it needs a compiler that not every machine has."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    recipe, found = replace(RECIPE, epochs=1, drop_path=0.0), []
    for compiled in (False, True):
        torch.manual_seed(0)
        one_block = c2f.create_model("conv2former_mini_cifar", dims=(8,), depths=(1,), kernel_size=5)
        _, history = run(digits, model=one_block, recipe=replace(recipe, compile=compiled))
        found.append(history[0].train_loss)
    assert found[1] == pytest.approx(found[0], rel=1e-3)


@pytest.mark.parametrize("name", ["swin_mini_cifar", "convnext_t", "vit_b_16"])
def test_every_rival_trains_in_the_same_loop(name):
    data = small(load_dataset("digits"), 4, 2)
    model = c2f.create_model(name)
    before = [p.detach().clone() for p in list(model.parameters())[-2:]]
    recipe = replace(RECIPE, epochs=1, batch_size=4, ema=0.0, warmup_epochs=0.0)
    _, history = run(data, model=model, recipe=recipe, accelerate=name == "convnext_t")
    assert len(history) == 1
    assert not any(torch.equal(a, b) for a, b in zip(before, list(model.parameters())[-2:], strict=True))


def test_what_does_not_fit_is_said_before_anything_is_written(digits, tmp_path):
    with pytest.raises(TrainingError, match="answers with 3 classes and digits has 10; .* num_classes=10"):
        run(digits, tmp_path / "b", model=tiny(num_classes=3))
    with pytest.raises(ValueError, match="16×16|multiples of 32"):
        run(digits, tmp_path / "c", model=c2f.create_model("conv2former_n", dims=(8,) * 4, depths=(1,) * 4))
    assert not any(path.joinpath("recipe.json").exists() for path in tmp_path.iterdir())


def test_a_replaced_head_is_described_as_such_and_loads(digits, tmp_path):
    three = replace(digits, classes=("a", "b", "c"), train=labelled(digits.train, 3), test=labelled(digits.test, 3))
    model = tiny()
    model.head.fc = nn.Linear(16, 3)
    run(three, tmp_path / "run", model=model, recipe=replace(RECIPE, epochs=1))
    loaded = load_run(tmp_path / "run").load_model()
    assert loaded.overrides["num_classes"] == 3
    assert torch.equal(loaded.head.fc.weight, model.head.fc.weight)


def labelled(split: Split, classes: int) -> Split:
    return Split(split.images, split.labels % classes)


def test_a_model_that_could_not_be_loaded_again_is_refused_before_it_is_trained(digits, tmp_path):
    model = tiny()
    model.stem[0] = nn.Conv2d(3, 4, 5, stride=2, padding=2)
    with pytest.raises(CheckpointError, match=r"no longer the conv2former_mini_cifar .*weight is \(4, 3, 5, 5\)"):
        run(digits, tmp_path / "run", model=model)
    assert not (tmp_path / "run" / "recipe.json").exists()
    run(digits, model=model, recipe=replace(RECIPE, epochs=1))  # without a folder nothing can be lost
    model.name = "mine"
    run(digits, tmp_path / "run", model=model, recipe=replace(RECIPE, epochs=1))
    assert load_run(tmp_path / "run").recipe["model"] == "mine"


@pytest.mark.parametrize("accelerated_before", [False, True])
def test_a_layer_that_was_changed_and_kept_its_shapes_is_refused_too(digits, tmp_path, accelerated_before):
    for change, said in (
        (lambda block: setattr(block.convmod, "fusion", "sum"), "convmod.fusion is sum, not hadamard"),
        (lambda block: block.convmod.a.__setitem__(1, nn.ReLU()), "convmod.a.1 is ReLU, not GELU"),
    ):
        model = tiny()
        if accelerated_before:
            c2f.accelerate(model)
        change(model.stages[0].blocks[0])
        with pytest.raises(CheckpointError, match=said):
            run(digits, tmp_path / "run", model=model)


def test_a_model_with_nothing_to_learn_gets_one_sentence(digits):
    with pytest.raises(TrainingError, match="has nothing to learn: all its parameters are frozen"):
        run(digits, model=tiny().requires_grad_(False))


def test_a_model_of_ones_own_trains_too(digits, tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))
    run(digits, tmp_path / "run", model=model, recipe=replace(RECIPE, epochs=1, ema=0.0))
    with pytest.raises(CheckpointError, match="holds a Sequential, which create_model cannot build"):
        load_run(tmp_path / "run").load_model()


def test_the_user_is_told_what_trains_on_what(digits, capsys):
    train(tiny(), digits, replace(RECIPE, epochs=1), device="cpu")
    said = capsys.readouterr().out
    assert "training conv2former_mini_cifar (" in said
    assert "160 images of digits on cpu (" in said
    assert "epoch 1/1: train loss" in said


def test_a_device_that_is_not_there_says_which_is():
    missing = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(ValueError, match=f"no {missing} that PyTorch can use; here, .*cpu would do"):
        choose_device(missing)
    with pytest.raises(ValueError, match="'tpu9' is no device"):
        choose_device("tpu9")
    assert choose_device("cpu").type == "cpu"
