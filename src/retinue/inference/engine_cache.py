"""Compiled graphs and what `auto` chose, kept between runs in the user's cache; without torch.

In `engines/` of the cache folder there are, all flat, files of three kinds:

`KEY-ENGINE.graph`: a network as the library ENGINE reads it. KEY is 32 hex digits for `facts`: what
    was computed with which weights, for inputs of which shapes, in which precision, by which
    versions of which libraries and which processor. After the 16 bytes `retinue graph 1\\n` come
    8 bytes of length (little-endian) and, so long, JSON, 16 bytes of checksum (`checksums`) of
    these bytes and the JSON, and the parts.

    {"key": KEY, "engine": ENGINE, "kind": "onnx" | "openvino", "signature": {…}, "proof": {…},
     "parts": [[NAME, OFFSET, LENGTH, CHECKSUM], …]}

    OFFSET counts from the start of the file; parts are aligned to 64 bytes; a part's checksum is in
    hex digits. `onnx` has the part `model`, an ONNX file of one piece; `openvino` has `xml` and
    `bin`, OpenVINO's IR. `signature` says how inputs and outputs are nested (`retinue.nested`) and
    of which types they are: {"inputs": "tensor", "input_types": ["float32"], "outputs": "tensor",
    "output_types": ["float32"]}. `proof`: on how many different images it answered as PyTorch did
    (on fewer than `ENOUGH` it is proven again before it is used), how far it was off
    (`retinue.inference.agreement`), and in which ways of running it: {"images": 8, "error": 1e-6,
    "ways": ["apart"]}. The first dimension is the batch's, of any length; where `ways` lacks
    `apart`, outputs need not be a row an image.

`KEY-THREADS.choice`: which engine was the fastest there with so many threads: `retinue choice 1`,
    and length, JSON and checksum in the same way. KEY is `choice_key`, the same for all weights of
    a network.

    {"engine": ENGINE, "way": how it runs, "speeds": {ENGINE: images a second, …}, "batch": that
     many at a time, "passed_over": {ENGINE: why, …}, "network": its name, "timed": seconds since
     1970, "load": of the machine before that (`retinue.data.cpus.cpu_load`) or null, "against":
     of fewer bits {PRECISION: images a second, …}, of them and of fp32}

    Two more kinds of choices are written in the same way. That no engine will do in fewer bits:
    KEY is the graph's, THREADS is 0, ENGINE is empty, and "passed_over" says why. And the precision
    of a training's steps (`retinue.training.planning.precision`): KEY is for what their time
    depends on, and ENGINE is a precision.

`KEY-file.weights`: the hash of the weights in a model file. KEY is for where that lies, its size
    and its times: `retinue weights1`, and length, JSON and checksum in the same way.

    {"weights": 32 hex digits}

Files are written to a temporary name and renamed, so that they are whole or not there; what is
damaged, of another user, or cannot be read is not there either. What was used last stays, up to
`LIMIT` bytes in all. Nothing in a file is a path, and nothing is executed by reading it.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from retinue.data.cpus import cpu_load
from retinue.documents import NotJson, json_text, parse_json
from retinue.files import cache_folder, no_cache, open_file, replacing, sweep
from retinue.inference.engine_keys import DIGEST, Buffer, checksums, key_of, weights_of_file

log = logging.getLogger("retinue")

BUSY, IDLE = 1.5, 0.75
"""A choice that was timed at a higher load than the first is timed anew at one below the second."""
LIMIT = 4 << 30
"""Bytes in all; a graph of more than half of that is not kept."""
ENOUGH = 4
"""Different images, on which a graph that was kept must have answered as PyTorch did."""
_GRAPH, _CHOICE, _WEIGHTS = b"retinue graph 1\n", b"retinue choice 1", b"retinue weights1"
_SETTLED = 2 * 10**9
"""Nanoseconds: of a file that was changed less long ago the times may not tell the next change, as
there are systems that keep them in whole seconds."""
_CLOSED = "the engine cache cannot be read"
_LENGTH, _ALIGNED = 8, 64
_BEFORE = len(_GRAPH) + _LENGTH
_MOST_JSON = 1 << 20
_KEY = re.compile(r"[0-9a-f]{32}")
_ENGINE = re.compile(r"[a-z0-9]{1,32}")
_OURS = re.compile(r"([0-9a-f]{32})-(\w{1,32})\.(graph|choice|weights)")


ONCE = {"once": True}
"""`extra` of a line that the log of one piece of work has once, however often it is said in it
(`retinue.run.log`): of a choice that is recalled for each part of a network, say."""


@dataclass(frozen=True)
class Graph:
    """A network as a library reads it."""

    engine: str
    kind: str
    """`onnx` or `openvino`: how the parts are read."""
    parts: Mapping[str, Buffer]
    signature: Mapping[str, Any]
    """How it is nested, and the types of its inputs and outputs: JSON values."""
    proof: Mapping[str, Any] = field(default_factory=dict)
    """What it was proven on: JSON values."""

    @property
    def proven(self) -> bool:
        """Whether that is enough to use it unseen."""
        images: int = self.proof.get("images", 0)
        return images >= ENOUGH


@dataclass(frozen=True)
class Choice:
    """What was the fastest."""

    engine: str
    speeds: Mapping[str, float]
    """Images a second of each engine that was timed."""
    batch: int
    """So many at a time."""
    way: str = ""
    """In which of its ways the engine was (`retinue.inference.engine.Way`), or what was chosen."""
    passed_over: Mapping[str, str] = field(default_factory=dict)
    """Engines that could not take part, and why."""
    network: str = ""
    """Its name, for people."""
    timed: float | None = None
    """When, in seconds since 1970; None: by a version that did not write that down."""
    load: float | None = None
    """`retinue.data.cpus.cpu_load` before that."""
    against: Mapping[str, float] = field(default_factory=dict)
    """Of fewer bits: its images a second and those of fp32, by precision, if that was timed."""

    def told(self) -> str:
        """`openvino 41 img/s, torch 45 img/s: torch`."""
        return told(self.speeds, self.engine)

    def recalled(self) -> str:
        """The same, with when that was, and how busy the machine was then."""
        if self.timed is None:
            return self.told()
        day = time.strftime("%Y-%m-%d", time.localtime(self.timed))
        load = "" if self.load is None else f", load {self.load:.1f} a processor"
        return f"{self.told()} ({day}{load})"

    def in_doubt(self) -> bool:
        """Whether it was timed while the machine had much else to do, which it has no more."""
        if self.load is None or self.load <= BUSY:
            return False
        now = cpu_load()
        return now is not None and now <= IDLE


def told(speeds: Mapping[str, float], chosen: str) -> str:
    """`openvino 41 img/s, torch 45 img/s: torch`."""
    each = [f"{name} {one:{',.0f' if one >= 100 else '.3g'}} img/s" for name, one in speeds.items()]
    return f"{', '.join(each)}: {chosen}"


# --- the folder ----------------------------------------------------------------------------------


class EngineCache:
    """What is kept in `folder`, by default in the user's cache, up to `limit` bytes."""

    def __init__(self, folder: Path | None = None, *, limit: int = LIMIT) -> None:
        self.folder = cache_folder() / "engines" if folder is None else folder
        self.limit = limit

    def there(self) -> bool:
        """Whether there may be something; a place that is closed is told."""
        try:
            return stat.S_ISDIR(os.stat(self.folder).st_mode)
        except OSError as error:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                no_cache(log, _CLOSED, self.folder, error)
            return False

    def graph(self, key: str, engine: str) -> Graph | None:
        """The graph that was kept for `engine`; None where there is none, or none that is whole."""
        path = self._graph_file(key, engine)
        header, content = self._read(path, _GRAPH)
        if header is None:
            return None
        try:
            if (header["key"], header["engine"]) != (key, engine):
                raise ValueError("it is another one's")
            spans = [(str(n), int(o), int(length), str(c)) for n, o, length, c in header["parts"]]
            parts = {name: _slice(content, offset, length) for name, offset, length, _ in spans}
            if [one.hex() for one in checksums(list(parts.values()))] != [c for *_, c in spans]:
                raise ValueError("its checksum is another")
            signature, proof = dict(header["signature"]), _checked(dict(header["proof"]))
            found = Graph(engine, str(header["kind"]), parts, signature, proof)
        except (KeyError, TypeError, ValueError) as error:
            _damaged(path, error)
            return None
        _used(path)
        return found

    def takes(self, size: int) -> bool:
        """Whether a graph of so many bytes is kept at all."""
        return size <= self.limit // 2

    def keep_graph(self, key: str, graph: Graph) -> bool:
        """Keep it. False where it is too large, or cannot be written, which is told."""
        buffers = list(graph.parts.values())
        if not self.takes(sum(map(len, buffers))):
            log.info("the graph of %s is too large to be kept", graph.engine)
            return False
        sums = [one.hex() for one in checksums(buffers)]
        said = {
            "key": key, "engine": graph.engine, "kind": graph.kind,
            "signature": dict(graph.signature), "proof": dict(graph.proof),
        }  # fmt: skip
        # Where the parts begin depends on how long the header is, and it on that: room is left.
        longest = json_text({**said, "parts": _spans(graph.parts, sums, 1 << 50)}).encode()
        start = _BEFORE + len(longest) + DIGEST
        start += -start % _ALIGNED
        text = json_text({**said, "parts": _spans(graph.parts, sums, start)}).encode()
        body: list[Buffer] = [_sealed(text.ljust(start - _BEFORE - DIGEST))]
        for part in buffers:
            body += [part, bytes(-len(part) % _ALIGNED)]
        return self._write(self._graph_file(key, graph.engine), [_GRAPH, *body])

    def has_graphs(self) -> bool:
        """Whether there are any, of whichever networks."""
        return any(path.suffix == ".graph" for path, _, _ in self._files())

    def choice(self, key: str, threads: int, *, use: bool = True) -> Choice | None:
        """What was the fastest with so many threads; None where nobody has timed it. `use`: it
        counts as used now; and one that is in doubt is to be timed anew."""
        path = self._choice_file(key, threads)
        header, _ = self._read(path, _CHOICE)
        if header is None:
            return None
        try:
            speeds = {str(name): float(speed) for name, speed in header["speeds"].items()}
            why = {str(name): str(text) for name, text in header["passed_over"].items()}
            name, batch = str(header["engine"]), int(header["batch"])
            timed, load = (
                None if header.get(key) is None else float(header[key]) for key in ("timed", "load")
            )
            network = str(header["network"])
            against = {str(k): float(speed) for k, speed in header.get("against", {}).items()}
            way = str(header["way"])
            found = Choice(name, speeds, batch, way, why, network, timed, load, against)
            recalled = found.recalled()
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError) as error:
            _damaged(path, error)
            return None
        if use and found.in_doubt():
            log.info("engine, not as timed on a busy machine: %s", recalled)
            return None
        if use:
            _used(path)
        return found

    def keep_choice(self, key: str, threads: int, choice: Choice) -> bool:
        """Keep it. False where it cannot be written, which is told."""
        sealed = _sealed(json_text(asdict(choice)).encode())
        return self._write(self._choice_file(key, threads), [_CHOICE, sealed])

    def choices(self) -> list[Choice]:
        """All that are kept, those that were used last first."""
        found = []
        for path, _, _ in sorted(self._files(), key=lambda one: -one[1]):
            parts = _OURS.fullmatch(path.name)
            if parts and parts[3] == "choice" and parts[2].isdecimal():
                choice = self.choice(parts[1], int(parts[2]), use=False)
                found += [] if choice is None or not choice.engine else [choice]
        return found

    def refused(self, key: str) -> Mapping[str, str]:
        """Engines that were tried for the graph `key`, and why none of them could be had; empty
        where nobody has tried, or one could."""
        choice = self.choice(key, 0)
        return {} if choice is None else choice.passed_over

    def keep_refused(self, key: str, why: Mapping[str, str]) -> bool:
        """Keep that, as a choice of none. False where it cannot be written, which is told."""
        return self.keep_choice(key, 0, Choice("", {}, 0, passed_over=why))

    def weights(self, path: Path) -> str:
        """`weights_of_file`, which is remembered by the file's place, size and times: a large file
        is not read through for every image. Raises as that does."""
        seen = path.stat()
        stamp = {
            "path": str(path.resolve()), "file": [seen.st_dev, seen.st_ino], "size": seen.st_size,
            "times": [seen.st_mtime_ns, seen.st_ctime_ns],
        }  # fmt: skip
        place = self.folder / f"{key_of(stamp)}-file.weights"
        header, _ = self._read(place, _WEIGHTS)
        said = header.get("weights") if isinstance(header, dict) else None
        if isinstance(said, str) and _KEY.fullmatch(said):
            _used(place)
            return said
        found = weights_of_file(path)
        after = path.stat()
        same = (after.st_mtime_ns, after.st_ctime_ns, after.st_size) == (
            seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size,
        )  # fmt: skip
        if same and time.time_ns() - max(seen.st_mtime_ns, seen.st_ctime_ns) > _SETTLED:
            self._write(place, [_WEIGHTS, _sealed(json_text({"weights": found}).encode())])
        return found

    def sizes(self) -> dict[str, int]:
        """Bytes of each file of the cache, by its name."""
        return {path.name: size for path, _, size in self._files()}

    def clear(self) -> int:
        """Remove all of it and nothing else; the bytes that are free now."""
        freed = 0
        for path, _, size in self._files():
            with suppress(OSError):
                path.unlink()
                freed += size
        sweep(self.folder)
        return freed

    # --- files -----------------------------------------------------------------------------------

    def _graph_file(self, key: str, engine: str) -> Path:
        if not (_KEY.fullmatch(key) and _ENGINE.fullmatch(engine)):
            raise ValueError(f"no key of a graph: {key!r}, {engine!r}")
        return self.folder / f"{key}-{engine}.graph"

    def _choice_file(self, key: str, threads: int) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"no key of a choice: {key!r}")
        return self.folder / f"{key}-{int(threads)}.choice"

    def _read(self, path: Path, magic: bytes) -> tuple[Any, memoryview]:
        """The JSON of the file at `path`, and all of the file; None where it is not there, or not
        as it was written."""
        nothing = None, memoryview(b"")
        try:
            with open_file(path) as file:
                _refuse_strangers(os.fstat(file.fileno()))
                content = memoryview(file.read())
        except FileNotFoundError:
            return nothing
        except OSError as error:
            no_cache(log, _CLOSED, self.folder, error)
            return nothing
        try:
            length = int.from_bytes(content[len(magic) : _BEFORE], "little")
            if bytes(content[: len(magic)]) != magic or length > _MOST_JSON:
                raise ValueError("it does not begin as such a file does")
            text = bytes(content[_BEFORE : _BEFORE + length])
            if _sealed(text) != bytes(content[len(magic) : _BEFORE + length + DIGEST]):
                raise ValueError("its checksum is another")
            return parse_json(text), content
        except (NotJson, ValueError) as error:
            _damaged(path, error)
            return nothing

    def _write(self, path: Path, body: Sequence[Buffer]) -> bool:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(self.folder).free < 2 * sum(map(len, body)):
                log.info("the disk has no room to keep a compiled engine (%s)", self.folder)
                return False
            with replacing(path) as temporary, open(temporary, "wb") as file:
                file.writelines(body)
            self._make_room(path)
        except OSError as error:
            no_cache(log, "compiled engines cannot be kept", self.folder, error)
            return False
        return True

    def _make_room(self, new: Path) -> None:
        """Remove what was used least recently, down to the limit; `new` stays."""
        found = sorted(self._files(), key=lambda one: one[1])
        excess = sum(size for _, _, size in found) - self.limit
        if excess > 0:
            sweep(self.folder)
        for path, _, size in found:
            if excess <= 0:
                return
            if path != new:
                path.unlink(missing_ok=True)
                excess -= size

    def _files(self) -> Iterator[tuple[Path, int, int]]:
        """Path, time of the last use in nanoseconds, and bytes of each file that is the cache's."""
        with suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(OSError):
                    if _OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                        seen = entry.stat(follow_symlinks=False)
                        yield Path(entry.path), seen.st_mtime_ns, seen.st_size


