"""Handwritten digits: real images that come with scikit-learn, for when there is no network."""

import numpy as np
import torch
from PIL import Image

from c2f.training.sources.dataset import Dataset, Split, describe
from c2f.training.sources.image_folder import fit

COUNT = 1797


def load(image_size: int) -> Dataset:
    """8x8 counts of ink from 0 to 16, here as grey images with three equal channels.

    Every fifth image of each class is held out: no seed, the same share of every class, 1442 and 355 images.
    """
    from sklearn.datasets import load_digits  # a second of import that nobody else has to wait for

    bunch = load_digits()
    small = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    grey = np.stack([np.asarray(fit(Image.fromarray(image), image_size)) for image in small])
    images = torch.from_numpy(grey)[:, None].repeat(1, 3, 1, 1)
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(10):
        held_out[torch.nonzero(labels == label).flatten()[4::5]] = True
    return describe(
        "digits",
        Split(images[~held_out], labels[~held_out]),
        Split(images[held_out], labels[held_out]),
        tuple(str(digit) for digit in range(10)),
        "scikit-learn load_digits (UCI, Optical Recognition of Handwritten Digits), every fifth of a class held out",
    )
