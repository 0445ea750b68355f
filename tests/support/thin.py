"""The zoo's networks as small as each family gets, for tests that compute, save and load.

Three families have no small member: of those there are thin ones, whose code is the family's own
and whose widths nobody has published.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import partial
from unittest.mock import patch

from retinue.models import registry, vgg
from retinue.models.blocks import HiddenLayersHead
from retinue.models.hybrid_vit import HybridVisionTransformer
from retinue.models.network import Network
from retinue.models.registry import create_model, find, list_models
from retinue.models.vit import VisionTransformer

ENTRIES = [find(name) for name in list_models()]


def _vgg(*, num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5) -> Network:
    """VGG-11 with narrow hidden layers, of which the published one's are nine tenths."""
    narrow = partial(HiddenLayersHead, hidden=(96, 64))
    with patch.object(vgg, "HiddenLayersHead", narrow):
        return vgg.VGG(depth=11, num_classes=num_classes, in_channels=in_channels, dropout=dropout)


THIN = {
    "vgg_thin": replace(find("vgg11"), name="vgg_thin", build=_vgg),
    "vit_thin": replace(
        find("vit_base_patch16"),
        name="vit_thin",
        build=partial(VisionTransformer, patch=16, width=48, depth=3, heads=3),
    ),
    "vit_thin_r50": replace(
        find("vit_base_r50_s16"),
        name="vit_thin_r50",
        build=partial(HybridVisionTransformer, width=48, depth=2, heads=3),
    ),
}
_FAMILIES = {entry.family for entry in ENTRIES}
SMALLEST = {
    family: min((e for e in ENTRIES if e.family == family), key=lambda e: (e.parameters, e.name))
    for family in _FAMILIES
}
SMALL = sorted(
    next((name for name, thin in THIN.items() if thin.family == family), entry.name)
    for family, entry in SMALLEST.items()
)
"""One of each family, the one with the fewest parameters."""


def register(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Make the thin networks known for one test."""
    monkeypatch.setattr(registry, "_ENTRIES", {**registry._ENTRIES, **THIN})


def build(name: str, *, weights: object = None, **arguments: object) -> Network:
    """With few classes and nothing dropped, as far as the network knows the keywords."""
    known = {*inspect.signature(find(name).build).parameters, "head"}
    given = {"num_classes": 5, "dropout": 0.0, "drop_path": 0.0, **arguments}
    kept = {k: v for k, v in given.items() if k in known}
    return create_model(name, weights=weights, **kept)


def size(name: str, height: int = 96, width: int = 64) -> tuple[int, int]:
    """A size that the network takes, and this one if it can."""
    if name.startswith("alexnet"):
        return 128, 96
    return {"vit_huge_patch14": (84, 56), "mnist_cnn": (28, 28)}.get(name, (height, width))
