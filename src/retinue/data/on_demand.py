"""Columns of many values that are made when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]
_T = TypeVar("_T")


class Column(Sequence[_T], Generic[_T]):
    """Values by their positions."""

    def take(self, positions: Positions) -> Column[_T]:
        """Those at `positions`, in this order."""
        raise NotImplementedError

    def _value(self, k: int) -> _T:
        raise NotImplementedError

    @overload
    def __getitem__(self, k: int) -> _T: ...
    @overload
    def __getitem__(self, k: slice) -> Column[_T]: ...
    def __getitem__(self, k: int | slice) -> _T | Column[_T]:
        if isinstance(k, slice):
            return self.take(np.arange(len(self))[k])
        return self._value(range(len(self))[k])


class Repeated(Column[str]):
    """Few texts many times: `codes` (n,) are positions in `texts`."""

    def __init__(self, texts: Sequence[str], codes: npt.NDArray[np.int32]) -> None:
        self.texts = texts
        self.codes = codes

    def __len__(self) -> int:
        return len(self.codes)

    def _value(self, k: int) -> str:
        return self.texts[int(self.codes[k])]

    def __contains__(self, text: Any) -> bool:
        codes = np.array([k for k, t in enumerate(self.texts) if t == text], np.int32)
        return bool(np.isin(self.codes, codes).any())

    def take(self, positions: Positions) -> Repeated:
        """See `Column`."""
        return Repeated(self.texts, self.codes[positions])
