"""Turn the knobs of every augmentation, one at a time or a whole recipe, and see what a network would be shown."""

from collections.abc import Sequence

import torch
from torch import Tensor

from c2f.maps.picture import Picture
from c2f.training.augment import Augment, denormalize
from c2f.training.recipes import RECIPES
from c2f_course.figures.notebook_04 import AUGMENTATIONS, Drawn, draw_augmented, milder, plot_image_table
from c2f_course.widgets.base import Explorer, choice
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

        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or not len(images):
            raise ValueError(f"the images are {images.dtype}, {tuple(images.shape)}; give torch.uint8, (N, 3, H, W).")
        if len(names) != len(images):
            raise ValueError(f"there are {len(images)} images and {len(names)} names; give one each.")
        kinds = [*AUGMENTATIONS, *(RECIPE + name for name in RECIPES)]
        if start not in kinds:
            raise ValueError(f"there is no augmentation {start!r}; use one of {', '.join(kinds)}.")
        self.images, self.names = images, list(names)
        self.kind = choice(kinds, "what", start)
        self.strength = ipywidgets.FloatSlider(0, min=0, max=1, description="strength", readout_format=".1f")
        self.seed = ipywidgets.IntSlider(0, 0, 50, description="seed")
        self.image = choice([(name, i) for i, name in enumerate(names)], "image")
        self.kind.observe(self._fit_strength, names="value")  # before `_assemble`'s: it must find a strength there
        self._assemble([self.kind, self.strength, self.seed, self.image])
        self._fit_strength(None)

    def _fit_strength(self, _change: object) -> None:
        """Let the slider run from 0 to what the chosen one can bear, and set it to the usual."""
        if self.kind.value.startswith(RECIPE):
            usual, most, step = 1.0, STRONGEST_RECIPE, 0.1
        else:
            chosen = AUGMENTATIONS[self.kind.value]
            usual, most, step = chosen.usual, chosen.most, chosen.step
        with self._together():
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
        kind, strength = self.kind.value, self.strength.value
        name = self.names[self.image.value]
        if kind.startswith(RECIPE):
            what = f"all of recipe {kind.removeprefix(RECIPE)} at {strength:g} times its strength"
            label = "Labels: " if drawn.told[0].startswith("label") else "The label stays."
        else:
            chosen = AUGMENTATIONS[kind]
            number = f"{strength:.0%}" if chosen.meaning.startswith(("of the", "at most,")) else f"{strength:g}"
            what = f"{kind} ({number} {chosen.meaning})"
            label = chosen.label
        changed = (drawn.images - self.images[self.image.value] / 255).abs().mean().item()
        told = "; ".join(" ".join(text.removeprefix("label: ").split()) for text in drawn.told)
        listed = f"{told}." if not told.startswith("draw") else ""
        said = f"{label}{listed}" if label.endswith(": ") else f"{listed} {label}".strip()
        return (
            f"The {name} as it is and {DRAWS} draws of {what}, with seed {self.seed.value}. On average the "
            f"values change by {changed:.0%} of the way from black to white. {said}"
        )

    def _static(self) -> Picture:
        drawn = self._drawn()
        images = torch.cat([self.images[self.image.value][None] / 255, drawn.images])
        captions = [f"{self.names[self.image.value]}, as it is", *drawn.told]
        rows, texts = {" ": images[:COLUMNS], "  ": images[COLUMNS:]}, [captions[:COLUMNS], captions[COLUMNS:]]
        title = f"{self.kind.value}, strength {self.strength.value:g}"
        return Picture(plot_image_table(rows, captions=texts, title=title, side=1.5).figure, self.text)
