"""Views of a split that went through the frozen part before: which there are, and the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from retinue.data.loader import Rendered, collate
from retinue.data.reopening import reopening
from retinue.data.work import Work, worked
from retinue.errors import RetinueError
from retinue.inference.engine import Engine
from retinue.inference.engines import candidates
from retinue.inference.names import EngineName
from retinue.sample import Batch, BatchPlan, Row
from retinue.tasks.learner import TAUGHT
from retinue.text import counted
from retinue.training.features.cache import DamagedError, FeatureCache, Space
from retinue.training.features.frozen import (
    CHUNK,
    ERROR,
    MOST_SOURCES,
    FrozenPart,
    NotFiniteError,
    Size,
)
from retinue.training.features.shown import Place, Shown, Views
from retinue.transfer import on_device

REOPENED = 4 * CHUNK
"""Images that are held for their next view, which comes a chunk later: with room for threads that
are ahead of others."""
_ATTEMPTS = 3
"""How often damaged rows are computed anew before that ends the training."""


class Kept(NamedTuple):
    """What views take on disk, and what their features have lost by it."""

    views: int
    bytes: int
    relative_error: float
    """‖kept − x‖ / ‖x‖ of an image's features x, the mean of all views; what x has lost where it is
    made of what is kept itself is not in it."""
    largest_relative_error: float
    """Of any view."""
    error_bound: float
    """No value of any view is further from what it was."""

    def told(self) -> str:
        """For people."""
        return (
            f"{self.bytes / 1e6:,.1f} MB on disk, relative error"
            f" {self.relative_error:.2g} on average, {self.largest_relative_error:.2g} at most"
        )


def together(parts: Sequence[Kept]) -> Kept:
    """Of all views of several splits."""
    count = sum(part.views for part in parts)
    return Kept(
        count,
        sum(part.bytes for part in parts),
        sum(part.views * part.relative_error for part in parts) / max(count, 1),
        max(part.largest_relative_error for part in parts),
        max(part.error_bound for part in parts),
    )


class NoWayOnError(Exception):
    """Why the engine that computed the beginning of a way cannot compute the rest."""


class CachedViews:
    """Batches whose `inputs` are what the frozen part gave for `views`.

    `engine` is settled by what is there already, or by computing what is missing. Where the frozen
    part goes on from an earlier one, that one's rows are a `CachedViews` of their own, made only
    when they are needed. `shown`: what another one of the same `views` knows of them.
    """

    def __init__(
        self,
        frozen: FrozenPart,
        views: Views,
        cache: FeatureCache,
        engine: EngineName,
        shown: Shown | None = None,
    ) -> None:
        self.cut = frozen.cut
        self.views = views.count
        self.engine: EngineName = engine
        self._frozen = frozen
        self._views = views
        self._loader = views.loader
        self._colour = views.colour
        self._shown = shown or Shown(views, cache.contents())
        self._samples = self._shown.samples
        self._cache = cache
        self.sizes = views.sizes
        self._spaces: dict[tuple[str, Size], Space] = {}
        self._rows: dict[Size, npt.NDArray[np.int64]] = {}
        self.work = Work()
        """What was done for its batches so far."""
        self._source: CachedViews | None = None
        self.refresh()

    # --- what is there ---------------------------------------------------------------------------

    def refresh(self) -> None:
        """Look again for what is there, as other processes may have written some of it."""
        names = candidates(str(self._frozen.device)) if self.engine == "auto" else [self.engine]
        found = {name: {size: self._found(name, size) for size in self.sizes} for name in names}
        there = {name: sum(int((r >= 0).sum()) for r in found[name].values()) for name in names}
        best = max(names, key=there.__getitem__)
        if self.engine == "auto" and there[best]:
            self.engine = best  # type: ignore[assignment]
        self._rows = found[best]

    def missing(self, size: Size) -> list[Place]:
        """What is still to be computed."""
        count = len(self._samples)
        absent = np.flatnonzero(self._rows[size] < 0).tolist()
        return [(k // count, k % count) for k in absent if not self._shown.is_dropped(k % count)]

    def bytes_missing(self, engine: EngineName | None = None) -> int:
        """What that takes on disk, with what it is made of; or what it may take if `engine` is to
        compute, whatever is there of another."""
        there = engine in (None, self.engine)
        own = sum(
            self._frozen.layout(size).bytes_of(len(self.missing(size) if there else rows))
            for size, rows in self._rows.items()
        )
        source = self._opened_source() if own else None
        return own if source is None else own + source.bytes_missing(engine)

    def kept(self) -> Kept:
        """Of all that are there."""
        errors = [np.zeros((0, 2))]
        size = 0
        for side, rows in self._rows.items():
            there = rows[rows >= 0]
            size += self._frozen.layout(side).bytes_of(len(there))
            errors.append(self._space(self.engine, side).read_field(there, ERROR))
        relative, bound = np.concatenate(errors).T
        mean = float(relative.mean()) if len(relative) else 0.0
        largest = (float(each.max(initial=0.0)) for each in (relative, bound))
        return Kept(len(relative), size, mean, *largest)

    def settle(self, engine: EngineName) -> None:
        """Keep to `engine`, whatever is there of others."""
        if engine != self.engine:
            self.engine = engine
            self.refresh()

    def compute(self, each_chunk: Callable[[int, int], None], say: Callable[[str], None]) -> None:
        """Compute what is missing. `each_chunk` is called with (views done, of how many) and may
        raise to interrupt; the work so far is kept. A view that has gone a part of the way, through
        what the frozen part goes on from, counts as that part of a view.

        Raises:
            TooCoarseError: what would be kept of a view is too far from it.
            NoWayOnError: the engine cannot compute what goes on from other rows.
        """
        several = self.views > 1 and self._frozen.before() is None
        with reopening(self._loader.view, REOPENED) if several else nullcontext():
            self._compute(each_chunk, say)

    def _compute(self, each_chunk: Callable[[int, int], None], say: Callable[[str], None]) -> None:
        """See `compute`."""
        engines: dict[Size, Engine] = {}  # what is compiled takes one size alone
        total, share = len(self), 0.0  # of the whole way, where the frozen part goes on from
        last: tuple[int, int] | None = None
        # A bad image that is met on the way puts others in its place: then there is a next round.
        while lacking := sum(len(self.missing(size)) for size in self.sizes):
            if last == (lacking, len(self.skipped)):
                raise RetinueError(
                    "the cached features that were written are not found again",
                    where=str(self._cache.root),
                    mend="take another place (cache.folder=FOLDER)",
                    resumable=True,
                )
            last = lacking, len(self.skipped)
            if (source := self._opened_source()) is not None:
                share = source._units() / self._units()
                self._compute_source(source, share, each_chunk, say)
            done = len(self) - sum(len(self.missing(size)) for size in self.sizes)
            for size in self.sizes:
                absent = self.missing(size)
                if not absent:
                    continue
                if size not in engines:
                    engines[size] = self._compiled(absent, size)
                    self.engine = engines[size].name  # type: ignore[assignment]
                say(self._told(len(absent), len(self._rows[size])))
                space = self._space(self.engine, size)
                with space.writer(len(absent)) as writer:
                    for keys, fields, count in self._made(absent, size, engines[size]):
                        # What stands in for a bad image may be there.
                        new = np.flatnonzero(space.find(keys) < 0) if keys else np.zeros(0, int)
                        if len(new):
                            own = {name: value[new] for name, value in fields.items()}
                            writer.append([keys[k] for k in new], own)
                        done = min(done + count, total)
                        each_chunk(round(share * total + (1 - share) * done), total)
            self.refresh()

    def _told(self, absent: int, count: int) -> str:
        """What is computed of `count` views, of which so many are `absent`."""
        views = counted(count, "view")
        if absent < count:
            views = f"{absent:,} of {views}, as the others are there"
        part = f"units {self.cut - self._frozen.units + 1} to {self.cut}"
        if self._frozen.units == 1:
            part = f"unit {self.cut}"
        on = " on from there," if self._frozen.via else ""
        return f"the frozen part, {part},{on} once for {views}, with {self.engine}"

    def _made(
        self, absent: Sequence[Place], size: Size, engine: Engine
    ) -> Iterator[tuple[list[bytes], dict[str, npt.NDArray[Any]], int]]:
        """Keys and fields of rows, some at a time, and of how many views."""
        if (source := self._opened_source()) is not None:
            yield from self._made_of_rows(source, absent, size, engine)
            return
        for batch, rendered in self._loader.rendered(self._chunks(absent, size)):
            good = [k for k, row in enumerate(rendered) if row.seen is not None]
            self._shown.refuse_changed(rendered[k].row for k in good)
            keys = [self._shown.key(rendered[k].row, batch.epoch, size) for k in good]
            rows = self._fields(engine, batch, rendered) if good else {}
            yield keys, {name: value[good] for name, value in rows.items()}, len(batch)

    def _made_of_rows(
        self, source: CachedViews, absent: Sequence[Place], size: Size, engine: Engine
    ) -> Iterator[tuple[list[bytes], dict[str, npt.NDArray[Any]], int]]:
        """See `_made`: of what `source` holds."""
        frozen = source._frozen
        for start in range(0, len(absent), CHUNK):
            where = self._where(absent[start : start + CHUNK])
            rows = source._all_of(where, size)
            state, taught = frozen.state(rows, size), frozen.taught(rows, size)
            try:
                fields = self._frozen.fields(engine, state, taught)
            except NotFiniteError as error:
                shown = [self._samples[where[k] % len(self._samples)].key for k in error.rows]
                raise NotFiniteError(error.rows, list(dict.fromkeys(shown))) from None
            # Only now, as rows that were made anew may show others in the place of bad images.
            wanted = self._shown.wanted(size)
            keys = [wanted[k] for k in where.tolist()]
            yield keys, {**fields, "sizes": np.ascontiguousarray(rows["sizes"])}, len(where)

    def _compute_source(
        self,
        source: CachedViews,
        share: float,
        each_chunk: Callable[[int, int], None],
        say: Callable[[str], None],
    ) -> None:
        """See `compute`: what is missing of `source`, by one engine for both, as the `share` of
        the whole way."""
        source.engine = self.engine
        source.refresh()
        source.compute(lambda done, total: each_chunk(round(share * done), total), say)
        self.settle(source.engine)
        self.refresh()  # images may have been found to be bad

    def _opened_source(self) -> CachedViews | None:
        """The same views where the frozen part goes on from; None: it takes images."""
        part = self._frozen.before()
        if self._source is None and part is not None:
            self._source = CachedViews(part, self._views, self._cache, self.engine, self._shown)
        return self._source

    def _units(self) -> int:
        """How many units a view runs through on its whole way."""
        source = self._opened_source()
        return self._frozen.units + (0 if source is None else source._units())

    @property
    def skipped(self) -> dict[str, str]:
        """The files that are known to be bad, and why."""
        return self._loader.skipped

    def take_over(self, engine: EngineName, skipped: Mapping[str, str]) -> None:
        """What the process that computed has come to."""
        self.engine = engine
        self.skipped.clear()
        self.skipped.update(skipped)
        self.refresh()

    def __len__(self) -> int:
        """How many views there are in all."""
        return sum(len(rows) for rows in self._rows.values())

    def close(self) -> None:
        """Let go of the files."""
        for space in self._spaces.values():
            space.close()
        self._spaces = {}
        if self._source is not None:
            self._source.close()
            self._source = None

    # --- batches ---------------------------------------------------------------------------------

    def batches(self, plans: Iterable[BatchPlan]) -> Iterator[Batch]:
        """A batch for each plan; of its rows, the keys tell which samples are meant.

        What is damaged or removed meanwhile is computed anew.

        Raises:
            RetinueError: a view is not there, and not because its image is dropped.
        """
        for plan in plans:
            batch, work = worked(self._batch, plan)
            self.work += Work(len(batch), work.busy, work.busy, work.computed)
            yield batch

    def _batch(self, plan: BatchPlan) -> Batch:
        count = len(self._samples)
        places = []
        for row in plan.rows:
            position = self._shown.position(row.samples[0])
            places.append(((plan.epoch + row.key // count + position) % self.views, position))
        where = self._where(places)
        rows, fields = self._read_sound(where, plan.size)
        rendered = [
            Rendered(*self._shown.seen(row, place, sizes, plan.size), [])
            if there >= 0
            else self._dropped(row, place[1])
            for row, place, there, sizes in zip(
                plan.rows, places, rows.tolist(), fields["sizes"], strict=True
            )
        ]
        batch = on_device(collate(plan, None, rendered), self._frozen.device)
        taught = self._frozen.taught(fields, plan.size)
        if taught is not None:
            batch.targets[TAUGHT] = taught
        return replace(batch, inputs=self._frozen.state(fields, plan.size))

    def _dropped(self, row: Row, position: int) -> Rendered:
        if not self._shown.is_dropped(position):
            raise self._not_cached(position)
        return Rendered(row._replace(weight=0.0), None, [])

    def _not_cached(self, position: int) -> RetinueError:
        return RetinueError(
            f"a view of {self._samples[position].key!r} is not cached",
            where=repr(str(self._cache.root)),
            resumable=True,
        )

    def _read_sound(
        self, where: npt.NDArray[np.int64], size: Size
    ) -> tuple[npt.NDArray[np.int64], dict[str, npt.NDArray[Any]]]:
        """Rows of the views at `where`, and their fields."""
        for _ in range(_ATTEMPTS):
            try:
                rows = self._rows[size][where]
                return rows, self._read(rows, size)
            except DamagedError as error:
                failure = error
                self.close()  # and open what is there now
                self.refresh()
                self.compute(lambda done, total: None, lambda text: None)
        raise failure

    def _all_of(self, where: npt.NDArray[np.int64], size: Size) -> dict[str, npt.NDArray[Any]]:
        """The fields of the views at `where`. Raises RetinueError where one is not there."""
        rows, fields = self._read_sound(where, size)
        if (rows < 0).any():
            raise self._not_cached(int(where[rows < 0][0]) % len(self._samples))
        return fields

    def _read(self, rows: npt.NDArray[np.int64], size: Size) -> dict[str, npt.NDArray[Any]]:
        """The fields of `rows`; zeros for what is not there."""
        space = self._space(self.engine, size)
        there = np.flatnonzero(rows >= 0)
        if len(there) == len(rows):
            return space.read(rows)
        fields = np.zeros(len(rows), self._frozen.layout(size).dtype)
        for name, value in space.read(rows[there]).items():
            fields[name][there] = value
        return {name: fields[name] for name in fields.dtype.names or ()}

    # --- computing -------------------------------------------------------------------------------

    def _chunks(self, places: Sequence[Place], size: Size) -> Iterator[BatchPlan]:
        """All views of a few images, then of others, as `reopening` has it."""
        view, position = np.array(places).T
        _, number = np.unique(position, return_inverse=True)
        chunk = number // CHUNK
        order = np.lexsort((position, view, chunk))
        new = np.flatnonzero(np.diff(chunk[order]) | np.diff(view[order])) + 1
        for start, end in pairwise([0, *new.tolist(), len(order)]):
            where = order[start:end]
            seen = int(view[where[0]])
            own = position[where].tolist()
            rows = [self._shown.row((seen, p)) for p in own]
            yield BatchPlan(rows, size, seen)

    def _compiled(self, absent: Sequence[Place], size: Size) -> Engine:
        """The engine, judged on real images if these can be read."""
        if (source := self._opened_source()) is not None:
            rows = source._all_of(self._where(absent[:CHUNK]), size)
            try:
                return self._frozen.compile(source._frozen.state(rows, size), self.engine)
            except RetinueError as error:
                raise NoWayOnError(error.what) from error
        batch = next(iter(self._loader.batches([next(self._chunks(absent, size))])))
        return self._frozen.compile(self._inputs(batch), self.engine)

    def _where(self, places: Sequence[Place]) -> npt.NDArray[np.int64]:
        """(n,) which of all views they are."""
        return np.array([view * len(self._samples) + position for view, position in places])

    def _inputs(self, batch: Batch) -> torch.Tensor:
        images = batch.images.to(self._frozen.device, non_blocking=True)
        return self._colour.varied(images, batch.keys, batch.epoch)

    def _fields(
        self, engine: Engine, batch: Batch, rendered: Sequence[Rendered]
    ) -> dict[str, npt.NDArray[Any]]:
        sizes = np.zeros((len(rendered), MOST_SOURCES, 2), np.int32)
        for k, row in enumerate(rendered):
            for source, size in enumerate(row.sizes):
                sizes[k, source] = size
        try:
            return {**self._frozen.fields(engine, self._inputs(batch)), "sizes": sizes}
        except NotFiniteError as error:
            shown = [sample.key for k in error.rows for sample in rendered[k].row.samples]
            raise NotFiniteError(error.rows, list(dict.fromkeys(shown))) from None

    def _found(self, engine: str, size: Size) -> npt.NDArray[np.int64]:
        """The rows of all views, view after view; −1 where there is none."""
        space = self._space(engine, size)
        space.refresh()
        return space.find_sound(self._shown.wanted(size))

    @property
    def spaces(self) -> list[str]:
        """The names of the folders in the cache where they lie, and what they are made of, whether
        that was needed this time or not."""
        names: set[str] = set()
        part: FrozenPart | None = self._frozen
        while part is not None:
            names |= {self._cache.name_of(part.key(size, self.engine)) for size in self.sizes}
            part = part.before()
        return sorted(names)

    def _space(self, engine: str, size: Size) -> Space:
        if (engine, size) not in self._spaces:
            key = self._frozen.key(size, engine)
            self._spaces[engine, size] = self._cache.space(key, self._frozen.layout(size))
        return self._spaces[engine, size]
