"""Augmentation in batches, on the device that trains, with every random parameter drawn per image.

Each operation is a plain function from images to images of the same shape, float32 in [0, 1] until `normalize`, the
last step of all. Random numbers come from torch's global generators only, so that after `torch.manual_seed(s)` the
result is a function of the images, the labels and s. Nothing loops over images, and nothing waits for the device.

The operations are here, and not a library's, for two reasons. torchvision draws one set of parameters per call, which
in a batch gives all images the same; kornia draws the order of colours and the RandAugment operations once per batch,
and takes twice as long for the `seed` set at 32×32. What does the same to several images (RandAugment's operations)
is torchvision's here too, and the tests compare the rest with it.

Shapes: N images, C channels, H x W pixels, K classes. `images` are (N, C, H, W), C is 3 where colours are changed, and
soft labels are (N, K). A suffix of a name is a shape: factors_n has one factor per image.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as V

from c2f.models.inputs import IMAGENET_MEAN, IMAGENET_STD
from c2f.training.recipes import Recipe


def normalize(images: Tensor) -> Tensor:
    """The input of a model: per channel, less ImageNet's mean, by its standard deviation; for grey, their average.

    Shape: uint8, or float in [0, 1], (N, 3, H, W) or (N, 1, H, W) -> float32 of the same shape.
    """
    mean, std = _per_channel(images)
    images = images / 255 if images.dtype == torch.uint8 else images.float()
    return (images - mean).div_(std)


def denormalize(x: Tensor) -> Tensor:
    """Back to colours in [0, 1], for display. Shape: (N, 3, H, W) or (3, H, W), unchanged."""
    mean, std = _per_channel(x)
    return (x * std + mean).clamp_(0, 1)


def _per_channel(like: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = torch.tensor([IMAGENET_MEAN, IMAGENET_STD], device=like.device)[:, :, None, None]
    return (mean, std) if like.shape[-3] == 3 else (mean.mean(0, keepdim=True), std.mean(0, keepdim=True))


class Augment:
    """A recipe's augmentation of a batch, one operation after the other, in the order of the PaddlePaddle notebook.

    Shape: images uint8 (N, 3, H, W) and labels int64 (N,) -> normalised images float32 (N, 3, H, W) and targets:
    the labels, or with MixUp or CutMix on, soft ones, float32 (N, K), that sum to 1.

    Args:
        recipe: whose augmentation fields are used; a field at 0 (or "none") costs nothing.
        image_size: (H, W) of the images in pixels; they keep that size.
        num_classes: K, the width of soft targets.

    A call with mix=False leaves out MixUp and CutMix, and with them the soft targets.

    Raises ValueError for a shift that reflection cannot fill, and for images of another type or size than announced.
    """

    def __init__(self, recipe: Recipe, image_size: tuple[int, int], num_classes: int) -> None:
        self.recipe, self.image_size, self.num_classes = recipe, tuple(image_size), num_classes
        self.per_channel: dict[torch.device, tuple[Tensor, Tensor]] = {}  # mean and standard deviation
        if recipe.crop == "shift" and recipe.crop_padding >= min(image_size):
            raise ValueError(
                f"crop_padding is {recipe.crop_padding}, but images of {image_size[0]} x {image_size[1]} pixels can be "
                f"padded by reflection only up to {min(image_size) - 1}; choose that or less."
            )

    @torch.no_grad()
    def __call__(self, images_u8: Tensor, labels: Tensor, mix: bool = True) -> tuple[Tensor, Tensor]:
        if images_u8.dtype != torch.uint8 or images_u8.ndim != 4 or tuple(images_u8.shape[-2:]) != self.image_size:
            height, width = self.image_size
            raise ValueError(
                f"augmentation was given images of {images_u8.dtype}, shape {tuple(images_u8.shape)}; it was set up "
                f"for torch.uint8, shape (N, 3, {height}, {width}): convert them, or create another Augment."
            )
        recipe, images, targets = self.recipe, images_u8 / 255, labels

        # The PaddlePaddle notebook rounds to whole grey levels after each of these steps; here nothing is rounded.
        steps = (
            (color_jitter, recipe.color_jitter),
            (image_mixup, recipe.image_mixup),
            (random_resized_crop, recipe.crop == "resized" and recipe.crop_scale),
            (random_shift, recipe.crop == "shift" and recipe.crop_padding),
            (rand_augment, recipe.rand_augment),  # not in the notebook; here, before anything is erased
            # Odd in the notebook: it erases before the mean is subtracted, so the rectangle is black and not average,
            # and before flip and rotation, so that the rectangle turns with the image.
            (random_erasing, recipe.erasing),
            (random_flip, recipe.flip),
            # Odd too: rotation is last, so its black corners are seen, and by nearest neighbour, so edges are jagged.
            (random_rotation, recipe.rotation),
        )
        for operation, strength in steps:
            if strength:
                images = operation(images, strength)
        if mix and (recipe.mixup or recipe.cutmix):
            one_hot = (labels[:, None] == torch.arange(self.num_classes, device=labels.device)).float()
            images, targets = mixup_or_cutmix(images, one_hot, recipe.mixup, recipe.cutmix)
        if images.device not in self.per_channel:  # copied to the device once
            self.per_channel[images.device] = _per_channel(images)
        mean, std = self.per_channel[images.device]
        return (images - mean).div_(std), targets


# ---- Random numbers: one per image, or one set per image, drawn on the images' device


def uniform(images: Tensor, low: float = 0.0, high: float = 1.0, sets: int | None = None) -> Tensor:
    """Uniform numbers from low to high. Shape: (N,), or (sets, N)."""
    shape = (len(images),) if sets is None else (sets, len(images))
    return torch.rand(shape, device=images.device) * (high - low) + low


def chance(images: Tensor, probability: float) -> Tensor:
    """True for about that share of the images. Shape: bool (N,)."""
    return uniform(images) < probability


def beta(images: Tensor, alpha: float) -> Tensor:
    """Draw from the Beta(alpha, alpha) distribution. Shape: (N,)."""
    where = "cpu" if images.device.type == "mps" else images.device  # MPS has no Gamma distribution to draw from
    alphas = torch.full((len(images),), float(alpha), device=where)
    return torch.distributions.Beta(alphas, alphas, validate_args=False).sample().to(images.device)  # to validate waits


def other_images(images: Tensor) -> Tensor:
    """A random order of the batch: the index of each image's partner (once in a while, itself). Shape: int64 (N,)."""
    return uniform(images).argsort()


