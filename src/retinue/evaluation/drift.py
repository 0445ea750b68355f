"""How far new values lie from known ones, number by number: two samples, and what is unusual."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

SURE = 0.001
"""So rarely may chance alone part the two as far, over all that is compared (Bonferroni)."""
NOTABLE, MUCH = 0.2, 0.5
"""Of the distance: below, nobody need care, however many images make sure of it."""
_USUAL = (0.025, 0.975)
"""Between these quantiles of the known values a new one is usual."""


@dataclass(frozen=True)
class Shift:
    """One number, of known and of new images."""

    name: str
    known: float
    """Median of the known values."""
    new: float
    """Median of the new ones."""
    below: float
    """Share of the new values that are lower than all but 2.5 % of the known ones."""
    above: float
    """Share that are higher than all but 2.5 %."""
    distance: float
    """The largest difference of the two distributions, 0–1 (Kolmogorov and Smirnov)."""
    chance: float
    """How often chance alone would part them so far."""
    verdict: str
    """`same`, `other` or `far off`."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def shifts(
    known: Mapping[str, Values],
    new: Mapping[str, Values],
    least: Mapping[str, float] = MappingProxyType({}),
) -> list[Shift]:
    """Of each number that both have, float64 (n,) and (m,), the farthest apart first. What has one
    value alone in both says nothing, and is left out. `least`: how far values have to move in the
    mean before anybody cares (images of 1,000 pixels and of 1,001 are apart without a doubt)."""
    from scipy.stats import ks_2samp, wasserstein_distance

    names = [name for name in known if name in new and len(known[name]) and len(new[name])]
    found = []
    for name in names:
        a, b = np.asarray(known[name], np.float64), np.asarray(new[name], np.float64)
        if a.min() == a.max() == b.min() == b.max():
            continue
        distance, chance = map(float, ks_2samp(a, b))
        low, high = np.quantile(a, _USUAL)
        sure = chance < SURE / len(names)
        moved = float(wasserstein_distance(a, b))
        slight = distance < NOTABLE or moved < least.get(name, 0.0)
        verdict = "same" if slight or not sure else "other"
        found.append(
            Shift(
                name,
                float(np.median(a)),
                float(np.median(b)),
                float((b < low).mean()),
                float((b > high).mean()),
                distance,
                chance,
                "far off" if verdict == "other" and distance >= MUCH else verdict,
            )
        )
    return sorted(found, key=lambda one: -one.distance)
