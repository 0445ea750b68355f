"""One matrix for colour: jitter, PCA noise and normalisation in one contraction, on the device.

Every change is affine in the pixel's r, g, b (between 0 and 1), so that all of them, and the
normalisation after them, are one 3×4 matrix per image:

- brightness: times a factor;
- contrast: the distance from the image's mean luma, times a factor;
- saturation: the distance from the pixel's luma, times a factor;
- hue: a rotation in the chroma plane of YIQ;
- PCA noise (Krizhevsky et al., 2012): a shift along the principal colours of ImageNet.

The first four come in an order that is drawn for each image, the noise last. Nothing is clipped in
between; the mean luma is that of the image as changed so far, which follows from its channel means.
At the end each channel is clamped once to what 0 and 1 become under the normalisation: clamping
before it and clamping to its image after it are the same, as it is monotonic in each channel.

Exact HSV, solarize, posterize and equalize are not affine: they come first, on the uint8 batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retinue.data.options import ColourOptions
from retinue.data.random import draw
from retinue.sample import Batch, Preprocessing

Affine = npt.NDArray[np.float64]

LUMA = np.array([0.299, 0.587, 0.114])
_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_RGB = np.linalg.inv(_YIQ)
# Eigenvalues' square roots and eigenvectors of ImageNet's colours, of values between 0 and 1.
_PCA_STD = np.array([0.2175, 0.0188, 0.0045])
_PCA = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)


class Colour:
    """uint8 batches to normalised float32 ones; with options, their colours varied on the way.

    Draws are keyed by the seed and the batch's epoch and indices.
    """

    def __init__(
        self, preprocessing: Preprocessing, options: ColourOptions | None = None, seed: int = 0
    ) -> None:
        self.options = options
        self.seed = seed
        self.mean = np.array(preprocessing.mean)
        self.std = np.array(preprocessing.std)
        o = options or ColourOptions()
        self._affine = any((o.brightness, o.contrast, o.saturation, o.hue, o.pca_noise))
        self._others = [
            (name, probability, operation)
            for name, probability, operation in (
                ("hsv", o.hsv, self._hsv),
                ("solarize", o.solarize, _solarize),
                ("posterize", o.posterize, _posterize),
                ("equalize", o.equalize, _equalize),
            )
            if probability > 0
        ]

    def __call__(self, batch: Batch) -> Tensor:
        """float32 (n, 3, height, width), normalised, in channels-last memory, on the device of
        `batch.images`."""
        images = batch.images
        for name, probability, operation in self._others:
            images = self._sometimes(name, probability, operation, images, batch)
        if not self._affine:
            scale, shift = 1 / (255 * self.std), -self.mean / self.std
            return _scale_channels(images, scale, shift)
        matrices = self.matrices(batch, images)
        low, high = -self.mean / self.std, (1 - self.mean) / self.std
        return _contract(images, matrices, low, high)

    def matrices(self, batch: Batch, images: Tensor | None = None) -> npt.NDArray[np.float64]:
        """(n, 3, 4): each image's matrix, from 0–255 to normalised, not clamped."""
        images = batch.images if images is None else images
        assert self.options is not None
        means: npt.NDArray[np.float64] | None = None
        if self.options.contrast:
            means = _channel_means(images)
        result = np.empty((len(batch), 3, 4))
        for k, index in enumerate(batch.index.tolist()):
            mean = means[k] if means is not None else np.zeros(3)
            result[k] = self._matrix(draw(self.seed, batch.epoch, index, "colour"), mean)
        result[:, :, :3] /= 255
        result[:, :, 3] -= self.mean
        result /= self.std[:, None]
        return result

    def _matrix(self, rng: np.random.Generator, mean: npt.NDArray[np.float64]) -> Affine:
        """3×4, of values between 0 and 1. `mean`: the image's channel means."""
        options = self.options
        assert options is not None
        amplitudes = (options.brightness, options.contrast, options.saturation, options.hue)
        amounts = rng.uniform(-1, 1, 4) * amplitudes
        order = rng.permutation(4)
        noise = rng.standard_normal(3) * options.pca_noise
        matrix = np.eye(3, 4)
        for k in order:
            if amplitudes[k]:
                matrix = _OPERATIONS[k](matrix, amounts[k], mean)
        matrix[:, 3] += _PCA @ (noise * _PCA_STD)
        return matrix

    def _sometimes(
        self,
        name: str,
        probability: float,
        operation: Callable[[Tensor, npt.NDArray[np.float64]], Tensor],
        images: Tensor,
        batch: Batch,
    ) -> Tensor:
        draws = np.array(
            [draw(self.seed, batch.epoch, i, name).random(4) for i in batch.index.tolist()]
        )
        chosen = np.flatnonzero(draws[:, 0] < probability)
        if not len(chosen):
            return images
        where = torch.from_numpy(chosen).to(images.device)
        images = images.clone(memory_format=torch.preserve_format)
        images[where] = operation(images[where], draws[chosen, 1:])
        return images

    def _hsv(self, images: Tensor, draws: npt.NDArray[np.float64]) -> Tensor:
        assert self.options is not None
        amounts = (2 * draws - 1) * self.options.hsv_gains
        hue, saturation, value = (
            torch.from_numpy(amounts).float().to(images.device).T[..., None, None]
        )
        h, s, v = rgb_to_hsv(images.float() / 255)
        h = (h + hue) % 1
        s = (s * (1 + saturation)).clamp_(0, 1)
        v = (v * (1 + value)).clamp_(0, 1)
        return (hsv_to_rgb(h, s, v) * 255).round_().to(torch.uint8)


