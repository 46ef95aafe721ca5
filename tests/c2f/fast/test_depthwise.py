"""The depthwise convolution: exact, whichever way it is computed, and a drop-in for nn.Conv2d."""

import contextlib
import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from c2f.fast import autotune, depthwise
from c2f.fast.depthwise import FORWARD, WEIGHT_GRADIENT, DepthwiseConv2d, depthwise_conv2d, toeplitz

ON_A_CPU = [
    {name: compute for name, compute in table.items() if name not in others}
    for table, others in ((FORWARD, {"toeplitz", "triton"}), (WEIGHT_GRADIENT, {"relaid", "triton"}))
]
ALGORITHMS = ["auto", *(ON_A_CPU[0] | ON_A_CPU[1])]
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
ODD = st.integers(0, 15).map(lambda half: 2 * half + 1)
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 5e-3}  # a few roundings of each type


@contextlib.contextmanager
def only(algorithm):
    """Each pass is computed by the algorithm if it has it, else natively, small filters too; "auto" is timed."""
    with pytest.MonkeyPatch.context() as patch:
        if algorithm != "auto":
            patch.setattr(depthwise, "SMALL_KERNEL", 0)
            patch.setattr(depthwise, "choose", lambda _, ways, *__: algorithm if algorithm in ways else "native")
        autotune.fast_path.clear()
        yield
    autotune.fast_path.clear()


def arguments(shape, kernel, dtype=torch.float32, layout="NCHW"):
    """x, weight, bias and a gradient of the output. The seed is fixed: shapes are what varies."""
    torch.manual_seed(0)
    x, grad = torch.randn(2, *shape)
    tensors = x, torch.randn(shape[1], 1, *kernel), torch.randn(shape[1]), grad
    x, weight, bias, grad = (t.to(dtype) for t in tensors)
    return x.contiguous(memory_format=LAYOUTS[layout]), weight, bias, grad.contiguous(memory_format=LAYOUTS[layout])


def reference(x, weight, bias):
    """PyTorch's own convolution, in float64."""
    x, weight, bias = x.double(), weight.double(), None if bias is None else bias.double()
    return F.conv2d(x, weight, bias, padding=(weight.shape[2] // 2, weight.shape[3] // 2), groups=len(weight))


def answers(function, x, weight, bias, grad):
    """The output and every gradient."""
    leaves = [t.detach().clone().requires_grad_() for t in (x, weight, bias) if t is not None]
    y = function(*leaves, *[None] * (bias is None))
    y.backward(grad.to(y.dtype))
    return [y.detach(), *(leaf.grad for leaf in leaves)]


def assert_near(found, expected, tolerance, pytorchs=None):
    """Within a tolerance of the norm, or as near as PyTorch's own call in that type, which "auto" may choose."""
    for what, a, b, own in zip(("output", "x", "weight", "bias"), found, expected, pytorchs or expected, strict=False):
        error, size = (a.double() - b).norm(), b.double().norm()
        assert error <= max(tolerance * size, (own.double() - b).norm()), f"{what}: off by {error / size:.1e}"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 3), c=st.integers(1, 4), height=st.integers(1, 40), width=st.integers(1, 40), k_h=ODD, k_w=ODD,
    algorithm=st.sampled_from(ALGORITHMS), layout=st.sampled_from(list(LAYOUTS)),
    dtype=st.sampled_from(list(TOLERANCE)),
)  # fmt: skip
def test_output_and_gradients_are_those_of_conv2d_in_float64(n, c, height, width, k_h, k_w, algorithm, layout, dtype):
    x, weight, bias, grad = arguments((n, c, height, width), (k_h, k_w), dtype, layout)
    with only(algorithm):
        found = answers(depthwise_conv2d, x, weight, bias, grad)
    assert all(t.dtype == dtype for t in found)
    with only("native"):
        pytorchs = answers(depthwise_conv2d, x, weight, bias, grad)
    assert_near(found, answers(reference, x, weight, bias, grad), TOLERANCE[dtype], pytorchs)


