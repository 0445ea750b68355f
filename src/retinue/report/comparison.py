"""`comparison.html`: several runs on one page, by what stands in their folders."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from retinue.errors import UsageError
from retinue.figures import Figure, plain
from retinue.files import sweep, write_text
from retinue.options.overrides import dotted
from retinue.page import plots
from retinue.page.overlay import look, overlay
from retinue.page.record import RunRecord, number, read_run
from retinue.page.section import Section
from retinue.page.text import duration, flat
from retinue.report import general
from retinue.report.html import built, page_of
from retinue.report.task import figures_of, sections_of, watched_by
from retinue.text import counted, listed

MOST = 24
"""So many runs at most: a table of more is no comparison."""
_ROWS = 400
"""So many classes at most, those that differ most first."""
_LONGEST = 120
"""So many characters of a value of a recipe are shown."""
_STAGE = re.compile(r"stages\.\d+\.")
_SAYS_NOTHING = ("about.", "budget.fitted", "data.workers", "on_gpu")
"""Keys whose values change nothing that is learnt."""

_section = partial(Section.of, general.TEMPLATES / "comparison")


@dataclass(frozen=True)
class Runs:
    """Those that are compared, by their names on the page."""

    records: Mapping[str, RunRecord]

    @property
    def figures(self) -> list[Figure]:
        """All that any of them declares, in order."""
        found = {f.name: f for record in self.records.values() for f in figures_of(record)}
        return list(found.values())

    @property
    def tasks(self) -> list[str]:
        """What they were trained for, each once."""
        return list(dict.fromkeys(filter(None, self.each(lambda record: record.task))))

    @property
    def common_classes(self) -> frozenset[str] | None:
        """Those that all of them know; None where nobody tells."""
        known = [frozenset(classes) for classes in self.each(lambda r: r.classes) if classes]
        return frozenset.intersection(*known) if len(known) > 1 else None

    @property
    def comparable(self) -> bool:
        """Whether any figure of the one means something beside that of the other."""
        return len(self.tasks) < 2 and self.common_classes != frozenset()

    def each(self, what: Callable[[RunRecord], Any]) -> list[Any]:
        """`what` of every run, in order."""
        return [what(record) for record in self.records.values()]


def write_comparison(runs: Sequence[Path | str], out: Path | str | None = None) -> Path:
    """Writes a page that compares the run folders `runs`; returns its path, `out` or
    `comparison.html` in the folder that they share.

    Raises UsageError for what is no run folder, fewer than two or too many, and an `out` that is no
    page.
    """
    # `runs/*` also means the comparison that lies there already.
    named = [Path(run) for run in runs]
    own = [path for path in named if not (path.name == "comparison.html" and path.is_file())]
    folders = list(dict.fromkeys(path.resolve() for path in own))
    if len(folders) < 2:
        raise UsageError("a comparison needs two runs or more", mend="name their folders")
    if len(folders) > MOST:
        mend = f"name {MOST} at most"
        raise UsageError(f"{len(folders)} runs are too many to be compared on a page", mend=mend)
    compared = Runs(dict(zip(_names(folders), map(read_run, folders), strict=True)))
    page = Path(out) if out is not None else _shared(folders) / "comparison.html"
    if page.suffix.lower() not in (".html", ".htm"):
        mend = "name a file that ends in .html"
        raise UsageError("the comparison is an HTML page", where=repr(str(page)), mend=mend)
    if not page.resolve().parent.is_dir():
        raise UsageError("there is no such folder", where=repr(str(page.parent)))
    sweep(page.resolve().parent)
    write_text(page, render(compared))
    return page


def render(runs: Runs) -> str:
    """The page as text."""
    builders = [figures, curves, recipes, classes, _of_their_task, run]
    sections, problems = built(builders, runs)
    notes = [f"{n}: {note}" for n, record in runs.records.items() for note in record.notes]
    folders = [shlex.quote(str(record.folder)) for record in runs.records.values()]
    return page_of(
        sections,
        kind=f"comparison of {counted(len(runs.records), 'run')}",
        title=" · ".join(runs.records) if len(runs.records) <= 3 else "Comparison",
        subtitle=_common(runs),
        status="",
        problems=[*notes, *problems],
        again=f"retinue report {' '.join(folders)}",
    )


def figures(runs: Runs) -> Section:
    """The declared figures, a row each and a column a run."""
    rows = []
    for figure in runs.figures:
        values = [number(record.metrics.get(figure.name)) for record in runs.records.values()]
        if all(value is None for value in values):
            continue
        best: float | None = None
        for value in values if runs.comparable else ():
            best = value if figure.better(value, best) else best
        cells = [
            {
                "shown": figure.shown(value),
                "interval": general.interval(figure, record.metrics),
                "best": value is not None and value == best and len(set(values) - {None}) > 1,
            }
            for value, record in zip(values, runs.records.values(), strict=True)
        ]
        rows.append({"title": figure.title, "note": figure.note, "cells": cells})
    return _section("figures", "Figures", {
        "runs": _heads(runs),
        "rows": rows,
        "judged": [_judged(record) for record in runs.records.values()],
        "comparable": runs.comparable,
        "doubts": _doubts(runs),
    })  # fmt: skip


def curves(runs: Runs) -> Section | None:
    """The figures that chose the weights, the loss and the learning rate, a line a run."""
    measured = {key for record in runs.records.values() for row in record.epochs for key in row}
    watched = [name for name in runs.each(watched_by) if f"val_{name}" in measured]
    known = {figure.name: figure for figure in runs.figures}
    unit = _unit_of_time(runs)
    wanted = []
    for name in dict.fromkeys(watched):
        figure = known.get(name, plain(name))
        key, parts = f"val_{name}", figure.unit == "fraction"
        if name != "loss":
            wanted.append((key, f"{figure.title}, validation", "epoch", parts))
            wanted.append((key, f"{figure.title} by time", unit, parts))
    wanted += [
        ("val_loss", "Loss, validation", "epoch", False),
        ("train_loss", "Loss, training", "epoch", False),
        ("lr", "Learning rate", "epoch", False),
    ]
    drawn = []
    for key, title, across, fractions in wanted:
        lines = {name: _points(r, key, across) for name, r in runs.records.items()}
        said = across if across == "epoch" else f"{across} of training, without validation"
        drawing = overlay(lines, title=title, across=said, fractions=fractions)
        if drawing is not None:
            name = f"{key}-{across}"
            drawn.append({"svg": Markup(plots.svg(drawing, name=name, label=title))})
    return _section("curves", "Training", {"plots": drawn}) if drawn else None


def recipes(runs: Runs) -> Section | None:
    """The fields in which the recipes differ."""
    spelt = [dict(_flat(record.recipe)) for record in runs.records.values()]
    if not any(spelt):
        return None
    keys = list(dict.fromkeys(key for one in spelt for key in one))
    keys = [key for key in keys if not key.startswith(_SAYS_NOTHING)]
    rows, same = [], 0
    for key in keys:
        # Of a stage that some do not have only the name is told: all of its fields would differ.
        stage = _STAGE.match(key)
        having = [one for one in spelt if stage is None or f"{stage[0]}name" in one]
        lacking = stage is not None and len(having) < len(spelt) and key == f"{stage[0]}name"
        if lacking or any(one.get(key) != having[0].get(key) for one in having):
            rows.append({"key": key, "values": [_short(one, key) for one in spelt]})
        elif len(having) == len(spelt):
            same += 1
    return _section("recipes", "What differs in the recipes",
                    {"runs": _heads(runs), "rows": rows, "same": same})  # fmt: skip


def classes(runs: Runs) -> Section | None:
    """A figure of each class, the classes that differ most first."""
    told = [{str(row.get("name")): row for row in record.metrics.get("per_class") or ()}
            for record in runs.records.values()]  # fmt: skip
    names = list(dict.fromkeys(name for one in told for name in one))
    if len(names) < 2 or sum(map(bool, told)) < 2 or not runs.comparable:
        return None
    tables = []
    for measure in _measures(runs, told):
        rows = []
        for name in names:
            values = [number(one.get(name, {}).get(measure.name)) for one in told]
            there = [value for value in values if value is not None]
            spread = max(there) - min(there) if len(there) > 1 else None
            rows.append({"name": name, "values": values, "spread": spread})
        rows.sort(key=lambda row: -1.0 if row["spread"] is None else row["spread"], reverse=True)
        tables.append({"title": measure.title, "rows": rows[:_ROWS],
                       "more": len(rows) - len(rows[:_ROWS])})  # fmt: skip
    return _section("classes", "Class by class", {"runs": _heads(runs), "tables": tables}) \
        if tables else None  # fmt: skip


def run(runs: Runs) -> Section | None:
    """What they took: time, size, speed, machine and versions, where that is told."""

    def model(key: str) -> Callable[[RunRecord], Any]:
        return lambda record: (record.environment.get("model") or {}).get(key)

    def of(part: str, key: str) -> Callable[[RunRecord], Any]:
        return lambda record: (record.environment.get(part) or {}).get(key)

    facts: list[tuple[str, list[Any]]] = [
        ("network", runs.each(model("network"))),
        ("parameters", [_whole(v) for v in runs.each(model("parameters"))]),
        ("multiply-adds (MACs) of an image", [_whole(v) for v in runs.each(model("macs"))]),
        ("model file", [_megabytes(v) for v in runs.each(model("file_bytes"))]),
        ("time of the training", [_time(v) for v in runs.each(of("timings", "total_s"))]),
        ("epochs", runs.each(lambda record: len(record.epochs) or None)),
        ("device", runs.each(of("settings", "device"))),
        ("precision", runs.each(of("settings", "precision"))),
        ("threads", runs.each(of("settings", "threads"))),
        ("cpu", runs.each(lambda record: record.environment.get("cpu"))),
        ("evaluated with", runs.each(lambda record: record.metrics.get("engine"))),
    ]
    packages = dict.fromkeys(k for v in runs.each(lambda r: r.environment.get("versions") or {})
                             for k in v)  # fmt: skip
    for package in packages:
        versions = runs.each(of("versions", package))
        if len(set(versions)) > 1:
            facts.append((package, versions))
    rows = [(name, ["–" if v is None else str(v) for v in values]) for name, values in facts
            if any(value is not None for value in values)]  # fmt: skip
    return _section("run", "What they took", {"runs": _heads(runs), "rows": rows}) if rows else None


def _of_their_task(runs: Runs) -> Section | None:
    """What their task adds, where all are of one."""
    tasks = runs.tasks
    return sections_of(tasks[0]).compared(runs.records) if len(tasks) == 1 else None


# --- names, and what the runs were judged on -----------------------------------------------------


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, with as much before them as tells them apart."""
    for depth in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            break
    return names


