"""A GPU record as Markdown: the page record.md, and the short table of the README."""

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from c2f.bench.measure import median_and_range, say_versions
from c2f.report import format_seconds, markdown_table, percentage

Kept = dict[str, dict[str, Any]]
"""By file and part: what a record holds."""
FILES = {
    "tests": "Tests", "depthwise": "The depthwise convolution", "train": "Training steps", "infer": "Inference",
    "trainings": "Trainings",
}  # fmt: skip
MODELS = ("conv2former_n_cifar", "swin_t")
MISSING = "not measured"


def load(folder: Path) -> Kept:
    """What the JSON files of a record hold; of those that are missing, nothing."""
    files = {name: folder / f"{name}.json" for name in FILES}
    return {name: json.loads(file.read_text("utf-8")) if file.is_file() else {} for name, file in files.items()}


def summary(kept: Kept, precisions: Iterable[str] = ("float32", "tf32", "bf16")) -> str:
    """Speed and accuracy of both models, "not measured" where there is nothing. The README's table is that of bf16."""
    rows = []
    for file, what in (("train", "training"), ("infer", "inference")):
        records = [r for part in kept[file].values() for r in part.get("records", ()) if r["batch"] > 1]
        for precision in precisions:
            # Of Conv2Former the fastest contender, plain or accelerated; of both, eager or compiled.
            alike = [r for r in records if r["precision"] == precision]
            kinds = [[r for r in alike if r["what"].startswith(kind)] for kind in (("plain", "accelerated"), "swin_t")]
            best = [min(kind, key=lambda r: median(r["seconds"]), default=None) for kind in kinds]
            speeds = [median_and_range(r["batch"] / s for s in r["seconds"]) if r else MISSING for r in best]
            rows.append([f"{what}, {precision}, images/s", *speeds])
    for recipe in ("gpu", "seed"):
        found = {model: _training(kept, model, recipe) for model in MODELS}
        rows.append([f"test accuracy, recipe `{recipe}` (epochs)", *found.values()])
    return markdown_table(["", *MODELS], rows)


def _training(kept: Kept, model: str, recipe: str) -> str:
    for title, part in kept["trainings"].items():
        if title.startswith(f"training of {model}, recipe {recipe},") and "test_accuracy" in part:
            return f"{percentage(part['test_accuracy'])} ({part['epochs']})"
    return MISSING


def page(kept: Kept) -> str:
    """All of a record: where it was made, what each part came to, its tables."""
    parts = [(name, part) for file in kept.values() for name, part in file.items()]
    about = parts[-1][1]
    said = f"{about['hardware']['name']} ({about['hardware']['device']}); {say_versions(about['versions'])}"
    rehearsal = "**A rehearsal at tiny sizes: these figures say nothing about speed or accuracy.**\n\n"
    outcomes = [[name, _outcome(part), part["written"][:16].replace("T", " ")] for name, part in parts]
    sections = [f"## {title}\n\n{_section(file, kept[file])}" for file, title in FILES.items() if kept[file]]
    return "\n\n".join([
        f"# A GPU record: {about['hardware']['name']}",
        f"{rehearsal * about['rehearsal']}{said}. Made by `c2f bench record`; times are UTC.",
        summary(kept),
        "Of Conv2Former the fastest contender counts, plain or accelerated, of both models the faster of eager and "
        "compiled, median (lowest–highest); accuracy is that of the last epoch.",
        markdown_table(["part", "outcome", "written"], outcomes),
        *sections,
    ]) + "\n"  # fmt: skip


def _outcome(part: dict[str, Any]) -> str:
    if "error" in part:
        return f"failed: {part['error'].splitlines()[-1][:120]}"
    if "skipped" in part:
        return f"not run: {part['skipped']}"
    if "seconds" not in part:
        return f"cut off after epoch {len(part['history'])} of {part['recipe']['epochs']}"
    return f"done in {format_seconds(part['seconds'])}, {format_seconds(part['estimate'])} estimated"


def _section(file: str, parts: dict[str, Any]) -> str:
    if file == "trainings":
        return _trainings(parts)
    said = []
    for name, part in parts.items():
        if "table" in part:
            notes = "\n".join(f"* {note}" for note in part["notes"])
            said.append(f"**{part['title']}**\n\n{markdown_table(**part['table'])}\n\n{notes}")
        else:
            output = "\n".join(part["error"].splitlines()[-20:]) if "error" in part else ""
            said.append(f"{name}: {part.get('said') or _outcome(part)}" + f"\n\n```\n{output}\n```" * bool(output))
    return "\n\n".join(said)


def _trainings(parts: dict[str, Any]) -> str:
    rows = []
    for name, part in parts.items():
        if history := part.get("history"):
            last, speed = history[-1], median(epoch["images_per_second"] for epoch in history)
            epochs = f"{len(history)} of {part['recipe']['epochs']}"
            figures = [percentage(last[f"{split}_accuracy"]) for split in ("test", "train")]
            seconds = sum(epoch["seconds"] for epoch in history)
            rows.append([name, epochs, *figures, f"{seconds:.1f}", f"{speed:,.0f}"])
    header = ["", "epochs", "test accuracy", "training accuracy", "seconds of training", "images/s"]
    note = (
        "* Accuracy is that of the last epoch; the training images are augmented. A training of fewer epochs than its "
        "recipe has a shorter warm-up and averages its weights over fewer steps, in proportion."
    )
    return f"{markdown_table(header, rows)}\n\n{note}"
