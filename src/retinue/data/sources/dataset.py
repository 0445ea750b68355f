"""From a listing to a `Dataset`: classes in order, samples by split, and what was found, said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retinue.data.options import DataOptions
from retinue.data.samples import Samples
from retinue.data.sources.annotated import about_splits, check_classes
from retinue.data.sources.folds import held_out
from retinue.data.sources.listing import Listing, Reader, Readers
from retinue.data.sources.matching import match_known
from retinue.data.sources.pool import POOL, read_pool, unknown
from retinue.data.sources.recognise import read_listing
from retinue.data.sources.records import NONE, Records, text_of, texts_of
from retinue.data.sources.splits import draw_splits, read_splits, write_splits
from retinue.data.sources.walking import about_others, normal
from retinue.data.sources.words import ORDER, sort_names
from retinue.errors import UsageError, some, suggest
from retinue.files import expanded
from retinue.sample import Sample, Target
from retinue.text import counted, few, shorten

_LINES = 8


@dataclass(slots=True)
class Dataset:
    """Samples by split (`train`, `val`, `test`, those that have any) and the names of the
    classes that their targets index."""

    classes: tuple[str, ...]
    splits: dict[str, Samples]
    root: Path | None = None
    notes: list[str] = field(default_factory=list)
    """What was found, and what is odd about it: to be said aloud."""
    options: DataOptions = field(default_factory=DataOptions)
    """What finds the same data again, from whatever folder."""
    pool: Sequence[Sample] = ()
    """Images of which nothing is known, and which are in no split."""
    doubts: list[str] = field(default_factory=list)
    """What makes a training of it one that is hardly meant: a warning each."""

    @property
    def parts(self) -> dict[str, Sequence[Sample]]:
        """The splits, and the pool under that name if there is one."""
        return {**self.splits, **({POOL: self.pool} if self.pool else {})}

    def __repr__(self) -> str:
        sizes = ", ".join(f"{part} {len(samples):,}" for part, samples in self.parts.items())
        classes = counted(len(self.classes), "class", "classes")
        place = f", {shorten(str(self.root), 60)}" if self.root is not None else ""
        return f"<Dataset {sizes or 'no images'}; {classes} ({few(self.classes)}){place}>"

    def write_splits(self, path: str | Path) -> None:
        """Writes `path,label,split,target`, the paths relative to `root`: `data.split.file` repeats
        the split. `label` names the classes, `target` changes with anything that is known, the
        sample's weight included."""
        write_splits(Path(path), self._rows())

    def _rows(self) -> Iterator[tuple[str, str, str, str]]:
        for split, samples in self.splits.items():
            said = [
                ("|".join(map(self._named, t.names())), t.fingerprint()) for t in samples.targets
            ]
            weights = np.ones(len(samples)) if samples.weight is None else samples.weight
            columns = (texts_of(samples.names), samples.target.tolist(), weights.tolist())
            for name, known, weight in zip(*columns, strict=True):
                label, target = ("", "") if known == NONE else said[known]
                yield name, label, split, target if weight == 1 else f"{target} × {weight!r}"

    def _named(self, index: str | int) -> str:
        return self.classes[index] if isinstance(index, int) else index


def open_dataset(options: DataOptions, readers: Readers, *, to_train: bool = True) -> Dataset:
    """Recognises the format, settles classes and splits. No image is read yet. Without `to_train`,
    a train split may be absent.

    Raises `UsageError` for what makes no sense, naming file and line; rows of a table that cannot
    be used are an error, or with `on_bad_image: skip` a note.
    """
    reader, listing = read_listing(options, readers)
    for error in refusals(listing, options):
        raise error
    return settle(listing, options, reader, to_train=to_train)


def judged_split(asked: str, splits: Mapping[str, Sequence[Sample]]) -> str:
    """The split that figures are of: the one that is `asked` for; `auto`: the first of test, val
    and train that has images."""
    if asked != "auto":
        return asked
    return next(split for split in ("test", "val", "train") if splits.get(split))


