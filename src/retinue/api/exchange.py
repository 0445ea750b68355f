"""Models that go to other programs, and come from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retinue.exporting.state_dict import Exported


def export(
    model: str | Path, to: str, *, out: str | Path | None = None, force: bool = False
) -> Exported:
    """The tensors of a model file or run folder as a state dict of `to`, `timm` or `torchvision`.

    `out`: a `.safetensors`, `.pth` or `.pt` file; by default `NAME.LIBRARY.safetensors` beside the
    model. `force` replaces an older one. What comes back says how the network is built there.
    Raises `UsageError` for a name that will not do, `RetinueError` where that library has no such
    network.
    """
    from retinue.errors import UsageError
    from retinue.exporting.state_dict import export_state_dict
    from retinue.modelfile import find_model

    if not isinstance(model, str | Path):
        raise UsageError(
            f"a model is exported from its file, not from a {type(model).__name__}",
            mend="give the path of a model file or run folder",
        )
    target = None if out is None else Path(out)
    return export_state_dict(find_model(Path(model)), to, out=target, force=force)


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
        raise UsageError("it is read, and cannot be written", where=repr(str(place)), mend=mend)
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
