"""The tasks that come with the package, and what is told of their runs: known without importing any
of them, nor torch, so that a report is there at once."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from retinue.errors import UsageError


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
    usual: str
    """The recipe for data that comes without one: its name itself."""
    networks: str
    """The kind of those of the zoo's networks that are its own."""
    tried: tuple[str, ...]
    """The recipes that `auto` compares, their names themselves: the first one, which is quick,
    compares networks, too."""
    untrained: str = ""
    """The recipe for networks without weights: its name itself; empty: there is none."""
    of_data: Mapping[str, str] = MappingProxyType({})
    """What else it does with a data set: the command's name below `retinue data`, and where it
    is."""
    writes: Mapping[str, str] = MappingProxyType({})
    """The formats of data sets that `retinue data convert` writes for it, and where that is
    done."""
    takes_in: Mapping[str, str] = MappingProxyType({})
    """Other programs' models that it makes its own: the suffix of what describes the network, and
    where it is done."""
    in_words: str = ""
    """What a model of it does, in a model card: `A model for …`."""
    on_hubs: str = ""
    """What hubs call it: the `pipeline_tag` of a model card."""


SHIPPED = {
    "classification": Shipped(
        task="retinue.tasks.classification.task:Classification",
        figures_among="retinue.evaluation.classification:declared_among",
        sections="retinue.tasks.classification.sections:SECTIONS",
        remark="retinue.evaluation.classification:remark",
        default_metric="top1",
        usual="finetune",
        networks="classifier",
        tried=("linear-probe", "finetune"),
        untrained="scratch",
        writes=dict.fromkeys(("tfrecord", "webdataset"), "retinue.data.shard_conversion:convert"),
        in_words="image classification",
        on_hubs="image-classification",
    ),
    "detection": Shipped(
        task="retinue.tasks.detection.task:Detection",
        figures_among="retinue.evaluation.detection:declared_among",
        sections="retinue.tasks.detection.sections:SECTIONS",
        remark="retinue.evaluation.detection:remark",
        default_metric="map50",
        usual="detect",
        networks="detector",
        tried=("detect",),
        of_data={
            "anchors": "retinue.tasks.detection.data_anchors:fit_anchors",
        },
        writes=dict.fromkeys(("voc", "coco", "yolo", "csv"), "retinue.data.conversion:convert"),
        takes_in={".cfg": "retinue.tasks.detection.darknet_files:take_in"},
        in_words="object detection",
        on_hubs="object-detection",
    ),
    "multilabel": Shipped(
        task="retinue.tasks.multilabel.task:Multilabel",
        figures_among="retinue.evaluation.multilabel:declared_among",
        sections="retinue.tasks.multilabel.sections:SECTIONS",
        remark="retinue.evaluation.multilabel:remark",
        default_metric="map",
        usual="multi-label",
        networks="classifier",
        tried=("multi-label",),
        in_words="images with any number of labels each",
        on_hubs="image-classification",
    ),
}

DEFAULT = "classification"
"""The task of a recipe, or of a run's folder, that names none."""


def doing(command: str, task: str | None = None) -> tuple[str, Any]:
    """The task that has `command` for data sets, the first one or `task`, and the function.
    Raises UsageError where it has none."""
    for name, there in SHIPPED.items():
        if command in there.of_data and task in (None, name):
            return name, imported(there.of_data[command])
    raise UsageError(f"the task {task!r} has no data {command}", where="key task")


def writing(form: str, task: str | None = None) -> tuple[str, Any]:
    """The task whose data sets are written in the format `form`, as it is called here or where it
    is read, and the function. Raises UsageError where none is."""
    for name, there in SHIPPED.items():
        if form in there.writes and task in (None, name):
            return name, imported(there.writes[form])
    for name, there in SHIPPED.items():
        formats: Mapping[str, str] = imported(there.task).formats if there.writes else {}
        for place in formats.values():
            reader = imported(place)
            called = {reader.name, *reader.also}
            if form in called and task in (None, name):
                for known in there.writes:
                    if known in called:
                        return name, imported(there.writes[known])
    written = [known for there in reversed(SHIPPED.values()) for known in there.writes]
    raise UsageError(
        f"unknown format {form!r}", where="key to", mend=f"there are {', '.join(written)}"
    )


def taking_in(description: Path) -> Any:
    """The function for another program's model that `description` tells of. Raises UsageError for
    what no task knows."""
    known = {
        suffix: place for there in SHIPPED.values() for suffix, place in there.takes_in.items()
    }
    place = known.get(description.suffix.lower())
    if place is None:
        raise UsageError(
            f"{description.suffix or 'a name without a suffix'} describes no network that is known",
            where=repr(str(description)),
            mend=f"give one of: {', '.join(known)}; other weights are taken up by model.weights",
        )
    return imported(place)


def imported(place: str) -> Any:
    """What `module:attribute` names."""
    module, attribute = place.split(":")
    return getattr(importlib.import_module(module), attribute)
