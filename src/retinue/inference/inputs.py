"""What to predict on: files, folders, patterns, lists, standard input, as a stream of paths."""

from __future__ import annotations

import codecs
import glob
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any

from retinue.data.formats import meant_as_image
from retinue.data.sources.walking import is_drawn, is_run
from retinue.errors import UsageError
from retinue.files import children, encoding_of, nearest
from retinue.inference.video import is_stream, is_video
from retinue.text import counted, shorten

_BLOCK = 1 << 16
DRAWN = "drawn"
"""The folder of drawn predictions, within that of the answers."""
HEATMAPS = "heatmaps"
"""The folder of pictures with the evidence on them, within that of the answers."""
_ENOUGH = 4
"""So many bytes tell how a list is written."""

Say = Callable[[str], None]


def expand(
    sources: Sequence[str | Path],
    stdin: IO[Any] | None = None,
    *,
    out: str | Path | None = None,
    say: Say = lambda line: None,
) -> Iterator[str]:
    """The image files that `sources` name, in their order.

    A source is a file (whatever its extension), a folder (everything in it, at any depth, that has
    an image's extension, sorted; names beginning with a dot are passed over), a pattern
    (`'photos/**/*.jpg'`; sorted), `@LIST` (a file with a path a line, or separated by NUL), `-`
    (the same from `stdin`), or a camera or stream (`camera:0`, `rtsp://…`), which comes as it is.
    Videos are meant where they are named, or a pattern or list names them; `say` is told of those
    in a folder. What exists under a name is taken before the name is read as a pattern
    or a list. A list may be of UTF-8 or UTF-16, as PowerShell writes it. Its entries are as
    written, or else relative to the list's folder, or else without the blanks and quotes around
    them; what they name need not exist: that shows when the file is read.

    What was drawn is not looked at again: folders of drawn predictions and of runs are passed over,
    and `say` is told of each; so is the folder `out` where the answers go, unless it is a source
    itself. `say` is told, too, where that folder holds pictures and is none that is looked through.

    Raises UsageError at once, before anything is read, for a source that is not there, a folder
    without images, a pattern without matches; on the way for an entry of a list that means more
    than a list can: the root, one's home, or a folder that holds the list or the current one.
    Nothing is collected: a million files stream through.
    """
    if not sources:
        raise UsageError("nothing to predict on", mend="name a file, folder, pattern, @LIST or -")
    named = [os.fspath(source) for source in sources]
    search = _Search(named, out, say)
    if search.answers_among_pictures():
        say(f"the answers go among pictures: {os.fspath(out or '')!r} holds some")
    checked = [_check(source, stdin, search) for source in named]
    return (path for kind, source in checked for path in _paths(kind, source, stdin, search))


class _Search:
    """Looks for image files in folders."""

    def __init__(self, named: Sequence[str], out: str | Path | None, say: Say) -> None:
        whole = {os.path.realpath(source) for source in named if "\0" not in source}
        own = [] if out is None else [os.path.realpath(out)]
        if own and own[0] in whole:  # pictures and answers are to lie together
            own = []
        if out is not None:
            own.append(os.path.realpath(os.path.join(out, DRAWN)))
        self._out = "" if out is None else os.path.realpath(out)
        self._own = set(own) - whole
        self._named = whole
        self._say = say

    def finds(self, folder: str) -> bool:
        """Whether there is an image file below `folder`."""
        say, self._say = self._say, lambda line: None
        try:
            return next(self.walk(folder), None) is not None
        finally:
            self._say = say

    def hides_pictures(self, folder: str) -> bool:
        """Whether the answers go into `folder` or below, and other pictures than drawn ones lie
        there."""
        real, out = os.path.realpath(folder), self._out
        within = bool(out) and (real == out or out.startswith(os.path.join(real, "")))
        return within and _Search([out], out, lambda line: None).finds(out)

    def answers_among_pictures(self) -> bool:
        """Whether the answers go into a folder that holds pictures and is none of those, nor below
        those, that are looked through."""
        out, below = self._out, os.path.join(self._out, "")
        if not out or any(below.startswith(os.path.join(named, "")) for named in self._named):
            return False
        return os.path.isdir(out) and self.hides_pictures(out)

    def passes_over(self, folder: str) -> bool:
        """Whether nothing below is to be looked at; says so."""
        real = os.path.realpath(folder)
        if real in self._named:
            return False
        if real in self._own:
            if self.hides_pictures(real):
                self._say(f"passed over: {folder!r} is where the answers go")
            return True
        if is_drawn(folder):
            self._say(f"passed over: {folder!r} holds drawn predictions")
            return True
        if is_run(folder):
            self._say(f"passed over: {folder!r} is what a training or an evaluation left")
            return True
        return False

    def walk(self, folder: str) -> Iterator[str]:
        """Image files below `folder`, sorted; links are followed, but no folder is entered
        twice."""
        entered: set[str] = set()
        videos: list[str] = []

        def descend(place: str) -> Iterator[str]:
            real = os.path.realpath(place)
            if real in entered or self.passes_over(place):
                return
            entered.add(real)
            try:
                names = sorted(os.listdir(place))
            except OSError:
                yield place  # fails again when it is read, and is then named among the skipped
                return
            for name in names:
                path = os.path.join(place, name)
                if name.startswith("."):
                    continue
                if os.path.isdir(path):
                    yield from descend(path)
                elif meant_as_image(name):
                    yield path
                elif is_video(name):
                    videos.append(path)

        yield from descend(folder)
        if videos:
            self._say(
                f"passed over: {counted(len(videos), 'video')} in {folder!r}, {videos[0]!r} the"
                " first; name them, or a pattern of them, to have them looked at"
            )


