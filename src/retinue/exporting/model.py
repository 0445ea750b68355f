"""A model in another program's format: written beside its place, read back, proven, and only then
given its name."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import retinue
from retinue import modelfile
from retinue.documents import json_text
from retinue.errors import RetinueError, UsageError
from retinue.exporting import gate, int8, preparing
from retinue.exporting.cost import MOST, Cost, cost
from retinue.exporting.gate import Proof
from retinue.exporting.material import Material
from retinue.exporting.staging import check_target, staged
from retinue.exporting.weights import began_from
from retinue.exporting.whole import Whole
from retinue.exporting.writers import Converted, Job, Writer, writer_of
from retinue.inference import ensembles, runtimes
from retinue.inference.engines import TorchEngine
from retinue.inference.exported import MOST_IMAGES, Export, hashes, report_of, written
from retinue.inference.members import ExportedMember, Member, open_member
from retinue.inference.predictor import Predictor, example_inputs, load, original
from retinue.inference.runtimes import FORMATS, Format, bytes_of, format_of
from retinue.inference.tracing import Axes, Signature
from retinue.modelfile import ModelDescription
from retinue.models.detector import Detector
from retinue.models.network import Network
from retinue.models.transformer import Transformer
from retinue.sample import Preprocessing, Sample, Size
from retinue.text import first_line, listed, shorten, visible
from retinue.weights.files import sha256

KINDS = {"fp16": torch.float16, "bf16": torch.bfloat16}
"""What is added to the name of an export for its report."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is wished for."""

    to: str
    precision: str = "fp32"
    batch: int | None = None
    """So many images at a time; None: any number."""
    size: Size | None = None
    """Height and width of the images; None: as the model file says."""
    any_size: bool = False
    """Whether images of other sizes are taken, too."""
    end_to_end: bool = False
    """Whether it takes whole images, and gives answers."""
    most_lost: float = MOST
    """Of the main figure, at most, by int8."""


@dataclass(frozen=True)
class Written:
    """An export, and what proves it."""

    path: Path
    export: Export
    description: ModelDescription
    report: dict[str, Any]
    """As in the file `NAME.proof.json` beside it."""
    proof: Proof
    cost: Cost | None = None
    """Of eight bits."""

    def __repr__(self) -> str:
        return f"<Written {shorten(str(self.path), 60)}: {self.export.format}, {self.proof.told()}>"

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"path": str(self.path), **self.report}

    def lines(self) -> list[str]:
        """For people."""
        export, weights = self.export, self.export.began_from
        batch = "any number" if export.batch is None else f"{export.batch} at a time"
        size = " (any size)" if export.any_size else ""
        taken = preparing.words(self.description.prepared())
        if export.input == "pixels":
            taken = "uint8 (n, height, width, 3), upright, of any size"
        licence = "" if weights is None else weights.licence or "licence not known"
        return [
            visible(self.path),
            f"  format        {FORMATS[export.format].title}, {export.precision}, "
            f"{self.report['bytes'] / 1e6:,.1f} MB",
            f"  input         {batch}{size}: {taken}",
            f"  classes       {listed(self.description.classes, 5)}",
            *([f"  began from    {weights.name}: {licence}"] if weights is not None else []),
            f"  proven on     {self.proof.told()}",
            *([f"  it costs      {self.cost.told()}"] if self.cost is not None else []),
            f"  report        {visible(report_of(self.path))}",
        ]


