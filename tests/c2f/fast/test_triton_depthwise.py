"""The Triton kernels: exact in Triton's interpreter on a CPU, on a GPU where there is one, and no loss where absent."""

import json
import os
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from c2f.fast import autotune, depthwise

SCRIPT = Path(__file__).parents[3] / "docs" / "triton_errors.py"
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed: Linux only")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

# The interpreter is chosen when Triton is imported, so it has a process of its own.
IN_THE_INTERPRETER = f"""
import json, runpy, sys, torch
torch.set_num_threads(1)
script = runpy.run_path({str(SCRIPT)!r})
extreme = ((1, 1, 1, 1), (15, 15), "NCHW"), ((2, 3, 4, 4), (11, 11), "channels_last"), ((1, 2, 9, 1), (1, 7), "NCHW")
for seed, dtype in enumerate((torch.float32, torch.bfloat16, torch.float16)):
    for case in (*script["random_cases"](int(sys.argv[1]), seed, tallest=8), *(extreme if seed == 0 else ())):
        print(json.dumps([str(dtype), case, script["errors"](*case, dtype)]))
"""


@needs_triton
def test_every_pass_is_that_of_float64_in_the_interpreter():
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", IN_THE_INTERPRETER, "2"], env=environment, capture_output=True, text=True, timeout=240
    )
    assert run.returncode == 0, run.stderr
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(found) == 3 * 2 + 3
    for name, case, result in found:
        tolerance = next(least for dtype, least in TOLERANCE.items() if str(dtype) == name)
        assert max(result["errors"]) <= tolerance, (name, case, result)
        assert result["same bits"] and result["layout"], (name, case, result)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_real_compiler_makes_tensor_core_code_for_an_h100(dtype, monkeypatch, tmp_path):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from c2f.fast import triton_depthwise

    if not hasattr(triton, "knobs"):
        pytest.skip("this compiles without a GPU through an interface that Triton has had since 3.4")
    compiled = {}

    def compile_only(kernel, *args, grid, warmup, num_warps=4, num_stages=3, **constants):
        types = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
        plain = dict(zip(kernel.arg_names, args, strict=False))
        signature = {name: types[a.dtype] if isinstance(a, torch.Tensor) else "i32" for name, a in plain.items()}
        source = ASTSource(kernel, signature | dict.fromkeys(constants, "constexpr"), constants)
        how = {"num_warps": num_warps, "num_stages": num_stages}
        code = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=how)
        compiled[kernel.fn.__name__] = code.asm["ptx"]

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(triton.JITFunction, "run", compile_only)
    x, weight = torch.zeros(64, 1, 32, 32, dtype=dtype), torch.zeros(1, 1, 11, 11, dtype=dtype)
    triton_depthwise.forward(x, weight, weight[0, 0, 0, :1])
    triton_depthwise.weight_gradient(x, x, (11, 11))
    assert {name for name, ptx in compiled.items() if "wgmma.mma_async" in ptx} == {"_multiply", "_multiply_back"}
    assert {"_make_bands", "_sum_taps"} <= set(compiled)


def test_importing_the_package_does_not_import_triton():
    program = """
import sys, torch, torchvision
before = "triton" in sys.modules
import c2f, c2f.fast.depthwise
print(before == ("triton" in sys.modules), "c2f.fast.triton_depthwise" in sys.modules)
"""
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "True False\n"


# Where it cannot be


class CannotCompile(Exception):
    """Triton's errors are no RuntimeErrors either."""


class Broken:
    """In place of the module with the kernels."""

    calls = 0

    def forward(self, *_):
        self.calls += 1
        raise CannotCompile("no C compiler")

    weight_gradient = forward


@pytest.fixture
def broken(monkeypatch, tmp_path):
    """Triton is a candidate even here, fails, and nothing is chosen yet."""
    import c2f.fast

    broken = Broken()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(c2f.fast, "triton_depthwise", broken, raising=False)
    monkeypatch.setitem(sys.modules, "c2f.fast.triton_depthwise", broken)
    monkeypatch.setattr(depthwise, "_is_candidate", lambda name, x: name in ("native", "pad", "triton"))
    autotune.clear_choices()
    yield broken
    autotune.clear_choices()


def test_a_case_that_cannot_be_compiled_leaves_the_other_candidates(broken, capfd):
    x, layer = torch.randn(2, 3, 8, 8), depthwise.DepthwiseConv2d(3, 11)
    with autotune.recorded_choices() as used:
        for _ in range(2):
            layer(x).sum().backward()
    assert len(used) == 2 and set(used.values()) <= {"native", "pad"}
    assert broken.calls == 2  # once per pass, in vain
    assert capfd.readouterr() == ("", "")


def test_whatever_triton_raises_is_a_runtime_error_with_its_cause(broken):
    x = torch.randn(2, 3, 8, 8)
    with pytest.raises(RuntimeError, match=r"Triton cannot compute this: CannotCompile\('no C compiler'\)"):
        depthwise.FORWARD["triton"](x, x, None)


def test_it_is_no_candidate_where_it_is_absent_fails_or_the_gpu_is_too_old(broken, monkeypatch):
    device, capability = torch.device("cuda:7"), [8, 0]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: tuple(capability))
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *size, device: ones(*size))
    has_triton = depthwise._has_triton.__wrapped__
    monkeypatch.setattr(depthwise, "find_spec", lambda name: name)
    assert not has_triton(device) and broken.calls == 1
    monkeypatch.setattr(broken, "forward", lambda *_: None)
    assert has_triton(device)
    capability[0] = 7
    assert not has_triton(device)
    capability[0] = 9
    monkeypatch.setattr(depthwise, "find_spec", lambda name: None)
    assert not has_triton(device)


# On a GPU, with the real compiler


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("shape", "kernel"),
    [
        ((256, 64, 32, 32), (11, 11)),
        ((256, 128, 16, 16), (11, 11)),
        ((256, 256, 8, 8), (11, 11)),
        ((256, 512, 4, 4), (11, 11)),
        ((3, 5, 7, 7), (11, 11)),
        ((2, 3, 28, 56), (7, 7)),
        ((1, 3, 20, 112), (5, 13)),
        ((1, 1, 1, 1), (3, 3)),
    ],
)
def test_every_pass_is_that_of_float64_on_a_gpu(shape, kernel, dtype, layout):
    found = runpy.run_path(str(SCRIPT))["errors"](shape, kernel, layout, dtype, "cuda")
    assert max(found["errors"]) <= TOLERANCE[dtype], found
    assert found["same bits"] and found["layout"]


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_triton_is_timed_on_a_gpu(dtype, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    autotune.clear_choices()
    layer = depthwise.DepthwiseConv2d(64, 11).to("cuda", dtype)
    x = torch.randn(32, 64, 8, 8, device="cuda", dtype=dtype)
    layer(x).sum().backward()
    for what in ("forward", "weight gradient"):
        seconds = autotune._read(autotune.case_name(what, x, (11, 11))).seconds
        assert {"native", "toeplitz", "triton"} <= set(seconds), seconds
    autotune.clear_choices()
