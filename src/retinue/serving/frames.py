"""What goes through the pipe between the server and a process that decodes: a JSON value, and bytes
whose number it tells. Nothing that comes out of it is executed."""

from __future__ import annotations

import struct
from typing import IO, Any

from retinue.documents import json_text, parse_json

_LENGTH = struct.Struct("<I")
_MOST = 1 << 20


def send(pipe: IO[bytes], value: dict[str, Any], body: bytes | memoryview = b"") -> None:
    """Raises OSError where nobody reads any more."""
    head = json_text({**value, "bytes": len(body)}).encode()
    pipe.write(_LENGTH.pack(len(head)) + head)
    pipe.write(body)
    pipe.flush()


def receive(pipe: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """None where the other side has ended; ValueError for what is no frame."""
    start = pipe.read(_LENGTH.size)
    if len(start) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(start)
    if length > _MOST:
        raise ValueError("not a frame")
    value = parse_json(pipe.read(length))
    if not isinstance(value, dict) or not isinstance(value.get("bytes"), int):
        raise ValueError("not a frame")
    body = pipe.read(value["bytes"])
    return (value, body) if len(body) == value["bytes"] else None
