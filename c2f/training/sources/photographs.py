"""A handful of real photographs that come inside packages, for pictures without a network.

scikit-image's astronaut (NASA), cat (Stéfan van der Walt, CC0), coffee (Rachel Michetti, CC0) and rocket (SpaceX, CC0),
and scikit-learn's flower (dany13, CC BY). Each is cut to its square that shows the subject, then scaled down.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from c2f.training.sources.dataset import DataError

# of each name: the module whose folder holds the file, the file, and the square to cut out: (left, top, side) in pixels
PHOTOGRAPHS = {
    "astronaut": ("skimage", "data/astronaut.png", (60, 0, 320)),
    "cat": ("skimage", "data/chelsea.png", (75, 0, 300)),
    "coffee": ("skimage", "data/coffee.png", (120, 20, 360)),
    "rocket": ("skimage", "data/rocket.jpg", (160, 60, 320)),
    "flower": ("sklearn", "datasets/images/flower.jpg", (160, 30, 380)),
}


class Photographs(NamedTuple):
    """Images (N, 3, size, size) uint8 and what each shows."""

    images: Tensor
    names: tuple[str, ...]


def load_photographs(size: int = 32) -> Photographs:
    """The five photographs, `size` pixels a side. Raises DataError where scikit-image is not installed."""
    from importlib.util import find_spec  # the packages themselves need not be imported

    images = []
    for name, (module, file, (left, top, side)) in PHOTOGRAPHS.items():
        spec = find_spec(module)
        path = Path(spec.submodule_search_locations[0], file) if spec else None
        if path is None or not path.is_file():
            raise DataError(f"the photograph of the {name} is in {module}, which is not here: pip install 'c2f[lab]'")
        square = Image.open(path).convert("RGB").crop((left, top, left + side, top + side))
        images.append(np.asarray(square.resize((size, size), Image.Resampling.LANCZOS)))
    return Photographs(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), tuple(PHOTOGRAPHS))
