"""Recipes: everything that decides how a model learns, in one frozen value.

Each named recipe is a function whose docstring is its receipt: command, hardware, time, figure reached.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

Optimizer = Literal["adam", "adamw", "muon"]
Schedule = Literal["cosine", "linear", "constant"]
Crop = Literal["none", "resized", "shift"]
Precision = Literal["float32", "tf32", "bf16", "fp16", "auto"]


@dataclass(frozen=True)
class Recipe:
    """How to train. Every field is a flag of `c2f train`; `dataclasses.replace` changes a recipe in Python."""

    epochs: int
    """Passes over the training images."""
    batch_size: int = 128
    """Images of one step, over all processes together; a last incomplete batch of an epoch is left out. Where there are
    fewer images, all of them make a batch."""
    balanced: bool = False
    """Draw each class equally often, however many images it has: those of a small one several times per epoch."""
    class_weights: bool = False
    """Weigh each image's loss by the inverse frequency of its class (1 on average); the test loss is not weighted."""

    optimizer: Optimizer = "adamw"
    """adam adds the L2 penalty to the gradient; adamw shrinks the weights themselves, and only matrices and kernels;
    muon orthogonalises the steps of hidden matrices and leaves the rest to adamw."""
    lr: float = 1e-3
    """Learning rate at the top of the schedule."""
    muon_lr: float = 0.02
    """With muon, the learning rate of the hidden matrices at the top of the schedule."""
    beta2: float = 0.999
    """How long Adam and AdamW remember the squares of gradients; a short training wants a shorter memory."""
    weight_decay: float = 0.0
    """Strength of the optimizer's weight decay."""
    schedule: Schedule = "cosine"
    """What the rate does after the warm-up: fall to 0 along a half cosine or a line, step by step, or stay."""
    warmup_epochs: float = 0.0
    """Epochs (or a part of one) over which the rate first rises linearly."""
    clip_grad: float = 0.0
    """Largest norm that the gradient may have; 0 leaves it alone."""

    label_smoothing: float = 0.1
    """Share of the target spread over all classes; in the loss of both splits."""
    drop_path: float | None = None
    """Stochastic depth of the last block; None keeps what the model was created with."""
    ema: float = 0.0
    """Decay per step of an exponential moving average of the weights, which is then what is evaluated; 0 is off. The
    decay of step n is at most (1 + n) / (10 + n), so that the first weights are soon forgotten."""

    color_jitter: float = 0.0
    """Brightness, contrast and saturation each change by up to this share."""
    image_mixup: float = 0.0
    """Probability that an image is blended with another one while its label stays (the seed recipe's oddity)."""
    crop: Crop = "none"
    """resized: a random part, scaled back; shift: pad by reflection, then cut a window."""
    crop_scale: float = 0.6
    """Smallest share of the area that a resized crop keeps."""
    crop_padding: int = 4
    """Pixels by which a shift may move the image."""
    erasing: float = 0.0
    """Probability that a random rectangle is erased."""
    flip: float = 0.0
    """Probability of a horizontal flip; leave it 0 where mirror images mean something else, as with digits."""
    rotation: float = 0.0
    """Largest rotation in degrees, either way."""
    rand_augment: int = 0
    """Magnitude of RandAugment, 1 to 10; 0 is off."""
    mixup: float = 0.0
    """Alpha of MixUp's Beta distribution, with soft labels; 0 is off."""
    cutmix: float = 0.0
    """Alpha of CutMix's Beta distribution, with soft labels; 0 is off. With both on, each image gets one of the two."""
    mix_share: float = 1.0
    """Share of the steps, the first ones, that MixUp and CutMix take part in: the last ones see images as they are."""

    small_share: float = 0.0
    """Share of the steps, the first ones, on images scaled down by small_scale: coarse things are learned first."""
    small_scale: float = 0.75
    """Height and width of the images of those steps as a part of the whole, to the nearest size that a model takes."""

    precision: Precision = "float32"
    """bf16 and fp16 run the forward pass under autocast, fp16 with a scaled loss; weights and optimizer stay float32.
    tf32: on NVIDIA GPUs the factors of products and convolutions are rounded to 10 bits; float32 never does that.
    auto: bf16 where it is faster, fp16 on a GPU that only imitates bf16."""
    channels_last: bool = False
    """Store images and weights with the channels innermost."""
    compile: bool = False
    """Run the model through torch.compile."""
    seed: int = 42
    """Decides the order of images, every augmentation and every dropped path."""

    def __post_init__(self) -> None:
        def check(names: str, good: Callable[[Any], bool], advice: str) -> None:
            for name in names.split():
                value = getattr(self, name)
                if value is not None and not good(value):
                    raise ValueError(f"recipe: {name} is {value!r}; {advice}.")

        check("epochs batch_size", lambda x: x >= 1, "use at least 1")
        check("lr muon_lr", lambda x: 0 < x < math.inf, "use a positive number such as 0.001")
        positive = "weight_decay warmup_epochs clip_grad rotation mixup cutmix crop_padding"
        check(positive, lambda x: 0 <= x < math.inf, "use 0 (off) or more")
        check("label_smoothing ema drop_path beta2 small_share", lambda x: 0 <= x < 1, "use at least 0, less than 1")
        check("image_mixup erasing flip color_jitter", lambda x: 0 <= x <= 1, "use a number from 0 to 1")
        check("mix_share crop_scale small_scale", lambda x: 0 < x <= 1, "use a share above 0, at most 1")
        check("rand_augment", lambda x: 0 <= x <= 10, "use 1 to 10, or 0 for off")
        for name, kind in {"optimizer": Optimizer, "schedule": Schedule, "crop": Crop, "precision": Precision}.items():
            check(name, get_args(kind).__contains__, f"use {' or '.join(get_args(kind))}")
        if self.balanced and self.class_weights:
            raise ValueError("recipe: balanced and class_weights each make up for rare classes; use one of them.")
        if self.warmup_epochs >= self.epochs:
            warmup = f"recipe: a warm-up of {self.warmup_epochs} epochs leaves nothing of {self.epochs}"
            raise ValueError(f"{warmup}; shorten it or train longer.")

    def learning_rate(self, step: int, steps_per_epoch: int) -> float:
        """The rate of step `step`, counted from 0: a pure function, so that it can be drawn before it is used."""
        warmup = round(self.warmup_epochs * steps_per_epoch)
        if step < warmup:
            return self.lr * (step + 1) / warmup
        done = (step - warmup) / max(1, self.epochs * steps_per_epoch - warmup)
        shares = {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1}
        return self.lr * shares[self.schedule]


