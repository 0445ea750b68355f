"""What retinue does, from Python. The command line is a thin layer over these functions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from retinue.text import counted

if TYPE_CHECKING:
    from retinue.data.check import CheckReport
    from retinue.data.conversion import Conversion
    from retinue.exporting.state_dict import Exported
    from retinue.inference.predictor import Predictor
    from retinue.sample import Result
    from retinue.training.features.clearing import Cleared
    from retinue.training.session import Plan, Run

EngineName = Literal["auto", "torch", "onnxruntime", "openvino"]


@overload
def train(
    recipe: str | Path | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    resume: bool = False,
    report: bool = True,
    quiet: bool = False,
    overrides: Mapping[str, Any] | None = None,
    dry_run: Literal[False] = False,
    **fields: Any,
) -> Run: ...


@overload
def train(
    recipe: str | Path | Mapping[str, Any],
    *,
    quiet: bool = False,
    overrides: Mapping[str, Any] | None = None,
    dry_run: Literal[True],
    **fields: Any,
) -> Plan: ...


def train(
    recipe: str | Path | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    resume: bool = False,
    report: bool = True,
    quiet: bool = False,
    overrides: Mapping[str, Any] | None = None,
    dry_run: bool = False,
    **fields: Any,
) -> Run | Plan:
    """Train as `recipe` says; returns the run: its folder, figures and model file.

    `recipe`: the name of a shipped one, a YAML file, a mapping, or with `resume` the run folder to
    go on with; overrides may then change what docs/train.md lists. `overrides` maps dotted keys to
    values (`{"stages.1.epochs": 5}`); top-level fields can also be keywords (`seed=1`;
    `data="photos/"` means `data.path`). `folds=5`: cross-validation; the figures are then means
    over the folds, and these are the run's `parts`. `dry_run`: nothing is trained or written; what
    comes back instead is the plan: the recipe as it would be settled, what was found, and how long
    it would take. Raises `UsageError` for a recipe or data that will not do, `BadImageError` for
    unreadable images, `Interrupted` after SIGINT or SIGTERM, `RetinueError` for anything else that
    ends the training.
    """
    from retinue.errors import Interrupted, UsageError
    from retinue.run.stopping import signal_of, terminable

    if resume and dry_run:
        raise UsageError("a dry run is of a new training", mend="leave resume out")
    if resume and out is not None:
        raise UsageError(
            "a training goes on in its own folder",
            where="out",
            mend="leave it out, or start a new training from the run's recipe.yaml",
        )
    if resume and not isinstance(recipe, str | Path):
        raise UsageError("only a run folder can be gone on with", mend="name it, runs/NAME")
    changes = {**fields, **(overrides or {})}
    with terminable():
        try:
            from retinue.training.studies import commission  # takes a second or two

            if dry_run:
                return commission.plan(recipe, changes, quiet=quiet)
            if resume:
                run = commission.resume(Path(str(recipe)), changes, quiet=quiet)
            else:
                place = Path(out) if out is not None else None
                run = commission.start(recipe, changes, out=place, quiet=quiet)
        except KeyboardInterrupt as stop:
            raise Interrupted(
                signal_of(stop), mend="nothing had begun: the same command starts it"
            ) from None
        if report and run.figures:
            _try_report(run.folder)
    return run


def _try_report(run: Path) -> None:
    """The page of a training that is done, whatever becomes of it."""
    import shlex

    from retinue.errors import Interrupted
    from retinue.run.stopping import signal_of

    again = f"retinue report {shlex.quote(str(run))}"
    try:
        write_report(run)
    except KeyboardInterrupt as stop:
        raise Interrupted(
            signal_of(stop),
            where=str(run),
            mend=f"the training is done; its report: {again}",
        ) from None
    except Exception as error:
        logging.getLogger("retinue").error(
            "the report could not be written (%s: %s); %s tries again",
            type(error).__name__,
            error,
            again,
        )


def load(
    model: str | Path | Sequence[str | Path],
    *,
    device: str = "auto",
    engine: EngineName = "auto",
    tta: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Predictor:
    """The model file or run folder `model`, ready: `load(MODEL)(image)` gives a `Result`. Several
    answer together. `tta`: test-time augmentation, `none`, `flip` or `dihedral`; by default as the
    model was evaluated. `options` of its task that say what is answered: `{"confidence": 0.3}`."""
    from retinue.inference import predictor

    return predictor.load(model, device=device, engine=engine, tta=tta, options=options)


def write_report(run: str | Path) -> Path:
    """`report.html` of the run folder, made from what stands in it."""
    from retinue.report.html import write_report as write

    return write(Path(run))


def clean(run: str | Path | None = None, *, dry_run: bool = False) -> Cleared:
    """Clear the cached features that a run has used, or all there are; `dry_run` only tells."""
    from retinue.training.features.clearing import clear

    return clear(None if run is None else Path(run), dry=dry_run)


def check_data(
    path: str | Path,
    *,
    task: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    input_size: int | None = None,
    **options: Any,
) -> CheckReport:
    """Everything that is wrong or remarkable about a data set for `task`, by default the one that
    knows its format; never stops at one file. `progress` is told how many images of how many have
    been looked at; objects that are marked in them are measured at `input_size` pixels, the side of
    a square input."""
    from retinue.data.check import check
    from retinue.data.options import DataOptions
    from retinue.tasks.shipped import DEFAULT
    from retinue.tasks.task import task_of, task_type

    given = DataOptions(path=str(path), **options)
    name = task or task_of(given)
    found = check(given, task_type(name).readers(), progress, side=input_size)
    if task is None and name != DEFAULT:
        found.notes.insert(0, f"looked at as data for {name}: --task says otherwise")
    return found


def convert_data(
    path: str | Path,
    out: str | Path,
    to: str,
    *,
    task: str | None = None,
    copy: bool = False,
    megabytes: float | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Conversion:
    """The data set at `path` in another format, `to`, in the new folder `out`. Images are linked
    where that can be done, or, with `copy`, copied; into shards of about so many `megabytes` they
    are written: `progress` is told how many images of how many are done, and what was interrupted
    goes on when it is called again. `options`: fields of the recipe's data section."""
    from retinue.data.options import DataOptions
    from retinue.errors import Interrupted, UsageError
    from retinue.run.stopping import signal_of, terminable
    from retinue.tasks.shipped import writing
    from retinue.tasks.task import task_type

    if options.get("pool") is not None:
        raise UsageError(
            "what is written has no place for images of which nothing is known",
            where="key data.pool",
            mend="leave it out here, and give it to the training: its images stay where they are",
        )
    name, convert = writing(to, task)
    data = DataOptions(path=str(path), **options), task_type(name).readers()
    how = {"copy": copy, "megabytes": megabytes, "progress": progress}
    mend = "the same command goes on, or begins anew where images are not in shards"
    with terminable():
        try:
            return convert(*data, Path(out), to, **how)  # type: ignore[no-any-return]
        except KeyboardInterrupt as stop:
            raise Interrupted(signal_of(stop), where=repr(str(out)), mend=mend) from None


