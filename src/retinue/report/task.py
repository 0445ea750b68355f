"""What the report asks the task of a run. Nothing else of the report knows a task by its name.

A task that is not installed here still gets its page, from what every task's run holds: its figures
under their plain names, and no sections of its own. A folder that names no task is of the default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinue.errors import UsageError
from retinue.figures import Figure, plain
from retinue.page.record import RunRecord, number
from retinue.page.section import TaskSections
from retinue.tasks.shipped import DEFAULT, SHIPPED, imported

if TYPE_CHECKING:
    from retinue.tasks.task import Task

_NO_FIGURES = {"images", "images_per_second"}
"""Numbers of `metrics.json` that every run has and that judge nothing."""


def figures_of(record: RunRecord) -> list[Figure]:
    """The figures that the run's task declares; of an unknown task, one for each number."""
    names = [name for name, value in record.metrics.items() if number(value) is not None]
    names += [name[4:] for row in record.epochs for name in row if name.startswith("val_")]
    if (shipped := SHIPPED.get(record.task or DEFAULT)) is not None:
        declared: list[Figure] = imported(shipped.figures_among)(names, record.classes)
        return declared
    try:
        return _task_type(record.task).figures_among(names, record.classes)
    except UsageError:  # of another installation
        return [plain(name) for name in dict.fromkeys(names) if name not in _NO_FIGURES]


def sections_of(task: str) -> TaskSections:
    """What the task adds to the page."""
    if (shipped := SHIPPED.get(task or DEFAULT)) is not None:
        sections: TaskSections = imported(shipped.sections)
        return sections
    try:
        return _task_type(task).sections()
    except UsageError:  # of another installation
        return TaskSections()


def remark_of(record: RunRecord) -> str:
    """What the figures leave out, in sentences."""
    if (shipped := SHIPPED.get(record.task or DEFAULT)) is not None:
        return str(imported(shipped.remark)(record.metrics))
    return sections_of(record.task).remark(record.metrics)


def watched_by(record: RunRecord) -> str:
    """The name of the figure that chose the weights: the recipe's, or else its task's."""
    evaluation = record.recipe.get("evaluation")
    chosen = evaluation.get("metric") if isinstance(evaluation, dict) else None
    if chosen:
        return str(chosen)
    if (shipped := SHIPPED.get(record.task or DEFAULT)) is not None:
        return shipped.default_metric
    try:
        return _task_type(record.task).default_metric
    except UsageError:  # of another installation
        return "loss"


def _task_type(name: str) -> type[Task]:
    """Only for a task that the package does not ship: importing the others takes torch along."""
    from retinue.tasks.task import task_type

    return task_type(name)
