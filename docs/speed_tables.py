"""Put what `c2f bench` measured on several occasions into docs/speed.md: `python docs/speed_tables.py FOLDER…`.

Each folder is one occasion, an `--out` of `c2f bench`. The headline is given for all of them, each table for the first
that has it.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from c2f.report import markdown_table

PAGE = Path(__file__).with_name("speed.md")
NAMES = [f"{suite}-cpu{kind}" for suite in ("train", "infer", "paper", "depthwise", "data") for kind in ("", "-bf16")]


def load(folder: Path) -> dict[str, dict[str, Any]]:
    found = {name: folder / f"{name}.json" for name in NAMES}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in found.items() if path.is_file()}


def headlines(occasions: list[dict[str, dict[str, Any]]]) -> str:
    """The best accelerated contender against the best plain one and the best Swin-T, one column per occasion."""
    rows: dict[str, list[str]] = {}
    for occasion in occasions:
        for bench in occasion.values():
            for h in bench["headlines"]:
                ratios = f"{h['of plain']:.2f}× / {h['of swin']:.2f}×"
                rows.setdefault(f"{h['what']}, {h['precision']}", []).append(ratios)
        training = occasion.get("train-cpu-bf16") or occasion["train-cpu"]
        speeds = [
            f"{training['limits'][dtype] / 1e9:,.0f}"
            for dtype in ("float32", "bfloat16")
            if dtype in training["limits"]
        ]
        rows.setdefault("matrix product, GFLOP/s (float32, then bf16 where it was measured)", []).append(
            ", ".join(speeds)
        )
        rows.setdefault("measured", []).append(training["written"][:16].replace("T", " "))
    header = ["of the best plain / of swin_t", *(f"occasion {i + 1}" for i in range(len(occasions)))]
    return markdown_table(header, [[name, *values] for name, values in rows.items()])


def first_of_each(occasions: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    return {name: bench for occasion in reversed(occasions) for name, bench in occasion.items()}


def table(bench: dict[str, Any]) -> str:
    notes = "\n".join(f"* {note}" for note in bench["notes"])
    return f"**{bench['title']}**\n\n{markdown_table(bench['table']['header'], bench['table']['rows'])}\n\n{notes}"


def main(folders: list[Path]) -> None:
    occasions = [load(folder) for folder in folders]
    tables = "\n\n".join(map(table, first_of_each(occasions).values()))
    page = PAGE.read_text(encoding="utf-8")
    for name, text in (("headlines", headlines(occasions)), ("tables", tables)):
        inside = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        page = inside.sub(lambda match, text=text: f"{match[1]}{text}\n{match[2]}", page)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])
