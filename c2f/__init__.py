"""c2f: build, see, train and compare Conv2Former."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from c2f.models import Conv2Former, Conv2FormerConfig, ConvMod, DepthwiseConv2d, create_model, list_models

try:
    __version__ = version("c2f")
except PackageNotFoundError:  # a source tree that nobody installed
    __version__ = "0+unknown"

__all__ = ["Conv2Former", "Conv2FormerConfig", "ConvMod", "DepthwiseConv2d", "create_model", "list_models"]


def __getattr__(name: str) -> Any:
    """Models come with their first use: help is quick, and `c2f doctor` can say that torch is missing."""
    if name == "models":
        return import_module("c2f.models")
    if name in __all__:
        return getattr(import_module("c2f.models"), name)
    raise AttributeError(f"module 'c2f' has no attribute {name!r}")
