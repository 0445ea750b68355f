"""What multi-label classification adds to a run's page: sections and sentences, from its
predictions."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retinue.evaluation import multilabel as figures
from retinue.evaluation.precision_recall import at, best_f1
from retinue.figures import wilson
from retinue.page import curve_plots, plots, splits
from retinue.page.pictures import overlay, thumbnail
from retinue.page.record import RunRecord
from retinue.page.section import Section, TaskSections, Unexplained
from retinue.page.text import percent
from retinue.tasks.classification.counts import counts_section
from retinue.tasks.multilabel.judged import Judged, judged
from retinue.text import counted, few, listed, shorten

TEMPLATES = Path(__file__).parent / "templates"
_section = partial(Section.of, TEMPLATES)
_PICTURES = 18
"""So many of each kind of mistake."""
_COLUMNS = ("ap", "precision", "recall", "f1", "threshold", "support", "predicted", "images")


def summary(record: RunRecord) -> str:
    """`3 classes, any number an image`."""
    if not record.classes:
        return ""
    return f"{counted(len(record.classes), 'class', 'classes')}, any number an image"


def baseline(record: RunRecord) -> str:
    """What giving no label at all would reach."""
    found = judged(record)
    if found is None:
        return ""
    told = found.told
    mean = float(told.labels.sum() / len(told.labels))
    none = float((~told.labels.any(axis=1)).mean())
    return (
        f"An image shows {mean:.1f} of the classes in the mean; giving no label at all would be"
        f" right for {percent(none)}."
    )


def counts(record: RunRecord) -> Section | None:
    """How many images of each class there are in each split, and what that means."""
    return counts_section(record, _balance)


def _balance(record: RunRecord, found: splits.Counts) -> list[str]:
    """How uneven the classes are, and what helps."""
    extremes = found.extremes()
    if extremes is None or extremes[0][1] < splits.UNEVEN * extremes[1][1]:
        return []
    (large, most), (small, fewest) = extremes
    options = record.recipe.get("task_options")
    weights = options.get("positive_weights", "none") if isinstance(options, dict) else "none"
    said = (
        f"The classes are uneven: “{shorten(large, 40)}” is in {most:,} training images,"
        f" “{shorten(small, 40)}” in {fewest:,}."
    )
    if weights == "none":
        said += (
            " If the rare ones matter as much: task_options.positive_weights=balanced has what is"
            " there count as much as what is not, stages.0.sampler=repeat_factor shows rare classes"
            " more often"
        )
        return [said + "."]
    return [said]


def classes(record: RunRecord) -> Section | None:
    """The figures of each class."""
    rows = record.metrics.get("per_class")
    if not isinstance(rows, list) or not rows or "ap" not in rows[0]:
        return None
    shown = []
    for row in rows:
        support, recall = row.get("support") or 0, row.get("recall")
        found = 0 if recall is None else round(recall * support)
        values = {key: row.get(key) for key in _COLUMNS}
        interval = wilson(found, support) if support else None
        shown.append({**values, "name": str(row.get("name")), "interval": interval})
    fitted = record.environment.get("fitted")
    own = isinstance(fitted, dict) and "thresholds" in fitted
    return _section("classes", "Class by class",
                    {"rows": shown, "long": len(shown) > 25, "fitted": own})  # fmt: skip


def confidence(record: RunRecord) -> Section | None:
    """Precision against recall, and what each threshold gives."""
    found = judged(record)
    if found is None or not found.told.labels[found.told.known].any():
        return None
    together = found.told.pooled
    best = best_f1(together)
    drawn = [
        plots.draw(
            record,
            "precision_recall",
            curve_plots.precision_recall(
                found.told.curves,
                found.names,
                title="Precision and recall",
                answers="labels given",
                wanted="labels there",
            ),
            "Precision and recall",
        ),
        plots.draw(
            record,
            "confidence",
            curve_plots.confidence(together, best, answer="a label"),
            "Precision, recall and F1 by threshold",
        ),
    ]
    values = {"plots": drawn, "best": best, "usual": at(together, 0.5)}
    return _section("confidence", "From which probability on?", values)


def calibration(record: RunRecord) -> Section | None:
    """Whether a probability of 0.8 is right in 8 of 10 cases."""
    found = judged(record)
    if found is None:
        return None
    bins = figures.calibration_bins(found.told)
    drawing = plots.calibration(
        bins, answer="probability of a label", right="share of images that show it", of="labels"
    )
    values = {
        "plot": plots.draw(record, "calibration", drawing, "Calibration plot"),
        "ece": figures.expected_calibration_error(found.told),
    }
    return _section("calibration", "Can the probabilities be believed?", values)


def mistakes(record: RunRecord) -> Section | None:
    """Labels that were given with confidence and are not there, and those that were missed by far,
    as pictures."""
    found = judged(record)
    if found is None:
        return None
    told = found.told
    beyond, missed = _margins(found)
    groups: list[dict[str, Any]] = [
        {
            "title": title,
            "count": int((how_much >= 0).sum()),
            "cards": [_card(record, found, row, k) for row, k in _worst(how_much)],
        }
        for title, how_much in (
            ("Given, and not labelled", beyond),
            ("Labelled, and not given", missed),
        )
    ]
    wrong = int(((beyond >= 0) | (missed >= 0)).any(axis=1).sum())
    explained = any(card["overlay"] for group in groups for card in group["cards"])
    values = {
        "groups": groups, "wrong": wrong, "images": len(told.labels), "explained": explained,
    }  # fmt: skip
    return _section("mistakes", "The clearest mistakes", values)


def to_explain(record: RunRecord) -> list[Unexplained]:
    """The labels that `mistakes` shows."""
    found = judged(record)
    if found is None:
        return []
    shown = [one for how_much in _margins(found) for one in _worst(how_much)]
    return [Unexplained(found.paths[row], found.names[k]) for row, k in dict.fromkeys(shown)]


def _margins(found: Judged) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(images, classes): by how much a label was given that is not there, and was missed that is;
    −1 where neither is so."""
    told = found.told
    beyond = np.where(told.known & ~told.labels & found.given, told.scores, -1.0)
    missed = np.where(told.known & told.labels & ~found.given, 1 - told.scores, -1.0)
    return beyond, missed


