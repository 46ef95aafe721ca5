"""Parameters and multiply-adds against published figures, and against two independent ways of counting."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import c2f
from c2f.models.cost import MultiplyAdds, count_parameters, multiply_adds, multiply_adds_by_child

PAPER = {  # parameters at 1,000 classes, giga multiply-adds at 224 with three decimals
    "conv2former_n": (14_992_840, "2.330"),
    "conv2former_t": (26_697_204, "4.361"),
    "conv2former_s": (50_032_692, "8.708"),
    "conv2former_b": (90_029_112, "15.890"),
    "conv2former_l": (198_893_736, "36.037"),  # the paper prints 36.0
}


def on_meta(name: str, num_classes: int = 10, **overrides: object) -> nn.Module:
    """A model of any size without its data."""
    with torch.device("meta"):
        return c2f.create_model(name, num_classes, **overrides)


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_models_cost_what_is_published(name: str):
    parameters, giga = PAPER[name]
    model = on_meta(name, num_classes=1000)
    assert count_parameters(model) == parameters
    assert f"{multiply_adds(model, (224, 224)).nominal / 1e9:.3f}" == giga


@pytest.mark.parametrize(
    ("name", "parameters", "nominal", "useful"),
    [
        ("conv2former_n_cifar", 8_847_498, 484, 468),
        ("swin_t", 27_527_044, 518, 92),
        ("swin_mini_cifar", 9_492_976, 469, 469),
        ("swin_micro_cifar", 1_556_902, 57, 57),
    ],
)
def test_the_models_for_32x32_cost_what_the_readme_says(name: str, parameters: int, nominal: int, useful: int):
    model = on_meta(name)
    cost = multiply_adds(model, (32, 32))
    assert count_parameters(model) == parameters
    assert (round(cost.nominal / 1e6), round(cost.useful / 1e6)) == (nominal, useful)


def test_the_mini_model_is_small():
    assert count_parameters(on_meta("conv2former_mini_cifar")) <= 4_000_000


def test_the_right_sized_swin_matches_the_seed_model_and_wastes_nothing():
    seed = multiply_adds(on_meta("conv2former_n_cifar"), (32, 32))
    swin = multiply_adds(on_meta("swin_mini_cifar"), (32, 32))
    assert abs(swin.nominal / seed.nominal - 1) < 0.1
    assert abs(swin.useful / seed.useful - 1) < 0.1
    assert swin.useful == swin.nominal


def test_swin_t_pads_nothing_at_224():
    cost = multiply_adds(on_meta("swin_t", num_classes=1000), (224, 224))
    assert f"{cost.nominal / 1e9:.1f}" == "4.5"  # as Swin's paper prints
    assert 0.999 < cost.useful / cost.nominal < 1.001


@pytest.mark.parametrize("name", ["conv2former_n_cifar", "conv2former_n", "swin_t", "swin_mini_cifar", "convnext_t"])
def test_nominal_agrees_with_torchs_flop_counter(name: str):
    model = on_meta(name).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, 3, 64, 32, device="meta"))
    assert counter.get_total_flops() == 2 * multiply_adds(model, (64, 32)).nominal


def test_self_attention_agrees_with_torchs_flop_counter():
    model = on_meta("vit_b_16", image_size=64).train()  # in evaluation mode a fused kernel hides from torch's counter
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, 64, 64, device="meta"))
    assert counter.get_total_flops() == 2 * multiply_adds(model, 64).nominal


conv_settings = st.fixed_dictionaries(
    {
        "kernel_size": st.tuples(st.integers(1, 5), st.integers(1, 5)),
        "stride": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "dilation": st.tuples(st.integers(1, 2), st.integers(1, 2)),
        "padding": st.tuples(st.integers(0, 4), st.integers(0, 4)),
        "groups": st.sampled_from([1, 2, 4]),
    }
)


@given(conv_settings, st.tuples(st.integers(9, 12), st.integers(9, 12)))
@settings(max_examples=50, deadline=None)
def test_useful_taps_are_those_that_a_convolution_of_ones_adds_up(arguments: dict, size: tuple[int, int]):
    conv = nn.Conv2d(4, 8, **arguments, bias=False)
    nn.init.ones_(conv.weight)
    with torch.no_grad():
        output = conv(torch.ones(1, 4, *size))
    cost = multiply_adds(conv, size, in_channels=4)
    assert cost.useful == output.sum().item()
    assert cost.nominal == output.numel() * conv.weight[0].numel()


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_may_be_a_word(padding: str):
    conv = nn.Conv2d(1, 1, (3, 5), padding=padding)
    ones = F.conv2d(torch.ones(1, 1, 6, 7), torch.ones(1, 1, 3, 5), padding=padding)
    assert multiply_adds(conv, (6, 7), in_channels=1).useful == ones.sum().item()


@pytest.mark.parametrize("name", ["conv2former_n", "swin_t", "convnext_t", "vit_b_16"])
def test_the_parts_of_every_model_are_parts_of_it_and_no_more_useful_than_nominal(name: str):
    model = on_meta(name)
    for part, cost in multiply_adds_by_child(model, (32, 32)).items():
        assert count_parameters(model.get_submodule(part))
        assert 0 < cost.useful <= cost.nominal


def test_a_conv2formers_parts_are_its_stem_stages_and_head():
    stages = [f"stages.{i}" for i in range(4)]
    assert list(multiply_adds_by_child(on_meta("conv2former_n"), 32)) == ["stem", *stages, "head"]
    # 1x1 from 3 to 64 channels on 32x32 positions; from 512 to 10 once.
    parts = multiply_adds_by_child(on_meta("conv2former_n_cifar"))
    assert parts["stem"] == MultiplyAdds(3 * 64 * 32 * 32, 3 * 64 * 32 * 32)
    assert parts["head"] == MultiplyAdds(5120, 5120)


def test_channels_of_the_input_are_counted():
    model = on_meta("conv2former_n_cifar", in_channels=1)
    assert multiply_adds_by_child(model, 32, in_channels=1)["stem"].nominal == 64 * 32 * 32


def test_counting_leaves_the_model_as_it_was():
    model = c2f.create_model("conv2former_n", dims=(8, 16, 32, 64), depths=(1, 1, 1, 1), drop_path=0.5).train()
    model.stages[1].eval()
    modes = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seed = torch.get_rng_state()

    assert multiply_adds(model, 64) == multiply_adds(model.eval(), 64)
    model.train().stages[1].eval()
    multiply_adds(model, 64)

    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), seed)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())  # batch norm too
    assert not any(module._forward_hooks for module in model.modules())


def test_counting_is_in_evaluation_mode():
    class TeachingNet(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(super().forward(x)) if self.training else super().forward(x)

    model = TeachingNet(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).train()
    assert multiply_adds(model, 1) == MultiplyAdds(9, 9)  # batch norm refuses to train on a single value


def test_a_refused_image_leaves_the_model_as_it_was():
    model = on_meta("conv2former_n_cifar").train()
    with pytest.raises(ValueError, match="multiples of 8"):
        multiply_adds(model, 31)
    assert all(module.training and not module._forward_hooks for module in model.modules())


def test_a_compiled_model_counts_as_its_original():
    model = c2f.create_model("conv2former_mini_cifar", depths=(1, 1, 1))
    compiled = torch.compile(model)
    assert multiply_adds_by_child(compiled) == multiply_adds_by_child(model)


def test_other_precisions_count_the_same():
    model = on_meta("swin_mini_cifar")
    assert multiply_adds(model) == multiply_adds(model.to(torch.bfloat16))


def test_a_layer_that_cannot_be_counted_is_named():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 4, 2))
    with pytest.raises(ValueError, match="cannot count the multiply-adds of 1, a ConvTranspose2d; build it of Conv2d"):
        multiply_adds(model)


def test_norms_are_free_and_keyword_inputs_are_seen():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm((3, 4, 4))
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(input=self.norm(x))

    assert multiply_adds(Net(), 4) == MultiplyAdds(96, 96)
