"""TensorFlow's checkpoints, without TensorFlow: `NAME.index` and `NAME.data-00000-of-00001`.

The index is a table as LevelDB has them: sorted names, each with a protocol buffer that says where
the tensor lies in which data file, of which type and shape, and its checksum. Names of what Keras
saved (`save_weights("NAME")`) are ways through the model, `layer_with_weights-0/kernel`, and end in
`/.ATTRIBUTES/VARIABLE_VALUE`, which is taken off; where they are numbers alone, the layers get the
names that they have in Keras' other files. An optimiser's own and what is no number are passed
over. Every block and every tensor that is read is compared with its checksum.
"""

from __future__ import annotations

import math
import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from retinue.errors import RetinueError, UsageError
from retinue.files import open_file, read_file
from retinue.protobuf import FIXED32, Malformed, Piece, fields, masked, pieces, signed, varint
from retinue.weights.guard import check_size

INDEX, DATA = ".index", re.compile(r"\.data-\d{5}-of-\d{5}$")
LATEST = "checkpoint"
"""The file in a folder of them that names the newest."""
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_NO_WEIGHTS = re.compile(
    r"_CHECKPOINTABLE_OBJECT_GRAPH$|.*/\.OPTIMIZER_SLOT/|(save_counter|optimizer|global_step)(/|$)"
)
_BY_NUMBER = re.compile(r"layer_with_weights-\d+(/layer_with_weights-\d+)*")
_FOOTER, _MAGIC = 48, 0xDB4775248B80FB57
_TRAILER = 5
"""Bytes behind a block: how it is packed, and its checksum."""
_MOST_INDEX = 64 * 2**20
_MOST_AXES = 16
_BFLOAT16 = 14
_TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?", 17: "<u2",
          19: "<f2", _BFLOAT16: "<u2"}  # fmt: skip
"""TensorFlow's numbers of types (`DataType`)."""


@dataclass(frozen=True)
class _Entry:
    """Where a tensor lies (`BundleEntryProto`)."""

    kind: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    check: int
    sliced: bool


def stem(path: Path) -> Path | None:
    """What the files of the checkpoint that `path` means begin with: the name itself, one of its
    files, or a folder that names its newest. None: there is no such checkpoint."""
    name = path.name
    if path.is_dir():
        return _latest(path)
    if name.endswith(INDEX):
        path = path.with_name(name.removesuffix(INDEX))
    elif found := DATA.search(name):
        path = path.with_name(name[: found.start()])
    elif path.exists():
        return None
    return path if path.with_name(path.name + INDEX).is_file() else None


def _latest(folder: Path) -> Path | None:
    """The checkpoint that `folder` calls its newest."""
    if not (folder / LATEST).is_file():
        return None
    text = read_file(folder / LATEST)[:4096].decode("utf-8", "replace")
    told = re.search(r'^model_checkpoint_path: "([^"]+)"', text, re.MULTILINE)
    if told is None:
        return None
    path = folder / Path(told[1]).name  # wherever the folder was when it was written
    return path if path.with_name(path.name + INDEX).is_file() else None


def read(path: Path) -> tuple[dict[str, Tensor], tuple[Path, ...]]:
    """The tensors of the checkpoint called `path`, as `stem` gives it, and the files it is made of.

    Raises:
        UsageError: a data file is missing.
        RetinueError: damaged, or of a kind that is not read.
    """
    index = path.with_name(path.name + INDEX)
    try:
        if index.stat().st_size > _MOST_INDEX:
            raise Malformed(f"{index.stat().st_size:,} bytes")
        entries = dict(_table(read_file(index)))
        shards = _shards(entries.pop(b"", b""))
        described = {name.decode("utf-8"): _entry(value) for name, value in entries.items()}
    except (Malformed, ValueError, OSError) as error:
        raise RetinueError(f"damaged index of a checkpoint: {error}", where=str(index)) from error
    data = [path.with_name(f"{path.name}.data-{k:05}-of-{shards:05}") for k in range(shards)]
    for file in data:
        if not file.is_file():
            raise UsageError(
                "a file of the checkpoint is missing",
                where=str(file),
                mend=f"copy it beside {index.name}: the index holds the names alone",
            )
    wanted = {
        key: entry
        for name, entry in described.items()
        if entry.kind in _TYPES
        and not _NO_WEIGHTS.match(key := name.removesuffix(_VALUE))
        and "/.ATTRIBUTES/" not in key
    }
    there = [file.stat().st_size for file in data]
    check_size(sum(max(0, entry.size) for entry in wanted.values()), sum(there), str(index))
    for key, entry in wanted.items():
        _check(key, entry, there, index)
    found = {key: _tensor(key, of, data[of.shard]) for key, of in wanted.items()}
    return numbered(found), (index, *data)


