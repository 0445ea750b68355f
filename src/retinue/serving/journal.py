"""A line a request, for people or programs: never a picture, its name, a key or a query."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TextIO

from retinue.documents import json_text
from retinue.errors import RetinueError, UsageError

LogFormat = Literal["auto", "json", "text"]


class _Json(logging.Formatter):
    """An object a line."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        told = {
            "time": f"{when}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "told", {}),
        }
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return json_text(told)


class _Text(logging.Formatter):
    """`12:30:00  POST /v1/predict 200  31 ms  2 images`."""

    def format(self, record: logging.LogRecord) -> str:
        told = getattr(record, "told", None)
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        if told is None:
            line = f"{clock}  {record.getMessage()}"
        else:
            images = f"  {told['images']} images" if told.get("images", 0) > 1 else ""
            ended = f"  {told['code']}" if told.get("code") else ""
            line = (
                f"{clock}  {told['method']} {told['route']} {told['status']}"
                f"  {told['milliseconds']:.0f} ms{images}{ended}"
            )
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


PROBES = ("/healthz", "/readyz")
"""Asked by whatever watches over the server, every few seconds."""

log = logging.getLogger("retinue.serving.requests")


@contextmanager
def written(form: LogFormat, stream: TextIO | None = None) -> Iterator[None]:
    """Meanwhile requests are written to `stream`, by default standard error; `auto`: as text where
    that is a terminal. So is, where lines are JSON, what ends the server but for mistakes of usage.
    Who serves from a program of their own has their loggers back afterwards."""
    stream = stream or sys.stderr
    as_text = form == "text" or (form == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Text() if as_text else _Json())
    before = []
    for name, level in (
        ("retinue", logging.INFO), ("uvicorn.error", logging.CRITICAL), ("py.warnings", 30)
    ):  # fmt: skip
        logger = logging.getLogger(name)
        before.append((logger, logger.handlers, logger.level, logger.propagate))
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
    try:
        yield
    except RetinueError as error:
        if not as_text and not isinstance(error, UsageError):
            logging.getLogger("retinue.serving").error("%s", error)
            error.told = True
        raise
    finally:
        for logger, handlers, level, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)


def note(told: dict[str, Any]) -> None:
    """One request; one that only asks whether the server is well, where it is not."""
    if told["route"] in PROBES and told["status"] == 200:
        return
    failed = told["status"] >= 500 and told["status"] != 503
    level = logging.ERROR if failed else logging.INFO
    log.log(level, "request", extra={"told": told})
