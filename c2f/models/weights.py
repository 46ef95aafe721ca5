"""Trained weights that come with the kit: one safetensors file a model, with where it is from in its header.

They are kept in half precision where that changes no answer worth mentioning, and are float32 once they are loaded.
"""

import json
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import nn

from c2f.files import data_folder, write_atomically


def weights_folder() -> Path:
    return data_folder() / "weights"


def list_weights(name: str) -> list[str]:
    """What `create_model(name, weights=…)` can load here."""
    return sorted(path.stem.removeprefix(f"{name}-") for path in weights_folder().glob(f"{name}-*.safetensors"))


def load_trained_weights(model: nn.Module, name: str, weights: str) -> None:
    """Fill a model with the weights that the kit has for it.

    Raises ValueError where it has none of that name, or where they are of a model that was made otherwise.
    """
    path = weights_folder() / f"{name}-{weights}.safetensors"
    if not path.is_file():
        there = " or ".join(map(repr, list_weights(name))) or "none"
        raise ValueError(f"there are no weights {weights!r} for {name} in {weights_folder()}; there: {there}.")
    with safetensors.safe_open(path, "pt") as file:
        state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 - it is no dictionary
    try:
        model.load_state_dict(state)
    except RuntimeError:
        made = provenance(name, weights).get("overrides", {})
        raise ValueError(
            f"the weights {weights!r} are of a {name} with {made}; create the model with these, or without weights."
        ) from None


def provenance(name: str, weights: str) -> dict[str, Any]:
    """Where weights are from: model, data, recipe, accuracy, hardware, time, command."""
    with safetensors.safe_open(weights_folder() / f"{name}-{weights}.safetensors", "pt") as file:
        return json.loads(file.metadata()["provenance"])


def save_half(path: Path, model: nn.Module, provenance: dict[str, Any]) -> None:
    """Write a model's weights in float16, half the size, with their provenance."""
    state = {name: value.detach().cpu().to(torch.float16).contiguous() for name, value in model.state_dict().items()}
    write_atomically(path, save(state, metadata={"provenance": json.dumps(provenance)}))
