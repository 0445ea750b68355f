"""Runs the application: from the socket to the last answer after SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

import uvicorn

from retinue.errors import RetinueError, UsageError
from retinue.inference.predictor import load
from retinue.modelfile import find_model
from retinue.serving import journal
from retinue.serving.addresses import fetcher
from retinue.serving.answers import Answers
from retinue.serving.app import House, made
from retinue.serving.counters import Counters
from retinue.serving.decoding import Decoders
from retinue.serving.edge import Edge
from retinue.serving.models import Load, Served, Watch
from retinue.serving.protocol import MOST_OPEN, with_limits
from retinue.serving.samples import Samples
from retinue.serving.settings import LOOPBACK, Settings

log = logging.getLogger("retinue.serving")

_OTHER_FILES = 200
_LAST = 0.1
"""Seconds from a connection to its request, of those that come last."""
_MEND = "try another --port, or 0 for any free one"


class Server(uvicorn.Server):
    """Uvicorn, which loads the models while `/healthz` answers already, and drains gently."""

    def __init__(
        self,
        config: uvicorn.Config,
        edge: Edge,
        house: House,
        *,
        load: Callable[[], None],
        told: Callable[[], None],
    ) -> None:
        """`load` makes it ready, in a thread of its own; `told` is called then."""
        super().__init__(config)
        self._edge, self._house, self._get_ready, self._told = edge, house, load, told
        self.failed: Exception | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens; the models come in a thread."""
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._load, args=(loop,), name="retinue-load", daemon=True).start()

    def _load(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._get_ready()
        except Exception as error:
            if not self.should_exit:  # else it was cut off, which is no failure
                self.failed = error
            self.should_exit = True
        else:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._told)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """First whoever is connected is told that this was the last answer; then nobody else is let
        in, and what is under way is answered."""
        self._house.draining = self._edge.closing = True
        if self.failed is None and not self.force_exit:
            await asyncio.sleep(self._house.settings.lame_duck)
            await self._let_in_the_last(sockets or [])
        await super().shutdown(sockets)

    async def _let_in_the_last(self, sockets: Sequence[socket.socket]) -> None:
        """Whoever is connected already, as far as the system is concerned, but not accepted yet
        would have the connection reset. So the door is closed behind them."""
        loop, waiting = asyncio.get_running_loop(), []
        doors = [door.dup() for door in sockets]
        for server in self.servers:
            server.close()
        for door in doors:
            door.setblocking(False)
            door.listen(0)
            with contextlib.suppress(OSError):  # no more of them
                while True:
                    waiting.append(door.accept()[0])
            door.close()
        for connection in waiting:
            connection.setblocking(False)
            await loop.connect_accepted_socket(self._protocol, connection)
        await asyncio.sleep(_LAST if sockets else 0)  # until what they want has come, too

    def _protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are heard by `Stop`, which begins earlier."""
        yield

    def told(self, times: int) -> None:
        """To stop: once, in good order; again, at once."""
        self.should_exit, self.force_exit = times > 0, times > 1


class Stop:
    """SIGTERM and Ctrl-C, from before there is anything to stop. An end in good order is no
    failure: the signal is not raised again."""

    def __init__(self) -> None:
        self._times = 0
        self._server: Server | None = None

    @contextlib.contextmanager
    def heard(self) -> Iterator[Stop]:
        """While this lasts; outside the main thread, where Python allows no handlers, not."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._hear) for number in numbers}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, sig: int, frame: FrameType | None) -> None:
        self._times += 1
        self.tell(self._server)

    def tell(self, server: Server | None) -> None:
        """It is the one to stop, now if that has been asked for."""
        self._server = server
        if server is not None and self._times:
            server.told(self._times)


def listening(settings: Settings) -> socket.socket:
    """A socket for the address. UsageError where it cannot be had."""
    where = f"{settings.host}:{settings.port}"
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        own = 0 if isinstance(error, socket.gaierror) else error.errno
        told = (os.strerror(own) if own else str(error.strerror or error)).lower()
        raise UsageError(f"cannot listen: {told}", where=where, mend=_MEND) from error