def _worst(how_much: npt.NDArray[np.float64]) -> list[tuple[int, int]]:
    """(image, class) of the greatest values above 0, an image once."""
    best = how_much.argmax(axis=1)
    value = how_much.max(axis=1)
    order = np.argsort(-value, kind="stable")
    return [(int(row), int(best[row])) for row in order[:_PICTURES] if value[row] >= 0]


def _card(record: RunRecord, found: Judged, row: int, k: int) -> dict[str, Any]:
    path = found.paths[row]
    data, problem = thumbnail(path, record, 240)
    there = [found.names[c] for c in np.flatnonzero(found.told.labels[row])]
    given = [found.names[c] for c in np.flatnonzero(found.given[row])]
    return {
        "path": path,
        "file": shorten(Path(path).name or path, 27),
        "said": found.names[k],
        "score": float(found.told.scores[row, k]),
        "there": few(there, 6) if there else "none of the classes",
        "given": few(given, 6) if given else "no label",
        "data": data,
        "overlay": overlay(path, found.names[k], record),
        "problem": problem,
    }


def together(record: RunRecord) -> Section | None:
    """Which labels stand beside which, in the truth and in the answers."""
    found = judged(record)
    if found is None or len(found.names) < 2:
        return None
    told = found.told
    sure = told.labels & told.known
    both = sure.T.astype(np.int64) @ sure
    answered = found.given.T.astype(np.int64) @ found.given
    rows = []
    first, second = np.triu_indices(len(found.names), 1)
    order = np.argsort(-both[first, second], kind="stable")[:_PAIRS]
    for a, b in zip(first[order].tolist(), second[order].tolist(), strict=True):
        if both[a, b]:
            rows.append({"names": listed([found.names[a], found.names[b]]),
                         "there": int(both[a, b]), "given": int(answered[a, b])})  # fmt: skip
    return _section("together", "Labels that come together", {"rows": rows}) if rows else None


_PAIRS = 15


SECTIONS = TaskSections(
    (counts, classes, confidence, calibration, together, mistakes),
    summary=summary,
    baseline=baseline,
    to_explain=to_explain,
    remark=figures.remark,
    class_figures=figures.OF_CLASSES,
)
