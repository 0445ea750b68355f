"""Which column of a table says what: found by the names that people give them, or as
`data.columns` says; always told, and asked about where it could be otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from retinue.data.options import ColumnOptions
from retinue.data.sources.cells import Cells, misfit
from retinue.data.sources.records import NONE, Names, different, texts_of
from retinue.data.sources.walking import normal
from retinue.data.sources.words import ORDER, is_missing, split_of, yes_or_no
from retinue.errors import UsageError, some, suggest
from retinue.text import counted

ALIASES = {
    "path": "path image file filename file_name filepath file_path image_path image_name "
    "image_file image_filename img img_path img_name filenames images file_names fname fn "
    "imagename picture photo url uri image_id img_id id_code id imageid",
    "label": "label class target class_name category label_name name y labels classes classname "
    "class_label lbl cls class_id classid category_id class_index species breed variety diagnosis "
    "dx emotion labelname finding_labels tags categories",
    "split": "split set subset partition usage phase dataset fold",
    "fold": "fold kfold folds cv_fold fold_id",
    "group": "group group_id patient patient_id subject",
    "stratum": "stratify stratum",
    "weight": "sample_weight sample_weights",
}
"""What people call the columns that say something, the surest names first."""
_FLAGS = {
    **dict.fromkeys(("is_valid", "is_val", "is_validation", "valid"), "val"),
    **dict.fromkeys(("is_test", "is_testing"), "test"),
    **dict.fromkeys(("is_train", "is_training", "is_training_image"), "train"),
}
"""Columns of yes and no, and the split that they speak of."""
_LIKE = {"weight": "weight", "weights": "weight"}
"""What looks like a role, but as often as not is something else."""
_SHOWN = 8
_SPLIT_VALUES = 50
_LOOKED_AT = 50
"""Names of columns that a misspelt one is looked for among: a header may have thousands."""


@dataclass(frozen=True, eq=False)
class Columns:
    """A table's columns by what they say."""

    cells: Cells
    """Without the header."""
    place: Mapping[str, int]
    """Role → position of its column."""
    names: Sequence[str]
    """(columns,)"""
    flags: Mapping[str, int] = field(default_factory=dict)
    """Split → position of a column that says yes or no to it."""
    classes: Mapping[str, int] = field(default_factory=dict)
    """Class → position of a column that says yes or no to it; empty: `label` names the classes."""
    others: Mapping[str, int] = field(default_factory=dict)
    """Further columns that could be the label."""
    notes: list[str] = field(default_factory=list)
    """What is to be said of it."""

    def of(self, role: str) -> Names | None:
        """The role's column, if there is one."""
        return self.needed(role) if role in self.place else None

    def needed(self, role: str) -> Names:
        """The column of a role that there must be."""
        return self.cells.columns[self.place[role]]

    def first_lines(self, codes: npt.NDArray[np.int32]) -> list[int]:
        """The first line of each of the codes 0, 1 … that rows have."""
        _, first = np.unique(codes, return_index=True)
        return self.cells.lines[first].tolist()  # type: ignore[no-any-return]

    def refused(
        self,
        texts: Sequence[str],
        at: npt.NDArray[np.int32],
        bad: Iterable[bool],
        what: Callable[[str], str],
        mend: str,
    ) -> list[UsageError]:
        """An error for each of the `texts` of a column (`different`) that is `bad`, with the first
        line that has it."""
        return [
            UsageError(what(text), where=self.cells.at(line), mend=mend)
            for text, wrong, line in zip(texts, bad, self.first_lines(at), strict=True)
            if wrong
        ]

    def splits(self) -> tuple[npt.NDArray[np.int8] | None, list[UsageError]]:
        """(rows,) positions in `ORDER`, `NONE` where a cell is empty or no split; None: the table
        does not say. And an error for each word that is none, with its first line."""
        column = self.of("split")
        if column is None:
            return self._flagged()
        texts, at = different(column)
        splits = [split_of(word) for word in texts]
        unknown = [bool(word) and split is None for word, split in zip(texts, splits, strict=True)]
        name = self.names[self.place["split"]]
        mend = f"use train, val or test, or data.columns.split=null to read none from {name!r}"
        errors = self.refused(texts, at, unknown, lambda word: f"unknown split {word!r}", mend)
        codes = np.array([NONE if s is None else ORDER.index(s) for s in splits], np.int8)
        found: npt.NDArray[np.int8] = codes[at]
        return found, errors

    def _flagged(self) -> tuple[npt.NDArray[np.int8] | None, list[UsageError]]:
        if not self.flags:
            return None, []
        rest = "train" if "train" not in self.flags else "test"
        found = np.full(len(self.cells.lines), ORDER.index(rest), np.int8)
        errors = []
        for split, position in self.flags.items():
            texts, at = different(self.cells.columns[position])
            said = list(map(yes_or_no, texts))
            name = self.names[position]
            errors += self.refused(
                texts,
                at,
                [yes is None for yes in said],
                lambda word, name=name: f"{word!r} says neither yes nor no in {name!r}",  # type: ignore[misc]
                "write 1 or 0, or data.columns.split=null to read no splits from it",
            )
            found[np.array(said, bool)[at]] = ORDER.index(split)
        return found, errors


