"""The effective receptive field of any stage of some models, to be compared at the press of a key."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from c2f.maps.receptive_field import (
    FAINTEST,
    HEAT,
    ReceptiveField,
    colour_scale,
    effective_receptive_field,
)
from c2f.models import Conv2Former
from c2f.models.inputs import model_device
from c2f.picture import SKY, WINDOW
from c2f.training.augment import normalize
from c2f_course.widgets.base import Explorer, check_images, choice, offer
from c2f_course.widgets.panel import Box, Panel, draw


class ReceptiveFieldExplorer(Explorer):
    """Which model, which stage, logarithmic or linear colours; the radii that hold 50 % and 90 % are in the sentence.

    Args:
        models: Conv2Formers by the name to show; any kernel sizes and depths.
        images: (N, 3, H, W), uint8 or float from 0 to 1, before normalisation; the gradients of all are averaged, and
            the first is the one that is seen through the field.

    Raises ValueError for no model and for images of another shape.
    """

    def __init__(self, models: Mapping[str, Conv2Former], images: Tensor) -> None:
        if not models:
            raise ValueError("there is no model to explore; give at least one, by its name.")
        check_images(images)
        self.models, self.images = dict(models), images
        # All of them at once, so that no key press has to wait for a gradient.
        self._fields = {}
        for name, model in self.models.items():
            x = normalize(images.to(model_device(model)))
            for stage in range(len(model.stages)):
                self._fields[name, stage] = effective_receptive_field(model, x, stage)
        names = list(self.models)
        self.model = choice(names, "model", names[0])
        self.stage = choice(self._stages(), "stage", self._stages()[-1])
        self.colours = choice(["logarithmic", "linear"], "colours")
        self._assemble([self.model, self.stage, self.colours])

    @property
    def field(self) -> ReceptiveField:
        """What is shown now."""
        return self._fields[self.model.value, self.stage.value]

    def _stages(self) -> list[int]:
        return list(range(len(self.models[self.model.value].stages)))

    def _fit(self, change: Any) -> None:
        offer(self.stage, self._stages(), min(self.stage.value, self._stages()[-1]))

    def _draw(self) -> tuple[str, str]:
        field, log, count = self.field, self.colours.value == "logarithmic", len(self.images)
        weights = torch.from_numpy(colour_scale(log)((field.weights / field.weights.max()).numpy()).data)
        # Three colours that are seen on black and on yellow.
        boxes = [Box(*field.extent, "white"), Box(*field.box(0.9), WINDOW), Box(*field.box(0.5), SKY)]
        image = self.images[0] / 255 if self.images.dtype == torch.uint8 else self.images[0]
        scale = f"1 is most, 0 is 1/{1 / FAINTEST:,.0f}" if log else "1 is most"
        panels = [
            Panel(f"seen from stage {field.stage}\n50 % and 90 % outlined", self.images[0], boxes=boxes[1:]),
            Panel(f"share of the gradient\n{scale}", weights, 1.0, boxes, HEAT),
            Panel("the image, as bright\nas it counts", image.cpu() * weights),
        ]
        reach, (row, column) = max(field.extent.height, field.extent.width), field.position
        sentence = (
            f"{self.model.value}, stage {field.stage}, position row {row}, column {column}: half of the gradient lies "
            f"within {field.radius(0.5):g} pixels of the centre and 90 % within {field.radius(0.9):g}, by {count} "
            f"image{'s' * (count > 1)} of {'×'.join(map(str, field.weights.shape))}; the convolutions could reach "
            f"{reach / 2:g} pixels, {reach}×{reach} in all."
        )
        return draw([panels], sentence), sentence
