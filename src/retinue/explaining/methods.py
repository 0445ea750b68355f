"""Explaining an answer, and the ways to do it by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from retinue.errors import RetinueError, UsageError, suggest
from retinue.explaining.activation import gradcam, gradcam_plus_plus, scorecam
from retinue.explaining.attention import rollout, tokens_of
from retinue.explaining.explanation import Explanation
from retinue.explaining.looking import Cells, Look, look, seen, the_network
from retinue.inference.heat import warmth
from retinue.inference.predictor import Heat, Predictor, Source, as_sample, spread_over
from retinue.sample import Batch, Sample

HEATMAP = "heatmap"
_OF_NETWORKS: Mapping[str, Callable[[Look], Cells]] = MappingProxyType(
    {
        "gradcam": gradcam,
        "gradcam++": gradcam_plus_plus,
        "scorecam": scorecam,
        "rollout": rollout,
    }
)
METHODS = (*_OF_NETWORKS, HEATMAP)
"""All but `auto`, which is `heatmap` for what says where things lie, `rollout` for transformers,
and `gradcam` for all others."""


def explain(
    predictor: Predictor, image: Source, *, method: str = "auto", target: str | None = None
) -> Explanation:
    """Where `image` holds what speaks for a class in the predictor's answer.

    Args:
        image: an RGB uint8 array (height, width, 3), a path, encoded bytes, or a Pillow image.
        method: one of `METHODS`, or `auto`.
        target: the class that is asked for; None: the best one, or with `heatmap` whatever was
            found.

    The map is of one network and its plain view, whatever views test-time augmentation joins;
    `heatmap` takes all views and networks.

    Raises:
        UsageError: an unknown method or class; a method that does not suit the network or the task.
        BadImageError: the image cannot be read.
        RetinueError: the answer, or the map, is not finite.
    """
    return explain_sample(predictor, as_sample(image, "the image"), method=method, target=target)


def explain_sample(
    predictor: Predictor, sample: Sample, *, method: str = "auto", target: str | None = None
) -> Explanation:
    """`explain`, of an image wherever it lies."""
    method = chosen(predictor, method, target)
    return explain_batch(predictor, seen(predictor, sample), method=method, target=target)


def explain_batch(
    predictor: Predictor,
    batch: Batch,
    *,
    method: str = "auto",
    target: str | None = None,
    most_side: int | None = None,
) -> Explanation:
    """`explain`, of one image as the predictor gets it. With `most_side`, a larger image has a map
    whose longer side is that many pixels."""
    method = chosen(predictor, method, target)
    of = None if target is None else predictor.classes.index(target)
    (finding,) = predictor.findings(batch)
    scores = predictor.task.class_scores(finding)
    best = int(scores.argmax()) if of is None else of
    name, heat = predictor.classes[best], []
    if method == HEATMAP:
        heat = _evidence(predictor, batch, of)
        name = name if of is not None else ""
    else:
        cells = _OF_NETWORKS[method](look(predictor, batch, best))
        heat = [spread_over(scaled(cells, method), batch, 0)]
    width, height = batch.original_size[0].tolist()
    shrunk = min(1.0, (most_side or np.inf) / max(width, height))
    size = max(round(width * shrunk), 1), max(round(height * shrunk), 1)
    return Explanation(
        heat=np.clip(warmth(heat, size, shrunk), 0, 1),
        target=name,
        score=float(scores[best]),
        method=method,
    )


def chosen(predictor: Predictor, method: str, target: str | None = None) -> str:
    """The method that `method` is for this predictor. UsageError for an unknown one, for one that
    does not suit the network or the task, and for a `target` that is none of the classes."""
    if target is not None:
        _check_target(predictor, target)
    if method not in ("auto", *METHODS):
        known = ("auto", *METHODS)
        raise UsageError(
            f"unknown method {method!r}",
            where="key method",
            mend=suggest(method, known) or f"there are {', '.join(known)}",
        )
    if method == HEATMAP or (method == "auto" and predictor.task.shows_evidence()):
        predictor.task.refuse_evidence()  # which an export may have to do
        return HEATMAP
    network, size = the_network(predictor), predictor.preprocessing.size
    if method == "auto":
        method = "gradcam" if network.tokens(size) is None else "rollout"
    if method == "rollout":
        tokens_of(network, size)
    else:
        network.halves(size)
    return method


def scaled(cells: Cells, method: str) -> Cells:
    """With 1 for the highest; all 0 stay so. RetinueError for what is not finite."""
    if not np.isfinite(cells).all():
        raise RetinueError(
            f"the map that {method} gives is not finite",
            mend="try another method, or train the model anew with a lower optimizer.lr",
        )
    most = float(cells.max())
    return cells / most if most > 0 else cells


def _check_target(predictor: Predictor, target: str) -> None:
    if target not in predictor.classes:
        known = predictor.classes
        shown = ", ".join(map(repr, known[:10])) + (" …" if len(known) > 10 else "")
        raise UsageError(
            f"the model does not know the class {target!r}",
            where="key target",
            mend=suggest(target, known) or f"it knows {shown}",
        )


def _evidence(predictor: Predictor, batch: Batch, of: int | None) -> list[Heat]:
    """Of each view and network."""
    return [
        spread_over(member.task.evidence(outputs, view, of)[0], view, 0)
        for view, inputs in predictor.inputs(batch)
        for member, outputs in zip(predictor.members, predictor.outputs(inputs), strict=True)
    ]
