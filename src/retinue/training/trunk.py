"""The frozen part of a network, computed once for each view of an image and kept on disk.

The trunk is in eval mode and carries no dropout, so what it gives depends on the pixels alone.
Kept are its whole state (every tap that later units need) as float16, a file a tensor, and the
targets of each view. A half-written cache goes on from its last full chunk.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from retinue.errors import RetinueError
from retinue.files import replacing, write_text
from retinue.inference.engines import Engine, EngineName, compile_engine
from retinue.models.network import Network, State
from retinue.sample import Batch
from retinue.training.feeds import Feed, Plan

CHUNK = 16
"""Images that the engine takes at once: few, so that its maps stay in the cache; and always the
same number, so that going on later gives the same values."""
SECONDS_BETWEEN_WRITES = 20.0
HALF_MAX = float(np.finfo(np.float16).max)


class Trunk(nn.Module):
    """The units of `network` before `cut`."""

    def __init__(self, network: Network, cut: int) -> None:
        super().__init__()
        self.chain = nn.ModuleList(unit.module for unit in network.units()[:cut])
        self._run = network.run
        self._cut = cut

    def forward(self, x: Tensor) -> State:
        return self._run(x, stop=self._cut)


def as_tuple(state: State) -> tuple[Tensor, ...]:
    """The tensors of a state."""
    return state if isinstance(state, tuple) else (state,)


@dataclass(frozen=True)
class Size:
    """What caching would take."""

    shapes: list[tuple[int, ...]]
    """Of one image's state."""
    images: int

    @property
    def bytes(self) -> int:
        return self.images * sum(2 * int(np.prod(shape)) for shape in self.shapes)


def measure(network: Network, cut: int, size: tuple[int, int], images: int) -> Size:
    """The size of a cache, from one pass over a blank image."""
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            state = network.run(torch.zeros(1, 3, *size, device=device), stop=cut)
    finally:
        network.train(was_training)
    return Size([tuple(t.shape[1:]) for t in as_tuple(state)], images)


