"""What a message names some of stands whole in a file that it names."""

from __future__ import annotations

import pickle
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
import typer

from retinue.cli.failures import describe
from retinue.cli.output import MOST_NAMED, end_with, name_skipped
from retinue.errors import BadImageError, RetinueError, UsageError, some


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_some_of_many() -> None:
    assert some(["a", "b"], 2) == "a; b"
    assert some(["a", "b", "c"], 2, between=", ") == "a, b and 1 more"
    assert some([]) == ""


def test_all_bad_images_are_in_a_file(tmp_path: Path) -> None:
    error = BadImageError({f"{i}\n.jpg": "cut" for i in range(25)}, mend="remove them")
    line, code = describe(error)
    assert code == 1
    assert line.startswith("error: 25 images cannot be read, '0")
    assert " and 5 more, all 25 are in '" in line
    assert line.endswith(".txt', remove them")
    (file,) = tmp_path.glob("retinue-list-*.txt")
    assert str(file) in line
    kept = file.read_text("utf-8").splitlines()
    assert len(kept) == 25
    assert "24" in kept[24]
    assert "cut" in kept[24]


def test_few_need_no_file(tmp_path: Path) -> None:
    line, _ = describe(BadImageError({f"{i}.jpg": "cut" for i in range(20)}))
    assert "all 20" not in line
    assert list(tmp_path.iterdir()) == []


def test_without_a_place_for_a_file_the_message_has_them_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    line, _ = describe(UsageError("bad rows", details=[f"row {i}" for i in range(30)]))
    assert "row 29" in line
    name_skipped({f"{i}.jpg": "cut" for i in range(MOST_NAMED + 10)})
    assert f"skipped {MOST_NAMED + 9}.jpg" in capsys.readouterr().err


def test_errors_travel_between_processes_whole() -> None:
    for error in (
        BadImageError({"a": "b"}, mend="c"),
        RetinueError("a", where="b", mend="c", details=["d"]),
    ):
        other: Any = pickle.loads(pickle.dumps(error))
        assert type(other) is type(error)
        assert (str(other), other.details) == (str(error), error.details)
    assert pickle.loads(pickle.dumps(BadImageError({"a": "b"}, mend="c"))).reasons == {"a": "b"}


@pytest.mark.parametrize("kept", [None, "runs/x/environment.json"])
def test_skipped_files_are_all_somewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kept: str | None
) -> None:
    many = {f"{i}.jpg": "cut" for i in range(MOST_NAMED + 10)}
    with pytest.raises(typer.Exit) as end:
        end_with(many, kept)
    assert end.value.exit_code == 3
    err = capsys.readouterr().err
    assert err.count("skipped ") == MOST_NAMED
    assert f"{len(many)} files were skipped" in err
    found = re.search(r"and 10 more: all are in (.+)", err)
    assert found
    if kept is not None:
        assert found[1] == kept
        assert list(tmp_path.iterdir()) == []
    else:
        assert len(Path(found[1]).read_text("utf-8").splitlines()) == len(many)
