"""What a run leaves behind, written so that a kill at any moment loses at most a minute and spoils nothing.

A run is a folder:

    recipe.json         what was trained: model, data, recipe
    history.csv         one row per epoch
    summary.json        the figures of the last epoch, with hardware and versions; the JSON files carry a digest
    last.ckpt           everything that resuming needs; previous.ckpt the one before, should this one be damaged
    best.safetensors    the weights at the best test accuracy, final.safetensors those of the last epoch
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import pickle
import statistics
import warnings
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from c2f.device import describe_versions
from c2f.fast.accelerate import FAST
from c2f.files import load_tensors, save_tensors, write_atomically, write_json
from c2f.models import create_model, list_models
from c2f.training.data import Dataset
from c2f.training.process import from_first_process
from c2f.training.recipes import Recipe

MAGIC = b"c2f checkpoint 4\n"
DIGEST_BYTES = hashlib.sha256().digest_size
NOT_AT_INFERENCE = ("training", "p", "momentum", "name", "num_classes")  # they change no prediction, or no shape fits


class CheckpointError(ValueError):
    """A checkpoint or run folder that cannot be used; the message says why and what would do."""


# ---- The history


@dataclass(frozen=True)
class EpochRecord:
    """One row of history.csv. The accuracies are shares from 0 to 1; the training ones are of augmented images."""

    epoch: int  # from 1
    lr: float  # of the epoch's last step
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float  # of training, without the evaluation
    images_per_second: float  # of the steps after warm-up, augmentation included
    warm_up_seconds: float = 0.0  # of `seconds`, those of the first step at each size: compiling, choosing kernels


@dataclass
class History:
    """One record per epoch, and whether training was interrupted before the last one."""

    records: list[EpochRecord] = field(default_factory=list)
    interrupted: bool = False

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> EpochRecord:
        return self.records[index]

    def as_dicts(self) -> list[dict[str, float]]:
        return [asdict(record) for record in self.records]

    def to_csv(self, path: Path) -> None:
        rows = [[column.name for column in fields(EpochRecord)], *map(astuple, self.records)]
        write_atomically(path, "".join(f"{','.join(map(str, row))}\n" for row in rows).encode())

    @classmethod
    def from_csv(cls, path: Path) -> "History":
        text = path.read_text(encoding="utf-8")
        if not text.endswith("\n"):
            raise ValueError("history.csv is cut off")
        rows = csv.DictReader(text.splitlines())
        return cls([EpochRecord(int(row.pop("epoch")), **{name: float(row[name]) for name in row}) for row in rows])


# ---- Checkpoints and weights


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings and containers of them) with its SHA-256 in front, atomically."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    write_atomically(path, MAGIC + hashlib.sha256(payload).digest() + payload)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, onto the CPU.

    Raises CheckpointError for a file that is missing, truncated, altered, not a checkpoint, or that holds anything
    but data: a pickle that would run code is refused and nothing of it is run.
    """
    start_over = "delete it to start over, or train into a new folder"
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}; name the folder of a run that has one.")
    content = path.read_bytes()
    if not content.startswith(MAGIC):
        what = "was written by another version" if content.startswith(MAGIC[:-2]) else "is not a checkpoint"
        raise CheckpointError(f"{path} {what} of c2f; {start_over}.")
    digest, payload = content[len(MAGIC) :][:DIGEST_BYTES], content[len(MAGIC) + DIGEST_BYTES :]
    if hashlib.sha256(payload).digest() != digest:
        raise CheckpointError(f"{path} is damaged: its checksum does not match its content; {start_over}.")
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns of a strange pickle before it refuses it
            return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError):
        raise CheckpointError(
            f"{path} holds something other than tensors and numbers and was not opened; "
            f"use it only if you trust its source, and otherwise {start_over}."
        ) from None


def load_into(module: nn.Module, weights: dict[str, Tensor], source: Path) -> None:
    """Load a state dict; raises CheckpointError in one sentence where the weights are another model's."""
    if unlike := _first_difference(_shapes(weights), _shapes(module.state_dict())):
        name, found, expected = unlike
        raise CheckpointError(
            f"{source} belongs to another model: {name} is {found} there and {expected} here; create the model as it "
            f"was created for that training."
        )
    module.load_state_dict(weights)


