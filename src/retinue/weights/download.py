"""Fetching a file from an address: resumed where it stopped, compared, and only then in its place.

The transfer itself (retries, ranges, the bar on a terminal) is huggingface_hub's.
"""

from __future__ import annotations

import base64
import errno
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from retinue.errors import RetinueError
from retinue.files import sync_folder
from retinue.text import first_line

log = logging.getLogger("retinue")


def fetch(url: str, target: Path, wrong: Callable[[Path], str]) -> None:
    """Download `url` to `target`, unless that is there already.

    What has arrived of a download that breaks off is kept in `target` + `.part`, and the next one
    goes on from there. Of several processes one downloads, and the others wait for it.

    Args:
        wrong: says in what way a file is not the published one; empty: it is.

    Raises:
        RetinueError: unreachable, out of space, or not the published file; of that nothing is kept.
    """
    locks = target.parent / ".locks"
    part = target.with_name(f"{target.name}.part")
    try:
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / f"{target.name}.lock"):
            if target.is_file():  # another process was here meanwhile
                return
            resumed = part.is_file() and part.stat().st_size > 0
            log.info("downloading %s to %s%s", url, target, " (goes on)" if resumed else "")
            _transfer(url, part)
            said = wrong(part)
            if said and resumed:  # its beginning may be of another file
                log.info("what was there of %s does not fit; downloading it anew", target.name)
                part.unlink()
                _transfer(url, part)
                said = wrong(part)
            if said:
                part.unlink()
                raise RetinueError(f"what {url} sent is not the published file: {said}")
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            part.replace(target)
            sync_folder(target.parent)
    except RetinueError:
        if part.is_file() and not part.stat().st_size:
            part.unlink()
        raise
    except OSError as error:
        full = error.errno == errno.ENOSPC
        what = "no space is left" if full else f"{url} cannot be stored: {error}"
        raise RetinueError(what, where=str(target.parent)) from error


_PATIENCE = 5.0
"""Seconds that a server may take to be there at all."""
_NOBODY = {"ConnectError", "ConnectTimeout", "ProxyError"}
"""What HTTP libraries call it where no connection comes about."""


def refuse_unreachable(url: str) -> None:
    """One short attempt to reach the server of `url`, where the libraries make several long ones.
    What it answers does not matter.

    Raises:
        RetinueError: nobody is there, or `HF_HUB_OFFLINE` is set.
    """
    from huggingface_hub import get_session
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        get_session().head(url, timeout=_PATIENCE, follow_redirects=False)
    except OfflineModeIsEnabled as error:
        raise RetinueError(f"{url} is not fetched: HF_HUB_OFFLINE is set") from error
    except Exception as error:  # of whichever HTTP library huggingface_hub uses
        if _NOBODY & {kind.__name__ for kind in type(error).__mro__}:
            raise _broken_off(url, 0, error) from error
        # Somebody is there; what is wrong shows when the file is fetched.


def stated_md5(url: str) -> str:
    """The MD5 that the server states of a file, in hexadecimal, as Google's storage does; empty if
    it states none, or does not answer."""
    from huggingface_hub import get_session

    try:
        answer = get_session().head(url, timeout=10)
        answer.raise_for_status()
        stated = answer.headers.get("x-goog-hash", "")
        digests = dict(part.strip().split("=", 1) for part in stated.split(",") if "=" in part)
        return base64.b64decode(digests.get("md5", ""), validate=True).hex()
    except Exception:  # of whichever HTTP library; what is wrong shows when the file is fetched
        return ""


def _transfer(url: str, part: Path) -> None:
    """The whole of `url` into `part`, which may have the beginning of it."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from huggingface_hub.file_download import http_get

    name = url.rsplit("/", 1)[1]
    with part.open("ab") as file, _own_words():
        try:
            http_get(url, file, resume_size=file.tell(), displayed_filename=name)
        except HfHubHTTPError as error:
            status, have = error.response.status_code, file.tell()
            if status == 416 and _length(error.response) in (None, have):
                return  # asked for what comes after the end: all of it has arrived
            if status == 416:  # what has arrived is of another file
                file.truncate(0)
                http_get(url, file, displayed_filename=name)
                return
            raise RetinueError(f"{url} answers {status} {error.response.reason_phrase}") from error
        except OfflineModeIsEnabled as error:
            raise RetinueError(f"{url} is not fetched: HF_HUB_OFFLINE is set") from error
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            raise _broken_off(url, file.tell(), error) from error
        except Exception as error:  # of whichever HTTP library huggingface_hub uses
            raise _broken_off(url, file.tell(), error) from error


@contextmanager
def _own_words() -> Iterator[None]:
    """Without huggingface_hub's account of each of its attempts; ours tells how it ended."""
    theirs = logging.getLogger("huggingface_hub")
    level = theirs.level
    theirs.setLevel(logging.ERROR)
    try:
        yield
    finally:
        theirs.setLevel(level)


def _broken_off(url: str, have: int, error: Exception) -> RetinueError:
    reason = first_line(error, type(error).__name__)
    kept = f"; {have / 1e6:,.1f} MB have arrived, and the next attempt goes on from there"
    return RetinueError(f"{url} cannot be reached: {reason}{kept if have else ''}")


def _length(response: Any) -> int | None:
    """The whole file's, of an answer 416: `Content-Range: bytes */LENGTH`."""
    length = response.headers.get("Content-Range", "").rpartition("/")[2]
    return int(length) if length.isdecimal() else None
