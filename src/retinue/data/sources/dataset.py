"""From a listing to a `Dataset`: classes in order, samples by split, and what was found, said."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from retinue.data.options import DataOptions, SplitOptions
from retinue.data.sources.listing import (
    Listing,
    Reader,
    Record,
    normal,
    sort_classes,
)
from retinue.data.sources.recognise import Readers, read_listing
from retinue.data.sources.splits import draw_splits, read_splits, write_splits
from retinue.errors import UsageError, suggest
from retinue.sample import Sample
from retinue.text import counted, few, shorten

ORDER = ("train", "val", "test")


@dataclass(slots=True)
class Dataset:
    """Samples by split (`train`, `val`, `test`, those that have any) and the names of the
    classes that their targets index."""

    classes: tuple[str, ...]
    splits: dict[str, list[Sample]]
    root: Path | None = None
    notes: list[str] = field(default_factory=list)
    """What was found, and what is odd about it: to be said aloud."""
    options: DataOptions = field(default_factory=DataOptions)
    """What finds the same data again, from whatever folder."""

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(samples):,}" for split, samples in self.splits.items())
        classes = counted(len(self.classes), "class", "classes")
        place = f", {shorten(str(self.root), 60)}" if self.root is not None else ""
        return f"<Dataset {sizes or 'no images'}; {classes} ({few(self.classes)}){place}>"

    def write_splits(self, path: str | Path) -> None:
        """Writes `path,label,split,target`, the paths relative to `root`: `data.split.file` repeats
        the split. `label` names the classes, `target` changes with anything that is known, the
        sample's weight included."""
        rows = []
        for split, samples in self.splits.items():
            for sample in samples:
                name = sample.name or sample.key
                target = sample.target
                label = "|".join(self._named(k) for k in target.names()) if target else ""
                known = target.fingerprint() if target else ""
                if sample.weight != 1:
                    known += f" × {float(sample.weight)!r}"
                rows.append((name, label, split, known))
        write_splits(Path(path), rows)

    def _named(self, index: str | int) -> str:
        return self.classes[index] if isinstance(index, int) else index


def open_dataset(options: DataOptions, readers: Readers, *, to_train: bool = True) -> Dataset:
    """Recognises the format, settles classes and splits. No image is read yet. Without `to_train`,
    a train split may be absent.

    Raises `UsageError` for what makes no sense, naming file and line; rows of a table that cannot
    be used are an error, or with `on_bad_image: skip` a note.
    """
    reader, listing = read_listing(options, readers)
    if listing.errors:
        raise listing.errors[0]
    if listing.problems and options.on_bad_image == "stop":
        shown = "; ".join(listing.problems[:10])
        more = f" and {len(listing.problems) - 10} more" if len(listing.problems) > 10 else ""
        count = len(listing.problems)
        raise UsageError(
            f"{count} row{'s' if count != 1 else ''} cannot be used",
            where=shown + more,
            mend="mend or remove them; data.on_bad_image=skip trains without them",
        )
    return settle(listing, options, reader, to_train=to_train)


def settle(
    listing: Listing, options: DataOptions, reader: Reader, *, to_train: bool = True
) -> Dataset:
    """The listing's records with classes and splits, those that cannot be used left out."""
    notes = list(listing.notes)
    notes += [f"skipped: {problem}" for problem in listing.problems]
    notes += [f"class {name!r} has no images" for name in listing.empty_classes]
    classes, records = _settle_classes(listing, options, reader, notes)
    records, divided = _settle_splits(records, options.split, notes)
    index = {name: position for position, name in enumerate(classes)}
    splits: dict[str, list[Sample]] = {}
    for split in ORDER:
        samples = [
            Sample(
                r.key if r.path is None else str(r.path.absolute()),
                read=r.read,
                target=r.target.remap(index) if r.target is not None else None,
                weight=r.weight,
                name=r.name,
                shard=r.shard,
            )
            for r in records
            if r.split == split
        ]
        if samples:
            splits[split] = samples
    if "train" not in splits and (to_train or not splits):
        raise UsageError(
            "no images to train on", where=repr(str(listing.root)), mend="see data.split"
        )
    if len(classes) == 1:
        notes.append(f"only one class, {classes[0]!r}: there is nothing to tell apart")
    shown = ", ".join(f"{name} {len(samples)}" for name, samples in splits.items())
    notes.insert(0, f"{_found(listing, classes, records)}, {divided}: {shown}")
    return Dataset(tuple(classes), splits, listing.root, notes, _found_again(options, reader))


