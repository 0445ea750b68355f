"""Who may call the models."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from retinue.errors import UsageError
from retinue.files import read_text
from retinue.serving.problems import Problem
from retinue.text import first_line

VARIABLE = "RETINUE_API_KEYS"
SHORTEST = 16
"""Characters of a key: what is shorter can be guessed."""


def read_keys(file: Path | None, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """A key a line of `file`, blank lines and those that begin with # left out; without a file,
    those of the variable, between commas. UsageError for none at all in the file, and for short
    ones."""
    if file is None:
        where = f"the variable {VARIABLE}"
        found = [key.strip() for key in environment.get(VARIABLE, "").split(",")]
    else:
        where = str(file)
        try:
            found = [line.strip() for line in read_text(file).splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            told = f"the keys cannot be read: {first_line(error)}"
            raise UsageError(told, where=where, mend="check --key-file") from error
    keys = tuple(key for key in found if key and not key.startswith("#"))
    if file is not None and not keys:
        raise UsageError("there is no key in the file", where=where, mend="write one a line")
    for number, key in enumerate(keys, 1):
        if len(key) < SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
            mend = "python -c 'import secrets; print(secrets.token_urlsafe())' makes one"
            told = f"key {number} is not {SHORTEST} or more printable ASCII characters"
            raise UsageError(told, where=where, mend=mend)
    return keys


class Keys:
    """Those that are taken; none: everybody is let in."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Raise `Problem` unless there is none to be known, or the headers have one."""
        if not self._digests:
            return
        kind, _, key = headers.get(b"authorization", b"").partition(b" ")
        given = key.strip() if kind.lower() == b"bearer" else headers.get(b"x-api-key", b"")
        told = {"www-authenticate": "Bearer"}
        if not given:
            mend = "send the header `Authorization: Bearer KEY`"
            raise Problem(401, "no_key", "an API key is needed", mend=mend, headers=told)
        digest = _digest(given)
        # Every one is compared, and to the end, so that the time tells nothing.
        fits = [hmac.compare_digest(digest, known) for known in self._digests]
        if not any(fits):
            raise Problem(401, "wrong_key", "the API key is not valid", headers=told)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
