"""What the sources on the command line stand for."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from retinue.data.sources.walking import DRAWN_MARK
from retinue.errors import UsageError
from retinue.files import write_text
from retinue.inference.inputs import expand

ODD = ["a b.jpg", 'it\'s "so".PNG', "new\nline.jpg", "花.jpeg", "[1].jpg"]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    for name in ("b.jpg", "a.png", "notes.txt", ".hidden.jpg", "z/c.webp", "z/.git/d.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_a_folder_gives_its_images_sorted(photos: Path) -> None:
    assert list(expand(["photos"])) == ["photos/a.png", "photos/b.jpg", "photos/z/c.webp"]


def test_a_file_is_taken_whatever_its_extension(photos: Path) -> None:
    assert list(expand(["photos/notes.txt", Path("photos/b.jpg")])) == [
        "photos/notes.txt",
        "photos/b.jpg",
    ]


def test_patterns(photos: Path) -> None:
    assert list(expand(["photos/**/*.webp", "photos/?.*"])) == [
        "photos/z/c.webp",
        "photos/a.png",
        "photos/b.jpg",
    ]


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\0"])
@pytest.mark.parametrize("text", [False, True])
def test_standard_input(photos: Path, separator: str, text: bool) -> None:
    names = ["photos/b.jpg", "photos/花.jpg", "photos/z", "gone.jpg"]
    data = separator.join(names)
    for given in (data, data + separator):
        stdin = io.StringIO(given, newline="") if text else io.BytesIO(given.encode())
        assert list(expand(["-"], stdin)) == [
            "photos/b.jpg",
            "photos/花.jpg",
            "photos/z/c.webp",
            "gone.jpg",  # named when it is read, as with any bad file of a stream
        ]


def test_a_nul_separated_list_may_hold_line_breaks(photos: Path) -> None:
    data = "\0".join(["new\nline.jpg"] * 30_000).encode()  # more than one block
    assert list(expand(["-"], io.BytesIO(data))) == ["new\nline.jpg"] * 30_000


def test_a_nul_separated_name_may_begin_in_an_earlier_block() -> None:
    class Slow(io.BytesIO):
        def read1(self, size: int | None = -1) -> bytes:
            return super().read(3)

    assert list(expand(["-"], Slow(b"new\nline.jpg\0b.jpg\0"))) == ["new\nline.jpg", "b.jpg"]
    assert list(expand(["-"], Slow(b"a.jpg\nb.jpg\n"))) == ["a.jpg", "b.jpg"]


def test_names_that_are_not_text(photos: Path) -> None:
    assert [os.fsencode(p) for p in expand(["-"], io.BytesIO(b"caf\xe9.jpg\n"))] == [b"caf\xe9.jpg"]


def test_a_list_is_relative_to_here_or_to_itself(photos: Path) -> None:
    (photos / "list.txt").write_text("photos/b.jpg\na.png\ngone.png\n\n")
    assert list(expand(["@photos/list.txt"])) == ["photos/b.jpg", "photos/a.png", "gone.png"]


@pytest.mark.parametrize("name", [*ODD, "@list.txt", "-x.jpg", "a*b.jpg"])
def test_what_exists_is_taken_by_its_name(photos: Path, name: str) -> None:
    Path(name).touch()
    assert list(expand([name])) == [name]
    (photos / "odd").mkdir()
    (photos / "odd" / f"{name}.png").touch()
    assert list(expand(["photos/odd"])) == [f"photos/odd/{name}.png"]


def test_a_folder_whose_name_has_a_line_break(photos: Path) -> None:
    os.rename("photos/z", "photos/new\nline")
    assert list(expand(["photos/new\nline"])) == ["photos/new\nline/c.webp"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("photoz", "did you mean 'photos'"),
        ("photos/b.jpeg", "did you mean 'photos/b.jpg'"),
        ("fotos/x/b.jpg", "did you mean 'photos'"),
        ("nothing-like-it", "no such file or folder"),
        ("photos/*.gif", "no file matches"),
        ("photos*", r"only folders do.*photos\*[/\\]+\*' stands for what lies in them"),
        ("@lists.txt", "no such list"),
        ("empty", "no images"),
        ("a\0b", "no such file"),
    ],
)
def test_a_source_that_is_not_there_is_refused_at_once(
    photos: Path, source: str, message: str
) -> None:
    Path("empty").mkdir()
    with pytest.raises(UsageError, match=message):
        expand(["photos", source])


def test_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing to predict on"):
        expand([])
    with pytest.raises(UsageError, match="standard input"):
        expand(["-"])


def test_links_are_followed_and_loops_end(photos: Path) -> None:
    (photos / "z" / "back").symlink_to(photos)
    (photos / "linked.jpg").symlink_to(photos / "b.jpg")
    assert list(expand(["photos"])) == [
        "photos/a.png",
        "photos/b.jpg",
        "photos/linked.jpg",
        "photos/z/c.webp",
    ]


def test_a_stream_is_read_as_it_comes(photos: Path) -> None:
    class Endless(io.BytesIO):
        def read1(self, size: int | None = -1) -> bytes:
            return b"photos/b.jpg\n"

    stream = expand(["-"], Endless())
    assert [next(stream) for _ in range(3)] == ["photos/b.jpg"] * 3


def test_a_folders_pictures_of_an_extra_are_not_passed_over(tmp_path: Path) -> None:
    """Where the extra is absent, reading them says so, and they are named among the skipped."""
    for name in ("a.jpg", "b.HEIC", "c.jxl", "d.txt", "e"):
        (tmp_path / name).touch()
    found = [os.path.basename(path) for path in expand([tmp_path])]
    assert found == ["a.jpg", "b.HEIC", "c.jxl"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("given", ["a list", "standard input"])
def test_a_list_is_read_whichever_program_wrote_it(photos: Path, encoding: str, given: str) -> None:
    """PowerShell's `>` writes UTF-16."""
    text = "photos/a.jpg\r\nphotos/ä 猫.jpg\r\n/nowhere/" + "x" * 70_000 + ".jpg\r\nlast.jpg"
    expected = text.split("\r\n")
    if given == "a list":
        (photos / "list.txt").write_bytes(text.encode(encoding))
        assert list(expand([f"@{photos / 'list.txt'}"])) == expected
    else:
        assert list(expand(["-"], io.BytesIO(text.encode(encoding)))) == expected


