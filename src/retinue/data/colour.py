"""One matrix for colour: jitter, PCA noise and normalisation in one contraction, on the device.

Every change is affine in the pixel's r, g, b (between 0 and 1), so that all of them, and the
normalisation after them, are one 3×4 matrix per image:

- brightness: times a factor;
- contrast: the distance from the image's mean luma, times a factor;
- saturation: the distance from the pixel's luma, times a factor;
- hue: a rotation in the chroma plane of YIQ;
- PCA noise (Krizhevsky et al., 2012): a shift along the principal colours of ImageNet;
- brightness, added: a shift of all channels alike.

The first four come in an order that is drawn for each image, the two shifts last. Nothing is
clipped in between; the mean luma is that of the image as changed so far, which follows from its
channel means.
At the end each channel is clamped once to what 0 and 1 become under the normalisation: clamping
before it and clamping to its image after it are the same, as it is monotonic in each channel.

Solarize, posterize, equalize and exact HSV are not affine: they come first, on the uint8 batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retinue.data import tones
from retinue.data.normalising import Constants, Floats, constants, one_by_one
from retinue.data.options import ColourOptions, RandAugmentOptions, TrivialAugmentOptions
from retinue.data.policies import Policy, Step
from retinue.data.random import draw
from retinue.sample import Preprocessing
from retinue.transfer import all_to_device

Affine = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float64]

_Operation = Callable[[Tensor, Tensor], Tensor]

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

    Draws are keyed by the seed, the epoch and each image's key. They are made on the host; on a
    device nothing is read back.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        options: ColourOptions | None = None,
        seed: int = 0,
        policy: RandAugmentOptions | TrivialAugmentOptions | None = None,
    ) -> None:
        """`policy`: of its operations those that are no geometry come first."""
        self.options = options or ColourOptions()
        self.seed = seed
        self.mean = np.array(preprocessing.mean)
        self.std = np.array(preprocessing.std)
        o = self.options
        self._amplitudes = np.array([o.brightness, o.contrast, o.saturation, o.hue])
        self._policy = None if policy is None else Policy(policy, seed)
        additive = bool(o.pca_noise or o.brightness_shift)
        self._affine = bool(self._amplitudes.any() or additive or policy is not None)
        self._others = [
            _Other(name, probability, gains, operation)
            for name, probability, gains, operation in (
                ("solarize", o.solarize, None, tones.solarize),
                ("posterize", o.posterize, None, tones.posterize),
                ("equalize", o.equalize, None, tones.equalize),
            )
            if probability > 0
        ]
        self._hsv = _Other("hsv", o.hsv, o.hsv_gains, self._in_hsv) if o.hsv > 0 else None
        self._constants: dict[tuple[int, torch.device], list[Tensor]] = {}

    def normalised(self, images: Tensor) -> Tensor:
        """uint8 (n, 3, height, width) to float32, normalised, in channels-last memory, on the same
        device. Nothing is drawn."""
        if _on_cpu(images):
            return self._one_by_one(images)
        return self._scaled(images)

    def varied(self, images: Tensor, keys: npt.NDArray[np.int64], epoch: int) -> Tensor:
        """The same with the options' changes. `keys` (n,): what each image's draws are keyed by."""
        steps: list[list[Step]] = [[] for _ in keys]
        first: list[tuple[_Operation, Affine]] = []
        if self._policy is not None:
            steps = [self._policy.drawn(key, epoch) for key in keys.tolist()]
            first = self._policy.tones(steps)
        first += [(other.operation, other.draw(self.seed, epoch, keys)) for other in self._others]
        hsv = None if self._hsv is None else self._hsv.draw(self.seed, epoch, keys)
        if _on_cpu(images):
            return self._varied_on_cpu(images, first, hsv, keys, epoch, steps)
        if hsv is not None:
            first.append((self._in_hsv, hsv))
        draws = [rows for _, rows in first]
        if self._affine:
            draws.append(self._maps(keys, epoch, steps))
        sent = all_to_device(draws, images.device) if draws else []
        for (operation, _), rows in zip(first, sent, strict=False):
            images = _changed(images, operation, rows)
        if not self._affine:
            return self._scaled(images)
        n, _, height, width = images.shape
        _, _, floor, ceiling = self._repeated(width, images.device)
        out = _contract(_rows(images), _at_means(sent[-1], images), floor, ceiling)
        return out.view(n, height, width, 3).permute(0, 3, 1, 2)

    def _scaled(self, images: Tensor) -> Tensor:
        """`normalised`, all images at once."""
        n, _, height, width = images.shape
        scale, shift, _, _ = self._repeated(width, images.device)
        out = torch.addcmul(shift, _rows(images).view(n, height, width * 3).float(), scale)
        return out.view(n, height, width, 3).permute(0, 3, 1, 2)

    def _varied_on_cpu(
        self,
        images: Tensor,
        first: Sequence[tuple[_Operation, Affine]],
        hsv: Affine | None,
        keys: npt.NDArray[np.int64],
        epoch: int,
        steps: Sequence[Sequence[Step]],
    ) -> Tensor:
        for operation, rows in first:
            images = _changed(images, operation, torch.from_numpy(rows))
        changes: dict[int, list[float]] = {}
        if hsv is not None:
            positions, amounts = hsv[:, 0].astype(int).tolist(), hsv[:, 1:]
            each = np.stack(self._changes(amounts), 1).tolist()
            changes = dict(zip(positions, each, strict=True))
        height, width = images.shape[2:]
        spare = np.empty((height, width, 3) if changes else 0, np.float32)
        planes = [np.empty((height, width), np.float32) for _ in range(3)] if changes else []

        def matrix_of(k: int, pixels: Floats) -> Affine | None:
            if k in changes:
                _change_in_hsv(pixels, changes[k], spare, planes)
            return self._matrix(pixels, int(keys[k]), epoch, steps[k]) if self._affine else None

        return self._one_by_one(images, matrix_of)

    def _one_by_one(
        self, images: Tensor, matrix_of: Callable[[int, Floats], Affine | None] | None = None
    ) -> Tensor:
        """`normalising.one_by_one`."""
        by = Constants(*(c.numpy() for c in self._repeated(images.shape[3], images.device)))
        out = one_by_one(_rows(images).numpy(), by, matrix_of)
        return torch.from_numpy(out).permute(0, 3, 1, 2)

    def _changes(self, amounts: Any) -> tuple[Any, Any, Any, Any]:
        """Of (m, 3) drawn amounts, (m,) each: factor and shift of the hue, in turns, factors of
        saturation and value."""
        hue, saturation, value = amounts.T
        same, none = 1 + 0 * hue, 0 * hue
        change = (same, hue) if self.options.hsv_hue == "shift" else (1 + hue, none)
        return *change, 1 + saturation, 1 + value

    def _repeated(self, width: int, device: torch.device) -> list[Tensor]:
        """Of `normalising.Constants` each, on the device."""
        if (width, device) not in self._constants:
            each = constants(self.mean, self.std, width)
            self._constants[width, device] = all_to_device(each, device)
        return self._constants[width, device]

    def _in_hsv(self, images: Tensor, amounts: Tensor) -> Tensor:
        """All at once; float32, from 0 to 255: nothing is rounded."""
        factor, shift, saturation, value = (
            each[:, None, None] for each in self._changes(amounts.float())
        )
        h, s, v = rgb_to_hsv(images / 255)
        h = (h * factor + shift) % 1
        s = (s * saturation).clamp_(0, 1)
        v = (v * value).clamp_(0, 1)
        return hsv_to_rgb(h, s, v) * 255

    def _draws(self, key: int, epoch: int) -> tuple[Vector, npt.NDArray[np.int64], Vector]:
        """(4,) amounts of `_OPERATIONS`, their order, and the (3,) shift that comes last."""
        rng = draw(self.seed, epoch, key, "colour")
        amounts = rng.uniform(-1, 1, 4) * self._amplitudes
        order = rng.permutation(4)
        shift = _PCA @ (rng.standard_normal(3) * self.options.pca_noise * _PCA_STD)
        if self.options.brightness_shift:
            shift = shift + rng.uniform(-1, 1) * self.options.brightness_shift
        return amounts, order, shift

    def _matrix(self, pixels: Floats, key: int, epoch: int, steps: Sequence[Step] = ()) -> Affine:
        """(3, 4): an image's matrix, from 0–255 to normalised, not clamped."""
        mean, drawn = np.zeros(3), self._drawn(steps)
        contrast = any(number == _CONTRAST for number, _ in drawn)
        if (
            contrast or self.options.contrast > 0
        ):  # a hundred times as fast as a sum over an outer axis
            mean = np.array(cv2.mean(pixels)[:3]) / 255
        amounts, order, shift = self._draws(key, epoch)
        matrix = np.eye(3, 4)
        for place, amount in drawn:
            matrix = _OPERATIONS[place](matrix, amount, mean)
        for number in order:
            if self._amplitudes[number]:
                matrix = _OPERATIONS[number](matrix, amounts[number], mean)
        matrix[:, 3] += shift
        result: Affine = self._then_normalised(matrix[None])[0]
        return result

    def _drawn(self, steps: Sequence[Step]) -> list[tuple[int, float]]:
        """What a policy's `steps` do to the matrix: places in `_OPERATIONS`, with amounts."""
        if self._policy is None:
            return []
        return [(_NUMBER[name], amount) for name, amount in self._policy.affine(steps)]

    def _maps(
        self, keys: npt.NDArray[np.int64], epoch: int, steps: Sequence[Sequence[Step]] = ()
    ) -> Affine:
        """(n, 3, 7): `_matrix` for whatever channel means the images have, which the last three
        columns are to be multiplied with and added to the fourth. All images at once, in four
        rounds: what each does first, second, …"""
        drawn = [self._draws(key, epoch) for key in keys.tolist()]
        amounts, order, shift = (np.stack(part) for part in zip(*drawn, strict=True))
        result = np.zeros((len(keys), 3, 7))
        result[:, :, :3] = np.eye(3)
        for k, own in enumerate(map(self._drawn, steps)):
            for place, amount in own:
                result[k : k + 1] = _MAPS[place](result[k : k + 1], np.full((1, 1, 1), amount))
        for turn in range(4):
            for number in np.flatnonzero(self._amplitudes):
                mine = order[:, turn] == number
                operation = _MAPS[number]
                result[mine] = operation(result[mine], amounts[mine, number, None, None])
        result[:, :, 3] += shift
        return self._then_normalised(result)

    def _then_normalised(self, matrices: Affine) -> Affine:
        matrices[:, :, :3] /= 255
        matrices[:, :, 3] -= self.mean
        matrices /= self.std[:, None]
        return matrices


