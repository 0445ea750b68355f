"""Pictures from addresses: off; where they are on, never from where the server alone reaches."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from served import picture, quick

from retinue.serving import addresses
from retinue.serving.problems import Problem


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255", "198.18.0.1",
        "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    ],
)  # fmt: skip
def test_what_is_not_public_is_known(address: str) -> None:
    assert not addresses.is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111"])
def test_what_is_public_is_known(address: str) -> None:
    assert addresses.is_public(address)


def test_addresses_are_refused_unless_they_are_allowed(client: httpx.Client) -> None:
    answer = client.post("/v1/predict", json={"image": {"url": "https://example.org/a.jpg"}})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "no_urls"


PICTURE = picture()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/picture":
            self._send(200, PICTURE)
        elif self.path == "/there":
            self._send(302, b"", Location="/picture")
        elif self.path == "/round":
            self._send(302, b"", Location="/round")
        elif self.path == "/file":
            self._send(302, b"", Location="file:///etc/passwd")
        elif self.path == "/inside":
            self._send(302, b"", Location=f"http://localhost:{self.server.server_port}/picture")
        elif self.path == "/slow":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            for _ in range(40):
                self.wfile.write(b"x")
                time.sleep(0.05)
        else:
            self._send(404, b"")

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def fetched(url: str, *, public: Any = lambda address: True, most: int = 1 << 20) -> bytes:
    until = time.monotonic() + 1
    return addresses.fetched(url, most=most, until=until, public=public)


def refusal(url: str, **how: Any) -> str:
    with pytest.raises(Problem) as told:
        fetched(url, **how)
    return told.value.code


def test_a_picture_is_fetched_also_behind_a_redirect(elsewhere: str) -> None:
    assert fetched(f"{elsewhere}/picture") == PICTURE
    assert fetched(f"{elsewhere}/there") == PICTURE


def test_loopback_is_refused_by_any_of_its_names(elsewhere: str) -> None:
    port = elsewhere.rsplit(":", 1)[1]
    for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"):
        url = f"http://{host}:{port}/picture"
        assert refusal(url, public=addresses.is_public) in ("private_url", "bad_url")


def test_each_redirect_is_checked(elsewhere: str) -> None:
    asked: list[str] = []

    def once(address: str) -> bool:
        asked.append(address)
        return len(asked) == 1

    assert refusal(f"{elsewhere}/inside", public=once) == "private_url"
    assert len(asked) >= 2
    assert refusal(f"{elsewhere}/file") == "bad_url"
    assert refusal(f"{elsewhere}/round") == "bad_url"


def test_a_name_that_means_another_address_the_next_moment_leads_nowhere_else(
    elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked up once; what is connected to is what was checked."""
    port = int(elsewhere.rsplit(":", 1)[1])
    lookups: list[str] = []
    found = addresses.socket.getaddrinfo

    def lookup(host: str, *rest: Any, **how: Any) -> Any:
        lookups.append(host)
        return found("127.0.0.1" if len(lookups) == 1 else "127.0.0.2", *rest, **how)

    monkeypatch.setattr(addresses.socket, "getaddrinfo", lookup)
    assert fetched(f"http://pictures.example:{port}/picture") == PICTURE
    assert lookups == ["pictures.example"]


def test_bytes_and_time_are_bounded(elsewhere: str) -> None:
    assert refusal(f"{elsewhere}/picture", most=100) == "too_many_bytes"
    start = time.monotonic()
    assert refusal(f"{elsewhere}/slow") == "bad_url"
    assert time.monotonic() - start < 1.8


def test_time_is_bounded_while_hands_are_shaken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then, of a record that says it has many."""
    server = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def drip() -> None:
        with server.accept()[0] as sock, suppress(OSError):
            sock.sendall(b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xf0")
            while not ended.wait(0.1):
                sock.sendall(b"\0")

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    start = time.monotonic()
    assert refusal(f"https://127.0.0.1:{server.getsockname()[1]}/") == "bad_url"
    assert time.monotonic() - start < 1.8
    ended.set()
    thread.join(5)
    server.close()


def test_the_deadline_holds_where_it_passes_as_the_socket_becomes_a_secure_one(
    elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be cut then; what comes afterwards, byte by byte, is not waited for."""

    class Secure(socket.socket):
        def do_handshake(self) -> None:
            pass

    class Context:
        def wrap_socket(self, plain: socket.socket, **_: Any) -> socket.socket:
            made = Secure(fileno=plain.detach())
            time.sleep(1.1)  # past the deadline
            made.settimeout(5)
            return made

    monkeypatch.setattr(addresses.ssl, "create_default_context", Context)
    start = time.monotonic()
    assert refusal(f"{elsewhere}/slow".replace("http:", "https:")) == "bad_url"
    assert time.monotonic() - start < 1.6


def test_no_name_is_looked_up_once_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses.socket, "getaddrinfo", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(Problem, match="in time"):
        addresses.fetched("http://a.example/", most=1, until=time.monotonic() - 1)


@pytest.mark.parametrize(
    "url",
    ["", "picture.png", "ftp://example.org/a", "http://", "http://[", "http://a:b@example.org/",
     "http://example.org:99999/", "http://exa mple.org/", "http://x\r\nHost: y/"],
)  # fmt: skip
def test_what_is_no_address_is_refused(url: str) -> None:
    assert refusal(url) == "bad_url"


def test_the_server_asks_where_it_may() -> None:
    fetch = addresses.fetcher(quick(urls=True))
    with pytest.raises(Problem, match="not on the public internet"):
        asyncio.run(fetch("http://127.0.0.1:9/"))
