"""`retinue checks`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from retinue.cli.options import Json
from retinue.cli.output import print_json, say
from retinue.text import visible

EXAMPLES = (
    "Example: retinue checks --json\n\nFor an editor: retinue checks --schema > recipe.schema.json"
)


def checks(
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of recipes, for editors.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Versions, devices, engines, CPU features, and what `auto` would choose here."""
    if schema:
        from retinue.training.recipe import json_schema

        print_json(json_schema())
        return
    from retinue import api

    found = api.checks()
    if as_json:
        print_json(found)
    else:
        _show(found)


def _show(found: Mapping[str, Any]) -> None:
    plain = {k: v for k, v in found.items() if not isinstance(v, Mapping)}
    sections = {k: v for k, v in found.items() if isinstance(v, Mapping)}
    for title, values in [("", plain), *sections.items()]:
        if not values:
            continue
        if title:
            say(title.replace("_", " "))
        width = max(len(str(key)) for key in values)
        indent = "  " if title else ""
        for key, value in values.items():
            name = str(key).replace("_", " ") if str(key).isidentifier() else visible(key)
            say(f"{indent}{name:<{width}}  {_flat(value)}")


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{visible(k)} {_flat(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_flat(v) for v in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else visible(value)