def seed() -> Recipe:
    """The published recipe of the CIFAR-10 notebook that this kit reproduces, to the letter.

    Command: c2f train --model conv2former_n_cifar --data cifar10 --recipe seed --out runs/seed
    Published: Conv2Former-N 0.82 validation accuracy after 50 epochs; hardware and time not said.
    Here, one epoch only: 39.2 % on CIFAR-10 (JPEG copy), one thread of a busy Xeon, 60 min (data/results/one_epoch).
    """
    return Recipe(
        epochs=50, batch_size=256,
        optimizer="adam", lr=1e-3,
        weight_decay=1e-5,  # as an L2 penalty on every parameter, norms and biases too
        label_smoothing=0.1,  # the original smooths the validation loss as well, and so does the loop
        drop_path=0.1, color_jitter=0.2,
        # Odd: the notebook lists PaddleX's MixupImage here. It mixes pairs of images, and given one image, as there,
        # returns it as it is. So nothing is blended; `image_mixup=1` would blend, and leave the labels.
        image_mixup=0.0,
        crop="resized", crop_scale=0.6,
        erasing=0.5,  # odd: it comes before flip and rotation, so the erased rectangle turns with the image
        flip=0.5, rotation=20.0, seed=42,
    )  # fmt: skip


def digits() -> Recipe:
    """A first look: the handwritten digits in a minute, as in notebook 00; nothing is flipped, since digits are not.

    Command: c2f train --model conv2former_mini_cifar --data digits --recipe digits --out runs/digits
    Hardware and time: two cores of an AMD EPYC without a GPU, busy with other work, 91 s.
    Reached: 98.9 % of 355 test digits, last epoch, seed 42.
    """
    return Recipe(
        epochs=6, batch_size=48, lr=3e-3, weight_decay=0.05, warmup_epochs=0.5,
        drop_path=0.0, crop="shift", crop_padding=2,
        channels_last=True,
    )  # fmt: skip


def laptop() -> Recipe:
    """Ten to twenty minutes on a laptop without a GPU, meant for `conv2former_mini_cifar`.

    Command: c2f train --model conv2former_mini_cifar --data cifar10 --recipe laptop --out runs/mini
    Hardware and time: two cores of an AMD EPYC without a GPU, which is faster in bf16 and so trained in it, 8 to 9 min.
    Reached: 83.7, 84.1 and 83.9 % on CIFAR-10 (JPEG copy), last epoch, seeds 42, 43 and 44 (data/results/laptop).
    """
    return Recipe(
        epochs=10, batch_size=128, optimizer="muon", lr=0.01, muon_lr=0.02, beta2=0.99, schedule="linear",
        warmup_epochs=0.1, label_smoothing=0.1, drop_path=0.0,
        crop="shift", crop_padding=2, flip=0.5,
        small_share=0.6, precision="auto", channels_last=True,
    )  # fmt: skip


def hour() -> Recipe:
    """At most an hour on a laptop without a GPU, for `conv2former_mini_cifar` at one and a half times its width.

    Command: c2f train --model conv2former_mini_cifar --set dims=96,192,384 --data cifar10 --recipe hour --out runs/hour
    Hardware and time: two cores of an AMD EPYC without a GPU, in bf16, 29 min, evaluations and start included.
    Reached: 88.0 % on CIFAR-10 (JPEG copy), last epoch, seed 42 (data/results/laptop/conv2former_mini_cifar-wide).
    """
    return replace(
        laptop(), epochs=22, batch_size=256, lr=0.014, muon_lr=0.03, weight_decay=0.05,
        crop_padding=4, mixup=0.2, cutmix=1.0,
        mix_share=0.8,  # He et al. 2019, arXiv:1909.09148: end on images as they are at inference
        small_share=0.65,
    )  # fmt: skip


def gpu() -> Recipe:
    """The paper's set of augmentations in 50 epochs on one GPU, for any model of this kit.

    Command: c2f train --model conv2former_n_cifar --data cifar10 --recipe gpu --out runs/gpu
    Hardware, time and figure reached: not measured.
    """
    return Recipe(
        epochs=50, batch_size=512, lr=2e-3, weight_decay=0.05, warmup_epochs=3, clip_grad=1.0,
        label_smoothing=0.1, drop_path=0.1, ema=0.999,
        crop="shift", crop_padding=4, flip=0.5, erasing=0.25, rand_augment=9, mixup=0.8, cutmix=1.0,
        precision="auto", channels_last=True, compile=True,
    )  # fmt: skip


RECIPES: dict[str, Callable[[], Recipe]] = {"seed": seed, "digits": digits, "laptop": laptop, "hour": hour, "gpu": gpu}
