"""A stage's own data: what it is made of, and that it stays so."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from interrupted import interrupted

import retinue
from retinue.data.options import DataOptions
from retinue.data.sources import Dataset, open_dataset
from retinue.data.targets.boxes import Boxes
from retinue.data.targets.one_class import OneClass
from retinue.errors import RetinueError
from retinue.run.folder import RunFolder
from retinue.sample import Sample
from retinue.tasks.task import task_type
from retinue.training import stage_samples as module
from retinue.training.stage_samples import Subset, Tiles, WithValidation, stage_samples

COUNTS = {0: 40, 1: 20, 2: 1}


def _samples(name: str = "train", counts: dict[int, int] | None = None) -> list[Sample]:
    return [
        Sample(f"{name}/{label}/{k}.png", target=OneClass(label, 3), weight=1 + k / 8)
        for label, count in (counts or COUNTS).items()
        for k in range(count)
    ]


def _strata(samples: list[Sample]) -> Counter[str]:
    return Counter(s.target.stratum() for s in samples if s.target is not None)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", "run")


SPLITS = {"train": _samples(), "val": _samples("val", {0: 3, 1: 2})}


def _made(run: RunFolder, options: Any, samples: Any = None, **changes: Any) -> list[Sample]:
    samples = SPLITS["train"] if samples is None else samples
    return stage_samples(run, "late", options, samples, SPLITS, **{"write": True, **changes})


def test_nothing_said_leaves_them_as_they_were(run: RunFolder) -> None:
    before = SPLITS["train"][::-1]
    assert _made(run, None, before) == before
    assert not (run.path / "stages").exists()


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_a_subset_keeps_the_share_of_every_class(run: RunFolder, share: float) -> None:
    kept = _made(run, Subset(share=share))
    assert _strata(kept) == {"0": 40 * share, "1": 20 * share, "2": 1}  # never none at all
    assert kept == [sample for sample in SPLITS["train"] if sample in kept]  # in their order


def test_a_subset_depends_on_seed_and_keys_and_not_on_who_else_there_is(tmp_path: Path) -> None:
    def kept(samples: list[Sample], seed: int = 0) -> set[str]:
        return {s.key for s in module._subset(Subset(share=0.5, seed=seed), samples, SPLITS)}

    samples = _samples()
    first = kept(samples)
    assert kept(samples[::-1]) == first
    assert kept(samples, seed=1) != first
    # Of one class alone, the same ones of it.
    assert kept(samples[:40]) == {key for key in first if key.startswith("train/0/")}


def test_with_the_validation_split(run: RunFolder) -> None:
    assert _made(run, WithValidation()) == [*SPLITS["train"], *SPLITS["val"]]


def test_what_was_written_down_counts_whatever_would_be_said_now(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _made(run, Subset(share=0.5))
    lines = (run.path / "stages" / "late.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["key"] for line in lines] == [s.key for s in first]
    monkeypatch.setitem(module._CHANGES, Subset, lambda *_: pytest.fail("it was asked again"))
    assert _made(run, Subset(share=0.5)) == first
    with pytest.raises(pytest.fail.Exception, match="asked again"):
        stage_samples(run, "other", Subset(), SPLITS["train"], SPLITS, write=True)


def test_targets_and_weights_that_a_function_changed_are_repeated(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As labels may be set right, or weighed, before a stage: of any kind of target."""
    boxes = [
        Sample("a 猫.png", target=Boxes.made([[0, 0, 4.5, 4]], [1])),
        Sample("b.png", target=None, weight=2.0),
    ]
    changed = [
        replace(boxes[0], target=Boxes.made([[0, 0, 4.25, 4], [1, 1, 2, 2]], [1, 0]), weight=3.0),
        replace(boxes[1], target=boxes[0].target),
        replace(boxes[0], target=None),
    ]
    monkeypatch.setitem(module._CHANGES, Subset, lambda *_: changed)
    splits = {"train": boxes}
    first = stage_samples(run, "late", Subset(), boxes, splits, write=True)
    again = stage_samples(run, "late", Subset(), boxes, splits, write=True)
    assert first == changed
    for ours, theirs in zip(again, changed, strict=True):
        assert (ours.key, ours.weight, ours.read) == (theirs.key, theirs.weight, theirs.read)
        assert (ours.target is None) == (theirs.target is None)
        if ours.target is not None and theirs.target is not None:
            assert ours.target.fingerprint() == theirs.target.fingerprint()