def _sealed(text: bytes) -> bytes:
    """The JSON `text` with its length before it and the checksum of both behind."""
    whole = len(text).to_bytes(_LENGTH, "little") + text
    return whole + checksums([whole])[0]


def _spans(parts: Mapping[str, Buffer], sums: Sequence[str], start: int) -> list[list[Any]]:
    """What the header says of `parts` that begin at `start`."""
    found: list[list[Any]] = []
    for (name, part), one in zip(parts.items(), sums, strict=True):
        found.append([name, start, len(part), one])
        start += len(part) + -len(part) % _ALIGNED
    return found


def _slice(content: memoryview, offset: int, length: int) -> memoryview:
    if not 0 <= offset <= offset + length <= len(content):
        raise ValueError("it ends too soon")
    return content[offset : offset + length]


def _checked(proof: dict[str, Any]) -> dict[str, Any]:
    """`proof`, with what it lacks as of no images; ValueError where the number of images, the error
    or the ways are not of the kind that they should be."""
    images, error, ways = proof.get("images", 0), proof.get("error", 0.0), proof.get("ways", [])
    if not (
        isinstance(images, int)
        and isinstance(error, float | int)
        and isinstance(ways, list)
        and all(isinstance(way, str) for way in ways)
    ):
        raise ValueError("its proof is none")
    return {"images": images, "error": error, "ways": ways}


def _damaged(path: Path, why: object) -> None:
    """It goes, or it would be found damaged each time until something takes its place."""
    log.warning("%s in the engine cache is damaged, and is made anew: %s", path.name, why)
    with suppress(OSError):
        path.unlink()


def _used(path: Path) -> None:
    """What was used last stays."""
    with suppress(OSError):
        os.utime(path)


def _refuse_strangers(seen: os.stat_result) -> None:
    """Raise PermissionError for a file of another user, who would say what is in pictures here."""
    if hasattr(os, "geteuid") and seen.st_uid not in (os.geteuid(), 0):
        raise PermissionError("it belongs to another user")
