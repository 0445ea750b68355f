"""The section that shows the images behind each confusion, where the matrix leads."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from retinue.page.record import RunRecord
from retinue.page.section import Section
from retinue.tasks.classification.counts import TEMPLATES
from retinue.tasks.classification.scored import Scored, card, names_of, scored

CARDS = TEMPLATES / "cards.html"

_PAIRS = 300
"""So many confusions at most, the most frequent first, have a place of their own."""
_PICTURES = 96
"""So many pictures are shown in all: the page holds them itself."""
_EACH = 6
"""So many of one confusion at most."""
_SIDE = 144
"""Their longer side in pixels."""
_NAMED = 1_500
"""So many files are named in all."""

Pair = tuple[int, int]


def anchor(true: int, predicted: int) -> str:
    """The `id` of a confusion's images."""
    return f"confused-{true}-{predicted}"


def confused_rows(record: RunRecord) -> dict[Pair, list[int]]:
    """(truth, answer) → the rows of `scored` with that mistake, the most confident first; the most
    frequent pairs first. Empty without predictions."""
    return record.derived(_confused_rows)


def confused(record: RunRecord) -> Section | None:
    """The images of each confusion: some as pictures, the others by name."""
    pairs, rows = confused_rows(record), scored(record)
    if not pairs or rows is None:
        return None
    pictured = _pictured(pairs)
    names = names_of(record, rows.scores.shape[1])
    left = _NAMED
    groups: list[dict[str, Any]] = []
    for (true, predicted), members in pairs.items():
        shown = members[: pictured[true, predicted]]
        others = members[len(shown) :][: max(left, 0)]
        left -= len(others)
        groups.append(
            {
                "anchor": anchor(true, predicted),
                "true": names[true],
                "predicted": names[predicted],
                "count": len(members),
                "cards": [card(record, rows, row, side=_SIDE) for row in shown],
                "others": [rows.paths[row] for row in others],
                "more": len(members) - len(shown) - len(others),
            }
        )
    wrong = int((rows.predicted != rows.labels).sum())
    values = {
        "groups": groups,
        "cards_template": CARDS,
        "left_out": wrong - sum(group["count"] for group in groups),
    }
    return Section("confused", "The images of each confusion", TEMPLATES / "confused.html", values)


def _pictured(pairs: dict[Pair, list[int]]) -> dict[Pair, int]:
    """How many of each are shown as pictures: dealt out one at a time, the most frequent first."""
    dealt: dict[Pair, int] = defaultdict(int)
    left = _PICTURES
    for number in range(_EACH):
        for pair, members in pairs.items():
            if left and len(members) > number:
                dealt[pair] += 1
                left -= 1
    return dealt


def _confused_rows(record: RunRecord) -> dict[Pair, list[int]]:
    rows: Scored | None = scored(record)
    if rows is None:
        return {}
    wrong = np.flatnonzero(rows.predicted != rows.labels)
    score = rows.scores[wrong, rows.predicted[wrong]]
    found: dict[Pair, list[int]] = defaultdict(list)
    for row in wrong[np.argsort(-score, kind="stable")].tolist():
        found[int(rows.labels[row]), int(rows.predicted[row])].append(row)
    order = sorted(found, key=lambda pair: (-len(found[pair]), pair))
    return {pair: found[pair] for pair in order[:_PAIRS]}
