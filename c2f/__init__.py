"""c2f: build, see, train and compare Conv2Former."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from c2f.fast.accelerate import accelerate
    from c2f.models import Conv2Former, Conv2FormerConfig, ConvMod, create_model, list_models
    from c2f.training import recipes
    from c2f.training.data import load_dataset
    from c2f.training.loop import evaluate, predict, train
    from c2f.training.recipes import Recipe
    from c2f.training.run import load_run

try:
    __version__ = version("c2f")
except PackageNotFoundError:  # a source tree that nobody installed
    __version__ = "0+unknown"

__all__ = [
    "Conv2Former", "Conv2FormerConfig", "ConvMod", "Recipe", "accelerate", "create_model", "evaluate", "list_models",
    "load_dataset", "load_run", "predict", "recipes", "train",
]  # fmt: skip
_HOMES = {
    "Recipe": "training.recipes", "accelerate": "fast.accelerate", "evaluate": "training.loop",
    "load_dataset": "training.data", "load_run": "training.run", "predict": "training.loop", "train": "training.loop",
}  # fmt: skip
_MODULES = {name: name for name in ("device", "doctor", "fast", "files", "maps", "models", "report", "training")}
_MODULES["recipes"] = "training.recipes"


def __getattr__(name: str) -> Any:
    """Everything is imported with its first use: help is quick, and `c2f doctor` can say that torch is missing."""
    if name in _MODULES:
        return import_module(f"c2f.{_MODULES[name]}")
    if name in __all__:
        return getattr(import_module(f"c2f.{_HOMES.get(name, 'models')}"), name)
    raise AttributeError(f"module 'c2f' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
