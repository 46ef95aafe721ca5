"""The command `c2f`: train, evaluate and compare models, and see what there is.

Each command is a dataclass: its fields are the flags, the comment beside a field is the flag's help, and `run` does
the work and returns the exit code, or None. What a user can correct (a ValueError, a file that does not exist) is one
sentence on stderr and exit code 2; set C2F_TRACEBACK=1 to see where it came from.
"""

import argparse
import ast
import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

import c2f  # torch takes seconds to import, and help needs none of it: c2f.something is imported with its first use
from c2f.training.recipes import RECIPES, Recipe

if TYPE_CHECKING:
    import torch

    from c2f.training.loop import Callback

EXIT_OK, EXIT_NOT_READY, EXIT_USER_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130
DEFAULT_DATA = "digits"


def _rank() -> int:
    """Which of torchrun's processes this is; 0 where there is only one."""
    rank = os.environ.get("RANK", "0")
    return int(rank) if rank.isdecimal() else 0  # what it should be is said where it is needed


def parse_overrides(settings: Sequence[str]) -> dict[str, Any]:
    """The overrides of `--set name=value`: numbers, 3,4 as a tuple, none, true and false, else a word."""
    overrides, words = {}, {"none": None, "true": True, "false": False}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not (name and equals and text):
            raise ValueError(f"--set takes name=value, such as kernel_size=7, not {setting!r}.")
        try:
            overrides[name.strip()] = words[text.lower()] if text.lower() in words else ast.literal_eval(text)
        except (ValueError, SyntaxError):
            overrides[name.strip()] = text
    if fixed := overrides.keys() & {"name", "num_classes"}:
        raise ValueError(f"--set cannot change {' or '.join(sorted(fixed))}: --model and --data decide it.")
    return overrides


@dataclass(kw_only=True)
class _OnDevice:
    """The flags of a command that computes."""

    device: str | None = None  # cuda, mps or cpu; by default the best one there is.
    threads: int | None = None  # How many threads PyTorch may use; by default as many as it chooses.

    def choose_device(self) -> "torch.device":
        import torch

        if self.threads is not None:
            if self.threads < 1:
                raise ValueError(f"--threads is {self.threads}; use at least 1, or leave it out.")
            torch.set_num_threads(self.threads)
        return c2f.device.choose_device(self.device)


@dataclass(kw_only=True)
class Train(_OnDevice):
    """Train a model, or go on with a run that was interrupted.

    Every field of the recipe is a flag, and its default is that of the named recipe.
    """

    model: str = "conv2former_mini_cifar"  # One of those that `c2f list` shows.
    data: str = DEFAULT_DATA  # digits, cifar10, or a folder with train/<class>/* and test/<class>/*.
    recipe: str = "digits"
    """Where the recipe's flags get their defaults: seed, laptop, gpu, digits. By default laptop, for digits digits."""
    out: Path | None = None
    """The run's folder; by default runs/<model>-<data>. A run that exists already is resumed."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Change the model, such as --set kernel_size=7 --set dims=32,64,128,256."""
    image_size: int = 32  # Pixels along each side to which the images are resized.
    split: float | None = None  # Of a folder without test/, the share of each class to test with, such as 0.2.
    channels: Literal[1, 3] = 3  # 1 makes the images grey, and the model one for grey images.
    record: bool = False
    """Keep what the blocks see of a few photographs while they learn, in recording.safetensors, to be watched again."""
    settings: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=RECIPES["digits"])

    def run(self) -> int | None:
        import torch

        device = self.choose_device()
        asked = {"image_size": self.image_size, "split": self.split, "channels": self.channels}
        data = c2f.load_dataset(self.data, progress=_rank() == 0, **asked)
        torch.manual_seed(self.settings.seed)
        overrides = parse_overrides(self.set) | ({"in_channels": 1} if self.channels == 1 else {})
        model = c2f.create_model(self.model, num_classes=len(data.classes), **overrides)
        out = self.out or Path("runs", f"{self.model}-{data.name}")
        callbacks = [self._recorder(out, data.name)] if self.record and _rank() == 0 else []
        history = c2f.train(model, data, self.settings, out=out, device=device, callbacks=callbacks)
        if history.interrupted:
            return EXIT_INTERRUPTED
        print(
            f"{out}: test accuracy {history[-1].test_accuracy:.1%} after epoch {len(history)}; "
            f"see more with `{shlex.join(['c2f', 'evaluate', str(out)])}`"
        )

    def _recorder(self, out: Path, data: str) -> "Callback":
        from c2f.maps.recording import Recorder
        from c2f.training.data import to_grey
        from c2f.training.sources.photographs import load_photographs

        names, photographs = ["cat", "coffee"], load_photographs(self.image_size)
        images = photographs.images[[photographs.names.index(name) for name in names]]
        images = to_grey(images) if self.channels == 1 else images
        about = {"data": data, "seed": self.settings.seed, "date": date.today().isoformat()}
        return Recorder(images, names, out / "recording.safetensors", about=about)


