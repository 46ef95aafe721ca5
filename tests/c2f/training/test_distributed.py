"""Two processes under torchrun learn what one process learns from the same global batch."""

import os
import subprocess
import sys
import textwrap
from dataclasses import asdict

import pytest

from c2f.training.run import load_run

SCRIPT = """
    import sys
    import torch
    torch.set_num_threads(1)
    sys.path.insert(0, {tests!r})
    import test_loop as t

    data = t.small(t.load_dataset("digits", image_size=16))
    t.run(data, {out!r}, t.Recipe(**{recipe!r}), {callbacks})
"""


RECIPE = {"epochs": 2, "batch_size": 32, "lr": 3e-3, "weight_decay": 0.05, "drop_path": 0.0, "ema": 0.9}


def torchrun(tmp_path, out, callbacks="callbacks=[]") -> None:
    script = tmp_path / "script.py"
    tests = os.path.dirname(__file__)
    script.write_text(textwrap.dedent(SCRIPT).format(tests=tests, out=str(out), recipe=RECIPE, callbacks=callbacks))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(300)
def test_two_processes_agree_with_one_and_resume(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    import test_loop as t

    one, two = tmp_path / "one", tmp_path / "two"
    t.run(t.small(t.load_dataset("digits", image_size=16)), one, t.Recipe(**RECIPE))
    torchrun(tmp_path, two, "callbacks=[t.At(lambda state: t.os.kill(t.os.getpid(), t.signal.SIGINT), step=7)]")
    assert not load_run(two).summary["complete"]
    torchrun(tmp_path, two)

    measured = {"seconds", "images_per_second"}
    for a, b in zip(load_run(one).history.records, load_run(two).history.records, strict=True):
        expected = {name: value for name, value in asdict(a).items() if name not in measured}
        assert {name: asdict(b)[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert load_run(two).summary["complete"]
