"""The command `c2f`: train, evaluate and compare models, and see what there is.

Each command is a dataclass: its fields are the flags, the sentence under a field is the flag's help, and `run` does
the work and returns the exit code. What a user can mend (a ValueError, a file that is not there) is one sentence on
stderr and exit code 2; set C2F_TRACEBACK=1 to see where it came from.
"""

import argparse
import ast
import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import date
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from c2f.training.recipes import RECIPES, Recipe

# torch takes seconds to import, and help needs none of it: what needs it is imported in the `run` that uses it.
if TYPE_CHECKING:
    import torch
    from torch import nn

    from c2f.bench.measure import Conditions
    from c2f.training.loop import Callback
    from c2f.training.run import Run

EXIT_OK, EXIT_NOT_READY, EXIT_USER_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130
DEFAULT_DATA = "digits"


def _rank() -> int:
    """Which of torchrun's processes this is; 0 where there is only one."""
    return int(os.environ.get("RANK", 0))


def parse_overrides(settings: Sequence[str]) -> dict[str, Any]:
    """What `--set name=value` asks of a model: numbers, 3,4 as a tuple, none, true and false, else a word."""
    overrides = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not (name and equals and text):
            raise ValueError(f"--set takes name=value, such as kernel_size=7, not {setting!r}.")
        words = {"none": None, "true": True, "false": False}
        try:
            overrides[name.strip()] = words[text.lower()] if text.lower() in words else ast.literal_eval(text)
        except (ValueError, SyntaxError):
            overrides[name.strip()] = text
    return overrides


@dataclass
class Train:
    """Train a model, or go on with a run that was interrupted.

    Every field of the recipe is a flag, and its default is that of the named recipe.
    """

    model: str = "conv2former_mini_cifar"
    """One of those that `c2f list` shows."""
    data: str = DEFAULT_DATA
    """digits, cifar10, or a folder with train/<class>/* and test/<class>/*."""
    recipe: str = "digits"
    """Where the recipe's flags get their defaults: seed, laptop, gpu, digits. By default laptop, for digits digits."""
    out: Path | None = None
    """The run's folder; runs/<model>-<data> where it is not named. A run that is there already is resumed."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Change the model, such as --set kernel_size=7 --set dims=32,64,128,256."""
    image_size: int = 32
    """Pixels along each side that the images are brought to."""
    device: str | None = None
    """cuda, mps or cpu; by default the best one there is."""
    threads: int | None = None
    """How many threads PyTorch may use; by default as many as it chooses."""
    record: bool = False
    """Keep what the blocks see of a few photographs while they learn, in recording.safetensors, to be watched again."""
    settings: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=RECIPES["digits"])

    def run(self) -> int:
        import torch

        from c2f.device import choose_device
        from c2f.models import create_model
        from c2f.training.data import load_dataset
        from c2f.training.loop import train

        _use_threads(self.threads)
        device = choose_device(self.device)
        data = load_dataset(self.data, image_size=self.image_size, progress=_rank() == 0)
        torch.manual_seed(self.settings.seed)
        model = create_model(self.model, num_classes=len(data.classes), **parse_overrides(self.set))
        out = self.out or Path("runs", f"{self.model}-{data.name}")
        callbacks = []
        if self.record and _rank() == 0:
            about = {"data": data.name, "seed": self.settings.seed, "date": date.today().isoformat()}
            callbacks.append(_recorder(out, self.image_size, about))
        history = train(model, data, self.settings, out=out, device=device, callbacks=callbacks)
        if history.interrupted:
            return EXIT_INTERRUPTED
        print(
            f"{out}: test accuracy {history[-1].test_accuracy:.1%} after epoch {len(history)}; "
            f"see more with `{shlex.join(['c2f', 'evaluate', str(out)])}`"
        )
        return EXIT_OK


