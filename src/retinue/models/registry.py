"""Every network by its name, with the facts about it."""

from __future__ import annotations

import importlib
import inspect
import logging
import pkgutil
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from retinue.errors import RetinueError, UsageError
from retinue.models import lookup, names
from retinue.models.arguments import counted_classes, refuse_arguments
from retinue.models.heads import LINEAR, build_head, head_choice
from retinue.models.names import Called
from retinue.models.network import Builder, Network
from retinue.sample import Preprocessing
from retinue.text import first_line
from retinue.weights import catalogue
from retinue.weights.catalogue import WeightsEntry
from retinue.weights.layout import OURS, Shapes, layouts, left_out, settled, translate
from retinue.weights.loading import LoadReport, load_into
from retinue.weights.resolution import (
    Backbone,
    ResolvedWeights,
    at_hand,
    names_a_file,
    resolve,
)
from retinue.weights.strange_head import with_head

log = logging.getLogger("retinue")

_DEFAULT_CLASSES = 1000
"""Of every classifier, unless it is told."""


@dataclass(frozen=True, kw_only=True)
class NetworkEntry:
    """What is known of a network before it is built."""

    name: str
    family: str
    build: Builder
    """Takes keywords only: `num_classes`, `in_channels`, `dropout`, `drop_path` and its own. One
    that builds on another network takes `backbone`, its name or itself, and
    `backbone_arguments`."""
    preprocessing: Preprocessing
    """That of the network's native size; a set of weights may bring another."""
    parameters: int
    """Trainable ones, with 1,000 classes; a detector's with 80."""
    macs: int
    """Multiply-adds of convolutions, linear layers and attention's two products for one image of
    the native size."""
    paper: str
    reference: str
    """Where the same network is found elsewhere, for comparison."""
    kind: Literal["classifier", "detector"] = "classifier"
    as_backbone: Mapping[str, Any] = field(default_factory=dict)
    """Keywords with which it is built as a detector's backbone, as published."""
    made_by: Any = None
    """What `build` calls of another library, where it does."""
    described_by: Mapping[str, str] = field(default_factory=dict)
    """Files that describe it: suffix → the keyword that takes the path, or the file's text."""

    def prepared(self, weights: WeightsEntry) -> Preprocessing:
        """How images are prepared for `weights`, one of its published sets."""
        if weights.preprocessing is not None:
            return weights.preprocessing
        layout = next(x for x in layouts(self.family) if x.source == weights.layout)
        return replace(self.preprocessing, **layout.preprocessing)


_ENTRIES: dict[str, NetworkEntry] = {}


def register(entry: NetworkEntry) -> None:
    """Make `entry` known by its name. Raises ValueError if the name is taken."""
    if entry.name in _ENTRIES:
        raise ValueError(f"network {entry.name!r} is already registered")
    _ENTRIES[entry.name] = entry


@cache
def _load_families() -> None:
    """A family is a module of this package that has its networks in `ENTRIES`."""
    package = importlib.import_module("retinue.models")
    for found in sorted(pkgutil.iter_modules(package.__path__), key=lambda module: module.name):
        module = importlib.import_module(f"{package.__name__}.{found.name}")
        for entry in getattr(module, "ENTRIES", ()):
            register(entry)


def _of_library(name: str) -> tuple[NetworkEntry, Called] | None:
    """A network that another library builds, known once it is asked for, and what the name means.
    Raises UsageError where that has none of the name."""
    library, slash, _ = name.partition("/")
    if not slash or not lookup.of_a_library(name):
        return None
    found: tuple[NetworkEntry, Called]
    found = importlib.import_module(f"retinue.models.{library}").look_up(name)
    return found


def _entry(name: str) -> NetworkEntry:
    """That of a network's own name."""
    if (own := _ENTRIES.get(name)) is not None:
        return own
    other = _of_library(name)
    assert other is not None, name
    return other[0]


def called(name: str) -> Called:
    """The network that `name` means, as it is called here or in another library
    (`models.names`), and which of its weights, if the name says that: `resnet50.a1_in1k`.

    Raises:
        UsageError: no such network, with the nearest names; or none of its weights is called so.
    """
    _load_families()
    if (found := lookup.called(name, _ENTRIES)) is not None:
        return found
    if (other := _of_library(name)) is not None:
        return other[1]
    raise lookup.unknown(name, _ENTRIES)


def with_tag(meant: Called, weights: Any) -> Any:
    """The `weights` that are asked for; where that is the usual set, those that the network's name
    tells."""
    return meant.tag if meant.tag and weights == "imagenet" else weights


def find(name: str) -> NetworkEntry:
    """The entry of what is called `name`, here or elsewhere. Raises UsageError, with the nearest
    names, if there is none."""
    return _entry(called(name).network)


