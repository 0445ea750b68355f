"""What reading weights gives, whatever they lie in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from retinue.sample import Preprocessing


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a file or folder of weights holds."""

    tensors: dict[str, Tensor] = field(repr=False)
    """By the names of whoever wrote them."""
    paths: tuple[Path, ...] = ()
    """The files that they lie in."""
    preprocessing: Preprocessing | None = None
    """None: nothing is said of it."""
    network: str | None = None
    """Of a model file: the registered name of the network."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Of the network, as far as something is said of them."""
    classes: tuple[str, ...] = ()
    """Their names in order, as far as they are told."""
    remark: str = ""
    """For people, where something could not be taken over."""
