"""Many images with what is known of them, held by columns instead of an object a row."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from retinue.data.on_demand import Column
from retinue.data.sources.words import ORDER
from retinue.sample import Read, Target

Names = Any
"""A `pyarrow.LargeBinaryArray`: names of files as the system's bytes, which need not be UTF-8."""
_CHUNK = 4_096
NONE = -1
"""In an array of codes: there is none."""


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a data set."""

    path: Path | None
    """None: the image lies in no file of its own; `read` gives it, and it is called by its name."""
    name: str
    """Path relative to the data's root, with `/`, in Unicode NFC: what splits are drawn by."""
    target: Target | None
    """With the classes' names."""
    split: str | None = None
    """`train`, `val` or `test`, where the data says so."""
    fold: str | None = None
    """Of a cross-validation, where the data says so."""
    group: str | None = None
    """Images of one group stay together."""
    stratum: str = ""
    """Split evenly over these, too."""
    weight: float = 1.0
    read: Read | None = None
    """Where the image comes from; None: the file at `path`."""
    shard: str = ""
    """The file that holds the image among others; empty: none."""

    @property
    def key(self) -> str:
        """The path as it was found, or the name."""
        return self.name if self.path is None else str(self.path)


@dataclass(frozen=True, eq=False)
class Records(Sequence[Record]):
    """`n` images; a `Record` is made when it is asked for. Columns that are None hold the default
    of every row."""

    names: Names
    """(n,) what each is called."""
    targets: Sequence[Target]
    """Every target that occurs, once or oftener."""
    target: npt.NDArray[np.int64]
    """(n,) positions in `targets`; `NONE`: nothing is known of the image."""
    root: Path = field(default_factory=Path)
    """Where `files` start from."""
    files: Names | None = None
    """(n,) each image's file, from `root` or absolute; null: it lies in none."""
    split: npt.NDArray[np.int8] | None = None
    """(n,) positions in `ORDER`; `NONE`: the data does not say."""
    fold: Names | None = None
    group: Names | None = None
    stratum: Names | None = None
    weight: npt.NDArray[np.float64] | None = None
    read: Sequence[Read | None] | None = None
    shard: Sequence[str] | None = None

    @classmethod
    def of(cls, records: Sequence[Record]) -> Records:
        """From a record each."""
        code: dict[int, int] = {}
        targets: list[Target] = []
        for record in records:
            if record.target is not None and id(record.target) not in code:
                code[id(record.target)] = len(targets)
                targets.append(record.target)
        splits = [NONE if r.split is None else ORDER.index(r.split) for r in records]
        return cls(
            names=as_names([r.name for r in records]),
            targets=targets,
            target=np.array(
                [NONE if r.target is None else code[id(r.target)] for r in records], np.int64
            ),
            files=as_names([None if r.path is None else str(r.path) for r in records]),
            split=np.array(splits, np.int8),
            fold=as_names([r.fold for r in records]),
            group=as_names([r.group for r in records]),
            stratum=as_names([r.stratum for r in records]),
            weight=np.array([r.weight for r in records], np.float64),
            read=[r.read for r in records],
            shard=[r.shard for r in records],
        )

    @classmethod
    def joined(cls, parts: Sequence[Records]) -> Records:
        """One after the other; they have one root, and lie in files of their own."""
        firsts = np.cumsum([0, *(len(part.targets) for part in parts)])
        codes = [
            np.where(part.target == NONE, NONE, part.target + first)
            for part, first in zip(parts, firsts, strict=False)
        ]
        ones = [np.ones(len(p)) if p.weight is None else p.weight for p in parts]
        return cls(
            names=pa.concat_arrays([part.names for part in parts]),
            targets=[target for part in parts for target in part.targets],
            target=np.concatenate(codes),
            root=parts[0].root,
            files=pa.concat_arrays([part.files for part in parts]),
            split=np.concatenate([part.splits() for part in parts]),
            fold=pa.concat_arrays([_or_null(part.fold, len(part)) for part in parts]),
            group=pa.concat_arrays([_or_null(part.group, len(part)) for part in parts]),
            stratum=pa.concat_arrays([_or_null(part.stratum, len(part)) for part in parts]),
            weight=None if all(p.weight is None for p in parts) else np.concatenate(ones),
        )

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, k: int) -> Record: ...
    @overload
    def __getitem__(self, k: slice) -> Records: ...
    def __getitem__(self, k: int | slice) -> Record | Records:
        if isinstance(k, slice):
            return self.take(np.arange(len(self))[k])
        at = range(len(self))[k]
        return next(self._made(at, at + 1))

    def __iter__(self) -> Iterator[Record]:
        for start in range(0, len(self), _CHUNK):
            yield from self._made(start, min(start + _CHUNK, len(self)))

    def _made(self, start: int, stop: int) -> Iterator[Record]:
        """The records from `start` to `stop`."""
        files, folds, groups, strata = (
            [None] * (stop - start)
            if column is None
            else [None if v is None else os.fsdecode(v) for v in column[start:stop].to_pylist()]
            for column in (self.files, self.fold, self.group, self.stratum)
        )
        names, splits = texts_of(self.names[start:stop]), self.splits()[start:stop].tolist()
        for k, (name, file) in enumerate(zip(names, files, strict=True)):
            at, split = start + k, splits[k]
            known = int(self.target[at])
            yield Record(
                None if file is None else self.root / file,
                name,
                None if known == NONE else self.targets[known],
                None if split == NONE else ORDER[split],
                folds[k],
                groups[k],
                strata[k] or "",
                1.0 if self.weight is None else float(self.weight[at]),
                None if self.read is None else self.read[at],
                "" if self.shard is None else self.shard[at],
            )

    def take(self, positions: npt.NDArray[np.int64]) -> Records:
        """Those at `positions`, in this order."""
        if len(positions) == len(self) and np.array_equal(positions, np.arange(len(self))):
            return self
        changes: dict[str, Any] = {}
        for name in ("names", "target", "files", "split", "fold", "group", "stratum", "weight"):
            column = getattr(self, name)
            if isinstance(column, np.ndarray):
                changes[name] = column[positions]
            elif column is not None:
                changes[name] = column.take(pa.array(positions))
        for name in ("read", "shard"):
            values = getattr(self, name)
            if isinstance(values, Column):
                changes[name] = values.take(positions)
            elif values is not None:
                changes[name] = [values[k] for k in positions.tolist()]
        return replace(self, **changes)

    def splits(self) -> npt.NDArray[np.int8]:
        """(n,) positions in `ORDER`, or `NONE`."""
        return np.full(len(self), NONE, np.int8) if self.split is None else self.split

    def occurring(self) -> list[int]:
        """The positions in `targets` that some image has, ascending."""
        return np.unique(self.target[self.target != NONE]).tolist()  # type: ignore[no-any-return]


