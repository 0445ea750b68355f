"""From pictures to what a client is told: each picture is decoded and answered by itself, and what
is wrong with one is said of that one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from retinue.arrays import ImageSize
from retinue.errors import UsageError, suggest
from retinue.serving import explained
from retinue.serving.bodies import Picture
from retinue.serving.counters import Counters
from retinue.serving.decoding import Decoders, Prepared
from retinue.serving.models import Ready, Served, batch_of
from retinue.serving.problems import Problem, bad, busy, late
from retinue.serving.settings import Settings
from retinue.text import shorten

T = TypeVar("T")
Fetch = Callable[[str], Awaitable[bytes]]


class Answers:
    """Of one server."""

    def __init__(
        self, settings: Settings, counters: Counters, decoders: Decoders, fetch: Fetch
    ) -> None:
        self._settings, self._counters = settings, counters
        self._decoders, self._fetch = decoders, fetch
        self._held = 0

    async def of(
        self, model: Served, pictures: Sequence[Picture], options: Mapping[str, str]
    ) -> tuple[str, list[dict[str, Any] | Problem]]:
        """The version of the model that answers, and what is told of each. Raises `Problem` where
        nothing can be told of any."""
        ready = model.current
        task = adjusted(ready, options)
        until = time.monotonic() + self._settings.answer_time
        with model.batcher.admitted(len(pictures)):
            each = [self._one(model, ready, task, picture, until) for picture in pictures]
            return ready.digest, list(await asyncio.gather(*each))

    async def explained(
        self, model: Served, picture: Picture, target: str | None
    ) -> tuple[bytes, dict[str, str]]:
        """What the model's answer for the picture rests on: see `retinue.serving.explained`."""
        ready = model.current
        until = time.monotonic() + self._settings.answer_time
        with model.batcher.admitted(1):
            return await _in_time(self._explained(model, ready, picture, target, until), until)

    async def _explained(
        self, model: Served, ready: Ready, picture: Picture, target: str | None, until: float
    ) -> tuple[bytes, dict[str, str]]:
        data = picture.data or await self._fetch(picture.url)
        prepared = await asyncio.wrap_future(
            self._decoders.submit(picture.name, data, ready.preprocessing)
        )
        work = partial(explained.overlay, ready.predictor, batch_of([prepared]), target)
        return await asyncio.wrap_future(model.batcher.call(work, until=until))

    async def _one(
        self, model: Served, ready: Ready, task: Any, picture: Picture, until: float
    ) -> dict[str, Any] | Problem:
        outcomes = self._counters.images
        try:
            finding, size = await _in_time(self._found(model, ready, picture, until), until)
        except Problem as problem:
            if problem.code == "not_finite":
                self._counters.not_finite.labels(model.name).inc()
            outcomes.labels(model.name, problem.code).inc()
            return problem
        except asyncio.CancelledError:
            outcomes.labels(model.name, "gone").inc()
            raise
        outcomes.labels(model.name, "answered").inc()
        width, height = size
        told = task.result(finding, picture.name).as_dict()
        return {**told, "size": {"width": width, "height": height}}

    async def _found(
        self, model: Served, ready: Ready, picture: Picture, until: float
    ) -> tuple[Any, ImageSize]:
        data = picture.data or await self._fetch(picture.url)
        bytes_held = 0
        try:
            with model.batcher.expected():
                decoding = self._decoders.submit(
                    picture.name, data, ready.preprocessing, whole=ready.whole
                )
                prepared = await asyncio.wrap_future(decoding)
                del data
                bytes_held = self._hold(prepared)
                future = model.batcher.submit(ready, prepared, until=until)
            return await asyncio.wrap_future(future), prepared.size
        finally:
            self._held -= bytes_held

    def _hold(self, prepared: Prepared) -> int:
        """Count the bytes of a picture that waits for its answer. Raises `Problem` where others
        take up all that may: whole pictures, which are as large as they like."""
        own = prepared.pixels.nbytes
        if self._held and self._held + own > self._settings.max_decoded:
            raise busy("too many large pictures are in progress", 1)
        self._held += own
        return own


async def _in_time(work: Awaitable[T], until: float) -> T:
    """`work`, wherever it waits no longer than `until` of the monotonic clock. Raises `Problem`."""
    try:
        async with asyncio.timeout(until - time.monotonic()):
            return await work
    except TimeoutError:
        raise late() from None


def adjusted(ready: Ready, options: Mapping[str, str]) -> Any:
    """The model's task with `options` for its answers. Raises `Problem` for unknown ones."""
    known = sorted(ready.task.adjustable)
    if others := sorted(set(options) - set(known)):
        mend = suggest(others[0], known) or f"choose one of {', '.join(known)}"
        raise bad(
            "bad_option", f"{shorten(others[0], 40)!r} is not an option of this model", mend=mend
        )
    try:
        return ready.adjusted(options)
    except UsageError as error:
        raise bad("bad_option", error.what, mend=error.mend or "") from error
