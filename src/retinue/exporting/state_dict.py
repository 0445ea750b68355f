"""A model's tensors as another library's state dict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from retinue import modelfile
from retinue.arrays import Size
from retinue.documents import json_text
from retinue.errors import RetinueError, UsageError
from retinue.exporting import preparing
from retinue.exporting.elsewhere import Construction, construction
from retinue.exporting.staging import check_target
from retinue.files import replacing, sweep
from retinue.models.detector import Detector
from retinue.models.network import Network
from retinue.models.registry import find
from retinue.models.transformer import Transformer, resample_positions
from retinue.sample import Preprocessing
from retinue.tasks.task import described
from retinue.text import listed, shorten, visible
from retinue.weights import files
from retinue.weights.layout import recognise, translate, untranslate

SUFFIXES = (".safetensors", ".pth", ".pt")


@dataclass(frozen=True)
class Exported:
    """What an export left, and how it is used."""

    path: Path
    construction: Construction
    """The call that builds the network; its `load_state_dict(…, strict=True)` takes the file."""
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    """In the order of the logits."""
    tta: str = "none"
    """Test-time augmentation that the model file asks for, and a state dict cannot."""
    temperature: float = 1.0
    """What the logits are divided by before the softmax, which a state dict cannot do either."""

    def __repr__(self) -> str:
        return f"<Exported {shorten(str(self.path), 60)}: {self.construction.code()}>"

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "path": str(self.path),
            "library": self.construction.library,
            "create": self.construction.code(),
            "load": self.load(),
            "preprocessing": self.preprocessing.as_dict(),
            "prepare": self.prepare(),
            "tta": self.tta,
            "temperature": self.temperature,
            "classes": list(self.classes),
        }

    def lines(self) -> list[str]:
        """For people: how it is used, and code for that."""
        rows = [
            visible(self.path),
            f"  network       {self.construction.code()}",
            f"  weights       network.load_state_dict({visible(self.load())})",
            f"  images        {preparing.words(self.preprocessing)}",
            f"  classes       {listed(self.classes, 5)}",
        ]
        if self.temperature != 1.0:
            rows.append(f"  scores        softmax of the logits divided by {self.temperature:.6g}")
        if self.tta != "none":
            rows.append(
                f"  answers       of one view; retinue's are means over several, tta={self.tta}"
            )
        return [*rows, "", self.prepare()]

    def load(self) -> str:
        """The call that gives the state dict."""
        if self.path.suffix == ".safetensors":
            return f"safetensors.torch.load_file({str(self.path)!r})"
        return f"torch.load({str(self.path)!r}, weights_only=True)"

    def prepare(self) -> str:
        """Code that defines `prepare`, from a Pillow image to what the network takes."""
        return preparing.code(self.preprocessing, self.temperature)


def export_state_dict(
    model: Path, library: str, *, out: Path | None = None, force: bool = False
) -> Exported:
    """Write the tensors of the model file `model` as `library` names them, for images of the size
    that its preprocessing says.

    `out`: `.safetensors` (with the classes' names in its metadata), `.pth` or `.pt`; by default
    `NAME.LIBRARY.safetensors` beside the model. `force`: an older file may be replaced. The file is
    read back as if it came from that library, and takes its name only if it gives the same tensors.

    Raises:
        UsageError: a library that has no such network, or none for such images; a suffix or name
            that is none of a state dict.
        RetinueError: the file cannot be written.
    """
    description, tensors = modelfile.read(model)
    preprocessing = description.prepared()
    task = described(description)
    with torch.device("meta"):
        network = task.build(description.network, dict(description.arguments), None)
    if isinstance(network, Detector):
        raise UsageError(
            f"{library} is asked for classifiers, and this model is a detector",
            where=str(model),
            mend="export it to a format that answers by itself: --to onnx say",
        )
    made = construction(library, network, preprocessing.size)
    temperature = float(task.fitted().get("temperature", 1.0))
    target = out if out is not None else model.with_name(f"{model.stem}.{library}.safetensors")
    _check_target(target, model, force)
    tensors = _fitted(network, tensors, preprocessing.size)
    state = {key: tensor.clone() for key, tensor in untranslate(made.layout, tensors).items()}
    classes = json_text(description.classes)
    try:
        sweep(target.parent)
        with replacing(target) as temporary:
            if target.suffix == ".safetensors":
                told = {"format": "pt", "classes": classes, "temperature": repr(temperature)}
                save_file(state, temporary, told)
            else:
                torch.save(state, temporary)
            _verify(temporary, target, find(description.network).family, tensors)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise RetinueError(f"the file cannot be written: {error}", where=str(target)) from error
    return Exported(
        target, made, preprocessing, tuple(description.classes), description.tta, temperature
    )


def _fitted(network: Network, tensors: dict[str, Tensor], size: Size) -> dict[str, Tensor]:
    """The tensors of `network` for images of `size`: a transformer of ours interpolates its
    positions for every image that needs it, and other libraries' add what they have."""
    if not isinstance(network, Transformer):
        return tensors
    key = f"{network.embedding}.position"
    rows, columns = (-(-side // network.stride) for side in size)
    return {**tensors, key: resample_positions(tensors[key], rows, columns)}


def _check_target(target: Path, model: Path, force: bool) -> None:
    if target.suffix not in SUFFIXES:
        raise UsageError(
            f"a state dict is not written as {target.suffix or 'a nameless'} file",
            where=str(target),
            mend="end the name in " + ", ".join(SUFFIXES),
        )
    if target.is_dir():
        raise UsageError("this is a folder", where=str(target), mend="name a file")
    check_target(target, model, force)


def _verify(written: Path, target: Path, family: str, tensors: Mapping[str, Tensor]) -> None:
    """Read `written` as a foreign checkpoint. Raises RetinueError unless it gives `tensors`."""
    read = files.read(written, suffix=target.suffix).tensors
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    back = translate(recognise(read, family), read, shapes)
    different = [
        key
        for key in {**tensors, **back}
        if key not in back or key not in tensors or not _identical(back[key], tensors[key])
    ]
    if different:
        raise RetinueError(
            f"what was written does not read back the same: {', '.join(different[:3])}",
            where=str(target),
            mend="please report this; no file was left",
        )


def _identical(one: Tensor, other: Tensor) -> bool:
    """Bit for bit, so that a NaN equals itself."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    return torch.equal(*(t.contiguous().reshape(-1).view(torch.uint8) for t in (one, other)))
