"""A training to watch again: at some of its steps, what one block of each stage saw, kept in a file of a few MB.

    recorder = Recorder(images, path="runs/a/recording.safetensors")
    train(model, data, recipe, out="runs/a", callbacks=[recorder])
    recording = Recording.load("runs/a/recording.safetensors")

Of a Conv2Former it keeps kernels (C, k, k) and modulation maps A; of a Swin what stands in their place: each head's
bias for each step between two tokens, and how much the token in the middle attends to each of the others.

Shapes: F frames, C channels or heads, M images, H x W positions.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor, nn

from c2f.device import describe_hardware
from c2f.files import write_atomically
from c2f.maps.modulation import channels_by_effect, parts_of
from c2f.models import Conv2Former
from c2f.models.baselines import Swin
from c2f.training.augment import normalize
from c2f.training.loop import Callback, TrainingState
from c2f.training.run import EpochRecord, History

KEPT_CHANNELS = 8


@dataclass(frozen=True, eq=False)
class Seen:
    """What one block showed, frame after frame."""

    stage: int
    block: int
    channels: tuple[int, ...]
    """Those that did most at the end, the most first; of a Swin its heads."""
    kernels: Tensor  # (F, C, k, k)
    maps: Tensor  # (F, C, M, H, W)


@dataclass(frozen=True, eq=False)
class Recording:
    """A training to watch again."""

    model: str
    kind: str
    """"Conv2Former" or "Swin": whether `Seen` holds kernels and modulation maps, or biases and attention rows."""
    about: dict[str, Any]
    """Hardware, data, recipe, seed: whatever the recorder was told and found."""
    images: Tensor  # (M, 3, H, W) uint8
    names: tuple[str, ...]
    steps: tuple[int, ...]
    """After which step each of the F frames was taken."""
    losses: Tensor
    """(steps,) the training loss of every step."""
    history: History
    seen: tuple[Seen, ...]

    @property
    def steps_per_epoch(self) -> int:
        return len(self.losses) // max(1, len(self.history))

    @classmethod
    def load(cls, path: Path | str) -> "Recording":
        """Read a file that a Recorder wrote. Raises ValueError, in a sentence, for anything else."""
        try:
            with safetensors.safe_open(path, "pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dictionary
                told = json.loads(file.metadata()["recording"])
        except FileNotFoundError:
            raise ValueError(f"there is no recording {path}; `Recorder` makes one during a training.") from None
        except (safetensors.SafetensorError, KeyError, TypeError, json.JSONDecodeError):
            raise ValueError(f"{path} is not a recording; give a file that a `Recorder` wrote.") from None
        seen = tuple(
            Seen(
                **{**place, "channels": tuple(place["channels"])},
                kernels=tensors[f"kernels.{place['stage']}"].float(),
                maps=tensors[f"maps.{place['stage']}"].float(),
            )
            for place in told["seen"]
        )
        return cls(
            told["model"], told["kind"], told["about"], tensors["images"], tuple(told["names"]), tuple(told["steps"]),
            tensors["losses"].float(), History([EpochRecord(**record) for record in told["history"]]), seen,
        )  # fmt: skip


@dataclass
class Recorder(Callback):
    """Watches the first block of every stage during a training. A cheap one: a frame costs one look at few images.

    Args:
        images: (M, 3, H, W) uint8, what the maps are of; two or three are enough.
        names: what each shows.
        path: where to keep the recording; it is written at every epoch's end, so that a run which was killed and
            resumed goes on with its recording.
        frames: how many, close together in the beginning, when most happens: the steps go as a square.
        about: more to be kept with it.
    """

    images: Tensor
    names: Sequence[str]
    path: Path | str | None = None
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
        self._losses: dict[int, float] = {}
        self._kernels: dict[int, list[Tensor]] = {}
        self._maps: dict[int, list[Tensor]] = {}
        self._order: dict[int, Tensor] = {}

    def on_step(self, state: TrainingState) -> None:
        if not self._wanted:
            last = state.steps - 1
            self._wanted = {1 + round(last * (i / (self.frames - 1)) ** 2) for i in range(self.frames)}
            self._take_up(before=state.step)
        self._losses[state.step] = state.loss
        if state.step in self._wanted:
            self._steps.append(state.step)
            for stage, (kernels, maps, order) in enumerate(look(state.model, self.images)):
                self._kernels.setdefault(stage, []).append(kernels.half())
                self._maps.setdefault(stage, []).append(maps.half())
                self._order[stage] = order

    def on_epoch(self, state: TrainingState) -> None:
        self._state = state
        if self.path is not None:
            self.save(self.path, whole=state.step < state.steps)

    def save(self, path: Path | str, whole: bool = False) -> None:
        """Write what was recorded so far: the channels that do most at the end or, `whole`, all of them."""
        state = self._state
        device = next(state.model.parameters()).device
        tensors, seen = {"images": self.images.cpu(), "losses": torch.tensor(list(self._losses.values()))}, []
        for stage, order in self._order.items():
            kept = torch.arange(len(order)) if whole else order[:KEPT_CHANNELS].cpu()
            tensors[f"kernels.{stage}"] = torch.stack(self._kernels[stage])[:, kept].contiguous()
            tensors[f"maps.{stage}"] = torch.stack(self._maps[stage])[:, kept].contiguous()
            seen.append({"stage": stage, "block": 0, "channels": kept.tolist()})
        told = {
            "model": getattr(state.model, "name", type(state.model).__name__),
            "kind": type(state.model).__name__,
            "about": {"hardware": describe_hardware(device), **self.about},
            "names": list(self.names),
            "steps": self._steps,
            "history": state.history.as_dicts(),
            "seen": seen,
        }
        write_atomically(Path(path), save(tensors, metadata={"recording": json.dumps(told)}))

    def _take_up(self, before: int) -> None:
        """Go on with what an earlier process of the same run recorded, up to the step it was resumed at."""
        if before == 1 or self.path is None or not Path(self.path).is_file():
            return
        old = Recording.load(self.path)
        count = sum(step < before for step in old.steps)
        self._steps = list(old.steps[:count])
        self._losses = dict(enumerate(old.losses.tolist()[: before - 1], start=1))
        for seen in old.seen:
            self._kernels[seen.stage] = list(seen.kernels[:count].half())
            self._maps[seen.stage] = list(seen.maps[:count].half())
            self._order[seen.stage] = torch.tensor(seen.channels)


@torch.no_grad()
def look(model: nn.Module, images: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For the first block of every stage: (kernels (C, k, k), maps (C, M, H, W), channels by how much they do).

    Raises ValueError for a model that is neither a Conv2Former nor a Swin.
    """
    x = normalize(images.to(next(model.parameters()).device))
    if isinstance(model, Conv2Former):
        return [_look_at_convmod(model, x, stage) for stage in range(len(model.stages))]
    if isinstance(model, Swin):
        return _look_at_attention(model, x)
    raise ValueError(f"a {type(model).__name__} has neither ConvMod nor window attention to record.")


def _look_at_convmod(model: Conv2Former, x: Tensor, stage: int) -> tuple[Tensor, Tensor, Tensor]:
    convmod = model.stages[stage].blocks[0].convmod
    parts = parts_of(model, x, stage, 0)
    return convmod.a[-1].weight[:, 0].cpu(), parts.a.transpose(0, 1).cpu(), channels_by_effect(convmod, parts)


def _look_at_attention(model: Swin, x: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    was_training = model.training
    attentions = [block for block in model.eval().attention_weights(x) if block.block == 0]
    model.train(was_training)
    looks = []
    for stage, block in enumerate(attentions):
        height, width = block.grid
        table = model.features[1 + 2 * stage][0].attn.relative_position_bias_table  # (steps between tokens, heads)
        sides = (2 * block.window[0] - 1, 2 * block.window[1] - 1)
        rows = block.row(height // 2, width // 2).transpose(0, 1)  # (heads, M, H, W)
        heads = torch.arange(rows.shape[0])
        looks.append((table.t().unflatten(1, sides).cpu(), rows.cpu(), heads))
    return looks
