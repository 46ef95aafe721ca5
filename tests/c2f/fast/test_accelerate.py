"""An accelerated model: the same numbers, the same state, and whatever is done with a model can be done with it."""

import copy
import io
import pickle

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.func import functional_call, grad, vmap
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.feature_extraction import create_feature_extractor

import c2f
from c2f.fast import autotune
from c2f.fast.accelerate import FAST, accelerate, accelerated, restore
from c2f.fast.depthwise import DepthwiseConv2d
from c2f.models.baselines import ConvNeXt


class UsersConv2d(nn.Conv2d):
    """Not PyTorch's layer: it computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class UsersNet(nn.Module):
    """Convolutions that are changed and that are not, with and without bias, of a batch and of a single image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.wide = nn.Conv2d(8, 8, (7, 5), padding="same", groups=8)
        self.narrow = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.mixes = nn.Conv2d(8, 8, 1, bias=False)
        self.left_alone = nn.ModuleList(
            [
                nn.Conv2d(8, 8, 3, padding=1, groups=4),
                nn.Conv2d(8, 8, 3, padding=1, groups=8, padding_mode="circular"),
                nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8),
                nn.Conv2d(8, 8, 1, groups=8),
                nn.GELU("tanh"),
                UsersConv2d(8, 8, 5, padding=2, groups=8),
            ]
        )
        self.halves = nn.Conv2d(8, 16, 2, stride=2, groups=8)
        self.act, self.norm = nn.GELU(), nn.BatchNorm2d(16)
        self.head = nn.Conv2d(16, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.act(self.wide(x)) + self.mixes(self.narrow(x))
        for layer in self.left_alone:
            x = x + layer(x)
        x = self.act(self.norm(self.halves(x)))
        return torch.stack([self.head(image) for image in x]).mean((2, 3))  # one image has three axes


MODELS = {
    "conv2former": lambda: c2f.create_model("conv2former_mini_cifar", dims=(8, 16), depths=(1, 1)),
    "one block": lambda: c2f.create_model("conv2former_n_cifar", dims=(8,), depths=(1,)),
    "paper": lambda: c2f.create_model("conv2former_n", dims=(8, 8), depths=(1, 1)),
    "swin_micro_cifar": lambda: c2f.create_model("swin_micro_cifar", embed_dim=16, depths=(2, 1), num_heads=(1, 2)),
    "convnext": lambda: ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=10),
    "a user's": UsersNet,
}
every_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(autouse=True)
def last_candidate_chosen(monkeypatch, tmp_path):
    """Each layer is computed by the last candidate that can run, not by PyTorch's own call; nothing is timed."""

    def order(candidates, device):
        seconds = {}
        for position, (name, run) in enumerate(candidates.items()):
            try:
                run()
            except RuntimeError:
                continue
            seconds[name] = 1.0 / (1 + position)
        return seconds

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(autotune, "_measure", order)
    monkeypatch.setattr(autotune, "_product_seconds", lambda device: 1.0)
    autotune.clear_choices()
    yield
    autotune.clear_choices()


def pair(name: str = "conv2former") -> tuple[nn.Module, nn.Module]:
    """A model in evaluation mode, no parameter 0 or nearly so, and its accelerated copy."""
    torch.manual_seed(0)
    plain = MODELS[name]().eval()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return plain, accelerate(copy.deepcopy(plain))


def images(n: int = 2) -> Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(n))


def results(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The output and all gradients, the image's first."""
    x = x.clone().requires_grad_()
    y = model(x)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), [x, *model.parameters()])]


def assert_same(found: list[Tensor], expected: list[Tensor], tolerance: float = 1e-5) -> None:
    """Within a tolerance of the largest number: what is nearly 0 by cancellation is not the measure."""
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * max(1.0, b.abs().max().item()))


def kinds(model: nn.Module) -> list[type]:
    return [type(module) for module in model.modules()]


# Numbers


