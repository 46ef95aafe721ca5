"""Break trainings and their files on purpose, and count how many survive; prints a Markdown table.

    python tests/faults/campaign.py             the long form, as `make faults` runs it
    python tests/faults/campaign.py --short     a few of each, as `make test` runs them

A training survives when, the fault over, the same command ends with the bits of an undisturbed run. A damaged file is
survived when each command either ends with what the whole file gives, or exits with code 2 after one sentence.
Everything is done in forked children: this process computes nothing, since autograd's threads forbid to fork later.
"""

import argparse
import contextlib
import functools
import io
import itertools
import os
import pickle
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import matplotlib.pyplot  # noqa: F401  # imported once, and not in every child
import sklearn.datasets
import sklearn.metrics  # noqa: F401
import torch

import c2f.report  # noqa: F401
from c2f import cli
from c2f.training import loop
from c2f.training import run as run_module
from c2f.training.run import load_run, load_weights

TINY = ["--set=dims=8,8", "--set=depths=1,1", "--set=kernel_size=3", "--image-size=8", "--no-channels-last"]
TRAIN = ["train", "--data=digits", "--epochs=3", "--batch-size=480", "--ema=0.5", "--threads=1", *TINY]
TEXTS = ("recipe.json", "summary.json", "history.csv")
BINARIES = ("last.ckpt", "previous.ckpt", "best.safetensors", "final.safetensors")
Outcome = tuple[bool, str]


# ---- Children


def forked(action: Callable[[], int | None], log: Path) -> int:
    """Start a child that does this alone, with its output in `log`; its id."""
    if child := os.fork():
        return child
    signal.alarm(180)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(output), "w", buffering=1) for _ in range(2))
    try:
        code = action() or 0
    except BaseException:
        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def command(arguments: list[str], log: Path, prepare: Callable[[], None] = lambda: None) -> tuple[int, str]:
    """The exit code of a c2f command in a child, and all that it printed."""

    def action() -> int:
        prepare()
        return cli.main(arguments)

    code = wait(forked(action, log))
    return code, log.read_text(errors="backslashreplace")


def train(out: Path, log: Path, prepare: Callable[[], None] = lambda: None) -> tuple[int, str]:
    return command([*TRAIN, "--out", str(out)], log, prepare)


def save_after_every_step() -> None:
    real = loop.train
    loop.train = lambda *a, **k: real(*a, **{**k, "checkpoint_seconds": 0})


def is_one_sentence(code: int, text: str) -> bool:
    lines = [line for line in text.splitlines() if line.startswith("c2f: ")]
    return code == 2 and len(lines) == 1 and "Traceback" not in text


class Campaign:
    """A folder to work in, the undisturbed run, and how often each fault is tried."""

    def __init__(self, folder: Path, short: bool) -> None:
        self.folder, self.short, self.random = folder, short, random.Random(1)
        self.log, self.whole = folder / "log", folder / "whole"
        os.environ.update(C2F_DATA=str(folder / "data"), XDG_CACHE_HOME=str(folder / "cache"))
        started = time.monotonic()
        code, text = train(self.whole, self.log)
        assert code == 0, text
        self.seconds = time.monotonic() - started
        self.number = itertools.count()

    def few(self, long: int, short: int) -> int:
        return short if self.short else long

    def new(self) -> Path:
        return self.folder / f"run{next(self.number)}"

    def same_bits(self, out: Path) -> Outcome:
        """Finish the run in `out` with the same command, and compare it with the undisturbed one."""
        code, text = train(out, self.log)
        if code:
            return False, f"the same command ended with {code}: {text[-300:]}"
        try:
            runs = [load_run(folder).history.records for folder in (out, self.whole)]
            same = [[(r.lr, r.train_loss, r.test_loss, r.test_accuracy) for r in records] for records in runs]
            for name in ("best", "final"):
                a, b = (load_weights(folder / f"{name}.safetensors") for folder in (out, self.whole))
                if a.keys() != b.keys() or not all(torch.equal(a[key], b[key]) for key in a):
                    return False, f"{name} differs"
        except ValueError as error:
            return False, str(error)
        shutil.rmtree(out)
        return same[0] == same[1], "the histories differ"


# ---- The faults: each yields an outcome per try


def random_kills(campaign: Campaign) -> Iterator[Outcome]:
    """SIGKILL at a random moment of a training that saves after every step, then once more while it resumes."""
    for _ in range(campaign.few(100, 1)):
        out = campaign.new()
        for _ in range(2):
            child = forked(partial(train_in_place, out), campaign.log)
            time.sleep(campaign.random.uniform(0, 1.2 * campaign.seconds))
            os.kill(child, signal.SIGKILL)
            wait(child)
        yield campaign.same_bits(out)


