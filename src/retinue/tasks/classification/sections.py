"""What classification adds to a run's page: sections and sentences, from its predictions (or,
without them, its confusion matrix)."""

from __future__ import annotations

from functools import partial

import numpy as np

from retinue.evaluation import classification as figures
from retinue.figures import COARSE, uncertainty, wilson
from retinue.page import plots, statistics
from retinue.page.confusion import confusion_section
from retinue.page.record import RunRecord, number
from retinue.page.section import Section, TaskSections, Unexplained
from retinue.page.text import percent
from retinue.tasks.classification.confused import CARDS, anchor, confused, confused_rows
from retinue.tasks.classification.counts import TEMPLATES, counts
from retinue.tasks.classification.divided import divided
from retinue.tasks.classification.members import anchor as members_anchor
from retinue.tasks.classification.members import members, shown
from retinue.tasks.classification.scored import Scored, card, names_of, scored
from retinue.tasks.classification.suspects import available, suspects
from retinue.text import counted, shorten

_MISTAKES = 24

_section = partial(Section.of, TEMPLATES)


def summary(record: RunRecord) -> str:
    """`3 classes`."""
    return counted(len(record.classes), "class", "classes") if record.classes else ""


def baseline(record: RunRecord) -> str:
    """What always answering the most frequent class would reach."""
    rows = scored(record)
    if rows is None or not record.classes:
        return ""
    counts = np.bincount(rows.labels, minlength=len(record.classes))[: len(record.classes)]
    k = int(counts.argmax())
    share = counts[k] / max(1, counts.sum())
    name = shorten(record.classes[k], 60)
    return f"Answering “{name}” for every image would be right for {percent(share)}."


def confusion(record: RunRecord) -> Section | None:
    """Which class was taken for which."""
    found = record.derived(_confusion)
    if found is None:
        return None
    counts, names = found
    shown = confused_rows(record)
    return confusion_section(
        record,
        counts,
        names,
        intro="Each row is a true class, each column an answer; right answers lie on the diagonal."
        " Shades show the share of the row.",
        unit="images",
        nothing="No image was mistaken.",
        anchor=lambda true, said: anchor(true, said) if (true, said) in shown else "",
    )


def classes(record: RunRecord) -> Section | None:
    """Precision, recall, specificity and F1 of each class."""
    found = record.derived(_confusion)
    if found is None:
        return None
    counts, names = found
    rows = figures.per_class(counts, names)
    hits, answers, _ = figures.tallies(counts, len(names))
    pictured = set(shown(record))
    for k, (row, hit, answered) in enumerate(
        zip(rows, hits.tolist(), answers.tolist(), strict=True)
    ):
        row["anchor"] = members_anchor(k) if k in pictured else ""
        row["interval"] = wilson(hit, row["support"])
        row["predicted"] = answered
    return _section("classes", "Class by class", {"rows": rows, "long": len(rows) > 25})


def calibration(record: RunRecord) -> Section | None:
    """Whether a score of 0.8 is right in 8 of 10 cases."""
    rows = scored(record)
    if rows is None:
        return None
    bins = figures.calibration_bins(rows.labels, rows.scores)
    return _section(
        "calibration",
        "Can the scores be believed?",
        {
            "plot": plots.draw(record, "calibration", plots.calibration(bins), "Calibration plot"),
            "ece": figures.expected_calibration_error(rows.labels, rows.scores),
            "confidence": float(rows.scores.max(axis=1).mean(dtype=np.float64)),
            "accuracy": float((rows.predicted == rows.labels).mean()),
            "few": uncertainty(len(rows.labels)) > COARSE,
            "temperature": _temperature(record, rows),
        },
    )