def _per_image(values_n: Tensor) -> Tensor:
    return values_n[:, None, None, None]


# ---- Colour

BRIGHTNESS, CONTRAST, SATURATION = range(3)


def blend(reference: Tensor, images: Tensor, factors_n: Tensor) -> Tensor:
    """Go from a reference (factor 0) to the image (factor 1) and beyond, within [0, 1].

    Brightness, contrast and saturation are this alone: they differ in the reference, which is black, the mean grey,
    and the grey version.
    """
    return torch.lerp(reference, images, _per_image(factors_n)).clamp_(0, 1)


def adjust_color(images: Tensor, which_n: Tensor, factors_n: Tensor) -> Tensor:
    """Change one of BRIGHTNESS, CONTRAST and SATURATION of each image, by a factor; 1 changes nothing."""
    grey_n1hw = V.rgb_to_grayscale(images)
    mean_n111 = grey_n1hw.mean((1, 2, 3), keepdim=True)
    reference = grey_n1hw * _per_image(which_n == SATURATION) + mean_n111 * _per_image(which_n == CONTRAST)
    return blend(reference, images, factors_n)


def color_jitter(images: Tensor, amount: float) -> Tensor:
    """Change brightness, contrast and saturation, each by a factor from 1 - amount to 1 + amount.

    Every image has its own order of the three, too; it matters only where colours are cut off at black or white.
    """
    factors_3n = uniform(images, max(0.0, 1 - amount), 1 + amount, sets=3)
    order_3n = uniform(images, sets=3).argsort(dim=0)
    for which_n in order_3n:
        images = adjust_color(images, which_n, factors_3n.gather(0, which_n[None])[0])
    return images


def image_mixup(images: Tensor, probability: float) -> Tensor:
    """Blend with another image of the batch, and leave the labels as they are: noise that looks like an image.

    Each image keeps a share drawn from Beta(1.5, 1.5), the defaults of PaddleX's `MixupImage`, made for detection.
    Odd: `MixupImage` (PaddleX 2.1.0) mixes a pair of images and returns a single one as it is, and a pipeline of
    transforms passes it a single one.
    """
    kept_n = torch.where(chance(images, probability), beta(images, alpha=1.5), 1.0)
    return torch.lerp(images[other_images(images)], images, _per_image(kept_n))


