"""Scrubbing through a recorded training: each control changes picture and sentence, with the recording’s numbers."""

import re

import pytest
import torch

from c2f.maps.recording import BlockFrames, Recording
from c2f.training.run import EpochRecord, History

pytest.importorskip("ipywidgets", reason="widgets are of the lab extra: pip install 'c2f[lab]'")

from c2f_course.widgets import TrainingReplay


def recording(kind: str = "Conv2Former", frames: int = 5, channels: int = 3, stages: int = 2) -> Recording:
    torch.manual_seed(0)
    steps = tuple(1 + round(81 * i / (frames - 1)) if frames > 1 else 82 for i in range(frames))
    records = [EpochRecord(e + 1, 0.1, 2.0 - e, 0.5, 1.9 - e, 0.4 + 0.2 * e, 1.0, 100.0) for e in range(2)]
    seen = [
        BlockFrames(s, tuple(range(channels - s)), torch.randn(frames, channels - s, 5, 5),
             torch.randn(frames, channels - s, 2, 8, 8))
        for s in range(stages)
    ]  # fmt: skip
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    return Recording(
        f"a {kind}", kind, {}, images, ("cat", "coffee"), steps, torch.linspace(2, 1, 82), History(records),
        tuple(seen),
    )  # fmt: skip


def test_the_sentence_tells_the_recordings_numbers_and_that_they_are_recorded() -> None:
    one = recording()
    replay = TrainingReplay(one)
    assert replay.text.startswith("Recorded, not trained here. a Conv2Former at step 82 of 82")
    assert "test accuracy 60.0%" in replay.text
    replay.frame.value = 0
    assert "at step 1 of 82" in replay.text and "no epoch finished yet" in replay.text
    assert "changed by 0 %" in replay.text


@pytest.mark.parametrize(("control", "value"), [("frame", 1), ("stage", 1), ("channel", 1), ("image", 1)])
def test_every_control_changes_picture_and_sentence(control: str, value: int) -> None:
    replay = TrainingReplay(recording(), recording("Swin", frames=9))
    picture, text = replay._picture.value, replay.text
    getattr(replay, control).value = value
    assert replay._picture.value != picture and replay.text != text


def test_a_stage_with_fewer_channels_is_no_error() -> None:
    replay = TrainingReplay(recording())
    replay.channel.value = 2
    replay.stage.value = 1
    assert replay.channel.value == 1 and "stage 1" in replay.text


def test_the_picture_says_in_words_what_it_shows() -> None:
    replay = TrainingReplay(recording())
    labels = re.findall(r'role="img" aria-label="([^"]*)"', replay._picture.value)
    assert labels and all("step 82 of 82" in label for label in labels)


def test_too_short_a_recording_is_said() -> None:
    with pytest.raises(ValueError, match="two frames"):
        TrainingReplay(recording(frames=1))
