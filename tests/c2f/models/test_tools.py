"""What engineers do with a model works with every model of the kit, as it does with torchvision's own.

Where torchvision's own class fails, the test shows both failing, and what helps.
"""

import contextlib
import copy
import functools
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torchinfo
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad, jacrev, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.vision_transformer import VisionTransformer

import c2f
from c2f.fast.accelerate import accelerate
from c2f.models.baselines import BASELINES, ConvNeXt, ViT
from c2f.models.cost import multiply_adds

# Tokens, channels, blocks of the small ViT: four patches of 16x16 pixels and the class token.
TOKENS, DIM, LAYERS = 5, 16, 2
VIT = {"image_size": 32, "patch_size": 16, "num_layers": LAYERS, "num_heads": 2, "hidden_dim": DIM, "mlp_dim": 32}

# Every kind of layer that the real ones have, few of each, since tracing takes seconds. Of the Swins the first has all
# (a second block in a stage has a shifted window, a second stage a merging of patches), the others half of it.
SMALL: dict[str, Callable[[], nn.Module]] = {
    "conv2former_mini_cifar": lambda: c2f.create_model("conv2former_mini_cifar", dims=(8, 16), depths=(1, 1)),
    "conv2former_n_cifar": lambda: c2f.create_model("conv2former_n_cifar", dims=(8,), depths=(1,)),
    "conv2former_n": lambda: c2f.create_model("conv2former_n", dims=(8, 16), depths=(1, 1)),
    "swin_t": lambda: c2f.create_model("swin_t", embed_dim=8, depths=(2, 1), num_heads=(1, 2)),
    "swin_mini_cifar": lambda: c2f.create_model("swin_mini_cifar", embed_dim=8, depths=(2,), num_heads=(2,)),
    "swin_micro_cifar": lambda: c2f.create_model("swin_micro_cifar", embed_dim=8, depths=(1, 1), num_heads=(1, 2)),
    "convnext_t": lambda: ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=10),
    "vit_b_16": lambda: ViT(**VIT, num_classes=10),
}
CONV2FORMERS = [name for name in SMALL if name.startswith("conv2former")]
every_model = pytest.mark.parametrize("name", SMALL)
# Where a model takes seconds: the other Swins are of one class with the first, which has all of it.
WITH_ONE_SWIN = [name for name in SMALL if name not in ("swin_mini_cifar", "swin_micro_cifar")]


def filled(model: nn.Module) -> nn.Module:
    """In evaluation mode, no parameter 0 or nearly so: a head or a layer scale of 0 would hide all before it."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


@functools.cache
def small(name: str) -> nn.Module:
    return filled(SMALL[name]())


def images(n: int = 2, height: int = 32, width: int = 32) -> Tensor:
    return torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(n))


def gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(model(x).square().sum(), list(model.parameters())))


def test_every_rival_is_here():
    assert set(BASELINES) == set(SMALL) - set(CONV2FORMERS)


# torch.compile


@pytest.fixture
def counting():
    """A torch.compile without a C++ compiler that counts how often it compiles."""
    torch._dynamo.reset()
    yield CompileCounterWithBackend
    torch._dynamo.reset()


@pytest.mark.parametrize("name", WITH_ONE_SWIN)
def test_compiled_once_for_every_batch_size_and_image_size(name: str, counting):
    any_size = not name.startswith(("swin", "vit"))  # those are made for one size
    shapes = [(2, 32, 32), (3, 64, 64), (5, 32, 96)] if any_size else [(2, 32, 32), (3, 32, 32), (5, 32, 32)]
    first, *others = (images(*shape) for shape in shapes)
    for axis in (0, 2, 3) if any_size else (0,):
        torch._dynamo.mark_dynamic(first, axis)  # an error where the model would fix this axis
    model, backend = small(name), counting("eager")
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    for x in (first, *others):
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), model(x))
    assert backend.frame_count == 1


def test_compiled_training_has_the_same_gradients(counting):
    model, backend = small("conv2former_n_cifar"), counting("aot_eager")
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    for n, size in [(2, 24), (3, 32), (4, 40)]:  # images grow while it trains
        torch.testing.assert_close(gradients(compiled, images(n, size, size)), gradients(model, images(n, size, size)))
    assert backend.frame_count <= 3


@pytest.mark.slow  # its code is C++
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))), reason="there is no C++ compiler")
def test_inductor_computes_the_same_at_every_size(counting):
    """Each size by itself. With sizes left open, Inductor (torch 2.14) fails on LayerNorm over permuted axes before a
    convolution, in torchvision's ConvNeXt as in ours: "cannot determine truth value of Relational"."""
    model = small("conv2former_n_cifar")
    compiled = torch.compile(model, dynamic=False)
    for x in (images(), images(2, 24, 40)):
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)


