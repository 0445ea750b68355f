"""The section that shows in which images several classifiers differ: who is right where."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from retinue.page.pictures import thumbnail
from retinue.page.record import RunRecord
from retinue.page.section import Section
from retinue.tasks.classification.counts import TEMPLATES
from retinue.tasks.classification.scored import Scored, names_of, scored
from retinue.text import shorten

_PAIRS = 15
"""So many pairs of runs at most."""
_PICTURES = 120
"""So many pictures are shown in all."""
_EACH = 8
"""So many of one class at most are shown as pictures."""


def divided(records: Mapping[str, RunRecord]) -> Section | None:
    """The images that some of the runs name rightly and others not, class by class, and whether
    more than chance is in it; None where they were judged on nothing in common."""
    known = {name: rows for name, record in records.items() if (rows := scored(record)) is not None}
    if len(known) < 2:
        return None
    places = {name: _places(rows) for name, rows in known.items()}
    common = [
        path for path in next(iter(places.values())) if all(path in p for p in places.values())
    ]
    if not common:
        return None
    seen = {name: np.array([places[name][path] for path in common]) for name in known}
    right = {name: _right(known[name], seen[name]) for name in known}
    table = np.stack(list(right.values()))
    apart = np.flatnonzero(table.any(axis=0) & ~table.all(axis=0))
    pairs = list(combinations(known, 2))[:_PAIRS]
    return Section("divided", "Images that divide them", TEMPLATES / "divided.html", {
        "images": len(common),
        "pairs": [_pair(a, b, right[a], right[b]) for a, b in pairs],
        "all_right": int(table.all(axis=0).sum()),
        "all_wrong": int((~table).all(axis=0).sum()),
        "apart": len(apart),
        "groups": _groups(known, records, seen, apart),
    })  # fmt: skip


def chance(a: int, b: int) -> float:
    """How often a fair coin, thrown a + b times, falls as unevenly as a to b or more so (the exact
    test of McNemar, two-sided)."""
    n, fewer = a + b, min(a, b)
    if n == 0:
        return 1.0
    logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2)
            for k in range(fewer + 1)]  # fmt: skip
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))


def _pair(one: str, other: str, first: Any, second: Any) -> dict[str, Any]:
    a, b = int((first & ~second).sum()), int((second & ~first).sum())
    return {"one": one, "other": other, "one_alone": a, "other_alone": b, "chance": chance(a, b)}


def _places(rows: Scored) -> dict[str, int]:
    """Where each image is; those that share a file's name by as much of the path as they need."""
    named: dict[str, list[int]] = {}
    for k, path in enumerate(rows.paths):
        named.setdefault("/".join(Path(path).parts[-2:]), []).append(k)
    return {name: found[0] for name, found in named.items() if len(found) == 1}


def _right(rows: Scored, seen: Any) -> Any:
    """bool (images,): whether the answer is the truth."""
    return rows.predicted[seen] == rows.labels[seen]


def _picture(
    k: int,
    known: Mapping[str, Scored],
    records: Mapping[str, RunRecord],
    seen: Mapping[str, Any],
) -> tuple[str | None, str]:
    """As `thumbnail` gives it: of the first run that finds the image, or has kept it."""
    problem = ""
    for name, rows in known.items():
        data, why = thumbnail(rows.paths[seen[name][k]], records[name], 200)
        if data is not None:
            return data, ""
        problem = problem or why
    return None, problem


def _groups(
    known: Mapping[str, Scored],
    records: Mapping[str, RunRecord],
    seen: Mapping[str, Any],
    apart: Any,
) -> list[dict[str, Any]]:
    """By true class, those with the most such images first."""
    first = next(iter(known))
    names = {name: names_of(records[name], known[name].scores.shape[1]) for name in known}
    members: dict[str, list[int]] = {}
    for k in apart.tolist():
        truth = names[first][int(known[first].labels[seen[first][k]])]
        members.setdefault(truth, []).append(k)
    left, groups = _PICTURES, []
    for truth, inside in sorted(members.items(), key=lambda pair: -len(pair[1])):
        shown = inside[: min(_EACH, left)]
        left -= len(shown)
        cards = []
        for k in shown:
            path = known[first].paths[seen[first][k]]
            data, problem = _picture(k, known, records, seen)
            said = []
            for name, rows in known.items():
                row = int(seen[name][k])
                answer = int(rows.predicted[row])
                said.append({"run": name, "name": names[name][answer],
                             "score": float(rows.scores[row, answer]),
                             "right": answer == int(rows.labels[row])})  # fmt: skip
            cards.append({"data": data, "problem": problem, "path": path,
                          "file": shorten(Path(path).name or path, 27), "said": said})  # fmt: skip
        others = [known[first].paths[seen[first][k]] for k in inside[len(shown) :]][:200]
        groups.append({"true": truth, "count": len(inside), "cards": cards, "others": others,
                       "more": len(inside) - len(shown) - len(others)})  # fmt: skip
    return groups
