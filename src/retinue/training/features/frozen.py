"""The frozen part of a network: what is the same for a view of an image in every epoch.

The trunk is in eval mode and carries no dropout, so what it gives depends on the pixels alone. Its
whole state (every tap that later units need; where the head comes next, what it pools of the last
map), and what a teacher says of the same pixels, become rows, as a stage's `cache_dtype` says. A
trunk may also go on from the rows of a shorter one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from retinue import nested
from retinue.errors import MOST_NAMED, RetinueError, some
from retinue.inference.engine import Engine
from retinue.inference.engines import compile_engine
from retinue.inference.names import EngineName
from retinue.inference.tracing import evaluating
from retinue.models.network import Network, State, joined, split
from retinue.training.features.dtypes import LIMITS, Fields, Loss, finer, storage
from retinue.training.features.keys import network_code, space_key
from retinue.training.features.layouts import Layout
from retinue.training.options import CacheDtype

CHUNK = 16
"""Images that the engine takes at once: few, so that its maps stay in the processor's cache."""
MOST_SOURCES = 4
"""Images that a view can be made of."""
KEPT = 1
"""Counts up when the same features are kept otherwise."""
ERROR = "error"
"""The field of a row that has the `Loss` of its tensors, the largest of each kind."""
Size = tuple[int, int]


class NotFiniteError(RetinueError):
    """The frozen part gave NaN or infinity for the images `rows` of those that it was given;
    `names`: what these are called."""

    def __init__(self, rows: Sequence[int], names: Sequence[str] = ()) -> None:
        lines = [repr(name) for name in names]
        super().__init__(
            "the frozen part gave values that are not finite",
            where=some(lines) or "cached features",
            mend="cache_features=off, and look at the weights",
            details=lines if len(lines) > MOST_NAMED else (),
        )
        self.rows = rows


class TooCoarseError(Exception):
    """An image's features would be further from what they are than `dtype` may bring them."""

    def __init__(self, dtype: CacheDtype) -> None:
        super().__init__(
            f"as {dtype} the features of an image would change by more than {LIMITS[dtype]:.1%}"
        )
        self.dtype = dtype
        self.finer = finer(dtype)
        """What loses less."""


class Trunk(nn.Module):
    """The units of `network` from `start` on and before `cut`; where the head comes next, with the
    pooling that it begins with."""

    def __init__(self, network: Network, cut: int, start: int = 0) -> None:
        super().__init__()
        units = network.units()
        self.chain = nn.ModuleList(unit.module for unit in units[start:cut])
        self.pooling = network.pooling if cut == len(units) else None
        self._run = network.run
        self._start, self._cut = start, cut

    def forward(self, x: State) -> State:
        state = self._run(x, start=self._start, stop=self._cut)
        if self.pooling is None:
            return state
        last, taps = split(state)
        return joined(self.pooling(last), taps)


