"""Repositories of Hugging Face transformers' checkpoints.

The hub's pages state neither their SHA-256 nor an accuracy; the commit names the contents.
"""

from __future__ import annotations

from retinue.weights.catalogue.entry import APACHE, Hub, WeightsEntry

# network, repository, commit
_REPOSITORIES = (
    ("resnet50", "microsoft/resnet-50", "34c2154c194f829b11125337b98c8f5f9965ff19"),
    (
        "vit_base_patch16",
        "google/vit-base-patch16-224",
        "3f49326eb077187dfe1c2a2bb15fbd74e6ab91e3",
    ),
)

ENTRIES = [
    WeightsEntry(
        network=network,
        tag="transformers",
        places=(Hub(repository, commit, "model.safetensors"),),
        licence=APACHE,
    )
    for network, repository, commit in _REPOSITORIES
]
