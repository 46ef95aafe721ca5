"""Trained weights that come with the kit, and what is said where they do not fit."""

import pytest
import torch
from PIL import Image

import c2f
from c2f.models.weights import provenance, save_half, weights_files, weights_folder
from c2f.training.augment import normalize

SMALL = {"dims": (8, 16), "depths": (1, 1), "kernel_size": 5}


@pytest.fixture
def shelf(monkeypatch, tmp_path):
    """A data folder with the weights of one small model."""
    monkeypatch.setenv("C2F_DATA", str(tmp_path))
    torch.manual_seed(0)
    model = c2f.create_model("conv2former_mini_cifar", **SMALL)
    about = {"overrides": {"num_classes": 10, **SMALL}, "test_accuracy": 0.5}
    save_half(weights_folder() / "conv2former_mini_cifar-toys.safetensors", model, about)
    return model


def test_weights_come_back_in_float32_to_half_precision(shelf):
    loaded = c2f.create_model("conv2former_mini_cifar", weights="toys", **SMALL)
    for name, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, shelf.state_dict()[name], rtol=1e-3, atol=1e-6)
    assert loaded.overrides == {"num_classes": 10, **SMALL}
    assert sorted(weights_files("conv2former_mini_cifar")) == ["cifar10", "toys"]  # the kit's own are there as well
    assert provenance("conv2former_mini_cifar", "toys")["test_accuracy"] == 0.5


def test_weights_that_are_not_there(shelf):
    there = "there: 'cifar10' or 'toys'"
    with pytest.raises(ValueError, match=rf"no weights 'birds' for conv2former_mini_cifar in .*C2F_DATA.*; {there}\."):
        c2f.create_model("conv2former_mini_cifar", weights="birds")
    with pytest.raises(ValueError, match=r"no weights 'toys' for swin_t .* there: none\."):
        c2f.create_model("swin_t", weights="toys")


def test_weights_of_a_model_that_was_made_otherwise(shelf):
    with pytest.raises(ValueError, match=r"are of a conv2former_mini_cifar with .*'kernel_size': 5"):
        c2f.create_model("conv2former_mini_cifar", weights="toys")
    with pytest.raises(ValueError, match=r"stem.0.weight is \(4, 3, 3, 3\) there and \(4, 1, 3, 3\) here"):
        c2f.create_model("conv2former_mini_cifar", weights="toys", in_channels=1, **SMALL)


def test_another_number_of_classes_takes_all_but_the_last_layer_and_says_so(shelf):
    with pytest.warns(UserWarning, match="tell 10 classes apart and this .* has 3: .* the last layer, head.fc, which"):
        model = c2f.create_model("conv2former_mini_cifar", num_classes=3, weights="toys", **SMALL)
    assert model.head.fc.out_features == 3
    for name, value in model.state_dict().items():
        if not name.startswith("head.fc"):
            torch.testing.assert_close(value, shelf.state_dict()[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["conv2former_mini_cifar", "swin_micro_cifar"])
def test_every_kind_of_model_can_keep_all_but_its_last_layer(name):
    with pytest.warns(UserWarning, match="but the last layer"):
        assert c2f.create_model(name, num_classes=7, weights="cifar10")(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


def test_the_transforms_are_what_training_does_with_images():
    pixels = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(c2f.models.transforms()(pixels), normalize(pixels))
    photograph = c2f.models.transforms(24)(Image.new("L", (60, 40), 128))
    assert photograph.shape == (3, 24, 24) and type(photograph) is torch.Tensor
    torch.testing.assert_close(photograph[0, 0, 0], torch.tensor((128 / 255 - 0.485) / 0.229))
    for mode in ("RGBA", "CMYK", "P", "LA"):
        assert c2f.models.transforms()(Image.new(mode, (60, 40))).shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("name", "weights"), [(name, weights) for name in c2f.list_models() for weights in weights_files(name)]
)
def test_the_kits_own_weights_load_and_say_where_they_are_from(name, weights):
    about = provenance(name, weights)
    model = c2f.create_model(name, weights=weights).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 32, 32)).isfinite().all()
    assert (weights_folder() / f"{name}-{weights}.safetensors").stat().st_size < 20e6
    for key in ("model", "data", "recipe", "test_accuracy", "hardware", "versions", "seconds", "command", "epochs"):
        assert key in about, key
