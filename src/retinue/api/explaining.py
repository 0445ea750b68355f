"""What answers rest on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from retinue.api.names import several

if TYPE_CHECKING:
    from retinue.explaining.asking import Explanations
    from retinue.explaining.explained import Explained


def explain(
    model: str | Path,
    sources: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    method: str | Sequence[str] = "auto",
    target: str | None = None,
    beside: str | Path | Sequence[str | Path] = (),
    check: bool = False,
    sheets: Sequence[str] = (),
    device: str = "auto",
    on_bad_image: Literal["skip", "stop"] = "skip",
    each: Callable[[Explained], None] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Explanations:
    """What the answers of a model file or run folder rest on, of files, folders, patterns,
    `@list.txt` or `-` (paths on standard input).

    `out`: a folder for the pictures, `explained/`, each called like its image, and for
    `explanations.jsonl`. `method`: one of `retinue.explaining.METHODS`, or several, side by side
    on each picture; `auto` suits the network. `target`: the class that is asked for, by default
    each image's best one. `beside`: other models, whose maps stand beside this one's. `check`:
    whether the maps matter, by deletion and insertion (`retinue.explaining.check`), which looks at
    each image some 130 times. `sheets`: what the model holds, in `sheets/`: `kernels` (of the first
    layer), `features` (the maps of each level, an image), `positions` (of a transformer).
    `options`: see `load`. For one image, as an array, there is `retinue.explaining.explain`.

    Raises UsageError for what does not suit a model, before any image is read.
    """
    import sys

    from retinue.explaining.asking import Column, explain_all
    from retinue.inference.inputs import expand
    from retinue.inference.predictor import load
    from retinue.inference.writers import common_base
    from retinue.modelfile import find_model

    others = [beside] if isinstance(beside, str | Path) else list(beside)
    models = [Path(one) for one in (model, *others)]
    for one in models:
        find_model(one)  # which may be missing, whatever there is to explain
    methods = [method] if isinstance(method, str) else list(method)
    named = several(sources)
    paths = expand(named, sys.stdin, out=out, say=logging.getLogger("retinue").warning)
    columns = []
    for one in models:
        predictor = load(one, device=device, options=options)
        columns += [Column.of(str(one), predictor, how, target) for how in methods]
    return explain_all(
        columns,
        paths,
        target=target,
        checked=check,
        sheets=[sheets] if isinstance(sheets, str) else list(sheets),
        out=None if out is None else Path(out),
        base=common_base(named),
        stop=on_bad_image == "stop",
        each=each,
    )