@dataclass(frozen=True, slots=True)
class _Other:
    """A change that is not affine, of some of the images."""

    name: str
    probability: float
    gains: tuple[float, float, float] | None
    """Greatest amounts, either way, of the three that are drawn; None: there are none."""
    operation: _Operation
    """Of uint8 (m, 3, height, width) and the amounts (m, 3); only the last one may leave values
    between the whole numbers, as float32."""

    def draw(self, seed: int, epoch: int, keys: npt.NDArray[np.int64]) -> Affine:
        """(m, 4): the positions of those that are changed, and the amounts."""
        draws = np.array([draw(seed, epoch, key, self.name).random(4) for key in keys.tolist()])
        chosen = np.flatnonzero(draws[:, 0] < self.probability)
        amounts = (2 * draws[chosen, 1:] - 1) * (self.gains or 0.0)
        return np.concatenate([chosen[:, None], amounts], axis=1)


def _changed(images: Tensor, operation: _Operation, rows: Tensor) -> Tensor:
    """New images on the same device, those changed whose positions `rows` (m, 1 + amounts) has."""
    if not len(rows):
        return images
    where = rows[:, 0].long()
    changed = operation(images[where], rows[:, 1:])
    images = images.to(changed.dtype, memory_format=torch.preserve_format, copy=True)
    images[where] = changed
    return images


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
_NUMBER = {"brightness": 0, "contrast": 1, "saturation": 2}
_CONTRAST = _NUMBER["contrast"]


