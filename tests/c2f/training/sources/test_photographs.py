"""The photographs that come inside packages: there offline, in any size, and said where they are missing."""

import importlib.util

import pytest
import torch

from c2f.training.sources.dataset import DataError
from c2f.training.sources.photographs import PHOTOGRAPHS, load_photographs


@pytest.mark.parametrize("size", [32, 96])
def test_five_photographs_in_any_size(size: int) -> None:
    pytest.importorskip("skimage", reason="the photographs are scikit-image's: pip install 'c2f[lab]'")
    images, names = load_photographs(size)
    assert images.shape == (len(PHOTOGRAPHS), 3, size, size) and images.dtype == torch.uint8
    assert names == ("astronaut", "cat", "coffee", "rocket", "flower")
    assert images.float().flatten(1).std(dim=1).min() > 20  # none is a blank cut


def test_without_the_package_it_is_said_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="the astronaut is in skimage, which is not here: pip install"):
        load_photographs()
