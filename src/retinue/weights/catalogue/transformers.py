"""Repositories of Hugging Face transformers' checkpoints. The hub's pages state no accuracy."""

from __future__ import annotations

from retinue.weights.catalogue.entry import APACHE, Hub, WeightsEntry

_VIT = Hub(
    "google/vit-base-patch16-224", "3f49326eb077187dfe1c2a2bb15fbd74e6ab91e3", "model.safetensors"
)

ENTRIES = [
    WeightsEntry(
        network="vit_base_patch16",
        tag="transformers",
        layout="transformers",
        sha256="1cea07110a4a47edc51420b2dda6f3b8b58e7256e8f44b4ea6aa9696162ccb5d",
        places=(_VIT,),
        licence=APACHE,
    )
]
