"""What several of these functions take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from retinue.inference.names import EngineName as EngineName

PredictEngineName = Literal["auto", "torch", "onnxruntime", "openvino", "ray"]
"""`ray`: several processes or machines, see `retinue.bulk`."""

PrecisionName = Literal["fp32", "bf16", "int8"]
"""In what numbers a model file is run."""


def several(sources: str | Path | Sequence[str | Path]) -> list[str | Path]:
    """One source or many, as many."""
    return [sources] if isinstance(sources, str | Path) else list(sources)
