"""Checkpoints of timm's networks, for those that are timm's own: everything keeps its name."""

from __future__ import annotations

from retinue.weights.layout import Layout, Origin, Shapes, StateDict

_BODY = "body."
_CLASSIFIERS = ("head.fc", "fc", "classifier", "head", "head.l", "last_linear", "classif")
"""What timm's networks call the layer that makes the logits."""


def timm(shapes: Shapes) -> dict[str, Origin]:
    """Ours, after `prepare` has given the classifier its name."""
    return {key: Origin((key.removeprefix(_BODY),)) for key in shapes}


def prepare(state: StateDict, shapes: Shapes) -> StateDict:
    """With the classifier under `head.fc`."""
    free = [name for name in _CLASSIFIERS if f"{_BODY}{name}.weight" not in shapes]
    name = next((n for n in free if f"{n}.weight" in state), None)
    if name in (None, "head.fc"):
        return state
    layer = {f"{name}.{part}": f"head.fc.{part}" for part in ("weight", "bias")}
    return {layer.get(key, key): tensor for key, tensor in state.items()}


LAYOUTS = (
    Layout(
        source="timm",
        family="timm",
        marks=(),
        origins=timm,
        prepare=prepare,
        names_a_network=False,
        takes_any=True,
    ),
)
