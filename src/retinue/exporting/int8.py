"""Eight-bit numbers for a network that has been trained in others (post-training quantisation).

By ONNX Runtime's static quantisation: ranges are those of real images, prepared as for predicting.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retinue.inference.tracing import quiet

IMAGES = 128
"""So many choose the ranges, at most."""
_AT_A_TIME = 8


def quantised(exact: Path, target: Path, images: Tensor, batch: int | None = None) -> None:
    """Write the ONNX file `exact` to `target` with weights and activations in int8.

    `images`: float32 (n, 3, height, width), normalised; `batch`: as many at a time as the graph
    takes, None: any number. What makes the outputs stays in float32: raw places of a detector have
    too few steps otherwise.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    said = {
        entry.key: entry.value
        for entry in onnx.load(exact, load_external_data=False).metadata_props
    }
    whole = exact.with_name("folded.onnx")
    root = logging.getLogger()
    noisy, handlers = root.level, list(root.handlers)
    root.setLevel(logging.ERROR)  # it writes to the root logger, and gives it a handler for that
    try:
        with quiet():
            # Convolutions and their BatchNorms become one, so that one range is chosen for both.
            quant_pre_process(exact, whole, skip_symbolic_shape=True)
            graph = onnx.load(whole).graph
            outputs = {port.name for port in graph.output}
            last = [node.name for node in graph.node if outputs & set(node.output)]
            quantization.quantize_static(
                whole,
                target,
                _Reader(images, batch, graph.input[0].name),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                # With seven, for processors without VNNI, an ImageNet network answers 7 % of the
                # images otherwise; with all eight 1 %.
                reduce_range=False,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                nodes_to_exclude=last,
            )
    finally:
        root.setLevel(noisy)
        root.handlers[:] = handlers
    model = onnx.load(target)
    del model.metadata_props[:]
    for key, value in said.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, target)


class _Reader:
    """The images as ONNX Runtime asks for them."""

    def __init__(self, images: Tensor, batch: int | None, name: str) -> None:
        self._name, self._images, self._batch = name, images, batch
        self.rewind()

    def rewind(self) -> None:
        """From the first image."""
        self._rest = self._portions()

    def _portions(self) -> Iterator[Tensor]:
        for portion in torch.split(self._images, self._batch or _AT_A_TIME):
            lacking = (self._batch or 0) - len(portion)
            yield torch.cat([portion, *[portion[-1:]] * lacking]) if lacking > 0 else portion

    def get_next(self) -> dict[str, Any] | None:
        """The next portion; None: there are no more."""
        portion = next(self._rest, None)
        return None if portion is None else {self._name: portion.contiguous().numpy()}
