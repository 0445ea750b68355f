"""Probabilities as a part of the graph."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from retinue.tasks.ending import Ending, Placed


class Probabilities(Ending):
    """Logits to `scores`, float32 (n, classes), that add up to 1, and `best`, int64 (n,): the
    number of the likeliest class."""

    def __init__(self, temperature: float, blend: float | None) -> None:
        super().__init__()
        self.temperature = temperature
        self.blend = 1.0 if blend is None else blend

    def forward(self, outputs: Any, placed: Placed) -> dict[str, Tensor]:
        """See `Ending`."""
        if not isinstance(outputs, dict):
            scores = (outputs / self.temperature).softmax(1)
        elif "auxiliary" not in outputs:
            scores = (outputs["logits"] / self.temperature).softmax(1)
        else:
            first, second = (outputs[key].softmax(1) for key in ("logits", "auxiliary"))
            mixed = self.blend * first + (1 - self.blend) * second
            scores = (mixed.clamp(min=1e-30).log() / self.temperature).softmax(1)
        return {"scores": scores, "best": scores.argmax(1)}
