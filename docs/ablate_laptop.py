"""What each choice of the laptop recipe is worth: leave one out, train for a few epochs, compare.

    python docs/ablate_laptop.py --data cifar10 --out runs/ablation

Each change is a run of `c2f train` of its own, so this can be cut off and goes on where it was. When all are done it
writes data/results/laptop/ablation.md. With few epochs and one seed, differences below about one per cent are noise.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from c2f.report import describe_machine, format_seconds, load_finished, markdown_table, percentage, training_seconds

RESULT = Path(__file__).resolve().parents[1] / "data" / "results" / "laptop" / "ablation.md"
CHANGES: dict[str, list[str]] = {
    "the laptop recipe": [],
    "AdamW at 0.003 for all, no Muon": ["--optimizer", "adamw", "--lr", "0.003"],
    "Muon at 0.01": ["--muon-lr", "0.01"],
    "AdamW at 0.003 beside Muon": ["--lr", "0.003"],
    "beta2 0.999": ["--beta2", "0.999"],
    "published init": ["--set", "init=truncated_normal"],
    "patch stem": ["--set", "stem=patch"],
    "all images at 32×32": ["--small-share", "0"],
    "no label smoothing": ["--label-smoothing", "0"],
    "no flips": ["--flip", "0"],
    "no shifts": ["--crop", "none"],
    "cosine schedule": ["--schedule", "cosine"],
    "average of the weights, 0.99": ["--ema", "0.99"],
    "depths 1, 3, 1": ["--set", "depths=1,3,1"],
    "7×7 kernels": ["--set", "kernel_size=7"],
    "A + V for A ⊙ V": ["--set", "fusion=sum"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--out", type=Path, default=Path("runs", "ablation"))
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    chosen = parser.parse_args()
    folders = {name: [] for name in CHANGES}
    for seed in chosen.seeds:
        for number, (name, flags) in enumerate(CHANGES.items()):
            folder = chosen.out / f"{number:02}-{seed}"
            command = [sys.executable, "-m", "c2f", "train", "--data", chosen.data, "--recipe", "laptop"]
            command += ["--epochs", str(chosen.epochs), "--seed", str(seed), "--out", str(folder), *flags]
            subprocess.run(command, check=True)
            folders[name].append(load_finished(folder))
    base = statistics.mean(run.history[-1].test_accuracy for run in folders["the laptop recipe"])
    rows = []
    for name, runs in folders.items():
        accuracies = [run.history[-1].test_accuracy for run in runs]
        mean = statistics.mean(accuracies)
        seconds = statistics.median(training_seconds(run) for run in runs)
        every = ", ".join(map(percentage, accuracies))
        rows.append((name, every, f"{100 * (mean - base):+.1f}", format_seconds(seconds)))
    first = folders["the laptop recipe"][0]
    table = markdown_table(("one change", "test accuracy", "difference, points", "training time"), rows)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(
        f"{table}\n\n`conv2former_mini_cifar`, {chosen.epochs} epochs on {first.recipe['data']['name']}, seeds "
        f"{', '.join(map(str, chosen.seeds))}; {describe_machine(first)}.\nAccuracy is the last epoch's, on all test "
        f"images; times say little where other work ran beside. Again: `python docs/ablate_laptop.py --data "
        f"{chosen.data} --epochs {chosen.epochs}`\n"
    )
    print(table)


if __name__ == "__main__":
    main()
