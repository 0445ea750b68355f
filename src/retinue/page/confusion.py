"""The section that shows which class was taken for which."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retinue.evaluation import classification as figures
from retinue.page import plots, statistics
from retinue.page.record import RunRecord
from retinue.page.section import Section

TEMPLATE = Path(__file__).parent / "templates" / "confusion.html"
_MOST_IN_TABLE = 30
"""Up to that many classes, the confusion matrix is a table with names."""


def _nowhere(true: int, predicted: int) -> str:
    return ""


def confusion_section(
    record: RunRecord,
    counts: figures.Confusion,
    names: Sequence[str],
    *,
    intro: str,
    unit: str,
    nothing: str,
    anchor: Callable[[int, int], str] = _nowhere,
) -> Section:
    """`intro`: what rows and columns are, in a sentence or two; `unit`: what is counted; `nothing`:
    said where no two classes were confused; `anchor`: the `id` on the page that a (true, predicted)
    cell leads to."""
    picture = plots.draw(record, "confusion", plots.confusion(counts, names), "Confusion matrix")
    *_, totals = figures.tallies(counts, len(names))
    pairs = [
        {
            "true": names[i],
            "predicted": names[j],
            "count": n,
            "share": n / totals[i],
            "anchor": anchor(i, j),
        }
        for i, j, n in statistics.confused_pairs(counts)
    ]
    rows: list[dict[str, Any]] = []
    if len(names) <= _MOST_IN_TABLE:
        matrix = statistics.dense(counts, len(names))
        for i, name in enumerate(names):
            shares = matrix[i] / max(1, totals[i])
            cells = [
                {
                    "count": int(n),
                    "tint": round(float(np.sqrt(share)) * 100),
                    "right": i == j,
                    "anchor": anchor(i, j),
                }
                for j, (n, share) in enumerate(zip(matrix[i], shares, strict=True))
            ]
            rows.append({"name": name, "cells": cells, "total": int(totals[i])})
    values = {
        "intro": intro,
        "unit": unit,
        "nothing": nothing,
        "names": list(names),
        "rows": rows,
        "picture": picture,
        "pairs": pairs[: 10 if rows else None] if len(names) > 2 else [],
        "classes": len(names),
    }
    return Section("confusion", "What was taken for what", TEMPLATE, values)
