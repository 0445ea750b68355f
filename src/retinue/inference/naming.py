"""Names for what is written of single images: as they lie among each other, and no two alike."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from retinue.sample import Result
from retinue.tasks.results import FrameResult
from retinue.text import as_file_name

OUTSIDE = "outside"
"""Where what lies elsewhere goes, with its whole path."""


class Names:
    """Within one folder."""

    def __init__(self, base: Path) -> None:
        """`base`: the folder from which paths are counted, absolute."""
        self._base = base
        self._taken: set[str] = set()
        self.moved: set[str] = set()
        """Those that are not called as they would be alone, with `/` between folders."""

    def of(
        self,
        result: Result,
        suffixes: Collection[str],
        *,
        otherwise: str,
        stem: bool = False,
        tag: str = "",
    ) -> Path:
        """The name, relative, for what belongs to `result` alone: that of its image. It ends in one
        of `suffixes`; `otherwise` comes behind any other one, or with `stem` in its place. Of a
        frame, the video's with the frame's number. `tag`: what stands before the suffix."""
        path = self._relative(result.path)
        if isinstance(result, FrameResult):
            path = path.with_name(f"{path.stem}-{result.frame:06d}{otherwise}")
        elif path.suffix.lower() not in suffixes:
            path = path.with_name(f"{path.stem if stem else path.name}{otherwise}")
        return self._free(path.with_name(f"{path.stem}{tag}{path.suffix}") if tag else path)

    def _relative(self, path: str) -> Path:
        """Inside `base`: as it lies there; elsewhere: `outside/` and its whole path."""
        if "://" in path or path.startswith("camera:"):
            return Path(as_file_name(path))
        whole = Path(os.path.abspath(path))
        try:
            return whole.relative_to(self._base)
        except ValueError:
            return Path(OUTSIDE, *(part.strip(":") for part in whole.parts[1:]))

    def _free(self, path: Path) -> Path:
        """Not the same name twice, whatever the file system thinks of capitals."""
        wanted, stem, number = path, path.stem, 1
        while str(path).casefold() in self._taken:
            number += 1
            path = path.with_name(f"{stem}-{number}{path.suffix}")
        self._taken.add(str(path).casefold())
        if path != wanted:
            self.moved.add(path.as_posix())
        return path