# The same of (m, 3, 7), by amounts (m, 1, 1), for channel means that are not known yet.


def _brightness_map(maps: Affine, amount: Affine) -> Affine:
    return maps * (1 + amount)


def _contrast_map(maps: Affine, amount: Affine) -> Affine:
    grey = LUMA @ maps  # (m, 7); of the image's mean pixel
    maps = maps * (1 + amount)
    maps[:, :, 3] -= amount[:, 0] * grey[:, None, 3]
    maps[:, :, 4:] -= amount * (grey[:, None, :3] + grey[:, None, 4:])
    return maps


def _saturation_map(maps: Affine, amount: Affine) -> Affine:
    return maps * (1 + amount) - amount * (LUMA @ maps)[:, None]


def _hue_map(maps: Affine, amount: Affine) -> Affine:
    chroma = _YIQ[1:] @ maps
    c, s = np.cos(2 * np.pi * amount), np.sin(2 * np.pi * amount)
    i, q = chroma[:, :1], chroma[:, 1:]
    turned = np.concatenate([c * i - s * q, s * i + c * q], axis=1)
    result: Affine = _RGB @ np.concatenate([_YIQ[:1] @ maps, turned], axis=1)
    return result


_MAPS = (_brightness_map, _contrast_map, _saturation_map, _hue_map)


