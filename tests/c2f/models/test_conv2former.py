"""Conv2Former as a user meets it: sizes, parts, features, and what it says to misuse."""

import copy

import pytest
import torch
import torch.nn.functional as F

import c2f
from c2f.models.conv2former import VARIANTS, ConvMod, LayerNorm2d, fuse

PARAMETERS = {
    ("conv2former_n_cifar", 10): 8_847_498,
    ("conv2former_n", 1000): 14_992_840,
    ("conv2former_t", 1000): 26_697_204,
    ("conv2former_s", 1000): 50_032_692,
    ("conv2former_b", 1000): 90_029_112,
    ("conv2former_l", 1000): 198_893_736,
}


def tiny(**overrides):
    settings = {"dims": (8, 16, 24, 32), "depths": (1, 2, 1, 1)} | overrides
    return c2f.create_model("conv2former_n_cifar", **settings).eval()


@pytest.mark.parametrize(("name", "num_classes"), PARAMETERS)
def test_has_the_published_number_of_parameters(name, num_classes):
    with torch.device("meta"):
        model = c2f.create_model(name, num_classes=num_classes)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name, num_classes]


def test_the_22k_variant_is_b_with_smaller_kernels():
    with torch.device("meta"):
        wide, narrow = (c2f.create_model(name, num_classes=1000) for name in ("conv2former_b", "conv2former_b_22k"))
    taps = sum(dim * depth for dim, depth in zip(narrow.config.dims, narrow.config.depths, strict=True))
    difference = sum(p.numel() for p in wide.parameters()) - sum(p.numel() for p in narrow.parameters())
    assert difference == taps * (11**2 - 7**2)


def test_the_mini_model_is_small_and_keeps_the_large_kernel():
    model = c2f.create_model("conv2former_mini_cifar")
    assert sum(p.numel() for p in model.parameters()) <= 4_000_000
    assert model.config.kernel_size == 11


def test_features_come_with_their_strides():
    x = torch.randn(2, 3, 32, 48)
    shapes = {stride: tuple(feature.shape) for stride, feature in tiny().features(x).items()}
    assert shapes == {1: (2, 8, 32, 48), 2: (2, 16, 16, 24), 4: (2, 24, 8, 12), 8: (2, 32, 4, 6)}


def test_the_papers_stem_starts_at_stride_four():
    model = c2f.create_model("conv2former_n", dims=(8, 16, 24, 32), depths=(1, 1, 1, 1)).eval()
    assert list(model.features(torch.randn(1, 3, 64, 32))) == [4, 8, 16, 32]


def test_the_head_reads_the_last_feature():
    model, x = tiny(), torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(model.head(model.features(x)[8]), model(x))


@pytest.mark.parametrize("fusion", ["hadamard", "sum", "sigmoid", "l1"])
def test_parts_are_what_forward_computes(fusion):
    convmod, x = ConvMod(6, kernel_size=5, fusion=fusion), torch.randn(2, 6, 9, 7)
    u, a, v, y = convmod.parts(x)
    torch.testing.assert_close(y, convmod(x))
    torch.testing.assert_close(a, convmod.a[2](u))
    torch.testing.assert_close(v, convmod.v(convmod.norm(x)))
    torch.testing.assert_close(y, convmod.proj(fuse(a, v, fusion)))


def test_hadamard_is_the_product():
    a, v = torch.randn(2, 1, 4, 3, 3)
    torch.testing.assert_close(fuse(a, v, "hadamard"), a * v)


def test_parts_of_a_block_inside_the_network():
    model, x = tiny(), torch.randn(2, 3, 16, 16)
    seen = []
    handle = model.stages[1].blocks[1].convmod.register_forward_hook(lambda module, args, y: seen.append(y))
    model(x)
    handle.remove()
    torch.testing.assert_close(model.parts(x, stage=1, block=1).y, seen[0])


