"""A training to watch again: at some of its steps, one block of each stage, kept in a file of a few MB.

    recorder = Recorder(images, names, "runs/a/recording.safetensors")
    train(model, data, recipe, out="runs/a", callbacks=[recorder])
    recording = Recording.load("runs/a/recording.safetensors")

Of a Conv2Former it keeps kernels (C, k, k) and modulation maps A; of a Swin the corresponding quantities: each head's
bias for each step between two tokens, and how much the token in the middle attends to each of the others.

Shapes: F frames, C channels or heads, M images, H x W positions.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from c2f.device import describe_hardware
from c2f.files import load_tensors, save_tensors
from c2f.maps.modulation import channels_by_effect, parts_of
from c2f.maps.receptive_field import kernels_of
from c2f.models import Conv2Former
from c2f.models.baselines import Swin
from c2f.models.inputs import evaluating
from c2f.training.augment import normalize
from c2f.training.loop import Callback, TrainingState
from c2f.training.run import EpochRecord, History, model_name

KEPT_CHANNELS = 8


@dataclass(frozen=True, eq=False)
class BlockFrames:
    """The first block of a stage, frame after frame."""

    stage: int
    channels: Sequence[int]
    """Those with the largest effect at the end, the largest first; of a Swin its heads."""
    kernels: Tensor  # (F, C, k, k)
    maps: Tensor  # (F, C, M, H, W)


@dataclass(frozen=True, eq=False)
class Recording:
    """A training to watch again."""

    model: str
    kind: str
    """"Conv2Former" or "Swin": whether `blocks` hold kernels and modulation maps, or biases and attention rows."""
    about: dict[str, Any]
    """Hardware, data, recipe, seed: what the recorder was given and found."""
    images: Tensor  # (M, 3, H, W) uint8
    names: Sequence[str]
    steps: Sequence[int]  # of the F frames
    losses: Tensor  # the training loss of every step
    history: History
    blocks: Sequence[BlockFrames]

    @property
    def steps_per_epoch(self) -> int:
        return len(self.losses) // max(1, len(self.history))

    @classmethod
    def load(cls, path: Path | str) -> "Recording":
        """Read a file that a Recorder wrote. Raises ValueError, in a sentence, for anything else."""
        try:
            tensors, about = load_tensors(path)
            content = json.loads(about["recording"])
        except FileNotFoundError:
            raise ValueError(f"there is no recording {path}; `Recorder` makes one during a training.") from None
        except (KeyError, json.JSONDecodeError):
            raise ValueError(f"{path} is not a recording; give a file that a `Recorder` wrote.") from None
        blocks = []
        for seen in content.pop("seen"):
            kernels, maps = (tensors[f"{name}.{seen['stage']}"].float() for name in ("kernels", "maps"))
            blocks.append(BlockFrames(seen["stage"], seen["channels"], kernels, maps))
        content["history"] = History([EpochRecord(**record) for record in content["history"]])
        return cls(**content, images=tensors["images"], losses=tensors["losses"].float(), blocks=blocks)


@dataclass
class Recorder(Callback):
    """Records the first block of every stage during a training, which costs one forward pass of few images a frame.

    Args:
        images: (M, 3, H, W) uint8, what the maps are of; two or three are enough.
        names: one per image.
        path: where to keep the recording, written at every epoch's end; what is not written yet is in checkpoints.
        frames: how many, close together in the beginning, when most happens: the steps grow as a square.
        about: more to be kept with it.
    """

    images: Tensor
    names: Sequence[str]
    path: Path | str
    frames: int = 60
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != torch.uint8 or len(self.names) != len(self.images):
            raise ValueError(
                f"there are {len(self.names)} names for images {tuple(self.images.shape)} of {self.images.dtype}; "
                f"give uint8 images (M, 3, H, W) and a name each."
            )
        if self.frames < 2:
            raise ValueError(f"frames is {self.frames}; use at least 2, the first and the last step.")
        self._wanted: set[int] = set()
        self._steps: list[int] = []
        self._losses: list[float] = []  # tensors on the device until they are written
        self._blocks: list[BlockFrames] = []

    def on_step(self, state: TrainingState) -> None:
        if not self._wanted:
            last = state.steps - 1
            self._wanted = {1 + round(last * (i / (self.frames - 1)) ** 2) for i in range(self.frames)}
        self._losses += [math.nan] * (state.step - 1 - len(self._losses))  # of steps before it watched
        self._losses.append(state.loss_tensor)
        if state.step in self._wanted:
            now = first_blocks(state.model, self.images)
            for i, old in enumerate(self._blocks):
                kernels, maps = torch.cat([old.kernels, now[i].kernels]), torch.cat([old.maps, now[i].maps])
                now[i] = replace(now[i], kernels=kernels, maps=maps)
            self._steps.append(state.step)
            self._blocks = now

    def state_dict(self) -> dict[str, Any]:
        self._losses = [float(loss) for loss in self._losses]
        return {"steps": self._steps, "losses": self._losses, "blocks": [vars(block) for block in self._blocks]}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self._steps, self._losses = [*saved["steps"]], [*saved["losses"]]
        self._blocks = [BlockFrames(**block) for block in saved["blocks"]]

    def on_epoch(self, state: TrainingState) -> None:
        """Write what was recorded so far: in the end the channels with the largest effect, until then all of them."""
        device = next(state.model.parameters()).device
        self._losses = [float(loss) for loss in self._losses]
        tensors, seen = {"images": self.images.cpu(), "losses": torch.tensor(self._losses)}, []
        for block in self._blocks:
            kept = block.channels[:KEPT_CHANNELS] if state.step >= state.steps else range(len(block.channels))
            for name in ("kernels", "maps"):
                tensors[f"{name}.{block.stage}"] = getattr(block, name)[:, list(kept)].half().contiguous()
            seen.append({"stage": block.stage, "block": 0, "channels": list(kept)})
        content = {
            "model": model_name(state.model),
            "kind": type(state.model).__name__,
            "about": {"hardware": describe_hardware(device), **self.about},
            "names": list(self.names),
            "steps": self._steps,
            "history": state.history.as_dicts(),
            "seen": seen,
        }
        save_tensors(Path(self.path), tensors, recording=json.dumps(content))


@torch.no_grad()
def first_blocks(model: nn.Module, images: Tensor) -> list[BlockFrames]:
    """One frame with all channels of the first block of every stage, as they are now.

    Raises ValueError for a model that is neither a Conv2Former nor a Swin.
    """
    x = normalize(images.to(next(model.parameters()).device))
    blocks = []
    if isinstance(model, Conv2Former):
        for stage in range(len(model.stages)):
            parts = parts_of(model, x, stage, 0)
            channels = channels_by_effect(model.block(stage, 0).convmod, parts).tolist()
            maps = parts.a.transpose(0, 1).cpu()
            blocks.append(BlockFrames(stage, channels, kernels_of(model, stage)[None], maps[None]))
        return blocks
    if not isinstance(model, Swin):
        raise ValueError(f"a {type(model).__name__} has neither ConvMod nor window attention to record.")
    with evaluating(model):
        attentions = [attention for attention in model.attention_weights(x) if attention.block == 0]
    for attention in attentions:
        height, width = attention.grid
        table = model.features[1 + 2 * attention.stage][0].attn.relative_position_bias_table
        biases = table.t().unflatten(1, [2 * side - 1 for side in attention.window])  # by step between two tokens
        rows = attention.row(height // 2, width // 2).transpose(0, 1)  # (heads, M, H, W)
        blocks.append(BlockFrames(attention.stage, range(len(rows)), biases.cpu()[None], rows.cpu()[None]))
    return blocks