# The seed model's and the paper's maps, and what breaks first: one position, one row, a kernel far beyond the map.
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    ("shape", "kernel"),
    [
        ((2, 3, 4, 4), (11, 11)),
        ((2, 3, 8, 8), (11, 11)),
        ((2, 3, 16, 16), (11, 11)),
        ((1, 2, 32, 32), (11, 11)),
        ((1, 2, 14, 14), (21, 21)),
        ((1, 1, 1, 1), (31, 31)),
        ((3, 2, 1, 9), (5, 3)),
        ((2, 2, 9, 1), (1, 7)),
    ],
)
def test_each_algorithm_at_the_shapes_that_matter(shape, kernel, algorithm, layout):
    x, weight, bias, grad = arguments(shape, kernel, layout=layout)
    with only(algorithm):
        found = answers(depthwise_conv2d, x, weight, bias, grad)
    assert_near(found, answers(reference, x, weight, bias, grad), 1e-5)
    assert found[0].is_contiguous(memory_format=LAYOUTS[layout])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_without_bias_from_views_and_with_a_gradient_in_another_layout(algorithm):
    x, weight, _, grad = arguments((2, 3, 8, 16), (5, 11))
    x, grad = x[..., ::2], grad.flip(-1)[..., ::2].contiguous(memory_format=torch.channels_last)
    with only(algorithm):
        found = answers(depthwise_conv2d, x, weight, None, grad)
    assert_near(found, answers(reference, x, weight, None, grad), 1e-5)


def test_frozen_weights_get_no_gradient_and_the_input_still_does():
    layer = DepthwiseConv2d(2, 11).requires_grad_(False)
    x = torch.randn(1, 2, 8, 8, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    assert x.grad is not None


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("shape", "kernel"), [((2, 2, 3, 4), (5, 5)), ((1, 2, 3, 14), (3, 7))])
def test_gradients_and_gradients_of_gradients(shape, kernel, algorithm):
    x, weight, bias, _ = arguments(shape, kernel, torch.double)
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    with only(algorithm):
        assert torch.autograd.gradcheck(depthwise_conv2d, leaves)
        assert torch.autograd.gradgradcheck(depthwise_conv2d, leaves)


def test_an_empty_batch():
    assert DepthwiseConv2d(3, 11)(torch.randn(0, 3, 8, 8)).shape == (0, 3, 8, 8)


# A drop-in for nn.Conv2d


@pytest.mark.parametrize("kernel", [11, (3, 7)])
def test_it_is_copied_pickled_and_loaded_like_conv2d(kernel):
    ours = DepthwiseConv2d(4, kernel)
    theirs = nn.Conv2d(4, 4, kernel, padding="same", groups=4)
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 4, 8, 8)
    torch.testing.assert_close(ours(x), theirs(x))
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        torch.testing.assert_close(twin(x), ours(x))


@pytest.mark.parametrize("algorithm", ["auto", "native", "swap", "toeplitz"])
def test_autocast_computes_in_bfloat16_as_conv2d_does(algorithm):
    x, weight, bias, grad = arguments((2, 3, 8, 8), (11, 11))

    def cast(*args):
        with torch.autocast("cpu", torch.bfloat16):
            return depthwise_conv2d(*args)

    with only(algorithm):
        found = answers(cast, x, weight, bias, grad)
    assert found[0].dtype == torch.bfloat16
    assert found[1].dtype == found[2].dtype == torch.float32  # gradients come back in the type of what they are of
    assert_near(found, answers(reference, x, weight, bias, grad), 1e-2)


@pytest.mark.parametrize(("algorithm", "layout"), [("auto", "NCHW"), ("auto", "channels_last"), ("swap", "NCHW")])
def test_one_node_to_the_compiler_and_plain_to_export(algorithm, layout):
    torch.manual_seed(0)
    torch._dynamo.reset()
    model = nn.Sequential(nn.GELU(), DepthwiseConv2d(3, 11), nn.Flatten())
    x = torch.randn(2, 3, 12, 12).contiguous(memory_format=LAYOUTS[layout])
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    gradients = []
    for function in (model, compiled):
        model.zero_grad()
        with only(algorithm):
            y = function(x)
            y.square().sum().backward()
        gradients.append([y.detach(), *(p.grad.clone() for p in model.parameters())])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)
    exported = torch.export.export(model, (x,))
    assert not any("c2f" in str(node.target) for node in exported.graph.nodes)
    torch.testing.assert_close(exported.module()(x), model(x))


# What the compiler is told about types, shapes and strides must be what the operators return.
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_operators_keep_torchs_contract(layout, dtype):
    x, weight, bias, grad = (
        t.detach().requires_grad_() for t in arguments((2, 3, 6, 5), (7, 5), dtype=dtype, layout=layout)
    )
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    ops = torch.ops.c2f
    for algorithm in FORWARD | WEIGHT_GRADIENT:
        with only(algorithm):
            if algorithm in FORWARD:
                torch.library.opcheck(ops.depthwise_conv2d.default, (x, weight, bias), test_utils=tests)
            if algorithm in WEIGHT_GRADIENT:
                torch.library.opcheck(ops.depthwise_weight_gradient.default, (x, grad, 7, 5), test_utils=tests)


# Bad input