# torch.func. What torch has for forward mode is made by torch.jit.script, which warns.


def check_transforms(model: nn.Module) -> None:
    """Every transform's result against what it must equal."""
    x, tangent = images(2), images(3)[:2]
    model(x)  # an ordinary pass before it must leave nothing behind
    names = [name for name, _ in model.named_parameters()]
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        return functional_call(model, parameters, (image[None],)).square().sum()

    for_each_image = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    for i in range(len(x)):
        expected = gradients(model, x[i : i + 1])
        torch.testing.assert_close([for_each_image[name][i] for name in names], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(vmap(lambda image: model(image[None])[0])(x), model(x))
    jacobian = jacrev(model)(x)  # (N, classes, N, 3, H, W)
    by_forward = jvp(model, (x,), (tangent,))[1]
    torch.testing.assert_close(by_forward, torch.einsum("nkmchw,mchw->nk", jacobian, tangent), rtol=1e-4, atol=1e-4)


@every_model
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:There is a performance drop.*as_strided_")  # of average pooling under vmap
def test_torch_func_transforms_it(name: str):
    # Fused attention has no forward mode: see the next test.
    with sdpa_kernel(SDPBackend.MATH) if name == "vit_b_16" else contextlib.nullcontext():
        check_transforms(small(name))


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_forward_mode_through_fused_attention_fails_as_in_torchvisions_vit():
    x = images()
    for model in (small("vit_b_16"), filled(VisionTransformer(**VIT))):
        with pytest.raises(NotImplementedError, match="forward AD with _scaled_dot_product"):
            jvp(model, (x,), (x,))
        with sdpa_kernel(SDPBackend.MATH):
            jvp(model, (x,), (x,))


# torch.fx


@every_model
def test_symbolic_trace_computes_the_same(name: str):
    traced = torch.fx.symbolic_trace(small(name))
    for x in (images(2), images(3)):
        torch.testing.assert_close(traced(x), small(name)(x))


# The last layer before the second stage or block of each.
LAYERS_INSIDE = {
    **dict.fromkeys(CONV2FORMERS, "stages.0"),
    **dict.fromkeys(["swin_t", "swin_mini_cifar", "swin_micro_cifar", "convnext_t"], "features.1"),
    "vit_b_16": "encoder.layers.encoder_layer_0",
}


@every_model
def test_torchvisions_feature_extractor_takes_it_apart(name: str):
    model, layer, found = small(name), LAYERS_INSIDE[name], []
    extractor = create_feature_extractor(model, {layer: "inside"})
    with model.get_submodule(layer).register_forward_hook(lambda module, args, y: found.append(y)):
        model(images())
    torch.testing.assert_close(extractor(images())["inside"], found[0])


# torch.jit.trace, torch.export, ONNX


@every_model
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python:torch.jit.TracerWarning")
def test_jit_trace_computes_the_same(name: str):
    with torch.no_grad():  # with gradients the check of ViT's trace fails, as of torchvision's own: see the next test
        traced = torch.jit.trace(small(name), images())
        torch.testing.assert_close(traced(images()), small(name)(images()))


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python:torch.jit.TracerWarning")
def test_a_trace_with_gradients_fails_its_check_as_in_torchvisions_vit():
    """Attention has a shortcut without gradients, and the check is without."""
    for model in (small("vit_b_16"), filled(VisionTransformer(**VIT))):
        with pytest.raises(torch.jit.TracingCheckError, match="Graphs differed"):
            torch.jit.trace(model, images())
        torch.jit.trace(model, images(), check_trace=False)


def exported(model: nn.Module, dynamic: bool = True) -> torch.export.ExportedProgram:
    shapes = {"x": {0: torch.export.Dim("batch")}} if dynamic else None
    return torch.export.export(model, (images(),), dynamic_shapes=shapes)


PROGRAMS: dict[str, Callable[[], torch.export.ExportedProgram]] = {
    **{name: functools.partial(lambda name: exported(small(name)), name) for name in WITH_ONE_SWIN},
    "static": lambda: exported(small("conv2former_n_cifar"), dynamic=False),
    "accelerated": lambda: exported(accelerate(copy.deepcopy(small("conv2former_n_cifar")))),
}
WITHOUT_C2F = """
import sys, torch

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("c2f", "torchvision"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocked())
inputs = torch.load("inputs.pt")
programs = {name: torch.export.load(f"{name}.pt2").module() for name in inputs}
torch.save({name: [programs[name](x) for x in inputs[name]] for name in inputs}, "outputs.pt")
"""


def test_an_exported_model_is_plain_aten_and_runs_where_there_is_no_c2f(tmp_path):
    inputs = {name: [images(2), images(5)][: 1 if name == "static" else 2] for name in PROGRAMS}
    for name, export in PROGRAMS.items():
        program = export()
        for node in program.graph.nodes:
            if isinstance(node.target, torch._ops.OpOverload):
                assert node.target.namespace == "aten", f"{name}: {node.target}"
        torch.export.save(program, tmp_path / f"{name}.pt2")
    torch.save(inputs, tmp_path / "inputs.pt")
    done = subprocess.run([sys.executable, "-I", "-c", WITHOUT_C2F], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outputs = torch.load(tmp_path / "outputs.pt")
    for name, xs in inputs.items():
        model = small(name if name in SMALL else "conv2former_n_cifar")
        for x, y in zip(xs, outputs[name], strict=True):
            torch.testing.assert_close(y, model(x).detach(), msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("name", ["conv2former_n", pytest.param("conv2former_mini_cifar", marks=pytest.mark.slow)])
def test_onnxruntime_computes_the_same(name: str, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'c2f[onnx]'")
    import onnxruntime

    shapes = {"x": {0: torch.export.Dim("batch")}}
    torch.onnx.export(
        small(name), (images(),), tmp_path / "model.onnx", dynamo=True, dynamic_shapes=shapes, verbose=False
    )
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for x in (images(2), images(5)):
        (y,) = session.run(None, {"x": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(y), small(name)(x).detach(), rtol=1e-5, atol=1e-5)


# Without numbers, and counted


@every_model
def test_fake_tensors_pass_through(name: str):
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        y = small(name)(mode.from_tensor(images(3)))
    assert y.shape == (3, 10)
    with pytest.raises(ValueError, match=r"images of shape \(N, 3, H, W\)"), mode:  # shapes are checked all the same
        small(name)(mode.from_tensor(images(3)[:, :1]))


def flops(model: nn.Module, x: Tensor, with_gradients: bool) -> int:
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(with_gradients):
        model(x)
    return counter.get_total_flops()


@pytest.mark.parametrize("with_gradients", [True, False])
@every_model
def test_torchs_flop_counter_sees_every_layer(name: str, with_gradients: bool):
    """Two operations for each multiply-add, padding included; only some of ViT's attention is hidden from it."""
    n = 3
    expected = 2 * n * multiply_adds(small(name), 32).nominal
    if name == "vit_b_16":
        # With gradients one fused operator makes the two T x T products, which the counter does not know on a CPU.
        hidden = 2 * TOKENS**2 * DIM
        if not with_gradients:  # and without, one makes the projections of query, key, value and output as well
            hidden += 4 * TOKENS * DIM**2
        expected -= 2 * n * LAYERS * hidden
        assert flops(filled(VisionTransformer(**VIT, num_classes=10)), images(n), with_gradients) == expected
    assert flops(small(name), images(n), with_gradients) == expected


@pytest.mark.parametrize("name", CONV2FORMERS)
def test_torchinfo_counts_the_same_and_biases_besides(name: str):
    """Of the rivals it counts linear layers as if there were one position, and no attention."""
    summary = torchinfo.summary(small(name), input_data=images(2), verbose=0, depth=9)
    weighted = [layer for layer in summary.summary_list if isinstance(layer.module, nn.Conv2d | nn.Linear)]
    found = sum(layer.macs * layer.module.weight.numel() // layer.num_params for layer in weighted)
    assert found == 2 * multiply_adds(small(name), 32).nominal
