"""Which samples make up which batch, planned ahead for a whole epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from retinue.data.random import draw

Indices = npt.NDArray[np.int64]


def epoch_plan(
    n: int,
    batch_size: int,
    *,
    seed: int = 0,
    epoch: int = 0,
    shuffle: bool = True,
    drop_last: bool = False,
    weights: Sequence[float] | npt.NDArray[np.floating] | None = None,
) -> list[Indices]:
    """The batches of one epoch: int64 positions among `n` samples, `batch_size` each.

    The batches are global: processes and accumulation steps divide them. `weights` (n,): draw with
    replacement, in proportion (see `balancing_weights`). `drop_last` leaves out a last batch that
    is not full, unless it is the only one. The same arguments always give the same plan.
    """
    if n < 1 or batch_size < 1:
        raise ValueError(f"cannot plan batches of {batch_size} from {n} samples")
    rng = draw(seed, epoch, 0, "epoch plan")
    if weights is not None:
        share = np.asarray(weights, dtype=np.float64)
        if share.shape != (n,) or not (share >= 0).all() or share.sum() <= 0:
            raise ValueError(f"weights must be {n} numbers ≥ 0, not all 0")
        order = rng.choice(n, size=n, replace=True, p=share / share.sum()).astype(np.int64)
    elif shuffle:
        order = rng.permutation(n).astype(np.int64)
    else:
        order = np.arange(n, dtype=np.int64)
    plan = [order[start : start + batch_size] for start in range(0, n, batch_size)]
    if drop_last and len(plan) > 1 and len(plan[-1]) < batch_size:
        plan.pop()
    return plan


def balancing_weights(labels: Sequence[int], power: float = 1.0) -> npt.NDArray[np.float64]:
    """(n,) weights with which every class is drawn equally often (`power` 1), or as it is (0)."""
    values = np.asarray(labels, dtype=np.int64)
    counts = np.bincount(values)
    share: npt.NDArray[np.float64] = (1.0 / counts[values]) ** power
    return share
