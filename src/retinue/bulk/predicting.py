"""A prediction by Ray from its sources to its files, gone on with where an earlier one stopped."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from retinue.bulk.actors import Order, inner_engine, sha256
from retinue.bulk.cluster import answered, connected, refuse_absent
from retinue.bulk.manifest import Manifest, is_begun, objects
from retinue.bulk.rows import digest, rows_of
from retinue.errors import RetinueError, UsageError
from retinue.files import or_room, replacing
from retinue.inference.inputs import Say
from retinue.text import counted, utf8

PICTURES = "predictions"
FORMS = ("jsonl", "parquet")
CPUS = 4
"""Processors that an actor has by default, where there are so many."""
MOST_NAMED = 1_000
"""Rows without an answer that are named beside the file."""
TOLD_EVERY = 60.0
"""Seconds between lines that say how far the work is."""
_BATCHES, _PARTS = 16, 4_096
"""A part has at most so many batches, but where there would be more parts than this."""

log = logging.getLogger("retinue")


@dataclass
class Done:
    """What came of it."""

    rows: int
    """In all."""
    failed: int = 0
    """Those without an answer."""
    skipped: dict[str, str] = field(default_factory=dict)
    """The first of them, and why."""
    resumed: int = 0
    """Rows that an earlier start had done."""
    file: Path = Path()


def predict(
    models: Sequence[Path],
    sources: Sequence[str | Path],
    out: Path,
    *,
    format: str = "jsonl",
    actors: int | None = None,
    device: str = "auto",
    tta: str | None = None,
    options: Mapping[str, Any] | None = None,
    batch_size: int = 32,
    stdin: Any = None,
    say: Say = log.warning,
) -> Done:
    """Answers for all that `sources` name, in `out` as `predictions.jsonl` or `.parquet`: a row an
    image in the order of the sources, with its number `id`, and `error` where there is no answer.

    `models`: files that exist. `actors`: processes with a model each, by default one a GPU, or one
    for every four processors. What is done is kept in parts; the same call goes on from there.

    Raises UsageError for what will not do, RetinueError where the work fails; what is done by then
    stays done.
    """
    if format not in FORMS:
        mend = f"there are {' and '.join(FORMS)}"
        raise UsageError(f"Ray's answers are not written as {format}", where="format", mend=mend)
    if actors is not None and actors < 1:
        raise UsageError(
            f"there must be at least one actor, not {actors}", where="actors", mend="take 1 or more"
        )
    refuse_absent()
    target = out / f"{PICTURES}.{format}"
    refuse_foreign(out, target)
    table = rows_of(sources, stdin, out=out, say=say)
    files = tuple(str(path.absolute()) for path in models)
    order = Order(
        models=files,
        digests=tuple(map(sha256, models)),
        device=device,
        tta=tta,
        options=dict(options or {}),
        batch_size=batch_size,
        threads=1,
    )
    _refuse_unloadable(order)
    request = {
        "sources": digest(table),
        "rows": len(table),
        "models": list(order.digests),
        "options": dict(order.options),
        "tta": tta,
        "device": device,
        "part": part_size(len(table), batch_size),
        "batch_size": batch_size,
    }
    begun = is_begun(out)
    try:
        with Manifest.opened(out, request) as manifest:
            missing = manifest.missing()
            done = Done(len(table), file=target)
            done.resumed = len(table) - sum(
                end - start for start, end in map(manifest.bounds, missing)
            )
            if begun:
                log.info("going on: %s of %s are done", f"{done.resumed:,}", f"{len(table):,}")
            if missing:
                _work(manifest, missing, table, order, actors, say)
            _join(manifest, target, format, done)
            manifest.done()
            if done.failed > len(done.skipped):
                say(f"{counted(done.failed, 'row')} in {str(target)!r} have an error")
    except OSError as error:
        raise RetinueError(
            f"predictions cannot be written: {error.strerror or error}",
            where=str(error.filename or out),
            mend=or_room(error, "choose another folder with --out"),
        ) from error
    return done


def refuse_foreign(out: Path, target: Path) -> None:
    """UsageError where `out` is a file, or somebody else's file has the name of ours."""
    if out.exists() and not out.is_dir():
        raise UsageError("the output is a file, not a folder", where=str(out))
    if not target.exists():
        return
    ours = False
    try:
        if target.suffix == ".parquet":
            ours = pq.read_schema(target).names[:2] in (["id", "path"], ["path"])
        else:
            with open(target, "rb") as file:
                ours = file.readline(64).startswith((b'{"id": ', b'{"path": ')) or not file.tell()
    except (OSError, pa.ArrowException):
        ours = False
    if not ours:
        raise UsageError(
            "another file has that name, and is not overwritten",
            where=str(target),
            mend="choose another folder with --out",
        )


