"""Measure the opponents of assignment 4's contest on its hidden split (data/results/contest/opponents.json).

    python docs/measure_contest.py

Each training is written when it has ended, so that a run which was cut off still leaves what it measured.
"""

import argparse
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f.device import choose_precision, describe_hardware, describe_versions
from c2f.files import write_json
from c2f.models import create_model
from c2f_course.grading import contest
from c2f_course.grading.assignment import load_assignment
from c2f_course.grading.grade import Student, read_cells

AUTHOR = "the author's entry"


class Opponent:
    """A model of the kit's as an entry: AdamW with warm-up and a cosine, no augmentation."""

    def __init__(self, seed: int, name: str, lr: float) -> None:
        torch.manual_seed(seed)
        self.model: nn.Module = create_model(name, drop_path=0.0)  # in so few steps nothing is overlearned
        self.lr, self.precision = lr, choose_precision("auto", torch.device("cpu"))
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        rest = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices}, {"params": rest, "weight_decay": 0.0}], lr, weight_decay=0.05
        )

    def logits(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            return self.model((images.float() / 255 - 0.5) / 0.25).float()

    def step(self, images: Tensor, labels: Tensor, progress: float) -> None:
        self.model.train()
        rising, falling = min(1.0, (progress + 0.01) / 0.1), max(0.0, progress - 0.1) / 0.9
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * rising * 0.5 * (1 + math.cos(math.pi * falling))
        self.optimizer.zero_grad()
        F.cross_entropy(self.logits(images), labels, label_smoothing=0.1).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        self.model.eval()
        return self.logits(images)


def name_of_seed(seed: int) -> str:
    """Shows whether figures belong to a hidden split, and does not show its seed."""
    return hashlib.sha256(str(seed).encode()).hexdigest()[:16]


def measure(name: str, rates: list[float], hidden_seed: int, say: Callable[[str], None] = print) -> None:
    """Train an opponent once for each rate; keep what the best one on the validation split reaches on the hidden."""
    path, hidden = contest.results_path(), contest.hidden_split(hidden_seed)
    practice = contest.practice_split()
    told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    budget = {
        "images_seen": contest.IMAGES_SEEN,
        "batch": contest.BATCH,
        "hidden_seed_sha256": name_of_seed(hidden_seed),
    }
    if told.get("budget") != budget:
        told = {"budget": budget, "opponents": {}}
    kept = told["opponents"].get(name, {}).get("tried", [])
    for rate in rates:
        opponent, started = Opponent(0, name, rate), time.perf_counter()
        contest.feed(opponent, practice.train, contest.IMAGES_SEEN, 0, show=True)
        seconds = round(time.perf_counter() - started, 1)
        on = [
            round(contest.accuracy_of(contest.ask(opponent, split.images), split.labels), 4)
            for split in (practice.validation, hidden)
        ]
        kept = [tried for tried in kept if tried["lr"] != rate]
        kept.append({"lr": rate, "validation": on[0], "hidden": on[1], "seconds": seconds})
        best = max(kept, key=lambda tried: tried["validation"])
        told["opponents"][name] = {
            "accuracy": best["hidden"],
            "parameters": sum(p.numel() for p in opponent.model.parameters()),
            "recipe": f"AdamW, lr {best['lr']:g} (the best of {len(kept)} on the validation split), weight decay 0.05, "
            f"warm-up over a tenth, cosine, label smoothing 0.1, clipping at 1; no augmentation, no drop path",
            "precision": opponent.precision,
            "tried": sorted(kept, key=lambda tried: tried["lr"]),
            "hardware": describe_hardware(),
            "versions": describe_versions(),
        }  # fmt: skip
        write_json(path, told)
        say(f"{name}, lr {rate:g}: validation {on[0]:.1%}, hidden {on[1]:.1%}, {seconds:.0f} s")


def measure_author(hidden_seed: int, seeds: Sequence[int] = (0, 1, 2)) -> None:
    """Let the assignment's solution compete as a submission does, from several seeds, and keep what it reaches."""
    assignment, hidden, reached = load_assignment("4"), contest.hidden_split(hidden_seed), []
    code = [source for kind, source in read_cells(assignment.folder / "solution.ipynb") if kind == "code"]
    for seed in seeds:
        with Student(code, assignment.limits) as student, student.fresh() as other:
            classes = [some.remote().get("Entry") for some in (student, other)]
            reached.append(contest.compete(*classes, hidden, seed=seed))
        print(f"{AUTHOR}, seed {seed}: {reached[-1]}")
    told = json.loads(contest.results_path().read_text(encoding="utf-8"))
    told["opponents"][AUTHOR] = {
        "accuracy": round(sum(one.accuracy for one in reached) / len(reached), 4),
        "parameters": reached[0].numbers,
        "recipe": f"as a submission, seeds {', '.join(map(str, seeds))}: "
        + ", ".join(f"{one.accuracy:.1%}" for one in reached),
        "seconds": [round(one.seconds, 1) for one in reached],
        "hardware": describe_hardware(),
        "versions": describe_versions(),
    }
    write_json(contest.results_path(), told)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the opponents of assignment 4 on its hidden split.")
    parser.add_argument("--opponent", nargs="+", default=["swin_t", "swin_micro_cifar", "author"])
    parser.add_argument("--lr", nargs="+", type=float, default=[1.5e-4, 3e-4, 6e-4])
    parser.add_argument("--seed", type=int, help="of the hidden split; by default, that of the hidden tests")
    args = parser.parse_args()
    seed = args.seed
    if seed is None:
        seed = load_assignment("4").tests[0].run.__globals__["SEED"]
    for name in args.opponent:
        if name == "author":
            measure_author(seed)
        else:
            measure(name, args.lr, seed)


if __name__ == "__main__":
    main()
