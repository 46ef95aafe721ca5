"""The receptive-field explorer shows each model and stage, and says the radii."""

from dataclasses import replace

import pytest
import torch

from c2f.models.conv2former import VARIANTS, Conv2Former
from c2f_course.widgets import ReceptiveFieldExplorer


def tiny(**changes: object) -> Conv2Former:
    torch.manual_seed(0)
    settings = {"dims": (4, 6), "depths": (1, 2), "kernel_size": 3, **changes}
    return Conv2Former(replace(VARIANTS["conv2former_mini_cifar"], **settings))


def test_it_shows_each_model_and_stage() -> None:
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    explorer = ReceptiveFieldExplorer({"k = 3": tiny(), "one stage": tiny(dims=(4,), depths=(1,))}, images)
    assert explorer.stage.value == 1 and explorer.text.startswith("k = 3, stage 1, position row 4, column 4")
    pictures = {explorer._picture.value}
    for control in (explorer.stage, explorer.colours):
        for option in control.options:
            control.value = option
            pictures.add(explorer._picture.value)
            assert f"within {explorer.field.radius(0.9):g}, by 2 images" in explorer.text
    assert len(pictures) == 3
    explorer.stage.value = 1
    explorer.model.value = "one stage"  # which has no stage 1
    assert list(explorer.stage.options) == [0] and explorer.text.startswith("one stage, stage 0")
    explorer.model.value = "k = 3"
    assert list(explorer.stage.options) == [0, 1]


def test_it_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match="at least one, by its name"):
        ReceptiveFieldExplorer({}, torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="as \\(N, 3, H, W\\)"):
        ReceptiveFieldExplorer({"k = 3": tiny()}, torch.zeros(3, 32, 32))
