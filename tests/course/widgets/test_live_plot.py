"""A plot that is redrawn while a notebook trains."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from matplotlib.axes import Axes
from numpy.testing import assert_array_equal

from c2f.maps import Picture
from c2f.training.loop import TrainingState
from c2f.training.run import EpochRecord, History
from c2f_course.widgets import LivePlot


def axes_titled(picture: Picture, beginning: str) -> Axes:
    (ax,) = (ax for ax in picture.figure.axes if ax.get_title().startswith(beginning))
    return ax


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What reaches the notebook: every message, an update marked by the display it replaces."""
    messages: list[dict] = []

    class Handle:
        def __init__(self) -> None:
            self.number = len(messages)

        def update(self, data: dict, **options: object) -> None:
            messages.append({"data": data, "replaces": self.number, **options})

    def display(data: dict, **options: object) -> Handle:
        handle = Handle()
        messages.append({"data": data, **options})
        return handle

    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr(Picture, "png", lambda self: b"")  # what is drawn is not looked at here
    return messages


def record(epoch: int) -> EpochRecord:
    return EpochRecord(epoch, 0.1, 2.0 / epoch, 0.3 * epoch, 2.5 / epoch, 0.25 * epoch, 1.0, 10.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("c2f_course.widgets.live_plot.time.monotonic", lambda: now[0])
    return now


def run(plot: LivePlot, clock: list[float], seconds_a_step: float, epochs: int = 3, steps: int = 4) -> None:
    """What the loop would tell the plot, on a clock of our own."""
    state = TrainingState(model=torch.nn.Identity(), steps=epochs * steps, history=History())
    for state.epoch in range(epochs):
        for _ in range(steps):
            clock[0] += seconds_a_step
            state.step += 1
            state.loss_tensor = torch.tensor(1 / state.step, dtype=torch.float64)
            plot.on_step(state)
        state.history.records.append(record(state.epoch + 1))
        plot.on_epoch(state)


def test_a_live_plot_is_redrawn_in_place_and_at_most_once_a_second(
    shown: list[dict], clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("c2f_course.widgets.live_plot._in_notebook", lambda: True)
    plot = LivePlot()
    run(plot, clock, seconds_a_step=0.25)  # three seconds
    figures = [message for message in shown if "image/png" in message["data"]]
    assert [message.get("replaces") for message in figures] == [None, 0, 0, 0]  # at 0.25, 1.25, 2.25 and the end
    assert "Over 3 epochs" in shown[-1]["data"]["text/plain"]

    run(plot, clock, seconds_a_step=5, epochs=1, steps=1)  # another training is another picture
    assert "replaces" not in shown[-2]


def test_on_a_slow_computer_drawing_takes_at_most_a_tenth_of_the_time(
    shown: list[dict], clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(picture: Picture, updating: object) -> None:
        clock[0] += 2
        times.append(clock[0])

    times: list[float] = []
    monkeypatch.setattr("c2f_course.widgets.live_plot._in_notebook", lambda: True)
    monkeypatch.setattr(Picture, "show", draw)
    run(LivePlot(), clock, seconds_a_step=1, epochs=1, steps=40)
    between = [later - earlier for earlier, later in pairwise(times)]
    assert between[:-1] == [20, 20], "two seconds of drawing after eighteen of training"


def test_outside_a_notebook_a_live_plot_shows_nothing_and_still_has_its_picture(
    shown: list[dict], clock: list[float]
) -> None:
    plot = LivePlot(seconds=0)
    with pytest.raises(ValueError, match="callbacks="):
        plot.picture()
    run(plot, clock, seconds_a_step=0)
    assert shown == []
    picture = plot.picture()
    each_step, train, _ = axes_titled(picture, "Loss").lines
    assert_array_equal(each_step.get_xydata(), [[step, 1 / step] for step in range(1, 13)])
    assert_array_equal(train.get_xdata(), [4, 8, 12])
    assert_array_equal(axes_titled(picture, "Accuracy").lines[1].get_ydata(), [0.25, 0.5, 0.75])
    assert picture.alt.startswith("Over 3 epochs the loss on test images went from 2.50 to 0.83")
    assert "from 25.0% to 75.0%" in picture.alt


def test_a_live_plot_of_a_resumed_run_knows_where_its_epochs_ended() -> None:
    plot = LivePlot()
    state = TrainingState(
        torch.nn.Identity(), steps=12, history=History([record(1)]), epoch=1, step=7, loss_tensor=torch.tensor(0.5)
    )
    plot.on_step(state)
    assert len(axes_titled(plot.picture(), "Loss").lines) == 1  # the length of an epoch is not known yet
    state.history.records.append(record(2))
    state.step = 8
    plot.on_epoch(state)
    assert_array_equal(axes_titled(plot.picture(), "Loss").lines[1].get_xdata(), [4, 8])


def test_in_a_kernel_the_last_drawing_is_what_a_notebook_stores(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    code = """
import torch
from c2f_course.widgets import LivePlot
from c2f.training.run import EpochRecord, History
from c2f.training.loop import TrainingState
plot = LivePlot(seconds=0)
state = TrainingState(None, 2, History(), step=1, loss_tensor=torch.tensor(2.0))
plot.on_step(state)
state.step, state.loss_tensor = 2, torch.tensor(1.0)
plot.on_step(state)
state.history.records.append(EpochRecord(1, 0.1, 1.5, 0.5, 1.25, 0.75, 1.0, 1.0))
plot.on_epoch(state)
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, timeout=250, kernel_name="python3").execute()
    (figure,) = notebook.cells[0].outputs
    assert "test images went from 1.25 to 1.25" in figure.metadata["image/png"]["alt"]
    assert "jupyter.widget" not in json.dumps(notebook)
