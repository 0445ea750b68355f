"""What to predict on: a row an image, from folders, lists, Parquet files and shards."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from retinue.bulk.rows import digest, rows_of, samples
from retinue.errors import UsageError


def png(value: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 5, 3), value, np.uint8)).save(stream, "png")
    return stream.getvalue()


def read(table: pa.Table) -> list[tuple[str, bytes | str]]:
    """Key and bytes of each sample, or why there are none."""
    found: list[tuple[str, bytes | str]] = []
    for sample in samples(table):
        try:
            content: Any = sample.read() if sample.read else Path(sample.key).read_bytes()
        except OSError as error:
            content = str(error)
        found.append((sample.key, content))
    return found


def write(place: Path, rows: int | None = None, /, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), place, row_group_size=rows)
    return place


def test_a_folder_a_file_twice_and_a_list(tmp_path: Path, pictures: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"{pictures / '01.png'}\nabsent.png\n{pictures / '01.png'}\n")
    one = pictures / "00.png"
    table = rows_of([pictures, one, one, f"@{listed}"])
    names = [os.path.basename(key) for key, _ in read(table.slice(0, 0))]
    assert names == []
    paths = [os.path.basename(os.fsdecode(path)) for path in table["path"].to_pylist()]
    assert paths[:11] == [f"{k:02d}.png" for k in range(11)]
    assert paths[11:] == ["00.png", "00.png", "01.png", "absent.png", "01.png"]


def test_relative_paths_are_read_from_here_and_shown_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    monkeypatch.chdir(tmp_path)
    table = rows_of(["a.png"])
    monkeypatch.chdir("/")
    assert read(table) == [("a.png", png(1))]


def test_a_column_of_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As written, or else from the folder of the file."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(png(1))
    (tmp_path / "b.png").write_bytes(png(2))
    names = ["a.png", "b.png", None, "absent.png", str(tmp_path / "b.png")]
    file = write(tmp_path / "data" / "t.parquet", number=[1, 2, 3, 4, 5], file_name=names)
    monkeypatch.chdir(tmp_path)
    found = read(rows_of(["data/t.parquet"]))
    assert [content for _, content in found] == [
        png(1), png(2), "the cell of its path is empty",
        f"[Errno 2] No such file or directory: '{tmp_path}/absent.png'", png(2),
    ]  # fmt: skip
    assert [key for key, _ in found][:3] == ["data/a.png", "b.png", "data/t.parquet#2"]
    assert file.is_file()


@pytest.mark.parametrize("group", [1, 3, 100])
def test_a_column_of_bytes(tmp_path: Path, group: int) -> None:
    content = [None if k == 5 else png(k) for k in range(80)]
    file = write(tmp_path / "t.PARQUET", group, image=content)
    table = rows_of([file])
    expected = [(f"{file}#{k}", "its cell has no image" if k == 5 else png(k)) for k in range(80)]
    assert read(table) == expected
    assert read(table.slice(37, 9)) == expected[37:46], "a part, wherever it begins"
    assert read(table.take(pa.array([7, 8, 2, 2, 3]))) == [expected[k] for k in (7, 8, 2, 2, 3)]


def test_the_bytes_of_hugging_face(tmp_path: Path) -> None:
    cells = [{"bytes": png(1), "path": "x/1.png"}, {"bytes": None, "path": "2.png"}, None]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    file = write(tmp_path / "t.parquet", label=[0, 1, 2], image=pa.array(cells, kind))
    assert read(rows_of([file])) == [
        ("x/1.png", png(1)), ("2.png", "its cell has no image"),
        (f"{file}#2", "its cell has no image"),
    ]  # fmt: skip


def test_bytes_with_a_column_of_names(tmp_path: Path) -> None:
    file = write(tmp_path / "t.parquet", path=["same", "same"], bytes=[png(1), png(2)])
    assert read(rows_of([file])) == [("same", png(1)), ("same", png(2))]


def test_a_parquet_file_that_changed_since(tmp_path: Path) -> None:
    file = write(tmp_path / "t.parquet", image=[png(1), png(2), png(3)])
    table = rows_of([file])
    before = digest(table)
    write(file, image=[png(1)])
    assert [content for _, content in read(table)][1:] == ["the Parquet file has no such row"] * 2
    assert digest(table) != before
    file.write_bytes(b"PAR1 nothing PAR1")
    assert all(isinstance(content, str) for _, content in read(table))


def test_parquet_without_images(tmp_path: Path) -> None:
    file = write(tmp_path / "t.parquet", score=[1.0], name=["a"])
    with pytest.raises(UsageError, match=r"there are 'score', 'name'.*t.parquet.*`image`"):
        rows_of([file])
    file.write_bytes(b"PAR1")
    with pytest.raises(UsageError, match="this is no Parquet file"):
        rows_of([file])


def tar(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def test_shards_without_labels(tmp_path: Path) -> None:
    file = tar(tmp_path / "s.tar", ("a/1.png", png(1)), ("a/1.cls", b"0"), ("2.JPG", b"bad"))
    table = rows_of([tmp_path])
    assert read(table) == [(f"{file}#a/1.png", png(1)), (f"{file}#2.JPG", b"bad")]
    whole = file.read_bytes()
    file.write_bytes(whole.replace(png(1), png(9)))
    assert "other bytes than when" in str(read(table)[0][1])
    file.write_bytes(whole[:540])
    assert "ends within it" in str(read(rows_of([file]))[0][1])


def test_shards_of_tensorflow(shared: Any) -> None:
    folder = shared("data/tfrecord-flowers")
    table = rows_of([folder])
    assert len(table) == 140
    assert all(isinstance(content, bytes) for _, content in read(table.slice(0, 5)))


def test_what_is_no_shard(tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(b"\x1f\x8b" + bytes(2000))
    with pytest.raises(UsageError, match="no tar file, or a compressed one"):
        rows_of([tmp_path / "s.tar"])
    (tmp_path / "s.tfrecord").write_bytes(b"nothing of that kind" * 9)
    with pytest.raises(UsageError, match="no TFRecord file"):
        rows_of([tmp_path / "s.tfrecord"])


def test_what_cannot_be_done(tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"x")
    for source in (tmp_path / "clip.mp4", "camera:0", "rtsp://a/b"):
        with pytest.raises(UsageError, match="looked at by one process"):
            rows_of([pictures, source])
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "empty", tmp_path / "absent", tmp_path / "*.parquet"):
        with pytest.raises(UsageError):
            rows_of([source])
    (tmp_path / "list").write_text("\n\n")
    with pytest.raises(UsageError, match="nothing to predict on"):
        rows_of([f"@{tmp_path / 'list'}"])


def test_a_folder_of_pictures_with_a_table_in_it_is_one_of_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    write(tmp_path / "metadata.parquet", path=["a.png"])
    assert len(rows_of([tmp_path])) == 1


def test_the_digest_is_of_what_lies_there(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(png(1))
    both = rows_of([tmp_path])
    found = {digest(both), digest(rows_of([tmp_path / "a.png"])), digest(both.take([1, 0]))}
    assert len(found) == 3
    assert digest(rows_of([tmp_path])) in found
    os.utime(tmp_path / "a.png", (1, 1))
    assert digest(rows_of([tmp_path])) not in found
