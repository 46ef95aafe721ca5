"""The rivals are torchvision's; Swin's attention weights explain its output; misuse gets a sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
import torchinfo
import torchvision
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.ops import StochasticDepth

import c2f
from c2f.models.baselines import BASELINES, BlockAttention, Swin
from c2f.models.cost import count_parameters

TORCHVISION = {
    "swin_t": torchvision.models.swin_t,
    "convnext_t": torchvision.models.convnext_tiny,
    "vit_b_16": lambda num_classes: torchvision.models.vit_b_16(num_classes=num_classes, image_size=32),
}


# --- what they are


@pytest.mark.parametrize("name", TORCHVISION)
def test_shapes_and_modules_are_torchvisions(name: str):
    with torch.device("meta"):
        theirs, ours = TORCHVISION[name](num_classes=7), c2f.create_model(name, num_classes=7)
    assert {k: v.shape for k, v in theirs.state_dict().items()} == {k: v.shape for k, v in ours.state_dict().items()}
    assert drop_paths(theirs) == drop_paths(ours)
    assert all(repr(a) == repr(b) for a, b in zip(theirs.children(), ours.children(), strict=True))


@pytest.mark.parametrize("name", BASELINES)
def test_the_registry_builds_them_and_they_learn_at_32x32(name: str):
    model = c2f.create_model(name, num_classes=4)
    logits = model(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 4)
    F.cross_entropy(logits, torch.tensor([0, 3])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", ["conv2former_n_cifar", "conv2former_mini_cifar", "conv2former_n", *TORCHVISION])
def test_torchinfo_summarises_every_model(name: str):
    with torch.device("meta"):
        model = c2f.create_model(name)
    summary = torchinfo.summary(model, input_size=(1, 3, 32, 32), device="meta", verbose=0)
    assert summary.total_params == count_parameters(model)
    printed = str(summary)
    assert type(model).__name__ in printed
    assert "[1, 10]" in printed  # the logits
    assert f"Total params: {summary.total_params:,}" in printed


def test_a_seed_draws_the_weights_that_torchvision_draws():
    torch.manual_seed(0)
    theirs = SwinTransformer([4, 4], 24, [2, 2], [3, 6], [7, 7], num_classes=10).eval()
    torch.manual_seed(0)
    ours = c2f.create_model("swin_t", 10, embed_dim=24, depths=(2, 2), num_heads=(3, 6)).eval()
    assert all(torch.equal(tensor, ours.state_dict()[key]) for key, tensor in theirs.state_dict().items())
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(theirs(x), ours(x))


# --- how they can be changed


def drop_paths(model: nn.Module) -> list[float]:
    return [module.p for module in model.modules() if isinstance(module, StochasticDepth)]


@pytest.mark.parametrize("name", ["swin_t", "swin_mini_cifar", "convnext_t"])
def test_drop_path_rises_to_what_is_asked(name: str):
    with torch.device("meta"):
        rates = drop_paths(c2f.create_model(name, drop_path=0.3))
    assert rates[0] == 0
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(0.3)


def test_overrides_reach_the_model():
    with torch.device("meta"):
        swin = c2f.create_model(
            "swin_t", 5, embed_dim=32, depths=[1, 1], num_heads=[2, 4], patch_size=2, window_size=3, mlp_ratio=2
        )
        vit = c2f.create_model("vit_b_16", image_size=64, dropout=0.1)
        convnext = c2f.create_model("convnext_t", layer_scale=0.5)
    assert swin.features[1][0].attn.window_size == [3, 3]
    assert (swin.head.in_features, swin.head.out_features) == (64, 5)
    assert vit(torch.empty(1, 3, 64, 64, device="meta")).shape == (1, 10)
    assert vit.encoder.dropout.p == 0.1
    assert convnext.features[1][0].layer_scale.shape == (96, 1, 1)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("swin_t", {"kernel_size": 7}, "swin_t has no kernel_size; it can be changed in depths, drop_path, embed_dim"),
        ("convnext_t", {"depth": 3, "dims": 4}, "convnext_t has no depth, dims; .* drop_path, layer_scale"),
        ("vit_b_16", {"drop_path": 0.1}, "vit_b_16 has no drop_path; .* attention_dropout, dropout, image_size"),
        ("vit_b_16", {"image_size": 28}, "image_size is 28; .* multiple of 16"),
        ("vit_b_16", {"image_size": 0}, "image_size is 0; .* multiple of 16"),
        ("vit_b_16", {"dropout": 1.5}, "dropout is 1.5; it is a probability"),
        ("swin_t", {"drop_path": -0.1}, "drop_path is -0.1; it is a probability"),
        ("swin_t", {"depths": (2, 2)}, r"depths \(2, 2\) and num_heads \(3, 6, 12, 24\) must be .* of one length"),
        ("swin_t", {"depths": (2, 2, 0, 2)}, "must be positive"),
        ("swin_t", {"depths": (), "num_heads": ()}, "must be positive and of one length"),
        ("swin_t", {"depths": (1,), "num_heads": (3,)}, "two blocks or more"),
        ("swin_t", {"window_size": 0}, r"window_size \(0\) .* must be positive"),
        ("swin_t", {"mlp_ratio": 0}, r"mlp_ratio \(0\) must be positive"),
        ("swin_mini_cifar", {"embed_dim": 100}, "3 heads cannot share the 100 channels of stage 0"),
        ("swin_mini_cifar", {"num_classes": 0}, "num_classes is 0; a classifier needs at least one class"),
    ],
)
def test_what_cannot_be_built_is_refused_with_what_would_do(name: str, overrides: dict, message: str):
    with pytest.raises(ValueError, match=message):
        c2f.create_model(name, **overrides)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        *[(name, (2, 1, 32, 32), r"images of shape \(N, 3, H, W\), not \(2, 1, 32, 32\)") for name in BASELINES],
        *[(name, (3, 32, 32), r"images of shape \(N, 3, H, W\), not \(3, 32, 32\)") for name in BASELINES],
        ("swin_t", (1, 3, 32, 3), "a 32×3 image is too small for this model, which needs 4 pixels a side"),
        ("swin_mini_cifar", (1, 3, 1, 1), "a 1×1 image is too small for this model, which needs 2 pixels"),
        ("convnext_t", (1, 3, 31, 64), "a 31×64 image is too small for this model, which needs 32 pixels"),
        ("vit_b_16", (1, 3, 32, 48), "of a 32×32 image and got 32×48; resize the images, or create .* image_size"),
    ],
)
def test_an_image_that_does_not_fit_is_refused(name: str, shape: tuple[int, ...], message: str):
    with torch.device("meta"):
        model = c2f.create_model(name)
        for use in (model, getattr(model, "attention_weights", model)):
            with pytest.raises(ValueError, match=message):
                use(torch.empty(shape))


# --- Swin's attention


def attentive(model: Swin) -> Swin:
    """In float64, with attention far from uniform: at initialisation it hardly depends on queries and keys."""
    for block in blocks_of(model):
        nn.init.normal_(block.attn.qkv.weight, std=0.2)
        nn.init.normal_(block.attn.qkv.bias)
        nn.init.normal_(block.attn.relative_position_bias_table)
    return model.double().eval()


def blocks_of(model: Swin) -> list[nn.Module]:
    return [block for stage in model.features[1::2] for block in stage]


@contextmanager
def recorded(modules: list[nn.Module]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """What goes into and comes out of each module in the forward passes meanwhile."""
    calls: list[tuple[Tensor, Tensor]] = []
    hooks = [m.register_forward_hook(lambda _, inputs, output: calls.append((inputs[0], output))) for m in modules]
    yield calls
    for hook in hooks:
        hook.remove()


def output_from_weights(block: nn.Module, x_nhwc: Tensor, attention: BlockAttention) -> Tensor:
    """A block's output for input x_nhwc, its softmax replaced by the given weights."""
    (height, width), (padded_height, padded_width) = attention.grid, attention.padded
    padded = F.pad(block.norm1(x_nhwc), (0, 0, 0, padded_width - width, 0, padded_height - height)).flatten(1, 2)
    value = block.attn.qkv(padded).chunk(3, dim=-1)[2][:, attention.tokens]  # (N, windows, T, C)
    value = value.unflatten(-1, (block.attn.num_heads, -1)).transpose(2, 3)
    mixed = block.attn.proj((attention.weights @ value).transpose(2, 3).flatten(-2))
    placed = torch.full_like(padded, torch.nan)
    placed[:, attention.tokens] = mixed
    x_nhwc = x_nhwc + placed.unflatten(1, attention.padded)[:, :height, :width]
    return x_nhwc + block.mlp(block.norm2(x_nhwc))


