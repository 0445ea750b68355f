"""Engines that were compiled another time, ready without PyTorch, and without building a network.

`retinue.inference.engines` compiles and proves them, and keeps them by what they compute: the same
weights in a file of another name find them, too, and any other weights do not.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

from retinue.inference.devices import compute_threads
from retinue.inference.engine import Engine, Precision, Way
from retinue.inference.engine_cache import ONCE, Choice, EngineCache, Graph
from retinue.inference.engine_keys import choice_key, facts, key_of, of_model
from retinue.inference.names import EngineName
from retinue.inference.racing import NEAR
from retinue.inference.runtimes import found
from retinue.inference.signature import Signature
from retinue.modelfile import ModelDescription
from retinue.models import known, lookup
from retinue.text import first_line

log = logging.getLogger("retinue")

GRAPHS = ("openvino", "onnxruntime")
"""Engines that run what was kept."""


class Kept(NamedTuple):
    """What answers at once."""

    engine: Engine
    settled: bool
    """Whether it is the one that was wished for; otherwise PyTorch is faster, once there is much to
    do, or nobody has timed it: until then this answers sooner than PyTorch is imported."""
    weights: str
    """The hash of the weights (`engine_keys.weights_of`) that it computes with."""


def kept_engine(
    file: Path,
    description: ModelDescription,
    wish: EngineName,
    *,
    precision: Precision = "fp32",
    cache: EngineCache | None = None,
) -> Kept | None:
    """The engine of the model file `file` on the processor that `wish` asks for, as it was compiled
    another time; None where there is none, or it cannot be had, whatever the reason. Where `auto`
    found fewer bits no faster than fp32, or their answers others, it is that, which is told."""
    cache = cache or EngineCache()
    if wish == "torch" or not cache.there():
        return None
    computed = computed_by(description)
    inputs = [("float32", (3, *description.prepared().size))]
    try:
        choice = cache.choice(choice_key(facts(computed, "", inputs, precision)), compute_threads())
        if choice is None and wish == "auto" and not cache.has_graphs():
            return None  # and a large file is not read in vain
        fastest = choice.engine if choice is not None else ""
        names = [wish] if wish != "auto" else sorted(GRAPHS, key=lambda name: name != fastest)
        if not by_known_names(computed):
            return None
        weights = cache.weights(file)
        key = key_of(facts(computed, weights, inputs, precision))
        if precision != "fp32" and wish == "auto":
            against = {} if choice is None else choice.against
            refused, worthy = cache.refused(key), worth(precision, against)
            if not refused and worthy is None:
                return None
            if refused or not worthy:
                exact = kept_engine(file, description, wish, cache=cache)
                if exact is not None and exact.settled:  # or else whoever compiles tells
                    if refused:
                        tell_refused(precision, refused)
                    else:
                        tell_not_worth(precision, against)
                return exact
        for name in names:
            graph = cache.graph(key, name) if found(name) else None
            if graph is not None and graph.proven and (way := _way(graph, choice)) is not None:
                engine = of_graph(graph, precision, way)
                settled = wish != "auto" or name == fastest
                if wish == "auto":
                    _tell(name, choice, settled)
                return Kept(engine, settled, weights)
    except Exception as error:  # damaged in whatever way: what reads it whole says so
        log.info("the cached engine is not used: %s", first_line(error, type(error).__name__))
    return None


def _tell(name: str, choice: Choice | None, settled: bool) -> None:
    """Which engine answers where any may, and why."""
    timed = "nobody has timed it" if choice is None else f"as timed before: {choice.recalled()}"
    if settled:
        log.info("engine, %s", timed, extra=ONCE)
    else:
        log.info("engine: %s answers few images, as its graph is kept; %s", name, timed)


def _way(graph: Graph, choice: Choice | None) -> Way | None:
    """The one that was the fastest, or else another in which the graph was proven: in any other it
    may say something else."""
    proven: list[Way] = [way for way in get_args(Way) if way in graph.proof["ways"]]
    if choice is not None and choice.engine == graph.engine and choice.way in proven:
        return next(way for way in proven if way == choice.way)
    return proven[0] if proven else None


def worth(precision: Precision, speeds: Mapping[str, float]) -> bool | None:
    """Whether that many images a second, by precision, speak for this one rather than for fp32;
    None where they do not tell."""
    if not {precision, "fp32"} <= speeds.keys():
        return None
    return NEAR * speeds[precision] > speeds["fp32"]


def tell_not_worth(precision: Precision, speeds: Mapping[str, float]) -> None:
    """Why it is not the one that was asked for."""
    log.warning(
        "%s is no faster than fp32 here (%.3g and %.3g images a second); going on in fp32",
        precision, speeds[precision], speeds["fp32"],
    )  # fmt: skip


def tell_refused(precision: Precision, why: Mapping[str, str]) -> None:
    """Why no engine has it, as was found another time."""
    log.warning("no engine supports %s here (%s); using fp32", precision, "; ".join(why.values()))


def computed_by(description: ModelDescription) -> dict[str, Any]:
    """What the network of a model file computes, for `engine_keys.facts`."""
    return of_model(
        description.task, description.network, description.arguments, description.task_state
    )


def network_names(computed: Mapping[str, Any]) -> list[str]:
    """Of the network, and of the one that it builds on, if there is one."""
    below = computed.get("arguments", {}).get("backbone")
    return [str(name) for name in (computed.get("network", ""), below) if name is not None]


def by_known_names(computed: Mapping[str, Any]) -> bool:
    """Whether the networks are of this package or of a library. What a script registers may be
    built otherwise the next time, under the same name and with the same weights."""
    names = network_names(computed)
    return all(name in known.networks() or lookup.of_a_library(name) for name in names)


def of_graph(graph: Graph, precision: Precision, way: Way) -> Engine:
    """What runs `graph`. Raises whatever its library raises for what it cannot run."""
    signature = Signature(**graph.signature).checked()
    if graph.kind == "openvino":
        from retinue.inference.runtimes.openvino import OpenVINOEngine, of_parts

        return OpenVINOEngine(of_parts(graph.parts), signature, precision, way)
    from retinue.inference.runtimes.onnxruntime import OnnxRuntimeEngine, session

    content: Any = bytes(graph.parts["model"])
    return OnnxRuntimeEngine(session(content), signature, precision)
