"""What a recipe says of the machine that it runs on, settled once: when the training begins."""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping
from typing import Any

from retinue.errors import UsageError
from retinue.inference.devices import choose_device
from retinue.options.typed import Scalar

KEY = "on_gpu"


def settle(values: Any, overrides: Mapping[str, Any], where: str) -> tuple[Any, str | None]:
    """`values` of a recipe with what its `on_gpu` says put in its place where the training will run
    on a GPU, and without `on_gpu`; and a line that says what was done, None if there was nothing.

    The device is the one that `overrides` or else the recipe name; `auto` is what is here. What
    stands in `values` keeps the lines that it was read from.

    Raises:
        UsageError: `on_gpu` is no section, or an override aims at it.
    """
    if aimed := [key for key in overrides if key.partition(".")[0] == KEY]:
        raise UsageError(
            f"{KEY} is settled before overrides are",
            where=f"given as an override, key {aimed[0]}",
            mend="override the field itself, or choose with device=cpu",
        )
    rules = values.get(KEY) if isinstance(values, MutableMapping) else None
    if rules is None or (isinstance(rules, Scalar) and rules.meaning is None):
        return values, None
    if not isinstance(rules, Mapping) or KEY in rules:
        raise UsageError(
            f"{KEY} holds fields of the recipe", where=f"{where}, key {KEY}", mend="say stages: …"
        )
    wish = str(overrides.get("device", values.get("device", "auto")))
    # A device that makes no sense is refused with the rest of the recipe.
    device = choose_device("auto") if wish == "auto" else wish
    held = device.partition(":")[0] in ("cuda", "mps")
    settled = copy.deepcopy(values)  # with its lines
    del settled[KEY]
    named = ", ".join(map(str, rules))
    if not held:
        return settled, f"it runs on {device}: the recipe's {KEY} ({named}) does not hold"
    _lay(rules, settled)
    return settled, f"it runs on {device}: the recipe's {KEY} holds ({named})"


def _lay(rules: Mapping[str, Any], values: MutableMapping[str, Any]) -> None:
    """`rules` over `values`: mappings field by field, everything else whole."""
    for key, rule in rules.items():
        under = values.get(key)
        if isinstance(rule, Mapping) and isinstance(under, MutableMapping):
            _lay(rule, under)
        else:
            values[key] = copy.deepcopy(rule)