def test_quotes_and_blanks_go_where_the_file_then_exists(photos: Path) -> None:
    write_text(photos / "x y.jpg", "")
    write_text(photos / " led.jpg", "")
    entries = ['"x y.jpg"', " 'x y.jpg' ", "x y.jpg ", " led.jpg", '"gone.jpg"', "# a.jpg", "  "]
    write_text(photos / "list.txt", "\n".join(entries))
    at = os.path.join(photos, "x y.jpg")
    found = list(expand([f"@{photos / 'list.txt'}"]))
    assert found[:3] == [at, at, at]
    assert found[3:] == [os.path.join(photos, " led.jpg"), '"gone.jpg"', "# a.jpg"]


@pytest.mark.parametrize("entry", ["/", "~", "..", "{above}", "{home}"])
def test_a_list_does_not_mean_the_whole_disk(
    photos: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    monkeypatch.setenv("HOME", str(photos))
    monkeypatch.chdir(photos)
    named = entry.format(above=photos.parent, home=photos)
    write_text(photos / "list.txt", f"a.jpg\n{named}\n")
    found = expand(["@list.txt"])
    assert next(found) == "a.jpg"
    with pytest.raises(UsageError, match=r"holds far more than a list.*list\.txt', entry 2"):
        list(found)


def test_the_plots_of_a_run_are_not_looked_at(photos: Path) -> None:
    before = list(expand([photos]))
    run = photos / "runs" / "finetune"
    (run / "plots").mkdir(parents=True)
    for name in ("recipe.yaml", "environment.json", "plots/loss.png"):
        write_text(run / name, "")
    said: list[str] = []
    assert list(expand([photos], say=said.append)) == before
    assert said == [f"passed over: {str(run)!r} is what a training or an evaluation left"]
    assert list(expand([run])) == [str(run / "plots" / "loss.png")]


def test_drawn_predictions_are_not_looked_at_again(photos: Path) -> None:
    before = list(expand([photos]))
    for folder in ("answers/drawn", "older/drawn"):
        (photos / folder).mkdir(parents=True)
        write_text(photos / folder / "a.jpg", "")
    write_text(photos / "older" / "drawn" / DRAWN_MARK, "")
    said: list[str] = []
    assert list(expand([photos], out=photos / "answers", say=said.append)) == before
    assert said == [f"passed over: {str(photos / 'older' / 'drawn')!r} holds drawn predictions"]
    # Of pictures and answers that lie together, only the drawn ones are left out.
    (photos / "drawn").mkdir()
    write_text(photos / "drawn" / "a.jpg", "")
    said.clear()
    found = list(expand([photos], out=photos, say=said.append))
    assert str(photos / "drawn" / "a.jpg") not in found
    assert set(before) < set(found)
    # Who names them means them.
    drawn = photos / "older" / "drawn"
    assert list(expand([drawn])) == [str(drawn / "a.jpg")]


def test_a_folder_with_brackets_is_a_path_first_and_a_pattern_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("set[1]", "set1"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jpg").touch()
    assert list(expand(["set[1]"])) == ["set[1]/a.jpg"]
    assert list(expand(["set[12]/a.jpg"])) == ["set1/a.jpg"]
    assert list(expand(["camera:0", "RTSP://host/s", "set1"])) == [
        "camera:0", "RTSP://host/s", "set1/a.jpg",
    ]  # fmt: skip


def test_pictures_that_lie_where_the_answers_go_are_not_lost_in_silence(photos: Path) -> None:
    deep = next(path for path in sorted(photos.rglob("*")) if path.is_dir())
    said: list[str] = []
    found = list(expand([photos], out=deep, say=said.append))
    assert not any(path.startswith(f"{deep}/") for path in found)
    assert said == [f"passed over: {str(deep)!r} is where the answers go"]
    said.clear()
    assert list(expand([photos], out=photos / "new", say=said.append))
    assert said == []
    with pytest.raises(UsageError, match="are passed over: take another --out"):
        expand([deep.parent / "only"], out=_only(deep.parent / "only"))


def _only(folder: Path) -> Path:
    answers = folder / "answers"
    answers.mkdir(parents=True)
    (answers / "a.jpg").touch()
    return answers


def test_answers_among_pictures_are_told_of(photos: Path, tmp_path: Path) -> None:
    """A data set's folder was named by mistake; one that only answers lie in is right."""
    one = next(path for path in sorted(photos.rglob("*.jpg")))
    said: list[str] = []
    list(expand([one], out=photos, say=said.append))
    assert said == [f"the answers go among pictures: {str(photos)!r} holds some"]
    list(expand([photos], out=photos, say=said.append))
    list(expand([one], out=tmp_path / "new", say=said.append))
    for name in ("drawn", "crops"):
        (tmp_path / "answers" / name).mkdir(parents=True)
        (tmp_path / "answers" / name / "a.jpg").touch()
        (tmp_path / "answers" / name / DRAWN_MARK).touch()
    list(expand([one], out=tmp_path / "answers", say=said.append))
    assert len(said) == 1
