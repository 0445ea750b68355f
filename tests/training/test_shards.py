"""Images that lie in shards, or in memory, and in no file of their own: a made-up format brings
them through a whole training, with the sampler that reads shard after shard."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from examples import example
from examples import write as write_records
from interrupted import assert_same
from PIL import Image
from warm import Warm

import retinue
from retinue.data.check import check
from retinue.data.options import DataOptions
from retinue.data.readable import unreadable
from retinue.data.sources import Dataset, Listing, Member, Reader, Record, Records, open_dataset
from retinue.data.sources.listing import Readers
from retinue.data.targets.one_class import OneClass
from retinue.data.views import open_image
from retinue.errors import BadImageError, RetinueError, UsageError
from retinue.tasks.classification.task import Classification
from retinue.training import trainer

CLASSES = ("blue", "red")


def _read(root: Path, options: DataOptions) -> Listing:
    """`index.json`: for each shard, its images' labels and lengths, one after the other."""
    records = []
    for name, entries in json.loads((root / "index.json").read_text()).items():
        offset, file = 0, str((root / name).absolute())
        for number, (label, length) in enumerate(entries):
            member = Member(file, offset, length)
            called = f"{name}/{number}"
            target = OneClass(label)
            records.append(Record(None, called, target, read=member, shard=file))
            offset += length
    return Listing("concatenated", root, Records.of(records))


def _find(options: DataOptions, asked: bool) -> Path | None:
    path = Path(str(options.path))
    return path if (path / "index.json").is_file() else None


CONCATENATED = Reader("concatenated", _find, _read)


def _in_memory(root: Path, options: DataOptions) -> Listing:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 36, 36, 3)).astype(np.uint8)
    records = [
        Record(None, f"array {k}", OneClass(CLASSES[k % 2]), read=lambda k=k: pixels[k])
        for k in range(20)
    ]
    return Listing("in memory", root, Records.of(records))


