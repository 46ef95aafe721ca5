"""Print the tables of a GPU record, and put the short one into the README: `python docs/gpu_tables.py [FOLDER]`.

The folder is the `--out` of `c2f bench record`, by default data/results/gpu.
"""

import re
import sys
from pathlib import Path

from c2f.bench.record_page import load, page, summary

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def main(folder: Path) -> None:
    kept = load(folder)
    print(page(kept) if any(kept.values()) else summary(kept))
    inside = re.compile(r"(<!-- gpu -->\n).*?(\n<!-- /gpu -->)", re.DOTALL)
    table = summary(kept, ["bf16"])
    text = inside.sub(lambda match: f"{match[1]}{table}{match[2]}", README.read_text(encoding="utf-8"))
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(*sys.argv[1:]) if sys.argv[1:] else ROOT / "data" / "results" / "gpu")
