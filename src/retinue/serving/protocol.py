"""HTTP's first lines within limits: uvicorn bounds neither how long headers take to come nor, with
its faster parser, how many there are."""

from __future__ import annotations

import asyncio
import importlib.util
from typing import Any

from retinue.serving.settings import Settings

MOST_HEAD = 1 << 16
"""Bytes of a request's line and headers, and of what follows a body."""
MOST_OPEN = 2
"""Times the connections that are answered: so many are let in, to be told that it is crowded."""
_REFUSALS = {
    408: b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    431: b"HTTP/1.1 431 Headers Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
}


def with_limits(settings: Settings) -> Any:
    """A class of uvicorn's protocols."""
    base: Any = _protocol()
    # H11's events come when it likes; it bounds what follows a body by itself.
    tells_of_bodies = hasattr(base, "on_body")

    class Bounded(base):  # type: ignore[misc]
        """Whoever has not sent all headers in time, or sends too many, is told so and left."""

        _timer: asyncio.TimerHandle | None = None
        _head = 0
        """Bytes since headers were whole, or some of a body came: of the next headers, of trailers,
        or of what else chunks may have about them."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._arm()
            if len(self.connections) > MOST_OPEN * settings.connections:
                transport.abort()

        def data_received(self, data: bytes) -> None:
            if self._timer is None and not self._answering():
                self._arm()
            if tells_of_bodies or not self._answering():
                self._head += len(data)
            super().data_received(data)
            if self._answering():
                self._disarm()
            if self._head > MOST_HEAD:
                self._leave(431)

        def on_headers_complete(self) -> None:
            self._head = 0
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._head = 0
            super().on_body(body)

        def connection_lost(self, error: Exception | None) -> None:
            self._disarm()
            super().connection_lost(error)

        def _answering(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _arm(self) -> None:
            self._timer = self.loop.call_later(settings.header_time, self._leave, 408)

        def _disarm(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _leave(self, status: int) -> None:
            self._disarm()
            if self.transport is not None and not self.transport.is_closing():
                if not (self._answering() and self.cycle.response_started):
                    self.transport.write(_REFUSALS[status])
                self.transport.close()

    return Bounded


def _protocol() -> Any:
    if importlib.util.find_spec("httptools"):
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

        return HttpToolsProtocol
    from uvicorn.protocols.http.h11_impl import H11Protocol

    return H11Protocol