def _common(runs: Runs) -> str:
    """What all of them were trained on, as far as it is the same."""
    first = general.subtitle(next(iter(runs.records.values()))).split(" · ")
    each = [general.subtitle(record).split(" · ") for record in runs.records.values()]
    return " · ".join(part for part in first if part and all(part in other for other in each))


def _shared(folders: Sequence[Path]) -> Path:
    """The nearest folder that all lie in."""
    return next(p for p in folders[0].parents if all(p in folder.parents for folder in folders))


def _heads(runs: Runs) -> list[dict[str, str]]:
    """Name and colour of each run."""
    return [{"name": name, "colour": look(place)[0]} for place, name in enumerate(runs.records)]


def _judged(record: RunRecord) -> str:
    images, split = number(record.metrics.get("images")), record.metrics.get("split")
    if images is None:
        return "not judged yet"
    return f"{counted(int(images), 'image')}{f', {split}' if split else ''}"


def _doubts(runs: Runs) -> list[str]:
    """Why the figures cannot be set side by side, in sentences."""
    found = []
    if len(runs.tasks) > 1:
        found.append(f"These runs are of different tasks ({', '.join(runs.tasks)}): figures of the"
                     " same name do not measure the same.")  # fmt: skip
    if doubt := _other_classes(runs):
        found.append(doubt)
    judged = {name: paths for name, record in runs.records.items() if (paths := _paths(record))}
    if len(judged) > 1:
        first, *others = judged
        apart = [name for name in others if judged[name] != judged[first]]
        if apart:
            common = len(frozenset.intersection(*judged.values()))
            found.append(f"{listed([first, *apart], 4)} were not judged on the same images"
                         f" ({common:,} are common to all): a difference may be the images', not"
                         " the models'.")  # fmt: skip
    for name, record in runs.records.items():
        split = record.metrics.get("split")
        if record.metrics.get("trained_on_this_split") or split == "train":
            found.append(f"{listed([name])} was judged on what it was trained on.")
    return found


