"""Putting tensors into a network, and saying exactly what did and did not find its place."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from retinue.errors import RetinueError, some

log = logging.getLogger("retinue")

_COUNT = "num_batches_tracked"
"""BatchNorm's count of batches, which is no weight."""


@dataclass(frozen=True)
class ClassRows:
    """How the rows of a layer's weight and bias belong to classes: `groups` times `shared` rows
    that are no class's, followed by a row a class."""

    groups: int = 1
    shared: int = 0

    def count(self, classes: int) -> int:
        """The rows for so many classes."""
        return self.groups * (self.shared + classes)

    def classes(self, rows: int) -> int:
        """The way back; 0: so many rows are for no number of classes."""
        each, odd = divmod(rows, self.groups)
        return 0 if odd else max(0, each - self.shared)


class Loadable(Protocol):
    """What loading asks of a network."""

    @property
    def classifiers(self) -> tuple[str, ...]:
        """The layers that are as wide as there are classes."""

    def class_rows(self, name: str) -> ClassRows:
        """How the rows of one of those belong to classes."""

    def in_logits_layer(self, name: str) -> bool:
        """Whether the tensor `name` is of the layer or head that makes the logits."""

    def state_dict(self) -> dict[str, Tensor]:
        """Its tensors, which are written to."""

    def adapt(self, key: str, tensor: Tensor) -> Tensor | None:
        """`tensor` in the shape of the network's own `key`, or None."""


@dataclass(frozen=True)
class ClassNames:
    """What became of the classifier's rows, where both sides name their classes."""

    carried: tuple[str, ...]
    """Known there: their rows are taken over, to where the class stands here."""
    new: tuple[str, ...]
    """Not known there: freshly drawn."""
    gone: tuple[str, ...]
    """Known there, and not wanted here."""

    def describe(self) -> str:
        """`3 of 5 classes carried over by name, new: …; no longer: …`."""
        text = f"{len(self.carried)} of {len(self.carried) + len(self.new)} classes"
        text += " carried over by name"
        text += f", new: {_some(self.new)}" if self.new else ""
        return text + (f"; no longer: {_some(self.gone)}" if self.gone else "")


@dataclass(frozen=True)
class LoadReport:
    """What loading left undone, by key."""

    missing: tuple[str, ...] = ()
    """In the network, not among the tensors: these keep their values."""
    unexpected: tuple[str, ...] = ()
    """Among the tensors, not in the network: left out."""
    reinitialised: tuple[str, ...] = ()
    """The classifier, where the numbers of classes differ or it is not there, and a head of another
    kind than theirs: freshly drawn."""
    left_out: tuple[str, ...] = ()
    """By the checkpoint's own names: what a network of ours has no use for."""
    adapted: tuple[str, ...] = ()
    """Of another shape, and made to fit: an input layer for other channels, say."""
    classes: ClassNames | None = None
    """None: nothing is known of the names, or they are the same in the same order."""
    shared: tuple[str, ...] = ()
    """Of a classifier for other classes: where the rows that belong to no class were taken over."""
    loaded: int = 0
    total: int = 0
    """How many of the network's tensors were found, and how many it has; norms' counts aside."""
    remark: str = ""
    """What else is to be said."""

    @property
    def complete(self) -> bool:
        """Whether everything found its place, but for a classifier of another size, or none."""
        return not self.missing and not self.unexpected

    def describe(self) -> str:
        """`; missing: …; unexpected: …; re-initialised: …`, empty if there is nothing to say."""
        parts = (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("re-initialised", self.reinitialised),
            ("adapted", self.adapted),
            ("of other classes, but for the rows of boxes", self.shared),
            ("of no use here", self.left_out),
        )
        text = "".join(f"; {word}: {_some(keys)}" for word, keys in parts if keys)
        text += f"; {self.loaded} of {self.total} tensors loaded" if self.missing else ""
        text += f"; classifier: {self.classes.describe()}" if self.classes else ""
        return text + (f"; {self.remark}" if self.remark else "")


def _some(keys: tuple[str, ...], most: int = 8) -> str:
    return some(keys, most, between=", ")


def _other_head(
    network: Loadable,
    own: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    head: set[str],
    theirs: set[str],
) -> bool:
    """Whether the head that is found is another than the network's own, but for the classes."""
    if theirs - head:
        return True
    classifiers = {f"{name}.{part}" for name in network.classifiers for part in ("weight", "bias")}
    hidden = {k for k in head - classifiers if not k.endswith(_COUNT)}
    return hidden - theirs != set() or any(found[k].shape != own[k].shape for k in hidden)


