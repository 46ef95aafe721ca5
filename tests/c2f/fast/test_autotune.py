"""Choices: timed once per case, kept for the machine, shared by the processes of a run, never without numbers."""

import multiprocessing
import os

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

import c2f
from c2f.fast import autotune
from c2f.fast.accelerate import accelerate

CPU = torch.device("cpu")


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Nothing chosen yet, and a cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    autotune.clear_choices()
    monkeypatch.setattr(autotune, "_cleared", 0.0)
    yield tmp_path / "c2f" / "choices"
    autotune.clear_choices()


def fake_clock(monkeypatch, milliseconds):
    """Candidates that finish at once, and a clock that says they took so long; "product" is the machine's own speed."""
    clock = [0.0]
    monkeypatch.setattr(autotune.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(autotune, "_product_seconds", lambda device: milliseconds.get("product", 1.0) / 1e3)
    calls = []

    def candidate(name):
        def run():
            calls.append(name)
            clock[0] += milliseconds[name] / 1e3
            return torch.zeros(())

        return run

    return {name: candidate(name) for name in milliseconds if name != "product"}, calls


def as_in_a_new_process():
    autotune.fast_path.clear()
    autotune._choices.clear()


def test_the_fastest_is_chosen_once(fresh, monkeypatch):
    candidates, calls = fake_clock(monkeypatch, {"native": 9.0, "swap": 2.0, "rows": 3.0})
    assert autotune.choose("a case", candidates, CPU) == "swap"
    calls.clear()
    assert autotune.choose("a case", candidates, CPU) == "swap"
    assert not calls
    assert autotune._read("a case").seconds == pytest.approx({"swap": 2e-3, "rows": 3e-3, "native": 9e-3})


def test_the_first_stays_where_the_best_is_hardly_better(fresh, monkeypatch):
    candidates, _ = fake_clock(monkeypatch, {"native": 2.0, "swap": 1.95})
    assert autotune.choose("a case", candidates, CPU) == "native"


def test_a_gain_too_small_to_pay_for_leaving_the_first_is_left(fresh, monkeypatch):
    candidates, _ = fake_clock(monkeypatch, {"native": 3.0, "swap": 2.0})
    assert autotune.choose("a case", candidates, CPU, least_gain=2e-3) == "native"
    assert autotune.choose("another case", candidates, CPU, least_gain=0.5e-3) == "swap"


def test_a_hopeless_candidate_is_not_timed_again_and_again(fresh, monkeypatch):
    candidates, calls = fake_clock(monkeypatch, {"native": 1000.0, "swap": 1.0})
    autotune.choose("a case", candidates, CPU)
    assert calls.count("native") == 1


def test_a_first_call_that_compiles_is_forgiven_on_an_accelerator(fresh, monkeypatch):
    milliseconds = {"compiled": 5000.0, "swap": 2.0}
    candidates, _ = fake_clock(monkeypatch, milliseconds)

    def compiled():
        candidates["compiled"]()
        milliseconds["compiled"] = 1.0

    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: None)
    assert autotune.choose("a case", {**candidates, "compiled": compiled}, torch.device("mps")) == "compiled"


def test_a_candidate_that_cannot_run_is_out(fresh, monkeypatch):
    candidates, _ = fake_clock(monkeypatch, {"native": 2.0, "swap": 1.0})
    candidates["swap"] = lambda: torch.zeros(2) @ torch.zeros(3)
    assert autotune.choose("a case", candidates, CPU) == "native"


# What is kept


def test_another_process_of_the_same_machine_chooses_alike(fresh, monkeypatch):
    candidates, calls = fake_clock(monkeypatch, {"native": 9.0, "swap": 2.0})
    autotune.choose("a case", candidates, CPU)
    calls.clear()
    as_in_a_new_process()
    assert autotune.choose("a case", candidates, CPU) == "swap"
    assert not calls
    autotune.clear_choices()
    autotune.choose("a case", candidates, CPU)
    assert calls  # though it was kept


SPOILT = [
    "{",
    "[1]",
    "\0" * 9,
    '{"case": "a case"}',
    '{"choice": "native", "busy": false, "time": 9e9, "seconds": 1}',
    '{"choice": "native", "busy": false, "time": null, "seconds": {}}',
]


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_spoilt_file_is_not_believed_and_mended(fresh, monkeypatch, spoilt):
    file = autotune._file("a case")
    file.parent.mkdir(parents=True)
    file.write_text(spoilt)
    candidates, calls = fake_clock(monkeypatch, {"native": 9.0, "swap": 2.0})
    assert autotune.choose("a case", candidates, CPU) == "swap"
    calls.clear()
    as_in_a_new_process()
    assert autotune.choose("a case", candidates, CPU) == "swap" and not calls


def test_without_a_folder_to_write_to_each_process_times_for_itself(fresh, monkeypatch):
    fresh.parent.write_text("a file where the folder should be")
    candidates, _ = fake_clock(monkeypatch, {"native": 9.0, "swap": 2.0})
    assert autotune.choose("a case", candidates, CPU) == "swap"


