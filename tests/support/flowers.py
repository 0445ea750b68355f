"""Four answers of a classifier of three flowers, for tests of the task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retinue.data.targets.one_class import OneClass
from retinue.sample import Batch, Sample, Target
from retinue.tasks.classification.task import Classification, ClassificationOptions

NAMES = ["lily", "rose", "tulip"]
LOGITS = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0], [-1.0, 3.0, 0.5], [0.1, 0.2, 0.3]])
LABELS = torch.tensor([0, 1, 2, 2])


def task(classes: Sequence[str] = NAMES, **options: Any) -> Classification:
    return Classification(classes, ClassificationOptions(**options))


def samples(targets: Sequence[Target | int | None], names: Sequence[str] = ()) -> list[Sample]:
    """A sample for each; a number is the index of a flower."""
    known = [OneClass(t, len(NAMES)) if isinstance(t, int) else t for t in targets]
    keys = names or [f"{k}.jpg" for k in range(len(known))]
    return [Sample(key, target=target) for key, target in zip(keys, known, strict=True)]


def batch_of(n: int) -> Batch:
    """A batch of black images of which nothing is known."""
    return Batch(
        images=torch.zeros(n, 3, 4, 4, dtype=torch.uint8),
        samples=samples([None] * n),
        keys=np.arange(n),
        weight=torch.ones(n),
        to_original=np.stack([np.eye(3)] * n),
        original_size=np.full((n, 2), 4),
    )


def findings(logits: Tensor = LOGITS, of: Classification | None = None) -> list[Any]:
    """What the task reads off these logits."""
    return (of or task()).decode(logits, batch_of(len(logits)))