def _other_classes(runs: Runs) -> str:
    """Whether they do not tell the same classes apart, in a sentence."""
    known = {name: set(record.classes) for name, record in runs.records.items() if record.classes}
    common = runs.common_classes
    if common is None or all(classes == common for classes in known.values()):
        return ""
    if not common:
        return (
            f"No class is common to {listed(list(known), 4)}: their figures say how well each does"
            " its own work, not which one is better."
        )
    first, *others = known
    apart = [name for name in others if known[name] != known[first]]
    return (
        f"{listed([first, *apart], 4)} do not know the same classes"
        f" ({counted(len(common), 'class', 'classes')} in common): the more there are to tell"
        " apart, the harder it is."
    )


def _paths(record: RunRecord) -> frozenset[str]:
    """Those of the images that it was judged on, from their folder on, wherever that lies; empty:
    nobody knows."""
    table = record.table("predictions.parquet")
    if table is None or "path" not in table.column_names:
        return frozenset()
    return frozenset("/".join(Path(str(path)).parts[-2:]) for path in table["path"].to_pylist())


# --- values --------------------------------------------------------------------------------------


_SECONDS = {"seconds": 1.0, "minutes": 60.0, "hours": 3600.0}


def _points(record: RunRecord, key: str, across: str) -> list[tuple[float, float]]:
    places = [number(row.get("epoch")) for row in record.epochs]
    if across in _SECONDS:
        places = [x if x is None else x / _SECONDS[across] for x in _times(record)]
    pairs = zip(places, (number(row.get(key)) for row in record.epochs), strict=True)
    return [(x, y) for x, y in pairs if x is not None and y is not None]