def _found_again(options: DataOptions, reader: Reader) -> DataOptions:
    """The options with absolute paths; data of a package by its name."""
    placed: dict[str, str | None] = {
        name: str(Path(given).expanduser().absolute())
        for name in ("path", "images")
        if (given := getattr(options, name)) is not None
    }
    if reader.installed:
        placed = {"path": None, "format": reader.name}
    split = options.split
    if split.file is not None:
        file = str(Path(split.file).expanduser().absolute())
        split = split.model_copy(update={"file": file})
    return options.model_copy(update={**placed, "split": split})


def _found(listing: Listing, classes: list[str], records: list[Record]) -> str:
    noun = "class" if len(classes) == 1 else "classes"
    return f"found {len(classes)} {noun}, {len(records):,} images ({listing.format})"


def _settle_classes(
    listing: Listing, options: DataOptions, reader: Reader, notes: list[str]
) -> tuple[list[str], list[Record]]:
    found = Counter(
        str(name)
        for record in listing.records
        if record.target is not None
        for name in record.target.mentioned()
    )
    for name in found:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"the class name {name!r} is not UTF-8",
                where=repr(str(listing.root)),
                mend="rename the folder, or save the table as UTF-8",
            ) from None
    own = reader.class_order
    classes = list(own) if own else sort_classes(found)
    if options.classes is None:
        return classes, listing.records
    chosen = [normal(name) for name in options.classes]
    for name in chosen:
        if name not in found:
            raise UsageError(
                f"no images of class {name!r}", where="key data.classes", mend=suggest(name, found)
            )
    if len(set(chosen)) != len(chosen):
        raise UsageError("a class is named twice", where="key data.classes")
    left_out = [name for name in classes if name not in chosen]
    wanted = {name: position for position, name in enumerate(chosen)}
    kept = [
        r for r in listing.records if r.target is not None and r.target.remap(wanted) is not None
    ]
    if left_out:
        count = len(listing.records) - len(kept)
        notes.append(f"left out {count} images of {len(left_out)} classes not in data.classes")
    return chosen, kept


def _settle_splits(
    records: list[Record], options: SplitOptions, notes: list[str]
) -> tuple[list[Record], str]:
    """The records with their splits, those that a written-down split leaves out removed; and how
    they were divided, in words."""
    if options.file is not None:
        return _repeat_splits(records, options.file, notes)
    given = {record.split for record in records}
    if given == {None}:
        shares = {"test": options.test, "val": options.val, "train": options.train}
        drawn = draw_splits(records, {k: v for k, v in shares.items() if v > 0}, options.seed)
        said = f"{options.train:g}/{options.val:g}/{options.test:g}"
        divided = [replace(record, split=drawn[record.name]) for record in records]
        return divided, f"split {said} (seed {options.seed})"
    if None in given:
        missing = sum(record.split is None for record in records)
        raise UsageError(f"{missing} rows have no split", mend="give each one, or none")
    if "val" in given or options.val == 0:
        return records, "split as given"
    share = options.val / (options.val + options.train)
    train = [record for record in records if record.split == "train"]
    drawn = draw_splits(train, {"val": share, "train": 1 - share}, options.seed)
    notes.append(f"no validation images given: {share:.3g} of train taken, seed {options.seed}")
    divided = [replace(r, split=drawn[r.name]) if r.split == "train" else r for r in records]
    return divided, "split as given"


def _repeat_splits(records: list[Record], file: str, notes: list[str]) -> tuple[list[Record], str]:
    written = read_splits(file)
    absent = sorted(set(written) - {record.name for record in records})
    if absent:
        raise UsageError(
            f"{len(absent)} images of the written-down split are missing, first {absent[0]!r}",
            where=f"key data.split.file, {file!r}",
            mend="is data.path the same folder?",
        )
    bad = sorted({split for split in written.values() if split not in ORDER})
    if bad:
        raise UsageError(f"unknown split {bad[0]!r}", where=f"key data.split.file, {file!r}")
    kept = [replace(r, split=written[r.name]) for r in records if r.name in written]
    if len(kept) < len(records):
        notes.append(f"left out {len(records) - len(kept)} images that {file!r} does not name")
    return kept, f"split repeated from {file!r}"