@dataclass(kw_only=True)
class Evaluate(_OnDevice):
    """Run a trained model on test images: loss, accuracy by class, and what it confuses."""

    run_or_checkpoint: tyro.conf.Positional[Path]
    """A run's folder, or one of its files: final.safetensors, best.safetensors, last.ckpt."""
    data: str | None = None  # Other images than those it was trained with, named as for `c2f train`.
    split: float | None = None  # With --data, as for `c2f train`.

    def run(self) -> None:
        from sklearn.metrics import confusion_matrix

        from c2f.training.data import load_data_of

        device, report, source = self.choose_device(), c2f.report, self.run_or_checkpoint
        run = c2f.load_run(source.parent if source.is_file() else source)
        if source.is_dir():
            final, last = source / "final.safetensors", source / "last.ckpt"
            source = last if last.exists() and not final.exists() else final
        if source.suffix not in (".ckpt", ".safetensors"):
            raise ValueError(f"{source} holds no weights; name a run's folder, or a .safetensors or .ckpt file of one.")
        model = run.load_model(source.name.removesuffix(".safetensors"))
        trained_on, recipe = run.recipe["data"], report.recipe_of(run)
        size = report.image_size(run)[0]
        if self.data:
            asked = {"split": self.split, "channels": trained_on.get("channels", 3)}
            data = c2f.load_dataset(self.data, image_size=size, progress=_rank() == 0, **asked)
        else:
            data = load_data_of(trained_on, size, progress=_rank() == 0)
        if list(data.classes) != trained_on["classes"]:
            raise ValueError(
                f"{source} tells {', '.join(trained_on['classes'])} apart, and {data.name} has the classes "
                f"{', '.join(data.classes)}; give it images of its own classes."
            )
        result = c2f.evaluate(
            model, data.test, device=device, label_smoothing=recipe.label_smoothing,
            precision=recipe.precision, channels_last=recipe.channels_last, progress=_rank() == 0,
        )  # fmt: skip
        matrix = confusion_matrix(data.test.labels, result.predictions, labels=range(len(data.classes)))
        print(
            f"{source} ({run.recipe['model']}) on the {len(data.test):,} test images of {data.name}: "
            f"loss {result.loss:.4f} (label smoothing {recipe.label_smoothing}), accuracy {result.accuracy:.2%}\n"
        )
        print(report.per_class(matrix, data.classes))


