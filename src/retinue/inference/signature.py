"""What a graph takes and gives, in a row, and how that is nested outside. Needs no PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from retinue.nested import Nested, Structure, is_tensor, leaves, rebuilt, structure

TYPES = frozenset({
    "float16", "float32", "float64", "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64", "bool",
})  # fmt: skip
"""What numbers are called that graphs take and give: as NumPy and PyTorch call them."""


@dataclass
class Signature:
    """What a traced network takes and gives. What it gives is known once it has been traced. Plain
    JSON values."""

    inputs: Structure
    input_types: list[str]
    """Of `TYPES`, as the outputs'."""
    outputs: Structure = None
    output_types: list[str] = field(default_factory=list)

    def checked(self) -> Signature:
        """Itself. Raises ValueError for what is no type, or not as many as there are leaves."""
        for nested, types in ((self.inputs, self.input_types), (self.outputs, self.output_types)):
            if not all(isinstance(one, str) and one in TYPES for one in types):
                raise ValueError(f"no types of numbers: {types}")
            rebuilt(nested, types)
        return self

    def described(self) -> dict[str, Any]:
        """As JSON values; `undescribed` is the inverse."""
        return asdict(self)

    @classmethod
    def undescribed(cls, said: Mapping[str, Any]) -> Signature:
        """The inverse of `described`. TypeError or ValueError for what is none."""
        return cls(**said).checked()

    def arrays(self, x: Nested) -> list[npt.NDArray[Any]]:
        """`x` as the graph's inputs. ValueError if it isn't nested as the example was."""
        if structure(x) != self.inputs:
            raise ValueError(f"compiled for {self.inputs}, called with {structure(x)}")
        return [_array(leaf, kind) for leaf, kind in zip(leaves(x), self.input_types, strict=True)]

    def answer(self, arrays: Sequence[npt.NDArray[Any]], x: Nested, *, own: bool = False) -> Any:
        """The graph's outputs as the network gives them, in memory of their own: arrays where `x`,
        what was asked, is one, else tensors on its device. `own`: the memory of `arrays` is nobody
        else's."""
        made = [
            np.array(array, dtype=kind, copy=None if own else True)
            for array, kind in zip(arrays, self.output_types, strict=True)
        ]
        first = leaves(x)[0]
        if not is_tensor(first):
            return rebuilt(self.outputs, made)
        torch = sys.modules["torch"]
        return rebuilt(self.outputs, [torch.from_numpy(one).to(first.device) for one in made])


def _array(leaf: Any, kind: str) -> npt.NDArray[Any]:
    if is_tensor(leaf):
        leaf = leaf.detach().to("cpu", getattr(sys.modules["torch"], kind)).numpy()
    return np.ascontiguousarray(leaf, dtype=kind)