def _recorder(out: Path, image_size: int, about: dict[str, Any]) -> "Callback":
    from c2f.maps.recording import Recorder
    from c2f.training.sources.photographs import load_photographs

    photographs = load_photographs(image_size)
    kept = [photographs.names.index(name) for name in ("cat", "coffee")]
    names = [photographs.names[i] for i in kept]
    return Recorder(photographs.images[kept], names, out / "recording.safetensors", about=about)


@dataclass
class Evaluate:
    """Ask a trained model about test images: loss, accuracy by class, and what it confuses."""

    run_or_checkpoint: tyro.conf.Positional[Path]
    """A run's folder, or one of its files: final.safetensors, best.safetensors, last.ckpt."""
    data: str | None = None
    """Other images than those it was trained with, named as for `c2f train`."""
    which: Literal["final", "best"] = "final"
    """Of a run's folder: the weights of the last epoch, or of the best test accuracy."""
    device: str | None = None
    """cuda, mps or cpu; by default the best one there is."""
    threads: int | None = None
    """How many threads PyTorch may use; by default as many as it chooses."""

    def run(self) -> int:
        _check_exists(self.run_or_checkpoint)
        from sklearn.metrics import confusion_matrix

        from c2f import report
        from c2f.training.data import load_dataset
        from c2f.training.loop import evaluate

        _use_threads(self.threads)
        run, model, source = load_trained(self.run_or_checkpoint, self.which)
        trained_on, recipe = run.recipe["data"], report.recipe_of(run)
        size = report.image_size(run)[0]
        data = load_dataset(self.data or trained_on["name"], image_size=size, progress=_rank() == 0)
        if list(data.classes) != trained_on["classes"]:
            raise ValueError(
                f"{source} tells {', '.join(trained_on['classes'])} apart, and {data.name} has the classes "
                f"{', '.join(data.classes)}; give it images of its own classes."
            )
        result = evaluate(
            model, data.test, device=self.device, label_smoothing=recipe.label_smoothing,
            precision=recipe.precision, channels_last=recipe.channels_last, progress=_rank() == 0,
        )  # fmt: skip
        matrix = confusion_matrix(data.test.labels, result.predictions, labels=range(len(data.classes)))
        print(
            f"{source} ({run.recipe['model']}) on the {len(data.test):,} test images of {data.name}: "
            f"loss {result.loss:.4f} (label smoothing {recipe.label_smoothing}), accuracy {result.accuracy:.2%}\n"
        )
        print(report.per_class(matrix, data.classes))
        if confusions := report.top_confusions(matrix, data.classes):
            print("\nMost frequent mistakes:", *confusions, sep="\n  ")
        return EXIT_OK


def load_trained(place: Path, which: str = "final") -> tuple["Run", "nn.Module", Path]:
    """The run, its model with weights, and the file these are from.

    `place` is a run's folder, or one of its weight files or checkpoints. A run that has not reached its last epoch
    has no final weights yet: its checkpoint stands in.
    """
    from c2f.training.run import load_run

    folder = place if place.is_dir() else place.parent
    run = load_run(folder)
    source = place
    if place.is_dir():
        source = folder / f"{which}.safetensors"
        if which == "final" and not source.exists() and (folder / "last.ckpt").exists():
            source = folder / "last.ckpt"
    if source.suffix not in (".ckpt", ".safetensors"):
        raise ValueError(f"{source} holds no weights; name a run's folder, or a .safetensors or .ckpt file of one.")
    return run, run.load_model(source.name.removesuffix(".safetensors")), source


