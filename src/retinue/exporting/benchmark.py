"""What a model costs in each format on this machine: size, latency, throughput, and how near its
answers are to the model's."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from retinue.errors import RetinueError
from retinue.exporting import gate
from retinue.exporting.material import Material
from retinue.exporting.model import Order, export_model
from retinue.inference import runtimes
from retinue.inference.members import open_member
from retinue.inference.predictor import Predictor, load
from retinue.inference.runtimes import FORMATS, bytes_of
from retinue.inference.speed import measured
from retinue.sample import Sample

IMAGES = 16
"""At a time, for the throughput."""


@dataclass(frozen=True)
class Measured:
    """A format run by an engine."""

    format: str
    """`safetensors` is the model file itself."""
    precision: str
    """That it was exported in."""
    engine: str
    provider: str = ""
    """What really computed, as the library tells it."""
    computes: str = ""
    """In what numbers it really did."""
    bytes: int = 0
    latency_ms: float | None = None
    """Of one image, from decoded pixels to the answer."""
    images_per_second: float | None = None
    """Of `batch` at a time."""
    batch: int | None = None
    error: float | None = None
    """How far its outputs are from the model's, in standard deviations of these."""
    why: str = ""
    """It could not be measured; empty: it was."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def benchmark(
    model: Path,
    material: Material,
    *,
    formats: Sequence[str] = tuple(FORMATS),
    precisions: Sequence[str] = ("fp32",),
) -> Iterator[Measured]:
    """The model file itself, by PyTorch on the CPU; then each of the `formats` in each of the
    `precisions`, by every engine for it, one after the other, exported for that. Of an exported
    file, its own engines alone.

    What is not installed, or does not answer as the model does, comes with the reason.
    """
    form = runtimes.format_of(model)
    if form is not None:
        reference = load(model, device="cpu")
        good = gate.readable(material.proof, reference, IMAGES)
        for runtime in form.runtimes:
            yield _row(reference, model, form.name, runtime.engine, good)
        return
    own = Predictor([open_member(model, "cpu", "torch", {})], engine="torch")
    good = gate.readable(material.proof, own, IMAGES)
    yield _measured(own, own, "safetensors", "fp32", model.stat().st_size, good)
    with tempfile.TemporaryDirectory(prefix="retinue-benchmark-") as folder:
        for precision in precisions:
            for name in formats:
                place = Path(folder) / f"{name}-{precision}" / f"model{FORMATS[name].suffix}"
                place.parent.mkdir()
                order = Order(to=name, precision=precision)
                try:
                    export_model(model, order, material, out=place)
                except RetinueError as error:
                    yield Measured(
                        name, precision, FORMATS[name].runtimes[0].engine, why=str(error)
                    )
                    continue
                for runtime in FORMATS[name].runtimes:
                    yield _row(own, place, name, runtime.engine, good, precision)


def _row(
    own: Predictor,
    file: Path,
    name: str,
    engine: str,
    samples: Sequence[Sample],
    precision: str = "fp32",
) -> Measured:
    """The exported `file`, run by `engine`."""
    try:
        theirs = load(file, device="cpu", engine=engine)  # type: ignore[arg-type]
        said = getattr(theirs.members[0], "export", None)
        precision = precision if said is None else said.precision
        return _measured(own, theirs, name, precision, bytes_of(file), samples)
    except RetinueError as error:
        return Measured(name, precision, engine, why=str(error))


def _measured(
    own: Predictor,
    theirs: Predictor,
    name: str,
    precision: str,
    size: int,
    samples: Sequence[Sample],
) -> Measured:
    proof = gate.prove(own, theirs, samples, precision)
    spent = measured(theirs, samples, most=IMAGES) or {}
    runs = theirs.members[0].plain("cpu")
    return Measured(
        name,
        precision,
        runs.name,
        runs.provider,
        runs.computes,
        size,
        spent.get("latency_ms"),
        spent.get("images_per_second"),
        spent.get("batch"),
        proof.error,
    )
