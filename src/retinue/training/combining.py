"""Several trained models made one: the mean of their weights, or weights for their answers. What is
chosen is chosen on a validation split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from retinue import modelfile
from retinue.data.colour import Colour
from retinue.data.loader import Loader, in_order
from retinue.data.options import DataOptions
from retinue.data.sources import Dataset, open_dataset
from retinue.data.views import EvalView
from retinue.errors import RetinueError, UsageError
from retinue.figures import Figure, refuse_not_finite
from retinue.inference import ensembles
from retinue.inference.evaluator import take_in
from retinue.inference.predictor import MEND, Predictor, load
from retinue.modelfile import ModelDescription, find_model
from retinue.models.network import Network
from retinue.run.log import LOGGER, Bar, console
from retinue.sample import Preprocessing, Sample
from retinue.tasks.task import Finding, Task, described, task_type
from retinue.training.environment import versions
from retinue.training.evaluation import in_order_of, own_data
from retinue.training.validation import scalars

LOOKED_AT = 2_000
"""Images that the statistics of BatchNorm are taken from anew."""
BATCH = 32


@dataclass(frozen=True)
class Member:
    """One of the models, and what came of it."""

    file: Path
    figure: float | None
    """By itself, on the validation split; None: it was not judged."""
    share: float
    """Of it in the mean, or in the answer; 0: it was left out."""


@dataclass(frozen=True)
class Combined:
    """What came of several models."""

    path: Path
    """The file that was written."""
    metric: str
    members: tuple[Member, ...]
    """From the best down."""
    figures: dict[str, float]
    """Of the validation split; empty where nothing was judged."""
    alike: dict[str, float]
    """Of an ensemble's members, all counting alike; of a soup empty."""

    def __repr__(self) -> str:
        used = sum(member.share > 0 for member in self.members)
        told = f", {self.metric} {self.figures[self.metric]:.4f}" if self.figures else ""
        return f"<Combined {self.path}: {used} of {len(self.members)} models{told}>"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be combined, and how; see `soup` and `ensemble`."""

    models: Sequence[str | Path]
    out: Path
    data: str | None
    uniform: bool = False
    metric: str | None
    device: str
    force: bool
    quiet: bool


def soup(
    models: Sequence[str | Path],
    out: str | Path,
    *,
    data: str | Path | None = None,
    uniform: bool = False,
    metric: str | None = None,
    device: str = "auto",
    force: bool = False,
    quiet: bool = True,
) -> Combined:
    """One model file, `out`, whose weights are the mean of those of `models`, which are of one
    network and the same classes: from the best down, each that does not make the figure of the
    validation split worse ("greedy soup": Wortsman et al., "Model soups", ICML 2022); `uniform`:
    all of them.

    Where the statistics of BatchNorm differ, those of a mean are no mean of them: they are taken
    anew from training images (Izmailov et al., UAI 2018, section 3).

    `data`: what is judged on, by default what the first model was trained on. `metric`: by default
    the task's. Raises UsageError for models that have no mean, or a file in the way.
    """
    wish = _wish(models, out, data, metric, device, force, quiet)
    return _soup(replace(wish, uniform=uniform))


def ensemble(
    models: Sequence[str | Path],
    out: str | Path,
    *,
    data: str | Path | None = None,
    metric: str | None = None,
    device: str = "auto",
    force: bool = False,
    quiet: bool = True,
) -> Combined:
    """A small file, `out`, of models that answer together, each with a weight: those with which
    they answer best on the validation split. `load`, `predict` and `evaluate` take it as a model.
    `data` and `metric` as for `soup`; the networks may differ. Raises UsageError for a task that
    does not weigh models, too."""
    return _ensemble(_wish(models, out, data, metric, device, force, quiet))


def _wish(
    models: Any,
    out: str | Path,
    data: str | Path | None,
    metric: str | None,
    device: str,
    force: bool,
    quiet: bool,
) -> Wish:
    if isinstance(models, str | Path):
        raise UsageError(
            "a combination needs two models or more", mend="give a list of two or more"
        )
    place = None if data is None else str(data)
    return Wish(
        models=list(models),
        out=Path(out),
        data=place,
        metric=metric,
        device=device,
        force=force,
        quiet=quiet,
    )


def _soup(wish: Wish) -> Combined:
    files = _files(wish)
    descriptions = [modelfile.read_description(file) for file in files]
    for file, other in zip(files[1:], descriptions[1:], strict=True):
        _refuse_unlike(descriptions[0], other, file)
    with console(None, quiet=wish.quiet) as bar:
        predictor = load(files[0], device=wish.device, engine="torch")
        data = None if wish.uniform and wish.data is None else _data(wish, files, predictor)

        def train() -> Sequence[Sample]:
            known = data or _data(wish, files, predictor)
            return _spread(known.splits.get("train", ()), LOOKED_AT)

        kitchen = _Kitchen(predictor, data, train, _judge(wish, predictor), bar)
        tensors = {file: modelfile.read(file)[1] for file in files}
        for file in files:
            predictor.network.load_state_dict(tensors[file])  # raises for what does not fit
        alone = {} if data is None else {f: kitchen.judged([tensors[f]]) for f in files}
        order = _best_first(kitchen.judge, files, alone)
        chosen = list(order) if wish.uniform else [order[0]]
        best = None if data is None else alone[order[0]]
        for file in () if wish.uniform else order[1:]:
            figures = kitchen.judged([tensors[one] for one in [*chosen, file]])
            now, before = figures.get(kitchen.metric), (best or {}).get(kitchen.metric)
            if not kitchen.judge.better(before, now):
                chosen, best = [*chosen, file], figures
            LOGGER.info("%s %s", file, "joins" if file in chosen else "is left out")
        final = kitchen.cooked([tensors[one] for one in chosen])
        figures = {} if data is None else kitchen.fitted()
    base = descriptions[files.index(order[0])]
    modelfile.write(wish.out, final, _description(base, predictor, chosen, figures))
    share = 1 / len(chosen)
    members = [Member(f, _of(alone, f, kitchen), share if f in chosen else 0.0) for f in order]
    return Combined(wish.out, kitchen.metric, tuple(members), figures, {})


def _ensemble(wish: Wish) -> Combined:
    files = _files(wish)
    _refuse_unweighed(task_type(modelfile.read_description(files[0]).task))
    with console(None, quiet=wish.quiet) as bar:
        all_together = load(files, device=wish.device, engine="torch")
        task, members = all_together.task, all_together.members
        samples = _validation(_data(wish, files, all_together), all_together)
        judge = _judge(wish, all_together)
        found: list[list[Finding]] = []
        seen: list[Sample] = []
        alone = {}
        for file, member in zip(files, members, strict=True):
            one = Predictor([member], device=all_together.device, engine="torch")
            collected = _Collected()
            bar.begin(f"judging {file.parent.name}/{file.name}", len(samples))
            take_in(one, samples, collected, progress=lambda done, _: bar.advance(done))
            found.append(collected.findings)
            seen = collected.samples  # the same of each
            alone[file] = _figures(one, collected.findings, seen)
        weights = [float(w) for w in task.weights(found, seen)]
        rows = list(zip(*found, strict=True))
        mixed = [task.weighed([r for r, w in zip(row, weights, strict=True) if w > 0],
                              [w for w in weights if w > 0]) for row in rows]  # fmt: skip
        figures = _figures(all_together, mixed, seen)
        alike = _figures(all_together, [task.merge(row) for row in rows], seen)
    used = [(f, w) for f, w in zip(files, weights, strict=True) if w > 0]
    ensembles.write(wish.out, [f for f, _ in used], [w for _, w in used], figures)
    share = dict(zip(files, weights, strict=True))
    order = _best_first(judge, files, alone)
    rows_ = tuple(Member(f, alone[f].get(judge.name), share[f]) for f in order)
    return Combined(wish.out, judge.name, rows_, figures, alike)


class _Collected:
    """Keeps what was found."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.samples: list[Sample] = []

    def update(self, findings: Sequence[Finding], samples: Sequence[Sample]) -> None:
        """See `Collector`."""
        self.findings += findings
        self.samples += samples


