"""The broken loops show the signs that notebook 05 teaches, and only the correct one is without a bug."""

import math

import pytest
import torch

from c2f import create_model
from c2f.training.data import load_dataset
from c2f_course.figures.notebook_05 import Curves
from c2f_course.tasks.bug_hunt import EVERY, LOOPS, STEPS, batches, correct_loop, guilt, unfold
from c2f_course.tasks.notebook_05 import SAY


@pytest.fixture(scope="module")
def curves() -> dict[str, Curves]:
    data = load_dataset("digits", image_size=16)
    found = {}
    for name, loop in LOOPS.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = create_model("conv2former_mini_cifar", num_classes=10, dims=(16, 32), depths=(1, 1))
            found[name] = loop(model, data)
    return {name if name == "correct" else guilt(name): curves for name, curves in found.items()}


def end(values: list[float], count: int = 20) -> float:
    return sum(values[-count:]) / count


def test_the_correct_loop_learns(curves) -> None:
    assert len(curves["correct"].losses) == STEPS and len(curves["correct"].accuracies) == STEPS // EVERY
    assert end(curves["correct"].losses) < 0.6 and curves["correct"].accuracies[-1] > 0.85


def test_shuffled_labels_leave_the_loss_at_ln_10(curves) -> None:
    losses = curves["labels shuffled apart from the images"].losses
    assert abs(end(losses) - math.log(10)) < 0.05


def test_a_second_softmax_keeps_the_loss_above_its_floor(curves) -> None:
    seen = curves["softmax before cross-entropy"]
    assert math.log(math.e + 9) - 1 < end(seen.losses) < 2.0 and seen.accuracies[-1] > 0.7
    assert "1.46" in SAY["signs"]["softmax before cross-entropy"]


def test_unnormalised_evaluation_leaves_the_training_as_it_is(curves) -> None:
    seen = curves["test images not normalised"]
    assert seen.losses == curves["correct"].losses and seen.accuracies[-1] < 0.6


def test_gradients_that_add_up_do_not_settle(curves) -> None:
    seen = curves["zero_grad forgotten"]
    assert end(seen.losses) > 1.0 and max(seen.losses[20:]) > math.log(10) + 0.1


def test_each_loop_has_a_bug_of_its_own() -> None:
    assert len({guilt(name) for name in "ABCD"}) == 4
    with pytest.raises(ValueError, match="use one of A, B, C, D"):
        guilt("correct")


def test_every_step_has_a_whole_batch_and_every_epoch_each_image_once() -> None:
    order = torch.cat(list(batches(count=100, steps=5)))
    assert len(order) == 5 * 32 and order[:100].unique().numel() == 100


@pytest.mark.parametrize("name", "ABCD")
def test_what_is_unfolded_marks_the_line(name: str) -> None:
    unfolded = unfold(name)
    marked = [line for line in unfolded.code.splitlines() if line[0] in ">-"]
    assert 1 <= len(marked) <= 3
    assert guilt(name) in repr(unfolded) and unfolded._repr_html_().startswith("<details>")


def test_the_rate_can_be_chosen() -> None:
    data = load_dataset("digits", image_size=16)
    model = create_model("conv2former_mini_cifar", num_classes=10, dims=(8, 16), depths=(1, 1))
    assert len(correct_loop(model, data, lr=5e-5, steps=2).losses) == 2