def train_in_place(out: Path) -> int:
    save_after_every_step()
    return cli.main([*TRAIN, "--out", str(out)])


def kills_at_named_moments(campaign: Campaign) -> Iterator[Outcome]:
    """SIGKILL before, and after, a file of each kind is put in its place; before, with half of it written."""
    moments = [(name, when) for name in (*TEXTS, *BINARIES) for when in ("before", "after")]
    for name, when in moments[:: campaign.few(1, 6)]:
        out, count = campaign.new(), itertools.count(1)

        def prepare(name: str = name, when: str = when, count: Iterator[int] = count) -> None:
            save_after_every_step()
            real = os.replace

            def replace(source: Path, target: Path) -> None:
                last = Path(target).name == name and next(count) == (2 if name in ("last.ckpt", "previous.ckpt") else 1)
                if last and when == "before":
                    if not str(source).endswith(".ckpt"):  # previous.ckpt is not written but renamed
                        os.truncate(source, os.path.getsize(source) // 2)
                    os.kill(os.getpid(), signal.SIGKILL)
                real(source, target)
                if last:
                    os.kill(os.getpid(), signal.SIGKILL)

            os.replace = replace

        code, text = train(out, campaign.log, prepare)
        if code != -signal.SIGKILL:
            yield False, f"not killed {when} {name}: {code} {text[-200:]}"
        else:
            yield campaign.same_bits(out)


def damaged(content: bytes, generator: random.Random, tries: int) -> Iterator[tuple[str, bytes]]:
    """Truncations and flipped bits at random places, and a few contents that are something else altogether."""
    for at in (0, len(content) // 2, len(content) - 1, *(generator.randrange(len(content)) for _ in range(tries))):
        yield f"cut at {at}", content[:at]
    for _ in range(tries + 1):
        at, bit = generator.randrange(len(content)), 1 << generator.randrange(8)
        yield f"flipped at {at}", content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]
    for other in (b"null", b"{}", b"[1]", b"\x00\xff" * 40):
        yield f"is {other[:6]!r}", other


def commands(run: Path, folder: Path) -> dict[str, list[str]]:
    image = str(folder / "image.png")
    return {
        "evaluate": ["evaluate", str(run)],
        "evaluate best": ["evaluate", str(run / "best.safetensors")],
        "evaluate last": ["evaluate", str(run / "last.ckpt")],
        "predict": ["predict", str(run), image],
        "export": ["export", str(run), "--weights", "mine"],
        "compare": ["compare", str(run), "--no-measure", "--figure", str(folder / "curves.png")],
        "train": [*TRAIN, "--out", str(run)],
    }


READS = {  # what a command reads, besides the recipe, the summary and the history
    "evaluate": ["final.safetensors"],
    "evaluate best": ["best.safetensors"],
    "evaluate last": ["last.ckpt"],
    "predict": ["final.safetensors"],
    "export": ["final.safetensors"],
    "compare": [],
    "train": ["last.ckpt", "previous.ckpt", "final.safetensors"],
}


def damaged_files(names: tuple[str, ...], campaign: Campaign) -> Iterator[Outcome]:
    """Every kind of file of a run, damaged, and every command that reads it."""
    from PIL import Image

    Image.new("RGB", (8, 8), "white").save(campaign.folder / "image.png")
    run = campaign.new()
    shutil.copytree(campaign.whole, run)
    words = commands(run, campaign.folder)
    expected = functools.cache(lambda key: figures(*command(words[key], campaign.log)))
    for name in names:
        content = (campaign.whole / name).read_bytes()
        reading = [key for key, reads in READS.items() if name in (*TEXTS, *reads)]
        for i, (how, spoilt) in enumerate(damaged(content, campaign.random, campaign.few(3, 0))):
            for key in reading if not campaign.short else reading[:1] * (i == 3):
                shutil.rmtree(run)
                shutil.copytree(campaign.whole, run)
                expected(key)
                (run / name).write_bytes(spoilt)
                code, text = command(words[key], campaign.log)
                harmless = code == 0 and (name == "history.csv" or figures(code, text) == expected(key))
                yield harmless or is_one_sentence(code, text), f"{key}, {name} {how}: {code} {text[-300:]}"


def figures(code: int, text: str) -> list[str]:
    """The percentages that a command printed, without those of bars, and of a training the last one."""
    found = re.findall(r"[\d.]+ ?%(?!\|)", text)
    return [str(code), *(found[-1:] if "c2f evaluate" in text else found)]


def damaged_stores(campaign: Campaign) -> Iterator[Outcome]:
    """A damaged file among the trained weights, and a damaged data cache."""
    from PIL import Image

    weights, pictures = campaign.folder / "data" / "weights", campaign.folder / "pictures"
    command(["export", str(campaign.whole), "--weights", "mine"], campaign.log)
    (file,) = weights.glob("*.safetensors")
    use = [*TRAIN, "--set=weights=mine", "--epochs=1", "--out"]
    for split, label in itertools.product(("train", "test"), ("a", "b")):
        (pictures / split / label).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (8, 8), (90 * i, 40, 0)).save(pictures / split / label / f"{i}.png")
    look = ["data", str(pictures), "--image-size", "8"]
    right = re.findall("sha256 .*", command(look, campaign.log)[1])
    (cache,) = (campaign.folder / "data" / "cache").glob("pictures*.safetensors")
    for how, spoilt in itertools.islice(
        damaged(file.read_bytes(), campaign.random, campaign.few(10, 0)), 0, None, campaign.few(1, 4)
    ):
        whole, out = file.read_bytes(), campaign.new()
        file.write_bytes(spoilt)
        code, text = command([*use, str(out)], campaign.log)
        file.write_bytes(whole)
        header = code == 0 and "flipped" in how  # a bit of what is said of the weights, not of the weights
        yield header or is_one_sentence(code, text), f"weights {how}: {code} {text[-300:]}"
    whole = cache.read_bytes()
    for how, spoilt in itertools.islice(
        damaged(whole, campaign.random, campaign.few(10, 0)), 0, None, campaign.few(1, 4)
    ):
        cache.write_bytes(spoilt)
        code, text = command(look, campaign.log)
        yield code == 0 and re.findall("sha256 .*", text) == right, f"cache {how}: {code} {text[-300:]}"


