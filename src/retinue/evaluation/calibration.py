"""How far probabilities are from frequencies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 15
"""Guo et al., On Calibration of Modern Neural Networks, 2017, section 3."""


def binned(
    probability: npt.NDArray[np.floating[Any]], right: npt.NDArray[np.bool_], bins: int = BINS
) -> list[dict[str, Any]]:
    """Bins of equal width over `probability` (n,), `(low, high]`, empty ones included.

    Each has `low`, `high`, `images` (how many of the n), and `confidence` and `accuracy`: the mean
    probability, and how often it was `right` (n,); None where the bin is empty.
    """
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, probability, side="left") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins).tolist()
    sums = np.bincount(place, weights=probability, minlength=bins).tolist()
    hits = np.bincount(place, weights=right, minlength=bins).tolist()
    return [
        {
            "low": float(edges[k]),
            "high": float(edges[k + 1]),
            "images": images,
            "confidence": sums[k] / images if images else None,
            "accuracy": hits[k] / images if images else None,
        }
        for k, images in enumerate(count)
    ]


def mean_gap(bins: Sequence[dict[str, Any]]) -> float | None:
    """The mean distance between the probability and the frequency of `binned`, by what each bin
    holds (expected calibration error); None where all are empty."""
    filled = [one for one in bins if one["images"]]
    total = sum(one["images"] for one in filled)
    gaps = sum(one["images"] * abs(one["confidence"] - one["accuracy"]) for one in filled)
    return float(gaps / total) if total else None
