"""`retinue data convert --to tfrecord` and `webdataset`: classified images of any format as shards.

Several shards are written at a time, beside the folder that is asked for, and stay there when the
work is interrupted: the same command goes on with the others. A shard counts as done when a note
beside it says of what it was made. The folder takes its name when all are there.

Images come in an order by hash, so that a shard has some of every class, whoever reads shard after
shard.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from retinue.data import complaints
from retinue.data.conversion import Conversion, as_png, opened
from retinue.data.cpus import usable_cpus
from retinue.data.decode import Encoded, open_pillow, read_image
from retinue.data.options import DataOptions
from retinue.data.readable import SMALL, Progress, Telling
from retinue.data.sources.dataset import settle_classes, settle_splits
from retinue.data.sources.listing import Readers
from retinue.data.sources.member import Member
from retinue.data.sources.records import NONE, Record, Records
from retinue.data.sources.words import ORDER
from retinue.data.targets.one_class import OneClass
from retinue.data.written_shards import SHARDS, ShardFormat, Written
from retinue.documents import NotJson, json_text, parse_json
from retinue.errors import BadImageError, RetinueError, UsageError, some
from retinue.files import or_room, read_file, replacing, sweep, sync_folder, write_text
from retinue.text import counted, cut

MEGABYTES = 128
"""Of a shard, where nothing else is asked for: a few thousand photographs."""
_VERSION = 1
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class _Shard:
    """One file to be written."""

    name: str
    positions: npt.NDArray[np.int64]
    """Of its images among all, in their order."""


class _Done(NamedTuple):
    """What became of a shard."""

    images: int
    bad: dict[str, str]


def convert(
    options: DataOptions,
    readers: Readers,
    out: Path,
    to: str,
    *,
    copy: bool = False,
    megabytes: float | None = None,
    progress: Progress | None = None,
) -> Conversion:
    """The classified images that `options` lead to as shards of format `to`, of about so many
    `megabytes` each, in the new folder `out`. Images are copied in any case. `progress`: see
    `Telling`. Interrupted, it leaves what is done, and goes on there when it is called again.

    Raises UsageError for what a training would refuse, and where `out` is there already;
    RetinueError where it cannot be written; BadImageError for images that cannot be read, unless
    `on_bad_image` is `skip`.
    """
    reader, listing, notes = opened(options, readers, out)
    if listing.looks_like:
        raise UsageError(
            f"shards hold one class an image, and {listing.looks_like}",
            where=repr(options.path),
            mend=f"format={reader.name} takes each label as it stands",
        )
    classes, records = settle_classes(listing, options, reader, notes)
    if "split" in options.model_fields_set:
        records, how = settle_splits(records, options, notes)
        notes.append(how)
    records, lost = _of_one_class(records, listing.format)
    divides = not (records.splits() != NONE).any()
    if divides and any(getattr(records, name) is not None for name in ("group", "stratum")):
        notes.append(
            "the data has no splits, and shards hold no groups or strata that a training would"
            " draw them by: split.seed=0 in this command draws them now"
        )
    form = SHARDS[to]
    size = (megabytes or MEGABYTES) * 1e6
    shards = _divided(records, form, size)
    work = _Work(records, classes, form, options.on_bad_image == "skip", progress)
    partial = out.parent / f".{cut(out.name, 80)}.converting"
    done = _written(work, shards, out, partial)
    bad = {key: why for one in done for key, why in one.bad.items()}
    if bad:
        notes.append(f"{counted(len(bad), 'image')} left out that cannot be read: "
                     f"{some([f'{k!r} ({why})' for k, why in bad.items()], _SHOWN)}")  # fmt: skip
    splits: dict[str, int] = {}
    for shard, one in zip(shards, done, strict=True):
        split = records[int(shard.positions[0])].split or "all"
        splits[split] = splits.get(split, 0) + one.images
    images = sum(splits.values())
    return Conversion(
        str(out), to, listing.format, images, 0, classes, splits, lost, notes, shards=len(shards)
    )


def _of_one_class(records: Records, format: str) -> tuple[Records, dict[str, int]]:
    """Those that have a class, and what cannot be written of them."""
    plain = [isinstance(t, OneClass) and t.shares is None for t in records.targets]
    if not all(plain):
        raise UsageError(
            f"data of format {format!r} says more of an image than its class",
            where="key to",
            mend="shards are of images of one class each",
        )
    labelled = np.flatnonzero(records.target != NONE)
    lost = {}
    if len(labelled) < len(records):
        lost["images without a class, which are left out"] = len(records) - len(labelled)
    records = records.take(labelled)
    if records.weight is not None and (weighed := int((records.weight != 1).sum())):
        lost["weights of images"] = weighed
    for name, what in (("fold", "folds"), ("group", "groups"), ("stratum", "strata")):
        column = getattr(records, name)
        if column is not None and (held := sum(bool(v) for v in column.to_pylist())):
            lost[f"images' {what}"] = held
    return records, lost


def _divided(records: Records, form: ShardFormat, size: float) -> list[_Shard]:
    """Shards of about `size` bytes, and within one split."""
    if not len(records):
        raise UsageError("no images to write", mend="give data with classes")
    ranks = np.array(
        [hashlib.blake2b(name, digest_size=8).digest() for name in records.names.to_pylist()], "S8"
    )
    lengths = _lengths(records)
    given = records.splits()
    shards = []
    for code in (*range(len(ORDER)), NONE):
        own = np.flatnonzero(given == code)
        if not len(own):
            continue
        own = own[np.argsort(ranks[own], kind="stable")]
        count = min(max(math.ceil(lengths[own].sum() / size), 1), len(own))
        split = "data" if code == NONE else ORDER[code]
        for number, part in enumerate(np.array_split(own, count)):
            shards.append(_Shard(form.name(split, number, count), part))
    return shards


def _lengths(records: Records) -> npt.NDArray[np.float64]:
    """(n,) bytes of each image; those that lie in no file count as 100 kB."""
    found = np.full(len(records), 1e5)
    for k, record in enumerate(records):
        if isinstance(record.read, Member):
            found[k] = record.read.length
        elif record.read is None and record.path is not None:
            with suppress(OSError):
                found[k] = os.stat(record.path).st_size
    return found


@dataclass(frozen=True)
class _Work:
    records: Records
    classes: Sequence[str]
    form: ShardFormat
    skip: bool
    progress: Progress | None

    @cached_property
    def number(self) -> dict[str, int]:
        """Of each class."""
        return {name: number for number, name in enumerate(self.classes)}

    def identity(self, shard: _Shard) -> str:
        """Changes with whatever the shard is made of."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(json_text([_VERSION, self.skip, list(self.classes)]).encode())
        for k in shard.positions.tolist():
            record = self.records[k]
            facts = [record.name, record.key, *_facts(record), self.records.target[k].item()]
            digest.update(json_text(facts).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def _facts(record: Record) -> list[object]:
    """What changes with the file of an image."""
    read = record.read
    path = read.file if isinstance(read, Member) else record.path
    if path is None:
        return []
    try:
        seen = os.stat(path)
    except OSError:
        return []
    place = [read.offset, read.length] if isinstance(read, Member) else []
    return [seen.st_size, seen.st_mtime_ns, *place]


def _written(work: _Work, shards: Sequence[_Shard], out: Path, partial: Path) -> list[_Done]:
    try:
        partial.mkdir(parents=True, exist_ok=True)
        lock = FileLock(partial.with_name(f"{partial.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RetinueError(
                "another conversion is at work here",
                where=repr(str(out)),
                mend="wait for it, or name another folder",
            ) from None
        try:
            done = _all(work, shards, partial)
            _finish(work, shards, partial)
            if out.exists():
                out.rmdir()  # it is empty
            os.replace(partial, out)
            sync_folder(out.parent)
        finally:
            lock.release()
            with suppress(OSError):
                os.unlink(lock.lock_file)
    except OSError as error:
        raise RetinueError(
            f"the shards cannot be written: {error.strerror or error}",
            where=repr(str(out)),
            mend=or_room(error, "name another folder")
            + "; the same command goes on with those that are not there",
        ) from error
    return done


def _finish(work: _Work, shards: Sequence[_Shard], partial: Path) -> None:
    """Names of the classes beside the shards, and nothing else."""
    if not any(set(name) & set("\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029") for name in work.classes):
        lines = "".join(f"{number}:{name}\n" for number, name in enumerate(work.classes))
        write_text(partial / "labels.txt", lines)
    for shard in shards:
        _note(partial, shard).unlink(missing_ok=True)


def _note(partial: Path, shard: _Shard) -> Path:
    return partial / f"{shard.name}.done"


def _all(work: _Work, shards: Sequence[_Shard], partial: Path) -> list[_Done]:
    """Writes those that are not there. Raises BadImageError that names all bad images."""
    sweep(partial)
    wanted = {name for shard in shards for name in (shard.name, f"{shard.name}.done")}
    for left in partial.iterdir():
        if left.name not in wanted:  # of another division
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    telling = Telling(work.progress, sum(len(shard.positions) for shard in shards))
    stopped = threading.Event()
    counter = _Counter(telling)
    with (
        complaints.told_once(),
        ThreadPoolExecutor(min(usable_cpus(), 16), thread_name_prefix="retinue-convert") as pool,
    ):
        jobs = [pool.submit(_one, work, shard, partial, stopped, counter) for shard in shards]
        try:
            done = [job.result() for job in jobs]
        except BaseException:
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    bad = {key: why for one in done for key, why in one.bad.items()}
    if bad and not work.skip:
        raise BadImageError(
            bad,
            mend="mend or remove them, and the same command goes on; on_bad_image=skip leaves them"
            " out",
        )
    telling.end()
    return done


class _Counter:
    """Images that are done, counted by several threads."""

    def __init__(self, telling: Telling) -> None:
        self._telling = telling
        self._lock = threading.Lock()
        self._done = 0

    def __call__(self, more: int = 1) -> None:
        with self._lock:
            self._done += more
            self._telling(self._done)


def _one(
    work: _Work, shard: _Shard, partial: Path, stopped: threading.Event, counter: _Counter
) -> _Done:
    """The shard as it is, if it is there, or written now."""
    identity = work.identity(shard)
    if (there := _there(partial, shard, identity)) is not None:
        counter(len(shard.positions))
        return there
    _note(partial, shard).unlink(missing_ok=True)
    bad: dict[str, str] = {}
    written = 0
    try:
        with replacing(partial / shard.name) as temporary, open(temporary, "wb") as file:
            for k in shard.positions.tolist():
                if stopped.is_set():
                    raise _StoppedError
                record = work.records[k]
                try:
                    example = _example(work, record, int(work.records.target[k]))
                except BadImageError as error:
                    bad.update(error.reasons)
                else:
                    work.form.add(file, written, example)
                    written += 1
                counter()
            file.write(work.form.end)
            if bad and not work.skip:
                raise _StoppedError
    except _StoppedError:
        return _Done(0, bad)
    said = {"made_of": identity, "images": written, "bad": bad}
    write_text(_note(partial, shard), json_text(said))
    return _Done(written, bad)


class _StoppedError(Exception):
    """A shard is not to be kept."""


def _there(partial: Path, shard: _Shard, identity: str) -> _Done | None:
    """What the note says of a shard that was made of the same."""
    if not (partial / shard.name).is_file():
        return None
    try:
        said = parse_json(read_file(_note(partial, shard)))
        if said["made_of"] == identity:
            return _Done(int(said["images"]), dict(said["bad"]))
    except (OSError, NotJson, ValueError, TypeError, LookupError):
        pass
    return None


def _example(work: _Work, record: Record, target: int) -> Written:
    """Raises BadImageError."""
    source = read_image(record.key, record.read)
    content = source if isinstance(source, bytes) else as_png(source)
    encoded = Encoded(content, path=record.key)
    encoded.decode(SMALL)
    name = str(work.records.targets[target].names()[0])
    return Written(
        content,
        _kind(content),
        encoded.stored_size,
        work.number[name],
        name,
        record.name,
    )


def _kind(content: bytes) -> str:
    if content.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    return (open_pillow(content).format or "bin").lower()