SMALL = {"embed_dim": 24, "depths": (2, 2, 2)}
SWINS = [
    pytest.param("swin_t", {}, (32, 32), id="swin_t-32x32"),
    pytest.param("swin_mini_cifar", {}, (32, 32), id="swin_mini_cifar-32x32"),
    pytest.param("swin_t", SMALL | {"depths": (2, 2, 2, 1)}, (60, 112), id="swin_t-60x112"),  # 15x28 to 2x4
    pytest.param("swin_mini_cifar", SMALL, (23, 40), id="swin_mini_cifar-23x40"),  # 11x20 to 3x5 tokens
]


@pytest.mark.parametrize(("name", "overrides", "size"), SWINS)
def test_attention_weights_reproduce_every_blocks_output(name: str, overrides: dict, size: tuple[int, int]):
    torch.manual_seed(0)
    model = attentive(c2f.create_model(name, **overrides))
    x = torch.randn(1, 3, *size, dtype=torch.float64)
    blocks = blocks_of(model)
    with torch.no_grad(), recorded(blocks) as calls:
        model(x)
    with torch.no_grad():
        attentions = model.attention_weights(x)
        assert len(attentions) == len(blocks) == len(calls)
        for block, attention, (inputs, output) in zip(blocks, attentions, calls, strict=True):
            assert attention.weights.shape[:3] == (1, len(attention.tokens), block.attn.num_heads)
            assert torch.all(attention.weights >= 0)
            torch.testing.assert_close(attention.weights.sum(-1), torch.ones_like(attention.weights[..., 0]))
            torch.testing.assert_close(output_from_weights(block, inputs, attention), output, rtol=1e-9, atol=1e-9)


