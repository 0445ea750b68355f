"""The tasks that come with the package, and what is told of their runs: known without importing any
of them, nor torch, so that a report is there at once."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple


class Shipped(NamedTuple):
    """Where a task and its parts are, as `module:attribute`."""

    task: str
    figures_among: str
    sections: str
    """The `TaskSections` that its `sections()` gives."""
    remark: str
    """That of its sections."""
    default_metric: str
    """The figure's name itself."""


SHIPPED = {
    "classification": Shipped(
        task="retinue.tasks.classification.task:Classification",
        figures_among="retinue.evaluation.classification:declared_among",
        sections="retinue.tasks.classification.sections:SECTIONS",
        remark="retinue.evaluation.classification:remark",
        default_metric="top1",
    ),
    "detection": Shipped(
        task="retinue.tasks.detection.task:Detection",
        figures_among="retinue.evaluation.detection:declared_among",
        sections="retinue.tasks.detection.sections:SECTIONS",
        remark="retinue.evaluation.detection:remark",
        default_metric="map50",
    ),
}

DEFAULT = "classification"
"""The task of a recipe, or of a run's folder, that names none."""


def imported(place: str) -> Any:
    """What `module:attribute` names."""
    module, attribute = place.split(":")
    return getattr(importlib.import_module(module), attribute)
