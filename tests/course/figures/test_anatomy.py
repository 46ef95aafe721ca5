"""The drawings of ConvMod and Conv2Former taken apart hold the numbers that they are about."""

import re
from dataclasses import replace

import pytest
import torch

from c2f.models import VARIANTS, Conv2Former, Conv2FormerConfig, ConvMod
from c2f.models.conv2former import fuse
from c2f.models.cost import count_parameters, multiply_adds_by_child
from c2f_course.figures import notebook_02, notebook_03


def test_lines_are_drawn_in_rows_with_their_ranges() -> None:
    rows, titles = {"U": torch.linspace(0, 1, 24).view(2, 3, 4), "A": torch.full((2, 5, 5), -2.0)}, ["left", "right"]
    picture = notebook_02.plot_lines(rows, titles, image=torch.zeros(3, 6, 8), title="Lines")
    assert picture.alt == "Lines: maps of left, right, in rows: U from 0.00 to 1.00; A from −2.00 to −2.00."
    images = [image for ax in picture.figure.axes for image in ax.images]
    assert [tuple(image.get_array().shape) for image in images] == [(6, 8, 3), (3, 4), (3, 4), (5, 5), (5, 5)]
    own = notebook_02.plot_lines(rows, titles, "").figure.axes
    shared = notebook_02.plot_lines(rows, titles, "", one_scale=True).figure.axes
    assert own[0].images[0].norm.vmax < shared[0].images[0].norm.vmax == shared[2].images[0].norm.vmax == 2


def test_the_norms_fill_what_they_average() -> None:
    axes = notebook_02.plot_norms(channels=3, positions=4).figure.axes
    assert [ax.get_title() for ax in axes] == list(notebook_02.NORMS)
    assert [sum(int(mesh.get_array().sum()) for mesh in ax.collections) for ax in axes] == [3, 12, 8]


def test_profiles_say_mean_and_standard_deviation() -> None:
    before = torch.tensor([1.0, 3.0]).view(2, 1, 1).expand(2, 4, 4)
    picture = notebook_02.plot_profiles(before, before - 2, {"a": (0, 0), "b": (3, 3)}, torch.zeros(3, 8, 8))
    assert "a: mean 2.00 to 0.00, standard deviation 1.00 to 1.00" in picture.alt


def test_reach_counts_the_positions_that_change() -> None:
    change = torch.zeros(2, 5, 6)
    change[1, 2, 2:5] = torch.tensor([1.0, -2.0, 3.0])
    picture = notebook_02.plot_reach({"near": change, "far": change + 1}, (2, 3))
    assert "near: 3 of 30 positions change; far: 30 of 30" in picture.alt
    assert picture.figure.axes[0].get_title() == "near\n3 positions"


def test_fusions_are_drawn_as_the_library_fuses() -> None:
    torch.manual_seed(0)
    a, v = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    axes = notebook_02.plot_fusions(a, v, channel=1).figure.axes
    for kind, pair, photo in zip(notebook_02.FUSIONS, axes[:4], axes[4:], strict=True):
        assert torch.equal(torch.as_tensor(photo.images[0].get_array().data), fuse(a[None], v[None], kind)[0, 1])
        made = torch.as_tensor(pair.images[0].get_array().data)
        assert made.shape == (61, 61) and made[0, -1] > 0  # A and V both 3
        assert (made[0, 0] < 0) == (kind in ("hadamard", "l1"))  # A = -3, V = 3


@pytest.mark.parametrize(("channels", "k"), [(6, 5), (64, 11)])
def test_the_parameters_of_a_convmod_are_those_that_it_has(channels: int, k: int) -> None:
    said = notebook_02.plot_convmod_parameters(k, [channels]).alt.partition(f"at {channels} channels ")[2]
    told = [int(count.replace(",", "")) for count in re.findall(r" ([\d,]*\d)\b(?=[,.])", said)]
    assert len(told) == 3 and sum(told) == count_parameters(ConvMod(channels, k))


# ---- The network


@pytest.fixture(scope="module")
def model() -> Conv2Former:
    torch.manual_seed(0)
    return Conv2Former(Conv2FormerConfig(dims=(4, 6, 8), depths=(1, 2, 1), kernel_size=5, layer_scale=0.1)).eval()


def test_stages_are_drawn_with_what_their_window_covers(model: Conv2Former) -> None:
    picture = notebook_03.plot_stages(torch.zeros(3, 8, 8), model.config, (16, 24))
    assert "Stage 0 has 16×24 positions of 1×1 pixels, and its window covers 5×5" in picture.alt
    assert "stage 2 has 4×6 positions of 4×4 pixels, and its window covers 20×20" in picture.alt
    assert picture.figure.axes[1].get_title() == "stage 1: 8×12\n6 channels"


def test_dropped_branches_are_counted() -> None:
    dropped = torch.zeros(10, 4, dtype=torch.bool)
    dropped[:5, 3] = True
    alt = notebook_03.plot_drop_path(dropped, [0.0, 0.25]).alt
    assert "Of 4 branches an image passes 3.5 on average; the first are dropped for 0.0% of 10 images" in alt
    assert "the last for 25.0%" in alt


def test_branch_sizes_are_ratios_of_norms(model: Conv2Former) -> None:
    x = torch.randn(2, 3, 8, 8)
    sizes = notebook_03.branch_sizes(model, x)
    assert len(sizes) == 8
    with torch.no_grad():
        first = model.stem(x)
        branch = 0.1 * model.stages[0].blocks[0].convmod(first)
    assert sizes[0] == pytest.approx((branch.norm() / first.norm()).item(), rel=1e-5)
    assert "small: ConvMod" in notebook_03.plot_branches({"small": sizes}).alt


@pytest.mark.parametrize("name", ["conv2former_n_cifar", "conv2former_n"])
def test_the_parts_of_the_cost_add_up_to_the_whole(name: str) -> None:
    with torch.device("meta"):
        model = Conv2Former(replace(VARIANTS[name], depths=(1, 2, 1, 1)))
    costs = notebook_03.cost_by_part(model, (64, 32))
    work = multiply_adds_by_child(model, (64, 32))
    for part, within in costs.items():
        child = part.replace("stage ", "stages.")
        parameters = count_parameters(model.get_submodule(child))
        assert list(sum(within.values())) == [parameters, work[child].nominal, work[child].useful], part
    assert len(costs) == len(work)
    assert all(name in notebook_03.plot_cost(costs).alt for name in costs)


def test_time_is_measured_for_every_part(model: Conv2Former) -> None:
    measured = notebook_03.time_by_part(model.stages[0].blocks[0], torch.randn(2, 4, 8, 8), repeats=1)
    assert all(seconds > 0 for seconds, _ in measured.values())
    assert measured["ConvMod, 1×1"][1] == 2 * 3 * 4 * 4 * 64 and measured["norms and the rest"][1] == 0
    assert "of the multiply-adds ConvMod, 1×1" in notebook_03.plot_time(measured, "A block").alt


def test_variants_are_drawn_with_their_parameters() -> None:
    small = Conv2FormerConfig(dims=(4, 6, 8), depths=(1, 2, 1), kernel_size=7)
    picture = notebook_03.plot_variants({"small": small}, {"small": 1234})
    assert picture.alt == "small: channels 4-6-8, blocks 1-2-1, kernel 7, 1,234 parameters."


def test_the_steps_lead_from_the_seed_model_to_the_papers_n() -> None:
    alt = notebook_03.plot_steps().alt
    assert "From 8,847,498 parameters to 14,992,840. kernel 11 → 7: −248,832, " in alt