def _shapes(weights: dict[str, Tensor]) -> dict[str, Any]:
    return {name: tuple(value.shape) for name, value in weights.items()}


def _first_difference(a: dict[str, Any], b: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """The first name whose values differ, and these; None where there is none."""
    names = (name for name in [*a, *b] if a.get(name) != b.get(name))
    return next(((name, a.get(name, "missing"), b.get(name, "missing")) for name in names), None)


def save_weights(path: Path, model: nn.Module, provenance: dict[str, Any]) -> None:
    """Write a model's weights as safetensors, which hold data only and can be shared, with where they are from."""
    save_tensors(path, model.state_dict(), provenance=json.dumps(provenance))


def load_weights(path: Path) -> dict[str, Tensor]:
    """The state dict of a safetensors file; raises CheckpointError for a file that is none or is damaged."""
    try:
        return load_tensors(path)[0]
    except FileNotFoundError:
        raise CheckpointError(f"there are no weights {path}; train first, or name a run that has them.") from None
    except ValueError as error:
        raise CheckpointError(str(error)) from None


# ---- The folder, read


def model_name(model: nn.Module) -> str:
    """The name that `create_model` gave, or the class of a model that came from elsewhere."""
    return getattr(model, "name", type(model).__name__)


def describe_model(model: nn.Module, classes: int) -> dict[str, Any]:
    """{"model", "overrides"}: what `Run.build_model` must be given to build such a model again.

    A head that was replaced for another number of classes is described as such. Raises CheckpointError for a model of
    ours that was changed otherwise, since its run could not be loaded.
    """
    name, overrides = model_name(model), getattr(model, "overrides", {})
    if name not in list_models():
        return {"model": name, "overrides": overrides}
    weights = {"weights": model.weights} if getattr(model, "weights", None) else {}  # the trained ones it began with
    for described in (overrides, {**overrides, "num_classes": classes}):
        with torch.device("meta"):
            unlike = _first_difference(_parts(model), _parts(create_model(name, **described)))
        if unlike is None:
            return {"model": name, "overrides": described, **weights}
    changed, found, expected = unlike
    raise CheckpointError(
        f"this model is no longer the {name} that create_model builds ({changed} is {found}, not {expected}), so its "
        f"run could not be loaded; name it otherwise to train it as a model of your own, for instance "
        f"model.name = 'my model'."
    )


def _parts(model: nn.Module) -> dict[str, Any]:
    """Each tensor's shape, each layer's class (accelerated or not) and what it was told of its work at inference."""
    found = _shapes(model.state_dict())
    for name, module in model.named_modules():
        found[f"layer {name}"] = (type(module).__base__ if type(module) in FAST else type(module)).__name__
        settings = {key: value for key, value in vars(module).items() if isinstance(value, int | float | str | tuple)}
        found |= {f"{name}.{key}": settings[key] for key in settings if key not in NOT_AT_INFERENCE and key[0] != "_"}
    return found


@dataclass(frozen=True)
class Run:
    """One run's folder, read. `summary` is empty until the first epoch is done."""

    path: Path
    recipe: dict[str, Any]
    summary: dict[str, Any]
    history: History

    def build_model(self) -> nn.Module:
        """The model as it was created for the run, with new weights."""
        if self.recipe["model"] not in list_models():
            raise CheckpointError(
                f"{self.path} holds a {self.recipe['model']}, which create_model cannot build; "
                f"build it yourself and load its weights into it."
            )
        return create_model(self.recipe["model"], **self.recipe["overrides"])

    def load_model(self, which: str = "final") -> nn.Module:
        """Rebuild the model in eval mode on the CPU, with its "final" or "best" weights, or those of "last.ckpt".

        A checkpoint's are averaged where the recipe averages them: those that were evaluated.
        """
        model, source = self.build_model(), self.path / (which if which.endswith(".ckpt") else f"{which}.safetensors")
        if source.suffix == ".ckpt":
            saved = load_checkpoint(source)
            averaged = {name.removeprefix("module."): value for name, value in (saved["average"] or {}).items()}
            averaged.pop("n_averaged", None)
            weights = averaged or saved["model"]
        else:
            weights = load_weights(source)
        load_into(model, weights, source)
        return model.eval()


def load_run(path: Path | str) -> Run:
    """Read a run's folder. Raises CheckpointError where it is not one or was cut off before it began."""
    path = Path(path)
    summary, history = path / "summary.json", path / "history.csv"
    recipe = _read_recipe(path)
    remedy = "the `c2f train` command that made the run writes it again"
    told = _read_json(summary, ("hardware", "versions"), remedy) if summary.exists() else {}
    try:
        records = History.from_csv(history) if history.exists() else History()
        if len(records) < told.get("epochs", 0):
            raise ValueError(f"history.csv has {len(records)} of {told['epochs']} epochs")
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{history} is damaged ({error}); {remedy}.") from None
    return Run(path, recipe, told, records)


def _read_recipe(path: Path) -> dict[str, Any]:
    return _read_json(path / "recipe.json", ("model", "overrides", "data", "recipe"), "train into a new folder")


def _read_json(path: Path, keys: tuple[str, ...], remedy: str) -> dict[str, Any]:
    """A JSON object that has these keys. Raises CheckpointError for anything else, and says what would do."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if missing := [key for key in keys if key not in dict(value)]:
            raise ValueError(f"it has no {missing[0]}")
        if value.pop("digest", None) not in (None, _json_digest(value)):  # older runs have none
            raise ValueError("its checksum does not match its content")
        return value
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent} is not the folder of a run: it has no {path.name}; name what --out named."
        ) from None
    except (TypeError, ValueError) as error:  # a JSONDecodeError and a UnicodeDecodeError are ValueErrors
        raise CheckpointError(f"{path} is damaged ({error}); {remedy}.") from None


def _json_digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


# ---- The folder, written


@dataclass(frozen=True)
class RunFolder:
    """Writes one run's folder. `described` is what recipe.json holds."""

    path: Path
    described: dict[str, Any]

    def resume(self) -> dict[str, Any] | None:
        """The state to resume from, or None for a new run. Raises CheckpointError for a folder of something else."""
        recipe = self.path / "recipe.json"
        if not recipe.exists():
            if names := [file.name for file in self.path.iterdir() if not file.name.startswith(".")]:
                raise CheckpointError(f"{self.path} is in use, not by a run (it holds {names[0]}); name a new folder.")
            return self._load_state()
        before = _read_recipe(self.path)
        before["recipe"] = {**asdict(Recipe(epochs=1)), **before["recipe"]}  # fields that are newer than the run
        old, new = before["recipe"]["epochs"], self.described["recipe"]["epochs"]
        if differences := _differences(before, self.described):
            longer = len(differences) == 1 and new > old
            state = self._load_state() if longer else None
            if state is None or len(state["history"]) < old:
                changes = "; ".join(differences[:3])
                first = ", then for more epochs" if longer else ""
                raise CheckpointError(
                    f"{self.path} holds another run ({changes}); go on with it as it was{first}, or name a new folder."
                )
            self._extend(old)
            return state
        return self._load_state()

    def _extend(self, epochs: int) -> None:
        """Let a run that was finished after `epochs` go on; its final weights get a name of their own."""
        recipe = Recipe(**self.described["recipe"])
        with contextlib.suppress(FileNotFoundError):
            os.replace(self.path / "final.safetensors", self.path / f"final-{epochs}.safetensors")
        self._write("recipe.json", self.described)
        ended = replace(recipe, epochs=epochs).learning_rate(epochs * 1000 - 1, 1000)  # as if of 1000 steps per epoch
        tqdm.write(
            f"{self.path} was finished after {epochs} epochs (its weights are now in final-{epochs}.safetensors): the "
            f"learning rate had reached the end of its schedule, {ended:.2g}, and begins again at "
            f"{recipe.learning_rate(epochs * 1000, 1000):.2g}, as a schedule of {recipe.epochs} epochs prescribes"
        )

    def is_damaged(self) -> bool:
        """Whether the history, the summary or the final weights are missing or damaged."""
        try:
            run = load_run(self.path)
            if run.summary["complete"]:
                load_weights(self.path / "final.safetensors")
            return run.summary["epochs"] != len(run.history)
        except (CheckpointError, KeyError):
            return True

    def _write(self, name: str, value: dict[str, Any]) -> None:
        write_json(self.path / name, {**value, "digest": _json_digest(value)})

    def _load_state(self) -> dict[str, Any] | None:
        """The state in last.ckpt or, should that be damaged, in previous.ckpt; None where there is neither."""
        checkpoint, older = self.path / "last.ckpt", self.path / "previous.ckpt"
        if not (checkpoint.exists() or older.exists()):
            return None
        try:
            return load_checkpoint(checkpoint)
        except CheckpointError as error:
            if not older.exists():
                raise
            state = load_checkpoint(older)
            tqdm.write(f"{str(error).split(';')[0]}; {older} holds the step before, {state['step']:,}: going on there")
            return state

    def save(self, **state: Any) -> None:
        """Write last.ckpt, and recipe.json where it is not there yet; the one before stays as previous.ckpt."""
        if not (self.path / "recipe.json").exists():
            self._write("recipe.json", self.described)
        last = self.path / "last.ckpt"
        if last.exists():
            os.replace(last, self.path / "previous.ckpt")
        save_checkpoint(last, state)

    def write_epoch(self, history: History, model: nn.Module, **about: Any) -> None:
        """Write history.csv, summary.json and, where they are due, the weights of the best and of the last epoch."""
        last, best = history[-1], max(history.records, key=lambda record: record.test_accuracy)
        complete = last.epoch == self.described["recipe"]["epochs"]
        described = {**self.described, "epochs": last.epoch, "test_accuracy": last.test_accuracy}
        for name, due in {"best": best is last, "final": complete}.items():
            if due:
                save_weights(self.path / f"{name}.safetensors", model, described)
        history.to_csv(self.path / "history.csv")
        summary = {
            **described,
            "parameters": sum(p.numel() for p in model.parameters()), "complete": complete,
            "test_loss": last.test_loss, "train_accuracy": last.train_accuracy, "train_loss": last.train_loss,
            "best_test_accuracy": best.test_accuracy, "best_epoch": best.epoch,
            "seconds": round(sum(record.seconds for record in history.records), 1),
            "images_per_second": round(statistics.median(r.images_per_second for r in history.records), 1),
            **about, "versions": describe_versions(), "written": datetime.now(UTC).isoformat(timespec="seconds"),
        }  # fmt: skip
        self._write("summary.json", summary)


@contextlib.contextmanager
def run_folder(
    path: Path | str | None, model: nn.Module, data: Dataset, recipe: Recipe, rank: int, world: int
) -> Iterator[tuple[RunFolder | None, dict[str, Any] | None]]:
    """The folder of a run, locked until the end, and the state to resume from; None, None where there is no path.

    Of several processes the first one has the folder, and all have the state. Raises CheckpointError for a folder of
    another run, of something else, or that another process trains into.
    """
    if not path or rank > 0:
        yield None, from_first_process(None, world)
        return
    about = {"data": {**data.provenance, "name": data.name, "path": data.path}, "recipe": asdict(recipe)}
    path = Path(path)
    described = json.dumps({**describe_model(model, len(data.classes)), **about}, default=str)
    folder = RunFolder(path, json.loads(described))  # so that what is compared is what is stored
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path / ".lock")
        lock.acquire(blocking=False)  # the system drops it with the process, even a killed one
    except (FileExistsError, NotADirectoryError):
        raise CheckpointError(f"{path} is not a folder; name another place for the run.") from None
    except filelock.Timeout:
        raise CheckpointError(f"another process is training into {path}; wait for it, or name a new folder.") from None
    try:
        yield folder, from_first_process(folder.resume(), world)
    finally:
        lock.release()


def _differences(before: dict, now: dict, where: str = "") -> list[str]:
    """Each leaf in which two descriptions differ, as "recipe.lr was 0.001 and is 0.01 now"."""
    found = []
    for key in dict.fromkeys([*before, *now]):
        old, new = before.get(key), now.get(key)
        if where == "data." and key == "path":  # the same images, whose digest is compared, may have moved
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{where}{key}.")
        elif old != new:
            found.append(f"{where}{key} was {old} and is {new} now")
    return found
