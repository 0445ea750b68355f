"""Networks that engines are tried on, and engines that are as fast as a test says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from retinue.inference import engines
from retinue.inference.engines import installed


class Tiny(nn.Module):
    """Convolution, BatchNorm with statistics, dropout, and a head: eval mode matters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 5)
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.drop(self.norm(self.conv(x)).relu().mean((2, 3))))
        return out


class Detector(nn.Module):
    """Nested in, nested out, with what tracers stumble over: whole numbers, a mask, a constant, an
    input handed through, and one tensor twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 5, 3)

    def forward(self, x: dict[str, Any]) -> dict[str, Any]:
        fine, (coarse,) = x["levels"]
        boxes = self.conv(fine).mean((2, 3)) + coarse.mean((2, 3))[:, :1]
        return {
            "scores": boxes.softmax(1),
            "boxes": [boxes, (boxes * 2, coarse)],
            "best": boxes.argmax(1) + x["offset"],
            "mask": boxes > 0,
            "grid": torch.arange(6.0).reshape(3, 2),
            "again": (boxes,),
        }


def nested_inputs(n: int) -> dict[str, Any]:
    levels = (torch.randn(n, 4, 6, 6), [torch.randn(n, 2, 3, 3)])
    return {"offset": torch.arange(n), "levels": levels}


def need(engine: str) -> None:
    if not installed(engine):
        pytest.skip(f"needs {engine}")


def timed(monkeypatch: pytest.MonkeyPatch, **speeds: float) -> list[list[str]]:
    """Let engines be as fast as `speeds` say, in images a second; gives those of each race."""
    races: list[list[str]] = []

    def race(runs: Mapping[str, Any]) -> dict[str, float]:
        races.append(list(runs))
        return {name: 4 / speeds[name.replace(" ", "_")] for name in runs}

    monkeypatch.setattr(engines, "race", race)
    monkeypatch.setattr(engines, "IMAGES", 4)
    return races
