"""What detection adds to a run's page: sections and sentences, from its predictions."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from retinue.evaluation.coco import SIZES
from retinue.evaluation.detection import OF_CLASSES, figures_of, remark
from retinue.evaluation.detection_diagnosis import ABOUT_NOTHING, Scale, diagnose
from retinue.evaluation.detection_errors import Kind, confusion, costs, errors, taken
from retinue.evaluation.precision_recall import at, curves, pooled
from retinue.figures import COARSE, uncertainty, wilson
from retinue.page import curve_plots, plots
from retinue.page.confusion import confusion_section
from retinue.page.record import RunRecord, number
from retinue.page.section import Section, TaskSections
from retinue.page.text import percent
from retinue.tasks.detection import plots as drawings
from retinue.tasks.detection.examples import examples, label_suspects, to_explain
from retinue.tasks.detection.judged import Judged, judged
from retinue.tasks.detection.tables import BACKGROUND
from retinue.text import counted

TEMPLATES = Path(__file__).parent / "templates"
_section = partial(Section.of, TEMPLATES)
_FEW_STEPS = 500
"""No detector that begins with a backbone's weights finds much after so few."""
_KINDS = {
    "missed": ("missed", "an object about which no box is"),
    "background": ("false", "a box where no object is"),
    "localisation": ("loose", "on an object of its class, with an IoU from 0.1 to 0.5"),
    "class": ("wrong class", "on an object of another class"),
    "both": ("wrong class, loose", "it touches an object of another class"),
    "duplicate": ("again", "on an object that a better box found"),
}


def summary(record: RunRecord) -> str:
    """`3 classes`."""
    return counted(len(record.classes), "class", "classes") if record.classes else ""


def baseline(record: RunRecord) -> str:
    """How many objects the figures are of, and whether those are enough."""
    objects = record.metrics.get("objects")
    if not isinstance(objects, int) or objects < 1:
        return ""
    spread = uncertainty(objects)
    few = f": of so few, a share may be off by {100 * spread:.0f} percentage points either way"
    return f"They show {counted(objects, 'object')}{few if spread > COARSE else ''}."


def diagnosis(record: RunRecord) -> Section | None:
    """Why nothing is found, where nothing is."""
    found = judged(record)
    if found is None:
        return None
    reached = number(record.metrics.get("map50"))
    if reached is None:
        reached = figures_of(found.ranked.of, found.names, matches=found.ranked.matches)["map50"]
    if reached is None or reached >= ABOUT_NOTHING:
        return None
    said = diagnose(found.ranked.of, found.sizes, found.names, _scale(record))
    values = {"sentences": [*said, *_learning(record)], "map50": reached}
    return _section("diagnosis", "Why nothing is found", values)


def classes(record: RunRecord) -> Section | None:
    """The figures of each class."""
    rows = record.metrics.get("per_class")
    if not isinstance(rows, list) or not rows or "objects" not in rows[0]:
        return None
    shown = []
    for row in rows:
        objects, recall = row.get("objects") or 0, number(row.get("recall"))
        found = 0 if recall is None else round(recall * objects)
        shown.append(
            {
                **{key: row.get(key) for key in _COLUMNS},
                "name": str(row.get("name")),
                "objects": objects,
                "interval": wilson(found, objects) if objects else None,
            }
        )
    return _section("classes", "Class by class", {"rows": shown, "long": len(shown) > 25})


_COLUMNS = ("ap50", "ap50_95", "precision", "recall", "f1", "threshold", "found")


def confidence(record: RunRecord) -> Section | None:
    """Precision against recall, and what each confidence gives."""
    found = judged(record)
    if found is None or not found.answers.of.counted.any():
        return None
    by_class, together = curves(*found.ranked), pooled(*found.answers)
    drawn = [
        plots.draw(
            record,
            "precision_recall",
            curve_plots.precision_recall(
                by_class,
                found.names,
                title="Precision and recall at IoU 0.5",
                answers="boxes",
                wanted="objects",
            ),
            "Precision and recall",
        ),
        plots.draw(
            record,
            "confidence",
            curve_plots.confidence(together, found.best, answer="a box"),
            "Precision, recall and F1 by confidence",
        ),
    ]
    options = record.recipe.get("task_options")
    chosen = options.get("thresholds", "fixed") if isinstance(options, dict) else "fixed"
    values = {
        "plots": drawn,
        "best": found.best,
        "usual": at(together, 0.5),
        "fitted": chosen != "fixed",
    }
    return _section("confidence", "From which confidence on?", values)


def taken_for(record: RunRecord) -> Section | None:
    """Which class was taken for which, the background among them."""
    found = judged(record)
    if found is None or not (found.answers.of.counted.any() or found.chosen.any()):
        return None
    counts = confusion(*found.answers, found.chosen)
    return confusion_section(
        record,
        counts,
        [*found.names, BACKGROUND],
        intro="Each row is a true class, each column an answer; right answers lie on the diagonal."
        f" Boxes are those {_from(found)}; each has one object at most, whatever its class, that it"
        f" overlaps by an IoU of 0.5 or more. The row {BACKGROUND} holds boxes that found none"
        f" (second ones on an object among them), the column {BACKGROUND} objects without a box."
        " Shades show the share of the row.",
        unit="objects",
        nothing="No two classes were confused.",
    )


