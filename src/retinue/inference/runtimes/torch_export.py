"""Files of `torch.export`, run by PyTorch."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from retinue.documents import parse_json
from retinue.errors import RetinueError
from retinue.files import read_file
from retinue.inference.runtimes import Opened
from retinue.inference.runtimes.torchscript import FILE, ProgramEngine
from retinue.text import first_line

_KNOWN = re.compile(
    r"[^/]*/(archive_format|archive_version|byteorder|\.data/\w+|extra/[^/]+|models/model\.json"
    r"|data/weights/(model_weights_config\.json|weight_\d+)"
    r"|data/constants/(model_constants_config\.json|tensor_\d+)|data/sample_inputs/model\.pt)"
)
"""What there is in a file of tensors and a graph alone."""


def opened(path: Path, device: str) -> Opened:
    """See `retinue.inference.runtimes`."""
    content = read_file(path)
    _refuse_pickles(content, path)
    found = {FILE: ""}
    try:
        program: Any = torch.export.load(io.BytesIO(content), extra_files=found)
        module = program.module().to(device)
    except Exception as error:
        raise RetinueError(
            f"PyTorch {torch.__version__} cannot load it: {first_line(error)}",
            where=str(path),
            mend="install a newer torch, or export the model anew",
        ) from error
    return Opened(
        found[FILE] or None,
        lambda signature, precision: ProgramEngine(module, signature, precision, device),
    )


def _refuse_pickles(content: bytes, path: Path) -> None:
    """Raise RetinueError for a file whose reading could execute what stands in it: tensors may be
    kept as pickles, and objects of any kind and compiled code beside them. Ours has none."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            odd = [name for name in names if not _KNOWN.fullmatch(name)]
            odd += [name for name in set(names) if names.count(name) > 1]
            for name in names:
                if name.endswith("_config.json"):
                    config = parse_json(archive.read(name), foreign=True)["config"]
                    odd += [key for key, meta in config.items() if meta["use_pickle"] is not False]
                elif name.endswith("/sample_inputs/model.pt"):
                    torch.load(io.BytesIO(archive.read(name)), weights_only=True)
    except Exception as error:
        raise RetinueError(
            f"not a file of torch.export, or a damaged one ({first_line(error)})",
            where=str(path),
            mend="copy it anew from where it was made",
        ) from error
    if odd:
        raise RetinueError(
            f"it contains more than tensors and a graph ({odd[0]!r}), which might be executed",
            where=str(path),
            mend="export the model anew with retinue",
        )
