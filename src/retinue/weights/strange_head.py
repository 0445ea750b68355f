"""The classifier of somebody else's fine-tuning, which has a name of its own.

Who puts `Dense(5, name="flowers")` or `self.classifier = nn.Linear(512, 5)` on a library's network
saves a file in which everything is called as the library calls it, but for that layer.
"""

from __future__ import annotations

from typing import NamedTuple

from retinue.weights.layout import Layout, Shapes, StateDict, unused


class Dense(NamedTuple):
    """A linear layer in a checkpoint, by its own names."""

    name: str
    weight: str
    """Key of its matrix."""
    bias: str | None
    inputs: int
    outputs: int

    def __str__(self) -> str:
        return f"{self.name!r} ({self.inputs} → {self.outputs})"


def with_head(layout: Layout, state: StateDict, shapes: Shapes, head: str) -> tuple[StateDict, str]:
    """(`state` with the classifier under the name that `layout` knows, what is to be said of it).

    It is taken for the classifier where it is the only thing in `state` that `layout` has no place
    for, there is no other classifier, and it takes as many inputs as ours, the layer `head`.
    """
    origins = layout.origins(shapes)
    known = {part: origins[key].keys for part in ("weight", "bias")
             if (key := f"{head}.{part}") in origins}  # fmt: skip
    if "weight" not in known or any(len(keys) != 1 for keys in known.values()):
        return state, ""
    if any(keys[0] in state for keys in known.values()):
        return state, ""
    left = unused(layout, state, shapes)
    layers = _dense(state, left)
    taken = {key for layer in layers for key in (layer.weight, layer.bias)}
    if not layers or set(left) - taken:
        return state, ""
    if len(layers) > 1:
        named = " and ".join(map(str, layers))
        return state, f"its own head is of several layers, {named}, and none is guessed to be ours"
    (layer,) = layers
    inputs = shapes[f"{head}.weight"][1]
    if layer.inputs != inputs:
        return state, f"its own head, {layer}, does not fit ours, which takes {inputs} inputs"
    renamed = {layer.weight: known["weight"][0]}
    if layer.bias is not None and "bias" in known:
        renamed[layer.bias] = known["bias"][0]
    found = {renamed.get(key, key): tensor for key, tensor in state.items()}
    if layer.bias is None and "bias" in known:
        found[known["bias"][0]] = state[layer.weight].new_zeros(layer.outputs)
    return found, f"its layer {layer} is taken for the classifier"


def _dense(state: StateDict, keys: tuple[str, ...]) -> list[Dense]:
    """The linear layers among `keys`, as Keras (`NAME/kernel`, inputs first) and PyTorch
    (`NAME.weight`, outputs first) have them."""
    found = []
    for matrix, addend, keras in (("/kernel", "/bias", True), (".weight", ".bias", False)):
        for key in keys:
            name = key.removesuffix(matrix)
            if name == key or key not in state or state[key].ndim != 2:
                continue
            rows, columns = state[key].shape
            inputs, outputs = (rows, columns) if keras else (columns, rows)
            bias = name + addend if name + addend in keys else None
            if bias is None or tuple(state[bias].shape) == (outputs,):
                found.append(Dense(name, key, bias, inputs, outputs))
    return found
