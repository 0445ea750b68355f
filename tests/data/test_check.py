"""Everything that is wrong with a data set is found, named, and never stops the check."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tiny
from PIL import Image, ImageEnhance

from retinue.data import readable
from retinue.data.check import CheckReport, check
from retinue.data.duplicates import DISTANCE, Prints, exact_groups, near_pairs
from retinue.data.image_check import HANDLING, check_image
from retinue.data.options import DataOptions, SplitOptions
from retinue.errors import UsageError
from retinue.sample import Sample
from retinue.tasks.task import task_type
from retinue.training.prepare import open_data
from retinue.training.recipe import Recipe

if TYPE_CHECKING:
    from salted import SaltedFolder

picture, encoded = sys.modules["salted"].picture, sys.modules["salted"].encoded


def look(path: Path, **options: Any) -> CheckReport:
    return check(DataOptions(path=str(path), **options), task_type("classification").readers())


def found(report: CheckReport) -> dict[str, list[str]]:
    return {finding.what: [Path(i).name for i in finding.items] for finding in report.findings}


def put(path: Path, seed: int, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(picture(seed, (96, 96)), "JPEG", **options))
    return path


def test_salted_folder(salted: SaltedFolder) -> None:
    report = look(salted.root)
    assert set(report.unreadable) == {str(path) for path in salted.bad}
    for path, word in salted.bad.items():
        assert word in report.unreadable[str(path)]
    assert report.images == len(salted.good) + len(salted.bad)
    kinds = {what: items for what, items in found(report).items() if what in HANDLING}
    assert kinds == {
        "wrong extension": ["really a jpeg.png"],
        "greyscale": ["grey16.png"],
        "CMYK": ["cmyk.jpg"],
        "palette": ["animated.gif", "palette alpha.png"],
        "transparent": ["palette alpha.png"],
        "16 bits": ["grey16.png"],
        "animated": ["animated.gif"],
        "EXIF-rotated": ["rotated.jpg"],
        "tiny": ["one pixel.png"],
    }
    json.dumps(report.as_dict())
    for what, count, detail in report.rows():
        assert what
        assert isinstance(count, int)
        assert detail


def test_a_clean_folder_has_no_findings(tmp_path: Path) -> None:
    for k in range(8):
        put(tmp_path / "ab"[k % 2] / f"{k}.jpg", k)
    report = look(tmp_path)
    assert report.findings == []
    assert report.classes == {"a": 4, "b": 4}
    assert report.rows()[1][0] == "problems"


def test_leakage_and_conflicting_labels(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in "ab":
            for k in range(3):
                put(tmp_path / split / name / f"{k}.jpg", hash_of(split, name, k))
    original = (tmp_path / "train/a/0.jpg").read_bytes()
    (tmp_path / "val/a/copy.jpg").write_bytes(original)
    (tmp_path / "train/a/twice.jpg").write_bytes((tmp_path / "train/a/1.jpg").read_bytes())
    (tmp_path / "train/b/conflict.jpg").write_bytes((tmp_path / "train/a/2.jpg").read_bytes())
    image = Image.open(tmp_path / "train/b/1.jpg")
    changed = ImageEnhance.Brightness(image.resize((80, 80))).enhance(0.9)
    (tmp_path / "val/b/smaller.png").write_bytes(encoded(changed, "PNG"))
    report = look(tmp_path)
    items = {f.what: f.items for f in report.findings}
    assert items["same image in two splits"] == [
        f"{tmp_path / 'train/a/0.jpg'} = {tmp_path / 'val/a/copy.jpg'}"
    ]
    assert items["near duplicates in two splits"] == [
        f"{tmp_path / 'train/b/1.jpg'} ≈ {tmp_path / 'val/b/smaller.png'}"
    ]
    assert items["same image under two labels"] == [
        f"{tmp_path / 'train/a/2.jpg'} = {tmp_path / 'train/b/conflict.jpg'}"
    ]
    assert (
        f"{tmp_path / 'train/a/1.jpg'} = {tmp_path / 'train/a/twice.jpg'}"
        in (items["same image twice"])
    )
    assert "near duplicates" not in items


def hash_of(*parts: object) -> int:
    return sum(ord(c) * 31**k for k, c in enumerate(str(parts))) % 2**31


def test_imbalance_empty_classes_and_strays(tmp_path: Path) -> None:
    for k in range(25):
        put(tmp_path / "many" / f"{k}.jpg", k)
    put(tmp_path / "few" / "x.jpg", 99)
    put(tmp_path / "stray.jpg", 100)
    (tmp_path / "none").mkdir()
    items = found(look(tmp_path))
    assert items == {
        "rare classes": ["few (1)"],
        "empty classes": ["none"],
        "images without labels": ["stray.jpg"],
    }


def test_table_with_gaps(tmp_path: Path) -> None:
    for k in range(3):
        put(tmp_path / f"{k}.jpg", k)
    put(tmp_path / "unlisted.jpg", 9)
    (tmp_path / "t.csv").write_text(
        "path,label,split\n0.jpg,a,train\ngone.jpg,b,train\n1.jpg,,train\n2.jpg,b,tset\n"
    )
    report = look(tmp_path / "t.csv")
    items = found(report)
    assert items["labels without images"] == ["gone.jpg"]
    assert items["images without labels"] == ["1.jpg", "unlisted.jpg"]
    assert len(items["labels that cannot be used"]) == 1
    errors = next(finding.items for finding in report.findings if finding.what == "errors")
    assert any("tset" in error and "line 5" in error for error in errors)


def test_class_mismatch_is_reported(tmp_path: Path) -> None:
    put(tmp_path / "train/a/1.jpg", 1)
    put(tmp_path / "val/b/2.jpg", 2)
    assert (
        "val has classes" in next(f for f in look(tmp_path).findings if f.what == "errors").items[0]
    )


def test_no_data_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        look(tmp_path / "gone")


@pytest.mark.parametrize(
    ("image", "options", "kinds"),
    [
        (picture(1).convert("L"), {"kind": "JPEG"}, ["greyscale"]),
        (picture(1).convert("RGBA"), {"kind": "PNG"}, ["transparent"]),
        (
            Image.fromarray(np.linspace(0, 1, 1600, dtype="f4").reshape(40, 40)),
            {"kind": "TIFF"},
            ["floating point"],
        ),
        (
            Image.fromarray(np.arange(1600, dtype="i4").reshape(40, 40)),
            {"kind": "TIFF"},
            ["greyscale", "32 bits"],
        ),
        (picture(1, (31, 400)), {"kind": "JPEG"}, ["tiny"]),
        (picture(1), {"kind": "WEBP"}, []),
    ],
)
def test_kinds(tmp_path: Path, image: Image.Image, options: dict[str, str], kinds: list) -> None:
    suffix = {"JPEG": "jpg", "PNG": "png", "TIFF": "tif", "WEBP": "webp"}[options["kind"]]
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(encoded(image, options["kind"]))
    result = check_image(str(path))
    assert (result.error, result.kinds) == (None, kinds)
    path.rename(path.with_suffix(".bmp"))
    assert check_image(str(path.with_suffix(".bmp"))).kinds == ["wrong extension", *kinds]


def test_near_pairs_equal_brute_force() -> None:
    rng = np.random.default_rng(0)
    hashes = [int(h) for h in rng.integers(0, 2**63, 60)]
    for k in range(60):
        changed = hashes[k]
        for bit in rng.choice(63, int(rng.integers(1, 7)), replace=False):
            changed ^= 1 << int(bit)
        hashes.append(changed)
    # Each of these agrees with the first in one band only.
    for k, bits in enumerate([(20, 36, 52), (4, 36, 52), (4, 20, 52), (4, 20, 36)]):
        hashes[60 + k] = hashes[0] ^ sum(1 << bit for bit in bits)
    prints = Prints.empty(len(hashes))
    prints.sound[:] = prints.structured[:] = True
    prints.hashes[:] = hashes
    prints.digests[:, 1] = np.arange(len(hashes))
    luma = np.repeat(rng.integers(0, 256, (1, 1024), dtype=np.uint8), len(hashes), axis=0)
    expected = [
        (i, j)
        for i in range(120)
        for j in range(i + 1, 120)
        if (hashes[i] ^ hashes[j]).bit_count() <= DISTANCE
    ]
    assert len(expected) > 10
    assert near_pairs(prints, luma.__getitem__).pairs == expected
    luma[60:] = 255 - luma[60:]
    found = near_pairs(prints, luma.__getitem__).pairs
    assert found
    assert not [pair for pair in found if pair[0] < 60 <= pair[1]]
    prints.digests[:, 1] = 0  # the same files are no near pairs
    assert not near_pairs(prints, luma.__getitem__).pairs
    groups = exact_groups(prints)
    assert groups == [list(range(120))]


def test_what_is_not_compared_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retinue.data.duplicates.LARGEST_BUCKET", 2)
    for k in range(3):
        put(tmp_path / "ab"[k % 2] / f"{k}.jpg", 1, quality=80 + k)
    items = found(look(tmp_path))
    assert sorted(items["not compared with all"]) == ["0.jpg", "1.jpg", "2.jpg"]


def test_only_one_class_is_found(tmp_path: Path) -> None:
    for k in range(3):
        put(tmp_path / "a" / f"{k}.jpg", k)
    report = look(tmp_path)
    assert found(report) == {"only one class": ["a"]}
    assert report.rows()[0][2].startswith("1 class;")


def test_plain_images_are_not_all_alike(tmp_path: Path) -> None:
    for k in range(4):
        path = tmp_path / "ab"[k % 2] / f"{k}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(Image.new("RGB", (64, 64), (k, 9, 200)), "PNG"))
    assert look(tmp_path).findings == []


def put_grey(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(Image.fromarray(values.astype(np.uint16)), "PNG"))


@pytest.mark.parametrize(("largest", "depth"), [(4095, 12), (1023, 10), (16000, 14), (200, 8)])
def test_16_bits_of_which_few_are_used(tmp_path: Path, largest: int, depth: int) -> None:
    ramp = np.linspace(0, largest, 64 * 64).reshape(64, 64)
    put_grey(tmp_path / "a" / "0.png", ramp)
    put_grey(tmp_path / "b" / "1.png", ramp[::-1] / 2)
    (found,) = (f for f in look(tmp_path).findings if f.what == "16 bits, hardly used")
    assert len(found.items) == 2
    assert f"set input.depth={depth}" in found.detail
    put_grey(tmp_path / "b" / "2.png", ramp.T / largest * 65535)
    assert "16 bits, hardly used" not in [f.what for f in look(tmp_path).findings]


def test_white_on_transparent(tmp_path: Path) -> None:
    shape = np.zeros((64, 64, 4), np.uint8)
    shape[16:48, 16:48] = 255
    shape[..., :3] = 255
    black = shape.copy()
    black[..., :3] = 0
    clear = np.full((64, 64, 4), (255, 255, 255, 0), np.uint8)
    for name, pixels in {"a/white": shape, "a/black": black, "b/clear": clear}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.png").write_bytes(encoded(Image.fromarray(pixels), "PNG"))
    assert found(look(tmp_path))["nothing to see on white"] == ["white.png"]


def test_progress_is_told_and_what_is_sound_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path / "cache"))
    for k in range(6):
        os.utime(put(tmp_path / "data" / "ab"[k % 2] / f"{k}.jpg", k), (1e9, 1e9))
    told: list[tuple[int, int]] = []
    readers = task_type("classification").readers()
    options = DataOptions(path=str(tmp_path / "data"))
    check(options, readers, lambda done, total: told.append((done, total)))
    assert told[0] == (0, 6)
    assert told[-1] == (6, 6)
    # A training that follows looks at none of them.
    monkeypatch.setattr(readable, "refuse_unreadable", None)
    paths = sorted((tmp_path / "data").rglob("*.jpg"))
    assert not readable.unreadable([Sample(str(path)) for path in paths])


ODD = {
    "whole": {"t.csv": "path,label\n0.jpg,a\n1.jpg,b\n2.jpg,a\n3.jpg,b\n"},
    "no file": {"t.csv": "path,label\n0.jpg,a\n1.jpg,b\ngone.jpg,a\n"},
    "addresses": {"t.csv": "path,label\nhttps://x.org/0.jpg,a\nhttps://x.org/9.jpg,b\n1.jpg,b\n"},
    "twice": {"t.csv": "path,label\n0.jpg,a\n1.jpg,b\n0.jpg,a\n"},
    "two meanings": {"t.csv": "path,label\n0,a\n1.jpg,b\n", "0.png": "0.jpg"},
    "no label": {"t.csv": "path,label\n0.jpg,a\n1.jpg,b\n2.jpg,\n3.jpg,nan\n"},
    "unknown split": {"t.csv": "path,label,split\n0.jpg,a,train\n1.jpg,b,tset\n"},
    "half split": {"t.csv": "path,label,split\n0.jpg,a,train\n1.jpg,b,\n2.jpg,b,train\n"},
    "only test": {"t.csv": "path,label,split\n0.jpg,a,test\n1.jpg,b,test\n"},
    "bad weight": {"t.csv": "path,label,sample_weight\n0.jpg,a,1\n1.jpg,b,-1\n"},
    "one class": {"t.csv": "path,label\n0.jpg,a\n1.jpg,a\n"},
    "no column": {"t.csv": "path,lable\n0.jpg,a\n"},
    "quote": {"t.csv": 'path,label\n0.jpg,"a\n'},
    "class without training": {"train/a/0.jpg": "0.jpg", "train/b/1.jpg": "1.jpg",
                               "val/c/2.jpg": "2.jpg"},
    "test alone": {"test/a/0.jpg": "0.jpg", "test/b/1.jpg": "1.jpg"},
    "flat": {"train/0.jpg": "0.jpg", "test/1.jpg": "1.jpg"},
    "folders": {"a/0.jpg": "0.jpg", "b/1.jpg": "1.jpg"},
}  # fmt: skip


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("name", ODD)
def test_check_and_training_refuse_the_same(name: str, skip: bool, tmp_path: Path) -> None:
    files, root = ODD[name], tmp_path / "d"
    for k in range(4):
        put((root if "t.csv" in files else tmp_path) / f"{k}.jpg", k)
    for file, content in files.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        source = (root if "t.csv" in files else tmp_path) / content
        if file.endswith("csv"):
            (root / file).write_text(content, encoding="utf-8")
        else:
            (root / file).write_bytes(source.read_bytes())
    options = DataOptions(
        path=str(root / "t.csv" if "t.csv" in files else root),
        on_bad_image="skip" if skip else "stop",
        split=SplitOptions(train=1, val=0, test=0),
    )
    model = {"name": "mnist_cnn", "weights": None}
    recipe = Recipe.model_validate(
        {**tiny.recipe(""), "model": model, "data": options.model_dump()}
    )
    refused = False
    try:
        task_type(recipe.task)(open_data(recipe).classes)
    except UsageError:
        refused = True
    try:
        checked = check(options, task_type("classification").readers()).refused
    except UsageError:
        checked = True
    assert checked == refused
    if not skip:
        assert refused == (name not in ("whole", "no label", "folders"))


def test_folds_are_looked_at_as_a_training_of_all_has_them(tmp_path: Path) -> None:
    for k in range(6):
        put(tmp_path / "ab"[k % 2] / f"{k}.jpg", k)
    report = look(tmp_path, split=SplitOptions(folds=3, test=0, val=0.2))
    assert not report.refused, report.findings
    assert sum(report.splits.values()) == 6
    assert set(report.splits) == {"train", "val"}
    assert any("fold 1 held out; a training has all 3 folds" in note for note in report.notes)
    rows = "".join(f"{'ab'[k % 2]}/{k}.jpg,{'ab'[k % 2]},{'xyz'[k // 2]}\n" for k in range(6))
    (tmp_path / "t.csv").write_text(f"path,label,fold\n{rows}")
    report = look(tmp_path / "t.csv", split=SplitOptions(folds="given", test=0, val=0.2))
    assert report.splits == {"train": 4, "val": 2}
    # What a training refuses is still said.
    (tmp_path / "t.csv").write_text("path,label\na/0.jpg,a\nb/1.jpg,b\n")
    report = look(tmp_path / "t.csv", split=SplitOptions(folds="given", test=0, val=0.2))
    assert report.refused
    assert "names no folds" in report.findings[0].items[0]


def test_images_of_the_pool_are_looked_at(tmp_path: Path) -> None:
    root, pool = tmp_path / "set", tmp_path / "pool"
    for split, seeds in (("train", range(4)), ("val", range(4, 6))):
        for k in seeds:
            put(root / split / "ab"[k % 2] / f"{k}.jpg", k)
    put(pool / "new.jpg", 20)
    for name, k in (("learnt.jpg", 0), ("judged.jpg", 4), ("also.jpg", 20)):
        put(pool / name, k, comment=b"other bytes, the same picture")
    (pool / "torn.jpg").write_bytes((pool / "new.jpg").read_bytes()[:200])
    report = look(root, pool=str(pool))
    assert [Path(path).name for path in report.unreadable] == ["torn.jpg"]
    assert report.images == 6
    assert report.splits == {"train": 4, "val": 2, "pool": 5}
    kinds = found(report)
    (pair,) = kinds["near duplicates in two splits"]
    assert "judged.jpg" in pair, "what judges is learnt from"
    assert len(kinds["near duplicates"]) == 2
    assert set(kinds) == {"unreadable", "near duplicates in two splits", "near duplicates"}
    assert not look(root, pool=str(root / "val")).unreadable
    assert look(root, pool=str(root / "val")).refused


@pytest.mark.parametrize(
    ("task", "sampler"), [("classification", "balanced"), ("multilabel", "repeat_factor")]
)
def test_a_sampler_is_named_that_the_labels_allow(tmp_path: Path, task: str, sampler: str) -> None:
    for k in range(12):
        put(tmp_path / f"{k}.jpg", k)
    rows = "".join(f"{k}.jpg,{'b' if k == 0 else 'a'}\n" for k in range(12))
    (tmp_path / "t.csv").write_text(f"path,label\n{rows}")
    report = check(DataOptions(path=str(tmp_path / "t.csv")), task_type(task).readers())
    (rare,) = (finding for finding in report.findings if finding.what == "rare classes")
    assert f"stages.0.sampler={sampler} " in rare.detail