class _Kitchen:
    """Makes means of models in the network of `predictor`, and judges them."""

    def __init__(
        self,
        predictor: Predictor,
        data: Dataset | None,
        train: Callable[[], Sequence[Sample]],
        judge: Figure,
        bar: Bar,
    ) -> None:
        """`train`: gives what BatchNorm is measured by, where that has to be."""
        self.predictor, self.judge, self.metric = predictor, judge, judge.name
        self._bar = bar
        self._samples = [] if data is None else _validation(data, predictor)
        self._train = cache(train)

    def cooked(self, models: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The mean of `models`, which the network has from now on."""
        tensors = {name: _mean([model[name] for model in models]) for name in models[0]}
        network = self.predictor.network
        network.load_state_dict(tensors)
        stale = [name for name, module in network.named_modules() if _measures(module)]
        differ = [
            name for name in stale
            if any(not torch.equal(models[0][f"{name}.{part}"], model[f"{name}.{part}"])
                   for model in models[1:] for part in ("running_mean", "running_var"))
        ]  # fmt: skip
        if differ:
            if not (samples := self._train()):
                raise UsageError(
                    "the models' statistics of BatchNorm differ, and are taken anew from training"
                    " images, of which there are none",
                    where="key data",
                    mend="name a folder or table with --data",
                )
            measure(network, samples, self.predictor.preprocessing, self.predictor.device)
        return {name: value.clone() for name, value in network.state_dict().items()}

    def judged(self, models: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
        """The figures of the mean of `models` on the validation split."""
        self.cooked(models)
        return self._judged()[0]

    def fitted(self) -> dict[str, float]:
        """The figures of what was cooked last, once the task has fitted there what it fits."""
        _, meter = self._judged()
        self.predictor.task.fit(meter)
        return scalars(meter.compute(), self.predictor.task.figures())

    def _judged(self) -> tuple[dict[str, float], Any]:
        task = self.predictor.task
        meter = task.meter()
        self._bar.begin("judging", len(self._samples))
        advance = self._bar.advance
        take_in(self.predictor, self._samples, meter, progress=lambda done, _: advance(done))
        figures = meter.compute()
        refuse_not_finite(figures, "val", mend=MEND)
        return scalars(figures, task.figures()), meter


def measure(
    network: Network, samples: Sequence[Sample], preprocessing: Preprocessing, device: str
) -> None:
    """Take the statistics of BatchNorm anew from `samples`: the mean over batches of what each
    channel has, as the network sees them when it answers. The network stays in eval mode."""
    norms: list[Any] = [module for module in network.modules() if _measures(module)]
    momenta = [norm.momentum for norm in norms]
    colour = Colour(preprocessing)
    loader = Loader(EvalView(preprocessing), samples, bad_images="drop")
    size = min(BATCH, len(samples))
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of all batches
        norm.train()
    try:
        with torch.no_grad():
            for batch in loader.batches(in_order(samples, size, preprocessing.size)):
                good = batch.weight > 0
                if int(good.sum()) > 1:
                    network(colour.normalised(batch.images[good].to(device)))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
    if any(int(norm.num_batches_tracked) == 0 for norm in norms):
        raise RetinueError("there are too few readable training images to measure BatchNorm by")


def _measures(module: nn.Module) -> Any:
    batchnorm = nn.modules.batchnorm._BatchNorm
    return isinstance(module, batchnorm) and module.running_mean is not None


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    """In 64 bits; of what is no number with a fraction the first."""
    first = tensors[0]
    if len(tensors) == 1 or not first.is_floating_point():
        return first
    total = torch.zeros_like(first, dtype=torch.float64)
    for tensor in tensors:
        total += tensor.to(torch.float64)
    return (total / len(tensors)).to(first.dtype)


def _spread(samples: Sequence[Sample], most: int) -> list[Sample]:
    """At most so many of them, evenly."""
    step = max(-(-len(samples) // most), 1)
    return [samples[k] for k in range(0, len(samples), step)]


# --- what is asked ------------------------------------------------------------------------------


def _files(wish: Wish) -> list[Path]:
    """The models' files. Raises UsageError for too few, one twice, or a file in the way."""
    files = [find_model(Path(model)) for model in wish.models]
    if len(files) < 2:
        raise UsageError("a combination needs two models or more", mend="name two or more")
    same = [f for k, f in enumerate(files) if any(f.samefile(g) for g in files[:k])]
    if same:
        raise UsageError("the model is named twice", where=str(same[0]), mend="name it once")
    if wish.out.is_dir():
        raise UsageError("this is a folder", where=str(wish.out), mend="name a file with --out")
    if wish.out.exists():
        if any(wish.out.samefile(file) for file in files):
            raise UsageError(
                "it is one of the models, and cannot be written",
                where=str(wish.out),
                mend="name another file with --out",
            )
        if not wish.force:
            raise UsageError(
                "the file is there already",
                where=str(wish.out),
                mend="name another with --out, or replace it with --force",
            )
    return files


def _refuse_unlike(first: ModelDescription, other: ModelDescription, file: Path) -> None:
    """Raise UsageError unless their weights can be averaged."""
    own, theirs = (
        {k: v for k, v in one.arguments.items() if k not in ("dropout", "drop_path")}
        for one in (first, other)
    )
    for what, ours, its in (
        ("another task", first.task, other.task),
        ("other classes, or another order of them,", first.classes, other.classes),
        ("another network", first.network, other.network),
        ("other arguments of the network", own, theirs),
        ("another preprocessing", first.preprocessing, other.preprocessing),
        ("another task's state", True, described(first).reads_like(described(other))),
    ):
        if ours != its:
            raise UsageError(
                f"a model with {what} than the first cannot be averaged with it",
                where=str(file),
                mend="leave it out"
                if first.classes != other.classes or first.task != other.task
                else "leave it out; networks that differ can answer together: retinue ensemble",
            )


def _refuse_unweighed(kind: type[Task]) -> None:
    """Before anything is judged."""
    if kind.weights is Task.weights:
        raise UsageError(
            f"the task {kind.name!r} does not weigh models",
            mend="several count alike from Python: retinue.predict([A, B], images),"
            " retinue.evaluate([A, B], data=PATH)",
        )


def _judge(wish: Wish, predictor: Predictor) -> Figure:
    declared = {figure.name: figure for figure in predictor.task.figures()}
    name = wish.metric or predictor.task.default_metric
    if name not in declared:
        raise UsageError(
            f"the validation gives no figure {name!r}",
            where="--metric",
            mend=f"it gives {', '.join(declared)}",
        )
    return declared[name]


def _data(wish: Wish, files: Sequence[Path], predictor: Predictor) -> Dataset:
    """What is judged on, and measured by: what the first model was trained on, or `wish.data`."""
    options = DataOptions(path=wish.data) if wish.data is not None else own_data(files[0])
    dataset = open_dataset(options, predictor.task.readers(), to_train=False)
    if wish.data is None:
        recipes = [modelfile.read_description(file).recipe or {} for file in files]
        for file, recipe in zip(files, recipes, strict=True):
            if recipe.get("data") != recipes[0].get("data"):
                LOGGER.warning(
                    "%s was trained on other data or splits than %s: it may have learnt from the"
                    " images that it is judged on here", file, files[0],
                )  # fmt: skip
    for note in dataset.notes:
        LOGGER.info("%s", note)
    return dataset


def _validation(data: Dataset, predictor: Predictor) -> list[Sample]:
    samples = data.splits.get("val")
    if not samples:
        raise UsageError(
            "there is no validation split to choose by",
            where="key data",
            mend="name data that has one with --data, or take all of a soup with --uniform",
        )
    return in_order_of(predictor.classes, data.classes, samples)


def _best_first(
    judge: Figure, files: Sequence[Path], alone: Mapping[Path, Mapping[str, float]]
) -> list[Path]:
    """Those with a figure from the best down; without figures as they were named."""
    sign = 1 if judge.less_is_better else -1
    known = {file: figures.get(judge.name) for file, figures in alone.items()}
    return sorted(files, key=lambda f: sign * value if (value := known.get(f)) is not None else 0)


def _of(alone: Mapping[Path, Mapping[str, float]], file: Path, kitchen: _Kitchen) -> float | None:
    return alone.get(file, {}).get(kitchen.metric)


def _figures(
    predictor: Predictor, findings: Sequence[Finding], samples: Sequence[Sample]
) -> dict[str, float]:
    meter = predictor.task.meter()
    meter.update(findings, samples)
    figures = meter.compute()
    refuse_not_finite(figures, "val", mend=MEND)
    return scalars(figures, predictor.task.figures())


def _description(
    base: ModelDescription, predictor: Predictor, chosen: Sequence[Path], figures: dict[str, float]
) -> ModelDescription:
    """That of the best one, with what is new."""
    recipe = dict(base.recipe or {})
    about = dict(recipe.get("about") or {})
    names = ", ".join(f"{file.parent.name}/{file.name}" for file in chosen)
    about["source"] = f"the mean of the weights of {len(chosen)} models: {names}"
    return base.model_copy(
        update={
            "task_state": predictor.task.state() if figures else base.task_state,
            "figures": figures or base.figures,
            "recipe": {**recipe, "about": about} if recipe else base.recipe,
            "versions": versions(),
        }
    )
