"""Two processes under torchrun learn what one process learns from the same global batch."""

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import asdict

import pytest

SCRIPT = """
    import sys
    import torch
    torch.set_num_threads(1)
    sys.path.insert(0, {tests!r})
    import test_loop as t

    recipe = t.Recipe(epochs=2, batch_size=32, lr=3e-3, weight_decay=0.05, drop_path=0.0, ema=0.9)
    data = t.small(t.load_dataset("digits", image_size=16))
    t.run(data, {out!r}, recipe, {callbacks})
"""


def script(tmp_path, out, callbacks="callbacks=[]") -> str:
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT).format(tests=os.path.dirname(__file__), out=str(out), callbacks=callbacks))
    return str(path)


def torchrun(path: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", path]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.timeout(180)
def test_two_processes_agree_with_one_and_resume(tmp_path):
    from c2f.training.checkpoint import load_run

    one, two = tmp_path / "one", tmp_path / "two"
    subprocess.run([sys.executable, script(tmp_path, one)], check=True)
    stop = "callbacks=[t.At(lambda state: t.os.kill(t.os.getpid(), t.signal.SIGINT), step=7)]"
    interrupted = torchrun(script(tmp_path, two, stop))
    assert interrupted.returncode == 0, interrupted.stderr
    assert not load_run(two).summary["complete"]
    resumed = torchrun(script(tmp_path, two))
    assert resumed.returncode == 0, resumed.stderr

    alone, together = (load_run(path).history.records for path in (one, two))
    measured = {"seconds", "images_per_second"}
    for a, b in zip(alone, together, strict=True):
        expected = {name: value for name, value in asdict(a).items() if name not in measured}
        assert {name: asdict(b)[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert json.loads((two / "summary.json").read_text())["complete"]