def test_layer_norm_is_over_the_channels_of_a_position():
    x = torch.randn(2, 5, 3, 4)
    y = LayerNorm2d(5)(x)
    centred = x - x.mean(1, keepdim=True)
    torch.testing.assert_close(y, centred / (x.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt())


def test_drop_path_rises_linearly_from_zero():
    model = tiny(drop_path=0.2)
    rates = [block.drop_path.p for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_layer_scale_begins_where_it_is_told():
    model = tiny(layer_scale=0.1)
    assert torch.equal(model.stages[0].blocks[0].scale1.gamma, torch.full((8,), 0.1))
    assert not any("gamma" in name for name, _ in tiny().named_parameters())


def test_initialisation_is_the_published_one():
    torch.manual_seed(0)
    model = c2f.create_model("conv2former_n_cifar", dims=(64, 128, 256), depths=(1, 1, 1))
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            assert not p.any(), name
        elif p.ndim == 1:
            assert (p == 1).all(), name
        else:
            assert p.std().item() == pytest.approx(0.02, rel=0.2), name


def test_the_orthogonal_beginning_keeps_lengths_and_lets_a_begin_as_u():
    torch.manual_seed(0)
    model = tiny(init="orthogonal")
    for name, p in model.named_parameters():
        if p.ndim == 4 and p.shape[1] > 1:
            matrix = p.detach().flatten(1)
            narrow = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
            torch.testing.assert_close(narrow, 0.49 * torch.eye(len(narrow)), atol=1e-5, rtol=0, msg=name)
    parts = model.parts(torch.randn(1, 3, 16, 16), stage=0, block=0)
    assert F.cosine_similarity(parts.u.flatten(), parts.a.flatten(), dim=0) > 0.9


def test_the_overlapping_stem_halves_the_image():
    features = tiny(stem="overlap").features(torch.randn(1, 3, 32, 16))
    assert {stride: tuple(f.shape[2:]) for stride, f in features.items()} == {
        2: (16, 8), 4: (8, 4), 8: (4, 2), 16: (2, 1),
    }  # fmt: skip


def test_any_field_of_the_configuration_can_be_overridden():
    model = c2f.create_model(
        "conv2former_mini_cifar",
        num_classes=3, dims=[8, 16], depths=[1, 1], kernel_size=5, mlp_ratio=4, in_channels=1, stem="pointwise",
        downsample_norm="layer", head="conv", layer_scale=1e-6, drop_path=0.3, fusion="sum",
    )  # fmt: skip
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 3)
    assert model.name == "conv2former_mini_cifar"
    assert model.overrides["kernel_size"] == 5


def test_a_copy_has_the_same_answers():
    model, x = tiny(), torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(copy.deepcopy(model)(x), model(x))


def test_layout_in_memory_changes_nothing():
    model, x = tiny(), torch.randn(2, 3, 16, 24)
    expected = model(x)
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x.contiguous(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"kernel_size": 4}, "kernel_size is 4; .* odd"),
        ({"kernel_size": 0}, "kernel_size is 0; .* odd"),
        ({"kernel_size": -3}, "kernel_size is -3; .* odd"),
        ({"dims": (8, 16)}, "dims .* equally many"),
        ({"depths": (1, 0, 1, 1)}, "must be positive"),
        ({"num_classes": 0}, r"num_classes \(0\)"),
        ({"drop_path": 1.5}, "drop_path is 1.5"),
        ({"stem": "conv7"}, "stem is 'conv7'; use pointwise or patch or overlap or conv"),
        ({"fusion": "softmax"}, "fusion is 'softmax'; use hadamard or"),
        ({"kernal_size": 7}, "has no kernal_size; it can be changed in .*kernel_size"),
    ],
)
def test_a_configuration_that_cannot_be_says_what_would_do(overrides, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny(**overrides)


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((1, 3, 30, 32), "30×32 .* multiples of 8 .* 32×32"),
        ((1, 3, 32, 4), "32×4 .* 32×8"),
        ((1, 3, 0, 8), "0×8"),
        ((1, 1, 32, 32), r"\(N, 3, H, W\), not \(1, 1, 32, 32\)"),
        ((3, 32, 32), "add the batch axis"),
    ],
)
def test_an_image_that_does_not_fit_says_what_would_do(shape, sentence):
    model = tiny()
    for call in (model, model.features, lambda x: model.parts(x, 0, 0)):
        with pytest.raises(ValueError, match=sentence):
            call(torch.zeros(shape))


def test_an_unknown_name_lists_the_models():
    with pytest.raises(ValueError, match="no model 'conv3former'; the models are conv2former_n_cifar"):
        c2f.create_model("conv3former")


def test_a_block_that_is_not_there_says_which_are():
    with pytest.raises(ValueError, match=r"no stage 1, block 2; stages 0 to 3 have \(1, 2, 1, 1\) blocks"):
        tiny().parts(torch.zeros(1, 3, 8, 8), stage=1, block=2)


def test_every_variant_is_listed():
    assert set(VARIANTS) <= set(c2f.list_models())
