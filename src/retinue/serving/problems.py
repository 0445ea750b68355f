"""What a request is answered that cannot be granted: a status, and JSON that says why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Problem(Exception):  # noqa: N818 - not every one is an error
    """`status`: of HTTP; `code`: a word for programs; `what` went wrong and how to `mend` it."""

    def __init__(
        self,
        status: int,
        code: str,
        what: str,
        *,
        mend: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(what)
        self.status = status
        self.code = code
        self.what = what
        self.mend = mend
        self.headers = dict(headers or {})

    def as_dict(self) -> dict[str, Any]:
        """The value of `error` in the answer."""
        told = {"code": self.code, "message": self.what}
        return {**told, "mend": self.mend} if self.mend else told


def bad(code: str, what: str, *, mend: str = "") -> Problem:
    """400: the request is not what it should be."""
    return Problem(400, code, what, mend=mend)


def too_large(code: str, what: str, *, mend: str = "") -> Problem:
    """413: more than is taken."""
    return Problem(413, code, what, mend=mend)


def busy(what: str, seconds: float) -> Problem:
    """429: come again after `seconds`, rounded up."""
    after = str(max(1, -int(-seconds // 1)))
    return Problem(
        429, "busy", what, mend=f"try again in {after} s", headers={"retry-after": after}
    )


def failure() -> Problem:
    """500: more is in the log than whoever asks should know."""
    return Problem(500, "failed", "the server failed")


def unready(what: str) -> Problem:
    """503, for the moment."""
    return Problem(503, "not_ready", what, headers={"retry-after": "1"})


def late() -> Problem:
    """503: there is more to do than can be answered in time."""
    return unready("the model is too busy to answer in time")
