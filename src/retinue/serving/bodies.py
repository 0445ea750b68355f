"""A request's body to pictures: bounded in bytes and time, and held in memory alone, so that one
that breaks off leaves nothing behind.

A body is multipart (`image` parts, as forms send them), JSON with base64, or a picture itself.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from retinue.documents import NotJson, parse_json
from retinue.serving.problems import Problem, bad, busy, too_large
from retinue.serving.settings import Settings
from retinue.text import shorten

MOST_NAME = 1000
"""Characters of a picture's name."""
_MOST_FIELD = 1 << 16
_DATA = re.compile(r"\s*data:[^,]*,", re.ASCII)
_EXTENDED = re.compile(r"filename\*\s*=\s*([\w-]+)'[^']*'([^;,\s\"]+)", re.ASCII | re.IGNORECASE)
_ALPHABET = bytes.maketrans(b"-_", b"+/")
_MEND = "send a picture as the body, as a part of multipart/form-data, or in JSON as base64"


@dataclass(frozen=True, slots=True)
class Picture:
    """One that a request brings, or says where it is."""

    name: str
    data: bytes = b""
    url: str = ""


@dataclass(slots=True)
class Body:
    """What a request holds."""

    pictures: list[Picture] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)
    """Everything else."""


class Buffers:
    """How many bytes of bodies are held while they come in, over all requests."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.held = 0

    @asynccontextmanager
    async def received(self, request: Request) -> AsyncIterator[bytes]:
        """The body, which counts as long as this lasts. Raises `Problem`."""
        settings, taken = self._settings, 0
        told = request.headers.get("content-length", "")
        if told.isascii() and told.isdecimal() and int(told[:20]) > settings.max_bytes:
            raise _too_many(settings)
        body = bytearray()
        try:
            async with asyncio.timeout(settings.body_time):
                async for piece in request.stream():
                    taken += len(piece)
                    self.held += len(piece)
                    if taken > settings.max_bytes:
                        raise _too_many(settings)
                    if self.held > settings.max_buffered:
                        raise busy("too many uploads at the moment", 1)
                    body += piece
            yield _taken(body)  # held by whoever takes it, and not here
        except TimeoutError:
            told = f"the body did not arrive within {settings.body_time:g} s"
            raise Problem(408, "too_slow", told, headers={"connection": "close"}) from None
        except ClientDisconnect:
            raise Problem(499, "gone", "the client has gone") from None
        finally:
            self.held -= taken


def _taken(body: bytearray) -> bytes:
    whole = bytes(body)
    body.clear()
    return whole


def _too_many(settings: Settings) -> Problem:
    problem = too_large(
        "too_many_bytes",
        f"the body has more than {settings.max_bytes:,} bytes",
        mend="send fewer pictures, or smaller ones",
    )
    problem.headers["connection"] = "close"  # what is left of it is not read
    return problem


def parsed(content_type: str, disposition: str, body: bytes, *, most: int) -> Body:
    """`disposition`: the header of a picture that is the body itself; `most` pictures are taken.
    Raises `Problem` for what is none of the three."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        found = _multipart(content_type, body, most)
    elif kind == "application/json":
        found = _json(body, most)
    elif kind in ("", "application/octet-stream", "application/x-www-form-urlencoded") or (
        kind.startswith("image/")
    ):
        # What curl's --data-binary calls a form is the picture all the same.
        found = Body([Picture(_name(disposition) or "image", body)])
    else:
        raise Problem(415, "unsupported_media_type", f"{shorten(kind, 40)} is not accepted",
                      mend=_MEND)  # fmt: skip
    if not found.pictures:
        raise bad("no_picture", "the request contains no picture", mend=_MEND)
    for picture in found.pictures:
        if not picture.data and not picture.url:
            raise bad("bad_image", f"{shorten(picture.name, 60)!r} is empty")
    return found


def _name(disposition: str) -> str:
    """Of RFC 6266: `filename*` (RFC 5987) before `filename`."""
    extended = _EXTENDED.search(disposition)
    if extended is not None and extended[1].lower() in ("utf-8", "iso-8859-1"):
        return unquote(extended[2], extended[1], "replace")[:MOST_NAME]
    _, parameters = parse_options_header(disposition)
    return parameters.get(b"filename", b"").decode("utf-8", "replace")[:MOST_NAME]


# --- multipart -----------------------------------------------------------------------------------


