"""Labels that a model gives to images itself: which are taken, and how they are written down."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ValidationError

from retinue.data.sources.pool import path_in_pool, pool_name
from retinue.documents import NotJson, json_text, parse_json
from retinue.errors import RetinueError
from retinue.run.folder import RunFolder
from retinue.sample import Sample
from retinue.tasks.task import Guess
from retinue.text import counted
from retinue.training.stage_samples import PseudoLabels

SUMMARY = "stages/pseudo_labels.json"
"""A row a stage that has labelled images: see `Summary`."""


@dataclass(frozen=True)
class Summary:
    """What came of the images of one stage."""

    stage: str
    images: int
    labelled: int
    unsure: int
    """Below the confidence that was asked for."""
    over: int
    """Sure enough, but beyond the most that their class gets."""
    unreadable: int
    mean_confidence: float | None
    """Of the labelled ones; None: there are none."""
    compared: int
    """Images that the round before has looked at, too."""
    same: int
    """Those of them that have the same label."""

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dict(vars(self))

    def line(self) -> str:
        """For a person."""
        left = [
            f"{count:,} {why}"
            for count, why in (
                (self.unsure, "not sure enough"),
                (self.over, "beyond the most of their class"),
                (self.unreadable, "not readable"),
            )
            if count
        ]
        said = f"{self.labelled:,} of {counted(self.images, 'image')} labelled by the model"
        if self.mean_confidence is not None:
            said += f", sure by {self.mean_confidence:.3f} in the mean"
        if left:
            said += f"; {', '.join(left)}"
        if self.compared:
            share = self.same / self.compared
            said += f"; {share:.1%} of {self.compared:,} have the label of the round before"
        return said


def chosen(guesses: Sequence[Guess | None], options: PseudoLabels) -> list[int]:
    """Positions of the guesses that are taken, in order: those that are sure enough, and of each
    class the surest, at equal confidence the first."""
    sure = [k for k, g in enumerate(guesses) if g is not None and g.sure >= options.confidence]
    if options.per_class is None:
        return sure
    by_class: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for k in sure:
        guess = guesses[k]
        assert guess is not None
        by_class[guess.label].append((-guess.sure, k))
    return sorted(k for each in by_class.values() for _, k in sorted(each)[: options.per_class])


def labelled(
    samples: Sequence[Sample], guesses: Sequence[Guess | None], options: PseudoLabels
) -> list[Sample]:
    """Those of the `samples` whose guess is taken, with it as their target."""
    found = []
    for k in chosen(guesses, options):
        guess = guesses[k]
        assert guess is not None
        found.append(replace(samples[k], target=guess.target, weight=options.weight))
    return found


def summary(
    stage: str,
    samples: Sequence[Sample],
    guesses: Sequence[Guess | None],
    options: PseudoLabels,
    before: Mapping[str, str],
) -> Summary:
    """Of the guesses of the `samples`. `before`: the labels of the last round, by their names."""
    now = {s.name or s.key: g.label for s, g in zip(samples, guesses, strict=True) if g is not None}
    taken = [g for k in chosen(guesses, options) if (g := guesses[k]) is not None]
    there = [guess for guess in guesses if guess is not None]
    unsure = sum(guess.sure < options.confidence for guess in there)
    both = [name for name in now if name in before]
    return Summary(
        stage,
        images=len(guesses),
        labelled=len(taken),
        unsure=unsure,
        over=len(there) - unsure - len(taken),
        unreadable=len(guesses) - len(there),
        mean_confidence=sum(g.sure for g in taken) / len(taken) if taken else None,
        compared=len(both),
        same=sum(before[name] == now[name] for name in both),
    )


# --- in the folder of a run ----------------------------------------------------------------------


def write_down(
    run: RunFolder,
    summary: Summary,
    samples: Sequence[Sample],
    guesses: Sequence[Guess | None],
    options: PseudoLabels,
) -> None:
    """A line an image, with its label, how sure it is and whether it is taken; and the summary. The
    path of one that is of the pool starts there."""
    taken = set(chosen(guesses, options))
    lines = []
    for k, (sample, guess) in enumerate(zip(samples, guesses, strict=True)):
        name = sample.name or sample.key
        within = path_in_pool(name)
        said: dict[str, Any] = {"path": name} if within is None else {"path": within, "pool": True}
        said["label"] = None
        if guess is not None:
            said |= {"label": guess.label, "confidence": round(guess.sure, 6), "used": k in taken}
        lines.append(f"{json_text(said)}\n")
    run.write(_file(summary.stage), "".join(lines))
    others = [row for row in run.read_json(SUMMARY) or [] if row.get("stage") != summary.stage]
    run.write_json(SUMMARY, [*others, summary.as_dict()])


def read_labels(run: RunFolder, stage: str) -> dict[str, str]:
    """The label that the stage called `stage` has given to each image, by its name; nothing where
    it has not begun. RetinueError for a file that no training writes."""
    return {row.name: row.label for row in _rows(run, stage) or () if row.label is not None}


def read_taken(run: RunFolder, stages: Iterable[str]) -> set[str] | None:
    """The names of the images that one of the `stages` has learnt from by a label of its own; None
    where it is not written down. Raises as `read_labels`."""
    found: set[str] = set()
    for stage in stages:
        rows = _rows(run, stage)
        if rows is None:
            return None
        found.update(row.name for row in rows if row.used)
    return found


def _rows(run: RunFolder, stage: str) -> list[_Row] | None:
    lines = run.read_lines(_file(stage))
    if lines is None:
        return None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(_Row.model_validate(parse_json(line), strict=True))
        except (NotJson, ValidationError):
            raise RetinueError(
                "this is no label of an image",
                where=f"{run.path / _file(stage)}, line {number}",
                mend="put the file back as it was, or remove it: rounds are not compared then",
            ) from None
    return rows


class _Row(BaseModel):
    path: str
    label: str | None
    pool: bool = False
    used: bool = False

    @property
    def name(self) -> str:
        """What the image is called among all of the data."""
        return pool_name(self.path) if self.pool else self.path


def _file(stage: str) -> str:
    return f"stages/{stage}.labels.jsonl"
