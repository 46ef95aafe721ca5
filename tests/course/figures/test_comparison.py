"""Each picture of a measurement says its numbers."""

import math
from collections.abc import Callable

import pytest

from c2f.picture import Picture
from c2f.training.run import EpochRecord, History
from c2f_course.figures import notebook_08 as comparison
from c2f_course.figures.notebook_08 import Race, Work


def history(accuracies: list[float], seconds: list[float]) -> History:
    return History(
        [
            EpochRecord(epoch, 0.1, 1.0, 0.9, 1.0, accuracy, second, 1000 / second)
            for epoch, (accuracy, second) in enumerate(zip(accuracies, seconds, strict=True), start=1)
        ]
    )


RUN = history([0.5, 0.7, 0.6, 0.8], [10.0, 10.0, 20.0, 10.0])
SPANS = [("launch", 5.0, 5.0001), ("own work", 5.001, 5.002), ("device", 5.0, 5.02), ("wait", 5.002, 5.02)]
IN_TURN = [("A", 100.0), ("B", 120.0), ("A", 110.0), ("B", 140.0)]
# A launch of 10 µs, 10 GB/s and 1 TFLOP/s: each work takes twice the longest of its three times.
WORKS = [Work("small", 10, 80, 2e-5), Work("long", 1e6, 1e7, 2e-3), Work("product", 1e10, 1e7, 2e-2)]
ONE, TWO = Race.of("one", RUN), Race.of("two", RUN, seconds=[100.0] * 4)

PICTURES: dict[str, tuple[Callable[[], Picture], tuple[str, ...]]] = {
    "timeline": (
        lambda: comparison.plot_timeline({"a row": SPANS}, {"a row": [("early", 5.001)]}, title="Queue"),
        ("1 launches", "the device works 20 ms of 20 ms", "early after 1.0 ms"),
    ),
    "timeline, two rows": (
        lambda: comparison.plot_timeline({"a": SPANS, "b": SPANS[2:]}, title="Two"),
        ("Two: a: 1 launches", "b: 0 launches"),
    ),
    "orders": (
        lambda: comparison.plot_orders({"A, then B": [("A", 1.0), ("B", 2.0)], "in turn": IN_TURN}),
        ("A, then B: medians A 1 ms, B 2 ms; in turn: medians A 105 ms, B 130 ms",),
    ),
    "limits": (
        lambda: comparison.plot_limits({16: 1e-5, 1024: 1.1e-5, 2**20: 1e-3}, WORKS, 1e10, 1e12),
        ("10.0 µs", "small launch-bound, 2.0 times", "long memory-bound, 2.0", "product compute-bound, 2.0 times"),
    ),
    "rates": (
        lambda: comparison.plot_rates({"float32": [100.0, 120.0, 110.0], "bf16": [40.0, 50.5, 45.0]}, "A step"),
        ("float32 110 (100 to 120)", "bf16 45.0 (40.0 to 50.5)"),
    ),
    "memory": (
        lambda: comparison.plot_memory({"float32": {"weights": 2**21, "kept": 30 * 2**20}}, "Held"),
        ("weights 2 MiB", "kept 30 MiB", "together 32 MiB"),
    ),
    "amdahl": (
        lambda: comparison.plot_amdahl({"part": 0.6, "other": 0.2}, {"part": 10.0}),
        ("part, 60% of the time, can make the whole at most 2.50 times as fast", "makes it 2.17 times", "other, 20%"),
    ),
    "race": (
        lambda: comparison.plot_race([ONE, TWO], targets=(0.6, 0.9), clock="here", title="Race"),
        ("one: 50.0% after epoch 1, 80.0% after epoch 4 and 0.8 minutes", "two:", "6.7 minutes"),
    ),
    "chosen": (
        lambda: comparison.plot_chosen([84.0, 83.8], [84.4, 84.2], of=5, true=84),
        ("one run 83.90 %", "best of 5 runs 84.30 %"),
    ),
}


@pytest.mark.parametrize(("draw", "numbers"), PICTURES.values(), ids=PICTURES)
def test_a_picture_is_drawn_and_says_its_numbers(draw: Callable[[], Picture], numbers: tuple[str, ...]) -> None:
    picture = draw()
    picture.figure.draw_without_rendering()
    for number in numbers:
        assert number in picture.alt, picture.alt


def test_a_race_adds_up_its_seconds_and_knows_when_it_first_got_there() -> None:
    assert ONE.seconds == (10.0, 20.0, 40.0, 50.0)
    assert [ONE.reaches(target) for target in (0.5, 0.7, 0.65, 0.8)] == [10.0, 20.0, 20.0, 50.0]
    assert math.isinf(ONE.reaches(0.9))
    assert TWO.reaches(0.7) == 200.0