def _at_means(maps: Tensor, images: Tensor) -> Tensor:
    """(n, 3, 4) matrices of (n, 3, 7) maps, at the images' own channel means."""
    pixels = images.shape[2] * images.shape[3]
    sums = images.sum(dim=(2, 3), dtype=None if images.is_floating_point() else torch.int64)
    means = sums.float() / (255 * pixels)
    bias = maps[:, :, 3] + (maps[:, :, 4:] * means[:, None]).sum(2)
    return torch.cat([maps[:, :, :3], bias[:, :, None]], dim=2)


def _on_cpu(images: Tensor) -> bool:
    """Whether NumPy and OpenCV can work on `images`."""
    return images.device.type == "cpu"


def _rows(images: Tensor) -> Tensor:
    """uint8 (n, height, width, 3), without copying where memory is channels-last."""
    return images.permute(0, 2, 3, 1).contiguous()


def _contract(rows: Tensor, matrices: Tensor, floor: Tensor, ceiling: Tensor) -> Tensor:
    """uint8 (n, height, width, 3) → float32 (n, height, width × 3), all images at once."""
    n, height, width, _ = rows.shape
    bias, weights = matrices[:, None, :, 3], matrices[:, :, :3].transpose(1, 2)
    out = torch.baddbmm(bias, rows.view(n, -1, 3).float(), weights).view(n, height, width * 3)
    return torch.clamp(out, floor, ceiling, out=out)


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


def _change_in_hsv(
    pixels: Floats, change: Sequence[float], spare: Floats, planes: list[Floats]
) -> None:
    """What `Colour._in_hsv` does to all images, of one, (height, width, 3) from 0 to 255, in place
    and thirty times as fast. `spare`: as much room again; `planes`: three of (height, width)."""
    factor, shift, saturation, value = change
    cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV, dst=spare)
    cv2.split(spare, planes)
    hue, s, v = planes
    hue *= np.float32(factor)
    hue += np.float32(360 * (shift % 1))
    hue -= np.float32(360) * (hue >= 360)  # less than two turns, as factors reach 2
    s *= np.float32(saturation)
    v *= np.float32(value)
    np.minimum(s, 1, out=s)
    np.minimum(v, 255, out=v)
    cv2.merge(planes, dst=spare)
    cv2.cvtColor(spare, cv2.COLOR_HSV2RGB, dst=pixels)
