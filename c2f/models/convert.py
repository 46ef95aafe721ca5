"""Weights published under other names, for our `Conv2Former`.

Two code bases name the same layers differently from us: the PaddlePaddle notebook that first published the CIFAR-10
model, and the authors' release. Each function here takes all parameters of a model of theirs, of any dims and
depths, and returns a state dict that loads strictly into a `Conv2Former` of the same configuration.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from c2f.models.conv2former import VARIANTS, Conv2Former, Conv2FormerConfig

Rules = list[tuple[str, str]]

# A rule is a pattern for a whole published name, and our name: {1} is the pattern's first group, {1+1} one more.
SEED_RULES: Rules = [
    (r"fc1\.(.+)", "stem.{1}"),
    (r"layers\.(\d+)\.blocks\.(\d+)\.attn\.(.+)", "stages.{1}.blocks.{2}.convmod.{3}"),
    (r"layers\.(\d+)\.blocks\.(\d+)\.mlp\.(.+)", "stages.{1}.blocks.{2}.mlp.{3}"),
    (r"layers\.(\d+)\.downsample\.(.+)", "stages.{1+1}.downsample.{2}"),  # ends a stage there, begins one here
    (r"norm\.(.+)", "head.norm.{1}"),
    (r"head\.(.+)", "head.fc.{1}"),
]
PAPER_RULES: Rules = [
    (r"downsample_layers\.0\.(.+)", "stem.{1}"),
    (r"downsample_layers\.(\d+)\.(.+)", "stages.{1}.downsample.{2}"),
    (r"stages\.(\d+)\.(\d+)\.layer_scale_([12])", "stages.{1}.blocks.{2}.scale{3}.gamma"),
    (r"stages\.(\d+)\.(\d+)\.attn\.att\.(.+)", "stages.{1}.blocks.{2}.convmod.a.{3}"),
    (r"stages\.(\d+)\.(\d+)\.attn\.(.+)", "stages.{1}.blocks.{2}.convmod.{3}"),
    (r"stages\.(\d+)\.(\d+)\.mlp\.(.+)", "stages.{1}.blocks.{2}.mlp.{3}"),
    (r"head\.0\.(.+)", "head.expand.0.{1}"),
    (r"head\.2\.(.+)", "head.norm.{1}"),
    (r"pred\.(.+)", "head.fc.{1}"),
]


def seed_state_dict(params: Mapping[str, Any]) -> dict[str, Tensor]:
    """Our state dict for the parameters of the published PaddlePaddle notebook's Conv2Former.

    Args:
        params: name -> numpy array or tensor, all of the model's. A linear layer's weight is (in, out), as Paddle
            stores it.

    Returns:
        Copies, under the names of a `Conv2Former` with pointwise stem, group norm in the downsampling, linear head.

    Raises:
        ValueError: a name that the published model has not, or one of its names that is missing.
    """
    state = _renamed(params, SEED_RULES, VARIANTS["conv2former_n_cifar"])
    state["head.fc.weight"] = state["head.fc.weight"].T.contiguous()
    return state


def paper_state_dict(params: Mapping[str, Any]) -> dict[str, Tensor]:
    """Our state dict for the state dict of the authors' released Conv2Former (N, T, S, B or L).

    Args:
        params: name -> numpy array or tensor, all of the model's, with the running statistics of its batch norms.

    Returns:
        Copies, under the names of a `Conv2Former` configured like `VARIANTS["conv2former_n"]`.

    Raises:
        ValueError: a name that the released model has not, or one of its names that is missing.
    """
    return _renamed(params, PAPER_RULES, VARIANTS["conv2former_n"])


def _renamed(params: Mapping[str, Any], rules: Rules, like: Conv2FormerConfig) -> dict[str, Tensor]:
    """Copies of the parameters under our names, which are exactly those of a model like `like` in design."""
    ours = {name: _rename(name, rules) for name in params}
    expected = _names(ours.values(), like)
    if unknown := [name for name in params if ours[name] not in expected]:
        raise ValueError(
            f"the published model has no {_some(unknown)}; pass its parameters alone, by their published names, "
            f"without a prefix or an optimizer's state."
        )
    if missing := [name for name in expected if name not in ours.values()]:
        raise ValueError(f"nothing was given for our {_some(missing)}; pass all parameters of the published model.")
    return {ours[name]: _tensor(value) for name, value in params.items()}


def _rename(name: str, rules: Rules) -> str:
    """Our name for a published one; empty where no rule matches it."""
    for pattern, ours in rules:
        if match := re.fullmatch(pattern, name):
            groups = {str(i): group for i, group in enumerate(match.groups(), start=1)}
            groups["1+1"] = str(int(match[1]) + 1) if match[1].isdigit() else ""
            return re.sub(r"\{(.+?)\}", lambda slot: groups[slot[1]], ours)  # noqa: B023
    return ""


def _names(names: Iterable[str], like: Conv2FormerConfig) -> list[str]:
    """The state dict's names of a model with as many stages and blocks as occur in `names`."""
    depths = [1]
    for name in names:
        if match := re.match(r"stages\.(\d+)\.(?:blocks\.(\d+))?", name):
            stage, block = int(match[1]), int(match[2] or 0)
            depths += [1] * (stage + 1 - len(depths))
            depths[stage] = max(depths[stage], block + 1)
    with torch.device("meta"):  # names depend on the depths alone, so the channels may be few and without data
        model = Conv2Former(replace(like, dims=(2,) * len(depths), depths=tuple(depths)))
    return list(model.state_dict())


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().clone()
    return torch.from_numpy(np.array(value))