def test_a_choice_of_a_busy_machine_is_kept_for_an_hour_and_then_timed_again(fresh, monkeypatch):
    now = [1e9]
    monkeypatch.setattr(autotune.time, "time", lambda: now[0])
    fake_clock(monkeypatch, {"native": 1.0})
    quiet = {"native": 9.0, "swap": 2.0, "product": 1.0}
    autotune.choose("another case", fake_clock(monkeypatch, quiet)[0], CPU)  # so that the machine's speed is known
    busy, _ = fake_clock(monkeypatch, {"native": 20.0, "swap": 40.0, "product": 3.0})
    assert autotune.choose("a case", busy, CPU) == "native"
    assert autotune._read("a case").busy
    candidates, calls = fake_clock(monkeypatch, quiet)
    for later, choice in ((60, "native"), (3700, "swap"), (9e9, "swap")):
        as_in_a_new_process()
        now[0] = 1e9 + later
        assert autotune.choose("a case", candidates, CPU) == choice
        assert bool(calls) == (later == 3700)
        calls.clear()


def several_processes(target, arguments):
    """Run it in processes of their own, as many as there are arguments, which share one import of torch."""
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload([__name__])
    processes = [context.Process(target=target, args=args) for args in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)


def write_cases(folder, number):
    os.environ["XDG_CACHE_HOME"] = folder
    for case in range(6):
        for name in (f"case {case} of {number}", "a case of all"):
            autotune._write(name, autotune.Timing("swap", {"swap": 0.1}, busy=False, time=1.0))


def test_ten_writers_at_once_lose_nothing(fresh, tmp_path):
    several_processes(write_cases, [(str(tmp_path), number) for number in range(10)])
    cases = [f"case {case} of {number}" for case in range(6) for number in range(10)]
    assert all(autotune._read(case).choice == "swap" for case in [*cases, "a case of all"])


def test_what_a_run_used_is_recorded_and_nothing_else(fresh, monkeypatch):
    candidates, _ = fake_clock(monkeypatch, {"native": 9.0, "swap": 2.0})
    autotune.choose("before", candidates, CPU)
    with autotune.recorded_choices() as outer:
        autotune.choose("first", candidates, CPU)
        with autotune.recorded_choices() as inner:
            autotune.choose("second", candidates, CPU)
    autotune.choose("after", candidates, CPU)
    assert outer == {"first": "swap", "second": "swap"} and inner == {"second": "swap"}


def choose_as_rank(folder, rank):
    os.environ["XDG_CACHE_HOME"] = f"{folder}/{rank}"  # as on two machines
    autotune._measure = lambda candidates, device: {"native": 2.0, "swap": 1.0 + 2 * rank}
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", 2), rank=rank, world_size=2)
    cases = ["one", "two", "three"]
    chosen = {case: autotune.choose(case, {"native": None, "swap": None}, CPU) for case in cases[:: 1 - 2 * rank]}
    everybodys = [None, None]
    dist.all_gather_object(everybodys, chosen)
    dist.destroy_process_group()
    assert everybodys[0] == everybodys[1], everybodys


def test_the_processes_of_a_run_choose_alike(tmp_path):
    """Though each is the faster by another way, and they meet their cases in another order."""
    several_processes(choose_as_rank, [(str(tmp_path), 0), (str(tmp_path), 1)])


# What is never timed


def fake():
    return FakeTensorMode(allow_non_fake_inputs=True)


def call_traced(model, x):
    return torch.jit.trace(model, x, check_trace=False)  # the check is an ordinary call


def call_in_dual_numbers(model, x):
    with forward_ad.dual_level():
        return model(forward_ad.make_dual(x, torch.ones_like(x)))


def call_fake(model, x):
    with fake() as mode:
        return model(mode.from_tensor(x))


def call_counted(model, x):
    with FlopCounterMode(display=False):
        return model(x)


WATCHED = {
    "fake": call_fake,
    "meta": lambda model, x: model.to("meta")(x.to("meta")),
    "counted": call_counted,
    "traced": call_traced,
    "vmap": lambda model, x: torch.func.vmap(model)(x[:, None]),
    "grad": lambda model, x: torch.func.grad(lambda x: model(x).sum())(x),
    "jvp": lambda model, x: torch.func.jvp(model, (x,), (x,)),
    "dual numbers": call_in_dual_numbers,
    "exported": lambda model, x: torch.export.export(model, (x,)),
    "a subclass": lambda model, x: model(x.as_subclass(type("Mine", (torch.Tensor,), {}))),
}


@pytest.mark.parametrize("how", WATCHED)
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_nothing_is_timed_or_written_where_there_is_nothing_to_time(how, fresh, monkeypatch):
    def never(*_):
        raise AssertionError("timed")

    monkeypatch.setattr(autotune, "_measure", never)
    layers = [nn.Conv2d(3, 4, 1), nn.GELU(), nn.Conv2d(4, 4, 5, padding=2, groups=4), nn.Flatten()]
    model = accelerate(nn.Sequential(*layers)).requires_grad_(False)
    x = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    WATCHED[how](model, x)
    assert not fresh.exists()
    with pytest.raises(AssertionError, match="timed"):
        model.to("cpu") if how != "meta" else model.to_empty(device="cpu")
        model(x)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore::torch.jit.TracerWarning")
def test_a_failed_trace_leaves_nothing_behind(fresh):
    model = accelerate(c2f.create_model("conv2former_mini_cifar", dims=(8, 16), depths=(1, 1)))
    with pytest.raises(RuntimeError):
        torch.jit.trace(nn.Sequential(model, nn.Linear(3, 3)), torch.zeros(1, 3, 32, 32))
    assert not fresh.exists()
    assert F.softmax(model(torch.zeros(1, 3, 32, 32)), 1).shape == (1, 10)