def is_network(name: str) -> bool:
    """Whether a network is called `name`, here or elsewhere."""
    _load_families()
    return lookup.of_a_library(name) or names.look_up(name, _ENTRIES) is not None


def list_models(
    pattern: str = "*", *, kind: Literal["classifier", "detector"] | None = None
) -> list[str]:
    """Names of all networks, or of one kind, that match the shell-style `pattern`, sorted; where
    none does, of those that another library calls so."""
    _load_families()
    return lookup.matching(pattern, _ENTRIES.values(), kind)


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    classes: Sequence[str] = (),
    weights: str | Path | None = None,
    dropout: float | None = None,
    drop_path: float | None = None,
    head: str | Mapping[str, Any] | None = None,
    partial_weights: bool = False,
    **arguments: Any,
) -> Network:
    """The network called `name`, in training mode, on the default device.

    `.eval()` makes it a function of images, float32 (n, 3, height, width), normalised as its
    `preprocessing` says, to logits (n, classes); in training mode it gives a dict with `logits`.

    Args:
        num_classes: the width of the classifier, None: as many as `classes`, else 1,000; weights
            for another number of classes keep all but their classifier, which is drawn anew, and
            that is logged.
        classes: their names, in order. With them, and weights from a model file, the classifier's
            rows go by name: a class that the file knows keeps its row wherever it stands, the
            others are drawn anew, and that is logged.
        weights: a tag of the catalogue ("imagenet"), a file or folder (docs/weights.md),
            `hub:OWNER/REPO@REVISION/FILE`, or None for fresh weights.
        dropout: probability before the classifier; None: as published.
        drop_path: stochastic depth, rising evenly from 0 at the first block towards this rate;
            None: as published. 0 of this or of `dropout` suits networks that have none, too.
        head: what makes logits of the pooled feature (see `models.heads`): a name or a mapping,
            `{"name": "mlp", "hidden": [64]}`; None: as a model file has it, else linear, as
            published. Weights load with any head; one that they do not have is drawn anew, and
            that is logged.
        partial_weights: accept weights that lack tensors (less than half) or have more; the log
            names them.
        arguments: further keywords of the family (`in_channels`, `width` …). An `image_size`
            becomes the size of the network's preprocessing, too.

    Raises:
        UsageError: unknown name or keyword, impossible value.
        RetinueError: weights that cannot be found or read, or do not fit.
    """
    meant = called(name)
    entry = _entry(meant.network)
    weights = with_tag(meant, weights)
    num_classes = counted_classes(num_classes, classes)
    given = {"num_classes": num_classes, "dropout": dropout, "drop_path": drop_path, **arguments}
    # A network that takes no such argument has a rate of 0.
    absent = {"dropout", "drop_path"} - set(inspect.signature(entry.build).parameters)
    keywords = {
        key: value
        for key, value in given.items()
        if value is not None and not (key in absent and value == 0)
    }
    refuse_arguments(entry.name, entry.build, keywords)
    if head is not None and entry.kind != "classifier":
        raise UsageError(f"{entry.name} has a head of its own: it takes none", where="head")
    wanted = Wanted(head, classes, partial_weights)
    resolved = _resolved(entry, weights, keywords) if weights is not None else None
    below = _backbone(entry, keywords)
    if below is None or resolved is None or not resolved.of_backbone:
        return _created(entry, keywords, resolved, wanted)
    backbone = _created_backbone(below, keywords, resolved, partial_weights)
    network = _created(entry, {**keywords, "backbone": backbone}, None, wanted)
    behind = _first_among(network, _not_of(network, backbone))
    network.first_drawn = min(behind, backbone.first_drawn)  # their units are numbered alike
    own = backbone.preprocessing
    network.preprocessing = replace(network.preprocessing, mean=own.mean, std=own.std)
    loaded, total = (len(part.state_dict()) for part in (backbone, network))
    fresh = "neck and head are drawn anew"
    log.info("%s: %d of %d tensors are its backbone's; %s", entry.name, loaded, total, fresh)
    return network


def published(
    name: str, tag: str, arguments: Mapping[str, Any]
) -> tuple[dict[str, Any], Preprocessing]:
    """What the catalogue's weights `tag`, of the network `name` or of the backbone that `arguments`
    build it on, want it to be built with, and how they take images. Raises UsageError where there
    are none."""
    entry = find(name)
    below = _backbone(entry, arguments)
    if below is not None and all(known.tag != tag for known in catalogue.entries(entry.name)):
        own = below.prepared(catalogue.find(below.name, tag))
        return {}, replace(entry.preprocessing, mean=own.mean, std=own.std)
    weights = catalogue.find(entry.name, tag)
    layout = next(x for x in layouts(entry.family) if x.source == weights.layout)
    return {**layout.arguments, **weights.arguments}, entry.prepared(weights)