def find_columns(
    cells: Cells, options: ColumnOptions, needed: tuple[str, str] = ("path", "label")
) -> Columns:
    """The roles of a table's columns. Without a header, a table has two, those that are `needed`;
    a list with blanks between its cells begins with them.
    Raises `UsageError` where one of them is missing or cannot be told from others."""
    asked = {r: n for r in ALIASES if (n := getattr(options, r)) not in (None, "auto")}
    names = [_plain(name) for name in cells.head]
    place = _named(cells, names, asked) | _recognised(cells, names, options)
    if not set(needed) <= set(place):
        numbers = [str(k + 1) for k in range(len(names))]
        if set(asked.values()) & set(cells.head) or not asked:
            _refuse_misspelt(cells, names, needed)
        place = {role: numbers.index(n) for role, n in asked.items() if n in numbers}
        missing = [role for role in needed if role not in place]
        if (len(names) == 2 or cells.listed) and not place:
            place = dict(zip(needed, (0, 1), strict=True))
        elif missing:
            there = counted(len(names), "column")
            raise UsageError(
                f"{there} and no header that names a path and a {needed[1]}",
                where=cells.where,
                mend=f"add the header `{','.join(needed)}`, or say which column is which: "
                f"data.columns.{missing[0]}=1",
            )
        return Columns(cells.without_header(), place, numbers)
    found = _with_splits(Columns(cells, place, cells.head), names, options)
    _refuse_short(found, needed)
    return _told(found, names)


def find_class_columns(
    cells: Cells, options: ColumnOptions, asked: Sequence[str] = ()
) -> Columns | None:
    """The roles of the columns of a table that has one for each class, in which a row says yes, no,
    or that it does not know; None for a table that has none, or has a column of labels. Where
    `asked` names columns, those are the classes. Without a header, the first column has the path,
    and classes are called as `asked`, or by their columns' numbers. Raises `UsageError` where a
    column that `options` name is missing."""
    if options.label not in ("auto", None):
        return None
    names = [_plain(name) for name in cells.head]
    given = {r: n for r in ALIASES if (n := getattr(options, r)) not in (None, "auto")}
    place = _named(cells, names, given) | _recognised(cells, names, options)
    label = place.pop("label", None)
    if "path" not in place:
        return _without_names(cells, asked) if not given else None
    found = _with_splits(Columns(cells, place, cells.head), names, options)
    used = {*place.values(), *found.flags.values()}
    free = [k for k, name in enumerate(cells.head) if name and k not in used]
    head = {normal(cells.head[k]): k for k in free}
    if asked and all(name in head for name in asked):
        classes = {name: head[name] for name in asked}
    else:
        odd = {name: _neither(cells.columns[k]) for name, k in head.items()}
        # Mistakes in a column that is one of several are told and not taken for other values; but
        # what is called like a label may have a rare class, and weights are mostly 1.
        never = {label, *(k for k in free if names[k] in _LIKE)}
        several = [n for n, few in odd.items() if few == 0 or (few and head[n] not in never)]
        classes = {n: head[n] for n in several if odd[n] == 0 or len(several) > 1}
        # A column that is called like a label and is one of several of yes and no is one of them.
        labelled = label is not None and (label not in classes.values() or len(classes) < 2)
        if labelled or not classes:
            return None
    _refuse_doubled(cells, [k for k in free if normal(cells.head[k]) in classes])
    _refuse_short(found, ("path",))
    return replace(_told(replace(found, classes=classes), names), others={})