IN_MEMORY = Reader("in memory", lambda options, asked: Path() if asked else None, _in_memory)
READERS = Readers({reader.name: reader for reader in (CONCATENATED, IN_MEMORY)})


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Four shards of ten JPEGs each."""
    root = tmp_path / "data"
    root.mkdir()
    rng, index = np.random.default_rng(0), {}
    for shard in range(4):
        content, entries = b"", []
        for number in range(10):
            pixels = rng.integers(0, 80, (40, 40, 3)).astype(np.uint8)
            pixels[..., 0 if number % 2 else 2] += 120
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "JPEG")
            content += buffer.getvalue()
            entries.append([CLASSES[number % 2], len(buffer.getvalue())])
        (root / f"{shard}.jpegs").write_bytes(content)
        index[f"{shard}.jpegs"] = entries
    (root / "index.json").write_text(json.dumps(index))
    return root


def _opened(path: Path | str, **options: Any) -> Dataset:
    return open_dataset(DataOptions(path=str(path), **options), READERS)


def test_a_member_is_its_range_of_bytes(tmp_path: Path) -> None:
    (tmp_path / "all").write_bytes(b"0123456789")
    assert Member(str(tmp_path / "all"), 3, 4)() == b"3456"
    assert Member(str(tmp_path / "all"), 10, 0)() == b""
    with pytest.raises(OSError, match="ends 2 bytes before"):
        Member(str(tmp_path / "all"), 8, 4)()
    with pytest.raises(FileNotFoundError):
        Member(str(tmp_path / "none"), 0, 1)()


def test_samples_of_shards_say_where_they_lie_and_are_called_by_their_names(shards: Path) -> None:
    dataset = _opened(shards)
    samples = [sample for split in dataset.splits.values() for sample in split]
    assert len({s.key for s in samples}) == 40
    for sample in samples:
        assert sample.key == sample.name
        assert Path(sample.shard) == shards / sample.name.split("/")[0]
        assert sample.target is not None
        image = open_image(sample).decode().image.astype(int)
        is_red = (image[..., 0] > image[..., 2]).mean() > 0.5
        assert sample.target.names() == (int(is_red),)


def test_a_shard_that_ends_early_is_told_of_the_image(shards: Path) -> None:
    whole = (shards / "2.jpegs").read_bytes()
    (shards / "2.jpegs").write_bytes(whole[:-5])
    samples = [s for split in _opened(shards).splits.values() for s in split]
    bad = unreadable(samples)
    assert list(bad) == ["2.jpegs/9"]
    assert "5 bytes" in bad["2.jpegs/9"]
    (sample,) = (s for s in samples if s.key in bad)
    with pytest.raises(BadImageError, match=r"2\.jpegs/9"):
        open_image(sample)


@pytest.mark.parametrize("form", ["concatenated", "in memory"])
def test_data_check_reads_what_lies_in_no_file_of_its_own(shards: Path, form: str) -> None:
    options = DataOptions(path=str(shards), format=form)
    report = check(options, READERS)
    assert not report.unreadable
    assert report.classes == dict.fromkeys(CLASSES, 20 if form == "concatenated" else 10)
    assert "wrong extension" not in [finding.what for finding in report.findings]


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch, only_torch: None) -> None:
    monkeypatch.setattr(Classification, "formats", dict.fromkeys(READERS, ""))
    monkeypatch.setattr(Classification, "readers", classmethod(lambda cls: READERS))


def _recipe(path: Path, **data: Any) -> dict[str, Any]:
    stage = {"epochs": 1, "batch_size": 4, "sampler": {"name": "shards", "window": 4}}
    recipe = tiny.recipe(path, stages=[stage], ema=None)
    recipe["data"].update(data)
    return recipe


@pytest.mark.usefixtures("made_up")
def test_a_training_reads_shard_after_shard(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    real = trainer.Trainer._step

    def step(self: trainer.Trainer, stage: Any, portions: Any) -> None:
        shown.extend(sample.shard for batch in portions for sample in batch.samples)
        real(self, stage, portions)

    monkeypatch.setattr(trainer.Trainer, "_step", step)
    run = retinue.train(_recipe(shards), out=tmp_path / "run", report=False, quiet=True)
    assert len(shown) == 32
    assert set(shown) == {str(shards / f"{k}.jpegs") for k in range(4)}
    # With a window of 4, a shard is begun 4 images before the ones that lie before it are through.
    begun = {shard: shown.index(shard) for shard in dict.fromkeys(shown)}
    before = 0
    for shard, first in begun.items():
        assert first > before - 4
        before += shown.count(shard)
    assert run.figures["images"] == 4
    again = retinue.train(
        run.folder / "recipe.yaml", out=tmp_path / "again", report=False, quiet=True
    )
    splits = [folder / "splits.csv" for folder in (run.folder, again.folder)]
    assert splits[0].read_bytes() == splits[1].read_bytes()
    assert "\n0.jpegs/" in splits[0].read_text()


@pytest.mark.usefixtures("made_up")
def test_images_in_memory_are_trained_on_but_lie_in_no_shards(shards: Path, tmp_path: Path) -> None:
    recipe = _recipe(shards, format="in memory")
    with pytest.raises(UsageError, match="do not lie in shards"):
        retinue.train(recipe, out=tmp_path / "run", report=False, quiet=True)
    del recipe["stages"][0]["sampler"]
    run = retinue.train(recipe, out=tmp_path / "run", report=False, quiet=True)
    assert run.figures["images"] == 2


def _pictures_in_shards(root: Path) -> Path:
    """36 pictures of two colours in three TFRecord files, changed an hour ago."""
    rng = np.random.default_rng(0)
    for shard in range(3):
        examples = []
        for number in range(12):
            pixels = rng.integers(0, 80, (8, 8, 3)).astype(np.uint8)
            pixels[..., 2 * (number % 2)] += 120
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            label = [number % 2]
            examples.append(example({"image": [buffer.getvalue()], "label": label}))
        path = write_records(root / f"train-{shard:05d}-of-00003", *examples)
        os.utime(path, (time.time() - 3600,) * 2)
    return root


def test_killed_in_the_middle_of_an_epoch_of_shards_it_ends_the_same(
    tmp_path: Path, warm: Warm
) -> None:
    sampler = {"name": "shards", "window": 7}
    stage = {"name": "all", "epochs": 2, "batch_size": 4, "sampler": sampler,
             "augment": {"crop_scale": [0.5, 1.0]}}  # fmt: skip
    recipe = tiny.recipe(
        _pictures_in_shards(tmp_path / "data"), stages=[stage], checkpoint={"every_steps": 3}
    )
    assert warm.train(recipe, tmp_path / "whole").code == 0
    # Eight steps an epoch: in the first one between checkpoints, and in the second.
    run = tmp_path / "run"
    assert warm.train(recipe, run, moment="in a step", times=5).code == -signal.SIGKILL
    assert warm.train(run, moment="in a step", times=9).code == -signal.SIGKILL
    assert warm.train(run).code == 0
    assert_same(run, tmp_path / "whole")


def test_a_training_on_shards_that_have_changed_is_not_gone_on_with(
    tmp_path: Path, warm: Warm
) -> None:
    root = _pictures_in_shards(tmp_path / "data")
    run = tmp_path / "run"
    recipe = tiny.recipe(root, stages=[{"epochs": 2, "batch_size": 4}])
    assert warm.train(recipe, run, moment="in a step", times=2).code == -signal.SIGKILL
    (root / "train-00002-of-00003").unlink()
    with pytest.raises(RetinueError, match=r"12 images of the written-down split are missing"):
        retinue.train(run, resume=True, report=False, quiet=True)
