"""Explaining many images, by one model or by several side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from retinue.errors import BadImageError, RetinueError, UsageError, suggest
from retinue.explaining.checking import centre_map, check
from retinue.explaining.explained import Explained, Row
from retinue.explaining.explanation import Explanation
from retinue.explaining.folder import ExplanationFolder
from retinue.explaining.looking import the_network
from retinue.explaining.methods import HEATMAP, chosen, explain
from retinue.explaining.pictures import side_by_side
from retinue.explaining.sheets import (
    FEATURES,
    KERNELS,
    SHEETS,
    feature_maps,
    kernels,
    levels_of,
    position_maps,
)
from retinue.inference.predictor import Predictor, Skipped, original
from retinue.inference.video import is_stream, is_video
from retinue.sample import Pixels, Sample


@dataclass(frozen=True, slots=True)
class Column:
    """A model and a way to explain it: one of the pictures of an image."""

    model: str
    """The path that was given."""
    predictor: Predictor
    method: str

    @classmethod
    def of(cls, model: str, predictor: Predictor, method: str, target: str | None) -> Column:
        """What will not do is refused before any image is read, with the model's name. Raises
        UsageError."""
        try:
            settled = chosen(predictor, method, target)
        except RetinueError as error:
            error.name(model)
            raise
        return cls(model, predictor, settled)


@dataclass
class Explanations:
    """What came of it."""

    images: int = 0
    """Images that have an explanation."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Images that have none, with the reasons."""
    files: list[Path] = field(default_factory=list)
    """What was written; of pictures their folder."""
    results: list[Explained] = field(default_factory=list)
    """In order, unless they went to `each`."""


def explain_all(
    columns: Sequence[Column],
    paths: Iterable[str],
    *,
    target: str | None = None,
    out: Path | None = None,
    base: Path | None = None,
    checked: bool = False,
    sheets: Sequence[str] = (),
    stop: bool = False,
    each: Callable[[Explained], None] | None = None,
) -> Explanations:
    """Explain what `paths` name, in order, and write the pictures to `out`; one at a time, so that
    there may be any number. `checked`: with the figures of `checking.check`, and the same of a map
    that only knows the middle. `sheets`: what of `SHEETS` is drawn of the first model. Unreadable
    images, and videos, are skipped and named, or with `stop` raise BadImageError.

    Raises UsageError for sheets that the network cannot have, and for a check that no one class is
    meant for."""
    done = Explanations()
    first = columns[0].predictor
    drawn = {kind: _drawn(kind, first) for kind in sheets}
    if checked and target is None and any(column.method == HEATMAP for column in columns):
        raise UsageError(
            "the check is of one class, and this heat map is of everything that was found",
            where="key target", mend="name the class: target=CLASS (--target CLASS)",
        )  # fmt: skip
    with ExitStack() as stack:
        folder = None
        if out is not None:
            folder = stack.enter_context(ExplanationFolder.at(out, base or Path.cwd()))
            for kind, sheet in drawn.items():
                if sheet is not None:
                    folder.sheet(kind, sheet)
        for path in paths:
            try:
                explained, picture = _explained(columns, path, target, checked)
                maps = feature_maps(first, Sample(path)) if FEATURES in drawn else None
            except BadImageError as error:
                if stop:
                    raise
                done.skipped[path] = reason = "; ".join(error.reasons.values())
                if folder is not None:
                    folder.skip(Skipped(path, reason))
                continue
            if folder is not None:
                folder.add(explained, picture)
                if maps is not None:
                    folder.sheet(FEATURES, maps, explained)
            done.images += 1
            (each or done.results.append)(explained)
    if folder is not None:
        done.files = folder.files
    return done


def _drawn(kind: str, predictor: Predictor) -> Pixels | None:
    """The sheet that is the same for all images; None of one that is drawn of each."""
    if kind not in SHEETS:
        raise UsageError(
            f"unknown sheet {kind!r}",
            where="key sheets",
            mend=suggest(kind, SHEETS) or f"there are {', '.join(SHEETS)}",
        )
    network = the_network(predictor)
    if kind == FEATURES:
        levels_of(network)
        return None
    return kernels(network) if kind == KERNELS else position_maps(network)


def _explained(
    columns: Sequence[Column], path: str, target: str | None, checked: bool
) -> tuple[Explained, Pixels]:
    if is_video(path) or is_stream(path):
        raise BadImageError({path: "a video, and only images are explained"})
    image = original(Sample(path), columns[0].predictor.preprocessing)
    found = [explain(c.predictor, path, method=c.method, target=target) for c in columns]
    rows = [
        Row(
            column.model, one.target, one.score, one.method,
            _figures(column.predictor, image, one) if checked else {},
        )
        for column, one in zip(columns, found, strict=True)
    ]  # fmt: skip
    return Explained(path, rows), _picture(columns, image, found)


def _figures(predictor: Predictor, image: Pixels, found: Explanation) -> dict[str, float]:
    """Of the map, and of one that only knows where the middle is."""
    own = check(predictor, image, found)
    height, width = found.heat.shape
    middle = check(predictor, image, centre_map((width, height)), found.target)
    return {
        "deletion": own.deletion, "insertion": own.insertion,
        "deletion_of_the_middle": middle.deletion, "insertion_of_the_middle": middle.insertion,
    }  # fmt: skip


def _picture(columns: Sequence[Column], image: Pixels, found: Sequence[Explanation]) -> Pixels:
    """Of a single explanation the overlay; of several the image and all of them in a row."""
    if len(found) == 1:
        return found[0].overlay(image)
    names = titles(columns)
    said = [["image", ""]]
    for name, one in zip(names, found, strict=True):
        said.append([name, f"{one.score:.1%} {one.target or 'everything found'}"])
    return side_by_side([image, *(one.overlay(image) for one in found)], said)


def titles(columns: Sequence[Column]) -> list[str]:
    """What tells the columns apart, as short as it can be."""
    networks = [column.predictor.description.network for column in columns]
    models = {column.model for column in columns}
    alike = len({(n, c.method) for n, c in zip(networks, columns, strict=True)}) < len(columns)
    several = len({column.method for column in columns}) > 1
    return [
        " ".join(
            [*([column.model if alike else network] if len(models) > 1 else []),
             *([column.method] if several or len(models) == 1 else [])]
        )
        for network, column in zip(networks, columns, strict=True)
    ]  # fmt: skip