def _times(record: RunRecord) -> list[float | None]:
    """At which second of the training each epoch ended: its steps, and what was computed once for
    the stages with a frozen part until then."""
    timings = record.environment.get("timings")
    frozen = timings.get("frozen_of_stages_s") if isinstance(timings, dict) else None
    left = dict(frozen) if isinstance(frozen, dict) else {}
    before, found = 0.0, []
    for row in record.epochs:
        before += number(left.pop(row.get("stage"), None)) or 0.0
        steps = number(row.get("seconds"))
        found.append(None if steps is None else before + steps)
    return found


def _unit_of_time(runs: Runs) -> str:
    """In which the longest training is a number that is read easily."""
    times = [time for record in runs.records.values() for time in _times(record) if time]
    longest = max(times, default=0.0)
    return "seconds" if longest < 180 else "minutes" if longest < 3 * 3600 else "hours"


def _flat(value: Any, place: tuple[str | int, ...] = ()) -> list[tuple[str, Any]]:
    """Dotted key and value of everything in a recipe; lists of plain values stay together. What has
    no fields says nothing."""
    if isinstance(value, dict):
        return [pair for key, inner in value.items() for pair in _flat(inner, (*place, str(key)))]
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        return [pair for k, inner in enumerate(value) for pair in _flat(inner, (*place, k))]
    return [(dotted(place), value)]


def _short(one: Mapping[str, Any], key: str) -> str:
    if key not in one:
        return ""
    value = one[key]
    text = (
        "null" if value is None else str(value).lower() if isinstance(value, bool) else flat(value)
    )
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _measures(runs: Runs, told: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[Figure]:
    """What judges a class, the most telling first: as the task declares it, or else, of a task of
    another installation, whatever is a share."""
    declared = sections_of(runs.tasks[0] if runs.tasks else "").class_figures
    if declared:
        measured = {key for one in told for row in one.values() for key in row}
        return [figure for figure in declared if figure.name in measured]
    keys = dict.fromkeys(k for one in told for row in one.values() for k in row if k != "name")
    found = []
    for key in keys:
        values = [number(row.get(key)) for one in told for row in one.values()]
        there = [value for value in values if value is not None]
        if there and all(0 <= value <= 1 for value in there) and any(v % 1 for v in there):
            found.append(plain(key))
    return found


def _whole(value: Any) -> str | None:
    known = number(value)
    return None if known is None else f"{known:,.0f}"


def _megabytes(value: Any) -> str | None:
    known = number(value)
    return None if known is None else f"{known / 1e6:,.1f} MB"


def _time(value: Any) -> str | None:
    known = number(value)
    return None if known is None else duration(known)
