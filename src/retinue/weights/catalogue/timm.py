"""Weights that timm publishes: its own, and those of others that it has converted.

The end of a file's name is the beginning of its SHA-256. The accuracy is that of timm's
`results-imagenet.csv`, where it was measured with the preprocessing that is given here.
"""

from __future__ import annotations

from dataclasses import replace

from retinue.sample import Interpolation, Preprocessing
from retinue.weights.catalogue.entry import APACHE, Hub, Url, WeightsEntry, at_size

_RELEASES = "https://github.com/huggingface/pytorch-image-models/releases/download/"


def _imagenet(
    size: int, crop_fraction: float, interpolation: Interpolation = "bicubic"
) -> Preprocessing:
    """Normalised by ImageNet's mean and standard deviation."""
    return Preprocessing((size, size), interpolation=interpolation, crop_fraction=crop_fraction)


def _half(
    size: int, crop_fraction: float, interpolation: Interpolation = "bicubic"
) -> Preprocessing:
    """To values between −1 and 1."""
    half = (0.5, 0.5, 0.5)
    return replace(_imagenet(size, crop_fraction, interpolation), mean=half, std=half)


_BICUBIC = _imagenet(224, 0.875)
_A1 = _imagenet(224, 0.95)
_VIT_384 = _half(384, 1.0)

# By release. Network, tag, file, top-1, top-5, preprocessing where it is not the network's. Lite3
# and Lite4 are evaluated on larger images than Google's own (300 and 380 pixels, not 280 and 300).
# fmt: off
_FILES: dict[
    str, tuple[tuple[str, str, str, float | None, float | None, Preprocessing | None], ...]
] = {
    "v0.1-weights": (
        ("tf_efficientnet_b0", "imagenet", "tf_efficientnet_b0_aa-827b6e33", 76.834, 93.220, None),
        ("tf_efficientnet_b1", "imagenet", "tf_efficientnet_b1_aa-ea7a6ee0", 78.830, 94.198, None),
        ("tf_efficientnet_b2", "imagenet", "tf_efficientnet_b2_aa-60c94f97", 80.084, 94.906, None),
        ("tf_efficientnet_b3", "imagenet", "tf_efficientnet_b3_aa-84b4657e", 81.644, 95.722, None),
        ("tf_efficientnet_b4", "imagenet", "tf_efficientnet_b4_aa-818f208c", 83.018, 96.300, None),
        ("tf_efficientnet_b5", "imagenet", "tf_efficientnet_b5_aa-99018a74", 83.688, 96.712, None),
        ("tf_efficientnet_b6", "imagenet", "tf_efficientnet_b6_aa-80ba17e4", 84.116, 96.880, None),
        ("tf_efficientnet_b7", "imagenet", "tf_efficientnet_b7_aa-076e3472", 84.414, 96.906, None),
        ("tf_efficientnet_b8", "imagenet", "tf_efficientnet_b8_ra-572d5dd9", 85.368, 97.394, None),
        ("tf_efficientnet_b0", "noisy_student", "tf_efficientnet_b0_ns-c0e6a31c",
         78.670, 94.374, None),
        ("tf_efficientnet_b1", "noisy_student", "tf_efficientnet_b1_ns-99dd0c41",
         81.394, 95.736, None),
        ("tf_efficientnet_b2", "noisy_student", "tf_efficientnet_b2_ns-00306e48",
         82.378, 96.254, None),
        ("tf_efficientnet_b3", "noisy_student", "tf_efficientnet_b3_ns-9d44bf68",
         84.056, 96.918, None),
        ("tf_efficientnet_b4", "noisy_student", "tf_efficientnet_b4_ns-d6313a46",
         85.162, 97.470, None),
        ("tf_efficientnet_b5", "noisy_student", "tf_efficientnet_b5_ns-6f26d0cf",
         86.088, 97.754, None),
        ("tf_efficientnet_b6", "noisy_student", "tf_efficientnet_b6_ns-51548356",
         86.456, 97.884, None),
        ("tf_efficientnet_b7", "noisy_student", "tf_efficientnet_b7_ns-1dbc32de",
         86.840, 98.094, None),
        ("tf_efficientnet_l2", "noisy_student", "tf_efficientnet_l2_ns-df73bb44",
         88.352, 98.648, None),
        ("tf_efficientnet_lite3", "imagenet", "tf_efficientnet_lite3-b733e338",
         79.808, 94.912, _half(300, 0.904, "bilinear")),
        ("tf_efficientnet_lite4", "imagenet", "tf_efficientnet_lite4-741542c3",
         81.532, 95.664, _half(380, 0.92, "bilinear")),
        ("efficientnet_lite0", "imagenet", "efficientnet_lite0_ra-37913777", 75.480, 92.522, None),
        ("efficientnet_b0", "ra", "efficientnet_b0_ra-3dd342df", 77.694, 93.532, None),
        ("mobilenet_v2_050", "imagenet", "mobilenetv2_050-3d30d450", 65.950, 86.088, _BICUBIC),
        ("mobilenet_v2_140", "imagenet", "mobilenetv2_140_ra-21a4e913", 76.520, 92.986, _BICUBIC),
        ("mobilenet_v3_large", "ra", "mobilenetv3_large_100_ra-f55367f5", 75.766, 92.538, _BICUBIC),
        ("mobilenet_v3_small", "lamb", "mobilenetv3_small_100_lamb-266a294c",
         67.656, 87.636, _BICUBIC),
        ("mobilenet_v3_small_075", "imagenet", "mobilenetv3_small_075_lambc-384766db",
         65.234, 85.446, _BICUBIC),
        ("mobilenet_v3_small_050", "imagenet", "mobilenetv3_small_050_lambc-4b7bbe87",
         57.910, 80.180, _BICUBIC),
    ),
    "v0.1-rsb-weights": (  # "ResNet strikes back" (Wightman et al., 2021); measured at 288 alone
        ("resnet34", "a1", "resnet34_a1_0-46f8f793", None, None, _A1),
        ("resnet101", "a1", "resnet101_a1_0-cdcb52a9", None, None, _A1),
        ("resnet152", "a1", "resnet152_a1_0-2eee8a7a", None, None, _A1),
        ("resnext50_32x4d", "a1h", "resnext50_32x4d_a1h-0146ab0a", None, None, _A1),
    ),
    "v0.1-tpu-weights": (
        ("darknet53", "imagenet", "darknet53_256_c2ns-3aeff817", None, None, None),
    ),
    "v0.1-cadene": (
        ("xception", "imagenet", "xception-43020ad28", 79.040, 94.382, None),
    ),
    "v0.1-vitjx": (  # Google's first ones, trained on ImageNet-21k and fine-tuned
        ("vit_base_patch16", "original", "jx_vit_base_p16_224-80ecf9dd", 81.786, 96.124, None),
        ("vit_base_patch16", "original_384", "jx_vit_base_p16_384-83fb41ba",
         84.200, 97.220, _VIT_384),
        ("vit_large_patch32", "original_384", "jx_vit_large_p32_384-9b920ba8",
         81.510, 96.090, _VIT_384),
        ("vit_base_r50_s16", "imagenet", "jx_vit_base_resnet50_384-9fd3c705",
         84.976, 97.290, _VIT_384),
    ),
}
# fmt: on