@pytest.mark.parametrize(
    ("x", "weight", "bias", "sentence"),
    [
        ((2, 3, 8), (3, 1, 3, 3), None, r"takes x \(N, C, H, W\)"),
        ((2, 3, 8, 8), (3, 3, 3, 3), None, r"weight \(C, 1, k_h, k_w\), not \(2, 3, 8, 8\) and \(3, 3, 3, 3\)"),
        ((2, 3, 8, 8), (4, 1, 3, 3), None, "for other groups use torch.nn.functional.conv2d"),
        ((2, 3, 8, 8), (3, 1, 4, 3), None, "kernel is 4 x 3; .* use odd numbers"),
        ((2, 3, 8, 8), (3, 1, 3, 3), (4,), r"one number per channel, \(3,\), not \(4,\)"),
    ],
)
def test_bad_input_is_named(x, weight, bias, sentence):
    with pytest.raises(ValueError, match=sentence):
        depthwise_conv2d(torch.zeros(x), torch.zeros(weight), None if bias is None else torch.zeros(bias))


def test_mixed_types_are_named():
    with pytest.raises(ValueError, match=r"x is torch.float64 and weight torch.float32, bias torch.float32; bring"):
        DepthwiseConv2d(2, 3)(torch.zeros(1, 2, 4, 4, dtype=torch.double))


@pytest.mark.parametrize("kernel", [4, (3, 0)])
def test_a_layer_that_cannot_be_is_refused_when_it_is_made(kernel):
    with pytest.raises(ValueError, match="use odd numbers"):
        DepthwiseConv2d(4, kernel)


# The convolution as a matrix


def test_the_toeplitz_matrix_is_the_convolution():
    torch.manual_seed(0)
    x, weight = torch.randn(1, 2, 5, 4), torch.randn(2, 1, 7, 3)
    y = torch.einsum("cpq,ncq->ncp", toeplitz(weight, 5, 4), x.flatten(2)).view_as(x)
    torch.testing.assert_close(y, F.conv2d(x, weight, padding=(3, 1), groups=2))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_what_only_accelerators_are_offered_is_exact_too(layout, dtype):
    x, weight, bias, grad = arguments((3, 2, 4, 6), (11, 5), dtype, layout)
    y, _, for_weight, _ = answers(reference, x, weight, bias, grad)
    found = FORWARD["toeplitz"](x, weight, bias), FORWARD["toeplitz"](x, weight, None) + bias[:, None, None]
    for a, b in zip((*found, WEIGHT_GRADIENT["relaid"](x, grad, (11, 5))), (y, y, for_weight), strict=True):
        assert (a.double() - b).norm() <= TOLERANCE[dtype] * b.norm()


def test_a_gpu_is_offered_the_toeplitz_matrix_for_small_maps_and_triton_where_it_compiles(monkeypatch):
    class OnGpu:  # what the choice of candidates looks at
        is_cpu, is_cuda, device, dtype = False, True, torch.device("cuda:0"), torch.bfloat16

        def __init__(self, side):
            self.shape = (2, 3, side, side)

    for has_triton in (True, False):
        monkeypatch.setattr(depthwise, "_has_triton", lambda device, answer=has_triton: answer)
        small, large = ({name for name in FORWARD if depthwise._is_candidate(name, OnGpu(s))} for s in (12, 13))
        assert small - large == {"toeplitz"}
        assert ("triton" in small, "triton" in large) == (has_triton, has_triton)
    monkeypatch.setattr(depthwise, "_has_triton", lambda device: True)
    OnGpu.dtype = torch.float64
    assert not depthwise._is_candidate("triton", OnGpu(8))
    assert not depthwise._is_candidate("triton", torch.zeros(2, 3, 8, 8))


def test_the_other_layout_reaches_pytorch_as_such(monkeypatch):
    seen = []
    monkeypatch.setattr(depthwise, "_native", lambda x, *_: seen.append(autotune.layout_of(x)))
    for layout in LAYOUTS.values():
        x, weight, *_ = arguments((2, 3, 8, 8), (11, 11))
        FORWARD["relaid"](x.contiguous(memory_format=layout), weight, None)
    assert seen == [torch.channels_last, torch.contiguous_format]  # the first is what cuDNN takes on a GPU


def test_a_row_of_the_toeplitz_matrix_is_the_kernel_laid_around_the_position():
    weight = torch.arange(1.0, 10).view(1, 1, 3, 3)
    row = toeplitz(weight, 3, 3)[0, 0].view(3, 3)  # around the top left corner only the lower right taps are inside
    assert row.tolist() == [[5, 6, 0], [8, 9, 0], [0, 0, 0]]


