"""A model that answers in eight bits without having been exported by anybody: it is exported here,
proven, told what it costs, and kept in the user's cache for the next time."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from retinue.data.cpus import cpu_load
from retinue.documents import NotJson, parse_json
from retinue.errors import UsageError
from retinue.exporting.cost import Cost
from retinue.exporting.material import Material
from retinue.exporting.model import Order, export_model, refuse_exported
from retinue.inference.engine_cache import ONCE, Choice, EngineCache, Graph, told
from retinue.inference.engine_keys import FORMAT, key_of, versions
from retinue.inference.exported import report_of
from retinue.inference.predictor import Predictor, load
from retinue.inference.racing import first_of, race
from retinue.inference.runtimes import FORMATS, there
from retinue.weights.files import sha256

log = logging.getLogger("retinue")

IMAGES = 16
"""So many at a time are timed."""
_MODEL, _PROOF = "model", "proof"
"""The parts of what is kept: an ONNX file, and its report."""


def load_in_eight_bits(
    models: Sequence[Path],
    material: Callable[[Path], Material],
    *,
    engine: str = "auto",
    **how: Any,
) -> Predictor:
    """`retinue.inference.predictor.load` of the model files `models`, their weights and numbers in
    int8; what that costs is told. `engine`: `auto` takes the faster of those that run it, which is
    kept, as engines differ in a few answers.

    Raises as `retinue.exporting.model.export_model`, also where it costs too much; UsageError for
    PyTorch, which has no such numbers for them.
    """
    names = [one.engine for one in FORMATS["onnx"].runtimes if there(one)]
    if engine not in ("auto", *names):
        raise UsageError(
            f"the engine {engine} does not compute in int8",
            where="precision (--precision)",
            mend=f"there are {', '.join(('auto', *names))}" if names else "install 'retinue[onnx]'",
        )
    with tempfile.TemporaryDirectory(prefix="retinue-") as folder:
        files = []
        for number, model in enumerate(models):
            file = Path(folder) / str(number) / f"{model.stem}.int8.onnx"
            file.parent.mkdir()
            _prepare(model, material, file)
            files.append(file)
        if engine != "auto" or len(names) < 2:
            return load(files, engine=engine, **how)  # type: ignore[arg-type]
        cache = EngineCache()
        key = key_of({"int8": [sha256(model) for model in models], "versions": versions()})
        threads, before = torch.get_num_threads(), cpu_load()
        kept = cache.choice(key, threads)
        if kept is not None and kept.engine in names:
            log.info("engine in int8, as timed before: %s", kept.recalled(), extra=ONCE)
            return load(files, engine=kept.engine, **how)  # type: ignore[arg-type]
        made = {name: load(files, engine=name, **how) for name in names}  # type: ignore[arg-type]
    size = next(iter(made.values())).preprocessing.size
    x = torch.randn((IMAGES, 3, *size), generator=torch.Generator().manual_seed(0))
    seconds = race({name: partial(_answer, one, x) for name, one in made.items()})
    speeds = {name: IMAGES / seconds[name] for name in made}
    chosen = first_of(seconds)
    log.info("engine in int8, timed %d at a time: %s", IMAGES, told(speeds, chosen))
    called = ", ".join(model.stem for model in models)
    cache.keep_choice(
        key, threads, Choice(chosen, speeds, IMAGES, "", {}, called, time.time(), before)
    )
    return made[chosen]


def _answer(predictor: Predictor, x: torch.Tensor) -> None:
    for _ in predictor.outputs(x):
        pass


def _prepare(model: Path, material: Callable[[Path], Material], file: Path) -> None:
    """Write `model` to `file` in int8, with its report, as it was kept or as it is made now."""
    refuse_exported(model)
    cache = EngineCache()
    key = key_of({"format": FORMAT, "int8": sha256(model), "versions": versions()})
    graph = cache.graph(key, "onnxruntime")
    report = None if graph is None else _report(graph)
    if graph is None or report is None:
        log.info("choosing ranges for int8, once for these weights")
        done = export_model(model, Order(to="onnx", precision="int8"), material(model), out=file)
        report = done.report
        parts = {_MODEL: file.read_bytes(), _PROOF: report_of(file).read_bytes()}
        cache.keep_graph(key, Graph("onnxruntime", "onnx", parts, {}, {}))
    else:
        file.write_bytes(graph.parts[_MODEL])
    said = {name: value for name, value in report["cost"].items() if name != "loss"}
    log.warning("int8 costs %s, by %s", Cost(**said).told(), report["engine"]["name"])


def _report(graph: Graph) -> Mapping[str, Any] | None:
    """What was proven of it; None where that is no report."""
    try:
        found = parse_json(bytes(graph.parts[_PROOF]))
        Cost(**{name: value for name, value in found["cost"].items() if name != "loss"})
        return found if _MODEL in graph.parts and found["engine"]["name"] else None
    except (NotJson, KeyError, TypeError, AttributeError):
        return None
