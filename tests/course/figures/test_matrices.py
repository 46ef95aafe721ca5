"""Matrices of layers, drawn and timed, and the kernel-size explorer: numbers and sentences are right."""

import re
import time
from itertools import groupby

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from c2f.fast.depthwise import toeplitz
from c2f_course.figures import notebook_01 as matrices
from c2f_course.widgets import Panel
from c2f_course.widgets.kernel_size import KERNELS, LARGEST, KernelSizeExplorer, make_kernel


@pytest.fixture
def photographs() -> Tensor:
    return torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


BANDED = toeplitz(torch.ones(1, 1, 3, 3), 8, 8)[0]


def test_unit_tokens_score_from_minus_to_plus() -> None:
    tokens = matrices.unit_tokens(torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), score=3.0)
    rows = tokens.flatten(2).mT
    scores = rows @ rows.mT / 3**0.5
    assert scores.max().item() == pytest.approx(3, abs=1e-4) and scores.min().item() >= -3 - 1e-4
    torch.testing.assert_close(scores.diagonal(dim1=1, dim2=2), torch.full((2, 64), 3.0))


def test_what_weighs_nothing_stays_grey_and_what_weighs_most_is_coloured(photographs: Tensor) -> None:
    weights = torch.zeros(8, 8)
    weights[1, 2], weights[3, 4] = 1.0, -1.0
    laid = matrices.lay_over(photographs[0], weights)
    assert laid.shape == (3, 32, 32) and laid.min() >= 0 and laid.max() <= 1
    spread = (laid.amax(0) - laid.amin(0)).view(8, 4, 8, 4).amax((1, 3))
    assert ((spread > 0.05) == (weights != 0)).all()
    red, _, blue = laid[:, 4:8, 8:12].mean((1, 2))
    assert red > blue  # orange above zero
    red, _, blue = laid[:, 12:16, 16:20].mean((1, 2))
    assert blue > red  # purple below


def test_positions_are_counted_in_words(photographs: Tensor) -> None:
    picture = matrices.plot_positions(photographs[0], photographs[0, :, :8, :8])
    assert "32×32 pixels" in picture.alt and "63 at the bottom right" in picture.alt
    assert [text.get_text() for text in picture.figure.axes[1].texts] == list(map(str, range(64)))


def test_matrices_and_their_rows_tell_what_is_not_zero(photographs: Tensor) -> None:
    alone = matrices.plot_matrices({"banded": BANDED}, photographs[0], [(2, 4), (0, 0)])
    assert alone.alt == (
        "banded: 484 of 4,096 numbers are not zero; row 20 (row 2, column 4 of the map) has 9 weights, from 0.00 to "
        "1.00; row 0 (row 0, column 0 of the map) has 4 weights, from 0.00 to 1.00."
    )
    pair = matrices.plot_matrices({"convolution": BANDED, "attention": torch.full((64, 64), 1 / 64)}, photographs[0],
                                  [(2, 4)])  # fmt: skip
    assert "attention: 4,096 of 4,096" in pair.alt and "has 64 weights, from 0.02 to 0.02" in pair.alt


def test_a_table_shares_a_scale_down_its_columns(photographs: Tensor) -> None:
    rows = {name: {"image": photographs[i], "map": torch.full((4, 4), i + 1.0)} for i, name in enumerate(("a", "b"))}
    picture = matrices.plot_table(rows, "two rows.", position=(1, 1), signs={"map": "="})
    assert picture.alt == "two rows."
    maps = [ax for ax in picture.figure.axes if ax.get_title() == "map"]
    assert [ax.images[0].get_clim() for ax in maps] == [(-2.0, 2.0)] * 2
    assert all(len(ax.patches) == 1 for ax in maps)


def test_panels_may_have_a_large_one_before_them() -> None:
    picture = matrices.plot_panels([[Panel("one", torch.eye(3))]], "one.", lead=Panel("large", torch.eye(9)))
    assert {"one", "large"} <= {ax.get_title() for ax in picture.figure.axes}


