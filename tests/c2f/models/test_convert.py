"""Agreement with the published implementations: tensors that they computed, in tests/golden, against ours."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from c2f.models.conv2former import VARIANTS, Conv2Former, Conv2FormerConfig
from c2f.models.convert import paper_state_dict, seed_state_dict

GOLDEN = Path(__file__).parents[2] / "golden"
# Relative. In float32 ours comes to about 2e-6, as theirs does; in float64 only theirs rounds, so that there is room to
# notice a small difference in design: a norm's epsilon of 1e-5 in place of 1e-6 is 3e-5 away.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-5}

SMALL = {"dims": (8, 16, 32, 64), "depths": (1, 1, 2, 1)}
CONFIGS = {
    "seed": replace(VARIANTS["conv2former_n_cifar"], **SMALL),
    "paper": replace(VARIANTS["conv2former_n"], num_classes=7, **SMALL),
}
CONVERT = {"seed": seed_state_dict, "paper": paper_state_dict}


@dataclass
class Golden:
    """One file: what went in, what came out of the published code, and our model with its weights."""

    arrays: dict[str, np.ndarray]
    config: Conv2FormerConfig
    convert: Callable[..., dict[str, Tensor]]
    model: Conv2Former

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): array for name, array in self.arrays.items() if name.startswith(prefix)}

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name])


@pytest.fixture(params=["seed", "paper"])
def golden(request: pytest.FixtureRequest) -> Golden:
    return load(request.param)


def load(name: str) -> Golden:
    with np.load(GOLDEN / f"{name}_conv2former.npz") as file:
        arrays = dict(file)
    golden = Golden(arrays, CONFIGS[name], CONVERT[name], Conv2Former(CONFIGS[name]).eval())
    golden.model.load_state_dict(golden.convert(golden.under("param/")), strict=True)
    return golden


def loss_of(golden: Golden, dtype: torch.dtype = torch.float32) -> Tensor:
    """The published loss: the mean over images; smoothed for the seed model, plain for the paper's."""
    logits = golden.model.to(dtype)(golden["input"].to(dtype))
    if "target" in golden.arrays:
        return F.cross_entropy(logits, golden["target"], label_smoothing=0.1)
    return F.cross_entropy(logits, torch.tensor([1, 3]))


def assert_agrees(ours: Tensor, theirs: Tensor, what: str) -> None:
    """Relative in norm, and at the worst element relative to the largest; each tensor by itself, however small."""
    assert ours.shape == theirs.shape, what
    error = (ours.double() - theirs.double()).abs()
    assert theirs.abs().max() > 0, f"{what} is all zeros, which would agree with anything"
    assert error.norm() <= TOLERANCE[ours.dtype] * theirs.double().norm(), what
    assert error.max() <= TOLERANCE[ours.dtype] * theirs.double().abs().max(), what


def test_the_seed_models_stages_agree():
    golden = load("seed")
    stages = golden.model.stages
    with torch.no_grad():
        outputs = list(golden.model.features(golden["input"]).values())
        # The published code downsamples at the end of a stage, ours at the beginning of the next.
        outputs[:3] = [stages[i + 1].downsample(outputs[i]) for i in range(3)]
    for i, output in enumerate(outputs):
        assert_agrees(output, golden[f"stage{i}"], f"stage{i}")


def test_logits_agree(golden: Golden):
    with torch.no_grad():
        assert_agrees(golden.model(golden["input"]), golden["logits"], "logits")


def test_one_of_the_images_is_not_square():
    assert load("paper")["input"].shape[-2:] == (96, 64)


def test_the_loss_agrees(golden: Golden):
    assert_agrees(loss_of(golden).detach(), golden["loss"], "loss")


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_every_gradient_agrees(golden: Golden, dtype: torch.dtype):
    loss_of(golden, dtype).backward()
    published = golden.under("grad/")
    buffers = {name: array for name, array in golden.under("param/").items() if name not in published}
    theirs = golden.convert(published | buffers)  # the conversion wants all names; buffers have no gradient
    parameters = dict(golden.model.named_parameters())
    assert len(parameters) == len(published)
    for name, parameter in parameters.items():
        assert_agrees(parameter.grad, theirs[name], name)


def test_tensors_do_as_well_as_arrays_and_are_copied(golden: Golden):
    params = {name: torch.from_numpy(array) for name, array in golden.under("param/").items()}
    state = golden.convert(params)
    for name, tensor in golden.model.state_dict().items():
        assert torch.equal(state[name], tensor)
    for tensor in params.values():
        tensor.zero_()
    assert all(torch.equal(state[name], tensor) for name, tensor in golden.model.state_dict().items())


def test_read_only_arrays_are_welcome(golden: Golden):
    params = golden.under("param/")
    for array in params.values():
        array.setflags(write=False)
    Conv2Former(golden.config).load_state_dict(golden.convert(params))  # warnings are errors here


def test_other_depths_convert_too():
    params = {
        name: array for name, array in load("seed").under("param/").items() if not name.startswith("layers.2.blocks.1.")
    }
    Conv2Former(replace(CONFIGS["seed"], depths=(1, 1, 1, 1))).load_state_dict(seed_state_dict(params))


def test_converting_draws_no_random_numbers(golden: Golden):
    before = torch.get_rng_state()
    golden.convert(golden.under("param/"))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ["epoch", "stem.weight", "layers.0.blocks.0.attn.q.weight", "param/fc1.weight"])
def test_a_name_that_is_not_the_published_models_is_refused(golden: Golden, name: str):
    with pytest.raises(ValueError, match=rf"the published model has no {name}; pass its parameters alone"):
        golden.convert(golden.under("param/") | {name: np.zeros(1, np.float32)})


def test_a_missing_name_is_told(golden: Golden):
    for name in list(golden.under("param/"))[::9]:
        params = golden.under("param/")
        del params[name]
        with pytest.raises(ValueError, match=r"nothing was given for our \S+; pass all parameters"):
            golden.convert(params)


def test_no_parameters_at_all_are_told_briefly(golden: Golden):
    with pytest.raises(ValueError, match=r"nothing was given for our stem\S+, \S+, \S+ and \d+ more; "):
        golden.convert({})


def test_the_other_models_names_are_refused():
    with pytest.raises(ValueError, match="the published model has no downsample_layers"):
        seed_state_dict(load("paper").under("param/"))
    with pytest.raises(ValueError, match="the published model has no "):
        paper_state_dict(load("seed").under("param/"))