def _refuse_doubled(cells: Cells, columns: Sequence[int]) -> None:
    for name, times in Counter(cells.head[k] for k in columns).items():
        if times > 1:
            raise UsageError(
                f"{times} columns called {name!r}", where=cells.where, mend="give each its own name"
            )


def _without_names(cells: Cells, asked: Sequence[str]) -> Columns | None:
    head = cells.without_header()
    own = head.columns[1:]
    # A mistake is told, but in the first row it rather is a header.
    if len(own) < 2 or any(_neither(c) is None or says(texts_of(c[:1])[0]) is None for c in own):
        return None
    numbers = [str(k + 1) for k in range(len(head.columns))]
    names = asked if len(asked) == len(own) else numbers[1:]
    classes = dict(zip(names, range(1, len(numbers)), strict=True))
    said = f"{cells.path.name} read as: path=1, a class for each of columns 2 to {len(numbers)}"
    return Columns(head, {"path": 0}, numbers, classes=classes, notes=[said])


def _neither(column: Names) -> int | None:
    """How many cells of a column of yes and no say neither, nor that nobody knows: 0, or so few
    beside the others that they are mistakes. None: it is another column."""
    counts = pc.value_counts(column)
    if len(counts) > _SPLIT_VALUES:
        return None
    words = texts_of(counts.field("values"))
    told = list(zip(map(says, words), counts.field("counts").to_pylist(), strict=True))
    odd = sum(times for said, times in told if said is None)
    if not odd:
        return 0 if any(map(str.strip, words)) else None
    return odd if odd <= most_mistakes(sum(t for said, t in told if said in (0, 1))) else None


