"""retinue: image recognition you can trust, from a folder of photographs to a served model.

Everything public is imported lazily, so that `import retinue` and `retinue --help` stay quick.
Imported before PyTorch, it settles how that one's threads wait (`retinue.openmp`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from retinue.openmp import spin_less

spin_less()

__version__ = "0.1.0"

_PUBLIC = {
    "benchmark": "retinue.api",
    "check_data": "retinue.api",
    "compare_runs": "retinue.api",
    "convert_data": "retinue.api",
    "create_model": "retinue.models.registry",
    "drift": "retinue.api",
    "ensemble": "retinue.training.combining",
    "evaluate": "retinue.api",
    "explain": "retinue.api",
    "export": "retinue.api",
    "fit_anchors": "retinue.api",
    "import_model": "retinue.api",
    "list_models": "retinue.models.registry",
    "load": "retinue.api",
    "model_card": "retinue.api",
    "predict": "retinue.api",
    "pull": "retinue.api",
    "push": "retinue.api",
    "rate_range": "retinue.training.rate_range",
    "soup": "retinue.training.combining",
    "train": "retinue.api",
    "view_data": "retinue.api",
    "RetinueError": "retinue.errors",
    "UsageError": "retinue.errors",
    "BadImageError": "retinue.errors",
    "conv_output_size": "retinue.models.sizes",
    "pool_output_size": "retinue.models.sizes",
    "receptive_field": "retinue.models.sizes",
    "same_output_size": "retinue.models.sizes",
    "transposed_output_size": "retinue.models.sizes",
    "valid_output_size": "retinue.models.sizes",
}
__all__ = [  # written out, so that type checkers see what is exported
    "BadImageError",
    "RetinueError",
    "UsageError",
    "__version__",
    "benchmark",
    "check_data",
    "compare_runs",
    "conv_output_size",
    "convert_data",
    "create_model",
    "drift",
    "ensemble",
    "evaluate",
    "explain",
    "export",
    "fit_anchors",
    "import_model",
    "list_models",
    "load",
    "model_card",
    "pool_output_size",
    "predict",
    "pull",
    "push",
    "rate_range",
    "receptive_field",
    "same_output_size",
    "soup",
    "train",
    "transposed_output_size",
    "valid_output_size",
    "view_data",
]

if TYPE_CHECKING:
    from retinue.api import (
        benchmark,
        check_data,
        compare_runs,
        convert_data,
        drift,
        evaluate,
        explain,
        export,
        fit_anchors,
        import_model,
        load,
        model_card,
        predict,
        pull,
        push,
        train,
        view_data,
    )
    from retinue.errors import BadImageError, RetinueError, UsageError
    from retinue.models.registry import create_model, list_models
    from retinue.models.sizes import (
        conv_output_size,
        pool_output_size,
        receptive_field,
        same_output_size,
        transposed_output_size,
        valid_output_size,
    )
    from retinue.training.combining import ensemble, soup
    from retinue.training.rate_range import rate_range


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'retinue' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