class _Parts:
    """Takes what the parser finds."""

    def __init__(self, most: int) -> None:
        self.found = Body()
        self._most = most
        self._headers: dict[bytes, bytes] = {}
        self._field, self._value = b"", b""
        self._data = bytearray()
        self.ended = False

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._part_data,
            "on_part_end": self._end,
            "on_end": self._all,
        }

    def _begin(self) -> None:
        self._headers, self._data = {}, bytearray()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._data += memoryview(data)[start:end]

    def _end(self) -> None:
        _, parameters = parse_options_header(self._headers.get(b"content-disposition"))
        name = parameters.get(b"name", b"").decode("utf-8", "replace")
        file = parameters.get(b"filename")
        if file is None and name not in ("image", "images", "file", "files"):
            if len(self._data) > _MOST_FIELD:
                raise bad("bad_field", f"the field {shorten(name, 40)!r} is too long")
            self.found.options[name] = self._data.decode("utf-8", "replace")
            return
        if len(self.found.pictures) >= self._most:
            raise _too_many_images(self._most)
        called = (file or b"").decode("utf-8", "replace")[:MOST_NAME]
        number = len(self.found.pictures)
        self.found.pictures.append(Picture(called or f"image {number}", bytes(self._data)))

    def _all(self) -> None:
        self.ended = True


def _multipart(content_type: str, body: bytes, most: int) -> Body:
    _, parameters = parse_options_header(content_type)
    boundary = parameters.get(b"boundary")
    if not boundary:
        raise bad("bad_multipart", "the multipart body has no boundary")
    parts = _Parts(most)
    try:
        parser = MultipartParser(
            boundary, parts.callbacks(), max_header_count=16, max_header_size=8192
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise bad("bad_multipart", f"the multipart body is damaged: {error}") from error
    if not parts.ended:
        raise bad("bad_multipart", "the multipart body is truncated")
    return parts.found


def _too_many_images(most: int) -> Problem:
    return too_large(
        "too_many_images", f"more than {most} pictures", mend="send them in several requests"
    )


# --- JSON ----------------------------------------------------------------------------------------


def _json(body: bytes, most: int) -> Body:
    """`{"image": BASE64}` or `{"images": [BASE64 | {"name", "data" | "url"}…]}`; what stands beside
    these are options."""
    try:
        value = parse_json(body)
    except NotJson as error:
        raise bad("bad_json", f"the body is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise bad("bad_json", "the JSON is not an object", mend='send {"image": "…base64…"}')
    given = value.pop("images", [])
    if not isinstance(given, list):
        raise bad("bad_json", "`images` is not a list")
    given = [*([value.pop("image")] if "image" in value else []), *given]
    if len(given) > most:
        raise _too_many_images(most)
    pictures = [_picture(one, f"image {number}") for number, one in enumerate(given)]
    options = {}
    for key, option in value.items():
        if not isinstance(option, str | int | float | bool):
            raise bad("bad_json", f"{shorten(key, 40)!r} must be a string, a number or a boolean")
        options[key] = option if isinstance(option, str) else str(option).lower()
    return Body(pictures, options)


def _picture(value: Any, name: str) -> Picture:
    if isinstance(value, str):
        value = {"data": value}
    if not isinstance(value, dict) or set(value) - {"name", "data", "url"}:
        raise bad("bad_json", f"{name} is neither base64 nor {{name, data}} or {{name, url}}")
    called, data, url = (value.get(key, "") for key in ("name", "data", "url"))
    if not all(isinstance(one, str) for one in (called, data, url)) or bool(data) == bool(url):
        raise bad("bad_json", f"{name} needs either `data` or `url`, as a string")
    called = (called or name)[:MOST_NAME]
    return Picture(called, url=url) if url else Picture(called, decoded(data, called))


def decoded(text: str, name: str) -> bytes:
    """Base64 of either alphabet, padded or not, with line breaks, behind `data:…,` or bare. Raises
    `Problem` for anything else."""
    start = _DATA.match(text, 0, 1000)
    if start is not None and not start[0].lower().rstrip(", ").endswith(";base64"):
        raise bad("bad_base64", f"{shorten(name, 60)!r}: only base64 is accepted in data: URLs")
    try:
        plain = text[start.end() if start else 0 :].encode("ascii")
        plain = plain.translate(_ALPHABET, b" \t\r\n\f\v").rstrip(b"=")
        return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise bad("bad_base64", f"{shorten(name, 60)!r} is not valid base64") from None
