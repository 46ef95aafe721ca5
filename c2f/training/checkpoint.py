"""What a run leaves behind, written so that a kill at any moment loses at most a minute and spoils nothing.

A run is a folder:

    recipe.json         what was trained: model, data, recipe
    history.csv         a row an epoch
    summary.json        the figures of the last epoch, with hardware and versions
    last.ckpt           everything that resuming needs
    best.safetensors    the weights at the best test accuracy, final.safetensors those of the last epoch
"""

import contextlib
import hashlib
import io
import json
import pickle
import statistics
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
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
from c2f.training.data import Dataset
from c2f.training.history import History
from c2f.training.recipes import Recipe

MAGIC = b"c2f checkpoint 3\n"
DIGEST_BYTES = hashlib.sha256().digest_size


class CheckpointError(ValueError):
    """A checkpoint or run folder that cannot be used; the message says why and what would do."""


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
    if content.startswith(MAGIC[:-2]) and not content.startswith(MAGIC):
        raise CheckpointError(f"{path} was written by another version of c2f; {start_over}.")
    if not content.startswith(MAGIC):
        raise CheckpointError(f"{path} is not a checkpoint of c2f; {start_over}.")
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
        ours = {name: tuple(value.shape) for name, value in module.state_dict().items()}
        theirs = {name: tuple(value.shape) for name, value in weights.items()}
        strange = next(name for name in [*theirs, *ours] if theirs.get(name) != ours.get(name))
        raise CheckpointError(
            f"{source} belongs to another model: {strange} is {theirs.get(strange, 'missing')} there and "
            f"{ours.get(strange, 'missing')} here; create the model as it was created for that training."
        ) from None


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


def model_name(model: nn.Module) -> str:
    """The name that `create_model` gave, or the class of a model that came from elsewhere."""
    return getattr(model, "name", type(model).__name__)


def describe_model(model: nn.Module, classes: int) -> tuple[str, dict[str, Any]]:
    """What `create_model` must be given to build such a model again: name and overrides.

    A head that was replaced for another number of classes is described as such. Raises CheckpointError for a model of
    ours that was changed otherwise, since its run could not be loaded.
    """
    from c2f.models import create_model, list_models

    name, overrides = model_name(model), getattr(model, "overrides", {})
    if name not in list_models():
        return name, overrides
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    for found in (overrides, {**overrides, "num_classes": classes}):
        with torch.device("meta"):
            expected = {key: value.shape for key, value in create_model(name, **found).state_dict().items()}
        if shapes == expected:
            return name, found
    strange = next(key for key in [*shapes, *expected] if shapes.get(key) != expected.get(key))
    raise CheckpointError(
        f"this model is no longer the {name} that create_model builds ({strange} is {_size(shapes.get(strange))}, not "
        f"{_size(expected.get(strange))}), so its run could not be loaded; name it otherwise to train it as a model of "
        f"your own, for instance model.name = 'my model'."
    )


def _size(shape: torch.Size | None) -> str:
    return "absent" if shape is None else str(tuple(shape))


@dataclass(frozen=True)
class Run:
    """One run's folder, read. `summary` is empty until the first epoch is done."""

    path: Path
    recipe: dict[str, Any]
    summary: dict[str, Any]
    history: History

    def load_model(self, which: str = "final") -> nn.Module:
        """Rebuild the model with its "final" or "best" weights, in eval mode on the CPU."""
        from c2f.models import create_model, list_models

        if self.recipe["model"] not in list_models():
            raise CheckpointError(
                f"{self.path} holds a {self.recipe['model']}, which create_model cannot build; "
                f"build it yourself and load {which}.safetensors into it."
            )
        model = create_model(self.recipe["model"], **self.recipe["overrides"])
        source = self.path / f"{which}.safetensors"
        load_into(model, load_weights(source), source)
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
    except (json.JSONDecodeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); train it again.") from None
    return Run(path, recipe, summary, history)


class RunFolder:
    """Writes one run's folder, alone: it refuses to write over another run, or beside another process."""

    def __init__(self, path: Path, model: nn.Module, data: Dataset, recipe: Recipe, device: torch.device) -> None:
        self.path, self.device, self.epochs = path, device, recipe.epochs
        self.lock = filelock.FileLock(path / ".lock")
        self.checkpoint = path / "last.ckpt"
        name, overrides = describe_model(model, len(data.classes))
        self.described = {
            "model": name,
            "overrides": _jsonable(overrides),
            "data": {**_jsonable(data.provenance), "name": data.name},
            "recipe": asdict(recipe),
        }

    def open(self) -> dict[str, Any] | None:
        """Take the folder: the state to resume from, or None for a new run. Raises CheckpointError where it cannot."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise CheckpointError(f"{self.path} is not a folder; name another place for the run.") from None
        self._lock()
        if not (self.path / "recipe.json").exists():
            if strangers := [file.name for file in self.path.iterdir() if not file.name.startswith(".")]:
                raise CheckpointError(
                    f"{self.path} is in use, not by a run (it holds {strangers[0]}); name a new folder."
                )
            write_json(self.path / "recipe.json", self.described)
            return None
        before = json.loads((self.path / "recipe.json").read_text(encoding="utf-8"))
        if differences := _differences(before, self.described):
            raise CheckpointError(
                f"{self.path} holds another run ({'; '.join(differences[:3])}); "
                f"go on with it as it was, or name a new folder."
            )
        return load_checkpoint(self.checkpoint) if self.checkpoint.exists() else None

    def close(self) -> None:
        self.lock.release()

    def save(self, **state: Any) -> None:
        save_checkpoint(self.checkpoint, state)

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
            "test_loss": last.test_loss,
            "train_accuracy": last.train_accuracy,
            "train_loss": last.train_loss,
            "best_test_accuracy": best.test_accuracy,
            "best_epoch": best.epoch,
            "seconds": round(sum(record.seconds for record in history.records), 1),
            "images_per_second": round(statistics.median(r.images_per_second for r in history.records), 1),
            "precision": precision,  # what the recipe's "auto" came to on this machine
            "hardware": describe_hardware(self.device),
            "versions": describe_versions(),
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(self.path / "summary.json", summary)

    def _lock(self) -> None:
        try:
            self.lock.acquire(blocking=False)  # the system drops it with the process, even a killed one
        except filelock.Timeout:
            raise CheckpointError(
                f"another process is training into {self.path}; wait for it, or name a new folder."
            ) from None


@contextlib.contextmanager
def run_folder(path: Path | str | None, *description: Any) -> Iterator[RunFolder | None]:
    """The folder of a run, given up at the end; None for a training that leaves nothing on the disk."""
    folder = RunFolder(Path(path), *description) if path else None
    try:
        yield folder
    finally:
        if folder:
            folder.close()


def _jsonable(value: Any) -> Any:
    """As it would come back from JSON, so that what is compared is what is stored."""
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_jsonable(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _differences(before: dict, now: dict, where: str = "") -> list[str]:
    """Each leaf in which two descriptions differ, as "recipe.lr was 0.001 and is 0.01 now"."""
    found = []
    for key in [*before, *(key for key in now if key not in before)]:
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{where}{key}.")
        elif old != new:
            found.append(f"{where}{key} was {old} and is {new} now")
    return found
