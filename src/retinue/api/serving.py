"""Models behind HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from retinue.api.names import EngineName, PrecisionName
from retinue.api.predicting import load

if TYPE_CHECKING:
    from retinue.serving.settings import Settings


def serve(
    models: str | Path | Sequence[str | Path],
    *,
    settings: Settings | None = None,
    device: str = "auto",
    engine: EngineName = "auto",
    precision: PrecisionName = "fp32",
    tta: str | None = None,
    options: Mapping[str, Any] | None = None,
    log_format: Literal["auto", "json", "text"] = "auto",
    say: Callable[[str], None] = print,
) -> None:
    """Serve model files or run folders, each `PATH` or `NAME=PATH`, until SIGTERM or Ctrl-C.

    `settings`: address and limits. `options`, `precision`: see `load`. `say` is told the address
    once the models are ready. Raises UsageError for a model that is missing or an address that is
    taken, RetinueError for one that does not load.
    """
    import importlib.util

    from retinue.errors import UsageError

    for package in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        if importlib.util.find_spec(package) is None:
            raise UsageError(
                f"serving needs {package}", mend="install it: pip install 'retinue[serve]'"
            )
    from retinue.serving import server
    from retinue.serving.models import named
    from retinue.serving.settings import Settings

    given = [models] if isinstance(models, str | Path) else list(models)
    server.run(
        named([str(one) for one in given]),
        settings or Settings(),
        load=partial(
            load, device=device, engine=engine, precision=precision, tta=tta, options=options
        ),
        say=say,
        log_format=log_format,
    )
