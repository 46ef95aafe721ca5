"""The drawings say what the model is, and what is where in the course."""

from dataclasses import replace
from pathlib import Path

import pytest

from c2f.maps import Picture
from c2f.models.conv2former import VARIANTS, Conv2Former
from c2f.picture import HERE
from c2f_course.figures import plot_course, plot_network
from c2f_course.figures.network import COURSE


@pytest.fixture(scope="module")
def model() -> Conv2Former:
    return Conv2Former(
        replace(VARIANTS["conv2former_mini_cifar"], dims=(4, 6, 8), depths=(1, 3, 2), kernel_size=5, num_classes=7)
    )


def words(picture: Picture) -> list[str]:
    (ax,) = picture.figure.axes
    return [text.get_text() for text in ax.texts]


def lit(picture: Picture) -> int:
    from matplotlib.colors import to_rgba
    from matplotlib.patches import FancyBboxPatch

    (ax,) = picture.figure.axes
    return sum(isinstance(p, FancyBboxPatch) and p.get_facecolor() == to_rgba(HERE) for p in ax.patches)


def test_the_network_is_drawn_with_the_sizes_it_really_has(model: Conv2Former) -> None:
    picture = plot_network(model, image_size=(16, 24))
    for text in (
        "image\n3×16×24",
        "stage 0\n4×8×12\n1 block",
        "stage 2\n8×2×3\n2 blocks",
        "5×5\ndepthwise",
        "7\nlogits",
    ):
        assert text in words(picture)
    assert "3 blocks at 6×4×6" in picture.alt
    assert "Marked: the whole network." in picture.alt


@pytest.mark.parametrize(
    ("part", "boxes"), [("network", 7), ("stages", 3), ("block", 2), ("convmod", 7), ("modulation", 3), ("value", 1)]
)
def test_the_part_that_is_the_subject_is_marked(model: Conv2Former, part: str, boxes: int) -> None:
    assert lit(plot_network(model, part)) == boxes


def test_the_course_is_drawn_whole_and_the_present_notebook_marked() -> None:
    picture = plot_course(here=3)
    assert lit(picture) == 1
    assert "02\nBuilding ConvMod" in words(picture) and picture.alt.endswith("You are at 03.")


def test_the_notebooks_that_are_there_have_the_course_s_titles() -> None:
    for path in (Path(__file__).parents[3] / "notebooks").glob("[0-9][0-9]_*.ipynb"):
        number, name = int(path.stem[:2]), path.stem[3:]
        assert name == COURSE[number].lower().replace(" ", "_")
