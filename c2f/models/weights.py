"""Trained weights that come with the kit: one safetensors file a model, with where it is from in its header.

They are kept in half precision where that changes no answer worth mentioning, and are float32 once they are loaded.
"""

import json
import warnings
from pathlib import Path
from typing import Any

from torch import nn

from c2f.files import data_folder, load_tensors, save_tensors


def weights_folder() -> Path:
    """Where weights are written, and looked for first."""
    return data_folder() / "weights"


def weights_folders() -> list[Path]:
    """Where weights are looked for, in this order: among the user's data, then those that come with the kit."""
    package = Path(__file__).resolve().parents[1]
    # Installed from a wheel, the kit's own are in the package; in a clone, beside it.
    return [weights_folder(), package / "data" / "weights", package.parent / "data" / "weights"]


def weights_files(name: str) -> dict[str, Path]:
    """What `create_model(name, weights=…)` can load here: files by the data set on which they were trained."""
    files = [path for folder in reversed(weights_folders()) for path in folder.glob(f"{name}-*.safetensors")]
    return {path.stem.removeprefix(f"{name}-"): path for path in files}


def load_trained_weights(model: nn.Module, name: str, weights: str) -> None:
    """Fill a model with the weights that the kit has for it, all but a classifier for another number of classes.

    Warns where the classifier stays new. Raises ValueError where there are no weights of that name, or where they are
    of a model that was made otherwise.
    """
    if weights not in (files := weights_files(name)):
        found = " or ".join(map(repr, sorted(files))) or "none"
        raise ValueError(
            f"there are no weights {weights!r} for {name} in {weights_folder()} (the environment variable C2F_DATA "
            f"names another data folder) or among the kit's own; there: {found}."
        )
    state = {key: value.float() for key, value in load_tensors(files[weights])[0].items()}
    ours = model.state_dict()
    here, there = ({key: tuple(value.shape) for key, value in each.items()} for each in (ours, state))
    unlike = [key for key in [*here, *there] if here.get(key) != there.get(key)]
    *_, (classifier, layer) = ((key, module) for key, module in model.named_modules() if isinstance(module, nn.Linear))
    if unlike and set(unlike) == {f"{classifier}.weight", f"{classifier}.bias"}:
        warnings.warn(
            f"the weights {weights!r} tell {len(state[f'{classifier}.bias'])} classes apart and this {name} has "
            f"{layer.out_features}: all of it is loaded but the last layer, {classifier}, which is new.",
            stacklevel=3,
        )
        state = {**state, **{key: ours[key] for key in unlike}}
    elif unlike:
        raise ValueError(
            f"the weights {weights!r} are of a {name} with {provenance(name, weights).get('overrides', {})}: "
            f"{unlike[0]} is {there.get(unlike[0], 'absent')} there and {here.get(unlike[0], 'absent')} here; create "
            "the model with the same, or without weights."
        )
    model.load_state_dict(state)


def provenance(name: str, weights: str) -> dict[str, Any]:
    """Where weights are from: model, data, recipe, accuracy, hardware, time, command."""
    return json.loads(load_tensors(weights_files(name)[weights])[1]["provenance"])


def save_half(path: Path, model: nn.Module, provenance: dict[str, Any]) -> None:
    """Write a model's weights in float16, half the size, with their provenance."""
    halves = {name: value.half() for name, value in model.state_dict().items()}
    save_tensors(path, halves, provenance=json.dumps(provenance))
