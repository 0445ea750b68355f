"""What `models.known` reads, made from the registry: `python -m retinue.models.packing`, a quarter
of a minute, after any change to what a network is built of or said to be."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from retinue.documents import json_text
from retinue.files import write_text
from retinue.models import registry
from retinue.models.anatomy import anatomy
from retinue.models.known import FILE, Facts
from retinue.models.registry import NetworkEntry
from retinue.weights import catalogue


def declared(entry: NetworkEntry) -> dict[str, Any]:
    """What is told of it without building it, as plain JSON values."""
    return {
        "family": entry.family,
        "kind": entry.kind,
        "parameters": entry.parameters,
        "macs": entry.macs,
        "preprocessing": entry.preprocessing.as_dict(),
        "prepared": {w.tag: entry.prepared(w).as_dict() for w in catalogue.entries(entry.name)},
        "paper": entry.paper,
        "reference": entry.reference,
    }


def built(entry: NetworkEntry) -> dict[str, Any]:
    """The stages, the units that a recipe's `trainable` may name, and the feature levels."""
    with torch.device("meta"):  # no memory, no random draws
        network = entry.build()
    # Of one that is not walked through unit by unit nobody knows what goes from each to the next.
    walked = len(network.cuts()) > len(network.units())
    stages = anatomy(network, entry.preprocessing.size) if walked else []
    return {
        "stages": [{**asdict(stage), "output": list(stage.output)} for stage in stages],
        "units": [
            {"name": name, "parameters": sum(p.numel() for p in parameters)}
            for name, parameters in network.parameter_groups()
        ],
        "features": [
            {"name": f"C{level.index}", "channels": level.channels, "stride": level.stride}
            for level in network.feature_levels
        ],
    }


def facts(entry: NetworkEntry, *, whole: bool = True) -> Facts:
    """All that is told of it; without `whole` nothing for which it would have to be built."""
    inner = built(entry) if whole else {"stages": [], "units": [], "features": []}
    return Facts(name=entry.name, **declared(entry), **inner)


def packed(known: list[Facts]) -> str:
    """The text of the file: a line a network."""
    keys = [field.name for field in fields(Facts) if field.name != "name"]
    rows = (
        f"{json_text(one.name)}: {json_text({key: getattr(one, key) for key in keys})}"
        for one in sorted(known, key=lambda one: one.name)
    )
    return "{\n" + ",\n".join(rows) + "\n}\n"


if __name__ == "__main__":
    found = [facts(registry.find(name)) for name in registry.list_models()]
    write_text(Path(__file__).with_name(FILE), packed(found))
    print(f"{FILE}: {len(found)} networks")
