"""What a row on disk holds: arrays of the same shapes in every row, or bytes of its own length."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
Keys = Sequence[bytes] | npt.NDArray[np.uint8]
"""n of 16 bytes each, or (n, 16)."""
_ENTRY = np.dtype([("key", "u1", (16,)), ("check", "<u4")])
_PIECE = np.dtype([("key", "u1", (16,)), ("check", "<u4"), ("end", "<u8")])


class Field(NamedTuple):
    """One array of a row."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Layout:
    """The arrays that make up a row: (name, dtype, shape) each."""

    entry = _ENTRY
    """What stands in the keys' file for a row."""

    def __init__(self, fields: Iterable[tuple[str, str, Sequence[int]]]) -> None:
        self.fields = [Field(n, np.dtype(d).name, tuple(map(int, s))) for n, d, s in fields]
        # Aligned, or PyTorch could not see the fields of records as tensors.
        self.dtype = np.dtype(
            [(f.name, np.dtype(f.dtype).newbyteorder("<"), f.shape) for f in self.fields],
            align=True,
        )

    def as_json(self) -> list[list[Any]]:
        """Plain JSON values."""
        return [[f.name, f.dtype, list(f.shape)] for f in self.fields]

    def bytes_of(self, rows: int) -> int:
        """What `rows` rows take on disk."""
        return rows * (self.dtype.itemsize + _ENTRY.itemsize)

    def ends(self, entries: npt.NDArray[Any]) -> Rows:
        """(n,) where the rows of `entries` end, in bytes."""
        return np.arange(1, len(entries) + 1, dtype=np.int64) * self.dtype.itemsize

    def pack(self, values: Mapping[str, npt.NDArray[Any]], count: int) -> npt.NDArray[np.void]:
        """`count` records of `values[name]`, (count, *shape) each; ValueError if they differ."""
        if set(values) != {f.name for f in self.fields}:
            raise ValueError(f"the layout has {[f.name for f in self.fields]}, not {list(values)}")
        records = np.zeros(count, self.dtype)  # also between the fields
        for f in self.fields:
            value = values[f.name]
            if value.shape != (count, *f.shape) or value.dtype != np.dtype(f.dtype):
                raise ValueError(f"{f.name} has {value.shape} {value.dtype} for {count} rows: {f}")
            records[f.name] = value
        return records


class Pieces(Layout):
    """Rows that are bytes, each of a length of its own."""

    entry = _PIECE
    _NAMED: ClassVar[list[list[Any]]] = [["piece", "uint8", [-1]]]

    def __init__(self) -> None:
        super().__init__([])

    def as_json(self) -> list[list[Any]]:
        """Plain JSON values."""
        return self._NAMED

    def ends(self, entries: npt.NDArray[Any]) -> Rows:
        """See `Layout`; of a damaged file anything."""
        return entries["end"].astype(np.int64)


def layout_of(written: Any) -> Layout:
    """The layout that `as_json` gave `written` of."""
    pieces = Pieces()
    return pieces if written == pieces.as_json() else Layout(written)


def as_text(keys: Keys) -> npt.NDArray[np.bytes_]:
    """(n,) of 16 bytes, which sort and compare as a whole."""
    if not isinstance(keys, np.ndarray):
        if any(len(key) != 16 for key in keys):
            raise ValueError("a key has 16 bytes")
        keys = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16)
    return np.ascontiguousarray(keys).view("S16")[:, 0]
