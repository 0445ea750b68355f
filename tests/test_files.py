"""Files are replaced whole, and a path that is not there is answered."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from retinue import files
from retinue.files import expanded, nearest, read_text, replacing, sweep, write_text


def test_nothing_partial_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_text(path, "old")

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["a.txt"]


def test_a_file_is_synced_before_it_takes_its_name_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a power cut leaves a name with nothing behind it."""
    path, done = tmp_path / "a.txt", []
    replace = os.replace

    def synced(descriptor: int) -> None:
        there = os.fstat(descriptor)
        assert not path.exists() or os.path.samestat(there, tmp_path.stat())
        done.append("folder" if os.path.samestat(there, tmp_path.stat()) else there.st_size)

    def replaced(*names: Path) -> None:
        done.append("replace")
        replace(*names)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    write_text(path, "whole")
    assert done == [len("whole"), "replace", "folder"]


def test_errors_name_the_file_that_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"Not a directory: .*file/a\.txt'"):
        write_text(tmp_path / "file" / "a.txt", "")
    with pytest.raises(NotADirectoryError, match=r"Not a directory: .*file/b/a\.txt'"):
        write_text(tmp_path / "file" / "b" / "a.txt", "")

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/some/.temporary")

    monkeypatch.setattr("tempfile.mkstemp", denied)
    with pytest.raises(PermissionError, match=r"denied: .*/a\.txt'"):
        write_text(tmp_path / "a.txt", "")


def test_the_nearest_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "list.csv").touch()
    photos = str(tmp_path / "photos")
    assert nearest(tmp_path / "phots") == f"did you mean {photos!r}?"
    assert nearest(tmp_path / "phots" / "cats") == f"did you mean {photos!r}?"
    assert nearest(tmp_path / "other") == f"the nearest that exists is {str(tmp_path)!r}"
    assert nearest(tmp_path / "list.csv" / "x") == f"{str(tmp_path / 'list.csv')!r} is a file"
    assert nearest(tmp_path / "photos") == f"{photos!r} is a folder"
    monkeypatch.chdir(tmp_path)
    assert nearest(Path("phots")) == "did you mean 'photos'?"
    assert nearest(Path("other/x")) == f"the nearest that exists is {str(tmp_path)!r}"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
@pytest.mark.parametrize("text", ["path,label\r\nphotos/ä 猫.jpg,1\n", "", "a"])
def test_text_is_read_whichever_program_wrote_it(tmp_path: Path, encoding: str, text: str) -> None:
    if encoding == "utf-16-le" and len(text) < 4:
        pytest.skip("too little to tell")
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode(encoding))
    assert read_text(path) == text


@pytest.mark.parametrize("content", [b"caf\xe9: 1\n", "\ufeffab".encode("utf-16-le") + b"\x00"])
def test_other_bytes_are_no_text(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(UnicodeDecodeError):
        read_text(path)


@pytest.mark.parametrize("name", ["猫" * 80 + ".csv", "🐈" * 60, "n" * 255])
def test_every_name_that_a_file_can_have_is_written(tmp_path: Path, name: str) -> None:
    """The temporary one is longer, in bytes, too."""
    write_text(tmp_path / name, "whole")
    assert os.listdir(tmp_path) == [name]


def test_what_goes_wrong_is_said_of_the_name_that_was_asked_for(tmp_path: Path) -> None:
    place = tmp_path / "a.txt"
    with pytest.raises(OSError, match=r"a\.txt") as raised, replacing(place):
        place.mkdir()
    assert (raised.value.filename, raised.value.filename2) == (str(place), None)
    assert os.listdir(tmp_path) == ["a.txt"]


def test_what_kills_have_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from retinue.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.txt")], check=False)
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".a.txt.")
    kept = [".hidden", "a.partial", ".b.partial", ".c.TOOLONG12.partial", ".d.abcd1234"]
    for name in kept:
        (tmp_path / name).touch()
    (tmp_path / ".e.abcd1234.partial").mkdir()
    with replacing(tmp_path / "b.txt") as temporary:
        temporary.write_text("whole")
        sweep(tmp_path)  # while another, or this very process, is writing
    assert (tmp_path / "b.txt").read_text() == "whole"
    assert set(os.listdir(tmp_path)) == {*kept, ".e.abcd1234.partial", "b.txt"}
    sweep(tmp_path / "absent")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.timeout(10)
def test_only_files_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to pipe").symlink_to("pipe")
    (tmp_path / "circle").symlink_to("circle")
    for name in ("file", "link"):
        assert files.read_file(tmp_path / name) == b"content"
    for name in ("pipe", "to pipe"):
        with pytest.raises(files.NotAFileError, match="is a named pipe, not a file"):
            files.open_file(tmp_path / name)
    with pytest.raises(files.NotAFileError, match="device"):
        files.open_file("/dev/zero")
    with pytest.raises(IsADirectoryError):
        files.open_file(tmp_path)
    with pytest.raises(OSError, match="symbolic links"):
        files.open_file(tmp_path / "circle")
    with pytest.raises(FileNotFoundError):
        files.open_file(tmp_path / "gone")
    monkeypatch.chdir(tmp_path)  # a socket's path may not be long
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        with pytest.raises(files.NotAFileError, match="socket"):
            files.open_file("socket")
    assert files.nearest(tmp_path / "pipe").endswith("is a named pipe")


def test_entries_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "to folder").symlink_to("folder")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "file").touch()
    assert dict(files.entries(tmp_path)) == {
        "folder": True, "to folder": True, "circle": False, "file": False
    }  # fmt: skip


def test_nearest_of_overlong_names(tmp_path: Path) -> None:
    assert "exists" in files.nearest(tmp_path / ("x" * 300) / "y")


def test_ones_home_and_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert expanded("~/photos") == tmp_path / "photos"
    assert expanded(Path("photos")) == Path("photos")
    assert expanded("~nobody-of-that-name/photos") == Path("~nobody-of-that-name/photos")