def _brightness(matrix: Affine, amount: float, mean: npt.NDArray[np.float64]) -> Affine:
    return matrix * (1 + amount)


def _contrast(matrix: Affine, amount: float, mean: npt.NDArray[np.float64]) -> Affine:
    grey = LUMA @ (matrix[:, :3] @ mean + matrix[:, 3])
    matrix = matrix * (1 + amount)
    matrix[:, 3] -= amount * grey
    return matrix


def _saturation(matrix: Affine, amount: float, mean: npt.NDArray[np.float64]) -> Affine:
    factor = 1 + amount
    return (factor * np.eye(3) + (1 - factor) * np.outer(np.ones(3), LUMA)) @ matrix


def _hue(matrix: Affine, amount: float, mean: npt.NDArray[np.float64]) -> Affine:
    c, s = math.cos(2 * math.pi * amount), math.sin(2 * math.pi * amount)
    turn = _RGB @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ _YIQ
    result: Affine = turn @ matrix
    return result


_OPERATIONS = (_brightness, _contrast, _saturation, _hue)


def _channel_means(images: Tensor) -> npt.NDArray[np.float64]:
    """(n, 3) means between 0 and 1. Integer sums are exact, whatever the order of adding."""
    if images.device.type == "cpu":
        # A hundred times as fast as a sum over an outer axis.
        return np.array([cv2.mean(array)[:3] for array in _rows(images).numpy()]) / 255
    return _means_on_device(images)


def _means_on_device(images: Tensor) -> npt.NDArray[np.float64]:
    pixels = images.shape[2] * images.shape[3]
    sums = images.sum(dim=(2, 3), dtype=torch.int64)
    means: npt.NDArray[np.float64] = sums.cpu().numpy() / (255.0 * pixels)
    return means


def _rows(images: Tensor) -> Tensor:
    """uint8 (n, height, width, 3), without copying where memory is channels-last."""
    return images.permute(0, 2, 3, 1).contiguous()


def _scale_channels(
    images: Tensor, scale: npt.NDArray[np.float64], shift: npt.NDArray[np.float64]
) -> Tensor:
    n, _, height, width = images.shape
    rows = _rows(images).view(n, height, width * 3)
    # One value a number of a row: broadcasting over a last axis of 3 defeats vector units.
    factor, offset = _repeated(scale, width, images), _repeated(shift, width, images)
    if images.device.type == "cpu":
        # An image at a time, so that what is in between stays in the cache, and by NumPy: torch's
        # threads would wait for each other at every image, for long where loader threads are busy.
        out = torch.empty(rows.shape, dtype=torch.float32)
        for source, target in zip(rows.numpy(), out.numpy(), strict=True):
            np.copyto(target, source)
            np.multiply(target, factor.numpy(), out=target)
            np.add(target, offset.numpy(), out=target)
    else:
        out = torch.addcmul(offset, rows.float(), factor)
    return out.view(n, height, width, 3).permute(0, 3, 1, 2)