def export_model(
    model: Path,
    order: Order,
    material: Material,
    *,
    out: Path | None = None,
    force: bool = False,
) -> Written:
    """Write the model file `model` as `order` says, made and proven with the images of `material`.

    `out`: by default beside the model, called as it is with the format's ending. `force`: an older
    file may be replaced. A report is written beside it.

    Raises:
        UsageError: what cannot be: a format whose packages are missing, a size that the network
            does not take, a name that will not do.
        RetinueError: the network cannot be converted, or the file does not answer as the model
            does; nothing is written then.
        BadImageError: no image can be read.
    """
    order, writer, target = settled(model, order, out=out, force=force)
    form = FORMATS[order.to]
    member = open_member(model, "cpu", "torch", {})
    assert isinstance(member, Member)
    member = replace(member, description=_of_size(member.description, order.size))
    own = Predictor([member], engine="torch")
    axes = _axes(member.network, own.preprocessing, order)
    ending = member.task.ending() if order.end_to_end else None
    good = gate.readable(material.proof, own, gate.IMAGES)
    gate.refuse_dependence(own, good)
    export = Export(
        format=order.to,
        precision=order.precision,  # type: ignore[arg-type]
        batch=order.batch,
        any_size=order.any_size,
        input="pixels" if order.end_to_end else "normalised",
        output_types=["float32"],
        began_from=began_from(member.description),
        model_sha256=sha256(model),
        versions={
            "retinue": retinue.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    )

    def text(signature: Signature) -> str:
        nonlocal export
        gives = {"outputs": signature.outputs, "output_types": signature.output_types}
        export = export.model_copy(update=gives)
        return written(export, member.description)

    how = own.preprocessing
    example = example_inputs(good, how, order.batch or 2)
    if order.end_to_end:
        example = torch.from_numpy(np.array(original(good[0], how)))[None]
    calibration = None
    if order.precision == "int8":
        calibration = example_inputs(material.calibration, own.preprocessing, int8.IMAGES)
    try:
        with staged(target) as temporary:
            try:
                network = _computing(member, order.precision if writer.converted else "fp32")
                if ending is not None:
                    network = Whole(how, network, ending).eval()
                    gate.refuse_preparation(network.prepare, own, good)
                names = member.task.classes if order.end_to_end else ()
                job = Job(
                    network, example, axes, text, temporary, order.precision, calibration, names
                )
                writer.write(job)
            except RetinueError:
                raise
            except Exception as error:
                raise _cannot(form, order, error) from error
            proof, spent, report = _proven(own, temporary, good, export, material, order)
            if ending is not None:  # as the very graph is, too, when PyTorch runs it
                runs = TorchEngine(network, precision="fp32")
                graph = Predictor([ExportedMember.of_graph(model, export, runs, member)])
                theirs = load(temporary, device="cpu")
                again = gate.prove(graph, theirs, good, order.precision)
                _refuse(again, export, "its own graph does in PyTorch")
            report["model_sha256"], report["file"] = export.model_sha256, target.name
            report["files"] = hashes(temporary)
            report_of(temporary).write_text(json_text(report, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise RetinueError(
            f"the file cannot be written: {error.strerror or error}", where=str(target)
        ) from error
    return Written(target, export, member.description, report, proof, spent)


def settled(
    model: Path, order: Order, *, out: Path | None = None, force: bool = False
) -> tuple[Order, Writer, Path]:
    """The order with what its format asks for, what writes it, and where to. UsageError for what
    can be refused before anything is read: see `export_model`."""
    refuse_exported(model)
    form = FORMATS[order.to]
    if order.batch is None:
        order = replace(order, batch=form.batch)
    writer = writer_of(order.to, order.precision)
    target = out if out is not None else _default(model, form, order.precision)
    if format_of(target) is not form:
        raise UsageError(
            f"{form.title} files are called {form.suffix}",
            where=str(target),
            mend=f"name it {target.with_suffix(form.suffix).name}",
        )
    check_target(target, model, force)
    if order.batch is not None and not 1 <= order.batch <= MOST_IMAGES:
        raise UsageError(
            f"a batch cannot have {order.batch:,} images",
            where="batch (--batch)",
            mend=f"take 1 to {MOST_IMAGES:,}",
        )
    if writer.one_size and (order.end_to_end or order.any_size):
        raise UsageError(
            f"{form.title} files take images of one size",
            where="end_to_end (--end-to-end)" if order.end_to_end else "size (--size)",
            mend="leave it out, or export to another format",
        )
    return order, writer, target


def refuse_exported(model: Path) -> None:
    """Raise UsageError for what is no model file: an export, or an ensemble."""
    if format_of(model) is not None:
        what, mend = "an export already", "the model file that it was exported from"
    elif model.suffix.lower() == ensembles.SUFFIX:
        what, mend = "an ensemble of several models", "one of its model files"
    else:
        return
    raise UsageError(f"this is {what}", where=str(model), mend=f"name {mend}")


def _proven(
    own: Predictor,
    file: Path,
    samples: Sequence[Sample],
    export: Export,
    material: Material,
    order: Order,
) -> tuple[Proof, Cost | None, dict[str, Any]]:
    """The proof, what eight bits cost, and the report. RetinueError where the file does not answer
    as the model."""
    theirs = load(file, device="cpu")
    allowed = gate.ROUNDED if order.end_to_end else None
    proof = gate.prove(own, theirs, samples, export.precision, allowed)
    _refuse(proof, export)
    spent = cost(own, theirs, material) if proof.allowed is None else None
    if spent is not None and not spent.loss <= order.most_lost:
        few = spent.step > order.most_lost
        more = "give more images with images=… (--images), take" if few else "take"
        raise RetinueError(
            f"{export.precision} costs more than {order.most_lost:g}: {spent.told()}",
            where=FORMATS[export.format].title,
            mend=f"nothing was written; {more} another precision, or most_lost=… (--most-lost)",
        )
    runs = theirs.members[0].plain("cpu")
    report: dict[str, Any] = {
        "format": export.format,
        "precision": export.precision,
        "bytes": bytes_of(file),
        "proof": proof.as_dict(),
        **({} if spent is None else {"cost": spent.as_dict()}),
        "images": [sample.name or Path(sample.key).name for sample in samples],
        "engine": {
            "name": runs.name,
            "version": runtimes.version_of(runtimes.runtime_of(FORMATS[export.format])),
            "provider": runs.provider,
            "computes": runs.computes,
        },
        "machine": {"system": platform.system(), "processor": platform.machine()},
        "versions": export.versions,
    }
    return proof, spent, report


def _refuse(proof: Proof, export: Export, other: str = "the model does") -> None:
    """Raise RetinueError for what speaks against the export, which is compared with what `other`
    says."""
    if problems := list(proof.problems()):
        raise RetinueError(
            f"the export does not answer as {other}: {'; '.join(problems)}",
            where=f"{FORMATS[export.format].title} in {export.precision}",
            mend="nothing was written; export to another format or precision",
        )


def _default(model: Path, form: Format, precision: str) -> Path:
    """`best.onnx`, `best.fp16.onnx`."""
    middle = "" if precision == "fp32" else f".{precision}"
    return model.with_name(f"{model.stem}{middle}{form.suffix}")


def _of_size(description: ModelDescription, size: Size | None) -> ModelDescription:
    if size is None:
        return description
    prepared = {**description.preprocessing, "size": list(size)}
    try:
        modelfile.checked_preprocessing(prepared)
    except ValueError as error:
        raise UsageError(
            f"images cannot be of that size: {error}", where="size (--size)"
        ) from error
    return description.model_copy(update={"preprocessing": prepared})


def _axes(network: Network, how: Preprocessing, order: Order) -> Axes:
    """Which lengths the graph takes. UsageError for sizes that the network does not."""
    try:
        with torch.no_grad():
            network(torch.zeros((1, 3, *how.size)))
    except UsageError as error:
        raise UsageError(error.what, where="size (--size)", mend=error.mend) from error
    if order.end_to_end:
        if order.any_size or order.precision == "int8":
            what = "size=any" if order.any_size else "int8"
            raise UsageError(
                f"{what} is not for an export that takes whole images",
                where="end_to_end (--end-to-end)",
                mend="it takes images of any size already"
                if order.any_size
                else "use fp32 or fp16",
            )
        return Axes(order.batch, (1, 2))
    if not order.any_size:
        return Axes(order.batch)
    if isinstance(network, Transformer):
        raise UsageError(
            f"{network.name} is exported for images of one size: its positions are interpolated "
            "once, for that",
            where="size (--size)",
            mend="name the size, 256x192 say, and export once for each",
        )
    multiple = max(network.strides) if isinstance(network, Detector) else 1
    return Axes(order.batch, (2, 3), multiple)


def _computing(member: Member, precision: str) -> torch.nn.Module:
    """The network in the numbers that it is to compute in."""
    kind = KINDS.get(precision)
    if kind is None:
        return member.network
    copy = member.task.build(member.description.network, dict(member.description.arguments), None)
    copy.load_state_dict(member.network.state_dict())
    return Converted(copy.eval(), kind).eval()


def _cannot(form: Format, order: Order, error: Exception) -> RetinueError:
    size = ", or with a fixed size" if order.any_size else ""
    return RetinueError(
        f"the network cannot be converted: {type(error).__name__}: {first_line(error)}",
        where=form.title,
        mend=f"export it to another format{size}",
    )
