"""The section of how many images of each class there are, and what that means for the figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from retinue.figures import small_splits
from retinue.page import splits
from retinue.page.record import RunRecord, picks
from retinue.page.section import Section
from retinue.text import listed, shorten

TEMPLATES = Path(__file__).parent / "templates"
_EVEN = ("balanced", "class_pairs", "repeat_factor", "weighted")
"""Samplers that show rare classes more often than they are there."""


def counts(record: RunRecord) -> Section | None:
    """How many images of each class there are in each split, and what that means."""
    return counts_section(record, _balance)


def counts_section(
    record: RunRecord, balance: Callable[[RunRecord, splits.Counts], list[str]]
) -> Section | None:
    """The same of any task that counts images of classes; `balance`: sentences about how uneven
    these are."""
    found = splits.counted(record)
    if found is None or not found.classes:
        return None
    train = found.images.get("train", 0)
    most = max((row.get("train", 0) for row in found.classes.values()), default=0)
    rows = []
    for name, of in found.classes.items():
        own = of.get("train", 0)
        share, width = own / max(train, 1), 100 * own / max(most, 1)
        rows.append({"name": name, "counts": list(of.values()), "share": share, "width": width})
    warnings = [
        s[:1].upper() + s[1:] + "." for s in small_splits(found.images, picks=picks(record))
    ]
    for split in found.images:
        if lacking := found.without(split):
            what = "nothing can be learnt of" if split == "train" else "nothing is known of"
            warnings.append(f"The {split} split has no images of {listed(lacking)}: {what} "
                            f"{'it' if len(lacking) == 1 else 'them'} there.")  # fmt: skip
    sentences = [*warnings, *balance(record, found)]
    values = {
        "rows": rows,
        "splits": list(found.images),
        "totals": list(found.images.values()),
        "sentences": sentences,
        "warnings": len(warnings),
        "long": len(rows) > 25,
    }
    return Section("counts", "Images of each class", TEMPLATES / "counts.html", values)


def _balance(record: RunRecord, found: splits.Counts) -> list[str]:
    """How uneven the classes are, and what helps."""
    extremes = found.extremes()
    if extremes is None or extremes[0][1] < splits.UNEVEN * extremes[1][1]:
        return []
    (large, most), (small, fewest) = extremes
    ratio = f"{most / fewest:.0f}" if most >= 10 * fewest else f"{most / fewest:.1f}"
    said = (
        f"The classes are uneven: “{shorten(large, 40)}” has {ratio} times as many training images"
        f" as “{shorten(small, 40)}” ({most:,} and {fewest:,}). "
    )
    if answers := _answers(record.recipe):
        return [said + f"The training evens that out: {', '.join(answers)}."]
    said += (
        "If the rare ones matter as much, task_options.class_weights=balanced makes every class"
        " count the same in the loss, or stages.0.sampler=balanced shows all equally often"
    )
    if picks(record):
        said += "; evaluation.metric=balanced_accuracy picks the epoch by all of them alike"
    return [said + "."]


def _answers(recipe: dict[str, Any]) -> list[str]:
    """What of a recipe evens the classes out, as `key=value`."""
    options, stages = recipe.get("task_options"), recipe.get("stages")
    weights = options.get("class_weights", "none") if isinstance(options, dict) else "none"
    found = [] if weights == "none" else [
        f"task_options.class_weights={weights if isinstance(weights, str) else 'own'}"]  # fmt: skip
    if isinstance(options, dict) and options.get("logit_adjustment"):
        found.append(f"task_options.logit_adjustment={options['logit_adjustment']:g}")
    for index, stage in enumerate(stages if isinstance(stages, list) else []):
        sampler = stage.get("sampler") if isinstance(stage, dict) else None
        name = sampler.get("name") if isinstance(sampler, dict) else sampler
        if name in _EVEN:
            found.append(f"stages.{index}.sampler={name}")
    return found
