"""Operations on the values of uint8 batches that no matrix does, for all images at once.

Each takes images (m, 3, height, width) and amounts (m, k), and gives uint8 of the same shape. They
are Pillow's (`ImageOps`, `ImageEnhance`), to a rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def solarize(images: Tensor, amounts: Tensor) -> Tensor:
    """Every value of 128 and above inverted."""
    return torch.where(images >= 128, 255 - images, images)


def solarize_from(images: Tensor, amounts: Tensor) -> Tensor:
    """Every value inverted that reaches the first amount of its image."""
    return torch.where(images >= amounts[:, 0, None, None, None], 255 - images, images)


def posterize(images: Tensor, amounts: Tensor) -> Tensor:
    """The 4 highest bits of every value."""
    return images & 0xF0


def posterize_to(images: Tensor, amounts: Tensor) -> Tensor:
    """So many of the highest bits of every value as the first amount of its image says, 1–8."""
    mask = 256 - torch.exp2(8 - amounts[:, 0])
    return images & mask.round().to(torch.uint8)[:, None, None, None]


def equalize(images: Tensor, amounts: Tensor) -> Tensor:
    """Each channel's histogram flattened."""
    n, channels, height, width = images.shape
    flat = images.permute(0, 1, 2, 3).reshape(n * channels, -1).long()
    counts = torch.zeros((len(flat), 256), dtype=torch.int64, device=images.device)
    counts.scatter_add_(1, flat, torch.ones_like(flat))
    levels = torch.arange(256, device=images.device)
    last = torch.where(counts > 0, levels, 0).amax(1, keepdim=True)
    step = (height * width - counts.gather(1, last)) // 255
    before = counts.cumsum(1) - counts + step // 2
    table = torch.where(step > 0, before // step.clamp(min=1), levels).clamp(0, 255)
    return table.gather(1, flat).to(torch.uint8).view(n, channels, height, width)


def autocontrast(images: Tensor, amounts: Tensor) -> Tensor:
    """Each channel stretched from its least value to its greatest."""
    wide = images.int()
    low, high = wide.amin((2, 3), keepdim=True), wide.amax((2, 3), keepdim=True)
    span = high - low
    stretched = (wide - low) * 255 // span.clamp(min=1)
    return torch.where(span > 0, stretched, wide).to(torch.uint8)


def sharpen(images: Tensor, amounts: Tensor) -> Tensor:
    """The distance from the smoothed image, times 1 + the first amount of its image. Smoothed as
    by Pillow's `ImageFilter.SMOOTH`: a pixel counts five times, each of its neighbours once; at the
    border nothing is."""
    if min(images.shape[2:]) < 3:
        return images
    pixels = images.float()
    kernel = pixels.new_full((3, 1, 3, 3), 1 / 13)  # filled there, not copied from the host
    kernel[:, :, 1, 1] = 5 / 13
    smooth = pixels.clone()
    smooth[:, :, 1:-1, 1:-1] = F.conv2d(pixels, kernel, groups=3).add_(0.5).floor_()
    factor = 1 + amounts[:, 0].float()[:, None, None, None]
    return torch.lerp(smooth, pixels, factor).round_().clamp_(0, 255).to(torch.uint8)