def refusals(listing: Listing, options: DataOptions) -> Iterator[UsageError]:
    """All for which a listing is not used at all."""
    yield from listing.errors
    if listing.problems and options.on_bad_image == "stop":
        count = len(listing.problems)
        yield UsageError(
            f"{counted(count, listing.each_problem)} cannot be used",
            where=some(listing.problems, 10),
            mend="mend or remove them; data.on_bad_image=skip trains without them"
            + (f"; {listing.looks_like}" if listing.looks_like else ""),
            details=listing.problems if count > 10 else (),
        )


def settle(
    listing: Listing, options: DataOptions, reader: Reader, *, to_train: bool = True
) -> Dataset:
    """The listing's records with classes and splits, those that cannot be used left out."""
    notes = list(listing.notes)
    notes += [f"skipped: {problem}" for problem in listing.problems]
    placed = any(target.places for target in listing.records.targets[:1])
    notes += _empty(listing.empty_classes, "boxes" if placed else "images")
    notes += about_others(listing.root, listing.not_images)
    classes, records = settle_classes(listing, options, reader, notes)
    if to_train and reader.drawn_without_train:
        records = _drawn_without_train(records, options, notes)
    records, divided = settle_splits(records, options, notes)
    index = {name: position for position, name in enumerate(classes)}
    targets = [target.remap(index) for target in records.targets]
    known = np.array([*(t is not None for t in targets), False])
    records = replace(records, target=np.where(known[records.target], records.target, NONE))
    splits: dict[str, Samples] = {}
    for code, split in enumerate(ORDER):
        chosen = records.take(np.flatnonzero(records.splits() == code))
        if len(chosen):
            splits[split] = _samples(chosen, [t for t in targets if t is not None], known)
    if any(target.places for target in targets[:1] if target):
        notes += about_splits(splits, classes)
    if "train" not in splits and (to_train or not splits):
        raise _nothing_to_train_on(listing, splits)
    if to_train and (weight := splits["train"].weight) is not None and not _weighs(weight):
        raise UsageError(
            "no image to train on counts: the weights of all of them are 0",
            where=repr(str(listing.root)),
            mend="data.columns.weight=null reads no weights",
        )
    if len(classes) == 1 and any(t.exclusive for t in listing.records.targets[:1]):
        notes.append(f"only one class, {classes[0]!r}: there is nothing to tell apart")
    shown = ", ".join(f"{name} {len(samples)}" for name, samples in splits.items())
    notes.insert(0, f"{_found(listing, classes, len(records))}, {divided}: {shown}")
    found = Dataset(tuple(classes), splits, listing.root, notes, _found_again(options, reader))
    if listing.looks_like:
        taken = f"{few(classes)} are taken for a class each"
        found.doubts.append(f"{taken}, but {listing.looks_like}")
    if options.pool is not None and to_train:
        _fill_pool(found, options.pool, listing.records)
    return found


def _fill_pool(dataset: Dataset, place: str, records: Records) -> None:
    """The images of the pool, without those that are in a split, or have a label among all the
    `records`: these may judge another fold, or be kept apart."""
    pool, notes = read_pool(place)
    labelled = records.take(np.flatnonzero(records.target != NONE))
    nothing = np.full(len(labelled), NONE, np.int64)
    others = _samples(replace(labelled, target=nothing), [], np.zeros(1, bool))
    known = (sample for samples in (*dataset.splits.values(), others) for sample in samples)
    dataset.pool, left = unknown(pool, known)
    dataset.notes += notes
    if left:
        count = counted(len(left), "image is", "images are")
        first = left[0].key
        dataset.notes.append(
            f"pool: {count} labelled, in a split or there twice: left out, first {first!r}"
        )
    if not dataset.pool:
        raise UsageError(
            "every image of the pool is in a split",
            where=f"key data.pool, {place!r}",
            mend="name images that the data has no labels of",
        )
    dataset.notes.append(f"pool: {counted(len(dataset.pool), 'image')} without a label")