class Service:
    """Models behind an address: `run` serves until it is told to stop."""

    def __init__(
        self,
        models: Mapping[str, Path],
        settings: Settings,
        *,
        load: Load = load,
        say: Callable[[str], None] = print,
    ) -> None:
        """`models`: name → path, which `load` opens; `say` is told where, once they are ready.
        UsageError for a model that is missing, or an address that cannot be had."""
        settings = replace(settings, hosts=names_of(settings.host, settings.hosts))
        counters = Counters()
        samples = Samples(settings.samples)
        for path in models.values():
            find_model(path)
        self._socket = listening(settings)
        host, port = self._socket.getsockname()[:2]
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._models = [
            Served(name, path, settings, counters, load=load, examples=samples.files)
            for name, path in models.items()
        ]
        self._decoders = Decoders(
            settings.decoders,
            most_pixels=settings.max_pixels,
            time=settings.decode_time,
            replaced=counters.decoders.inc,
        )
        answers = Answers(settings, counters, self._decoders, fetcher(settings))
        self.house = House(settings, self._models, counters, answers, samples)
        self._edge = made(self.house)
        self._watch = Watch(self._models, settings.watch)
        self._say = say
        self.server = Server(
            _config(self._edge, settings), self._edge, self.house,
            load=self._load, told=self._ready,
        )  # fmt: skip
        connections = self.server.server_state.connections
        self._edge.crowded = lambda: len(connections) > settings.connections

    def _load(self) -> None:
        for model in self._models:
            model.begin()
        self._decoders.warm_up()
        self.house.warm = True

    def _ready(self) -> None:
        self._watch.start()
        self._say(f"serving {', '.join(self.house.models)} at {self.address}")

    def run(self) -> None:
        """Serve until SIGTERM, Ctrl-C or `stop`. Raises what loading the models does."""
        try:
            if not self.server.should_exit:
                self.server.run(sockets=[self._socket])
        finally:
            self.close()
        failed = self.server.failed
        if isinstance(failed, RetinueError):
            raise failed
        if failed is not None:
            raise RetinueError(f"a model cannot be loaded: {failed}") from failed

    def stop(self) -> None:
        """As SIGTERM does."""
        self.server.should_exit = True

    def close(self) -> None:
        """End processes and threads, and listen no more."""
        self._socket.close()
        self._watch.close()
        self._decoders.close()
        for model in self._models:
            model.batcher.close()


def _config(edge: Edge, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        edge,
        http=with_limits(settings),
        loop="uvloop" if importlib.util.find_spec("uvloop") else "asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=max(1, round(settings.drain_time)),
    )


def run(
    models: Mapping[str, Path],
    settings: Settings,
    *,
    load: Load = load,
    say: Callable[[str], None] = print,
    log_format: journal.LogFormat = "auto",
) -> None:
    """Serve `models` until SIGTERM or Ctrl-C, with a line a request on standard error; see
    `Service`."""
    make_room(MOST_OPEN * settings.connections)
    with Stop().heard() as stop, journal.written(log_format):
        service = Service(models, settings, load=load, say=say)
        stop.tell(service.server)
        if settings.open_to_others and not settings.keys:
            log.warning(
                "%s is reachable from other machines, and anyone there may use the models: set"
                " API keys with --key-file, or listen on 127.0.0.1", settings.host,
            )  # fmt: skip
        service.run()


def make_room(connections: int) -> None:
    """Let this process have as many files open as so many connections take, if that is allowed:
    where no more can be opened, nobody is let in, probes neither."""
    try:
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = connections + _OTHER_FILES
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ImportError, ValueError, OSError):  # not this system's way, or not allowed
        return


def names_of(host: str, more: tuple[str, ...]) -> tuple[str, ...]:
    """What the server is called by: of one that only this machine reaches, loopback's names and
    `more`; any, where others reach it and none are named."""
    if host not in LOOPBACK:
        return tuple(name.lower() for name in more)
    return ("localhost", "127.0.0.1", "[::1]", *(name.lower() for name in more))