def test_tiles_are_written_down_and_repeated(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.zeros((70, 100, 3), np.uint8)
    target = Boxes.made([[0, 0, 4.5, 4]], [1])
    large = Sample("large", lambda: image, target, weight=2.0, name="in/large")
    small = Sample("small", lambda: image[:32, :32], None)
    samples = {"train": [large, small]}
    options = Tiles(side=64, overlap=0.25)
    made = stage_samples(run, "late", options, samples["train"], samples, write=True)
    assert [s.part for s in made] == [
        None, (0, 0, 64, 64), (36, 0, 100, 64), (0, 6, 64, 70), (36, 6, 100, 70), None,
    ]  # fmt: skip
    monkeypatch.setitem(module._CHANGES, Tiles, lambda *_: pytest.fail("it was asked again"))
    again = stage_samples(run, "late", options, samples["train"], samples, write=True)
    assert again == made
    # The next stage learns from the same.
    assert stage_samples(run, "next", None, made, samples, write=True) is made
    later = stage_samples(run, "few", Subset(share=0.5), made, samples, write=True)
    assert {s.part for s in later} < {s.part for s in made}
    assert stage_samples(run, "few", Subset(share=0.5), made, samples, write=True) == later


@pytest.mark.parametrize("part", ["[0, 0, 1]", '["a", 0, 1, 1]', "[0, 0, 1, Infinity]", "7"])
def test_a_part_that_is_none_is_refused(run: RunFolder, part: str) -> None:
    (first, *_) = SPLITS["train"]
    line = f'{{"key": "{first.key}", "target": null, "weight": 1.0, "part": {part}}}\n'
    run.write("stages/late.jsonl", line)
    with pytest.raises(RetinueError, match=r"no sample of a stage.*line 1|line 1"):
        _made(run, Tiles())


def test_an_image_that_went_missing_is_named_with_file_and_line(run: RunFolder) -> None:
    first = _made(run, Subset(share=0.5))
    gone = first[4]
    rest = {"train": [s for s in SPLITS["train"] if s.key != gone.key], "val": SPLITS["val"]}
    with pytest.raises(RetinueError) as raised:
        stage_samples(run, "late", Subset(share=0.5), rest["train"], rest, write=True)
    assert repr(gone.key) in str(raised.value)
    assert f"{run.path / 'stages' / 'late.jsonl'}, line 5" in str(raised.value)
    assert raised.value.mend


def test_one_process_writes(run: RunFolder) -> None:
    kept = _made(run, Subset(share=0.5), write=False)
    assert not (run.path / "stages").exists()
    assert _made(run, Subset(share=0.5)) == kept


def _opened(path: Path | str) -> Dataset:
    return open_dataset(DataOptions(path=str(path)), task_type("classification").readers())


def test_a_subset_is_the_same_wherever_the_data_lies_and_is_opened_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tiny.write_pictures(tmp_path / "here" / "photos", each=12, side=8)
    moved = tmp_path / "elsewhere" / "images"
    moved.parent.mkdir()

    def kept(path: Path | str) -> list[str]:
        splits = _opened(path).splits
        assert all(Path(s.key).is_absolute() for split in splits.values() for s in split)
        return [s.name for s in module._subset(Subset(share=0.5), splits["train"], splits)]

    whole = kept(first)
    monkeypatch.chdir(first.parent)
    assert kept("photos") == kept("../here/photos") == whole
    first.rename(moved)
    assert kept(moved) == whole


@pytest.mark.usefixtures("torch_alone")
def test_a_stage_with_its_own_data_goes_on_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data was given by a relative path, and has files that are passed over."""
    data = tiny.write_pictures(tmp_path / "here" / "photos")
    broken = [data / "red" / f"{k:02d}.png" for k in range(6)]
    for path in broken:
        path.write_bytes(b"broken")
    stages = [
        {"name": "late", "epochs": 2, "batch_size": 8, "data": {"name": "subset", "share": 0.9}}
    ]
    recipe = tiny.recipe("photos", stages=stages, ema=None)
    recipe["data"]["on_bad_image"] = "skip"
    monkeypatch.chdir(data.parent)
    run = interrupted(recipe, tmp_path / "run", monkeypatch, step=None)
    monkeypatch.chdir(tmp_path)
    resumed = retinue.train(run, resume=True, report=False, quiet=True)
    assert resumed.skipped
    assert set(resumed.skipped) <= set(map(str, broken))
    again = retinue.train(run / "recipe.yaml", out=tmp_path / "again", report=False, quiet=True)
    written = "stages/late.jsonl"
    assert (again.folder / written).read_bytes() == (run / written).read_bytes()