@dataclass
class Export:
    """Keep a run's final weights for others: half precision, with where they are from, as `create_model` loads them.

    They are asked about the run's test images before and after, and both accuracies are printed.
    """

    run_folder: tyro.conf.Positional[Path]
    """A finished run's folder."""
    weights: str | None = None
    """What `create_model(…, weights=…)` will call them; the data set's name where it is not given."""

    def run(self) -> int:
        _check_exists(self.run_folder)
        from c2f import report
        from c2f.models import create_model
        from c2f.models.weights import save_half, weights_folder
        from c2f.training.data import load_dataset
        from c2f.training.loop import evaluate

        run = report.load_finished(self.run_folder)
        recipe, described, name = report.recipe_of(run), run.recipe["data"], run.recipe["model"]
        data = load_dataset(described["name"], image_size=report.image_size(run)[0])
        settings = {"precision": recipe.precision, "channels_last": recipe.channels_last}
        trained = evaluate(run.load_model("final"), data.test, **settings)
        weights = self.weights or data.name
        path = weights_folder() / f"{name}-{weights}.safetensors"
        provenance = {**run.summary, **run.recipe, "command": report.training_command(run)}
        save_half(path, run.load_model("final"), provenance)
        loaded = create_model(name, weights=weights, **run.recipe["overrides"])
        kept = evaluate(loaded, data.test, **settings)
        print(
            f"{path}: {path.stat().st_size / 2**20:.1f} MiB; accuracy on the {len(data.test):,} test images of "
            f"{data.name} {kept.accuracy:.2%}, before {trained.accuracy:.2%}"
        )
        return EXIT_OK


@dataclass
class Compare:
    """Put runs beside each other: cost, speed measured here, accuracy, as Markdown, and their curves as PNG."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs; their weights are not needed."""
    figure: Path = Path("compare.png")
    """Where the curves go."""
    measure: bool = True
    """Time training steps and forward passes; --no-measure leaves the speed out and is quick."""
    rounds: int = 5
    """How often each model is timed, the models in turn."""
    batch_size: int | None = None
    """Images of one timed step; by default 64 on a CPU and 256 on a GPU."""
    precision: Literal["float32", "bf16"] | None = None
    """Precision of the timed steps; by default that of the first run's recipe."""
    channels_last: bool | None = None
    """Memory layout of the timed steps; by default that of the first run's recipe."""
    device: str | None = None
    """cuda, mps or cpu; by default the best one there is."""
    threads: int | None = None
    """How many threads PyTorch may use; by default as many as it chooses."""

    def run(self) -> int:
        if not self.runs:
            raise ValueError("name the folders of one run or more, such as `c2f compare runs/a runs/b`.")
        if self.figure.suffix != ".png":
            raise ValueError(f"the figure is a PNG; name it {self.figure.with_suffix('.png')}, not {self.figure}.")
        _check_exists(*self.runs)
        from c2f import report

        _use_threads(self.threads)
        runs = [report.load_finished(path) for path in self.runs]
        self.figure.parent.mkdir(parents=True, exist_ok=True)
        figure = report.curves(runs)
        figure.savefig(self.figure, dpi=150, metadata={"Description": figure.describe})
        print(report.compare(runs, self._conditions(runs) if self.measure else None))
        print(f"* This table again: `{self._command()}`")
        print(f"\nThe curves are in {self.figure}: {figure.describe}.", file=sys.stderr)
        return EXIT_OK

    def _command(self) -> str:
        from c2f.report import as_flag

        changed = [f.name for f in fields(self) if f.name != "runs" and getattr(self, f.name) != f.default]
        flags = [word for name in changed for word in as_flag(name, getattr(self, name))]
        return shlex.join(["c2f", "compare", *map(str, self.runs), *flags])

    def _conditions(self, runs: Sequence["Run"]) -> "Conditions":
        from c2f import report
        from c2f.bench.measure import Conditions
        from c2f.device import choose_device, choose_precision

        device, first = choose_device(self.device), report.recipe_of(runs[0])
        return Conditions(
            device,
            batch_size=self.batch_size or (64 if device.type == "cpu" else 256),
            precision=choose_precision(self.precision or first.precision, device),
            channels_last=first.channels_last if self.channels_last is None else self.channels_last,
            rounds=self.rounds,
        )


