"""A small model file with odd classes, figures and a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from predictors import Tiny, describe, randomise

from retinue import modelfile
from retinue.models import registry


def written(path: Path, **changes: Any) -> Path:
    """The model file `path`; `changes`: of its description."""
    if "card_tiny" not in registry.list_models():
        registry.register(
            registry.NetworkEntry(
                name="card_tiny", family="card_tiny", build=Tiny,
                preprocessing=describe().prepared(), parameters=0, macs=0, paper="none",
                reference="none",
            )
        )  # fmt: skip
    classes = changes.pop("classes", ["no", "1.0", "a: b", "x|`y`"])
    torch.manual_seed(0)
    network = Tiny(num_classes=len(classes))
    randomise(network)
    described = describe(
        classes=classes,
        network="card_tiny",
        arguments={"num_classes": len(classes)},
        figures={"images": 40, "split": "val", "top1": 0.875, "loss": 0.5},
        recipe={
            "model": {"name": "mobilenet_v2_100", "weights": "imagenet"},
            "data": {"path": "flowers ```"},
        },
        versions={"retinue": "9.9"},
        **changes,
    )
    modelfile.write(path, network.state_dict(), described)
    return path
