"""What is built: Conv2Former, and the models that it is compared with."""

from dataclasses import fields, replace
from typing import Any

from torch import nn

from c2f.models.baselines import BASELINES, build_baseline
from c2f.models.conv2former import VARIANTS, Conv2Former, Conv2FormerConfig, ConvMod
from c2f.models.inputs import transforms
from c2f.models.weights import load_trained_weights

__all__ = ["VARIANTS", "Conv2Former", "Conv2FormerConfig", "ConvMod", "create_model", "list_models", "transforms"]


def list_models() -> list[str]:
    """The names that `create_model` takes."""
    return [*VARIANTS, *BASELINES]


def create_model(name: str, num_classes: int = 10, weights: str | None = None, **overrides: Any) -> nn.Module:
    """Build a model by name, its weights drawn from torch's global generator or, with `weights`, trained ones.

    Args:
        name: one of `list_models()`.
        num_classes: length of the logits.
        weights: the data set on which the kit's own weights were trained, such as "cifar10". They expect images that
            went through `c2f.models.transforms()`. With another `num_classes` all but the last layer is loaded.
        overrides: any field of `Conv2FormerConfig` for a Conv2Former (dims, depths, kernel_size, …); any setting in
            `c2f.models.baselines.BASELINES` for another model.

    Returns a module (N, 3, H, W) -> (N, num_classes) that remembers how it was made in `.name` and `.overrides`.
    Raises ValueError, with what is valid, for an unknown name or override, an invalid value, weights that do not fit.
    """
    if name in VARIANTS:
        settings = {field.name: getattr(VARIANTS[name], field.name) for field in fields(Conv2FormerConfig)}
    elif name in BASELINES:
        settings = BASELINES[name].keywords
    else:
        raise ValueError(f"there is no model {name!r}; the models are {', '.join(list_models())}.")
    if unknown := sorted(overrides.keys() - settings.keys()):
        raise ValueError(f"{name} has no {', '.join(unknown)}; it can be changed in {', '.join(sorted(settings))}.")
    for key, value in {**overrides, "num_classes": num_classes}.items():
        _check_type(key, value, settings.get(key, 10))
    try:
        if name in VARIANTS:
            model: nn.Module = Conv2Former(replace(VARIANTS[name], **{**overrides, "num_classes": num_classes}))
        else:
            model = build_baseline(name, num_classes, **overrides)
    except (RuntimeError, ArithmeticError) as error:
        changed = ", ".join(f"{key}={value}" for key, value in overrides.items())
        raise ValueError(f"{name} cannot be built with {changed}: {error}") from error
    if weights:
        load_trained_weights(model, name, weights)
    model.name, model.weights = name, weights
    model.overrides = {"num_classes": num_classes, **overrides}
    return model


def _check_type(key: str, value: Any, usual: Any) -> None:
    """Raise ValueError where a setting is of another type than `usual`, the one that it has otherwise."""

    def is_number(x: Any, *kinds: type) -> bool:
        return isinstance(x, kinds) and not isinstance(x, bool)

    if isinstance(usual, tuple):
        good = isinstance(value, tuple | list) and all(is_number(x, int) for x in value)
        said = f"whole numbers, one for each stage, such as {','.join(map(str, usual))}"
    elif isinstance(usual, str):
        good, said = isinstance(value, str), f"a word, such as {usual}"
    elif is_number(usual, int):
        good, said = is_number(value, int), f"a whole number, such as {usual}"
    else:
        good = is_number(value, int, float) or (value is None and key == "layer_scale")
        said = f"a number, such as {usual or 1e-6}"
    if not good:
        raise ValueError(f"{key} is {value!r}; use {said}.")