def test_measured_in_turn_the_slower_one_is_slower_and_threads_are_left_as_they_were() -> None:
    before, order, matrix = torch.get_num_threads(), [], torch.randn(200, 200)
    steps = {"quick": lambda: order.append("q"), "slow": lambda: (order.append("s"), matrix @ matrix @ matrix)}
    seconds = matrices.median_seconds(steps, rounds=3, least_seconds=1e-6)
    assert seconds["slow"] > seconds["quick"] > 0
    assert [step for step, _ in groupby(order)][-6:] == list("qsqsqs"), "not in turn"
    assert torch.get_num_threads() == before


def test_costs_are_told_on_paper_and_measured() -> None:
    picture = matrices.plot_costs([8, 16], {"attention": [1e3, 16e3]}, {"attention": [1e-4, 2e-3]}, "Costs")
    assert "attention from 1 thousand to 16 thousand multiply-adds on paper and from 0.1 to 2 ms" in picture.alt


# ---- The explorer


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize("size", [1, 7, LARGEST])
def test_kernels_have_the_size_that_was_asked_for(kind: str, size: int) -> None:
    kernel = make_kernel(kind, size)
    assert kernel.shape == (size, size)
    if kind != "random":
        assert kernel.sum().item() == pytest.approx(1, abs=1e-5)
    else:
        torch.testing.assert_close(kernel[size // 2, size // 2], make_kernel(kind, 1)[0, 0])


@pytest.mark.parametrize(("kind", "size"), [("bell", 4), ("mean", 17), ("random", -1), ("other", 3)])
def test_other_kernels_are_refused(kind: str, size: int) -> None:
    with pytest.raises(ValueError, match="odd number|there is no kernel"):
        make_kernel(kind, size)


@pytest.fixture
def explorer(photographs: Tensor) -> KernelSizeExplorer:
    pytest.importorskip("ipywidgets", reason="widgets are of the lab extra: pip install 'c2f[lab]'")
    return KernelSizeExplorer(photographs, ["cat", "coffee"])


@pytest.mark.parametrize(
    ("control", "value"), [("size", 9), ("row", 0), ("column", 7), ("kernel", "random"), ("image", 1)]
)
def test_every_control_changes_picture_and_sentence(explorer: KernelSizeExplorer, control: str, value: object) -> None:
    picture, text = explorer._picture.value, explorer.text
    getattr(explorer, control).value = value
    assert explorer._picture.value != picture and explorer.text != text


def test_it_counts_what_a_position_sees_and_what_is_learned(explorer: KernelSizeExplorer) -> None:
    sizes = {1: 1, 3: 9, 5: 25, 9: 64, 11: 64, 15: 64}
    corner = {1: 1, 3: 4, 5: 9, 9: 25, 11: 36, 15: 64}
    for row, column, expected in ((3, 4, sizes), (0, 0, corner)):
        explorer.row.value, explorer.column.value = row, column
        for size, seen in expected.items():
            explorer.size.value = size
            assert f"sees {seen} of the 64 positions" in explorer.text
            assert re.search(rf"; {size * size} numbers? (is|are) learned", explorer.text)
    assert "and 4,096 of the matrix's 4,096 are not zero" in explorer.text


def test_its_output_is_torchs_convolution(explorer: KernelSizeExplorer) -> None:
    explorer.size.value, explorer.kernel.value, explorer.image.value = 7, "random", 1
    kernel, _, output = explorer._compute()
    expected = F.conv2d(explorer.maps[1][None, None], kernel[None, None], padding=3)[0, 0]
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)
    told = re.search(r"the output at p is (−?[\d.]+)\.", explorer.text)[1].replace("−", "-")
    assert float(told) == pytest.approx(expected[3, 4].item(), abs=0.006)


def test_the_picture_has_its_sentence(explorer: KernelSizeExplorer) -> None:
    assert explorer._picture.value.count('role="img"') == 1 and "position p = 28" in explorer._picture.value


def test_it_is_drawn_quickly(explorer: KernelSizeExplorer) -> None:
    started = time.process_time()
    for size in range(1, LARGEST + 1, 2):
        explorer.size.value = size
    assert (time.process_time() - started) / 8 < 0.15


@pytest.mark.parametrize(("shape", "names"), [((2, 3, 30, 32), "ab"), ((2, 3, 32, 32), "a"), ((3, 32, 32), "abc")])
def test_images_that_do_not_fit_are_refused(shape: tuple[int, ...], names: str) -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        KernelSizeExplorer(torch.zeros(shape), list(names))
