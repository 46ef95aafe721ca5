"""What c2f does by a device's name, run as on CUDA and as on an Apple GPU."""

import sys
from pathlib import Path
from unittest import mock

import pytest
import torch

from c2f import cli, doctor
from c2f.bench import suites
from c2f.bench.measure import Conditions
from c2f.device import (
    available_devices,
    choose_device,
    choose_precision,
    describe_hardware,
    synchronize,
    tf32_allowed,
)
from c2f.fast import autotune, memory
from c2f.training import loop, process
from c2f.training.recipes import Recipe

sys.path.insert(0, str(Path(__file__).parent))
from pretend_accelerator import PretendAccelerator


@pytest.fixture(params=["cuda", "mps"])
def there(request):
    with PretendAccelerator(request.param) as accelerator:
        yield accelerator


def test_the_best_device_is_the_accelerator(there):
    assert available_devices() == [there.name, "cpu"]
    assert choose_device() == torch.device(*{"cuda": ("cuda", 0), "mps": ("mps",)}[there.name])
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match=f"no {there.name}:3 that PyTorch can use; here, {there.name} or cpu would do"):
        choose_device(f"{there.name}:3")
    other = {"cuda": "mps", "mps": "cuda"}[there.name]
    with pytest.raises(ValueError, match=f"no {other} that PyTorch can use"):
        choose_device(other)


def test_a_process_of_torchrun_takes_the_gpu_of_its_rank(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with PretendAccelerator("cuda"):
        assert choose_device() == torch.device("cuda", 1)


def test_precision_and_hardware_are_found(there):
    device = choose_device()
    assert choose_precision("bf16", device) == "bf16"
    assert choose_precision("auto", device) == {"cuda": "bf16", "mps": "float32"}[there.name]
    name = describe_hardware(device)["name"]
    assert (name == "Pretend GPU") == (there.name == "cuda")


def test_auto_is_fp16_on_a_card_that_only_imitates_bf16():
    with PretendAccelerator("cuda"), mock.patch("torch.cuda.is_bf16_supported", lambda including_emulation: False):
        assert choose_precision("auto", choose_device()) == "fp16"


def test_what_the_loop_sets_by_name_is_put_back(there):
    device = choose_device()
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with tf32_allowed("tf32", device):
        allowed = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    assert allowed == ((True, True) if there.name == "cuda" else before)
    assert before == (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    assert choose_precision("tf32", device) == {"cuda": "tf32", "mps": "float32"}[there.name]
    synchronize(device)
    synchronize(torch.device("cpu"))
    assert there.synchronized == 1


def test_the_doctor_describes_the_device(there):
    ok, text, _ = doctor.device()
    assert ok and text.startswith(there.name)
    assert ("16 GiB, with bf16" in text) == (there.name == "cuda")
    assert doctor.convmod()[0]


def test_the_generators_of_the_device_are_put_back(there):
    device = choose_device()
    with mock.patch("torch.cuda.set_rng_state") as put_back, process.forked_rng(device):
        assert torch.backends.cudnn.deterministic
        torch.manual_seed(1)
    assert put_back.called == (there.name == "cuda")


@pytest.mark.parametrize(("like", "backend"), [("cuda", "nccl"), ("mps", "gloo")])
def test_several_processes_talk_over_what_the_device_has(like, backend, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    found = {"is_initialized": False, "init_process_group": None, "get_rank": 1, "destroy_process_group": None}
    distributed = mock.Mock(**{f"{name}.return_value": value for name, value in found.items()})
    with (
        PretendAccelerator(like),
        mock.patch.object(process, "dist", distributed),
        mock.patch("torch.cuda.set_device") as set_device,
        process.processes(choose_device()) as (rank, world),
    ):
        assert (rank, world) == (1, 2)
    assert distributed.init_process_group.call_args.args == (backend,)
    assert set_device.called == (like == "cuda")


def test_the_optimizer_is_fused_where_the_device_has_it(there):
    layer = torch.nn.Linear(3, 2).to(there.name)
    (optimizer,) = loop.make_optimizers(layer, Recipe(epochs=1))
    assert optimizer.defaults["fused"] == (there.name == "cuda")


def test_candidates_are_timed_with_waits_and_not_while_a_graph_is_captured(there):
    x = torch.ones(8, 8, device=there.name)
    candidates = {"product": lambda: x @ x, "sum": lambda: x + x}
    autotune.clear_choices()
    assert autotune.choose("by device name", candidates, x.device) in candidates
    assert there.synchronized > 0
    assert autotune.case_name("forward", x[None, None], (3, 3)).endswith(describe_hardware(x.device)["name"])
    with mock.patch("torch.cuda.is_current_stream_capturing", lambda: True):
        chosen = autotune.choose("by device name, captured", candidates, x.device)
    assert chosen == "product" or there.name == "mps"


def test_memory_is_kept_on_the_cpu_alone(there):
    with mock.patch.object(memory, "_glibc") as glibc, memory.keep_memory(choose_device()):
        assert not glibc.called


def test_peak_memory_is_the_cards_own_counter(there):
    make = torch.nn.Identity
    with mock.patch.object(suites, "_three_steps") as steps, mock.patch("torch.cuda.max_memory_allocated", lambda: 3):
        found = suites.peak_memory(make, Conditions(choose_device()))
    assert found == {"cuda": 3, "mps": None}[there.name]
    assert steps.called == (there.name == "cuda")


@pytest.mark.parametrize(("like", "expected"), [("cuda", 256), ("mps", 256)])
def test_compare_times_larger_batches_there(like, expected):
    run = mock.Mock()
    with (
        PretendAccelerator(like),
        mock.patch("c2f.report.load_finished", return_value=run),
        mock.patch("c2f.report.recipe_of", return_value=Recipe(epochs=1)),
        mock.patch("c2f.report.curves"),
        mock.patch("c2f.report.compare") as compare,
    ):
        cli.main(["compare", "a", "--figure", "b.png"])
    conditions = compare.call_args.args[1]
    assert (conditions.device.type, conditions.batch_size) == (like, expected)


@pytest.mark.parametrize("like", ["cuda", "mps"])
def test_bench_compiles_on_a_gpu_without_a_compiler(like):
    bench = {"title": "", "table": {"header": ["what"], "rows": []}, "notes": []}
    with (
        PretendAccelerator(like),
        mock.patch("shutil.which", lambda name: None),
        mock.patch("c2f.bench.suites.run", return_value=bench) as run,
        mock.patch("c2f.files.write_json"),
    ):
        cli.main(["bench", "train"])
    assert run.call_args.args[1].compile == (like == "cuda")
