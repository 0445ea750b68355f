"""The page on which a data set is looked through: what is written for the browser, and where."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retinue.api import view_data
from retinue.errors import UsageError
from retinue.report import view

ODD = "猫 & <b>dog"


def pictures(root: Path, names: dict[str, int]) -> Path:
    draws = np.random.default_rng(0)
    for name, count in names.items():
        (root / name).mkdir(parents=True)
        for k in range(count):
            pixels = draws.integers(0, 255, (30, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{k}.jpg")
    return root


def told(file: Path) -> list[Any]:
    """What a script of the view calls its function with."""
    found = re.fullmatch(r"view\.\w+\((.*)\);\n", file.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return json.loads(f"[{found[1]}]")


def test_every_image_is_there_with_its_label_and_its_picture(tmp_path: Path) -> None:
    data = pictures(tmp_path / "photos", {ODD: 3, "rose": 5})
    made = view_data(data, tmp_path / "out", side=32)
    assert (made.images, made.unreadable, made.page) == (8, {}, tmp_path / "out" / "index.html")
    (catalogue,) = told(tmp_path / "out" / "catalogue.js")
    assert catalogue["classes"] == ["rose", ODD]
    assert [len([1 for row in catalogue["labels"] if row == [k]]) for k in (0, 1)] == [5, 3]
    portion, rows = told(tmp_path / "out" / "items" / "0.js")
    assert portion == 0
    assert len(rows) == 8
    for name, width, height, small, address, problem, marks in rows:
        assert (width, height, problem, marks) == (40, 30, "", [])
        with Image.open(tmp_path / "out" / small) as picture:
            assert picture.size == (32, 24)
        assert name.endswith(".jpg")
        assert (tmp_path / "out" / Path(address.split("/")[0])).parent == tmp_path / "out"
    assert told(tmp_path / "out" / "names.js")[0] == [row[0] for row in rows]


def test_nothing_in_a_name_is_markup_or_ends_a_script(tmp_path: Path) -> None:
    data = pictures(
        tmp_path / "x", {"</script><img src=x onerror=alert(1)>".replace("/", "∕"): 2, "b": 2}
    )
    out = view_data(data, tmp_path / "out").page.parent
    for file in out.rglob("*.js"):
        assert "<" not in file.read_text(encoding="utf-8")
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "innerHTML" not in page
    assert "default-src 'none'" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")


def test_what_is_marked_comes_with_its_place(tmp_path: Path) -> None:
    pictures(tmp_path / "d", {"images": 2})
    (tmp_path / "d" / "labels").mkdir()
    (tmp_path / "d" / "labels" / "0.txt").write_text("1 0.5 0.5 0.5 0.4\n")
    (tmp_path / "d" / "labels" / "1.txt").write_text("0 0.25 0.5 0.5 1\n1 0.5 0.5 1 1\n")
    (tmp_path / "d" / "data.yaml").write_text(
        "path: .\ntrain: images\nval: images\nnames: [a, b]\n"
    )
    out = view_data(tmp_path / "d" / "data.yaml", tmp_path / "out").page.parent
    rows = {row[0]: row[6] for row in told(out / "items" / "0.js")[1]}
    assert list(rows.values()) == [
        [[1, 10, 9, 30, 21, 0]],
        [[0, 0, 0, 20, 30, 0], [1, 0, 0, 40, 30, 0]],
    ]


def test_a_broken_image_is_named_and_ends_nothing(tmp_path: Path) -> None:
    data = pictures(tmp_path / "photos", {"a": 2, "b": 2})
    (data / "a" / "1.jpg").write_bytes(b"\xff\xd8 no image")
    made = view_data(data, tmp_path / "out")
    (reason,) = made.unreadable.values()
    assert list(made.unreadable) == [str(data / "a" / "1.jpg")]
    assert "cannot be read" not in reason  # which is said of all of them already
    (catalogue,) = told(tmp_path / "out" / "catalogue.js")
    assert catalogue["bad"] == [1]
    assert told(tmp_path / "out" / "items" / "0.js")[1][1][5]


def test_a_second_view_makes_only_what_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pictures(tmp_path / "photos", {"a": 3, "b": 3})
    out = view_data(data, tmp_path / "out").page.parent
    before = {path.name for path in out.glob("small/*/*")}
    cut = next(iter(out.glob("small/*/*")))
    cut.write_bytes(cut.read_bytes()[:50])  # the power went away
    (data / "a" / "2.jpg").unlink()
    Image.new("RGB", (50, 20)).save(data / "b" / "0.jpg")
    made: list[str] = []
    monkeypatch.setattr(
        view, "small", lambda s, side, key: made.append(key) or _small(s, side, key)
    )
    view_data(data, tmp_path / "out")
    assert str(data / "b" / "0.jpg") in made
    assert len(made) <= 2
    after = {path.name for path in out.glob("small/*/*")}
    assert len(after) == 5
    assert len(after & before) >= 4 - 1


_small = view.small


def test_portions_are_as_many_as_needed_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "PORTION", 3)
    data = pictures(tmp_path / "photos", {"a": 4, "b": 4})
    out = view_data(data, tmp_path / "out").page.parent
    assert [len(told(out / "items" / f"{k}.js")[1]) for k in range(3)] == [3, 3, 2]
    for k in range(4):
        (data / "a" / f"{k}.jpg").unlink()
    pictures(tmp_path / "more", {"c": 1})
    (tmp_path / "more" / "c").rename(data / "c")
    view_data(data, tmp_path / "out")
    assert sorted(path.name for path in (out / "items").iterdir()) == ["0.js", "1.js"]


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    data = pictures(tmp_path / "photos", {"a": 2, "b": 2})
    (tmp_path / "thesis").mkdir()
    (tmp_path / "marks").mkdir()
    box = "<xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>"
    (tmp_path / "marks" / "0.xml").write_text(
        "<annotation><filename>0.jpg</filename>"
        f"<object><name>a</name><bndbox>{box}</bndbox></object></annotation>"
    )
    (tmp_path / "thesis" / "index.html").write_text("mine")
    with pytest.raises(UsageError, match="something else than a view"):
        view_data(data, tmp_path / "thesis")
    for within in (data, data / "x", data / "a"):
        with pytest.raises(UsageError, match="within the data"):
            view_data(data, within)
    pool = pictures(tmp_path / "new", {"x": 1})
    with pytest.raises(UsageError, match="within the data"):
        view_data(data, pool / "view", pool=str(pool))
    with pytest.raises(UsageError, match="within the data"):
        view_data(tmp_path / "marks", pool / "view", images=str(pool), format="voc")
    assert [path.name for path in pool.iterdir()] == ["x"]
    table = tmp_path / "table.csv"
    table.write_text("path,label\nphotos/a/0.jpg,a\nphotos/b/0.jpg,b\n")
    assert view_data(table, tmp_path / "beside", images=str(tmp_path)).images == 2
    with pytest.raises(UsageError, match="this is a file"):
        view_data(data, tmp_path / "thesis" / "index.html")
    assert (tmp_path / "thesis" / "index.html").read_text() == "mine"
    with pytest.raises(UsageError, match="no such file or folder"):
        view_data(tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_view_of_other_data_is_replaced_only_where_one_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = pictures(tmp_path / "one" / "train", {"a": 2, "b": 1})
    two = pictures(tmp_path / "two" / "train", {"c": 1, "d": 1})
    monkeypatch.chdir(tmp_path)
    page = view_data(one).page  # by default both are train-view
    before = (page.parent / "names.js").read_bytes()
    with pytest.raises(UsageError, match=r"view of '\.\./one/train'.*--out.*--force"):
        view_data(two)
    assert (page.parent / "names.js").read_bytes() == before
    assert view_data("one/train").images == 3  # the same data by another name
    assert view_data(two, force=True).images == 2
    with pytest.raises(UsageError, match=r"view of '\.\./two/train'"):
        view_data(one)
    for text in ('{"retinue": "0.1"}', '{"retinue": "0.1", "data": 3}'):  # an older release's
        (page.parent / "view.json").write_text(text)
        with pytest.raises(UsageError, match="the folder holds the view of"):
            view_data(two)


def test_data_and_view_may_be_moved_together(tmp_path: Path) -> None:
    pictures(tmp_path / "here" / "data", {"a": 1, "b": 1})
    view_data(tmp_path / "here" / "data", tmp_path / "here" / "view")
    (tmp_path / "here").rename(tmp_path / "there")
    assert view_data(tmp_path / "there" / "data", tmp_path / "there" / "view").images == 2


@pytest.mark.parametrize("text", ["{}", "[1]", '{"camera": 3}', "no JSON", ""])
def test_somebody_elses_view_json_makes_no_view(tmp_path: Path, text: str) -> None:
    data = pictures(tmp_path / "photos", {"a": 1, "b": 1})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "view.json").write_text(text)
    with pytest.raises(UsageError, match="something else than a view"):
        view_data(data, tmp_path / "out", force=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["view.json"]
