"""The zoo's networks as small as each family gets, for tests that compute, save and load.

Some families have no small member: of those there are thin ones, whose code is the family's own
and whose widths nobody has published.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

from retinue.models import registry
from retinue.models.blocks import HiddenLayersHead
from retinue.models.darknet53 import DarkNet53
from retinue.models.hybrid_vit import HybridVisionTransformer
from retinue.models.network import Network
from retinue.models.registry import NetworkEntry, create_model, find, list_models
from retinue.models.vgg import VGG
from retinue.models.vit import VisionTransformer
from retinue.models.xception import Xception

ENTRIES = [find(name) for name in list_models(kind="classifier")]


def _entry(name: str, like: str, build: Callable[..., Network]) -> NetworkEntry:
    return replace(find(like), name=name, build=build)


def _narrow(build: Callable[..., Network], **constants: Any) -> Callable[..., Network]:
    """`build` with other values of its module's constants; they count while it is built."""
    module = sys.modules[getattr(build, "func", build).__module__]

    @functools.wraps(build)
    def narrow(**keywords: Any) -> Network:
        with patch.multiple(module, **constants):
            return build(**keywords)

    return narrow


THIN = {
    entry.name: entry
    for entry in (
        _entry(
            "darknet_thin",
            "darknet53",
            _narrow(DarkNet53, STAGES=((24, 1), (32, 2), (48, 3), (64, 2), (96, 1))),
        ),
        _entry(
            "vgg_thin",
            "vgg11",
            _narrow(
                partial(VGG, depth=11),
                WIDTHS=(16, 24, 32, 48, 64),
                HiddenLayersHead=partial(HiddenLayersHead, hidden=(96, 64)),
            ),
        ),
        _entry(
            "vit_thin",
            "vit_base_patch16",
            partial(VisionTransformer, patch=16, width=48, depth=3, heads=3),
        ),
        _entry(
            "vit_thin_r50",
            "vit_base_r50_s16",
            _narrow(
                partial(HybridVisionTransformer, width=48, depth=2, heads=3),
                DEPTHS=(2, 2, 3),
                WIDTHS=(128, 256, 512),
            ),
        ),
        _entry(
            "xception_thin",
            "xception",
            _narrow(
                Xception,
                ENTRY=((32, 32), (48, 48), (64, 64)),
                MIDDLE=((64, 64, 64),) * 2,
                EXIT=(64, 96),
                TOP=(112, 128),
            ),
        ),
    )
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


def register(monkeypatch: Any) -> None:
    """Make the thin networks known for one test."""
    monkeypatch.setattr(registry, "_ENTRIES", {**registry._ENTRIES, **THIN})


def build(name: str, *, weights: Any = None, **arguments: Any) -> Network:
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