def _temperature(record: RunRecord, rows: Scored) -> str:
    """What was fitted on the validation split, and what it did to these images."""
    fitted = record.environment.get("fitted")
    if not isinstance(fitted, dict):
        return ""  # older, or no run at all
    warmth = number(fitted.get("temperature"))
    if warmth is None or warmth <= 0:
        return (
            "No temperature was fitted: the validation split did not bear one out, or none was"
            " wanted (task_options.calibration)."
        )
    said = f"The logits are divided by {warmth:.3g}, a temperature fitted on the validation split"
    if record.metrics.get("tta") != "none":  # of merged answers, those of one view are not known
        return f"{said}."
    options = record.recipe.get("task_options")
    always = isinstance(options, dict) and options.get("calibration") == "temperature"
    without = "" if always else " The curves of the training are without it."
    before = figures.at_temperature(rows.scores, 1 / warmth)
    loss, error = (
        [f(rows.labels, scores) or 0.0 for scores in (before, rows.scores)]
        for f in (figures.log_loss, figures.expected_calibration_error)
    )
    return (
        f"{said}: on these images that took the loss from {loss[0]:.3f} to {loss[1]:.3f}, and the"
        f" gap from {percent(error[0])} to {percent(error[1])}. Which answer is best stays."
        f"{without}"
    )


def threshold(record: RunRecord) -> Section | None:
    """For two classes: the ROC, and what other thresholds than ½ would give."""
    rows = scored(record)
    if rows is None or rows.scores.shape[1] != 2:
        return None
    positive, score = rows.labels == 1, rows.scores[:, 1]
    auc = figures.area_under_roc(positive, score)
    if auc is None:
        return None
    curve = figures.threshold_curve(positive, score)
    share = float(positive.mean())
    for row in curve:
        tpr, fpr = row["tpr"] or 0.0, row["fpr"] or 0.0
        row["accuracy"] = share * tpr + (1 - share) * (1 - fpr)
    drawn = [
        plots.draw(record, "roc", plots.roc(curve, auc), f"ROC curve, area {auc:.3f}"),
        plots.draw(
            record, "threshold", plots.threshold(curve), "Precision and recall by threshold"
        ),
    ]
    best = max(curve, key=lambda row: row["accuracy"] or 0.0)
    return _section(
        "threshold",
        "Where to draw the line",
        {"plots": drawn, "auc": auc, "positive": names_of(record, 2)[1], "best": best},
    )


def mistakes(record: RunRecord) -> Section | None:
    """The wrong answers with the highest scores, as pictures."""
    rows = scored(record)
    if rows is None:
        return None
    wrong = int((rows.predicted != rows.labels).sum())
    cards = [card(record, rows, row, why=True) for row in _most_confident(rows)]
    return _section(
        "mistakes",
        "The most confident mistakes",
        {
            "cards": cards,
            "cards_template": CARDS,
            "wrong": wrong,
            "images": len(rows.labels),
            "explained": any(one["overlay"] for one in cards),
            "suspects": "" if available() else "pip install 'retinue[labels]'",
        },
    )


def to_explain(record: RunRecord) -> list[Unexplained]:
    """The wrong answers that `mistakes` shows."""
    rows = scored(record)
    if rows is None:
        return []
    names = names_of(record, rows.scores.shape[1])
    return [
        Unexplained(rows.paths[k], names[int(rows.predicted[k])]) for k in _most_confident(rows)
    ]


def _most_confident(rows: Scored) -> list[int]:
    """The rows of the mistakes with the highest scores."""
    chosen: list[int]
    chosen = statistics.confident_mistakes(rows.labels, rows.scores, _MISTAKES).tolist()
    return chosen


SECTIONS = TaskSections(
    (counts, confusion, classes, calibration, threshold, mistakes, confused, members, suspects),
    summary=summary,
    baseline=baseline,
    to_explain=to_explain,
    remark=figures.remark,
    class_figures=figures.OF_CLASSES,
    compared=divided,
)


def _confusion(record: RunRecord) -> tuple[figures.Confusion, list[str]] | None:
    """The matrix and the name of each of its classes, from whichever file has it."""
    table = record.table("confusion.parquet")
    if table is not None:
        counts, names = figures.confusion_in(table)
        return counts, list(names)
    rows = scored(record)
    if rows is not None:
        counts = figures.confusion_counts(rows.labels, rows.predicted)
        return counts, names_of(record, rows.scores.shape[1])
    given = np.asarray(record.metrics.get("confusion") or (), dtype=np.int64)
    if given.ndim != 2 or given.shape[0] != given.shape[1]:
        return None
    true, predicted = np.nonzero(given)  # version 0.1 kept it there
    counts = figures.Confusion(true, predicted, given[true, predicted])
    return counts, names_of(record, len(given))