@every_model
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_output_and_all_gradients_are_the_plain_models(name: str, layout: torch.memory_format):
    plain, fast = pair(name)
    assert set(FAST) & set(kinds(fast))
    with autotune.recorded_choices() as used:
        for x in (images(2), images(3)):
            x = x.contiguous(memory_format=layout)
            assert_same(results(fast, x), results(plain, x))
    if name != "swin_micro_cifar":  # its convolution is not a depthwise one, its GELUs see contiguous tensors
        assert set(used.values()) - {"native", "convolution", "channels_last"}


@every_model
def test_at_inference_too(name: str):
    plain, fast = pair(name)
    with torch.inference_mode():
        assert_same([fast(images())], [plain(images())])


def test_in_training_mode_batch_norm_and_stochastic_depth_do_as_before():
    plain, fast = (model.train() for model in pair("paper"))
    for model in (plain, fast):
        torch.manual_seed(0)
        model(images(4))
    assert_same(list(fast.state_dict().values()), list(plain.state_dict().values()))


def test_autocast_computes_in_bfloat16():
    plain, fast = pair()
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = results(fast, images()), results(plain, images())
    assert found[0].dtype == expected[0].dtype == torch.bfloat16
    assert_same(found, expected, tolerance=3e-2)


def test_complex_layers_have_pytorchs_gradients():
    plain = nn.Conv2d(4, 4, 5, padding=2, groups=4, dtype=torch.complex64)
    x, gradients = torch.randn(2, 4, 6, 6, dtype=torch.complex64), []
    for layer in (plain, accelerate(copy.deepcopy(plain))):
        gradients.append(torch.autograd.grad(layer(x).abs().square().sum(), list(layer.parameters())))
    torch.testing.assert_close(*gradients)


# Layers: which change, and what comes back


def test_restore_gives_the_same_classes_back_and_twice_is_harmless():
    plain, fast = pair("a user's")
    once = kinds(fast)
    assert kinds(accelerate(fast)) == once != kinds(plain)
    assert restore(fast) is fast
    assert kinds(fast) == kinds(plain)
    assert kinds(restore(fast)) == kinds(plain)


def test_what_computes_something_else_is_left_alone():
    _, fast = pair("a user's")
    assert not set(kinds(fast.left_alone)) & set(FAST)
    assert type(fast.stem) is type(fast.halves) is nn.Conv2d
    assert type(fast.wide) is type(fast.narrow) is DepthwiseConv2d


def test_a_layer_that_was_fast_before_is_fast_afterwards():
    own = nn.Sequential(DepthwiseConv2d(3, 5), nn.Conv2d(3, 3, 5, padding=2, groups=3))
    with accelerated(own):
        assert kinds(own) == [nn.Sequential, DepthwiseConv2d, DepthwiseConv2d]
    assert kinds(own) == [nn.Sequential, DepthwiseConv2d, nn.Conv2d]


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def test_parametrized_layers_are_left_alone_before_and_after():
    plain = nn.Conv2d(3, 3, 5, padding=2, groups=3)
    x = images()
    expected = 2 * (plain(x) - plain.bias[:, None, None]) + plain.bias[:, None, None]
    first = parametrize.register_parametrization(copy.deepcopy(plain), "weight", Doubled())
    parametrized = type(first)
    assert type(accelerate(first)) is parametrized
    afterwards = accelerate(copy.deepcopy(plain))
    parametrize.register_parametrization(afterwards, "weight", Doubled())
    within = copy.deepcopy(plain)
    with accelerated(within):
        parametrize.register_parametrization(within, "weight", Doubled())
    for layer in (first, afterwards, within):
        torch.testing.assert_close(restore(layer)(x), expected)
    parametrize.remove_parametrizations(afterwards, "weight")
    assert type(restore(afterwards)) is nn.Conv2d