@dataclass(kw_only=True)
class Predict(_OnDevice):
    """What a trained model sees in images of yours: the likeliest classes of each, and their probabilities."""

    run_folder: tyro.conf.Positional[Path]  # A finished run's folder.
    images: tyro.conf.Positional[tuple[Path, ...]]  # Files, and folders of which every image is taken.
    top: int = 3  # How many classes are shown of each image.
    json: bool = False  # Print JSON, with all classes, and not a table.

    def run(self) -> None:
        import json

        from c2f.training.data import to_grey
        from c2f.training.sources.image_folder import load_images

        if self.top < 1:
            raise ValueError(f"--top is {self.top}; use at least 1.")
        run = c2f.report.load_finished(self.run_folder)
        classes, size = run.recipe["data"]["classes"], c2f.report.image_size(run)[0]
        names, images = load_images(self.images, size)
        images = to_grey(images) if run.recipe["data"].get("channels") == 1 else images
        probabilities = c2f.predict(run.load_model(), images, device=self.choose_device()).tolist()
        found = {name: dict(zip(classes, row, strict=True)) for name, row in zip(names, probabilities, strict=True)}
        if self.json:
            print(json.dumps(found, indent=2))
            return
        best = {name: sorted(row.items(), key=lambda item: -item[1])[: self.top] for name, row in found.items()}
        rows = [(name, *(f"{label} {share:.1%}" for label, share in row)) for name, row in best.items()]
        print(c2f.report.markdown_table(("image", *(f"choice {i + 1}" for i in range(len(rows[0]) - 1))), rows))


@dataclass(kw_only=True)
class Export:
    """Keep a run's final weights for others: half precision, with where they are from, as `create_model` loads them.

    Their accuracy on the run's test images is printed, before and after.
    """

    run_folder: tyro.conf.Positional[Path]  # A finished run's folder.
    weights: str | None = None
    """Their name in `create_model(…, weights=…)`; by default that of the data set."""

    def run(self) -> None:
        from c2f.models.weights import save_half, weights_folder
        from c2f.training.data import load_data_of

        report = c2f.report
        run = report.load_finished(self.run_folder)
        recipe, name = report.recipe_of(run), run.recipe["model"]
        data = load_data_of(run.recipe["data"], report.image_size(run)[0])
        settings = {"precision": recipe.precision, "channels_last": recipe.channels_last}
        model = run.load_model("final")
        trained = c2f.evaluate(model, data.test, **settings)
        weights = self.weights or data.name
        path = weights_folder() / f"{name}-{weights}.safetensors"
        save_half(path, model, {**run.summary, **run.recipe, "command": report.training_command(run)})
        kept = c2f.evaluate(c2f.create_model(name, weights=weights, **run.recipe["overrides"]), data.test, **settings)
        print(
            f"{path}: {path.stat().st_size / 2**20:.1f} MiB; accuracy on the {len(data.test):,} test images of "
            f"{data.name} {kept.accuracy:.2%}, before {trained.accuracy:.2%}"
        )


