"""Models that go to other programs, and come from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from retinue.exporting.benchmark import Measured
    from retinue.exporting.material import Material
    from retinue.exporting.model import Written
    from retinue.exporting.state_dict import Exported


def export(
    model: str | Path,
    to: str,
    *,
    out: str | Path | None = None,
    force: bool = False,
    precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp32",
    batch: int | None = None,
    size: int | tuple[int, int] | Literal["any"] | None = None,
    end_to_end: bool = False,
    images: str | Path | Sequence[str | Path] | None = None,
    most_lost: float = 0.02,
) -> Exported | Written:
    """A model file or run folder in another program's format, `to`: `onnx`, `openvino`,
    `torchscript`, `torch-export` …; or its tensors as a state dict of `timm` or `torchvision`.

    `out`: a file; by default beside the model. `force` replaces an older one. A format's file takes
    its name only when it has been read back and answers real images as the model does: those that
    it was judged on, or `images` (files, folders, patterns). `batch`: so many images at a time,
    always; by default any number. `size`: height and width of the images, by default those of the
    model; `any`: others, too. `end_to_end`: the graph takes whole uint8 images (n, height, width,
    3), upright and of any size, and gives answers: scores, or what is left after suppression, in
    pixels of those images. `precision`: `int8` chooses its ranges by training images; it may
    cost `most_lost` of the task's main figure.

    Raises `UsageError` for what cannot be (a library without such a network, missing packages),
    `RetinueError` where the file does not answer as the model does, or cannot be written.
    """
    from retinue.errors import UsageError, suggest
    from retinue.exporting.elsewhere import LIBRARIES
    from retinue.exporting.state_dict import export_state_dict
    from retinue.exporting.writers import refuse_elsewhere
    from retinue.inference.runtimes import FORMATS
    from retinue.modelfile import find_model

    if not isinstance(model, str | Path):
        raise UsageError(
            f"a model is exported from its file, not from a {type(model).__name__}",
            mend="give the path of a model file or run folder",
        )
    refuse_elsewhere(to)
    file, target = find_model(Path(model)), None if out is None else Path(out)
    if to not in (*FORMATS, *LIBRARIES):
        known = (*FORMATS, *LIBRARIES)
        mend = suggest(str(to).lower(), known) or f"there are {', '.join(known)}"
        raise UsageError(f"unknown format {to!r}", mend=mend)
    if to not in FORMATS:
        given = {
            "precision": precision != "fp32", "batch": batch, "size": size,
            "end_to_end": end_to_end, "images": images,
        }  # fmt: skip
        if vain := next((key for key in given if given[key]), None):
            raise UsageError(f"a state dict of {to} has no {vain}", mend="leave it out")
        return export_state_dict(file, to, out=target, force=force)
    from retinue.exporting.model import Order, export_model, settled

    sides = (size, size) if isinstance(size, int) else size
    order = Order(
        to=to,
        precision=precision,
        batch=batch,
        size=None if sides == "any" else sides,
        any_size=sides == "any",
        end_to_end=end_to_end,
        most_lost=most_lost,
    )
    settled(file, order, out=target, force=force)  # before images are looked for
    return export_model(file, order, _material(file, images), out=target, force=force)


def benchmark(
    model: str | Path,
    *,
    formats: Sequence[str] | None = None,
    precisions: Sequence[str] = ("fp32",),
    images: str | Path | Sequence[str | Path] | None = None,
) -> list[Measured]:
    """What a model costs on this machine's CPU: the model file itself, and each of the `formats`
    (by default all) in each of the `precisions` by every engine for it: size, latency, throughput,
    agreement with the model, and what really computed. What cannot be had comes with the reason.
    `images`: as of `export`; of an exported file its own engines are compared."""
    from retinue.errors import UsageError, suggest
    from retinue.exporting.benchmark import benchmark as measure
    from retinue.inference.runtimes import FORMATS
    from retinue.modelfile import find_model

    file = find_model(Path(model))
    names = list(FORMATS) if formats is None else list(formats)
    if unknown := next((name for name in names if name not in FORMATS), None):
        mend = suggest(unknown, FORMATS) or f"there are {', '.join(FORMATS)}"
        raise UsageError(f"unknown format {unknown!r}", mend=mend)
    return list(measure(file, _material(file, images), formats=names, precisions=precisions))


def _material(file: Path, images: str | Path | Sequence[str | Path] | None) -> Material:
    """Real images for a proof: `images`, or the model's own."""
    import sys

    from retinue.exporting.material import Material
    from retinue.inference.inputs import expand
    from retinue.inference.predictor import as_sample
    from retinue.training.evaluation import material_of

    if images is None:
        return material_of(file)
    named = [images] if isinstance(images, str | Path) else list(images)
    return Material.of_images([as_sample(path, path) for path in expand(named, sys.stdin)])


def import_model(
    description: str | Path,
    weights: str | Path,
    *,
    names: str | Path | None = None,
    out: str | Path | None = None,
    force: bool = False,
) -> Path:
    """A model file of another program's files: Darknet's `.cfg` and `.weights`, with the classes of
    `names`, one a line. By default beside the weights, as NAME.safetensors; the path is returned.

    Raises UsageError for a file that is not there, of an unknown kind, or in the way; RetinueError
    for one that cannot be read, or does not go with the others.
    """
    from retinue import modelfile
    from retinue.errors import UsageError
    from retinue.tasks.shipped import taking_in

    place = Path(weights).with_suffix(".safetensors") if out is None else Path(out)
    given = [Path(file) for file in (description, weights, names) if file is not None]
    if any(place.exists() and file.exists() and place.samefile(file) for file in given):
        mend = "name another place for the model file"
        raise UsageError(
            "the model file would overwrite one of the files that it is made of",
            where=repr(str(place)),
            mend=mend,
        )
    if place.exists() and not force:
        raise UsageError(
            "the file is there already",
            where=repr(str(place)),
            mend="name another with --out, or replace it with --force",
        )
    take_in = taking_in(Path(description))
    described, tensors = take_in(Path(description), Path(weights), names and Path(names))
    modelfile.write(place, tensors, described)
    return place