def _repeated(values: npt.NDArray[np.float64], times: int, like: Tensor) -> Tensor:
    return torch.from_numpy(np.tile(values, times)).float().to(like.device)


def _contract(
    images: Tensor,
    matrices: npt.NDArray[np.float64],
    low: npt.NDArray[np.float64],
    high: npt.NDArray[np.float64],
) -> Tensor:
    """Each pixel through its image's 3×4 matrix, clamped to low … high by channel."""
    n, _, height, width = images.shape
    rows = _rows(images)
    floor, ceiling = _repeated(low, width, images), _repeated(high, width, images)
    contract = _contract_on_cpu if images.device.type == "cpu" else _contract_on_device
    out = contract(rows, torch.from_numpy(matrices).float().to(images.device), floor, ceiling)
    return out.view(n, height, width, 3).permute(0, 3, 1, 2)


def _contract_on_device(rows: Tensor, matrices: Tensor, floor: Tensor, ceiling: Tensor) -> Tensor:
    """uint8 (n, height, width, 3) → float32 (n, height, width × 3), all images at once."""
    n, height, width, _ = rows.shape
    bias, weights = matrices[:, None, :, 3], matrices[:, :, :3].transpose(1, 2)
    out = torch.baddbmm(bias, rows.view(n, -1, 3).float(), weights).view(n, height, width * 3)
    return torch.clamp(out, floor, ceiling, out=out)


def _contract_on_cpu(rows: Tensor, matrices: Tensor, floor: Tensor, ceiling: Tensor) -> Tensor:
    """The same, an image at a time, so that what is in between stays in the cache; OpenCV's
    contraction is five times as fast as a matrix product with a side of 3."""
    n, height, width, _ = rows.shape
    out = np.empty((n, height, width * 3), dtype=np.float32)
    pixels = np.empty((height, width, 3), dtype=np.float32)
    low, high = floor.numpy(), ceiling.numpy()
    for source, matrix, target in zip(rows.numpy(), matrices.numpy(), out, strict=True):
        np.copyto(pixels, source)
        cv2.transform(pixels, matrix, dst=target.reshape(height, width, 3))
        np.clip(target, low, high, out=target)
    return torch.from_numpy(out)


def rgb_to_hsv(rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(n, 3, height, width) between 0 and 1 to hue (turns), saturation, value, (n, h, w) each."""
    r, g, b = rgb.unbind(1)
    value, low = rgb.amax(1), rgb.amin(1)
    spread = value - low
    safe = torch.where(spread > 0, spread, 1.0)
    sector = torch.where(
        value == r,
        (g - b) / safe,
        torch.where(value == g, 2 + (b - r) / safe, 4 + (r - g) / safe),
    )
    hue = torch.where(spread > 0, sector / 6 % 1, 0.0)
    return hue, spread / torch.where(value > 0, value, 1.0), value


def hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """The inverse of `rgb_to_hsv`: (n, 3, height, width)."""
    channels = []
    for offset in (5.0, 3.0, 1.0):
        k = (offset + hue * 6) % 6
        channels.append(value - value * saturation * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, 1)


def _solarize(images: Tensor, draws: npt.NDArray[np.float64]) -> Tensor:
    return torch.where(images >= 128, 255 - images, images)


def _posterize(images: Tensor, draws: npt.NDArray[np.float64]) -> Tensor:
    return images & 0xF0


def _equalize(images: Tensor, draws: npt.NDArray[np.float64]) -> Tensor:
    """Each channel's histogram flattened, as Pillow's `ImageOps.equalize`."""
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
