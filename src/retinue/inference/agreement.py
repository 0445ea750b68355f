"""The parity gate: does a compiled network say what the original says?

Errors are measured against the spread (standard deviation) of the original's outputs, so that
neither tiny logits of a fresh head nor large ones of a trained network hide or fake a difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from retinue.models.network import State

TOLERANCE = {"fp32": 1e-3, "bf16": 0.15}
"""Largest error allowed, in standard deviations of the original's outputs. Other orders of
summation cost 1e-6 to 1e-4; bf16 has 8 bits of mantissa, and deep networks add its errors up."""


@dataclass(frozen=True)
class Agreement:
    """How far two networks are apart on the same inputs."""

    error: float
    """Largest difference of any output, in standard deviations of that output's values."""
    flipped: int
    """Inputs of another best class (logits only), near ties within the tolerance aside."""
    tolerance: float

    @property
    def accepted(self) -> bool:
        """Within the tolerance, and no best class differs. NaN is never accepted."""
        return self.error <= self.tolerance and self.flipped == 0

    def __str__(self) -> str:
        flips = f", another best class for {self.flipped} images" if self.flipped else ""
        return f"error {self.error:.1e} of the outputs' spread, {self.tolerance:g} allowed{flips}"


def compare(candidate: State, reference: State, tolerance: float = TOLERANCE["fp32"]) -> Agreement:
    """Outputs of the two for the same real inputs; a tensor or a tuple of tensors (n, …) each.

    Tensors of two dimensions are taken for logits (n, classes).
    """
    ours, theirs = _parts(candidate), _parts(reference)
    if len(ours) != len(theirs) or any(a.shape != b.shape for a, b in zip(ours, theirs)):  # noqa: B905
        return Agreement(float("inf"), 0, tolerance)
    error, flipped = 0.0, 0
    for one, other in zip(ours, theirs, strict=True):
        a, b = one.detach().double().cpu(), other.detach().double().cpu()
        # A constant output has no spread: then its size is the scale.
        scale = max(float(b.std(correction=0)), 1e-3 * float(b.abs().max()), 1e-30)
        difference = float((a - b).abs().max()) / scale
        error = difference if difference != difference else max(error, difference)
        if b.dim() == 2 and b.shape[1] > 1:
            flipped += _flips(a, b, 2 * tolerance * scale)
        if error != error:
            break
    return Agreement(error, flipped, tolerance)


def agrees(
    engine: Callable[[State], State],
    module: Callable[[State], State],
    inputs: State,
    *,
    precision: str = "fp32",
) -> Agreement:
    """`engine` against `module` (in eval mode) on `inputs`, which should be real images."""
    with torch.inference_mode():
        return compare(engine(inputs), module(inputs), TOLERANCE[precision])


def _flips(a: Tensor, b: Tensor, tie: float) -> int:
    best = b.topk(2, dim=1).values
    clear = best[:, 0] - best[:, 1] > tie
    return int(((a.argmax(1) != b.argmax(1)) & clear).sum())


def _parts(state: State) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)
