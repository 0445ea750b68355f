"""Dividing into folds: every image in one, classes even, groups together, test in none."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.data.options import DataOptions, SplitOptions
from retinue.data.sources import open_dataset
from retinue.data.sources.folds import fold_names, held_out
from retinue.data.sources.records import NONE, Record, Records
from retinue.data.sources.words import ORDER
from retinue.data.targets.one_class import OneClass
from retinue.errors import UsageError
from retinue.tasks.task import task_type

READERS = task_type("classification").readers()


def _records(count: int, *, groups: int = 0, tests: int = 0) -> Records:
    kinds = [OneClass("a"), OneClass("b")]
    return Records.of(
        [
            Record(
                Path(f"{k}.png"),
                f"{k}.png",
                kinds[k % 3 == 0],
                split="test" if k < tests else "train" if tests else None,
                group=f"g{k % groups}" if groups else None,
            )
            for k in range(count)
        ]
    )


def _held(records: Records, **split: object) -> list[tuple[list[str], list[str]]]:
    """(train, val) of each fold."""
    found = []
    for fold in range(1, int(str(split["folds"])) + 1):
        options = SplitOptions.model_validate({**split, "fold": fold})
        kept, _ = held_out(records, options, [])
        rows = list(kept)
        assert {row.split for row in rows} == {"train", "val"}
        found.append(
            (
                [r.name for r in rows if r.split == "train"],
                [r.name for r in rows if r.split == "val"],
            )
        )
    return found


@given(st.integers(12, 60), st.integers(2, 6), st.integers(0, 3))
def test_each_image_is_judged_once_and_classes_are_even(count: int, folds: int, seed: int) -> None:
    records = _records(count)
    found = _held(records, folds=folds, seed=seed, test=0, val=0.2)
    judged = Counter(name for _, val in found for name in val)
    assert judged == Counter(f"{k}.png" for k in range(count))
    for train, val in found:
        assert not set(train) & set(val)
        assert len(train) + len(val) == count
    sizes = [len(val) for _, val in found]
    assert max(sizes) - min(sizes) <= 1
    rarer = [sum(int(name[:-4]) % 3 == 0 for name in val) for _, val in found]
    assert max(rarer) - min(rarer) <= 2


def test_groups_stay_together_and_another_seed_gives_other_folds() -> None:
    records = _records(40, groups=10)
    found = _held(records, folds=5, test=0, val=0.2)
    for train, val in found:
        groups = [{int(name[:-4]) % 10 for name in part} for part in (train, val)]
        assert not groups[0] & groups[1]
    assert found != _held(records, folds=5, seed=1, test=0, val=0.2)
    assert found == _held(records, folds=5, test=0, val=0.2)


def test_the_test_split_is_in_no_fold_and_the_same_as_without_folds(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for k in range(20):
            (tmp_path / name / f"{k}.png").touch()
    plain = open_dataset(DataOptions(path=str(tmp_path)), READERS)
    seen: list[str] = []
    for fold in "123":
        split = SplitOptions(folds=3, fold=fold)
        dataset = open_dataset(DataOptions(path=str(tmp_path), split=split), READERS)
        assert set(dataset.splits) == {"train", "val"}
        seen += [sample.key for sample in dataset.splits["val"]]
    test = {sample.key for sample in plain.splits["test"]}
    rest = {sample.key for split in ("train", "val") for sample in plain.splits[split]}
    assert len(test) == 4
    assert sorted(seen) == sorted(rest)


def test_a_given_test_split_is_left_out_and_said() -> None:
    notes: list[str] = []
    kept, said = held_out(_records(20, tests=5), SplitOptions(folds=3, fold="2"), notes)
    assert len(kept) == 15
    assert notes == ["5 test images left out: no fold has them"]
    assert said == "fold 2 of 3 held out (seed 0)"


def _table(tmp_path: Path, folds: str) -> DataOptions:
    lines = ["path,label,fold"]
    for k, fold in enumerate(folds.split(",")):
        (tmp_path / f"{k}.png").touch()
        lines.append(f"{k}.png,{'ab'[k % 2]},{fold}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    path = str(tmp_path / "labels.csv")
    split = SplitOptions.model_validate({"folds": "given", "test": 0, "val": 0.2})
    return DataOptions(path=path, split=split)


def _of(options: DataOptions, fold: str) -> DataOptions:
    return options.model_copy(update={"split": options.split.model_copy(update={"fold": fold})})


def test_folds_of_a_table_are_taken_by_their_values(tmp_path: Path) -> None:
    options = _table(tmp_path, "10,2,10,2,0,0")
    assert fold_names(options, READERS) == ["0", "2", "10"]
    dataset = open_dataset(_of(options, "10"), READERS)
    assert [Path(s.key).name for s in dataset.splits["val"]] == ["0.png", "2.png"]
    assert len(dataset.splits["train"]) == 4


@pytest.mark.parametrize(
    ("folds", "fold", "what"),
    [
        ("0,1,0,1,,1", "1", "1 row has no fold"),
        ("0,0,0,0", "0", "the data names 1 fold: 0"),
        ("a/b,c,a/b,c", "c", "the fold 'a/b' has a name with '/'"),
        ("A,a,A,a", "a", "two folds have one name but for case: A, a"),
        ("0,1,0,1", "2", "the data has no fold '2'"),
    ],
)
def test_what_is_wrong_with_given_folds(tmp_path: Path, folds: str, fold: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_dataset(_of(_table(tmp_path, folds), fold), READERS)
    assert caught.value.what == what


def test_what_is_wrong_with_drawn_ones() -> None:
    with pytest.raises(UsageError, match="has no images: there are 4 for 5"):
        held_out(_records(4), SplitOptions(folds=5, fold="5", test=0, val=0.2), [])
    with pytest.raises(UsageError, match="which of the folds is judged is not said"):
        held_out(_records(9), SplitOptions(folds=3), [])
    with pytest.raises(UsageError, match="the data names no folds"):
        held_out(_records(9), SplitOptions(folds="given", fold="1"), [])
    for wrong in (
        {"fold": "1"},
        {"folds": 3, "fold": "4"},
        {"folds": 1},
        {"folds": 3, "fold": "0"},
    ):
        with pytest.raises(ValueError, match="fold"):
            SplitOptions.model_validate(wrong)


def test_codes_of_held_out_records() -> None:
    kept, _ = held_out(_records(9), SplitOptions(folds=3, fold=1, test=0, val=0.2), [])  # type: ignore[arg-type]
    codes = kept.splits()
    assert sorted(set(codes.tolist())) == sorted((ORDER.index("train"), ORDER.index("val")))
    assert NONE not in codes