def fit_anchors(
    path: str | Path,
    *,
    task: str | None = None,
    input_size: int | None = None,
    levels: int = 3,
    each: int = 3,
    plot: str | Path | None = None,
    **options: Any,
) -> Any:
    """The anchors, `each` for each of `levels` levels, that fit the objects of the data set at
    `path` as they come to a square input of `input_size` pixels, and how well. `plot`: a PNG file
    of them to be written."""
    from retinue.data.options import DataOptions
    from retinue.tasks.shipped import doing
    from retinue.tasks.task import task_type

    name, fit = doing("anchors", task)
    readers = task_type(name).readers()
    place = None if plot is None else Path(plot)
    given = DataOptions(path=str(path), **options)
    return fit(given, readers, side=input_size, levels=levels, each=each, plot=place)


def evaluate(
    model: str | Path | Sequence[str | Path],
    *,
    data: str | Path | None = None,
    split: Literal["auto", "train", "val", "test"] = "auto",
    engine: EngineName = "auto",
    tta: str | None = None,
    device: str = "auto",
    batch_size: int = 32,
    out: str | Path | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """The figures of a model on a split, as in `metrics.json`.

    `model`: a model file or run folder, or several that answer together. `data`: a folder or table;
    by default what the (first) run was trained on, split as it was then. The data's classes must be
    among the model's, and are put in the model's order. `split`: `auto` takes the first of test,
    val and train that there is; data without splits is judged whole. `out`: a folder for
    `metrics.json` and the task's tables, `predictions.parquet` among them. Unreadable images are
    left out, and named under `skipped`.
    """
    from retinue.training.evaluation import Question, evaluate_model

    models = [model] if isinstance(model, str | Path) else model
    return evaluate_model(
        Question(
            models=[Path(one) for one in models],
            data=None if data is None else str(data),
            split=split,
            engine=engine,
            tta=tta,
            device=device,
            batch_size=batch_size,
            out=None if out is None else Path(out),
            quiet=quiet,
        )
    )


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


def predict(
    model: str | Path | Sequence[str | Path],
    sources: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    format: str = "jsonl",
    draw: bool = False,
    engine: EngineName = "auto",
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
    """
    import sys

    from retinue.inference.counting import read_places
    from retinue.inference.inputs import expand
    from retinue.inference.predicting import Manner, Walk, Wishes, collect
    from retinue.inference.predictor import load as open_model
    from retinue.inference.tiles import Tiles
    from retinue.inference.writers import common_base
    from retinue.modelfile import find_model

    for one in [model] if isinstance(model, str | Path) else model:
        find_model(Path(one))  # which may be missing, whatever there is to predict
    named = [sources] if isinstance(sources, str | Path) else list(sources)
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
    predictor = open_model(model, device=device, engine=engine, tta=tta, options=options)
    walk = Walk(predictor, found, manner, batch_size=batch_size)
    done = collect(walk, wishes, stop=on_bad_image == "stop", each=each)
    return Predictions(
        done.images, done.skipped, done.files, done.results, done.counts, done.frames
    )


def speed(
    model: str | Path | Sequence[str | Path],
    sources: str | Path | Sequence[str | Path],
    *,
    runs: int = 50,
    engine: EngineName = "auto",
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
    from retinue.inference.predictor import load as open_model

    named = [sources] if isinstance(sources, str | Path) else list(sources)
    found = expand(named, sys.stdin, say=logging.getLogger("retinue").warning)
    predictor = open_model(model, device=device, engine=engine, tta=tta, options=options)
    return stages(predictor, found, runs)


def export(
    model: str | Path, to: str, *, out: str | Path | None = None, force: bool = False
) -> Exported:
    """The tensors of a model file or run folder as a state dict of `to`, `timm` or `torchvision`.

    `out`: a `.safetensors`, `.pth` or `.pt` file; by default `NAME.LIBRARY.safetensors` beside the
    model. `force` replaces an older one. What comes back says how the network is built there.
    Raises `UsageError` for a name that will not do, `RetinueError` where that library has no such
    network.
    """
    from retinue.errors import UsageError
    from retinue.exporting.state_dict import export_state_dict
    from retinue.modelfile import find_model

    if not isinstance(model, str | Path):
        raise UsageError(
            f"a model is exported from its file, not from a {type(model).__name__}",
            mend="give the path of a model file or run folder",
        )
    target = None if out is None else Path(out)
    return export_state_dict(find_model(Path(model)), to, out=target, force=force)


def import_model(
    description: str | Path,
    weights: str | Path,
    *,
    names: str | Path | None = None,
    out: str | Path | None = None,
    force: bool = False,
) -> Path:
    """A model file of another program's files: Darknet's `.cfg` and `.weights`, with the classes of
    `names`, one a line. By default beside the weights, as NAME.safetensors; the path is returned.

    Raises UsageError for a file that is not there, of an unknown kind, or in the way; RetinueError
    for one that cannot be read, or does not go with the others.
    """
    from retinue import modelfile
    from retinue.errors import UsageError
    from retinue.tasks.shipped import taking_in

    place = Path(weights).with_suffix(".safetensors") if out is None else Path(out)
    given = [Path(file) for file in (description, weights, names) if file is not None]
    if any(place.exists() and file.exists() and place.samefile(file) for file in given):
        mend = "name another place for the model file"
        raise UsageError("it is read, and cannot be written", where=repr(str(place)), mend=mend)
    if place.exists() and not force:
        raise UsageError(
            "the file is there already",
            where=repr(str(place)),
            mend="name another with --out, or replace it with --force",
        )
    take_in = taking_in(Path(description))
    described, tensors = take_in(Path(description), Path(weights), names and Path(names))
    modelfile.write(place, tensors, described)
    return place


def checks() -> dict[str, Any]:
    """Versions, devices, engines and CPU features, and what `auto` would choose here."""
    from retinue.training.environment import facts

    return facts()
