"""Names for what is written of single images: as they lie among each other, and no two alike."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from retinue.sample import Result
from retinue.tasks.results import FrameResult
from retinue.text import as_file_name, cut

_MOST_BYTES = 255
"""Of a file's name, on nearly every system."""
OUTSIDE = "outside"
"""Where what lies elsewhere goes, with its whole path."""


class Names:
    """Within one folder."""

    def __init__(self, base: Path) -> None:
        """`base`: the folder from which paths are counted, absolute."""
        self._base = base
        self.taken: set[str] = set()
        """Without regard to capitals, with `/` between folders."""
        self.moved: dict[str, str] = {}
        """Those that are not called as their images are, with `/` between folders, and why, in
        words that follow the image."""

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
            return self._free(path, path.stem, f"-{result.frame:06d}{tag}", otherwise)
        if path.suffix.lower() in suffixes:
            return self._free(path, path.stem, tag, path.suffix)
        return self._free(path, path.stem if stem else path.name, tag, otherwise)

    def _relative(self, path: str) -> Path:
        """Inside `base`: as it lies there; elsewhere: `outside/` and its whole path."""
        if "://" in path or path.startswith("camera:"):
            return Path(as_file_name(path))
        whole = Path(os.path.abspath(path))
        try:
            return whole.relative_to(self._base)
        except ValueError:
            return Path(OUTSIDE, *(part.strip(":") for part in whole.parts[1:]))

    def _free(self, path: Path, stem: str, tag: str, suffix: str) -> Path:
        """`path` called by `stem`, `tag` and `suffix`: not the same twice, whatever the file system
        thinks of capitals, and without the end of a stem that is too long for it."""

        def called(ending: str) -> Path:
            return path.with_name(cut(stem, _MOST_BYTES - len(ending.encode())) + ending)

        found, number = called(tag + suffix), 1
        while found.as_posix().casefold() in self.taken:
            number += 1
            found = called(f"{tag}-{number}{suffix}")
        self.taken.add(found.as_posix().casefold())
        if not found.name.startswith(stem):
            self.moved[found.as_posix()] = "has too long a name"
        elif number > 1:
            self.moved[found.as_posix()] = "is called like another image"
        return found
