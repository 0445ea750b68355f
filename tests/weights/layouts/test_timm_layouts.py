"""Checkpoints of any network that timm has, and our own of it: told apart by the network's keys."""

from __future__ import annotations

import pytest
import torch

from retinue.weights.layout import Shapes, recognise, settled, translate

HEAD = {"head.fc.weight": (5, 3), "head.fc.bias": (5,)}
RESNET: Shapes = {"body.conv1.weight": (2, 3, 1, 1), "body.bn1.weight": (2,), **HEAD}
TRESNET: Shapes = {"body.body.conv1.0.weight": (2, 3, 1, 1), "body.body.bn.weight": (2,), **HEAD}
"""timm calls what lies before its head `body`, as we call all of it."""


def _state(shapes: Shapes) -> dict[str, torch.Tensor]:
    return {key: torch.full(shape, float(k)) for k, (key, shape) in enumerate(shapes.items())}


@pytest.mark.parametrize("shapes", [RESNET, TRESNET])
@pytest.mark.parametrize("classifier", ["head.fc", "fc", "head"])
def test_timms_and_ours_are_told_apart(shapes: Shapes, classifier: str) -> None:
    own = _state(shapes)
    theirs = {
        key.removeprefix("body.").replace("head.fc", classifier): tensor
        for key, tensor in own.items()
    }
    for state, source in ((own, "retinue"), (theirs, "timm")):
        layout = settled(recognise(state, "timm"), state, shapes)
        assert layout.source == source
        found = translate(layout, state, shapes)
        assert {key: found[key] for key in shapes} == own
