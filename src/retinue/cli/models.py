"""`retinue models`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retinue.cli.options import Json
from retinue.cli.output import print_json, say, table

if TYPE_CHECKING:
    from retinue.models.registry import NetworkEntry

EXAMPLES = (
    "Example: retinue models 'resnet*' --sort params\n\nOne network: retinue models mobilenet_v2"
)


class SortKey(StrEnum):
    """A column to sort by."""

    name = "name"
    params = "params"
    macs = "macs"
    top1 = "top1"
    size = "size"


def models(
    pattern: Annotated[
        str,
        typer.Argument(
            metavar="PATTERN", help="Names with wildcards; a full name shows that network."
        ),
    ] = "*",
    sort: Annotated[SortKey, typer.Option("--sort", help="Sort by this column.")] = SortKey.name,
    as_json: Json = False,
) -> None:
    """The networks: size, cost, published accuracy, and which weights are to be had."""
    from retinue import api
    from retinue.errors import UsageError
    from retinue.models import registry

    names = api.list_models(pattern)
    if not names and not any(c in pattern for c in "*?["):
        registry.find(pattern)  # raises, with the nearest names
    if not names:
        raise UsageError("no network matches", where=repr(pattern), mend="`retinue models` has all")
    rows = [_facts(registry.find(name)) for name in names]
    rows.sort(key=lambda row: _order(row, sort))
    alone = len(rows) == 1 and pattern == rows[0]["name"]
    if alone:
        rows[0] |= _anatomy(registry.find(pattern))
    if as_json:
        print_json(rows)
    elif alone:
        _show(rows[0])
    else:
        table(
            ["name", "params", "MACs", "top-1", "input", "weights"],
            [_columns(row) for row in rows],
            right="params MACs top-1 input",
        )


def _facts(entry: NetworkEntry) -> dict[str, Any]:
    from retinue.weights import catalogue

    return {
        "name": entry.name,
        "family": entry.family,
        "parameters": entry.parameters,
        "macs": entry.macs,
        "size": list(entry.preprocessing.size),
        "top1": {
            w.tag: w.top1 for w in catalogue.entries(entry.name) if w.top1 is not None
        },
        "weights": [
            {"tag": w.tag, "licence": w.licence, "places": [_place(place) for place in w.places]}
            for w in catalogue.entries(entry.name)
        ],
        "preprocessing": entry.preprocessing.as_dict(),
        "paper": entry.paper,
        "reference": entry.reference,
    }


def _anatomy(entry: NetworkEntry) -> dict[str, Any]:
    """The units that a recipe's `trainable` may name, and the feature levels."""
    import torch

    with torch.device("meta"):  # no memory, no random draws
        network = entry.build()
    return {
        "units": [
            {"name": name, "parameters": sum(p.numel() for p in parameters)}
            for name, parameters in network.parameter_groups()
        ],
        "features": [
            {"name": f"C{level.index}", "channels": level.channels, "stride": level.stride}
            for level in network.feature_levels
        ],
    }


def _place(place: Any) -> str:
    for attribute, text in (("distribution", "pip install {}"), ("url", "{}"), ("repo", "hub:{}")):
        if hasattr(place, attribute):
            return text.format(getattr(place, attribute))
    return str(place)


def _order(row: dict[str, Any], sort: SortKey) -> tuple[Any, ...]:
    best = max(row["top1"].values(), default=0.0)
    key: Any = {
        SortKey.name: 0,
        SortKey.params: row["parameters"],
        SortKey.macs: row["macs"],
        SortKey.top1: -best,
        SortKey.size: row["size"][0],
    }[sort]
    return key, row["name"]


def _columns(row: dict[str, Any]) -> list[str]:
    best = max(row["top1"].values(), default=None)
    return [
        row["name"],
        f"{row['parameters'] / 1e6:.2f} M",
        f"{row['macs'] / 1e9:.2f} G",
        "–" if best is None else f"{100 * best:.1f} %",
        f"{row['size'][0]} px",
        ", ".join(w["tag"] for w in row["weights"]) or "–",
    ]


def _show(row: dict[str, Any]) -> None:
    height, width = row["size"]
    say(row["name"])
    say(f"  family       {row['family']}")
    say(f"  parameters   {row['parameters']:,} with 1,000 classes")
    say(f"  MACs         {row['macs']:,} for one image of {height} × {width} pixels")
    for tag, value in row["top1"].items():
        say(f"  top-1        {100 * value:.2f} % published for {tag}")
    for weights in row["weights"]:
        say(f"  weights      {weights['tag']} ({weights['licence']}): {weights['places'][0]}")
    if not row["weights"]:
        say("  weights      none in the catalogue: give a file")
    fit = row["preprocessing"]
    say(f"  input        {fit['interpolation']}, {fit['fit']}, mean {fit['mean']} std {fit['std']}")
    say(f"  paper        {row['paper']}")
    say(f"  reference    {row['reference']}")
    for level in row["features"]:
        channels, stride = level["channels"], level["stride"]
        say(f"  features     {level['name']}: {channels} channels at stride {stride}")
    for unit in row["units"]:
        say(f"  unit         {unit['name']:<16} {unit['parameters']:>12,} parameters")