class FrozenPart:
    """The trunk of `network` before `cut`, and the teacher if there is one (`taught_by`: the hash
    of its file), as what fills a row of the cache, kept as `dtype`, and is read from it.

    `via`: cuts before that one, descending. The trunk then takes what the rows `before` it hold,
    of the first of them, and what it gives depends on how these are rounded.
    """

    def __init__(
        self,
        network: Network,
        cut: int,
        device: torch.device,
        teacher: nn.Module | None = None,
        taught_by: str | None = None,
        dtype: CacheDtype = "float16",
        via: Sequence[int] = (),
    ) -> None:
        self.cut = cut
        self.via = tuple(via)
        self.device = device
        self.dtype: CacheDtype = dtype
        self._network = network
        self._teacher = teacher
        self._taught_by = taught_by
        self._measured: dict[Size, tuple[Any, Any]] = {}

    def before(self) -> FrozenPart | None:
        """What fills the rows that this goes on from; None: it takes images."""
        if not self.via:
            return None
        cut, *others = self.via
        return FrozenPart(
            self._network, cut, self.device, self._teacher, self._taught_by, self.dtype, others
        )

    @property
    def units(self) -> int:
        """How many units run to fill a row, from where it goes on."""
        return self.cut - self._start

    def trunk(self) -> Trunk:
        """What runs them, with the weights of this moment."""
        return Trunk(self._network, self.cut, self._start)

    @property
    def _start(self) -> int:
        return self.via[0] if self.via else 0

    def key(self, size: Size, engine: str) -> str:
        """What tells this from every other part that fills rows."""
        computed = [self._identity, list(size), engine, network_code(engine), self.device.type]
        facts = [*computed, self.dtype, KEPT]
        return space_key(facts, {})

    def layout(self, size: Size) -> Layout:
        """The arrays of a row, for images of `size` (height, width): maps with channels last."""
        state, taught = self._measure(size)
        fields: list[tuple[str, str, tuple[int, ...]]] = []
        for name, value in (("state", state), ("taught", taught)):
            for k, leaf in enumerate(nested.leaves(value) if value is not None else []):
                shape = _as_rows(leaf).shape[1:]
                fields += storage(self.dtype, shape).fields(f"{name}{k}", shape)
        return Layout([*fields, (ERROR, "float32", (2,)), ("sizes", "int32", (MOST_SOURCES, 2))])

    def compile(self, inputs: State, engine: EngineName) -> Engine:
        """What runs the trunk, judged on `inputs`."""
        trunk, device = self.trunk().eval(), str(self.device)
        return compile_engine(
            trunk, inputs, engine=engine, device=device, computed=self._what, steady=True
        )

    def fields(self, engine: Engine, inputs: State, taught: Any = None) -> Fields:
        """The rows of at most `CHUNK` inputs, but for `sizes`: of normalised images, float32
        (n, 3, height, width), or of the state before the units of a trunk that goes on from there,
        with what the teacher has `taught` of its images.

        Engine and teacher always take `CHUNK` images, the last one again for those that lack: what
        they give for an image may depend on how many there are, by its last bits.

        Raises:
            NotFiniteError: a value is not finite.
            TooCoarseError: what is kept would be too far from it.
        """
        count = len(split(inputs)[0])
        inputs = whole_chunk(inputs)
        found = {"state": engine(inputs)}
        if taught is not None:
            found["taught"] = taught
        elif self._teacher is not None:
            with torch.inference_mode():
                found["taught"] = self._teacher(inputs)
        leaves = {
            f"{name}{k}": leaf[:count].detach().to("cpu", torch.float32)
            for name, value in found.items()
            for k, leaf in enumerate(nested.leaves(value))
        }
        finite = [leaf.reshape(count, -1).isfinite().all(1) for leaf in leaves.values()]
        if bad := (~torch.stack(finite).all(0)).nonzero().flatten().tolist():
            raise NotFiniteError(bad)
        fields: dict[str, npt.NDArray[Any]] = {}
        losses: list[Loss] = []
        for name, leaf in leaves.items():
            rows = _as_rows(leaf)
            kept, loss = storage(self.dtype, rows.shape[1:]).keep(name, rows)
            fields.update(kept)
            losses.append(loss)
        relative, bound = (torch.stack(each).amax(0) for each in zip(*losses, strict=True))
        if not (relative <= LIMITS[self.dtype]).all():
            raise TooCoarseError(self.dtype)
        return {**fields, ERROR: torch.stack([relative, bound], 1).numpy()}

    def state(self, fields: Fields, size: Size) -> State:
        """The trunk's state, on the device: what the unit at the cut takes."""
        state, _ = self._measure(size)
        return self._back(fields, "state", state)  # type: ignore[no-any-return]

    def taught(self, fields: Fields, size: Size) -> Any:
        """What the teacher said; None without one."""
        _, taught = self._measure(size)
        return None if taught is None else self._back(fields, "taught", taught)

    def _back(self, fields: Fields, name: str, like: Any) -> Any:
        leaves = []
        for k, leaf in enumerate(nested.leaves(like)):
            kept = storage(self.dtype, _as_rows(leaf).shape[1:])
            leaves.append(_from_rows(kept.back(f"{name}{k}", fields, self.device)))
        return nested.rebuilt(nested.structure(like), leaves)

    @cached_property
    def _identity(self) -> str:
        tensors = {
            f"{unit.name}.{name}": value
            for unit in self._network.units()[: self.cut]
            for name, value in unit.module.state_dict().items()
        }
        return space_key(self._what | {"taught by": self._taught_by}, tensors)

    @property
    def _what(self) -> dict[str, Any]:
        """What the trunk computes of its weights."""
        computed: dict[str, Any] = {
            "network": self._network.name,
            "arguments": {k: v for k, v in self._network.arguments.items() if k not in _OF_HEAD},
            "cut": self.cut,
        }
        if self.trunk().pooling is not None:
            computed["pooled"] = True
        if self.via:
            computed["via"] = list(self.via)
        return computed

    def _measure(self, size: Size) -> tuple[Any, Any]:
        """State and teacher's answer for a blank image."""
        if size not in self._measured:
            blank = torch.zeros(1, 3, *size, device=self.device)
            whole = Trunk(self._network, self.cut)
            with evaluating(self._network), torch.inference_mode():
                state = whole(blank)
                taught = None if self._teacher is None else self._teacher(blank)
            self._measured[size] = state, taught
        return self._measured[size]


def whole_chunk(inputs: State) -> State:
    """`CHUNK` rows: those of `inputs`, the last one again for what they lack."""
    lacking = CHUNK - len(split(inputs)[0])
    if lacking <= 0:
        return inputs
    return nested.mapped(
        lambda leaf: torch.cat([leaf, leaf[-1:].expand(lacking, *leaf.shape[1:])]), inputs
    )


_OF_HEAD = ("num_classes", "dropout", "drop_path", "head")
"""Arguments that a trunk does not depend on."""


def _as_rows(tensor: Tensor) -> Tensor:
    """Channels last, where there are channels and a map."""
    return tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor


def _from_rows(rows: Tensor) -> Tensor:
    """(n, channels, height, width) where there is a map."""
    return rows.permute(0, 3, 1, 2) if rows.ndim == 4 else rows
