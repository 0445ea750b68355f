"""What a predictor asks: a network of a model file, or an exported file, with what its outputs
mean."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from retinue import modelfile
from retinue.documents import json_text, parse_json
from retinue.errors import RetinueError, UsageError
from retinue.inference import runtimes
from retinue.inference.devices import choose_device, fit_threads
from retinue.inference.engine import Engine, Precision
from retinue.inference.exported import Export, open_exported
from retinue.inference.intake import Framed, Intake, Whole
from retinue.inference.kept import Kept, computed_by, kept_engine
from retinue.inference.names import EngineName
from retinue.modelfile import ModelDescription
from retinue.tasks.task import Task, described

if TYPE_CHECKING:  # an exported file answers without torch
    from torch import Tensor

    from retinue.models.network import Network


log = logging.getLogger("retinue")


class Asked(Protocol):
    """What a predictor knows of each of its members."""

    @property
    def has_network(self) -> bool:
        """Whether there is one to look into."""

    @property
    def network(self) -> Network:
        """In eval mode. UsageError where there is none."""

    @property
    def task(self) -> Task:
        """What its outputs mean."""

    @property
    def description(self) -> ModelDescription:
        """As of the model file."""

    @property
    def settled(self) -> bool:
        """Whether nothing is compiled any more."""

    @property
    def intake(self) -> Intake:
        """How images come to it."""

    def plain(self, device: str) -> Engine:
        """What answers at once."""

    def compiled(
        self, example: Tensor, engine: EngineName, device: str, precision: Precision = "fp32"
    ) -> Engine:
        """What answers faster, judged on `example`; see `retinue.inference.engines`."""


@dataclass(frozen=True)
class Member:
    """A network and what its outputs mean."""

    network: Network
    task: Task
    description: ModelDescription
    said_whole: bool = False
    """Whether the description says all that the task knows once its network is built: then an
    engine that is kept answers without the network."""
    has_network: ClassVar[bool] = True

    @property
    def settled(self) -> bool:
        """See `Asked`."""
        return False

    @property
    def intake(self) -> Intake:
        """See `Asked`."""
        return Framed(self.description.prepared())

    def plain(self, device: str) -> Engine:
        """See `Asked`: PyTorch."""
        from retinue.inference.engines import TorchEngine

        return TorchEngine(self.network, device=device)

    def compiled(
        self, example: Tensor, engine: EngineName, device: str, precision: Precision = "fp32"
    ) -> Engine:
        """See `Asked`."""
        from retinue.inference.engines import compile_engine

        return compile_engine(
            self.network,
            example,
            engine=engine,
            device=device,
            precision=precision,
            scores=self.task.scores,
            computed=computed_by(self.description) if self.said_whole else None,
        )


class KeptMember:
    """A model file of which an engine was compiled another time. The network is built only where
    somebody asks for it, of the file as it is then: what is no longer the model that answers is
    refused."""

    has_network = True

    def __init__(
        self,
        file: Path,
        kept: Kept,
        task: Task,
        description: ModelDescription,
        whole: Callable[[], Member],
    ) -> None:
        """`whole`: reads `file` and builds its network."""
        self.task, self.description, self.settled = task, description, kept.settled
        self._file, self._kept, self._whole = file, kept, whole

    @cached_property
    def member(self) -> Member:
        """The same with its network. RetinueError where the file holds another model by now, or
        none."""
        from retinue.inference.making import weights_in

        why = ""
        try:
            member = self._whole()
            same = weights_in(member.network) == self._kept.weights
            if same and member.description == self.description:
                return member
        except RetinueError as error:
            why = f": {error.what}"
        raise RetinueError(
            f"the model file has changed since it was loaded{why}",
            where=str(self._file),
            mend="load the model again",
        )

    @property
    def network(self) -> Network:
        """See `Asked`."""
        return self.member.network

    @property
    def intake(self) -> Intake:
        """See `Asked`."""
        return Framed(self.description.prepared())

    def plain(self, device: str) -> Engine:
        """See `Asked`: what was kept."""
        return self._kept.engine

    def compiled(
        self, example: Tensor, engine: EngineName, device: str, precision: Precision = "fp32"
    ) -> Engine:
        """See `Asked`. Where the file has changed it is what was kept: that still is the model that
        was loaded, if slower than another engine would be."""
        try:
            member = self.member
        except RetinueError as error:
            log.warning("%s; going on with what was compiled of it before", error)
            return self._kept.engine
        return member.compiled(example, engine, device, precision)


@dataclass(frozen=True)
class ExportedMember:
    """An exported file and what its outputs mean."""

    file: Path
    export: Export
    runs: Engine
    task: Task
    description: ModelDescription
    has_network: ClassVar[bool] = False

    @classmethod
    def of_graph(cls, file: Path, export: Export, runs: Engine, member: Member) -> ExportedMember:
        """What an export of `member` to whole images is to be: its graph, run by PyTorch."""
        return cls(file, export, runs, _ended(member.task), member.description)

    @property
    def network(self) -> Network:
        """See `Asked`: none."""
        raise UsageError(
            "an exported file answers, but cannot be looked into or trained",
            where=str(self.file),
            mend="name the model file (.safetensors) that it was exported from",
        )

    @property
    def settled(self) -> bool:
        """See `Asked`."""
        return True

    @property
    def intake(self) -> Intake:
        """See `Asked`."""
        how = self.description.prepared()
        return Whole(how) if self.export.input == "pixels" else Framed(how)

    def plain(self, device: str) -> Engine:
        """See `Asked`: the format's own runtime."""
        return self.runs

    def compiled(
        self, example: Tensor, engine: EngineName, device: str, precision: Precision = "fp32"
    ) -> Engine:
        """See `Asked`: it is compiled already."""
        return self.runs