def test_blocks_are_numbered_and_their_windows_described():
    with torch.device("meta"):
        model = c2f.create_model("swin_mini_cifar")
        attentions = model.attention_weights(torch.empty(1, 3, 32, 32))
    assert [(a.stage, a.block) for a in attentions] == [
        (stage, block) for stage, depth in enumerate((2, 12, 2)) for block in range(depth)
    ]
    assert [a.grid for a in attentions[::2]] == [(16, 16)] + [(8, 8)] * 6 + [(4, 4)]
    assert [a.shift for a in attentions] == [(0, 0), (2, 2)] * 7 + [(0, 0)] * 2  # one window covers the last stage
    assert all(a.padded == a.grid and a.window == (4, 4) for a in attentions)
    assert attentions[0].weights.shape == (1, 16, 3, 16, 16)


def test_a_row_lies_on_the_image_and_explains_the_token():
    torch.manual_seed(0)
    model = attentive(c2f.create_model("swin_mini_cifar", **SMALL))
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    blocks = blocks_of(model)
    with torch.no_grad(), recorded([block.attn for block in blocks]) as calls:
        model(x)
    with torch.no_grad():
        for block, attention, (inputs, output) in zip(blocks, model.attention_weights(x), calls, strict=True):
            value = block.attn.qkv(inputs).chunk(3, dim=-1)[2].unflatten(-1, (block.attn.num_heads, -1))
            for position in [(0, 0), (3, 2), (2, 3)]:
                row = attention.row(*position)
                assert row.shape == (2, block.attn.num_heads, *attention.grid)
                torch.testing.assert_close(row.sum((2, 3)), torch.ones_like(row[..., 0, 0]))
                mixed = torch.einsum("nhyx,nyxhd->nhd", row, value).flatten(1)
                torch.testing.assert_close(block.attn.proj(mixed), output[:, *position])


def test_a_row_stays_in_its_window_and_on_its_side_of_the_image():
    torch.manual_seed(0)
    model = attentive(c2f.create_model("swin_mini_cifar", **SMALL))
    with torch.no_grad():
        plain, shifted, *_ = model.attention_weights(torch.randn(1, 3, 32, 32, dtype=torch.float64))
    seen = lambda attention, y, x: (attention.row(y, x)[0, 0] > 1e-12).nonzero()  # noqa: E731
    assert (seen(plain, 5, 0).amin(0).tolist(), seen(plain, 5, 0).amax(0).tolist()) == ([4, 0], [7, 3])
    assert (seen(shifted, 5, 2).amin(0).tolist(), seen(shifted, 5, 2).amax(0).tolist()) == ([2, 2], [5, 5])
    # Rolled by two, the corner's window is made of all four corners; it sees its own.
    assert (seen(shifted, 0, 0).amin(0).tolist(), seen(shifted, 0, 0).amax(0).tolist()) == ([0, 0], [1, 1])


def test_padding_takes_its_share_of_a_row():
    torch.manual_seed(0)
    with torch.no_grad():
        model = attentive(c2f.create_model("swin_t", embed_dim=24, depths=(1, 1, 1, 1)))
        first, *_ = model.attention_weights(torch.randn(1, 3, 32, 32, dtype=torch.float64))
    assert (first.grid, first.padded) == ((8, 8), (14, 14))
    assert first.row(0, 0).sum((2, 3)).allclose(torch.ones(1, 3, dtype=torch.float64))
    assert (first.row(7, 7).sum((2, 3)) < 0.999).all()


@pytest.mark.parametrize("position", [(16, 0), (0, -1)])
def test_a_row_outside_the_image_is_refused(position: tuple[int, int]):
    with torch.device("meta"):
        first, *_ = c2f.create_model("swin_mini_cifar").attention_weights(torch.empty(1, 3, 32, 32))
    with pytest.raises(ValueError, match=r"there is no token .*; rows are 0 to 15, columns 0 to 15"):
        first.row(*position)


def test_gradients_flow_through_the_weights():
    model = c2f.create_model("swin_mini_cifar", embed_dim=12, depths=(2, 1, 1))
    attentions = model.attention_weights(torch.randn(1, 3, 32, 32))
    attentions[1].row(2, 3).square().sum().backward()
    assert model.features[1][1].attn.qkv.weight.grad.abs().max() > 0