@torch.no_grad()
def load_into(
    network: Loadable,
    tensors: Mapping[str, Tensor],
    *,
    classes: Sequence[str] = (),
    theirs: Sequence[str] = (),
) -> LoadReport:
    """Copy `tensors`, of the network's own key names, into `network`.

    With names of its `classes` and of `theirs`, in the order of the classifier's rows, a class
    known there keeps its row, wherever it stands; a new one's is left as it is.

    A classifier of another size, or one that is not there, is left as it is (a fresh network's is
    freshly drawn) and reported, but for rows that are no class's (a detector's boxes); so is the
    whole head, where theirs is of another kind or has other hidden layers. BatchNorm's count of
    batches is no weight: it may be missing.

    Raises:
        RetinueError: any other tensor of another shape that cannot be made to fit, or none but a
            classifier's that belongs here; a tensor that holds NaN or infinity; kernels and
            matrices that are all of them the same number throughout. Nothing has been copied then.
    """
    own = network.state_dict()
    found = dict(tensors)
    fresh: list[str] = []
    head = [key for key in own if network.in_logits_layer(key)]
    given_head = [key for key in found if network.in_logits_layer(key)]
    if _other_head(network, own, found, set(head), set(given_head)):
        for key in given_head:
            del found[key]
        fresh += head
    names = _compared(classes, theirs) if not fresh else None
    shared: list[str] = []
    for name in network.classifiers:
        keys = [key for key in (f"{name}.weight", f"{name}.bias") if key in own]
        if fresh and set(keys) <= set(fresh):
            continue
        given = [key for key in keys if key in found]
        rows = network.class_rows(name)
        alike = {key: _alike(own[key], found[key], rows) for key in given}
        resized = any(found[key].shape != own[key].shape for key in given)
        named = given and all(count == len(theirs) for count in alike.values())
        if names and named and (names.carried or rows.shared):
            for key in given:
                found[key] = _by_name(own[key], found[key], rows, classes, theirs)
            shared += given if not names.carried else []
        elif rows.shared and given and all(alike.values()) and (names or resized):
            for key in given:
                found[key] = _by_name(own[key], found[key], rows, (), ("",) * alike[key])
            shared += given
        elif names or not given or resized:
            fresh += keys  # as many classes, maybe, but others
            for key in given:
                del found[key]
    adapted: list[str] = []
    unfit: list[str] = []
    for key, tensor in found.items():
        if key not in own or tensor.shape == own[key].shape:
            continue
        made = network.adapt(key, tensor)
        if made is not None and made.shape == own[key].shape:
            found[key] = made
            adapted.append(key)
        else:
            unfit.append(f"{key} is {tuple(tensor.shape)}, not {tuple(own[key].shape)}")
    if unfit:
        raise RetinueError(
            f"the weights belong to another network: {_some(tuple(unfit), 3)}",
            mend="choose the network that they were made for",
            details=unfit if len(unfit) > 3 else (),
        )
    if not any(key in own for key in found):
        raise RetinueError(
            "the weights belong to another network: there is none of its tensors among"
            f" {_some(tuple(found), 3) or 'them'}",
            mend="choose the network that they were made for",
        )
    _refuse_untrained({key: tensor for key, tensor in found.items() if key in own})
    for key, tensor in own.items():
        if key in found:
            tensor.copy_(found[key])
    left = (k for k in own if k not in found and k not in fresh)
    weights = [k for k in own if not k.endswith(_COUNT)]
    return LoadReport(
        missing=tuple(k for k in left if not k.endswith(_COUNT)),
        unexpected=tuple(key for key in found if key not in own),
        reinitialised=tuple(fresh),
        adapted=tuple(adapted),
        classes=names,
        shared=tuple(shared),
        loaded=sum(k in found for k in weights),
        total=len(weights),
    )


def _refuse_untrained(tensors: Mapping[str, Tensor]) -> None:
    """What a copy that broke off, or a diverged training, left behind is no start for another."""
    spoilt, constant, kernels = [], [], 0
    for key, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        least, most = (float(value) for value in tensor.float().aminmax())
        if not math.isfinite(least) or not math.isfinite(most):
            spoilt.append(key)
        elif tensor.dim() > 1 and tensor.numel() > 1:  # gains are 1, and shifts 0, in good faith
            kernels += 1
            if least == most:
                constant.append(f"{key} is {least:g} throughout")
    if spoilt:
        raise RetinueError(
            f"the weights hold NaN or infinity: {_some(tuple(spoilt))}",
            mend="take another file of them: of these no answer would be a number",
            details=spoilt if len(spoilt) > 8 else (),
        )
    if constant and len(constant) == kernels:
        raise RetinueError(
            f"nothing has been learnt in these weights: {_some(tuple(constant), 3)}",
            mend="take another file of them, or model.weights=null to begin with random ones",
        )
    if constant:
        log.warning("of the weights, %s: nothing has been learnt there", _some(tuple(constant)))


def _compared(classes: Sequence[str], theirs: Sequence[str]) -> ClassNames | None:
    """None: nothing to do by name."""
    if not classes or not theirs or list(classes) == list(theirs):
        return None
    here, there = set(classes), set(theirs)
    return ClassNames(
        carried=tuple(name for name in classes if name in there),
        new=tuple(name for name in classes if name not in there),
        gone=tuple(name for name in theirs if name not in here),
    )


def _alike(own: Tensor, found: Tensor, rows: ClassRows) -> int:
    """For how many classes `found` is, of a layer that is `own` but for those; 0: of another."""
    return rows.classes(len(found)) if found.ndim and own.shape[1:] == found.shape[1:] else 0


def _by_name(
    own: Tensor,
    found: Tensor,
    layout: ClassRows,
    classes: Sequence[str],
    theirs: Sequence[str],
) -> Tensor:
    """The classifier's weight or bias with the rows of `found` at the places of their classes, and
    those that are no class's; `own` rows where there is none."""
    there = {name: row for row, name in enumerate(theirs)}
    known = [(i, there[name]) for i, name in enumerate(classes) if name in there]
    rows = own.clone().reshape(layout.groups, -1, *own.shape[1:])
    given = found.to(rows.dtype).reshape(layout.groups, -1, *own.shape[1:])
    rows[:, : layout.shared] = given[:, : layout.shared]
    to = [layout.shared + i for i, _ in known]
    rows[:, to] = given[:, [layout.shared + row for _, row in known]]
    return rows.flatten(0, 1)
