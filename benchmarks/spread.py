"""What several seeds or folds have in common."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def told(values: Sequence[float]) -> dict[str, float]:
    """Mean and standard deviation, which of one value is 0."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": round(statistics.mean(values), 4), "sd": round(spread, 4)}
