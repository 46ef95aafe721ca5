"""Put what `c2f bench` measured on several occasions into docs/speed.md: `python docs/speed_tables.py FOLDER…`.

Each folder is one occasion, an `--out` of `c2f bench`. The headline is given for all of them, the tables for the first.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from c2f.report import markdown_table

PAGE = Path(__file__).with_name("speed.md")
SUITES = (
    "train-cpu-bf16",
    "infer-cpu-bf16",
    "paper-cpu-bf16",
    "depthwise-cpu",
    "depthwise-cpu-bf16",
    "data-cpu-bf16",
)


def load(folder: Path) -> dict[str, dict[str, Any]]:
    found = {name: folder / f"{name}.json" for name in SUITES}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in found.items() if path.is_file()}


def headlines(occasions: list[dict[str, dict[str, Any]]]) -> str:
    """The best accelerated contender against the best plain one and the best Swin-T, one column per occasion."""
    rows: dict[str, list[str]] = {}
    for occasion in occasions:
        for bench in occasion.values():
            for h in bench["headlines"]:
                ratios = f"{h['of plain']:.2f}× / {h['of swin']:.2f}×"
                rows.setdefault(f"{h['what']}, {h['precision']}", []).append(ratios)
        product = occasion["train-cpu-bf16"]["limits"]
        speeds = f"{product['float32'] / 1e9:,.0f} / {product['bfloat16'] / 1e9:,.0f}"
        rows.setdefault("matrix product, float32 / bf16, GFLOP/s", []).append(speeds)
        rows.setdefault("measured", []).append(occasion["train-cpu-bf16"]["written"][:16].replace("T", " "))
    header = ["of the best plain / of swin_t", *(f"occasion {i + 1}" for i in range(len(occasions)))]
    return markdown_table(header, [[name, *values] for name, values in rows.items()])


def table(bench: dict[str, Any]) -> str:
    notes = "\n".join(f"* {note}" for note in bench["notes"])
    return f"**{bench['title']}**\n\n{markdown_table(bench['table']['header'], bench['table']['rows'])}\n\n{notes}"


def main(folders: list[Path]) -> None:
    occasions = [load(folder) for folder in folders]
    tables = "\n\n".join(table(bench) for bench in occasions[0].values())
    page = PAGE.read_text(encoding="utf-8")
    for name, text in (("headlines", headlines(occasions)), ("tables", tables)):
        inside = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        page = inside.sub(lambda match, text=text: f"{match[1]}{text}\n{match[2]}", page)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])