def part_size(rows: int, batch_size: int) -> int:
    """Rows of a part: whole batches, so that an image's batch is the same as without parts. Small
    enough that several actors have something to do and a kill costs little."""
    batches = -(-rows // batch_size)
    return batch_size * max(1, min(_BATCHES, batches // 64), -(-batches // _PARTS))


def _refuse_unloadable(order: Order) -> None:
    """What is wrong with the model or the options shows here, and not in an actor."""
    from retinue.inference.predictor import load

    load(
        list(order.models),
        device="cpu",
        engine=inner_engine(order.models),
        tta=order.tta,
        options=order.options,
    )


def _work(
    manifest: Manifest,
    missing: list[int],
    table: pa.Table,
    order: Order,
    actors: int | None,
    say: Say,
) -> None:
    with connected() as (cpus, gpus):
        share = shares(cpus, gpus, order.device, actors)
        order = replace(
            order,
            device=share.device,
            threads=share.cpus,
            batch_size=manifest.batch_size,
        )
        parts = []
        for number in missing:
            start, end = manifest.bounds(number)
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(table.slice(start, end - start))
            rows = sink.getvalue().to_pybytes()
            parts.append({"part": number, "start": start, "rows": rows})
        log.info(
            "%s on %s, in %s",
            counted(share.actors, "actor"),
            share.device,
            counted(len(parts), "part"),
        )
        count = min(share.actors, len(parts))
        work = answered(order, parts, actors=count, cpus=share.cpus, gpus=share.gpus)
        left, told = set(missing), time.monotonic()

        def done() -> str:
            rows = sum(end - start for start, end in map(manifest.bounds, left))
            return f"{manifest.rows - rows:,} of {counted(manifest.rows, 'row')} are done"

        try:
            for number, lines in work:
                manifest.keep(number, lines)
                left.discard(number)
                if time.monotonic() - told > TOLD_EVERY:
                    told = time.monotonic()
                    say(done())
        except BaseException:
            if len(left) < len(manifest):
                say(f"{done()} and kept: the same command goes on from there")
            raise
        finally:
            work.close()  # type: ignore[attr-defined]
        if left:
            raise RetinueError(
                f"{counted(len(left), 'part')} came to no answer", where="Ray", mend="run it again"
            )


@dataclass(frozen=True)
class Shares:
    """How a cluster is divided."""

    actors: int
    cpus: int
    """Of each."""
    gpus: int
    """Of each: 0 or 1."""
    device: Literal["cpu", "cuda"]


def shares(cpus: int, gpus: int, device: str, actors: int | None) -> Shares:
    """Of a cluster with so many processors and GPUs. UsageError for a device that it has not, and
    for more actors than fit."""
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f"Ray gives each actor its device: {device!r} cannot be chosen",
            where="device",
            mend="take auto, cpu or cuda",
        )
    if device == "cuda" and not gpus:
        raise UsageError("the cluster has no GPU", where="device", mend="take cpu")
    if gpus and device != "cpu":
        count, most = actors or gpus, gpus
    else:
        count, most = actors or max(cpus // CPUS, 1), cpus
    if count > most:
        what = counted(most, "GPU" if most == gpus and device != "cpu" and gpus else "processor")
        raise UsageError(
            f"{count} actors do not fit: the cluster has {what}",
            where="actors",
            mend=f"take {most} or fewer",
        )
    on_gpu = bool(gpus and device != "cpu")
    return Shares(count, max(cpus // count, 1), int(on_gpu), "cuda" if on_gpu else "cpu")


# --- the parts become one file -------------------------------------------------------------------


def _join(manifest: Manifest, target: Path, format: str, done: Done) -> None:
    """All parts in order, under a temporary name; the old file is replaced when it is whole."""
    with replacing(target) as temporary:
        if format == "jsonl":
            with open(temporary, "wb") as file:
                for number in range(len(manifest)):
                    lines = manifest.lines(number)
                    file.write(lines)
                    _note(lines, done)
        else:
            _to_parquet(manifest, temporary, done)


def _note(lines: bytes, done: Done) -> None:
    for row in objects(
        b"".join(line + b"\n" for line in lines.splitlines() if b'"error": ' in line)
    ):
        if "error" in row:
            done.failed += 1
            path = row["path"]
            if len(done.skipped) < MOST_NAMED:
                name = path if path not in done.skipped else f"{path} (row {row['id']})"
                done.skipped[name] = row["error"]


def _to_parquet(manifest: Manifest, target: Path, done: Done) -> None:
    """Two walks over the parts: what columns there are, then the rows."""
    schema = pa.schema([("id", pa.int64()), ("path", pa.string()), ("error", pa.string())])
    for number in range(len(manifest)):
        table = pa.Table.from_pylist(_valid(objects(manifest.lines(number))))
        schema = pa.unify_schemas([schema, table.schema], promote_options="permissive")
    own = [schema.field(name) for name in schema.names if name != "error"]
    schema = pa.schema([*own, schema.field("error")])
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for number in range(len(manifest)):
            lines = manifest.lines(number)
            _note(lines, done)
            writer.write_table(pa.Table.from_pylist(_valid(objects(lines)), schema))


def _valid(value: Any) -> Any:
    """With text that Parquet can hold: names of files need not be valid Unicode."""
    if isinstance(value, str):
        return utf8(value)
    if isinstance(value, list):
        return [_valid(inner) for inner in value]
    if isinstance(value, dict):
        return {key: _valid(inner) for key, inner in value.items()}
    return value
