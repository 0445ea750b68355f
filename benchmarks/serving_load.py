"""The load that `serving.py` puts on a server: clients that ask as soon as they are answered, ones
that come when they come, ones that mean no good, and ones that are there when it ends."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

EDGE = "bench-edge"


def request(body: bytes, kind: str = f"multipart/form-data; boundary={EDGE}") -> bytes:
    return (
        f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def form(photo: bytes) -> bytes:
    head = 'Content-Disposition: form-data; name="image"; filename="a.jpg"'
    return f"--{EDGE}\r\n{head}\r\n\r\n".encode() + photo + f"\r\n--{EDGE}--\r\n".encode()


class Connection:
    """One that is kept; made anew when the server has closed it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._streams: Any = None

    async def status(self, sent: bytes) -> int:
        """Of the answer. OSError, EOFError where there is none."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self._streams
        try:
            writer.write(sent)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = re.search(rb"content-length: (\d+)", head)
            await reader.readexactly(int(length[1]) if length else 0)
            if b"connection: close" in head:
                self.close()
            return int(head[9:12])
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


async def closed_loop(port: int, sent: list[bytes], clients: int, seconds: float) -> float:
    """Answers a second, each client asking as soon as it is answered."""
    end = time.perf_counter() + seconds
    done = 0

    async def client(number: int) -> None:
        nonlocal done
        connection, k = Connection(port), number
        while time.perf_counter() < end:
            status = await connection.status(sent[k % len(sent)])
            assert status == 200, status
            done, k = done + 1, k + clients
        connection.close()

    start = time.perf_counter()
    await asyncio.gather(*(client(k) for k in range(clients)))
    return done / (time.perf_counter() - start)


async def open_loop(
    port: int, sent: list[bytes], rate: float, seconds: float
) -> tuple[list[float], Counter[Any]]:
    """Latencies of what was answered, from when it was due; and all statuses. Arrivals at random
    (Poisson), whatever the server does."""
    rng, idle = random.Random(0), [Connection(port) for _ in range(8)]
    latencies: list[float] = []
    statuses: Counter[Any] = Counter()

    async def one(due: float, body: bytes) -> None:
        connection = idle.pop() if idle else Connection(port)
        try:
            status: Any = await connection.status(body)
        except (OSError, EOFError) as error:
            status = type(error).__name__
        idle.append(connection)
        statuses[status] += 1
        if status == 200:
            latencies.append(time.perf_counter() - due)

    tasks, due, start = [], time.perf_counter(), time.perf_counter()
    while due < start + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.ensure_future(one(due, sent[len(tasks) % len(sent)])))
        due += rng.expovariate(rate)
    await asyncio.gather(*tasks)
    for connection in idle:
        connection.close()
    return sorted(latencies), statuses


def at(values: list[float], share: float) -> float:
    """A percentile, in ms."""
    return 1000 * values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


async def ended(
    stop: Callable[[], None], port: int, sent: list[bytes], clients: int
) -> Counter[Any]:
    """What clients meet while the server is told to stop; each gives up when it is not let in."""
    statuses: Counter[Any] = Counter()

    async def client(number: int) -> None:
        connection, k = Connection(port), number
        while True:
            if number % 2:
                connection.close()
            if connection._streams is None:
                try:
                    connection._streams = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    statuses["not let in"] += 1
                    return
            try:
                statuses[await connection.status(sent[k % len(sent)])] += 1
            except (OSError, EOFError) as error:
                statuses[type(error).__name__] += 1
            k += 1

    clients_ = [asyncio.ensure_future(client(k)) for k in range(clients)]
    await asyncio.sleep(2)
    stop()
    await asyncio.gather(*clients_)
    return statuses


async def assault(port: int, good: bytes, count: int) -> tuple[Counter[Any], float]:
    """`count` hostile requests, 48 at once, and how long `/healthz` took at worst meanwhile."""
    rng = random.Random(0)
    statuses: Counter[Any] = Counter()
    slowest, left = 0.0, count
    photo = good.split(b"\r\n\r\n", 2)[2]

    def made() -> tuple[bytes, str]:
        kind = rng.randrange(12)
        if kind == 0:  # cut off, and the end never comes
            return good[: rng.randrange(1, len(good))], "go"
        if kind == 1:  # a picture that breaks off
            return request(photo[: rng.randrange(1, len(photo))], "image/jpeg"), "read"
        if kind == 2:  # a bomb
            head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + rng.randbytes(8) + b"\x08\x02\0\0\0"
            return request(head + rng.randbytes(40), "image/png"), "read"
        if kind == 3:
            return request(rng.randbytes(1), rng.choice(["image/png", "application/json"])), "read"
        if kind == 4:
            names = b"../../../etc/passwd\0<script>" + rng.randbytes(20)
            return request(form(photo).replace(b"a.jpg", names)), "read"
        if kind == 5:
            return request(rng.randbytes(3000), "text/html"), "read"
        if kind == 6:  # no HTTP
            return rng.randbytes(rng.randrange(1, 3000)), "read"
        if kind == 7:  # by the byte
            return good[:400], "slow"
        if kind == 8:
            path = "/" + "".join(rng.choices("abc/%.?=&", k=40))
            return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), "read"
        if kind == 9:
            return request(b"-" * 100_000), "read"
        if kind == 10:
            junk = json.dumps({"image": rng.choice([None, 3, [], "x" * 1000, {"url": "file:///"}])})
            return request(junk.encode(), "application/json"), "read"
        flipped = bytearray(photo)
        for _ in range(20):
            flipped[rng.randrange(len(flipped))] = rng.randrange(256)
        return request(bytes(flipped), "image/jpeg"), "read"

    async def client() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            data, manner = made()
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                statuses["not let in"] += 1
                continue
            try:
                if manner == "slow":
                    for k in range(20):
                        writer.write(data[k : k + 1])
                        await asyncio.sleep(0.02)
                else:
                    writer.write(data)
                if manner == "read":
                    said = await asyncio.wait_for(reader.read(12), 60)
                    told = said[9:12].decode("latin-1")
                    statuses[int(told) if told.isdecimal() else "closed"] += 1
                else:
                    statuses["left"] += 1
            except (OSError, TimeoutError) as error:
                statuses[type(error).__name__] += 1
            finally:
                writer.close()

    async def watch() -> None:
        nonlocal slowest
        connection = Connection(port)
        while left > 0:
            start = time.perf_counter()
            await connection.status(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            slowest = max(slowest, time.perf_counter() - start)
            await asyncio.sleep(0.1)

    await asyncio.gather(watch(), *(client() for _ in range(48)))
    return statuses, slowest
