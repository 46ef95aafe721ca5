"""Write the newest versions that pyproject.toml's ranges admit into constraints.txt: a part of `make upgrade`.

pip looks for them as Python 3.11.0 would: the set is for each Python that pyproject.toml admits, and what asks for a
later 3.11 would fail on the first ones. Nothing is installed.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
OLDEST = "3.11.0"
# torch itself pins the CUDA libraries and triton that belong to it, exactly. Repeated here they would only stand in
# the way of another build of torch, for an older driver or without CUDA.
PINNED_BY_TORCH = re.compile(r"(cuda|nvidia)-|triton$")


def main() -> None:
    plan = ["--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    as_oldest = ["--python-version", OLDEST, "--only-binary", ":all:", "--target", "unused"]  # older pips want a target
    command = [sys.executable, "-m", "pip", "install", *plan, *as_oldest, ".[lab,test]"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit("constraints.txt is as it was; pip says above why")
    found = {p["metadata"]["name"]: p["metadata"]["version"] for p in json.loads(done.stdout)["install"]}
    names = sorted((n for n in found if n != "c2f" and not PINNED_BY_TORCH.match(n)), key=str.lower)
    heading = [line for line in CONSTRAINTS.read_text().splitlines() if line.startswith("#")]
    CONSTRAINTS.write_text("\n".join([*heading, *(f"{name}=={found[name]}" for name in names)]) + "\n")


if __name__ == "__main__":
    main()