def _drawn_without_train(records: Records, options: DataOptions, notes: list[str]) -> Records:
    """Without their splits, where none of these is one to train on."""
    there = sorted({ORDER[k] for k in np.unique(records.splits()).tolist() if k != NONE})
    if not there or "train" in there or options.split.file is not None:
        return records
    notes.append(f"all is called {' or '.join(there)}, nothing train: splits are drawn by hash")
    return replace(records, split=None)


def _empty(names: Sequence[str], of: str) -> list[str]:
    if len(names) > _LINES:
        return [f"{len(names)} classes have no {of}: {few(names, _LINES)}"]
    return [f"class {name!r} has no {of}" for name in names]


def _weighs(weight: npt.NDArray[np.float64]) -> bool:
    """Whether anything is left of weights as the loss counts them."""
    return bool(weight.astype(np.float32).any())


def _samples(records: Records, targets: list[Target], known: npt.NDArray[np.bool_]) -> Samples:
    """Of one split, `targets` being those of the records' that are `known`."""
    place = np.where(known, np.cumsum(known) - 1, NONE)
    return Samples(
        records.names,
        targets,
        place[records.target],
        root=str(records.root.absolute()),
        files=records.files,
        weight=records.weight,
        read=records.read,
        shard=records.shard,
    )


def _nothing_to_train_on(listing: Listing, splits: dict[str, Samples]) -> UsageError:
    there = " and ".join(splits)
    return UsageError(
        "no images to train on" + (f": there is only {there}" if there else ""),
        where=repr(str(listing.root)),
        mend="add a folder or rows called train"
        + ("; data.split.given=ignore divides what there is" if there else ""),
    )


def _found_again(options: DataOptions, reader: Reader) -> DataOptions:
    """The options with absolute paths; data of a package by its name."""
    placed: dict[str, str | None] = {
        name: str(expanded(given).absolute())
        for name in ("path", "images", "pool")
        if (given := getattr(options, name)) is not None
    }
    if reader.installed:
        placed = {"path": None, "format": reader.name}
    split = options.split
    if split.file is not None:
        file = str(expanded(split.file).absolute())
        split = split.model_copy(update={"file": file})
    return options.model_copy(update={**placed, "split": split})


def _found(listing: Listing, classes: list[str], images: int) -> str:
    found = counted(len(classes), "class", "classes")
    if empty := set(listing.empty_classes).difference(classes):
        found += f" ({len(empty)} more {'is' if len(empty) == 1 else 'are'} empty)"
    return f"found {found}, {counted(images, 'image')} ({listing.format})"


def settle_classes(
    listing: Listing, options: DataOptions, reader: Reader, notes: list[str]
) -> tuple[list[str], Records]:
    """The classes in their order, and the records that are of them; what is to be said is added to
    the `notes`. Raises `UsageError` for classes that there are not."""
    records = listing.records
    occurring = [records.targets[k] for k in records.occurring()]
    found = {str(name) for target in occurring for name in target.mentioned()}
    for name in found:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"the class name {name!r} is not UTF-8",
                where=repr(str(listing.root)),
                mend="rename the folder, or save the table as UTF-8, or the file of labels",
            ) from None
    also = [normal(name) for name in options.also if name] if options.also else []
    given = listing.classes or reader.class_order
    if given:
        classes = [*given, *(name for name in dict.fromkeys(also) if name not in given)]
    else:
        classes = sort_names({*found, *also})
    if absent := [name for name in classes if name in also and name not in found]:
        have = counted(len(absent), "class", "classes")
        notes.append(f"{have} without images known all the same (data.also): {few(absent)}")
    if options.classes is None:
        return classes, records
    chosen = [normal(name) for name in options.classes]
    placed = any(target.places for target in records.targets[:1])
    if placed:
        notes += check_classes(records, chosen)
    known = found | set(listing.classes or ())
    for name in chosen:
        if name not in known and not placed:
            raise UsageError(
                f"no images of class {name!r}", where="key data.classes", mend=suggest(name, known)
            )
    if len(set(chosen)) != len(chosen):
        raise UsageError("a class is named twice", where="key data.classes")
    chosen += [name for name in dict.fromkeys(also) if name not in chosen]
    left_out = [name for name in classes if name not in chosen]
    wanted = {name: position for position, name in enumerate(chosen)}
    # The last one is that of what has no target.
    kept = np.array([*(t.remap(wanted) is not None for t in records.targets), False])
    chosen_records = records.take(np.flatnonzero(kept[records.target]))
    if left_out and not placed:
        count = len(records) - len(chosen_records)
        what = counted(len(left_out), "class", "classes")
        what = f"{counted(count, 'image')} of {what}" if count else what
        notes.append(f"left out {what} not in data.classes")
    return chosen, chosen_records