@dataclass(frozen=True)
class Wanted:
    """What is asked of a network beside its keywords, see `create_model`."""

    head: str | Mapping[str, Any] | None = None
    classes: Sequence[str] = ()
    partial_weights: bool = False


def create_backbone(name: str, arguments: Mapping[str, Any] | None) -> Network:
    """The network called `name`, with fresh weights, for a detector to build on: as `create_model`,
    but for what published detectors have it built with. Raises UsageError for a detector."""
    entry = find(name)
    if entry.kind != "classifier":
        raise UsageError(f"{entry.name} is a detector, not a backbone for one")
    return create_model(entry.name, **{"num_classes": 1, **entry.as_backbone, **(arguments or {})})


def _created_backbone(
    entry: NetworkEntry,
    keywords: Mapping[str, Any],
    resolved: ResolvedWeights,
    partial_weights: bool,
) -> Network:
    """With the weights that are found for it alone; `keywords` are the detector's."""
    own = {**entry.as_backbone, **keywords.get("backbone_arguments", {})}
    if "drop_path" in keywords:
        own["drop_path"] = keywords["drop_path"]
    # Its classifier is loaded, too, so that the file is seen to be whole, and then thrown away.
    own["num_classes"] = len(resolved.classes) or _DEFAULT_CLASSES
    refuse_arguments(entry.name, entry.build, own)
    return _created(entry, own, resolved, Wanted(partial_weights=partial_weights))


