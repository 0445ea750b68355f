"""What is known of the networks without building any, nor importing PyTorch: `zoo.json`, which
`python -m retinue.models.packing` writes from the registry, and a test compares with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from retinue.documents import parse_json

FILE = "zoo.json"
"""Beside this file: an object, a line a network."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What there is to tell of a network. The facts themselves are declared by the registry's
    entries, the catalogue's layouts and the networks' own forward pass."""

    name: str
    family: str
    kind: str
    parameters: int
    macs: int
    preprocessing: Mapping[str, Any]
    """As `sample.Preprocessing.as_dict` gives it, that of the network's native size."""
    prepared: Mapping[str, Mapping[str, Any]]
    """Tag of published weights → how images are prepared for them."""
    paper: str
    reference: str
    stages: list[dict[str, Any]]
    """`models.anatomy.StageAnatomy` of each; empty where nobody knows what goes from each to the
    next."""
    units: list[dict[str, Any]]
    """`name` and `parameters` of each link of the chain, the head last."""
    features: list[dict[str, Any]]
    """`name` (C1 …), `channels` and `stride` of each feature level."""


@cache
def networks() -> Mapping[str, Facts]:
    """Those of the zoo, by name; none of another library."""
    text = (resources.files("retinue.models") / FILE).read_text(encoding="utf-8")
    return {name: Facts(name=name, **values) for name, values in parse_json(text).items()}
