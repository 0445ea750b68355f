"""Cached views where the cache is damaged or gone, and where images are bad."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from small_views import (
    COUNT,
    VIEWS,
    epoch_of,
    pixels,
    same,
    views_of,
)

from retinue.data.targets.one_class import OneClass
from retinue.errors import BadImageError
from retinue.sample import Sample

pytestmark = pytest.mark.usefixtures("small_chunks", "computed")


def test_a_damaged_row_is_computed_anew(tmp_path: Path, computed: list[int]) -> None:
    whole = views_of(tmp_path / "cache")
    batches = [epoch_of(whole, epoch) for epoch in range(VIEWS)]
    row_bytes = whole._frozen.layout((32, 32)).dtype.itemsize
    whole.close()
    (rows,) = (tmp_path / "cache").rglob("*.rows")
    content = bytearray(rows.read_bytes())
    assert len(content) == COUNT * VIEWS * row_bytes
    for row in (2, 9):
        content[row * row_bytes + 77] ^= 0x10
    rows.write_bytes(content)
    computed.clear()
    mended = views_of(tmp_path / "cache")
    assert sum(computed) == 2
    for epoch, batch in enumerate(batches):
        same(epoch_of(mended, epoch), batch)
    computed.clear()
    views_of(tmp_path / "cache")
    assert computed == []


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _halved(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for at in range(0, len(content), 16):
        content[at] ^= 0x5A
    with open(path, "r+b") as file:  # in place
        file.write(content)


def _replaced_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _forbidden(path: Path) -> None:
    path.chmod(0)


DAMAGES = (Path.unlink, _emptied, _halved, _flipped, _replaced_by_a_folder, _forbidden)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_cache_is_only_a_cache(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """Whatever happens to any file of it, before or meanwhile, gives what it gave before."""
    whole = views_of(tmp_path / "cache")
    batches = [epoch_of(whole, epoch) for epoch in range(VIEWS)]
    whole.close()
    names = sorted(p.relative_to(tmp_path / "cache") for p in (tmp_path / "cache").rglob("*.*"))
    kinds = {name.suffix for name in names}
    assert {".json", ".rows", ".keys"} <= kinds
    (tmp_path / "cache" / "lock").touch()
    for number, name in enumerate([*names, Path("lock")]):
        before, meanwhile = (tmp_path / f"{when} {number}" for when in ("before", "meanwhile"))
        for copy in (before, meanwhile):
            shutil.copytree(tmp_path / "cache", copy)
        damage(before / name)
        mended = views_of(before)
        for epoch, batch in enumerate(batches):
            same(epoch_of(mended, epoch), batch)
        mended.close()
        in_use = views_of(meanwhile)
        same(epoch_of(in_use, 0), batches[0])
        if name.suffix != ".lease":
            damage(meanwhile / name)
        for epoch, batch in enumerate(batches):
            same(epoch_of(in_use, epoch), batch)
        in_use.close()


def test_a_cache_that_is_removed_while_it_is_used(tmp_path: Path) -> None:
    views = views_of(tmp_path / "cache")
    batches = [epoch_of(views, epoch) for epoch in range(VIEWS)]
    shutil.rmtree(tmp_path / "cache")
    for epoch, batch in enumerate(batches):
        same(epoch_of(views, epoch), batch)
    views.close()


def test_a_file_or_link_in_the_place_of_a_folder_of_the_cache_gives_way(tmp_path: Path) -> None:
    views = views_of(tmp_path / "cache")
    batch = epoch_of(views, 0)
    views.close()
    (folder,) = (p for p in (tmp_path / "cache").iterdir() if p.is_dir())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").touch()
    for make in (Path.touch, lambda path: path.symlink_to(elsewhere)):
        shutil.rmtree(folder)
        make(folder)
        again = views_of(tmp_path / "cache")
        same(epoch_of(again, 0), batch)
        again.close()
    assert [p.name for p in elsewhere.iterdir()] == ["mine"]


def _with_files(folder: Path) -> list[Sample]:
    """Files, of which 2 and 5 are none that can be read."""
    folder.mkdir()
    samples = []
    for k in range(COUNT):
        path = folder / f"{k}.png"
        Image.fromarray(pixels(k)).save(path)
        samples.append(Sample(str(path), target=OneClass(k % 3, 3)))
    Path(samples[2].key).write_bytes(b"broken")
    Path(samples[5].key).unlink()
    return samples


def test_bad_images_that_are_dropped_weigh_nothing(tmp_path: Path) -> None:
    samples = _with_files(tmp_path / "data")
    views = views_of(tmp_path / "cache", samples, bad_images="drop")
    assert {Path(key).name for key in views._loader.skipped} == {"2.png", "5.png"}
    batch = epoch_of(views, 0)
    assert batch.weight.tolist() == [1, 1, 0, 1, 1, 0, 1]
    assert (batch.inputs[[2, 5]] == 0).all()
    assert batch.targets["label"].tolist() == [0, 1, -1, 0, 1, -1, 0]


def test_another_stands_in_for_a_bad_image(tmp_path: Path, computed: list[int]) -> None:
    samples = _with_files(tmp_path / "data")
    views = views_of(tmp_path / "cache", samples, bad_images="substitute")
    batch = epoch_of(views, 0)
    assert batch.weight.tolist() == [1.0] * COUNT
    shown = [Path(sample.key).stem for sample in batch.samples]
    assert [s for k, s in enumerate(shown) if k not in (2, 5)] == ["0", "1", "3", "4", "6"]
    assert not {"2", "5"} & set(shown)
    assert batch.targets["label"].tolist() == [int(s) % 3 for s in shown]
    computed.clear()
    # Who knows from the start finds the same.
    again = views_of(tmp_path / "cache", samples, bad_images="substitute", compute=False)
    again._loader.skipped.update(views._loader.skipped)
    again.refresh()
    assert again.missing((32, 32)) == []
    same(epoch_of(again, 0), batch)


def test_bad_images_are_all_named(tmp_path: Path) -> None:
    samples = _with_files(tmp_path / "data")
    with pytest.raises(BadImageError, match=r"5\.png"):
        views_of(tmp_path / "cache", samples)
    Path(samples[5].key).write_bytes(b"broken, too")
    with pytest.raises(BadImageError, match=r"2\.png.*5\.png"):
        views_of(tmp_path / "cache", samples)
