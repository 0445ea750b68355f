"""Dividing images into train, val and test: by hash, so that it can be repeated anywhere."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from retinue.data.sources.listing import Record, normal
from retinue.errors import UsageError
from retinue.files import read_text

Stratum = tuple[str, str]


def draw_splits(
    records: Sequence[Record], shares: Mapping[str, float], seed: int
) -> dict[str, str]:
    """Record name → split, for `shares` that add up to 1, the last one taking what remains.

    Within each class and stratum, images (groups, as a whole) are ranked by a hash of the seed and
    their name; the first ones go to the first split, and so on. Sizes are exact over all, and
    as even as whole images allow within each stratum.
    """
    units: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        key = f"file\0{record.name}" if record.group is None else f"group\0{record.group}"
        units[key].append(record)
    strata: dict[Stratum, list[str]] = defaultdict(list)
    for key, members in units.items():
        strata[_majority(members)].append(key)
    for keys in strata.values():
        keys.sort(key=lambda key: _rank(seed, key))

    result: dict[str, str] = {}
    sizes = {name: sum(len(units[k]) for k in keys) for name, keys in strata.items()}
    *drawn, rest = shares
    left = Fraction(1)
    for split in drawn:
        share = Fraction(shares[split]).limit_denominator(10**6)
        for stratum, quota in _quotas(sizes, share / left, seed).items():
            taken = 0
            for key in strata[stratum]:
                members = units[key]
                if members[0].name in result or taken >= quota:
                    continue
                # A group that would overshoot by more than half of itself is left to the others.
                if taken + len(members) / 2 > quota:
                    continue
                taken += len(members)
                result.update((record.name, split) for record in members)
            sizes[stratum] -= taken
        left -= share
    for record in records:
        result.setdefault(record.name, rest)
    return result


def _majority(members: Sequence[Record]) -> Stratum:
    counts = Counter(
        (record.target.stratum() if record.target else "", record.stratum) for record in members
    )
    return min(counts, key=lambda stratum: (-counts[stratum], stratum))


def _rank(seed: int, key: str) -> bytes:
    text = f"{seed}\0{key}".encode("utf-8", errors="surrogateescape")
    return hashlib.sha256(text).digest()


def _quotas(sizes: Mapping[Stratum, int], share: Fraction, seed: int) -> dict[Stratum, int]:
    """Whole numbers that add up to the rounded total: largest remainders are rounded up."""
    wanted = {name: size * share for name, size in sizes.items()}
    quotas = {name: int(value) for name, value in wanted.items()}
    missing = round(sum(sizes.values()) * share) - sum(quotas.values())
    # Equal remainders (many small classes) are settled by hash, too, not by the alphabet.
    by_remainder = sorted(
        wanted, key=lambda name: (quotas[name] - wanted[name], _rank(seed, "\0".join(name)))
    )
    for name in by_remainder[: max(missing, 0)]:
        quotas[name] += 1
    return quotas


def read_splits(file: str) -> dict[str, str]:
    """Relative path → split, from a written-down `splits.csv`. Raises `UsageError`."""
    try:
        with io.StringIO(read_text(file), newline="") as handle:
            reader = csv.DictReader(handle)
            if not {"path", "split"} <= set(reader.fieldnames or ()):
                raise UsageError(
                    "no columns `path` and `split`", where=f"key data.split.file, {file!r}"
                )
            return {normal(row["path"]): row["split"] for row in reader}
    except OSError as error:
        raise UsageError(
            f"cannot read the splits: {error.strerror}", where=f"key data.split.file, {file!r}"
        ) from None


def write_splits(path: Path, rows: Sequence[tuple[str, str, str, str]]) -> None:
    """A csv of (path, label, split, target), readable by `read_splits`."""
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(("path", "label", "split", "target"))
        writer.writerows(rows)
