"""Pictures from addresses that requests name: off by default, since whoever asks then makes the
server ask others.

Only what is on the public internet is asked: a name's addresses are looked up once, all of them
have to be public ones, and the connection goes to one of those, so that a name which means another
address the next moment leads nowhere else. Each redirect is checked the same way.
"""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from urllib.parse import urljoin, urlsplit

from retinue.serving.answers import Fetch
from retinue.serving.problems import Problem, bad, too_large
from retinue.serving.settings import Settings

MOST_REDIRECTS = 4
AT_ONCE = 8
"""Fetches; others wait."""
_PIECE = 1 << 16
_SECONDS = 10.0

Public = Callable[[str], bool]


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the internet at large: not to this machine, a private
    network, a provider's own services, or several hosts at once."""
    found = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None)
    if isinstance(found, ipaddress.IPv6Address) and found in _NAT64:
        inner = ipaddress.IPv4Address(found.packed[-4:])
    if inner is not None:
        return is_public(str(inner))
    return found.is_global and not found.is_multicast and not found.is_reserved


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def fetcher(settings: Settings, *, public: Public = is_public) -> Fetch:
    """Gives what lies at an address, where that is allowed; raises `Problem` elsewhere."""
    threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="retinue-fetch")

    async def fetch(url: str) -> bytes:
        if not settings.urls:
            raise bad(
                "no_urls", "this server does not fetch pictures from URLs",
                mend="send the picture itself",
            )  # fmt: skip
        loop = asyncio.get_running_loop()
        until = time.monotonic() + min(_SECONDS, settings.answer_time)
        return await loop.run_in_executor(
            threads, lambda: fetched(url, most=settings.max_bytes, until=until, public=public)
        )

    return fetch


def fetched(url: str, *, most: int, until: float, public: Public = is_public) -> bytes:
    """At most `most` bytes, before `until` of the monotonic clock. Raises `Problem`."""
    for _ in range(MOST_REDIRECTS + 1):
        found = _asked(url, most, until, public)
        if isinstance(found, bytes):
            return found
        url = urljoin(url, found)
    raise bad("bad_url", f"the address redirects more than {MOST_REDIRECTS} times")


def _asked(url: str, most: int, until: float, public: Public) -> bytes | str:
    """The content, or where it is said to be."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise bad("bad_url", "that is not a web address") from None
    host = parts.hostname
    if parts.scheme not in ("http", "https") or not host or parts.username is not None:
        raise bad("bad_url", "only http and https addresses without a user are fetched")
    if time.monotonic() >= until:  # a name may take a while to be looked up
        raise bad("bad_url", "the address does not answer in time")
    place = _place(host, port or (443 if parts.scheme == "https" else 80), public)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = _Pinned(host, place, secure=parts.scheme == "https", until=until)
    try:
        connection.request("GET", target, headers={"Accept": "image/*", "User-Agent": "retinue"})
        answer = connection.getresponse()
        if answer.status in (301, 302, 303, 307, 308):
            return answer.getheader("Location") or ""
        if answer.status != 200:
            raise bad("bad_url", f"the address answers {answer.status}")
        return _content(answer, connection, most)
    except (OSError, http.client.HTTPException, ValueError) as error:
        late = connection.late or isinstance(error, TimeoutError)
        told = "does not answer in time" if late else "cannot be fetched"
        raise bad("bad_url", f"the address {told}") from error
    finally:
        connection.close()


def _content(answer: Any, connection: _Pinned, most: int) -> bytes:
    body = bytearray()
    while True:
        piece = answer.read1(_PIECE)
        connection.refuse_late()
        if not piece:
            return bytes(body)
        body += piece
        if len(body) > most:
            raise too_large("too_many_bytes", f"what lies there has more than {most:,} bytes")


def _place(host: str, port: int, public: Public) -> tuple[Any, ...]:
    """Family and address to connect to. Raises `Problem`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise bad("bad_url", "there is no such host") from None
    if not all(public(str(entry[4][0])) for entry in found):
        raise Problem(403, "private_url", "the address is not on the public internet")
    family, _, _, _, address = found[0]
    return family, address


class _Pinned(http.client.HTTPConnection):
    """Speaks to one address, in the name of a host, and no longer than it may."""

    def __init__(self, host: str, place: tuple[Any, ...], *, secure: bool, until: float) -> None:
        super().__init__(f"[{host}]" if ":" in host else host, place[1][1])
        self._place, self._secure, self._until = place, secure, until
        self._timer: threading.Timer | None = None
        self.late = False

    def connect(self) -> None:
        """See `http.client`."""
        family, address = self._place
        left = self.refuse_late()
        self._plain = socket.socket(family, socket.SOCK_STREAM)
        self._plain.settimeout(left)
        # A limit for each step is none for all: a byte every second would keep a thread for ever.
        self._timer = threading.Timer(left, self._cut)
        self._timer.daemon = True
        self._timer.start()
        self._plain.connect(address)
        self.sock = self._plain
        if self._secure:
            context = ssl.create_default_context()
            # The plain socket is an empty shell from here on, and `_cut` has to find the other one
            # while it shakes hands; if it came between the two, the deadline is past.
            self.sock = secure = context.wrap_socket(
                self._plain, server_hostname=self.host.strip("[]"), do_handshake_on_connect=False
            )
            self.refuse_late()
            secure.do_handshake()

    def refuse_late(self) -> float:
        """Seconds that are left. TimeoutError where there are none."""
        left = self._until - time.monotonic()
        if self.late or left <= 0:
            raise TimeoutError
        return left

    def _cut(self) -> None:
        self.late = True
        sock = self.sock or self._plain
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """See `http.client`."""
        if self._timer is not None:
            self._timer.cancel()
        super().close()
