"""What every request goes through: who may ask, what every answer says, what is noted of it."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retinue.documents import json_text
from retinue.serving import journal
from retinue.serving.counters import Counters
from retinue.serving.keys import Keys
from retinue.serving.problems import Problem, bad, failure, unready
from retinue.serving.settings import Settings
from retinue.text import shorten

log = logging.getLogger("retinue.serving")

GUARDED = ("/v1/", "/metrics")
"""Where a key is needed."""
METHODS = ("GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH")
_SECRETS = {"key", "api_key", "apikey", "api-key", "token", "access_token", "authorization"}
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; media-src 'self' blob:; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Edge:
    """The outermost application."""

    def __init__(
        self, app: ASGIApp, *, settings: Settings, counters: Counters, keys: Keys, routes: Any
    ) -> None:
        """`routes`: those that are counted by their own name; others are all one."""
        self._app, self._settings, self._counters, self._keys = app, settings, counters, keys
        self._routes = routes
        self.under_way = 0
        """Requests that have no whole answer yet."""
        self.crowded: Callable[[], bool] = lambda: False
        """Whether more connections are open than are answered."""
        self.closing = False
        """Whether connections are to be closed behind their answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. Whatever goes wrong in it is an answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        told: dict[str, Any] = {
            "request": given if _ID.fullmatch(given) else secrets.token_hex(8),
            "method": scope["method"] if scope["method"] in METHODS else "other",
            "route": self._route(scope),
            "status": 0,
        }
        scope.setdefault("state", {})["told"] = told

        async def answering(message: Message) -> None:
            if message["type"] == "http.response.start":
                told["status"] = message["status"]
                message["headers"] = [*message.get("headers", ()), *self._headers(told)]
            await send(message)

        self.under_way += 1
        try:
            self._admit(scope, headers)
            # The head of what would be got; uvicorn leaves the body out.
            got = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
            await self._app(got, receive, answering)
        except Problem as problem:
            if told["status"]:
                raise
            await refuse(problem, answering, told)
        except Exception:
            log.exception("a request failed")
            if told["status"]:
                return  # the answer has begun, and is cut off
            await refuse(failure(), answering, told)
        finally:
            self.under_way -= 1
            seconds = time.perf_counter() - start
            told["milliseconds"] = round(1000 * seconds, 3)
            self._counters.requests.labels(told["route"], told["method"], told["status"]).inc()
            self._counters.seconds.labels(told["route"]).observe(seconds)
            journal.note(told)

    def _admit(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Raise `Problem` for who may not ask. Probes may always, by whatever name."""
        probed = scope["path"] in journal.PROBES
        if not probed and self.crowded():
            problem = unready("too many connections are open")
            problem.headers["connection"] = "close"
            raise problem
        host = _host(headers.get(b"host", b"").decode("latin-1"))
        if self._settings.hosts and not probed and host not in self._settings.hosts:
            told = f"the host name {shorten(host, 80)!r} is not allowed here"
            mend = "start the server with --allow-host NAME to allow one"
            raise Problem(421, "wrong_host", told, mend=mend)
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if any(name.lower() in _SECRETS for name, _ in query):
            raise bad(
                "key_in_query", "API keys must not be sent in the URL, where others see them",
                mend="send the header `Authorization: Bearer KEY`, and replace this key",
            )  # fmt: skip
        if scope["path"].startswith(GUARDED):
            self._keys.check(headers)

    def _route(self, scope: Scope) -> str:
        for route in self._routes:
            match, _ = route.matches(scope)
            if match is not Match.NONE:
                return str(route.path)
        return "other"

    def _headers(self, told: dict[str, Any]) -> list[tuple[bytes, bytes]]:
        every = [*HEADERS.items(), ("x-request-id", told["request"])]
        if self.closing:
            every.append(("connection", "close"))
        return [(name.encode(), value.encode("latin-1")) for name, value in every]


async def refuse(problem: Problem, send: Send, told: dict[str, Any]) -> None:
    """Answer with the problem."""
    told["code"] = problem.code
    body = json_text({"error": problem.as_dict(), "request": told["request"]}).encode()
    headers = {"content-type": "application/json", "cache-control": "no-store", **problem.headers}
    headers["content-length"] = str(len(body))
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


def _host(text: str) -> str:
    """Without the port."""
    if text.startswith("["):
        return text[: text.find("]") + 1].lower()
    return text.partition(":")[0].lower()
