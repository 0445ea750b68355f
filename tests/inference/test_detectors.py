"""Detectors of the zoo in every engine: dicts of maps, and the trunks below their necks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from retinue.inference.agreement import agrees
from retinue.inference.engines import compile_engine, installed
from retinue.inference.names import EngineName
from retinue.models.network import Network
from retinue.models.registry import create_model
from retinue.training.features.frozen import Trunk

DETECTORS: dict[str, dict[str, Any]] = {
    "yolov3": {"backbone": "mobilenet_v2_035", "num_classes": 2},
    "yolov3_tiny": {"num_classes": 2},
    "darknet": {},
}
SLOW = ("yolov3", "onnxruntime")
"""Exporting all of MobileNetV2's layers takes half a minute."""
CASES = [
    pytest.param(name, engine, marks=[pytest.mark.slow] * ((name, engine) == SLOW))
    for name in DETECTORS
    for engine in ("openvino", "onnxruntime")
]


def build(name: str) -> Network:
    """With statistics and shifts, so that no layer is all but idle."""
    torch.manual_seed(0)
    network = create_model(name, **DETECTORS[name]).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return network


@pytest.mark.parametrize(("name", "engine"), CASES)
def test_maps_agree(name: str, engine: EngineName) -> None:
    if not installed(engine):
        pytest.skip(f"needs {engine}")
    network = build(name)
    made = compile_engine(network, torch.randn(2, 3, 64, 96), engine=engine)
    x = torch.randn(3, 3, 64, 96)
    answer: Any = made(x)
    assert set(answer) == {"levels"}
    assert isinstance(answer["levels"], tuple)
    assert [m.shape[0] for m in answer["levels"]] == [3] * len(answer["levels"])
    assert agrees(made, network, x).accepted


@pytest.mark.parametrize(("name", "engine"), CASES)
def test_trunks_agree(name: str, engine: EngineName) -> None:
    """Up to the neck; of what a `.cfg` describes, in the midst of the graph."""
    if not installed(engine):
        pytest.skip(f"needs {engine}")
    network = build(name)
    cuts = network.cuts()
    cut = cuts[len(cuts) // 2] if name == "darknet" else cuts[-2]
    trunk = Trunk(network, cut).eval()
    made = compile_engine(trunk, torch.randn(2, 3, 64, 96), engine=engine)
    x = torch.randn(3, 3, 64, 96)
    with torch.inference_mode():
        assert isinstance(trunk(x), tuple)  # with taps
        levels = network(made(x), start=cut)["levels"]
        expected = network(x)["levels"]
    assert agrees(made, trunk, x).accepted
    for ours, theirs in zip(levels, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.std()))