def mistakes(record: RunRecord) -> Section | None:
    """How many mistakes there are of each kind, and what they cost."""
    found = judged(record)
    if found is None or not found.answers.of.counted.any():
        return None
    tally = found.errors.counts()
    everything = errors(*found.answers, taken(found.answers.of, 0.0))
    cost = costs(*found.answers, everything)
    chosen = int(np.isin(found.errors.kind, (Kind.LEFT_OUT, Kind.IGNORED), invert=True).sum())
    objects = int(found.answers.of.counted.sum())
    most = max([*tally.values(), 1])
    rows = [
        {
            "name": name,
            "means": means,
            "count": tally[kind],
            "share": tally[kind] / max(objects if kind == "missed" else chosen, 1),
            "cost": cost[kind],
            "width": 100 * tally[kind] / most,
        }
        for kind, (name, means) in _KINDS.items()
    ]
    right = int((found.errors.kind == Kind.RIGHT).sum())
    values = {
        "rows": sorted(rows, key=lambda row: -float(row["cost"] or 0.0)),
        "from": _from(found),
        "right": right,
        "boxes": chosen,
        "objects": objects,
    }
    return _section("mistakes", "What goes wrong", values)


def sizes(record: RunRecord) -> Section | None:
    """How large the objects are, and which sizes are found."""
    found = judged(record)
    if found is None or not found.answers.of.counted.any():
        return None
    counted_ones = found.answers.of.counted
    area, hit = found.answers.of.area[counted_ones], found.errors.found[counted_ones]
    rows = []
    for name, (low, high) in SIZES.items():
        inside = (area >= low) & ((area < high) | (name == "large"))
        rows.append(
            {
                "name": name,
                "objects": int(inside.sum()),
                "found": float(hit[inside].mean()) if inside.any() else None,
                "map": number(record.metrics.get(f"map_{name}")),
            }
        )
    picture = plots.draw(
        record, "sizes", drawings.sizes(np.sqrt(np.maximum(area, 1e-3)), hit), "Objects by size"
    )
    return _section(
        "sizes", "Small and large", {"plot": picture, "rows": rows, "from": _from(found)}
    )


SECTIONS = TaskSections(
    (diagnosis, classes, confidence, mistakes, taken_for, sizes, examples, label_suspects),
    summary=summary,
    baseline=baseline,
    to_explain=to_explain,
    remark=remark,
    class_figures=OF_CLASSES,
)


def _from(found: Judged) -> str:
    """`with a confidence of 43 % or more`."""
    if isinstance(found.confidence, list):
        return "with the confidence that their class needs"
    return f"with a confidence of {percent(found.confidence, 0)} or more"


def _scale(record: RunRecord) -> Scale:
    """What the network saw of the images, as far as the run tells."""
    prepared, state = (record.environment.get(key) for key in ("preprocessing", "task_state"))
    size = prepared.get("size") if isinstance(prepared, dict) else None
    levels = state.get("anchors") if isinstance(state, dict) else None
    try:
        sides = (int(size[0]), int(size[1])) if isinstance(size, list) and len(size) == 2 else None
        shapes = [pair for level in levels for pair in level] if isinstance(levels, list) else []
        anchors = np.array(shapes, dtype=np.float64).reshape(-1, 2) if shapes else None
    except (TypeError, ValueError):  # edited by hand
        return Scale()
    return Scale(sides, anchors)


def _learning(record: RunRecord) -> list[str]:
    """What the length of the training and its loss say."""
    said = []
    steps = max((row["step"] for row in record.epochs if "step" in row), default=None)
    if steps is not None and steps < _FEW_STEPS:
        said.append(
            f"The training had {counted(int(steps), 'step')}: a detector needs some"
            " thousands, or weights of a detector to begin with."
        )
    losses = [row["train_loss"] for row in record.epochs if "train_loss" in row]
    if len(losses) < 2:
        return said
    first, last, least = losses[0], losses[-1], min(losses)
    if last > 1.5 * least and last >= first:
        said.append(
            f"The training loss rose, from {first:.3g} to {last:.3g}: a lower optimizer.lr, or"
            " clip_norm."
        )
    elif last > 0.9 * first:
        said.append(
            f"The training loss hardly fell, from {first:.3g} to {last:.3g}: more steps, or a"
            " higher optimizer.lr."
        )
    elif last < 0.97 * losses[-2]:
        said.append(
            f"The training loss was still falling at the end, from {losses[-2]:.3g} to"
            f" {last:.3g} in the last epoch: more epochs help."
        )
    return said
