"""The section that shows each class in pictures, where the table of classes leads."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from retinue.page.record import RunRecord
from retinue.page.section import Section
from retinue.tasks.classification.confused import CARDS
from retinue.tasks.classification.counts import TEMPLATES
from retinue.tasks.classification.scored import Scored, card, names_of, scored

_CLASSES = 12
"""So many classes at most have pictures, those that are recognised worst first."""
_EACH = 4
"""So many pictures of each kind."""
_SIDE = 144
"""Their longer side in pixels."""

Rows = npt.NDArray[np.int64]


def anchor(index: int) -> str:
    """The `id` of a class's images."""
    return f"class-{index}"


def shown(record: RunRecord) -> list[int]:
    """The classes that have pictures: those with most mistakes, for each image that they should or
    do get, first. Empty without predictions."""
    return record.derived(_shown)


def members(record: RunRecord) -> Section | None:
    """Of each class images that are typical of it, that were hardly recognised, missed, and taken
    for it."""
    rows = scored(record)
    if rows is None or not shown(record):
        return None
    names = names_of(record, rows.scores.shape[1])
    groups = []
    for k in shown(record):
        own, said = rows.labels == k, rows.predicted == k
        right = _ordered(rows, own & said, k)
        kinds = [
            ("typical", right[:_EACH]),
            ("hardly recognised", right[_EACH:][-_EACH:][::-1]),
            ("missed", _ordered(rows, own & ~said, None)[:_EACH]),
            ("others taken for it", _ordered(rows, said & ~own, k)[:_EACH]),
        ]
        groups.append({
            "anchor": anchor(k),
            "name": names[k],
            "count": int(own.sum()),
            "missed": int((own & ~said).sum()),
            "given": int((said & ~own).sum()),
            "kinds": [
                {"title": title, "cards": [card(record, rows, int(row), side=_SIDE) for row in of]}
                for title, of in kinds
                if len(of)
            ],
        })  # fmt: skip
    values: dict[str, Any] = {
        "groups": groups,
        "cards_template": CARDS,
        "left_out": rows.scores.shape[1] - len(groups),
    }
    return Section("members", "Each class in pictures", TEMPLATES / "members.html", values)


def _ordered(rows: Scored, among: npt.NDArray[np.bool_], index: int | None) -> Rows:
    """The rows `among` which class `index`, or the answer, has the highest score first."""
    found = np.flatnonzero(among)
    column = rows.predicted[found] if index is None else index
    return np.asarray(found[np.argsort(-rows.scores[found, column], kind="stable")], np.int64)


def _shown(record: RunRecord) -> list[int]:
    rows = scored(record)
    if rows is None:
        return []
    count = rows.scores.shape[1]
    wrong = rows.predicted != rows.labels
    concerned = np.bincount(rows.labels, minlength=count) + np.bincount(
        rows.predicted, weights=wrong, minlength=count
    )
    mistakes = np.bincount(rows.labels, weights=wrong, minlength=count) + np.bincount(
        rows.predicted, weights=wrong, minlength=count
    )
    order = np.lexsort((np.arange(count), -mistakes / np.maximum(concerned, 1)))
    return [int(k) for k in order if concerned[k]][:_CLASSES]