def batch_of(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:
    """`rows`, each in the order of the fields, by columns."""
    columns = zip(*rows, strict=True) if rows else ([] for _ in schema)
    return pa.RecordBatch.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)],
        schema=schema,
    )


def as_names(texts: Sequence[str | None]) -> Names:
    """As the system's bytes; of what no file can be called, since it is no text, some that none
    has."""
    try:
        return pa.array(texts, pa.large_string()).cast(pa.large_binary())
    except UnicodeEncodeError:
        return pa.array([None if t is None else _bytes(t) for t in texts], pa.large_binary())


def _bytes(text: str) -> bytes:
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:  # half a character, as JSON can escape it
        return text.encode("utf-8", "surrogatepass")


def _or_null(names: Names | None, count: int) -> Names:
    return pa.nulls(count, pa.large_binary()) if names is None else names


def glued(*parts: Names | bytes) -> Names:
    """Row by row one after the other; bytes are those of every row, and null makes the row null."""
    columns = [pa.scalar(p, pa.large_binary()) if isinstance(p, bytes) else p for p in parts]
    return pc.binary_join_element_wise(*columns, pa.scalar(b"", pa.large_binary()))


def text_of(name: Any) -> str | None:
    """What a scalar of `Names` says."""
    value = name.as_py()
    return None if value is None else os.fsdecode(value)


def texts_of(names: Names) -> list[str]:
    """All of them; null is the empty text."""
    return [os.fsdecode(value or b"") for value in names.to_pylist()]


def different(column: Names) -> tuple[list[str], npt.NDArray[np.int32]]:
    """The texts that there are in a column, each once, and (rows,) which of them each row has; null
    is the empty text."""
    coded = column.fill_null(b"").dictionary_encode()
    return texts_of(coded.dictionary), coded.indices.to_numpy()
