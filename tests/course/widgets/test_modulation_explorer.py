"""The modulation explorer's numbers against `modulation_at`, whatever its controls are set to."""

import io
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from c2f.maps import channels_by_effect, implied_attention, modulation_at, parts_of
from c2f.models import create_model
from c2f.models.conv2former import VARIANTS, Conv2Former
from c2f.training.augment import normalize
from c2f_course.widgets import ModulationExplorer
from c2f_course.widgets.modulation import read_image


def tiny(seed: int, **changes: object) -> Conv2Former:
    torch.manual_seed(seed)
    settings = {"dims": (4, 6, 8), "depths": (1, 3, 2), **changes}
    model = Conv2Former(replace(VARIANTS["conv2former_mini_cifar"], **settings))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def explorer(images: torch.Tensor) -> ModulationExplorer:
    torch.manual_seed(0)
    swin = create_model("swin_micro_cifar", embed_dim=8)
    return ModulationExplorer(tiny(1), images, ["a", "b", "c"], untrained=tiny(2), swin=swin, upload=True)


def number(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def agrees(explorer: ModulationExplorer) -> None:
    """What is shown is what `modulation_at` finds at the same place, and the sentence says so."""
    model, x = explorer.models[explorer.weights.value], normalize(explorer.images)
    stage, block, image, channel = (c.value for c in (explorer.stage, explorer.block, explorer.image, explorer.channel))
    expected = modulation_at(model, x, stage, block, channel, explorer.position, image)
    m = explorer.modulation
    for name in ("kernel", "u", "window", "a", "v", "fused"):
        assert_close(getattr(m, name), getattr(expected, name), rtol=1e-4, atol=1e-4)
    assert_close(m.window.sum() + m.bias, m.a[m.position], rtol=1e-3, atol=1e-4)
    convmod = model.stages[stage].blocks[block].convmod
    order = channels_by_effect(convmod, parts_of(model, x[image : image + 1], stage, block))
    assert order[explorer.channel.index] == channel
    for told in (
        f"stage {stage}, block {block}, channel {channel} (no. {explorer.channel.index + 1} of ",
        f"row {m.position[0]}, column {m.position[1]} sum to {number(m.window.sum())}; with the bias {number(m.bias)}",
        f"A = {number(m.value)}, which weighs V = {number(m.v[m.position])} to A ⊙ V = {number(m.fused[m.position])}",
    ):
        assert told in explorer.text
    assert explorer.text in explorer._picture.value.replace("&#x27;", "'")


def test_it_shows_what_modulation_at_finds(explorer: ModulationExplorer) -> None:
    agrees(explorer)
    for control, value in (
        (explorer.stage, 1),
        (explorer.block, 2),
        (explorer.row, 0),
        (explorer.column, 7),
        (explorer.channel, explorer.channel.options[-1][1]),
        (explorer.image, 2),
        (explorer.weights, "untrained"),
        (explorer.stage, 2),
        (explorer.stage, 0),
        (explorer.weights, "trained"),
    ):
        before = explorer._picture.value
        control.value = value
        assert explorer._picture.value != before
        agrees(explorer)


def test_ranges_follow_the_stage_and_keep_the_place(explorer: ModulationExplorer) -> None:
    explorer.stage.value = 1
    explorer.block.value = 2
    explorer.row.value, explorer.column.value = 7, 3
    explorer.channel.value = explorer.channel.options[5][1]
    explorer.stage.value = 0  # one block, four channels, 16x16
    assert (explorer.block.value, len(explorer.block.options)) == (0, 1)
    assert (explorer.channel.index, len(explorer.channel.options)) == (3, 4)
    assert (explorer.row.max, explorer.column.max, *explorer.position) == (15, 15, 14, 6)
    explorer.stage.value = 2  # 4x4
    assert (explorer.row.max, explorer.column.max, *explorer.position) == (3, 3, 3, 1)


def test_a_change_is_drawn_once(explorer: ModulationExplorer, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    draw = explorer._draw
    monkeypatch.setattr(explorer, "_draw", lambda: drawn.append(1) or draw())
    for control, value in ((explorer.stage, 1), (explorer.image, 1), (explorer.row, 2), (explorer.head, 1)):
        drawn.clear()
        control.value = value
        assert len(drawn) == 1


def test_another_image_keeps_the_channel_another_block_keeps_the_rank(explorer: ModulationExplorer) -> None:
    explorer.stage.value = 2
    channel = explorer.channel.options[1][1]
    explorer.channel.value = channel
    explorer.image.value = 1
    assert explorer.channel.value == channel
    rank = explorer.channel.index
    explorer.block.value = 1
    assert explorer.channel.index == rank


def test_u_a_v_and_their_product_share_one_scale(explorer: ModulationExplorer) -> None:
    m = explorer.modulation
    limit = max(values.abs().max().item() for values in (m.u, m.a, m.v, m.fused))
    end = f'text-anchor="end">{limit:.2g}</text>'
    assert explorer._picture.value.count(end) >= 4
    explorer.scale.value = explorer.scale.options[1]
    assert explorer._picture.value.count(end) < 4


def test_swins_rows_stand_beside_the_implied_one(explorer: ModulationExplorer) -> None:
    assert "Swin, windows" in explorer._picture.value and "Swin, shifted windows" in explorer._picture.value
    explorer.row.value, explorer.column.value = 0, 0
    assert "attends from there to 16 positions" in explorer.text
    assert "ConvMod's window holds 36." in explorer.text  # in the corner 6 x 6 of the window are on the map
    explorer.stage.value = 2
    assert explorer.head.options == ("mean", *range(8))
    explorer.head.value = 7
    explorer.stage.value = 0  # two heads
    assert explorer.head.value == "mean"


def test_without_swin_and_without_a_second_model(images: torch.Tensor) -> None:
    explorer = ModulationExplorer(tiny(1), images)
    assert explorer.head not in explorer.widget.children[0].children
    assert explorer.weights not in explorer.widget.children[0].children
    assert explorer.text.startswith("image 0: in stage 0") and "Swin" not in explorer.text + explorer._picture.value
    agrees(explorer)


def test_the_implied_row_is_the_kernel_where_it_lies_on_the_map(explorer: ModulationExplorer) -> None:
    explorer.row.value, explorer.column.value = 3, 14
    m = explorer.modulation
    row = implied_attention(m.kernel, m.position, m.a.shape)
    assert row.shape == m.a.shape
    assert_close((row * m.u).sum() + m.bias, m.a[m.position], rtol=1e-3, atol=1e-4)


def png(colour: str = "red", size: tuple[int, int] = (60, 40), mode: str = "RGB", format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, format)
    return file.getvalue()


def give(explorer: ModulationExplorer, name: str, content: bytes) -> None:
    when = datetime(2026, 1, 1, tzinfo=UTC)
    file = {"name": name, "type": "", "size": len(content), "content": memoryview(content), "last_modified": when}
    explorer.upload.value = (file,)


def test_an_uploaded_image_joins_and_is_shown(explorer: ModulationExplorer) -> None:
    for name in ("mine.png", "again.png"):
        give(explorer, name, png())
        assert explorer.text.startswith(f"{name} (trained)")
        assert explorer.message.value == f'<span role="status">{name} is here, at 32×32 pixels.</span>'
        agrees(explorer)
    assert len(explorer.images) == 5 and explorer.upload.value == ()
    explorer.image.value = 0
    assert explorer.text.startswith("a (trained)")


@pytest.mark.parametrize("content", [b"", b"hello", png()[:60], b"<svg xmlns='http://www.w3.org/2000/svg'/>"])
def test_a_bad_file_gets_a_sentence_and_changes_nothing(explorer: ModulationExplorer, content: bytes) -> None:
    before = explorer.text
    give(explorer, "<b>.png", content)
    assert "&lt;b&gt;.png: this cannot be read as an image; choose a PNG or JPEG file" in explorer.message.value
    assert explorer.text == before and len(explorer.images) == 3


def test_what_read_image_makes_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    image = read_image(png("red"), (8, 16))
    assert image.shape == (3, 8, 16) and image.dtype == torch.uint8
    assert image[:, 4, 4].tolist() == [255, 0, 0]
    assert read_image(png("red", mode="L", format="JPEG"), (4, 4)).shape == (3, 4, 4)
    clear = io.BytesIO()
    Image.new("RGBA", (5, 5), (0, 0, 0, 0)).save(clear, "PNG")
    assert read_image(clear.getvalue(), (4, 4)).min() == 255  # in front of white
    monkeypatch.setattr("c2f_course.widgets.modulation.LARGEST_UPLOAD", 1_000)
    with pytest.raises(ValueError, match="2,400 pixels are too many; scale it down to at most 1,000."):
        read_image(png(), (4, 4))


def test_floats_are_images_too(images: torch.Tensor) -> None:
    explorer = ModulationExplorer(tiny(1), images / 255, upload=True)
    give(explorer, "mine.png", png("white"))
    assert explorer.images[-1].max() == 1


def test_it_says_what_it_needs(images: torch.Tensor) -> None:
    for call, sentence in (
        (lambda: ModulationExplorer(tiny(1), images[0]), "as (N, 3, H, W)"),
        (lambda: ModulationExplorer(tiny(1), images, ["a"]), "3 images and 1 names"),
        (lambda: ModulationExplorer(tiny(1), images, untrained=tiny(1, depths=(1, 1, 1))), "differ in depths"),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            call()
