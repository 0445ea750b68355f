"""What an actor does: it has one model, and answers a part at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pyarrow as pa

from retinue.bulk.rows import samples
from retinue.documents import json_text, parse_json
from retinue.errors import RetinueError
from retinue.text import first_line

if TYPE_CHECKING:
    from retinue.inference.predictor import Predictor


@dataclass(frozen=True)
class Order:
    """How parts are answered: plain values, so that they travel."""

    models: tuple[str, ...]
    """Absolute paths, which lead to the same files on every machine."""
    digests: tuple[str, ...]
    """Their SHA-256."""
    device: str
    tta: str | None
    options: Mapping[str, Any]
    batch_size: int
    threads: int


class Answering:
    """Called with parts as Ray Data hands them over: `{"part": (1,), "start": (1,), "rows": (1,)}`,
    where `start` is the number of the first row and `rows` an Arrow stream of them.

    What goes wrong is handed over, too, and not raised: Ray would tell it in words of its own, or
    try again what cannot be otherwise.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._problem = b""
        try:
            self._predictor = opened(order)
        except Exception as error:
            self._problem = told(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """`{"part": [k], "lines": [JSON lines], "problem": [why there are none, see `raised`]}`."""
        number, lines, problem = int(batch["part"][0]), b"", self._problem
        if not problem:
            try:
                rows = pa.ipc.open_stream(pa.BufferReader(bytes(batch["rows"][0]))).read_all()
                lines = self.answer(int(batch["start"][0]), rows)
            except Exception as error:
                problem = told(error)
        return {"part": [number], "lines": [lines], "problem": [problem]}

    def answer(self, start: int, rows: pa.Table) -> bytes:
        """A line of JSON a row: `id` and `path`, then the answer, or `error`."""
        from retinue.inference.forms import json_line

        task, size = self._predictor.task, self._order.batch_size
        lines = []
        for row, answer in enumerate(
            self._predictor.answers(samples(rows), batch_size=size), start
        ):
            key = answer.sample.key
            values: dict[str, Any] = {"id": row}
            if answer.reason:
                values |= {"path": key, "error": answer.reason}
            else:
                values |= task.result(answer.finding, key).as_dict()
            lines.append(json_line(values))
        return "".join(lines).encode()


def opened(order: Order) -> Predictor:
    """The models, ready. Raises RetinueError where one is not what was meant."""
    import torch

    from retinue.inference.predictor import load

    for path, digest in zip(order.models, order.digests, strict=True):
        refuse_other_model(Path(path), digest)
    torch.set_num_threads(order.threads)
    predictor = load(
        list(order.models),
        device=order.device,
        engine=inner_engine(order.models),
        tta=order.tta,
        options=order.options,
    )
    torch.set_num_threads(order.threads)
    return predictor


def told(error: Exception) -> bytes:
    """What `raised` makes an error of again."""
    if isinstance(error, RetinueError):
        values = {"what": error.what, "where": error.where, "mend": error.mend}
    else:
        said = first_line(error, "no more is known")
        values = {"what": f"an actor failed: {type(error).__name__}: {said}"}
    return json_text(values).encode()


def raised(problem: bytes) -> NoReturn:
    """Raise the error that an actor told."""
    raise RetinueError(**parse_json(problem))


def inner_engine(models: tuple[str, ...]) -> Any:
    """What computes in an actor: never chosen by how much an actor happens to get, so that the
    answers do not depend on that."""
    from retinue.inference.runtimes import format_of

    return "torch" if all(format_of(Path(path)) is None for path in models) else "auto"


def sha256(path: Path) -> str:
    """Of all files of a model, in hexadecimal. Raises OSError and RetinueError."""
    from retinue.inference.ensembles import parts_of
    from retinue.weights import files

    return files.sha256(*parts_of(path))


def refuse_other_model(path: Path, digest: str) -> None:
    """RetinueError unless the file at `path` is the one that was meant."""
    try:
        found = sha256(path)
    except OSError as error:
        raise RetinueError(
            f"a machine of the cluster cannot read the model: {error.strerror or error}",
            where=str(path),
            mend="put it where every machine has it under the same path",
        ) from error
    if found != digest:
        raise RetinueError(
            "a machine of the cluster has another model under this path", where=str(path)
        )
