"""Turn the knobs of every augmentation, one at a time or a whole recipe, and see what a network would be shown."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from c2f.training.augment import Augment, denormalize
from c2f.training.recipes import RECIPES
from c2f_course.figures.notebook_04 import AUGMENTATIONS, Drawn, draw_augmented, milder
from c2f_course.widgets.base import Explorer, check_images, choice, numbered, slider
from c2f_course.widgets.panel import Panel, draw

DRAWS, COLUMNS = 9, 5
RECIPE = "recipe: "
STRONGEST_RECIPE = 1.5


class AugmentationExplorer(Explorer):
    """Choose an augmentation or a recipe, its strength, a seed and an image; see the image and nine draws.

    Args:
        images: (N, 3, H, W) uint8; with MixUp and CutMix they are each other's partners.
        names: what each of them is, which is its label too.
        start: one of `AUGMENTATIONS`, or "recipe: seed" and the like.

    Raises ValueError for images of another type or shape, and for names that do not fit.
    """

    def __init__(self, images: Tensor, names: Sequence[str], start: str = "rotation") -> None:
        import ipywidgets

        if images.dtype != torch.uint8:
            raise ValueError(f"the images are {images.dtype}; give torch.uint8.")
        check_images(images, names)
        kinds = [*AUGMENTATIONS, *(RECIPE + name for name in RECIPES)]
        if start not in kinds:
            raise ValueError(f"there is no augmentation {start!r}; use one of {', '.join(kinds)}.")
        self.images, self.names = images.cpu(), list(names)
        self.kind = choice(kinds, "what", start)
        self.strength = ipywidgets.FloatSlider(0, min=0, max=1, description="strength", readout_format=".1f")
        self.seed = slider("seed", 0, 0, 50)
        self.image = choice(numbered(names), "image")
        self._fit_strength()
        self._assemble([self.kind, self.strength, self.seed, self.image])

    def _fit(self, change: Any) -> None:
        if change["owner"] is self.kind:
            self._fit_strength()

    def _fit_strength(self) -> None:
        """Let the slider run from 0 to what the chosen one can bear, and set it to the usual."""
        chosen = AUGMENTATIONS.get(self.kind.value)
        usual, most, step = (chosen.usual, chosen.most, chosen.step) if chosen else (1.0, STRONGEST_RECIPE, 0.1)
        self.strength.max = max(most, self.strength.value)  # never below the value on the way
        self.strength.step, self.strength.value = step, usual
        self.strength.max = most

    def _draw(self) -> tuple[str, str]:
        drawn = self._drawn()
        alt = self._describe(drawn)
        panels = [Panel(f"{self.names[self.image.value]}\nas it is", self.images[self.image.value])]
        panels += [Panel(text, image) for text, image in zip(drawn.told, drawn.images, strict=True)]
        return draw([panels[:COLUMNS], panels[COLUMNS:]], alt), alt

    def _drawn(self) -> Drawn:
        """Nine draws for the chosen image. All images are in the batch, nine times, since some are mixed."""
        count, at, seed = len(self.images), self.image.value, self.seed.value
        batch, targets = self.images.repeat(DRAWS, 1, 1, 1), torch.eye(count).repeat(DRAWS, 1)
        if self.kind.value.startswith(RECIPE):
            recipe = milder(RECIPES[self.kind.value.removeprefix(RECIPE)](), self.strength.value)
            augment = Augment(recipe, tuple(batch.shape[-2:]), count)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                x, targets = augment(batch, torch.arange(count).repeat(DRAWS))
            if targets.ndim == 1:
                targets = torch.eye(count)[targets]
            drawn = Drawn(denormalize(x), targets, [f"draw {1 + i // count}" for i in range(len(x))])
        else:
            drawn = draw_augmented(self.kind.value, batch, targets, self.strength.value, seed)
        drawn = Drawn(drawn.images[at::count], drawn.targets[at::count], drawn.told[at::count])
        if (drawn.targets.max(dim=1).values < 0.995).any():
            return drawn._replace(told=[f"label: {self._label(target)}" for target in drawn.targets.tolist()])
        return drawn

    def _label(self, target: Sequence[float]) -> str:
        """The largest share on one line, the other one below it."""
        parts = sorted(zip(target, self.names, strict=True), reverse=True)
        return "\n+ ".join(f"{share:.0%} {name}" for share, name in parts if share >= 0.005)

    def _describe(self, drawn: Drawn) -> str:
        kind, strength, chosen = self.kind.value, self.strength.value, AUGMENTATIONS.get(self.kind.value)
        labelled = drawn.told[0].startswith("label: ")
        if chosen:
            number = f"{strength:.0%}" if chosen.meaning.startswith(("of the", "at most,")) else f"{strength:g}"
            what, label = f"{kind} ({number} {chosen.meaning})", chosen.label
        else:
            what = f"all of {kind.replace(':', '')} at {strength:g} times its strength"
            label = "Labels: " if labelled else "The label stays."
        listed = "; ".join(" ".join(text.removeprefix("label: ").split()) for text in drawn.told)
        listed = "" if listed.startswith("draw") else f"{listed}."
        changed = (drawn.images - self.images[self.image.value] / 255).abs().mean().item()
        return (
            f"The {self.names[self.image.value]} as it is and {DRAWS} draws of {what}, with seed {self.seed.value}. On "
            f"average the values change by {changed:.0%} of the way from black to white. "
            + (f"{label}{listed}" if label.endswith(": ") else f"{listed} {label}".strip())
        )
