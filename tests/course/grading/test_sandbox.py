"""What a student's notebook can reach from inside the sandbox: real attempts, in a real one."""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from c2f_course.grading import sandbox
from c2f_course.grading.remote import RemoteGone
from c2f_course.grading.sandbox import Limits, run_submission

ROOT = Path(__file__).parents[3]
needs_sandbox = pytest.mark.skipif(sandbox.why_not() is not None, reason=str(sandbox.why_not()))
START = 90.0  # seconds, for Python and torch to be imported on a busy machine

REFUSED = {
    "import os; os.fork()": "PermissionError",
    "import subprocess; subprocess.run(['ls'])": "PermissionError",
    "import multiprocessing as m; m.get_context('spawn').Process(target=print).start()": "PermissionError",
    "import socket; socket.create_connection(('1.1.1.1', 53), 2)": "unreachable",
    "bytearray(5 << 30)": "MemoryError",
    "import mmap; mmap.mmap(-1, 40 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)": "Cannot allocate memory",
    "import mmap; mmap.mmap(-1, 1 << 20)": "PermissionError",  # shared memory, which no limit counts
    "import os; os.memfd_create('x')": "PermissionError",
    "import ctypes; assert ctypes.CDLL(None).shmget(0, 1 << 20, 0o1600) != -1": "AssertionError",
    "import os; os.open('/proc/sys/vm/overcommit_memory', os.O_WRONLY)": "Read-only",
    "with open('/tmp/large', 'wb') as f:\n    for _ in range(65): f.write(bytes(1 << 20))": "File too large",
    "for i in range(3):\n    with open(f'/tmp/{i}', 'wb') as f: f.write(bytes(40 << 20))": "No space left",
    "open('/file', 'w')": "Read-only",
    "open('/dev/file', 'w')": "Read-only",
    "open('/answer.json', 'a')": "Read-only",
    f"open({os.fspath(ROOT / 'c2f' / '__init__.py')!r}, 'a')": "Read-only",
    f"open({os.fspath(ROOT / 'tests' / 'conftest.py')!r})": "No such file",
    f"open({os.fspath(ROOT / 'README.md')!r})": "No such file",
    "open('/etc/passwd')": "No such file",
    "import resource; resource.setrlimit(resource.RLIMIT_DATA, (-1, -1))": "not allowed to raise",
    "import ctypes; c = ctypes.CDLL(None, use_errno=True); assert c.unshare(0x10000000) == 0": "AssertionError",
    "import os; os.kill(os.getppid(), 0); assert os.getppid() > 1": "AssertionError",
}


@needs_sandbox
def test_what_a_notebook_has_no_business_with_is_refused_and_honest_work_is_not(monkeypatch) -> None:
    monkeypatch.setenv("SECRET", "grades")
    work = "import os, socket, threading\nthread = threading.Thread(target=print); thread.start(); thread.join()\n"
    work += "import torch\nx = torch.nn.Conv2d(3, 4, 3, padding=1)(torch.ones(2, 3, 8, 8)).detach()\n"
    work += "names = list(os.environ)\nlinks = [name for _, name in socket.if_nameindex()]"
    with run_submission([*REFUSED, work], Limits(disk=64 << 20)) as student:
        errors = student.ask("errors", seconds=START)
        assert student.get("x").shape == (2, 4, 8, 8)
        assert "SECRET" not in student.get("names") and student.get("links") in (["lo"], [])
    raised = {int(re.match(r"cell (\d+)", error)[1]): error for error in errors}
    wrong = {code: raised.get(number) for number, (code, sentence) in enumerate(REFUSED.items(), 1)
             if sentence not in raised.get(number, "")}  # fmt: skip
    assert wrong == {} and len(errors) == len(REFUSED)


@needs_sandbox
def test_an_endless_loop_that_ignores_signals_ends_and_leaves_no_process(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # so that the sandbox has this path on its command line
    mark = f"c2f-endless-{os.getpid()}"
    cell = (
        f"import ctypes, signal, threading\nmark = {mark!r}\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=False).start()\nwhile True: print('x')"
    )
    started = time.monotonic()
    submission = run_submission([cell], Limits(seconds=8))
    with submission as student, pytest.raises(RemoteGone, match="in time"):
        student.ask("errors", seconds=START)
    assert time.monotonic() - started < 15
    listed = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True).stdout
    assert str(tmp_path) not in listed


@pytest.mark.parametrize(
    ("system", "tool", "machine", "sentence"),
    [("Darwin", "/usr/bin/bwrap", "arm64", "needs Linux"), ("Linux", None, "x86_64", "apt install bubblewrap"),
     ("Linux", "/usr/bin/bwrap", "riscv64", "knows no riscv64")],
)  # fmt: skip
def test_without_a_sandbox_it_is_said_and_refused(monkeypatch, system, tool, machine, sentence) -> None:
    monkeypatch.setattr(sandbox.platform, "system", lambda: system)
    monkeypatch.setattr(sandbox.platform, "machine", lambda: machine)
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: tool)
    with pytest.raises(RuntimeError, match=sentence), run_submission([], Limits()):
        pass


@pytest.mark.parametrize("sandboxed", [True, False])
def test_windows_is_sent_to_wsl_with_and_without_a_sandbox(monkeypatch, sandboxed: bool) -> None:
    monkeypatch.setattr(sandbox.platform, "system", lambda: "Windows")
    with pytest.raises(RuntimeError, match="grading needs Linux: install WSL") as raised:
        run_submission([], Limits(sandboxed=sandboxed)).__enter__()
    assert "no-sandbox" not in str(raised.value)


def test_the_filter_is_whole_instructions_for_both_machines() -> None:
    for machine in sandbox.ARCHITECTURES:
        assert len(sandbox.system_call_filter(machine)) % 8 == 0
    assert sys.platform != "linux" or sandbox.system_call_filter("x86_64") != sandbox.system_call_filter("aarch64")
