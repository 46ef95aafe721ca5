"""A training to watch again: at some of its steps, one block of each stage, kept in a file of a few MB.

    recorder = Recorder(images, path="runs/a/recording.safetensors")
    train(model, data, recipe, out="runs/a", callbacks=[recorder])
    recording = Recording.load("runs/a/recording.safetensors")

Of a Conv2Former it keeps kernels (C, k, k) and modulation maps A; of a Swin the corresponding quantities: each head's
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
from c2f.models.modes import evaluating
from c2f.training.augment import normalize
from c2f.training.loop import Callback, TrainingState
from c2f.training.run import EpochRecord, History, model_name

KEPT_CHANNELS = 8


@dataclass(frozen=True, eq=False)
class BlockFrames:
    """One block, frame after frame."""

    stage: int
    block: int
    channels: tuple[int, ...]
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
    names: tuple[str, ...]
    steps: tuple[int, ...]
    """The step of each of the F frames."""
    losses: Tensor
    """(steps,) the training loss of every step."""
    history: History
    blocks: tuple[BlockFrames, ...]

    @property
    def steps_per_epoch(self) -> int:
        return len(self.losses) // max(1, len(self.history))

    @classmethod
    def load(cls, path: Path | str) -> "Recording":
        """Read a file that a Recorder wrote. Raises ValueError, in a sentence, for anything else."""
        try:
            with safetensors.safe_open(path, "pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dictionary
                content = json.loads(file.metadata()["recording"])
        except FileNotFoundError:
            raise ValueError(f"there is no recording {path}; `Recorder` makes one during a training.") from None
        except (safetensors.SafetensorError, KeyError, TypeError, json.JSONDecodeError):
            raise ValueError(f"{path} is not a recording; give a file that a `Recorder` wrote.") from None
        blocks = []
        for place in content["seen"]:
            kernels, maps = (tensors[f"{name}.{place['stage']}"].float() for name in ("kernels", "maps"))
            blocks.append(BlockFrames(place["stage"], place["block"], tuple(place["channels"]), kernels, maps))
        history = History([EpochRecord(**record) for record in content["history"]])
        return cls(
            content["model"], content["kind"], content["about"], tensors["images"], tuple(content["names"]),
            tuple(content["steps"]), tensors["losses"].float(), history, tuple(blocks),
        )  # fmt: skip


@dataclass
class Recorder(Callback):
    """Records the first block of every stage during a training, which costs one forward pass of few images a frame.

    Args:
        images: (M, 3, H, W) uint8, what the maps are of; two or three are enough.
        names: one per image.
        path: where to keep the recording; it is written at every epoch's end, so that a run which was killed and
            resumed continues its recording.
        frames: how many, close together in the beginning, when most happens: the steps grow as a square.
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
        self._losses: list[float] = []
        self._frames: list[list[tuple[Tensor, Tensor]]] = []  # by frame and stage: kernels and maps
        self._channels: list[Tensor] = []  # by stage, the largest effect first

    def on_step(self, state: TrainingState) -> None:
        if not self._wanted:
            last = state.steps - 1
            self._wanted = {1 + round(last * (i / (self.frames - 1)) ** 2) for i in range(self.frames)}
            self._resume(before=state.step)
        self._losses.append(state.loss)
        if state.step in self._wanted:
            self._steps.append(state.step)
            blocks = first_blocks(state.model, self.images)
            self._frames.append([(kernels.half(), maps.half()) for kernels, maps, _ in blocks])
            self._channels = [channels for *_, channels in blocks]

    def on_epoch(self, state: TrainingState) -> None:
        self._state = state
        if self.path is not None:
            self.save(self.path, all_channels=state.step < state.steps)

    def save(self, path: Path | str, all_channels: bool = False) -> None:
        """Write what was recorded so far: the channels with the largest effect at the end, or all of them."""
        state = self._state
        device = next(state.model.parameters()).device
        tensors, seen = {"images": self.images.cpu(), "losses": torch.tensor(self._losses)}, []
        for stage, order in enumerate(self._channels):
            kept = torch.arange(len(order)) if all_channels else order[:KEPT_CHANNELS].cpu()
            for i, name in enumerate(("kernels", "maps")):
                tensors[f"{name}.{stage}"] = torch.stack([frame[stage][i][kept] for frame in self._frames])
            seen.append({"stage": stage, "block": 0, "channels": kept.tolist()})
        content = {
            "model": model_name(state.model),
            "kind": type(state.model).__name__,
            "about": {"hardware": describe_hardware(device), **self.about},
            "names": list(self.names),
            "steps": self._steps,
            "history": state.history.as_dicts(),
            "seen": seen,
        }
        write_atomically(Path(path), save(tensors, metadata={"recording": json.dumps(content)}))

    def _resume(self, before: int) -> None:
        """Continue what an earlier process of the same run recorded, up to the step at which it was resumed."""
        if before == 1 or self.path is None or not Path(self.path).is_file():
            return
        old = Recording.load(self.path)
        self._steps = [step for step in old.steps if step < before]
        self._losses = old.losses.tolist()[: before - 1]
        halves = [(block.kernels.half(), block.maps.half()) for block in old.blocks]
        self._frames = [[(kernels[i], maps[i]) for kernels, maps in halves] for i in range(len(self._steps))]
        self._channels = [torch.tensor(block.channels) for block in old.blocks]


@torch.no_grad()
def first_blocks(model: nn.Module, images: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For the first block of every stage: (kernels (C, k, k), maps (C, M, H, W), channels, the largest effect first).

    Raises ValueError for a model that is neither a Conv2Former nor a Swin.
    """
    x = normalize(images.to(next(model.parameters()).device))
    found = []
    if isinstance(model, Conv2Former):
        for stage in range(len(model.stages)):
            convmod, parts = model.block(stage, 0).convmod, parts_of(model, x, stage, 0)
            kernels = convmod.a[-1].weight[:, 0]
            found.append((kernels.cpu(), parts.a.transpose(0, 1).cpu(), channels_by_effect(convmod, parts)))
        return found
    if not isinstance(model, Swin):
        raise ValueError(f"a {type(model).__name__} has neither ConvMod nor window attention to record.")
    with evaluating(model):
        attentions = [attention for attention in model.attention_weights(x) if attention.block == 0]
    for attention in attentions:
        height, width = attention.grid
        window = model.features[1 + 2 * attention.stage][0].attn
        sides = [2 * side - 1 for side in attention.window]
        biases = window.relative_position_bias_table.t().unflatten(1, sides)  # one per step between two tokens
        rows = attention.row(height // 2, width // 2).transpose(0, 1)  # (heads, M, H, W)
        found.append((biases.cpu(), rows.cpu(), torch.arange(len(rows))))
    return found
