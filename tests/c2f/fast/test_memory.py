"""`keep_memory`: freed tensors are used again without the system, and all of it goes back at the end."""

import subprocess
import sys

import pytest

from c2f.fast import memory
from c2f.fast.memory import keep_memory

needs_glibc = pytest.mark.skipif(memory._glibc() is None, reason="malloc is not glibc's here")

# In a process of its own, since what malloc does hangs on all that was allocated before.
WATCH = """
import resource, torch
from pathlib import Path
from c2f.fast.memory import keep_memory

def megabytes():
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024

def faults(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        torch.ones(12 * 2**20)  # 48 MiB, or 12,288 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(4)
print(faults(4))
with keep_memory():
    faults(12)  # glibc before 2.38 asks for a little more than was freed, until what was freed lies together
    with keep_memory():
        print(faults(4))
    print(faults(4))
    inside = megabytes()
print(inside - megabytes())
"""


@needs_glibc
def test_pages_are_faulted_once_and_returned_at_the_end():
    found = subprocess.run([sys.executable, "-c", WATCH], capture_output=True, text=True, check=True).stdout.split()
    before, inner, outer, returned = map(float, found)
    assert before > 4 * 12_000
    assert inner < 100 and outer < 100  # the inner one's end is not the outer one's
    assert returned > 40


def test_elsewhere_it_does_nothing(monkeypatch):
    monkeypatch.setattr(memory, "_glibc", lambda: None)
    with keep_memory():
        assert memory._inside == 0


def test_an_error_inside_ends_it():
    with pytest.raises(ZeroDivisionError), keep_memory("cpu"):
        raise ZeroDivisionError
    assert memory._inside == 0
    with keep_memory("cuda"):  # whose memory PyTorch keeps by itself
        assert memory._inside == 0


@needs_glibc
def test_a_function_can_be_wrapped():
    @keep_memory()
    def depth():
        return memory._inside

    assert (depth(), depth(), memory._inside) == (1, 1, 0)
