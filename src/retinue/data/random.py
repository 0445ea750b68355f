"""Randomness that depends on what is drawn for, never on who draws it or when.

Every draw comes from a counter-based generator (Philox; Salmon et al., 2011) keyed by the seed, the
epoch, the sample's index and the operation, so that any number of workers, a resumed run and a
single image looked at alone all see the same numbers.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.random.bit_generator import ISeedSequence

_WORD = (1 << 64) - 1


@lru_cache(maxsize=256)
def _operation_key(operation: str) -> int:
    return int.from_bytes(hashlib.blake2b(operation.encode(), digest_size=8).digest(), "little")


class _Key(ISeedSequence):
    """A key that is there already. Philox's own `key=` first asks the system for entropy, which
    it then throws away: two thirds of the time."""

    def __init__(self, words: npt.NDArray[np.uint64]) -> None:
        self._words = words

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> npt.NDArray[np.uint64]:
        assert (n_words, dtype) == (2, np.uint64)
        return self._words


def draw(seed: int, epoch: int, index: int, operation: str) -> np.random.Generator:
    """A fresh generator for one operation on one sample in one epoch.

    The four are taken modulo 2^64 (the operation: its hash), and different ones give streams that
    never overlap: seed and operation are the key, index and epoch the upper half of the counter.
    """
    key = np.array([seed & _WORD, _operation_key(operation)], dtype=np.uint64)
    counter = np.array([0, 0, index & _WORD, epoch & _WORD], dtype=np.uint64)
    philox = np.random.Philox(_Key(key), counter=counter)  # type: ignore[arg-type]
    return np.random.Generator(philox)
