"""What cached features are kept as: float32, float16 or int8, and what that loses.

In int8 every channel of every image has a scale of its own: 256 steps from its least value to its
largest, so that a value that is read back is at most half a step away, float32's rounding aside.
Offset and step are kept in float16, rounded so that the range holds all values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retinue.training.options import CacheDtype
from retinue.transfer import sent

LIMITS: Mapping[CacheDtype, float] = {"float32": 0.0, "float16": 1e-3, "int8": 2e-2}
"""The relative error, ‖kept − x‖ / ‖x‖ of an image's tensor, that is not to be exceeded. float16
rounds by 2⁻¹¹ unless values are as small as 1e-7 or above 65504; in int8 a map of 7×7 may lose
1.9 % where each of its channels is a single spike, and features of real networks about 0.6 %."""
_FINER: Mapping[CacheDtype, CacheDtype] = {"int8": "float16", "float16": "float32"}
_LEVELS = 255
_ROUNDED = 1 + 2**-22
"""A difference of two float32, times this, is not below what it would be without rounding."""

Fields = Mapping[str, npt.NDArray[Any]]


class Loss(NamedTuple):
    """What keeping them has cost n images, a float32 tensor (n,) each."""

    relative: Tensor
    """‖kept − x‖ / ‖x‖, 0 for x = 0; NaN or infinite where it cannot be told."""
    bound: Tensor
    """No value is further from the one that was kept: half of the largest step, or, where float32
    rounds by more, what that comes to."""


class Storage(Protocol):
    """Rows of one tensor on disk: n of any shape, channels last."""

    def fields(self, name: str, shape: Sequence[int]) -> list[tuple[str, str, tuple[int, ...]]]:
        """The arrays of a row that are to hold `shape`: name, dtype and shape each."""

    def keep(self, name: str, rows: Tensor) -> tuple[Fields, Loss]:
        """`rows`, finite float32 (n, *shape) on the host, as these arrays; and what that loses."""

    def back(self, name: str, fields: Fields, device: torch.device) -> Tensor:
        """float32 (n, *shape) on `device`: widened there."""


def finer(dtype: CacheDtype) -> CacheDtype:
    """What loses less. KeyError for float32, which loses nothing."""
    return _FINER[dtype]


def storage(dtype: CacheDtype, shape: Sequence[int]) -> Storage:
    """How rows of `shape` are kept: in int8 only where that is smaller than float16, which is what
    vectors and the smallest maps then are kept in."""
    if dtype != "int8":
        return _Floats(dtype)
    positions = math.prod(shape[:-1]) if len(shape) > 1 else 1
    return _Int8() if positions + 4 < 2 * positions else _Floats("float16")


class _Floats:
    """As they are, but for the rounding."""

    def __init__(self, dtype: Literal["float32", "float16"]) -> None:
        self._dtype = dtype

    def fields(self, name: str, shape: Sequence[int]) -> list[tuple[str, str, tuple[int, ...]]]:
        return [(name, self._dtype, tuple(shape))]

    def keep(self, name: str, rows: Tensor) -> tuple[Fields, Loss]:
        kept = rows.to(getattr(torch, self._dtype))
        if self._dtype == "float32":
            nothing = torch.zeros(len(rows))
            return {name: kept.numpy()}, Loss(nothing, nothing)
        largest = kept.reshape(len(rows), -1).abs().amax(1)
        # Above the largest that there is comes infinity: what counts is the one below it.
        most = torch.finfo(torch.float16).max
        below = largest.where(largest != most, most - 32).numpy()
        with np.errstate(invalid="ignore"):  # the spacing at infinity
            bound = torch.from_numpy(np.spacing(below).astype(np.float32) / 2)
        return {name: kept.numpy()}, Loss(_relative(rows, kept.float()), bound)

    def back(self, name: str, fields: Fields, device: torch.device) -> Tensor:
        return _sent(fields[name], device).float()


class _Int8:
    """Affine: value = offset + step · level, with a level from 0 to 255."""

    def fields(self, name: str, shape: Sequence[int]) -> list[tuple[str, str, tuple[int, ...]]]:
        channels = (shape[-1],)
        return [
            (name, "uint8", tuple(shape)),
            (f"{name}.offset", "float16", channels),
            (f"{name}.step", "float16", channels),
        ]

    def keep(self, name: str, rows: Tensor) -> tuple[Fields, Loss]:
        values = rows.reshape(len(rows), -1, rows.shape[-1])
        offset = _half_below(values.amin(1))
        step = -_half_below((offset.float() - values.amax(1)) / _LEVELS)
        # A channel that is one value, which float16 has, has no step.
        scale = step.float().where(step > 0, 1.0)
        levels = ((values - offset.float()[:, None]) / scale[:, None]).round_().clamp_(0, _LEVELS)
        kept = {
            name: levels.to(torch.uint8).reshape(rows.shape).numpy(),
            f"{name}.offset": offset.numpy(),
            f"{name}.step": step.numpy(),
        }
        widened = _widened(levels, offset, step)
        # float32's rounding may carry a value a little beyond half of its step.
        furthest = (values - widened).abs().flatten(1).amax(1) * _ROUNDED
        bound = torch.fmax(step.float().amax(1) / 2, furthest)
        return kept, Loss(_relative(values, widened), bound)

    def back(self, name: str, fields: Fields, device: torch.device) -> Tensor:
        levels, offset, step = (
            _sent(fields[each], device) for each in (name, f"{name}.offset", f"{name}.step")
        )
        return _widened(levels.float(), offset, step)


def _widened(levels: Tensor, offset: Tensor, step: Tensor) -> Tensor:
    """(n, …, channels) of levels and of what each channel has of its own."""
    shape = (len(levels), *[1] * (levels.ndim - 2), levels.shape[-1])
    return torch.addcmul(offset.float().reshape(shape), levels, step.float().reshape(shape))


def _half_below(values: Tensor) -> Tensor:
    """The largest float16 that is not above each value; −∞ where there is none."""
    half = values.half()
    with np.errstate(over="ignore"):  # below the least that there is
        below = torch.from_numpy(np.nextafter(half.numpy(), np.float16(-np.inf)))
    return torch.where(half.float() > values, below, half)


def _relative(rows: Tensor, kept: Tensor) -> Tensor:
    """See `Loss`."""
    rows, kept = rows.reshape(len(rows), -1), kept.reshape(len(rows), -1)
    # In float64, where squares of neither the smallest nor the largest values are lost.
    size = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    lost = torch.linalg.vector_norm(rows - kept, dim=1, dtype=torch.float64)
    return torch.where(lost == 0, 0.0, lost / size).float()


def _sent(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    return sent(torch.from_numpy(np.ascontiguousarray(array)), device)