def test_hooks_are_kept_and_called():
    model, seen = pair()[0], []
    model.stages[0].blocks[0].convmod.a[2].register_forward_hook(lambda *_: seen.append("forward"))
    model.stages[0].blocks[0].convmod.v.register_full_backward_hook(lambda *_: seen.append("backward"))
    model.stages[1].blocks[0].mlp.act.register_forward_pre_hook(lambda *_: seen.append("before"))
    for change in (lambda model: model, accelerate, restore):
        seen.clear()
        results(change(model), images())
        assert sorted(seen) == ["backward", "before", "before", "forward"]


def test_states_are_exchanged_with_the_plain_model():
    plain, fast = pair()
    assert list(fast.state_dict()) == list(plain.state_dict())
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.mul_(1.1)
    fast.load_state_dict(plain.state_dict())
    assert_same([fast(images())], [plain(images())])
    plain.load_state_dict(fast.state_dict())


# Copies


def test_copies_averages_and_what_was_saved_are_fast_too():
    plain, fast = pair()
    torch.save(fast, saved := io.BytesIO())
    loaded = torch.load(io.BytesIO(saved.getvalue()), weights_only=False)
    for twin in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast)), loaded):
        assert kinds(twin) == kinds(fast)
        assert_same(results(twin, images()), results(plain, images()))
    average, expected = AveragedModel(fast), AveragedModel(plain)
    for model in (average, expected):
        model.update_parameters(plain)
    assert_same([average(images())], [expected(images())])


# Tools


def test_compiled_for_every_batch_size_with_the_same_gradients():
    plain, fast = pair("one block")
    torch._dynamo.reset()
    backend = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(fast, backend=backend, fullgraph=True)
    for n in (2, 3, 5):
        assert_same(results(compiled, images(n)), results(plain, images(n)))
    assert backend.frame_count <= 3
    torch._dynamo.reset()


def test_in_distributed_training_the_gradients_are_the_same():
    plain, fast = pair()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        assert_same(results(DistributedDataParallel(fast), images()), results(plain, images()))
    finally:
        dist.destroy_process_group()


def test_tools_that_look_inside_see_pytorchs_own_operators():
    plain, fast = pair()
    x = images()
    assert_same([torch.fx.symbolic_trace(fast)(x)], [plain(x)])
    inside = create_feature_extractor(fast, {"stages.0": "inside"})(x)["inside"]
    assert_same([inside], [next(iter(plain.features(x).values()))])
    exported = torch.export.export(fast, (x,))
    assert not any("c2f" in str(node.target) for node in exported.graph.nodes)
    assert_same([exported.module()(x)], [plain(x)])
    counts = []
    for model in (plain, fast):
        with FlopCounterMode(display=False) as counter:
            model(x)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1]


def test_gradients_of_each_image_by_torch_func():
    plain, fast = pair()
    parameters = {name: parameter.detach() for name, parameter in plain.named_parameters()}

    def each(model: nn.Module) -> list[Tensor]:
        def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
            return functional_call(model, parameters, (image[None],)).square().sum()

        return list(vmap(grad(loss), in_dims=(None, 0))(parameters, images()).values())

    results(fast, images())  # an ordinary pass
    assert_same(each(fast), each(plain))


# What must not be remembered


def test_nothing_is_kept_of_a_call_without_numbers_or_that_pytorch_refuses(tmp_path):
    x, layers = torch.randn(2, 4, 9, 9), (nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 5, padding=2, groups=4))
    for layer in layers:
        accelerate(layer)(x)
    kept = {file: file.read_text() for file in tmp_path.rglob("*.json")}
    assert kept
    for layer in layers:
        forgotten = accelerate(copy.deepcopy(layer).to("meta"))  # the user has not filled it yet
        forgotten(torch.randn(3, 4, 9, 9))
        other_type = accelerate(copy.deepcopy(layer).double())
        with pytest.raises((RuntimeError, ValueError), match="type"):
            other_type(torch.randn(3, 4, 9, 9))
    assert {file: file.read_text() for file in tmp_path.rglob("*.json")} == kept