def _check(source: str, stdin: IO[Any] | None, search: _Search) -> tuple[str, str]:
    if source == "-":
        if stdin is None:
            raise UsageError("there is no standard input to read paths from")
        return "stdin", source
    if is_stream(source):
        return "file", source
    if _exists(source):
        if not os.path.isdir(source):
            return "file", source
        if not search.finds(source):
            videos = any(is_video(child.name) for child in children(Path(source)))
            pattern = os.path.join(source, "*")
            mend = f"name the videos, or {pattern!r}" if videos else "name a folder that has some"
            if search.hides_pictures(source):
                mend = "those where the answers go are passed over: take another --out"
            raise UsageError("no images", where=repr(source), mend=mend)
        return "folder", source
    if source.startswith("@"):
        if not os.path.isfile(source[1:]):
            raise UsageError(
                "no such list of files", where=repr(source[1:]), mend=nearest(Path(source[1:]))
            )
        return "list", source[1:]
    if glob.has_magic(source):
        matches = glob.iglob(source, recursive=True)
        if (first := next(matches, None)) is None:
            raise UsageError(
                "no file matches the pattern", where=repr(source), mend="** stands for any folders"
            )
        if not any(os.path.isfile(match) for match in chain([first], matches)):
            within = os.path.join(source, "*")
            raise UsageError(
                "no file matches the pattern, only folders do",
                where=repr(source),
                mend=f"{within!r} stands for what lies in them",
            )
        return "pattern", source
    raise UsageError("no such file or folder", where=repr(source), mend=nearest(Path(source)))


def _paths(kind: str, source: str, stdin: IO[Any] | None, search: _Search) -> Iterator[str]:
    if kind == "file":
        yield source
    elif kind == "folder":
        yield from search.walk(source)
    elif kind == "pattern":
        for match in sorted(glob.iglob(source, recursive=True)):
            if os.path.isfile(match):
                yield match
    elif kind == "list":
        folder = os.path.dirname(source)
        with open(source, "rb") as file:
            yield from _listed(_entries(file), folder, repr(source), search)
    else:
        assert stdin is not None
        entries = _entries(getattr(stdin, "buffer", stdin))
        yield from _listed(entries, "", "standard input", search)


def _listed(entries: Iterator[str], folder: str, where: str, search: _Search) -> Iterator[str]:
    """The files of a list that lies in `folder`."""
    for number, entry in enumerate(entries, 1):
        path = next(filter(_exists, _readings(entry, folder)), entry)
        if not path.strip() and not _exists(path):
            continue
        if not (_exists(path) and os.path.isdir(path)):
            yield path
            continue
        if _holds_all(path, folder):
            raise UsageError(
                f"the list names {shorten(entry, 80)!r}, a folder that holds far more than a list"
                " of pictures means",
                where=f"{where}, entry {number}",
                mend="name folders below it; or give it as a source by itself, if it is meant",
            )
        yield from search.walk(path)


def _readings(entry: str, folder: str) -> Iterator[str]:
    """What an entry may mean: as it is written first."""
    bare = entry.strip()
    if len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "'\"":
        bare = bare[1:-1]
    for name in dict.fromkeys((entry, entry.strip(), bare)):
        if name:
            yield name
            yield os.path.join(folder, name)
            if name.startswith("~"):
                yield os.path.expanduser(name)


def _holds_all(path: str, folder: str) -> bool:
    """Whether it is the root, one's home, or holds that, the list, or the current folder."""
    real = Path(os.path.realpath(path))
    for inside in (os.getcwd(), folder or os.getcwd(), os.path.expanduser("~")):
        place = Path(os.path.realpath(inside))
        if real in place.parents or (real == place and inside == os.path.expanduser("~")):
            return True
    return real == Path(real.anchor)


def _entries(file: IO[Any]) -> Iterator[str]:
    """Lines, or what lies between NULs if the first block has one; empty entries are left out."""
    rest, separator = b"", b""
    decoder: codecs.IncrementalDecoder | None = None
    begun = False
    while True:
        block = _read(file)
        while not begun and 0 < len(block) < _ENOUGH and (more := _read(file)):
            block += more
        if not begun:
            begun, encoding = True, encoding_of(block)
            if encoding == "utf-8-sig":
                block = block.removeprefix(codecs.BOM_UTF8)
            else:
                decoder = codecs.getincrementaldecoder(encoding)("replace")
        if decoder is not None:
            block = decoder.decode(block, final=not block).encode("utf-8", "replace")
        rest += block
        if not separator and b"\0" in rest:
            separator = b"\0"
        if not separator and (not block or rest.endswith(b"\n") or len(rest) >= _BLOCK):
            separator = b"\n"
        if separator:
            *whole, rest = rest.split(separator)
            yield from filter(None, (_decode(entry, separator) for entry in whole))
        if not block:
            last = _decode(rest, separator)
            if last:
                yield last
            return


def _read(file: IO[Any]) -> bytes:
    read = getattr(file, "read1", file.read)  # what there is, without waiting for a full block
    block = read(_BLOCK)
    return block if isinstance(block, bytes) else os.fsencode(block)


def _decode(entry: bytes, separator: bytes) -> str:
    return os.fsdecode(entry.rstrip(b"\r") if separator == b"\n" else entry)


def _exists(path: str) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:  # a NUL inside
        return False
