"""Probabilities and labels as a part of the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from retinue.tasks.ending import Ending, Placed


class Labels(Ending):
    """Logits to `scores`, float32 (n, classes), and `given`, int64 (n, classes): 1 where a label
    reaches its threshold."""

    least: Tensor

    def __init__(self, thresholds: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("least", torch.tensor(list(thresholds), dtype=torch.float32))

    def forward(self, outputs: Any, placed: Placed) -> dict[str, Tensor]:
        """See `Ending`."""
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs
        scores = logits.sigmoid()
        return {"scores": scores, "given": (scores >= self.least).long()}
