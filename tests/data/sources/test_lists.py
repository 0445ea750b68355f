"""Lists of images that divide a data set of PASCAL VOC."""

from __future__ import annotations

from pathlib import Path

import pytest
from box_sets import notes, picture, read, sizes, write, xml

from retinue.errors import UsageError


def kit(root: Path, *names: str) -> Path:
    for name in names:
        picture(root / "JPEGImages" / f"{name}.jpg")
        write(root / "Annotations" / f"{name}.xml", xml(("cat", 1, 1, 20, 20)))
    return root


def lists(root: Path, **splits: str) -> Path:
    for split, names in splits.items():
        write(root / "ImageSets" / "Main" / f"{split}.txt", "\n".join(names.split()) + "\n")
    return root


def test_a_development_kit_is_divided_by_its_lists(tmp_path: Path) -> None:
    root = lists(kit(tmp_path, *"abcde"), train="a b", val="c", trainval="a b c", test="d")
    write(root / "ImageSets" / "Main" / "cat_train.txt", "a  1\nb -1\ne  1\n")
    dataset = read(root)
    named = {split: [s.name for s in samples] for split, samples in dataset.splits.items()}
    assert named == {
        "train": ["JPEGImages/a.jpg", "JPEGImages/b.jpg"],
        "val": ["JPEGImages/c.jpg"],
        "test": ["JPEGImages/d.jpg"],
    }
    assert "1 image is in none of the lists: left out, 'JPEGImages/e.jpg'" in dataset.notes


def test_two_years_are_one_data_set(tmp_path: Path) -> None:
    lists(kit(tmp_path / "VOCdevkit" / "VOC2007", *"abc"), trainval="a b", test="c")
    lists(kit(tmp_path / "VOCdevkit" / "VOC2012", *"abd"), train="a", val="b", trainval="a b d")
    assert sizes(tmp_path) == {"train": 4, "val": 1, "test": 1}


def test_an_image_in_two_lists_is_refused(tmp_path: Path) -> None:
    root = lists(kit(tmp_path, *"ab"), train="a b", test="b")
    with pytest.raises(UsageError, match=r"'b' is in the lists of train and of test.*line 1"):
        read(root)


@pytest.mark.parametrize(
    ("given", "shares", "wanted"),
    [
        ("keep", (0.8, 0.1, 0.1), {"train": 10, "val": 6, "test": 4}),
        ("join", (0.75, 0.25, 0.0), {"train": 12, "val": 4, "test": 4}),
        ("join", (1.0, 0.0, 0.0), {"train": 16, "test": 4}),
        ("ignore", (0.5, 0.3, 0.2), {"train": 10, "val": 6, "test": 4}),
    ],
)
def test_lists_are_taken_joined_or_not(
    tmp_path: Path, given: str, shares: tuple[float, float, float], wanted: dict[str, int]
) -> None:
    names = [f"i{k:02d}" for k in range(20)]
    root = lists(
        kit(tmp_path, *names),
        train=" ".join(names[:10]),
        val=" ".join(names[10:16]),
        test=" ".join(names[16:]),
    )
    split = dict(zip(("train", "val", "test"), shares, strict=True)) | {"given": given}
    dataset = read(root, split=split)
    assert {k: len(v) for k, v in dataset.splits.items()} == wanted
    kept = {s.name[-7:-4] for s in dataset.splits["test"]} == set(names[16:])
    assert kept == (given != "ignore")
    assert ("6 validation images joined with train" in dataset.notes) == (given == "join")


def test_lists_without_a_folder_of_their_own(tmp_path: Path) -> None:
    root = kit(tmp_path, *"abc")
    for split, names in (("train", "a.jpg\nb.jpg"), ("val", "c.jpg")):
        write(root / "ImageSets" / f"{split}.txt", names)
    assert sizes(root) == {"train": 2, "val": 1}


def test_a_list_of_images_that_are_not_there(tmp_path: Path) -> None:
    root = lists(kit(tmp_path, *"ab"), train="a b", test="x y")
    assert "test.txt' is there: the list is passed over" in notes(root)
    lists(root, test="b y", train="a")
    with pytest.raises(UsageError, match=r"test.txt': 1 image that is not there: 'y'"):
        read(root)