@dataclass(kw_only=True)
class Compare(_OnDevice):
    """Compare runs: cost, speed measured here, accuracy, as Markdown, and a figure with their curves.

    The timed steps have the precision and the memory layout of the first run's recipe.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]  # Folders of runs; their weights are not needed.
    figure: Path = Path("compare.png")  # The file for the curves, whose ending says the format.
    measure: bool = True  # Time training steps and forward passes; --no-measure leaves the speed out and is quick.
    rounds: int = 5  # How often each model is timed, interleaved with the others.
    batch_size: int | None = None  # Images of one timed step; by default 64 on a CPU and 256 on a GPU.
    typed: tyro.conf.Suppress[str] = "c2f compare"  # the command, as it was typed

    def run(self) -> None:
        if not self.runs:
            raise ValueError("name the folders of one run or more, such as `c2f compare runs/a runs/b`.")
        from c2f.bench.measure import Conditions

        runs = [c2f.report.load_finished(path) for path in self.runs]
        device, recipe = self.choose_device(), c2f.report.recipe_of(runs[0])
        batch_size = self.batch_size or (64 if device.type == "cpu" else 256)
        precision = c2f.device.choose_precision(recipe.precision, device)
        conditions = Conditions(device, batch_size, precision, recipe.channels_last, rounds=self.rounds)
        self.figure.parent.mkdir(parents=True, exist_ok=True)
        picture = c2f.report.curves(runs)
        picture.save(self.figure)
        print(c2f.report.compare(runs, conditions if self.measure else None))
        print(f"* This table again: `{self.typed}`")
        print(f"\nThe curves are in {self.figure}: {picture.alt}", file=sys.stderr)


@dataclass(kw_only=True)
class Bench(_OnDevice):
    """Measure this machine: the depthwise convolution, a training step, inference or augmentation, each against others.

    Prints a table, writes the figures as JSON, and for the depthwise convolution draws the roofline as PNG. `record`
    does all that tells something about a GPU, tests and trainings too, in a given time; given again it goes on.
    """

    what: tyro.conf.Positional[Literal["depthwise", "train", "infer", "paper", "data", "record"]]  # What to measure.
    precision: Literal["float32", "bf16", "auto"] = "auto"
    """float32 alone, or bf16 as well; auto adds bf16 where this machine is faster in it."""
    compile: bool | None = None
    """Measure torch.compile as well; by default where there is a GPU or a C++ compiler, which it needs."""
    no_compile: tyro.conf.FlagCreatePairsOff[bool] = False  # The same as --compile False.
    batch_size: int = 64  # Images of one step; `record` chooses its own, and its rounds.
    rounds: int = 5  # How often each contender is timed, interleaved with the others.
    out: Path | None = None  # The folder for the results; by default data/results/bench, for record data/results/gpu.
    minutes: float = 8.0  # The time limit of `record`.
    data: str | None = None  # What `record` trains on, named as for `c2f train`; by default cifar10.
    rehearse: bool = False  # Do all of `record` at tiny sizes, on digits, to runs/rehearsal: needs no GPU.

    def run(self) -> int | None:
        device, compile = self.choose_device(), False if self.no_compile else self.compile
        if self.what == "record":
            from c2f.bench.record import record

            return record(device, self.out, self.minutes, self.data, self.rehearse, compile)
        from c2f.bench.measure import Conditions
        from c2f.bench.suites import run

        if compile is None:  # on a CPU torch.compile writes C++
            compile = device.type == "cuda" or any(map(shutil.which, ("c++", "g++", "clang++", "cl")))
        precision = c2f.device.choose_precision(self.precision, device)
        tf32 = device.type == "cuda"
        conditions = Conditions(device, self.batch_size, precision, compile=compile, rounds=self.rounds, tf32=tf32)
        again = f"--batch-size {self.batch_size} --rounds {self.rounds} --compile {compile}"
        again += f" --threads {self.threads}" * (self.threads is not None)
        out, tables = self.out or Path("data", "results", "bench"), [conditions]
        if self.what == "depthwise" and conditions.precision != "float32":  # both would not fit into one table
            tables = [replace(conditions, precision="float32"), conditions]
        for one in tables:
            bench = run(self.what, one)
            file = out / f"{self.what}-{device.type}{'-bf16' * (one.precision == 'bf16')}.json"
            command = f"c2f bench {self.what} --device {device.type} --precision {one.precision} {again}"
            bench["notes"].append(f"This table again: `{command}`")
            c2f.files.write_json(file, bench)
            table = c2f.report.markdown_table(**bench["table"])
            print(f"**{bench['title']}**\n\n{table}\n", *(f"* {note}" for note in bench["notes"]), "", sep="\n")
            if self.what == "depthwise":
                from c2f.bench.roofline import roofline

                roofline(bench).save(file.with_suffix(".png"))
            print(f"The figures are in {file}.", file=sys.stderr)


@dataclass(kw_only=True)
class List:
    """Show the models, the recipes and the data sets."""

    def run(self) -> None:
        import torch

        from c2f.models.cost import count_parameters

        names = c2f.models.list_models()
        with torch.device("meta"):  # shapes without numbers: built in no time, however large
            rows = [(name, f"{count_parameters(c2f.create_model(name)):,}") for name in names]
        print(c2f.report.markdown_table(("model (10 classes)", "parameters"), rows), "\nRecipes:", sep="\n")
        for name, make in RECIPES.items():
            print(f"  {name:<8}  {make.__doc__.strip().splitlines()[0]}")
        print("\nData sets:")
        Data().run()


@dataclass(kw_only=True)
class Data:
    """Show which data sets are here, or fetch one and say where it is from."""

    name: tyro.conf.Positional[str | None] = None  # digits, cifar10, or a folder with train/<class>/*, test/<class>/*.
    image_size: int = 32  # Pixels along each side to which the images are resized.
    split: float | None = None  # Of a folder without test/, the share of each class to test with, such as 0.2.
    channels: Literal[1, 3] = 3  # 1 makes the images grey.

    def run(self) -> None:
        from c2f.training.data import available

        for found in available() if self.name is None else ():
            count = f"{found.images:,} images, " if found.images else ""
            print(f"  {found.name:<12}  {'here' if found.present else 'absent':<6}  {count}{found.where}")
        if self.name is not None:
            asked = {"image_size": self.image_size, "split": self.split, "channels": self.channels}
            for key, value in c2f.load_dataset(self.name, **asked).provenance.items():
                print(f"{key:<12}{', '.join(map(str, value)) if isinstance(value, list) else value}")


@dataclass(kw_only=True)
class Doctor:
    """Say whether this machine is ready for the course, and what to do if it is not."""

    def run(self) -> int:
        findings = []
        for name in c2f.doctor.CHECKS:  # one after the other: a slow one does not hold back what the earlier ones found
            findings.append(c2f.doctor.find(name))
            print(findings[-1], flush=True)
        print(verdict := c2f.doctor.verdict(findings))
        return EXIT_OK if verdict.startswith("Ready") else EXIT_NOT_READY


COMMANDS = {
    command.__name__.lower(): command
    for command in (Train, Evaluate, Predict, Export, Compare, Bench, List, Data, Doctor)
}


def parse(arguments: Sequence[str]) -> Any:
    """The command with its flags. Raises SystemExit after help and after a mistake, as argparse does."""
    talks = _rank() == 0
    if arguments[:1] == ["train"]:
        name = _named_recipe(arguments[1:])
        default = Train(recipe=name, settings=RECIPES[name]())
        return tyro.cli(Train, prog="c2f train", args=arguments[1:], default=default, console_outputs=talks)
    others = {command.name: command.load() for command in entry_points(group="c2f.commands")}
    return tyro.extras.subcommand_cli_from_dict(
        COMMANDS | others, prog="c2f", description="Build, train and compare Conv2Former.",
        args=arguments or ["--help"], console_outputs=talks,
    )  # fmt: skip


def _named_recipe(flags: Sequence[str]) -> str:
    """The value of --recipe, read before everything else since the other flags' defaults follow from it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--recipe", nargs="?")
    parser.add_argument("--data", nargs="?", default=DEFAULT_DATA)
    given = parser.parse_known_args(flags)[0]
    name = given.recipe or ("digits" if given.data == "digits" else "laptop")
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}; the recipes are {', '.join(RECIPES)}.")
    return name


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command (by default that of the command line) and return its exit code: 0, 1 or 2, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    # Of several processes only the first one prints.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere if _rank() > 0 else sys.stdout):
        try:
            command = parse(arguments)
            command.typed = shlex.join(["c2f", *arguments])
            return command.run() or EXIT_OK
        except SystemExit as end:  # tyro has printed its help or the mistake
            return end.code if isinstance(end.code, int) else EXIT_OK
        except KeyboardInterrupt:
            sentence, code = "interrupted.", EXIT_INTERRUPTED
        except (ValueError, OSError, ImportError, MemoryError) as error:
            if os.environ.get("C2F_TRACEBACK"):
                raise
            sentence, code = _one_sentence(error), EXIT_USER_ERROR
    process = f", process {_rank()}" if _rank() else ""
    print(f"c2f{process}: {sentence}", file=sys.stderr)
    return code


def _one_sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if isinstance(error, ImportError):
        return f"{error}; `c2f doctor` says what is missing."
    return " ".join(str(error).split()) or type(error).__name__
