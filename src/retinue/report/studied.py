"""The sections of what is several trainings as one: folds, what `auto` compared, a sweep."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from retinue.documents import read_json
from retinue.figures import plain
from retinue.page import plots
from retinue.page.overlay import dots
from retinue.page.record import RunRecord, number
from retinue.page.section import Section
from retinue.page.text import duration
from retinue.report.task import figures_of
from retinue.text import short

TEMPLATES = Path(__file__).parent / "templates"
_section = partial(Section.of, TEMPLATES)


def folds(record: RunRecord) -> Section | None:
    """The figures of a cross-validation, a fold a row, with their mean and spread."""
    rows, spread = record.metrics.get("folds"), record.metrics.get("spread")
    if not isinstance(rows, list) or not isinstance(spread, dict):
        return None
    shown = [figure for figure in figures_of(record) if figure.name in spread]
    table = [
        (str(name), [figure.shown(number(values.get(figure.name))) for figure in shown])
        for name, values in [
            *((f"fold {row.get('fold')}", row) for row in rows if isinstance(row, dict)),
            ("mean", record.metrics),
            ("spread", spread),
        ]
    ]
    titles = [figure.title for figure in shown]
    return _section("folds", "Folds", {"titles": titles, "rows": table, "count": len(rows)})


def tried(record: RunRecord) -> Section | None:
    """What was compared before this training was chosen."""
    study = tries(record)
    if study is None:
        return None
    figure = {f.name: f for f in figures_of(record)}.get(study["metric"])
    figure = figure or plain(study["metric"])
    rows = [
        {
            "name": f"{one['recipe']} on {one['network']}",
            "figure": figure.shown(number(one["figure"])),
            "seconds": duration(one["seconds"]) if one["seconds"] else "–",
            "why": one["why"] or ("chosen" if _name(one) == study["chosen"] else ""),
        }
        for one in study["tries"]
    ]
    told = {"rows": rows, "metric": figure.title, "images": study["images"].get("val", 0)}
    return _section("tried", "What was tried", told)


def tries(record: RunRecord) -> dict[str, Any] | None:
    """The study that chose what was trained; None of no study, or of one that compares nothing."""
    study = _study(record)
    return study if {"tries", "metric", "chosen", "images"} <= set(study) else None


def _name(one: dict[str, Any]) -> str:
    return f"{one['recipe']}-{one['network']}"


def search(record: RunRecord) -> dict[str, Any] | None:
    """The search of values whose folder this is; None if it is none."""
    study = _study(record)
    wanted = {"spans", "done", "metric", "wanted", "less"}
    return study if wanted <= set(study) else None


def searched(record: RunRecord) -> Section | None:
    """The trials of a search, the best first, and the figure over each value."""
    study = search(record)
    if study is None:
        return None
    known = {f.name: f for f in figures_of(record)}
    figure = known.get(study["metric"]) or plain(study["metric"])
    keys = [span["key"] for span in study["spans"]]
    done = study["done"]
    sign = 1 if study["less"] else -1

    def rank(one: dict[str, Any]) -> tuple[bool, float]:
        value = number(one.get("figure"))
        return value is None, sign * (value or 0.0)

    rows = [
        {
            "trial": one["number"] + 1,
            "figure": figure.shown(number(one.get("figure"))),
            "v": number(one.get("figure")),
            "values": [short(one["values"].get(key)) for key in keys],
            "seconds": duration(one["seconds"]) if one.get("seconds") else "–",
            "why": one.get("why") or "",
        }
        for one in sorted(done, key=rank)
    ]
    best = min(done, key=rank, default=None)
    drawn: list[dict[str, Any]] = []
    for span in study["spans"]:
        pairs = [(number(one["values"].get(span["key"])), number(one.get("figure")))
                 for one in done]  # fmt: skip
        points = [(x, y) for x, y in pairs if x is not None and y is not None]
        if span["choices"] or len(points) < 2 or len(np.unique([x for x, _ in points])) < 2:
            continue
        drawing = dots(points, title=figure.title, across=span["key"], logarithmic=span["log"],
                       fractions=figure.unit == "fraction")  # fmt: skip
        label = f"{figure.title} over {span['key']}"
        name = f"trials-{len(drawn)}"
        drawn.append({"svg": Markup(plots.svg(drawing, name=name, label=label))})
    place = record.folder / "trials"
    told = {
        "keys": keys,
        "metric": figure.title,
        "rows": rows,
        "plots": drawn,
        "wanted": study["wanted"],
        "best": _report_of(place / f"{best['number']:03}") if best else "",
        "all": f"retinue report {shlex.quote(str(place))}/*",
    }
    return _section("searched", "What was searched", told)


def _report_of(folder: Path) -> str:
    return f"retinue report {shlex.quote(str(folder))}"


def _study(record: RunRecord) -> dict[str, Any]:
    """What `study.json` holds; empty without it."""
    try:
        found = read_json(record.folder / "study.json")
    except FileNotFoundError:
        return {}
    return found if isinstance(found, dict) else {}
