"""What a run leaves behind, written so that a kill at any moment loses at most a minute and spoils nothing.

A run is a folder:

    recipe.json         what was trained: model, data, recipe
    history.csv         one row per epoch
    summary.json        the figures of the last epoch, with hardware and versions
    last.ckpt           everything that resuming needs
    best.safetensors    the weights at the best test accuracy, final.safetensors those of the last epoch
"""

import contextlib
import csv
import hashlib
import io
import json
import pickle
import statistics
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from c2f.device import describe_hardware, describe_versions
from c2f.files import write_atomically, write_json
from c2f.models import create_model, list_models
from c2f.training.data import Dataset
from c2f.training.process import from_first_process
from c2f.training.recipes import Recipe

MAGIC = b"c2f checkpoint 3\n"
DIGEST_BYTES = hashlib.sha256().digest_size


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
    images_per_second: float


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
        text = io.StringIO()
        writer = csv.DictWriter(text, [column.name for column in fields(EpochRecord)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.as_dicts())
        write_atomically(path, text.getvalue().encode())

    @classmethod
    def from_csv(cls, path: Path) -> "History":
        with open(path, newline="", encoding="utf-8") as file:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        return cls([EpochRecord(**{**row, "epoch": int(row["epoch"])}) for row in rows])


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
    path = Path(path)
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
    try:
        module.load_state_dict(weights)
    except RuntimeError:
        found, expected = _shapes(weights), _shapes(module.state_dict())
        name = next(name for name in [*found, *expected] if found.get(name) != expected.get(name))
        raise CheckpointError(
            f"{source} belongs to another model: {name} is {found.get(name, 'missing')} there and "
            f"{expected.get(name, 'missing')} here; create the model as it was created for that training."
        ) from None


def _shapes(weights: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in weights.items()}


def save_weights(path: Path, model: nn.Module, provenance: dict[str, Any]) -> None:
    """Write a model's weights as safetensors, which hold data only and can be shared, with where they are from."""
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_atomically(path, safetensors.torch.save(weights, metadata={"provenance": json.dumps(provenance)}))


def load_weights(path: Path) -> dict[str, Tensor]:
    """The state dict of a safetensors file; raises CheckpointError for a file that is none or is damaged."""
    try:
        return safetensors.torch.load(Path(path).read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"there are no weights {path}; train first, or name a run that has them.") from None
    except (safetensors.SafetensorError, ValueError):
        raise CheckpointError(f"{path} is not a readable safetensors file; copy or train it again.") from None


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
    found = _shapes(model.state_dict())
    for described in (overrides, {**overrides, "num_classes": classes}):
        with torch.device("meta"):
            expected = _shapes(create_model(name, **described).state_dict())
        if found == expected:
            return {"model": name, "overrides": described}
    changed = next(key for key in [*found, *expected] if found.get(key) != expected.get(key))
    raise CheckpointError(
        f"this model is no longer the {name} that create_model builds ({changed} is {found.get(changed, 'absent')}, "
        f"not {expected.get(changed, 'absent')}), so its run could not be loaded; name it otherwise to train it as a "
        f"model of your own, for instance model.name = 'my model'."
    )


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
        model = self.build_model()
        source = self.path / (which if which.endswith(".ckpt") else f"{which}.safetensors")
        if source.suffix == ".ckpt":
            saved = load_checkpoint(source)
            averaged = (saved["average"] or {}).items()
            weights = {name.removeprefix("module."): value for name, value in averaged if name != "n_averaged"}
            weights = weights or saved["model"]
        else:
            weights = load_weights(source)
        load_into(model, weights, source)
        return model.eval()


def load_run(path: Path | str) -> Run:
    """Read a run's folder. Raises CheckpointError where it is not one or was cut off before it began."""
    path = Path(path)
    try:
        recipe = json.loads((path / "recipe.json").read_text(encoding="utf-8"))
        summary_file, history_file = path / "summary.json", path / "history.csv"
        summary = json.loads(summary_file.read_text(encoding="utf-8")) if summary_file.exists() else {}
        history = History.from_csv(history_file) if history_file.exists() else History()
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is not the folder of a run: it has no recipe.json; name what --out named."
        ) from None
    except (KeyError, ValueError) as error:  # json.JSONDecodeError is a ValueError
        raise CheckpointError(f"{path} is damaged ({error}); train it again.") from None
    return Run(path, recipe, summary, history)