def numbered(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with the names that Keras gives layers without one (`conv2d`, `conv2d_1`, `dense` …),
    if all of it are layers by their numbers alone, models within models among them; else as it
    is."""
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        place, _, variable = key.rpartition("/")
        layers.setdefault(place, {})[variable] = tensor
    if not all(map(_BY_NUMBER.fullmatch, layers)):
        return dict(state)
    count: Counter[str] = Counter()
    found: dict[str, Tensor] = {}
    for place in sorted(layers, key=lambda p: [int(n) for n in re.findall(r"-(\d+)", p)]):
        kind = _kind(layers[place])
        if not kind:
            return dict(state)
        name = f"{kind}_{count[kind]}" if count[kind] else kind
        count[kind] += 1
        found |= {f"{name}/{variable}": tensor for variable, tensor in layers[place].items()}
    return found


def _kind(variables: Mapping[str, Tensor]) -> str:
    """The class of a layer with these variables, as Keras calls it in names; empty: another."""
    if "moving_mean" in variables:
        return "batch_normalization"
    if "pointwise_kernel" in variables:
        return "separable_conv2d"
    if "depthwise_kernel" in variables:
        return "depthwise_conv2d"
    axes = variables["kernel"].ndim if "kernel" in variables else 0
    return {2: "dense", 4: "conv2d"}.get(axes, "")


def _check(key: str, entry: _Entry, there: Sequence[int], index: Path) -> None:
    """Refuse a tensor that cannot lie where the index says, in data files of `there` bytes."""
    size = math.prod(entry.shape) * np.dtype(_TYPES[entry.kind]).itemsize
    if entry.sliced:
        what, mend = f"{key} was saved in slices, which are not read", "save it whole"
    elif entry.size != size or not 0 <= entry.shard < len(there) or entry.offset < 0:
        what = f"damaged index of a checkpoint: {key} is {entry.shape} in {entry.size:,} bytes"
        mend = "copy it again"
    elif entry.offset + entry.size > there[entry.shard]:
        what, mend = f"the data file ends before {key} does", "copy it again, whole"
    else:
        return
    raise RetinueError(what, where=str(index), mend=mend)


def _tensor(key: str, entry: _Entry, file: Path) -> Tensor:
    dtype = np.dtype(_TYPES[entry.kind])
    try:
        with open_file(file) as opened:
            opened.seek(entry.offset)
            content = opened.read(entry.size)
    except OSError as error:
        raise RetinueError(f"unreadable weights: {error.strerror}", where=str(file)) from error
    if masked(content) != entry.check:
        what = f"damaged weights: the checksum of {key} is wrong"
        raise RetinueError(what, where=str(file), mend="copy it again")
    array = np.frombuffer(content, dtype).reshape(entry.shape).astype(dtype.newbyteorder("="))
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if entry.kind == _BFLOAT16 else tensor


def _shards(header: bytes) -> int:
    """How many data files there are (`BundleHeaderProto`)."""
    said = {number: value for number, _, value in fields(Piece(header, 0))}
    if said.get(2, 0) != 0:
        raise Malformed("its numbers have their highest byte first")
    shards = said.get(1, 0)
    if not isinstance(shards, int) or not 1 <= shards <= 10_000:
        raise Malformed("it does not say how many data files there are")
    return shards


def _entry(content: bytes) -> _Entry:
    numbers: dict[int, int] = {}
    shape: tuple[int, ...] = ()
    check, sliced = 0, False
    for number, wire, value in fields(Piece(content, 0)):
        if isinstance(value, int):
            numbers[number] = signed(value)
        elif number == 2:
            shape = _shape(value)
        elif number == 6 and wire == FIXED32:
            (check,) = struct.unpack("<I", value.content)
        elif number == 7:
            sliced = True
    kind, shard, offset, size = (numbers.get(k, 0) for k in (1, 3, 4, 5))
    return _Entry(kind, shape, shard, offset, size, check, sliced)


def _shape(piece: Piece) -> tuple[int, ...]:
    """A `TensorShapeProto`."""
    sides = []
    for number, axis in pieces(piece):
        if number == 2:
            side = [v for n, _, v in fields(axis) if n == 1 and isinstance(v, int)]
            sides.append(signed(side[0]) if side else 0)
    if len(sides) > _MOST_AXES or any(side < 0 for side in sides):
        raise Malformed(f"a tensor of shape {sides[:_MOST_AXES]}")
    return tuple(sides)


# --- LevelDB's table ------------------------------------------------------------------------------


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of everything in a table. Raises Malformed."""
    footer = content[-_FOOTER:]
    if len(footer) < _FOOTER or struct.unpack("<Q", footer[-8:])[0] != _MAGIC:
        raise Malformed("it does not end as an index of TensorFlow's does")
    _, at = _handle(footer, 0)
    where, _ = _handle(footer, at)
    for _, handle in _block(content, where):
        yield from _block(content, _handle(handle, 0)[0])


def _handle(content: bytes, at: int) -> tuple[tuple[int, int], int]:
    """Where a block begins and how long it is; and where the handle ends."""
    offset, at = varint(content, at)
    size, at = varint(content, at)
    return (offset, size), at


def _block(content: bytes, place: tuple[int, int]) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of a block, whose keys share their beginnings with the ones before."""
    offset, size = place
    end = offset + size
    if end + _TRAILER > len(content) or size < 4:
        raise Malformed("a block lies outside of it")
    (check,) = struct.unpack("<I", content[end + 1 : end + _TRAILER])
    if masked(content[offset : end + 1]) != check:
        raise Malformed("the checksum of a block is wrong")
    if content[end] != 0:
        raise Malformed("its blocks are packed, which TensorFlow's own are not")
    (restarts,) = struct.unpack("<I", content[end - 4 : end])
    last = size - 4 - 4 * restarts
    if last < 0:
        raise Malformed("a block that has more beginnings than bytes")
    block, at, key = content[offset : offset + last], 0, b""
    while at < last:
        shared, at = varint(block, at)
        own, at = varint(block, at)
        length, at = varint(block, at)
        if shared > len(key) or own + length > last - at:
            raise Malformed("an entry reaches beyond its block")
        key = key[:shared] + block[at : at + own]
        yield key, block[at + own : at + own + length]
        at += own + length