def _created(
    entry: NetworkEntry,
    keywords: Mapping[str, Any],
    resolved: ResolvedWeights | None,
    wanted: Wanted,
) -> Network:
    name, head, given = entry.name, wanted.head, keywords
    if resolved is not None:
        brought = dict(resolved.arguments)
        written = brought.pop("head", None)
        head = written if head is None else head
        theirs = brought.get("backbone")
        if theirs and called(keywords.get("backbone", theirs)).network != theirs:
            raise RetinueError(
                f"the weights are for the backbone {theirs}, not {keywords['backbone']}",
                where=resolved.source,
                mend=f"build on {theirs} (in a recipe: model.arguments.backbone={theirs})",
            )
        keywords = {**brought, **keywords}
        if isinstance(inner := brought.get("backbone_arguments"), Mapping):
            keywords["backbone_arguments"] = {**inner, **given.get("backbone_arguments", {})}
        # A file's arguments need not be possible ones, either.
        refuse_arguments(entry.name, entry.build, keywords)
    chosen = head_choice(LINEAR if head is None else head)
    bound = inspect.signature(entry.build).bind(**keywords)
    bound.apply_defaults()  # written down whole, so that a later default changes nothing
    try:
        network = entry.build(**bound.kwargs)
        if chosen != LINEAR:  # which every family brings
            width = bound.arguments["num_classes"]
            network.replace_head(build_head(chosen, network.pooled_features, width))
    except (KeyError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        shown = {k: v.name if isinstance(v, Network) else v for k, v in keywords.items()}
        said = ", ".join(f"{key}={reprlib.repr(value)}" for key, value in shown.items())
        raise UsageError(
            f"{name} cannot be built with {said}: {type(error).__name__} {first_line(error)}",
            mend="leave out what is not a size of the family's",
        ) from error
    network.name = name
    network.arguments = {**bound.kwargs, **network.settled}
    if chosen != LINEAR:
        network.arguments["head"] = chosen
    network.preprocessing = entry.preprocessing
    if network.native_size is not None:
        network.preprocessing = replace(entry.preprocessing, size=network.native_size)
    if resolved is not None:
        network.preprocessing = resolved.preprocessing or replace(
            network.preprocessing, **resolved.layout.preprocessing
        )
    known = resolved.preprocessing if resolved is not None else None
    side = (keywords if known is None else given).get("image_size")
    if side is not None:
        network.preprocessing = replace(network.preprocessing, size=(side, side))
    if resolved is not None:
        report = _fill(network, resolved, wanted.classes)
        sizes = {
            key: tensor.numel()
            for key, tensor in network.state_dict().items()
            if key not in report.reinitialised
        }
        mostly = sum(sizes[key] for key in report.missing) > sum(sizes.values()) / 2
        if mostly or not (report.complete or wanted.partial_weights):
            mend = "choose the network they belong to"
            if not mostly:
                mend += (
                    ", or allow it with partial_weights=True"
                    " (in a recipe: model.arguments.partial_weights=true)"
                )
            raise RetinueError(
                f"the weights do not fit {name}{report.describe()}",
                where=resolved.source,
                mend=mend,
            )
        network.first_drawn = _first_among(network, [*report.missing, *report.reinitialised])
    return network


def _not_of(network: Network, backbone: Network) -> list[str]:
    """The tensors of `network` that are not those of its `backbone`."""
    loaded = {id(tensor) for tensor in backbone.state_dict(keep_vars=True).values()}
    each = network.state_dict(keep_vars=True).items()
    return [key for key, tensor in each if id(tensor) not in loaded]


def _first_among(network: Network, keys: Sequence[str]) -> int:
    """The first unit that has one of the tensors, or the number of units."""
    names = [unit.name for unit in network.units()]
    holding = (i for i, name in enumerate(names) for key in keys if key.startswith(f"{name}."))
    return next(holding, len(names))


def _backbone(entry: NetworkEntry, keywords: Mapping[str, Any]) -> NetworkEntry | None:
    """The network that `entry` builds on, if it does."""
    parameter = inspect.signature(entry.build).parameters.get("backbone")
    return find(keywords.get("backbone", parameter.default)) if parameter is not None else None


def _resolved(
    entry: NetworkEntry, weights: str | Path, keywords: Mapping[str, Any]
) -> ResolvedWeights:
    """The weights of a network, or of its backbone alone; where they are not to be had, the error
    names a network that has some on this machine."""
    below = _backbone(entry, keywords)
    part = Backbone(below.name, below.family, below.parameters) if below is not None else None
    try:
        return resolve(entry.name, entry.family, weights, backbone=part)
    except RetinueError as error:
        entry = below or entry
        tag = isinstance(weights, str) and not names_a_file(weights) and ":" not in weights
        missing = not any(w.tag == weights for w in catalogue.entries(entry.name))
        if not tag or (missing and any(catalogue.entries(entry.name))):
            raise
        other = nearest_at_hand(entry)
        hint = f"; {other.network} has {other.tag!r} on this machine" if other else ""
        raise type(error)(error.what, where=error.where, mend=f"{error.mend}{hint}") from error


def nearest_at_hand(entry: NetworkEntry) -> WeightsEntry | None:
    """Weights on this machine, of the network that is most like `entry`: of its family, and as
    large; of ImageNet's 1,000 classes rather than others."""
    _load_families()
    return lookup.nearest(entry, _ENTRIES, at_hand)


def _fill(network: Network, resolved: ResolvedWeights, classes: Sequence[str]) -> LoadReport:
    """Put the tensors in their places, and say what became of them: a warning, if anything was left
    out, drawn anew or adapted."""
    own = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    resolved = replace(resolved, layout=settled(resolved.layout, resolved.tensors, own))
    shapes = _shapes(network, resolved, own)
    tensors, head = with_head(resolved.layout, resolved.tensors, shapes, network.logits_layer)
    found = (resolved.layout, tensors, shapes)
    try:
        report = load_into(network, translate(*found), classes=classes, theirs=resolved.classes)
    except RetinueError as error:
        where = f"{resolved.source} for {network.name}"
        raise RetinueError(error.what, where=where, mend=error.mend) from error
    report = replace(report, left_out=left_out(*found), remark=head)
    parameters = inspect.signature(find(network.name).build).parameters
    defaults = {"head": None, **{key: p.default for key, p in parameters.items()}}
    brought = ", ".join(
        f"{key}={network.arguments[key]!r}"
        for key in resolved.arguments
        if network.arguments.get(key, defaults[key]) != defaults[key]
    )
    notes = f"; built with {brought}" if brought else ""
    # A file's classifier may be of other classes, even where there are as many.
    unsaid = not (report.reinitialised or report.classes or report.shared)
    if resolved.tag is None and unsaid and report.complete:
        notes += "; classifier kept, too"
    text = f"{network.name}: weights from {resolved.source}{notes}{report.describe()}"
    log.log(logging.WARNING if report.describe() else logging.INFO, "%s", text)
    return report


def _shapes(network: Network, resolved: ResolvedWeights, shapes: Shapes) -> Shapes:
    """Of the network's own tensors, whose `shapes` these are, by key; of those that the weights'
    layout tells of: most other libraries have one linear layer where a head may be here."""
    if resolved.layout.source == OURS or "head" not in network.arguments:
        return shapes
    theirs = resolved.arguments.get("head") or {}
    if theirs.get("name") == network.arguments["head"]["name"]:
        return shapes
    classes = network.arguments["num_classes"]
    return {
        **{key: shape for key, shape in shapes.items() if not network.in_logits_layer(key)},
        f"{network.logits_layer}.weight": (classes, network.pooled_features),
        f"{network.logits_layer}.bias": (classes,),
    }
