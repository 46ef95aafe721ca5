"""The modulation explorer: every number of every modulation map, down to the terms that it is the sum of."""

import html
import io
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from c2f.maps.modulation import Modulation, channels_by_effect, implied_attention, modulation_at, parts_of
from c2f.models import Conv2Former
from c2f.models.baselines import BlockAttention, Swin
from c2f.models.conv2former import ConvModParts
from c2f.models.inputs import model_device
from c2f.picture import INK, number, symmetric_limit
from c2f.training.augment import normalize
from c2f_course.widgets.base import Explorer, check_images, choice, numbered, offer, slider
from c2f_course.widgets.panel import Box, Panel, draw

KEPT = 64  # maps of so many (model, image, block) are kept, a few MB
LARGEST_UPLOAD = 64_000_000  # pixels
ALL_HEADS = "mean"
ONE_SCALE, OWN_SCALES = "one for U, A, V, A ⊙ V", "each its own"


class ModulationExplorer(Explorer):
    """Choose image, stage, block, channel and position; see how 121 terms become A, and what A does to V.

    Channels stand in the order of how much each does for the image, as `channels_by_effect` has it. U, A, V and A ⊙ V
    share one colour scale, or each has its own; kernel, terms and rows of attention have their own anyway. The green
    window is the one that lies over the map, drawn over the image at the map's stride; a stem whose patches overlap
    sees a few pixels more.

    Args:
        model: the Conv2Former to look into.
        images: (N, 3, H, W), uint8 or float from 0 to 1, before normalisation.
        names: one per image; by default their numbers.
        untrained: the same architecture with other weights; a control then goes from one to the other.
        swin: a Swin for images of this size: below, its attention row at the same place is set beside the implied row
            of ConvMod (the kernel, laid over the map around the position).
        upload: with a button for images of one's own, which join the others.

    Raises ValueError for images of another shape, names too few or too many, and an `untrained` of other dims, depths
    or kernels.
    """

    def __init__(
        self,
        model: Conv2Former,
        images: Tensor,
        names: Sequence[str] | None = None,
        untrained: Conv2Former | None = None,
        swin: Swin | None = None,
        *,
        upload: bool = False,
    ) -> None:
        import ipywidgets

        check_images(images, names)
        names = [f"image {i}" for i in range(len(images))] if names is None else list(names)
        self.models = {"trained": model} if untrained is None else {"trained": model, "untrained": untrained}
        for field in ("dims", "depths", "kernel_size"):
            if len(values := {getattr(each.config, field) for each in self.models.values()}) > 1:
                raise ValueError(f"the two models differ in {field} ({values}); give two of one architecture.")
        self.images, self.names, self.swin = images, names, swin
        self._run, self._run_swin = lru_cache(KEPT)(self._run), lru_cache(KEPT)(self._run_swin)
        self.image = choice(numbered(self.names), "image", 0)
        self.weights = choice(list(self.models), "weights")
        self.stage = choice(list(range(len(model.config.depths))), "stage", 0)
        self.block = choice(list(range(model.config.depths[0])), "block", 0)
        ranked = self._ranked()
        self.channel = ipywidgets.SelectionSlider(options=ranked, value=ranked[0][1], description="channel")
        height, width = self._map_size()
        row, column = modulation_at(model, self._input(model, 0), 0, 0).position
        self.row, self.column = slider("row", row, 0, height - 1), slider("column", column, 0, width - 1)
        self.head = choice(self._heads(), "Swin head", ALL_HEADS)
        self.scale = choice([ONE_SCALE, OWN_SCALES], "colours")
        self.upload = ipywidgets.FileUpload(accept="image/*", multiple=False, description="your own image")
        self.upload.observe(self._take, names="value")
        self.message = ipywidgets.HTML()
        controls = [self.image, self.stage, self.block, self.channel, self.row, self.column, self.scale]
        controls[1:1] = [self.weights] if len(self.models) > 1 else []
        controls += [] if swin is None else [self.head]
        self._assemble(controls, [self.upload, self.message] if upload else [])

    # ---- What is looked at

    @property
    def position(self) -> tuple[int, int]:
        return self.row.value, self.column.value

    @property
    def modulation(self) -> Modulation:
        """What the controls point at, as `modulation_at` gives it."""
        model = self.models[self.weights.value]
        place = self.stage.value, self.block.value, self.channel.value, self.position
        return modulation_at(model, self._input(model, self.image.value), *place, parts=self._parts()[0])

    def _input(self, model: torch.nn.Module, image: int) -> Tensor:
        """(1, 3, H, W), normalised, where the model is."""
        return normalize(self.images[image : image + 1].to(model_device(model)))

    def _parts(self) -> tuple[ConvModParts, list[int]]:
        """U, A, V, each (1, C, H, W), and the channels, that which does most first."""
        return self._run(self.weights.value, self.image.value, self.stage.value, self.block.value)

    def _run(self, weights: str, image: int, stage: int, block: int) -> tuple[ConvModParts, list[int]]:
        model = self.models[weights]
        parts = parts_of(model, self._input(model, image), stage, block)
        return parts, channels_by_effect(model.stages[stage].blocks[block].convmod, parts).tolist()

    def _map_size(self) -> Sequence[int]:
        return self._parts()[0].a.shape[2:]

    def _ranked(self) -> list[tuple[str, int]]:
        """The channels by how much they do, as ("rank: channel", channel)."""
        return [(f"no. {rank}: {channel}", channel) for rank, channel in enumerate(self._parts()[1], start=1)]

    def _heads(self) -> list[str | int]:
        return [ALL_HEADS] if self.swin is None else [ALL_HEADS, *range(self._swin_blocks()[0].weights.shape[2])]

    @torch.no_grad()
    def _run_swin(self, image: int) -> list[BlockAttention]:
        was_training = self.swin.training
        attention = self.swin.eval().attention_weights(self._input(self.swin, image))
        self.swin.train(was_training)
        return attention

    def _swin_blocks(self) -> list[BlockAttention]:
        """A Swin block and the next one, whose windows are shifted, of the stage that is looked at (or its last)."""
        attention = self._run_swin(self.image.value)
        blocks = [each for each in attention if each.stage == min(self.stage.value, attention[-1].stage)]
        first = min(self.block.value // 2 * 2, (len(blocks) - 1) // 2 * 2)
        return blocks[first : first + 2]

    # ---- When a control changes

    def _fit(self, change: Any) -> None:
        """Give block, channel, position and head the range that they have now, near to where they were."""
        rank, channel = self.channel.index, self.channel.value
        depth = self.models["trained"].config.depths[self.stage.value]
        offer(self.block, range(depth), min(self.block.value, depth - 1))
        ranked = self._ranked()
        offer(self.channel, ranked, channel if change["owner"] is self.image else ranked[min(rank, len(ranked) - 1)][1])
        for place, length in zip((self.row, self.column), self._map_size(), strict=True):
            if place.max != length - 1:  # the same place on a coarser or finer map
                now = place.value * length // (place.max + 1)
                place.max, place.value = length - 1, now
        heads = self._heads()
        offer(self.head, heads, self.head.value if self.head.value in heads else ALL_HEADS)

    def _take(self, _change: Any) -> None:
        """An uploaded file joins the images, or a sentence says why not."""
        if not self.upload.value:
            return
        file = self.upload.value[0]
        try:
            image = read_image(bytes(file["content"]), (self.images.shape[2], self.images.shape[3]))
        except ValueError as error:
            said = f"{file['name']}: {error}"
        else:
            image = image.to(self.images.device)
            image = image if self.images.dtype == torch.uint8 else image / 255
            self.images = torch.cat([self.images, image[None]])
            self.names.append(file["name"])
            with self._together():
                self.image.options = numbered(self.names)
            self.image.value = len(self.images) - 1
            said = f"{file['name']} is here, at {image.shape[1]}×{image.shape[2]} pixels."
        self.message.value = f'<span role="status">{html.escape(said)}</span>'
        self.upload.value = ()  # so that the same file may come again

    # ---- The picture

    def _draw(self) -> tuple[str, str]:
        m, name, shown = self.modulation, self.names[self.image.value], self.images[self.image.value]
        row, column = m.position
        height, width = m.kernel.shape
        here, centre = Box(row, column, 1, 1, INK), Box(height // 2, width // 2, 1, 1, INK)
        window = Box(row - height // 2, column - width // 2, height, width)
        limits = [symmetric_limit(values) for values in (m.u, m.a, m.v, m.fused)]
        if self.scale.value == ONE_SCALE:
            limits = [symmetric_limit(torch.stack([m.u, m.a, m.v, m.fused]))] * 4
        image = f"{name if len(name) <= 24 else name[:23] + '…'}\n{height}×{width} window"
        sums = f"window map W · U\nsums to {number(m.window.sum(), 3)}"
        implied = implied_attention(m.kernel, m.position, m.a.shape)
        rows = [
            [
                Panel(image, shown, boxes=[Box(*m.box(height // 2)), Box(*m.box(0))]),
                Panel(f"U\n{number(m.u[m.position], 3)} at □", m.u, limits[0], [window, here], sign="→"),
                Panel("kernel W", m.kernel, boxes=[centre], sign="×"),
                Panel(sums, m.window, boxes=[centre], sign="="),
            ],
            [
                Panel("the kernel, placed at □\n(implied row)", implied, boxes=[here]),
                Panel(f"modulation A\n{number(m.value, 3)} at □", m.a, limits[1], [here]),
                Panel(f"value V\n{number(m.v[m.position], 3)} at □", m.v, limits[2], [here], sign="⊙"),
                Panel(f"A ⊙ V\n{number(m.fused[m.position], 3)} at □", m.fused, limits[3], [here], sign="="),
            ],
        ]
        if self.swin is not None:
            head = "mean of heads" if self.head.value == ALL_HEADS else f"head {self.head.value}"
            rows.append([])
            for block in self._swin_blocks():
                (seen, token), shifted = self._attention(block), "shifted windows" if any(block.shift) else "windows"
                title = f"Swin, {shifted}\nstage {block.stage}, block {block.block}, {head}"
                rows[-1].append(Panel(title, seen, boxes=[token]))
        alt = self._describe(m)
        return draw(rows, alt), alt

    def _attention(self, block: BlockAttention) -> tuple[Tensor, Box]:
        """A Swin block's attention row (H, W) at the place of the position, of the chosen head or the mean of all; and
        which of its tokens that place is in."""
        places = zip(self.position, block.grid, self._map_size(), strict=True)
        token = [place * tokens // size for place, tokens, size in places]
        heads = block.row(*token)[0].cpu()
        row = heads.mean(dim=0) if self.head.value == ALL_HEADS else heads[self.head.value]
        return row, Box(*token, 1, 1, INK)

    def _describe(self, m: Modulation) -> str:
        row, column = m.position
        rank, channels = self.channel.index + 1, len(self.channel.options)
        weights = f" ({self.weights.value})" if len(self.models) > 1 else ""
        sides = "×".join(map(str, m.kernel.shape))
        told = (
            f"{self.names[self.image.value]}{weights}: in stage {m.stage}, block {m.block}, channel {m.channel} "
            f"(no. {rank} of {channels} by what it does), the {m.window.numel()} terms of the {sides} window map at "
            f"row {row}, column {column} sum to {number(m.window.sum(), 3)}; with the bias {number(m.bias, 3)} that is "
            f"A = {number(m.value, 3)}, which weighs V = {number(m.v[m.position], 3)} to "
            f"A ⊙ V = {number(m.fused[m.position], 3)}."
        )
        if self.swin is None:
            return told
        block = self._swin_blocks()[0]
        seen, _ = self._attention(block)
        y, x = divmod(int(seen.argmax()), seen.shape[1])
        return (
            f"{told} Swin's stage {block.stage}, block {block.block} attends from there to {int((seen > 0).sum())} "
            f"positions, most ({seen.max():.0%}) to row {y}, column {x}; ConvMod's window holds "
            f"{int((implied_attention(m.kernel, m.position, m.a.shape) != 0).sum())}."
        )


def read_image(content: bytes, size: tuple[int, int]) -> Tensor:
    """A picture file's bytes as (3, H, W) uint8: upright, in colour, its middle scaled to `size` = (H, W).

    Raises ValueError, in a sentence, for what is no picture, is damaged, or is too large.
    """
    try:
        with Image.open(io.BytesIO(content)) as opened:
            pixels = opened.width * opened.height
            image = ImageOps.exif_transpose(opened).convert("RGBA") if pixels <= LARGEST_UPLOAD else None
    except Exception:  # what a decoder makes of a damaged file can be any exception
        raise ValueError(
            "this cannot be read as an image; choose a PNG or JPEG file that other programs open."
        ) from None
    if image is None:
        raise ValueError(f"{pixels:,} pixels are too many; scale it down to at most {LARGEST_UPLOAD:,}.")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    height, width = size
    image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