def fingerprint(network: Network, cut: int, facts: Any) -> str:
    """What a cache depends on: the trunk's weights and `facts` (JSON values)."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for unit in network.units()[:cut]:
        for name, value in sorted(unit.module.state_dict().items()):
            digest.update(f"{unit.name}.{name}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


class CachedFeed:
    """Batches whose `inputs` are what the trunk gave for them.

    With several views, sample i sees view (epoch + i) mod `views` in an epoch, so that every batch
    holds all of them.
    """

    def __init__(self, cut: int, folder: Path, count: int, device: torch.device) -> None:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        self.cut = cut
        self.views: int = index["views"]
        self.engine: str = index["engine"]
        self._single: bool = index["single"]
        self._count = count
        self._device = device
        self._maps = [
            np.memmap(folder / f"state{k}.f16", np.float16, "r", shape=tuple(shape))
            for k, shape in enumerate(index["stored"])
        ]
        self._targets = [
            Batch(**torch.load(folder / f"targets{v}.pt", weights_only=True))
            for v in range(self.views)
        ]

    def batches(self, plan: Plan, *, epoch: int) -> Iterator[Batch]:
        for positions in plan:
            views = (epoch + positions) % self.views
            rows = views * self._count + positions
            state = tuple(_from_rows(stored, rows).to(self._device) for stored in self._maps)
            parts = [self._targets[v] for v in range(self.views)]
            batch = _pick(parts, views, positions, epoch).to(self._device)
            batch.inputs = state[0] if self._single else state
            yield batch


def cache_trunk(
    network: Network,
    cut: int,
    feed: Feed,
    *,
    count: int,
    views: int,
    folder: Path,
    facts: Any,
    engine: EngineName,
    device: torch.device,
    each_chunk: Callable[[int, int], None],
    say: Callable[[str], None],
) -> CachedFeed:
    """Compute (or find computed) the trunk's output for `views` views of `count` samples.

    `each_chunk` is called with (images done, of how many) and may raise to interrupt; the work
    so far is kept. `facts` are everything besides the weights that the output depends on.
    """
    total = count * views
    key = fingerprint(network, cut, [facts, count, views, CHUNK])
    index_path = folder / "index.json"
    index = json.loads(index_path.read_text(encoding="utf-8")) if index_path.is_file() else {}
    if index.get("key") != key:
        shutil.rmtree(folder, ignore_errors=True)
        index = {}
    if index.get("done") == total:
        return CachedFeed(cut, folder, count, device)

    folder.mkdir(parents=True, exist_ok=True)
    trunk = Trunk(network, cut).eval()
    compiled: Engine | None = None
    stored: list[npt.NDArray[np.float16]] = []
    chunks = [np.arange(i, min(i + CHUNK, count)) for i in range(0, count, CHUNK)]
    done: int = index.get("done", 0)
    written = time.monotonic()
    for view in range(views):
        first = -(-max(done - view * count, 0) // CHUNK)
        if first >= len(chunks) and done >= (view + 1) * count:
            continue
        targets: list[Batch] = []
        if first:
            part = Batch(**torch.load(folder / f"targets{view}.part.pt", weights_only=True))
            # A stop between writing it and the index leaves rows that are computed again.
            targets.append(_first(part, done - view * count))
        for batch in feed.batches(chunks[first:], epoch=view):
            inputs = batch.inputs
            if compiled is None:
                # For the engine to be the same after an interruption, its name is kept.
                compiled = compile_engine(
                    trunk, inputs, engine=index.get("engine", engine), device=str(device)
                )
            state = compiled(inputs)
            rows = [_as_rows(t) for t in as_tuple(state)]
            if not stored:
                shapes = [(total, *r.shape[1:]) for r in rows]
                files = [folder / f"state{k}.f16" for k in range(len(shapes))]
                for file, shape in zip(files, shapes, strict=True):
                    if not done:
                        _reserve(file, 2 * int(np.prod(shape)))
                stored = [
                    np.memmap(file, np.float16, "r+", shape=shape)
                    for file, shape in zip(files, shapes, strict=True)
                ]
                if not done:
                    say(f"computing the frozen part once for {total} images with {compiled.name}")
            begin = view * count + int(batch.index[0])
            for array, row in zip(stored, rows, strict=True):
                array[begin : begin + len(row)] = row
            targets.append(_targets_of(batch))
            done = begin + len(batch)
            last = done == (view + 1) * count
            if last or time.monotonic() - written > SECONDS_BETWEEN_WRITES:
                for array in stored:
                    cast(np.memmap[Any, Any], array).flush()
                targets = [_merge(targets)]
                _save(folder / f"targets{view}{'' if last else '.part'}.pt", targets[0])
                index = {
                    "key": key,
                    "done": done,
                    "views": views,
                    "engine": compiled.name,
                    "single": not isinstance(state, tuple),
                    "stored": [list(a.shape) for a in stored],
                }
                write_text(index_path, json.dumps(index))
                written = time.monotonic()
            each_chunk(done, total)
    return CachedFeed(cut, folder, count, device)


def check_budget(size: Size, folder: Path, max_gb: float) -> str | None:
    """Why a cache of `size` may not be written; None if it may."""
    need = size.bytes / 1e9
    if need > max_gb:
        return f"it would take {need:.1f} GB and cache.max_gb is {max_gb:g}"
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(existing).free / 1e9
    if need > 0.9 * free:
        return f"it would take {need:.1f} GB and the disk has {free:.1f} GB left"
    return None


def _reserve(path: Path, size: int) -> None:
    """A new file of `size` bytes. Its room is taken at once: a disk that is full when a page of a
    map is written kills the process."""
    try:
        with open(path, "wb") as file:
            file.truncate(size)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):  # not on this file system
            return
        raise RetinueError(
            f"the cached features cannot be written ({error.strerror})",
            where=str(path),
            mend="make room and go on with --resume, or train with cache_features=off",
        ) from error


def _as_rows(tensor: Tensor) -> npt.NDArray[np.float16]:
    """float16, channels last where there are channels and a map."""
    tensor = tensor.detach().to("cpu", torch.float32)
    if not bool(torch.isfinite(tensor).all()):
        raise RetinueError(
            "the frozen part gave values that are not finite",
            where="cached features",
            mend="cache_features=off, and look at the weights",
        )
    tensor = tensor.clamp(-HALF_MAX, HALF_MAX)
    if tensor.ndim == 4:
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.to(torch.float16).numpy()


def _from_rows(stored: npt.NDArray[np.float16], rows: npt.NDArray[np.int64]) -> Tensor:
    tensor = torch.from_numpy(stored[rows]).float()
    return tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor


def _targets_of(batch: Batch) -> Batch:
    """The batch without pixels."""
    cpu = batch.to("cpu")
    return replace(cpu, images=torch.empty(len(batch), 3, 0, 0, dtype=torch.uint8), inputs=None)


def _fields(batch: Batch) -> dict[str, Any]:
    return {f.name: getattr(batch, f.name) for f in fields(batch)}


def _save(path: Path, batch: Batch) -> None:
    with replacing(path) as temporary:
        torch.save(_fields(batch), temporary)


def _first(batch: Batch, rows: int) -> Batch:
    """The first `rows` of a batch."""
    kept = _fields(batch)
    kept |= {name: v[:rows] for name, v in kept.items() if isinstance(v, Tensor)}
    return Batch(**{**kept, "paths": batch.paths[:rows]})


def _merge(batches: Sequence[Batch]) -> Batch:
    """One batch out of several; lists of boxes are padded to one length."""
    if len(batches) == 1:
        return batches[0]
    merged = _fields(batches[0])
    for name, value in merged.items():
        if isinstance(value, Tensor):
            merged[name] = torch.cat(_padded([getattr(b, name) for b in batches]))
    merged["paths"] = [path for b in batches for path in b.paths]
    return Batch(**merged)


def _padded(tensors: list[Tensor]) -> list[Tensor]:
    if tensors[0].ndim < 2 or len({t.shape[1] for t in tensors}) == 1:
        return tensors
    most = max(t.shape[1] for t in tensors)
    padded = []
    for t in tensors:
        wide = t.new_zeros(t.shape[0], most, *t.shape[2:])
        wide[:, : t.shape[1]] = t
        padded.append(wide)
    return padded


def _pick(
    views: Sequence[Batch],
    view: npt.NDArray[np.int64],
    positions: npt.NDArray[np.int64],
    epoch: int,
) -> Batch:
    """Row `positions[i]` of `views[view[i]]`, for every i."""
    picked = _fields(views[0])
    pairs = list(zip(view.tolist(), positions.tolist(), strict=True))
    for name, value in picked.items():
        if isinstance(value, Tensor):
            rows = _padded(
                [getattr(views[v], name)[p : p + 1] for v, p in zip(view, positions, strict=True)]
            )
            picked[name] = torch.cat(rows)
    picked["paths"] = [views[v].paths[p] for v, p in pairs]
    picked["epoch"] = epoch
    return Batch(**picked)
