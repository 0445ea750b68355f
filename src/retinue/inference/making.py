"""Engines for one network: each compiled, proven on real inputs, and kept between runs."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from retinue.errors import UsageError
from retinue.inference.agreement import TOLERANCE, Agreement, Scores, compare
from retinue.inference.eager import TorchEngine, folded
from retinue.inference.engine import Engine, Precision, Way, refuse_bf16
from retinue.inference.engine_cache import ENOUGH, Choice, EngineCache, Graph
from retinue.inference.engine_keys import choice_key, facts, key_of, weights_of
from retinue.inference.kept import by_known_names, network_names
from retinue.inference.tracing import Signature, onnx_program, openvino_model
from retinue.models import registry
from retinue.models.heads import head_builder
from retinue.nested import Nested, leaves, mapped
from retinue.tasks.task import task_type
from retinue.text import first_line

log = logging.getLogger("retinue")

MOST_ONNX = 2_000_000_000
"""Bytes of a network whose ONNX file is in one piece, as the format allows no more."""
_KNOWN = ("retinue.", "torch.", "timm.")
"""Packages whose versions are told."""
_KINDS = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""What safetensors call types."""


class RefusedError(Exception):
    """Why an engine cannot be had."""


class Making:
    """What engines for `module` are made of, and the place where they are kept.

    The arguments are those of `retinue.inference.engines.compile_engine`.
    """

    def __init__(
        self,
        module: nn.Module,
        example: Nested,
        precision: Precision = "fp32",
        scores: Scores | None = None,
        computed: Mapping[str, Any] | None = None,
        steady: bool = False,
    ) -> None:
        self.module, self.example, self.precision = module, example, precision
        self.computed = computed
        self.steady = steady
        self._seconds = 0.0
        self._scores = scores
        self._cache = EngineCache()
        self._models: dict[str, tuple[Any, Signature]] = {}
        self._there: dict[str, Graph] = {}
        """Those that are kept, without their parts."""
        self._proven: dict[str, dict[str, Agreement]] = {}

    @cached_property
    def expected(self) -> Any:
        """What the module says of the example."""
        began = time.perf_counter()
        said = TorchEngine(self.module)(self.example)
        self._seconds = (time.perf_counter() - began) / max(len(leaves(self.example)[0]), 1)
        return said

    @property
    def finite(self) -> bool:
        """Whether all of that is finite."""
        return all(bool(leaf.isfinite().all()) for leaf in leaves(self.expected))

    @property
    def seconds(self) -> float:
        """That PyTorch has taken for an image."""
        assert self.expected is not None
        return max(self._seconds, 1e-6)

    @property
    def called(self) -> str:
        """The network's name; empty where it is not known."""
        return str((self.computed or {}).get("network", ""))

    def repeated(self, count: int) -> Any:
        """`count` images: those of the example, over and over."""
        rows = torch.arange(count) % len(leaves(self.example)[0])
        return mapped(lambda leaf: leaf[rows], self.example)

    def kept(self, name: str, way: Way) -> Engine | None:
        """The engine of that name, of a graph that was kept, and had been proven then. None where
        there is none."""
        try:
            graph = None if self._key is None else self._cache.graph(self._key, name)
            if graph is None:
                return None
            self._models[name] = _opened(graph), Signature.undescribed(graph.signature)
            self._there[name] = replace(graph, parts={})
            # In another way, or for other images, it may say something else: it is proven anew, if
            # not converted.
            proven = graph.proven and way in graph.proof["ways"]
            return self._engine(name, way) if proven else None
        except Exception as error:
            log.info("recompiling the cached engine %s: %s", name, first_line(error))
            self._models.pop(name, None)
            self._there.pop(name, None)
            return None

    def lacks(self, name: str) -> bool:
        """Whether a graph for that engine could be kept, and none is that has been proven."""
        weights = self.module.state_dict().values()
        if self._key is None or not self._cache.takes(sum(one.nbytes for one in weights)):
            return False
        graph = self._cache.graph(self._key, name)
        return graph is None or not graph.proven

    def fresh(self, name: str, way: Way) -> Engine:
        """The engine of that name, which agrees with the module on the example. UsageError where
        it has not the precision here, RefusedError where it cannot run the network, or
        disagrees."""
        if name == "torch" and self.precision == "fp32":
            return self._eager()
        try:
            return self._agreeing(name, way)
        except RefusedError as error:
            if self._there.pop(name, None) is None:
                raise
            log.info("recompiling the cached engine %s: %s", name, error)
            del self._models[name]
            self._proven.pop(name, None)
            return self._agreeing(name, way)

    def _agreeing(self, name: str, way: Way) -> Engine:
        try:
            made = self._engine(name, way)
            agreement = self._agreement(made)
        except UsageError:
            raise
        except Exception as error:
            said = f"{type(error).__name__}: {first_line(error)}"
            raise RefusedError(f"{name} cannot compile this network: {said}") from error
        if not agreement.accepted:
            called = name if self.precision == "fp32" else f"{name} in {self.precision}"
            raise RefusedError(f"{called} disagrees with torch: {agreement}")
        self._proven.setdefault(name, {})[way] = agreement
        return made

    def keep(self) -> None:
        """Keep the graphs that have been proven."""
        for name, proven in self._proven.items():
            if self._key is None or name == "torch":
                continue
            proof = _proof(self._there.get(name), proven, self._images)
            if proof is None:
                continue
            model, signature = self._models[name]
            kind, parts = "onnx", {"model": model}
            if name == "openvino":
                from retinue.inference.runtimes.openvino import parts_of

                kind, parts = name, parts_of(model)
            graph = Graph(name, kind, parts, signature.described(), proof)
            self._cache.keep_graph(self._key, graph)
            self._there[name] = replace(graph, parts={})

    @property
    def _images(self) -> int:
        """How many different ones the example has: one over and over proves no more than once."""
        return len({bytes(_bytes(row)) for row in leaves(self.example)[0]})

    def choice(self) -> Choice | None:
        """What was the fastest another time, with as many threads."""
        key = None if self._facts is None else choice_key(self._facts)
        return None if key is None else self._cache.choice(key, torch.get_num_threads())

    def refused(self) -> Mapping[str, str]:
        """Why no engine could be had another time; empty where one could, or nobody has tried."""
        return {} if self._key is None else self._cache.refused(self._key)

    def keep_refused(self, why: Mapping[str, str]) -> None:
        """For the next time."""
        if self._key is not None and why:
            self._cache.keep_refused(self._key, why)

    def keep_choice(self, choice: Choice) -> None:
        """For the next time."""
        if self._facts is not None:
            self._cache.keep_choice(choice_key(self._facts), torch.get_num_threads(), choice)

    @cached_property
    def _facts(self) -> dict[str, Any] | None:
        if self.computed is None:
            return None
        inputs = [(str(x.dtype).removeprefix("torch."), x.shape[1:]) for x in leaves(self.example)]
        return facts(self.computed, weights_in(self.module), inputs, self.precision)

    @cached_property
    def _key(self) -> str | None:
        """None for a network that is not all the package's own, or timm's: what it computes may
        change while its weights and its name stay, and nobody would know."""
        if self.computed is None or not by_known_names(self.computed):
            return None
        where = {type(part).__module__ for part in self.module.modules()}
        for builder in _builders(self.computed):
            where.update(_written_in(builder))
        own = all(module.startswith(_KNOWN) for module in where)
        return key_of(self._facts) if own and self._facts is not None else None

    def _engine(self, name: str, way: Way) -> Engine:
        if name == "torch":
            return TorchEngine(self._eager().module, precision=self.precision)
        if name == "openvino":
            from retinue.inference.runtimes.openvino import OpenVINOEngine, core

            refuse_bf16(self.precision, core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
            if name not in self._models:
                self._models[name] = openvino_model(self.module, self.example)
            count = len(leaves(self.example)[0])
            return OpenVINOEngine(*self._models[name], self.precision, way, images=count)
        from retinue.inference.runtimes.onnxruntime import OnnxRuntimeEngine, session

        refuse_bf16(self.precision, [])
        if name not in self._models:
            self._models[name] = self._onnx()
        model, signature = self._models[name]
        return OnnxRuntimeEngine(session(model), signature, self.precision)

    def _eager(self) -> TorchEngine:
        """A copy with less to do; the module itself where there cannot be one, where it says
        something else, or where its last bits matter."""
        if self.steady:
            return TorchEngine(self.module)
        try:
            made = TorchEngine(folded(self.module, self.example))
            if self._agreement(made).accepted:
                return made
        except Exception as error:
            log.debug("no BatchNorm is folded: %s", first_line(error))
        return TorchEngine(self.module)

    def _agreement(self, engine: Engine) -> Agreement:
        said, tolerance = engine(self.example), TOLERANCE[self.precision]
        return compare(said, self.expected, tolerance, scores=self._scores)

    def _onnx(self) -> tuple[Any, Signature]:
        """The content of an ONNX file."""
        program, signature = onnx_program(self.module, self.example)
        with tempfile.TemporaryDirectory(prefix="retinue-") as folder:
            file = Path(folder) / "model.onnx"
            size = sum(t.numel() * t.element_size() for t in self.module.state_dict().values())
            if size > MOST_ONNX:
                raise RefusedError(f"{size / 1e9:.1f} GB do not fit into one ONNX file")
            program.save(str(file))
            return file.read_bytes(), signature


def _builders(computed: Mapping[str, Any]) -> Iterator[Any]:
    """All that had a hand in building the network."""
    for name in network_names(computed):
        entry = registry.find(name)
        yield entry.build
        if entry.made_by is not None:
            yield entry.made_by
    if (head := computed.get("arguments", {}).get("head")) is not None:
        yield head_builder(head["name"])
    if "task" in computed:
        yield task_type(computed["task"])


def _written_in(builder: Any) -> Iterator[str]:
    """The modules of the code that a call of `builder` goes through. What a function says of itself
    does not count: a wrapper says what that says which it wraps."""
    while builder is not None:
        if isinstance(builder, type):
            yield builder.__module__
            return
        if isinstance(builder, partial):
            builder = builder.func
            continue
        function = getattr(builder, "__func__", builder)  # of a method
        module = getattr(function, "__globals__", {}).get("__name__", type(function).__module__)
        if module != "functools":  # a cache, say
            yield str(module)
        builder = getattr(function, "__wrapped__", None)


def _proof(
    before: Graph | None, proven: Mapping[str, Agreement], images: int
) -> dict[str, Any] | None:
    """What is known of a graph that was `proven` in these ways on so many images; None where that
    is no more than was known `before`."""
    error = max(one.error for one in proven.values())
    new = {"images": images, "error": error, "ways": sorted(proven)}
    if before is None:
        return new
    known = before.proof
    if not before.proven:
        return new if images > known["images"] else None
    if images < ENOUGH or {*proven} <= {*known["ways"]}:
        return None
    return {
        "images": min(images, known["images"]),
        "error": max(error, known["error"]),
        "ways": sorted({*proven, *known["ways"]}),
    }


def weights_in(module: nn.Module) -> str:
    """`engine_keys.weights_of` the tensors of `module`: what a file that they were read from has,
    too."""
    return weights_of(
        [
            (name, _KINDS[tensor.dtype], tuple(tensor.shape), _bytes(tensor))
            for name, tensor in module.state_dict().items()
        ]
    )


def _opened(graph: Graph) -> Any:
    """What engines are made of, of a graph that was kept."""
    if graph.kind == "onnx":
        return bytes(graph.parts["model"])
    from retinue.inference.runtimes.openvino import of_parts

    return of_parts(graph.parts)


def _bytes(tensor: torch.Tensor) -> memoryview:
    whole = tensor.detach().cpu().contiguous().reshape(-1)
    return whole.view(torch.uint8).numpy().data