# ---- Rectangles: what is cropped, erased, or cut from another image


class Boxes(NamedTuple):
    """One rectangle per image, in whole pixels, each field float32 (N,). It may reach beyond the image, or be empty."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor

    def mask(self, height: int, width: int) -> Tensor:
        """True inside. Shape: bool (N, 1, H, W)."""
        rows, columns = (torch.arange(size, device=self.top.device) for size in (height, width))
        inside_nh = (rows >= self.top[:, None]) & (rows < (self.top + self.height)[:, None])
        inside_nw = (columns >= self.left[:, None]) & (columns < (self.left + self.width)[:, None])
        return inside_nh[:, None, :, None] & inside_nw[:, None, None, :]


def random_boxes(images: Tensor, area: tuple[float, float], ratio: tuple[float, float]) -> Boxes:
    """Draw a rectangle per image, as torchvision's RandomResizedCrop and RandomErasing do for square images.

    `area` is the least and greatest share of the image's area, `ratio` those of width : height, relative to the image's
    own and uniform in the logarithm. Of ten rectangles the first that fits the image counts; if none does, it is empty.
    """
    height, width = images.shape[-2:]
    shares = uniform(images, *area, sets=10)
    ratios = uniform(images, *map(math.log, ratio), sets=10).exp()
    heights, widths = ((shares / ratios).sqrt() * height).round(), ((shares * ratios).sqrt() * width).round()

    fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    first = fits.int().argmax(dim=0, keepdim=True)
    heights_n, widths_n = ((sides * fits).gather(0, first)[0] for sides in (heights, widths))
    last_top, last_left = height - heights_n, width - widths_n
    top_n = (uniform(images) * (last_top + 1)).floor().minimum(last_top)  # the product can round up to last + 1
    left_n = (uniform(images) * (last_left + 1)).floor().minimum(last_left)
    return Boxes(top_n, left_n, heights_n, widths_n)


def resize_boxes(images: Tensor, boxes: Boxes) -> Tensor:
    """Scale the inside of each box to the size of the whole image, bilinearly."""

    def source(start_n: Tensor, length_n: Tensor, size: int) -> Tensor:
        """Where each of `size` pixels is read, from -1 to 1; not beyond the centres of the box's outermost pixels."""
        steps = (torch.arange(size, device=images.device) + 0.5) / size
        offset_nl = (steps * length_n[:, None] - 0.5).clamp(min=0).minimum(length_n[:, None] - 1)
        return (2 * (start_n[:, None] + offset_nl) + 1) / size - 1

    height, width = images.shape[-2:]
    y_nh, x_nw = source(boxes.top, boxes.height, height), source(boxes.left, boxes.width, width)
    grid_nhw2 = torch.stack(torch.broadcast_tensors(x_nw[:, None, :], y_nh[:, :, None]), dim=-1)
    return F.grid_sample(images, grid_nhw2, align_corners=False)


def random_resized_crop(images: Tensor, smallest: float) -> Tensor:
    """Cut out a rectangle of at least that share of the area, 3:4 to 4:3 in shape, and scale it to the image's size."""
    boxes = random_boxes(images, area=(smallest, 1.0), ratio=(3 / 4, 4 / 3))
    nothing_fits = boxes.height == 0
    whole = zip((0, 0, *images.shape[-2:]), boxes, strict=True)
    return resize_boxes(images, Boxes(*(torch.where(nothing_fits, float(all_of), side) for all_of, side in whole)))