@dataclass
class Bench:
    """Measure this machine: the depthwise convolution, a training step, inference or augmentation, each against others.

    Prints a table, writes the figures as JSON, and for the depthwise convolution draws the roofline as PNG.
    """

    what: tyro.conf.Positional[Literal["depthwise", "train", "infer", "paper", "data"]]
    """What to measure."""
    device: str | None = None
    """cuda, mps or cpu; by default the best one there is."""
    threads: int | None = None
    """How many threads PyTorch may use; by default as many as it chooses."""
    precision: Literal["float32", "bf16", "auto"] = "auto"
    """float32 alone, or bf16 as well; auto adds bf16 where this machine is faster in it."""
    compile: bool | None = None
    """Measure torch.compile as well; by default where there is a GPU or a C++ compiler, which it needs."""
    batch_size: int = 64
    """Images of one step."""
    rounds: int = 5
    """How often each contender is timed, in turn."""
    out: Path = Path("data", "results", "bench")
    """The folder for the JSON and the PNG."""

    def run(self) -> int:
        from c2f.bench.measure import Conditions
        from c2f.bench.suites import SUITES
        from c2f.device import choose_device, choose_precision
        from c2f.files import write_json
        from c2f.report import markdown_table

        _use_threads(self.threads)
        device = choose_device(self.device)
        conditions = Conditions(
            device,
            batch_size=self.batch_size,
            precision=choose_precision(self.precision, device),
            compile=_can_compile(device) if self.compile is None else self.compile,
            rounds=self.rounds,
        )
        for one in self._alone(conditions):
            result = SUITES[self.what](one)
            file = self.out / f"{self.what}-{device.type}{'-bf16' * (one.precision == 'bf16')}.json"
            command = shlex.join(["c2f", "bench", self.what, "--device", device.type, "--precision", one.precision])
            result.notes.append(f"This table again: `{command}`")
            content = result.as_json(one)
            write_json(file, content)
            print(f"**{result.title}**\n")
            print(markdown_table(result.header, result.rows), "", *(f"* {note}" for note in result.notes), "", sep="\n")
            if self.what == "depthwise":
                from c2f.bench.roofline import roofline

                figure = roofline(content)
                figure.savefig(file.with_suffix(".png"), dpi=150, metadata={"Description": figure.describe})
            print(f"The figures are in {file}.", file=sys.stderr)
        return EXIT_OK

    def _alone(self, conditions: "Conditions") -> list["Conditions"]:
        """One table a precision where they would not fit into one."""
        if self.what != "depthwise" or conditions.precision == "float32":
            return [conditions]
        return [replace(conditions, precision="float32"), conditions]


def _can_compile(device: "torch.device") -> bool:
    """Whether torch.compile is likely to work: on a CPU it writes C++."""
    return device.type == "cuda" or any(map(shutil.which, ("c++", "g++", "clang++", "cl")))


@dataclass
class List:
    """Show the models, the recipes and the data sets."""

    multiply_adds: bool = False
    """Count each model's multiply-adds too, which takes some seconds."""

    def run(self) -> int:
        import torch

        from c2f.models import create_model, list_models
        from c2f.models.cost import count_parameters, multiply_adds
        from c2f.report import in_millions, markdown_table

        header = ["model (10 classes)", "parameters"]
        header += ["multiply-adds at 32×32", "of these useful"] if self.multiply_adds else []
        rows = []
        for name in list_models():
            with torch.device("meta"):  # shapes without numbers: built in no time, however large
                model = create_model(name)
            row = [name, f"{count_parameters(model):,}"]
            if self.multiply_adds:
                cost = multiply_adds(model, (32, 32))
                row += [in_millions(cost.nominal), in_millions(cost.useful)]
            rows.append(row)
        print(markdown_table(header, rows), "\nRecipes:", sep="\n")
        for name, make in RECIPES.items():
            print(f"  {name:<8}  {(make.__doc__ or '').strip().splitlines()[0]}")
        print("\nData sets:")
        _print_data_sets()
        return EXIT_OK


