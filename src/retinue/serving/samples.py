"""Pictures to choose from on the page: those of a folder that whoever runs the server names."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from retinue.data.formats import is_image_name
from retinue.errors import UsageError
from retinue.serving.problems import Problem
from retinue.text import utf8

MOST = 24
_KINDS = {
    ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".jpe": "image/jpeg", ".jfif": "image/jpeg",
    ".png": "image/png", ".webp": "image/webp", ".avif": "image/avif", ".gif": "image/gif",
}  # fmt: skip
"""What every browser shows."""


class Samples:
    """The first `MOST` pictures of a folder, not of those below it; they are asked for by their
    number, so that no address names a file."""

    def __init__(self, folder: Path | None) -> None:
        """UsageError where there is none, or no picture in it."""
        self.files: list[Path] = []
        if folder is None:
            return
        if not folder.is_dir():
            raise UsageError("the samples folder does not exist", where=str(folder))
        found = sorted(p for p in folder.iterdir() if p.is_file() and is_image_name(p.name))
        self.files = [p for p in found if p.suffix.lower() in _KINDS][:MOST]
        if not self.files:
            raise UsageError(
                "the samples folder contains no picture", where=str(folder),
                mend="give one with .jpg, .png, .webp, .avif or .gif files in it",
            )  # fmt: skip

    def names(self) -> list[str]:
        """What they are called, in order."""
        return [utf8(file.stem) for file in self.files]

    def response(self, number: int) -> Response:
        """The file of that number. Raises `Problem`."""
        if not 0 <= number < len(self.files):
            raise Problem(404, "no_such_sample", f"there is no sample {number}")
        file = self.files[number]
        try:
            data = file.read_bytes()
        except OSError:
            raise Problem(404, "no_such_sample", f"sample {number} no longer exists") from None
        headers: dict[str, Any] = {
            "cache-control": "max-age=300",
            "content-disposition": f"inline; filename*=UTF-8''{quote(utf8(file.name), safe='')}",
        }
        return Response(data, media_type=_KINDS[file.suffix.lower()], headers=headers)
