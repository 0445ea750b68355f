"""Looking at what there is: runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def compare_runs(runs: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """One page that compares several run folders: figures with their intervals, curves, what
    differs in the recipes, classes, and the images that divide them. Returns its path: `out`, or
    `comparison.html` in the folder that the runs share.

    Raises UsageError for what is no run folder, fewer than two or too many, and an `out` that is
    no page.
    """
    from retinue.report.comparison import write_comparison

    return write_comparison(runs, out)
