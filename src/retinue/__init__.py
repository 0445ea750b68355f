"""retinue: image recognition you can trust, from a folder of photographs to a served model.

Everything public is imported lazily, so that `import retinue` and `retinue --help` stay quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "create_model": "retinue.api",
    "evaluate": "retinue.api",
    "list_models": "retinue.api",
    "load": "retinue.api",
    "predict": "retinue.api",
    "train": "retinue.api",
    "RetinueError": "retinue.errors",
    "UsageError": "retinue.errors",
    "BadImageError": "retinue.errors",
}
__all__ = [  # written out, so that type checkers see what is exported
    "BadImageError",
    "RetinueError",
    "UsageError",
    "__version__",
    "create_model",
    "evaluate",
    "list_models",
    "load",
    "predict",
    "train",
]

if TYPE_CHECKING:
    from retinue.api import create_model, evaluate, list_models, load, predict, train
    from retinue.errors import BadImageError, RetinueError, UsageError


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'retinue' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
