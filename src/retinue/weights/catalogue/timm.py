"""Weights that timm publishes: its own, and those of Google's EfficientNets that it has converted.

The end of a file's name is the beginning of its SHA-256. timm's registry states no accuracy; that
of Google's is from their repository (with AutoAugment; "Self-training with Noisy Student", Xie et
al., 2020, table 2).
"""

from __future__ import annotations

from retinue.sample import Preprocessing
from retinue.weights.catalogue.entry import APACHE, Hub, Url, WeightsEntry

_FOLDER = "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-weights/"

# network, tag, file, top-1
_FILES = (
    ("tf_efficientnet_b0", "imagenet", "tf_efficientnet_b0_aa-827b6e33", 0.771),
    ("tf_efficientnet_b1", "imagenet", "tf_efficientnet_b1_aa-ea7a6ee0", 0.791),
    ("tf_efficientnet_b2", "imagenet", "tf_efficientnet_b2_aa-60c94f97", 0.801),
    ("tf_efficientnet_b3", "imagenet", "tf_efficientnet_b3_aa-84b4657e", 0.816),
    ("tf_efficientnet_b4", "imagenet", "tf_efficientnet_b4_aa-818f208c", 0.829),
    ("tf_efficientnet_b5", "imagenet", "tf_efficientnet_b5_aa-99018a74", 0.836),
    ("tf_efficientnet_b6", "imagenet", "tf_efficientnet_b6_aa-80ba17e4", 0.84),
    ("tf_efficientnet_b7", "imagenet", "tf_efficientnet_b7_aa-076e3472", 0.843),
    ("tf_efficientnet_b8", "imagenet", "tf_efficientnet_b8_ra-572d5dd9", None),
    ("tf_efficientnet_b0", "noisy_student", "tf_efficientnet_b0_ns-c0e6a31c", 0.788),
    ("tf_efficientnet_b1", "noisy_student", "tf_efficientnet_b1_ns-99dd0c41", 0.815),
    ("tf_efficientnet_b2", "noisy_student", "tf_efficientnet_b2_ns-00306e48", 0.824),
    ("tf_efficientnet_b3", "noisy_student", "tf_efficientnet_b3_ns-9d44bf68", 0.841),
    ("tf_efficientnet_b4", "noisy_student", "tf_efficientnet_b4_ns-d6313a46", 0.853),
    ("tf_efficientnet_b5", "noisy_student", "tf_efficientnet_b5_ns-6f26d0cf", 0.861),
    ("tf_efficientnet_b6", "noisy_student", "tf_efficientnet_b6_ns-51548356", 0.864),
    ("tf_efficientnet_b7", "noisy_student", "tf_efficientnet_b7_ns-1dbc32de", 0.869),
    ("tf_efficientnet_l2", "noisy_student", "tf_efficientnet_l2_ns-df73bb44", 0.884),
    ("tf_efficientnet_lite3", "imagenet", "tf_efficientnet_lite3-b733e338", 0.798),
    ("tf_efficientnet_lite4", "imagenet", "tf_efficientnet_lite4-741542c3", 0.815),
    ("efficientnet_lite0", "imagenet", "efficientnet_lite0_ra-37913777", None),
    ("mobilenet_v2_050", "imagenet", "mobilenetv2_050-3d30d450", None),
    ("mobilenet_v2_140", "imagenet", "mobilenetv2_140_ra-21a4e913", None),
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

ENTRIES = [
    *(
        WeightsEntry(
            network=network,
            tag=tag,
            sha256=file.rsplit("-", 1)[1],
            places=(Url(f"{_FOLDER}{file}.pth"),),
            licence=APACHE,
            top1=top1,
            preprocessing=(
                Preprocessing(interpolation="bicubic") if "mobilenet" in network else None
            ),
        )
        for network, tag, file, top1 in _FILES
    ),
    *(
        WeightsEntry(
            network=network,
            tag=tag,
            sha256=sha256,
            places=(Hub(repo, revision, "model.safetensors"),),
            licence=APACHE,
            preprocessing=preprocessing,
        )
        for network, tag, repo, revision, sha256, preprocessing in _HUB_FILES
    ),
]
