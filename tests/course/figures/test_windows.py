"""The drawings of window attention hold what the blocks really did."""

import pytest
import torch

from c2f import create_model
from c2f.models.baselines import BlockAttention, Swin
from c2f.models.cost import MultiplyAdds
from c2f_course.figures import notebook_07 as draw

PHOTO = torch.randint(0, 256, (3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture(scope="module")
def blocks() -> list[BlockAttention]:
    torch.manual_seed(0)
    swin = create_model("swin_micro_cifar").eval()
    with torch.no_grad():
        return swin.attention_weights(torch.randn(1, 3, 32, 32))


def padded_block() -> BlockAttention:
    torch.manual_seed(0)
    swin = Swin(2, 8, (2,), (2,), 4, 2.0, 0.0, 10).eval()
    with torch.no_grad():
        return swin.attention_weights(torch.randn(1, 3, 12, 20))[1]  # 6×10 tokens in 8×12, shifted


def test_pieces_are_the_windows_and_their_parts(blocks: list[BlockAttention]) -> None:
    regular, shifted = (draw.pieces(block) for block in blocks[:2])
    assert torch.equal(regular.unique(return_counts=True)[1], torch.full((16,), 16))
    assert sorted(shifted.unique(return_counts=True)[1].tolist()) == sorted([16] * 9 + [8] * 12 + [4] * 4)
    assert shifted[0, 0] == 0
    assert shifted[1, 1] == 0
    assert shifted[2, 2] != shifted[1, 2]


@pytest.mark.parametrize("padded", [False, True])
def test_whoever_has_weight_is_in_the_same_piece(blocks: list[BlockAttention], padded: bool) -> None:
    block = padded_block() if padded else blocks[1]
    piece = draw.pieces(block)
    assert piece.shape == block.grid
    for y, x in ((0, 0), (1, 5), (5, 9)):
        assert torch.equal(block.row(y, x)[0, 0] > 1e-6, piece == piece[y, x])


def test_windows_say_who_is_together(blocks: list[BlockAttention]) -> None:
    picture = draw.plot_windows(PHOTO, {"plain": blocks[0], "moved": blocks[1]}, [(7, 7), (7, 8)])
    assert "plain cuts the 16×16 tokens into 16 pieces, and the 2 marked tokens are in 2 of them" in picture.alt
    assert "moved cuts the 16×16 tokens into 25 pieces, and the 2 marked tokens are in 1 of them" in picture.alt
    tints = picture.figure.axes[0].images[1].get_array()[..., 3]
    assert (tints > 0).sum() == 32


def test_the_roll_and_the_masks_are_drawn(blocks: list[BlockAttention]) -> None:
    assert "leave 25 pieces" in draw.plot_roll(PHOTO, blocks[1]).alt
    picture = draw.plot_masks(PHOTO, blocks[1], {"inside": 0, "corner": 15})
    assert "inside, 1 with 256 of 256 pairs allowed; corner, 4 with 64 of 256" in picture.alt
    mask = picture.figure.axes[3].images[0].get_array()
    assert torch.equal(torch.tensor(mask), blocks[1].weights[0, 15, 0] > 1e-6)


def test_a_window_is_cut_out_of_the_photograph(blocks: list[BlockAttention]) -> None:
    crop = draw._tokens_of(PHOTO, (16, 16), blocks[0].tokens[5].view(4, 4))
    assert torch.equal(crop, PHOTO[:, 16:32, 16:32])


def test_reach_keeps_the_colours_of_what_is_reached() -> None:
    reach = torch.zeros(16, 16, dtype=torch.bool)
    reach[3:5, 3:5] = True
    picture = draw.plot_reach(PHOTO, {"Swin": [reach, ~reach]}, [(3, 3)], ["1 block", "2 blocks"])
    assert "Swin from row 3, column 3: 4, 252" in picture.alt
    faded = draw._fade(PHOTO / 255, reach)
    assert torch.allclose(faded[:, 12:20, 12:20], PHOTO[:, 12:20, 12:20] / 255)
    assert (faded[0, :12] == faded[1, :12]).all()


def test_one_window_tells_its_row(blocks: list[BlockAttention]) -> None:
    weights = torch.full((16, 16), 0.5 / 15).fill_diagonal_(0.5)
    scores, bias = torch.linspace(-1, 2, 256).view(16, 16), torch.zeros(16, 16)
    picture = draw.plot_one_window(PHOTO, blocks[0], 5, 10, scores, bias, weights)
    assert "from −1.00 to 2.00" in picture.alt
    assert "token 10 gives 50% to token 10 and 50% to itself" in picture.alt


def test_offsets_share_the_size_of_their_squares() -> None:
    small, large = torch.zeros(7, 7), torch.ones(11, 11)
    small[3, 3] = -4
    picture = draw.plot_offsets({"small": small, "large": large})
    assert "small: 49 entries from −4.00 to 0.00; large: 121 entries from 1.00 to 1.00" in picture.alt
    first, second = picture.figure.axes[:2]
    assert first.get_xlim() == second.get_xlim() == (-5.5, 5.5)
    assert first.images[0].norm.vmax == 1  # the middle does not count


def test_rows_stand_beside_each_other() -> None:
    attention, row, u = torch.zeros(16, 16), torch.zeros(16, 16), torch.full((16, 16), 2.0)
    attention[4:8, 4:8] = 1 / 16
    row[7, 7], row[6, 7] = 3, -1
    picture = draw.plot_rows_beside(PHOTO, (7, 7), {"head 0": attention}, {"channel 1": (row, u)})
    assert "Swin head 0 0.06 to 0.06, sum 1.00; ConvMod channel 1 −1.00 to 3.00, sum 2.00" in picture.alt
    assert "times U −2.00 to 6.00, sum 4.00" in picture.alt


def test_same_place_says_what_differs() -> None:
    maps = torch.zeros(2, 16, 16)
    maps[1, 0, 0] = 0.25
    photographs = torch.stack([PHOTO, PHOTO.flip(2)])
    picture = draw.plot_same_place(
        photographs, ["cat", "dog"], (7, 7), {"one": maps, "other": maps[:1].expand(2, -1, -1)}
    )
    assert "one: different by up to 0.25 at a token; other: the same for all" in picture.alt


def test_moves_costs_speeds_and_published_figures_are_told() -> None:
    assert "a by 0%, 50%" in draw.plot_moves([0, 1], {"a": [0.0, 0.5]}, window=4).alt
    costs = {"swin_x": MultiplyAdds(500_000_000, 100_000_000), "other": MultiplyAdds(2_000_000, 2_000_000)}
    assert "swin_x 500.0 million, of which 100.0 million useful" in draw.plot_multiply_adds(costs, "Cost").alt
    picture = draw.plot_speeds(costs, {"swin_x": [0.5, 0.1, 0.2], "other": [0.1]}, images=10)
    assert "swin_x 50 images and 25 billion" in picture.alt
    results = [
        ("A", 0.75, 0.75, "unknown", "compared"),
        ("B", 0.81, 0.86, "some", "elsewhere"),
    ]
    assert "A 75 % (unknown); B 81 to 86 % (some)" in draw.plot_published(results).alt


def test_padding_tells_the_tokens() -> None:
    stages = [(8, 14, 7), (1, 7, 7)]
    picture = draw.plot_padding(PHOTO, {"swin_t": stages, "fits": [(16, 16, 4)]})
    assert "swin_t: 64 of 196, 1 of 49; fits: 256 of 256" in picture.alt
    assert picture.figure.axes[0].get_xlim() == (-0.5, 13.5)


def test_two_blocks_say_what_is_exchanged() -> None:
    assert "attention in windows of 4×4, Conv2Former by ConvMod" in draw.plot_two_blocks().alt


def test_photographs_are_shrunk_to_what_a_panel_needs() -> None:
    assert draw._shrink(PHOTO, (16, 16), 2).shape == (3, 32, 32)
    assert torch.equal(draw._shrink(PHOTO, (16, 16), 4), PHOTO / 255)
    assert torch.allclose(draw._shrink(PHOTO / 255, (16, 16), 2), draw._shrink(PHOTO, (16, 16), 2), atol=1e-6)