def settle_splits(records: Records, options: DataOptions, notes: list[str]) -> tuple[Records, str]:
    """The records with their splits, those that a written-down split leaves out removed; and how
    they were divided, in words. What else is to be said is added to the `notes`."""
    split, given = options.split, records.splits()
    if split.file is not None:
        return _repeat_splits(records, split.file, notes)
    if split.folds is not None:
        return held_out(records, split, notes)
    if split.given == "ignore":
        given = np.full(len(records), NONE, np.int8)
    if split.given == "join" and (joined := given == ORDER.index("val")).any():
        given = np.where(joined, ORDER.index("train"), given).astype(np.int8)
        notes.append(f"{counted(int(joined.sum()), 'validation image')} joined with train")
    records = replace(records, split=given)
    if not (given != NONE).any():
        shares = {"test": split.test, "val": split.val, "train": split.train}
        drawn = draw_splits(records, {k: v for k, v in shares.items() if v > 0}, split.seed)
        said = f"{split.train:g}/{split.val:g}/{split.test:g}"
        return replace(records, split=drawn), f"split {said} (seed {split.seed})"
    if missing := int((given == NONE).sum()):
        have = counted(missing, "row has", "rows have")
        raise UsageError(f"{have} no split", mend="give each one, or none")
    train = np.flatnonzero(given == ORDER.index("train"))
    if (given == ORDER.index("val")).any() or split.val == 0 or not len(train):
        return records, "split as given"
    share = split.val / (split.val + split.train)
    divided = given.copy()
    shares = {"val": share, "train": 1 - share}
    divided[train] = draw_splits(records.take(train), shares, split.seed)
    notes.append(f"no validation images given: {share:.3g} of train taken, seed {split.seed}")
    return replace(records, split=divided), "split as given"


def _repeat_splits(records: Records, file: str, notes: list[str]) -> tuple[Records, str]:
    names, splits = read_splits(file)
    position = match_known(names, records.names)
    where = f"key data.split.file, {file!r}"
    if (absent := np.flatnonzero(position < 0)).size:
        first = min(text_of(names[k]) or "" for k in absent.tolist())
        of = "of the written-down split"
        count = counted(absent.size, f"image {of} is missing", f"images {of} are missing")
        raise UsageError(
            f"{count}, first {first!r}",
            where=where,
            mend="is data.path the same folder?",
        )
    repeated = np.full(len(records), NONE, np.int8)
    repeated[position] = splits
    if (differ := np.flatnonzero(repeated[position] != splits)).size:
        name = text_of(names[int(differ[0])])
        raise UsageError(f"{name!r} stands in two splits", where=where, mend="leave one of them")
    kept = replace(records, split=repeated).take(np.flatnonzero(repeated != NONE))
    if len(kept) < len(records):
        count = counted(len(records) - len(kept), "image")
        notes.append(f"left out {count} that {file!r} does not name")
    return kept, f"split repeated from {file!r}"
