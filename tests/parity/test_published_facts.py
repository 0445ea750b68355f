"""What the catalogue states is what torchvision, timm and Keras state."""

from __future__ import annotations

import enum
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from retinue.models import registry
from retinue.sample import Preprocessing
from retinue.weights import catalogue
from retinue.weights.catalogue import Hub, Url, WeightsEntry

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


@pytest.fixture(scope="module")
def keras_weights(references) -> dict[str, str]:
    """The MD5 that the source of keras.applications states, "" if none, by the file's name."""
    folder = Path(references.keras.__file__).parent / "src" / "applications"
    source = {
        name: (folder / f"{name}.py").read_text()
        for name in (
            "vgg16", "vgg19", "xception", "resnet", "mobilenet", "mobilenet_v2", "mobilenet_v3",
            "efficientnet",
        )
    }  # fmt: skip
    kernels = "_weights_tf_dim_ordering_tf_kernels"
    found = {}
    for name in ("vgg16", "vgg19", "xception"):
        address = re.search(r"WEIGHTS_PATH = \((.*?)\)", source[name], re.DOTALL)
        assert address
        assert f"{name}{kernels}.h5" in "".join(re.findall(r'"(.*?)"', address[1]))
        md5 = re.search(r'WEIGHTS_PATH,.*?file_hash="(\w+)"', source[name], re.DOTALL)
        assert md5
        found[f"{name}{kernels}.h5"] = md5[1]
    for module, file in (
        ("resnet", f"{{}}{kernels}.h5"),
        ("mobilenet_v3", "weights_mobilenet_v3_{}.h5"),
        ("efficientnet", "efficientnet{}.h5"),
    ):
        table = re.search(r"WEIGHTS_HASHES = \{(.*?)\n\}", source[module], re.DOTALL)
        assert table
        for key, md5 in re.findall(r'"([\w.]+)": \(\s*"(\w{32})"', table[1]):
            found[file.format(key)] = md5
    for width in ("1_0", "7_5", "5_0", "2_5"):
        assert f'"{width}"' in source["mobilenet"]
        found[f"mobilenet_{width}_224_tf.h5"] = ""
    for width in ("0.35", "0.5", "0.75", "1.0", "1.4"):
        found[f"mobilenet_v2{kernels}_{width}_224.h5"] = ""
    assert "file_hash" not in source["mobilenet"] + source["mobilenet_v2"]
    return found


def prepared(entry: WeightsEntry) -> Preprocessing:
    return registry.find(entry.network).prepared(entry)


def addresses(kind: type, part: str = "") -> list[Any]:
    return [
        pytest.param(entry, place, id=f"{entry.network}-{entry.tag}")
        for entry in catalogue.entries()
        for place in entry.places
        if isinstance(place, kind) and part in getattr(place, "url", part)
    ]


@pytest.mark.parametrize(("entry", "place"), addresses(Url, "download.pytorch.org"))
def test_torchvision(entry, place, torchvision_weights) -> None:
    published = torchvision_weights[place.url.rsplit("/", 1)[1]]
    view, ours = published.transforms(), prepared(entry)
    assert place.url == published.url
    resized = math.floor(ours.size[0] / ours.crop_fraction + 1e-9)
    assert (list(ours.size[:1]), [resized]) == (view.crop_size, view.resize_size)
    assert ours.interpolation == view.interpolation.value
    mean, std = view.mean, view.std
    if entry.network == "googlenet":  # whose `transform_input` goes on to this
        mean = std = [0.5, 0.5, 0.5]
    assert (list(ours.mean), list(ours.std)) == (mean, std)
    accuracy = published.meta["_metrics"]["ImageNet-1K"]
    assert entry.top1 == pytest.approx(accuracy["acc@1"] / 100, abs=1e-9)
    assert entry.top5 == pytest.approx(accuracy["acc@5"] / 100, abs=1e-9)
    assert ("SWAG" in published.meta.get("license", "")) == ("SWAG" in entry.licence)


def test_all_of_torchvisions_sets_are_there(torchvision_weights) -> None:
    """Of the families that are in both."""
    places = [place for entry in catalogue.entries() for place in entry.places]
    ours = {place.url.rsplit("/", 1)[1] for place in places if isinstance(place, Url)}
    others = ("wide_", "resnext101_64x4d", "densenet", "inception", "mnasnet", "regnet", "shuffle")
    kinds = ("alexnet", "vgg", "googlenet", "resn", "mobilenet", "efficientnet_b", "vit_")
    theirs = {
        file
        for file, published in torchvision_weights.items()
        if file.startswith(kinds)
        and not file.startswith(others)
        and published.meta.get("_metrics", {}).get("ImageNet-1K", {}).get("acc@1", math.nan) > 0
        and "quantized" not in published.url
    }
    assert theirs - ours == set()


@pytest.mark.parametrize(("entry", "place"), addresses(Url, "pytorch-image-models"))
def test_timms_addresses(entry, place, timm_weights) -> None:
    published = timm_weights[place.url.rsplit("/", 1)[1]]
    # the project has moved; its old address leads to the new one
    assert place.url == published.url.replace("/rwightman/", "/huggingface/")
    compare_with_timm(entry, published)


@pytest.mark.parametrize(("entry", "place"), addresses(Hub))
def test_hub_places(entry, place, timm_weights) -> None:
    if not place.repo.startswith("timm/"):
        pytest.skip("timm does not know it")
    compare_with_timm(entry, timm_weights[place.repo])


def compare_with_timm(entry: WeightsEntry, published: Any) -> None:
    ours = prepared(entry)
    assert ours.size == published.input_size[1:]
    assert (ours.mean, ours.std) == (published.mean, published.std)
    assert ours.interpolation == published.interpolation
    assert ours.crop_fraction == pytest.approx(published.crop_pct, abs=2e-3)
    assert entry.classes == published.num_classes
    assert published.license.replace("-", "") in entry.licence.lower().replace("-", "")


@pytest.mark.parametrize(("entry", "place"), addresses(Url, "keras-applications"))
def test_keras(entry, place, keras_weights) -> None:
    assert entry.md5 == keras_weights[place.url.rsplit("/", 1)[1]]


@pytest.mark.parametrize(("entry", "place"), addresses(Url, "vit_models/augreg"))
def test_googles_transformers(entry, place, timm_weights) -> None:
    compare_with_timm(entry, timm_weights[place.url.rsplit("/", 1)[1]])
    assert place.url == timm_weights[place.url.rsplit("/", 1)[1]].url
