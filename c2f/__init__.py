"""c2f: build, see, train and compare Conv2Former."""

from importlib.metadata import PackageNotFoundError, version

from c2f.models import Conv2Former, Conv2FormerConfig, ConvMod, DepthwiseConv2d, create_model, list_models

try:
    __version__ = version("c2f")
except PackageNotFoundError:  # a source tree that nobody installed
    __version__ = "0+unknown"

__all__ = ["Conv2Former", "Conv2FormerConfig", "ConvMod", "DepthwiseConv2d", "create_model", "list_models"]
