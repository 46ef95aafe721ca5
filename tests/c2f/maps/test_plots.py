"""The pictures hold the numbers they are about, on their axes and in their text alternatives."""

import base64
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from numpy.testing import assert_array_equal

from c2f.maps import Modulation, Picture, modulation_at, plot_confusion, plot_images, plot_maps, plot_modulation
from c2f.models.conv2former import VARIANTS, Conv2Former

PNG = b"\x89PNG\r\n\x1a\n"


def axes_titled(picture: Picture, beginning: str) -> Axes:
    (ax,) = (ax for ax in picture.figure.axes if ax.get_title().startswith(beginning))
    return ax


def drawn(picture: Picture, beginning: str) -> np.ndarray:
    (image,) = axes_titled(picture, beginning).images
    return image.get_array().data


# ---- Picture


def test_a_picture_is_a_png_with_its_sentence() -> None:
    picture = plot_images(torch.zeros(1, 3, 4, 4), title='a "quoted" & sharp <title>')
    assert picture.png().startswith(PNG)
    assert 'alt="a &quot;quoted&quot; &amp; sharp &lt;title&gt;: 1 image of 4×4 pixels."' in picture.html()


def test_a_notebook_gets_a_png_and_its_alternative_text(shown: list[dict]) -> None:
    picture = plot_images(torch.zeros(2, 3, 4, 4))
    picture._ipython_display_()
    (figure,) = shown
    assert base64.b64decode(figure["data"]["image/png"]).startswith(PNG)
    assert figure["metadata"]["image/png"]["alt"] == figure["data"]["text/plain"] == picture.alt
    assert figure["data"]["text/html"] == picture.html()


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What reaches the notebook."""
    messages: list[dict] = []
    monkeypatch.setattr("IPython.display.display", lambda data, **options: messages.append({"data": data, **options}))
    return messages


def test_a_picture_can_be_saved(tmp_path: Path) -> None:
    plot_images(torch.zeros(1, 3, 4, 4)).save(tmp_path / "picture.svg")
    assert (tmp_path / "picture.svg").read_text().startswith("<?xml")


# ---- Images


def test_images_are_drawn_in_order_with_their_titles() -> None:
    images = torch.randint(256, (5, 3, 6, 4), dtype=torch.uint8)
    picture = plot_images(images, list("abcde"), columns=3)
    for image, ax, title in zip(images, picture.figure.axes, "abcde", strict=False):
        assert_array_equal(ax.images[0].get_array(), image.permute(1, 2, 0))
        assert ax.get_title() == title
    assert not picture.figure.axes[5].images
    assert picture.alt == "5 images of 6×4 pixels, titled a, b, c, d, e."


def test_images_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4, 4\); give at least one, as \(N, 3, H, W\)"):
        plot_images(torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match="2 images and 1 titles"):
        plot_images(torch.zeros(2, 3, 4, 4), ["a"])


# ---- Confusion


def test_the_confusion_matrix_counts_true_by_predicted() -> None:
    labels, predictions = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 0, 1, 2, 2, 1])
    picture = plot_confusion(labels, predictions, ["cat", "dog", "owl"])
    assert_array_equal(drawn(picture, "What"), [[2, 1, 0], [0, 1, 2], [0, 0, 0]])
    assert "3 of 6 images (50.0%)" in picture.alt
    assert "takes dog for owl, twice" in picture.alt
    assert axes_titled(picture, "What").get_ylabel() == "true class"


def test_nothing_confused_is_said_so_and_unequal_numbers_are_refused() -> None:
    labels = torch.arange(3)
    assert plot_confusion(labels, labels, ["a", "b", "c"]).alt.endswith("nothing is confused.")
    with pytest.raises(ValueError, match="3 labels and 2 predictions"):
        plot_confusion(labels, labels[:2], ["a", "b", "c"])


# ---- Modulation


def test_maps_are_drawn_in_order_on_one_symmetrical_scale() -> None:
    maps = torch.tensor([[[1.0, -3.0]], [[2.0, 0.5]]])
    picture = plot_maps(maps, ["first", "second"], title="A")
    assert_array_equal(drawn(picture, "first"), [[1, -3]])
    assert_array_equal(drawn(picture, "second"), [[2, 0.5]])
    assert {ax.images[0].get_clim() for ax in picture.figure.axes[:2]} == {(-3, 3)}
    assert picture.alt == "A: 2 maps of 1×2 positions, titled first, second, with values from −3.000 to 2.000."


def test_each_kernel_is_drawn_on_its_own_symmetrical_scale() -> None:
    picture = plot_maps(torch.tensor([[[1.0, -3.0]], [[2.0, 0.5]]]), one_scale=False)
    assert [ax.images[0].get_clim() for ax in picture.figure.axes] == [(-3, 3), (-2, 2)]
    assert picture.alt == "2 maps of 1×2 positions, each on its own scale, with values from −3.000 to 2.000."


def test_maps_stand_below_their_images() -> None:
    maps, images = torch.randn(3, 2, 2), torch.rand(3, 3, 4, 4)
    picture = plot_maps(maps, ["a", "b", "c"], images=images, columns=2)
    above = {ax.get_title(): ax for ax in picture.figure.axes if ax.get_title()}
    for name, values, image in zip("abc", maps, images, strict=True):
        assert_array_equal(above[name].images[0].get_array(), image.permute(1, 2, 0))
        place = above[name].get_subplotspec()
        (below,) = (
            ax
            for ax in picture.figure.axes
            if (spec := ax.get_subplotspec())
            and (spec.rowspan.start, spec.colspan.start) == (place.rowspan.start + 1, place.colspan.start)
        )
        assert_array_equal(below.images[0].get_array(), values)
    assert "each below its image" in picture.alt


def test_maps_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2\); give at least one, as \(N, H, W\)"):
        plot_maps(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="2 maps and 1 images"):
        plot_maps(torch.zeros(2, 4, 4), images=torch.zeros(1, 3, 4, 4))


@pytest.fixture(scope="module")
def seen() -> Modulation:
    torch.manual_seed(0)
    model = Conv2Former(replace(VARIANTS["conv2former_mini_cifar"], dims=(4, 6), depths=(1, 1), kernel_size=5))
    return modulation_at(model, torch.randn(1, 3, 16, 24), stage=0, block=0, channel=2, position=(0, 7))


def test_the_modulation_picture_draws_the_maps_and_says_the_numbers(seen: Modulation) -> None:
    image = torch.randint(256, (3, 16, 24), dtype=torch.uint8)
    picture = plot_modulation(image, seen)
    assert_array_equal(drawn(picture, "image"), image.permute(1, 2, 0))
    maps = {"U": seen.u, "modulation": seen.a, "value": seen.v, "A ⊙": seen.fused}
    for title, values in {**maps, "kernel": seen.kernel, "window": seen.window}.items():
        assert_array_equal(drawn(picture, title), values)
    scales = {title: axes_titled(picture, title).images[0].get_clim() for title in maps}
    largest = max(values.abs().max().item() for values in maps.values())
    assert set(scales.values()) == {(-largest, largest)}
    said = picture.alt.replace("−", "-")
    assert f"sum to {seen.window.sum():.3f}, which with the bias {seen.bias:.3f}" in said
    assert f"A = {seen.value:.3f}; it weighs the value V = {seen.v[0, 7]:.3f} to {seen.fused[0, 7]:.3f}" in said


def test_each_map_can_have_its_own_symmetrical_scale(seen: Modulation) -> None:
    picture = plot_modulation(torch.zeros(3, 16, 24), seen, one_scale=False)
    assert axes_titled(picture, "modulation").images[0].get_clim() == pytest.approx(
        (-seen.a.abs().max().item(), seen.a.abs().max().item())
    )


def test_the_window_is_outlined_where_it_lies(seen: Modulation) -> None:
    picture = plot_modulation(torch.zeros(3, 16, 24), seen)
    boxes = [patch.get_bbox().bounds for patch in axes_titled(picture, "image").patches]
    assert boxes == [(9.5, -4.5, 10, 10), (13.5, -0.5, 2, 2)]  # five and one positions of two pixels each
    assert axes_titled(picture, "U").patches[0].get_bbox().bounds == (4.5, -2.5, 5, 5)


def test_the_bars_run_from_the_terms_to_their_sum(seen: Modulation) -> None:
    positive, negative, bias, value = axes_titled(plot_modulation(torch.zeros(3, 16, 24), seen), "the 25 terms").patches
    assert positive.get_width() + negative.get_width() == pytest.approx(seen.window.sum().item(), rel=1e-4)
    assert bias.get_x() + bias.get_width() == pytest.approx(value.get_width(), rel=1e-4)
    assert value.get_width() == seen.value


def test_an_image_of_another_size_is_refused(seen: Modulation) -> None:
    with pytest.raises(ValueError, match=r"\(3, 16, 16\), and the maps are of one of shape \(3, 16, 24\)"):
        plot_modulation(torch.zeros(3, 16, 16), seen)