# ---- The folder, written


class RunFolder:
    """Writes one run's folder, alone: it refuses to write over another run, or beside another process."""

    def __init__(self, path: Path, model: nn.Module, data: Dataset, recipe: Recipe, device: torch.device) -> None:
        self.path, self.device, self.epochs = path, device, recipe.epochs
        self.lock = filelock.FileLock(path / ".lock")
        data_described = {**data.provenance, "name": data.name}
        described = {**describe_model(model, len(data.classes)), "data": data_described, "recipe": asdict(recipe)}
        self.described = json.loads(json.dumps(described, default=str))  # so that what is compared is what is stored

    def open(self) -> dict[str, Any] | None:
        """Take the folder: the state to resume from, or None for a new run. Raises CheckpointError where it cannot."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock.acquire(blocking=False)  # the system drops it with the process, even a killed one
        except (FileExistsError, NotADirectoryError):
            raise CheckpointError(f"{self.path} is not a folder; name another place for the run.") from None
        except filelock.Timeout:
            raise CheckpointError(
                f"another process is training into {self.path}; wait for it, or name a new folder."
            ) from None
        recipe, checkpoint = self.path / "recipe.json", self.path / "last.ckpt"
        if not recipe.exists():
            if strangers := [file.name for file in self.path.iterdir() if not file.name.startswith(".")]:
                raise CheckpointError(
                    f"{self.path} is in use, not by a run (it holds {strangers[0]}); name a new folder."
                )
        elif differences := _differences(json.loads(recipe.read_text(encoding="utf-8")), self.described):
            raise CheckpointError(
                f"{self.path} holds another run ({'; '.join(differences[:3])}); "
                f"go on with it as it was, or name a new folder."
            )
        return load_checkpoint(checkpoint) if checkpoint.exists() else None

    def save(self, **state: Any) -> None:
        """Write last.ckpt, and recipe.json where it is not there yet."""
        if not (self.path / "recipe.json").exists():
            write_json(self.path / "recipe.json", self.described)
        save_checkpoint(self.path / "last.ckpt", state)

    def write_epoch(self, history: History, model: nn.Module, precision: str) -> None:
        """Write history.csv, summary.json and, where they are due, the weights of the best and of the last epoch."""
        last = history[-1]
        best = max(history.records, key=lambda record: record.test_accuracy)
        described = {**self.described, "epochs": last.epoch, "test_accuracy": last.test_accuracy}
        if best is last:
            save_weights(self.path / "best.safetensors", model, described)
        if last.epoch == self.epochs:
            save_weights(self.path / "final.safetensors", model, described)
        history.to_csv(self.path / "history.csv")
        summary = {
            **described,
            "parameters": sum(p.numel() for p in model.parameters()),
            "complete": last.epoch == self.epochs,
            "test_loss": last.test_loss, "train_accuracy": last.train_accuracy, "train_loss": last.train_loss,
            "best_test_accuracy": best.test_accuracy, "best_epoch": best.epoch,
            "seconds": round(sum(record.seconds for record in history.records), 1),
            "images_per_second": round(statistics.median(r.images_per_second for r in history.records), 1),
            "precision": precision,  # what the recipe's "auto" came to on this machine
            "hardware": describe_hardware(self.device), "versions": describe_versions(),
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
        }  # fmt: skip
        write_json(self.path / "summary.json", summary)


@contextlib.contextmanager
def run_folder(
    path: Path | str | None,
    model: nn.Module,
    data: Dataset,
    recipe: Recipe,
    device: torch.device,
    rank: int,
    world: int,
) -> Iterator[tuple[RunFolder | None, dict[str, Any] | None]]:
    """The folder of a run, released at the end, and the state to resume from; None, None where there is no path.

    Of several processes the first one has the folder, and all have the state.
    """
    folder = RunFolder(Path(path), model, data, recipe, device) if path and rank == 0 else None
    try:
        yield folder, from_first_process(folder and folder.open(), world)
    finally:
        if folder:
            folder.lock.release()


def _differences(before: dict, now: dict, where: str = "") -> list[str]:
    """Each leaf in which two descriptions differ, as "recipe.lr was 0.001 and is 0.01 now"."""
    found = []
    for key in dict.fromkeys([*before, *now]):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{where}{key}.")
        elif old != new:
            found.append(f"{where}{key} was {old} and is {new} now")
    return found
