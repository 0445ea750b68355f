"""Model files whose description does not fit what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from retinue import modelfile
from retinue.errors import RetinueError
from retinue.inference.predictor import load
from retinue.modelfile import ModelDescription
from retinue.models import registry
from retinue.tasks.classification.task import Classification


def test_a_description_cannot_ask_for_more_memory_than_its_file_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100,000 classes of which the file has no rows: 100 MB here, and in a larger network 500."""
    network = registry.create_model("mobilenet_v1_025", num_classes=2)
    path = tmp_path / "lie.safetensors"
    classes = [f"class {i}" for i in range(100_000)]
    modelfile.write(
        path,
        network.state_dict(),
        ModelDescription(
            task="classification",
            classes=classes,
            network="mobilenet_v1_025",
            arguments=dict(network.arguments) | {"num_classes": len(classes)},
            preprocessing=network.preprocessing.as_dict(),
        ),
    )
    built: list[torch.device] = []
    build = Classification.build

    def watched(self: Classification, *how: Any) -> Any:
        made = build(self, *how)
        built.append(next(made.parameters()).device)
        return made

    monkeypatch.setattr(Classification, "build", watched)
    told = r"do not fit the model's own description: 2 of another shape .*lie\.safetensors, copy"
    with pytest.raises(RetinueError, match=told):
        load(path)
    assert [device.type for device in built] == ["meta"]
