"""Repositories of Hugging Face transformers' checkpoints.

The hub's page states neither the file's SHA-256 nor an accuracy; the commit names the contents.
"""

from __future__ import annotations

from retinue.weights.catalogue.entry import APACHE, Hub, WeightsEntry

_VIT = Hub(
    "google/vit-base-patch16-224", "3f49326eb077187dfe1c2a2bb15fbd74e6ab91e3", "model.safetensors"
)

ENTRIES = [
    WeightsEntry(network="vit_base_patch16", tag="transformers", places=(_VIT,), licence=APACHE)
]