def most_mistakes(meant: int) -> int:
    """How many cells that make no sense are mistakes beside so many that do."""
    return max(meant // 10, int(meant >= 4))


def called_like_labels(name: str) -> bool:
    """Whether people call a column of labels so."""
    return _plain(name) in ALIASES["label"].split()


UNKNOWN = -1
"""What a cell says of which nobody knows: empty, −1, or what programs write for a missing value."""


def says(word: str) -> int | None:
    """1 for yes, 0 for no, `UNKNOWN`; None for what is none of these."""
    plain = word.strip()
    if is_missing(plain) or plain in ("-1", "-1.0"):
        return UNKNOWN
    answer = yes_or_no(plain)
    return None if answer is None else int(answer)


def _named(cells: Cells, names: list[str], asked: Mapping[str, str]) -> dict[str, int]:
    """Those that `data.columns` names."""
    place: dict[str, int] = {}
    for role, name in asked.items():
        same = [k for k, own in enumerate(cells.head) if own == name] or [
            k for k, plain in enumerate(names) if plain == _plain(name)
        ]
        if not same and not name.isdecimal():
            raise UsageError(
                f"no column {name!r} in the table",
                where=f"key data.columns.{role}, {cells.where}",
                mend=suggest(_plain(name), names[:_LOOKED_AT]) or f"it has {_shown(cells.head)}",
            )
        if same:
            place[role] = same[0]
    return place


def _recognised(cells: Cells, names: list[str], options: ColumnOptions) -> dict[str, int]:
    """Those whose names are known, for what `data.columns` leaves open."""
    taken = {_plain(n) for r in ALIASES if (n := getattr(options, r)) not in (None, "auto")}
    place: dict[str, int] = {}
    for role, aliases in ALIASES.items():
        if getattr(options, role) != "auto":
            continue
        # In the order of the aliases, so that `label` is preferred to `name`.
        for alias in aliases.split():
            same = [k for k, name in enumerate(names) if name == alias and name not in taken]
            if not same or same[0] in place.values():
                continue
            if len(same) > 1:
                raise UsageError(
                    f"{len(same)} columns called {cells.head[same[0]]!r}",
                    where=cells.where,
                    mend="give each its own name",
                )
            if role != "split" or _tells_splits(cells.columns[same[0]], alias):
                place[role] = same[0]
                break
    return place


def _tells_splits(column: Names, alias: str) -> bool:
    """Whether a column says train, val or test. One called `split` is meant to, whatever it says;
    `fold` or `set` can be something else."""
    if alias == "split":
        return True
    words = texts_of(pc.unique(column))
    return len(words) <= _SPLIT_VALUES and any(split_of(word) for word in words)


def _with_splits(found: Columns, names: list[str], options: ColumnOptions) -> Columns:
    """With columns of yes and no, where there is none of words."""
    if "split" in found.place or options.split is None:
        return found
    flags: dict[str, int] = {}
    for position, name in enumerate(names):
        split = _FLAGS.get(name)
        if split is None or split in flags or position in found.place.values():
            continue
        counts = pc.value_counts(found.cells.columns[position])
        words, times = texts_of(counts.field("values")), counts.field("counts").to_pylist()
        odd = sum(n for w, n in zip(words, times, strict=True) if yes_or_no(w) is None)
        if odd <= most_mistakes(sum(times) - odd):
            flags[split] = position
    return replace(found, flags=flags)


def _told(found: Columns, names: list[str]) -> Columns:
    """With what is to be said: every column's role, and what was not taken for one."""
    head, own = found.names, found.cells.path.name
    read = [f"{role}={head[found.place[role]]}" for role in ALIASES if role in found.place]
    for split, k in found.flags.items():
        rest = "train" if split != "train" else "test"
        read.append(f"split={head[k]} (yes: {split}, no: {rest})")
    if found.classes:
        count = counted(len(found.classes), "class", "classes")
        read.append(f"{count} of yes and no={_shown(list(found.classes))}")
    used = {*found.place.values(), *found.flags.values(), *found.classes.values()}
    ignored = [name or "(no name)" for k, name in enumerate(head) if k not in used]
    said = f"{own} read as: {', '.join(read)}"
    notes = [said + (f"; ignored: {_shown(ignored)}" if ignored else "")]
    for k, name in enumerate(names):
        role = _LIKE.get(name)
        if role is not None and k not in used and role not in found.place and not found.flags:
            use = f"data.columns.{role}={head[k]} weighs the loss by it"
            notes.append(f"{head[k]!r} is not used: {use}")
    if "fold" in found.place:
        own = head[found.place["fold"]]
        notes.append(
            f"{own!r} divides nothing by itself: data.split.folds=given cross-validates by it,"
            f" data.columns.split={own} reads train, val, test there"
        )
    labels = ALIASES["label"].split()
    others = {head[k]: k for k, name in enumerate(names) if name in labels and k not in used}
    return replace(found, others=others, notes=notes)


def _refuse_short(found: Columns, needed: Iterable[str]) -> None:
    """Rows must reach as far as what is needed."""
    cells = found.cells
    for role in needed:
        short = cells.columns[found.place[role]].is_null().to_numpy(zero_copy_only=False)
        if short.any():
            k = int(np.flatnonzero(short)[0])
            width = sum(column[k].is_valid for column in cells.columns)
            wanted = max(found.place.values()) + 1
            raise misfit(cells.at(int(cells.lines[k])), width, wanted)


def _refuse_misspelt(cells: Cells, names: list[str], needed: tuple[str, str]) -> None:
    """Raises `UsageError` if this is a header in which one that is needed is not recognised."""
    for wanted, other in ((needed[1], needed[0]), needed):
        known, told = ALIASES[wanted].split(), set(ALIASES[other].split())
        near = [s for n in names[:_LOOKED_AT] if n not in told and (s := suggest(n, known))]
        # A first row of data can hold a label called `y`, but hardly a path called `path`.
        if told & set(names) and (other == "path" or near):
            taken = next(alias for alias in ALIASES[other].split() if alias in names)
            free = [n for n, plain in zip(cells.head, names, strict=True) if plain != taken]
            column = free[0] if len(free) == 1 else "COLUMN"
            mend = near[0] if near else f"call the column `{wanted}`"
            raise UsageError(
                f"no column for the {wanted} among {_shown(cells.head)}",
                where=cells.where,
                mend=f"{mend}, or say data.columns.{wanted}={column}",
            )


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _shown(names: Sequence[str]) -> str:
    return some(names, _SHOWN, between=", ")