def device_for(files: Sequence[Path], wish: str) -> str:
    """The device that `wish` means. `auto` is the processor where a file is an export: these run
    elsewhere only if one says so."""
    exported = any(runtimes.format_of(file) is not None for file in files)
    return choose_device("cpu" if exported and wish == "auto" else wish)


def open_member(
    file: Path,
    device: str,
    engine: EngineName,
    options: Mapping[str, Any],
    precision: Precision = "fp32",
) -> Asked:
    """The model file or exported file `file`. Raises as `retinue.inference.predictor.load`."""
    form = runtimes.format_of(file)
    if form is None:
        runtimes.refuse_part(file)
        kept = _kept_member(file, engine, options, precision) if device == "cpu" else None
        return kept or _of_model_file(file, device, options)
    export, description, runs = open_exported(file, form, device, engine)
    with _naming(file):
        task = _task(description, options)
    if export.input == "pixels":
        task = _ended(task)
    return ExportedMember(file, export, runs, task, description)


def _ended(task: Task) -> Task:
    """The same task for what its `ending` gives in place of the network's outputs."""
    made = copy.copy(task)

    def refuse() -> None:
        raise UsageError(
            "an export with the answers in the graph does not say what they rest on",
            mend="leave the heat map out, or name the model file",
        )

    # Its own findings, and everything that is made of them, stay as they are.
    made.decode = task.ended  # type: ignore[method-assign]
    made.scores = lambda outputs: []  # type: ignore[method-assign]
    made.refuse_evidence = refuse  # type: ignore[method-assign]
    return made


def _task(description: ModelDescription, options: Mapping[str, Any]) -> Task:
    task = described(description)
    return task.adjusted(options) if options else task


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Errors name the file."""
    try:
        yield
    except RetinueError as error:
        error.name(str(file))
        raise


def _kept_member(
    file: Path, engine: EngineName, options: Mapping[str, Any], precision: Precision
) -> KeptMember | None:
    description = modelfile.read_description(file)
    kept = kept_engine(file, description, engine, precision=precision)
    # Between the two the file may have been replaced: then the weights are not the description's.
    if kept is None or modelfile.read_description(file) != description:
        return None
    with _naming(file):
        task = _task(description, options)
    return KeptMember(file, kept, task, description, partial(_of_model_file, file, "cpu", options))


def _of_model_file(file: Path, device: str, options: Mapping[str, Any]) -> Member:
    import torch

    fit_threads()  # to which PyTorch listens from now on
    description, tensors = modelfile.read(file)
    with _naming(file):
        sketched, task = described(description), _task(description, options)
        # Without memory first: a description may speak of more than the file, or the machine, has.
        with torch.device("meta"):
            sketch = sketched.build(description.network, dict(description.arguments), None)
        said_whole = parse_json(json_text(sketched.state())) == description.task_state
        _compare(sketch.state_dict(), tensors)
        with torch.random.fork_rng(devices=[]):  # fresh weights are drawn, and replaced at once
            network = task.build(description.network, dict(description.arguments), None)
    network.load_state_dict(tensors, strict=True)
    network.eval().to(device)
    return Member(network, task, description, said_whole)


def _compare(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Raise RetinueError unless `tensors` have the names and shapes of the `expected` ones."""
    missing = [key for key in expected if key not in tensors]
    surplus = [key for key in tensors if key not in expected]
    other = [k for k in expected if k in tensors and expected[k].shape != tensors[k].shape]
    problems = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', …' if len(keys) > 3 else ''})"
        for what, keys in (
            ("missing", missing),
            ("unexpected", surplus),
            ("of another shape", other),
        )
        if keys
    ]
    if problems:
        raise RetinueError(
            f"the tensors do not fit the model's own description: {', '.join(problems)}",
            mend="copy it anew from where it was made",
        )