# network, tag, repository, commit, SHA-256 of its model.safetensors, top-1, top-5, preprocessing
_HUB_FILES = (
    (
        "mobilenet_v2",
        "ra",
        "timm/mobilenetv2_100.ra_in1k",
        "f3ff81ba89de0bc46b546568ebeab2edef6b9d49",
        "55ea4fb3a96010b933710ebf44fc965b070d5cd054d3f35e44f2d1320b4a714e",
        72.976,
        91.010,
        _BICUBIC,
    ),
    (
        "resnet18",
        "a1",
        "timm/resnet18.a1_in1k",
        "ebd61f9c7420e5b5b53262b8ce6bbe311e1e872a",
        "80c49dee3da4822c009c5a7fe591e9223c5a2cfcf95a4067ca4dfb5a7b89c612",
        None,
        None,
        _A1,
    ),
    (
        "resnet50",
        "a1",
        "timm/resnet50.a1_in1k",
        "5d9e13b8fdab4d9718bcf2c8f5c3af01878367e8",
        "773525d5821de224f8f30c33377b7a795d7863e08522698200d3217d3f2a41bb",
        None,
        None,
        _A1,
    ),
    (  # its page states no SHA-256; the commit names the contents
        "mobilenet_v1",
        "ra4",
        "timm/mobilenetv1_100.ra4_e3600_r224_in1k",
        "636812647d7a669e4ce6d6d367f27c8ee71155f6",
        "",
        None,
        None,
        _half(224, 0.875),
    ),
    (
        "vit_base_patch16",
        "augreg2",
        "timm/vit_base_patch16_224.augreg2_in21k_ft_in1k",
        "063c6c38a5d8510b2e57df480445e94b231dad2c",
        "32aa17d6e17b43500f531d5f6dc9bc93e56ed8841b8a75682e1bb295d722405b",
        85.096,
        97.530,
        None,
    ),
)


def _fraction(percent: float | None) -> float | None:
    return None if percent is None else round(percent / 100, 5)


ENTRIES = [
    *(
        WeightsEntry(
            network=network,
            tag=tag,
            layout="timm",
            sha256=file.rsplit("-", 1)[1],
            places=(Url(f"{_RELEASES}{release}/{file}.pth"),),
            licence=APACHE,
            top1=_fraction(top1),
            top5=_fraction(top5),
            preprocessing=preprocessing,
            arguments=at_size(network, preprocessing),
        )
        for release, files in _FILES.items()
        for network, tag, file, top1, top5, preprocessing in files
    ),
    *(
        WeightsEntry(
            network=network,
            tag=tag,
            layout="timm",
            sha256=sha256,
            places=(Hub(repo, revision, "model.safetensors"),),
            licence=APACHE,
            top1=_fraction(top1),
            top5=_fraction(top5),
            preprocessing=preprocessing,
        )
        for network, tag, repo, revision, sha256, top1, top5, preprocessing in _HUB_FILES
    ),
]
