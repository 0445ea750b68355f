"""Answers for images, and how long they take."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from retinue.api.names import EngineName, PrecisionName, PredictEngineName, several
from retinue.text import counted

if TYPE_CHECKING:
    from retinue.inference.predictor import Predictor
    from retinue.sample import Result


def load(
    model: str | Path | Sequence[str | Path],
    *,
    device: str = "auto",
    engine: EngineName = "auto",
    precision: PrecisionName = "fp32",
    tta: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Predictor:
    """The model file or run folder `model`, ready: `load(MODEL)(image)` gives a `Result`. Several
    answer together. `tta`: test-time augmentation, `none`, `flip` or `dihedral`; by default as the
    model was evaluated. `options` of its task that say what is answered: `{"confidence": 0.3}`.
    `precision`: `bf16`, which is taken only where it is faster here; `int8`, whose ranges are
    chosen by the images that the model was trained on, and whose cost is told."""
    how: dict[str, Any] = {"device": device, "engine": engine, "tta": tta, "options": options}
    if precision == "int8":
        from retinue.training.evaluation import load_in

        return load_in([Path(one) for one in several(model)], precision=precision, **how)
    from retinue.inference import predictor

    return predictor.load(model, precision=precision, **how)


@dataclass(frozen=True)
class Predictions:
    """What a prediction left."""

    images: int
    """Images that have an answer."""
    skipped: dict[str, str]
    """Images that have none, with the reasons."""
    files: list[Path]
    """What was written; of files of one image each their folder."""
    results: list[Result]
    """The answers, in order, unless they went to files or to `each`."""
    counts: dict[str, Any] | None = None
    """How many of what, if that was asked for: see `retinue.inference.counting`."""
    frames: int = 0
    """How many of the images are frames of videos."""

    def looked_at(self) -> str:
        """`6 images and 24 frames`."""
        still = self.images - self.frames
        parts = [counted(still, "image")] if still or not self.frames else []
        parts += [counted(self.frames, "frame")] if self.frames else []
        return " and ".join(parts)

    def __repr__(self) -> str:
        parts = [self.looked_at()]
        parts += [f"{len(self.skipped):,} skipped"] if self.skipped else []
        parts += [counted(len(self.files), "file")] if self.files else []
        first = f"; {self.results[0]!r}" if self.results else ""
        return f"<Predictions {', '.join(parts)}{first}{', …' if self.results[1:] else ''}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the first results side by side."""
        from retinue.tasks.display import html_of_many

        told = [self.looked_at()]
        told += [f"{len(self.skipped):,} skipped"] if self.skipped else []
        told += [f"written to {self.files[0]}"] if self.files else []
        return html_of_many(self.results, ", ".join(told))

    def to_pandas(self) -> Any:
        """The results as one `pandas.DataFrame`, with the columns and rows of `predictions.csv`.
        UsageError where they went to files, RetinueError without pandas."""
        from retinue.errors import UsageError
        from retinue.tasks.display import table

        if self.images and not self.results:
            raise UsageError(
                "the results were not kept: they went to files",
                where=str(self.files[0]) if self.files else "",
                mend="predict without out, or read the file that was written",
            )
        return table(self.results)


