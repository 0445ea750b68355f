"""What the registry and the catalogue state is what torchvision and timm state."""

from __future__ import annotations

import enum
import math
from types import SimpleNamespace
from typing import Any

import pytest

from retinue.models import registry
from retinue.weights import catalogue
from retinue.weights.catalogue import Hub, Url

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def torchvision_weights(references: SimpleNamespace) -> dict[str, Any]:
    """Its published weights by the name of their file."""
    models = vars(references.torchvision.models).values()
    sets = [v for v in models if isinstance(v, type) and issubclass(v, enum.Enum)]
    return {w.url.rsplit("/", 1)[1]: w for s in sets for w in s if hasattr(w, "url")}


@pytest.fixture(scope="module")
def timm_weights(references: SimpleNamespace) -> dict[str, Any]:
    """Its configurations by the name of the file, and by the repository on the hub."""
    timm = references.timm
    found = {}
    for name in timm.list_pretrained():
        published = timm.models.get_pretrained_cfg(name)
        for place in ((published.url or "").rsplit("/", 1)[-1], published.hf_hub_id):
            if place:
                found.setdefault(place, published)
    return found


def addresses(kind: type) -> list[Any]:
    return [
        pytest.param(entry, place, id=f"{entry.network}-{entry.tag}")
        for entry in catalogue.entries()
        for place in entry.places
        if isinstance(place, kind)
    ]


@pytest.mark.parametrize(("entry", "place"), addresses(Url))
def test_addresses(entry, place, torchvision_weights, timm_weights) -> None:
    network = registry.find(entry.network)
    prepared = entry.preprocessing or network.preprocessing
    file = place.url.rsplit("/", 1)[1]
    if file in torchvision_weights:
        published = torchvision_weights[file]
        view = published.transforms()
        assert place.url == published.url
        resized = math.floor(prepared.size[0] / prepared.crop_fraction + 1e-9)
        assert (list(prepared.size[:1]), [resized]) == (view.crop_size, view.resize_size)
        assert prepared.interpolation == view.interpolation.value
        assert (list(prepared.mean), list(prepared.std)) == (view.mean, view.std)
        accuracy = published.meta["_metrics"]["ImageNet-1K"]
        assert entry.top1 == pytest.approx(accuracy["acc@1"] / 100, abs=1e-9)
        assert entry.top5 == pytest.approx(accuracy["acc@5"] / 100, abs=1e-9)
        return
    published = timm_weights[file]
    assert (prepared.mean, prepared.std) == (published.mean, published.std)
    if entry.network in ("tf_efficientnet_lite3", "tf_efficientnet_lite4"):
        return  # trained at 280 and 300 pixels by Google; timm shows them larger images
    assert prepared.size == published.input_size[1:]
    assert prepared.interpolation == published.interpolation
    assert prepared.crop_fraction == pytest.approx(published.crop_pct, abs=2e-3)


@pytest.mark.parametrize(("entry", "place"), addresses(Hub))
def test_hub_places(entry, place, timm_weights) -> None:
    published = timm_weights[place.repo]
    prepared = entry.preprocessing or registry.find(entry.network).preprocessing
    assert prepared.size == published.input_size[1:]
    assert (prepared.mean, prepared.std) == (published.mean, published.std)
    assert prepared.interpolation == published.interpolation
    assert prepared.crop_fraction == published.crop_pct