@dataclass
class Data:
    """Show which data sets are here, or fetch one and say where it is from."""

    name: tyro.conf.Positional[str | None] = None
    """digits, cifar10, or a folder with train/<class>/* and test/<class>/*."""
    image_size: int = 32
    """Pixels along each side that the images are brought to."""

    def run(self) -> int:
        from c2f.training.data import load_dataset

        if self.name is None:
            _print_data_sets()
            return EXIT_OK
        data = load_dataset(self.name, image_size=self.image_size)
        for key, value in data.provenance.items():
            print(f"{key:<12}{', '.join(map(str, value)) if isinstance(value, list) else value}")
        return EXIT_OK


def _print_data_sets() -> None:
    from c2f.training.data import available

    for found in available():
        state = "here" if found.present else "absent"
        count = f"{found.images:,} images, " if found.images else ""
        print(f"  {found.name:<12}  {state:<6}  {count}{found.where}")


@dataclass
class Doctor:
    """Say whether this machine is ready for the course, and what to do where it is not."""

    def run(self) -> int:
        from c2f import doctor

        findings = []
        for finding in doctor.examine():
            findings.append(finding)
            print(finding, flush=True)
        print(doctor.verdict(findings))
        return EXIT_OK if all(finding.ok for finding in findings if finding.essential) else EXIT_NOT_READY


COMMANDS = {
    "train": Train,
    "evaluate": Evaluate,
    "export": Export,
    "compare": Compare,
    "bench": Bench,
    "list": List,
    "data": Data,
    "doctor": Doctor,
}


def parse(arguments: Sequence[str]) -> Any:
    """The command that the arguments ask for. Raises SystemExit after help and after a mistake, as argparse does."""
    speak = _rank() == 0
    if arguments[:1] == ["train"]:
        flags = arguments[1:]
        default = Train(recipe=(name := _named_recipe(flags)), settings=RECIPES[name]())
        return tyro.cli(Train, prog="c2f train", args=flags, default=default, console_outputs=speak)
    others = {command.name: command.load() for command in entry_points(group="c2f.commands")}
    return tyro.extras.subcommand_cli_from_dict(
        COMMANDS | others, prog="c2f", description="Build, train and compare Conv2Former.",
        args=arguments or ["--help"], console_outputs=speak,
    )  # fmt: skip


def _named_recipe(flags: Sequence[str]) -> str:
    """The value of --recipe, read ahead of everything else since the other flags' defaults follow from it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--recipe", nargs="?")
    parser.add_argument("--data", nargs="?", default=DEFAULT_DATA)
    given = parser.parse_known_args(flags)[0]
    name = given.recipe or ("digits" if given.data == "digits" else "laptop")
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}; the recipes are {', '.join(RECIPES)}.")
    return name


def _check_exists(*places: Path) -> None:
    """Say at once what is not there, before seconds are spent on imports."""
    for place in places:
        if not place.exists():
            raise ValueError(f"there is no {place}; name the folder of a run, as `c2f train --out` named it.")


def _use_threads(count: int | None) -> None:
    import torch

    if count is not None:
        if count < 1:
            raise ValueError(f"--threads is {count}; use at least 1, or leave it out.")
        torch.set_num_threads(count)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command (by default that of the command line) and return its exit code: 0, 1 or 2, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    with contextlib.ExitStack() as stack:
        if _rank() > 0:  # of several processes only the first one talks
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        try:
            return parse(arguments).run()
        except SystemExit as end:  # tyro has printed its help or the mistake
            return end.code if isinstance(end.code, int) else EXIT_OK
        except KeyboardInterrupt:
            return _complain("interrupted.", EXIT_INTERRUPTED)
        except (ValueError, OSError, ImportError, MemoryError) as error:
            if os.environ.get("C2F_TRACEBACK"):
                raise
            return _complain(_one_sentence(error), EXIT_USER_ERROR)


def _one_sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if isinstance(error, ImportError):
        return f"{error}; `c2f doctor` says what is missing."
    return " ".join(str(error).split()) or type(error).__name__


def _complain(sentence: str, code: int) -> int:
    process = f", process {_rank()}" if _rank() else ""
    print(f"c2f{process}: {sentence}", file=sys.stderr)
    return code
