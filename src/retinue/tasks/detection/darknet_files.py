"""A detector in Darknet's files as a model file's contents."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from retinue.modelfile import ModelDescription
from retinue.models.darknet import read_darknet
from retinue.tasks.detection.task import Detection


def take_in(
    description: Path, weights: Path, names: Path | None
) -> tuple[ModelDescription, dict[str, Tensor]]:
    """The network that the `.cfg` at `description` describes with the numbers of `weights`, and the
    classes of `names`, one a line (None: `class 0` and so on). Raises what `read_darknet` does."""
    found = read_darknet(description, weights, names)
    network = found.network
    state = {
        "anchors": network.anchors,
        "strides": list(network.strides),
        "scale_xy": list(network.scale_xy),
    }
    task = Detection(found.classes, state={key: value for key, value in state.items() if value})
    described = ModelDescription(
        task=task.name,
        task_options=task.options.model_dump(mode="json"),
        task_state=task.state(),
        classes=list(task.classes),
        network=network.name,
        arguments=dict(network.arguments),
        preprocessing=network.preprocessing.as_dict(),
    )
    return described, network.state_dict()