def shrink(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale images down to (H, W), bilinearly and without aliasing."""
    if images.device.type != "mps":
        return F.interpolate(images, size=size, mode="bilinear", antialias=True)
    # MPS learned this only after PyTorch 2.6; it is linear in rows and in columns, so two matrices do it as well.
    sides = zip(size, images.shape[-2:], strict=True)
    rows, columns = (shrink(torch.eye(old)[None, None], (new, old))[0, 0].to(images.device) for new, old in sides)
    return rows @ images @ columns.T


def random_erasing(images: Tensor, probability: float) -> Tensor:
    """Paint a rectangle over some of the images: 2 to 33 % of the area, 3:10 to 10:3, black.

    Zhong et al., Random Erasing, arXiv 1708.04896.
    """
    boxes = random_boxes(images, area=(0.02, 0.33), ratio=(0.3, 1 / 0.3))
    chosen_n111 = _per_image(chance(images, probability))
    return images.masked_fill(boxes.mask(*images.shape[-2:]) & chosen_n111, 0)


# ---- Geometry


def random_flip(images: Tensor, probability: float) -> Tensor:
    """Mirror some of the images, left to right."""
    return torch.where(_per_image(chance(images, probability)), images.flip(-1), images)


def shift(images: Tensor, down_n: Tensor, right_n: Tensor, padding: int) -> Tensor:
    """Move each image by whole pixels, at most `padding` either way; its mirror image fills what becomes free."""
    height, width = images.shape[-2:]
    padded = F.pad(images, [padding] * 4, mode="reflect")
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view, (N, C, 2 padding + 1, 2 padding + 1, H, W)
    return windows[torch.arange(len(images), device=images.device), :, padding - down_n, padding - right_n]


def random_shift(images: Tensor, padding: int) -> Tensor:
    """Move each image by up to `padding` pixels, down or up and right or left."""
    down_n, right_n = torch.randint(-padding, padding + 1, (2, len(images)), device=images.device)
    return shift(images, down_n, right_n, padding)


def rotate(images: Tensor, degrees_n: Tensor, mode: str = "nearest") -> Tensor:
    """Turn each image counter-clockwise about its centre; corners that become free are black."""
    cos, sin, zero = degrees_n.deg2rad().cos(), degrees_n.deg2rad().sin(), torch.zeros_like(degrees_n)
    aspect = images.shape[-2] / images.shape[-1]  # the axes of the grid run from -1 to 1
    matrices_n23 = torch.stack([cos, -sin * aspect, zero, sin / aspect, cos, zero], dim=1).view(-1, 2, 3)
    grid_nhw2 = F.affine_grid(matrices_n23, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid_nhw2, mode=mode, align_corners=False)


def random_rotation(images: Tensor, degrees: float) -> Tensor:
    """Turn each image by up to that many degrees, either way."""
    return rotate(images, uniform(images, -degrees, degrees))


# ---- RandAugment

RAND_AUGMENT = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate",
    "brightness", "color", "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
"""The fourteen operations: torchvision's, and in its ranges."""


def rand_augment(images: Tensor, magnitude: float) -> Tensor:
    """Apply two of the fourteen, one after the other, drawn anew for each image, each with a random sign.

    Cubuk et al., RandAugment, arXiv 1909.13719. All have one magnitude, up to 10 (the strongest).
    """
    for _ in range(2):
        which_n = torch.randint(len(RAND_AUGMENT), (len(images),), device=images.device)
        images = apply_operations(images, which_n, torch.where(chance(images, 0.5), 1.0, -1.0), magnitude / 10)
    return images


def apply_operations(images: Tensor, which_n: Tensor, sign_n: Tensor, strength: float) -> Tensor:
    """Apply to each image its operation, by its number in RAND_AUGMENT: every operation to all, and keep what counts.

    So the device need not be asked which operations were drawn, and is given few kernels, each with much to do.
    A shear is by 0.3 times the strength (0 to 1), a shift by 150/331 of the side, a turn by 30 degrees, and a factor
    is 1 + 0.9 times the strength, all times the sign; the last four operations have none.
    """
    numbers = torch.arange(len(RAND_AUGMENT), device=images.device)
    by_name = dict(zip(RAND_AUGMENT, which_n == numbers[:, None], strict=True))  # bool (N,) each
    signed_n = sign_n * strength
    images = _move(images, {name: by_name[name] * signed_n for name in RAND_AUGMENT[1:6]})

    grey, interior = V.rgb_to_grayscale(images), images[..., 1:-1, 1:-1]
    blurred = images.clone()
    if interior.numel():
        blurred[..., 1:-1, 1:-1] = (9 * F.avg_pool2d(images, 3, stride=1) + 4 * interior) / 13
    references = {"color": grey, "contrast": grey.mean((1, 2, 3), keepdim=True), "sharpness": blurred}
    reference = sum(_per_image(by_name[name]) * other for name, other in references.items())  # brightness: black
    blended = by_name["brightness"] | by_name["color"] | by_name["contrast"] | by_name["sharpness"]
    images = blend(reference, images, 1 + 0.9 * signed_n * blended)

    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    pointwise = {
        "posterize": V.posterize(images, 8 - round(4 * strength)),
        "solarize": V.solarize(images, 1 - strength),
        "autocontrast": torch.where(high > low, (images - low) / (high - low), images),
        "equalize": V.equalize(images),
    }
    for name, changed in pointwise.items():
        images = torch.where(_per_image(by_name[name]), changed, images)
    return images


def _move(images: Tensor, strengths: dict[str, Tensor]) -> Tensor:
    """Shear, shift or turn each image; its other strengths are 0. Corners that become free are black."""
    shear_x, shear_y, right, down, turn = strengths.values()
    height, width = images.shape[-2:]
    shear_x, shear_y = 0.3 * shear_x * height / width, 0.3 * shear_y * width / height
    # torchvision shifts by whole pixels, and gives the angle of a shear, which leans the other way.
    right, down = (2 * (150 / 331 * n * by).trunc() / n for n, by in ((width, right), (height, down)))
    angle, aspect = (30 * turn).deg2rad(), height / width  # the axes of the grid run from -1 to 1
    cos, sin = angle.cos(), angle.sin()
    rows = [cos, shear_x - sin * aspect, shear_x - right, shear_y + sin / aspect, cos, shear_y - down]
    grid_nhw2 = F.affine_grid(torch.stack(rows, dim=1).view(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid_nhw2, mode="nearest", align_corners=False)


# ---- Mixing, with the labels: from images and soft labels (N, K) to both of the same shapes


def mix(images: Tensor, targets: Tensor, weights_n1hw: Tensor) -> tuple[Tensor, Tensor]:
    """Mix each image with another one of the batch, and their labels in the same proportion.

    The weights, 0 to 1, are the image's own share of each pixel; their mean is the share of the label.
    """
    others = other_images(images)
    share_n1 = weights_n1hw.mean(dim=(1, 2, 3))[:, None]
    return torch.lerp(images[others], images, weights_n1hw), torch.lerp(targets[others], targets, share_n1)


def mixup_weights(images: Tensor, alpha: float) -> Tensor:
    """The same share everywhere, from Beta(alpha, alpha). Shape: (N, 1, H, W)."""
    return _per_image(beta(images, alpha)).expand(-1, 1, *images.shape[-2:])


def cutmix_weights(images: Tensor, alpha: float) -> Tensor:
    """0 in a rectangle of the image's shape around a random pixel, 1 around it. Shape: (N, 1, H, W).

    The rectangle covers 1 - share of the area, with the share from Beta(alpha, alpha), less what is beyond the edge.
    """
    height, width = images.shape[-2:]
    half_n = (1 - beta(images, alpha)).sqrt() / 2
    half_height_n, half_width_n = (half_n * height).floor(), (half_n * width).floor()
    middle_y, middle_x = (uniform(images) * height).floor(), (uniform(images) * width).floor()
    boxes = Boxes(middle_y - half_height_n, middle_x - half_width_n, 2 * half_height_n, 2 * half_width_n)
    return (~boxes.mask(height, width)).float()


def mixup(images: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Average each image with another one, in a proportion of its own. Zhang et al., MixUp, arXiv 1710.09412."""
    return mix(images, targets, mixup_weights(images, alpha))


def cutmix(images: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Paste a rectangle of another image into each one. Yun et al., CutMix, arXiv 1905.04899."""
    return mix(images, targets, cutmix_weights(images, alpha))


def mixup_or_cutmix(images: Tensor, targets: Tensor, mixup_alpha: float, cutmix_alpha: float) -> tuple[Tensor, Tensor]:
    """MixUp or CutMix, the one with an alpha above 0; with both, one of them is drawn for each image."""
    if not (mixup_alpha and cutmix_alpha):
        return cutmix(images, targets, cutmix_alpha) if cutmix_alpha else mixup(images, targets, mixup_alpha)
    is_mixup_n111 = _per_image(chance(images, 0.5))
    blended, cut = mixup_weights(images, mixup_alpha), cutmix_weights(images, cutmix_alpha)
    return mix(images, targets, torch.where(is_mixup_n111, blended, cut))