def predict(
    model: str | Path | Sequence[str | Path],
    sources: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    format: str = "jsonl",
    draw: bool = False,
    engine: PredictEngineName = "auto",
    precision: PrecisionName = "fp32",
    device: str = "auto",
    tta: str | None = None,
    batch_size: int = 32,
    on_bad_image: Literal["skip", "stop"] = "skip",
    each: Callable[[Result], None] | None = None,
    reference: str | Path | None = None,
    crops: bool = False,
    count: bool = False,
    places: str | Path | None = None,
    heatmap: bool = False,
    tiles: int | None = None,
    overlap: float = 0.2,
    track: bool = False,
    every: int = 1,
    options: Mapping[str, Any] | None = None,
    actors: int | None = None,
) -> Predictions:
    """Answers for files, folders, patterns, `@list.txt`, `-` (paths on standard input), videos,
    `camera:0`, and addresses of streams.

    With `out`, they are written there as they come (see `retinue.inference.writers`); `draw` also
    saves the pictures with the answers drawn in, `crops` what was found, cut out, `heatmap` how
    much speaks for it. `reference`: a file whose ids the answers are to have (`format="coco"`).
    Otherwise `each` gets them as they come, or they are collected. `count`: how many of what, also
    in the zones and across the lines of the file `places`. `tiles`: look at parts of that side,
    too, that share `overlap` of it. `track`: follow things through videos, of which `every`
    so-many-th frame is looked at. `options`: see `load`. Unreadable images are skipped and named,
    or with `stop` raise `BadImageError`. An interrupt ends a live stream, and what it gave is kept.

    `engine="ray"`: so many `actors`, each with a model, answer on one machine or a cluster, and
    only lists (`jsonl`, `parquet`) are written; see docs/scale.md.
    """
    import sys

    from retinue.errors import UsageError
    from retinue.inference.counting import read_places
    from retinue.inference.inputs import expand
    from retinue.inference.predicting import Manner, Walk, Wishes, collect
    from retinue.inference.tiles import Tiles
    from retinue.inference.writers import common_base
    from retinue.modelfile import find_model

    for one in [model] if isinstance(model, str | Path) else model:
        find_model(Path(one))  # which may be missing, whatever there is to predict
    named = several(sources)
    if engine == "ray":
        vain = {
            "draw": draw, "crops": crops, "count": count, "places": places is not None,
            "heatmap": heatmap, "tiles": tiles is not None, "track": track, "every": every > 1,
            "reference": reference is not None, "each": each is not None,
            "on_bad_image": on_bad_image == "stop", "precision": precision != "fp32",
        }  # fmt: skip
        how: dict[str, Any] = {"device": device, "tta": tta, "options": options}
        how |= {"format": format, "batch_size": batch_size, "actors": actors}
        return _by_ray(model, named, out, vain, how)
    if actors is not None:
        raise UsageError(
            "only the engine ray has actors", where="actors", mend="leave it out, or engine='ray'"
        )
    manner = Manner(None if tiles is None else Tiles(tiles, overlap), heatmap, track, every)
    wishes = Wishes(
        out=None if out is None else Path(out),
        format=format,
        reference=None if reference is None else Path(reference),
        base=common_base(named),
        draw=draw,
        crops=crops,
        count=count,
        places=None if places is None else read_places(places),
    )
    wishes.refuse_without_folder(heatmap)
    found = expand(named, sys.stdin, out=out, say=logging.getLogger("retinue").warning)
    predictor = load(
        model, device=device, engine=engine, precision=precision, tta=tta, options=options
    )
    walk = Walk(predictor, found, manner, batch_size=batch_size)
    done = collect(walk, wishes, stop=on_bad_image == "stop", each=each)
    return Predictions(
        done.images, done.skipped, done.files, done.results, done.counts, done.frames
    )


def _by_ray(
    model: str | Path | Sequence[str | Path],
    sources: Sequence[str | Path],
    out: str | Path | None,
    vain: Mapping[str, bool],
    how: Mapping[str, Any],
) -> Predictions:
    """`predict` with the engine ray, which has no use for what is `vain`."""
    import sys

    from retinue.bulk.predicting import predict as answer
    from retinue.errors import UsageError
    from retinue.modelfile import find_model

    if out is None:
        raise UsageError(
            "the engine ray needs a folder to write to", where="engine", mend="give out, too"
        )
    if wished := next((name for name, given in vain.items() if given), None):
        raise UsageError(
            f"the engine ray does not support {wished}", where=wished, mend="leave one of them out"
        )
    given = [model] if isinstance(model, str | Path) else list(model)
    models = [find_model(Path(one)) for one in given]
    done = answer(models, sources, Path(out), stdin=sys.stdin, **how)
    return Predictions(done.rows - done.failed, done.skipped, [done.file], [])


def speed(
    model: str | Path | Sequence[str | Path],
    sources: str | Path | Sequence[str | Path],
    *,
    runs: int = 50,
    engine: EngineName = "auto",
    precision: PrecisionName = "fp32",
    device: str = "auto",
    tta: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What one image after the other takes, `runs` times, by stages: see
    `retinue.inference.speed.by_stages`. `sources` as of `predict`; the first few images are taken
    in turn, or the first frames of a video."""
    import sys

    from retinue.inference.inputs import expand
    from retinue.inference.predicting import stages

    named = several(sources)
    found = expand(named, sys.stdin, say=logging.getLogger("retinue").warning)
    predictor = load(
        model, device=device, engine=engine, precision=precision, tta=tta, options=options
    )
    return stages(predictor, found, runs)
