"""How much each of several models counts where they answer together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

STEPS = 2_000
SMALLEST = 1e-3
"""What counts less than this does not count at all."""


def mixture_weights(own: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The weights, (m,) and 1 in sum, of the mixture of m models that makes n labels most likely.

    `own`: (n, m) log-probabilities that each model gives to the label of each image. The likelihood
    is concave in the weights, and expectation-maximisation (Dempster, Laird & Rubin, 1977) climbs
    to its one maximum. Without images all weigh the same.
    """
    count, models = own.shape
    weights = np.full(models, 1 / models)
    if not count:
        return weights
    own = np.maximum(own, -700.0)  # what all find impossible tells nothing of them
    likely = np.exp(own - own.max(axis=1, keepdims=True))
    for _ in range(STEPS):
        shares = likely * weights
        shares /= shares.sum(axis=1, keepdims=True)
        before, weights = weights, shares.mean(axis=0)
        if np.abs(weights - before).max() < 1e-7:
            break
    weights = np.where(weights < SMALLEST, 0, weights)
    return np.asarray(weights / weights.sum(), np.float64)
