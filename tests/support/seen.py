"""Pictures as networks see them in evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from retinue.data.colour import Colour
from retinue.data.loader import Loader, in_order
from retinue.data.views import EvalView
from retinue.sample import Preprocessing, Sample


def pixels(samples: Sequence[Sample], preprocessing: Preprocessing) -> Tensor:
    """uint8 (n, 3, height, width), before their normalisation."""
    loader = Loader(EvalView(preprocessing))
    (batch,) = loader.batches(in_order(samples, len(samples), preprocessing.size))
    return batch.images


def inputs(samples: Sequence[Sample], preprocessing: Preprocessing) -> Tensor:
    """float32 (n, 3, height, width), normalised."""
    return Colour(preprocessing).normalised(pixels(samples, preprocessing))
