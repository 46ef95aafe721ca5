"""Weights published under other names, for our `Conv2Former`.

Two code bases name the same layers differently from us: the PaddlePaddle notebook that first published the CIFAR-10
model, and the authors' release. Each function here takes all parameters of a model of theirs, of any dims and
depths, and returns a state dict that loads strictly into a `Conv2Former` of the same configuration.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from c2f.models.conv2former import VARIANTS, Conv2Former, Conv2FormerConfig

Rules = list[tuple[str, str | Callable[[re.Match[str]], str]]]

# A rule is a pattern for a whole published name, and our name, as `re.sub` takes it.
SEED_RULES: Rules = [
    (r"fc1\.(.+)", r"stem.\1"),
    (r"layers\.(\d+)\.blocks\.(\d+)\.attn\.(.+)", r"stages.\1.blocks.\2.convmod.\3"),
    (r"layers\.(\d+)\.blocks\.(\d+)\.mlp\.(.+)", r"stages.\1.blocks.\2.mlp.\3"),
    # Downsampling ends a stage there and begins one here.
    (r"layers\.(\d+)\.downsample\.(.+)", lambda name: f"stages.{int(name[1]) + 1}.downsample.{name[2]}"),
    (r"norm\.(.+)", r"head.norm.\1"),
    (r"head\.(.+)", r"head.fc.\1"),
]
PAPER_RULES: Rules = [
    (r"downsample_layers\.0\.(.+)", r"stem.\1"),
    (r"downsample_layers\.(\d+)\.(.+)", r"stages.\1.downsample.\2"),
    (r"stages\.(\d+)\.(\d+)\.layer_scale_([12])", r"stages.\1.blocks.\2.scale\3.gamma"),
    (r"stages\.(\d+)\.(\d+)\.attn\.att\.(.+)", r"stages.\1.blocks.\2.convmod.a.\3"),
    (r"stages\.(\d+)\.(\d+)\.attn\.(.+)", r"stages.\1.blocks.\2.convmod.\3"),
    (r"stages\.(\d+)\.(\d+)\.mlp\.(.+)", r"stages.\1.blocks.\2.mlp.\3"),
    (r"head\.0\.(.+)", r"head.expand.0.\1"),
    (r"head\.2\.(.+)", r"head.norm.\1"),
    (r"pred\.(.+)", r"head.fc.\1"),
]


def seed_state_dict(params: Mapping[str, Any]) -> dict[str, Tensor]:
    """Our state dict for the parameters of the published PaddlePaddle notebook's Conv2Former.

    Args:
        params: name -> numpy array or tensor, all of the model's. A linear layer's weight is (in, out).

    Returns:
        Copies, under the names of a `Conv2Former` with pointwise stem, group norm in the downsampling, linear head.

    Raises ValueError for a name that the published model has not, and for one of its names that is missing.
    """
    state = _renamed(params, SEED_RULES, VARIANTS["conv2former_n_cifar"])
    state["head.fc.weight"] = state["head.fc.weight"].T.contiguous()
    return state


def paper_state_dict(params: Mapping[str, Any]) -> dict[str, Tensor]:
    """Our state dict for the state dict of the authors' released Conv2Former (N, T, S, B or L).

    As `seed_state_dict`, of a `Conv2Former` configured like `VARIANTS["conv2former_n"]`. `params` are all of the
    model's, with the running statistics of its batch norms.
    """
    return _renamed(params, PAPER_RULES, VARIANTS["conv2former_n"])


def _renamed(params: Mapping[str, Any], rules: Rules, like: Conv2FormerConfig) -> dict[str, Tensor]:
    """Copies of the parameters under our names, which are exactly those of a model like `like` in design."""
    ours = {name: _rename(name, rules) for name in params}
    places = [re.match(r"stages\.(\d+)\.(?:blocks\.(\d+))?", name) for name in ours.values()]
    depths: dict[int, int] = {0: 1}
    for stage, block in ((int(place[1]), int(place[2] or 0)) for place in places if place):
        depths[stage] = max(depths.get(stage, 1), block + 1)
    with torch.device("meta"):  # names depend on the depths alone, so the channels may be few and without data
        model = Conv2Former(replace(like, dims=(2,) * len(depths), depths=tuple(depths[i] for i in sorted(depths))))
    expected = model.state_dict().keys()
    if unknown := [name for name in params if ours[name] not in expected]:
        raise ValueError(
            f"the published model has no {_some(unknown)}; pass its parameters alone, by their published names, "
            f"without a prefix or an optimizer's state."
        )
    if missing := [name for name in expected if name not in ours.values()]:
        raise ValueError(f"nothing was given for our {_some(missing)}; pass all parameters of the published model.")
    tensors = {name: p.detach().clone() if isinstance(p, Tensor) else torch.tensor(p) for name, p in params.items()}
    return {ours[name]: tensor for name, tensor in tensors.items()}


def _rename(name: str, rules: Rules) -> str:
    """Our name for a published one; empty where no rule matches it."""
    return next((re.sub(pattern, ours, name) for pattern, ours in rules if re.fullmatch(pattern, name)), "")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
