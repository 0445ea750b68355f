"""`retinue models`."""

from __future__ import annotations

import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retinue.cli.complete import networks
from retinue.cli.options import Json
from retinue.cli.output import print_json, say, table

if TYPE_CHECKING:
    from retinue.models.known import Facts

EXAMPLES = (
    "Examples:\n\nretinue models 'resnet*' --sort params\n\n"
    "retinue models --max-params 10M --max-macs 500M --with-weights --sort top1\n\n"
    "One network, stage by stage: retinue models mobilenet_v2"
)


class SortKey(StrEnum):
    """A column to sort by."""

    name = "name"
    params = "params"
    macs = "macs"
    top1 = "top1"
    size = "size"


_UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def _amount(text: str) -> int:
    """10M, 1.5G or 4100000 as a number."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kKMmGgTtBb]?)", text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no amount; write 500k, 10M, 1.5G or plain digits")
    letter = {"K": "k", "B": "G", "m": "M", "g": "G", "t": "T", "b": "G"}.get(found[2], found[2])
    return round(float(found[1]) * _UNITS[letter])


def models(
    pattern: Annotated[
        str,
        typer.Argument(
            metavar="PATTERN",
            help="Names with wildcards, ours or another library's; a full name shows that network.",
            autocompletion=networks,
        ),
    ] = "*",
    family: Annotated[
        str | None, typer.Option("--family", metavar="NAME", help="Only this family.")
    ] = None,
    max_params: Annotated[
        int | None,
        typer.Option("--max-params", metavar="N", parser=_amount, help="At most so many: 10M."),
    ] = None,
    max_macs: Annotated[
        int | None,
        typer.Option("--max-macs", metavar="N", parser=_amount, help="At most so many: 1.5G."),
    ] = None,
    with_weights: Annotated[
        bool, typer.Option("--with-weights", help="Only those with weights in the catalogue.")
    ] = False,
    sort: Annotated[SortKey, typer.Option("--sort", help="Sort by this column.")] = SortKey.name,
    as_json: Json = False,
) -> None:
    """The networks: size, cost, published accuracy, and which weights are to be had.

    With a full name, that network stage by stage, and where its weights come from.
    """
    from retinue.errors import UsageError, suggest
    from retinue.models import known, lookup

    zoo = known.networks()
    names = lookup.matching(pattern, zoo.values())
    families = {network.family for network in zoo.values()}
    if not names and pattern in families:
        raise UsageError(
            f"no network {pattern!r}, but a family", mend=f"`retinue models --family {pattern}`"
        )
    if names or any(c in pattern for c in "*?["):
        networks = [zoo[name] for name in names]
    else:
        networks = [_find(pattern)]  # or raises, with the nearest names
    if family is not None and family not in families:
        mend = suggest(family, families) or f"there are {', '.join(sorted(families))}"
        raise UsageError(f"no family {family!r}", mend=mend)
    rows = [
        row
        for row in map(_told, networks)
        if (family is None or row["family"] == family)
        and (max_params is None or row["parameters"] <= max_params)
        and (max_macs is None or row["macs"] <= max_macs)
        and (row["weights"] or not with_weights)
    ]
    if not rows:
        said = "matches" if not names else f"of the {len(names):,} that match passes the filters"
        raise UsageError(f"no network {said}", where=repr(pattern), mend="`retinue models` has all")
    rows.sort(key=lambda row: _order(row, sort))
    alone = len(rows) == 1 and not any(c in pattern for c in "*?[")
    if alone:
        (network,) = networks
        rows[0] |= {
            "stages": network.stages, "units": network.units, "features": network.features
        }  # fmt: skip
    if as_json:
        print_json(rows)
    elif alone:
        _show(rows[0])
    else:
        table(
            ["name", "params", "MACs", "top-1", "input", "weights", "here"],
            [_columns(row) for row in rows],
            right="params MACs top-1 input",
            whole="name",
        )
        if sys.stdout.isatty():
            say("here: the weights that are on this machine; the others are fetched when asked for")


def _find(name: str) -> Facts:
    """The network that `name` means. UsageError, with the nearest names, if there is none."""
    from retinue.models import known, lookup

    zoo = known.networks()
    if (meant := lookup.called(name, zoo)) is not None:
        return zoo[meant.network]
    if lookup.of_a_library(name):
        from retinue.models import packing, registry  # which take PyTorch

        return packing.facts(registry.find(name))
    raise lookup.unknown(name, zoo)


def _told(network: Facts) -> dict[str, Any]:
    from retinue.models.names import names_of
    from retinue.weights import catalogue
    from retinue.weights.catalogue.entry import address
    from retinue.weights.places import at_hand

    files = {w.tag: at_hand(w) for w in catalogue.entries(network.name)}
    return {
        "name": network.name,
        "family": network.family,
        "kind": network.kind,
        "also": names_of(network.name),
        "parameters": network.parameters,
        "macs": network.macs,
        "size": network.preprocessing["size"],
        "weights": [
            {
                "tag": w.tag,
                "top1": w.top1,
                "top5": w.top5,
                "classes": w.classes,
                "licence": w.licence,
                "places": [address(place) for place in w.places],
                "sha256": w.sha256,
                "md5": w.md5,
                "bytes": w.size or _size(files[w.tag]),
                "here": files[w.tag],
                "preprocessing": network.prepared[w.tag],
            }
            for w in catalogue.entries(network.name)
        ],
        "preprocessing": network.preprocessing,
        "paper": network.paper,
        "reference": network.reference,
    }


def _size(file: Path | None) -> int | None:
    return None if file is None else file.stat().st_size


def _best(row: dict[str, Any]) -> float | None:
    return max((w["top1"] for w in row["weights"] if w["top1"] is not None), default=None)


def _order(row: dict[str, Any], sort: SortKey) -> tuple[Any, ...]:
    key: Any = {
        SortKey.name: 0,
        SortKey.params: row["parameters"],
        SortKey.macs: row["macs"],
        SortKey.top1: -(_best(row) or 0.0),
        SortKey.size: row["size"][0],
    }[sort]
    return key, row["name"]


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def _short(number: float) -> str:
    """Three figures and a letter: 25.6 M."""
    letters = iter(("", "k", "M", "G", "T"))
    letter = next(letters)
    while number >= 999.5:
        number, letter = number / 1000, next(letters)
    digits = 0 if not letter or number >= 99.95 else 1 if number >= 9.995 else 2
    return f"{number:.{digits}f} {letter}".strip()


def _columns(row: dict[str, Any]) -> list[str]:
    return [
        row["name"],
        _short(row["parameters"]),
        _short(row["macs"]),
        _percent(_best(row)),
        f"{row['size'][0]} px",
        ", ".join(w["tag"] for w in row["weights"]) or "–",
        ", ".join(w["tag"] for w in row["weights"] if w["here"]) or "–",
    ]


def _show(row: dict[str, Any]) -> None:
    height, width = row["size"]
    fit = row["preprocessing"]
    detector = row["kind"] == "detector"
    say(f"{row['name']}, {'a detector' * detector}{', ' * detector}of the family {row['family']}")
    say(f"  {row['parameters']:,} parameters with {80 if detector else 1000:,} classes")
    say(f"  {row['macs']:,} multiply-adds (MACs) for an image of {height} × {width} pixels")
    say(f"  images       {fit['interpolation']}, {fit['fit']}, mean {fit['mean']} std {fit['std']}")
    say(f"  paper        {row['paper']}")
    say(f"  reference    {row['reference']}")
    if row["also"]:
        say(f"  also called  {', '.join(row['also'])}")
    say("")
    if row["stages"]:
        table(
            ["stage", "units", "output", "params", "MACs", "sees", "stride", "level"],
            [
                [
                    stage["name"],
                    str(stage["units"]) if stage["name"] != "head" else "",
                    " × ".join(map(str, stage["output"])),
                    _short(stage["parameters"]),
                    _short(stage["macs"]),
                    f"{stage['receptive_field']} px" if stage["receptive_field"] else "all",
                    str(stage["stride"] or ""),
                    f"C{stage['level']}" if stage["level"] is not None else "",
                ]
                for stage in row["stages"]
            ],
            right="units params MACs sees stride",
        )
        say("sees: the side of the window of the image that one unit of the output depends on")
    say("units: what a recipe's `trainable` counts or names, stages.0.0 say; --json lists them")
    say("")
    if not row["weights"]:
        say("no weights in the catalogue: give a file")
        _show_another(row["name"])
        return
    table(
        ["weights", "top-1", "top-5", "input", "licence", "size"],
        [
            [
                w["tag"] + ("" if w["classes"] == 1000 else f" ({w['classes']:,} classes)"),
                _percent(w["top1"]),
                _percent(w["top5"]),
                f"{w['preprocessing']['size'][0]} px",
                w["licence"],
                "not stated" if w["bytes"] is None else f"{w['bytes'] / 1e6:.1f} MB",
            ]
            for w in row["weights"]
        ],
        right="top-1 top-5 input size",
    )
    if any(w["bytes"] is None for w in row["weights"]):
        say(f"not stated: the parameters alone take {4 * row['parameters'] / 1e6:,.0f} MB")
    for w in row["weights"]:  # no table: an address that is broken into lines cannot be copied
        place = f"on this machine, {w['here']}" if w["here"] else " or ".join(w["places"])
        say(f"{w['tag']}: {place}")
    if not any(w["here"] for w in row["weights"]):
        _show_another(row["name"])


def _show_another(name: str) -> None:
    """Which weights are on this machine instead."""
    from retinue.models import known, lookup
    from retinue.weights.places import at_hand

    if (other := lookup.nearest(_find(name), known.networks(), at_hand)) is not None:
        say(f"on this machine, and nearest to it: {other.network} with {other.tag!r}")
