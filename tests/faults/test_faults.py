"""A few of each fault; `make faults` tries many (docs/faults.md)."""

import subprocess
import sys
from pathlib import Path


def test_a_few_of_each_fault_are_survived():
    campaign = Path(__file__).with_name("campaign.py")
    done = subprocess.run([sys.executable, str(campaign), "--short"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
