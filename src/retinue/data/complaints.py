"""What decoders say beside their results: warnings of Pillow and NumPy, and libtiff's errors.

Left alone they land on the terminal between lines of progress, without the file's name, hundreds
of times. While images are read, what a decoder warns of or Pillow logs is told once a kind, with
the first file; warnings from elsewhere go where they went before. What libtiff prints itself is
taken from it, and counts as an error of the file.
"""

from __future__ import annotations

import ctypes
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import PIL

LOGGER = logging.getLogger("retinue")

_PILLOW = logging.getLogger("PIL")
_MOST_KINDS = 50


class _Here(threading.local):
    """What this thread is reading."""

    path: str | None = None
    errors: list[str] | None = None


_here = _Here()
_lock = threading.Lock()
_listeners = 0
_before: Any = None
_propagated = True
_told: set[str] = set()
_libtiff: list[Any] | None = None


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Whatever is warned of inside, by this thread, is about the image `path`."""
    outer, _here.path = _here.path, path
    try:
        yield
    finally:
        _here.path = outer


@contextmanager
def told_once() -> Iterator[None]:
    """Inside, what decoders warn of while they read is told once a kind. For all threads; may be
    nested and overlap."""
    global _listeners, _before, _propagated
    with _lock:
        _listeners += 1
        if _listeners == 1:
            _before = warnings.showwarning
            warnings.showwarning = _show
            _PILLOW.addHandler(_log)
            _propagated, _PILLOW.propagate = _PILLOW.propagate, False
            _told.clear()
    try:
        yield
    finally:
        with _lock:
            _listeners -= 1
            if _listeners == 0:
                if warnings.showwarning is _show:
                    warnings.showwarning = _before
                _PILLOW.removeHandler(_log)
                _PILLOW.propagate = _propagated


def _show(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
    if _here.path is None:
        _before(message, category, *place, **more)
    else:
        _tell(_here.path, str(message))


class _Log(logging.Handler):
    """What Pillow logs while it reads."""

    def emit(self, record: logging.LogRecord) -> None:
        if _here.path is None:
            logging.getLogger().handle(record)
        elif record.levelno >= logging.WARNING:
            _tell(_here.path, record.getMessage())


_log = _Log()


def _tell(path: str, message: str) -> None:
    text = " ".join(message.split())
    kind = re.sub(r"\d+", "…", text)[:80]
    with _lock:
        if kind in _told or len(_told) >= _MOST_KINDS:
            return
        _told.add(kind)
    LOGGER.warning("%r: %s (told once, for the first file)", path, text)


@contextmanager
def libtiff_raises() -> Iterator[None]:
    """What libtiff reports as an error inside, on this thread, is raised as a `ValueError`, also
    where it goes on with what it has."""
    _listen_to_libtiff()
    errors: list[str] = []
    outer, _here.errors = _here.errors, errors
    try:
        yield
    except Exception as error:
        if errors:  # Pillow only says that there was one
            raise ValueError(f"damaged: {errors[0]}") from error
        raise
    finally:
        _here.errors = outer
    if errors:
        raise ValueError(f"damaged: {errors[0]}")


def _listen_to_libtiff() -> None:
    """Pillow's own copy of the library prints to the terminal by itself, where nobody asks it."""
    global _libtiff
    with _lock:
        if _libtiff is not None:
            return
        _libtiff = []
        kind = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
        handler = kind(_note)
        package = Path(PIL.__file__).parent
        for folder in (package.parent / "pillow.libs", package / ".dylibs"):
            for library in folder.glob("libtiff*"):
                with suppress(OSError, AttributeError):
                    loaded = ctypes.CDLL(str(library))
                    loaded.TIFFSetErrorHandler.restype = ctypes.c_void_p
                    loaded.TIFFSetErrorHandler(handler)
                    _libtiff += [loaded, handler]  # must outlive every call


def _note(module: bytes | None, form: bytes | None, _: int | None) -> None:
    # The values behind the form are C's; the words before the first of them say enough.
    words = (form or b"").decode("ascii", "replace").split("%")[0].strip(" ,(:")
    name = (module or b"").decode("ascii", "replace")
    said = ": ".join(filter(None, (name if name.isalnum() else "", words))) or "libtiff reports it"
    if _here.errors is not None:
        _here.errors.append(said)
    elif _here.path is None:
        LOGGER.warning("libtiff: %s", said)
