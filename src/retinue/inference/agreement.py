"""The parity gate: does a compiled network say what the original says?

Errors are measured against the spread (standard deviation) of the original's outputs, so that
neither tiny logits of a fresh head nor large ones of a trained network hide or fake a difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from retinue.nested import Nested, leaves, structure

Scores = Callable[[Any], Nested]
"""From a network's outputs to those of them that are scores (…, classes)."""

TOLERANCE = {"fp32": 1e-3, "bf16": 0.15}
"""Largest error allowed, in standard deviations of the original's outputs. Other orders of
summation cost 1e-6 to 1e-4; bf16 has 8 bits of mantissa, and deep networks add its errors up."""


@dataclass(frozen=True)
class Agreement:
    """How far two networks are apart on the same inputs."""

    error: float
    """Largest difference of any output, in standard deviations of that output's values."""
    flipped: int
    """Inputs of another best class (scores only), near ties within the tolerance aside."""
    tolerance: float

    @property
    def accepted(self) -> bool:
        """Within the tolerance, and no best class differs. NaN is never accepted."""
        return self.error <= self.tolerance and self.flipped == 0

    def __str__(self) -> str:
        flips = f", another best class for {self.flipped} images" if self.flipped else ""
        return f"error {self.error:.1e} of the outputs' spread, {self.tolerance:g} allowed{flips}"


def compare(
    candidate: Nested,
    reference: Nested,
    tolerance: float = TOLERANCE["fp32"],
    *,
    scores: Scores | None = None,
) -> Agreement:
    """Outputs of the two for the same real inputs; tensors (n, …) of any nesting.

    Another nesting, shape or kind of number is an infinite error; so is any difference between
    whole numbers, which no order of summation explains.
    `scores`: what takes the outputs and gives those that are scores (…, classes), a tensor or
    several: their best class has to be the same. By default the output itself, where it is a
    single tensor (n, classes).
    """
    if structure(candidate) != structure(reference):
        return Agreement(float("inf"), 0, tolerance)
    error = 0.0
    for ours, theirs in zip(leaves(candidate), leaves(reference), strict=True):
        difference = _difference(ours, theirs)
        if math.isnan(difference):
            return Agreement(difference, 0, tolerance)
        error = max(error, difference)
    if math.isinf(error):
        return Agreement(error, 0, tolerance)
    found = scores or _alone
    pairs = zip(leaves(found(candidate)), leaves(found(reference)), strict=True)
    flipped = sum(_flips(ours, theirs, tolerance) for ours, theirs in pairs)
    return Agreement(error, flipped, tolerance)


def agrees(
    engine: Callable[[Any], Any],
    module: Callable[[Any], Any],
    inputs: Nested,
    *,
    precision: str = "fp32",
    scores: Scores | None = None,
) -> Agreement:
    """`engine` against `module` (in eval mode) on `inputs`, which should be real images."""
    with torch.inference_mode():
        return compare(engine(inputs), module(inputs), TOLERANCE[precision], scores=scores)


def _alone(outputs: Nested) -> Nested:
    return outputs if isinstance(outputs, Tensor) and outputs.dim() == 2 else ()


def _difference(ours: Tensor, theirs: Tensor) -> float:
    """In standard deviations of `theirs`."""
    if ours.shape != theirs.shape or ours.is_floating_point() != theirs.is_floating_point():
        return float("inf")
    if theirs.numel() == 0:
        return 0.0
    if not theirs.is_floating_point():
        return 0.0 if torch.equal(ours.long().cpu(), theirs.long().cpu()) else float("inf")
    a, b = ours.detach().double().cpu(), theirs.detach().double().cpu()
    return float((a - b).abs().max()) / _spread(b)


def _spread(b: Tensor) -> float:
    # A constant output has no spread: then its size is the scale.
    return max(float(b.std(correction=0)), 1e-3 * float(b.abs().max()), 1e-30)


def _flips(ours: Tensor, theirs: Tensor, tolerance: float) -> int:
    if theirs.numel() == 0 or theirs.shape[-1] < 2 or not theirs.is_floating_point():
        return 0
    a, b = ours.detach().double().cpu(), theirs.detach().double().cpu()
    best = b.topk(2, dim=-1).values
    clear = best[..., 0] - best[..., 1] > 2 * tolerance * _spread(b)
    return int(((a.argmax(-1) != b.argmax(-1)) & clear).sum())