# The choice


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Nothing chosen yet, a cache folder of the test's own, and what is chosen as it is used."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    autotune.clear_choices()
    with autotune.recorded_choices() as used:
        yield used
    autotune.clear_choices()


def remember(forward="native", weight_gradient="native", kernel=(5, 5)):
    """Choices for the arguments of the next tests."""
    x, *_ = arguments((2, 3, 6, 6), kernel)
    chosen = {"forward": forward, "weight gradient": weight_gradient}
    chosen = {autotune.case_name(what, x, kernel): name for what, name in chosen.items()}
    autotune.use_choices(chosen)
    return chosen


@pytest.mark.parametrize("algorithm", ON_A_CPU[0] | ON_A_CPU[1])
def test_a_choice_of_another_time_is_obeyed(fresh, algorithm):
    x, weight, bias, grad = arguments((2, 3, 6, 6), (13, 13))  # of which "crop" can leave taps out
    ways = [algorithm if algorithm in table else "native" for table in ON_A_CPU]
    chosen = remember(*ways, kernel=(13, 13))
    found = answers(depthwise_conv2d, x, weight, bias, grad)
    assert fresh == chosen  # nothing was timed
    torch.testing.assert_close(found[0], FORWARD[ways[0]](x, weight, bias), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found[2], WEIGHT_GRADIENT[ways[1]](x, grad, (13, 13)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_timed_is_what_will_be_done_with_the_way_back_into_the_layout(fresh, monkeypatch, layout):
    def all_of(name, candidates, device, least_gain=0.0):
        for run in candidates.values():
            wanted = LAYOUTS[layout] if name.startswith("forward") else torch.contiguous_format
            assert run().is_contiguous(memory_format=wanted)
        return "native"

    monkeypatch.setattr(depthwise, "choose", all_of)
    x, *_ = arguments((2, 3, 6, 6), (5, 5), layout=layout)
    DepthwiseConv2d(3, 5)(x)  # all is chosen before anything is computed


def test_inference_times_the_forward_pass_and_training_the_weight_gradient_as_well(fresh):
    layer, x = DepthwiseConv2d(2, 5), torch.randn(1, 2, 6, 6)
    with torch.no_grad():
        layer(x)
    assert [name.split(",")[0] for name in fresh] == ["forward"]
    y = layer(x.requires_grad_())
    assert [name.split(",")[0] for name in fresh] == ["forward", "weight gradient"]
    y.sum().backward()
    assert len(fresh) == 2


def step_of(x, weight, bias):
    return depthwise_conv2d(x.requires_grad_(), weight.requires_grad_(), bias).grad_fn.name()


OWN = "ConvolutionBackward0"


def test_pytorchs_own_call_is_taken_where_it_wins_and_for_small_filters(fresh):
    remember()
    assert step_of(*arguments((2, 3, 6, 6), (5, 5))[:3]) == OWN
    fresh.clear()
    assert step_of(*arguments((2, 3, 6, 6), (3, 3))[:3]) == OWN
    assert not fresh


def test_a_choice_that_changes_is_obeyed_by_the_next_call(fresh):
    x, weight, bias, _ = arguments((2, 3, 6, 6), (5, 5))
    for choice in ("native", "swap", "native"):
        remember(weight_gradient=choice)
        assert [step_of(x, weight, bias) == OWN for _ in range(2)] == [choice == "native"] * 2
    autotune.clear_choices()
    remember(forward="pad")
    assert step_of(x, weight, bias) != OWN


def test_a_call_like_an_earlier_one_in_all_but_one_respect_is_not_taken_for_it(fresh):
    x, weight, bias, _ = arguments((2, 3, 6, 6), (5, 5))
    weight.requires_grad_()
    remember()
    depthwise_conv2d(x, weight, bias)
    with pytest.raises(ValueError, match="one number per channel"):
        depthwise_conv2d(x, weight, bias[:2])
    with pytest.raises(ValueError, match="bring them to one type"):
        depthwise_conv2d(x, weight.double(), bias)
    with torch.autocast("cpu", torch.bfloat16):
        assert depthwise_conv2d(x, weight, bias).dtype == torch.bfloat16
    assert depthwise_conv2d(x, weight, bias).dtype == torch.float32
    assert {"bfloat16" in name for name in fresh} == {True, False}  # bfloat16 was timed for itself


def test_what_is_kept_of_calls_stays_small(fresh, monkeypatch):
    monkeypatch.setattr(autotune, "FAST_PATHS", 3)
    for width in range(1, 9):
        depthwise_conv2d(torch.randn(1, 1, 2, width), torch.randn(1, 1, 3, 3))
        assert len(autotune.fast_path) <= 3