class Attack:
    """A pickle that runs a function when it is opened."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple:
        return self.function, self.arguments


def malicious_pickles(campaign: Campaign) -> Iterator[Outcome]:
    """Code in place of a checkpoint or of weights, with and without a right checksum."""
    owned = campaign.folder / "owned"
    attacks = [
        Attack(os.mkdir, str(owned)),
        Attack(os.system, f"mkdir {owned}"),
        Attack(subprocess.check_call, ["mkdir", str(owned)]),
        Attack(exec, f"import os; os.mkdir({str(owned)!r})"),
    ]
    payloads = []
    for attack in attacks:
        zipped = io.BytesIO()
        torch.save({"step": 0, "model": attack}, zipped)
        payloads += [zipped.getvalue(), *(pickle.dumps({"model": attack}, protocol) for protocol in range(6))]
    run = campaign.new()
    shutil.copytree(campaign.whole, run)
    for payload in payloads[:: campaign.few(1, 28)]:
        for content in (payload, run_module.MAGIC + run_module.hashlib.sha256(payload).digest() + payload):
            for name, words in (
                ("last.ckpt", ["evaluate", str(run / "last.ckpt")]),
                ("final.safetensors", ["evaluate", str(run)]),
            ):
                shutil.rmtree(run)
                shutil.copytree(campaign.whole, run)
                (run / name).write_bytes(content)
                code, text = command(words, campaign.log)
                yield is_one_sentence(code, text) and not owned.exists(), f"{name}: {code} {text[-300:]}"


def full_disks(campaign: Campaign) -> Iterator[Outcome]:
    """No room for the checkpoint: a small tmpfs where one can be mounted, else a limit on the size of files."""
    size = (campaign.whole / "last.ckpt").stat().st_size
    for share in (0.9, 0.3, 1.5, 2.5, 3.0)[:: campaign.few(1, 5)]:
        with small_disk(campaign.folder / "disk", int(size * share) // 4096 * 4096 + 4096) as disk:
            out = disk / "run"
            code, text = train(out, campaign.log, save_after_every_step)
            kept = campaign.new()
            if out.exists():
                shutil.copytree(out, kept)
        yield (is_one_sentence(code, text) or code == 0), f"full at {share}: {code} {text[-300:]}"
        yield campaign.same_bits(kept)
    for share in (0.2, 0.99)[:: campaign.few(1, 2)]:

        def limited(limit: int = int(size * share)) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

        out = campaign.new()
        code, text = train(out, campaign.log, limited)
        yield is_one_sentence(code, text), f"files of at most {share}: {code} {text[-300:]}"
        yield campaign.same_bits(out)


@contextlib.contextmanager
def small_disk(place: Path, size: int, options: str = "") -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}{options}", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        yield Path(tempfile.mkdtemp(dir=place))  # an ordinary folder: no disk fills up
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def read_only_folders(campaign: Campaign) -> Iterator[Outcome]:
    """A folder that may not be written, from the start and from the first epoch on."""
    for started in (True, False)[: campaign.few(2, 1)]:
        with small_disk(campaign.folder / "disk", 2**26) as disk:
            out = disk / "run"
            out.mkdir()
            if started:
                train_killed_after_an_epoch(out, campaign)
            if subprocess.run(["mount", "-o", "remount,ro", str(disk)], capture_output=True).returncode:
                os.chmod(out, 0o555)
            code, text = train(out, campaign.log)
            kept = campaign.new()
            shutil.copytree(out, kept)
            os.path.ismount(disk) or os.chmod(out, 0o755)
            kept.chmod(0o755)
        root_writes_anyway = code == 0 and not os.path.ismount(disk) and os.geteuid() == 0
        yield is_one_sentence(code, text) or root_writes_anyway, f"read-only: {code} {text[-300:]}"
        yield campaign.same_bits(kept)


def train_killed_after_an_epoch(out: Path, campaign: Campaign) -> None:
    def prepare() -> None:
        real = run_module.RunFolder.write_epoch
        run_module.RunFolder.write_epoch = lambda *a, **k: (real(*a, **k), os.kill(os.getpid(), signal.SIGKILL))

    train(out, campaign.log, prepare)


def removed_folders(campaign: Campaign) -> Iterator[Outcome]:
    """The folder, or one file of it, is removed while the training goes on."""
    kept = [name for name in BINARIES if name != "best.safetensors"]  # which nothing else holds
    for name in ("", *TEXTS, *kept)[:: campaign.few(1, 7)]:
        out = campaign.new()
        child = forked(partial(train_in_place, out), campaign.log)
        deadline = time.monotonic() + 60
        while not (out / (name or "last.ckpt")).exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        shutil.rmtree(out, ignore_errors=True) if not name else (out / name).unlink(missing_ok=True)
        code = wait(child)
        text = campaign.log.read_text()
        if code and not is_one_sentence(code, text):
            yield False, f"removed {name}: {code} {text[-300:]}"
        elif (out / "recipe.json").exists():
            yield campaign.same_bits(out)
        else:
            yield True, ""


def two_trainers(campaign: Campaign) -> Iterator[Outcome]:
    """Two to four at once in one folder: one trains, the others say so in a sentence."""
    for number in (2, 3, 4)[: campaign.few(3, 1)] * campaign.few(3, 1):
        out = campaign.new()
        logs = [campaign.folder / f"log{i}" for i in range(number)]
        codes = [wait(child) for child in [forked(partial(train_in_place, out), log) for log in logs]]
        polite = all(code == 0 or is_one_sentence(code, log.read_text()) for code, log in zip(codes, logs, strict=True))
        yield polite and 0 in codes, f"{codes}"
        yield campaign.same_bits(out)


FAULTS: dict[str, Callable[[Campaign], Iterator[Outcome]]] = {
    "SIGKILL at random, twice per training": random_kills,
    "SIGKILL as each file is written": kills_at_named_moments,
    "recipe.json, summary.json or history.csv damaged": partial(damaged_files, TEXTS),
    "checkpoints or weights damaged": partial(damaged_files, BINARIES),
    "trained weights or data cache damaged": damaged_stores,
    "malicious pickles": malicious_pickles,
    "disk full": full_disks,
    "folder read-only": read_only_folders,
    "folder or file removed while training": removed_folders,
    "several trainers in one folder": two_trainers,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="a few of each")
    parser.add_argument("--only", default="", help="faults whose name has this regular expression")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), options.short)
        print("| fault | tried | survived | seconds |\n| --- | --: | --: | --: |", flush=True)
        for name, fault in FAULTS.items():
            if not re.search(options.only, name):
                continue
            started, outcomes = time.monotonic(), list(fault(campaign))
            failed = [why for survived, why in outcomes if not survived]
            failures += [f"{name}: {why}" for why in failed]
            seconds = time.monotonic() - started
            print(f"| {name} | {len(outcomes)} | {len(outcomes) - len(failed)} | {seconds:.0f} |", flush=True)
    print(*failures, sep="\n", file=sys.stderr)
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
