"""All that happens to an image as one graph: framing, resizing, normalising, the network, and what
its task makes of the outputs.

The resizing is Pillow's: a filter along the rows, rounded to whole numbers, then along the columns;
as matrices, so that it is the same in every format, at any size. (From 13 on, Pillow takes the
columns first where that is quicker, which moves pixels beside hard edges by a few of 255 levels.)
All lengths are tensors, so that tracers keep them open.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from retinue.sample import Preprocessing
from retinue.tasks.ending import Ending, Placed


class Whole(nn.Module):
    """uint8 (n, height, width, 3), upright images of one size, to what `ending` gives."""

    def __init__(self, how: Preprocessing, network: nn.Module, ending: Ending) -> None:
        super().__init__()
        self.prepare = Prepare(how)
        self.network, self.ending = network, ending

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """See above."""
        inputs, placed = self.prepare(images)
        answers: dict[str, Tensor] = self.ending(self.network(inputs), placed)
        return answers


class Prepare(nn.Module):
    """uint8 (n, height, width, 3) to float32 (n, 3, …), as `retinue.data.views.EvalView` and
    `retinue.data.colour.Colour` prepare it, and where that lies."""

    mean: Tensor
    std: Tensor

    def __init__(self, how: Preprocessing) -> None:
        super().__init__()
        self.how = how
        self.register_buffer("mean", torch.tensor(how.mean, dtype=torch.float32).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(how.std, dtype=torch.float32).view(3, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Placed]:
        """See above."""
        rows, columns = _places(images[0, :, 0, 0]), _places(images[0, 0, :, 0])
        height, width = rows[-1] + 0.5, columns[-1] + 0.5
        tall, wide = self.how.size
        down, across = self._axes(height, width)
        pixels = images.permute(0, 3, 1, 2).float()
        # Pillow takes the rows first, and has whole numbers in between.
        pixels = _whole(pixels @ self._weights(across, wide, columns, width).transpose(0, 1))
        pixels = _whole(self._weights(down, tall, rows, height) @ pixels)
        if self.how.fit == "letterbox":
            there = _within(down, tall).unsqueeze(1) & _within(across, wide)
            pixels = torch.where(there, pixels, float(self.how.pad_value))
        inputs = (pixels / 255 - self.mean) / self.std
        scale = torch.stack([width / across[2], height / down[2]])
        start = torch.stack([across[0], down[0]]) * scale
        first = torch.stack([across[1], down[1]])
        placed = Placed(scale, start - first * scale, torch.stack([width, height]))
        return inputs, placed

    def _axes(self, height: Tensor, width: Tensor) -> tuple[_Axis, _Axis]:
        """As `retinue.data.framing` has it, down and across."""
        how = self.how
        tall, wide = how.size
        zero = torch.zeros_like(height)
        if how.fit == "squash":
            return (
                (zero, zero, zero + tall, zero + tall),
                (zero, zero, zero + wide, zero + wide),
            )
        if how.fit == "letterbox":
            by_height = tall * width <= wide * height  # it fills the height
            h = torch.where(by_height, zero + tall, (height * wide / width).round().clamp(min=1))
            w = torch.where(by_height, (width * tall / height).round().clamp(min=1), zero + wide)
            top, left = ((tall - h) / 2).floor(), ((wide - w) / 2).floor()
            return (zero, top, h, h), (zero, left, w, w)
        need_h, need_w = how.covered
        by_width = need_h * width <= need_w * height
        resized_w = torch.where(
            by_width, zero + need_w, (need_h * width / height).floor().clamp(min=wide)
        )
        resized_h = torch.where(
            by_width, (need_w * height / width).floor().clamp(min=tall), zero + need_h
        )
        left, top = ((resized_w - wide) / 2).round(), ((resized_h - tall) / 2).round()
        return (top, zero, resized_h, zero + tall), (left, zero, resized_w, zero + wide)

    def _weights(self, axis: _Axis, count: int, places: Tensor, length: Tensor) -> Tensor:
        """float32 (count, pixels): how much each pixel along the axis counts in each of the `count`
        that the input has; `places`: the pixels' centres."""
        skipped, first, resized, _ = axis
        # Where the centres lie, as a whole number and a fraction: whole numbers as large as these
        # are exact. A centre at 250 in one number is not, nor the same in every runtime.
        twice = (2 * (torch.arange(count) - first + skipped) + 1) * length
        whole = (twice / (2 * resized)).floor()
        rest = (twice - 2 * resized * whole) / (2 * resized)
        whole, rest = whole.unsqueeze(1), rest.unsqueeze(1)
        if self.how.interpolation == "nearest":
            nearest = (whole + rest + 1e-4).floor().clamp(min=0) + 0.5
            return (torch.minimum(nearest, length - 0.5) == places).float()
        reach, filtered = _FILTERS[self.how.interpolation]
        wider = (length / resized).clamp(min=1)
        # Its borders are whole numbers, too: what lies beyond them does not count.
        least = whole + (rest - reach * wider + 0.5).floor()
        most = whole + (rest + reach * wider + 0.5).floor()
        within = (places > least) & (places < most)
        weights = torch.where(within, filtered((places - whole - rest) / wider), 0.0)
        weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-12)
        # Pillow's steps, too: a side's 213 pixels to 256, say, give weights of whole 512ths, and of
        # a hundred sums one that lies in the middle between two levels. By its last bit, which each
        # runtime has from other operations, it would go here up and there down.
        return (weights * _STEPS + 0.5).floor() / _STEPS


_Axis = tuple[Tensor, Tensor, Tensor, Tensor]
"""Along one axis, in the input's pixels: how many of the resized image are cut off before what is
shown; where that begins; how many the whole image comes to; and how many it fills."""


def _places(line: Tensor) -> Tensor:
    """½, 1½, … for each of the line's values."""
    return torch.ones_like(line, dtype=torch.float32).cumsum(0) - 0.5


def _whole(pixels: Tensor) -> Tensor:
    return (pixels + 0.5).floor().clamp(0, 255)


def _within(axis: _Axis, count: int) -> Tensor:
    """Where along the input's axis there is something of the image."""
    place = torch.arange(count)
    return (place >= axis[1]) & (place < axis[1] + axis[3])


def _bilinear(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _bicubic(x: Tensor) -> Tensor:
    """With a = −½."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def _lanczos(x: Tensor) -> Tensor:
    return torch.where(x.abs() < 3, _sinc(x) * _sinc(x / 3), 0.0)


def _sinc(x: Tensor) -> Tensor:
    turned = math.pi * torch.where(x == 0, 1.0, x)
    return torch.where(x == 0, 1.0, turned.sin() / turned)


_STEPS = 1 << 22
"""Pillow's weights are so many to one; float32 holds all of these."""
_FILTERS = {"bilinear": (1, _bilinear), "bicubic": (2, _bicubic), "lanczos": (3, _lanczos)}
"""Pillow's: how far each reaches, and its weights."""
